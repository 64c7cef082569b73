//! Free connections that are there before a session asks for one (`pool.min_idle`).
//!
//! A connection stays with the thread that made it, so each thread makes its part. Whoever comes next is taken to log in as
//! the latest did; before the first, as most drivers do. A login that is refused is not tried again at once: some accounts
//! are locked after a few.

use crate::config::{AuthMode, Role, UserConfig};
use crate::error::SessionError;
use crate::group::{Backend, Group};
use crate::link::Account;
use crate::pool::{Key, Place, Pool, Warming};
use crate::session;
use crate::shared::Shared;
use mysql::protocol::{Capabilities, Ends};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often a thread counts what it has.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After a login that failed; twice as long each time, up to the other.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// Servers whose failures are remembered; beyond, all are forgotten.
const PAUSES_MAX: usize = 1024;
/// Outcomes that wait to be looked at: each pool has a few logins under way.
const OUTCOMES_MAX: usize = 1024;

/// What most drivers ask for.
const USUAL: Capabilities = Capabilities(
    Capabilities::LONG_PASSWORD.0
        | Capabilities::PROTOCOL_41.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::MULTI_STATEMENTS.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PREPARED_MULTI_RESULTS.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::DEPRECATE_EOF.0,
);
/// utf8mb4_general_ci.
const USUAL_COLLATION: u8 = 45;

/// A server that refused, and until when it is left alone.
struct Pause {
    until: Instant,
    long: Duration,
}

/// Of one login.
struct Outcome {
    address: String,
    failed: bool,
}

/// Keeps one thread's part of free connections.
pub async fn run(shared: Weak<Shared>, thread: usize, threads: usize) {
    let mut pauses: HashMap<String, Pause> = HashMap::new();
    let (outcomes, mut heard) = mpsc::channel(OUTCOMES_MAX);
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        while let Ok(Outcome { address, failed }) = heard.try_recv() {
            note(&mut pauses, address, failed, Instant::now());
        }
        if shared.closing.load(Ordering::Relaxed) || shared.handover.round() != 0 {
            continue;
        }
        for group in &shared.plan.load().groups {
            if group.config.auth == AuthMode::Relay {
                continue;
            }
            for (backend, pool) in group.pools().filter(|(_, pool)| pool.min_idle() > 0) {
                let paused = pauses.get(&backend.address).is_some_and(|pause| Instant::now() < pause.until);
                if !paused && takes(group, backend) {
                    fill(group, backend, pool, (thread, threads), &outcomes);
                }
            }
        }
    }
}

fn note(pauses: &mut HashMap<String, Pause>, address: String, failed: bool, now: Instant) {
    if !failed {
        pauses.remove(&address);
        return;
    }
    if pauses.len() >= PAUSES_MAX {
        pauses.clear();
    }
    let pause = pauses.entry(address).or_insert(Pause { until: now, long: PAUSE_MIN / 2 });
    // Several that failed together are one failure.
    if pause.until <= now {
        pause.long = (pause.long * 2).min(PAUSE_MAX);
        pause.until = now + pause.long;
    }
}

/// Whether sessions go to a server.
fn takes(group: &Group, backend: &Backend) -> bool {
    let is_used = backend.role() == Role::Writer || group.config.read_write_split && group.reads(backend);
    is_used && backend.is_open() && !backend.is_ejected()
}

/// One thread's part of what there is to be; less of it at a server that has just come back.
fn part(group: &Group, backend: &Backend, pool: &Pool, (thread, threads): (usize, usize)) -> usize {
    let warmth = group.config.slow_start.map_or(1000, |slow_start| backend.warmth(slow_start.0));
    let whole = pool.min_idle().min(pool.max());
    let now = (whole * usize::try_from(warmth).unwrap_or(1000)).div_ceil(1000);
    now / threads + usize::from(thread < now % threads)
}

fn fill(
    group: &Arc<Group>,
    backend: &Arc<Backend>,
    pool: &Arc<Pool>,
    threads: (usize, usize),
    outcomes: &mpsc::Sender<Outcome>,
) {
    let keys = keys(group, backend);
    let mut counts = pool.count_free(threads.0, &keys);
    let missing = part(group, backend, pool, threads).saturating_sub(counts.iter().sum());
    for _ in 0..missing {
        let Some(at) = (0..keys.len()).min_by_key(|at| counts[*at]) else { return };
        let Some((warming, place)) = pool.warm() else { return };
        counts[at] += 1;
        let (group, backend, pool) = (group.clone(), backend.clone(), pool.clone());
        let (key, outcomes) = (keys[at].clone(), outcomes.clone());
        tokio::spawn(async move {
            let result = log_in(&group, &backend, &key, (warming, place), &pool, threads.0).await;
            if let Err(error) = &result {
                let (group, address) = (&group.name, &backend.address);
                let error = crate::monitor::causes(error);
                tracing::warn!(group, address, error, "no connection can be made ahead (`pool.min_idle`)");
            }
            let _ = outcomes.try_send(Outcome { address: backend.address.clone(), failed: result.is_err() });
        });
    }
}

async fn log_in(
    group: &Arc<Group>,
    backend: &Arc<Backend>,
    key: &Arc<Key>,
    (warming, place): (Warming, Place),
    pool: &Arc<Pool>,
    thread: usize,
) -> Result<(), SessionError> {
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    let account = Account {
        user: key.user.clone(),
        password: key.password.clone(),
        capabilities: key.capabilities,
        collation: key.collation,
        database: Vec::new(),
        attributes: Vec::new(),
        ends: Some(Ends { client: nobody, server: nobody }),
    };
    let promised =
        key.capabilities.without(Capabilities::CONNECT_WITH_DATABASE | Capabilities::SESSION_TRACK);
    let mut link = session::log_in_shared(group, backend, &account, key, place, promised).await?;
    if let Some(pooled) = &mut link.pooled {
        pooled.ahead = true;
    }
    warming.done();
    pool.give(thread, Box::new(link));
    Ok(())
}

/// What the next sessions are likely to log in by.
fn keys(group: &Group, backend: &Backend) -> Vec<Arc<Key>> {
    let recent = group.recent.of(group.generation);
    if !recent.is_empty() {
        return recent;
    }
    let Some(profile) = backend.profile() else { return Vec::new() };
    let usual = (USUAL & profile.capabilities) | Capabilities::CONNECT_WITH_DATABASE;
    let usual = usual | session::tracked_with(group, usual);
    let key = |user: &UserConfig| {
        Arc::new(Key {
            user: user.name.clone().into_bytes(),
            password: user.password.clone(),
            capabilities: usual,
            collation: USUAL_COLLATION,
            generation: group.generation,
        })
    };
    match (group.config.auth, &group.config.account) {
        (AuthMode::Mapped, Some(account)) => vec![key(account)],
        _ => group.config.users.iter().map(key).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_is_left_alone_for_longer_each_time() {
        let mut pauses = HashMap::new();
        let mut long = Vec::new();
        let mut now = Instant::now();
        for _ in 0..9 {
            // Two threads' worth of one failure.
            note(&mut pauses, "a:1".into(), true, now);
            note(&mut pauses, "a:1".into(), true, now);
            long.push(pauses["a:1"].long.as_secs());
            now += PAUSE_MAX;
        }
        assert_eq!(long, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        note(&mut pauses, "a:1".into(), false, now);
        assert!(pauses.is_empty());
    }
}
