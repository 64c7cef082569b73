//! What a statement of the binlog does, from its text, without a full parser.
//!
//! A classifier reads only as far as it must: the verb, the object, its names, and for ALTER the few clauses that move
//! names or rows. What it does not recognise is [`Statement::Unknown`], which a caller must never ignore.

mod lexer;
mod parser;

use parser::Parser;

/// A table as a statement names it: the database is `None` when the default one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementTable {
    pub db: Option<String>,
    pub table: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableDdlKind {
    Create,
    Alter,
    Drop,
    Rename,
    Truncate,
    CreateIndex,
    DropIndex,
}

/// Where an ALTER puts a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnPlace {
    First,
    After(String),
    Last,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedColumn {
    /// As it is called behind the statement.
    pub name: String,
    pub place: ColumnPlace,
    /// By MODIFY or CHANGE; otherwise it is added.
    pub is_moved: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDdl {
    pub kind: TableDdlKind,
    /// The tables whose definition or rows change. For RENAME, the old names.
    pub tables: Vec<StatementTable>,
    /// `(from, to)`, in the order the server applies them.
    pub renames: Vec<(StatementTable, StatementTable)>,
    /// `(from, to)` of RENAME COLUMN and CHANGE, where they differ.
    pub column_renames: Vec<(String, String)>,
    /// Of ADD in an ALTER, those that must be new: without IF NOT EXISTS.
    pub added_columns: Vec<String>,
    /// Of DROP in an ALTER.
    pub dropped_columns: Vec<String>,
    /// Of an ALTER, in the order of its clauses: the columns that it adds, and those that it moves.
    pub placed_columns: Vec<PlacedColumn>,
    /// `CREATE TABLE … LIKE this`.
    pub like: Option<StatementTable>,
    /// `CREATE TABLE … SELECT`.
    pub is_select: bool,
    /// `CREATE TABLE … START TRANSACTION`: MySQL's atomic form of the above, whose rows follow before the commit.
    pub starts_transaction: bool,
    /// `TEMPORARY`: never concerns rows in the binlog.
    pub is_temporary: bool,
    /// Rows appear or vanish without row events: partitions dropped, truncated, exchanged or converted, tablespaces
    /// imported or discarded.
    pub moves_rows: bool,
    /// It is about indexes or comments alone: columns and rows are what they were.
    pub keeps_columns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseDdlKind {
    Create,
    Alter,
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XaVerb {
    Start,
    End,
    Prepare,
    Commit,
    Rollback,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Begin,
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// The verb, and the transaction's name as servers write it: `X'6162',X'',1`. Equal to
    /// [`crate::binlog::XaPrepare::xid`] of the same transaction.
    Xa {
        verb: XaVerb,
        xid: String,
        one_phase: bool,
    },
    TableDdl(TableDdl),
    DatabaseDdl {
        kind: DatabaseDdlKind,
        db: Option<String>,
    },
    /// Changes neither rows nor tables: grants, users, views, routines, triggers, ANALYZE, FLUSH.
    Harmless,
    /// Changes rows by a statement: the binlog's format is not ROW, and the caller must fail.
    Dml,
    /// Not recognised: the caller must find out what changed, never ignore it.
    Unknown,
}

/// Classifies `sql`. `ansi_quotes` is bit 2 of the session's `sql_mode`.
pub fn classify(sql: &str, ansi_quotes: bool) -> Statement {
    match sql {
        "BEGIN" => return Statement::Begin,
        "COMMIT" => return Statement::Commit,
        _ => {}
    }
    match lexer::tokens(sql, ansi_quotes) {
        // Only comments: MariaDB's dummy events.
        Some(tokens) if tokens.is_empty() => Statement::Harmless,
        Some(tokens) => Parser::new(tokens).statement().unwrap_or(Statement::Unknown),
        None => Statement::Unknown,
    }
}

/// An XA transaction's name in the form servers write it.
pub(crate) fn xid_text(gtrid: &[u8], bqual: &[u8], format_id: i32) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("X'{}',X'{}',{format_id}", hex(gtrid), hex(bqual))
}
