//! A new process takes over the ports and the live sessions of an old one, and no client notices.
//!
//! ```text
//! new                                   old
//! Hello ──────────────────────────────▶
//!       ◀────────────────────────────── Socket (one for each port, with its descriptor) … Sockets
//! reads its configuration, asks its servers
//! Ready ──────────────────────────────▶ stops accepting; clients that come now wait in the port's queue
//!       ◀────────────────────────────── Accept
//! Accepting ──────────────────────────▶
//!       ◀────────────────────────────── Session (with the client's and its servers' descriptors), each between two commands
//! Took ───────────────────────────────▶ lets go of that session
//!       ◀────────────────────────────── Done
//! Well or Back ───────────────────────▶
//! ```
//! A session is the old process's until `Took`: whatever goes wrong before, it goes on there. `Back` lets everything flow
//! the other way. Sessions within TLS cannot move, for the keys stay behind; the old process serves them for a while.

mod channel;
pub mod give;
mod moving;
mod parts;
pub mod take;

pub use channel::Channel;
pub use give::Packed;
pub use moving::{Bell, Moving};
pub use parts::{LinkParts, Parts};

use crate::config::BackendConfig;
use rustix::fd::{AsFd, OwnedFd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use thiserror::Error;

/// Grows when a message means something else than before; keys may be added.
const PROTOCOL: u32 = 1;
/// A process that has not read its configuration and heard its servers by then does not start.
const START_MAX: Duration = Duration::from_secs(30);

/// What went wrong by then makes the new process give everything back.
const WATCH: Duration = Duration::from_secs(3);

/// What one process says to the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The new process is there.
    Hello { protocol: u32, version: String },
    /// A port, with its descriptor. `kind` is `mesh`, or what the node around it calls its own.
    Socket { kind: String, name: String, bind: SocketAddr },
    /// There are no more.
    Sockets {
        /// Groups of which a server is up: they are to be up in the new process too.
        up: Vec<String>,
        /// Servers that are in no configuration, by group.
        #[serde(default)]
        found: BTreeMap<String, Vec<BackendConfig>>,
    },
    /// The new process could serve.
    Ready,
    /// It cannot; the old one goes on.
    Failed { reason: String },
    /// The new process serves whoever comes from now on.
    Accept {
        /// Numbers of sessions that the old process may have given.
        ids: u32,
        /// Commands that may have written, by group.
        writes: BTreeMap<String, u64>,
        /// It captures statements, whatever its configuration says.
        #[serde(default)]
        captures: bool,
    },
    /// It does.
    Accepting,
    /// A session between two commands.
    Session(Box<Parts>),
    /// Whether that session goes on in the process that was sent it.
    Took { id: u32, taken: bool },
    /// All that could move has been sent.
    Done { left: usize },
    /// The new process keeps what it has.
    Well,
    /// The new process sends everything back.
    Back { reason: String },
}

/// Why no other process took over.
#[derive(Debug, Error)]
pub enum HandoverError {
    #[error("failed to talk with the other process: {what}")]
    Talk {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the new process speaks version {theirs} of the handover, this one {PROTOCOL}")]
    Protocol { theirs: u32 },
    #[error("the new process does not start: {reason}")]
    Failed { reason: String },
    #[error("the new process gave everything back: {reason}")]
    Back { reason: String },
    #[error("the other process said something else than was expected: {0}")]
    Unexpected(String),
    #[error("the mesh stops")]
    Stopped,
}

impl HandoverError {
    pub fn unexpected(message: &Message) -> Self {
        let mut text = format!("{message:?}");
        text.truncate(text.find([' ', '(', '{']).unwrap_or(text.len()));
        Self::Unexpected(text)
    }
}

pub fn talk(what: &'static str) -> impl Fn(io::Error) -> HandoverError {
    move |source| HandoverError::Talk { what, source }
}

/// The kind of the mesh's own ports.
pub const MESH_PORT: &str = "mesh";

/// A port that came from another process.
#[derive(Debug)]
pub struct Inherited {
    pub kind: String,
    pub name: String,
    pub bind: SocketAddr,
    pub socket: TcpListener,
}

/// The new process's side, before its mesh runs.
#[derive(Debug)]
pub struct Successor {
    pub(crate) channel: Channel,
    pub(crate) sockets: Vec<Inherited>,
    pub(crate) up: Vec<String>,
    pub(crate) found: BTreeMap<String, Vec<BackendConfig>>,
    /// How long the new process watches what it was given before it is the only one.
    pub watch: Duration,
}

impl Successor {
    /// Meets the old process and takes its ports.
    ///
    /// # Errors
    /// When it is not there, or is no process of ours.
    pub fn meet(socket: UnixStream, version: &str) -> Result<Self, HandoverError> {
        let channel = Channel::new(socket).map_err(talk("open"))?;
        channel.set_patience(Some(START_MAX)).map_err(talk("open"))?;
        let hello = Message::Hello { protocol: PROTOCOL, version: version.to_owned() };
        channel.send(&hello, &[]).map_err(talk("hello"))?;
        let mut sockets = Vec::new();
        loop {
            let (message, descriptors) = channel.receive().map_err(talk("ports"))?;
            match message {
                Message::Socket { kind, name, bind } => {
                    let descriptor = descriptors
                        .into_iter()
                        .next()
                        .ok_or_else(|| HandoverError::Unexpected("a port without its descriptor".into()))?;
                    sockets.push(Inherited { kind, name, bind, socket: listener(descriptor)? });
                }
                Message::Sockets { up, found } => {
                    return Ok(Self { channel, sockets, up, found, watch: WATCH });
                }
                other => return Err(HandoverError::unexpected(&other)),
            }
        }
    }

    /// Takes a port that is not the mesh's.
    pub fn socket(&mut self, kind: &str) -> Option<TcpListener> {
        let index = self.sockets.iter().position(|socket| socket.kind == kind)?;
        Some(self.sockets.swap_remove(index).socket)
    }

    /// Tells the old process why it has to go on.
    pub fn fail(&self, reason: &str) {
        let _ = self.channel.send(&Message::Failed { reason: reason.to_owned() }, &[]);
    }

    /// Waits until the old process has ended: what it had locked is free then.
    pub fn outlive(&self, patience: Duration) -> io::Result<()> {
        self.channel.set_patience(Some(patience))?;
        match self.channel.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

/// A descriptor that must be a listening socket.
fn listener(descriptor: OwnedFd) -> Result<TcpListener, HandoverError> {
    let listens = rustix::net::sockopt::socket_acceptconn(descriptor.as_fd()).unwrap_or(false);
    if !listens {
        return Err(HandoverError::Unexpected("a descriptor that is no port".into()));
    }
    let socket = TcpListener::from(descriptor);
    socket.set_nonblocking(true).map_err(talk("ports"))?;
    Ok(socket)
}
