//! Connections that sessions share: of each server how many there are, which of them are free, and who waits for one.
//!
//! ```text
//! take   a free one of the same login and thread | a place for a new one | the queue
//! give   to who waits on its thread for its login | among the free ones | closed, and its place to who waits longest
//! ```
//! A place is the right to one connection: there are never more of them than `max`, whatever fails in between. Free
//! connections stay with the thread that made them; where all places are taken and some are free elsewhere, the oldest of
//! those is closed for the place. Nothing here waits, and no connection is closed while the lock is held.

use crate::config::PoolConfig;
use crate::link::Link;
use base::Secret;
use mysql::protocol::Capabilities;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Who waits on another thread lets those of this one pass for no longer.
const PASSED_MAX: Duration = Duration::from_millis(100);
/// Sessions that wait for one server; one more gets its error at once.
const WAITING_MAX: usize = 10_000;
/// Free connections that are looked at for one that is set up as it is wanted.
const LOOKED_AT_MAX: usize = 32;
/// Logins at one server, of all threads together, for connections that nobody waits for: one that has just come back is not
/// to be met by hundreds.
const WARMING_MAX: usize = 4;
/// Free connections between which the tests' mode changes.
const CHAOS_CONNECTIONS: usize = 3;

/// What two logins must have in common to share a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    pub user: Vec<u8>,
    pub password: Secret,
    pub capabilities: Capabilities,
    pub collation: u8,
    /// Of the group's accounts and TLS: see [`Pool::set`].
    pub generation: u64,
}

/// What the latest sessions of a group logged in by, which the next are likely to do too.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Arc<Key>>>);

/// Logins that are remembered: a driver or two, for a user or two.
const RECENT_MAX: usize = 4;

impl Recent {
    pub fn note(&self, key: &Arc<Key>) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.front().is_some_and(|first| *first == *key) {
            return;
        }
        keys.retain(|known| *known != *key && known.generation == key.generation);
        keys.push_front(key.clone());
        keys.truncate(RECENT_MAX);
    }

    /// Those of a generation, the latest first.
    pub fn of(&self, generation: u64) -> Vec<Arc<Key>> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().filter(|key| key.generation == generation).cloned().collect()
    }
}

/// How well a free connection suits a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It can never be made like the session.
    Never,
    /// It has to be set up.
    Setup,
    /// It is set up.
    Equal,
    /// It was this session's last.
    Own,
}

/// What a session was given.
#[derive(Debug)]
pub enum Granted {
    Link(Box<Link>),
    /// It may make one.
    Place(Place),
}

/// What a session gets at once.
#[derive(Debug)]
pub enum Taken {
    Granted(Granted),
    Wait(oneshot::Receiver<Granted>),
    /// Too many wait.
    Full,
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub struct Place(Option<Arc<Pool>>);

impl Place {
    /// It goes over to somebody else without having been free.
    fn keep_taken(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.held().open -= 1;
            pool.admit();
        }
    }
}

/// The right to one login that nobody waits for, until it is dropped.
#[derive(Debug)]
pub struct Warming(Arc<Pool>);

impl Warming {
    /// It has led to a connection.
    pub fn done(self) {
        self.0.warmed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.0.warming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection is known by that sessions share.
#[derive(Debug)]
pub struct Pooled {
    pub key: Arc<Key>,
    /// Absent while it is free: then the pool itself counts it.
    pub place: Option<Place>,
    made: Instant,
    /// What makes the character set of its login again after a reset; `None` where it cannot be made as it was.
    pub names: Option<Vec<u8>>,
    /// What `LAST_INSERT_ID()` says there.
    pub insert_id: u64,
    /// Somebody has run what may have left something unseen there, as a trigger can, since it was reset.
    pub touched: bool,
    /// A setting failed there, and part of it may have been done.
    pub doubtful: bool,
    /// The server can be told to tell of every change of a session.
    pub can_track: bool,
    /// Made before anybody asked for it, and not used yet.
    pub ahead: bool,
}

impl Pooled {
    pub fn new(key: Arc<Key>, place: Place, names: Option<Vec<u8>>) -> Self {
        Self {
            key,
            place: Some(place),
            made: Instant::now(),
            names,
            insert_id: 0,
            touched: false,
            doubtful: false,
            can_track: false,
            ahead: false,
        }
    }

    /// One that another process has made: its session keeps it as long as it must, and then it is closed.
    pub fn moved(insert_id: u64, touched: bool) -> Self {
        let key = Key {
            user: Vec::new(),
            password: Secret::default(),
            capabilities: Capabilities::default(),
            collation: 0,
            generation: u64::MAX,
        };
        Self {
            key: Arc::new(key),
            place: None,
            made: Instant::now(),
            names: None,
            insert_id,
            touched,
            doubtful: false,
            can_track: false,
            ahead: false,
        }
    }

    pub fn age(&self) -> Duration {
        self.made.elapsed()
    }
}

/// The connections to one server of one group.
#[derive(Debug, Default)]
pub struct Pool {
    max: AtomicUsize,
    idle: AtomicUsize,
    min_idle: AtomicUsize,
    /// Logins under way that nobody waits for, and those that came of it so far.
    warming: AtomicUsize,
    warmed: AtomicU64,
    /// In milliseconds.
    wait: AtomicU64,
    idle_time: AtomicU64,
    max_lifetime: AtomicU64,
    generation: AtomicU64,
    /// It is gone from the configuration.
    closed: AtomicBool,
    /// A test's: every connection is another one each time.
    chaos: AtomicBool,
    /// The server does not know `COM_RESET_CONNECTION`.
    pub no_reset: AtomicBool,
    timeouts: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Places that are taken, those of free connections among them.
    open: usize,
    /// By thread; the latest at the back.
    free: Vec<VecDeque<Free>>,
    waiting: VecDeque<Waiting>,
}

impl Inner {
    /// Who waits longest; those who have left are passed over, and forgotten.
    fn oldest(&mut self) -> Option<&Waiting> {
        while self.waiting.front().is_some_and(|waiting| waiting.reply.is_closed()) {
            self.waiting.pop_front();
        }
        self.waiting.front()
    }
}

#[derive(Debug)]
struct Free {
    link: Box<Link>,
    since: Instant,
}

#[derive(Debug)]
struct Waiting {
    thread: usize,
    key: Arc<Key>,
    since: Instant,
    reply: oneshot::Sender<Granted>,
}

/// The connections of a pool now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    /// Connections, with those that are being made.
    pub open: usize,
    /// Of these, free.
    pub idle: usize,
    /// Of these, a session's.
    pub in_use: usize,
    /// Sessions that wait for one.
    pub waiting: usize,
    /// Sessions that waited in vain.
    pub timeouts: u64,
    /// Connections that were made before anybody asked for them (`min_idle`).
    pub warmed: u64,
}

impl Pool {
    /// Goes by another configuration. Connections of another `generation` are not used again.
    pub fn set(self: &Arc<Self>, config: PoolConfig, generation: u64) {
        self.max.store(config.max as usize, Ordering::Relaxed);
        self.idle.store(config.idle as usize, Ordering::Relaxed);
        self.min_idle.store(config.min_idle as usize, Ordering::Relaxed);
        for (place, span) in [
            (&self.wait, config.wait),
            (&self.idle_time, config.idle_time),
            (&self.max_lifetime, config.max_lifetime),
        ] {
            place.store(u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.generation.store(generation, Ordering::Relaxed);
        self.chaos.store(config.chaos, Ordering::Relaxed);
        self.closed.store(false, Ordering::Relaxed);
        self.admit();
    }

    pub fn is_chaotic(&self) -> bool {
        self.chaos.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// How long a session waits for a connection before it gets an error.
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.load(Ordering::Relaxed))
    }

    pub fn status(&self) -> PoolStatus {
        let inner = self.held();
        let idle = inner.free.iter().map(VecDeque::len).sum();
        PoolStatus {
            open: inner.open,
            idle,
            in_use: inner.open.saturating_sub(idle),
            waiting: inner.waiting.iter().filter(|waiting| !waiting.reply.is_closed()).count(),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            warmed: self.warmed.load(Ordering::Relaxed),
        }
    }

    /// A connection for a session of `thread`, as near as possible to what `fit` finds best.
    pub fn take(self: &Arc<Self>, thread: usize, key: &Arc<Key>, fit: impl Fn(&Link) -> Fit) -> Taken {
        let mut closing = Vec::new();
        let mut inner = self.held();
        let inner_ref = &mut *inner;
        if inner_ref.oldest().is_some() {
            return self.queue(inner, thread, key);
        }
        let max = self.max();
        let chaotic = self.is_chaotic();
        let grows = chaotic && inner_ref.open < max.min(CHAOS_CONNECTIONS);
        if let Some(free) = inner_ref.free.get_mut(thread).filter(|_| !grows) {
            while let Some(index) = best(free, key, &fit, chaotic) {
                let Some(Free { mut link, .. }) = free.remove(index) else { break };
                if is_alive(&mut link) {
                    link.occupy(Some(Place(Some(self.clone()))));
                    if let Some(pooled) = &mut link.pooled {
                        pooled.ahead = false;
                    }
                    drop(inner);
                    drop(closing);
                    return Taken::Granted(Granted::Link(link));
                }
                inner_ref.open -= 1;
                closing.push(link);
            }
        }
        if inner_ref.open >= max {
            // One of another login, or of another thread: the oldest.
            let oldest = (0..inner_ref.free.len())
                .filter_map(|at| Some((inner_ref.free[at].front()?.since, at)))
                .min()
                .and_then(|(_, at)| inner_ref.free[at].pop_front());
            match oldest {
                Some(Free { link, .. }) => {
                    inner_ref.open -= 1;
                    closing.push(link);
                }
                None => return self.queue(inner, thread, key),
            }
        }
        if inner_ref.open >= max {
            return self.queue(inner, thread, key);
        }
        inner_ref.open += 1;
        drop(inner);
        drop(closing);
        Taken::Granted(Granted::Place(Place(Some(self.clone()))))
    }

    fn queue(&self, mut inner: MutexGuard<'_, Inner>, thread: usize, key: &Arc<Key>) -> Taken {
        if inner.waiting.len() >= WAITING_MAX {
            inner.waiting.retain(|waiting| !waiting.reply.is_closed());
            if inner.waiting.len() >= WAITING_MAX {
                return Taken::Full;
            }
        }
        let (reply, receiver) = oneshot::channel();
        inner.waiting.push_back(Waiting { thread, key: key.clone(), since: Instant::now(), reply });
        Taken::Wait(receiver)
    }

    /// How many free connections there are to be at least.
    pub fn min_idle(&self) -> usize {
        self.min_idle.load(Ordering::Relaxed)
    }

    /// The right to log in before anybody asks, and a place for it; `None` where others have a better one.
    pub fn warm(self: &Arc<Self>) -> Option<(Warming, Place)> {
        let warming = Warming(self.clone());
        if self.warming.fetch_add(1, Ordering::Relaxed) >= WARMING_MAX {
            return None;
        }
        let mut inner = self.held();
        if self.closed.load(Ordering::Relaxed) || inner.oldest().is_some() || inner.open >= self.max() {
            return None;
        }
        inner.open += 1;
        drop(inner);
        Some((warming, Place(Some(self.clone()))))
    }

    /// How many free connections of a thread are of each login. What was made before anybody asked, and is of none of them, is
    /// closed.
    pub fn count_free(&self, thread: usize, keys: &[Arc<Key>]) -> Vec<usize> {
        let mut counts = vec![0; keys.len()];
        let mut closing = Vec::new();
        let mut inner = self.held();
        if let Some(free) = inner.free.get_mut(thread) {
            for one in std::mem::take(free) {
                match keys.iter().position(|key| one.link.is_of(key)) {
                    Some(at) => counts[at] += 1,
                    None if one.link.pooled.as_ref().is_some_and(|pooled| pooled.ahead) => {
                        closing.push(one);
                        continue;
                    }
                    None => {}
                }
                free.push_back(one);
            }
        }
        inner.open -= closing.len();
        drop(inner);
        drop(closing);
        counts
    }

    /// Somebody waited in vain.
    pub fn gave_up(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
        self.held().waiting.retain(|waiting| !waiting.reply.is_closed());
    }

    /// A session of `thread` needs its connection no more; nothing of a transaction or the like is left on it.
    pub fn give(self: &Arc<Self>, thread: usize, mut link: Box<Link>) {
        loop {
            if !self.is_wanted(&link) {
                return;
            }
            let mut inner = self.held();
            if inner.open > self.max() {
                drop(inner);
                return;
            }
            let same = |waiting: &Waiting| {
                waiting.thread == thread && link.is_of(&waiting.key) && !waiting.reply.is_closed()
            };
            let Some(oldest) = inner.oldest() else {
                if let Some(place) = link.free() {
                    place.keep_taken();
                }
                if inner.free.len() <= thread {
                    inner.free.resize_with(thread + 1, VecDeque::new);
                }
                inner.free[thread].push_back(Free { link, since: Instant::now() });
                return;
            };
            let passes = same(oldest) || oldest.since.elapsed() < PASSED_MAX;
            let chosen = inner.waiting.iter().position(same).filter(|_| passes);
            let Some(waiting) = chosen.and_then(|index| inner.waiting.remove(index)) else {
                // Its place goes on when it is dropped.
                drop(inner);
                return;
            };
            drop(inner);
            match waiting.reply.send(Granted::Link(link)) {
                Err(Granted::Link(back)) => link = back,
                _ => return,
            }
        }
    }

    /// Whether a connection may be used again.
    fn is_wanted(&self, link: &Link) -> bool {
        !self.closed.load(Ordering::Relaxed)
            && link.generation() == Some(self.generation.load(Ordering::Relaxed))
            && link.backend().is_up()
            && !link.backend().is_draining()
            && link.age() < self.lifetime(link.serial)
    }

    /// How old a connection may be: servers leak a little in each, and balancers in between forget them. Those that were made
    /// together do not end together.
    fn lifetime(&self, serial: u64) -> Duration {
        let max = self.max_lifetime.load(Ordering::Relaxed);
        Duration::from_millis(max - max / 160 * (serial % 16))
    }

    /// Gives places that are not taken to those who wait.
    fn admit(self: &Arc<Self>) {
        loop {
            let waiting = {
                let mut inner = self.held();
                if inner.open >= self.max() || inner.oldest().is_none() {
                    return;
                }
                let Some(waiting) = inner.waiting.pop_front() else { return };
                inner.open += 1;
                waiting
            };
            if let Err(Granted::Place(place)) = waiting.reply.send(Granted::Place(Place(Some(self.clone()))))
            {
                place.keep_taken();
                self.held().open -= 1;
            }
        }
    }

    /// Closes free connections that are dead, not wanted any more, or too many for too long.
    pub fn sweep(self: &Arc<Self>) {
        let mut closing = Vec::new();
        {
            let mut inner = self.held();
            let mut spare = inner
                .free
                .iter()
                .map(VecDeque::len)
                .sum::<usize>()
                .saturating_sub(self.idle.load(Ordering::Relaxed));
            let idle_time = Duration::from_millis(self.idle_time.load(Ordering::Relaxed));
            let mut over = inner.open.saturating_sub(self.max());
            for free in &mut inner.free {
                for mut one in std::mem::take(free) {
                    let stays = self.is_wanted(&one.link) && is_alive(&mut one.link);
                    let too_many = over > 0 || spare > 0 && one.since.elapsed() >= idle_time;
                    if stays && !too_many {
                        free.push_back(one);
                    } else {
                        spare = spare.saturating_sub(1);
                        over = over.saturating_sub(1);
                        closing.push(one);
                    }
                }
            }
            inner.open -= closing.len();
        }
        drop(closing);
        self.admit();
    }

    /// Closes what is free, and takes nothing back.
    pub fn close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Relaxed);
        self.sweep();
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The free connection to take: of those that suit best the latest, whose caches are warm.
fn best(free: &VecDeque<Free>, key: &Arc<Key>, fit: &impl Fn(&Link) -> Fit, chaotic: bool) -> Option<usize> {
    let suits = |one: &Free| if one.link.is_of(key) { fit(&one.link) } else { Fit::Never };
    if chaotic {
        return (0..free.len())
            .filter(|at| suits(&free[*at]) > Fit::Never)
            .min_by_key(|at| suits(&free[*at]));
    }
    let looked_at = (0..free.len()).rev().take(LOOKED_AT_MAX);
    looked_at
        .map(|at| (suits(&free[at]), at))
        .filter(|(fit, _)| *fit > Fit::Never)
        .max()
        .map(|(_, at)| at)
        .or_else(|| (0..free.len()).find(|at| suits(&free[*at]) > Fit::Never))
}

/// A server that says anything to a connection that asked for nothing is about to close it.
fn is_alive(link: &mut Link) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    link.wire.held().is_empty()
        && (link.wire.poll_readable(&mut cx).is_pending()
            || matches!(link.wire.poll_fill(&mut cx), Poll::Pending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendConfig, Role};
    use crate::group::Backend;
    use crate::wire::Wire;

    fn pool(max: u32, idle: u32) -> Arc<Pool> {
        let pool = Arc::new(Pool::default());
        pool.set(PoolConfig { max, idle, ..PoolConfig::default() }, 1);
        pool
    }

    fn key(user: &str) -> Arc<Key> {
        Arc::new(Key {
            user: user.into(),
            password: Secret::default(),
            capabilities: Capabilities::default(),
            collation: 45,
            generation: 1,
        })
    }

    fn place(taken: Taken) -> Place {
        match taken {
            Taken::Granted(Granted::Place(place)) => place,
            other => panic!("{other:?} is no place"),
        }
    }

    fn wait(taken: Taken) -> oneshot::Receiver<Granted> {
        match taken {
            Taken::Wait(receiver) => receiver,
            other => panic!("{other:?} is no wait"),
        }
    }

    /// A server to which connections are open, and what they are made of.
    struct Server {
        listener: tokio::net::TcpListener,
        backend: Arc<Backend>,
        others: Vec<tokio::net::TcpStream>,
    }

    impl Server {
        async fn start() -> Server {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config: BackendConfig = serde_json::from_str(r#"{"addr": "a:1"}"#).unwrap();
            let backend = Arc::new(Backend::new(&config, Role::Writer));
            backend.answered(None);
            Server { listener, backend, others: Vec::new() }
        }

        async fn link(&mut self, key: &Arc<Key>, place: Place) -> Box<Link> {
            let address = self.listener.local_addr().unwrap();
            let (ours, theirs) =
                tokio::join!(tokio::net::TcpStream::connect(address), self.listener.accept());
            self.others.push(theirs.unwrap().0);
            let wire = Wire::new(ours.unwrap());
            let mut link = Link::new(wire, Capabilities::default(), 7, self.backend.clone());
            link.pooled = Some(Pooled::new(key.clone(), place, None));
            Box::new(link)
        }
    }

    #[tokio::test]
    async fn places_are_as_many_as_there_are_and_go_to_who_waits_longest() {
        let (pool, key) = (pool(2, 2), key("a"));
        let one = place(pool.take(0, &key, |_| Fit::Setup));
        let other = place(pool.take(1, &key, |_| Fit::Setup));
        let mut first = wait(pool.take(0, &key, |_| Fit::Setup));
        let second = wait(pool.take(1, &key, |_| Fit::Setup));
        let mut third = wait(pool.take(0, &key, |_| Fit::Setup));
        assert_eq!(pool.status(), PoolStatus { open: 2, in_use: 2, waiting: 3, ..PoolStatus::default() });
        drop(one);
        assert!(first.try_recv().is_ok() && third.try_recv().is_err());
        // Who has left is passed over.
        drop(second);
        drop(other);
        assert!(third.try_recv().is_ok());
        assert_eq!(pool.status(), PoolStatus::default());
        // A greater bound lets in who waits, and nobody goes past them.
        let held = [place(pool.take(0, &key, |_| Fit::Setup)), place(pool.take(0, &key, |_| Fit::Setup))];
        let mut fourth = wait(pool.take(0, &key, |_| Fit::Setup));
        pool.set(PoolConfig { max: 3, idle: 3, ..PoolConfig::default() }, 1);
        assert!(fourth.try_recv().is_ok());
        drop(held);
    }

    #[tokio::test]
    async fn what_is_made_ahead_takes_nobody_s_place_and_goes_when_nobody_could_use_it() {
        let (pool, a, b) = (pool(3, 3), key("a"), key("b"));
        let mut server = Server::start().await;
        for key in [&a, &b] {
            let (warming, place) = pool.warm().unwrap();
            let mut link = server.link(key, place).await;
            link.pooled.as_mut().unwrap().ahead = true;
            warming.done();
            pool.give(0, link);
        }
        assert_eq!(pool.count_free(0, &[a.clone(), b.clone()]), [1, 1]);
        assert_eq!(pool.count_free(1, std::slice::from_ref(&a)), [0]);
        assert_eq!((pool.status().idle, pool.status().warmed), (2, 2));
        // Taken once, it is somebody's, and stays.
        let Taken::Granted(Granted::Link(link)) = pool.take(0, &a, |_| Fit::Setup) else { panic!("no link") };
        pool.give(0, link);
        assert!(pool.count_free(0, &[]).is_empty());
        assert_eq!((pool.status().open, pool.status().idle), (1, 1));
        // Not above the bound, and not past who waits.
        let held = [place(pool.take(1, &b, |_| Fit::Setup)), place(pool.take(1, &b, |_| Fit::Setup))];
        assert!(pool.warm().is_none());
        drop(held);
        let many: Vec<_> = (0..WARMING_MAX).map(|_| Warming(pool.clone())).collect();
        pool.warming.fetch_add(WARMING_MAX, Ordering::Relaxed);
        assert!(pool.warm().is_none(), "so many at once are enough");
        drop(many);
        assert!(pool.warm().is_some());
        assert_eq!(pool.warming.load(Ordering::Relaxed), 0);
        pool.close();
        assert!(pool.warm().is_none());
    }

    #[tokio::test]
    async fn a_free_connection_serves_its_login_on_its_thread_and_elsewhere_gives_its_place() {
        let (pool, a, b) = (pool(1, 1), key("a"), key("b"));
        let mut server = Server::start().await;
        let link = server.link(&a, place(pool.take(0, &a, |_| Fit::Setup))).await;
        let serial = link.serial;
        pool.give(0, link);
        assert_eq!(pool.status().idle, 1);
        let Taken::Granted(Granted::Link(link)) = pool.take(0, &a, |_| Fit::Setup) else { panic!("no link") };
        assert_eq!(link.serial, serial);
        // While it is away another login waits, and gets the place and not the connection.
        let mut waiting = wait(pool.take(0, &b, |_| Fit::Setup));
        pool.give(0, link);
        let Ok(Granted::Place(taken)) = waiting.try_recv() else { panic!("no place") };
        let link = server.link(&b, taken).await;
        // Of the same login the connection itself, on the same thread.
        let mut waiting = wait(pool.take(0, &b, |_| Fit::Setup));
        pool.give(0, link);
        let Ok(Granted::Link(link)) = waiting.try_recv() else { panic!("no link") };
        pool.give(0, link);
        drop(place(pool.take(1, &b, |_| Fit::Setup)));
        assert_eq!(pool.status(), PoolStatus::default());
        assert_eq!(server.backend.connections(), 0);
    }

    #[tokio::test]
    async fn what_is_not_wanted_any_more_is_closed() {
        let (pool, key) = (pool(4, 4), key("a"));
        let mut server = Server::start().await;
        for unwanted in 0..4 {
            let link = server.link(&key, place(pool.take(0, &key, |_| Fit::Setup))).await;
            pool.give(0, link);
            assert_eq!(pool.status().idle, 1);
            match unwanted {
                0 => server.backend.set_draining(true),
                1 => pool.set(PoolConfig::default(), 2),
                2 => drop(server.others.pop()),
                _ => pool.close(),
            }
            // The end of a connection takes a moment to arrive.
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while pool.status().open > 0 {
                tick.tick().await;
                pool.sweep();
            }
            server.backend.set_draining(false);
            pool.set(PoolConfig::default(), 1);
        }
    }

    #[tokio::test]
    async fn connections_are_kept_as_long_as_the_configuration_says_and_those_made_together_end_apart() {
        let millis = |millis| base::Span(Duration::from_millis(millis));
        let (pool, key) = (pool(4, 0), key("a"));
        let mut server = Server::start().await;
        let kept = PoolConfig { max: 4, idle: 0, ..PoolConfig::default() };
        for short in [
            PoolConfig { max_lifetime: millis(1), idle: 4, ..kept },
            PoolConfig { idle_time: millis(1), ..kept },
        ] {
            pool.set(kept, 1);
            let link = server.link(&key, place(pool.take(0, &key, |_| Fit::Setup))).await;
            pool.give(0, link);
            pool.sweep();
            assert_eq!(pool.status().idle, 1, "neither old nor long idle");
            pool.set(short, 1);
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while pool.status().open > 0 {
                tick.tick().await;
                pool.sweep();
            }
        }
        pool.set(PoolConfig { wait: millis(70), max_lifetime: millis(16_000), ..kept }, 1);
        assert_eq!(pool.wait(), Duration::from_millis(70));
        let ages: std::collections::BTreeSet<_> = (0..64).map(|serial| pool.lifetime(serial)).collect();
        assert_eq!(ages.len(), 16);
        assert!(ages.iter().all(|age| (14_400..=16_000).contains(&age.as_millis())), "{ages:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn there_are_never_more_than_allowed_however_many_come_and_go_at_once() {
        const MAX: usize = 3;
        let (pool, key) = (pool(MAX as u32, 3), key("a"));
        let now = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..40)
            .map(|task: usize| {
                let (pool, key, now) = (pool.clone(), key.clone(), now.clone());
                tokio::spawn(async move {
                    for round in 0..300 {
                        let granted = match pool.take(task % 4, &key, |_| Fit::Setup) {
                            Taken::Granted(granted) => granted,
                            // Some leave while they wait.
                            Taken::Wait(receiver) if (task + round).is_multiple_of(7) => {
                                tokio::task::yield_now().await;
                                drop(receiver);
                                continue;
                            }
                            Taken::Wait(receiver) => receiver.await.unwrap(),
                            Taken::Full => panic!("forty are not too many"),
                        };
                        assert!(now.fetch_add(1, Ordering::SeqCst) < MAX);
                        tokio::task::yield_now().await;
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(granted);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(pool.status(), PoolStatus::default());
    }
}
