//! Records as bytes: the frame around each, and the bodies. The layout is described at the top of the crate.

use crate::limits::RECORD_BYTES_MAX;
use crate::state::State;
use base::gtid::ServerUuid;
use base::varint::{put_blob, put_i64, put_u64, take_blob, take_bytes, take_i64, take_u64};
use base::{CapturePosition, Gtid, MariaGtid, Position, SnapshotProgress, Step, Table};
use std::sync::Arc;

/// The version in the head of every segment that is written. Earlier ones are read: a version adds to the one before.
pub const FORMAT_VERSION: u16 = 4;
/// The first bytes of every head's body.
pub(crate) const MAGIC: &[u8; 8] = b"TIDEMILL";

/// `len` and `crc`, which `len` does not count.
pub(crate) const PREFIX_BYTES: usize = 8;
/// `len`, `crc`, `kind` and `lsn`: the smallest record.
pub(crate) const FRAME_BYTES: usize = PREFIX_BYTES + 9;
/// A whole seal record.
pub(crate) const SEAL_BYTES: usize = FRAME_BYTES + 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Head = 1,
    Schema = 2,
    Drop = 3,
    Begin = 4,
    Change = 5,
    Snapshot = 6,
    Epoch = 7,
    Commit = 8,
    Seal = 9,
}

impl Kind {
    const fn from_u8(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Head,
            2 => Self::Schema,
            3 => Self::Drop,
            4 => Self::Begin,
            5 => Self::Change,
            6 => Self::Snapshot,
            7 => Self::Epoch,
            8 => Self::Commit,
            9 => Self::Seal,
            _ => return None,
        })
    }
}

/// Bits of a change's `images` byte.
pub(crate) const HAS_BEFORE: u8 = 1;
pub(crate) const HAS_AFTER: u8 = 2;

// ---- frames

/// Starts a record at the end of `out`; the result goes to [`close_frame`].
#[inline]
pub(crate) fn open_frame(out: &mut Vec<u8>, kind: Kind, lsn: u64) -> usize {
    let start = out.len();
    let mut prefix = [0; FRAME_BYTES];
    prefix[PREFIX_BYTES] = kind as u8;
    prefix[PREFIX_BYTES + 1..].copy_from_slice(&lsn.to_le_bytes());
    out.extend_from_slice(&prefix);
    start
}

/// Writes length and checksum of the record that began at `start`; `Err` with its size when it is too large.
#[inline]
pub(crate) fn close_frame(out: &mut [u8], start: usize) -> Result<(), u64> {
    let size = out.len() - start - PREFIX_BYTES;
    let len = u32::try_from(size).ok().filter(|len| *len <= RECORD_BYTES_MAX).ok_or(size as u64)?;
    let crc = checksum(len, &out[start + PREFIX_BYTES..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

#[inline]
fn checksum(len: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), payload)
}

/// A record's place in a buffer, already checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub kind: Kind,
    pub lsn: u64,
    /// Bytes of the whole record.
    pub size: usize,
}

/// What is at the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parsed {
    Frame(Frame),
    /// The record needs this many bytes in the buffer.
    Need(usize),
    Bad(&'static str),
}

/// Checks the record at the front of `buffer`, of which `remaining` bytes exist in all.
#[inline]
pub(crate) fn parse(buffer: &[u8], remaining: u64) -> Parsed {
    if remaining < FRAME_BYTES as u64 {
        return Parsed::Bad("a record is cut short");
    }
    if buffer.len() < FRAME_BYTES {
        return Parsed::Need(FRAME_BYTES);
    }
    let len = u32_at(buffer, 0);
    let size = len as usize + PREFIX_BYTES;
    if size < FRAME_BYTES || len > RECORD_BYTES_MAX {
        return Parsed::Bad("a record's length is impossible");
    }
    if size as u64 > remaining {
        return Parsed::Bad("a record reaches past the end");
    }
    if buffer.len() < size {
        return Parsed::Need(size);
    }
    if checksum(len, &buffer[PREFIX_BYTES..size]) != u32_at(buffer, 4) {
        return Parsed::Bad("a record's checksum is wrong");
    }
    match peek(buffer) {
        Some(frame) => Parsed::Frame(frame),
        None => Parsed::Bad("a record's kind is unknown"),
    }
}

/// The record at the front of `buffer`, which has been checked before.
#[inline]
pub(crate) fn peek(buffer: &[u8]) -> Option<Frame> {
    if buffer.len() < FRAME_BYTES {
        return None;
    }
    let kind = Kind::from_u8(buffer[PREFIX_BYTES])?;
    Some(Frame {
        kind,
        lsn: u64_at(buffer, PREFIX_BYTES + 1),
        size: u32_at(buffer, 0) as usize + PREFIX_BYTES,
    })
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn take_u16_le(input: &mut &[u8]) -> Option<u16> {
    take_bytes(input, 2).map(|b| u16::from_le_bytes(b.try_into().expect("two bytes")))
}

fn take_u32_le(input: &mut &[u8]) -> Option<u32> {
    take_bytes(input, 4).map(|b| u32_at(b, 0))
}

fn take_u64_le(input: &mut &[u8]) -> Option<u64> {
    take_bytes(input, 8).map(|b| u64_at(b, 0))
}

/// Appends a value as a blob of JSON.
fn put_json(out: &mut Vec<u8>, value: &impl JsonBody) {
    put_blob(out, &value.json());
}

/// What we store as JSON: read and written seldom, and better legible than small.
pub(crate) trait JsonBody: Sized {
    fn json(&self) -> Vec<u8>;
    fn from_json(bytes: &[u8]) -> Option<Self>;
}

macro_rules! json_body {
    ($($ty:ty),*) => {$(
        impl JsonBody for $ty {
            fn json(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("a tree of plain values with string keys is always JSON")
            }
            fn from_json(bytes: &[u8]) -> Option<Self> {
                serde_json::from_slice(bytes).ok()
            }
        }
    )*};
}
json_body!(Table, SnapshotProgress, Option<Position>, Position, base::Ddl);

// ---- bodies

/// A segment's head: everything a reader must know who has not read the segments before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub segment: u64,
    /// When this segment began, or the time of the last commit before it, if that is later.
    pub ts_ms: i64,
    pub state: State,
}

pub(crate) fn put_head(out: &mut Vec<u8>, segment: u64, ts_ms: i64, state: &State) -> Result<(), u64> {
    let start = open_frame(out, Kind::Head, state.next_lsn - 1);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&state.identity.to_le_bytes());
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&state.epoch.to_le_bytes());
    out.extend_from_slice(&state.next_lsn.to_le_bytes());
    out.extend_from_slice(&ts_ms.to_le_bytes());
    put_json(out, &state.position);
    put_u64(out, state.tables.len() as u64);
    for table in state.tables.values() {
        put_json(out, &**table);
    }
    put_json(out, &state.snapshot);
    close_frame(out, start)
}

/// Why a head cannot be used.
#[derive(Debug, PartialEq)]
pub(crate) enum BadHead {
    Version(u16),
    Malformed,
}

pub(crate) fn take_head(body: &[u8]) -> Result<Head, BadHead> {
    let mut input = body;
    if take_bytes(&mut input, MAGIC.len()) != Some(MAGIC) {
        return Err(BadHead::Malformed);
    }
    match take_u16_le(&mut input) {
        Some(1..=FORMAT_VERSION) => take_head_body(input).ok_or(BadHead::Malformed),
        Some(version) => Err(BadHead::Version(version)),
        None => Err(BadHead::Malformed),
    }
}

fn take_head_body(mut input: &[u8]) -> Option<Head> {
    let input = &mut input;
    let identity = take_u64_le(input)?;
    let segment = take_u64_le(input)?;
    let epoch = take_u32_le(input)?;
    let next_lsn = take_u64_le(input).filter(|lsn| *lsn > 0)?;
    let ts_ms = take_u64_le(input)? as i64;
    let position = JsonBody::from_json(take_blob(input)?)?;
    let mut tables = std::collections::BTreeMap::new();
    for _ in 0..take_u64(input)? {
        let table = Table::from_json(take_blob(input)?)?;
        tables.insert(table.id, Arc::new(table));
    }
    let snapshot = SnapshotProgress::from_json(take_blob(input)?)?;
    let state = State { identity, epoch, next_lsn, position, tables, snapshot };
    input.is_empty().then_some(Head { segment, ts_ms, state })
}

/// A seal record: proof that all bytes of the segment before it were durable when it was written.
pub(crate) fn put_seal(out: &mut Vec<u8>, lsn: u64, segment: u64, offset: u64) {
    let start = open_frame(out, Kind::Seal, lsn);
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    close_frame(out, start).expect("a seal record is small");
}

/// Whether a checked record at `offset` is that segment's seal at that place, and not a copy from elsewhere.
pub(crate) fn is_seal_at(body: &[u8], segment: u64, offset: u64) -> bool {
    body.len() == 16 && u64_at(body, 0) == segment && u64_at(body, 8) == offset
}

pub(crate) fn put_begin(out: &mut Vec<u8>, txn_id: &str, ts_ms: i64) {
    put_i64(out, ts_ms);
    put_blob(out, txn_id.as_bytes());
}

pub(crate) fn take_begin(mut body: &[u8]) -> Option<(&str, i64)> {
    let ts_ms = take_i64(&mut body)?;
    let id = std::str::from_utf8(take_blob(&mut body)?).ok()?;
    body.is_empty().then_some((id, ts_ms))
}

pub(crate) fn put_epoch(out: &mut Vec<u8>, epoch: u32, reason: &str) {
    put_u64(out, u64::from(epoch));
    put_blob(out, reason.as_bytes());
}

pub(crate) fn take_epoch(mut body: &[u8]) -> Option<(u32, &str)> {
    let epoch = u32::try_from(take_u64(&mut body)?).ok()?;
    let reason = std::str::from_utf8(take_blob(&mut body)?).ok()?;
    body.is_empty().then_some((epoch, reason))
}

pub(crate) fn take_drop(mut body: &[u8]) -> Option<u32> {
    let id = u32::try_from(take_u64(&mut body)?).ok()?;
    body.is_empty().then_some(id)
}

const STEP_STAY: u8 = 0;
const STEP_MYSQL: u8 = 1;
const STEP_MARIADB: u8 = 2;
const STEP_SQLITE: u8 = 3;
const STEP_FULL: u8 = 4;
const STEP_KAFKA: u8 = 5;
const STEP_PUSH: u8 = 6;
const STEP_CAPTURE: u8 = 7;

const STEP_HAS_GTID: u8 = 1;
const STEP_HAS_FILE: u8 = 2;

pub(crate) fn put_step(out: &mut Vec<u8>, step: &Step) {
    fn flags(gtid: bool, file: bool) -> u8 {
        (u8::from(gtid) * STEP_HAS_GTID) | (u8::from(file) * STEP_HAS_FILE)
    }
    fn file_and_pos(out: &mut Vec<u8>, file: Option<&String>, pos: u64) {
        if let Some(file) = file {
            put_blob(out, file.as_bytes());
        }
        put_u64(out, pos);
    }
    match step {
        Step::Stay => out.push(STEP_STAY),
        Step::MySql { gtid, file, pos } => {
            out.extend_from_slice(&[STEP_MYSQL, flags(gtid.is_some(), file.is_some())]);
            if let Some(gtid) = gtid {
                out.extend_from_slice(&gtid.uuid.0);
                put_blob(out, gtid.tag.as_bytes());
                put_u64(out, gtid.number);
            }
            file_and_pos(out, file.as_ref(), *pos);
        }
        Step::MariaDb { gtid, file, pos } => {
            out.extend_from_slice(&[STEP_MARIADB, flags(gtid.is_some(), file.is_some())]);
            if let Some(gtid) = gtid {
                put_u64(out, u64::from(gtid.domain));
                put_u64(out, u64::from(gtid.server));
                put_u64(out, gtid.sequence);
            }
            file_and_pos(out, file.as_ref(), *pos);
        }
        Step::Sqlite { change_id } => {
            out.push(STEP_SQLITE);
            put_i64(out, *change_id);
        }
        Step::Kafka { topic, partition, next } => {
            out.push(STEP_KAFKA);
            put_blob(out, topic.as_bytes());
            put_u64(out, u64::from(*partition));
            put_i64(out, *next);
        }
        Step::Push { digest } => {
            out.push(STEP_PUSH);
            put_blob(out, digest.as_deref().unwrap_or_default().as_bytes());
        }
        Step::Capture { file, to } => {
            out.push(STEP_CAPTURE);
            put_blob(out, file.as_bytes());
            put_u64(out, to.block);
            put_u64(out, u64::from(to.taken));
            out.push(u8::from(to.done));
        }
        Step::Full(position) => {
            out.push(STEP_FULL);
            put_json(out, &**position);
        }
    }
}

pub(crate) fn take_step(mut body: &[u8]) -> Option<Step> {
    let input = &mut body;
    let step = match take_u8(input)? {
        STEP_STAY => Step::Stay,
        STEP_MYSQL => {
            let flags = take_u8(input)?;
            let gtid = if flags & STEP_HAS_GTID != 0 { Some(take_gtid(input)?) } else { None };
            let file = take_file(input, flags)?;
            Step::MySql { gtid, file, pos: take_u64(input)? }
        }
        STEP_MARIADB => {
            let flags = take_u8(input)?;
            let gtid = if flags & STEP_HAS_GTID != 0 { Some(take_maria_gtid(input)?) } else { None };
            let file = take_file(input, flags)?;
            Step::MariaDb { gtid, file, pos: take_u64(input)? }
        }
        STEP_SQLITE => Step::Sqlite { change_id: take_i64(input)? },
        STEP_KAFKA => Step::Kafka {
            topic: take_text(input)?.into(),
            partition: u32::try_from(take_u64(input)?).ok()?,
            next: take_i64(input)?,
        },
        STEP_PUSH => {
            let digest = take_text(input)?;
            Step::Push { digest: Some(digest).filter(|digest| !digest.is_empty()).map(Into::into) }
        }
        STEP_CAPTURE => Step::Capture {
            file: take_text(input)?.into(),
            to: CapturePosition {
                block: take_u64(input)?,
                taken: u32::try_from(take_u64(input)?).ok()?,
                done: take_u8(input)? != 0,
            },
        },
        STEP_FULL => Step::Full(Box::new(Position::from_json(take_blob(input)?)?)),
        _ => return None,
    };
    input.is_empty().then_some(step)
}

fn take_u8(input: &mut &[u8]) -> Option<u8> {
    take_bytes(input, 1).map(|b| b[0])
}

fn take_text(input: &mut &[u8]) -> Option<String> {
    std::str::from_utf8(take_blob(input)?).ok().map(str::to_owned)
}

fn take_gtid(input: &mut &[u8]) -> Option<Gtid> {
    let uuid = ServerUuid(take_bytes(input, 16)?.try_into().ok()?);
    let tag = take_text(input)?;
    // MySQL's numbers are positive i64s; a larger one would overflow the end of its interval.
    let number = take_u64(input).filter(|n| *n <= i64::MAX as u64)?;
    Some(Gtid { uuid, tag, number })
}

fn take_maria_gtid(input: &mut &[u8]) -> Option<MariaGtid> {
    let domain = u32::try_from(take_u64(input)?).ok()?;
    let server = u32::try_from(take_u64(input)?).ok()?;
    Some(MariaGtid { domain, server, sequence: take_u64(input)? })
}

/// `None` when malformed, `Some(None)` when absent.
#[expect(clippy::option_option, reason = "the outer one is the failure of every other `take_`")]
fn take_file(input: &mut &[u8], flags: u8) -> Option<Option<String>> {
    if flags & STEP_HAS_FILE != 0 { take_text(input).map(Some) } else { Some(None) }
}

/// A change's body, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeBody<'a> {
    pub op: base::Op,
    pub table_id: u32,
    pub version: u32,
    pub before: Option<&'a [u8]>,
    pub after: Option<&'a [u8]>,
    /// The JSON of a `Ddl`.
    pub ddl: Option<&'a [u8]>,
}

#[inline]
pub(crate) fn take_change(body: &[u8]) -> Option<ChangeBody<'_>> {
    let (&[op, images], mut rest) = body.split_first_chunk::<2>()?;
    let op = base::Op::from_u8(op)?;
    let table_id = u32::try_from(take_u64(&mut rest)?).ok()?;
    let version = u32::try_from(take_u64(&mut rest)?).ok()?;
    let mut change = ChangeBody { op, table_id, version, before: None, after: None, ddl: None };
    if op == base::Op::Ddl {
        change.ddl = Some(rest);
        return Some(change);
    }
    match images {
        0 if rest.is_empty() => {}
        HAS_BEFORE => change.before = Some(rest),
        HAS_AFTER => change.after = Some(rest),
        3 => {
            let before_bytes = take_u32_le(&mut rest)? as usize;
            change.before = Some(take_bytes(&mut rest, before_bytes)?);
            change.after = Some(rest);
        }
        _ => return None,
    }
    Some(change)
}
