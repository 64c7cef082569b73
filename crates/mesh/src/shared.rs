//! What every thread of the mesh sees.

use crate::capture::Capture;
use crate::config::Fallback;
use crate::digests::Digests;
use crate::group::Group;
use crate::handover::Moving;
use crate::memory::Memory;
use crate::network::Network;
use crate::plan::Plan;
use crate::session::Connections;
use crate::slow::SlowList;
use crate::tls::Acceptor;
use arc_swap::ArcSwap;
use mysql::protocol::Capabilities;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// An open port. Who comes in there may change while it is open.
#[derive(Debug)]
pub struct Door {
    pub name: String,
    /// As configured.
    pub bind: SocketAddr,
    /// As it is.
    pub address: SocketAddr,
    pub listener: ArcSwap<Listener>,
}

/// Who comes in at a port.
#[derive(Clone, Debug)]
pub struct Listener {
    /// At least one.
    pub groups: Vec<Arc<Group>>,
    pub acceptor: Option<Acceptor>,
    /// Who serves whom none of them names.
    pub fallback: Fallback,
    pub tls_required: bool,
    /// Who connects from there says by a PROXY header for whom.
    pub proxies: Vec<Network>,
    /// `COMPRESS` and `ZSTD`, as far as they are offered.
    pub compression: Capabilities,
}

/// Counters of the whole mesh; each thread adds to them once per session, or once per command where it says so.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    /// Turned away: wrong password, no server, too many, garbage.
    pub refused: AtomicU64,
    pub open: AtomicUsize,
    /// Idle sessions whose server went away and which went on with another.
    pub moved: AtomicU64,
    /// Sessions in the midst of one; each counts when one begins and when it ends.
    pub transactions: AtomicUsize,
    /// Sessions that ended because their server did.
    pub broken: AtomicU64,
}

/// The mesh.
#[derive(Debug)]
pub struct Shared {
    pub plan: ArcSwap<Plan>,
    /// Held by who makes another plan.
    pub reloading: Mutex<()>,
    /// Of the plan: a session that has seen another one looks at it again.
    pub version: AtomicU64,
    pub counters: Counters,
    /// For `KILL`.
    pub connections: Connections,
    /// Absent where nobody wants them.
    pub digests: Option<Digests>,
    pub slow: SlowList,
    pub capture: Capture,
    pub sessions_max: usize,
    pub memory: Memory,
    /// No session begins anything new.
    pub closing: AtomicBool,
    /// Whether another process takes over.
    pub handover: Moving,
    ids: AtomicU32,
}

/// Numbers of sessions begin here, so that nobody takes one for a server's number of a connection. They stay below twice as
/// much: Java's drivers keep them in 32 bits with a sign, and would kill a number below zero.
const FIRST_ID: u32 = 0x4000_0000;

impl Shared {
    pub fn new(
        digests: Option<Digests>,
        slow: SlowList,
        capture: Capture,
        sessions_max: usize,
        memory: Memory,
    ) -> Self {
        Self {
            plan: ArcSwap::default(),
            reloading: Mutex::new(()),
            version: AtomicU64::new(0),
            digests,
            slow,
            capture,
            counters: Counters::default(),
            connections: Connections::default(),
            sessions_max,
            memory,
            closing: AtomicBool::new(false),
            handover: Moving::default(),
            ids: AtomicU32::new(0),
        }
    }

    /// The group as it is by now.
    pub fn newest(&self, group: &Arc<Group>) -> Arc<Group> {
        self.plan.load().group(&group.name).unwrap_or(group).clone()
    }

    /// The version of the plan that a group is of; an older one where a login took so long that there is a newer group.
    pub fn version_of(&self, group: &Arc<Group>) -> u64 {
        let version = self.version.load(Ordering::Acquire);
        let is_newest = self.plan.load().group(&group.name).is_some_and(|newest| Arc::ptr_eq(newest, group));
        if is_newest { version } else { version.wrapping_sub(1) }
    }

    /// Whether what a client sends may take so much more. Who asks for little may be let have it, and is counted.
    pub fn has_memory_for(&self, bytes: usize) -> bool {
        self.memory.has_room_for(bytes, self.counters.open.load(Ordering::Relaxed))
    }

    /// A number that no live session has: they come round after a thousand million.
    pub fn next_id(&self) -> u32 {
        FIRST_ID | (self.ids.fetch_add(1, Ordering::Relaxed) % FIRST_ID)
    }

    /// A number that none is above yet, given here or by another process.
    pub fn ids(&self) -> u32 {
        self.ids.load(Ordering::Relaxed)
    }

    /// Numbers begin behind those that another process has given.
    pub fn skip_ids(&self, given: u32) {
        self.ids.fetch_max(given, Ordering::Relaxed);
    }
}
