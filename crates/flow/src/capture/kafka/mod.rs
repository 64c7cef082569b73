//! Kafka as a source: topics that hold changes, or rows, into a journal whose commits seal the offsets.
//!
//! Each message is one transaction, unless those that follow it in its partition name the same one. Order is kept within
//! a partition; partitions are taken as they come. What no message can be is named by topic, partition and offset, and stops
//! the source or is passed over, as `on_bad` says: never guessed at. See `docs/decisions/0007-kafka-source.md`.

pub mod consumer;
mod intake;
pub mod plan;
pub mod ticdc;
pub mod unpack;

use super::mysql::{Anew, Control};
use super::status::{PositionStatus, SnapshotStatus, SourceStatus, StatusCell};
use super::tables::Tables;
use super::writer::JournalHandle;
use super::{CaptureError, CaptureErrorKind};
use crate::config::{OnGap, SourceConfig};
use crate::formats::decode::MessageFormat;
use crate::kafka::login;
use crate::kafka::wire::{Cluster, WireError};
use crate::patterns::{Patterns, wildcard};
use base::{Position, Secret, SnapshotProgress, Step, Table, TableName, TableSnapshot};
use consumer::{Consumer, Live};
use intake::{Intake, now_ms};
use journal::{Batch, State};
use kafka_protocol::ResponseError;
use plan::{Plan, Topics, from_start, past_gaps, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use unpack::Unpacker;

/// How often topics and partitions are looked for.
const DISCOVER_INTERVAL: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After what only a person can mend.
const BACKOFF_FATAL: Duration = Duration::from_secs(5);
/// While leaders move, brokers are asked so often, for so long, before it is told.
const STALE_PAUSE: Duration = Duration::from_millis(100);
const STALE_MAX: Duration = Duration::from_secs(10);
/// While there is no topic.
const IDLE_PAUSE: Duration = Duration::from_millis(500);

/// A cluster and what its topics are written to.
pub struct KafkaSource {
    pub name: Arc<str>,
    pub config: SourceConfig,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub status: StatusCell,
}

/// Captures until shutdown.
pub async fn run(
    source: KafkaSource,
    mut control: mpsc::Receiver<Control>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut backoff = BACKOFF_MIN;
    let mut skipped = 0;
    let mut counts = ticdc::Counts::default();
    let mut idle = BTreeSet::new();
    while !*shutdown.borrow() {
        let started = Instant::now();
        let ended = match source.config.options.format.ticdc() {
            None => session(&source, &mut control, &mut shutdown, &mut skipped, &mut idle).await,
            Some(protocol) => {
                let session =
                    ticdc::session(&source, protocol, &mut control, &mut shutdown, &mut counts, &mut idle);
                session.await
            }
        };
        let Err(error) = ended else { continue };
        if started.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        source.status.interrupted(&error);
        let pause = if error.kind == CaptureErrorKind::Unavailable { backoff } else { BACKOFF_FATAL };
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shutdown.changed() => return,
            Some(Control::Resnapshot { reply, .. }) = control.recv() => {
                let answer = if error.kind == CaptureErrorKind::Gap {
                    let reason = format!("a resnapshot was asked for, past: {}", base::error::chain(&error));
                    begin_again(&source, &reason).await
                } else {
                    Err(error)
                };
                let _ = reply.send(answer.map_err(|error| base::error::chain(&error)));
            }
        }
    }
}

/// The topics of a cluster that a source reads, for `check --connect`: each with its partitions.
pub async fn list_topics(config: &SourceConfig) -> Result<Vec<(String, usize)>, CaptureError> {
    let mut consumer = consumer(config)?;
    let names = consumer.discover(|topic| wanted(config, topic)).await.map_err(explain)?;
    // Offsets tell whether we may read.
    let live = consumer.live(&names).await.map_err(explain)?;
    if let Some(mut unpacker) = unpacker(config)? {
        unpacker.probe().await?;
    }
    ticdc::probe(config).await?;
    Ok(live.into_iter().map(|(name, now)| (name, now.earliest.len())).collect())
}

/// The patterns of a source that match no topic.
pub fn idle_patterns<'a>(config: &'a SourceConfig, topics: &[String]) -> Vec<&'a str> {
    let matches = |pattern: &&String| !topics.iter().any(|topic| wildcard(pattern, topic));
    config.topics.iter().filter(matches).map(String::as_str).collect()
}

pub fn wanted(config: &SourceConfig, topic: &str) -> bool {
    // Tidemill's own notes are no changes.
    topic != crate::sinks::kafka::PROGRESS_TOPIC
        && config.topics.iter().any(|pattern| wildcard(pattern, topic))
        && !topic.starts_with("__")
}

pub fn consumer(config: &SourceConfig) -> Result<Consumer, CaptureError> {
    let url = config.url.clone().unwrap_or_else(|| Secret::new(String::new()));
    let (seeds, security) = login::parse_url(&url, &config.options.tls_files()).map_err(|message| {
        let hint = "write kafka://host:9092, several hosts with commas; kafkas:// for TLS, and `tls_ca` for a PEM file";
        CaptureError::fatal(message, hint)
    })?;
    Ok(Consumer::new(Cluster::new(seeds, security)))
}

/// What reads messages that are no text.
pub fn unpacker(config: &SourceConfig) -> Result<Option<Unpacker>, CaptureError> {
    let packed = config.options.format == MessageFormat::Avro;
    let files = config.options.tls_files();
    packed.then(|| Unpacker::new(config.schema_registry.as_ref(), &files, "source")).transpose()
}

pub fn explain(error: WireError) -> CaptureError {
    let message = format!("Kafka: {error}");
    match &error {
        WireError::Broken(_) | WireError::Hanging { .. } => CaptureError::unavailable(message),
        WireError::Login(_) => CaptureError::fatal(message, "check the URL's user, password and sasl="),
        WireError::Tls { hint, .. } => CaptureError::fatal(message, *hint),
        WireError::Refused { error, .. } => match error {
            ResponseError::TopicAuthorizationFailed | ResponseError::ClusterAuthorizationFailed => {
                CaptureError::fatal(message, "grant the user Read and Describe on the source's topics")
            }
            _ => CaptureError::unavailable(message),
        },
    }
}

/// One life of the connections, from the journal's last commit on.
async fn session(
    source: &KafkaSource,
    control: &mut mpsc::Receiver<Control>,
    shutdown: &mut watch::Receiver<bool>,
    skipped: &mut u64,
    idle: &mut BTreeSet<String>,
) -> Result<(), CaptureError> {
    let state = source.handle.reset().await?;
    let mut consumer = consumer(&source.config)?;
    let (mut topics, live) = settle(source, &mut consumer, &state).await?;
    // As `settle` left it.
    let state = source.handle.reset().await?;
    let config = &source.config;
    let tables = Tables::new(config.options.format, config.declare.clone(), state.tables.into_values());
    let unpacker = unpacker(config)?;
    let mut intake = Intake::new(source, tables, unpacker, state.next_lsn, *skipped);
    intake.note_ends(&live);
    warn_idle(source, &topics, idle);
    let mut rounds = Rounds::new();
    loop {
        source.handle.check()?;
        let round = tokio::select! {
            round = consumer.round(&topics) => round.map_err(explain)?,
            _ = shutdown.changed() => return Ok(()),
            command = control.recv() => {
                let Some(Control::Resnapshot { tables, reply }) = command else { return Ok(()) };
                let known: Vec<_> = intake.tables().iter().map(|table| table.name.clone()).collect();
                let answer = resnapshot(source, &mut consumer, &known, &tables).await;
                let _ = reply.send(answer.map_err(|error| base::error::chain(&error)));
                return Ok(());
            }
        };
        let brought = !round.parts.is_empty();
        let taken = intake.take(round.parts, &mut topics).await;
        *skipped = intake.skipped();
        if taken.is_err() {
            // It does not go on, so it is not shown as if it did; but how far it is changed.
            source.status.update(|status| show_place(status, &intake, &topics));
        }
        taken?;
        show(source, &intake, &topics);
        let (lost, stale) = (round.lost, round.stale);
        if rounds.ends(source, &mut consumer, &topics, (lost, stale, brought), shutdown).await? {
            return Ok(());
        }
    }
}

/// What goes on over the rounds of one session, whatever their messages are.
struct Rounds {
    /// When it was last looked for topics and partitions that are new.
    discovered: Instant,
    /// Since when the brokers answer that they must be asked anew.
    stale_since: Option<Instant>,
}

impl Rounds {
    fn new() -> Self {
        Self { discovered: Instant::now(), stale_since: None }
    }

    /// Behind a round that was taken: deals with what the brokers said besides messages, and rests where there were none. Answers
    /// whether the session ends, so that the next one begins as the policy says, or with other partitions.
    async fn ends(
        &mut self,
        source: &KafkaSource,
        consumer: &mut Consumer,
        topics: &Topics,
        (lost, stale, brought): (bool, Option<WireError>, bool),
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<bool, CaptureError> {
        if lost {
            if is_gap(source, consumer, topics).await? {
                return Ok(true);
            }
            // The answer was of a moment in between.
            pause(STALE_PAUSE, shutdown).await;
        }
        match stale {
            None => self.stale_since = None,
            Some(error) => {
                let since = *self.stale_since.get_or_insert_with(Instant::now);
                if since.elapsed() > STALE_MAX {
                    return Err(explain(error));
                }
                pause(STALE_PAUSE, shutdown).await;
            }
        }
        if self.stale_since.is_some() || self.discovered.elapsed() > DISCOVER_INTERVAL {
            self.discovered = Instant::now();
            let names = consumer.discover(|topic| wanted(&source.config, topic)).await.map_err(explain)?;
            return Ok(changed(consumer, &names, topics));
        }
        if !brought {
            pause(IDLE_PAUSE, shutdown).await;
        }
        Ok(false)
    }
}

/// Gives what was encoded to the journal, and counts it.
async fn hand_over(handle: &JournalHandle, source: &str, batch: &mut Batch) -> Result<(), CaptureError> {
    if batch.is_empty() {
        return Ok(());
    }
    let next = handle.batch(batch.next_lsn());
    let full = std::mem::replace(batch, next);
    metrics::counter!(base::metrics::CAPTURED_ROWS, "source" => source.to_owned()).increment(full.changes());
    metrics::counter!(base::metrics::CAPTURED_BYTES, "source" => source.to_owned())
        .increment(full.len_bytes() as u64);
    handle.append(full).await
}

async fn pause(span: Duration, shutdown: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = tokio::time::sleep(span) => {}
        _ = shutdown.changed() => {}
    }
}

/// Whether a topic is new, has more partitions, or is another than it was.
fn changed(consumer: &Consumer, names: &[String], topics: &Topics) -> bool {
    names.iter().any(|name| {
        let (Some((id, partitions)), Some(own)) = (consumer.shape(name), topics.get(name)) else {
            return true;
        };
        own.next.len() != partitions || (id.is_some() && own.id != id)
    })
}

/// Proves that the topics still have what follows the journal's end, or does what `on_gap` says. The position, and the
/// bounds of each topic.
async fn settle(
    source: &KafkaSource,
    consumer: &mut Consumer,
    state: &State,
) -> Result<(Topics, BTreeMap<String, Live>), CaptureError> {
    let known = match &state.position {
        None => None,
        Some(Position::Kafka { topics }) => Some(topics),
        Some(_) => {
            return Err(CaptureError::fatal(
                "the journal belongs to another kind of source",
                "give the source a new name, or remove its journal",
            ));
        }
    };
    let live = look(source, consumer).await?;
    let topics = match plan(known, &live, source.config.start) {
        Plan::Stay => return Ok((known.cloned().unwrap_or_default(), live)),
        Plan::Extend(topics) => {
            let mut batch = Batch::new(state.next_lsn);
            batch.commit(&full(&topics));
            source.handle.append(batch).await?;
            topics
        }
        Plan::Gap(reason) => {
            let policy = source.config.on_gap;
            if policy == OnGap::Fail {
                return Err(gap(reason));
            }
            tracing::warn!(source = %source.name, gap = reason, ?policy, "continuity lost: new epoch");
            let topics = match policy {
                OnGap::Skip => past_gaps(known.unwrap_or(&Topics::new()), &live),
                _ => from_start(&live),
            };
            let emptied = if policy == OnGap::Resnapshot { tables_of(state) } else { Vec::new() };
            begin_at(source, state, Some(&reason), &emptied, &topics).await?;
            topics
        }
    };
    source.handle.flush().await?;
    Ok((topics, live))
}

fn gap(reason: String) -> CaptureError {
    CaptureError::gap(reason).with_hint(
        "set `on_gap: resnapshot` (empty the tables and read every topic from its beginning) or `on_gap: skip` (go on \
         with what the topic has) for this source",
    )
}

/// Whether the position has lost what follows it; an error where `on_gap` says that this is one.
async fn is_gap(
    source: &KafkaSource,
    consumer: &mut Consumer,
    topics: &Topics,
) -> Result<bool, CaptureError> {
    let live = look(source, consumer).await?;
    match plan(Some(topics), &live, source.config.start) {
        Plan::Gap(reason) if source.config.on_gap == OnGap::Fail => Err(gap(reason)),
        Plan::Gap(_) => Ok(true),
        Plan::Stay | Plan::Extend(_) => Ok(false),
    }
}

async fn look(source: &KafkaSource, consumer: &mut Consumer) -> Result<BTreeMap<String, Live>, CaptureError> {
    let names = consumer.discover(|topic| wanted(&source.config, topic)).await.map_err(explain)?;
    consumer.live(&names).await.map_err(explain)
}

fn full(topics: &Topics) -> Step {
    Step::Full(Box::new(Position::Kafka { topics: topics.clone() }))
}

fn tables_of(state: &State) -> Vec<Arc<Table>> {
    state.tables.values().cloned().collect()
}

/// Empties tables and moves the position, as one commit; in a new epoch where there is a reason for one.
async fn begin_at(
    source: &KafkaSource,
    state: &State,
    reason: Option<&str>,
    emptied: &[Arc<Table>],
    topics: &Topics,
) -> Result<(), CaptureError> {
    let mut batch = Batch::new(state.next_lsn);
    if let Some(reason) = reason {
        batch.epoch(state.epoch + 1, reason);
    }
    batch.begin("", now_ms());
    for table in emptied {
        batch.truncate(table);
    }
    // Where a snapshot follows, nobody shall take what is empty for whole meanwhile.
    if ticdc::snapshots(&source.config) {
        let waiting = |table: &Arc<Table>| (table.name.to_string(), TableSnapshot::default());
        batch.snapshot(&SnapshotProgress { tables: emptied.iter().map(waiting).collect() });
    }
    batch.commit(&full(topics));
    source.handle.append(batch).await?;
    source.handle.flush().await
}

/// Reads everything anew: which records are of one table is not known before they are read.
async fn resnapshot(
    source: &KafkaSource,
    consumer: &mut Consumer,
    known: &[TableName],
    tables: &[String],
) -> Result<Anew, CaptureError> {
    let none = || CaptureError::gap(format!("no captured table matches {}", tables.join(", ")));
    let patterns = Patterns::new(tables, &[]).map_err(|_| none())?;
    if !known.iter().any(|name| patterns.matches(name)) {
        return Err(none());
    }
    source.handle.flush().await?;
    let state = source.handle.reset().await?;
    let live = look(source, consumer).await?;
    restart(source, &state, None, &live).await
}

/// A resnapshot that is asked for while capture stands before a gap.
async fn begin_again(source: &KafkaSource, reason: &str) -> Result<Anew, CaptureError> {
    let state = source.handle.reset().await?;
    let live = look(source, &mut consumer(&source.config)?).await?;
    restart(source, &state, Some(reason), &live).await
}

async fn restart(
    source: &KafkaSource,
    state: &State,
    reason: Option<&str>,
    live: &BTreeMap<String, Live>,
) -> Result<Anew, CaptureError> {
    let tables = tables_of(state);
    begin_at(source, state, reason, &tables, &from_start(live)).await?;
    let tables = tables.iter().map(|table| table.name.to_string()).collect();
    Ok(Anew { tables, from_lsn: state.next_lsn })
}

/// Tells once of each pattern that matches no topic: most often a slip, sometimes a topic that is made later.
fn warn_idle(source: &KafkaSource, topics: &Topics, told: &mut BTreeSet<String>) {
    let names: Vec<String> = topics.keys().cloned().collect();
    for pattern in idle_patterns(&source.config, &names) {
        if told.insert(pattern.to_owned()) {
            let file = format!("sources/{}.yaml", source.name);
            tracing::warn!(source = %source.name, file, pattern, "a pattern matches no topic");
        }
    }
}

fn show_place(status: &mut SourceStatus, intake: &Intake, topics: &Topics) {
    status.lag_messages = Some(intake.lag(topics).0);
    status.skipped_messages = Some(intake.skipped());
    status.position = PositionStatus::of_topics(topics);
}

fn show(source: &KafkaSource, intake: &Intake, topics: &Topics) {
    let (lag_messages, lag_ms) = intake.lag(topics);
    let tables = intake.tables().len() as u64;
    source.status.advance(|status| {
        status.state = "stream";
        status.lag_ms = lag_ms;
        show_place(status, intake, topics);
        status.snapshot = SnapshotStatus::done(tables, 0);
    });
    let name = source.name.to_string();
    metrics::gauge!(base::metrics::CAPTURE_LAG_MESSAGES, "source" => name.clone()).set(lag_messages as f64);
    metrics::gauge!(base::metrics::CAPTURE_LAG, "source" => name).set(lag_ms as f64 / 1e3);
}
