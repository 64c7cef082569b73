//! Redis: a sink.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

/// How to start a Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// More arguments of the server, like `--requirepass`; they win over ours.
    pub args: Vec<String>,
}

/// A Redis server with an append-only file, so that a kill loses nothing.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    bus: Option<Port>,
}

impl Redis {
    /// Starts a server on an empty data folder and waits until it answers.
    pub async fn start(options: RedisOptions) -> Result<Redis> {
        let install = installed("redis")?;
        let (folder, port) = (folder("redis")?, Port::reserve()?);
        let data = data_dir(folder.path());
        fs::create_dir_all(&data)?;
        let mut arguments: Vec<OsString> =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"].map(Into::into).to_vec();
        arguments.push(data.into());
        arguments.push("--port".into());
        arguments.push(port.number().to_string().into());
        arguments.extend(options.args.iter().map(OsString::from));
        let program = install.join("bin/redis-server");
        let launch = Launch { name: "redis", program, arguments, probe: Probe::Redis };
        Ok(Redis { server: Server::start(launch, folder, port, None).await?, bus: None })
    }

    /// Starts a node of a cluster that has no slots and knows no other yet.
    pub async fn start_in_cluster() -> Result<Redis> {
        let bus = Port::reserve()?;
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port"];
        let mut args: Vec<String> = args.map(Into::into).to_vec();
        args.push(bus.number().to_string());
        let redis = Redis::start(RedisOptions { args }).await?;
        Ok(Redis { bus: Some(bus), ..redis })
    }

    /// Starts a Sentinel that watches `master` under this name and, alone as it is, promotes a replica when the master has been
    /// silent for a second.
    pub async fn start_sentinel(name: &str, master: &Redis) -> Result<Redis> {
        let install = installed("redis")?;
        let (folder, port) = (folder("sentinel")?, Port::reserve()?);
        let data = data_dir(folder.path());
        fs::create_dir_all(&data)?;
        // A Sentinel writes what it learns into its own file.
        let config = folder.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n",
            port.number(),
            data.display(),
            master.port(),
        );
        fs::write(&config, text)?;
        let arguments = vec![config.into(), "--sentinel".into()];
        let program = install.join("bin/redis-server");
        let launch = Launch { name: "sentinel", program, arguments, probe: Probe::Redis };
        Ok(Redis { server: Server::start(launch, folder, port, None).await?, bus: None })
    }

    /// The port that nodes of a cluster speak to each other on.
    pub fn bus_port(&self) -> Option<u16> {
        self.bus.as_ref().map(Port::number)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Whether the server answers and has read its files; one that asks for a password has.
pub(crate) async fn probe(addr: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).await?;
    let answer = &answer[..length];
    if answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH") {
        return Ok(());
    }
    bail!("Redis answers `{}`", String::from_utf8_lossy(answer).trim())
}
