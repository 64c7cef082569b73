//! What `status` shows of a flow.

use super::now_ms;
use crate::capture::status::ErrorStatus;
use crate::config::SinkKind;
use crate::interruptions::Interruptions;
use crate::transform::LeftOut;
use journal::Sealed;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct FlowStatus {
    pub name: String,
    pub from: String,
    pub to: String,
    /// The kind of the sink.
    pub kind: &'static str,
    /// `running`, `paused` or `failed`.
    pub state: &'static str,
    /// The last change that is durable in the sink.
    pub lsn: u64,
    /// Age of the oldest change that the sink lacks, by the source's clock; 0 when there is none.
    pub lag_ms: u64,
    /// Changes in the journal that the sink lacks.
    pub lag_changes: u64,
    pub error: Option<ErrorStatus>,
    pub dead_letters: u64,
    /// Changes delivered since this process began.
    pub delivered: u64,
    /// Rows that `dedup` left out since this process began; those that are read again, after an interruption or a rewind, count again.
    /// `null` for a flow without it.
    pub left_out: Option<LeftOut>,
    /// Whether the journal is past its retention and kept for this flow alone.
    pub holds_journal: bool,
    /// How the last comparison by schedule ended, since this process began.
    pub verify: Option<VerifyStatus>,
}

/// A comparison of both ends: the sums over all tables.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct VerifyStatus {
    /// When it ended, in UTC.
    pub at: String,
    /// `null` when it failed.
    pub equal: Option<bool>,
    pub rows: u64,
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    pub undecided: u64,
    pub parked: u64,
    /// Why it failed.
    pub error: Option<ErrorStatus>,
}

#[derive(Clone)]
pub struct FlowStatusCell(Arc<Mutex<Watched>>);

struct Watched {
    status: FlowStatus,
    interruptions: Interruptions,
    /// Where the flow was when it was interrupted.
    broke_at: u64,
    /// The commit of the oldest change that the sink lacks, as far as it is known; `None` when it lacks none.
    lacks_since_ms: Option<i64>,
}

impl FlowStatusCell {
    pub fn new(name: &str, from: &str, to: &str, kind: SinkKind) -> Self {
        let status = FlowStatus {
            name: name.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            kind: kind.name(),
            state: "running",
            lsn: 0,
            lag_ms: 0,
            lag_changes: 0,
            error: None,
            dead_letters: 0,
            delivered: 0,
            left_out: None,
            holds_journal: false,
            verify: None,
        };
        Self(Arc::new(Mutex::new(Watched {
            status,
            interruptions: Interruptions::default(),
            broke_at: 0,
            lacks_since_ms: None,
        })))
    }

    pub fn get(&self) -> FlowStatus {
        self.lock().status.clone()
    }

    /// The labels of the flow's metrics.
    pub fn labels(&self) -> [(&'static str, String); 2] {
        let cell = self.lock();
        [("flow", cell.status.name.clone()), ("kind", cell.status.kind.to_owned())]
    }

    /// The status against the journal's end: how far the sink is behind, also while nothing moves.
    pub fn against(&self, end: Sealed) -> FlowStatus {
        let mut cell = self.lock();
        let lag_changes = end.lsn.saturating_sub(cell.status.lsn);
        cell.status.lag_changes = lag_changes;
        cell.status.lag_ms = if lag_changes == 0 {
            cell.lacks_since_ms = None;
            0
        } else {
            // Before the flow has seen what waits, the newest commit says how old it is at least.
            let since = *cell.lacks_since_ms.get_or_insert(if end.ts_ms > 0 { end.ts_ms } else { now_ms() });
            now_ms().saturating_sub(since).max(0) as u64
        };
        cell.status.clone()
    }

    /// The oldest change that the sink lacks was committed then.
    pub fn lacks_since(&self, ts_ms: i64) {
        self.lock().lacks_since_ms = Some(ts_ms).filter(|ts| *ts > 0);
    }

    pub fn update(&self, change: impl FnOnce(&mut FlowStatus)) {
        change(&mut self.lock().status);
    }

    /// Delivery stands still for this reason; it tries again by itself. `away`: it only waits for the sink.
    pub fn interrupted(&self, error: ErrorStatus, away: bool) {
        let mut cell = self.lock();
        let name = cell.status.name.clone();
        let ErrorStatus { message, hint } = &error;
        if let Some(times) = cell.interruptions.meet(message, Instant::now()) {
            let times = (times > 1).then_some(times);
            tracing::warn!(flow = name, error = message, hint, times, "delivery interrupted");
        }
        let labels = [("flow", name), ("kind", cell.status.kind.to_owned())];
        metrics::counter!(base::metrics::DELIVERY_ERRORS, &labels).increment(1);
        cell.broke_at = cell.status.lsn;
        cell.status.state = if away { "running" } else { "failed" };
        cell.status.error = Some(error);
    }

    /// Delivery works: shows how far it is, and logs when that ends an interruption.
    pub fn advance(&self, change: impl FnOnce(&mut FlowStatus)) {
        let mut cell = self.lock();
        change(&mut cell.status);
        // A connection alone proves nothing: what the sink did not take may come next.
        let goes_on = cell.status.lag_changes == 0 || cell.status.lsn > cell.broke_at;
        if goes_on && cell.interruptions.end() {
            tracing::info!(flow = cell.status.name, "delivery resumed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
