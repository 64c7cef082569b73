//! Whether a sink holds what its source holds, while both move.
//!
//! Rows are compared as the flow would write them: read from the source by key, put through the flow's transform, and read
//! from the sink by the same keys; then the sink's keys are looked for in the source. What differs at first sight may only
//! be on its way. It is looked at again: the source's row, then, once the flow has delivered all that the source had by
//! then, the sink's row, then the source's row once more. When the source's row was the same both times, the sink's must
//! equal it; a difference that is seen twice so is one.

mod carried;
pub(crate) mod copy;
pub(crate) mod origin;
mod repair;

use crate::capture::mysql::window;
use crate::config::{FlowConfig, SinkConfig, SourceConfig, TransformStep};
use crate::nest::Expected;
use crate::patterns::Patterns;
use crate::transform::{TablePlan, Transform};
use async_trait::async_trait;
use base::{Blame, Code, Column, ColumnType, Fault, Position, Retry, Table, Value, ValueRef};
use copy::{Copy, Described};
use kafka_protocol::records::Record;
use origin::{Doubt, Origin};
use repair::Found;
use serde::Serialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use origin::Known;
pub use repair::Mend;

/// Rows of the source that are compared at once.
const CHUNK_ROWS: u64 = 1000;
/// Keys of one query.
const KEYS_PER_QUERY: usize = 250;
/// Looks at one row that keeps changing; after these it is undecided.
const LOOKS_MAX: u32 = 12;
/// Looks that must agree before a difference is one.
const LOOKS_AGREEING: u32 = 2;
/// Differing rows of a table that are looked at again; more say that the table is no copy.
const SUSPECTS_MAX: usize = 100_000;
/// How long brokers may bring nothing new before the end that they told: a transaction that is open is ended by the flow
/// within seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Differences of a table that are told with both rows.
const EXAMPLES_MAX: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{message}")]
    Unsupported { message: String, hint: String },
    #[error("failed to read the source")]
    Source(#[source] crate::capture::CaptureError),
    #[error("failed to read the sink: {message}")]
    Sink { message: String },
    #[error("{message}")]
    Plan { message: String, hint: String },
    /// The flow does not deliver.
    #[error("{message}")]
    Stalled { message: String },
    #[error("failed to repair table `{table}`: {message}")]
    Repair { table: String, message: String },
    #[error("failed to keep the topics' rows in the data folder: {message}")]
    Scratch { message: String },
}

/// How far a source was at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    Server(window::Mark),
    /// By topic and partition: the offset of the next record.
    Offsets(BTreeMap<String, Vec<i64>>),
}

impl Fault for VerifyError {
    fn code(&self) -> Code {
        match self {
            Self::Unsupported { .. } | Self::Plan { .. } => Code::Invalid,
            Self::Source(_) | Self::Sink { .. } | Self::Stalled { .. } => Code::Unavailable,
            Self::Scratch { .. } | Self::Repair { .. } => Code::FailedPrecondition,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Unsupported { .. } | Self::Plan { .. } => Blame::Client,
            Self::Scratch { .. } => Blame::Us,
            _ => Blame::Upstream,
        }
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { hint, .. } | Self::Plan { hint, .. } => Some(hint.clone()),
            Self::Stalled { .. } => Some("see `tidemill status`".into()),
            Self::Source(error) => error.hint.clone(),
            Self::Scratch { .. } => Some("is there room in `data_dir`, and may it be written?".into()),
            Self::Repair { .. } => Some("nothing is lost: repeat it when the cause is gone".into()),
            Self::Sink { .. } => None,
        }
    }
}

/// Knows how far the flow is.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Waits until the sink has all that `mark` covers.
    async fn delivered(&self, mark: &Mark) -> Result<(), VerifyError>;

    /// The keys of rows that have a parked change, as `(table in the sink, key as JSON)`.
    async fn parked(&self) -> Result<HashSet<(String, String)>, VerifyError>;

    /// Has rows of a source's table journaled again, by their keys, and those that it has not as deleted if `deletes`. Up to
    /// which lsn they are.
    async fn repair(&self, table: &str, keys: &[Json], deletes: bool) -> Result<u64, VerifyError>;

    /// Waits until the sink has all up to this lsn.
    async fn delivered_to(&self, lsn: u64) -> Result<(), VerifyError>;

    /// Rows of the source have been compared: of this table, of about so many.
    fn progress(&self, table: &str, rows: u64, of: u64);
}

/// One table's outcome.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableReport {
    /// In the source.
    pub table: String,
    /// In the sink.
    pub copy: String,
    /// Rows of the source that the flow carries.
    pub rows: u64,
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// Rows that changed at each look.
    pub undecided: u64,
    /// Rows that differ and have a parked change: see `tidemill flow dead-letters`.
    pub parked: u64,
    /// Rows that differed, and were repaired: the counts are of what still differs.
    pub repaired: u64,
    /// Why rows were left as they are.
    pub unrepaired: Option<String>,
    /// Some of the differences.
    pub differences: Vec<Difference>,
    /// Why the table was not compared whole.
    pub note: Option<String>,
    /// What this kind of sink cannot tell of the table; no difference.
    pub unchecked: Option<String>,
}

impl TableReport {
    /// Whether nothing differs and nothing is open.
    pub fn is_equal(&self) -> bool {
        self.missing + self.extra + self.different + self.undecided + self.parked == 0 && self.note.is_none()
    }
}

/// A row that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub kind: &'static str,
    pub key: Json,
    /// Whether the row is as it should be by now.
    pub repaired: bool,
    /// By column, as they are compared; `null` where there is no row.
    pub source: Option<BTreeMap<String, String>>,
    pub sink: Option<BTreeMap<String, String>>,
}

/// A row in the form that is compared: each column's text, `None` for NULL.
pub type Cells = Vec<Option<String>>;

/// The records of a part of a partition that must be read. Where a message says nothing of other keys than its own, those that
/// a later one of their key follows need not be: to read a message takes far longer than to fetch it.
fn decisive(records: &[Record], alone: bool) -> impl Iterator<Item = &Record> {
    let mut last: HashMap<&[u8], i64> = HashMap::new();
    for record in records.iter().filter(|record| alone && record.value.is_some()) {
        last.extend(record.key.as_deref().map(|key| (key, record.offset)));
    }
    records.iter().filter(move |record| {
        let newest = record.key.as_deref().and_then(|key| last.get(key));
        record.value.is_none() || newest.is_none_or(|newest| record.offset >= *newest)
    })
}

/// Where the sink has a row.
#[derive(Clone, Debug, Default)]
pub struct Key {
    /// Tells it from all others of its table.
    text: String,
    /// The values of the flow's key, as the sink has them. Empty when what the sink has there names no row.
    values: Vec<Value>,
    /// The name of the document or key, where the sink has such. Empty when a row has no place there.
    place: Vec<u8>,
    /// The document's routing.
    routing: Option<String>,
}

impl Key {
    fn of_values(text: String, values: Vec<Value>) -> Self {
        Self { text, values, ..Self::default() }
    }

    /// A row of which the sink can have nothing.
    fn nowhere(pair: &Pair, values: Vec<Value>) -> Self {
        let key = Self { values, ..Self::default() };
        Self { text: format!("nowhere: {}", pair.key_json(&key)), ..key }
    }
}

/// One table on both sides.
pub struct Pair {
    source: Arc<Table>,
    plan: TablePlan,
    /// The flow's table, with what is nested in it.
    target: Arc<Table>,
    nested: Option<Expected>,
    /// The flow's table as the sink declares it, column by column; `None` where it lacks one.
    declared: Vec<Option<Column>>,
    keyed: bool,
}

impl Pair {
    fn target(&self) -> &Arc<Table> {
        &self.target
    }

    /// The key as the source has it: a flow keeps its columns in their order and may rename them, and the column of `origin` and
    /// the place among the elements of a list are not of the source.
    fn source_key<'a>(&self, key: &'a Key) -> &'a [Value] {
        let whose = usize::from(self.plan.origin().is_some()).min(key.values.len());
        let end = key.values.len() - usize::from(self.plan.splits()).min(key.values.len() - whose);
        &key.values[whose..end]
    }

    /// The columns of the flow's key that the source's key has, in its order.
    fn source_columns(&self) -> &[usize] {
        let whose = usize::from(self.plan.origin().is_some());
        &self.target.key[whose..self.target.key.len() - usize::from(self.plan.splits())]
    }

    /// A key as a parked change of its whole row has it, where a row becomes several.
    fn whole_json(&self, key: &Json) -> Option<Json> {
        let place = self.target.key.last().filter(|_| self.plan.splits())?;
        let mut whole = key.as_object()?.clone();
        whole.remove(&self.target.columns[*place].name);
        Some(Json::Object(whole))
    }

    /// As our change format has it.
    fn key_json(&self, key: &Key) -> Json {
        let table = self.target();
        if key.values.is_empty() {
            return Json::String(key.text.clone());
        }
        let cells = table.key.iter().zip(&key.values).map(|(index, value)| {
            let column = &table.columns[*index];
            let text = base::json::value_text(value, column);
            (column.name.clone(), serde_json::from_str(&text).unwrap_or(Json::Null))
        });
        Json::Object(cells.collect())
    }

    /// The values of the flow's key in one of its rows.
    fn key_values(&self, row: &[Value]) -> Vec<Value> {
        self.target().key.iter().map(|index| row[*index].clone()).collect()
    }

    fn named(&self, cells: &Cells) -> BTreeMap<String, String> {
        let names = self.target().columns.iter().map(|column| column.name.clone());
        names.zip(cells.iter().map(|cell| cell.clone().unwrap_or_else(|| "NULL".to_owned()))).collect()
    }
}

fn sink_error(error: &(dyn std::error::Error + 'static)) -> VerifyError {
    VerifyError::Sink { message: base::error::chain(error) }
}

fn unsupported(message: String) -> VerifyError {
    VerifyError::Unsupported {
        message,
        hint: "verify compares mysql and kafka sources with mysql, tidb, sqlite, elasticsearch, redis and kafka sinks".into(),
    }
}

fn text_of(cells: &Cells) -> String {
    serde_json::to_string(cells).unwrap_or_default()
}

/// A value as it would be read back from a column that the sink declares so.
fn cell(value: &Value, column: &Column, declared: Option<&Column>) -> Option<String> {
    if *value == Value::Null {
        return None;
    }
    let stored = declared.map(|column| &column.ty);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Some(match value {
        // A server without these types keeps their bytes.
        Value::Geometry(bytes) if stored != Some(&ColumnType::Geometry) => hex(bytes),
        Value::Vector(bytes) if !matches!(stored, Some(ColumnType::Vector { .. })) => hex(bytes),
        Value::Bytes(bytes) => hex(bytes),
        Value::Timestamp(at) if matches!(stored, Some(ColumnType::DateTime { .. })) => {
            let place = base::value::timestamp_to_datetime(*at);
            base::json::value_text(&Value::DateTime(place), declared.unwrap_or(column))
        }
        // Servers space and order objects differently.
        Value::Json(text) => match serde_json::from_str::<Json>(text) {
            Ok(json) => json.to_string(),
            Err(_) => text.clone(),
        },
        value => base::json::value_text(value, column),
    })
}

/// A flow's source.
pub struct SourceEnd<'a> {
    pub name: &'a str,
    pub config: &'a SourceConfig,
    pub known: Known,
}

/// A flow's two ends.
pub struct Ends {
    origin: Box<dyn Origin>,
    copy: Box<dyn Copy>,
    pairs: Vec<Pair>,
    /// Tables that cannot be compared: their names here and there, and why.
    unfit: Vec<(String, String, String)>,
    /// Whether rows are left out by what came before them.
    dedups: bool,
}

impl Ends {
    /// Connects to both ends and pairs their tables; `only` chooses among the source's, all when empty.
    pub async fn open(
        source: SourceEnd<'_>,
        flow_name: &str,
        sink: &SinkConfig,
        flow: &FlowConfig,
        only: &[String],
        watch: &dyn Watch,
    ) -> Result<Self, VerifyError> {
        let SourceEnd { name: source_name, config: source, known } = source;
        if crate::mirror::is_looked_up_by(flow) {
            return Err(unsupported(
                "a `lookup` in a table answers by the time of delivery, which cannot be asked again"
                    .to_owned(),
            ));
        }
        if flow.options.history {
            return Err(unsupported("a history holds changes, not rows".to_owned()));
        }
        let wrong = |error: &dyn std::fmt::Display| VerifyError::Plan {
            message: error.to_string(),
            hint: "run `tidemill check`".into(),
        };
        let transform = Transform::compile(flow).map_err(|errors| {
            wrong(&errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let all = ["*.*".to_owned()];
        let of_flow = if flow.tables.is_empty() { &all[..] } else { &flow.tables };
        let of_flow = Patterns::new(of_flow, &[]).map_err(|e| wrong(&e))?;
        let only = if only.is_empty() { &all[..] } else { only };
        let only = Patterns::new(only, &[]).map_err(|e| wrong(&e))?;
        let captured = Patterns::new(&source.tables, &source.exclude).map_err(|e| wrong(&e))?;
        let carried = move |name: &base::TableName| captured.matches(name) && of_flow.matches(name);
        let mut copy = copy::connect(source_name, flow_name, sink, flow).await?;
        let mut origin =
            origin::connect(source_name, source, known, Box::new(carried.clone()), watch).await?;
        let nested: Vec<String> = flow.options.nest.values().map(|nest| nest.from.clone()).collect();
        let mut nested_tables = Vec::new();
        if !nested.is_empty() {
            let is_nested = |name: &base::TableName| nested.contains(&name.to_string());
            let found = origin.tables(&is_nested, &is_nested).await?;
            nested_tables = found.into_iter().map(Arc::new).collect::<Vec<Arc<Table>>>();
        }
        let nested_of = || {
            let find =
                |name: &base::TableName| nested_tables.iter().find(|table| table.name == *name).cloned();
            Expected::new(flow, find).map_err(carried::of_nest)
        };
        let (mut pairs, mut unfit) = (Vec::new(), Vec::new());
        let mut chosen = Vec::new();
        for table in origin.tables(&carried, &|name| only.matches(name)).await? {
            let table = Arc::new(table);
            let plan = transform.plan(&table);
            if let Ok(plan) = &plan {
                copy.note(plan.table());
            }
            if only.matches(&table.name) {
                chosen.push((table, plan));
            }
        }
        for (table, plan) in chosen {
            let plan = plan.map_err(|error| VerifyError::Plan {
                message: format!("table `{}`: {error}", table.name),
                hint: error.hint.clone(),
            })?;
            let nested = nested_of()?;
            let target = match &nested {
                Some(nested) => nested.shaped(plan.table()).map_err(carried::of_nest)?,
                None => Arc::clone(plan.table()),
            };
            if let Some(why) = nested.as_ref().and_then(|nested| nested.unfit(&table)) {
                unfit.push((table.name.to_string(), target.name.to_string(), why));
                continue;
            }
            if table.key.is_empty() && plan.origin().is_some() {
                let why = "rows without a key that share a table with others cannot be told apart".to_owned();
                unfit.push((table.name.to_string(), target.name.to_string(), why));
                continue;
            }
            if let Some(why) = origin.unfit(&table) {
                unfit.push((table.name.to_string(), target.name.to_string(), why));
                continue;
            }
            match copy.describe(&target).await? {
                Described::Unfit(why) => unfit.push((table.name.to_string(), target.name.to_string(), why)),
                Described::Table { declared, keyed } => {
                    pairs.push(Pair { source: table, plan, target, nested, declared, keyed });
                }
            }
        }
        let dedups = flow.transform.iter().any(|step| matches!(step, TransformStep::Dedup(_)));
        Ok(Self { origin, copy, pairs, unfit, dedups })
    }

    /// Compares every table, and mends what differs where that is asked for.
    pub async fn compare(&mut self, watch: &dyn Watch, mend: &Mend) -> Result<Vec<TableReport>, VerifyError> {
        let mut reports = Vec::new();
        for (table, copy, why) in self.unfit.clone() {
            reports.push(TableReport { table, copy, note: Some(why), ..TableReport::default() });
        }
        let parked = watch.parked().await?;
        for pair in &self.pairs {
            let report = TableReport {
                table: pair.source.name.to_string(),
                copy: pair.target().name.to_string(),
                ..TableReport::default()
            };
            let (origin, copy) = (self.origin.as_mut(), self.copy.as_mut());
            let mut table = OneTable {
                origin,
                copy,
                pair,
                watch,
                report,
                dedups: self.dedups,
                doubts: BTreeMap::new(),
                mend,
                found: Vec::new(),
                told: Vec::new(),
                is_retelling: false,
                left_out: 0,
            };
            let lacking = pair.target().columns.iter().zip(&pair.declared).find(|(_, have)| have.is_none());
            if let Some((column, _)) = lacking {
                table.report.note = Some(format!("the sink's table has no column `{}`", column.name));
            } else if pair.keyed {
                table.by_key(&parked).await?;
                table.repair(&parked).await?;
            } else {
                table.as_a_whole().await?;
            }
            let (report, doubts) = (table.report, table.doubts);
            let told = doubts.into_iter().map(|(doubt, rows)| format!("{rows} rows {}", doubt.tell()));
            let mut unchecked: Vec<String> = told.collect();
            unchecked.extend(self.origin.unchecked());
            unchecked.extend(self.copy.unchecked(pair));
            let unchecked = (!unchecked.is_empty()).then(|| unchecked.join("; "));
            reports.push(TableReport { unchecked, ..report });
        }
        Ok(reports)
    }
}

struct OneTable<'a> {
    origin: &'a mut dyn Origin,
    copy: &'a mut dyn Copy,
    pair: &'a Pair,
    watch: &'a dyn Watch,
    report: TableReport,
    dedups: bool,
    /// Rows that differ, and may.
    doubts: BTreeMap<Doubt, u64>,
    mend: &'a Mend,
    /// Rows that differ, kept to be mended.
    found: Vec<Found>,
    /// Whose differences the report tells.
    told: Vec<String>,
    /// Whether the report has its differences.
    is_retelling: bool,
    /// Rows that are too much and that the source has: the flow leaves them out.
    left_out: u64,
}

impl OneTable<'_> {
    async fn by_key(&mut self, parked: &HashSet<(String, String)>) -> Result<(), VerifyError> {
        let mut suspects: Vec<Key> = Vec::new();
        self.origin.renew().await?;
        self.scan_source(&mut suspects).await?;
        self.scan_sink(&mut suspects).await?;
        let mut seen = HashSet::new();
        suspects.retain(|key| seen.insert(key.text.clone()));
        if suspects.len() > SUSPECTS_MAX {
            self.report.different += suspects.len() as u64;
            self.report.note = Some(format!("more than {SUSPECTS_MAX} rows differ: it is no copy"));
            return Ok(());
        }
        for keys in suspects.chunks(KEYS_PER_QUERY) {
            self.look_again(keys, parked).await?;
        }
        Ok(())
    }

    /// Every row of the source, against the sink's row of its key.
    async fn scan_source(&mut self, suspects: &mut Vec<Key>) -> Result<(), VerifyError> {
        let estimate = self.origin.estimate(&self.pair.source).await?;
        let mut after = None;
        let mut read = 0;
        loop {
            let chunk = self.origin.chunk(&self.pair.source, after.as_ref(), CHUNK_ROWS).await?;
            read += chunk.len() as u64;
            self.watch.progress(&self.report.table, read, estimate.max(read));
            let mut expected = Vec::with_capacity(chunk.len());
            for carried in self.carried(&chunk).await? {
                for row in carried {
                    let key = self.copy.key(self.pair, &row);
                    expected.push((key, self.copy.expected(self.pair, &row)));
                }
            }
            self.report.rows += expected.len() as u64;
            for part in expected.chunks(KEYS_PER_QUERY) {
                suspects.extend(self.copy.differing(self.pair, part).await?);
            }
            if (chunk.len() as u64) < CHUNK_ROWS || suspects.len() > SUSPECTS_MAX {
                return Ok(());
            }
            after = chunk.into_iter().next_back();
        }
    }

    /// Every key of the sink: whether the source has its row.
    async fn scan_sink(&mut self, suspects: &mut Vec<Key>) -> Result<(), VerifyError> {
        let mut after = None;
        // Where tables are merged into one, the others' rows are not ours to judge.
        let target = self.pair.target();
        let whose = self.pair.plan.origin().zip(target.key.first()).map(|(row, at)| row[*at].clone());
        loop {
            let (mut keys, next) = self.copy.keys(self.pair, after, CHUNK_ROWS).await?;
            keys.retain(|key| whose.as_ref().is_none_or(|whose| key.values.first() == Some(whose)));
            for part in keys.chunks(KEYS_PER_QUERY) {
                let part: Vec<&Key> = part.iter().collect();
                let have = self.source_rows(&part).await?;
                suspects.extend(part.into_iter().filter(|key| !have.contains_key(&key.text)).cloned());
            }
            if next.is_none() || suspects.len() > SUSPECTS_MAX {
                return Ok(());
            }
            after = next;
        }
    }

    async fn source_rows(&mut self, keys: &[&Key]) -> Result<HashMap<String, Cells>, VerifyError> {
        let named = keys.iter().filter(|key| !key.values.is_empty());
        let values: Vec<&[Value]> = named.map(|key| self.pair.source_key(key)).collect();
        let rows = self.origin.rows(&self.pair.source, &values).await?;
        let mut out = HashMap::with_capacity(rows.len());
        for row in self.carried(&rows).await?.into_iter().flatten() {
            out.insert(self.copy.key(self.pair, &row).text, self.copy.expected(self.pair, &row));
        }
        Ok(out)
    }

    /// Source, then sink when it has come so far, then source again, until each row has shown what it is.
    async fn look_again(
        &mut self,
        keys: &[Key],
        parked: &HashSet<(String, String)>,
    ) -> Result<(), VerifyError> {
        let mut open: Vec<(&Key, u32)> = keys.iter().map(|key| (key, 0)).collect();
        for _ in 0..LOOKS_MAX {
            let names: Vec<&Key> = open.iter().map(|(key, _)| *key).collect();
            self.origin.renew().await?;
            let first = self.source_rows(&names).await?;
            let mark = self.origin.mark().await?;
            self.watch.delivered(&mark).await?;
            let have = self.copy.rows(self.pair, &names).await?;
            self.origin.renew().await?;
            let again = self.source_rows(&names).await?;
            let mut left = Vec::new();
            for (key, agreeing) in open {
                let (source, sink) = (first.get(&key.text), have.get(&key.text));
                if source != again.get(&key.text) {
                    left.push((key, 0));
                } else if source != sink {
                    if agreeing + 1 < LOOKS_AGREEING {
                        left.push((key, agreeing + 1));
                    } else {
                        self.tell(key, source, sink, parked)?;
                    }
                }
            }
            open = left;
            if open.is_empty() {
                return Ok(());
            }
        }
        self.report.undecided += open.len() as u64;
        Ok(())
    }

    fn tell(
        &mut self,
        key: &Key,
        source: Option<&Cells>,
        sink: Option<&Cells>,
        parked: &HashSet<(String, String)>,
    ) -> Result<(), VerifyError> {
        let json = self.pair.key_json(key);
        let is_parked = |key: &Json| parked.contains(&(self.report.copy.clone(), key.to_string()));
        if is_parked(&json) || self.pair.whole_json(&json).is_some_and(|whole| is_parked(&whole)) {
            self.report.parked += 1;
            return Ok(());
        }
        let (missing, extra) = (sink.is_none(), source.is_none());
        let of_origin = self.origin.doubt(&self.pair.source, self.pair.source_key(key), missing, extra)?;
        let of_dedup = self.dedups.then_some(if missing { Doubt::Repeat } else { Doubt::Changed });
        if let Some(doubt) = of_origin.or(of_dedup) {
            *self.doubts.entry(doubt).or_default() += 1;
            return Ok(());
        }
        let (kind, count) = match (source, sink) {
            (Some(_), None) => ("missing", &mut self.report.missing),
            (None, _) => ("extra", &mut self.report.extra),
            (Some(_), Some(_)) => ("different", &mut self.report.different),
        };
        *count += 1;
        if *self.mend != Mend::Nothing {
            self.found.push(Found { key: key.clone(), extra });
        }
        if !self.is_retelling && self.report.differences.len() < EXAMPLES_MAX {
            self.told.push(key.text.clone());
            self.report.differences.push(Difference {
                kind,
                repaired: false,
                // A row that is too much is found by its own name.
                key: if kind == "extra" && !key.place.is_empty() { key.text.clone().into() } else { json },
                source: source.map(|cells| self.pair.named(cells)),
                sink: sink.map(|cells| self.pair.named(cells)),
            });
        }
        Ok(())
    }

    /// A table whose rows cannot be told apart: the sums of both sides.
    async fn as_a_whole(&mut self) -> Result<(), VerifyError> {
        for _ in 0..LOOKS_MAX {
            let first = self.source_sum().await?;
            let mark = self.origin.mark().await?;
            self.watch.delivered(&mark).await?;
            let sink = self.copy.sum(self.pair).await?;
            if first != self.source_sum().await? {
                continue;
            }
            self.report.rows = first.rows;
            self.watch.progress(&self.report.table, first.rows, first.rows);
            if first != sink {
                self.report.missing = first.rows.saturating_sub(sink.rows);
                self.report.extra = sink.rows.saturating_sub(first.rows);
                self.report.different = u64::from(first.rows == sink.rows);
                self.report.note = Some("it has no key: which rows differ cannot be told".to_owned());
            }
            return Ok(());
        }
        self.report.note =
            Some("it has no key, and changed at every look: compare it when it is quiet".to_owned());
        Ok(())
    }

    async fn source_sum(&mut self) -> Result<Sum, VerifyError> {
        let mut sum = Sum::default();
        let (pair, copy, total) = (self.pair, &mut *self.copy, &mut sum);
        let mut take = move |row: base::RowBuf| {
            for row in pair.made_of(&row) {
                total.add(&copy.expected(pair, &row));
            }
        };
        self.origin.each(&pair.source, &mut take).await?;
        Ok(sum)
    }
}

/// Rows in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    rows: u64,
    of_digests: u128,
}

impl Sum {
    fn add(&mut self, cells: &Cells) {
        let mut digest = Sha256::new();
        for cell in cells {
            match cell {
                None => digest.update([0]),
                Some(text) => {
                    digest.update([1]);
                    digest.update((text.len() as u64).to_le_bytes());
                    digest.update(text);
                }
            }
        }
        let digest = digest.finalize();
        let half: [u8; 16] = digest[..16].try_into().unwrap_or_default();
        self.rows += 1;
        self.of_digests = self.of_digests.wrapping_add(u128::from_le_bytes(half));
    }
}

/// Whether capture has come to `mark`, by the position that `status` shows of it.
pub fn has_reached(mark: &Mark, shown: &Json) -> bool {
    let mark = match mark {
        Mark::Server(mark) => mark,
        Mark::Offsets(wanted) => {
            let own = |topic: &str, partition: usize| shown["offsets"][topic][partition].as_i64();
            return wanted.iter().all(|(topic, offsets)| {
                offsets.iter().enumerate().all(|(partition, next)| own(topic, partition) >= Some(*next))
            });
        }
    };
    let (server, file) = (String::new(), shown["file"].as_str().unwrap_or_default().to_owned());
    let pos = shown["pos"].as_u64().unwrap_or(0);
    let position = match (mark, shown["gtid"].as_str()) {
        (window::Mark::Maria(_), Some(text)) => match text.parse() {
            Ok(gtids) => Position::MariaDb { server, gtids, file, pos },
            Err(_) => return false,
        },
        (window::Mark::Gtids(_), Some(text)) => match text.parse() {
            Ok(gtids) => Position::MySql { server, gtids: Some(gtids), file, pos },
            Err(_) => return false,
        },
        _ => Position::MySql { server, gtids: None, file, pos },
    };
    mark.reached_by(&position)
}

/// A key's values as parameters of a query on `columns`; `None` when one has no such form.
fn key_params<'v>(
    values: impl Iterator<Item = (&'v Value, &'v Column)>,
) -> Option<Vec<(String, Option<mysql_async::Value>)>> {
    values
        .map(|(value, column)| {
            let value = match (value, &column.ty) {
                // A number that came as text, from SQLite.
                (Value::Text(text), ColumnType::Decimal { .. }) => ValueRef::Decimal(text),
                (value, _) => value.as_ref(),
            };
            crate::capture::mysql::snapshot::key_operand(value, column)
        })
        .collect()
}

/// `(a, b) IN ((?, ?), …)`.
pub(crate) fn keys_condition(
    columns: &[&Column],
    keys: &[&[Value]],
) -> Option<(String, Vec<mysql_async::Value>)> {
    let sides: Vec<String> =
        columns.iter().map(|column| crate::capture::mysql::snapshot::key_side(column)).collect();
    let mut params = Vec::new();
    let mut tuples = Vec::with_capacity(keys.len());
    for key in keys {
        let operands = key_params(key.iter().zip(columns.iter().copied()))?;
        let texts: Vec<&str> = operands.iter().map(|(text, _)| text.as_str()).collect();
        tuples.push(format!("({})", texts.join(", ")));
        params.extend(operands.iter().filter_map(|(_, param)| param.clone()));
    }
    Some((format!("({}) IN ({})", sides.join(", "), tuples.join(", ")), params))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::records::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, TimestampType};

    #[test]
    fn of_messages_that_say_nothing_of_other_keys_the_last_of_each_is_read() {
        let record = |(offset, (key, value)): (usize, (Option<&'static str>, Option<&'static str>))| Record {
            transactional: false,
            control: false,
            partition_leader_epoch: 0,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: offset as i64,
            sequence: NO_SEQUENCE,
            timestamp: 0,
            delete_horizon: false,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: Default::default(),
        };
        let said = [
            (Some("a"), Some("1")),
            (Some("b"), Some("2")),
            (None, Some("emptied")),
            (Some("a"), Some("deleted")),
            (Some("a"), None),
            (None, Some("emptied")),
            (Some("c"), None),
        ];
        let records: Vec<Record> = said.into_iter().enumerate().map(record).collect();
        let offsets = |alone| decisive(&records, alone).map(|record| record.offset).collect::<Vec<_>>();
        assert_eq!(offsets(true), [1, 2, 3, 4, 5, 6], "what deletes a row stands before its tombstone");
        assert_eq!(offsets(false), [0, 1, 2, 3, 4, 5, 6]);
    }
}
