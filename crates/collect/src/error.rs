//! Why a run of collection failed.

use crate::reader::ReadError;
use crate::report::CollectReport;
use base::{Blame, Code, Fault, Retry};
use engine::EngineError;

/// A run that failed. What was committed stays; the next run goes on from there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CollectError {
    #[error("failed to read the source")]
    Read(#[from] ReadError),
    #[error("failed to write into the engine")]
    Engine(#[from] EngineError),
    /// The flow or its source is not what the flow says.
    #[error("{message}")]
    Refused { message: String, hint: String },
    /// Someone stopped it, its time is over, or the source's window has ended.
    #[error("{message}")]
    Stopped { message: String, hint: String },
    /// What was read is not what the dataset has.
    #[error("{0}")]
    Differs(String),
    /// Some tables failed, and the others are done.
    #[error("{} of {} tables failed, the first of them `{table}`: {message}", report.failed(), report.tables.len())]
    Partly { report: Box<CollectReport>, table: String, message: String, hint: Option<String>, retry: Retry },
    #[error("failed inside the collection: {0}")]
    Internal(String),
}

impl CollectError {
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: hint.into() }
    }

    /// Whether the other tables of the run can be read all the same.
    pub(crate) fn is_of_table(&self) -> bool {
        match self {
            Self::Read(error) => {
                matches!(error, ReadError::NoTable(_) | ReadError::Bad { .. } | ReadError::Denied { .. })
            }
            Self::Engine(error) => matches!(error, EngineError::Sql { .. } | EngineError::Refused { .. }),
            Self::Refused { .. } | Self::Differs(_) => true,
            Self::Stopped { .. } | Self::Partly { .. } | Self::Internal(_) => false,
        }
    }
}

impl Fault for CollectError {
    fn code(&self) -> Code {
        match self {
            Self::Read(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Refused { .. } | Self::Partly { .. } | Self::Differs(_) => Code::FailedPrecondition,
            Self::Stopped { .. } => Code::Exhausted,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Read(error) => error.blame(),
            Self::Engine(error) => error.blame(),
            Self::Refused { .. } | Self::Stopped { .. } => Blame::Client,
            Self::Differs(_) | Self::Partly { .. } => Blame::Upstream,
            Self::Internal(_) => Blame::Us,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Read(error) => error.retry(),
            Self::Engine(error) => error.retry(),
            // A source that changed while it was read is read anew.
            Self::Differs(_) => Retry::Backoff,
            Self::Partly { retry, .. } => *retry,
            Self::Refused { .. } | Self::Stopped { .. } | Self::Internal(_) => Retry::Never,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Refused { hint, .. } | Self::Stopped { hint, .. } => {
                Some(hint.clone()).filter(|it| !it.is_empty())
            }
            Self::Differs(_) => {
                Some("run it again; if it stays, the source gives other rows each time".into())
            }
            Self::Partly { hint, .. } => hint.clone(),
            Self::Internal(_) => None,
        }
    }
}
