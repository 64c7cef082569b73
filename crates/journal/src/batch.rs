//! Records of one or more transactions, encoded in one buffer away from the writer.
//!
//! A batch never fails: what does not fit (a record past the limit) is said when it is appended.

use crate::record::{self, HAS_AFTER, HAS_BEFORE, JsonBody, Kind};
use crate::state::{Event, needs_schema};
use base::varint::put_u64;
use base::{Ddl, Op, SnapshotProgress, Step, Table};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) first_lsn: u64,
    next_lsn: u64,
    /// Whether the batch begins inside a transaction that an earlier batch began.
    pub(crate) continues: bool,
    /// Whether a transaction is open at the batch's end.
    open: bool,
    sealed: bool,
    /// The first record past the limit.
    pub(crate) too_large: Option<u64>,
    changes: u64,
    row: OpenRow,
    /// The last table a row was of, and all of them since the last schema record.
    last_used: Option<(u32, u32)>,
    used: BTreeSet<(u32, u32)>,
}

/// A change whose images are being written.
#[derive(Clone, Copy, Debug, Default)]
struct OpenRow {
    open: bool,
    start: usize,
    /// Where the length of the before image goes; 0 when there is none to write.
    before_len_at: usize,
    /// Whether the before image's end has been marked, or need not be.
    before_done: bool,
}

impl Batch {
    /// An empty batch whose first change gets `next_lsn`: the writer's `state().next_lsn`, or the `next_lsn()` of the
    /// batch before.
    pub fn new(next_lsn: u64) -> Self {
        Self::reuse(Vec::new(), next_lsn)
    }

    /// The same, in a buffer from [`crate::Writer::spare`].
    pub fn reuse(mut buffer: Vec<u8>, next_lsn: u64) -> Self {
        assert!(next_lsn > 0, "changes count from 1");
        buffer.clear();
        Self {
            bytes: buffer,
            events: Vec::new(),
            first_lsn: next_lsn,
            next_lsn,
            continues: false,
            open: false,
            sealed: true,
            too_large: None,
            changes: 0,
            row: OpenRow::default(),
            last_used: None,
            used: BTreeSet::new(),
        }
    }

    /// Makes a schema known; before the first row of its `(id, version)`. Rows must be of the latest version.
    pub fn schema(&mut self, table: &Arc<Table>) {
        self.put(Kind::Schema, |out| out.extend_from_slice(&table.json()));
        self.forget_used();
        self.events.push(Event::Schema(table.clone()));
    }

    /// Forgets a table: no row of it follows.
    pub fn drop_table(&mut self, id: u32) {
        self.put(Kind::Drop, |out| put_u64(out, u64::from(id)));
        self.forget_used();
        self.events.push(Event::Drop(id));
    }

    /// Begins a transaction. `txn_id` is empty for snapshot rows, which belong to none. `ts_ms` is the commit time by
    /// the source's clock, in milliseconds since the Unix epoch.
    pub fn begin(&mut self, txn_id: &str, ts_ms: i64) {
        assert!(!self.open, "a transaction begins after the commit of the one before");
        self.put(Kind::Begin, |out| record::put_begin(out, txn_id, ts_ms));
        self.open = true;
        self.events.push(Event::Begin { ts_ms });
    }

    /// Appends a row change with images in [`base::RowWriter`]'s encoding; its lsn.
    #[inline]
    pub fn change(&mut self, op: Op, table: &Table, before: Option<&[u8]>, after: Option<&[u8]>) -> u64 {
        let out = self.start_change(op, table.id, table.version, before.is_some(), after.is_some());
        if let Some(before) = before {
            out.extend_from_slice(before);
            if let Some(after) = after {
                self.end_before().extend_from_slice(after);
            }
        } else if let Some(after) = after {
            out.extend_from_slice(after);
        }
        self.finish_change()
    }

    /// Begins a row change whose images the caller appends to the buffer that is returned: first the before image if
    /// `has_before`, then, after [`Self::end_before`], the after image. What is already in the buffer must stay.
    #[inline]
    pub fn start_change(
        &mut self,
        op: Op,
        table_id: u32,
        version: u32,
        has_before: bool,
        has_after: bool,
    ) -> &mut Vec<u8> {
        assert!(!self.row.open, "a change is finished or cancelled before the next");
        if needs_schema(op) {
            self.note_use(table_id, version);
        }
        let start = record::open_frame(&mut self.bytes, Kind::Change, self.next_lsn);
        let images = (u8::from(has_before) * HAS_BEFORE) | (u8::from(has_after) * HAS_AFTER);
        self.bytes.extend_from_slice(&[op as u8, images]);
        put_u64(&mut self.bytes, u64::from(table_id));
        put_u64(&mut self.bytes, u64::from(version));
        let both = has_before && has_after;
        let before_len_at = if both { self.bytes.len() } else { 0 };
        if both {
            self.bytes.extend_from_slice(&[0; 4]);
        }
        self.row = OpenRow { open: true, start, before_len_at, before_done: !both };
        &mut self.bytes
    }

    /// Ends the before image of a change that has both; the after image follows.
    #[inline]
    pub fn end_before(&mut self) -> &mut Vec<u8> {
        assert!(self.row.open && !self.row.before_done, "only a change with both images has two parts");
        let at = self.row.before_len_at;
        // An image past u32 makes the record too large, which `finish_change` notes.
        let bytes = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        self.row.before_done = true;
        &mut self.bytes
    }

    /// Ends the change; its lsn.
    #[inline]
    pub fn finish_change(&mut self) -> u64 {
        assert!(
            self.row.open && self.row.before_done,
            "a change is started, and its before image ended, first"
        );
        self.row.open = false;
        self.close(self.row.start);
        self.note_change();
        let lsn = self.next_lsn;
        self.next_lsn += 1;
        lsn
    }

    /// Takes back a change that was started, as if it had never been.
    pub fn cancel_change(&mut self) {
        assert!(self.row.open, "there is a change to cancel");
        self.row.open = false;
        self.bytes.truncate(self.row.start);
    }

    /// Appends a statement that changed a table; its lsn. It does not make the new schema known to rows.
    pub fn ddl(&mut self, ddl: &Ddl) -> u64 {
        let table = ddl.after.as_ref().or(ddl.before.as_ref());
        let (id, version) = table.map_or((0, 0), |t| (t.id, t.version));
        self.start_change(Op::Ddl, id, version, false, false).extend_from_slice(&ddl.json());
        self.finish_change()
    }

    /// Appends the emptying of a table; its lsn.
    pub fn truncate(&mut self, table: &Table) -> u64 {
        self.change(Op::Truncate, table, None, None)
    }

    /// Records how far the snapshot of the tables in `progress` has come; others stay as they were.
    pub fn snapshot(&mut self, progress: &SnapshotProgress) {
        self.put(Kind::Snapshot, |out| out.extend_from_slice(&progress.json()));
        self.events.push(Event::Snapshot(progress.clone()));
    }

    /// Begins a new epoch, larger than the one before, for the changes that follow.
    pub fn epoch(&mut self, epoch: u32, reason: &str) {
        self.put(Kind::Epoch, |out| record::put_epoch(out, epoch, reason));
        self.events.push(Event::Epoch(epoch));
    }

    /// Ends a transaction, or makes records outside of one take effect, and moves the position.
    pub fn commit(&mut self, step: &Step) {
        self.put(Kind::Commit, |out| record::put_step(out, step));
        self.open = false;
        self.sealed = true;
        let end = self.bytes.len() as u64;
        self.events.push(Event::Commit { step: step.clone(), lsn: self.next_lsn - 1, end });
    }

    /// The lsn the next change gets.
    pub fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Changes in the batch.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether nothing follows the last commit.
    pub fn ends_sealed(&self) -> bool {
        self.sealed && !self.row.open
    }

    fn put(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
        assert!(!self.row.open, "a change is finished or cancelled before another record");
        self.sealed = false;
        let start = record::open_frame(&mut self.bytes, kind, self.next_lsn - 1);
        body(&mut self.bytes);
        self.close(start);
    }

    #[inline]
    fn close(&mut self, start: usize) {
        if let Err(bytes) = record::close_frame(&mut self.bytes, start) {
            self.too_large.get_or_insert(bytes);
        }
    }

    #[inline]
    fn note_change(&mut self) {
        if !self.open {
            assert!(self.first_is_here(), "a change belongs to a transaction that has begun");
            self.continues = true;
            self.open = true;
        }
        self.sealed = false;
        self.changes += 1;
    }

    /// Whether no transaction began or ended in this batch yet, so that the open one may be of an earlier batch.
    fn first_is_here(&self) -> bool {
        !self.events.iter().any(|e| matches!(e, Event::Begin { .. } | Event::Commit { .. }))
    }

    #[inline]
    fn note_use(&mut self, table_id: u32, version: u32) {
        if self.last_used == Some((table_id, version)) {
            return;
        }
        self.last_used = Some((table_id, version));
        if self.used.insert((table_id, version)) {
            self.events.push(Event::Use(table_id, version));
        }
    }

    fn forget_used(&mut self) {
        self.last_used = None;
        self.used.clear();
    }
}
