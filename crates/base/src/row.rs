//! A row image in our stored encoding: one tagged value after the other, in column order.
//!
//! ```text
//! value = tag:u8 payload
//!   0 null        1 absent (not in this image)
//!   2 int zigzag varint      3 uint varint      4 f32 LE      5 f64 LE
//!   6 decimal text blob      7 date varint(year<<9|month<<5|day)
//!   8 time micros zigzag     9 datetime varint(date), varint(micros of day)
//!  10 timestamp micros zigzag (zero timestamp: i64::MIN)     11 year varint
//!  12 bit varint   13 enum varint   14 set varint
//!  15 text blob    16 raw text blob  17 bytes blob  18 json blob  19 geometry blob  20 vector blob
//! blob = varint length, bytes
//! ```
//! Decoding is lazy: a reader skips to the columns it wants, and allocates nothing.

use crate::value::{Date, DateTime, Value, ValueRef};
use crate::varint::{put_blob, put_i64, put_u64, take_blob, take_bytes, take_i64, take_u64};

/// An owned row image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowBuf(pub Vec<u8>);

impl RowBuf {
    pub fn from_values<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> Self {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(&mut out);
        for value in values {
            writer.put(value);
        }
        Self(out)
    }

    pub fn view(&self) -> RowView<'_> {
        RowView(&self.0)
    }
}

/// Appends values to a buffer.
pub struct RowWriter<'a>(&'a mut Vec<u8>);

impl<'a> RowWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    #[inline]
    pub fn put_absent(&mut self) {
        self.0.push(1);
    }

    /// Direct access for decoders that write a tag and its payload themselves.
    #[inline]
    pub fn raw(&mut self) -> &mut Vec<u8> {
        self.0
    }

    #[inline]
    fn blob(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        put_blob(self.0, bytes);
    }

    #[inline]
    fn unsigned(&mut self, tag: u8, value: u64) {
        self.0.push(tag);
        put_u64(self.0, value);
    }

    #[inline]
    fn signed(&mut self, tag: u8, value: i64) {
        self.0.push(tag);
        put_i64(self.0, value);
    }

    #[inline]
    pub fn put(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.0.push(0),
            ValueRef::Int(v) => self.signed(2, v),
            ValueRef::UInt(v) => self.unsigned(3, v),
            ValueRef::Float(v) => {
                self.0.push(4);
                self.0.extend_from_slice(&v.to_le_bytes());
            }
            ValueRef::Double(v) => {
                self.0.push(5);
                self.0.extend_from_slice(&v.to_le_bytes());
            }
            ValueRef::Decimal(v) => self.blob(6, v.as_bytes()),
            ValueRef::Date(v) => self.unsigned(7, pack_date(v)),
            ValueRef::Time(v) => self.signed(8, v),
            ValueRef::DateTime(v) => {
                self.unsigned(9, pack_date(v.date));
                let seconds = u64::from(v.hour) * 3600 + u64::from(v.minute) * 60 + u64::from(v.second);
                put_u64(self.0, seconds * 1_000_000 + u64::from(v.micro));
            }
            ValueRef::Timestamp(v) => self.signed(10, v),
            ValueRef::Year(v) => self.unsigned(11, u64::from(v)),
            ValueRef::Bit(v) => self.unsigned(12, v),
            ValueRef::Enum(v) => self.unsigned(13, u64::from(v)),
            ValueRef::Set(v) => self.unsigned(14, v),
            ValueRef::Text(v) => self.blob(15, v.as_bytes()),
            ValueRef::RawText(v) => self.blob(16, v),
            ValueRef::Bytes(v) => self.blob(17, v),
            ValueRef::Json(v) => self.blob(18, v.as_bytes()),
            ValueRef::Geometry(v) => self.blob(19, v),
            ValueRef::Vector(v) => self.blob(20, v),
        }
    }
}

/// A row image borrowed from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowView<'a>(pub &'a [u8]);

/// A row image that is not in this encoding: bit rot that the record's checksum did not catch, or our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row image is malformed")]
pub struct MalformedRow;

impl<'a> RowView<'a> {
    /// The values in column order; `None` for a column that is absent from the image.
    pub fn iter(self) -> RowIter<'a> {
        RowIter(self.0)
    }

    /// The value at `index`; `Ok(None)` when absent or past the end.
    pub fn get(self, index: usize) -> Result<Option<ValueRef<'a>>, MalformedRow> {
        self.iter().nth(index).unwrap_or(Ok(None))
    }

    /// All values, owned; absent ones as NULL.
    pub fn values(self) -> Result<Vec<Value>, MalformedRow> {
        self.iter().map(|v| Ok(v?.map_or(Value::Null, ValueRef::to_value))).collect()
    }

    pub fn to_buf(self) -> RowBuf {
        RowBuf(self.0.to_vec())
    }
}

pub struct RowIter<'a>(&'a [u8]);

impl<'a> Iterator for RowIter<'a> {
    type Item = Result<Option<ValueRef<'a>>, MalformedRow>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        self.0 = rest;
        let value = take_value(tag, &mut self.0);
        if value.is_none() {
            self.0 = &[];
        }
        Some(value.ok_or(MalformedRow))
    }
}

fn take_value<'a>(tag: u8, input: &mut &'a [u8]) -> Option<Option<ValueRef<'a>>> {
    let text = |input: &mut &'a [u8]| std::str::from_utf8(take_blob(input)?).ok();
    Some(Some(match tag {
        0 => ValueRef::Null,
        1 => return Some(None),
        2 => ValueRef::Int(take_i64(input)?),
        3 => ValueRef::UInt(take_u64(input)?),
        4 => ValueRef::Float(f32::from_le_bytes(take_bytes(input, 4)?.try_into().ok()?)),
        5 => ValueRef::Double(f64::from_le_bytes(take_bytes(input, 8)?.try_into().ok()?)),
        6 => ValueRef::Decimal(text(input)?),
        7 => ValueRef::Date(unpack_date(take_u64(input)?)),
        8 => ValueRef::Time(take_i64(input)?),
        9 => {
            let date = unpack_date(take_u64(input)?);
            let micros = take_u64(input)?;
            let seconds = micros / 1_000_000;
            ValueRef::DateTime(DateTime {
                date,
                hour: (seconds / 3600) as u8,
                minute: (seconds / 60 % 60) as u8,
                second: (seconds % 60) as u8,
                micro: (micros % 1_000_000) as u32,
            })
        }
        10 => ValueRef::Timestamp(take_i64(input)?),
        11 => ValueRef::Year(take_u64(input)? as u16),
        12 => ValueRef::Bit(take_u64(input)?),
        13 => ValueRef::Enum(take_u64(input)? as u16),
        14 => ValueRef::Set(take_u64(input)?),
        15 => ValueRef::Text(text(input)?),
        16 => ValueRef::RawText(take_blob(input)?),
        17 => ValueRef::Bytes(take_blob(input)?),
        18 => ValueRef::Json(text(input)?),
        19 => ValueRef::Geometry(take_blob(input)?),
        20 => ValueRef::Vector(take_blob(input)?),
        _ => return None,
    }))
}

fn pack_date(date: Date) -> u64 {
    u64::from(date.year) << 9 | u64::from(date.month) << 5 | u64::from(date.day)
}

fn unpack_date(packed: u64) -> Date {
    Date { year: (packed >> 9) as u16, month: (packed >> 5 & 15) as u8, day: (packed & 31) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::TIMESTAMP_ZERO;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_value_reads_back() {
        let date = Date { year: 9999, month: 12, day: 31 };
        let values = [
            ValueRef::Null,
            ValueRef::Int(i64::MIN),
            ValueRef::UInt(u64::MAX),
            ValueRef::Float(f32::MIN_POSITIVE),
            ValueRef::Double(-0.0),
            ValueRef::Decimal("-0.10"),
            ValueRef::Date(date),
            ValueRef::Time(-3_020_399_000_000),
            ValueRef::DateTime(DateTime { date, hour: 23, minute: 59, second: 59, micro: 999_999 }),
            ValueRef::Timestamp(TIMESTAMP_ZERO),
            ValueRef::Year(0),
            ValueRef::Bit(u64::MAX),
            ValueRef::Enum(65_535),
            ValueRef::Set(1 << 63),
            ValueRef::Text("绿"),
            ValueRef::RawText(&[0xff]),
            ValueRef::Bytes(&[0, 1]),
            ValueRef::Json("{\"a\": 1}"),
            ValueRef::Geometry(&[1, 2, 3, 4]),
            ValueRef::Vector(&[0, 0, 128, 63]),
        ];
        let row = RowBuf::from_values(values);
        let back: Vec<_> = row.view().iter().map(|v| v.unwrap().unwrap()).collect();
        assert_eq!(back, values);
        assert_eq!(row.view().get(15).unwrap(), Some(ValueRef::RawText(&[0xff])));
        let owned = row.view().values().unwrap();
        assert_eq!(RowBuf::from_values(owned.iter().map(Value::as_ref)), row);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = RowView(&bytes).values();
        }
    }
}
