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
        Ok(Redis { server: Server::start(launch, folder, port, None).await? })
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
