//! Rows so large that an event of them is more than the source takes in one packet.

use crate::node::{Node, mysql_source};
use serde_json::Value;
use testkit::{MySql, MySqlOptions, SqlServer};

/// Bytes of a value. One fits a packet of the source; the two images of an update do not.
const VALUE_BYTES: usize = 2_000_000;

async fn server(server_id: u32, packet: &str) -> MySql {
    // InnoDB takes no value over a tenth of its redo log.
    let args = vec!["--innodb-redo-log-capacity=64M".to_owned(), format!("--max-allowed-packet={packet}")];
    MySql::start(MySqlOptions { server_id, args, ..MySqlOptions::default() }).await.unwrap()
}

/// Key, length and hash of the values of a table.
async fn hashes(server: &SqlServer, table: &str) -> Vec<(i32, u64, String)> {
    server.query(&format!("SELECT id, LENGTH(b), MD5(b) FROM {table} ORDER BY id")).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_larger_than_the_packets_of_the_source_are_read_and_written_everywhere() {
    let (source, sink) = (server(1, "3M").await, server(2, "8M").await);
    let insert =
        |id: u32, byte: char| format!("INSERT INTO shop.a VALUES ({id}, REPEAT('{byte}', {VALUE_BYTES}))");
    for sql in
        ["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, b LONGBLOB)", &insert(1, 'a')]
    {
        source.exec(sql).await.unwrap();
    }
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", sink.url())),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("flows/to_db.yaml", "from: shop\nto: db\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
        ("flows/to_lines.yaml", "from: shop\nto: lines\n".into()),
    ]);
    node.start();
    let all = |s: &Value, lsn: u64| (0..3).all(|i| s["flows"][i]["lsn"] == lsn);
    node.wait("the snapshot is everywhere", |s| all(s, 1)).await;
    source.exec(&insert(2, 'b')).await.unwrap();
    source
        .exec(&format!("UPDATE shop.a SET b = CONCAT(REPEAT('c', {VALUE_BYTES} - 1), 'd') WHERE id = 1"))
        .await
        .unwrap();
    let status = node.wait("all is everywhere", |s| all(s, 3)).await;
    for flow in status["flows"].as_array().unwrap() {
        assert_eq!(flow["dead_letters"], 0, "{flow:#}");
    }
    assert_eq!(hashes(&sink, "shop.a").await, hashes(&source, "shop.a").await);
    let db = rusqlite::Connection::open(node.path("copy.db")).unwrap();
    for (id, first, last) in [(1, b'c', b'd'), (2, b'b', b'b')] {
        let value: Vec<u8> = db.query_row("SELECT b FROM a WHERE id = ?", [id], |row| row.get(0)).unwrap();
        assert_eq!((value.len(), value.last()), (VALUE_BYTES, Some(&last)));
        assert!(value[..VALUE_BYTES - 1].iter().all(|byte| *byte == first));
    }
    let bytes: u64 =
        std::fs::read_dir(node.path("lines")).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
    // Four images in base64.
    assert!(bytes > 4 * VALUE_BYTES as u64 * 4 / 3, "{bytes}");
}
