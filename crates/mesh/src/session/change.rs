//! `COM_CHANGE_USER`: another account, and nothing left of the session's settings.

use super::authenticate::{AuthRelay, Check, RELAY, say};
use super::{Head, Session, count_transaction, unsupported};
use crate::config::{AuthMode, LoginMatchConfig, Role};
use crate::error::SessionError;
use crate::session::state::State;
use mysql::protocol::{Capabilities, ChangeUser, HEADER_BYTES, NATIVE, Status, ok_packet};
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
        let (ok, status) = match self.become_user(&change, &mut sequence).await {
            Ok(changed) => changed,
            Err(error) => {
                self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(packet) = error.packet(sequence) {
                    self.client.write_all(&packet).await.map_err(SessionError::Client)?;
                }
                return Err(SessionError::Client(std::io::ErrorKind::PermissionDenied.into()));
            }
        };
        say(&mut self.client, &mut sequence, &ok).await?;
        count_transaction(&self.shared, self.status, status);
        self.status = status;
        self.state = State::default();
        self.pinned = None;
        self.last = super::Last::default();
        self.insert_id = 0;
        self.forget_statements();
        self.seat.set_user(&change.user);
        self.identity.user = change.user;
        self.identity.database = change.database;
        self.identity.attributes = change.attributes;
        if let Ok(collation @ 1..) = u8::try_from(change.collation) {
            self.identity.collation = collation;
        }
        Ok(())
    }

    /// Lets the new account prove itself, and makes its connection as a new one is; the OK that the client is to get.
    async fn become_user(
        &mut self,
        change: &ChangeUser,
        sequence: &mut u8,
    ) -> Result<(Vec<u8>, Status), SessionError> {
        let name = String::from_utf8_lossy(&change.user);
        let taken = |wanted: &LoginMatchConfig| wanted.users.is_empty() || wanted.users.contains(&*name);
        if !self.group.config.matches.as_ref().is_none_or(taken) {
            return Err(SessionError::Denied { user: name.into_owned() });
        }
        let group = self.group.clone();
        let changed = match group.config.auth {
            AuthMode::Relay => self.relay_change(change, sequence).await?,
            AuthMode::Vault | AuthMode::Mapped => {
                let mut check = Check { client: &mut self.client, sequence, users: &group.config.users };
                // The proof goes by a salt that is not kept: it is asked for again, in the old way of who knows no other.
                let plugins = self.identity.capabilities.has(Capabilities::PLUGIN_AUTH);
                let plugin = if plugins { Vec::new() } else { NATIVE.to_vec() };
                let password = check.run(&change.user, plugin, Vec::new(), Vec::new()).await?;
                self.identity.password = Some(password);
                self.drop_links();
                self.key = None;
                (ok_packet(0, Status::AUTOCOMMIT).split_off(HEADER_BYTES), Status::AUTOCOMMIT)
            }
        };
        self.admission.change(&group.config, &change.user)?;
        if let Some(link) = &mut self.links[Role::Writer as usize] {
            link.initialise(&group).await?;
        }
        Ok(changed)
    }

    /// The server checks the new account as it did the first.
    async fn relay_change(
        &mut self,
        change: &ChangeUser,
        sequence: &mut u8,
    ) -> Result<(Vec<u8>, Status), SessionError> {
        let Some(link) = &mut self.links[Role::Writer as usize] else {
            return Err(unsupported("a server of nobody"));
        };
        let asked = ChangeUser { proof: Vec::new(), plugin: RELAY.to_vec(), ..change.clone() };
        let backend = link.backend().clone();
        let mut relay = AuthRelay {
            client: &mut self.client,
            sequence,
            wire: &mut link.wire,
            backend: &backend,
            no_password: None,
        };
        relay.run(0, asked.write(link.capabilities)).await
    }
}
