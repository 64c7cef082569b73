//! What a server's settings and a table's definition do to the binlog: compression, tags, quoting, generated and
//! invisible columns, names that are words of SQL, and tables of hundreds of columns.

use super::{delivered, project, run, session};
use crate::node::sqlite_rows;
use mysql_async::prelude::Queryable;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

const WIDE: usize = 600;

/// Tables, each with the columns to compare.
const TABLES: [(&str, &str); 4] = [
    ("select", "`from`, `a``b`, `名字`, `\"q\"`, `ÄÖ`, `Ж`, stored_sum, virtual_sum, hidden, made"),
    ("订单 `\"x", "`主键`, v"),
    ("ansi", "id, v, `w x`"),
    ("wide", "c0, c1, c2, c8, c9, c255, c256, c299, c598, c599"),
];

async fn make(server: &SqlServer) {
    let mut conn = session(server).await;
    let wide: Vec<String> = (0..WIDE)
        .map(|n| if n % 2 == 0 { format!("c{n} INT") } else { format!("c{n} VARCHAR(2)") })
        .collect();
    for sql in [
        "CREATE DATABASE shop CHARACTER SET utf8mb4",
        "CREATE TABLE shop.`select` (`from` INT PRIMARY KEY, `a``b` VARCHAR(9), `名字` VARCHAR(9), `\"q\"` INT, `ÄÖ` INT, \
         stored_sum INT AS (`from` + `ÄÖ`) STORED, virtual_sum INT AS (`from` * 2) VIRTUAL, hidden INT INVISIBLE DEFAULT 3, \
         made VARCHAR(40) DEFAULT (CONCAT('x', 1 + 1)))",
        "INSERT INTO shop.`select` (`from`, `a``b`, `名字`, `\"q\"`, `ÄÖ`) VALUES (1, 'a', '绿', 2, 5), (2, NULL, '', NULL, NULL)",
        "CREATE TABLE shop.`订单 ``\"x` (`主键` VARCHAR(9) PRIMARY KEY, v INT)",
        "INSERT INTO shop.`订单 ``\"x` VALUES ('一', 1), ('二', 2)",
        &format!("CREATE TABLE shop.wide (id INT PRIMARY KEY, {})", wide.join(", ")),
        "INSERT INTO shop.wide (id, c0, c255, c599) VALUES (1, 1, 'a', 'z'), (2, NULL, NULL, NULL)",
    ] {
        run(&mut conn, sql).await;
    }
}

/// Rows, statements and the session's own settings. The count of changes.
async fn change(server: &SqlServer, tag: Option<&str>) -> u64 {
    let mut conn = session(server).await;
    if let Some(tag) = tag {
        run(&mut conn, &format!("SET gtid_next = '{tag}'")).await;
    }
    for sql in [
        "INSERT INTO shop.`select` (`from`, `名字`, `ÄÖ`, hidden) VALUES (3, REPEAT('字', 9), 7, 9)",
        "UPDATE shop.`select` SET `ÄÖ` = 100, `from` = `from` + 10 WHERE `from` IN (1, 2)",
        "DELETE FROM shop.`select` WHERE `from` = 12",
        "UPDATE shop.`订单 ``\"x` SET v = v + 1, `主键` = '三' WHERE `主键` = '一'",
        "UPDATE shop.wide SET c1 = 'q', c299 = 'w', c598 = 5, c0 = NULL",
        "INSERT INTO shop.wide (id, c8, c256) VALUES (3, 8, 256)",
        "ALTER TABLE shop.`select` ADD COLUMN `Ж` INT",
        "UPDATE shop.`select` SET `Ж` = 6 WHERE `from` = 3",
        "SET sql_mode = 'ANSI_QUOTES'",
        "CREATE TABLE shop.\"ansi\" (\"id\" INT PRIMARY KEY, \"v\" VARCHAR(9))",
        "INSERT INTO shop.\"ansi\" VALUES (1, 'it''s')",
    ] {
        run(&mut conn, sql).await;
    }
    // Rows of the eight statements that change some, and two of DDL.
    1 + 2 + 1 + 1 + 2 + 1 + 1 + 1 + 2
}

/// A statement that changes a table is read from the server that has run it, so it waits for the ones before.
async fn change_more(server: &SqlServer, tag: Option<&str>) -> u64 {
    let mut conn = session(server).await;
    if let Some(tag) = tag {
        run(&mut conn, &format!("SET gtid_next = '{tag}'")).await;
    }
    for sql in [
        "SET sql_mode = 'ANSI_QUOTES'",
        "ALTER TABLE shop.\"ansi\" ADD COLUMN \"w x\" INT",
        "INSERT INTO shop.\"ansi\" VALUES (2, '\"', 8)",
    ] {
        run(&mut conn, sql).await;
    }
    2
}

async fn rows(server: &SqlServer, db: &str, table: &str, columns: &str) -> Vec<Vec<String>> {
    let mut conn = session(server).await;
    let sql = format!("SELECT {columns} FROM {db}.`{}` ORDER BY 1, 2", table.replace('`', "``"));
    let rows: Vec<mysql_async::Row> = conn.query(sql).await.unwrap();
    let text = |value: mysql_async::Value| match value {
        mysql_async::Value::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        _ => "NULL".to_owned(),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
}

async fn copies_agree(server: &SqlServer, tag: Option<&str>) {
    make(server).await;
    let mut node = project(&[("src", server)], &[("copy", "mysql", server)], "");
    node.start();
    delivered(&node, &[("src", 6)]).await;
    let lsn = 6 + change(server, tag).await;
    delivered(&node, &[("src", lsn)]).await;
    let lsn = lsn + change_more(server, tag).await;
    delivered(&node, &[("src", lsn)]).await;
    for (table, columns) in TABLES {
        let wanted = rows(server, "shop", table, columns).await;
        assert!(!wanted.is_empty());
        assert_eq!(rows(server, "from_src", table, columns).await, wanted, "{table}");
        let name = format!("\"{}\"", table.replace('"', "\"\""));
        let in_file =
            sqlite_rows(&node.path("src.db"), &format!("SELECT {columns} FROM {name} ORDER BY 1, 2"));
        assert_eq!(in_file, wanted, "{table} in the file");
    }
    if let Some(tag) = tag {
        let tagged =
            |change: &serde_json::Value| change["txn"]["id"].as_str().is_some_and(|id| id.contains(":tag1:"));
        // A table that is new, and whose definition was read from the server after its first row came, is read whole.
        let (read, logged): (Vec<_>, Vec<_>) =
            node.changes("src").into_iter().skip(6).partition(|change| change["op"] == "read");
        let untagged: Vec<_> = logged.iter().filter(|change| !tagged(change)).collect();
        assert!(untagged.is_empty(), "{tag}: {untagged:#?}");
        assert!(logged.len() > 10 && read.iter().all(|change| change["table"] == "ansi"), "{tag}: {read:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_and_tagged_binlog_of_mysql_tells_the_same() {
    let args = ["--binlog-transaction-compression=ON", "--binlog-rows-query-log-events=ON"];
    let options = MySqlOptions { args: args.map(str::to_owned).to_vec(), ..MySqlOptions::default() };
    copies_agree(&MySql::start(options).await.unwrap(), Some("automatic:tag1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_binlog_of_mariadb_tells_the_same() {
    let args = ["--log-bin-compress=ON", "--log-bin-compress-min-len=10"];
    let options = MariaDbOptions { args: args.map(str::to_owned).to_vec(), ..MariaDbOptions::default() };
    copies_agree(&MariaDb::start(options).await.unwrap(), None).await;
}
