//! Messages in Avro as Debezium's JSON with its schema: bytes in base64, numbers as they are.

use super::reader::{Field, Node, Reader, Shape};
use base::json::put_string;
use base::varint::{take_bytes, take_i64};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::Write;

/// Records within records: a schema may name itself.
const DEPTH_MAX: usize = 64;
/// Items of all lists and maps of one message: those of NULL take no byte.
const ITEMS_MAX: usize = 1 << 22;

/// A record, behind its head, as `{"schema","payload"}`. `Err` says what is wrong with it.
pub fn decode(reader: &Reader, record: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(reader.connect.len() + record.len() * 2);
    out.extend_from_slice(b"{\"schema\":");
    out.extend_from_slice(reader.connect.as_bytes());
    out.extend_from_slice(b",\"payload\":");
    put_payload(&mut out, reader, record)?;
    out.push(b'}');
    Ok(out)
}

/// The same without its schema.
pub fn payload(reader: &Reader, record: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(record.len() * 2);
    put_payload(&mut out, reader, record)?;
    Ok(out)
}

fn put_payload(out: &mut Vec<u8>, reader: &Reader, record: &[u8]) -> Result<(), String> {
    let mut taker = Taker { records: &reader.records, rest: record, items: 0 };
    taker.put(out, &reader.root, 0)?;
    if taker.rest.is_empty() { Ok(()) } else { Err("it is longer than its schema says".to_owned()) }
}

struct Taker<'r, 'a> {
    records: &'r [Vec<Field>],
    rest: &'a [u8],
    items: usize,
}

impl<'a> Taker<'_, 'a> {
    fn put(&mut self, out: &mut Vec<u8>, node: &Node, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is deeper than {DEPTH_MAX} levels"));
        }
        match &node.shape {
            Shape::Null => out.extend_from_slice(b"null"),
            Shape::Boolean => match self.bytes(1)? {
                [0] => out.extend_from_slice(b"false"),
                [1] => out.extend_from_slice(b"true"),
                _ => return Err("a boolean is neither 0 nor 1".to_owned()),
            },
            Shape::Int | Shape::Long => {
                let number = self.number()?;
                write!(out, "{number}").expect("memory");
            }
            Shape::Float => {
                let number = f32::from_le_bytes(self.array()?);
                put_real(out, number.is_finite(), &number);
            }
            Shape::Double => {
                let number = f64::from_le_bytes(self.array()?);
                put_real(out, number.is_finite(), &number);
            }
            Shape::Bytes => {
                let bytes = self.blob()?;
                put_base64(out, bytes);
            }
            Shape::Fixed(size) => {
                let bytes = self.bytes(*size)?;
                put_base64(out, bytes);
            }
            Shape::String => {
                let text = self.text()?;
                put_string(out, text);
            }
            Shape::Enum(symbols) => {
                let symbol = usize::try_from(self.number()?).ok().and_then(|at| symbols.get(at));
                put_string(out, symbol.ok_or("an enum has no such symbol")?);
            }
            Shape::Union(branches) => {
                let branch = usize::try_from(self.number()?).ok().and_then(|at| branches.get(at));
                self.put(out, branch.ok_or("a union has no such branch")?, depth + 1)?;
            }
            Shape::Record(index) => {
                let records = self.records;
                out.push(b'{');
                for (place, field) in records[*index].iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    put_string(out, &field.name);
                    out.push(b':');
                    self.put(out, &field.node, depth + 1)?;
                }
                out.push(b'}');
            }
            Shape::Array(items) => {
                out.push(b'[');
                self.blocks(out, |taker, out| taker.put(out, items, depth + 1))?;
                out.push(b']');
            }
            Shape::Map(values) => {
                out.push(b'{');
                self.blocks(out, |taker, out| {
                    let name = taker.text()?;
                    put_string(out, name);
                    out.push(b':');
                    taker.put(out, values, depth + 1)
                })?;
                out.push(b'}');
            }
        }
        Ok(())
    }

    /// Items in blocks: a count each, with the block's size behind it where the count is negative; 0 ends.
    fn blocks(
        &mut self,
        out: &mut Vec<u8>,
        mut item: impl FnMut(&mut Self, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut first = true;
        loop {
            let count = self.number()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.number()?;
            }
            for _ in 0..count.unsigned_abs() {
                self.items += 1;
                if self.items > ITEMS_MAX {
                    return Err(format!("it has more than {ITEMS_MAX} items"));
                }
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                item(self, out)?;
            }
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        take_i64(&mut self.rest).ok_or_else(short)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        take_bytes(&mut self.rest, count).ok_or_else(short)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.bytes(N)?.try_into().map_err(|_| short())
    }

    fn blob(&mut self) -> Result<&'a [u8], String> {
        let count = usize::try_from(self.number()?).map_err(|_| short())?;
        self.bytes(count)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.blob()?).map_err(|_| "a string of it is not UTF-8".to_owned())
    }
}

fn short() -> String {
    "it is shorter than its schema says".to_owned()
}

fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}

/// JSON has no number for what is not finite, and no column of ours either: as text it is told as what does not fit.
fn put_real(out: &mut Vec<u8>, finite: bool, number: &impl serde::Serialize) {
    if finite {
        serde_json::to_writer(out, number).expect("memory");
    } else {
        out.extend_from_slice(b"\"not finite\"");
    }
}
