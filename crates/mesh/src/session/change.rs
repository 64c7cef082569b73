//! `COM_CHANGE_USER`: another account, and nothing left of the session's settings.

use super::authenticate::{AuthRelay, Check, RELAY};
use super::{Head, Session, count_transaction, unsupported};
use crate::config::{AuthMode, Role};
use crate::error::SessionError;
use crate::session::state::State;
use mysql::protocol::{ChangeUser, HEADER_BYTES, Status, ok_packet};
use std::sync::atomic::Ordering;

impl Session {
    /// Lets the client be another one. A refusal ends the session, as servers do.
    pub(super) async fn change_user(&mut self, head: Head) -> Result<(), SessionError> {
        let held = self.client.held();
        let Some(payload) = held.get(HEADER_BYTES..HEADER_BYTES + head.payload) else {
            return Err(unsupported("a change of the user of this length"));
        };
        let change = ChangeUser::read(payload, self.identity.capabilities)?;
        self.client.consume(HEADER_BYTES + head.payload);
        let mut sequence = 1;
        let status = match self.group.config.auth {
            AuthMode::Relay => self.relay_change(&change, &mut sequence).await?,
            AuthMode::Vault | AuthMode::Mapped => {
                let mut check =
                    Check { client: &mut self.client, sequence: &mut sequence, group: &self.group };
                // The proof goes by a salt that is not kept: it is asked for again.
                let password =
                    check.run(&change.user, Vec::new(), Vec::new(), Vec::new()).await.inspect_err(|_| {
                        self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                    });
                match password {
                    Ok(password) => self.identity.password = Some(password),
                    Err(error) => {
                        if let Some(packet) = error.packet(sequence) {
                            self.client.write_all(&packet).await.map_err(SessionError::Client)?;
                        }
                        return Err(SessionError::Client(std::io::ErrorKind::PermissionDenied.into()));
                    }
                }
                self.links = [None, None];
                self.client
                    .write_all(&ok_packet(sequence, Status::AUTOCOMMIT))
                    .await
                    .map_err(SessionError::Client)?;
                Status::AUTOCOMMIT
            }
        };
        count_transaction(&self.shared, self.status, status);
        self.status = status;
        self.state = State::default();
        self.pinned = None;
        self.forget_statements();
        self.identity.user = change.user;
        self.identity.database = change.database;
        self.identity.attributes = change.attributes;
        if let Ok(collation @ 1..) = u8::try_from(change.collation) {
            self.identity.collation = collation;
        }
        Ok(())
    }

    /// The server checks the new account as it did the first.
    async fn relay_change(&mut self, change: &ChangeUser, sequence: &mut u8) -> Result<Status, SessionError> {
        let Some(link) = &mut self.links[Role::Writer as usize] else {
            return Err(unsupported("a server of nobody"));
        };
        let asked = ChangeUser { proof: Vec::new(), plugin: RELAY.to_vec(), ..change.clone() };
        let backend = link.backend().clone();
        let mut relay =
            AuthRelay { client: &mut self.client, sequence, wire: &mut link.wire, backend: &backend };
        match relay.run(0, asked.write(link.capabilities)).await {
            Ok(status) => Ok(status),
            Err(error) => {
                if let Some(packet) = error.packet(*sequence) {
                    self.client.write_all(&packet).await.map_err(SessionError::Client)?;
                }
                Err(SessionError::Client(std::io::ErrorKind::PermissionDenied.into()))
            }
        }
    }
}
