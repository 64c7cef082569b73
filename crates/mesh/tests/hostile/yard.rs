//! A mesh with two doors: `door` before a server that is well, and `trap` before one that is not. A session through the
//! first one has to go on whatever happens at the second.

use anyhow::{Result, bail};
use mesh::{BackendStatus, Mesh, MeshConfig, MeshStatus};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts, OptsBuilder};
use testkit::{MySql, MySqlOptions};
use tokio::sync::{Mutex, MutexGuard};

/// What a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Held by the one test that runs.
static TURN: Mutex<()> = Mutex::const_new(());

pub struct Yard {
    pub mesh: Mesh,
    pub trap: SocketAddr,
    beside: Conn,
    _server: MySql,
    _turn: MutexGuard<'static, ()>,
}

impl Yard {
    /// `group` is the inside of the group behind `trap`, without its only server, which listens on `port`; without a port
    /// it is the healthy server.
    pub async fn start(port: Option<u16>, group: serde_json::Value) -> Result<Yard> {
        let turn = TURN.lock().await;
        let server = MySql::start(MySqlOptions::default()).await?;
        let mut trap = group;
        trap["topology"] = "static".into();
        let port = port.unwrap_or(server.port());
        trap["backends"] = json!([{"addr": format!("127.0.0.1:{port}"), "role": "writer"}]);
        let config: MeshConfig = serde_json::from_value(json!({
            "listeners": [
                {"name": "door", "bind": "127.0.0.1:0", "tenants": ["well"]},
                {"name": "trap", "bind": "127.0.0.1:0", "tenants": ["trap"], "compression": ["zlib"]},
            ],
            "groups": {"well": {"backends": [{"addr": format!("127.0.0.1:{}", server.port())}]}, "trap": trap},
            "threads": 2,
        }))?;
        let problems = config.problems();
        if !problems.is_empty() {
            bail!("{problems:?}");
        }
        let mesh = Mesh::start(&config)?;
        let (door, trap) = (mesh.addresses()["door"], mesh.addresses()["trap"]);
        let opts =
            OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(door.port()).user(Some("root"));
        let beside = Conn::new(Opts::from(opts.prefer_socket(false))).await?;
        let mut yard = Yard { mesh, trap, beside, _server: server, _turn: turn };
        yard.quiet().await?;
        Ok(yard)
    }

    pub fn status(&self) -> MeshStatus {
        self.mesh.status()
    }

    /// The server behind `trap`.
    pub fn trapped(&self) -> Option<BackendStatus> {
        self.status().groups.into_iter().find(|group| group.name == "trap")?.backends.pop()
    }

    /// The session beside goes on, it is the only one, and nobody holds a buffer.
    pub async fn quiet(&mut self) -> Result<()> {
        let answer: Option<String> = self.beside.query_first("select repeat('x', 1000)").await?;
        assert_eq!(answer.map(|text| text.len()), Some(1000));
        let (mesh, mut seen) = (&self.mesh, String::new());
        let result = until("all is quiet", async || {
            let status = mesh.status();
            seen = format!("{} sessions, {} bytes", status.sessions, status.buffer_bytes);
            (status.sessions == 1 && status.buffer_bytes == 0).then_some(())
        })
        .await;
        if let Err(error) = result {
            bail!("{error:#}: {seen}");
        }
        Ok(())
    }
}

/// Waits until `condition` gives something.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if began.elapsed() > PATIENCE {
            bail!("waited in vain until {what}");
        }
    }
}
