//! A table as of a position: columns with MySQL's types, keys, and the ids rows refer to.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Database and table name, exactly as the source spells them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    pub db: String,
    pub table: String,
}

impl TableName {
    pub fn new(db: impl Into<String>, table: impl Into<String>) -> Self {
        Self { db: db.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.table)
    }
}

/// What a column holds. Fraction digits (`fsp`) are 0 to 6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    TinyInt {
        unsigned: bool,
    },
    SmallInt {
        unsigned: bool,
    },
    MediumInt {
        unsigned: bool,
    },
    Int {
        unsigned: bool,
    },
    BigInt {
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bit {
        bits: u8,
    },
    Year,
    Date,
    Time {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Timestamp {
        fsp: u8,
    },
    /// CHAR, VARCHAR and the TEXTs: `chars_max` is characters for CHAR and VARCHAR, bytes for the TEXTs.
    Text {
        chars_max: u64,
    },
    /// BINARY(n), which is padded with zero bytes to n.
    Binary {
        bytes: u32,
    },
    /// VARBINARY and the BLOBs.
    VarBinary {
        bytes_max: u64,
    },
    Enum {
        labels: Vec<String>,
    },
    Set {
        labels: Vec<String>,
    },
    Json,
    Geometry,
    Vector {
        dimensions: u32,
    },
    /// MariaDB's UUID, INET4 and INET6, carried as text.
    Uuid,
    Inet4,
    Inet6,
}

/// Whether and how the server computes a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generated {
    #[default]
    No,
    Virtual,
    Stored,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: ColumnType,
    /// The type as the source's `information_schema.columns.column_type` prints it: `varchar(40)`.
    pub sql_type: String,
    pub nullable: bool,
    /// Character set name for text, enum and set columns: `utf8mb4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    #[serde(default)]
    pub generated: Generated,
    #[serde(default)]
    pub invisible: bool,
}

/// A table as of a position. Rows refer to it by `(id, version)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Dense, ours, stable over renames inside one journal.
    pub id: u32,
    /// Counts this table's schemas from 1.
    pub version: u32,
    pub name: TableName,
    pub columns: Vec<Column>,
    /// Column indexes in key order; empty when the table has none. A unique key whose columns are all NOT NULL
    /// stands in when there is no primary key.
    pub key: Vec<usize>,
    /// Column indexes of each unique key besides `key`.
    #[serde(default)]
    pub unique_keys: Vec<Vec<usize>>,
}

impl Table {
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }
}
