//! The thread that accepts clients and asks servers how they are, and that takes a new plan into use.

use crate::config::Topology;
use crate::core::Core;
use crate::error::MeshError;
use crate::group::Group;
use crate::shared::{Door, Shared};
use crate::{discovery, monitor, wire};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Orders that wait; each is carried out within a moment.
const ORDERS_MAX: usize = 4;

/// How often free connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// A plan's part for this thread.
pub struct Change {
    pub groups: Vec<Arc<Group>>,
    pub sockets: Vec<(std::net::TcpListener, Arc<Door>)>,
    /// The doors that stay open, those of `sockets` among them.
    pub doors: Vec<Arc<Door>>,
}

/// A door and its port.
pub type OpenDoor = (Arc<Door>, Arc<TcpListener>);

/// What the thread is told.
pub enum Order {
    Take(Change),
    /// The ports, for another process.
    Doors(oneshot::Sender<Vec<OpenDoor>>),
    /// Accept clients, or let them wait in the ports' queues. Answered when it is so.
    Accept(bool, oneshot::Sender<()>),
}

/// The thread, and the way to it.
#[derive(Debug)]
pub struct Control {
    pub orders: mpsc::Sender<Order>,
    pub thread: JoinHandle<()>,
}

/// `accepts`: from the beginning, and not only when it is ordered to.
///
/// # Errors
/// When the system gives no thread, or the thread no event queue.
pub fn start(
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
    stop: watch::Receiver<bool>,
    accepts: bool,
) -> Result<Control, MeshError> {
    let (orders, queue) = mpsc::channel(ORDERS_MAX);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MeshError::Thread)?;
    let thread = std::thread::Builder::new()
        .name("mesh-control".into())
        .spawn(move || runtime.block_on(run(queue, shared, cores, stop, accepts)))
        .map_err(MeshError::Thread)?;
    Ok(Control { orders, thread })
}

/// An open port, and who accepts there.
struct Port {
    door: Arc<Door>,
    socket: Arc<TcpListener>,
    task: Option<AbortHandle>,
}

async fn run(
    mut queue: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
    mut stop: watch::Receiver<bool>,
    mut accepts: bool,
) {
    let mut monitors = JoinSet::new();
    let mut ports: Vec<Port> = Vec::new();
    let mut accepting = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A task that accepts ends by this, not in the midst of handing a client on.
    let (mut pause, _) = watch::channel(false);
    let stopped = stop.clone();
    let open = |accepting: &mut JoinSet<()>, port: &mut Port, pause: &watch::Sender<bool>| {
        let acceptor = Acceptor {
            socket: port.socket.clone(),
            door: port.door.clone(),
            shared: shared.clone(),
            cores: cores.clone(),
        };
        port.task = Some(accepting.spawn(acceptor.run(stopped.clone(), pause.subscribe())));
    };
    loop {
        let order = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            order = queue.recv() => order,
            _ = sweep.tick() => {
                shared.memory.look(shared.counters.open.load(Ordering::Relaxed));
                for (_, pool) in shared.plan.load().groups.iter().flat_map(|group| group.pools()) {
                    pool.sweep();
                }
                match discovery::adopt(&shared) {
                    Some(change) => Some(Order::Take(change)),
                    None => continue,
                }
            }
        };
        match order {
            None => break,
            Some(Order::Doors(reply)) => {
                let doors = ports.iter().map(|port| (port.door.clone(), port.socket.clone()));
                let _ = reply.send(doors.collect());
            }
            Some(Order::Accept(wanted, reply)) => {
                if wanted && !accepts {
                    ports.iter_mut().for_each(|port| open(&mut accepting, port, &pause));
                } else if !wanted && accepts {
                    let _ = pause.send(true);
                    while accepting.join_next().await.is_some() {}
                    (pause, _) = watch::channel(false);
                }
                accepts = wanted;
                let _ = reply.send(());
            }
            Some(Order::Take(change)) => {
                ports.retain(|port| {
                    let stays = change.doors.iter().any(|kept| Arc::ptr_eq(kept, &port.door));
                    if let (false, Some(task)) = (stays, &port.task) {
                        task.abort();
                    }
                    stays
                });
                for (socket, door) in change.sockets {
                    match TcpListener::from_std(socket) {
                        Ok(socket) => {
                            let mut port = Port { door, socket: Arc::new(socket), task: None };
                            if accepts {
                                open(&mut accepting, &mut port, &pause);
                            }
                            ports.push(port);
                        }
                        Err(error) => tracing::error!(listener = door.name, %error, "failed to listen"),
                    }
                }
                monitors.shutdown().await;
                for group in &change.groups {
                    if group.config.topology == Topology::Pd {
                        monitors.spawn(discovery::pd::run(group.clone(), stop.clone()));
                    }
                    for backend in &group.backends {
                        let watching =
                            monitor::run(shared.clone(), group.clone(), backend.clone(), stop.clone());
                        monitors.spawn(watching);
                    }
                }
            }
        }
    }
    accepting.shutdown().await;
    monitors.shutdown().await;
}

struct Acceptor {
    socket: Arc<TcpListener>,
    door: Arc<Door>,
    shared: Arc<Shared>,
    cores: Arc<Vec<Core>>,
}

impl Acceptor {
    async fn run(self, mut stop: watch::Receiver<bool>, mut pause: watch::Receiver<bool>) {
        /// After an error of accepting that lasts, as when no descriptor is left.
        const PAUSE: Duration = Duration::from_millis(20);
        let Self { socket, door, shared, cores } = self;
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = pause.wait_for(|pause| *pause) => return,
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
            if open >= shared.sessions_max || !shared.memory.has_room(open) {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                turn_away(stream);
                continue;
            }
            counters.open.fetch_add(1, Ordering::Relaxed);
            let Some(core) = cores.iter().min_by_key(|core| core.sessions()) else { return };
            core.give(stream, door.listener.load_full()).await;
        }
    }
}

/// The error that a full MySQL gives. A socket that would block is just closed.
fn turn_away(stream: std::net::TcpStream) {
    use std::io::Write;
    let packet = mysql::protocol::error_packet(0, 1040, b"08004", "Too many connections");
    let _ = (&stream).write_all(&packet);
}
