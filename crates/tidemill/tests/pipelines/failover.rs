//! The source dies and a replica takes its place, and back again: a ledger of acknowledged writes says what the journal must have.

use crate::node::{Node, assert_dense, run_all, sqlite_rows};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use testkit::mysql_async::Conn;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};
use tokio::sync::RwLock;

const WRITERS: u64 = 4;

async fn server(id: u32) -> MySql {
    MySql::start(MySqlOptions { server_id: id, ..MySqlOptions::default() }).await.unwrap()
}

/// Two servers, the second a replica of the first, and a node whose source names both in this order.
async fn pair(first_named: usize, more: &str) -> ([MySql; 2], Node) {
    let servers = [server(1).await, server(2).await];
    servers[1].replica_of(&servers[0]).await.unwrap();
    servers[1].exec("SET GLOBAL super_read_only = ON").await.unwrap();
    let make = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.ledger (w BIGINT, n BIGINT, PRIMARY KEY (w, n))",
        "CREATE TABLE shop.heads (w BIGINT PRIMARY KEY, n BIGINT)",
        "INSERT INTO shop.heads VALUES (0, 0), (1, 0), (2, 0), (3, 0)",
    ];
    run_all(&servers[0], &make).await;
    servers[1].caught_up_with(&servers[0]).await.unwrap();
    let hosts = [first_named, 1 - first_named].map(|place| format!("127.0.0.1:{}", servers[place].port()));
    let mut node = Node::new(&[
        (
            "sources/shop.yaml",
            format!("kind: mysql\nurl: mysql://root@{}\ntables: [\"shop.*\"]\n{more}", hosts.join(",")),
        ),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    node.start();
    node.until("the copy begins", || async { heads(&node).len() == 4 }).await;
    (servers, node)
}

fn heads(node: &Node) -> Vec<Vec<String>> {
    sqlite_rows(&node.path("copy.db"), "SELECT w, n FROM heads ORDER BY w")
}

/// Whether the copy has what the server has.
async fn equal(node: &Node, server: &MySql) -> bool {
    let mut ours = Vec::new();
    for table in ["ledger", "heads"] {
        let rows: Vec<(i64, i64)> =
            server.query(&format!("SELECT w, n FROM shop.{table} ORDER BY w, n")).await.unwrap();
        let rows: Vec<Vec<String>> = rows.iter().map(|(w, n)| vec![w.to_string(), n.to_string()]).collect();
        ours.push(
            rows == sqlite_rows(&node.path("copy.db"), &format!("SELECT w, n FROM {table} ORDER BY w, n")),
        );
    }
    ours == [true, true]
}

async fn promote(server: &MySql) {
    run_all(
        server,
        &[
            "STOP REPLICA",
            "RESET REPLICA ALL",
            "SET GLOBAL super_read_only = OFF",
            "SET GLOBAL read_only = OFF",
        ],
    )
    .await;
}

/// A server that was the source comes back as a replica of its successor.
async fn demote(server: &MySql, successor: &MySql) {
    server.restart().await.unwrap();
    server.exec("SET GLOBAL super_read_only = ON").await.unwrap();
    server.replica_of(successor).await.unwrap();
    server.caught_up_with(successor).await.unwrap();
}

/// Writers that each add to their part of the ledger and move their head in the same transaction. They hold the lock for reading
/// while a transaction is open, so that whoever has it for writing knows that all that was sent is acknowledged.
struct Ledger {
    servers: [testkit::mysql_async::Opts; 2],
    current: AtomicUsize,
    gate: RwLock<()>,
    stop: AtomicBool,
    written: [AtomicUsize; WRITERS as usize],
}

impl Ledger {
    async fn write(self: Arc<Self>, w: u64) -> u64 {
        let mut conn: Option<(usize, Conn)> = None;
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let _open = self.gate.read().await;
            let current = self.current.load(Ordering::Relaxed);
            if conn.as_ref().is_none_or(|(at, _)| *at != current) {
                conn = Some((current, Conn::new(self.servers[current].clone()).await.unwrap()));
            }
            let (_, open) = conn.as_mut().unwrap();
            n += 1;
            open.query_drop("BEGIN").await.unwrap();
            open.query_drop(format!("INSERT INTO shop.ledger VALUES ({w}, {n})")).await.unwrap();
            open.query_drop(format!("UPDATE shop.heads SET n = {n} WHERE w = {w}")).await.unwrap();
            open.query_drop("COMMIT").await.unwrap();
            self.written[w as usize].store(n, Ordering::Relaxed);
        }
        n as u64
    }

    fn sum(&self) -> usize {
        self.written.iter().map(|own| own.load(Ordering::Relaxed)).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_acknowledged_writes_outlives_the_source_and_its_return() {
    let (servers, mut node) = pair(0, "").await;
    let ledger = Arc::new(Ledger {
        servers: [servers[0].opts(), servers[1].opts()],
        current: AtomicUsize::new(0),
        gate: RwLock::new(()),
        stop: AtomicBool::new(false),
        written: Default::default(),
    });
    let writers: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(Arc::clone(&ledger).write(w))).collect();
    for round in 0..4 {
        let begun = ledger.sum();
        node.until("the writers write", || async { ledger.sum() > begun + 200 }).await;
        let (old, new) = (round % 2, 1 - round % 2);
        {
            let _all_acknowledged = ledger.gate.write().await;
            servers[new].caught_up_with(&servers[old]).await.unwrap();
            servers[old].kill9();
            promote(&servers[new]).await;
            ledger.current.store(new, Ordering::Relaxed);
        }
        if round == 1 {
            node.kill9();
            node.start();
        }
        let begun = ledger.sum();
        node.until("capture goes on by itself", || async {
            let copied: usize = heads(&node).iter().map(|row| row[1].parse::<usize>().unwrap()).sum();
            copied > begun
        })
        .await;
        demote(&servers[old], &servers[new]).await;
    }
    ledger.stop.store(true, Ordering::Relaxed);
    let mut wanted = BTreeMap::new();
    for (w, writer) in writers.into_iter().enumerate() {
        wanted.insert(w as u64, writer.await.unwrap());
    }
    node.until("all has arrived", || equal(&node, &servers[0])).await;
    let status = node.wait("still the first epoch", |s| s["sources"][0]["state"] == "stream").await;
    assert_eq!(status["sources"][0]["epoch"], 1, "{status:#}");
    node.stop();
    let changes = node.changes("shop");
    assert_dense(&changes);
    let mut seen: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for change in changes.iter().filter(|change| change["op"] == "insert" || change["op"] == "update") {
        let after = &change["after"];
        let (w, n) = (after["w"].as_u64().unwrap(), after["n"].as_u64().unwrap());
        let table = change["table"].as_str().unwrap().to_owned();
        let last = seen.entry((table, w)).or_default();
        assert_eq!(n, *last + 1, "the next of writer {w}: {change}");
        *last = n;
    }
    for (w, n) in wanted {
        assert_eq!((seen[&("ledger".to_owned(), w)], seen[&("heads".to_owned(), w)]), (n, n), "writer {w}");
    }
}

fn error(status: &Value) -> &str {
    status.pointer("/sources/0/error/message").and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_waited_for_and_one_that_was_promoted_so_is_a_gap() {
    let (servers, mut node) = pair(0, "").await;
    let [old, new] = &servers;
    new.exec("STOP REPLICA").await.unwrap();
    run_all(old, &["INSERT INTO shop.ledger VALUES (9, 1)", "INSERT INTO shop.ledger VALUES (9, 2)"]).await;
    node.until("it is captured", || equal(&node, old)).await;
    old.kill9();
    let status = node.wait("the replica is behind", |s| error(s).contains("is read-only and behind")).await;
    assert!(error(&status).contains("never had transactions that we captured"), "{status:#}");
    assert_eq!(status["sources"][0]["state"], "stream", "{status:#}");

    // The source comes back: nothing was lost.
    old.restart().await.unwrap();
    old.exec("INSERT INTO shop.ledger VALUES (9, 3)").await.unwrap();
    node.until("capture goes on", || equal(&node, old)).await;
    let status = node.wait("no error is left", |s| s["sources"][0]["error"].is_null()).await;
    assert_eq!(status["sources"][0]["epoch"], 1, "{status:#}");

    // What only the dead server had is no part of the new history: said, and not passed over.
    old.kill9();
    promote(new).await;
    let status = node.wait("the gap is named", |s| s["sources"][0]["state"] == "failed").await;
    assert!(error(&status).contains("never had transactions that we captured"), "{status:#}");
    node.stop();
    let source = std::fs::read_to_string(node.path("sources/shop.yaml")).unwrap();
    node.write("sources/shop.yaml", &(source + "on_gap: resnapshot\n"));
    new.exec("INSERT INTO shop.ledger VALUES (8, 1)").await.unwrap();
    node.start();
    node.until("the tables are read anew", || equal(&node, new)).await;
    let status = node.wait("a new epoch", |s| s["sources"][0]["epoch"] == 2).await;
    assert!(status["sources"][0]["error"].is_null(), "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_has_not_what_follows_is_passed_over() {
    let (servers, mut node) = pair(1, "on_gap: resnapshot\n").await;
    let [source, replica] = &servers;
    // Captured from the replica that is named first, then only the source goes on.
    run_all(source, &["INSERT INTO shop.ledger VALUES (9, 1)"]).await;
    node.until("it is captured", || equal(&node, source)).await;
    node.stop();
    replica.exec("STOP REPLICA").await.unwrap();
    source.exec("INSERT INTO shop.ledger VALUES (9, 2)").await.unwrap();
    replica.kill9();
    node.start();
    node.until("the source is read", || equal(&node, source)).await;
    node.stop();
    replica.restart().await.unwrap();
    replica.exec("SET GLOBAL super_read_only = ON").await.unwrap();
    replica.exec("STOP REPLICA").await.unwrap();
    source.exec("INSERT INTO shop.ledger VALUES (9, 3)").await.unwrap();
    node.start();
    node.until("the replica that is behind is passed over", || equal(&node, source)).await;

    // The replica has caught up, and its history was purged where the node stands.
    node.stop();
    source.exec("INSERT INTO shop.ledger VALUES (9, 4)").await.unwrap();
    replica.exec("START REPLICA").await.unwrap();
    replica.caught_up_with(source).await.unwrap();
    replica.exec("FLUSH BINARY LOGS").await.unwrap();
    let logs: Vec<(String, u64, String)> = replica.query("SHOW BINARY LOGS").await.unwrap();
    replica.exec(&format!("PURGE BINARY LOGS TO '{}'", logs.last().unwrap().0)).await.unwrap();
    node.start();
    node.until("the replica without history is passed over", || equal(&node, source)).await;
    let status = node.wait("it streams", |s| s["sources"][0]["state"] == "stream").await;
    assert_eq!(status["sources"][0]["epoch"], 1, "nothing was read anew: {status:#}");
}
