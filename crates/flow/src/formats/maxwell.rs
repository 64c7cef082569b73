//! Maxwell's messages as it prints them by default: rows only, neither DDL nor TRUNCATE.

use super::{Record, comma};
use base::json::{put_string, put_value};
use base::value::{format_datetime, timestamp_to_datetime};
use base::{Column, ColumnType, Op, ValueRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::Write;

/// Appends the message of a change; false for what Maxwell does not print.
pub fn put(out: &mut Vec<u8>, record: &Record<'_>) -> bool {
    let kind = match record.op {
        Op::Read => "bootstrap-insert",
        Op::Insert | Op::Update | Op::Delete => record.op.name(),
        Op::Truncate | Op::Ddl => return false,
    };
    put_names(out, record);
    write!(out, ",\"type\":\"{kind}\",\"ts\":{}", record.ts_ms.div_euclid(1000)).expect("memory");
    if let Some(txn) = record.txn {
        // The number of the transaction's first change stands for InnoDB's own number, which the binlog's rows lack.
        write!(out, ",\"xid\":{}", record.lsn.saturating_sub(txn.index)).expect("memory");
        if txn.last {
            out.extend_from_slice(b",\"commit\":true");
        } else {
            write!(out, ",\"xoffset\":{}", txn.index).expect("memory");
        }
    }
    if let Some(row) = record.row() {
        put_cells(out, "data", record.cells(row));
    }
    if record.op == Op::Update {
        put_cells(out, "old", record.changed());
    }
    out.push(b'}');
    true
}

/// Appends Maxwell's key for Kafka: `{"database":"d","table":"t","pk.id":4}`.
pub fn put_key(out: &mut Vec<u8>, record: &Record<'_>) {
    put_names(out, record);
    if let Some(row) = record.row() {
        for (column, value) in record.key_cells(row) {
            out.push(b',');
            put_string(out, &format!("pk.{}", column.name));
            out.push(b':');
            put_cell(out, column, value);
        }
    }
    out.push(b'}');
}

fn put_names(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"{\"database\":");
    put_string(out, &record.table.name.db);
    out.extend_from_slice(b",\"table\":");
    put_string(out, &record.table.name.table);
}

fn put_cells<'a, 'r>(out: &mut Vec<u8>, name: &str, cells: impl Iterator<Item = (&'r Column, ValueRef<'a>)>) {
    write!(out, ",\"{name}\":{{").expect("memory");
    let mut first = true;
    for (column, value) in cells {
        comma(out, &mut first);
        put_string(out, &column.name);
        out.push(b':');
        put_cell(out, column, value);
    }
    out.push(b'}');
}

fn put_cell(out: &mut Vec<u8>, column: &Column, value: ValueRef<'_>) {
    match (value, &column.ty) {
        (ValueRef::Decimal(text), _) => out.extend_from_slice(text.as_bytes()),
        (ValueRef::Timestamp(micros), ColumnType::Timestamp { fsp }) => {
            put_string(out, &format_datetime(timestamp_to_datetime(micros), *fsp));
        }
        (ValueRef::Geometry(stored), _) => {
            put_string(out, &BASE64.encode(stored.get(4..).unwrap_or_default()));
        }
        (value, _) => put_value(out, value, column),
    }
}
