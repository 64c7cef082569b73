//! The words every room shares: values, rows, schemas, changes, positions, errors and metric names.
//!
//! This crate does no I/O, knows no product and holds no policy.

pub mod change;
pub mod check_digit;
pub mod error;
pub mod gtid;
pub mod json;
pub mod metrics;
pub mod near;
pub mod patterns;
pub mod position;
pub mod row;
pub mod schedule;
pub mod schema;
pub mod secret;
pub mod units;
pub mod value;
pub mod varint;

pub use change::{Change, Ddl, Op, Txn};
pub use error::{Blame, Code, Fault, Retry};
pub use gtid::{Gtid, GtidSet, MariaGtid, MariaGtidSet};
pub use position::{CapturePosition, Position, SnapshotProgress, Step, TableSnapshot, TopicPosition};
pub use row::{RowBuf, RowView, RowWriter};
pub use schema::{Column, ColumnType, Generated, Table, TableName};
pub use secret::Secret;
pub use units::{ByteSize, Span};
pub use value::{Date, DateTime, Value, ValueRef};
