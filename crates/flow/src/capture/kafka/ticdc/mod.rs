//! Topics that one changefeed of TiDB fills. Events of all partitions are held until the watermark has passed their commit, and
//! are journaled commit by commit. See `docs/decisions/0017-ticdc.md`.
//!
//! | file | |
//! |---|---|
//! | `order` | which commits are whole |
//! | `catalog` | the tables as of a commit |
//! | `apply` | one commit into the journal |
//! | `database` | the TiDB behind it, at a timestamp |
//! | `snapshot` | its tables before the first message |
//! | `claim` | messages that are in files |

mod apply;
mod catalog;
mod claim;
mod database;
pub mod order;
mod snapshot;

use super::consumer::{Fetched, Live};
use super::plan::Topics;
use super::{KafkaSource, Rounds, explain, full, look, resnapshot, settle, warn_idle};
use crate::capture::CaptureError;
use crate::capture::mysql::Control;
use crate::capture::status::{PositionStatus, SnapshotStatus, WatermarkStatus};
use crate::config::{SnapshotMode, SourceConfig};
use crate::formats::decode::ticdc::{Event, Kind, Protocol, read, split};
use apply::{Applied, Applier};
use base::{ByteSize, Position, Step, TopicPosition};
use catalog::Catalog;
use database::{Database, millis_of};
use journal::Batch;
use order::{Order, Place, sealed_before, sealed_step};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Bytes of messages that may wait for the watermark.
pub const BUFFER_DEFAULT: u64 = 256 << 20;
/// A changefeed sends a watermark every second or so.
pub const STALL_DEFAULT: Duration = Duration::from_secs(300);
/// How often a position without changes is sealed: a restart reads so much again, and a device that asks when its own write has
/// come waits as long.
const SEAL_INTERVAL: Duration = Duration::from_secs(1);

/// What outlives a session of the source.
#[derive(Default)]
pub struct Counts {
    pub skipped: u64,
    pub repeated: u64,
    /// The least watermark that was seen last, and when it was first seen.
    watermark: Option<(Option<u64>, Instant)>,
    stalled: bool,
}

/// One life of the connections, from the journal's last commit on.
pub async fn session(
    source: &KafkaSource,
    protocol: Protocol,
    control: &mut mpsc::Receiver<Control>,
    shutdown: &mut watch::Receiver<bool>,
    counts: &mut Counts,
    idle: &mut BTreeSet<String>,
) -> Result<(), CaptureError> {
    let config = &source.config;
    let mut database = Database::of(config)?;
    let mut consumer = super::consumer(config)?;
    let state = source.handle.reset().await?;
    if let Some(database) = &mut database
        && config.snapshot == SnapshotMode::Initial
    {
        if is_new(state.position.as_ref()) {
            let live = look(source, &mut consumer).await?;
            let ends = at_ends(&live);
            snapshot::refuse_silence(&ends)?;
            snapshot::begin(source, database, &state, ends).await?;
        }
        if !snapshot::run(source, database, shutdown).await? {
            return Ok(());
        }
    }
    let state = source.handle.reset().await?;
    let (mut topics, live) = settle(source, &mut consumer, &state).await?;
    // As `settle` left it.
    let mut state = source.handle.reset().await?;
    if !order::has_watermark(&topics) {
        order::set_sealed_before(&mut topics, 0);
        let mut batch = Batch::new(state.next_lsn);
        batch.commit(&full(&topics));
        source.handle.append(batch).await?;
        source.handle.flush().await?;
        state = source.handle.reset().await?;
    }
    if database.is_some() && config.snapshot == SnapshotMode::Initial && is_new(state.position.as_ref()) {
        // After a gap: the next session reads the tables anew.
        return Ok(());
    }
    let tables = state.tables.into_values();
    let catalog = Catalog::new(protocol, database.is_some(), config.declare.clone(), tables);
    let applier = Applier {
        source: Arc::clone(&source.name),
        format: config.options.format.name(),
        protocol,
        on_bad: config.on_bad,
        patterns: Arc::clone(&source.patterns),
        handle: source.handle.clone(),
        catalog,
        database,
        claim_check: config.claim_check.clone(),
        batch: source.handle.batch(state.next_lsn),
        skipped: counts.skipped,
        seals: 0,
        pending: Vec::new(),
    };
    let mut reading = Reading::new(source, applier, &topics, &live);
    warn_idle(source, &topics, idle);
    let mut rounds = Rounds::new();
    loop {
        source.handle.check()?;
        let crowded = reading.is_crowded()?;
        let order = &reading.order;
        let round = tokio::select! {
            round = consumer.round_of(&reading.next, |topic, partition| !crowded || order.is_slowest(topic, partition)) => {
                round.map_err(explain)?
            }
            _ = shutdown.changed() => return Ok(()),
            command = control.recv() => {
                let Some(Control::Resnapshot { tables, reply }) = command else { return Ok(()) };
                let known: Vec<_> = reading.applier.catalog.names();
                let answer = resnapshot(source, &mut consumer, &known, &tables).await;
                let _ = reply.send(answer.map_err(|error| base::error::chain(&error)));
                return Ok(());
            }
        };
        let brought = !round.parts.is_empty();
        let taken = reading.take(round.parts, &mut topics).await;
        counts.skipped = reading.applier.skipped;
        counts.repeated += std::mem::take(&mut reading.repeated);
        if taken.is_err() {
            // It does not go on, so it is not shown as if it did; but how far it is changed.
            source.status.update(|status| status.position = PositionStatus::of_topics(&topics));
        }
        taken?;
        show(source, &reading, &topics, counts);
        let (lost, stale) = (round.lost, round.stale);
        if rounds.ends(source, &mut consumer, &topics, (lost, stale, brought), shutdown).await? {
            return Ok(());
        }
    }
}

/// For `check --connect`: whether the TiDB that a source names answers.
pub async fn probe(config: &SourceConfig) -> Result<(), CaptureError> {
    match Database::of(config)? {
        Some(mut database) => database.now().await.map(|_| ()),
        None => Ok(()),
    }
}

/// Whether a source's tables are read at a TiDB before its topics are.
pub fn snapshots(config: &SourceConfig) -> bool {
    config.tidb.is_some() && config.snapshot == SnapshotMode::Initial
}

/// What time it is for the TiDB of a source.
pub struct Clock(Database);

impl Clock {
    /// `None` where the source names no TiDB.
    pub fn of(config: &SourceConfig) -> Result<Option<Self>, CaptureError> {
        Ok(Database::of(config)?.map(Self))
    }

    /// A timestamp that is greater than that of every commit whose client was answered.
    pub async fn now(&mut self) -> Result<u64, CaptureError> {
        // The database's own is cut to the millisecond.
        Ok(self.0.now().await? + (1 << database::LOGICAL_BITS))
    }
}

/// Whether everything that was committed before a timestamp is in a journal that is at this position.
pub fn has_all_before(position: &Position, timestamp: u64) -> bool {
    matches!(position, Position::Kafka { topics } if sealed_before(topics) >= timestamp)
}

/// Whether nothing was captured yet; a resnapshot leaves offsets and no watermark.
fn is_new(position: Option<&Position>) -> bool {
    match position {
        None => true,
        Some(Position::Kafka { topics }) => sealed_before(topics) == 0,
        Some(_) => false,
    }
}

fn at_ends(live: &BTreeMap<String, Live>) -> Topics {
    let end = |now: &Live| TopicPosition { id: now.id.clone(), next: now.latest.clone() };
    live.iter().map(|(name, now)| (name.clone(), end(now))).collect()
}

struct Reading {
    applier: Applier,
    order: Order,
    /// Where fetches go on; the position of the journal stays before what is held.
    next: Topics,
    /// Where each partition ends, as its leader said.
    ends: BTreeMap<Place, i64>,
    buffer: u64,
    /// What was held when reading was narrowed to the slowest partitions.
    crowded_at: Option<u64>,
    repeated: u64,
    /// The table whose definition is waited for.
    waits: Option<base::TableName>,
    sealed_at: Instant,
}

impl Reading {
    fn new(source: &KafkaSource, applier: Applier, topics: &Topics, live: &BTreeMap<String, Live>) -> Self {
        // Partitions of topics that are gone say nothing, and nobody waits for them.
        let next: Topics = topics
            .iter()
            .filter(|(name, _)| live.contains_key(*name))
            .map(|(n, t)| (n.clone(), t.clone()))
            .collect();
        let places = next.iter().flat_map(|(name, topic)| {
            let name: Arc<str> = name.as_str().into();
            let place =
                move |(partition, next): (usize, &i64)| ((Arc::clone(&name), partition as u32), *next);
            topic.next.iter().enumerate().map(place)
        });
        let ends = live.iter().flat_map(|(name, now)| {
            let name: Arc<str> = name.as_str().into();
            now.latest
                .iter()
                .enumerate()
                .map(move |(partition, end)| ((Arc::clone(&name), partition as u32), *end))
        });
        let buffer = source.config.options.buffer.map_or(BUFFER_DEFAULT, |bytes| bytes.0);
        Self {
            order: Order::new(sealed_before(topics), places),
            applier,
            ends: ends.collect(),
            next,
            buffer,
            crowded_at: None,
            repeated: 0,
            waits: None,
            sealed_at: Instant::now(),
        }
    }

    /// Whether only the partitions are read that the others wait for. An error once even these bring too much.
    fn is_crowded(&mut self) -> Result<bool, CaptureError> {
        let held = self.order.bytes() as u64;
        if held < self.buffer {
            self.crowded_at = None;
            return Ok(false);
        }
        // One round of all partitions may bring more than the buffer: that alone is no reason to stop.
        let began = *self.crowded_at.get_or_insert(held);
        if held < self.buffer.saturating_mul(2).max(began.saturating_add(self.buffer)) {
            return Ok(true);
        }
        let slowest = self.order.slowest().map(|((topic, partition), _)| format!("{topic}-{partition}"));
        let why = match &self.waits {
            Some(table) => format!("the definition of `{table}`, which no message has told"),
            None => format!("a watermark of {}", slowest.unwrap_or_default()),
        };
        Err(CaptureError::fatal(
            format!("{held} bytes of messages wait for {why}, and `buffer` is {}", ByteSize(self.buffer)),
            "set `options: {buffer: …}` to twice the largest transaction; for `ticdc-simple`, see \
             send-bootstrap-interval-in-sec of the changefeed",
        ))
    }

    /// Holds what a round brought, and journals every commit that is whole now. On an error what was committed before is
    /// journaled.
    async fn take(&mut self, parts: Vec<Fetched>, topics: &mut Topics) -> Result<(), CaptureError> {
        for part in parts {
            self.hold(part).await?;
        }
        let mut sealed = false;
        while let Some((commit_ts, events)) = self.order.take() {
            match self.applier.apply(commit_ts, &events).await {
                Ok(Applied::Done) => {
                    self.order.seal(commit_ts);
                    self.waits = None;
                    sealed = true;
                }
                Ok(Applied::Waits(table)) => {
                    self.waits = Some(table);
                    self.order.put_back(commit_ts, events);
                    break;
                }
                Err(error) => {
                    self.applier.flush().await?;
                    return Err(error);
                }
            }
        }
        if self.waits.is_none() {
            self.order.settle();
        }
        if sealed || self.sealed_at.elapsed() > SEAL_INTERVAL {
            self.seal(topics);
        }
        self.applier.flush().await
    }

    /// Moves the journal's position to where a restart would read on.
    fn seal(&mut self, topics: &mut Topics) {
        self.sealed_at = Instant::now();
        for ((name, partition), next) in self.order.resume() {
            let slot = topics.get_mut(&**name).and_then(|topic| topic.next.get_mut(*partition as usize));
            let Some(slot) = slot.filter(|slot| **slot != next) else { continue };
            *slot = next;
            let step = Step::Kafka { topic: Arc::clone(name), partition: *partition, next };
            self.applier.batch.commit(&step);
        }
        let watermark = self.order.sealed_before();
        if watermark > sealed_before(topics) {
            order::set_sealed_before(topics, watermark);
            self.applier.batch.commit(&sealed_step(watermark));
        }
    }

    async fn hold(&mut self, part: Fetched) -> Result<(), CaptureError> {
        let place: Place = (Arc::clone(&part.topic), part.partition);
        self.ends.insert(place.clone(), part.high);
        for record in &part.records {
            let protocol = self.applier.protocol;
            let events = match split(protocol, record.key.as_deref(), record.value.as_deref()) {
                Ok(events) => events,
                Err(why) => {
                    self.applier.bad_message(&place, record.offset, &why).await?;
                    continue;
                }
            };
            for event in events {
                match event.kind {
                    Kind::Watermark => self.order.advance(&place, event.commit_ts),
                    Kind::Bootstrap => match read(protocol, &event) {
                        Ok(Event::Bootstrap(schema)) => self.applier.catalog.tell(schema),
                        Ok(_) => {}
                        Err(why) => self.applier.bad_message(&place, record.offset, &why).await?,
                    },
                    Kind::Ddl | Kind::Row => {
                        let is_row = event.kind == Kind::Row;
                        if !self.order.hold(&place, record.offset, event) && is_row {
                            self.repeated += 1;
                        }
                    }
                }
            }
        }
        self.order.read_to(&place, part.next);
        let slot = self.next.get_mut(&*part.topic);
        if let Some(slot) = slot.and_then(|topic| topic.next.get_mut(part.partition as usize)) {
            *slot = part.next;
        }
        Ok(())
    }

    /// Messages that were not read yet.
    fn lag(&self) -> u64 {
        let behind = self.ends.iter().map(|((name, partition), end)| {
            let next = self.next.get(&**name).and_then(|topic| topic.next.get(*partition as usize));
            next.map_or(0, |next| u64::try_from(end - next).unwrap_or(0))
        });
        behind.sum()
    }
}

fn show(source: &KafkaSource, reading: &Reading, topics: &Topics, counts: &mut Counts) {
    let watermark = reading.order.watermark();
    let now = Instant::now();
    let since = match counts.watermark {
        Some((seen, since)) if seen == watermark => since,
        _ => {
            counts.watermark = Some((watermark, now));
            now
        }
    };
    let patience = source.config.options.watermark_timeout.map_or(STALL_DEFAULT, |span| span.0);
    let stalled = now.duration_since(since) > patience;
    let slowest = reading.order.slowest().map(|((topic, partition), _)| format!("{topic}-{partition}"));
    if stalled != counts.stalled {
        counts.stalled = stalled;
        if stalled {
            let partition = slowest.clone().unwrap_or_default();
            tracing::warn!(
                source = %source.name,
                partition,
                watermark,
                "no watermark has come for longer than `watermark_timeout`: nothing is captured until one does"
            );
        } else {
            tracing::info!(source = %source.name, watermark, "watermarks come again");
        }
    }
    let lag_ms =
        watermark.map_or(0, |ts| u64::try_from(super::intake::now_ms() - millis_of(ts)).unwrap_or(0));
    let name = source.name.to_string();
    let lag_messages = reading.lag();
    let status = WatermarkStatus {
        commit_ts: watermark.map(|ts| ts.to_string()),
        lag_ms,
        stalled,
        slowest,
        held_bytes: reading.order.bytes() as u64,
        repeated: counts.repeated,
        waits_for: reading.waits.as_ref().map(ToString::to_string),
    };
    let tables = reading.applier.catalog.len() as u64;
    source.status.advance(|shown| {
        shown.state = "stream";
        shown.lag_ms = lag_ms;
        shown.lag_messages = Some(lag_messages);
        shown.skipped_messages = Some(counts.skipped);
        shown.position = PositionStatus::of_topics(topics);
        shown.watermark = Some(status);
        if shown.snapshot.state != "done" || shown.snapshot.tables < tables {
            shown.snapshot = SnapshotStatus::done(tables, shown.snapshot.rows);
        }
    });
    metrics::gauge!(base::metrics::CAPTURE_LAG_MESSAGES, "source" => name.clone()).set(lag_messages as f64);
    metrics::gauge!(base::metrics::CAPTURE_LAG, "source" => name.clone()).set(lag_ms as f64 / 1e3);
    metrics::gauge!(base::metrics::WATERMARK_LAG, "source" => name.clone()).set(lag_ms as f64 / 1e3);
    metrics::gauge!(base::metrics::WATERMARK_STALLED, "source" => name.clone())
        .set(f64::from(u8::from(stalled)));
    metrics::counter!(base::metrics::REPEATED_MESSAGES, "source" => name).absolute(counts.repeated);
}
