//! What a statement is to a rule, and the conditions of a rule that hang on nothing but the statement.

use super::config::{MatchConfig, Pattern, digest};
use mysql::sql::{Flags, Kind, Scan};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Kinds of statements, by their verb.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// SELECT, TABLE, VALUES, WITH … SELECT.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// REPLACE.
    Replace,
    /// LOAD DATA, LOAD XML, IMPORT INTO.
    Load,
    /// CALL.
    Call,
    /// DO.
    Do,
    /// CREATE, ALTER, DROP, RENAME, TRUNCATE.
    Ddl,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, XA.
    Transaction,
    /// SET.
    Set,
    /// USE.
    Use,
    /// SHOW, DESCRIBE.
    Show,
    /// EXPLAIN.
    Explain,
    /// LOCK TABLES, UNLOCK TABLES.
    Lock,
    /// FLUSH.
    Flush,
    /// KILL.
    Kill,
    /// HANDLER.
    Handler,
    /// GRANT, REVOKE, ANALYZE TABLE, SHUTDOWN, ….
    Admin,
}

/// `None` for what runs a text that the mesh does not see, and for what it does not know: no rule knows more.
fn kind_of(kind: Kind) -> Option<StatementKind> {
    Some(match kind {
        Kind::Select => StatementKind::Select,
        Kind::Insert => StatementKind::Insert,
        Kind::Update => StatementKind::Update,
        Kind::Delete => StatementKind::Delete,
        Kind::Replace => StatementKind::Replace,
        Kind::Load => StatementKind::Load,
        Kind::Call => StatementKind::Call,
        Kind::Do => StatementKind::Do,
        Kind::Ddl => StatementKind::Ddl,
        Kind::Begin | Kind::Commit | Kind::Rollback | Kind::Savepoint | Kind::Xa => {
            StatementKind::Transaction
        }
        Kind::Set => StatementKind::Set,
        Kind::Use => StatementKind::Use,
        Kind::Show | Kind::Describe => StatementKind::Show,
        Kind::Explain => StatementKind::Explain,
        Kind::Lock | Kind::Unlock => StatementKind::Lock,
        Kind::Flush => StatementKind::Flush,
        Kind::Kill => StatementKind::Kill,
        Kind::Handler => StatementKind::Handler,
        Kind::Admin => StatementKind::Admin,
        _ => return None,
    })
}

/// What flags are called in a file.
pub const FLAG_NAMES: &[&str] = &[
    "locking",
    "user_variable_read",
    "user_variable_written",
    "system_variable",
    "global_scope",
    "last_insert_id",
    "diagnostics",
    "found_rows",
    "row_count",
    "calc_found_rows",
    "user_lock",
    "waits",
    "connection_id",
    "sequence",
    "unknown_function",
    "temporary_table",
    "server_state",
    "into_file",
    "local_file",
    "executes",
    "explained_write",
    "read_only",
    "consistent_snapshot",
    "chain",
    "release",
    "read_lock",
];

/// The flag of a name; those that make a statement unreadable have none.
pub fn flag(name: &str) -> Option<Flags> {
    FLAG_NAMES.contains(&name).then_some(())?;
    Flags::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(flag, _)| *flag)
}

/// What is known of a statement, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: Kind,
    pub main: Kind,
    pub flags: Flags,
    pub has_where: bool,
    pub digest: u64,
    /// Why it cannot be read as one whole statement. Then nothing else counts.
    pub doubt: Option<&'static str>,
}

impl Facts {
    pub fn of(scan: &Scan) -> Self {
        Self {
            kind: scan.kind,
            main: scan.main,
            flags: scan.flags,
            has_where: scan.has_where,
            digest: scan.digest,
            doubt: doubt(scan),
        }
    }

    /// Of what was not seen.
    pub fn unseen(doubt: &'static str) -> Self {
        Self {
            kind: Kind::Unknown,
            main: Kind::Unknown,
            flags: Flags::NONE,
            has_where: false,
            digest: 0,
            doubt: Some(doubt),
        }
    }
}

/// Why a statement cannot be read whose very tokens are in doubt.
pub const UNCERTAIN: &str = "servers may read it in more than one way";

fn doubt(scan: &Scan) -> Option<&'static str> {
    if scan.statements > 1 {
        return Some("it is several statements");
    }
    if scan.holds_statement {
        return Some("it carries another statement");
    }
    if !scan.is_certain {
        return Some(UNCERTAIN);
    }
    matches!(scan.kind, Kind::Unknown).then_some("its verb is not known")
}

/// The conditions of a rule that hang on the statement alone.
#[derive(Clone, Debug)]
pub struct Shape {
    /// By the number of [`StatementKind`]; any, where there is none.
    kinds: u32,
    without_where: bool,
    seen: Flags,
    digest: Option<u64>,
    pattern: Option<Arc<Regex>>,
}

impl Shape {
    /// With `whole`, the whole statement must match the pattern.
    ///
    /// # Errors
    /// A pattern that becomes too large by that.
    pub fn new(matches: &MatchConfig, whole: bool) -> Result<Self, regex::Error> {
        let pattern = match &matches.pattern {
            Some(pattern) if whole => Some(pattern.whole()?),
            pattern => pattern.clone(),
        };
        Ok(Self {
            kinds: matches.kinds.iter().fold(0, |kinds, kind| kinds | 1 << *kind as u32),
            without_where: matches.without_where,
            seen: matches.seen.iter().filter_map(|name| flag(name)).fold(Flags::NONE, Flags::union),
            digest: matches.digest.as_deref().and_then(digest),
            pattern: pattern.map(|Pattern { regex, .. }| regex),
        })
    }

    /// Whether it asks nothing of the statement.
    pub fn is_any(&self) -> bool {
        self.kinds == 0
            && !self.without_where
            && self.seen.is_empty()
            && self.digest.is_none()
            && self.pattern.is_none()
    }

    /// Why a statement that can be read is not of this shape.
    pub fn differs(&self, facts: &Facts, text: &str) -> Option<&'static str> {
        let is = |kind: Kind| kind_of(kind).is_some_and(|kind| self.kinds & 1 << kind as u32 != 0);
        let runs = facts.flags.contains(Flags::EXECUTES) && is(facts.main);
        if self.kinds != 0 && !is(facts.kind) && !runs {
            return Some("it is of another kind");
        }
        if self.without_where && facts.has_where {
            return Some("it has a WHERE");
        }
        if !self.seen.is_empty() && !facts.flags.intersects(self.seen) {
            return Some("nothing of `seen` was seen in it");
        }
        if self.digest.is_some_and(|digest| digest != facts.digest) {
            return Some("it has another digest");
        }
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            return Some("the pattern does not match it");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql::sql::{Dialect, Modes, scan, whole_digest_text};

    fn shape(json: &str, whole: bool) -> Shape {
        Shape::new(&serde_json::from_str(json).unwrap(), whole).unwrap()
    }

    fn is(shape: &Shape, sql: &str, dialect: Dialect) -> bool {
        let modes = Modes { dialect, ..Modes::default() };
        let facts = Facts::of(&scan(sql.as_bytes(), modes));
        let mut text = String::new();
        whole_digest_text(sql.as_bytes(), &mut text, modes);
        assert_eq!(facts.doubt, None, "{sql}");
        shape.differs(&facts, &text).is_none()
    }

    #[test]
    fn every_name_of_a_flag_is_one() {
        assert!(FLAG_NAMES.iter().all(|name| flag(name).is_some()));
        assert!(
            flag("multi").is_none() && flag("doubtful").is_none() && flag("executable_comment").is_none()
        );
    }

    #[test]
    fn what_runs_counts_beside_the_verb() {
        let writes = shape(r#"{"kinds": ["update", "delete"], "without_where": true}"#, false);
        for (sql, dialect) in [
            ("delete from t", Dialect::MySql),
            ("DeLeTe/**/FROM`t`", Dialect::MySql),
            ("update t set a = 1 where 1", Dialect::MySql),
            ("with x as (select 1 where 2 = 3) delete from t", Dialect::MySql),
            ("explain analyze delete from t", Dialect::TiDb),
            ("trace delete from t", Dialect::TiDb),
            ("analyze update t set a = 1", Dialect::MariaDb),
            ("batch limit 1 delete from t", Dialect::TiDb),
            ("set statement max_statement_time = 1 for delete from t", Dialect::MariaDb),
            ("/*! delete from t */", Dialect::MySql),
        ] {
            assert!(is(&writes, sql, dialect), "{sql}");
        }
        for sql in [
            "delete from t where id = 1",
            "explain delete from t",
            "select 1",
            "insert into t values ('delete from t')",
        ] {
            assert!(!is(&writes, sql, Dialect::MySql), "{sql}");
        }
    }

    #[test]
    fn a_pattern_sees_the_text_without_literals_whatever_its_case() {
        let orders = shape(r#"{"pattern": "select \\* from `orders`"}"#, false);
        assert!(is(&orders, "SELECT * FROM Orders WHERE id = 7", Dialect::MySql));
        assert!(is(&orders, "select /* x */ * from`orders`", Dialect::MySql));
        assert!(is(&orders, "select /*!40001 sql_no_cache */ 1 union select * from orders", Dialect::MySql));
        assert!(!is(&orders, "select 'select * from `orders`'", Dialect::MySql));
        let whole = shape(r#"{"pattern": "select \\* from `orders`"}"#, true);
        assert!(is(&whole, "select * from orders", Dialect::MySql));
        assert!(!is(&whole, "select * from orders where a = 1", Dialect::MySql));
        let seen = shape(r#"{"seen": ["into_file", "waits"]}"#, false);
        assert!(is(&seen, "select sleep(10)", Dialect::MySql));
        assert!(is(&seen, "select 1 into outfile '/tmp/x'", Dialect::MySql));
        assert!(!is(&seen, "select 1", Dialect::MySql));
    }
}
