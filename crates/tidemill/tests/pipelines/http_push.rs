//! Changes that programs push: what was answered is in the journal, once and whole, whatever is killed.

use crate::node::{Node, PATIENCE, assert_dense, sqlite_rows};
use crate::random::Rng;
use flow::webhook;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const DECLARED: &str = "kind: http\ntables: [\"shop.*\"]\noptions: {format: plain}\n\
                        declare: {shop.orders: {key: [id], columns: {id: bigint}}}\n";

fn project(source: &str) -> Node {
    Node::new(&[
        ("sources/in.yaml", source.to_owned()),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: in\nto: copy\n".into()),
    ])
}

struct Door {
    client: Client,
    url: String,
}

impl Door {
    fn new(node: &Node) -> Self {
        Self { client: Client::new(), url: format!("http://{}/api/v1/sources/in/changes", node.address()) }
    }

    async fn try_push(&self, query: &str, id: &str, body: &str) -> reqwest::Result<Response> {
        let url = format!("{}{query}", self.url);
        let request = self.client.post(url).header("content-type", "application/json").body(body.to_owned());
        let request = if id.is_empty() { request } else { request.header("webhook-id", id) };
        request.send().await
    }

    /// The status and the answer.
    async fn push(&self, query: &str, id: &str, body: &str) -> (u16, Value) {
        let response = self.try_push(query, id, body).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

async fn started(source: &str) -> (Node, Door) {
    let mut node = project(source);
    node.start();
    node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
    let door = Door::new(&node);
    (node, door)
}

fn copied(node: &Node, sql: &str) -> Vec<Vec<String>> {
    sqlite_rows(&node.path("copy.db"), sql)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_is_there_once_over_kills() {
    let seed = 20_261_128;
    println!("seed {seed}");
    let (mut node, door) = started(DECLARED).await;
    let (done, acknowledged) = (Cell::new(0), Cell::new(0));
    let writer = async |name: u64| {
        let mut rng = Rng::new(seed ^ name);
        for n in 0..60u64 {
            let rows: Vec<Value> = (0..rng.below(5) + 1)
                .map(|i| json!({"id": name * 1_000_000 + n * 10 + i, "writer": name, "n": n}))
                .collect();
            let (id, body) = (format!("{name}-{n}"), Value::from(rows).to_string());
            // As a client does that wants to be sure: the same again until it is answered.
            loop {
                match door.try_push("", &id, &body).await {
                    Ok(answer) if answer.status() == 200 => break,
                    Ok(answer) => assert!([429, 503].contains(&answer.status().as_u16()), "{answer:?}"),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            acknowledged.set(acknowledged.get() + 1);
        }
        done.set(done.get() + 1);
    };
    let story = async {
        let mut kills = 0;
        while done.get() < 3 {
            let seen = acknowledged.get() + 15;
            node.until("requests are answered", || async { acknowledged.get() >= seen || done.get() == 3 })
                .await;
            if done.get() < 3 {
                node.kill9();
                node.start();
                kills += 1;
            }
        }
        assert!(kills > 3, "killed {kills} times");
    };
    tokio::join!(writer(1), writer(2), writer(3), story);
    let changes = node.changes("in");
    assert_dense(&changes);
    let mut ids: Vec<u64> = changes.iter().map(|c| c["after"]["id"].as_u64().unwrap()).collect();
    for name in 1..=3 {
        let own = changes.iter().filter(|c| c["after"]["writer"] == name);
        let order: Vec<u64> = own.map(|c| c["after"]["n"].as_u64().unwrap()).collect();
        assert!(order.is_sorted(), "the order of one writer");
        assert_eq!(order.last(), Some(&59));
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "no row twice");
    assert_eq!(node.status()["sources"][0]["position"]["pos"], 180, "each request once");
    node.until("the copy has all", || async { copied(&node, "SELECT id FROM orders").len() == count }).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_taken_whole_or_not_at_all_and_told_with_its_line() {
    let (node, door) = started(DECLARED).await;
    let (status, answer) = door.push("", "", "{\"id\": 1, \"note\": \"a\"}\n{\"id\": 2}\n").await;
    assert_eq!((status, answer), (200, json!({"changes": 2, "lsn": 2, "repeated": false})));
    for (query, body, told) in [
        // The first line would make a column.
        (
            "",
            "{\"id\": 3, \"more\": 1}\n{\"id\": \"x\"}\n",
            "line 2: its `id` is a string that is no `bigint`",
        ),
        ("", "{\"id\": 3}\n\n{\"note\": \"no key\"}", "line 3: its `id` is NULL or missing"),
        ("", "[{\"id\": 3},\n{\"id\": 4}", "line 2: it is not JSON"),
        ("", "{\"id\": 3}\n[]", "line 2: the value is not a JSON object"),
        ("", "", "the request has no change"),
        ("?table=other.orders", "{\"id\": 3}", "`other.orders` is not among the source's `tables`"),
        ("?op=drop", "{\"id\": 3}", "unknown variant"),
        ("?tabel=shop.orders", "{\"id\": 3}", "unknown field"),
    ] {
        let (status, answer) = door.push(query, "", body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(told), "{answer}");
        assert!(!answer["hint"].as_str().unwrap().is_empty());
    }
    let (status, answer) = door.push("", "", "{\"id\": 3, \"more\": 1}").await;
    assert_eq!((status, &answer["lsn"]), (200, &json!(4)), "a definition, and the row: {answer}");
    let (status, _) = door.push("?op=delete", "", "{\"id\": 1}").await;
    assert_eq!(status, 200);
    node.until("the copy has it", || async {
        copied(&node, "SELECT id, note, more FROM orders ORDER BY id")
            == [["2", "NULL", "NULL"], ["3", "NULL", "1"]]
    })
    .await;
    assert_eq!(node.status()["sources"][0]["state"], "stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_known_by_its_name_also_after_a_kill() {
    let (mut node, door) = started(DECLARED).await;
    let body = "{\"id\": 1, \"note\": \"a\"}";
    assert_eq!(door.push("", "one", body).await.1["repeated"], false);
    assert_eq!(door.push("", "one", body).await, (200, json!({"changes": 0, "lsn": 1, "repeated": true})));
    node.kill9();
    node.start();
    node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
    assert_eq!(door.push("", "one", body).await, (200, json!({"changes": 0, "lsn": 1, "repeated": true})));
    let (status, answer) = door.push("", "one", "{\"id\": 2}").await;
    assert_eq!((status, &answer["code"]), (409, &json!("already_exists")), "{answer}");
    // Without a name it is another request.
    assert_eq!(door.push("", "", body).await.1["lsn"], 2);
    let long = "x".repeat(300);
    assert_eq!(door.push("", &long, body).await.0, 400);
    assert_eq!(node.changes("in").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_knows_the_secret_may_push_where_there_is_one() {
    let mut node = project(&format!("{DECLARED}secrets: [\"${{env:PUSH_SECRET}}\"]\n"));
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("PUSH_SECRET"), "{err}");
    node.env(&[("PUSH_SECRET", SECRET)]);
    node.start();
    node.wait("up", |s| s["sources"][0]["state"] == "stream").await;
    let door = Door::new(&node);
    let body = "{\"id\": 1}";
    let key = webhook::Key::parse(&base::Secret::new(SECRET)).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let signed = async |id: &str, sent: i64, signature: String| {
        let request = door.client.post(&door.url).header("webhook-id", id).body(body);
        let request =
            request.header("webhook-timestamp", sent.to_string()).header("webhook-signature", signature);
        request.send().await.unwrap().status().as_u16()
    };
    let sign = |id: &str, sent: i64| webhook::sign(std::slice::from_ref(&key), id, sent, body.as_bytes());
    assert_eq!(door.push("", "a", body).await.0, 401);
    assert_eq!(signed("a", now, sign("b", now)).await, 401);
    assert_eq!(signed("a", now - 3600, sign("a", now - 3600)).await, 401, "recorded an hour ago");
    assert_eq!(node.changes("in").len(), 0);
    assert_eq!(signed("a", now, sign("a", now)).await, 200);
    let log = std::fs::read_to_string(node.path("tidemill.log")).unwrap();
    assert!(!log.contains("whsec"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded_and_a_client_is_told_to_come_again() {
    let (node, door) = started(DECLARED).await;
    // Each takes an eighth of the room. One that comes while the question below has its own part is refused: then it is asked again.
    let mut slow = Vec::new();
    let end = Instant::now() + PATIENCE;
    loop {
        let mut client = TcpStream::connect(node.address()).await.unwrap();
        let head =
            "POST /api/v1/sources/in/changes HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8388608\r\n\r\n[";
        client.write_all(head.as_bytes()).await.unwrap();
        slow.push(client);
        if slow.len() < 8 {
            continue;
        }
        let answer = door.try_push("", "", "{\"id\": 1}").await.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "1");
            break;
        }
        assert!(Instant::now() < end, "there is room for {} of them", slow.len());
    }
    let url = format!("http://{}/healthz", node.address());
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "everything else goes on");
    drop(slow);
    node.until("there is room", || async { door.push("", "", "{\"id\": 2}").await.0 == 200 }).await;
    // Told by its head alone.
    let mut client = TcpStream::connect(node.address()).await.unwrap();
    let head = "POST /api/v1/sources/in/changes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-length: 8388609\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("more than 8388608 bytes"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_in_our_format_go_from_one_node_to_another_and_other_sources_take_none() {
    let (node, door) = started("kind: http\ntables: [\"shop.*\"]\n").await;
    let change = |op: &str, before: Value, after: Value| {
        json!({"source": "x", "epoch": 1, "lsn": 7, "op": op, "db": "shop", "table": "orders", "schema_version": 1,
               "ts_ms": 1_700_000_000_000u64, "txn": null, "key": {"id": 1}, "before": before, "after": after})
    };
    let lines = [
        change("read", Value::Null, json!({"id": 1, "n": 1})),
        change("update", json!({"id": 1, "n": 1}), json!({"id": 1, "n": 2})),
        change("insert", Value::Null, json!({"id": 2, "n": 5})),
        change("delete", json!({"id": 2, "n": 5}), Value::Null),
    ];
    let body = lines.map(|line| line.to_string()).join("\n");
    assert_eq!(door.push("", "", &body).await.1["changes"], 4);
    let seen = node.changes("in");
    assert_eq!(
        seen.iter().map(|c| c["op"].as_str().unwrap()).collect::<Vec<_>>(),
        ["insert", "update", "insert", "delete"]
    );
    assert_eq!((&seen[0]["ts_ms"], &seen[3]["txn"]["last"]), (&json!(1_700_000_000_000u64), &json!(true)));
    node.until("the copy is there", || async { copied(&node, "SELECT id, n FROM orders") == [["1", "2"]] })
        .await;
    let (status, answer) = door.push("?op=delete", "", "{\"id\": 1}").await;
    assert_eq!(status, 400, "{answer}");
    let (code, out, err) = node.run(&["flow", "resnapshot", "copy"]);
    assert!(code != 0 && err.contains("push the rows once more"), "{out}{err}");
    let url = door.url.replace("/in/", "/nowhere/");
    assert_eq!(reqwest::Client::new().post(url).body("{}").send().await.unwrap().status(), 404);
}

#[test]
fn what_means_nothing_to_the_source_is_told() {
    for (line, word) in [("snapshot: never", "snapshot"), ("topics: [a]", "topics")] {
        let (code, _, err) = project(&format!("{DECLARED}{line}\n")).run(&["check"]);
        assert!(code == 2 && err.contains(&format!("`{word}` means nothing")), "{err}");
    }
    // With a url it is an API that is asked, to which nobody pushes.
    let (code, _, err) = project(&format!("{DECLARED}url: http://x\n")).run(&["check"]);
    assert!(code == 2 && err.contains("sources/in.yaml:"), "{err}");
    let (code, _, err) = project("kind: http\n").run(&["check"]);
    assert!(code == 2 && err.contains("`tables` is missing"), "{err}");
}
