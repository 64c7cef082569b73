//! The reading side's view of a journal: which segments there are and how far they are sealed; retention.

use crate::disk::Disk;
use crate::error::JournalError;
use crate::reader::Reader;
use crate::segment::{self, SegmentId};
use crate::state::{Folded, State};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A journal to read from. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

/// How far a journal is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    pub epoch: u32,
    /// The last change; 0 when there is none.
    pub lsn: u64,
    /// Bytes on disk that readers may see.
    pub bytes: u64,
    /// Time of the last commit by the source's clock, in milliseconds since the Unix epoch; 0 when there is none.
    pub ts_ms: i64,
}

/// What [`Journal::prune`] may remove. A segment goes when any of the limits that are set says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Remove the oldest segments while the journal is larger than this.
    pub bytes_max: Option<u64>,
    /// Remove segments that were complete before this time, in milliseconds since the Unix epoch, if their last commit says
    /// so too.
    pub since_ts_ms: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub read_only: bool,
    view: Mutex<View>,
    /// Held while pruning, so that two prunings remove in order. Taken before `view`.
    pruning: Mutex<()>,
    /// The last sealed lsn; sent at every seal, even when it stays.
    sealed: watch::Sender<u64>,
}

#[derive(Debug)]
struct View {
    /// Oldest first; never empty; all but the last are complete.
    segments: Vec<Segment>,
    folded: Folded,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub id: SegmentId,
    /// Bytes that readers may see.
    pub end: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        read_only: bool,
        segments: Vec<Segment>,
        folded: Folded,
    ) -> Arc<Self> {
        assert!(!segments.is_empty(), "a journal has a segment");
        let (sealed, _) = watch::channel(folded.state.next_lsn - 1);
        let view = Mutex::new(View { segments, folded });
        Arc::new(Self { disk, dir: dir.to_owned(), read_only, view, pruning: Mutex::new(()), sealed })
    }

    /// Lets readers see the last segment up to `end`.
    pub fn publish(&self, end: u64, folded: &Folded) {
        let lsn = folded.state.next_lsn - 1;
        {
            let mut view = lock(&self.view);
            let last = view.segments.last_mut().expect("a journal has a segment");
            assert!(last.end <= end, "what was sealed stays sealed");
            last.end = end;
            assert!(view.folded.state.next_lsn <= folded.state.next_lsn, "changes only grow");
            view.folded = folded.clone();
        }
        self.sealed.send_replace(lsn);
    }

    /// Adds a new last segment; the one before is complete.
    pub fn add_segment(&self, segment: Segment) {
        lock(&self.view).segments.push(segment);
    }

    /// The segment that holds `lsn`, or the last one.
    pub fn find(&self, lsn: u64) -> Result<Segment, JournalError> {
        let view = lock(&self.view);
        let after = view.segments.partition_point(|s| s.id.first_lsn <= lsn);
        match after.checked_sub(1) {
            Some(index) => Ok(view.segments[index]),
            None => Err(JournalError::Pruned { wanted: lsn, first_lsn: view.segments[0].id.first_lsn }),
        }
    }

    /// Segment `number` as it is now, and the one behind it.
    pub fn look(&self, number: u64) -> Look {
        let view = lock(&self.view);
        let first = view.segments[0].id;
        let of = |number: u64| {
            number
                .checked_sub(first.number)
                .and_then(|i| view.segments.get(usize::try_from(i).ok()?))
                .copied()
        };
        Look { current: of(number), next: of(number + 1), first_lsn: first.first_lsn }
    }
}

/// What a reader sees of its segment.
pub(crate) struct Look {
    /// `None` when retention has removed it.
    pub current: Option<Segment>,
    /// `None` when it is the last, or removed.
    pub next: Option<Segment>,
    pub first_lsn: u64,
}

/// Looks at a folder while its owner's retention removes files of it.
const LOOKS_MAX: usize = 8;

/// Opens a journal that another process may be writing: sees what is committed on disk now, and changes nothing.
pub fn open_read_only(disk: Arc<dyn Disk>, dir: &Path) -> Result<Journal, JournalError> {
    for _ in 1..LOOKS_MAX {
        match look_at(&disk, dir) {
            // A listing can also have met a later file's removal and not an earlier one's: then it shows a hole.
            Err(error) if error.is_missing_file() || matches!(error, JournalError::Corrupt { .. }) => {}
            looked => return looked,
        }
    }
    look_at(&disk, dir)
}

fn look_at(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Journal, JournalError> {
    let not_found = |error: JournalError| match error {
        JournalError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            JournalError::NotFound { dir: dir.to_owned() }
        }
        other => other,
    };
    let listing = segment::list(&**disk, dir).map_err(not_found)?;
    let Some((&last, _)) = listing.segments.split_last() else {
        return Err(JournalError::NotFound { dir: dir.to_owned() });
    };
    let path = last.path(dir);
    let file = disk.open_read(&path).map_err(JournalError::io("open journal segment", &path))?;
    let scan = segment::scan(&*file, &path, last)?;
    let segments = present_segments(&**disk, dir, &listing.segments, scan.committed)?;
    Ok(Journal { shared: Shared::new(Arc::clone(disk), dir, true, segments, scan.folded) })
}

/// The same for a journal whose owner may remove segments meanwhile: the oldest first, so that none before a missing one
/// is there any more.
fn present_segments(
    disk: &dyn Disk,
    dir: &Path,
    ids: &[SegmentId],
    last_end: u64,
) -> Result<Vec<Segment>, JournalError> {
    let mut from = 0;
    loop {
        match complete_segments(disk, dir, &ids[from..], last_end) {
            Err(error) if error.is_missing_file() && from + 1 < ids.len() => from += 1,
            segments => return segments,
        }
    }
}

/// The segments with how far each may be read: to its end, but the last to `last_end`.
pub(crate) fn complete_segments(
    disk: &dyn Disk,
    dir: &Path,
    ids: &[SegmentId],
    last_end: u64,
) -> Result<Vec<Segment>, JournalError> {
    let mut segments = Vec::with_capacity(ids.len());
    for (index, &id) in ids.iter().enumerate() {
        let end = if index + 1 == ids.len() {
            last_end
        } else {
            let path = id.path(dir);
            let failed = JournalError::io("open journal segment", &path);
            disk.open_read(&path).and_then(|f| f.len()).map_err(failed)?
        };
        segments.push(Segment { id, end });
    }
    Ok(segments)
}

impl Journal {
    /// Reads from the change `from_lsn` on; past the end, it waits there. 0 is the same as 1.
    pub fn reader(&self, from_lsn: u64) -> Result<Reader, JournalError> {
        Reader::new(self.shared.clone(), from_lsn.max(1))
    }

    /// Drawn when the journal was made.
    pub fn identity(&self) -> u64 {
        lock(&self.shared.view).folded.state.identity
    }

    pub fn sealed(&self) -> Sealed {
        let view = lock(&self.shared.view);
        Sealed {
            epoch: view.folded.state.epoch,
            lsn: view.folded.state.next_lsn - 1,
            bytes: view.segments.iter().map(|s| s.end).sum(),
            ts_ms: view.folded.ts_ms,
        }
    }

    /// Wakes at every seal; the value is the last sealed lsn.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.sealed.subscribe()
    }

    /// The oldest change that is, or would be, still here.
    pub fn first_lsn(&self) -> u64 {
        lock(&self.shared.view).segments[0].id.first_lsn
    }

    /// Where the segment behind the oldest begins; `None` when there is only one.
    pub fn second_lsn(&self) -> Option<u64> {
        lock(&self.shared.view).segments.get(1).map(|s| s.id.first_lsn)
    }

    /// What is sealed adds up to this.
    pub fn state(&self) -> State {
        lock(&self.shared.view).folded.state.clone()
    }

    /// Bytes on disk that readers may see.
    pub fn bytes_on_disk(&self) -> u64 {
        self.sealed().bytes
    }

    /// Removes whole segments from the old end, as `retention` says, but none with a change from `keep_from_lsn` on,
    /// and never the last. The number of segments removed. Blocks on the disk.
    pub fn prune(&self, keep_from_lsn: u64, retention: Retention) -> Result<u64, JournalError> {
        let shared = &*self.shared;
        if shared.read_only {
            return Err(JournalError::misuse("a journal that is open for reading cannot be pruned"));
        }
        let _pruning = lock(&shared.pruning);
        let mut removed = 0;
        while let Some(id) = self.prunable(keep_from_lsn, retention)? {
            lock(&shared.view).segments.remove(0);
            let path = id.path(&shared.dir);
            let failed = |error| JournalError::io("remove journal segment", &path)(error);
            shared.disk.remove(&path).map_err(failed)?;
            // One by one: were a later removal durable and an earlier not, the journal would have a hole.
            shared.disk.sync_dir(&shared.dir).map_err(failed)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Whether the oldest segment is past `retention`, whoever still needs it.
    pub fn is_past(&self, retention: Retention) -> Result<bool, JournalError> {
        Ok(self.prunable(u64::MAX, retention)?.is_some())
    }

    /// The first segment, if it may go.
    fn prunable(&self, keep_from_lsn: u64, retention: Retention) -> Result<Option<SegmentId>, JournalError> {
        let (first, next, bytes) = {
            let view = lock(&self.shared.view);
            let [first, next, ..] = view.segments[..] else { return Ok(None) };
            (first, next, view.segments.iter().map(|s| s.end).sum::<u64>())
        };
        if next.id.first_lsn > keep_from_lsn {
            return Ok(None);
        }
        let over = retention.bytes_max.is_some_and(|max| bytes > max);
        let old = match retention.since_ts_ms {
            Some(since) if !over => self.ends_at(next.id)? < since,
            _ => false,
        };
        Ok((over || old).then_some(first.id))
    }

    /// When segment `next` began, or the time of the last commit before it if that is later: from its head.
    fn ends_at(&self, next: SegmentId) -> Result<i64, JournalError> {
        let path = next.path(&self.shared.dir);
        let failed = JournalError::io("open journal segment", &path);
        let file = self.shared.disk.open_read(&path).map_err(failed)?;
        Ok(segment::read_head(&*file, &path, next)?.ts_ms)
    }
}
