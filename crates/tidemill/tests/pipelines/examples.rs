//! Each folder of `examples/`, loaded and run as its README says, with the addresses of real servers put in.

use crate::node::{Node, assert_dense, sqlite_rows};
use crate::random::Rng;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{MySql, MySqlOptions, Nats, NatsOptions, SqlServer, TiDb, TiDbOptions};

mod chat;
mod mesh;
mod pipeline;

/// Every file of the example as the node's project, with `addresses` replaced and the node's own port kept.
fn load(name: &str, addresses: &[(&str, String)], env: &[(&str, &str)]) -> Node {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let mut node = Node::new(&[]);
    node.env(env);
    copy(&folder, Path::new(""), addresses, &node);
    node
}

fn copy(folder: &Path, below: &Path, addresses: &[(&str, String)], node: &Node) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(folder, &name, addresses, node);
            continue;
        }
        let mut text = fs::read_to_string(entry.path()).unwrap();
        text = text.replace("127.0.0.1:7070", &node.address());
        for (wanted, real) in addresses {
            text = text.replace(wanted, real);
        }
        node.write(name.to_str().unwrap(), &text);
    }
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    fs::read_to_string(path).unwrap()
}

/// Orders with lines, paid, sent, renumbered and deleted, each in a transaction of its own.
async fn trade(server: &SqlServer, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = rng.below(500) + 1;
        let sql = match rng.below(6) {
            0..=2 => format!(
                "START TRANSACTION; REPLACE INTO shop.orders (id, customer, amount) VALUES ({id}, 'client {written}', {written}.50);
                 DELETE FROM shop.lines WHERE order_id = {id};
                 INSERT INTO shop.lines VALUES ({id}, 1, 'tea', 2), ({id}, 2, '米', {written}); COMMIT"
            ),
            3 => format!("UPDATE shop.orders SET status = 'paid', amount = amount + 0.01 WHERE id >= {id} LIMIT 20"),
            4 => format!("START TRANSACTION; DELETE FROM shop.lines WHERE order_id = {id}; DELETE FROM shop.orders WHERE id = {id}; COMMIT"),
            _ => format!("UPDATE IGNORE shop.orders SET id = {} WHERE id = {id}", rng.below(500) + 1),
        };
        if server.exec(&sql).await.is_ok() {
            written += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    written
}

type Orders = Vec<(i32, String, String, String, String)>;

async fn orders(server: &SqlServer, table: &str) -> Orders {
    let sql = format!(
        "SELECT id, customer, CAST(amount AS CHAR), CAST(status AS CHAR), CAST(placed_at AS CHAR) FROM {table} ORDER BY id"
    );
    server.query(&sql).await.unwrap_or_default()
}

async fn lines(server: &SqlServer, table: &str) -> Vec<(i32, i32, String, i32)> {
    let sql = format!("SELECT order_id, line, product, quantity FROM {table} ORDER BY order_id, line");
    server.query(&sql).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicate_has_four_equal_copies_after_every_part_was_killed() {
    let source = MySql::start(MySqlOptions::default()).await.unwrap();
    let replica = MySql::start(MySqlOptions { server_id: 2, ..MySqlOptions::default() }).await.unwrap();
    let warehouse = TiDb::start(TiDbOptions::default()).await.unwrap();
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    source.exec(&script("replicate/source.sql")).await.unwrap();
    for sink in [&*replica, &*warehouse] {
        for statement in script("replicate/sink.sql").split(";\n").filter(|sql| sql.contains("dw@")) {
            sink.exec(statement).await.unwrap();
        }
    }
    let at = |port: u16| format!("127.0.0.1:{port}");
    let addresses = [
        ("127.0.0.1:3306", at(source.port())),
        ("127.0.0.1:3307", at(replica.port())),
        ("127.0.0.1:4000", at(warehouse.port())),
        ("nats://127.0.0.1:4222", nats.url()),
    ];
    let env = [("SHOP_PASSWORD", "cdc-secret"), ("DW_PASSWORD", "dw-secret")];
    let mut node = load("replicate", &addresses, &env);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();

    let stop = AtomicBool::new(false);
    let seed = 42;
    println!("seed {seed}");
    let story = async {
        let mut rng = Rng::new(seed);
        for round in 0..8 {
            for _ in 0..rng.below(80) + 10 {
                let _ = source.query::<u64>("SELECT COUNT(*) FROM shop.orders").await;
            }
            match round % 5 {
                0 => {
                    node.kill9();
                    node.start();
                }
                1 => {
                    source.kill9();
                    source.restart().await.unwrap();
                }
                2 => {
                    replica.kill9();
                    replica.restart().await.unwrap();
                }
                3 => {
                    warehouse.kill9();
                    warehouse.restart().await.unwrap();
                }
                _ => {
                    nats.kill9();
                    nats.restart().await.unwrap();
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(trade(&source, seed, &stop), story);
    assert!(written > 20, "the writer wrote {written} statements");

    let (wanted, wanted_lines) = (orders(&source, "shop.orders").await, lines(&source, "shop.lines").await);
    assert!(!wanted.is_empty() && !wanted_lines.is_empty());
    for (server, place) in [(&*replica, "shop."), (&*warehouse, "ods.shop_")] {
        node.until(place, || async {
            orders(server, &format!("{place}orders")).await == wanted
                && lines(server, &format!("{place}lines")).await == wanted_lines
        })
        .await;
    }
    let local = node.path("local.db");
    let text: Vec<Vec<String>> = wanted
        .iter()
        .map(|(id, c, a, s, p)| vec![id.to_string(), c.clone(), a.clone(), s.clone(), p.clone()])
        .collect();
    let sql = "SELECT id, customer, amount, status, placed_at FROM orders ORDER BY id";
    node.until("the SQLite copy", || async { sqlite_rows(&local, sql) == text }).await;

    let status = node
        .wait("every flow has delivered everything", |s| {
            s["flows"].as_array().is_some_and(|f| f.len() == 4 && f.iter().all(|f| f["lag_changes"] == 0))
        })
        .await;
    let lsn = status["sources"][0]["lsn"].as_u64().unwrap();
    let changes = node.changes("shop");
    assert_dense(&changes);
    assert_eq!(changes.len() as u64, lsn);
    let messages = crate::kill::stream_lsns(&nats, "SHOP").await;
    assert_eq!(messages, (1..=lsn).collect::<Vec<_>>(), "every change once and in order in the stream");
}
