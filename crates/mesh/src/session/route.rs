//! Which server a statement goes to, as a pure function of the statement and of what the session has behind it.
//!
//! The writer is always right. A replica is right for what surely only reads, outside of a transaction, while nothing that
//! the session has set up lives on one connection alone.

use crate::config::Role;
use mysql::protocol::{Capabilities, Command, Status, query_text_start};
use mysql::sql::{Flags, Kind, Scan};

/// The only reason that ends before the session does.
pub const LOCKED_TABLES: &str = "locked tables";

/// What the decision hangs on, beside the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The group splits reads from writes, and this session can have two connections.
    pub split: bool,
    pub status: Status,
    /// Why the session stays with the writer, once something of it lives there alone.
    pub pinned: Option<&'static str>,
    /// Where the last command went: what asks about it goes there too.
    pub last: Role,
}

/// A decision, with its reason for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub role: Role,
    pub reason: &'static str,
}

/// What a comment in front of a statement asks for: `/* tidemill: writer */`, `/* tidemill: replica */`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Writer,
    /// Of a read whose tokens leave it in doubt, which the application knows better.
    Replica,
}

/// The hint of a statement; what is no hint is a comment like any other.
pub fn hint(scan: &Scan, sql: &[u8]) -> Option<Hint> {
    let note = scan.note?;
    match sql.get(note.start..note.end)?.trim_ascii() {
        b"writer" => Some(Hint::Writer),
        b"replica" => Some(Hint::Replica),
        _ => None,
    }
}

/// Decides on a statement; `None` is one that was not looked at, because it is too long or carries attributes.
pub fn route(scan: Option<&Scan>, hint: Option<Hint>, view: View) -> Route {
    let writer = |reason| Route { role: Role::Writer, reason };
    if !view.split {
        return writer("not split");
    }
    let Some(scan) = scan else { return writer("not looked at") };
    let free = by_statement(view);
    if free.role == Role::Writer {
        return free;
    }
    let reads = matches!(scan.kind, Kind::Select | Kind::Show | Kind::Describe | Kind::Explain);
    match hint {
        Some(Hint::Writer) => return writer("its comment asks for it"),
        Some(Hint::Replica) if reads && !scan.flags.intersects(Flags::MULTI) => {
            return Route { role: Role::Replica, reason: "its comment asks for it" };
        }
        _ => {}
    }
    if scan.kind == Kind::Select || scan.kind == Kind::Show {
        let about_last = Flags::DIAGNOSTICS | Flags::FOUND_ROWS | Flags::ROW_COUNT;
        if scan.flags.intersects(about_last) {
            return Route { role: view.last, reason: "about the statement before" };
        }
    }
    if scan.is_safe_read() {
        Route { role: Role::Replica, reason: "only reads" }
    } else {
        writer(why_not(scan))
    }
}

/// Whether a database's tables are the server's own.
pub fn is_system(database: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] =
        [b"information_schema", b"performance_schema", b"mysql", b"sys", b"metrics_schema"];
    NAMES.iter().any(|name| database.eq_ignore_ascii_case(name))
}

/// Decides on the execution of a prepared statement that surely only reads.
pub fn by_statement(view: View) -> Route {
    let writer = |reason| Route { role: Role::Writer, reason };
    match view.pinned {
        _ if !view.split => writer("not split"),
        _ if view.status.has(Status::IN_TRANSACTION) => writer("in a transaction"),
        _ if !view.status.has(Status::AUTOCOMMIT) => writer("autocommit is off"),
        Some(reason) => writer(reason),
        None => Route { role: Role::Replica, reason: "only reads" },
    }
}

fn why_not(scan: &Scan) -> &'static str {
    let reads = matches!(scan.kind, Kind::Select | Kind::Show | Kind::Describe | Kind::Explain);
    let reasons = [
        (Flags::LOCKING, "locks rows"),
        (Flags::UNKNOWN_FUNCTION, "calls a function that may write"),
        (Flags::USER_VARIABLE_READ, "reads a variable of the session"),
        (Flags::USER_VARIABLE_WRITTEN, "writes a variable of the session"),
        (Flags::LAST_INSERT_ID, "asks for the last insert's id"),
        (Flags::SYSTEM_VARIABLE, "asks for a setting of the server or session"),
        (Flags::SERVER_STATE, "asks about the server itself"),
        (Flags::MULTI, "is several statements"),
        (Flags::EXECUTABLE_COMMENT, "has a comment that some servers execute"),
        (Flags::DOUBTFUL, "cannot be read for sure"),
    ];
    match reasons.iter().find(|(flag, _)| scan.flags.intersects(*flag)) {
        Some((_, reason)) if reads => reason,
        _ if reads => "has an effect of its own",
        _ => "is no read",
    }
}

/// Whether a replica that lacks this statement's effect could show something older than what it left.
pub fn may_write(scan: Option<&Scan>) -> bool {
    let Some(scan) = scan else { return true };
    let doubts = Flags::UNKNOWN_FUNCTION
        | Flags::SEQUENCE
        | Flags::MULTI
        | Flags::EXECUTABLE_COMMENT
        | Flags::DOUBTFUL
        | Flags::EXPLAINED_WRITE;
    match scan.kind {
        Kind::Select | Kind::Show | Kind::Describe | Kind::Explain => scan.flags.intersects(doubts),
        Kind::Set | Kind::Use | Kind::Begin | Kind::Savepoint | Kind::Empty => {
            scan.flags.intersects(Flags::MULTI | Flags::GLOBAL_SCOPE)
        }
        _ => true,
    }
}

/// Why a session stays with its writer from this statement on.
pub fn pins(scan: Option<&Scan>, sql: &[u8]) -> Option<&'static str> {
    let scan = scan?;
    let known_set = scan.kind == Kind::Set && !scan.flags.intersects(Flags::MULTI);
    let flags = [
        // A SET of literals can be said again; whether it is one is seen when it has been done.
        (if known_set { Flags::NONE } else { Flags::USER_VARIABLE_WRITTEN }, "user variable"),
        (Flags::TEMPORARY_TABLE, "temporary table"),
        (Flags::USER_LOCK, "named lock"),
        (Flags::READ_LOCK, "read lock"),
    ];
    if let Some((_, reason)) = flags.iter().find(|(flag, _)| scan.flags.intersects(*flag)) {
        return Some(reason);
    }
    if scan.flags.contains(Flags::MULTI) && has_word_that_sets(sql) {
        return Some("several statements that set something");
    }
    match scan.kind {
        Kind::Lock => Some(if has_word(sql, b"instance") { "read lock" } else { LOCKED_TABLES }),
        Kind::Prepare | Kind::Execute => Some("prepared by text"),
        Kind::Handler => Some("handler"),
        Kind::Call => Some("called procedure"),
        Kind::Xa => Some("XA transaction"),
        _ => None,
    }
}

/// Why a session keeps a connection that others could use, beside [`pins`]: what may leave something on it.
pub fn pins_shared(scan: &Scan, sql: &[u8]) -> Option<&'static str> {
    let flags = [
        (Flags::SEQUENCE, "sequence"),
        (Flags::CONNECTION_ID, "number of its connection"),
        (Flags::UNKNOWN_FUNCTION, "called function that may set something"),
        (Flags::DOUBTFUL, crate::pins::OTHER),
    ];
    if let Some((_, reason)) = flags.iter().find(|(flag, _)| scan.flags.intersects(*flag)) {
        return Some(reason);
    }
    match scan.kind {
        Kind::Unknown if !scan.flags.intersects(Flags::DIAGNOSTICS) => Some(crate::pins::OTHER),
        Kind::Empty if scan.flags.intersects(Flags::EXECUTABLE_COMMENT) => Some(crate::pins::OTHER),
        Kind::Ddl if has_word(sql, b"drop") && (has_word(sql, b"database") || has_word(sql, b"schema")) => {
            Some("dropped database")
        }
        Kind::Admin if has_word(sql, b"backup") => Some("read lock"),
        // TiDB binds plans for a session unless it is told otherwise.
        Kind::Ddl | Kind::Admin if has_word(sql, b"binding") => Some("setting that cannot be repeated"),
        _ => None,
    }
}

/// Of several statements only the first one's kind is known: a word of one that leaves something behind is enough.
fn has_word_that_sets(sql: &[u8]) -> bool {
    const WORDS: [&[u8]; 7] = [b"set", b"use", b"lock", b"prepare", b"handler", b"call", b"xa"];
    words(sql).any(|word| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// Whether an `UNLOCK` is one of tables.
pub fn names_tables(sql: &[u8]) -> bool {
    has_word(sql, b"tables") || has_word(sql, b"table")
}

/// Whether a statement reads a table, as far as its words tell.
pub fn reads_table(sql: &[u8]) -> bool {
    has_word(sql, b"from") && !has_word(sql, b"dual")
}

fn has_word(sql: &[u8], word: &[u8]) -> bool {
    words(sql).any(|known| known.eq_ignore_ascii_case(word))
}

fn words(sql: &[u8]) -> impl Iterator<Item = &[u8]> {
    sql.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
}

/// Where the text of a `COM_QUERY` or `COM_STMT_PREPARE` begins in its payload; `None` where attributes stand before it that
/// cannot be read.
pub fn text_start(command: Command, payload: &[u8], capabilities: Capabilities) -> Option<usize> {
    if command == Command::Query && capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
        return query_text_start(payload);
    }
    matches!(command, Command::Query | Command::Prepare).then_some(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql::sql::{Modes, scan};

    const FREE: View = View { split: true, status: Status::AUTOCOMMIT, pinned: None, last: Role::Replica };

    fn role(sql: &str, view: View) -> Role {
        let scan = scan(sql.as_bytes(), Modes::default());
        route(Some(&scan), hint(&scan, sql.as_bytes()), view).role
    }

    #[test]
    fn reads_go_to_replicas_and_everything_else_does_not() {
        for sql in [
            "select 1",
            "SELECT * FROM t WHERE id = 1",
            "(select a from t) union select b from u",
            "show tables",
            "with x as (select 1) select * from x",
            "explain select 1",
            "select sql_no_cache * from t",
        ] {
            assert_eq!(role(sql, FREE), Role::Replica, "{sql}");
        }
        for sql in [
            "insert into t values (1)",
            "select * from t for update",
            "select get_lock('a', 1)",
            "select @x",
            "select last_insert_id()",
            "select my_function(1)",
            "select 1; delete from t",
            "begin",
            "set names utf8mb4",
            "call p()",
            "with x as (select 1) delete from t",
            "select @@identity",
            "select 1 into @x",
            "nonsense",
            "",
        ] {
            assert_eq!(role(sql, FREE), Role::Writer, "{sql}");
        }
        assert_eq!(route(None, None, FREE).role, Role::Writer);
    }

    #[test]
    fn a_transaction_a_pin_and_autocommit_keep_reads_with_the_writer() {
        let in_transaction = View { status: Status(3), ..FREE };
        let no_autocommit = View { status: Status(0), ..FREE };
        let pinned = View { pinned: Some("temporary table"), ..FREE };
        let whole = View { split: false, ..FREE };
        for view in [in_transaction, no_autocommit, pinned, whole] {
            assert_eq!(role("select 1", view), Role::Writer, "{view:?}");
        }
    }

    #[test]
    fn a_question_about_the_statement_before_goes_where_that_went() {
        for last in [Role::Writer, Role::Replica] {
            assert_eq!(role("show warnings", View { last, ..FREE }), last);
            assert_eq!(role("select found_rows()", View { last, ..FREE }), last);
        }
    }

    #[test]
    fn a_comment_in_front_asks_for_a_server_and_asks_nothing_of_writes() {
        assert_eq!(role("/* tidemill: writer */ select 1", FREE), Role::Writer);
        assert_eq!(role("/* tidemill: replica */ select my_function(1)", FREE), Role::Replica);
        assert_eq!(role("/* tidemill: replica */ delete from t", FREE), Role::Writer);
        assert_eq!(role("/* tidemill: replica */ select 1; delete from t", FREE), Role::Writer);
        assert_eq!(role("/* tidemill: nonsense */ select 1", FREE), Role::Replica);
        let in_transaction = View { status: Status(3), ..FREE };
        assert_eq!(role("/* tidemill: replica */ select 1", in_transaction), Role::Writer);
    }

    #[test]
    fn the_servers_own_databases_are_known_in_any_case() {
        assert!(is_system(b"INFORMATION_SCHEMA") && is_system(b"mysql"));
        assert!(!is_system(b"shop") && !is_system(b""));
    }

    #[test]
    fn what_only_reads_leaves_nothing_to_wait_for() {
        let writes = |sql: &str| may_write(Some(&scan(sql.as_bytes(), Modes::default())));
        for sql in [
            "select @@max_allowed_packet",
            "select 1",
            "set names utf8mb4",
            "begin",
            "select * from t for update",
            "show tables",
        ] {
            assert!(!writes(sql), "{sql}");
        }
        for sql in [
            "insert into t values (1)",
            "commit",
            "select f(1)",
            "select 1; delete from t",
            "call p()",
            "create table t (a int)",
        ] {
            assert!(writes(sql), "{sql}");
        }
    }

    #[test]
    fn what_may_leave_something_keeps_a_shared_connection() {
        let reason = |sql: &str| pins_shared(&scan(sql.as_bytes(), Modes::default()), sql.as_bytes());
        for sql in [
            "drop database shop",
            "DROP /* x */ SCHEMA if exists shop",
            "select my_function(1)",
            "insert into t values (my_function(1))",
            "select nextval(s)",
            "select connection_id()",
            "create binding for select 1 using select 1",
            "nonsense",
            "/*!80000 */",
        ] {
            assert!(reason(sql).is_some(), "{sql}");
        }
        for sql in [
            "select 1",
            "select /*!40001 SQL_NO_CACHE */ * from t",
            "insert into t values (1)",
            "drop table shop",
            "show warnings",
            "get diagnostics condition 1 x = number",
            "analyze table t",
        ] {
            assert_eq!(reason(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_lives_on_one_connection_pins() {
        for sql in [
            "create temporary table t (a int)",
            "do 1; set @a = 1",
            "set global x = 1, @a := (select 1); select 1",
            "lock tables t read",
            "prepare s from 'select 1'",
            "select get_lock('a', 1)",
            "call p()",
            "select 1 into @a",
            "handler t open",
            "commit; set autocommit = 1",
        ] {
            assert!(pins(Some(&scan(sql.as_bytes(), Modes::default())), sql.as_bytes()).is_some(), "{sql}");
        }
        for sql in [
            "select 1",
            "insert into t values (1)",
            "begin",
            "set names utf8mb4",
            "create table t (a int)",
            "update t set a = 1",
            "select 1; select 2",
            "set @a = 1",
        ] {
            assert!(pins(Some(&scan(sql.as_bytes(), Modes::default())), sql.as_bytes()).is_none(), "{sql}");
        }
    }
}
