//! Tables of shards merged into one: each row by whose it is, keys that meet are told, and no shard takes another's rows.

use crate::node::{Node, mysql_source, run_all, streams};
use serde_json::Value;
use testkit::{MySql, MySqlOptions, SqlServer};

const FLOW: &str =
    "from: shop\nto: db\ntables: [\"shop_*.*\"]\nroute: {\"shop_*.orders\": \"whole.orders\"}\n";
const MERGED: &str = "transform:\n  - origin: shard\noptions: {ddl: hold}\n";

/// Two shards whose first order has one id.
async fn shards() -> (MySql, Node) {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    for shard in [1, 2] {
        let table = format!("shop_{shard}.orders");
        run_all(
            &server,
            &[
                &format!("CREATE DATABASE shop_{shard}"),
                &format!("CREATE TABLE {table} (id INT PRIMARY KEY, note VARCHAR(20))"),
                &format!("INSERT INTO {table} VALUES (1, 'first of {shard}'), ({shard}0, 'own of {shard}')"),
            ],
        )
        .await;
    }
    let node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop_*.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/merge.yaml", format!("{FLOW}{MERGED}")),
    ]);
    (server, node)
}

/// `shard id note` of every row, in order; empty while there is no table.
async fn merged(server: &SqlServer) -> Vec<String> {
    let sql = "SELECT CONCAT(shard, ' ', id, ' ', note) FROM whole.orders ORDER BY shard, id";
    server.query(sql).await.unwrap_or_default()
}

async fn is(node: &Node, server: &SqlServer, rows: &[&str]) {
    node.until("the merged table is as it should be", || async { merged(server).await == rows }).await;
}

fn settled(status: &Value) -> bool {
    streams(status) && status["flows"][0]["lag_changes"] == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_would_overwrite_each_other_stop_their_flow() {
    let (_server, mut node) = shards().await;
    node.write("flows/merge.yaml", FLOW);
    node.start();
    let status = node.wait("stopped", |s| s["flows"][0]["state"] == "failed").await;
    let error = status["flows"][0]["error"].to_string();
    assert!(error.contains("goes to `whole.orders` too"), "{status:#}");
    node.stop();
    // Statements on one of them would change all, so that they are held.
    node.write("flows/merge.yaml", &format!("{FLOW}transform:\n  - origin: shard\n"));
    let (code, _, said) = node.run(&["check"]);
    assert!(code == 2 && said.contains("needs `ddl: hold`"), "{code} {said}");
    // Of the first shard the table may have been made, and filled, before the second one came: merged ones begin anew.
    let (server, mut node) = shards().await;
    node.start();
    let rows = [
        "shop.shop_1.orders 1 first of 1",
        "shop.shop_1.orders 10 own of 1",
        "shop.shop_2.orders 1 first of 2",
        "shop.shop_2.orders 20 own of 2",
    ];
    is(&node, &server, &rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_shard_takes_the_rows_of_another() {
    let (server, mut node) = shards().await;
    node.start();
    run_all(
        &server,
        &[
            "UPDATE shop_1.orders SET note = 'changed' WHERE id = 1",
            "UPDATE shop_2.orders SET id = 10 WHERE id = 20",
            "DELETE FROM shop_2.orders WHERE id = 1",
        ],
    )
    .await;
    let rows =
        ["shop.shop_1.orders 1 changed", "shop.shop_1.orders 10 own of 1", "shop.shop_2.orders 10 own of 2"];
    is(&node, &server, &rows).await;
    node.wait("delivered", settled).await;
    let (code, out, err) = node.run(&["flow", "verify", "merge"]);
    assert_eq!(code, 0, "{out}{err}");
    // What is spoilt is told of the shard that it is of.
    run_all(&server, &["DELETE FROM whole.orders WHERE shard LIKE '%2.orders'"]).await;
    run_all(&server, &["INSERT INTO whole.orders (shard, id, note) VALUES ('shop.shop_1.orders', 5, 'x')"])
        .await;
    let (code, out, err) = node.run(&["flow", "verify", "merge", "--json"]);
    assert_eq!(code, 4, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let counts = report["tables"].as_array().unwrap().iter();
    let counts: Vec<_> = counts.map(|t| (t["table"].as_str().unwrap(), &t["missing"], &t["extra"])).collect();
    assert_eq!(counts, [("shop_1.orders", &0.into(), &1.into()), ("shop_2.orders", &1.into(), &0.into())]);
    run_all(&server, &["DELETE FROM whole.orders WHERE id = 5"]).await;

    // A new name takes its rows along; a column waits for its place; what is emptied or dropped empties its part alone.
    run_all(&server, &["CREATE DATABASE shop_3", "RENAME TABLE shop_1.orders TO shop_3.orders"]).await;
    is(&node, &server, &["shop.shop_3.orders 1 changed", "shop.shop_3.orders 10 own of 1"]).await;
    run_all(&server, &["ALTER TABLE shop_3.orders ADD COLUMN paid INT NOT NULL DEFAULT 7"]).await;
    run_all(&server, &["INSERT INTO shop_2.orders VALUES (30, 'last')"]).await;
    node.wait("held", |s| s["flows"][0]["error"].to_string().contains("held")).await;
    run_all(&server, &["ALTER TABLE whole.orders ADD COLUMN paid INT"]).await;
    let rows =
        ["shop.shop_2.orders 30 last", "shop.shop_3.orders 1 changed", "shop.shop_3.orders 10 own of 1"];
    is(&node, &server, &rows).await;
    run_all(&server, &["TRUNCATE TABLE shop_3.orders", "INSERT INTO shop_3.orders VALUES (4, 'new', 1)"])
        .await;
    is(&node, &server, &["shop.shop_2.orders 30 last", "shop.shop_3.orders 4 new"]).await;
    run_all(&server, &["DROP TABLE shop_2.orders"]).await;
    is(&node, &server, &["shop.shop_3.orders 4 new"]).await;
    node.wait("delivered", settled).await;
    let (code, out, err) = node.run(&["flow", "verify", "merge"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_must_not_meet_are_told_where_they_do() {
    let (server, mut node) = shards().await;
    // The application has made ids that no two shards share; so it believes.
    run_all(
        &server,
        &[
            "CREATE DATABASE whole",
            "CREATE TABLE whole.orders (id INT PRIMARY KEY, shard VARCHAR(194) NOT NULL, note VARCHAR(20))",
        ],
    )
    .await;
    node.start();
    let status = node.wait("one is parked", |s| s["flows"][0]["dead_letters"] == 1 && settled(s)).await;
    assert_eq!(status["flows"][0]["state"], "running", "{status:#}");
    let (_, letters, _) = node.run(&["flow", "dead-letters", "merge"]);
    assert!(letters.contains("Duplicate entry"), "{letters}");
    let first = merged(&server).await;
    assert_eq!(first.len(), 3, "{first:?}");
    // The row that came first goes on; what the other shard does to its own waits.
    let holder = if first.contains(&"shop.shop_1.orders 1 first of 1".to_owned()) { 1 } else { 2 };
    let other = 3 - holder;
    run_all(
        &server,
        &[
            &format!("UPDATE shop_{other}.orders SET note = 'waits' WHERE id = 1"),
            &format!("UPDATE shop_{holder}.orders SET note = 'goes on' WHERE id = 1"),
        ],
    )
    .await;
    let went_on = format!("shop.shop_{holder}.orders 1 goes on");
    node.until("the holder's row went on", || async { merged(&server).await.contains(&went_on) }).await;
    node.wait("the other's waits", |s| s["flows"][0]["dead_letters"] == 2).await;
    // The holder lets the key go: what waits has room.
    run_all(&server, &[&format!("DELETE FROM shop_{holder}.orders WHERE id = 1")]).await;
    node.wait("delivered", settled).await;
    let (code, out, err) = node.run(&["flow", "retry", "merge"]);
    assert_eq!(code, 0, "{out}{err}");
    let came = format!("shop.shop_{other}.orders 1 waits");
    node.until("the other's row came", || async { merged(&server).await.contains(&came) }).await;
    let (code, out, err) = node.run(&["flow", "verify", "merge"]);
    assert_eq!(code, 0, "{out}{err}");
    // A shard that is emptied takes what is parked of it along, and only that.
    run_all(&server, &[&format!("INSERT INTO shop_{holder}.orders VALUES (1, 'late')")]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1 && settled(s)).await;
    run_all(&server, &[&format!("TRUNCATE TABLE shop_{other}.orders")]).await;
    node.wait("delivered", |s| settled(s) && s["flows"][0]["dead_letters"] == 1).await;
    run_all(&server, &[&format!("TRUNCATE TABLE shop_{holder}.orders")]).await;
    node.wait("nothing is parked", |s| settled(s) && s["flows"][0]["dead_letters"] == 0).await;
    assert_eq!(merged(&server).await, Vec::<String>::new());
}
