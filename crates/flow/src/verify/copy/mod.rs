//! The sink's side: its rows, by where the flow writes them. One file for each kind of sink.
//!
//! Where a row is and what it looks like there is asked of the sink's own planner, so that both have one truth.

pub(crate) mod document;
mod elasticsearch;
mod kafka;
mod redis;
mod sql;
mod sqlite;

use super::{Cells, Key, Pair, Sum, VerifyError};
use crate::config::{FlowConfig, SinkConfig, SinkKind};
use crate::deliver::sink::SinkError;
use async_trait::async_trait;
use base::{Column, RowBuf, Table, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where the next keys begin.
pub enum Cursor {
    Key(RowBuf),
    Row(i64),
    Page(String),
    Scan(u64),
}

/// A table as the sink has it.
pub enum Described {
    /// Column by column; `None` where it lacks one. And whether its rows are known by the same key.
    Table { declared: Vec<Option<Column>>, keyed: bool },
    /// Why it cannot be compared.
    Unfit(String),
}

/// The rows of a sink.
#[async_trait]
pub trait Copy: Send {
    async fn describe(&mut self, table: &Arc<Table>) -> Result<Described, VerifyError>;

    /// A table of the flow, compared or not: the rows of two may be in one place. All are told first.
    fn note(&mut self, _table: &Arc<Table>) {}

    /// Where the sink has a row of the flow.
    fn key(&self, pair: &Pair, row: &[Value]) -> Key;

    /// What the sink has there.
    fn expected(&self, pair: &Pair, row: &[Value]) -> Cells;

    /// Rows by [`Key::text`].
    async fn rows(&mut self, pair: &Pair, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError>;

    /// Those of these rows that the sink lacks, or has otherwise.
    async fn differing(&mut self, pair: &Pair, rows: &[(Key, Cells)]) -> Result<Vec<Key>, VerifyError> {
        let keys: Vec<&Key> = rows.iter().map(|(key, _)| key).collect();
        let have = self.rows(pair, &keys).await?;
        let differ = rows.iter().filter(|(key, cells)| have.get(&key.text) != Some(cells));
        Ok(differ.map(|(key, _)| key.clone()).collect())
    }

    /// What it has, about `limit` keys at a time in its own order; the cursor is `None` at the end.
    async fn keys(
        &mut self,
        pair: &Pair,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<(Vec<Key>, Option<Cursor>), VerifyError>;

    /// The sum of all rows of a table whose rows have no key.
    async fn sum(&mut self, pair: &Pair) -> Result<Sum, VerifyError>;

    /// What is not looked at in this table, and is no difference.
    fn unchecked(&mut self, _pair: &Pair) -> Option<String> {
        None
    }
}

/// Connects to the sink of a flow.
pub async fn connect(
    source: &str,
    flow_name: &str,
    sink: &SinkConfig,
    flow: &FlowConfig,
) -> Result<Box<dyn Copy>, VerifyError> {
    Ok(match sink.kind {
        SinkKind::Mysql | SinkKind::Tidb => Box::new(sql::Sql::connect(sink).await?),
        SinkKind::Sqlite => Box::new(sqlite::Sqlite::connect(sink)?),
        SinkKind::Elasticsearch => {
            Box::new(elasticsearch::Documents::connect(source, flow_name, sink, flow)?)
        }
        SinkKind::Redis => Box::new(redis::Keys::connect(source, flow_name, sink, flow).await?),
        SinkKind::Kafka => Box::new(kafka::Replay::new(source, flow_name, sink, flow)?),
        SinkKind::Nats | SinkKind::Files | SinkKind::Http | SinkKind::Stdout => {
            return Err(super::unsupported(format!("the sink `{}` keeps changes, not rows", flow.to)));
        }
    })
}

fn of_sink(error: SinkError) -> VerifyError {
    match error {
        SinkError::Blocked { message, hint } => VerifyError::Plan { message, hint },
        error => super::sink_error(&error),
    }
}

fn placeless() -> VerifyError {
    VerifyError::Sink { message: "it has no place".to_owned() }
}

/// A table of a SQL sink beside the flow's; `None` when it has none of that name.
fn described(table: &Table, live: Option<&Table>) -> Described {
    let Some(live) = live else { return Described::Unfit("the sink has no such table".to_owned()) };
    let find = |name: &str| live.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)).cloned();
    let names = |table: &Table| -> HashSet<String> {
        table.key.iter().map(|index| table.columns[*index].name.to_lowercase()).collect()
    };
    // A narrower key of the target names rows of ours all the more.
    let keyed = !table.key.is_empty() && !live.key.is_empty() && names(live).is_subset(&names(table));
    Described::Table { declared: table.columns.iter().map(|column| find(&column.name)).collect(), keyed }
}
