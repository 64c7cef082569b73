//! What a flow must know of its last run, in the engine: a row a table of the source in `tidemill_collect`, written in the
//! transaction of the rows that it speaks of.
//!
//! ```text
//! flow  varchar(64), tbl varchar(191)    which table of the source
//! state longtext                         JSON of [`State`]
//! run   bigint, at_ms bigint             who wrote it, and when
//! ```

use crate::error::CollectError;
use crate::plan::Shape;
use base::{Column, ColumnType, Generated, Value};
use engine::{Engine, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

pub const STATE_TABLE: &str = "tidemill_collect";
/// Tables of one flow.
const TABLES_MAX: usize = 10_000;
/// Characters of a table's name in a key.
const TABLE_CHARS_MAX: usize = 191;

/// What is known of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The dataset's table that it speaks of.
    pub target: String,
    pub shape: Shape,
    /// The largest cursor whose rows are all in the dataset but for those of the same value: these are told apart by looking.
    #[serde(default)]
    pub bookmark: Option<String>,
}

/// Makes the table where it is not there.
pub async fn prepare(engine: &dyn Engine) -> Result<(), CollectError> {
    let columns = columns();
    Ok(engine.prepare_own(STATE_TABLE, &columns, &["flow".into(), "tbl".into()]).await?)
}

/// What is known of each table of a flow.
pub async fn load(engine: &dyn Engine, flow: &str) -> Result<BTreeMap<String, State>, CollectError> {
    let sql = format!("SELECT tbl, state FROM {STATE_TABLE} WHERE flow = {}", text_sql(flow));
    let rows = engine.query(&sql).await?.all(TABLES_MAX).await?;
    let mut out = BTreeMap::new();
    for row in rows {
        let [Value::Text(table), Value::Text(state)] = row.as_slice() else {
            return Err(CollectError::Internal(format!("a row of {STATE_TABLE} is damaged")));
        };
        let state = serde_json::from_str(state)
            .map_err(|error| CollectError::Internal(format!("the state of `{table}` is damaged: {error}")))?;
        out.insert(table.clone(), state);
    }
    Ok(out)
}

/// The part of a transaction that notes it.
pub fn put(flow: &str, table: &str, state: &State, run: i64) -> Result<Write, CollectError> {
    let json = serde_json::to_string(state).map_err(|error| CollectError::Internal(error.to_string()))?;
    let row = vec![
        Value::Text(flow.to_owned()),
        Value::Text(key_text(table)),
        Value::Text(json),
        Value::Int(run),
        Value::Int(now_ms()),
    ];
    Ok(Write::Put { table: STATE_TABLE.into(), columns: columns(), rows: vec![row], replace: true })
}

/// A table's name as keys hold it.
pub fn key_text(table: &str) -> String {
    table.chars().take(TABLE_CHARS_MAX).collect()
}

fn columns() -> Vec<Column> {
    vec![
        varchar("flow", 64),
        varchar("tbl", TABLE_CHARS_MAX as u64),
        long_text("state", false),
        bigint("run"),
        bigint("at_ms"),
    ]
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as i64)
}

pub fn varchar(name: &str, chars: u64) -> Column {
    own(name, ColumnType::Text { chars_max: chars }, &format!("varchar({chars})"), false)
}

pub fn long_text(name: &str, nullable: bool) -> Column {
    own(name, ColumnType::Text { chars_max: 4_294_967_295 }, "longtext", nullable)
}

pub fn bigint(name: &str) -> Column {
    own(name, ColumnType::BigInt { unsigned: false }, "bigint", false)
}

/// A column of a table of ours; texts are told apart by every byte.
fn own(name: &str, ty: ColumnType, sql_type: &str, nullable: bool) -> Column {
    let text = matches!(ty, ColumnType::Text { .. });
    Column {
        name: name.into(),
        ty,
        sql_type: sql_type.into(),
        nullable,
        charset: text.then(|| "utf8mb4".into()),
        collation: text.then(|| "utf8mb4_bin".into()),
        generated: Generated::No,
        invisible: false,
    }
}

/// A text as a literal.
pub fn text_sql(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
