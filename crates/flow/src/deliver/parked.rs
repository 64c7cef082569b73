//! Changes that a sink refused and those that wait behind them: which rows they hold back, by which names these rows go
//! now, and how they are read again.

use super::producer::{Converted, ProduceError, Producer};
use super::sink::OutChange;
use super::{Flow, FlowError, now_ms};
use crate::config::{RedisType, SinkKind};
use base::{Op, Table, TableName, Value};
use catalog::{Catalog, DeadLetter, ParkedRename, ParkedRow};
use journal::{Chunk, Journal, JournalError, Reader};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes asked of the journal at once when parked changes are read again.
const READ_BYTES: usize = 256 << 10;

/// A parked change as the journal and today's rules have it.
pub enum Reread {
    /// One, or all that the row became.
    Changes(Vec<OutChange>),
    /// An expression cannot be evaluated for it, or it does not fit what its table became.
    Unfit(String),
    /// Today's filter or tables leave it out.
    Excluded,
    /// Retention has removed it.
    Gone,
}

/// The parked changes of one flow.
pub struct Parked {
    flow: Arc<str>,
    labels: [(&'static str, String); 2],
    catalog: Catalog,
    journal: Journal,
    /// Whether the sink holds rows, which end with their table and move with its name.
    holds_rows: bool,
    /// `(table, key)` → the lsn that later changes of the row wait for.
    held: HashMap<(String, String), u64>,
    count: u64,
    producer: Producer,
    reader: Option<Reader>,
    chunk: Option<Chunk>,
}

impl Parked {
    pub fn open(flow: &Flow) -> Result<Self, FlowError> {
        let mut parked = Self {
            flow: Arc::clone(&flow.name),
            labels: flow.status.labels(),
            catalog: flow.catalog.clone(),
            journal: flow.journal.clone(),
            holds_rows: holds_rows(flow),
            held: HashMap::new(),
            count: 0,
            producer: Producer::new(flow.journal.clone(), &flow.config, flow.mirror.as_ref())?,
            reader: None,
            chunk: None,
        };
        parked.recall()?;
        Ok(parked)
    }

    /// Takes from the catalog what is held.
    pub fn recall(&mut self) -> Result<(), FlowError> {
        let rows = self.catalog.parked_rows(&self.flow)?;
        self.count = rows.len() as u64;
        self.held.clear();
        for row in rows {
            let first = row.waits_for.unwrap_or(row.lsn);
            for name in names(&row) {
                self.held.entry(name).or_insert(first);
            }
        }
        metrics::gauge!(base::metrics::DEAD_LETTERS, &self.labels).set(self.count as f64);
        Ok(())
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The parked change that `change` must wait behind.
    pub fn blocker(&self, change: &OutChange) -> Option<u64> {
        if self.held.is_empty() {
            return None;
        }
        let table = change.table.name.to_string();
        keys(change).into_iter().find_map(|key| self.held.get(&(table.clone(), key)).copied())
    }

    /// Answers whether the change was not parked already.
    pub fn park(
        &mut self,
        change: &OutChange,
        reason: &str,
        waits_for: Option<u64>,
    ) -> Result<bool, FlowError> {
        tracing::warn!(flow = %self.flow, lsn = change.lsn, reason, "change parked");
        let keys = keys(change);
        let letter = DeadLetter {
            epoch: change.epoch,
            lsn: change.lsn,
            db: change.table.name.db.clone(),
            table: change.table.name.table.clone(),
            key: keys.last().cloned().unwrap_or_default(),
            old_key: keys.first().filter(|_| keys.len() > 1).cloned().unwrap_or_default(),
            op: change.op.name().to_owned(),
            reason: reason.to_owned(),
            waits_for,
            parked_ms: now_ms(),
            change: change_text(change),
        };
        let added = self.catalog.park(&self.flow, &[letter])?;
        metrics::counter!(base::metrics::PARKED_CHANGES, &self.labels).increment(added);
        self.count += added;
        let table = change.table.name.to_string();
        for key in keys {
            self.held.entry((table.clone(), key)).or_insert(waits_for.unwrap_or(change.lsn));
        }
        metrics::gauge!(base::metrics::DEAD_LETTERS, &self.labels).set(self.count as f64);
        Ok(added > 0)
    }

    /// In a sink that holds rows, what is parked ends when its table is emptied or dropped, and goes where its table's
    /// name goes. Done before the sink does it, which it then surely does; done again, it changes nothing.
    pub fn follow(&mut self, change: &OutChange) -> Result<(), FlowError> {
        if !self.holds_rows || self.count == 0 {
            return Ok(());
        }
        if change.before.is_some() && (change.ddl.is_some() || change.op == Op::Truncate) {
            return self.follow_merged(change);
        }
        if ends_rows(change) {
            let name = &change.table.name;
            let forgotten = self.catalog.unpark_table(&self.flow, &name.db, &name.table, change.lsn)?;
            if forgotten > 0 {
                tracing::info!(flow = %self.flow, table = %name, forgotten, "parked changes ended with the rows of their table");
                self.recall()?;
            }
            return Ok(());
        }
        let Some(rename) = rename_of(change) else { return Ok(()) };
        let rows = self.catalog.parked_rows(&self.flow)?;
        let of_table = |row: &&ParkedRow| (&row.db, &row.table) == (&rename.from.0, &rename.from.1);
        let rows: Vec<_> = rows.iter().filter(|row| row.lsn < change.lsn).filter(of_table).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.catalog.note_rename(&self.flow, &rename)?;
        for row in rows {
            match self.reread(row.lsn)? {
                Reread::Changes(changes) => {
                    // All that a row became goes by the key of the row.
                    let keys = changes.first().map(keys).unwrap_or_default();
                    let key = keys.last().cloned().unwrap_or_default();
                    let old_key = keys.first().filter(|_| keys.len() > 1).cloned().unwrap_or_default();
                    self.catalog.rekey(&self.flow, row.lsn, &rename.to, &key, &old_key)?;
                }
                Reread::Unfit(_) | Reread::Gone => {
                    self.catalog.rekey(&self.flow, row.lsn, &rename.to, &row.key, &row.old_key)?;
                }
                Reread::Excluded => self.catalog.unpark(&self.flow, row.lsn)?,
            }
        }
        self.recall()
    }

    /// The same for a statement on one of the tables that are merged into this one.
    fn follow_merged(&mut self, change: &OutChange) -> Result<(), FlowError> {
        let Some(whose) = change.before.as_deref().and_then(|row| whose(&change.table, row)) else {
            return Ok(());
        };
        let ends = ends_rows(change);
        if !ends && change.before == change.after && rename_of(change).is_none() {
            return Ok(());
        }
        let name = &change.table.name;
        let of_table =
            |row: &ParkedRow| (&row.db, &row.table) == (&name.db, &name.table) && row.lsn < change.lsn;
        let rows: Vec<ParkedRow> = self
            .catalog
            .parked_rows(&self.flow)?
            .into_iter()
            .filter(|row| of_table(row) && whose(row))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        if !ends {
            return Err(FlowError::Stuck {
                message: format!("a statement renames what {} parked changes of `{name}` are of", rows.len()),
                hint: "mend the target and run `tidemill flow retry`, or drop them, before the names change"
                    .into(),
            });
        }
        for row in &rows {
            self.catalog.unpark(&self.flow, row.lsn)?;
        }
        self.recall()
    }

    /// A parked change as the journal has it, by today's rules and under its table's name of now. Blocks on the disk.
    /// Cheapest in the order of lsn.
    pub fn reread(&mut self, lsn: u64) -> Result<Reread, FlowError> {
        let (changes, reason) = match self.find(lsn)? {
            Found::Gone => return Ok(Reread::Gone),
            Found::Excluded => return Ok(Reread::Excluded),
            Found::Changes(changes) => (changes, None),
            Found::Failed(change, reason) => (vec![*change], Some(reason)),
        };
        let renames = if self.holds_rows { self.catalog.renames(&self.flow)? } else { Vec::new() };
        let mut current = Vec::with_capacity(changes.len());
        for mut change in changes {
            for rename in &renames {
                let of_table = (&change.table.name.db, &change.table.name.table);
                if rename.lsn <= lsn || of_table != (&rename.from.0, &rename.from.1) {
                    continue;
                }
                change = match renamed(change, rename) {
                    Ok(change) => change,
                    Err(reason) => return Ok(Reread::Unfit(reason)),
                };
            }
            current.push(change);
        }
        Ok(match reason {
            Some(reason) => Reread::Unfit(reason),
            None => Reread::Changes(current),
        })
    }

    /// Whether a later parked change makes up for one that has no answer: it is of the same row, has an answer, and says all
    /// that a sink of rows keeps. `later` is in the order of lsn.
    pub fn made_up_for(&mut self, row: &ParkedRow, later: &[ParkedRow]) -> Result<bool, FlowError> {
        if !self.holds_rows || !row.old_key.is_empty() || row.key.is_empty() {
            return Ok(false);
        }
        let same = |other: &&ParkedRow| {
            let came_from = if other.old_key.is_empty() { &other.key } else { &other.old_key };
            (&other.db, &other.table, came_from) == (&row.db, &row.table, &row.key)
        };
        for other in later.iter().filter(same) {
            if matches!(self.reread(other.lsn)?, Reread::Changes(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find(&mut self, lsn: u64) -> Result<Found, FlowError> {
        let here =
            |chunk: &Chunk| chunk.last_lsn() >= lsn && first_lsn(chunk).is_some_and(|first| first <= lsn);
        if !self.chunk.as_ref().is_some_and(here) {
            let behind = self.reader.as_ref().is_some_and(|reader| reader.next_lsn() > lsn);
            let moved = match &mut self.reader {
                Some(reader) if !behind => reader.skip_to(lsn),
                _ => self.journal.reader(lsn).map(|reader| self.reader = Some(reader)),
            };
            let chunk = moved.and_then(|()| match &mut self.reader {
                Some(reader) => reader.next(READ_BYTES),
                None => Ok(None),
            });
            self.chunk = match chunk {
                Err(JournalError::Pruned { .. }) => {
                    self.reader = None;
                    return Ok(Found::Gone);
                }
                chunk => chunk.map_err(ProduceError::from)?,
            };
        }
        let Some(chunk) = &self.chunk else { return Ok(Found::Gone) };
        for change in chunk.changes() {
            let change = change.map_err(ProduceError::from)?;
            if change.lsn == lsn {
                let mut changes = Vec::new();
                return Ok(match self.producer.convert(&change, &mut Vec::new(), &mut changes)? {
                    Converted::Foreign | Converted::LeftOut => Found::Excluded,
                    Converted::Passed => Found::Changes(changes),
                    Converted::Failed(change, reason) => Found::Failed(change, reason),
                });
            }
        }
        Ok(Found::Gone)
    }

    /// Lets go of what was read of the journal.
    pub fn rest(&mut self) {
        (self.reader, self.chunk) = (None, None);
    }
}

/// Whether the flow's sink holds the rows that the source has, and not what happened to them.
pub fn holds_rows(flow: &Flow) -> bool {
    let options = &flow.config.options;
    !options.history
        && match flow.sink_config.kind {
            SinkKind::Mysql | SinkKind::Tidb | SinkKind::Sqlite | SinkKind::Elasticsearch => true,
            SinkKind::Redis => !matches!(options.r#type, Some(RedisType::Stream | RedisType::Pubsub)),
            _ => false,
        }
}

enum Found {
    Changes(Vec<OutChange>),
    Failed(Box<OutChange>, String),
    Excluded,
    Gone,
}

fn first_lsn(chunk: &Chunk) -> Option<u64> {
    chunk.changes().next()?.ok().map(|change| change.lsn)
}

/// The rows that a parked change is of, `(table, key)`: under its old key and its new one.
pub fn names(row: &ParkedRow) -> impl Iterator<Item = (String, String)> + use<> {
    let table = format!("{}.{}", row.db, row.table);
    let keys = [row.old_key.clone(), row.key.clone()];
    keys.into_iter().filter(|key| !key.is_empty()).map(move |key| (table.clone(), key))
}

/// Whether all rows of the change's table end with it.
fn ends_rows(change: &OutChange) -> bool {
    match &change.ddl {
        Some(ddl) => ddl.after.is_none(),
        None => change.op == Op::Truncate,
    }
}

/// Tells parked rows that are of the table that `row` names: see [`OutChange::before`].
fn whose(table: &Table, row: &[Value]) -> Option<impl Fn(&ParkedRow) -> bool> {
    let at = row.iter().position(|value| *value != Value::Null)?;
    let (column, value) = (table.columns[at].name.clone(), row[at].clone());
    Some(move |parked: &ParkedRow| {
        let key: serde_json::Value = serde_json::from_str(&parked.key).unwrap_or_default();
        matches!(&value, Value::Text(value) if key[&column] == value.as_str())
    })
}

/// What a statement does to names: `None` when all stay.
fn rename_of(change: &OutChange) -> Option<ParkedRename> {
    let ddl = change.ddl.as_ref()?;
    let (before, after) = (ddl.before.as_ref()?, ddl.after.as_ref()?);
    let new_name = |old: &str| {
        let renamed = ddl.column_renames.iter().find(|(from, _)| from.eq_ignore_ascii_case(old));
        renamed.map_or(old, |(_, to)| to.as_str()).to_owned()
    };
    let columns: Vec<(String, Option<String>)> = before
        .columns
        .iter()
        .map(|column| {
            (
                column.name.clone(),
                Some(new_name(&column.name)).filter(|name| after.column_index(name).is_some()),
            )
        })
        .filter(|(old, new)| new.as_ref() != Some(old))
        .collect();
    if columns.is_empty() && before.name == after.name {
        return None;
    }
    let pair = |name: &TableName| (name.db.clone(), name.table.clone());
    Some(ParkedRename { lsn: change.lsn, from: pair(&before.name), to: pair(&after.name), columns })
}

/// The change as it would be, had its table been called so from the start. `Err` says why it cannot be.
fn renamed(mut change: OutChange, rename: &ParkedRename) -> Result<OutChange, String> {
    let old = &change.table;
    let new_name = |name: &str| match rename.columns.iter().find(|(from, _)| from == name) {
        Some((_, to)) => to.clone(),
        None => Some(name.to_owned()),
    };
    let kept: Vec<usize> =
        (0..old.columns.len()).filter(|i| new_name(&old.columns[*i].name).is_some()).collect();
    let moved = |indexes: &[usize]| -> Option<Vec<usize>> {
        indexes.iter().map(|index| kept.iter().position(|kept| kept == index)).collect()
    };
    let Some(key) = moved(&old.key) else {
        return Err("a column of its key was dropped since: use `flow resnapshot`".to_owned());
    };
    let columns = kept.iter().map(|i| {
        let column = old.columns[*i].clone();
        base::Column { name: new_name(&column.name).unwrap_or_default(), ..column }
    });
    let table = Table {
        id: old.id,
        version: old.version,
        name: TableName::new(rename.to.0.clone(), rename.to.1.clone()),
        columns: columns.collect(),
        key,
        unique_keys: old.unique_keys.iter().filter_map(|key| moved(key)).collect(),
    };
    let keep = |row: Vec<Value>| -> Vec<Value> {
        row.into_iter().enumerate().filter(|(i, _)| kept.contains(i)).map(|(_, value)| value).collect()
    };
    (change.before, change.after) = (change.before.map(keep), change.after.map(keep));
    change.table = Arc::new(table);
    Ok(change)
}

/// The row's keys as JSON text, of both images. The whole row stands for the key of a table without one, and the row of
/// the source for what it became.
fn keys(change: &OutChange) -> Vec<String> {
    let key_of = |row: &Vec<Value>| -> Vec<Value> {
        let all = 0..row.len();
        let key: Vec<usize> =
            if change.table.key.is_empty() { all.collect() } else { change.table.key.clone() };
        key.into_iter().map(|index| row.get(index).cloned().unwrap_or_default()).collect()
    };
    let [before, after] = match &change.whole {
        Some(whole) => [whole.before.clone(), whole.after.clone()],
        None => [&change.before, &change.after].map(|row| row.as_ref().map(key_of)),
    };
    let all: Vec<usize> = (0..change.table.columns.len()).collect();
    let key = if change.table.key.is_empty() { &all } else { &change.table.key };
    let mut out: Vec<String> = Vec::new();
    for values in [before, after].into_iter().flatten() {
        let mut text = Vec::from(*b"{");
        for (position, (index, value)) in key.iter().zip(&values).enumerate() {
            let Some(column) = change.table.columns.get(*index) else { continue };
            if position > 0 {
                text.push(b',');
            }
            base::json::put_string(&mut text, &column.name);
            text.push(b':');
            base::json::put_value(&mut text, value.as_ref(), column);
        }
        text.push(b'}');
        let text = String::from_utf8_lossy(&text).into_owned();
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

fn change_text(change: &OutChange) -> String {
    let mut out = Vec::from(*b"{");
    for (name, row) in [("before", &change.before), ("after", &change.after)] {
        if out.len() > 1 {
            out.push(b',');
        }
        base::json::put_string(&mut out, name);
        out.push(b':');
        match row {
            None => out.extend_from_slice(b"null"),
            Some(row) => {
                out.push(b'{');
                for (index, (column, value)) in change.table.columns.iter().zip(row).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    base::json::put_string(&mut out, &column.name);
                    out.push(b':');
                    base::json::put_value(&mut out, value.as_ref(), column);
                }
                out.push(b'}');
            }
        }
    }
    out.push(b'}');
    String::from_utf8_lossy(&out).into_owned()
}
