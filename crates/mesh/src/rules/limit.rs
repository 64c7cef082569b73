//! How many statements may run at once, or come in a time: what is counted together has a place of its own.

use super::config::{LimitConfig, LimitPer, Rate};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Users or statements that a limit counts apart; those that come when so many are busy are counted together.
const PLACES_MAX: usize = 10_000;
/// Idle places are sought no more often, however many newcomers find none.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Statements that wait at one place; one more is refused at once.
const WAITING_MAX: usize = 1_000;

/// A bucket that fills at a rate, and holds what comes in a second.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn size(rate: Rate) -> f64 {
        rate.per_second.max(1.0)
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(Self::size(rate));
        self.at = self.at.max(now);
    }
}

/// What is counted together.
#[derive(Debug)]
struct Place {
    bucket: Mutex<Bucket>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Who has a place.
type Key = (Box<[u8]>, u64);

#[derive(Debug, Default)]
struct Places {
    map: HashMap<Key, Arc<Place>>,
    /// When idle ones were last sought.
    swept: Option<Instant>,
}

/// The counting part of a limit. It lives on in the next plan where it stays as it is.
#[derive(Debug)]
pub struct Counting {
    pub config: LimitConfig,
    places: Mutex<Places>,
}

/// Why a statement is too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TooMany {
    AtOnce { running: u32, waited: Duration },
    InTime,
}

/// A statement's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Counting {
    pub fn new(config: LimitConfig) -> Self {
        Self { config, places: Mutex::default() }
    }

    /// Whether it counts anything.
    pub fn counts(&self) -> bool {
        self.config.concurrency.is_some() || self.config.rate.is_some()
    }

    /// Lets a statement in, after its time in the queue, where `waits`.
    ///
    /// # Errors
    /// What there is too much of.
    pub async fn enter(&self, user: &[u8], digest: u64, waits: bool) -> Result<Option<Turn>, TooMany> {
        let place = self.place(user, digest);
        if let Some(rate) = self.config.rate {
            let mut bucket = place.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.fill(rate, Instant::now());
            if bucket.tokens < 1.0 {
                return Err(TooMany::InTime);
            }
            bucket.tokens -= 1.0;
        }
        let Some(running) = self.config.concurrency else { return Ok(None) };
        let queue = self.config.queue.map(|span| span.0).filter(|_| waits).unwrap_or_default();
        if let Ok(turn) = place.turns.clone().try_acquire_owned() {
            return Ok(Some(Turn(turn)));
        }
        let too_many = |waited| TooMany::AtOnce { running, waited };
        if queue.is_zero() || place.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            if !queue.is_zero() {
                place.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(too_many(Duration::ZERO));
        }
        let _waits = Waits(&place);
        match tokio::time::timeout(queue, place.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(Some(Turn(turn))),
            _ => Err(too_many(queue)),
        }
    }

    /// Statements that run, and that wait.
    pub fn now(&self) -> (usize, usize) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.config.concurrency.map_or(0, |all| all as usize);
        places.map.values().fold((0, 0), |(running, waiting), place| {
            let free = place.turns.available_permits();
            (running + all.saturating_sub(free), waiting + place.waiting.load(Ordering::Relaxed))
        })
    }

    fn place(&self, user: &[u8], digest: u64) -> Arc<Place> {
        let key: Key = match self.config.per {
            LimitPer::All => (Box::default(), 0),
            LimitPer::User => (user.into(), 0),
            LimitPer::Digest => (Box::default(), digest),
        };
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.map.get(&key) {
            return place.clone();
        }
        let now = Instant::now();
        if places.map.len() >= PLACES_MAX
            && places.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_PAUSE)
        {
            places.map.retain(|_, place| !self.is_idle(place, now));
            places.swept = Some(now);
        }
        // No user and no statement has this key.
        let key = if places.map.len() >= PLACES_MAX { (Box::from(&b"\0others"[..]), u64::MAX) } else { key };
        places.map.entry(key).or_insert_with(|| Arc::new(self.empty())).clone()
    }

    fn empty(&self) -> Place {
        let tokens = self.config.rate.map_or(0.0, Bucket::size);
        Place {
            bucket: Mutex::new(Bucket { tokens, at: Instant::now() }),
            turns: Arc::new(Semaphore::new(self.config.concurrency.map_or(0, |all| all as usize))),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether a new place would be the same.
    fn is_idle(&self, place: &Arc<Place>, now: Instant) -> bool {
        let is_full = self.config.rate.is_none_or(|rate| {
            let mut bucket = place.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.fill(rate, now);
            bucket.tokens >= Bucket::size(rate)
        });
        let all = self.config.concurrency.map_or(0, |all| all as usize);
        is_full && Arc::strong_count(place) == 1 && place.turns.available_permits() == all
    }
}

/// Counts one that waits; also where its session ends meanwhile.
struct Waits<'a>(&'a Place);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(json: &str) -> Counting {
        Counting::new(serde_json::from_str(json).unwrap())
    }

    #[tokio::test]
    async fn so_many_run_at_once_and_others_wait_for_a_while() {
        let limit = counting(r#"{"name": "l", "concurrency": 2, "queue": "50ms", "per": "user"}"#);
        let first = limit.enter(b"a", 0, true).await.unwrap();
        let _second = limit.enter(b"a", 0, true).await.unwrap();
        assert!(limit.enter(b"b", 0, true).await.is_ok());
        let waited = Duration::from_millis(50);
        assert_eq!(limit.enter(b"a", 0, true).await.unwrap_err(), TooMany::AtOnce { running: 2, waited });
        let (third, ()) = tokio::join!(limit.enter(b"a", 0, true), async {
            tokio::task::yield_now().await;
            assert_eq!(limit.now(), (2, 1));
            drop(first);
        });
        assert!(third.is_ok());
        assert_eq!(limit.now().1, 0);
    }

    #[tokio::test]
    async fn a_rate_lets_through_what_comes_in_a_second_and_then_by_time() {
        let limit = counting(r#"{"name": "l", "rate": "3/s", "per": "digest"}"#);
        for _ in 0..3 {
            assert!(limit.enter(b"a", 1, true).await.is_ok());
        }
        assert_eq!(limit.enter(b"b", 1, true).await.unwrap_err(), TooMany::InTime);
        assert!(limit.enter(b"a", 2, true).await.is_ok());
        let place = limit.place(b"a", 1);
        let mut bucket = place.bucket.lock().unwrap();
        let later = bucket.at + Duration::from_millis(400);
        bucket.fill(limit.config.rate.unwrap(), later);
        assert!((1.0..1.5).contains(&bucket.tokens), "{}", bucket.tokens);
        bucket.fill(limit.config.rate.unwrap(), later + Duration::from_secs(60));
        assert!((bucket.tokens - 3.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn places_that_are_idle_make_room_and_busy_ones_stay() {
        let limit = counting(r#"{"name": "l", "concurrency": 1, "per": "user"}"#);
        let mut turns = Vec::new();
        for user in 0..PLACES_MAX {
            let turn = limit.enter(user.to_string().as_bytes(), 0, true).await.unwrap();
            if user % 2 == 0 {
                turns.push(turn);
            }
        }
        assert!(limit.enter(b"new", 0, true).await.is_ok());
        assert_eq!(limit.places.lock().unwrap().map.len(), PLACES_MAX / 2 + 1);
        assert!(limit.enter(b"0", 0, true).await.is_err());
    }
}
