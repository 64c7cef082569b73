//! Kafka: the broker behind the peer that benchmarks measure.
//!
//! Two requests of its protocol are spoken here, each in its first version that a broker of today still answers:
//!
//! ```text
//! request  = size:i32 api:i16 version:i16 correlation:i32 client:i16 (-1: none) body        (big-endian)
//! response = size:i32 correlation:i32 body
//! ```

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

const LIST_OFFSETS: i16 = 2;
const API_VERSIONS: i16 = 18;
/// Asks for the offset that the next record gets.
const LATEST: i64 = -1;
const UNKNOWN_TOPIC: i16 = 3;
/// The answers to these requests are far smaller.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How to start a Kafka.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    pub heap_mb: u32,
}

impl Default for KafkaOptions {
    fn default() -> KafkaOptions {
        KafkaOptions { heap_mb: 512 }
    }
}

/// One Kafka node, broker and controller in one process.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
}

impl Kafka {
    /// Starts a broker with an empty log and waits until it answers.
    pub async fn start(options: KafkaOptions) -> Result<Kafka> {
        let install = installed("kafka")?;
        let (folder, port, controller) = (folder("kafka")?, Port::reserve()?, Port::reserve()?);
        let settings = folder.path().join("server.properties");
        let log = data_dir(folder.path());
        fs::write(
            &settings,
            properties(port.number(), controller.number()) + &format!("log.dirs={}\n", log.display()),
        )?;
        let class_path = format!("{}/*", install.join("lib").display());
        let format = Command::new("java")
            .args(["-Xmx128m", "-cp", &class_path, "kafka.tools.StorageTool", "format"])
            .args(["-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"])
            .arg(&settings)
            .stdin(Stdio::null())
            .output()
            .context("failed to start java")?;
        if !format.status.success() {
            bail!("failed to format Kafka's log: {}", String::from_utf8_lossy(&format.stderr));
        }
        let mut arguments: Vec<OsString> = vec![format!("-Xmx{}m", options.heap_mb).into()];
        arguments.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        arguments.extend(["-cp".into(), class_path.into(), "kafka.Kafka".into(), settings.into()]);
        let launch = Launch { name: "kafka", program: "java".into(), arguments, probe: Probe::Kafka };
        let server = Server::start(launch, folder, port, Some(controller)).await?;
        Ok(Kafka { server })
    }

    /// How many records were written to the only partition of a topic; 0 while there is no such topic.
    pub async fn records(&self, topic: &str) -> Result<u64> {
        let mut body = Vec::new();
        body.extend((-1i32).to_be_bytes());
        body.extend(1i32.to_be_bytes());
        body.extend((topic.len() as i16).to_be_bytes());
        body.extend(topic.as_bytes());
        body.extend(1i32.to_be_bytes());
        body.extend(0i32.to_be_bytes());
        body.extend(LATEST.to_be_bytes());
        let answer = request(self.addr(), LIST_OFFSETS, 1, &body).await?;
        // topics:i32 name:i16+bytes partitions:i32 partition:i32 error:i16 timestamp:i64 offset:i64
        let at = 4 + 2 + topic.len() + 4 + 4;
        let error = answer.get(at..at + 2).context("a short answer")?;
        let error = i16::from_be_bytes(error.try_into().expect("two bytes"));
        match error {
            0 => {}
            UNKNOWN_TOPIC => return Ok(0),
            code => bail!("Kafka answered error {code}"),
        }
        let offset = answer.get(at + 10..at + 18).context("a short answer")?;
        Ok(u64::from_be_bytes(offset.try_into().expect("eight bytes")))
    }
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Whether a broker answers.
pub(crate) async fn probe(addr: SocketAddr) -> Result<()> {
    let answer = request(addr, API_VERSIONS, 0, &[]).await?;
    if answer.get(..2) == Some(&[0, 0]) { Ok(()) } else { bail!("Kafka is not ready") }
}

async fn request(addr: SocketAddr, api: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    head.extend(((body.len() + 10) as i32).to_be_bytes());
    head.extend(api.to_be_bytes());
    head.extend(version.to_be_bytes());
    head.extend(1i32.to_be_bytes());
    head.extend((-1i16).to_be_bytes());
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(&head).await?;
    stream.write_all(body).await?;
    let size = stream.read_i32().await?;
    let size = usize::try_from(size).ok().filter(|size| (4..=ANSWER_BYTES_MAX).contains(size));
    let mut answer = vec![0; size.context("Kafka's answer has an impossible size")?];
    stream.read_exact(&mut answer).await?;
    Ok(answer.split_off(4))
}

fn properties(port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         num.partitions=1\n\
         offsets.topic.num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         auto.create.topics.enable=true\n\
         log.cleaner.dedupe.buffer.size=2097152\n"
    )
}
