//! Tests of models: rows in, rows out, on an engine that is made for the test and nothing else.
//!
//! ```yaml
//! # tests/daily.yaml
//! sums_by_day:
//!   model: dws.daily
//!   from: 2026-01-01            # of a model with intervals: the first day, and the last
//!   to: 2026-01-02
//!   inputs:
//!     ods.orders:
//!       columns: {day: date, amount: "decimal(10,2)"}    # what the values do not tell
//!       rows:
//!         - {id: 1, day: 2026-01-01, dept: a, amount: 1.10}
//!   outputs:
//!     - {day: 2026-01-01, dept: a, amount: 1.10, n: 1}
//! ```

use crate::build::table_columns;
use crate::error::WarehouseError;
use crate::interval::Interval;
use crate::macros;
use crate::model::{Model, ModelKind};
use base::{Column, ColumnType, Generated, Value};
use engine::{Engine, Options, Write, cell_text, create_sql, kept, name_sql};
use jiff::ToSpan;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Rows of one input or output.
const ROWS_MAX: usize = 10_000;
/// Rows of a difference that are shown.
const SHOWN_MAX: usize = 10;

/// A file of `tests/*.yaml`: tests by name.
pub type TestFile = BTreeMap<String, TestConfig>;

/// One test.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestConfig {
    /// The model, `dataset.table`.
    pub model: String,
    /// Of `incremental_by_time`: the first day that is computed.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub from: Option<String>,
    /// The last day, which is computed too; the first by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub to: Option<String>,
    /// The tables that the model reads, by name. One that is not named is empty, where its columns are known of another test's
    /// `columns`; so name all.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub inputs: BTreeMap<String, InputConfig>,
    /// The rows that the query must give, in any order. A column that no row names is not compared.
    pub outputs: Vec<Map<String, Json>>,
}

/// Rows of an input.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
    /// Types of columns as CREATE TABLE has them. One that is not named has the type that its values look like: `bigint`,
    /// `decimal(38,10)`, `date`, `datetime(6)` or `varchar(4096)`.
    pub columns: BTreeMap<String, String>,
    pub rows: Vec<Map<String, Json>>,
}

/// How a test ended: empty when the rows are those that are wanted, else lines that say what differs.
pub type Difference = Vec<String>;

/// Runs a test of a model, in a file below `folder` that goes with it.
pub async fn run(model: &Model, test: &TestConfig, folder: &Path) -> Result<Difference, WarehouseError> {
    let path = folder.join("test.db");
    let engine = engine::open(&format!("sqlite:{}", path.display()), folder, Options::default())
        .await
        .map_err(WarehouseError::of("make the test's engine"))?;
    let engine = &*engine;
    for name in &model.reads {
        if !test.inputs.keys().any(|it| it.eq_ignore_ascii_case(name)) {
            let hint = format!("inputs: {{{name}: {{columns: {{id: int}}, rows: []}}}}");
            return Err(WarehouseError::unfit(
                format!("the model reads `{name}`, which the test does not give"),
                hint,
            ));
        }
    }
    for (name, input) in &test.inputs {
        crate::model::check_name(name).map_err(|(message, hint)| WarehouseError::unfit(message, hint))?;
        let filled = fill(engine, name, input).await;
        filled.map_err(|error| named(error, &format!("input `{name}`")))?;
    }
    let sql = match (model.config.kind == ModelKind::IncrementalByTime, &test.from) {
        (true, None) => {
            let hint = "the days that are computed: from: 2026-01-01";
            return Err(WarehouseError::unfit("the model has intervals, and the test names none", hint));
        }
        (true, Some(from)) => macros::applied(&model.sql, &days(from, test.to.as_deref())?),
        (false, _) => model.sql.clone(),
    };
    let given = engine.check(&sql).await.map_err(|error| {
        let (line, column, message) = crate::model::placed(&error);
        let message = format!("{}:{}:{column}: {message}", model.path, line + model.sql_line - 1);
        WarehouseError::unfit(message, base::Fault::hint(&error).unwrap_or_default())
    })?;
    let compared: BTreeSet<String> = test.outputs.iter().flat_map(|row| row.keys()).cloned().collect();
    for name in &compared {
        crate::model::column_named(&given, name)
            .map_err(|(message, hint)| WarehouseError::unfit(message, hint))?;
    }
    let is_compared = |column: &&Column| {
        compared.is_empty() || compared.iter().any(|it| it.eq_ignore_ascii_case(&column.name))
    };
    let columns: Vec<Column> =
        table_columns(model, &given).into_iter().filter(|it| is_compared(&it)).map(nullable).collect();
    let names = columns.iter().map(|it| name_sql(&it.name)).collect::<Vec<_>>().join(", ");
    let failed = || WarehouseError::of("compute the rows");
    // Both sides go through the same table's rules.
    for table in ["out.got", "out.wanted"] {
        engine.execute(&create_sql(table, &columns, &[])).await.map_err(failed())?;
    }
    let insert = format!("INSERT INTO out.got ({names}) SELECT {names} FROM ({sql}\n) AS q");
    engine.execute(&insert).await.map_err(failed())?;
    let rows = test.outputs.iter().map(|row| cells(row, &columns)).collect::<Result<_, _>>()?;
    let wanted = Write::Put { table: "out.wanted".into(), columns: texts(&columns), rows, replace: false };
    let put = engine.write(vec![wanted]).await;
    put.map_err(|error| named(WarehouseError::of("read the wanted rows")(error), "outputs"))?;
    let (mut got, mut wanted) = (shown(engine, "out.got").await?, shown(engine, "out.wanted").await?);
    got.sort();
    wanted.sort();
    Ok(difference(&columns, got, wanted))
}

fn named(error: WarehouseError, what: &str) -> WarehouseError {
    let hint = base::Fault::hint(&error).unwrap_or_default();
    WarehouseError::unfit(format!("{what}: {}", base::error::chain(&error)), hint)
}

fn nullable(column: Column) -> Column {
    Column { nullable: true, ..column }
}

/// The same columns as texts, which the engine reads by each column's rules.
fn texts(columns: &[Column]) -> Vec<Column> {
    columns.iter().map(|it| text_column(&it.name)).collect()
}

fn text_column(name: &str) -> Column {
    let column = Column {
        name: name.to_owned(),
        ty: ColumnType::Text { chars_max: u64::MAX },
        sql_type: "longtext".into(),
        nullable: true,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    };
    kept(&column, false)
}

fn days(from: &str, to: Option<&str>) -> Result<Interval, WarehouseError> {
    let read = |text: &str| {
        text.parse::<Date>()
            .map_err(|_| WarehouseError::unfit(format!("`{text}` is no day"), "write 2026-01-31"))
    };
    let (first, last) = (read(from)?, read(to.unwrap_or(from))?);
    let midnight = |day: Date| day.at(0, 0, 0, 0);
    Ok(Interval { start: midnight(first), end: midnight(last).saturating_add(1.day()) })
}

async fn fill(engine: &dyn Engine, name: &str, input: &InputConfig) -> Result<(), WarehouseError> {
    let mut names: Vec<&String> = input.columns.keys().collect();
    for row in &input.rows {
        for key in row.keys() {
            if !names.iter().any(|it| it.eq_ignore_ascii_case(key)) {
                names.push(key);
            }
        }
    }
    if names.is_empty() || input.rows.len() > ROWS_MAX {
        let hint = format!("name its columns, and give it {ROWS_MAX} rows at the most");
        return Err(WarehouseError::unfit(
            format!("{} columns and {} rows", names.len(), input.rows.len()),
            hint,
        ));
    }
    let declared: Vec<String> = names
        .iter()
        .map(|column| {
            let ty = input.columns.get(*column).cloned();
            let ty =
                ty.unwrap_or_else(|| looks_like(input.rows.iter().filter_map(|row| row.get(*column))).into());
            format!("{} {ty}", name_sql(column))
        })
        .collect();
    let failed = || WarehouseError::of(format!("make `{name}`"));
    let create = format!("CREATE TABLE {} ({})", name_sql(name), declared.join(", "));
    engine.execute(&create).await.map_err(failed())?;
    let columns: Vec<Column> = names.iter().map(|it| text_column(it)).collect();
    let rows = input.rows.iter().map(|row| cells(row, &columns)).collect::<Result<_, _>>()?;
    let put = Write::Put { table: name.to_owned(), columns, rows, replace: false };
    engine.write(vec![put]).await.map_err(failed()).map(|_| ())
}

/// The cells of a row, as text; a column that it does not name is NULL.
fn cells(row: &Map<String, Json>, columns: &[Column]) -> Result<Vec<Value>, WarehouseError> {
    columns
        .iter()
        .map(|column| {
            let value = row.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name));
            Ok(match value.map(|(_, value)| value) {
                None | Some(Json::Null) => Value::Null,
                Some(Json::String(text)) => Value::Text(text.clone()),
                Some(Json::Bool(value)) => Value::Text(u8::from(*value).to_string()),
                Some(Json::Number(number)) => Value::Text(number.to_string()),
                Some(other) => Value::Text(other.to_string()),
            })
        })
        .collect()
}

/// The type that holds all of these.
fn looks_like<'v>(values: impl Iterator<Item = &'v Json>) -> &'static str {
    let mut types: BTreeSet<&str> = values
        .filter(|it| !it.is_null())
        .map(|value| match value {
            Json::Bool(_) => "bigint",
            Json::Number(number) if number.is_i64() || number.is_u64() => "bigint",
            Json::Number(_) => "decimal(38,10)",
            Json::String(text) if text.len() == 10 && text.parse::<Date>().is_ok() => "date",
            Json::String(text)
                if text.len() >= 19
                    && text.replacen(' ', "T", 1).parse::<jiff::civil::DateTime>().is_ok() =>
            {
                "datetime(6)"
            }
            _ => "varchar(4096)",
        })
        .collect();
    match (types.pop_first(), types.pop_first(), types.is_empty()) {
        (Some(only), None, _) => only,
        (Some("bigint"), Some("decimal(38,10)"), true) => "decimal(38,10)",
        (Some("date"), Some("datetime(6)"), true) => "datetime(6)",
        _ => "varchar(4096)",
    }
}

async fn shown(engine: &dyn Engine, table: &str) -> Result<Vec<Vec<Option<String>>>, WarehouseError> {
    let failed = || WarehouseError::of("read the rows");
    let rows = engine.query(&format!("SELECT * FROM {table}")).await.map_err(failed())?;
    let columns = rows.columns.clone();
    let rows = rows.all(ROWS_MAX).await.map_err(failed())?;
    Ok(rows.iter().map(|row| row.iter().zip(&columns).map(|(v, c)| cell_text(v, c)).collect()).collect())
}

/// Of two sorted lists, the rows that only one has.
fn difference(
    columns: &[Column],
    got: Vec<Vec<Option<String>>>,
    wanted: Vec<Vec<Option<String>>>,
) -> Difference {
    let worded = |mark: &str, row: &Vec<Option<String>>| {
        let cells: Vec<String> = columns
            .iter()
            .zip(row)
            .map(|(column, cell)| format!("{}: {}", column.name, cell.as_deref().unwrap_or("NULL")))
            .collect();
        format!("{mark} {{{}}}", cells.join(", "))
    };
    let mut lines = Vec::new();
    let (mut got, mut wanted) = (got.into_iter().peekable(), wanted.into_iter().peekable());
    loop {
        let order = match (got.peek(), wanted.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.cmp(other),
        };
        match order {
            std::cmp::Ordering::Less => lines.extend(got.next().map(|row| worded("+", &row))),
            std::cmp::Ordering::Greater => lines.extend(wanted.next().map(|row| worded("-", &row))),
            std::cmp::Ordering::Equal => {
                got.next();
                wanted.next();
            }
        }
    }
    if lines.len() > SHOWN_MAX {
        let more = lines.len() - SHOWN_MAX;
        lines.truncate(SHOWN_MAX);
        lines.push(format!("… and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "/* @model\nkind: incremental_by_time\ntime_column: day\nstart: 2026-01-01\n*/\nselect day, dept, sum(amount) as amount, count(*) as n from ods.orders where day between @start_ds and @end_ds group by day, dept";
    const TEST: &str = "
model: dws.daily
from: 2026-01-01
to: 2026-01-02
inputs:
  ods.orders:
    columns: {amount: 'decimal(10,2)'}
    rows:
      - {day: 2026-01-01, dept: a, amount: 1.10}
      - {day: 2026-01-01, dept: a, amount: 2.2}
      - {day: 2026-01-02, dept: null, amount: 3}
      - {day: 2026-01-03, dept: a, amount: 4}
outputs:
  - {day: 2026-01-02, dept: null, amount: 3.00}
  - {day: 2026-01-01, dept: a, amount: 3.3}
";

    async fn told(test: &str) -> Result<Difference, String> {
        let model = crate::model::parse("models/dws/daily.sql", MODEL).unwrap();
        let test: TestConfig = serde_saphyr::from_str(test).unwrap();
        let folder = tempfile::tempdir().unwrap();
        run(&model, &test, folder.path()).await.map_err(|error| base::error::chain(&error))
    }

    #[tokio::test]
    async fn a_test_holds_the_rows_of_a_model_against_those_that_are_wanted() {
        assert_eq!(told(TEST).await.unwrap(), Vec::<String>::new());
        let lines = told(&TEST.replace("amount: 3.3}", "amount: 3.4}")).await.unwrap();
        assert_eq!(
            lines,
            ["+ {day: 2026-01-01, dept: a, amount: 3.30}", "- {day: 2026-01-01, dept: a, amount: 3.40}"]
        );
        let counted = told(&TEST.replace("amount: 3.3}", "amount: 3.3, n: 2}")).await.unwrap();
        assert_eq!(counted.len(), 2, "{counted:?}");
        for (test, wanted) in [
            (TEST.replace("ods.orders:", "ods.other:"), "reads `ods.orders`, which the test does not give"),
            (TEST.replace("from: 2026-01-01\n", ""), "the test names none"),
            (TEST.replace("amount: 3.00", "amounts: 3.00"), "gives no column `amounts`"),
            (TEST.replace("amount: 2.2}", "amount: much}"), "input `ods.orders`"),
            (TEST.replace("to: 2026-01-02", "to: tomorrow"), "`tomorrow` is no day"),
        ] {
            let error = told(&test).await.unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
