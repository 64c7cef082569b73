//! The one writer of a journal: append, seal, abort, and recovery when it opens.
//!
//! It must never write after a failed sync, never let a reader see what is not durable, and never cut off what was.

use crate::batch::Batch;
use crate::disk::{Disk, DiskFile, DiskLock};
use crate::error::JournalError;
use crate::journal::{Journal, Segment, Shared, complete_segments};
use crate::limits::{SEGMENT_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::record;
use crate::segment::{self, SegmentId};
use crate::state::{Checker, Event, Folded, State};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a journal is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has grown to this takes no further transaction. Default 64 MiB; 4 KiB to 16 GiB.
    pub segment_bytes: u64,
    /// What a new journal is told apart by; drawn at random by default.
    pub identity: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, identity: None }
    }
}

/// The writing end of a journal. Every method blocks on the disk.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    _lock: Box<dyn DiskLock>,
    segment_bytes: u64,
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Folded at the last commit appended.
    folded: Folded,
    /// What was appended behind that commit.
    open: OpenRecords,
    /// Bytes of the segment that are ours.
    len: u64,
    /// Where the last commit, or a seal behind it, ends.
    keep: u64,
    /// Where the last commit ends.
    committed: u64,
    /// Bytes that a sync has covered: all, but perhaps not a seal record at the end.
    synced: u64,
    /// `len` when nothing was left to seal.
    settled: u64,
    /// A failed write may have left bytes behind `len`.
    dirty: bool,
    poisoned: bool,
    spare: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct OpenRecords {
    events: Vec<Event>,
    in_txn: bool,
    /// The lsn of the next change.
    next_lsn: u64,
}

/// Opens or makes the journal in `dir`, as its only writer. What follows the last commit is cut off.
pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<(Writer, Journal), JournalError> {
    let segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    let failed = |error| JournalError::io("open journal", dir)(error);
    disk.create_dir(dir).map_err(failed)?;
    let lock = disk.lock(&dir.join("lock")).map_err(failed)?;
    let Some(lock) = lock else { return Err(JournalError::Locked { dir: dir.to_owned() }) };
    let listing = segment::list(&*disk, dir)?;
    for path in &listing.unfinished {
        disk.remove(path).map_err(JournalError::io("remove unfinished segment", path))?;
    }
    let end = match listing.segments.last() {
        Some(&id) => recover(&*disk, dir, id)?,
        None => begin(&*disk, dir, options.identity.unwrap_or_else(draw_identity))?,
    };
    let ids = if listing.segments.is_empty() { vec![end.id] } else { listing.segments };
    let segments = complete_segments(&*disk, dir, &ids, end.committed)?;
    let shared = Shared::new(disk, dir, false, segments, end.folded.clone());
    let open = OpenRecords { next_lsn: end.folded.state.next_lsn, ..OpenRecords::default() };
    let mut writer = Writer {
        shared: shared.clone(),
        _lock: lock,
        segment_bytes,
        id: end.id,
        file: end.file,
        path: end.path,
        folded: end.folded,
        open,
        len: end.keep,
        keep: end.keep,
        committed: end.committed,
        synced: end.keep,
        settled: end.keep,
        dirty: false,
        poisoned: false,
        spare: None,
    };
    if !end.sealed {
        writer.put_seal();
    }
    Ok((writer, Journal { shared }))
}

/// The last segment as a writer finds it: nothing behind `keep`, all of it durable.
struct End {
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    folded: Folded,
    committed: u64,
    keep: u64,
    sealed: bool,
}

/// A number that no other journal has, for all that matters. The standard library seeds its hashers at random.
fn draw_identity() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

fn begin(disk: &dyn Disk, dir: &Path, identity: u64) -> Result<End, JournalError> {
    let id = SegmentId { number: 1, first_lsn: 1 };
    let mut folded = Folded::default();
    folded.state.identity = identity;
    let made = segment::make(disk, dir, id, &folded)?.finish(disk, dir)?;
    let (file, path) = (made.file, made.path);
    Ok(End { id, file, path, folded, committed: made.len, keep: made.len, sealed: true })
}

fn recover(disk: &dyn Disk, dir: &Path, id: SegmentId) -> Result<End, JournalError> {
    let path = id.path(dir);
    let failed = |error| JournalError::io("recover journal segment", &path)(error);
    let file = disk.open(&path).map_err(failed)?;
    let scan = segment::scan(&*file, &path, id)?;
    if scan.len > scan.keep {
        file.truncate(scan.keep).map_err(failed)?;
    }
    // What a crashed process wrote may be readable and yet not be on the disk; readers see it from now on.
    file.sync_data().map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    let (committed, keep, sealed) = (scan.committed, scan.keep, scan.sealed);
    Ok(End { id, file, path, folded: scan.folded, committed, keep, sealed })
}

impl Writer {
    /// Writes a batch behind what is there; invisible until sealed. When it fails, the journal is as if the batch had
    /// never been.
    pub fn append(&mut self, mut batch: Batch) -> Result<(), JournalError> {
        self.check_usable()?;
        self.check(&batch)?;
        if batch.is_empty() {
            self.spare = Some(batch.bytes);
            return Ok(());
        }
        self.drop_tail_of_failed_write()?;
        if self.len >= self.segment_bytes && self.at_border() {
            self.roll()?;
        }
        if let Err(error) = self.file.write_at(self.len, &batch.bytes) {
            self.dirty = true;
            return Err(JournalError::io("append to journal segment", &self.path)(error));
        }
        self.fold(&mut batch);
        self.spare = Some(batch.bytes);
        Ok(())
    }

    /// Makes all that was appended durable, and lets readers see it up to the last commit; the last lsn they see.
    pub fn seal(&mut self) -> Result<u64, JournalError> {
        self.check_usable()?;
        self.drop_tail_of_failed_write()?;
        if self.len > self.settled {
            self.sync_and_publish()?;
            self.put_seal();
        }
        Ok(self.folded.state.next_lsn - 1)
    }

    /// Drops what follows the last commit that was appended.
    pub fn abort(&mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        if self.len > self.keep {
            self.len = self.keep;
            self.synced = self.synced.min(self.len);
            self.settled = self.settled.min(self.len);
            self.dirty = true;
        }
        self.open = OpenRecords { next_lsn: self.folded.state.next_lsn, ..OpenRecords::default() };
        self.drop_tail_of_failed_write()
    }

    /// As of the last commit appended, sealed or not.
    pub fn state(&self) -> &State {
        &self.folded.state
    }

    /// The lsn that the next batch begins with: behind all that was appended, committed or not.
    pub fn next_lsn(&self) -> u64 {
        self.open.next_lsn
    }

    /// The reading side.
    pub fn journal(&self) -> Journal {
        Journal { shared: self.shared.clone() }
    }

    /// The buffer of the last batch appended, for [`Batch::reuse`].
    pub fn spare(&mut self) -> Option<Vec<u8>> {
        self.spare.take()
    }

    fn check_usable(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned { dir: self.shared.dir.clone() }) } else { Ok(()) }
    }

    /// Whether no transaction and no other record waits for its commit.
    fn at_border(&self) -> bool {
        self.open.events.is_empty() && !self.open.in_txn
    }

    /// Checks a whole batch before any of it is written.
    fn check(&self, batch: &Batch) -> Result<(), JournalError> {
        if let Some(bytes) = batch.too_large {
            return Err(JournalError::TooLarge { bytes });
        }
        if batch.first_lsn != self.open.next_lsn {
            let reason = format!("it begins with {}, but {} is next", batch.first_lsn, self.open.next_lsn);
            return Err(JournalError::misuse(reason));
        }
        let mut in_txn = self.open.in_txn;
        if batch.continues && !in_txn {
            return Err(JournalError::misuse("it continues a transaction, but none is open"));
        }
        let mut checker = Checker::new(&self.folded.state);
        for event in &self.open.events {
            checker.check(event).map_err(JournalError::misuse)?;
        }
        for event in &batch.events {
            match event {
                Event::Begin { .. } if in_txn => {
                    return Err(JournalError::misuse("it begins a transaction inside another"));
                }
                Event::Begin { .. } => in_txn = true,
                Event::Commit { .. } => in_txn = false,
                _ => {}
            }
            checker.check(event).map_err(JournalError::misuse)?;
        }
        Ok(())
    }

    /// Takes a batch that has been written into account.
    fn fold(&mut self, batch: &mut Batch) {
        let start = self.len;
        for event in batch.events.drain(..) {
            match event {
                Event::Begin { .. } => self.open.in_txn = true,
                Event::Commit { end, .. } => {
                    self.open.in_txn = false;
                    self.committed = start + end;
                    self.keep = self.committed;
                    self.folded.commit(self.open.events.drain(..).chain([event]));
                    continue;
                }
                _ => {}
            }
            self.open.events.push(event);
        }
        self.open.next_lsn = batch.next_lsn();
        self.len = start + batch.bytes.len() as u64;
        assert!(self.committed <= self.keep && self.keep <= self.len, "commits lie inside the segment");
    }

    /// Cuts the file back to `len` when something may stand behind it, and waits until that is durable: were it not,
    /// a crash could mix the dropped bytes with those written over them.
    fn drop_tail_of_failed_write(&mut self) -> Result<(), JournalError> {
        if self.dirty {
            let failed = JournalError::io("truncate journal segment", &self.path);
            self.file.truncate(self.len).map_err(failed)?;
            self.sync_only()?;
            self.dirty = false;
        }
        Ok(())
    }

    fn sync_and_publish(&mut self) -> Result<(), JournalError> {
        self.sync_only()?;
        self.synced = self.len;
        self.settled = self.len;
        self.shared.publish(self.committed, &self.folded);
        Ok(())
    }

    /// A failed sync is the last: the system may have dropped the pages and will say "synced" next time. What was not
    /// sealed is cut off as well as can be, so that a later recovery does not believe in it.
    fn sync_only(&mut self) -> Result<(), JournalError> {
        let Err(error) = self.file.sync_data() else { return Ok(()) };
        self.poisoned = true;
        let sealed = self.shared.look(self.id.number).current.map_or(self.keep, |s| s.end);
        let _ = self.file.truncate(sealed);
        Err(JournalError::io("sync journal segment", &self.path)(error))
    }

    /// Notes behind what is durable that it is. Only evidence for a later recovery: when it fails, nothing is lost.
    fn put_seal(&mut self) {
        if self.len != self.keep || !self.at_border() {
            return;
        }
        let mut bytes = Vec::with_capacity(record::SEAL_BYTES);
        record::put_seal(&mut bytes, self.folded.state.next_lsn - 1, self.id.number, self.len);
        if self.file.write_at(self.len, &bytes).is_ok() {
            self.len += bytes.len() as u64;
            self.keep = self.len;
            self.settled = self.len;
        } else {
            self.dirty = true;
        }
    }

    /// Completes the segment, all of it durable, and begins the next.
    fn roll(&mut self) -> Result<(), JournalError> {
        if self.len > self.synced {
            self.sync_and_publish()?;
        }
        let id = SegmentId { number: self.id.number + 1, first_lsn: self.folded.state.next_lsn };
        let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
        let unfinished = segment::make(disk, dir, id, &self.folded)?;
        let made = unfinished.finish(disk, dir).inspect_err(|_| self.poisoned = true)?;
        self.shared.add_segment(Segment { id, end: made.len });
        (self.id, self.file, self.path) = (id, made.file, made.path);
        (self.len, self.keep, self.committed) = (made.len, made.len, made.len);
        (self.synced, self.settled) = (made.len, made.len);
        Ok(())
    }
}
