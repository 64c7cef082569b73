//! The thread of a [`Hub`]: reads the journal once, looks up for which shapes a change matters, and puts what it is to them into their rings.

use super::follow::{End, Follower, Taken};
use super::hub::{Framed, Hub, Live, SHAPES_MAX, joined};
use super::shape::{Effect, values_of};
use super::token::{Phase, Token};
use super::window::{Window, WindowCopy};
use super::window_build;
use super::wire::{self, Event};
use crate::transform::expr::EqualityBy;
use base::{Change, Op};
use journal::JournalError;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes of changes in one response, about.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes that all rings of a source keep.
const RINGS_BYTES_MAX: usize = 64 << 20;
/// At this pace newer tokens and checksums are sent to those for whom nothing changes.
const BEAT_INTERVAL: Duration = Duration::from_secs(15);

/// What the thread keeps of a shape.
struct Tracked {
    live: Arc<Live>,
    follower: Follower,
    /// The body of the batch that is being made.
    body: Vec<u8>,
    effect: Option<Effect>,
    /// Changes in the body.
    changes: u32,
    indexed: Option<(usize, EqualityBy, Vec<u8>)>,
    idle: Option<Instant>,
    /// The number of frames when a checkpoint was made.
    checked: u64,
    /// The first frame behind the last beat.
    kept: u64,
    window: Option<Filed>,
}

/// A window of the thread.
struct Filed {
    window: Window,
    /// It is made anew somewhere.
    refilling: bool,
    /// All its rows, while none has changed.
    copy: Option<Arc<WindowCopy>>,
    /// Its bytes, as all were counted.
    bytes: usize,
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
pub(super) enum Ended {
    /// Nothing is followed; this was said under the lock.
    Empty,
    Node,
}

pub(super) struct Work {
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
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            tracked: HashMap::new(),
            tables: HashMap::new(),
            versions: HashMap::new(),
            recent: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn follow(&mut self) -> Result<Ended, JournalError> {
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
        let (incoming, filled, copies) = {
            let mut shared = self.hub.lock();
            if let Some(cursor) = cursor {
                shared.cursor = cursor;
            }
            let own = &mut *shared;
            (
                std::mem::take(&mut own.incoming),
                std::mem::take(&mut own.filled),
                std::mem::take(&mut own.copies),
            )
        };
        for (live, follower, window) in incoming {
            let hash = live.shape.hash;
            let window = window.map(|window| Filed { window, refilling: false, copy: None, bytes: 0 });
            let tracked = Tracked {
                live,
                follower,
                body: Vec::new(),
                effect: None,
                changes: 0,
                indexed: None,
                idle: None,
                checked: 0,
                kept: 0,
                window,
            };
            self.tracked.insert(hash, tracked);
            self.index(hash);
            self.count_window(hash);
        }
        for (live, window) in filled {
            self.refilled(&live, window);
        }
        for (live, answer) in copies {
            // Who is not answered looks again.
            if let Some(copy) = self.copy(&live) {
                let _ = answer.send(copy);
            }
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
        let taken = match &mut tracked.window {
            Some(filed) => filed.window.take(&mut tracked.follower, change, &mut tracked.body),
            None => tracked.follower.take(change, &mut tracked.body),
        };
        if tracked.window.as_ref().is_some_and(|filed| filed.window.is_dry())
            && matches!(taken, Ok(Taken::Nothing))
        {
            self.dry(hash, change.lsn - 1, version);
            return false;
        }
        match taken {
            Ok(Taken::Nothing) => {
                let gathered = !tracked.body.is_empty();
                if tracked.follower.version() != version {
                    self.unindex(hash);
                    self.index(hash);
                }
                gathered
            }
            Ok(Taken::Rows(effect)) => {
                tracked.changes += 1;
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
                self.bytes +=
                    now.live.push(Framed { bytes, lsn, is_batch: false, changes: 0, schema, effect });
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
        let (effect, changes) = (tracked.effect.take(), std::mem::take(&mut tracked.changes));
        self.bytes += tracked.live.push(Framed { bytes, lsn, is_batch: true, changes, schema, effect });
        self.recent.push_back(hash);
        if let Some(filed) = &mut tracked.window {
            filed.copy = None;
            if !filed.window.is_dry() {
                // A table that was emptied is known again.
                tracked.live.held_back.store(false, Ordering::Release);
            }
            self.count_window(hash);
            self.refill(hash);
        }
    }

    /// What devices hold is of a change before: nothing more is put into the ring until the window is filled.
    fn dry(&mut self, hash: u64, lsn: u64, schema: u32) {
        let Some(tracked) = self.tracked.get(&hash) else { return };
        tracked.live.held_back.store(true, Ordering::Release);
        self.flush(hash, lsn, schema, false);
        self.refill(hash);
    }

    /// Has a window filled that is dry, or soon is.
    fn refill(&mut self, hash: u64) {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return };
        let Some(filed) = &mut tracked.window else { return };
        if filed.refilling || !(filed.window.is_dry() || filed.window.is_low()) {
            return;
        }
        filed.refilling = true;
        let Some(plan) = tracked.follower.plan().cloned() else { return };
        tokio::spawn(window_build::refill(Arc::clone(&self.hub), Arc::clone(&tracked.live), plan));
    }

    /// A window was made anew: it is newer than all that was put into the ring.
    fn refilled(&mut self, live: &Arc<Live>, window: Result<Window, End>) {
        let hash = live.shape.hash;
        let Some(tracked) = self.tracked.get_mut(&hash).filter(|own| Arc::ptr_eq(&own.live, live)) else {
            return;
        };
        let Some(filed) = &mut tracked.window else { return };
        let window = match window {
            Ok(window) => window,
            Err(end) => return self.forget(hash, end),
        };
        (filed.refilling, filed.copy) = (false, None);
        let (lsn, ends) = (window.lsn, window.ends);
        let effect = filed.window.replace(window, &mut tracked.body);
        if let Some(effect) = effect {
            tracked.effect = Some(effect);
            let version = tracked.follower.version();
            self.flush(hash, lsn, version, ends);
        }
        self.count_window(hash);
        live.held_back.store(false, Ordering::Release);
        live.stir();
    }

    /// All rows of a window, as its ring ends now; `None` where that is not known.
    fn copy(&mut self, live: &Arc<Live>) -> Option<Arc<WindowCopy>> {
        let position = *self.hub.position.borrow();
        let tracked = self.tracked.get_mut(&live.shape.hash).filter(|own| Arc::ptr_eq(&own.live, live))?;
        let filed = tracked.window.as_mut().filter(|filed| !filed.window.is_dry())?;
        let lsn = position.max(filed.window.lsn);
        let next = live.next();
        let copy = match &filed.copy {
            Some(copy) if copy.lsn == lsn && copy.next == next => Arc::clone(copy),
            _ => Arc::new(filed.window.copy(lsn, next)),
        };
        filed.copy = Some(Arc::clone(&copy));
        Some(copy)
    }

    fn count_window(&mut self, hash: u64) {
        let Some(filed) = self.tracked.get_mut(&hash).and_then(|tracked| tracked.window.as_mut()) else {
            return;
        };
        let now = filed.window.bytes();
        let before = std::mem::replace(&mut filed.bytes, now);
        self.hub.window_bytes.fetch_add(now, Ordering::Relaxed);
        self.hub.window_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Lets go of the oldest frames where all rings together have too many.
    fn bound(&mut self) {
        self.hub.ring_bytes.store(self.bytes.max(0) as usize, Ordering::Relaxed);
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
        let window_bytes = tracked.window.as_ref().map_or(0, |filed| filed.bytes);
        self.hub.window_bytes.fetch_sub(window_bytes, Ordering::Relaxed);
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
        let (mut idle, mut kept) = (Vec::new(), Vec::new());
        for (hash, tracked) in &mut self.tracked {
            if let Some(filed) = &mut tracked.window {
                // For those who come together.
                filed.copy = None;
            }
            if tracked.live.followers.load(Ordering::Relaxed) == 0 {
                let since = *tracked.idle.get_or_insert_with(Instant::now);
                match since.elapsed() >= tracked.live.kept() {
                    true => idle.push(*hash),
                    false => kept.push((since, *hash)),
                }
                continue;
            }
            tracked.idle = None;
            let lsn = match &mut tracked.window {
                // Its token is of the change before it ran dry.
                Some(filed) if filed.window.is_dry() => continue,
                Some(filed) => lsn.max(filed.window.lsn),
                None => lsn,
            };
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
            self.bytes +=
                tracked.live.push(Framed { bytes, lsn, is_batch: false, changes: 0, schema, effect });
        }
        // Those go first that have been left longest.
        kept.sort_unstable();
        let too_many = kept.len().saturating_sub(self.hub.limits.kept_max);
        idle.extend(kept.iter().take(too_many).map(|(_, hash)| *hash));
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
