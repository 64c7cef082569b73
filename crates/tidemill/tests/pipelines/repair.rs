//! `flow verify --repair`: what differs is journaled again and delivered, also while it changes, and whatever is killed.

use crate::elasticsearch::must;
use crate::node::{Node, mysql_source, run_all};
use crate::redis::{ask, client_of};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{
    Kafka, KafkaOptions, MariaDb, MariaDbOptions, MySql, MySqlOptions, OpenSearch, OpenSearchOptions, Redis,
    RedisOptions, SqlServer,
};

const SHOP: [&str; 4] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.users (id INT PRIMARY KEY, level INT, note VARCHAR(40))",
    "INSERT INTO shop.users WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
     SELECT i, i % 5, CONCAT('note ', i) FROM n",
    "CREATE TABLE shop.names (name VARCHAR(30) COLLATE utf8mb4_general_ci, day DATE, level INT, note VARCHAR(9), PRIMARY KEY (name, day))",
];

async fn start(server: &SqlServer, sink: &str, flow: &str, more: &[(&str, String)]) -> Node {
    let mut files = vec![
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/end.yaml", sink.to_owned()),
        ("flows/end.yaml", format!("from: shop\nto: end\nroute: {{\"shop.*\": \"copy.*\"}}\n{flow}")),
    ];
    files.extend(more.iter().cloned());
    let mut node = Node::new(&files);
    node.start();
    delivered(&node).await;
    node
}

async fn delivered(node: &Node) {
    let still = |s: &Value| {
        s["flows"].as_array().into_iter().flatten().all(|f| f["lag_changes"] == 0 && f["lsn"] != 0)
    };
    node.wait("all is delivered", |s| s["sources"][0]["state"] == "stream" && still(s)).await;
}

fn verify(node: &Node, repair: bool) -> (i32, Value) {
    let args = ["flow", "verify", "end", "--json", "--repair"];
    let (code, out, err) = node.run(&args[..if repair { 5 } else { 4 }]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({ "error": err })))
}

/// Of `shop.users`: missing, extra, different, repaired.
fn counts(report: &Value) -> [u64; 4] {
    let tables = report["tables"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let table = tables.iter().find(|t| t["table"] == "shop.users").unwrap();
    ["missing", "extra", "different", "repaired"].map(|kind| table[kind].as_u64().unwrap())
}

/// Nothing is left of 1 missing, 1 extra and 1 different row.
fn all_repaired(node: &Node) {
    let (code, report) = verify(node, false);
    assert_eq!((code, counts(&report)), (4, [1, 1, 1, 0]), "{report:#}");
    let (code, report) = verify(node, true);
    assert_eq!((code, counts(&report)), (0, [0, 0, 0, 3]), "{report:#}\n{}", node.log());
    let table = report["tables"].as_array().unwrap().iter().find(|t| t["table"] == "shop.users").unwrap();
    let told = table["differences"].as_array().unwrap();
    assert!(told.len() == 3 && told.iter().all(|d| d["repaired"] == true), "{report:#}");
    let (code, report) = verify(node, false);
    assert_eq!((code, &report["equal"]), (0, &json!(true)), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_in_a_database_is_repaired() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let maria = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    for source in [&*server, &*maria] {
        run_all(source, &SHOP).await;
        run_all(
            source,
            &["INSERT INTO shop.names VALUES ('Ada', '2026-01-01', 1, 'x'), ('bob', '2026-01-02', 2, 'y')"],
        )
        .await;
        let sink = format!("kind: mysql\nurl: {}\n", source.url());
        // Another flow of the same journal hears of it, too.
        let lines = [
            ("sinks/lines.yaml", "kind: files\npath: ./lines\n".to_owned()),
            ("flows/lines.yaml", "from: shop\nto: lines\n".to_owned()),
        ];
        let node = start(source, &sink, "transform:\n  - rename: {note: remark}\n", &lines).await;
        let before = node.changes("shop").len();
        let (code, report) = verify(&node, true);
        assert_eq!((code, counts(&report)), (0, [0, 0, 0, 0]), "{report:#}");
        assert_eq!(node.changes("shop").len(), before, "nothing is journaled where nothing differs");
        let spoil = [
            "DELETE FROM copy.users WHERE id = 10",
            "UPDATE copy.users SET remark = 'spoilt' WHERE id = 700",
            "INSERT INTO copy.users VALUES (5000, 1, 'x')",
            "DELETE FROM copy.names WHERE name = 'bob'",
            "UPDATE copy.names SET level = 9 WHERE name = 'Ada'",
            "INSERT INTO copy.names VALUES ('zoe', '2026-01-03', 3, 'z')",
        ];
        run_all(source, &spoil).await;
        all_repaired(&node);
        let changes = node.changes("shop");
        let new: Vec<(&Value, &Value)> = changes[before..].iter().map(|c| (&c["op"], &c["key"])).collect();
        assert_eq!(new.len(), 6, "{new:#?}");
        assert!(new.contains(&(&json!("read"), &json!({"id": 700}))), "{new:#?}");
        assert!(new.contains(&(&json!("delete"), &json!({"id": 5000}))), "{new:#?}");
        delivered(&node).await;
        run_all(source, &["DELETE FROM copy.users WHERE id = 20"]).await;
        let (code, out, err) = node.run(&["flow", "verify", "end", "--repair"]);
        assert!(
            code == 0 && out.contains("REPAIRED") && out.contains("missing {\"id\":20}, repaired"),
            "{out}{err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_and_keys_are_repaired_whatever_version_someone_gave_them() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &SHOP).await;
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let node = start(&server, &format!("kind: elasticsearch\nurl: {}\n", search.url()), "", &[]).await;
    let doc = |id: u32| format!("/copy.users/_doc/{id}");
    must(&search, "DELETE", &doc(10), Value::Null).await;
    for _ in 0..2 {
        must(&search, "PUT", &doc(900), json!({"id": 900, "level": 0, "note": "spoilt"})).await;
    }
    must(&search, "PUT", &doc(5000), json!({"id": 5000, "note": "planted"})).await;
    all_repaired(&node);
    drop(node);

    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client_of(&redis.url()).await.unwrap();
    let run = async |words: &[&str]| ask::<redis::Value>(&client, words).await;
    let node = start(&server, &format!("kind: redis\nurl: {}\n", redis.url()), "", &[]).await;
    run(&["DEL", "copy:users:10"]).await;
    run(&["HSET", "copy:users:11", "note", "spoilt"]).await;
    run(&["HSET", "copy:users:5000", "id", "5000"]).await;
    all_repaired(&node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_repair_cannot_mend_is_left_and_told() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &SHOP).await;
    let sink = format!("kind: mysql\nurl: {}\n", server.url());
    let node = start(&server, &sink, "transform:\n  - filter: \"level < 4\"\n", &[]).await;
    // Rows that the flow leaves out, one that the source has not, and one that is repaired.
    run_all(
        &server,
        &[
            "INSERT INTO copy.users VALUES (4, 4, 'left out'), (5000, 1, 'planted')",
            "DELETE FROM copy.users WHERE id = 10",
        ],
    )
    .await;
    let (code, report) = verify(&node, true);
    assert_eq!((code, counts(&report)), (4, [0, 2, 0, 1]), "{report:#}");
    let tables = report["tables"].as_array().unwrap();
    let why = tables.iter().find_map(|table| table["unrepaired"].as_str()).unwrap();
    assert!(why.contains("the flow has a `filter`"), "{why}");
    let ask = |body: &str| {
        let url = format!("http://{}/api/v1/flows/end:repair", node.address());
        let request = reqwest::Client::new().post(url).body(body.to_owned());
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    for (body, status, wanted) in [
        ("{\"table\": \"shop.users\", \"keys\": [{\"name\": 1}]}", 412, "a key lacks its column `id`"),
        ("{\"table\": \"shop.users\", \"keys\": [{\"id\": \"one\"}]}", 412, "a key's `id` is no int"),
        ("{\"table\": \"shop.nothing\", \"keys\": [{\"id\": 1}]}", 412, "it is not captured"),
        ("{\"table\": \"shop.users\", \"keys\": []}", 400, "1 to 1000 keys"),
        ("{\"table\": \"shop.users\", \"keys\": [{\"id\": 1}]}", 200, "\"rows\":1"),
        ("{\"table\": \"shop.users\", \"keys\": [{\"id\": 7777}]}", 200, "\"rows\":0"),
    ] {
        let (code, text) = ask(body).await;
        assert!(code == status && text.contains(wanted), "{body}: {code} {text}");
    }
    drop(node);

    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let sink = format!("kind: kafka\nurl: {}\n", kafka.url());
    let node = start(&server, &sink, "options: {topic: \"t.{table}\", partitions: 1}\n", &[]).await;
    let key = |id: u32| format!("{{\"id\":{id}}}");
    let spoilt = "{\"op\":\"update\",\"db\":\"copy\",\"table\":\"users\",\"key\":{\"id\":11},\"before\":null,\
                  \"after\":{\"id\":11,\"level\":1,\"note\":\"spoilt\"}}";
    kafka.produce("t.users", 0, &[(Some(&key(10)), None), (Some(&key(11)), Some(spoilt))]).await.unwrap();
    let (code, report) = verify(&node, false);
    assert_eq!((code, counts(&report)), (4, [1, 0, 1, 0]), "{report:#}");
    let (code, report) = verify(&node, true);
    assert_eq!((code, counts(&report)), (0, [0, 0, 0, 2]), "{report:#}");
}

/// Makes every row's `level` greater, for ever.
async fn count_up(server: &SqlServer, stop: &AtomicBool) {
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let (from, id) = (n * 37 % 900, n * 7919 % 900);
        run_all(
            server,
            &[
                &format!("UPDATE shop.users SET level = level + 1 WHERE id BETWEEN {from} AND {}", from + 30),
                &format!("UPDATE shop.users SET level = level + 1 WHERE id = {id}"),
            ],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_goes_back_while_rows_that_change_are_repaired() {
    let server = Arc::new(MySql::start(MySqlOptions::default()).await.unwrap());
    run_all(&server, &SHOP).await;
    let sink = format!("kind: mysql\nurl: {}\n", server.url());
    let node = start(&server, &sink, "", &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        async move { count_up(&server, &stop).await }
    });
    let reader = tokio::spawn({
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        async move {
            let mut seen: HashMap<u64, i64> = HashMap::new();
            let mut looks = 0;
            while !stop.load(Ordering::Relaxed) {
                let rows: Vec<(u64, i64)> = server.query("SELECT id, level FROM copy.users").await.unwrap();
                for (id, level) in rows {
                    let before = seen.insert(id, level);
                    assert!(before <= Some(level), "row {id} went from {before:?} back to {level}");
                }
                looks += 1;
            }
            looks
        }
    });
    let mut repaired = 0;
    for round in 0..4 {
        // Only rows are taken away: what they were is not written by anyone but the flow.
        run_all(&server, &[&format!("DELETE FROM copy.users WHERE id % 9 = {round}")]).await;
        let (code, report) = verify(&node, true);
        assert!(code == 0 || code == 4, "{code} {report:#}");
        repaired += counts(&report)[3];
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let looks = reader.await.unwrap();
    println!("{repaired} rows repaired, {looks} looks at them");
    assert!(repaired > 0, "rows were repaired while they changed");
    let (code, report) = verify(&node, true);
    assert_eq!(code, 0, "{report:#}");
    let differ = "SELECT COUNT(*) FROM shop.users s LEFT JOIN copy.users c ON s.id = c.id AND s.level = c.level WHERE c.id IS NULL";
    assert_eq!(server.query::<u64>(differ).await.unwrap(), [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_a_kill_interrupted_is_repeated() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &SHOP).await;
    let more = "INSERT INTO shop.users WITH RECURSIVE n(i) AS (SELECT 1001 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                SELECT i, 0, 'more' FROM n";
    run_all(&server, &[more, &more.replace("1001", "2001").replace("< 2000", "< 3000")]).await;
    let mut node = start(&server, &format!("kind: mysql\nurl: {}\n", server.url()), "", &[]).await;
    run_all(&server, &["DELETE FROM copy.users WHERE id > 500"]).await;
    let whole = node.status()["sources"][0]["lsn"].as_u64().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["flow", "verify", "end", "--repair"])
        .env("TIDEMILL_PROJECT", node.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    node.wait("some rows are journaled again", |s| s["sources"][0]["lsn"].as_u64() > Some(whole)).await;
    node.kill9();
    assert_ne!(command.wait().unwrap().code(), Some(0), "it was interrupted");
    node.start();
    delivered(&node).await;
    let (code, report) = verify(&node, true);
    assert_eq!((code, &report["equal"]), (0, &json!(true)), "{report:#}");
    println!("{} rows were left to the second repair", counts(&report)[3]);
    let rows = "SELECT COUNT(*) FROM copy.users c JOIN shop.users s USING (id, level, note)";
    assert_eq!(server.query::<u64>(rows).await.unwrap(), [2900]);
}
