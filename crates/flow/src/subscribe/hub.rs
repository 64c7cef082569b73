//! Shapes of one source that are followed now: one thread reads the journal once for all of them.
//!
//! A change is looked up by its table and by the values that shapes ask for, so that what it costs hangs on the shapes it matters to.
//! What it is to a shape is encoded once and put into the shape's ring, where all who follow the shape take it from. A ring is bounded: who is
//! too slow for it reads the journal by himself until he has caught up.
//!
//! Nobody may miss a change between the two. `cursor` is the last change of the chunk that the thread works on, or will publish
//! next; whoever attaches gets it under the same lock under which new shapes are taken in, so that all changes behind it come by the
//! ring.

use super::figures::Stats;
use super::follow::{End, Follower};
use super::mark::Marker;
use super::router::{Ended, Work};
use super::shape::{Effect, Shape, ShapePlan};
use super::window::{Window, WindowCopy};
use crate::config::SubscriptionsConfig;
use crate::mirror::Mirror;
use base::{Span, Table};
use bytes::Bytes;
use journal::{Journal, JournalError};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

/// Bytes that a ring keeps for those who are a little behind.
const RING_BYTES_MAX: usize = 1 << 20;
/// Responses that a ring keeps.
const RING_FRAMES_MAX: usize = 1024;
/// Shapes of one source that are followed at once.
pub(super) const SHAPES_MAX: usize = 100_000;
/// Clients that read the journal or the mirror by themselves at once; others wait for them.
const CATCH_UPS_MAX: usize = 8;
/// Windows that are filled again at once.
const REFILLS_MAX: usize = 2;
/// Bytes that the windows of a source take together.
const WINDOWS_BYTES_MAX: usize = 512 << 20;
/// See [`Limits`].
pub const KEEP_DEFAULT: Duration = Duration::from_secs(30);
pub const KEEP_MAX_DEFAULT: Duration = Duration::from_secs(3600);
pub const KEPT_SHAPES_DEFAULT: u32 = 1000;
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
    pub(super) position: watch::Sender<u64>,
    pub(super) wake: Notify,
    pub(super) shutdown: watch::Receiver<bool>,
    /// Of all windows.
    pub(super) window_bytes: AtomicUsize,
    /// Windows that are filled again at once; others wait for them.
    pub(super) refills: Arc<Semaphore>,
    pub(super) limits: Limits,
    /// Of all rings.
    pub(super) ring_bytes: AtomicUsize,
    pub stats: Stats,
}

/// What a hub keeps, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A shape that nobody follows any more is kept so long, where its clients did not say otherwise.
    pub keep: Duration,
    /// The longest that clients may say.
    pub keep_max: Duration,
    /// Shapes that nobody follows, and that are kept: beyond it those go first that have been left longest.
    pub kept_max: usize,
    /// Spare rows of a window; by its own size where it is `None`.
    pub spare_rows: Option<usize>,
}

impl Limits {
    /// As a source's file says.
    pub fn of(config: &SubscriptionsConfig) -> Self {
        let default = Self::default();
        let span = |own: &Option<Span>, default| own.as_ref().map_or(default, |span| span.0);
        let (keep, keep_max) = (span(&config.keep, default.keep), span(&config.keep_max, default.keep_max));
        Self {
            keep,
            keep_max: keep_max.max(keep),
            kept_max: config.kept_shapes.map_or(default.kept_max, |kept| kept as usize),
            spare_rows: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keep: KEEP_DEFAULT,
            keep_max: KEEP_MAX_DEFAULT,
            kept_max: KEPT_SHAPES_DEFAULT as usize,
            spare_rows: None,
        }
    }
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) lives: HashMap<u64, Arc<Live>>,
    /// Those that the thread has not taken in.
    pub(super) incoming: Vec<(Arc<Live>, Follower, Option<Window>)>,
    /// Windows that were made anew, or why they were not.
    pub(super) filled: Vec<(Arc<Live>, Result<Window, End>)>,
    /// Who asks for all rows of a window. One that is not answered is dropped.
    pub(super) copies: Vec<(Arc<Live>, oneshot::Sender<Arc<WindowCopy>>)>,
    pub(super) cursor: u64,
    pub(super) running: bool,
}

/// A shape that is followed.
pub struct Live {
    pub shape: Arc<Shape>,
    /// The table as it was when it began to be followed.
    table: Arc<Table>,
    epoch: u32,
    pub(super) ring: Mutex<Ring>,
    /// Counts the frames that were put into the ring, so that those who wait for one wake.
    pub(super) count: watch::Sender<u64>,
    pub(super) followers: AtomicUsize,
    /// A window that has run dry: what comes into the ring does not account for the thread's position.
    pub(super) held_back: AtomicBool,
    /// How long it is kept once nobody follows it: the longest time of those who did.
    keep_ms: AtomicU64,
}

pub(super) struct Ring {
    pub(super) frames: VecDeque<Framed>,
    /// Number of the first frame.
    pub(super) first: u64,
    pub(super) bytes: usize,
    /// The last change of which a frame was let go.
    pub(super) evicted: u64,
    pub(super) end: Option<End>,
    /// How many rows the shape has behind the last frame, and the sum of their hashes.
    pub(super) audit: Option<(i64, u64)>,
}

/// A response in a ring.
#[derive(Clone)]
pub struct Framed {
    pub bytes: Bytes,
    /// The last change that it accounts for.
    pub lsn: u64,
    pub is_batch: bool,
    /// Changes of rows in it.
    pub changes: u32,
    /// The table's version by which it is written.
    pub schema: u32,
    pub(super) effect: Option<Effect>,
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
    pub(super) fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table's id.
    pub fn table(&self) -> u32 {
        self.table.id
    }

    /// The table's version when it began to be followed; a window has no other.
    pub fn version(&self) -> u32 {
        self.table.version
    }

    pub fn definition(&self) -> &Arc<Table> {
        &self.table
    }

    /// Whether nothing comes by the ring any more.
    pub fn has_ended(&self) -> bool {
        self.lock().end.is_some()
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
pub(super) fn joined(first: Option<Effect>, second: Effect) -> Option<Effect> {
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

    /// Goes on behind `lsn`, where the ring has all that came since.
    pub fn resume(&mut self, lsn: u64) -> bool {
        if self.live.lock().evicted > lsn {
            return false;
        }
        self.lsn = lsn;
        self.settle();
        true
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
        Self::within(source, journal, mirror, marker, shutdown, Limits::default())
    }

    /// The same with limits of its own.
    pub fn within(
        source: String,
        journal: Journal,
        mirror: Option<Mirror>,
        marker: Marker,
        shutdown: watch::Receiver<bool>,
        limits: Limits,
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
            window_bytes: AtomicUsize::new(0),
            refills: Arc::new(Semaphore::new(REFILLS_MAX)),
            limits,
            ring_bytes: AtomicUsize::new(0),
            stats: Stats::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
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
        self.start(&mut shared);
        let cursor = shared.cursor;
        if let Some(live) = shared.live(shape) {
            return Some(attached(live, cursor));
        }
        if shared.lives.len() >= SHAPES_MAX || shared.is_taken(shape) {
            return None;
        }
        let live = Live::new(shape, plan, self.journal.sealed().epoch, cursor);
        shared.lives.insert(shape.hash, Arc::clone(&live));
        let follower = live.follower(plan);
        shared.incoming.push((Arc::clone(&live), follower, None));
        drop(shared);
        self.wake.notify_one();
        Some(attached(live, cursor))
    }

    /// A window that somebody follows, or did a moment ago. Where in its ring is to be said.
    pub fn window(&self, shape: &Shape) -> Option<Attached> {
        // A shape that nobody follows may end as soon as the lock is gone.
        let shared = self.lock();
        Some(attached(shared.live(shape)?, 0))
    }

    /// Follows a window that was made; one that others have made meanwhile goes before it.
    pub fn begin_window(
        self: &Arc<Self>,
        shape: &Arc<Shape>,
        plan: &Arc<ShapePlan>,
        epoch: u32,
        window: Window,
    ) -> BeganWindow {
        let mut shared = self.lock();
        if let Some(live) = shared.live(shape) {
            return BeganWindow::Attached(attached(live, 0));
        }
        // What the thread, or one that is started now, has read is to be in it.
        self.start(&mut shared);
        if window.lsn < shared.cursor {
            return BeganWindow::Behind(Box::new(window));
        }
        if shared.lives.len() >= SHAPES_MAX
            || shared.is_taken(shape)
            || self.window_bytes.load(Ordering::Relaxed) + window.bytes() > WINDOWS_BYTES_MAX
        {
            return BeganWindow::Full;
        }
        let live = Live::new(shape, plan, epoch, window.lsn);
        live.lock().audit = Some((window.totals().0 as i64, window.totals().1));
        shared.lives.insert(shape.hash, Arc::clone(&live));
        let follower = live.follower(plan);
        shared.incoming.push((Arc::clone(&live), follower, Some(window)));
        drop(shared);
        self.wake.notify_one();
        BeganWindow::Attached(attached(live, 0))
    }

    /// Hands over a window that was made anew; gives it back where it lacks what the thread has read.
    pub fn refill(&self, live: &Arc<Live>, window: Result<Window, End>) -> Option<Window> {
        let mut shared = self.lock();
        match window {
            Ok(window) if window.lsn < shared.cursor => return Some(window),
            window => shared.filled.push((Arc::clone(live), window)),
        }
        drop(shared);
        self.wake.notify_one();
        None
    }

    /// Shapes that are followed or kept, those of them that nobody follows, and the bytes of rings and of windows.
    pub fn shapes(&self) -> (u64, u64, u64, u64) {
        let shared = self.lock();
        let is_left = |live: &&Arc<Live>| live.followers.load(Ordering::Relaxed) == 0;
        let (all, left) = (shared.lives.len(), shared.lives.values().filter(is_left).count());
        let bytes = [&self.ring_bytes, &self.window_bytes].map(|bytes| bytes.load(Ordering::Relaxed) as u64);
        (all as u64, left as u64, bytes[0], bytes[1])
    }

    /// Asks for all rows of a window. An error is the answer where it has ended, or is dry.
    pub fn copy_of(&self, live: &Arc<Live>) -> oneshot::Receiver<Arc<WindowCopy>> {
        let (sender, receiver) = oneshot::channel();
        self.lock().copies.push((Arc::clone(live), sender));
        self.wake.notify_one();
        receiver
    }

    fn start(self: &Arc<Self>, shared: &mut Shared) {
        if !shared.running {
            let (sealed, hub) = (self.journal.sealed().lsn, Arc::clone(self));
            (shared.running, shared.cursor) = (true, sealed);
            tokio::task::spawn_blocking(move || hub.run());
        }
    }

    /// Where the thread is: all changes behind it come by the rings.
    pub(super) fn cursor(&self) -> u64 {
        self.lock().cursor
    }

    /// Reads the journal while anything is followed. Blocks.
    fn run(self: Arc<Self>) {
        let mut work = Work::new(Arc::clone(&self));
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
        shared.filled.clear();
        shared.copies.clear();
        self.window_bytes.store(0, Ordering::Relaxed);
        self.ring_bytes.store(0, Ordering::Relaxed);
        for (_, live) in shared.lives.drain() {
            live.end(End::Anew);
        }
    }
}

impl Shared {
    fn live(&self, shape: &Shape) -> Option<Arc<Live>> {
        let live = self.lives.get(&shape.hash)?;
        (live.shape.digest == shape.digest && live.lock().end.is_none()).then(|| Arc::clone(live))
    }

    /// Whether another shape has this one's hash: of 64 bits, somebody may find two that are equal.
    fn is_taken(&self, shape: &Shape) -> bool {
        self.lives
            .get(&shape.hash)
            .is_some_and(|live| live.shape.digest != shape.digest && live.lock().end.is_none())
    }
}

/// What came of a window that was made.
pub enum BeganWindow {
    Attached(Attached),
    /// It lacks what the thread has read.
    Behind(Box<Window>),
    /// There are as many as may be.
    Full,
}

fn attached(live: Arc<Live>, cursor: u64) -> Attached {
    live.followers.fetch_add(1, Ordering::Relaxed);
    let count = live.count.subscribe();
    let mut own = Attached { live, next: 0, lsn: cursor, schema: 0, count };
    own.settle();
    own
}

impl Live {
    fn new(shape: &Arc<Shape>, plan: &ShapePlan, epoch: u32, lsn: u64) -> Arc<Self> {
        let ring = Ring { frames: VecDeque::new(), first: 0, bytes: 0, evicted: lsn, end: None, audit: None };
        Arc::new(Self {
            shape: Arc::clone(shape),
            table: Arc::clone(&plan.table),
            epoch,
            ring: Mutex::new(ring),
            count: watch::Sender::new(0),
            followers: AtomicUsize::new(0),
            held_back: AtomicBool::new(false),
            keep_ms: AtomicU64::new(0),
        })
    }

    fn follower(&self, plan: &Arc<ShapePlan>) -> Follower {
        let table = (self.table.id, plan.table.version);
        Follower::new(Arc::clone(&self.shape), table, self.epoch, Some(Arc::clone(plan)))
    }

    /// The number of the next frame.
    pub(super) fn next(&self) -> u64 {
        let ring = self.lock();
        ring.first + ring.frames.len() as u64
    }

    /// Wakes who waits for frames: what is known of the ring is another.
    pub(super) fn stir(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    /// Somebody follows it who wants it kept so long.
    pub fn keep(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.keep_ms.fetch_max(ms, Ordering::Relaxed);
    }

    pub(super) fn kept(&self) -> Duration {
        Duration::from_millis(self.keep_ms.load(Ordering::Relaxed))
    }

    /// Whether what the thread has read is not all in the ring.
    pub fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Acquire)
    }

    pub(super) fn end(&self, end: End) {
        self.lock().end = Some(end);
        self.count.send_modify(|count| *count += 1);
    }

    /// Puts a frame in; answers the bytes that the ring has more, or fewer, by it.
    pub(super) fn push(&self, framed: Framed) -> isize {
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
    pub(super) fn forget_before(&self, kept: u64) -> (usize, u64) {
        let mut ring = self.lock();
        let mut bytes = 0;
        while ring.first < kept && !ring.frames.is_empty() {
            bytes += ring.evict();
        }
        (bytes, ring.first + ring.frames.len() as u64)
    }
}

impl Ring {
    pub(super) fn evict(&mut self) -> usize {
        let Some(framed) = self.frames.pop_front() else { return 0 };
        self.first += 1;
        self.bytes -= framed.bytes.len();
        self.evicted = framed.lsn;
        framed.bytes.len()
    }
}
