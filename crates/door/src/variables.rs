//! System variables: what drivers ask for when they connect, and what they may set.

use crate::error::SqlError;
use crate::text::{Text, literal, unescaped};
use mysql::sql::{Assignment, Modes, Scope, TokenKind, parse_assigned, parse_set};
use std::collections::BTreeMap;
use std::time::Duration;

/// User variables of one session.
const USER_VARIABLES_MAX: usize = 1000;
/// Bytes of one value that a session keeps.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all of them, with their names.
const VALUES_BYTES_MAX: usize = 1 << 20;

/// What a variable is: digits go out as a number, the rest as text, `NULL` as NULL.
const KNOWN: &[(&str, &str)] = &[
    ("auto_increment_increment", "1"),
    ("auto_increment_offset", "1"),
    ("autocommit", "1"),
    ("back_log", "151"),
    ("basedir", "/"),
    ("big_tables", "0"),
    ("bulk_insert_buffer_size", "8388608"),
    ("character_set_client", "utf8mb4"),
    ("character_set_connection", "utf8mb4"),
    ("character_set_database", "utf8mb4"),
    ("character_set_filesystem", "binary"),
    ("character_set_results", "utf8mb4"),
    ("character_set_server", "utf8mb4"),
    ("character_set_system", "utf8mb3"),
    ("collation_connection", "utf8mb4_0900_ai_ci"),
    ("collation_database", "utf8mb4_0900_ai_ci"),
    ("collation_server", "utf8mb4_0900_ai_ci"),
    ("connect_timeout", "10"),
    ("datadir", "/"),
    ("default_storage_engine", "InnoDB"),
    ("default_week_format", "0"),
    ("div_precision_increment", "4"),
    ("event_scheduler", "OFF"),
    ("explicit_defaults_for_timestamp", "1"),
    ("foreign_key_checks", "1"),
    ("group_concat_max_len", "1048576"),
    ("have_openssl", "YES"),
    ("have_profiling", "NO"),
    ("have_ssl", "YES"),
    ("hostname", "tidemill"),
    ("init_connect", ""),
    ("innodb_version", "8.4.6"),
    ("interactive_timeout", "3600"),
    ("innodb_lock_wait_timeout", "50"),
    ("language", "/"),
    ("lc_messages", "en_US"),
    ("lc_time_names", "en_US"),
    ("license", "Apache-2.0"),
    ("local_infile", "0"),
    ("lock_wait_timeout", "50"),
    ("log_bin", "0"),
    ("low_priority_updates", "0"),
    // Names are told apart as SQLite's are: not by case, and kept as they were written.
    ("lower_case_file_system", "ON"),
    ("lower_case_table_names", "2"),
    ("max_allowed_packet", "4194304"),
    ("max_connections", "256"),
    ("max_execution_time", "0"),
    ("max_join_size", "18446744073709551615"),
    ("max_prepared_stmt_count", "1000"),
    ("max_user_connections", "0"),
    ("net_buffer_length", "16384"),
    ("net_read_timeout", "30"),
    ("net_write_timeout", "60"),
    ("optimizer_switch", ""),
    ("performance_schema", "0"),
    ("port", "7306"),
    ("profiling", "0"),
    ("protocol_version", "10"),
    ("read_only", "1"),
    ("resultset_metadata", "FULL"),
    ("server_id", "1"),
    ("session_track_gtids", "OFF"),
    ("session_track_schema", "0"),
    ("session_track_system_variables", ""),
    ("skip_networking", "0"),
    ("socket", ""),
    ("sql_auto_is_null", "0"),
    ("sql_big_selects", "1"),
    ("sql_mode", SQL_MODE),
    ("sql_notes", "1"),
    ("sql_quote_show_create", "1"),
    ("sql_safe_updates", "0"),
    ("sql_select_limit", "18446744073709551615"),
    ("sql_warnings", "0"),
    ("super_read_only", "1"),
    ("system_time_zone", "UTC"),
    ("time_zone", "+00:00"),
    ("timestamp", "0"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("transaction_read_only", "1"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("tx_read_only", "1"),
    ("unique_checks", "1"),
    ("version", crate::VERSION),
    ("version_comment", "Tidemill SQL door"),
    ("version_compile_machine", "any"),
    ("version_compile_os", "any"),
    ("wait_timeout", "3600"),
    ("warning_count", "0"),
    ("error_count", "0"),
];

/// The modes that the engine has.
const SQL_MODE: &str = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";
/// Modes in which a statement would mean something else.
const MODES_OF_READING: [&str; 6] = [
    "ANSI",
    "ANSI_QUOTES",
    "NO_BACKSLASH_ESCAPES",
    "PIPES_AS_CONCAT",
    "HIGH_NOT_PRECEDENCE",
    "NO_UNSIGNED_SUBTRACTION",
];
/// What may be computed, since nothing here hangs on it.
const HARMLESS: [&str; 3] = ["sql_mode", "optimizer_switch", "session_track_system_variables"];
/// Names of the time zone that the engine has.
const UTC: [&str; 5] = ["+00:00", "+0:00", "UTC", "SYSTEM", "Etc/UTC"];
/// Character sets of clients in which the door can answer: UTF-8, and what is a part of it.
const CHARSETS: [&str; 6] = ["utf8mb4", "utf8", "utf8mb3", "ascii", "binary", "null"];

/// Those that SHOW VARIABLES tells as ON and OFF.
const SWITCHES: [&str; 18] = [
    "autocommit",
    "foreign_key_checks",
    "unique_checks",
    "sql_notes",
    "sql_auto_is_null",
    "sql_safe_updates",
    "sql_big_selects",
    "sql_warnings",
    "performance_schema",
    "read_only",
    "super_read_only",
    "transaction_read_only",
    "local_infile",
    "log_bin",
    "big_tables",
    "explicit_defaults_for_timestamp",
    "skip_networking",
    "sql_quote_show_create",
];

/// The variables of one session.
#[derive(Debug, Default)]
pub struct Variables {
    set: BTreeMap<String, String>,
    /// As literals.
    user: BTreeMap<String, String>,
}

impl Variables {
    /// The value of a system variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let known = || KNOWN.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        self.set.get(&name).map(String::as_str).or_else(known)
    }

    /// All, by name: those of the server, or with what the session has set.
    pub fn all(&self, global: bool) -> Vec<(String, String)> {
        let shown = |name: &str, value: &str| match value {
            "1" if SWITCHES.contains(&name) => "ON".to_owned(),
            "0" if SWITCHES.contains(&name) => "OFF".to_owned(),
            value => value.to_owned(),
        };
        let all = KNOWN.iter().filter(|(name, _)| !name.starts_with("tx_"));
        all.map(|(name, value)| {
            let value = if global { value } else { self.get(name).unwrap_or(value) };
            ((*name).to_owned(), shown(name, value))
        })
        .collect()
    }

    /// A system variable as a literal.
    pub fn as_literal(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        let number = !value.is_empty() && value.len() < 20 && value.bytes().all(|byte| byte.is_ascii_digit());
        let large = value.len() == 20 && value.parse::<u64>().is_ok();
        Some(match value {
            "NULL" => "NULL".to_owned(),
            number_text if number || large => number_text.to_owned(),
            text => literal(text),
        })
    }

    /// A user variable as a literal; one that was not set is NULL.
    pub fn user(&self, name: &str) -> &str {
        self.user.get(&name.to_ascii_lowercase()).map_or("NULL", String::as_str)
    }

    /// Rows of one result at most, as `sql_select_limit` has it.
    pub fn rows_max(&self) -> u64 {
        self.get("sql_select_limit").and_then(|it| it.parse().ok()).unwrap_or(u64::MAX)
    }

    /// The time of one query, where the session asks for less than the door gives.
    pub fn time_max(&self, door: Duration) -> Duration {
        let asked = self.get("max_execution_time").and_then(|it| it.parse().ok()).unwrap_or(0);
        if asked == 0 { door } else { door.min(Duration::from_millis(asked)) }
    }

    /// The time between two commands, likewise.
    pub fn idle_max(&self, door: Duration) -> Duration {
        match self.get("wait_timeout").and_then(|it| it.parse().ok()) {
            Some(seconds @ 1..) => door.min(Duration::from_secs(seconds)),
            _ => door,
        }
    }

    /// SET: all of it, or an error and nothing of it.
    pub fn set(&mut self, text: &Text<'_>) -> Result<(), SqlError> {
        if text.is(1, "password") || text.is(1, "role") || text.is(1, "default") || text.is(1, "resource") {
            return Err(SqlError::not_supported("users and roles"));
        }
        if (1..text.tokens.len()).any(|at| {
            let word = text.at(at).to_ascii_lowercase();
            let scoped = |scope: &str| text.is(at, scope) && text.kind(at + 1) == Some(TokenKind::Word);
            let set = ["=", ":="].contains(&text.at(at + 1));
            let global = word.starts_with("@@global.") || word.starts_with("@@persist");
            global && set || scoped("global") || scoped("persist")
        }) {
            return Err(SqlError::new(
                1227,
                "Access denied; you need SUPER for this operation: the SQL door has no global variables to set",
            ));
        }
        let mut next = (self.set.clone(), self.user.clone());
        match parse_set(text.sql.as_bytes(), Modes::default()) {
            Some(assignments) => assign(&mut next, text.sql, assignments)?,
            None => set_by_expressions(&mut next, text)?,
        }
        let all = next.0.iter().chain(&next.1);
        if all.map(|(name, value)| name.len() + value.len()).sum::<usize>() > VALUES_BYTES_MAX {
            let message = format!("the session's variables have more than {VALUES_BYTES_MAX} bytes");
            return Err(SqlError::new(1231, message));
        }
        (self.set, self.user) = next;
        Ok(())
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// System variables, and those of the user.
type Both = (BTreeMap<String, String>, BTreeMap<String, String>);

fn assign(next: &mut Both, sql: &str, assignments: Vec<Assignment>) -> Result<(), SqlError> {
    for assignment in assignments {
        let written = sql.get(assignment.value.start..assignment.value.end).unwrap_or_default();
        let value = value_of(written);
        if value.len() > VALUE_BYTES_MAX {
            return Err(SqlError::new(1231, format!("the value of `{}` is too long", assignment.name)));
        }
        if assignment.scope != Scope::User {
            apply(&mut next.0, &assignment.name, &value)?;
            continue;
        }
        if next.1.len() >= USER_VARIABLES_MAX {
            return Err(SqlError::new(1231, format!("more than {USER_VARIABLES_MAX} user variables")));
        }
        next.1.insert(assignment.name, as_value(written));
    }
    Ok(())
}

/// A value that is computed is taken where it changes nothing here.
fn set_by_expressions(next: &mut Both, text: &Text<'_>) -> Result<(), SqlError> {
    let all = parse_assigned(text.sql.as_bytes(), Modes::default());
    for assigned in all.ok_or_else(|| SqlError::syntax(text.from(1)))? {
        let whole = text.sql.get(assigned.whole.start..assigned.whole.end).unwrap_or_default();
        let alone = format!("SET {whole}");
        if let Some(assignments) = parse_set(alone.as_bytes(), Modes::default()) {
            assign(next, &alone, assignments)?;
            continue;
        }
        let strange = MODES_OF_READING.iter().any(|mode| whole.to_ascii_uppercase().contains(mode));
        if assigned.scope == Scope::User || strange || !HARMLESS.contains(&assigned.name.as_str()) {
            return Err(SqlError::not_supported("SET of what is not a literal"));
        }
    }
    Ok(())
}

/// The value behind `=`, without quotes.
fn value_of(written: &str) -> String {
    if written.starts_with(['\'', '"']) { unescaped(written) } else { written.trim_matches('`').to_owned() }
}

/// A literal that an expression may hold.
fn as_value(written: &str) -> String {
    if written.starts_with(['\'', '"']) { literal(&unescaped(written)) } else { written.to_owned() }
}

fn apply(set: &mut BTreeMap<String, String>, name: &str, value: &str) -> Result<(), SqlError> {
    let wrong = || SqlError::new(1231, format!("Variable '{name}' can't be set to the value of '{value}'"));
    if value.eq_ignore_ascii_case("default") {
        set.remove(name);
        return Ok(());
    }
    match name {
        "names"
        | "character set"
        | "character_set_client"
        | "character_set_results"
        | "character_set_connection" => {
            if !CHARSETS.iter().any(|it| it.eq_ignore_ascii_case(value)) {
                return Err(SqlError::new(
                    1115,
                    format!("Unknown character set: '{value}': the SQL door speaks utf8mb4"),
                ));
            }
            let names = ["character_set_client", "character_set_results", "character_set_connection"];
            let all = matches!(name, "names" | "character set");
            for name in names.into_iter().filter(|it| all || *it == name) {
                set.insert(
                    name.to_owned(),
                    if value.eq_ignore_ascii_case("null") {
                        "NULL".to_owned()
                    } else {
                        value.to_ascii_lowercase()
                    },
                );
            }
            return Ok(());
        }
        "collate" => {
            set.insert("collation_connection".into(), value.to_ascii_lowercase());
            return Ok(());
        }
        "time_zone" if !UTC.iter().any(|it| it.eq_ignore_ascii_case(value)) => {
            return Err(SqlError::new(
                1298,
                format!("Unknown or incorrect time zone: '{value}': the engine's times are UTC"),
            ));
        }
        "sql_mode" => {
            let strange = |mode: &str| MODES_OF_READING.iter().any(|it| it.eq_ignore_ascii_case(mode.trim()));
            if value.split(',').any(strange) {
                return Err(wrong());
            }
        }
        "sql_select_limit"
        | "max_execution_time"
        | "wait_timeout"
        | "interactive_timeout"
        | "net_write_timeout" => {
            value.parse::<u64>().map_err(|_| wrong())?;
        }
        _ => {}
    }
    if !KNOWN.iter().any(|(known, _)| *known == name) {
        return Err(SqlError::new(1193, format!("Unknown system variable '{name}'")));
    }
    if ["version", "version_comment", "hostname", "port", "datadir", "license"].contains(&name) {
        return Err(SqlError::new(1238, format!("Variable '{name}' is a read only variable")));
    }
    let value = match (name, value.to_ascii_lowercase().as_str()) {
        (
            "autocommit" | "foreign_key_checks" | "unique_checks" | "sql_notes" | "sql_auto_is_null"
            | "sql_safe_updates",
            "on" | "true",
        ) => "1".to_owned(),
        (
            "autocommit" | "foreign_key_checks" | "unique_checks" | "sql_notes" | "sql_auto_is_null"
            | "sql_safe_updates",
            "off" | "false",
        ) => "0".to_owned(),
        _ => value.to_owned(),
    };
    set.insert(name.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(variables: &mut Variables, sql: &str) -> Result<(), u16> {
        variables.set(&Text::read(sql).unwrap()).map_err(|error| error.number)
    }

    #[test]
    fn what_drivers_set_is_kept_and_told_again() {
        let mut all = Variables::default();
        for sql in [
            "SET NAMES utf8mb4",
            "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci'",
            "SET character_set_results = NULL",
            "SET autocommit=1",
            "SET AUTOCOMMIT = 0",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET SQL_SELECT_LIMIT=200",
            "SET sql_mode='STRICT_TRANS_TABLES'",
            "SET sql_mode=CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
            "SET @@session.max_execution_time = 500",
            "SET @mine = 'it''s'",
            "SET NAMES utf8",
            "SET time_zone = '+00:00'",
        ] {
            assert_eq!(set(&mut all, sql), Ok(()), "{sql}");
        }
        assert_eq!(all.get("autocommit"), Some("0"));
        assert_eq!(all.as_literal("character_set_results").unwrap(), "'utf8'");
        assert_eq!((all.rows_max(), all.time_max(Duration::from_secs(9))), (200, Duration::from_millis(500)));
        assert_eq!((all.user("MINE"), all.user("other")), ("'it''s'", "NULL"));
        assert_eq!(set(&mut all, "SET SQL_SELECT_LIMIT=DEFAULT"), Ok(()));
        assert_eq!(all.rows_max(), u64::MAX);
    }

    #[test]
    fn a_session_keeps_so_many_bytes_and_no_more() {
        let (mut all, value) = (Variables::default(), "x".repeat(60_000));
        let taken =
            (0..100).take_while(|at| set(&mut all, &format!("SET @v{at} = '{value}'")).is_ok()).count();
        assert_eq!(taken, VALUES_BYTES_MAX / 60_000);
        assert_eq!(set(&mut all, &format!("SET @more = '{value}'")), Err(1231));
        assert_eq!(all.user("more"), "NULL");
        assert_eq!(set(&mut all, "SET @v0 = 1"), Ok(()));
        assert_eq!(set(&mut all, &format!("SET @more = '{value}'")), Ok(()));
    }

    #[test]
    fn what_would_change_an_answer_is_refused_whole() {
        let mut all = Variables::default();
        for (sql, number) in [
            ("SET NAMES gbk", 1115),
            ("SET time_zone = 'Asia/Shanghai'", 1298),
            ("SET sql_mode = 'ANSI_QUOTES'", 1231),
            ("SET autocommit = 0, no_such_thing = 1", 1193),
            ("SET sql_mode = concat(@@sql_mode, ',ANSI_QUOTES')", 1235),
            ("SET GLOBAL wait_timeout = 1", 1227),
            ("SET @@global.wait_timeout = 1", 1227),
            ("SET version = '5'", 1238),
            ("SET @a = (SELECT 1)", 1235),
        ] {
            assert_eq!(set(&mut all, sql), Err(number), "{sql}");
        }
        assert_eq!(all.get("autocommit"), Some("1"));
    }
}
