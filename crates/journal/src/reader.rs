//! A cursor over the sealed changes of a journal.
//!
//! It reads large pieces, checks every record once, and cuts chunks so that the record behind a chunk's last change
//! is always known: a chunk ends with a commit, or right before another change of the same transaction.

use crate::chunk::{Chunk, Context};
use crate::disk::DiskFile;
use crate::error::JournalError;
use crate::journal::{Segment, Shared};
use crate::limits::READ_BYTES_MIN;
use crate::record::{self, FRAME_BYTES, Frame, Kind, Parsed};
use crate::segment::{check_head, check_order};
use std::path::PathBuf;
use std::sync::Arc;

/// Reads one journal from an lsn on. Blocks on the disk, never on the writer.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    segment: Open,
    /// Changes before this are skipped.
    from_lsn: u64,
    buffer: Arc<Vec<u8>>,
    /// Offset in the segment of `buffer[0]`.
    base: u64,
    /// Bytes of the buffer that hold what was read.
    filled: usize,
    /// Where the next chunk begins, in the buffer.
    at: usize,
    /// Up to where records have been checked, in the buffer.
    checked: usize,
    /// The last change checked, and whether its transaction is open.
    checked_lsn: u64,
    checked_in_txn: bool,
    /// What holds at `at`.
    context: Context,
}

/// The segment a reader is in.
#[derive(Debug)]
struct Open {
    segment: Segment,
    file: Arc<dyn DiskFile>,
    path: Arc<PathBuf>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, from_lsn: u64) -> Result<Self, JournalError> {
        // Retention may remove the segment between finding and opening it; then the first one is another.
        let segment = loop {
            let found = shared.find(from_lsn)?;
            match Open::new(&shared, found) {
                Err(_) if shared.look(found.id.number).current.is_none() => {}
                // Of another process' journal, only the missing file says so.
                Err(error) if shared.read_only && error.is_missing_file() => {
                    let look = shared.look(found.id.number);
                    let first_lsn = look.next.map_or(found.id.first_lsn, |next| next.id.first_lsn);
                    return Err(JournalError::Pruned { wanted: from_lsn, first_lsn });
                }
                opened => break opened?,
            }
        };
        let lsn = segment.segment.id.first_lsn - 1;
        Ok(Self {
            shared,
            segment,
            from_lsn,
            buffer: Arc::default(),
            base: 0,
            filled: 0,
            at: 0,
            checked: 0,
            checked_lsn: lsn,
            checked_in_txn: false,
            context: Context::new(lsn),
        })
    }

    /// The next changes: whole transactions of together at most `bytes_max` bytes, or, when one alone is larger, a
    /// part of it (at least one change). `None` when all that is sealed has been read.
    pub fn next(&mut self, bytes_max: usize) -> Result<Option<Chunk>, JournalError> {
        loop {
            let cut = self.cut(bytes_max)?;
            if cut == self.at {
                if !self.refresh()? {
                    return Ok(None);
                }
                continue;
            }
            let chunk = self.take(cut)?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Skips what lies before `lsn`; what is behind the reader already stays so.
    pub fn skip_to(&mut self, lsn: u64) -> Result<(), JournalError> {
        if lsn <= self.next_lsn() {
            return Ok(());
        }
        if self.shared.find(lsn)?.id.number != self.segment.segment.id.number {
            *self = Self::new(Arc::clone(&self.shared), lsn)?;
        }
        self.from_lsn = lsn;
        Ok(())
    }

    /// The first change that the next chunk may hold.
    pub fn next_lsn(&self) -> u64 {
        self.from_lsn.max(self.context.lsn + 1)
    }

    /// Looks whether there is more behind what was known, in this segment or the next.
    fn refresh(&mut self) -> Result<bool, JournalError> {
        let number = self.segment.segment.id.number;
        let look = self.shared.look(number);
        if let Some(current) = look.current {
            if current.end > self.segment.segment.end {
                self.segment.segment = current;
                return Ok(true);
            }
        } else if self.segment.segment.end < self.segment_len()? {
            // Removed by retention, but still open here, and complete since.
            self.segment.segment.end = self.segment_len()?;
            return Ok(true);
        }
        let Some(next) = look.next else {
            return match look.current {
                Some(_) => Ok(false),
                None => Err(self.pruned(look.first_lsn)),
            };
        };
        match Open::new(&self.shared, next) {
            Ok(open) => self.enter(open).map(|()| true),
            Err(error) => {
                let now = self.shared.look(next.id.number);
                if now.current.is_none() {
                    return Err(self.pruned(now.first_lsn));
                }
                let removed = self.shared.read_only && error.is_missing_file();
                let behind = now.next.map_or(next.id.first_lsn, |segment| segment.id.first_lsn);
                Err(if removed { self.pruned(behind) } else { error })
            }
        }
    }

    fn pruned(&self, first_lsn: u64) -> JournalError {
        JournalError::Pruned { wanted: self.next_lsn(), first_lsn }
    }

    fn segment_len(&self) -> Result<u64, JournalError> {
        self.segment.file.len().map_err(JournalError::io("read journal segment", &self.segment.path))
    }

    /// Goes on in the next segment.
    fn enter(&mut self, open: Open) -> Result<(), JournalError> {
        if open.segment.id.first_lsn != self.context.lsn + 1 {
            let reason = format!("it begins with change {}", open.segment.id.first_lsn);
            let reason = format!("{reason}, but {} is next", self.context.lsn + 1);
            return Err(JournalError::corrupt(&open.path, 0, reason));
        }
        self.segment = open;
        (self.base, self.filled, self.at, self.checked) = (0, 0, 0, 0);
        Ok(())
    }

    /// Where the next chunk ends, in the buffer; `self.at` when nothing more is readable in this segment.
    fn cut(&mut self, bytes_max: usize) -> Result<usize, JournalError> {
        let mut bytes = 0;
        let mut changes = 0u64;
        let mut committed = 0;
        loop {
            let Some(frame) = self.frame_at(bytes, bytes_max)? else { return Ok(self.at + bytes) };
            if frame.kind == Kind::Change {
                // What is skipped is passed over in large steps, but never gathered.
                let skipped = frame.lsn < self.from_lsn;
                let limit = if skipped { bytes_max.max(READ_BYTES_MIN) } else { bytes_max };
                if changes > 0 && bytes + frame.size > limit {
                    return Ok(self.at + if committed > 0 { committed } else { bytes });
                }
                changes += 1;
            }
            bytes += frame.size;
            if frame.kind == Kind::Commit {
                committed = bytes;
                if bytes >= bytes_max {
                    return Ok(self.at + bytes);
                }
            }
        }
    }

    /// The record `ahead` bytes behind `self.at`, checked; `None` at the end of what is readable.
    #[inline]
    fn frame_at(&mut self, ahead: usize, bytes_max: usize) -> Result<Option<Frame>, JournalError> {
        loop {
            let at = self.at + ahead;
            if at < self.checked {
                return Ok(record::peek(&self.buffer[at..]));
            }
            let offset = self.base + at as u64;
            let remaining = self.segment.segment.end - offset;
            if remaining == 0 {
                return Ok(None);
            }
            match record::parse(&self.buffer[at..self.filled], remaining) {
                Parsed::Frame(frame) => {
                    check_order(frame, &mut self.checked_lsn, &mut self.checked_in_txn, offset == 0)
                        .map_err(|reason| JournalError::corrupt(&self.segment.path, offset, reason))?;
                    self.checked = at + frame.size;
                    return Ok(Some(frame));
                }
                Parsed::Bad(reason) => {
                    return Err(JournalError::corrupt(&self.segment.path, offset, reason));
                }
                Parsed::Need(bytes) => self.fill(ahead + bytes, bytes_max)?,
            }
        }
    }

    /// Reads on, so that the buffer holds at least `bytes` behind `self.at`.
    fn fill(&mut self, bytes: usize, bytes_max: usize) -> Result<(), JournalError> {
        let have = self.filled - self.at;
        let start = self.base + self.at as u64;
        let readable = self.segment.segment.end - start;
        let wanted = bytes.max(bytes_max.saturating_add(FRAME_BYTES)).max(have + READ_BYTES_MIN);
        let wanted = usize::try_from(readable).unwrap_or(usize::MAX).min(wanted);
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => {
                buffer.copy_within(self.at..self.filled, 0);
                if buffer.len() < wanted {
                    buffer.resize(wanted, 0);
                }
            }
            None => {
                let mut buffer = vec![0; wanted];
                buffer[..have].copy_from_slice(&self.buffer[self.at..self.filled]);
                self.buffer = Arc::new(buffer);
            }
        }
        self.checked -= self.at;
        (self.base, self.filled, self.at) = (start, have, 0);
        let buffer = Arc::get_mut(&mut self.buffer).expect("the buffer was made or found unshared");
        let path = &self.segment.path;
        let read = self
            .segment
            .file
            .read_at(start + have as u64, &mut buffer[have..wanted])
            .map_err(JournalError::io("read journal segment", path))?;
        self.filled += read;
        if self.filled < bytes {
            let offset = start + self.filled as u64;
            return Err(JournalError::corrupt(path, offset, "the segment is shorter than it was"));
        }
        Ok(())
    }

    /// Makes the records up to `cut` a chunk.
    fn take(&mut self, cut: usize) -> Result<Chunk, JournalError> {
        let range = self.at..cut;
        if self.base + self.at as u64 == 0 {
            self.start_segment()?;
        }
        let mut chunk = Chunk::new(
            self.buffer.clone(),
            range,
            self.segment.path.clone(),
            self.base,
            self.from_lsn,
            self.context.clone(),
        );
        chunk.advance(&mut self.context)?;
        self.at = cut;
        Ok(chunk)
    }

    /// Takes epoch and schemas from the segment's head.
    fn start_segment(&mut self) -> Result<(), JournalError> {
        let frame = record::peek(&self.buffer[self.at..]).expect("the head has been checked");
        let body = &self.buffer[self.at + FRAME_BYTES..self.at + frame.size];
        let head = check_head(&self.segment.path, self.segment.segment.id, frame, body)?;
        self.context.epoch = head.state.epoch;
        self.context.tables = Arc::new(head.state.tables);
        Ok(())
    }
}

impl Open {
    fn new(shared: &Shared, segment: Segment) -> Result<Self, JournalError> {
        let path = segment.id.path(&shared.dir);
        let failed = JournalError::io("open journal segment", &path);
        let file = shared.disk.open_read(&path).map_err(failed)?;
        Ok(Self { segment, file, path: Arc::new(path) })
    }
}
