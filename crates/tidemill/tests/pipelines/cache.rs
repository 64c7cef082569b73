//! Applications that read through the cache are never shown what is older than what was delivered, and neither keeps Redis.

use crate::node::{Node, mysql_source, run_all};
use crate::random::Rng;
use crate::redis::{ask, client};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use testkit::mysql_async::prelude::Queryable;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, Redis, RedisOptions, SqlServer};

/// Rows that the race is about: few, so that they meet.
const ROWS: u64 = 6;
const WRITES: u64 = 600;
const READERS: u64 = 4;
/// Fewer answers would say little.
const READ_MIN: usize = 100;

/// Status, `tidemill-from`, body.
async fn get(node: &Node, path: &str) -> (u16, String, Value) {
    let answer = reqwest::get(format!("http://{}/api/v1/cache/{path}", node.address())).await.unwrap();
    let from = answer.headers().get("tidemill-from").map(|from| from.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    if status == 503 {
        assert!(answer.headers().contains_key("retry-after"));
    }
    (status, from.unwrap_or_default(), answer.json().await.unwrap())
}

async fn settled(node: &Node) {
    node.wait("everything is delivered", |s| {
        s["sources"][0]["snapshot"]["state"] == "done"
            && s["flows"].as_array().is_some_and(|flows| {
                flows.iter().all(|flow| flow["lsn"] == s["sources"][0]["lsn"] && flow["lsn"] != 0)
            })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_redis_lacks_is_read_through_the_flows_rules_and_kept() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, phone VARCHAR(20), hidden INT NOT NULL)",
            "CREATE TABLE shop.pairs (a VARCHAR(9), b INT, note TEXT, PRIMARY KEY (a, b))",
            "INSERT INTO shop.t VALUES (1, '13812345678', 0), (2, '13912345678', 1)",
            "INSERT INTO shop.pairs VALUES ('k:1%', 7, 'x')",
            // No more than capture needs.
            "CREATE USER cdc@'%' IDENTIFIED BY 'secret'",
            "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO cdc@'%'",
            "SET GLOBAL log_output = 'TABLE'",
            "SET GLOBAL general_log = ON",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&format!("mysql://cdc:secret@{}", server.addr()), "shop.*")),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        (
            "flows/a.yaml",
            "from: shop\nto: cache\ntables: [\"shop.t\"]\ntransform:\n  - filter: \"hidden = 0\"\n  - mask: {phone: partial}\n"
                .into(),
        ),
        ("flows/b.yaml", "from: shop\nto: cache\noptions: {type: json, key: \"doc:{table}/{key}\"}\n".into()),
        ("flows/c.yaml", "from: shop\nto: cache\noptions: {type: set, key: all}\n".into()),
    ]);
    node.start();
    settled(&node).await;
    let reads = async || {
        let sql = "SELECT COUNT(*) FROM mysql.general_log WHERE command_type = 'Execute' AND argument LIKE '%SHARE MODE'";
        server.query_one::<u64>(sql).await.unwrap()
    };

    // There already, then filled, then there again.
    let row = json!({"id": "1", "phone": "138****5678", "hidden": "0"});
    let (status, from, body) = get(&node, "a/1").await;
    assert_eq!((status, &*from, &body["row"]), (200, "cache", &row), "{body}");
    assert_eq!(reads().await, 0);
    let _: () = ask(&client, &["DEL", "shop:t:1"]).await;
    for from in ["source", "cache"] {
        let (status, got, body) = get(&node, "a/1").await;
        assert_eq!((status, &*got, &body["from"], &body["row"]), (200, from, &json!(from), &row), "{body}");
        assert_eq!(body["version"].as_str().unwrap().len(), 31, "{body}");
    }
    assert_eq!(ask::<String>(&client, &["HGET", "shop:t:1", "phone"]).await, "138****5678");
    let listed: Option<f64> = ask(&client, &["ZSCORE", "tidemill:keys:a:shop.t", "shop:t:1"]).await;
    assert_eq!(listed, Some(0.0), "TRUNCATE finds the row");

    // What the flow leaves out, and what is not there, is not served, and is asked for once.
    let before = reads().await;
    for id in ["2", "3"] {
        for from in ["source", "negative", "negative"] {
            let (status, got, body) = get(&node, &format!("a/{id}")).await;
            assert_eq!((status, &*got, &body["code"]), (404, from, &json!("not_found")), "{body}");
        }
        let listed: Option<f64> =
            ask(&client, &["ZSCORE", "tidemill:keys:a:shop.t", &format!("shop:t:{id}")]).await;
        assert_eq!(listed, None);
    }
    assert_eq!(reads().await, before + 2);
    run_all(
        &server,
        &["INSERT INTO shop.t VALUES (3, NULL, 0)", "UPDATE shop.t SET hidden = 0 WHERE id = 2"],
    )
    .await;
    settled(&node).await;
    for id in ["2", "3"] {
        let (status, from, body) = get(&node, &format!("a/{id}")).await;
        assert_eq!((status, &*from), (200, "cache"), "{body}");
    }

    // A key of several columns, in a JSON string.
    let key = "k%253A1%2525:7?table=shop.pairs";
    let row = json!({"a": "k:1%", "b": 7, "note": "x"});
    let _: () = ask(&client, &["DEL", "doc:pairs/k%3A1%25:7"]).await;
    for from in ["source", "cache"] {
        let (status, got, body) = get(&node, &format!("b/{key}")).await;
        assert_eq!((status, &*got, &body["row"]), (200, from, &row), "{body}");
    }

    for (path, status, code) in [
        ("nope/1", 404, "not_found"),
        ("c/1?table=shop.t", 412, "failed_precondition"),
        ("b/1", 400, "invalid"),
        ("b/1?table=shop.pairs", 400, "invalid"),
        ("b/1:2:3?table=shop.pairs", 400, "invalid"),
        ("a/1?table=mysql.user", 400, "invalid"),
        ("a/abc", 400, "invalid"),
        ("a/007", 400, "invalid"),
        ("a/1%20OR%201=1", 400, "invalid"),
        (&format!("a/{}", "1".repeat(4000)), 400, "invalid"),
    ] {
        let (got, _, body) = get(&node, path).await;
        assert_eq!((got, &body["code"]), (status, &json!(code)), "{path} {body}");
        assert!(!body["hint"].as_str().unwrap().is_empty(), "{path}");
    }

    // A hundred that ask at once make one read. Its row is locked, so that they meet.
    let _: () = ask(&client, &["DEL", "shop:t:1"]).await;
    let before = reads().await;
    let mut writer = server.conn().await.unwrap();
    writer.query_drop("BEGIN").await.unwrap();
    let sql = "UPDATE shop.t SET phone = '13100000000' WHERE id = 1";
    writer.query_drop(sql).await.unwrap();
    let asked = futures_util::future::join_all((0..100).map(|_| get(&node, "a/1")));
    let commit = async {
        node.until("the read waits for the row", || async { reads().await > before }).await;
        writer.query_drop("COMMIT").await.unwrap();
    };
    let (answers, ()) = tokio::join!(asked, commit);
    for (status, _, body) in answers {
        assert_eq!((status, &body["row"]["phone"]), (200, &json!("131****0000")), "{body}");
    }
    assert_eq!(reads().await, before + 1);

    // Without its source, Redis still answers, also when the node has just begun.
    settled(&node).await;
    let _: () = ask(&client, &["DEL", "shop:t:3"]).await;
    server.kill9();
    for restarted in [false, true] {
        if restarted {
            node.kill9();
            node.start();
            node.wait("the node answers", |s| s["flows"].is_array()).await;
        }
        assert_eq!(get(&node, "a/1").await.0, 200);
        let (status, _, body) = get(&node, "a/3").await;
        assert_eq!((status, &body["code"]), (503, &json!("unavailable")), "{body}");
    }
    let asked: Vec<String> = ask(&client, &["KEYS", "tidemill:asked:*"]).await;
    assert!(asked.is_empty(), "a read that failed leaves no lease: {asked:?}");
    redis.kill9();
    assert_eq!(get(&node, "a/1").await.0, 503);
    redis.restart().await.unwrap();
    node.until("Redis is asked again", || async { get(&node, "a/1").await.0 == 200 }).await;
}

/// What a reader saw: the row, how far the flow was before it asked, and the counter in the answer.
struct Seen {
    id: u64,
    delivered: u64,
    counter: Option<u64>,
}

/// The lsn of the flow's progress; 0 where there is none.
async fn delivered(client: &MultiplexedConnection) -> u64 {
    let text: Option<String> = ask(client, &["GET", "tidemill:progress:a"]).await;
    text.and_then(|text| text.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_through_never_sees_or_keeps_what_is_older_than_what_was_delivered() {
    race(&MySql::start(MySqlOptions::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_mariadb() {
    race(&MariaDb::start(MariaDbOptions::default()).await.unwrap()).await;
}

async fn race(server: &SqlServer) {
    let seed = std::env::var("TIDEMILL_TORMENT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_127);
    println!("seed {seed}");
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    run_all(server, &["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY, n BIGINT NOT NULL)"])
        .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        ("flows/a.yaml", "from: shop\nto: cache\ntables: [\"shop.t\"]\n".into()),
    ]);
    node.start();
    run_all(server, &["INSERT INTO shop.t VALUES (0, 0)"]).await;
    settled(&node).await;
    let client = client(&redis).await;
    let stop = AtomicBool::new(false);
    let answers = AtomicUsize::new(0);
    let writer = async {
        let mut rng = Rng::new(seed);
        let mut conn = server.conn().await.unwrap();
        // A slow machine writes until enough has been read.
        for n in 1..=100 * WRITES {
            if n > WRITES && answers.load(Ordering::Relaxed) > 2 * READ_MIN {
                break;
            }
            let id = rng.below(ROWS);
            let sql = match rng.below(40) {
                0..10 => format!("DELETE FROM shop.t WHERE id = {id}"),
                10 => "TRUNCATE TABLE shop.t".to_owned(),
                _ => format!("REPLACE INTO shop.t VALUES ({id}, {n})"),
            };
            conn.query_drop(sql).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let readers = futures_util::future::join_all((0..READERS).map(|reader| {
        let (client, node, stop, answers) = (client.clone(), &node, &stop, &answers);
        async move {
            let mut rng = Rng::new(seed ^ (reader + 1));
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let id = rng.below(ROWS);
                if rng.below(2) == 0 {
                    let _: () = ask(&client, &["DEL", &format!("shop:t:{id}")]).await;
                }
                let delivered = delivered(&client).await;
                let (status, _, body) = get(node, &format!("a/{id}")).await;
                let counter = match status {
                    200 => Some(body["row"]["n"].as_str().unwrap().parse().unwrap()),
                    404 => None,
                    _ => continue,
                };
                answers.fetch_add(1, Ordering::Relaxed);
                seen.push(Seen { id, delivered, counter });
            }
            seen
        }
    }));
    let ((), seen) = tokio::join!(writer, readers);
    settled(&node).await;
    // What Redis kept is the source's, and what it lacks is read from there.
    let rows: Vec<(u64, u64)> = server.query("SELECT id, n FROM shop.t").await.unwrap();
    let rows: BTreeMap<u64, u64> = rows.into_iter().collect();
    for id in 0..ROWS {
        let kept: Option<u64> = ask(&client, &["HGET", &format!("shop:t:{id}"), "n"]).await;
        assert!(kept.is_none() || kept == rows.get(&id).copied(), "row {id}: {kept:?}, source {rows:?}");
        let (status, _, body) = get(&node, &format!("a/{id}")).await;
        let counter = (status == 200).then(|| body["row"]["n"].as_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(counter, rows.get(&id).copied(), "{body}");
    }
    node.stop();
    let changes = node.changes("shop");
    let states = |id: u64| {
        changes.iter().filter_map(move |change| {
            let lsn = change["lsn"].as_u64()?;
            match change["op"].as_str()? {
                "truncate" => Some((lsn, None)),
                _ if change["key"]["id"].as_u64() == Some(id) => Some((lsn, change["after"]["n"].as_u64())),
                _ => None,
            }
        })
    };
    let states: Vec<Vec<(u64, Option<u64>)>> = (0..ROWS).map(|id| states(id).collect()).collect();
    let mut read = 0;
    for Seen { id, delivered, counter } in seen.into_iter().flatten() {
        read += 1;
        let states = &states[id as usize];
        let first = states.iter().rposition(|(lsn, _)| *lsn <= delivered);
        let none_yet = first.is_none() && counter.is_none();
        let holds = none_yet || states[first.unwrap_or(0)..].iter().any(|(_, state)| *state == counter);
        assert!(holds, "row {id} was {counter:?} when {delivered} was delivered: {states:?}");
    }
    assert!(read > READ_MIN, "{read} answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_is_not_filled_before_the_flow_begins_anew() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, n BIGINT NOT NULL)",
            "INSERT INTO shop.t VALUES (1, 1)",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        ("flows/a.yaml", "from: shop\nto: cache\ntables: [\"shop.t\"]\n".into()),
    ]);
    node.start();
    settled(&node).await;
    let _: () = ask(&client, &["FLUSHALL"]).await;
    for n in 2..5 {
        run_all(&server, &[&format!("UPDATE shop.t SET n = {n}")]).await;
        let (status, from, body) = get(&node, "a/1").await;
        assert_eq!((status, &*from, &body["row"]["n"]), (200, "source", &json!(n.to_string())), "{body}");
        assert_eq!(body["version"], Value::Null);
        assert_eq!(ask::<Vec<String>>(&client, &["KEYS", "shop:*"]).await, [""; 0]);
    }
    node.wait("the flow says so", |s| s["flows"][0]["state"] == "failed").await;
    let (code, _, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{err}");
    node.until("the row is back", || async { get(&node, "a/1").await.1 == "cache" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_cannot_be_asked_answers_what_redis_has() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        ("flows/a.yaml", "from: shop\nto: cache\ntables: [\"shop.t\"]\n".into()),
    ]);
    let file = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    file.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 7)")
        .unwrap();
    node.start();
    node.wait("delivered", |s| s["flows"][0]["lag_changes"] == 0 && s["flows"][0]["lsn"] != 0).await;
    let (status, from, body) = get(&node, "a/1").await;
    assert_eq!((status, &*from, &body["row"]), (200, "cache", &json!({"id": "1", "n": "7"})), "{body}");
    // A row that Redis lost, and one that never was: neither is told as absent.
    let _: () = ask(&client, &["DEL", "shop:t:1"]).await;
    for id in ["1", "2", "2"] {
        let (status, _, body) = get(&node, &format!("a/{id}")).await;
        assert_eq!((status, &body["code"]), (412, &json!("failed_precondition")), "{body}");
        assert!(body["detail"].as_str().unwrap().contains("the source `shop` cannot be asked"), "{body}");
    }
    // The next change of the row is delivered as ever.
    file.execute_batch("UPDATE t SET n = 8").unwrap();
    node.until("it is there again", || async { get(&node, "a/1").await.2["row"]["n"] == "8" }).await;
}
