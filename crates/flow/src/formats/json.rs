//! Our own format; `base::json::put_change` prints the same.

use super::{Record, comma};
use base::json::{put_string, put_value};
use base::{Column, ValueRef};
use std::io::Write;

/// Appends one change as a JSON object.
pub fn put(out: &mut Vec<u8>, source: &str, record: &Record<'_>) {
    out.extend_from_slice(b"{\"source\":");
    put_string(out, source);
    let (epoch, lsn, op) = (record.epoch, record.lsn, record.op.name());
    write!(out, ",\"epoch\":{epoch},\"lsn\":{lsn},\"op\":\"{op}\",\"db\":").expect("memory");
    put_string(out, &record.table.name.db);
    out.extend_from_slice(b",\"table\":");
    put_string(out, &record.table.name.table);
    write!(out, ",\"schema_version\":{},\"ts_ms\":{},\"txn\":", record.table.version, record.ts_ms)
        .expect("memory");
    match record.txn {
        Some(txn) => {
            out.extend_from_slice(b"{\"id\":");
            put_string(out, &txn.id);
            write!(out, ",\"index\":{},\"last\":{}}}", txn.index, txn.last).expect("memory");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"key\":");
    put_key(out, record);
    for (name, row) in [("before", &record.before), ("after", &record.after)] {
        write!(out, ",\"{name}\":").expect("memory");
        match row {
            Some(row) => put_cells(out, record.cells(row)),
            None => out.extend_from_slice(b"null"),
        }
    }
    if let Some(ddl) = record.ddl {
        out.extend_from_slice(b",\"sql\":");
        put_string(out, &ddl.sql);
    }
    out.push(b'}');
}

/// The row's key as an object; `null` for a table without one.
pub fn put_key(out: &mut Vec<u8>, record: &Record<'_>) {
    match record.row().filter(|_| !record.table.key.is_empty()) {
        Some(row) => put_cells(out, record.key_cells(row)),
        None => out.extend_from_slice(b"null"),
    }
}

fn put_cells<'a, 'r>(out: &mut Vec<u8>, cells: impl Iterator<Item = (&'r Column, ValueRef<'a>)>) {
    out.push(b'{');
    let mut first = true;
    for (column, value) in cells {
        comma(out, &mut first);
        put_string(out, &column.name);
        out.push(b':');
        put_value(out, value, column);
    }
    out.push(b'}');
}
