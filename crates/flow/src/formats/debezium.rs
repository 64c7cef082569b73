//! Debezium's envelope for MySQL, as its 3.6 prints it with default settings and `include.schema.changes=false`; held
//! against records of the real connector by `crates/tidemill/tests/pipelines/formats.rs`.
//!
//! What a change does not know is the same for all: `file`, `pos` and `server_id` where there is a GTID, `thread`, the
//! index of a row within its event (`row` counts within the transaction), and the time of processing (the time of
//! the commit stands for it).

use super::debezium_schema::{self as schema, Kind};
use super::record::{EventPlace, Image};
use super::{Message, Record, comma, topic};
use base::json::{enum_label, put_string, set_labels};
use base::value::{days_of_date, format_timestamp};
use base::{Column, ColumnType, Date, DateTime, Op, ValueRef, value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use num_bigint::BigInt;
use std::io::Write;

/// What `source.version` says.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
const MICROS: i64 = 1_000_000;

/// One message of a change: the row whose key it has, and what it says; one that says nothing is a tombstone.
pub(super) struct Part<'r, 'a> {
    pub key: Option<&'r Image<'a>>,
    pub envelope: Option<Envelope<'r, 'a>>,
}

/// What a message says of a row.
pub(super) struct Envelope<'r, 'a> {
    pub op: &'static str,
    pub before: Option<&'r Image<'a>>,
    pub after: Option<&'r Image<'a>>,
}

/// The messages of a change. A change of a key is a delete, a tombstone and an insert. DDL has no message.
pub(super) fn parts<'r, 'a>(record: &'r Record<'a>) -> Vec<Part<'r, 'a>> {
    let (before, after) = (record.before.as_ref(), record.after.as_ref());
    let says = |op, before, after| Some(Envelope { op, before, after });
    let part = |key, envelope| Part { key, envelope };
    match record.op {
        Op::Read => vec![part(after, says("r", None, after))],
        Op::Insert => vec![part(after, says("c", None, after))],
        Op::Update if key_changed(record) => vec![
            part(before, says("d", before, None)),
            part(before, None),
            part(after, says("c", None, after)),
        ],
        Op::Update => vec![part(after, says("u", before, after))],
        Op::Delete => vec![part(before, says("d", before, None)), part(before, None)],
        Op::Truncate => vec![part(None, says("t", None, None))],
        Op::Ddl => vec![],
    }
}

pub fn messages(source: &str, record: &Record<'_>, schemas: bool) -> Vec<Message> {
    let topic = topic(source, record);
    let mut events = 0;
    let message = |part: Part<'_, '_>| Message {
        topic: topic.clone(),
        key: part.key.and_then(|row| key_of(&topic, record, row, schemas)),
        value: part.envelope.map(|envelope| {
            let place = record.place.map(|first| first.behind(events));
            events += 1;
            value_of(source, &topic, record, &envelope, place, schemas)
        }),
    };
    parts(record).into_iter().map(message).collect()
}

fn key_changed(record: &Record<'_>) -> bool {
    let rows = record.before.as_ref().zip(record.after.as_ref());
    rows.is_some_and(|(before, after)| !record.key_cells(before).eq(record.key_cells(after)))
}

fn key_of(topic: &str, record: &Record<'_>, row: &Image<'_>, schemas: bool) -> Option<Vec<u8>> {
    if record.table.key.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    if schemas {
        out.extend_from_slice(b"{\"schema\":");
        schema::put_key(&mut out, topic, record.table);
        out.extend_from_slice(b",\"payload\":");
    }
    put_cells(&mut out, record, record.key_cells(row));
    if schemas {
        out.push(b'}');
    }
    Some(out)
}

fn value_of(
    source: &str,
    topic: &str,
    record: &Record<'_>,
    envelope: &Envelope<'_, '_>,
    place: Option<EventPlace>,
    schemas: bool,
) -> Vec<u8> {
    let Envelope { op, before, after } = envelope;
    let mut out = Vec::new();
    if schemas {
        out.extend_from_slice(b"{\"schema\":");
        schema::put_envelope(&mut out, topic, record.table);
        out.extend_from_slice(b",\"payload\":");
    }
    for (name, row) in [("{\"before\":", before), (",\"after\":", after)] {
        out.extend_from_slice(name.as_bytes());
        match row {
            Some(row) => put_cells(&mut out, record, record.cells(row)),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b",\"source\":");
    put_source(&mut out, source, record);
    out.extend_from_slice(b",\"transaction\":");
    match record.txn.zip(place) {
        Some((txn, EventPlace { total_order, data_collection_order })) => {
            out.extend_from_slice(b"{\"id\":");
            put_string(&mut out, &txn.id);
            write!(out, ",\"total_order\":{total_order},\"data_collection_order\":{data_collection_order}}}")
                .expect("memory");
        }
        None => out.extend_from_slice(b"null"),
    }
    write!(out, ",\"op\":\"{op}\"").expect("memory");
    let ms = record.ts_ms;
    let (us, ns) = finer(ms);
    write!(out, ",\"ts_ms\":{ms},\"ts_us\":{us},\"ts_ns\":{ns}}}").expect("memory");
    if schemas {
        out.push(b'}');
    }
    out
}

/// A time in microseconds and in nanoseconds.
pub(super) fn finer(ms: i64) -> (i128, i128) {
    (i128::from(ms) * 1000, i128::from(ms) * 1_000_000)
}

/// Where a change comes from, as far as a change knows it.
pub(super) struct Origin<'r> {
    pub gtid: Option<&'r str>,
    pub file: &'r str,
    pub offset: u64,
    /// The place among the transaction's changes.
    pub row: u64,
    pub snapshot: bool,
}

pub(super) fn origin<'r>(record: &'r Record<'_>) -> Origin<'r> {
    // Where there is no GTID, the transaction goes by `file:position`, and a file's name has a dot.
    let id = record.txn.map_or("", |txn| &txn.id);
    let place = id.rsplit_once(':').filter(|(file, _)| file.contains('.'));
    let place = place.and_then(|(file, offset)| Some((file, offset.parse::<u64>().ok()?)));
    let gtid = (place.is_none() && !id.is_empty()).then_some(id);
    let (file, offset) = place.unwrap_or_default();
    let row = record.txn.map_or(0, |txn| txn.index);
    Origin { gtid, file, offset, row, snapshot: record.op == Op::Read }
}

fn put_source(out: &mut Vec<u8>, source: &str, record: &Record<'_>) {
    let Origin { gtid, file, offset, row, snapshot } = origin(record);
    let ms = record.ts_ms;
    write!(out, "{{\"version\":\"{VERSION}\",\"connector\":\"mysql\",\"name\":").expect("memory");
    put_string(out, source);
    write!(out, ",\"ts_ms\":{ms},\"snapshot\":\"{snapshot}\",\"db\":").expect("memory");
    put_string(out, &record.table.name.db);
    let (us, ns) = finer(ms);
    write!(out, ",\"sequence\":null,\"ts_us\":{us},\"ts_ns\":{ns},\"table\":").expect("memory");
    put_string(out, &record.table.name.table);
    out.extend_from_slice(b",\"server_id\":0,\"gtid\":");
    match gtid {
        Some(gtid) => put_string(out, gtid),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"file\":");
    put_string(out, file);
    write!(out, ",\"pos\":{offset},\"row\":{row},\"thread\":null,\"query\":null}}").expect("memory");
}

fn put_cells<'r, 'a>(
    out: &mut Vec<u8>,
    record: &Record<'_>,
    cells: impl Iterator<Item = (&'r Column, ValueRef<'a>)>,
) {
    out.push(b'{');
    let mut first = true;
    for (column, value) in cells {
        comma(out, &mut first);
        put_string(out, &column.name);
        out.push(b':');
        put_cell(out, column, value, record.op == Op::Read);
    }
    out.push(b'}');
}

/// A snapshot reads text where the stream reads the binlog, and Debezium shows it: in TIMESTAMP and JSON.
fn put_cell(out: &mut Vec<u8>, column: &Column, value: ValueRef<'_>, snapshot: bool) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Int(v) => put_int(out, v),
        // Java has no unsigned long: the upper half wraps.
        ValueRef::UInt(v) => put_int(out, v as i64),
        ValueRef::Year(v) => put_int(out, v.into()),
        ValueRef::Bit(v) => put_bits(out, column, v),
        ValueRef::Float(v) if schema::kind(column) == Kind::Double => put_double(out, f64::from(v)),
        ValueRef::Float(v) => put_float(out, v),
        ValueRef::Double(v) => put_double(out, v),
        ValueRef::Decimal(v) => put_bytes(out, &unscaled(v)),
        ValueRef::Date(v) => put_or_zero(out, column, days_of(v)),
        ValueRef::Time(v) => put_int(out, v),
        ValueRef::DateTime(v) => put_or_zero(out, column, datetime(column, v)),
        ValueRef::Timestamp(v) => put_timestamp(out, column, v, snapshot),
        ValueRef::Enum(v) => put_string(out, enum_label(column, v)),
        ValueRef::Set(v) => put_string(out, &set_labels(column, v).collect::<Vec<_>>().join(",")),
        ValueRef::Text(v) => put_string(out, v),
        ValueRef::RawText(v) => put_string(out, &String::from_utf8_lossy(v)),
        ValueRef::Bytes(v) => put_bytes(out, v),
        ValueRef::Json(v) if snapshot => put_string(out, v),
        ValueRef::Json(v) => put_string(out, &without_spaces(v)),
        ValueRef::Geometry(v) => put_geometry(out, column, v),
        ValueRef::Vector(v) => {
            out.push(b'[');
            let mut first = true;
            for number in v.chunks_exact(4) {
                comma(out, &mut first);
                put_float(out, f32::from_le_bytes([number[0], number[1], number[2], number[3]]));
            }
            out.push(b']');
        }
    }
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    write!(out, "{value}").expect("memory");
}

/// With a fraction always, as a reader that tells floats from integers needs.
fn put_float(out: &mut Vec<u8>, value: f32) {
    serde_json::to_writer(out, &value).expect("memory");
}

fn put_double(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("memory");
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}

fn put_bits(out: &mut Vec<u8>, column: &Column, value: u64) {
    match column.ty {
        ColumnType::Bit { bits: 1 } => write!(out, "{}", value != 0).expect("memory"),
        ColumnType::Bit { bits } => put_bytes(out, &value.to_le_bytes()[..bytes_of_bits(bits)]),
        _ => put_int(out, value as i64),
    }
}

pub(super) fn bytes_of_bits(bits: u8) -> usize {
    usize::from(bits).div_ceil(8).min(8)
}

/// The unscaled number in two's complement, big end first, as short as it goes.
pub(super) fn unscaled(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'.').collect();
    BigInt::parse_bytes(&digits, 10).unwrap_or_default().to_signed_bytes_be()
}

/// A day that no calendar has is NULL, or 1970-01-01 where the column cannot be NULL.
fn put_or_zero(out: &mut Vec<u8>, column: &Column, value: Option<i64>) {
    match value {
        None if column.nullable => out.extend_from_slice(b"null"),
        value => put_int(out, value.unwrap_or(0)),
    }
}

pub(super) fn days_of(date: Date) -> Option<i64> {
    let days = days_of_date(date);
    (value::date_of_days(days) == date && date.month > 0).then_some(days)
}

/// Milliseconds up to three fraction digits, else microseconds.
pub(super) fn datetime(column: &Column, value: DateTime) -> Option<i64> {
    let days = days_of(value.date)?;
    let seconds = i64::from(value.hour) * 3600 + i64::from(value.minute) * 60 + i64::from(value.second);
    let micros = (days * 86_400 + seconds) * MICROS + i64::from(value.micro);
    Some(match column.ty {
        ColumnType::DateTime { fsp: 4.. } => micros,
        _ => micros.div_euclid(1000),
    })
}

/// The zero timestamp of a column that cannot be NULL.
pub(super) const TIMESTAMP_NONE: &str = "1970-01-01T00:00:00Z";

/// `None` is the zero timestamp.
pub(super) fn timestamp(column: &Column, micros: i64, snapshot: bool) -> Option<String> {
    let fsp = if let ColumnType::Timestamp { fsp } = column.ty { fsp } else { 0 };
    if micros == value::TIMESTAMP_ZERO {
        return None;
    }
    let text = format_timestamp(micros, fsp);
    if snapshot && fsp > 0 {
        let short = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        return Some(format!("{short}Z"));
    }
    Some(text)
}

fn put_timestamp(out: &mut Vec<u8>, column: &Column, micros: i64, snapshot: bool) {
    match timestamp(column, micros, snapshot) {
        Some(text) => put_string(out, &text),
        None if column.nullable => out.extend_from_slice(b"null"),
        None => put_string(out, TIMESTAMP_NONE),
    }
}

/// The SRID, and the WKB behind it.
pub(super) fn geometry(stored: &[u8]) -> (u32, &[u8]) {
    let (srid, wkb) = stored.split_at(stored.len().min(4));
    (srid.try_into().map_or(0, u32::from_le_bytes), wkb)
}

/// The coordinates of a point: order of bytes, type, and the two of them.
pub(super) fn point(wkb: &[u8]) -> (f64, f64) {
    let number = |at: usize| {
        let bytes: [u8; 8] = wkb.get(at..at + 8).and_then(|b| b.try_into().ok()).unwrap_or_default();
        f64::from_le_bytes(bytes)
    };
    (number(5), number(13))
}

fn put_geometry(out: &mut Vec<u8>, column: &Column, stored: &[u8]) {
    let (srid, wkb) = geometry(stored);
    out.push(b'{');
    if schema::kind(column) == Kind::Point {
        let (x, y) = point(wkb);
        for (name, number) in [("x", x), ("y", y)] {
            write!(out, "\"{name}\":").expect("memory");
            put_double(out, number);
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"wkb\":");
    put_bytes(out, wkb);
    match srid {
        0 => out.extend_from_slice(b",\"srid\":null}"),
        srid => write!(out, ",\"srid\":{srid}}}").expect("memory"),
    }
}

/// JSON without the spaces that MySQL prints after `,` and `:`.
pub(super) fn without_spaces(json: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if c == ' ' && !quoted {
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}
