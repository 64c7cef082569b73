//! Segment files: their names, how one is made, and what a scan of the last one finds after a crash.

use crate::disk::{Disk, DiskFile};
use crate::error::JournalError;
use crate::limits::READ_BYTES_MIN;
use crate::record::{self, BadHead, Frame, Head, Kind, PREFIX_BYTES, Parsed, SEAL_BYTES};
use crate::state::{Checker, Event, Folded};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = ".journal";
const SUFFIX_UNFINISHED: &str = ".journal.new";

/// A segment's place in the journal, as its name tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    /// Counts 1, 2, 3 … without a hole.
    pub number: u64,
    /// The lsn of the first change that is in it, or would be.
    pub first_lsn: u64,
}

impl SegmentId {
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:010}-{:020}{SUFFIX}", self.number, self.first_lsn))
    }

    fn path_unfinished(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:010}{SUFFIX_UNFINISHED}", self.number))
    }

    fn of_name(name: &str) -> Option<Self> {
        let (number, first_lsn) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let id = Self { number: number.parse().ok()?, first_lsn: first_lsn.parse().ok()? };
        let possible = |count: u64| count > 0 && count < u64::MAX / 2;
        let canonical = id.path(Path::new("")).as_os_str() == name;
        (canonical && possible(id.number) && possible(id.first_lsn)).then_some(id)
    }
}

/// What a directory holds.
pub(crate) struct Listing {
    /// In order, without a hole.
    pub segments: Vec<SegmentId>,
    /// Segments whose making was interrupted; they never held anything.
    pub unfinished: Vec<PathBuf>,
}

pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing, JournalError> {
    let names = disk.list(dir).map_err(JournalError::io("list journal", dir))?;
    let mut segments: Vec<SegmentId> = names.iter().filter_map(|n| SegmentId::of_name(n)).collect();
    segments.sort_unstable();
    for pair in segments.windows(2) {
        if pair[1].number != pair[0].number + 1 || pair[1].first_lsn < pair[0].first_lsn {
            let reason = format!("segment {} does not follow segment {}", pair[1].number, pair[0].number);
            return Err(JournalError::corrupt(&pair[1].path(dir), 0, reason));
        }
    }
    let unfinished = names.iter().filter(|n| n.ends_with(SUFFIX_UNFINISHED)).map(|n| dir.join(n)).collect();
    Ok(Listing { segments, unfinished })
}

/// A segment under its unfinished name, its head and a seal written.
pub(crate) struct Unfinished {
    file: Arc<dyn DiskFile>,
    name: PathBuf,
    path: PathBuf,
    len: u64,
}

/// A segment that has its name: head and seal are durable.
pub(crate) struct Made {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    pub len: u64,
}

/// Begins to make a segment, under another name. When it fails, it may be tried again.
pub(crate) fn make(
    disk: &dyn Disk,
    dir: &Path,
    id: SegmentId,
    folded: &Folded,
) -> Result<Unfinished, JournalError> {
    let (name, path) = (id.path_unfinished(dir), id.path(dir));
    let failed = |error| JournalError::io("make journal segment", &path)(error);
    let mut bytes = Vec::new();
    // A commit's time is what its session says: replayed history says years ago, and is no older here than it looks to us.
    let ts_ms = disk.now_ms().max(folded.ts_ms);
    record::put_head(&mut bytes, id.number, ts_ms, &folded.state)
        .map_err(|bytes| JournalError::TooLarge { bytes })?;
    let head_bytes = bytes.len() as u64;
    record::put_seal(&mut bytes, id.first_lsn - 1, id.number, head_bytes);
    let file = disk.create(&name).map_err(failed)?;
    file.write_at(0, &bytes).map_err(failed)?;
    Ok(Unfinished { file, name, path, len: bytes.len() as u64 })
}

impl Unfinished {
    /// Gives the segment its name once its head is durable: what has the name has the head, so that a broken head is
    /// always bit rot and never a crash. When it fails, nobody knows what the disk holds.
    pub fn finish(self, disk: &dyn Disk, dir: &Path) -> Result<Made, JournalError> {
        let failed = |error| JournalError::io("make journal segment", &self.path)(error);
        self.file.sync_data().map_err(failed)?;
        disk.rename(&self.name, &self.path).map_err(failed)?;
        disk.sync_dir(dir).map_err(failed)?;
        Ok(Made { file: self.file, path: self.path, len: self.len })
    }
}

/// Decodes a head and checks that it is this segment's.
pub(crate) fn check_head(
    path: &Path,
    id: SegmentId,
    frame: Frame,
    body: &[u8],
) -> Result<Head, JournalError> {
    if frame.kind != Kind::Head {
        return Err(JournalError::corrupt(path, 0, "the segment does not begin with a head"));
    }
    let head = record::take_head(body).map_err(|bad| match bad {
        BadHead::Version(version) => JournalError::Format { segment: path.to_owned(), version },
        BadHead::Malformed => JournalError::corrupt(path, 0, "the head is malformed"),
    })?;
    if head.segment != id.number || head.state.next_lsn != id.first_lsn || frame.lsn != id.first_lsn - 1 {
        return Err(JournalError::corrupt(path, 0, "the head is that of another segment"));
    }
    Ok(head)
}

/// Reads only a segment's head.
pub(crate) fn read_head(file: &dyn DiskFile, path: &Path, id: SegmentId) -> Result<Head, JournalError> {
    let len = file.len().map_err(JournalError::io("read journal segment", path))?;
    let mut walker = Walker::new(file, path, len);
    match walker.next()? {
        Walked::Record { frame, body, .. } => check_head(path, id, frame, body),
        Walked::Bad { reason, .. } => Err(JournalError::corrupt(path, 0, reason)),
        Walked::End => Err(JournalError::corrupt(path, 0, "the segment is empty")),
    }
}

/// Reads the records of a file from its beginning.
struct Walker<'f> {
    file: &'f dyn DiskFile,
    path: &'f Path,
    /// Bytes in the file.
    len: u64,
    /// Offset in the file of `buffer[0]`.
    base: u64,
    buffer: Vec<u8>,
    at: usize,
}

enum Walked<'w> {
    Record { offset: u64, frame: Frame, body: &'w [u8] },
    Bad { offset: u64, reason: &'static str },
    End,
}

impl<'f> Walker<'f> {
    fn new(file: &'f dyn DiskFile, path: &'f Path, len: u64) -> Self {
        Self { file, path, len, base: 0, buffer: Vec::new(), at: 0 }
    }

    fn next(&mut self) -> Result<Walked<'_>, JournalError> {
        loop {
            let offset = self.base + self.at as u64;
            if offset == self.len {
                return Ok(Walked::End);
            }
            match record::parse(&self.buffer[self.at..], self.len - offset) {
                Parsed::Frame(frame) => {
                    let body = &self.buffer[self.at + record::FRAME_BYTES..self.at + frame.size];
                    self.at += frame.size;
                    return Ok(Walked::Record { offset, frame, body });
                }
                Parsed::Bad(reason) => return Ok(Walked::Bad { offset, reason }),
                Parsed::Need(bytes) => {
                    if !self.fill(bytes)? {
                        return Ok(Walked::Bad { offset, reason: "the file is shorter than it was" });
                    }
                }
            }
        }
    }

    /// Moves the current record to the front of the buffer and reads on until it holds `bytes` of it.
    fn fill(&mut self, bytes: usize) -> Result<bool, JournalError> {
        self.buffer.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        let have = self.buffer.len();
        let wanted = (bytes.max(READ_BYTES_MIN) as u64).min(self.len - self.base) as usize;
        self.buffer.resize(wanted.max(have), 0);
        let read = self
            .file
            .read_at(self.base + have as u64, &mut self.buffer[have..])
            .map_err(JournalError::io("read journal segment", self.path))?;
        self.buffer.truncate(have + read);
        Ok(self.buffer.len() >= bytes)
    }
}

/// What the last segment holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// At the last commit.
    pub folded: Folded,
    /// Where the last commit record ends.
    pub committed: u64,
    /// Where the last commit record, or a seal record behind it, ends: what follows is dropped.
    pub keep: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Whether the last record kept is a seal.
    pub sealed: bool,
}

/// Reads the last segment to its last commit.
///
/// A bad record is the torn end of what was never sealed, unless a seal record stands anywhere behind it: a seal is
/// written after the sync, so what stands before it was durable once, and is bit rot now.
pub(crate) fn scan(file: &dyn DiskFile, path: &Path, id: SegmentId) -> Result<Scan, JournalError> {
    let len = file.len().map_err(JournalError::io("read journal segment", path))?;
    let head = read_head(file, path, id)?;
    let folded = Folded { state: head.state, ts_ms: head.ts_ms };
    let mut scan = Scan { folded, committed: 0, keep: 0, len, sealed: false };
    let mut open = Vec::new();
    let mut lsn = id.first_lsn - 1;
    let mut in_txn = false;
    let mut walker = Walker::new(file, path, len);
    loop {
        let (offset, frame, body) = match walker.next()? {
            Walked::End => return Ok(scan),
            Walked::Record { offset, frame, body } => (offset, frame, body),
            Walked::Bad { offset, reason } => {
                if seal_behind(file, path, id.number, offset, len)? {
                    return Err(JournalError::corrupt(path, offset, reason));
                }
                return Ok(scan);
            }
        };
        let corrupt = |reason: String| JournalError::corrupt(path, offset, reason);
        let end = offset + frame.size as u64;
        check_order(frame, &mut lsn, &mut in_txn, offset == 0).map_err(|r| corrupt(r.to_owned()))?;
        match frame.kind {
            Kind::Head => (scan.committed, scan.keep) = (end, end),
            Kind::Change => {}
            Kind::Seal => {
                if !record::is_seal_at(body, id.number, offset) {
                    return Err(corrupt("a seal record is not of this place".to_owned()));
                }
                if open.is_empty() && !in_txn {
                    (scan.keep, scan.sealed) = (end, true);
                }
            }
            _ => {
                let event =
                    Event::of_record(frame.kind, frame.lsn, body).map_err(|r| corrupt(r.to_owned()))?;
                open.extend(event);
            }
        }
        if frame.kind == Kind::Commit {
            let mut checker = Checker::new(&scan.folded.state);
            open.iter().try_for_each(|e| checker.check(e)).map_err(corrupt)?;
            scan.folded.commit(open.drain(..));
            (scan.committed, scan.keep, scan.sealed) = (end, end, false);
        }
    }
}

/// Checks that a record may stand where it does; `lsn` is that of the last change, `in_txn` whether one is open.
#[inline]
pub(crate) fn check_order(
    frame: Frame,
    lsn: &mut u64,
    in_txn: &mut bool,
    first: bool,
) -> Result<(), &'static str> {
    if (frame.kind == Kind::Head) != first {
        return Err("a head stands elsewhere than at the beginning");
    }
    match frame.kind {
        Kind::Change => {
            if !*in_txn {
                return Err("a change stands outside of a transaction");
            }
            *lsn += 1;
        }
        Kind::Begin if *in_txn => return Err("a transaction begins inside another"),
        Kind::Begin => *in_txn = true,
        Kind::Commit => *in_txn = false,
        _ => {}
    }
    if frame.lsn == *lsn { Ok(()) } else { Err("a record is out of order") }
}

/// Whether a valid seal record stands anywhere in the file behind `offset`.
fn seal_behind(
    file: &dyn DiskFile,
    path: &Path,
    number: u64,
    offset: u64,
    len: u64,
) -> Result<bool, JournalError> {
    let seal_len = (SEAL_BYTES - PREFIX_BYTES) as u32;
    let pattern = seal_len.to_le_bytes();
    let mut base = offset + 1;
    let mut window = Vec::new();
    while base + SEAL_BYTES as u64 <= len {
        window.resize((READ_BYTES_MIN as u64).min(len - base) as usize, 0);
        let read = file.read_at(base, &mut window).map_err(JournalError::io("read journal segment", path))?;
        if read < SEAL_BYTES {
            return Ok(false);
        }
        let window = &window[..read];
        for (at, candidate) in window.windows(SEAL_BYTES).enumerate() {
            if candidate[..4] == pattern && candidate[PREFIX_BYTES] == Kind::Seal as u8 {
                let here = base + at as u64;
                let body = &candidate[record::FRAME_BYTES..];
                if record::is_seal_at(body, number, here)
                    && matches!(record::parse(candidate, SEAL_BYTES as u64), Parsed::Frame(_))
                {
                    return Ok(true);
                }
            }
        }
        base += (read - SEAL_BYTES + 1) as u64;
    }
    Ok(false)
}
