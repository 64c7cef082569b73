//! One SQL engine behind one trait: SQLite, which answers as MySQL does, or a MySQL or TiDB server.
//!
//! The dialect of a project is what TiDB 8 and MySQL 8 answer alike. On SQLite a statement is read, its names and types are
//! resolved, and it is written again in SQLite's SQL over MySQL's own functions ([`query`]); what cannot be honoured is
//! refused with its line and a hint, never silently different. Which statements these are is judged by real servers:
//! `tests/conformance.rs`.

mod aggregates;
mod catalogue;
mod change;
mod deep;
mod define;
mod error;
mod extra;
mod fit;
mod held;
mod load;
mod lookup;
mod mysql;
mod parse;
mod program;
mod query;
mod rows;
mod sqlite;
mod store;
mod types;

pub use catalogue::{ColumnDef, DefaultValue, IndexDef, TableDef};
pub use error::EngineError;
pub use fit::Fit;
pub use load::{KEY_CHARS_MAX, OWN_PREFIX, SHADOW_MARK, Write, create_sql, is_own, kept, name_sql};
pub use lookup::{Given, Lookup, MAIN, Origin, Shape, parts};
pub use mysql::MySql;
pub use parse::{named, relations};
pub use rows::{BYTES_OF_BATCH_MAX, BYTES_OF_ROW_MAX, ROWS_OF_BATCH_MAX, Rows, cell_text};
pub use sqlite::Sqlite;

use async_trait::async_trait;
use base::Column;
use std::path::Path;
use std::time::Duration;

/// How an engine is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only queries; the file must be there.
    pub read_only: bool,
    /// Longest time of one statement.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_only: false, timeout: Duration::from_secs(3600) }
    }
}

/// What executes SQL.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Runs one statement that changes something; the number of rows that it inserted, matched or deleted.
    async fn execute(&self, sql: &str) -> Result<u64, EngineError>;

    /// Runs statements in one transaction: all or none. A server commits before and after a statement that changes a
    /// table's definition, so that only SQLite undoes those too.
    async fn execute_all(&self, statements: &[String]) -> Result<u64, EngineError>;

    /// Writes in one transaction: all or none, durable when it returns. The number of rows that were put or deleted.
    async fn write(&self, writes: Vec<Write>) -> Result<u64, EngineError>;

    /// Makes a dataset, which tables are named by (`ods.orders`), where it is not there yet: a database of a server.
    async fn prepare_dataset(&self, dataset: &str) -> Result<(), EngineError>;

    /// Makes one of Tidemill's own tables, whose name begins with [`OWN_PREFIX`], where it is not there yet.
    async fn prepare_own(&self, table: &str, columns: &[Column], key: &[String]) -> Result<(), EngineError>;

    /// Runs one query; rows come as they are read.
    async fn query(&self, sql: &str) -> Result<Rows, EngineError>;

    /// [`Self::query`], with names understood as a session has them.
    async fn query_in(&self, sql: &str, lookup: &Lookup) -> Result<Rows, EngineError>;

    /// [`Self::check`], likewise.
    async fn check_in(&self, sql: &str, lookup: &Lookup) -> Result<Shape, EngineError>;

    /// Every table as it was defined; `None` where the engine answers from an `information_schema` of its own.
    async fn definitions(&self) -> Result<Option<Vec<TableDef>>, EngineError>;

    /// The columns a query would give, without running it; an error says why it cannot be.
    async fn check(&self, sql: &str) -> Result<Vec<Column>, EngineError>;

    /// How the engine would run a query, for people.
    async fn explain(&self, sql: &str) -> Result<String, EngineError>;

    /// [`Self::explain`], with names understood as a session has them; where an engine knows of sessions.
    async fn explain_in(&self, sql: &str, lookup: &Lookup) -> Result<String, EngineError> {
        let _ = lookup;
        self.explain(sql).await
    }

    /// Datasets that are no project's: a server's own databases besides `information_schema`, in lower case.
    fn system_datasets(&self) -> &'static [&'static str] {
        &[]
    }

    /// `dataset.table`, and `table` of those without a dataset, sorted. Tidemill's own are left out: [`OWN_PREFIX`],
    /// [`SHADOW_MARK`].
    async fn tables(&self) -> Result<Vec<String>, EngineError>;

    async fn columns(&self, table: &str) -> Result<Vec<Column>, EngineError>;
}

/// Opens `sqlite:PATH` (relative to `folder`) or `mysql://user:password@host:port/database`.
pub async fn open(url: &str, folder: &Path, options: Options) -> Result<Box<dyn Engine>, EngineError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Box::new(Sqlite::open(&folder.join(path), options).await?));
    }
    if url.starts_with("mysql://") {
        return Ok(Box::new(MySql::open(url, options).await?));
    }
    Err(EngineError::refused(
        "an engine is sqlite:PATH or mysql://…",
        "write `engine: sqlite:./data/warehouse.db`",
    ))
}
