//! What the patterns of a source and its flows reach: a pattern that matches no table is most often a slip, and
//! sometimes a table that is made later. So it is told, and refused by nobody.

use crate::config::{FlowConfig, SourceConfig};
use crate::patterns::wildcard;
use base::TableName;
use base::near::nearest;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names that a message lists; more are only counted.
const NAMES_MAX: usize = 5;

/// The patterns that should match tables of one source.
#[derive(Clone, Debug)]
pub struct Reach {
    source: Arc<str>,
    tables: Vec<String>,
    exclude: Vec<String>,
    /// Each flow of the source, with its own patterns.
    flows: Vec<(String, Vec<String>)>,
}

/// A pattern that matches nothing, and the file that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    pub path: String,
    pub message: String,
}

impl Reach {
    /// Of all `flows`, those that read this source.
    pub fn new<'a>(
        source: &str,
        config: &SourceConfig,
        flows: impl IntoIterator<Item = (&'a String, &'a FlowConfig)>,
    ) -> Self {
        let own = flows.into_iter().filter(|(_, flow)| flow.from == source);
        Self {
            source: source.into(),
            tables: config.tables.clone(),
            exclude: config.exclude.clone(),
            flows: own.map(|(name, flow)| (name.clone(), flow.tables.clone())).collect(),
        }
    }

    /// The tables that are captured, of all that there are.
    pub fn captured(&self, seen: &[TableName]) -> Vec<TableName> {
        let any = |patterns: &[String], name: &TableName| patterns.iter().any(|p| matches(p, name));
        let wanted = seen.iter().filter(|name| any(&self.tables, name) && !any(&self.exclude, name));
        wanted.cloned().collect()
    }

    /// The patterns that match nothing of the tables that there are.
    pub fn idle(&self, seen: &[TableName]) -> Vec<Idle> {
        let mut out = Vec::new();
        for pattern in unmatched(&self.tables, seen) {
            let message = format!("`{pattern}` matches no table{}", near(pattern, seen));
            out.push(Idle { path: format!("sources/{}.yaml", self.source), message });
        }
        let captured = self.captured(seen);
        for (flow, patterns) in &self.flows {
            for pattern in unmatched(patterns, &captured) {
                let source = &self.source;
                let rest = near(pattern, &captured);
                let message =
                    format!("`{pattern}` matches no table that the source `{source}` captures{rest}");
                out.push(Idle { path: format!("flows/{flow}.yaml"), message });
            }
        }
        out
    }

    /// Logs each of them; for the start of a capture.
    pub(crate) fn warn(&self, seen: &[TableName]) {
        for Idle { path, message } in self.idle(seen) {
            tracing::warn!(source = %self.source, file = path, reason = message, "a pattern matches nothing");
        }
    }
}

fn unmatched<'a>(patterns: &'a [String], seen: &[TableName]) -> impl Iterator<Item = &'a String> {
    patterns.iter().filter(|pattern| !seen.iter().any(|name| matches(pattern, name)))
}

fn matches(pattern: &str, name: &TableName) -> bool {
    let halves = pattern.split_once('.');
    halves.is_some_and(|(db, table)| wildcard(db, &name.db) && wildcard(table, &name.table))
}

/// What there is instead, beginning with punctuation: the name that was probably meant, or the first few.
fn near(pattern: &str, seen: &[TableName]) -> String {
    let Some((db, table)) = pattern.split_once('.') else { return String::new() };
    let beside: BTreeSet<&str> =
        seen.iter().filter(|name| wildcard(db, &name.db)).map(|name| name.table.as_str()).collect();
    if !beside.is_empty() {
        return match nearest(table, beside.iter().copied()) {
            Some(meant) => format!(": did you mean `{db}.{meant}`?"),
            None => format!("; `{db}` has {}", listed(&beside)),
        };
    }
    let databases: BTreeSet<&str> = seen.iter().map(|name| name.db.as_str()).collect();
    match nearest(db, databases.iter().copied()) {
        Some(meant) => format!(": did you mean `{meant}.{table}`?"),
        None if databases.is_empty() => "; there is none that we may see".to_owned(),
        None => format!("; the databases with tables are {}", listed(&databases)),
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    let first: Vec<_> = names.iter().take(NAMES_MAX).copied().collect();
    let more = names.len() - first.len();
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(", ") + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(tables: &[&str], flow: &[&str]) -> Reach {
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        Reach {
            source: "main".into(),
            tables: list(tables),
            exclude: list(&["shop.tmp_*"]),
            flows: vec![("out".into(), list(flow))],
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_told_with_what_is_near() {
        let seen = [("crm", "users"), ("shop", "orders"), ("shop", "products"), ("shop", "tmp_1")]
            .map(|(db, table)| TableName::new(db, table));
        let told = |reach: &Reach| {
            reach.idle(&seen).into_iter().map(|i| format!("{} {}", i.path, i.message)).collect::<Vec<_>>()
        };
        let fine = reach(&["shop.*"], &["shop.orders", "*.pro*"]);
        assert_eq!(told(&fine), Vec::<String>::new());
        assert_eq!(fine.captured(&seen), seen[1..3]);
        assert_eq!(
            told(&reach(&["shpo.*", "shop.order", "shop.x*", "far_away.*", "crm.*"], &[])),
            [
                "sources/main.yaml `shpo.*` matches no table: did you mean `shop.*`?",
                "sources/main.yaml `shop.order` matches no table: did you mean `shop.orders`?",
                "sources/main.yaml `shop.x*` matches no table; `shop` has orders, products, tmp_1",
                "sources/main.yaml `far_away.*` matches no table; the databases with tables are crm, shop",
            ]
        );
        assert_eq!(
            told(&reach(&["shop.*"], &["crm.users"])),
            [
                "flows/out.yaml `crm.users` matches no table that the source `main` captures; the databases with tables \
              are shop"
            ]
        );
        let alone = reach(&["shop.*"], &[]).idle(&[]);
        assert!(alone[0].message.ends_with("none that we may see"), "{alone:?}");
    }
}
