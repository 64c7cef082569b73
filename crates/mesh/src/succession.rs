//! The two sides of an upgrade, each from its own mesh's point of view.

use crate::Mesh;
use crate::control::{OpenDoor, Order};
use crate::discovery;
use crate::group::Group;
use crate::handover::{Channel, HandoverError, MESH_PORT, Message, Successor, give, take, talk};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A new process hears from its servers within this, or does not start.
const SERVERS_MAX: Duration = Duration::from_secs(10);
const SERVERS_LOOK: Duration = Duration::from_millis(20);
/// Sessions that lose their server, or clients that are turned away, within that time: so many, and so many in a hundred
/// of those that were there, are no accident.
const TROUBLES_MAX: u64 = 3;
const TROUBLES_PERCENT_MAX: u64 = 5;

/// How the old process's side ended.
#[derive(Debug)]
pub struct HandedOver {
    /// What the new one calls itself.
    pub version: String,
    /// Sessions that moved, and those that could not: they are within TLS.
    pub moved: usize,
    pub left: usize,
}

impl Mesh {
    /// Gives the ports and the sessions to the process at the other end of `socket`, and waits until it is well with them.
    /// `others` are ports beside the mesh's own, each with a word that says what it is. `until`: sessions in the midst of a
    /// command move when it has ended, and stay here if that is later. Blocks.
    ///
    /// # Errors
    /// When the other process does not start, is lost, or gives everything back: then this mesh serves on. `lost` is called
    /// before it does, to make sure that the other process is gone.
    pub fn hand_over(
        &self,
        socket: UnixStream,
        others: &[(&str, SocketAddr, BorrowedFd<'_>)],
        until: Instant,
        lost: &dyn Fn(),
    ) -> Result<HandedOver, HandoverError> {
        let channel = Channel::new(socket).map_err(talk("open"))?;
        let doors = self.doors()?;
        let own = doors.iter().map(|(door, socket)| {
            let message =
                Message::Socket { kind: MESH_PORT.into(), name: door.name.clone(), bind: door.bind };
            (message, socket.as_fd())
        });
        let others = others.iter().map(|(kind, bind, descriptor)| {
            (Message::Socket { kind: (*kind).into(), name: String::new(), bind: *bind }, *descriptor)
        });
        let plan = self.shared.plan.load_full();
        let up = plan.groups.iter().filter(|group| serves(group)).map(|group| group.name.clone()).collect();
        let found = discovery::found(&plan);
        let version = give::introduce(&channel, own.chain(others), up, found).inspect_err(|_| lost())?;
        let result = self.give_all(&channel, until, lost);
        match result {
            Ok((moved, left)) => Ok(HandedOver { version, moved, left }),
            Err(error) => {
                if matches!(error, HandoverError::Back { .. }) {
                    // What comes back is served like what never went.
                    let back = take::sessions(&self.cores, &channel)
                        .and_then(|_| channel.send(&Message::Well, &[]).map_err(talk("verdict")));
                    if let Err(error) = back {
                        tracing::error!(%error, "not every session came back");
                    }
                }
                lost();
                self.accept(true)?;
                Err(error)
            }
        }
    }

    fn give_all(
        &self,
        channel: &Channel,
        until: Instant,
        lost: &dyn Fn(),
    ) -> Result<(usize, usize), HandoverError> {
        self.accept(false)?;
        let plan = self.shared.plan.load();
        let writes =
            plan.groups.iter().map(|group| (group.name.clone(), group.writes.load(Ordering::Relaxed)));
        let message = Message::Accept {
            ids: self.shared.ids().saturating_add(IDS_BETWEEN),
            writes: writes.collect(),
            captures: self.shared.capture.is_on(),
        };
        channel.send(&message, &[]).map_err(talk("ports"))?;
        match channel.receive().map_err(talk("ports"))?.0 {
            Message::Accepting => {}
            other => return Err(HandoverError::unexpected(&other)),
        }
        let before = self.shared.counters.open.load(Ordering::Relaxed);
        let left = give::sessions(&self.shared, channel, until, lost)?;
        Ok((before.saturating_sub(left), left))
    }

    /// Takes the old process's place: tells it when this mesh could serve, accepts clients, takes sessions, and watches for a
    /// while how they fare. Blocks. How many sessions came.
    ///
    /// # Errors
    /// When no server answers, when the old process is lost before it let go of its ports, or when too much went wrong
    /// afterwards: then everything has been given back. This process should end.
    pub fn succeed(&self, successor: &Successor) -> Result<usize, HandoverError> {
        let channel = &successor.channel;
        discovery::recall(&self.shared.plan.load(), &successor.found);
        if let Some(change) = discovery::adopt(&self.shared) {
            self.order(Order::Take(change))?;
        }
        self.hear_servers(&successor.up).inspect_err(|error| successor.fail(&error.to_string()))?;
        channel.send(&Message::Ready, &[]).map_err(talk("readiness"))?;
        match channel.receive().map_err(talk("ports"))?.0 {
            Message::Accept { ids, writes, captures } => {
                self.shared.skip_ids(ids);
                if captures && let Err(error) = self.shared.capture.start() {
                    tracing::error!(%error, "the capture of statements does not go on here");
                }
                for group in &self.shared.plan.load().groups {
                    let before = writes.get(&group.name).copied().unwrap_or_default();
                    // One more than any session can have seen, so that each asks its replica once more.
                    group.writes.fetch_max(before.saturating_add(1), Ordering::Relaxed);
                }
            }
            other => return Err(HandoverError::unexpected(&other)),
        }
        self.accept(true)?;
        channel.send(&Message::Accepting, &[]).map_err(talk("ports"))?;
        let began = self.troubles();
        // An old process that is killed meanwhile takes nothing along of what is here.
        if let Err(error) = take::sessions(&self.cores, channel) {
            tracing::warn!(%error, "the old process ended before it had given everything");
            return Ok(self.shared.counters.open.load(Ordering::Relaxed));
        }
        let sessions = self.shared.counters.open.load(Ordering::Relaxed);
        let Err(reason) = self.watch(began, sessions, successor.watch) else {
            if let Err(error) = channel.send(&Message::Well, &[]) {
                tracing::warn!(%error, "the old process ended before it heard that all is well");
            }
            return Ok(sessions);
        };
        self.accept(false)?;
        channel.send(&Message::Back { reason: reason.clone() }, &[]).map_err(talk("verdict"))?;
        give::sessions(&self.shared, channel, Instant::now() + SERVERS_MAX, || {})?;
        Err(HandoverError::Back { reason })
    }

    fn troubles(&self) -> u64 {
        let counters = &self.shared.counters;
        counters.broken.load(Ordering::Relaxed) + counters.refused.load(Ordering::Relaxed)
    }

    /// # Errors
    /// What went wrong too often.
    fn watch(&self, before: u64, sessions: usize, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            let troubles = self.troubles() - before;
            let of = (sessions as u64).max(self.shared.counters.accepted.load(Ordering::Relaxed));
            if troubles > TROUBLES_MAX && troubles * 100 > of * TROUBLES_PERCENT_MAX {
                return Err(format!("{troubles} of {of} sessions lost their server or were turned away"));
            }
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(SERVERS_LOOK);
        }
    }

    /// Waits until a server of each of these groups has answered.
    fn hear_servers(&self, groups: &[String]) -> Result<(), HandoverError> {
        let until = Instant::now() + SERVERS_MAX;
        loop {
            let plan = self.shared.plan.load();
            let silent = plan.groups.iter().find(|group| groups.contains(&group.name) && !serves(group));
            let Some(silent) = silent else { return Ok(()) };
            if Instant::now() >= until {
                let troubles = silent.backends.iter().filter_map(|backend| backend.trouble());
                let reason = troubles.collect::<Vec<_>>().join("; ");
                return Err(HandoverError::Failed {
                    reason: format!("no server of group `{}` answers it: {reason}", silent.name),
                });
            }
            std::thread::sleep(SERVERS_LOOK);
        }
    }

    fn doors(&self) -> Result<Vec<OpenDoor>, HandoverError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Doors(reply))?;
        answer.blocking_recv().map_err(|_| HandoverError::Stopped)
    }

    /// Accepts clients, or lets them wait.
    fn accept(&self, accepts: bool) -> Result<(), HandoverError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Accept(accepts, reply))?;
        answer.blocking_recv().map_err(|_| HandoverError::Stopped)
    }

    fn order(&self, order: Order) -> Result<(), HandoverError> {
        let control = self.control.as_ref().ok_or(HandoverError::Stopped)?;
        control.orders.blocking_send(order).map_err(|_| HandoverError::Stopped)
    }
}

/// Whether a session that comes finds its servers. A member of a group is for nothing before it has told, and sessions
/// would leave it.
fn serves(group: &Group) -> bool {
    group.profile().is_some() && (!group.config.topology.finds() || group.writers() > 0)
}

/// Logins that are under way while the new process begins to give numbers are given at most so many.
const IDS_BETWEEN: u32 = 65_536;
