//! Flows to standard output: in order, nothing lost, and a reader that stands still keeps nobody else waiting.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams, values};
use serde_json::Value;
use std::fs::{self, File};
use std::process::Stdio;
use testkit::{MySql, MySqlOptions};

async fn shop() -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(400))"])
        .await;
    server
}

/// The lsns of the whole lines of a file.
fn lsns(node: &Node) -> Vec<u64> {
    let text = fs::read_to_string(node.path("out.jsonl")).unwrap_or_default();
    let of = |line: &str| serde_json::from_str::<Value>(line).ok().and_then(|line| line["lsn"].as_u64());
    text.lines().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_come_in_order_and_none_is_lost_over_kills() {
    let server = shop().await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/lines.yaml", "kind: stdout\n".into()),
        ("flows/a.yaml", "from: shop\nto: lines\n".into()),
    ]);
    for round in 0..3u32 {
        let out = File::options().create(true).append(true).open(node.path("out.jsonl")).unwrap();
        node.start_into(Stdio::from(out));
        node.wait("streaming", streams).await;
        let first = round * 500;
        for id in first..first + 500 {
            server.exec(&format!("INSERT INTO shop.a VALUES ({id}, 'row')")).await.unwrap();
        }
        if round < 2 {
            node.kill9();
        }
    }
    let status = node.wait("all is written", |s| s["flows"][0]["lsn"] == 1500).await;
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");
    let seen = lsns(&node);
    // A repeat goes back to where it begins, and on from there without a gap.
    let mut highest = 0;
    for pair in std::iter::once(0).chain(seen.iter().copied()).collect::<Vec<_>>().windows(2) {
        assert!(pair[1] == pair[0] + 1 || pair[1] <= highest + 1, "{} behind {}", pair[1], pair[0]);
        highest = highest.max(pair[1]);
    }
    assert_eq!(highest, 1500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_keeps_no_other_flow_waiting() {
    let server = shop().await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/lines.yaml", "kind: stdout\n".into()),
        ("sinks/file.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/a.yaml", "from: shop\nto: lines\n".into()),
        ("flows/b.yaml", "from: shop\nto: lines\n".into()),
        ("flows/to_file.yaml", "from: shop\nto: file\n".into()),
    ]);
    // As many workers as flows that stand still.
    node.env(&[("TOKIO_WORKER_THREADS", "2")]);
    node.start_into(Stdio::piped());
    node.wait("streaming", streams).await;
    let file = node.path("copy.db");
    let count = || sqlite_rows(&file, "SELECT count(*) FROM a").concat();
    for round in 1..=4u32 {
        let rows = values(round * 1000..round * 1000 + 1000, |id| format!("{id}, REPEAT('x', 300)"));
        run_all(&server, &[&format!("INSERT INTO shop.a {rows}")]).await;
        let wanted = (round * 1000).to_string();
        node.until("the file goes on", || async { count() == [wanted.clone()] }).await;
    }
    // The status came over the HTTP port all the while, and tells who waits.
    let status = node.status();
    let of = |name: &str| {
        status["flows"].as_array().unwrap().iter().find(|flow| flow["name"] == name).unwrap()["lsn"].as_u64()
    };
    assert_eq!(of("to_file"), Some(4000), "{status:#}");
    assert!(of("a") < Some(4000) && of("b") < Some(4000), "{status:#}");
    node.kill9();
}
