//! Reads after writes, judged afterwards: clients write and read at random through a group whose replica lags, all that they
//! saw is kept, and a checker looks for a read that was older than it may have been.
//!
//! A write makes a key's version one more, under the row's lock, and learns which it made; so versions of a key are in the
//! order of their commits, and a read is too old exactly if its version is less than one that it had to see.

use crate::split::Pair;
use crate::support::{Front, until};
use anyhow::{Context, Result};
use mesh::Role;
use serde_json::{Value, json};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts};
use testkit::{MariaDb, MariaDbOptions, MySql, SqlServer};

const CLIENTS: usize = 5;
const KEYS: usize = 3;
/// What each client does in one run.
const STEPS: usize = 150;

/// What a client did with a key. `began` and `ended` are moments of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    client: usize,
    key: usize,
    version: u64,
    began: u64,
    ended: u64,
    did: Did,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    /// Acknowledged at `ended`.
    Write(How),
    Read {
        on_replica: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    Prepared,
    Several,
    Commit,
    /// The next transaction begins, which ends the one before.
    Begin,
    /// `autocommit` is switched on again.
    Autocommit,
}

/// What a read had to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// What its own session had written before.
    Own,
    /// What any session had written before, and was told so.
    Everyones,
    /// What its own session had read before: of one replica and the writer, as here, that follows from the others.
    Monotonic,
}

#[derive(Debug)]
struct Violation {
    read: Event,
    older_than: Event,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is older than {:?}", self.read, self.older_than)
    }
}

/// The reads that were older than `promise` allows, each with the newest event that it had to see.
fn violations(history: &[Event], promise: Promise) -> Vec<Violation> {
    let binds = |seen: &Event, read: &Event| {
        let is_write = matches!(seen.did, Did::Write(_));
        seen.key == read.key
            && seen.ended < read.began
            && match promise {
                Promise::Own => is_write && seen.client == read.client,
                Promise::Everyones => is_write,
                Promise::Monotonic => !is_write && seen.client == read.client,
            }
    };
    let reads = history.iter().filter(|event| matches!(event.did, Did::Read { .. }));
    reads
        .filter_map(|read| {
            let newest = history.iter().filter(|seen| binds(seen, read)).max_by_key(|seen| seen.version)?;
            (newest.version > read.version).then_some(Violation { read: *read, older_than: *newest })
        })
        .collect()
}

#[test]
fn the_checker_finds_what_is_too_old_and_nothing_else() {
    let event = |client, version, began, did| Event { client, key: 0, version, began, ended: began + 1, did };
    let (write, read) = (Did::Write(How::Plain), Did::Read { on_replica: true });
    let count = |history: &[Event]| {
        [Promise::Own, Promise::Everyones, Promise::Monotonic]
            .map(|promise| violations(history, promise).len())
    };
    let mine = event(1, 1, 0, write);
    assert_eq!(count(&[mine, event(1, 1, 2, read)]), [0, 0, 0]);
    assert_eq!(count(&[mine, event(1, 0, 2, read)]), [1, 1, 0]);
    // Another's write binds it only where that was promised, and only once it was acknowledged.
    assert_eq!(count(&[mine, event(2, 0, 2, read)]), [0, 1, 0]);
    assert_eq!(count(&[mine, event(2, 0, 1, read)]), [0, 0, 0]);
    assert_eq!(count(&[mine, Event { key: 1, ..event(1, 0, 2, read) }]), [0, 0, 0]);
    assert_eq!(count(&[event(1, 5, 0, read), event(1, 4, 2, read)]), [0, 0, 1]);
    assert_eq!(count(&[event(1, 5, 0, read), event(2, 4, 2, read)]), [0, 0, 0]);
}

/// Numbers that are the same in every run with a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

/// What all clients share.
#[derive(Default)]
struct Run {
    clock: AtomicU64,
    history: Mutex<Vec<Event>>,
}

impl Run {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn keep(&self, event: Event) {
        self.history.lock().expect("nobody panics with it").push(event);
    }
}

struct Client {
    number: usize,
    conn: Conn,
    dice: Dice,
    run: Arc<Run>,
}

const WRITE: &str = "update shop.version set version = last_insert_id(version + 1) where id =";
/// The row of each key, and which server answers.
const READ: &str = "select id, version, (select name from shop.place) from shop.version where id";

impl Client {
    async fn steps(mut self) -> Result<()> {
        for _ in 0..STEPS {
            match self.dice.roll(10) {
                0..4 => self.write().await?,
                // Now and then a session that has no past.
                4 if self.dice.roll(3) == 0 => self.conn.reset().await.map(|_| ())?,
                _ => self.read().await?,
            }
        }
        Ok(self.conn.disconnect().await?)
    }

    async fn write(&mut self) -> Result<()> {
        let key = self.dice.roll(KEYS);
        let began = self.run.now();
        let how = [How::Plain, How::Prepared, How::Several, How::Commit, How::Begin, How::Autocommit]
            [self.dice.roll(6)];
        let conn = &mut self.conn;
        let made = match how {
            How::Plain => {
                conn.query_drop(format!("{WRITE} {key}")).await?;
                conn.last_insert_id()
            }
            How::Prepared => {
                conn.exec_drop(format!("{WRITE} ?"), (key,)).await?;
                conn.last_insert_id()
            }
            How::Several => {
                let mut answers = conn.query_iter(format!("{WRITE} {key}; select last_insert_id()")).await?;
                answers.collect::<u64>().await?;
                let made: Vec<u64> = answers.collect_and_drop().await?;
                made.first().copied()
            }
            How::Commit | How::Begin | How::Autocommit => {
                let opens = if how == How::Autocommit { "set autocommit = 0" } else { "begin" };
                conn.query_drop(opens).await?;
                conn.query_drop(format!("{WRITE} {key}")).await?;
                let made = conn.last_insert_id();
                // A read inside: at the writer, and no reason to think that the write is done with.
                let inside: Option<u64> =
                    conn.query_first(format!("select version from shop.version where id = {key}")).await?;
                assert_eq!(inside, made, "a transaction sees its own write");
                if self.dice.roll(4) == 0 {
                    conn.query_drop("rollback").await?;
                    return Ok(conn.query_drop("set autocommit = 1").await?);
                }
                let ends = match how {
                    How::Commit => "commit",
                    How::Begin => "begin",
                    _ => "set autocommit = 1",
                };
                conn.query_drop(ends).await?;
                made
            }
        };
        let (client, version) = (self.number, made.context("the version that was made")?);
        let ended = self.run.now();
        self.run.keep(Event { client, key, version, began, ended, did: Did::Write(how) });
        if how == How::Begin {
            // The others may read while this transaction, of which nothing is to be seen, is open.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            self.conn.query_drop("rollback").await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        let began = self.run.now();
        let rows: Vec<(usize, u64, String)> = if self.dice.roll(2) == 0 {
            self.conn.query(format!("{READ} < {KEYS}")).await?
        } else {
            self.conn.exec(format!("{READ} < ?"), (KEYS,)).await?
        };
        let ended = self.run.now();
        assert_eq!(rows.len(), KEYS);
        for (key, version, place) in rows {
            let did = Did::Read { on_replica: place == "replica" };
            self.run.keep(Event { client: self.number, key, version, began, ended, did });
        }
        Ok(())
    }
}

/// The replica's applier stands still and goes on by turns, for as long as clients write.
async fn lag(replica: &SqlServer, stop: &str, start: &str, run: &Run, wanted: &AtomicBool) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let (mut stands, mut next) = (false, 20);
    while wanted.load(Ordering::Relaxed) {
        tick.tick().await;
        if run.clock.load(Ordering::Relaxed) >= next {
            stands = !stands;
            replica.exec(if stands { stop } else { start }).await?;
            next += if stands { 12 } else { 150 };
        }
    }
    replica.exec(start).await
}

const TABLE: &str = "create table shop.version (id int primary key, version bigint unsigned not null); \
                     insert into shop.version values (0, 0), (1, 0), (2, 0)";

/// One run of all clients; every key has grown by as much as was written.
async fn history(front: &Front, replica: &SqlServer, applier: [&str; 2], seed: u64) -> Result<Vec<Event>> {
    let run = Arc::new(Run::default());
    let wanted = AtomicBool::new(true);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let conn = Conn::new(Opts::from(front.opts("root", ""))).await?;
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number as u64 * 77 + 1));
        clients.spawn(Client { number, conn, dice, run: run.clone() }.steps());
    }
    let ends = async {
        let mut result = Ok(());
        while let Some(ended) = clients.join_next().await {
            result = result.and(ended.context("a client panicked").and_then(|ended| ended));
        }
        wanted.store(false, Ordering::Relaxed);
        result
    };
    let [stop, start] = applier;
    let (ended, lagged) = tokio::join!(ends, lag(replica, stop, start, &run, &wanted));
    ended.and(lagged).with_context(|| format!("seed {seed}"))?;
    Ok(std::mem::take(&mut *run.history.lock().expect("nobody panics with it")))
}

fn on_replica(history: &[Event]) -> usize {
    history.iter().filter(|event| event.did == Did::Read { on_replica: true }).count()
}

const APPLIER: [&str; 2] = ["stop replica sql_thread", "start replica sql_thread"];
const MARIADB_APPLIER: [&str; 2] = ["stop slave sql_thread", "start slave sql_thread"];

fn group(consistency: &str, rest: &Value) -> Value {
    let mut group = json!({
        "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"},
        "read_write_split": true, "consistency": consistency,
    });
    for (key, value) in rest.as_object().cloned().unwrap_or_default() {
        group[key] = value;
    }
    group
}

async fn known(front: &Front) -> Result<()> {
    until("both servers are known", async || {
        let status = front.mesh.status();
        let backends = &status.groups[0].backends;
        let writers = backends.iter().filter(|b| b.role == Role::Writer).count();
        (writers == 1 && backends.iter().all(|b| b.state == "up" && b.version.is_some())).then_some(())
    })
    .await
}

async fn keeps_its_promises(servers: [&SqlServer; 2], applier: [&str; 2]) -> Result<()> {
    let [writer, replica] = servers;
    let ports = [replica.port(), writer.port()];
    let mut reads = 0;
    for (consistency, promise) in [("session", Promise::Own), ("service", Promise::Everyones)] {
        for (rest, chaos, seed) in [
            (json!({}), false, 1),
            (json!({"pool": {"max": 8}}), false, 2),
            (json!({"pool": {"max": 8}}), true, 3),
        ] {
            let group = group(consistency, &rest);
            let front = if chaos {
                Front::start_chaos(&ports, group).await?
            } else {
                Front::start(&ports, group).await?
            };
            known(&front).await?;
            let history = history(&front, replica, applier, seed).await?;
            for promise in [promise, Promise::Monotonic] {
                let found = violations(&history, promise);
                let Some(first) = found.first() else { continue };
                let what = format!("{consistency} {rest}, chaos {chaos}, seed {seed}, {promise:?}");
                panic!("{what}: {} reads are too old; {first}", found.len());
            }
            reads += on_replica(&history);
            front.mesh.stop();
        }
    }
    assert!(reads > 300, "{reads} reads on the replica prove little");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_on_mysqls_replica_is_older_than_it_may_be() -> Result<()> {
    let pair = Pair::start().await?;
    pair.writer.exec(TABLE).await?;
    pair.replica.caught_up_with(&pair.writer).await?;
    keeps_its_promises([&pair.writer as &MySql, &pair.replica], APPLIER).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_on_mariadbs_replica_is_older_than_it_may_be() -> Result<()> {
    let writer = MariaDb::start(MariaDbOptions::default()).await?;
    let replica = MariaDb::start(MariaDbOptions { server_id: 2, ..MariaDbOptions::default() }).await?;
    replica.replica_of(&writer).await?;
    writer
        .exec(
            "create database shop; create table shop.place (name varchar(10) primary key); insert into shop.place \
             values ('writer'); create user monitor@'%'; grant replica monitor on *.* to monitor@'%'",
        )
        .await?;
    writer.exec(TABLE).await?;
    replica.caught_up_with(&writer).await?;
    replica
        .exec("set sql_log_bin = 0; update shop.place set name = 'replica'; set global read_only = on")
        .await?;
    keeps_its_promises([&writer, &replica], MARIADB_APPLIER).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consistency_the_checker_finds_reads_that_are_too_old() -> Result<()> {
    let pair = Pair::start().await?;
    pair.writer.exec(TABLE).await?;
    pair.replica.caught_up_with(&pair.writer).await?;
    let ports = [pair.replica.port(), pair.writer.port()];
    for rest in [json!({}), json!({"pool": {"max": 8}})] {
        let front = Front::start(&ports, group("off", &rest)).await?;
        known(&front).await?;
        let history = history(&front, &pair.replica, APPLIER, 1).await?;
        for promise in [Promise::Own, Promise::Everyones] {
            assert!(!violations(&history, promise).is_empty(), "{promise:?} is kept with `consistency: off`");
        }
        front.mesh.stop();
    }
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_another_statement_ends_is_waited_for_like_one_that_is_committed() -> Result<()> {
    let pair = Pair::start().await?;
    pair.writer.exec(TABLE).await?;
    pair.replica.caught_up_with(&pair.writer).await?;
    let front = pair.front("service").await?;
    let (mut one, mut other) = (front.root().await?, front.root().await?);
    let ask = "select version, (select name from shop.place) from shop.version where id = 0";
    let [stop, start] = APPLIER;
    for (version, [opens, ends]) in
        [["begin", "begin"], ["set autocommit = 0", "set autocommit = 1"]].into_iter().enumerate()
    {
        pair.replica.exec(stop).await?;
        one.query_drop(opens).await?;
        one.query_drop(format!("{WRITE} 0")).await?;
        // Now the replica is known to have all that was committed.
        until("the replica is asked", async || {
            let seen: Option<(usize, String)> = other.query_first(ask).await.ok()?;
            (seen? == (version, "replica".to_owned())).then_some(())
        })
        .await?;
        one.query_drop(ends).await?;
        let seen: Option<(usize, String)> = other.query_first(ask).await?;
        assert_eq!(seen, Some((version + 1, "writer".into())), "after {ends}");
        one.query_drop("commit").await?;
        pair.replica.exec(start).await?;
        pair.replica.caught_up_with(&pair.writer).await?;
    }
    Ok(())
}
