//! The durable change log of one source: append, seal, recover, read, retain.
//!
//! One writer appends transactions; a transaction is visible, with the source position it carries, once its commit is
//! sealed. Everything a reader can see was durable before. There is no second store for the position: what recovery
//! finds at the last commit is where capture goes on, so that capture into the journal is exactly once.
//!
//! # The directory
//!
//! ```text
//! lock                                                held by the writer (an advisory lock on the file)
//! 0000000001-00000000000000000001.journal             segment number, lsn of its first change
//! 0000000002-00000000000000004711.journal
//! 0000000003.journal.new                              a segment whose making was interrupted; removed at open
//! ```
//! Segment numbers have no hole. A segment is written under its `.new` name, synced, renamed, and the directory synced:
//! a segment that has its name has a whole head. Only the last segment is ever written; the ones before are durable to
//! their last byte. A transaction never spans segments, so a segment may exceed its target. Retention removes whole
//! segments from the old end, one directory sync each, so that no crash leaves a hole.
//!
//! # A record
//!
//! ```text
//! len:u32  crc:u32  kind:u8  lsn:u64  body            integers little-endian; varint and blob as in base::varint
//! ```
//! `len` counts what follows `crc` and is at most [`limits::RECORD_BYTES_MAX`]. `crc` is CRC-32C over the four bytes of
//! `len` and everything behind `crc`. `lsn` numbers changes, and only changes, 1, 2, 3 … without a hole; every other
//! record carries the lsn of the last change before it. An image is a row in `base::row`'s encoding.
//!
//! ```text
//! 1 head      first in each segment, only there: "TIDEMILL" version:u16 identity:u64 segment:u64 epoch:u32
//!             first_lsn:u64 ts_ms:i64 (when the segment began, or the time of the last commit before,
//!             if that is later) blob(position JSON or null)
//!             varint(number of tables) blob(table JSON)… blob(snapshot progress JSON)
//! 2 schema    table JSON; before the first row of its (id, version), and current until the next of that id
//! 3 drop      varint(table id)
//! 4 begin     zigzag varint(ts_ms) blob(transaction id; empty for snapshot rows)
//! 5 change    op:u8 images:u8 (1 before, 2 after) varint(table id) varint(version), then
//!               both images: before_len:u32 before after      one image: it, to the end      ddl: JSON, to the end
//! 6 snapshot  snapshot progress JSON
//! 7 epoch     varint(epoch) blob(reason)
//! 8 commit    a step of the position, below
//! 9 seal      segment:u64 offset:u64 (its own): everything before it in this segment was durable when it was written
//! ```
//! ```text
//! step = 0 stay
//!      | 1 mysql   flags:u8 (1 gtid, 2 file) [uuid:16 blob(tag) varint(number)] [blob(file)] varint(pos)
//!      | 2 mariadb flags:u8 [varint(domain) varint(server) varint(sequence)] [blob(file)] varint(pos)
//!      | 3 sqlite  zigzag varint(change id)
//!      | 4 full    blob(position JSON)
//!      | 5 kafka   blob(topic) varint(partition) zigzag varint(offset of the next record)      since version 2
//!      | 6 push    blob(digest of the request; empty for one without a name)                  since version 3
//!      | 7 capture blob(file) varint(next block) varint(bytes of it) done:u8                  since version 4
//! ```
//! Versions 2, 3 and 4 added a step each, and positions of its kind. A journal of an earlier version is read as it is; what is
//! written to it from then on begins a segment of the newest version, or has no step of those kinds.
//!
//! `identity` is drawn when the journal is made and the same in all its segments: a sink that notes it beside its lsn
//! notices when the journal was replaced. Changes stand between a begin and its commit. Other records may stand inside or outside; all of them take effect with
//! the commit that follows.
//!
//! # Torn end or bit rot
//!
//! A crash may keep any part of what was not synced, in any order, so a valid commit behind a hole proves nothing. A
//! seal record does: it is written after the sync has returned. At a bad record in the last segment, recovery looks for
//! a seal record (of this segment, at its own offset) anywhere behind it. If there is one, the bytes were durable once and
//! are rotten now: [`JournalError::Corrupt`], nothing is cut off. If there is none, they are the torn end: recovery
//! cuts the segment behind its last commit. In a segment before the last, in a head, and in a record whose checksum is
//! right but whose content is not, every fault is corruption. What remains undecidable is damage within the very last
//! seal when a power cut also took the seal record behind it; that reads as a torn end.
//!
//! # Failures
//!
//! - A failed write leaves the journal as before the batch; what it may have left is cut off, and the cut synced,
//!   before anything else is written.
//! - After a failed sync the writer writes no more ([`JournalError::Poisoned`]): the system may have dropped the
//!   pages and would say "synced" next time. What was not sealed is cut off; opening again recovers.
//! - A disk that says "synced" and lies can lose the end; what is left is a prefix, or found to be corrupt.

mod batch;
mod chunk;
pub mod disk;
mod error;
mod journal;
pub mod limits;
mod reader;
mod record;
mod segment;
pub mod sim;
mod state;
mod writer;

pub use batch::Batch;
pub use chunk::{Changes, Chunk};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use error::JournalError;
pub use journal::{Journal, Retention, Sealed, open_read_only};
pub use reader::Reader;
pub use record::FORMAT_VERSION;
pub use state::State;
pub use writer::{Options, Writer, open};
