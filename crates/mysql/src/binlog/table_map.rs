//! TABLE_MAP: what the columns of the row images that follow look like.
//!
//! ```text
//! table_id:u48 flags:u16  len:u8 db 0  len:u8 table 0  columns:packed  type:u8 × columns
//! metadata:packed-bytes  nullable:bitmap  (field:u8 length:packed bytes)*
//! ```
//! The optional fields come with `binlog_row_metadata`: MINIMAL sends signedness, character sets and geometry types,
//! FULL adds names, labels, keys and visibility.

use super::error::BinlogError;
use super::input::{Input, bit};

/// `MYSQL_TYPE_*` codes as table maps carry them.
pub(crate) mod code {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// Collation ids of the text columns (or of the enum and set columns), counted among those columns only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapCharsets {
    /// One for all, and `(index, collation)` of the exceptions.
    Default { collation: u64, exceptions: Vec<(u64, u64)> },
    /// One for each.
    Each(Vec<u64>),
}

impl MapCharsets {
    /// The collation of the `index`-th such column.
    pub fn get(&self, index: usize) -> Option<u64> {
        match self {
            Self::Default { collation, exceptions } => Some(
                exceptions.iter().find(|(column, _)| *column == index as u64).map_or(*collation, |e| e.1),
            ),
            Self::Each(all) => all.get(index).copied(),
        }
    }
}

/// A table as the binlog describes it just before its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableMap {
    /// The server's cache id: new after every DDL and restart, so never an identity.
    pub table_id: u64,
    pub flags: u16,
    pub db: String,
    pub table: String,
    /// `MYSQL_TYPE_*` per column, before the real type of a STRING is taken from its metadata.
    pub column_types: Vec<u8>,
    /// The metadata of each column: 0, 1 or 2 bytes, first byte lowest.
    pub column_metadata: Vec<u16>,
    /// Bit set = the column may be NULL.
    pub nullable: Vec<u8>,
    /// Per column, false for those that are not numbers.
    pub unsigned: Option<Vec<bool>>,
    pub text_charsets: Option<MapCharsets>,
    pub label_charsets: Option<MapCharsets>,
    pub names: Option<Vec<String>>,
    /// The labels of each ENUM column, then of each SET column, as raw bytes in the column's character set.
    pub enum_labels: Option<Vec<Vec<Vec<u8>>>>,
    pub set_labels: Option<Vec<Vec<Vec<u8>>>>,
    /// `(column, prefix length in characters)`; prefix 0 is the whole column.
    pub primary_key: Option<Vec<(u64, u64)>>,
    pub geometry_types: Option<Vec<u64>>,
    /// Per column.
    pub visible: Option<Vec<bool>>,
    pub vector_dimensions: Option<Vec<u64>>,
}

impl TableMap {
    pub(crate) fn read(body: &[u8]) -> Result<Self, BinlogError> {
        let mut input = Input::new(body, "table map event");
        let table_id = input.u48()?;
        let flags = input.u16()?;
        let db = name(&mut input)?;
        let table = name(&mut input)?;
        let count = input.packed_len()?;
        let column_types = input.bytes(count)?.to_vec();
        let column_metadata = metadata(&column_types, input.packed_bytes()?)?;
        let nullable = input.bytes(count.div_ceil(8))?.to_vec();
        let mut map =
            Self { table_id, flags, db, table, column_types, column_metadata, nullable, ..Self::default() };
        while !input.is_empty() {
            let field = input.u8()?;
            let value = input.packed_bytes()?;
            map.optional(field, Input::new(value, "table map's optional metadata"))?;
        }
        Ok(map)
    }

    pub fn column_count(&self) -> usize {
        self.column_types.len()
    }

    pub fn is_nullable(&self, column: usize) -> bool {
        bit(&self.nullable, column)
    }

    /// The type and metadata of a column, with ENUM, SET and long CHARs unfolded from STRING.
    ///
    /// A STRING's metadata is `real_type, length`; lengths over 255 hide their bits 8 and 9 inverted in bits 4 and 5
    /// of the type byte.
    pub(crate) fn real_type(&self, column: usize) -> (u8, u16) {
        let (ty, metadata) = (self.column_types[column], self.column_metadata[column]);
        if ty != code::STRING {
            return (ty, metadata);
        }
        let (real, length) = (metadata as u8, metadata >> 8);
        if real & 0x30 != 0x30 {
            (real | 0x30, length | u16::from((real & 0x30) ^ 0x30) << 4)
        } else {
            (real, length)
        }
    }

    fn optional(&mut self, field: u8, mut input: Input<'_>) -> Result<(), BinlogError> {
        match field {
            1 => self.unsigned = Some(self.signedness(input.rest)),
            2 => self.text_charsets = Some(default_charset(input)?),
            3 => self.text_charsets = Some(MapCharsets::Each(packed_list(input)?)),
            4 => self.names = Some(names(input)?),
            5 => self.set_labels = Some(labels(input)?),
            6 => self.enum_labels = Some(labels(input)?),
            7 => self.geometry_types = Some(packed_list(input)?),
            8 => self.primary_key = Some(packed_list(input)?.into_iter().map(|c| (c, 0)).collect()),
            9 => {
                let mut key = Vec::new();
                while !input.is_empty() {
                    key.push((input.packed()?, input.packed()?));
                }
                self.primary_key = Some(key);
            }
            10 => self.label_charsets = Some(default_charset(input)?),
            11 => self.label_charsets = Some(MapCharsets::Each(packed_list(input)?)),
            12 => {
                let visible = (0..self.column_count()).map(|c| high_bit(input.rest, c)).collect();
                self.visible = Some(visible);
            }
            13 => self.vector_dimensions = Some(packed_list(input)?),
            _ => {}
        }
        Ok(())
    }

    /// One bit per numeric column, the highest bit of the first byte first.
    fn signedness(&self, bits: &[u8]) -> Vec<bool> {
        let mut index = 0;
        let numeric = |ty: u8| {
            matches!(
                ty,
                code::TINY
                    | code::SHORT
                    | code::INT24
                    | code::LONG
                    | code::LONGLONG
                    | code::YEAR
                    | code::FLOAT
                    | code::DOUBLE
                    | code::NEWDECIMAL
            )
        };
        let flags = self.column_types.iter().map(|ty| {
            if !numeric(*ty) {
                return false;
            }
            index += 1;
            high_bit(bits, index - 1)
        });
        flags.collect()
    }
}

fn high_bit(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte >> (7 - index % 8) & 1 == 1)
}

fn name(input: &mut Input<'_>) -> Result<String, BinlogError> {
    let length = usize::from(input.u8()?);
    let bytes = input.bytes(length)?;
    input.u8()?;
    String::from_utf8(bytes.to_vec()).map_err(|_| input.bad())
}

fn metadata(types: &[u8], bytes: &[u8]) -> Result<Vec<u16>, BinlogError> {
    let mut input = Input::new(bytes, "table map's column metadata");
    let each = types.iter().map(|ty| match *ty {
        code::FLOAT
        | code::DOUBLE
        | code::BLOB
        | code::TINY_BLOB
        | code::MEDIUM_BLOB
        | code::LONG_BLOB
        | code::BLOB_COMPRESSED
        | code::GEOMETRY
        | code::JSON
        | code::VECTOR
        | code::TIMESTAMP2
        | code::DATETIME2
        | code::TIME2 => input.u8().map(u16::from),
        code::VARCHAR
        | code::VARCHAR_COMPRESSED
        | code::VAR_STRING
        | code::STRING
        | code::NEWDECIMAL
        | code::BIT
        | code::ENUM
        | code::SET => input.u16(),
        _ => Ok(0),
    });
    each.collect()
}

fn default_charset(mut input: Input<'_>) -> Result<MapCharsets, BinlogError> {
    let collation = input.packed()?;
    let mut exceptions = Vec::new();
    while !input.is_empty() {
        exceptions.push((input.packed()?, input.packed()?));
    }
    Ok(MapCharsets::Default { collation, exceptions })
}

fn packed_list(mut input: Input<'_>) -> Result<Vec<u64>, BinlogError> {
    let mut out = Vec::new();
    while !input.is_empty() {
        out.push(input.packed()?);
    }
    Ok(out)
}

fn names(mut input: Input<'_>) -> Result<Vec<String>, BinlogError> {
    let mut out = Vec::new();
    while !input.is_empty() {
        let bytes = input.packed_bytes()?;
        out.push(String::from_utf8(bytes.to_vec()).map_err(|_| input.bad())?);
    }
    Ok(out)
}

fn labels(mut input: Input<'_>) -> Result<Vec<Vec<Vec<u8>>>, BinlogError> {
    let mut out = Vec::new();
    while !input.is_empty() {
        let count = input.packed()?;
        let mut column = Vec::new();
        for _ in 0..count {
            column.push(input.packed_bytes()?.to_vec());
        }
        out.push(column);
    }
    Ok(out)
}
