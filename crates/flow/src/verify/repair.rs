//! Rows that differ are journaled again by the source's capture, as they are now, and delivered like any change: nothing is
//! written past the flow. Then they are compared once more.

use super::{Key, OneTable, VerifyError};
use crate::config::{FlowConfig, SinkConfig, SinkKind, TransformStep};
use crate::formats::Format;
use base::{RowBuf, Table, Value};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Keys of one request to the node.
const KEYS_PER_REQUEST: usize = 500;
/// A row that changed while it was read, or whose copy has a version above the first repair, is repaired again so often.
const ROUNDS_MAX: u32 = 3;

/// What is done about differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mend {
    #[default]
    Nothing,
    /// Rows that the source has are journaled again; why those that it has not are left, if they are.
    Rows { leaves_extra: Option<String> },
}

impl Mend {
    /// What a flow's repair can do, beside the `others` of the project.
    pub fn of<'a>(
        flow: &FlowConfig,
        sink: &SinkConfig,
        others: impl IntoIterator<Item = (&'a str, &'a FlowConfig)>,
    ) -> Self {
        let why = alone(flow, sink).map(str::to_owned);
        let why = why.or_else(|| others.into_iter().find_map(|(name, other)| beside(flow, name, other)));
        Self::Rows { leaves_extra: why }
    }
}

/// Why rows of which only the key is known cannot be deleted by this flow.
fn alone(flow: &FlowConfig, sink: &SinkConfig) -> Option<&'static str> {
    let options = &flow.options;
    let by_key = match sink.kind {
        SinkKind::Mysql | SinkKind::Tidb | SinkKind::Sqlite => true,
        SinkKind::Redis => options.key.is_none(),
        SinkKind::Elasticsearch => {
            options.index.is_none() && options.id.is_none() && options.routing.is_none()
        }
        _ => return Some("a delete of which only the key is known is no message of theirs"),
    };
    let steps = |step: &TransformStep| matches!(step, TransformStep::Filter(_) | TransformStep::Split(_));
    if flow.transform.iter().any(steps) {
        Some("the flow has a `filter` or a `split`, so the source may have them")
    } else if !keeps_apart(&flow.route) {
        Some("the flow's `route` may bring several tables into one")
    } else if !by_key {
        Some("where they are is made of more than their key")
    } else {
        None
    }
}

/// Why another flow forbids it: it may write the same table, or hears of each delete in the same journal.
fn beside(flow: &FlowConfig, name: &str, other: &FlowConfig) -> Option<String> {
    if other.to == flow.to && (other.from != flow.from || other.route != flow.route) {
        return Some(format!("they may be those of flow `{name}`, which has the same sink"));
    }
    let strict = other.from == flow.from && other.options.format == Format::Debezium;
    strict.then(|| {
        format!("flow `{name}` of the same source writes Debezium's deletes, which have the whole row")
    })
}

/// Whether no two tables go to one.
fn keeps_apart(route: &BTreeMap<String, String>) -> bool {
    let parts = |name: &str| {
        name.split_once('.').map(|(db, table)| (db.matches('*').count(), table.matches('*').count()))
    };
    let targets: HashSet<&String> = route.values().collect();
    targets.len() == route.len()
        && route.iter().all(|(from, to)| !from.contains('?') && parts(from) == parts(to))
}

/// A row that differs.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub key: Key,
    pub extra: bool,
}

impl OneTable<'_> {
    /// Repairs what differs, and compares it again.
    pub(super) async fn repair(&mut self, parked: &HashSet<(String, String)>) -> Result<(), VerifyError> {
        let Mend::Rows { leaves_extra } = self.mend.clone() else { return Ok(()) };
        let before = self.found.len();
        if before == 0 {
            return Ok(());
        }
        self.is_retelling = true;
        for _ in 0..ROUNDS_MAX {
            let found = std::mem::take(&mut self.found);
            let sent = self.journal(&found, leaves_extra.is_none()).await?;
            (self.report.missing, self.report.extra, self.report.different) = (0, 0, 0);
            let keys: Vec<Key> = found.into_iter().map(|found| found.key).collect();
            for part in keys.chunks(super::KEYS_PER_QUERY) {
                self.look_again(part, parked).await?;
            }
            if sent == 0 || self.found.is_empty() {
                break;
            }
        }
        let still: HashSet<&str> = self.found.iter().map(|found| found.key.text.as_str()).collect();
        for (difference, text) in self.report.differences.iter_mut().zip(&self.told) {
            difference.repaired = !still.contains(text.as_str());
        }
        self.report.repaired = (before - still.len()) as u64;
        if let Some(why) = leaves_extra.filter(|_| self.report.extra > 0) {
            self.report.unrepaired = Some(format!("rows that are too much are left: {why}"));
        } else if self.left_out > 0 {
            self.report.unrepaired = Some(
                "rows that are too much are left: the flow leaves out their rows in the source".to_owned(),
            );
        }
        Ok(())
    }

    /// Has these rows journaled again, and waits until the sink has them. How many there were.
    async fn journal(&mut self, found: &[Found], deletes: bool) -> Result<usize, VerifyError> {
        let (mut sent, mut last) = (0, 0);
        self.left_out = 0;
        for part in found.chunks(KEYS_PER_REQUEST) {
            let (keys, gone) = self.source_keys(part).await?;
            for (keys, deletes) in [(keys, false), (if deletes { gone } else { Vec::new() }, true)] {
                if !keys.is_empty() {
                    let lsn = self.watch.repair(&self.report.table, &keys, deletes).await?;
                    (sent, last) = (sent + keys.len(), last.max(lsn));
                }
            }
        }
        if sent > 0 {
            self.watch.delivered_to(last).await?;
        }
        Ok(sent)
    }

    /// The keys as the source has them: of rows that it has, and of those that it has not.
    async fn source_keys(&mut self, found: &[Found]) -> Result<(Vec<Json>, Vec<Json>), VerifyError> {
        let (source, target) = (&self.pair.source, self.pair.target());
        let named: Vec<&Found> = found.iter().filter(|found| !found.key.values.is_empty()).collect();
        let mut have = HashMap::new();
        for part in named.chunks(super::KEYS_PER_QUERY) {
            let values: Vec<&[Value]> = part.iter().map(|found| self.pair.source_key(&found.key)).collect();
            for row in self.origin.rows(source, &values).await? {
                for carried in self.pair.made_of(&row) {
                    have.insert(self.copy.key(self.pair, &carried).text, row.clone());
                }
            }
        }
        let (mut keys, mut gone) = (Vec::new(), Vec::new());
        for Found { key, extra } in named {
            match have.get(&key.text) {
                Some(row) => keys.extend(key_of_row(source, row)),
                None if *extra => {
                    let values = self.pair.source_key(key);
                    if self.origin.rows(source, &[values]).await?.is_empty() {
                        gone.extend(key_of(source, self.pair.source_columns(), target, values));
                    } else {
                        self.left_out += 1;
                    }
                }
                None => {}
            }
        }
        // A row that became several is journaled once.
        let mut seen = HashSet::new();
        keys.retain(|key: &Json| seen.insert(key.to_string()));
        Ok((keys, gone))
    }
}

fn key_of_row(table: &Table, row: &RowBuf) -> Option<Json> {
    let value = |index: &usize| row.view().get(*index).ok().flatten().map(|value| value.to_value());
    let values: Vec<Value> = table.key.iter().map(value).collect::<Option<_>>()?;
    key_of(table, &table.key, table, &values)
}

/// Values that are as these columns of `written` have them, by the names of the source's key.
fn key_of(source: &Table, columns: &[usize], written: &Table, values: &[Value]) -> Option<Json> {
    let mut out = Map::new();
    for ((own, other), value) in source.key.iter().zip(columns).zip(values) {
        let text = base::json::value_text(value, &written.columns[*other]);
        out.insert(source.columns[*own].name.clone(), serde_json::from_str(&text).ok()?);
    }
    Some(Json::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(text: &str) -> FlowConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rows_are_deleted_only_where_they_can_be_nobody_elses() {
        let sink: SinkConfig = serde_json::from_str(r#"{"kind": "mysql", "url": "mysql://x"}"#).unwrap();
        let own = flow(r#"{"from": "s", "to": "k", "route": {"a.*": "b.*"}}"#);
        let why = |flow: &FlowConfig, others: &[(&str, &FlowConfig)]| match Mend::of(
            flow,
            &sink,
            others.iter().copied(),
        ) {
            Mend::Rows { leaves_extra } => leaves_extra.unwrap_or_default(),
            Mend::Nothing => panic!("a repair mends"),
        };
        assert_eq!(why(&own, &[]), "");
        for (text, wanted) in [
            (r#"{"from": "s", "to": "k", "transform": [{"filter": "a = 1"}]}"#, "has a `filter`"),
            (r#"{"from": "s", "to": "k", "route": {"a_*.t": "b.t"}}"#, "several tables into one"),
            (r#"{"from": "s", "to": "k", "route": {"a.*": "b.*", "c.*": "b.*"}}"#, "several tables into one"),
        ] {
            assert!(why(&flow(text), &[]).contains(wanted), "{text}");
        }
        for (text, wanted) in [
            (r#"{"from": "s", "to": "k", "route": {"a.*": "b.*"}, "tables": ["a.t"]}"#, ""),
            (r#"{"from": "t", "to": "k", "route": {"a.*": "b.*"}}"#, "which has the same sink"),
            (r#"{"from": "s", "to": "k"}"#, "which has the same sink"),
            (r#"{"from": "s", "to": "l"}"#, ""),
            (r#"{"from": "s", "to": "l", "options": {"format": "debezium"}}"#, "Debezium's deletes"),
            (r#"{"from": "t", "to": "l", "options": {"format": "debezium"}}"#, ""),
        ] {
            let told = why(&own, &[("other", &flow(text))]);
            assert!(told.contains(wanted) && told.is_empty() == wanted.is_empty(), "{text}: {told}");
        }
    }
}
