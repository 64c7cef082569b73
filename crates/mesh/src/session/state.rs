//! What a session has set up on its connections, so that another connection can be made like the first.
//!
//! A `SET` whose values are plain is kept as text and said again on a connection that has not heard it, in order. One that
//! cannot be said twice with the same outcome keeps the session with its writer.

use mysql::protocol::Status;
use mysql::sql::{ClientCharset, Dialect, Modes};

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
#[derive(Clone, Debug, Default)]
pub struct State {
    kept: Vec<Vec<u8>>,
    /// Grows with each change: a connection that has seen another number is made like this one first.
    version: u64,
    /// The next transaction's own settings wait on the writer.
    pub once: bool,
    pub ansi_quotes: bool,
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
    pub fn set(&mut self, sql: &[u8]) -> Setting {
        let setting = setting(sql);
        match setting {
            Setting::Once => self.once = true,
            Setting::Kept if self.kept.len() == KEPT_MAX => return Setting::Pins,
            Setting::Kept => {
                let lower = sql.to_ascii_lowercase();
                let has = |word: &str| lower.windows(word.len()).any(|window| window == word.as_bytes());
                if has("sql_mode") {
                    self.ansi_quotes = has("ansi");
                }
                if let Some(charset) = charset_named(&lower) {
                    self.charset = Some(charset);
                }
                // What was said before is not said twice: pools set the same names again and again.
                self.kept.retain(|kept| kept != sql);
                self.kept.push(sql.to_vec());
                self.version += 1;
            }
            Setting::Pins => {}
        }
        setting
    }

    /// How this session's statements are read.
    pub fn modes(&self, dialect: Dialect, collation: u8, status: Status) -> Modes {
        let named = || mysql::charset::of_collation(u64::from(collation)).map(ClientCharset::by_name);
        Modes {
            dialect,
            charset: self.charset.or_else(named).unwrap_or_default(),
            ansi_quotes: self.ansi_quotes,
            no_backslash_escapes: status.has(Status::NO_BACKSLASH_ESCAPES),
            ignore_space: false,
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

/// By its words alone: no call, no variable, no query may stand in it, and nothing of the whole server.
fn setting(sql: &[u8]) -> Setting {
    let lower = sql.to_ascii_lowercase();
    if lower.len() > KEPT_BYTES_MAX || lower.iter().any(|byte| matches!(byte, b'(' | b'@' | b';' | b'\\' | b'#')) {
        return Setting::Pins;
    }
    let comment = lower.windows(2).any(|two| two == b"/*" || two == b"--");
    let words: Vec<&[u8]> =
        lower.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').filter(|word| !word.is_empty()).collect();
    match words.get(1).copied() {
        _ if comment || words.first() != Some(&&b"set"[..]) => Setting::Pins,
        Some(b"transaction") => Setting::Once,
        Some(b"global" | b"persist" | b"persist_only" | b"password" | b"role" | b"default" | b"resource" | b"statement") => {
            Setting::Pins
        }
        None => Setting::Pins,
        // Further assignments may name a scope again.
        _ if words.iter().skip(2).any(|word| matches!(*word, b"global" | b"persist" | b"persist_only")) => Setting::Pins,
        _ => Setting::Kept,
    }
}

/// The client's character set, where a `SET` names one.
fn charset_named(lower: &[u8]) -> Option<ClientCharset> {
    let text = std::str::from_utf8(lower).ok()?;
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.next()?;
    let name = match words.next()? {
        "names" | "charset" | "character_set_client" => words.next()?,
        "character" => words.nth(1)?,
        _ => return None,
    };
    Some(ClientCharset::by_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_kept_and_others_pin() {
        for sql in ["set names utf8mb4", "SET SESSION sql_mode = 'ANSI,NO_ZERO_DATE'", "set autocommit=1, time_zone='+08:00'",
            "set character_set_results = NULL", "set session transaction isolation level read committed"] {
            assert_eq!(setting(sql.as_bytes()), Setting::Kept, "{sql}");
        }
        for sql in ["set @a = 1", "set global x = 1", "set x = 1, global y = 2", "set sql_mode = (select 1)", "set password = 'x'",
            "set timestamp = unix_timestamp()", "set role r", "set /* x */ names utf8", "set", "select 1", "set x = @@y"] {
            assert_eq!(setting(sql.as_bytes()), Setting::Pins, "{sql}");
        }
        assert_eq!(setting(b"set transaction read only"), Setting::Once);
    }

    #[test]
    fn the_same_said_again_takes_its_new_place_and_the_list_has_an_end() {
        let mut state = State::default();
        for sql in [&b"set a = 1"[..], b"set a = 2", b"set a = 1"] {
            assert_eq!(state.set(sql), Setting::Kept);
        }
        assert_eq!(state.kept(), [b"set a = 2".to_vec(), b"set a = 1".to_vec()]);
        assert_eq!(state.version(), 3);
        for number in 0..KEPT_MAX {
            state.set(format!("set b = {number}").as_bytes());
        }
        assert_eq!(state.set(b"set c = 1"), Setting::Pins);
    }

    #[test]
    fn the_database_of_a_use_is_its_name_without_quotes() {
        for (sql, name) in [("use shop", Some("shop")), (" USE `my shop` ;", Some("my shop")), ("use\tshop;", Some("shop")), ("use`a`", Some("a")),
            ("use a.b", None), ("use `a``b`", None), ("use", None), ("useless", None), ("use /* x */ a", None), ("use 商店", Some("商店"))] {
            assert_eq!(used_database(sql.as_bytes()).as_deref(), name.map(str::as_bytes), "{sql}");
        }
    }

    #[test]
    fn a_session_is_read_by_the_charset_and_the_mode_that_it_has_set() {
        let mut state = State::default();
        state.set(b"set names gbk");
        state.set(b"set sql_mode = 'ansi_quotes'");
        let modes = state.modes(Dialect::MySql, 45, Status(Status::NO_BACKSLASH_ESCAPES.0));
        assert!(modes.charset == ClientCharset::Gbk && modes.ansi_quotes && modes.no_backslash_escapes);
        assert_eq!(State::default().modes(Dialect::MySql, 28, Status(0)).charset, ClientCharset::Gbk);
    }
}
