//! How far each flow is, in a compacted topic of the same cluster: the key is the flow's name.
//!
//! ```text
//! {"journal":"00a1…","epoch":1,"lsn":42}         and, in the midst of a transaction whose events are counted,
//! {"journal":"00a1…","epoch":1,"lsn":42,"open":{"id":"<GTID>","begins":40,"ts_ms":…,"events":2,"tables":{"shop.orders":2}}}
//! ```

use super::boundaries::Open;
use super::producer::{Publisher, TopicSettings};
use crate::deliver::sink::{Progress, Standing};
use crate::kafka::records::committed;
use crate::kafka::wire::{WireError, checked};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
const SETTLE_LOOK: Duration = Duration::from_millis(50);
const FETCH_BYTES: i32 = 8 << 20;
const FETCH_WAIT_MS: i32 = 1000;
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
}

/// Small segments, so that the compactor comes soon and little is read at a start.
pub fn settings(replication: Option<i16>) -> TopicSettings {
    let configs =
        [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let configs: BTreeMap<_, _> = configs.map(text).into();
    TopicSettings { partitions: Some(1), replication, configs }
}

pub fn value(journal: u64, progress: Progress, open: Option<&Open>) -> Vec<u8> {
    let journal = format!("{journal:016x}");
    let note = Note { journal, epoch: progress.epoch, lsn: progress.lsn, open: open.cloned() };
    serde_json::to_vec(&note).unwrap_or_default()
}

/// The last committed note of a flow, and what it says of the transaction at hand. The topic must be there.
///
/// Waits until every transaction that is open in the topic has ended: a broker that was killed may let us in before it has
/// written what it had decided, and then the last note would be missed and its changes sent again.
pub async fn read(
    publisher: &mut Publisher,
    flow: &str,
) -> Result<Option<(Standing, Option<Open>)>, WireError> {
    let first = offset(publisher, EARLIEST, READ_COMMITTED).await?;
    let written = offset(publisher, LATEST, READ_UNCOMMITTED).await?;
    let deadline = Instant::now() + SETTLE_MAX;
    let mut end = offset(publisher, LATEST, READ_COMMITTED).await?;
    while end < written {
        if Instant::now() > deadline {
            return Err(WireError::Hanging { topic: TOPIC.to_owned(), offset: end });
        }
        tokio::time::sleep(SETTLE_LOOK).await;
        end = offset(publisher, LATEST, READ_COMMITTED).await?;
    }
    tracing::debug!(first, end, "looking for progress");
    let mut step = LOOK_BACK;
    while end > first {
        let from = (end - step).max(first);
        if let Some(value) = last_between(publisher, flow, from, end).await? {
            let malformed = || WireError::Broken(format!("topic `{TOPIC}` holds a note that is not ours"));
            let note: Note = serde_json::from_slice(&value).map_err(|_| malformed())?;
            let journal = u64::from_str_radix(&note.journal, 16).map_err(|_| malformed())?;
            let progress = Progress { epoch: note.epoch, lsn: note.lsn };
            return Ok(Some((Standing { journal, progress }, note.open)));
        }
        (end, step) = (from, step * 4);
    }
    Ok(None)
}

fn leader(publisher: &Publisher) -> Result<i32, WireError> {
    let leader = publisher.cluster.topic(TOPIC).and_then(|topic| topic.leaders.first().copied());
    leader.ok_or_else(|| WireError::Broken(format!("topic `{TOPIC}` is gone")))
}

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

async fn offset(publisher: &mut Publisher, which: i64, isolation: i8) -> Result<i64, WireError> {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(-1)
        .with_timestamp(which);
    let topic = ListOffsetsTopic::default().with_name(topic_name()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let leader = leader(publisher)?;
    let answer = publisher.cluster.call(leader, LIST_OFFSETS_VERSION, &request).await?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first());
    let told = told.ok_or_else(|| WireError::Broken("an answer without the partition".to_owned()))?;
    checked(|| format!("topic `{TOPIC}`"), told.error_code)?;
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
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default().with_topic(topic_name()).with_partitions(vec![partition]),
            ]);
        let leader = leader(publisher)?;
        let answer = publisher.cluster.call(leader, FETCH_VERSION, &request).await?;
        checked(|| format!("topic `{TOPIC}`"), answer.error_code)?;
        let told = answer.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let told = told.ok_or_else(|| WireError::Broken("an answer without the partition".to_owned()))?;
        checked(|| format!("topic `{TOPIC}`"), told.error_code)?;
        let aborted = told.aborted_transactions.unwrap_or_default();
        let aborted = aborted.iter().map(|txn| (txn.producer_id.0, txn.first_offset)).collect();
        let (next, records) = committed(told.records.unwrap_or_default(), aborted)?;
        for record in records {
            if (from..end).contains(&record.offset) && record.key.as_deref() == Some(flow.as_bytes()) {
                found = record.value.or(found);
            }
        }
        match next {
            Some(next) if next > from => from = next,
            _ => return Err(WireError::Broken(format!("topic `{TOPIC}` cannot be read at offset {from}"))),
        }
    }
    Ok(found)
}
