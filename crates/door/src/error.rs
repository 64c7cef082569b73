//! What clients are told: MySQL's number, state and words.

use engine::EngineError;

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{number}: {message}")]
pub struct SqlError {
    pub number: u16,
    pub message: String,
}

/// "This version does not yet support": what the dialect of a project leaves out.
const NOT_SUPPORTED: u16 = 1235;
const INTERRUPTED: u16 = 1317;
const OUT_OF_TIME: u16 = 3024;
const UNKNOWN: u16 = 1105;
/// "Unable to connect to foreign data source".
const UNREACHABLE: u16 = 1429;

/// Numbers with another state than HY000.
const STATES: [(u16, &[u8; 5]); 30] = [
    (1040, b"08004"),
    (1044, b"42000"),
    (1045, b"28000"),
    (1046, b"3D000"),
    (1047, b"08S01"),
    (1049, b"42000"),
    (1051, b"42S02"),
    (1052, b"23000"),
    (1054, b"42S22"),
    (1055, b"42000"),
    (1060, b"42S21"),
    (1064, b"42000"),
    (1065, b"42000"),
    (1066, b"42000"),
    (1096, b"HY000"),
    (1109, b"42S02"),
    (1115, b"42000"),
    (1142, b"42000"),
    (1146, b"42S02"),
    (1153, b"08S01"),
    (1227, b"42000"),
    (1231, b"42000"),
    (1235, b"42000"),
    (1241, b"21000"),
    (1242, b"21000"),
    (1248, b"42000"),
    (1317, b"70100"),
    (1365, b"22012"),
    (1461, b"42000"),
    (1690, b"22003"),
];

impl SqlError {
    pub fn new(number: u16, message: impl Into<String>) -> Self {
        Self { number, message: message.into() }
    }

    pub fn not_supported(what: &str) -> Self {
        Self::new(NOT_SUPPORTED, format!("the SQL door does not support {what}"))
    }

    /// For a statement that would change something.
    pub fn read_only() -> Self {
        Self::new(1290, "the SQL door only reads: it cannot execute this statement")
    }

    pub fn interrupted() -> Self {
        Self::new(INTERRUPTED, "Query execution was interrupted")
    }

    pub fn out_of_time() -> Self {
        Self::new(OUT_OF_TIME, "Query execution was interrupted, maximum statement execution time exceeded")
    }

    pub fn syntax(near: &str) -> Self {
        let near: String = near.chars().take(80).collect();
        Self::new(1064, format!("You have an error in your SQL syntax near '{near}'"))
    }

    pub fn state(&self) -> &'static [u8; 5] {
        STATES.iter().find(|(number, _)| *number == self.number).map_or(b"HY000", |(_, state)| *state)
    }
}

impl From<EngineError> for SqlError {
    fn from(error: EngineError) -> Self {
        let at = |line: u64, column: u64| {
            if line == 0 { String::new() } else { format!(" at line {line}, column {column}") }
        };
        match error {
            EngineError::Sql { number, message, line, column } => {
                Self::new(number, format!("{message}{}", at(line, column)))
            }
            EngineError::Refused { message, hint, line, column } => {
                let hint = if hint.is_empty() { hint } else { format!("; hint: {hint}") };
                Self::new(NOT_SUPPORTED, format!("{message}{}{hint}", at(line, column)))
            }
            EngineError::Stopped(why) if why.contains("longer") => Self::out_of_time(),
            EngineError::Stopped(_) => Self::interrupted(),
            EngineError::Unavailable(why) => {
                Self::new(UNREACHABLE, format!("the engine is not there: {why}"))
            }
            EngineError::Internal(why) => {
                tracing::warn!(error = why, "a query of the SQL door failed inside the engine");
                Self::new(UNKNOWN, format!("failed inside the engine: {why}"))
            }
        }
    }
}
