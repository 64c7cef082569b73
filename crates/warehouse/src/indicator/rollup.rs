//! Rollups: what the metrics of a model are computed from, kept by period and dimensions.
//!
//! `rollup.MODEL__GRAIN` has `period` (the first day), a column for each offered dimension (VARCHAR(255), exact to the letter, NULL
//! apart from ''), and for each part its columns: `NAME__sum`, `NAME__count` (both of an average), `NAME__min`, `NAME__max`. Tables of
//! coarser grains are made from the finest one. `rollup.MODEL__distinct` has what cannot be added up, by `grain` and by the dimensions that
//! were grouped by (`by_dimensions`, their names with commas). `rollup.MODEL__meta` has the version.
//!
//! A whole build writes `…__new` beside what is read and swaps all tables of a model by one RENAME, which MySQL, TiDB and our SQLite
//! do at once: a crash leaves the old rollups or the new ones, and shadows that the next build removes. A build of some periods is one
//! transaction. Two builds of one model at a time would write into one shadow: that there is one is the caller's to see to.

use super::config::Agg;
use super::declared::{Indicators, Mistake, Model, Part};
use super::error::IndicatorError;
use super::meta::{self, Meta};
use super::period::{Grain, Period};
use base::value::date_of_days;
use base::{Column, ColumnType, Generated};
use engine::{Engine, EngineError, create_sql, kept, name_sql};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Periods that are built one by one; with more, the whole is built.
const CHANGED_MAX: usize = 400;
/// Dimensions that have an index of their own.
const INDEXED_MAX: usize = 3;
/// Members are told apart to the letter on every engine.
const COLLATION: &str = "utf8mb4_bin";
/// The dataset.
const DATASET: &str = "rollup";

/// A build that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub model: String,
    pub version: i64,
    /// Rows that were written, of all tables.
    pub rows: u64,
    /// Whether all periods were built.
    pub whole: bool,
}

/// Columns of a part in rollups by grain: name, aggregate over rows, aggregate over rollups.
pub(super) fn part_columns(part: &Part) -> Vec<(String, &'static str, &'static str)> {
    let one =
        |word: &str, of: &'static str, merge: &'static str| (format!("{}__{word}", part.stem), of, merge);
    match part.agg {
        Agg::Sum => vec![one("sum", "SUM", "SUM")],
        Agg::Count => vec![one("count", "COUNT", "SUM")],
        Agg::Average => vec![one("sum", "SUM", "SUM"), one("count", "COUNT", "SUM")],
        Agg::Min => vec![one("min", "MIN", "MIN")],
        Agg::Max => vec![one("max", "MAX", "MAX")],
        Agg::CountDistinct => Vec::new(),
    }
}

pub(super) fn table_of(model: &Model, kind: &str) -> String {
    format!("{DATASET}.{}__{kind}", model.name)
}

pub(super) fn name(name: &str) -> String {
    name_sql(name)
}

pub(super) fn day_sql(days: i64) -> String {
    format!("'{}'", date_of_days(days))
}

/// The first day of the period that a time is in.
fn period_sql(grain: Grain, time: &str) -> String {
    match grain {
        Grain::Day => format!("DATE({time})"),
        Grain::Week => format!("DATE_SUB(DATE({time}), INTERVAL WEEKDAY({time}) DAY)"),
        Grain::Month => format!("DATE_SUB(DATE({time}), INTERVAL DAYOFMONTH({time}) - 1 DAY)"),
        Grain::Quarter => {
            let month = period_sql(Grain::Month, time);
            format!("DATE_SUB({month}, INTERVAL (MONTH({time}) - 1) % 3 MONTH)")
        }
        Grain::Year => format!("DATE_SUB(DATE({time}), INTERVAL DAYOFYEAR({time}) - 1 DAY)"),
    }
}

/// Days from the first to the one before the second.
fn between(time: &str, from: i64, to: i64) -> String {
    format!("{time} >= {} AND {time} < {}", day_sql(from), day_sql(to))
}

/// What is asked of the table itself: by a grain, dimensions, and some of the parts.
pub(super) struct Facts<'m> {
    pub model: &'m Model,
    pub grain: Grain,
    pub dimensions: &'m [usize],
    pub parts: &'m [usize],
    /// Days from the first to the one before the second; all without it.
    pub days: Option<(i64, i64)>,
}

impl Facts<'_> {
    /// `period`, the dimensions, and the columns of the parts, one row for each combination.
    pub fn sql(&self) -> String {
        let model = self.model;
        let time = format!("({})", model.time);
        let mut inner = vec![format!("{} AS `period`", period_sql(self.grain, &time))];
        let mut groups = vec!["r.`period`".to_owned()];
        for at in self.dimensions {
            let dim = &model.dimensions[*at];
            inner.push(format!(
                "CAST(({}) AS CHAR(255)) COLLATE {COLLATION} AS {}",
                dim.expr,
                name(&dim.name)
            ));
            groups.push(format!("r.{}", name(&dim.name)));
        }
        let mut outer = groups.clone();
        for at in self.parts {
            let part = &model.parts[*at];
            let value = match &part.filter {
                Some(filter) => format!("CASE WHEN {filter} THEN ({}) END", part.expr),
                None => format!("({})", part.expr),
            };
            inner.push(format!("{value} AS `v{at}`"));
            if part.agg == Agg::CountDistinct {
                outer.push(format!(
                    "COUNT(DISTINCT r.`v{at}`) AS {}",
                    name(&format!("{}__distinct", part.stem))
                ));
            }
            for (column, aggregate, _) in part_columns(part) {
                outer.push(format!("{aggregate}(r.`v{at}`) AS {}", name(&column)));
            }
        }
        let within = match self.days {
            Some((from, to)) => between(&time, from, to),
            None => format!("{time} IS NOT NULL"),
        };
        format!(
            "SELECT {} FROM (SELECT {} FROM {} WHERE {within}) AS r GROUP BY {}",
            outer.join(", "),
            inner.join(", "),
            name(&model.table),
            groups.join(", ")
        )
    }
}

impl Model {
    fn added(&self) -> Vec<usize> {
        (0..self.parts.len()).filter(|at| self.parts[*at].agg != Agg::CountDistinct).collect()
    }

    fn base_sql(&self, days: Option<(i64, i64)>) -> String {
        let dimensions: Vec<usize> = self.offered.iter().copied().collect();
        let parts = self.added();
        Facts { model: self, grain: self.base(), dimensions: &dimensions, parts: &parts, days }.sql()
    }

    /// A coarser grain from the finest one.
    fn coarser_sql(&self, grain: Grain, base: &str, days: Option<(i64, i64)>) -> String {
        let mut groups = vec!["r.`period`".to_owned()];
        let mut inner = vec![format!("{} AS `period`", period_sql(grain, "b.`period`"))];
        for at in &self.offered {
            let dim = name(&self.dimensions[*at].name);
            inner.push(format!("b.{dim}"));
            groups.push(format!("r.{dim}"));
        }
        let mut outer = groups.clone();
        for at in self.added() {
            for (column, _, merge) in part_columns(&self.parts[at]) {
                let column = name(&column);
                inner.push(format!("b.{column}"));
                outer.push(format!("{merge}(r.{column}) AS {column}"));
            }
        }
        let within =
            days.map_or(String::new(), |(from, to)| format!(" WHERE {}", between("b.`period`", from, to)));
        format!(
            "SELECT {} FROM (SELECT {} FROM {} AS b{within}) AS r GROUP BY {}",
            outer.join(", "),
            inner.join(", "),
            name(base),
            groups.join(", ")
        )
    }

    /// Rows of the table of distinct values.
    fn distinct_sql(
        &self,
        table: &str,
        grain: Grain,
        set: &[usize],
        parts: &BTreeSet<usize>,
        days: Option<(i64, i64)>,
    ) -> String {
        let parts: Vec<usize> = parts.iter().copied().collect();
        let facts = Facts { model: self, grain, dimensions: set, parts: &parts, days }.sql();
        let dims = set.iter().map(|at| name(&self.dimensions[*at].name));
        let counts = parts.iter().map(|at| name(&format!("{}__distinct", self.parts[*at].stem)));
        let columns: Vec<String> = std::iter::once("`period`".to_owned()).chain(dims).chain(counts).collect();
        format!(
            "INSERT INTO {} (`grain`, `by_dimensions`, {}) SELECT '{}', '{}', {} FROM ({facts}) AS f",
            name(table),
            columns.join(", "),
            grain.name(),
            self.set_name(set),
            columns.iter().map(|it| format!("f.{it}")).collect::<Vec<_>>().join(", ")
        )
    }

    /// Names of dimensions as the table of distinct values has them.
    pub(super) fn set_name(&self, set: &[usize]) -> String {
        set.iter().map(|at| self.dimensions[*at].name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Changes when anything does that the rollups were built by.
    pub(super) fn digest(&self) -> String {
        let mut text = self.base_sql(None);
        for grain in &self.grains {
            let _ = write!(text, ";{}", grain.name());
        }
        for ((grain, set), parts) in &self.groupings {
            let _ = write!(text, ";{}", self.distinct_sql("d", *grain, set, parts, None));
        }
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().take(16).fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    fn distinct_columns(&self) -> Vec<Column> {
        let used: BTreeSet<usize> = self.groupings.keys().flat_map(|(_, set)| set.iter().copied()).collect();
        let parts: BTreeSet<usize> = self.groupings.values().flatten().copied().collect();
        let mut columns = vec![
            column("grain", ColumnType::Text { chars_max: 8 }, "varchar(8)", false),
            column("by_dimensions", ColumnType::Text { chars_max: 255 }, "varchar(255)", false),
            column("period", ColumnType::Date, "date", false),
        ];
        columns.extend(used.iter().map(|at| dimension_column(&self.dimensions[*at].name)));
        columns.extend(parts.iter().map(|at| {
            let name = format!("{}__distinct", self.parts[*at].stem);
            column(&name, ColumnType::BigInt { unsigned: false }, "bigint", true)
        }));
        columns
    }

    fn is_used(&self) -> bool {
        !self.grains.is_empty() && !self.parts.is_empty()
    }
}

fn column(name: &str, ty: ColumnType, sql_type: &str, nullable: bool) -> Column {
    let text = matches!(ty, ColumnType::Text { .. });
    Column {
        name: name.to_owned(),
        ty,
        sql_type: sql_type.to_owned(),
        nullable,
        charset: text.then(|| "utf8mb4".to_owned()),
        collation: text.then(|| COLLATION.to_owned()),
        generated: Generated::No,
        invisible: false,
    }
}

fn dimension_column(name: &str) -> Column {
    column(name, ColumnType::Text { chars_max: 255 }, "varchar(255)", true)
}

/// What the engine says of the SQL that the rollups are built by: names and types of columns are known to it alone. Of a table that is not
/// there yet, because no run has made it, nothing is said.
pub async fn check(engine: &dyn Engine, indicators: &Indicators) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for model in indicators.models.iter().filter(|it| it.is_used()) {
        if let Ok(false) = exists(engine, &model.table).await {
            continue;
        }
        let mut mistake = |message: String, hint: String| {
            mistakes.push(Mistake { path: model.path.clone(), message, hint });
        };
        match engine.check(&model.base_sql(None)).await {
            Ok(columns) => {
                for (part, column) in model.added().iter().flat_map(|at| {
                    let part = &model.parts[*at];
                    part_columns(part).into_iter().map(move |(column, ..)| (part, column))
                }) {
                    let found = columns.iter().find(|it| it.name == column);
                    if found.is_some_and(|it| !is_number(&it.ty)) {
                        mistake(
                            format!("the measure `{}` is no number", part.measure),
                            "an indicator is a number: CAST it, or count".into(),
                        );
                    }
                }
            }
            Err(error) => {
                let hint =
                    base::Fault::hint(&error).unwrap_or_else(|| "check its `table` and expressions".into());
                mistake(format!("the rollups of `{}` cannot be built: {error}", model.name), hint);
            }
        }
        for ((grain, set), parts) in model.groupings.iter().filter(|((_, set), _)| set.is_empty()) {
            let parts: Vec<usize> = parts.iter().copied().collect();
            let facts = Facts { model, grain: *grain, dimensions: set, parts: &parts, days: None }.sql();
            if let Err(error) = engine.check(&facts).await {
                let hint =
                    base::Fault::hint(&error).unwrap_or_else(|| "check its `table` and expressions".into());
                mistake(format!("distinct values of `{}` cannot be counted: {error}", model.name), hint);
                break;
            }
        }
    }
    mistakes
}

fn is_number(ty: &ColumnType) -> bool {
    use ColumnType as T;
    matches!(
        ty,
        T::TinyInt { .. }
            | T::SmallInt { .. }
            | T::MediumInt { .. }
            | T::Int { .. }
            | T::BigInt { .. }
            | T::Bit { .. }
            | T::Decimal { .. }
            | T::Float
            | T::Double
            | T::Year
    )
}

/// Builds the rollups of some models, or of all. `changed`: only what these periods are part of, where the rollups are there and were built by
/// the same definition; else all of it.
pub async fn build(
    engine: &dyn Engine,
    indicators: &Indicators,
    models: Option<&[&str]>,
    changed: Option<&[Period]>,
) -> Result<Vec<Built>, IndicatorError> {
    let mut built = Vec::new();
    for model in indicators.models.iter().filter(|it| it.is_used()) {
        if models.is_some_and(|names| !names.contains(&model.name.as_str())) {
            continue;
        }
        let known = meta::read(engine, model).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as i64);
        let version = known.as_ref().map_or(now, |known| now.max(known.version + 1));
        let same = known.as_ref().is_some_and(|known| known.definition == model.definition);
        let next = Next { engine, model, version, now };
        built.push(match changed.filter(|it| same && it.len() <= CHANGED_MAX) {
            Some(changed) => next.some(changed, known).await?,
            None => next.whole().await?,
        });
    }
    Ok(built)
}

struct Next<'b> {
    engine: &'b dyn Engine,
    model: &'b Model,
    version: i64,
    now: i64,
}

impl Next<'_> {
    /// The row of the meta table, from the finest rollup.
    fn meta_sql(&self, table: &str, base: &str) -> String {
        let definition = &self.model.definition;
        format!(
            "INSERT INTO {} (`version`, `built_ms`, `definition`, `oldest`, `newest`) \
             SELECT {}, {}, '{definition}', MIN(b.`period`), MAX(b.`period`) FROM {} AS b",
            name(table),
            self.version,
            self.now,
            name(base)
        )
    }

    async fn whole(&self) -> Result<Built, IndicatorError> {
        let (engine, model) = (self.engine, self.model);
        engine.prepare_dataset(DATASET).await?;
        let mut live: Vec<String> = model.grains.iter().map(|grain| table_of(model, grain.name())).collect();
        if !model.groupings.is_empty() {
            live.push(table_of(model, "distinct"));
        }
        live.push(table_of(model, "meta"));
        let (new, old) = (|it: &str| format!("{it}__new"), |it: &str| format!("{it}__old"));
        for table in &live {
            engine.execute(&format!("DROP TABLE IF EXISTS {}", name(&new(table)))).await?;
            engine.execute(&format!("DROP TABLE IF EXISTS {}", name(&old(table)))).await?;
        }
        let base = new(&live[0]);
        let facts = model.base_sql(None);
        let columns = engine.check(&facts).await?;
        let columns: Vec<Column> = columns.iter().map(rollup_column).collect();
        let mut rows = 0;
        for (grain, table) in model.grains.iter().zip(&live) {
            let shadow = new(table);
            engine.execute(&create_sql(&shadow, &columns, &[])).await?;
            let select =
                if *grain == model.base() { facts.clone() } else { model.coarser_sql(*grain, &base, None) };
            rows += engine.execute(&format!("INSERT INTO {} {select}", name(&shadow))).await?;
            engine.execute(&format!("CREATE INDEX by_period ON {} (`period`)", name(&shadow))).await?;
            for at in model.offered.iter().take(INDEXED_MAX) {
                let dim = &model.dimensions[*at].name;
                let sql = format!(
                    "CREATE INDEX {} ON {} ({}, `period`)",
                    name(&format!("by_{dim}")),
                    name(&shadow),
                    name(dim)
                );
                engine.execute(&sql).await?;
            }
        }
        if !model.groupings.is_empty() {
            let shadow = new(&table_of(model, "distinct"));
            engine.execute(&create_sql(&shadow, &model.distinct_columns(), &[])).await?;
            for ((grain, set), parts) in &model.groupings {
                rows += engine.execute(&model.distinct_sql(&shadow, *grain, set, parts, None)).await?;
            }
            let index =
                format!("CREATE INDEX by_period ON {} (`period`, `grain`, `by_dimensions`)", name(&shadow));
            engine.execute(&index).await?;
        }
        let meta = new(&table_of(model, "meta"));
        let bigint = || ColumnType::BigInt { unsigned: false };
        let columns = [
            column("version", bigint(), "bigint", false),
            column("built_ms", bigint(), "bigint", false),
            column("definition", ColumnType::Text { chars_max: 64 }, "varchar(64)", false),
            column("oldest", ColumnType::Date, "date", true),
            column("newest", ColumnType::Date, "date", true),
        ];
        engine.execute(&create_sql(&meta, &columns, &[])).await?;
        engine.execute(&self.meta_sql(&meta, &base)).await?;
        let mut renames = Vec::new();
        let mut gone = Vec::new();
        for table in &live {
            if exists(engine, table).await? {
                renames.push(format!("{} TO {}", name(table), name(&old(table))));
                gone.push(old(table));
            }
            renames.push(format!("{} TO {}", name(&new(table)), name(table)));
        }
        engine.execute(&format!("RENAME TABLE {}", renames.join(", "))).await?;
        // Grains that no metric has any more, and what a build left that was killed here.
        let prefix = format!("{DATASET}.{}__", model.name);
        let others = engine.tables().await?;
        gone.extend(others.into_iter().filter(|it| it.starts_with(&prefix) && !live.contains(it)));
        gone.sort();
        gone.dedup();
        for table in gone {
            engine.execute(&format!("DROP TABLE IF EXISTS {}", name(&table))).await?;
        }
        Ok(Built { model: model.name.clone(), version: self.version, rows, whole: true })
    }

    async fn some(&self, changed: &[Period], known: Option<Meta>) -> Result<Built, IndicatorError> {
        let model = self.model;
        let built = |version, rows| Built { model: model.name.clone(), version, rows, whole: false };
        if changed.is_empty() {
            return Ok(built(known.map_or(self.version, |it| it.version), 0));
        }
        let base = table_of(model, model.base().name());
        let mut statements = Vec::new();
        for grain in &model.grains {
            let table = table_of(model, grain.name());
            for (from, to) in spans(changed, *grain) {
                statements.push(format!(
                    "DELETE FROM {} WHERE {}",
                    name(&table),
                    between("`period`", from, to)
                ));
                let days = Some((from, to));
                let select = if *grain == model.base() {
                    model.base_sql(days)
                } else {
                    model.coarser_sql(*grain, &base, days)
                };
                statements.push(format!("INSERT INTO {} {select}", name(&table)));
            }
        }
        let table = table_of(model, "distinct");
        for ((grain, set), parts) in &model.groupings {
            for (from, to) in spans(changed, *grain) {
                statements.push(format!(
                    "DELETE FROM {} WHERE {} AND `grain` = '{}' AND `by_dimensions` = '{}'",
                    name(&table),
                    between("`period`", from, to),
                    grain.name(),
                    model.set_name(set)
                ));
                statements.push(model.distinct_sql(&table, *grain, set, parts, Some((from, to))));
            }
        }
        let meta = table_of(model, "meta");
        statements.push(format!("DELETE FROM {}", name(&meta)));
        statements.push(self.meta_sql(&meta, &base));
        let rows = self.engine.execute_all(&statements).await?;
        Ok(built(self.version, rows))
    }
}

/// Whole periods of a grain that hold any of these, those that touch joined.
fn spans(changed: &[Period], grain: Grain) -> Vec<(i64, i64)> {
    let mut whole: Vec<(i64, i64)> = changed
        .iter()
        .map(|it| {
            (Period::containing(grain, it.start()).start(), Period::containing(grain, it.end() - 1).end())
        })
        .collect();
    whole.sort_unstable();
    let mut out: Vec<(i64, i64)> = Vec::new();
    for (from, to) in whole {
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out
}

/// A column of a rollup: dimensions as they are everywhere, numbers as the engine says.
fn rollup_column(column: &Column) -> Column {
    match column.ty {
        _ if column.name == "period" => self::column("period", ColumnType::Date, "date", false),
        ColumnType::Text { .. } => dimension_column(&column.name),
        _ => Column { nullable: true, ..kept(column, false) },
    }
}

async fn exists(engine: &dyn Engine, table: &str) -> Result<bool, EngineError> {
    match engine.columns(table).await {
        Ok(_) => Ok(true),
        Err(error) if error.number() == Some(1146) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_days_touch_the_whole_of_coarser_periods() {
        let days: Vec<Period> =
            ["2026-01-31", "2026-02-01", "2026-03-05"].iter().filter_map(|it| Period::named(it)).collect();
        let told = |grain| {
            let spans = spans(&days, grain).into_iter();
            spans
                .map(|(from, to)| format!("{}..{}", date_of_days(from), date_of_days(to)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(Grain::Day), ["2026-01-31..2026-02-02", "2026-03-05..2026-03-06"]);
        assert_eq!(told(Grain::Month), ["2026-01-01..2026-04-01"]);
        assert_eq!(told(Grain::Week), ["2026-01-26..2026-02-02", "2026-03-02..2026-03-09"]);
    }
}
