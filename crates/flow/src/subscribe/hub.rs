//! Shapes of one source that are followed now: one thread reads the journal once for all of them.
//!
//! A change is looked up by its table and by the values that shapes ask for, so that what it costs hangs on the shapes it matters to.
//! What it is to a shape is encoded once and put into the shape's ring, where all who follow the shape take it from. A ring is bounded: who is
//! too slow for it reads the journal by himself until he has caught up.
//!
//! Nobody may miss a change between the two. `cursor` is the last change of the chunk that the thread works on, or will publish
//! next; whoever attaches gets it under the same lock under which new shapes are taken in, so that all changes behind it come by the
//! ring.

use super::follow::{End, Follower, Taken};
use super::mark::Marker;
use super::shape::{Effect, Shape, ShapePlan, values_of};
use super::token::{Phase, Token};
use super::wire::{self, Event};
use crate::mirror::Mirror;
use crate::transform::expr::EqualityBy;
use base::{Change, Op};
use bytes::Bytes;
use journal::{Journal, JournalError};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, watch};

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes of changes in one response, about.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes that a ring keeps for those who are a little behind.
const RING_BYTES_MAX: usize = 1 << 20;
/// Responses that a ring keeps.
const RING_FRAMES_MAX: usize = 1024;
/// Bytes that all rings of a source keep.
const RINGS_BYTES_MAX: usize = 64 << 20;
/// Shapes of one source that are followed at once.
const SHAPES_MAX: usize = 100_000;
/// Clients that read the journal or the mirror by themselves at once; others wait for them.
const CATCH_UPS_MAX: usize = 8;
/// A shape that nobody follows is kept so long.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// At this pace newer tokens and checksums are sent to those for whom nothing changes.
const BEAT_INTERVAL: Duration = Duration::from_secs(15);
const BACKOFF: Duration = Duration::from_secs(2);

/// The followed shapes of one source.
pub struct Hub {
    pub source: String,
    pub journal: Journal,
    pub mirror: Option<Mirror>,
    pub marker: Marker,
    pub catch_ups: Arc<Semaphore>,
    shared: Mutex<Shared>,
    /// All changes up to this one are in the rings.
    position: watch::Sender<u64>,
    wake: Notify,
    shutdown: watch::Receiver<bool>,
}

#[derive(Default)]
struct Shared {
    lives: HashMap<u64, Arc<Live>>,
    /// Those that the thread has not taken in.
    incoming: Vec<(Arc<Live>, Follower)>,
    cursor: u64,
    running: bool,
}

/// A shape that is followed.
pub struct Live {
    pub shape: Arc<Shape>,
    table: u32,
    epoch: u32,
    ring: Mutex<Ring>,
    /// Counts the frames that were put into the ring, so that those who wait for one wake.
    count: watch::Sender<u64>,
    followers: AtomicUsize,
}

struct Ring {
    frames: VecDeque<Framed>,
    /// Number of the first frame.
    first: u64,
    bytes: usize,
    /// The last change of which a frame was let go.
    evicted: u64,
    end: Option<End>,
    /// How many rows the shape has behind the last frame, and the sum of their hashes.
    audit: Option<(i64, u64)>,
}

/// A response in a ring.
#[derive(Clone)]
pub struct Framed {
    pub bytes: Bytes,
    /// The last change that it accounts for.
    pub lsn: u64,
    pub is_batch: bool,
    /// The table's version by which it is written.
    pub schema: u32,
    effect: Option<Effect>,
}

/// A place in a ring; while it lives, the shape is followed.
pub struct Attached {
    pub live: Arc<Live>,
    /// Number of the next frame.
    pub next: u64,
    /// All changes up to this one have been sent.
    pub lsn: u64,
    /// The table's version by which they were written.
    pub schema: u32,
    pub count: watch::Receiver<u64>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.live.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a ring has for someone.
pub enum Next {
    Frame(Framed),
    /// Nothing yet.
    Wait,
    /// What comes next is no longer there.
    Behind,
    End(End),
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table's id.
    pub fn table(&self) -> u32 {
        self.table
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The last change of which a frame was let go.
    pub fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    /// Rows of the shape and the sum of their hashes at `lsn`, which the thread has passed, where that is known.
    pub fn audit(&self, lsn: u64) -> Option<(u64, u64)> {
        let ring = self.lock();
        let (mut rows, mut sum) = ring.audit?;
        if ring.evicted > lsn {
            return None;
        }
        for framed in ring.frames.iter().rev().take_while(|framed| framed.lsn > lsn) {
            let Some(effect) = framed.effect else { continue };
            match effect {
                Effect::By { rows: by, sum: by_sum } => (rows, sum) = (rows - by, sum.wrapping_sub(by_sum)),
                Effect::Emptied | Effect::Unknown | Effect::Unproven => return None,
            }
        }
        Some((u64::try_from(rows).ok()?, sum))
    }

    /// Tells what the shape was at `lsn`, which the thread has passed.
    pub fn set_audit(&self, lsn: u64, rows: u64, sum: u64) {
        let mut ring = self.lock();
        if ring.evicted > lsn {
            return;
        }
        let mut now = Some((rows as i64, sum));
        for framed in ring.frames.iter().filter(|framed| framed.lsn > lsn) {
            now = added(now, framed.effect);
        }
        ring.audit = now;
    }
}

fn added(audit: Option<(i64, u64)>, effect: Option<Effect>) -> Option<(i64, u64)> {
    match effect {
        None => audit,
        Some(Effect::Emptied) => Some((0, 0)),
        Some(Effect::Unknown | Effect::Unproven) => None,
        Some(Effect::By { rows, sum }) => audit.map(|(r, s)| (r + rows, s.wrapping_add(sum))),
    }
}

/// Two effects, one after the other.
fn joined(first: Option<Effect>, second: Effect) -> Option<Effect> {
    Some(match (first, second) {
        (None, second) => second,
        (Some(Effect::By { rows, sum }), Effect::By { rows: r, sum: s }) => {
            Effect::By { rows: rows + r, sum: sum.wrapping_add(s) }
        }
        // What follows it can no longer be told from it.
        _ => Effect::Unknown,
    })
}

impl Attached {
    /// Skips what was put into the ring for changes up to `lsn` since: to be called when the thread has come there.
    pub fn settle(&mut self) {
        let ring = self.live.lock();
        let behind = ring.frames.iter().take_while(|framed| framed.lsn <= self.lsn).count();
        self.next = ring.first + behind as u64;
    }

    /// Whether nothing comes by the ring any more.
    pub fn has_ended(&self) -> bool {
        self.live.lock().end.is_some()
    }

    pub fn next(&self) -> Next {
        let ring = self.live.lock();
        if self.next < ring.first {
            return Next::Behind;
        }
        match ring.frames.get((self.next - ring.first) as usize) {
            Some(framed) => Next::Frame(framed.clone()),
            None => ring.end.clone().map_or(Next::Wait, Next::End),
        }
    }
}

impl Hub {
    pub fn new(
        source: String,
        journal: Journal,
        mirror: Option<Mirror>,
        marker: Marker,
        shutdown: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            marker,
            source,
            journal,
            mirror,
            catch_ups: Arc::new(Semaphore::new(CATCH_UPS_MAX)),
            shared: Mutex::default(),
            position: watch::Sender::new(0),
            wake: Notify::new(),
            shutdown,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn position(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    pub fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.clone()
    }

    /// Follows a shape, by the definition its table has now. All changes behind the lsn of the answer come by its ring.
    pub fn attach(self: &Arc<Self>, shape: &Arc<Shape>, plan: &Arc<ShapePlan>) -> Option<Attached> {
        let mut shared = self.lock();
        if !shared.running {
            let (sealed, hub) = (self.journal.sealed().lsn, Arc::clone(self));
            (shared.running, shared.cursor) = (true, sealed);
            tokio::task::spawn_blocking(move || hub.run());
        }
        let cursor = shared.cursor;
        if let Some(live) = shared.lives.get(&shape.hash).filter(|live| live.lock().end.is_none()) {
            live.followers.fetch_add(1, Ordering::Relaxed);
            return Some(attached(Arc::clone(live), cursor));
        }
        if shared.lives.len() >= SHAPES_MAX {
            return None;
        }
        let ring =
            Ring { frames: VecDeque::new(), first: 0, bytes: 0, evicted: cursor, end: None, audit: None };
        let (table, epoch) = ((plan.table.id, plan.table.version), self.journal.sealed().epoch);
        let live = Arc::new(Live {
            shape: Arc::clone(shape),
            table: table.0,
            epoch,
            ring: Mutex::new(ring),
            count: watch::Sender::new(0),
            followers: AtomicUsize::new(1),
        });
        shared.lives.insert(shape.hash, Arc::clone(&live));
        let follower = Follower::new(Arc::clone(shape), table, epoch, Some(Arc::clone(plan)));
        shared.incoming.push((Arc::clone(&live), follower));
        drop(shared);
        self.wake.notify_one();
        Some(attached(live, cursor))
    }

    /// Where the thread is: all changes behind it come by the rings.
    fn cursor(&self) -> u64 {
        self.lock().cursor
    }

    /// Reads the journal while anything is followed. Blocks.
    fn run(self: Arc<Self>) {
        let mut work = Work {
            hub: Arc::clone(&self),
            tracked: HashMap::new(),
            tables: HashMap::new(),
            versions: HashMap::new(),
            recent: VecDeque::new(),
            bytes: 0,
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.follow()));
        if matches!(ended, Ok(Ok(Ended::Empty))) {
            // Whoever came since has started another thread, and what there is now is that one's.
            return;
        }
        if !matches!(ended, Ok(Ok(Ended::Node))) {
            let reason = match &ended {
                Ok(Err(error)) => base::error::chain(error),
                _ => "it panicked".to_owned(),
            };
            tracing::warn!(source = self.source, error = reason, "subscriptions cannot follow the journal");
            // All who follow come again, and not at once where it cannot be read at all.
            if !matches!(ended, Ok(Err(JournalError::Pruned { .. }))) {
                std::thread::sleep(BACKOFF);
            }
        }
        let mut shared = self.lock();
        shared.running = false;
        shared.incoming.clear();
        for (_, live) in shared.lives.drain() {
            live.end(End::Anew);
        }
    }
}

fn attached(live: Arc<Live>, cursor: u64) -> Attached {
    let count = live.count.subscribe();
    let mut own = Attached { live, next: 0, lsn: cursor, schema: 0, count };
    own.settle();
    own
}

impl Live {
    fn end(&self, end: End) {
        self.lock().end = Some(end);
        self.count.send_modify(|count| *count += 1);
    }

    /// Puts a frame in; answers the bytes that the ring has more, or fewer, by it.
    fn push(&self, framed: Framed) -> isize {
        let mut ring = self.lock();
        let before = ring.bytes;
        ring.audit = added(ring.audit, framed.effect);
        ring.bytes += framed.bytes.len();
        ring.frames.push_back(framed);
        while ring.frames.len() > RING_FRAMES_MAX || ring.bytes > RING_BYTES_MAX && ring.frames.len() > 1 {
            ring.evict();
        }
        let more = ring.bytes as isize - before as isize;
        drop(ring);
        self.count.send_modify(|count| *count += 1);
        more
    }
}

impl Live {
    /// Lets go of what stands before frame `kept`; answers the bytes, and the number of the next frame.
    fn forget_before(&self, kept: u64) -> (usize, u64) {
        let mut ring = self.lock();
        let mut bytes = 0;
        while ring.first < kept && !ring.frames.is_empty() {
            bytes += ring.evict();
        }
        (bytes, ring.first + ring.frames.len() as u64)
    }
}

impl Ring {
    fn evict(&mut self) -> usize {
        let Some(framed) = self.frames.pop_front() else { return 0 };
        self.first += 1;
        self.bytes -= framed.bytes.len();
        self.evicted = framed.lsn;
        framed.bytes.len()
    }
}

/// What the thread keeps of a shape.
struct Tracked {
    live: Arc<Live>,
    follower: Follower,
    /// The body of the batch that is being made.
    body: Vec<u8>,
    effect: Option<Effect>,
    indexed: Option<(usize, EqualityBy, Vec<u8>)>,
    idle: Option<Instant>,
    /// The number of frames when a checkpoint was made.
    checked: u64,
    /// The first frame behind the last beat.
    kept: u64,
}

/// Shapes by the key of the value that they ask for.
type ByKey = HashMap<Vec<u8>, Vec<u64>>;

/// The shapes of one table, by what they ask for.
#[derive(Default)]
struct Index {
    all: Vec<u64>,
    equal: Vec<(usize, EqualityBy, ByKey)>,
}

/// Why the thread ends by itself.
enum Ended {
    /// Nothing is followed; this was said under the lock.
    Empty,
    Node,
}

struct Work {
    hub: Arc<Hub>,
    tracked: HashMap<u64, Tracked>,
    tables: HashMap<u32, Index>,
    /// The definition that a table's last change had.
    versions: HashMap<u32, u32>,
    /// Rings in the order in which they got frames, for the bound of all.
    recent: VecDeque<u64>,
    bytes: isize,
}

impl Work {
    fn follow(&mut self) -> Result<Ended, JournalError> {
        let runtime = tokio::runtime::Handle::current();
        let start = self.hub.cursor();
        let mut reader = self.hub.journal.reader(start + 1)?;
        let mut seals = self.hub.journal.watch();
        let mut shutdown = self.hub.shutdown.clone();
        let mut beat = Instant::now();
        self.hub.position.send_replace(start);
        loop {
            seals.borrow_and_update();
            while let Some(chunk) = reader.next(READ_BYTES)? {
                if *shutdown.borrow() {
                    return Ok(Ended::Node);
                }
                self.take_in(Some(chunk.last_lsn()));
                self.take(&chunk)?;
                self.hub.position.send_replace(chunk.last_lsn());
            }
            self.take_in(None);
            if beat.elapsed() >= BEAT_INTERVAL {
                beat = Instant::now();
                if self.beat() {
                    return Ok(Ended::Empty);
                }
            }
            let hub = Arc::clone(&self.hub);
            let ended = runtime.block_on(async {
                tokio::select! {
                    changed = seals.changed() => changed.is_err(),
                    _ = shutdown.wait_for(|stop| *stop) => true,
                    () = hub.wake.notified() => false,
                    () = tokio::time::sleep(BEAT_INTERVAL.saturating_sub(beat.elapsed())) => false,
                }
            });
            if ended {
                return Ok(Ended::Node);
            }
        }
    }

    /// Takes in shapes that are new; `cursor` is the end of the chunk that comes next.
    fn take_in(&mut self, cursor: Option<u64>) {
        let incoming = {
            let mut shared = self.hub.lock();
            if let Some(cursor) = cursor {
                shared.cursor = cursor;
            }
            std::mem::take(&mut shared.incoming)
        };
        for (live, follower) in incoming {
            let hash = live.shape.hash;
            let tracked = Tracked {
                live,
                follower,
                body: Vec::new(),
                effect: None,
                indexed: None,
                idle: None,
                checked: 0,
                kept: 0,
            };
            self.tracked.insert(hash, tracked);
            self.index(hash);
        }
    }

    /// Files a shape under what it asks for now.
    fn index(&mut self, hash: u64) {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return };
        let index = self.tables.entry(tracked.follower.table).or_default();
        // A change by another definition is looked at by all.
        self.versions.insert(tracked.follower.table, tracked.follower.version());
        let wanted = tracked.follower.plan().and_then(|plan| plan.equality());
        let Some(wanted) = wanted else {
            index.all.push(hash);
            return;
        };
        tracked.indexed = Some((wanted.column, wanted.by, wanted.key.clone()));
        let same =
            |(column, by, _): &&mut (usize, EqualityBy, _)| *column == wanted.column && *by == wanted.by;
        match index.equal.iter_mut().find(same) {
            Some((_, _, keys)) => keys.entry(wanted.key).or_default().push(hash),
            None => {
                let keys = HashMap::from([(wanted.key, vec![hash])]);
                index.equal.push((wanted.column, wanted.by, keys));
            }
        }
    }

    fn unindex(&mut self, hash: u64) {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return };
        let Some(index) = self.tables.get_mut(&tracked.follower.table) else { return };
        let Some((column, by, key)) = tracked.indexed.take() else {
            index.all.retain(|own| *own != hash);
            return;
        };
        for (own, own_by, keys) in &mut index.equal {
            if *own == column
                && *own_by == by
                && let Some(hashes) = keys.get_mut(&key)
            {
                hashes.retain(|own| *own != hash);
                if hashes.is_empty() {
                    keys.remove(&key);
                }
            }
        }
        index.equal.retain(|(_, _, keys)| !keys.is_empty());
    }

    fn take(&mut self, chunk: &journal::Chunk) -> Result<(), JournalError> {
        let mut touched: Vec<u64> = Vec::new();
        let mut wanted: Vec<u64> = Vec::new();
        for change in chunk.changes() {
            let change = change?;
            wanted.clear();
            let is_other =
                self.versions.get(&change.table.id).is_some_and(|own| *own != change.table.version);
            self.wanted(&change, is_other, &mut wanted);
            if is_other || !wanted.is_empty() {
                self.versions.insert(change.table.id, change.table.version);
            }
            for hash in &wanted {
                if self.take_one(*hash, &change) {
                    touched.push(*hash);
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for hash in touched {
            let Some(schema) = self.tracked.get(&hash).map(|own| own.follower.version()) else { continue };
            self.flush(hash, chunk.last_lsn(), schema, chunk.ends_txn());
        }
        self.bound();
        Ok(())
    }

    /// The shapes that a change may matter to.
    fn wanted(&self, change: &Change<'_>, is_other: bool, wanted: &mut Vec<u64>) {
        let table = match change.op {
            Op::Ddl => change.ddl.as_ref().and_then(|ddl| ddl.before.as_ref()).map(|table| table.id),
            _ => Some(change.table.id),
        };
        let Some(index) = table.and_then(|table| self.tables.get(&table)) else { return };
        wanted.extend_from_slice(&index.all);
        // Columns may have other places in another definition: all shapes look at it.
        if is_other || matches!(change.op, Op::Ddl | Op::Truncate) {
            wanted.extend(index.equal.iter().flat_map(|(_, _, keys)| keys.values().flatten()));
            return;
        }
        if index.equal.is_empty() {
            return;
        }
        let first = wanted.len();
        for image in [change.before, change.after].into_iter().flatten() {
            let Ok((values, whole)) = values_of(image) else { continue };
            for (column, by, keys) in &index.equal {
                let key = values.get(*column).and_then(|value| by.key(*value));
                match key {
                    Some(key) => wanted.extend(keys.get(&key).into_iter().flatten()),
                    // What is not in the image may be anything.
                    None if !whole => wanted.extend(keys.values().flatten()),
                    None => {}
                }
            }
        }
        wanted[first..].sort_unstable();
        let mut last = None;
        let mut place = 0;
        wanted.retain(|hash| {
            place += 1;
            place <= first || last.replace(*hash) != Some(*hash)
        });
    }

    /// Answers whether there is something to flush.
    fn take_one(&mut self, hash: u64, change: &Change<'_>) -> bool {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return false };
        // What was gathered is of the definition before.
        let version = tracked.follower.version();
        match tracked.follower.take(change, &mut tracked.body) {
            Ok(Taken::Nothing) => {
                let gathered = !tracked.body.is_empty();
                if tracked.follower.version() != version {
                    self.unindex(hash);
                    self.index(hash);
                }
                gathered
            }
            Ok(Taken::Rows(effect)) => {
                tracked.effect = joined(tracked.effect, effect);
                if tracked.body.len() >= BATCH_BYTES {
                    let ends = change.txn.as_ref().is_none_or(|txn| txn.last);
                    let version = tracked.follower.version();
                    self.flush(hash, change.lsn, version, ends);
                    return false;
                }
                if tracked.follower.version() != version {
                    self.unindex(hash);
                    self.index(hash);
                }
                true
            }
            Ok(Taken::Schema(schema)) => {
                let before = change.lsn - 1;
                self.flush(hash, before, version, true);
                self.unindex(hash);
                self.index(hash);
                let Some(now) = self.tracked.get_mut(&hash) else { return false };
                let lsn = if change.op == Op::Ddl { change.lsn } else { before };
                let token = self.hub.token(&now.follower, now.follower.version(), lsn);
                let bytes = wire::response(&token, lsn, &Event::Schema(&schema));
                // Sums are of other columns now.
                let effect = Some(Effect::Unknown);
                let schema = now.follower.version();
                self.bytes += now.live.push(Framed { bytes, lsn, is_batch: false, schema, effect });
                if change.op == Op::Ddl {
                    return false;
                }
                self.take_one(hash, change)
            }
            Ok(Taken::End(end)) => {
                self.flush(hash, change.lsn - 1, version, true);
                self.forget(hash, end);
                false
            }
            Err(_) => {
                self.forget(hash, End::Again);
                false
            }
        }
    }

    /// Puts what was gathered into the ring.
    fn flush(&mut self, hash: u64, lsn: u64, schema: u32, ends: bool) {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return };
        if tracked.body.is_empty() {
            return;
        }
        let token = self.hub.token(&tracked.follower, schema, lsn);
        let bytes = wire::batch(&token, lsn, &tracked.body, ends);
        tracked.body.clear();
        if tracked.body.capacity() > 2 * BATCH_BYTES {
            tracked.body = Vec::new();
        }
        let effect = tracked.effect.take();
        self.bytes += tracked.live.push(Framed { bytes, lsn, is_batch: true, schema, effect });
        self.recent.push_back(hash);
    }

    /// Lets go of the oldest frames where all rings together have too many.
    fn bound(&mut self) {
        while self.bytes > RINGS_BYTES_MAX as isize || self.recent.len() > SHAPES_MAX {
            let Some(hash) = self.recent.pop_front() else { return };
            if let Some(tracked) = self.tracked.get(&hash) {
                self.bytes -= tracked.live.lock().evict() as isize;
            }
        }
    }

    fn forget(&mut self, hash: u64, end: End) {
        self.unindex(hash);
        let Some(tracked) = self.tracked.remove(&hash) else { return };
        self.bytes -= tracked.live.lock().bytes as isize;
        {
            // It may have been made anew meanwhile, for somebody who comes.
            let mut shared = self.hub.lock();
            if shared.lives.get(&hash).is_some_and(|live| Arc::ptr_eq(live, &tracked.live)) {
                shared.lives.remove(&hash);
            }
        }
        tracked.live.end(end);
    }

    /// Newer tokens for all, checksums for those that changed; shapes that nobody follows end. Answers whether none is left.
    fn beat(&mut self) -> bool {
        let lsn = *self.hub.position.borrow();
        let mut idle = Vec::new();
        for (hash, tracked) in &mut self.tracked {
            if tracked.live.followers.load(Ordering::Relaxed) == 0 {
                let since = *tracked.idle.get_or_insert_with(Instant::now);
                if since.elapsed() >= IDLE_MAX {
                    idle.push(*hash);
                }
                continue;
            }
            tracked.idle = None;
            // A client that has not taken what is older than a beat reads the journal: rings of quiet shapes stay small.
            let (bytes, next) = tracked.live.forget_before(tracked.kept);
            self.bytes -= bytes as isize;
            tracked.kept = next;
            let token = self.hub.token(&tracked.follower, tracked.follower.version(), lsn);
            let frames = *tracked.live.count.borrow();
            let changed = std::mem::replace(&mut tracked.checked, frames + 1) != frames;
            let event = match tracked.live.audit(lsn).filter(|_| changed) {
                Some((rows, checksum)) => Event::Checkpoint { rows, checksum },
                None => Event::Heartbeat,
            };
            let bytes = wire::response(&token, lsn, &event);
            let (schema, effect) = (tracked.follower.version(), None);
            self.bytes += tracked.live.push(Framed { bytes, lsn, is_batch: false, schema, effect });
        }
        for hash in idle {
            // Nobody attaches while the lock is held.
            let mut shared = self.hub.lock();
            let followed =
                self.tracked.get(&hash).is_some_and(|own| own.live.followers.load(Ordering::Relaxed) > 0);
            if followed {
                continue;
            }
            shared.lives.remove(&hash);
            drop(shared);
            self.forget(hash, End::Anew);
        }
        let mut shared = self.hub.lock();
        let is_empty = shared.lives.is_empty() && shared.incoming.is_empty() && self.tracked.is_empty();
        // Under this lock nobody has seen that the thread runs: whoever comes next starts another.
        shared.running = !is_empty;
        is_empty
    }
}

impl Hub {
    /// The token of a copy that has all changes up to `lsn`.
    fn token(&self, follower: &Follower, schema: u32, lsn: u64) -> Vec<u8> {
        Token {
            journal: self.journal.identity(),
            epoch: follower.epoch(),
            shape: follower.shape.hash,
            table: follower.table,
            schema,
            lsn,
            until: lsn,
            phase: Phase::Tail { owes_end: false },
        }
        .encode()
    }
}
