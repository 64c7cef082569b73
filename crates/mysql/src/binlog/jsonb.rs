//! MySQL's binary JSON, printed exactly as the server prints it.
//!
//! ```text
//! document  = type:u8 value
//! container = count size (key_offset key_length:u16)* (type:u8 offset_or_inlined)* keys values
//! ```
//! Counts, sizes and offsets are u16 in small containers and u32 in large ones; offsets count from the container's
//! start. Literals and 16-bit integers (32-bit ones too in large containers) stand inlined in place of an offset.

use super::decimal::{DECIMAL_TEXT_BYTES_MAX, decimal_text};
use super::error::{BinlogError, malformed};
use super::input::Input;
use super::table_map::code;
use super::temporal;
use base::RowWriter;
use base::value::{format_datetime, format_time};
use std::io::Write;

/// How deep MySQL lets documents nest.
pub(super) const DEPTH_MAX: usize = 100;

const SMALL_OBJECT: u8 = 0;
pub(super) const LARGE_OBJECT: u8 = 1;
const SMALL_ARRAY: u8 = 2;
pub(super) const LARGE_ARRAY: u8 = 3;
pub(super) const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

fn bad() -> BinlogError {
    malformed("JSON value")
}

/// Appends a JSON value to a row. An empty value, which old tables hold, is the literal null, as the server says.
pub(super) fn put_json(out: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), BinlogError> {
    put_printed(out, |raw| print_json(bytes, raw))
}

/// Appends what `print` prints of a document that is in so many bytes.
pub(super) fn put_json_with(
    out: &mut RowWriter<'_>,
    bytes: usize,
    print: impl FnOnce(&mut Printer<'_>) -> Result<(), BinlogError>,
) -> Result<(), BinlogError> {
    put_printed(out, |raw| {
        let limit = limit(raw, bytes);
        print(&mut Printer { out: raw, limit })
    })
}

#[inline]
fn put_printed(
    out: &mut RowWriter<'_>,
    print: impl FnOnce(&mut Vec<u8>) -> Result<(), BinlogError>,
) -> Result<(), BinlogError> {
    let raw = out.raw();
    raw.push(18);
    let start = raw.len();
    // Most texts take 128 bytes to 16 KiB, whose length takes two bytes: the text moves only when it does not.
    raw.extend_from_slice(&[0, 0]);
    print(raw)?;
    let length = (raw.len() - start - 2) as u64;
    let mut prefix = [0u8; 10];
    let mut bytes = 0;
    let mut rest = length;
    while rest >= 0x80 {
        prefix[bytes] = rest as u8 | 0x80;
        bytes += 1;
        rest >>= 7;
    }
    prefix[bytes] = rest as u8;
    raw.splice(start..start + 2, prefix[..=bytes].iter().copied());
    Ok(())
}

/// Appends the text of a binary JSON document.
pub(crate) fn print_json(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BinlogError> {
    let limit = limit(out, bytes.len());
    match bytes.split_first() {
        None => out.extend_from_slice(b"null"),
        Some((ty, value)) => Printer { out, limit }.value(*ty, value, DEPTH_MAX)?,
    }
    Ok(())
}

/// How long the output may get. A reference may be shared, so a crafted document could print exponentially; a real one
/// prints every byte once.
fn limit(out: &[u8], bytes: usize) -> usize {
    out.len() + bytes.saturating_mul(32) + 64
}

/// A member of an object, or a cell of an array, whose key is empty.
pub(super) struct Entry<'a> {
    pub key: &'a [u8],
    pub ty: u8,
    pub value: &'a [u8],
}

/// What a container holds, one level deep.
pub(super) fn entries(ty: u8, bytes: &[u8]) -> Result<Vec<Entry<'_>>, BinlogError> {
    let is_object = ty <= LARGE_OBJECT;
    let width = if matches!(ty, SMALL_OBJECT | SMALL_ARRAY) { 2 } else { 4 };
    let mut header = Input::new(bytes, "JSON value");
    let count = header.uint_le(width)? as usize;
    let size = header.uint_le(width)? as usize;
    let bytes = bytes.get(..size).ok_or_else(bad)?;
    let key_entry = if is_object { width + 2 } else { 0 };
    let values_at = 2 * width + count.checked_mul(key_entry).ok_or_else(bad)?;
    let mut keys = Input::new(bytes.get(2 * width..values_at).ok_or_else(bad)?, "JSON value");
    let mut values = Input::new(bytes.get(values_at..).ok_or_else(bad)?, "JSON value");
    let mut out = Vec::new();
    for _ in 0..count {
        let mut key: &[u8] = &[];
        if is_object {
            let offset = keys.uint_le(width)? as usize;
            let length = usize::from(keys.u16()?);
            key = offset.checked_add(length).and_then(|end| bytes.get(offset..end)).ok_or_else(bad)?;
        }
        let ty = values.u8()?;
        let slot = values.bytes(width)?;
        let value = if is_inlined(ty, width) {
            slot
        } else {
            bytes.get(Input::new(slot, "JSON value").uint_le(width)? as usize..).ok_or_else(bad)?
        };
        out.push(Entry { key, ty, value });
    }
    Ok(out)
}

/// Whether a value stands in place of its offset.
fn is_inlined(ty: u8, width: usize) -> bool {
    matches!(ty, LITERAL | INT16 | UINT16) || (width == 4 && matches!(ty, INT32 | UINT32))
}

pub(super) struct Printer<'o> {
    pub(super) out: &'o mut Vec<u8>,
    limit: usize,
}

impl Printer<'_> {
    pub(super) fn value(&mut self, ty: u8, bytes: &[u8], depth: usize) -> Result<(), BinlogError> {
        if self.out.len() > self.limit {
            return Err(bad());
        }
        let mut input = Input::new(bytes, "JSON value");
        match ty {
            SMALL_OBJECT | LARGE_OBJECT | SMALL_ARRAY | LARGE_ARRAY => {
                let depth = depth.checked_sub(1).ok_or_else(bad)?;
                return self.container(ty, bytes, depth);
            }
            LITERAL => self.literal(input.u8()?)?,
            INT16 => self.text(format_args!("{}", input.u16()? as i16)),
            UINT16 => self.text(format_args!("{}", input.u16()?)),
            INT32 => self.text(format_args!("{}", input.u32()? as i32)),
            UINT32 => self.text(format_args!("{}", input.u32()?)),
            INT64 => self.text(format_args!("{}", input.u64()? as i64)),
            UINT64 => self.text(format_args!("{}", input.u64()?)),
            DOUBLE => put_double(self.out, f64::from_le_bytes(input.array()?)),
            STRING => {
                let length = variable_length(&mut input)?;
                self.string(input.bytes(length)?)?;
            }
            OPAQUE => {
                let field_type = input.u8()?;
                let length = variable_length(&mut input)?;
                self.opaque(field_type, input.bytes(length)?)?;
            }
            _ => return Err(bad()),
        }
        Ok(())
    }

    fn text(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _ = self.out.write_fmt(text);
    }

    fn literal(&mut self, value: u8) -> Result<(), BinlogError> {
        self.out.extend_from_slice(match value {
            0 => b"null".as_slice(),
            1 => b"true",
            2 => b"false",
            _ => return Err(bad()),
        });
        Ok(())
    }

    fn container(&mut self, ty: u8, bytes: &[u8], depth: usize) -> Result<(), BinlogError> {
        let is_object = ty <= LARGE_OBJECT;
        let width = if matches!(ty, SMALL_OBJECT | SMALL_ARRAY) { 2 } else { 4 };
        let mut header = Input::new(bytes, "JSON value");
        let count = header.uint_le(width)? as usize;
        let size = header.uint_le(width)? as usize;
        let bytes = bytes.get(..size).ok_or_else(bad)?;
        let key_entry = if is_object { width + 2 } else { 0 };
        let values_at = 2 * width + count.checked_mul(key_entry).ok_or_else(bad)?;
        let mut keys = Input::new(bytes.get(2 * width..values_at).ok_or_else(bad)?, "JSON value");
        let mut values = Input::new(bytes.get(values_at..).ok_or_else(bad)?, "JSON value");
        self.out.push(if is_object { b'{' } else { b'[' });
        for index in 0..count {
            if index > 0 {
                self.out.extend_from_slice(b", ");
            }
            if is_object {
                let offset = keys.uint_le(width)? as usize;
                let length = usize::from(keys.u16()?);
                let key = offset.checked_add(length).and_then(|end| bytes.get(offset..end));
                self.string(key.ok_or_else(bad)?)?;
                self.out.extend_from_slice(b": ");
            }
            let ty = values.u8()?;
            let slot = values.bytes(width)?;
            if is_inlined(ty, width) {
                self.value(ty, slot, depth)?;
            } else {
                let offset = Input::new(slot, "JSON value").uint_le(width)? as usize;
                self.value(ty, bytes.get(offset..).ok_or_else(bad)?, depth)?;
            }
        }
        self.out.push(if is_object { b'}' } else { b']' });
        Ok(())
    }

    /// Quotes and escapes: `"` and `\`, the five short escapes, `\u00xx` for other control characters.
    pub(super) fn string(&mut self, bytes: &[u8]) -> Result<(), BinlogError> {
        std::str::from_utf8(bytes).map_err(|_| bad())?;
        self.out.push(b'"');
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| *b < 0x20 || matches!(b, b'"' | b'\\')) {
            self.out.extend_from_slice(&rest[..at]);
            match rest[at] {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                8 => self.out.extend_from_slice(b"\\b"),
                9 => self.out.extend_from_slice(b"\\t"),
                10 => self.out.extend_from_slice(b"\\n"),
                12 => self.out.extend_from_slice(b"\\f"),
                13 => self.out.extend_from_slice(b"\\r"),
                other => self.text(format_args!("\\u{other:04x}")),
            }
            rest = &rest[at + 1..];
        }
        self.out.extend_from_slice(rest);
        self.out.push(b'"');
        Ok(())
    }

    /// A value JSON has no type for: decimals print as numbers, temporal values as strings, others in base64.
    fn opaque(&mut self, field_type: u8, bytes: &[u8]) -> Result<(), BinlogError> {
        let packed = || bytes.try_into().map(i64::from_le_bytes).map_err(|_| bad());
        match field_type {
            code::NEWDECIMAL => {
                let (head, digits) = bytes.split_first_chunk::<2>().ok_or_else(bad)?;
                let mut buffer = [0; DECIMAL_TEXT_BYTES_MAX];
                let text = decimal_text(digits, head[0].into(), head[1].into(), &mut buffer)?;
                self.out.extend_from_slice(text.as_bytes());
            }
            code::DATE => {
                let date = temporal::datetime_of_micros(packed()?).date;
                self.text(format_args!("\"{date}\""));
            }
            code::DATETIME | code::TIMESTAMP => {
                let value = format_datetime(temporal::datetime_of_micros(packed()?), 6);
                self.text(format_args!("\"{value}\""));
            }
            code::TIME => {
                let value = format_time(temporal::time_of_micros(packed()?), 6);
                self.text(format_args!("\"{value}\""));
            }
            other => {
                self.text(format_args!("\"base64:type{other}:"));
                put_base64(self.out, bytes);
                self.out.push(b'"');
            }
        }
        Ok(())
    }
}

/// Seven bits a byte, least significant first, at most five bytes.
fn variable_length(input: &mut Input<'_>) -> Result<usize, BinlogError> {
    let mut length = 0u64;
    for index in 0..5 {
        let byte = input.u8()?;
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return u32::try_from(length).map(|l| l as usize).map_err(|_| bad());
        }
    }
    Err(bad())
}

/// Base64 as the server writes it into a JSON string: after every 76 digits a line feed, which prints as `\n`.
fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const LINE_BYTES: usize = 57;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (number, line) in bytes.chunks(LINE_BYTES).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\\n");
        }
        for chunk in line.chunks(3) {
            let group = u32::from(chunk[0]) << 16
                | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
                | u32::from(chunk.get(2).copied().unwrap_or(0));
            for index in 0..4 {
                let digit = ALPHABET[(group >> (18 - 6 * index) & 63) as usize];
                out.push(if index <= chunk.len() as u32 { digit } else { b'=' });
            }
        }
    }
}

/// The text of a DOUBLE inside JSON, as the server prints it.
pub fn json_double(value: f64) -> String {
    let mut out = Vec::new();
    put_double(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}

/// A double as the server prints it into JSON (`my_gcvt`, then `.0` on what looks whole): the shortest digits that
/// read back, in fixed notation when the point stands within them or at most 15 places from their start.
fn put_double(out: &mut Vec<u8>, value: f64) {
    const PLACES_MAX: i32 = 15;
    let mut buffer = [0u8; 32];
    let mut rest = buffer.as_mut_slice();
    // The longest is `-1.2345678901234567e-308`.
    let _ = write!(rest, "{value:e}");
    let unused = rest.len();
    let text = &buffer[..buffer.len() - unused];
    let Some(at) = text.iter().position(|b| *b == b'e') else {
        out.extend_from_slice(b"null");
        return;
    };
    let exponent: i32 = std::str::from_utf8(&text[at + 1..]).ok().and_then(|e| e.parse().ok()).unwrap_or(0);
    let mut digits = [0u8; 32];
    let mut count = 0;
    for digit in text[..at].iter().filter(|b| b.is_ascii_digit()) {
        digits[count] = *digit;
        count += 1;
    }
    if text[0] == b'-' {
        out.push(b'-');
    }
    let digits = &digits[..count];
    let point = exponent + 1;
    if point > -PLACES_MAX && (point <= PLACES_MAX || count as i32 > point) {
        put_fixed(out, digits, point);
    } else {
        put_scientific(out, digits, exponent);
    }
}

/// `point` digits stand before the point; when negative, that many zeros stand behind it.
fn put_fixed(out: &mut Vec<u8>, digits: &[u8], point: i32) {
    let zeros = |count: i32| std::iter::repeat_n(b'0', usize::try_from(count).unwrap_or(0));
    match usize::try_from(point) {
        Ok(0) | Err(_) => {
            out.extend_from_slice(b"0.");
            out.extend(zeros(-point));
            out.extend_from_slice(digits);
        }
        Ok(whole) if whole < digits.len() => {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
        Ok(_) => {
            out.extend_from_slice(digits);
            out.extend(zeros(point - digits.len() as i32));
            out.extend_from_slice(b".0");
        }
    }
}

fn put_scientific(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    if let Some((first, rest)) = digits.split_first() {
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
    }
    let _ = write!(out, "e{exponent}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        put_double(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    /// Each pair is what MySQL 9.7 printed for `CAST('…' AS JSON)`.
    #[test]
    fn doubles_print_as_the_server_prints_them() {
        let cases = [
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (1e22, "1e22"),
            (1234567890123456.0, "1.234567890123456e15"),
            (0.00001, "0.00001"),
            (0.00000012, "0.00000012"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.2345678901234567e-10, "0.00000000012345678901234568"),
            (1.7976931348623157e308, "1.7976931348623157e308"),
            (-1e20, "-1e20"),
            (-0.0, "-0.0"),
            (0.0, "0.0"),
            (5e-324, "5e-324"),
            (1.2e15, "1.2e15"),
            (1.2345678901234567e17, "1.2345678901234566e17"),
            (1.234567e-15, "0.000000000000001234567"),
            (-0.5, "-0.5"),
            (1.5, "1.5"),
            (3.0, "3.0"),
        ];
        for (value, expected) in cases {
            assert_eq!(double(value), expected);
        }
    }

    #[test]
    fn texts_of_every_length_get_their_prefix() {
        for length in [0usize, 1, 125, 126, 127, 128, 16_381, 16_382, 16_383, 70_000] {
            let mut document = vec![STRING];
            let mut rest = length;
            while rest >= 0x80 {
                document.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            document.push(rest as u8);
            document.extend(std::iter::repeat_n(b'x', length));
            let mut out = Vec::new();
            put_json(&mut RowWriter::new(&mut out), &document).unwrap();
            let expected = format!("\"{}\"", "x".repeat(length));
            assert_eq!(base::RowView(&out).get(0), Ok(Some(base::ValueRef::Json(&expected))));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut out = Vec::new();
            let _ = print_json(&bytes, &mut out);
        }

        #[test]
        fn arbitrary_containers_never_panic(ty in 0u8..4, count in 0u16..6, size in 0u16..80, rest: Vec<u8>) {
            let mut bytes = vec![ty];
            bytes.extend(count.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(rest);
            let mut out = Vec::new();
            let _ = print_json(&bytes, &mut out);
        }
    }
}
