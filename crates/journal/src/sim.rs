//! A disk in memory that fails on purpose, the same way for the same seed.
//!
//! It keeps what is durable apart from what is only written. A crash, at a chosen operation, keeps of the unsynced
//! writes a prefix or any subset of their sectors, and of the unsynced names any subset. Besides: full disk, syncs that
//! fail or lie, flipped bits.

use crate::disk::{Disk, DiskFile, DiskLock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A small seeded generator (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next_u64() >> 16).checked_rem(bound).unwrap_or(0)
    }

    /// True once in `odds`.
    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    rng: Rng,
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    names_durable: BTreeMap<PathBuf, usize>,
    /// Names changed since the last sync: the name and the file it now has.
    names_pending: Vec<(PathBuf, Option<usize>)>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    /// Counts restarts: handles from before one are dead.
    boot: u64,
    capacity: Option<u64>,
    fail_syncs: u32,
    lying: bool,
    now_ms: i64,
}

#[derive(Debug, Default)]
struct Content {
    written: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Truncate(usize),
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rng: Rng::new(seed ^ 0x5eed_d15c),
            files: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_pending: Vec::new(),
            locks: BTreeSet::new(),
            operations: 0,
            crash_at: None,
            crashed: false,
            boot: 0,
            capacity: None,
            fail_syncs: 0,
            lying: false,
            now_ms: 0,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far that change something.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Crashes in the middle of the operation that is `ahead` operations from now; 0 is the next one.
    pub fn crash_after(&self, ahead: u64) {
        let mut inner = self.inner();
        inner.crash_at = Some(inner.operations + ahead);
    }

    /// Whether it has crashed: every operation fails until [`Self::restart`].
    pub fn crashed(&self) -> bool {
        self.inner().crashed
    }

    /// Loses what a power cut loses, and starts again; files and locks that are open now are dead.
    pub fn restart(&self) {
        self.inner().restart();
    }

    /// Ends the process but not the machine: locks are free again, nothing is lost.
    pub fn end_process(&self) {
        let mut inner = self.inner();
        inner.boot += 1;
        inner.locks.clear();
    }

    /// Bytes that fit; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().capacity = bytes;
    }

    /// Sets the clock, which stands still: at 0 to begin with.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.inner().now_ms = now_ms;
    }

    /// Lets the next `count` syncs of files fail, keeping any part of what they should have kept.
    pub fn fail_syncs(&self, count: u32) {
        self.inner().fail_syncs = count;
    }

    /// Lets syncs say "done" and do nothing.
    pub fn set_lying(&self, lying: bool) {
        self.inner().lying = lying;
    }

    /// The names and contents as written.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let inner = self.inner();
        inner.names.iter().map(|(path, &id)| (path.clone(), inner.files[id].written.clone())).collect()
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.inner();
        inner.files.push(Content { written: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() });
        let id = inner.files.len() - 1;
        inner.names.insert(path.to_owned(), id);
        inner.names_durable.insert(path.to_owned(), id);
    }

    /// Flips bits of one byte, durably.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) {
        let mut inner = self.inner();
        let id = inner.names[path];
        let content = &mut inner.files[id];
        content.written[offset] ^= mask;
        if let Some(byte) = content.durable.get_mut(offset) {
            *byte ^= mask;
        }
    }
}

fn power_cut() -> io::Error {
    io::Error::other("the power is off")
}

impl Inner {
    fn alive(&self, boot: u64) -> io::Result<()> {
        if self.crashed || self.boot != boot { Err(power_cut()) } else { Ok(()) }
    }

    /// Counts an operation; true when the power is cut in the middle of it.
    fn operation(&mut self) -> io::Result<bool> {
        self.alive(self.boot)?;
        let now = self.crash_at == Some(self.operations);
        self.operations += 1;
        self.crashed = now;
        Ok(now)
    }

    fn name(&mut self, path: &Path, file: Option<usize>) {
        match file {
            Some(id) => self.names.insert(path.to_owned(), id),
            None => self.names.remove(path),
        };
        self.names_pending.push((path.to_owned(), file));
    }

    fn used(&self) -> u64 {
        self.names.values().map(|&id| self.files[id].written.len() as u64).sum()
    }

    fn restart(&mut self) {
        for index in 0..self.files.len() {
            self.lose_writes(index);
            let content = &mut self.files[index];
            content.written.clone_from(&content.durable);
        }
        // A name has one of the states it went through since it was last synced.
        let pending = std::mem::take(&mut self.names_pending);
        for (path, file) in pending {
            if self.rng.one_in(2) {
                match file {
                    Some(id) => self.names_durable.insert(path, id),
                    None => self.names_durable.remove(&path),
                };
            }
        }
        self.names.clone_from(&self.names_durable);
        self.locks.clear();
        (self.crashed, self.crash_at) = (false, None);
        self.boot += 1;
    }

    /// Makes some of a file's unsynced writes durable and forgets the rest.
    fn lose_writes(&mut self, index: usize) {
        let pending = std::mem::take(&mut self.files[index].pending);
        let in_order = self.rng.one_in(2);
        let whole = self.rng.below(pending.len() as u64 + 1) as usize;
        for (at, write) in pending.iter().enumerate() {
            if in_order && at > whole {
                return;
            }
            let durable = &mut self.files[index].durable;
            match write {
                _ if in_order && at < whole => apply(durable, write),
                Write::Truncate(_) if self.rng.one_in(2) => apply(durable, write),
                Write::Truncate(_) => {}
                Write::Bytes(offset, bytes) if in_order => {
                    let kept = self.rng.below(bytes.len() as u64 + 1) as usize;
                    apply(durable, &Write::Bytes(*offset, bytes[..kept].to_vec()));
                }
                Write::Bytes(offset, bytes) => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let end = (start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES).min(bytes.len());
                        if self.rng.one_in(2) {
                            apply(durable, &Write::Bytes(offset + start, bytes[start..end].to_vec()));
                        }
                        start = end;
                    }
                }
            }
        }
    }
}

fn apply(content: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Truncate(len) => content.truncate(*len),
        Write::Bytes(offset, bytes) => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.inner().operation().and_then(|cut| if cut { Err(power_cut()) } else { Ok(()) })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        let cut = inner.operation()?;
        inner.files.push(Content::default());
        let id = inner.files.len() - 1;
        inner.name(path, Some(id));
        if cut {
            Err(power_cut())
        } else {
            Ok(Arc::new(SimFile { disk: self.clone(), id, boot: inner.boot }))
        }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner();
        inner.alive(inner.boot)?;
        let id = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id, boot: inner.boot }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let cut = inner.operation()?;
        let id = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.name(to, Some(id));
        inner.name(from, None);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let cut = inner.operation()?;
        inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        inner.name(path, None);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        inner.alive(inner.boot)?;
        let names = inner.names.keys().filter(|p| p.parent() == Some(dir));
        Ok(names.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.operation()? {
            return Err(power_cut());
        }
        if !inner.lying {
            inner.names_durable = inner.names.clone();
            inner.names_pending.clear();
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut inner = self.inner();
        inner.alive(inner.boot)?;
        if !inner.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), path: path.to_owned(), boot: inner.boot })))
    }

    fn now_ms(&self) -> i64 {
        self.inner().now_ms
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: usize,
    boot: u64,
}

impl SimFile {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        inner.alive(self.boot)?;
        Ok(inner)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner()?.files[self.id].written.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = self.inner()?;
        let written = &inner.files[self.id].written;
        let rest = written.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner()?;
        let cut = inner.operation()?;
        let room = inner.capacity.map_or(u64::MAX, |c| c.saturating_sub(inner.used()));
        let full = (bytes.len() as u64) > room;
        let fits = if full { room as usize } else { bytes.len() };
        let kept = if cut { inner.rng.below(fits as u64 + 1) as usize } else { fits };
        let write = Write::Bytes(offset as usize, bytes[..kept].to_vec());
        let content = &mut inner.files[self.id];
        apply(&mut content.written, &write);
        content.pending.push(write);
        match (cut, full) {
            (true, _) => Err(power_cut()),
            (_, true) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner()?;
        let cut = inner.operation()?;
        let write = Write::Truncate(len as usize);
        let content = &mut inner.files[self.id];
        apply(&mut content.written, &write);
        content.pending.push(write);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner()?;
        if inner.operation()? {
            return Err(power_cut());
        }
        if inner.fail_syncs > 0 {
            inner.fail_syncs -= 1;
            inner.lose_writes(self.id);
            return Err(io::Error::other("the sync failed"));
        }
        if !inner.lying {
            let content = &mut inner.files[self.id];
            for write in std::mem::take(&mut content.pending) {
                apply(&mut content.durable, &write);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    boot: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.boot == self.boot {
            inner.locks.remove(&self.path);
        }
    }
}
