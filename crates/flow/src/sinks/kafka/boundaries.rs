//! Where transactions of the source begin and end: messages of a topic of their own, as Debezium's
//! `provide.transaction.metadata` writes them, and the place of each event in its transaction.
//!
//! ```text
//! key    {"id":"<GTID>"}
//! value  {"status":"BEGIN","id":"<GTID>","event_count":null,"data_collections":null,"ts_ms":…}
//! value  {"status":"END","id":"<GTID>","event_count":3,
//!         "data_collections":[{"data_collection":"shop.orders","event_count":3}],"ts_ms":…}
//! ```
//!
//! Events are messages with a value that the flow sent: what rules leave out, what is parked and tombstones are not counted.
//! Statements and TRUNCATE are in no transaction, as Debezium has it.
//! What was counted of a transaction that has not ended stands in the flow's progress note ([`Open`]), so that a flow that goes
//! on in the midst of one counts on. It must never be noted with another progress than the one that it was counted up to.

use crate::deliver::sink::OutChange;
use crate::formats::{EventPlace, Message};
use base::Op;
use base::json::put_string;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;

const KEY_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.TransactionMetadataKey","version":1}"#,
);
const VALUE_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"status"},"#,
    r#"{"type":"string","optional":false,"field":"id"},{"type":"int64","optional":true,"field":"event_count"},"#,
    r#"{"type":"array","items":{"type":"struct","fields":[{"type":"string","optional":false,"field":"data_collection"},"#,
    r#"{"type":"int64","optional":false,"field":"event_count"}],"optional":true,"name":"event.collection","version":1},"#,
    r#""optional":true,"field":"data_collections"},{"type":"int64","optional":false,"field":"ts_ms"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.TransactionMetadataValue","version":1}"#,
);
/// Tables that one transaction may have events of: their counts are in one message, and in each progress note.
pub const TABLES_MAX: usize = 4096;

/// A transaction of which events were sent, and not yet its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Open {
    id: String,
    /// The lsn of its first change in the journal, sent or not: no other transaction has it.
    begins: u64,
    ts_ms: i64,
    events: u64,
    /// Events by `db.table`, as routed.
    tables: BTreeMap<String, u64>,
}

/// Counts the events of transactions.
#[derive(Clone, Debug)]
pub struct Boundaries {
    pub topic: String,
    /// Each message says what it is made of.
    schemas: bool,
    open: Option<Open>,
}

/// More tables than are counted.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyTables;

impl Boundaries {
    pub fn new(topic: String, schemas: bool) -> Self {
        Self { topic, schemas, open: None }
    }

    /// What was counted of the transaction at hand.
    pub fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Goes on with what was counted up to where the flow goes on.
    pub fn resume(&mut self, open: Option<Open>) {
        self.open = open;
    }

    /// The END of the transaction at hand, unless this change is of it too.
    pub fn leave(&mut self, change: &OutChange) -> Option<Message> {
        let same = self.open.as_ref().is_some_and(|open| Some(open.begins) == begins(change));
        if same { None } else { self.end() }
    }

    /// The END of the transaction at hand.
    pub fn end(&mut self) -> Option<Message> {
        let open = self.open.take()?;
        Some(self.message(&open, true))
    }

    /// The place that the next event of this change has in its transaction, where it is of one.
    pub fn place(&self, change: &OutChange) -> Option<EventPlace> {
        begins(change)?;
        let open = self.open.as_ref();
        let in_table = open.and_then(|open| open.tables.get(&change.table.name.to_string()));
        Some(EventPlace {
            total_order: open.map_or(0, |open| open.events) + 1,
            data_collection_order: in_table.copied().unwrap_or(0) + 1,
        })
    }

    /// Counts the events that a change made; the BEGIN of its transaction when they are its first. Called after `leave`.
    pub fn count(&mut self, change: &OutChange, events: u64) -> Result<Option<Message>, TooManyTables> {
        let (Some(txn), Some(begins)) = (&change.txn, begins(change)) else { return Ok(None) };
        if events == 0 {
            return Ok(None);
        }
        let is_first = self.open.is_none();
        let open = self.open.get_or_insert_with(|| Open {
            id: txn.id.to_string(),
            begins,
            ts_ms: change.ts_ms,
            events: 0,
            tables: BTreeMap::new(),
        });
        open.events += events;
        *open.tables.entry(change.table.name.to_string()).or_insert(0) += events;
        if open.tables.len() > TABLES_MAX {
            return Err(TooManyTables);
        }
        let begun = is_first.then(|| open.clone());
        Ok(begun.map(|begun| self.message(&begun, false)))
    }

    fn message(&self, open: &Open, ended: bool) -> Message {
        let mut key = Vec::from(*b"{\"id\":");
        put_string(&mut key, &open.id);
        key.push(b'}');
        let status = if ended { "END" } else { "BEGIN" };
        let mut value = Vec::new();
        write!(value, "{{\"status\":\"{status}\",\"id\":").expect("memory");
        put_string(&mut value, &open.id);
        if ended {
            write!(value, ",\"event_count\":{},\"data_collections\":[", open.events).expect("memory");
            for (index, (table, events)) in open.tables.iter().enumerate() {
                value.extend_from_slice(if index > 0 { b"," } else { b"" });
                value.extend_from_slice(b"{\"data_collection\":");
                put_string(&mut value, table);
                write!(value, ",\"event_count\":{events}}}").expect("memory");
            }
            value.push(b']');
        } else {
            value.extend_from_slice(b",\"event_count\":null,\"data_collections\":null");
        }
        write!(value, ",\"ts_ms\":{}}}", open.ts_ms).expect("memory");
        let topic = self.topic.clone();
        Message {
            topic,
            key: Some(self.with_schema(KEY_SCHEMA, key)),
            value: Some(self.with_schema(VALUE_SCHEMA, value)),
        }
    }

    fn with_schema(&self, schema: &str, payload: Vec<u8>) -> Vec<u8> {
        if !self.schemas {
            return payload;
        }
        let mut out = Vec::with_capacity(schema.len() + payload.len() + 32);
        write!(out, "{{\"schema\":{schema},\"payload\":").expect("memory");
        out.extend_from_slice(&payload);
        out.push(b'}');
        out
    }
}

/// The lsn of the first change of the transaction that a row's change is of.
fn begins(change: &OutChange) -> Option<u64> {
    if matches!(change.op, Op::Truncate | Op::Ddl) {
        return None;
    }
    change.txn.as_ref().map(|txn| change.lsn.saturating_sub(txn.index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Table, TableName, Txn};
    use std::sync::Arc;

    fn change(table: &str, lsn: u64, txn: Option<(&str, u64)>) -> OutChange {
        let name = TableName::new("shop", table);
        let table = Table { id: 1, version: 1, name, columns: vec![], key: vec![], unique_keys: vec![] };
        OutChange {
            epoch: 1,
            lsn,
            op: Op::Insert,
            table: Arc::new(table),
            of: None,
            ts_ms: 5,
            txn: txn.map(|(id, index)| Txn { id: id.into(), index, last: false }),
            before: None,
            after: None,
            ddl: None,
            whole: None,
            again: false,
        }
    }

    fn text(message: Option<Message>) -> String {
        message.map_or_else(String::new, |message| String::from_utf8(message.value.unwrap()).unwrap())
    }

    /// What is told of one change, and the place of its first event.
    fn send(counting: &mut Boundaries, change: &OutChange, events: u64) -> (String, Option<u64>, String) {
        let ended = text(counting.leave(change));
        let place = counting.place(change).map(|place| place.total_order);
        (ended, place, text(counting.count(change, events).unwrap()))
    }

    #[test]
    fn a_transaction_ends_where_another_begins_also_under_the_same_name() {
        let mut counting = Boundaries::new("t".into(), false);
        let (_, place, begun) = send(&mut counting, &change("a", 10, Some(("f:4", 0))), 1);
        assert_eq!((place, begun.contains("BEGIN")), (Some(1), true));
        let (ended, place, begun) = send(&mut counting, &change("a", 12, Some(("f:4", 2))), 2);
        assert_eq!((ended.as_str(), place, begun.as_str()), ("", Some(2), ""), "11 was left out");
        // A server whose files were reset names its transactions by the same places again.
        let (ended, place, begun) = send(&mut counting, &change("b", 13, Some(("f:4", 0))), 1);
        assert!(ended.contains("\"event_count\":3") && begun.contains("BEGIN"), "{ended} {begun}");
        assert_eq!(place, Some(1));
        let (ended, place, begun) = send(&mut counting, &change("b", 14, None), 1);
        assert!(ended.contains("{\"data_collection\":\"shop.b\",\"event_count\":1}"), "{ended}");
        assert_eq!((place, begun.as_str()), (None, ""), "a row that was read is in no transaction");
        assert!(counting.end().is_none());
    }

    #[test]
    fn what_was_counted_goes_through_a_progress_note() {
        let mut counting = Boundaries::new("t".into(), false);
        send(&mut counting, &change("a", 10, Some(("u:1", 0))), 2);
        let noted = serde_json::to_string(&counting.open()).unwrap();
        let mut again = Boundaries::new("t".into(), false);
        again.resume(serde_json::from_str(&noted).unwrap());
        let last = change("a", 11, Some(("u:1", 1)));
        assert_eq!(send(&mut again, &last, 1), send(&mut counting, &last, 1));
        assert_eq!(text(again.end()), text(counting.end()));
    }

    #[test]
    fn a_change_without_an_event_begins_nothing_and_more_tables_than_are_counted_are_told() {
        let mut counting = Boundaries::new("t".into(), false);
        assert_eq!(send(&mut counting, &change("a", 1, Some(("u:1", 0))), 0).2, "");
        assert!(counting.end().is_none());
        for number in 0..TABLES_MAX as u64 {
            counting.count(&change(&format!("t{number}"), number + 1, Some(("u:1", number))), 1).unwrap();
        }
        let one_more = change("a", 9000, Some(("u:1", 8999)));
        assert_eq!(counting.count(&one_more, 1), Err(TooManyTables));
    }
}
