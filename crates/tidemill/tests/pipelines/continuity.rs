//! When history is lost: at the source, in the journal, by retention, by a person. Nothing goes on in silence.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, values};
use serde_json::Value;
use std::fs;
use std::time::Duration;
use testkit::{MySql, MySqlOptions, Nats, NatsOptions, SqlServer};

/// MySQL with table `shop.a` of two rows, a node that copies it into SQLite, and the copy's rows.
async fn copied(options: MySqlOptions, more: &str) -> (MySql, Node) {
    let server = MySql::start(options).await.unwrap();
    let make = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(400))",
        "INSERT INTO shop.a VALUES (1, 'one'), (2, 'two')",
    ];
    run_all(&server, &make).await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*") + more),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    node.start();
    node.until("the snapshot has arrived", || async { ids(&node) == ["1", "2"] }).await;
    (server, node)
}

fn ids(node: &Node) -> Vec<String> {
    sqlite_rows(&node.path("copy.db"), "SELECT id FROM a ORDER BY id").concat()
}

fn text<'a>(status: &'a Value, pointer: &str) -> &'a str {
    status.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Loses all binlogs that the node has not read, after changes in them.
async fn purge(server: &SqlServer) {
    let sql =
        ["DELETE FROM shop.a WHERE id = 1", "INSERT INTO shop.a VALUES (3, 'three')", "FLUSH BINARY LOGS"];
    run_all(server, &sql).await;
    let logs: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await.unwrap();
    server.exec(&format!("PURGE BINARY LOGS TO '{}'", logs.last().unwrap().0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purged_binlogs_are_named_and_skipped_only_when_declared() {
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    node.stop();
    purge(&server).await;
    node.start();
    let status = node.wait("the gap is named", |s| s["sources"][0]["state"] == "failed").await;
    assert!(text(&status, "/sources/0/error/message").contains("purged transactions"), "{status:#}");
    assert!(text(&status, "/sources/0/error/hint").contains("on_gap"), "{status:#}");
    assert_eq!(ids(&node), ["1", "2"]);
    node.stop();
    node.write("sources/shop.yaml", &(mysql_source(&server.url(), "shop.*") + "on_gap: skip\n"));
    node.start();
    node.wait("a new epoch", |s| s["sources"][0]["epoch"] == 2 && s["sources"][0]["state"] == "stream").await;
    server.exec("INSERT INTO shop.a VALUES (4, 'four')").await.unwrap();
    node.until("only what came after", || async { ids(&node) == ["1", "2", "4"] }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_gtids_another_server_is_not_taken_for_the_same() {
    let options = MySqlOptions { gtid: false, ..MySqlOptions::default() };
    let (server, mut node) = copied(options, "").await;
    node.stop();
    server.stop().await.unwrap();
    fs::remove_file(server.data_dir().join("auto.cnf")).unwrap();
    server.restart().await.unwrap();
    server.exec("INSERT INTO shop.a VALUES (3, 'three')").await.unwrap();
    node.start();
    let status = node.wait("the change is named", |s| s["sources"][0]["state"] == "failed").await;
    assert!(text(&status, "/sources/0/error/message").contains("but this is server"), "{status:#}");
    node.stop();
    node.write("sources/shop.yaml", &(mysql_source(&server.url(), "shop.*") + "on_gap: resnapshot\n"));
    node.start();
    node.until("read anew", || async { ids(&node) == ["1", "2", "3"] }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_in_place_of_rows_stops_capture_and_says_what_to_do() {
    let (server, node) = copied(MySqlOptions::default(), "").await;
    server.exec("SET SESSION binlog_format = 'STATEMENT'; UPDATE shop.a SET v = 'x'").await.unwrap();
    let status = node.wait("the statement is named", |s| s["sources"][0]["state"] == "failed").await;
    let message = text(&status, "/sources/0/error/message");
    assert!(message.contains("statement instead of rows") && message.contains("UPDATE shop.a"), "{status:#}");
    let (_, out, _) = node.run(&["status"]);
    assert!(out.contains("hint:") && out.contains("binlog_format"), "{out}");
    let (code, out, err) = node.run(&["flow", "resnapshot", "to_file"]);
    assert!(code == 0 && out.contains("shop.a"), "{code} {out} {err}");
    let values = || sqlite_rows(&node.path("copy.db"), "SELECT v FROM a ORDER BY id").concat();
    node.until("read anew, past the statement", || async { values() == ["x", "x"] }).await;
    server.exec("INSERT INTO shop.a VALUES (3, 'y')").await.unwrap();
    node.until("and streaming", || async { values() == ["x", "x", "y"] }).await;
    assert_eq!(node.status()["sources"][0]["epoch"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_journal_stops_that_source_alone_and_names_the_place() {
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    run_all(&server, &["CREATE DATABASE other", "CREATE TABLE other.b (id INT PRIMARY KEY)"]).await;
    node.stop();
    let folder = node.path("data/journal/shop");
    let segment = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let segment = segment.into_iter().find(|p| p.extension().is_some_and(|e| e == "journal")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(3).position(|w| w == b"two").unwrap();
    bytes[place] ^= 0x10;
    fs::write(&segment, &bytes).unwrap();
    node.write("sources/other.yaml", &mysql_source(&server.url(), "other.*"));
    node.write("flows/other_to_file.yaml", "from: other\nto: file\n");
    node.start();
    let status = node.wait("the damage is named", |s| s["sources"][1]["state"] == "failed").await;
    assert!(text(&status, "/sources/1/error/message").contains("is corrupt at byte"), "{status:#}");
    assert!(text(&status, "/sources/1/error/hint").contains("restore"), "{status:#}");
    let flows = status["flows"].as_array().unwrap();
    assert!(flows.iter().any(|f| f["name"] == "to_file" && f["state"] == "failed"), "{status:#}");
    node.wait("the other source streams", |s| s["sources"][0]["state"] == "stream").await;
    server.exec("INSERT INTO other.b VALUES (7)").await.unwrap();
    let file = node.path("copy.db");
    node.until("the other flow delivers", || async {
        sqlite_rows(&file, "SELECT id FROM b").concat() == ["7"]
    })
    .await;
    let (code, _, err) = node.run(&["tail", "shop", "--offline"]);
    assert!(code == 1 && err.contains("is corrupt at byte") && err.contains("hint:"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_changes_is_told_that_the_journal_breaks_off() {
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    node.stop();
    let config = fs::read_to_string(node.path("tidemill.yaml")).unwrap();
    node.write("tidemill.yaml", &format!("{config}journal: {{segment_bytes: 64KiB}}\n"));
    node.start();
    let many = format!("INSERT INTO shop.a {}", values(10..901, |i| format!("{i}, REPEAT('y', 200)")));
    // A segment ends where something is sealed: the second statement comes after that.
    for (sql, rows) in [(many.as_str(), 893), ("INSERT INTO shop.a VALUES (8, 'last')", 894)] {
        run_all(&server, &[sql]).await;
        node.until("it is delivered", || async { ids(&node).len() == rows }).await;
    }
    node.stop();
    let segments = fs::read_dir(node.path("data/journal/shop")).unwrap().map(|e| e.unwrap().path());
    let mut segments: Vec<_> = segments.filter(|p| p.extension().is_some_and(|e| e == "journal")).collect();
    segments.sort();
    assert!(segments.len() > 1, "{segments:?}");
    let mut bytes = fs::read(&segments[0]).unwrap();
    let place = bytes.len() - 60;
    bytes[place] ^= 0x10;
    fs::write(&segments[0], &bytes).unwrap();
    let (code, _, err) = node.run(&["tail", "shop", "--offline"]);
    assert!(code == 1 && err.contains("is corrupt at byte"), "{code} {err}");
    node.start();
    node.wait("running", |s| s["sources"][0]["state"] == "stream").await;
    let url = format!("http://{}/api/v1/sources/shop/changes?from=start", node.address());
    let whole = async { reqwest::get(url).await?.bytes().await };
    assert!(whole.await.is_err(), "the answer breaks off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_changes_outlasts_a_quiet_source() {
    let (server, node) = copied(MySqlOptions::default(), "").await;
    let url = format!("http://{}/api/v1/sources/shop/changes?from=now&follow=true", node.address());
    let mut answer = reqwest::get(url).await.unwrap();
    // Longer than the node waits before it asks whether anyone still listens.
    let quiet = tokio::time::timeout(Duration::from_secs(7), answer.chunk()).await;
    assert!(quiet.is_err(), "nothing was written, and the answer went on: {quiet:?}");
    run_all(&server, &["INSERT INTO shop.a VALUES (77, 'late')"]).await;
    let line = answer.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&line).contains("\"late\""), "{line:?}");
    assert!(!node.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_began_anew_is_not_taken_for_the_old_one() {
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    node.stop();
    fs::remove_dir_all(node.path("data")).unwrap();
    run_all(
        &server,
        &["DELETE FROM shop.a WHERE id = 1", "INSERT INTO shop.a VALUES (3, 'x'), (4, 'x'), (5, 'x')"],
    )
    .await;
    node.start();
    let status = node.wait("the flow stands still", |s| s["flows"][0]["state"] == "failed").await;
    assert!(text(&status, "/flows/0/error/message").contains("another journal"), "{status:#}");
    assert_eq!(ids(&node), ["1", "2"]);
    node.wait("the source has its snapshot", |s| s["sources"][0]["state"] == "stream").await;
    let (code, _, err) = node.run(&["flow", "resnapshot", "to_file"]);
    assert_eq!(code, 0, "{err}");
    node.until("read anew", || async { ids(&node) == ["2", "3", "4", "5"] }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_keeps_every_change_of_a_journal_that_began_anew() {
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    let target = MySql::start(MySqlOptions { server_id: 2, ..MySqlOptions::default() }).await.unwrap();
    node.write("sinks/db.yaml", &format!("kind: mysql\nurl: {}\n", target.url()));
    node.write("flows/a_db.yaml", "from: shop\nto: db\noptions: {history: true}\n");
    node.write("flows/b_file.yaml", "from: shop\nto: log\noptions: {history: true}\n");
    node.write("sinks/log.yaml", "kind: sqlite\npath: ./log.db\n");
    // As both were before a history knew its journal.
    let old = "(epoch INT NOT NULL, lsn BIGINT NOT NULL, op VARCHAR(8) NOT NULL, ts_ms BIGINT NOT NULL, \
               txn VARCHAR(128), row_key JSON, before_row JSON, after_row JSON, statement LONGTEXT, \
               PRIMARY KEY (epoch, lsn))";
    let row = "INSERT INTO tidemill_history_a VALUES (1, 1, 'old', 0, NULL, NULL, NULL, NULL, NULL)";
    run_all(&target, &["CREATE DATABASE shop", &format!("CREATE TABLE shop.tidemill_history_a {old}")]).await;
    run_all(&target, &[&row.replace("INTO ", "INTO shop.")]).await;
    let file = rusqlite::Connection::open(node.path("log.db")).unwrap();
    file.execute_batch(&format!("CREATE TABLE tidemill_history_a {old} WITHOUT ROWID; {row}")).unwrap();
    drop(file);
    node.stop();
    node.start();
    let failed = |s: &Value, flow: usize| s["flows"][flow]["state"] == "failed";
    let status = node.wait("the old table is named", |s| failed(s, 0)).await;
    let hint = text(&status, "/flows/0/error/hint").to_owned();
    run_all(&target, &[hint.split_once(';').unwrap().0]).await;

    // Journal, lsn and op of each change but statements, oldest journal first.
    let select = "SELECT CAST(journal AS CHAR), CAST(lsn AS CHAR), op FROM tidemill_history_a ORDER BY lsn";
    let log = node.path("log.db");
    let in_file = || -> Vec<Vec<String>> { sqlite_rows(&log, select) };
    let in_db = async || -> Vec<Vec<String>> {
        let sql = select.replace("FROM ", "FROM shop.");
        let rows: Vec<(String, String, String)> = target.query(&sql).await.unwrap_or_default();
        rows.into_iter().map(|(journal, lsn, op)| vec![journal, lsn, op]).collect()
    };
    let both = async || [in_file(), in_db().await];
    let updates = 100;
    for n in 0..updates {
        server.exec(&format!("UPDATE shop.a SET v = 'v{n}' WHERE id = 1")).await.unwrap();
    }
    node.until("the first journal is there", || async {
        both()
            .await
            .iter()
            .all(|rows| rows.len() == 1 + 2 + updates && rows.iter().any(|row| row[2] == "old"))
    })
    .await;
    let before = both().await;

    node.stop();
    fs::remove_dir_all(node.path("data")).unwrap();
    node.start();
    node.wait("the flows stand still", |s| failed(s, 0) && failed(s, 1)).await;
    node.wait("the source has its snapshot", |s| s["sources"][0]["state"] == "stream").await;
    for flow in ["a_db", "b_file"] {
        let (code, _, err) = node.run(&["flow", "resnapshot", flow]);
        assert_eq!(code, 0, "{err}");
    }
    server.exec("INSERT INTO shop.a VALUES (50, 'last')").await.unwrap();
    node.until("the last change is there", || async {
        both().await.iter().all(|rows| rows.iter().any(|row| row[2] == "insert"))
    })
    .await;
    let changes = node.changes("shop");
    for (before, rows) in before.iter().zip(both().await) {
        let (old, new): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| before.contains(row));
        assert_eq!(old.len(), before.len(), "what was there stays");
        let journal = &new[0][0];
        assert!(journal != "0" && new.iter().all(|row| row[0] == *journal), "{new:?}");
        let wanted =
            changes.iter().skip_while(|change| change["lsn"].as_u64().unwrap().to_string() != new[0][1]);
        let wanted: Vec<_> = wanted.map(|change| (change["lsn"].to_string(), change["op"].clone())).collect();
        let kept: Vec<_> = new.iter().map(|row| (row[1].clone(), Value::from(row[2].as_str()))).collect();
        assert_eq!(kept, wanted, "every change since the tables were read anew");
        assert!(new.iter().filter(|row| row[2] == "read").count() >= 2, "{new:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_alarms_a_flow_that_lags_and_then_lets_go() {
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    node.stop();
    let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    let journal = "journal: {segment_bytes: 4KiB, retention_bytes: 64KiB}\n";
    node.write("tidemill.yaml", &(listen + journal));
    node.start();
    node.until("the node answers", || async { node.status() != Value::Null }).await;
    let (code, _, err) = node.run(&["flow", "pause", "to_file"]);
    assert_eq!(code, 0, "{err}");
    let wide = "x".repeat(300);
    let mut id = 100;
    let mut write = async |rows: i32| {
        for _ in 0..rows {
            id += 1;
            server.exec(&format!("INSERT INTO shop.a VALUES ({id}, '{wide}')")).await.unwrap();
        }
        id
    };
    write(230).await;
    node.wait("the flow is named", |s| s["flows"][0]["holds_journal"] == true).await;
    let oldest = || node.changes("shop")[0]["lsn"].as_u64().unwrap();
    assert!(oldest() <= 3, "nothing that the flow lacks has gone yet: {}", oldest());
    write(400).await;
    // A look while a segment goes says so and fails: it is repeated.
    node.until("the journal let go", || async {
        let (code, out, _) = node.run(&["tail", "shop", "--offline", "--limit", "1"]);
        code == 0 && serde_json::from_str::<Value>(&out).unwrap()["lsn"].as_u64() > Some(3)
    })
    .await;
    node.run(&["flow", "resume", "to_file"]);
    let status = node.wait("the loss is named", |s| s["flows"][0]["state"] == "failed").await;
    assert!(text(&status, "/flows/0/error/message").contains("retention has removed"), "{status:#}");
    let (code, _, err) = node.run(&["flow", "resnapshot", "to_file"]);
    assert_eq!(code, 0, "{err}");
    // The stream does not wait for the snapshot: this row may be there before the others.
    let last = write(1).await.to_string();
    node.until("read anew", || async {
        let ids = ids(&node);
        ids.len() == 2 + 631 && ids.contains(&last)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xa_transactions_count_when_they_are_committed_also_over_restarts() {
    use testkit::mysql_async::prelude::Queryable;
    let (server, mut node) = copied(MySqlOptions::default(), "").await;
    let xa = async |name: &str, change: &str, ends: &[&str]| {
        let mut conn = server.conn().await.unwrap();
        let mut script = vec![format!("XA START '{name}'"), change.to_owned(), format!("XA END '{name}'")];
        script.extend(ends.iter().map(|end| end.replace('?', &format!("'{name}'"))));
        for sql in script {
            conn.query_drop(sql).await.unwrap();
        }
    };
    let (prepare, commit, rollback) = ("XA PREPARE ?", "XA COMMIT ?", "XA ROLLBACK ?");
    xa("one", "INSERT INTO shop.a VALUES (10, 'x')", &["XA COMMIT ? ONE PHASE"]).await;
    xa("two", "INSERT INTO shop.a VALUES (11, 'x')", &[prepare, commit]).await;
    xa("gone", "INSERT INTO shop.a VALUES (12, 'x')", &[prepare, rollback]).await;
    xa("late", "UPDATE shop.a SET id = 13 WHERE id = 11", &[prepare]).await;
    server.exec("INSERT INTO shop.a VALUES (14, 'x')").await.unwrap();
    node.until("what is prepared waits, the rest flows", || async {
        ids(&node) == ["1", "2", "10", "11", "14"]
    })
    .await;
    node.kill9();
    node.start();
    server.exec("INSERT INTO shop.a VALUES (15, 'x')").await.unwrap();
    node.until("nothing comes twice", || async { ids(&node) == ["1", "2", "10", "11", "14", "15"] }).await;
    server.exec("XA COMMIT 'late'").await.unwrap();
    node.until("the commit brings its rows", || async { ids(&node) == ["1", "2", "10", "13", "14", "15"] })
        .await;
    let changes = node.changes("shop");
    crate::node::assert_dense(&changes);
    assert_eq!(changes.iter().filter(|change| change["op"] == "insert").count(), 4, "{changes:#?}");

    // Prepared before a new journal begins: its rows were never seen, so all tables are read again.
    xa("before", "INSERT INTO shop.a VALUES (20, 'x')", &[prepare]).await;
    node.stop();
    fs::remove_dir_all(node.path("data")).unwrap();
    fs::remove_file(node.path("copy.db")).unwrap();
    node.start();
    node.until("a new snapshot", || async { ids(&node) == ["1", "2", "10", "13", "14", "15"] }).await;
    server.exec("XA COMMIT 'before'").await.unwrap();
    node.until("read anew", || async { ids(&node) == ["1", "2", "10", "13", "14", "15", "20"] }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_a_quiet_table_outlasts_the_retention_of_busy_ones() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(400))",
            "CREATE TABLE shop.quiet (id INT PRIMARY KEY)",
            "CREATE TABLE shop.never (id INT PRIMARY KEY)",
        ],
    )
    .await;
    let flow = |to: &str, table: &str| format!("from: shop\nto: {to}\ntables: [shop.{table}]\n");
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*") + "snapshot: never\n"),
        ("sinks/events.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("flows/a_events.yaml", flow("events", "quiet")),
        ("flows/b_empty.yaml", flow("events", "never") + "options: {subject: \"never.{table}\"}\n"),
        ("flows/c_lines.yaml", flow("lines", "quiet")),
        ("flows/d_none.yaml", flow("lines", "never")),
    ]);
    let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    let journal = "journal: {segment_bytes: 4KiB, retention_bytes: 16KiB}\n";
    node.write("tidemill.yaml", &(listen + journal));
    node.start();
    node.wait("streaming", crate::node::streams).await;
    run_all(&server, &["INSERT INTO shop.quiet VALUES (1)"]).await;
    let wide = "x".repeat(300);
    for id in 0..120 {
        server.exec(&format!("INSERT INTO shop.a VALUES ({id}, '{wide}')")).await.unwrap();
    }
    let all =
        |s: &Value, lsn: u64| (0..4).all(|i| s["flows"][i]["lsn"] == lsn && s["flows"][i]["error"].is_null());
    node.wait("all is passed", |s| all(s, 121)).await;
    node.until("the journal let go", || async {
        let (code, out, _) = node.run(&["tail", "shop", "--offline", "--limit", "1"]);
        code == 0 && serde_json::from_str::<Value>(&out).unwrap()["lsn"].as_u64() > Some(3)
    })
    .await;
    node.stop();
    node.start();
    run_all(&server, &["INSERT INTO shop.quiet VALUES (2)"]).await;
    let status = node.wait("all goes on, or does not", |s| {
        all(s, 122) || (0..4).any(|i| s["flows"][i]["state"] == "failed")
    });
    let status = status.await;
    assert!(all(&status, 122), "{status:#}");
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = context.get_stream("TIDEMILL_A_EVENTS").await.unwrap();
    assert_eq!(stream.get_info().await.unwrap().state.last_sequence, 2);
}
