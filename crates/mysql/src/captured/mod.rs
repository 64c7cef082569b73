//! Captured statements: the format of their records, and of the files that hold them.
//!
//! The mesh writes them; a replay and a flow's source read them. Nothing here decides what is captured.

mod file;
mod record;

pub use file::{BLOCK_BYTES_MAX, FILE_HEAD_BYTES, Next, Reader, Writer, block_at, list};
pub use record::{Flags, Kind, Record, Shown};

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
