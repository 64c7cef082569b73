//! Values and statements as SQL text. The session has NO_BACKSLASH_ESCAPES: in a string only the quote is special.

use super::target::Dialect;
use base::value::{format_datetime, format_double, format_time, timestamp_to_datetime};
use base::{Column, ColumnType, Table, TableName, Value};
use std::fmt::Write;

pub fn quoted_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub fn quoted_table(name: &TableName) -> String {
    format!("{}.{}", quoted_name(&name.db), quoted_name(&name.table))
}

pub fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn put_hex(out: &mut String, bytes: &[u8]) {
    out.push_str("X'");
    for byte in bytes {
        let _ = write!(out, "{byte:02X}");
    }
    out.push('\'');
}

/// Appends a literal that the server stores as exactly this value.
pub fn put_value(out: &mut String, value: &Value, column: &Column, dialect: Dialect) {
    match value {
        Value::Null => out.push_str("NULL"),
        Value::Int(v) => {
            let _ = write!(out, "{v}");
        }
        Value::UInt(v) | Value::Bit(v) | Value::Set(v) => {
            let _ = write!(out, "{v}");
        }
        Value::Year(v) | Value::Enum(v) => {
            let _ = write!(out, "{v}");
        }
        // A f32 is exact as a f64; the server rounds it back to itself.
        Value::Float(v) => put_double(out, f64::from(*v)),
        Value::Double(v) => put_double(out, *v),
        Value::Decimal(v) => out.push_str(v),
        Value::Date(v) => {
            let _ = write!(out, "'{v}'");
        }
        Value::Time(v) => {
            let _ = write!(out, "'{}'", format_time(*v, 6));
        }
        Value::DateTime(v) => {
            let _ = write!(out, "'{}'", format_datetime(*v, 6));
        }
        Value::Timestamp(v) => {
            let _ = write!(out, "'{}'", format_datetime(timestamp_to_datetime(*v), 6));
        }
        // MariaDB's JSON is text on every server.
        Value::Json(v) if dialect == Dialect::MySql && column.sql_type == "json" => {
            out.push_str(&super::document::exact(v))
        }
        Value::Text(v) | Value::Json(v) => out.push_str(&text(v)),
        Value::RawText(v) | Value::Bytes(v) | Value::Geometry(v) => put_hex(out, v),
        Value::Vector(v) if dialect == Dialect::TiDb || !matches!(column.ty, ColumnType::Vector { .. }) => {
            out.push_str("'[");
            for (index, chunk) in v.chunks_exact(4).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                let number = f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                out.push_str(&base::value::format_float(number));
            }
            out.push_str("]'");
        }
        Value::Vector(v) => put_hex(out, v),
    }
}

/// Appends a literal that the column compares exactly with.
fn put_operand(out: &mut String, value: &Value, column: &Column, dialect: Dialect) {
    match value {
        // A SET and a number compare as DOUBLEs, in which large sets are equal to their neighbours.
        Value::Set(bits) => {
            let labels: Vec<_> = base::json::set_labels(column, *bits).collect();
            out.push_str(&text(&labels.join(",")));
        }
        value => put_value(out, value, column, dialect),
    }
}

fn put_double(out: &mut String, value: f64) {
    let text = format_double(value);
    out.push_str(&text);
    if !text.contains('e') {
        // Without an exponent the server would read an exact decimal.
        out.push_str("e0");
    }
}

/// `INSERT INTO t (a, b) VALUES `.
pub fn insert_head(table: &Table) -> String {
    let names: Vec<_> = table.columns.iter().map(|c| quoted_name(&c.name)).collect();
    format!("INSERT INTO {} ({}) VALUES ", quoted_table(&table.name), names.join(","))
}

/// ` ON DUPLICATE KEY UPDATE …`: every column but the key's.
pub fn upsert_tail(table: &Table) -> String {
    let set: Vec<_> = table
        .columns
        .iter()
        .map(|c| {
            let name = quoted_name(&c.name);
            format!("{name}=VALUES({name})")
        })
        .collect();
    format!(" ON DUPLICATE KEY UPDATE {}", set.join(","))
}

/// `DELETE FROM t WHERE (a, b) IN (`.
pub fn delete_head(table: &Table) -> String {
    let names: Vec<_> = table.key.iter().map(|i| quoted_name(&table.columns[*i].name)).collect();
    format!("DELETE FROM {} WHERE ({}) IN (", quoted_table(&table.name), names.join(","))
}

/// `(…)`: the whole row, or its key.
pub fn put_tuple(out: &mut String, table: &Table, values: &[Value], whole: bool, dialect: Dialect) {
    let mut before = '(';
    let mut put = |index: usize, put: fn(&mut String, &Value, &Column, Dialect)| {
        out.push(std::mem::replace(&mut before, ','));
        put(out, &values[index], &table.columns[index], dialect);
    };
    if whole {
        (0..table.columns.len()).for_each(|index| put(index, put_value));
    } else {
        table.key.iter().for_each(|index| put(*index, put_operand));
    }
    out.push(')');
}

fn assignments(table: &Table, values: &[Value], dialect: Dialect) -> String {
    let mut out = String::new();
    for (index, column) in table.columns.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, "{}=", quoted_name(&column.name));
        put_value(&mut out, &values[index], column, dialect);
    }
    out
}

/// Finds one row by every column that compares exactly.
fn match_all(table: &Table, values: &[Value], dialect: Dialect) -> String {
    let mut out = String::new();
    for (index, column) in table.columns.iter().enumerate() {
        if index > 0 {
            out.push_str(" AND ");
        }
        let name = quoted_name(&column.name);
        match (&values[index], &column.ty) {
            (Value::Json(_), ColumnType::Json)
                if dialect != Dialect::MariaDb && column.sql_type == "json" =>
            {
                let _ = write!(out, "{name} <=> CAST(");
                put_value(&mut out, &values[index], column, dialect);
                out.push_str(" AS JSON)");
            }
            (Value::Text(v) | Value::Json(v), _) => {
                // By bytes: a collation would take another row for this one.
                let name = format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)");
                let _ = write!(out, "{name} <=> CAST({} AS BINARY)", text(v));
            }
            (Value::Null, _) => {
                // `<=> NULL` is no comparison for geometries and vectors.
                let _ = write!(out, "{name} IS NULL");
            }
            (Value::Vector(_), _) if dialect == Dialect::TiDb => {
                let _ = write!(out, "{name} <=> VEC_FROM_TEXT(");
                put_value(&mut out, &values[index], column, dialect);
                out.push(')');
            }
            (value @ (Value::RawText(_) | Value::Geometry(_) | Value::Vector(_)), _) => {
                let _ = write!(out, "CAST({name} AS BINARY) <=> ");
                put_value(&mut out, value, column, dialect);
            }
            (value, _) => {
                let _ = write!(out, "{name} <=> ");
                put_operand(&mut out, value, column, dialect);
            }
        }
    }
    out
}

/// `a=1 AND b=2`: the row's key.
fn match_key(table: &Table, values: &[Value], dialect: Dialect) -> String {
    let mut out = String::new();
    for (position, index) in table.key.iter().enumerate() {
        if position > 0 {
            out.push_str(" AND ");
        }
        let _ = write!(out, "{}=", quoted_name(&table.columns[*index].name));
        put_operand(&mut out, &values[*index], &table.columns[*index], dialect);
    }
    out
}

pub fn update_by_key(table: &Table, after: &[Value], dialect: Dialect) -> String {
    let (set, key) = (assignments(table, after, dialect), match_key(table, after, dialect));
    format!("UPDATE {} SET {set} WHERE {key}", quoted_table(&table.name))
}

/// Inserts a row unless its key is there.
pub fn insert_if_missing(table: &Table, after: &[Value], dialect: Dialect) -> String {
    let (name, key) = (quoted_table(&table.name), match_key(table, after, dialect));
    let names: Vec<_> = table.columns.iter().map(|c| quoted_name(&c.name)).collect();
    let mut out = format!("INSERT INTO {name} ({}) SELECT ", names.join(","));
    for (index, column) in table.columns.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        put_value(&mut out, &after[index], column, dialect);
    }
    out.push_str(&format!(" FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {name} WHERE {key})"));
    out
}

pub fn update_by_all(table: &Table, before: &[Value], after: &[Value], dialect: Dialect) -> String {
    let name = quoted_table(&table.name);
    format!(
        "UPDATE {name} SET {} WHERE {} LIMIT 1",
        assignments(table, after, dialect),
        match_all(table, before, dialect)
    )
}

pub fn delete_by_all(table: &Table, before: &[Value], dialect: Dialect) -> String {
    format!("DELETE FROM {} WHERE {} LIMIT 1", quoted_table(&table.name), match_all(table, before, dialect))
}
