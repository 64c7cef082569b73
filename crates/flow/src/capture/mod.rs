//! From a source to its journal: position, stream, schema, snapshot.
//!
//! A capture never skips what it cannot read: it quarantines one table, or stops and says why.

pub mod http;
pub mod kafka;
pub mod mysql;
pub mod reach;
pub mod sqlite;
pub mod statements;
pub mod status;
pub(crate) mod tables;
pub mod writer;

use base::{Blame, Code, Fault, Retry};

/// Why capture stopped, for now or for good.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CaptureError {
    pub message: String,
    pub hint: Option<String>,
    pub kind: CaptureErrorKind,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureErrorKind {
    /// The server is away: capture tries again, for ever, with backoff.
    Unavailable,
    /// The server has not got the changes that follow ours: `on_gap` decides.
    Gap,
    /// Someone must act: a setting, a grant, a broken disk, a statement we cannot follow.
    Fatal,
}

impl CaptureError {
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: CaptureErrorKind::Unavailable, cause: None }
    }

    pub fn gap(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: CaptureErrorKind::Gap, cause: None }
    }

    pub fn fatal(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), kind: CaptureErrorKind::Fatal, cause: None }
    }

    #[must_use]
    pub fn because(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Fault for CaptureError {
    fn code(&self) -> Code {
        match self.kind {
            CaptureErrorKind::Unavailable => Code::Unavailable,
            CaptureErrorKind::Gap | CaptureErrorKind::Fatal => Code::FailedPrecondition,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Upstream
    }

    fn retry(&self) -> Retry {
        if self.kind == CaptureErrorKind::Unavailable { Retry::Backoff } else { Retry::Never }
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl From<journal::JournalError> for CaptureError {
    fn from(error: journal::JournalError) -> Self {
        // A full disk may be freed: then capture goes on by itself.
        let kind = if error.code() == Code::Exhausted {
            CaptureErrorKind::Unavailable
        } else {
            CaptureErrorKind::Fatal
        };
        let hint = error.hint();
        Self { message: "failed to write the journal".into(), hint, kind, cause: Some(Box::new(error)) }
    }
}
