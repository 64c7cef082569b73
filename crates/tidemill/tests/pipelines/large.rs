//! Rows so large that an event of them is more than the source takes in one packet.

use crate::node::{Node, PATIENCE, mysql_source};
use serde_json::Value;
use testkit::{
    Kafka, KafkaOptions, MySql, MySqlOptions, OpenSearch, OpenSearchOptions, Redis, RedisOptions, SqlServer,
};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_100_mb_goes_where_it_fits_and_is_told_where_not() {
    const BYTES: usize = 100_000_000;
    let big = |server_id: u32| {
        let args = vec!["--innodb-redo-log-capacity=1200M".to_owned(), "--max-allowed-packet=1G".to_owned()];
        MySql::start(MySqlOptions { server_id, args, ..MySqlOptions::default() })
    };
    let (source, sink) = (big(1).await.unwrap(), big(2).await.unwrap());
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.a (id INT PRIMARY KEY, b LONGTEXT)",
        "INSERT INTO shop.a VALUES (1, 'small')",
    ] {
        source.exec(sql).await.unwrap();
    }
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&source.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", sink.url())),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("sinks/broker.yaml", format!("kind: kafka\nurl: kafka://{}\n", kafka.addr())),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        ("flows/a_db.yaml", "from: shop\nto: db\n".into()),
        ("flows/b_file.yaml", "from: shop\nto: file\n".into()),
        ("flows/c_broker.yaml", "from: shop\nto: broker\n".into()),
        ("flows/d_cache.yaml", "from: shop\nto: cache\n".into()),
        ("flows/e_search.yaml", "from: shop\nto: search\n".into()),
    ]);
    node.patience = 4 * PATIENCE;
    node.start();
    let all = |s: &Value, lsn: u64| (0..5).all(|i| s["flows"][i]["lsn"] == lsn);
    node.wait("the snapshot is everywhere", |s| all(s, 1)).await;
    source.exec(&format!("INSERT INTO shop.a VALUES (2, REPEAT('x', {BYTES}))")).await.unwrap();
    source.exec("INSERT INTO shop.a VALUES (3, 'behind it')").await.unwrap();
    let status = node.wait("all have passed it", |s| all(s, 3)).await;
    let parked: Vec<_> = (0..5).map(|i| status["flows"][i]["dead_letters"].as_u64().unwrap()).collect();
    assert_eq!(parked, [0, 0, 0, 0, 1], "{status:#}");
    assert_eq!(hashes(&sink, "shop.a").await, hashes(&source, "shop.a").await);
    let db = rusqlite::Connection::open(node.path("copy.db")).unwrap();
    let length: i64 = db.query_row("SELECT LENGTH(b) FROM a WHERE id = 2", [], |row| row.get(0)).unwrap();
    assert_eq!(length, BYTES as i64);
    let (_, letters, _) = node.run(&["flow", "dead-letters", "e_search"]);
    assert!(letters.contains("max_coordinating_and_primary_bytes"), "{letters}");
    // A snapshot reads it too, and a kill in its midst changes nothing.
    node.run(&["flow", "resnapshot", "a_db"]);
    node.kill9();
    node.start();
    node.wait("all have passed it again", |s| {
        s["sources"][0]["snapshot"]["state"] == "done" && s["flows"][0]["lsn"] == s["sources"][0]["lsn"]
    })
    .await;
    assert_eq!(hashes(&sink, "shop.a").await, hashes(&source, "shop.a").await);
}
