//! A piece of the journal in memory, and its changes.

use crate::error::JournalError;
use crate::record::{self, ChangeBody, FRAME_BYTES, Frame, JsonBody, Kind};
use base::{Change, Ddl, Op, RowView, Table, TableName, Txn};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Sealed changes, in order. Owns its bytes; the changes borrow from it.
#[derive(Clone, Debug)]
pub struct Chunk {
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
    path: Arc<PathBuf>,
    /// Offset in the segment of `buffer[0]`.
    base: u64,
    /// Changes before this are skipped.
    from_lsn: u64,
    /// What holds at the chunk's beginning.
    context: Context,
    /// The schemas in the chunk, in order.
    schemas: Vec<Arc<Table>>,
    changes: usize,
    last_lsn: u64,
    ends_txn: bool,
}

/// What a reader knows at a place in the journal.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub epoch: u32,
    pub tables: Arc<BTreeMap<u32, Arc<Table>>>,
    /// The last change.
    pub lsn: u64,
    ts_ms: i64,
    /// The open transaction, unless it has no id.
    txn: Option<Arc<str>>,
    /// Changes of the open transaction so far.
    index: u64,
}

impl Context {
    pub fn new(lsn: u64) -> Self {
        Self { epoch: 1, tables: Arc::default(), lsn, ts_ms: 0, txn: None, index: 0 }
    }

    fn begin(&mut self, id: &str, ts_ms: i64) {
        self.ts_ms = ts_ms;
        self.txn = if id.is_empty() { None } else { Some(id.into()) };
        self.index = 0;
    }

    fn know(&mut self, table: Arc<Table>) {
        Arc::make_mut(&mut self.tables).insert(table.id, table);
    }

    fn forget(&mut self, id: u32) {
        Arc::make_mut(&mut self.tables).remove(&id);
    }
}

impl Chunk {
    pub(crate) fn new(
        buffer: Arc<Vec<u8>>,
        range: Range<usize>,
        path: Arc<PathBuf>,
        base: u64,
        from_lsn: u64,
        context: Context,
    ) -> Self {
        let last_lsn = context.lsn;
        let schemas = Vec::new();
        Self { buffer, range, path, base, from_lsn, context, schemas, changes: 0, last_lsn, ends_txn: false }
    }

    /// Moves `context` over the chunk's records, noting what is in them.
    pub(crate) fn advance(&mut self, context: &mut Context) -> Result<(), JournalError> {
        let buffer = self.buffer.clone();
        let mut at = self.range.start;
        while at < self.range.end {
            let (frame, body) = record_at(&buffer, at);
            self.ends_txn = matches!(frame.kind, Kind::Commit | Kind::Seal);
            match frame.kind {
                Kind::Change => {
                    context.lsn = frame.lsn;
                    context.index += 1;
                    self.changes += usize::from(frame.lsn >= self.from_lsn);
                }
                Kind::Begin => {
                    let (id, ts_ms) =
                        record::take_begin(body).ok_or_else(|| self.corrupt(at, "a begin is malformed"))?;
                    context.begin(id, ts_ms);
                }
                Kind::Schema => {
                    let table =
                        Table::from_json(body).ok_or_else(|| self.corrupt(at, "a schema is malformed"))?;
                    let table = Arc::new(table);
                    context.know(table.clone());
                    self.schemas.push(table);
                }
                Kind::Drop => {
                    let id = record::take_drop(body)
                        .ok_or_else(|| self.corrupt(at, "a table's drop is malformed"))?;
                    context.forget(id);
                }
                Kind::Epoch => {
                    let (epoch, _) =
                        record::take_epoch(body).ok_or_else(|| self.corrupt(at, "an epoch is malformed"))?;
                    context.epoch = epoch;
                }
                Kind::Head | Kind::Snapshot | Kind::Commit | Kind::Seal => {}
            }
            at += frame.size;
        }
        self.last_lsn = context.lsn;
        Ok(())
    }

    /// The changes in order. An error is the last item.
    pub fn changes(&self) -> Changes<'_> {
        Changes {
            chunk: self,
            at: self.range.start,
            context: self.context.clone(),
            schemas: self.schemas.iter(),
            table: None,
        }
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes
    }

    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes of the records.
    pub fn len_bytes(&self) -> usize {
        self.range.len()
    }

    /// The last change.
    pub fn last_lsn(&self) -> u64 {
        self.last_lsn
    }

    /// Whether the last change is its transaction's last.
    pub fn ends_txn(&self) -> bool {
        self.ends_txn
    }

    /// The schemas that became known, in order.
    pub fn schemas(&self) -> &[Arc<Table>] {
        &self.schemas
    }

    #[inline]
    fn record(&self, at: usize) -> (Frame, &[u8]) {
        record_at(&self.buffer, at)
    }

    fn corrupt(&self, at: usize, reason: &str) -> JournalError {
        JournalError::corrupt(&self.path, self.base + at as u64, reason)
    }

    /// Whether no change of the same transaction follows the record that ends at `at`.
    #[inline]
    fn is_last(&self, mut at: usize) -> bool {
        while at < self.range.end {
            let (frame, _) = self.record(at);
            match frame.kind {
                Kind::Change => return false,
                Kind::Commit => return true,
                _ => at += frame.size,
            }
        }
        // A chunk ends with a commit or before another change.
        false
    }
}

#[inline]
fn record_at(buffer: &[u8], at: usize) -> (Frame, &[u8]) {
    let frame = record::peek(&buffer[at..]).expect("the reader has checked the chunk's records");
    (frame, &buffer[at + FRAME_BYTES..at + frame.size])
}

/// The changes of a chunk.
#[derive(Clone, Debug)]
pub struct Changes<'c> {
    chunk: &'c Chunk,
    at: usize,
    context: Context,
    schemas: std::slice::Iter<'c, Arc<Table>>,
    /// The table of the last row.
    table: Option<Arc<Table>>,
}

impl<'c> Iterator for Changes<'c> {
    type Item = Result<Change<'c>, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.chunk;
        while self.at < chunk.range.end {
            let at = self.at;
            let (frame, body) = chunk.record(at);
            self.at += frame.size;
            match frame.kind {
                Kind::Change => {
                    self.context.index += 1;
                    if frame.lsn >= chunk.from_lsn {
                        let change = self.change(frame.lsn, body);
                        if change.is_err() {
                            self.at = chunk.range.end;
                        }
                        return Some(change.map_err(|reason| chunk.corrupt(at, reason)));
                    }
                }
                kind => self.step(kind, body),
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.chunk.changes))
    }
}

impl<'c> Changes<'c> {
    /// Takes a record that is not a change into account; [`Chunk::advance`] has decoded it before without error.
    fn step(&mut self, kind: Kind, body: &[u8]) {
        match kind {
            Kind::Begin => {
                if let Some((id, ts_ms)) = record::take_begin(body) {
                    self.context.begin(id, ts_ms);
                }
            }
            Kind::Schema => {
                if let Some(table) = self.schemas.next() {
                    self.context.know(table.clone());
                }
                self.table = None;
            }
            Kind::Drop => {
                if let Some(id) = record::take_drop(body) {
                    self.context.forget(id);
                }
                self.table = None;
            }
            Kind::Epoch => {
                if let Some((epoch, _)) = record::take_epoch(body) {
                    self.context.epoch = epoch;
                }
            }
            Kind::Head | Kind::Change | Kind::Snapshot | Kind::Commit | Kind::Seal => {}
        }
    }

    #[inline]
    fn change(&mut self, lsn: u64, body: &'c [u8]) -> Result<Change<'c>, &'static str> {
        let body = record::take_change(body).ok_or("a change is malformed")?;
        let (table, ddl) = match body.ddl {
            Some(json) => {
                let ddl = Ddl::from_json(json).ok_or("a statement is malformed")?;
                (table_of_ddl(&ddl), Some(Arc::new(ddl)))
            }
            None => (self.table_of_row(&body)?, None),
        };
        let txn = self.context.txn.as_ref().map(|id| Txn {
            id: id.clone(),
            index: self.context.index - 1,
            last: self.chunk.is_last(self.at),
        });
        Ok(Change {
            epoch: self.context.epoch,
            lsn,
            op: body.op,
            table,
            ts_ms: self.context.ts_ms,
            txn,
            before: body.before.map(RowView),
            after: body.after.map(RowView),
            ddl,
        })
    }

    #[inline]
    fn table_of_row(&mut self, body: &ChangeBody<'_>) -> Result<Arc<Table>, &'static str> {
        let fits = |table: &Arc<Table>| table.id == body.table_id && table.version == body.version;
        if let Some(table) = self.table.as_ref().filter(|t| fits(t)) {
            return Ok(table.clone());
        }
        let known = self.context.tables.get(&body.table_id).filter(|t| fits(t));
        let table = known.ok_or("a row's schema is not the one that is known")?.clone();
        self.table = Some(table.clone());
        Ok(table)
    }
}

fn table_of_ddl(ddl: &Ddl) -> Arc<Table> {
    ddl.after.as_ref().or(ddl.before.as_ref()).cloned().unwrap_or_else(|| {
        Arc::new(Table {
            id: 0,
            version: 0,
            name: TableName::new("", ""),
            columns: Vec::new(),
            key: Vec::new(),
            unique_keys: Vec::new(),
        })
    })
}

const _: () = assert!(Op::Ddl as u8 == 6, "the format stores ops by number");
