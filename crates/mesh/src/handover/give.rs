//! The side that lets go: its ports, then its sessions, each when it is between two commands.

use super::{Channel, HandoverError, Message, PROTOCOL, Parts, START_MAX, talk};
use crate::config::BackendConfig;
use crate::shared::Shared;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Sessions that wait to be sent; one more waits for its turn.
const PACKED_MAX: usize = 64;
/// How often it is looked whether all sessions are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From a session that was sent to the word that it was taken.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// From the last session to the word on how the new process fares; how often that is looked for.
const VERDICT_MAX: Duration = Duration::from_secs(120);
const VERDICT_LOOK: Duration = Duration::from_millis(500);

/// A session on its way.
pub struct Packed {
    pub parts: Box<Parts>,
    /// Of the client, then of each link.
    pub descriptors: Vec<OwnedFd>,
    /// Whether it goes on elsewhere. Dropped: it does not.
    pub taken: oneshot::Sender<bool>,
}

/// Words that are waited for, by session.
type Pending = Arc<Mutex<HashMap<u32, oneshot::Sender<bool>>>>;

/// Meets the new process and gives it the ports. Returns when it could serve.
///
/// # Errors
/// Whatever keeps it from that; nothing has changed here then.
pub fn introduce<'a>(
    channel: &Channel,
    sockets: impl Iterator<Item = (Message, BorrowedFd<'a>)>,
    up: Vec<String>,
    found: BTreeMap<String, Vec<BackendConfig>>,
) -> Result<String, HandoverError> {
    channel.set_patience(Some(START_MAX)).map_err(talk("open"))?;
    let version = match channel.receive().map_err(talk("hello"))?.0 {
        Message::Hello { protocol: PROTOCOL, version } => version,
        Message::Hello { protocol, .. } => return Err(HandoverError::Protocol { theirs: protocol }),
        Message::Failed { reason } => return Err(HandoverError::Failed { reason }),
        other => return Err(HandoverError::unexpected(&other)),
    };
    for (message, descriptor) in sockets {
        channel.send(&message, &[descriptor]).map_err(talk("ports"))?;
    }
    channel.send(&Message::Sockets { up, found }, &[]).map_err(talk("ports"))?;
    match channel.receive().map_err(talk("readiness"))?.0 {
        Message::Ready => Ok(version),
        Message::Failed { reason } => Err(HandoverError::Failed { reason }),
        other => Err(HandoverError::unexpected(&other)),
    }
}

/// Sends every session that can move, until none is left or `until`; how many are left.
///
/// # Errors
/// When the other side is lost. `lost` is called before any session that it has not taken goes on here: it must be sure
/// then that the other process does not go on with them.
pub fn sessions(
    shared: &Shared,
    channel: &Channel,
    until: Instant,
    lost: impl FnOnce(),
) -> Result<usize, HandoverError> {
    let (sender, mut queue) = mpsc::channel(PACKED_MAX);
    let pending = Pending::default();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (channel, pending, done) =
            (channel.again().map_err(talk("open"))?, pending.clone(), done.clone());
        channel.set_patience(Some(VERDICT_LOOK)).map_err(talk("open"))?;
        std::thread::Builder::new()
            .name("mesh-handover".into())
            .spawn(move || hear(&channel, &pending, &done))
            .map_err(talk("start a thread"))?
    };
    shared.handover.begin(sender);
    let result = send_all(shared, channel, &mut queue, &pending, until, &reader);
    shared.handover.end();
    // Those that had packed already, and were not sent.
    queue.close();
    while queue.try_recv().is_ok() {}
    let result = result.and_then(|()| settle(&pending, &reader)).and_then(|()| {
        let left = shared.counters.open.load(Ordering::Relaxed);
        channel.send(&Message::Done { left }, &[]).map_err(talk("end"))?;
        done.store(true, Ordering::Relaxed);
        Ok(left)
    });
    if result.is_err() {
        lost();
        // The reader ends with the connection.
        let _ = channel.close();
    }
    let heard = reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let left = result?;
    match heard.map_err(talk("verdict"))? {
        Message::Well => Ok(left),
        Message::Back { reason } => Err(HandoverError::Back { reason }),
        other => Err(HandoverError::unexpected(&other)),
    }
}

fn send_all<T>(
    shared: &Shared,
    channel: &Channel,
    queue: &mut mpsc::Receiver<Packed>,
    pending: &Pending,
    until: Instant,
    reader: &std::thread::JoinHandle<T>,
) -> Result<(), HandoverError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(talk("start a thread"))?;
    // Who has not even logged in yet counts as open, and moves when it has.
    while shared.counters.open.load(Ordering::Relaxed) > shared.handover.staying() && Instant::now() < until {
        if reader.is_finished() {
            return Err(talk("sessions")(io::ErrorKind::UnexpectedEof.into()));
        }
        // Sessions that were in the midst of something when the bell rang hear it later, by themselves.
        let Ok(Some(packed)) =
            runtime.block_on(async { tokio::time::timeout(LOOK_EVERY, queue.recv()).await })
        else {
            continue;
        };
        let Packed { parts, descriptors, taken } = packed;
        let id = parts.id;
        pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, taken);
        let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        match channel.send(&Message::Session(parts), &borrowed) {
            Ok(()) => {}
            // Nothing of it was sent.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
            Err(error) => return Err(talk("sessions")(error)),
        }
    }
    Ok(())
}

/// Waits for the word on what was sent.
fn settle<T>(pending: &Pending, reader: &std::thread::JoinHandle<T>) -> Result<(), HandoverError> {
    let until = Instant::now() + TAKE_MAX;
    loop {
        if pending.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        if reader.is_finished() || Instant::now() >= until {
            return Err(talk("sessions")(io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tells sessions how they fared, until the other side says how it fares itself.
fn hear(channel: &Channel, pending: &Pending, done: &AtomicBool) -> io::Result<Message> {
    let mut waited = Duration::ZERO;
    loop {
        let message = match channel.receive() {
            Ok((message, _)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && waited < VERDICT_MAX => {
                if done.load(Ordering::Relaxed) {
                    waited += VERDICT_LOOK;
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        match message {
            Message::Took { id, taken } => {
                let sender = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(sender) = sender {
                    let _ = sender.send(taken);
                }
            }
            other => return Ok(other),
        }
    }
}
