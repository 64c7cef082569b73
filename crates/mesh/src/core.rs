//! The threads that carry sessions. A session, with both its sockets, stays on the one it was given to.

use crate::error::{MeshError, SessionError};
use crate::handover::Parts;
use crate::session::{self, Newcomer, Session};
use crate::shared::{Listener, Shared};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// Accepted sockets that wait for a thread; a full queue holds the acceptor back, and then the kernel's own queue.
const NEWCOMERS_MAX: usize = 256;

/// What is on its way to a thread.
enum Handed {
    /// A socket that has just been accepted.
    Newcomer { stream: std::net::TcpStream, listener: Arc<Listener> },
    /// A session of another process.
    Session { parts: Box<Parts>, descriptors: Vec<OwnedFd>, taken: oneshot::Sender<bool> },
}

/// One thread.
#[derive(Debug)]
pub struct Core {
    newcomers: mpsc::Sender<Handed>,
    sessions: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Core {
    /// # Errors
    /// When the system gives no thread, or the thread no event queue.
    pub fn start(index: usize, threads: usize, shared: Arc<Shared>) -> Result<Self, MeshError> {
        let (newcomers, queue) = mpsc::channel(NEWCOMERS_MAX);
        let sessions = Arc::new(AtomicUsize::new(0));
        let counted = sessions.clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MeshError::Thread)?;
        let thread = std::thread::Builder::new()
            .name(format!("mesh-{index}"))
            .spawn(move || {
                runtime.block_on(async {
                    // What it makes ends with the thread.
                    tokio::spawn(crate::warm::run(Arc::downgrade(&shared), index, threads));
                    carry(queue, shared, counted, index).await;
                });
            })
            .map_err(MeshError::Thread)?;
        Ok(Self { newcomers, sessions, thread })
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Gives a socket to this thread; waits while its queue is full.
    pub async fn give(&self, stream: std::net::TcpStream, listener: Arc<Listener>) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        // The thread ends only when the mesh does.
        let _ = self.newcomers.send(Handed::Newcomer { stream, listener }).await;
    }

    /// Gives another process's session to this thread, which says whether it goes on here. Blocks while its queue is full.
    pub fn give_session(&self, parts: Box<Parts>, descriptors: Vec<OwnedFd>, taken: oneshot::Sender<bool>) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let _ = self.newcomers.blocking_send(Handed::Session { parts, descriptors, taken });
    }

    /// Lets the thread end its sessions and waits for it.
    pub fn stop(self) {
        drop(self.newcomers);
        let _ = self.thread.join();
    }
}

async fn carry(
    mut queue: mpsc::Receiver<Handed>,
    shared: Arc<Shared>,
    sessions: Arc<AtomicUsize>,
    thread: usize,
) {
    while let Some(handed) = queue.recv().await {
        let place = Place { shared: shared.clone(), sessions: sessions.clone() };
        match handed {
            Handed::Newcomer { stream, listener } => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let result = match TcpStream::from_std(stream) {
                        Ok(stream) => one(Newcomer { stream, listener, shared, thread }).await,
                        Err(error) => Err(SessionError::Client(error)),
                    };
                    ended(result);
                });
            }
            Handed::Session { parts, descriptors, taken } => {
                shared.counters.open.fetch_add(1, Ordering::Relaxed);
                let session = Session::unpack(*parts, descriptors, &shared, thread).map(Box::new);
                if let Err(error) = &session {
                    tracing::warn!(%error, "a session of the old process cannot go on here");
                }
                let goes_on = taken.send(session.is_ok()).is_ok();
                if let Ok(session) = session
                    && goes_on
                {
                    tokio::spawn(async move {
                        let _place = place;
                        ended(session.serve().await);
                    });
                }
            }
        }
    }
}

fn ended(result: Result<(), SessionError>) {
    if let Err(error) = result {
        tracing::debug!(reason = error.reason(), error = crate::monitor::causes(&error), "a session ended");
    }
}

/// A session's place among those that are counted; given back also by one that panics.
struct Place {
    shared: Arc<Shared>,
    sessions: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.shared.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn one(newcomer: Newcomer) -> Result<(), SessionError> {
    let shared = newcomer.shared.clone();
    let session = Box::pin(session::enter(newcomer)).await.inspect_err(|_| {
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    })?;
    session.serve().await
}
