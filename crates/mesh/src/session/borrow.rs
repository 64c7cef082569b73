//! Connections that are shared: taken when a command needs one, and given back as soon as nothing keeps them.

use super::{Head, Session, count_transaction};
use crate::config::{GroupKind, Role};
use crate::error::SessionError;
use crate::group::{Backend, Group};
use crate::link::{self, Account, Link};
use crate::pins;
use crate::pool::{Fit, Granted, Key, Place, Pool, Pooled, Taken};
use mysql::protocol::{Capabilities, Command, Status};
use mysql::sql::{Flags, Kind, Scan};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

/// No insert has this number: it stands on a free connection in the place of somebody's last one.
const NO_INSERT_ID: u64 = u64::MAX - 1;

/// How long a server may take for a question of our own that reads nothing.
const OWN_QUESTION_MAX: Duration = Duration::from_secs(5);

/// What the last statement left for a question about it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Last {
    /// Warnings, or an error.
    pub warned: bool,
    /// The count of `SQL_CALC_FOUND_ROWS`.
    pub found: bool,
    /// Perhaps another `LAST_INSERT_ID()` than before.
    pub inserted: bool,
    /// It was one that a question can be about.
    pub asked: bool,
    /// Its connection was given back before anybody asked.
    pub forgotten: bool,
    /// It ended in an error, which does not tell whether a transaction is open.
    pub unsure: bool,
}

/// What a statement asks of its connection beside the session's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Nothing that others left unseen: it may read variables that the session has not set.
    pub clean: bool,
    /// What the session's last insert was.
    pub insert_id: bool,
    /// That the statement before left no warnings.
    pub no_warnings: bool,
    /// What the server tells of the session as the client has it.
    pub plain: bool,
}

impl Need {
    /// Of a statement; `None` is one that was not looked at.
    pub fn of(scan: Option<&Scan>) -> Self {
        let Some(scan) = scan else {
            return Self { clean: true, insert_id: true, no_warnings: true, plain: false };
        };
        let runs_others = matches!(scan.kind, Kind::Call | Kind::Execute | Kind::Unknown)
            || scan.flags.intersects(Flags::UNKNOWN_FUNCTION | Flags::DOUBTFUL | Flags::EXECUTABLE_COMMENT);
        Self {
            clean: runs_others || scan.flags.intersects(Flags::USER_VARIABLE_READ | Flags::MULTI),
            insert_id: runs_others || scan.flags.intersects(Flags::LAST_INSERT_ID | Flags::MULTI),
            no_warnings: runs_others || scan.flags.intersects(Flags::DIAGNOSTICS | Flags::MULTI),
            plain: false,
        }
    }
}

impl Session {
    /// Whether the session gives its connections back.
    pub(super) fn is_shared(&self) -> bool {
        self.group.config.pool.is_some() && self.is_several()
    }

    /// Why the session keeps its connection, and which one.
    fn keeps(&self) -> Option<(Role, &'static str)> {
        if self.status.has(Status::IN_TRANSACTION) {
            return Some((Role::Writer, pins::TRANSACTION));
        }
        if let Some(reason) = self.pinned.or_else(|| self.statements.pin()) {
            return Some((Role::Writer, reason));
        }
        if self.state.once {
            return Some((Role::Writer, "next transaction's settings"));
        }
        if self.last.found {
            return Some((self.role, pins::FOUND_ROWS));
        }
        if self.last.warned {
            return Some((self.role, pins::WARNINGS));
        }
        (self.asks && self.last.asked).then_some((self.role, pins::ASKED_BEFORE))
    }

    /// Gives back the connections that nothing keeps.
    pub(super) async fn give_back(&mut self) {
        if !self.is_shared() {
            self.note_kept(None);
            return;
        }
        let mut kept = self.keeps();
        if self.last.unsure && kept.is_none_or(|(role, _)| role != Role::Writer) {
            self.ask_status().await;
            kept = self.keeps();
        }
        self.note_kept(kept.map(|(_, reason)| reason));
        for role in [Role::Writer, Role::Replica] {
            if kept.is_some_and(|(kept, _)| kept == role) || self.links[role as usize].is_none() {
                continue;
            }
            if role == Role::Writer && self.last.inserted && !self.fetch_insert_id().await {
                continue;
            }
            self.release(role).await;
        }
        if kept.is_none() {
            self.last = Last { forgotten: self.last.forgotten, ..Last::default() };
        }
    }

    /// Counts again what keeps a connection, for a session that came from another process.
    pub(super) fn recall_kept(&mut self) {
        let kept = self.keeps().filter(|_| self.is_shared());
        self.note_kept(kept.map(|(_, reason)| reason));
    }

    pub(super) fn note_kept(&mut self, reason: Option<&'static str>) {
        self.group.pins.change(std::mem::replace(&mut self.kept, reason), reason);
    }

    pub(super) async fn release(&mut self, role: Role) {
        let Some(mut link) = self.links[role as usize].take() else { return };
        if !self.seat.leave(role) {
            // A kill that is on its way would hit whoever has it next, and finds it until it has been carried out.
            let seat = self.seat.clone();
            tokio::spawn(async move {
                seat.quiet().await;
                drop(link);
            });
            return;
        }
        let Some(pooled) = &mut link.pooled else { return };
        if std::mem::take(&mut pooled.doubtful) {
            link.owner = 0;
            link.said = None;
        }
        let Some(pool) = self.group.pool_at(&link.backend().address).cloned() else { return };
        if pool.is_chaotic() && soil(&mut link).await.is_err() {
            return;
        }
        pool.give(self.thread, Box::new(link));
    }

    /// Gives back a connection that is kept only for questions about the last statement: this one is about something else,
    /// and elsewhere. Who waits for a replica while it has the writer would wait for one who waits the other way round.
    pub(super) async fn give_back_before(&mut self) {
        let about_last = self.kept.is_some_and(|reason| super::ABOUT_LAST.contains(&reason));
        if about_last && self.links[self.role as usize].is_none() {
            self.last = Last { inserted: self.last.inserted, unsure: self.last.unsure, ..Last::default() };
            self.give_back().await;
        }
    }

    /// Asks whether a transaction is open; one whose connection is lost has none.
    async fn ask_status(&mut self) {
        self.last.unsure = false;
        let Some(link) = &mut self.links[Role::Writer as usize] else { return };
        let asking = async {
            link.send(Command::Ping, &[]).await?;
            link.settled(Command::Ping).await
        };
        let asked = tokio::time::timeout(OWN_QUESTION_MAX, asking).await;
        let status = match asked {
            Ok(Ok(Some(status))) => status,
            _ => {
                self.links[Role::Writer as usize] = None;
                self.seat.leave(Role::Writer);
                Status::AUTOCOMMIT
            }
        };
        count_transaction(&self.shared, self.status, status);
        self.status = status;
    }

    /// Lets go of connections on which something may be open: they are closed.
    pub(super) fn drop_links(&mut self) {
        for role in [Role::Writer, Role::Replica] {
            self.links[role as usize] = None;
            self.seat.leave(role);
        }
    }

    /// Asks what `LAST_INSERT_ID()` is, before the connection is somebody else's; `false` where it is lost.
    async fn fetch_insert_id(&mut self) -> bool {
        self.last.inserted = false;
        let Some(link) = &mut self.links[Role::Writer as usize] else { return true };
        let Some(before) = link.pooled.as_ref().map(|pooled| pooled.insert_id) else { return true };
        // The answer is the number before; then no insert's stands there.
        let question = format!("select last_insert_id(), last_insert_id({NO_INSERT_ID})");
        let asked = tokio::time::timeout(OWN_QUESTION_MAX, link.ask(&question)).await;
        let number = asked.ok().and_then(Result::ok).and_then(|table| table.only()?.parse::<u64>().ok());
        let Some(number) = number else {
            self.links[Role::Writer as usize] = None;
            self.seat.leave(Role::Writer);
            return false;
        };
        let begins = self.group.config.kind == GroupKind::Tidb && !self.status.has(Status::AUTOCOMMIT);
        if begins && link.run(&[(Command::Query, b"rollback".to_vec())]).await.is_err() {
            // Without autocommit the question has begun a transaction there, and the next would see no more than it.
            self.links[Role::Writer as usize] = None;
            self.seat.leave(Role::Writer);
            return false;
        }
        // An insert of a number that the client gave changes nothing.
        if number != before {
            self.insert_id = number;
        }
        if let Some(pooled) = &mut link.pooled {
            pooled.insert_id = NO_INSERT_ID;
        }
        true
    }

    /// What a login of this session has in common with others.
    fn key(&mut self, account: &Account) -> Arc<Key> {
        let generation = self.group.generation;
        if let Some(key) = self.key.as_ref().filter(|key| key.generation == generation) {
            return key.clone();
        }
        let key = Arc::new(Key {
            user: account.user.clone(),
            password: account.password.clone(),
            capabilities: account.capabilities,
            collation: account.collation,
            generation,
        });
        if self.group.config.pool.is_some_and(|pool| pool.min_idle > 0) {
            self.group.recent.note(&key);
        }
        self.key = Some(key.clone());
        key
    }

    /// A connection to a server of `role`, free or new. It may have to be set up.
    pub(super) async fn borrow(&mut self, role: Role) -> Result<Link, SessionError> {
        // The attributes are the first client's, and others would go by its name.
        let mut account = Account { attributes: Vec::new(), ..self.account()? };
        account.capabilities = account.capabilities | super::track::wanted(&self.group, account.capabilities);
        let key = self.key(&account);
        let mut tried = Vec::new();
        let mut last = None;
        while let Some(backend) = self.group.pick(role, &tried) {
            if backend.role() != role {
                break;
            }
            match self.borrow_at(&backend, &account, &key).await {
                Ok(link) => return Ok(link),
                Err(error @ (SessionError::Busy { .. } | SessionError::Client(_))) => return Err(error),
                Err(error) => {
                    if matches!(error, SessionError::Backend { .. }) {
                        self.group.note_lost(&backend);
                        backend.failed(&crate::monitor::causes(&error), true);
                    }
                    tried.push(backend.address.clone());
                    last = Some(error);
                }
            }
        }
        let role = if role == Role::Writer { "writer" } else { "replica" };
        Err(last.unwrap_or_else(|| SessionError::NoBackend { group: self.group.name.clone(), role }))
    }

    async fn borrow_at(
        &mut self,
        backend: &Arc<Backend>,
        account: &Account,
        key: &Arc<Key>,
    ) -> Result<Link, SessionError> {
        let pool = self
            .group
            .pool_at(&backend.address)
            .cloned()
            .ok_or_else(|| SessionError::NoBackend { group: self.group.name.clone(), role: "server" })?;
        let taken = pool.take(self.thread, key, |link| self.fit(link, backend, &pool));
        let granted = match taken {
            Taken::Granted(granted) => granted,
            Taken::Wait(receiver) => match self.wait(receiver, pool.wait()).await? {
                Some(granted) => granted,
                None => return Err(busy(&pool, backend)),
            },
            Taken::Full => return Err(busy(&pool, backend)),
        };
        let place = match granted {
            Granted::Link(link) if self.fit(&link, backend, &pool) > Fit::Never => return Ok(*link),
            // One that cannot be made like this session gives its place to one that can.
            Granted::Link(mut link) => link
                .pooled
                .as_mut()
                .and_then(|pooled| pooled.place.take())
                .ok_or_else(|| busy(&pool, backend))?,
            Granted::Place(place) => place,
        };
        self.log_in_shared(backend, account, key, place).await
    }

    /// Waits for a connection, and for the client to leave.
    async fn wait(
        &mut self,
        receiver: tokio::sync::oneshot::Receiver<Granted>,
        max: Duration,
    ) -> Result<Option<Granted>, SessionError> {
        let mut receiver = pin!(receiver);
        let mut deadline = pin!(tokio::time::sleep(max));
        let client = &mut self.client;
        let mut listening = true;
        poll_fn(|cx| {
            if let Poll::Ready(granted) = receiver.as_mut().poll(cx) {
                return Poll::Ready(Ok(granted.ok()));
            }
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(None));
            }
            if listening && let Poll::Ready(closed) = client.poll_closed(cx) {
                if closed {
                    return Poll::Ready(Err(SessionError::Client(io::ErrorKind::UnexpectedEof.into())));
                }
                listening = false;
            }
            Poll::Pending
        })
        .await
    }

    async fn log_in_shared(
        &self,
        backend: &Arc<Backend>,
        account: &Account,
        key: &Arc<Key>,
        place: Place,
    ) -> Result<Link, SessionError> {
        let promised = self.identity.capabilities.without(Capabilities::CONNECT_WITH_DATABASE);
        log_in_shared(&self.group, backend, account, key, place, promised).await
    }

    /// How well a free connection suits this session.
    fn fit(&self, link: &Link, backend: &Arc<Backend>, pool: &Pool) -> Fit {
        if !Arc::ptr_eq(link.backend(), backend)
            || self.identity.database.is_empty() && !link.database.is_empty()
        {
            // No command takes a current database away.
            return Fit::Never;
        }
        if link.owner == self.state.owner() {
            return Fit::Own;
        }
        if self.is_like(link) {
            return Fit::Equal;
        }
        let can_reset = link.pooled.as_ref().is_some_and(|pooled| pooled.names.is_some())
            && !pool.no_reset.load(Ordering::Relaxed);
        if can_reset { Fit::Setup } else { Fit::Never }
    }

    /// Whether a connection that somebody else had needs no reset: what was said there begins what is to be said.
    fn is_like(&self, link: &Link) -> bool {
        link.is_bare == self.state.is_bare
            && link.said.as_ref().is_some_and(|said| {
                Arc::ptr_eq(said, self.state.kept()) || self.state.kept().starts_with(said)
            })
    }

    /// Makes the connection of a role what the session needs: its settings, and what the statement asks for. One that the
    /// session `held` since its last statement keeps what that one left.
    ///
    /// # Errors
    /// The server's, and those of the connection.
    pub(super) async fn set_up(&mut self, role: Role, need: Need, held: bool) -> Result<(), SessionError> {
        if !self.is_several() {
            return Ok(());
        }
        let tidb = self.group.config.kind == GroupKind::Tidb;
        let Some(link) = &self.links[role as usize] else {
            return Err(super::unsupported("a connection of nobody"));
        };
        let kept = self.state.kept().clone();
        let own = link.owner == self.state.owner();
        let touched = link.pooled.as_ref().is_some_and(|pooled| pooled.touched);
        let other_id = need.insert_id
            && !self.last.inserted
            && link.pooled.as_ref().is_some_and(|pooled| pooled.insert_id != self.insert_id);
        // TiDB takes no 0 for it.
        let restores = other_id && !(tidb && self.insert_id == 0);
        let unlike = !own && (!self.is_like(link) || need.clean && touched);
        let resets = !held && link.pooled.is_some() && (unlike || other_id && !restores);
        let said =
            link.said.as_ref().filter(|said| !resets && kept.starts_with(said)).map_or(0, |said| said.len());
        let names = link.pooled.as_ref().and_then(|pooled| pooled.names.clone());
        let other_database =
            !self.identity.database.is_empty() && (resets || link.database != self.identity.database);
        let mut batch = Vec::new();
        if resets {
            batch.push((Command::ResetConnection, Vec::new()));
            batch.extend(names.filter(|_| !self.state.is_bare).map(|names| (Command::Query, names)));
            let init = self.group.config.init.iter();
            batch.extend(init.map(|sql| (Command::Query, sql.clone().into_bytes())));
        }
        if other_database {
            batch.push((Command::InitDatabase, self.identity.database.clone()));
        }
        batch.extend(kept[said..].iter().map(|sql| (Command::Query, sql.clone())));
        if restores {
            batch.push((Command::Query, format!("select last_insert_id({})", self.insert_id).into_bytes()));
        }
        if need.no_warnings && !held && link.pooled.is_some() {
            // Reads no table, and counts as reading one, which is what empties MariaDB's list.
            batch.push((Command::Query, b"select 1 from (select 1) nothing".to_vec()));
        }
        let tracks = !resets && link.tracks;
        let should_track = self.should_track(role, need, held);
        if should_track != tracks {
            batch.push((Command::Query, super::track::said(should_track).to_vec()));
        }
        let rereads = resets || other_database || said < kept.len();
        self.run_batch(role, batch, rereads).await?;
        let (insert_id, is_bare) = (self.insert_id, self.state.is_bare);
        let Some(link) = &mut self.links[role as usize] else {
            return Err(super::unsupported("a connection of nobody"));
        };
        link.owner = self.state.owner();
        link.said = Some(kept);
        if !self.identity.database.is_empty() {
            link.database.clone_from(&self.identity.database);
        }
        link.tracks = should_track;
        if resets {
            link.is_bare = is_bare;
        }
        if let Some(pooled) = &mut link.pooled {
            if resets {
                pooled.touched = false;
                pooled.insert_id = 0;
            }
            if restores {
                pooled.insert_id = insert_id;
                // It goes from there again when the connection does.
                self.last.inserted = true;
            }
        }
        Ok(())
    }

    /// Carries out what sets a connection up; after an error nobody knows how it is.
    async fn run_batch(
        &mut self,
        role: Role,
        mut batch: Vec<(Command, Vec<u8>)>,
        rereads: bool,
    ) -> Result<(), SessionError> {
        let Some(link) = &mut self.links[role as usize] else { return Ok(()) };
        if rereads {
            // What was prepared there was read by other settings.
            let numbers = link.known.clear();
            let close = |number: &u32| (Command::CloseStatement, number.to_le_bytes().to_vec());
            batch.splice(0..0, numbers.iter().map(close));
        }
        if batch.is_empty() {
            return Ok(());
        }
        link.owner = 0;
        link.said = None;
        let Err((command, error)) = link.run(&batch).await else { return Ok(()) };
        if command == Command::ResetConnection
            && matches!(error, SessionError::Server { .. })
            && let Some(pool) = self.group.pool_at(&link.backend().address)
        {
            pool.no_reset.store(true, Ordering::Relaxed);
            return Err(link.lost(io::Error::new(io::ErrorKind::Unsupported, error)));
        }
        Err(error)
    }

    /// A question about the statement before whose connection is another's already: it is told once, and from then on the
    /// session keeps its connection from one statement to the next.
    pub(super) fn asks_too_late(&mut self, head: Head, scan: Option<&Scan>) -> Option<SessionError> {
        let asks = |flags| {
            scan.is_some_and(|scan| scan.flags.intersects(flags) && !scan.flags.intersects(Flags::MULTI))
        };
        let counts = asks(Flags::FOUND_ROWS | Flags::ROW_COUNT);
        if head.command == Command::Prepare || !self.is_shared() {
            return None;
        }
        self.asks |= counts;
        let too_late = counts || asks(Flags::DIAGNOSTICS) && self.last.forgotten;
        (too_late && self.links.iter().all(Option::is_none)).then(|| SessionError::Refused {
            number: 1235,
            state: *b"42000",
            reason: "tidemill: this asks about the statement before, whose connection is shared and was given back. From here \
                     on the session keeps it for a second after each statement that is asked for its rows: send both once more"
                .into(),
        })
    }
}

fn busy(pool: &Pool, backend: &Backend) -> SessionError {
    pool.gave_up();
    SessionError::Busy { address: backend.address.clone(), max: pool.max(), wait: pool.wait() }
}

/// Makes a connection that sessions share, of which clients are promised so much.
pub(crate) async fn log_in_shared(
    group: &Group,
    backend: &Arc<Backend>,
    account: &Account,
    key: &Arc<Key>,
    place: Place,
    promised: Capabilities,
) -> Result<Link, SessionError> {
    let mut link = link::login(group, backend, account).await?;
    if !link.capabilities.has(promised) {
        return Err(link::garbled(backend, "greeting of what the client was promised"));
    }
    let names = names(&mut link).await?;
    let mut pooled = Pooled::new(key.clone(), place, names);
    pooled.can_track = super::track::can_be_told(group, &mut link).await?;
    link.pooled = Some(pooled);
    Ok(link)
}

/// What says the character set of a fresh login again; `None` where a reset makes no fresh login: where its three parts
/// differ, or where the server runs something for each new client.
async fn names(link: &mut Link) -> Result<Option<Vec<u8>>, SessionError> {
    let question = "select @@character_set_client as client, @@character_set_results as results, \
                    @@collation_connection as collation, @@global.init_connect as init";
    let answer = match link.ask(question).await {
        // An account whose password has expired, say: its own statements are told so.
        Err(SessionError::Server { .. }) => return Ok(None),
        answer => answer?,
    };
    let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let (client, results) = (answer.first("client"), answer.first("results"));
    let names = client.filter(plain).zip(answer.first("collation").filter(plain));
    let as_it_was = client == results && answer.first("init").unwrap_or_default().trim().is_empty();
    Ok(names
        .filter(|_| as_it_was)
        .map(|(client, collation)| format!("set names {client} collate {collation}").into_bytes()))
}

/// Sets everything that a session can set to what nobody expects.
async fn soil(link: &mut Link) -> Result<(), SessionError> {
    let texts = [
        "set names latin1",
        "set @a = 'of another', @b = 'of another', @mine = 'of another', @x = 77",
        "set sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        "set time_zone = '-11:00'",
        "set autocommit = 0",
        "set session transaction isolation level read committed",
        "select last_insert_id(4242), cast('no number' as signed)",
    ];
    let mut batch = vec![(Command::InitDatabase, b"mysql".to_vec())];
    batch.extend(texts.map(|text| (Command::Query, text.as_bytes().to_vec())));
    if link.database.is_empty() {
        // It could not be taken away from whoever has none.
        batch.remove(0);
    } else {
        link.database = b"mysql".to_vec();
    }
    link.run(&batch).await.map_err(|(_, error)| error)?;
    link.owner = 0;
    link.said = None;
    if let Some(pooled) = &mut link.pooled {
        pooled.touched = true;
        pooled.insert_id = 4242;
    }
    Ok(())
}
