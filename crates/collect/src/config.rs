//! What users write in `flows/*.yaml` of a flow that collects. The doc comments are the manual.

use base::patterns::wildcard;
use base::schedule::Schedule;
use base::{Secret, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Rows a second that may be asked for.
const ROWS_PER_SECOND_MAX: u64 = 10_000_000;

/// Tables of a source that are read again and again, by schedule or on demand, into datasets of the project's engine: a flow
/// whose `mode` is `full`, `cursor` or `key_diff`. The file's name is the flow's name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectConfig {
    /// The source's name.
    pub from: String,
    /// Tables of the source, with `*` and `?`: `shop.orders` of a database, the name of a file without its ending, a sheet.
    /// All by default.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub tables: Vec<String>,
    /// How the dataset becomes what the source is.
    pub mode: Mode,
    /// The dataset's table: `ods.orders`. With several tables `ods.shop_*`, where `*` is the source's own name of the table,
    /// without its database. Letters, digits, `_` and Chinese characters.
    pub to: String,
    /// The columns that name a row, as the dataset calls them. By default the key of the source's table, where it has one.
    /// `key_diff` needs one; `cursor` without one appends rows, and with one replaces those that changed.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub key: Vec<String>,
    /// For `cursor`: the column that grows with each change of a row, as the source calls it: a number, a date or a time.
    #[serde(default)]
    pub cursor: Option<String>,
    /// When it runs: minute, hour, day of the month, month and day of the week, as in cron, in the `timezone` of
    /// tidemill.yaml, or in UTC. `"30 2 * * *"` is 02:30 each day. Without it, it runs on demand: `tidemill run FLOW`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub schedule: Option<Schedule>,
    /// Flows and models that it runs behind, when they ended well.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub after: Vec<String>,
    /// What happens when the source is not as it was.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub schema: Contract,
    /// New names of columns: `{old: new}`.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub rename: BTreeMap<String, String>,
    /// The only columns that are kept, as the source calls them, with `*` and `?`. All by default.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub columns: Vec<String>,
    /// Columns that are left out, in the same form.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub exclude_columns: Vec<String>,
    /// The time of day in which the source may be read, in the `timezone` of tidemill.yaml: `"01:00-06:00"`, also over midnight.
    /// A run outside of it fails at once, and one that is not done when it ends is stopped there. Always by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub window: Option<Window>,
    /// Rows a second that are read, over all tables. No limit by default.
    #[serde(default)]
    pub rows_per_second: Option<u64>,
    /// Rows of one transaction, 1 to 100000. One ends earlier at 4 MiB.
    #[serde(default)]
    #[schemars(extend("default" = BATCH_ROWS_DEFAULT))]
    pub batch_rows: Option<u32>,
    /// Rows of a run that may be put aside because they are bad. More of them fail it, and with `full` the old dataset stays. By
    /// default any number: the run ends with a warning.
    #[serde(default)]
    pub max_rejected: Option<u64>,
    /// How long a run may take.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = Span(TIMEOUT_DEFAULT).to_string()))]
    pub timeout: Option<Span>,
    /// How often a run that failed is tried again, where that can help.
    #[serde(default)]
    #[schemars(extend("default" = RETRIES_DEFAULT))]
    pub retries: Option<u32>,
    /// What a run is that reads no row at all, or with `full` and `key_diff` nothing but bad ones.
    #[serde(default)]
    pub zero_rows: ZeroRows,
    /// The project's time zone; not a key of the file.
    #[serde(skip)]
    #[schemars(skip)]
    pub timezone: Option<String>,
}

/// How long a run may take that does not say.
pub const TIMEOUT_DEFAULT: std::time::Duration = std::time::Duration::from_secs(6 * 3600);
/// Rows of a transaction of a flow that does not say.
pub const BATCH_ROWS_DEFAULT: u32 = 4096;
const BATCH_ROWS_MAX: u32 = 100_000;
/// How often a run is tried again that does not say.
pub const RETRIES_DEFAULT: u32 = 2;

/// How the dataset becomes what the source is.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every row, into a new table that takes the old one's place when it is whole.
    Full,
    /// The rows whose cursor is as large as that of the last row that was read, or larger. Deleted rows stay.
    Cursor,
    /// Every row is read, and what differs by key is inserted, updated and deleted.
    KeyDiff,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Cursor => "cursor",
            Self::KeyDiff => "key_diff",
        }
    }
}

/// What happens when the source is not as it was.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Contract {
    /// A table that matches and was not there when the flow ran first.
    pub tables: Policy,
    /// A column that is new or gone. One that is gone stays in the dataset, empty in rows that come; with `full` and
    /// `evolve` it goes.
    pub columns: Policy,
    /// A column of another type than before, and values that its type does not hold.
    pub types: Policy,
}

/// What to do with what is not as it was.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The dataset changes too. A value that its column does not hold puts its row aside.
    #[default]
    Evolve,
    /// The run fails, and says what changed.
    Freeze,
    /// The dataset stays as it is: rows with what it has no place for are put aside.
    DiscardRow,
    /// The dataset stays as it is: what it has no place for is left out, and is NULL.
    DiscardValue,
}

/// What a run is that reads no row.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroRows {
    /// It ends with a warning.
    #[default]
    Warn,
    /// It fails; with `full` and `key_diff` the dataset stays as it was.
    Fail,
    /// As any other.
    Ok,
}

/// A time of day from which to which something may happen; over midnight where the end is before the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Minutes of the day.
    pub from: u16,
    pub to: u16,
}

impl Window {
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl std::str::FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let (hour, minute) = (digits(hour).then_some(hour)?, digits(minute).then_some(minute)?);
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour <= 24 && minute < 60 && hour * 60 + minute <= 1440).then_some(hour * 60 + minute)
        };
        let read = || {
            let (from, to) = text.split_once('-')?;
            let (from, to) = (minute(from)?, minute(to)?);
            (from != to && from < 1440).then_some(Self { from, to })
        };
        read().ok_or_else(|| format!("`{text}` is no time of day: write \"01:00-06:00\""))
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl CollectConfig {
    /// What is wrong with it by itself, each with a hint.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let mut add = |message: String, hint: &str| out.push((message, hint.to_owned()));
        if let Err(message) = crate::names::check_target(&self.to) {
            add(message, "for example: to: ods.orders, or to: \"ods.shop_*\" for several tables");
        }
        if self.mode == Mode::Cursor && self.cursor.is_none() {
            add(
                "`mode: cursor` needs `cursor`".into(),
                "name the column that grows with each change: cursor: updated_at",
            );
        }
        if self.mode != Mode::Cursor && self.cursor.is_some() {
            add(
                format!("`cursor` means nothing to `mode: {}`", self.mode.name()),
                "remove it, or set mode: cursor",
            );
        }
        if let Some(cursor) = &self.cursor
            && !self.carries(cursor)
        {
            add(format!("the cursor `{cursor}` is left out by `columns` or `exclude_columns`"), "keep it");
        }
        let mut names: Vec<&String> = self.rename.values().collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            add(format!("`rename` names two columns `{}`", twice[0]), "give each a name of its own");
        }
        for name in self.rename.values().filter(|name| name.is_empty() || name.chars().count() > 64) {
            add(format!("`{name}` is no name of a column"), "use 1 to 64 characters");
        }
        if !(1..=ROWS_PER_SECOND_MAX).contains(&self.rows_per_second.unwrap_or(1)) {
            add(format!("`rows_per_second` is not 1 to {ROWS_PER_SECOND_MAX}"), "rows_per_second: 5000");
        }
        if !(1..=BATCH_ROWS_MAX).contains(&self.batch_rows.unwrap_or(1)) {
            add(format!("`batch_rows` is not 1 to {BATCH_ROWS_MAX}"), "batch_rows: 4096");
        }
        if self.to.contains('*')
            && !self.key.is_empty()
            && self.tables.len() == 1
            && !pattern(&self.tables[0])
        {
            add("`to` has a `*` and there is one table".into(), "name the dataset's table: to: ods.orders");
        }
        if !self.to.contains('*') && (self.tables.len() > 1 || self.tables.iter().any(|it| pattern(it))) {
            add(
                "`tables` may be several, and `to` is one table".into(),
                "to: \"ods.shop_*\", where * is the name of each table",
            );
        }
        out
    }

    /// Whether a column of the source is kept.
    pub fn carries(&self, column: &str) -> bool {
        let any = |list: &[String]| list.iter().any(|it| wildcard(it, column));
        (self.columns.is_empty() || any(&self.columns)) && !any(&self.exclude_columns)
    }

    /// Rows of one transaction.
    pub fn batch_rows(&self) -> usize {
        self.batch_rows.unwrap_or(BATCH_ROWS_DEFAULT) as usize
    }

    /// Whether a table of the source is meant.
    pub fn reads(&self, table: &str) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|it| wildcard(it, table))
    }
}

fn pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// `kind: tidb`: a TiDB cluster, or another server that speaks MySQL's protocol, whose tables are collected and not captured.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TidbConfig {
    /// What kind of system it is.
    pub kind: TidbKind,
    /// `mysql://user:password@host:4000`; several hosts are separated by commas, and the first that answers is read. The password
    /// is a reference, `${env:NAME}` or `${file:PATH}`.
    #[schemars(with = "String")]
    pub url: Secret,
    /// Tables that may be read, as `db.table`; `*` stands for any characters and `?` for one.
    #[serde(default = "all_tables")]
    #[schemars(extend("default" = ["*.*"]))]
    pub tables: Vec<String>,
    /// Tables to leave out, in the same form.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub exclude: Vec<String>,
    /// TLS to the server. Without this key, TLS is used where the server offers it, except to this machine.
    #[serde(default)]
    pub tls: Option<TlsMode>,
    /// For `tls: verify`: a PEM file with the only authorities that are trusted, relative to the project; the public ones by
    /// default.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TidbKind {
    Tidb,
}

/// TLS to a server.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Never.
    Off,
    /// Where the server offers it, whoever signed its certificate.
    Prefer,
    /// Always, whoever signed its certificate.
    Require,
    /// Always, and the certificate must name the host and be signed by an authority we trust.
    Verify,
}

fn all_tables() -> Vec<String> {
    vec!["*.*".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CollectConfig, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flow_that_collects_is_read_and_its_mistakes_are_told() {
        let good = "{from: shop, tables: [shop.orders], mode: cursor, cursor: updated_at, to: ods.orders, key: [id], \
                    window: \"22:00-06:00\", schema: {columns: freeze}, timeout: 1h, schedule: \"30 2 * * *\"}";
        let config = read(good).unwrap();
        assert_eq!(config.problems(), []);
        assert_eq!(config.schema.columns, Policy::Freeze);
        let window = config.window.unwrap();
        assert!(window.contains(23 * 60) && window.contains(0) && !window.contains(360));
        let bad =
            read("{from: s, tables: [\"shop.*\"], mode: cursor, to: \"ods.a b\", columns: [a]}").unwrap();
        let told: Vec<String> = bad.problems().into_iter().map(|(message, _)| message).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(read("{from: s, mode: full, to: ods.a, colums: [a]}").unwrap_err().contains("colums"));
        assert!(
            read("{from: s, mode: full, to: ods.a, window: \"1-2\"}").unwrap_err().contains("time of day")
        );
    }
}
