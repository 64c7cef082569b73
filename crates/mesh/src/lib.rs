//! The SQL proxy: every statement of an application passes here on its way to MySQL, MariaDB or TiDB.
//!
//! A listener's sockets are accepted on one thread and given to the least loaded of the threads that carry sessions
//! ([`Mesh::start`]). A session reads commands, sends each to a server of its group and passes the answer back
//! (`session`); the protocol's bytes are `mysql::protocol`'s. Servers are watched by `monitor`. Nothing here knows of
//! flows, journals or the catalogue.

mod admin;
mod admission;
mod buffers;
pub mod capture;
pub mod compare;
mod config;
mod control;
mod core;
mod digests;
mod discovery;
mod error;
mod frames;
mod group;
mod handover;
mod keeper;
mod link;
mod lot;
mod memory;
mod mirror;
mod monitor;
mod network;
mod pins;
mod plan;
mod pool;
mod prepared;
mod reach;
pub mod replay;
mod rules;
mod session;
mod sessions;
mod shared;
mod slow;
mod status;
mod succession;
mod target;
mod tenant;
mod tls;
mod warm;
mod wire;

pub use admin::{AdminConfig, AdminPort, AdminUserConfig};
pub use config::{
    AuthMode, BackendConfig, BackendTls, Balance, Consistency, Fallback, GroupConfig, GroupKind,
    ListenerConfig, ListenerTls, LoginMatchConfig, MeshConfig, MonitorConfig, PoolConfig, ProxyProtocol,
    Role, ServerCompression, Topology, UserConfig, Way,
};
pub use digests::DigestStatus;
pub use error::MeshError;
pub use handover::{HandoverError, Successor};
pub use keeper::{BackendsChange, Keeper, Refusal};
pub use mirror::{MirrorConfig, MirrorStatus};
pub use network::Network;
pub use pins::PinStatus;
pub use pool::PoolStatus;
pub use reach::{Met, reach};
pub use rules::{
    AllowFile, AllowListConfig, AllowListStatus, AllowMode, AllowedStatement, Day, LimitAction, LimitConfig,
    LimitPer, LimitStatus, MatchConfig, Noted, Pattern, Rate, RuleAction, RuleConfig, RuleStatus,
    RulesStatus, Says, StatementKind, Verdict,
};
pub use session::Explanation;
pub use sessions::{KillError, SessionStatus};
pub use slow::SlowStatement;
pub use status::{BackendStatus, GroupStatus, ListenerStatus, MeshStatus};
pub use succession::HandedOver;

use crate::capture::{Capture, CaptureStatus};
use crate::control::{Control, Order};
use crate::core::Core;
use crate::digests::{Digests, Names};
use crate::handover::Inherited;
pub use crate::memory::LimitsConfig;
use crate::memory::Memory;
use crate::plan::{Plan, Prepared};
use crate::shared::Shared;
use crate::slow::SlowList;
use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// Sessions at once, where `limits.sessions` says nothing.
const SESSIONS_MAX: usize = 10_000;

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    shared: Arc<Shared>,
    names: Arc<Names>,
    cores: Arc<Vec<Core>>,
    stop: watch::Sender<bool>,
    control: Option<Control>,
    /// Who may come in at the admin port.
    admin: ArcSwapOption<AdminConfig>,
}

impl Mesh {
    /// Listens and serves. `config` has no [`MeshConfig::problems`].
    ///
    /// # Errors
    /// When a port is taken, a certificate cannot be read, or the system gives no thread.
    pub fn start(config: &MeshConfig) -> Result<Self, MeshError> {
        Self::start_with(config, &mut Vec::new(), true)
    }

    /// Starts in the place of another process's mesh, with its ports, where nobody is accepted before [`Mesh::succeed`].
    ///
    /// # Errors
    /// As [`Mesh::start`].
    pub fn start_as(config: &MeshConfig, successor: &mut Successor) -> Result<Self, MeshError> {
        Self::start_with(config, &mut successor.sockets, false)
    }

    fn start_with(
        config: &MeshConfig,
        inherited: &mut Vec<Inherited>,
        accepts: bool,
    ) -> Result<Self, MeshError> {
        let threads =
            config.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let names = Arc::new(Names::default());
        let prepared = Plan::default().prepare_with(config, &names, inherited)?;
        let shared = Arc::new(Shared::new(
            config.digests.then(|| Digests::new(threads, names.clone())),
            SlowList::new(config.slow.0),
            Capture::new(threads),
            config.limits.sessions.unwrap_or(SESSIONS_MAX),
            Memory::new(config.limits.memory.map(|bytes| bytes.0)),
        ));
        let cores: Vec<Core> = (0..threads)
            .map(|index| Core::start(index, threads, shared.clone()))
            .collect::<Result<_, _>>()?;
        let cores = Arc::new(cores);
        let (stop, stopped) = watch::channel(false);
        let control = control::start(shared.clone(), cores.clone(), stopped, accepts)?;
        let mesh = Self { shared, names, cores, stop, control: Some(control), admin: ArcSwapOption::empty() };
        mesh.apply(prepared);
        mesh.admin.store(config.admin.clone().map(Arc::new));
        mesh.shared.capture.configure(&config.capture);
        Ok(mesh)
    }

    /// Takes another configuration into use, all of it or nothing. Sessions go on: each goes by the new one from its next
    /// command outside of a transaction, and by its rules at once. Servers that are gone from it are drained; `threads`,
    /// `limits`, `digests` and `slow` stay as they were at the start. `config` has no [`MeshConfig::problems`].
    ///
    /// # Errors
    /// When a port is taken or a certificate cannot be read; then nothing has changed.
    pub fn reload(&self, config: &MeshConfig) -> Result<(), MeshError> {
        let _one_at_a_time = self.shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = self.shared.plan.load().prepare(config, &self.names)?;
        self.apply(prepared);
        self.admin.store(config.admin.clone().map(Arc::new));
        self.shared.capture.configure(&config.capture);
        Ok(())
    }

    fn apply(&self, prepared: Prepared) {
        let change = prepared.take_into_use(&self.shared);
        if let Some(control) = &self.control
            && control.orders.try_send(Order::Take(change)).is_err()
        {
            // It takes plans faster than anyone can write them, until it has ended.
            tracing::error!("a new plan was not taken: the mesh stops");
        }
    }

    /// Where each listener listens, by name: `bind` with a port of 0 finds one.
    pub fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.shared.plan.load().doors.iter().map(|door| (door.name.clone(), door.address)).collect()
    }

    pub fn status(&self) -> MeshStatus {
        status::read(&self.shared)
    }

    /// Statements with their literals left out, those that took the most time first; empty with `digests: false`.
    pub fn digests(&self) -> Vec<DigestStatus> {
        self.shared.digests.as_ref().map(Digests::list).unwrap_or_default()
    }

    /// The latest statements that took long, the newest first.
    pub fn slow(&self) -> Vec<SlowStatement> {
        self.shared.slow.list()
    }

    /// Begins to capture statements; `false` where it has begun before. Blocks.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn start_capture(&self) -> std::io::Result<bool> {
        self.shared.capture.start()
    }

    /// Ends it, when all that is held has been written; whether it ran. Blocks.
    pub fn stop_capture(&self) -> bool {
        self.shared.capture.stop()
    }

    /// Whether statements are captured, where, and how many have been.
    pub fn capture(&self) -> CaptureStatus {
        self.shared.capture.status()
    }

    /// How the mirrors of the groups fare that have one.
    pub fn mirrors(&self) -> Vec<MirrorStatus> {
        let plan = self.shared.plan.load();
        let mirrors = plan.groups.iter().filter_map(|group| Some((group, group.mirror.as_ref()?)));
        mirrors.map(|(group, mirror)| mirror.status(&group.name)).collect()
    }

    /// Where a fresh session of a group would send a statement, what its rules say of it, and why; `None` where there is no
    /// such group.
    pub fn explain(&self, group: &str, sql: &str, user: Option<&str>) -> Option<Explanation> {
        Some(session::explain(self.shared.plan.load().group(group)?, sql, user))
    }

    /// The latest statements that rules met, the newest first.
    pub fn noted(&self) -> Vec<Noted> {
        let plan = self.shared.plan.load();
        let rules = plan.groups.iter().filter_map(|group| group.rules.as_ref());
        let mut list: Vec<_> = rules.flat_map(|rules| rules.noted()).collect();
        list.sort_by_key(|noted| std::cmp::Reverse(noted.at_ms));
        list
    }

    /// The list of allowed statements of a group, with what has been learnt since it was read; `None` where the group has
    /// none.
    pub fn learnt(&self, group: &str) -> Option<AllowFile> {
        let plan = self.shared.plan.load();
        let group = plan.group(group)?;
        let list = group.config.allow_list.as_ref()?;
        Some(group.rules.as_ref().map(|rules| rules.learnt(&list.statements)).unwrap_or_default())
    }

    /// Whether new sessions keep away from a server; `false` where there is no such server.
    pub fn drain(&self, group: &str, address: &str, draining: bool) -> bool {
        let plan = self.shared.plan.load();
        let backend =
            plan.group(group).and_then(|group| group.backends.iter().find(|known| known.address == address));
        if let Some(backend) = backend {
            backend.set_draining(draining);
            self.shared.handover.ring();
        }
        backend.is_some()
    }

    /// Stops accepting; a session ends at its next command outside of a transaction.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
    }

    /// Sessions in the midst of a transaction.
    pub fn transactions(&self) -> usize {
        self.shared.counters.transactions.load(Ordering::Relaxed)
    }

    /// Stops accepting, and ends every session.
    pub fn stop(mut self) {
        self.close();
        if let Some(control) = self.control.take() {
            let _ = control.thread.join();
        }
        if let Ok(cores) = Arc::try_unwrap(self.cores) {
            for core in cores {
                core.stop();
            }
        }
        // Now no session says any more.
        self.shared.capture.stop();
    }
}
