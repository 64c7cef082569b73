//! SQL targets that are not a plain copy: keys of their own, statements that trade columns, transactions in parts.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams, values};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testkit::{MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

async fn started(setup: &[&str], source: &str, flow: &str) -> (MySql, Node) {
    let options = MySqlOptions { args: vec!["--max-allowed-packet=8M".into()], ..MySqlOptions::default() };
    let server = MySql::start(options).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE DATABASE copy"]).await;
    run_all(&server, setup).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*") + source),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_db.yaml", format!("from: shop\nto: db\nroute: {{\"shop.*\": \"copy.*\"}}\n{flow}")),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    (server, node)
}

/// All columns of a table as one text a row.
async fn rows(server: &SqlServer, columns: &str, table: &str) -> Vec<String> {
    let sql = format!("SELECT CONCAT_WS(' ', {columns}) FROM {table} ORDER BY 1");
    server.query(&sql).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_a_row_that_a_target_with_keys_of_its_own_lacks_makes_the_row() {
    let (server, node) = started(
        &[
            "CREATE TABLE shop.a (id INT PRIMARY KEY, u INT, v INT)",
            "CREATE TABLE shop.b (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.a VALUES (1, 1, 1), (2, 2, 2)",
            "INSERT INTO shop.b VALUES (1, 1), (2, 2)",
            "CREATE TABLE copy.a (id INT PRIMARY KEY, u INT UNIQUE, v INT)",
            "CREATE TABLE copy.b (own INT AUTO_INCREMENT PRIMARY KEY, id INT, v INT)",
        ],
        "snapshot: never\n",
        "",
    )
    .await;
    run_all(
        &server,
        &[
            "UPDATE shop.a SET v = v + 1",
            "BEGIN; UPDATE shop.a SET u = 9 WHERE id = 1; UPDATE shop.a SET u = 1 WHERE id = 2; UPDATE shop.a SET u = 2 WHERE id = 1; COMMIT",
            "UPDATE shop.b SET v = v + 1",
            "UPDATE shop.b SET v = v + 1",
            "DELETE FROM shop.b WHERE id = 1",
        ],
    )
    .await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 10).await;
    assert_eq!(rows(&server, "id, u, v", "copy.a").await, ["1 2 2", "2 1 3"]);
    assert_eq!(rows(&server, "id, v", "copy.b").await, ["2 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidb_with_keys_of_its_own_gets_the_rows_it_lacks_and_refuses_those_that_clash() {
    let source = MySql::start(MySqlOptions::default()).await.unwrap();
    let sink = TiDb::start(TiDbOptions::default()).await.unwrap();
    run_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, u INT, v INT)",
            "CREATE TABLE shop.b (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.a VALUES (1, 1, 1), (2, 2, 2)",
            "INSERT INTO shop.b VALUES (1, 1), (2, 2)",
        ],
    )
    .await;
    run_all(
        &sink,
        &[
            "CREATE DATABASE copy",
            "CREATE TABLE copy.a (id INT PRIMARY KEY, u INT UNIQUE, v INT)",
            "CREATE TABLE copy.b (own INT AUTO_INCREMENT PRIMARY KEY, id INT, v INT)",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*") + "snapshot: never\n"),
        ("sinks/db.yaml", format!("kind: tidb\nurl: {}\n", sink.url())),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    run_all(
        &source,
        &[
            "UPDATE shop.a SET v = v + 1",
            "BEGIN; UPDATE shop.a SET u = 9 WHERE id = 1; UPDATE shop.a SET u = 1 WHERE id = 2; UPDATE shop.a SET u = 2 WHERE id = 1; COMMIT",
            "UPDATE shop.b SET v = v + 1",
            "UPDATE shop.b SET v = v + 1",
            "DELETE FROM shop.b WHERE id = 1",
            // A row that clashes, what waits behind it, and one that does not.
            "INSERT INTO shop.a VALUES (3, 2, 0), (4, 4, 0)",
            "UPDATE shop.a SET v = 7 WHERE id IN (3, 4)",
        ],
    )
    .await;
    let status = node.wait("delivered", |s| s["flows"][0]["lsn"] == 14).await;
    assert_eq!(status["flows"][0]["dead_letters"], 2, "{status:#}");
    assert_eq!(rows(&sink, "id, u, v", "copy.a").await, ["1 2 2", "2 1 3", "4 4 7"]);
    assert_eq!(rows(&sink, "id, v", "copy.b").await, ["2 4"]);
    // The other row gives way, in the source too: what is parked fits.
    run_all(&source, &["UPDATE shop.a SET u = 20 WHERE id = 1"]).await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 15).await;
    node.until("retry goes through", || async {
        node.run(&["flow", "retry", "to_db"]).1.contains("0 still parked")
    })
    .await;
    assert_eq!(rows(&sink, "id, u, v", "copy.a").await, rows(&source, "id, u, v", "shop.a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_trade_names_trade_values() {
    let (server, node) = started(
        &[
            "CREATE TABLE shop.a (id INT PRIMARY KEY, x INT, y INT, z INT)",
            "INSERT INTO shop.a VALUES (1, 10, 20, 30)",
        ],
        "",
        "",
    )
    .await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.a RENAME COLUMN x TO y, RENAME COLUMN y TO x",
            "ALTER TABLE shop.a RENAME COLUMN y TO z, RENAME COLUMN z TO w",
            "INSERT INTO shop.a VALUES (2, 1, 2, 3)",
        ],
    )
    .await;
    let file = node.path("copy.db");
    let sql = "SELECT id, w, x, z FROM a ORDER BY id";
    node.until("both rows", || async { sqlite_rows(&file, sql).len() == 2 }).await;
    assert_eq!(sqlite_rows(&file, sql), [["1", "30", "20", "10"], ["2", "3", "2", "1"]]);
    let columns = "id, w, x, z";
    node.until("both rows", || async { rows(&server, columns, "copy.a").await.len() == 2 }).await;
    assert_eq!(rows(&server, columns, "copy.a").await, rows(&server, columns, "shop.a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_of_another_type_holds_what_that_type_holds() {
    let (server, node) = started(
        &["CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)", "INSERT INTO shop.a VALUES (1, 7)"],
        "",
        "",
    )
    .await;
    run_all(&server, &["ALTER TABLE shop.a MODIFY v VARCHAR(9)", "INSERT INTO shop.a VALUES (2, '007')"])
        .await;
    let file = node.path("copy.db");
    let sql = "SELECT id, v, typeof(v) FROM a ORDER BY id";
    node.until("both rows", || async { sqlite_rows(&file, sql).len() == 2 }).await;
    assert_eq!(sqlite_rows(&file, sql), [["1", "7", "text"], ["2", "007", "text"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_larger_than_the_target_takes_is_parked_and_the_rest_goes_on() {
    let (server, node) = started(
        &["CREATE TABLE shop.a (id INT PRIMARY KEY, b LONGBLOB)", "CREATE TABLE shop.b (id INT PRIMARY KEY)"],
        "",
        "tables: [shop.a]\n",
    )
    .await;
    run_all(
        &server,
        &["INSERT INTO shop.a VALUES (1, REPEAT('x', 6000000))", "INSERT INTO shop.a VALUES (2, 'small')"],
    )
    .await;
    let status = node.wait("the small row is there", |s| s["flows"][0]["lsn"] == 2).await;
    assert_eq!(status["flows"][0]["dead_letters"], 1);
    assert_eq!(rows(&server, "id, b", "copy.a").await, ["2 small"]);
    let (_, out, _) = node.run(&["flow", "dead-letters", "to_db"]);
    assert!(out.contains("max_allowed_packet"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_committed_in_parts_goes_on_where_it_was() {
    let (server, mut node) = started(
        &["CREATE TABLE shop.k (v INT)", "CREATE TABLE shop.u (id INT PRIMARY KEY)"],
        "",
        "options: {batch_rows: 1}\n",
    )
    .await;
    node.wait("the tables are made", |s| {
        s["flows"][0]["lsn"] == s["sources"][0]["lsn"] && s["flows"][0]["lsn"] == json!(1)
    })
    .await;
    node.run(&["flow", "pause", "to_db"]);
    let many = format!("INSERT INTO shop.k {}", values(1..31, |i| i.to_string()));
    run_all(&server, &[&format!("BEGIN; {many}; INSERT INTO shop.u VALUES (1); {many}; COMMIT")]).await;
    node.wait("captured", |s| s["sources"][0]["lsn"] == 62).await;
    // The sink waits for this row in the middle of the transaction.
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO copy.u VALUES (1)").await.unwrap();
    node.run(&["flow", "resume", "to_db"]);
    node.until("the first part is there", || async { rows(&server, "v", "copy.k").await.len() > 8 }).await;
    node.kill9();
    conn.disconnect().await.unwrap();
    node.start();
    node.until("all is there", || async { rows(&server, "id", "copy.u").await == ["1"] }).await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == json!(62)).await;
    assert_eq!(rows(&server, "v", "copy.k").await, rows(&server, "v", "shop.k").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_dropped_and_added_at_once_is_read_anew() {
    let (server, node) = started(
        &[
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT, w INT)",
            "INSERT INTO shop.a VALUES (1, 10, 100), (2, 20, 200)",
        ],
        "",
        "",
    )
    .await;
    node.until("copied", || async { rows(&server, "id, v, w", "copy.a").await == ["1 10 100", "2 20 200"] })
        .await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.a DROP COLUMN v, ADD COLUMN v INT",
            "ALTER TABLE shop.a RENAME COLUMN w TO x, ADD COLUMN w INT DEFAULT 7",
            "INSERT INTO shop.a (id, v, w, x) VALUES (3, 30, 300, 3000)",
        ],
    )
    .await;
    let columns = "id, COALESCE(v, '-'), w, x";
    let wanted = rows(&server, columns, "shop.a").await;
    assert_eq!(wanted, ["1 - 7 100", "2 - 7 200", "3 30 300 3000"]);
    node.until("equal", || async { rows(&server, columns, "copy.a").await == wanted }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_key_that_a_target_gets_meanwhile_refuses_rows_and_hides_none() {
    let (server, node) = started(
        &["CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)", "INSERT INTO shop.a VALUES (1, 1)"],
        "",
        "",
    )
    .await;
    node.until("copied", || async { rows(&server, "id, v", "copy.a").await.len() == 1 }).await;
    run_all(&server, &["ALTER TABLE copy.a ADD UNIQUE KEY (v)"]).await;
    let id = std::cell::Cell::new(100);
    node.until("the key is seen", || async {
        id.set(id.get() + 2);
        run_all(
            &server,
            &[&format!("INSERT INTO shop.a VALUES ({0}, {0}), ({1}, {0})", id.get(), id.get() + 1)],
        )
        .await;
        node.status()["flows"][0]["dead_letters"].as_u64() > Some(0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_end_is_of_another_table_is_committed_in_the_target() {
    let (server, node) = started(
        &["CREATE TABLE shop.a (id INT PRIMARY KEY)", "CREATE TABLE shop.b (id INT PRIMARY KEY, v LONGTEXT)"],
        "",
        "tables: [shop.a]\noptions: {batch_rows: 1}\n",
    )
    .await;
    // A part of eight rows, then more bytes than a batch reads, then the end: all of a table that is left out.
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO shop.a VALUES (1), (2), (3), (4), (5), (6), (7), (8)").await.unwrap();
    for id in 1..=3 {
        conn.query_drop(format!("INSERT INTO shop.b VALUES ({id}, REPEAT('x', 3000000))")).await.unwrap();
    }
    conn.query_drop("INSERT INTO shop.b VALUES (4, 'last')").await.unwrap();
    conn.query_drop("COMMIT").await.unwrap();
    conn.disconnect().await.unwrap();
    node.until("the rows are seen", || async { rows(&server, "id", "copy.a").await.len() == 8 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_beyond_what_tidb_takes_at_once_arrives_in_parts() {
    let source = MySql::start(MySqlOptions::default()).await.unwrap();
    let sink = TiDb::start(TiDbOptions::default()).await.unwrap();
    run_all(&source, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(4096))"])
        .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: tidb\nurl: {}\n", sink.url())),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    let mut statements = vec!["BEGIN".to_owned()];
    for first in (0..50_000).step_by(5000) {
        let rows = values(first..first + 5000, |id| format!("{id}, REPEAT('{}', 4096)", id % 10));
        statements.push(format!("INSERT INTO shop.a {rows}"));
    }
    statements.push("COMMIT".to_owned());
    run_all(&source, &[&statements.join("; ")]).await;
    let status = node.wait("all is there", |s| s["flows"][0]["lsn"] == 50_000).await;
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");
    let (code, out, err) = node.run(&["flow", "verify", "to_db"]);
    assert_eq!(code, 0, "{out}{err}");
}
