//! NATS JetStream. A message's id is `<source>:<epoch>:<lsn>`; on start the stream's own last message says where this
//! flow is; the expected last sequence fences a second publisher. Consumers may take that message away (a work queue, an
//! age, a purge): then the catalog knows where the flow is, and what it noted late is published again under the same ids.

mod connect;
mod core;
mod message;

pub use core::CoreSink;
pub use message::SUBJECT_DEFAULT;

use crate::config::{FlowConfig, SinkConfig};
use crate::deliver::sink::{Memory, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::mirror::Mirror;
use async_nats::HeaderMap;
use async_nats::jetstream::context::{AccountErrorKind, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode, stream};
use async_trait::async_trait;
use base::Table;
use connect::{Server, away};
use message::Messages;
use std::sync::Arc;
use std::time::Duration;

/// Publishes that wait for their acknowledgement at once.
const OUTSTANDING_MAX: usize = 256;
/// Longer than any retry: the server drops a repeat of an id within this window.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Why JetStream makes no stream, until someone acts.
const NO_STREAM: [ErrorCode; 3] =
    [ErrorCode::STREAM_SUBJECT_OVERLAP, ErrorCode::STREAM_INVALID_CONFIG, ErrorCode::MAXIMUM_STREAMS_LIMIT];
/// What it answers where JetStream is off, for all or for the account.
const NO_JETSTREAM: [ErrorCode; 2] =
    [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT];

pub struct NatsSink {
    server: Server,
    messages: Messages,
    stream_name: String,
    /// Copies of the stream, where it is made.
    replicas: Option<usize>,
    open: Option<Open>,
}

struct Open {
    context: jetstream::Context,
    /// Sequence of the stream's last message: what the next publish must follow.
    last_sequence: u64,
    /// The journal that `progress` is of.
    journal: u64,
    progress: Progress,
    /// Messages were taken out of the stream's end: what comes next may be there, or have been there, already.
    end_is_gone: bool,
    /// The largest payload that the server and the stream take.
    payload_max: usize,
}

impl NatsSink {
    pub fn new(flow: &str, source: &str, sink: &SinkConfig, config: &FlowConfig) -> Result<Self, SinkError> {
        let stream =
            config.options.stream.clone().unwrap_or_else(|| format!("TIDEMILL_{}", flow.to_uppercase()));
        Ok(Self {
            server: Server::new(sink)?,
            messages: Messages::new(source, config),
            stream_name: stream,
            replicas: config.options.replication.map(|copies| copies as usize),
            open: None,
        })
    }

    /// Answers where the stream ends: sequence, and the change in its last message.
    async fn connect(&mut self) -> Result<Option<Standing>, SinkError> {
        let client = self.server.connect().await?;
        let context = jetstream::new(client.clone());
        let filter = self.messages.filter();
        let wanted = stream::Config {
            name: self.stream_name.clone(),
            subjects: vec![filter.clone()],
            num_replicas: self.replicas.unwrap_or(1),
            storage: stream::StorageType::File,
            duplicate_window: DUPLICATE_WINDOW,
            ..stream::Config::default()
        };
        let stream = context.get_or_create_stream(wanted).await.map_err(|error| match error.kind() {
            jetstream::context::CreateStreamErrorKind::JetStream(told)
                if NO_STREAM.contains(&told.error_code()) =>
            {
                SinkError::Blocked {
                    message: format!("NATS makes no stream `{}`: {told}", self.stream_name),
                    hint: "give the flow subjects of its own (`options: {stream: NAME, subject: …}`), or make the stream \
                           by hand; two streams cannot share a subject"
                        .into(),
                }
            }
            jetstream::context::CreateStreamErrorKind::JetStream(told) if NO_JETSTREAM.contains(&told.error_code()) => {
                no_jetstream(&told)
            }
            _ => away(&error),
        })?;
        let info = stream.get_info().await.map_err(|e| away(&e))?;
        if !info.config.subjects.iter().any(|subject| covers(subject, &filter)) {
            return Err(
                self.foreign_stream(&format!("takes {}, not `{filter}`", info.config.subjects.join(", ")))
            );
        }
        let last_sequence = info.state.last_sequence;
        let mut found = last_sequence;
        let mut told = None;
        if info.state.messages > 0 {
            // The last that is there: the very last sequence may have been deleted.
            let message = stream.get_last_raw_message_by_subject(&filter).await.map_err(|error| {
                if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound {
                    return self.foreign_stream(&format!("has messages, none of them on `{filter}`"));
                }
                away(&error)
            })?;
            let number = |name: &str| message.headers.get(name).and_then(|v| v.as_str().parse::<u64>().ok());
            // A change that was parked comes late, and says where the flow was then.
            let epoch = number("Tidemill-Progress-Epoch").or_else(|| number("Tidemill-Epoch"));
            let lsn = number("Tidemill-Progress-Lsn").or_else(|| number("Tidemill-Lsn"));
            let (Some(epoch), Some(lsn)) = (epoch, lsn) else {
                return Err(self.foreign_stream("ends with a message that is not ours"));
            };
            let progress = Progress { epoch: epoch as u32, lsn };
            found = message.sequence;
            told = Some(Standing { journal: journal_of(&message.headers), progress });
        }
        let (journal, progress) = told.map_or_else(Default::default, |told| (told.journal, told.progress));
        let largest = usize::try_from(info.config.max_message_size).unwrap_or(usize::MAX);
        let payload_max = client.server_info().max_payload.min(largest);
        let end_is_gone = last_sequence > 0 && (told.is_none() || found < last_sequence);
        self.open = Some(Open { context, last_sequence, journal, progress, end_is_gone, payload_max });
        Ok(told)
    }

    fn foreign_stream(&self, what: &str) -> SinkError {
        SinkError::Blocked {
            message: format!("stream `{}` {what}", self.stream_name),
            hint: "give the flow a stream of its own: options: {stream: NAME}".into(),
        }
    }

    async fn publish(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let open = self.open.as_ref().ok_or_else(|| away(&"not connected"))?;
        let (journal, done, mut sequence) = (open.journal, open.progress.lsn, open.last_sequence);
        let (payload_max, mut end_is_gone) = (open.payload_max, open.end_is_gone);
        let context = open.context.clone();
        let fresh: Vec<_> = batch.changes.iter().filter(|c| batch.redrive || c.lsn > done).collect();
        let mut rest = &fresh[..];
        while !rest.is_empty() {
            // One by one, until one is new to the stream: the others take no sequence.
            let (part, behind) = rest.split_at(if end_is_gone { 1 } else { rest.len().min(OUTSTANDING_MAX) });
            rest = behind;
            let mut acks = Vec::with_capacity(part.len());
            let before = sequence;
            for change in part {
                let made = self.messages.of(change, journal, payload_max, batch.redrive);
                let Some((subject, mut headers, payload)) = made else { continue };
                headers.insert("Nats-Expected-Last-Sequence", sequence.to_string().as_str());
                if batch.redrive {
                    headers.insert("Tidemill-Progress-Epoch", open.progress.epoch.to_string().as_str());
                    headers.insert("Tidemill-Progress-Lsn", open.progress.lsn.to_string().as_str());
                }
                sequence += 1;
                let ack = context
                    .publish_with_headers(subject, headers, payload.into())
                    .await
                    .map_err(|e| away(&e))?;
                acks.push((change.lsn, ack));
            }
            for (lsn, ack) in acks {
                match ack.await {
                    Ok(ack) if ack.duplicate && end_is_gone => sequence = before,
                    Ok(ack) if ack.duplicate => return Err(self.repeated(ack.sequence)),
                    Ok(_) => end_is_gone = false,
                    Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                        return Err(self.fenced().await);
                    }
                    Err(error) => return Err(refused(lsn, &error).unwrap_or_else(|| away(&error))),
                }
            }
        }
        let open = self.open.as_mut().expect("connected above");
        open.last_sequence = sequence;
        open.end_is_gone = end_is_gone;
        if !batch.redrive {
            open.progress = batch.up_to;
        }
        Ok(())
    }

    /// The stream has a change that it should not have yet; a new `open` sees what is there.
    fn repeated(&self, sequence: u64) -> SinkError {
        SinkError::Unavailable {
            message: format!("stream `{}` had a change already, as message {sequence}", self.stream_name),
        }
    }

    /// Someone wrote to the stream besides us: our own repeat, then all is well after a new `open`; else a stranger.
    async fn fenced(&mut self) -> SinkError {
        let ours = self.open.as_ref().map(|open| open.last_sequence).unwrap_or_default();
        match self.connect().await {
            Err(error) => error,
            Ok(_) => SinkError::Unavailable {
                message: format!(
                    "stream `{}` moved past sequence {ours}: another publisher writes to it",
                    self.stream_name
                ),
            },
        }
    }
}

/// The journal a message came from; 0 when it does not say.
fn journal_of(headers: &HeaderMap) -> u64 {
    let text = headers.get("Tidemill-Journal").map(|value| value.as_str()).unwrap_or_default();
    u64::from_str_radix(text, 16).unwrap_or(0)
}

/// A message that the stream never takes refuses its change alone.
fn refused(lsn: u64, error: &jetstream::context::PublishError) -> Option<SinkError> {
    let told = std::error::Error::source(error)?.downcast_ref::<jetstream::Error>()?;
    (told.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
        .then(|| SinkError::Row { lsn, reason: told.to_string() })
}

/// Whether every subject of `filter` is one of `subject`.
fn covers(subject: &str, filter: &str) -> bool {
    let (mut subject, mut filter) = (subject.split('.'), filter.split('.'));
    loop {
        match (subject.next(), filter.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(part)) if part != ">" => {}
            (Some(own), Some(part)) if own == part => {}
            _ => return false,
        }
    }
}

fn no_jetstream(error: &dyn std::fmt::Display) -> SinkError {
    SinkError::Blocked {
        message: format!("NATS: {error}"),
        hint: "start the server with JetStream (`nats-server --jetstream`), or enable it for this account"
            .into(),
    }
}

#[async_trait]
impl Sink for NatsSink {
    fn attach(&mut self, mirror: Option<&Mirror>) {
        self.messages.tokens.attach(mirror);
    }

    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        self.connect().await
    }

    fn memory(&self) -> Memory {
        match &self.open {
            // Also a stream that nobody has ever written to: it is filled from the journal's start.
            Some(open) if !open.end_is_gone => Memory::LastChange,
            _ => Memory::MayFade,
        }
    }

    fn follow(&mut self, standing: Standing) {
        if let Some(open) = &mut self.open {
            (open.journal, open.progress) = (standing.journal, standing.progress);
        }
    }

    fn refuses_rewind(&self) -> Option<(&'static str, &'static str)> {
        Some((
            "the last message of a JetStream stream says how far the flow is, and the server drops ids that it has seen",
            "consumers can read the stream again from any sequence; a flow with a new name and `stream` fills another",
        ))
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        let client = self.server.connect().await?;
        let asked = jetstream::new(client).query_account().await;
        asked.map(|_| ()).map_err(|error| match error.kind() {
            AccountErrorKind::JetStreamUnavailable => no_jetstream(&error),
            AccountErrorKind::JetStream(told) if NO_JETSTREAM.contains(&told.error_code()) => {
                no_jetstream(&told)
            }
            _ => away(&error),
        })
    }

    async fn prepare(&mut self, _tables: &[Arc<Table>]) -> Result<(), SinkError> {
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let result = self.publish(batch).await;
        if result.is_err() {
            // Some may be stored: only a new `open` knows.
            self.open = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Secret;
    use testkit::{Nats, NatsOptions};

    #[tokio::test]
    async fn a_refused_login_is_told_as_one_and_a_server_that_is_away_is_not() {
        let args = vec!["--user=alice".to_owned(), "--pass=r:ght".to_owned()];
        let nats = Nats::start(NatsOptions { args }).await.unwrap();
        let config = serde_saphyr::from_str("{from: shop, to: bus}").unwrap();
        let sink = |password: &str| {
            let url = nats.url().replace("nats://", &format!("nats://alice:{password}@"));
            let mut sink: SinkConfig = serde_saphyr::from_str("kind: nats").unwrap();
            sink.url = Some(Secret::new(url));
            NatsSink::new("copy", "shop", &sink, &config).unwrap()
        };
        sink("r%3Aght").open().await.unwrap();
        for error in [sink("wrong").open().await.unwrap_err(), sink("wrong").probe().await.unwrap_err()] {
            let SinkError::Blocked { message, hint } = &error else { panic!("{error:?}") };
            assert!(hint.contains("password") && !message.contains("wrong"), "{error:?}");
        }
        nats.stop().await.unwrap();
        let away = sink("r%3Aght").open().await.unwrap_err();
        assert!(matches!(away, SinkError::Unavailable { .. }), "{away:?}");
    }
}
