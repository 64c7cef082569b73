//! What a flow had written is taken away from its sink: it is named, never made again in silence, and filled when asked for.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams};
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use testkit::{MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

const ALL: &str = "SELECT id, v FROM a ORDER BY id";

/// Two tables, and flows of both into a database and a SQLite file.
async fn copied(source: &SqlServer, sink: &SqlServer, kind: &str) -> Node {
    run_all(
        source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(40))",
            "CREATE TABLE shop.b (id INT PRIMARY KEY)",
            "INSERT INTO shop.a VALUES (1, 'one'), (2, 'two')",
            "INSERT INTO shop.b VALUES (1)",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: {kind}\nurl: {}\n", sink.url())),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    delivered(&node).await;
    node
}

fn flow<'a>(status: &'a Value, name: &str) -> &'a Value {
    let flows = status["flows"].as_array().map(Vec::as_slice).unwrap_or_default();
    flows.iter().find(|flow| flow["name"] == name).unwrap_or(&Value::Null)
}

async fn delivered(node: &Node) {
    let done = |flow: &Value| flow["lag_changes"] == 0 && flow["state"] == "running" && flow["lsn"] != 0;
    let all = |s: &Value| s["flows"].as_array().is_some_and(|f| !f.is_empty() && f.iter().all(done));
    node.wait("all is delivered", all).await;
}

/// Waits until a flow stands still because of these words, with a hint that has those.
async fn stands(node: &Node, name: &str, message: &str, hint: &str) {
    node.wait(&format!("{name} names {message}"), |s| {
        let error = &flow(s, name)["error"];
        let has = |member: &str, part: &str| error[member].as_str().is_some_and(|text| text.contains(part));
        flow(s, name)["state"] == "failed" && has("message", message) && has("hint", hint)
    })
    .await;
}

fn equal(node: &Node, flow: &str) {
    let (code, out, err) = node.run(&["flow", "verify", flow]);
    assert_eq!(code, 0, "{flow}: {out}{err}");
}

async fn tables(server: &SqlServer) -> Vec<String> {
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'copy' ORDER BY 1";
    server.query(sql).await.unwrap()
}

async fn a_dropped_table(source: &SqlServer, sink: &SqlServer, kind: &str) {
    let mut node = copied(source, sink, kind).await;
    let file = node.path("copy.db");
    // Nobody writes, and it is noticed all the same; then rows come for it.
    run_all(sink, &["DROP TABLE copy.a"]).await;
    Connection::open(&file).unwrap().execute_batch("DROP TABLE a").unwrap();
    stands(&node, "to_db", "`copy.a` is gone from the sink", "flow resnapshot to_db shop.a").await;
    stands(&node, "to_file", "`shop.a` is gone from the sink", "flow resnapshot to_file shop.a").await;
    run_all(source, &["INSERT INTO shop.a VALUES (3, 'three')", "INSERT INTO shop.b VALUES (2)"]).await;
    node.kill9();
    node.start();
    stands(&node, "to_db", "`copy.a` is gone from the sink", "flow resnapshot to_db shop.a").await;
    stands(&node, "to_file", "`shop.a` is gone from the sink", "flow resnapshot to_file shop.a").await;
    assert_eq!(tables(sink).await, ["b"], "nothing is made again in silence");
    let (code, out, err) = node.run(&["flow", "resnapshot", "to_db", "shop.a"]);
    assert_eq!(code, 0, "{out}{err}");
    node.kill9();
    node.start();
    run_all(source, &["UPDATE shop.a SET v = 'new' WHERE id = 1"]).await;
    delivered(&node).await;
    equal(&node, "to_db");
    equal(&node, "to_file");
    assert_eq!(sqlite_rows(&file, ALL), [["1", "new"], ["2", "two"], ["3", "three"]]);
    // What the flow itself takes away and moves is not missed, over a restart too.
    run_all(source, &["DROP TABLE shop.b", "RENAME TABLE shop.a TO shop.c"]).await;
    delivered(&node).await;
    node.until("renamed", || async { tables(sink).await == ["c"] }).await;
    node.kill9();
    node.start();
    run_all(source, &["CREATE TABLE shop.b (id INT PRIMARY KEY)", "INSERT INTO shop.b VALUES (7)"]).await;
    node.until("made again", || async { tables(sink).await == ["b", "c"] }).await;
    delivered(&node).await;
    equal(&node, "to_db");
    equal(&node, "to_file");
    // Progress of an older version has no note: what is there is taken as it is, and noted.
    node.stop();
    run_all(sink, &["DROP TABLE tidemill.tidemill_tables"]).await;
    Connection::open(&file).unwrap().execute_batch("DROP TABLE tidemill_tables").unwrap();
    node.start();
    run_all(source, &["INSERT INTO shop.b VALUES (8)"]).await;
    delivered(&node).await;
    node.until("noted", || async {
        let noted: Vec<String> = sink
            .query("SELECT table_name FROM tidemill.tidemill_tables WHERE here = 1 ORDER BY 1")
            .await
            .unwrap_or_default();
        noted == ["b", "c"]
    })
    .await;
    equal(&node, "to_db");
    equal(&node, "to_file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_someone_dropped_is_named_and_made_again_only_when_it_is_read_anew() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    a_dropped_table(&server, &server, "mysql").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_someone_dropped_from_tidb_is_named_and_made_again_only_when_it_is_read_anew() {
    let source = MySql::start(MySqlOptions::default()).await.unwrap();
    let sink = TiDb::start(TiDbOptions::default()).await.unwrap();
    a_dropped_table(&source, &sink, "tidb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_renamed_behind_its_loss_is_filled_by_its_new_name() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let node = copied(&server, &server, "mysql").await;
    run_all(&server, &["DROP TABLE copy.a", "RENAME TABLE shop.a TO shop.c"]).await;
    run_all(&server, &["INSERT INTO shop.c VALUES (3, 'three')"]).await;
    stands(&node, "to_db", "`copy.a` is gone from the sink", "flow resnapshot to_db shop.c").await;
    let (code, out, err) = node.run(&["flow", "resnapshot", "to_db", "shop.c"]);
    assert_eq!(code, 0, "{out}{err}");
    delivered(&node).await;
    assert_eq!(tables(&server).await, ["b", "c"]);
    equal(&node, "to_db");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_that_lost_all_they_had_are_filled_again_from_the_journal() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let sink = MySql::start(MySqlOptions::default()).await.unwrap();
    let node = copied(&server, &sink, "mysql").await;
    node.write("sinks/lines.yaml", "kind: files\npath: ./lines\n");
    node.write("flows/to_lines.yaml", "from: shop\nto: lines\n");
    let mut node = node;
    node.stop();
    node.start();
    delivered(&node).await;
    let file = node.path("copy.db");
    for wiped in ["while it runs", "while it is down"] {
        let runs = wiped == "while it runs";
        if !runs {
            node.stop();
        }
        run_all(&sink, &["DROP DATABASE copy", "DROP DATABASE tidemill"]).await;
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", file.display()));
        }
        fs::remove_dir_all(node.path("lines")).unwrap();
        if !runs {
            node.start();
        }
        run_all(&server, &["UPDATE shop.a SET v = CONCAT(v, '+')"]).await;
        let wanted: Vec<(i32, String)> = server.query("SELECT id, v FROM shop.a ORDER BY id").await.unwrap();
        let text: Vec<Vec<String>> = wanted.iter().map(|(id, v)| vec![id.to_string(), v.clone()]).collect();
        node.until(wiped, || async { sqlite_rows(&file, ALL) == text }).await;
        node.until(wiped, || async {
            let have: Vec<(i32, String)> =
                sink.query("SELECT id, v FROM copy.a ORDER BY id").await.unwrap_or_default();
            have == wanted
        })
        .await;
        delivered(&node).await;
        equal(&node, "to_db");
        equal(&node, "to_file");
        let last = node.status()["sources"][0]["lsn"].as_u64().unwrap();
        node.until("every line is there again", || async { lines(&node) == (1..=last).collect::<Vec<_>>() })
            .await;
    }
}

/// The lsns of all lines, in the order of the files.
fn lines(node: &Node) -> Vec<u64> {
    let Ok(folder) = fs::read_dir(node.path("lines")) else { return Vec::new() };
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
    let lsn = |line: &str| serde_json::from_str::<Value>(line).ok().and_then(|line| line["lsn"].as_u64());
    text.lines().filter_map(lsn).collect()
}
