//! The rows of a table in a SQLite file.

use super::{Copy, Cursor, Described, described};
use crate::config::SinkConfig;
use crate::sinks::sqlite::{self as in_sqlite, Bound};
use crate::verify::{Cells, Key, Pair, Sum, VerifyError, sink_error, text_of};
use async_trait::async_trait;
use base::{Column, ColumnType, Table, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef as Stored};
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

pub struct Sqlite(Connection);

fn sqlite_error(error: rusqlite::Error) -> VerifyError {
    sink_error(&error)
}

impl Sqlite {
    pub fn connect(sink: &SinkConfig) -> Result<Self, VerifyError> {
        let path = sink.path.as_ref().ok_or_else(super::placeless)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(sqlite_error)?;
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(sqlite_error)?;
        Ok(Self(connection))
    }
}

#[async_trait]
impl Copy for Sqlite {
    async fn describe(&mut self, table: &Arc<Table>) -> Result<Described, VerifyError> {
        let connection = &self.0;
        let mut query = connection
            .prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")
            .map_err(sqlite_error)?;
        let rows =
            query.query_map([&table.name.table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)));
        let rows: Vec<_> = rows.map_err(sqlite_error)?.collect::<Result<_, _>>().map_err(sqlite_error)?;
        let mut declared = Table { columns: Vec::new(), key: Vec::new(), ..Table::clone(table) };
        for (name, in_key) in rows {
            let Some(index) = table.column_index(&name) else { continue };
            if in_key > 0 {
                declared.key.push(declared.columns.len());
            }
            declared.columns.push(table.columns[index].clone());
        }
        let found = (!declared.columns.is_empty()).then_some(&declared);
        Ok(described(table, found))
    }

    fn key(&self, pair: &Pair, row: &[Value]) -> Key {
        key_of(pair, pair.key_values(row))
    }

    fn expected(&self, pair: &Pair, row: &[Value]) -> Cells {
        row.iter().zip(&pair.target().columns).map(|(value, column)| sqlite_text(value, column)).collect()
    }

    async fn rows(&mut self, pair: &Pair, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let (table, connection) = (pair.target(), &self.0);
        let columns: Vec<&Column> = table.key.iter().map(|index| &table.columns[*index]).collect();
        let names: Vec<_> = columns.iter().map(|column| in_sqlite::quoted(&column.name)).collect();
        let tuple = format!("({})", vec!["?"; columns.len()].join(", "));
        let sql = format!(
            "SELECT {} FROM {} WHERE ({}) IN (VALUES {})",
            sqlite_list(table),
            in_sqlite::quoted(&table.name.table),
            names.join(", "),
            vec![tuple.as_str(); keys.len()].join(", ")
        );
        let params = keys.iter().flat_map(|key| key.values.iter().zip(columns.iter().copied()));
        let params = params_from_iter(params.map(|(value, column)| Bound(value, column)));
        let mut query = connection.prepare_cached(&sql).map_err(sqlite_error)?;
        let mut rows = query.query(params).map_err(sqlite_error)?;
        let mut out = HashMap::with_capacity(keys.len());
        while let Some(row) = rows.next().map_err(sqlite_error)? {
            let (mut key, mut cells) = (Vec::new(), Vec::new());
            for (index, _) in table.columns.iter().enumerate() {
                cells.push(stored_text(row.get_ref(index).map_err(sqlite_error)?));
            }
            for index in &table.key {
                let stored = row.get_ref(*index).map_err(sqlite_error)?;
                key.push(value_of(stored, &table.columns[*index]));
            }
            out.insert(key_of(pair, key).text, cells);
        }
        Ok(out)
    }

    async fn keys(
        &mut self,
        pair: &Pair,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Cursor>), VerifyError> {
        let (table, connection) = (pair.target(), &self.0);
        let after = match after {
            Some(Cursor::Row(row)) => row,
            _ => i64::MIN,
        };
        let names: Vec<_> =
            table.key.iter().map(|index| in_sqlite::quoted(&table.columns[*index].name)).collect();
        let sql = format!(
            "SELECT rowid, {} FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
            names.join(", "),
            in_sqlite::quoted(&table.name.table)
        );
        let mut query = connection.prepare_cached(&sql).map_err(sqlite_error)?;
        let mut rows = query.query((after, limit as i64)).map_err(sqlite_error)?;
        let (mut keys, mut last) = (Vec::new(), None);
        while let Some(row) = rows.next().map_err(sqlite_error)? {
            last = Some(Cursor::Row(row.get(0).map_err(sqlite_error)?));
            let mut key = Vec::new();
            for (place, index) in table.key.iter().enumerate() {
                let stored = row.get_ref(place + 1).map_err(sqlite_error)?;
                key.push(value_of(stored, &table.columns[*index]));
            }
            keys.push(key_of(pair, key));
        }
        let full = keys.len() as u64 == limit;
        Ok((keys, last.filter(|_| full)))
    }

    async fn sum(&mut self, pair: &Pair) -> Result<Sum, VerifyError> {
        let mut sum = Sum::default();
        let (table, connection) = (pair.target(), &self.0);
        let sql = format!("SELECT {} FROM {}", sqlite_list(table), in_sqlite::quoted(&table.name.table));
        let mut query = connection.prepare_cached(&sql).map_err(sqlite_error)?;
        let mut rows = query.query([]).map_err(sqlite_error)?;
        while let Some(row) = rows.next().map_err(sqlite_error)? {
            let cells: Result<Cells, _> =
                (0..table.columns.len()).map(|index| row.get_ref(index).map(stored_text)).collect();
            sum.add(&cells.map_err(sqlite_error)?);
        }
        Ok(sum)
    }
}

fn key_of(pair: &Pair, values: Vec<Value>) -> Key {
    let table = pair.target();
    let indexes = table.key.iter().zip(&values);
    let cells = indexes.map(|(index, value)| sqlite_text(value, &table.columns[*index]));
    Key::of_values(text_of(&cells.collect()), values)
}

fn sqlite_list(table: &Table) -> String {
    let names: Vec<_> = table.columns.iter().map(|column| in_sqlite::quoted(&column.name)).collect();
    names.join(", ")
}

/// What the SQLite sink stores for a value, as `stored_text` prints it.
fn sqlite_text(value: &Value, column: &Column) -> Option<String> {
    match Bound(value, column).to_sql() {
        Ok(ToSqlOutput::Borrowed(stored)) => stored_text(stored),
        Ok(ToSqlOutput::Owned(stored)) => stored_text(Stored::from(&stored)),
        _ => None,
    }
}

fn stored_text(stored: Stored<'_>) -> Option<String> {
    Some(match stored {
        Stored::Null => return None,
        Stored::Integer(number) => number.to_string(),
        Stored::Real(number) => format!("{number:?}"),
        Stored::Text(text) => serde_json::Value::from(String::from_utf8_lossy(text)).to_string(),
        Stored::Blob(bytes) => {
            let mut out = String::from("x'");
            for byte in bytes {
                let _ = write!(out, "{byte:02x}");
            }
            out + "'"
        }
    })
}

/// What a key column of SQLite holds, as the source's column has it.
fn value_of(stored: Stored<'_>, column: &Column) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (stored, &column.ty) {
        (Stored::Null, _) => Value::Null,
        (Stored::Integer(number), ColumnType::Bit { .. }) => Value::Bit(number as u64),
        (Stored::Integer(number), ColumnType::Year) => Value::Year(u16::try_from(number).unwrap_or_default()),
        (Stored::Integer(number), _) => Value::Int(number),
        (Stored::Real(number), ColumnType::Float) => Value::Float(number as f32),
        (Stored::Real(number), _) => Value::Double(number),
        (Stored::Blob(bytes), _) => Value::Bytes(bytes.to_vec()),
        (Stored::Text(bytes), ColumnType::Decimal { .. }) => Value::Decimal(text(bytes)),
        (Stored::Text(bytes), ColumnType::Enum { labels }) => {
            let label = text(bytes);
            let ordinal = labels.iter().position(|own| *own == label).map_or(0, |index| index + 1);
            Value::Enum(u16::try_from(ordinal).unwrap_or_default())
        }
        (Stored::Text(bytes), ColumnType::Set { labels }) => {
            let members = text(bytes);
            let bit =
                |member: &str| labels.iter().position(|own| own == member).map_or(0, |index| 1u64 << index);
            Value::Set(members.split(',').map(bit).fold(0, |bits, bit| bits | bit))
        }
        // Beyond what SQLite's integers hold.
        (Stored::Text(bytes), ColumnType::BigInt { .. }) => match text(bytes).parse() {
            Ok(number) => Value::UInt(number),
            Err(_) => Value::Text(text(bytes)),
        },
        (Stored::Text(bytes), _) => Value::Text(text(bytes)),
    }
}
