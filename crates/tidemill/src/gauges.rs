//! What is true at the moment that somebody reads `/metrics`: a flow that stands still cannot tell how old its lag has grown.

use crate::start::Node;
use flow::subscribe::hub::Hub;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sets every gauge that is a look at the node, and not the doing of a capture or a flow.
pub fn look(node: &Node) {
    let flag = |is: bool| f64::from(u8::from(is));
    for (name, source) in node.sources.iter() {
        let (status, label) = (source.status.get(), [("source", name.clone())]);
        metrics::gauge!(base::metrics::CAPTURE_FAILED, &label).set(flag(status.state == "failed"));
        metrics::gauge!(base::metrics::CAPTURE_INTERRUPTED, &label).set(flag(status.error.is_some()));
        let Some(open) = &source.open else { continue };
        if let Some(mirror) = &open.mirror {
            let status = mirror.status(open.journal.sealed().lsn);
            metrics::gauge!(base::metrics::MIRROR_LAG, &label).set(status.lag_changes as f64);
            metrics::gauge!(base::metrics::MIRROR_ROWS, &label).set(status.rows as f64);
            metrics::gauge!(base::metrics::MIRROR_BYTES, &label).set(status.bytes as f64);
            metrics::gauge!(base::metrics::MIRROR_FAILED, &label).set(flag(status.state == "failed"));
            look_at_subscriptions(node, name, &open.hub);
        }
    }
    for flow in node.flows.values() {
        let end =
            node.sources[&flow.from].open.as_ref().map(|open| open.journal.sealed()).unwrap_or_default();
        let (status, labels) = (flow.status.against(end), flow.status.labels());
        metrics::gauge!(base::metrics::DELIVERY_LAG, &labels).set(status.lag_changes as f64);
        metrics::gauge!(base::metrics::DELIVERY_LAG_SECONDS, &labels).set(status.lag_ms as f64 / 1e3);
        metrics::gauge!(base::metrics::DELIVERY_FAILED, &labels).set(flag(status.state == "failed"));
        metrics::gauge!(base::metrics::DELIVERY_INTERRUPTED, &labels).set(flag(status.error.is_some()));
        metrics::gauge!(base::metrics::DELIVERY_PAUSED, &labels).set(flag(status.state == "paused"));
    }
    if let Some(mesh) = &node.mesh {
        look_at_mesh(&mesh.status());
        for mirror in mesh.mirrors() {
            let labels = [("group", mirror.group)];
            metrics::counter!(base::metrics::MESH_MIRRORED, &labels).absolute(mirror.compared);
            metrics::counter!(base::metrics::MESH_MIRROR_DIFFERENCES, &labels).absolute(mirror.differences);
            metrics::counter!(base::metrics::MESH_MIRROR_SHED, &labels).absolute(mirror.shed);
            metrics::counter!(base::metrics::MESH_MIRROR_LOST, &labels)
                .absolute(mirror.lost + mirror.unreachable);
        }
        let capture = mesh.capture();
        metrics::gauge!(base::metrics::MESH_CAPTURING).set(f64::from(u8::from(capture.running)));
        metrics::counter!(base::metrics::MESH_CAPTURED).absolute(capture.captured);
        metrics::counter!(base::metrics::MESH_CAPTURED_BYTES).absolute(capture.bytes);
        metrics::counter!(base::metrics::MESH_SHED).absolute(capture.shed);
    }
    if let Some(bytes) = memory_bytes() {
        metrics::gauge!(base::metrics::NODE_MEMORY).set(bytes as f64);
    }
    if let Some(bytes) = disk_free_bytes(&node.data_dir) {
        metrics::gauge!(base::metrics::NODE_DISK_FREE).set(bytes as f64);
    }
}

fn look_at_subscriptions(node: &Node, source: &str, hub: &Arc<Hub>) {
    let label = [("source", source.to_owned())];
    let (clients, stats) = (node.subscriptions.clients(hub), &hub.stats);
    metrics::gauge!(base::metrics::SUBSCRIBERS, &label).set(clients.open as f64);
    metrics::gauge!(base::metrics::SUBSCRIBERS_CATCHING_UP, &label).set(clients.catching_up as f64);
    metrics::gauge!(base::metrics::SUBSCRIBER_LAG, &label).set(clients.lag_changes as f64);
    let (shapes, kept, ring_bytes, window_bytes) = hub.shapes();
    metrics::gauge!(base::metrics::SHAPES, &label).set(shapes as f64);
    metrics::gauge!(base::metrics::SHAPES_KEPT, &label).set(kept as f64);
    metrics::gauge!(base::metrics::RING_BYTES, &label).set(ring_bytes as f64);
    metrics::gauge!(base::metrics::WINDOW_BYTES, &label).set(window_bytes as f64);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    metrics::counter!(base::metrics::SUBSCRIBED_CHANGES, &label).absolute(count(&stats.delivered));
    metrics::counter!(base::metrics::WINDOW_REFILLS, &label).absolute(count(&stats.refills));
    metrics::counter!(base::metrics::SUBSCRIBERS_SLOW, &label).absolute(count(&stats.gave_up));
    for (reason, resets) in stats.resets() {
        let labels = [("source", source.to_owned()), ("reason", reason.to_owned())];
        metrics::counter!(base::metrics::SUBSCRIPTION_RESETS, &labels).absolute(resets);
    }
}

fn look_at_mesh(status: &mesh::MeshStatus) {
    let flag = |is: bool| f64::from(u8::from(is));
    metrics::gauge!(base::metrics::MESH_SESSIONS).set(status.sessions as f64);
    metrics::counter!(base::metrics::MESH_ACCEPTED).absolute(status.accepted);
    metrics::counter!(base::metrics::MESH_REFUSED).absolute(status.refused);
    metrics::counter!(base::metrics::MESH_MOVED).absolute(status.moved);
    metrics::counter!(base::metrics::MESH_BROKEN).absolute(status.broken);
    metrics::gauge!(base::metrics::MESH_BUFFERS).set(status.buffer_bytes as f64);
    metrics::gauge!(base::metrics::MESH_MEMORY).set(status.memory_bytes as f64);
    metrics::gauge!(base::metrics::MESH_MEMORY_MAX).set(status.memory_bytes_max as f64);
    metrics::counter!(base::metrics::MESH_COMPRESSED).absolute(status.compressed_bytes);
    metrics::counter!(base::metrics::MESH_UNCOMPRESSED).absolute(status.uncompressed_bytes);
    for group in &status.groups {
        let labels = [("group", group.name.clone())];
        metrics::gauge!(base::metrics::MESH_GROUP_SESSIONS, &labels).set(group.sessions as f64);
        metrics::counter!(base::metrics::MESH_LIMITED, &labels).absolute(group.limited);
        for (rule, action, hits) in group.rules.iter().flat_map(mesh::RulesStatus::hits) {
            let labels =
                [("group", group.name.clone()), ("rule", rule.to_owned()), ("action", action.to_owned())];
            metrics::counter!(base::metrics::MESH_RULE_HITS, &labels).absolute(hits);
        }
        for (reason, pin) in &group.pins {
            let labels = [("group", group.name.clone()), ("reason", (*reason).to_owned())];
            metrics::counter!(base::metrics::MESH_PINS, &labels).absolute(pin.total);
            metrics::gauge!(base::metrics::MESH_PINNED, &labels).set(pin.now as f64);
        }
        for backend in &group.backends {
            let labels = [("group", group.name.clone()), ("backend", backend.address.clone())];
            metrics::gauge!(base::metrics::MESH_BACKEND_UP, &labels).set(flag(backend.state != "down"));
            metrics::gauge!(base::metrics::MESH_BACKEND_WRITER, &labels)
                .set(flag(backend.role == mesh::Role::Writer));
            metrics::gauge!(base::metrics::MESH_BACKEND_CONNECTIONS, &labels).set(backend.connections as f64);
            if let Some(pool) = &backend.pool {
                metrics::gauge!(base::metrics::MESH_POOL_OPEN, &labels).set(pool.open as f64);
                metrics::gauge!(base::metrics::MESH_POOL_IDLE, &labels).set(pool.idle as f64);
                metrics::gauge!(base::metrics::MESH_POOL_WAITING, &labels).set(pool.waiting as f64);
                metrics::counter!(base::metrics::MESH_POOL_TIMEOUTS, &labels).absolute(pool.timeouts);
            }
        }
    }
}

/// `VmRSS` of this process; `None` where the system has no `/proc`.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn disk_free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the answer has room for what the call writes.
    let told = unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) };
    // SAFETY: the call succeeded, so it wrote the answer.
    let answer = (told == 0).then(|| unsafe { answer.assume_init() })?;
    Some(answer.f_bavail * answer.f_frsize)
}
