//! What a run tells while it goes on and when it is over.

use crate::plan::TableMapping;
use catalog::RowCounts;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a run is; read by others while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    written: AtomicU64,
    rejected: AtomicU64,
    deleted: AtomicU64,
    table: Mutex<String>,
}

impl Progress {
    pub fn counts(&self) -> RowCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RowCounts {
            read: of(&self.read),
            written: of(&self.written),
            rejected: of(&self.rejected),
            deleted: of(&self.deleted),
        }
    }

    /// The table at hand, as the source calls it.
    pub fn table(&self) -> String {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn begin(&self, table: &str) {
        table.clone_into(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn read(&self, rows: u64) {
        self.read.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn written(&self, rows: u64) {
        self.written.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, rows: u64) {
        self.rejected.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn deleted(&self, rows: u64) {
        self.deleted.fetch_add(rows, Ordering::Relaxed);
    }
}

/// `1 row was`, `2 rows were`.
pub(crate) fn rows_were(count: u64) -> String {
    if count == 1 { "1 row was".into() } else { format!("{count} rows were") }
}

/// What a run did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CollectReport {
    pub tables: Vec<TableReport>,
    /// What someone should look at; a run with any ended with a warning.
    pub warnings: Vec<String>,
}

/// What it did with one table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableReport {
    /// As the source calls it.
    pub table: String,
    /// The dataset's table.
    pub target: String,
    pub read: u64,
    /// Rows that were inserted or replaced.
    pub written: u64,
    pub rejected: u64,
    pub deleted: u64,
    /// Of `written`, those that `key_diff` found new.
    pub inserted: u64,
    /// Of `written`, those that it found changed.
    pub updated: u64,
    /// Values that were left out because their column does not hold them.
    pub values_discarded: u64,
    /// Where `cursor` stands now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bookmark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciled: Option<Reconciled>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<TableMapping>,
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Both sides, counted and summed apart: the rows that were taken over, as their columns keep them, and what the engine answers when
/// it is asked. A row that the source did not give, or that was put aside, is on neither side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    pub source_rows: u64,
    pub source_checksum: String,
    pub dataset_rows: u64,
    pub dataset_checksum: String,
    pub matched: bool,
}

impl CollectReport {
    pub fn counts(&self) -> RowCounts {
        let sum = |of: fn(&TableReport) -> u64| self.tables.iter().map(of).sum();
        RowCounts {
            read: sum(|it| it.read),
            written: sum(|it| it.written),
            rejected: sum(|it| it.rejected),
            deleted: sum(|it| it.deleted),
        }
    }

    /// Tables that failed.
    pub fn failed(&self) -> usize {
        self.tables.iter().filter(|it| it.error.is_some()).count()
    }

    /// As the catalog keeps it beside a run.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".into())
    }
}
