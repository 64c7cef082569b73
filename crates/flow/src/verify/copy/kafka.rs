//! The rows that a topic's messages leave: the last message of each key, less what was deleted, emptied or moved since.
//!
//! The topic is read from its beginning once, and on from there at each look. Of a row only prints are kept, with the place
//! of its last message; that is read again when the row is to be shown.

use super::document::{cells, described, of_key, parse_documents, unreadable, value};
use super::{Copy, Cursor, Described, of_sink, placeless};
use crate::capture::kafka::consumer::Consumer;
use crate::capture::kafka::unpack::{NotUnpacked, Unpacker};
use crate::config::{FlowConfig, SinkConfig};
use crate::formats::decode::cells::{Cells as Members, Raw};
use crate::formats::decode::{Incoming, MessageFormat, decode};
use crate::formats::{Format, avro};
use crate::kafka::wire::WireError;
use crate::sinks::kafka::{KafkaSink, Target};
use crate::verify::{Cells, Key, Pair, SILENCE_MAX, Sum, VerifyError, decisive, sink_error, unsupported};
use async_trait::async_trait;
use base::{Op, Table, TableName, TopicPosition, Value};
use kafka_protocol::records::Record;
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Keys of one topic whose prints are kept, about 100 bytes each: 200 MB.
const KEYS_MAX: usize = 2_000_000;

type Print = [u8; 16];

pub struct Replay {
    source: String,
    sink: KafkaSink,
    format: MessageFormat,
    /// For messages that are no text.
    unpacker: Option<Unpacker>,
    /// Whether a message's key is made of other columns than the table's key.
    named: bool,
    consumer: Consumer,
    topics: HashMap<TableName, String>,
    /// Of the table that is compared.
    state: Option<State>,
}

struct State {
    table: Arc<Table>,
    topic: String,
    position: TopicPosition,
    rows: HashMap<Print, Last>,
    /// Keys that rows left for others, and the last such change. Its message is with the new key, perhaps in another partition,
    /// whose messages come before or after those of the old key.
    left: HashMap<Print, Ending>,
    /// The last TRUNCATE.
    emptied: Option<Ending>,
    /// Keys that no row of the source was looked for by.
    strange: Vec<Print>,
}

/// What ended rows that were written before it: when its message was written, and its lsn. By the time first: a journal that is
/// made anew counts from 1 again.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ending {
    at_ms: i64,
    lsn: u64,
}

impl Ending {
    fn ends(&self, row: &Last) -> bool {
        row.lsn < self.lsn && row.at_ms <= self.at_ms
    }
}

/// The last message of a key.
#[derive(Clone, Copy)]
struct Last {
    row: Print,
    lsn: u64,
    at_ms: i64,
    partition: u32,
    offset: i64,
    /// In place of a row that was too large.
    by_reference: bool,
    /// Whether the source was found to have such a key.
    known: bool,
}

/// What a message says of its key's row.
enum Said {
    Row(Cells),
    Gone,
    Emptied,
    Nothing,
}

impl Replay {
    pub fn new(
        source: &str,
        flow_name: &str,
        sink: &SinkConfig,
        flow: &FlowConfig,
    ) -> Result<Self, VerifyError> {
        let format = match flow.options.format {
            Format::Json => MessageFormat::Json,
            Format::Debezium => MessageFormat::Debezium,
            Format::Maxwell => MessageFormat::Maxwell,
            Format::Canal => MessageFormat::Canal,
            Format::CloudEvents => {
                let why = "messages in cloudevents are not compared yet";
                return Err(unsupported(format!("the sink `{}`: {why}", flow.to)));
            }
            Format::S3Event => {
                let why = "messages in s3event do not hold rows";
                return Err(unsupported(format!("the sink `{}`: {why}", flow.to)));
            }
            // Told in the words of `debezium`, without schemas.
            Format::Avro => MessageFormat::Debezium,
        };
        let packed = flow.options.format == Format::Avro;
        let registry = sink.schema_registry.as_ref();
        let files = &sink.tls_files();
        let unpacker = packed.then(|| Unpacker::new(registry, files, "sink")).transpose();
        let unpacker = unpacker.map_err(|error| sink_error(&error))?;
        let mut told = flow.clone();
        if packed {
            told.options.format = Format::Debezium;
        }
        let flow = &told;
        let url = sink.url.as_ref().ok_or_else(placeless)?;
        let target = Target { url, schema_registry: None, files };
        let sink = KafkaSink::new(flow_name, source, target, flow).map_err(of_sink)?;
        let consumer = sink.consumer().map_err(of_sink)?;
        let named = flow.options.key.is_some();
        let (source, topics) = (source.to_owned(), HashMap::new());
        Ok(Self { source, sink, format, unpacker, named, consumer, topics, state: None })
    }

    fn failed(&self, error: WireError) -> VerifyError {
        of_sink(self.sink.explain(error))
    }

    /// The row of a message that the flow would write.
    fn row_of(&self, table: &Arc<Table>, row: &[Value]) -> Option<(Vec<u8>, Cells)> {
        let message = self.sink.row_message(table, row)?;
        let (key, value) = (message.key?, message.value?);
        match self.read(table, Some(&key), Some(&value)).0 {
            Said::Row(cells) => Some((key, cells)),
            _ => None,
        }
    }

    /// What a message says, and the key that its row left.
    fn read(&self, table: &Arc<Table>, key: Option<&[u8]>, value: Option<&[u8]>) -> (Said, Option<Vec<u8>>) {
        let Some(text) = value else { return (Said::Gone, None) };
        let incoming = Incoming { source: &self.source, topic: "", key, value };
        let change = match decode(self.format, incoming) {
            Ok(changes) => changes.into_iter().next(),
            Err(_) => return (Said::Row(unreadable(table, &String::from_utf8_lossy(text))), None),
        };
        let Some(change) = change.filter(|change| change.name == table.name) else {
            return (Said::Nothing, None);
        };
        match change.op {
            Op::Truncate => (Said::Emptied, None),
            Op::Delete => (Said::Gone, None),
            _ => {
                let mut after = change.after.as_ref().map(object).unwrap_or_default();
                let left =
                    change.before.as_ref().map(object).and_then(|before| self.left(table, &before, &after));
                if matches!(self.format, MessageFormat::Debezium | MessageFormat::Canal) {
                    parse_documents(table, &mut after);
                }
                (Said::Row(cells(table, &after)), left.filter(|left| key != Some(left)))
            }
        }
    }

    /// The key of the row before, where it may be another.
    fn left(
        &self,
        table: &Arc<Table>,
        before: &Map<String, Json>,
        after: &Map<String, Json>,
    ) -> Option<Vec<u8>> {
        let differs = |index: &usize| {
            let name = &table.columns[*index].name;
            before.contains_key(name) && before.get(name) != after.get(name)
        };
        if !self.named && !table.key.iter().any(differs) {
            return None;
        }
        // What an image does not tell is as it was.
        let mut whole = after.clone();
        whole.extend(before.clone());
        let row = table
            .columns
            .iter()
            .map(|column| value(column, &whole, self.format.wire(&column.ty)).unwrap_or(Value::Null));
        self.sink.row_message(table, &row.collect::<Vec<_>>())?.key
    }

    /// Reads what came since, and from the beginning at first.
    async fn catch_up(&mut self, pair: &Pair) -> Result<&mut State, VerifyError> {
        let table = pair.target();
        let mut state = match self.state.take().filter(|state| state.table.name == table.name) {
            Some(state) => state,
            None => self.begin(table).await?,
        };
        let topics = [state.topic.clone()];
        let live = self.consumer.live(&topics).await.map_err(|error| self.failed(error))?;
        let live = live.get(&state.topic).ok_or_else(|| gone(&state.topic))?;
        if live.id != state.position.id || live.latest.len() != state.position.next.len() {
            return Err(VerifyError::Sink {
                message: format!("the topic `{}` was made anew, or has more partitions now", state.topic),
            });
        }
        let behind =
            |position: &TopicPosition| position.next.iter().zip(&live.latest).any(|(n, end)| n < end);
        let mut moved = Instant::now();
        while behind(&state.position) {
            let position = BTreeMap::from([(state.topic.clone(), state.position.clone())]);
            let round = self.consumer.round(&position).await.map_err(|error| self.failed(error))?;
            if round.lost {
                return Err(VerifyError::Sink {
                    message: format!(
                        "messages of the topic `{}` were deleted while it was read",
                        state.topic
                    ),
                });
            }
            if round.stale.is_some() {
                let topic = state.topic.clone();
                self.consumer.discover(|name| name == topic).await.map_err(|error| self.failed(error))?;
            }
            for part in round.parts {
                // A row that gets another key is a delete and an insert in Debezium's shape.
                let alone = self.format == MessageFormat::Debezium && !self.named;
                let records: Vec<Record> = decisive(&part.records, alone).cloned().collect();
                for record in self.unpacked(records).await? {
                    self.take(&mut state, part.partition, &record)?;
                }
                let next = &mut state.position.next[part.partition as usize];
                if part.next > *next {
                    (*next, moved) = (part.next, Instant::now());
                }
            }
            if moved.elapsed() > SILENCE_MAX {
                return Err(VerifyError::Stalled {
                    message: format!(
                        "the topic `{}` cannot be read to its end: a transaction is open",
                        state.topic
                    ),
                });
            }
        }
        Ok(self.state.insert(state))
    }

    /// The messages as text. One that cannot be read stays as it is, and is no row of the source.
    async fn unpacked(&mut self, mut records: Vec<Record>) -> Result<Vec<Record>, VerifyError> {
        let Some(unpacker) = &mut self.unpacker else { return Ok(records) };
        for record in &mut records {
            for part in [&mut record.key, &mut record.value].into_iter().flatten() {
                match unpacker.payload(part).await {
                    Ok(text) => *part = text.into(),
                    Err(NotUnpacked::Bad(_)) => {}
                    Err(NotUnpacked::Unasked(error)) => return Err(sink_error(&error)),
                }
            }
        }
        Ok(records)
    }

    async fn begin(&mut self, table: &Arc<Table>) -> Result<State, VerifyError> {
        let topic = self.sink.topic(table);
        self.consumer.discover(|name| name == topic).await.map_err(|error| self.failed(error))?;
        let live = self.consumer.live(std::slice::from_ref(&topic)).await.map_err(|e| self.failed(e))?;
        let live = live.get(&topic).ok_or_else(|| gone(&topic))?;
        Ok(State {
            table: Arc::clone(table),
            position: TopicPosition { id: live.id.clone(), next: live.earliest.clone() },
            topic,
            rows: HashMap::new(),
            left: HashMap::new(),
            emptied: None,
            strange: Vec::new(),
        })
    }

    /// Takes a message into the state.
    fn take(&self, state: &mut State, partition: u32, record: &Record) -> Result<(), VerifyError> {
        let header = |name: &str| record.headers.iter().find(|(own, _)| own.as_str() == name);
        let lsn =
            header("lsn").and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse().ok());
        // What is not ours is emptied by nothing.
        let (lsn, at_ms) = (lsn.unwrap_or(u64::MAX), record.timestamp);
        let by_reference = header("reference").is_some();
        let key = record.key.as_deref();
        let (said, left) = self.read(&state.table, key, record.value.as_deref());
        let ending = Ending { at_ms, lsn };
        if let Some(left) = left {
            let at = state.left.entry(print(&[&left])).or_default();
            *at = ending.max(*at);
        }
        let Some(key) = key.map(|key| print(&[key])) else {
            if matches!(said, Said::Emptied) {
                state.emptied = Some(ending).max(state.emptied);
            }
            return Ok(());
        };
        match said {
            Said::Row(cells) => {
                let known = state.rows.get(&key).is_some_and(|last| last.known);
                let row = print_of(&cells);
                state.rows.insert(
                    key,
                    Last { row, lsn, at_ms, partition, offset: record.offset, by_reference, known },
                );
            }
            Said::Gone => {
                state.rows.remove(&key);
            }
            Said::Emptied => state.emptied = Some(ending).max(state.emptied),
            Said::Nothing => {}
        }
        if state.rows.len() + state.left.len() > KEYS_MAX {
            return Err(VerifyError::Unsupported {
                message: format!("the topic `{}` has more than {KEYS_MAX} keys", state.topic),
                hint: "leave its table out with --table".into(),
            });
        }
        Ok(())
    }

    /// Reads these messages again.
    async fn messages(&mut self, wanted: &[Last]) -> Result<HashMap<(u32, i64), Record>, VerifyError> {
        let Some(state) = &self.state else { return Ok(HashMap::new()) };
        let (topic, ends) = (state.topic.clone(), state.position.clone());
        let mut open: BTreeSet<(u32, i64)> =
            wanted.iter().map(|last| (last.partition, last.offset)).collect();
        let mut out = HashMap::with_capacity(open.len());
        let mut moved = Instant::now();
        while !open.is_empty() {
            let mut position = ends.clone();
            for (partition, next) in position.next.iter_mut().enumerate() {
                let first = open.range((partition as u32, 0)..).next();
                *next = first.filter(|(p, _)| *p as usize == partition).map_or(*next, |(_, offset)| *offset);
            }
            let position = BTreeMap::from([(topic.clone(), position)]);
            let round = self.consumer.round(&position).await.map_err(|error| self.failed(error))?;
            for part in round.parts {
                // Compaction took those that are not there: a newer message of the key is.
                let passed: Vec<_> =
                    open.range((part.partition, 0)..(part.partition, part.next)).copied().collect();
                if !passed.is_empty() {
                    moved = Instant::now();
                }
                for record in self.unpacked(part.records).await? {
                    if open.contains(&(part.partition, record.offset)) {
                        out.insert((part.partition, record.offset), record);
                    }
                }
                passed.iter().for_each(|place| {
                    open.remove(place);
                });
            }
            if round.lost || moved.elapsed() > SILENCE_MAX {
                return Err(VerifyError::Sink {
                    message: format!("messages of the topic `{topic}` are gone"),
                });
            }
            if round.stale.is_some() {
                self.consumer.discover(|name| name == topic).await.map_err(|error| self.failed(error))?;
            }
        }
        Ok(out)
    }
}

impl State {
    fn last(&self, key: &Print) -> Option<&Last> {
        let last = self.rows.get(key)?;
        let ended = |ending: Option<&Ending>| ending.is_some_and(|ending| ending.ends(last));
        (!ended(self.emptied.as_ref()) && !ended(self.left.get(key))).then_some(last)
    }
}

#[async_trait]
impl Copy for Replay {
    fn note(&mut self, table: &Arc<Table>) {
        self.topics.insert(table.name.clone(), self.sink.topic(table));
    }

    async fn describe(&mut self, table: &Arc<Table>) -> Result<Described, VerifyError> {
        let topic = self.sink.topic(table);
        let mut others = self.topics.iter().filter(|(name, other)| **name != table.name && **other == topic);
        if let Some((other, _)) = others.next() {
            return Ok(Described::Unfit(format!("its messages are in one topic with those of `{other}`")));
        }
        if self.unpacker.is_some() && !avro::keeps_names(table) {
            return Ok(Described::Unfit("its columns have other names in Avro".to_owned()));
        }
        let found = self.consumer.discover(|name| name == topic).await.map_err(|error| self.failed(error))?;
        if found.is_empty() {
            return Ok(Described::Unfit(format!("the sink has no topic `{topic}`")));
        }
        Ok(described(table))
    }

    fn key(&self, pair: &Pair, row: &[Value]) -> Key {
        let values = pair.key_values(row);
        match self.row_of(pair.target(), row) {
            Some((place, _)) => Key { text: name(&place), values, place, routing: None },
            None => Key::nowhere(pair, values),
        }
    }

    fn expected(&self, pair: &Pair, row: &[Value]) -> Cells {
        let table = pair.target();
        self.row_of(table, row).map_or_else(|| unreadable(table, "no message"), |(_, cells)| cells)
    }

    async fn rows(&mut self, pair: &Pair, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError> {
        let state = self.catch_up(pair).await?;
        let held = keys.iter().filter_map(|key| Some((*key, *state.last(&print(&[&key.place]))?)));
        let held: Vec<(&Key, Last)> = held.collect();
        let places: Vec<Last> = held.iter().map(|(_, last)| *last).collect();
        let messages = self.messages(&places).await?;
        let mut out = HashMap::with_capacity(held.len());
        for (key, last) in held {
            let Some(record) = messages.get(&(last.partition, last.offset)) else { continue };
            let said = self.read(pair.target(), record.key.as_deref(), record.value.as_deref());
            if let Said::Row(cells) = said.0 {
                out.insert(key.text.clone(), cells);
            }
        }
        Ok(out)
    }

    async fn differing(&mut self, pair: &Pair, rows: &[(Key, Cells)]) -> Result<Vec<Key>, VerifyError> {
        let state = self.catch_up(pair).await?;
        let mut out = Vec::new();
        for (key, cells) in rows {
            let place = print(&[&key.place]);
            let last = state.last(&place).copied();
            if let Some(last) = state.rows.get_mut(&place) {
                last.known = true;
            }
            if !last.is_some_and(|last| last.by_reference || last.row == print_of(cells)) {
                out.push(key.clone());
            }
        }
        Ok(out)
    }

    async fn keys(
        &mut self,
        pair: &Pair,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Cursor>), VerifyError> {
        let state = self.catch_up(pair).await?;
        let from = match after {
            Some(Cursor::Row(from)) => from as usize,
            _ => {
                let strange =
                    state.rows.iter().filter(|(key, last)| !last.known && state.last(key).is_some());
                state.strange = strange.map(|(key, _)| *key).collect();
                0
            }
        };
        let page: Vec<Last> = state
            .strange
            .iter()
            .skip(from)
            .take(limit as usize)
            .filter_map(|key| state.last(key).copied())
            .collect();
        let next = from + limit as usize;
        let next = (next < state.strange.len()).then_some(Cursor::Row(next as i64));
        let table = pair.target();
        let mut keys = Vec::with_capacity(page.len());
        for (_, record) in self.messages(&page).await? {
            let Some(place) = record.key else { continue };
            let incoming = Incoming {
                source: &self.source,
                topic: "",
                key: Some(&place),
                value: record.value.as_deref(),
            };
            let change = decode(self.format, incoming).ok().and_then(|changes| changes.into_iter().next());
            let after = change.and_then(|change| change.after.as_ref().map(object)).unwrap_or_default();
            let values = of_key(table, |column| value(column, &after, self.format.wire(&column.ty)));
            keys.push(Key { text: name(&place), values, place: place.to_vec(), routing: None });
        }
        Ok((keys, next))
    }

    async fn sum(&mut self, _pair: &Pair) -> Result<Sum, VerifyError> {
        unreachable!("a table without a key is unfit")
    }

    fn unchecked(&mut self, _pair: &Pair) -> Option<String> {
        let state = self.state.take()?;
        let count =
            state.rows.iter().filter(|(key, last)| last.by_reference && state.last(key).is_some()).count();
        (count > 0).then(|| {
            format!("{count} rows are in the topic by reference: only that they are there was looked at")
        })
    }
}

fn gone(topic: &str) -> VerifyError {
    sink_error(&WireError::Broken(format!("the topic `{topic}` is gone")))
}

fn object(members: &Members<'_>) -> Map<String, Json> {
    let value = |raw: &Raw<'_>| serde_json::from_str(raw.get()).unwrap_or(Json::Null);
    members.0.iter().map(|(name, raw)| (name.to_string(), value(raw))).collect()
}

fn name(place: &[u8]) -> String {
    std::str::from_utf8(place).map_or_else(|_| place.escape_ascii().to_string(), str::to_owned)
}

fn print(parts: &[&[u8]]) -> Print {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&digest.finalize()[..16]);
    out
}

fn print_of(cells: &Cells) -> Print {
    let parts: Vec<&[u8]> = cells.iter().map(|cell| cell.as_deref().unwrap_or("null").as_bytes()).collect();
    print(&parts)
}
