//! What `status` shows of a source, kept current by its capture.

use super::{CaptureError, CaptureErrorKind};
use crate::capture::kafka::ticdc::order;
use crate::config::SnapshotMode;
use crate::interruptions::Interruptions;
use crate::mirror::MirrorStatus;
use base::{CapturePosition, Position, SnapshotProgress, TopicPosition};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// Of a Kafka source: the offset of the next record, by topic and partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets: Option<BTreeMap<String, Vec<i64>>>,
    /// Of topics that TiCDC fills: everything that was committed before this timestamp (TSO) is in the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_ts: Option<String>,
}

impl PositionStatus {
    pub fn of_topics(topics: &BTreeMap<String, TopicPosition>) -> Self {
        let named = topics.iter().filter(|(name, _)| order::is_topic(name));
        let offsets = named.map(|(name, topic)| (name.clone(), topic.next.clone())).collect();
        let commit_ts = Some(order::sealed_before(topics)).filter(|ts| *ts > 0).map(|ts| ts.to_string());
        Self { offsets: Some(offsets), commit_ts, ..Self::default() }
    }

    /// The newest file that was begun.
    pub fn of_capture(files: &BTreeMap<String, CapturePosition>) -> Self {
        let newest = files.last_key_value();
        Self {
            file: newest.map(|(name, _)| name.clone()),
            pos: newest.map(|(_, at)| at.block + u64::from(at.taken)),
            ..Self::default()
        }
    }

    pub fn of(position: Option<&Position>) -> Self {
        let Some(position) = position else { return Self::default() };
        if let Position::Sqlite { change_id } = position {
            return Self { pos: Some(*change_id as u64), ..Self::default() };
        }
        if let Position::Push { requests, .. } = position {
            return Self { pos: Some(*requests), ..Self::default() };
        }
        if let Position::Kafka { topics } = position {
            return Self::of_topics(topics);
        }
        if let Position::Capture { files } = position {
            return Self::of_capture(files);
        }
        let (file, pos) = position.file_pos().map_or((None, None), |(f, p)| (Some(f.to_owned()), Some(p)));
        Self { gtid: position.gtid_text(), file, pos, ..Self::default() }
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

impl SnapshotStatus {
    /// All tables were read, or there is nothing to read before the changes.
    pub fn done(tables: u64, rows: u64) -> Self {
        Self {
            state: "done",
            tables,
            tables_done: tables,
            rows,
            rows_estimated: rows,
            rows_per_second: 0,
            holds_stream: None,
        }
    }

    /// As far as it is, by what the journal knows of it.
    pub fn of(progress: &SnapshotProgress, done: bool) -> Self {
        let tables = &progress.tables;
        Self {
            state: if done { "done" } else { "running" },
            tables: tables.len() as u64,
            tables_done: tables.values().filter(|table| table.done).count() as u64,
            rows: progress.rows(),
            rows_estimated: tables.values().map(|table| table.rows_estimated.max(table.rows)).sum(),
            rows_per_second: 0,
            holds_stream: None,
        }
    }
}

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct QuarantineStatus {
    pub table: String,
    pub reason: String,
}

#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct WatermarkStatus {
    /// The least one of all partitions; `None` until each has told one.
    pub commit_ts: Option<String>,
    /// Its age.
    pub lag_ms: u64,
    /// Whether it has stood still for longer than `watermark_timeout`.
    pub stalled: bool,
    /// The partition that is behind the others: `topic-partition`.
    pub slowest: Option<String>,
    /// Bytes of messages that wait for it.
    pub held_bytes: u64,
    /// Events that were dropped because their commit is in the journal already, since this process began.
    pub repeated: u64,
    /// The table whose definition is waited for: with the simple protocol, for the next bootstrap message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
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
    /// Of a Kafka source: messages that the topics have and the journal lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_messages: Option<u64>,
    /// Of a Kafka source: messages that could not be read and were passed over, since this process began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_messages: Option<u64>,
    /// Of topics that TiCDC fills: how far their watermarks are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkStatus>,
    /// Of a source of captured statements: times that some were gone before they were read, since this process began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaps: Option<u64>,
    pub snapshot: SnapshotStatus,
    pub quarantined: Vec<QuarantineStatus>,
    /// The latest rows that are kept beside the journal, where someone wants them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStatus>,
}

/// Of an error that passes by itself.
const AWAY_HINT: &str = "capture goes on by itself once the source answers: is it up, and the url right?";

/// Shared between a capture and whoever asks.
#[derive(Clone)]
pub struct StatusCell(Arc<Mutex<Watched>>);

struct Watched {
    status: SourceStatus,
    interruptions: Interruptions,
    /// Where the source was when it was interrupted.
    broke_at: PositionStatus,
}

impl StatusCell {
    pub fn new(name: &str) -> Self {
        let status = SourceStatus {
            name: name.to_owned(),
            state: "stream",
            error: None,
            epoch: 0,
            lsn: 0,
            position: PositionStatus::default(),
            lag_ms: 0,
            lag_messages: None,
            skipped_messages: None,
            watermark: None,
            gaps: None,
            snapshot: SnapshotStatus::done(0, 0),
            quarantined: Vec::new(),
            mirror: None,
        };
        let (interruptions, broke_at) = (Interruptions::default(), PositionStatus::default());
        Self(Arc::new(Mutex::new(Watched { status, interruptions, broke_at })))
    }

    /// What the journal says before capture has said anything: a snapshot that has not begun is not done.
    pub fn recall(&self, state: &journal::State, mode: SnapshotMode) {
        let fresh = state.position.is_none() && mode == SnapshotMode::Initial;
        let running = fresh || !state.snapshot.is_done();
        self.update(|status| {
            status.state = if running { "snapshot" } else { "stream" };
            status.snapshot = SnapshotStatus::of(&state.snapshot, !running);
            status.position = PositionStatus::of(state.position.as_ref());
        });
    }

    pub fn get(&self) -> SourceStatus {
        self.lock().status.clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.lock().status);
    }

    /// Capture stands still for this reason; it tries again by itself.
    pub fn interrupted(&self, error: &CaptureError) {
        let message = base::error::chain(error);
        let away = error.kind == CaptureErrorKind::Unavailable;
        let hint = error.hint.clone().or_else(|| away.then(|| AWAY_HINT.to_owned()));
        let mut cell = self.lock();
        let name = cell.status.name.clone();
        if let Some(times) = cell.interruptions.meet(&message, Instant::now()) {
            let times = (times > 1).then_some(times);
            tracing::warn!(source = name, error = message, hint, times, "capture interrupted");
        }
        metrics::counter!(base::metrics::CAPTURE_ERRORS, "source" => name).increment(1);
        cell.broke_at = cell.status.position.clone();
        cell.status.error = Some(ErrorStatus { message, hint });
        if !away {
            cell.status.state = "failed";
        }
    }

    /// Capture works: shows how far it is, and logs when that ends an interruption or a snapshot.
    pub fn advance(&self, change: impl FnOnce(&mut SourceStatus)) {
        let mut cell = self.lock();
        let snapshot_ran = cell.status.snapshot.state == "running";
        change(&mut cell.status);
        cell.status.error = None;
        // A connection alone proves nothing: what could not be passed may be the next event.
        let goes_on = cell.status.lag_ms == 0 || cell.status.position != cell.broke_at;
        if goes_on && cell.interruptions.end() {
            tracing::info!(source = cell.status.name, "capture resumed");
        }
        let SourceStatus { name, snapshot, .. } = &cell.status;
        if snapshot_ran && snapshot.state == "done" {
            tracing::info!(source = name, tables = snapshot.tables, rows = snapshot.rows, "snapshot done");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
