//! What the session of a caller adds to a query: the dataset that bare names belong to, and tables that it brings along.
//!
//! Datasets are the front part of a table's name, `ods.orders`; what has no front part belongs to [`MAIN`].

use crate::catalogue::{ColumnDef, TableDef};
use crate::error::EngineError;
use crate::types::encode;
use base::{Column, Value};
use rusqlite::Connection;
use std::borrow::Cow;
use std::sync::Arc;

/// The dataset of tables whose names have one part, where the engine is SQLite.
pub const MAIN: &str = "main";

/// A table that lives as long as one query: rows that no engine keeps, such as `information_schema.tables`.
#[derive(Clone, Debug)]
pub struct Given {
    /// With its dataset, `information_schema.tables`.
    pub name: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

/// How names of a query are understood.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// Whose tables bare names are; `None` for those of [`MAIN`], or of the address's database on a server.
    pub dataset: Option<String>,
    /// Read in place of what the engine has by these names. SQLite only.
    pub given: Vec<Arc<Given>>,
}

/// The column of a table that a result's column is, unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    pub dataset: String,
    pub table: String,
    /// As the query calls the table.
    pub alias: String,
    /// With the table's own type, and its own name.
    pub column: Column,
    pub primary_key: bool,
    pub auto_increment: bool,
}

/// The columns of a result before it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    pub columns: Vec<Column>,
    /// As many; `None` for what is computed.
    pub origins: Vec<Option<Origin>>,
}

/// The name by which a table is kept.
pub(crate) fn kept_name<'n>(name: &'n str, dataset: Option<&str>) -> Cow<'n, str> {
    match (name.split_once('.'), dataset) {
        (Some((front, rest)), _) if front.eq_ignore_ascii_case(MAIN) => rest.into(),
        (None, Some(dataset)) if !dataset.eq_ignore_ascii_case(MAIN) => format!("{dataset}.{name}").into(),
        _ => name.into(),
    }
}

/// `(dataset, table)` of a name as it is kept.
pub fn parts(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((MAIN, name))
}

/// Names of one query over a SQLite connection.
#[derive(Default)]
pub(crate) struct Names {
    pub dataset: Option<String>,
    given: Vec<Arc<TableDef>>,
}

impl Names {
    pub fn given(&self, name: &str) -> Option<Arc<TableDef>> {
        self.given.iter().find(|it| it.name.eq_ignore_ascii_case(name)).cloned()
    }

    /// Makes the tables that come along, which end with the connection.
    pub fn prepare(connection: &mut Connection, lookup: &Lookup) -> Result<Self, EngineError> {
        let mut names = Self { dataset: lookup.dataset.clone(), given: Vec::new() };
        if lookup.given.is_empty() {
            return Ok(names);
        }
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let transaction = connection.transaction()?;
        for given in &lookup.given {
            names.given.push(Arc::new(make(&transaction, given)?));
        }
        transaction.commit()?;
        Ok(names)
    }
}

fn make(connection: &Connection, given: &Given) -> Result<TableDef, EngineError> {
    let column = |column: &Column| ColumnDef { column: column.clone(), default: None, auto_increment: false };
    let table = TableDef {
        name: given.name.clone(),
        columns: given.columns.iter().map(column).collect(),
        primary_key: Vec::new(),
        indexes: Vec::new(),
        view: None,
    };
    for sql in crate::define::create_sql(&table) {
        connection.execute(&sql.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1), [])?;
    }
    let marks = vec!["?"; table.columns.len()].join(", ");
    let sql = format!("INSERT INTO {} VALUES ({marks})", crate::query::quoted(&table.name));
    let mut insert = connection.prepare(&sql)?;
    for row in &given.rows {
        for (at, definition) in table.columns.iter().enumerate() {
            let kind = definition.kind();
            let value = row.get(at).cloned().unwrap_or(Value::Null);
            let cell = encode(crate::program::val(value, kind), kind)
                .map_err(|error| EngineError::Internal(error.0))?;
            insert.raw_bind_parameter(at + 1, cell)?;
        }
        insert.raw_execute()?;
    }
    drop(insert);
    Ok(table)
}
