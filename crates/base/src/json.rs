//! Our own change format, `json` (one object a change), and the JSON form of each value.
//!
//! Pure functions of a value and its column; the shapes are the contract of the reference page on formats.

use crate::change::{Change, Op};
use crate::row::{MalformedRow, RowView};
use crate::schema::{Column, ColumnType, Table};
use crate::value::{self, Value, ValueRef, format_double, format_float};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::Write as _;

/// Appends `text` as a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory cannot fail");
}

fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends `value` as our JSON prints it. Values that JSON has no number for (infinities) become null.
pub fn put_value(out: &mut Vec<u8>, value: ValueRef<'_>, column: &Column) {
    let fsp = match column.ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
        _ => 0,
    };
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Int(v) => write!(out, "{v}").expect("memory"),
        ValueRef::UInt(v) | ValueRef::Bit(v) => write!(out, "{v}").expect("memory"),
        ValueRef::Year(v) => write!(out, "{v}").expect("memory"),
        ValueRef::Float(v) if v.is_finite() => out.extend_from_slice(format_float(v).as_bytes()),
        ValueRef::Double(v) if v.is_finite() => out.extend_from_slice(format_double(v).as_bytes()),
        ValueRef::Float(_) | ValueRef::Double(_) => out.extend_from_slice(b"null"),
        ValueRef::Decimal(v) => put_string(out, v),
        ValueRef::Date(v) => write!(out, "\"{v}\"").expect("memory"),
        ValueRef::Time(v) => write!(out, "\"{}\"", value::format_time(v, fsp)).expect("memory"),
        ValueRef::DateTime(v) => write!(out, "\"{}\"", value::format_datetime(v, fsp)).expect("memory"),
        ValueRef::Timestamp(v) => write!(out, "\"{}\"", value::format_timestamp(v, fsp)).expect("memory"),
        ValueRef::Enum(ordinal) => put_string(out, enum_label(column, ordinal)),
        ValueRef::Set(bits) => {
            out.push(b'[');
            for (index, label) in set_labels(column, bits).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_string(out, label);
            }
            out.push(b']');
        }
        ValueRef::Text(v) => put_string(out, v),
        ValueRef::Json("") => out.extend_from_slice(b"null"),
        ValueRef::Json(v) if column.sql_type == "json" => out.extend_from_slice(v.as_bytes()),
        ValueRef::Json(v) => put_foreign_json(out, v),
        ValueRef::RawText(v) | ValueRef::Bytes(v) => put_base64(out, v),
        ValueRef::Geometry(v) => {
            let (srid, wkb) = v.split_at(v.len().min(4));
            let srid = srid.try_into().map_or(0, u32::from_le_bytes);
            write!(out, "{{\"srid\":{srid},\"wkb\":").expect("memory");
            put_base64(out, wkb);
            out.push(b'}');
        }
        ValueRef::Vector(v) => {
            out.push(b'[');
            for (index, chunk) in v.chunks_exact(4).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                let number = f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                out.extend_from_slice(format_float(number).as_bytes());
            }
            out.push(b']');
        }
    }
}

/// MariaDB's JSON is text that a check found valid, by rules of its own, or was not asked about: what is not JSON
/// becomes a string, and line breaks between values become spaces, so that a change stays one line.
fn put_foreign_json(out: &mut Vec<u8>, text: &str) {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return put_string(out, text);
    }
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
}

/// The label of an ENUM ordinal; empty for 0, MySQL's "invalid value".
pub fn enum_label(column: &Column, ordinal: u16) -> &str {
    match &column.ty {
        ColumnType::Enum { labels } if ordinal > 0 => {
            labels.get(usize::from(ordinal) - 1).map_or("", String::as_str)
        }
        _ => "",
    }
}

/// The labels of a SET's members, in declaration order.
pub fn set_labels(column: &Column, bits: u64) -> impl Iterator<Item = &str> {
    let labels: &[String] = match &column.ty {
        ColumnType::Set { labels } => labels,
        _ => &[],
    };
    labels.iter().take(64).enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, l)| l.as_str())
}

/// Appends a row as an object; absent columns are left out.
pub fn put_row(out: &mut Vec<u8>, row: RowView<'_>, table: &Table) -> Result<(), MalformedRow> {
    out.push(b'{');
    let mut first = true;
    for (column, value) in table.columns.iter().zip(row.iter()) {
        if let Some(value) = value? {
            put_member(out, &mut first, value, column);
        }
    }
    out.push(b'}');
    Ok(())
}

fn put_member(out: &mut Vec<u8>, first: &mut bool, value: ValueRef<'_>, column: &Column) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    put_string(out, &column.name);
    out.push(b':');
    put_value(out, value, column);
}

/// Appends the key columns of a row as an object, `null` for a table without a key.
pub fn put_key(out: &mut Vec<u8>, row: Option<RowView<'_>>, table: &Table) -> Result<(), MalformedRow> {
    let Some(row) = row.filter(|_| !table.key.is_empty()) else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    out.push(b'{');
    let mut first = true;
    for &index in &table.key {
        if let Some(value) = row.get(index)? {
            put_member(out, &mut first, value, &table.columns[index]);
        }
    }
    out.push(b'}');
    Ok(())
}

/// Appends a whole change in our format, without a newline.
pub fn put_change(out: &mut Vec<u8>, source: &str, change: &Change<'_>) -> Result<(), MalformedRow> {
    out.extend_from_slice(b"{\"source\":");
    put_string(out, source);
    let op = change.op.name();
    write!(out, ",\"epoch\":{},\"lsn\":{},\"op\":\"{op}\",\"db\":", change.epoch, change.lsn)
        .expect("memory");
    put_string(out, &change.table.name.db);
    out.extend_from_slice(b",\"table\":");
    put_string(out, &change.table.name.table);
    write!(out, ",\"schema_version\":{},\"ts_ms\":{}", change.table.version, change.ts_ms).expect("memory");
    out.extend_from_slice(b",\"txn\":");
    match &change.txn {
        Some(txn) => {
            out.extend_from_slice(b"{\"id\":");
            put_string(out, &txn.id);
            write!(out, ",\"index\":{},\"last\":{}}}", txn.index, txn.last).expect("memory");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"key\":");
    put_key(out, change.after.or(change.before), &change.table)?;
    for (name, row) in [("before", change.before), ("after", change.after)] {
        write!(out, ",\"{name}\":").expect("memory");
        match row {
            Some(row) => put_row(out, row, &change.table)?,
            None => out.extend_from_slice(b"null"),
        }
    }
    if matches!(change.op, Op::Ddl) {
        out.extend_from_slice(b",\"sql\":");
        put_string(out, change.ddl.as_ref().map_or("", |ddl| &ddl.sql));
    }
    out.push(b'}');
    Ok(())
}

/// The JSON text of one owned value.
pub fn value_text(value: &Value, column: &Column) -> String {
    let mut out = Vec::new();
    put_value(&mut out, value.as_ref(), column);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Txn;
    use crate::row::RowBuf;
    use crate::schema::{Generated, TableName};
    use std::sync::Arc;

    fn column(name: &str, ty: ColumnType) -> Column {
        Column {
            name: name.into(),
            ty,
            sql_type: String::new(),
            nullable: true,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        }
    }

    #[test]
    fn a_change_prints_in_the_published_shape() {
        let labels = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let table = Arc::new(Table {
            id: 1,
            version: 2,
            name: TableName::new("shop", "orders"),
            columns: vec![
                column("id", ColumnType::BigInt { unsigned: true }),
                column("state", ColumnType::Enum { labels: labels.clone() }),
                column("tags", ColumnType::Set { labels }),
                column("at", ColumnType::Timestamp { fsp: 3 }),
                column("place", ColumnType::Geometry),
                column("doc", ColumnType::Json),
            ],
            key: vec![0],
            unique_keys: vec![],
        });
        let row = RowBuf::from_values([
            ValueRef::UInt(u64::MAX),
            ValueRef::Enum(2),
            ValueRef::Set(0b101),
            ValueRef::Timestamp(1_767_323_045_120_000),
            ValueRef::Geometry(&[1, 0, 0, 0, 9]),
            ValueRef::Json("{\"k\": [1, 2]}"),
        ]);
        let change = Change {
            epoch: 1,
            lsn: 7,
            op: Op::Insert,
            table,
            ts_ms: 5,
            txn: Some(Txn { id: "u:1".into(), index: 0, last: true }),
            before: None,
            after: Some(row.view()),
            ddl: None,
        };
        let mut out = Vec::new();
        put_change(&mut out, "shop", &change).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"source\":\"shop\",\"epoch\":1,\"lsn\":7,\"op\":\"insert\",\"db\":\"shop\",\"table\":\"orders\",\
             \"schema_version\":2,\"ts_ms\":5,\"txn\":{\"id\":\"u:1\",\"index\":0,\"last\":true},\
             \"key\":{\"id\":18446744073709551615},\"before\":null,\"after\":{\"id\":18446744073709551615,\
             \"state\":\"b\",\"tags\":[\"a\",\"c\"],\"at\":\"2026-01-02T03:04:05.120Z\",\
             \"place\":{\"srid\":1,\"wkb\":\"CQ==\"},\"doc\":{\"k\": [1, 2]}}}"
        );
    }
}
