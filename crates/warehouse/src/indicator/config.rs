//! What a file of `indicators/` holds. The names are MetricFlow's; what is ours says so.

use super::period::Grain;
use expr::decimal::Decimal;
use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Models and metrics. What one file declares, metrics of any file may use.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IndicatorFile {
    /// Tables, with what can be measured in them and by what it can be told apart.
    pub semantic_models: Vec<SemanticModel>,
    /// Indicators.
    pub metrics: Vec<Metric>,
}

/// A table, with what can be measured in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SemanticModel {
    /// Small letters, digits and `_`, at most 40. Its rollups are `rollup.NAME__day`, `rollup.NAME__month` and so on.
    pub name: String,
    /// What a row of it is.
    #[serde(default)]
    pub description: String,
    /// The table: `dws.dept_daily`.
    #[serde(default)]
    pub table: Option<String>,
    /// The same in MetricFlow's words.
    #[serde(default)]
    pub node_relation: Option<NodeRelation>,
    /// What holds where nothing else is said.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub defaults: Defaults,
    /// Keys of the table. MetricFlow joins by them; here they are read and nothing is joined: join in a model.
    #[serde(default)]
    pub entities: Vec<Entity>,
    /// By what rows are told apart. One of them must be a time.
    pub dimensions: Vec<Dimension>,
    /// What is added up.
    pub measures: Vec<Measure>,
}

/// A table in MetricFlow's words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRelation {
    /// The dataset: `dws`.
    pub schema_name: String,
    /// The table in it.
    pub alias: String,
}

/// What holds where nothing else is said.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The dimension of type `time` that periods go by. The first one by default.
    pub agg_time_dimension: Option<String>,
}

/// A key of a table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// Its name.
    pub name: String,
    /// What kind of key it is.
    pub r#type: EntityType,
    /// The column, where it has another name.
    #[serde(default)]
    pub expr: Option<String>,
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntityType {
    Primary,
    Foreign,
    Unique,
    Natural,
}

/// By what rows are told apart.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// Small letters, digits and `_`, at most 40.
    pub name: String,
    /// What it is to people.
    #[serde(default)]
    pub label: Option<String>,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// `categorical` has members, `time` has periods.
    pub r#type: DimensionType,
    /// A MySQL expression over the table's columns. The column of the same name by default.
    #[serde(default)]
    pub expr: Option<String>,
    /// Of a dimension of type `time`.
    #[serde(default)]
    pub type_params: Option<TimeParams>,
}

/// Kinds of dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DimensionType {
    Categorical,
    Time,
}

/// Of a time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeParams {
    /// The shortest period that the table tells apart: no metric over it has a finer grain.
    pub time_granularity: Grain,
}

/// What is added up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Small letters, digits and `_`, at most 40.
    pub name: String,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// How rows become one number.
    pub agg: Agg,
    /// A MySQL expression over the table's columns. The column of the same name by default; of `count`, every row.
    #[serde(default)]
    pub expr: Option<String>,
}

/// How rows become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Agg {
    Sum,
    /// Rows where the expression is not NULL.
    Count,
    /// Kept for each grain and each set of dimensions that a metric offers, since it cannot be added up: such a metric offers at
    /// most 4 dimensions.
    CountDistinct,
    Min,
    Max,
    /// Kept as a sum and a count, so that it is right at every grain.
    Average,
}

/// An indicator.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Small letters, digits and `_`, at most 40.
    pub name: String,
    /// What it is to people.
    #[serde(default)]
    pub label: Option<String>,
    /// What it means, and how it is counted.
    #[serde(default)]
    pub description: String,
    /// How it is computed.
    pub r#type: MetricType,
    /// From what.
    pub type_params: TypeParams,
    /// A MySQL condition over the table's columns, or with MetricFlow's `{{ Dimension('orders__channel') }}`.
    #[serde(default)]
    pub filter: Option<String>,
    /// Ours: what screens call it by: letters, digits, `_`, `-` and `.`, at most 64. The name by default.
    #[serde(default)]
    pub code: Option<String>,
    /// Ours: `CNY`, `%`.
    #[serde(default)]
    pub unit: String,
    /// Ours: digits behind the point. Without it a sum has those of its column, and a quotient at most 6.
    #[serde(default)]
    pub decimals: Option<u8>,
    /// Ours: what it should be, at every grain and for everybody that `targets` does not name.
    #[serde(default)]
    #[schemars(with = "Option<f64>")]
    pub target: Option<Figure>,
    /// Ours: what it should be at a grain, in a period, of some members. The one that says most counts, of equals the last.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Ours: the status is that of the first threshold whose condition holds.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// Ours: who answers for it.
    #[serde(default)]
    pub owner: String,
    /// Ours: whether it can be relied on.
    #[serde(default)]
    #[schemars(extend("default" = "draft"))]
    pub status: MetricStatus,
    /// Ours: counts its definitions; every answer carries it.
    #[serde(default = "one")]
    #[schemars(extend("default" = 1))]
    pub version: u32,
    /// Ours: the dimensions that it is offered by. All of type `categorical` by default.
    #[serde(default)]
    pub dimensions: Option<Vec<String>>,
    /// Ours: the grains that it is offered at. All that its table's periods make by default.
    #[serde(default)]
    pub grains: Option<Vec<Grain>>,
    /// Ours: whether more is better; rank 1 is the best.
    #[serde(default)]
    #[schemars(extend("default" = "up"))]
    pub direction: Direction,
    /// Ours: grains and dimensions that no rollup has are computed from the table itself, which takes as long as it takes.
    #[serde(default)]
    pub allow_raw: bool,
}

fn one() -> u32 {
    1
}

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// One measure.
    Simple,
    /// A numerator by a denominator; NULL where that is zero.
    Ratio,
    /// An expression over other metrics.
    Derived,
    /// A measure over a span that ends with the period.
    Cumulative,
}

/// From what a metric is computed; each type has its own keys.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TypeParams {
    /// `simple` and `cumulative`: the measure.
    pub measure: Option<String>,
    /// `simple` and `cumulative`: the number of a period in which there is nothing to add up.
    #[schemars(with = "Option<f64>")]
    pub fill_nulls_with: Option<Figure>,
    /// `ratio`: a metric, or a measure.
    pub numerator: Option<String>,
    /// `ratio`: a metric, or a measure.
    pub denominator: Option<String>,
    /// `derived`: a MySQL expression over the names, or aliases, of `metrics`.
    pub expr: Option<String>,
    /// `derived`: what `expr` names.
    pub metrics: Vec<InputMetric>,
    /// `cumulative`: the span that ends with the period: `7 days`, `3 months`. All time without it and `grain_to_date`.
    pub window: Option<String>,
    /// `cumulative`: from the beginning of the month, quarter or year that the period is in.
    pub grain_to_date: Option<Grain>,
}

/// A metric that another one is derived from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputMetric {
    /// Its name.
    pub name: String,
    /// What `expr` calls it, where that is not its name.
    #[serde(default)]
    pub alias: Option<String>,
    /// How far back: `1 month`, `1 year`.
    #[serde(default)]
    pub offset_window: Option<String>,
}

/// What a metric should be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The number.
    #[schemars(with = "f64")]
    pub value: Figure,
    /// At this grain only.
    #[serde(default)]
    pub grain: Option<Grain>,
    /// In this period only: `2026`, `2026-Q4`, `2026-11`, `2026-W48`, `2026-11-28`.
    #[serde(default)]
    pub period: Option<String>,
    /// Of these members only: `{dept: north}`.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub dimensions: BTreeMap<String, String>,
}

/// A condition and the status it gives.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The status where the condition holds.
    pub status: Light,
    /// A MySQL condition over `value`, `target`, `previous`, `last_year`, `mom` and `yoy`: `value < target * 0.8`. The last two are rates:
    /// 0.1 is ten per cent more.
    pub when: String,
}

/// What a screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Light {
    Red,
    Yellow,
    Green,
}

/// Whether a metric can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricStatus {
    /// Answered, and its answers say so.
    #[default]
    Draft,
    /// Checked by its owner.
    Certified,
    /// Not answered any more.
    Retired,
}

/// Whether more is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Up,
    Down,
}

/// An exact number of a file. One with more than 15 digits is written in quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure(pub Decimal);

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Figure;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Figure, E> {
                Ok(Figure(Decimal::from_int(value.into())))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Figure, E> {
                Ok(Figure(Decimal::from_int(value.into())))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Figure, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Figure, E> {
                let wide = text.len() > 60;
                let number = Decimal::parse(text).filter(|it| !wide && it.scale() <= 20);
                number.map(Figure).ok_or_else(|| E::custom(format!("`{text}` is not a number")))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
