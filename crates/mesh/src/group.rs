//! The servers of a group as they are known now, and which of them a session gets.

use crate::admission::Admissions;
use crate::config::{
    BackendConfig, BackendTls, Balance, EjectConfig, GroupConfig, GroupKind, Role, Topology, UserConfig,
};
use crate::discovery::{self, Members};
use crate::lot;
use crate::mirror::Mirror;
use crate::pins::Pins;
use crate::pool::{Pool, Recent};
use crate::rules::Rules;
use crate::tls::Connector;
use arc_swap::ArcSwapOption;
use mysql::protocol::{Capabilities, Greeting};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

/// What a server says of itself in its greeting, which is what clients are told in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub version: Vec<u8>,
    pub capabilities: Capabilities,
    pub collation: u8,
    pub plugin: Vec<u8>,
}

impl Profile {
    pub fn of(greeting: &Greeting) -> Self {
        Self {
            version: greeting.version.clone(),
            capabilities: greeting.capabilities,
            collation: greeting.collation,
            plugin: greeting.plugin.clone(),
        }
    }
}

/// One server, as long as some snapshot names it.
#[derive(Debug)]
pub struct Backend {
    pub address: String,
    pub weight: u32,
    up: AtomicBool,
    pub zone: Option<String>,
    /// Of its HTTP status.
    pub status: Option<String>,
    /// No new sessions; those that are there stay.
    draining: AtomicBool,
    /// It says that it shuts down.
    leaving: AtomicBool,
    role: AtomicU8,
    /// Behind the writer, in milliseconds; -1 where it is not known.
    lag_ms: AtomicI64,
    /// Connections of sessions to it now.
    connections: AtomicUsize,
    /// Probes and logins that failed one after the other.
    failures: AtomicU32,
    /// What sessions asked of it that failed, one after the other.
    lost: AtomicU32,
    /// Times that it was ejected, one after the other.
    ejections: AtomicU32,
    /// Moments in milliseconds since [`START`]; 0 where there is none.
    ejected_until: AtomicU64,
    up_since: AtomicU64,
    profile: ArcSwapOption<Profile>,
    /// Why it is down.
    trouble: Mutex<Option<String>>,
}

/// Moments are told from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// After so many in a row an ejection is no longer than before.
const EJECTION_DOUBLINGS_MAX: u32 = 4;

/// So that 0, which is no moment, is long past.
const START_MS: u64 = 86_400_000;

fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(START_MS)
}

const WRITER: u8 = 0;
const REPLICA: u8 = 1;

impl Backend {
    pub fn new(config: &BackendConfig, declared: Role) -> Self {
        let backend = Self {
            address: config.addr.clone(),
            weight: config.weight,
            up: AtomicBool::new(false),
            zone: config.zone.clone(),
            status: config.status.clone(),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            role: AtomicU8::new(WRITER),
            lag_ms: AtomicI64::new(-1),
            connections: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            profile: ArcSwapOption::empty(),
            trouble: Mutex::new(None),
        };
        backend.set_role(declared);
        backend
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether it takes new sessions.
    pub fn is_open(&self) -> bool {
        self.is_up() && !self.is_draining()
    }

    /// Whether sessions are to leave it.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.leaving.load(Ordering::Relaxed)
    }

    /// Whether somebody said that it is to be left alone.
    pub fn is_drained(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether that is news.
    pub fn set_leaving(&self, leaving: bool) -> bool {
        self.leaving.swap(leaving, Ordering::Relaxed) != leaving
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    pub fn role(&self) -> Role {
        if self.role.load(Ordering::Relaxed) == WRITER { Role::Writer } else { Role::Replica }
    }

    /// Whether that is another one than before.
    pub fn set_role(&self, role: Role) -> bool {
        let number = if role == Role::Writer { WRITER } else { REPLICA };
        self.role.swap(number, Ordering::Relaxed) != number
    }

    pub fn lag_ms(&self) -> Option<u64> {
        u64::try_from(self.lag_ms.load(Ordering::Relaxed)).ok()
    }

    pub fn set_lag_ms(&self, lag: Option<u64>) {
        self.lag_ms.store(lag.and_then(|lag| i64::try_from(lag).ok()).unwrap_or(-1), Ordering::Relaxed);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn profile(&self) -> Option<Arc<Profile>> {
        self.profile.load_full()
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().map(|trouble| trouble.clone()).unwrap_or_default()
    }

    /// It greeted.
    pub fn greeted(&self, profile: Option<Profile>) {
        if let Some(profile) = profile
            && self.profile.load().as_deref() != Some(&profile)
        {
            self.profile.store(Some(Arc::new(profile)));
        }
    }

    /// It answered. Whether it was down before.
    pub fn answered(&self, profile: Option<Profile>) -> bool {
        self.greeted(profile);
        self.failures.store(0, Ordering::Relaxed);
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = None;
        }
        let news = !self.up.swap(true, Ordering::Relaxed);
        if news {
            self.up_since.store(now(), Ordering::Relaxed);
        }
        news
    }

    /// A session's command or login failed at it. For how long it is left alone now, where that is news.
    pub fn lost(&self, eject: Option<EjectConfig>) -> Option<Duration> {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        let eject = eject.filter(|eject| lost >= eject.failures)?;
        self.lost.store(0, Ordering::Relaxed);
        let times = self.ejections.fetch_add(1, Ordering::Relaxed).min(EJECTION_DOUBLINGS_MAX);
        let time = (eject.time.0 * (1 << times)).min(eject.time.0 * 10);
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.ejected_until.store(now().saturating_add(millis), Ordering::Relaxed);
        Some(time)
    }

    /// A session's command was answered by it.
    pub fn served(&self) {
        // Read first: a store by every command would take the line from every other processor.
        if self.lost.load(Ordering::Relaxed) != 0 {
            self.lost.store(0, Ordering::Relaxed);
        }
        if self.ejections.load(Ordering::Relaxed) != 0 && !self.is_ejected() {
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    pub fn is_ejected(&self) -> bool {
        now() < self.ejected_until.load(Ordering::Relaxed)
    }

    /// Of its share of new sessions, the part that it gets now, in a thousand.
    pub fn warmth(&self, slow_start: Duration) -> u64 {
        let since = now().saturating_sub(self.up_since.load(Ordering::Relaxed));
        let whole = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX).max(1);
        // Never nothing: a server that gets nobody never shows whether it is well.
        (since.saturating_mul(1000) / whole).clamp(50, 1000)
    }

    /// It did not. Whether it was up before; `at_once` or after `FAILURES_MAX` in a row it is down.
    pub fn failed(&self, reason: &str, at_once: bool) -> bool {
        /// One lost probe is no death; two are a second at the pace of the monitor.
        const FAILURES_MAX: u32 = 2;
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = Some(reason.to_owned());
        }
        (at_once || failures >= FAILURES_MAX) && self.up.swap(false, Ordering::Relaxed)
    }
}

/// Counts a connection for as long as it is kept.
#[derive(Debug)]
pub struct Occupied {
    backend: Arc<Backend>,
    counts: bool,
}

impl Occupied {
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.connections.fetch_add(1, Ordering::Relaxed);
        Self { backend, counts: true }
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// It is a session's again.
    pub fn count(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.backend.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It is no session's.
    pub fn uncount(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.backend.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.uncount();
    }
}

/// Servers that hold the same data.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    /// No other name has it.
    pub number: usize,
    pub config: GroupConfig,
    pub backends: Vec<Arc<Backend>>,
    pub connector: Option<Connector>,
    pub mirror: Option<Arc<Mirror>>,
    /// What passes; nothing is looked at where there are none.
    pub rules: Option<Arc<Rules>>,
    /// The mesh's own.
    pub zone: Option<String>,
    /// Commands that may have written, of all sessions.
    pub writes: Arc<AtomicU64>,
    pub admissions: Arc<Admissions>,
    /// What sessions logged in by last.
    pub recent: Arc<Recent>,
    /// Connections that sessions share, in the order of `backends`.
    pools: Vec<Arc<Pool>>,
    /// Changes when a connection that was made before would not be made like that any more.
    pub generation: u64,
    /// Servers that are found, where some are.
    pub members: Option<Arc<Members>>,
    /// Why sessions keep their connections.
    pub pins: Arc<Pins>,
    turn: AtomicUsize,
}

impl Group {
    /// Servers that the group had `before` keep what is known of them.
    pub fn new(
        name: String,
        number: usize,
        config: GroupConfig,
        connector: Option<Connector>,
        zone: Option<String>,
        before: Option<&Self>,
    ) -> Self {
        let generation =
            before.map_or(0, |before| before.generation + u64::from(!logs_in_alike(&before.config, &config)));
        let group = Self::with_servers(name, number, config, connector, zone, before, generation);
        for backend in &group.backends {
            backend.set_draining(false);
        }
        group
    }

    /// The same with the servers that it has by now.
    pub fn renewed(&self) -> Self {
        let (name, config) = (self.name.clone(), self.config.clone());
        let (connector, zone) = (self.connector.clone(), self.zone.clone());
        let same =
            Self::with_servers(name, self.number, config, connector, zone, Some(self), self.generation);
        Self { mirror: self.mirror.clone(), rules: self.rules.clone(), ..same }
    }

    fn with_servers(
        name: String,
        number: usize,
        config: GroupConfig,
        connector: Option<Connector>,
        zone: Option<String>,
        before: Option<&Self>,
        generation: u64,
    ) -> Self {
        let members = config.topology.finds().then(|| {
            let alike = before.filter(|before| before.finds_alike(&config));
            alike.and_then(|before| before.members.clone()).unwrap_or_default()
        });
        let found = members.as_ref().map(|members| members.found()).unwrap_or_default();
        let servers: Vec<_> = discovery::servers(&config, &found).collect();
        let backends = servers
            .iter()
            .map(|backend| {
                let role = match (config.kind, config.topology) {
                    (GroupKind::Mysql, Topology::Static) => backend.role.unwrap_or(Role::Writer),
                    (GroupKind::Mysql, Topology::GroupReplication) => Role::Replica,
                    // Of several whose role nobody has told yet, none is a writer.
                    (GroupKind::Mysql, Topology::Auto) if servers.len() > 1 => Role::Replica,
                    _ => Role::Writer,
                };
                let known = before.map(|group| &group.backends[..]).unwrap_or_default();
                let same = known.iter().find(|known| {
                    known.address == backend.addr
                        && known.weight == backend.weight
                        && known.status == backend.status
                        && known.zone == backend.zone
                });
                if let Some(same) = same {
                    if config.topology == Topology::Static {
                        same.set_role(role);
                    }
                    return same.clone();
                }
                Arc::new(Backend::new(backend, role))
            })
            .collect();
        let pools: Vec<_> = servers
            .iter()
            .map(|backend| {
                let pool =
                    before.and_then(|before| before.pool_at(&backend.addr)).cloned().unwrap_or_default();
                pool.set(config.pool.unwrap_or_default(), generation);
                pool
            })
            .collect();
        Self {
            name,
            number,
            config,
            backends,
            connector,
            mirror: None,
            admissions: before.map(|group| group.admissions.clone()).unwrap_or_default(),
            rules: None,
            zone,
            pools,
            generation,
            members,
            recent: before.map(|group| group.recent.clone()).unwrap_or_default(),
            pins: before.map(|group| group.pins.clone()).unwrap_or_default(),
            writes: before.map(|group| group.writes.clone()).unwrap_or_default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Whether what was found is still of use: the same group of servers, or the same PD, is asked.
    fn finds_alike(&self, config: &GroupConfig) -> bool {
        self.config.topology == config.topology
            && match config.topology {
                Topology::Pd => config.pd.iter().any(|address| self.config.pd.contains(address)),
                _ => {
                    let known =
                        |address: &String| self.backends.iter().any(|known| known.address == *address);
                    config.backends.iter().any(|seed| known(&seed.addr))
                }
            }
    }

    /// The shared connections to the server at an address.
    pub fn pool_at(&self, address: &str) -> Option<&Arc<Pool>> {
        self.pools().find(|(backend, _)| backend.address == address).map(|(_, pool)| pool)
    }

    pub fn pools(&self) -> impl Iterator<Item = (&Arc<Backend>, &Arc<Pool>)> {
        self.backends.iter().zip(&self.pools)
    }

    /// What clients are told before it is known who they are: what every server can do that answers.
    pub fn profile(&self) -> Option<Profile> {
        let mut known =
            self.backends.iter().filter(|backend| backend.is_up()).filter_map(|backend| backend.profile());
        let mut profile = known.next()?.as_ref().clone();
        for other in known {
            profile.capabilities = profile.capabilities & other.capabilities;
        }
        Some(profile)
    }

    /// Whether a server that only reads takes sessions.
    pub fn has_replica(&self) -> bool {
        self.backends.iter().any(|backend| self.reads(backend))
    }

    /// The writer that was drained, where no other server can take its place.
    pub fn drained_writer(&self) -> Option<&Arc<Backend>> {
        let mut writers = self.backends.iter().filter(|backend| backend.role() == Role::Writer);
        let first = writers.next().filter(|backend| backend.is_drained())?;
        let fixed = self.config.kind == GroupKind::Tidb || self.config.topology == Topology::Static;
        let others = |backend: &Arc<Backend>| !fixed && backend.role() == Role::Replica && backend.is_open();
        (writers.all(|backend| backend.is_drained()) && !self.backends.iter().any(others)).then_some(first)
    }

    /// Servers that take writes now.
    pub fn writers(&self) -> usize {
        self.backends.iter().filter(|backend| backend.is_up() && backend.role() == Role::Writer).count()
    }

    /// Whether a server is a replica that reads may go to.
    pub fn reads(&self, backend: &Backend) -> bool {
        let near = || {
            self.config
                .lag_max
                .is_none_or(|max| backend.lag_ms().is_some_and(|lag| u128::from(lag) <= max.0.as_millis()))
        };
        backend.is_open() && backend.role() == Role::Replica && near()
    }

    /// A server for `role`, other than those in `tried`. A replica's work is done by a writer where there is no replica.
    pub fn pick(&self, role: Role, tried: &[String]) -> Option<Arc<Backend>> {
        let open = |backend: &&Arc<Backend>| backend.is_open() && !tried.contains(&backend.address);
        let of = |role: Role| -> Vec<&Arc<Backend>> {
            let fits = |backend: &&Arc<Backend>| match role {
                Role::Writer => backend.role() == Role::Writer,
                Role::Replica => self.reads(backend),
            };
            self.backends.iter().filter(open).filter(fits).collect()
        };
        let mut candidates = of(role);
        if candidates.is_empty() && role == Role::Replica {
            candidates = of(Role::Writer);
        }
        candidates = self.preferred(candidates);
        let chosen = match (candidates.len(), self.config.balance) {
            (0, _) => return None,
            (1, _) => 0,
            (count, Balance::RoundRobin) => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            (_, Balance::Weighted) => by_weight(&candidates),
            (count, Balance::LeastBusy) => {
                let (one, other) = (lot::below(count), lot::below(count));
                if candidates[other].connections() < candidates[one].connections() { other } else { one }
            }
        };
        let chosen = self.warmed(&candidates, chosen);
        Some(candidates[chosen].clone())
    }

    /// A session's command or login failed at a server.
    pub fn note_lost(&self, backend: &Backend) {
        if let Some(time) = backend.lost(self.config.eject) {
            let (group, address) = (&self.name, &backend.address);
            tracing::warn!(
                group,
                address,
                seconds = time.as_secs(),
                "sessions fail at a server: it is left alone"
            );
        }
    }

    /// Those that are not ejected and, of these, those of the mesh's own zone; all of them where that leaves none.
    fn preferred<'a>(&self, all: Vec<&'a Arc<Backend>>) -> Vec<&'a Arc<Backend>> {
        let well: Vec<_> = all.iter().copied().filter(|backend| !backend.is_ejected()).collect();
        // Where more than half of them are ejected, the trouble is none of theirs.
        let well = if well.len() * 2 < all.len() || well.is_empty() { all } else { well };
        let near: Vec<_> =
            well.iter().copied().filter(|backend| self.zone.is_some() && backend.zone == self.zone).collect();
        if near.is_empty() { well } else { near }
    }

    /// The chosen one, or another in its place, where it came back a short while ago.
    fn warmed(&self, candidates: &[&Arc<Backend>], chosen: usize) -> usize {
        let Some(slow_start) = self.config.slow_start.filter(|_| candidates.len() > 1) else { return chosen };
        let takes = |index: usize| (lot::below(1000) as u64) < candidates[index].warmth(slow_start.0);
        if takes(chosen) {
            return chosen;
        }
        let other = (chosen + 1 + lot::below(candidates.len() - 1)) % candidates.len();
        if takes(other) { other } else { chosen }
    }
}

/// Whether connections that were made by the one can serve under the other. A certificate may have changed in its file.
fn logs_in_alike(one: &GroupConfig, other: &GroupConfig) -> bool {
    let same = |a: &UserConfig, b: &UserConfig| a.name == b.name && a.password == b.password;
    one.auth == other.auth
        && one.tls == other.tls
        && one.tls != BackendTls::Verify
        && one.init == other.init
        && one.compression == other.compression
        && one.proxy_protocol == other.proxy_protocol
        && one.users.len() == other.users.len()
        && one.users.iter().zip(&other.users).all(|(a, b)| same(a, b))
        && match (&one.account, &other.account) {
            (Some(a), Some(b)) => same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
}

fn by_weight(candidates: &[&Arc<Backend>]) -> usize {
    let total: usize = candidates.iter().map(|backend| backend.weight as usize).sum();
    let mut drawn = lot::below(total.max(1));
    for (index, backend) in candidates.iter().enumerate() {
        match drawn.checked_sub(backend.weight as usize) {
            Some(rest) => drawn = rest,
            None => return index,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Group {
        group_in(text, None)
    }

    fn group_in(text: &str, zone: Option<String>) -> Group {
        let config: GroupConfig = serde_json::from_str(text).unwrap();
        let group = Group::new("shop".into(), 0, config, None, zone, None);
        for backend in &group.backends {
            backend.answered(None);
        }
        group
    }

    const THREE: &str = r#"{"topology": "static", "balance": "BALANCE", "backends": [
        {"addr": "a:1", "role": "writer"}, {"addr": "b:1", "role": "replica", "weight": 3}, {"addr": "c:1", "role": "replica"}]}"#;

    #[test]
    fn reads_go_to_replicas_and_to_the_writer_when_there_are_none() {
        let group = group(&THREE.replace("BALANCE", "round_robin"));
        let mut seen = [0; 2];
        for _ in 0..10 {
            assert_eq!(group.pick(Role::Writer, &[]).unwrap().address, "a:1");
            match group.pick(Role::Replica, &[]).unwrap().address.as_str() {
                "b:1" => seen[0] += 1,
                "c:1" => seen[1] += 1,
                other => panic!("{other} is no replica"),
            }
        }
        assert_eq!(seen, [5, 5]);
        group.backends[1].set_draining(true);
        assert!(group.backends[2].failed("gone", true));
        assert_eq!(group.pick(Role::Replica, &[]).unwrap().address, "a:1");
        assert!(group.pick(Role::Writer, &["a:1".to_owned()]).is_none());
    }

    #[test]
    fn a_drained_writer_has_no_successor_where_roles_are_fixed_or_nobody_else_is_there() {
        let fixed = group(&THREE.replace("BALANCE", "round_robin"));
        assert!(fixed.drained_writer().is_none());
        fixed.backends[0].set_draining(true);
        assert_eq!(fixed.drained_writer().map(|backend| backend.address.as_str()), Some("a:1"));
        let found = group(r#"{"monitor": {"user": "m"}, "backends": [{"addr": "a:1"}, {"addr": "b:1"}]}"#);
        found.backends[0].set_role(Role::Writer);
        found.backends[0].set_draining(true);
        assert!(found.drained_writer().is_none(), "the other may be promoted");
        found.backends[1].failed("gone", true);
        assert!(found.drained_writer().is_some());
        let other = group(r#"{"kind": "tidb", "backends": [{"addr": "a:1"}, {"addr": "b:1"}]}"#);
        other.backends[0].set_draining(true);
        assert!(other.drained_writer().is_none());
        // One that shuts down by itself may come back.
        other.backends[1].set_leaving(true);
        assert!(other.drained_writer().is_none());
    }

    #[test]
    fn the_less_busy_of_two_and_the_heavier_get_more() {
        let busy = group(&THREE.replace("BALANCE", "least_busy"));
        let held: Vec<_> = (0..100).map(|_| Occupied::new(busy.pick(Role::Replica, &[]).unwrap())).collect();
        let (b, c) = (busy.backends[1].connections(), busy.backends[2].connections());
        assert!(b.abs_diff(c) < 20, "{b} and {c}");
        drop(held);
        assert_eq!(busy.backends[1].connections(), 0);
        let weighted = group(&THREE.replace("BALANCE", "weighted"));
        let heavy = (0..400).filter(|_| weighted.pick(Role::Replica, &[]).unwrap().address == "b:1").count();
        assert!((230..370).contains(&heavy), "{heavy} of 400");
    }

    #[test]
    fn a_replica_that_is_too_far_behind_or_does_not_tell_gets_no_reads() {
        let with_limit = THREE
            .replace("BALANCE", "least_busy")
            .replace("{\"topology\"", "{\"lag_max\": \"2s\", \"topology\"");
        let group = group(&with_limit);
        assert!(!group.has_replica(), "nobody has told its lag");
        group.backends[1].set_lag_ms(Some(2001));
        group.backends[2].set_lag_ms(Some(2000));
        assert!(
            (0..20).all(|_| group.pick(Role::Replica, &[]).is_some_and(|picked| picked.address == "c:1"))
        );
        group.backends[2].set_lag_ms(None);
        assert_eq!(group.pick(Role::Replica, &[]).unwrap().address, "a:1");
    }

    #[test]
    fn a_server_that_sessions_fail_at_is_left_alone_for_a_while_unless_most_of_them_are() {
        let group = group(&THREE.replace("BALANCE", "round_robin"));
        let eject = Some(EjectConfig { failures: 3, time: base::Span(Duration::from_secs(60)) });
        let [_, b, c] = &group.backends[..] else { panic!("three servers") };
        assert_eq!((b.lost(None), b.lost(eject)), (None, None));
        b.served();
        assert_eq!((b.lost(eject), b.lost(eject)), (None, None), "an answer in between begins anew");
        assert_eq!(b.lost(eject), Some(Duration::from_secs(60)));
        assert!(b.is_ejected() && b.is_open());
        assert!(
            (0..20).all(|_| group.pick(Role::Replica, &[]).is_some_and(|picked| picked.address == "c:1"))
        );
        // The second time is twice as long.
        assert_eq!((b.lost(eject), b.lost(eject)), (None, None));
        assert_eq!(b.lost(eject), Some(Duration::from_secs(120)));
        for _ in 0..3 {
            c.lost(eject);
        }
        let picked: Vec<_> = (0..20).filter_map(|_| group.pick(Role::Replica, &[])).collect();
        assert!(
            picked.iter().any(|one| one.address == "b:1") && picked.iter().any(|one| one.address == "c:1")
        );
    }

    #[test]
    fn a_server_of_the_own_zone_is_preferred_while_there_is_one() {
        let text = THREE
            .replace("BALANCE", "least_busy")
            .replace("\"addr\": \"c:1\"", "\"zone\": \"north\", \"addr\": \"c:1\"");
        let near = group_in(&text, Some("north".into()));
        let all = |wanted: &str| {
            (0..20).all(|_| near.pick(Role::Replica, &[]).is_some_and(|picked| picked.address == wanted))
        };
        assert!(all("c:1"));
        near.backends[2].set_draining(true);
        assert!(all("b:1"));
    }

    #[test]
    fn a_server_that_came_back_gets_its_share_little_by_little() {
        let text = THREE
            .replace("BALANCE", "round_robin")
            .replace("{\"topology\"", "{\"slow_start\": \"1h\", \"topology\"");
        let group = group(&text);
        let share = || {
            let picked = (0..1000).filter_map(|_| group.pick(Role::Replica, &[]));
            picked.filter(|one| one.address == "b:1").count()
        };
        // Both came back just now: nobody is preferred.
        assert!((350..650).contains(&share()), "{}", share());
        group.backends[2].up_since.store(0, Ordering::Relaxed);
        let cold = share();
        assert!((1..250).contains(&cold), "{cold} of 1000");
    }

    #[test]
    fn one_lost_probe_is_no_death_and_two_are() {
        let group = group(&THREE.replace("BALANCE", "least_busy"));
        let backend = &group.backends[0];
        assert!(!backend.failed("late", false) && backend.is_up());
        assert!(backend.failed("late", false) && !backend.is_up());
        assert_eq!(backend.trouble().as_deref(), Some("late"));
        assert!(backend.answered(None) && backend.is_up() && backend.trouble().is_none());
    }
}
