//! What a session has set up on its connections, so that another connection can be made like the first.
//!
//! A `SET` whose values are plain is kept as text and said again on a connection that has not heard it, in order. One that
//! cannot be said twice with the same outcome keeps the session with its writer.

use mysql::protocol::Status;
use mysql::sql::{Assignment, ClientCharset, Dialect, Modes, Scope, parse_set};
use serde::{Deserialize, Serialize};

/// Statements that are kept; a session that sets more stays with its writer.
const KEPT_MAX: usize = 64;
/// The longest that is kept; `sql_mode` with everything in it has 400 bytes.
const KEPT_BYTES_MAX: usize = 1024;

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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    kept: Vec<Vec<u8>>,
    /// Grows with each change: a connection that has seen another number is made like this one first.
    version: u64,
    /// The next transaction's own settings wait on the writer.
    pub once: bool,
    /// This and the next are told by what is kept.
    #[serde(skip)]
    pub ansi_quotes: bool,
    #[serde(skip)]
    pub charset: Option<ClientCharset>,
}

impl State {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn kept(&self) -> &[Vec<u8>] {
        &self.kept
    }

    /// The current database is another one.
    pub fn changed(&mut self) {
        self.version += 1;
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
        if self.kept.len() == KEPT_MAX {
            return Setting::Pins;
        }
        self.read(sql, &assignments);
        // What was said before is not said twice: pools set the same names again and again.
        self.kept.retain(|kept| kept != sql);
        self.kept.push(sql.to_vec());
        self.version += 1;
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
        for sql in std::mem::take(&mut self.kept) {
            let now = Modes {
                charset: self.charset.unwrap_or(modes.charset),
                ansi_quotes: self.ansi_quotes,
                ..modes
            };
            let assignments = parse_set(&sql, now).unwrap_or_default();
            self.read(&sql, &assignments);
            self.kept.push(sql);
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
        ] {
            assert_eq!(setting(sql.as_bytes()), Setting::Pins, "{sql}");
        }
        assert_eq!(setting(b"set transaction read only"), Setting::Once);
    }

    #[test]
    fn the_same_said_again_takes_its_new_place_and_the_list_has_an_end() {
        let mut state = State::default();
        for sql in [&b"set a = 1"[..], b"set a = 2", b"set a = 1"] {
            assert_eq!(state.set(sql, Modes::default()), Setting::Kept);
        }
        assert_eq!(state.kept(), [b"set a = 2".to_vec(), b"set a = 1".to_vec()]);
        assert_eq!(state.version(), 3);
        for number in 0..KEPT_MAX {
            state.set(format!("set b = {number}").as_bytes(), Modes::default());
        }
        assert_eq!(state.set(b"set c = 1", Modes::default()), Setting::Pins);
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
