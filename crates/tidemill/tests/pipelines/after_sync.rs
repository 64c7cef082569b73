//! A semi-synchronous replica withholds its acknowledgement while a table is read: the transaction is in the binlog, and its
//! rows cannot be seen yet. They must neither be lost nor end as they were before.

use crate::node::{Node, mysql_source, run_all, sqlite_rows};
use testkit::{MySql, MySqlOptions};

fn options(gtid: bool, server_id: u32, args: &[&str]) -> MySqlOptions {
    MySqlOptions { gtid, server_id, args: args.iter().map(ToString::to_string).collect() }
}

async fn a_transaction_that_waits_for_its_acknowledgement(gtid: bool) {
    let source = ["--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-timeout=600000"];
    let replica = ["--plugin-load-add=semisync_replica.so", "--rpl-semi-sync-replica-enabled=ON"];
    let source = MySql::start(options(gtid, 1, &source)).await.unwrap();
    let replica = MySql::start(options(gtid, 2, &replica)).await.unwrap();
    run_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(9))",
            "INSERT INTO shop.a VALUES (1, 'old'), (2, 'old'), (3, 'old')",
            "CREATE TABLE shop.seen (id INT PRIMARY KEY)",
            "INSERT INTO shop.seen VALUES (1)",
        ],
    )
    .await;
    replica.replica_of(&source).await.unwrap();
    replica.caught_up_with(&source).await.unwrap();
    replica.exec("STOP REPLICA IO_THREAD").await.unwrap();
    source.exec("SET GLOBAL rpl_semi_sync_source_enabled = ON").await.unwrap();

    let mut conn = source.conn().await.unwrap();
    let writer = tokio::spawn(async move {
        use testkit::mysql_async::prelude::Queryable;
        for sql in [
            "BEGIN",
            "UPDATE shop.a SET v = 'new' WHERE id = 1",
            "DELETE FROM shop.a WHERE id = 2",
            "INSERT INTO shop.a VALUES (4, 'new')",
            "COMMIT",
        ] {
            conn.query_drop(sql).await.unwrap();
        }
    });
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    // In the binlog, and not to be seen.
    node.until("the transaction waits", || async {
        let waiting: Vec<(String, String)> =
            source.query("SHOW STATUS LIKE 'Rpl_semi_sync_source_wait_sessions'").await.unwrap();
        waiting.first().is_some_and(|(_, sessions)| sessions == "1")
    })
    .await;
    let seen: Vec<String> = source.query("SELECT v FROM shop.a ORDER BY id").await.unwrap();
    assert_eq!(seen, ["old", "old", "old"]);
    node.start();
    let status = if gtid {
        // The stream has the transaction, and no chunk is read until its rows can be seen.
        let begun = node.wait("it has been streamed", |s| s["sources"][0]["lsn"].as_u64() >= Some(3)).await;
        node.wait("it reads", |s| s["sources"][0]["state"] == "snapshot" && !begun.is_null()).await
    } else {
        node.wait("it reads", |s| s["sources"][0]["state"] == "snapshot").await
    };
    assert_ne!(status["sources"][0]["snapshot"]["state"], "done", "{status:#}");
    assert!(!writer.is_finished());
    replica.exec("START REPLICA IO_THREAD").await.unwrap();
    writer.await.unwrap();
    let wanted: Vec<(u64, String)> = source.query("SELECT id, v FROM shop.a ORDER BY id").await.unwrap();
    let wanted: Vec<Vec<String>> = wanted.into_iter().map(|(id, v)| vec![id.to_string(), v]).collect();
    assert_eq!(wanted.len(), 3);
    node.wait("all is read", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    let copy = || sqlite_rows(&node.path("copy.db"), "SELECT id, v FROM a ORDER BY id");
    node.until("the copy is the table", || async { copy() == wanted }).await;
    // What comes last is last.
    source.exec("INSERT INTO shop.seen VALUES (2)").await.unwrap();
    node.until("what follows is there", || async {
        sqlite_rows(&node.path("copy.db"), "SELECT id FROM seen").len() == 2
    })
    .await;
    assert_eq!(copy(), wanted);

    // A statement that waits in the same way: rows behind it have its definition.
    replica.exec("STOP REPLICA IO_THREAD").await.unwrap();
    let mut conn = source.conn().await.unwrap();
    let writer = tokio::spawn(async move {
        use testkit::mysql_async::prelude::Queryable;
        conn.query_drop("ALTER TABLE shop.a RENAME COLUMN v TO w, ADD COLUMN x INT DEFAULT 3").await.unwrap();
        conn.query_drop("UPDATE shop.a SET x = 4 WHERE id = 3").await.unwrap();
    });
    node.until("the statement waits", || async {
        let waiting: Vec<(String, String)> =
            source.query("SHOW STATUS LIKE 'Rpl_semi_sync_source_wait_sessions'").await.unwrap();
        waiting.first().is_some_and(|(_, sessions)| sessions == "1")
    })
    .await;
    replica.exec("START REPLICA IO_THREAD").await.unwrap();
    writer.await.unwrap();
    let wanted: Vec<(u64, String, i64)> =
        source.query("SELECT id, w, x FROM shop.a ORDER BY id").await.unwrap();
    let wanted: Vec<Vec<String>> =
        wanted.into_iter().map(|(id, w, x)| vec![id.to_string(), w, x.to_string()]).collect();
    node.until("the copy is the table", || async {
        sqlite_rows(&node.path("copy.db"), "SELECT id, w, x FROM a ORDER BY id") == wanted
    })
    .await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withheld_acknowledgement_loses_no_row_of_a_snapshot() {
    a_transaction_that_waits_for_its_acknowledgement(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_gtids_a_withheld_acknowledgement_loses_no_row_either() {
    a_transaction_that_waits_for_its_acknowledgement(false).await;
}
