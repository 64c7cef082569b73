//! What `notify` sends of a batch: which tables changed, how often, from which change to which, and the tokens with which a
//! subscription sends these changes, or goes on behind them. No rows.

use crate::deliver::sink::OutChange;
use crate::subscribe::broker::Tokens;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a batch has of one table.
struct Told {
    changes: u64,
    first: u64,
    last: u64,
    ops: BTreeMap<&'static str, u64>,
    since: Value,
    behind: Value,
    shape: Value,
    no_token: Value,
}

/// The body of a batch's notification, and its id; `None` for a batch without changes.
pub fn body(
    source: &str,
    flow: &str,
    tokens: &mut Tokens,
    journal: u64,
    changes: &[OutChange],
    parked: bool,
) -> Option<(String, Bytes)> {
    let (first, last) = (changes.first()?, changes.last()?);
    let mut tables: BTreeMap<String, Told> = BTreeMap::new();
    for change in changes {
        let told = tables.entry(change.table.name.to_string()).or_insert_with(|| Told {
            changes: 0,
            first: change.lsn,
            last: change.lsn,
            ops: BTreeMap::new(),
            since: Value::Null,
            behind: Value::Null,
            shape: Value::Null,
            no_token: Value::Null,
        });
        told.changes += 1;
        told.last = change.lsn;
        *told.ops.entry(change.op.name()).or_default() += 1;
        let place = if parked { Err("the change was parked") } else { tokens.behind(change, journal) };
        match place {
            Ok(place) => {
                if told.changes == 1 {
                    told.since = tokens.before(change, journal).map_or(Value::Null, |own| own.token.into());
                }
                told.behind = place.token.into();
                told.shape = serde_json::from_str(&place.shape).unwrap_or(Value::Null);
                told.no_token = Value::Null;
            }
            Err(why) => {
                (told.since, told.behind, told.shape) = (Value::Null, Value::Null, Value::Null);
                told.no_token = why.into();
            }
        }
    }
    let tables: Vec<Value> = tables.into_iter().map(|(table, told)| told.json(&table)).collect();
    let body = json!({
        "type": "tidemill.notification.v1", "source": source, "flow": flow, "epoch": last.epoch,
        "journal": format!("{journal:016x}"), "changes": changes.len(), "first_lsn": first.lsn,
        "last_lsn": last.lsn, "tables": tables,
    });
    let body = Bytes::from(body.to_string());
    let crc = crc32c::crc32c(&body);
    let id = format!("{source}:{}:{}-{}:{crc:08x}", last.epoch, first.lsn, last.lsn);
    Some((id, body))
}

impl Told {
    fn json(self, table: &str) -> Value {
        let mut out = Map::new();
        out.insert("table".into(), table.into());
        out.insert("changes".into(), self.changes.into());
        out.insert("first_lsn".into(), self.first.into());
        out.insert("last_lsn".into(), self.last.into());
        out.insert("ops".into(), json!(self.ops));
        let tokens = [
            ("since", self.since),
            ("token", self.behind),
            ("shape", self.shape),
            ("no_token", self.no_token),
        ];
        out.extend(
            tokens
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.into(), value)),
        );
        Value::Object(out)
    }
}
