//! A part of a group's reads, asked again of another server, which nobody waits for: whether it answers the same, and how
//! fast.
//!
//! A session gives a copy of a read away once its client has the answer; where the queue is full it is shed. A thread of
//! its own asks the other server, on a few connections that are set up like the session was.

use crate::buffers::Counted;
use crate::compare::{self, Compared, Table};
use crate::config::{BackendTls, UserConfig};
use crate::error::{MeshError, SessionError};
use crate::link::Link;
use crate::lot;
use crate::prepared::Name;
use crate::target::{Setting, Target, ask};
use base::Span;
use mysql::protocol::{Capabilities, Command};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Reads that wait for one connection.
const QUEUE_MAX: usize = 256;
/// Connections of one mirror.
const CONNECTIONS_MAX: usize = 64;
/// A server that could not be reached is left alone for as long.
const REST: Duration = Duration::from_secs(1);

/// Codes of the commands.
const EXECUTE: u8 = 0x17;
const CLOSE: u8 = 0x19;

/// Where reads are asked again.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// The other server, `host:port`.
    pub to: String,
    /// Whom the mesh logs in as there; it needs no right but to read.
    pub account: UserConfig,
    /// Of a hundred reads so many, drawn by lot, from 1 to 100.
    #[serde(default = "share")]
    #[schemars(extend("default" = 10))]
    pub share: usize,
    /// An answer that takes longer is not waited for.
    #[serde(default = "timeout")]
    #[schemars(with = "String", extend("default" = "1s"))]
    pub timeout: Span,
    /// Connections to it, from 1 to 64.
    #[serde(default = "connections")]
    #[schemars(extend("default" = 4))]
    pub connections: usize,
    /// TLS to it; with `verify` the system's authorities are trusted.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub tls: BackendTls,
}

fn share() -> usize {
    10
}

fn timeout() -> Span {
    Span(Duration::from_secs(1))
}

fn connections() -> usize {
    4
}

impl MirrorConfig {
    /// What is wrong with it, each with what to do.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |message: &str, hint: &str| found.push((message.to_owned(), hint.to_owned()));
        let port = self.to.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            add("`mirror.to` is not `host:port`", "for example: to: 127.0.0.1:3307");
        }
        if !(1..=100).contains(&self.share) {
            add("`mirror.share` is not between 1 and 100", "share: 10");
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            add("`mirror.connections` is not between 1 and 64", "connections: 4");
        }
        if self.timeout.0 < Duration::from_millis(1) || self.timeout.0 > Duration::from_secs(60) {
            add("`mirror.timeout` is not between 1ms and 60s", "timeout: 1s");
        }
        found
    }
}

/// How a mirror fares, since it was configured.
#[derive(Clone, Debug, Serialize)]
pub struct MirrorStatus {
    pub group: String,
    pub to: String,
    /// Of a hundred reads.
    pub share: usize,
    pub compared: u64,
    pub differences: u64,
    /// Found their queue full.
    pub shed: u64,
    /// Took longer than `timeout`, or lost their connection.
    pub lost: u64,
    /// Found no connection.
    pub unreachable: u64,
    /// Executions whose statement or types the mesh does not know: its text is too long, or older than the mirror.
    pub unprepared: u64,
    /// The latest trouble of a connection.
    pub error: Option<String>,
    /// Statements, those that differ most first.
    pub statements: Vec<Compared>,
}

/// What was asked.
#[derive(Debug)]
pub enum Question {
    Text(Vec<u8>),
    /// Of a prepared statement.
    Execution {
        sql: Arc<[u8]>,
        parameters: u16,
        /// Behind the statement's number.
        rest: Vec<u8>,
    },
}

impl Question {
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(sql) => sql.len(),
            Self::Execution { sql, rest, .. } => sql.len() + rest.len(),
        }
    }

    fn sql(&self) -> &[u8] {
        match self {
            Self::Text(sql) => sql,
            Self::Execution { sql, .. } => sql,
        }
    }
}

/// A read that was answered.
#[derive(Debug)]
pub struct Read {
    pub question: Question,
    pub digest: u64,
    pub set: Set,
    pub before: compare::Answer,
    /// While it waits.
    pub counted: Counted,
}

/// How the session was set up that it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    pub capabilities: Capabilities,
    pub collation: u8,
    pub database: Vec<u8>,
    /// What was said since.
    pub said: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Tally {
    table: Mutex<Table>,
    compared: AtomicU64,
    differences: AtomicU64,
    shed: AtomicU64,
    lost: AtomicU64,
    unreachable: AtomicU64,
    unprepared: AtomicU64,
    error: Mutex<Option<String>>,
}

/// A mirror; its thread ends when nobody has it any more.
#[derive(Debug)]
pub struct Mirror {
    config: MirrorConfig,
    queues: Vec<mpsc::Sender<Read>>,
    tally: Arc<Tally>,
}

impl Mirror {
    /// # Errors
    /// When the system gives no thread, or its authorities cannot be read.
    pub fn start(config: &MirrorConfig) -> Result<Self, MeshError> {
        let account = &config.account;
        let target = Target::new(&config.to, &account.name, account.password.clone(), config.tls)?;
        let tally = Arc::new(Tally::default());
        let (queues, ears): (Vec<_>, Vec<_>) =
            (0..config.connections).map(|_| mpsc::channel(QUEUE_MAX)).unzip();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MeshError::Thread)?;
        let (counted, patience) = (tally.clone(), config.timeout.0);
        std::thread::Builder::new()
            .name("mesh-mirror".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let mut askers = tokio::task::JoinSet::new();
                    for queue in ears {
                        let asker = Asker {
                            target: target.clone(),
                            tally: counted.clone(),
                            patience,
                            link: None,
                            rests_until: None,
                        };
                        askers.spawn(asker.run(queue));
                    }
                    while askers.join_next().await.is_some() {}
                });
            })
            .map_err(MeshError::Thread)?;
        Ok(Self { config: config.clone(), queues, tally })
    }

    pub fn config(&self) -> &MirrorConfig {
        &self.config
    }

    /// Whether the next read is one of the share.
    pub fn draws(&self) -> bool {
        self.config.share >= 100 || lot::below(100) < self.config.share
    }

    /// Takes a read of a session. Never waits.
    pub fn give(&self, session: u32, read: Read) {
        let queue = usize::try_from(session).unwrap_or(0) % self.queues.len();
        if self.queues[queue].try_send(read).is_err() {
            self.tally.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An execution cannot be asked.
    pub fn miss(&self) {
        self.tally.unprepared.fetch_add(1, Ordering::Relaxed);
    }

    pub fn status(&self, group: &str) -> MirrorStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.tally;
        MirrorStatus {
            group: group.to_owned(),
            to: self.config.to.clone(),
            share: self.config.share,
            compared: count(&tally.compared),
            differences: count(&tally.differences),
            shed: count(&tally.shed),
            lost: count(&tally.lost),
            unreachable: count(&tally.unreachable),
            unprepared: count(&tally.unprepared),
            error: tally.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            statements: tally.table.lock().unwrap_or_else(PoisonError::into_inner).list(),
        }
    }
}

/// One connection.
struct Asker {
    target: Target,
    tally: Arc<Tally>,
    patience: Duration,
    link: Option<(Link, Set)>,
    rests_until: Option<Instant>,
}

impl Asker {
    async fn run(mut self, mut queue: mpsc::Receiver<Read>) {
        while let Some(read) = queue.recv().await {
            if self.rests_until.is_some_and(|until| Instant::now() < until) {
                self.tally.unreachable.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Err(error) = self.set_up(&read.set).await {
                self.trouble(&error);
                self.rests_until = Some(Instant::now() + REST);
                self.link = None;
                self.tally.unreachable.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.rests_until = None;
            let Some((link, _)) = &mut self.link else { continue };
            let asked = put(link, &read);
            match tokio::time::timeout(self.patience, asked).await {
                Ok(Ok(answer)) => {
                    self.tally.compared.fetch_add(1, Ordering::Relaxed);
                    let mut table = self.tally.table.lock().unwrap_or_else(PoisonError::into_inner);
                    if table.add(read.digest, read.question.sql(), read.before, answer, false).is_some() {
                        self.tally.differences.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Err(error)) => self.lose(&error.to_string()),
                // Its answer would come in the place of the next one's.
                Err(_) => self.lose("an answer took longer than `mirror.timeout`"),
            }
        }
    }

    fn lose(&mut self, what: &str) {
        self.link = None;
        self.trouble(what);
        self.tally.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn trouble(&self, what: &str) {
        *self.tally.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.to_owned());
    }

    /// Makes the connection be as the session was.
    async fn set_up(&mut self, set: &Set) -> Result<(), String> {
        if self.link.as_ref().is_some_and(|(_, is)| is == set) {
            return Ok(());
        }
        // Another database alone is no reason to log in again.
        if let Some((link, is)) = &mut self.link
            && !set.database.is_empty()
            && (Set { database: set.database.clone(), ..is.clone() }) == *set
        {
            let payload = [&[2][..], &set.database].concat();
            if let Ok(Ok(told)) =
                tokio::time::timeout(self.patience, ask(link, Command::InitDatabase, &payload, false)).await
                && told.answer.error == 0
            {
                is.database.clone_from(&set.database);
                return Ok(());
            }
        }
        self.link = None;
        let setting = Setting {
            capabilities: set.capabilities,
            collation: set.collation,
            database: set.database.clone(),
        };
        let link = self.target.log_in(&setting).await.map_err(|error| crate::monitor::causes(&error))?;
        let mut link = link;
        for sql in &set.said {
            let payload = query(&link, sql);
            let asked = ask(&mut link, Command::Query, &payload, false);
            let told: io::Result<_> = tokio::time::timeout(self.patience, asked)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let told = told.map_err(|error| error.to_string())?;
            if told.answer.error != 0 {
                return Err(format!("a setting of a session is error {} there", told.answer.error));
            }
        }
        self.link = Some((link, set.clone()));
        Ok(())
    }
}

/// Asks it; what the server answers. Only the execution of a prepared statement is timed.
async fn put(link: &mut Link, read: &Read) -> io::Result<compare::Answer> {
    let hash = read.before.hash.is_some();
    let (sql, parameters, rest) = match &read.question {
        Question::Text(sql) => {
            let payload = query(link, sql);
            return Ok(ask(link, Command::Query, &payload, hash).await?.answer);
        }
        Question::Execution { sql, parameters, rest } => (sql, *parameters, rest),
    };
    // A statement reads the tables of the database in which it was prepared.
    let name: Name = ([&read.set.database, &[0][..], sql].concat().into(), 0);
    let number = match link.known.get(&name) {
        Some(known) => known.number,
        None => match link.prepare(sql).await {
            Ok((number, count)) => {
                if count != parameters {
                    return Err(io::Error::other("the other server takes a statement for another one"));
                }
                if let Some(old) = link.known.put(name, number, Box::default()) {
                    let closing = [&[CLOSE][..], &old.to_le_bytes()].concat();
                    ask(link, Command::CloseStatement, &closing, false).await?;
                }
                number
            }
            Err(SessionError::Server { error, .. }) => {
                return Ok(compare::Answer { error: error.number, ..compare::Answer::default() });
            }
            Err(error) => return Err(io::Error::other(error)),
        },
    };
    let payload = [&[EXECUTE][..], &number.to_le_bytes(), rest].concat();
    Ok(ask(link, Command::Execute, &payload, hash).await?.answer)
}

fn query(link: &Link, sql: &[u8]) -> Vec<u8> {
    let front: &[u8] = if link.capabilities.has(Capabilities::QUERY_ATTRIBUTES) { &[3, 0, 1] } else { &[3] };
    [front, sql].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(to: &str) -> MirrorConfig {
        serde_json::from_value(serde_json::json!({"to": to, "account": {"name": "m"}, "connections": 1}))
            .unwrap()
    }

    #[test]
    fn what_finds_the_queue_full_is_shed_and_never_waited_for() {
        // A port that takes connections and says nothing.
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = Mirror::start(&config(&deaf.local_addr().unwrap().to_string())).unwrap();
        let set =
            Set { capabilities: Capabilities(0), collation: 45, database: Vec::new(), said: Vec::new() };
        let before = compare::Answer::default();
        for _ in 0..QUEUE_MAX + 10 {
            let read = Read {
                question: Question::Text(b"select 1".to_vec()),
                digest: 1,
                set: set.clone(),
                before,
                counted: Counted::spool(),
            };
            mirror.give(7, read);
        }
        // One may be in the thread's hands.
        assert!((9..=10).contains(&mirror.status("g").shed), "{:?}", mirror.status("g"));
    }

    #[test]
    fn a_share_is_drawn_by_lot() {
        let mut config = config("127.0.0.1:1");
        for (share, low, high) in [(100, 1000, 1000), (10, 50, 200)] {
            config.share = share;
            let mirror = Mirror::start(&config).unwrap();
            let drawn = (0..1000).filter(|_| mirror.draws()).count();
            assert!((low..=high).contains(&drawn), "{drawn} of 1000 at {share} %");
        }
        assert!(config.problems().is_empty());
        (config.share, config.to) = (0, "nowhere".into());
        assert_eq!(config.problems().len(), 2);
    }
}
