//! Reading topics: which there are, where their records begin and end, and rounds of fetches, one to each leader at a time.
//!
//! No consumer group: the journal keeps the positions, so nothing is committed to the brokers, and no rebalance can take a
//! partition away.

use crate::kafka::records::committed;
use crate::kafka::wire::{Broker, Cluster, FETCH_VERSION_BY_ID, WireError, checked};
use base::TopicPosition;
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Record;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// Answers an error, and no old offset, while a new leader does not know the end yet.
const LIST_OFFSETS_VERSION: i16 = 5;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;
/// Bytes of one answer of one broker, and of one partition in it; a single larger batch comes whole.
const FETCH_BYTES_MAX: i32 = 8 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// How long a broker waits for a record when there is none. With several brokers each waits for the slowest.
const WAIT_MS_ALONE: i32 = 500;
const WAIT_MS_AMONG: i32 = 100;

/// A topic as the brokers have it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub id: Option<String>,
    /// By partition: the first record that is still there.
    pub earliest: Vec<i64>,
    /// By partition: where the next record will be.
    pub latest: Vec<i64>,
}

/// What a round brought of one partition.
pub struct Fetched {
    pub topic: Arc<str>,
    pub partition: u32,
    pub records: Vec<Record>,
    /// Behind everything that was answered, aborted records too.
    pub next: i64,
    /// Where the partition's records end, open transactions included.
    pub high: i64,
    /// Where those end that may be read.
    pub stable: i64,
}

/// What a round brought.
#[derive(Default)]
pub struct Round {
    pub parts: Vec<Fetched>,
    /// Leaders moved, or a broker went: the brokers must be asked anew.
    pub stale: Option<WireError>,
    /// An offset is not there, or the topic is another: the position must be examined.
    pub lost: bool,
}

pub struct Consumer {
    cluster: Cluster,
    /// Which partition a round asks for first: an answer that is full leaves out the last.
    turn: usize,
}

type Place = (Arc<str>, u32);
/// The leader, and its connection with what it answered of each partition.
type Answer = (i32, Result<(Broker, Vec<Result<Fetched, WireError>>), WireError>);

impl Consumer {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, turn: 0 }
    }

    /// The topics there are of those that are wanted.
    pub async fn discover(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, WireError> {
        self.cluster.discover(wanted).await
    }

    /// The id of a topic, and the number of its partitions, as last discovered.
    pub fn shape(&self, topic: &str) -> Option<(Option<String>, usize)> {
        let known = self.cluster.topic(topic)?;
        Some((known.id.map(|id| id.to_string()), known.leaders.len()))
    }

    /// Where these topics begin and end.
    pub async fn live(&mut self, topics: &[String]) -> Result<BTreeMap<String, Live>, WireError> {
        let (earliest, latest) = (self.offsets(topics, EARLIEST).await?, self.offsets(topics, LATEST).await?);
        let live = topics.iter().filter_map(|name| {
            let (id, partitions) = self.shape(name)?;
            let list = |offsets: &HashMap<Place, i64>| {
                (0..partitions as u32)
                    .map(|p| offsets.get(&(name.as_str().into(), p)).copied())
                    .collect::<Option<Vec<_>>>()
            };
            Some((name.clone(), Live { id, earliest: list(&earliest)?, latest: list(&latest)? }))
        });
        Ok(live.collect())
    }

    async fn offsets(&mut self, topics: &[String], which: i64) -> Result<HashMap<Place, i64>, WireError> {
        let places = topics.iter().flat_map(|name| {
            let partitions = self.cluster.topic(name).map_or(0, |topic| topic.leaders.len());
            let name: Arc<str> = name.as_str().into();
            (0..partitions as u32).map(move |partition| (Arc::clone(&name), partition))
        });
        let by_leader = self.by_leader(places.collect());
        let mut out = HashMap::new();
        for (leader, places) in by_leader {
            if leader < 0 {
                let (topic, partition) = &places[0];
                return Err(WireError::Broken(format!(
                    "topic `{topic}`, partition {partition} has no leader now"
                )));
            }
            let answer =
                self.cluster.call(leader, LIST_OFFSETS_VERSION, &offsets_request(&places, which)).await?;
            for topic in answer.topics {
                let name: Arc<str> = topic.name.as_str().into();
                for partition in topic.partitions {
                    let index = partition.partition_index;
                    checked(|| format!("topic `{name}`, partition {index}"), partition.error_code)?;
                    out.insert((Arc::clone(&name), index.unsigned_abs()), partition.offset);
                }
            }
        }
        Ok(out)
    }

    fn by_leader(&self, places: Vec<Place>) -> BTreeMap<i32, Vec<Place>> {
        let mut out: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
        for (topic, partition) in places {
            let leaders = self.cluster.topic(&topic).map(|topic| &topic.leaders[..]).unwrap_or_default();
            let leader = leaders.get(partition as usize).copied().unwrap_or(-1);
            out.entry(leader).or_default().push((topic, partition));
        }
        out
    }

    /// Asks each leader once for what follows `position`; waits a moment when there is nothing.
    pub async fn round(&mut self, position: &BTreeMap<String, TopicPosition>) -> Result<Round, WireError> {
        self.round_of(position, |_, _| true).await
    }

    /// The same of the partitions that are wanted.
    pub async fn round_of(
        &mut self,
        position: &BTreeMap<String, TopicPosition>,
        wanted: impl Fn(&str, u32) -> bool,
    ) -> Result<Round, WireError> {
        let mut places: Vec<(Place, i64)> = Vec::new();
        for (name, topic) in position.iter().filter(|(name, _)| self.cluster.topic(name).is_some()) {
            let name: Arc<str> = name.as_str().into();
            places.extend(
                topic.next.iter().enumerate().map(|(p, next)| ((Arc::clone(&name), p as u32), *next)),
            );
        }
        places.retain(|((topic, partition), _)| wanted(topic, *partition));
        if places.is_empty() {
            return Ok(Round::default());
        }
        self.turn = (self.turn + 1) % places.len();
        places.rotate_left(self.turn);
        let next: HashMap<Place, i64> = places.iter().cloned().collect();
        let by_leader = self.by_leader(places.into_iter().map(|(place, _)| place).collect());
        let wait = if by_leader.len() > 1 { WAIT_MS_AMONG } else { WAIT_MS_ALONE };
        let mut round = Round::default();
        let mut calls = Vec::new();
        for (leader, places) in by_leader {
            if leader < 0 {
                let (topic, partition) = &places[0];
                let why = format!("topic `{topic}`, partition {partition} has no leader now");
                round.stale = Some(WireError::Broken(why));
                continue;
            }
            match self.cluster.take(leader).await {
                Ok(broker) => calls.push(self.fetch(leader, broker, places, &next, wait)),
                Err(error @ (WireError::Login(_) | WireError::Tls { .. })) => return Err(error),
                Err(error) => round.stale = Some(error),
            }
        }
        for (leader, answer) in join_all(calls).await {
            match answer {
                Ok((broker, parts)) => {
                    self.cluster.put_back(leader, broker);
                    for part in parts {
                        match part {
                            Ok(part) => round.parts.push(part),
                            Err(error) => sort(error, &mut round)?,
                        }
                    }
                }
                Err(error) => round.stale = Some(error),
            }
        }
        Ok(round)
    }

    fn fetch(
        &self,
        leader: i32,
        mut broker: Broker,
        places: Vec<Place>,
        next: &HashMap<Place, i64>,
        wait: i32,
    ) -> impl Future<Output = Answer> + use<> {
        let version = broker.fetch_version();
        let ids: HashMap<Arc<str>, Uuid> = places
            .iter()
            .filter_map(|(topic, _)| Some((Arc::clone(topic), self.cluster.topic(topic)?.id?)))
            .collect();
        let next: HashMap<Place, i64> =
            places.iter().filter_map(|place| Some((place.clone(), *next.get(place)?))).collect();
        let request = fetch_request(&places, &next, &ids, wait);
        async move {
            let asked = broker.call(version, &request).await;
            let answer = asked.and_then(|answer| {
                checked(|| "a fetch".to_owned(), answer.error_code)?;
                Ok(answer)
            });
            (leader, answer.map(|answer| (broker, parts_of(answer, version, &ids, &next))))
        }
    }
}

/// Whether an error of one partition passes by itself, asks for a look at the position, or ends the session.
fn sort(error: WireError, round: &mut Round) -> Result<(), WireError> {
    match &error {
        WireError::Refused { error: ResponseError::OffsetOutOfRange, .. } => round.lost = true,
        WireError::Refused {
            error:
                ResponseError::UnknownTopicId
                | ResponseError::InconsistentTopicId
                | ResponseError::UnknownTopicOrPartition,
            ..
        } => {
            round.lost = true;
            round.stale = Some(error);
        }
        WireError::Refused { error: refused, .. } if refused.is_retriable() => round.stale = Some(error),
        WireError::Broken(_) => round.stale = Some(error),
        _ => return Err(error),
    }
    Ok(())
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn by_topic(places: &[Place]) -> BTreeMap<Arc<str>, Vec<u32>> {
    let mut out: BTreeMap<Arc<str>, Vec<u32>> = BTreeMap::new();
    for (topic, partition) in places {
        out.entry(Arc::clone(topic)).or_default().push(*partition);
    }
    out
}

fn offsets_request(places: &[Place], which: i64) -> ListOffsetsRequest {
    let partition = |partition: u32| {
        ListOffsetsPartition::default()
            .with_partition_index(partition as i32)
            .with_current_leader_epoch(-1)
            .with_timestamp(which)
    };
    let topics = by_topic(places).into_iter().map(|(topic, partitions)| {
        ListOffsetsTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(partitions.into_iter().map(partition).collect())
    });
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(READ_UNCOMMITTED)
        .with_topics(topics.collect())
}

fn fetch_request(
    places: &[Place],
    next: &HashMap<Place, i64>,
    ids: &HashMap<Arc<str>, Uuid>,
    wait: i32,
) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut last: Option<&Arc<str>> = None;
    // In the order of the places, which is the order that a full answer is cut in.
    for place in places {
        let (topic, partition) = place;
        if last != Some(topic) {
            let id = ids.get(topic).copied().unwrap_or_default();
            topics.push(FetchTopic::default().with_topic(topic_name(topic)).with_topic_id(id));
            last = Some(topic);
        }
        let wanted = FetchPartition::default()
            .with_partition(*partition as i32)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(next.get(place).copied().unwrap_or_default())
            .with_log_start_offset(-1)
            .with_partition_max_bytes(PARTITION_BYTES_MAX);
        if let Some(own) = topics.last_mut() {
            own.partitions.push(wanted);
        }
    }
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_BYTES_MAX)
        .with_isolation_level(READ_COMMITTED)
        .with_session_epoch(-1)
        .with_topics(topics)
}

fn parts_of(
    answer: FetchResponse,
    version: i16,
    ids: &HashMap<Arc<str>, Uuid>,
    next: &HashMap<Place, i64>,
) -> Vec<Result<Fetched, WireError>> {
    let names: HashMap<Uuid, &Arc<str>> = ids.iter().map(|(name, id)| (*id, name)).collect();
    let mut out = Vec::new();
    for topic in answer.responses {
        let name: Arc<str> = match names.get(&topic.topic_id) {
            Some(name) if version >= FETCH_VERSION_BY_ID => Arc::clone(name),
            _ => topic.topic.as_str().into(),
        };
        for told in topic.partitions {
            let partition = told.partition_index.unsigned_abs();
            let place = (Arc::clone(&name), partition);
            let part = || {
                checked(|| format!("topic `{name}`, partition {partition}"), told.error_code)?;
                let from = next.get(&place).copied().unwrap_or_default();
                let aborted = told.aborted_transactions.unwrap_or_default();
                let aborted = aborted.iter().map(|txn| (txn.producer_id.0, txn.first_offset)).collect();
                let (end, mut records) = committed(told.records.unwrap_or_default(), aborted)?;
                records.retain(|record| record.offset >= from);
                Ok(Fetched {
                    topic: Arc::clone(&name),
                    partition,
                    records,
                    next: end.unwrap_or(from).max(from),
                    high: told.high_watermark,
                    stable: told.last_stable_offset,
                })
            };
            out.push(part());
        }
    }
    out
}
