//! What servers are asked to tell of their sessions beside what clients are told, and what is made of it.
//!
//! ```text
//! that something was set   the server's word, on shared connections to MySQL: `session_track_state_change`
//! what was set             the statement's text where it is a literal; else the server is asked behind it
//! ```
//! `session_track_system_variables = '*'` would tell values too, but also `statement_id` with each answer, and of `SET NAMES`
//! not the collation. A client is told what it would be told without us: the rest is taken out of the answers (`relay`), and a
//! statement that asks for the setting, or sets it, finds it as its client has it.

use super::borrow::Need;
use super::relay::Answered;
use super::state::State;
use super::{Head, Session};
use crate::config::{GroupKind, Role};
use crate::error::SessionError;
use crate::group::Group;
use crate::link::{Link, Table};
use mysql::protocol::{Capabilities, Command};
use mysql::sql::{Flags, Kind, Modes, Scan, Scope, parse_assigned, parse_set};
use std::time::Duration;

/// How long a server may take to say what was set.
const VALUES_MAX: Duration = Duration::from_secs(5);
/// Variables of one statement that are asked for.
const ASKED_MAX: usize = 16;

/// The setting's name, as far as it is its own.
const NAME: &[u8] = b"session_track_state";

/// What a login of a shared connection asks for beside what its client does.
pub(crate) fn wanted(group: &Group, client: Capabilities) -> Capabilities {
    // MariaDB counts more for a change, and TiDB tells of none.
    let tells = group.config.kind == GroupKind::Mysql && !client.mariadb();
    // Where each connection begins with the group's own, that stays.
    let own = group.config.init.iter().any(|sql| contains(sql.as_bytes(), b"session_track"));
    if tells && !own { Capabilities::SESSION_TRACK } else { Capabilities::default() }
}

/// Whether the server has the setting, and does not tell of changes already.
pub(super) async fn can_be_told(group: &Group, link: &mut Link) -> Result<bool, SessionError> {
    if !(wanted(group, link.capabilities) & link.capabilities).has(Capabilities::SESSION_TRACK) {
        return Ok(false);
    }
    match link.ask("select @@session.session_track_state_change").await {
        Ok(answer) => Ok(matches!(answer.only(), Some("0" | "OFF"))),
        // One that is too old for it, or an account whose password has expired.
        Err(SessionError::Server { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What makes it so.
pub(super) fn said(tracks: bool) -> &'static [u8] {
    if tracks {
        b"set session session_track_state_change = ON"
    } else {
        b"set session session_track_state_change = OFF"
    }
}

/// Whether a statement may show what the setting is, or change it.
pub(super) fn needs_plain(command: Command, scan: Option<&Scan>, sql: &[u8]) -> bool {
    let Some(scan) = scan.filter(|_| matches!(command, Command::Query | Command::Prepare)) else {
        return false;
    };
    let asks = Flags::SYSTEM_VARIABLE | Flags::SERVER_STATE | Flags::EXECUTABLE_COMMENT | Flags::MULTI;
    match scan.kind {
        Kind::Set | Kind::Prepare | Kind::Call => contains(sql, NAME),
        Kind::Show => contains(sql, b"variables") && may_match(sql),
        _ => scan.flags.intersects(asks) && (contains(sql, NAME) || contains(sql, b"variables")),
    }
}

/// Whether a `LIKE` leaves the setting in.
fn may_match(sql: &[u8]) -> bool {
    let Some(at) = position(sql, b"like") else { return true };
    let pattern = sql[at + 4..].trim_ascii_start();
    let Some((b'\'' | b'"', pattern)) = pattern.split_first() else { return true };
    let fixed = pattern.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
    let alike = |(one, other): (&u8, &u8)| *one == b'_' || one.eq_ignore_ascii_case(other);
    fixed.zip(b"session_track_state_change").all(alike)
}

fn contains(sql: &[u8], word: &[u8]) -> bool {
    position(sql, word).is_some()
}

fn position(sql: &[u8], word: &[u8]) -> Option<usize> {
    sql.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

impl Session {
    /// Whether answers of the present connection tell of more than the client is told of.
    pub(super) fn tells_less(&self) -> bool {
        let Some(link) = &self.links[self.role as usize] else { return false };
        link.capabilities.has(Capabilities::SESSION_TRACK)
            && (link.tracks || !self.identity.capabilities.has(Capabilities::SESSION_TRACK))
    }

    /// Whether the connection of a role is to tell of changes for the next statement.
    pub(super) fn should_track(&self, role: Role, need: Need, held: bool) -> bool {
        let Some(link) = &self.links[role as usize] else { return false };
        let can = link.tracks || link.pooled.as_ref().is_some_and(|pooled| pooled.can_track);
        // Between two statements on one connection nothing is said that a question about the first could see.
        can && !need.plain && !self.state.own_tracking && (!held || link.tracks)
    }

    /// The text of a prepared `SET` that is about to be carried out. Notes what the client decides for itself.
    pub(super) fn prepared_set(&mut self, head: Head, scan: Option<&Scan>) -> Option<Vec<u8>> {
        let scan = scan?;
        let only_asks = head.command == Command::Query && matches!(scan.kind, Kind::Select | Kind::Show);
        if !only_asks && needs_plain(head.command, Some(scan), self.text(head).unwrap_or_default()) {
            self.state.own_tracking = true;
        }
        let is_execution = matches!(head.command, Command::Execute | Command::BulkExecute);
        if !is_execution || scan.kind != Kind::Set || !self.is_several() {
            return None;
        }
        // One without a text sets what nobody can say again.
        Some(self.statement(head).and_then(|statement| statement.text()).unwrap_or_default().to_vec())
    }

    /// The text of a `SET` with the values that came of it in the place of its expressions; as it is where there are none, or
    /// where they cannot be told.
    pub(super) async fn learn_values(
        &mut self,
        head: Head,
        scan: Option<&Scan>,
        text: Option<Vec<u8>>,
        prepared: Option<Vec<u8>>,
        answered: &Answered,
    ) -> Option<Vec<u8>> {
        let text = prepared.or(text)?;
        let is_set = scan.is_some_and(|scan| scan.kind == Kind::Set && !scan.flags.intersects(Flags::MULTI));
        // A question of our own would leave nothing to be asked about the client's.
        let is_quiet = !self.asks && answered.told.is_some_and(|told| told.warnings == 0);
        if !is_set || !is_quiet || answered.error || self.role != Role::Writer || !self.is_several() {
            return Some(text);
        }
        if head.command == Command::Query && parse_set(&text, self.modes()).is_some() {
            return Some(text);
        }
        Some(self.ask_values(&text).await.unwrap_or(text))
    }

    async fn ask_values(&mut self, sql: &[u8]) -> Option<Vec<u8>> {
        let asked = Asked::of(sql, self.modes())?;
        if asked.names.is_empty() {
            // A prepared one of literals.
            return None;
        }
        let link = self.links[Role::Writer as usize].as_mut()?;
        match tokio::time::timeout(VALUES_MAX, link.ask(&asked.question())).await {
            Ok(Ok(table)) => asked.answered(&table),
            Ok(Err(SessionError::Server { .. })) => None,
            _ => {
                // What was set there is gone with it, and the client is told so.
                let link = self.links[Role::Writer as usize].take()?;
                self.seat.leave(Role::Writer);
                self.trouble =
                    Some(link.lost(std::io::Error::other("it went away, and with it what was set")));
                None
            }
        }
    }
}

/// A `SET` some of whose values are to be asked for.
struct Asked {
    /// What is said as it is, or the place in `names` of what is set.
    pieces: Vec<Result<Vec<u8>, usize>>,
    names: Vec<String>,
}

impl Asked {
    fn of(sql: &[u8], modes: Modes) -> Option<Self> {
        let mut asked = Self { pieces: Vec::new(), names: Vec::new() };
        for one in parse_assigned(sql, modes)? {
            if one.is_literal {
                asked.pieces.push(Ok(sql.get(one.whole.start..one.whole.end)?.to_vec()));
                continue;
            }
            if one.scope != Scope::Session || !State::may_repeat(&one.name) || asked.names.len() == ASKED_MAX
            {
                return None;
            }
            asked.pieces.push(Err(asked.names.len()));
            asked.names.push(one.name);
        }
        Some(asked)
    }

    fn question(&self) -> String {
        let names: Vec<_> = self.names.iter().map(|name| format!("@@session.{name}")).collect();
        format!("select {}", names.join(", "))
    }

    /// The statement with literals alone.
    fn answered(&self, table: &Table) -> Option<Vec<u8>> {
        let row = table.rows().next().filter(|row| row.len() == self.names.len())?;
        let mut out = b"SET ".to_vec();
        for (index, piece) in self.pieces.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            match piece {
                Ok(text) => out.extend_from_slice(text),
                Err(at) => {
                    let value = literal(row.get(*at)?.as_deref())?;
                    out.extend_from_slice(format!("@@session.{} = {value}", self.names[*at]).as_bytes());
                }
            }
        }
        Some(out)
    }
}

/// A value as every `sql_mode` and character set reads it; `None` where there is no such.
fn literal(value: Option<&str>) -> Option<String> {
    let Some(value) = value else { return Some("NULL".into()) };
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.matches('.').count() <= 1;
    if is_number {
        return Some(value.to_owned());
    }
    let plain = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && !matches!(byte, b'\'' | b'\\');
    value.bytes().all(plain).then(|| format!("'{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql::sql::scan;

    #[test]
    fn values_that_any_mode_reads_alike_are_said_again_and_others_are_not() {
        for (value, expected) in [
            (None, Some("NULL")),
            (Some("10"), Some("10")),
            (Some("-1.500000"), Some("-1.500000")),
            (Some("+08:00"), Some("'+08:00'")),
            (Some("ANSI,STRICT_ALL_TABLES"), Some("'ANSI,STRICT_ALL_TABLES'")),
            (Some(""), Some("''")),
            (Some("1.2.3"), Some("'1.2.3'")),
            (Some("it's"), None),
            (Some("a\\b"), None),
            (Some("é"), None),
        ] {
            assert_eq!(literal(value).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn only_what_is_computed_is_asked_for() {
        let question = |sql: &str| Asked::of(sql.as_bytes(), Modes::default()).map(|asked| asked.question());
        let sqlx = "SET sql_mode=(SELECT CONCAT(@@sql_mode, ',ANSI')),time_zone='+00:00',NAMES utf8mb4";
        assert_eq!(question(sqlx).as_deref(), Some("select @@session.sql_mode"));
        let two = "set a = ?, @@session.b = 1 + 1";
        assert_eq!(question(two).as_deref(), Some("select @@session.a, @@session.b"));
        for sql in [
            "set @a = now()",
            "set timestamp = unix_timestamp()",
            "set insert_id = 1 + 1",
            "set global a = 1 + 1",
            "set @@transaction_read_only = 1 - 1",
            "set role r",
        ] {
            assert_eq!(question(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_statement_that_may_show_the_setting_finds_it_as_the_client_has_it() {
        let plain = |sql: &str| {
            let scan = scan(sql.as_bytes(), Modes::default());
            needs_plain(Command::Query, Some(&scan), sql.as_bytes())
        };
        for sql in [
            "select @@session_track_state_change",
            "SELECT @@SESSION.Session_Track_State_Change, 1",
            "show variables",
            "show session variables like 'session\\_track%'",
            "show variables like '%track%'",
            "show variables where variable_name = 'x'",
            "set session_track_state_change = 1",
            "select * from performance_schema.session_variables",
        ] {
            assert!(plain(sql), "{sql}");
        }
        for sql in [
            "select 1",
            "select @@sql_mode",
            "show variables like 'lower_case_table_names'",
            "show variables like 'sql_mode'",
            "show tables",
            "set names utf8mb4",
            "select variables from t",
        ] {
            assert!(!plain(sql), "{sql}");
        }
    }
}
