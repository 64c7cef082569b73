//! Which topics a flow writes to, by the ids that the cluster gave them: one that was deleted, or deleted and made again, has
//! lost rows that only a resnapshot or a rewind brings back.
//!
//! A record of the progress topic under the key `<flow>/topics`, stored with the next note whenever it changes:
//!
//! ```text
//! {"shop.shop.orders":{"id":"<uuid>","tables":[["shop","orders"]]}}
//! ```
//!
//! Brokers before 3.1 do not tell ids; there only a topic that is missing is noticed. A flow from before the record was there has
//! none: what it finds is noted.

use super::progress::TOPIC;
use super::{KafkaSink, Open};
use crate::deliver::sink::{OutChange, SinkError};
use crate::kafka::wire::WireError;
use base::{Op, TableName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[derive(Debug, Default)]
pub(super) struct Held {
    topics: BTreeMap<String, Topic>,
    changed: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Topic {
    /// `None` where the brokers do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Those whose rows go there, as routed.
    tables: BTreeSet<(String, String)>,
}

pub(super) fn key(flow: &str) -> String {
    format!("{flow}/topics")
}

impl Held {
    pub(super) fn parse(text: Option<&[u8]>) -> Result<Self, WireError> {
        let Some(text) = text else { return Ok(Self::default()) };
        let topics = serde_json::from_slice(text).map_err(|_| {
            WireError::Broken(format!("topic `{TOPIC}` holds a note of topics that is not ours"))
        })?;
        Ok(Self { topics, changed: false })
    }

    /// Notes a topic that is there, and a table whose rows go to it.
    pub(super) fn add(&mut self, topic: &str, id: Option<Uuid>, table: &TableName) {
        let held = self.topics.entry(topic.to_owned()).or_insert_with(|| {
            self.changed = true;
            Topic::default()
        });
        let id = id.map(|id| id.to_string());
        if id.is_some() && held.id != id {
            (held.id, self.changed) = (id, true);
        }
        self.changed |= held.tables.insert((table.db.clone(), table.table.clone()));
    }

    /// What is to be stored, where that is something new.
    pub(super) fn unsaved(&self) -> Option<Vec<u8>> {
        self.changed.then(|| serde_json::to_vec(&self.topics).unwrap_or_default())
    }

    pub(super) fn saved(&mut self) {
        self.changed = false;
    }

    /// Topics all of whose rows come again may be any.
    pub(super) fn forget(&mut self, tables: &[TableName]) {
        let comes = |(db, table): &(String, String)| tables.iter().any(|t| t.db == *db && t.table == *table);
        let before = self.topics.len();
        self.topics.retain(|_, topic| !topic.tables.iter().all(comes));
        self.changed |= self.topics.len() != before;
    }

    /// A table has left the source, or this name: what its topic has no longer matters.
    fn leave(&mut self, table: &TableName) {
        let left = (table.db.clone(), table.table.clone());
        for topic in self.topics.values_mut() {
            self.changed |= topic.tables.remove(&left);
        }
        self.topics.retain(|_, topic| !topic.tables.is_empty());
    }

    /// What is wrong with a topic, by the id that it has now; `now` is `None` where there is no such topic.
    fn wrong(&self, name: &str, now: Option<Option<Uuid>>) -> Option<SinkError> {
        let held = self.topics.get(name)?;
        let message = match now {
            None => format!("the topic `{name}` is gone: it was deleted"),
            Some(Some(id)) if held.id.as_ref().is_some_and(|held| *held != id.to_string()) => {
                format!("the topic `{name}` is another than the flow wrote to: it was deleted and made again")
            }
            Some(_) => return None,
        };
        let tables = held.tables.iter().map(|(db, table)| TableName::new(db, table)).collect();
        Some(SinkError::Gone { message, tables })
    }
}

impl Open {
    /// Forgets the topics of tables that go, or get another name, with these changes.
    pub(super) fn leave_topics(&mut self, changes: &[&OutChange]) {
        for change in changes.iter().filter(|change| change.op == Op::Ddl) {
            let Some(ddl) = &change.ddl else { continue };
            let Some(before) = &ddl.before else { continue };
            if ddl.after.as_ref().is_none_or(|after| after.name != before.name) {
                self.held.leave(&before.name);
                self.routes.retain(|(id, version), _| *id != before.id || *version > before.version);
            }
        }
    }
}

impl KafkaSink {
    /// Before a topic is made or written to for the first time: whether it is the one that the flow knows.
    pub(super) async fn look_for_topic(&mut self, topic: &str) -> Result<(), SinkError> {
        match &self.open {
            Some(open) if open.held.topics.contains_key(topic) => self.look_at(vec![topic.to_owned()]).await,
            _ => Ok(()),
        }
    }

    /// The same of all that the flow writes to now.
    pub(super) async fn look_for_topics(&mut self) -> Result<(), SinkError> {
        let Some(open) = &self.open else { return Ok(()) };
        let names: BTreeSet<String> = open.routes.values().map(|route| route.topic.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.look_at(names.into_iter().collect()).await
    }

    async fn look_at(&mut self, names: Vec<String>) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let refreshed = open.publisher.cluster.refresh(&asked).await;
        let Open { publisher, held, .. } = open;
        let wrong = names
            .iter()
            .find_map(|name| held.wrong(name, publisher.cluster.topic(name).map(|topic| topic.id)));
        refreshed.map_err(|error| self.explain(error))?;
        wrong.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_known_by_its_id_until_all_its_tables_come_again() {
        let (a, b) = (TableName::new("shop", "a"), TableName::new("shop", "b"));
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut held = Held::default();
        held.add("all", Some(one), &a);
        held.add("all", Some(one), &b);
        let text = held.unsaved().unwrap();
        let mut held = Held::parse(Some(&text)).unwrap();
        assert!(held.unsaved().is_none() && held.wrong("all", Some(Some(one))).is_none());
        assert!(held.wrong("other", None).is_none() && held.wrong("all", Some(None)).is_none());
        let tables = |wrong: Option<SinkError>| match wrong {
            Some(SinkError::Gone { tables, .. }) => tables,
            other => panic!("{other:?}"),
        };
        assert_eq!(tables(held.wrong("all", Some(Some(two)))), [a.clone(), b.clone()]);
        held.forget(std::slice::from_ref(&a));
        assert_eq!(tables(held.wrong("all", None)), [a.clone(), b.clone()]);
        held.leave(&b);
        held.forget(&[a]);
        assert!(held.wrong("all", None).is_none() && held.unsaved().is_some());
    }
}
