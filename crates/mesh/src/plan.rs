//! What `mesh.yaml` says, made ready to run: groups with their servers, listeners with their certificates and sockets.
//!
//! A plan is made whole before anything of it is used. A server that the plan before has too keeps what is known of it, and
//! a listener that stays where it is keeps its socket.

use crate::config::{ListenerConfig, MeshConfig, Way};
use crate::control::Change;
use crate::digests::Names;
use crate::error::MeshError;
use crate::group::{Backend, Group};
use crate::handover::{Inherited, MESH_PORT};
use crate::mirror::Mirror;
use crate::rules::Rules;
use crate::shared::{Door, Listener, Shared};
use crate::tls::{Acceptor, Connector};
use arc_swap::ArcSwap;
use mysql::protocol::Capabilities;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Clients that wait to be accepted at a shared port; the system has a bound of its own.
const BACKLOG: i32 = 4096;

/// All that runs.
#[derive(Debug, Default)]
pub struct Plan {
    pub groups: Vec<Arc<Group>>,
    pub doors: Vec<Arc<Door>>,
}

/// A plan on its way, with the sockets that are new in it.
pub struct Prepared {
    pub plan: Plan,
    pub sockets: Vec<(TcpListener, Arc<Door>)>,
    /// What the doors that stay are to be from now on.
    pub changed: Vec<(Arc<Door>, Arc<Listener>)>,
}

impl Plan {
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Makes the plan of `config`, of which nothing runs yet.
    ///
    /// # Errors
    /// When a port is taken, a certificate cannot be read or a pattern is too large.
    pub fn prepare(&self, config: &MeshConfig, names: &Names) -> Result<Prepared, MeshError> {
        self.prepare_with(config, names, &mut Vec::new())
    }

    /// The same, with ports that came from another process.
    pub fn prepare_with(
        &self,
        config: &MeshConfig,
        names: &Names,
        inherited: &mut Vec<Inherited>,
    ) -> Result<Prepared, MeshError> {
        let mut groups = BTreeMap::new();
        for (name, group) in &config.groups {
            let connector = Connector::new(name, group)?;
            Connector::to_pd(name, group)?;
            let before = self.group(name).map(Arc::as_ref);
            let number = names.number(name);
            let same = before.and_then(|before| before.mirror.clone());
            let mirror = match &group.mirror {
                Some(wanted) if same.as_ref().is_none_or(|same| same.config() != wanted) => {
                    Some(Arc::new(Mirror::start(wanted)?))
                }
                Some(_) => same,
                None => None,
            };
            let rules = Rules::new(name, group, before.and_then(|before| before.rules.as_deref()))?;
            let mut made =
                Group::new(name.clone(), number, group.clone(), connector, config.zone.clone(), before);
            made.rules = rules.map(Arc::new);
            made.mirror = mirror;
            groups.insert(name.as_str(), Arc::new(made));
        }
        let mut prepared = Prepared { plan: Self::default(), sockets: Vec::new(), changed: Vec::new() };
        for config in &config.listeners {
            let kept = self.doors.iter().find(|door| door.name == config.name && door.bind == config.bind);
            let listener = Arc::new(Listener {
                groups: config.tenants.iter().filter_map(|name| groups.get(name.as_str()).cloned()).collect(),
                acceptor: config.tls.as_ref().map(|tls| Acceptor::new(&config.name, tls)).transpose()?,
                fallback: config.fallback,
                tls_required: config.tls_required,
                proxies: config.proxy_protocol.clone(),
                compression: offered(&config.compression),
            });
            match kept {
                Some(door) => {
                    prepared.changed.push((door.clone(), listener));
                    prepared.plan.doors.push(door.clone());
                }
                None => {
                    let same = |port: &Inherited| {
                        port.kind == MESH_PORT && port.name == config.name && port.bind == config.bind
                    };
                    // All of them: in the queue of one that is closed clients may wait.
                    let (known, rest) = std::mem::take(inherited).into_iter().partition(same);
                    *inherited = rest;
                    let known = known.into_iter().map(|port: Inherited| port.socket).collect();
                    let (sockets, door) = open(config, listener, known)?;
                    prepared.plan.doors.push(door.clone());
                    prepared.sockets.extend(sockets.into_iter().map(|socket| (socket, door.clone())));
                }
            }
        }
        prepared.plan.groups = groups.into_values().collect();
        Ok(prepared)
    }
}

impl Plan {
    /// The same with the servers that some of its groups have by now.
    pub fn renewed(&self, names: &[&str]) -> Prepared {
        let renewed = |group: &Arc<Group>| {
            if names.contains(&group.name.as_str()) { Arc::new(group.renewed()) } else { group.clone() }
        };
        let groups: Vec<_> = self.groups.iter().map(renewed).collect();
        let now = |group: &Arc<Group>| {
            let same = groups.iter().find(|now| now.name == group.name);
            same.unwrap_or(group).clone()
        };
        let changed = self.doors.iter().map(|door| {
            let before = door.listener.load();
            let groups = before.groups.iter().map(now).collect();
            (door.clone(), Arc::new(Listener { groups, ..before.as_ref().clone() }))
        });
        let changed = changed.collect();
        Prepared { plan: Self { groups, doors: self.doors.clone() }, sockets: Vec::new(), changed }
    }
}

impl Prepared {
    /// From here on sessions go by it. What is left to do is the control thread's.
    pub fn take_into_use(self, shared: &Shared) -> Change {
        let Self { plan, sockets, changed } = self;
        let before = shared.plan.load_full();
        let stays = |gone: &Arc<Backend>| {
            plan.groups.iter().flat_map(|group| &group.backends).any(|kept| Arc::ptr_eq(kept, gone))
        };
        for backend in before.groups.iter().flat_map(|group| &group.backends).filter(|gone| !stays(gone)) {
            backend.set_draining(true);
        }
        for (_, pool) in before.groups.iter().flat_map(|group| group.pools()) {
            let stays =
                plan.groups.iter().flat_map(|group| group.pools()).any(|(_, kept)| Arc::ptr_eq(kept, pool));
            if !stays {
                pool.close();
            }
        }
        let change = Change { groups: plan.groups.clone(), sockets, doors: plan.doors.clone() };
        shared.plan.store(Arc::new(plan));
        for (door, listener) in changed {
            door.listener.store(listener);
        }
        shared.version.fetch_add(1, Ordering::Release);
        shared.handover.ring();
        change
    }
}

fn offered(ways: &[Way]) -> Capabilities {
    ways.iter().fold(Capabilities::default(), |all, way| {
        all | match way {
            Way::Zlib => Capabilities::COMPRESS,
            Way::Zstd => Capabilities::ZSTD,
        }
    })
}

fn open(
    config: &ListenerConfig,
    listener: Arc<Listener>,
    known: Vec<TcpListener>,
) -> Result<(Vec<TcpListener>, Arc<Door>), MeshError> {
    let bind = |source| MeshError::Bind { listener: config.name.clone(), address: config.bind, source };
    let (mut sockets, mut address) = (known, config.bind);
    if let Some(first) = sockets.first() {
        address = first.local_addr().map_err(bind)?;
    }
    let wanted = if config.reuse_port { config.weight as usize } else { 1 };
    while sockets.len() < wanted {
        let socket = if config.reuse_port { shared_port(address) } else { TcpListener::bind(address) };
        let socket = socket.map_err(bind)?;
        // Where the port was the system's to choose, the others are at the first one's.
        address = socket.local_addr().map_err(bind)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        socket.set_nonblocking(true).map_err(bind)?;
    }
    let door =
        Door { name: config.name.clone(), bind: config.bind, address, listener: ArcSwap::new(listener) };
    Ok((sockets, Arc::new(door)))
}

/// A socket at a port that others may have too, of this user.
fn shared_port(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
