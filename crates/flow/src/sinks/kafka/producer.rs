//! An idempotent producer, with or without transactions.
//!
//! Batches go out in rounds, at most one for each partition, to all leaders at once; the next round begins when all have
//! answered. A batch whose answer is lost is sent again with the same sequence, so that the broker tells a repeat, and
//! nothing of its partition goes before it.

use super::batch::{Batch, Codec, Producer};
use crate::kafka::wire::{Cluster, WireError, checked};
use bytes::Bytes;
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, CreateTopicsRequest, DescribeTransactionsRequest, EndTxnRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PRODUCE_VERSION: i16 = 8;
const CREATE_TOPICS_VERSION: i16 = 4;
const INIT_PRODUCER_VERSION: i16 = 3;
const FIND_COORDINATOR_VERSION: i16 = 3;
const ADD_PARTITIONS_VERSION: i16 = 3;
const END_TXN_VERSION: i16 = 3;
const DESCRIBE_TRANSACTIONS_VERSION: i16 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
/// All replicas in sync.
const ACKS_ALL: i16 = -1;
/// How long a leader waits for its followers.
const REPLICATION_TIMEOUT_MS: i32 = 30_000;
/// A transaction that is open for longer is aborted by the broker.
pub const TRANSACTION_TIMEOUT_MS: i32 = 600_000;
/// Rounds go on over a change of leaders or a restart of a broker for as long, before the flow begins anew.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The markers of the transaction before are written within a millisecond or two.
const MARKERS_PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const REPLICATION_DEFAULT: i16 = -1;

/// A partition of a topic.
pub type Place = (String, i32);

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
}

/// How missing topics are made.
#[derive(Clone, Debug, Default)]
pub struct TopicSettings {
    /// As the broker has it by default.
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
    pub configs: BTreeMap<String, String>,
}

/// A round's failure of one batch that a repeat cannot mend.
pub enum Failed {
    /// The batch is larger than the topic takes.
    TooLarge(Place),
    Wire(WireError),
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

pub struct Publisher {
    pub cluster: Cluster,
    codec: Codec,
    /// The transactional id, with transactions.
    transactional_id: Option<StrBytes>,
    coordinator: i32,
    producer: Producer,
    sequences: HashMap<Place, i32>,
    /// The partitions of the open transaction.
    enlisted: BTreeSet<Place>,
}

impl Publisher {
    /// Takes a producer id. With transactions, whoever had this transactional id before is shut out, and what it had open
    /// is aborted. Answers also how the transaction before ended, where the coordinator knows one.
    pub async fn start(
        mut cluster: Cluster,
        codec: Codec,
        transactional_id: Option<&str>,
    ) -> Result<(Self, Option<Ending>), WireError> {
        let transactional_id = transactional_id.map(|id| StrBytes::from_string(id.to_owned()));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.clone().map(TransactionalId))
            .with_transaction_timeout_ms(TRANSACTION_TIMEOUT_MS)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let deadline = Instant::now() + PATIENCE;
        let (mut pause, mut ended) = (PAUSE_MIN, None);
        let (coordinator, answer) = loop {
            cluster.refresh(&[]).await?;
            let asked = async {
                let id = match &transactional_id {
                    Some(id) => coordinator_of(&mut cluster, id).await?,
                    None => cluster.controller(),
                };
                if let Some(own) = transactional_id.as_ref().filter(|_| ended.is_none()) {
                    // A producer id that is taken makes the coordinator forget it.
                    ended = ending_of(&mut cluster, id, own).await?;
                }
                let answer = cluster.call(id, INIT_PRODUCER_VERSION, &request).await?;
                checked(|| "producer id".to_owned(), answer.error_code)?;
                Ok::<_, WireError>((id, answer))
            };
            match asked.await {
                Ok(found) => break found,
                // What the last one left is being ended, or the coordinator moves.
                Err(WireError::Refused { error, .. }) if is_soon_over(error) && Instant::now() < deadline => {
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        };
        tracing::debug!(
            id = answer.producer_id.0,
            epoch = answer.producer_epoch,
            coordinator,
            ?ended,
            "producer id taken"
        );
        let producer = Producer {
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
            transactional: transactional_id.is_some(),
        };
        let (sequences, enlisted) = (HashMap::new(), BTreeSet::new());
        let publisher = Self { cluster, codec, transactional_id, coordinator, producer, sequences, enlisted };
        Ok((publisher, ended))
    }

    /// How many partitions a topic has; it is made when it is missing.
    pub async fn partitions(&mut self, topic: &str, settings: &TopicSettings) -> Result<usize, WireError> {
        if let Some(known) = self.cluster.topic(topic) {
            return Ok(known.leaders.len());
        }
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE_MIN;
        loop {
            self.cluster.refresh(&[topic]).await?;
            match self.cluster.topic(topic) {
                Some(known) if known.leaders.iter().all(|leader| *leader >= 0) => {
                    return Ok(known.leaders.len());
                }
                Some(_) => {}
                None => self.create(topic, settings).await?,
            }
            if Instant::now() > deadline {
                return Err(WireError::Broken(format!("topic `{topic}` has partitions without a leader")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn create(&mut self, topic: &str, settings: &TopicSettings) -> Result<(), WireError> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let config = |(name, value): (&String, &String)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let wanted = CreatableTopic::default()
            .with_name(TopicName(text(topic)))
            .with_num_partitions(settings.partitions.unwrap_or(-1))
            .with_replication_factor(settings.replication.unwrap_or(REPLICATION_DEFAULT))
            .with_configs(settings.configs.iter().map(config).collect());
        let request =
            CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(REPLICATION_TIMEOUT_MS);
        let controller = self.cluster.controller();
        let answer = self.cluster.call(controller, CREATE_TOPICS_VERSION, &request).await?;
        for made in answer.topics {
            match ResponseError::try_from_code(made.error_code) {
                None | Some(ResponseError::TopicAlreadyExists) => {}
                Some(error) => {
                    let why = made.error_message.map(|m| format!(" ({m})")).unwrap_or_default();
                    return Err(WireError::Refused { what: format!("topic `{topic}`{why}"), error });
                }
            }
        }
        Ok(())
    }

    /// Stores one batch for each place. Those that fail for good are given back with their reason; the others are stored.
    pub async fn round(&mut self, batches: &[(Place, Batch)]) -> Result<Vec<Failed>, WireError> {
        if self.producer.transactional {
            self.enlist(batches.iter().map(|(place, _)| place)).await?;
        }
        let ts_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut waiting: Vec<(&Place, usize, Bytes)> = Vec::with_capacity(batches.len());
        for (place, batch) in batches {
            let sequence = self.sequences.get(place).copied().unwrap_or(0);
            let bytes =
                batch.encode(self.producer, sequence, ts_ms, self.codec).map_err(WireError::broken)?;
            waiting.push((place, batch.len(), Bytes::from(bytes)));
        }
        let mut failed = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE_MIN;
        loop {
            let outcomes = self.send(&waiting).await;
            let mut again = Vec::new();
            let mut why = None;
            for ((place, count, bytes), outcome) in waiting.into_iter().zip(outcomes) {
                match outcome {
                    // A repeat of what is stored.
                    Ok(())
                    | Err(WireError::Refused { error: ResponseError::DuplicateSequenceNumber, .. }) => {
                        let next = self.sequences.entry(place.clone()).or_insert(0);
                        *next = after(*next, count);
                    }
                    Err(WireError::Refused {
                        error: ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge,
                        ..
                    }) => failed.push(Failed::TooLarge(place.clone())),
                    Err(error) if is_passing(&error) => {
                        again.push((place, count, bytes));
                        why = Some(error);
                    }
                    Err(error) => failed.push(Failed::Wire(error)),
                }
            }
            let Some(why) = why else { return Ok(failed) };
            if Instant::now() > deadline {
                return Err(why);
            }
            tracing::debug!(error = %why, batches = again.len(), "batches are sent again");
            waiting = again;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let topics: BTreeSet<&str> = waiting.iter().map(|(place, ..)| place.0.as_str()).collect();
            let topics: Vec<&str> = topics.into_iter().collect();
            match self.cluster.refresh(&topics).await {
                Ok(()) => {}
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            }
            self.all_there(waiting.iter().map(|(place, ..)| *place))?;
        }
    }

    /// `Err` where a partition is gone, as of the last refresh: no repeat helps.
    fn all_there<'a>(&self, places: impl Iterator<Item = &'a Place>) -> Result<(), WireError> {
        for (topic, partition) in places {
            let gone = match self.cluster.topic(topic) {
                None => "was deleted",
                Some(known) if usize::try_from(*partition).is_ok_and(|own| own >= known.leaders.len()) => {
                    "was made anew with fewer partitions"
                }
                Some(_) => continue,
            };
            return Err(WireError::Broken(format!("topic `{topic}` {gone}")));
        }
        Ok(())
    }

    /// Sends each batch to its leader, all leaders at once; the outcome of each.
    async fn send(&mut self, batches: &[(&Place, usize, Bytes)]) -> Vec<Result<(), WireError>> {
        let mut outcomes: Vec<_> =
            batches.iter().map(|_| Err(WireError::Broken("there is no leader now".to_owned()))).collect();
        let mut by_leader: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, ((topic, partition), ..)) in batches.iter().enumerate() {
            let leaders = self.cluster.topic(topic).map(|topic| &topic.leaders[..]).unwrap_or_default();
            let leader = usize::try_from(*partition).ok().and_then(|p| leaders.get(p)).copied().unwrap_or(-1);
            if leader >= 0 {
                by_leader.entry(leader).or_default().push(index);
            }
        }
        let mut calls = Vec::with_capacity(by_leader.len());
        for (leader, indexes) in by_leader {
            match self.cluster.take(leader).await {
                Ok(mut broker) => {
                    let request = self.request(batches, &indexes);
                    calls.push(async move {
                        let answer = broker.call(PRODUCE_VERSION, &request).await;
                        (leader, indexes, answer.map(|answer| (broker, answer)))
                    });
                }
                Err(error) => {
                    let text = error.to_string();
                    for index in indexes {
                        outcomes[index] = Err(WireError::Broken(text.clone()));
                    }
                }
            }
        }
        for (leader, indexes, answer) in join_all(calls).await {
            let answer = match answer {
                Ok((broker, answer)) => {
                    self.cluster.put_back(leader, broker);
                    answer
                }
                Err(error) => {
                    let text = error.to_string();
                    for index in indexes {
                        outcomes[index] = Err(WireError::Broken(text.clone()));
                    }
                    continue;
                }
            };
            let mut told: HashMap<(&str, i32), i16> = HashMap::new();
            for topic in &answer.responses {
                for partition in &topic.partition_responses {
                    told.insert((topic.name.as_str(), partition.index), partition.error_code);
                }
            }
            for index in indexes {
                let (topic, partition) = batches[index].0;
                outcomes[index] = match told.get(&(topic.as_str(), *partition)) {
                    Some(code) => checked(|| format!("topic `{topic}`, partition {partition}"), *code),
                    None => Err(WireError::Broken("an answer without one of the partitions".to_owned())),
                };
            }
        }
        outcomes
    }

    fn request(&self, batches: &[(&Place, usize, Bytes)], indexes: &[usize]) -> ProduceRequest {
        let mut topics: BTreeMap<&str, Vec<PartitionProduceData>> = BTreeMap::new();
        for index in indexes {
            let ((topic, partition), _, bytes) = &batches[*index];
            let data =
                PartitionProduceData::default().with_index(*partition).with_records(Some(bytes.clone()));
            topics.entry(topic).or_default().push(data);
        }
        let topic_data = topics.into_iter().map(|(topic, partitions)| {
            TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partition_data(partitions)
        });
        ProduceRequest::default()
            .with_transactional_id(self.transactional_id.clone().map(TransactionalId))
            .with_acks(ACKS_ALL)
            .with_timeout_ms(REPLICATION_TIMEOUT_MS)
            .with_topic_data(topic_data.collect())
    }

    /// Tells the coordinator which partitions the transaction writes, before it does.
    async fn enlist(&mut self, places: impl Iterator<Item = &Place>) -> Result<(), WireError> {
        let new: BTreeSet<Place> = places.filter(|place| !self.enlisted.contains(*place)).cloned().collect();
        let Some(id) = self.transactional_id.clone().filter(|_| !new.is_empty()) else { return Ok(()) };
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &new {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            AddPartitionsToTxnTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions)
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(id))
            .with_v3_and_below_producer_id(ProducerId(self.producer.id))
            .with_v3_and_below_producer_epoch(self.producer.epoch)
            .with_v3_and_below_topics(topics.collect());
        let deadline = Instant::now() + PATIENCE;
        let mut pause = MARKERS_PAUSE;
        loop {
            let answer = self.cluster.call(self.coordinator, ADD_PARTITIONS_VERSION, &request).await?;
            let codes =
                answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
            // Where one is refused, the others are not attempted.
            let error = codes
                .filter_map(|result| ResponseError::try_from_code(result.partition_error_code))
                .max_by_key(|error| *error != ResponseError::OperationNotAttempted);
            match error {
                None => break,
                // The last transaction is still being ended.
                Some(error) if is_soon_over(error) && Instant::now() < deadline => {}
                Some(error) => {
                    return Err(WireError::Refused { what: "a transaction's partitions".to_owned(), error });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.find_coordinator(error).await?;
            if error == Some(ResponseError::UnknownTopicOrPartition) {
                let topics: BTreeSet<&str> = new.iter().map(|(topic, _)| topic.as_str()).collect();
                self.cluster.refresh(&topics.into_iter().collect::<Vec<_>>()).await?;
                self.all_there(new.iter())?;
            }
        }
        self.enlisted.extend(new);
        Ok(())
    }

    /// The partitions of the open transaction.
    pub fn enlisted(&self) -> &BTreeSet<Place> {
        &self.enlisted
    }

    /// Ends the open transaction, if there is one.
    pub async fn end(&mut self, ending: Ending) -> Result<(), WireError> {
        let Some(id) = self.transactional_id.clone().filter(|_| !self.enlisted.is_empty()) else {
            return Ok(());
        };
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(id))
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_committed(ending == Ending::Commit);
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE_MIN;
        loop {
            let answer = self.cluster.call(self.coordinator, END_TXN_VERSION, &request).await?;
            tracing::debug!(code = answer.error_code, "transaction ended");
            match ResponseError::try_from_code(answer.error_code) {
                None => break,
                // It was not this one's to end.
                Some(error) if error.is_retriable() && Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    self.find_coordinator(Some(error)).await?;
                }
                Some(error) => {
                    return Err(WireError::Refused { what: "the end of a transaction".to_owned(), error });
                }
            }
        }
        self.enlisted.clear();
        Ok(())
    }

    /// Asks anew who keeps our transactions, where that is what an answer says.
    async fn find_coordinator(&mut self, error: Option<ResponseError>) -> Result<(), WireError> {
        let moved = [ResponseError::NotCoordinator, ResponseError::CoordinatorNotAvailable];
        let Some(id) = self.transactional_id.clone().filter(|_| error.is_some_and(|e| moved.contains(&e)))
        else {
            return Ok(());
        };
        self.cluster.refresh(&[]).await?;
        match coordinator_of(&mut self.cluster, &id).await {
            Ok(coordinator) => self.coordinator = coordinator,
            // Asked again with the next answer.
            Err(WireError::Refused { error, .. }) if error.is_retriable() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends a transaction of before in partitions that lost its end: the next one of the same producer takes in what is open,
    /// and ends it with its own. A partition that is gone has nothing open.
    pub async fn end_left(&mut self, places: Vec<Place>, ending: Ending) -> Result<(), WireError> {
        let topics: BTreeSet<&str> = places.iter().map(|(topic, _)| topic.as_str()).collect();
        self.cluster.refresh(&topics.into_iter().collect::<Vec<_>>()).await?;
        let there = |(topic, partition): &&Place| {
            let leaders = self.cluster.topic(topic).map_or(0, |topic| topic.leaders.len());
            usize::try_from(*partition).is_ok_and(|partition| partition < leaders)
        };
        let places: Vec<Place> = places.iter().filter(there).cloned().collect();
        self.enlist(places.iter()).await?;
        self.end(ending).await
    }
}

/// How the last transaction of an id ended, as its coordinator has it; `None` where it has none, or is too old to tell.
async fn ending_of(
    cluster: &mut Cluster,
    coordinator: i32,
    id: &StrBytes,
) -> Result<Option<Ending>, WireError> {
    let mut broker = cluster.take(coordinator).await?;
    if !broker.tells_transactions() {
        cluster.put_back(coordinator, broker);
        return Ok(None);
    }
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(id.clone())]);
    let answer = broker.call(DESCRIBE_TRANSACTIONS_VERSION, &request).await?;
    cluster.put_back(coordinator, broker);
    let Some(told) = answer.transaction_states.into_iter().next() else { return Ok(None) };
    if ResponseError::try_from_code(told.error_code) == Some(ResponseError::TransactionalIdNotFound) {
        return Ok(None);
    }
    checked(|| "the state of a transaction".to_owned(), told.error_code)?;
    tracing::debug!(state = %told.transaction_state, "the transaction before");
    Ok(match told.transaction_state.as_str() {
        "PrepareCommit" | "CompleteCommit" => Some(Ending::Commit),
        // One that is open is aborted when its producer id is taken.
        "PrepareAbort" | "CompleteAbort" | "Ongoing" | "PrepareEpochFence" => Some(Ending::Abort),
        _ => None,
    })
}

async fn coordinator_of(cluster: &mut Cluster, id: &StrBytes) -> Result<i32, WireError> {
    let request = FindCoordinatorRequest::default().with_key(id.clone()).with_key_type(KEY_TYPE_TRANSACTION);
    let any = cluster.controller();
    let answer = cluster.call(any, FIND_COORDINATOR_VERSION, &request).await?;
    checked(|| "transaction coordinator".to_owned(), answer.error_code)?;
    Ok(answer.node_id.0)
}

/// Whether the coordinator will answer otherwise: it ends what was open before, or it moves.
fn is_soon_over(error: ResponseError) -> bool {
    error == ResponseError::ConcurrentTransactions || error.is_retriable()
}

/// Whether the same batch may go through later.
fn is_passing(error: &WireError) -> bool {
    match error {
        WireError::Broken(_) => true,
        WireError::Refused { error, .. } => error.is_retriable(),
        WireError::Login(_) | WireError::Tls { .. } | WireError::Hanging { .. } => false,
    }
}

/// The sequence behind `count` records: it goes round below 2³¹.
fn after(sequence: i32, count: usize) -> i32 {
    let next = (i64::from(sequence) + count as i64) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn sequences_go_round() {
        assert_eq!(after(0, 5), 5);
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 3), 1);
    }
}
