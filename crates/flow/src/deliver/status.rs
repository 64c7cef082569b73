//! What `status` shows of a flow.

use crate::capture::status::ErrorStatus;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct FlowStatus {
    pub name: String,
    pub from: String,
    pub to: String,
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
    /// Whether the journal is past its retention and kept for this flow alone.
    pub holds_journal: bool,
}

#[derive(Clone)]
pub struct FlowStatusCell(Arc<Mutex<FlowStatus>>);

impl FlowStatusCell {
    pub fn new(name: &str, from: &str, to: &str) -> Self {
        Self(Arc::new(Mutex::new(FlowStatus {
            name: name.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            state: "running",
            lsn: 0,
            lag_ms: 0,
            lag_changes: 0,
            error: None,
            dead_letters: 0,
            delivered: 0,
            holds_journal: false,
        })))
    }

    pub fn get(&self) -> FlowStatus {
        self.lock().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut FlowStatus)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, FlowStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
