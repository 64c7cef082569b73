//! The reading half of a flow: journal → patterns → transform → batches, on a thread of its own, a few batches ahead of
//! the sink.

use super::nested::Renders;
use super::sink::{OutChange, Progress, WholeRow};
use crate::config::FlowConfig;
use crate::mirror::Mirror;
use crate::mirror::read::ReadError;
use crate::nest::{NestError, Touched};
use crate::patterns::Patterns;
use crate::transform::{EvalError, LeftOut, OutRow, TablePlan, Transform, dedup};
use base::{Change, Ddl, Op, Table, TableName};
use journal::{Journal, JournalError, Reader};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Rows of one write unless the configuration says otherwise.
pub const BATCH_ROWS_DEFAULT: u32 = 1024;
/// A source transaction longer than this many batches is handed on in parts.
const PARTS_AFTER_BATCHES: usize = 8;
/// Rows of a batch take at most this in the journal, and one row more: also in the middle of a transaction.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;
/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Batches ready ahead of the sink.
pub const BATCHES_AHEAD_MAX: usize = 2;

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("failed to read the journal")]
    Journal(#[from] JournalError),
    #[error("failed to transform rows of `{table}`: {message}")]
    Plan { table: String, message: String, hint: String },
    #[error("a row image of `{0}` is malformed")]
    Malformed(String),
    #[error("failed to join rows of other tables")]
    Nest(#[from] NestError),
}

impl From<ReadError> for ProduceError {
    fn from(error: ReadError) -> Self {
        Self::Nest(error.into())
    }
}

/// What the sink's half takes.
pub struct Produced {
    pub changes: Vec<OutChange>,
    /// Changes that no expression could be evaluated for, with the reason: parked like refused rows.
    pub failed: Vec<(OutChange, String)>,
    pub up_to: Progress,
    pub ends_txn: bool,
    /// Tables that the sink shall have before these changes.
    pub tables: Vec<Arc<Table>>,
    /// Commit times of the first and the last change read, milliseconds; 0 when there is none.
    pub first_ts_ms: i64,
    pub ts_ms: i64,
    /// Bytes of the rows that became `changes`, in the journal's encoding.
    pub bytes: u64,
    /// What `dedup` left out.
    pub left_out: LeftOut,
}

impl Produced {
    /// Nothing read yet.
    pub(super) fn empty(epoch: u32) -> Self {
        Self {
            changes: Vec::new(),
            failed: Vec::new(),
            up_to: Progress { epoch, lsn: 0 },
            ends_txn: true,
            tables: Vec::new(),
            first_ts_ms: 0,
            ts_ms: 0,
            bytes: 0,
            left_out: LeftOut::default(),
        }
    }
}

/// What became of a change.
pub enum Converted {
    /// Its table is not of this flow.
    Foreign,
    /// The rules leave it out.
    LeftOut,
    /// It is among the changes: once, or several times where rows become several.
    Passed,
    /// A rule has no answer for it: the change with its key only, and the reason.
    Failed(Box<OutChange>, String),
}

/// How a table's rows leave.
enum Route {
    Skip,
    Plan(Arc<TablePlan>),
}

pub struct Producer {
    journal: Journal,
    pub(super) transform: Transform,
    patterns: Patterns,
    routes: HashMap<(u32, u32), Route>,
    pub(super) prepared: HashSet<(u32, u32)>,
    batch_rows: usize,
    /// Whether batches are filled while the journal has more, for sinks to which each costs much.
    fills: bool,
    /// Where the first batch ends, unless it is full before.
    first_to: Option<u64>,
    /// The table of the source that each table of the sink is of; `None` where several may be.
    owners: Option<HashMap<TableName, TableName>>,
    /// For a flow whose documents hold rows of other tables.
    pub(super) renders: Option<Renders>,
    /// Whether its rules look rows up in other tables.
    pub(super) reads_mirror: bool,
}

impl Producer {
    /// `mirror` is that of the flow's source, for flows that join other tables.
    pub fn new(journal: Journal, config: &FlowConfig, mirror: Option<&Mirror>) -> Result<Self, ProduceError> {
        let wrong =
            |message: String, hint: String| ProduceError::Plan { table: "the flow".into(), message, hint };
        let transform = Transform::compile(config).map_err(|errors| {
            let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
            wrong(text.join("; "), "run `tidemill check`".into())
        })?;
        let reads_mirror = transform.reads_mirror();
        match mirror {
            Some(mirror) => transform.attach(mirror),
            None if reads_mirror => {
                let message = "the mirror of the source is not at hand".to_owned();
                return Err(wrong(message, "ask the running node".into()));
            }
            None => {}
        }
        let all = ["*.*".to_owned()];
        let include = if config.tables.is_empty() { &all[..] } else { &config.tables };
        let patterns =
            Patterns::new(include, &[]).map_err(|e| wrong(e.to_string(), "write db.table".into()))?;
        Ok(Self {
            journal,
            transform,
            patterns,
            routes: HashMap::new(),
            prepared: HashSet::new(),
            batch_rows: BATCH_ROWS_DEFAULT as usize,
            fills: false,
            first_to: None,
            owners: None,
            renders: Renders::new(config, mirror)?,
            reads_mirror,
        })
    }

    /// Refuses two tables of the source that would be one in the sink, where their rows would overwrite each other.
    pub fn one_table_each(self, refuse: bool) -> Self {
        Self { owners: refuse.then(HashMap::new), ..self }
    }

    /// How many rows a batch has, about.
    pub fn batches_of(self, rows: u32) -> Self {
        Self { batch_rows: rows.clamp(1, 100_000) as usize, ..self }
    }

    /// Whether a batch that is not full waits for more that is already in the journal.
    pub fn filled(self, fills: bool) -> Self {
        Self { fills, ..self }
    }

    /// The first batch ends with this change at the latest.
    pub fn first_to(self, lsn: Option<u64>) -> Self {
        Self { first_to: lsn, ..self }
    }

    /// Reads from `from` for ever, until the receiver is gone. Blocking.
    pub fn run(mut self, from: u64, out: &mpsc::Sender<Result<Produced, ProduceError>>) {
        let runtime = tokio::runtime::Handle::current();
        let mut seals = self.journal.watch();
        let result = (|| -> Result<(), ProduceError> {
            self.remember(from)?;
            let mut reader = self.journal.reader(from)?;
            let mut epoch = self.journal.sealed().epoch;
            loop {
                seals.borrow_and_update();
                if self.read_on(&mut reader, &mut epoch, out)? {
                    return Ok(());
                }
                let tables = self.unprepared(reader.next_lsn() - 1, out)?;
                if !tables.is_empty() {
                    let up_to = Progress { epoch, lsn: reader.next_lsn() - 1 };
                    let idle = Produced { up_to, tables, ..Produced::empty(epoch) };
                    if out.blocking_send(Ok(idle)).is_err() {
                        return Ok(());
                    }
                }
                let gone = runtime.block_on(async {
                    tokio::select! {
                        changed = seals.changed() => changed.is_err(),
                        () = out.closed() => true,
                    }
                });
                if gone {
                    return Ok(());
                }
            }
        })();
        if let Err(error) = result {
            let _ = out.blocking_send(Err(error));
        }
    }

    /// For a flow with `dedup`: reads again what decides which rows from `from` on are repeats. Blocking.
    pub fn remember(&mut self, from: u64) -> Result<(), ProduceError> {
        let Some(dedup) = self.transform.dedup().map(Arc::clone) else { return Ok(()) };
        dedup.begin();
        let first = from.saturating_sub(dedup::CHANGES_MAX).max(self.journal.first_lsn()).max(1);
        if first >= from {
            return Ok(());
        }
        // Names that have gone since are nobody's claim.
        let owners = self.owners.take();
        let mut reader = self.journal.reader(first)?;
        'reading: while let Some(chunk) = reader.next(READ_BYTES)? {
            for change in chunk.changes() {
                let change = change?;
                if change.lsn >= from {
                    break 'reading;
                }
                dedup.at(change.lsn, change.ts_ms);
                // A definition that the rules did not fit had no row that went on.
                match self.plan(&change.table) {
                    Ok(Some(plan)) if empties(&change) => dedup.emptied(&plan.table().name),
                    Ok(Some(plan)) if matches!(change.op, Op::Insert | Op::Read) => {
                        let _ = change.after.map(|row| plan.apply(row));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        self.owners = owners;
        // These were counted when they came.
        dedup.take_left_out();
        Ok(())
    }

    /// Reads to the journal's end; true when nobody listens any more.
    fn read_on(
        &mut self,
        reader: &mut Reader,
        epoch: &mut u32,
        out: &mpsc::Sender<Result<Produced, ProduceError>>,
    ) -> Result<bool, ProduceError> {
        let mut batch = Produced::empty(*epoch);
        let mut bytes = 0;
        while let Some(chunk) = reader.next(READ_BYTES)? {
            if !self.look(chunk.last_lsn(), out)? {
                return Ok(true);
            }
            for change in chunk.changes() {
                let change = change?;
                *epoch = change.epoch;
                let touched = self.touched(&change)?;
                if matches!(touched, Touched::All) && self.give_all(&change, &mut batch, out)? {
                    return Ok(true);
                }
                let ends_txn = change.txn.as_ref().is_none_or(|txn| txn.last);
                batch.up_to = Progress { epoch: change.epoch, lsn: change.lsn };
                batch.ts_ms = change.ts_ms;
                if batch.first_ts_ms == 0 {
                    batch.first_ts_ms = change.ts_ms;
                }
                let before = batch.changes.len();
                self.take(&change, touched, &mut batch)?;
                batch.ends_txn = ends_txn;
                let rows = batch.changes.len();
                let images = [change.before, change.after].into_iter().flatten();
                let size = images.map(|row| row.0.len()).sum::<usize>();
                bytes += size;
                if rows > before {
                    batch.bytes += size as u64;
                }
                let full = self.first_to == Some(change.lsn)
                    || bytes >= BATCH_BYTES_MAX
                    || rows >= self.batch_rows && (ends_txn || rows >= self.batch_rows * PARTS_AFTER_BATCHES);
                if full {
                    bytes = 0;
                }
                if full && self.hand_on(&mut batch, out)? {
                    return Ok(true);
                }
            }
            // Nothing waits for what is still to come: what was read is handed on, whole transactions if they are.
            let waits = self.fills && !batch.changes.is_empty();
            let ends = batch.ends_txn && !waits;
            if ends {
                bytes = 0;
            }
            if batch.up_to.lsn > 0 && ends && self.hand_on(&mut batch, out)? {
                return Ok(true);
            }
            self.end_look()?;
        }
        let ended = batch.up_to.lsn > 0 && self.hand_on(&mut batch, out)?;
        self.end_look()?;
        Ok(ended)
    }

    /// Gives a batch to the sink's half; true when nobody listens any more.
    pub(super) fn hand_on(
        &mut self,
        batch: &mut Produced,
        out: &mpsc::Sender<Result<Produced, ProduceError>>,
    ) -> Result<bool, ProduceError> {
        if self.renders.is_some() {
            return self.hand_on_rendered(batch, out);
        }
        if let Some(dedup) = self.transform.dedup() {
            batch.left_out = dedup.take_left_out();
        }
        let (next, lsn) = (Produced::empty(batch.up_to.epoch), batch.up_to.lsn);
        self.end_look()?;
        let sent = out.blocking_send(Ok(std::mem::replace(batch, next)));
        Ok(sent.is_err() || !self.look(lsn, out)?)
    }

    fn take(
        &mut self,
        change: &Change<'_>,
        touched: Touched,
        batch: &mut Produced,
    ) -> Result<(), ProduceError> {
        if self.renders.is_some() {
            return self.take_rendered(change, touched, batch);
        }
        if change.op == Op::Ddl {
            return self.take_ddl(change, batch);
        }
        if let Converted::Failed(out, reason) = self.convert(change, &mut batch.tables, &mut batch.changes)? {
            batch.failed.push((*out, reason));
        }
        Ok(())
    }

    pub(super) fn plan(&mut self, table: &Arc<Table>) -> Result<Option<Arc<TablePlan>>, ProduceError> {
        let id = (table.id, table.version);
        if let Some(route) = self.routes.get(&id) {
            return Ok(match route {
                Route::Skip => None,
                Route::Plan(plan) => Some(Arc::clone(plan)),
            });
        }
        if !self.patterns.matches(&table.name) {
            self.routes.insert(id, Route::Skip);
            return Ok(None);
        }
        let plan = self.transform.plan(table).map_err(|error| ProduceError::Plan {
            table: table.name.to_string(),
            message: error.to_string(),
            hint: error.hint.clone(),
        })?;
        let plan = Arc::new(plan);
        self.claim(table, &plan)?;
        self.routes.insert(id, Route::Plan(Arc::clone(&plan)));
        Ok(Some(plan))
    }

    /// Notes whose rows a table of the sink has.
    fn claim(&mut self, source: &Table, plan: &TablePlan) -> Result<(), ProduceError> {
        let Some(owners) = self.owners.as_mut().filter(|_| plan.origin().is_none()) else { return Ok(()) };
        let target = &plan.table().name;
        let owner = owners.entry(target.clone()).or_insert_with(|| source.name.clone());
        if *owner == source.name {
            return Ok(());
        }
        Err(ProduceError::Plan {
            table: source.name.to_string(),
            message: format!("`{owner}` goes to `{target}` too, and rows with equal keys would overwrite each other"),
            hint: "route them apart, or merge them on MySQL or TiDB by `transform: [{origin: COLUMN}]` and `ddl: hold`"
                .into(),
        })
    }

    /// A name that goes, in the source, lets its table of the sink go.
    fn release(&mut self, ddl: &Ddl) {
        let Some(before) = &ddl.before else { return };
        let stays = ddl.after.as_ref().is_some_and(|after| after.name == before.name);
        if let Some(owners) = self.owners.as_mut().filter(|_| !stays) {
            owners.retain(|_, owner| *owner != before.name);
        }
    }

    /// What a table's rows become in the sink; `None` for a table that is not of the flow.
    pub fn target(&mut self, table: &Arc<Table>) -> Result<Option<Arc<Table>>, ProduceError> {
        Ok(self.plan(table)?.map(|plan| Arc::clone(plan.table())))
    }

    /// Appends the change as the sink shall see it to `out`.
    pub fn convert(
        &mut self,
        change: &Change<'_>,
        tables: &mut Vec<Arc<Table>>,
        out: &mut Vec<OutChange>,
    ) -> Result<Converted, ProduceError> {
        if self.renders.is_some() {
            return self.convert_rendered(change, tables, out);
        }
        let Some(plan) = self.plan(&change.table)? else { return Ok(Converted::Foreign) };
        let table = Arc::clone(plan.table());
        if self.prepared.insert((change.table.id, change.table.version)) {
            tables.push(Arc::clone(&table));
        }
        let mut made = OutChange::of(change, table);
        if let Some(dedup) = self.transform.dedup() {
            dedup.at(change.lsn, change.ts_ms);
            match change.op {
                Op::Update | Op::Delete => {
                    dedup.leave_out();
                    return Ok(Converted::LeftOut);
                }
                Op::Truncate => dedup.emptied(&made.table.name),
                Op::Insert | Op::Read | Op::Ddl => {}
            }
        }
        if change.op == Op::Truncate {
            made.before = plan.origin();
            out.push(made);
            return Ok(Converted::Passed);
        }
        if plan.splits() {
            return Ok(convert_split(&plan, change, made, out));
        }
        match plan.apply_change(change.before, change.after, change.op) {
            Ok(None) => Ok(Converted::LeftOut),
            Ok(Some(row)) => {
                (made.op, made.before, made.after) = (row.op, row.before, row.after);
                out.push(made);
                Ok(Converted::Passed)
            }
            Err(error) => Ok(failed(&plan, change, made, &error)),
        }
    }

    pub(super) fn take_ddl(&mut self, change: &Change<'_>, batch: &mut Produced) -> Result<(), ProduceError> {
        let Some(ddl) = &change.ddl else { return Ok(()) };
        let plan_before = ddl.before.as_ref().map(|table| self.plan(table)).transpose()?.flatten();
        if let Some((dedup, plan)) =
            self.transform.dedup().zip(plan_before.as_ref()).filter(|_| empties(change))
        {
            dedup.at(change.lsn, change.ts_ms);
            dedup.emptied(&plan.table().name);
        }
        self.release(ddl);
        let plan_after = ddl.after.as_ref().map(|table| self.plan(table)).transpose()?.flatten();
        let whose = |plan: Option<Arc<TablePlan>>| plan.and_then(|plan| plan.origin());
        let (rows_before, rows_after) = (whose(plan_before), whose(plan_after));
        let mut side = |table: &Option<Arc<Table>>| match table {
            None => Ok(None),
            Some(table) => self.shape(table),
        };
        let (before, after) = (side(&ddl.before)?, side(&ddl.after)?);
        let Some(table) = after.clone().or_else(|| before.clone()) else { return Ok(()) };
        if let Some(source) = &ddl.after {
            self.prepared.insert((source.id, source.version));
        }
        batch.changes.push(OutChange {
            before: rows_before,
            after: rows_after,
            ddl: Some(Arc::new(Ddl {
                sql: ddl.sql.clone(),
                before,
                after,
                column_renames: ddl.column_renames.clone(),
            })),
            of: ddl.after.clone(),
            ..OutChange::of(change, table)
        });
        Ok(())
    }

    /// Tables of the flow that had no row yet.
    fn unprepared(
        &mut self,
        lsn: u64,
        listener: &mpsc::Sender<Result<Produced, ProduceError>>,
    ) -> Result<Vec<Arc<Table>>, ProduceError> {
        let mut out = Vec::new();
        for table in self.journal.state().tables.values() {
            if self.prepared.contains(&(table.id, table.version)) {
                continue;
            }
            if self.renders.is_some() && self.plan(table)?.is_some() && !self.look(lsn, listener)? {
                return Ok(out);
            }
            self.prepared.insert((table.id, table.version));
            out.extend(self.shape(table)?);
        }
        self.end_look()?;
        Ok(out)
    }
}

/// Whether the rows of the change's table end with it.
fn empties(change: &Change<'_>) -> bool {
    change.op == Op::Truncate || change.ddl.as_ref().is_some_and(|ddl| ddl.after.is_none())
}

/// Several rows of one.
fn convert_split(
    plan: &TablePlan,
    change: &Change<'_>,
    mut made: OutChange,
    out: &mut Vec<OutChange>,
) -> Converted {
    let key = |row: Option<base::RowView<'_>>| row.and_then(|row| plan.row_key(row));
    made.whole = Some(Arc::new(WholeRow { before: key(change.before), after: key(change.after) }));
    match plan.apply_split(change.before, change.after, change.op) {
        Ok(rows) if rows.is_empty() => Converted::LeftOut,
        Ok(rows) => {
            let part =
                |row: OutRow| OutChange { op: row.op, before: row.before, after: row.after, ..made.clone() };
            out.extend(rows.into_iter().map(part));
            Converted::Passed
        }
        Err(error) => failed(plan, change, made, &error),
    }
}

/// With its key only, under the name it has in the sink: later changes of the row wait behind it, and what a mask hides
/// stays hidden.
fn failed(plan: &TablePlan, change: &Change<'_>, mut made: OutChange, error: &EvalError) -> Converted {
    if !made.table.key.is_empty() {
        made.before = change.before.and_then(|row| plan.key_only(row));
        made.after = change.after.and_then(|row| plan.key_only(row));
    }
    Converted::Failed(Box::new(made), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Column, ColumnType, Generated, Position, RowBuf, Step, ValueRef};
    use journal::sim::SimDisk;
    use journal::{Batch, Options, open};
    use std::path::Path;

    fn table() -> Arc<Table> {
        let column = Column {
            name: "v".into(),
            ty: ColumnType::Text { chars_max: 1 << 24 },
            sql_type: "longtext".into(),
            nullable: false,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        let name = TableName::new("shop", "a");
        let table =
            Table { id: 1, version: 1, name, columns: vec![column], key: vec![], unique_keys: vec![] };
        Arc::new(table)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transaction_of_large_rows_comes_in_batches_of_few_bytes() {
        let (rows, row_bytes) = (40, 1 << 20);
        let table = table();
        let disk = Arc::new(SimDisk::new(1));
        let (mut writer, journal) = open(disk, Path::new("/j"), Options::default()).unwrap();
        let mut batch = Batch::new(writer.state().next_lsn);
        batch.schema(&table);
        batch.begin("t", 1);
        let row = RowBuf::from_values([ValueRef::Text(&"x".repeat(row_bytes))]);
        for _ in 0..rows {
            batch.change(Op::Insert, &table, None, Some(&row.0));
        }
        batch.commit(&Step::Full(Box::new(Position::Sqlite { change_id: 0 })));
        writer.append(batch).unwrap();
        writer.seal().unwrap();
        let producer = Producer::new(journal, &FlowConfig::probe("x"), None).unwrap();
        let (sender, mut batches) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || producer.run(1, &sender));
        let mut seen = 0;
        while seen < rows {
            let produced = batches.recv().await.unwrap().unwrap();
            seen += produced.changes.len();
            assert!(produced.changes.len() * row_bytes <= BATCH_BYTES_MAX + row_bytes);
            assert_eq!(produced.ends_txn, seen == rows);
        }
    }

    /// The sizes of the batches of 3,000 transactions of a row of 1 KiB.
    async fn sizes(fills: bool) -> Vec<usize> {
        let (table, rows) = (table(), 3000);
        let disk = Arc::new(SimDisk::new(1));
        let (mut writer, journal) = open(disk, Path::new("/j"), Options::default()).unwrap();
        let mut batch = Batch::new(writer.state().next_lsn);
        batch.schema(&table);
        let row = RowBuf::from_values([ValueRef::Text(&"x".repeat(1024))]);
        for number in 0..rows {
            batch.begin(&number.to_string(), 1);
            batch.change(Op::Insert, &table, None, Some(&row.0));
            batch.commit(&Step::Full(Box::new(Position::Sqlite { change_id: number })));
        }
        writer.append(batch).unwrap();
        writer.seal().unwrap();
        let producer = Producer::new(journal, &FlowConfig::probe("x"), None).unwrap();
        let producer = producer.batches_of(2500).filled(fills);
        let (sender, mut batches) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || producer.run(1, &sender));
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < rows as usize {
            sizes.push(batches.recv().await.unwrap().unwrap().changes.len());
        }
        sizes
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_is_filled_with_what_is_there_where_that_is_wanted() {
        assert_eq!(sizes(true).await, [2500, 500]);
        let soon = sizes(false).await;
        assert!(soon[0] < 1100 && soon.len() >= 3, "{soon:?}");
    }
}
