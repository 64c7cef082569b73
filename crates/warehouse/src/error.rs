//! What can go wrong with a model.

use base::{Blame, Code, Fault, Retry};
use engine::EngineError;

/// A model that was not built.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// The engine refused or failed while it did something for a model.
    #[error("failed to {what}")]
    Engine { what: String, source: EngineError },
    /// A check that blocks found something: nothing was published.
    #[error("{}", .0.join("; "))]
    Blocked(Vec<String>),
    /// What was asked for does not fit what there is.
    #[error("{message}")]
    Unfit { message: String, hint: String },
    #[error("failed inside the warehouse: {0}")]
    Internal(String),
}

impl WarehouseError {
    pub fn unfit(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unfit { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn of(what: impl Into<String>) -> impl FnOnce(EngineError) -> Self {
        let what = what.into();
        move |source| Self::Engine { what, source }
    }
}

impl Fault for WarehouseError {
    fn code(&self) -> Code {
        match self {
            Self::Engine { source, .. } => source.code(),
            Self::Blocked(_) | Self::Unfit { .. } => Code::FailedPrecondition,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Engine { source, .. } => source.blame(),
            Self::Blocked(_) | Self::Unfit { .. } => Blame::Client,
            Self::Internal(_) => Blame::Us,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Engine { source, .. } => source.retry(),
            _ => Retry::Never,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine { source, .. } => source.hint(),
            Self::Blocked(_) => {
                Some("what readers see is the table of the last good run; `severity: warn` only tells".into())
            }
            Self::Unfit { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            _ => None,
        }
    }
}
