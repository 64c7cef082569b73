//! Redis holds what the source holds, in every shape, whatever is killed, emptied, full or in the way.

use crate::node::{Node, PATIENCE, mysql_source, write_orders};
use crate::random::Rng;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{Fault, FaultProxy, MySql, MySqlOptions, Redis, RedisOptions};

/// Breaks in one story.
const BREAKS: u64 = 10;
/// What a hash or a JSON string begins with: not of the source.
const VERSION: &str = "tidemill_version";

pub async fn client(redis: &Redis) -> MultiplexedConnection {
    client_of(&redis.url()).await.unwrap()
}

pub async fn client_of(url: &str) -> RedisResult<MultiplexedConnection> {
    // The server shares a busy machine with the test; the library would give up after half a second.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

pub async fn try_ask<T: FromRedisValue>(client: &MultiplexedConnection, words: &[&str]) -> RedisResult<T> {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query_async(&mut client.clone()).await
}

pub async fn ask<T: FromRedisValue>(client: &MultiplexedConnection, words: &[&str]) -> T {
    try_ask(client, words).await.unwrap()
}

async fn keys(client: &MultiplexedConnection, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = ask(client, &["KEYS", pattern]).await;
    keys.sort();
    keys
}

/// The hash of a row, without its version.
async fn hash(client: &MultiplexedConnection, key: &str) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = ask(client, &["HGETALL", key]).await;
    fields.remove(VERSION);
    fields
}

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A project with a SQLite shop, `orders` of it, and these flows to one Redis, by name and options.
fn shop(redis_url: &str, flows: &[(&str, &str)]) -> Node {
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {redis_url}\n")),
    ]);
    for (name, options) in flows {
        node.write(
            &format!("flows/{name}.yaml"),
            &format!("from: shop\nto: cache\noptions: {{{options}}}\n"),
        );
    }
    run(&node, "PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT, city TEXT)");
    node
}

fn run(node: &Node, sql: &str) {
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch(sql).unwrap();
}

/// Waits until every flow has delivered all that the source has committed by now: its last change is a row of our own.
async fn settled(node: &Node) -> Value {
    node.wait("everything is delivered", |s| {
        let flows = s["flows"].as_array();
        s["sources"][0]["snapshot"]["state"] == "done"
            && flows.is_some_and(|f| f.iter().all(|f| f["lsn"] == s["sources"][0]["lsn"] && f["lsn"] != 0))
    })
    .await
}

/// Waits until the hash of a row is this.
async fn becomes(node: &Node, client: &MultiplexedConnection, key: &str, wanted: &[(&str, &str)]) {
    let what = format!("{key} to be {wanted:?}");
    node.until(&what, || async { hash(client, key).await == fields(wanted) }).await;
}

fn flow_error(status: &Value, part: &str) -> bool {
    status["flows"][0]["error"]["message"].as_str().is_some_and(|message| message.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_a_hash_a_string_a_member_an_entry_or_a_message() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(
        &redis.url(),
        &[
            ("a", ""),
            ("b", "type: json, key: \"doc:{{{table}}}:{id}\""),
            ("c", "type: set, key: \"in:{city}\", member: \"order-{id}\""),
            ("d", "type: zset, key: \"by:{city}\", score: id"),
            ("e", "type: stream, key: \"log:{table}\", maxlen: 100000"),
            ("f", "type: pubsub, key: \"news:{source}:{table}\", format: cloudevents"),
        ],
    );
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    let mut listener = redis::Client::open(redis.url()).unwrap().get_async_pubsub().await.unwrap();
    listener.subscribe("news:shop:orders").await.unwrap();
    run(&node, "INSERT INTO orders VALUES (1, 'tea: two', 'Rome'), (2, NULL, 'Oslo')");
    node.start();
    settled(&node).await;
    run(
        &node,
        "INSERT INTO orders VALUES (3, 'rice', 'Rome'), (4, 'salt', NULL);
         UPDATE orders SET note = NULL, city = 'Oslo' WHERE id = 1;
         UPDATE orders SET id = 20 WHERE id = 2;
         DELETE FROM orders WHERE id = 3",
    );
    node.until("the last row is gone everywhere", || async {
        hash(&client, "shop:orders:1").await == fields(&[("id", "1"), ("city", "Oslo")])
            && keys(&client, "shop:orders:*").await.len() == 3
    })
    .await;
    let status = settled(&node).await;
    assert!(status["flows"].as_array().unwrap().iter().all(|f| f["dead_letters"] == 0), "{status:#}");

    assert_eq!(keys(&client, "shop:orders:*").await, ["shop:orders:1", "shop:orders:20", "shop:orders:4"]);
    assert_eq!(hash(&client, "shop:orders:20").await, fields(&[("id", "20"), ("city", "Oslo")]));
    assert_eq!(keys(&client, "doc:*").await, ["doc:{orders}:1", "doc:{orders}:20", "doc:{orders}:4"]);
    let text: String = ask(&client, &["GET", "doc:{orders}:1"]).await;
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let version = document.as_object_mut().unwrap().remove(VERSION).unwrap();
    assert_eq!(document, json!({"id": 1, "note": null, "city": "Oslo"}));
    assert_eq!(version.as_str().unwrap().len(), 31, "{version}");

    let mut members: Vec<String> = ask(&client, &["SMEMBERS", "in:Oslo"]).await;
    members.sort();
    assert_eq!(members, ["order-1", "order-20"]);
    assert_eq!(keys(&client, "in:*").await, ["in:Oslo"], "a row without a city is nowhere");
    let scored: Vec<String> = ask(&client, &["ZRANGE", "by:Oslo", "0", "-1", "WITHSCORES"]).await;
    assert_eq!(scored, ["1", "1", "20", "20"]);

    let lsn = status["sources"][0]["lsn"].as_u64().unwrap();
    let entries: Vec<(String, BTreeMap<String, String>)> =
        ask(&client, &["XRANGE", "log:orders", "-", "+"]).await;
    let ids: Vec<String> = (1..=lsn).map(|lsn| format!("1{lsn:013}-0")).collect();
    assert_eq!(entries.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids);
    let last: Value = serde_json::from_str(&entries[entries.len() - 1].1["change"]).unwrap();
    assert_eq!((&last["op"], &last["key"], &last["lsn"]), (&json!("delete"), &json!({"id": 3}), &json!(lsn)));
    assert_eq!(entries[entries.len() - 1].1["key"], "{\"id\":3}");

    // What was published is heard once, and in order.
    let mut stream = listener.on_message();
    for lsn in 1..=lsn {
        let message = futures_util::StreamExt::next(&mut stream).await.unwrap();
        let event: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
        assert_eq!(event["data"]["lsn"], lsn, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_mysql_are_text_as_redis_clients_expect() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (a VARCHAR(9), b INT, price DECIMAL(8,2), at DATETIME(3), ts TIMESTAMP, d DATE, e ENUM('x','y'),
         s SET('p','q'), j JSON, bin VARBINARY(9), f DOUBLE, u BIGINT UNSIGNED, PRIMARY KEY (a, b))",
        "SET time_zone = '+00:00'",
        "INSERT INTO shop.t VALUES ('k:1%', 7, 1.50, '2026-01-02 03:04:05.120', '2026-01-02 03:04:05', '2026-01-02', 'y', 'p,q', \
         '{\"k\": [1]}', x'00ff22', 1.5, 18446744073709551615)",
    ] {
        server.exec(sql).await.unwrap();
    }
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}/3\n", redis.url())),
        ("flows/a.yaml", "from: shop\nto: cache\n".into()),
    ]);
    node.start();
    settled(&node).await;
    let _: () = ask(&client, &["SELECT", "3"]).await;
    let row: BTreeMap<String, Vec<u8>> = ask(&client, &["HGETALL", "shop:t:k%3A1%25:7"]).await;
    let text = |name: &str| String::from_utf8_lossy(&row[name]).into_owned();
    let wanted = [
        ("a", "k:1%"),
        ("price", "1.50"),
        ("at", "2026-01-02 03:04:05.120"),
        ("d", "2026-01-02"),
        ("e", "y"),
        ("s", "p,q"),
        ("j", "{\"k\": [1]}"),
        ("f", "1.5"),
        ("u", "18446744073709551615"),
        (VERSION, "0000000001.00000000000000000001"),
    ];
    for (name, value) in wanted {
        assert_eq!(text(name), value, "{name}");
    }
    assert_eq!(row["bin"], [0, 0xff, 0x22]);
    assert!(text("ts").ends_with('Z'), "{}", text("ts"));
}

/// The rows as hashes, as JSON, and as members of a set and a sorted set: `(id, name, amount)` each.
async fn held(client: &MultiplexedConnection) -> [BTreeMap<String, (String, String)>; 4] {
    let row = |id: String, name: String, amount: String| (id, (name, amount));
    let mut out: [BTreeMap<_, _>; 4] = Default::default();
    for key in keys(client, "shop:orders:*").await {
        let mut hash = hash(client, &key).await;
        let mut take = |name: &str| hash.remove(name).unwrap_or_default();
        out[0].extend([row(take("id"), take("name"), take("amount"))]);
    }
    for key in keys(client, "doc:*").await {
        let text: Option<String> = ask(client, &["GET", &key]).await;
        let value: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        let take = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        out[1].extend([row(value["id"].to_string(), take("name"), take("amount"))]);
    }
    let members: Vec<String> = ask(client, &["SMEMBERS", "all:orders"]).await;
    for member in members {
        let parts: Vec<&str> = member.split(':').collect();
        out[2].extend([row(parts[0].into(), parts[1].into(), parts[2].into())]);
    }
    let scored: Vec<(String, String)> = ask(client, &["ZRANGE", "top:orders", "0", "-1", "WITHSCORES"]).await;
    for (member, score) in scored {
        let (id, name) = member.split_once(':').unwrap_or_default();
        out[3].extend([row(id.into(), name.into(), format!("{:.2}", score.parse::<f64>().unwrap()))]);
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_equals_the_source_after_kills_and_cuts() {
    let seed =
        std::env::var("TIDEMILL_TORMENT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_126);
    println!("seed {seed}");
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, amount DECIMAL(10,2) NOT NULL)",
    ] {
        server.exec(sql).await.unwrap();
    }
    let values: Vec<String> = (0..2000).map(|id| format!("({id}, 'row {id}', {id}.25)")).collect();
    server.exec(&format!("INSERT INTO shop.orders VALUES {}", values.join(","))).await.unwrap();
    let network = FaultProxy::start(redis.addr()).await.unwrap();
    let flow = |options: &str| format!("from: shop\nto: cache\noptions: {{batch_rows: 100, {options}}}\n");
    let mut node = Node::new(&[
        (
            "sources/shop.yaml",
            mysql_source(&server.url(), "shop.*") + "options: {snapshot_chunk_rows: 300}\n",
        ),
        ("sinks/cache.yaml", format!("kind: redis\nurl: redis://{}\n", network.addr())),
        ("flows/a.yaml", flow("type: hash")),
        ("flows/b.yaml", flow("type: json, key: \"doc:{id}\"")),
        ("flows/c.yaml", flow("type: set, key: \"all:{table}\", member: \"{id}:{name}:{amount}\"")),
        ("flows/d.yaml", flow("type: zset, key: \"top:{table}\", member: \"{id}:{name}\", score: amount")),
        ("flows/e.yaml", flow("type: stream, key: \"log:{table}\"")),
    ]);
    node.start();
    let stop = AtomicBool::new(false);
    let mut rng = Rng::new(seed);
    let story = async {
        for round in 0..BREAKS {
            // A moment that depends on the seed, measured in answers of the server that is written to.
            for _ in 0..rng.below(60) + 5 {
                let _: u64 = server.query_one("SELECT COUNT(*) FROM shop.orders").await.unwrap();
            }
            match if round < 3 { round } else { rng.below(4) } {
                0 => {
                    node.kill9();
                    node.start();
                }
                1 => {
                    redis.kill9();
                    redis.restart().await.unwrap();
                }
                kind => {
                    network.set(if kind == 2 { Fault::Cut } else { Fault::HalfOpen }).await;
                    for _ in 0..rng.below(20) + 1 {
                        let _: u64 = server.query_one("SELECT COUNT(*) FROM shop.orders").await.unwrap();
                    }
                    network.set(Fault::Pass).await;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write_orders(&server, seed ^ 0x5eed, &stop), story);
    assert!(written > 20, "the writer wrote {written} statements");
    server.exec("REPLACE INTO shop.orders VALUES (99999, 'the end', 0)").await.unwrap();
    let rows: Vec<(i32, String, String)> =
        server.query("SELECT id, name, CAST(amount AS CHAR) FROM shop.orders").await.unwrap();
    let wanted: BTreeMap<_, _> = rows.into_iter().map(|(id, n, a)| (id.to_string(), (n, a))).collect();
    let client = client(&redis).await;
    node.until("every shape equals the source", || async {
        held(&client).await.iter().all(|shape| *shape == wanted)
    })
    .await;
    let status = settled(&node).await;
    assert!(status["flows"].as_array().unwrap().iter().all(|f| f["dead_letters"] == 0), "{status:#}");
    let lsn = status["sources"][0]["lsn"].as_u64().unwrap();
    let entries: Vec<(String, BTreeMap<String, String>)> =
        ask(&client, &["XRANGE", "log:orders", "-", "+"]).await;
    let lsns: Vec<u64> = entries
        .iter()
        .map(|(_, fields)| serde_json::from_str::<Value>(&fields["change"]).unwrap()["lsn"].as_u64().unwrap())
        .collect();
    assert_eq!(lsns, (1..=lsn).collect::<Vec<_>>(), "every change once and in order in the stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_never_overwrites_a_newer_one() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", ""), ("b", "type: json, key: \"doc:{id}\"")]);
    let (newer, older) = ("0000000001.00000000000000000900", "0000000001.00000000000000000000");
    let _: () = ask(&client, &["HSET", "shop:orders:1", VERSION, newer, "note", "newer"]).await;
    let _: () = ask(&client, &["HSET", "shop:orders:2", VERSION, older, "note", "older", "stray", "x"]).await;
    let newer_json = format!("{{\"{VERSION}\":\"{newer}\",\"note\":\"newer\"}}");
    let _: () = ask(&client, &["SET", "doc:1", &newer_json]).await;
    let _: () = ask(&client, &["SET", "doc:2", "{\"note\":\"not of ours\"}"]).await;
    let _: () = ask(&client, &["SET", "tidemill:deleted:shop:orders:3", newer]).await;
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL), (3, 'c', NULL), (4, 'd', NULL)");
    becomes(&node, &client, "shop:orders:4", &[("id", "4"), ("note", "d")]).await;
    settled(&node).await;
    assert_eq!(hash(&client, "shop:orders:1").await, fields(&[("note", "newer")]));
    assert_eq!(hash(&client, "shop:orders:2").await, fields(&[("id", "2"), ("note", "b")]));
    assert_eq!(keys(&client, "shop:orders:3").await, [""; 0], "the row was deleted by a newer change");
    assert_eq!(ask::<String>(&client, &["GET", "doc:1"]).await, newer_json);
    assert!(ask::<String>(&client, &["GET", "doc:2"]).await.contains("\"note\":\"b\""));

    // A deletion that is older than the row leaves it; one that is newer leaves a tombstone with an end.
    run(&node, "DELETE FROM orders WHERE id IN (1, 2)");
    node.until("the row is gone", || async { keys(&client, "doc:2").await.is_empty() }).await;
    settled(&node).await;
    assert_eq!(keys(&client, "shop:orders:*").await, ["shop:orders:1", "shop:orders:4"]);
    let life: i64 = ask(&client, &["TTL", "tidemill:deleted:shop:orders:2"]).await;
    assert!((3000..=3600).contains(&life), "{life}");
    run(&node, "INSERT INTO orders VALUES (2, 'again', NULL)");
    becomes(&node, &client, "shop:orders:2", &[("id", "2"), ("note", "again")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_dropped_and_renamed_tables_take_their_keys_along() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let all = async |statements: &[&str]| {
        for sql in statements {
            server.exec(sql).await.unwrap();
        }
    };
    let numbers = |from: i32, to: i32| (from..to).map(|n| format!("({n})")).collect::<Vec<_>>().join(",");
    all(&["CREATE DATABASE shop"]).await;
    for table in ["a", "b", "c"] {
        all(&[
            &format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY)"),
            &format!("INSERT INTO shop.{table} VALUES {}", numbers(0, 600)),
        ])
        .await;
    }
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {}\n", redis.url())),
        ("flows/a.yaml", "from: shop\nto: cache\n".into()),
        (
            "flows/b.yaml",
            "from: shop\nto: cache\noptions: {type: zset, key: \"z:{table}\", score: id}\n".into(),
        ),
        (
            "flows/c.yaml",
            "from: shop\nto: cache\noptions: {type: set, key: all, member: \"{table}-{id}\"}\n".into(),
        ),
    ]);
    let _: () = ask(&client, &["SET", "shop:a:not-ours", "stays"]).await;
    let _: () = ask(&client, &["SADD", "all", "a-not-ours"]).await;
    node.start();
    settled(&node).await;
    let count = async |pattern: &str| keys(&client, pattern).await.len();
    assert_eq!((count("shop:a:*").await, ask::<usize>(&client, &["SCARD", "all"]).await), (601, 1801));
    all(&[
        "TRUNCATE TABLE shop.a",
        "INSERT INTO shop.a VALUES (7)",
        "DROP TABLE shop.b",
        "RENAME TABLE shop.c TO shop.d",
        "UPDATE shop.d SET id = 1000 WHERE id = 5",
        "DELETE FROM shop.d WHERE id < 5",
    ])
    .await;
    node.until("the renamed table's row is there", || async {
        count("shop:d:*").await == 595 && ask::<usize>(&client, &["SCARD", "all"]).await == 597
    })
    .await;
    settled(&node).await;
    assert_eq!(keys(&client, "shop:a:*").await, ["shop:a:7", "shop:a:not-ours"]);
    assert_eq!((count("shop:b:*").await, count("shop:c:*").await), (0, 0));
    assert_eq!(hash(&client, "shop:d:1000").await, fields(&[("id", "1000")]));
    assert_eq!(keys(&client, "z:*").await, ["z:a", "z:d"]);
    assert_eq!(ask::<usize>(&client, &["ZCARD", "z:d"]).await, 595);
    assert_eq!(ask::<Vec<String>>(&client, &["ZRANGE", "z:a", "0", "-1"]).await, ["7"]);
    // The members of a set that tables share end with their own table.
    assert!(ask::<bool>(&client, &["SISMEMBER", "all", "a-not-ours"]).await);
    assert!(ask::<bool>(&client, &["SISMEMBER", "all", "a-7"]).await);
    assert_eq!(
        keys(&client, "tidemill:keys:a:*").await,
        ["tidemill:keys:a:shop.a", "tidemill:keys:a:shop.d"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_is_told_and_filled_again_by_a_resnapshot() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let mut node = shop(&redis.url(), &[("a", "")]);
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL)");
    node.start();
    settled(&node).await;
    let wanted = ["shop:orders:1", "shop:orders:2"];
    for disk in [false, true] {
        node.wait("running", |s| s["flows"][0]["state"] == "running").await;
        if disk {
            redis.kill9();
            std::fs::remove_dir_all(redis.data_dir()).unwrap();
            std::fs::create_dir_all(redis.data_dir()).unwrap();
            redis.restart().await.unwrap();
        } else {
            // A change that comes before the sink has looked is not written alone.
            let client = client(&redis).await;
            let _: () = ask(&client, &["FLUSHALL"]).await;
            run(&node, "UPDATE orders SET note = note || '!'");
        }
        let client = client(&redis).await;
        // Where nothing is written to the source, the sink looks by itself.
        let status = node.wait("the loss is told", |s| flow_error(s, "the sink was emptied")).await;
        assert_eq!(status["flows"][0]["state"], "failed");
        let hint = status["flows"][0]["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("tidemill flow resnapshot a"), "{hint}");
        assert_eq!(keys(&client, "*").await, [""; 0], "nothing is written by itself");
        // Also after a restart.
        node.kill9();
        node.start();
        node.wait("the loss is told again", |s| flow_error(s, "the sink was emptied")).await;
        let (code, _, err) = node.run(&["flow", "resnapshot", "a"]);
        assert_eq!(code, 0, "{err}");
        node.until("both rows are there again", || async { keys(&client, "shop:*").await == wanted }).await;
        settled(&node).await;
    }
    run(&node, "DELETE FROM orders WHERE id = 1");
    let client = client(&redis).await;
    node.until("the flow goes on", || async { keys(&client, "shop:*").await == wanted[1..] }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_with_older_data_catches_up() {
    let redis = Redis::start(RedisOptions { args: vec!["--appendonly".into(), "no".into()] }).await.unwrap();
    let first = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", ""), ("e", "type: stream, key: log")]);
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL)");
    node.start();
    settled(&node).await;
    let _: () = ask(&first, &["SAVE"]).await;
    run(&node, "UPDATE orders SET note = 'c' WHERE id = 1; DELETE FROM orders WHERE id = 2");
    becomes(&node, &first, "shop:orders:1", &[("id", "1"), ("note", "c")]).await;
    settled(&node).await;
    redis.kill9();
    redis.restart().await.unwrap();
    let client = client(&redis).await;
    assert_eq!(hash(&client, "shop:orders:1").await, fields(&[("id", "1"), ("note", "a")]), "an old file");
    becomes(&node, &client, "shop:orders:1", &[("id", "1"), ("note", "c")]).await;
    node.until("the deletion comes again", || async { keys(&client, "shop:*").await.len() == 1 }).await;
    node.until("the stream is whole", || async { ask::<u64>(&client, &["XLEN", "log"]).await == 4 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_began_anew_writes_newer_versions_after_a_resnapshot() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", "")]);
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL)");
    node.start();
    settled(&node).await;
    run(&node, "UPDATE orders SET note = note || '!'");
    becomes(&node, &client, "shop:orders:2", &[("id", "2"), ("note", "b!")]).await;
    node.stop();
    std::fs::remove_dir_all(node.path("data")).unwrap();
    run(&node, "DELETE FROM orders WHERE id = 2; UPDATE orders SET note = 'new' WHERE id = 1");
    node.start();
    node.wait("another journal is told", |s| flow_error(s, "another journal")).await;
    let (code, _, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{err}");
    becomes(&node, &client, "shop:orders:1", &[("id", "1"), ("note", "new")]).await;
    node.until("the deleted row is gone", || async { keys(&client, "shop:*").await == ["shop:orders:1"] })
        .await;
    let version: String = ask(&client, &["HGET", "shop:orders:1", VERSION]).await;
    assert!(version.starts_with("0000000002."), "{version}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_rights_are_told_and_never_printed() {
    let args = ["--requirepass", "correct horse"].map(str::to_owned).to_vec();
    let redis = Redis::start(RedisOptions { args }).await.unwrap();
    let url = |user: &str| format!("redis://{user}@{}", redis.addr());
    let mut node = shop(&url(":${env:REDIS_PASSWORD}"), &[("a", "")]);
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.env(&[("REDIS_PASSWORD", "wrong%horse")]);
    let (code, out, err) = node.run(&["check", "--connect"]);
    let told = format!("{out}{err}");
    assert!(code != 0 && told.contains("WRONGPASS") && told.contains("hint: check the user"), "{told}");
    node.start();
    node.wait("the wrong password is told", |s| {
        flow_error(s, "WRONGPASS") && s["flows"][0]["state"] == "failed"
    })
    .await;
    node.kill9();
    node.write("sinks/cache.yaml", &format!("kind: redis\nurl: {}\n", redis.url()));
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert!(code != 0 && format!("{out}{err}").contains("asks for a password"), "{out}{err}");

    let admin = client_of(&url(":correct%20horse")).await.unwrap();
    // The rights that the hint names, and no others.
    let rights =
        "on >tide-secret ~tidemill:* &* +@read +@write +@scripting +@connection +publish +time +config|get";
    let words: Vec<&str> = ["ACL", "SETUSER", "tide"].into_iter().chain(rights.split(' ')).collect();
    let _: () = ask(&admin, &words).await;
    node.write("sinks/cache.yaml", &format!("kind: redis\nurl: {}\n", url("tide:${env:TIDE}")));
    node.env(&[("TIDE", "tide-secret")]);
    node.start();
    let status = node.wait("the missing right is told", |s| s["flows"][0]["state"] == "failed").await;
    let error = status["flows"][0]["error"].to_string();
    assert!(error.contains("ACL SETUSER") && error.to_lowercase().contains("permission"), "{error}");
    let _: () = ask(&admin, &["ACL", "SETUSER", "tide", "~shop:*"]).await;
    becomes(&node, &admin, "shop:orders:1", &[("id", "1"), ("note", "a")]).await;
    let log = std::fs::read_to_string(node.path("tidemill.log")).unwrap() + &told + &status.to_string();
    for secret in ["wrong%horse", "wrong%25horse", "tide-secret", "correct horse"] {
        assert!(!log.contains(secret), "{secret} is printed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_used_and_the_certificate_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = crate::access::make_certificate(folder.path(), "localhost");
    let port = testkit::Port::reserve().unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    let number = port.number().to_string();
    let given = [
        ("--tls-port", number.clone()),
        ("--tls-auth-clients", "no".into()),
        ("--tls-cert-file", path(&cert)),
        ("--tls-key-file", path(&key)),
        ("--tls-ca-cert-file", path(&ca)),
    ];
    let args = given.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    let redis = Redis::start(RedisOptions { args }).await.unwrap();
    let mut node = shop(&format!("rediss://localhost:{number}"), &[("a", "")]);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert!(code != 0 && format!("{out}{err}").contains("certificate"), "an unknown authority: {out}{err}");
    node.env(&[("SSL_CERT_FILE", &path(&ca))]);
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.start();
    becomes(&node, &client(&redis).await, "shop:orders:1", &[("id", "1"), ("note", "a")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_holds_up_its_own_flow_only() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", "")]);
    node.write("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n");
    node.write("flows/b.yaml", "from: shop\nto: file\n");
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.start();
    settled(&node).await;
    redis.pause();
    run(&node, "UPDATE orders SET note = 'b' WHERE id = 1");
    let status = node
        .wait("the other flow goes on", |s| {
            s["flows"][1]["lsn"] == s["sources"][0]["lsn"] && s["sources"][0]["lsn"] != 1
        })
        .await;
    assert_ne!(status["flows"][0]["lsn"], status["sources"][0]["lsn"]);
    redis.resume();
    becomes(&node, &client, "shop:orders:1", &[("id", "1"), ("note", "b")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_refuses_is_parked_and_tried_again() {
    let args = ["--proto-max-bulk-len", "1mb"].map(str::to_owned).to_vec();
    let redis = Redis::start(RedisOptions { args }).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", ""), ("e", "type: stream, key: log")]);
    let _: () = ask(&client, &["SADD", "shop:orders:2", "of another program"]).await;
    run(&node, "INSERT INTO orders VALUES (0, 'first', NULL)");
    node.start();
    settled(&node).await;
    run(
        &node,
        "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', NULL), (3, hex(zeroblob(1000000)), NULL), (4, 'd', NULL);
         UPDATE orders SET note = 'bb' WHERE id = 2",
    );
    let status = node
        .wait("refused rows are parked", |s| {
            s["flows"][0]["dead_letters"] == 3 && s["flows"][1]["dead_letters"] == 1
        })
        .await;
    becomes(&node, &client, "shop:orders:4", &[("id", "4"), ("note", "d")]).await;
    let (_, out, _) = node.run(&["flow", "dead-letters", "a"]);
    assert!(out.contains("WRONGTYPE") && out.contains("proto-max-bulk-len"), "{out}\n{status:#}");
    let _: () = ask(&client, &["DEL", "shop:orders:2"]).await;
    let _: () = ask(&client, &["CONFIG", "SET", "proto-max-bulk-len", "100mb"]).await;
    // The limit is read when a connection is made.
    let _: () = ask(&client, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    for flow in ["a", "e"] {
        node.until("retry goes through", || async {
            node.run(&["flow", "retry", flow]).1.contains("0 still parked")
        })
        .await;
    }
    becomes(&node, &client, "shop:orders:2", &[("id", "2"), ("note", "bb")]).await;
    assert_eq!(hash(&client, "shop:orders:3").await["note"].len(), 2_000_000);
    // In the stream it comes late, behind the newest, and takes no id from what follows.
    run(&node, "DELETE FROM orders WHERE id = 4");
    node.until("the deletion is in the stream", || async {
        ask::<u64>(&client, &["XLEN", "log"]).await == 7
    })
    .await;
    let entries: Vec<(String, BTreeMap<String, String>)> = ask(&client, &["XRANGE", "log", "-", "+"]).await;
    let lsn = |fields: &BTreeMap<String, String>| {
        serde_json::from_str::<Value>(&fields["change"]).unwrap()["lsn"].as_u64().unwrap()
    };
    let seen: Vec<(String, u64)> = entries.iter().map(|(id, fields)| (id.clone(), lsn(fields))).collect();
    let late = &seen[5];
    assert!(late.0.ends_with("-1") && late.1 < seen[4].1, "{seen:?}");
    assert!(seen[6].0.ends_with("-0") && seen[6].1 > seen[4].1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_or_a_replica_is_waited_for() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", "")]);
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    becomes(&node, &client, "shop:orders:1", &[("id", "1"), ("note", "a")]).await;
    let _: () = ask(&client, &["CONFIG", "SET", "maxmemory", "1"]).await;
    run(&node, "UPDATE orders SET note = 'b' WHERE id = 1");
    let status = node.wait("the full server is told", |s| flow_error(s, "OOM")).await;
    assert!(flow_error(&status, "maxmemory") && status["flows"][0]["dead_letters"] == 0, "{status:#}");
    let _: () = ask(&client, &["CONFIG", "SET", "maxmemory", "0"]).await;
    becomes(&node, &client, "shop:orders:1", &[("id", "1"), ("note", "b")]).await;

    // A replica of nobody keeps its data and takes no writes.
    let _: () = ask(&client, &["REPLICAOF", "127.0.0.1", "1"]).await;
    run(&node, "UPDATE orders SET note = 'c' WHERE id = 1");
    let status = node.wait("the replica is told", |s| flow_error(s, "READONLY")).await;
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");
    let _: () = ask(&client, &["REPLICAOF", "NO", "ONE"]).await;
    becomes(&node, &client, "shop:orders:1", &[("id", "1"), ("note", "c")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_a_life_end_by_themselves_and_leave_the_list() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", "ttl: 1s"), ("b", "type: json, key: \"doc:{id}\", ttl: 1h")]);
    node.start();
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    settled(&node).await;
    let life: i64 = ask(&client, &["TTL", "doc:1"]).await;
    assert!((3000..=3600).contains(&life), "{life}");
    let ends: f64 = ask(&client, &["ZSCORE", "tidemill:keys:b:shop.orders", "doc:1"]).await;
    assert!(ends > 1e9, "the list knows when the row ends: {ends}");
    node.until("the row has ended", || async { keys(&client, "shop:*").await.is_empty() }).await;
    // Its entry in the list goes when something else is written.
    let mut id = 1;
    let list = "tidemill:keys:a:shop.orders";
    node.until("the list forgets it", || {
        id += 1;
        run(&node, &format!("INSERT INTO orders VALUES ({id}, 'b', NULL)"));
        async { ask::<Option<f64>>(&client, &["ZSCORE", list, "shop:orders:1"]).await.is_none() }
    })
    .await;
}

#[test]
fn options_that_cannot_work_are_told_before_anything_starts() {
    let node = shop("redis://127.0.0.1:1", &[("a", "")]);
    let wrong = [
        ("key: \"{db}:{table}\"", "`key` is the same for all rows"),
        ("key: \"{db}{table}:{key}\"", "`key` has two names side by side"),
        ("key: \"{key}:{table}\"", "`key` names a table behind a column"),
        ("key: \"x:{id\"", "`key` has a `{` without its `}`"),
        ("type: zset", "`type` zset needs a `score`"),
        ("type: stream, key: \"{id}\"", "`key` names a column"),
        ("type: stream, ttl: 5s", "`ttl` is for `type` hash and json"),
        ("type: set, member: all", "`member` is the same for all rows"),
        ("maxlen: 5", "`maxlen` is for `type` stream"),
        ("format: canal", "`format` means nothing to the sink"),
        ("type: pubsub, format: debezium", "`debezium` is not supported by the sink"),
        ("subject: x", "`subject` means nothing to the sink"),
    ];
    for (options, told) in wrong {
        node.write("flows/a.yaml", &format!("from: shop\nto: cache\noptions: {{{options}}}\n"));
        let (code, _, err) = node.run(&["check"]);
        assert!(code == 2 && err.contains(told), "{options}: {code} {err}");
    }
    node.write("flows/a.yaml", "from: shop\nto: cache\n");
    node.write("sinks/cache.yaml", "kind: redis\nurl: http://127.0.0.1:1\n");
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("redis://"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_fits_no_template_stops_the_flow_and_says_why() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let client = client(&redis).await;
    let mut node = shop(&redis.url(), &[("a", "key: \"o:{number}\"")]);
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    node.start();
    let status = node.wait("the column is missed", |s| s["flows"][0]["state"] == "failed").await;
    assert!(flow_error(&status, "names `number`, which `shop.orders` lacks"), "{status:#}");
    node.stop();
    // A column that may be NULL cannot name such a row; it is parked, and the others go on.
    node.write("flows/a.yaml", "from: shop\nto: cache\noptions: {key: \"o:{city}\"}\n");
    run(&node, "INSERT INTO orders VALUES (2, 'b', 'Rome')");
    node.start();
    becomes(&node, &client, "o:Rome", &[("id", "2"), ("note", "b"), ("city", "Rome")]).await;
    node.wait("the row without a name is parked", |s| s["flows"][0]["dead_letters"] == 1).await;
}
