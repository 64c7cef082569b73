//! Sinks that did what they were asked, and whose answer never came or came late: nothing is lost, nothing done twice.

use crate::kill::stream_lsns;
use crate::node::{Node, assert_dense, mysql_source, streams};
use crate::random::Rng;
use mysql_async::prelude::Queryable;
use serde_json::Value;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{Fault, FaultProxy, MySql, MySqlOptions, Nats, NatsOptions, SqlServer};

const ORDERS: &str = "orders ORDER BY id";
/// Without a key, so that a row which is written twice stands there twice.
const LOG: &str = "log ORDER BY n, id";

async fn shop() -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE shop.log (id INT, n INT)",
    ] {
        server.exec(sql).await.unwrap();
    }
    server
}

/// Writes statements until told to stop; the number of the next one.
async fn write(server: &SqlServer, rng: &mut Rng, first: u64, stop: impl Fn(u64) -> bool) -> u64 {
    let mut conn = server.conn().await.unwrap();
    let mut n = first;
    while !stop(n) {
        let id = rng.below(200);
        let sql = match rng.below(4) {
            0 => format!("REPLACE INTO shop.orders VALUES ({id}, {n})"),
            1 => format!("UPDATE shop.orders SET n = {n} WHERE id BETWEEN {id} AND {}", id + 5),
            2 => format!("DELETE FROM shop.orders WHERE id = {id}"),
            _ => format!("INSERT INTO shop.log VALUES ({id}, {n})"),
        };
        conn.query_drop(sql).await.unwrap();
        n += 1;
    }
    n
}

async fn rows(server: &SqlServer, db: &str, table: &str) -> Vec<(i32, i32)> {
    server.query(&format!("SELECT id, n FROM {db}.{table}")).await.unwrap_or_default()
}

/// How far the sink says that each flow is, and how far the node knows.
async fn standings(node: &Node, sink: &SqlServer) -> Vec<(String, u64, u64)> {
    let done: Vec<(String, u64)> =
        sink.query("SELECT flow, lsn FROM tidemill.tidemill_progress").await.unwrap_or_default();
    let url = format!("http://{}/api/v1/flows", node.address());
    let Ok(answer) = reqwest::get(url).await else { return Vec::new() };
    let flows: Vec<Value> = answer.json().await.unwrap();
    let known =
        |name: &str| flows.iter().find(|flow| flow["name"] == name).and_then(|flow| flow["lsn"].as_u64());
    done.into_iter().filter_map(|(name, lsn)| known(&name).map(|known| (name, lsn, known))).collect()
}

/// Commits that were done and not answered, before the test is content.
const UNANSWERED: usize = 4;
/// One statement in five is a COMMIT: each round has a fair chance.
const ROUNDS_MAX: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_whose_answers_are_lost_again_and_again_take_effect_once() {
    let seed = 20_261_126;
    println!("seed {seed}");
    let source = shop().await;
    let sink = MySql::start(MySqlOptions { server_id: 9, ..MySqlOptions::default() }).await.unwrap();
    let network = FaultProxy::start(sink.addr()).await.unwrap();
    let flow = |more: &str| format!("from: shop\nto: db\nroute: {{\"shop.*\": \"{more}\n");
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: mysql://root@{}\n", network.addr())),
        ("flows/rows.yaml", flow("copy.*\"}\noptions: {batch_rows: 2}")),
        ("flows/history.yaml", flow("past.*\"}\noptions: {batch_rows: 2, history: true}")),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    let (mut rng, mut statements) = (Rng::new(seed), Rng::new(seed ^ 0x5eed));
    let beats = async |count: u64| {
        for _ in 0..count {
            let _ = sink.query::<u64>("SELECT COUNT(*) FROM copy.orders").await;
        }
    };
    let (mut unanswered, mut n) = (0, 1);
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "only {unanswered} commits were not answered");
        let (before, during, cut) = (rng.below(12), rng.below(4) + 2, rng.below(4) == 0);
        let end = n + 20;
        let break_it = async {
            beats(before).await;
            network.set(if cut { Fault::Cut } else { Fault::Unanswered }).await;
            beats(during).await;
            unanswered +=
                standings(&node, &sink).await.iter().filter(|(_, done, known)| done > known).count();
            network.set(Fault::Pass).await;
        };
        (n, ()) = tokio::join!(write(&source, &mut statements, n, |n| n == end), break_it);
        if unanswered >= UNANSWERED {
            break;
        }
        let at = standings(&node, &sink).await;
        // Where they have delivered everything by now, there is nothing to go on with.
        let at_the_end = |s: &Value| (0..2).all(|i| s["flows"][i]["lag_changes"] == 0);
        node.until("both flows go on", || async {
            if at_the_end(&node.status()) {
                return true;
            }
            let now = standings(&node, &sink).await;
            let goes_on = |(name, _, known): &(String, u64, u64)| {
                at.iter().all(|(same, _, before)| name != same || known > before)
            };
            now.len() == 2 && now.iter().all(goes_on)
        })
        .await;
    }
    source.exec("REPLACE INTO shop.orders VALUES (9999, 1)").await.unwrap();
    let done = |s: &Value| (0..2).all(|i| s["flows"][i]["lag_changes"] == 0);
    node.until("the end has come", || async { rows(&sink, "copy", ORDERS).await.last() == Some(&(9999, 1)) })
        .await;
    let status = node.wait("all is delivered", done).await;
    for table in [ORDERS, LOG] {
        assert_eq!(rows(&sink, "copy", table).await, rows(&source, "shop", table).await, "{table}");
    }
    let history = "SELECT CAST(lsn AS UNSIGNED) FROM past.tidemill_history_orders UNION ALL \
                   SELECT CAST(lsn AS UNSIGNED) FROM past.tidemill_history_log ORDER BY 1";
    let lsns: Vec<u64> = sink.query(history).await.unwrap();
    let last = status["sources"][0]["lsn"].as_u64().unwrap();
    assert_eq!(lsns, (1..=last).collect::<Vec<_>>(), "each change once in the history");
    assert_dense(&node.changes("shop"));
}

/// Statements that run in the sink, but for those of the test itself.
async fn running(sink: &SqlServer) -> Vec<(String, String)> {
    let sql = "SELECT info, state FROM information_schema.processlist \
               WHERE info IS NOT NULL AND info NOT LIKE '%processlist%' AND info NOT LIKE 'FLUSH%'";
    sink.query(sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_sink_finishes_after_the_connection_is_gone_is_not_repeated() {
    let source = shop().await;
    let sink = MySql::start(MySqlOptions { server_id: 9, ..MySqlOptions::default() }).await.unwrap();
    let network = FaultProxy::start(sink.addr()).await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: mysql://root@{}\n", network.addr())),
        ("flows/rows.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    source.exec("INSERT INTO shop.log VALUES (1, 1)").await.unwrap();
    node.until("delivered", || async { rows(&sink, "copy", LOG).await.len() == 1 }).await;
    // Someone backs the sink up, in the moment between the flow's last statement and its COMMIT: that waits.
    let (mut holder, mut backup) = (sink.conn().await.unwrap(), sink.conn().await.unwrap());
    let mut n = 1;
    loop {
        n += 1;
        holder.query_drop("BEGIN").await.unwrap();
        holder.query_drop("SELECT * FROM tidemill.tidemill_progress FOR UPDATE").await.unwrap();
        source.exec(&format!("INSERT INTO shop.log VALUES ({n}, {n})")).await.unwrap();
        let progress = |info: &str| info.starts_with("INSERT INTO `tidemill`.`tidemill_progress`");
        node.until("the flow notes its progress", || async {
            running(&sink).await.iter().any(|(info, _)| progress(info))
        })
        .await;
        let locked = async { backup.query_drop("FLUSH TABLES WITH READ LOCK").await.unwrap() };
        let let_go = async {
            node.until("the backup waits", || async {
                let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'FLUSH%' \
                           AND state = 'Waiting for global read lock'";
                sink.query_one::<u64>(sql).await.unwrap() == 1
            })
            .await;
            holder.query_drop("ROLLBACK").await.unwrap();
        };
        tokio::join!(locked, let_go);
        let commit_waits = Cell::new(false);
        node.until("the commit waits, or was first", || async {
            let commit = |(info, state): &(String, String)| info == "COMMIT" && state.starts_with("Waiting");
            commit_waits.set(running(&sink).await.iter().any(commit));
            commit_waits.get() || rows(&sink, "copy", LOG).await.len() == n as usize
        })
        .await;
        if commit_waits.get() {
            break;
        }
        backup.query_drop("UNLOCK TABLES").await.unwrap();
    }
    network.set(Fault::Cut).await;
    network.set(Fault::Pass).await;
    node.until("the flow is back, and waits too", || async {
        running(&sink).await.iter().any(|(info, state)| info != "COMMIT" && state.starts_with("Waiting"))
    })
    .await;
    backup.query_drop("UNLOCK TABLES").await.unwrap();
    source.exec("INSERT INTO shop.log VALUES (0, 1000)").await.unwrap();
    node.until("the end has come", || async { rows(&sink, "copy", LOG).await.last() == Some(&(0, 1000)) })
        .await;
    assert_eq!(rows(&sink, "copy", LOG).await, rows(&source, "shop", LOG).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_server_is_killed_again_and_again_holds_each_message_once() {
    let seed = 4_242;
    println!("seed {seed}");
    let source = shop().await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/events.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("flows/events.yaml", "from: shop\nto: events\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    let stop = AtomicBool::new(false);
    let mut rng = Rng::new(seed);
    let story = async {
        for _ in 0..6 {
            // In the middle of the flow, not while it still looks for the server.
            let behind = node.status()["flows"][0]["lsn"].as_u64().unwrap_or_default() + rng.below(200);
            node.wait("messages flow", |s| s["flows"][0]["lsn"].as_u64() > Some(behind)).await;
            nats.kill9();
            nats.restart().await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let mut statements = Rng::new(seed ^ 0x5eed);
    let stopped = |_| stop.load(Ordering::Relaxed);
    let (written, ()) = tokio::join!(write(&source, &mut statements, 1, stopped), story);
    assert!(written > 20, "the writer wrote {written} statements");
    source.exec("INSERT INTO shop.log VALUES (0, 0)").await.unwrap();
    node.until("the last message", || async {
        node.changes("shop").last().is_some_and(|change| change["after"]["n"] == 0)
    })
    .await;
    let status = node.wait("all is delivered", |s| s["flows"][0]["lag_changes"] == 0).await;
    let last = status["sources"][0]["lsn"].as_u64().unwrap();
    assert_eq!(stream_lsns(&nats, "TIDEMILL_EVENTS").await, (1..=last).collect::<Vec<_>>());
}
