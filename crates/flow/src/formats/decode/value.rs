//! One value from JSON, by its column: the inverse of what each format's encoder prints.

use super::cells::{Cells, Raw, is_null, string};
use super::text;
use super::types::{document_text, holds, unsigned};
use base::json::{enum_label, set_labels};
use base::value::date_of_days;
use base::{Column, ColumnType, Date, DateTime, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use num_bigint::BigInt;
use std::borrow::Cow;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// How a column's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// As our own format and Maxwell do; as Kafka Connect does what has no name of its own.
    Json,
    /// As Canal does: text, bytes one character each.
    Canal,
    /// Days since 1970.
    Days,
    /// Since midnight, or since 1970 in UTC.
    Millis,
    Micros,
    Nanos,
    /// The unscaled number in two's complement, big end first, in base64.
    Unscaled(i32),
    /// The same as an object with its scale.
    VariableScale,
    /// Little end first, in base64.
    Bits,
    /// JSON within a string.
    Document,
}

impl Wire {
    /// How Debezium's defaults write a column that no schema describes.
    pub fn debezium(ty: &ColumnType) -> Self {
        match ty {
            ColumnType::Date => Self::Days,
            ColumnType::Time { .. } => Self::Micros,
            ColumnType::DateTime { fsp: 0..=3 } => Self::Millis,
            ColumnType::DateTime { .. } => Self::Micros,
            ColumnType::Decimal { scale, .. } => Self::Unscaled(i32::from(*scale)),
            ColumnType::Bit { bits: 2.. } => Self::Bits,
            ColumnType::Json => Self::Document,
            _ => Self::Json,
        }
    }
}

/// The value; `None` when it is not one of the column's.
pub fn decode(raw: Raw<'_>, column: &Column, wire: Wire) -> Option<Value> {
    if is_null(raw) {
        return Some(Value::Null);
    }
    match wire {
        Wire::Json => plain(raw, column),
        Wire::Canal => canal(&string(raw)?, column),
        Wire::Days => temporal(raw.get().parse::<i64>().ok()?.checked_mul(MICROS_PER_DAY)?, column),
        Wire::Millis => temporal(raw.get().parse::<i64>().ok()?.checked_mul(1000)?, column),
        Wire::Micros => temporal(raw.get().parse().ok()?, column),
        Wire::Nanos => temporal(raw.get().parse::<i64>().ok()?.div_euclid(1000), column),
        Wire::Unscaled(scale) => unscaled(&base64(raw)?, scale, column),
        Wire::VariableScale => {
            let cells: Cells<'_> = serde_json::from_str(raw.get()).ok()?;
            let scale = cells.get("scale")?.get().parse().ok()?;
            unscaled(&base64(cells.get("value")?)?, scale, column)
        }
        Wire::Bits => {
            let mut bytes = base64(raw)?;
            bytes.resize(8, 0);
            bits(u64::from_le_bytes(bytes.try_into().ok()?), column)
        }
        Wire::Document => match (&column.ty, document_text(raw)) {
            (ColumnType::Json, Some(text)) => Some(Value::Json(text::spaced_json(&text))),
            _ => plain(raw, column),
        },
    }
}

fn base64(raw: Raw<'_>) -> Option<Vec<u8>> {
    BASE64.decode(string(raw)?.as_bytes()).ok()
}

/// The text of a string, or a number as it stands.
fn scalar(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    match raw.get().as_bytes().first()? {
        b'"' => string(raw),
        b't' => Some(Cow::Borrowed("1")),
        b'f' => Some(Cow::Borrowed("0")),
        b'{' | b'[' => None,
        _ => Some(Cow::Borrowed(raw.get())),
    }
}

fn plain(raw: Raw<'_>, column: &Column) -> Option<Value> {
    match &column.ty {
        ColumnType::Text { .. } | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            Some(Value::Text(string(raw).map_or_else(|| raw.get().to_owned(), Cow::into_owned)))
        }
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => base64(raw).map(Value::Bytes),
        ColumnType::Json => Some(Value::Json(text::spaced_json(raw.get()))),
        ColumnType::Set { labels } if raw.get().starts_with('[') => {
            let members: Vec<Cow<'_, str>> = serde_json::from_str(raw.get()).ok()?;
            set(&members, labels)
        }
        ColumnType::Geometry => geometry(raw),
        ColumnType::Vector { .. } => {
            let numbers: Vec<f32> = serde_json::from_str(raw.get()).ok()?;
            Some(Value::Vector(numbers.into_iter().flat_map(f32::to_le_bytes).collect()))
        }
        _ => of_text(&scalar(raw)?, column),
    }
}

fn canal(value: &str, column: &Column) -> Option<Value> {
    match &column.ty {
        ColumnType::Text { .. } | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            Some(Value::Text(value.to_owned()))
        }
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => bytes(value).map(Value::Bytes),
        ColumnType::Geometry => bytes(value).map(Value::Geometry),
        ColumnType::Vector { .. } => bytes(value).map(Value::Vector),
        ColumnType::Json => {
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok();
            valid.then(|| Value::Json(text::spaced_json(value)))
        }
        // Numbers go before labels, as Canal writes them.
        ColumnType::Enum { labels } => match value.parse::<u16>() {
            Ok(ordinal) if usize::from(ordinal) <= labels.len() => Some(Value::Enum(ordinal)),
            _ => of_text(value, column),
        },
        ColumnType::Set { .. } => match value.parse::<u64>() {
            Ok(members) => Some(Value::Set(members)),
            Err(_) => of_text(value, column),
        },
        _ => of_text(value, column),
    }
}

/// Bytes that are written as one character each.
pub(super) fn bytes(value: &str) -> Option<Vec<u8>> {
    value.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// A value that has one text, whoever writes it.
pub(super) fn of_text(value: &str, column: &Column) -> Option<Value> {
    match &column.ty {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. } => integer(value.parse().ok()?, column),
        ColumnType::Float => value.parse().ok().filter(|v: &f32| v.is_finite()).map(Value::Float),
        ColumnType::Double => value.parse().ok().filter(|v: &f64| v.is_finite()).map(Value::Double),
        ColumnType::Decimal { precision, scale } => {
            text::decimal(value, *precision, *scale).map(Value::Decimal)
        }
        ColumnType::Bit { .. } => bits(value.parse().ok()?, column),
        ColumnType::Year => value.parse().ok().map(Value::Year),
        ColumnType::Date => text::date(value).map(Value::Date),
        ColumnType::Time { .. } => text::time(value).map(Value::Time),
        ColumnType::DateTime { .. } => text::datetime(value).map(Value::DateTime),
        ColumnType::Timestamp { .. } => text::timestamp(value).map(Value::Timestamp),
        ColumnType::Enum { labels } => {
            if value.is_empty() {
                return Some(Value::Enum(0));
            }
            let ordinal = labels.iter().position(|label| label == value)? + 1;
            debug_assert_eq!(enum_label(column, ordinal as u16), value);
            u16::try_from(ordinal).ok().map(Value::Enum)
        }
        ColumnType::Set { labels } => {
            let members: Vec<Cow<'_, str>> =
                value.split(',').filter(|member| !member.is_empty()).map(Cow::Borrowed).collect();
            let value = set(&members, labels)?;
            debug_assert!(
                matches!(value, Value::Set(bits) if set_labels(column, bits).count() <= members.len())
            );
            Some(value)
        }
        _ => None,
    }
}

fn integer(value: i128, column: &Column) -> Option<Value> {
    let unsigned = unsigned(&column.ty)?;
    // Java has no unsigned long: the upper half is negative there.
    let wrapped = unsigned
        && matches!(column.ty, ColumnType::BigInt { .. })
        && i64::try_from(value).is_ok_and(|v| v < 0);
    let value = if wrapped { value + (1 << 64) } else { value };
    if !holds(&column.ty, value) {
        return None;
    }
    if unsigned {
        u64::try_from(value).ok().map(Value::UInt)
    } else {
        i64::try_from(value).ok().map(Value::Int)
    }
}

fn bits(value: u64, column: &Column) -> Option<Value> {
    match column.ty {
        ColumnType::Bit { bits } if bits >= 64 || value >> bits == 0 => Some(Value::Bit(value)),
        ColumnType::Bit { .. } => None,
        _ => integer(i128::from(value), column),
    }
}

fn set(members: &[Cow<'_, str>], labels: &[String]) -> Option<Value> {
    let mut bits = 0u64;
    for member in members {
        let index = labels.iter().position(|label| *label == **member)?;
        bits |= 1u64.checked_shl(u32::try_from(index).ok()?)?;
    }
    Some(Value::Set(bits))
}

/// `{"srid","wkb"}`, or the WKB alone, in base64.
fn geometry(raw: Raw<'_>) -> Option<Value> {
    let (srid, wkb) = if raw.get().starts_with('{') {
        let cells: Cells<'_> = serde_json::from_str(raw.get()).ok()?;
        let srid = cells.get("srid").filter(|raw| !is_null(*raw));
        let srid = srid.map_or(Some(0), |raw| raw.get().parse::<u32>().ok())?;
        (srid, base64(cells.get("wkb")?)?)
    } else {
        (0, base64(raw)?)
    };
    Some(Value::Geometry([&srid.to_le_bytes()[..], &wkb].concat()))
}

/// Microseconds since midnight, or since 1970, in a temporal column; the plain number in any other.
fn temporal(micros: i64, column: &Column) -> Option<Value> {
    let (days, rest) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let date = || -> Option<Date> {
        // Years 0 to 9999.
        (-719_528..2_932_897).contains(&days).then(|| date_of_days(days))
    };
    Some(match column.ty {
        ColumnType::Date => Value::Date(date()?),
        ColumnType::Time { .. } => Value::Time(micros),
        ColumnType::Timestamp { .. } => Value::Timestamp(micros),
        ColumnType::DateTime { .. } => Value::DateTime(DateTime {
            date: date()?,
            hour: (rest / 3_600_000_000) as u8,
            minute: (rest / 60_000_000 % 60) as u8,
            second: (rest / 1_000_000 % 60) as u8,
            micro: (rest % 1_000_000) as u32,
        }),
        _ => return None,
    })
}

fn unscaled(bytes: &[u8], scale: i32, column: &Column) -> Option<Value> {
    let number = BigInt::from_signed_bytes_be(bytes).to_string();
    of_text(&format!("{number}e{}", -scale), column).or_else(|| {
        // DECIMAL columns that became text, or whole numbers.
        let text = text::decimal(&format!("{number}e{}", -scale), 255, u8::try_from(scale.max(0)).ok()?)?;
        match column.ty {
            ColumnType::Text { .. } => Some(Value::Text(text)),
            _ => of_text(&text, column),
        }
    })
}
