//! A SQL sink that refuses us, not a row: it is said why and what to do, nothing is lost, and the flow goes on when it is mended.

use crate::node::{Node, mysql_source, run_all, streams};
use testkit::{MySql, MySqlOptions, SqlServer};

/// Waits until the flow tells this error, with a hint that has these words.
async fn told(node: &Node, message: &str, hint: &str) {
    node.wait(&format!("the flow names {message}"), |s| {
        let error = &s["flows"][0]["error"];
        let has = |member: &str, part: &str| error[member].as_str().is_some_and(|text| text.contains(part));
        has("message", message) && has("hint", hint)
    })
    .await;
}

async fn goes_on(node: &Node, source: &SqlServer, sink: &SqlServer) {
    let rows = "SELECT CONCAT_WS(' ', id, v) FROM";
    let wanted: Vec<String> = source.query(&format!("{rows} shop.a ORDER BY id")).await.unwrap();
    node.until("all is there", || async {
        let have: Vec<String> = sink.query(&format!("{rows} copy.a ORDER BY id")).await.unwrap_or_default();
        have == wanted
    })
    .await;
    node.wait("it runs", |s| s["flows"][0]["state"] == "running" && s["flows"][0]["error"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_refuses_is_named_and_goes_on_when_it_is_mended() {
    let source = MySql::start(MySqlOptions::default()).await.unwrap();
    let sink = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.a VALUES (1, 1)",
        ],
    )
    .await;
    let grants = ["GRANT ALL ON copy.* TO w@'%'", "GRANT ALL ON tidemill.* TO w@'%'"];
    run_all(&sink, &["CREATE USER w@'%' IDENTIFIED BY 'first-secret'", grants[0], grants[1]]).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: mysql://w:first-secret@{}\n", sink.addr())),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    goes_on(&node, &source, &sink).await;

    // Another password.
    node.stop();
    run_all(&sink, &["ALTER USER w@'%' IDENTIFIED BY 'second-secret'"]).await;
    node.start();
    told(&node, "Access denied", "user and the password").await;
    run_all(&source, &["INSERT INTO shop.a VALUES (2, 2)"]).await;
    run_all(&sink, &["ALTER USER w@'%' IDENTIFIED BY 'first-secret'"]).await;
    goes_on(&node, &source, &sink).await;
    assert!(!node.log().contains("first-secret"));

    // A right that is taken away.
    run_all(&sink, &["REVOKE INSERT ON copy.* FROM w@'%'"]).await;
    run_all(&source, &["INSERT INTO shop.a VALUES (3, 3)"]).await;
    told(&node, "INSERT command denied", "GRANT ").await;
    run_all(&source, &["UPDATE shop.a SET v = 30 WHERE id = 3"]).await;
    run_all(&sink, &[grants[0]]).await;
    goes_on(&node, &source, &sink).await;

    // A server that takes no writes for a while: that passes by itself.
    run_all(&sink, &["SET GLOBAL super_read_only = ON"]).await;
    run_all(&source, &["INSERT INTO shop.a VALUES (4, 4)"]).await;
    told(&node, "read-only", "by itself").await;
    run_all(&source, &["DELETE FROM shop.a WHERE id = 1"]).await;
    run_all(&sink, &["SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"]).await;
    goes_on(&node, &source, &sink).await;

    // A column that the target lost.
    run_all(&sink, &["ALTER TABLE copy.a RENAME COLUMN v TO other"]).await;
    run_all(&source, &["INSERT INTO shop.a VALUES (5, 5)"]).await;
    told(&node, "Unknown column 'v'", "lacks what the source has").await;
    run_all(&source, &["UPDATE shop.a SET v = 50 WHERE id = 5"]).await;
    run_all(&sink, &["ALTER TABLE copy.a RENAME COLUMN other TO v"]).await;
    goes_on(&node, &source, &sink).await;
    assert_eq!(node.status()["flows"][0]["dead_letters"], 0);
    let (code, out, err) = node.run(&["flow", "verify", "to_db"]);
    assert_eq!(code, 0, "{out}{err}");
}
