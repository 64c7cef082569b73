//! The SQL door of a node: who comes in by the node's tokens, its TLS, and the project's engine behind it.

use crate::auth::{Access, Caller, Scope};
use crate::failure::Failure;
use crate::listener::Tls;
use crate::project::{NodeConfig, Project};
use async_trait::async_trait;
use base::Secret;
use door::{Admitted, Door, Gate, Opener, Waits};
use engine::{Engine, EngineError, Options};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

/// How long the process before may keep the port, and how often it is tried.
const PORT_WAIT: Duration = Duration::from_secs(60);
const PORT_LOOK: Duration = Duration::from_millis(100);

/// What stands against opening the door, with a hint each.
pub fn problems(node: &NodeConfig, catalog: &Path) -> Vec<(String, String)> {
    let Some(address) = node.listen.mysql else { return Vec::new() };
    let mut out = Vec::new();
    if node.engine.is_none() {
        let hint = "write `engine: sqlite:./data/warehouse.db`, or leave listen.mysql out";
        out.push((
            "listen.mysql opens a door to the `engine`, and there is none".to_owned(),
            hint.to_owned(),
        ));
    }
    if address == node.listen.http && address.port() != 0 {
        let hint = "write another port: mysql: 127.0.0.1:7306";
        out.push((format!("listen.mysql is `{address}`, as listen.http is"), hint.to_owned()));
    }
    if address.ip().is_loopback() {
        return out;
    }
    if node.tls.is_none() {
        let message = format!("listen.mysql is `{address}`, which others can reach, and there is no `tls`");
        let hint =
            "add tls: {cert: ./cert.pem, key: ./key.pem}, or listen on 127.0.0.1: docs/guides/sql-door.md";
        out.push((message, hint.to_owned()));
    }
    // A catalog that cannot be read is told of by the HTTP port's check, or by the start.
    if matches!(catalog::has_tokens(catalog), Ok(false)) {
        let message = format!("listen.mysql is `{address}`, which others can reach, and there is no token");
        let hint = "make one: `tidemill token create NAME --scope read`; or listen on 127.0.0.1";
        out.push((message, hint.to_owned()));
    }
    out
}

/// Opens the door, where the project has one. `took_over`: the process before may keep its port for a moment.
pub async fn open(
    project: &Project,
    access: &Access,
    tls: Option<&Arc<Tls>>,
    took_over: bool,
    tasks: &mut JoinSet<()>,
    shutdown: &watch::Receiver<bool>,
) -> Result<(), Failure> {
    let Some(address) = project.node.listen.mysql else { return Ok(()) };
    let url = project.node.engine.clone();
    let waits = Waits::default();
    let opener = Warehouse { url: url.unwrap_or_default(), dir: project.dir.clone(), timeout: waits.query };
    let tls = tls.map(|tls| Box::new(Shown(tls.clone())) as Box<dyn door::Tls>);
    let door = Arc::new(Door::new(Box::new(opener), Box::new(Porter(access.clone())), tls, waits));
    let shutdown = shutdown.clone();
    if took_over {
        tasks.spawn(async move {
            match bind_in_time(address, shutdown.clone()).await {
                Ok(Some(listener)) => door.serve(listener, shutdown).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%address, %error, "the SQL door stays closed: its port is taken")
                }
            }
        });
        return Ok(());
    }
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::io(&format!("listen on {address}"), &error)
            .hint("another tidemill may be running; else write another port for `mysql` under `listen`")
    })?;
    let address = listener.local_addr().map_err(|error| Failure::io("read the door's address", &error))?;
    tracing::info!(%address, "the SQL door is open");
    tasks.spawn(door.serve(listener, shutdown));
    Ok(())
}

async fn bind_in_time(
    address: SocketAddr,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<Option<TcpListener>> {
    let until = tokio::time::Instant::now() + PORT_WAIT;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "the SQL door is open");
                return Ok(Some(listener));
            }
            Err(error) if tokio::time::Instant::now() > until => return Err(error),
            Err(_) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(PORT_LOOK) => {}
        }
    }
}

/// The project's engine, opened to read.
struct Warehouse {
    url: Secret,
    dir: PathBuf,
    timeout: Duration,
}

#[async_trait]
impl Opener for Warehouse {
    async fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let url = self.url.expose();
        let options = Options { read_only: true, timeout: self.timeout };
        // A new project has no file yet: it is made empty, so that clients see a warehouse without tables.
        if let Some(path) = url.strip_prefix("sqlite:").map(|path| self.dir.join(path))
            && !path.exists()
        {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|error| EngineError::Unavailable(format!("{}: {error}", folder.display())))?;
            }
            drop(engine::open(url, &self.dir, Options { read_only: false, ..options.clone() }).await?);
        }
        engine::open(url, &self.dir, options).await.map(Arc::from)
    }
}

/// What the node shows clients that want TLS.
struct Shown(Arc<Tls>);

#[async_trait]
impl door::Tls for Shown {
    async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

/// The node's tokens as passwords.
struct Porter(Access);

impl Porter {
    /// The client's right, which ends with the caller's.
    fn admitted(caller: Caller) -> Admitted {
        let (sender, gone) = watch::channel(false);
        let name = if caller.token.is_some() { caller.name.clone() } else { "".into() };
        tokio::spawn(async move {
            tokio::select! {
                _ = caller.ended() => drop(sender.send(true)),
                () = sender.closed() => {}
            }
        });
        Admitted { name, gone }
    }
}

impl Gate for Porter {
    fn wants_password(&self) -> bool {
        self.0.is_closed()
    }

    fn admit_checked(&self, token: &str) -> Result<Admitted, String> {
        let caller = self.0.who(token).map_err(|refusal| refusal.message)?;
        if !caller.may(Scope::Read) {
            return Err("the token has not the scope `read`".into());
        }
        if !caller.rows.is_empty() || !caller.columns.is_empty() {
            return Err(
                "the token is for some rows or columns only, which the SQL door cannot keep it to".into()
            );
        }
        Ok(Self::admitted(caller))
    }

    fn admit(&self) -> Admitted {
        Self::admitted(self.0.local_caller())
    }
}
