//! The reader: frames, checksums and the state that events need from earlier ones.

use super::error::{BinlogError, malformed};
use super::event::{Event, EventHeader, XaPrepare};
use super::gtid;
use super::input::Input;
use super::maria;
use super::rows::{RowsEvent, RowsKind};
use super::table_map::TableMap;
use crate::Flavor;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

/// The most a compressed payload or event may unpack to. MySQL refuses transactions over `max_binlog_cache_size`
/// long before; this only keeps a corrupt length from taking all memory.
pub const PAYLOAD_BYTES_MAX: u64 = 2 << 30;

/// Table ids that a long-lived connection may keep; a server that cycles through more re-sends its maps anyway.
const TABLE_MAPS_MAX: usize = 16_384;

/// Rows events with this id only end a statement.
const NO_TABLE: u64 = 0x00ff_ffff;

/// Compares `stored`, the event's last four bytes read as a little-endian integer, with the CRC32 of all before.
pub fn verify_crc(header_and_body: &[u8], stored: u32) -> Result<(), BinlogError> {
    let computed = crc32fast::hash(header_and_body);
    if computed == stored { Ok(()) } else { Err(BinlogError::Checksum { found: stored, computed }) }
}

/// Reads the events of one connection, in order.
#[derive(Debug)]
pub struct EventReader {
    flavor: Flavor,
    /// From the last format description; `None` before the first.
    checksum: Option<bool>,
    maps: HashMap<u64, (Arc<TableMap>, Box<[u8]>)>,
}

impl EventReader {
    pub fn new(flavor: Flavor) -> Self {
        Self { flavor, checksum: None, maps: HashMap::new() }
    }

    /// Whether events end in a CRC32, as the last format description said; `None` before the first.
    pub fn has_checksum(&self) -> Option<bool> {
        self.checksum
    }

    /// One whole event as it is on the wire behind the OK byte, or in a file. Checks its length and its CRC32.
    pub fn read<'a>(&mut self, event: &'a [u8]) -> Result<(EventHeader, Event<'a>), BinlogError> {
        let (header, body) = split(event)?;
        let with_checksum = match header.event_type {
            kind::FORMAT_DESCRIPTION => format_description_has_checksum(body)?,
            _ => self.checksum == Some(true),
        };
        let body = if with_checksum {
            let (covered, stored) = event.split_last_chunk::<4>().ok_or_else(|| malformed("event"))?;
            verify_crc(covered, u32::from_le_bytes(*stored))?;
            covered.get(EventHeader::BYTES..).ok_or_else(|| malformed("event"))?
        } else {
            body
        };
        Ok((header, self.read_body(header, body)?))
    }

    /// A format description that another reader has taken apart: a new file begins, whose events end in a CRC32 or not.
    pub fn begin_file(&mut self, checksum: bool) {
        self.checksum = Some(checksum);
        self.maps.clear();
    }

    /// One event whose checksum, if any, is already verified and cut off.
    pub fn read_body<'a>(&mut self, header: EventHeader, body: &'a [u8]) -> Result<Event<'a>, BinlogError> {
        let mut input = Input::new(body, "event");
        let event = match header.event_type {
            kind::FORMAT_DESCRIPTION => self.format_description(body)?,
            kind::ROTATE => self.rotate(header, body)?,
            kind::QUERY => query(body)?,
            kind::XID => Event::Xid(input.u64()?),
            kind::TABLE_MAP => self.table_map(body)?,
            kind::WRITE_V1
            | kind::UPDATE_V1
            | kind::DELETE_V1
            | kind::WRITE_V2
            | kind::UPDATE_V2
            | kind::DELETE_V2
            | kind::PARTIAL_UPDATE => self.rows(header.event_type, body)?,
            kind::GTID | kind::ANONYMOUS_GTID => {
                gtid::plain(body, header.event_type == kind::ANONYMOUS_GTID)?
            }
            kind::GTID_TAGGED => gtid::tagged(body)?,
            kind::PREVIOUS_GTIDS => Event::PreviousGtids,
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => Event::Heartbeat,
            kind::TRANSACTION_PAYLOAD => Event::TransactionPayload(transaction_payload(body)?),
            kind::ROWS_QUERY => Event::RowsQuery(String::from_utf8_lossy(body.get(1..).unwrap_or_default())),
            kind::XA_PREPARE => xa_prepare(body)?,
            kind::INCIDENT => incident(body)?,
            kind::STOP | kind::IGNORABLE | kind::SLAVE | kind::TRANSACTION_CONTEXT | kind::VIEW_CHANGE => {
                Event::Ignored
            }
            // INTVAR, RAND and USER_VAR only serve a statement-format DML, which its own query event makes fail.
            kind::INTVAR | kind::RAND | kind::USER_VAR => Event::Ignored,
            other if self.flavor == Flavor::MariaDb => self.maria(header, other, body)?,
            other => unknown(header, other),
        };
        Ok(event)
    }

    /// The plain events inside an unpacked transaction payload, with their bodies; read them with
    /// [`Self::read_body`]. They carry no checksums.
    pub fn inner_events(payload: &[u8]) -> impl Iterator<Item = Result<(EventHeader, &[u8]), BinlogError>> {
        let mut rest = payload;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let event = inner_event(&mut rest);
            if event.is_err() {
                rest = &[];
            }
            Some(event)
        })
    }

    fn format_description<'a>(&mut self, body: &'a [u8]) -> Result<Event<'a>, BinlogError> {
        let mut input = Input::new(body, "format description event");
        let binlog_version = input.u16()?;
        let version = input.bytes(50)?;
        let end = version.iter().position(|b| *b == 0).unwrap_or(50);
        let server_version = String::from_utf8_lossy(&version[..end]).into_owned();
        if binlog_version != 4 {
            return Err(input.bad());
        }
        let checksum = format_description_algorithm(body)?;
        self.begin_file(checksum);
        Ok(Event::FormatDescription { binlog_version, server_version, checksum })
    }

    /// An artificial ROTATE at the start of a stream comes before the format description, so its checksum may still
    /// be there, glued to the file name.
    fn rotate<'a>(&mut self, header: EventHeader, body: &'a [u8]) -> Result<Event<'a>, BinlogError> {
        let mut input = Input::new(body, "rotate event");
        let pos = input.u64()?;
        let mut file = input.rest;
        if self.checksum.is_none() || header.is_artificial() {
            file = without_checksum(header, pos, file);
        }
        let file = std::str::from_utf8(file).map_err(|_| input.bad())?;
        Ok(Event::Rotate { file, pos })
    }

    fn table_map<'a>(&mut self, body: &'a [u8]) -> Result<Event<'a>, BinlogError> {
        let id = Input::new(body, "table map event").u48()?;
        if let Some((map, same)) = self.maps.get(&id)
            && **same == *body
        {
            return Ok(Event::TableMap(map.clone()));
        }
        let map = Arc::new(TableMap::read(body)?);
        if self.maps.len() >= TABLE_MAPS_MAX {
            self.maps.clear();
        }
        self.maps.insert(id, (map.clone(), body.into()));
        Ok(Event::TableMap(map))
    }

    fn rows<'a>(&mut self, event_type: u8, body: &'a [u8]) -> Result<Event<'a>, BinlogError> {
        let head = RowsHead::read(event_type, body)?;
        if head.table_id == NO_TABLE && head.rest.is_empty() {
            return Ok(Event::Ignored);
        }
        self.rows_event(head, None)
    }

    /// A rows event whose images are `unpacked`, or else the rest of `head`.
    fn rows_event<'a>(
        &self,
        head: RowsHead<'a>,
        unpacked: Option<Vec<u8>>,
    ) -> Result<Event<'a>, BinlogError> {
        let (map, _) = self.maps.get(&head.table_id).ok_or(BinlogError::NoTableMap(head.table_id))?;
        if map.column_count() != head.column_count {
            return Err(malformed("rows event"));
        }
        Ok(Event::Rows(RowsEvent {
            kind: head.kind,
            table_id: head.table_id,
            flags: head.flags,
            map: map.clone(),
            columns: head.columns,
            columns_after: head.columns_after,
            is_partial_json: head.is_partial_json,
            images: unpacked.map_or(Cow::Borrowed(head.rest), Cow::Owned),
        }))
    }

    fn maria<'a>(&mut self, header: EventHeader, ty: u8, body: &'a [u8]) -> Result<Event<'a>, BinlogError> {
        match ty {
            kind::MARIA_GTID => maria::gtid(header.server_id, body),
            kind::MARIA_ANNOTATE => Ok(Event::RowsQuery(String::from_utf8_lossy(body))),
            kind::MARIA_CHECKPOINT | kind::MARIA_GTID_LIST => Ok(Event::Ignored),
            kind::MARIA_QUERY_COMPRESSED => maria::query_compressed(body),
            kind::MARIA_WRITE_V1..=kind::MARIA_DELETE_V2 => {
                let head = RowsHead::read(ty, body)?;
                let images = maria::decompress(head.rest)?;
                self.rows_event(head, Some(images))
            }
            other => Ok(unknown(header, other)),
        }
    }
}

fn unknown(header: EventHeader, event_type: u8) -> Event<'static> {
    if header.is_ignorable() { Event::Ignored } else { Event::Unsupported { event_type } }
}

/// Event type codes.
pub(crate) mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const SLAVE: u8 = 7;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_V1: u8 = 23;
    pub const UPDATE_V1: u8 = 24;
    pub const DELETE_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_V2: u8 = 30;
    pub const UPDATE_V2: u8 = 31;
    pub const DELETE_V2: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIA_ANNOTATE: u8 = 160;
    pub const MARIA_CHECKPOINT: u8 = 161;
    pub const MARIA_GTID: u8 = 162;
    pub const MARIA_GTID_LIST: u8 = 163;
    pub const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub const MARIA_WRITE_V1: u8 = 166;
    pub const MARIA_DELETE_V2: u8 = 171;
}

/// A rows event in front of its images.
struct RowsHead<'a> {
    kind: RowsKind,
    table_id: u64,
    flags: u16,
    column_count: usize,
    columns: &'a [u8],
    columns_after: Option<&'a [u8]>,
    is_partial_json: bool,
    rest: &'a [u8],
}

impl<'a> RowsHead<'a> {
    fn read(event_type: u8, body: &'a [u8]) -> Result<Self, BinlogError> {
        let mut input = Input::new(body, "rows event");
        let is_partial_json = event_type == kind::PARTIAL_UPDATE;
        let (kind, second) = rows_kind(event_type);
        let table_id = input.u48()?;
        let flags = input.u16()?;
        if second {
            let extra = usize::from(input.u16()?);
            input.bytes(extra.checked_sub(2).ok_or_else(|| input.bad())?)?;
        }
        let column_count = input.packed_len()?;
        let columns = input.bytes(column_count.div_ceil(8))?;
        let columns_after = match kind {
            RowsKind::Update => Some(input.bytes(column_count.div_ceil(8))?),
            _ => None,
        };
        let rest = input.rest;
        Ok(Self { kind, table_id, flags, column_count, columns, columns_after, is_partial_json, rest })
    }
}

/// What a rows event does, and whether it is of version 2.
fn rows_kind(event_type: u8) -> (RowsKind, bool) {
    match event_type {
        kind::WRITE_V1 | 166 => (RowsKind::Insert, false),
        kind::UPDATE_V1 | 167 => (RowsKind::Update, false),
        kind::DELETE_V1 | 168 => (RowsKind::Delete, false),
        kind::WRITE_V2 | 169 => (RowsKind::Insert, true),
        kind::UPDATE_V2 | kind::PARTIAL_UPDATE | 170 => (RowsKind::Update, true),
        _ => (RowsKind::Delete, true),
    }
}

fn split(event: &[u8]) -> Result<(EventHeader, &[u8]), BinlogError> {
    let mut input = Input::new(event, "event header");
    let header = EventHeader {
        timestamp: input.u32()?,
        event_type: input.u8()?,
        server_id: input.u32()?,
        event_size: input.u32()?,
        log_pos: input.u32()?,
        flags: input.u16()?,
    };
    if header.event_size as usize != event.len() {
        return Err(malformed("event"));
    }
    Ok((header, input.rest))
}

fn inner_event<'a>(rest: &mut &'a [u8]) -> Result<(EventHeader, &'a [u8]), BinlogError> {
    let bad = || malformed("transaction payload");
    let size = rest.get(9..13).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or_else(bad)?;
    let (event, after) = rest.split_at_checked(size as usize).ok_or_else(bad)?;
    *rest = after;
    split(event)
}

/// Body of a format description with its trailing algorithm byte, which precedes the CRC that is always reserved.
fn format_description_has_checksum(body: &[u8]) -> Result<bool, BinlogError> {
    let cut = body.len().checked_sub(4).ok_or_else(|| malformed("format description event"))?;
    format_description_algorithm(&body[..cut])
}

/// The last byte of a format description without its CRC: 0 none, 1 CRC32. Servers before 5.6 lack it.
fn format_description_algorithm(body: &[u8]) -> Result<bool, BinlogError> {
    match body.last() {
        Some(0 | 255) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(malformed("format description event")),
    }
}

fn without_checksum(header: EventHeader, pos: u64, file: &[u8]) -> &[u8] {
    let Some((name, stored)) = file.split_last_chunk::<4>() else { return file };
    let mut covered = Vec::with_capacity(EventHeader::BYTES + 8 + name.len());
    covered.extend_from_slice(&header.timestamp.to_le_bytes());
    covered.push(header.event_type);
    covered.extend_from_slice(&header.server_id.to_le_bytes());
    covered.extend_from_slice(&header.event_size.to_le_bytes());
    covered.extend_from_slice(&header.log_pos.to_le_bytes());
    covered.extend_from_slice(&header.flags.to_le_bytes());
    covered.extend_from_slice(&pos.to_le_bytes());
    covered.extend_from_slice(name);
    if crc32fast::hash(&covered) == u32::from_le_bytes(*stored) { name } else { file }
}

pub(super) fn query(body: &[u8]) -> Result<Event<'_>, BinlogError> {
    let mut input = Input::new(body, "query event");
    input.bytes(8)?;
    let db_length = usize::from(input.u8()?);
    input.u16()?;
    let status_length = usize::from(input.u16()?);
    let status = input.bytes(status_length)?;
    let db = input.bytes(db_length)?;
    input.u8()?;
    let (sql_mode, charset_client) = status_variables(status);
    Ok(Event::Query {
        db: String::from_utf8_lossy(db),
        sql: String::from_utf8_lossy(input.rest),
        sql_mode,
        charset_client,
    })
}

/// `sql_mode` and the client's collation. Variables come in ascending order of code up to these two; an unknown code
/// ends the walk, because its length is not known.
pub(super) fn status_variables(status: &[u8]) -> (Option<u64>, Option<u16>) {
    let mut input = Input::new(status, "query event's status");
    let (mut sql_mode, mut charset) = (None, None);
    while let Ok(code) = input.u8() {
        let step = match code {
            0 => input.bytes(4).map(drop),
            1 => input.u64().map(|mode| sql_mode = Some(mode)),
            2 => input.u8().and_then(|n| input.bytes(usize::from(n) + 1)).map(drop),
            3 => input.bytes(4).map(drop),
            4 => input.u16().and_then(|client| input.bytes(4).map(|_| charset = Some(client))),
            5 | 6 => input.u8().and_then(|n| input.bytes(usize::from(n))).map(drop),
            _ => break,
        };
        if step.is_err() {
            break;
        }
    }
    (sql_mode, charset)
}

fn xa_prepare(body: &[u8]) -> Result<Event<'_>, BinlogError> {
    let mut input = Input::new(body, "XA prepare event");
    let one_phase = input.u8()? != 0;
    let format_id = input.u32()? as i32;
    let (gtrid, bqual) = (input.u32()? as usize, input.u32()? as usize);
    let gtrid = input.bytes(gtrid)?.to_vec();
    let bqual = input.bytes(bqual)?.to_vec();
    Ok(Event::XaPrepare(XaPrepare { one_phase, format_id, gtrid, bqual }))
}

fn incident(body: &[u8]) -> Result<Event<'_>, BinlogError> {
    let mut input = Input::new(body, "incident event");
    input.u16()?;
    let length = input.u8().map_or(0, usize::from);
    Ok(Event::Incident { message: String::from_utf8_lossy(input.bytes(length).unwrap_or_default()) })
}

/// Fields `type:packed length:packed value` up to type 0, then the compressed events: 1 size, 2 algorithm (0 zstd,
/// 255 none), 3 size when unpacked.
fn transaction_payload(body: &[u8]) -> Result<Vec<u8>, BinlogError> {
    let what = "transaction payload";
    let mut input = Input::new(body, what);
    let (mut algorithm, mut size, mut unpacked) = (0, None, None);
    loop {
        match input.packed()? {
            0 => break,
            field => {
                let mut value = Input::new(input.packed_bytes()?, what);
                match field {
                    1 => size = Some(value.packed_len()?),
                    2 => algorithm = value.packed()?,
                    3 => unpacked = Some(value.packed()?),
                    _ => {}
                }
            }
        }
    }
    let bytes = match size {
        Some(size) => input.bytes(size)?,
        None => input.rest,
    };
    let out = match algorithm {
        0 => unzstd(bytes, unpacked)?,
        255 => bytes.to_vec(),
        other => {
            return Err(BinlogError::Decompress { what, reason: format!("algorithm {other} is unknown") });
        }
    };
    match unpacked {
        Some(expected) if expected != out.len() as u64 => {
            Err(BinlogError::Decompress { what, reason: "its length is not the declared one".to_owned() })
        }
        _ => Ok(out),
    }
}

fn unzstd(bytes: &[u8], unpacked: Option<u64>) -> Result<Vec<u8>, BinlogError> {
    let what = "transaction payload";
    if let Some(length) = unpacked.filter(|n| *n > PAYLOAD_BYTES_MAX) {
        return Err(BinlogError::TooLarge { what, bytes: length, bytes_max: PAYLOAD_BYTES_MAX });
    }
    let failed = |error: std::io::Error| BinlogError::Decompress { what, reason: error.to_string() };
    let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(failed)?;
    read_bounded(decoder, what)
}

/// Reads to the end, and no further than [`PAYLOAD_BYTES_MAX`].
pub(super) fn read_bounded(reader: impl Read, what: &'static str) -> Result<Vec<u8>, BinlogError> {
    let mut out = Vec::new();
    reader
        .take(PAYLOAD_BYTES_MAX + 1)
        .read_to_end(&mut out)
        .map_err(|error| BinlogError::Decompress { what, reason: error.to_string() })?;
    if out.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(BinlogError::TooLarge { what, bytes: out.len() as u64, bytes_max: PAYLOAD_BYTES_MAX });
    }
    Ok(out)
}
