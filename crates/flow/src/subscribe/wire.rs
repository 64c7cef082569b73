//! `SubscribeResponse` of `proto/tidemill/v1` as bytes.
//!
//! Written by hand, from row images as the journal has them: a change is encoded once for all who follow its shape, and nothing is
//! allocated for a value. Tests of the `tidemill` crate read it with the generated types.

use base::json::{enum_label, set_labels};
use base::value::{self, ValueRef};
use base::{Column, ColumnType};
use bytes::Bytes;
use std::io::Write as _;

/// What happened to a row of a shape, by the numbers of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Put = 1,
    Delete = 2,
    Leave = 3,
    Truncate = 4,
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Tail = 1,
    NetChanges = 2,
    Snapshot = 3,
}

/// Why a token cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetReason {
    Token = 1,
    Shape = 2,
    Journal = 3,
    Epoch = 4,
    Future = 5,
    Compacted = 6,
    Schema = 7,
    Table = 8,
    Window = 9,
}

impl ResetReason {
    /// In the order of their numbers, which begin at 1.
    pub const ALL: [Self; 9] = [
        Self::Token,
        Self::Shape,
        Self::Journal,
        Self::Epoch,
        Self::Future,
        Self::Compacted,
        Self::Schema,
        Self::Table,
        Self::Window,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Shape => "shape",
            Self::Journal => "journal",
            Self::Epoch => "epoch",
            Self::Future => "future",
            Self::Compacted => "compacted",
            Self::Schema => "schema",
            Self::Table => "table",
            Self::Window => "window",
        }
    }
}

/// An event of a stream besides batches.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    Ready { subscription: u64, mode: Mode, rows: u64 },
    Schema(&'a [ShapeColumn]),
    SnapshotEnd,
    UpToDate,
    Checkpoint { rows: u64, checksum: u64 },
    Heartbeat,
    Reset { reason: ResetReason, detail: &'a str },
    Reached { mark: u64 },
}

/// A column as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeColumn {
    pub name: String,
    pub ty: String,
    pub nullable: bool,
    /// Its place in the key, from 1; 0 outside of it.
    pub key: u32,
    /// Its name before, where that was another.
    pub was: Option<String>,
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_tag(out: &mut Vec<u8>, field: u8, kind: u8) {
    out.push(field << 3 | kind);
}

/// A number, left out where it is 0, as proto3 does.
fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        put_tag(out, field, VARINT);
        put_varint(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_tag(out, field, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a message whose length is known when it is written: one byte is kept for it, and more room is made where it needs it.
fn put_message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, field, BYTES);
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut head = Vec::with_capacity(10);
    put_varint(&mut head, length as u64);
    out.splice(at..=at, head);
}

/// A response: the token and lsn that hold once it is stored, and its event.
pub fn response(token: &[u8], lsn: u64, event: &Event<'_>) -> Bytes {
    let mut out = Vec::with_capacity(token.len() + 32);
    put_head(&mut out, token, lsn);
    match event {
        Event::Ready { subscription, mode, rows } => put_message(&mut out, 3, |out| {
            put_number(out, 1, *subscription);
            put_number(out, 2, *mode as u64);
            put_number(out, 3, *rows);
        }),
        Event::Schema(columns) => put_message(&mut out, 4, |out| {
            for column in *columns {
                put_message(out, 1, |out| put_column(out, column));
            }
        }),
        Event::SnapshotEnd => put_bytes(&mut out, 6, &[]),
        Event::UpToDate => put_bytes(&mut out, 7, &[]),
        Event::Checkpoint { rows, checksum } => put_message(&mut out, 8, |out| {
            put_number(out, 1, *rows);
            put_tag(out, 2, FIXED64);
            out.extend_from_slice(&checksum.to_le_bytes());
        }),
        Event::Heartbeat => put_bytes(&mut out, 9, &[]),
        Event::Reset { reason, detail } => put_message(&mut out, 10, |out| {
            put_number(out, 1, *reason as u64);
            put_bytes(out, 2, detail.as_bytes());
        }),
        Event::Reached { mark } => put_message(&mut out, 11, |out| put_number(out, 1, *mark)),
    }
    Bytes::from(out)
}

fn put_head(out: &mut Vec<u8>, token: &[u8], lsn: u64) {
    if !token.is_empty() {
        put_bytes(out, 1, token);
    }
    put_number(out, 2, lsn);
}

fn put_column(out: &mut Vec<u8>, column: &ShapeColumn) {
    put_bytes(out, 1, column.name.as_bytes());
    put_bytes(out, 2, column.ty.as_bytes());
    put_number(out, 3, u64::from(column.nullable));
    put_number(out, 4, u64::from(column.key));
    if let Some(was) = &column.was {
        put_bytes(out, 5, was.as_bytes());
    }
}

/// A response with the changes that [`put_change`] has gathered.
pub fn batch(token: &[u8], lsn: u64, changes: &[u8], ends_transaction: bool) -> Bytes {
    let mut out = Vec::with_capacity(changes.len() + token.len() + 32);
    put_head(&mut out, token, lsn);
    put_tag(&mut out, 5, BYTES);
    put_varint(&mut out, changes.len() as u64 + if ends_transaction { 2 } else { 0 });
    out.extend_from_slice(changes);
    put_number(&mut out, 2, u64::from(ends_transaction));
    Bytes::from(out)
}

/// Appends a change to the body of a batch.
pub fn put_change<'a>(
    out: &mut Vec<u8>,
    op: Op,
    lsn: u64,
    committed_ms: i64,
    values: impl Iterator<Item = (ValueRef<'a>, &'a Column)>,
) {
    put_message(out, 1, |out| {
        put_number(out, 1, op as u64);
        put_number(out, 2, lsn);
        for (value, column) in values {
            put_message(out, 3, |out| put_value(out, &Plain::of(value, column)));
        }
        put_number(out, 4, committed_ms as u64);
    });
}

/// Values as a change has them, for [`put_encoded_change`].
pub fn encoded<'a>(values: impl Iterator<Item = (ValueRef<'a>, &'a Column)>) -> Box<[u8]> {
    let mut out = Vec::with_capacity(64);
    for (value, column) in values {
        put_message(&mut out, 3, |out| put_value(out, &Plain::of(value, column)));
    }
    out.into_boxed_slice()
}

/// Appends a change whose values were encoded before.
pub fn put_encoded_change(out: &mut Vec<u8>, op: Op, lsn: u64, committed_ms: i64, values: &[u8]) {
    put_message(out, 1, |out| {
        put_number(out, 1, op as u64);
        put_number(out, 2, lsn);
        out.extend_from_slice(values);
        put_number(out, 4, committed_ms as u64);
    });
}

/// A value as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain<'a> {
    Null,
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(&'a str),
    /// A text that had to be made.
    Made(String),
    Bytes(&'a [u8]),
}

impl<'a> Plain<'a> {
    pub fn of(value: ValueRef<'a>, column: &'a Column) -> Self {
        let fsp = match column.ty {
            ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
            _ => 0,
        };
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Int(v) => Self::Int(v),
            ValueRef::UInt(v) | ValueRef::Bit(v) => Self::UInt(v),
            ValueRef::Year(v) => Self::UInt(u64::from(v)),
            ValueRef::Float(v) => Self::Double(f64::from(v)),
            ValueRef::Double(v) => Self::Double(v),
            ValueRef::Decimal(v) | ValueRef::Text(v) | ValueRef::Json(v) => Self::Text(v),
            ValueRef::Date(v) => Self::Made(v.to_string()),
            ValueRef::Time(v) => Self::Made(value::format_time(v, fsp)),
            ValueRef::DateTime(v) => Self::Made(value::format_datetime(v, fsp)),
            ValueRef::Timestamp(v) => Self::Made(value::format_timestamp(v, fsp)),
            ValueRef::Enum(ordinal) => Self::Text(enum_label(column, ordinal)),
            ValueRef::Set(bits) => {
                let mut text = String::new();
                for (index, label) in set_labels(column, bits).enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push_str(label);
                }
                Self::Made(text)
            }
            ValueRef::RawText(v) | ValueRef::Bytes(v) | ValueRef::Geometry(v) | ValueRef::Vector(v) => {
                Self::Bytes(v)
            }
        }
    }
}

fn put_value(out: &mut Vec<u8>, value: &Plain<'_>) {
    match value {
        Plain::Null => out.extend_from_slice(&[1 << 3, 1]),
        Plain::Int(v) => {
            put_tag(out, 2, VARINT);
            put_varint(out, ((v << 1) ^ (v >> 63)) as u64);
        }
        Plain::UInt(v) => {
            put_tag(out, 3, VARINT);
            put_varint(out, *v);
        }
        Plain::Double(v) => {
            put_tag(out, 4, FIXED64);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Plain::Text(v) => put_bytes(out, 5, v.as_bytes()),
        Plain::Made(v) => put_bytes(out, 5, v.as_bytes()),
        Plain::Bytes(v) => put_bytes(out, 6, v),
    }
}

/// Appends the bytes that a row's hash is of, as `Checkpoint` describes them.
fn put_hashed(out: &mut Vec<u8>, value: &Plain<'_>) {
    let mut long = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Plain::Null => out.push(0),
        Plain::Int(v) => {
            out.push(1);
            out.write_all(&v.to_le_bytes()).expect("memory");
        }
        Plain::UInt(v) => {
            out.push(2);
            out.write_all(&v.to_le_bytes()).expect("memory");
        }
        Plain::Double(v) => {
            out.push(3);
            out.write_all(&v.to_le_bytes()).expect("memory");
        }
        Plain::Text(v) => long(4, v.as_bytes()),
        Plain::Made(v) => long(4, v.as_bytes()),
        Plain::Bytes(v) => long(5, v),
    }
}

/// The hash of a row, of which checksums are sums. `scratch` is emptied first.
pub fn row_hash<'a>(scratch: &mut Vec<u8>, values: impl Iterator<Item = (ValueRef<'a>, &'a Column)>) -> u64 {
    scratch.clear();
    for (value, column) in values {
        put_hashed(scratch, &Plain::of(value, column));
    }
    u64::from(murmur3(scratch, 0)) << 32 | u64::from(murmur3(scratch, 0x9747_b28c))
}

/// MurmurHash3_x86_32.
fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mixed = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = seed;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        hash ^= mixed(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= mixed(rest.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte)));
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_is_the_published_one() {
        // From the reference implementation's known answers.
        assert_eq!(murmur3(b"", 0), 0);
        assert_eq!(murmur3(b"", 1), 0x514e_28b7);
        assert_eq!(murmur3(b"\xff\xff\xff\xff", 0), 0x7629_3b50);
        assert_eq!(murmur3(b"!Ce\x87", 0), 0xf55b_516b);
        assert_eq!(murmur3(b"!Ce", 0), 0x7e4a_8634);
        assert_eq!(murmur3(b"!C", 0), 0xa0f7_b07a);
        assert_eq!(murmur3(b"!", 0), 0x7266_1cf4);
        assert_eq!(murmur3(b"Hello, world!", 0x9747_b28c), 0x2488_4cba);
    }
}
