//! Everything is killed under a writer; afterwards both ends are equal and the journal has no gap and no repeat.

use crate::node::{Node, assert_dense, mysql_source, sqlite_rows};
use crate::random::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::{
    Fault, FaultProxy, MariaDb, MariaDbOptions, MySql, MySqlOptions, Nats, NatsOptions, SqlServer,
};

const ROWS: &str = "SELECT id, name, amount FROM shop.orders ORDER BY id";

async fn make_shop(server: &SqlServer, rows: u32) {
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, amount DECIMAL(10,2))",
        "CREATE TABLE shop.log (line VARCHAR(40), n INT)",
    ] {
        server.exec(sql).await.unwrap();
    }
    for first in (0..rows).step_by(500) {
        let values: Vec<String> =
            (first..first + 500).map(|id| format!("({id}, 'row {id}', {id}.25)")).collect();
        server.exec(&format!("INSERT INTO shop.orders VALUES {}", values.join(","))).await.unwrap();
    }
    server.exec("INSERT INTO shop.log VALUES ('a', 1), ('a', 1), (NULL, NULL)").await.unwrap();
}

/// Writes until told to stop; a server that is away is tried again.
async fn write(server: &SqlServer, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = rng.below(6000);
        let sql = match rng.below(5) {
            0 | 1 => format!("REPLACE INTO shop.orders VALUES ({id}, 'new {written}', {written}.5)"),
            2 => format!(
                "UPDATE shop.orders SET name = 'seen {written}' WHERE id BETWEEN {id} AND {}",
                id + 20
            ),
            3 => format!("DELETE FROM shop.orders WHERE id = {id}"),
            _ => format!("UPDATE IGNORE shop.orders SET id = {} WHERE id = {id}", rng.below(6000)),
        };
        if server.exec(&sql).await.is_ok() {
            written += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    written
}

async fn rows_of(server: &SqlServer, sql: &str) -> Vec<Vec<String>> {
    let rows: Vec<(i32, String, Option<String>)> = server.query(sql).await.unwrap_or_default();
    rows.into_iter().map(|(id, name, n)| vec![id.to_string(), name, n.unwrap_or("NULL".into())]).collect()
}

fn flows(source: &FaultProxy, sink: &FaultProxy, nats: &Nats) -> Vec<(&'static str, String)> {
    let url = |proxy: &FaultProxy| format!("mysql://root@{}", proxy.addr());
    vec![
        ("sources/shop.yaml", mysql_source(&url(source), "shop.*") + "options: {snapshot_chunk_rows: 300}\n"),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", url(sink))),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("sinks/stream.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
        ("flows/to_stream.yaml", "from: shop\nto: stream\n".into()),
        ("flows/to_lines.yaml", "from: shop\nto: lines\n".into()),
    ]
}

async fn settle_and_compare(node: &Node, source: &SqlServer, sink: &SqlServer, nats: &Nats) {
    source.exec("REPLACE INTO shop.orders VALUES (99999, 'the end', 0)").await.unwrap();
    let wanted = rows_of(source, ROWS).await;
    let copy = "SELECT id, name, amount FROM copy.orders ORDER BY id";
    node.until("the MySQL sink equals the source", || async { rows_of(sink, copy).await == wanted }).await;
    let file = node.path("copy.db");
    let ids = "SELECT id, name, amount FROM orders ORDER BY id";
    node.until("the SQLite sink equals the source", || async { sqlite_rows(&file, ids) == wanted }).await;
    let logs: Vec<(Option<String>, Option<i32>)> =
        sink.query("SELECT line, n FROM copy.log ORDER BY line").await.unwrap();
    assert_eq!(logs.len(), 3, "rows of a table without a key: {logs:?}");
    let status = node
        .wait("every flow has delivered everything", |s| {
            s["flows"].as_array().is_some_and(|f| !f.is_empty() && f.iter().all(|f| f["lag_changes"] == 0))
        })
        .await;
    let lsn = status["sources"][0]["lsn"].as_u64().unwrap();
    assert_eq!(
        status["flows"].as_array().unwrap().iter().filter(|f| f["dead_letters"] != 0).count(),
        0,
        "{status:#}"
    );
    let changes = node.changes("shop");
    assert_dense(&changes);
    assert_eq!(changes.len() as u64, lsn);
    let messages: Vec<u64> = stream_lsns(nats, "TIDEMILL_TO_STREAM").await;
    assert_eq!(messages, (1..=lsn).collect::<Vec<_>>(), "every change once and in order in the stream");
    let mut lines = Vec::new();
    let mut names: Vec<_> =
        std::fs::read_dir(node.path("lines")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|name: &std::path::PathBuf| name.extension().is_some_and(|e| e == "jsonl"));
    names.sort();
    for name in names {
        for line in std::fs::read_to_string(name).unwrap().lines() {
            lines.push(serde_json::from_str::<serde_json::Value>(line).unwrap());
        }
    }
    assert_dense(&lines);
    assert_eq!(lines.len() as u64, lsn);
}

/// The lsn of every message, read by a client that is not ours.
pub async fn stream_lsns(nats: &Nats, name: &str) -> Vec<u64> {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream(name).await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut out = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        out.push(message.headers.get("Tidemill-Lsn").unwrap().as_str().parse().unwrap());
    }
    out
}

/// Breaks in one story: few enough that its whole journal can be compared in memory.
const BREAKS: u32 = 12;
/// Kinds of source, which share the minutes of a soak.
const KINDS: u32 = 3;

/// Tells a story once, or, when a soak sets `TIDEMILL_TORMENT_MINUTES`, with one seed after the other for its share.
async fn tell(seed: u64, story: impl AsyncFn(u64)) {
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = set("TIDEMILL_TORMENT_SEED").unwrap_or(seed);
    let share = set("TIDEMILL_TORMENT_MINUTES").map(|minutes| Duration::from_secs(minutes * 60) / KINDS);
    let started = Instant::now();
    for seed in first.. {
        println!("seed {seed}");
        story(seed).await;
        if share.is_none_or(|share| started.elapsed() > share) {
            return;
        }
    }
}

async fn torment(source: &SqlServer, restart_source: impl AsyncFn(), sink: &MySql, nats: &Nats, seed: u64) {
    make_shop(source, 4000).await;
    let source_network = FaultProxy::start(source.addr()).await.unwrap();
    let sink_network = FaultProxy::start(sink.addr()).await.unwrap();
    let mut node = Node::new(&flows(&source_network, &sink_network, nats));
    let stop = Arc::new(AtomicBool::new(false));
    let mut rng = Rng::new(seed);
    node.start();
    let story = async {
        // A moment that depends on the seed, measured in the writer's own progress.
        let beats = async |count: u64| {
            for _ in 0..count {
                let _ = source.query::<u64>("SELECT COUNT(*) FROM shop.orders").await;
            }
        };
        for round in 0..BREAKS {
            beats(rng.below(60) + 5).await;
            match if round < 2 { 0 } else { rng.below(7) } {
                0 | 1 => {
                    node.kill9();
                    node.start();
                }
                2 => {
                    sink.kill9();
                    sink.restart().await.unwrap();
                }
                3 => restart_source().await,
                4 => {
                    nats.kill9();
                    nats.restart().await.unwrap();
                }
                network => {
                    let proxy = if network == 5 { &source_network } else { &sink_network };
                    let fault = if rng.below(2) == 0 { Fault::Cut } else { Fault::HalfOpen };
                    proxy.set(fault).await;
                    beats(rng.below(20) + 1).await;
                    proxy.set(Fault::Pass).await;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write(source, seed ^ 0x5eed, &stop), story);
    assert!(written > 20, "the writer wrote {written} statements");
    settle_and_compare(&node, source, sink, nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_to_four_sinks_survives_every_kill() {
    tell(20_261_124, async |seed| {
        let source = MySql::start(MySqlOptions::default()).await.unwrap();
        let sink = MySql::start(MySqlOptions { server_id: 9, ..MySqlOptions::default() }).await.unwrap();
        let nats = Nats::start(NatsOptions::default()).await.unwrap();
        let kill = async || {
            source.kill9();
            source.restart().await.unwrap();
        };
        torment(&source, kill, &sink, &nats, seed).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_to_four_sinks_survives_every_kill() {
    tell(77, async |seed| {
        let source = MariaDb::start(MariaDbOptions::default()).await.unwrap();
        let sink = MySql::start(MySqlOptions { server_id: 9, ..MySqlOptions::default() }).await.unwrap();
        let nats = Nats::start(NatsOptions::default()).await.unwrap();
        let kill = async || {
            source.kill9();
            source.restart().await.unwrap();
        };
        torment(&source, kill, &sink, &nats, seed).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_without_gtids_to_four_sinks_survives_every_kill() {
    tell(4711, async |seed| {
        let source = MySql::start(MySqlOptions { gtid: false, ..MySqlOptions::default() }).await.unwrap();
        let sink = MySql::start(MySqlOptions { server_id: 9, ..MySqlOptions::default() }).await.unwrap();
        let nats = Nats::start(NatsOptions::default()).await.unwrap();
        let kill = async || {
            source.kill9();
            source.restart().await.unwrap();
        };
        torment(&source, kill, &sink, &nats, seed).await;
    })
    .await;
}
