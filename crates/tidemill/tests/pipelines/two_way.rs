//! Two servers feed each other: what each gets of the other is not sent back, whatever is killed.

use crate::node::{Node, mysql_source, streams};
use crate::random::Rng;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

const TABLE: &str = "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(40) NOT NULL)";
const ROWS: &str = "SELECT id, v FROM shop.t ORDER BY id";

/// Writes rows of one side only, those with ids of one remainder, until told to stop.
async fn write(server: &SqlServer, remainder: u64, stop: &AtomicBool, written: &AtomicU64) {
    let mut rng = Rng::new(remainder + 5);
    while !stop.load(Ordering::Relaxed) {
        let (id, n) = (2 * rng.below(800) + remainder, written.load(Ordering::Relaxed));
        let sql = match rng.below(4) {
            0 => format!("DELETE FROM shop.t WHERE id = {id}"),
            1 => format!(
                "UPDATE shop.t SET v = 'many {n}' WHERE id % 2 = {remainder} AND id BETWEEN {id} AND {}",
                id + 200
            ),
            _ => format!("REPLACE INTO shop.t VALUES ({id}, 'one {n}')"),
        };
        // A flow that writes the same table may be in the way: as every program, it then tries something else.
        if server.exec(&sql).await.is_ok() {
            written.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn rows(server: &SqlServer) -> Vec<(u32, String)> {
    server.query(ROWS).await.unwrap()
}

fn delivered(status: &Value) -> bool {
    let flows = status["flows"].as_array().map_or(&[][..], Vec::as_slice);
    streams(status) && flows.iter().all(|flow| flow["lag_changes"] == 0 && flow["state"] == "running")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_the_other_side_is_not_sent_back() {
    let (east, west) =
        tokio::try_join!(MySql::start(MySqlOptions::default()), MariaDb::start(MariaDbOptions::default()))
            .unwrap();
    for server in [&*east, &*west] {
        server.exec("CREATE DATABASE shop").await.unwrap();
        server.exec(TABLE).await.unwrap();
    }
    let first: Vec<String> = (0..3000).map(|n| format!("({}, 'first')", 2 * n)).collect();
    east.exec(&format!("INSERT INTO shop.t VALUES {}", first.join(","))).await.unwrap();
    let source = |url: &str, snapshot: &str| {
        mysql_source(url, "shop.*") + &format!("snapshot: {snapshot}\noptions: {{skip_marked: true}}\n")
    };
    let options = "options: {ddl: hold, mark: true}\n";
    let mut node = Node::new(&[
        ("sources/east.yaml", source(&east.url(), "initial")),
        ("sources/west.yaml", source(&west.url(), "never")),
        ("sinks/east.yaml", format!("kind: mysql\nurl: {}\n", east.url())),
        ("sinks/west.yaml", format!("kind: mysql\nurl: {}\n", west.url())),
        ("flows/to_west.yaml", format!("from: east\nto: west\n{options}")),
        ("flows/to_east.yaml", format!("from: west\nto: east\n{options}")),
    ]);
    node.start();
    node.wait("both stream", |s| {
        delivered(s) && s["sources"].as_array().unwrap().iter().all(|s| s["position"]["file"].is_string())
    })
    .await;
    node.until("the first rows are in the west", || async { rows(&west).await.len() == 3000 }).await;

    let (stop, counts) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let both = |n: u64| counts.iter().all(|count| count.load(Ordering::Relaxed) >= n);
    let story = async {
        node.until("both write", || async { both(100) }).await;
        // Behind, so that there are batches for lanes.
        for flow in ["to_west", "to_east"] {
            node.run(&["flow", "pause", flow]);
        }
        node.until("both write on", || async { both(600) }).await;
        for flow in ["to_west", "to_east"] {
            node.run(&["flow", "resume", flow]);
        }
        node.kill9();
        node.start();
        node.until("both write to the end", || async { both(800) }).await;
        stop.store(true, Ordering::Relaxed);
        node
    };
    let (node, (), ()) =
        tokio::join!(story, write(&east, 0, &stop, &counts[0]), write(&west, 1, &stop, &counts[1]));
    node.until("both sides are equal", || async { rows(&east).await == rows(&west).await }).await;

    // A table that one side empties is emptied on the other, and is not emptied again.
    east.exec("TRUNCATE TABLE shop.t").await.unwrap();
    node.until("the other side is emptied", || async { rows(&west).await.is_empty() }).await;
    east.exec("INSERT INTO shop.t VALUES (2, 'kept')").await.unwrap();
    west.exec("INSERT INTO shop.t VALUES (3, 'kept')").await.unwrap();
    let kept = [(2, "kept".to_owned()), (3, "kept".to_owned())];
    for side in [&*east, &*west] {
        node.until("both have both", || async { rows(side).await == kept }).await;
    }
    node.wait("all is delivered", delivered).await;
    for (side, remainder) in [("east", 0), ("west", 1)] {
        let changes = node.changes(side);
        let foreign = changes.iter().find(|change| {
            let row = if change["after"].is_null() { &change["before"] } else { &change["after"] };
            row["id"].as_u64().is_some_and(|id| id % 2 != remainder)
        });
        assert_eq!(foreign, None, "{side} sent back what it got");
        assert!(changes.len() > 800, "{} changes of {side}", changes.len());
    }
    for flow in ["to_west", "to_east"] {
        let (code, out, err) = node.run(&["flow", "verify", flow]);
        assert_eq!(code, 0, "{out}{err}");
    }
}
