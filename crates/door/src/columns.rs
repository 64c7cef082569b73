//! Columns and rows of a result as packets: types, lengths and flags as MySQL tells them, since drivers go by these.

use base::{Column, ColumnType, Value};
use engine::{Origin, cell_text};
use mysql::protocol::{put_bytes, put_integer};

/// `utf8mb4_0900_ai_ci`, in which all text goes out.
const UTF8MB4: u16 = 255;
/// Of a character in UTF-8.
const BYTES_OF_CHAR_MAX: u32 = 4;
/// What is no text.
const BINARY: u16 = 63;
/// The digits of a number that has as many as it needs.
const DIGITS_FREE: u8 = 31;
/// The longest VARCHAR of four bytes a character, for text of which only that it is text is known.
const TEXT_BYTES: u32 = 65_532;

const NOT_NULL: u16 = 1;
const PRIMARY_KEY: u16 = 2;
const BLOB: u16 = 16;
const UNSIGNED: u16 = 32;
const ZEROFILL: u16 = 64;
const BINARY_FLAG: u16 = 128;
const ENUM: u16 = 256;
const AUTO_INCREMENT: u16 = 512;
const SET: u16 = 2048;

/// The numbers of types.
mod kind {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONG_LONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const BIT: u8 = 16;
    pub const JSON: u8 = 245;
    pub const NEW_DECIMAL: u8 = 246;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// What a column is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    pub kind: u8,
    charset: u16,
    bytes: u32,
    flags: u16,
    decimals: u8,
}

/// A column of a result, and how it is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of the values that come.
    column: Column,
    origin: Option<Origin>,
    wire: Wire,
}

impl Told {
    /// `converted`: the client wants text in a character set of its choice, and hears of lengths in that.
    pub fn new(column: Column, origin: Option<Origin>, converted: bool) -> Self {
        let mut wire = match &origin {
            Some(origin) => of_table(origin),
            None => computed(&column),
        };
        if !converted && wire.kind == kind::BLOB && wire.charset == UTF8MB4 && wire.bytes < u32::MAX {
            wire.bytes /= BYTES_OF_CHAR_MAX;
        }
        Self { column, origin, wire }
    }

    /// The definition's payload.
    pub fn definition(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_bytes(&mut out, b"def");
        let (schema, table, own_table, own_name) = match &self.origin {
            Some(it) => (it.dataset.as_str(), it.alias.as_str(), it.table.as_str(), it.column.name.as_str()),
            None => ("", "", "", ""),
        };
        for text in [schema, table, own_table, self.column.name.as_str(), own_name] {
            put_bytes(&mut out, text.as_bytes());
        }
        put_integer(&mut out, 12);
        out.extend_from_slice(&self.wire.charset.to_le_bytes());
        out.extend_from_slice(&self.wire.bytes.to_le_bytes());
        out.push(self.wire.kind);
        out.extend_from_slice(&self.wire.flags.to_le_bytes());
        out.extend_from_slice(&[self.wire.decimals, 0, 0]);
        out
    }
}

/// The definition of a parameter, of which nothing is known.
pub fn parameter() -> Vec<u8> {
    let column = text_column("?");
    let wire = Wire { kind: kind::VAR_STRING, charset: BINARY, bytes: 0, flags: BINARY_FLAG, decimals: 0 };
    Told { column, origin: None, wire }.definition()
}

/// A column of text for results that are made here.
pub fn text_column(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        ty: ColumnType::Text { chars_max: 255 },
        sql_type: "varchar(255)".into(),
        nullable: true,
        charset: Some("utf8mb4".into()),
        collation: Some("utf8mb4_0900_ai_ci".into()),
        generated: base::Generated::No,
        invisible: false,
    }
}

/// A column of numbers, likewise.
pub fn number_column(name: &str) -> Column {
    Column {
        ty: ColumnType::BigInt { unsigned: true },
        sql_type: "bigint unsigned".into(),
        charset: None,
        collation: None,
        ..text_column(name)
    }
}

fn number(kind: u8, bytes: u32, unsigned: bool) -> Wire {
    let flags = BINARY_FLAG | if unsigned { UNSIGNED } else { 0 };
    Wire { kind, charset: BINARY, bytes, flags, decimals: 0 }
}

fn fraction(bytes: u32, fsp: u8) -> u32 {
    bytes + if fsp > 0 { u32::from(fsp) + 1 } else { 0 }
}

/// Types that are the same of a table and computed.
fn plain(ty: &ColumnType, timestamp: bool) -> Wire {
    match ty {
        ColumnType::TinyInt { unsigned } => number(kind::TINY, if *unsigned { 3 } else { 4 }, *unsigned),
        ColumnType::SmallInt { unsigned } => number(kind::SHORT, if *unsigned { 5 } else { 6 }, *unsigned),
        ColumnType::MediumInt { unsigned } => number(kind::INT24, if *unsigned { 8 } else { 9 }, *unsigned),
        ColumnType::Int { unsigned } => number(kind::LONG, if *unsigned { 10 } else { 11 }, *unsigned),
        ColumnType::BigInt { unsigned } => number(kind::LONG_LONG, 20, *unsigned),
        ColumnType::Float => Wire { decimals: DIGITS_FREE, ..number(kind::FLOAT, 12, false) },
        ColumnType::Double => Wire { decimals: DIGITS_FREE, ..number(kind::DOUBLE, 22, false) },
        ColumnType::Decimal { precision, scale } => {
            // A sign, and a point.
            let bytes = u32::from(*precision) + 1 + u32::from(*scale > 0);
            Wire { decimals: *scale, ..number(kind::NEW_DECIMAL, bytes, false) }
        }
        ColumnType::Bit { bits } => number(kind::BIT, u32::from(*bits), true),
        ColumnType::Year => Wire { flags: UNSIGNED | ZEROFILL, ..number(kind::YEAR, 4, true) },
        ColumnType::Date => number(kind::DATE, 10, false),
        ColumnType::Time { fsp } => Wire { decimals: *fsp, ..number(kind::TIME, fraction(10, *fsp), false) },
        ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => {
            let kind = if timestamp { kind::TIMESTAMP } else { kind::DATETIME };
            Wire { decimals: *fsp, ..number(kind, fraction(19, *fsp), false) }
        }
        ColumnType::Json => Wire { flags: BLOB | BINARY_FLAG, ..number(kind::JSON, u32::MAX, false) },
        ColumnType::Geometry | ColumnType::Vector { .. } => {
            Wire { flags: BLOB | BINARY_FLAG, ..number(kind::GEOMETRY, u32::MAX, false) }
        }
        ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => {
            Wire { decimals: DIGITS_FREE, ..number(kind::VAR_STRING, TEXT_BYTES, false) }
        }
        ColumnType::Text { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. }
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => text(kind::VAR_STRING, TEXT_BYTES, 0),
    }
}

fn text(kind: u8, bytes: u32, flags: u16) -> Wire {
    Wire { kind, charset: UTF8MB4, bytes, flags, decimals: DIGITS_FREE }
}

/// A value that an expression computes.
fn computed(column: &Column) -> Wire {
    match &column.ty {
        ColumnType::Int { unsigned } => number(kind::LONG_LONG, 11, *unsigned),
        ColumnType::BigInt { unsigned } => number(kind::LONG_LONG, 21, *unsigned),
        ty => plain(ty, false),
    }
}

/// A column of a table, by its declared type.
fn of_table(origin: &Origin) -> Wire {
    let column = &origin.column;
    let name = column.sql_type.to_ascii_lowercase();
    let word = name.split(['(', ' ']).next().unwrap_or_default();
    let chars = |chars: u64| u32::try_from(chars.saturating_mul(4)).unwrap_or(u32::MAX);
    let mut wire = match (&column.ty, word) {
        (ColumnType::TinyInt { unsigned }, _) if name.starts_with("tinyint(1)") => {
            number(kind::TINY, 1, *unsigned)
        }
        (ColumnType::Text { .. }, "tinytext") => text(kind::BLOB, 255 * 4, BLOB),
        (ColumnType::Text { .. }, "text") => text(kind::BLOB, 65_535 * 4, BLOB),
        (ColumnType::Text { .. }, "mediumtext") => text(kind::BLOB, 0xff_ffff * 4, BLOB),
        (ColumnType::Text { .. }, "longtext") => text(kind::BLOB, u32::MAX, BLOB),
        (ColumnType::Text { .. }, "enum") => text(kind::STRING, TEXT_BYTES, ENUM),
        (ColumnType::Text { .. }, "set") => text(kind::STRING, TEXT_BYTES, SET),
        (ColumnType::Text { chars_max }, "char") => text(kind::STRING, chars(*chars_max), 0),
        (ColumnType::Text { chars_max }, _) => text(kind::VAR_STRING, chars(*chars_max), 0),
        (ColumnType::Binary { bytes }, _) => number(kind::STRING, *bytes, false),
        (ColumnType::VarBinary { bytes_max }, "binary") => number(kind::STRING, short(*bytes_max), false),
        (ColumnType::VarBinary { bytes_max }, "varbinary") => {
            number(kind::VAR_STRING, short(*bytes_max), false)
        }
        (ColumnType::VarBinary { bytes_max }, _) => {
            Wire { flags: BLOB | BINARY_FLAG, ..number(kind::BLOB, short(*bytes_max), false) }
        }
        (ty, word) => plain(ty, word == "timestamp"),
    };
    let is_number = matches!(
        wire.kind,
        kind::TINY
            | kind::SHORT
            | kind::LONG
            | kind::LONG_LONG
            | kind::INT24
            | kind::FLOAT
            | kind::DOUBLE
            | kind::NEW_DECIMAL
    );
    if is_number {
        // Only of computed numbers it is told.
        wire.flags &= !BINARY_FLAG;
    }
    // How many decimals a text has says nothing, and a column's is 0.
    if matches!(wire.kind, kind::VAR_STRING | kind::STRING | kind::BLOB) {
        wire.decimals = 0;
    }
    for (is, flag) in [
        (!column.nullable, NOT_NULL),
        (origin.primary_key, PRIMARY_KEY),
        (origin.auto_increment, AUTO_INCREMENT),
    ] {
        wire.flags |= if is { flag } else { 0 };
    }
    wire
}

fn short(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A row of the text protocol.
pub fn text_row(row: &[Value], columns: &[Told], out: &mut Vec<u8>) {
    for (value, told) in row.iter().zip(columns) {
        match raw(value) {
            Some(bytes) => put_bytes(out, bytes),
            None => match cell_text(value, &told.column) {
                Some(text) => put_bytes(out, text.as_bytes()),
                None => out.push(0xfb),
            },
        }
    }
}

fn raw(value: &Value) -> Option<&[u8]> {
    match value {
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            Some(bytes)
        }
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// A row of the binary protocol.
pub fn binary_row(row: &[Value], columns: &[Told], out: &mut Vec<u8>) {
    out.push(0);
    let nulls = out.len();
    // Two bits in front are nobody's.
    out.resize(nulls + (columns.len() + 9) / 8, 0);
    for (at, (value, told)) in row.iter().zip(columns).enumerate() {
        if matches!(value, Value::Null) {
            out[nulls + (at + 2) / 8] |= 1 << ((at + 2) % 8);
            continue;
        }
        binary(value, told, out);
    }
}

fn binary(value: &Value, told: &Told, out: &mut Vec<u8>) {
    let width = match told.wire.kind {
        kind::TINY => 1,
        kind::SHORT | kind::YEAR => 2,
        kind::LONG | kind::INT24 => 4,
        kind::LONG_LONG => 8,
        kind::FLOAT => return out.extend_from_slice(&(double(value) as f32).to_le_bytes()),
        kind::DOUBLE => return out.extend_from_slice(&double(value).to_le_bytes()),
        kind::DATE | kind::DATETIME | kind::TIMESTAMP => return moment(value, out),
        kind::TIME => return time(value, out),
        _ => {
            match raw(value) {
                Some(bytes) => put_bytes(out, bytes),
                None => put_bytes(out, cell_text(value, &told.column).unwrap_or_default().as_bytes()),
            }
            return;
        }
    };
    let bits = match value {
        Value::Int(v) => *v as u64,
        Value::UInt(v) | Value::Bit(v) | Value::Set(v) => *v,
        Value::Year(v) => u64::from(*v),
        Value::Enum(v) => u64::from(*v),
        _ => 0,
    };
    out.extend_from_slice(&bits.to_le_bytes()[..width]);
}

fn double(value: &Value) -> f64 {
    match value {
        Value::Float(v) => f64::from(*v),
        Value::Double(v) => *v,
        Value::Int(v) => *v as f64,
        Value::UInt(v) => *v as f64,
        _ => 0.0,
    }
}

fn moment(value: &Value, out: &mut Vec<u8>) {
    let (date, time) = match value {
        Value::Date(date) => (*date, None),
        Value::DateTime(it) => (it.date, Some((it.hour, it.minute, it.second, it.micro))),
        _ => return out.push(0),
    };
    let (hour, minute, second, micros) = time.unwrap_or_default();
    out.push(match (time, micros) {
        (None, _) => 4,
        (Some(_), 0) => 7,
        (Some(_), _) => 11,
    });
    out.extend_from_slice(&date.year.to_le_bytes());
    out.extend_from_slice(&[date.month, date.day]);
    if time.is_some() {
        out.extend_from_slice(&[hour, minute, second]);
        if micros > 0 {
            out.extend_from_slice(&micros.to_le_bytes());
        }
    }
}

fn time(value: &Value, out: &mut Vec<u8>) {
    let Value::Time(signed) = value else { return out.push(0) };
    let micros = signed.unsigned_abs();
    let (seconds, rest) = (micros / 1_000_000, (micros % 1_000_000) as u32);
    out.push(if rest > 0 { 12 } else { 8 });
    out.push(u8::from(*signed < 0));
    out.extend_from_slice(&((seconds / 86_400) as u32).to_le_bytes());
    out.extend_from_slice(&[(seconds / 3600 % 24) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8]);
    if rest > 0 {
        out.extend_from_slice(&rest.to_le_bytes());
    }
}
