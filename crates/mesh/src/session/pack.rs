//! A session between two commands, written down for another process, and built up from that.

use super::judge::Judge;
use super::state::State;
use super::statements::Statements;
use super::{Identity, Session, count_transaction};
use crate::buffers::BUFFER_BYTES;
use crate::config::{AuthMode, Role};
use crate::error::SessionError;
use crate::frames::Compressed;
use crate::handover::{LinkParts, Packed, Parts};
use crate::link::Link;
use crate::pins;
use crate::pool::Pooled;
use crate::shared::Shared;
use crate::wire::Wire;
use mysql::protocol::{Capabilities, Ends, Status};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Why a session stays with its writer, where the process that it came from has a reason that this one does not know.
const PINNED_BEFORE: &str = "pinned before the upgrade";

impl Session {
    /// Whether another process may have this session now.
    pub(super) fn should_move(&self) -> bool {
        let round = self.shared.handover.round();
        round != 0 && round != self.stayed
    }

    /// Gives the session to the process that takes over; whether it has it. Otherwise it stays here in this handover.
    pub(super) async fn move_away(&mut self) -> bool {
        let round = self.shared.handover.round();
        let moved = self.moved().await;
        if !moved && round != 0 {
            self.stayed = round;
            self.shared.handover.count_staying(true);
        }
        moved
    }

    async fn moved(&self) -> bool {
        let (Some(sender), Some((parts, descriptors))) = (self.shared.handover.sender(), self.pack()) else {
            return false;
        };
        let (taken, answer) = oneshot::channel();
        let packed = Packed { parts: Box::new(parts), descriptors, taken };
        sender.send(packed).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// `None` for one that cannot move: within TLS the keys would stay behind, and what a server says unasked is heard here.
    fn pack(&self) -> Option<(Parts, Vec<OwnedFd>)> {
        // Half of a long statement waits for its other half.
        let is_between = self.client.held().len() <= BUFFER_BYTES;
        if self.waiting > 0 || self.cut || self.trouble.is_some() || !is_between {
            return None;
        }
        let mut descriptors = vec![self.client.descriptor()?];
        let mut links = Vec::new();
        for role in [Role::Writer, Role::Replica] {
            let Some(link) = &self.links[role as usize] else { continue };
            if !link.wire.held().is_empty() {
                return None;
            }
            let compressed = link.wire.compressed().ok()?;
            descriptors.push(link.wire.descriptor()?);
            links.push(LinkParts {
                role,
                address: link.backend().address.clone(),
                capabilities: link.capabilities.0,
                connection_id: link.connection_id,
                serial: link.serial,
                owned: link.owner == self.state.owner(),
                said: link.said.as_deref().cloned(),
                database: link.database.clone(),
                is_bare: link.is_bare,
                known: link
                    .known
                    .list()
                    .filter(|(name, _)| self.statements.has(name))
                    .map(|((text, copy), known)| (text.to_vec(), *copy, known.number, known.types.to_vec()))
                    .collect(),
                shared: link.pooled.as_ref().map(|pooled| (pooled.insert_id, pooled.touched)),
                tracks: link.tracks,
                compressed,
            });
        }
        let identity = &self.identity;
        let parts = Parts {
            id: identity.id,
            group: self.group.name.clone(),
            user: identity.user.clone(),
            capabilities: identity.capabilities.0,
            collation: identity.collation,
            database: identity.database.clone(),
            attributes: identity.attributes.clone(),
            ends: (identity.ends.client, identity.ends.server),
            compressed: self.client.compressed().ok()?,
            known: identity.password.is_some(),
            role: self.role,
            status: self.status.0,
            state: self.state.clone(),
            statements: self.statements.pack(),
            last: self.last,
            insert_id: self.insert_id,
            asks: self.asks,
            pinned: self.pinned.map(|reason| if self.pins_more { PINNED_BEFORE } else { reason }.to_owned()),
            prepared: self.judge.pack(),
            writes: self.writes,
            held: self.client.held().to_vec(),
            captured: self.captured.clone(),
            links,
        };
        Some((parts, descriptors))
    }

    /// A session of another process.
    ///
    /// # Errors
    /// When its group, its user or its server is none of ours; then it stays where it is.
    pub fn unpack(
        parts: Parts,
        descriptors: Vec<OwnedFd>,
        shared: &Arc<Shared>,
        thread: usize,
    ) -> Result<Self, SessionError> {
        let Parts { id, user, database, attributes, collation, statements, mut state, .. } = parts;
        let version = shared.version.load(Ordering::Acquire);
        let plan = shared.plan.load();
        let group = plan
            .group(&parts.group)
            .ok_or_else(|| foreign(format!("there is no group `{}` here", parts.group)))?
            .clone();
        let name = String::from_utf8_lossy(&user);
        let known = group.config.users.iter().find(|user| user.name == name);
        let password = match (parts.known, known) {
            (false, _) if group.config.auth == AuthMode::Relay => None,
            (true, Some(user)) if group.config.auth != AuthMode::Relay => Some(user.password.clone()),
            _ => return Err(foreign(format!("`{name}` is checked in another way here"))),
        };
        let mut descriptors = descriptors.into_iter();
        let mut wire = |compressed: Option<Compressed>, memory_max| {
            let descriptor = descriptors.next().ok_or_else(|| foreign("a descriptor is missing".into()))?;
            let mut wire = Wire::of(descriptor).map_err(SessionError::Client)?;
            if let Some(agreed) = compressed {
                wire.compress(agreed, memory_max).map_err(SessionError::Client)?;
            }
            Ok::<_, SessionError>(wire)
        };
        let mut client = wire(parts.compressed, shared.memory.bytes_max)?;
        client.hold(&parts.held);
        let mut links = [None, None];
        let mut numbers = Vec::new();
        for part in parts.links {
            let backend = group.backends.iter().find(|backend| backend.address == part.address);
            let backend =
                backend.ok_or_else(|| foreign(format!("there is no server {} here", part.address)))?;
            let capabilities = Capabilities(part.capabilities);
            let mut link = Link::new(
                wire(part.compressed, usize::MAX)?,
                capabilities,
                part.connection_id,
                backend.clone(),
            );
            link.said = part.said.map(Arc::new);
            link.database = part.database;
            link.is_bare = part.is_bare;
            link.tracks = part.tracks;
            link.pooled = part.shared.map(|(insert_id, touched)| Pooled::moved(insert_id, touched));
            for (text, copy, number, types) in part.known {
                link.known.put((text.into(), copy), number, types.into());
            }
            numbers.push((part.serial, link.serial));
            links[part.role as usize] = Some((link, part.owned));
        }
        let status = Status(parts.status);
        let ends = Ends { client: parts.ends.0, server: parts.ends.1 };
        let identity = Identity {
            id,
            user,
            capabilities: Capabilities(parts.capabilities),
            collation,
            database,
            attributes,
            ends,
            password,
        };
        let admission = group.admissions.keep(&identity.user);
        count_transaction(shared, Status::AUTOCOMMIT, status);
        let mut session = Self {
            client,
            shared: shared.clone(),
            thread,
            group,
            version,
            statements: Statements::default(),
            identity,
            admission,
            links: [None, None],
            role: parts.role,
            status,
            state: State::default(),
            pinned: parts.pinned.map(|reason| {
                pins::REASONS.into_iter().find(|known| **known == reason).unwrap_or(PINNED_BEFORE)
            }),
            pins_more: false,
            waiting: 0,
            cut: false,
            trouble: None,
            writes: parts.writes,
            writing: false,
            judge: Judge::default(),
            bell: shared.handover.bell(id),
            stayed: 0,
            captured: parts.captured,
            seen: None,
            behind_until: None,
            key: None,
            kept: None,
            last: parts.last,
            insert_id: parts.insert_id,
            asks: parts.asks,
            seat: shared.connections.enter(id, ends.client),
            killing: None,
        };
        state.recall(session.modes());
        session.state = state;
        session.statements = Statements::unpack(statements, &numbers, session.modes());
        session.sit_down();
        let modes = session.modes();
        session.judge.unpack(parts.prepared, modes);
        for (role, link) in [Role::Writer, Role::Replica].into_iter().zip(links) {
            if let Some((mut link, owned)) = link {
                if owned {
                    link.owner = session.state.owner();
                }
                session.adopt(role, link);
            }
        }
        session.recall_kept();
        Ok(session)
    }
}

fn foreign(reason: String) -> SessionError {
    SessionError::Client(io::Error::other(reason))
}
