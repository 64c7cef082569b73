//! Rows from elsewhere: the columns that keep them, and the transactions that put them there.

use crate::error::EngineError;
use crate::query::quoted;
use crate::store::Target;
use crate::types::COLLATION_DEFAULT;
use base::{Column, ColumnType, Generated, Value};
use expr::coerce::Val;
use expr::decimal::Decimal;
use expr::kind::Kind;
use rusqlite::types::Value as Cell;
use std::borrow::Cow;

/// Characters of a text that is part of a key: four bytes each, and InnoDB's keys have 3072 bytes.
pub const KEY_CHARS_MAX: u64 = 255;
/// What a text that is part of a key has, where the project has no collation like its source's.
const KEY_COLLATION: &str = "utf8mb4_0900_bin";
/// How the names of Tidemill's own tables begin, which no statement makes.
pub const OWN_PREFIX: &str = "tidemill_";
/// What the names hold of tables that stand beside another while it is made anew.
pub const SHADOW_MARK: &str = "__tidemill_";
/// Characters of a VARCHAR in a table that is made here; longer ones are LONGTEXT.
const VARCHAR_MAX: u64 = 4096;

/// One part of a transaction. Values need not have the target's types: each goes into its column by the rules of strict mode.
#[derive(Clone, Debug)]
pub enum Write {
    /// One statement that changes rows.
    Sql(String),
    /// Rows into a table. A primary key that is there already is error 1062, or with `replace` its row goes.
    Put { table: String, columns: Vec<Column>, rows: Vec<Vec<Value>>, replace: bool },
    /// Rows whose named columns equal these go; NULL equals NULL.
    Delete { table: String, columns: Vec<Column>, rows: Vec<Vec<Value>> },
}

/// The column of a project's dialect that holds what a source's column holds, by the same name: ENUM, SET, JSON and INET are text
/// there, BIT is a number, GEOMETRY and VECTOR are bytes. `in_key`: it is to be part of a key, where a text has its bound.
pub fn kept(column: &Column, in_key: bool) -> Column {
    use ColumnType as T;
    let integer = |name: &str, unsigned: bool| format!("{name}{}", if unsigned { " unsigned" } else { "" });
    let fraction = |name: &str, fsp: u8| if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") };
    let (ty, sql_type) = match &column.ty {
        T::TinyInt { unsigned } => (column.ty.clone(), integer("tinyint", *unsigned)),
        T::SmallInt { unsigned } => (column.ty.clone(), integer("smallint", *unsigned)),
        T::MediumInt { unsigned } => (column.ty.clone(), integer("mediumint", *unsigned)),
        T::Int { unsigned } if column.sql_type.starts_with("int") => {
            (column.ty.clone(), integer("int", *unsigned))
        }
        T::Int { unsigned } | T::BigInt { unsigned } => {
            (T::BigInt { unsigned: *unsigned }, integer("bigint", *unsigned))
        }
        T::Bit { .. } => (T::BigInt { unsigned: true }, "bigint unsigned".into()),
        T::Decimal { precision, scale } => (column.ty.clone(), format!("decimal({precision},{scale})")),
        T::Float => (T::Float, "float".into()),
        T::Double => (T::Double, "double".into()),
        T::Year => (T::Year, "year".into()),
        T::Date => (T::Date, "date".into()),
        T::Time { fsp } => (column.ty.clone(), fraction("time", *fsp)),
        T::DateTime { fsp } => (column.ty.clone(), fraction("datetime", *fsp)),
        T::Timestamp { fsp } => (column.ty.clone(), fraction("timestamp", *fsp)),
        T::Text { .. } | T::Enum { .. } | T::Set { .. } | T::Json | T::Uuid | T::Inet4 | T::Inet6 => {
            let chars_max = match &column.ty {
                T::Text { chars_max } => *chars_max,
                T::Uuid | T::Inet4 | T::Inet6 => 45,
                T::Enum { .. } => KEY_CHARS_MAX,
                _ => u64::MAX,
            };
            match (in_key, chars_max) {
                (true, most) => varchar(most.min(KEY_CHARS_MAX)),
                (false, most @ ..=VARCHAR_MAX) => varchar(most),
                _ => (T::Text { chars_max: 4_294_967_295 }, "longtext".into()),
            }
        }
        T::Binary { .. } | T::VarBinary { .. } | T::Geometry | T::Vector { .. } => {
            let bytes = match &column.ty {
                T::Binary { bytes } => u64::from(*bytes),
                T::VarBinary { bytes_max } => *bytes_max,
                _ => u64::MAX,
            };
            match (in_key, bytes) {
                (true, most) => varbinary(most.min(KEY_CHARS_MAX * 4)),
                (false, most @ ..=VARCHAR_MAX) => varbinary(most),
                _ => (T::VarBinary { bytes_max: 4_294_967_295 }, "longblob".into()),
            }
        }
    };
    let text = matches!(ty, T::Text { .. });
    let collation = text.then(|| {
        let known = column.collation.as_deref().filter(|it| crate::types::COLLATIONS.contains(it));
        // Keys that their source tells apart must not become one: where its rule is not known, every byte counts.
        known.unwrap_or(if in_key { KEY_COLLATION } else { COLLATION_DEFAULT }).to_owned()
    });
    Column {
        name: column.name.clone(),
        ty,
        sql_type,
        nullable: column.nullable && !in_key,
        charset: text.then(|| "utf8mb4".to_owned()),
        collation,
        generated: Generated::No,
        invisible: false,
    }
}

fn varchar(chars: u64) -> (ColumnType, String) {
    (ColumnType::Text { chars_max: chars }, format!("varchar({chars})"))
}

fn varbinary(bytes: u64) -> (ColumnType, String) {
    (ColumnType::VarBinary { bytes_max: bytes }, format!("varbinary({bytes})"))
}

/// A name in backquotes; `dataset.table` is two names.
pub fn name_sql(name: &str) -> String {
    let part = |part: &str| format!("`{}`", part.replace('`', "``"));
    match name.split_once('.') {
        Some((dataset, table)) => format!("{}.{}", part(dataset), part(table)),
        None => part(name),
    }
}

/// CREATE TABLE of columns that [`kept`] made, in the project's dialect.
pub fn create_sql(table: &str, columns: &[Column], key: &[String]) -> String {
    let one = |column: &Column| {
        let collate = match &column.collation {
            Some(collation) => format!(" COLLATE {collation}"),
            None => String::new(),
        };
        // A TIMESTAMP that does not say NULL is NOT NULL on some servers.
        let null = if column.nullable { " NULL" } else { " NOT NULL" };
        format!("{} {}{collate}{null}", name_sql_part(&column.name), column.sql_type)
    };
    let mut parts: Vec<String> = columns.iter().map(one).collect();
    if !key.is_empty() {
        let names: Vec<String> = key.iter().map(|it| name_sql_part(it)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    format!("CREATE TABLE {} ({})", name_sql(table), parts.join(", "))
}

fn name_sql_part(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Whether a table is the platform's own, or a part of a change: no listing shows it.
pub fn is_own(name: &str) -> bool {
    let table = name.rsplit('.').next().unwrap_or(name);
    table.starts_with(OWN_PREFIX) || table.contains(SHADOW_MARK)
}

/// A value as expressions have it. Its column says how many digits a time has, and what labels an ENUM.
pub fn val_of(value: Value, column: &Column) -> Val<'static> {
    let fsp = match column.ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
        _ => 6,
    };
    match value {
        Value::Null => Val::Null,
        Value::Int(v) => Val::Int(v),
        Value::UInt(v) | Value::Bit(v) => Val::UInt(v),
        Value::Float(v) => Val::Float(v),
        Value::Double(v) => Val::Double(v),
        Value::Decimal(text) => match Decimal::parse(&text) {
            Some(decimal) => Val::Decimal(decimal),
            None => Val::text(text),
        },
        Value::Date(v) => Val::Date(v),
        Value::Time(v) => Val::Time(v, fsp),
        Value::DateTime(v) => Val::DateTime(v, fsp),
        Value::Timestamp(v) => Val::DateTime(base::value::timestamp_to_datetime(v), fsp),
        Value::Year(v) => Val::Label(format!("{v:04}").into(), u64::from(v)),
        Value::Enum(_) | Value::Set(_) => Val::text(label_text(&value, column)),
        Value::Text(text) | Value::Json(text) => Val::text(text),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            Val::Bytes(Cow::Owned(bytes))
        }
    }
}

/// ENUM and SET as MySQL prints them.
fn label_text(value: &Value, column: &Column) -> String {
    match (value, &column.ty) {
        (Value::Enum(at), ColumnType::Enum { labels }) => {
            usize::from(*at).checked_sub(1).and_then(|at| labels.get(at)).cloned().unwrap_or_default()
        }
        (Value::Set(bits), ColumnType::Set { labels }) => {
            let set = labels.iter().enumerate().filter(|(at, _)| *at < 64 && bits >> at & 1 == 1);
            set.map(|(_, label)| label.as_str()).collect::<Vec<_>>().join(",")
        }
        (Value::Enum(at), _) => at.to_string(),
        (Value::Set(bits), _) => bits.to_string(),
        _ => String::new(),
    }
}

/// The cells of a row on its way into SQLite.
pub(crate) fn stored(
    row: Vec<Value>,
    columns: &[Column],
    targets: &[Target],
) -> Result<Vec<Cell>, EngineError> {
    check_width(&row, columns)?;
    row.into_iter()
        .zip(columns)
        .zip(targets)
        .map(|((value, column), target)| {
            // A TIMESTAMP's own kind is that of a DATETIME.
            target.store(val_of(value, column), Kind::of(&kept(column, false)))
        })
        .collect()
}

pub(crate) fn check_width(row: &[Value], columns: &[Column]) -> Result<(), EngineError> {
    if row.len() == columns.len() {
        return Ok(());
    }
    Err(EngineError::Internal(format!("a row of {} values for {} columns", row.len(), columns.len())))
}

/// A value as a parameter of a server.
pub(crate) fn parameter(value: Value, column: &Column) -> mysql_async::Value {
    use mysql_async::Value as P;
    match value {
        Value::Null => P::NULL,
        Value::Int(v) => P::Int(v),
        Value::UInt(v) | Value::Bit(v) => P::UInt(v),
        Value::Float(v) => P::Float(v),
        Value::Double(v) => P::Double(v),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => P::Bytes(text.into_bytes()),
        Value::Enum(_) | Value::Set(_) => P::Bytes(label_text(&value, column).into_bytes()),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            P::Bytes(bytes)
        }
        // TIMESTAMP as the session's UTC without its `Z`.
        Value::Timestamp(micros) => {
            P::Bytes(base::value::format_datetime(base::value::timestamp_to_datetime(micros), 6).into_bytes())
        }
        Value::DateTime(v) => P::Bytes(base::value::format_datetime(v, 6).into_bytes()),
        Value::Time(v) => P::Bytes(base::value::format_time(v, 6).into_bytes()),
        other => P::Bytes(crate::cell_text(&other, column).unwrap_or_default().into_bytes()),
    }
}

/// `INSERT INTO t (a, b) VALUES (?, ?)` of SQLite.
pub(crate) fn put_sql(table: &str, columns: &[Column], replace: bool) -> String {
    let names: Vec<String> = columns.iter().map(|it| quoted(&it.name)).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let word = if replace { "INSERT OR REPLACE" } else { "INSERT" };
    format!("{word} INTO {} ({}) VALUES ({marks})", quoted(table), names.join(", "))
}

pub(crate) fn delete_sql(table: &str, columns: &[Column]) -> String {
    let all: Vec<String> = columns.iter().map(|it| format!("{} IS ?", quoted(&it.name))).collect();
    format!("DELETE FROM {} WHERE {}", quoted(table), all.join(" AND "))
}

/// The same of a server, for so many rows at once.
pub(crate) fn put_many_sql(table: &str, columns: &[Column], replace: bool, rows: usize) -> String {
    let names: Vec<String> = columns.iter().map(|it| name_sql_part(&it.name)).collect();
    let row = format!("({})", vec!["?"; columns.len()].join(","));
    let word = if replace { "REPLACE" } else { "INSERT" };
    format!("{word} INTO {} ({}) VALUES {}", name_sql(table), names.join(","), vec![row; rows].join(","))
}

pub(crate) fn delete_many_sql(table: &str, columns: &[Column], rows: usize) -> String {
    let all: Vec<String> = columns.iter().map(|it| format!("{}<=>?", name_sql_part(&it.name))).collect();
    let row = format!("({})", all.join(" AND "));
    format!("DELETE FROM {} WHERE {}", name_sql(table), vec![row; rows].join(" OR "))
}
