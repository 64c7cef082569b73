//! Sessions as a person sees them: which there are, and how one is ended from outside.

use crate::Mesh;
use crate::config::AuthMode;
use crate::error::SessionError;
use crate::group::Group;
use crate::link::{self, Account};
use crate::monitor;
use base::{Blame, Code, Fault, Retry};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// A server that does not stop a statement within this is told no more.
const KILL_MAX: Duration = Duration::from_secs(5);
/// The server knows no connection of that number: it has ended by itself.
const NO_SUCH_THREAD: u16 = 1094;

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStatus {
    /// As the client's `CONNECTION_ID()` has it before it asks a server, and as `KILL` takes it.
    pub id: u32,
    pub user: String,
    /// The address that the client came from.
    pub client: String,
    pub group: String,
    /// Servers that it has connections to now, the writer first.
    pub servers: Vec<String>,
    pub age_ms: u64,
    /// For how long its present command has run; null while it waits for its client.
    pub busy_ms: Option<u64>,
}

/// Why a session or its statement does not end.
#[derive(Debug, Error)]
pub enum KillError {
    #[error("there is no session {0}")]
    NoSession(u32),
    #[error("the statement of session {id} may still run at {address}: {reason}")]
    StillRuns { id: u32, address: String, reason: String },
}

impl Fault for KillError {
    fn code(&self) -> Code {
        match self {
            Self::NoSession(_) => Code::NotFound,
            Self::StillRuns { .. } => Code::Unavailable,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Client
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSession(_) => "`tidemill mesh sessions` lists them".into(),
            Self::StillRuns { .. } => {
                "stop it at the server itself; the session ends when its statement does".into()
            }
        })
    }
}

impl Mesh {
    /// The sessions that there are, in the order of their numbers.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let seats = self.shared.connections.list();
        let status = seats.into_iter().map(|(id, seat)| {
            let (user, group) = seat.who();
            SessionStatus {
                id,
                user: String::from_utf8_lossy(&user).into_owned(),
                client: seat.client.to_string(),
                group: group.map(|group| group.name.clone()).unwrap_or_default(),
                servers: seat.servers(),
                age_ms: millis(seat.since.elapsed()),
                busy_ms: seat.busy().map(millis),
            }
        });
        status.collect()
    }

    /// Ends a session, or only its present statement. An idle session ends at once. A statement is stopped at its server, by a
    /// login of the mesh's own: as the session's user with `vault`, as `account` with `mapped`, as `monitor` with `relay`.
    ///
    /// # Errors
    /// When there is no such session, or when its statement could not be stopped: then the session ends behind it.
    pub async fn kill(&self, id: u32, only_statement: bool) -> Result<(), KillError> {
        let seat = self.shared.connections.seat(id).ok_or(KillError::NoSession(id))?;
        if !only_statement {
            seat.kill();
        }
        let (user, Some(group)) = seat.who() else { return Ok(()) };
        if seat.busy().is_none() {
            return Ok(());
        }
        for address in seat.servers() {
            let Some((number, _killing)) = self.shared.connections.at(id, &address, false) else { continue };
            let stopped = tokio::time::timeout(KILL_MAX, stop(&group, &user, &address, number)).await;
            let reason = match stopped {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {} s", KILL_MAX.as_secs()),
            };
            return Err(KillError::StillRuns { id, address, reason });
        }
        Ok(())
    }
}

/// Tells a server to stop what a connection runs.
async fn stop(group: &Arc<Group>, user: &[u8], address: &str, number: u32) -> Result<(), String> {
    let account = account(group, user)?;
    let Some(backend) = group.backends.iter().find(|backend| backend.address == address) else {
        return Err("it is no server of the group any more".into());
    };
    match link::kill_query(group, backend, &account, number).await {
        Ok(()) => Ok(()),
        Err(SessionError::Server { error, .. }) if error.number == NO_SUCH_THREAD => Ok(()),
        Err(error) => Err(monitor::causes(&error)),
    }
}

/// Whom the mesh goes by when it stops a statement.
fn account(group: &Group, user: &[u8]) -> Result<Account, String> {
    let monitor = group.config.monitor.as_ref();
    let known = match group.config.auth {
        AuthMode::Vault => group.config.users.iter().find(|known| known.name.as_bytes() == user),
        AuthMode::Mapped => group.config.account.as_ref(),
        AuthMode::Relay => None,
    };
    let (name, password) = match (known, monitor) {
        (Some(known), _) => (&known.name, &known.password),
        (None, Some(monitor)) => (&monitor.user, &monitor.password),
        (None, None) => {
            return Err(
                "the mesh has no account there: give the group a `monitor` that may stop statements".into()
            );
        }
    };
    Ok(monitor::account(name, password))
}
