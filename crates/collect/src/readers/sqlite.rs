//! A SQLite file as a source of collection, opened to read. Its columns hold values of any type; the declared type says which of
//! MySQL's is meant:
//!
//! | declared | becomes |
//! |---|---|
//! | `BOOL…` | TINYINT |
//! | `…INT…` | BIGINT |
//! | `DECIMAL(p,s)`, `NUMERIC(p,s)` | DECIMAL(p,s) |
//! | `DATE` | DATE; `DATETIME`, `TIMESTAMP` DATETIME(6): text, or a number of seconds or milliseconds since 1970, or of Julian days |
//! | `TIME` | TIME(6) |
//! | `VARCHAR(n)` and such | VARCHAR of n characters, 255 at the least: SQLite does not hold to n |
//! | `TEXT`, `CLOB`, `JSON`, and no type | LONGTEXT |
//! | `BLOB…` | LONGBLOB |
//! | any other | DOUBLE |

use crate::reader::{
    BAD_TEXT_MAX, BadRow, Batch, Batches, Described, ROWS_OF_BATCH_MAX, ReadError, Reader, Scope, Sender,
    batches,
};
use async_trait::async_trait;
use base::patterns::Patterns;
use base::{Column, ColumnType, Generated, TableName, Value, value};
use rusqlite::types::{Value as Cell, ValueRef as CellRef};
use rusqlite::{Connection, OpenFlags};
use std::path::PathBuf;
use std::time::Duration;

/// How long a reader waits for whoever writes.
const BUSY_WAIT: Duration = Duration::from_secs(10);
const BATCH_BYTES_MAX: usize = 1 << 20;
const TEXT_MAX: u64 = 4_294_967_295;
/// Numbers of days that are Julian: the years 1 to 9999. What is larger counts seconds, or milliseconds above [`SECONDS_MAX`].
const JULIAN_DAYS_MAX: f64 = 5_373_485.0;
const SECONDS_MAX: f64 = 1e11;

/// A file, and what of it may be read.
#[derive(Clone, Debug)]
pub struct SqliteSource {
    pub path: PathBuf,
    /// `file.table` with wildcards, where the file is named without its ending.
    pub tables: Patterns,
}

pub struct SqliteReader {
    source: SqliteSource,
    file: String,
}

impl SqliteReader {
    pub async fn open(source: &SqliteSource) -> Result<Self, ReadError> {
        let stem =
            source.path.file_stem().map_or_else(|| "main".into(), |it| it.to_string_lossy().into_owned());
        let reader = Self { source: source.clone(), file: stem };
        reader.blocking(|_| Ok(())).await?;
        Ok(reader)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let path = self.source.path.clone();
        let done = tokio::task::spawn_blocking(move || work(&connect(&path)?)).await;
        done.map_err(|error| ReadError::Internal(error.to_string()))?
    }

    fn own_name(&self, table: &str) -> Result<String, ReadError> {
        let rest = table.strip_prefix(&self.file).and_then(|rest| rest.strip_prefix('.'));
        rest.map(str::to_owned).ok_or_else(|| ReadError::NoTable(table.to_owned()))
    }
}

fn connect(path: &std::path::Path) -> Result<Connection, ReadError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| ReadError::Unavailable(format!("{}: {error}", path.display())))?;
    connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
    // The file is read at its first statement: what is no database is told now.
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).map_err(failed)?;
    Ok(connection)
}

fn failed(error: rusqlite::Error) -> ReadError {
    use rusqlite::ErrorCode as C;
    match error.sqlite_error_code() {
        Some(C::DatabaseBusy | C::DatabaseLocked | C::CannotOpen | C::SystemIoFailure) => {
            ReadError::Unavailable(error.to_string())
        }
        Some(C::NotADatabase | C::DatabaseCorrupt) => {
            ReadError::bad(format!("the file is no whole SQLite database: {error}"), "restore it from a copy")
        }
        _ => ReadError::bad(error.to_string(), "see the message of SQLite"),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[async_trait]
impl Reader for SqliteReader {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        let names: Vec<String> = self
            .blocking(|connection| {
                let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') \
                           AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'tidemill_changes' ORDER BY name";
                let mut statement = connection.prepare(sql).map_err(failed)?;
                let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
                rows.collect::<Result<_, _>>().map_err(failed)
            })
            .await?;
        let named = names.into_iter().map(|table| TableName { db: self.file.clone(), table });
        Ok(named.filter(|name| self.source.tables.matches(name)).map(|name| name.to_string()).collect())
    }

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError> {
        let (name, told) = (self.own_name(table)?, table.to_owned());
        self.blocking(move |connection| {
            let sql = "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid";
            let mut statement = connection.prepare(sql).map_err(failed)?;
            let rows = statement.query_map([&name], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, i64>(3)?))
            });
            let rows: Vec<_> = rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
            let mut key: Vec<(i64, String)> =
                rows.iter().filter(|it| it.3 > 0).map(|it| (it.3, it.0.clone())).collect();
            key.sort();
            let columns: Vec<Column> = rows.iter().map(|it| column(&it.0, &it.1, it.2 || it.3 > 0)).collect();
            if columns.is_empty() {
                return Err(ReadError::NoTable(told));
            }
            Ok(Described { table: told, columns, key: key.into_iter().map(|(_, name)| name).collect() })
        })
        .await
    }

    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError> {
        let name = self.own_name(&table.table)?;
        let (sender, batches) = batches();
        let (table, path) = (table.clone(), self.source.path.clone());
        tokio::task::spawn_blocking(move || {
            let ended =
                connect(&path).and_then(|connection| stream(&connection, &name, &table, &scope, &sender));
            sender.end_blocking(ended);
        });
        Ok(batches)
    }
}

fn stream(
    connection: &Connection,
    name: &str,
    table: &Described,
    scope: &Scope,
    sender: &Sender,
) -> Result<(), ReadError> {
    let columns: Vec<&Column> = match scope {
        Scope::Columns(names) => {
            let named = names.iter().map(|name| {
                let found = table.columns.iter().find(|it| it.name == *name);
                found.ok_or_else(|| ReadError::Internal(format!("no column `{name}`")))
            });
            named.collect::<Result<_, _>>()?
        }
        _ => table.columns.iter().collect(),
    };
    let list: Vec<String> = columns.iter().map(|it| quoted(&it.name)).collect();
    let mut sql = format!("SELECT {} FROM {}", list.join(", "), quoted(name));
    let mut from = None;
    if let Scope::From { column, value } = scope {
        let declared = table.columns.iter().find(|it| it.name.eq_ignore_ascii_case(column));
        let declared = declared.ok_or_else(|| ReadError::Internal(format!("no column `{column}`")))?;
        if let Some(value) = value {
            from = Some(bound(connection, name, declared, value)?);
            sql.push_str(&format!(" WHERE {} >= ?1 OR {0} IS NULL", quoted(column)));
        }
        sql.push_str(&format!(" ORDER BY {}", quoted(column)));
    }
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query(rusqlite::params_from_iter(from)).map_err(failed)?;
    let (mut batch, mut bytes, mut number) = (Batch::default(), 0, 0u64);
    while let Some(row) = rows.next().map_err(failed)? {
        number += 1;
        let mut values = Vec::with_capacity(columns.len());
        let mut wrong = None;
        for (at, column) in columns.iter().enumerate() {
            let cell = row.get_ref(at).map_err(failed)?;
            bytes += match cell {
                CellRef::Text(bytes) | CellRef::Blob(bytes) => bytes.len(),
                _ => 8,
            };
            match read(cell, &column.ty) {
                Some(value) => values.push(value),
                None => {
                    wrong.get_or_insert_with(|| {
                        format!("`{}` holds {cell:?}, and is {}", column.name, column.sql_type)
                    });
                }
            }
        }
        match wrong {
            None => batch.rows.push(values),
            Some(mut reason) => {
                reason.truncate(reason.floor_char_boundary(BAD_TEXT_MAX));
                batch.bad.push(BadRow { place: format!("row {number}"), text: reason.clone(), reason });
            }
        }
        if batch.rows.len() + batch.bad.len() >= ROWS_OF_BATCH_MAX || bytes >= BATCH_BYTES_MAX {
            bytes = 0;
            if !sender.send_blocking(std::mem::take(&mut batch)) {
                return Ok(());
            }
        }
    }
    sender.send_blocking(batch);
    Ok(())
}

/// A bookmark in the form that the file's own values have: days and times are text or numbers.
fn bound(connection: &Connection, table: &str, column: &Column, value: &Value) -> Result<Cell, ReadError> {
    let moment = match value {
        Value::Int(v) => return Ok(Cell::Integer(*v)),
        Value::UInt(v) => return Ok(i64::try_from(*v).map_or(Cell::Real(*v as f64), Cell::Integer)),
        Value::Decimal(text) => {
            let number: f64 = text.parse().unwrap_or_default();
            return Ok(text.parse::<i64>().map_or(Cell::Real(number), Cell::Integer));
        }
        Value::Date(date) => value::DateTime { date: *date, ..value::DateTime::default() },
        Value::DateTime(moment) => *moment,
        other => return Err(ReadError::Internal(format!("a bookmark {other:?}"))),
    };
    let name = quoted(&column.name);
    let sql = format!("SELECT {name} FROM {} WHERE {name} IS NOT NULL LIMIT 1", quoted(table));
    let sample: Cell = match connection.query_row(&sql, [], |row| row.get(0)) {
        Ok(sample) => sample,
        Err(rusqlite::Error::QueryReturnedNoRows) => Cell::Null,
        Err(error) => return Err(failed(error)),
    };
    let micros = value::datetime_to_timestamp(moment);
    let seconds = micros as f64 / 1e6;
    Ok(match sample {
        Cell::Integer(v) if v as f64 > SECONDS_MAX => Cell::Integer(micros.div_euclid(1000)),
        Cell::Integer(_) => Cell::Integer(micros.div_euclid(1_000_000)),
        Cell::Real(v) if v < JULIAN_DAYS_MAX => Cell::Real(seconds / 86_400.0 + 2_440_587.5 - 1e-6),
        Cell::Real(_) => Cell::Real(seconds),
        // Every text of that day, however it is written: what is before the bookmark is passed over later.
        _ => Cell::Text(moment.date.to_string()),
    })
}

/// A value as its column means it; `None` where it means nothing.
fn read(cell: CellRef<'_>, ty: &ColumnType) -> Option<Value> {
    use ColumnType as T;
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::RawText(bytes.to_vec()),
    };
    Some(match (ty, cell) {
        (_, CellRef::Null) => Value::Null,
        (T::VarBinary { .. }, CellRef::Text(bytes) | CellRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
        (T::VarBinary { .. }, CellRef::Integer(v)) => Value::Bytes(v.to_string().into_bytes()),
        (T::VarBinary { .. }, CellRef::Real(v)) => Value::Bytes(value::format_double(v).into_bytes()),
        (T::Date | T::DateTime { .. }, CellRef::Text(bytes)) => {
            let text = std::str::from_utf8(bytes).ok()?.trim();
            let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
            Value::Text(text.trim_end().replacen('T', " ", 1))
        }
        (T::Date | T::DateTime { .. }, CellRef::Integer(v)) => moment(v as f64, ty)?,
        (T::Date | T::DateTime { .. }, CellRef::Real(v)) if v < JULIAN_DAYS_MAX => {
            moment((v - 2_440_587.5) * 86_400.0, ty)?
        }
        (T::Date | T::DateTime { .. }, CellRef::Real(v)) => moment(v, ty)?,
        (_, CellRef::Text(bytes) | CellRef::Blob(bytes)) => text(bytes),
        (T::Text { .. } | T::Json, CellRef::Integer(v)) => Value::Text(v.to_string()),
        (T::Text { .. } | T::Json, CellRef::Real(v)) => Value::Text(value::format_double(v)),
        (T::BigInt { .. } | T::TinyInt { .. }, CellRef::Real(v)) => {
            // A part of a number would be lost.
            if v.fract() != 0.0 || v.abs() >= 9.2e18 {
                return None;
            }
            Value::Int(v as i64)
        }
        (T::Decimal { .. }, CellRef::Integer(v)) => Value::Decimal(v.to_string()),
        (T::Decimal { .. }, CellRef::Real(v)) if v.is_finite() => Value::Decimal(format!("{v}")),
        (T::Double, CellRef::Integer(v)) => Value::Double(v as f64),
        (T::Double, CellRef::Real(v)) => Value::Double(v),
        (_, CellRef::Integer(v)) => Value::Int(v),
        (_, CellRef::Real(v)) => Value::Double(v),
    })
}

/// Seconds or milliseconds since 1970.
fn moment(number: f64, ty: &ColumnType) -> Option<Value> {
    let seconds = if number.abs() > SECONDS_MAX { number / 1000.0 } else { number };
    let micros = (seconds * 1e6).round();
    // The years 1 to 9999.
    if !(-6.2e16..2.5e17).contains(&micros) {
        return None;
    }
    let moment = value::timestamp_to_datetime(micros as i64);
    Some(if *ty == ColumnType::Date { Value::Date(moment.date) } else { Value::DateTime(moment) })
}

fn column(name: &str, declared: &str, not_null: bool) -> Column {
    let (ty, sql_type) = column_type(declared);
    let text = matches!(ty, ColumnType::Text { .. });
    Column {
        name: name.to_owned(),
        ty,
        sql_type,
        nullable: !not_null,
        charset: text.then(|| "utf8mb4".to_owned()),
        // SQLite tells texts apart by every byte.
        collation: text.then(|| "utf8mb4_0900_bin".to_owned()),
        generated: Generated::No,
        invisible: false,
    }
}

fn column_type(declared: &str) -> (ColumnType, String) {
    let upper = declared.to_ascii_uppercase();
    let has = |part: &str| upper.contains(part);
    let inner =
        upper.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inner, _)| inner);
    let numbers: Vec<u64> = inner.split(',').map_while(|it| it.trim().parse().ok()).collect();
    let long_text = || (ColumnType::Text { chars_max: TEXT_MAX }, "longtext".to_owned());
    if has("BOOL") {
        return (ColumnType::TinyInt { unsigned: false }, "tinyint".into());
    }
    if has("INT") {
        return (ColumnType::BigInt { unsigned: false }, "bigint".into());
    }
    if (has("DECIMAL") || has("NUMERIC"))
        && let Some(precision) =
            numbers.first().and_then(|it| u8::try_from(*it).ok()).filter(|it| (1..=65).contains(it))
        && let Some(scale) =
            u8::try_from(numbers.get(1).copied().unwrap_or(0)).ok().filter(|it| *it <= precision.min(30))
    {
        return (ColumnType::Decimal { precision, scale }, format!("decimal({precision},{scale})"));
    }
    if has("DATETIME") || has("TIMESTAMP") {
        return (ColumnType::DateTime { fsp: 6 }, "datetime(6)".into());
    }
    if has("DATE") {
        return (ColumnType::Date, "date".into());
    }
    if has("TIME") {
        return (ColumnType::Time { fsp: 6 }, "time(6)".into());
    }
    if has("CHAR")
        && let Some(chars) = numbers.first().filter(|it| **it <= 4096)
    {
        let chars = (*chars).max(255);
        return (ColumnType::Text { chars_max: chars }, format!("varchar({chars})"));
    }
    if has("CHAR") || has("CLOB") || has("TEXT") || has("JSON") || upper.trim().is_empty() {
        return long_text();
    }
    if has("BLOB") || has("BINARY") {
        return (ColumnType::VarBinary { bytes_max: TEXT_MAX }, "longblob".into());
    }
    (ColumnType::Double, "double".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_say_which_of_mysqls_is_meant() {
        for (declared, expected) in [
            ("INTEGER", "bigint"),
            ("UNSIGNED BIG INT", "bigint"),
            ("boolean", "tinyint"),
            ("DECIMAL(10,2)", "decimal(10,2)"),
            ("NUMERIC", "double"),
            ("NVARCHAR(40)", "varchar(255)"),
            ("varchar(1000)", "varchar(1000)"),
            ("TEXT", "longtext"),
            ("", "longtext"),
            ("BLOB", "longblob"),
            ("DATE", "date"),
            ("DATETIME", "datetime(6)"),
            ("REAL", "double"),
        ] {
            assert_eq!(column_type(declared).1, expected, "{declared}");
        }
    }

    #[test]
    fn days_and_times_are_read_from_texts_and_numbers() {
        let ty = ColumnType::DateTime { fsp: 6 };
        let expected = |value: Option<Value>| match value {
            Some(Value::DateTime(value)) => value::format_datetime(value, 0),
            other => format!("{other:?}"),
        };
        for cell in [
            CellRef::Integer(1_700_000_000),
            CellRef::Integer(1_700_000_000_000),
            CellRef::Real(2_460_263.425_925_926),
        ] {
            let found = expected(read(cell, &ty));
            assert!(found.starts_with("2023-11-14 22:13:"), "{found}");
        }
        let text = read(CellRef::Text(b"2024-01-02T03:04:05Z"), &ty);
        assert_eq!(text, Some(Value::Text("2024-01-02 03:04:05".into())));
        assert_eq!(read(CellRef::Real(1.5), &ColumnType::BigInt { unsigned: false }), None);
    }
}
