//! Three Kafka nodes that are one cluster: every partition is on all of them, and who leads it changes when one dies.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{ElectLeadersRequest, FindCoordinatorRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep};

use crate::kafka::{Kafka, KafkaOptions, KafkaRecord, Ports, voters};
use crate::kafka_write::{KafkaMessage, is_passing, name, produce_request};

/// Longest wait for leaders and for replicas in sync.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);
const HEAP_MB: u32 = 256;
/// A dead node is given up soon, topics are on all nodes, and leaders move only when a test or a death moves them.
const SETTINGS: [&str; 14] = [
    "default.replication.factor=3",
    "min.insync.replicas=2",
    "offsets.topic.replication.factor=3",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.min.isr=2",
    "transaction.state.log.num.partitions=3",
    "broker.heartbeat.interval.ms=500",
    "broker.session.timeout.ms=3000",
    "auto.leader.rebalance.enable=false",
    "auto.create.topics.enable=false",
    "num.network.threads=1",
    "num.io.threads=2",
    "num.replica.fetchers=1",
    "log.cleaner.threads=1",
];
/// Three of them start at once on a machine of two cores.
const JAVA: [&str; 2] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
const METADATA_VERSION: i16 = 8;

/// Three nodes, each broker and controller. Two of them must have a record before it is acknowledged.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: [Kafka; 3],
}

impl KafkaCluster {
    /// Starts three nodes with empty logs, and waits until all answer. Topics have so many partitions by default.
    pub async fn start(partitions: u32) -> Result<KafkaCluster> {
        let ports = [Ports::reserve()?, Ports::reserve()?, Ports::reserve()?];
        let voters = voters(&ports);
        let mut settings: Vec<String> = SETTINGS.map(str::to_owned).into();
        settings.push(format!("num.partitions={partitions}"));
        let java = JAVA.map(str::to_owned).into();
        let options = KafkaOptions { heap_mb: HEAP_MB, settings, java, ..KafkaOptions::default() };
        let [a, b, c] = ports;
        let node = |id, ports| Kafka::start_node(options.clone(), id, ports, &voters);
        let (a, b, c) = tokio::try_join!(node(1, a), node(2, b), node(3, c))?;
        Ok(KafkaCluster { nodes: [a, b, c] })
    }

    /// `kafka://…` with all three hosts.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        format!("kafka://{}", hosts.join(","))
    }

    pub fn nodes(&self) -> &[Kafka] {
        &self.nodes
    }

    /// The number, from 0, of the node that leads a partition, as the others see it; `None` while nobody does.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Option<usize>> {
        let partitions = self.partitions(topic).await?;
        let own = partitions.iter().find(|own| own.partition_index == partition);
        Ok(own.and_then(|own| usize::try_from(own.leader_id.0 - 1).ok()))
    }

    /// Waits until another node than `old` leads a partition.
    pub async fn leader_other_than(&self, topic: &str, partition: i32, old: usize) -> Result<usize> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.leader(topic, partition).await {
                Ok(Some(leader)) if leader != old => return Ok(leader),
                told if Instant::now() > end => bail!("topic {topic} gets no other leader: {told:?}"),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// The number of the node that keeps the transactions of an id.
    pub async fn coordinator(&self, transactional_id: &str) -> Result<usize> {
        let key = StrBytes::from_string(transactional_id.to_owned());
        let find = FindCoordinatorRequest::default().with_key(key).with_key_type(1);
        let end = Instant::now() + PATIENCE;
        loop {
            let told = self.any().context("no node runs")?.answered(2, &find).await;
            match told {
                Ok(answer) if answer.error_code == 0 => return Ok(usize::try_from(answer.node_id.0 - 1)?),
                told if Instant::now() > end => bail!("{transactional_id} has no coordinator: {told:?}"),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// Gives every partition of a topic back to the first of its replicas, and waits until all nodes are in sync.
    pub async fn elect_first_replicas(&self, topic: &str) -> Result<()> {
        self.in_sync(topic).await?;
        let partitions = self.partitions(topic).await?.iter().map(|own| own.partition_index).collect();
        let wanted = TopicPartitions::default().with_topic(name(topic)).with_partitions(partitions);
        let elect =
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![wanted])).with_timeout_ms(20_000);
        let answer = self.any().context("no node runs")?.answered(1, &elect).await?;
        if answer.error_code != 0 {
            bail!("the leaders of topic {topic} cannot be elected: error {}", answer.error_code);
        }
        let first = |own: &MetadataResponsePartition| own.replica_nodes.first() == Some(&own.leader_id);
        self.until(topic, "the first replicas do not lead", |partitions| partitions.iter().all(first)).await
    }

    /// Waits until every partition of a topic is in sync on all nodes.
    pub async fn in_sync(&self, topic: &str) -> Result<()> {
        let whole = |own: &MetadataResponsePartition| own.leader_id.0 > 0 && own.isr_nodes.len() == 3;
        self.until(topic, "is not in sync", |partitions| partitions.iter().all(whole)).await
    }

    /// Makes a topic of so many partitions, and waits until it is on all nodes.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.any().context("no node runs")?.ask_for_topic(topic, partitions).await?;
        self.in_sync(topic).await
    }

    /// Writes messages to a partition as one batch, to whoever leads it. It must not be killed meanwhile: an answer that is
    /// lost is not known, and the messages would be there twice.
    pub async fn produce(&self, topic: &str, partition: i32, messages: &[KafkaMessage<'_>]) -> Result<()> {
        let request = produce_request(topic, partition, messages)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader(topic, partition).await.ok().flatten();
            if let Some(node) =
                leader.and_then(|leader| self.nodes.get(leader)).filter(|node| node.is_running())
            {
                match node.stored(&request).await? {
                    0 => return Ok(()),
                    code if !is_passing(code) => bail!("topic {topic}: error {code}"),
                    _ => {}
                }
            }
            if Instant::now() > end {
                bail!("topic {topic}, partition {partition} takes no records");
            }
            sleep(LOOK).await;
        }
    }

    /// All committed records of a topic, each partition in order; none while there is no such topic.
    pub async fn messages(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        let mut out = Vec::new();
        for own in self.partitions(topic).await? {
            let leader = usize::try_from(own.leader_id.0 - 1).ok().and_then(|leader| self.nodes.get(leader));
            let leader = leader.with_context(|| format!("topic {topic} has no leader"))?;
            out.extend(leader.partition_messages(topic, own.partition_index).await?.unwrap_or_default());
        }
        Ok(out)
    }

    fn any(&self) -> Option<&Kafka> {
        self.nodes.iter().find(|node| node.is_running())
    }

    async fn until(
        &self,
        topic: &str,
        what: &str,
        holds: impl Fn(&[MetadataResponsePartition]) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.partitions(topic).await {
                Ok(partitions) if !partitions.is_empty() && holds(&partitions) => return Ok(()),
                told if Instant::now() > end => bail!("topic {topic}: {what}: {told:?}"),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// In their order.
    async fn partitions(&self, topic: &str) -> Result<Vec<MetadataResponsePartition>> {
        let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let ask =
            MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
        let answer = self.any().context("no node runs")?.answered(METADATA_VERSION, &ask).await?;
        let mut partitions =
            answer.topics.into_iter().next().context("an answer without the topic")?.partitions;
        partitions.sort_by_key(|own| own.partition_index);
        Ok(partitions)
    }
}
