//! MySQL's and MariaDB's formats, without a socket: binlog events, row images, JSON, character sets, statements, and
//! files of captured ones.
//!
//! Everything here turns bytes or text into the values of `base`. Nothing connects, waits or decides policy, and no
//! input, however broken, may panic: every read is checked against its bounds.

pub mod binlog;
pub mod captured;
pub mod charset;
pub mod ddl;
pub mod protocol;
pub mod schema;
pub mod select;
pub mod sql;

pub use binlog::{
    BinlogError, Event, EventHeader, EventReader, PlanError, RowPlan, RowsEvent, RowsKind, TableMap,
};
pub use ddl::{Statement, XaVerb, classify};
pub use schema::{BadColumnType, column_type};
pub use select::{BadValue, put_selected, select_expression};

/// Whose dialect and event set is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    MySql,
    MariaDb,
}
