//! Wrong settings, refused rows, lost history, statements that change tables: cause, hint, status, and nothing lost.

use crate::node::{Node, mysql_source, sqlite_rows, streams};
use testkit::{MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_change_tables_are_followed() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    follow_statements(&server, &server, "mysql").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_change_tables_are_followed_into_tidb() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let sink = TiDb::start(TiDbOptions::default()).await.unwrap();
    follow_statements(&server, &sink, "tidb").await;
}

/// Runs statements and rows on the server, and compares a SQLite copy and the database `copy` of the sink after each.
async fn follow_statements(server: &SqlServer, sink: &SqlServer, kind: &str) {
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(10))",
        "INSERT INTO shop.a VALUES (1, 'x')",
    ] {
        server.exec(sql).await.unwrap();
    }
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("sinks/db.yaml", format!("kind: {kind}\nurl: {}\n", sink.url())),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("the snapshot is done", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    let file = node.path("copy.db");
    let steps = [
        (
            "ALTER TABLE shop.a ADD COLUMN n INT NOT NULL DEFAULT 7, ADD UNIQUE KEY (n, id)",
            "INSERT INTO shop.a VALUES (2, 'y', 8)",
            "SELECT id, v FROM a ORDER BY id",
        ),
        (
            "ALTER TABLE shop.a RENAME COLUMN v TO w",
            "INSERT INTO shop.a VALUES (3, 'z', 9)",
            "SELECT id, w FROM a ORDER BY id",
        ),
        (
            "RENAME TABLE shop.a TO shop.b",
            "INSERT INTO shop.b VALUES (4, 'q', 10)",
            "SELECT id, w FROM b ORDER BY id",
        ),
        (
            "ALTER TABLE shop.b DROP COLUMN n",
            "INSERT INTO shop.b VALUES (5, 'r')",
            "SELECT id, w FROM b ORDER BY id",
        ),
        (
            "CREATE TABLE shop.c LIKE shop.b",
            "INSERT INTO shop.c SELECT id, w FROM shop.b",
            "SELECT id, w FROM c ORDER BY id",
        ),
        ("TRUNCATE TABLE shop.b", "INSERT INTO shop.b VALUES (6, 's')", "SELECT id, w FROM b ORDER BY id"),
        ("DROP TABLE shop.c", "INSERT INTO shop.b VALUES (7, 't')", "SELECT id, w FROM b ORDER BY id"),
    ];
    for (ddl, dml, check) in steps {
        server.exec(ddl).await.unwrap();
        server.exec(dml).await.unwrap();
        let (from, to) = (check.replace("FROM ", "FROM shop."), check.replace("FROM ", "FROM copy."));
        let text = |rows: Vec<(i32, String)>| -> Vec<Vec<String>> {
            rows.into_iter().map(|(i, v)| vec![i.to_string(), v]).collect()
        };
        let wanted = text(server.query(&from).await.unwrap());
        node.until(ddl, || async { sqlite_rows(&file, check) == wanted }).await;
        node.until(ddl, || async { text(sink.query(&to).await.unwrap_or_default()) == wanted }).await;
    }
    assert!(sqlite_rows(&file, "SELECT name FROM sqlite_schema WHERE name = 'c'").is_empty());
    let left: Vec<String> = sink
        .query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'copy' ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(left, ["b"], "a table that is dropped goes, and one that is renamed leaves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_row_is_parked_and_later_ones_of_its_key_wait_behind_it() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    for sql in [
        "CREATE DATABASE shop",
        "CREATE DATABASE copy",
        "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(40))",
        "CREATE TABLE copy.a (id INT PRIMARY KEY, v VARCHAR(5))",
    ] {
        server.exec(sql).await.unwrap();
    }
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    for sql in [
        "INSERT INTO shop.a VALUES (1, 'short'), (2, 'much too long'), (3, 'fine')",
        "UPDATE shop.a SET v = 'ok' WHERE id = 2",
        "INSERT INTO shop.a VALUES (4, 'after')",
    ] {
        server.exec(sql).await.unwrap();
    }
    let rows = async || -> Vec<(i32, String)> {
        server.query("SELECT id, v FROM copy.a ORDER BY id").await.unwrap()
    };
    let text = |rows: &[(i32, &str)]| -> Vec<(i32, String)> {
        rows.iter().map(|(i, v)| (*i, (*v).to_owned())).collect()
    };
    let without = text(&[(1, "short"), (3, "fine"), (4, "after")]);
    node.until("all but the refused row is there", || async { rows().await == without }).await;
    let status = node.wait("two are parked", |s| s["flows"][0]["dead_letters"] == 2).await;
    assert_eq!(status["flows"][0]["state"], "running");
    node.kill9();
    node.start();
    node.wait("parked over a restart", |s| s["flows"][0]["dead_letters"] == 2).await;
    let (code, out, err) = node.run(&["flow", "dead-letters", "to_db"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("Data too long") && out.contains("waits behind"), "{out}");
    server.exec("ALTER TABLE copy.a MODIFY v VARCHAR(40)").await.unwrap();
    node.until("retry goes through", || async {
        node.run(&["flow", "retry", "to_db"]).1.contains("0 still parked")
    })
    .await;
    let all = text(&[(1, "short"), (2, "ok"), (3, "fine"), (4, "after")]);
    node.until("every row is there", || async { rows().await == all }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_history_follows_the_declared_policy() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.a (id INT PRIMARY KEY)",
        "INSERT INTO shop.a VALUES (1), (2)",
    ] {
        server.exec(sql).await.unwrap();
    }
    let source = mysql_source(&server.url(), "shop.*");
    let mut node = Node::new(&[
        ("sources/shop.yaml", source.clone()),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    node.start();
    let file = node.path("copy.db");
    let rows = || sqlite_rows(&file, "SELECT id FROM a ORDER BY id").concat();
    node.until("the snapshot has arrived", || async { rows() == ["1", "2"] }).await;
    node.kill9();
    for sql in
        ["DELETE FROM shop.a WHERE id = 1", "INSERT INTO shop.a VALUES (3)", "RESET BINARY LOGS AND GTIDS"]
    {
        server.exec(sql).await.unwrap();
    }
    node.start();
    let status = node.wait("the gap is named", |s| s["sources"][0]["state"] == "failed").await;
    let error = &status["sources"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("never had transactions"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("on_gap"), "{error}");
    node.kill9();
    node.write("sources/shop.yaml", &(source + "on_gap: resnapshot\n"));
    node.start();
    node.until("read anew, without the row that is gone", || async { rows() == ["2", "3"] }).await;
    let status = node.wait("streaming in a new epoch", |s| s["sources"][0]["epoch"] == 2).await;
    assert_eq!(status["sources"][0]["error"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_every_wrong_setting_and_grant_at_once() {
    let server = MySql::start(MySqlOptions {
        args: vec!["--binlog-row-image=MINIMAL".into()],
        ..MySqlOptions::default()
    })
    .await
    .unwrap();
    server.exec("CREATE USER cdc@'%' IDENTIFIED BY 'p w'").await.unwrap();
    let url = server.url().replacen("root@", "cdc:p%20w@", 1);
    let node = Node::new(&[("sources/shop.yaml", mysql_source(&url, "shop.*"))]);
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 2, "{err}");
    for part in [
        "SET PERSIST binlog_row_image = 'FULL';",
        "GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%';",
        "GRANT SELECT",
    ] {
        assert!(err.contains(part), "{part} is missing in: {err}");
    }
    assert!(!err.contains("p w") && !err.contains("p%20w"), "{err}");
}

#[test]
fn every_mistake_of_a_project_is_told_at_once_and_nothing_starts() {
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: mysql\nurl: postgres://x\ntables: [orders]\n".into()),
        ("sinks/out.yaml", "kind: files\npaht: x\n".into()),
        ("flows/f.yaml", "from: shopp\nto: out\n".into()),
    ]);
    let (code, _, err) = node.run(&["up"]);
    assert_eq!(code, 2, "{err}");
    for part in [
        "sources/shop.yaml:",
        "`orders` is not a table pattern",
        "sinks/out.yaml:2:",
        "paht",
        "there is no source `shopp`",
        "hint:",
    ] {
        assert!(err.contains(part), "{part} is missing in: {err}");
    }
    assert!(!node.path("data").exists());
}
