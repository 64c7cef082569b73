//! The thread that accepts clients and asks servers how they are, and that takes a new plan into use.

use crate::core::Core;
use crate::error::MeshError;
use crate::group::Group;
use crate::shared::{Door, Shared};
use crate::{buffers, monitor, wire};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// What a session counts for in the memory's limit before it has moved a byte.
const SESSION_BYTES: usize = 4 * 1024;
/// Plans that wait; each is applied within a moment.
const CHANGES_MAX: usize = 4;

/// A plan's part for this thread.
pub struct Change {
    pub groups: Vec<Arc<Group>>,
    pub sockets: Vec<(std::net::TcpListener, Arc<Door>)>,
    /// The doors that stay open, those of `sockets` among them.
    pub doors: Vec<Arc<Door>>,
}

/// The thread, and the way to it.
#[derive(Debug)]
pub struct Control {
    pub changes: mpsc::Sender<Change>,
    pub thread: JoinHandle<()>,
}

/// # Errors
/// When the system gives no thread, or the thread no event queue.
pub fn start(
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
    stop: watch::Receiver<bool>,
) -> Result<Control, MeshError> {
    let (changes, queue) = mpsc::channel(CHANGES_MAX);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MeshError::Thread)?;
    let thread = std::thread::Builder::new()
        .name("mesh-control".into())
        .spawn(move || runtime.block_on(run(queue, shared, cores, stop)))
        .map_err(MeshError::Thread)?;
    Ok(Control { changes, thread })
}

async fn run(
    mut queue: mpsc::Receiver<Change>,
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut monitors = JoinSet::new();
    let mut doors: HashMap<*const Door, AbortHandle> = HashMap::new();
    let mut accepting = JoinSet::new();
    loop {
        let change = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            change = queue.recv() => change,
        };
        let Some(change) = change else { break };
        doors.retain(|door, task| {
            let stays = change.doors.iter().any(|kept| Arc::as_ptr(kept) == *door);
            if !stays {
                task.abort();
            }
            stays
        });
        for (socket, door) in change.sockets {
            match TcpListener::from_std(socket) {
                Ok(socket) => {
                    let task = accept(socket, door.clone(), shared.clone(), cores.clone(), stop.clone());
                    doors.insert(Arc::as_ptr(&door), accepting.spawn(task));
                }
                Err(error) => tracing::error!(listener = door.name, %error, "failed to listen"),
            }
        }
        monitors.shutdown().await;
        for group in &change.groups {
            for backend in &group.backends {
                monitors.spawn(monitor::run(group.clone(), backend.clone(), stop.clone()));
            }
        }
    }
    accepting.shutdown().await;
    monitors.shutdown().await;
}

async fn accept(
    socket: TcpListener,
    door: Arc<Door>,
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
    mut stop: watch::Receiver<bool>,
) {
    /// After an error of accepting that lasts, as when no descriptor is left.
    const PAUSE: Duration = Duration::from_millis(20);
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted.and_then(|(stream, _)| {
            wire::prepare_socket(&stream)?;
            stream.into_std()
        }) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(listener = door.name, %error, "failed to accept a client");
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
        core.give(stream, door.listener.load_full()).await;
    }
}

/// The error that a full MySQL gives. A socket that would block is just closed.
fn turn_away(stream: std::net::TcpStream) {
    use std::io::Write;
    let packet = mysql::protocol::error_packet(0, 1040, b"08004", "Too many connections");
    let _ = (&stream).write_all(&packet);
}
