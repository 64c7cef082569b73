//! A client of Tidemill's subscriptions: follows a shape, over as many connections as it takes, and keeps a local copy of it.
//!
//! [`Subscription`] yields responses one by one and comes again by itself, with the last token, when a connection breaks.
//! [`Copy`] applies them to a SQLite file, rows and token in one transaction, and proves by the server's checksums that it is equal.

mod copy;
mod hash;

pub use copy::{Copy, CopyError, Totals};
pub use hash::row_hash;
pub use proto::v1;

use proto::v1::subscriptions_client::SubscriptionsClient;
use proto::v1::{AcknowledgeRequest, MarkRequest, Shape, SubscribeRequest, SubscribeResponse};
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

/// Bytes of the largest response that is taken: a row can be as large as MySQL's packets.
const RESPONSE_BYTES_MAX: usize = 1 << 30;
/// The first wait before it is tried again, which doubles up to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing comes is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Where a node is, and with which right it is asked.
#[derive(Clone)]
pub struct Node {
    channel: Channel,
    bearer: Option<MetadataValue<Ascii>>,
}

/// What `https://` takes, as the texts of PEM files.
#[derive(Clone, Copy, Default)]
pub struct Tls<'a> {
    /// What the server's certificate is checked by instead of the system's authorities.
    pub authority: Option<&'a str>,
    /// A certificate, with its chain, and its key.
    pub identity: Option<(&'a str, &'a str)>,
}

/// Why a node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("`{0}` is no address of a node: http://127.0.0.1:7070 is one")]
    Address(String),
    #[error("the token has characters that a header cannot have")]
    Bearer,
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

impl Node {
    /// `url` as `http://127.0.0.1:7070`, or `https://`; `authority` is a PEM file's text that the server's certificate is checked
    /// by instead of the system's. Connects when it is first asked.
    pub fn new(url: &str, bearer: Option<&str>, authority: Option<&str>) -> Result<Self, NodeError> {
        Self::secured(url, bearer, Tls { authority, identity: None })
    }

    /// The same, with a certificate that is shown where the node asks for one.
    pub fn secured(url: &str, bearer: Option<&str>, tls: Tls<'_>) -> Result<Self, NodeError> {
        let wrong = || NodeError::Address(url.to_owned());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if url.starts_with("https://") {
            let config = match tls.authority {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_enabled_roots(),
            };
            endpoint = endpoint.tls_config(match tls.identity {
                Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
                None => config,
            })?;
        }
        let bearer = bearer
            .map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>())
            .transpose()
            .map_err(|_| NodeError::Bearer)?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        Ok(Self { channel: endpoint.connect_lazy(), bearer })
    }

    fn client(&self) -> SubscriptionsClient<Channel> {
        SubscriptionsClient::new(self.channel.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }
}

/// A shape that is followed.
pub struct Subscription {
    node: Node,
    shape: Shape,
    token: Vec<u8>,
    keep_seconds: u32,
    stream: Option<Streaming<SubscribeResponse>>,
    /// What the open stream is called.
    id: Option<u64>,
    wait: Duration,
    /// When it is tried again.
    again: Option<Instant>,
}

/// What a subscription says.
#[derive(Clone, Debug)]
pub enum Heard {
    Response(Box<SubscribeResponse>),
    /// The connection broke, or could not be made; it is tried again after the wait.
    Broken {
        reason: String,
        wait: Duration,
    },
}

impl Subscription {
    /// Follows `shape` from the last stored `token`, or from nothing where that is empty.
    pub fn new(node: Node, shape: Shape, token: Vec<u8>) -> Self {
        Self { node, shape, token, keep_seconds: 0, stream: None, id: None, wait: BACKOFF_MIN, again: None }
    }

    /// Asks the server to keep what it knows of the shape for so long after its last client has gone, as far as it lets clients say so.
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep_seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        self
    }

    /// The next response. `Err` is an answer that comes again however often it is asked: the shape does not fit, or the caller has no
    /// right to it. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Heard, Status> {
        if self.stream.is_none() {
            if let Some(again) = self.again {
                tokio::time::sleep_until(again).await;
                self.again = None;
            }
            let request = SubscribeRequest {
                shape: Some(self.shape.clone()),
                token: self.token.clone(),
                credits: 0,
                keep_seconds: self.keep_seconds,
            };
            match self.node.client().subscribe(self.node.request(request)).await {
                Ok(response) => self.stream = Some(response.into_inner()),
                Err(status) => return self.broken(status),
            }
        }
        let Some(stream) = &mut self.stream else { return Err(Status::internal("no stream")) };
        match stream.message().await {
            Ok(Some(response)) => {
                self.wait = BACKOFF_MIN;
                if let Some(v1::subscribe_response::Event::Ready(ready)) = &response.event {
                    self.id = Some(ready.subscription);
                }
                if let Some(v1::subscribe_response::Event::Reset(_)) = &response.event {
                    self.token.clear();
                }
                if !response.token.is_empty() {
                    self.token.clone_from(&response.token);
                }
                Ok(Heard::Response(Box::new(response)))
            }
            Ok(None) => self.broken(Status::unavailable("the stream ended")),
            Err(status) => self.broken(status),
        }
    }

    fn broken(&mut self, status: Status) -> Result<Heard, Status> {
        (self.stream, self.id) = (None, None);
        match status.code() {
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted => {
                let wait = self.wait;
                self.wait = (self.wait * 2).min(BACKOFF_MAX);
                self.again = Some(Instant::now() + wait);
                Ok(Heard::Broken { reason: status.message().to_owned(), wait })
            }
            _ => Err(status),
        }
    }

    /// The token of the last response that had one.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// Goes back to a token: what came since was not stored.
    pub fn rewind(&mut self, token: Vec<u8>) {
        (self.token, self.stream, self.id) = (token, None, None);
    }

    /// Says how many responses with a batch of the open stream were dealt with.
    pub async fn acknowledge(&self, batches: u64) -> Result<(), Status> {
        let Some(subscription) = self.id else { return Ok(()) };
        let request = self.node.request(AcknowledgeRequest { subscription, batches });
        self.node.client().acknowledge(request).await.map(|_| ())
    }

    /// Asks to be told when all has come that the source had committed by now; the answer is the number that `Reached` will have.
    pub async fn mark(&self) -> Result<u64, Status> {
        let Some(subscription) = self.id else {
            return Err(Status::failed_precondition("no stream is open"));
        };
        let request = self.node.request(MarkRequest { subscription });
        Ok(self.node.client().mark(request).await?.into_inner().mark)
    }
}
