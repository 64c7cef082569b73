//! The order of commits, put together again from partitions that each have their own. Pure: it is told, and answers.
//!
//! A watermark says of its partition that everything that was committed before it has been sent. What the least watermark of
//! all partitions has passed is whole, whichever partitions it came by; until then it is held. Events at the watermark itself
//! may still come, so they wait for the next one.

use crate::capture::kafka::plan::Topics;
use crate::formats::decode::ticdc::Part;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the least watermark is kept beside the offsets of topics: no topic can have this name.
const WATERMARK: &str = "#watermark";
/// What an event costs besides its bytes: its place in two trees, and its copies' heads.
const EVENT_BYTES: usize = 200;

/// Whether a name in a position is a topic's.
pub fn is_topic(name: &str) -> bool {
    name != WATERMARK
}

pub type Place = (Arc<str>, u32);

/// Everything before this commit timestamp is in the journal.
pub fn sealed_before(topics: &Topics) -> u64 {
    let next = topics.get(WATERMARK).and_then(|topic| topic.next.first());
    next.and_then(|next| u64::try_from(*next).ok()).unwrap_or(0)
}

/// Whether a position has the place for it, which a step moves.
pub fn has_watermark(topics: &Topics) -> bool {
    topics.contains_key(WATERMARK)
}

pub fn set_sealed_before(topics: &mut Topics, commit_ts: u64) {
    topics.entry(WATERMARK.to_owned()).or_default().next = vec![i64::try_from(commit_ts).unwrap_or(i64::MAX)];
}

/// The step of the position that says it.
pub fn sealed_step(commit_ts: u64) -> base::Step {
    let next = i64::try_from(commit_ts).unwrap_or(i64::MAX);
    base::Step::Kafka { topic: WATERMARK.into(), partition: 0, next }
}

/// An event that waits for the watermark.
#[derive(Debug)]
pub struct Held {
    pub place: Place,
    pub offset: i64,
    pub part: Part,
}

#[derive(Debug, Default)]
struct Partition {
    watermark: Option<u64>,
    /// The offset behind the last record that was read.
    next: i64,
    /// The offsets of events that are held, and how many each has.
    held: BTreeMap<i64, u32>,
}

pub struct Order {
    partitions: BTreeMap<Place, Partition>,
    held: BTreeMap<u64, Vec<Held>>,
    bytes: usize,
    sealed_before: u64,
}

impl Order {
    /// Partitions that are read from `next` on, by name.
    pub fn new(sealed_before: u64, partitions: impl IntoIterator<Item = (Place, i64)>) -> Self {
        let partitions = partitions.into_iter().map(|(place, next)| {
            let partition = Partition { next, ..Partition::default() };
            (place, partition)
        });
        Self { partitions: partitions.collect(), held: BTreeMap::new(), bytes: 0, sealed_before }
    }

    /// Takes an event; false for one whose commit is sealed already: a repeat, or too late.
    pub fn hold(&mut self, place: &Place, offset: i64, part: Part) -> bool {
        if part.commit_ts < self.sealed_before {
            return false;
        }
        let Some(partition) = self.partitions.get_mut(place) else { return false };
        *partition.held.entry(offset).or_default() += 1;
        self.bytes += cost(&part);
        self.held.entry(part.commit_ts).or_default().push(Held { place: place.clone(), offset, part });
        true
    }

    /// A watermark of one partition. One that goes back is of a changefeed that began again, and says nothing new.
    pub fn advance(&mut self, place: &Place, watermark: u64) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.watermark = Some(partition.watermark.map_or(watermark, |own| own.max(watermark)));
        }
    }

    /// All records before `next` were read.
    pub fn read_to(&mut self, place: &Place, next: i64) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.next = partition.next.max(next);
        }
    }

    /// The least watermark; `None` until every partition has told one.
    pub fn watermark(&self) -> Option<u64> {
        self.slowest().and_then(|(_, watermark)| watermark)
    }

    /// The partition that everything waits for, and its watermark.
    pub fn slowest(&self) -> Option<(&Place, Option<u64>)> {
        let all = self.partitions.iter().map(|(place, partition)| (place, partition.watermark));
        all.min_by_key(|(_, watermark)| *watermark)
    }

    /// Whether a partition is among those that hold the others up.
    pub fn is_slowest(&self, topic: &str, partition: u32) -> bool {
        let least = self.slowest().map(|(_, watermark)| watermark);
        let own = self.partitions.iter().find(|((name, number), _)| **name == *topic && *number == partition);
        own.is_none_or(|(_, own)| Some(own.watermark) == least)
    }

    /// The events of the next commit that the watermark has passed, in the order in which they came.
    pub fn take(&mut self) -> Option<(u64, Vec<Held>)> {
        let first = self.held.first_entry()?;
        if *first.key() >= self.partitions.values().map(|partition| partition.watermark).min().flatten()? {
            return None;
        }
        let (commit_ts, events) = first.remove_entry();
        for event in &events {
            self.bytes -= cost(&event.part);
            let Some(partition) = self.partitions.get_mut(&event.place) else { continue };
            if let Some(count) = partition.held.get_mut(&event.offset) {
                *count -= 1;
                if *count == 0 {
                    partition.held.remove(&event.offset);
                }
            }
        }
        Some((commit_ts, events))
    }

    /// The events of a commit are in the journal.
    pub fn seal(&mut self, commit_ts: u64) {
        self.sealed_before = self.sealed_before.max(commit_ts + 1);
    }

    /// Takes back what [`Self::take`] gave: it cannot be read yet.
    pub fn put_back(&mut self, commit_ts: u64, events: Vec<Held>) {
        for event in &events {
            self.bytes += cost(&event.part);
            let Some(partition) = self.partitions.get_mut(&event.place) else { continue };
            *partition.held.entry(event.offset).or_default() += 1;
        }
        self.held.insert(commit_ts, events);
    }

    /// Nothing that the watermark has passed is held any more: what follows is at it or behind it.
    pub fn settle(&mut self) {
        if let Some(watermark) = self.watermark() {
            self.sealed_before = self.sealed_before.max(watermark);
        }
    }

    pub fn sealed_before(&self) -> u64 {
        self.sealed_before
    }

    /// Where each partition is read from after a restart: at the first event that is not sealed.
    pub fn resume(&self) -> impl Iterator<Item = (&Place, i64)> {
        self.partitions.iter().map(|(place, partition)| {
            let first = partition.held.first_key_value().map(|(offset, _)| *offset);
            (place, first.unwrap_or(partition.next))
        })
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(part: &Part) -> usize {
    part.key.len() + part.value.len() + EVENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::decode::ticdc::Kind;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn place(partition: u32) -> Place {
        ("t".into(), partition)
    }

    fn row(commit_ts: u64) -> Part {
        Part { kind: Kind::Row, commit_ts, key: Bytes::new(), value: Bytes::from_static(b"{}") }
    }

    fn order(partitions: u32) -> Order {
        Order::new(0, (0..partitions).map(|partition| (place(partition), 0)))
    }

    #[test]
    fn a_commit_is_whole_when_every_watermark_has_passed_it() {
        let mut all = order(2);
        assert!(all.hold(&place(0), 0, row(10)));
        assert!(all.hold(&place(0), 1, row(12)));
        all.advance(&place(0), 20);
        assert!(all.take().is_none() && all.watermark().is_none(), "the other partition has told nothing");
        assert!(all.hold(&place(1), 0, row(10)));
        all.advance(&place(1), 10);
        assert!(all.take().is_none(), "more may come at the watermark itself");
        assert!(all.hold(&place(1), 1, row(10)));
        all.advance(&place(1), 12);
        let (commit_ts, events) = all.take().unwrap();
        assert_eq!((commit_ts, events.len()), (10, 3));
        all.put_back(commit_ts, events);
        let (commit_ts, events) = all.take().unwrap();
        assert_eq!((commit_ts, events.len()), (10, 3));
        all.seal(10);
        assert_eq!(all.sealed_before(), 11);
        assert!(all.take().is_none());
        all.settle();
        assert_eq!(all.sealed_before(), 12);
        all.read_to(&place(0), 3);
        all.read_to(&place(1), 3);
        let resume: Vec<i64> = all.resume().map(|(_, next)| next).collect();
        assert_eq!(resume, [1, 3], "the event that is held is read again");
        assert!(!all.hold(&place(0), 3, row(11)), "a repeat of what is sealed");
        all.advance(&place(0), 5);
        assert_eq!(all.watermark(), Some(12), "watermarks do not go back");
        assert!(all.is_slowest("t", 1) && !all.is_slowest("t", 0));
    }

    #[test]
    fn nothing_is_held_for_what_is_sealed_and_bytes_are_given_back() {
        let mut all = order(1);
        all.hold(&place(0), 0, row(1));
        all.hold(&place(0), 0, row(2));
        assert!(all.bytes() > 400);
        all.advance(&place(0), 9);
        while all.take().is_some() {}
        assert_eq!(all.bytes(), 0);
        let mut topics = Topics::new();
        set_sealed_before(&mut topics, 470_629_778_921_357_313);
        assert_eq!(sealed_before(&topics), 470_629_778_921_357_313);
    }

    proptest! {
        /// Each commit once and whole, in order, whatever the partitions lag and whenever it begins again.
        #[test]
        fn commits_come_whole_once_and_in_order(
            rows in prop::collection::vec((0u32..3, 1u64..4), 1..60),
            reads in prop::collection::vec((0usize..3, 1usize..6, any::<bool>()), 1..120),
        ) {
            // Three partitions, each a list of rows and watermarks as TiCDC would write them; some rows are written twice.
            let mut lists: [Vec<(bool, u64)>; 3] = Default::default();
            let (mut ts, mut wanted) = (10, BTreeMap::<u64, usize>::new());
            for (partition, step) in rows {
                ts += step - 1;
                lists[partition as usize].push((true, ts));
                *wanted.entry(ts).or_default() += 1;
                if step == 3 {
                    for list in &mut lists {
                        list.push((false, ts));
                    }
                    ts += 1;
                }
            }
            for list in &mut lists {
                list.push((false, ts + 1));
            }
            let (mut got, mut sealed, mut from) = (Vec::new(), 0, [0usize; 3]);
            let mut all = order(3);
            let mut at = [0usize; 3];
            let finish = (0..3).map(|partition| (partition, 1000, false));
            for (partition, count, dies) in reads.into_iter().chain(finish) {
                for _ in 0..count {
                    let Some((is_row, ts)) = lists[partition].get(at[partition]).copied() else { break };
                    let own = place(partition as u32);
                    if is_row {
                        all.hold(&own, at[partition] as i64, row(ts));
                    } else {
                        all.advance(&own, ts);
                    }
                    at[partition] += 1;
                    all.read_to(&own, at[partition] as i64);
                }
                while let Some((ts, events)) = all.take() {
                    got.push((ts, events.len()));
                    all.seal(ts);
                    // Sealed one by one: a kill between two of them keeps the first.
                    sealed = ts + 1;
                    if dies {
                        break;
                    }
                }
                if dies {
                    let next = (0..3).map(|p| (place(p as u32), from[p] as i64));
                    all = Order::new(sealed, next);
                    at = from;
                } else {
                    all.settle();
                    sealed = sealed.max(all.sealed_before());
                    for ((_, partition), next) in all.resume() {
                        from[*partition as usize] = next as usize;
                    }
                }
            }
            // Those that died last are read to the end.
            for partition in 0..3 {
                while let Some((is_row, ts)) = lists[partition].get(at[partition]).copied() {
                    let own = place(partition as u32);
                    if is_row { all.hold(&own, at[partition] as i64, row(ts)); } else { all.advance(&own, ts); }
                    at[partition] += 1;
                }
            }
            // Watermarks come for ever: those before a restart are not read again.
            for partition in 0..3 {
                all.advance(&place(partition), ts + 2);
            }
            while let Some((ts, events)) = all.take() {
                got.push((ts, events.len()));
            }
            prop_assert_eq!(got, wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
