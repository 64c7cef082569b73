//! What SQLite cannot say of a table: MySQL's types, defaults and keys. Kept in `tidemill_tables`, a row a table, written in
//! the transaction that makes or changes the table.

use crate::error::EngineError;
use base::Column;
use expr::kind::Kind;
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The table that holds the definitions.
const CATALOGUE: &str = "CREATE TABLE IF NOT EXISTS tidemill_tables (\
                         name TEXT PRIMARY KEY COLLATE NOCASE, definition TEXT NOT NULL) WITHOUT ROWID";

/// A table as MySQL would describe it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableDef {
    pub name: String,
    pub columns: Vec<ColumnDef>,
    /// Places of the primary key's columns.
    pub primary_key: Vec<usize>,
    pub indexes: Vec<IndexDef>,
    /// The query of a view, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnDef {
    pub column: Column,
    /// A literal of SQLite, in the form the column stores; `None` for no default.
    pub default: Option<DefaultValue>,
    pub auto_increment: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultValue {
    /// A text, as it is.
    Text(String),
    /// How MySQL writes any other literal.
    Literal(String),
    Now,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexDef {
    pub name: String,
    pub unique: bool,
    pub columns: Vec<usize>,
}

impl ColumnDef {
    pub fn kind(&self) -> Kind {
        Kind::of(&self.column)
    }
}

impl TableDef {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|it| it.column.name.eq_ignore_ascii_case(name))
    }
}

/// Makes the catalogue where it is not there yet.
pub fn prepare(connection: &Connection) -> Result<(), EngineError> {
    Ok(connection.execute_batch(CATALOGUE)?)
}

pub fn table(connection: &Connection, name: &str) -> Result<Option<Arc<TableDef>>, EngineError> {
    let mut statement =
        connection.prepare_cached("SELECT definition FROM tidemill_tables WHERE name = ?1")?;
    let text: Option<String> = statement.query_row([name], |row| row.get(0)).optional()?;
    text.map(|text| read(&text).map(Arc::new)).transpose()
}

fn read(text: &str) -> Result<TableDef, EngineError> {
    serde_json::from_str(text)
        .map_err(|error| EngineError::Internal(format!("a table's definition is damaged: {error}")))
}

pub fn tables(connection: &Connection) -> Result<Vec<String>, EngineError> {
    let mut statement = connection.prepare("SELECT name FROM tidemill_tables ORDER BY name")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

/// Every definition, by name.
pub fn all(connection: &Connection) -> Result<Vec<TableDef>, EngineError> {
    let mut statement = connection.prepare("SELECT definition FROM tidemill_tables ORDER BY name")?;
    let texts = statement.query_map([], |row| row.get::<_, String>(0))?;
    texts.map(|text| read(&text?)).collect()
}

pub fn put(connection: &Connection, table: &TableDef) -> Result<(), EngineError> {
    let text = serde_json::to_string(table).map_err(|error| EngineError::Internal(error.to_string()))?;
    connection
        .execute("INSERT OR REPLACE INTO tidemill_tables VALUES (?1, ?2)", [&table.name, &text])
        .map(|_| ())?;
    Ok(())
}

pub fn remove(connection: &Connection, name: &str) -> Result<(), EngineError> {
    connection.execute("DELETE FROM tidemill_tables WHERE name = ?1", [name])?;
    Ok(())
}
