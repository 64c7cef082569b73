//! HTTP as a source: changes that programs push to the node, into a journal whose commits seal the requests' names.
//!
//! A request is one transaction: all of it is in the journal, or nothing. It is answered when the journal is synced, so that
//! what was answered is never lost; and when it names itself, a repeat of it is known and changes nothing, over kills too, as
//! long as it is one of the last [`base::position::RECENT_REQUESTS_MAX`]. What was pushed cannot be asked for again: there is
//! no snapshot, and no gap.

mod body;

use super::CaptureError;
use super::mysql::{Anew, Control};
use super::status::{PositionStatus, SnapshotStatus, StatusCell};
use super::tables::{Prepared, Tables};
use super::writer::JournalHandle;
use crate::config::SourceConfig;
use crate::formats::decode::{Incoming, MessageFormat, decode};
use crate::patterns::Patterns;
use base::{Op, Position, Step};
use bytes::Bytes;
use journal::Batch;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// Bytes of one request's body.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Bytes of all requests that were sent and not answered yet. More are told to wait.
const WAITING_KIB_MAX: u32 = 64 << 10;
/// What the smallest request counts for: it bounds how many wait.
const REQUEST_KIB_MIN: u32 = 64;
/// Requests whose changes are synced together, by their bodies.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// After an error the journal is opened again at this pace; requests that come meanwhile are refused.
const BACKOFF: Duration = Duration::from_secs(1);
/// What a request may call itself.
pub const ID_BYTES_MAX: usize = 256;

/// A request, as it came.
pub struct Push {
    pub body: Bytes,
    /// `?table=`, for rows that do not say theirs.
    pub table: Option<String>,
    /// Whether `plain` objects are keys of rows that are gone.
    pub deletes: bool,
    /// What it calls itself.
    pub id: Option<String>,
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Changes that it made.
    pub changes: u64,
    /// The last change in the journal: it and all before are durable.
    pub lsn: u64,
    /// Whether it was here before: then it made nothing.
    pub repeated: bool,
}

/// Why nothing of a request was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushError {
    /// Its content is wrong.
    Invalid { message: String, hint: &'static str },
    /// Another request had its name.
    NameTaken,
    /// Too much waits: it may come again a little later.
    Full,
    /// The journal takes nothing, or the node ends. It may be in the journal all the same.
    Away(String),
}

/// Where requests are handed in.
#[derive(Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// Room for a request that has not been read yet; dropping it gives it back.
pub type Room = OwnedSemaphorePermit;

struct Waiting {
    push: Push,
    reply: oneshot::Sender<Result<Pushed, PushError>>,
    _room: Room,
}

/// A source and what it writes to.
pub struct HttpSource {
    pub name: Arc<str>,
    pub config: SourceConfig,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub status: StatusCell,
    pub inbox: Outbox,
}

/// The end of an inbox that capture reads.
pub struct Outbox(mpsc::Receiver<Waiting>);

/// Both ends.
pub fn inbox() -> (Inbox, Outbox) {
    let (sender, receiver) = mpsc::channel((WAITING_KIB_MAX / REQUEST_KIB_MIN) as usize);
    (Inbox { sender, room: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)) }, Outbox(receiver))
}

impl Inbox {
    /// Room for a body of so many bytes; none when too much waits.
    pub fn reserve(&self, bytes: usize) -> Result<Room, PushError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(REQUEST_KIB_MIN);
        Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| PushError::Full)
    }

    /// Hands a request in, and waits until it is durable or refused.
    pub async fn push(&self, push: Push, room: Room) -> Result<Pushed, PushError> {
        let ends = |_| PushError::Away("the node ends".into());
        let (reply, answer) = oneshot::channel();
        self.sender.send(Waiting { push, reply, _room: room }).await.map_err(|_| ends(()))?;
        answer.await.map_err(|_| ends(()))?
    }
}

/// Captures until shutdown.
pub async fn run(
    mut source: HttpSource,
    mut control: mpsc::Receiver<Control>,
    mut shutdown: watch::Receiver<bool>,
) {
    while !*shutdown.borrow() {
        let Err(error) = session(&mut source, &mut control, &mut shutdown).await else { continue };
        source.status.interrupted(&error);
        let pause = tokio::time::sleep(BACKOFF);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = shutdown.changed() => return,
                Some(waiting) = source.inbox.0.recv() => {
                    let _ = waiting.reply.send(Err(PushError::Away(base::error::chain(&error))));
                }
                Some(command) = control.recv() => refuse(command),
            }
        }
    }
}

/// What was pushed is nowhere else.
fn refuse(command: Control) {
    let Control::Resnapshot { reply, .. } = command;
    let _: Result<(), Result<Anew, String>> =
        reply.send(Err("what was pushed cannot be read again: push the rows once more".into()));
}

/// One life of the journal's writer.
async fn session(
    source: &mut HttpSource,
    control: &mut mpsc::Receiver<Control>,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<(), CaptureError> {
    let mut intake = Intake::open(source).await?;
    intake.show(&source.status);
    loop {
        let first = tokio::select! {
            waiting = source.inbox.0.recv() => match waiting {
                Some(waiting) => waiting,
                None => return Ok(()),
            },
            _ = shutdown.changed() => return Ok(()),
            command = control.recv() => match command {
                Some(command) => {
                    refuse(command);
                    continue;
                }
                None => return Ok(()),
            },
        };
        let mut bytes = first.push.body.len();
        let mut group = vec![first];
        while bytes < GROUP_BYTES_MAX
            && let Ok(waiting) = source.inbox.0.try_recv()
        {
            bytes += waiting.push.body.len();
            group.push(waiting);
        }
        let (mut answers, mut batch) = (Vec::new(), source.handle.batch(intake.next_lsn));
        for waiting in group {
            let answer = intake.take(&waiting.push, &mut batch);
            answers.push((waiting, answer));
        }
        let (changes, bytes) = (batch.changes(), batch.len_bytes() as u64);
        let durable = match batch.is_empty() {
            true => source.handle.check(),
            false => match source.handle.append(batch).await {
                Ok(()) => source.handle.flush().await,
                Err(error) => Err(error),
            },
        };
        let away = durable.as_ref().err().map(|error| PushError::Away(base::error::chain(error)));
        for (waiting, answer) in answers {
            // A repeat of what is not durable itself is not durable either.
            let answer = match (&away, answer) {
                (Some(away), Ok(_)) => Err(away.clone()),
                (_, answer) => answer,
            };
            let _ = waiting.reply.send(answer);
        }
        durable?;
        let name = source.name.to_string();
        metrics::counter!(base::metrics::CAPTURED_ROWS, "source" => name.clone()).increment(changes);
        metrics::counter!(base::metrics::CAPTURED_BYTES, "source" => name).increment(bytes);
        intake.show(&source.status);
    }
}

/// What is known of the journal's end.
struct Intake {
    source: Arc<str>,
    format: MessageFormat,
    patterns: Arc<Patterns>,
    /// The table of rows that do not say theirs.
    table: Option<String>,
    tables: Tables,
    next_lsn: u64,
    requests: u64,
    recent: VecDeque<String>,
    /// Whether the journal has no position yet.
    fresh: bool,
}

/// Changes under their definitions, and the time that the first of them tells.
type Taken = (Vec<Prepared>, Option<i64>);

impl Intake {
    async fn open(source: &HttpSource) -> Result<Self, CaptureError> {
        let state = source.handle.reset().await?;
        let fresh = state.position.is_none();
        let (requests, recent) = match state.position {
            None => (0, VecDeque::new()),
            Some(Position::Push { requests, recent }) => (requests, recent),
            Some(_) => {
                return Err(CaptureError::fatal(
                    "the journal belongs to another kind of source",
                    "give the source a new name, or remove its journal",
                ));
            }
        };
        let config = &source.config;
        let format = config.options.format;
        Ok(Self {
            source: Arc::clone(&source.name),
            format,
            patterns: Arc::clone(&source.patterns),
            table: only_table(config),
            tables: Tables::new(format, config.declare.clone(), state.tables.into_values()),
            next_lsn: state.next_lsn,
            requests,
            recent,
            fresh,
        })
    }

    /// All of a request goes into the batch, or nothing.
    fn take(&mut self, push: &Push, batch: &mut Batch) -> Result<Pushed, PushError> {
        let digest = push.id.as_deref().map(|id| digest(id, push));
        let repeated = digest.as_deref().map_or(Ok(false), |digest| self.is_repeat(digest))?;
        if repeated {
            return Ok(Pushed { changes: 0, lsn: self.next_lsn - 1, repeated });
        }
        let prepared = self.prepare(push);
        match prepared {
            Ok(_) => self.tables.keep(),
            Err(_) => self.tables.revert(),
        }
        let (changes, ts_ms) = prepared?;
        if self.fresh {
            batch.commit(&Step::Full(Box::new(Position::Push { requests: 0, recent: VecDeque::new() })));
            self.fresh = false;
        }
        self.requests += 1;
        batch.begin(&format!("{}:{}", self.source, self.requests), ts_ms.unwrap_or_else(now_ms));
        for change in &changes {
            change.put(batch);
        }
        batch.commit(&Step::Push { digest: digest.as_deref().map(Into::into) });
        if let Some(digest) = digest {
            self.recent.push_back(digest);
            if self.recent.len() > base::position::RECENT_REQUESTS_MAX {
                self.recent.pop_front();
            }
        }
        let made = batch.next_lsn() - self.next_lsn;
        self.next_lsn = batch.next_lsn();
        Ok(Pushed { changes: made, lsn: self.next_lsn - 1, repeated: false })
    }

    /// Whether the last requests have this one; an error where they have another of its name.
    fn is_repeat(&self, digest: &str) -> Result<bool, PushError> {
        let name = &digest[..DIGEST_PART_CHARS];
        match self.recent.iter().find(|recent| recent.starts_with(name)) {
            None => Ok(false),
            Some(recent) if recent == digest => Ok(true),
            Some(_) => Err(PushError::NameTaken),
        }
    }

    fn prepare(&mut self, push: &Push) -> Result<Taken, PushError> {
        if push.deletes && self.format != MessageFormat::Plain {
            return Err(PushError::Invalid {
                message: format!("changes in `{}` say themselves what is deleted", self.format.name()),
                hint: "leave `op` out of the URL",
            });
        }
        let shape = "send JSON objects, one a line or in a list; the source's `options: {format: …}` says of which shape";
        let items = body::items(&push.body).map_err(|message| PushError::Invalid { message, hint: shape })?;
        if items.is_empty() {
            return Err(PushError::Invalid { message: "the request has no change".into(), hint: shape });
        }
        let topic = match (self.format, push.table.as_ref().or(self.table.as_ref())) {
            (MessageFormat::Plain, None) => {
                return Err(PushError::Invalid {
                    message: "plain rows do not say which table they are of".into(),
                    hint: "add ?table=shop.orders to the URL, or declare exactly one table",
                });
            }
            (MessageFormat::Plain, Some(table)) => table.clone(),
            _ => String::new(),
        };
        let (mut out, mut ts_ms) = (Vec::with_capacity(items.len()), None);
        for item in items {
            let wrong = |reason: String| PushError::Invalid {
                message: format!("line {}: {reason}", item.line),
                hint: "nothing of the request was taken: mend it and send it again",
            };
            let (key, value) = if push.deletes { (Some(item.text), None) } else { (None, Some(item.text)) };
            let message = Incoming { source: &self.source, topic: &topic, key, value };
            for change in decode(self.format, message).map_err(wrong)? {
                if !self.patterns.matches(&change.name) {
                    return Err(wrong(format!("`{}` is not among the source's `tables`", change.name)));
                }
                let prepared = self.tables.prepare(&change).map_err(wrong)?;
                ts_ms = ts_ms.or(change.ts_ms);
                // There is no snapshot here that a row could be of.
                let as_insert = |prepared: Prepared| Prepared {
                    op: if prepared.op == Op::Read { Op::Insert } else { prepared.op },
                    ..prepared
                };
                out.extend(prepared.map(as_insert));
            }
        }
        Ok((out, ts_ms))
    }

    fn show(&self, status: &StatusCell) {
        let tables = self.tables.all().len() as u64;
        status.advance(|status| {
            status.state = "stream";
            status.position = PositionStatus { pos: Some(self.requests), ..PositionStatus::default() };
            status.snapshot = SnapshotStatus::done(tables, 0);
        });
    }
}

/// The one table that is declared by its whole name.
fn only_table(config: &SourceConfig) -> Option<String> {
    let mut names = config.declare.keys().filter(|name| !name.contains(['*', '?']));
    names.next().filter(|_| config.declare.len() == 1).cloned()
}

/// Hexadecimal digits of each half of a digest: chance does not make two of a thousand alike.
const DIGEST_PART_CHARS: usize = 16;

/// What is kept of a request: half of it tells its name, half its content.
fn digest(id: &str, push: &Push) -> String {
    let hex =
        |hash: Sha256| hash.finalize()[..DIGEST_PART_CHARS / 2].iter().map(|b| format!("{b:02x}")).collect();
    let name: String = hex(Sha256::new_with_prefix(id));
    let table = push.table.as_deref().unwrap_or_default();
    let content: String =
        hex(Sha256::new_with_prefix(&push.body).chain_update([u8::from(push.deletes)]).chain_update(table));
    name + &content
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
