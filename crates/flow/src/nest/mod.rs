//! Rows of other tables inside a document: which documents a change is of, and what they look like then.
//!
//! A document is made of the *mirror*, never of the change: the change says only which rows of the flow's table are to be
//! written once more, and with which version. Let a change have the lsn V. Its documents are written with version V, and
//! show the mirror at a state M that is at V or later. Nothing that touches a document is lost by that, and nothing older
//! stays: of the changes that touch it, the last one, L, writes it as it is at L or later, and what came later did not touch
//! it, so this is how it is now; and L is the highest version, so that no earlier one overwrites it, in whichever order the
//! server gets them. In between, a document may show a newer state than its version says. It is always one state of
//! the source between two of its transactions, since the mirror takes whole transactions in and is read in one look, and it never
//! goes back: the mirror only grows, and what is delivered again after a crash has an old version and changes nothing.
//!
//! What changes many documents at once (a nested table was emptied, dropped, renamed or read anew) writes all of them once
//! more, with the lsn of that change. While a table is read anew the mirror keeps its old rows, and nobody is
//! shown them: the flow waits until it is whole.

mod expected;

pub use expected::{Expected, Join};

use crate::config::FlowConfig;
use crate::mirror::Mirror;
use crate::mirror::read::{Access, MirrorReader, MirrorRow, Mirrored, ReadError, joined, key_of, lacks};
use crate::sinks::elasticsearch::plan::put_document;
use base::{
    Change, Column, ColumnType, Ddl, Generated, Op, RowBuf, RowView, Table, TableName, Value, ValueRef,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows of one table in a document unless the configuration says otherwise.
pub const ROWS_DEFAULT: u32 = 1000;
/// What a server takes as nested objects of a document, by its default.
pub const ROWS_MAX: u32 = 10_000;
/// Documents of one change that are looked for; one that touches more writes all.
const PARENTS_MAX: usize = 1000;
/// Documents that are made at once where all are.
const PAGE_ROWS: usize = 500;
/// What a nested column's type begins with; the columns of its rows follow as JSON.
const TYPE_PREFIX: &str = "nested ";

/// What a flow's file says that cannot be: the message and a hint.
pub type Mistake = (String, String);

/// Checks what can be told without the source.
pub fn check(config: &FlowConfig) -> Vec<Mistake> {
    let options = &config.options.nest;
    let mut out = Vec::new();
    if options.is_empty() {
        return out;
    }
    let exact = |name: &str| {
        name.split_once('.').is_some_and(|(db, table)| !db.is_empty() && !table.is_empty())
            && !name.contains(['*', '?'])
    };
    if !matches!(&config.tables[..], [one] if exact(one)) {
        out.push((
            "`nest` needs one table, whose rows the documents are".to_owned(),
            "name it alone in `tables`, without wildcards: tables: [shop.users]".to_owned(),
        ));
    }
    for (name, nest) in options {
        if !exact(&nest.from) {
            out.push((
                format!("`{name}` nests `{}`, which is no table", nest.from),
                "write db.table: from: shop.orders".to_owned(),
            ));
        }
        if nest.on.is_empty() {
            let hint = "say which rows belong to a document: on: {user_id: id}".to_owned();
            out.push((format!("`{name}` has nothing to join by"), hint));
        }
        if nest.max.is_some_and(|max| !(1..=ROWS_MAX).contains(&max)) {
            out.push((
                format!("the `max` of `{name}` is not 1 to {ROWS_MAX}"),
                format!("max: {ROWS_DEFAULT}"),
            ));
        }
    }
    if config.transform.iter().any(|step| matches!(step, crate::config::TransformStep::Split(_))) {
        let hint = "split in a flow of its own".to_owned();
        out.push(("`nest` and `split` in one flow: a row would be several documents".to_owned(), hint));
    }
    if config.transform.iter().any(|step| matches!(step, crate::config::TransformStep::Dedup(_))) {
        let hint = "dedup in a flow of its own".to_owned();
        out.push((
            "`nest` and `dedup` in one flow: a document is written again when its rows change".to_owned(),
            hint,
        ));
    }
    out
}

/// Which documents a change is of.
pub enum Touched {
    None,
    /// These, by the keys of their rows.
    Some(Vec<Vec<u8>>),
    All,
}

/// Why documents cannot be made now.
#[derive(Debug, thiserror::Error)]
pub enum NestError {
    #[error(transparent)]
    Mirror(#[from] ReadError),
    #[error("{message}")]
    Plan { message: String, hint: String },
}

struct Nest {
    name: String,
    from: TableName,
    /// Columns of `from`, and those of the flow's table that they equal.
    columns: Vec<String>,
    equal: Vec<String>,
    chosen: Vec<String>,
    is_list: bool,
    rows_max: usize,
}

/// What a nested table's rows of one version become.
struct Projection {
    table: Table,
    /// Where each column is in the row; `None` for one that it lacks.
    places: Vec<Option<usize>>,
}

/// The nested tables of a flow.
pub struct Nester {
    reader: MirrorReader,
    parent: TableName,
    nests: Vec<Nest>,
    /// All tables that must be whole.
    tables: Vec<TableName>,
    /// By nest, table and the versions of the row and of the table now.
    projections: HashMap<(usize, u32, u32, u32), Arc<Projection>>,
}

impl Nester {
    /// `None` for a flow that nests nothing.
    pub fn new(config: &FlowConfig, mirror: Option<&Mirror>) -> Result<Option<Self>, NestError> {
        if config.options.nest.is_empty() {
            return Ok(None);
        }
        let plan = |message: &str, hint: &str| NestError::Plan { message: message.into(), hint: hint.into() };
        if let Some((message, hint)) = check(config).into_iter().next() {
            return Err(NestError::Plan { message, hint });
        }
        let mirror =
            mirror.ok_or_else(|| plan("the mirror of the source is not at hand", "ask the running node"))?;
        let name = |text: &str| text.split_once('.').map(|(db, table)| TableName::new(db, table));
        let no_table = || plan("`nest` needs tables as db.table", "run `tidemill check`");
        let parent = config.tables.first().and_then(|text| name(text)).ok_or_else(no_table)?;
        let nests = expected::nests_of(config);
        let tables = nests.iter().map(|nest| nest.from.clone()).chain([parent.clone()]).collect();
        let reader = MirrorReader::new(mirror.clone());
        Ok(Some(Self { reader, parent, nests, tables, projections: HashMap::new() }))
    }

    /// Begins a look at or behind `lsn`; waits for it.
    pub fn look(&mut self, lsn: u64, gone: impl Future<Output = ()>) -> Result<(), NestError> {
        if self.projections.len() > 4096 {
            self.projections.clear();
        }
        Ok(self.reader.look(lsn, &self.tables, gone)?)
    }

    /// The same where nobody may wait.
    pub fn look_now(&mut self, lsn: u64) -> Result<bool, NestError> {
        Ok(self.reader.look_now(lsn, &self.tables)?)
    }

    pub fn end(&mut self) -> Result<(), NestError> {
        Ok(self.reader.end()?)
    }

    pub fn is_parent(&self, name: &TableName) -> bool {
        self.parent == *name
    }

    pub fn is_nested(&self, name: &TableName) -> bool {
        self.nests.iter().any(|nest| nest.from == *name)
    }

    /// Whether a statement gave or took one of the nested tables its name.
    pub fn is_of_names(&self, ddl: &Ddl) -> bool {
        let (before, after) = (ddl.before.as_ref(), ddl.after.as_ref());
        let is =
            |table: Option<&Arc<Table>>, from: &TableName| table.is_some_and(|table| table.name == *from);
        self.nests.iter().any(|nest| is(before, &nest.from) != is(after, &nest.from))
    }

    /// The documents that a row of a nested table is of, before and after the change.
    pub fn touched(&mut self, change: &Change<'_>) -> Result<Touched, NestError> {
        if change.op == Op::Truncate {
            return Ok(Touched::All);
        }
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let Some(parent) = self.reader.table(&self.parent)? else { return Ok(Touched::None) };
        for nest in self.nests.iter().filter(|nest| nest.from == change.table.name) {
            // The table called them otherwise then.
            if lacks(&change.table, &nest.columns) {
                return Ok(Touched::All);
            }
            let access = parent.access(&nest.equal).ok_or_else(|| no_column(&self.parent, &nest.equal))?;
            let mut values: Vec<Vec<u8>> = [change.before, change.after]
                .into_iter()
                .flatten()
                .filter_map(|row| joined(&change.table, row, &nest.columns))
                .collect();
            values.dedup();
            for value in values {
                if access == Access::Key {
                    keys.push(value);
                    continue;
                }
                let rows = self.reader.linked(&parent, &access, &value, PARENTS_MAX + 1)?;
                if rows.len() > PARENTS_MAX {
                    return Ok(Touched::All);
                }
                keys.extend(rows.into_iter().map(|row| row.key));
            }
        }
        keys.sort();
        keys.dedup();
        Ok(if keys.is_empty() { Touched::None } else { Touched::Some(keys) })
    }

    /// The flow's table with the nested columns behind its own, as they are now.
    pub fn shaped(&mut self, table: &Arc<Table>) -> Result<Arc<Table>, NestError> {
        let mut columns = table.columns.clone();
        let mut version = fold(FOLD_START, table.version);
        for nest in &self.nests {
            if table.column_index(&nest.name).is_some() {
                return Err(NestError::Plan {
                    message: format!("table `{}` has a column `{}` already", table.name, nest.name),
                    hint: "give the nested rows another name".into(),
                });
            }
            let rows = self.reader.table(&nest.from)?;
            let of_rows = match &rows {
                Some(rows) => {
                    version = fold(fold(version, rows.id), rows.table.version);
                    chosen(nest, &rows.table)?.into_iter().cloned().collect()
                }
                None => {
                    version = fold(fold(version, 0), 0);
                    Vec::new()
                }
            };
            columns.push(nested_column(&nest.name, nest.is_list, of_rows));
        }
        // One number for all definitions together, by which a sink knows whether it has seen them.
        Ok(Arc::new(Table { version, columns, ..(**table).clone() }))
    }

    /// A row of the flow's table, by its key's bytes, in the columns of the table now.
    pub fn parent(&mut self, key: &[u8]) -> Result<Option<(Arc<Table>, RowBuf)>, NestError> {
        let Some(parent) = self.reader.table(&self.parent)? else { return Ok(None) };
        let Some(row) = self.reader.row(&parent, key)? else { return Ok(None) };
        Ok(Some(current(&parent, &row)))
    }

    /// Rows of the flow's table in the order of their keys, behind one: their keys.
    pub fn page(&mut self, after: &[u8]) -> Result<Vec<Vec<u8>>, NestError> {
        let Some(parent) = self.reader.table(&self.parent)? else { return Ok(Vec::new()) };
        Ok(self.reader.page(&parent, after, PAGE_ROWS)?.into_iter().map(|row| row.key).collect())
    }

    /// The bytes of the key of one of the flow's rows.
    pub fn key(&self, table: &Table, row: RowView<'_>) -> Option<Vec<u8>> {
        key_of(table, row)
    }

    /// What is nested in a row: a value for each column that `shaped` adds. `Err` within says why the row has no document.
    pub fn nested(
        &mut self,
        table: &Table,
        row: RowView<'_>,
    ) -> Result<Result<Vec<Value>, String>, NestError> {
        let mut out = Vec::new();
        for index in 0..self.nests.len() {
            let nest = &self.nests[index];
            if lacks(table, &nest.equal) {
                return Err(no_column(&self.parent, &nest.equal));
            }
            let value = joined(table, row, &nest.equal);
            let found = self.reader.table(&nest.from)?;
            let rows = match (&found, value) {
                (Some(found), Some(value)) => {
                    let access =
                        found.access(&nest.columns).ok_or_else(|| no_column(&nest.from, &nest.columns))?;
                    self.reader.linked(found, &access, &value, nest.rows_max + 1)?
                }
                _ => Vec::new(),
            };
            if rows.len() > nest.rows_max {
                return Ok(Err(format!(
                    "`{}` has more than {} rows of `{}`",
                    nest.name, nest.rows_max, nest.from
                )));
            }
            let mut text = Vec::new();
            for (place, row) in rows.iter().enumerate() {
                if place > 0 {
                    text.push(b',');
                }
                let Some(found) = &found else { continue };
                self.put_row(index, found, row, &mut text)?;
            }
            let text = String::from_utf8(text).map_err(|_| NestError::Plan {
                message: format!("a row of `{}` is no text", self.nests[index].from),
                hint: "report this".into(),
            })?;
            out.push(match (self.nests[index].is_list, text.is_empty()) {
                (true, _) => Value::Json(format!("[{text}]")),
                (false, true) => Value::Null,
                (false, false) => Value::Json(text),
            });
        }
        Ok(Ok(out))
    }

    fn put_row(
        &mut self,
        index: usize,
        found: &Mirrored,
        row: &MirrorRow,
        out: &mut Vec<u8>,
    ) -> Result<(), NestError> {
        let id = (index, found.id, row.table.version, found.table.version);
        let projection = match self.projections.get(&id) {
            Some(projection) => Arc::clone(projection),
            None => {
                let made = Arc::new(project(&self.nests[index], &found.table, &row.table)?);
                self.projections.insert(id, Arc::clone(&made));
                made
            }
        };
        let values = row.view().values().map_err(|_| NestError::Plan {
            message: format!("a row of `{}` is malformed in the mirror", found.table.name),
            hint: "delete the mirror's file: it is made anew".into(),
        })?;
        let values: Vec<Value> = projection
            .places
            .iter()
            .map(|place| place.and_then(|place| values.get(place).cloned()).unwrap_or_default())
            .collect();
        put_document(out, &projection.table, &values);
        Ok(())
    }
}

/// Where a fold begins (FNV-1a).
const FOLD_START: u32 = 0x811c_9dc5;

fn fold(hash: u32, number: u32) -> u32 {
    number.to_le_bytes().iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A row by the columns that its table has now.
fn current(now: &Mirrored, row: &MirrorRow) -> (Arc<Table>, RowBuf) {
    if row.table.version == now.table.version {
        return (Arc::clone(&now.table), RowBuf(row.row.clone()));
    }
    let values: Vec<Option<ValueRef<'_>>> = row.view().iter().map(|value| value.ok().flatten()).collect();
    let of = |column: &Column| {
        let place = row.table.column_index(&column.name);
        place.and_then(|place| values.get(place).copied().flatten()).unwrap_or(ValueRef::Null)
    };
    (Arc::clone(&now.table), RowBuf::from_values(now.table.columns.iter().map(of)))
}

/// The columns of a nested table that are put in.
fn chosen<'t>(nest: &Nest, table: &'t Table) -> Result<Vec<&'t Column>, NestError> {
    if nest.chosen.is_empty() {
        return Ok(table.columns.iter().collect());
    }
    let find = |name: &String| table.column_index(name).map(|index| &table.columns[index]);
    nest.chosen
        .iter()
        .map(|name| find(name).ok_or_else(|| no_column(&nest.from, std::slice::from_ref(name))))
        .collect()
}

fn project(nest: &Nest, now: &Table, of_row: &Table) -> Result<Projection, NestError> {
    let wanted = chosen(nest, now)?;
    let places: Vec<Option<usize>> = wanted.iter().map(|column| of_row.column_index(&column.name)).collect();
    // Values are read by the type that they were written under.
    let columns = wanted.iter().zip(&places).map(|(column, place)| match place {
        Some(place) => Column { name: column.name.clone(), ..of_row.columns[*place].clone() },
        None => (*column).clone(),
    });
    let columns = columns.collect();
    let table = Table { columns, key: Vec::new(), unique_keys: Vec::new(), ..now.clone() };
    Ok(Projection { table, places })
}

fn no_column(table: &TableName, columns: &[String]) -> NestError {
    NestError::Plan {
        message: format!("`nest` joins `{table}` by `{}`, which it does not have", columns.join("`, `")),
        hint: "name columns that the source's table has now; after a change of the file, restart the node"
            .into(),
    }
}

/// A column that holds rows.
fn nested_column(name: &str, is_list: bool, columns: Vec<Column>) -> Column {
    let rows = serde_json::to_string(&Rows { is_list, columns }).unwrap_or_default();
    Column {
        name: name.to_owned(),
        ty: ColumnType::Json,
        sql_type: format!("{TYPE_PREFIX}{rows}"),
        nullable: true,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

/// What a nested column holds.
#[derive(Serialize, Deserialize)]
pub struct Rows {
    pub is_list: bool,
    pub columns: Vec<Column>,
}

/// The rows that a column holds; `None` for an ordinary column.
pub fn rows_of(column: &Column) -> Option<Rows> {
    serde_json::from_str(column.sql_type.strip_prefix(TYPE_PREFIX)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_without_the_source() {
        let told = |text: &str| -> Vec<String> {
            let config: FlowConfig = serde_json::from_str(text).unwrap();
            check(&config).into_iter().map(|(message, _)| message).collect()
        };
        let flow = |tables: &str, nest: &str| {
            format!(r#"{{"from":"a","to":"b","tables":[{tables}],"options":{{"nest":{{{nest}}}}}}}"#)
        };
        let good = r#""orders":{"from":"shop.orders","on":{"user_id":"id"}}"#;
        assert!(told(&flow(r#""shop.users""#, good)).is_empty());
        assert!(told(&flow(r#""shop.*""#, good))[0].contains("one table"));
        assert!(told(&flow("", good))[0].contains("one table"));
        assert!(told(&flow(r#""shop.users""#, r#""orders":{"from":"orders","on":{}}"#)).len() == 2);
    }

    #[test]
    fn a_nested_column_knows_the_columns_of_its_rows() {
        let inner = nested_column("a", true, Vec::new());
        let column = nested_column("orders", false, vec![inner.clone()]);
        let rows = rows_of(&column).unwrap();
        assert!(!rows.is_list && rows.columns == [inner]);
        assert!(rows_of(&Column { sql_type: "json".into(), ..column }).is_none());
    }
}
