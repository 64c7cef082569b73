//! Rows that were put aside, in the engine's table `tidemill_rejected`, so that they can be looked at, mended and tried again.
//!
//! ```text
//! flow, tbl   which table of the source         place   where it stood: a line, the number of the row
//! hash        of the row: the same bad row is   row_key the values of the key
//!             kept once, however often it comes data    JSON of the row by the dataset's names, or NULL
//! run, at_ms  who put it aside, and when        text    what could not be read as a row, or NULL
//! reason      why
//! ```

use crate::config::{CollectConfig, Mode};
use crate::digest;
use crate::error::CollectError;
use crate::plan::Plan;
use crate::reader::{BAD_TEXT_MAX, BadRow};
use crate::state::{self, State, bigint, key_text, long_text, now_ms, text_sql, varchar};
use crate::table::name_sql_of;
use base::{Column, ColumnType, Generated, Value};
use engine::{Engine, Fit, Write, name_sql};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

pub const REJECTED_TABLE: &str = "tidemill_rejected";
/// Rows of one table that are kept. More are counted only, and fail a run in mode `cursor`.
pub const ROWS_KEPT_MAX: usize = 10_000;
/// Bytes of a row that is kept whole.
const ROW_BYTES_MAX: usize = 64 << 10;
/// Bytes of all that is kept of one table in a run.
const BYTES_KEPT_MAX: usize = 64 << 20;
const PLACE_CHARS_MAX: usize = 255;
const REASON_CHARS_MAX: usize = 1024;

/// What is put aside in a run, until a transaction takes it.
pub struct Rejected {
    flow: String,
    table: String,
    run: i64,
    /// Hashes of the rows that are kept already or wait.
    kept: HashSet<String>,
    bytes: usize,
    waiting: Vec<Vec<Value>>,
    /// All of this run, kept or not.
    pub count: u64,
    /// Of those, the ones that found no room.
    pub lost: u64,
    pub first: Option<String>,
}

pub async fn prepare(engine: &dyn Engine) -> Result<(), CollectError> {
    let key = ["flow".into(), "tbl".into(), "hash".into()];
    Ok(engine.prepare_own(REJECTED_TABLE, &columns(), &key).await?)
}

fn columns() -> Vec<Column> {
    vec![
        varchar("flow", 64),
        varchar("tbl", 191),
        varchar("hash", 32),
        bigint("run"),
        bigint("at_ms"),
        varchar("place", PLACE_CHARS_MAX as u64),
        long_text("row_key", false),
        long_text("data", true),
        long_text("text", true),
        varchar("reason", REASON_CHARS_MAX as u64),
    ]
}

fn of_table(flow: &str, table: &str) -> String {
    format!("flow = {} AND tbl = {}", text_sql(flow), text_sql(&key_text(table)))
}

impl Rejected {
    /// `anew`: the run reads every row, so that what was put aside before is forgotten.
    pub async fn open(
        engine: &dyn Engine,
        flow: &str,
        table: &str,
        run: i64,
        anew: bool,
    ) -> Result<Self, CollectError> {
        let filter = of_table(flow, table);
        let mut kept = HashSet::new();
        if anew {
            engine.execute(&format!("DELETE FROM {REJECTED_TABLE} WHERE {filter}")).await?;
        } else {
            let sql = format!("SELECT hash FROM {REJECTED_TABLE} WHERE {filter} LIMIT {ROWS_KEPT_MAX}");
            for row in engine.query(&sql).await?.all(ROWS_KEPT_MAX).await? {
                kept.extend(row.into_iter().filter_map(|value| match value {
                    Value::Text(hash) => Some(hash),
                    _ => None,
                }));
            }
        }
        Ok(Self {
            flow: flow.into(),
            table: table.into(),
            run,
            kept,
            bytes: 0,
            waiting: Vec::new(),
            count: 0,
            lost: 0,
            first: None,
        })
    }

    /// A row that has no place in the dataset.
    pub fn row(&mut self, plan: &Plan, place: u64, row: &[Value], reason: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| reason.to_owned());
        let told = plan.told(row);
        let key: Vec<String> = plan.shape.key.iter().map(|name| json_text(told.get(name))).collect();
        let json = serde_json::Value::Object(told).to_string();
        self.keep(&format!("row {place}"), key.join(", "), Some(json), None, reason);
    }

    /// One that fits, and that the engine refused all the same.
    pub fn fitted(&mut self, plan: &Plan, place: u64, row: &[Value], reason: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| reason.to_owned());
        let names = plan.shape.columns.iter().map(|it| it.name.clone());
        let data: serde_json::Map<_, _> = names.zip(row.iter().map(digest::json)).collect();
        let json = serde_json::Value::Object(data).to_string();
        self.keep(&format!("row {place}"), plan.key_text(row), Some(json), None, reason);
    }

    /// What was no row.
    pub fn bad(&mut self, bad: &BadRow) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{}: {}", bad.place, bad.reason));
        self.keep(&bad.place, String::new(), None, Some(cut(&bad.text, BAD_TEXT_MAX)), &bad.reason);
    }

    fn keep(&mut self, place: &str, key: String, json: Option<String>, text: Option<String>, reason: &str) {
        let (json, text) = match json {
            // A part of a row cannot be tried again.
            Some(json) if json.len() > ROW_BYTES_MAX => (None, Some(cut(&json, BAD_TEXT_MAX))),
            json => (json, text),
        };
        let place: String = place.chars().take(PLACE_CHARS_MAX).collect();
        let mut hash = Sha256::new();
        // What stands there is told by its content; rows in part by their key as well, and unreadable lines by their place.
        hash.update(json.as_deref().unwrap_or(if key.is_empty() { &place } else { &key }));
        hash.update(text.as_deref().unwrap_or_default());
        let hash: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        if self.kept.contains(&hash) {
            return;
        }
        if self.kept.len() >= ROWS_KEPT_MAX || self.bytes >= BYTES_KEPT_MAX {
            self.lost += 1;
            return;
        }
        self.kept.insert(hash.clone());
        self.bytes += json.as_ref().or(text.as_ref()).map_or(0, String::len);
        self.waiting.push(vec![
            Value::Text(self.flow.clone()),
            Value::Text(key_text(&self.table)),
            Value::Text(hash),
            Value::Int(self.run),
            Value::Int(now_ms()),
            Value::Text(place),
            Value::Text(cut(&key, BAD_TEXT_MAX)),
            json.map_or(Value::Null, Value::Text),
            text.map_or(Value::Null, Value::Text),
            Value::Text(reason.chars().take(REASON_CHARS_MAX).collect()),
        ]);
    }

    /// Whether so much waits that it should not wait longer.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= 256
    }

    /// What waits, as a part of a transaction; [`Rejected::written`] says that it was done.
    pub fn waiting(&self) -> Option<Write> {
        let (table, columns) = (REJECTED_TABLE.into(), columns());
        let rows = self.waiting.clone();
        (!rows.is_empty()).then_some(Write::Put { table, columns, rows, replace: true })
    }

    pub fn written(&mut self) {
        self.waiting.clear();
    }
}

/// What [`digest::json`] made, as a text for people.
fn json_text(value: Option<&serde_json::Value>) -> String {
    let text = value.and_then(|it| it.as_str().or_else(|| hex_of(it)));
    text.unwrap_or_default().to_owned()
}

fn hex_of(value: &serde_json::Value) -> Option<&str> {
    value.get("hex")?.as_str()
}

fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What became of rows that were tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryReport {
    /// Now in the dataset.
    pub written: u64,
    /// The dataset has a newer row of the same key.
    pub superseded: u64,
    /// Bad as before, or nothing that could be tried.
    pub left: u64,
}

/// Tries rows of a `cursor` flow again that were put aside: the other modes read every row anew anyway.
pub async fn retry(
    flow: &str,
    config: &CollectConfig,
    engine: &dyn Engine,
) -> Result<RetryReport, CollectError> {
    state::prepare(engine).await?;
    prepare(engine).await?;
    let mut report = RetryReport::default();
    if config.mode != Mode::Cursor {
        return Ok(report);
    }
    for (table, state) in state::load(engine, flow).await? {
        retry_table(flow, config, engine, &table, &state, &mut report).await?;
    }
    Ok(report)
}

pub(crate) async fn retry_table(
    flow: &str,
    config: &CollectConfig,
    engine: &dyn Engine,
    table: &str,
    state: &State,
    report: &mut RetryReport,
) -> Result<(), CollectError> {
    let filter = of_table(flow, table);
    let sql = format!("SELECT hash, data FROM {REJECTED_TABLE} WHERE {filter} ORDER BY at_ms, hash");
    let mut rows = engine.query(&sql).await?;
    let mut all = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = rows.next().await? {
        for row in batch {
            let [Value::Text(hash), data] = row.as_slice() else { continue };
            let Value::Text(data) = data else {
                report.left += 1;
                continue;
            };
            bytes += data.len();
            if bytes > BYTES_KEPT_MAX {
                break;
            }
            all.push((hash.clone(), data.clone()));
        }
    }
    let fits: Vec<Fit> =
        state.shape.columns.iter().map(|column| Fit::new(&text_column(column), column)).collect();
    let cursor = config.cursor.as_ref().map(|name| config.rename.get(name).unwrap_or(name));
    for (hash, data) in all {
        let Some(row) = read(&data, &fits) else {
            report.left += 1;
            continue;
        };
        let forget =
            Write::Sql(format!("DELETE FROM {REJECTED_TABLE} WHERE {filter} AND hash = {}", text_sql(&hash)));
        let is_null = |name: &String| {
            state
                .shape
                .columns
                .iter()
                .zip(&row)
                .any(|(it, value)| it.name.eq_ignore_ascii_case(name) && value.is_null())
        };
        if cursor.is_some_and(is_null) {
            report.left += 1;
            continue;
        }
        if is_superseded(engine, state, cursor, &row).await? {
            engine.write(vec![forget]).await?;
            report.superseded += 1;
            continue;
        }
        let columns = state.shape.columns.clone();
        let replace = !state.shape.key.is_empty();
        let put = Write::Put { table: state.target.clone(), columns, rows: vec![row], replace };
        match engine.write(vec![put, forget]).await {
            Ok(_) => report.written += 1,
            Err(error) if crate::table::is_of_row(&error) => report.left += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The column that the JSON's texts have.
fn text_column(column: &Column) -> Column {
    Column {
        ty: ColumnType::Text { chars_max: 4_294_967_295 },
        sql_type: "longtext".into(),
        generated: Generated::No,
        collation: None,
        ..column.clone()
    }
}

fn read(data: &str, fits: &[Fit]) -> Option<Vec<Value>> {
    let data: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data).ok()?;
    let is_of = |name: &str, fit: &Fit| fit.to().name.eq_ignore_ascii_case(name);
    // What has no place in the dataset would be lost.
    if data.keys().any(|name| !fits.iter().any(|fit| is_of(name, fit))) {
        return None;
    }
    let value = |fit: &Fit| {
        let binary = matches!(fit.to().ty, ColumnType::Binary { .. } | ColumnType::VarBinary { .. });
        match data.iter().find(|(name, _)| is_of(name, fit)).map(|(_, value)| value) {
            // A text that was no bytes then is not taken for their digits now.
            Some(serde_json::Value::String(_)) if binary => None,
            Some(serde_json::Value::String(text)) => fit.value(Value::Text(text.clone())).ok(),
            Some(value @ serde_json::Value::Object(_)) => {
                let bytes = Value::Bytes(bytes_of(hex_of(value)?)?);
                if binary { Some(bytes) } else { fit.value(bytes).ok() }
            }
            _ => fit.value(Value::Null).ok(),
        }
    };
    fits.iter().map(value).collect()
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// Whether the dataset has the row of this key, as new or newer.
async fn is_superseded(
    engine: &dyn Engine,
    state: &State,
    cursor: Option<&String>,
    row: &[Value],
) -> Result<bool, CollectError> {
    if state.shape.key.is_empty() {
        return Ok(false);
    }
    let place = |name: &str| state.shape.columns.iter().position(|it| it.name.eq_ignore_ascii_case(name));
    let mut terms = Vec::new();
    for name in &state.shape.key {
        let Some(value) = place(name).and_then(|at| literal(&row[at])) else { return Ok(false) };
        terms.push(format!("{} = {value}", name_sql_of(name)));
    }
    if let Some((name, at)) = cursor.and_then(|name| Some((name, place(name)?))) {
        let Some(value) = literal(&row[at]) else { return Ok(false) };
        terms.push(format!("{} >= {value}", name_sql_of(name)));
    }
    let sql = format!("SELECT 1 AS n FROM {} WHERE {} LIMIT 1", name_sql(&state.target), terms.join(" AND "));
    Ok(!engine.query(&sql).await?.all(1).await?.is_empty())
}

/// A value in SQL; `None` for what has no literal here.
pub fn literal(value: &Value) -> Option<String> {
    let text = digest::text(value)?;
    Some(match value {
        Value::Int(_) | Value::UInt(_) | Value::Year(_) | Value::Decimal(_) => text,
        Value::Bytes(_) => format!("X'{text}'"),
        _ => text_sql(&text),
    })
}
