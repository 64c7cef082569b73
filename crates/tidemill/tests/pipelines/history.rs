//! Binlogs that are not the plain ones: checksums that come and go, transactions out of order, clocks that go backwards.

use crate::node::{Node, assert_dense, mysql_source, run_all, sqlite_rows, streams};
use mysql_async::prelude::Queryable;
use serde_json::Value;
use std::collections::BTreeSet;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

fn copying(server: &SqlServer) -> Node {
    Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ])
}

fn copied(node: &Node, table: &str) -> Vec<String> {
    sqlite_rows(&node.path("copy.db"), &format!("SELECT id || ' ' || v FROM {table} ORDER BY id")).concat()
}

async fn held(server: &SqlServer, table: &str) -> Vec<String> {
    server.query(&format!("SELECT CONCAT(id, ' ', v) FROM shop.{table} ORDER BY id")).await.unwrap()
}

/// Checksums are turned on and off while rows are written, with the node there, away, and killed; `server` has none.
async fn checksums_come_and_go(server: &SqlServer) {
    run_all(server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)"]).await;
    let mut node = copying(server);
    node.start();
    node.wait("streaming", streams).await;
    let mut id = 0;
    for kill in [false, true] {
        for checksum in ["NONE", "CRC32", "CRC32", "NONE", "CRC32"] {
            let mut insert = async || {
                id += 1;
                server.exec(&format!("INSERT INTO shop.a VALUES ({id}, {id})")).await.unwrap();
            };
            insert().await;
            if kill {
                node.kill9();
            }
            insert().await;
            run_all(server, &[&format!("SET GLOBAL binlog_checksum = {checksum}")]).await;
            insert().await;
            run_all(server, &["FLUSH BINARY LOGS"]).await;
            insert().await;
            if kill {
                node.start();
            }
        }
    }
    let wanted = held(server, "a").await;
    assert_eq!(wanted.len(), id);
    node.until("equal", || async { copied(&node, "a") == wanted }).await;
    let changes = node.changes("shop");
    assert_dense(&changes);
    assert_eq!(changes.len(), id, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_of_mysql_may_be_absent_and_change_while_capturing() {
    let args = vec!["--binlog-checksum=NONE".to_owned()];
    checksums_come_and_go(&MySql::start(MySqlOptions { args, ..MySqlOptions::default() }).await.unwrap())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_of_mariadb_may_be_absent_and_change_while_capturing() {
    let args = vec!["--binlog-checksum=NONE".to_owned()];
    checksums_come_and_go(
        &MariaDb::start(MariaDbOptions { args, ..MariaDbOptions::default() }).await.unwrap(),
    )
    .await;
}

/// Tables that the writers of the primary share among them; the first one's rows are held back on the replica.
const TABLES: [&str; 5] = ["held", "b", "c", "d", "e"];

async fn primary_and_replica(keeps_order: &str) -> (MySql, MySql) {
    let primary = MySql::start(MySqlOptions::default()).await.unwrap();
    let args = [
        "--replica-parallel-workers=4".to_owned(),
        format!("--replica-preserve-commit-order={keeps_order}"),
        "--log-replica-updates=ON".to_owned(),
        "--innodb-lock-wait-timeout=600".to_owned(),
    ];
    let options = MySqlOptions { server_id: 2, args: args.to_vec(), ..MySqlOptions::default() };
    let replica = MySql::start(options).await.unwrap();
    primary.exec("CREATE DATABASE shop").await.unwrap();
    for table in TABLES {
        primary.exec(&format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY, v INT)")).await.unwrap();
        primary.exec(&format!("INSERT INTO shop.{table} VALUES (1, 0)")).await.unwrap();
    }
    replica.replica_of(&primary).await.unwrap();
    replica.caught_up_with(&primary).await.unwrap();
    (primary, replica)
}

/// Four sessions write to the primary at once.
async fn write(primary: &MySql, from: i32) {
    let writer = async |table: &str| {
        let mut conn = primary.conn().await.unwrap();
        for id in from..from + 8 {
            let rows = format!("INSERT INTO shop.{table} VALUES ({id}, 0)");
            conn.query_drop(rows).await.unwrap();
            conn.query_drop(format!("UPDATE shop.{table} SET v = {id} WHERE id = 1")).await.unwrap();
        }
        conn.disconnect().await.unwrap();
    };
    tokio::join!(writer("b"), writer("c"), writer("d"), writer("e"));
}

/// What was captured is what the primary holds, and each of its transactions is there once.
async fn compare(node: &Node, primary: &MySql, replica: &MySql) {
    replica.caught_up_with(primary).await.unwrap();
    for table in TABLES {
        let wanted = held(primary, table).await;
        node.until(table, || async { copied(node, table) == wanted }).await;
    }
    let changes = node.changes("shop");
    assert_dense(&changes);
    // Every transaction of the writers changes one row.
    let streamed = changes.iter().filter(|change| change["txn"]["id"].is_string());
    let ids: Vec<&str> = streamed.map(|change| change["txn"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "no transaction twice");
    let rows: u64 = primary
        .query_one(&format!(
            "SELECT {}",
            TABLES.map(|table| format!("(SELECT COUNT(*) FROM shop.{table})")).join(" + ")
        ))
        .await
        .unwrap();
    let count = |op: &str| changes.iter().filter(|change| change["op"] == op).count() as u64;
    assert_eq!(count("read") + count("insert"), rows);
    let updates = rows - TABLES.len() as u64 + 1;
    assert_eq!(count("update"), updates, "an update for each insert of the writers, and the one that waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_a_replica_commits_out_of_order_are_captured_once_over_kills() {
    let (primary, replica) = primary_and_replica("OFF").await;
    let mut node = copying(&replica);
    node.start();
    node.wait("streaming", streams).await;
    // The replica's worker waits for this row; the others go past it, and leave a hole in what is executed.
    let mut holder = replica.conn().await.unwrap();
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("SELECT * FROM shop.held FOR UPDATE").await.unwrap();
    primary.exec("UPDATE shop.held SET v = 7").await.unwrap();
    let mut from = 10;
    let has_hole = |status: &Value| {
        let gtid = status["sources"][0]["position"]["gtid"].as_str().unwrap_or_default();
        gtid.split(',').any(|set| set.matches(':').count() == 2)
    };
    for _ in 0..3 {
        write(&primary, from).await;
        from += 100;
        node.wait("past the hole", has_hole).await;
        node.kill9();
        write(&primary, from).await;
        from += 100;
        node.start();
    }
    node.wait("past the hole", has_hole).await;
    holder.query_drop("ROLLBACK").await.unwrap();
    node.kill9();
    node.start();
    compare(&node, &primary, &replica).await;
    assert!(!has_hole(&node.status()), "{:#}", node.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_commits_in_order_in_parallel_is_captured_once_over_kills() {
    let (primary, replica) = primary_and_replica("ON").await;
    let mut node = copying(&replica);
    node.start();
    node.wait("streaming", streams).await;
    for round in 0..3 {
        let from = 10 + round * 100;
        tokio::join!(write(&primary, from), async {
            node.kill9();
            node.start();
        });
    }
    primary.exec("UPDATE shop.held SET v = 7").await.unwrap();
    compare(&node, &primary, &replica).await;
}

/// Rows whose commits say that they are of 1970 or 2033, among others of today; `at` sets the clock of a session's next
/// transaction.
async fn times_that_jump(server: &SqlServer, at: impl Fn(u64) -> String) {
    run_all(server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(400))"])
        .await;
    let mut node = copying(server);
    let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    node.write("tidemill.yaml", &(listen + "journal: {segment_bytes: 4KiB, retention: 1h}\n"));
    node.start();
    node.wait("streaming", streams).await;
    let (code, _, err) = node.run(&["flow", "pause", "to_file"]);
    assert_eq!(code, 0, "{err}");
    let mut id = 0;
    let mut write = async |clock: Option<u64>| {
        let mut conn = server.conn().await.unwrap();
        for _ in 0..30 {
            if let Some(seconds) = clock {
                conn.query_drop(at(seconds)).await.unwrap();
            }
            id += 1;
            let row = format!("INSERT INTO shop.a VALUES ({id}, REPEAT('x', 300))");
            conn.query_drop(row).await.unwrap();
        }
        conn.disconnect().await.unwrap();
    };
    // Each some segments of the journal; all of them are minutes old at most, whatever they say.
    for clock in [Some(1), None, Some(1_000_000_000), Some(2_000_000_000), Some(2), None] {
        write(clock).await;
    }
    node.wait("captured", |s| s["sources"][0]["lsn"] == 180).await;
    // Retention looks when a node starts, and then tells how large the journal is.
    node.stop();
    node.start();
    node.until("retention has looked", || async {
        let Ok(answer) = reqwest::get(format!("http://{}/metrics", node.address())).await else {
            return false;
        };
        answer.text().await.unwrap().lines().any(|line| line.starts_with("tidemill_flow_journal_bytes{"))
    })
    .await;
    let segments = std::fs::read_dir(node.path("data/journal/shop")).unwrap().count();
    assert!(segments > 6, "nothing here is old, but {segments} segments are left");
    node.run(&["flow", "resume", "to_file"]);
    let wanted = held(server, "a").await;
    node.until("equal", || async { copied(&node, "a") == wanted }).await;
    let status = node.status();
    let lag = |kind: &str| status[kind][0]["lag_ms"].as_u64();
    assert_eq!((lag("sources"), lag("flows")), (Some(0), Some(0)), "{status:#}");
    let changes = node.changes("shop");
    assert_dense(&changes);
    let times: Vec<i64> = changes.iter().map(|change| change["ts_ms"].as_i64().unwrap()).collect();
    assert!(
        times.windows(2).filter(|pair| pair[1] < pair[0]).count() == 2,
        "the test made other jumps: {times:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_mysql_whose_times_jump_are_kept_and_delivered() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    times_that_jump(&server, |seconds| format!("SET original_commit_timestamp = {}", seconds * 1_000_000))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_mariadb_whose_times_jump_are_kept_and_delivered() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    times_that_jump(&server, |seconds| format!("SET timestamp = {seconds}")).await;
}
