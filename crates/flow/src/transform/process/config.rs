//! What users write for the steps that take texts apart. The doc comments are the manual.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What becomes of a row that a step has no answer for.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Set aside with the reason; `flow dead-letters` shows it and `flow retry` tries it again.
    #[default]
    Park,
    /// The step's columns are NULL, and the row goes on.
    Null,
    /// The row is left out, as by a filter.
    Skip,
}

/// Takes a text apart by named patterns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrokStep {
    /// The column with the text.
    pub column: String,
    /// Patterns; the first that matches counts. `%{NAME:column:type}` takes what the pattern NAME matches into a column;
    /// `%{NAME}` takes it nowhere. The rest is a regular expression without look-around and back-references, searched
    /// for anywhere in the text.
    pub r#match: Vec<String>,
    /// Patterns of your own: `{ORDER: "[A-Z]{2}[0-9]+"}`.
    #[serde(default)]
    pub define: BTreeMap<String, String>,
    #[serde(default)]
    pub on_error: OnError,
}

/// Takes a text apart by the characters between its parts; faster than `grok`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DissectStep {
    /// The column with the text.
    pub column: String,
    /// `%{column:type}` and what stands between: `"%{host} [%{level}] %{took:int}"`. `%{}` takes a part nowhere;
    /// `%{column->}` passes over repeated delimiters behind it.
    pub pattern: String,
    #[serde(default)]
    pub on_error: OnError,
}

/// Reads a date and time from a text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DateStep {
    /// The column with the text; for `UNIX` and `UNIX_MS` it may be a number.
    pub column: String,
    /// Tried in order: `ISO8601`, `UNIX` (seconds), `UNIX_MS`, or a pattern such as `dd/MMM/yyyy:HH:mm:ss Z`.
    pub formats: Vec<String>,
    /// The column that is made; the column itself by default.
    #[serde(default)]
    pub into: Option<String>,
    /// The zone of texts that name none, as in the IANA database: `Asia/Shanghai`. UTC by default.
    #[serde(default)]
    pub timezone: Option<String>,
    /// `timestamp(3)` by default; `datetime(3)` holds the same instant as the calendar shows it in UTC. The digits are those
    /// of the fraction, 0 to 6.
    #[serde(default)]
    pub r#type: Option<String>,
    #[serde(default)]
    pub on_error: OnError,
}

/// Takes columns out of JSON.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonStep {
    /// A JSON or text column.
    pub column: String,
    /// The columns that are made: `{user_id: {path: "$.user.id", type: int}}`. What the path does not lead to is NULL.
    pub columns: BTreeMap<String, JsonColumn>,
    #[serde(default)]
    pub on_error: OnError,
}

/// A column of a `json` step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonColumn {
    /// `$.member`, `$."a member"`, `$.list[0]`.
    pub path: String,
    /// The column's type; `text` by default.
    #[serde(default)]
    pub r#type: Option<String>,
}

/// Adds columns from a file that is beside the flow, or from another table of the source, by the value of a column.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LookupStep {
    /// The column whose value is looked up.
    pub column: String,
    /// A file in the project's folder: `.csv` with a header line, or `.json` with a list of objects. Read when the flow
    /// begins to deliver: at a start, after `flow pause` and `flow resume`, and after an error.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// In place of a file: a `db.table` of the source, of which the node then keeps a mirror. What counts is its row at the
    /// time of delivery; when it changes later, rows that were delivered stay as they are. Needs a table with a key on both
    /// sides, and no `filter` and no `split` behind it.
    #[serde(default)]
    pub table: Option<String>,
    /// The column of the file or table that holds the values. Of a table, one of its own type of values (numbers, texts), and of
    /// several rows the first by their key counts.
    pub key: String,
    /// The columns that are added, with their types: `{label: text, rank: int}`.
    pub columns: BTreeMap<String, String>,
    /// What columns hold where there is no such value; NULL by default.
    #[serde(default)]
    pub default: BTreeMap<String, String>,
}

/// Makes one row of each element of a list. The key grows by a column with the element's place, from 0.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitStep {
    /// A text column, with `separator`, or a JSON array without. Holds the element afterwards. NULL, an empty text and an
    /// empty array make no row.
    pub column: String,
    /// What stands between the elements of a text.
    #[serde(default)]
    pub separator: Option<String>,
    /// The column's type afterwards; `text` by default.
    #[serde(default)]
    pub r#type: Option<String>,
    /// The name of the place's column; `#` by default.
    #[serde(default)]
    pub index: Option<String>,
    #[serde(default)]
    pub on_error: OnError,
}

/// Makes a point of two numbers: `{"lat": 48.2, "lon": 16.37}`, as Elasticsearch reads a `geo_point`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeoPointStep {
    /// The column with the latitude, -90 to 90.
    pub lat: String,
    /// The column with the longitude, -180 to 180.
    pub lon: String,
    /// The JSON column that is made.
    pub into: String,
    #[serde(default)]
    pub on_error: OnError,
}

/// Tells browser, version, system and device from a browser's `User-Agent`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserAgentStep {
    /// The column with the text.
    pub column: String,
    /// What the names of the four columns begin with: `ua_` by default, for `ua_browser`, `ua_version`, `ua_os` and
    /// `ua_device`.
    #[serde(default)]
    pub prefix: Option<String>,
}
