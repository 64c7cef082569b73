//! What can go wrong with a statement, with MySQL's own numbers where MySQL has one.

use base::{Blame, Code, Fault, Retry};
use expr::Refusal;

/// A statement that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Not in the dialect of a project, or not kept by this engine: what MySQL and TiDB answer alike is what we answer, and
    /// the rest is refused before it runs.
    #[error("{}{message}", place(*line, *column))]
    Refused { message: String, hint: String, line: u64, column: u64 },
    /// What MySQL says by this number: 1062 for a duplicate key, 1064 for a syntax error.
    #[error("{}error {number}: {message}", place(*line, *column))]
    Sql { number: u16, message: String, line: u64, column: u64 },
    /// The server or file is not there.
    #[error("failed to reach the engine: {0}")]
    Unavailable(String),
    /// The time that was given is over, or the caller went away.
    #[error("the statement was stopped: {0}")]
    Stopped(String),
    #[error("failed inside the engine: {0}")]
    Internal(String),
}

fn place(line: u64, column: u64) -> String {
    if line == 0 { String::new() } else { format!("{line}:{column}: ") }
}

impl EngineError {
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: hint.into(), line: 0, column: 0 }
    }

    pub fn sql(number: u16, message: impl Into<String>) -> Self {
        Self::Sql { number, message: message.into(), line: 0, column: 0 }
    }

    /// At its place in the statement, where it has none yet.
    pub fn at(mut self, place: sqlparser::tokenizer::Location) -> Self {
        if let Self::Refused { line, column, .. } | Self::Sql { line, column, .. } = &mut self
            && *line == 0
        {
            (*line, *column) = (place.line, place.column);
        }
        self
    }

    /// MySQL's number, where the statement was understood.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Sql { number, .. } => Some(*number),
            _ => None,
        }
    }
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal.message, refusal.hint)
    }
}

impl Fault for EngineError {
    fn code(&self) -> Code {
        match self {
            Self::Refused { .. } => Code::Invalid,
            Self::Sql { number: 1146 | 1051, .. } => Code::NotFound,
            Self::Sql { number: 1050, .. } => Code::AlreadyExists,
            Self::Sql { number: 1044 | 1142 | 1290, .. } => Code::PermissionDenied,
            Self::Sql { number: 1045, .. } => Code::Unauthenticated,
            Self::Sql { .. } => Code::Invalid,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Stopped(_) => Code::Exhausted,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Refused { .. } | Self::Sql { .. } => Blame::Client,
            Self::Unavailable(_) => Blame::Upstream,
            Self::Stopped(_) => Blame::Client,
            Self::Internal(_) => Blame::Us,
        }
    }

    fn retry(&self) -> Retry {
        if matches!(self, Self::Unavailable(_)) { Retry::Backoff } else { Retry::Never }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            _ => None,
        }
    }
}

/// How an error of ours travels through SQLite, which carries text only.
const MARK: &str = "tidemill:";

/// `number` and `message` as one text; 0 for a refusal.
pub fn carried(error: &EngineError) -> String {
    match error {
        EngineError::Sql { number, message, .. } => format!("{MARK}{number}:{message}"),
        EngineError::Refused { message, hint, .. } => format!("{MARK}0:{message}\u{1}{hint}"),
        other => other.to_string(),
    }
}

/// What SQLite says when a statement is past one of its own bounds.
const SQLITE_BOUNDS: [&str; 5] = [
    "Recursion limit",
    "parser stack overflow",
    "Expression tree is too large",
    "too many ",
    "at most 64 tables in a join",
];

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        let text = match &error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
            rusqlite::Error::UserFunctionError(inner) => inner.to_string(),
            other => other.to_string(),
        };
        if let Some((number, message)) = text.strip_prefix(MARK).and_then(|rest| rest.split_once(':')) {
            return match number.parse() {
                Ok(0) | Err(_) => {
                    let (message, hint) = message.split_once('\u{1}').unwrap_or((message, ""));
                    Self::refused(message, hint)
                }
                Ok(number) => Self::sql(number, message),
            };
        }
        if !text.contains("constraint failed") && SQLITE_BOUNDS.iter().any(|it| text.contains(it)) {
            return Self::refused(
                "the statement is too large for SQLite",
                "split it, or keep a part of it in a table",
            );
        }
        let rusqlite::Error::SqliteFailure(failure, _) = &error else { return Self::Internal(text) };
        match failure.code {
            C::ConstraintViolation if text.starts_with("UNIQUE") => {
                Self::sql(1062, text.replace("UNIQUE constraint failed", "Duplicate entry"))
            }
            C::ConstraintViolation if text.starts_with("NOT NULL") => {
                Self::sql(1048, text.replace("NOT NULL constraint failed", "Column cannot be null"))
            }
            // Only a number that AUTO_INCREMENT makes is checked there.
            C::ConstraintViolation if text.starts_with("CHECK") => {
                Self::sql(1062, "Duplicate entry for key 'PRIMARY': AUTO_INCREMENT is at the end of its type")
            }
            C::OperationInterrupted => Self::Stopped("it was interrupted".into()),
            C::DiskFull => Self::sql(1114, "the disk is full"),
            C::DatabaseBusy | C::DatabaseLocked => {
                Self::sql(1205, "another process writes: lock wait timeout")
            }
            C::CannotOpen | C::NotADatabase | C::PermissionDenied => Self::Unavailable(text),
            C::ReadOnly => Self::sql(1290, "the engine was opened to read"),
            _ => Self::Internal(text),
        }
    }
}
