//! What a session has set up on its connections, so that another connection can be made like the first.
//!
//! A `SET` whose values are plain is kept as text and said again on a connection that has not heard it, in order. One that
//! cannot be said twice with the same outcome keeps the session with its writer.

use mysql::protocol::Status;
use mysql::sql::{Assignment, ClientCharset, Dialect, Modes, Scope, parse_set};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Statements that are kept; a session that sets more stays with its writer.
const KEPT_MAX: usize = 64;
/// The longest that is kept; `sql_mode` with everything in it has 400 bytes.
const KEPT_BYTES_MAX: usize = 1024;

/// Variables that do something when they are set, that change by themselves, or that are used up: said again they would
/// not be the same.
const NOT_TWICE: &[&str] = &[
    "insert_id",
    "last_insert_id",
    "identity",
    "rand_seed1",
    "rand_seed2",
    "gtid_next",
    "gtid_seq_no",
    "gtid_next_list",
    "sql_log_bin",
    "profiling",
    "default_master_connection",
    "pseudo_thread_id",
    "pseudo_replica_mode",
    "pseudo_slave_mode",
    "debug",
    "debug_sync",
    "tidb_general_log",
];

/// Variables that decide how a statement is read: one that is prepared keeps those that it was prepared under.
const READS_TEXT: &[&str] = &["sql_mode", "names", "collate"];
const READS_TEXT_PREFIXES: &[&str] = &["character", "collation", "default_", "tidb_opt", "old"];

static OWNERS: AtomicU64 = AtomicU64::new(1);

/// What a `SET` means for other connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// It can be said again elsewhere.
    Kept,
    /// It is for the next transaction only, which goes to the writer.
    Once,
    /// It cannot.
    Pins,
}

/// The settings of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Nobody else has it: what is set on a connection belongs to one state.
    #[serde(skip)]
    owner: u64,
    #[serde(with = "shared_texts")]
    kept: Arc<Vec<Vec<u8>>>,
    /// What each of `kept` sets.
    names: Vec<Vec<String>>,
    /// Texts in user variables are of the character set that was set when they were: what is said keeps its order.
    ordered: bool,
    /// The client has reset its session: the character set is the server's own, not the login's.
    pub is_bare: bool,
    /// Grows when statements are read otherwise than before.
    #[serde(skip)]
    reading: u64,
    /// The next transaction's own settings wait on the writer.
    pub once: bool,
    /// The client itself decides what its server tells of its session: the mesh leaves that alone.
    #[serde(default)]
    pub own_tracking: bool,
    /// This and the next are told by what is kept.
    #[serde(skip)]
    pub ansi_quotes: bool,
    #[serde(skip)]
    pub charset: Option<ClientCharset>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            kept: Arc::default(),
            names: Vec::new(),
            ordered: false,
            is_bare: false,
            reading: 0,
            once: false,
            own_tracking: false,
            ansi_quotes: false,
            charset: None,
        }
    }
}

impl State {
    pub fn owner(&self) -> u64 {
        self.owner
    }

    pub fn kept(&self) -> &Arc<Vec<Vec<u8>>> {
        &self.kept
    }

    pub fn reading(&self) -> u64 {
        self.reading
    }

    /// The current database is another one.
    pub fn changed(&mut self) {
        self.reading += 1;
    }

    /// Whether a variable's value, once it has been set, can be said again.
    pub fn may_repeat(name: &str) -> bool {
        // It moves on by itself, and what is said of it is the time of the question.
        const MOVES: &str = "timestamp";
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        plain && !name.is_empty() && name != MOVES && !NOT_TWICE.contains(&name)
    }

    /// Takes a `SET` that the writer has carried out.
    pub fn set(&mut self, sql: &[u8], modes: Modes) -> Setting {
        let Some(assignments) = parse_set(sql, modes).filter(|_| sql.len() <= KEPT_BYTES_MAX) else {
            return Setting::Pins;
        };
        let once = assignments.iter().filter(|assignment| assignment.scope == Scope::NextTransaction).count();
        if once > 0 {
            self.once = true;
            // One that is both would be said again to the wrong transaction.
            return if once == assignments.len() { Setting::Once } else { Setting::Pins };
        }
        let names: Vec<String> = assignments.iter().map(name_of).collect();
        if names.iter().any(|name| NOT_TWICE.contains(&name.as_str())) {
            return Setting::Pins;
        }
        if self.kept.last().is_some_and(|last| last == sql) {
            return Setting::Kept;
        }
        self.read(sql, &assignments);
        self.ordered |= assignments.iter().any(|one| one.scope == Scope::User && is_text(sql, one));
        self.reading += u64::from(names.iter().any(|name| reads_text(name)));
        let kept = Arc::make_mut(&mut self.kept);
        if !self.ordered {
            // Of what is set again only the last counts: pools and frameworks set the same again and again.
            let mut at = 0;
            let own = &names;
            self.names.retain(|before| {
                let covered = before.iter().all(|name| own.contains(name));
                if covered {
                    kept.remove(at);
                } else {
                    at += 1;
                }
                !covered
            });
        }
        if kept.len() == KEPT_MAX {
            return Setting::Pins;
        }
        kept.push(sql.to_vec());
        self.names.push(names);
        Setting::Kept
    }

    /// Takes from a statement what says how the ones behind it are read.
    fn read(&mut self, sql: &[u8], assignments: &[Assignment]) {
        for assignment in assignments {
            if assignment.name == "sql_mode" {
                let mode = value(sql, assignment).to_ascii_lowercase();
                self.ansi_quotes = mode.windows(4).any(|window| window == b"ansi");
            }
            self.charset = charset_of(sql, assignment).or(self.charset);
        }
    }

    /// Reads what is kept once more, for a state that came from another process. `modes` are those of a fresh session.
    pub fn recall(&mut self, modes: Modes) {
        self.owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        for sql in self.kept.clone().iter() {
            let now = Modes {
                charset: self.charset.unwrap_or(modes.charset),
                ansi_quotes: self.ansi_quotes,
                ..modes
            };
            let assignments = parse_set(sql, now).unwrap_or_default();
            self.read(sql, &assignments);
        }
    }

    /// How this session's statements are read.
    pub fn modes(&self, dialect: Dialect, collation: u8, status: Status) -> Modes {
        let named = || mysql::charset::of_collation(u64::from(collation)).map(ClientCharset::by_name);
        Modes {
            dialect,
            charset: self.charset.or_else(named).unwrap_or_default(),
            ansi_quotes: self.ansi_quotes,
            no_backslash_escapes: status.has(Status::NO_BACKSLASH_ESCAPES),
            ..Modes::default()
        }
    }
}

mod shared_texts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(texts: &Arc<Vec<Vec<u8>>>, to: S) -> Result<S::Ok, S::Error> {
        texts.as_ref().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<Vec<u8>>>, D::Error> {
        Vec::deserialize(from).map(Arc::new)
    }
}

/// Names of user variables are their own.
fn name_of(assignment: &Assignment) -> String {
    if assignment.scope == Scope::User { format!("@{}", assignment.name) } else { assignment.name.clone() }
}

fn reads_text(name: &str) -> bool {
    READS_TEXT.contains(&name) || READS_TEXT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_text(sql: &[u8], assignment: &Assignment) -> bool {
    let number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.');
    !value(sql, assignment).first().is_some_and(number)
}

/// The name that a `USE` makes the current database; `None` where it cannot be told from the text alone.
pub fn used_database(sql: &[u8]) -> Option<Vec<u8>> {
    let text = sql.trim_ascii();
    let (verb, name) = text.split_at_checked(3)?;
    let name = name.trim_ascii().strip_suffix(b";").unwrap_or(name.trim_ascii()).trim_ascii();
    if !verb.eq_ignore_ascii_case(b"use") || name.is_empty() {
        return None;
    }
    if let Some(quoted) = name.strip_prefix(b"`").and_then(|rest| rest.strip_suffix(b"`")) {
        return (!quoted.is_empty() && !quoted.contains(&b'`')).then(|| quoted.to_vec());
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80;
    (text[3].is_ascii_whitespace() && name.iter().all(plain)).then(|| name.to_vec())
}

/// The client's character set, where one is named.
fn charset_of(sql: &[u8], assignment: &Assignment) -> Option<ClientCharset> {
    if !matches!(assignment.name.as_str(), "names" | "character set" | "character_set_client") {
        return None;
    }
    let name = std::str::from_utf8(value(sql, assignment)).ok()?;
    Some(ClientCharset::by_name(name.trim_matches(['\'', '"'])))
}

fn value<'a>(sql: &'a [u8], assignment: &Assignment) -> &'a [u8] {
    sql.get(assignment.value.start..assignment.value.end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(sql: &[u8]) -> Setting {
        State::default().set(sql, Modes::default())
    }

    #[test]
    fn plain_values_are_kept_and_others_pin() {
        for sql in [
            "set names utf8mb4",
            "SET SESSION sql_mode = 'ANSI,NO_ZERO_DATE'",
            "set autocommit=1, time_zone='+08:00'",
            "set character_set_results = NULL",
            "set session transaction isolation level read committed",
            "set @a = 1, @b = 'text', @c = null",
        ] {
            assert_eq!(setting(sql.as_bytes()), Setting::Kept, "{sql}");
        }
        for sql in [
            "set global x = 1",
            "set x = 1, global y = 2",
            "set sql_mode = (select 1)",
            "set password = 'x'",
            "set timestamp = unix_timestamp()",
            "set role r",
            "set",
            "select 1",
            "set x = @@y",
            "set insert_id = 7",
            "set @@last_insert_id = 7",
            "set sql_log_bin = 0",
            "set @a = @b",
            "set @a := now()",
        ] {
            assert_eq!(setting(sql.as_bytes()), Setting::Pins, "{sql}");
        }
        assert_eq!(setting(b"set transaction read only"), Setting::Once);
    }

    #[test]
    fn of_what_is_set_again_the_last_is_kept_and_the_list_has_an_end() {
        let kept = |texts: &[&str]| {
            let mut state = State::default();
            for sql in texts {
                assert_eq!(state.set(sql.as_bytes(), Modes::default()), Setting::Kept, "{sql}");
            }
            let kept = state.kept().iter().map(|sql| String::from_utf8_lossy(sql).into_owned());
            kept.collect::<Vec<_>>()
        };
        assert_eq!(kept(&["set a = 1", "set a = 2", "set a = 1"]), ["set a = 1"]);
        assert_eq!(kept(&["set a = 1, b = 1", "set a = 2"]), ["set a = 1, b = 1", "set a = 2"]);
        assert_eq!(kept(&["set a = 1", "set b = 1", "set b = 2, a = 2"]), ["set b = 2, a = 2"]);
        assert_eq!(kept(&["set @a = 1", "set a = 1", "set @a = 2"]), ["set a = 1", "set @a = 2"]);
        // The text is of the first set of names.
        let ordered = ["set names latin1", "set @a = 'x'", "set names utf8mb4", "set @a = 'y'"];
        assert_eq!(kept(&ordered), ordered);
        let mut state = State::default();
        for number in 0..KEPT_MAX {
            state.set(format!("set b{number} = 1").as_bytes(), Modes::default());
        }
        assert_eq!(state.set(b"set c = 1", Modes::default()), Setting::Pins);
    }

    #[test]
    fn only_what_changes_how_a_statement_is_read_counts_as_that() {
        let mut state = State::default();
        for (sql, reading) in [
            ("set autocommit = 0", 0),
            ("set session transaction read only", 0),
            ("set names utf8mb4", 1),
            ("set sql_mode = 'ansi'", 2),
            ("set character_set_results = null", 3),
            ("set @a = 1", 3),
        ] {
            state.set(sql.as_bytes(), Modes::default());
            assert_eq!(state.reading(), reading, "{sql}");
        }
        assert_ne!(state.owner(), State::default().owner());
    }

    #[test]
    fn the_database_of_a_use_is_its_name_without_quotes() {
        for (sql, name) in [
            ("use shop", Some("shop")),
            (" USE `my shop` ;", Some("my shop")),
            ("use\tshop;", Some("shop")),
            ("use`a`", Some("a")),
            ("use a.b", None),
            ("use `a``b`", None),
            ("use", None),
            ("useless", None),
            ("use /* x */ a", None),
            ("use 商店", Some("商店")),
        ] {
            assert_eq!(used_database(sql.as_bytes()).as_deref(), name.map(str::as_bytes), "{sql}");
        }
    }

    #[test]
    fn a_session_is_read_by_the_charset_and_the_mode_that_it_has_set() {
        let mut state = State::default();
        state.set(b"set names gbk", Modes::default());
        state.set(b"set sql_mode = 'ansi_quotes'", Modes::default());
        let modes = state.modes(Dialect::MySql, 45, Status(Status::NO_BACKSLASH_ESCAPES.0));
        assert!(modes.charset == ClientCharset::Gbk && modes.ansi_quotes && modes.no_backslash_escapes);
        assert_eq!(State::default().modes(Dialect::MySql, 28, Status(0)).charset, ClientCharset::Gbk);
    }
}
