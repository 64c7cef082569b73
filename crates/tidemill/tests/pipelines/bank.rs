//! A bank moves money between the accounts of two tables and notes each transfer in a third, in one transaction. Whatever is
//! killed, no one who looks at a sink ever sees a state that the bank was not in.

use crate::elasticsearch::documents;
use crate::node::{Node, PATIENCE, mysql_source, sqlite_rows, streams};
use crate::random::Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testkit::mysql_async::prelude::Queryable;
use testkit::{
    Kafka, KafkaOptions, MySql, MySqlOptions, Nats, NatsOptions, OpenSearch, OpenSearchOptions, Redis,
    RedisOptions, SqlServer, TiDb, TiDbOptions,
};

const START_BALANCE: i64 = 1000;
const TABLES: [&str; 2] = ["checking", "savings"];
/// Transfers of one statement text, each a transaction.
const TRANSFERS_PER_CALL: u64 = 20;

/// What the bank did, and every state that it was in.
struct Bank {
    /// Of each table.
    accounts: u64,
    states: Mutex<States>,
    stop: AtomicBool,
    /// Transfers that were committed.
    done: AtomicU64,
    /// Whether none follows.
    closed: AtomicBool,
}

struct States {
    /// By transfer: a number that tells apart what all balances are.
    prints: Vec<i64>,
    /// Of each account: its balances, one after the other.
    histories: Vec<Vec<i64>>,
}

impl Bank {
    async fn open(server: &SqlServer, accounts: u64) -> Self {
        server.exec("CREATE DATABASE bank").await.unwrap();
        // It is not killed itself.
        server.exec("SET GLOBAL sync_binlog = 0, GLOBAL innodb_flush_log_at_trx_commit = 2").await.unwrap();
        for table in TABLES {
            let columns = "id INT PRIMARY KEY, balance BIGINT NOT NULL, moves INT NOT NULL";
            server.exec(&format!("CREATE TABLE bank.{table} ({columns})")).await.unwrap();
            let rows: Vec<String> = (0..accounts).map(|id| format!("({id},{START_BALANCE},0)")).collect();
            server.exec(&format!("INSERT INTO bank.{table} VALUES {}", rows.join(","))).await.unwrap();
        }
        let ledger = "CREATE TABLE bank.ledger (n INT PRIMARY KEY, amount BIGINT NOT NULL)";
        server.exec(ledger).await.unwrap();
        let first = (1..=2 * accounts as i64).sum::<i64>() * START_BALANCE;
        let histories = vec![vec![START_BALANCE]; 2 * accounts as usize];
        let states = Mutex::new(States { prints: vec![first], histories });
        Self {
            accounts,
            states,
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Moves money until told to stop, at least so often.
    async fn trade(&self, server: &SqlServer, seed: u64, at_least: u64) {
        let mut rng = Rng::new(seed);
        let mut n = 0;
        while n < at_least || !self.stop.load(Ordering::Relaxed) {
            let mut text = String::new();
            for _ in 0..TRANSFERS_PER_CALL {
                n += 1;
                text += &self.transfer(n, &mut rng);
            }
            server.exec(&text).await.unwrap();
            self.done.store(n, Ordering::Relaxed);
        }
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Chooses a transfer and notes the state that it leads to, before anyone can see it.
    fn transfer(&self, n: u64, rng: &mut Rng) -> String {
        let accounts = 2 * self.accounts;
        let (from, amount) = (rng.below(accounts), rng.below(100) as i64 + 1);
        let to = (from + 1 + rng.below(accounts - 1)) % accounts;
        let mut states = self.states.lock().unwrap();
        let mut print = *states.prints.last().unwrap();
        let mut text = "START TRANSACTION;".to_owned();
        for (account, change) in [(from, -amount), (to, amount)] {
            print += (account as i64 + 1) * change;
            let history = &mut states.histories[account as usize];
            history.push(history.last().unwrap() + change);
            let (table, id) = (TABLES[(account / self.accounts) as usize], account % self.accounts);
            text += &format!(
                "UPDATE bank.{table} SET balance = balance + {change}, moves = moves + 1 WHERE id = {id};"
            );
        }
        states.prints.push(print);
        text + &format!("INSERT INTO bank.ledger VALUES ({n}, {amount});COMMIT;")
    }

    /// One statement for all that a reader sees at an instant: money, print, transfers, and the sum of their numbers.
    /// (Not the last of them: the store inside the TiDB that tests use reads backwards past its snapshot.)
    fn look(&self, database: &str) -> String {
        let sum =
            |table: &str, term: &str| format!("(SELECT COALESCE(SUM({term}), 0) FROM {database}{table})");
        let print = |first: u64| format!("balance * (id + {first})");
        format!(
            "SELECT CONCAT({} + {}, ' ', {} + {}, ' ', (SELECT COUNT(*) FROM {database}ledger), ' ', \
             (SELECT COALESCE(SUM(n), 0) FROM {database}ledger))",
            sum("checking", "balance"),
            sum("savings", "balance"),
            sum("checking", &print(1)),
            sum("savings", &print(1 + self.accounts)),
        )
    }

    /// Checks what was seen; the number of the last transfer.
    fn check(&self, who: &str, seen: &str) -> usize {
        let numbers: Vec<i64> = seen.split(' ').map(|number| number.parse().unwrap()).collect();
        let [money, print, last, numbers] = numbers[..] else { panic!("{who}: {seen}") };
        let expected = self.states.lock().unwrap().prints[last as usize];
        let total = 2 * self.accounts as i64 * START_BALANCE;
        let all = last * (last + 1) / 2;
        assert_eq!((money, print, numbers), (total, expected, all), "{who} after transfer {last}");
        last as usize
    }

    /// Looks again and again until the last transfer is there; how many states were seen. A server that is away shows none.
    async fn watch<F: Future<Output = Option<String>>>(&self, who: &str, look: impl Fn() -> F) -> usize {
        let (mut seen, mut newest) = (BTreeSet::new(), 0);
        loop {
            let over =
                self.stop.load(Ordering::Relaxed).then(|| self.states.lock().unwrap().prints.len() - 1);
            if let Some(text) = look().await {
                let last = self.check(who, &text);
                assert!(last >= newest, "{who} went back from transfer {newest} to {last}");
                newest = last;
                seen.insert(last);
            }
            if over == Some(newest) {
                return seen.len();
            }
            tokio::task::yield_now().await;
        }
    }

    async fn after(&self, node: &Node, transfers: u64) {
        node.until("the bank goes on", || async { self.done.load(Ordering::Relaxed) >= transfers }).await;
    }

    /// Whether an account was ever so; its number in the bank.
    fn check_account(&self, who: &str, table: &str, id: u64, balance: i64, moves: usize) -> usize {
        let second = u64::from(table == TABLES[1]);
        let account = (second * self.accounts + id) as usize;
        let histories = &self.states.lock().unwrap().histories;
        assert_eq!(histories[account].get(moves), Some(&balance), "{who}: {table} {id} after {moves} moves");
        account
    }

    /// How often each account was part of a transfer.
    fn moves(&self) -> Vec<usize> {
        self.states.lock().unwrap().histories.iter().map(|history| history.len() - 1).collect()
    }
}

fn delivered(status: &serde_json::Value, flows: usize) -> bool {
    let all = status["flows"].as_array().map_or(&[][..], Vec::as_slice);
    streams(status) && all.len() == flows && all.iter().all(|flow| flow["lag_changes"] == 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_sql_sinks_see_whole_transactions_in_the_order_of_the_source() {
    let (source, mysql, tidb) = tokio::try_join!(
        MySql::start(MySqlOptions::default()),
        MySql::start(MySqlOptions::default()),
        TiDb::start(TiDbOptions::default()),
    )
    .unwrap();
    // With these a commit may get a time that is before that of a reader who is there already. TiKV knows when, and gives it a
    // later one; the store inside the TiDB that tests use does not always.
    for name in ["tidb_enable_async_commit", "tidb_enable_1pc"] {
        tidb.exec(&format!("SET GLOBAL {name} = OFF")).await.unwrap();
    }
    // So many that parts of a batch often have none in common, and sometimes do.
    let bank = Bank::open(&source, 8_000).await;
    let mut node = Node::new(&[
        ("sources/bank.yaml", mysql_source(&source.url(), "bank.*")),
        ("sinks/mysql.yaml", format!("kind: mysql\nurl: {}\n", mysql.url())),
        ("sinks/tidb.yaml", format!("kind: tidb\nurl: {}\n", tidb.url())),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_mysql.yaml", "from: bank\nto: mysql\n".into()),
        ("flows/to_tidb.yaml", "from: bank\nto: tidb\n".into()),
        ("flows/to_file.yaml", "from: bank\nto: file\n".into()),
    ]);
    node.start();
    node.wait("the accounts are everywhere", |s| delivered(s, 3)).await;
    let file = node.path("copy.db");
    let (in_server, in_file) = (bank.look("bank."), bank.look(""));
    let watching = async {
        tokio::join!(
            bank.watch("MySQL", || async { at_an_instant(&mysql, &in_server).await }),
            bank.watch("TiDB", || async { at_an_instant(&tidb, &in_server).await }),
            bank.watch("SQLite", || async {
                sqlite_rows(&file, &in_file).pop().and_then(|mut row| row.pop())
            }),
        )
    };
    let story = async {
        bank.after(&node, 200).await;
        // Behind, so that batches are large.
        for flow in ["to_mysql", "to_tidb", "to_file"] {
            node.run(&["flow", "pause", flow]);
        }
        bank.after(&node, 3000).await;
        for flow in ["to_mysql", "to_tidb", "to_file"] {
            node.run(&["flow", "resume", flow]);
        }
        bank.after(&node, 3500).await;
        node.kill9();
        bank.after(&node, 5000).await;
        node.start();
        mysql.kill9();
        mysql.restart().await.unwrap();
        tidb.kill9();
        tidb.restart().await.unwrap();
        bank.after(&node, 6500).await;
        node.kill9();
        node.start();
        bank.stop.store(true, Ordering::Relaxed);
        node
    };
    let all = async { tokio::join!(bank.trade(&source, 7, 7000), watching, story) };
    let ((), seen, node) = tokio::time::timeout(3 * PATIENCE, all).await.unwrap();
    let transfers = bank.done.load(Ordering::Relaxed);
    println!("{transfers} transfers; states seen in MySQL, TiDB and SQLite: {seen:?}");
    assert!(seen.0 > 10 && seen.1 > 10 && seen.2 > 10, "{seen:?}");
    let status = node.wait("all is delivered", |s| delivered(s, 3)).await;
    assert!(status["flows"].as_array().unwrap().iter().all(|flow| flow["dead_letters"] == 0), "{status:#}");
}

/// What one statement answers in a transaction of its own.
async fn at_an_instant(server: &SqlServer, sql: &str) -> Option<String> {
    let mut conn = server.conn().await.ok()?;
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.ok()?;
    conn.query_first(sql).await.ok()?
}

/// A hash's fields as numbers.
async fn cached(client: &mut redis::aio::MultiplexedConnection, key: &str) -> Option<BTreeMap<String, i64>> {
    let fields: BTreeMap<String, String> = redis::cmd("HGETALL").arg(key).query_async(client).await.ok()?;
    let numbers = fields.into_iter().filter_map(|(name, text)| Some((name, text.parse().ok()?)));
    Some(numbers.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_other_sinks_see_rows_that_were_and_none_that_goes_back() {
    let (source, broker, search, cache) = tokio::try_join!(
        MySql::start(MySqlOptions::default()),
        Kafka::start(KafkaOptions::default()),
        OpenSearch::start(OpenSearchOptions::default()),
        Redis::start(RedisOptions::default()),
    )
    .unwrap();
    let bank = Bank::open(&source, 60).await;
    let mut node = Node::new(&[
        ("sources/bank.yaml", mysql_source(&source.url(), "bank.*")),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: {}\n", broker.url())),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", cache.url())),
        (
            "flows/to_broker.yaml",
            "from: bank\nto: broker\noptions: {topic: \"{db}.{table}\", partitions: 3}\n".into(),
        ),
        ("flows/to_search.yaml", "from: bank\nto: search\noptions: {index: \"{db}.{table}\"}\n".into()),
        (
            "flows/to_cache.yaml",
            "from: bank\nto: cache\noptions: {type: hash, key: \"{db}:{table}:{key}\"}\n".into(),
        ),
    ]);
    node.start();
    node.wait("the accounts are everywhere", |s| delivered(s, 3)).await;

    let accounts = || TABLES.into_iter().flat_map(|table| (0..bank.accounts).map(move |id| (table, id)));
    // Told to stop, they look once more at all that was delivered, and answer how far each account has come.
    let everywhere = AtomicBool::new(false);
    // A search server shows what it has taken before it has it on its disk, and answers only then. What it had not answered when it was
    // killed may be gone, and comes again.
    let searches_killed = AtomicU64::new(0);
    let in_cache = async {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let (mut seen, mut looks) = (vec![0; 2 * bank.accounts as usize], 0_u64);
        loop {
            let last = everywhere.load(Ordering::Relaxed);
            let server = redis::Client::open(cache.url()).unwrap();
            if let Ok(mut client) = server.get_multiplexed_async_connection_with_config(&config).await {
                for (table, id) in accounts() {
                    let Some(row) = cached(&mut client, &format!("bank:{table}:{id}")).await else {
                        continue;
                    };
                    let moves = row["moves"] as usize;
                    let account = bank.check_account("Redis", table, id, row["balance"], moves);
                    assert!(moves >= seen[account], "Redis went back: {table} {id}");
                    seen[account] = moves;
                    looks += 1;
                }
            }
            if last {
                return (seen, looks);
            }
            tokio::task::yield_now().await;
        }
    };
    let in_search = async {
        let (mut seen, mut looks, mut kills) = (vec![0; 2 * bank.accounts as usize], 0_u64, 0);
        loop {
            let last = everywhere.load(Ordering::Relaxed);
            for table in TABLES {
                let killed = searches_killed.load(Ordering::Relaxed);
                if killed != kills {
                    kills = killed;
                    seen.fill(0);
                }
                let rows = documents(&search, &format!("bank.{table}")).await;
                if killed != searches_killed.load(Ordering::Relaxed) {
                    continue;
                }
                for (id, row) in rows {
                    let (id, moves) = (id.parse().unwrap(), row["moves"].as_u64().unwrap() as usize);
                    let balance = row["balance"].as_i64().unwrap();
                    let account = bank.check_account("search", table, id, balance, moves);
                    assert!(moves >= seen[account], "search went back: {table} {id}");
                    seen[account] = moves;
                    looks += 1;
                }
            }
            if last {
                return (seen, looks);
            }
            tokio::task::yield_now().await;
        }
    };
    let story = async {
        bank.after(&node, 200).await;
        for server in [&*cache, &*search, &*broker] {
            server.kill9();
            searches_killed.fetch_add(u64::from(std::ptr::eq(server, &*search)), Ordering::Relaxed);
            server.restart().await.unwrap();
            let now = bank.done.load(Ordering::Relaxed);
            bank.after(&node, now + 200).await;
        }
        node.kill9();
        node.start();
        bank.stop.store(true, Ordering::Relaxed);
        node.until("the bank has closed", || async { bank.closed.load(Ordering::Relaxed) }).await;
        let status = node.wait("all is delivered", |s| delivered(s, 3)).await;
        assert!(status["flows"].as_array().unwrap().iter().all(|f| f["dead_letters"] == 0), "{status:#}");
        everywhere.store(true, Ordering::Relaxed);
    };
    let all = async { tokio::join!(bank.trade(&source, 8, 1000), in_cache, in_search, story) };
    let ((), in_cache, in_search, ()) = tokio::time::timeout(3 * PATIENCE, all).await.unwrap();
    println!("accounts looked at: {} in Redis, {} in the search server", in_cache.1, in_search.1);
    assert_eq!(in_cache.0, bank.moves());
    assert_eq!(in_search.0, bank.moves());

    // What comes again after a kill does no harm: what comes for the first time is in order, and nothing is left out.
    let mut seen = vec![None; 2 * bank.accounts as usize];
    for table in TABLES {
        for message in broker.messages(&format!("bank.{table}")).await.unwrap() {
            let body: serde_json::Value = serde_json::from_str(&message.value.unwrap()).unwrap();
            let number = |column: &str| body["after"][column].as_i64().unwrap();
            let (id, moves) = (number("id") as u64, number("moves") as usize);
            let account = bank.check_account("Kafka", table, id, number("balance"), moves);
            let next = seen[account].map_or(0, |seen| seen + 1);
            assert!(moves <= next, "Kafka has no change {next} of {table} {id} before {moves}");
            seen[account] = seen[account].max(Some(moves));
        }
    }
    let all_moves: Vec<Option<usize>> = bank.moves().into_iter().map(Some).collect();
    assert_eq!(seen, all_moves);
}

/// What a reader of a log makes of it, change by change.
struct Replay<'a> {
    bank: &'a Bank,
    who: &'static str,
    balances: BTreeMap<(String, u64), i64>,
    /// Transfers, and the sum of their numbers.
    transfers: (u64, u64),
    /// The change that came last.
    lsn: u64,
    /// States that were looked at.
    states: u64,
}

impl<'a> Replay<'a> {
    fn new(bank: &'a Bank, who: &'static str) -> Self {
        Self { bank, who, balances: BTreeMap::new(), transfers: (0, 0), lsn: 0, states: 0 }
    }

    /// Takes the next change of the log; where a transaction ends, the bank must have been so.
    fn take(&mut self, line: &str) {
        let change: Value = serde_json::from_str(line).unwrap();
        let (lsn, row) = (change["lsn"].as_u64().unwrap(), &change["after"]);
        assert_eq!(lsn, self.lsn + 1, "{}: each change once, and none left out", self.who);
        self.lsn = lsn;
        let table = change["table"].as_str().unwrap();
        if table == "ledger" {
            self.transfers.0 += 1;
            self.transfers.1 += row["n"].as_u64().unwrap();
        } else {
            let account = (table.to_owned(), row["id"].as_u64().unwrap());
            self.balances.insert(account, row["balance"].as_i64().unwrap());
        }
        if change["txn"]["last"] == true {
            let money: i64 = self.balances.values().sum();
            let number = |(table, id): &(String, u64)| {
                id + 1 + if *table == TABLES[1] { self.bank.accounts } else { 0 }
            };
            let print: i64 =
                self.balances.iter().map(|(account, balance)| number(account) as i64 * balance).sum();
            let (count, sum) = self.transfers;
            self.bank.check(self.who, &format!("{money} {print} {count} {sum}"));
            self.states += 1;
        }
    }
}

/// Follows the files of a flow as they grow.
#[derive(Default)]
struct Lines {
    /// The file at hand, and how far it was read.
    at: (String, u64),
    /// What was read of a line that was still being written.
    rest: Vec<u8>,
}

impl Lines {
    /// The whole lines that came since.
    fn next(&mut self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> =
            names.filter(|name| name.ends_with(".jsonl") && *name >= self.at.0).collect();
        names.sort();
        let mut lines = Vec::new();
        for name in names {
            if name != self.at.0 {
                assert!(self.rest.is_empty(), "a finished file ends with a line's end: {}", self.at.0);
                self.at = (name.clone(), 0);
            }
            let mut file = fs::File::open(folder.join(&name)).unwrap();
            // What a crash tore is cut off: it is read again.
            if file.metadata().unwrap().len() < self.at.1 {
                self.at.1 -= self.rest.len() as u64;
                self.rest.clear();
            }
            file.seek(SeekFrom::Start(self.at.1)).unwrap();
            let mut bytes = std::mem::take(&mut self.rest);
            self.at.1 += file.read_to_end(&mut bytes).unwrap() as u64;
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            self.rest = bytes.split_off(end);
            lines.extend(String::from_utf8(bytes).unwrap().lines().map(str::to_owned));
        }
        lines
    }
}

/// The messages of a stream from a sequence on; none while the server is away.
async fn messages_from(nats: &Nats, stream: &str, from: u64) -> Vec<String> {
    let read = async {
        let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.ok()?);
        let mut stream = context.get_stream(stream).await.ok()?;
        let last = stream.info().await.ok()?.state.last_sequence;
        let mut out = Vec::new();
        for sequence in from..=last.min(from + 500) {
            let message = stream.get_raw_message(sequence).await.ok()?;
            out.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        Some(out)
    };
    read.await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_logs_that_take_whole_transactions_see_only_states_of_the_source() {
    let (source, nats) =
        tokio::try_join!(MySql::start(MySqlOptions::default()), Nats::start(NatsOptions::default())).unwrap();
    let bank = Bank::open(&source, 60).await;
    let mut node = Node::new(&[
        ("sources/bank.yaml", mysql_source(&source.url(), "bank.*")),
        ("sinks/log.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("sinks/files.yaml", "kind: files\npath: ./out\n".into()),
        (
            "flows/to_log.yaml",
            "from: bank\nto: log\noptions: {stream: BANK, subject: \"bank.{table}\"}\n".into(),
        ),
        ("flows/to_files.yaml", "from: bank\nto: files\noptions: {rotate_bytes: 100KiB}\n".into()),
    ]);
    node.start();
    node.wait("the accounts are everywhere", |s| delivered(s, 2)).await;
    let folder = node.path("out");
    // Told to stop, they read once more what was delivered.
    let everywhere = AtomicBool::new(false);
    let in_files = async {
        let (mut replay, mut lines) = (Replay::new(&bank, "files"), Lines::default());
        loop {
            let last = everywhere.load(Ordering::Relaxed);
            lines.next(&folder).iter().for_each(|line| replay.take(line));
            if last {
                assert!(lines.rest.is_empty(), "the last line is whole");
                return replay;
            }
            tokio::task::yield_now().await;
        }
    };
    let in_log = async {
        let (mut replay, mut next) = (Replay::new(&bank, "NATS"), 1);
        loop {
            let last = everywhere.load(Ordering::Relaxed);
            let messages = messages_from(&nats, "BANK", next).await;
            next += messages.len() as u64;
            messages.iter().for_each(|message| replay.take(message));
            if last && messages.is_empty() {
                return replay;
            }
            tokio::task::yield_now().await;
        }
    };
    let story = async {
        bank.after(&node, 200).await;
        for round in 0..3 {
            node.kill9();
            let now = bank.done.load(Ordering::Relaxed);
            bank.after(&node, now + 100).await;
            node.start();
            if round > 0 {
                nats.kill9();
                nats.restart().await.unwrap();
            }
            let now = bank.done.load(Ordering::Relaxed);
            bank.after(&node, now + 300).await;
        }
        // Behind, so that batches are large.
        for flow in ["to_log", "to_files"] {
            node.until("it pauses", || async { node.run(&["flow", "pause", flow]).0 == 0 }).await;
        }
        let now = bank.done.load(Ordering::Relaxed);
        bank.after(&node, now + 2000).await;
        node.kill9();
        node.start();
        for flow in ["to_log", "to_files"] {
            node.until("it goes on", || async { node.run(&["flow", "resume", flow]).0 == 0 }).await;
        }
        bank.stop.store(true, Ordering::Relaxed);
        node.until("the bank has closed", || async { bank.closed.load(Ordering::Relaxed) }).await;
        let status = node.wait("all is delivered", |s| delivered(s, 2)).await;
        assert!(status["flows"].as_array().unwrap().iter().all(|f| f["dead_letters"] == 0), "{status:#}");
        everywhere.store(true, Ordering::Relaxed);
        status
    };
    let all = async { tokio::join!(bank.trade(&source, 9, 4000), in_files, in_log, story) };
    let ((), in_files, in_log, status) = tokio::time::timeout(3 * PATIENCE, all).await.unwrap();
    let transfers = bank.done.load(Ordering::Relaxed);
    println!("{transfers} transfers; states in files: {}, in the log: {}", in_files.states, in_log.states);
    for replay in [&in_files, &in_log] {
        assert_eq!(replay.transfers.0, transfers, "{}", replay.who);
        assert_eq!(replay.states, transfers, "{}: a state after each transfer", replay.who);
        assert_eq!(status["sources"][0]["lsn"], replay.lsn, "{}", replay.who);
    }
    assert!(fs::read_dir(&folder).unwrap().count() > 3, "the files were rotated");
}
