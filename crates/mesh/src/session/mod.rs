//! A session: commands of one client, each answered by a server.
//!
//! ```text
//! next_command ─ decide ─ connect ─ forward ─ relay_answer ─ settle
//! ```
//! `decide` is pure (`route`), `connect` makes a connection that is set up like the session (`links`), and `relay` passes
//! commands and answers through one leased buffer per direction. While a client is idle its session holds no buffer, and
//! watches its servers: one that goes away is let go before the next command would be lost on it.

mod links;
mod login;
mod relay;
mod route;
mod state;

pub use login::{Entry, Newcomer, enter};
use route::{Route, View, may_write, pins, route};

use crate::config::{Consistency, GroupKind, Role};
use crate::error::SessionError;
use crate::group::Group;
use crate::link::Link;
use crate::shared::Shared;
use crate::wire::Wire;
use base::Secret;
use mysql::protocol::{Capabilities, Command, HEADER_BYTES, Status, payload_bytes};
use mysql::sql::{Dialect, Kind, Scan, scan};
use relay::Outcome;
use state::{Setting, State};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

/// Who the client is, and what was agreed on with it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: u32,
    pub user: Vec<u8>,
    pub capabilities: Capabilities,
    pub collation: u8,
    pub database: Vec<u8>,
    pub attributes: Vec<u8>,
    /// Proven to us, with `vault` and `mapped`.
    pub password: Option<Secret>,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    client: Wire,
    shared: Arc<Shared>,
    group: Arc<Group>,
    identity: Identity,
    /// Its connections, by role.
    links: [Option<Link>; 2],
    /// Of the connection that the present command uses.
    role: Role,
    status: Status,
    state: State,
    pinned: Option<&'static str>,
    /// What the client is told in its next command's place.
    trouble: Option<SessionError>,
    /// Commands that may have written, since the session began.
    writes: u64,
}

/// What the client wants next.
#[derive(Clone, Copy, Debug)]
struct Head {
    command: Command,
    /// Of its first packet.
    payload: usize,
}

impl Session {
    pub fn new(client: Wire, shared: Arc<Shared>, entry: Entry) -> Self {
        let Entry { identity, group, link, status } = entry;
        count_transaction(&shared, Status::AUTOCOMMIT, status);
        Self {
            client,
            shared,
            group,
            identity,
            links: [link, None],
            role: Role::Writer,
            status,
            state: State::default(),
            pinned: None,
            trouble: None,
            writes: 0,
        }
    }

    /// Serves commands until the client or its server ends it.
    ///
    /// # Errors
    /// Why it ended, when the client did not end it; the client has been told.
    pub async fn serve(mut self) -> Result<(), SessionError> {
        let result = self.commands().await;
        if let Err(error) = &result
            && let Some(packet) = error.packet(1)
        {
            let _ = self.client.write_all(&packet).await;
        }
        self.client.shutdown().await;
        result
    }

    async fn commands(&mut self) -> Result<(), SessionError> {
        while let Some(head) = self.next_command().await? {
            if self.shared.closing.load(Ordering::Relaxed) && !self.status.has(Status::IN_TRANSACTION) {
                return Err(SessionError::Refused {
                    number: 1053,
                    state: *b"08S01",
                    reason: "Server shutdown in progress".into(),
                });
            }
            match head.command {
                Command::Quit => return Ok(()),
                Command::ChangeUser => return Err(unsupported("COM_CHANGE_USER")),
                command if command.is_stream() => return self.stream().await,
                _ => self.one(head).await?,
            }
        }
        Ok(())
    }

    /// Waits for a command: all of it, or as much of a long one as a buffer holds. `None` when the client left.
    async fn next_command(&mut self) -> Result<Option<Head>, SessionError> {
        loop {
            let held = self.client.held();
            if held.len() > HEADER_BYTES {
                let payload = payload_bytes(held);
                if payload == 0 {
                    return Err(unsupported("an empty command"));
                }
                if held.len() >= HEADER_BYTES + payload || self.client.is_full() {
                    return Ok(Some(Head { command: Command::of(held[HEADER_BYTES]), payload }));
                }
            }
            if self.idle().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits for the client, and meanwhile notices a server that goes away.
    async fn idle(&mut self) -> Result<usize, SessionError> {
        let (client, links) = (&mut self.client, &mut self.links);
        let came = poll_fn(|cx| {
            if let Poll::Ready(read) = client.poll_fill(cx) {
                return Poll::Ready(Ok(read));
            }
            for role in [Role::Writer, Role::Replica] {
                if let Some(link) = &mut links[role as usize]
                    && link.wire.poll_readable(cx).is_ready()
                    && link.wire.poll_fill(cx).is_ready()
                {
                    // It closes, or says why it will: nobody asked it anything.
                    return Poll::Ready(Err(role));
                }
            }
            Poll::Pending
        })
        .await;
        match came {
            Ok(read) => read.map_err(SessionError::Client),
            Err(role) => self.lose_idle(role).await.map(|()| 1),
        }
    }

    /// The server of an idle session went away: with a password the next command finds another, unless a transaction or
    /// something else was open there. A relayed session ends with the server's own words, where it left any.
    async fn lose_idle(&mut self, role: Role) -> Result<(), SessionError> {
        let Some(link) = self.links[role as usize].take() else { return Ok(()) };
        let nothing_lost = role == Role::Replica
            || self.pinned.is_none() && !self.status.has(Status::IN_TRANSACTION) && !link.has_statements;
        if self.identity.password.is_some() && nothing_lost {
            self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.shared.counters.broken.fetch_add(1, Ordering::Relaxed);
        if self.identity.password.is_some() {
            self.trouble = Some(link.lost(io::Error::other("it went away, and with it the transaction or what else was open there")));
            count_transaction(&self.shared, self.status, Status::AUTOCOMMIT);
            self.status = Status::AUTOCOMMIT;
            self.pinned = None;
            return Ok(());
        }
        if link.wire.held().get(HEADER_BYTES) == Some(&0xff) {
            self.client.write_all(link.wire.held()).await.map_err(SessionError::Client)?;
        }
        Err(SessionError::Client(io::ErrorKind::ConnectionReset.into()))
    }

    /// One command and its answer.
    async fn one(&mut self, head: Head) -> Result<(), SessionError> {
        if let Some(error) = self.trouble.take_if(|_| !head.command.is_silent()) {
            return self.refuse(head, &error).await;
        }
        let scan = self.look(head);
        self.role = self.decide(head, scan.as_ref()).role;
        if let Err(error) = self.connect().await {
            return self.refuse(head, &error).await;
        }
        let text = self.setting_text(head, scan.as_ref());
        if let Err(error) = self.forward(head).await {
            return self.lost(Outcome::Lost { error, sequence: Some(1) }).await;
        }
        if head.command.is_silent() {
            return Ok(());
        }
        let before = self.status;
        let outcome = self.relay_answer(head.command).await?;
        let Outcome::Answered { error } = outcome else { return self.lost(outcome).await };
        self.settle(head, scan.as_ref(), text, before, error);
        Ok(())
    }

    /// What the statement is, where it is one that can be seen whole and the answer matters.
    fn look(&self, head: Head) -> Option<Scan> {
        if !self.can_split() {
            return None;
        }
        let sql = self.text(head)?;
        let dialect = match self.group.config.kind {
            GroupKind::Mysql => Dialect::MySql,
            GroupKind::Tidb => Dialect::TiDb,
        };
        Some(scan(sql, self.state.modes(dialect, self.identity.collation, self.status)))
    }

    /// The statement's text, where the client's buffer has all of it.
    fn text(&self, head: Head) -> Option<&[u8]> {
        let payload = self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload)?;
        payload.get(route::text_start(head.command, payload, self.identity.capabilities)?..)
    }

    fn can_split(&self) -> bool {
        self.group.config.read_write_split && self.identity.password.is_some()
    }

    fn decide(&mut self, head: Head, scan: Option<&Scan>) -> Route {
        let split = self.can_split() && head.command == Command::Query && !self.state.once;
        if self.pinned.is_none() {
            self.pinned = pins(scan, self.text(head).unwrap_or_default());
        }
        route(scan, View { split, status: self.status, pinned: self.pinned, last: self.role })
    }

    /// A `SET` whose text is wanted once it has been carried out: then the buffer has it no more.
    fn setting_text(&self, head: Head, scan: Option<&Scan>) -> Option<Vec<u8>> {
        let is_setting = scan.is_some_and(|scan| matches!(scan.kind, Kind::Set | Kind::Use)) || head.command == Command::InitDatabase;
        if !is_setting || !self.can_split() {
            return None;
        }
        let payload = self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload)?;
        match head.command {
            Command::InitDatabase => payload.get(1..).map(<[u8]>::to_vec),
            _ => self.text(head).map(<[u8]>::to_vec),
        }
    }

    /// Takes from an answered command what the session has to know for the next.
    fn settle(&mut self, head: Head, scan: Option<&Scan>, text: Option<Vec<u8>>, before: Status, error: bool) {
        if self.role == Role::Replica || !self.can_split() {
            return;
        }
        if let Some(link) = &mut self.links[Role::Writer as usize] {
            link.has_statements |= head.command == Command::Prepare && !error;
        }
        let is_statement = matches!(head.command, Command::Query | Command::Execute | Command::BulkExecute);
        if is_statement && may_write(scan) && self.group.config.consistency != Consistency::Off {
            self.writes += 1;
            self.group.writes.fetch_add(1, Ordering::Relaxed);
        }
        if self.state.once && before.has(Status::IN_TRANSACTION) && !self.status.has(Status::IN_TRANSACTION) {
            self.state.once = false;
        }
        if error {
            return;
        }
        match (head.command, text) {
            (Command::InitDatabase, Some(name)) => {
                self.identity.database = name;
                self.state.changed();
            }
            (Command::Query, Some(sql)) if scan.is_some_and(|scan| scan.kind == Kind::Use) => {
                match state::used_database(&sql) {
                    Some(name) if name == self.identity.database => {}
                    Some(name) => {
                        self.identity.database = name;
                        self.state.changed();
                    }
                    None => self.pinned = Some("database changed by text"),
                }
            }
            (Command::Query, Some(sql)) => {
                if self.state.set(&sql) == Setting::Pins {
                    self.pinned = Some("setting that cannot be repeated");
                }
                if let Some(link) = &mut self.links[Role::Writer as usize] {
                    link.state_version = self.state.version();
                }
            }
            (Command::ResetConnection, _) => {
                self.state = State::default();
                self.pinned = None;
                // The replica's connection has the old settings; a new one has none.
                self.links[Role::Replica as usize] = None;
            }
            _ => {}
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        count_transaction(&self.shared, self.status, Status::AUTOCOMMIT);
    }
}

/// Counts a transaction that begins or ends.
fn count_transaction(shared: &Shared, was: Status, is: Status) {
    match (was.has(Status::IN_TRANSACTION), is.has(Status::IN_TRANSACTION)) {
        (false, true) => shared.counters.transactions.fetch_add(1, Ordering::Relaxed),
        (true, false) => shared.counters.transactions.fetch_sub(1, Ordering::Relaxed),
        _ => 0,
    };
}

fn unsupported(what: &str) -> SessionError {
    SessionError::Refused { number: 1047, state: *b"08S01", reason: format!("tidemill: {what} is not supported") }
}
