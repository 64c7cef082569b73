//! The connections of a session: made when they are needed, and set up like it.

use super::borrow::Need;
use super::route::may_write;
use super::{Head, Session, unsupported};
use crate::config::{AuthMode, Consistency, GroupKind, Role, Topology};
use crate::error::SessionError;
use crate::group::Backend;
use crate::link::{self, Account, Link};
use mysql::protocol::{Capabilities, Command, HEADER_BYTES, PAYLOAD_MAX, Status};
use mysql::sql::{Kind, Scan};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a read waits for a replica to have what it must see; then the writer answers it.
const CAUGHT_UP_MAX_SECONDS: &str = "0.3";

/// How long a command waits for a writer, and how often it looks.
pub(super) const WRITER_MAX: Duration = Duration::from_secs(5);
pub(super) const WRITER_LOOK: Duration = Duration::from_millis(50);
/// The same where a group elects one: by default it suspects a dead member after 5 s, and goes on without it 5 s later.
const ELECTED_MAX: Duration = Duration::from_secs(20);

/// A replica that was not there in time is not waited for again so soon.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

/// A connection that was free may have died unseen; after so many in a row it is the server that does not answer.
const DEAD_MAX: usize = 4;

/// The writes that a replica is known to have.
#[derive(Debug)]
pub(super) struct Seen {
    backend: Arc<Backend>,
    writes: u64,
    /// Connections from here on may be to the server after a restart, which may have lost some.
    serial: u64,
}

impl Seen {
    fn has(&self, writes: u64, link: &Link) -> bool {
        self.writes == writes && Arc::ptr_eq(&self.backend, link.backend()) && link.serial < self.serial
    }
}

impl Session {
    /// A connection for the present role, set up like the session. A read whose replica cannot be had, or is not there
    /// yet, goes to the writer.
    pub(super) async fn connect(&mut self, need: Need) -> Result<(), SessionError> {
        if self.role == Role::Replica {
            match self.replica(need).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error @ (SessionError::Client(_) | SessionError::Busy { .. })) => return Err(error),
                Err(error) => {
                    tracing::debug!(
                        error = crate::monitor::causes(&error),
                        "a read goes to the writer instead"
                    );
                    self.links[Role::Replica as usize] = None;
                    self.seat.leave(Role::Replica);
                }
            }
            self.role = Role::Writer;
        }
        self.writer(need).await
    }

    async fn writer(&mut self, need: Need) -> Result<(), SessionError> {
        if let Some(link) = &self.links[Role::Writer as usize] {
            let idle = !self.status.has(Status::IN_TRANSACTION)
                && self.pinned.is_none()
                && !self.statements.are_tied();
            let backend = link.backend();
            let stays = backend.role() == Role::Writer && !(backend.is_draining() && idle);
            if stays || self.status.has(Status::IN_TRANSACTION) {
                return self.set_up(Role::Writer, need, true).await;
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
                return self.set_up(Role::Writer, need, true).await;
            }
            let lost = self.pinned.take().is_some() || self.statements.are_tied();
            let address = backend.address.clone();
            self.links[Role::Writer as usize] = None;
            self.seat.leave(Role::Writer);
            self.statements.lose();
            if lost {
                let source = io::Error::other(
                    "it takes no writes any more, and what the session had set up there is gone",
                );
                return Err(SessionError::Backend { address, source });
            }
            self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
        }
        if self.is_shared() {
            return self.borrow_set_up(Role::Writer, need).await;
        }
        let link = self.next_writer().await?;
        self.adopt(Role::Writer, link);
        self.set_up(Role::Writer, need, false).await
    }

    /// A shared connection that is set up. One that turns out to be dead before the command was sent makes way for another.
    async fn borrow_set_up(&mut self, role: Role, need: Need) -> Result<(), SessionError> {
        let mut dead = 0;
        loop {
            let link =
                if role == Role::Writer { self.next_writer().await? } else { self.borrow(role).await? };
            self.adopt(role, link);
            match self.set_up(role, need, false).await {
                Ok(()) => return Ok(()),
                // It is told in the command's place; whoever has the connection next sets it up anew.
                Err(error @ SessionError::Server { .. }) => {
                    self.release(role).await;
                    return Err(error);
                }
                Err(error) => {
                    self.links[role as usize] = None;
                    self.seat.leave(role);
                    dead += 1;
                    if dead == DEAD_MAX {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A login at a writer; while a replica is being promoted there is none for a moment, and the command waits.
    async fn next_writer(&mut self) -> Result<Link, SessionError> {
        let elects = self.group.config.topology == Topology::GroupReplication;
        let deadline = tokio::time::Instant::now() + if elects { ELECTED_MAX } else { WRITER_MAX };
        loop {
            let newest = self.shared.newest(&self.group);
            if let Some(drained) = newest.drained_writer() {
                return Err(super::drained(&newest, drained));
            }
            let got = if self.is_shared() {
                self.borrow(Role::Writer).await
            } else {
                self.log_in(Role::Writer).await
            };
            match got {
                Err(SessionError::NoBackend { .. } | SessionError::Backend { .. })
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(WRITER_LOOK).await;
                    // The next writer may be one that has just been found.
                    self.take_newer_plan()?;
                }
                result => return result,
            }
        }
    }

    /// Whether there is a replica that has all that this session must see.
    async fn replica(&mut self, need: Need) -> Result<bool, SessionError> {
        let keep =
            self.links[Role::Replica as usize].as_ref().is_some_and(|link| self.group.reads(link.backend()));
        if keep {
            self.set_up(Role::Replica, need, true).await?;
            return self.caught_up(need).await;
        }
        self.links[Role::Replica as usize] = None;
        self.seat.leave(Role::Replica);
        if !self.group.has_replica() {
            return Ok(false);
        }
        if self.is_shared() {
            self.borrow_set_up(Role::Replica, need).await?;
        } else {
            let link = self.log_in(Role::Replica).await?;
            self.adopt(Role::Replica, link);
            self.set_up(Role::Replica, need, false).await?;
        }
        self.caught_up(need).await
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
            capabilities: identity.capabilities
                | Capabilities::CONNECT_WITH_DATABASE
                | Capabilities::PLUGIN_AUTH,
            collation: identity.collation,
            database: identity.database.clone(),
            attributes: identity.attributes.clone(),
            ends: Some(identity.ends),
        })
    }

    /// A connection that was reset is to be as it began, before the next command; where it cannot be, that one is told.
    pub(super) async fn initialise_again(&mut self) {
        let Some(link) = &mut self.links[self.role as usize] else { return };
        if let Err(error) = link.initialise(&self.group).await {
            self.links[self.role as usize] = None;
            self.trouble = Some(error);
        }
    }

    /// Whether a replica without what this command does could show something too old: it may write, or end a transaction
    /// that did, as `BEGIN` and `SET autocommit = 1` end the one before.
    pub(super) fn may_leave_writes(&self, head: Head, scan: Option<&Scan>, reads: bool) -> bool {
        let is_statement = matches!(head.command, Command::Query | Command::Execute | Command::BulkExecute)
            && !(head.command == Command::Execute && reads);
        let ends = self.status.has(Status::IN_TRANSACTION)
            && scan.is_some_and(|scan| matches!(scan.kind, Kind::Begin | Kind::Set));
        let counts = self.is_several() && self.group.config.consistency != Consistency::Off;
        is_statement && counts && (ends || may_write(scan))
    }

    /// Whether the replica has what the session, or the whole service, has written; waits for it a little.
    async fn caught_up(&mut self, need: Need) -> Result<bool, SessionError> {
        let writes = match self.group.config.consistency {
            Consistency::Off => return Ok(true),
            _ if self.group.config.kind == GroupKind::Tidb => return Ok(true),
            Consistency::Session => self.writes,
            Consistency::Service => self.group.writes.load(Ordering::Relaxed),
        };
        let Some(link) = &self.links[Role::Replica as usize] else { return Ok(false) };
        if writes == 0 || self.seen.as_ref().is_some_and(|seen| seen.has(writes, link)) {
            return Ok(true);
        }
        if self.behind_until.is_some_and(|until| Instant::now() < until) {
            return Ok(false);
        }
        // What the writer has now is at least what was written before this read came.
        self.writer(need).await?;
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
            self.seen = Some(Seen { backend: link.backend().clone(), writes, serial: Link::next_serial() });
        } else {
            self.behind_until = Some(Instant::now() + BEHIND_PAUSE);
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
