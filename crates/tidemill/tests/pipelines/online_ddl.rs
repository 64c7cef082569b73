//! What people do to tables that are in use: online schema changes that swap a new table in, names that trade places, partitions
//! that are exchanged, columns that come and go in an instant, other character sets, generated and invisible columns. The copy
//! is what the source has, and the table that others know by its name is one table throughout.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams, values};
use std::time::Duration;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Row, Value};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

/// A node that copies what `tables` matches into a file.
async fn node(server: &SqlServer, tables: &str) -> Node {
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), tables)),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    node.start();
    node.wait("it streams", |s| streams(s) && s["sources"][0]["snapshot"]["state"] == "done").await;
    node
}

async fn rows(server: &SqlServer, table: &str, columns: &str) -> Vec<Vec<String>> {
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("SET NAMES utf8mb4").await.unwrap();
    let rows: Vec<Row> = conn.query(format!("SELECT {columns} FROM shop.{table} ORDER BY 1")).await.unwrap();
    let text = |value: Value| match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        _ => "NULL".to_owned(),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
}

/// Waits until the copy of a table has what the source has.
async fn equal(node: &Node, server: &SqlServer, table: &str, columns: &str) {
    let wanted = rows(server, table, columns).await;
    let sql = format!("SELECT {columns} FROM {table} ORDER BY 1");
    node.until(&format!("{table} is what it is at the source"), || async {
        sqlite_rows(&node.path("copy.db"), &sql) == wanted
    })
    .await;
}

/// `gh-ost` and `pt-online-schema-change` as the server sees them: a table beside the real one gets the new definition, then
/// its rows, and takes its name.
async fn swapped_in(server: &SqlServer, beside: &str, aside: &str) {
    let t = "shop.t";
    run_all(
        server,
        &[
            &format!("CREATE TABLE shop.{beside} LIKE {t}"),
            &format!(
                "ALTER TABLE shop.{beside} ADD COLUMN extra INT NOT NULL DEFAULT 5, MODIFY v VARCHAR(40)"
            ),
            &format!("INSERT IGNORE INTO shop.{beside} (id, v) SELECT id, v FROM {t} WHERE id <= 20"),
            &format!("UPDATE {t} SET v = 'changed' WHERE id = 7"),
            &format!("REPLACE INTO shop.{beside} (id, v) SELECT id, v FROM {t} WHERE id = 7"),
            &format!("DELETE FROM {t} WHERE id = 30"),
            &format!("INSERT IGNORE INTO shop.{beside} (id, v) SELECT id, v FROM {t} WHERE id > 20"),
            &format!("RENAME TABLE {t} TO shop.{aside}, shop.{beside} TO {t}"),
            &format!("INSERT INTO {t} VALUES (100, 'behind the swap', 6)"),
            &format!("UPDATE {t} SET extra = 9 WHERE id = 8"),
            &format!("DROP TABLE shop.{aside}"),
            &format!("DELETE FROM {t} WHERE id = 9"),
        ],
    )
    .await;
}

async fn make(server: &SqlServer) {
    run_all(
        server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(20))",
            &format!("INSERT INTO shop.t {}", values(1..41, |i| format!("{i}, 'row {i}'"))),
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE shop.b (id INT PRIMARY KEY, w VARCHAR(9))",
            "INSERT INTO shop.a VALUES (1, 1), (2, 2)",
            "INSERT INTO shop.b VALUES (3, 'x')",
            "CREATE TABLE shop.parts (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) \
             (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))",
            "CREATE TABLE shop.part (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.parts VALUES (1, 1), (2, 2), (11, 3)",
            "INSERT INTO shop.part VALUES (5, 5)",
            "CREATE TABLE shop.instant (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.instant VALUES (1, 1), (2, 2)",
            "CREATE TABLE shop.letters (id INT PRIMARY KEY, s VARCHAR(9)) CHARACTER SET latin1",
            "INSERT INTO shop.letters VALUES (1, x'e9')",
            "CREATE TABLE shop.made (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.made VALUES (1, 1), (2, 2)",
        ],
    )
    .await;
}

async fn every_change_is_followed(server: &SqlServer) {
    make(server).await;
    let all = node(server, "shop.*").await;
    let mut only = node(server, "shop.t").await;
    swapped_in(server, "_t_gho", "_t_del").await;
    equal(&all, server, "t", "id, v, extra").await;
    equal(&only, server, "t", "id, v, extra").await;
    run_all(server, &["UPDATE shop.t SET v = 'last' WHERE id = 10"]).await;
    equal(&only, server, "t", "id, v, extra").await;
    only.stop();
    let ddl: Vec<String> = only
        .changes("shop")
        .iter()
        .filter(|change| change["op"] == "ddl")
        .map(|change| change["sql"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(ddl.len() == 1 && ddl[0].contains("RENAME TABLE"), "one change of the schema: {ddl:#?}");

    // Two tables trade names; rows before and behind.
    run_all(
        server,
        &[
            "UPDATE shop.a SET v = 7 WHERE id = 1",
            "RENAME TABLE shop.a TO shop.passing, shop.b TO shop.a, shop.passing TO shop.b",
            "INSERT INTO shop.a VALUES (4, 'y')",
            "INSERT INTO shop.b VALUES (5, 5)",
        ],
    )
    .await;
    equal(&all, server, "a", "id, w").await;
    equal(&all, server, "b", "id, v").await;

    run_all(
        server,
        &[
            "UPDATE shop.parts SET v = 9 WHERE id = 2",
            "ALTER TABLE shop.parts EXCHANGE PARTITION p0 WITH TABLE shop.part",
            "INSERT INTO shop.parts VALUES (6, 6)",
            "INSERT INTO shop.part VALUES (7, 7)",
        ],
    )
    .await;
    equal(&all, server, "parts", "id, v").await;
    equal(&all, server, "part", "id, v").await;
    run_all(server, &["ALTER TABLE shop.parts DROP PARTITION p1", "INSERT INTO shop.parts VALUES (8, 8)"])
        .await;
    equal(&all, server, "parts", "id, v").await;

    run_all(
        server,
        &[
            "ALTER TABLE shop.instant ADD COLUMN w INT NOT NULL DEFAULT 4 FIRST, ALGORITHM=INSTANT",
            "UPDATE shop.instant SET v = 3 WHERE id = 1",
            "ALTER TABLE shop.instant DROP COLUMN v, ALGORITHM=INSTANT",
            "INSERT INTO shop.instant (id, w) VALUES (3, 8)",
            "ALTER TABLE shop.instant ADD COLUMN v VARCHAR(9) DEFAULT 'new', ALGORITHM=INSTANT",
            "UPDATE shop.instant SET w = 6 WHERE id = 2",
        ],
    )
    .await;
    equal(&all, server, "instant", "id, w, v").await;

    run_all(
        server,
        &[
            "ALTER TABLE shop.letters CONVERT TO CHARACTER SET utf8mb4",
            "INSERT INTO shop.letters VALUES (2, x'e5ad97')",
            "ALTER TABLE shop.letters MODIFY s VARCHAR(9) CHARACTER SET gbk",
            "INSERT INTO shop.letters VALUES (3, x'd7d6')",
            "UPDATE shop.letters SET s = CONCAT(s, s) WHERE id = 1",
        ],
    )
    .await;
    equal(&all, server, "letters", "id, s").await;

    run_all(
        server,
        &[
            "ALTER TABLE shop.made ADD COLUMN twice INT AS (v * 2) STORED, ADD COLUMN once INT AS (v + 1) VIRTUAL",
            "UPDATE shop.made SET v = 5 WHERE id = 1",
            "ALTER TABLE shop.made ADD COLUMN hidden INT INVISIBLE DEFAULT 3",
            "INSERT INTO shop.made (id, v, hidden) VALUES (3, 3, 33)",
            "ALTER TABLE shop.made DROP COLUMN twice",
            "UPDATE shop.made SET v = 6 WHERE id = 2",
        ],
    )
    .await;
    equal(&all, server, "made", "id, v, once, hidden").await;
    let status =
        all.wait("nothing is set aside", |s| s["sources"][0]["quarantined"] == serde_json::json!([])).await;
    assert!(status["flows"][0]["error"].is_null() && status["flows"][0]["dead_letters"] == 0, "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_schema_changes_of_mysql_leave_one_table() {
    every_change_is_followed(&MySql::start(MySqlOptions::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_column_names_in_the_binlog_they_do_too() {
    let args = vec!["--binlog-row-metadata=MINIMAL".to_owned()];
    every_change_is_followed(&MySql::start(MySqlOptions { args, ..MySqlOptions::default() }).await.unwrap())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_schema_changes_of_mariadb_leave_one_table() {
    every_change_is_followed(&MariaDb::start(MariaDbOptions::default()).await.unwrap()).await;
}

/// A statement that capture meets late, while it reads the table that the statement is about: what was read before goes from the
/// journal, so it is read again, also when the chunk under way has seen what the statement did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_emptied_while_it_is_read_is_read_from_its_first_row() {
    let args = vec!["--binlog-row-metadata=MINIMAL".to_owned()];
    let server = MySql::start(MySqlOptions { args, ..MySqlOptions::default() }).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, v INT)",
            &format!("INSERT INTO shop.t {}", values(1..401, |i| format!("{i}, 0"))),
            "CREATE TABLE shop.busy (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
        ],
    )
    .await;
    let options = "options: {snapshot_chunk_rows: 40, snapshot_rows_per_second: 100}\n";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*") + options),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\ntables: [shop.t]\n".into()),
    ]);
    node.patience = Duration::from_secs(60);
    node.start();
    node.wait("a part of it is read", |s| {
        let snapshot = &s["sources"][0]["snapshot"];
        snapshot["state"] != "done" && snapshot["rows"].as_u64() >= Some(80)
    })
    .await;
    node.stop();
    // A long transaction before the statement: the next chunk is asked for meanwhile.
    let doubled = ["INSERT INTO shop.busy (v) SELECT v FROM shop.busy"; 17];
    run_all(&server, &["UPDATE shop.t SET v = 1 WHERE id <= 20", "INSERT INTO shop.busy (v) VALUES (0)"])
        .await;
    run_all(&server, &doubled).await;
    run_all(&server, &["ALTER TABLE shop.t ENGINE = InnoDB", "UPDATE shop.t SET v = 2 WHERE id = 3"]).await;
    node.start();
    equal(&node, &server, "t", "id, v").await;
    node.stop();
    let emptied = node.changes("shop").iter().filter(|change| change["op"] == "truncate").count();
    assert_eq!(emptied, 1, "the statement was not in doubt");
}
