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

/// Three servers that are one cluster, each with JetStream; servers know each other before the first client comes.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Nats>,
    _routes: Vec<Port>,
}

impl NatsCluster {
    /// Starts three servers, and waits until each answers.
    pub async fn start() -> Result<NatsCluster> {
        let routes = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let all: Vec<String> =
            routes.iter().map(|port| format!("nats://127.0.0.1:{}", port.number())).collect();
        let node = |number: usize| {
            let args = vec![
                format!("--name=node{number}"),
                "--cluster_name=testkit".to_owned(),
                format!("--cluster={}", all[number]),
                format!("--routes={}", all.join(",")),
            ];
            Nats::start(NatsOptions { args })
        };
        let (a, b, c) = tokio::try_join!(node(0), node(1), node(2))?;
        Ok(NatsCluster { nodes: vec![a, b, c], _routes: routes.into() })
    }

    /// `nats://…` with all three hosts.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        format!("nats://{}", hosts.join(","))
    }

    pub fn nodes(&self) -> &[Nats] {
        &self.nodes
    }
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
