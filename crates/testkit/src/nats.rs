//! NATS with JetStream: a sink.

use std::ffi::OsString;
use std::ops::Deref;

use anyhow::Result;

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

/// How to start a NATS.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// More arguments of the server, like `--user`.
    pub args: Vec<String>,
}

/// A NATS server with JetStream on disk.
#[derive(Debug)]
pub struct Nats {
    server: Server,
    monitor_port: u16,
}

impl Nats {
    /// Starts a server and waits until JetStream answers.
    pub async fn start(options: NatsOptions) -> Result<Nats> {
        let install = installed("nats")?;
        let (folder, port, monitor) = (folder("nats")?, Port::reserve()?, Port::reserve()?);
        let monitor_port = monitor.number();
        let mut arguments: Vec<OsString> =
            vec!["--jetstream".into(), "--addr=127.0.0.1".into(), "--store_dir".into()];
        arguments.push(data_dir(folder.path()).into());
        arguments.push(format!("--port={}", port.number()).into());
        arguments.push(format!("--http_port={monitor_port}").into());
        arguments.extend(options.args.iter().map(OsString::from));
        let program = install.join("bin/nats-server");
        let probe = Probe::Http(monitor_port, "/healthz?js-enabled-only=true");
        let launch = Launch { name: "nats", program, arguments, probe };
        let server = Server::start(launch, folder, port, Some(monitor)).await?;
        Ok(Nats { server, monitor_port })
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The HTTP port that answers `/varz`, `/jsz` and `/healthz`.
    pub fn monitor_port(&self) -> u16 {
        self.monitor_port
    }
}

impl Deref for Nats {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
