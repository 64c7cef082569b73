//! Our change format over changes that left the transforms: what sinks keep as text.

use crate::deliver::sink::OutChange;
use crate::formats::{Record, json};
use base::json::{put_string, put_value};
use base::{Table, Value};

/// The row's key as an object; `null` for a table without one.
pub fn put_key(out: &mut Vec<u8>, change: &OutChange) {
    json::put_key(out, &Record::of_out(change));
}

/// A row as an object.
pub fn put_row(out: &mut Vec<u8>, table: &Table, row: &[Value]) {
    out.push(b'{');
    for (index, (column, value)) in table.columns.iter().zip(row).enumerate() {
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
    let mut out = Vec::new();
    put_row(&mut out, &change.table, row?);
    String::from_utf8(out).ok()
}

/// The key as text; `None` for a table without one.
pub fn key_text(change: &OutChange) -> Option<String> {
    let mut out = Vec::new();
    put_key(&mut out, change);
    String::from_utf8(out).ok().filter(|text| text != "null")
}

/// In place of a row that is larger than a sink takes: `bytes` is its size, and `ref` the HTTP path that answers it whole.
pub fn reference(source: &str, change: &OutChange, bytes: usize) -> Vec<u8> {
    let key = key_text(change).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    serde_json::json!({
        "source": source, "epoch": change.epoch, "lsn": change.lsn, "op": change.op.name(),
        "db": change.table.name.db, "table": change.table.name.table, "key": key, "bytes": bytes,
        "ref": format!("/api/v1/changes/{source}/{}", change.lsn),
    })
    .to_string()
    .into_bytes()
}
