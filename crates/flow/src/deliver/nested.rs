//! The reading half of a flow whose documents hold rows of other tables: what `crate::nest` says of a change becomes rows to be
//! written.
//!
//! A batch first gathers which rows are to be written, and makes them when it is handed on: a row that many changes of the batch
//! touched is made once, with the version of the last. No look at the mirror is held while a batch waits for the sink.

use super::producer::{BATCH_BYTES_MAX, Converted, ProduceError, Produced, Producer};
use super::sink::{OutChange, Progress};
use crate::config::FlowConfig;
use crate::mirror::Mirror;
use crate::mirror::read::ReadError;
use crate::nest::{NestError, Nester, Touched};
use base::{Change, Op, Table, Value};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

type Listener = mpsc::Sender<Result<Produced, ProduceError>>;

/// What a batch has still to make.
pub struct Renders {
    nester: Nester,
    /// The changes of the batch that wait to be made, by their places, with the keys of their rows.
    waiting: HashMap<usize, Vec<u8>>,
    /// Where the batch has a row that is only touched.
    touched: HashMap<Vec<u8>, usize>,
    /// The flow's table with what is nested in it, as the look at hand shows it.
    shapes: HashMap<(u32, u32), Arc<Table>>,
    is_looking: bool,
}

impl Renders {
    pub fn new(config: &FlowConfig, mirror: Option<&Mirror>) -> Result<Option<Self>, NestError> {
        let nester = Nester::new(config, mirror)?;
        Ok(nester.map(|nester| Self {
            nester,
            waiting: HashMap::new(),
            touched: HashMap::new(),
            shapes: HashMap::new(),
            is_looking: false,
        }))
    }
}

/// A row as it is written, or why it cannot be.
enum Made {
    Row(Arc<Table>, Vec<Value>),
    /// The source has no such row now, or the rules leave it out.
    None,
    Refused(String),
}

impl Producer {
    /// Waits until the mirror is at or behind `lsn`, and begins a look. False when nobody listens any more.
    pub(super) fn look(&mut self, lsn: u64, out: &Listener) -> Result<bool, ProduceError> {
        if self.reads_mirror {
            match self.transform.look(lsn, || out.closed()) {
                Ok(()) => {}
                Err(ReadError::Ended) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(renders) = &mut self.renders else { return Ok(true) };
        renders.shapes.clear();
        match renders.nester.look(lsn, out.closed()) {
            Ok(()) => {
                renders.is_looking = true;
                Ok(true)
            }
            Err(NestError::Mirror(ReadError::Ended)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn end_look(&mut self) -> Result<(), ProduceError> {
        if self.reads_mirror {
            self.transform.end_look()?;
        }
        if let Some(renders) = &mut self.renders {
            renders.is_looking = false;
            renders.nester.end()?;
        }
        Ok(())
    }

    /// A table as the sink has it; `None` for one that is not of the flow.
    pub(super) fn shape(&mut self, table: &Arc<Table>) -> Result<Option<Arc<Table>>, ProduceError> {
        let Some(plan) = self.plan(table)? else { return Ok(None) };
        let Some(renders) = &mut self.renders else { return Ok(Some(Arc::clone(plan.table()))) };
        let id = (plan.table().id, plan.table().version);
        if let Some(shaped) = renders.shapes.get(&id) {
            return Ok(Some(Arc::clone(shaped)));
        }
        let shaped = renders.nester.shaped(plan.table())?;
        renders.shapes.insert(id, Arc::clone(&shaped));
        Ok(Some(shaped))
    }

    /// The rows that a change of a nested table is of.
    pub(super) fn touched(&mut self, change: &Change<'_>) -> Result<Touched, ProduceError> {
        let Some(renders) = &mut self.renders else { return Ok(Touched::None) };
        if let Some(ddl) = &change.ddl {
            return Ok(if renders.nester.is_of_names(ddl) { Touched::All } else { Touched::None });
        }
        if !renders.nester.is_nested(&change.table.name) {
            return Ok(Touched::None);
        }
        Ok(renders.nester.touched(change)?)
    }

    /// Gathers what a change writes.
    pub(super) fn take_rendered(
        &mut self,
        change: &Change<'_>,
        touched: Touched,
        batch: &mut Produced,
    ) -> Result<(), ProduceError> {
        if change.op == Op::Ddl {
            return self.take_ddl(change, batch);
        }
        if self.renders.as_ref().is_some_and(|renders| renders.nester.is_parent(&change.table.name)) {
            self.take_own(change, batch)?;
        }
        let (Touched::Some(keys), Some(renders)) = (touched, &mut self.renders) else { return Ok(()) };
        for key in keys {
            if let Some(earlier) = renders.touched.insert(key.clone(), batch.changes.len()) {
                renders.waiting.remove(&earlier);
            }
            renders.waiting.insert(batch.changes.len(), key);
            batch.changes.push(blank(change, Arc::clone(&change.table)));
        }
        Ok(())
    }

    /// A change of the flow's own table.
    fn take_own(&mut self, change: &Change<'_>, batch: &mut Produced) -> Result<(), ProduceError> {
        let Some(plan) = self.plan(&change.table)? else { return Ok(()) };
        let Some(shaped) = self.shape(&change.table)? else { return Ok(()) };
        if self.prepared.insert((change.table.id, change.table.version)) {
            batch.tables.push(Arc::clone(&shaped));
        }
        let mut made = blank(change, Arc::clone(&shaped));
        if change.op == Op::Truncate {
            made.op = Op::Truncate;
            batch.changes.push(made);
            return Ok(());
        }
        // The row before says only where its document was; what has no answer never had one.
        let before = plan.apply_change(change.before, None, Op::Delete).ok().flatten();
        made.before = before.and_then(|row| row.before).map(|row| padded(row, &shaped));
        let Some(renders) = &mut self.renders else { return Ok(()) };
        match change.after.and_then(|row| renders.nester.key(&change.table, row)) {
            Some(key) => {
                renders.waiting.insert(batch.changes.len(), key);
                batch.changes.push(made);
            }
            None if made.before.is_some() => {
                made.op = Op::Delete;
                batch.changes.push(made);
            }
            None => {}
        }
        Ok(())
    }

    fn make(&mut self, key: &[u8]) -> Result<Made, ProduceError> {
        let Some(renders) = &mut self.renders else { return Ok(Made::None) };
        let Some((table, row)) = renders.nester.parent(key)? else { return Ok(Made::None) };
        let Some(plan) = self.plan(&table)? else { return Ok(Made::None) };
        let mut values = match plan.apply(row.view()) {
            Ok(Some(values)) => values,
            Ok(None) => return Ok(Made::None),
            Err(error) => return Ok(Made::Refused(error.to_string())),
        };
        let Some(renders) = &mut self.renders else { return Ok(Made::None) };
        match renders.nester.nested(&table, row.view())? {
            Ok(nested) => values.extend(nested),
            Err(reason) => return Ok(Made::Refused(reason)),
        }
        let Some(shaped) = self.shape(&table)? else { return Ok(Made::None) };
        Ok(Made::Row(shaped, values))
    }

    /// Makes what a change waits for. `None`: nothing is to be written. `Err`: why it cannot be.
    fn finish(
        &mut self,
        mut change: OutChange,
        key: &[u8],
    ) -> Result<Result<Option<OutChange>, (OutChange, String)>, ProduceError> {
        Ok(match self.make(key)? {
            Made::Row(table, values) => {
                change.before = change.before.map(|row| renamed(row, &change.table, &table));
                change.after = Some(values);
                change.table = table;
                if change.before.is_none() && change.op == Op::Update && change.again {
                    change.op = Op::Read;
                }
                Ok(Some(change))
            }
            Made::None if change.before.is_some() => {
                change.op = Op::Delete;
                Ok(Some(change))
            }
            Made::None => Ok(None),
            Made::Refused(reason) => {
                let Some(renders) = &mut self.renders else { return Ok(Ok(None)) };
                if let Some((table, row)) = renders.nester.parent(key)?
                    && let (Some(plan), Some(shaped)) = (self.plan(&table)?, self.shape(&table)?)
                {
                    change.after = plan.key_only(row.view()).map(|row| padded(row, &shaped));
                    change.before = None;
                    change.table = shaped;
                }
                Err((change, reason))
            }
        })
    }

    /// Makes what the batch gathered, and gives it to the sink's half, in parts when it is large.
    pub(super) fn hand_on_rendered(
        &mut self,
        batch: &mut Produced,
        out: &Listener,
    ) -> Result<bool, ProduceError> {
        let next = Produced::empty(batch.up_to.epoch);
        let mut whole = std::mem::replace(batch, next);
        let (end, mut bytes) = (whole.up_to, 0);
        let Some(renders) = &mut self.renders else { return Ok(true) };
        let waiting = std::mem::take(&mut renders.waiting);
        renders.touched.clear();
        if !waiting.is_empty() && !renders.is_looking && !self.look(end.lsn, out)? {
            return Ok(true);
        }
        for (index, change) in std::mem::take(&mut whole.changes).into_iter().enumerate() {
            let lsn = change.lsn;
            let made = match waiting.get(&index) {
                // A later change of the batch writes the row.
                None if is_blank(&change) => continue,
                None => Ok(Some(change)),
                Some(key) => self.finish(change, key)?,
            };
            match made {
                Ok(Some(change)) => {
                    bytes += change.after.iter().flatten().map(size).sum::<usize>();
                    whole.changes.push(change);
                }
                Ok(None) => {}
                Err((change, reason)) => whole.failed.push((change, reason)),
            }
            if bytes >= BATCH_BYTES_MAX {
                bytes = 0;
                // The rest of this change may follow: progress stays before it.
                let up_to = Progress { epoch: end.epoch, lsn: lsn - 1 };
                let part = Produced {
                    changes: std::mem::take(&mut whole.changes),
                    failed: std::mem::take(&mut whole.failed),
                    tables: std::mem::take(&mut whole.tables),
                    up_to,
                    ..Produced::empty(end.epoch)
                };
                self.end_look()?;
                if out.blocking_send(Ok(part)).is_err() || !self.look(end.lsn, out)? {
                    return Ok(true);
                }
            }
        }
        self.end_look()?;
        if out.blocking_send(Ok(whole)).is_err() {
            return Ok(true);
        }
        Ok(!self.look(end.lsn, out)?)
    }

    /// Writes every row of the flow's table once more, because of a change that touches all of them.
    pub(super) fn give_all(
        &mut self,
        change: &Change<'_>,
        batch: &mut Produced,
        out: &Listener,
    ) -> Result<bool, ProduceError> {
        if batch.up_to.lsn > 0 && self.hand_on(batch, out)? {
            return Ok(true);
        }
        tracing::info!(lsn = change.lsn, table = %change.table.name, "all documents are written once more");
        let up_to = Progress { epoch: change.epoch, lsn: change.lsn - 1 };
        let mut after = Vec::new();
        loop {
            let Some(renders) = &mut self.renders else { return Ok(false) };
            let keys = renders.nester.page(&after)?;
            let Some(last) = keys.last() else { return Ok(false) };
            after.clone_from(last);
            let mut part = Produced { up_to, ..Produced::empty(change.epoch) };
            for key in keys {
                renders.waiting.insert(part.changes.len(), key);
                part.changes.push(OutChange { again: true, ..blank(change, Arc::clone(&change.table)) });
            }
            part.failed.clear();
            if self.hand_on_rendered(&mut part, out)? {
                return Ok(true);
            }
        }
    }

    /// One change by itself, as the mirror has its rows now: for who tries again and who looks. Nobody waits.
    pub(super) fn convert_rendered(
        &mut self,
        change: &Change<'_>,
        tables: &mut Vec<Arc<Table>>,
        out: &mut Vec<OutChange>,
    ) -> Result<Converted, ProduceError> {
        let Some(renders) = &mut self.renders else { return Ok(Converted::Foreign) };
        let name = &change.table.name;
        if !renders.nester.is_parent(name) && !renders.nester.is_nested(name) {
            return Ok(Converted::Foreign);
        }
        renders.shapes.clear();
        if !renders.nester.look_now(change.lsn)? {
            let blank = blank(change, Arc::clone(&change.table));
            return Ok(Converted::Failed(
                Box::new(blank),
                "the mirror of its source is not whole now".to_owned(),
            ));
        }
        let converted = self.convert_looking(change, tables, out);
        self.end_look()?;
        if let Some(renders) = &mut self.renders {
            renders.waiting.clear();
            renders.touched.clear();
        }
        converted
    }

    fn convert_looking(
        &mut self,
        change: &Change<'_>,
        tables: &mut Vec<Arc<Table>>,
        out: &mut Vec<OutChange>,
    ) -> Result<Converted, ProduceError> {
        let touched = self.touched(change)?;
        let mut batch = Produced::empty(change.epoch);
        self.take_rendered(change, touched, &mut batch)?;
        tables.append(&mut batch.tables);
        let waiting =
            self.renders.as_mut().map(|renders| std::mem::take(&mut renders.waiting)).unwrap_or_default();
        let before = out.len();
        for (index, gathered) in batch.changes.into_iter().enumerate() {
            let made = match waiting.get(&index) {
                None if is_blank(&gathered) => continue,
                None => Ok(Some(gathered)),
                Some(key) => self.finish(gathered, key)?,
            };
            match made {
                Ok(made) => out.extend(made),
                Err((change, reason)) => return Ok(Converted::Failed(Box::new(change), reason)),
            }
        }
        Ok(if out.len() > before { Converted::Passed } else { Converted::LeftOut })
    }
}

fn blank(change: &Change<'_>, table: Arc<Table>) -> OutChange {
    let op = if matches!(change.op, Op::Read | Op::Insert) { change.op } else { Op::Update };
    OutChange { op, ..OutChange::of(change, table) }
}

fn is_blank(change: &OutChange) -> bool {
    change.before.is_none() && change.after.is_none() && !matches!(change.op, Op::Ddl | Op::Truncate)
}

/// A row with nothing in the nested columns.
fn padded(mut row: Vec<Value>, table: &Table) -> Vec<Value> {
    row.resize(table.columns.len(), Value::Null);
    row
}

/// A row of one definition in the columns of another, by their names.
fn renamed(row: Vec<Value>, of: &Arc<Table>, into: &Arc<Table>) -> Vec<Value> {
    if of.version == into.version {
        return row;
    }
    let value = |name: &str| of.column_index(name).and_then(|index| row.get(index).cloned());
    into.columns.iter().map(|column| value(&column.name).unwrap_or_default()).collect()
}

fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len(),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            bytes.len()
        }
        _ => 8,
    }
}
