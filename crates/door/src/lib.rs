//! The SQL door: MySQL's protocol, in front of the project's engine, for BI tools. It only reads.
//!
//! A dataset of the engine (`ods` of `ods.orders`) is a database to clients; tables without a dataset are those of
//! `main`. What clients ask of a MySQL besides queries (variables, SHOW, `information_schema`) is answered here:
//!
//! ```text
//! packets    payloads over a socket              login     greeting, TLS, proof
//! session    commands of one client              state     what it has set, and its answers
//! plan       what a statement asks for           rewrite   a SELECT as the engine takes it
//! show       SHOW as a SELECT                    metadata  information_schema as rows
//! variables  system variables
//! catalogue  where a query goes                  columns   results as packets
//! prepared   values of prepared statements       text      a statement as words
//! ```
//!
//! Nothing here writes, whatever a client sends: the engine is opened to read, and other verbs are refused before.

mod catalogue;
mod columns;
mod error;
mod login;
mod metadata;
mod packets;
mod plan;
mod prepared;
mod rewrite;
mod session;
mod show;
mod state;
mod text;
mod variables;
mod virtual_tables;

pub use columns::{number_column, text_column};
pub use error::SqlError;
pub use virtual_tables::VirtualDataset;

use async_trait::async_trait;
use engine::{Engine, EngineError};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

/// The version that clients are told: that of the MySQL whose dialect the engine speaks, and whose it is.
pub const VERSION: &str = concat!("8.4.6-tidemill-", env!("CARGO_PKG_VERSION"));
/// Clients at once.
pub const CONNECTIONS_MAX: usize = 256;
/// From the greeting to the end of the proof.
const LOGIN_WAIT: Duration = Duration::from_secs(10);
/// Before the next accept, where the system refuses one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may come in.
pub trait Gate: Send + Sync {
    /// Whether a client must show a token. Otherwise programs of this machine may come in by any name.
    fn wants_password(&self) -> bool;

    /// The bearer of a token that may read everything; else why not.
    ///
    /// # Errors
    /// In words for the client.
    fn admit_checked(&self, token: &str) -> Result<Admitted, String>;

    /// A program of this machine, while no token is wanted.
    fn admit(&self) -> Admitted;
}

/// TLS for clients that ask for it.
#[async_trait]
pub trait Tls: Send + Sync {
    async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>>;
}

/// A client's right to be here.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Of the token, for logs; empty without one.
    pub name: Arc<str>,
    /// Turns true when the client is let in no longer.
    pub gone: watch::Receiver<bool>,
}

/// Opens the engine, when the first client wants it and again after it failed.
#[async_trait]
pub trait Opener: Send + Sync {
    async fn open(&self) -> Result<Arc<dyn Engine>, EngineError>;
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Between two commands of a client.
    pub idle: Duration,
    /// One query, from its first byte to its last row.
    pub query: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        // MySQL's own wait_timeout is eight hours; pools of BI tools live well with one.
        Self { idle: Duration::from_secs(3600), query: Duration::from_secs(600) }
    }
}

/// Everything that sessions share.
pub struct Door {
    opener: Box<dyn Opener>,
    engine: tokio::sync::OnceCell<Arc<dyn Engine>>,
    gate: Box<dyn Gate>,
    tls: Option<Box<dyn Tls>>,
    waits: Waits,
    datasets: Vec<Arc<dyn VirtualDataset>>,
    /// For queries over tables that no file holds.
    memory: engine::Sqlite,
    next_id: AtomicU32,
    present: Mutex<HashMap<u32, Arc<Present>>>,
}

/// A client that is here, as others see it.
#[derive(Debug)]
struct Present {
    user: String,
    /// The token's name: a client may only end those of its own token.
    token: Arc<str>,
    stop_query: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Door {
    pub fn new(
        opener: Box<dyn Opener>,
        gate: Box<dyn Gate>,
        tls: Option<Box<dyn Tls>>,
        waits: Waits,
    ) -> Self {
        let options = engine::Options { read_only: false, timeout: waits.query };
        Self {
            opener,
            engine: tokio::sync::OnceCell::new(),
            gate,
            tls,
            waits,
            datasets: Vec::new(),
            memory: engine::Sqlite::in_memory(options),
            next_id: AtomicU32::new(1),
            present: Mutex::default(),
        }
    }

    /// Adds a dataset whose tables are computed when they are asked for.
    #[must_use]
    pub fn with_dataset(mut self, dataset: Arc<dyn VirtualDataset>) -> Self {
        self.datasets.push(dataset);
        self
    }

    async fn engine(&self) -> Result<&Arc<dyn Engine>, EngineError> {
        self.engine.get_or_try_init(|| self.opener.open()).await
    }

    /// Serves clients until `stop`, and ends those that are left then.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = clients.join_next(), if !clients.is_empty() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to let a client in through the SQL door");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics::counter!(base::metrics::DOOR_REFUSED).increment(1);
                clients.spawn(async move {
                    let error = SqlError::new(1040, "Too many connections");
                    let _ = tokio::time::timeout(LOGIN_WAIT, login::refuse(stream, &error)).await;
                });
                continue;
            };
            let door = self.clone();
            clients.spawn(async move {
                let _place = place;
                door.client(stream, peer).await;
            });
        }
        clients.shutdown().await;
    }

    async fn client(&self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entered = tokio::time::timeout(LOGIN_WAIT, login::log_in(self, stream, peer, id)).await;
        let logged_in = match entered {
            Ok(Ok(Some(logged_in))) => logged_in,
            Ok(Ok(None)) => return metrics::counter!(base::metrics::DOOR_REFUSED).increment(1),
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "a client's login came to nothing"),
            Err(_) => return tracing::debug!(%peer, "a client's login took too long"),
        };
        let present = Arc::new(Present {
            user: logged_in.user.clone(),
            token: logged_in.admitted.name.clone(),
            stop_query: watch::Sender::new(0),
            stop: watch::Sender::new(false),
        });
        let here = Here::enter(self, id, present.clone());
        let ended = session::run(self, logged_in, id, &present).await;
        drop(here);
        match ended {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => tracing::debug!(%peer, %error, "a client of the SQL door was let go"),
        }
    }

    fn present(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Present>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's entry in the list of those who are here.
struct Here<'d>(&'d Door, u32);

impl<'d> Here<'d> {
    fn enter(door: &'d Door, id: u32, present: Arc<Present>) -> Self {
        let count = {
            let mut all = door.present();
            all.insert(id, present);
            all.len()
        };
        metrics::gauge!(base::metrics::DOOR_CLIENTS).set(count as f64);
        Self(door, id)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        let count = {
            let mut all = self.0.present();
            all.remove(&self.1);
            all.len()
        };
        metrics::gauge!(base::metrics::DOOR_CLIENTS).set(count as f64);
    }
}
