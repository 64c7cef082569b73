//! XA transactions. The binlog holds them in two groups, each with its own GTID: the rows end with XA PREPARE, and
//! XA COMMIT or XA ROLLBACK comes later, perhaps much later. Until then the rows are nobody's.
//!
//! The rows wait in memory. On MySQL with GTIDs that of their group stays out of the position: a restart between the two makes
//! the server send the rows again, and the journal gets them once, as part of the commit. Positions of MariaDB, and those by
//! file, have no gaps: there, a commit whose rows were lost with the connection makes all tables be read anew. The journal
//! learns of that with the commit itself.

use super::stream::{DecodeFailure, Stream};
use crate::capture::CaptureError;
use base::{Gtid, Op, Step, Table};
use mysql::XaVerb;
use mysql::binlog::{EventHeader, RowPlan, RowsEvent, RowsKind};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows that may wait for their XA COMMIT, in all transactions.
const BYTES_MAX: usize = 256 << 20;

/// The XA transactions of one connection.
#[derive(Default)]
pub struct Xa {
    /// The group that is being read.
    reading: Option<Held>,
    /// By name, as the server writes it.
    prepared: HashMap<String, Held>,
    bytes: usize,
}

#[derive(Default)]
struct Held {
    gtid: Option<Gtid>,
    rows: Vec<HeldRow>,
    bytes: usize,
    /// A flow wrote it: its rows only make those old that a snapshot has just read.
    marked: bool,
}

struct HeldRow {
    op: Op,
    table: Arc<Table>,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

impl Xa {
    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Another transaction begins, or this one ends without an XA PREPARE: its rows would wait for ever.
    pub fn close(&mut self) -> Result<(), CaptureError> {
        match self.reading.take() {
            Some(held) if !held.rows.is_empty() => Err(CaptureError::fatal(
                "the binlog holds an XA transaction without an XA PREPARE",
                "use ordinary transactions, then `tidemill flow resnapshot` goes past this one",
            )),
            _ => Ok(()),
        }
    }
}

impl Stream {
    pub(super) fn xa_statement(
        &mut self,
        header: &EventHeader,
        verb: XaVerb,
        xid: &str,
    ) -> Result<(), CaptureError> {
        match verb {
            XaVerb::Start => {
                self.xa_start();
                Ok(())
            }
            XaVerb::End | XaVerb::Prepare => Ok(()),
            XaVerb::Commit => {
                match self.xa.prepared.remove(xid) {
                    Some(held) => self.release(held, true),
                    None => self.read_all_anew(),
                }
                self.commit(header)
            }
            XaVerb::Rollback => {
                if let Some(held) = self.xa.prepared.remove(xid) {
                    self.release(held, false);
                }
                self.commit(header)
            }
        }
    }

    /// The group that is open holds rows until their commit.
    pub(super) fn xa_start(&mut self) {
        let gtid = self.txn().gtid.clone();
        self.xa.reading = Some(Held { gtid, ..Held::default() });
    }

    /// The end of a group of rows: a commit at once, or a wait for one.
    pub(super) fn xa_prepare(
        &mut self,
        header: &EventHeader,
        xid: String,
        one_phase: bool,
    ) -> Result<(), CaptureError> {
        let Some(held) = self.xa.reading.take() else {
            return Err(CaptureError::fatal(
                "the binlog holds an XA PREPARE without a beginning",
                "use ordinary transactions, then `tidemill flow resnapshot` goes past this one",
            ));
        };
        if one_phase {
            self.write(&held);
            self.xa.bytes -= held.bytes;
            return self.commit(header);
        }
        self.xa.prepared.insert(xid, held);
        self.leave_unfinished(header);
        Ok(())
    }

    /// The group's GTID joins the position with the commit that is about to be written, and its rows with it.
    fn release(&mut self, held: Held, committed: bool) {
        self.xa.bytes -= held.bytes;
        if committed {
            self.write(&held);
        }
        if let Some(gtid) = held.gtid {
            let pos = self.position.file_pos().map_or(4, |(_, pos)| pos);
            self.position.advance(&Step::MySql { gtid: Some(gtid), file: None, pos });
            self.position_moved();
        }
    }

    fn write(&mut self, held: &Held) {
        let mut table: Option<&Arc<Table>> = None;
        let mut left_out = true;
        for row in &held.rows {
            if table.is_none_or(|table| !Arc::ptr_eq(table, &row.table)) {
                table = Some(&row.table);
                left_out = held.marked || self.is_quarantined(&row.table.name);
            }
            self.note_change(&row.table, row.before.as_deref(), row.after.as_deref());
            if !left_out {
                self.begin();
                self.batch.change(row.op, &row.table, row.before.as_deref(), row.after.as_deref());
            }
        }
    }

    pub(super) fn hold_rows(
        &mut self,
        rows: &RowsEvent<'_>,
        table: &Arc<Table>,
        plan: &RowPlan,
        marked: bool,
    ) -> Result<(), DecodeFailure> {
        let op = match rows.kind {
            RowsKind::Insert => Op::Insert,
            RowsKind::Update => Op::Update,
            RowsKind::Delete => Op::Delete,
        };
        if let Some(held) = &mut self.xa.reading {
            held.marked |= marked;
        }
        let mut images = rows.rows(plan);
        loop {
            let mut image = Vec::new();
            if !images.next_row(&mut image).map_err(DecodeFailure::Row)? {
                return Ok(());
            }
            let (before, after) = match op {
                Op::Insert => (None, Some(image)),
                Op::Delete => (Some(image), None),
                _ => {
                    let mut after = Vec::new();
                    if !images.next_row(&mut after).map_err(DecodeFailure::Row)? {
                        let cut = mysql::BinlogError::Malformed { what: "update row pair" };
                        return Err(DecodeFailure::Row(cut));
                    }
                    (Some(image), Some(after))
                }
            };
            let bytes = before.as_ref().map_or(0, Vec::len) + after.as_ref().map_or(0, Vec::len);
            let held = self.xa.reading.as_mut().expect("a group is being read");
            held.rows.push(HeldRow { op, table: Arc::clone(table), before, after });
            held.bytes += bytes;
            self.xa.bytes += bytes;
            if self.xa.bytes > BYTES_MAX {
                return Err(DecodeFailure::Journal(CaptureError::fatal(
                    format!("XA transactions that wait for their commit hold over {} MiB", BYTES_MAX >> 20),
                    "commit or roll back what XA RECOVER lists on the source, and use smaller XA transactions",
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureErrorKind;
    use base::TableName;

    #[test]
    fn rows_that_no_xa_prepare_follows_are_not_lost_in_silence() {
        let mut xa = Xa::default();
        xa.close().unwrap();
        // Nothing of it is captured.
        xa.reading = Some(Held::default());
        xa.close().unwrap();
        let table = Table {
            id: 1,
            version: 1,
            name: TableName::new("shop", "a"),
            columns: Vec::new(),
            key: Vec::new(),
            unique_keys: Vec::new(),
        };
        let row = HeldRow { op: Op::Insert, table: Arc::new(table), before: None, after: Some(Vec::new()) };
        xa.reading = Some(Held { rows: vec![row], ..Held::default() });
        assert_eq!(xa.close().unwrap_err().kind, CaptureErrorKind::Fatal);
    }
}
