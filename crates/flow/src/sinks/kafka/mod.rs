//! Kafka. Changes of a key go to one partition in order; progress is a record in the topic `tidemill_progress`.
//!
//! At least once by default: what was stored after the last progress record, which is at most a second old, comes again
//! after a kill. With `exactly_once` rows and progress are one transaction, and a second publisher shuts out the first. Where the
//! source's transactions begin and end may be told in a topic of its own (`boundaries`).

mod batch;
mod boundaries;
mod producer;
mod progress;
mod topics;

use crate::capture::kafka::consumer::Consumer;
use crate::config::{FlowConfig, KafkaCodec};
use crate::deliver::sink::{OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::formats::{Encoder, EventPlace, Format, Message, Record, avro};
use crate::kafka::login;
use crate::kafka::wire::{Cluster, WireError};
use crate::schema_registry::{Registry, RegistryError};
use crate::sinks::json::reference;
use crate::tls;
use async_trait::async_trait;
use base::{Op, Secret, Table, TableName, Value};
use batch::{Batch, Codec, partition_of};
use boundaries::{Boundaries, TABLES_MAX, TooManyTables};
use kafka_protocol::ResponseError;
use producer::{Ending, Failed, Place, Publisher, TopicSettings};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use progress::TOPIC as PROGRESS_TOPIC;

/// The topic unless the flow's options say otherwise.
pub const TOPIC_DEFAULT: &str = "{source}.{db}.{table}";
/// Rows of one write unless the flow's options say otherwise: a round trip is paid for each.
pub const BATCH_ROWS_DEFAULT: u32 = 8192;
/// The same with `exactly_once`, where each write also costs the brokers a transaction with its markers.
pub const TRANSACTION_ROWS_DEFAULT: u32 = 32_768;
/// Kafka's limit on a name.
const TOPIC_CHARS_MAX: usize = 249;
/// Bytes of a record batch, below what brokers take by default; a larger row is a batch of its own.
const BATCH_BYTES: usize = 900_000;
/// Bytes that wait for the next round.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Rows that one transaction holds at most; a longer one of the source is committed in parts.
const TRANSACTION_ROWS_MAX: usize = 1_000_000;
/// As rows, so time: a part is committed long before the broker would abort it for its age.
const TRANSACTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Progress is stored at most so often without transactions.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Stands for the change of a message that is of none.
const OF_NO_CHANGE: usize = usize::MAX;

/// Where a sink writes to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub url: &'a Secret,
    pub schema_registry: Option<&'a Secret>,
    /// For TLS to both.
    pub files: &'a tls::Files,
}

pub struct KafkaSink {
    flow: String,
    source: String,
    url: Secret,
    files: tls::Files,
    encoder: Encoder,
    topic: String,
    key: Option<KeyTemplate>,
    settings: TopicSettings,
    tombstones: bool,
    exactly_once: bool,
    transaction_age_max: Duration,
    codec: Codec,
    /// Where transactions begin and end, for a flow that tells it; always up to the progress of `open`.
    boundaries: Option<Boundaries>,
    /// Not in `open`: what it said stays true.
    registry: Option<Registry>,
    /// How the flow's last transaction ended, as the cluster told it when it was last asked. Not in `open`: when that is told, it
    /// is forgotten there.
    ended: Option<Ending>,
    /// The flow's last transaction but one was aborted: its rows may be left where a broker forgot that, and a next one would
    /// take them in. So each topic is looked at before it is written.
    aborted: bool,
    open: Option<Open>,
}

struct Open {
    publisher: Publisher,
    journal: u64,
    progress: Progress,
    /// What the progress topic was last told, and when.
    noted: Progress,
    noted_at: Instant,
    /// Rows in the open transaction.
    rows: usize,
    /// When its first row was sent.
    began_at: Option<Instant>,
    /// Where the rows of each table go; by the table's definition.
    routes: HashMap<(u32, u32), Arc<Route>>,
    /// What each topic would be called if Kafka took every name, and the table that it is of.
    topics: HashMap<String, (String, TableName)>,
    /// `avro`: what each table's records are called, and the table.
    records: HashMap<String, TableName>,
    /// The topics that the flow has made or found, by their ids.
    held: topics::Held,
}

struct Route {
    topic: String,
    partitions: usize,
    /// `avro`: what the registry calls the table's schemas.
    schemas: Option<avro::Ids>,
}

/// Batches that wait, by partition, each in order.
#[derive(Default)]
struct Pending {
    places: HashMap<Place, VecDeque<Batch>>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, place: (&str, i32), change: usize, message: &Message, headers: &[(&str, &[u8])]) {
        let place = (place.0.to_owned(), place.1);
        let queue = self.places.entry(place).or_default();
        let size = message.key.as_ref().map_or(0, Vec::len) + message.value.as_ref().map_or(0, Vec::len) + 64;
        if queue.back().is_none_or(|last| last.bytes() + size > BATCH_BYTES) {
            queue.push_back(Batch::default());
        }
        if let Some(last) = queue.back_mut() {
            last.push(change, message.key.as_deref(), message.value.as_deref(), headers);
        }
        self.bytes += size;
    }

    /// A message of no change, which says where a transaction begins or ends.
    fn push_boundary(&mut self, message: &Message, partitions: usize) {
        let partition = message.key.as_deref().map_or(0, |key| partition_of(key, partitions));
        self.push((&message.topic, partition as i32), OF_NO_CHANGE, message, &[]);
    }

    /// The first batch of every partition.
    fn heads(&mut self) -> Vec<(Place, Batch)> {
        let heads =
            self.places.iter_mut().filter_map(|(place, queue)| Some((place.clone(), queue.pop_front()?)));
        heads.collect()
    }
}

/// `{column}`s between texts.
#[derive(Clone, Debug)]
struct KeyTemplate(String);

impl KeyTemplate {
    /// `None` when a column that it names is not there.
    fn of(&self, record: &Record<'_>) -> Option<Vec<u8>> {
        let row = record.row()?;
        let mut out = Vec::new();
        let mut rest = self.0.as_str();
        while let Some((text, behind)) = rest.split_once('{') {
            out.extend_from_slice(text.as_bytes());
            let (name, behind) = behind.split_once('}')?;
            rest = behind;
            match name {
                "db" => out.extend_from_slice(record.table.name.db.as_bytes()),
                "table" => out.extend_from_slice(record.table.name.table.as_bytes()),
                column => {
                    let index = record.table.column_index(column)?;
                    let mut text = Vec::new();
                    base::json::put_value(&mut text, (*row.get(index)?)?, &record.table.columns[index]);
                    match serde_json::from_slice::<String>(&text) {
                        Ok(text) => out.extend_from_slice(text.as_bytes()),
                        Err(_) => out.extend_from_slice(&text),
                    }
                }
            }
        }
        out.extend_from_slice(rest.as_bytes());
        Some(out)
    }
}

impl KafkaSink {
    /// `Err` says what is wrong with the registry's URL.
    pub fn new(flow: &str, source: &str, target: Target<'_>, config: &FlowConfig) -> Result<Self, SinkError> {
        let options = &config.options;
        let Target { url, schema_registry, files } = target;
        let registry = schema_registry.map(|url| Registry::new(url, files)).transpose();
        let registry = registry.map_err(|message| SinkError::Blocked {
            message,
            hint: "write schema_registry: http://host:8081, or https:// for TLS, and `tls_ca` for a PEM file"
                .into(),
        })?;
        Ok(Self {
            flow: flow.to_owned(),
            source: source.to_owned(),
            url: url.clone(),
            files: files.clone(),
            encoder: Encoder::new(options.format, source, options.schemas),
            topic: options.topic.clone().unwrap_or_else(|| TOPIC_DEFAULT.to_owned()),
            key: options.key.clone().map(KeyTemplate),
            settings: TopicSettings {
                partitions: options.partitions.and_then(|n| i32::try_from(n).ok()),
                replication: options.replication.and_then(|n| i16::try_from(n).ok()),
                configs: options.topic_config.clone(),
            },
            tombstones: options.tombstones,
            exactly_once: options.exactly_once,
            transaction_age_max: TRANSACTION_AGE_MAX,
            codec: match options.compression {
                KafkaCodec::None => Codec::None,
                KafkaCodec::Gzip => Codec::Gzip,
                KafkaCodec::Zstd => Codec::Zstd,
            },
            boundaries: options.transactions.as_ref().map(|topic| {
                let schemas = options.schemas && options.format == Format::Debezium;
                Boundaries::new(legal_topic(&topic.replace("{source}", source)), schemas)
            }),
            registry,
            ended: None,
            aborted: false,
            open: None,
        })
    }

    fn cluster(&self) -> Result<Cluster, SinkError> {
        let parsed = login::parse_url(&self.url, &self.files);
        let (seeds, security) = parsed.map_err(|message| SinkError::Blocked {
            message,
            hint: "write kafka://host:9092, several hosts with commas; kafkas:// for TLS, and `tls_ca` for a PEM file"
                .into(),
        })?;
        Ok(Cluster::new(seeds, security))
    }

    fn transactional_id(&self) -> Option<String> {
        self.exactly_once.then(|| format!("tidemill-{}", self.flow))
    }

    /// The template's topic for a table, as it is and as Kafka takes it: what it does not take becomes `_`.
    fn topic_of(&self, table: &Table) -> (String, String) {
        let named = self
            .topic
            .replace("{source}", &self.source)
            .replace("{db}", &table.name.db)
            .replace("{table}", &table.name.table);
        let taken = legal_topic(&named);
        (named, taken)
    }

    async fn route(&mut self, table: &Table) -> Result<Arc<Route>, SinkError> {
        let (named, topic) = self.topic_of(table);
        let Some(open) = &mut self.open else { return Err(self.explain(WireError::broken("not connected"))) };
        if let Some(route) = open.routes.get(&(table.id, table.version)) {
            return Ok(Arc::clone(route));
        }
        let first = open.topics.entry(topic.clone()).or_insert_with(|| (named.clone(), table.name.clone()));
        if first.0 != named {
            return Err(one_topic(&topic, &first.1, &table.name));
        }
        if self.boundaries.as_ref().is_some_and(|boundaries| boundaries.topic == topic) {
            return Err(SinkError::Blocked {
                message: format!(
                    "rows of `{}` would go to `{topic}`, the topic of `transactions`",
                    table.name
                ),
                hint: "give `transactions` a topic of its own".into(),
            });
        }
        self.look_for_topic(&topic).await?;
        let Some(open) = &mut self.open else { return Err(self.explain(WireError::broken("not connected"))) };
        let mut made = open.publisher.partitions(&topic, &self.settings).await;
        let looked_at = self.exactly_once && self.aborted && open.publisher.enlisted().is_empty();
        if let (Ok(partitions), true) = (&made, looked_at) {
            let places = (0..i32::try_from(*partitions).unwrap_or(i32::MAX)).map(|p| (topic.clone(), p));
            let ended = progress::end_where_open(&mut open.publisher, places, Ending::Abort).await;
            made = ended.and(made);
        }
        let partitions = made.map_err(|error| self.explain(error))?;
        let schemas = if self.encoder.format == Format::Avro {
            Some(self.register(&topic, table).await?)
        } else {
            None
        };
        let route = Arc::new(Route { topic, partitions, schemas });
        if let Some(open) = &mut self.open {
            let id = open.publisher.cluster.topic(&route.topic).and_then(|topic| topic.id);
            open.held.add(&route.topic, id, &table.name);
            open.routes.insert((table.id, table.version), Arc::clone(&route));
        }
        Ok(route)
    }

    /// Tells the registry the schemas of a table's messages, under the names that go by its topic.
    async fn register(&mut self, topic: &str, table: &Table) -> Result<avro::Ids, SinkError> {
        let schemas = avro::schemas(&self.source, table).map_err(|message| SinkError::Blocked {
            message,
            hint: "give one of them another name by the step `rename` of the flow's `transform`".into(),
        })?;
        let Some(open) = &mut self.open else { return Err(self.explain(WireError::broken("not connected"))) };
        let first = open.records.entry(schemas.namespace.clone()).or_insert_with(|| table.name.clone());
        if *first != table.name {
            return Err(one_record(&schemas.namespace, first, &table.name));
        }
        let registry = self.registry.as_mut().ok_or_else(|| SinkError::Blocked {
            message: "`format: avro` needs a schema registry".into(),
            hint: "add `schema_registry: http://host:8081` to the sink's file".into(),
        })?;
        let key = match &schemas.key {
            Some(key) => Some(registry.id_of(&format!("{topic}-key"), key).await.map_err(of_registry)?),
            None => None,
        };
        let value = registry.id_of(&format!("{topic}-value"), &schemas.value).await.map_err(of_registry)?;
        Ok(avro::Ids { key, value })
    }

    /// The topic that a table's rows go to.
    pub fn topic(&self, table: &Table) -> String {
        self.topic_of(table).1
    }

    /// The message that says a row as it is, for who compares; `None` when the format has no word for it.
    pub fn row_message(&self, table: &Arc<Table>, row: &[Value]) -> Option<Message> {
        let change = OutChange {
            epoch: 0,
            lsn: 0,
            op: Op::Insert,
            table: Arc::clone(table),
            of: None,
            ts_ms: 0,
            txn: None,
            before: None,
            after: Some(row.to_vec()),
            ddl: None,
            whole: None,
            again: false,
        };
        self.messages(&change, None, None).ok()?.into_iter().next()
    }

    /// Reads the cluster that this writes to.
    pub fn consumer(&self) -> Result<Consumer, SinkError> {
        self.cluster().map(Consumer::new)
    }

    /// The messages of a change: those of its format, and tombstones where the flow asks for them.
    fn messages(
        &self,
        change: &OutChange,
        schemas: Option<avro::Ids>,
        place: Option<EventPlace>,
    ) -> Result<Vec<Message>, SinkError> {
        let record = Record { place, ..Record::of_out(change) };
        if let Some(ids) = schemas {
            let refused = |reason| SinkError::Row { lsn: change.lsn, reason };
            return avro::messages(&self.source, &record, ids).map_err(refused);
        }
        let mut messages = self.encoder.messages(&record);
        if let Some(template) = &self.key {
            let mut old = record.clone();
            old.after = None;
            let moves = change.op == Op::Update && change.before.is_some();
            if moves
                && self.encoder.format.has_tombstones()
                && messages.len() == 1
                && template.of(&old) != template.of(&record)
            {
                // In this shape a row that gets another key, also one of the flow's choice, goes and comes.
                let (mut gone, mut come) = (old.clone(), record.clone());
                (gone.op, come.op, come.before) = (Op::Delete, Op::Insert, None);
                come.place = place.map(|place| place.behind(1));
                messages = self.encoder.messages(&gone);
                messages.extend(self.encoder.messages(&come));
            }
            // What stands before the last message is of the key that the row had.
            let last = messages.len().saturating_sub(1);
            for (index, message) in
                messages.iter_mut().enumerate().filter(|(_, message)| message.key.is_some())
            {
                let of = if moves && index < last { &old } else { &record };
                message.key = template.of(of).or(message.key.take());
            }
        }
        if !self.tombstones || self.encoder.format.has_tombstones() || change.table.key.is_empty() {
            return Ok(messages);
        }
        let tombstone = |key| Message { topic: String::new(), key: Some(key), value: None };
        let old = || {
            let mut old = record.clone();
            old.after = None;
            match &self.key {
                Some(template) => template.of(&old),
                None => self.encoder.key(&old),
            }
        };
        let key = messages.first().and_then(|message| message.key.clone());
        match change.op {
            Op::Delete => messages.extend(key.map(tombstone)),
            // The row left its old key.
            Op::Update if change.before.is_some() => {
                messages.extend(old().filter(|old| key.as_ref() != Some(old)).map(tombstone));
            }
            _ => {}
        }
        Ok(messages)
    }

    /// The partitions of the topic of boundaries. One, unless it was there: then each transaction is in one of them.
    async fn boundary_partitions(&mut self, topic: &str) -> Result<usize, SinkError> {
        let replication = self.settings.replication;
        let settings = TopicSettings { partitions: Some(1), replication, ..TopicSettings::default() };
        let made = match &mut self.open {
            Some(open) => open.publisher.partitions(topic, &settings).await,
            None => Err(WireError::broken("not connected")),
        };
        made.map_err(|error| self.explain(error))
    }

    /// Stores the messages of changes, and counts their events in `boundaries`, whose last transaction ends behind them if
    /// `ends_txn`.
    async fn send(
        &mut self,
        changes: &[&OutChange],
        boundaries: &mut Option<Boundaries>,
        ends_txn: bool,
    ) -> Result<(), SinkError> {
        let mut pending = Pending::default();
        let mut last: Option<((u32, u32), Arc<Route>)> = None;
        let boundary_partitions = match boundaries {
            Some(boundaries) => self.boundary_partitions(&boundaries.topic).await?,
            None => 0,
        };
        if self.encoder.format == Format::Avro {
            // All schemas before the first row: one that is missing then leaves nothing half sent.
            let mut known = None;
            for change in changes {
                let id = (change.table.id, change.table.version);
                if known.replace(id) != Some(id) {
                    self.route(&change.table).await?;
                }
            }
        }
        for (index, change) in changes.iter().enumerate() {
            if let Some(ended) = boundaries.as_mut().and_then(|boundaries| boundaries.leave(change)) {
                pending.push_boundary(&ended, boundary_partitions);
            }
            let id = (change.table.id, change.table.version);
            let route = match &last {
                Some((known, route)) if *known == id => Arc::clone(route),
                _ => self.route(&change.table).await?,
            };
            let (epoch, lsn) = (change.epoch.to_string(), change.lsn.to_string());
            let mut headers: Vec<(&str, &[u8])> = vec![("epoch", epoch.as_bytes()), ("lsn", lsn.as_bytes())];
            if let Some(txn) = &change.txn {
                headers.push(("txn", txn.id.as_bytes()));
            }
            let place = boundaries.as_ref().and_then(|boundaries| boundaries.place(change));
            let messages = self.messages(change, route.schemas, place)?;
            if let Some(boundaries) = boundaries {
                let events = messages.iter().filter(|message| message.value.is_some()).count() as u64;
                let begun = boundaries.count(change, events).map_err(|TooManyTables| too_many_tables())?;
                if let Some(begun) = begun {
                    pending.push_boundary(&begun, boundary_partitions);
                }
            }
            for message in messages {
                let partition = message.key.as_deref().map_or(0, |key| partition_of(key, route.partitions));
                pending.push((&route.topic, partition as i32), index, &message, &headers);
            }
            last = Some((id, route));
            if pending.bytes >= PENDING_BYTES_MAX {
                self.flush(&mut pending, changes).await?;
            }
        }
        if ends_txn && let Some(ended) = boundaries.as_mut().and_then(Boundaries::end) {
            pending.push_boundary(&ended, boundary_partitions);
        }
        self.flush(&mut pending, changes).await
    }

    /// Stores everything that waits.
    async fn flush(&mut self, pending: &mut Pending, changes: &[&OutChange]) -> Result<(), SinkError> {
        loop {
            let heads = pending.heads();
            if heads.is_empty() {
                pending.bytes = 0;
                return Ok(());
            }
            let failed = match &mut self.open {
                Some(open) => open.publisher.round(&heads).await,
                None => Err(WireError::broken("not connected")),
            };
            for failure in failed.map_err(|error| self.explain(error))? {
                let place = match failure {
                    Failed::TooLarge(place) => place,
                    Failed::Wire(error) => return Err(self.explain(error)),
                };
                let Some((_, batch)) = heads.iter().find(|(head, _)| *head == place) else { continue };
                let queue = pending.places.entry(place).or_default();
                if batch.len() > 1 {
                    let (first, second) = batch.clone().split();
                    queue.push_front(second);
                    queue.push_front(first);
                    continue;
                }
                let Some(change) = batch.first_change().and_then(|index| changes.get(index)) else {
                    return Err(SinkError::Blocked {
                        message: format!(
                            "the topic of `transactions` takes no message of {} bytes",
                            batch.bytes()
                        ),
                        hint: "raise its max.message.bytes".into(),
                    });
                };
                queue.push_front(self.by_reference(change, batch)?);
            }
        }
    }

    /// In place of a row that is larger than its topic takes: where it can be had.
    fn by_reference(&self, change: &OutChange, refused: &Batch) -> Result<Batch, SinkError> {
        if self.encoder.format == Format::Avro {
            // A reference is no record of the table's schema: who reads Avro could not read it.
            return Err(SinkError::Row {
                lsn: change.lsn,
                reason: format!(
                    "its topic takes no message of {} bytes: raise max.message.bytes, then retry it",
                    refused.bytes()
                ),
            });
        }
        let value = reference(&self.source, change, refused.bytes());
        let key = refused.first_key();
        let (epoch, lsn) = (change.epoch.to_string(), change.lsn.to_string());
        let mut headers: Vec<(&str, &[u8])> =
            vec![("epoch", epoch.as_bytes()), ("lsn", lsn.as_bytes()), ("reference", b"true")];
        if let Some(txn) = &change.txn {
            headers.push(("txn", txn.id.as_bytes()));
        }
        let mut batch = Batch::default();
        batch.push(refused.first_change().unwrap_or(0), key, Some(&value), &headers);
        if batch.bytes() >= refused.bytes() {
            return Err(SinkError::Blocked {
                message: format!(
                    "the topic of `{}` takes no message of {} bytes",
                    change.table.name,
                    refused.bytes()
                ),
                hint: "raise its max.message.bytes".into(),
            });
        }
        Ok(batch)
    }

    /// Stores where the flow is; with transactions, as the last record of this one.
    async fn note(&mut self, reached: Progress) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Err(self.explain(WireError::broken("not connected"))) };
        let mut batch = Batch::default();
        if let Some(held) = open.held.unsaved() {
            batch.push(0, Some(topics::key(&self.flow).as_bytes()), Some(&held), &[]);
        }
        let counted = self.boundaries.as_ref().and_then(Boundaries::open);
        let value = progress::value(open.journal, reached, counted, open.publisher.enlisted().iter());
        batch.push(0, Some(self.flow.as_bytes()), Some(&value), &[]);
        let place = (progress::TOPIC.to_owned(), 0);
        let stored = open.publisher.round(&[(place, batch)]).await;
        let stored = stored.and_then(|failed| match failed.into_iter().next() {
            None => Ok(()),
            Some(Failed::Wire(error)) => Err(error),
            Some(Failed::TooLarge(_)) => Err(WireError::broken("the progress topic takes no message")),
        });
        let stored = match stored {
            Ok(()) if self.exactly_once => open.publisher.end(Ending::Commit).await,
            stored => stored,
        };
        if stored.is_ok() {
            open.held.saved();
        }
        (open.noted, open.noted_at, open.rows, open.began_at) = (reached, Instant::now(), 0, None);
        stored.map_err(|error| self.explain(error))
    }

    async fn apply_batch(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Err(self.explain(WireError::broken("not connected"))) };
        let done = open.progress.lsn;
        if batch.redrive && open.rows > 0 {
            // It stands alone: what is open goes first.
            let reached = open.progress;
            self.note(reached).await?;
        }
        let fresh: Vec<&OutChange> = batch.changes.iter().filter(|c| batch.redrive || c.lsn > done).collect();
        let starts = (!fresh.is_empty()).then(Instant::now);
        // What is tried again is of a transaction that has ended: it is no part of any count.
        let mut boundaries = self.boundaries.clone().filter(|_| !batch.redrive);
        self.send(&fresh, &mut boundaries, batch.ends_txn).await?;
        self.boundaries = boundaries.or(self.boundaries.take());
        let Some(open) = &mut self.open else { return Ok(()) };
        open.leave_topics(&fresh);
        open.began_at = open.began_at.or(starts);
        if !batch.redrive {
            open.progress = batch.up_to;
        }
        open.rows += fresh.len();
        let reached = open.progress;
        let due = if self.exactly_once {
            let old = open.began_at.is_some_and(|at| at.elapsed() > self.transaction_age_max);
            batch.redrive || batch.ends_txn || open.rows > TRANSACTION_ROWS_MAX || old
        } else {
            open.noted_at.elapsed() > PROGRESS_INTERVAL
        };
        if due { self.note(reached).await } else { Ok(()) }
    }

    pub fn explain(&self, error: WireError) -> SinkError {
        let message = format!("Kafka: {error}");
        let hint = match &error {
            WireError::Broken(_) => return SinkError::Unavailable { message },
            WireError::Hanging { topic, offset } => format!(
                "a broker lost the end of it: list what hangs with `kafka-transactions.sh find-hanging`, abort it in \
                 all the flow's topics, and at last with `kafka-transactions.sh abort --topic {topic} --partition 0 \
                 --start-offset {offset}`; the flow then goes on, and sends these changes again"
            ),
            WireError::Login(_) => "check the URL's user, password and sasl=".to_owned(),
            WireError::Tls { hint, .. } => (*hint).to_owned(),
            WireError::Refused { error, .. } => match error {
                ResponseError::TopicAuthorizationFailed
                | ResponseError::ClusterAuthorizationFailed
                | ResponseError::TransactionalIdAuthorizationFailed => format!(
                    "grant the user Write, Describe and Create on the flow's topics, and Read, Write and Create on \
                     `{}`{}",
                    progress::TOPIC,
                    self.transactional_id()
                        .map(|id| format!(", and Write and Describe on the transactional id `{id}`"))
                        .unwrap_or_default()
                ),
                ResponseError::InvalidTransactionTimeout => format!(
                    "raise the brokers' transaction.max.timeout.ms to {} at least, or leave `exactly_once` away",
                    producer::TRANSACTION_TIMEOUT_MS
                ),
                ResponseError::UnsupportedCompressionType => {
                    "choose another `compression`: the brokers do not know this one".to_owned()
                }
                ResponseError::UnsupportedVersion | ResponseError::UnsupportedForMessageFormat => {
                    "the brokers, or the format of their messages, are too old: see the versions that the guide names"
                        .to_owned()
                }
                ResponseError::InvalidRecord => {
                    "a compacted topic takes no record without a key: give the flow another topic for tables without a \
                     key, or leave them out"
                        .to_owned()
                }
                ResponseError::InvalidTopicException
                | ResponseError::InvalidPartitions
                | ResponseError::InvalidReplicationFactor
                | ResponseError::InvalidConfig
                | ResponseError::PolicyViolation => {
                    "mend the flow's topic, partitions, replication or topic_config, or make the topic by hand".to_owned()
                }
                ResponseError::ProducerFenced | ResponseError::InvalidProducerEpoch => {
                    return SinkError::Unavailable {
                        message: format!("{message}: another process delivers the flow `{}`", self.flow),
                    };
                }
                // The producer is begun anew.
                _ => return SinkError::Unavailable { message },
            },
        };
        SinkError::Blocked { message, hint }
    }
}

fn too_many_tables() -> SinkError {
    SinkError::Blocked {
        message: format!("a transaction of the source has events of more than {TABLES_MAX} tables"),
        hint: "leave `transactions` away, or give the tables to several flows".into(),
    }
}

fn of_registry(error: RegistryError) -> SinkError {
    match error {
        RegistryError::Away(_) => SinkError::Unavailable { message: error.to_string() },
        RegistryError::Refused { ref hint, .. } => {
            SinkError::Blocked { hint: hint.clone(), message: error.to_string() }
        }
    }
}

/// The schemas of two tables would have one name, and programs that are made of schemas would take one for the other.
fn one_record(record: &str, first: &TableName, second: &TableName) -> SinkError {
    SinkError::Blocked {
        message: format!(
            "the rows of `{first}` and `{second}` would both be called `{record}`: Avro takes ASCII letters, digits and `_`"
        ),
        hint: format!(
            "give one of them another name by `route: {{\"{second}\": \"{}.NAME\"}}`, or a flow of its own",
            second.db
        ),
    }
}

/// A name as Kafka takes it.
fn legal_topic(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().map(legal).take(TOPIC_CHARS_MAX).collect()
}

/// Rows of two tables with equal keys would overwrite each other in one topic, though the template keeps them apart.
fn one_topic(topic: &str, first: &TableName, second: &TableName) -> SinkError {
    SinkError::Blocked {
        message: format!(
            "the tables `{first}` and `{second}` would share the topic `{topic}`: Kafka does not take their names as they are"
        ),
        hint: format!(
            "give one of them a name of ASCII letters by `route: {{\"{second}\": \"{}.NAME\"}}`, or a flow of its own with \
             another `topic`",
            second.db
        ),
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        let cluster = self.cluster()?;
        let id = self.transactional_id();
        let opened = async {
            let (mut publisher, ended) = Publisher::start(cluster, self.codec, id.as_deref()).await?;
            self.ended = ended.or(self.ended);
            self.aborted = self.ended.map_or(self.aborted, |ended| ended == Ending::Abort);
            publisher.partitions(progress::TOPIC, &progress::settings(self.settings.replication)).await?;
            let told = progress::read(&mut publisher, &self.flow, self.ended).await?;
            self.ended = None;
            let held = progress::newest(&mut publisher, &topics::key(&self.flow)).await?;
            Ok((publisher, told, topics::Held::parse(held.as_deref())?))
        };
        let (publisher, told, held) = opened.await.map_err(|error| self.explain(error))?;
        let (told, counted) = told.unzip();
        let (journal, progress) =
            told.map_or_else(Default::default, |told: Standing| (told.journal, told.progress));
        if let Some(boundaries) = &mut self.boundaries {
            boundaries.resume(counted.flatten());
        }
        self.open = Some(Open {
            publisher,
            journal,
            progress,
            noted: progress,
            noted_at: Instant::now(),
            rows: 0,
            began_at: None,
            routes: HashMap::new(),
            topics: HashMap::new(),
            records: HashMap::new(),
            held,
        });
        Ok(told)
    }

    fn follow(&mut self, standing: Standing) {
        if let Some(open) = &mut self.open {
            let elsewhere = (open.journal, open.progress) != (standing.journal, standing.progress);
            if let Some(boundaries) = self.boundaries.as_mut().filter(|_| elsewhere) {
                boundaries.resume(None);
            }
            (open.journal, open.progress, open.noted) =
                (standing.journal, standing.progress, standing.progress);
        }
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        let back = self.open.as_ref().map(|open| open.progress).unwrap_or_default();
        let result = self.note(back).await;
        if result.is_err() {
            self.open = None;
        }
        result
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        let mut cluster = self.cluster()?;
        cluster.refresh(&[]).await.map_err(|error| self.explain(error))?;
        match &mut self.registry {
            Some(registry) => registry.probe().await.map_err(of_registry),
            None => Ok(()),
        }
    }

    async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), SinkError> {
        if let Some(open) = self.open.as_ref().filter(|open| self.aborted && open.rows > 0) {
            // A topic is looked at while nothing of ours is open.
            let reached = open.progress;
            self.note(reached).await?;
        }
        for table in tables {
            self.route(table).await?;
        }
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let result = self.apply_batch(batch).await;
        // What is stored is known when one row is refused, unless it is a part of a transaction.
        let known = !self.exactly_once && matches!(result, Err(SinkError::Row { .. }));
        if result.is_err() && !known {
            // Only a new `open` knows what is stored.
            self.open = None;
        }
        result
    }

    async fn forget(&mut self, tables: &[TableName]) -> Result<(), SinkError> {
        if let Some(open) = &mut self.open {
            open.held.forget(tables);
        }
        Ok(())
    }

    async fn still_there(&mut self) -> Result<(), SinkError> {
        let result = self.look_for_topics().await;
        if result.is_err() {
            self.open = None;
        }
        result
    }

    async fn settle(&mut self) -> Result<(), SinkError> {
        match &self.open {
            // With transactions too: an open one would hold up every reader of its partitions.
            Some(open) if open.noted != open.progress => {
                let reached = open.progress;
                self.note(reached).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Column, ColumnType, Generated};
    use testkit::{Kafka, KafkaOptions};

    fn sink(url: &str) -> KafkaSink {
        let text =
            "{from: shop, to: broker, options: {exactly_once: true, partitions: 1, transactions: ends}}";
        let config = serde_saphyr::from_str(text).unwrap();
        let url = &Secret::new(url.to_owned());
        let target = Target { url, schema_registry: None, files: &tls::Files::default() };
        KafkaSink::new("copy", "shop", target, &config).unwrap()
    }

    /// A row in the middle of a transaction of the source.
    fn middle(lsn: u64) -> SinkBatch {
        let id = Column {
            name: "id".into(),
            ty: ColumnType::BigInt { unsigned: false },
            sql_type: "bigint".into(),
            nullable: false,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        let name = TableName::new("shop", "a");
        let table =
            Table { id: 1, version: 1, name, columns: vec![id], key: vec![0], unique_keys: Vec::new() };
        let change = OutChange {
            epoch: 1,
            lsn,
            op: Op::Insert,
            table: Arc::new(table),
            of: None,
            ts_ms: 0,
            txn: Some(base::Txn { id: "u:1".into(), index: lsn - 1, last: false }),
            before: None,
            after: Some(vec![Value::Int(lsn as i64)]),
            ddl: None,
            whole: None,
            again: false,
        };
        let (source, flow, up_to) = ("shop".into(), "copy".into(), Progress { epoch: 1, lsn });
        SinkBatch { source, flow, changes: vec![change], up_to, ends_txn: false, redrive: false }
    }

    #[tokio::test]
    async fn rows_of_an_aborted_transaction_stay_aborted_when_a_broker_forgot_that() {
        let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
        let topic = "shop.shop.a";
        let mut first = sink(&kafka.url());
        first.open().await.unwrap();
        first.follow(Standing { journal: 7, progress: Progress::default() });
        first.apply(&middle(1)).await.unwrap();
        drop(first);
        // The next one shuts it out, and aborts what it had open.
        assert_eq!(sink(&kafka.url()).open().await.unwrap(), None);
        kafka.kill9();
        assert!(kafka.forget_last_batch(topic, 0).unwrap(), "the end of a transaction");
        // And that the next one was there.
        assert!(!kafka.forget_last_batch("__transaction_state", 0).unwrap());
        kafka.restart().await.unwrap();
        assert_eq!(kafka.messages(topic).await.unwrap().len(), 0);
        let mut third = sink(&kafka.url());
        let told = third.open().await.unwrap();
        assert_eq!(told, None);
        third.follow(Standing { journal: 7, progress: Progress::default() });
        let mut whole = middle(1);
        whole.ends_txn = true;
        third.apply(&whole).await.unwrap();
        let until = async {
            while kafka.messages(topic).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), until).await.unwrap();
        assert_eq!(kafka.messages(topic).await.unwrap().len(), 1, "what was aborted is not there beside it");
    }

    #[tokio::test]
    async fn a_transaction_that_lasts_or_is_left_is_committed_in_parts() {
        let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
        let readable = async || kafka.messages("shop.shop.a").await.unwrap().len();
        // The broker writes the end of a transaction after it has answered.
        let comes_to = async |wanted: usize| {
            let until = async {
                while readable().await != wanted {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), until).await.is_ok()
        };
        let mut first = sink(&kafka.url());
        assert_eq!(first.open().await.unwrap(), None);
        first.follow(Standing { journal: 7, progress: Progress::default() });
        first.apply(&middle(1)).await.unwrap();
        assert_eq!(readable().await, 0, "young, and open");
        first.transaction_age_max = Duration::ZERO;
        first.apply(&middle(2)).await.unwrap();
        assert!(comes_to(2).await, "a part, committed for its age");
        first.transaction_age_max = TRANSACTION_AGE_MAX;
        first.apply(&middle(3)).await.unwrap();
        assert_eq!(readable().await, 2);
        first.settle().await.unwrap();
        assert!(comes_to(3).await, "a flow that pauses leaves nothing open");
        drop(first);
        let mut second = sink(&kafka.url());
        let told = second.open().await.unwrap();
        assert_eq!(told, Some(Standing { journal: 7, progress: Progress { epoch: 1, lsn: 3 } }));
        // Its counts went with its parts.
        second.follow(told.unwrap());
        second.apply(&SinkBatch { ends_txn: true, ..middle(4) }).await.unwrap();
        assert!(comes_to(4).await);
        let ends = kafka.messages("ends").await.unwrap();
        let ends: Vec<serde_json::Value> =
            ends.iter().map(|end| serde_json::from_str(end.value.as_ref().unwrap()).unwrap()).collect();
        assert_eq!((ends.len(), &ends[0]["status"]), (2, &serde_json::json!("BEGIN")), "{ends:?}");
        assert_eq!((&ends[1]["status"], &ends[1]["event_count"]), (&"END".into(), &4.into()), "{ends:?}");
    }
}
