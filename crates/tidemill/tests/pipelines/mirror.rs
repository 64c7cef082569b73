//! A mirror has the latest row of each key, with the lsn of its last change: through kills, statements, and the loss of its
//! file or of the journal's beginning.

use crate::node::{Node, PATIENCE, mysql_source, run_all, streams, write_orders};
use base::{RowView, Table};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use testkit::{MySql, MySqlOptions, SqlServer};

/// A row of a mirror: its lsn, and its values by the names of now.
type Row = (u64, BTreeMap<String, String>);

/// The rows of a table in the mirror's file, by the text of a column; nothing when there is no such table.
fn mirrored(node: &Node, table: &str, by: &str) -> BTreeMap<String, Row> {
    read(node, table, by).unwrap_or_default()
}

fn read(node: &Node, name: &str, by: &str) -> rusqlite::Result<BTreeMap<String, Row>> {
    let db = rusqlite::Connection::open(node.path("data/mirror/shop.db"))?;
    db.busy_timeout(PATIENCE)?;
    let sql = "SELECT id FROM tables WHERE name = ?1 AND dropped = 0";
    let id: u32 = db.query_row(sql, [name], |r| r.get(0))?;
    let mut query = db.prepare(&format!(
        "SELECT lsn, row, definition FROM rows_{id} r JOIN schemas s ON s.id = {id} AND s.version = r.version
         WHERE gone = 0"
    ))?;
    let rows = query
        .query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, Vec<u8>>(1)?, r.get::<_, String>(2)?)))?;
    let mut out = BTreeMap::new();
    for row in rows {
        let (lsn, row, definition) = row?;
        let table: Table = serde_json::from_str(&definition).unwrap();
        let values = RowView(&row).values().unwrap();
        let named: BTreeMap<String, String> = table
            .columns
            .iter()
            .zip(&values)
            .filter(|(column, _)| !column.name.is_empty())
            .map(|(column, value)| {
                let text = base::json::value_text(value, column);
                (column.name.clone(), text.trim_matches('"').to_owned())
            })
            .collect();
        assert!(out.insert(named[by].clone(), (lsn as u64, named)).is_none(), "a key is there once");
    }
    Ok(out)
}

async fn orders_of(server: &SqlServer) -> BTreeMap<String, BTreeMap<String, String>> {
    let rows: Vec<(i64, String, String)> =
        server.query("SELECT id, name, CAST(amount AS CHAR) FROM shop.orders").await.unwrap();
    let named = |(id, name, amount): (i64, String, String)| {
        let row = [("id", id.to_string()), ("name", name), ("amount", amount)];
        (id.to_string(), row.map(|(name, value)| (name.to_owned(), value)).into())
    };
    rows.into_iter().map(named).collect()
}

fn values(rows: &BTreeMap<String, Row>) -> BTreeMap<String, BTreeMap<String, String>> {
    rows.iter().map(|(key, (_, row))| (key.clone(), row.clone())).collect()
}

/// The lsn that each row of `orders` has last, as the journal's changes tell.
fn last_changes(node: &Node) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for change in node.changes("shop") {
        if change["table"] != "orders" {
            continue;
        }
        let id = |image: &str| change[image]["id"].as_i64().map(|id| id.to_string());
        if let Some(old) = id("before") {
            out.remove(&old);
        }
        if let Some(new) = id("after") {
            out.insert(new, change["lsn"].as_u64().unwrap());
        }
    }
    out
}

fn mirror(status: &Value) -> &Value {
    &status["sources"][0]["mirror"]
}

/// Waits until the mirror has all that the source has committed and the journal has taken.
async fn settled(node: &Node) -> Value {
    node.wait("the mirror is whole and at the end", |s| {
        mirror(s)["state"] == "following" && mirror(s)["lag_changes"] == 0
    })
    .await
}

async fn equals(node: &Node, server: &SqlServer) {
    let wanted = orders_of(server).await;
    node.until("the mirror equals the source", || async {
        values(&mirrored(node, "orders", "id")) == wanted
    })
    .await;
}

async fn make_shop(server: &SqlServer) {
    run_all(
        server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, amount DECIMAL(10,2) NOT NULL)",
            "CREATE TABLE shop.log (line VARCHAR(40))",
            "INSERT INTO shop.orders WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
             SELECT i, CONCAT('row ', i), i FROM n",
        ],
    )
    .await;
}

fn project(server: &SqlServer, more: &str) -> Node {
    Node::new(&[(
        "sources/shop.yaml",
        mysql_source(&server.url(), "shop.*") + "mirror: [\"shop.*\"]\n" + more,
    )])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_follows_through_kills_and_the_loss_of_its_file() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "options: {snapshot_chunk_rows: 100}\n");
    node.start();
    let stop = AtomicBool::new(false);
    let kills = async {
        for _ in 0..4 {
            let at = mirror(&node.status())["lsn"].as_u64().unwrap_or(0);
            node.wait("the mirror moves", |s| mirror(s)["lsn"].as_u64() > Some(at)).await;
            node.kill9();
            node.start();
        }
        node.wait("it streams again", streams).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write_orders(&server, 7, &stop), kills);
    assert!(written > 5, "{written} statements");
    equals(&node, &server).await;
    let status = settled(&node).await;
    let tables = mirror(&status)["tables"].as_array().unwrap();
    let of = |name: &str| tables.iter().find(|table| table["table"] == name).unwrap();
    assert!(of("shop.log")["refused"].as_str().unwrap().contains("no key"), "{status:#}");
    let rows = mirrored(&node, "orders", "id");
    assert_eq!(of("shop.orders")["rows"].as_u64(), Some(rows.len() as u64));
    assert_eq!(of("shop.orders")["whole"], true);
    let lsns: BTreeMap<String, u64> = rows.into_iter().map(|(key, (lsn, _))| (key, lsn)).collect();
    assert_eq!(lsns, last_changes(&node));
    // The journal has everything since the beginning: the file is filled from it.
    node.kill9();
    let begun = Instant::now();
    for file in ["shop.db", "shop.db-wal", "shop.db-shm"] {
        let _ = std::fs::remove_file(node.path("data/mirror").join(file));
    }
    let changes = node.changes("shop").len();
    node.start();
    equals(&node, &server).await;
    println!("{changes} changes in {:?}, with the start of the node", begun.elapsed());
    let rows = mirrored(&node, "orders", "id");
    let lsns: BTreeMap<String, u64> = rows.into_iter().map(|(key, (lsn, _))| (key, lsn)).collect();
    assert_eq!(lsns, last_changes(&node));
    // A file that is no mirror any more is made anew.
    settled(&node).await;
    node.stop();
    let _ = std::fs::remove_file(node.path("data/mirror/shop.db-wal"));
    std::fs::write(
        node.path("data/mirror/shop.db"),
        "not a database at all, and long enough to be one".repeat(200),
    )
    .unwrap();
    node.start();
    equals(&node, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_follows_statements_and_reads_rows_by_their_own_definition() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    run_all(
        &server,
        &[
            "CREATE TABLE shop.t (id INT PRIMARY KEY, a VARCHAR(9), b INT, code INT NOT NULL DEFAULT 0)",
            "INSERT INTO shop.t VALUES (1, 'one', 10, 7), (2, 'two', 20, 8)",
            "CREATE TABLE shop.gone (id INT PRIMARY KEY)",
            "INSERT INTO shop.gone VALUES (1)",
        ],
    )
    .await;
    let mut node = project(&server, "");
    node.start();
    settled(&node).await;
    let become_ = async |wanted: &[(&str, &[(&str, &str)])]| {
        let wanted: BTreeMap<String, BTreeMap<String, String>> = wanted
            .iter()
            .map(|(key, row)| {
                (
                    (*key).to_owned(),
                    row.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                )
            })
            .collect();
        node.until(&format!("{wanted:?}"), || async { values(&mirrored(&node, "t", "code")) == wanted })
            .await;
    };
    // A renamed column keeps its values, and one that comes under the name of a dropped one does not have its.
    server.exec("ALTER TABLE shop.t RENAME COLUMN a TO label, DROP COLUMN b").await.unwrap();
    become_(&[
        ("7", &[("id", "1"), ("label", "one"), ("code", "7")]),
        ("8", &[("id", "2"), ("label", "two"), ("code", "8")]),
    ])
    .await;
    server.exec("ALTER TABLE shop.t ADD COLUMN b INT").await.unwrap();
    server.exec("INSERT INTO shop.t VALUES (3, 'three', 9, 30)").await.unwrap();
    become_(&[
        ("7", &[("id", "1"), ("label", "one"), ("code", "7")]),
        ("8", &[("id", "2"), ("label", "two"), ("code", "8")]),
        ("9", &[("id", "3"), ("label", "three"), ("code", "9"), ("b", "30")]),
    ])
    .await;
    // Another key: rows are known by it.
    server.exec("ALTER TABLE shop.t DROP PRIMARY KEY, ADD PRIMARY KEY (code)").await.unwrap();
    server.exec("UPDATE shop.t SET id = 1 WHERE code = 8").await.unwrap();
    server.exec("DELETE FROM shop.t WHERE code = 7").await.unwrap();
    become_(&[
        ("8", &[("id", "1"), ("label", "two"), ("code", "8"), ("b", "null")]),
        ("9", &[("id", "3"), ("label", "three"), ("code", "9"), ("b", "30")]),
    ])
    .await;
    server.exec("TRUNCATE shop.t").await.unwrap();
    server.exec("INSERT INTO shop.t VALUES (4, 'four', 5, 6)").await.unwrap();
    become_(&[("5", &[("id", "4"), ("label", "four"), ("code", "5"), ("b", "6")])]).await;
    server.exec("RENAME TABLE shop.t TO shop.u").await.unwrap();
    server.exec("DROP TABLE shop.gone").await.unwrap();
    node.until("the table has its new name", || async { mirrored(&node, "u", "id").len() == 1 }).await;
    node.until("nothing is left of the others", || async {
        mirrored(&node, "t", "id").is_empty() && mirrored(&node, "gone", "id").is_empty()
    })
    .await;
    let status = settled(&node).await;
    let names: Vec<_> =
        mirror(&status)["tables"].as_array().unwrap().iter().map(|t| t["table"].clone()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_lacks_what_the_journal_no_longer_has_has_its_tables_read_anew() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    node.write("tidemill.yaml", &(listen + "journal: {segment_bytes: 4KiB, retention_bytes: 16KiB}\n"));
    node.start();
    settled(&node).await;
    for round in 0..40 {
        server.exec(&format!("UPDATE shop.orders SET name = 'round {round}' WHERE id < 50")).await.unwrap();
    }
    equals(&node, &server).await;
    node.until("the journal has lost its beginning", || async {
        !node.path("data/journal/shop/0000000001-00000000000000000001.journal").exists()
    })
    .await;
    node.kill9();
    for file in ["shop.db", "shop.db-wal", "shop.db-shm"] {
        let _ = std::fs::remove_file(node.path("data/mirror").join(file));
    }
    server.exec("DELETE FROM shop.orders WHERE id > 900").await.unwrap();
    node.start();
    equals(&node, &server).await;
    settled(&node).await;
    // Rows that left the source while nobody looked go with the reading anew, too.
    server
        .exec("SET SESSION sql_log_bin = 0; DELETE FROM shop.orders WHERE id BETWEEN 100 AND 200")
        .await
        .unwrap();
    node.write("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n");
    node.write("flows/a.yaml", "from: shop\nto: copy\ntables: [shop.orders]\n");
    node.stop();
    node.start();
    node.wait("streaming", streams).await;
    let (code, out, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    equals(&node, &server).await;
    let (code, out, _) = node.run(&["status"]);
    assert!(code == 0 && out.contains("MIRROR OF"), "{out}");
}
