//! TiCDC's messages in three protocols: rows, statements, definitions of tables and watermarks, each with its commit
//! timestamp (TSO). One message of the open protocol may hold several.
//!
//! [`split`] tells what a message holds and when it was committed; [`read`] reads one part, once its turn has come.

mod canal;
mod open;
pub mod schema;
mod simple;
#[cfg(test)]
mod tests;

use super::connect::ToldColumn;
use super::text;
use super::value::{bytes, of_text};
use base::{Column, ColumnType, Op, TableName, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kafka_protocol::compression::{Decompressor, Lz4};
use schema::Schema;
use std::borrow::Cow;

/// What a frame of LZ4 begins with; TiCDC's `large-message-handle-compression: lz4`.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Bytes of one message once it is unpacked: TiDB's largest transaction entry is 120 MB, and JSON doubles bytes.
const UNPACKED_BYTES_MAX: usize = 512 << 20;

/// TiCDC's protocols that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    CanalJson,
    Open,
}

/// What a part of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything that was committed before has been sent to this partition.
    Watermark,
    /// A table's definition as of now, without an order.
    Bootstrap,
    Ddl,
    Row,
}

/// One event, not read further than to its commit timestamp.
#[derive(Clone, Debug)]
pub struct Part {
    pub kind: Kind,
    pub commit_ts: u64,
    pub key: Bytes,
    pub value: Bytes,
}

/// One event.
#[derive(Debug)]
pub enum Event<'a> {
    Watermark,
    Bootstrap(Schema),
    Ddl(Box<Statement>),
    Row(Box<Row<'a>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    /// The database and the table that the message names; either may be empty.
    pub db: String,
    pub table: String,
    /// The table behind the statement, and before it, where the protocol tells.
    pub after: Option<Schema>,
    pub before: Option<Schema>,
}

/// A change of one row.
#[derive(Debug)]
pub struct Row<'a> {
    pub name: TableName,
    pub op: Op,
    pub before: Option<Image<'a>>,
    pub after: Option<Image<'a>>,
    /// The columns of the key; empty when the message does not tell.
    pub key: Vec<String>,
    /// What the message tells of its columns' types; empty where another message tells.
    pub told: Vec<ToldColumn>,
    /// The version of the table's definition, where another message tells it.
    pub schema_version: Option<u64>,
    /// The message has the columns of the key alone, because the row was too large.
    pub key_only: bool,
    /// Where the whole message is.
    pub claim_check: Option<String>,
}

/// Columns and their values, in the order of the message.
pub type Image<'a> = Vec<(Cow<'a, str>, Cell<'a>)>;

/// One value as the message has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    /// As TiDB prints it; bytes as the protocol packs them.
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
}

/// The parts of a message, each with its commit timestamp. `Err` says what is wrong with it.
pub fn split(protocol: Protocol, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Vec<Part>, String> {
    match protocol {
        Protocol::Open => open::split(key.unwrap_or_default(), value.unwrap_or_default()),
        Protocol::Simple | Protocol::CanalJson => {
            let Some(value) = value else { return Ok(Vec::new()) };
            let value = unpacked(value)?;
            let (kind, commit_ts) = match protocol {
                Protocol::Simple => simple::head(&value)?,
                _ => canal::head(&value)?,
            };
            Ok(vec![Part { kind, commit_ts, key: Bytes::new(), value }])
        }
    }
}

/// What a part holds.
pub fn read(protocol: Protocol, part: &Part) -> Result<Event<'_>, String> {
    if part.kind == Kind::Watermark {
        return Ok(Event::Watermark);
    }
    match protocol {
        Protocol::Simple => simple::read(&part.value),
        Protocol::CanalJson => canal::read(&part.value),
        Protocol::Open => open::read(part),
    }
}

/// A message without its compression; always a copy, so that no batch of the broker is kept for one message of it.
pub(super) fn unpacked(value: &[u8]) -> Result<Bytes, String> {
    if !value.starts_with(&LZ4_MAGIC) {
        return Ok(Bytes::copy_from_slice(value));
    }
    let mut packed = Bytes::copy_from_slice(value);
    let unpacked = Lz4::decompress(&mut packed, |bytes| Ok(Bytes::copy_from_slice(bytes)));
    let unpacked = unpacked.map_err(|_| "its LZ4 frame is damaged".to_owned())?;
    if unpacked.len() > UNPACKED_BYTES_MAX {
        return Err(format!("it is larger than {UNPACKED_BYTES_MAX} bytes"));
    }
    Ok(unpacked)
}

/// Digits that a DECIMAL of unknown size has before its point, at least: with the thirty that may be behind it, 65.
const WHOLE_DIGITS_MIN: usize = 35;

/// Sizes that a message does not tell of its types, by its values: TiDB prints all digits that a column has.
fn refine(told: &mut [ToldColumn], images: [Option<&Image<'_>>; 2]) {
    for told in told.iter_mut().filter(|told| told.sql_type.is_none()) {
        let cells = images.into_iter().flatten().flatten().filter(|(name, _)| *name == told.name);
        let texts = cells.filter_map(|(_, cell)| if let Cell::Text(text) = cell { Some(text) } else { None });
        let (mut whole, mut fraction) = (WHOLE_DIGITS_MIN, 0);
        for text in texts {
            let (before, behind) = text.split_once('.').unwrap_or((text, ""));
            whole = whole.max(before.trim_start_matches('-').len());
            fraction = fraction.max(behind.len());
        }
        let fsp = fraction.min(6) as u8;
        told.ty = match told.ty {
            ColumnType::Time { .. } => ColumnType::Time { fsp },
            ColumnType::DateTime { .. } => ColumnType::DateTime { fsp },
            ColumnType::Timestamp { .. } => ColumnType::Timestamp { fsp },
            ColumnType::Decimal { .. } => {
                let scale = fraction.min(30);
                ColumnType::Decimal { precision: (whole + scale).min(65) as u8, scale: scale as u8 }
            }
            _ => continue,
        };
    }
}

/// The value of a column; `None` when it is not one of the column's.
pub fn value(protocol: Protocol, cell: &Cell<'_>, column: &Column) -> Option<Value> {
    let binary =
        matches!(column.ty, ColumnType::Binary { .. } | ColumnType::VarBinary { .. } | ColumnType::Geometry);
    Some(match cell {
        Cell::Null => Value::Null,
        Cell::Bytes(raw) if binary => of_bytes(raw.clone(), column),
        // A column that was TEXT when it was told, or the other way round.
        Cell::Bytes(raw) => return text_value(std::str::from_utf8(raw).ok()?, column),
        Cell::Text(text) if binary => {
            let raw = match protocol {
                Protocol::Simple => BASE64.decode(text.as_bytes()).ok()?,
                Protocol::CanalJson => bytes(text)?,
                Protocol::Open => text.as_bytes().to_vec(),
            };
            of_bytes(raw, column)
        }
        Cell::Text(text) => return text_value(text, column),
    })
}

fn of_bytes(raw: Vec<u8>, column: &Column) -> Value {
    if column.ty == ColumnType::Geometry { Value::Geometry(raw) } else { Value::Bytes(raw) }
}

fn text_value(text: &str, column: &Column) -> Option<Value> {
    match &column.ty {
        ColumnType::Text { .. } | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            Some(Value::Text(text.to_owned()))
        }
        ColumnType::Json => {
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            valid.then(|| Value::Json(text::spaced_json(text)))
        }
        ColumnType::Vector { .. } => {
            let numbers: Vec<f32> = serde_json::from_str(text).ok()?;
            Some(Value::Vector(numbers.into_iter().flat_map(f32::to_le_bytes).collect()))
        }
        // Ordinals and bits, whatever the labels are.
        ColumnType::Enum { labels } => {
            let ordinal = text.parse::<u16>().ok()?;
            (usize::from(ordinal) <= labels.len()).then_some(Value::Enum(ordinal))
        }
        ColumnType::Set { labels } => {
            let members = text.parse::<u64>().ok()?;
            let known = labels.len() >= 64 || members >> labels.len() == 0;
            known.then_some(Value::Set(members))
        }
        _ => of_text(text, column),
    }
}
