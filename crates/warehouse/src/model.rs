//! A model: a file of `models/**/*.sql`, which is a header and one SELECT.
//!
//! ```sql
//! /* @model
//! kind: incremental_by_time
//! time_column: day
//! start: 2026-01-01
//! checks:
//!   - not_null: [day, dept]
//! */
//! SELECT o.day, o.dept, SUM(o.amount) AS amount
//! FROM ods.orders AS o
//! WHERE o.day BETWEEN @start_ds AND @end_ds
//! GROUP BY o.day, o.dept
//! ```

use crate::check::CheckConfig;
use crate::interval::Grain;
use crate::macros;
use base::near::nearest;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

/// Where a header begins, and where it ends.
const HEADER: (&str, &str) = ("/* @model", "*/");
/// Letters of a name of a dataset or table; parts of a change are longer by a suffix, and MySQL has 64.
pub const NAME_CHARS_MAX: usize = 46;

/// What the header of a model says.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// How the table is made and kept.
    #[serde(default)]
    pub kind: ModelKind,
    /// `dataset.table`; by default the file's folder and its name: `models/dws/daily.sql` is `dws.daily`.
    #[serde(default)]
    pub name: Option<String>,
    /// Columns that name a row. For `incremental_by_key` and `snapshot` it is needed.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub key: Vec<String>,
    /// For `incremental_by_time`: the column that says which interval a row belongs to: a DATE or DATETIME in the project's time zone.
    #[serde(default)]
    pub time_column: Option<String>,
    /// For `incremental_by_time`: the first day.
    #[serde(default, deserialize_with = "day")]
    #[schemars(with = "Option<String>")]
    pub start: Option<Date>,
    /// For `incremental_by_time`: how long an interval is. One is computed when it is over.
    #[serde(default)]
    #[schemars(extend("default" = "day"))]
    pub grain: Grain,
    /// For `incremental_by_time`: each run computes the newest interval and so many before it again, for rows that come late. With
    /// 0 an interval is computed once, so that everything it reads must be there when its first run comes.
    #[serde(default)]
    #[schemars(extend("default" = crate::build::LOOKBACK))]
    pub lookback: Option<u32>,
    /// For `incremental_by_time`: intervals that one transaction replaces at the most. A month of days by default.
    #[serde(default)]
    pub batch: Option<u32>,
    /// For `snapshot`: the columns whose change makes a new version; all by default.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub compare: Vec<String>,
    /// Indexes of the table, each a list of columns.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub indexes: Vec<Vec<String>>,
    /// When it runs by itself, by cron in the project's time zone. Without it the model runs behind what it reads.
    #[serde(default)]
    pub schedule: Option<String>,
    /// Flows and models that it runs behind besides those it reads.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub after: Vec<String>,
    /// What must hold of its rows before readers see them.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub checks: Vec<CheckConfig>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    /// Longest time of one run; an hour by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<base::Span>,
    /// How often a run that could not reach the engine is tried again.
    #[serde(default)]
    #[schemars(extend("default" = 2))]
    pub retries: Option<u32>,
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |_| serde::de::Error::custom(format!("`{text}` is no day: write 2026-01-31"));
    text.parse().map(Some).map_err(wrong)
}

/// How a model's table is made and kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Made anew by each run, and swapped in.
    #[default]
    Full,
    /// A view: computed when it is read.
    View,
    /// Intervals of time, each computed once, when it is over; those that are missing are made up for.
    IncrementalByTime,
    /// Rows are replaced by their key; those that the query does not give stay.
    IncrementalByKey,
    /// Every version of a row with the time from and to which it held (slowly changing dimension, type 2): `valid_from`, and
    /// `valid_to`, which is NULL for the present one.
    Snapshot,
}

impl ModelKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::View => "view",
            Self::IncrementalByTime => "incremental_by_time",
            Self::IncrementalByKey => "incremental_by_key",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A model that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `dataset.table`.
    pub name: String,
    /// The file, relative to the project.
    pub path: String,
    pub config: ModelConfig,
    /// The query, with its macros.
    pub sql: String,
    /// The line of the file on which [`Model::sql`] begins, from 1.
    pub sql_line: u64,
    /// Tables and views that the query reads.
    pub reads: Vec<String>,
    /// Changes with everything that decides what is in the table.
    pub fingerprint: String,
}

/// A mistake in a file, at a line and column from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub line: u64,
    pub column: u64,
    pub message: String,
    pub hint: String,
}

impl Mistake {
    fn new(line: u64, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { line, column: 1, message: message.into(), hint: hint.into() }
    }
}

/// Reads a model's file; `path` is relative to the project and begins with `models/`.
pub fn parse(path: &str, text: &str) -> Result<Model, Vec<Mistake>> {
    let (header, sql, header_line, sql_line) = split(text).map_err(|mistake| vec![mistake])?;
    let config: ModelConfig = if header.trim().is_empty() {
        serde_saphyr::from_str("{}").map_err(|error| vec![Mistake::new(1, error.to_string(), "")])?
    } else {
        serde_saphyr::from_str(header).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |it| (it.line(), it.column()));
            let message = error.without_snippet().to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            let hint = "docs/guides/models.md tells of them".into();
            vec![Mistake { line: line + header_line - 1, column, message, hint }]
        })?
    };
    let mut mistakes = Vec::new();
    let name = config.name.clone().or_else(|| name_of(path)).unwrap_or_default();
    if let Err((message, hint)) = check_name(&name) {
        mistakes.push(Mistake::new(header_line, message, hint));
    }
    for (message, hint) in config_problems(&config) {
        mistakes.push(Mistake::new(header_line, message, hint));
    }
    let timed = config.kind == ModelKind::IncrementalByTime;
    let reads = match macros::sample(sql, timed).and_then(|sql| {
        engine::relations(&sql).map_err(|error| {
            let (line, column, message) = placed(&error);
            let hint = base::Fault::hint(&error).unwrap_or_else(|| "a model is one SELECT".into());
            Mistake { line, column, message, hint }
        })
    }) {
        Ok(reads) => reads,
        Err(mut mistake) => {
            mistake.line += sql_line - 1;
            mistakes.push(mistake);
            Vec::new()
        }
    };
    if reads.iter().any(|it| it.eq_ignore_ascii_case(&name)) {
        let hint = "a model is made of other tables; what it had is in its intervals";
        mistakes.push(Mistake::new(sql_line, format!("`{name}` reads itself"), hint));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let fingerprint = fingerprint(&config, sql);
    let (path, sql) = (path.to_owned(), sql.trim_end().trim_end_matches(';').to_owned());
    Ok(Model { name, path, config, sql, sql_line, reads, fingerprint })
}

/// Line, column and message of an engine's error; line 1 where it has none.
pub fn placed(error: &engine::EngineError) -> (u64, u64, String) {
    use engine::EngineError as E;
    match error {
        E::Refused { message, line, column, .. } => ((*line).max(1), (*column).max(1), message.clone()),
        E::Sql { number, message, line, column } => {
            ((*line).max(1), (*column).max(1), format!("error {number}: {message}"))
        }
        other => (1, 1, other.to_string()),
    }
}

/// The header, the query, and the lines on which they begin.
fn split(text: &str) -> Result<(&str, &str, u64, u64), Mistake> {
    let lines = |text: &str| text.matches('\n').count() as u64;
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let before = lines(&text[..text.len() - start.len()]);
    let Some(rest) = start.strip_prefix(HEADER.0) else {
        if start.is_empty() {
            return Err(Mistake::new(1, "the file is empty", "write a SELECT"));
        }
        return Ok(("", start, 1, before + 1));
    };
    let Some((header, sql)) = rest.split_once(HEADER.1) else {
        let hint = "the header is a comment: /* @model … */";
        return Err(Mistake::new(before + 1, "the header has no end", hint));
    };
    let body = sql.trim_start();
    if body.is_empty() {
        return Err(Mistake::new(before + 1, "there is no query behind the header", "write a SELECT"));
    }
    let sql_line = lines(&text[..text.len() - body.len()]) + 1;
    Ok((header, body, before + 1, sql_line))
}

/// `models/dws/daily.sql` → `dws.daily`
fn name_of(path: &str) -> Option<String> {
    let mut parts = path.strip_suffix(".sql")?.rsplit('/');
    let (table, dataset) = (parts.next()?, parts.next()?);
    (dataset != "models").then(|| format!("{dataset}.{table}"))
}

/// Whether a text is `dataset.table`; else what is wrong and what to do.
pub fn check_name(name: &str) -> Result<(), (String, String)> {
    let Some((dataset, table)) = name.split_once('.') else {
        let hint =
            "put the file into a folder of its dataset, models/dws/daily.sql, or write name: dws.daily";
        return Err((format!("`{name}` names no dataset"), hint.into()));
    };
    for part in [dataset, table] {
        let plain = |c: char| c == '_' || c.is_alphanumeric();
        if part.is_empty() || part.chars().count() > NAME_CHARS_MAX || !part.chars().all(plain) {
            let hint = format!("letters, digits and _, at most {NAME_CHARS_MAX}, as in dws.daily");
            return Err((format!("`{name}` is no name of a table"), hint));
        }
    }
    let system = ["mysql", "information_schema", "performance_schema", "sys", "rollup"];
    if system.contains(&dataset.to_lowercase().as_str()) || engine::is_own(name) {
        return Err((
            format!("the name `{name}` is kept for the server or the platform"),
            "choose another".into(),
        ));
    }
    Ok(())
}

fn config_problems(config: &ModelConfig) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut add = |message: String, hint: &str| problems.push((message, hint.to_owned()));
    let kind = config.kind;
    let timed = kind == ModelKind::IncrementalByTime;
    if timed && config.time_column.is_none() {
        add("`incremental_by_time` has no `time_column`".into(), "for example: time_column: day");
    }
    if timed && config.start.is_none() {
        add("`incremental_by_time` has no `start`".into(), "the first day: start: 2026-01-01");
    }
    let only_timed = [
        ("time_column", config.time_column.is_some()),
        ("start", config.start.is_some()),
        ("lookback", config.lookback.is_some()),
        ("batch", config.batch.is_some()),
    ];
    for (name, given) in only_timed {
        if given && !timed {
            let kind = kind.name();
            add(format!("`{name}` has no effect on a model of kind `{kind}`"), "kind: incremental_by_time");
        }
    }
    if config.batch == Some(0) {
        add("`batch` is 0".into(), "at least one interval is replaced at once");
    }
    let keyed = matches!(kind, ModelKind::IncrementalByKey | ModelKind::Snapshot);
    if keyed && config.key.is_empty() {
        add(format!("`{}` has no `key`", kind.name()), "for example: key: [id]");
    }
    if !config.compare.is_empty() && kind != ModelKind::Snapshot {
        add(format!("`compare` has no effect on a model of kind `{}`", kind.name()), "kind: snapshot");
    }
    if kind == ModelKind::View && !(config.key.is_empty() && config.indexes.is_empty()) {
        add("a view has no key and no indexes".into(), "kind: full");
    }
    if let Some(schedule) = &config.schedule
        && let Err(error) = schedule.parse::<base::schedule::Schedule>()
    {
        add(error, "minute, hour, day, month, weekday: schedule: \"30 2 * * *\" is 02:30 each day");
    }
    for check in &config.checks {
        if let Err((message, hint)) = check.problem() {
            problems.push((message, hint));
        }
    }
    problems
}

/// What decides the rows and the table; checks, owners and schedules do not.
fn fingerprint(config: &ModelConfig, sql: &str) -> String {
    let ModelConfig { kind, key, time_column, start, grain, compare, indexes, .. } = config;
    let text = format!("{kind:?} {key:?} {time_column:?} {start:?} {grain:?} {compare:?} {indexes:?}");
    let digest = Sha256::new().chain_update(text).chain_update([0]).chain_update(sql.trim()).finalize();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The column of a list that a name means, or a message about it.
pub fn column_named<'c>(
    columns: &'c [base::Column],
    name: &str,
) -> Result<&'c base::Column, (String, String)> {
    columns.iter().find(|it| it.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<&str> = columns.iter().map(|it| it.name.as_str()).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`? there are: {}", names.join(", ")),
            None => format!("there are: {}", names.join(", ")),
        };
        (format!("the query gives no column `{name}`"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAILY: &str = "\u{feff}\n/* @model\nkind: incremental_by_time\ntime_column: day\nstart: 2026-01-01\n*/\n\nSELECT day, SUM(x) AS x\nFROM ods.a WHERE day BETWEEN @start_ds AND @end_ds GROUP BY day;\n";

    #[test]
    fn a_file_is_a_header_and_a_query() {
        let model = parse("models/dws/daily.sql", DAILY).unwrap();
        assert_eq!(model.name, "dws.daily");
        assert_eq!(model.sql_line, 8);
        assert_eq!(model.reads, ["ods.a"]);
        assert!(model.sql.ends_with("GROUP BY day"));
        let plain = parse("models/a/b/plain.sql", "with q as (select 1 as n) select n from q").unwrap();
        assert_eq!((plain.name.as_str(), plain.config.kind), ("b.plain", ModelKind::Full));
        assert!(plain.reads.is_empty());
    }

    #[test]
    fn only_what_decides_the_rows_changes_the_fingerprint() {
        let base = parse("models/dws/daily.sql", DAILY).unwrap();
        let with = |line: &str| {
            let text = DAILY.replace("start: 2026-01-01\n", &format!("start: 2026-01-01\n{line}\n"));
            parse("models/dws/daily.sql", &text).unwrap().fingerprint
        };
        assert_eq!(with("owner: someone"), base.fingerprint);
        assert_eq!(with("lookback: 3"), base.fingerprint);
        assert_ne!(with("key: [day]"), base.fingerprint);
    }

    #[test]
    fn mistakes_have_their_line() {
        let told = |path: &str, text: &str| {
            let mistakes = parse(path, text).unwrap_err();
            mistakes.iter().map(|it| format!("{}: {}", it.line, it.message)).collect::<Vec<_>>().join("\n")
        };
        let unknown = told("models/a/b.sql", "\n/* @model\nkind: full\nkinds: x\n*/\nselect 1");
        assert!(unknown.starts_with("4: unknown field `kinds`, expected one of kind, name, "), "{unknown}");
        let twice = told(
            "models/a/b.sql",
            "/* @model\nkind: incremental_by_time\n*/\n\nselect @start_ds as a\nfrom t where )",
        );
        assert!(twice.contains("1: `incremental_by_time` has no `time_column`"), "{twice}");
        assert!(twice.contains("6: error 1064"), "{twice}");
        for (path, text, wanted) in [
            ("models/b.sql", "select 1 as a", "names no dataset"),
            ("models/a/b-c.sql", "select 1 as a", "`a.b-c` is no name of a table"),
            ("models/mysql/user.sql", "select 1 as a", "is kept for"),
            ("models/a/b.sql", "delete from x.y", "this is no query"),
            ("models/a/b.sql", "select x from a.B", "`a.b` reads itself"),
            ("models/a/b.sql", "/* @model\nkind: full", "the header has no end"),
            ("models/a/b.sql", "/* @model\nkind: full\n*/\n", "no query behind"),
            ("models/a/b.sql", "  ", "the file is empty"),
            ("models/a/b.sql", "/* @model\nlookback: 2\n*/ select 1 as a", "`lookback` has no effect"),
            ("models/a/b.sql", "/* @model\nkind: snapshot\n*/ select 1 as a", "`snapshot` has no `key`"),
            ("models/a/b.sql", "/* @model\nschedule: daily\n*/ select 1 as a", "is no schedule"),
            ("models/a/b.sql", "select @start_ds as a", "has no intervals"),
        ] {
            let mistakes = told(path, text);
            assert!(mistakes.contains(wanted), "{text}: {mistakes}");
        }
    }
}
