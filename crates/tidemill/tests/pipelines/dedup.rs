//! `dedup`: which rows are repeats is told by the journal alone, whoever is killed, goes back or begins anew.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams};
use crate::random::Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use testkit::{MySql, MySqlOptions};

/// The rule, told once more: the lsns of the changes that go on, of a journal as `tail` prints it.
fn go_on(changes: &[Value], window_ms: i64) -> BTreeSet<u64> {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut out = BTreeSet::new();
    for change in changes.iter().filter(|change| change["table"] == "events") {
        let (lsn, ts_ms) = (change["lsn"].as_u64().unwrap(), change["ts_ms"].as_i64().unwrap());
        match change["op"].as_str().unwrap() {
            "truncate" => {
                last.clear();
                out.insert(lsn);
            }
            "insert" | "read" => {
                let key = &change["after"]["event"];
                let before = if key.is_null() { None } else { last.insert(key.to_string(), ts_ms) };
                if before.is_none_or(|before| ts_ms - before >= window_ms) {
                    out.insert(lsn);
                }
            }
            _ => {}
        }
    }
    out
}

/// The lsns in the files of a flow, in order.
fn written(node: &Node, folder: &str) -> Vec<u64> {
    let mut names: Vec<_> = fs::read_dir(node.path(folder))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    names.sort();
    let text: String = names.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let lsn = |line: &str| serde_json::from_str::<Value>(line).unwrap()["lsn"].as_u64().unwrap();
    text.lines().map(lsn).collect()
}

/// The ids of the rows that went on since the table was emptied last.
fn ids(changes: &[Value], window_ms: i64) -> Vec<Vec<String>> {
    let go_on = go_on(changes, window_ms);
    let emptied = changes.iter().rposition(|change| change["op"] == "truncate").unwrap_or(0);
    let rows = changes[emptied..].iter().filter(|change| go_on.contains(&change["lsn"].as_u64().unwrap()));
    let mut ids: Vec<u64> = rows.filter_map(|change| change["after"]["id"].as_u64()).collect();
    ids.sort_unstable();
    ids.into_iter().map(|id| vec![id.to_string()]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_are_left_out_whatever_is_killed_rewound_or_read_anew() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let table = "id INT AUTO_INCREMENT PRIMARY KEY, event VARCHAR(20), note VARCHAR(20)";
    let make = [
        "CREATE DATABASE shop",
        &format!("CREATE TABLE shop.events ({table})"),
        "INSERT INTO shop.events (event) VALUES ('e1'), ('e1'), (NULL), ('e2'), (NULL)",
    ];
    run_all(&server, &make).await;
    let dedup = "transform:\n  - dedup: {key: [event], window: 1h}\n";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("sinks/files.yaml", "kind: files\npath: ./out\n".into()),
        ("flows/rows.yaml", format!("from: shop\nto: copy\n{dedup}options: {{batch_rows: 3}}\n")),
        ("flows/log.yaml", format!("from: shop\nto: files\n{dedup}options: {{batch_rows: 3}}\n")),
    ]);
    node.start();
    node.wait("it streams", streams).await;
    let mut rng = Rng::new(11);
    for round in 0..5 {
        for _ in 0..40 {
            let (event, other) = (rng.below(150), rng.below(150));
            let sql = match rng.below(6) {
                0 => format!("UPDATE shop.events SET note = 'seen' WHERE id = {}", event + 1),
                1 => format!("DELETE FROM shop.events WHERE id = {}", event + 1),
                2 => format!("UPDATE shop.events SET event = 'e{other}' WHERE id = {}", event + 1),
                _ => {
                    format!("INSERT INTO shop.events (event) VALUES ('e{event}'), ('e{other}'), ('e{event}')")
                }
            };
            server.exec(&sql).await.unwrap();
        }
        if round % 2 == 0 {
            node.kill9();
            node.start();
        } else {
            node.wait("it streams again", streams).await;
            node.stop();
            node.start();
        }
    }
    let delivered = async |node: &Node| {
        node.wait("all is delivered", |s| {
            streams(s)
                && s["flows"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|flow| flow["lag_changes"] == 0 && flow["lsn"] == s["sources"][0]["lsn"])
        })
        .await
    };
    let settled = async |node: &Node| {
        let insert = "INSERT INTO shop.events (event) VALUES ('the end')";
        server.exec(insert).await.unwrap();
        node.until("the last row is in the journal", || async {
            let changes = node.changes("shop");
            let last = changes.iter().rev().find(|change| change["op"] != "read");
            last.is_some_and(|last| last["after"]["event"] == "the end")
        })
        .await;
        delivered(node).await;
        node.changes("shop")
    };
    let rows = |node: &Node| sqlite_rows(&node.path("copy.db"), "SELECT id FROM events ORDER BY id");
    let changes = settled(&node).await;
    let wanted: Vec<u64> = go_on(&changes, 3_600_000).into_iter().collect();
    assert!(wanted.len() > 50 && wanted.len() * 2 < changes.len(), "{} of {}", wanted.len(), changes.len());
    assert_eq!(written(&node, "out"), wanted);
    assert_eq!(rows(&node), ids(&changes, 3_600_000));

    // Going back decides the same again: nothing more comes to the rows, and what is left out again is counted again.
    let counted = |node: &Node| {
        let left_out = &node.status()["flows"][1]["left_out"];
        ["repeats", "changes"].map(|what| left_out[what].as_u64().unwrap())
    };
    let (before, back) = (counted(&node), changes.len() as u64 / 2);
    let (code, _, err) = node.run(&["flow", "rewind", "rows", "--to", &back.to_string()]);
    assert_eq!(code, 0, "{err}");
    let all = go_on(&changes, 3_600_000);
    let again = |ops: [&str; 2]| {
        let is_left_out = |change: &&Value| {
            let lsn = change["lsn"].as_u64().unwrap();
            lsn >= back && ops.contains(&change["op"].as_str().unwrap()) && !all.contains(&lsn)
        };
        changes.iter().filter(is_left_out).count() as u64
    };
    let wanted = [before[0] + again(["insert", "read"]), before[1] + again(["update", "delete"])];
    node.until("what is left out again is counted again", async || counted(&node) == wanted).await;
    server.exec("DELETE FROM shop.events WHERE event = 'the end'").await.unwrap();
    let changes = settled(&node).await;
    assert_eq!(rows(&node), ids(&changes, 3_600_000));
    let repeat = changes.last().unwrap();
    assert!(!go_on(&changes, 3_600_000).contains(&repeat["lsn"].as_u64().unwrap()), "{repeat}");

    // What is read anew is in an empty table, where nothing was before it.
    let (code, _, err) = node.run(&["flow", "resnapshot", "rows"]);
    assert_eq!(code, 0, "{err}");
    node.until("the table was read anew", || async {
        let status = node.status();
        let emptied = node.changes("shop").iter().any(|change| change["op"] == "truncate");
        emptied && status["sources"][0]["snapshot"]["state"] == "done"
    })
    .await;
    let changes = settled(&node).await;
    assert!(ids(&changes, 3_600_000).len() > 20);
    assert_eq!(rows(&node), ids(&changes, 3_600_000));
    assert_eq!(written(&node, "out"), go_on(&changes, 3_600_000).into_iter().collect::<Vec<_>>());

    // Rows that both have alike are compared; of the others the source cannot say what they should be.
    let (code, out, err) = node.run(&["flow", "verify", "rows", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{err}"));
    let table = &report["tables"][0];
    let counts = ["missing", "extra", "different", "undecided"].map(|count| table[count].as_u64().unwrap());
    assert_eq!((code, counts), (0, [0; 4]), "{report:#}");
    let unchecked = table["unchecked"].as_str().unwrap();
    assert!(
        unchecked.contains("whether `dedup` left them out depends on what came before them"),
        "{report:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_is_counted_by_commit_times_and_the_preview_shows_what_is_left_out() {
    let mut node = Node::new(&[
        ("sources/in.yaml", "kind: http\ntables: [\"shop.*\"]\noptions: {format: json}\n".into()),
        ("sinks/files.yaml", "kind: files\npath: ./out\n".into()),
        (
            "flows/log.yaml",
            "from: in\nto: files\ntransform:\n  - dedup: {key: [event], window: 10m}\n".into(),
        ),
    ]);
    node.start();
    node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
    let push = async |node: &Node, id: u64, minutes: i64, event: &str| {
        let row = json!({"id": id, "event": event});
        let body = json!({"op": "insert", "db": "shop", "table": "events", "ts_ms": 1_790_000_000_000_i64 + minutes * 60_000,
                          "key": {"id": id}, "before": null, "after": row});
        let url = format!("http://{}/api/v1/sources/in/changes", node.address());
        let request = reqwest::Client::new().post(url).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    let story = [
        (0, "a", true),
        (9, "a", false),
        (9, "b", true),
        // Ten minutes behind the first, but nine behind the repeat.
        (18, "a", false),
        (28, "a", true),
        // A time that goes back is within the window.
        (5, "a", false),
        (16, "b", false),
        (14, "a", false),
        (24, "a", true),
    ];
    for (index, (minutes, event, _)) in story.iter().enumerate() {
        push(&node, index as u64 + 1, *minutes, event).await;
        if index % 3 == 2 {
            node.kill9();
            node.start();
            node.wait("up again", |s| s["sources"][0]["state"] == "stream").await;
        }
    }
    node.wait("all is delivered", |s| s["flows"][0]["lsn"] == story.len()).await;
    let told = story.iter().enumerate().filter(|(_, (.., goes_on))| *goes_on);
    let wanted: Vec<u64> = told.map(|(index, _)| index as u64 + 1).collect();
    assert_eq!(written(&node, "out"), wanted);
    assert_eq!(go_on(&node.changes("in"), 600_000).into_iter().collect::<Vec<_>>(), wanted);

    // Also when it begins in the midst.
    let (code, out, err) = node.run(&["flow", "preview", "log", "--json", "--limit", "5"]);
    assert_eq!(code, 0, "{err}");
    let outcomes: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<&str> = outcomes.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["passes", "left_out", "left_out", "left_out", "passes"]);

    let before = node.status()["flows"][0]["left_out"]["repeats"].as_u64().unwrap();
    push(&node, 10, 25, "a").await;
    push(&node, 11, 25, "a").await;
    let status =
        node.wait("repeats are counted", |s| s["flows"][0]["left_out"]["repeats"] == before + 2).await;
    assert_eq!(
        (&status["flows"][0]["left_out"]["changes"], &status["flows"][0]["lag_changes"]),
        (&json!(0), &json!(0))
    );
    let metrics =
        reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap().text().await.unwrap();
    let line = "tidemill_flow_left_out_rows_total{flow=\"log\",kind=\"files\",reason=\"repeat\"}";
    let line = format!("{line} {}", before + 2);
    assert!(metrics.lines().any(|own| own == line), "{metrics}");
}

#[test]
fn check_refuses_a_window_that_the_journal_does_not_hold() {
    let check = |window: &str| {
        let node = Node::new(&[
            ("sources/in.yaml", "kind: http\ntables: [\"shop.*\"]\noptions: {format: json}\n".into()),
            ("sinks/files.yaml", "kind: files\npath: ./out\n".into()),
            (
                "flows/log.yaml",
                format!("from: in\nto: files\ntransform:\n  - dedup: {{key: [event], window: {window}}}\n"),
            ),
        ]);
        let (code, out, err) = node.run(&["check"]);
        (code, out + &err)
    };
    let (code, text) = check("9000d");
    assert!(code != 0 && text.contains("transform[0].dedup: its `window` is longer"), "{text}");
    let (code, text) = check("1h");
    assert_eq!(code, 0, "{text}");
}
