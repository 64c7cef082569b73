//! One change of one row, or one statement that changed a table, as it leaves the journal.

use crate::row::RowView;
use crate::schema::Table;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// A row of a snapshot.
    Read = 1,
    Insert = 2,
    Update = 3,
    Delete = 4,
    Truncate = 5,
    Ddl = 6,
}

impl Op {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Ddl => "ddl",
        }
    }

    pub const fn from_u8(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Read,
            2 => Self::Insert,
            3 => Self::Update,
            4 => Self::Delete,
            5 => Self::Truncate,
            6 => Self::Ddl,
            _ => return None,
        })
    }
}

/// The source transaction a change belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The GTID, or `file:pos` of the transaction's first event where there is none.
    pub id: Arc<str>,
    /// Counts the transaction's changes from 0.
    pub index: u64,
    /// Whether no change of the same transaction follows.
    pub last: bool,
}

/// What a statement did to one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ddl {
    /// The statement as the source logged it.
    pub sql: String,
    /// The table before; `None` when the statement made it.
    pub before: Option<Arc<Table>>,
    /// The table after; `None` when the statement dropped it.
    pub after: Option<Arc<Table>>,
    /// Columns the statement renamed, `(old, new)`: a sink that compares schemas would take them for drop and add.
    pub column_renames: Vec<(String, String)>,
}

/// One change, borrowed from the journal.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub epoch: u32,
    /// Counts a journal's changes 1, 2, 3 … without a hole.
    pub lsn: u64,
    pub op: Op,
    /// The schema this row was written under. For `ddl` on no table we know, a table without columns.
    pub table: Arc<Table>,
    /// Commit time in milliseconds since the Unix epoch, by the source's clock; for `read`, when it was read.
    pub ts_ms: i64,
    /// `None` for snapshot rows.
    pub txn: Option<Txn>,
    pub before: Option<RowView<'a>>,
    pub after: Option<RowView<'a>>,
    /// What the statement did, for `ddl`.
    pub ddl: Option<Arc<Ddl>>,
}
