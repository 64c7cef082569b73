//! The tables of a source that is told them by messages: what is declared, what messages tell, and what their values look
//! like, as one definition each that only ever widens. See `docs/decisions/0007-kafka-source.md`.

use crate::config::DeclaredTable;
use crate::formats::decode::cells::{Cells, Raw, is_null, string};
use crate::formats::decode::connect::{ToldColumn, columns, mysql_columns};
use crate::formats::decode::types::{inferred, join, parse, sql_type};
use crate::formats::decode::value::{Wire, decode};
use crate::formats::decode::{Decoded, MessageFormat, Told};
use crate::patterns::wildcard;
use base::row::RowWriter;
use base::{Column, ColumnType, Ddl, Generated, Op, RowBuf, Table, TableName, Value, ValueRef};
use journal::Batch;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Definitions of one table that messages told lately, and that need not be read again: partitions may lag behind each other
/// by a definition or two.
const TOLD_MAX: usize = 4;
/// MySQL's limit on a table.
const COLUMNS_MAX: usize = 4096;
/// What a column may take in a row beside its text.
const COLUMN_BYTES: usize = 12;
const TEXT: ColumnType = ColumnType::Text { chars_max: u32::MAX as u64 };

/// All tables of a source.
pub struct Tables {
    format: MessageFormat,
    declared: BTreeMap<String, DeclaredTable>,
    known: HashMap<TableName, Known>,
    told: HashMap<TableName, Vec<Definition>>,
    next_id: u32,
    /// What stood at the last `keep` where changes replaced it since.
    replaced: HashMap<TableName, Option<Known>>,
}

/// What messages tell of a table: as they write it, and as it was read.
type Definition = (String, Arc<[ToldColumn]>);
type ReadColumns = fn(Raw<'_>) -> Option<Vec<ToldColumn>>;

/// A change as the journal takes it.
pub struct Prepared {
    pub table: Arc<Table>,
    /// The definition is new with this change; with the one before it, if there was one.
    pub evolved: Option<Option<Arc<Table>>>,
    pub op: Op,
    pub before: Option<RowBuf>,
    pub after: Option<RowBuf>,
}

impl Prepared {
    /// Appends the change, behind its table's definition if that is new.
    pub fn put(&self, batch: &mut Batch) {
        let table = &self.table;
        if let Some(before) = &self.evolved {
            batch.schema(table);
            if let Some(before) = before {
                let (before, after) = (Some(Arc::clone(before)), Some(Arc::clone(table)));
                let sql = statement(before.as_deref(), table);
                batch.ddl(&Ddl { sql, before, after, column_renames: Vec::new() });
            }
        }
        let [before, after] = [&self.before, &self.after].map(|row| row.as_ref().map(|row| row.0.as_slice()));
        batch.change(self.op, table, before, after);
    }
}

/// The statement that would have made the new definition of the old one.
pub(super) fn statement(before: Option<&Table>, after: &Table) -> String {
    let quote = |name: &str| format!("`{}`", name.replace('`', "``"));
    let mut parts = Vec::new();
    for column in &after.columns {
        let old = before.and_then(|table| table.columns.iter().find(|old| old.name == column.name));
        let null = if column.nullable { "NULL" } else { "NOT NULL" };
        let definition = format!("{} {} {null}", quote(&column.name), column.sql_type);
        match old {
            None => parts.push(format!("ADD COLUMN {definition}")),
            Some(old) if old != column => parts.push(format!("MODIFY COLUMN {definition}")),
            Some(_) => {}
        }
    }
    if before.is_some_and(|table| table.key != after.key) {
        let names: Vec<_> = after.key.iter().map(|index| quote(&after.columns[*index].name)).collect();
        parts.push(format!("ADD PRIMARY KEY ({})", names.join(", ")));
    }
    format!("ALTER TABLE {}.{} {}", quote(&after.name.db), quote(&after.name.table), parts.join(", "))
}

#[derive(Clone)]
struct Known {
    table: Arc<Table>,
    index: HashMap<String, usize>,
    readers: Vec<Reader>,
    /// What the readers are made of.
    told: Option<Arc<[ToldColumn]>>,
}

/// How a column's values are read from the messages of one definition.
#[derive(Clone)]
struct Reader {
    wire: Wire,
    /// The column as the message tells it, where ours is wider.
    told: Option<Box<Column>>,
}

/// Why a row does not fit a definition.
enum Misfit<'a> {
    Unknown,
    Value(usize, Raw<'a>),
    NullKey(usize),
}

impl Tables {
    /// The tables that a journal knows.
    pub fn new(
        format: MessageFormat,
        declared: BTreeMap<String, DeclaredTable>,
        tables: impl IntoIterator<Item = Arc<Table>>,
    ) -> Self {
        let mut all = Self {
            format,
            declared,
            known: HashMap::new(),
            told: HashMap::new(),
            next_id: 1,
            replaced: HashMap::new(),
        };
        for table in tables {
            all.next_id = all.next_id.max(table.id + 1);
            let known = all.with_readers(table, None);
            all.known.insert(known.table.name.clone(), known);
        }
        all
    }

    pub fn all(&self) -> Vec<Arc<Table>> {
        let mut all: Vec<_> = self.known.values().map(|known| Arc::clone(&known.table)).collect();
        all.sort_unstable_by_key(|table| table.id);
        all
    }

    /// The changes so far are taken: their definitions stand.
    pub fn keep(&mut self) {
        self.replaced.clear();
    }

    /// None of the changes since the last `keep` is taken: the definitions are what they were.
    pub fn revert(&mut self) {
        for (name, known) in std::mem::take(&mut self.replaced) {
            match known {
                Some(known) => drop(self.known.insert(name, known)),
                None => drop(self.known.remove(&name)),
            }
        }
    }

    /// A change under the definition that it needs; `None` for the emptying of a table that has no rows. `Err` says what is
    /// wrong with the message.
    pub fn prepare(&mut self, change: &Decoded<'_>) -> Result<Option<Prepared>, String> {
        let told = self.told_columns(change)?;
        let known = self.known.get(&change.name);
        if change.op == Op::Truncate {
            let truncate = |known: &Known| Prepared {
                table: Arc::clone(&known.table),
                evolved: None,
                op: Op::Truncate,
                before: None,
                after: None,
            };
            return Ok(known.map(truncate));
        }
        let (op, before, after) = sides(change)?;
        if let Some(known) = known
            && same(known.told.as_ref(), told.as_ref())
            && self.key_is(known, change)
            && let (Ok(before), Ok(after)) = (image(known, before, false), image(known, after, true))
        {
            return Ok(Some(Prepared { table: Arc::clone(&known.table), evolved: None, op, before, after }));
        }
        let old = known.map(|known| Arc::clone(&known.table));
        let known = self.evolve(change, told, before, after)?;
        let fail = |misfit| explain(&known, &misfit);
        let (before, after) =
            (image(&known, before, false).map_err(fail)?, image(&known, after, true).map_err(fail)?);
        if op == Op::Update && before.is_none() && known.table.key.is_empty() {
            return Err("it changes a row of a table without a key, and does not say which".into());
        }
        let table = Arc::clone(&known.table);
        let evolved = old.as_ref().is_none_or(|old| old.version != table.version).then_some(old);
        let replaced = self.known.insert(change.name.clone(), known);
        self.replaced.entry(change.name.clone()).or_insert(replaced);
        Ok(Some(Prepared { table, evolved, op, before, after }))
    }

    fn declaration(&self, name: &TableName) -> Option<&DeclaredTable> {
        if self.declared.is_empty() {
            return None;
        }
        let full = name.to_string();
        self.declared.get(&full).or_else(|| {
            let matching = self.declared.iter().find(|(pattern, _)| {
                pattern
                    .split_once('.')
                    .is_some_and(|(db, table)| wildcard(db, &name.db) && wildcard(table, &name.table))
            });
            matching.map(|(_, declared)| declared)
        })
    }

    /// What the message tells of its columns, read once for all that tell the same.
    fn told_columns(&mut self, change: &Decoded<'_>) -> Result<Option<Arc<[ToldColumn]>>, String> {
        let (raw, read): (_, ReadColumns) = match change.told {
            Told::Nothing => return Ok(None),
            Told::Mysql(raw) => (raw, mysql_columns),
            Told::Connect(raw) => (raw, columns),
        };
        let cached = self.told.entry(change.name.clone()).or_default();
        if let Some((_, told)) = cached.iter().find(|(text, _)| text == raw.get()) {
            return Ok(Some(Arc::clone(told)));
        }
        let told: Arc<[ToldColumn]> = read(raw).ok_or("its schema cannot be read")?.into();
        if cached.len() == TOLD_MAX {
            cached.remove(0);
        }
        cached.push((raw.get().to_owned(), Arc::clone(&told)));
        Ok(Some(told))
    }

    /// The names of the key: as declared, or as the message tells; `None` when neither says.
    fn key_names(&self, change: &Decoded<'_>) -> Option<Vec<String>> {
        let declared = self.declaration(&change.name).map(|d| d.key.clone()).filter(|key| !key.is_empty());
        let told = || change.key.as_ref().map(|key| key.iter().map(|name| name.to_string()).collect());
        declared.or_else(told).filter(|key: &Vec<String>| !key.is_empty())
    }

    fn key_is(&self, known: &Known, change: &Decoded<'_>) -> bool {
        let table = &known.table;
        let own = || table.key.iter().map(|index| table.columns[*index].name.as_str());
        if let Some(declared) = self.declaration(&change.name).filter(|declared| !declared.key.is_empty()) {
            return own().eq(declared.key.iter().map(String::as_str));
        }
        let told = change.key.as_ref().filter(|key| !key.is_empty());
        told.is_none_or(|key| own().eq(key.iter().map(|name| &**name)))
    }

    /// The definition that has room for the change: the known one and more.
    fn evolve(
        &mut self,
        change: &Decoded<'_>,
        told: Option<Arc<[ToldColumn]>>,
        before: Option<&Cells<'_>>,
        after: Option<&Cells<'_>>,
    ) -> Result<Known, String> {
        let old = self.known.get(&change.name).map(|known| Arc::clone(&known.table));
        let mut table = old.as_deref().cloned().unwrap_or_else(|| Table {
            id: self.next_id,
            version: 0,
            name: change.name.clone(),
            columns: Vec::new(),
            key: Vec::new(),
            unique_keys: Vec::new(),
        });
        let declared = self.declaration(&change.name).cloned().unwrap_or_default();
        let key = self.key_names(change);
        add_columns(&mut table, &declared, told.as_deref(), [after, before]);
        if let Some(names) = key {
            let find = |name: &String| {
                table
                    .columns
                    .iter()
                    .position(|column| column.name == *name)
                    .ok_or_else(|| format!("the column `{name}` of the key is not in the row"))
            };
            table.key = names.iter().map(find).collect::<Result<_, _>>()?;
        }
        widen_by_values(self.format, &mut table, &declared, told.as_deref(), [after, before]);
        if table.columns.len() > COLUMNS_MAX {
            return Err(format!("it has more than {COLUMNS_MAX} columns"));
        }
        finish(&mut table, &declared, told.as_deref());
        let changed = old.as_ref().is_none_or(|old| old.columns != table.columns || old.key != table.key);
        let table = match old {
            Some(old) if !changed => old,
            _ => {
                table.version += 1;
                self.next_id = self.next_id.max(table.id + 1);
                Arc::new(table)
            }
        };
        Ok(self.with_readers(table, told))
    }

    fn with_readers(&self, table: Arc<Table>, told: Option<Arc<[ToldColumn]>>) -> Known {
        let declared = self.declaration(&table.name).cloned().unwrap_or_default();
        let reader = |column: &Column| {
            let fixed = declared.columns.contains_key(&column.name);
            let of_message = told.iter().flat_map(|told| told.iter()).find(|told| told.name == column.name);
            match of_message {
                Some(one) => Reader {
                    wire: one.wire,
                    told: (!fixed && one.ty != column.ty).then(|| Box::new(told_column(one))),
                },
                None if fixed => Reader { wire: self.format.wire(&column.ty), told: None },
                None => Reader { wire: open_wire(self.format, &column.ty), told: None },
            }
        };
        let readers = table.columns.iter().map(reader).collect();
        let index = table.columns.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect();
        Known { table, index, readers, told }
    }
}

/// The images of a change. One that updates a row without saying what it was is as good as an insert to a table with a key.
fn sides<'m, 'a>(
    change: &'m Decoded<'a>,
) -> Result<(Op, Option<&'m Cells<'a>>, Option<&'m Cells<'a>>), String> {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    match change.op {
        Op::Delete if before.is_none() => Err("it deletes a row, and does not say which".into()),
        Op::Delete => Ok((Op::Delete, before, None)),
        Op::Update if after.is_some() => Ok((Op::Update, before, after)),
        Op::Read | Op::Insert if after.is_some() => Ok((change.op, None, after)),
        _ => Err("it has no row".into()),
    }
}

fn same(a: Option<&Arc<[ToldColumn]>>, b: Option<&Arc<[ToldColumn]>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

fn told_column(told: &ToldColumn) -> Column {
    let text = told.sql_type.clone().unwrap_or_else(|| sql_type(&told.ty, false));
    blank(&told.name, told.ty.clone(), text)
}

fn blank(name: &str, ty: ColumnType, sql_type: String) -> Column {
    let text = matches!(ty, ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. });
    Column {
        name: name.to_owned(),
        ty,
        sql_type,
        nullable: true,
        charset: text.then(|| "utf8mb4".to_owned()),
        // What is one key for the source must not be two here, nor two one: bytes decide.
        collation: text.then(|| "utf8mb4_bin".to_owned()),
        generated: Generated::No,
        invisible: false,
    }
}

/// Columns that are new, in the order of the message: with the type that is declared, told, or inferred of their values. A
/// told type widens a known one.
fn add_columns(
    table: &mut Table,
    declared: &DeclaredTable,
    told: Option<&[ToldColumn]>,
    images: [Option<&Cells<'_>>; 2],
) {
    for column in told.into_iter().flatten() {
        match table.columns.iter_mut().find(|own| own.name == column.name) {
            Some(own) => own.ty = join(&own.ty, &column.ty),
            None => table.columns.push(blank(&column.name, column.ty.clone(), String::new())),
        }
    }
    for (name, raw) in images.into_iter().flatten().flat_map(|cells| &cells.0) {
        if table.columns.iter().all(|own| own.name != *name)
            && let Some(ty) = declared_type(declared, name).or_else(|| inferred(*raw))
        {
            table.columns.push(blank(name, ty, String::new()));
        }
    }
    for name in declared.columns.keys() {
        let Some(ty) = declared_type(declared, name) else { continue };
        match table.columns.iter_mut().find(|own| own.name == *name) {
            Some(own) => own.ty = ty,
            None => table.columns.push(blank(name, ty, String::new())),
        }
    }
}

fn declared_type(declared: &DeclaredTable, name: &str) -> Option<ColumnType> {
    declared.columns.get(name).and_then(|text| parse(text).ok())
}

/// Types that nobody told, widened so that each value has room.
fn widen_by_values(
    format: MessageFormat,
    table: &mut Table,
    declared: &DeclaredTable,
    told: Option<&[ToldColumn]>,
    images: [Option<&Cells<'_>>; 2],
) {
    for (name, raw) in images.into_iter().flatten().flat_map(|cells| &cells.0) {
        if declared.columns.contains_key(&**name) {
            continue;
        }
        let Some(column) = table.columns.iter_mut().find(|own| own.name == *name) else { continue };
        if let Some(told) = told.into_iter().flatten().find(|told| told.name == *name) {
            // A type without its parameters has no fraction digits, and its values may.
            let value = decode(*raw, &told_column(told), told.wire);
            if value.is_some_and(|value| !has_room(&column.ty, &value)) {
                column.ty = with_six_digits(&column.ty);
            }
            continue;
        }
        let fits = |column: &Column| decode(*raw, column, open_wire(format, &column.ty)).is_some();
        if fits(column) {
            continue;
        }
        if let Some(ty) = inferred(*raw) {
            column.ty = join(&column.ty, &ty);
        }
        if !fits(column) {
            column.ty = TEXT;
        }
    }
}

/// Whether a time's fraction digits have room in its column.
fn has_room(ty: &ColumnType, value: &Value) -> bool {
    let (ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp }) = ty else {
        return true;
    };
    let micro = match value {
        Value::Time(micros) | Value::Timestamp(micros) => micros.rem_euclid(1_000_000),
        Value::DateTime(at) => i64::from(at.micro),
        _ => 0,
    };
    let zero = matches!(value, Value::Timestamp(base::value::TIMESTAMP_ZERO));
    zero || micro % 10i64.pow(6 - u32::from(*fsp).min(6)) == 0
}

fn with_six_digits(ty: &ColumnType) -> ColumnType {
    match ty {
        ColumnType::Time { .. } => ColumnType::Time { fsp: 6 },
        ColumnType::DateTime { .. } => ColumnType::DateTime { fsp: 6 },
        ColumnType::Timestamp { .. } => ColumnType::Timestamp { fsp: 6 },
        other => other.clone(),
    }
}

/// How values of a column are read that nobody describes: as they look.
fn open_wire(format: MessageFormat, ty: &ColumnType) -> Wire {
    if matches!(format, MessageFormat::Debezium | MessageFormat::Avro) { Wire::Json } else { format.wire(ty) }
}

/// Type texts, and that a key is never NULL.
fn finish(table: &mut Table, declared: &DeclaredTable, told: Option<&[ToldColumn]>) {
    for (index, column) in table.columns.iter_mut().enumerate() {
        let in_key = table.key.contains(&index);
        column.nullable = !in_key;
        let told = told.into_iter().flatten().find(|told| told.name == column.name && told.ty == column.ty);
        let text = match declared.columns.get(&column.name) {
            Some(text) => text.trim().to_ascii_lowercase(),
            None => told.and_then(|told| told.sql_type.clone()).unwrap_or_default(),
        };
        let kept = parse(&column.sql_type).is_ok_and(|ty| ty == column.ty);
        if !text.is_empty() && parse(&text).is_ok() {
            column.sql_type = text;
        } else if !kept {
            column.sql_type = sql_type(&column.ty, in_key);
        }
        let Column { name, ty, sql_type, .. } = column.clone();
        *column = Column { nullable: !in_key, ..blank(&name, ty, sql_type) };
    }
}

/// The image of a row. A column that the row lacks is NULL in what the row is now, and unknown in what it was.
fn image<'a>(known: &Known, cells: Option<&Cells<'a>>, whole: bool) -> Result<Option<RowBuf>, Misfit<'a>> {
    let Some(cells) = cells else { return Ok(None) };
    let columns = &known.table.columns;
    let mut values: Vec<Option<Read<'a>>> = Vec::with_capacity(columns.len());
    values.resize_with(columns.len(), || whole.then_some(Read::Other(Value::Null)));
    let mut bytes = 0;
    for (place, &(ref name, raw)) in cells.0.iter().enumerate() {
        // Messages have the columns in the same order, mostly.
        let at = match columns.get(place) {
            Some(column) if column.name == **name => place,
            _ => match known.index.get(&**name) {
                Some(at) => *at,
                None if is_null(raw) => continue,
                None => return Err(Misfit::Unknown),
            },
        };
        bytes += raw.get().len();
        values[at] = Some(read(&known.readers[at], raw, &columns[at]).ok_or(Misfit::Value(at, raw))?);
    }
    for &at in &known.table.key {
        if values[at].as_ref().is_none_or(Read::is_null) {
            return Err(Misfit::NullKey(at));
        }
    }
    let mut out = Vec::with_capacity(bytes + columns.len() * COLUMN_BYTES);
    let mut writer = RowWriter::new(&mut out);
    for value in &values {
        match value {
            Some(Read::Text(text)) => writer.put(ValueRef::Text(text)),
            Some(Read::Other(value)) => writer.put(value.as_ref()),
            None => writer.put_absent(),
        }
    }
    Ok(Some(RowBuf(out)))
}

/// A value on its way into a row.
enum Read<'a> {
    /// As the message has it.
    Text(Cow<'a, str>),
    Other(Value),
}

impl Read<'_> {
    fn is_null(&self) -> bool {
        matches!(self, Self::Other(Value::Null))
    }
}

/// `None` when it is no value of the column, or has no room in it.
fn read<'a>(reader: &Reader, raw: Raw<'a>, column: &Column) -> Option<Read<'a>> {
    if reader.told.is_none()
        && reader.wire == Wire::Json
        && matches!(column.ty, ColumnType::Text { .. })
        && let Some(text) = string(raw)
    {
        return Some(Read::Text(text));
    }
    read_other(reader, raw, column).filter(|value| has_room(&column.ty, value)).map(Read::Other)
}

fn read_other(reader: &Reader, raw: Raw<'_>, column: &Column) -> Option<Value> {
    let Some(told) = &reader.told else { return decode(raw, column, reader.wire) };
    let value = decode(raw, told, reader.wire)?;
    if value.is_null() {
        return Some(value);
    }
    // By its text in our own format, which every wider type reads.
    decode(Raw::of(&base::json::value_text(&value, told))?, column, Wire::Json)
}

/// Says no value: rows may hold what no log should.
fn explain(known: &Known, misfit: &Misfit<'_>) -> String {
    let column = |at: &usize| &known.table.columns[*at];
    match misfit {
        Misfit::Unknown => "it has columns that are not in its schema".into(),
        Misfit::Value(at, raw) => {
            let kind = match raw.get().as_bytes().first() {
                Some(b'"') => "a string",
                Some(b'{') => "an object",
                Some(b'[') => "a list",
                Some(b't' | b'f') => "a boolean",
                _ => "a number",
            };
            let Column { name, sql_type, .. } = column(at);
            format!("its `{name}` is {kind} that is no `{sql_type}` in this format")
        }
        Misfit::NullKey(at) => {
            format!("its `{}` is NULL or missing, and belongs to the key", column(at).name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::decode::{Incoming, decode};

    fn tables(format: MessageFormat, declared: &str) -> Tables {
        Tables::new(format, serde_json::from_str(declared).unwrap(), [])
    }

    fn take(tables: &mut Tables, value: &str) -> Result<Prepared, String> {
        let incoming = Incoming { source: "s", topic: "d.t", key: None, value: Some(value.as_bytes()) };
        let changes = decode(tables.format, incoming)?;
        tables.prepare(&changes[0]).map(|prepared| prepared.unwrap())
    }

    fn shape(table: &Table) -> String {
        let column = |column: &Column| format!("{} {}", column.name, column.sql_type);
        let columns: Vec<_> = table.columns.iter().map(column).collect();
        format!("v{} {} key {:?}", table.version, columns.join(", "), table.key)
    }

    #[test]
    fn plain_rows_widen_and_never_narrow() {
        let mut all = tables(MessageFormat::Plain, r#"{"d.*": {"key": ["id"]}}"#);
        let first = take(&mut all, r#"{"name":"x","id":1,"gone":null}"#).unwrap();
        assert_eq!(shape(&first.table), "v1 name longtext, id bigint key [1]");
        assert!(matches!(first.evolved, Some(None)));
        let same = take(&mut all, r#"{"id":2}"#).unwrap();
        assert!(same.evolved.is_none());
        assert_eq!(same.after.unwrap().view().values().unwrap(), [Value::Null, Value::Int(2)]);
        let more = take(&mut all, r#"{"id":"three","gone":true}"#).unwrap();
        assert_eq!(shape(&more.table), "v2 name longtext, id varchar(255), gone tinyint key [1]");
        assert_eq!(more.evolved.unwrap().unwrap().version, 1);
        let old = take(&mut all, r#"{"id":4,"gone":false}"#).unwrap();
        assert!(old.evolved.is_none(), "a number has room in text");
        assert_eq!(old.after.unwrap().view().values().unwrap()[1], Value::Text("4".into()));
        let restarted = Tables::new(all.format, all.declared.clone(), all.all());
        assert_eq!(restarted.next_id, 2);
        let why = take(&mut all, r#"{"name":"no key"}"#).err().unwrap();
        assert!(why.contains("`id` is NULL or missing"), "{why}");
    }

    #[test]
    fn definitions_of_changes_that_are_not_taken_are_told_again_by_the_next() {
        let mut all = tables(MessageFormat::Plain, r#"{"d.t": {"key": ["id"]}}"#);
        take(&mut all, r#"{"id":1}"#).unwrap();
        all.keep();
        take(&mut all, r#"{"id":2,"more":1}"#).unwrap();
        take(&mut all, r#"{"id":2,"more":"text"}"#).unwrap();
        take(&mut all, r#"{"id":null}"#).err().unwrap();
        all.revert();
        assert_eq!(shape(&all.all()[0]), "v1 id bigint key [0]");
        let more = take(&mut all, r#"{"id":2,"more":1}"#).unwrap();
        assert_eq!(more.evolved.unwrap().unwrap().version, 1, "the journal is told");
        let mut all = tables(MessageFormat::Plain, "{}");
        take(&mut all, r#"{"id":1}"#).unwrap();
        all.revert();
        assert!(all.all().is_empty());
    }

    #[test]
    fn what_is_declared_is_not_widened_and_what_does_not_fit_is_told_without_its_value() {
        let mut all = tables(
            MessageFormat::Plain,
            r#"{"d.t": {"key": ["id"], "columns": {"id": "int unsigned", "at": "datetime", "z": "decimal(5,2)"}}}"#,
        );
        let first = take(&mut all, r#"{"id":1,"at":"2026-01-02 03:04:05"}"#).unwrap();
        assert_eq!(shape(&first.table), "v1 id int unsigned, at datetime, z decimal(5,2) key [0]");
        for (row, wanted) in [
            (r#"{"id":-1}"#, "`id` is a number that is no `int unsigned`"),
            (r#"{"id":1,"at":"2026-01-02 03:04:05.5"}"#, "`at` is a string"),
            (r#"{"id":1,"z":"secret"}"#, "`z` is a string that is no `decimal(5,2)`"),
        ] {
            let why = take(&mut all, row).err().unwrap();
            assert!(why.contains(wanted) && !why.contains("secret"), "{why}");
        }
        assert_eq!(all.all()[0].version, 1, "a refused message leaves no trace");
    }

    #[test]
    fn told_types_of_several_definitions_join_and_old_messages_still_read() {
        let message = |types: &str, data: &str| {
            format!(
                r#"{{"database":"d","table":"t","type":"INSERT","pkNames":["id"],"isDdl":false,"es":1,
                    "mysqlType":{types},"data":[{data}],"old":null,"gtid":""}}"#
            )
        };
        let mut all = tables(MessageFormat::Canal, "{}");
        let old = message(
            r#"{"id":"int","e":"enum('a')","at":"datetime"}"#,
            r#"{"id":"1","e":"1","at":"2026-01-02 03:04:05"}"#,
        );
        let new = message(
            r#"{"id":"bigint","e":"enum('b','a')","at":"datetime","more":"varchar(9)"}"#,
            r#"{"id":"2","e":"1","at":"2026-01-02 03:04:05.5","more":"x"}"#,
        );
        assert_eq!(
            shape(&take(&mut all, &old).unwrap().table),
            "v1 id int, e enum('a'), at datetime key [0]"
        );
        let joined = take(&mut all, &new).unwrap();
        assert_eq!(shape(&joined.table), "v2 id bigint, e longtext, at datetime(6), more varchar(9) key [0]");
        assert_eq!(joined.after.unwrap().view().values().unwrap()[1], Value::Text("b".into()));
        let late = take(&mut all, &old).unwrap();
        assert!(late.evolved.is_none(), "partitions may lag behind each other: {}", shape(&late.table));
        assert_eq!(late.after.unwrap().view().values().unwrap()[1], Value::Text("a".into()));
    }
}
