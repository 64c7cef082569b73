//! How far each flow is, in a compacted topic of the same cluster: the key is the flow's name.
//!
//! ```text
//! {"journal":"00a1…","epoch":1,"lsn":42}         and, in the midst of a transaction whose events are counted,
//! {"journal":"00a1…","epoch":1,"lsn":42,"open":{"id":"<GTID>","begins":40,"ts_ms":…,"events":2,"tables":{"shop.orders":2}}}
//! ```
//!
//! Under the key `<flow>/topics` it has which topics the flow writes to (`topics.rs`).

use super::boundaries::Open;
use super::producer::{Ending, Place, Publisher, TopicSettings};
use crate::deliver::sink::{Progress, Standing};
use crate::kafka::records::{all, commits, committed};
use crate::kafka::wire::{WireError, checked};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

pub const TOPIC: &str = "tidemill_progress";
const LIST_OFFSETS_VERSION: i16 = 4;
const FETCH_VERSION: i16 = 11;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const READ_COMMITTED: i8 = 1;
const READ_UNCOMMITTED: i8 = 0;
/// A flow writes its note right before the end of its transaction: none is open for long.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// After as long, the end of a transaction that its coordinator has ended does not come any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);
const SETTLE_LOOK: Duration = Duration::from_millis(50);
const FETCH_BYTES: i32 = 8 << 20;
const FETCH_WAIT_MS: i32 = 1000;
/// Partitions that a note names at most: a number takes a few bytes of a message that may have a million.
const PLACES_MAX: usize = 50_000;
/// Partitions that are asked whether they lost an end: each costs two requests.
const PLACES_LOOKED_AT_MAX: usize = 1000;
/// Offsets looked at first, from the end; each further look takes four times as many.
const LOOK_BACK: i64 = 1000;

#[derive(Debug, Deserialize, Serialize)]
struct Note {
    /// In hexadecimal: JSON numbers do not hold it everywhere.
    journal: String,
    epoch: u32,
    lsn: u64,
    /// What was counted of the transaction that `lsn` is in the midst of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<Open>,
    /// The partitions of the note's transaction, by topic: what is to be ended where a broker forgot the end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    partitions: BTreeMap<String, Vec<i32>>,
}

impl Note {
    fn parse(value: &[u8]) -> Result<Self, WireError> {
        serde_json::from_slice(value).map_err(|_| malformed())
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let of = |(topic, partitions): (&String, &Vec<i32>)| {
            partitions.iter().map(|partition| (topic.clone(), *partition)).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of)
    }

    fn standing(&self) -> Result<Standing, WireError> {
        let journal = u64::from_str_radix(&self.journal, 16).map_err(|_| malformed())?;
        Ok(Standing { journal, progress: Progress { epoch: self.epoch, lsn: self.lsn } })
    }
}

fn malformed() -> WireError {
    WireError::Broken(format!("topic `{TOPIC}` holds a note that is not ours"))
}

/// What the topic says of a flow.
struct Look {
    /// The flow's last committed note.
    note: Option<Bytes>,
    /// The flow's note in a transaction that has not ended, and its offset.
    open: Option<(i64, Bytes)>,
}

/// Small segments, so that the compactor comes soon and little is read at a start.
pub fn settings(replication: Option<i16>) -> TopicSettings {
    let configs =
        [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let configs: BTreeMap<_, _> = configs.map(text).into();
    TopicSettings { partitions: Some(1), replication, configs }
}

/// A note; `open` is what was counted of the transaction at hand, and `places` are the partitions of its transaction.
pub fn value<'a>(
    journal: u64,
    progress: Progress,
    open: Option<&Open>,
    places: impl Iterator<Item = &'a Place>,
) -> Vec<u8> {
    let mut partitions: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in places {
        partitions.entry(topic.clone()).or_default().push(*partition);
    }
    if partitions.values().map(Vec::len).sum::<usize>() > PLACES_MAX {
        partitions.clear();
    }
    let (journal, Progress { epoch, lsn }) = (format!("{journal:016x}"), progress);
    serde_json::to_vec(&Note { journal, epoch, lsn, open: open.cloned(), partitions }).unwrap_or_default()
}

/// The last committed note of a flow, and what it says of the transaction at hand. The topic must be there.
///
/// Waits until the transaction of the flow's last note has ended: a broker that was killed may let us in before it has
/// written what it had decided, and then the note would be missed and its changes sent again. A broker may also forget to
/// write it at all. The publisher, which has shut out whoever wrote the note, then ends that transaction as it was decided:
/// `ended`. The note is the last record of its transaction, so all of it is stored, in the partitions that the note names.
pub async fn read(
    publisher: &mut Publisher,
    flow: &str,
    ended: Option<Ending>,
) -> Result<Option<(Standing, Option<Open>)>, WireError> {
    let begun = Instant::now();
    let mut ended = ended;
    loop {
        let Look { note, open } = look(publisher, flow).await?;
        let Some((offset, open)) = open else {
            let note = note.map(|value| Note::parse(&value)).transpose()?;
            if let Some(note) = note.as_ref().filter(|_| ended == Some(Ending::Commit)) {
                end_elsewhere(publisher, note).await?;
            }
            return note.map(|note| Ok((note.standing()?, note.open))).transpose();
        };
        let open = Note::parse(&open)?;
        let known = ended.filter(|_| !open.partitions.is_empty());
        match known {
            Some(ending) if begun.elapsed() > FORGOTTEN_AFTER => {
                tracing::warn!(
                    flow,
                    offset,
                    ?ending,
                    "a broker forgot the end of a transaction: it is written anew"
                );
                publisher.end_left(open.places().chain([own_place()]).collect(), ending).await?;
                // Once: what does not help will not help later.
                ended = None;
            }
            _ if begun.elapsed() > SETTLE_MAX => {
                return Err(WireError::Hanging { topic: TOPIC.to_owned(), offset });
            }
            _ => {}
        }
        tokio::time::sleep(SETTLE_LOOK).await;
    }
}

/// Ends the flow's last transaction in partitions of its rows that lost the end, when the progress topic has it. What others
/// have open there is not touched by it.
async fn end_elsewhere(publisher: &mut Publisher, note: &Note) -> Result<(), WireError> {
    let topics: Vec<&str> = note.partitions.keys().map(String::as_str).collect();
    publisher.cluster.refresh(&topics).await?;
    end_where_open(publisher, note.places(), Ending::Commit).await
}

/// Ends the flow's transaction before this one in those partitions where any is open. Ours must not be.
pub async fn end_where_open(
    publisher: &mut Publisher,
    places: impl Iterator<Item = Place>,
    ending: Ending,
) -> Result<(), WireError> {
    let mut left = Vec::new();
    for place in places.take(PLACES_LOOKED_AT_MAX) {
        // One that has no leader now, or is gone.
        if leader(publisher, &place).is_err() {
            continue;
        }
        let stable = offset(publisher, &place, LATEST, READ_COMMITTED).await?;
        if stable < offset(publisher, &place, LATEST, READ_UNCOMMITTED).await? {
            left.push(place);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        partitions = left.len(),
        ?ending,
        "the end of the last transaction is written anew where one is open"
    );
    publisher.end_left(left, ending).await
}

/// The last committed value of a key other than a flow's name, once what was open has ended.
pub async fn newest(publisher: &mut Publisher, key: &str) -> Result<Option<Bytes>, WireError> {
    let own = own_place();
    let first = offset(publisher, &own, EARLIEST, READ_COMMITTED).await?;
    let (mut end, mut step) = (offset(publisher, &own, LATEST, READ_COMMITTED).await?, LOOK_BACK);
    let mut found = None;
    while found.is_none() && end > first {
        let from = (end - step).max(first);
        found = last_between(publisher, key, from, end).await?;
        (end, step) = (from, step * 4);
    }
    Ok(found)
}

async fn look(publisher: &mut Publisher, flow: &str) -> Result<Look, WireError> {
    let own = own_place();
    let first = offset(publisher, &own, EARLIEST, READ_COMMITTED).await?;
    let stable = offset(publisher, &own, LATEST, READ_COMMITTED).await?;
    let written = offset(publisher, &own, LATEST, READ_UNCOMMITTED).await?;
    tracing::debug!(first, stable, written, "looking for progress");
    let mut look = behind(publisher, flow, stable, written).await?;
    let (mut end, mut step) = (stable, LOOK_BACK);
    while look.note.is_none() && end > first {
        let from = (end - step).max(first);
        look.note = last_between(publisher, flow, from, end).await?;
        (end, step) = (from, step * 4);
    }
    Ok(look)
}

/// What the records say that stand behind a transaction that is open, whosever it is.
async fn behind(publisher: &mut Publisher, flow: &str, stable: i64, written: i64) -> Result<Look, WireError> {
    let mut note = None;
    let mut open: HashMap<i64, (i64, Bytes)> = HashMap::new();
    let mut from = stable;
    while from < written {
        let (bytes, _) = fetch(publisher, from, READ_UNCOMMITTED).await?;
        let (next, records) = all(bytes)?;
        for record in records.into_iter().filter(|record| record.offset >= from) {
            if record.control {
                let decided = open.remove(&record.producer_id).filter(|_| commits(&record));
                note = decided.map(|(_, value)| value).or(note);
            } else if let (Some(flow_of), Some(value)) = (record.key, record.value)
                && flow_of == flow.as_bytes()
            {
                if record.transactional {
                    open.insert(record.producer_id, (record.offset, value));
                } else {
                    note = Some(value);
                }
            }
        }
        from = further(from, next)?;
    }
    Ok(Look { note, open: open.into_values().max_by_key(|(offset, _)| *offset) })
}

fn own_place() -> Place {
    (TOPIC.to_owned(), 0)
}

fn leader(publisher: &Publisher, (topic, partition): &Place) -> Result<i32, WireError> {
    let leaders = publisher.cluster.topic(topic).map(|topic| &topic.leaders[..]).unwrap_or_default();
    let leader = usize::try_from(*partition).ok().and_then(|partition| leaders.get(partition)).copied();
    leader.filter(|leader| *leader >= 0).ok_or_else(|| WireError::Broken(format!("topic `{topic}` is gone")))
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

async fn offset(
    publisher: &mut Publisher,
    place: &Place,
    which: i64,
    isolation: i8,
) -> Result<i64, WireError> {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(place.1)
        .with_current_leader_epoch(-1)
        .with_timestamp(which);
    let topic = ListOffsetsTopic::default().with_name(topic_name(&place.0)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let leader = leader(publisher, place)?;
    let answer = publisher.cluster.call(leader, LIST_OFFSETS_VERSION, &request).await?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first());
    let told = told.ok_or_else(|| WireError::Broken("an answer without the partition".to_owned()))?;
    checked(|| format!("topic `{}`", place.0), told.error_code)?;
    Ok(told.offset)
}

/// The value of the flow's last record at `from..end`.
async fn last_between(
    publisher: &mut Publisher,
    flow: &str,
    mut from: i64,
    end: i64,
) -> Result<Option<Bytes>, WireError> {
    let mut found = None;
    while from < end {
        let (bytes, aborted) = fetch(publisher, from, READ_COMMITTED).await?;
        let (next, records) = committed(bytes, aborted)?;
        for record in records {
            if (from..end).contains(&record.offset) && record.key.as_deref() == Some(flow.as_bytes()) {
                found = record.value.or(found);
            }
        }
        from = further(from, next)?;
    }
    Ok(found)
}

fn further(from: i64, next: Option<i64>) -> Result<i64, WireError> {
    let cannot = || WireError::Broken(format!("topic `{TOPIC}` cannot be read at offset {from}"));
    next.filter(|next| *next > from).ok_or_else(cannot)
}

/// Batches from `from` on, and the producers and first offsets of aborted transactions among them.
async fn fetch(
    publisher: &mut Publisher,
    from: i64,
    isolation: i8,
) -> Result<(Bytes, Vec<(i64, i64)>), WireError> {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(FETCH_BYTES);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(FETCH_WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_BYTES)
        .with_isolation_level(isolation)
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default().with_topic(topic_name(TOPIC)).with_partitions(vec![partition]),
        ]);
    let leader = leader(publisher, &own_place())?;
    let answer = publisher.cluster.call(leader, FETCH_VERSION, &request).await?;
    checked(|| format!("topic `{TOPIC}`"), answer.error_code)?;
    let told = answer.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
    let told = told.ok_or_else(|| WireError::Broken("an answer without the partition".to_owned()))?;
    checked(|| format!("topic `{TOPIC}`"), told.error_code)?;
    let aborted = told.aborted_transactions.unwrap_or_default();
    let aborted = aborted.iter().map(|txn| (txn.producer_id.0, txn.first_offset)).collect();
    Ok((told.records.unwrap_or_default(), aborted))
}
