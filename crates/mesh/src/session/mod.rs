//! A session: commands of one client, each answered by a server.
//!
//! ```text
//! next_command ─ decide ─ connect ─ forward ─ relay_answer ─ settle
//! ```
//! `decide` is pure (`route`), `connect` makes a connection that is set up like the session (`links`), and `relay` passes
//! commands and answers through one leased buffer per direction. While a client is idle its session holds no buffer, and
//! watches its servers: one that goes away is let go before the next command would be lost on it.

mod authenticate;
mod change;
mod end;
mod judge;
mod kill;
mod links;
mod login;
mod migrate;
mod pack;
mod relay;
mod route;
mod state;
mod statements;
mod told;

pub use kill::Connections;
pub use login::{Entry, Newcomer, enter};
use route::{Route, View, by_statement, hint, may_write, pins, route};
pub use state::State;
pub use statements::Statements;

use crate::admission::Admission;
use crate::config::{AuthMode, Consistency, GroupKind, Role};
use crate::digests::{Call, dialect};
use crate::error::SessionError;
use crate::group::Group;
use crate::handover::Bell;
use crate::link::Link;
use crate::rules::{Facts, Verdict};
use crate::shared::Shared;
use crate::slow::{SlowStatement, now_ms};
use crate::wire::Wire;
use base::Secret;
use judge::Judge;
use mysql::protocol::{Capabilities, Command, Ends, HEADER_BYTES, Status, payload_bytes};
use mysql::sql::{Dialect, Kind, Modes, Scan, scan, whole_digest_text};
use relay::{Answered, Outcome};
use serde::Serialize;
use state::Setting;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

/// Where a statement would go.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub group: String,
    pub role: Role,
    pub reason: &'static str,
    /// Why the session would stay with its writer afterwards.
    pub pins: Option<&'static str>,
    /// With its literals left out.
    pub text: String,
    pub digest: String,
    /// What was seen in it.
    pub flags: Vec<&'static str>,
    /// What the rules say of it, where the group has any.
    pub verdict: Option<Verdict>,
}

/// Explains a statement to a person, as if a fresh session, of this user, sent it.
pub fn explain(group: &Group, sql: &str, user: Option<&str>) -> Explanation {
    let modes = Modes { dialect: dialect(group.config.kind), ..Modes::default() };
    let scan = scan(sql.as_bytes(), modes);
    let split = group.config.read_write_split && group.config.auth != AuthMode::Relay;
    let route = route(
        Some(&scan),
        hint(&scan, sql.as_bytes()),
        View { split, status: Status::AUTOCOMMIT, pinned: None, last: Role::Writer },
    );
    let mut text = String::new();
    whole_digest_text(sql.as_bytes(), &mut text, modes);
    let facts = Facts::of(&scan);
    let verdict =
        group.rules.as_ref().map(|rules| rules.explain(user, &facts, &text, jiff::Timestamp::now()));
    Explanation {
        verdict,
        group: group.name.clone(),
        role: route.role,
        reason: route.reason,
        pins: pins(Some(&scan), sql.as_bytes()).filter(|_| split),
        text,
        digest: format!("{:016x}", scan.digest),
        flags: scan.flags.names().collect(),
    }
}

/// Who the client is, and what was agreed on with it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: u32,
    pub user: Vec<u8>,
    pub capabilities: Capabilities,
    pub collation: u8,
    pub database: Vec<u8>,
    pub attributes: Vec<u8>,
    /// Of the client's connection, or of the one that a balancer told.
    pub ends: Ends,
    /// Proven to us, with `vault` and `mapped`.
    pub password: Option<Secret>,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    client: Wire,
    shared: Arc<Shared>,
    /// That carries it.
    thread: usize,
    group: Arc<Group>,
    /// Of the plan that `group` is of.
    version: u64,
    statements: Statements,
    identity: Identity,
    /// Its place among those of its group and its user.
    admission: Admission,
    /// Its connections, by role.
    links: [Option<Link>; 2],
    /// Of the connection that the present command uses.
    role: Role,
    status: Status,
    state: State,
    pinned: Option<&'static str>,
    /// Bytes of the present command that are still held, until something of its answer has come.
    waiting: usize,
    /// A part of the present command is still to come from the client.
    cut: bool,
    /// What the client is told in its next command's place.
    trouble: Option<SessionError>,
    /// Commands that may have written, since the session began.
    writes: u64,
    judge: Judge,
    /// Wakes it while it waits for its client.
    bell: Bell,
    /// The handover that it does not move in.
    stayed: u64,
}

/// What a session waited for.
enum Next {
    Command(Head),
    /// The client left.
    Left,
    /// Another process may have the session.
    Move,
}

/// What an idle session woke up for.
enum Woken {
    /// The client: how many bytes came.
    Client(io::Result<usize>),
    Server(Role),
    Move,
}

/// What the client wants next.
#[derive(Clone, Copy, Debug)]
struct Head {
    command: Command,
    /// Of its first packet.
    payload: usize,
}

impl Session {
    pub fn new(client: Wire, shared: Arc<Shared>, thread: usize, entry: Entry) -> Self {
        let version = shared.version.load(Ordering::Acquire);
        let Entry { identity, group, admission, link, status } = entry;
        count_transaction(&shared, Status::AUTOCOMMIT, status);
        let bell = shared.handover.bell(identity.id);
        let mut session = Self {
            client,
            shared,
            thread,
            group,
            version,
            statements: Statements::default(),
            identity,
            admission,
            links: [None, None],
            role: Role::Writer,
            status,
            state: State::default(),
            pinned: None,
            waiting: 0,
            cut: false,
            trouble: None,
            writes: 0,
            judge: Judge::default(),
            bell,
            stayed: 0,
        };
        if let Some(link) = link {
            session.adopt(Role::Writer, link);
        }
        session
    }

    /// Serves commands until the client or its server ends it.
    ///
    /// # Errors
    /// Why it ended, when the client did not end it; the client has been told.
    pub async fn serve(mut self) -> Result<(), SessionError> {
        let result = match self.commands().await {
            Ok(Next::Move) => {
                // Its connections are another process's now: they are let go of, and not ended.
                tracing::trace!(session = self.identity.id, "moved to the new process");
                return Ok(());
            }
            result => result.map(|_| ()),
        };
        if let Err(error) = &result
            && let Some(packet) = error.packet(1)
        {
            let _ = self.client.write_all(&packet).await;
        }
        self.client.shutdown().await;
        result
    }

    /// How it ended: [`Next::Left`] or [`Next::Move`].
    async fn commands(&mut self) -> Result<Next, SessionError> {
        loop {
            let next = self.next_command().await?;
            if self.should_move() && !matches!(next, Next::Left) && self.move_away().await {
                return Ok(Next::Move);
            }
            if matches!(next, Next::Left) {
                return Ok(next);
            }
            if self.should_migrate() {
                self.take_newer_plan()?;
                self.migrate().await;
            }
            let Next::Command(head) = next else { continue };
            if self.shared.closing.load(Ordering::Relaxed) && !self.status.has(Status::IN_TRANSACTION) {
                return Err(SessionError::Refused {
                    number: 1053,
                    state: *b"08S01",
                    reason: "Server shutdown in progress".into(),
                });
            }
            self.take_newer_plan()?;
            match head.command {
                Command::Quit => return Ok(Next::Left),
                Command::ChangeUser => {
                    self.change_user(head).await?;
                    self.judge.renew();
                }
                command if command.is_stream() => {
                    if self.may_stream(head).await? {
                        return self.stream().await.map(|()| Next::Left);
                    }
                }
                _ => self.judged(head).await?,
            }
        }
    }

    /// Goes by the newest plan from here on, unless a transaction is open.
    fn take_newer_plan(&mut self) -> Result<(), SessionError> {
        let newer = self.version != self.shared.version.load(Ordering::Acquire);
        if newer && !self.status.has(Status::IN_TRANSACTION) { self.take_plan() } else { Ok(()) }
    }

    fn take_plan(&mut self) -> Result<(), SessionError> {
        self.version = self.shared.version.load(Ordering::Acquire);
        let plan = self.shared.plan.load();
        let Some(group) = plan.group(&self.group.name) else {
            return Err(SessionError::Refused {
                number: 1053,
                state: *b"08S01",
                reason: format!("tidemill: the group `{}` is no longer served here", self.group.name),
            });
        };
        if let Some(password) = &self.identity.password {
            let name = String::from_utf8_lossy(&self.identity.user);
            let user = group.config.users.iter().find(|user| user.name == name);
            if user.is_none_or(|user| user.password != *password) {
                return Err(SessionError::Denied { user: name.into_owned() });
            }
        }
        self.group = group.clone();
        Ok(())
    }

    /// Waits for a command: all of it, or as much of a long one as a buffer holds.
    async fn next_command(&mut self) -> Result<Next, SessionError> {
        loop {
            let held = self.client.held();
            if held.len() >= HEADER_BYTES {
                let payload = payload_bytes(held);
                if payload == 0 {
                    return Err(unsupported("an empty command"));
                }
                let is_whole = held.len() >= HEADER_BYTES + payload;
                if is_whole || self.client.is_full() {
                    let command = Command::of(held[HEADER_BYTES]);
                    if is_whole || !self.wants_whole(command, payload) {
                        return Ok(Next::Command(Head { command, payload }));
                    }
                    self.client.make_room(HEADER_BYTES + payload);
                }
            }
            match self.idle().await {
                Woken::Client(Ok(0)) => return Ok(Next::Left),
                Woken::Client(read) => read.map(|_| ()).map_err(SessionError::Client)?,
                Woken::Server(role) => self.lose_idle(role).await?,
                Woken::Move => return Ok(Next::Move),
            }
        }
    }

    /// Waits for the client, and meanwhile notices a server that goes away, or another process that takes over.
    async fn idle(&mut self) -> Woken {
        let migrates = self.may_migrate();
        let (client, links) = (&mut self.client, &mut self.links);
        let (bell, stayed, handover) = (&self.bell, self.stayed, &self.shared.handover);
        poll_fn(|cx| {
            if let Poll::Ready(read) = client.poll_fill(cx) {
                return Poll::Ready(Woken::Client(read));
            }
            bell.register(cx.waker());
            let round = handover.round();
            let leaves = migrates && links[Role::Writer as usize].as_ref().is_some_and(Link::leaves);
            if leaves || round != 0 && round != stayed {
                return Poll::Ready(Woken::Move);
            }
            for role in [Role::Writer, Role::Replica] {
                if let Some(link) = &mut links[role as usize]
                    && link.wire.poll_readable(cx).is_ready()
                    && link.wire.poll_fill(cx).is_ready()
                {
                    // It closes, or says why it will: nobody asked it anything.
                    return Poll::Ready(Woken::Server(role));
                }
            }
            Poll::Pending
        })
        .await
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
            self.trouble = Some(link.lost(io::Error::other(
                "it went away, and with it the transaction or what else was open there",
            )));
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
        let digests = self.shared.digests.is_some();
        let began = digests.then(Instant::now);
        let scan = self.look(head);
        let mut digest = scan.map(|scan| scan.digest).filter(|_| head.command == Command::Query);
        if head.command == Command::Execute {
            digest = self.statement(head).map(|statement| statement.digest);
        }
        self.role = self.decide(head, scan.as_ref()).role;
        let text = self.wanted_text(head, scan.as_ref(), digest);
        let reads = head.command == Command::Execute && self.reads_by_statement(head);
        let kills = scan.is_some_and(|scan| scan.kind == Kind::Kill) || head.command == Command::ProcessKill;
        let before = self.status;
        let answered = loop {
            if let Err(error) = self.connect().await {
                return self.refuse(head, &error).await;
            }
            let outcome = match self.send(head, kills).await {
                Ok(()) if head.command.is_silent() => {
                    self.take_command();
                    return Ok(());
                }
                Ok(()) => self.relay_answer(head.command).await?,
                Err(error) => Outcome::Lost { error, sequence: Some(1) },
            };
            match outcome {
                Outcome::Answered(answered) => {
                    if let Some(link) = &self.links[self.role as usize] {
                        link.backend().served();
                    }
                    break answered;
                }
                // The client has nothing of the answer, and the buffer still has the question, which only reads.
                Outcome::Lost { error, .. }
                    if self.role == Role::Replica && self.waiting > 0 && !self.judge.has_ended() =>
                {
                    tracing::debug!(%error, "a read goes to the writer instead");
                    if let Some(link) = &self.links[Role::Replica as usize] {
                        self.group.note_lost(link.backend());
                    }
                    self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
                    self.links[Role::Replica as usize] = None;
                    self.waiting = 0;
                    self.role = Role::Writer;
                }
                lost @ Outcome::Lost { .. } => {
                    self.take_command();
                    return self.lost(lost).await;
                }
            }
        };
        if let Some((number, _)) = answered.prepared {
            self.judge.note_prepared(number);
        }
        if let (Command::Prepare, Some(scan), Some((number, parameters))) =
            (head.command, &scan, answered.prepared)
        {
            self.learn(
                number,
                parameters,
                scan.digest,
                scan.is_safe_read() && self.can_split(),
                text.as_deref(),
            );
        }
        if let Some(began) = began {
            self.count(head, scan.as_ref(), digest, text.as_deref(), began, &answered);
        }
        self.settle(head, scan.as_ref(), text, before, answered.error, reads);
        if head.command == Command::ResetConnection && !answered.error {
            self.initialise_again().await;
        }
        Ok(())
    }

    /// Sends a command to the present server: as it is, or with the numbers and the types that the server knows it by.
    async fn send(&mut self, head: Head, kills: bool) -> io::Result<()> {
        let changed = match head.command {
            _ if kills => self.kill(head).await?,
            Command::Execute if self.can_split() => self.execute(head).await?,
            _ => false,
        };
        if changed {
            return Ok(());
        }
        if matches!(
            head.command,
            Command::LongData | Command::ResetStatement | Command::CloseStatement | Command::Execute
        ) {
            self.about_statement(head).await;
        }
        self.forward(head).await
    }

    /// The command's bytes have done what they were held for.
    fn take_command(&mut self) {
        self.client.consume(std::mem::take(&mut self.waiting));
    }

    /// The text, where it is needed once the answer has come: then the buffer has it no more.
    fn wanted_text(&self, head: Head, scan: Option<&Scan>, digest: Option<u64>) -> Option<Vec<u8>> {
        if self.can_split() {
            let sets = scan.is_some_and(|scan| matches!(scan.kind, Kind::Set | Kind::Use));
            if head.command == Command::InitDatabase {
                let payload = self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload)?;
                return payload.get(1..).map(<[u8]>::to_vec);
            }
            if head.command == Command::Prepare || sets {
                return self.text(head).map(<[u8]>::to_vec);
            }
        }
        let digest = digest.or_else(|| scan.map(|scan| scan.digest))?;
        let known = self.shared.digests.as_ref()?.knows(self.thread, self.group.number, digest);
        if known { None } else { self.text(head).map(<[u8]>::to_vec) }
    }

    /// What the statement is, where it is one that can be seen whole and the answer matters.
    fn look(&self, head: Head) -> Option<Scan> {
        if self.judge.scan.is_some() {
            return self.judge.scan;
        }
        if !self.can_split() && self.shared.digests.is_none() {
            return None;
        }
        Some(scan(self.text(head)?, self.modes()))
    }

    fn modes(&self) -> Modes {
        let dialect = match self.group.config.kind {
            GroupKind::Mysql if self.identity.capabilities.mariadb() => Dialect::MariaDb,
            kind => dialect(kind),
        };
        self.state.modes(dialect, self.identity.collation, self.status)
    }

    /// Counts an answer under its statement, and remembers which statement a prepared one is.
    fn count(
        &mut self,
        head: Head,
        scan: Option<&Scan>,
        digest: Option<u64>,
        text: Option<&[u8]>,
        began: Instant,
        answered: &Answered,
    ) {
        if let (Command::Prepare, Some(scan), Some(_)) = (head.command, scan, answered.prepared)
            && let Some(digests) = &self.shared.digests
        {
            digests.learn(self.thread, self.group.number, scan.digest, || {
                text.map(|sql| (sql.to_vec(), self.modes()))
            });
        }
        let (Some(digest), Some(digests)) = (digest, &self.shared.digests) else { return };
        let call = Call {
            elapsed: began.elapsed(),
            rows: answered.rows,
            bytes: answered.bytes,
            error: answered.error,
            replica: self.role == Role::Replica,
        };
        digests.add(
            self.thread,
            self.group.number,
            digest,
            || text.map(|sql| (sql.to_vec(), self.modes())),
            call,
        );
        if call.elapsed >= self.shared.slow.over {
            self.note_slow(digests.named(self.thread, self.group.number, digest), call);
        }
    }

    fn note_slow(&self, (digest, text): (String, String), call: Call) {
        let readable = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let server = self.links[self.role as usize].as_ref().map(|link| link.backend().address.clone());
        self.shared.slow.add(SlowStatement {
            at_ms: now_ms(),
            group: self.group.name.clone(),
            user: readable(&self.identity.user),
            client: self.identity.ends.client.ip().to_string(),
            database: readable(&self.identity.database),
            server: server.unwrap_or_default(),
            elapsed_us: u64::try_from(call.elapsed.as_micros()).unwrap_or(u64::MAX),
            rows: call.rows,
            bytes: call.bytes,
            error: call.error,
            digest,
            text,
        });
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
        // A name without a database is one of the server's own tables there, and tells of that server.
        let split = self.can_split() && !self.state.once && !route::is_system(&self.identity.database);
        if head.command == Command::Execute && self.reads_by_statement(head) {
            return by_statement(View { split, status: self.status, pinned: self.pinned, last: self.role });
        }
        let split = split && head.command == Command::Query;
        if self.pinned.is_none() {
            self.pinned = pins(scan, self.text(head).unwrap_or_default());
        }
        let hint = scan.and_then(|scan| hint(scan, self.text(head)?));
        route(scan, hint, View { split, status: self.status, pinned: self.pinned, last: self.role })
    }

    /// Takes from an answered command what the session has to know for the next.
    fn settle(
        &mut self,
        head: Head,
        scan: Option<&Scan>,
        text: Option<Vec<u8>>,
        before: Status,
        error: bool,
        reads: bool,
    ) {
        if self.role == Role::Replica || !self.can_split() {
            return;
        }
        if let Some(link) = &mut self.links[Role::Writer as usize] {
            link.has_statements |= head.command == Command::Prepare && !error;
        }
        let is_statement = matches!(head.command, Command::Query | Command::Execute | Command::BulkExecute)
            && !(head.command == Command::Execute && reads);
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
            (Command::Query, Some(sql))
                if scan.is_some_and(|scan| scan.kind == Kind::Set)
                    && self.state.set(&sql, self.modes()) == Setting::Pins =>
            {
                self.pinned = Some("setting that cannot be repeated");
            }
            (Command::ResetConnection, _) => {
                self.state = State::default();
                self.pinned = None;
                self.forget_statements();
                if let Some(link) = &mut self.links[Role::Writer as usize] {
                    link.has_statements = false;
                }
                // The replica's connection has the old settings; a new one has none.
                self.links[Role::Replica as usize] = None;
            }
            _ => {}
        }
        // It was set up for this command, and has carried out itself what is new.
        if let Some(link) = &mut self.links[Role::Writer as usize] {
            link.state_version = self.state.version();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.forget_connections();
        self.shared.handover.forget(self.identity.id);
        if self.stayed != 0 && self.stayed == self.shared.handover.round() {
            self.shared.handover.count_staying(false);
        }
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
    SessionError::Refused {
        number: 1047,
        state: *b"08S01",
        reason: format!("tidemill: {what} is not supported"),
    }
}
