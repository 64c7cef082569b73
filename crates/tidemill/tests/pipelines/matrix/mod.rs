//! The configuration is the test: every cell of `capture-matrix.md`, run against a real server.

#[path = "../../../src/reference/capture_cells.rs"]
mod cells;
mod documents;
mod judge;

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams};
use cells::{CELLS, Cell, Ends, SETTLE, Setup};
use std::time::Duration;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

/// What every cell begins with.
const MYSQL: [&str; 6] = [
    "SET GLOBAL binlog_format = 'ROW'",
    "SET GLOBAL binlog_row_image = 'FULL'",
    "SET GLOBAL binlog_row_metadata = 'FULL'",
    "SET GLOBAL binlog_row_value_options = ''",
    "SET GLOBAL binlog_checksum = 'CRC32'",
    "SET GLOBAL binlog_transaction_compression = OFF",
];
const MARIADB: [&str; 5] = [
    "SET GLOBAL binlog_format = 'ROW'",
    "SET GLOBAL binlog_row_image = 'FULL'",
    "SET GLOBAL binlog_row_metadata = 'FULL'",
    "SET GLOBAL binlog_checksum = 'CRC32'",
    "SET GLOBAL log_bin_compress = OFF",
];

/// Longer than anything takes that goes on by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of a cell's table.
fn table(number: usize) -> String {
    format!("c{number:02}")
}

fn project(server: &SqlServer) -> Node {
    Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ])
}

/// Waits until all that was written is captured.
async fn settle(server: &SqlServer, node: &Node) {
    let written: u64 = server.query_one("SELECT COUNT(*) FROM shop.last").await.unwrap();
    run_all(server, &[&format!("INSERT INTO shop.last VALUES ({})", written + 1)]).await;
    let sql = format!("SELECT id FROM last WHERE id > {written}");
    node.until("what was written last is there", || async {
        !sqlite_rows(&node.path("copy.db"), &sql).is_empty()
    })
    .await;
}

/// Runs a cell's statements in a session of their own, behind what cells begin with.
async fn write(server: &SqlServer, node: &Node, defaults: &[&str], number: usize, cell: &Cell) {
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("SET NAMES utf8mb4").await.unwrap();
    for sql in defaults.iter().chain(cell.global) {
        conn.query_drop(*sql).await.unwrap();
    }
    let mut conn = server.conn().await.unwrap();
    let mut other = server.conn().await.unwrap();
    let steps = cell.steps.iter().flat_map(|steps| steps.iter()).map(|(sql, _)| *sql);
    for sql in ["SET NAMES utf8mb4"].into_iter().chain(cell.session.iter().copied()).chain(steps) {
        if sql == SETTLE {
            settle(server, node).await;
            continue;
        }
        let (conn, sql) = match sql.strip_prefix("other: ") {
            Some(sql) => (&mut other, sql),
            None => (&mut conn, sql),
        };
        let sql = sql.replace("{t}", &format!("shop.{}", table(number)));
        if let Err(error) = conn.query_drop(&sql).await {
            panic!("{}: {error}: {}", cell.name, sql.chars().take(300).collect::<String>());
        }
    }
}

/// What `check --connect` and `up` say of a setting that is refused.
async fn refused(server: &SqlServer, words: &str) -> Result<(), String> {
    let mut node = project(server);
    let (code, out, err) = node.run(&["check", "--connect"]);
    if code == 0 || !(out.contains(words) || err.contains(words)) {
        return Err(format!("`check --connect` ended with {code} and said: {out}{err}"));
    }
    node.start();
    node.wait("`up` says why it does not capture", |status| {
        let message = status.pointer("/sources/0/error/message");
        message.and_then(serde_json::Value::as_str).is_some_and(|message| message.contains(words))
    })
    .await;
    Ok(())
}

/// Runs the cells of a setup on one server and one node, and tells how each ended.
async fn run(setup: Setup, server: &SqlServer, defaults: &[&str]) {
    run_all(server, &["CREATE DATABASE shop", "CREATE TABLE shop.last (id INT PRIMARY KEY)"]).await;
    let cells: Vec<_> = CELLS.iter().enumerate().filter(|(_, cell)| cell.setup == setup).collect();
    let mut node = project(server);
    node.patience = PATIENCE;
    node.start();
    node.wait("it streams", streams).await;
    let mut ended: Vec<(usize, Result<(), String>)> = Vec::new();
    for (number, cell) in &cells {
        match cell.ends {
            Ends::Refused(words) => {
                run_all(server, defaults).await;
                run_all(server, cell.global).await;
                ended.push((*number, refused(server, words).await));
            }
            _ => write(server, &node, defaults, *number, cell).await,
        }
    }
    run_all(server, defaults).await;
    let documents = match setup {
        Setup::MySql => documents::write(server).await,
        _ => Vec::new(),
    };
    settle(server, &node).await;
    let status = node.wait("all is read", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    let set_aside = cells.iter().filter(|(_, cell)| matches!(cell.ends, Ends::Quarantined(_)));
    for name in set_aside.map(|(number, _)| format!("shop.{}", table(*number))) {
        let (code, _, err) = node.run(&["flow", "resnapshot", "to_file", &name]);
        assert_eq!(code, 0, "{err}");
    }
    let healed = node
        .wait("tables that were set aside are read anew", |s| {
            let source = &s["sources"][0];
            source["snapshot"]["state"] == "done"
                && source["quarantined"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    settle(server, &node).await;
    node.stop();
    let changes = node.changes("shop");
    let of = |name: &str| changes.iter().filter(|change| change["table"] == name).collect::<Vec<_>>();
    for (number, cell) in &cells {
        let name = table(*number);
        let own = of(&name);
        let end = match cell.ends {
            Ends::Captured => {
                let steps = cell.steps.iter().flat_map(|steps| steps.iter());
                let wanted: Vec<&str> = steps.flat_map(|(_, changes)| changes.split_whitespace()).collect();
                judge::captured(server, &name, Some(&wanted), &own, &status).await
            }
            Ends::ReadAnew => judge::captured(server, &name, None, &own, &status).await,
            Ends::Quarantined(words) => match judge::quarantined(&name, words, &status) {
                Ok(()) => judge::captured(server, &name, None, &own, &healed).await,
                Err(reason) => Err(reason),
            },
            Ends::Refused(_) => continue,
        };
        ended.push((*number, end));
    }
    if setup == Setup::MySql {
        let wanted: Vec<&str> = documents.iter().map(String::as_str).collect();
        let own = of("documents");
        judge::captured(server, "documents", Some(&wanted), &own, &status).await.unwrap();
    }
    ended.sort_by_key(|(number, _)| *number);
    println!("{}", setup.name());
    for (number, end) in &ended {
        let cell = &CELLS[*number];
        match end {
            Ok(()) => println!("  {}  {}: {}", table(*number), cell.name, cell.ends.text()),
            Err(reason) => {
                println!("  {}  {}: NOT {}: {reason}", table(*number), cell.name, cell.ends.text())
            }
        }
    }
    let wrong: Vec<_> =
        ended.iter().filter(|(_, end)| end.is_err()).map(|(number, _)| CELLS[*number].name).collect();
    assert!(wrong.is_empty(), "{}: {wrong:#?}\n{}", setup.name(), node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_of_mysql_is_captured_or_refused_by_name() {
    let semi_sync = |args: &[&str], server_id| MySqlOptions {
        args: args.iter().map(ToString::to_string).collect(),
        server_id,
        ..MySqlOptions::default()
    };
    let source = ["--plugin-load-add=semisync_source.so", "--rpl-semi-sync-source-timeout=60000"];
    let replica = ["--plugin-load-add=semisync_replica.so", "--rpl-semi-sync-replica-enabled=ON"];
    let server = MySql::start(semi_sync(&source, 1)).await.unwrap();
    let replica = MySql::start(semi_sync(&replica, 2)).await.unwrap();
    replica.replica_of(&server).await.unwrap();
    let defaults =
        [&MYSQL[..], &["SET GLOBAL gtid_mode = 'ON'", "SET GLOBAL rpl_semi_sync_source_enabled = OFF"]]
            .concat();
    run(Setup::MySql, &server, &defaults).await;
    let (_, acknowledged): (String, u64) =
        server.query_one("SHOW STATUS LIKE 'Rpl_semi_sync_source_yes_tx'").await.unwrap();
    assert!(acknowledged > 0, "the replica acknowledged nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_of_mysql_without_gtids_is_captured_or_refused_by_name() {
    let server = MySql::start(MySqlOptions { gtid: false, ..MySqlOptions::default() }).await.unwrap();
    run(Setup::MySqlNoGtid, &server, &MYSQL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_of_mariadb_is_captured_or_refused_by_name() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    run(Setup::MariaDb, &server, &MARIADB).await;
}

/// Positions of MariaDB have no gaps, so rows that were prepared before capture connected again are lost. The journal learns that
/// every table is read anew with the commit itself, and never has the one without the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xa_commit_whose_rows_are_lost_and_what_mends_it_are_one_transaction() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.last (id INT PRIMARY KEY)",
            "CREATE TABLE shop.a (id INT PRIMARY KEY)",
            "INSERT INTO shop.a VALUES (1)",
        ],
    )
    .await;
    let mut node = project(&server);
    node.patience = PATIENCE;
    node.start();
    node.wait("all is read", |s| streams(s) && s["sources"][0]["snapshot"]["state"] == "done").await;
    let mut conn = server.conn().await.unwrap();
    for sql in ["XA START 'x'", "INSERT INTO shop.a VALUES (2)", "XA END 'x'", "XA PREPARE 'x'"] {
        conn.query_drop(sql).await.unwrap();
    }
    settle(&server, &node).await;
    node.stop();
    node.start();
    node.wait("it streams", streams).await;
    conn.query_drop("XA COMMIT 'x'").await.unwrap();
    node.until("the row is there", || async {
        sqlite_rows(&node.path("copy.db"), "SELECT id FROM a ORDER BY id") == [["1"], ["2"]]
    })
    .await;
    settle(&server, &node).await;
    node.stop();
    let changes = node.changes("shop");
    let emptied: Vec<_> = changes.iter().filter(|change| change["op"] == "truncate").collect();
    let gtid = emptied[0]["txn"]["id"].as_str().unwrap();
    assert!(gtid.contains('-'), "{emptied:#?}");
    assert_eq!(emptied.len(), 2, "{emptied:#?}");
    assert!(emptied.iter().all(|change| change["txn"]["id"] == gtid), "{emptied:#?}");
}

/// A table that is set aside gets no rows, also not those that waited for their XA COMMIT when that happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_wait_for_an_xa_commit_do_not_pass_a_quarantine() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.last (id INT PRIMARY KEY)",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.a VALUES (1, 1)",
        ],
    )
    .await;
    let mut node = project(&server);
    node.patience = PATIENCE;
    node.start();
    node.wait("all is read", |s| streams(s) && s["sources"][0]["snapshot"]["state"] == "done").await;
    let mut conn = server.conn().await.unwrap();
    for sql in ["XA START 'x'", "INSERT INTO shop.a VALUES (2, 2)", "XA END 'x'", "XA PREPARE 'x'"] {
        conn.query_drop(sql).await.unwrap();
    }
    let mut other = server.conn().await.unwrap();
    for sql in ["SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE shop.a SET v = 3 WHERE id = 1"] {
        other.query_drop(sql).await.unwrap();
    }
    node.wait("it is set aside", |s| s["sources"][0]["quarantined"][0]["table"] == "shop.a").await;
    conn.query_drop("XA COMMIT 'x'").await.unwrap();
    settle(&server, &node).await;
    node.stop();
    let changes = node.changes("shop");
    let own = changes.iter().filter(|change| change["table"] == "a" && change["op"] == "insert");
    assert_eq!(own.count(), 0, "{changes:#?}");
}
