//! `examples/pipeline`: a shop in MySQL goes to TiDB and to Kafka, and from Kafka to a search server and to Redis. Whatever is
//! killed, all four hold what the shop holds.
//!
//! Rows of all ends are compared as texts by column, a NULL as no column. Kafka's messages are put together to rows here, by what
//! Debezium's shape says and without any code of ours.

use super::{load, script};
use crate::elasticsearch::documents;
use crate::node::{Node, PATIENCE, assert_dense};
use crate::random::Rng;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use testkit::{
    Kafka, KafkaOptions, KafkaRecord, MySql, MySqlOptions, OpenSearch, OpenSearchOptions, Redis,
    RedisOptions, Server, SqlServer, TiDb, TiDbOptions,
};

/// Ids of orders and customers: few enough that rows meet again and again.
const IDS: u64 = 300;
const FLOWS: usize = 4;

/// A table of the shop: its key, and each column with how Debezium writes it, in SQL, where that is not its text.
struct Table {
    name: &'static str,
    key: &'static [&'static str],
    columns: &'static [(&'static str, &'static str)],
}

const TABLES: [Table; 4] = [
    Table {
        name: "customers",
        key: &["id"],
        columns: &[
            ("id", ""),
            ("name", ""),
            ("email", ""),
            ("birthday", "TO_DAYS(birthday) - TO_DAYS('1970-01-01')"),
        ],
    },
    Table {
        name: "orders",
        key: &["id"],
        columns: &[
            ("id", ""),
            ("customer_id", ""),
            ("status", ""),
            ("total", "CAST(total * 100 AS SIGNED)"),
            ("placed_at", "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', placed_at) DIV 1000"),
            ("note", ""),
        ],
    },
    Table {
        name: "order_lines",
        key: &["order_id", "line"],
        columns: &[
            ("order_id", ""),
            ("line", ""),
            ("product", ""),
            ("quantity", ""),
            ("price", "CAST(price * 100 AS SIGNED)"),
        ],
    },
    Table { name: "stock", key: &["product"], columns: &[("product", ""), ("quantity", "")] },
];

type Row = BTreeMap<String, String>;
/// All rows of the shop, by table and key.
type Shop = BTreeMap<(&'static str, String), Row>;

impl Table {
    fn key_of(&self, row: &Row) -> String {
        let parts: Vec<&str> = self.key.iter().map(|column| row[*column].as_str()).collect();
        parts.join(":")
    }
}

/// A row of a JSON object: what is null is left out.
fn row_of(object: &Value) -> Row {
    let columns = object.as_object().into_iter().flatten();
    let texts = columns.filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), text)
    });
    texts.collect()
}

/// The rows of an SQL server; none while it does not answer. `debezium` writes the columns as Debezium does.
async fn sql_rows(server: &SqlServer, debezium: bool) -> Shop {
    let mut shop = Shop::new();
    for table in &TABLES {
        let columns = table.columns.iter().map(|(name, special)| {
            let value = if debezium && !special.is_empty() { special } else { name };
            format!("'{name}', CAST({value} AS CHAR)")
        });
        let columns: Vec<String> = columns.collect();
        let sql = format!("SELECT JSON_OBJECT({}) FROM shop.{}", columns.join(", "), table.name);
        let rows: Vec<String> = server.query(&sql).await.unwrap_or_default();
        for text in rows {
            let row = row_of(&serde_json::from_str(&text).unwrap());
            shop.insert((table.name, table.key_of(&row)), row);
        }
    }
    shop
}

async fn search_rows(server: &OpenSearch) -> Shop {
    let mut shop = Shop::new();
    for table in &TABLES {
        let found = documents(server, &format!("shop.{}", table.name)).await;
        shop.extend(found.into_iter().map(|(id, document)| ((table.name, id), row_of(&document))));
    }
    shop
}

async fn cache_rows(server: &Redis) -> Shop {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let client = redis::Client::open(server.url()).unwrap();
    let mut client = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let mut shop = Shop::new();
    for table in &TABLES {
        let prefix = format!("shop:{}:", table.name);
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut client).await.unwrap();
        for key in keys {
            let mut row: Row = redis::cmd("HGETALL").arg(&key).query_async(&mut client).await.unwrap();
            row.remove("tidemill_version");
            // Taken away between the two requests.
            if !row.is_empty() {
                shop.insert((table.name, key[prefix.len()..].to_owned()), row);
            }
        }
    }
    shop
}

/// The rows that a table's messages leave, put together in the order of each partition; with the lsn of every change. What
/// comes again after a kill does no harm, as in every reader of such topics.
fn fold(table: &Table, messages: &[KafkaRecord], shop: &mut Shop, lsns: &mut BTreeSet<u64>) {
    let mut partition_of: BTreeMap<&str, i32> = BTreeMap::new();
    for message in messages {
        let key = message.key.as_deref().unwrap();
        let partition = *partition_of.entry(key).or_insert(message.partition);
        assert_eq!(partition, message.partition, "{key} is in two partitions");
        let (_, lsn) = message.headers.iter().find(|(name, _)| name == "lsn").unwrap();
        lsns.insert(lsn.parse().unwrap());
        let body = message.value.as_deref().unwrap_or_default();
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap()["payload"].clone();
        let id = (table.name, table.key_of(&row_of(&parse(key))));
        let after = if body.is_empty() { Value::Null } else { parse(body)["after"].clone() };
        if after.is_null() {
            shop.remove(&id);
            continue;
        }
        let mut row = row_of(&after);
        for amount in ["total", "price"] {
            row.entry(amount.to_owned()).and_modify(|text| *text = unscaled(text));
        }
        shop.insert(id, row);
    }
}

/// Debezium's DECIMAL: the digits as a number of two's complement, the big end first, in base64.
fn unscaled(text: &str) -> String {
    let bytes = STANDARD.decode(text).unwrap();
    let sign = if bytes[0] < 0x80 { 0i128 } else { -1 };
    bytes.iter().fold(sign, |number, byte| (number << 8) | i128::from(*byte)).to_string()
}

async fn broker_rows(server: &Kafka) -> (Shop, BTreeSet<u64>) {
    let (mut shop, mut lsns) = (Shop::new(), BTreeSet::new());
    for table in &TABLES {
        let messages = server.messages(&format!("shop.{}", table.name)).await.unwrap();
        fold(table, &messages, &mut shop, &mut lsns);
    }
    (shop, lsns)
}

/// A day in the shop: customers come, change and go; orders are placed, paid, sent, renumbered and cancelled, with their lines
/// and the stock in one transaction. How many transactions were committed.
async fn trade(server: &SqlServer, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let (id, other, product) = (rng.below(IDS) + 1, rng.below(IDS) + 1, rng.below(40));
        let sql = match rng.below(10) {
            0..=2 => format!(
                "START TRANSACTION; DELETE FROM shop.order_lines WHERE order_id = {id};
                 REPLACE INTO shop.orders (id, customer_id, total, note) VALUES ({id}, {other}, {written}.50, IF({product} % 3, '米 😀 {written}', NULL));
                 INSERT INTO shop.order_lines VALUES ({id}, 1, 'tea {product}', 2, {product}.25), ({id}, 2, '米 {product}', {written}, -0.01);
                 INSERT INTO shop.stock VALUES ('tea {product}', -2) ON DUPLICATE KEY UPDATE quantity = quantity - 2; COMMIT"
            ),
            3 => format!("UPDATE shop.orders SET status = 'paid', total = total + 0.01 WHERE id >= {id} LIMIT 20"),
            4 => format!("UPDATE shop.orders SET status = 'sent', note = NULL WHERE id = {id}"),
            5 => format!(
                "START TRANSACTION; UPDATE shop.stock SET quantity = quantity + 2 WHERE product = 'tea {product}';
                 DELETE FROM shop.order_lines WHERE order_id = {id}; DELETE FROM shop.orders WHERE id = {id}; COMMIT"
            ),
            6 => format!(
                "REPLACE INTO shop.customers VALUES ({id}, 'client {written}', IF({product} % 2, NULL, 'c{written}@example.com'), \
                 DATE_ADD('1969-12-01', INTERVAL {product} DAY))"
            ),
            7 => format!("DELETE FROM shop.customers WHERE id = {id}"),
            // Another key, in one transaction with the lines that have it too; refused where there is such an order already.
            8 => format!(
                "START TRANSACTION; UPDATE shop.orders SET id = {other} WHERE id = {id};
                 UPDATE shop.order_lines SET order_id = {other} WHERE order_id = {id}; COMMIT"
            ),
            // Two rows change places by way of a third key.
            _ => format!(
                "START TRANSACTION; UPDATE shop.stock SET product = 'moving' WHERE product = 'tea {product}';
                 UPDATE shop.stock SET product = 'tea {product}' WHERE product = 'tea {}';
                 UPDATE shop.stock SET product = 'tea {}' WHERE product = 'moving'; COMMIT",
                (product + 1) % 40,
                (product + 1) % 40
            ),
        };
        if server.exec(&sql).await.is_ok() {
            written += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    written
}

fn lsns(status: &Value) -> Vec<u64> {
    let flows = status["flows"].as_array().into_iter().flatten();
    flows.map(|flow| flow["lsn"].as_u64().unwrap_or_default()).collect()
}

/// Waits until every flow has delivered something more.
async fn all_move(node: &Node, what: &str) {
    let before = node.wait("the node answers", |s| lsns(s).len() == FLOWS).await;
    let before = lsns(&before);
    node.wait(&format!("every flow goes on after {what}"), |s| {
        let now = lsns(s);
        now.len() == FLOWS && now.iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
}

/// Whether there is nothing left to read, to deliver or to retry, and nothing was put aside.
fn is_done(status: &Value) -> bool {
    let (sources, flows) = (&status["sources"], &status["flows"]);
    let idle =
        |source: &Value| source["state"] == "stream" && source["lag_messages"].as_u64().unwrap_or(0) == 0;
    let delivered = |flow: &Value| flow["lag_changes"] == 0 && flow["dead_letters"] == 0;
    sources.as_array().is_some_and(|all| all.len() == 2 && all.iter().all(idle))
        && flows.as_array().is_some_and(|all| all.len() == FLOWS && all.iter().all(delivered))
}

/// Waits until an end holds the shop; tells the first rows that differ when it never does.
async fn holds<F: Future<Output = Shop>>(node: &Node, name: &str, wanted: &Shop, rows: impl Fn() -> F) {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = rows().await;
        if now == *wanted {
            return;
        }
        if Instant::now() > end {
            let of = |these: &Shop, others: &Shop| -> Vec<_> {
                let differ = these.iter().filter(|(key, row)| others.get(*key) != Some(*row));
                differ.take(5).map(|(key, row)| format!("{key:?}: {row:?}")).collect()
            };
            let (source, own) = (of(wanted, &now), of(&now, wanted));
            panic!(
                "{name} differs: source {source:#?}, {name} {own:#?}\n{:#}\n{}",
                node.status(),
                node.log()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipeline_has_four_ends_that_equal_the_shop_after_every_part_was_killed() {
    let (source, warehouse, broker, search, cache) = tokio::try_join!(
        MySql::start(MySqlOptions::default()),
        TiDb::start(TiDbOptions::default()),
        Kafka::start(KafkaOptions::default()),
        OpenSearch::start(OpenSearchOptions::default()),
        Redis::start(RedisOptions::default()),
    )
    .unwrap();
    source.exec(&script("pipeline/source.sql")).await.unwrap();
    for statement in script("pipeline/warehouse.sql").split(";\n").filter(|sql| sql.contains("dw@")) {
        warehouse.exec(statement).await.unwrap();
    }
    let ports = [
        ("SHOP_PORT", source.port()),
        ("TIDB_PORT", warehouse.port()),
        ("KAFKA_PORT", broker.port()),
        ("SEARCH_PORT", search.port()),
        ("REDIS_PORT", cache.port()),
    ];
    let ports = ports.map(|(name, port)| (name, port.to_string()));
    let mut env = vec![("SHOP_PASSWORD", "cdc-secret"), ("TIDB_PASSWORD", "dw-secret")];
    for name in ["SHOP_HOST", "TIDB_HOST", "KAFKA_HOST", "SEARCH_HOST", "REDIS_HOST"] {
        env.push((name, "127.0.0.1"));
    }
    env.extend(ports.iter().map(|(name, port)| (*name, port.as_str())));
    let mut node = load("pipeline", &[], &env);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();

    let (stop, seed) = (AtomicBool::new(false), 42);
    println!("seed {seed}");
    let story = async {
        all_move(&node, "the start").await;
        let servers: [(&str, &Server); 5] = [
            ("the source", &source),
            ("the warehouse", &warehouse),
            ("the broker", &broker),
            ("the search server", &search),
            ("the cache", &cache),
        ];
        for (name, server) in servers {
            server.kill9();
            server.restart().await.unwrap();
            all_move(&node, name).await;
        }
        node.kill9();
        node.start();
        all_move(&node, "the node").await;
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(trade(&source, seed, &stop), story);
    assert!(written > 100, "the shop wrote {written} transactions");

    let wanted = sql_rows(&source, false).await;
    for table in &TABLES {
        assert!(wanted.keys().any(|(name, _)| *name == table.name), "no row is left in {}", table.name);
    }
    node.wait("all is read and delivered", is_done).await;
    holds(&node, "the warehouse", &wanted, || sql_rows(&warehouse, false)).await;
    holds(&node, "the search server", &wanted, || search_rows(&search)).await;
    holds(&node, "the cache", &wanted, || cache_rows(&cache)).await;
    let as_debezium = sql_rows(&source, true).await;
    holds(&node, "the broker", &as_debezium, async || broker_rows(&broker).await.0).await;

    let changes = node.changes("shop");
    assert_dense(&changes);
    let rows = changes.iter().filter(|change| change["op"] != "ddl" && change["op"] != "truncate");
    let rows: BTreeSet<u64> = rows.map(|change| change["lsn"].as_u64().unwrap()).collect();
    assert!(broker_rows(&broker).await.1 == rows, "each change of a row is in the topics");
    assert_dense(&node.changes("topics"));
    for flow in ["shop_to_warehouse", "shop_to_broker", "topics_to_search", "topics_to_cache"] {
        let began = Instant::now();
        let (code, out, err) = node.run(&["flow", "verify", flow]);
        println!("{flow}: compared in {:?}", began.elapsed());
        assert_eq!(code, 0, "{flow}: {out}{err}");
    }
    println!("{written} transactions, {} changes, {} rows at each end", changes.len(), wanted.len());
}
