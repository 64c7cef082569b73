//! JSON files: an array of objects, or an object a line. Read item by item; numbers stay the digits they were written in.

use super::cell::{Cell, Visitor};
use super::lines::{Line, Lines};
use crate::reader::ReadError;
use serde::de::{Deserializer, MapAccess};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};

/// Bytes of an item of an array.
pub const ITEM_BYTES_MAX: usize = 16 << 20;

/// The members of an object in their order, as they are written.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> serde::de::Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                // A name with an escape cannot be borrowed.
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The cell of a value.
pub fn cell(raw: &RawValue) -> Cell<'_> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Cell::Null,
        Some(b't') => Cell::Bool(true),
        Some(b'f') => Cell::Bool(false),
        Some(b'{' | b'[') => Cell::Json(Cow::Borrowed(text)),
        Some(b'"') => match serde_json::from_str::<Name<'_>>(text) {
            Ok(text) => Cell::Text(text.0),
            // A lone surrogate is JSON and no text.
            Err(_) => Cell::Text(Cow::Borrowed(text)),
        },
        _ => Cell::Number(Cow::Borrowed(text)),
    }
}

/// Tells the visitor one item. What is no object is bad; JSON's null counts as the empty text does.
pub fn item(text: &str, line: u64, null: &[String], visitor: &mut dyn Visitor) -> Result<(), ReadError> {
    let members: Members<'_> = match serde_json::from_str(text) {
        Ok(members) => members,
        Err(error) => return visitor.bad(line, text.as_bytes(), &format!("no JSON object: {error}")),
    };
    let mut cells: Vec<(usize, Cell<'_>)> = Vec::with_capacity(members.0.len());
    for (name, raw) in &members.0 {
        let Some(column) = visitor.column(name)? else { continue };
        let cell = match cell(raw) {
            Cell::Text(text) if null.iter().any(|it| *it == text) => Cell::Null,
            cell => cell,
        };
        // The last of two members of one name counts, as everywhere.
        match cells.iter_mut().find(|(known, _)| *known == column) {
            Some(known) => known.1 = cell,
            None => cells.push((column, cell)),
        }
    }
    visitor.row(line, cells)
}

/// Reads an object a line.
pub fn read_lines(
    input: impl BufRead,
    file: &str,
    encoding: super::encoding::Encoding,
    null: &[String],
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    visitor.enter(file);
    let mut lines = Lines::new(input, encoding);
    loop {
        let line = lines.next_line();
        match line.map_err(|error| ReadError::Unavailable(format!("failed to read {file}: {error}")))? {
            None => return Ok(()),
            Some(Line::Text(text)) if text.trim().is_empty() => {}
            Some(Line::Text(text)) => item(&text, lines.number(), null, visitor)?,
            Some(Line::Broken { bytes, reason }) => visitor.bad(lines.number(), &bytes, &reason)?,
        }
    }
}

/// Reads an array of objects. The file must be UTF-8, as JSON must.
pub fn read_array(
    input: impl BufRead,
    file: &str,
    null: &[String],
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    visitor.enter(file);
    let mut items = Items { input, line: 1, depth: 0 };
    let broken = |error: io::Error| ReadError::Unavailable(format!("failed to read {file}: {error}"));
    let no_array = |line: u64| {
        ReadError::bad(
            format!("{file}:{line}: the file is no array of objects"),
            "write `format: jsonl` where each line is an object",
        )
    };
    if items.begin().map_err(broken)? != Some(b'[') {
        return Err(no_array(items.line));
    }
    loop {
        let (at, found) = items.next_item().map_err(broken)?;
        match found {
            Found::End => break,
            Found::Cut => {
                return Err(ReadError::bad(
                    format!("{file}:{}: the file ends inside of its array", items.line),
                    "it was cut off, or is still being written: deliver it whole, under another name that is changed at the end",
                ));
            }
            Found::TooLong(start) => {
                visitor.bad(at, &start, &format!("the item is longer than {ITEM_BYTES_MAX} bytes"))?;
            }
            Found::Item(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => item(text, at, null, visitor)?,
                Err(_) => visitor.bad(at, &bytes, "the bytes are no UTF-8")?,
            },
        }
    }
    match items.begin().map_err(broken)? {
        None => Ok(()),
        Some(_) => Err(no_array(items.line)),
    }
}

enum Found {
    Item(Vec<u8>),
    /// The beginning of one that is too long.
    TooLong(Vec<u8>),
    /// The end of the array.
    End,
    /// The end of the file.
    Cut,
}

/// Cuts an array into its items, by brackets and quotes alone: what is inside of them may be anything.
struct Items<R> {
    input: R,
    line: u64,
    depth: usize,
}

impl<R: BufRead> Items<R> {
    fn byte(&mut self) -> io::Result<Option<u8>> {
        let Some(byte) = self.input.fill_buf()?.first().copied() else { return Ok(None) };
        self.input.consume(1);
        self.line += u64::from(byte == b'\n');
        Ok(Some(byte))
    }

    /// The first byte that is neither blank nor of a byte order mark.
    fn begin(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() || matches!(byte, 0xEF | 0xBB | 0xBF) => {}
                other => return Ok(other),
            }
        }
    }

    /// An item and the line where it begins.
    fn next_item(&mut self) -> io::Result<(u64, Found)> {
        let first = loop {
            match self.begin()? {
                None => return Ok((self.line, Found::Cut)),
                Some(b']') => return Ok((self.line, Found::End)),
                Some(b',') => {}
                Some(byte) => break byte,
            }
        };
        let at = self.line;
        let mut item = vec![first];
        let (mut quoted, mut escaped, mut too_long) = (first == b'"', false, false);
        self.depth = usize::from(matches!(first, b'{' | b'['));
        loop {
            // The end of an item that has no brackets stays for the next.
            if !quoted && self.depth == 0 {
                match self.input.fill_buf()?.first() {
                    Some(b',' | b']') => break,
                    None => return Ok((at, Found::Cut)),
                    Some(_) => {}
                }
            }
            let Some(byte) = self.byte()? else { return Ok((at, Found::Cut)) };
            if item.len() < ITEM_BYTES_MAX {
                item.push(byte);
            } else {
                too_long = true;
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => self.depth += 1,
                b'}' | b']' if !quoted => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if too_long {
            item.truncate(crate::reader::BAD_TEXT_MAX);
            return Ok((at, Found::TooLong(item)));
        }
        while item.last().is_some_and(u8::is_ascii_whitespace) {
            item.pop();
        }
        Ok((at, Found::Item(item)))
    }
}
