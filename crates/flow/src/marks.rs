//! How two servers feed each other without echo: a flow with `mark: true` begins each transaction that it writes with a row of
//! its marks, and a source with `skip_marked` leaves out the transactions that begin so.

/// In the database of the sink's own tables; known by its name, whatever that database is called.
pub const MARKS_TABLE: &str = "tidemill_marks";
