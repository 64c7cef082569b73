//! What `tidemill mesh status` shows.

use crate::buffers;
use crate::config::{GroupKind, LoginMatchConfig, Role};
use crate::frames;
use crate::group::{Backend, Group};
use crate::memory::Memory;
use crate::pins::PinStatus;
use crate::pool::PoolStatus;
use crate::rules::RulesStatus;
use crate::shared::{Door, Shared};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// The mesh now. Keys may be added, never changed.
#[derive(Clone, Debug, Serialize)]
pub struct MeshStatus {
    pub listeners: Vec<ListenerStatus>,
    pub groups: Vec<GroupStatus>,
    pub sessions: usize,
    pub accepted: u64,
    pub refused: u64,
    pub moved: u64,
    pub broken: u64,
    /// Of buffers that are in use.
    pub buffer_bytes: usize,
    /// What counts for `limits.memory`, which is this.
    pub memory_bytes: usize,
    pub memory_bytes_max: usize,
    /// `low`; `high`: captures and mirrors shed; `full`: newcomers are turned away.
    pub pressure: &'static str,
    /// Bytes of compressed connections, as they passed, and what they held.
    pub compressed_bytes: u64,
    pub uncompressed_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    pub name: String,
    pub address: String,
    pub tls: bool,
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    pub name: String,
    pub kind: GroupKind,
    /// Servers that take writes now.
    pub writers: usize,
    /// Sessions that have logged in, how many there may be, and clients that were one too many of the group or of their user.
    pub sessions: usize,
    pub sessions_max: Option<usize>,
    pub limited: u64,
    /// Which clients it takes, where it says so.
    #[serde(rename = "match")]
    pub matches: Option<LoginMatchConfig>,
    /// Why sessions keep shared connections, with `pool`.
    pub pins: BTreeMap<&'static str, PinStatus>,
    pub backends: Vec<BackendStatus>,
    /// Rules, limits and the list of allowed statements, where there are any.
    pub rules: Option<RulesStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct BackendStatus {
    pub address: String,
    /// `up`, `ejected`, `draining` or `down`.
    pub state: &'static str,
    pub role: Role,
    pub version: Option<String>,
    /// Connections of sessions to it.
    pub connections: usize,
    /// Its shared connections, with `pool`.
    pub pool: Option<PoolStatus>,
    pub lag_ms: Option<u64>,
    /// Why it is down, or what its last probe met.
    pub error: Option<String>,
}

pub fn read(shared: &Shared) -> MeshStatus {
    let plan = shared.plan.load();
    let counters = &shared.counters;
    let (compressed_bytes, uncompressed_bytes) = frames::passed_bytes();
    MeshStatus {
        listeners: plan.doors.iter().map(|door| of_door(door)).collect(),
        groups: plan.groups.iter().map(|group| of_group(group)).collect(),
        sessions: counters.open.load(Ordering::Relaxed),
        accepted: counters.accepted.load(Ordering::Relaxed),
        refused: counters.refused.load(Ordering::Relaxed),
        moved: counters.moved.load(Ordering::Relaxed),
        broken: counters.broken.load(Ordering::Relaxed),
        buffer_bytes: buffers::leased_bytes(),
        memory_bytes: Memory::used(shared.counters.open.load(Ordering::Relaxed)),
        memory_bytes_max: shared.memory.bytes_max,
        pressure: shared.memory.pressure().name(),
        compressed_bytes,
        uncompressed_bytes,
    }
}

fn of_door(door: &Door) -> ListenerStatus {
    let listener = door.listener.load();
    ListenerStatus {
        name: door.name.clone(),
        address: door.address.to_string(),
        tls: listener.acceptor.is_some(),
        groups: listener.groups.iter().map(|group| group.name.clone()).collect(),
    }
}

fn of_group(group: &Group) -> GroupStatus {
    GroupStatus {
        name: group.name.clone(),
        kind: group.config.kind,
        writers: group.writers(),
        sessions: group.admissions.sessions(),
        sessions_max: group.config.sessions_max,
        limited: group.admissions.refused(),
        matches: group.config.matches.clone(),
        rules: group.rules.as_ref().map(|rules| rules.status()),
        pins: group.pins.status(),
        backends: group
            .pools()
            .map(|(backend, pool)| of_backend(backend, group.config.pool.map(|_| pool.status())))
            .collect(),
    }
}

fn of_backend(backend: &Backend, pool: Option<PoolStatus>) -> BackendStatus {
    let state = match (backend.is_up(), backend.is_draining()) {
        (false, _) => "down",
        (true, true) => "draining",
        (true, false) if backend.is_ejected() => "ejected",
        (true, false) => "up",
    };
    BackendStatus {
        address: backend.address.clone(),
        state,
        role: backend.role(),
        version: backend.profile().map(|profile| String::from_utf8_lossy(&profile.version).into_owned()),
        connections: backend.connections(),
        pool,
        lag_ms: backend.lag_ms(),
        error: backend.trouble(),
    }
}
