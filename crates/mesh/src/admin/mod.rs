//! A port on which the mesh itself answers MySQL clients, so that it can be looked at and changed by `mysql`.
//!
//! ```text
//! accept ─ log in ─ [ a statement ─ its answer ]*
//! ```
//! It has a thread of its own, and takes neither of the sessions' threads nor of their number: it answers also when the mesh
//! is full. What it does is what the REST routes do. Nobody is let in without a password, and everything that a client can
//! hold is bounded: connections, the time of a login, the bytes of a packet, the time of an answer.

mod config;
mod run;
mod statement;
mod table;

pub use config::{AdminConfig, AdminUserConfig};

use crate::config::UserConfig;
use crate::error::{MeshError, SessionError};
use crate::keeper::Keeper;
use crate::session::{Check, hear, say};
use crate::tls::Acceptor;
use crate::wire::{Wire, prepare_socket};
use crate::{Mesh, lot};
use mysql::protocol::{
    CACHING_SHA2, Capabilities, Command, Greeting, LoginRequest, NATIVE, Status, TLS_REQUEST_BYTES,
    error_packet, ok_packet,
};
use run::{Asker, Refused};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use table::Answer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// As drivers read it: they take what they know of MySQL 8.
const VERSION: &str = concat!("8.0.11-tidemill-", env!("CARGO_PKG_VERSION"));
/// Clients at once, those that have not logged in among them.
const CLIENTS_MAX: usize = 64;
/// From the accepted socket to the end of the login.
const LOGIN_MAX: Duration = Duration::from_secs(10);
/// Who guesses passwords waits so long for each answer.
const DENIED_PAUSE: Duration = Duration::from_millis(500);
/// Who says nothing for so long is let out.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Who does not read its answer for so long, too.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// After an error of accepting that lasts, as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

const OFFERED: Capabilities = Capabilities(
    Capabilities::LONG_PASSWORD.0
        | Capabilities::LONG_FLAG.0
        | Capabilities::CONNECT_WITH_DATABASE.0
        | Capabilities::PROTOCOL_41.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::CONNECT_ATTRIBUTES.0
        | Capabilities::AUTH_LENGTH_ENCODED.0
        | Capabilities::DEPRECATE_EOF.0,
);

/// The open port; it is closed when this is dropped.
#[derive(Debug)]
pub struct AdminPort {
    address: SocketAddr,
    configured: SocketAddr,
    /// The socket, for a process that takes over.
    socket: OwnedFd,
    stop: watch::Sender<bool>,
}

impl AdminPort {
    /// Opens the admin port of `mesh.yaml`, where it has one; at `inherited`, if that came from the process before and is still
    /// the one that is wanted.
    ///
    /// # Errors
    /// When the port is taken, the certificate cannot be read, or the system gives no thread.
    pub fn open(
        mesh: &Arc<Mesh>,
        keeper: Arc<dyn Keeper>,
        inherited: Option<std::net::TcpListener>,
    ) -> Result<Option<Self>, MeshError> {
        let Some(config) = mesh.admin.load_full() else { return Ok(None) };
        let bind = |source| MeshError::Bind { listener: "admin".into(), address: config.listen, source };
        let same = |socket: &std::net::TcpListener| {
            let is = socket.local_addr().ok();
            is.is_some_and(|is| {
                is == config.listen || config.listen.port() == 0 && is.ip() == config.listen.ip()
            })
        };
        let socket = match inherited.filter(same) {
            Some(socket) => socket,
            None => std::net::TcpListener::bind(config.listen).map_err(bind)?,
        };
        socket.set_nonblocking(true).map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        let copy = socket.as_fd().try_clone_to_owned().map_err(bind)?;
        let tls = config.tls.as_ref().map(|tls| Acceptor::new("admin", tls)).transpose()?;
        let (stop, stopped) = watch::channel(false);
        let port = Port { mesh: Arc::downgrade(mesh), keeper, tls, stop: stopped };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MeshError::Thread)?;
        std::thread::Builder::new()
            .name("mesh-admin".into())
            .spawn(move || {
                runtime.block_on(port.accept(socket));
                // A reload that runs is not waited for.
                runtime.shutdown_background();
            })
            .map_err(MeshError::Thread)?;
        Ok(Some(Self { address, configured: config.listen, socket: copy, stop }))
    }

    /// Where it listens: `listen` with a port of 0 finds one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As configured.
    pub fn configured(&self) -> SocketAddr {
        self.configured
    }

    /// The listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for AdminPort {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

#[derive(Clone)]
struct Port {
    /// Not kept alive by who looks at it.
    mesh: Weak<Mesh>,
    keeper: Arc<dyn Keeper>,
    tls: Option<Acceptor>,
    stop: watch::Receiver<bool>,
}

impl Port {
    async fn accept(self, socket: std::net::TcpListener) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "the admin port does not listen"),
        };
        let places = Arc::new(Semaphore::new(CLIENTS_MAX));
        let ids = AtomicU32::new(0);
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a client at the admin port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                // A socket that would block is just closed.
                let _ = stream.try_write(&error_packet(0, 1040, b"08004", "Too many connections"));
                continue;
            };
            if let Err(error) = prepare_socket(&stream) {
                tracing::debug!(%error, "a client of the admin port went away at once");
                continue;
            }
            let id = ids.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let mut visit = Visit {
                client: Wire::new(stream),
                port: self.clone(),
                peer,
                id,
                capabilities: Capabilities::default(),
                sequence: 0,
            };
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = visit.serve().await {
                    tracing::debug!(%peer, reason = error.reason(), "a client left the admin port");
                    if let Some(packet) = error.packet(visit.sequence) {
                        let _ = tokio::time::timeout(WRITE_MAX, visit.client.write_all(&packet)).await;
                    }
                }
                let _ = tokio::time::timeout(WRITE_MAX, visit.client.shutdown()).await;
            });
        }
    }
}

/// One client of the port.
struct Visit {
    client: Wire,
    port: Port,
    peer: SocketAddr,
    id: u32,
    capabilities: Capabilities,
    /// The next packet's number towards the client.
    sequence: u8,
}

impl Visit {
    async fn serve(&mut self) -> Result<(), SessionError> {
        let late = || SessionError::Slow { what: "the client's login", seconds: LOGIN_MAX.as_secs() };
        let user = tokio::time::timeout(LOGIN_MAX, self.log_in()).await.unwrap_or_else(|_| Err(late()));
        if let Err(SessionError::Denied { user }) = &user {
            tracing::warn!(user, peer = %self.peer, "a login at the admin port was refused");
            tokio::time::sleep(DENIED_PAUSE).await;
        }
        let user = user?;
        while let Some((command, argument)) = self.command().await? {
            self.sequence = 1;
            // Asked for anew each time: a reload may have taken it away.
            let (Some(mesh), Some(asker)) = (self.port.mesh.upgrade(), self.asker(&user)) else {
                return Err(SessionError::Denied { user: user.name });
            };
            let answer = match command {
                Command::Quit => return Ok(()),
                Command::Ping | Command::InitDatabase | Command::ResetConnection | Command::SetOption => {
                    Ok(Answer::nothing())
                }
                Command::Statistics => {
                    let words = format!("sessions {}", mesh.status().sessions);
                    self.write(&mysql::protocol::packet(1, words.as_bytes())).await?;
                    continue;
                }
                // `mysql` asks for the columns of tables, of which there are none.
                Command::FieldList => {
                    self.write(&mysql::protocol::packet(1, &[0xfe, 0, 0, 2, 0])).await?;
                    continue;
                }
                Command::Query => {
                    let text = String::from_utf8_lossy(&argument);
                    run::run(&mesh, &self.port.keeper, &asker, &text).await
                }
                Command::ProcessKill => {
                    let number = argument.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                    run::run(&mesh, &self.port.keeper, &asker, &format!("KILL {number}")).await
                }
                command if command.is_silent() => continue,
                Command::Prepare => Err(Refused {
                    number: 1295,
                    state: *b"HY000",
                    message: "tidemill: statements are not prepared at the admin port; send them as text"
                        .into(),
                }),
                _ => Err(Refused {
                    number: 1047,
                    state: *b"08S01",
                    message: "tidemill: the admin port takes statements as text, and no other command".into(),
                }),
            };
            drop(mesh);
            let packets = match answer {
                Ok(answer) => answer.packets(self.capabilities),
                Err(Refused { number, state, message }) => error_packet(1, number, &state, &message),
            };
            self.write(&packets).await?;
        }
        Ok(())
    }

    /// The next command; `None` where the client, or the port, is gone.
    async fn command(&mut self) -> Result<Option<(Command, Vec<u8>)>, SessionError> {
        let mut stop = self.port.stop.clone();
        let came = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {
                return Err(SessionError::Refused {
                    number: 1053,
                    state: *b"08S01",
                    reason: "Server shutdown in progress".into(),
                });
            }
            came = tokio::time::timeout(IDLE_MAX, self.client.read_packet()) => came,
        };
        self.sequence = 1;
        let payload = match came {
            Ok(Ok((_, payload))) => payload,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refused(1153, "tidemill: the packet is longer than the admin port takes"));
            }
            Ok(Err(error)) => return Err(SessionError::Client(error)),
            Err(_) => {
                return Err(SessionError::Slow { what: "a statement", seconds: IDLE_MAX.as_secs() });
            }
        };
        let Some((command, argument)) = payload.split_first() else {
            return Err(refused(1047, "tidemill: an empty command"));
        };
        Ok(Some((Command::of(*command), argument.to_vec())))
    }

    async fn write(&mut self, packets: &[u8]) -> Result<(), SessionError> {
        match tokio::time::timeout(WRITE_MAX, self.client.write_all(packets)).await {
            Ok(written) => written.map_err(SessionError::Client),
            Err(_) => Err(SessionError::Client(io::ErrorKind::TimedOut.into())),
        }
    }

    /// What the user may do now; `None` where it may not come in any more.
    fn asker(&self, user: &UserConfig) -> Option<Asker> {
        let config = self.port.mesh.upgrade()?.admin.load_full()?;
        let known =
            config.users.iter().find(|known| known.name == user.name && known.password == user.password)?;
        Some(Asker {
            user: user.name.clone(),
            peer: self.peer.ip().to_string(),
            read_only: known.read_only,
            id: self.id,
        })
    }

    async fn log_in(&mut self) -> Result<UserConfig, SessionError> {
        let mut offered = OFFERED;
        if self.port.tls.is_some() {
            offered = offered | Capabilities::TLS;
        }
        let greeting = Greeting {
            version: VERSION.into(),
            connection_id: self.id,
            salt: lot::salt(),
            capabilities: offered,
            collation: 45,
            status: Status::AUTOCOMMIT.0,
            plugin: CACHING_SHA2.to_vec(),
        };
        say(&mut self.client, &mut self.sequence, &greeting.write()).await?;
        let mut payload = hear(&mut self.client, &mut self.sequence).await?;
        if payload.len() == TLS_REQUEST_BYTES {
            let acceptor =
                self.port.tls.clone().ok_or_else(|| refused(1043, "tidemill: the admin port has no TLS"))?;
            self.client
                .start_tls(|stream: TcpStream| async move { acceptor.accept(stream).await })
                .await
                .map_err(SessionError::Client)?;
            payload = hear(&mut self.client, &mut self.sequence).await?;
        }
        let login = LoginRequest::read(&payload)?;
        if self.port.tls.is_some() && !self.client.is_tls() {
            let reason = "tidemill: the admin port lets in nobody without TLS";
            return Err(SessionError::Refused { number: 3159, state: *b"HY000", reason: reason.into() });
        }
        if !login.capabilities.has(Capabilities::SECURE_CONNECTION) {
            return Err(refused(
                1251,
                "tidemill: the client is too old: it knows only the passwords of MySQL 4.0",
            ));
        }
        self.capabilities = login.capabilities & offered;
        let plugin = match login.capabilities.has(Capabilities::PLUGIN_AUTH) {
            true => login.plugin.clone(),
            false => NATIVE.to_vec(),
        };
        let users = self.port.mesh.upgrade().and_then(|mesh| mesh.admin.load_full());
        let users = users.map(|config| config.logins()).unwrap_or_default();
        let mut check = Check { client: &mut self.client, sequence: &mut self.sequence, users: &users };
        let password = check.run(&login.user, plugin, greeting.salt, login.proof).await?;
        let ok = ok_packet(self.sequence, Status::AUTOCOMMIT);
        self.client.write_all(&ok).await.map_err(SessionError::Client)?;
        let name = String::from_utf8_lossy(&login.user).into_owned();
        Ok(UserConfig { name, password, sessions_max: None })
    }
}

fn refused(number: u16, reason: &str) -> SessionError {
    SessionError::Refused { number, state: *b"HY000", reason: reason.to_owned() }
}
