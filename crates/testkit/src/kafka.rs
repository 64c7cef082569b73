//! Kafka: one node, alone or of a cluster, and a plain reading of what its topics hold.
//!
//! Two requests of its protocol are spoken here, each in its first version that a broker of today still answers:
//!
//! ```text
//! request  = size:i32 api:i16 version:i16 correlation:i32 client:i16 (-1: none) body        (big-endian)
//! response = size:i32 correlation:i32 body
//! ```

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fault_proxy::FaultProxy;
use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

const FETCH: i16 = 1;
const FETCH_VERSION: i16 = 11;
const FETCH_BYTES: i32 = 16 << 20;
const READ_COMMITTED: i8 = 1;
const LIST_OFFSETS: i16 = 2;
const API_VERSIONS: i16 = 18;
/// Asks for the offset that the next record gets.
const LATEST: i64 = -1;
const UNKNOWN_TOPIC: i16 = 3;
/// The answers to these requests are smaller.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How to start a Kafka.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    pub heap_mb: u32,
    /// Tells its clients to come by a proxy: [`Kafka::proxy`].
    pub by_proxy: bool,
    /// Name and password of the one user who is let in, by PLAIN or SCRAM; without, everyone is.
    pub user: Option<(String, String)>,
    /// A PEM file with the key and the certificates of the clients' listener, which then speaks TLS.
    pub tls: Option<PathBuf>,
    /// More lines of its configuration: `message.max.bytes=2000`.
    pub settings: Vec<String>,
    /// More options of its Java.
    pub java: Vec<String>,
}

impl Default for KafkaOptions {
    fn default() -> KafkaOptions {
        KafkaOptions {
            heap_mb: 512,
            by_proxy: false,
            user: None,
            tls: None,
            settings: Vec::new(),
            java: Vec::new(),
        }
    }
}

/// A record as a consumer sees it.
#[derive(Clone, Debug)]
pub struct KafkaRecord {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    /// The same as they are, for what is no text.
    pub key_bytes: Option<Bytes>,
    pub value_bytes: Option<Bytes>,
    pub headers: Vec<(String, String)>,
}

/// One Kafka node, broker and controller in one process.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
    /// Where this process comes in, whoever else may not.
    internal: Port,
    proxy: Option<FaultProxy>,
}

impl Kafka {
    /// Starts a broker with an empty log and waits until it answers.
    pub async fn start(options: KafkaOptions) -> Result<Kafka> {
        let ports = Ports::reserve()?;
        let voters = voters([&ports]);
        Kafka::start_node(options, 1, ports, &voters).await
    }

    /// Starts the node `id` of those that vote; it answers when most of them run.
    pub(crate) async fn start_node(
        options: KafkaOptions,
        id: usize,
        ports: Ports,
        voters: &str,
    ) -> Result<Kafka> {
        let install = installed("kafka")?;
        let folder = folder("kafka")?;
        let proxy = if options.by_proxy { Some(FaultProxy::start(ports.client.addr()).await?) } else { None };
        let advertised = proxy.as_ref().map_or(ports.client.number(), |proxy| proxy.addr().port());
        let settings = folder.path().join("server.properties");
        let mut text = properties(id, &ports, advertised, voters);
        text.push_str(&format!("log.dirs={}\n", data_dir(folder.path()).display()));
        text.push_str(&login_properties(&options));
        for line in &options.settings {
            text.push_str(&format!("{line}\n"));
        }
        fs::write(&settings, text)?;
        let class_path = format!("{}/*", install.join("lib").display());
        let mut format = Command::new("java");
        format
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", &class_path])
            .args(["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"])
            .arg(&settings);
        if let Some((name, password)) = &options.user {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format.arg("--add-scram");
                format.arg(format!("{mechanism}=[name=\"{name}\",password=\"{password}\"]"));
            }
        }
        format.stdin(Stdio::null());
        // Beside the other nodes of a cluster.
        let format = tokio::task::spawn_blocking(move || format.output()).await?;
        let format = format.context("failed to start java")?;
        if !format.status.success() {
            bail!("failed to format Kafka's log: {}", String::from_utf8_lossy(&format.stderr));
        }
        let mut arguments: Vec<OsString> = vec![format!("-Xmx{}m", options.heap_mb).into()];
        arguments.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        arguments.extend(options.java.iter().map(OsString::from));
        arguments.extend(["-cp".into(), class_path.into(), "kafka.Kafka".into(), settings.into()]);
        let launch = Launch {
            name: "kafka",
            program: "java".into(),
            arguments,
            probe: Probe::Kafka(ports.internal.addr()),
        };
        let Ports { client, internal, controller } = ports;
        let server = Server::start(launch, folder, client, Some(controller)).await?;
        Ok(Kafka { server, internal, proxy })
    }

    /// `kafka://…`, as a client writes it.
    pub fn url(&self) -> String {
        let addr = self.proxy.as_ref().map_or(self.addr(), FaultProxy::addr);
        format!("kafka://{addr}")
    }

    /// The proxy that clients come by, where the options ask for one.
    pub fn proxy(&self) -> Option<&FaultProxy> {
        self.proxy.as_ref()
    }

    /// All committed records of a topic, each partition in order; none while there is no such topic.
    pub async fn messages(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        let mut out = Vec::new();
        for partition in 0.. {
            match self.partition_messages(topic, partition).await? {
                Some(records) => out.extend(records),
                None => break,
            }
        }
        Ok(out)
    }

    /// All committed records of a partition that this node leads; `None` when there is no such partition.
    pub(crate) async fn partition_messages(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Option<Vec<KafkaRecord>>> {
        let (mut out, mut offset) = (Vec::new(), 0);
        loop {
            let (records, end) = self.fetch(topic, partition, offset).await?;
            let Some(end) = end else { return Ok(None) };
            offset = records.last().map_or(end, |record| record.offset + 1);
            out.extend(visible(partition, records));
            if offset >= end {
                return Ok(Some(out));
            }
        }
    }

    pub(crate) fn internal_addr(&self) -> SocketAddr {
        self.internal.addr()
    }

    /// Whether a topic has a partition, with a leader.
    pub(crate) async fn has_partition(&self, topic: &str, partition: i32) -> bool {
        self.fetch(topic, partition, 0).await.is_ok_and(|(_, end)| end.is_some())
    }

    /// Whether a transaction is open in a partition.
    pub(crate) async fn is_open(&self, topic: &str, partition: i32) -> Result<bool> {
        let told = self.fetch_partition(topic, partition, 0).await?;
        Ok(told.last_stable_offset < told.high_watermark)
    }

    /// Some committed records of a partition from `offset` on.
    pub async fn messages_from(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<KafkaRecord>> {
        let (records, _) = self.fetch(topic, partition, offset).await?;
        Ok(visible(partition, records).collect())
    }

    /// Committed records from `offset` on, and where those that may be read end; `None` when there is no such partition.
    async fn fetch(&self, topic: &str, partition: i32, offset: i64) -> Result<(Vec<Record>, Option<i64>)> {
        let told = self.fetch_partition(topic, partition, offset).await?;
        match told.error_code {
            0 => {}
            UNKNOWN_TOPIC => return Ok((Vec::new(), None)),
            code => bail!("Kafka answered error {code}"),
        }
        let mut aborted: Vec<(i64, i64)> = told
            .aborted_transactions
            .unwrap_or_default()
            .iter()
            .map(|txn| (txn.producer_id.0, txn.first_offset))
            .collect();
        let mut bytes = told.records.unwrap_or_default();
        let (mut records, mut open) = (Vec::new(), HashSet::new());
        // An answer may end within a batch: what is whole is read.
        while let Some(head) = bytes.get(8..12) {
            let length = i32::from_be_bytes(head.try_into().expect("four bytes"));
            let size = usize::try_from(length)? + 12;
            if bytes.len() < size {
                break;
            }
            for record in RecordBatchDecoder::decode(&mut bytes.split_to(size))?.records {
                aborted.retain(|(producer, first)| {
                    let begins = *first <= record.offset;
                    if begins {
                        open.insert(*producer);
                    }
                    !begins
                });
                if record.control {
                    open.remove(&record.producer_id);
                }
                if !(record.transactional && open.contains(&record.producer_id)) {
                    records.push(record);
                }
            }
        }
        Ok((records, Some(told.last_stable_offset)))
    }

    async fn fetch_partition(&self, topic: &str, partition: i32, offset: i64) -> Result<PartitionData> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_BYTES);
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let mut body = BytesMut::new();
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_bytes(FETCH_BYTES)
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(name).with_partitions(vec![wanted])])
            .encode(&mut body, FETCH_VERSION)?;
        let answer = request(self.internal.addr(), FETCH, FETCH_VERSION, &body).await?;
        let answer = FetchResponse::decode(&mut Bytes::from(answer), FETCH_VERSION)?;
        let told = answer.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        told.context("an answer without the partition")
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
        let answer = request(self.internal.addr(), LIST_OFFSETS, 1, &body).await?;
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

/// What a consumer sees of records.
fn visible(partition: i32, records: Vec<Record>) -> impl Iterator<Item = KafkaRecord> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    records.into_iter().filter(|record| !record.control).map(move |record| KafkaRecord {
        partition,
        offset: record.offset,
        key: record.key.as_ref().map(text),
        value: record.value.as_ref().map(text),
        key_bytes: record.key.clone(),
        value_bytes: record.value.clone(),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_ref().map(text).unwrap_or_default()))
            .collect(),
    })
}

/// Whether a broker answers.
pub(crate) async fn probe(addr: SocketAddr) -> Result<()> {
    let answer = request(addr, API_VERSIONS, 0, &[]).await?;
    if answer.get(..2) == Some(&[0, 0]) { Ok(()) } else { bail!("Kafka is not ready") }
}

pub(crate) async fn request(addr: SocketAddr, api: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
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

/// TLS and SASL on the clients' listener.
fn login_properties(options: &KafkaOptions) -> String {
    let security = match (&options.tls, &options.user) {
        (None, None) => "PLAINTEXT",
        (None, Some(_)) => "SASL_PLAINTEXT",
        (Some(_), None) => "SSL",
        (Some(_), Some(_)) => "SASL_SSL",
    };
    let mut text =
        format!("listener.security.protocol.map=CLIENT:{security},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT\n");
    if let Some(store) = &options.tls {
        text.push_str("listener.name.client.ssl.keystore.type=PEM\n");
        text.push_str(&format!("listener.name.client.ssl.keystore.location={}\n", store.display()));
    }
    if let Some((name, password)) = &options.user {
        let module = "org.apache.kafka.common.security";
        text.push_str("sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n");
        text.push_str(&format!(
            "listener.name.client.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{name}=\"{password}\";\n"
        ));
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            text.push_str(&format!(
                "listener.name.client.{mechanism}.sasl.jaas.config={module}.scram.ScramLoginModule required;\n"
            ));
        }
    }
    text
}

/// The ports of one node.
#[derive(Debug)]
pub(crate) struct Ports {
    client: Port,
    internal: Port,
    controller: Port,
}

impl Ports {
    pub(crate) fn reserve() -> Result<Ports> {
        Ok(Ports { client: Port::reserve()?, internal: Port::reserve()?, controller: Port::reserve()? })
    }
}

/// `controller.quorum.voters` of nodes that are numbered from 1.
pub(crate) fn voters<'a>(nodes: impl IntoIterator<Item = &'a Ports>) -> String {
    let voter = |(index, ports): (usize, &Ports)| format!("{}@{}", index + 1, ports.controller.addr());
    nodes.into_iter().enumerate().map(voter).collect::<Vec<_>>().join(",")
}

fn properties(id: usize, ports: &Ports, advertised: u16, voters: &str) -> String {
    let (port, internal, controller) =
        (ports.client.number(), ports.internal.number(), ports.controller.number());
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=CLIENT://127.0.0.1:{advertised},INTERNAL://127.0.0.1:{internal}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=INTERNAL\n\
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
