//! What happened to tables while nobody captured: the server's definitions are then ahead of the stream.

use crate::node::{Node, mysql_source, run_all, sqlite_rows};
use serde_json::Value;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

/// A server with these tables in `shop`, copied to `copy.db`, and the node killed once all of it has arrived.
async fn copied(setup: &[&str], flow: &str) -> (MySql, Node) {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop"]).await;
    run_all(&server, setup).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", format!("from: shop\nto: file\n{flow}")),
    ]);
    node.start();
    caught_up(&node).await;
    node.kill9();
    (server, node)
}

async fn caught_up(node: &Node) -> Value {
    node.wait("everything has arrived", |s| {
        let (source, flow) = (&s["sources"][0], &s["flows"][0]);
        source["snapshot"]["state"] == "done" && flow["lsn"] == source["lsn"] && flow["lsn"] != 0
    })
    .await
}

/// Starts the node, adds one last row to `shop.last`, and waits until the copy has it.
async fn catch_up(server: &SqlServer, node: &mut Node) {
    run_all(server, &["CREATE TABLE shop.last (id INT PRIMARY KEY)", "INSERT INTO shop.last VALUES (1)"])
        .await;
    node.start();
    let file = node.path("copy.db");
    node.until("the last row arrives", || async {
        sqlite_rows(&file, "SELECT id FROM last").concat() == ["1"]
    })
    .await;
}

fn assert_nothing_quarantined(node: &Node) {
    let status = node.status();
    assert_eq!(status["sources"][0]["quarantined"], serde_json::json!([]), "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_dropped_and_made_again_has_none_of_its_old_rows() {
    let make = "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)";
    let (server, mut node) = copied(&[make, "INSERT INTO shop.a VALUES (1, 1), (2, 2)"], "").await;
    run_all(&server, &["DROP TABLE shop.a", make, "INSERT INTO shop.a VALUES (3, 3)"]).await;
    catch_up(&server, &mut node).await;
    assert_eq!(sqlite_rows(&node.path("copy.db"), "SELECT id FROM a ORDER BY id").concat(), ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_between_two_alterations_are_read_by_what_the_table_was_then() {
    let setup =
        ["CREATE TABLE shop.a (id INT PRIMARY KEY, x VARCHAR(9))", "INSERT INTO shop.a VALUES (1, 'x1')"];
    let (server, mut node) = copied(&setup, "").await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.a ADD COLUMN n INT",
            "INSERT INTO shop.a VALUES (2, 'x2', 2)",
            "ALTER TABLE shop.a ADD COLUMN m INT FIRST",
            "INSERT INTO shop.a VALUES (3, 3, 'x3', 3)",
            "ALTER TABLE shop.a RENAME COLUMN x TO y",
            "INSERT INTO shop.a VALUES (4, 4, 'x4', 4)",
            "ALTER TABLE shop.a DROP COLUMN m",
        ],
    )
    .await;
    catch_up(&server, &mut node).await;
    assert_nothing_quarantined(&node);
    let rows = sqlite_rows(&node.path("copy.db"), "SELECT id, y, n FROM a ORDER BY id");
    assert_eq!(rows, [["1", "x1", "NULL"], ["2", "x2", "2"], ["3", "x3", "3"], ["4", "x4", "4"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_came_and_went_unseen_does_not_bar_its_name() {
    let (server, mut node) =
        copied(&["CREATE TABLE shop.a (id INT PRIMARY KEY)", "INSERT INTO shop.a VALUES (1)"], "").await;
    let make = "CREATE TABLE shop.stage (id INT PRIMARY KEY, v INT)";
    run_all(&server, &[make, "INSERT INTO shop.stage VALUES (1, 1)", "DROP TABLE shop.stage"]).await;
    catch_up(&server, &mut node).await;
    run_all(&server, &[make, "INSERT INTO shop.stage VALUES (2, 2)", "INSERT INTO shop.last VALUES (2)"])
        .await;
    let file = node.path("copy.db");
    node.until("the last row arrives", || async {
        sqlite_rows(&file, "SELECT id FROM last").concat() == ["1", "2"]
    })
    .await;
    assert_nothing_quarantined(&node);
    assert_eq!(sqlite_rows(&file, "SELECT id FROM stage").concat(), ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_takes_over_a_captured_name_is_read_whole() {
    let setup = [
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, v INT)",
        "INSERT INTO shop.orders VALUES (1, 1), (2, 2)",
        "CREATE DATABASE outside",
        "CREATE TABLE outside.staged (id INT PRIMARY KEY, v INT)",
        "INSERT INTO outside.staged VALUES (7, 7)",
    ];
    let (server, mut node) = copied(&setup, "tables: [shop.orders, shop.staged, shop.last]\n").await;
    node.start();
    caught_up(&node).await;
    // As gh-ost and pt-online-schema-change end, with names that the flow does not carry.
    run_all(
        &server,
        &[
            "CREATE TABLE shop._orders_gho (id INT PRIMARY KEY, v INT, w INT)",
            "INSERT INTO shop._orders_gho SELECT id, v, 5 FROM shop.orders",
            "RENAME TABLE shop.orders TO shop._orders_del, shop._orders_gho TO shop.orders",
            "INSERT INTO shop.orders VALUES (3, 3, 3)",
            "RENAME TABLE outside.staged TO shop.staged",
            "UPDATE shop.staged SET v = 8",
        ],
    )
    .await;
    let file = node.path("copy.db");
    let wanted = [["1", "1", "5"], ["2", "2", "5"], ["3", "3", "3"]];
    node.until("the table under the old name is whole", || async {
        sqlite_rows(&file, "SELECT id, v, w FROM orders ORDER BY id") == wanted
    })
    .await;
    node.until("the table from outside is whole", || async {
        sqlite_rows(&file, "SELECT id, v FROM staged") == [["7", "8"]]
    })
    .await;
    caught_up(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_column_has_the_value_that_the_source_gave_old_rows() {
    let setup = [
        "CREATE TABLE shop.a (id INT PRIMARY KEY)",
        "INSERT INTO shop.a VALUES (1), (2)",
        "CREATE TABLE shop.k (v INT)",
        "INSERT INTO shop.k VALUES (1), (1)",
    ];
    let (server, mut node) = copied(&setup, "").await;
    node.start();
    caught_up(&node).await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.a ADD COLUMN n INT NOT NULL DEFAULT 7, ADD COLUMN d INT AS (id * 2) STORED",
            "INSERT INTO shop.a (id, n) VALUES (3, 8)",
            "ALTER TABLE shop.k ADD COLUMN w VARCHAR(5) DEFAULT 'w'",
        ],
    )
    .await;
    let file = node.path("copy.db");
    let wanted = [["1", "7", "2"], ["2", "7", "4"], ["3", "8", "6"]];
    node.until("old rows have the default", || async {
        sqlite_rows(&file, "SELECT id, n, d FROM a ORDER BY id") == wanted
            && sqlite_rows(&file, "SELECT v, w FROM k") == [["1", "w"], ["1", "w"]]
    })
    .await;
    caught_up(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_made_of_a_select_on_mariadb_is_one_transaction_with_its_rows() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let digits = "123456789012345678901234567";
    let wide = format!(
        "INSERT INTO shop.d SELECT CAST('{digits}000' AS DECIMAL(38)) + i \
                        FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) SELECT i FROM n) s"
    );
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY)",
            "INSERT INTO shop.a VALUES (1), (2)",
            "CREATE TABLE shop.d (id DECIMAL(38) PRIMARY KEY)",
            &wide,
        ],
    )
    .await;
    let mut node = Node::new(&[(
        "sources/shop.yaml",
        mysql_source(&server.url(), "shop.*") + "options: {snapshot_chunk_rows: 3}\n",
    )]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    let read = node.changes("shop").into_iter().filter(|c| c["table"] == "d").count();
    assert_eq!(read, 40, "a key of many digits is paged through exactly");
    run_all(&server, &["CREATE TABLE shop.c AS SELECT id FROM shop.a"]).await;
    node.wait("captured", |s| s["sources"][0]["lsn"] == 45).await;
    let changes = node.changes("shop");
    let made: Vec<_> = changes.iter().filter(|c| c["table"] == "c").collect();
    assert_eq!(made.len(), 3);
    assert!(made.iter().all(|c| c["txn"]["id"] == made[0]["txn"]["id"]), "{made:#?}");
    assert_eq!(made[2]["txn"]["last"], true, "{made:#?}");
}
