//! What becomes of a position in view of the topics that there are. Pure: it is told, and answers.

use super::consumer::Live;
use crate::config::KafkaStart;
use base::TopicPosition;
use std::collections::BTreeMap;

pub type Topics = BTreeMap<String, TopicPosition>;

#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// The position stands.
    Stay,
    /// The position, with topics and partitions that are new.
    Extend(Topics),
    /// Why the records that follow the position are not there.
    Gap(String),
}

/// `known` is `None` for a source that has read nothing yet. Topics that are gone keep their place: they may come back.
pub fn plan(known: Option<&Topics>, live: &BTreeMap<String, Live>, start: KafkaStart) -> Plan {
    let mut topics = known.cloned().unwrap_or_default();
    let mut extended = known.is_none();
    for (name, now) in live {
        let Some(own) = topics.get_mut(name) else {
            // What is made while we run is read from its beginning, whatever a new source does.
            let from_end = known.is_none() && start == KafkaStart::Latest;
            let next = if from_end { now.latest.clone() } else { now.earliest.clone() };
            topics.insert(name.clone(), TopicPosition { id: now.id.clone(), next });
            extended = true;
            continue;
        };
        if let Some(why) = gap(name, own, now) {
            return Plan::Gap(why);
        }
        if own.next.len() < now.earliest.len() {
            own.next.extend_from_slice(&now.earliest[own.next.len()..]);
            extended = true;
        }
        if own.id.is_none() && now.id.is_some() {
            own.id.clone_from(&now.id);
            extended = true;
        }
    }
    if extended { Plan::Extend(topics) } else { Plan::Stay }
}

fn gap(name: &str, own: &TopicPosition, now: &Live) -> Option<String> {
    if made_again(own, now) {
        return Some(format!("topic `{name}` was deleted and made again since offset {:?}", own.next));
    }
    let partitions = own.next.iter().zip(&now.earliest).zip(&now.latest).enumerate();
    for (partition, ((next, earliest), latest)) in partitions {
        if next < earliest {
            return Some(format!(
                "topic `{name}`, partition {partition} no longer has the records at offsets {next} to {}: they went by \
                 its retention before they were read",
                earliest - 1
            ));
        }
        if next > latest {
            return Some(format!(
                "topic `{name}`, partition {partition} ends at offset {latest}, before our position {next}: it lost \
                 records, or was made again"
            ));
        }
    }
    None
}

fn made_again(own: &TopicPosition, now: &Live) -> bool {
    let other = own.id.as_ref().zip(now.id.as_ref()).is_some_and(|(own, now)| own != now);
    other || own.next.len() > now.earliest.len()
}

/// The beginning of every topic.
pub fn from_start(live: &BTreeMap<String, Live>) -> Topics {
    let begin = |now: &Live| TopicPosition { id: now.id.clone(), next: now.earliest.clone() };
    live.iter().map(|(name, now)| (name.clone(), begin(now))).collect()
}

/// The position, past what is not there any more.
pub fn past_gaps(known: &Topics, live: &BTreeMap<String, Live>) -> Topics {
    let mut topics = known.clone();
    for (name, now) in live {
        match topics.get_mut(name) {
            Some(own) if !made_again(own, now) => {
                own.next.extend_from_slice(&now.earliest[own.next.len()..]);
                for ((next, earliest), latest) in own.next.iter_mut().zip(&now.earliest).zip(&now.latest) {
                    *next = (*next).clamp(*earliest, (*latest).max(*earliest));
                }
            }
            _ => {
                topics.insert(name.clone(), TopicPosition { id: now.id.clone(), next: now.earliest.clone() });
            }
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(id: &str, bounds: &[(i64, i64)]) -> BTreeMap<String, Live> {
        let (earliest, latest) = bounds.iter().copied().unzip();
        [("a".to_owned(), Live { id: Some(id.to_owned()), earliest, latest })].into()
    }

    fn at(id: &str, next: &[i64]) -> Topics {
        [("a".to_owned(), TopicPosition { id: Some(id.to_owned()), next: next.to_vec() })].into()
    }

    #[test]
    fn a_new_source_begins_where_it_is_told_and_a_new_partition_at_its_beginning() {
        let now = live("x", &[(3, 9), (0, 4)]);
        assert_eq!(plan(None, &now, KafkaStart::Earliest), Plan::Extend(at("x", &[3, 0])));
        assert_eq!(plan(None, &now, KafkaStart::Latest), Plan::Extend(at("x", &[9, 4])));
        assert_eq!(plan(Some(&at("x", &[5])), &now, KafkaStart::Latest), Plan::Extend(at("x", &[5, 0])));
        assert_eq!(plan(Some(&at("x", &[5, 4])), &now, KafkaStart::Latest), Plan::Stay);
        assert_eq!(plan(Some(&Topics::new()), &now, KafkaStart::Latest), Plan::Extend(at("x", &[3, 0])));
        assert_eq!(plan(Some(&at("x", &[5, 4])), &BTreeMap::new(), KafkaStart::Latest), Plan::Stay);
    }

    #[test]
    fn what_is_not_there_any_more_is_a_gap() {
        let why =
            |known: &Topics, now: &BTreeMap<String, Live>| match plan(Some(known), now, KafkaStart::Earliest)
            {
                Plan::Gap(why) => why,
                other => panic!("{other:?}"),
            };
        let now = live("x", &[(3, 9)]);
        assert!(why(&at("y", &[5]), &now).contains("made again"));
        assert!(why(&at("x", &[5, 1]), &now).contains("made again"));
        assert!(why(&at("x", &[1]), &now).contains("offsets 1 to 2"));
        assert!(why(&at("x", &[10]), &now).contains("ends at offset 9"));
        assert_eq!(past_gaps(&at("y", &[5]), &now), at("x", &[3]));
        assert_eq!(past_gaps(&at("x", &[1]), &now), at("x", &[3]));
        assert_eq!(past_gaps(&at("x", &[10]), &now), at("x", &[9]));
        assert_eq!(past_gaps(&at("x", &[5]), &live("x", &[(3, 9), (0, 4)])), at("x", &[5, 0]));
        assert_eq!(from_start(&now), at("x", &[3]));
    }
}
