//! A source's `tables` that change between two runs: what comes in is read whole, what was out for a while too.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

/// `id note` of every row of both tables in the copy.
fn copied(node: &Node, table: &str) -> Vec<String> {
    let rows =
        sqlite_rows(&node.path("copy.db"), &format!("SELECT id || ' ' || note FROM {table} ORDER BY id"));
    rows.into_iter().flatten().collect()
}

async fn follows(server: &SqlServer) {
    for table in ["a", "b"] {
        run_all(server, &["CREATE DATABASE IF NOT EXISTS shop"]).await;
        run_all(
            server,
            &[
                &format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY, note VARCHAR(20))"),
                &format!("INSERT INTO shop.{table} VALUES (1, 'old'), (2, 'old')"),
            ],
        )
        .await;
    }
    let source = |tables: &str| mysql_source(&server.url(), tables);
    let mut node = Node::new(&[
        ("sources/shop.yaml", source("shop.a")),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".to_owned()),
        ("flows/copy.yaml", "from: shop\nto: copy\n".to_owned()),
    ]);
    node.start();
    node.until("a is there", || async { copied(&node, "a").len() == 2 }).await;
    node.stop();

    // In: b, with what it had, what it gets while the node is down, and behind that a table that a statement makes.
    run_all(
        server,
        &[
            "UPDATE shop.b SET note = 'new' WHERE id = 2",
            "CREATE TABLE shop.c (id INT PRIMARY KEY, note VARCHAR(20))",
        ],
    )
    .await;
    run_all(server, &["INSERT INTO shop.c VALUES (1, 'made')"]).await;
    node.write("sources/shop.yaml", &source("shop.*"));
    node.start();
    node.until("b is there", || async { copied(&node, "b") == ["1 old", "2 new"] }).await;
    node.until("c is there", || async { copied(&node, "c") == ["1 made"] }).await;
    run_all(server, &["DELETE FROM shop.b WHERE id = 1", "INSERT INTO shop.b VALUES (3, 'live')"]).await;
    node.until("b is followed", || async { copied(&node, "b") == ["2 new", "3 live"] }).await;
    let told = node.changes("shop").iter().filter(|c| c["op"] == "ddl" && c["table"] == "c").count();
    assert_eq!(told, 1, "the statement that made it is in the journal");
    node.stop();

    // Out, and changed meanwhile: the copy stays as it was.
    node.write("sources/shop.yaml", &source("shop.a"));
    node.start();
    run_all(server, &["UPDATE shop.b SET note = 'unseen'", "DELETE FROM shop.b WHERE id = 3"]).await;
    run_all(server, &["INSERT INTO shop.a VALUES (3, 'seen')"]).await;
    node.until("a is followed", || async { copied(&node, "a").len() == 3 }).await;
    assert_eq!(copied(&node, "b"), ["2 new", "3 live"]);
    node.stop();

    // In again: what was missed is made good.
    node.write("sources/shop.yaml", &source("shop.*"));
    node.start();
    node.until("b is as it is", || async { copied(&node, "b") == ["2 unseen"] }).await;
    node.wait("all is read", |s| streams(s) && s["sources"][0]["snapshot"]["state"] == "done").await;
    assert_eq!(copied(&node, "c"), ["1 made"]);
    let (code, out, err) = node.run(&["flow", "verify", "copy"]);
    assert_eq!(code, 0, "{out}{err}");
    // Nothing moved: nothing is read again.
    let before = node.changes("shop").len();
    node.stop();
    node.start();
    run_all(server, &["INSERT INTO shop.a VALUES (4, 'seen')"]).await;
    node.until("a is followed", || async { copied(&node, "a").len() == 4 }).await;
    assert_eq!(node.changes("shop").len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_come_and_go_on_mysql() {
    follows(&MySql::start(MySqlOptions::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_come_and_go_without_gtids() {
    follows(&MySql::start(MySqlOptions { gtid: false, ..MySqlOptions::default() }).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_come_and_go_on_mariadb() {
    follows(&MariaDb::start(MariaDbOptions::default()).await.unwrap()).await;
}
