//! Datasets whose tables no engine holds: their rows are made when a query names them.

use crate::error::SqlError;
use async_trait::async_trait;
use base::Column;
use engine::Given;

/// A dataset of computed tables: `information_schema`, and what a project serves beside its tables.
#[async_trait]
pub trait VirtualDataset: Send + Sync {
    /// The name of the database that clients see.
    fn name(&self) -> &str;

    /// The tables and their columns.
    fn tables(&self) -> Vec<(String, Vec<Column>)>;

    /// The rows of one of the tables, asked for once a query that names it.
    async fn rows(&self, table: &str) -> Result<Given, SqlError>;
}
