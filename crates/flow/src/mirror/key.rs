//! Values as bytes that sort as the values do: the keys of a mirror, and what joins its tables.
//!
//! ```text
//! key   = value…
//! value = 00                                        NULL
//!       | 10 integer + 2^63, nine bytes, the highest first      signed and unsigned alike
//!       | 20 bits of a FLOAT or DOUBLE, in their order
//!       | 30 days of a date, four bytes | 31 date, micros of the day | 32 micros since 1970 | 33 micros of a TIME
//!       | 40 text | 41 bytes | 42 decimal's text     each 00 in it as 00 ff, and 00 00 at the end
//! ```
//! Equal values of two columns that are joined are equal bytes where their types are of one kind: an INT and a BIGINT
//! UNSIGNED, a CHAR and a VARCHAR. Texts are compared byte by byte, whatever their collations say.

use base::ValueRef;
use base::value::Date;

/// Appends one value.
pub fn put(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(0),
        ValueRef::Int(v) => put_integer(out, i128::from(v)),
        ValueRef::UInt(v) | ValueRef::Bit(v) | ValueRef::Set(v) => put_integer(out, i128::from(v)),
        ValueRef::Year(v) | ValueRef::Enum(v) => put_integer(out, i128::from(v)),
        ValueRef::Float(v) => put_double(out, f64::from(v)),
        ValueRef::Double(v) => put_double(out, v),
        ValueRef::Date(v) => {
            out.push(0x30);
            out.extend_from_slice(&days(v).to_be_bytes());
        }
        ValueRef::DateTime(v) => {
            out.push(0x31);
            out.extend_from_slice(&days(v.date).to_be_bytes());
            let seconds = u64::from(v.hour) * 3600 + u64::from(v.minute) * 60 + u64::from(v.second);
            out.extend_from_slice(&(seconds * 1_000_000 + u64::from(v.micro)).to_be_bytes());
        }
        ValueRef::Timestamp(v) => put_signed(out, 0x32, v),
        ValueRef::Time(v) => put_signed(out, 0x33, v),
        ValueRef::Text(v) => put_bytes(out, 0x40, v.as_bytes()),
        ValueRef::RawText(v) => put_bytes(out, 0x40, v),
        ValueRef::Json(v) => put_bytes(out, 0x40, v.as_bytes()),
        ValueRef::Bytes(v) | ValueRef::Geometry(v) | ValueRef::Vector(v) => put_bytes(out, 0x41, v),
        ValueRef::Decimal(v) => put_bytes(out, 0x42, v.as_bytes()),
    }
}

/// The bytes of several values; `None` when one of them is NULL or absent.
pub fn joined<'a>(values: impl IntoIterator<Item = Option<ValueRef<'a>>>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(16);
    for value in values {
        let value = value.filter(|value| *value != ValueRef::Null)?;
        put(&mut out, value);
    }
    Some(out)
}

fn days(date: Date) -> u32 {
    u32::from(date.year) << 9 | u32::from(date.month) << 5 | u32::from(date.day)
}

fn put_integer(out: &mut Vec<u8>, value: i128) {
    out.push(0x10);
    let raised = (value + (1 << 63)) as u128;
    out.extend_from_slice(&raised.to_be_bytes()[7..]);
}

fn put_signed(out: &mut Vec<u8>, tag: u8, value: i64) {
    out.push(tag);
    out.extend_from_slice(&((value as u64) ^ (1 << 63)).to_be_bytes());
}

fn put_double(out: &mut Vec<u8>, value: f64) {
    // -0 and 0 are one key.
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.push(0x20);
    out.extend_from_slice(&ordered.to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(value: ValueRef<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    proptest! {
        #[test]
        fn integers_sort_as_numbers_signed_or_not(a: i64, b: i64, c: u64) {
            prop_assert_eq!(of(ValueRef::Int(a)).cmp(&of(ValueRef::Int(b))), a.cmp(&b));
            prop_assert_eq!(of(ValueRef::Int(a)).cmp(&of(ValueRef::UInt(c))), i128::from(a).cmp(&i128::from(c)));
        }

        #[test]
        fn texts_sort_by_their_bytes_also_in_front_of_other_values(a: Vec<u8>, b: Vec<u8>, n: i64) {
            let row = |text: &[u8]| {
                let mut out = of(ValueRef::Bytes(text));
                put(&mut out, ValueRef::Int(n));
                out
            };
            prop_assert_eq!(row(&a).cmp(&row(&b)), a.cmp(&b));
        }

        #[test]
        fn doubles_sort_as_numbers(a in -1e300f64..1e300, b in -1e300f64..1e300) {
            prop_assert_eq!(of(ValueRef::Double(a)).cmp(&of(ValueRef::Double(b))), a.partial_cmp(&b).unwrap());
        }
    }

    #[test]
    fn a_row_without_one_of_the_values_joins_nothing() {
        assert_eq!(joined([Some(ValueRef::Int(1)), Some(ValueRef::Null)]), None);
        assert_eq!(joined([Some(ValueRef::Int(1)), None]), None);
        assert_eq!(joined([Some(ValueRef::Int(7))]), joined([Some(ValueRef::UInt(7))]));
    }
}
