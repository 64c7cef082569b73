//! Our change format over changes that left the transforms: the same shape as `base::json::put_change`.

use crate::deliver::sink::OutChange;
use base::Value;
use base::json::{put_string, put_value};
use std::io::Write;

/// Appends one change as a JSON object, without a newline.
pub fn put_out_change(out: &mut Vec<u8>, source: &str, change: &OutChange) {
    out.extend_from_slice(b"{\"source\":");
    put_string(out, source);
    let (epoch, lsn, op) = (change.epoch, change.lsn, change.op.name());
    write!(out, ",\"epoch\":{epoch},\"lsn\":{lsn},\"op\":\"{op}\",\"db\":").expect("memory");
    put_string(out, &change.table.name.db);
    out.extend_from_slice(b",\"table\":");
    put_string(out, &change.table.name.table);
    write!(out, ",\"schema_version\":{},\"ts_ms\":{},\"txn\":", change.table.version, change.ts_ms)
        .expect("memory");
    match &change.txn {
        Some(txn) => {
            out.extend_from_slice(b"{\"id\":");
            put_string(out, &txn.id);
            write!(out, ",\"index\":{},\"last\":{}}}", txn.index, txn.last).expect("memory");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"key\":");
    put_key(out, change);
    for (name, row) in [("before", &change.before), ("after", &change.after)] {
        write!(out, ",\"{name}\":").expect("memory");
        put_row(out, change, row.as_deref());
    }
    if let Some(ddl) = &change.ddl {
        out.extend_from_slice(b",\"sql\":");
        put_string(out, &ddl.sql);
    }
    out.push(b'}');
}

/// The row's key as an object; `null` for a table without one.
pub fn put_key(out: &mut Vec<u8>, change: &OutChange) {
    let row = change.after.as_ref().or(change.before.as_ref());
    let Some(row) = row.filter(|_| !change.table.key.is_empty()) else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'{');
    for (position, index) in change.table.key.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        put_string(out, &change.table.columns[*index].name);
        out.push(b':');
        put_value(out, row[*index].as_ref(), &change.table.columns[*index]);
    }
    out.push(b'}');
}

/// A row as an object, or `null`.
pub fn put_row(out: &mut Vec<u8>, change: &OutChange, row: Option<&[Value]>) {
    let Some(row) = row else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'{');
    for (index, (column, value)) in change.table.columns.iter().zip(row).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_string(out, &column.name);
        out.push(b':');
        put_value(out, value.as_ref(), column);
    }
    out.push(b'}');
}

/// A row as text; `None` for no row.
pub fn row_text(change: &OutChange, row: Option<&[Value]>) -> Option<String> {
    row?;
    let mut out = Vec::new();
    put_row(&mut out, change, row);
    String::from_utf8(out).ok()
}

/// The key as text; `None` for a table without one.
pub fn key_text(change: &OutChange) -> Option<String> {
    let mut out = Vec::new();
    put_key(&mut out, change);
    String::from_utf8(out).ok().filter(|text| text != "null")
}
