//! Values as one text, however they came; hashes of rows, and sums of hashes in which the order of rows does not count.

use base::{Value, value};
use sha2::{Digest, Sha256};

/// What tells whether two sets of rows are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum {
    pub rows: u64,
    sum: u128,
}

impl RowSum {
    pub fn add(&mut self, row: &[Value]) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row_hash(row));
    }

    /// The checksum, 32 hexadecimal digits.
    pub fn text(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// 128 bits of SHA-256 over the values' texts.
pub fn row_hash(row: &[Value]) -> u128 {
    let mut bytes = Vec::with_capacity(row.len() * 16);
    for value in row {
        put(&mut bytes, value);
    }
    let digest = Sha256::digest(&bytes);
    u128::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

fn put(out: &mut Vec<u8>, value: &Value) {
    let mut part = |bytes: &[u8]| {
        out.push(1);
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => out.push(0),
        Value::Text(text) | Value::Json(text) => part(text.as_bytes()),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            part(bytes)
        }
        other => part(text(other).unwrap_or_default().as_bytes()),
    }
}

/// A value as text, the same whatever engine it was read from, from which its column's type reads it again; bytes are
/// hexadecimal. `None` for NULL.
pub fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Int(v) => v.to_string(),
        Value::UInt(v) | Value::Bit(v) | Value::Set(v) => v.to_string(),
        Value::Year(v) => format!("{v:04}"),
        Value::Enum(v) => v.to_string(),
        // A FLOAT is selected as the DOUBLE that it is: a server prints six digits of it otherwise.
        Value::Float(v) => double(f64::from(*v)),
        Value::Double(v) => double(*v),
        Value::Decimal(text) => plain_decimal(text),
        Value::Date(v) => v.to_string(),
        Value::Time(v) => value::format_time(*v, 6),
        Value::DateTime(v) => value::format_datetime(*v, 6),
        Value::Timestamp(v) => value::format_datetime(value::timestamp_to_datetime(*v), 6),
        Value::Text(text) | Value::Json(text) => text.clone(),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
    })
}

/// A value in JSON, from which it is read again: its text, and bytes as `{"hex": "00ff"}`, so that nobody takes them for a text.
pub fn json(value: &Value) -> serde_json::Value {
    let Some(text) = text(value) else { return serde_json::Value::Null };
    match value {
        Value::RawText(_) | Value::Bytes(_) | Value::Geometry(_) | Value::Vector(_) => {
            serde_json::json!({ "hex": text })
        }
        _ => serde_json::Value::String(text),
    }
}

fn double(value: f64) -> String {
    value::format_double(if value == 0.0 { 0.0 } else { value })
}

/// Without zeros that say nothing.
fn plain_decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".into(),
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// Which of two cursors is larger; `None` where only their source knows: texts.
pub fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    let whole = |value: &Value| match value {
        Value::Int(v) => Some(i128::from(*v)),
        Value::UInt(v) => Some(i128::from(*v)),
        Value::Year(v) => Some(i128::from(*v)),
        _ => None,
    };
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Some(left.cmp(&right));
    }
    match (left, right) {
        (Value::Decimal(left), Value::Decimal(right)) => Some(compare_decimals(left, right)),
        (Value::Date(left), Value::Date(right)) => Some(left.cmp(right)),
        (Value::DateTime(left), Value::DateTime(right)) => Some(left.cmp(right)),
        (Value::Time(left), Value::Time(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn compare_decimals(left: &str, right: &str) -> std::cmp::Ordering {
    let parts = |text: &str| {
        let text = plain_decimal(text);
        let negative = text.starts_with('-');
        let digits = text.trim_start_matches('-');
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        (negative, whole.len(), whole.to_owned(), fraction.to_owned())
    };
    let (left, right) = (parts(left), parts(right));
    match (left.0, right.0) {
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (negative, _) => {
            let order = (left.1, left.2, left.3).cmp(&(right.1, right.2, right.3));
            if negative { order.reverse() } else { order }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn equal_values_have_one_text_and_sums_know_no_order() {
        let decimal = |text: &str| text_of(Value::Decimal(text.into()));
        fn text_of(value: Value) -> String {
            text(&value).unwrap()
        }
        assert_eq!(decimal("001.50"), decimal("1.5"));
        assert_eq!(decimal("-0.00"), "0");
        assert_eq!(text_of(Value::Int(5)), text_of(Value::UInt(5)));
        assert_eq!(text_of(Value::Float(0.1)), text_of(Value::Double(f64::from(0.1f32))));
        assert_eq!(text_of(Value::Double(-0.0)), text_of(Value::Double(0.0)));
        let (a, b) = (vec![Value::Int(1), Value::Null], vec![Value::Null, Value::Int(1)]);
        let (mut one, mut other) = (RowSum::default(), RowSum::default());
        one.add(&a);
        one.add(&b);
        other.add(&b);
        other.add(&a);
        assert_eq!(one, other);
        assert_ne!(row_hash(&a), row_hash(&b));
        let empty = Value::Text(String::new());
        assert_ne!(row_hash(&[empty]), row_hash(&[Value::Null]));
        let compared = |l: &str, r: &str| compare(&Value::Decimal(l.into()), &Value::Decimal(r.into()));
        assert_eq!(compared("9.5", "10"), Some(Ordering::Less));
        assert_eq!(compared("-9.5", "-10"), Some(Ordering::Greater));
        assert_eq!(compared("1.10", "1.1"), Some(Ordering::Equal));
        assert_eq!(compare(&Value::Text("a".into()), &Value::Text("b".into())), None);
    }
}
