//! A session: commands of one client, each answered by a server.
//!
//! ```text
//! next_command ─ decide ─ connect ─ forward ─ relay_answer ─ settle
//! ```
//! `decide` is pure (`route`), `connect` makes a connection that is set up like the session (`links`), or borrows one that is
//! shared and given back at the end (`borrow`), and `relay` passes commands and answers through one leased buffer per direction. While a client is idle its session holds no buffer, and
//! watches its servers: one that goes away is let go before the next command would be lost on it.

mod authenticate;
mod borrow;
mod captured;
mod change;
mod end;
mod judge;
mod kill;
mod links;
mod login;
mod migrate;
mod mirrored;
mod pack;
mod relay;
mod residue;
mod route;
mod settle;
mod state;
mod statements;
mod told;
mod track;

pub(crate) use authenticate::{Check, hear, say};
pub use borrow::Last;
use borrow::Need;
pub(crate) use borrow::log_in_shared;
pub use captured::Captured;
pub use kill::Connections;
use kill::{Killing, Seat};
use links::Seen;
pub use login::{Entry, Newcomer, enter};
use residue::pins_command;
use route::{Route, View, by_statement, hint, pins, pins_shared, route};
pub use state::State;
pub use statements::StatementParts;
pub(crate) use track::wanted as tracked_with;

use crate::admission::Admission;
use crate::config::{AuthMode, GroupKind, Role};
use crate::digests::{Call, dialect};
use crate::error::SessionError;
use crate::group::{Backend, Group};
use crate::handover::Bell;
use crate::link::Link;
use crate::pool::Key;
use crate::rules::{Facts, Verdict};
use crate::shared::Shared;
use crate::slow::{SlowStatement, now_ms};
use crate::wire::Wire;
use base::Secret;
use judge::Judge;
use mysql::protocol::{Capabilities, Command, Ends, HEADER_BYTES, Status, payload_bytes};
use mysql::sql::{Dialect, Kind, Modes, Scan, scan, whole_digest_text};
pub(crate) use relay::Ended;
use relay::{Answered, Outcome};
use serde::Serialize;
use statements::{STATEMENT_BYTES, Statements, names_statement};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A shared connection that is kept only for questions about the last statement is kept for no longer.
const LAST_KEPT_MAX: Duration = Duration::from_secs(1);
/// Reasons to keep one that are no more than that.
const ABOUT_LAST: [&str; 3] = [crate::pins::WARNINGS, crate::pins::FOUND_ROWS, crate::pins::ASKED_BEFORE];

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
    let several = group.config.auth != AuthMode::Relay;
    let split = group.config.read_write_split && several;
    let shares = group.config.pool.is_some() && several;
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
        pins: pins(Some(&scan), sql.as_bytes())
            .or(pins_shared(&scan, sql.as_bytes()).filter(|_| shares))
            .filter(|_| split || shares),
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
    /// There is more that pins it than the first.
    pins_more: bool,
    /// Bytes of the present command that are still held, until something of its answer has come.
    waiting: usize,
    /// A part of the present command is still to come from the client.
    cut: bool,
    /// What the client is told in its next command's place.
    trouble: Option<SessionError>,
    /// Commands that may have written, since the session began.
    writes: u64,
    /// The present command may be one.
    writing: bool,
    judge: Judge,
    /// The replica that has them.
    seen: Option<Seen>,
    /// A replica was asked to have them and had not.
    behind_until: Option<Instant>,
    /// What shared connections are known by; made anew for another group or account.
    key: Option<Arc<Key>>,
    /// Why the session keeps a shared connection.
    kept: Option<&'static str>,
    last: Last,
    /// What `LAST_INSERT_ID()` was when the connection was given back.
    insert_id: u64,
    /// The client asks for what a statement left for the next one.
    asks: bool,
    seat: Arc<Seat>,
    /// A kill whose answer has not come.
    killing: Option<Killing>,
    /// Wakes it while it waits for its client.
    bell: Bell,
    /// The handover that it does not move in.
    stayed: u64,
    captured: Captured,
}

/// In the flags of an execution: it asks for a cursor, of whatever kind.
const CURSOR_FLAGS: u8 = 7;

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
    Kill,
    /// Nobody asked about the last statement.
    Time,
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
        let Entry { identity, group, admission, link, status } = entry;
        let version = shared.version_of(&group);
        count_transaction(&shared, Status::AUTOCOMMIT, status);
        let seat = shared.connections.enter(identity.id, identity.ends.client);
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
            pins_more: false,
            waiting: 0,
            cut: false,
            trouble: None,
            writes: 0,
            writing: false,
            judge: Judge::default(),
            seen: None,
            behind_until: None,
            key: None,
            kept: None,
            last: Last::default(),
            insert_id: 0,
            asks: false,
            seat,
            killing: None,
            bell,
            stayed: 0,
            captured: Captured::of_newcomer(),
        };
        session.sit_down();
        if let Some(link) = link {
            session.adopt(Role::Writer, link);
        }
        session
    }

    /// Serves commands until the client or its server ends it.
    ///
    /// # Errors
    /// Why it ended, when the client did not end it; the client has been told.
    pub async fn serve(mut self: Box<Self>) -> Result<(), SessionError> {
        let result = match self.commands().await {
            Ok(Next::Move) => {
                // Its connections are another process's now: they are let go of, and not ended.
                self.leave_capture();
                tracing::trace!(session = self.identity.id, "moved to the new process");
                return Ok(());
            }
            result => result.map(|_| ()),
        };
        if result.is_ok() {
            // Between two commands: what nothing is open on serves others.
            let Last { inserted, unsure, .. } = self.last;
            self.last = Last { inserted, unsure, ..Last::default() };
            self.give_back().await;
        }
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
            self.seat.rest();
            let next = self.next_command().await?;
            if self.should_move() && !matches!(next, Next::Left) && self.move_away().await {
                return Ok(Next::Move);
            }
            if matches!(next, Next::Left) {
                return Ok(next);
            }
            if self.should_migrate() {
                self.take_newer_plan()?;
                Box::pin(self.migrate()).await;
            }
            let Next::Command(head) = next else { continue };
            self.seat.begin();
            if self.seat.is_killed() {
                return Err(killed());
            }
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
                    Box::pin(self.change_user(head)).await?;
                    self.capture_change_of_user();
                    self.judge.renew();
                }
                command if command.is_stream() => {
                    if self.may_stream(head).await? {
                        return Box::pin(self.stream()).await.map(|()| Next::Left);
                    }
                }
                _ => self.judged(head).await?,
            }
            self.give_back().await;
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
        self.note_kept(None);
        self.group = group.clone();
        self.sit_down();
        Ok(())
    }

    /// Says at its seat who the session is, and whether it shares connections.
    fn sit_down(&self) {
        self.seat.set_user(&self.identity.user);
        self.seat.set_group(&self.group);
        self.seat.shares.store(self.is_shared(), Ordering::Relaxed);
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
                Woken::Kill => return Err(killed()),
                Woken::Time => {
                    let Last { inserted, unsure, .. } = self.last;
                    self.last = Last { forgotten: true, inserted, unsure, ..Last::default() };
                    self.give_back().await;
                }
            }
        }
    }

    /// Waits for the client, and meanwhile notices a server that goes away, another process that takes over, or a kill.
    async fn idle(&mut self) -> Woken {
        let seat = self.seat.clone();
        let mut ended = pin!(seat.end());
        let mut forgets = pin!(tokio::time::sleep(LAST_KEPT_MAX));
        let may_forget = self.kept.is_some_and(|reason| ABOUT_LAST.contains(&reason));
        let migrates = self.may_migrate();
        let (client, links) = (&mut self.client, &mut self.links);
        let (bell, stayed, handover) = (&self.bell, self.stayed, &self.shared.handover);
        poll_fn(|cx| {
            // Before the client: what it asks next would be lost with a server of which we could know.
            for role in [Role::Writer, Role::Replica] {
                if let Some(link) = &mut links[role as usize]
                    && link.wire.poll_readable(cx).is_ready()
                    && link.wire.poll_fill(cx).is_ready()
                {
                    // It closes, or says why it will: nobody asked it anything.
                    return Poll::Ready(Woken::Server(role));
                }
            }
            if let Poll::Ready(read) = client.poll_fill(cx) {
                return Poll::Ready(Woken::Client(read));
            }
            if ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Kill);
            }
            bell.register(cx.waker());
            let round = handover.round();
            let leaves = migrates && links[Role::Writer as usize].as_ref().is_some_and(Link::leaves);
            if leaves || round != 0 && round != stayed {
                return Poll::Ready(Woken::Move);
            }
            if may_forget && forgets.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Time);
            }
            Poll::Pending
        })
        .await
    }

    /// The server of an idle session went away: with a password the next command finds another, unless a transaction or
    /// something else was open there. A relayed session ends with the server's own words, where it left any.
    async fn lose_idle(&mut self, role: Role) -> Result<(), SessionError> {
        let Some(link) = self.links[role as usize].take() else { return Ok(()) };
        self.seat.leave(role);
        self.last = Last::default();
        let nothing_lost = role == Role::Replica
            || self.pinned.is_none()
                && !self.status.has(Status::IN_TRANSACTION)
                && !self.statements.are_tied();
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
            self.statements.lose();
            self.note_kept(None);
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
        let mut scan = self.look(head);
        let mut digest = scan.map(|scan| scan.digest).filter(|_| head.command == Command::Query);
        let number = self.known_number(head).filter(|_| names_statement(head.command));
        if matches!(head.command, Command::Execute | Command::BulkExecute) {
            let statement = self.statement(head);
            digest = statement.map(|statement| statement.digest);
            scan = statement.filter(|_| self.is_several()).and_then(|statement| statement.scan);
        }
        let kills = head.command == Command::ProcessKill
            || head.command == Command::Query && scan.is_some_and(|scan| scan.kind == Kind::Kill);
        let taken = self.take_for_capture(head, scan.as_ref(), began);
        if self.answer_at_once(head, scan.as_ref(), number, kills).await? {
            self.keep(taken, digest, None);
            return Ok(());
        }
        self.role = self.decide(head, scan.as_ref()).role;
        let text = self.wanted_text(head, scan.as_ref(), digest);
        let reads = head.command == Command::Execute && self.reads_by_statement(head);
        self.writing = self.may_leave_writes(head, scan.as_ref(), reads);
        let mirrored = self.take_for_mirror(head, scan.as_ref());
        let named = self.names_database(head, scan.as_ref());
        let hash = mirrored.is_some() || taken.as_ref().is_some_and(|taken| taken.hash);
        // What has not come yet may ask for one.
        let cursor = self.client.held().get(HEADER_BYTES + 5).is_none_or(|flags| flags & CURSOR_FLAGS != 0);
        self.give_back_before().await;
        let need = self.need(head, scan.as_ref());
        let set = self.prepared_set(head, scan.as_ref());
        let lists_on = self.last.warned && self.keeps_warnings(head, scan.as_ref());
        let (before, reading) = (self.status, self.state.reading());
        let mut again = true;
        let answered = loop {
            if let Err(error) = self.connect(need).await {
                return self.refuse(head, &error).await;
            }
            let outcome = match self.send(head, kills).await {
                Ok(()) if head.command.is_silent() => {
                    self.take_command();
                    self.keep(taken, digest, None);
                    self.settle_statement(number, head.command, None);
                    return Ok(());
                }
                Ok(()) => match self.relay_answer(head.command, cursor, hash).await {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        // The client left; the server may do what it was asked all the same.
                        self.keep_lost(taken, digest);
                        return Err(error);
                    }
                },
                Err(Unsent::Refused(error)) if self.role == Role::Writer => {
                    return self.refuse(head, &error).await;
                }
                Err(Unsent::Refused(error)) => {
                    self.waiting = HEADER_BYTES + head.payload;
                    Outcome::Lost { error: io::Error::other(error), sequence: Some(1) }
                }
                Err(Unsent::Lost(error)) => Outcome::Lost { error, sequence: Some(1) },
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
                    self.seat.leave(Role::Replica);
                    self.waiting = 0;
                    self.role = Role::Writer;
                }
                // So does one on a shared connection that nothing kept: it may have been dead since long before.
                Outcome::Lost { error, .. }
                    if std::mem::take(&mut again)
                        && self.waiting > 0
                        && self.may_repeat(head, scan.as_ref(), reads) =>
                {
                    tracing::debug!(%error, "a read is asked once more");
                    self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
                    self.links[Role::Writer as usize] = None;
                    self.seat.leave(Role::Writer);
                    self.waiting = 0;
                }
                lost @ Outcome::Lost { .. } => {
                    self.killing = None;
                    self.take_command();
                    self.keep_lost(taken, digest);
                    return self.lost(lost).await;
                }
            }
        };
        if let Some((number, ..)) = answered.prepared {
            self.judge.note_prepared(number);
        }
        self.killing = None;
        if let (Command::Prepare, Some(prepared)) = (head.command, answered.prepared) {
            self.learn(prepared, scan, text.as_deref()).await;
        }
        if let Some(began) = began {
            self.count(head, scan.as_ref(), digest, text.as_deref(), began, &answered);
        }
        self.mirror(mirrored, &answered);
        if let Some(name) = named.filter(|_| !answered.error) {
            self.identity.database = name;
        }
        self.keep(taken, digest.or_else(|| scan.map(|scan| scan.digest)), Some(&answered));
        self.note_last(head, scan.as_ref(), &answered, lists_on);
        self.settle_statement(number, head.command, answered.status);
        let text = self.learn_values(head, scan.as_ref(), text, set, &answered).await;
        self.settle(head, scan.as_ref(), text, before, answered.error);
        if head.command == Command::ResetConnection && !answered.error {
            self.initialise_again().await;
        }
        if self.state.reading() != reading {
            self.read_otherwise().await;
        }
        Ok(())
    }

    /// Answers what no server has to answer; `false` where one has.
    async fn answer_at_once(
        &mut self,
        head: Head,
        scan: Option<&Scan>,
        number: Option<u32>,
        kills: bool,
    ) -> Result<bool, SessionError> {
        if !self.is_several() {
            return Ok(false);
        }
        let idle = if kills { self.kill_idle(head) } else { None };
        if let Some(packet) = idle {
            self.swallow(head).await?;
            self.client.write_all(&packet).await.map_err(SessionError::Client)?;
            return Ok(true);
        }
        if names_statement(head.command) {
            if head.command == Command::CloseStatement {
                self.close_statement(head).await;
            }
            if head.command == Command::CloseStatement || number.is_none() {
                // A number that is not the client's may be somebody else's on that connection.
                self.refuse(head, &refused(1243, "Unknown prepared statement handler")).await?;
                return Ok(true);
            }
        }
        if head.command == Command::Prepare && self.has_all_statements() {
            let text = "Can't create more prepared statements: the session has as many as a server";
            self.refuse(head, &refused(1461, text)).await?;
            return Ok(true);
        }
        if head.command == Command::Prepare && !self.shared.has_memory_for(STATEMENT_BYTES) {
            let text =
                "Can't create more prepared statements: tidemill's memory is used up (`limits.memory`)";
            self.refuse(head, &refused(1461, text)).await?;
            return Ok(true);
        }
        match self.asks_too_late(head, scan) {
            Some(error) => self.refuse(head, &error).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Sends a command to the present server: as it is, or with the numbers and the types that the server knows it by.
    async fn send(&mut self, head: Head, kills: bool) -> Result<(), Unsent> {
        if kills && self.kill(head).await.map_err(Unsent::Lost)? {
            return Ok(());
        }
        if self.is_several() && names_statement(head.command) {
            let front = match self.translate(head).await {
                Ok(front) => front,
                Err(error @ (SessionError::Server { .. } | SessionError::Refused { .. })) => {
                    return Err(Unsent::Refused(error));
                }
                Err(error) => {
                    self.waiting = HEADER_BYTES + head.payload;
                    return Err(Unsent::Lost(io::Error::other(error)));
                }
            };
            return self.forward(head, Some(&front)).await.map_err(Unsent::Lost);
        }
        if head.command == Command::CloseStatement {
            self.close_statement(head).await;
        }
        self.forward(head, None).await.map_err(Unsent::Lost)
    }

    /// The command's bytes have done what they were held for.
    fn take_command(&mut self) {
        self.client.consume(std::mem::take(&mut self.waiting));
    }

    /// The text, where it is needed once the answer has come: then the buffer has it no more.
    fn wanted_text(&self, head: Head, scan: Option<&Scan>, digest: Option<u64>) -> Option<Vec<u8>> {
        if self.is_several() {
            let sets = scan.is_some_and(|scan| matches!(scan.kind, Kind::Set | Kind::Use | Kind::Unlock));
            if head.command == Command::InitDatabase {
                let payload = self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload)?;
                return payload.get(1..).map(<[u8]>::to_vec);
            }
            if head.command == Command::Prepare || sets {
                return self.text(head).map(<[u8]>::to_vec);
            }
        }
        if head.command == Command::Prepare && self.group.mirror.is_some() {
            return self.text(head).map(<[u8]>::to_vec);
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
        let wanted =
            self.shared.digests.is_some() || self.shared.capture.is_on() || self.group.mirror.is_some();
        if !self.is_several() && !wanted {
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

    /// Whether the session can have several connections, one after the other or at once.
    fn is_several(&self) -> bool {
        self.identity.password.is_some()
    }

    fn can_split(&self) -> bool {
        self.group.config.read_write_split && self.is_several()
    }

    fn decide(&mut self, head: Head, scan: Option<&Scan>) -> Route {
        // A name without a database is one of the server's own tables there, and tells of that server.
        let tied = self.state.once || self.last.unsure || self.is_shared() && self.statements.are_tied();
        let split = self.can_split() && !tied && !route::is_system(&self.identity.database);
        if head.command == Command::Execute && self.reads_by_statement(head) {
            return by_statement(View { split, status: self.status, pinned: self.pinned, last: self.role });
        }
        let split = split && head.command == Command::Query;
        if self.is_several() {
            let reason = match scan {
                // What is only prepared has done nothing yet.
                _ if head.command == Command::Prepare => None,
                None if head.command == Command::Query => self.pins_unseen(head),
                _ => self.pins_seen(head, scan),
            };
            if let Some(reason) = reason.or(pins_command(head.command)) {
                self.pin(reason);
            }
        }
        let hint = scan.and_then(|scan| hint(scan, self.text(head)?));
        route(scan, hint, View { split, status: self.status, pinned: self.pinned, last: self.role })
    }
}

/// Why a command was not sent, or not all of it.
enum Unsent {
    /// Its connection is well.
    Refused(SessionError),
    Lost(io::Error),
}

fn refused(number: u16, reason: &str) -> SessionError {
    SessionError::Refused { number, state: *b"HY000", reason: reason.to_owned() }
}

fn drained(group: &Group, backend: &Backend) -> SessionError {
    SessionError::Drained { group: group.name.clone(), address: backend.address.clone() }
}

fn killed() -> SessionError {
    SessionError::Refused {
        number: 1317,
        state: *b"70100",
        reason: "Query execution was interrupted: the session was killed".into(),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end_capture();
        self.forget_connections();
        self.note_kept(None);
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
