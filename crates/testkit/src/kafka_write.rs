//! Writing to a Kafka, and making and deleting its topics, by plain requests: what a test's own producer does.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, ProduceRequest, ProducerId, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};

use crate::kafka::{Kafka, request};

const TIMEOUT_MS: i32 = 20_000;
/// A topic, among what has settings.
const TOPIC_RESOURCE: i8 = 2;
/// Until a topic's new leader, or the coordinator of transactions, is there.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// `REQUEST_TIMED_OUT` and others that pass by themselves.
const PASSING: [i16; 10] = [3, 5, 6, 7, 14, 15, 16, 19, 20, 51];

/// Key and value.
pub type KafkaMessage<'a> = (Option<&'a str>, Option<&'a str>);

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

impl Kafka {
    /// Makes a topic of so many partitions, and waits until each takes records.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.ask_for_topic(topic, partitions).await?;
        self.wait_for_partitions(topic, partitions).await
    }

    /// On as many nodes as the settings say.
    pub(crate) async fn ask_for_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let make = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(TIMEOUT_MS);
        let answer = self.answered(4, &make).await?;
        let told = answer.topics.first().context("an answer without the topic")?;
        if told.error_code != 0 {
            bail!("topic {topic} cannot be made: error {}", told.error_code);
        }
        Ok(())
    }

    /// How many partitions a topic has, and all its settings.
    pub async fn topic_settings(&self, topic: &str) -> Result<(usize, BTreeMap<String, String>)> {
        let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let ask =
            MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
        let told = self.answered(8, &ask).await?;
        let partitions = told.topics.first().context("an answer without the topic")?.partitions.len();
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(StrBytes::from_string(topic.to_owned()))
            .with_configuration_keys(None);
        let ask = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let told = self.answered(1, &ask).await?.results.pop().context("an answer without the topic")?;
        if told.error_code != 0 {
            bail!("topic {topic} cannot be described: error {}", told.error_code);
        }
        let text = |value: Option<StrBytes>| value.map(|value| value.to_string()).unwrap_or_default();
        let configs = told.configs.into_iter().map(|config| (config.name.to_string(), text(config.value)));
        Ok((partitions, configs.collect()))
    }

    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let gone =
            DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]).with_timeout_ms(TIMEOUT_MS);
        let answer = self.answered(3, &gone).await?;
        match answer.responses.first().map(|told| told.error_code) {
            Some(0) => Ok(()),
            code => bail!("topic {topic} cannot be deleted: {code:?}"),
        }
    }

    /// Gives a topic more partitions, up to `count`.
    pub async fn add_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let wanted =
            CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None);
        let more = CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(TIMEOUT_MS);
        let answer = self.answered(1, &more).await?;
        match answer.results.first().map(|told| told.error_code) {
            Some(0) => self.wait_for_partitions(topic, count).await,
            code => bail!("topic {topic} gets no partitions: {code:?}"),
        }
    }

    /// Removes the records of a partition before `offset`, as its retention would.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let wanted = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let wanted = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![wanted]);
        let gone = DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(TIMEOUT_MS);
        let answer = self.answered(1, &gone).await?;
        match answer.topics.first().and_then(|topic| topic.partitions.first()).map(|told| told.error_code) {
            Some(0) => Ok(()),
            code => bail!("the records of topic {topic} cannot be deleted: {code:?}"),
        }
    }

    async fn wait_for_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.messages_from(topic, count - 1, 0).await.is_err()
            || !self.has_partition(topic, count - 1).await
        {
            if tokio::time::Instant::now() > end {
                bail!("topic {topic} has no leaders");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Writes messages to a partition as one batch.
    pub async fn produce(&self, topic: &str, partition: i32, messages: &[KafkaMessage<'_>]) -> Result<()> {
        self.produce_compressed(topic, partition, messages, Compression::None).await
    }

    /// Writes keys and values that are no text.
    pub async fn produce_bytes(
        &self,
        topic: &str,
        partition: i32,
        messages: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let mut records = records(
            &vec![(None, None); messages.len()],
            NO_PRODUCER_ID,
            NO_PRODUCER_EPOCH,
            NO_SEQUENCE,
            false,
        );
        for (record, (key, value)) in records.iter_mut().zip(messages) {
            record.key = Some(Bytes::copy_from_slice(key)).filter(|key| !key.is_empty());
            record.value = Some(Bytes::copy_from_slice(value));
        }
        self.store(topic, partition, &records, None, Compression::None).await
    }

    pub async fn produce_compressed(
        &self,
        topic: &str,
        partition: i32,
        messages: &[KafkaMessage<'_>],
        compression: Compression,
    ) -> Result<()> {
        let records = records(messages, NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE, false);
        self.store(topic, partition, &records, None, compression).await
    }

    /// Writes messages in a transaction of their own, which is committed or aborted.
    pub async fn produce_txn(
        &self,
        topic: &str,
        partition: i32,
        messages: &[KafkaMessage<'_>],
        commit: bool,
    ) -> Result<()> {
        let id = TransactionalId(StrBytes::from_static_str("testkit"));
        let find = FindCoordinatorRequest::default().with_key(id.0.clone()).with_key_type(1);
        self.until_ready("coordinator", async || Ok(self.answered(2, &find).await?.error_code)).await?;
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(60_000);
        let mut producer = InitProducerIdResponse::default();
        self.until_ready("producer", async || {
            let answer = self.answered(1, &init).await?;
            Ok(answer.error_code)
        })
        .await?;
        // Once more: the same id, with the next epoch.
        self.until_ready("producer", async || {
            let answer = self.answered(1, &init).await?;
            let code = answer.error_code;
            producer = answer;
            Ok(code)
        })
        .await?;
        let (producer_id, epoch) = (producer.producer_id, producer.producer_epoch);
        let enlisted =
            AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let add = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id.clone())
            .with_v3_and_below_producer_id(producer_id)
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![enlisted]);
        self.until_ready("transaction", async || {
            let answer = self.answered(1, &add).await?;
            let told = answer.results_by_topic_v3_and_below.first().and_then(|topic| {
                topic.results_by_partition.first().map(|partition| partition.partition_error_code)
            });
            told.context("an answer without the partition")
        })
        .await?;
        let records = records(messages, producer_id.0, epoch, 0, true);
        self.store(topic, partition, &records, Some(id.clone()), Compression::None).await?;
        let end = EndTxnRequest::default()
            .with_transactional_id(id)
            .with_producer_id(ProducerId(producer_id.0))
            .with_producer_epoch(epoch)
            .with_committed(commit);
        self.until_ready("end", async || Ok(self.answered(1, &end).await?.error_code)).await?;
        // The coordinator answers before its marker is in the partition.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.is_open(topic, partition).await? {
            if tokio::time::Instant::now() > deadline {
                bail!("the transaction in topic {topic} does not end");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn store(
        &self,
        topic: &str,
        partition: i32,
        records: &[Record],
        transaction: Option<TransactionalId>,
        compression: Compression,
    ) -> Result<()> {
        let produce = request_of(topic, partition, records, transaction, compression)?;
        self.until_ready("leader", async || self.stored(&produce).await).await
    }

    /// The code that a produce request is answered with.
    pub(crate) async fn stored(&self, produce: &ProduceRequest) -> Result<i16> {
        let answer = self.answered(8, produce).await?;
        let told = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        Ok(told.context("an answer without the partition")?.error_code)
    }

    async fn until_ready(&self, what: &str, mut ask: impl AsyncFnMut() -> Result<i16>) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match ask().await? {
                0 => return Ok(()),
                code if !is_passing(code) => bail!("{what}: error {code}"),
                code if tokio::time::Instant::now() > end => bail!("{what}: still error {code}"),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    pub(crate) async fn answered<R: Request>(&self, version: i16, body: &R) -> Result<R::Response> {
        let mut bytes = BytesMut::new();
        body.encode(&mut bytes, version)?;
        let answer = request(self.internal_addr(), R::KEY, version, &bytes).await?;
        R::Response::decode(&mut Bytes::from(answer), version)
    }
}

/// Whether an error passes by itself.
pub(crate) fn is_passing(code: i16) -> bool {
    PASSING.contains(&code)
}

/// Messages as one batch, for whoever leads the partition.
pub(crate) fn produce_request(
    topic: &str,
    partition: i32,
    messages: &[KafkaMessage<'_>],
) -> Result<ProduceRequest> {
    let records = records(messages, NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE, false);
    request_of(topic, partition, &records, None, Compression::None)
}

fn request_of(
    topic: &str,
    partition: i32,
    records: &[Record],
    transaction: Option<TransactionalId>,
    compression: Compression,
) -> Result<ProduceRequest> {
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut batch, records, &options)?;
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.freeze()));
    let data = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    Ok(ProduceRequest::default()
        .with_transactional_id(transaction)
        .with_acks(-1)
        .with_timeout_ms(TIMEOUT_MS)
        .with_topic_data(vec![data]))
}

fn records(
    messages: &[KafkaMessage<'_>],
    id: i64,
    epoch: i16,
    first: i32,
    transactional: bool,
) -> Vec<Record> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let record = |(index, (key, value)): (usize, &KafkaMessage<'_>)| Record {
        transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: id,
        producer_epoch: epoch,
        timestamp_type: TimestampType::Creation,
        offset: index as i64,
        sequence: first + index as i32,
        timestamp: now,
        key: key.map(bytes),
        value: value.map(bytes),
        headers: Default::default(),
    };
    messages.iter().enumerate().map(record).collect()
}
