//! What is known of a model's rollups: `rollup.MODEL__meta`, one row, which is swapped in together with them.

use super::declared::Model;
use super::error::IndicatorError;
use base::Value;
use base::value::days_of_date;
use engine::{Engine, name_sql};

/// MySQL's number for a table that is not there.
const NO_TABLE: u16 = 1146;
/// MySQL's number for a database that is not there.
const NO_DATABASE: u16 = 1049;

/// Of which build the rollups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Grows with each build.
    pub version: i64,
    /// Milliseconds since the Unix epoch.
    pub built_ms: i64,
    /// A digest of the SQL that built them.
    pub definition: String,
    /// First days of the first and the last period of the finest grain; none where there are no rows.
    pub oldest: Option<i64>,
    pub newest: Option<i64>,
}

/// `None` before the first build.
pub async fn read(engine: &dyn Engine, model: &Model) -> Result<Option<Meta>, IndicatorError> {
    let table = name_sql(&format!("rollup.{}__meta", model.name));
    let sql = format!("SELECT `version`, `built_ms`, `definition`, `oldest`, `newest` FROM {table}");
    let rows = match engine.query(&sql).await {
        Ok(rows) => rows.all(1).await,
        Err(error) => Err(error),
    };
    let rows = match rows {
        Err(error) if matches!(error.number(), Some(NO_TABLE | NO_DATABASE)) => return Ok(None),
        other => other?,
    };
    let Some([version, built, definition, oldest, newest]) = rows.first().map(Vec::as_slice) else {
        return Ok(None);
    };
    let int = |value: &Value| match value {
        Value::Int(v) => *v,
        Value::UInt(v) => i64::try_from(*v).unwrap_or(i64::MAX),
        _ => 0,
    };
    let day = |value: &Value| match value {
        Value::Date(date) => Some(days_of_date(*date)),
        _ => None,
    };
    let definition = match definition {
        Value::Text(text) => text.clone(),
        _ => String::new(),
    };
    Ok(Some(Meta {
        version: int(version),
        built_ms: int(built),
        definition,
        oldest: day(oldest),
        newest: day(newest),
    }))
}
