//! A session of TiDB moves to another server before its own one goes: what the server knows of it is asked for, and told
//! to the other. The client notices nothing; its prepared statements keep their numbers.
//!
//! The server vouches for the session by a token that it signs, so that no password is needed. All servers need the same
//! `session-token-signing-cert` and `session-token-signing-key`. A session that the server cannot write down stays where it
//! is: one with temporary tables, locks, half-sent parameters or an open cursor.

use super::Session;
use crate::config::{GroupKind, Role};
use crate::error::SessionError;
use crate::link::{self, Account, Link};
use crate::pool::Pooled;
use base::Secret;
use mysql::protocol::{Capabilities, Command, Status};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A server that could not write a session down is asked again after this.
const STAYS: Duration = Duration::from_secs(1);
/// The longest state of a session that is carried; a session with thousands of long prepared statements is longer.
const STATES_BYTES_MAX: usize = 4 << 20;
/// What the state is asked and told in, whatever the client speaks: `utf8mb4_bin`, which TiDB has always had.
const COLLATION: u8 = 46;

impl Session {
    /// Whether a server that goes can be left, as far as the session is concerned.
    pub(super) fn may_migrate(&self) -> bool {
        let anew = self.is_several() && self.pinned.is_none() && !self.statements.are_tied();
        self.group.config.kind == GroupKind::Tidb && !self.status.has(Status::IN_TRANSACTION) && !anew
    }

    /// Whether its server goes, and only that server has what is needed to go on elsewhere.
    pub(super) fn should_migrate(&self) -> bool {
        self.links[Role::Writer as usize].as_ref().is_some_and(Link::leaves) && self.may_migrate()
    }

    /// Moves the session, or leaves it where it is for now.
    pub(super) async fn migrate(&mut self) {
        let moved = match self.moved_server().await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::debug!(
                    error = crate::monitor::causes(&error),
                    "a session stays with a server that goes"
                );
                false
            }
        };
        if moved {
            self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
        } else if let Some(link) = &mut self.links[Role::Writer as usize] {
            link.stays_until = Some(Instant::now() + STAYS);
        }
    }

    /// Whether there was a server to move to.
    async fn moved_server(&mut self) -> Result<bool, SessionError> {
        let Some(link) = &mut self.links[Role::Writer as usize] else { return Ok(false) };
        let gone = [link.backend().address.clone()];
        let Some(backend) = self.group.pick(Role::Writer, &gone) else { return Ok(false) };
        let states = link.ask_for("SHOW SESSION_STATES", STATES_BYTES_MAX).await?;
        let (Some(state), Some(token)) = (states.first("Session_states"), states.first("Session_token"))
        else {
            return Ok(false);
        };
        if !is_whole(state) {
            return Ok(false);
        }
        let account = Account {
            user: self.identity.user.clone(),
            password: Secret::default(),
            capabilities: link.capabilities.without(Capabilities::CONNECT_WITH_DATABASE),
            collation: COLLATION,
            database: Vec::new(),
            attributes: self.identity.attributes.clone(),
            ends: Some(self.identity.ends),
        };
        let mut new = link::login_by_token(&self.group, &backend, &account, token).await?;
        if !new.capabilities.has(account.capabilities) {
            return Err(link::garbled(&backend, "greeting of what the client was promised"));
        }
        new.initialise(&self.group).await?;
        // Its own mode says whether a backslash is one; the state brings the session's.
        new.told(Command::Query, b"SET sql_mode = ''").await?;
        new.told(Command::Query, &set_states(state)).await?;
        let Some(link) = &mut self.links[Role::Writer as usize] else { return Ok(false) };
        let mut old = std::mem::replace(link, new);
        // The statements that were prepared on the old connection are on this one, under the same numbers.
        link.serial = old.serial;
        link.owner = old.owner;
        link.said.clone_from(&old.said);
        link.database.clone_from(&old.database);
        link.is_bare = old.is_bare;
        link.known = std::mem::take(&mut old.known);
        link.capabilities = old.capabilities;
        // One that was shared had its place at the old server: this one is the session's alone, to its end.
        link.pooled = old.pooled.as_ref().map(|pooled| Pooled::moved(pooled.insert_id, pooled.touched));
        self.note_connection(Role::Writer);
        Ok(true)
    }
}

impl Link {
    /// Whether its server goes, and it has not been found just now that the session cannot.
    pub fn leaves(&self) -> bool {
        self.backend().is_draining() && self.stays_until.is_none_or(|until| Instant::now() >= until)
    }
}

/// Whether nothing was lost on the way here: an answer in another character set has question marks in it.
fn is_whole(state: &str) -> bool {
    let Ok(state) = serde_json::from_str::<serde_json::Value>(state) else { return false };
    let results = &state["sys-vars"]["character_set_results"];
    matches!(results.as_str(), Some("utf8mb4" | "utf8" | "utf8mb3" | "binary" | "") | None)
}

/// The statement that gives a session its state, where a backslash is one.
fn set_states(state: &str) -> Vec<u8> {
    let mut sql = b"SET SESSION_STATES '".to_vec();
    for byte in state.bytes() {
        if matches!(byte, b'\\' | b'\'') {
            sql.push(b'\\');
        }
        sql.push(byte);
    }
    sql.push(b'\'');
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_as_it_was_and_one_in_another_charset_is_not_carried() {
        assert_eq!(set_states(r#"{"a": "it's \"x\""}"#), br#"SET SESSION_STATES '{"a": "it\'s \\"x\\""}'"#);
        assert!(is_whole(r#"{"sys-vars": {"character_set_results": "utf8mb4"}}"#) && is_whole("{}"));
        assert!(!is_whole(r#"{"sys-vars": {"character_set_results": "latin1"}}"#) && !is_whole("x"));
    }
}
