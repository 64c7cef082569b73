//! The snapshot side: what to select for a column, and the selected value in the stream's encoding.

use crate::Flavor;
use crate::charset::{self, Charset};
use base::{Column, ColumnType, Date, DateTime, RowWriter, ValueRef, value};
use mysql_common::Value;

/// A selected value that does not fit its column's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` returned a value that is not a {expected}")]
pub struct BadValue {
    pub column: String,
    pub expected: String,
}

/// The expression that selects `column` so that [`put_selected`] can encode it.
///
/// Labels come as ordinals. JSON is sent in utf8mb4 whatever `character_set_results` says, and BIT as its bytes.
pub fn select_expression(column: &Column, flavor: Flavor) -> String {
    let name = format!("`{}`", column.name.replace('`', "``"));
    match (&column.ty, flavor) {
        // Not `+ 0`, which MariaDB computes as a DOUBLE: a SET of 64 labels does not fit.
        (ColumnType::Enum { .. } | ColumnType::Set { .. }, _) => format!("({name}|0)"),
        // A FLOAT in a prepared statement's result is the stored four bytes; nothing to do in either flavour.
        _ => name,
    }
}

/// Appends one value of a binary-protocol result, selected by [`select_expression`] on a session with
/// `character_set_results = NULL` and `time_zone = '+00:00'`. The bytes equal those of the stream's image.
pub fn put_selected(
    out: &mut RowWriter<'_>,
    value: &Value,
    column: &Column,
    flavor: Flavor,
) -> Result<(), BadValue> {
    let bad = || BadValue { column: column.name.clone(), expected: column.sql_type.clone() };
    if *value == Value::NULL {
        out.put(ValueRef::Null);
        return Ok(());
    }
    let selected = match (&column.ty, value) {
        (ty, Value::Int(_) | Value::UInt(_)) => integer(ty, value).ok_or_else(bad)?,
        (ColumnType::Float, Value::Float(v)) => ValueRef::Float(*v),
        (ColumnType::Double, Value::Double(v)) => ValueRef::Double(*v),
        (ty, Value::Date(year, month, day, hour, minute, second, micro)) => {
            let date = Date { year: *year, month: *month, day: *day };
            let all = DateTime { date, hour: *hour, minute: *minute, second: *second, micro: *micro };
            match ty {
                ColumnType::Date => ValueRef::Date(date),
                ColumnType::DateTime { .. } => ValueRef::DateTime(all),
                ColumnType::Timestamp { .. } => ValueRef::Timestamp(value::datetime_to_timestamp(all)),
                _ => return Err(bad()),
            }
        }
        (ColumnType::Time { .. }, Value::Time(negative, days, hours, minutes, seconds, micros)) => {
            let parts = crate::binlog::time_of_parts(*negative, *days, *hours, *minutes, *seconds, *micros);
            ValueRef::Time(parts)
        }
        (ty, Value::Bytes(bytes)) => return put_bytes(out, bytes, ty, column, flavor).ok_or_else(bad),
        _ => return Err(bad()),
    };
    out.put(selected);
    Ok(())
}

/// Integers of any width, and the types that are selected as integers.
fn integer(ty: &ColumnType, value: &Value) -> Option<ValueRef<'static>> {
    use ColumnType as T;
    let (signed, unsigned) = match *value {
        Value::Int(v) => (Some(v), u64::try_from(v).ok()),
        Value::UInt(v) => (i64::try_from(v).ok(), Some(v)),
        _ => (None, None),
    };
    Some(match ty {
        T::TinyInt { unsigned: false }
        | T::SmallInt { unsigned: false }
        | T::MediumInt { unsigned: false }
        | T::Int { unsigned: false }
        | T::BigInt { unsigned: false } => ValueRef::Int(signed?),
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. } => {
            ValueRef::UInt(unsigned?)
        }
        T::Year => ValueRef::Year(u16::try_from(unsigned?).ok()?),
        T::Enum { .. } => ValueRef::Enum(u16::try_from(unsigned?).ok()?),
        // A SET with its 64th label comes as a negative BIGINT.
        T::Set { .. } => ValueRef::Set(unsigned.or(signed.map(|v| v as u64))?),
        T::Bit { .. } => ValueRef::Bit(unsigned?),
        _ => return None,
    })
}

fn put_bytes(
    out: &mut RowWriter<'_>,
    bytes: &[u8],
    ty: &ColumnType,
    column: &Column,
    flavor: Flavor,
) -> Option<()> {
    use ColumnType as T;
    match ty {
        T::Decimal { .. } => out.put(ValueRef::Decimal(unpadded(std::str::from_utf8(bytes).ok()?))),
        T::Bit { .. } if bytes.len() <= 8 => {
            out.put(ValueRef::Bit(bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))));
        }
        T::Text { .. } => {
            charset::put_text(out, bytes, Charset::named(column.charset.as_deref().unwrap_or("utf8mb4")))
        }
        T::Uuid | T::Inet4 | T::Inet6 => out.put(crate::binlog::text_of(bytes)),
        T::Binary { bytes: size } => put_binary(out, bytes, *size),
        T::VarBinary { .. } => out.put(ValueRef::Bytes(bytes)),
        T::Json if flavor == Flavor::MySql => out.put(ValueRef::Json(std::str::from_utf8(bytes).ok()?)),
        T::Json => put_json_text(out, bytes),
        T::Geometry => out.put(ValueRef::Geometry(bytes)),
        T::Vector { .. } => out.put(ValueRef::Vector(bytes)),
        _ => return None,
    }
    Some(())
}

/// Without the zeros that ZEROFILL puts before a decimal: they are display, not value.
fn unpadded(text: &str) -> &str {
    let whole = text.find('.').unwrap_or(text.len());
    let zeros = text.bytes().take(whole.saturating_sub(1)).take_while(|byte| *byte == b'0').count();
    &text[zeros..]
}

/// Appends BINARY(n), padded to its size with the zero bytes that the binlog cuts off.
pub(crate) fn put_binary(out: &mut RowWriter<'_>, bytes: &[u8], size: u32) {
    let size = (size as usize).max(bytes.len());
    let raw = out.raw();
    raw.push(17);
    base::varint::put_u64(raw, size as u64);
    let end = raw.len() + size;
    raw.extend_from_slice(bytes);
    raw.resize(end, 0);
}

/// Appends MariaDB's JSON, which is text; text that is not UTF-8 stays raw.
pub(crate) fn put_json_text(out: &mut RowWriter<'_>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => out.put(ValueRef::Json(text)),
        Err(_) => out.put(ValueRef::RawText(bytes)),
    }
}
