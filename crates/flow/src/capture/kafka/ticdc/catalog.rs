//! The tables of a changefeed as of a commit: as the simple protocol or TiDB itself defines them, or else as rows tell them,
//! in which case types only widen.

use super::database::without;
use crate::config::DeclaredTable;
use crate::formats::decode::cells::Raw;
use crate::formats::decode::connect::ToldColumn;
use crate::formats::decode::ticdc::schema::Schema;
use crate::formats::decode::ticdc::{Image, Protocol, Row, value};
use crate::formats::decode::types::{join, parse, sql_type};
use crate::formats::decode::value::{Wire, decode};
use crate::patterns::wildcard;
use base::row::RowWriter;
use base::{Column, ColumnType, Generated, RowBuf, Table, TableName, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Definitions by number that bootstrap messages told and no row has asked for.
const TOLD_MAX: usize = 10_000;

pub struct Catalog {
    protocol: Protocol,
    /// Whether definitions come from elsewhere than rows.
    exact: bool,
    declared: BTreeMap<String, DeclaredTable>,
    known: HashMap<TableName, Arc<Table>>,
    /// By table: the number of the definition that the simple protocol's rows name.
    versions: HashMap<TableName, u64>,
    told: HashMap<(TableName, u64), Schema>,
    next_id: u32,
}

/// A definition that replaced another.
#[derive(Clone, Debug)]
pub struct Evolved {
    pub before: Option<Arc<Table>>,
    pub after: Arc<Table>,
}

/// Why a row has no definition.
#[derive(Debug, PartialEq, Eq)]
pub enum Undefined {
    /// No message told its table yet; the next bootstrap does.
    Wait,
    Bad(String),
}

impl Catalog {
    pub fn new(
        protocol: Protocol,
        has_database: bool,
        declared: BTreeMap<String, DeclaredTable>,
        tables: impl IntoIterator<Item = Arc<Table>>,
    ) -> Self {
        let known: HashMap<_, _> = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        let next_id = known.values().map(|table| table.id + 1).max().unwrap_or(1);
        let exact = has_database || protocol == Protocol::Simple;
        let (versions, told) = (HashMap::new(), HashMap::new());
        Self { protocol, exact, declared, known, versions, told, next_id }
    }

    pub fn get(&self, name: &TableName) -> Option<Arc<Table>> {
        self.known.get(name).cloned()
    }

    pub fn names(&self) -> Vec<TableName> {
        let mut names: Vec<_> = self.known.keys().cloned().collect();
        names.sort();
        names
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// A definition that a bootstrap message told: of no moment, for rows that name its number.
    pub fn tell(&mut self, schema: Schema) {
        let key = (schema.table.name.clone(), schema.version);
        if self.told.len() < TOLD_MAX || self.told.contains_key(&key) {
            self.told.insert(key, schema);
        }
    }

    /// Takes a definition in; `None` when it is the one that stands.
    pub fn define(&mut self, mut table: Table, version: Option<u64>) -> Option<Evolved> {
        if let Some(version) = version {
            self.versions.insert(table.name.clone(), version);
            self.told.remove(&(table.name.clone(), version));
        }
        let before = self.get(&table.name);
        if let Some(before) = &before
            && same_shape(before, &table)
        {
            return None;
        }
        (table.id, table.version) = match &before {
            Some(before) => (before.id, before.version + 1),
            None => (self.next_id, 1),
        };
        self.next_id = self.next_id.max(table.id + 1);
        let after = Arc::new(table);
        self.known.insert(after.name.clone(), Arc::clone(&after));
        Some(Evolved { before, after })
    }

    pub fn forget(&mut self, name: &TableName) -> Option<Arc<Table>> {
        self.versions.remove(name);
        self.known.remove(name)
    }

    /// Gives a table another name; its id stays.
    pub fn rename(&mut self, from: &TableName, to: &TableName) -> Option<Evolved> {
        let before = self.known.remove(from)?;
        if let Some(version) = self.versions.remove(from) {
            self.versions.insert(to.clone(), version);
        }
        let after = Arc::new(Table { name: to.clone(), version: before.version + 1, ..(*before).clone() });
        self.known.insert(to.clone(), Arc::clone(&after));
        Some(Evolved { before: Some(before), after })
    }

    /// Makes a definition that has room for a row, of what the row or a bootstrap tells; `None` when the one that stands has.
    pub fn make_room(&mut self, row: &Row<'_>) -> Result<Option<Evolved>, Undefined> {
        if self.protocol == Protocol::Simple {
            return self.of_version(row);
        }
        if self.exact {
            return if self.known.contains_key(&row.name) { Ok(None) } else { Err(Undefined::Wait) };
        }
        self.widen(row).map_err(Undefined::Bad)
    }

    /// Whether TiDB's definition as we know it has not all columns of a row.
    pub fn lacks(&self, row: &Row<'_>) -> bool {
        let is_asked = self.exact && self.protocol != Protocol::Simple;
        let Some(table) = self.known.get(&row.name).filter(|_| is_asked) else { return false };
        let images = [&row.before, &row.after];
        images.into_iter().flatten().flatten().any(|(name, _)| table.column_index(name).is_none())
    }

    fn of_version(&mut self, row: &Row<'_>) -> Result<Option<Evolved>, Undefined> {
        let version = row.schema_version.unwrap_or_default();
        let is_current = self.versions.get(&row.name) == Some(&version);
        let whole = if row.key_only { None } else { row.after.as_ref() };
        let told = if is_current { None } else { self.told.remove(&(row.name.clone(), version)) };
        let mut table = match (told, self.known.get(&row.name)) {
            (Some(schema), known) => {
                let known = known.cloned();
                keeping_hidden(schema, known.as_deref(), None).table
            }
            // After a restart the numbers are forgotten, and the journal has the definition.
            (None, Some(known)) => {
                let image = whole.or(row.before.as_ref());
                let lacks = |name: &str| known.column_index(name).is_none();
                if image.into_iter().flatten().any(|(name, _)| lacks(name)) {
                    return Err(Undefined::Wait);
                }
                (**known).clone()
            }
            (None, None) => return Err(Undefined::Wait),
        };
        self.versions.insert(row.name.clone(), version);
        if let Some(image) = whole {
            // Computed when it is read: no row ever has it.
            let has = |column: &Column| image.iter().any(|(name, _)| name.eq_ignore_ascii_case(&column.name));
            let keep: Vec<bool> = table.columns.iter().map(has).collect();
            without(&mut table, &keep);
        }
        Ok(self.define(table, None))
    }

    fn declaration(&self, name: &TableName) -> Option<&DeclaredTable> {
        let full = name.to_string();
        self.declared.get(&full).or_else(|| {
            let matching = self.declared.iter().find(|(pattern, _)| {
                let parts = pattern.split_once('.');
                parts.is_some_and(|(db, table)| wildcard(db, &name.db) && wildcard(table, &name.table))
            });
            matching.map(|(_, declared)| declared)
        })
    }

    fn widen(&mut self, row: &Row<'_>) -> Result<Option<Evolved>, String> {
        let known = self.get(&row.name);
        let declared = self.declaration(&row.name).cloned().unwrap_or_default();
        let mut table = known.as_deref().cloned().unwrap_or_else(|| Table {
            id: 0,
            version: 0,
            name: row.name.clone(),
            columns: Vec::new(),
            key: Vec::new(),
            unique_keys: Vec::new(),
        });
        for told in &row.told {
            match table.columns.iter_mut().find(|own| own.name == told.name) {
                Some(own) => {
                    let ty = join(&own.ty, &told.ty);
                    if ty != own.ty {
                        *own = told_as(&told.name, ty, None);
                    }
                }
                None => table.columns.push(told_as(&told.name, told.ty.clone(), told.sql_type.as_deref())),
            }
        }
        for (name, text) in &declared.columns {
            let Ok(ty) = parse(text) else { continue };
            match table.columns.iter_mut().find(|own| own.name == *name) {
                Some(own) => *own = told_as(name, ty, Some(text)),
                None => table.columns.push(told_as(name, ty, Some(text))),
            }
        }
        let names = if declared.key.is_empty() { &row.key } else { &declared.key };
        if !names.is_empty() {
            let find = |name: &String| {
                let at = table.column_index(name);
                at.ok_or_else(|| format!("the column `{name}` of the key is not in the row"))
            };
            table.key = names.iter().map(find).collect::<Result<_, _>>()?;
        }
        for index in 0..table.columns.len() {
            let in_key = table.key.contains(&index);
            let column = &mut table.columns[index];
            column.nullable = !in_key;
            // Texts and bytes of unknown length: a key needs one that an index takes.
            let long = matches!(&*column.sql_type, "longtext" | "longblob");
            if in_key && long {
                column.sql_type = sql_type(&column.ty, true);
            }
        }
        Ok(self.define(table, None))
    }

    /// The image of a row under the definition that stands. What it lacks is NULL in what the row is now, and unknown in what
    /// it was.
    pub fn image(
        &self,
        table: &Table,
        row: &Row<'_>,
        image: &Image<'_>,
        whole: bool,
    ) -> Result<RowBuf, String> {
        let mut values: Vec<Option<Value>> = vec![whole.then_some(Value::Null); table.columns.len()];
        for (name, cell) in image {
            let at = table.column_index(name).ok_or_else(|| format!("`{name}` is not in its definition"))?;
            let column = &table.columns[at];
            let told = row.told.iter().find(|told| !self.exact && told.name == *name && told.ty != column.ty);
            let read = match told {
                None => value(self.protocol, cell, column),
                Some(told) => self.widened(told, cell, column),
            };
            values[at] = Some(read.ok_or_else(|| format!("its `{name}` is no `{}`", column.sql_type))?);
        }
        for &at in &table.key {
            if values[at].as_ref().is_none_or(Value::is_null) {
                return Err(format!(
                    "its `{}` is NULL or missing, and belongs to the key",
                    table.columns[at].name
                ));
            }
        }
        let mut out = Vec::new();
        let mut writer = RowWriter::new(&mut out);
        for value in &values {
            match value {
                Some(value) => writer.put(value.as_ref()),
                None => writer.put_absent(),
            }
        }
        Ok(RowBuf(out))
    }

    fn widened(
        &self,
        told: &ToldColumn,
        cell: &crate::formats::decode::ticdc::Cell<'_>,
        column: &Column,
    ) -> Option<Value> {
        let narrow = told_as(&told.name, told.ty.clone(), None);
        let value = value(self.protocol, cell, &narrow)?;
        if value.is_null() {
            return Some(value);
        }
        // By its text in our own format, which every wider type reads.
        let text = base::json::value_text(&value, &narrow);
        decode(Raw::of(&text)?, column, Wire::Json)
    }
}

/// A definition of the simple protocol without the columns that we know no row has: they are in the definition before it,
/// and not in ours.
pub fn keeping_hidden(mut schema: Schema, known: Option<&Table>, before: Option<&Table>) -> Schema {
    let (Some(known), Some(before)) = (known, before) else { return schema };
    let hidden = |column: &Column| {
        before.column_index(&column.name).is_some() && known.column_index(&column.name).is_none()
    };
    let keep: Vec<bool> = schema.table.columns.iter().map(|column| !hidden(column)).collect();
    without(&mut schema.table, &keep);
    let mut keep = keep.into_iter();
    schema.fills.retain(|_| keep.next().unwrap_or(true));
    schema
}

pub fn same_shape(a: &Table, b: &Table) -> bool {
    a.columns == b.columns && a.key == b.key && a.unique_keys == b.unique_keys
}

fn told_as(name: &str, ty: ColumnType, text: Option<&str>) -> Column {
    let is_text = matches!(ty, ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. });
    let text = text.map_or_else(|| sql_type(&ty, false), |text| text.trim().to_owned());
    Column {
        name: name.to_owned(),
        ty,
        sql_type: text,
        nullable: true,
        charset: is_text.then(|| "utf8mb4".to_owned()),
        // Bytes decide what is one key and what is two: the collation is not told.
        collation: is_text.then(|| "utf8mb4_bin".to_owned()),
        generated: Generated::No,
        invisible: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::decode::ticdc::{Event, Kind, Part, read, split};

    fn part(value: &str) -> Part {
        split(Protocol::Simple, None, Some(value.as_bytes())).unwrap().remove(0)
    }

    fn schema(version: u64, columns: &[(&str, &str)]) -> Schema {
        let column = |(name, ty): &(&str, &str)| {
            let nullable = *name != "id";
            format!(
                r#"{{"name":"{name}","dataType":{{"mysqlType":"{ty}"}},"nullable":{nullable},"default":null}}"#
            )
        };
        let columns: Vec<_> = columns.iter().map(column).collect();
        let value = format!(
            r#"{{"version":1,"type":"BOOTSTRAP","commitTs":0,"tableSchema":{{"schema":"d","table":"t","version":{version},"columns":[{}],"indexes":[{{"unique":true,"primary":true,"columns":["id"]}}]}}}}"#,
            columns.join(",")
        );
        let part = part(&value);
        assert_eq!(part.kind, Kind::Bootstrap);
        match read(Protocol::Simple, &part).unwrap() {
            Event::Bootstrap(schema) => schema,
            other => panic!("{other:?}"),
        }
    }

    /// What a row of this definition's number makes of the catalog: its columns, or what is missing.
    fn take(all: &mut Catalog, version: u64, data: &str) -> Result<String, Undefined> {
        let value = format!(
            r#"{{"version":1,"database":"d","table":"t","type":"INSERT","commitTs":5,"schemaVersion":{version},"data":{data}}}"#
        );
        let part = part(&value);
        let Event::Row(row) = read(Protocol::Simple, &part).unwrap() else { panic!("a row") };
        all.make_room(&row)?;
        let table = all.get(&row.name).unwrap();
        all.image(&table, &row, row.after.as_ref().unwrap(), true).map_err(Undefined::Bad)?;
        let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
        Ok(format!("v{} {}", table.version, names.join(" ")))
    }

    #[test]
    fn a_row_waits_for_its_definition_and_columns_that_no_row_has_are_left_out() {
        let mut all = Catalog::new(Protocol::Simple, false, BTreeMap::new(), []);
        let row = r#"{"id":"1","a":"2"}"#;
        assert_eq!(take(&mut all, 7, row), Err(Undefined::Wait));
        all.tell(schema(6, &[("id", "int")]));
        assert_eq!(take(&mut all, 7, row), Err(Undefined::Wait), "another number is another definition");
        all.tell(schema(7, &[("id", "int"), ("virtual", "bigint"), ("a", "int")]));
        assert_eq!(take(&mut all, 7, row).unwrap(), "v1 id a");
        // The next definition has the column too; ours still has it not.
        let before = schema(7, &[("id", "int"), ("virtual", "bigint"), ("a", "int")]);
        let after = schema(8, &[("id", "int"), ("virtual", "bigint"), ("a", "int"), ("b", "int")]);
        let known = all.get(&TableName::new("d", "t"));
        let kept = keeping_hidden(after, known.as_deref(), Some(&before.table));
        all.define(kept.table, Some(8)).unwrap();
        assert_eq!(take(&mut all, 8, r#"{"id":"1","a":"2","b":null}"#).unwrap(), "v2 id a b");
        // After a restart the journal has the definition, and its number is forgotten.
        let known = all.get(&TableName::new("d", "t"));
        let mut again = Catalog::new(Protocol::Simple, false, BTreeMap::new(), known);
        assert_eq!(take(&mut again, 8, r#"{"id":"1","a":"2","b":"3"}"#).unwrap(), "v2 id a b");
        assert_eq!(take(&mut again, 9, r#"{"id":"1","a":"2","c":"3"}"#), Err(Undefined::Wait));
        let bad = take(&mut again, 8, r#"{"id":"x","a":"2","b":"3"}"#).unwrap_err();
        assert_eq!(bad, Undefined::Bad("its `id` is no `int`".into()));
    }
}
