//! Canal's flat message, one row each. Values are text as Canal prints them; bytes are one character each.

use super::{Record, comma};
use base::json::put_string;
use base::value::{format_datetime, format_double, format_float, format_time, timestamp_to_datetime};
use base::{Column, ColumnType, Op, ValueRef};
use std::io::Write;

/// Appends the message of a change.
pub fn put(out: &mut Vec<u8>, record: &Record<'_>) {
    let name = &record.table.name;
    write!(out, "{{\"id\":{},\"database\":", record.lsn).expect("memory");
    put_string(out, &name.db);
    out.extend_from_slice(b",\"table\":");
    put_string(out, &name.table);
    let is_ddl = matches!(record.op, Op::Truncate | Op::Ddl);
    out.extend_from_slice(b",\"pkNames\":");
    if is_ddl || record.table.key.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.push(b'[');
        let mut first = true;
        for index in &record.table.key {
            comma(out, &mut first);
            put_string(out, &record.table.columns[*index].name);
        }
        out.push(b']');
    }
    let (kind, time) = (kind(record), record.ts_ms);
    write!(out, ",\"isDdl\":{is_ddl},\"type\":\"{kind}\",\"es\":{time},\"ts\":{time},\"sql\":")
        .expect("memory");
    match (record.op, record.ddl) {
        (Op::Truncate, _) => put_string(out, &format!("TRUNCATE TABLE `{}`.`{}`", name.db, name.table)),
        (_, Some(ddl)) => put_string(out, &ddl.sql),
        _ => put_string(out, ""),
    }
    put_rows(out, record);
    out.extend_from_slice(b",\"gtid\":");
    put_string(out, record.txn.map_or("", |txn| &txn.id));
    out.push(b'}');
}

fn put_rows(out: &mut Vec<u8>, record: &Record<'_>) {
    let Some(row) = record.row() else {
        out.extend_from_slice(b",\"sqlType\":null,\"mysqlType\":null,\"data\":null,\"old\":null");
        return;
    };
    put_object(out, ",\"sqlType\":", record.cells(row), |out, (column, _)| {
        write!(out, "{}", sql_type(column)).expect("memory");
    });
    put_object(out, ",\"mysqlType\":", record.cells(row), |out, (column, _)| {
        put_string(out, &column.sql_type)
    });
    put_object(out, ",\"data\":[", record.cells(row), put_cell);
    out.push(b']');
    if record.op == Op::Update {
        put_object(out, ",\"old\":[", record.changed(), put_cell);
        out.push(b']');
    } else {
        out.extend_from_slice(b",\"old\":null");
    }
}

type Cell<'r, 'a> = (&'r Column, ValueRef<'a>);

fn put_object<'r, 'a>(
    out: &mut Vec<u8>,
    head: &str,
    cells: impl Iterator<Item = Cell<'r, 'a>>,
    put: impl Fn(&mut Vec<u8>, Cell<'r, 'a>),
) {
    out.extend_from_slice(head.as_bytes());
    out.push(b'{');
    let mut first = true;
    for cell in cells {
        comma(out, &mut first);
        put_string(out, &cell.0.name);
        out.push(b':');
        put(out, cell);
    }
    out.push(b'}');
}

fn put_cell(out: &mut Vec<u8>, (column, value): Cell<'_, '_>) {
    match text(column, value) {
        Some(text) => put_string(out, &text),
        None => out.extend_from_slice(b"null"),
    }
}

fn kind(record: &Record<'_>) -> &'static str {
    match record.op {
        Op::Read | Op::Insert => "INSERT",
        Op::Update => "UPDATE",
        Op::Delete => "DELETE",
        Op::Truncate => "TRUNCATE",
        Op::Ddl => match record.ddl.map(|ddl| (&ddl.before, &ddl.after)) {
            Some((None, Some(_))) => "CREATE",
            Some((Some(_), None)) => "ERASE",
            Some((Some(before), Some(after))) if before.name != after.name => "RENAME",
            Some((Some(_), Some(_))) => "ALTER",
            _ => "QUERY",
        },
    }
}

/// The constant of `java.sql.Types` that Canal takes for a column.
fn sql_type(column: &Column) -> i32 {
    match &column.ty {
        ColumnType::Text { .. } if column.sql_type.ends_with("text") => 2005,
        ColumnType::Text { .. } if column.sql_type.starts_with("char") => 1,
        ColumnType::Text { .. } => 12,
        ColumnType::TinyInt { unsigned: false } => -6,
        ColumnType::TinyInt { unsigned: true } | ColumnType::SmallInt { unsigned: false } => 5,
        ColumnType::SmallInt { unsigned: true } | ColumnType::MediumInt { .. } => 4,
        ColumnType::Int { unsigned: false } | ColumnType::Enum { .. } => 4,
        ColumnType::Int { unsigned: true } | ColumnType::BigInt { unsigned: false } => -5,
        ColumnType::BigInt { unsigned: true } | ColumnType::Decimal { .. } => 3,
        ColumnType::Float => 7,
        ColumnType::Double => 8,
        ColumnType::Bit { .. } | ColumnType::Set { .. } => -7,
        ColumnType::Date => 91,
        ColumnType::Time { .. } => 92,
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => 93,
        ColumnType::Year | ColumnType::Json => 12,
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => 2004,
        ColumnType::Geometry | ColumnType::Vector { .. } => -2,
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => 12,
    }
}

/// The value as text; `None` for NULL.
fn text(column: &Column, value: ValueRef<'_>) -> Option<String> {
    let fsp = match column.ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
        _ => 0,
    };
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Int(v) => v.to_string(),
        ValueRef::UInt(v) | ValueRef::Bit(v) | ValueRef::Set(v) => v.to_string(),
        ValueRef::Year(v) | ValueRef::Enum(v) => v.to_string(),
        ValueRef::Float(v) => format_float(v),
        ValueRef::Double(v) => format_double(v),
        ValueRef::Decimal(v) | ValueRef::Text(v) | ValueRef::Json(v) => v.to_owned(),
        ValueRef::Date(v) => v.to_string(),
        ValueRef::Time(v) => format_time(v, fsp),
        ValueRef::DateTime(v) => format_datetime(v, fsp),
        ValueRef::Timestamp(v) => format_datetime(timestamp_to_datetime(v), fsp),
        ValueRef::RawText(v) | ValueRef::Bytes(v) | ValueRef::Geometry(v) | ValueRef::Vector(v) => {
            v.iter().map(|byte| char::from(*byte)).collect()
        }
    })
}
