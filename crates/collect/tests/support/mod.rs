//! What the tests share: sources, engines, runs, and what a dataset holds.

#![expect(dead_code, reason = "each test file uses a part")]

pub mod failing;
pub mod given;

use base::patterns::Patterns;
use base::{Secret, Value};
use collect::reader::Reader;
use collect::readers::mysql::MySqlSource;
use collect::readers::sqlite::SqliteSource;
use collect::{CollectConfig, CollectError, CollectReport, Progress, Source, open_reader};
use engine::{Engine, Options, Sqlite, cell_text};
use std::path::Path;
use tokio::sync::watch;

pub const ROWS_MAX: usize = 100_000;

pub fn config(text: &str) -> CollectConfig {
    let config: CollectConfig = serde_saphyr::from_str(text).unwrap();
    assert_eq!(config.problems(), []);
    config
}

pub fn mysql(url: &str, tables: &str) -> Source {
    let tables = Patterns::new(&[tables.to_owned()], &[]).unwrap();
    Source::MySql(MySqlSource { url: Secret::new(url), tls: None, tls_ca: None, tables })
}

pub fn sqlite(path: &Path) -> Source {
    let tables = Patterns::new(&["*.*".to_owned()], &[]).unwrap();
    Source::Sqlite(SqliteSource { path: path.to_owned(), tables })
}

pub async fn warehouse(folder: &Path) -> Sqlite {
    Sqlite::open(&folder.join("warehouse.db"), Options::default()).await.unwrap()
}

pub async fn collected(
    config: &CollectConfig,
    source: &Source,
    engine: &dyn Engine,
) -> Result<CollectReport, CollectError> {
    collected_from(config, open_reader(source).await?.as_mut(), engine).await
}

pub async fn collected_from(
    config: &CollectConfig,
    reader: &mut dyn Reader,
    engine: &dyn Engine,
) -> Result<CollectReport, CollectError> {
    let (_stop, stopped) = watch::channel(false);
    // A flow has one target: those of one test that have others are others.
    let flow = config.to.strip_prefix("ods.by_").unwrap_or("flow");
    collect::run(flow, config, reader, engine, 7, &Progress::default(), stopped).await
}

/// The rows of a query as text, sorted.
pub async fn rows(engine: &dyn Engine, sql: &str) -> Vec<Vec<String>> {
    let result = engine.query(sql).await.unwrap();
    let columns = result.columns.clone();
    let rows: Vec<Vec<Value>> = result.all(ROWS_MAX).await.unwrap();
    let cell = |(value, column): (&Value, &base::Column)| cell_text(value, column).unwrap_or("NULL".into());
    let mut rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().zip(&columns).map(cell).collect()).collect();
    rows.sort();
    rows
}

pub async fn one(engine: &dyn Engine, sql: &str) -> String {
    rows(engine, sql).await.first().map(|row| row.join("|")).unwrap_or_default()
}
