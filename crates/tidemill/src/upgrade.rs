//! `tidemill mesh upgrade`: a new process takes the place of the running one, and no client of the mesh notices.
//!
//! The running node hears on a Unix socket in its data folder, which only its own user can reach: whoever may say which
//! program is to run here must be that user. It starts the program with its own arguments and a socket as its standard
//! input, over which ports and sessions go (`mesh::Mesh::hand_over`). Then it ends its sources and flows, lets go of what it
//! had locked, and serves to their end the sessions that could not move; the new process starts sources and flows meanwhile.

use crate::commands::{load_node, many};
use crate::failure::Failure;
use crate::project::NodeConfig;
use mesh::{HandedOver, Mesh, Successor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// The flag that the new process is started with.
pub const FLAG: &str = "--take-over";
/// What a port of the node's own is called on the way.
pub const HTTP: &str = "http";
pub const ADMIN: &str = "admin";
/// Longer than the old process takes to end its sources and flows.
const OUTLIVE_MAX: Duration = Duration::from_secs(30);
/// A session that is in the midst of a statement for longer stays with the old process, as one within TLS does.
const MOVE_MAX: Duration = Duration::from_secs(10);
/// An order is a line; no path is longer.
const ORDER_BYTES_MAX: u64 = 16 * 1024;

/// What the command asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    binary: Option<PathBuf>,
    wait_ms: u64,
}

/// Where the running node hears it.
fn path(node: &NodeConfig) -> PathBuf {
    node.data_dir.join("upgrade.sock")
}

/// What the old process still has to do when the new one serves.
pub struct HandOver {
    pub left: usize,
    /// The sessions that are left are let out then.
    pub until: Instant,
    /// Closed when nothing is locked any more: the new process waits for that.
    released: Socket,
    caller: Caller,
}

/// The command, which hears the end.
pub struct Caller(UnixStream);

/// The running node's side.
pub struct Service {
    pub mesh: Arc<Mesh>,
    pub http: OwnedFd,
    pub address: SocketAddr,
    /// The mesh's admin port, as configured, and its socket.
    pub admin: Option<(SocketAddr, OwnedFd)>,
    /// The program that runs, found out at the start: afterwards its file may be another.
    pub program: PathBuf,
}

impl Service {
    /// Hears orders until one has succeeded.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(self, node: &NodeConfig) -> io::Result<mpsc::Receiver<HandOver>> {
        let path = path(node);
        if Socket::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another node hears in this data folder"));
        }
        // One that a killed node left behind.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let service = Arc::new(self);
            while let Ok((stream, _)) = listener.accept().await {
                if !is_own_user(&stream) {
                    tracing::warn!("another user asked for an upgrade and was refused");
                    continue;
                }
                match service.clone().one(stream).await {
                    Ok(Some(handed)) => {
                        let _ = std::fs::remove_file(&path);
                        let _ = sender.send(handed).await;
                        return;
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "an order of an upgrade was cut short"),
                }
            }
        });
        Ok(receiver)
    }

    /// One order. `None` where the old process goes on.
    async fn one(self: Arc<Self>, stream: UnixStream) -> io::Result<Option<HandOver>> {
        let mut line = String::new();
        let mut reader = BufReader::new(stream).take(ORDER_BYTES_MAX);
        reader.read_line(&mut line).await?;
        let mut caller = reader.into_inner().into_inner();
        let order: Order = match serde_json::from_str(&line) {
            Ok(order) => order,
            Err(error) => {
                say(&mut caller, &json!({"error": format!("failed to read the order: {error}")})).await?;
                return Ok(None);
            }
        };
        let until = Instant::now() + Duration::from_millis(order.wait_ms);
        let program = order.binary.unwrap_or_else(|| self.program.clone());
        tracing::info!(program = %program.display(), "a new process is to take over");
        let done = tokio::task::spawn_blocking(move || self.hand_over(&program, until)).await?;
        match done {
            Ok((handed, released, pid)) => {
                let HandedOver { version, moved, left } = handed;
                tracing::info!(version, pid, moved, left, "the new process serves");
                let told = json!({"version": version, "pid": pid, "moved": moved, "left": left});
                say(&mut caller, &told).await?;
                Ok(Some(HandOver { left, until, released, caller: Caller(caller) }))
            }
            Err(reason) => {
                tracing::error!(reason, "the new process does not take over; this one serves on");
                say(&mut caller, &json!({"error": reason})).await?;
                Ok(None)
            }
        }
    }

    /// Blocks until the new process serves.
    fn hand_over(&self, program: &Path, until: Instant) -> Result<(HandedOver, Socket, u32), String> {
        let no_pair = |error: io::Error| format!("failed to make a pair of sockets: {error}");
        let (ours, theirs) = Socket::pair().map_err(no_pair)?;
        let released = ours.try_clone().map_err(no_pair)?;
        let child = Command::new(program)
            .args(arguments(std::env::args_os().skip(1)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| format!("failed to run {}: {error}", program.display()))?;
        let id = child.id();
        let child = Mutex::new(child);
        let lost = || {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have ended by itself; in either case it serves nobody afterwards.
            let _ = child.kill();
            let _ = child.wait();
        };
        let mut others = vec![(HTTP, self.address, self.http.as_fd())];
        others.extend(self.admin.iter().map(|(address, socket)| (ADMIN, *address, socket.as_fd())));
        let handed = self
            .mesh
            .hand_over(ours, &others, until.min(Instant::now() + MOVE_MAX), &lost)
            .map_err(|error| base::error::chain(&error))?;
        crate::notify::main_process(id);
        Ok((handed, released, id))
    }
}

/// The new process's arguments are the old one's, and the flag.
fn arguments(own: impl Iterator<Item = OsString>) -> Vec<OsString> {
    own.filter(|argument| argument != FLAG).chain([FLAG.into()]).collect()
}

fn is_own_user(stream: &UnixStream) -> bool {
    // SAFETY: takes nothing and always succeeds.
    let own = unsafe { libc::geteuid() };
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn say(stream: &mut UnixStream, value: &Value) -> io::Result<()> {
    stream.write_all(format!("{value}\n").as_bytes()).await
}

impl HandOver {
    /// Lets the new process go on with what was locked here.
    pub fn release(self) -> Caller {
        drop(self.released);
        self.caller
    }
}

impl Caller {
    /// Tells the command that this process ends, and how many sessions it has let out.
    pub async fn end(mut self, ended: usize) {
        let _ = say(&mut self.0, &json!({"done": true, "ended": ended})).await;
    }
}

/// The new process's side: meets the old one at its standard input.
///
/// # Errors
/// When nobody is there, which is so where a person wrote the flag.
pub fn meet() -> Result<Successor, Failure> {
    let input = io::stdin().as_fd().try_clone_to_owned();
    let socket = input.map(Socket::from).map_err(|e| Failure::io("open the standard input", &e))?;
    Successor::meet(socket, env!("CARGO_PKG_VERSION")).map_err(|error| {
        Failure::new(2, format!("failed to take over: {}", base::error::chain(&error)))
            .hint(format!("{FLAG} is for `tidemill mesh upgrade`, which starts this process itself"))
    })
}

/// Waits until the old process has let go of the data.
pub async fn outlive(successor: Successor) {
    let outlived = tokio::task::spawn_blocking(move || successor.outlive(OUTLIVE_MAX)).await;
    if !matches!(outlived, Ok(Ok(()))) {
        tracing::warn!("the old process does not let go of the data; trying none the less");
    }
}

/// The command.
pub async fn run(dir: &Path, binary: Option<PathBuf>, wait: Duration, json: bool) -> Result<(), Failure> {
    let path = path(&load_node(dir)?);
    let binary = binary
        .map(|binary| {
            binary.canonicalize().map_err(|e| Failure::io(&format!("find {}", binary.display()), &e))
        })
        .transpose()?;
    let mut stream = UnixStream::connect(&path).await.map_err(|error| {
        Failure::new(3, format!("no node with a mesh hears at {}: {error}", path.display()))
            .hint("start it with `tidemill up`; an upgrade is ordered as the same user, on the same machine")
    })?;
    let order = Order { binary, wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) };
    let cut = |error: io::Error| Failure::io("talk with the running node", &error);
    let order = serde_json::to_string(&order).map_err(|e| cut(e.into()))?;
    stream.write_all(format!("{order}\n").as_bytes()).await.map_err(cut)?;
    let mut lines = BufReader::new(stream).lines();
    let mut all = json!({});
    while let Some(line) = lines.next_line().await.map_err(cut)? {
        let said: Value = serde_json::from_str(&line).map_err(|e| cut(e.into()))?;
        if let Some(reason) = said["error"].as_str() {
            return Err(Failure::new(1, format!("the old process serves on: {reason}"))
                .hint("what the new process said is in the node's log"));
        }
        let count = |key: &str| said[key].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        if !json && said["done"] != true {
            let (moved, left) = (count("moved"), count("left"));
            println!(
                "tidemill {} serves as process {}; {} moved",
                said["version"].as_str().unwrap_or("?"),
                said["pid"],
                many(moved, "session")
            );
            if left > 0 {
                println!(
                    "{} within TLS cannot move: the old process serves them until they end, for {} s at most",
                    many(left, "session"),
                    wait.as_secs()
                );
            }
        }
        if !json && count("ended") > 0 {
            println!("{} of them had to connect anew", count("ended"));
        }
        for (key, value) in said.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
    }
    if all["done"] != true {
        return Err(Failure::new(1, "the old process ended before it said how the upgrade went")
            .hint("see `tidemill mesh status` and the node's log"));
    }
    if json {
        println!("{all}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_took_over_starts_the_next_one_with_the_flag_once() {
        let own = ["-C", "/etc/tidemill", "up", FLAG].map(OsString::from);
        let next = arguments(own.into_iter());
        assert_eq!(next, ["-C", "/etc/tidemill", "up", FLAG].map(OsString::from));
        assert_eq!(arguments(["up"].map(OsString::from).into_iter()), ["up", FLAG].map(OsString::from));
    }
}
