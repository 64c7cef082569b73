//! What the engine remembers of models, in tables of its own: which query made a table, and which intervals it has.

use crate::error::WarehouseError;
use crate::interval::Interval;
use base::{Column, ColumnType, Generated, Value};
use engine::{Engine, Write, kept};
use jiff::civil::DateTime;
use std::collections::BTreeSet;

const MODELS: &str = "tidemill_models";
const INTERVALS: &str = "tidemill_intervals";
/// Models of a project.
const MODELS_MAX: usize = 10_000;

/// How a table was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    pub fingerprint: String,
    pub kind: String,
    /// The run that made or changed it last.
    pub run: i64,
    /// The clock of the project's time zone then: `2026-01-02 03:04:05.000006`.
    pub at: String,
    /// The fingerprint of the table before the last run, and that run; empty where there is none.
    pub before: String,
    pub run_before: i64,
}

fn text(name: &str, chars: u64) -> Column {
    column(name, ColumnType::Text { chars_max: chars }, &format!("varchar({chars})"))
}

fn number(name: &str) -> Column {
    column(name, ColumnType::BigInt { unsigned: false }, "bigint")
}

fn column(name: &str, ty: ColumnType, sql_type: &str) -> Column {
    let column = Column {
        name: name.to_owned(),
        ty,
        sql_type: sql_type.to_owned(),
        nullable: false,
        charset: None,
        // Names are told apart to the letter.
        collation: Some("utf8mb4_bin".to_owned()),
        generated: Generated::No,
        invisible: false,
    };
    kept(&column, false)
}

fn model_columns() -> Vec<Column> {
    vec![
        text("model", 128),
        text("fingerprint", 64),
        text("kind", 32),
        number("run"),
        text("built_at", 32),
        text("fingerprint_before", 64),
        number("run_before"),
    ]
}

fn interval_columns() -> Vec<Column> {
    vec![text("model", 128), text("start_at", 32), text("fingerprint", 64), number("run")]
}

fn failed(error: engine::EngineError) -> WarehouseError {
    WarehouseError::of("keep what is known of models")(error)
}

/// Makes the tables where they are not there yet.
pub async fn prepare(engine: &dyn Engine) -> Result<(), WarehouseError> {
    engine.prepare_own(MODELS, &model_columns(), &["model".into()]).await.map_err(failed)?;
    let key = ["model".to_owned(), "start_at".to_owned()];
    engine.prepare_own(INTERVALS, &interval_columns(), &key).await.map_err(failed)
}

/// What is known of one model.
pub async fn built(engine: &dyn Engine, model: &str) -> Result<Option<Built>, WarehouseError> {
    Ok(all(engine).await?.into_iter().find(|(name, _)| name == model).map(|(_, built)| built))
}

/// What is known of all models.
pub async fn all(engine: &dyn Engine) -> Result<Vec<(String, Built)>, WarehouseError> {
    let sql = format!(
        "SELECT model, fingerprint, kind, run, built_at, fingerprint_before, run_before FROM {MODELS} ORDER BY model"
    );
    let rows = engine.query(&sql).await.map_err(failed)?.all(MODELS_MAX).await.map_err(failed)?;
    let read = |row: Vec<Value>| {
        let mut row = row.into_iter();
        let mut text = || match row.next() {
            Some(Value::Text(text)) => text,
            Some(Value::Int(number)) => number.to_string(),
            _ => String::new(),
        };
        let (model, fingerprint, kind, run) = (text(), text(), text(), text());
        let (at, before, run_before) = (text(), text(), text());
        let number = |text: String| text.parse().unwrap_or_default();
        let built = Built { fingerprint, kind, run: number(run), at, before, run_before: number(run_before) };
        (model, built)
    };
    Ok(rows.into_iter().map(read).collect())
}

/// The part of a transaction that notes how a table was made.
pub fn note(model: &str, built: &Built) -> Write {
    let Built { fingerprint, kind, run, at, before, run_before } = built.clone();
    let row = vec![
        Value::Text(model.to_owned()),
        Value::Text(fingerprint),
        Value::Text(kind),
        Value::Int(run),
        Value::Text(at),
        Value::Text(before),
        Value::Int(run_before),
    ];
    Write::Put { table: MODELS.into(), columns: model_columns(), rows: vec![row], replace: true }
}

/// The part of a transaction that forgets a model.
pub fn forget(model: &str) -> Vec<Write> {
    let of = |table: &str| Write::Delete {
        table: table.to_owned(),
        columns: vec![text("model", 128)],
        rows: vec![vec![Value::Text(model.to_owned())]],
    };
    vec![of(MODELS), of(INTERVALS)]
}

fn moment(at: DateTime) -> String {
    at.strftime("%F %T").to_string()
}

/// The beginnings of the intervals that a query of this fingerprint has filled.
pub async fn intervals(
    engine: &dyn Engine,
    model: &str,
    fingerprint: &str,
) -> Result<BTreeSet<DateTime>, WarehouseError> {
    let sql = format!(
        "SELECT start_at FROM {INTERVALS} WHERE model = {} AND fingerprint = {}",
        crate::check::text(model),
        crate::check::text(fingerprint)
    );
    let most = crate::interval::INTERVALS_MAX;
    let rows = engine.query(&sql).await.map_err(failed)?.all(most).await.map_err(failed)?;
    moments(rows)
}

/// The beginnings of the intervals that a run filled last.
pub async fn intervals_of_run(
    engine: &dyn Engine,
    model: &str,
    run: i64,
) -> Result<BTreeSet<DateTime>, WarehouseError> {
    let model = crate::check::text(model);
    let sql = format!("SELECT start_at FROM {INTERVALS} WHERE model = {model} AND run = {run}");
    let most = crate::interval::INTERVALS_MAX;
    moments(engine.query(&sql).await.map_err(failed)?.all(most).await.map_err(failed)?)
}

fn moments(rows: Vec<Vec<Value>>) -> Result<BTreeSet<DateTime>, WarehouseError> {
    let mut done = BTreeSet::new();
    for row in rows {
        let Some(Value::Text(text)) = row.first() else { continue };
        let at = text.replacen(' ', "T", 1).parse::<DateTime>();
        done.insert(at.map_err(|error| WarehouseError::Internal(format!("`{text}` is no time: {error}")))?);
    }
    Ok(done)
}

/// The part of a transaction that notes intervals as filled.
pub fn note_intervals(model: &str, fingerprint: &str, run: i64, intervals: &[Interval]) -> Write {
    let row = |it: &Interval| {
        let (model, fingerprint) = (model.to_owned(), fingerprint.to_owned());
        vec![Value::Text(model), Value::Text(moment(it.start)), Value::Text(fingerprint), Value::Int(run)]
    };
    let rows = intervals.iter().map(row).collect();
    Write::Put { table: INTERVALS.into(), columns: interval_columns(), rows, replace: true }
}

/// The part of a transaction that forgets intervals, so that they are computed again; all of them without any.
pub fn forget_intervals(model: &str, intervals: Option<&[Interval]>) -> Write {
    let mut columns = vec![text("model", 128)];
    let of = |more: Option<String>| -> Vec<Value> {
        std::iter::once(model.to_owned()).chain(more).map(Value::Text).collect()
    };
    let rows = match intervals {
        None => vec![of(None)],
        Some(intervals) => {
            columns.push(text("start_at", 32));
            intervals.iter().map(|it| of(Some(moment(it.start)))).collect()
        }
    };
    Write::Delete { table: INTERVALS.into(), columns, rows }
}
