//! The decode step of every column, fixed once per table map and schema.

use super::decimal::{DECIMAL_TEXT_BYTES_MAX, decimal_bytes, decimal_text};
use super::error::BinlogError;
use super::input::{Input, bit};
use super::table_map::{TableMap, code};
use super::temporal;
use crate::charset::Charset;
use base::{Column, ColumnType, RowWriter, Table, ValueRef};

/// Why rows of a table cannot be decoded with the schema at hand. Other tables are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the binlog has {found} columns, the schema {expected}")]
    ColumnCount { expected: usize, found: usize },
    #[error("column {index} is `{found}` in the binlog, `{expected}` in the schema")]
    ColumnName { index: usize, expected: String, found: String },
    #[error("column `{column}` is {expected} in the schema, but the binlog carries type {found}")]
    ColumnType { column: String, expected: String, found: u8 },
    #[error("column `{column}` differs from the binlog's in its {what}")]
    Differs { column: String, what: &'static str },
    #[error("column `{column}`: {reason}")]
    Unsupported { column: String, reason: &'static str },
}

/// How the rows of one table map become rows of one schema.
#[derive(Clone, Debug)]
pub struct RowPlan {
    steps: Vec<Step>,
}

/// One column's bytes in an image, and the value they become.
#[derive(Clone, Debug)]
enum Step {
    I8,
    I16,
    I24,
    I32,
    I64,
    U8,
    U16,
    U24,
    U32,
    U64,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
        bytes: u8,
    },
    Year,
    Date,
    TimeOld,
    DateTimeOld,
    TimestampOld,
    Time2 {
        fsp: u8,
    },
    DateTime2 {
        fsp: u8,
    },
    Timestamp2 {
        fsp: u8,
    },
    Bit {
        bytes: u8,
    },
    Enum {
        bytes: u8,
    },
    Set {
        bytes: u8,
    },
    Utf8 {
        length_bytes: u8,
    },
    Text {
        length_bytes: u8,
        charset: Charset,
    },
    Bytes {
        length_bytes: u8,
    },
    /// MariaDB's COMPRESSED columns.
    Compressed {
        length_bytes: u8,
        charset: Charset,
    },
    Binary {
        length_bytes: u8,
        size: u32,
    },
    Json {
        length_bytes: u8,
    },
    JsonText {
        length_bytes: u8,
    },
    Geometry {
        length_bytes: u8,
    },
    Vector {
        length_bytes: u8,
    },
    Uuid {
        length_bytes: u8,
    },
    Inet4 {
        length_bytes: u8,
    },
    Inet6 {
        length_bytes: u8,
    },
}

impl RowPlan {
    /// Checks the map against the schema, column by column.
    pub fn new(map: &TableMap, table: &Table) -> Result<Self, PlanError> {
        if map.column_count() != table.columns.len() {
            return Err(PlanError::ColumnCount { expected: table.columns.len(), found: map.column_count() });
        }
        let mut steps = Vec::with_capacity(table.columns.len());
        for (index, column) in table.columns.iter().enumerate() {
            let name = map.names.as_ref().and_then(|names| names.get(index));
            if let Some(found) = name.filter(|name| !name.eq_ignore_ascii_case(&column.name)) {
                let (expected, found) = (column.name.clone(), found.clone());
                return Err(PlanError::ColumnName { index, expected, found });
            }
            if map.names.is_none() {
                fits(map, index, column)?;
            }
            steps.push(step(map, index, column)?);
        }
        Ok(Self { steps })
    }

    /// Whether `column` explains column `index` of the map, in name and type.
    pub fn explains(map: &TableMap, index: usize, column: &Column) -> bool {
        let name = map.names.as_ref().and_then(|names| names.get(index));
        name.is_some_and(|name| name.eq_ignore_ascii_case(&column.name)) && step(map, index, column).is_ok()
    }

    /// Appends the image before a partial update, and notes where its JSON documents are.
    pub(super) fn decode_noting<'r>(
        &self,
        input: &mut Input<'r>,
        present: &[u8],
        documents: &mut Vec<Option<&'r [u8]>>,
        out: &mut Vec<u8>,
    ) -> Result<(), BinlogError> {
        documents.clear();
        self.decode_each(input, present, out, |step, input, out| match step {
            Some(Step::Json { length_bytes }) => {
                let document = blob(input, *length_bytes)?;
                documents.push(Some(document));
                super::jsonb::put_json(out, document)
            }
            Some(step) => step.decode(input, out),
            None => {
                documents.push(None);
                Ok(())
            }
        })
    }

    /// Appends the image after a partial update: some of its documents are what `documents` became.
    pub(super) fn decode_changed(
        &self,
        input: &mut Input<'_>,
        present: &[u8],
        documents: &[Option<&[u8]>],
        out: &mut Vec<u8>,
    ) -> Result<(), BinlogError> {
        const PARTIAL_JSON: u64 = 1;
        let options = input.packed()?;
        if options & !PARTIAL_JSON != 0 {
            return Err(input.bad());
        }
        let is_json = |step: &&Step| matches!(step, Step::Json { .. });
        let documents_all = self.steps.iter().filter(is_json).count();
        let partial = match options & PARTIAL_JSON {
            0 => &[],
            _ => input.bytes(documents_all.div_ceil(8))?,
        };
        let mut number = 0;
        self.decode_each(input, present, out, |step, input, out| {
            let Some(step) = step else {
                number += 1;
                return Ok(());
            };
            let Step::Json { length_bytes } = step else { return step.decode(input, out) };
            number += 1;
            if !bit(partial, number - 1) {
                return step.decode(input, out);
            }
            let before = documents.get(number - 1).copied().flatten().ok_or_else(|| input.bad())?;
            super::json_diff::put_changed_json(out, before, blob(input, *length_bytes)?)
        })
    }

    /// Appends one image, value by value; `None` is a JSON column that is absent or NULL.
    fn decode_each<'r>(
        &self,
        input: &mut Input<'r>,
        present: &[u8],
        out: &mut Vec<u8>,
        mut decode: impl FnMut(Option<&Step>, &mut Input<'r>, &mut RowWriter<'_>) -> Result<(), BinlogError>,
    ) -> Result<(), BinlogError> {
        let count = (0..self.steps.len()).filter(|column| bit(present, *column)).count();
        let nulls = input.bytes(count.div_ceil(8))?;
        let mut slot = 0;
        for (index, step) in self.steps.iter().enumerate() {
            let is_present = bit(present, index);
            let is_null = is_present && bit(nulls, slot);
            slot += usize::from(is_present);
            if is_present && !is_null {
                decode(Some(step), input, &mut RowWriter::new(out))?;
                continue;
            }
            out.push(if is_null { 0 } else { 1 });
            if matches!(step, Step::Json { .. }) {
                decode(None, input, &mut RowWriter::new(out))?;
            }
        }
        Ok(())
    }

    /// Appends one image.
    pub(super) fn decode(
        &self,
        input: &mut Input<'_>,
        present: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), BinlogError> {
        let count = if super::rows::is_full(present, self.steps.len()) {
            self.steps.len()
        } else {
            (0..self.steps.len()).filter(|column| bit(present, *column)).count()
        };
        let nulls = input.bytes(count.div_ceil(8))?;
        let mut slot = 0;
        for (index, step) in self.steps.iter().enumerate() {
            if count != self.steps.len() && !bit(present, index) {
                out.push(1);
                continue;
            }
            if bit(nulls, slot) {
                out.push(0);
            } else {
                step.decode(input, &mut RowWriter::new(out))?;
            }
            slot += 1;
        }
        Ok(())
    }
}

/// Whether a column may be the one of a map that has no names: all that such a map tells of it must agree, since only
/// that tells a definition that is not the rows' own.
fn fits(map: &TableMap, index: usize, column: &Column) -> Result<(), PlanError> {
    use ColumnType as T;
    let differs = |what| Err(PlanError::Differs { column: column.name.clone(), what });
    if map.is_nullable(index) != column.nullable {
        return differs("being nullable");
    }
    let (found, metadata) = map.real_type(index);
    let metadata = u64::from(metadata);
    let bytes_of_chars = || match column.charset.as_deref()? {
        "utf8mb4" => Some(4),
        "utf8mb3" | "utf8" => Some(3),
        "latin1" | "ascii" => Some(1),
        _ => None,
    };
    let size = match (&column.ty, found) {
        (T::Text { chars_max }, code::VARCHAR | code::STRING) => {
            bytes_of_chars().map(|each| chars_max * each)
        }
        (T::VarBinary { bytes_max }, code::VARCHAR) => Some(*bytes_max),
        (T::Binary { bytes }, code::STRING) => Some(u64::from(*bytes)),
        (T::Bit { bits }, code::BIT) => Some(u64::from(bits / 8) << 8 | u64::from(bits % 8)),
        (T::Enum { labels }, code::ENUM) => Some(1 + u64::from(labels.len() > 255)),
        (T::Set { labels }, code::SET) => Some(match labels.len().div_ceil(8) {
            0..=4 => labels.len().div_ceil(8) as u64,
            _ => 8,
        }),
        (T::Text { .. } | T::VarBinary { .. }, code::BLOB) => match blob_length_bytes(&column.sql_type) {
            Some(bytes) => Some(bytes),
            None => return differs("type"),
        },
        _ => None,
    };
    if size.is_some_and(|size| size != metadata) { differs("length") } else { Ok(()) }
}

/// Bytes of the length of a value of such a type.
fn blob_length_bytes(sql_type: &str) -> Option<u64> {
    let sql_type = sql_type.to_ascii_lowercase();
    let is = |names: [&str; 2]| names.iter().any(|name| sql_type.starts_with(name));
    if is(["tinytext", "tinyblob"]) {
        Some(1)
    } else if is(["text", "blob"]) {
        Some(2)
    } else if is(["mediumtext", "mediumblob"]) {
        Some(3)
    } else {
        is(["longtext", "longblob"]).then_some(4)
    }
}

/// Whether the map says otherwise than the schema of an integer's sign. Without metadata it says nothing.
fn has_other_sign(map: &TableMap, index: usize, column: &Column) -> bool {
    use ColumnType as T;
    let own = match column.ty {
        T::TinyInt { unsigned }
        | T::SmallInt { unsigned }
        | T::MediumInt { unsigned }
        | T::Int { unsigned }
        | T::BigInt { unsigned } => unsigned,
        _ => return false,
    };
    map.unsigned.as_ref().and_then(|all| all.get(index)).is_some_and(|told| *told != own)
}

/// Whether the map says that a text column's bytes are to be read in another way. Only where it is certain which of the map's
/// character sets is the column's: servers differ in which columns they count.
fn has_other_charset(map: &TableMap, index: usize, column: &Column) -> bool {
    use super::describe::is_text;
    let real = |i: usize| map.real_type(i).0;
    let doubtful = |ty: u8| {
        matches!(ty, code::GEOMETRY | code::BLOB_COMPRESSED | code::VARCHAR_COMPRESSED | code::VECTOR)
    };
    let Some(charsets) = &map.text_charsets else { return false };
    if !matches!(column.ty, ColumnType::Text { .. }) || !is_text(real(index)) {
        return false;
    }
    if (0..map.column_count()).any(|i| doubtful(real(i))) {
        return false;
    }
    let before = (0..index).filter(|i| is_text(real(*i))).count();
    let told = charsets.get(before).and_then(crate::charset::of_collation);
    let own = column.charset.as_deref().unwrap_or("utf8mb4");
    told.is_some_and(|told| !Charset::named(told).is_same(Charset::named(own)))
}

/// Matches a column's binlog type with its schema type.
fn step(map: &TableMap, index: usize, column: &Column) -> Result<Step, PlanError> {
    use ColumnType as T;
    let (found, metadata) = map.real_type(index);
    let (low, high) = (metadata as u8, (metadata >> 8) as u8);
    let mismatch =
        || PlanError::ColumnType { column: column.name.clone(), expected: column.sql_type.clone(), found };
    let refuse = |reason| PlanError::Unsupported { column: column.name.clone(), reason };
    if has_other_sign(map, index, column) {
        return Err(PlanError::Differs { column: column.name.clone(), what: "sign" });
    }
    let length_bytes = match found {
        code::VARCHAR | code::VAR_STRING | code::VARCHAR_COMPRESSED => 1 + u8::from(metadata > 255),
        // After unfolding, a STRING's metadata is its length in bytes.
        code::STRING => 1 + u8::from(metadata > 255),
        code::BLOB | code::BLOB_COMPRESSED | code::GEOMETRY | code::JSON | code::VECTOR
            if (1..=4).contains(&low) =>
        {
            low
        }
        _ => 0,
    };
    let sized = |step: Step| if length_bytes == 0 { Err(mismatch()) } else { Ok(step) };
    if has_other_charset(map, index, column) {
        return Err(PlanError::Differs { column: column.name.clone(), what: "character set" });
    }
    let text = || match Charset::named(column.charset.as_deref().unwrap_or("utf8mb4")) {
        Charset::Utf8 => Step::Utf8 { length_bytes },
        Charset::Binary => Step::Bytes { length_bytes },
        charset => Step::Text { length_bytes, charset },
    };
    match (&column.ty, found) {
        (T::TinyInt { unsigned: false }, code::TINY) => Ok(Step::I8),
        (T::TinyInt { unsigned: true }, code::TINY) => Ok(Step::U8),
        (T::SmallInt { unsigned: false }, code::SHORT) => Ok(Step::I16),
        (T::SmallInt { unsigned: true }, code::SHORT) => Ok(Step::U16),
        (T::MediumInt { unsigned: false }, code::INT24) => Ok(Step::I24),
        (T::MediumInt { unsigned: true }, code::INT24) => Ok(Step::U24),
        (T::Int { unsigned: false }, code::LONG) => Ok(Step::I32),
        (T::Int { unsigned: true }, code::LONG) => Ok(Step::U32),
        (T::BigInt { unsigned: false }, code::LONGLONG) => Ok(Step::I64),
        (T::BigInt { unsigned: true }, code::LONGLONG) => Ok(Step::U64),
        (T::Float, code::FLOAT) => Ok(Step::Float),
        (T::Double, code::DOUBLE) => Ok(Step::Double),
        (T::Decimal { precision, scale }, code::NEWDECIMAL) if (low, high) == (*precision, *scale) => {
            let bytes = decimal_bytes(low.into(), high.into()).ok_or_else(mismatch)? as u8;
            Ok(Step::Decimal { precision: low, scale: high, bytes })
        }
        (T::Bit { .. }, code::BIT) => {
            let bytes = high + u8::from(low > 0);
            if bytes <= 8 { Ok(Step::Bit { bytes }) } else { Err(mismatch()) }
        }
        (T::Year, code::YEAR) => Ok(Step::Year),
        (T::Date, code::DATE | code::NEWDATE) => Ok(Step::Date),
        (T::Time { fsp }, code::TIME2) if low == *fsp && low <= 6 => Ok(Step::Time2 { fsp: low }),
        (T::DateTime { fsp }, code::DATETIME2) if low == *fsp && low <= 6 => Ok(Step::DateTime2 { fsp: low }),
        (T::Timestamp { fsp }, code::TIMESTAMP2) if low == *fsp && low <= 6 => {
            Ok(Step::Timestamp2 { fsp: low })
        }
        (T::Time { fsp: 0 }, code::TIME) => Ok(Step::TimeOld),
        (T::DateTime { fsp: 0 }, code::DATETIME) => Ok(Step::DateTimeOld),
        (T::Timestamp { fsp: 0 }, code::TIMESTAMP) => Ok(Step::TimestampOld),
        (
            T::Time { .. } | T::DateTime { .. } | T::Timestamp { .. },
            code::TIME | code::DATETIME | code::TIMESTAMP,
        ) => Err(refuse(
            "the column keeps fractions in MariaDB's old format, whose size the binlog does not tell; hint: set mysql56_temporal_format=ON and rebuild the table",
        )),
        (T::Enum { .. }, code::ENUM) if matches!(metadata, 1 | 2) => Ok(Step::Enum { bytes: low }),
        (T::Set { .. }, code::SET) if (1..=8).contains(&metadata) => Ok(Step::Set { bytes: low }),
        (T::Text { .. }, code::VARCHAR | code::VAR_STRING | code::STRING | code::BLOB) => sized(text()),
        (T::Text { .. }, code::VARCHAR_COMPRESSED | code::BLOB_COMPRESSED) => {
            let charset = Charset::named(column.charset.as_deref().unwrap_or("utf8mb4"));
            sized(Step::Compressed { length_bytes, charset })
        }
        (T::VarBinary { .. }, code::VARCHAR_COMPRESSED | code::BLOB_COMPRESSED) => {
            sized(Step::Compressed { length_bytes, charset: Charset::Binary })
        }
        (T::Binary { bytes }, code::STRING) => sized(Step::Binary { length_bytes, size: *bytes }),
        (T::VarBinary { .. }, code::VARCHAR | code::VAR_STRING | code::BLOB) => {
            sized(Step::Bytes { length_bytes })
        }
        (T::Json, code::JSON) => sized(Step::Json { length_bytes }),
        (T::Json, code::BLOB) => sized(Step::JsonText { length_bytes }),
        (T::Geometry, code::GEOMETRY) => sized(Step::Geometry { length_bytes }),
        (T::Vector { .. }, code::VECTOR | code::VARCHAR | code::BLOB) => sized(Step::Vector { length_bytes }),
        (T::Uuid, code::STRING) => sized(Step::Uuid { length_bytes }),
        (T::Inet4, code::STRING) => sized(Step::Inet4 { length_bytes }),
        (T::Inet6, code::STRING) => sized(Step::Inet6 { length_bytes }),
        _ => Err(mismatch()),
    }
}

impl Step {
    #[inline]
    fn decode(&self, input: &mut Input<'_>, out: &mut RowWriter<'_>) -> Result<(), BinlogError> {
        let value = match *self {
            Self::I8 => ValueRef::Int(i64::from(input.u8()? as i8)),
            Self::I16 => ValueRef::Int(i64::from(input.u16()? as i16)),
            Self::I24 => ValueRef::Int(i64::from(((input.u24()? << 8) as i32) >> 8)),
            Self::I32 => ValueRef::Int(i64::from(input.u32()? as i32)),
            Self::I64 => ValueRef::Int(input.u64()? as i64),
            Self::U8 => ValueRef::UInt(u64::from(input.u8()?)),
            Self::U16 => ValueRef::UInt(u64::from(input.u16()?)),
            Self::U24 => ValueRef::UInt(u64::from(input.u24()?)),
            Self::U32 => ValueRef::UInt(u64::from(input.u32()?)),
            Self::U64 => ValueRef::UInt(input.u64()?),
            Self::Float => ValueRef::Float(f32::from_le_bytes(input.array()?)),
            Self::Double => ValueRef::Double(f64::from_le_bytes(input.array()?)),
            Self::Decimal { precision, scale, bytes } => {
                let mut buffer = [0; DECIMAL_TEXT_BYTES_MAX];
                let packed = input.bytes(bytes.into())?;
                let text = decimal_text(packed, precision.into(), scale.into(), &mut buffer)?;
                out.put(ValueRef::Decimal(text));
                return Ok(());
            }
            Self::Year => ValueRef::Year(match input.u8()? {
                0 => 0,
                year => 1900 + u16::from(year),
            }),
            Self::Date => ValueRef::Date(temporal::date(input)?),
            Self::TimeOld => ValueRef::Time(temporal::time_old(input)?),
            Self::DateTimeOld => ValueRef::DateTime(temporal::datetime_old(input)?),
            Self::TimestampOld => ValueRef::Timestamp(temporal::timestamp_of(input.u32()?, 0)),
            Self::Time2 { fsp } => ValueRef::Time(temporal::time2(input, fsp)?),
            Self::DateTime2 { fsp } => ValueRef::DateTime(temporal::datetime2(input, fsp)?),
            Self::Timestamp2 { fsp } => ValueRef::Timestamp(temporal::timestamp2(input, fsp)?),
            Self::Bit { bytes } => ValueRef::Bit(input.uint_be(bytes.into())?),
            Self::Enum { bytes } => ValueRef::Enum(input.uint_le(bytes.into())? as u16),
            Self::Set { bytes } => ValueRef::Set(input.uint_le(bytes.into())?),
            Self::Utf8 { length_bytes } => text_of(blob(input, length_bytes)?),
            Self::Text { length_bytes, charset } => {
                crate::charset::put_text(out, blob(input, length_bytes)?, charset);
                return Ok(());
            }
            Self::Compressed { length_bytes, charset } => {
                let plain = super::maria_types::uncompressed(blob(input, length_bytes)?)?;
                crate::charset::put_text(out, &plain, charset);
                return Ok(());
            }
            Self::Bytes { length_bytes } => ValueRef::Bytes(blob(input, length_bytes)?),
            Self::Binary { length_bytes, size } => {
                crate::select::put_binary(out, blob(input, length_bytes)?, size);
                return Ok(());
            }
            Self::Json { length_bytes } => return super::jsonb::put_json(out, blob(input, length_bytes)?),
            Self::JsonText { length_bytes } => {
                crate::select::put_json_text(out, blob(input, length_bytes)?);
                return Ok(());
            }
            Self::Geometry { length_bytes } => ValueRef::Geometry(blob(input, length_bytes)?),
            Self::Vector { length_bytes } => ValueRef::Vector(blob(input, length_bytes)?),
            Self::Uuid { length_bytes } => {
                return super::maria_types::put_uuid(out, blob(input, length_bytes)?);
            }
            Self::Inet4 { length_bytes } => {
                return super::maria_types::put_inet4(out, blob(input, length_bytes)?);
            }
            Self::Inet6 { length_bytes } => {
                return super::maria_types::put_inet6(out, blob(input, length_bytes)?);
            }
        };
        out.put(value);
        Ok(())
    }
}

#[inline]
fn blob<'a>(input: &mut Input<'a>, length_bytes: u8) -> Result<&'a [u8], BinlogError> {
    let length = match length_bytes {
        1 => usize::from(input.u8()?),
        2 => usize::from(input.u16()?),
        3 => input.u24()? as usize,
        _ => input.u32()? as usize,
    };
    input.bytes(length)
}

/// UTF-8 as it should be, or the bytes as they are.
#[inline]
pub(crate) fn text_of(bytes: &[u8]) -> ValueRef<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => ValueRef::Text(text),
        Err(_) => ValueRef::RawText(bytes),
    }
}
