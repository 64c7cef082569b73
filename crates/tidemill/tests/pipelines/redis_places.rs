//! Redis behind Sentinels and in a cluster: the flow goes where its keys are, and what a failover lost comes again.

use crate::node::{Node, mysql_source, run_all};
use crate::redis::{client_of, try_ask};
use redis::{FromRedisValue, RedisResult};
use serde_json::Value;
use std::collections::BTreeMap;
use testkit::{MySql, MySqlOptions, Redis, RedisOptions};

async fn ask<T: FromRedisValue>(server: &Redis, words: &[&str]) -> RedisResult<T> {
    try_ask(&client_of(&server.url()).await?, words).await
}

async fn shop(rows: u32) -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, note VARCHAR(20))"])
        .await;
    let rows = crate::node::values(1..rows + 1, |i| format!("{i}, 'first {i}'"));
    run_all(&server, &[&format!("INSERT INTO shop.a {rows}")]).await;
    server
}

fn node(server: &MySql, redis_url: &str, options: &str) -> Node {
    Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/cache.yaml", format!("kind: redis\nurl: {redis_url}\n")),
        ("flows/cache.yaml", format!("from: shop\nto: cache\noptions: {options}\n")),
    ])
}

fn delivered(status: &Value) -> bool {
    crate::node::streams(status)
        && status["flows"][0]["state"] == "running"
        && status["flows"][0]["lag_changes"] == 0
}

/// Writes one more row and waits until the flow has delivered it.
async fn one_more(node: &Node, server: &MySql, id: u32) {
    run_all(server, &[&format!("INSERT INTO shop.a VALUES ({id}, 'more')")]).await;
    let before = node.status()["sources"][0]["lsn"].as_u64().unwrap_or(0);
    node.wait("one more is delivered", |s| {
        delivered(s)
            && s["flows"][0]["lsn"].as_u64() >= Some(before)
            && s["flows"][0]["lsn"] == s["sources"][0]["lsn"]
    })
    .await;
}

async fn note(server: &Redis, key: &str) -> String {
    let row: BTreeMap<String, String> = ask(server, &["HGETALL", key]).await.unwrap_or_default();
    row.get("note").cloned().unwrap_or_default()
}

async fn is_equal(node: &Node) {
    let (code, out, err) = node.run(&["flow", "verify", "cache"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_master_takes_with_it_is_written_to_the_new_one() {
    let server = shop(300).await;
    let master = Redis::start(RedisOptions::default()).await.unwrap();
    let of_master = ["--replicaof", "127.0.0.1", &master.port().to_string()].map(str::to_owned).to_vec();
    let replica = Redis::start(RedisOptions { args: of_master }).await.unwrap();
    let sentinel = Redis::start_sentinel("orders", &master).await.unwrap();
    let url = format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{}#orders", sentinel.port());
    let mut node = node(&server, &url, "{type: hash}");
    node.start();
    node.wait("delivered", delivered).await;
    node.until("the replica has it", || async { note(&replica, "shop:a:300").await == "first 300" }).await;
    let knows_replica = || async {
        let found: Vec<BTreeMap<String, String>> =
            ask(&sentinel, &["SENTINEL", "replicas", "orders"]).await.unwrap_or_default();
        found.iter().any(|one| one.get("port") == Some(&replica.port().to_string()))
    };
    node.until("the Sentinel knows the replica", knows_replica).await;

    // What the master has and its replica has not.
    replica.pause();
    run_all(
        &server,
        &["UPDATE shop.a SET note = 'late' WHERE id <= 200", "DELETE FROM shop.a WHERE id = 250"],
    )
    .await;
    node.until("the master has it", || async { note(&master, "shop:a:200").await == "late" }).await;
    node.until("and what follows", || async { note(&master, "shop:a:250").await.is_empty() }).await;
    master.kill9();
    replica.resume();
    node.until("the new master has what was lost", || async {
        note(&replica, "shop:a:200").await == "late" && note(&replica, "shop:a:250").await.is_empty()
    })
    .await;
    one_more(&node, &server, 1000).await;
    is_equal(&node).await;

    // The old one comes back as what it is now, and is asked for nothing.
    master.restart().await.unwrap();
    node.until("it follows the new one", || async { note(&master, "shop:a:1000").await == "more" }).await;
    one_more(&node, &server, 1001).await;
    is_equal(&node).await;
}

/// Three nodes with a third of the slots each, and one that follows the first of them.
async fn cluster() -> Vec<Redis> {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(Redis::start_in_cluster().await.unwrap());
    }
    for (index, range) in [("0", "5461"), ("5462", "10922"), ("10923", "16383")].iter().enumerate() {
        let _: () = ask(&nodes[index], &["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]).await.unwrap();
    }
    for node in &nodes[1..] {
        let (port, bus) = (node.port().to_string(), node.bus_port().unwrap().to_string());
        let _: () = ask(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await.unwrap();
    }
    nodes
}

async fn is_whole(nodes: &[Redis]) -> bool {
    for node in nodes {
        let info: String = ask(node, &["CLUSTER", "INFO"]).await.unwrap_or_default();
        if !info.contains("cluster_state:ok") || !info.contains("cluster_known_nodes:4") {
            return false;
        }
    }
    true
}

async fn id(node: &Redis) -> String {
    ask(node, &["CLUSTER", "MYID"]).await.unwrap()
}

/// The node that answers for this key.
async fn owner<'a>(nodes: &'a [Redis], key: &str) -> Option<&'a Redis> {
    for node in nodes {
        if ask::<i64>(node, &["EXISTS", key]).await.is_ok_and(|found| found == 1) {
            return Some(node);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_follows_its_slot_through_a_cluster() {
    let server = shop(300).await;
    let nodes = cluster().await;
    let url: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let url = format!("redis-cluster://{}", url.join(","));
    let mut node = node(&server, &url, "{type: hash}");
    node.until("the cluster is whole", || is_whole(&nodes)).await;
    // Keys that are anywhere cannot be written with their progress.
    let (code, _, said) = node.run(&["check"]);
    assert!(code == 2 && said.contains("hash tag"), "{code} {said}");
    let options = r#"{type: hash, key: "{{shop}}:{table}:{key}"}"#;
    node.write("flows/cache.yaml", &format!("from: shop\nto: cache\noptions: {options}\n"));
    node.start();
    node.wait("delivered", delivered).await;
    is_equal(&node).await;
    let key = "{shop}:a:7";
    let first = owner(&nodes, key).await.unwrap();
    let all: Vec<String> = ask(first, &["KEYS", "*"]).await.unwrap();
    assert!(all.iter().all(|key| key.contains("{shop}")) && all.len() > 300, "{all:?}");

    // The slot goes to another node, with all its keys.
    let slot: u64 = ask(first, &["CLUSTER", "KEYSLOT", key]).await.unwrap();
    let slot = slot.to_string();
    let second = nodes[..3].iter().find(|node| node.port() != first.port()).unwrap();
    let (from, to) = (id(first).await, id(second).await);
    let _: () = ask(second, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await.unwrap();
    let _: () = ask(first, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await.unwrap();
    // Changes come while the slot is on its way.
    run_all(&server, &["UPDATE shop.a SET note = 'on the way' WHERE id <= 50"]).await;
    let port = second.port().to_string();
    loop {
        let page: Vec<String> = ask(first, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await.unwrap();
        if page.is_empty() {
            break;
        }
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words.extend(page.iter().map(String::as_str));
        let _: String = ask(first, &words).await.unwrap();
    }
    for node in [second, first] {
        let _: () = ask(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await.unwrap();
    }
    node.until("the flow has followed", || async { note(second, key).await == "on the way" }).await;
    one_more(&node, &server, 1000).await;
    is_equal(&node).await;

    // Its replica takes over, asked first, and then because it died.
    let spare = &nodes[3];
    let _: () = ask(spare, &["CLUSTER", "REPLICATE", &to]).await.unwrap();
    node.until("it has a replica", || async {
        ask::<String>(spare, &["INFO", "replication"])
            .await
            .unwrap_or_default()
            .contains("master_link_status:up")
    })
    .await;
    let _: () = ask(spare, &["CLUSTER", "FAILOVER"]).await.unwrap();
    run_all(&server, &["UPDATE shop.a SET note = 'taken over' WHERE id <= 50"]).await;
    node.until("the new one has it", || async { note(spare, key).await == "taken over" }).await;
    node.until("the old one follows", || async {
        ask::<String>(second, &["INFO", "replication"])
            .await
            .unwrap_or_default()
            .contains("master_link_status:up")
    })
    .await;
    spare.kill9();
    run_all(&server, &["UPDATE shop.a SET note = 'taken back' WHERE id <= 50"]).await;
    node.until("the other has it", || async { note(second, key).await == "taken back" }).await;
    one_more(&node, &server, 1001).await;
    is_equal(&node).await;
}
