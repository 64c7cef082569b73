//! A mesh in this process, and clients of it.

use anyhow::{Context, Result, bail};
use mesh::{Mesh, MeshConfig};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use testkit::mysql_async::{Conn, Opts, OptsBuilder};

/// What a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh whose only listener is `door` on a port of its own, before one group of `servers`.
pub struct Front {
    pub mesh: Mesh,
    pub address: SocketAddr,
}

impl Front {
    /// `group` is the inside of a group in JSON, without `backends`; `listener` of the listener, without what is needed.
    pub async fn start(servers: &[u16], group: serde_json::Value) -> Result<Front> {
        Self::start_with(servers, group, serde_json::json!({})).await
    }

    pub async fn start_with(
        servers: &[u16],
        group: serde_json::Value,
        listener: serde_json::Value,
    ) -> Result<Front> {
        Self::start_all(servers, group, listener, serde_json::json!({})).await
    }

    /// `rest` is what the configuration has beside listeners and groups.
    pub async fn start_all(
        servers: &[u16],
        group: serde_json::Value,
        listener: serde_json::Value,
        rest: serde_json::Value,
    ) -> Result<Front> {
        Self::start_config(Self::config(servers, group, listener, rest)?)
    }

    /// One in which whoever comes back gets another connection, on which somebody else has set everything otherwise.
    pub async fn start_chaos(servers: &[u16], group: serde_json::Value) -> Result<Front> {
        let (listener, rest) = (serde_json::json!({}), serde_json::json!({}));
        let mut config = Self::config(servers, group, listener, rest)?;
        for pool in config.groups.values_mut().filter_map(|group| group.pool.as_mut()) {
            pool.chaos = true;
        }
        Self::start_config(config)
    }

    pub fn config(
        servers: &[u16],
        group: serde_json::Value,
        listener: serde_json::Value,
        rest: serde_json::Value,
    ) -> Result<MeshConfig> {
        let mut group = group;
        if group.get("backends").is_none() {
            let backends: Vec<_> =
                servers.iter().map(|port| serde_json::json!({"addr": format!("127.0.0.1:{port}")})).collect();
            group["backends"] = backends.into();
        }
        let mut door = serde_json::json!({"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]});
        for (key, value) in listener.as_object().cloned().unwrap_or_default() {
            door[key] = value;
        }
        let mut config = serde_json::json!({"listeners": [door], "groups": {"shop": group}, "threads": 2});
        for (key, value) in rest.as_object().cloned().unwrap_or_default() {
            config[key] = value;
        }
        let config: MeshConfig = serde_json::from_value(config)?;
        let problems = config.problems();
        if !problems.is_empty() {
            bail!("{problems:?}");
        }
        Ok(config)
    }

    fn start_config(config: MeshConfig) -> Result<Front> {
        let mesh = Mesh::start(&config)?;
        let address = mesh.addresses()["door"];
        Ok(Front { mesh, address })
    }

    pub fn opts(&self, user: &str, password: &str) -> OptsBuilder {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.address.port())
            .user(Some(user))
            .pass((!password.is_empty()).then_some(password))
            .prefer_socket(false)
    }

    pub async fn login(&self, user: &str, password: &str) -> Result<Conn> {
        let opts: Opts = self.opts(user, password).into();
        Conn::new(opts).await.with_context(|| format!("failed to log in as {user}"))
    }

    pub async fn root(&self) -> Result<Conn> {
        self.login("root", "").await
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
