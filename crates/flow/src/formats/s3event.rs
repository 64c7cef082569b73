//! Bucket notifications, as object stores send them: a row is an object, its key the object's name.
//!
//! ```text
//! bucket     the source's name
//! key        db/table/KEY, escaped as in a URL; several columns of a key with `/` between
//! eventName  ObjectCreated:Put, or ObjectRemoved:Delete
//! size, eTag of the row as JSON, which is not in the event
//! sequencer  epoch and lsn as 24 hexadecimal digits: greater for what came later
//! ```
//! A row that gets another key is two records. A table without a key has no names for its rows, and a statement or a truncation is
//! no event of an object: these make none.

use super::{Record, comma};
use base::Op;
use base::json::{put_string, put_value};
use base::value::format_timestamp;
use std::io::Write;

/// Who these events are of, where a bucket's have `aws:s3`.
const EVENT_SOURCE: &str = "tidemill:rows";

/// Appends the whole event of a change; false, and nothing, where it is none.
pub fn put(out: &mut Vec<u8>, source: &str, record: &Record<'_>) -> bool {
    let before = out.len();
    out.extend_from_slice(BODY.0);
    if !put_records(out, source, record) {
        out.truncate(before);
        return false;
    }
    out.extend_from_slice(BODY.1);
    true
}

/// What stands before and behind the records of an event.
pub const BODY: (&[u8], &[u8]) = (b"{\"Records\":[", b"]}");

/// Appends the records of a change, with commas between.
pub fn put_records(out: &mut Vec<u8>, source: &str, record: &Record<'_>) -> bool {
    if record.table.key.is_empty() || matches!(record.op, Op::Ddl | Op::Truncate) {
        return false;
    }
    let name = |image| {
        let mut name = format!("{}/{}", escaped(&record.table.name.db), escaped(&record.table.name.table));
        for (column, value) in record.key_cells(image) {
            let mut text = Vec::new();
            put_value(&mut text, value, column);
            let text = String::from_utf8_lossy(&text);
            name.push('/');
            name.push_str(&escaped(text.trim_matches('"')));
        }
        name
    };
    let (old, new) = (record.before.as_ref().map(name), record.after.as_ref().map(name));
    match (old, new, &record.after) {
        (old, Some(new), Some(row)) => {
            if let Some(old) = old.filter(|old| *old != new) {
                put_record(out, source, record, &old, None);
                out.push(b',');
            }
            let mut body = Vec::new();
            let mut first = true;
            body.push(b'{');
            for (column, value) in record.cells(row) {
                comma(&mut body, &mut first);
                put_string(&mut body, &column.name);
                body.push(b':');
                put_value(&mut body, value, column);
            }
            body.push(b'}');
            put_record(out, source, record, &new, Some(&body));
        }
        (Some(old), ..) => put_record(out, source, record, &old, None),
        _ => return false,
    }
    true
}

fn put_record(out: &mut Vec<u8>, source: &str, record: &Record<'_>, key: &str, row: Option<&[u8]>) {
    let time = format_timestamp(record.ts_ms.saturating_mul(1000), 3);
    let event = if row.is_some() { "ObjectCreated:Put" } else { "ObjectRemoved:Delete" };
    write!(
        out,
        "{{\"eventVersion\":\"2.1\",\"eventSource\":\"{EVENT_SOURCE}\",\"awsRegion\":\"\",\"eventTime\":\"{time}\",\
         \"eventName\":\"{event}\",\"userIdentity\":{{\"principalId\":\"tidemill\"}},\
         \"requestParameters\":{{\"sourceIPAddress\":\"\"}},\"responseElements\":{{\"x-amz-request-id\":"
    )
    .expect("memory");
    put_string(out, record.txn.map_or("", |txn| &txn.id));
    out.extend_from_slice(
        b"},\"s3\":{\"s3SchemaVersion\":\"1.0\",\"configurationId\":\"tidemill\",\"bucket\":{\"name\":",
    );
    put_string(out, source);
    out.extend_from_slice(b",\"ownerIdentity\":{\"principalId\":\"tidemill\"},\"arn\":");
    put_string(out, &format!("arn:aws:s3:::{source}"));
    out.extend_from_slice(b"},\"object\":{\"key\":");
    put_string(out, key);
    if let Some(row) = row {
        write!(out, ",\"size\":{},\"eTag\":\"{:08x}\"", row.len(), crc32c::crc32c(row)).expect("memory");
    }
    let (epoch, lsn) = (record.epoch, record.lsn);
    write!(out, ",\"versionId\":\"{epoch}.{lsn}\",\"sequencer\":\"{epoch:08X}{lsn:016X}\"}}}}}}")
        .expect("memory");
}

/// As the key of an object in an event: escaped as in a URL's query, where a space is `+`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
