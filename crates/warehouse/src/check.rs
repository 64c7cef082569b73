//! Checks: what must hold of a table's rows. Each is one query that counts the rows that break it.

use crate::error::WarehouseError;
use crate::model::{ModelConfig, column_named};
use base::{Column, Span, Value};
use engine::{Engine, cell_text, name_sql};
use jiff::civil::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Values of `accepted_values`.
const VALUES_MAX: usize = 1000;

/// One check. Exactly one of its kinds is given; the other keys are of all of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CheckConfig {
    /// No row has NULL in these columns.
    pub not_null: Vec<String>,
    /// No two rows have the same values in these columns together; rows with a NULL among them do not count.
    pub unique: Vec<String>,
    /// The column has one of these values, or NULL.
    pub accepted_values: Option<AcceptedValues>,
    /// Each value of the column is in a column of another table, or NULL.
    pub relationships: Option<Relationship>,
    /// The column is within bounds, or NULL.
    pub range: Option<Range>,
    /// The column's text matches a regular expression, or is NULL.
    pub regex: Option<Regex>,
    /// The newest value of a time column is not older than this.
    pub freshness: Option<Freshness>,
    /// How many rows the table has.
    pub row_count: Option<RowCount>,
    /// A SELECT of rows that must not be there; `{model}` is the table.
    pub sql: Option<String>,
    /// `error` publishes nothing when the check breaks; `warn` only tells.
    #[schemars(extend("default" = "error"))]
    pub severity: Severity,
    /// How it is called in runs; made of its kind and columns by default.
    pub name: Option<String>,
    /// Only rows for which this holds: an expression over the table's columns.
    #[serde(rename = "where")]
    pub condition: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AcceptedValues {
    pub column: String,
    pub values: Vec<Literal>,
}

/// A text or a number.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(untagged)]
pub enum Literal {
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Relationship {
    pub column: String,
    /// `dataset.table`.
    pub to: String,
    /// The column there; the same name by default.
    #[serde(default)]
    pub field: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub column: String,
    #[serde(default)]
    pub min: Option<Literal>,
    #[serde(default)]
    pub max: Option<Literal>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Regex {
    pub column: String,
    pub pattern: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// A DATE or DATETIME, in the project's time zone.
    pub column: String,
    #[schemars(with = "String")]
    pub max: Span,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RowCount {
    pub min: Option<u64>,
    pub max: Option<u64>,
    /// By how many percent it may differ from the last good run's.
    pub change_max: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    #[default]
    Error,
    Warn,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub check: String,
    pub severity: Severity,
    /// Rows, or groups of rows, that break it; 0 holds.
    pub broken: u64,
    /// What was found, for people.
    pub message: String,
}

impl CheckConfig {
    fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            ("not_null", !self.not_null.is_empty()),
            ("unique", !self.unique.is_empty()),
            ("accepted_values", self.accepted_values.is_some()),
            ("relationships", self.relationships.is_some()),
            ("range", self.range.is_some()),
            ("regex", self.regex.is_some()),
            ("freshness", self.freshness.is_some()),
            ("row_count", self.row_count.is_some()),
            ("sql", self.sql.is_some()),
        ];
        kinds.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// What is wrong with it as it is written, and what to do.
    pub fn problem(&self) -> Result<(), (String, String)> {
        let kinds = self.kinds();
        let [kind] = kinds.as_slice() else {
            let message = match kinds.as_slice() {
                [] => "a check says nothing".to_owned(),
                several => format!("a check is one of `{}`, not several", several.join("`, `")),
            };
            return Err((message, "for example: - not_null: [id]".into()));
        };
        if let Some(accepted) = &self.accepted_values
            && (accepted.values.is_empty() || accepted.values.len() > VALUES_MAX)
        {
            let hint = format!("1 to {VALUES_MAX}; more are a table and `relationships`");
            return Err((format!("`accepted_values` has {} values", accepted.values.len()), hint));
        }
        if let Some(Range { min: None, max: None, .. }) = &self.range {
            return Err(("`range` has neither `min` nor `max`".into(), "for example: min: 0".into()));
        }
        if let Some(RowCount { min: None, max: None, change_max: None }) = &self.row_count {
            return Err(("`row_count` has no bound".into(), "for example: min: 1".into()));
        }
        if self.condition.is_some() && matches!(*kind, "sql" | "row_count" | "freshness") {
            return Err((format!("`where` has no effect on `{kind}`"), "leave it out".into()));
        }
        if let Some(to) = self.relationships.as_ref().map(|it| &it.to) {
            crate::model::check_name(to)?;
        }
        if let Some(sql) = &self.sql {
            let of_table = sql.replace("{model}", "dataset.model");
            if let Err(error) = engine::relations(&of_table) {
                return Err((format!("`sql`: {error}"), "a SELECT of the rows that break the check".into()));
            }
        }
        Ok(())
    }

    /// How it is called.
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let kind = self.kinds().first().copied().unwrap_or_default();
        let of = self.columns().join(", ");
        if of.is_empty() { kind.to_owned() } else { format!("{kind}({of})") }
    }

    /// The columns of the table that it names.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self.not_null.iter().chain(&self.unique).map(String::as_str).collect();
        columns.extend(self.accepted_values.as_ref().map(|it| it.column.as_str()));
        columns.extend(self.relationships.as_ref().map(|it| it.column.as_str()));
        columns.extend(self.range.as_ref().map(|it| it.column.as_str()));
        columns.extend(self.regex.as_ref().map(|it| it.column.as_str()));
        columns.extend(self.freshness.as_ref().map(|it| it.column.as_str()));
        columns
    }

    /// Whether it judges a table as a whole, and no part of one.
    pub fn is_of_whole(&self) -> bool {
        self.freshness.is_some() || self.row_count.is_some()
    }

    /// The tables besides the model's that it reads.
    pub fn reads(&self) -> Vec<String> {
        let of_sql = self.sql.as_ref().and_then(|sql| {
            let all = engine::relations(&sql.replace("{model}", "dataset.model")).ok()?;
            Some(all.into_iter().filter(|it| it != "dataset.model").collect::<Vec<_>>())
        });
        let to = self.relationships.iter().map(|it| it.to.clone());
        to.chain(of_sql.unwrap_or_default()).collect()
    }

    /// The query of one number: what breaks it, or for `freshness` and `row_count` what is judged.
    fn query(&self, table: &str) -> String {
        let name = |column: &str| name_sql(column);
        let table = name_sql(table);
        let filter = match &self.condition {
            Some(condition) => format!(" AND ({condition})"),
            None => String::new(),
        };
        let count = |broken: String| format!("SELECT COUNT(*) FROM {table} AS m WHERE ({broken}){filter}");
        if !self.not_null.is_empty() {
            let all: Vec<String> = self.not_null.iter().map(|it| format!("{} IS NULL", name(it))).collect();
            return count(all.join(" OR "));
        }
        if !self.unique.is_empty() {
            let names: Vec<String> = self.unique.iter().map(|it| name(it)).collect();
            let present: Vec<String> = names.iter().map(|it| format!("{it} IS NOT NULL")).collect();
            let (names, present) = (names.join(", "), present.join(" AND "));
            return format!(
                "SELECT COUNT(*) FROM (SELECT COUNT(*) AS n FROM {table} AS m WHERE {present}{filter} GROUP BY {names} HAVING COUNT(*) > 1) AS d"
            );
        }
        if let Some(AcceptedValues { column, values }) = &self.accepted_values {
            let values: Vec<String> = values.iter().map(literal).collect();
            return count(format!("{} NOT IN ({})", name(column), values.join(", ")));
        }
        if let Some(Relationship { column, to, field }) = &self.relationships {
            let (own, other) = (name(column), name(field.as_deref().unwrap_or(column)));
            let to = name_sql(to);
            return count(format!(
                "m.{own} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {to} AS o WHERE o.{other} = m.{own})"
            ));
        }
        if let Some(Range { column, min, max }) = &self.range {
            let column = name(column);
            let below = min.as_ref().map(|min| format!("{column} < {}", literal(min)));
            let above = max.as_ref().map(|max| format!("{column} > {}", literal(max)));
            return count(below.into_iter().chain(above).collect::<Vec<_>>().join(" OR "));
        }
        if let Some(Regex { column, pattern }) = &self.regex {
            return count(format!("NOT ({} REGEXP {})", name(column), text(pattern)));
        }
        if let Some(Freshness { column, .. }) = &self.freshness {
            return format!("SELECT MAX({}) FROM {table}", name(column));
        }
        if let Some(sql) = &self.sql {
            let sql = sql.trim().trim_end_matches(';').replace("{model}", &table);
            return format!("SELECT COUNT(*) FROM ({sql}\n) AS broken");
        }
        format!("SELECT COUNT(*) FROM {table}")
    }
}

/// A text as a literal of the dialect.
pub fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn literal(value: &Literal) -> String {
    match value {
        Literal::Bool(value) => u8::from(*value).to_string(),
        Literal::Int(value) => value.to_string(),
        Literal::Number(value) => format!("{value:?}"),
        Literal::Text(value) => text(value),
    }
}

/// What a check is held against.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The clock on the wall of the project's time zone.
    pub now: DateTime,
    /// Rows of the table that readers see now, where there is one.
    pub rows_before: Option<u64>,
}

/// The problems of a model's checks with the columns that its query gives.
pub fn column_problems(config: &ModelConfig, columns: &[Column]) -> Vec<(String, String)> {
    let named = config.checks.iter().flat_map(CheckConfig::columns);
    let listed = config.key.iter().chain(&config.compare).chain(config.indexes.iter().flatten());
    let all = named.chain(listed.map(String::as_str)).chain(config.time_column.as_deref());
    let mut problems: Vec<(String, String)> = all.filter_map(|it| column_named(columns, it).err()).collect();
    problems.dedup();
    problems
}

/// Runs the checks of a model on `table`; every one, also behind one that breaks.
pub async fn run(
    engine: &dyn Engine,
    checks: &[CheckConfig],
    table: &str,
    moment: Moment,
) -> Result<Vec<Finding>, WarehouseError> {
    let mut findings = Vec::with_capacity(checks.len());
    for check in checks {
        let title = check.title();
        let failed = || WarehouseError::of(format!("run the check `{title}`"));
        let rows = engine.query(&check.query(table)).await.map_err(failed())?;
        let columns = rows.columns.clone();
        let rows = rows.all(1).await.map_err(failed())?;
        let value = rows.first().and_then(|row| row.first()).cloned().unwrap_or_default();
        let shown = columns.first().and_then(|column| cell_text(&value, column));
        let (broken, message) = judged(check, &value, shown, moment);
        findings.push(Finding { check: title, severity: check.severity, broken, message });
    }
    Ok(findings)
}

fn count_of(value: &Value) -> u64 {
    match value {
        Value::Int(v) => (*v).try_into().unwrap_or_default(),
        Value::UInt(v) => *v,
        _ => 0,
    }
}

fn judged(check: &CheckConfig, value: &Value, shown: Option<String>, moment: Moment) -> (u64, String) {
    if let Some(Freshness { max, .. }) = &check.freshness {
        let Some(shown) = shown else { return (1, "there is no time at all".into()) };
        let newest = shown.parse::<DateTime>().or_else(|_| shown.replacen(' ', "T", 1).parse::<DateTime>());
        let newest = newest.or_else(|_| shown.parse::<jiff::civil::Date>().map(|day| day.at(0, 0, 0, 0)));
        let Ok(newest) = newest else { return (1, format!("`{shown}` is no time")) };
        let age = moment.now.duration_since(newest);
        let late = age > jiff::SignedDuration::try_from(max.0).unwrap_or(jiff::SignedDuration::MAX);
        return (u64::from(late), format!("the newest is {shown}"));
    }
    let count = count_of(value);
    if let Some(RowCount { min, max, change_max }) = &check.row_count {
        if min.is_some_and(|min| count < min) || max.is_some_and(|max| count > max) {
            return (1, format!("there are {count} rows"));
        }
        if let (Some(most), Some(before)) = (change_max, moment.rows_before.filter(|it| *it > 0)) {
            let change = (count as f64 - before as f64).abs() / before as f64 * 100.0;
            if change > *most {
                return (1, format!("there are {count} rows, and there were {before}: {change:.1} % other"));
            }
        }
        return (0, format!("there are {count} rows"));
    }
    let what = if check.unique.is_empty() { "rows" } else { "values that are there twice" };
    (count, if count == 0 { String::new() } else { format!("{count} {what}") })
}

/// What blocks, worded; empty when everything that blocks holds.
pub fn blocking(findings: &[Finding]) -> Vec<String> {
    let broken = findings.iter().filter(|it| it.broken > 0 && it.severity == Severity::Error);
    broken.map(|it| format!("the check `{}` is broken: {}", it.check, it.message)).collect()
}
