//! The open protocol: a key and a value that each hold a list, in which an entry is its length and a JSON object.
//!
//! ```text
//! key    version u64be = 1, then for each event: length u64be, {"ts","scm","tbl","t": 1 row | 2 statement | 3 watermark, …}
//! value  for each event: length u64be, {"u": {column: {"t": type, "h"?, "f": flags, "v"}}, "p": {…}} or {"d": {…}}
//! ```

use super::{Cell, Event, Image, Kind, Part, Row, Statement, refine, unpacked};
use crate::formats::decode::cells::{Cells, Raw, is_null, number, object, parse, string, text};
use crate::formats::decode::connect::ToldColumn;
use crate::formats::decode::table_name;
use crate::formats::decode::value::Wire;
use base::{ColumnType, Op};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use std::borrow::Cow;

const VERSION: u64 = 1;
/// A type's code that there is not.
const NO_TYPE: u64 = u64::MAX;
/// Events of one message; TiCDC's `max-batch-size` is 16 by default.
const EVENTS_MAX: usize = 65_536;
const LENGTH_BYTES: usize = 8;

const FLAG_BINARY: u64 = 1;
const FLAG_UNSIGNED: u64 = 128;

pub fn split(key: &[u8], value: &[u8]) -> Result<Vec<Part>, String> {
    let wrong = || "its key does not begin as TiCDC's open protocol does".to_owned();
    let key = unpacked(key)?;
    let (version, mut keys) = number_of(&key).ok_or_else(wrong)?;
    if version != VERSION {
        return Err(wrong());
    }
    let packed = unpacked(value)?;
    let mut values = &packed[..];
    let mut parts = Vec::new();
    while !keys.is_empty() {
        if parts.len() >= EVENTS_MAX {
            return Err(format!("it holds more than {EVENTS_MAX} events"));
        }
        let head = entry(&mut keys).ok_or("its key ends within an event")?;
        let body = entry(&mut values).ok_or("its value has fewer events than its key")?;
        let cells = parse(head, "event's key")?;
        let kind = match number(&cells, "t") {
            Some(1) => Kind::Row,
            Some(2) => Kind::Ddl,
            Some(3) => Kind::Watermark,
            _ => return Err("an event's `t` is none of TiCDC's open protocol".into()),
        };
        let commit_ts = cells.get("ts").and_then(|raw| raw.get().parse().ok());
        let commit_ts = commit_ts.ok_or("an event has no `ts`")?;
        let copy = Bytes::copy_from_slice;
        parts.push(Part { kind, commit_ts, key: copy(head), value: copy(body) });
    }
    if !values.is_empty() {
        return Err("its value has more events than its key".into());
    }
    Ok(parts)
}

fn number_of(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_at_checked(LENGTH_BYTES)?;
    Some((u64::from_be_bytes(head.try_into().ok()?), rest))
}

/// Takes one entry off a list.
fn entry<'a>(list: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = number_of(list)?;
    let (entry, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *list = rest;
    Some(entry)
}

pub fn read(part: &Part) -> Result<Event<'_>, String> {
    let (head, body) = (parse(&part.key, "event's key")?, parse(&part.value, "event's value")?);
    if part.kind == Kind::Ddl {
        let name = |member| text(&head, member).unwrap_or_default().into_owned();
        let sql = text(&body, "q").ok_or("a statement has no `q`")?.into_owned();
        return Ok(Event::Ddl(Box::new(Statement {
            sql,
            db: name("scm"),
            table: name("tbl"),
            after: None,
            before: None,
        })));
    }
    let (mut told, mut key) = (Vec::new(), Vec::new());
    let (new, deleted) = (object(&body, "u")?, object(&body, "d")?);
    let old = object(&body, "p")?;
    let (op, before, after) = match (new, deleted, old) {
        (Some(new), _, Some(old)) => (Op::Update, Some(old), Some(new)),
        // Without old values an update looks as an insert does.
        (Some(new), _, None) => (Op::Insert, None, Some(new)),
        (None, Some(deleted), _) => (Op::Delete, Some(deleted), None),
        (None, None, _) => return Err("a row has neither `u` nor `d`".into()),
    };
    let before = before.map(|cells| image(cells, &mut told, &mut key)).transpose()?;
    let after = after.map(|cells| image(cells, &mut told, &mut key)).transpose()?;
    refine(&mut told, [before.as_ref(), after.as_ref()]);
    Ok(Event::Row(Box::new(Row {
        name: table_name(&head, "scm", "tbl")?,
        op,
        before,
        after,
        key,
        told,
        schema_version: None,
        key_only: head.get("ohk").is_some_and(|raw| raw.get() == "true"),
        claim_check: text(&head, "ccl").filter(|place| !place.is_empty()).map(Cow::into_owned),
    })))
}

fn image<'a>(
    cells: Cells<'a>,
    told: &mut Vec<ToldColumn>,
    key: &mut Vec<String>,
) -> Result<Image<'a>, String> {
    let mut out = Vec::with_capacity(cells.0.len());
    for (name, raw) in cells.0 {
        let wrong = |why: &str| format!("its `{name}` {why}");
        let column: Cells<'a> =
            serde_json::from_str(raw.get()).map_err(|_| wrong("is no column of TiCDC's open protocol"))?;
        let code = column.get("t").and_then(|raw| raw.get().parse::<u64>().ok()).unwrap_or(NO_TYPE);
        let flags = column.get("f").and_then(|raw| raw.get().parse::<u64>().ok()).unwrap_or_default();
        let (ty, exact) = told_type(code, flags).ok_or_else(|| wrong("has a type that is not known"))?;
        let packing = Packing::of(code, flags);
        let value = column.get("v").filter(|raw| !is_null(*raw));
        let cell = match value {
            None => Cell::Null,
            Some(raw) => packing.cell(raw).ok_or_else(|| wrong("is no value of its type"))?,
        };
        if column.get("h").is_some_and(|raw| raw.get() == "true") && !key.iter().any(|own| *own == name) {
            key.push(name.clone().into_owned());
        }
        if told.iter().all(|own| own.name != name) {
            let sql_type = exact.then(|| crate::formats::decode::types::sql_type(&ty, false));
            told.push(ToldColumn { name: name.clone().into_owned(), ty, wire: Wire::Canal, sql_type });
        }
        out.push((name, cell));
    }
    Ok(out)
}

/// The type of a code of MySQL's protocol, and whether it is known whole.
fn told_type(code: u64, flags: u64) -> Option<(ColumnType, bool)> {
    const LONGEST: u64 = u32::MAX as u64;
    let unsigned = flags & FLAG_UNSIGNED != 0;
    let bytes = |bytes_max| ColumnType::VarBinary { bytes_max };
    let text = |chars_max| ColumnType::Text { chars_max };
    let of = |size: u64| if flags & FLAG_BINARY != 0 { bytes(size) } else { text(size) };
    Some(match code {
        1 => (ColumnType::TinyInt { unsigned }, true),
        2 => (ColumnType::SmallInt { unsigned }, true),
        9 => (ColumnType::MediumInt { unsigned }, true),
        3 => (ColumnType::Int { unsigned }, true),
        8 => (ColumnType::BigInt { unsigned }, true),
        4 => (ColumnType::Float, true),
        5 => (ColumnType::Double, true),
        0 | 246 => (ColumnType::Decimal { precision: 65, scale: 30 }, false),
        16 => (ColumnType::Bit { bits: 64 }, false),
        13 => (ColumnType::Year, true),
        10 | 14 => (ColumnType::Date, true),
        11 => (ColumnType::Time { fsp: 0 }, false),
        12 => (ColumnType::DateTime { fsp: 0 }, false),
        7 => (ColumnType::Timestamp { fsp: 0 }, false),
        15 | 249..=254 => (of(LONGEST), false),
        // Ordinals: the labels are not told.
        247 => (ColumnType::SmallInt { unsigned: true }, true),
        248 => (ColumnType::BigInt { unsigned: true }, true),
        245 => (ColumnType::Json, true),
        225 => (ColumnType::Vector { dimensions: 0 }, true),
        255 => (ColumnType::Geometry, true),
        _ => return None,
    })
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    /// Texts and bytes of TEXT and BLOB columns alike.
    Base64 {
        binary: bool,
    },
    /// Bytes that are no printable text as Go's `strconv.Quote` escapes them.
    Escaped,
}

impl Packing {
    fn of(code: u64, flags: u64) -> Self {
        let binary = flags & FLAG_BINARY != 0;
        match code {
            249..=252 => Self::Base64 { binary },
            15 | 253 | 254 if binary => Self::Escaped,
            _ => Self::Plain,
        }
    }

    fn cell(self, raw: Raw<'_>) -> Option<Cell<'_>> {
        let text = match raw.get().as_bytes().first()? {
            b'"' => string(raw)?,
            b'{' | b'[' | b't' | b'f' => return None,
            _ => Cow::Borrowed(raw.get()),
        };
        match self {
            Self::Plain => Some(Cell::Text(text)),
            Self::Base64 { binary } => {
                let bytes = BASE64.decode(text.as_bytes()).ok()?;
                if binary {
                    return Some(Cell::Bytes(bytes));
                }
                String::from_utf8(bytes).ok().map(|text| Cell::Text(Cow::Owned(text)))
            }
            Self::Escaped => unquoted(&text).map(Cell::Bytes),
        }
    }
}

/// What Go's `strconv.Quote` wrote, without its quotes.
fn unquoted(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        let digits = match escape {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => 0,
        };
        let end = at + 2 + digits;
        let code = rest.get(at + 2..end)?;
        match escape {
            b'x' => out.push(u8::from_str_radix(code, 16).ok()?),
            b'u' | b'U' => {
                let c = char::from_u32(u32::from_str_radix(code, 16).ok()?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            b'a' => out.push(0x07),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'\\' | b'"' | b'\'' => out.push(escape),
            _ => return None,
        }
        rest = rest.get(end..)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}
