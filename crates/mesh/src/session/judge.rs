//! Rules at work: each command is judged before a server hears of it, and waits for its turn where it must.
//!
//! A session that no rule is about goes on at once. Commands that are no text are judged as the statement that does the same:
//! `COM_INIT_DB` as `USE`. What was prepared is judged when it is prepared and whenever it is executed. The newest rules hold
//! at once, within a transaction too.

use super::{Head, Need, Session};
use crate::config::Role;
use crate::error::SessionError;
use crate::rules::{Facts, Found, Limit, Refusal, Rules, Subject, TooMany, Turn, UNCERTAIN};
use jiff::Timestamp;
use mysql::protocol::{Command, HEADER_BYTES, error_packet};
use mysql::sql::{ClientCharset, Dialect, Flags, Kind, Modes, Scan, scan, whole_digest_text};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest statement that is seen whole, where rules are about its user; servers' dumps have statements of 1 MiB.
const SEEN_BYTES_MAX: usize = 2 << 20;
/// Prepared statements that a session remembers; a server holds as many for all of its clients.
const PREPARED_MAX: usize = 16_384;
/// The longest text of a prepared statement that is kept, to be judged by other rules than those of its time.
const PREPARED_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Of texts that move to another process with the session.
const PACKED_BYTES_MAX: usize = 512 << 10;
/// The number of the statement that was prepared last, for MariaDB.
const LAST_PREPARED: u32 = u32::MAX;
/// No connection has this number.
const ANYWHERE: u64 = 0;
/// How long a server has to end what it was told to end.
pub const ENDING_MAX: Duration = Duration::from_secs(5);
/// What refuses by a rule: "not allowed", which no driver takes for a lost connection or a wrong password.
const NOT_ALLOWED: (u16, &[u8; 5]) = (1148, b"42000");
/// What refuses by a limit: "has exceeded the resource".
const TOO_MUCH: (u16, &[u8; 5]) = (1226, b"42000");
/// What ends by a limit of time, as the server's own `max_execution_time` does.
const TOO_LONG: (u16, &[u8; 5]) = (3024, b"HY000");

/// A session's part of the rules.
#[derive(Debug, Default)]
pub struct Judge {
    /// Those of its group, where anything in them is about its user.
    rules: Option<Arc<Rules>>,
    /// Of the plan that they are of.
    version: Option<u64>,
    /// By the number that the client knows.
    prepared: HashMap<u32, Prepared>,
    last_prepared: Option<u32>,
    /// What the present command prepares.
    preparing: Option<Prepared>,
    /// Of the present command, so that it is looked at once.
    pub scan: Option<Scan>,
    /// The connection whose modes are known, or [`ANYWHERE`].
    modes_of: Option<u64>,
    no_backslash_escapes: bool,
    hold: Hold,
}

/// A statement that was prepared.
#[derive(Debug)]
struct Prepared {
    facts: Facts,
    /// `None` of a long one.
    text: Option<Box<str>>,
    /// The text as it came, for another process; `None` of a long one, and of one that hangs on modes.
    sql: Option<Box<[u8]>>,
    /// Of a long one, by the rules of that number.
    found: Option<(u64, Arc<Found>)>,
    /// Rows that were fetched since it was executed.
    fetched: u64,
}

/// What the present command holds, and is held to.
#[derive(Debug, Default)]
struct Hold {
    turns: Vec<Turn>,
    time: Option<Ends>,
    rows: Option<Ends>,
    /// The limit that ended it, and what the client is told.
    ended: Option<(Ends, Told)>,
    /// Rows of its answer.
    seen_rows: u64,
    /// The prepared statement that is executed or fetched from.
    number: Option<u32>,
}

/// Where a limit ends a command.
#[derive(Clone, Debug)]
struct Ends {
    limit: String,
    at: tokio::time::Instant,
    rows: u64,
    what: String,
}

/// An error for the client.
#[derive(Clone, Debug)]
struct Told {
    number: u16,
    state: &'static [u8; 5],
    message: String,
}

impl Told {
    fn refused(refusal: &Refusal) -> Self {
        let (number, state) = NOT_ALLOWED;
        let Refusal { rule, reason } = refusal;
        Self {
            number,
            state,
            message: format!("tidemill: the rule `{rule}` refuses this statement: {reason}"),
        }
    }
}

/// What is judged.
struct Seen {
    facts: Facts,
    text: String,
    found: Option<Arc<Found>>,
}

impl Judge {
    /// Nothing of what was prepared or set up is there any more.
    pub fn forget(&mut self) {
        self.prepared.clear();
        self.last_prepared = None;
        self.modes_of = None;
    }

    /// The session is another user's.
    pub fn renew(&mut self) {
        self.forget();
        self.version = None;
    }

    /// What another process has to know.
    pub fn pack(&self) -> Vec<(u32, Vec<u8>)> {
        let texts =
            self.prepared.iter().filter_map(|(number, prepared)| Some((*number, prepared.sql.as_ref()?)));
        let mut bytes = 0;
        let fitting = texts.take_while(|(_, sql)| {
            bytes += sql.len();
            bytes <= PACKED_BYTES_MAX
        });
        fitting.map(|(number, sql)| (number, sql.to_vec())).collect()
    }

    /// Takes what another process has known. A statement that is not among it is refused where rules are, until it is
    /// prepared again.
    pub fn unpack(&mut self, prepared: Vec<(u32, Vec<u8>)>, modes: Modes) {
        for (number, sql) in prepared.into_iter().take(PREPARED_MAX) {
            let (scan, text) = read(&sql, modes);
            let prepared = Prepared {
                facts: Facts::of(&scan),
                text: Some(text.into()),
                sql: Some(sql.into()),
                found: None,
                fetched: 0,
            };
            self.prepared.insert(number, prepared);
        }
    }

    /// The server has prepared the present statement under this number.
    pub fn note_prepared(&mut self, number: u32) {
        self.last_prepared = Some(number);
        match self.preparing.take() {
            Some(prepared) if self.prepared.len() < PREPARED_MAX => {
                self.prepared.insert(number, prepared);
            }
            // An older one of this number is no more.
            _ => {
                self.prepared.remove(&number);
            }
        }
    }

    /// Rows that the answer to the present command may have.
    pub fn rows_max(&self) -> u64 {
        self.hold.rows.as_ref().map_or(u64::MAX, |ends| ends.rows)
    }

    /// When the present command is ended.
    pub fn deadline(&self) -> Option<tokio::time::Instant> {
        self.hold.time.as_ref().map(|ends| ends.at)
    }

    pub fn note_rows(&mut self, rows: u64) {
        self.hold.seen_rows = rows;
    }

    /// Ends the present command by its limit of rows, or else of time; it is told so by [`Judge::last_words`].
    pub fn end(&mut self, by_rows: bool) {
        if self.has_ended() {
            return;
        }
        let (ends, (number, state)) =
            if by_rows { (&self.hold.rows, TOO_MUCH) } else { (&self.hold.time, TOO_LONG) };
        let Some(ends) = ends else { return };
        let message = format!("tidemill: the limit `{}` ends this statement: {}", ends.limit, ends.what);
        self.hold.ended = Some((ends.clone(), Told { number, state, message }));
        if let Some(ends) = &mut self.hold.time {
            ends.at = tokio::time::Instant::now() + ENDING_MAX;
        }
    }

    pub fn has_ended(&self) -> bool {
        self.hold.ended.is_some()
    }

    /// What a client is told whose command a limit has ended.
    pub fn last_words(&self, sequence: u8) -> Option<Vec<u8>> {
        let (_, told) = self.hold.ended.as_ref()?;
        Some(error_packet(sequence, told.number, told.state, &told.message))
    }
}

impl Session {
    /// One command: judged, in its turn, and answered.
    pub(super) async fn judged(&mut self, head: Head) -> Result<(), SessionError> {
        self.look_for_rules();
        self.judge.scan = None;
        self.judge.preparing = None;
        if self.trouble.is_some() {
            return self.one(head).await;
        }
        if head.command == Command::Query
            && let Some(packets) = self.told_route(head)
        {
            self.swallow(head).await?;
            return self.client.write_all(&packets).await.map_err(SessionError::Client);
        }
        match head.command {
            Command::CloseStatement => {
                if let Some(number) = self.number(head) {
                    self.judge.prepared.remove(&number);
                }
                return self.one(head).await;
            }
            Command::ResetConnection => {
                let done = self.one(head).await;
                self.judge.forget();
                return done;
            }
            _ => {}
        }
        let Some(rules) = self.judge.rules.clone() else {
            // Nobody looks at what it sets meanwhile.
            self.judge.modes_of = None;
            if head.command == Command::Prepare && (self.shared.digests.is_some() || self.is_several()) {
                self.remember(head);
            }
            return self.one(head).await;
        };
        if self.needs_modes(head)
            && let Err(error) = self.know_modes().await
        {
            return self.refuse(head, &error).await;
        }
        let Some(seen) = self.see(head) else { return self.one(head).await };
        let user = self.identity.user.clone();
        let subject = Subject { user: &user, facts: &seen.facts, text: &seen.text, now: Timestamp::now() };
        let found = seen.found.clone().unwrap_or_else(|| rules.find(self.thread, &seen.facts, &seen.text));
        let is_fetch = head.command == Command::Fetch;
        if !is_fetch && let Err(refusal) = rules.judge(subject, &found) {
            return self.turn_away(head, &Told::refused(&refusal)).await;
        }
        let limits: Vec<&Limit> = rules.limits(subject, &found).collect();
        let runs = !is_fetch && head.command != Command::Prepare;
        // What gives back is never held back.
        let gives_back = matches!(seen.facts.kind, Kind::Commit | Kind::Rollback);
        if runs
            && !gives_back
            && let Err(told) = self.take_turns(&rules, &limits, subject).await
        {
            return self.turn_away(head, &told).await;
        }
        if head.command == Command::Prepare {
            let sql = self.text(head).and_then(portable);
            self.judge.preparing = Some(Prepared::new(&seen, sql, rules.id, &found));
        } else if !limits.is_empty() {
            self.hold_to(head, &limits);
        }
        let began = Instant::now();
        let done = self.one(head).await;
        let hold = std::mem::take(&mut self.judge.hold);
        if let Some(prepared) = hold.number.and_then(|number| self.judge.prepared.get_mut(&number)) {
            prepared.fetched = if is_fetch { prepared.fetched.saturating_add(hold.seen_rows) } else { 0 };
        }
        for limit in limits {
            if let Some((ends, _)) = &hold.ended {
                if ends.limit == limit.name() {
                    rules.over(limit, &ends.what, subject);
                }
            } else if limit.observes()
                && runs
                && let Some(reason) = over(limit, began.elapsed(), hold.seen_rows)
            {
                rules.over(limit, &reason, subject);
            }
        }
        let may_set = matches!(seen.facts.kind, Kind::Set | Kind::Call | Kind::Unknown | Kind::Execute)
            || seen.facts.doubt.is_some()
            || seen.facts.flags.intersects(Flags::UNKNOWN_FUNCTION | Flags::SYSTEM_VARIABLE);
        if may_set {
            self.judge.modes_of = None;
        }
        done
    }

    /// Whether a command may begin after which nothing can be read; otherwise the client has been told.
    pub(super) async fn may_stream(&mut self, head: Head) -> Result<bool, SessionError> {
        self.look_for_rules();
        let Some(rules) = self.judge.rules.clone() else { return Ok(true) };
        let user = self.identity.user.clone();
        let facts = Facts::unseen("it begins a stream that is not looked into");
        let subject = Subject { user: &user, facts: &facts, text: "", now: Timestamp::now() };
        let found = rules.find(self.thread, &facts, "");
        let mut judged = rules.judge(subject, &found);
        if judged.is_ok()
            && let Some(limit) = rules.limits(subject, &found).find(|limit| !limit.observes())
        {
            let reason = "it begins a stream, in which nothing can be limited".to_owned();
            rules.over(limit, &reason, subject);
            judged = Err(Refusal { rule: limit.name().to_owned(), reason });
        }
        let Err(refusal) = judged else { return Ok(true) };
        self.turn_away(head, &Told::refused(&refusal)).await?;
        Ok(false)
    }

    /// Whether a long command has to be held whole, so that it can be judged.
    pub(super) fn wants_whole(&mut self, command: Command, payload: usize) -> bool {
        if !matches!(command, Command::Query | Command::Prepare) || payload > SEEN_BYTES_MAX {
            return false;
        }
        self.look_for_rules();
        self.judge.rules.is_some() && self.shared.has_memory_for(payload)
    }

    /// Takes the newest rules, also within a transaction.
    fn look_for_rules(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if self.judge.version == Some(version) {
            return;
        }
        self.judge.version = Some(version);
        let plan = self.shared.plan.load();
        // Those of a group that is gone hold to the end.
        if let Some(group) = plan.group(&self.group.name) {
            self.judge.rules = group.rules.clone().filter(|rules| rules.concern(&self.identity.user));
        }
    }

    /// What is judged of a command; `None` where it touches nothing.
    fn see(&mut self, head: Head) -> Option<Seen> {
        let unseen = |doubt| Some(Seen { facts: Facts::unseen(doubt), text: String::new(), found: None });
        match head.command {
            Command::Ping
            | Command::Statistics
            | Command::ResetConnection
            | Command::SetOption
            | Command::LongData
            | Command::ResetStatement
            | Command::CloseStatement => None,
            Command::Query | Command::Prepare => match self.text(head) {
                Some(sql) if self.judge.modes_of.is_none() && hangs_on_modes(sql) => {
                    unseen("the modes of its session are not known")
                }
                Some(sql) => {
                    let modes = self.strict_modes();
                    let (scan, text) = read(sql, modes);
                    let mut facts = Facts::of(&scan);
                    if !is_sure_of_text(sql, modes) {
                        facts.doubt = facts.doubt.or(Some(UNCERTAIN));
                    }
                    self.judge.scan = Some(scan);
                    Some(Seen { facts, text, found: None })
                }
                None if head.payload > SEEN_BYTES_MAX => unseen("it is longer than 2 MiB"),
                None => unseen("it cannot be held whole, or its attributes cannot be read"),
            },
            Command::Execute | Command::BulkExecute | Command::Fetch => {
                let number = match self.number(head) {
                    Some(LAST_PREPARED) => self.judge.last_prepared,
                    number => number,
                };
                let known = number.and_then(|number| Some((number, self.judge.prepared.get(&number)?)));
                let Some((number, prepared)) = known else {
                    return unseen("it was prepared out of sight: prepare it again");
                };
                self.judge.hold.number = Some(number);
                let id = self.judge.rules.as_ref().map(|rules| rules.id);
                let found =
                    prepared.found.as_ref().filter(|(of, _)| Some(*of) == id).map(|(_, found)| found.clone());
                match &prepared.text {
                    None if found.is_none() => {
                        unseen("it is long, and the rules are others now: prepare it again")
                    }
                    text => Some(Seen {
                        facts: prepared.facts,
                        text: text.as_deref().unwrap_or_default().to_owned(),
                        found,
                    }),
                }
            }
            Command::InitDatabase => Some(Seen::of(&format!("USE {}", self.quoted(head)))),
            Command::FieldList => Some(Seen::of(&format!("SHOW COLUMNS FROM {}", self.quoted(head)))),
            Command::ProcessKill => Some(Seen::of("KILL 1")),
            Command::ProcessInfo => Some(Seen::of("SHOW PROCESSLIST")),
            _ => unseen("its command is not known"),
        }
    }

    /// The name that is a command's argument, in backticks.
    fn quoted(&self, head: Head) -> String {
        let bytes = self.client.held().get(HEADER_BYTES + 1..).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(head.payload.saturating_sub(1))];
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        format!("`{}`", String::from_utf8_lossy(name).replace('`', "``"))
    }

    /// Remembers what is prepared before any rule asks for it.
    fn remember(&mut self, head: Head) {
        let Some(sql) = self.text(head) else { return };
        let (scan, text) = read(sql, self.modes());
        let facts = if hangs_on_modes(sql) {
            Facts::unseen("it was prepared before the rules were there: prepare it again")
        } else {
            Facts::of(&scan)
        };
        if text.len() <= PREPARED_TEXT_BYTES_MAX {
            let sql = portable(sql);
            self.judge.preparing =
                Some(Prepared { facts, text: Some(text.into()), sql, found: None, fetched: 0 });
        }
        self.judge.scan = Some(scan);
    }

    /// Whether how the statement is read hangs on what only the server knows for sure.
    fn needs_modes(&self, head: Head) -> bool {
        if !matches!(head.command, Command::Query | Command::Prepare) {
            return false;
        }
        let known = self.judge.modes_of.is_some() && self.judge.modes_of == self.modes_place();
        !known && self.text(head).is_some_and(hangs_on_modes)
    }

    /// Where the session's modes live: on its connection, or, where all that it has set can be said again, on any.
    fn modes_place(&self) -> Option<u64> {
        if self.is_several() && self.pinned.is_none() {
            return Some(ANYWHERE);
        }
        self.links[Role::Writer as usize].as_ref().map(|link| link.serial)
    }

    /// Asks the server for the session's SQL mode and character set: nobody else knows what its configuration, or a `SET`
    /// of an expression, made of them.
    async fn know_modes(&mut self) -> Result<(), SessionError> {
        let last = std::mem::replace(&mut self.role, Role::Writer);
        self.judge.modes_of = None;
        let asked = Box::pin(self.ask_modes()).await;
        self.role = last;
        match asked {
            // It says no, so nothing is known.
            Err(SessionError::Server { .. }) => Ok(()),
            other => other,
        }
    }

    async fn ask_modes(&mut self) -> Result<(), SessionError> {
        self.connect(Need::default()).await?;
        let Some(link) = &mut self.links[Role::Writer as usize] else { return Ok(()) };
        let answer = match link.ask("select @@sql_mode as m, @@character_set_client as c").await {
            Err(error @ SessionError::Backend { .. }) => {
                self.links[Role::Writer as usize] = None;
                return Err(error);
            }
            answer => answer?,
        };
        let (Some(mode), Some(charset)) = (answer.first("m"), answer.first("c")) else { return Ok(()) };
        let has = |name: &str| mode.split(',').any(|known| known.eq_ignore_ascii_case(name));
        self.judge.no_backslash_escapes = has("NO_BACKSLASH_ESCAPES");
        self.state.ansi_quotes = has("ANSI_QUOTES");
        self.state.charset = Some(ClientCharset::by_name(charset));
        self.judge.modes_of = self.modes_place();
        Ok(())
    }

    /// The rules that hold for the session.
    pub(super) fn rules(&self) -> Option<&Rules> {
        self.judge.rules.as_deref()
    }

    /// How statements are read, by all that is known.
    pub(super) fn strict_modes(&self) -> Modes {
        let modes = self.modes();
        let known = self.judge.modes_of.is_some() && self.judge.no_backslash_escapes;
        Modes { no_backslash_escapes: modes.no_backslash_escapes || known, ..modes }
    }

    /// Waits for the command's turn by every limit that counts.
    async fn take_turns(
        &mut self,
        rules: &Rules,
        limits: &[&Limit],
        subject: Subject<'_>,
    ) -> Result<(), Told> {
        for limit in limits.iter().filter(|limit| limit.counting.counts()) {
            match limit.counting.enter(subject.user, subject.facts.digest, !limit.observes()).await {
                Ok(turn) => self.judge.hold.turns.extend(turn),
                Err(too_many) => {
                    let reason = match too_many {
                        TooMany::AtOnce { running, waited } if waited.is_zero() => {
                            format!("{running} statements are running")
                        }
                        TooMany::AtOnce { running, waited } => {
                            format!(
                                "{running} statements are running, and none ended in {} ms",
                                waited.as_millis()
                            )
                        }
                        TooMany::InTime => "too many came in this time".to_owned(),
                    };
                    rules.over(limit, &reason, subject);
                    if limit.observes() {
                        continue;
                    }
                    self.judge.hold = Hold::default();
                    let (number, state) = TOO_MUCH;
                    let name = limit.name();
                    let message = format!("tidemill: the limit `{name}` refuses this statement: {reason}");
                    return Err(Told { number, state, message });
                }
            }
        }
        Ok(())
    }

    /// Holds the command to the shortest time and the fewest rows.
    fn hold_to(&mut self, head: Head, limits: &[&Limit]) {
        let now = tokio::time::Instant::now();
        let fetched = match self.judge.hold.number {
            Some(number) if head.command == Command::Fetch => {
                self.judge.prepared.get(&number).map_or(0, |prepared| prepared.fetched)
            }
            _ => 0,
        };
        for limit in limits.iter().filter(|limit| !limit.observes()) {
            let config = &limit.counting.config;
            if let Some(span) = config.max_execution_time {
                let at = now + span.0;
                if self.judge.hold.time.as_ref().is_none_or(|known| at < known.at) {
                    let what = format!("it ran longer than {span}");
                    self.judge.hold.time =
                        Some(Ends { limit: limit.name().to_owned(), at, rows: u64::MAX, what });
                }
            }
            if let Some(max) = config.max_result_rows {
                let rows = max.saturating_sub(fetched);
                if self.judge.hold.rows.as_ref().is_none_or(|known| rows < known.rows) {
                    let what = format!("its answer has more rows than {max}");
                    self.judge.hold.rows = Some(Ends { limit: limit.name().to_owned(), at: now, rows, what });
                }
            }
        }
    }

    /// Tells the client that its command is refused; the session goes on.
    async fn turn_away(&mut self, head: Head, told: &Told) -> Result<(), SessionError> {
        self.judge.hold = Hold::default();
        let sequence = self.swallow(head).await?;
        if head.command.is_silent() {
            return Ok(());
        }
        if head.command == Command::Prepare {
            self.judge.last_prepared = None;
        }
        let packet = error_packet(sequence, told.number, told.state, &told.message);
        self.client.write_all(&packet).await.map_err(SessionError::Client)
    }
}

impl Seen {
    /// A statement that a command stands for.
    fn of(sql: &str) -> Self {
        let (scan, text) = read(sql.as_bytes(), Modes::default());
        Self { facts: Facts::of(&scan), text, found: None }
    }
}

impl Prepared {
    fn new(seen: &Seen, sql: Option<Box<[u8]>>, rules: u64, found: &Arc<Found>) -> Self {
        let is_long = seen.text.len() > PREPARED_TEXT_BYTES_MAX;
        Self {
            facts: seen.facts,
            text: (!is_long).then(|| seen.text.as_str().into()),
            sql,
            found: is_long.then(|| (rules, found.clone())),
            fetched: 0,
        }
    }
}

/// A statement's scan, and its whole text without literals.
pub(super) fn read(sql: &[u8], modes: Modes) -> (Scan, String) {
    let mut text = String::new();
    whole_digest_text(sql, &mut text, modes);
    (scan(sql, modes), text)
}

/// The text of a statement that any process reads alike.
fn portable(sql: &[u8]) -> Option<Box<[u8]>> {
    (sql.len() <= PREPARED_TEXT_BYTES_MAX && !hangs_on_modes(sql)).then(|| sql.into())
}

/// Whether quotes, backslashes or a character set could make it another statement.
fn hangs_on_modes(sql: &[u8]) -> bool {
    sql.iter().any(|byte| matches!(byte, b'"' | b'\\' | 0x80..))
}

/// Whether a statement's text without literals shows its names: TiDB's is made without regard to modes.
fn is_sure_of_text(sql: &[u8], modes: Modes) -> bool {
    let is_usual = !modes.ansi_quotes && !modes.no_backslash_escapes && modes.charset == ClientCharset::Utf8;
    modes.dialect != Dialect::TiDb || is_usual || !hangs_on_modes(sql)
}

/// Why a limit that observes would have ended a command.
fn over(limit: &Limit, elapsed: Duration, rows: u64) -> Option<String> {
    let config = &limit.counting.config;
    if let Some(span) = config.max_execution_time.filter(|span| elapsed > span.0) {
        return Some(format!("it ran longer than {span}"));
    }
    config.max_result_rows.filter(|max| rows > *max).map(|max| format!("its answer has more rows than {max}"))
}
