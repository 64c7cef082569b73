//! From fetched records to the journal: decoded, put under their tables' definitions, and committed with the offset behind
//! each transaction.

use super::consumer::{Fetched, Live};
use super::plan::Topics;
use super::unpack::{NotUnpacked, Unpacked, Unpacker};
use super::{KafkaSource, hand_over};
use crate::capture::CaptureError;
use crate::capture::tables::{Prepared, Tables};
use crate::capture::writer::JournalHandle;
use crate::config::{OnBad, SourceConfig};
use crate::formats::decode::{Decoded, Incoming, MessageFormat, Schemas};
use crate::patterns::Patterns;
use base::{Op, Step, Table};
use journal::Batch;
use kafka_protocol::records::Record;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of one batch for the journal.
pub(super) const BATCH_BYTES: usize = 512 << 10;
/// Changes of one transaction of the journal, at most, when messages name the same one.
const TRANSACTION_CHANGES_MAX: u64 = 10_000;

pub struct Intake {
    source: Arc<str>,
    format: MessageFormat,
    on_bad: OnBad,
    patterns: Arc<Patterns>,
    handle: JournalHandle,
    tables: Tables,
    schemas: Schemas,
    /// For messages that are no text.
    unpacker: Option<Unpacker>,
    batch: Batch,
    skipped: u64,
    /// By partition: where its records end, and where those end that may be read.
    ends: HashMap<(Arc<str>, u32), (i64, i64)>,
    last_ts_ms: i64,
}

/// The journal's transaction that is open, in one partition.
#[derive(Default)]
struct Open {
    /// What the messages name it by; `None` when nothing is open.
    id: Option<String>,
    changes: u64,
}

impl Intake {
    pub fn new(
        source: &KafkaSource,
        tables: Tables,
        unpacker: Option<Unpacker>,
        next_lsn: u64,
        skipped: u64,
    ) -> Self {
        let config: &SourceConfig = &source.config;
        Self {
            source: Arc::clone(&source.name),
            format: config.options.format,
            on_bad: config.on_bad,
            patterns: Arc::clone(&source.patterns),
            handle: source.handle.clone(),
            tables,
            schemas: Schemas::default(),
            unpacker,
            batch: source.handle.batch(next_lsn),
            skipped,
            ends: HashMap::new(),
            last_ts_ms: 0,
        }
    }

    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.tables.all()
    }

    /// Messages that were passed over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    pub fn note_ends(&mut self, live: &BTreeMap<String, Live>) {
        for (name, now) in live {
            let name: Arc<str> = name.as_str().into();
            for (partition, end) in now.latest.iter().enumerate() {
                self.ends.insert((Arc::clone(&name), partition as u32), (*end, *end));
            }
        }
    }

    /// Messages that we lack, and milliseconds since the last that we took was committed; 0 when none may be read.
    pub fn lag(&self, topics: &Topics) -> (u64, u64) {
        let (mut messages, mut readable) = (0, false);
        for ((topic, partition), (high, stable)) in &self.ends {
            let next = topics.get(&**topic).and_then(|topic| topic.next.get(*partition as usize));
            let Some(next) = next else { continue };
            messages += u64::try_from(high - next).unwrap_or(0);
            readable |= stable > next;
        }
        let since = if readable && self.last_ts_ms > 0 { now_ms() - self.last_ts_ms } else { 0 };
        (messages, u64::try_from(since).unwrap_or(0))
    }

    /// Journals what a round brought and moves the position. On an error what came before the message is journaled, and
    /// nothing behind it.
    pub async fn take(&mut self, parts: Vec<Fetched>, topics: &mut Topics) -> Result<(), CaptureError> {
        let mut taken = Ok(());
        for part in parts {
            taken = self.take_part(part, topics).await;
            if taken.is_err() {
                break;
            }
        }
        let flushed = self.flush().await;
        taken.and(flushed)
    }

    async fn take_part(&mut self, part: Fetched, topics: &mut Topics) -> Result<(), CaptureError> {
        let place = (Arc::clone(&part.topic), part.partition);
        self.ends.insert(place, (part.high, part.stable));
        let slot = topics.get_mut(&*part.topic).and_then(|topic| topic.next.get_mut(part.partition as usize));
        let Some(slot) = slot else { return Ok(()) };
        let mut open = Open::default();
        for record in &part.records {
            if self.take_record(&part, record, &mut open, slot).await? {
                self.skip(&part, record, slot);
            }
            if self.batch.len_bytes() >= BATCH_BYTES {
                self.flush().await?;
            }
        }
        self.close(&part, &mut open, part.next, slot);
        if *slot < part.next {
            // Nothing but what was aborted, or holds no row.
            self.commit(&part, part.next, slot);
        }
        Ok(())
    }

    fn step(part: &Fetched, next: i64) -> Step {
        Step::Kafka { topic: Arc::clone(&part.topic), partition: part.partition, next }
    }

    fn commit(&mut self, part: &Fetched, next: i64, slot: &mut i64) {
        self.batch.commit(&Self::step(part, next));
        *slot = next;
    }

    fn close(&mut self, part: &Fetched, open: &mut Open, next: i64, slot: &mut i64) {
        if open.id.take().is_some() {
            self.commit(part, next, slot);
        }
    }

    /// Answers true for a bad message that is passed over; an error for one that is not.
    async fn take_record(
        &mut self,
        part: &Fetched,
        record: &Record,
        open: &mut Open,
        slot: &mut i64,
    ) -> Result<bool, CaptureError> {
        let source = Arc::clone(&self.source);
        let (unpacked, key, value);
        let known = match &mut self.unpacker {
            None => {
                (key, value) = (record.key.as_deref(), record.value.as_deref());
                Ok(())
            }
            Some(unpacker) => {
                let told = match unpacker.unpack(record).await {
                    Ok(told) => Ok(told),
                    Err(NotUnpacked::Bad(reason)) => Err(reason),
                    Err(NotUnpacked::Unasked(error)) => {
                        self.close(part, open, record.offset, slot);
                        return Err(error);
                    }
                };
                let failed = told.as_ref().err().cloned();
                unpacked = told.unwrap_or_else(|_| Unpacked::default());
                (key, value) = (unpacked.key.as_deref(), unpacked.value.as_deref());
                failed.map_or(Ok(()), Err)
            }
        };
        let message = Incoming { source: &source, topic: &part.topic, key, value };
        let prepared = known
            .and_then(|()| self.schemas.decode(self.format, message))
            .and_then(|changes| self.prepare(changes));
        let changes = match prepared {
            Ok(changes) => changes,
            Err(reason) => {
                self.close(part, open, record.offset, slot);
                return match self.on_bad {
                    OnBad::Skip => {
                        self.tell_skip(part, record, &reason);
                        Ok(true)
                    }
                    OnBad::Fail => {
                        self.flush().await?;
                        Err(self.bad(part, record, &reason))
                    }
                };
            }
        };
        for (change, head) in changes {
            let id = head.txn.unwrap_or_else(|| place_of(part, record.offset));
            let id = if change.op == Op::Read { String::new() } else { id };
            if open.id.as_deref() != Some(&id) || open.changes >= TRANSACTION_CHANGES_MAX {
                self.close(part, open, record.offset, slot);
                self.last_ts_ms = head.ts_ms.unwrap_or(record.timestamp);
                self.batch.begin(&id, self.last_ts_ms);
                *open = Open { id: Some(id), changes: 0 };
            }
            change.put(&mut self.batch);
            open.changes += 1;
            if head.last {
                open.changes = TRANSACTION_CHANGES_MAX;
            }
        }
        Ok(false)
    }

    /// All changes of a message, or none: a message is taken whole.
    fn prepare(&mut self, changes: Vec<Decoded<'_>>) -> Result<Vec<(Prepared, Head)>, String> {
        let prepared = self.prepare_each(changes);
        match prepared {
            Ok(_) => self.tables.keep(),
            Err(_) => self.tables.revert(),
        }
        prepared
    }

    fn prepare_each(&mut self, changes: Vec<Decoded<'_>>) -> Result<Vec<(Prepared, Head)>, String> {
        let mut out = Vec::with_capacity(changes.len());
        for change in changes {
            if !self.patterns.matches(&change.name) {
                continue;
            }
            if let Some(prepared) = self.tables.prepare(&change)? {
                out.push((prepared, Head { txn: change.txn, ts_ms: change.ts_ms, last: change.last }));
            }
        }
        Ok(out)
    }

    fn skip(&mut self, part: &Fetched, record: &Record, slot: &mut i64) {
        self.commit(part, record.offset + 1, slot);
    }

    fn tell_skip(&mut self, part: &Fetched, record: &Record, reason: &str) {
        self.skipped += 1;
        metrics::counter!(base::metrics::SKIPPED_MESSAGES, "source" => self.source.to_string()).increment(1);
        // A topic of another shape has nothing else: its log would be as long as the topic.
        if self.skipped.is_power_of_two() {
            tracing::warn!(
                source = %self.source,
                topic = %part.topic,
                partition = part.partition,
                offset = record.offset,
                reason,
                skipped = self.skipped,
                "a message cannot be read and is passed over"
            );
        }
    }

    fn bad(&self, part: &Fetched, record: &Record, reason: &str) -> CaptureError {
        let (topic, partition, offset) = (&part.topic, part.partition, record.offset);
        let format = self.format.name();
        CaptureError::fatal(
            format!(
                "topic `{topic}`, partition {partition}, offset {offset}: the message cannot be read as `{format}`: {reason}"
            ),
            "set the source's `options: {format: …}` to the shape of its messages, `declare:` what they do not say, or set \
             `on_bad: skip` to pass over such messages",
        )
    }

    async fn flush(&mut self) -> Result<(), CaptureError> {
        hand_over(&self.handle, &self.source, &mut self.batch).await
    }
}

/// What a message says around its row.
struct Head {
    txn: Option<String>,
    ts_ms: Option<i64>,
    last: bool,
}

/// A transaction's name where the message has none.
fn place_of(part: &Fetched, offset: i64) -> String {
    format!("{}-{}:{offset}", part.topic, part.partition)
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
