//! The sink's side: its tables and rows, by the keys that the flow would write them under.

use super::origin::uncomparable;
use super::{Cells, Sum, VerifyError, cell, keys_condition};
use crate::capture::CaptureError;
use crate::capture::mysql::check::{Server, inspect};
use crate::capture::mysql::connect::reading_session;
use crate::capture::mysql::schema::{quote_name, read_tables};
use crate::capture::mysql::snapshot::{encode, push_after_key, quoted, select_list};
use crate::config::{SinkConfig, SinkKind};
use crate::sinks::mysql::{CONNECT_TIMEOUT, KEEPALIVE};
use crate::sinks::sqlite::{self as in_sqlite, Bound};
use base::{Column, ColumnType, RowBuf, Table, TableName, Value};
use futures_util::TryStreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef as Stored};
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::fmt::Write as _;

pub enum Copy {
    Sql { conn: Box<Conn>, server: Server },
    Sqlite(Connection),
}

/// Where the next keys begin.
pub enum Cursor {
    Key(RowBuf),
    Row(i64),
}

fn sink_error(error: &(dyn std::error::Error + 'static)) -> VerifyError {
    VerifyError::Sink { message: base::error::chain(error) }
}

fn capture_error(error: CaptureError) -> VerifyError {
    sink_error(&error)
}

fn sql_error(error: mysql_async::Error) -> VerifyError {
    sink_error(&error)
}

fn sqlite_error(error: rusqlite::Error) -> VerifyError {
    sink_error(&error)
}

impl Copy {
    pub async fn connect(sink: &SinkConfig) -> Result<Self, VerifyError> {
        let missing = || VerifyError::Sink { message: "it has no place".to_owned() };
        if sink.kind == SinkKind::Sqlite {
            let path = sink.path.as_ref().ok_or_else(missing)?;
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags).map_err(sqlite_error)?;
            connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(sqlite_error)?;
            return Ok(Self::Sqlite(connection));
        }
        let url = sink.url.as_ref().ok_or_else(missing)?;
        let opts = Opts::from_url(url.expose())
            .map_err(|_| VerifyError::Sink { message: "its url is not a MySQL URL".to_owned() })?;
        let opts: Opts = OptsBuilder::from_opts(opts)
            .db_name(None::<String>)
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .into();
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(opts)).await;
        let silent = |_| VerifyError::Sink { message: "no answer to the connection".to_owned() };
        let mut conn = connecting.map_err(silent)?.map_err(sql_error)?;
        let (server, _) = inspect(&mut conn).await.map_err(capture_error)?;
        reading_session(&mut conn).await.map_err(capture_error)?;
        Ok(Self::Sql { conn: Box::new(conn), server })
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// The table as the sink declares it; `None` when it has none of that name.
    pub async fn describe(&mut self, table: &Table) -> Result<Option<Table>, VerifyError> {
        match self {
            Self::Sql { conn, server } => {
                let lower = server.lower_case_table_names != 0;
                let same = |name: &TableName| {
                    *name == table.name
                        || lower
                            && name.db.eq_ignore_ascii_case(&table.name.db)
                            && name.table.eq_ignore_ascii_case(&table.name.table)
                };
                let found = read_tables(conn, server, same).await.map_err(capture_error)?;
                match found.into_values().next() {
                    None => Ok(None),
                    Some(Ok(live)) => Ok(Some(live.table)),
                    Some(Err(reason)) => {
                        Err(VerifyError::Sink { message: format!("table `{}`: {reason}", table.name) })
                    }
                }
            }
            Self::Sqlite(connection) => {
                let mut query = connection
                    .prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")
                    .map_err(sqlite_error)?;
                let rows = query.query_map([&table.name.table], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                });
                let rows: Vec<_> =
                    rows.map_err(sqlite_error)?.collect::<Result<_, _>>().map_err(sqlite_error)?;
                let mut declared = Table { columns: Vec::new(), key: Vec::new(), ..table.clone() };
                for (name, in_key) in rows {
                    let Some(index) = table.column_index(&name) else { continue };
                    if in_key > 0 {
                        declared.key.push(declared.columns.len());
                    }
                    declared.columns.push(table.columns[index].clone());
                }
                Ok((!declared.columns.is_empty()).then_some(declared))
            }
        }
    }

    /// Rows by key: the key's values, and all cells.
    pub async fn rows(
        &mut self,
        table: &Table,
        declared: &[Option<Column>],
        keys: &[&[Value]],
    ) -> Result<Vec<(Vec<Value>, Cells)>, VerifyError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Sql { conn, server } => {
                let shape = as_declared(table, declared);
                let columns: Vec<&Column> = shape.key.iter().map(|index| &shape.columns[*index]).collect();
                let (condition, params) =
                    keys_condition(&columns, keys).ok_or_else(|| uncomparable(table))?;
                let flavor = server.flavor();
                let sql = format!(
                    "SELECT {} FROM {} WHERE {condition}",
                    select_list(&shape, flavor),
                    quoted(&shape.name)
                );
                let rows: Vec<Row> = conn.exec(sql, params).await.map_err(sql_error)?;
                let mut out = Vec::with_capacity(rows.len());
                for row in rows {
                    let row = encode(&row, &shape, flavor).map_err(capture_error)?;
                    let values = row.view().values().map_err(|e| sink_error(&e))?;
                    let key = shape.key.iter().map(|index| values[*index].clone()).collect();
                    out.push((key, cells_of(&values, table, &shape)));
                }
                Ok(out)
            }
            Self::Sqlite(connection) => {
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
                let params = keys.iter().flat_map(|key| key.iter().zip(columns.iter().copied()));
                let params = params_from_iter(params.map(|(value, column)| Bound(value, column)));
                let mut query = connection.prepare_cached(&sql).map_err(sqlite_error)?;
                let mut rows = query.query(params).map_err(sqlite_error)?;
                let mut out = Vec::with_capacity(keys.len());
                while let Some(row) = rows.next().map_err(sqlite_error)? {
                    let (mut key, mut cells) = (Vec::new(), Vec::new());
                    for (index, _) in table.columns.iter().enumerate() {
                        cells.push(stored_text(row.get_ref(index).map_err(sqlite_error)?));
                    }
                    for index in &table.key {
                        let stored = row.get_ref(*index).map_err(sqlite_error)?;
                        key.push(value_of(stored, &table.columns[*index]));
                    }
                    out.push((key, cells));
                }
                Ok(out)
            }
        }
    }

    /// The next keys in the sink's own order.
    pub async fn keys(
        &mut self,
        table: &Table,
        declared: &[Option<Column>],
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Vec<Value>>, Option<Cursor>), VerifyError> {
        match self {
            Self::Sql { conn, server } => {
                let shape = only_key(&as_declared(table, declared));
                let flavor = server.flavor();
                let mut sql = format!("SELECT {} FROM {}", select_list(&shape, flavor), quoted(&shape.name));
                let mut params = Vec::new();
                if let Some(Cursor::Key(key)) = &after {
                    sql.push_str(" WHERE ");
                    push_after_key(&mut sql, &mut params, &shape, key).map_err(capture_error)?;
                }
                let order: Vec<_> = shape.columns.iter().map(|column| quote_name(&column.name)).collect();
                let _ = write!(sql, " ORDER BY {} LIMIT {limit}", order.join(", "));
                let params = if params.is_empty() { mysql_async::Params::Empty } else { params.into() };
                let rows: Vec<Row> = conn.exec(sql, params).await.map_err(sql_error)?;
                let rows: Vec<RowBuf> = rows
                    .iter()
                    .map(|row| encode(row, &shape, flavor).map_err(capture_error))
                    .collect::<Result<_, _>>()?;
                let keys: Result<Vec<_>, _> = rows.iter().map(|row| row.view().values()).collect();
                let keys = keys.map_err(|e| sink_error(&e))?;
                Ok((keys, rows.into_iter().next_back().map(Cursor::Key)))
            }
            Self::Sqlite(connection) => {
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
                    keys.push(key);
                }
                Ok((keys, last))
            }
        }
    }

    /// The sum of all rows.
    pub async fn sum(&mut self, table: &Table, declared: &[Option<Column>]) -> Result<Sum, VerifyError> {
        let mut sum = Sum::default();
        match self {
            Self::Sql { conn, server } => {
                let shape = as_declared(table, declared);
                let flavor = server.flavor();
                let sql = format!("SELECT {} FROM {}", select_list(&shape, flavor), quoted(&shape.name));
                let mut result = conn.exec_iter(sql, ()).await.map_err(sql_error)?;
                if let Some(mut rows) = result.stream::<Row>().await.map_err(sql_error)? {
                    while let Some(row) = rows.try_next().await.map_err(sql_error)? {
                        let row = encode(&row, &shape, flavor).map_err(capture_error)?;
                        let values = row.view().values().map_err(|e| sink_error(&e))?;
                        sum.add(&cells_of(&values, table, &shape));
                    }
                }
            }
            Self::Sqlite(connection) => {
                let sql =
                    format!("SELECT {} FROM {}", sqlite_list(table), in_sqlite::quoted(&table.name.table));
                let mut query = connection.prepare_cached(&sql).map_err(sqlite_error)?;
                let mut rows = query.query([]).map_err(sqlite_error)?;
                while let Some(row) = rows.next().map_err(sqlite_error)? {
                    let cells: Result<Cells, _> =
                        (0..table.columns.len()).map(|index| row.get_ref(index).map(stored_text)).collect();
                    sum.add(&cells.map_err(sqlite_error)?);
                }
            }
        }
        Ok(sum)
    }
}

/// The flow's table with the columns as the sink declares them.
fn as_declared(table: &Table, declared: &[Option<Column>]) -> Table {
    let columns = table.columns.iter().zip(declared);
    let columns = columns.map(|(own, declared)| declared.clone().unwrap_or_else(|| own.clone())).collect();
    Table { columns, ..table.clone() }
}

fn only_key(table: &Table) -> Table {
    let columns: Vec<Column> = table.key.iter().map(|index| table.columns[*index].clone()).collect();
    Table { key: (0..columns.len()).collect(), columns, unique_keys: Vec::new(), ..table.clone() }
}

/// A row of the sink, in the form that is compared.
fn cells_of(values: &[Value], table: &Table, shape: &Table) -> Cells {
    let columns = table.columns.iter().zip(&shape.columns);
    values.iter().zip(columns).map(|(value, (own, declared))| sql_cell(value, own, declared)).collect()
}

/// A value of the sink's column `declared`, which stands for the flow's column `own`.
pub fn sql_cell(value: &Value, own: &Column, declared: &Column) -> Option<String> {
    match value {
        Value::Text(text) if own.ty == ColumnType::Json => {
            cell(&Value::Json(text.clone()), own, Some(declared), false)
        }
        value => cell(value, declared, Some(declared), false),
    }
}

fn sqlite_list(table: &Table) -> String {
    let names: Vec<_> = table.columns.iter().map(|column| in_sqlite::quoted(&column.name)).collect();
    names.join(", ")
}

/// What the SQLite sink stores for a value, as `stored_text` prints it.
pub fn sqlite_text(value: &Value, column: &Column) -> Option<String> {
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
