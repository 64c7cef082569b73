//! Why a question about an indicator has no answer.

use base::{Blame, Code, Fault, Retry};
use engine::EngineError;

/// A question that was not answered, or a rollup that was not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndicatorError {
    #[error("there is no indicator `{code}`")]
    Unknown { code: String, hint: String },
    #[error("the indicator `{code}` is retired")]
    Retired { code: String },
    /// The question itself is wrong.
    #[error("{message}")]
    Invalid { message: String, hint: String },
    /// The question is right, and no rollup has what it asks for.
    #[error("{message}")]
    Unanswerable { message: String, hint: String },
    /// The rollup is not there yet, or was built by another definition.
    #[error("{message}")]
    NotBuilt { message: String },
    #[error("failed to ask the engine")]
    Engine(#[from] EngineError),
}

impl IndicatorError {
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    pub fn unanswerable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unanswerable { message: message.into(), hint: hint.into() }
    }

    /// The status of HTTP, where it says more than the code.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Retired { .. } => 410,
            Self::Unanswerable { .. } => 422,
            other => other.code().http_status(),
        }
    }
}

impl Fault for IndicatorError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } | Self::Retired { .. } => Code::NotFound,
            Self::Invalid { .. } | Self::Unanswerable { .. } => Code::Invalid,
            Self::NotBuilt { .. } => Code::Unavailable,
            Self::Engine(error) => error.code(),
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Engine(error) => error.blame(),
            _ => Blame::Client,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NotBuilt { .. } => Retry::Backoff,
            Self::Engine(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { hint, .. } | Self::Invalid { hint, .. } | Self::Unanswerable { hint, .. } => {
                Some(hint.clone())
            }
            Self::Retired { .. } => Some("see its description for what replaces it".into()),
            Self::NotBuilt { .. } => Some("run the project once: rollups are built in the same run".into()),
            Self::Engine(error) => error.hint(),
        }
    }
}
