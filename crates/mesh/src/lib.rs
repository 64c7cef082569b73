//! The SQL proxy: every statement of an application passes here on its way to MySQL, MariaDB or TiDB.
//!
//! A listener's sockets are accepted on one thread and given to the least loaded of the threads that carry sessions
//! ([`Mesh::start`]). A session reads commands, sends each to a server of its group and passes the answer back
//! (`session`); the protocol's bytes are `mysql::protocol`'s. Servers are watched by `monitor`. Nothing here knows of
//! flows, journals or the catalogue.

mod buffers;
mod config;
mod core;
mod digests;
mod error;
mod group;
mod link;
mod lot;
mod monitor;
mod reach;
mod session;
mod shared;
mod slow;
mod status;
mod tls;
mod wire;

pub use config::{
    AuthMode, Balance, BackendConfig, BackendTls, Consistency, GroupConfig, GroupKind, LimitsConfig, ListenerConfig,
    ListenerTls, MeshConfig, MonitorConfig, PoolConfig, Role, Topology, UserConfig,
};
pub use digests::DigestStatus;
pub use error::MeshError;
pub use reach::{Met, reach};
pub use session::Explanation;
pub use slow::SlowStatement;
pub use status::{BackendStatus, GroupStatus, ListenerStatus, MeshStatus};

use crate::core::Core;
use crate::digests::Digests;
use crate::group::Group;
use crate::shared::{Listener, Shared};
use crate::slow::SlowList;
use crate::tls::{Acceptor, Connector};
use base::ByteSize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Sessions at once, where `limits.sessions` says nothing.
const SESSIONS_MAX: usize = 10_000;
/// Memory, where `limits.memory` says nothing.
const MEMORY_MAX: ByteSize = ByteSize(512 << 20);
/// What a session counts for in the memory's limit before it has moved a byte: itself, and a buffer of each direction.
const SESSION_BYTES: usize = 4 * 1024;

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    shared: Arc<Shared>,
    listeners: Vec<Arc<Listener>>,
    cores: Arc<Vec<Core>>,
    stop: watch::Sender<bool>,
    control: Option<std::thread::JoinHandle<()>>,
}

impl Mesh {
    /// Listens and serves. `config` has no [`MeshConfig::problems`].
    ///
    /// # Errors
    /// When a port is taken, a certificate cannot be read, or the system gives no thread.
    pub fn start(config: &MeshConfig) -> Result<Self, MeshError> {
        let mut groups = BTreeMap::new();
        for (name, group) in &config.groups {
            let connector = Connector::new(name, group)?;
            groups.insert(name.clone(), Arc::new(Group::new(name.clone(), group.clone(), connector)));
        }
        let threads = config.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let memory = config.limits.memory.unwrap_or(MEMORY_MAX).0;
        let shared = Arc::new(Shared::new(
            groups.values().cloned().collect(),
            config.digests.then(|| {
                let kinds = groups.values().map(|group| (group.name.clone(), group.config.kind)).collect();
                Digests::new(threads, kinds)
            }),
            SlowList::new(config.slow.0),
            config.limits.sessions.unwrap_or(SESSIONS_MAX),
            usize::try_from(memory).unwrap_or(usize::MAX),
        ));
        let mut listeners = Vec::new();
        let mut sockets = Vec::new();
        for listener in &config.listeners {
            let bind = |source| MeshError::Bind { listener: listener.name.clone(), address: listener.bind, source };
            let socket = std::net::TcpListener::bind(listener.bind).map_err(bind)?;
            socket.set_nonblocking(true).map_err(bind)?;
            let listener = Arc::new(Listener {
                name: listener.name.clone(),
                address: socket.local_addr().map_err(bind)?,
                groups: listener.tenants.iter().filter_map(|tenant| groups.get(tenant).cloned()).collect(),
                acceptor: listener.tls.as_ref().map(|tls| Acceptor::new(&listener.name, tls)).transpose()?,
                tls_required: listener.tls_required,
            });
            sockets.push((socket, listener.clone()));
            listeners.push(listener);
        }
        let cores: Vec<Core> =
            (0..threads).map(|index| Core::start(index, shared.clone())).collect::<Result<_, _>>()?;
        let cores = Arc::new(cores);
        let (stop, stopped) = watch::channel(false);
        let control = control(sockets, &shared, &cores, &stopped)?;
        Ok(Self { shared, listeners, cores, stop, control: Some(control) })
    }

    /// Where each listener listens, by name: `bind` with a port of 0 finds one.
    pub fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
    }

    pub fn status(&self) -> MeshStatus {
        status::read(&self.shared, &self.listeners)
    }

    /// Statements with their literals left out, those that took the most time first; empty with `digests: false`.
    pub fn digests(&self) -> Vec<DigestStatus> {
        self.shared.digests.as_ref().map(Digests::list).unwrap_or_default()
    }

    /// The latest statements that took long, the newest first.
    pub fn slow(&self) -> Vec<SlowStatement> {
        self.shared.slow.list()
    }

    /// Where a fresh session of a group would send a statement, and why; `None` where there is no such group.
    pub fn explain(&self, group: &str, sql: &str) -> Option<Explanation> {
        let group = self.shared.groups.iter().find(|known| known.name == group)?;
        Some(session::explain(group, sql))
    }

    /// Whether new sessions keep away from a server; `false` where there is no such server.
    pub fn drain(&self, group: &str, address: &str, draining: bool) -> bool {
        let group = self.shared.groups.iter().find(|known| known.name == group);
        let backend = group.and_then(|group| group.backends.iter().find(|known| known.address == address));
        if let Some(backend) = backend {
            backend.set_draining(draining);
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
            let _ = control.join();
        }
        if let Ok(cores) = Arc::try_unwrap(self.cores) {
            for core in cores {
                core.stop();
            }
        }
    }
}

/// The thread that accepts, and asks servers how they are.
fn control(
    sockets: Vec<(std::net::TcpListener, Arc<Listener>)>,
    shared: &Arc<Shared>,
    cores: &Arc<Vec<Core>>,
    stop: &watch::Receiver<bool>,
) -> Result<std::thread::JoinHandle<()>, MeshError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MeshError::Thread)?;
    let (shared, cores, mut stop) = (shared.clone(), cores.clone(), stop.clone());
    let work = async move {
        let mut tasks = tokio::task::JoinSet::new();
        for group in &shared.groups {
            for backend in &group.backends {
                tasks.spawn(monitor::run(group.clone(), backend.clone(), stop.clone()));
            }
        }
        for (socket, listener) in sockets {
            match TcpListener::from_std(socket) {
                Ok(socket) => {
                    tasks.spawn(accept(socket, listener, shared.clone(), cores.clone(), stop.clone()));
                }
                Err(error) => tracing::error!(listener = listener.name, %error, "failed to listen"),
            }
        }
        let _ = stop.wait_for(|stop| *stop).await;
        tasks.shutdown().await;
    };
    std::thread::Builder::new()
        .name("mesh-control".into())
        .spawn(move || runtime.block_on(work))
        .map_err(MeshError::Thread)
}

async fn accept(
    socket: TcpListener,
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
    mut stop: watch::Receiver<bool>,
) {
    /// After an error of accepting that lasts, as when no descriptor is left.
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            stream.into_std()
        }) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(listener = listener.name, %error, "failed to accept a client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let counters = &shared.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let open = counters.open.load(Ordering::Relaxed);
        let memory = buffers::leased_bytes() + (open + 1) * SESSION_BYTES;
        if open >= shared.sessions_max || memory > shared.memory_bytes_max {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            turn_away(stream);
            continue;
        }
        counters.open.fetch_add(1, Ordering::Relaxed);
        let Some(core) = cores.iter().min_by_key(|core| core.sessions()) else { return };
        core.give(stream, listener.clone()).await;
    }
}

/// The error that a full MySQL gives. A socket that would block is just closed.
fn turn_away(stream: std::net::TcpStream) {
    use std::io::Write;
    let packet = mysql::protocol::error_packet(0, 1040, b"08004", "Too many connections");
    let _ = (&stream).write_all(&packet);
}
