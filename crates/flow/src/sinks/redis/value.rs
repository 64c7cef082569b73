//! A value as Redis clients expect it: text as it is, numbers and times as our JSON prints them but without quotes, the
//! members of a SET joined by commas, and binary values (BLOBs, VECTORs) as the bytes they are.

use base::json::{enum_label, put_value, set_labels};
use base::value::{datetime_to_timestamp, format_double};
use base::{Column, DateTime, Value};
use std::borrow::Cow;

/// `None` for NULL.
pub fn text<'a>(value: &'a Value, column: &'a Column) -> Option<Cow<'a, [u8]>> {
    Some(match value {
        Value::Null => return None,
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => Cow::Borrowed(text.as_bytes()),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Vector(bytes) => Cow::Borrowed(bytes),
        Value::Enum(ordinal) => Cow::Borrowed(enum_label(column, *ordinal).as_bytes()),
        Value::Set(bits) => Cow::Owned(set_labels(column, *bits).collect::<Vec<_>>().join(",").into_bytes()),
        Value::Geometry(_) => {
            let mut out = Vec::new();
            put_value(&mut out, value.as_ref(), column);
            Cow::Owned(out)
        }
        _ => {
            let mut out = Vec::new();
            put_value(&mut out, value.as_ref(), column);
            out.retain(|byte| *byte != b'"');
            Cow::Owned(out)
        }
    })
}

/// What orders a sorted set, as a double's text; times count in milliseconds since 1970 UTC. `None` for what is no
/// number.
pub fn score(value: &Value) -> Option<String> {
    let millis = |micros: i64| format_double(micros as f64 / 1000.0);
    Some(match value {
        Value::Int(v) => v.to_string(),
        Value::UInt(v) | Value::Bit(v) => v.to_string(),
        Value::Year(v) | Value::Enum(v) => v.to_string(),
        Value::Float(v) if v.is_finite() => format_double(f64::from(*v)),
        Value::Double(v) if v.is_finite() => format_double(*v),
        Value::Decimal(v) => v.clone(),
        Value::Time(v) => millis(*v),
        Value::Timestamp(v) => millis(*v),
        Value::DateTime(v) => millis(datetime_to_timestamp(*v)),
        Value::Date(v) => millis(datetime_to_timestamp(DateTime { date: *v, ..DateTime::default() })),
        _ => return None,
    })
}
