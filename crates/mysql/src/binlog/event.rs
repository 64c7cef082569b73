//! The events a reader hands out, and their common header.

use super::rows::RowsEvent;
use super::table_map::TableMap;
use base::{Gtid, MariaGtid};
use std::borrow::Cow;
use std::sync::Arc;

/// The 19 bytes in front of every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventHeader {
    /// Seconds since the Unix epoch when the statement began.
    pub timestamp: u32,
    pub event_type: u8,
    pub server_id: u32,
    /// Header, body and checksum.
    pub event_size: u32,
    /// Where the next event starts; 0 for artificial events and inside a compressed payload.
    pub log_pos: u32,
    pub flags: u16,
}

impl EventHeader {
    pub const BYTES: usize = 19;

    /// Made up by the sending server; not in its binlog, so never a position.
    pub fn is_artificial(&self) -> bool {
        self.flags & 0x20 != 0
    }

    /// A reader that does not know the event's type may skip it.
    pub fn is_ignorable(&self) -> bool {
        self.flags & 0x80 != 0
    }
}

#[derive(Clone, Debug)]
pub enum Event<'a> {
    FormatDescription {
        binlog_version: u16,
        server_version: String,
        /// Whether events of this file end in a CRC32.
        checksum: bool,
    },
    Rotate {
        file: &'a str,
        pos: u64,
    },
    PreviousGtids,
    Gtid {
        /// `None` for an anonymous transaction.
        gtid: Option<Gtid>,
        /// `original_commit_timestamp` in microseconds since the Unix epoch; 0 when the server predates it.
        commit_ts_us: i64,
        /// The transaction's whole size in bytes; 0 when the server predates it.
        transaction_bytes: u64,
    },
    MariaGtid {
        gtid: MariaGtid,
        /// No BEGIN is implied: one statement follows, a DDL.
        standalone: bool,
        /// `XA PREPARE` or `XA COMMIT`/`ROLLBACK` of a prepared one belongs to this group.
        prepared_xa: bool,
        completed_xa: bool,
    },
    Query {
        db: Cow<'a, str>,
        sql: Cow<'a, str>,
        /// The session's `sql_mode`; bit 2 is ANSI_QUOTES.
        sql_mode: Option<u64>,
        /// The collation id the text is in.
        charset_client: Option<u16>,
    },
    Xid(u64),
    XaPrepare(XaPrepare),
    TableMap(Arc<TableMap>),
    Rows(RowsEvent<'a>),
    Heartbeat,
    /// A whole transaction, unpacked: plain events one after the other, without checksums. See
    /// [`super::EventReader::inner_events`].
    TransactionPayload(Vec<u8>),
    RowsQuery(Cow<'a, str>),
    /// The server lost events: what follows is not continuous.
    Incident {
        message: Cow<'a, str>,
    },
    /// Known, and carries nothing that a reader of rows needs.
    Ignored,
    /// Not understood and not marked ignorable. The caller must stop here.
    Unsupported {
        event_type: u8,
    },
}

/// `XA PREPARE`, or `XA COMMIT … ONE PHASE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XaPrepare {
    pub one_phase: bool,
    pub format_id: i32,
    pub gtrid: Vec<u8>,
    pub bqual: Vec<u8>,
}

impl XaPrepare {
    /// The transaction's name as `XA COMMIT` and `XA ROLLBACK` write it: `X'6162',X'',1`.
    pub fn xid(&self) -> String {
        crate::ddl::xid_text(&self.gtrid, &self.bqual, self.format_id)
    }
}
