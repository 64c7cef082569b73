//! The connections of a session: made when they are needed, and set up like it.

use super::{Head, Session, unsupported};
use crate::config::{AuthMode, Consistency, GroupKind, Role};
use crate::error::SessionError;
use crate::link::{self, Account, Link};
use mysql::protocol::{Capabilities, Command, HEADER_BYTES, PAYLOAD_MAX, Status};
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a read waits for a replica to have what it must see; then the writer answers it.
const CAUGHT_UP_MAX_SECONDS: &str = "0.3";

/// How long a command waits for a writer, and how often it looks.
pub(super) const WRITER_MAX: Duration = Duration::from_secs(5);
pub(super) const WRITER_LOOK: Duration = Duration::from_millis(50);

/// A replica that was not there in time is not waited for again so soon.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// A connection for the present role, set up like the session. A read whose replica cannot be had, or is not there
    /// yet, goes to the writer.
    pub(super) async fn connect(&mut self) -> Result<(), SessionError> {
        if self.role == Role::Replica {
            match self.replica().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(
                        error = crate::monitor::causes(&error),
                        "a read goes to the writer instead"
                    );
                    self.links[Role::Replica as usize] = None;
                }
            }
            self.role = Role::Writer;
        }
        self.writer().await
    }

    async fn writer(&mut self) -> Result<(), SessionError> {
        if let Some(link) = &self.links[Role::Writer as usize] {
            let idle =
                !self.status.has(Status::IN_TRANSACTION) && self.pinned.is_none() && !link.has_statements;
            let backend = link.backend();
            let stays = backend.role() == Role::Writer && !(backend.is_draining() && idle);
            if stays || self.status.has(Status::IN_TRANSACTION) {
                return self.set_up(Role::Writer).await;
            }
            // It is a replica now, or to be left alone: what comes belongs to another.
            if self.identity.password.is_none() {
                if backend.role() == Role::Writer {
                    return Ok(());
                }
                let address = backend.address.clone();
                let source = io::Error::other("it takes no writes any more; connect again");
                return Err(SessionError::Backend { address, source });
            }
            if !idle && backend.role() == Role::Writer {
                return self.set_up(Role::Writer).await;
            }
            let lost = self.pinned.take().is_some() || link.has_statements;
            let address = backend.address.clone();
            self.links[Role::Writer as usize] = None;
            if lost {
                let source = io::Error::other(
                    "it takes no writes any more, and what the session had set up there is gone",
                );
                return Err(SessionError::Backend { address, source });
            }
            self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
        }
        let link = self.next_writer().await?;
        self.adopt(Role::Writer, link);
        self.set_up(Role::Writer).await
    }

    /// A login at a writer; while a replica is being promoted there is none for a moment, and the command waits.
    async fn next_writer(&self) -> Result<Link, SessionError> {
        let deadline = tokio::time::Instant::now() + WRITER_MAX;
        loop {
            match self.log_in(Role::Writer).await {
                Err(SessionError::NoBackend { .. } | SessionError::Backend { .. })
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(WRITER_LOOK).await;
                }
                result => return result,
            }
        }
    }

    /// Whether there is a replica that has all that this session must see.
    async fn replica(&mut self) -> Result<bool, SessionError> {
        let keep =
            self.links[Role::Replica as usize].as_ref().is_some_and(|link| self.group.reads(link.backend()));
        if !keep {
            self.links[Role::Replica as usize] = None;
            if !self.group.has_replica() {
                return Ok(false);
            }
            let link = self.log_in(Role::Replica).await?;
            self.adopt(Role::Replica, link);
        }
        self.set_up(Role::Replica).await?;
        self.caught_up().await
    }

    async fn log_in(&self, role: Role) -> Result<Link, SessionError> {
        let account = self.account()?;
        let promised = self.identity.capabilities.without(Capabilities::CONNECT_WITH_DATABASE);
        let mut tried = Vec::new();
        let mut last = None;
        while let Some(backend) = self.group.pick(role, &tried) {
            if backend.role() != role {
                break;
            }
            match link::login(&self.group, &backend, &account).await {
                Ok(link) if link.capabilities.has(promised) => return Ok(link),
                Ok(_) => {
                    // It can do less than the client was promised, so its answers would have another form.
                    tried.push(backend.address.clone());
                    last = Some(link::garbled(&backend, "greeting of what the client was promised"));
                }
                Err(error) => {
                    if matches!(error, SessionError::Backend { .. }) {
                        backend.failed(&crate::monitor::causes(&error), true);
                        self.group.note_lost(&backend);
                    }
                    tried.push(backend.address.clone());
                    last = Some(error);
                }
            }
        }
        let role = if role == Role::Writer { "writer" } else { "replica" };
        Err(last.unwrap_or_else(|| SessionError::NoBackend { group: self.group.name.clone(), role }))
    }

    /// Whom a server sees.
    pub(super) fn account(&self) -> Result<Account, SessionError> {
        let identity = &self.identity;
        let none = || unsupported("a second login without a password");
        let (user, password) = match (self.group.config.auth, &self.group.config.account) {
            (AuthMode::Mapped, Some(account)) => {
                (account.name.clone().into_bytes(), account.password.clone())
            }
            _ => (identity.user.clone(), identity.password.clone().ok_or_else(none)?),
        };
        Ok(Account {
            user,
            password,
            capabilities: identity.capabilities | Capabilities::CONNECT_WITH_DATABASE,
            collation: identity.collation,
            database: identity.database.clone(),
            attributes: identity.attributes.clone(),
            ends: Some(identity.ends),
        })
    }

    /// Says on a connection what the session has set since that connection was set up.
    async fn set_up(&mut self, role: Role) -> Result<(), SessionError> {
        let version = self.state.version();
        let Some(link) = &mut self.links[role as usize] else {
            return Err(unsupported("a connection of nobody"));
        };
        if link.state_version == version {
            return Ok(());
        }
        if !self.identity.database.is_empty() {
            link.send(Command::InitDatabase, &self.identity.database).await?;
            link.settled(Command::InitDatabase).await?;
        }
        for sql in self.state.kept() {
            link.send(Command::Query, sql).await?;
            link.settled(Command::Query).await?;
        }
        link.state_version = version;
        Ok(())
    }

    /// A connection that was reset is to be as it began, before the next command; where it cannot be, that one is told.
    pub(super) async fn initialise_again(&mut self) {
        let Some(link) = &mut self.links[self.role as usize] else { return };
        if let Err(error) = link.initialise(&self.group).await {
            self.links[self.role as usize] = None;
            self.trouble = Some(error);
        }
    }

    /// Whether the replica has what the session, or the whole service, has written; waits for it a little.
    async fn caught_up(&mut self) -> Result<bool, SessionError> {
        let writes = match self.group.config.consistency {
            Consistency::Off => return Ok(true),
            _ if self.group.config.kind == GroupKind::Tidb => return Ok(true),
            Consistency::Session => self.writes,
            Consistency::Service => self.group.writes.load(Ordering::Relaxed),
        };
        let Some(link) = &self.links[Role::Replica as usize] else { return Ok(false) };
        if link.seen_writes == Some(writes) || link.seen_writes.is_none() && writes == 0 {
            return Ok(true);
        }
        if link.behind_until.is_some_and(|until| Instant::now() < until) {
            return Ok(false);
        }
        // What the writer has now is at least what was written before this read came.
        self.writer().await?;
        let Some(writer) = &mut self.links[Role::Writer as usize] else { return Ok(false) };
        let mariadb = writer.capabilities.mariadb();
        let position = writer
            .ask(if mariadb { "select @@global.gtid_binlog_pos" } else { "select @@global.gtid_executed" })
            .await?;
        let Some(position) = position.only().filter(|position| is_position(position)).map(str::to_owned)
        else {
            // Without GTIDs nothing tells how far a replica is.
            return Ok(false);
        };
        let Some(link) = &mut self.links[Role::Replica as usize] else { return Ok(false) };
        let wait = if mariadb { "master_gtid_wait" } else { "wait_for_executed_gtid_set" };
        let position: String = position.chars().filter(|c| !c.is_whitespace()).collect();
        let answer = link.ask(&format!("select {wait}('{position}', {CAUGHT_UP_MAX_SECONDS})")).await?;
        let there = answer.only() == Some("0");
        if there {
            link.seen_writes = Some(writes);
        } else {
            link.behind_until = Some(Instant::now() + BEHIND_PAUSE);
        }
        Ok(there)
    }

    /// The server cannot be had: the client is told in the command's place, and the session goes on if it can.
    pub(super) async fn refuse(&mut self, head: Head, error: &SessionError) -> Result<(), SessionError> {
        let sequence = self.swallow(head).await?;
        if !head.command.is_silent()
            && let Some(packet) = error.packet(sequence)
        {
            self.client.write_all(&packet).await.map_err(SessionError::Client)?;
        }
        if self.identity.password.is_none() {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        }
        Ok(())
    }

    /// Reads a command that goes nowhere. The number of the packet that answers it.
    pub(super) async fn swallow(&mut self, head: Head) -> Result<u8, SessionError> {
        let mut payload = head.payload;
        let mut packets = 1_u8;
        loop {
            let mut left = HEADER_BYTES + payload;
            while left > 0 {
                let bytes = left.min(self.client.held().len());
                self.client.consume(bytes);
                left -= bytes;
                if left > 0 && self.client.fill().await.map_err(SessionError::Client)? == 0 {
                    return Err(SessionError::Client(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            if payload != PAYLOAD_MAX {
                return Ok(packets);
            }
            packets = packets.wrapping_add(1);
            payload = self.next_header().await?;
        }
    }
}

/// A set of GTIDs as servers write them, and nothing that could end the text it is put into.
fn is_position(text: &str) -> bool {
    !text.trim().is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c.is_whitespace() || matches!(c, ':' | ',' | '-' | '_'))
}
