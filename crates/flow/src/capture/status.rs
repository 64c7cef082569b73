//! What `status` shows of a source, kept current by its capture.

use crate::config::SnapshotMode;
use base::Position;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct ErrorStatus {
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct PositionStatus {
    pub gtid: Option<String>,
    pub file: Option<String>,
    pub pos: Option<u64>,
}

impl PositionStatus {
    pub fn of(position: Option<&Position>) -> Self {
        let Some(position) = position else { return Self::default() };
        if let Position::Sqlite { change_id } = position {
            return Self { pos: Some(*change_id as u64), ..Self::default() };
        }
        let (file, pos) = position.file_pos().map_or((None, None), |(f, p)| (Some(f.to_owned()), Some(p)));
        Self { gtid: position.gtid_text(), file, pos }
    }
}

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// `running` or `done`.
    pub state: &'static str,
    pub tables: u64,
    pub tables_done: u64,
    pub rows: u64,
    pub rows_estimated: u64,
    pub rows_per_second: u64,
    /// The table without a key that is being read while every other change of the source waits.
    pub holds_stream: Option<String>,
}

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct QuarantineStatus {
    pub table: String,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct SourceStatus {
    pub name: String,
    /// `snapshot`, `stream` or `failed`.
    pub state: &'static str,
    pub error: Option<ErrorStatus>,
    pub epoch: u32,
    pub lsn: u64,
    pub position: PositionStatus,
    /// Milliseconds between the last change's commit and its capture; 0 when capture has caught up.
    pub lag_ms: u64,
    pub snapshot: SnapshotStatus,
    pub quarantined: Vec<QuarantineStatus>,
}

/// Shared between a capture and whoever asks.
#[derive(Clone)]
pub struct StatusCell(Arc<Mutex<SourceStatus>>);

impl StatusCell {
    pub fn new(name: &str) -> Self {
        Self(Arc::new(Mutex::new(SourceStatus {
            name: name.to_owned(),
            state: "stream",
            error: None,
            epoch: 0,
            lsn: 0,
            position: PositionStatus::default(),
            lag_ms: 0,
            snapshot: SnapshotStatus {
                state: "done",
                tables: 0,
                tables_done: 0,
                rows: 0,
                rows_estimated: 0,
                rows_per_second: 0,
                holds_stream: None,
            },
            quarantined: Vec::new(),
        })))
    }

    /// What the journal says before capture has said anything: a snapshot that has not begun is not done.
    pub fn recall(&self, state: &journal::State, mode: SnapshotMode) {
        let fresh = state.position.is_none() && mode == SnapshotMode::Initial;
        let running = fresh || !state.snapshot.is_done();
        let tables = &state.snapshot.tables;
        self.update(|status| {
            status.state = if running { "snapshot" } else { "stream" };
            status.snapshot = SnapshotStatus {
                state: if running { "running" } else { "done" },
                tables: tables.len() as u64,
                tables_done: tables.values().filter(|t| t.done).count() as u64,
                rows: state.snapshot.rows(),
                rows_estimated: tables.values().map(|t| t.rows_estimated.max(t.rows)).sum(),
                rows_per_second: 0,
                holds_stream: None,
            };
            status.position = PositionStatus::of(state.position.as_ref());
        });
    }

    pub fn get(&self) -> SourceStatus {
        self.lock().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, SourceStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
