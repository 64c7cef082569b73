//! What a command ends with when it does not succeed: one message, its causes, a hint, an exit status.

use base::{Code, Fault};

/// Exit statuses are the CLI's contract: 1 failed, 2 wrong usage or configuration, 3 could not connect.
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    pub message: String,
    pub hint: Option<String>,
    /// Nobody was there to be asked: nothing has happened.
    pub away: bool,
}

impl Failure {
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None, away: false }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn of(what: &str, error: &(impl Fault + 'static)) -> Self {
        Self {
            status: error.code().exit_status(),
            message: format!("failed to {what}: {}", base::error::chain(error)),
            hint: error.hint(),
            away: false,
        }
    }

    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(Code::Internal.exit_status(), format!("failed to {what}: {error}"))
    }
}
