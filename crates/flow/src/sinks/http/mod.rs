//! Changes as requests to a URL: a webhook.
//!
//! ```text
//! POST PATH
//! content-type       application/json, or application/cloudevents-batch+json
//! webhook-id         SOURCE:EPOCH:FIRST-LAST:CRC, the first and last lsn in the body and its CRC-32C
//! idempotency-key    the same
//! webhook-timestamp, webhook-signature     with a secret: see crate::webhook
//! [CHANGE,…]
//! ```
//! With `notify` the body is one object that says what changed, without rows: see [`notify`].
//!
//! One request at a time, in order. A receiver cannot be asked what it has, so the catalog keeps progress; what may have
//! arrived is sent again as it was, with the same id. A body that is refused is halved until the change that is at fault is
//! alone.

mod notify;
mod request;
mod verdict;

use crate::config::{FlowConfig, HttpMethod, SinkConfig};
use crate::deliver::sink::{Memory, Sink, SinkBatch, SinkError, Standing};
use crate::formats::{Encoder, Format};
use crate::http_client::{self, Client, Endpoint, Patience};
use crate::mirror::Mirror;
use crate::subscribe::broker::Tokens;
use crate::webhook::{self, Key};
use async_trait::async_trait;
use base::{Secret, Table};
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method};
use request::{Part, body, content_type, first_request, id, parts};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use verdict::{Verdict, judge, of_client};

/// Changes of one request: few enough that a receiver answers in time.
pub const BATCH_ROWS_DEFAULT: u32 = 100;
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Of an answer, only its status and the beginning of its reason are of use.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// What the sink's file says, read.
pub struct Receiver {
    endpoint: Endpoint,
    path: Secret,
    method: Method,
    headers: HeaderMap,
    keys: Vec<Key>,
    timeout: Duration,
}

impl Receiver {
    /// `Err` says what is wrong, without any secret, and what to do.
    pub fn read(sink: &SinkConfig) -> Result<Self, (String, String)> {
        let wrong = |message: String, hint: &str| (message, hint.to_owned());
        let url =
            sink.url.as_ref().ok_or_else(|| wrong("`url` is missing".into(), "url: https://host/path"))?;
        let (endpoint, path) =
            Endpoint::parse(url, None).map_err(|message| wrong(message, "url: https://host/path"))?;
        let headers = http_client::headers(&sink.headers)?;
        let keys = webhook::keys(&sink.secrets).map_err(|message| wrong(message, webhook::KEY_HINT))?;
        let timeout = sink.timeout.map_or(TIMEOUT_DEFAULT, |span| span.0);
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
            return Err(wrong("`timeout` is not between 1s and 10m".into(), "timeout: 30s"));
        }
        let method = match sink.method {
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
        };
        Ok(Self { endpoint, path, method, headers, keys, timeout })
    }
}

pub struct HttpSink {
    receiver: Receiver,
    source: String,
    encoder: Encoder,
    rows_max: usize,
    client: Client,
    /// For a flow that tells only what changed.
    notify: Option<Tokens>,
    flow: String,
    journal: u64,
    /// The last change that the receiver took since the last `open`, in a batch that came back for the one behind it.
    taken: u64,
}

impl HttpSink {
    pub fn new(
        flow_name: &str,
        name: &str,
        source: &str,
        sink: &SinkConfig,
        flow: &FlowConfig,
    ) -> Result<Self, SinkError> {
        let receiver = Receiver::read(sink).map_err(|(message, hint)| SinkError::Blocked {
            message: format!("sink `{name}`: {message}"),
            hint,
        })?;
        let patience = Patience { answer_wait: receiver.timeout, answer_bytes_max: ANSWER_BYTES_MAX };
        Ok(Self {
            client: Client::new(receiver.endpoint.clone(), patience),
            receiver,
            source: source.to_owned(),
            encoder: Encoder::new(flow.options.format, source, flow.options.schemas),
            rows_max: flow.options.batch_rows.unwrap_or(BATCH_ROWS_DEFAULT).max(1) as usize,
            notify: flow.options.notify.then(|| Tokens::new(source, flow)),
            flow: flow_name.to_owned(),
            journal: 0,
            taken: 0,
        })
    }

    /// Sends parts in order; on a refusal, halves, until they pass or the one that cannot is alone. All before that one
    /// are taken then.
    async fn send(&mut self, parts: &[Part], redrive: bool) -> Result<(), SinkError> {
        let mut waiting: Vec<&[Part]> = Vec::new();
        let mut rest = parts;
        loop {
            let now = match waiting.pop() {
                Some(now) => now,
                None if rest.is_empty() => return Ok(()),
                None => {
                    let (now, behind) = rest.split_at(first_request(rest, self.rows_max));
                    rest = behind;
                    now
                }
            };
            match self.post(now).await? {
                None => {
                    let last = now.last().map_or(0, |part| part.lsn);
                    if !redrive {
                        self.taken = self.taken.max(last);
                    }
                }
                Some(reason) if now.len() == 1 => return Err(SinkError::Row { lsn: now[0].lsn, reason }),
                Some(_) => {
                    let (first, second) = now.split_at(now.len() / 2);
                    waiting.extend([second, first]);
                }
            }
        }
    }

    /// One request; the reason when its body is refused.
    async fn post(&mut self, parts: &[Part]) -> Result<Option<String>, SinkError> {
        let Some(body) = body(self.encoder.format, parts) else { return Ok(None) };
        let id = id(&self.source, parts, &body);
        self.request(&id, body, content_type(self.encoder.format)).await
    }

    /// One request for a batch, without its rows.
    async fn notify(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let Some(tokens) = &mut self.notify else { return Ok(()) };
        let said =
            notify::body(&self.source, &self.flow, tokens, self.journal, &batch.changes, batch.redrive);
        let Some((id, body)) = said else { return Ok(()) };
        match self.request(&id, body, content_type(Format::Json)).await? {
            None => Ok(()),
            // It is of no single change.
            Some(reason) => Err(SinkError::Blocked {
                message: format!("the receiver refuses a notification: {reason}"),
                hint: "a notification says what changed and holds no rows: does the receiver expect changes?"
                    .into(),
            }),
        }
    }

    async fn request(
        &mut self,
        id: &str,
        body: Bytes,
        kind: &'static str,
    ) -> Result<Option<String>, SinkError> {
        let headers = self.headers(id, &body);
        let Receiver { method, path, .. } = &self.receiver;
        let answer = self.client.call(method.clone(), path.expose(), headers, Some((kind, body))).await;
        match judge(&answer.map_err(of_client)?, now_s()) {
            Verdict::Taken => Ok(None),
            Verdict::Refused(reason) => Ok(Some(reason)),
            Verdict::Failed(error) => Err(error),
        }
    }

    fn headers(&self, id: &str, body: &Bytes) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("names and numbers are ASCII");
        let mut headers = self.receiver.headers.clone();
        headers.insert(webhook::ID, value(id));
        headers.insert("idempotency-key", value(id));
        let now = now_s();
        headers.insert(webhook::TIMESTAMP, value(&now.to_string()));
        if !self.receiver.keys.is_empty() {
            let signature = webhook::sign(&self.receiver.keys, id, now, body);
            headers.insert(webhook::SIGNATURE, value(&signature));
        }
        headers
    }
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[async_trait]
impl Sink for HttpSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.taken = 0;
        Ok(None)
    }

    fn memory(&self) -> Memory {
        Memory::None
    }

    fn repeats_whole(&self) -> bool {
        true
    }

    fn attach(&mut self, mirror: Option<&Mirror>) {
        if let Some(tokens) = &mut self.notify {
            tokens.attach(mirror);
        }
    }

    fn follow(&mut self, standing: Standing) {
        self.journal = standing.journal;
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// A request would be taken for a change: only the way there is tried.
    async fn probe(&mut self) -> Result<(), SinkError> {
        self.receiver.endpoint.try_connect().await.map_err(of_client)
    }

    async fn prepare(&mut self, _tables: &[Arc<Table>]) -> Result<(), SinkError> {
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        if self.notify.is_some() {
            return self.notify(batch).await;
        }
        // A batch that comes back without a refused change was taken up to there.
        let fresh = |lsn: u64| batch.redrive || lsn > self.taken;
        let from = batch.changes.iter().position(|change| fresh(change.lsn)).unwrap_or(batch.changes.len());
        let parts = parts(&self.encoder, &batch.changes[from..]);
        self.send(&parts, batch.redrive).await
    }
}
