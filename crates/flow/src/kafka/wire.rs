//! Connections to brokers: requests one after the other on each, and who leads which partition.
//!
//! Each request has one version, old enough for every broker that is still maintained and new enough for Kafka 4.

use super::login::{self, Security};
use crate::tls;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeTransactionsRequest, FetchRequest, MetadataRequest, MetadataResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a broker may wait for its followers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// Largest answer that is read: what a fetch asks for is far smaller.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How a server of TLS answers who does not speak it; as the size of an answer it would be far too large.
const TLS_ALERT: [u8; 2] = [21, 3];
const METADATA_VERSION: i16 = 8;
/// Tells the ids of topics, and the fetch that goes by them; brokers before 3.1 do not have both.
const METADATA_VERSION_WITH_IDS: i16 = 10;
pub const FETCH_VERSION: i16 = 11;
pub const FETCH_VERSION_BY_ID: i16 = 13;

/// What went wrong between us and the brokers.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Connection, time or protocol: a new connection may help.
    #[error("{0}")]
    Broken(String),
    #[error("{what}: {error}")]
    Refused { what: String, error: ResponseError },
    /// A transaction that nobody ends.
    #[error("a transaction in topic `{topic}`, partition 0, has been open since offset {offset}")]
    Hanging { topic: String, offset: i64 },
    /// The broker does not let us in.
    #[error("{0}")]
    Login(String),
    /// What is at the other end is not to be trusted with what we have to say.
    #[error("{message}")]
    Tls { message: String, hint: &'static str },
}

impl WireError {
    pub fn broken(what: impl std::fmt::Display) -> Self {
        Self::Broken(what.to_string())
    }
}

/// `Err` when a broker's answer holds an error.
pub fn checked(what: impl FnOnce() -> String, code: i16) -> Result<(), WireError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(WireError::Refused { what: what(), error }),
    }
}

pub trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// One connection.
pub struct Broker {
    stream: Box<dyn Transport>,
    last_id: i32,
    /// Whether topics have ids for this broker.
    tells_ids: bool,
    /// Whether it tells the state of transactions: since 3.0.
    tells_transactions: bool,
}

impl Broker {
    pub async fn connect(host: &str, port: u16, security: &Security) -> Result<Self, WireError> {
        let opening = async {
            let stream = TcpStream::connect((host, port)).await.map_err(WireError::broken)?;
            stream.set_nodelay(true).map_err(WireError::broken)?;
            let stream: Box<dyn Transport> = match &security.tls {
                Some(connector) => login::start_tls(connector, host, stream).await?,
                None => Box::new(stream),
            };
            let mut broker = Self { stream, last_id: 0, tells_ids: false, tells_transactions: false };
            // Asked first, as every client does: a server that is no broker is found out here.
            let versions = broker.call(0, &ApiVersionsRequest::default()).await?;
            checked(|| format!("{host}:{port}"), versions.error_code)?;
            let has = |key: i16, version: i16| {
                versions.api_keys.iter().any(|api| api.api_key == key && api.max_version >= version)
            };
            broker.tells_ids = has(MetadataRequest::KEY, METADATA_VERSION_WITH_IDS)
                && has(FetchRequest::KEY, FETCH_VERSION_BY_ID);
            broker.tells_transactions = has(DescribeTransactionsRequest::KEY, 0);
            login::log_in(&mut broker, security).await?;
            Ok(broker)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
            Ok(opened) => opened.map_err(|error| match error {
                WireError::Broken(why) => WireError::Broken(format!("{host}:{port}: {why}")),
                other => other,
            }),
            Err(_) => Err(WireError::Broken(format!("{host}:{port}: no answer to the connection"))),
        }
    }

    pub fn tells_transactions(&self) -> bool {
        self.tells_transactions
    }

    fn metadata_version(&self) -> i16 {
        if self.tells_ids { METADATA_VERSION_WITH_IDS } else { METADATA_VERSION }
    }

    /// The fetch that this broker has: by id where it tells ids.
    pub fn fetch_version(&self) -> i16 {
        if self.tells_ids { FETCH_VERSION_BY_ID } else { FETCH_VERSION }
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, WireError> {
        self.last_id = self.last_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.last_id)
            .with_client_id(Some(StrBytes::from_static_str("tidemill")));
        let mut out = BytesMut::new();
        out.put_i32(0);
        header.encode(&mut out, R::header_version(version)).map_err(WireError::broken)?;
        request.encode(&mut out, version).map_err(WireError::broken)?;
        let length = i32::try_from(out.len() - 4).map_err(WireError::broken)?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        let exchange = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
            let length = self.stream.read_i32().await?;
            if length.to_be_bytes()[..2] == TLS_ALERT {
                return Err(std::io::Error::other("this port speaks TLS: write kafkas:// in the url"));
            }
            let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
            let length = length.ok_or_else(|| std::io::Error::other("an answer of an impossible size"))?;
            let mut answer = vec![0; length];
            self.stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(Bytes::from(answer))
        };
        let mut answer = match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(|error| match tls::late_hint(&error) {
                Some(hint) => WireError::Tls { message: format!("TLS: {error}"), hint },
                None => WireError::broken(error),
            })?,
            Err(_) => return Err(WireError::Broken("no answer to a request".to_owned())),
        };
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(WireError::broken)?;
        if header.correlation_id != self.last_id {
            return Err(WireError::Broken("an answer to another request".to_owned()));
        }
        R::Response::decode(&mut answer, version).map_err(WireError::broken)
    }
}

/// A topic as the brokers tell it.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// `None` where the brokers are too old to tell. A topic that is made again has another.
    pub id: Option<Uuid>,
    /// The leader of each partition; −1 while there is none.
    pub leaders: Vec<i32>,
}

/// The brokers of one cluster, and the connections to them.
pub struct Cluster {
    seeds: Vec<(String, u16)>,
    security: Security,
    addresses: HashMap<i32, (String, u16)>,
    /// Taken out while a request is under way; not put back after a failure.
    connections: HashMap<i32, Broker>,
    controller: i32,
    topics: HashMap<String, Topic>,
}

impl Cluster {
    pub fn new(seeds: Vec<(String, u16)>, security: Security) -> Self {
        Self {
            seeds,
            security,
            addresses: HashMap::new(),
            connections: HashMap::new(),
            controller: -1,
            topics: HashMap::new(),
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub fn controller(&self) -> i32 {
        self.controller
    }

    /// A connection to broker `id`, taken out: `put_back` returns it.
    pub async fn take(&mut self, id: i32) -> Result<Broker, WireError> {
        if let Some(broker) = self.connections.remove(&id) {
            return Ok(broker);
        }
        let Some((host, port)) = self.addresses.get(&id) else {
            return Err(WireError::Broken(format!("broker {id} is not known, or there is no leader now")));
        };
        Broker::connect(host, *port, &self.security).await
    }

    pub fn put_back(&mut self, id: i32, broker: Broker) {
        self.connections.insert(id, broker);
    }

    /// Sends a request to broker `id`.
    pub async fn call<R: Request>(
        &mut self,
        id: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, WireError> {
        let mut broker = self.take(id).await?;
        let answer = broker.call(version, request).await?;
        self.put_back(id, broker);
        Ok(answer)
    }

    /// Asks any broker for all topics there are, and keeps those that are wanted. Answers their names.
    pub async fn discover(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, WireError> {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        let mut answer = self.ask(&request).await?;
        answer.topics.retain(|topic| {
            !topic.is_internal && topic.name.as_ref().is_some_and(|name| wanted(name.as_str()))
        });
        let known: Vec<String> = self.topics.keys().cloned().collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        self.learn(&known, answer)?;
        let mut names: Vec<String> = self.topics.keys().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Asks any broker for the brokers and these topics. A topic that does not exist is not among them afterwards.
    pub async fn refresh(&mut self, topics: &[&str]) -> Result<(), WireError> {
        let name = |topic: &&str| {
            MetadataRequestTopic::default()
                .with_name(Some(TopicName(StrBytes::from_string((*topic).to_owned()))))
        };
        let request = MetadataRequest::default()
            .with_topics(Some(topics.iter().map(name).collect()))
            .with_allow_auto_topic_creation(false);
        let answer = self.ask(&request).await?;
        self.learn(topics, answer)
    }

    async fn ask(&mut self, request: &MetadataRequest) -> Result<MetadataResponse, WireError> {
        let mut last = None;
        let known: Vec<i32> = self.addresses.keys().copied().collect();
        for id in known {
            let asked = async {
                let mut broker = self.take(id).await?;
                let answer = broker.call(broker.metadata_version(), request).await?;
                self.put_back(id, broker);
                Ok(answer)
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        for (host, port) in self.seeds.clone() {
            let asked = async {
                let mut broker = Broker::connect(&host, port, &self.security).await?;
                broker.call(broker.metadata_version(), request).await
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| WireError::Broken("no broker is known".to_owned())))
    }

    fn learn(&mut self, asked: &[&str], answer: MetadataResponse) -> Result<(), WireError> {
        self.controller = answer.controller_id.0;
        self.addresses = answer
            .brokers
            .iter()
            .map(|b| (b.node_id.0, (b.host.to_string(), u16::try_from(b.port).unwrap_or_default())))
            .collect();
        self.connections.retain(|id, _| self.addresses.contains_key(id));
        for name in asked {
            self.topics.remove(*name);
        }
        for topic in answer.topics {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            match ResponseError::try_from_code(topic.error_code) {
                None => {
                    let mut leaders = vec![-1; topic.partitions.len()];
                    for partition in topic.partitions {
                        let index = usize::try_from(partition.partition_index).unwrap_or(usize::MAX);
                        if let Some(leader) = leaders.get_mut(index) {
                            *leader = partition.leader_id.0;
                        }
                    }
                    let id = Some(topic.topic_id).filter(|id| !id.is_nil());
                    self.topics.insert(name, Topic { id, leaders });
                }
                Some(ResponseError::UnknownTopicOrPartition) => {}
                Some(error) => return Err(WireError::Refused { what: format!("topic `{name}`"), error }),
            }
        }
        Ok(())
    }
}
