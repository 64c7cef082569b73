//! Where we are in a source, and what one commit adds to that.

use crate::gtid::{Gtid, GtidSet, MariaGtid, MariaGtidSet};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where capture stands in a source. GTIDs are authoritative where there are any; file and offset are valid only on
/// the server that `server` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Position {
    MySql {
        /// `@@server_uuid` of the server whose files `file` and `pos` name.
        server: String,
        /// `None` when the source runs without GTIDs.
        gtids: Option<GtidSet>,
        file: String,
        pos: u64,
    },
    MariaDb {
        /// `@@server_id` of the server whose files `file` and `pos` name.
        server: String,
        gtids: MariaGtidSet,
        file: String,
        pos: u64,
    },
    Sqlite {
        /// The last change read from `tidemill_changes`.
        change_id: i64,
    },
    Kafka {
        topics: BTreeMap<String, TopicPosition>,
    },
    /// Requests that were pushed to us.
    Push {
        /// How many were taken.
        requests: u64,
        /// The digests of the last ones that named themselves, oldest first, at most [`RECENT_REQUESTS_MAX`].
        recent: VecDeque<String>,
    },
    /// Files of captured statements, by name; those that are gone are left out.
    Capture {
        files: BTreeMap<String, CapturePosition>,
    },
}

/// Where capture stands in one file of captured statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePosition {
    /// The offset of the next block.
    pub block: u64,
    /// Bytes of that block that are taken.
    pub taken: u32,
    /// Whether nothing follows: all was taken, and nobody writes it any more.
    pub done: bool,
}

/// Requests whose repeats are known: far more than any client has under way. Together they take 35 KB in the head of each
/// segment of the journal.
pub const RECENT_REQUESTS_MAX: usize = 1000;

/// Where capture stands in one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPosition {
    /// What the brokers number the topic by: one that was deleted and made again has another. `None` where the brokers
    /// are too old to tell.
    pub id: Option<String>,
    /// The offset of the next record, by partition.
    pub next: Vec<i64>,
}

/// What one sealed commit adds to the position. Small, because every commit carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The commit moves nothing: snapshot rows, schemas.
    Stay,
    /// A MySQL transaction; `file` only when it changed.
    MySql {
        gtid: Option<Gtid>,
        file: Option<String>,
        pos: u64,
    },
    MariaDb {
        gtid: Option<MariaGtid>,
        file: Option<String>,
        pos: u64,
    },
    Sqlite {
        change_id: i64,
    },
    /// The records of one partition up to `next`, which is not taken.
    Kafka {
        topic: Arc<str>,
        partition: u32,
        next: i64,
    },
    /// One request, with its digest if it named itself.
    Push {
        digest: Option<Arc<str>>,
    },
    /// How far one file was read.
    Capture {
        file: Arc<str>,
        to: CapturePosition,
    },
    /// A new beginning.
    Full(Box<Position>),
}

impl Position {
    /// Applies one commit. A step of another kind of source is our bug.
    pub fn advance(&mut self, step: &Step) {
        match (self, step) {
            (_, Step::Stay) => {}
            (own, Step::Full(position)) => *own = (**position).clone(),
            (Self::MySql { gtids, file, pos, .. }, Step::MySql { gtid, file: new_file, pos: new_pos }) => {
                if let (Some(set), Some(gtid)) = (gtids.as_mut(), gtid) {
                    set.insert(gtid);
                }
                if let Some(new_file) = new_file {
                    file.clone_from(new_file);
                }
                *pos = *new_pos;
            }
            (
                Self::MariaDb { gtids, file, pos, .. },
                Step::MariaDb { gtid, file: new_file, pos: new_pos },
            ) => {
                if let Some(gtid) = gtid {
                    gtids.insert(*gtid);
                }
                if let Some(new_file) = new_file {
                    file.clone_from(new_file);
                }
                *pos = *new_pos;
            }
            (Self::Sqlite { change_id }, Step::Sqlite { change_id: new }) => *change_id = *new,
            (Self::Kafka { topics }, Step::Kafka { topic, partition, next }) => {
                // A full position names every partition before its first record is taken.
                let known = topics.get_mut(&**topic).and_then(|t| t.next.get_mut(*partition as usize));
                debug_assert!(known.is_some(), "partition {partition} of {topic} is not in the position");
                if let Some(known) = known {
                    *known = *next;
                }
            }
            (Self::Push { requests, recent }, Step::Push { digest }) => {
                *requests += 1;
                if let Some(digest) = digest {
                    recent.push_back(digest.to_string());
                    if recent.len() > RECENT_REQUESTS_MAX {
                        recent.pop_front();
                    }
                }
            }
            (Self::Capture { files }, Step::Capture { file, to }) => {
                files.insert(file.to_string(), *to);
            }
            (own, step) => unreachable!("a {own:?} cannot take the step {step:?}"),
        }
    }

    pub fn gtid_text(&self) -> Option<String> {
        match self {
            Self::MySql { gtids, .. } => gtids.as_ref().map(ToString::to_string),
            Self::MariaDb { gtids, .. } => Some(gtids.to_string()),
            Self::Sqlite { .. } | Self::Kafka { .. } | Self::Push { .. } | Self::Capture { .. } => None,
        }
    }

    /// Binlog file and offset, where the source has them.
    pub fn file_pos(&self) -> Option<(&str, u64)> {
        match self {
            Self::MySql { file, pos, .. } | Self::MariaDb { file, pos, .. } => Some((file, *pos)),
            Self::Sqlite { .. } | Self::Kafka { .. } | Self::Push { .. } | Self::Capture { .. } => None,
        }
    }
}

/// How far the snapshot of one table has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSnapshot {
    /// The key of the last row that is in the journal, as JSON text of literals; `None` at the start.
    pub cursor: Option<String>,
    pub rows: u64,
    /// The server's own estimate when the snapshot of this table began.
    pub rows_estimated: u64,
    pub done: bool,
    /// Why this table's changes are not captured; its rows need a new snapshot once the cause is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
    /// Whether the source's `tables` leave it out: what changed since is not in the journal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// How far the snapshot of a source has come, by `db.table`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotProgress {
    pub tables: BTreeMap<String, TableSnapshot>,
}

impl SnapshotProgress {
    pub fn is_done(&self) -> bool {
        self.tables.values().all(|t| t.done || t.quarantined.is_some())
    }

    pub fn rows(&self) -> u64 {
        self.tables.values().map(|t| t.rows).sum()
    }
}
