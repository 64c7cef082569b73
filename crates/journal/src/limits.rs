//! Every bound of the journal, with its reason.

/// The largest record. A binlog event is at most 1 GiB (`replica_max_allowed_packet`), and our text forms of decimals
/// and JSON at most double what the event holds.
pub const RECORD_BYTES_MAX: u32 = 2 << 30;

/// The default target of a segment: recovery reads one segment, and this much is checked in well under a second.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// What a segment's target may be: small enough for tests, and never so large that retention cannot let go.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
pub const SEGMENT_BYTES_MAX: u64 = 16 << 30;

/// A reader asks the disk for at least this much at once: past it, throughput of local disks no longer grows.
pub const READ_BYTES_MIN: usize = 1 << 20;

const _: () = assert!(RECORD_BYTES_MAX as u64 + 8 <= u32::MAX as u64);
const _: () = assert!(SEGMENT_BYTES >= SEGMENT_BYTES_MIN && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () = assert!(READ_BYTES_MIN > crate::record::SEAL_BYTES);
