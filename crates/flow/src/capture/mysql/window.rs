//! When a snapshot chunk may enter the journal, and which of its rows are already out of date.
//!
//! A transaction is in the binlog before SELECT can see it, so marks are never "where the binlog ends": they are sets
//! of transactions that were *visible*. For a chunk of a table:
//!
//! 1. the stream begins to note the keys it changes in that table, and tells what it has processed so far: `P0`;
//! 2. the reader takes the low mark, and waits until it covers `P0`: all that was streamed is visible;
//! 3. it reads the chunk, then takes the high mark;
//! 4. once the stream has processed the high mark, the chunk's rows enter the journal, less those whose key was
//!    changed by a transaction that the low mark does not contain: the stream's image of these is as new or newer.
//!
//! A transaction outside the low mark that the stream meets later overwrites what the chunk said, in order.

use base::{Gtid, GtidSet, MariaGtid, MariaGtidSet, Position};
use std::collections::HashMap;

/// Keys noted for one table before its chunk is read again in a smaller piece.
pub const KEYS_MAX: usize = 200_000;

/// A set of transactions whose effects a read has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    Gtids(GtidSet),
    Maria(MariaGtidSet),
    /// Without GTIDs: everything up to here. Exact only for reads that wait for row locks.
    File {
        file: String,
        pos: u64,
    },
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnMark {
    Gtid(Gtid),
    Maria(MariaGtid),
    File { file: String, pos: u64 },
}

/// Binlog files order by their number: `binlog.999999` comes before `binlog.1000000`.
pub fn file_order(file: &str) -> (u64, &str) {
    let number = file.rsplit_once('.').and_then(|(_, n)| n.parse().ok()).unwrap_or(0);
    (number, file)
}

impl Mark {
    /// All that a position has behind it.
    pub fn of(position: &Position) -> Self {
        match position {
            Position::MySql { gtids: Some(gtids), .. } => Self::Gtids(gtids.clone()),
            Position::MariaDb { gtids, .. } => Self::Maria(gtids.clone()),
            other => {
                let (file, pos) = other.file_pos().unwrap_or_default();
                Self::File { file: file.to_owned(), pos }
            }
        }
    }

    /// Whether everything processed is in the mark.
    pub fn covers(&self, processed: &Position) -> bool {
        match (self, processed) {
            (Self::Gtids(mark), Position::MySql { gtids: Some(own), .. }) => own.is_subset_of(mark),
            (Self::Maria(mark), Position::MariaDb { gtids, .. }) => gtids.is_subset_of(mark),
            (Self::File { file, pos }, other) => other
                .file_pos()
                .is_some_and(|(own, own_pos)| (file_order(own), own_pos) <= (file_order(file), *pos)),
            _ => false,
        }
    }

    /// Whether everything in the mark is processed.
    pub fn reached_by(&self, processed: &Position) -> bool {
        match (self, processed) {
            (Self::Gtids(mark), Position::MySql { gtids: Some(own), .. }) => mark.is_subset_of(own),
            (Self::Maria(mark), Position::MariaDb { gtids, .. }) => mark.is_subset_of(gtids),
            (Self::File { file, pos }, other) => other
                .file_pos()
                .is_some_and(|(own, own_pos)| (file_order(own), own_pos) >= (file_order(file), *pos)),
            _ => false,
        }
    }

    pub fn contains(&self, txn: &TxnMark) -> bool {
        match (self, txn) {
            (Self::Gtids(mark), TxnMark::Gtid(gtid)) => mark.contains(gtid),
            (Self::Maria(mark), TxnMark::Maria(gtid)) => mark.contains(*gtid),
            (Self::File { file, pos }, TxnMark::File { file: own, pos: own_pos }) => {
                (file_order(own), *own_pos) <= (file_order(file), *pos)
            }
            _ => false,
        }
    }
}

/// What the stream did to one table since its current chunk was begun.
#[derive(Debug, Default)]
pub struct Tracking {
    /// The last transaction that changed each key (of either image).
    keys: HashMap<Vec<u8>, TxnMark>,
    overflowed: bool,
    /// The last transaction that emptied or redefined the table.
    reshaped: Option<TxnMark>,
    /// The snapshot of the table begins again: what was read before the chunk is no longer in the journal, or not right.
    anew: bool,
}

/// What becomes of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Too much changed meanwhile: read the same piece again.
    Again,
    /// The table was emptied or redefined, or is read anew: begin with its first row.
    Restart,
}

impl Tracking {
    pub fn note(&mut self, key: Vec<u8>, txn: &TxnMark) {
        if self.keys.len() >= KEYS_MAX {
            self.overflowed = true;
        } else {
            self.keys.insert(key, txn.clone());
        }
    }

    pub fn note_reshape(&mut self, txn: &TxnMark) {
        self.reshaped = Some(txn.clone());
    }

    /// The table is read from its first row again, whatever the chunk under way has seen.
    pub fn note_anew(&mut self) {
        self.anew = true;
    }

    pub fn verdict(&self, low: &Mark) -> Verdict {
        if self.anew || self.reshaped.as_ref().is_some_and(|txn| !low.contains(txn)) {
            Verdict::Restart
        } else if self.overflowed {
            Verdict::Again
        } else {
            Verdict::Keep
        }
    }

    /// Whether nothing at all changed since.
    pub fn is_quiet(&self, low: &Mark) -> bool {
        !self.overflowed && self.keys.values().all(|txn| low.contains(txn))
    }

    /// Whether the chunk's row under `key` is still the newest we know.
    pub fn is_current(&self, key: &[u8], low: &Mark) -> bool {
        self.keys.get(key).is_none_or(|txn| low.contains(txn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gtids(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    fn position(text: &str) -> Position {
        Position::MySql { server: String::new(), gtids: Some(gtids(text)), file: "b.000001".into(), pos: 4 }
    }

    const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn a_streamed_transaction_that_is_not_visible_yet_keeps_the_chunk_waiting() {
        let low = Mark::Gtids(gtids(&format!("{U}:1-4:6")));
        assert!(!low.covers(&position(&format!("{U}:1-5"))));
        assert!(low.covers(&position(&format!("{U}:1-4"))));
        assert!(!low.reached_by(&position(&format!("{U}:1-5"))));
        assert!(low.reached_by(&position(&format!("{U}:1-6"))));
    }

    #[test]
    fn only_rows_changed_outside_the_low_mark_are_dropped() {
        let low = Mark::Gtids(gtids(&format!("{U}:1-4")));
        let mut tracking = Tracking::default();
        let txn = |number| TxnMark::Gtid(format!("{U}:{number}").parse().unwrap());
        tracking.note(b"a".to_vec(), &txn(4));
        tracking.note(b"b".to_vec(), &txn(5));
        assert_eq!(tracking.verdict(&low), Verdict::Keep);
        assert!(tracking.is_current(b"a", &low));
        assert!(!tracking.is_current(b"b", &low));
        assert!(tracking.is_current(b"c", &low));
        tracking.note_reshape(&txn(4));
        assert_eq!(tracking.verdict(&low), Verdict::Keep);
        tracking.note_reshape(&txn(6));
        assert_eq!(tracking.verdict(&low), Verdict::Restart);
    }

    #[test]
    fn a_chunk_of_a_table_that_is_read_anew_never_moves_the_cursor() {
        // The server is ahead: the chunk saw all that the stream still comes to.
        let low = Mark::Gtids(gtids(&format!("{U}:1-9")));
        let mut tracking = Tracking::default();
        tracking.note_reshape(&TxnMark::Gtid(format!("{U}:5").parse().unwrap()));
        assert_eq!(tracking.verdict(&low), Verdict::Keep);
        tracking.note_anew();
        assert_eq!(tracking.verdict(&low), Verdict::Restart);
    }

    #[test]
    fn binlog_files_compare_by_number() {
        let mark = Mark::File { file: "binlog.1000000".into(), pos: 4 };
        assert!(mark.contains(&TxnMark::File { file: "binlog.999999".into(), pos: 900 }));
        assert!(!mark.contains(&TxnMark::File { file: "binlog.1000000".into(), pos: 5 }));
    }
}
