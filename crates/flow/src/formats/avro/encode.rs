//! Changes in Avro's binary encoding, by the schemas of their table: a column's type decides how its value is written, and a
//! value that is not of its column's type is refused, never written as something else.

use super::{Ids, put_head};
use crate::formats::debezium::{
    Envelope, TIMESTAMP_NONE, VERSION, bytes_of_bits, datetime, days_of, finer, geometry, origin, parts,
    point, timestamp, unscaled, without_spaces,
};
use crate::formats::debezium_schema::{Kind, kind};
use crate::formats::record::Image;
use crate::formats::{Message, Record, topic};
use base::json::{enum_label, set_labels};
use base::varint::put_i64;
use base::{Column, ColumnType, Op, ValueRef};

/// The messages of a change. `Err` says why its table's schemas have no room for it.
pub fn messages(source: &str, record: &Record<'_>, ids: Ids) -> Result<Vec<Message>, String> {
    let topic = topic(source, record);
    let mut out = Vec::with_capacity(1);
    for part in parts(record) {
        let key = match (ids.key, part.key) {
            (Some(id), Some(row)) => Some(key_of(record, row, id)?),
            _ => None,
        };
        let value =
            part.envelope.map(|envelope| value_of(source, record, &envelope, ids.value)).transpose()?;
        out.push(Message { topic: topic.clone(), key, value });
    }
    Ok(out)
}

fn key_of(record: &Record<'_>, row: &Image<'_>, id: u32) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    put_head(&mut out, id);
    for index in &record.table.key {
        put_column(&mut out, record, row, *index)?;
    }
    Ok(out)
}

fn value_of(
    source: &str,
    record: &Record<'_>,
    envelope: &Envelope<'_, '_>,
    id: u32,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    put_head(&mut out, id);
    // An old row that is not there whole is not told: a NULL in its place would be a lie.
    let before = envelope.before.filter(|row| row.iter().all(Option::is_some));
    for row in [before, envelope.after] {
        put_branch(&mut out, row.is_some());
        for index in row.iter().flat_map(|row| 0..row.len()) {
            if let Some(row) = row {
                put_column(&mut out, record, row, index)?;
            }
        }
    }
    put_source(&mut out, source, record);
    put_branch(&mut out, false);
    put_text(&mut out, envelope.op);
    let (us, ns) = finer(record.ts_ms);
    for time in [i128::from(record.ts_ms), us, ns] {
        put_branch(&mut out, true);
        put_i64(&mut out, long(time));
    }
    Ok(out)
}

fn put_source(out: &mut Vec<u8>, source: &str, record: &Record<'_>) {
    let origin = origin(record);
    for text in [VERSION, "mysql", source] {
        put_text(out, text);
    }
    put_i64(out, record.ts_ms);
    // The default's type stands first in its union.
    put_i64(out, 0);
    put_text(out, if origin.snapshot { "true" } else { "false" });
    put_text(out, &record.table.name.db);
    put_branch(out, false);
    let (us, ns) = finer(record.ts_ms);
    for time in [us, ns] {
        put_branch(out, true);
        put_i64(out, long(time));
    }
    put_branch(out, true);
    put_text(out, &record.table.name.table);
    // The server's id.
    put_i64(out, 0);
    put_branch(out, origin.gtid.is_some());
    origin.gtid.iter().for_each(|gtid| put_text(out, gtid));
    put_text(out, origin.file);
    put_i64(out, i64::try_from(origin.offset).unwrap_or(i64::MAX));
    put_i64(out, i64::from(i32::try_from(origin.row).unwrap_or(i32::MAX)));
    // Thread and query.
    put_branch(out, false);
    put_branch(out, false);
}

fn long(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Which of `["null", …]` follows.
fn put_branch(out: &mut Vec<u8>, there: bool) {
    put_i64(out, i64::from(there));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_i64(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn put_column(out: &mut Vec<u8>, record: &Record<'_>, row: &Image<'_>, index: usize) -> Result<(), String> {
    let column = &record.table.columns[index];
    let value = row.get(index).copied().flatten();
    let value = value.ok_or_else(|| format!("its row has no `{}`", column.name))?;
    let start = out.len();
    if column.nullable {
        put_branch(out, true);
    }
    match put_value(out, column, value, record.op == Op::Read) {
        Put::Written => Ok(()),
        Put::Nothing if column.nullable => {
            out.truncate(start);
            put_branch(out, false);
            Ok(())
        }
        Put::Nothing => Err(format!("its `{}` is NULL, and the column is NOT NULL", column.name)),
        Put::Misfit => Err(format!("its `{}` is no `{}`", column.name, column.sql_type)),
    }
}

enum Put {
    Written,
    /// It is NULL.
    Nothing,
    Misfit,
}

fn put_value(out: &mut Vec<u8>, column: &Column, value: ValueRef<'_>, snapshot: bool) -> Put {
    let or_zero = |value: Option<i64>| if column.nullable { value } else { Some(value.unwrap_or(0)) };
    let kind = kind(column);
    match (kind, value) {
        (_, ValueRef::Null) => return Put::Nothing,
        (Kind::Boolean, ValueRef::Bit(v)) => out.push(u8::from(v != 0)),
        (Kind::Int16 | Kind::Int32 | Kind::Int64, ValueRef::Int(_) | ValueRef::UInt(_)) => {
            let number = match value {
                ValueRef::Int(v) => i128::from(v),
                ValueRef::UInt(v) => i128::from(v),
                _ => return Put::Misfit,
            };
            // Java has no unsigned long: the upper half wraps.
            let wide = matches!(kind, Kind::Int64);
            if !wide && i32::try_from(number).is_err() {
                return Put::Misfit;
            }
            put_i64(out, number as i64);
        }
        (Kind::Float, ValueRef::Float(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (Kind::Double, ValueRef::Float(v)) => out.extend_from_slice(&f64::from(v).to_le_bytes()),
        (Kind::Double, ValueRef::Double(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (Kind::String, ValueRef::Text(v)) => put_text(out, v),
        (Kind::String, ValueRef::RawText(v)) => put_text(out, &String::from_utf8_lossy(v)),
        (Kind::Bytes, ValueRef::Bytes(v)) => put_bytes(out, v),
        (Kind::Named(..), value) => return put_named(out, column, value, snapshot, or_zero),
        (Kind::Point, ValueRef::Geometry(v)) => {
            let (srid, wkb) = geometry(v);
            let (x, y) = point(wkb);
            out.extend_from_slice(&x.to_le_bytes());
            out.extend_from_slice(&y.to_le_bytes());
            put_branch(out, true);
            put_bytes(out, wkb);
            put_srid(out, srid);
        }
        (Kind::Geometry, ValueRef::Geometry(v)) => {
            let (srid, wkb) = geometry(v);
            put_bytes(out, wkb);
            put_srid(out, srid);
        }
        (Kind::Vector, ValueRef::Vector(v)) => {
            let (numbers, _) = v.as_chunks::<4>();
            // One block, and the end. A number lies there as Avro has it.
            if !numbers.is_empty() {
                put_i64(out, numbers.len() as i64);
                out.extend(numbers.as_flattened());
            }
            put_i64(out, 0);
        }
        _ => return Put::Misfit,
    }
    Put::Written
}

fn put_srid(out: &mut Vec<u8>, srid: u32) {
    put_branch(out, srid != 0);
    if srid != 0 {
        put_i64(out, i64::from(srid as i32));
    }
}

fn put_named(
    out: &mut Vec<u8>,
    column: &Column,
    value: ValueRef<'_>,
    snapshot: bool,
    or_zero: impl Fn(Option<i64>) -> Option<i64>,
) -> Put {
    let mut number = |value: Option<i64>| match or_zero(value) {
        None => Put::Nothing,
        Some(number) => {
            put_i64(out, number);
            Put::Written
        }
    };
    match (&column.ty, value) {
        (ColumnType::Year, ValueRef::Year(v)) => return number(Some(v.into())),
        (ColumnType::Date, ValueRef::Date(v)) => return number(days_of(v)),
        (ColumnType::Time { .. }, ValueRef::Time(v)) => return number(Some(v)),
        (ColumnType::DateTime { .. }, ValueRef::DateTime(v)) => return number(datetime(column, v)),
        (ColumnType::Bit { bits }, ValueRef::Bit(v)) => {
            put_bytes(out, &v.to_le_bytes()[..bytes_of_bits(*bits)]);
        }
        (ColumnType::Decimal { scale, .. }, ValueRef::Decimal(v)) => {
            let fraction = v.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            let Some(missing) = usize::from(*scale).checked_sub(fraction) else { return Put::Misfit };
            put_bytes(out, &unscaled(&format!("{v}{}", "0".repeat(missing))));
        }
        (ColumnType::Timestamp { .. }, ValueRef::Timestamp(v)) => match timestamp(column, v, snapshot) {
            Some(text) => put_text(out, &text),
            None if column.nullable => return Put::Nothing,
            None => put_text(out, TIMESTAMP_NONE),
        },
        (ColumnType::Enum { .. }, ValueRef::Enum(v)) => put_text(out, enum_label(column, v)),
        (ColumnType::Set { .. }, ValueRef::Set(v)) => {
            put_text(out, &set_labels(column, v).collect::<Vec<_>>().join(","));
        }
        (ColumnType::Json, ValueRef::Json(v)) if snapshot => put_text(out, v),
        (ColumnType::Json, ValueRef::Json(v)) => put_text(out, &without_spaces(v)),
        // What a rule made of a label, or of a document.
        (ColumnType::Enum { .. } | ColumnType::Set { .. } | ColumnType::Json, ValueRef::Text(v)) => {
            put_text(out, v);
        }
        _ => return Put::Misfit,
    }
    Put::Written
}
