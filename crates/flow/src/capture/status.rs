//! What `status` shows of a source, kept current by its capture.

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

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// `running` or `done`.
    pub state: &'static str,
    pub tables: u64,
    pub tables_done: u64,
    pub rows: u64,
    pub rows_estimated: u64,
    pub rows_per_second: u64,
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
            },
            quarantined: Vec::new(),
        })))
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
