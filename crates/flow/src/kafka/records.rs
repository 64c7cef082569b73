//! Record batches as a fetch answers them: what is whole, and was not aborted.

use super::wire::WireError;
use bytes::Bytes;
use kafka_protocol::records::{Record, RecordBatchDecoder};
use std::collections::HashSet;

/// Bytes of a batch before its length ends.
const LENGTH_END: usize = 12;
const MAGIC_AT: usize = 16;
/// The only format of batches since Kafka 0.11; earlier ones have no delta of the last offset.
const MAGIC: u8 = 2;
const LAST_DELTA_AT: usize = 23;

/// The records of whole batches that were not aborted, and the offset behind the last batch. `aborted` holds producers and
/// the first offsets of their aborted transactions, as the broker answers them.
pub fn committed(
    bytes: Bytes,
    mut aborted: Vec<(i64, i64)>,
) -> Result<(Option<i64>, Vec<Record>), WireError> {
    let (mut out, mut open) = (Vec::new(), HashSet::new());
    let next = each_batch(bytes, |base, records| {
        aborted.retain(|(producer, first)| {
            let begins = *first <= base;
            if begins {
                open.insert(*producer);
            }
            !begins
        });
        for record in records {
            if record.control {
                open.remove(&record.producer_id);
            } else if !(record.transactional && open.contains(&record.producer_id)) {
                out.push(record);
            }
        }
    })?;
    Ok((next, out))
}

/// All records of whole batches, with the ends of transactions among them, and the offset behind the last batch.
pub fn all(bytes: Bytes) -> Result<(Option<i64>, Vec<Record>), WireError> {
    let mut out = Vec::new();
    let next = each_batch(bytes, |_, records| out.extend(records))?;
    Ok((next, out))
}

/// Of a record that ends a transaction: whether it commits it.
pub fn commits(end: &Record) -> bool {
    // version:i16 type:i16; 1 is a commit.
    end.key.as_deref().and_then(|key| key.get(2..4)) == Some(&[0, 1])
}

/// Gives the records of each whole batch away, with its first offset; the offset behind the last one.
fn each_batch(bytes: Bytes, mut take: impl FnMut(i64, Vec<Record>)) -> Result<Option<i64>, WireError> {
    let (mut rest, mut next) = (bytes, None);
    while let Some(head) = rest.get(..LENGTH_END) {
        let (base, length) = head.split_at(8);
        let base = i64::from_be_bytes(base.try_into().unwrap_or_default());
        let length = i32::from_be_bytes(length.try_into().unwrap_or_default());
        let size = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(LENGTH_END);
        if rest.len() < size {
            break;
        }
        let mut batch = rest.split_to(size);
        // A compacted batch may have lost its last records, or all of them.
        next = last_offset(&batch, base).map(|last| last + 1).or(next);
        let set = RecordBatchDecoder::decode(&mut batch).map_err(WireError::broken)?;
        next = set.records.iter().map(|record| record.offset + 1).max().max(next);
        take(base, set.records);
    }
    Ok(next)
}

fn last_offset(batch: &Bytes, base: i64) -> Option<i64> {
    if batch.get(MAGIC_AT) != Some(&MAGIC) {
        return None;
    }
    let delta = batch.get(LAST_DELTA_AT..LAST_DELTA_AT + 4)?;
    Some(base + i64::from(i32::from_be_bytes(delta.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_the_compactor_emptied_is_gone_past() {
        let mut head = Vec::new();
        head.extend(100i64.to_be_bytes());
        head.extend(49i32.to_be_bytes());
        head.extend(0i32.to_be_bytes());
        head.push(MAGIC);
        head.extend([0; 4]);
        let crc_from = head.len();
        head.extend(0i16.to_be_bytes());
        head.extend(41i32.to_be_bytes());
        head.extend([0; 16]);
        // Producer, its epoch, the first sequence; no records.
        head.extend(7i64.to_be_bytes());
        head.extend(0i16.to_be_bytes());
        head.extend(0i32.to_be_bytes());
        head.extend(0i32.to_be_bytes());
        let crc = crc32c::crc32c(&head[crc_from..]);
        head[crc_from - 4..crc_from].copy_from_slice(&crc.to_be_bytes());
        let (next, records) = committed(Bytes::from(head), Vec::new()).unwrap();
        assert_eq!((next, records.len()), (Some(142), 0));
    }
}
