//! The Durable Streams protocol: its published suite; appends that were answered, through kills; a table that is followed over HTTP.

use crate::node::{Node, PATIENCE, streams, write_orders};
use crate::subscribe::{at, make_shop, orders_of, project, shape};
use client::v1::Mode;
use client::v1::subscribe_response::Event;
use client::{Heard, Subscription};
use futures_util::StreamExt as _;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use testkit::{MySql, MySqlOptions, installed};
use tokio::sync::watch;

/// The suite of version 0.3.6 has as many tests that any server is to pass.
const SUITE_TESTS: u64 = 332;
/// The suite ends in about a minute, longer on a busy machine.
const SUITE_WAIT: Duration = Duration::from_secs(600);
/// The shape that is followed, and how a query says it.
const FILTER: &str = "amount >= 300 AND name LIKE 'row%'";
const FILTER_IN_QUERY: &str = "amount%20%3E%3D%20300%20AND%20name%20LIKE%20%27row%25%27";

/// The published suite, with a vitest that runs it.
struct Suite;

impl Suite {
    /// What vitest reports of all tests.
    fn run(url: &str) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let modules = installed("durable-streams").unwrap().join("node_modules");
        std::os::unix::fs::symlink(&modules, dir.path().join("node_modules")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/durable/suite.test.js");
        std::fs::copy(script, dir.path().join("suite.test.js")).unwrap();
        let report = dir.path().join("report.json");
        let child = Command::new("node")
            .arg(modules.join("vitest/vitest.mjs"))
            .args(["run", "--reporter=json", "--testTimeout=60000", "--root"])
            .arg(dir.path())
            .arg(format!("--outputFile={}", report.display()))
            .env("SUITE_URL", url)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ended(child);
        let text = std::fs::read_to_string(report).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Waits for a process; one that does not end in time is killed.
fn ended(mut child: Child) {
    let pid = child.id().to_string();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait()));
    if receiver.recv_timeout(SUITE_WAIT).is_err() {
        Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        panic!("the suite came to no end");
    }
}

fn node_with_streams() -> Node {
    let node = Node::new(&[]);
    let text = format!(
        "name: test\nlisten: {{http: \"{}\"}}\nhttp: {{cors: [\"https://example.com\"]}}\nstreams: {{}}\n",
        node.address()
    );
    node.write("tidemill.yaml", &text);
    node
}

fn base(node: &Node) -> String {
    format!("http://{}/api/v1", node.address())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_suite_passes() {
    let mut node = node_with_streams();
    node.start();
    node.wait("it serves", |status| status["name"] == "test").await;
    let report = Suite::run(&format!("{}/streams", base(&node)));
    let files = report["testResults"].as_array().unwrap();
    let tests = files.iter().flat_map(|file| file["assertionResults"].as_array().unwrap());
    let (mut passed, mut others) = (0, Vec::new());
    for test in tests {
        let name = test["fullName"].as_str().unwrap();
        match test["status"].as_str().unwrap() {
            "passed" => passed += 1,
            // An API of its own, for servers that call webhooks: the suite leaves it out unless it is asked for.
            "skipped" | "pending" if name.trim_start().starts_with("Reserved subscription APIs") => {}
            status => others.push(format!("{status}: {name}\n{}", test["failureMessages"])),
        }
    }
    assert!(others.is_empty(), "{} of {passed} and more:\n{}", others.len(), others.join("\n"));
    assert!(passed >= SUITE_TESTS, "{passed} passed");
}

/// Appends numbered messages, one after the other, until the node is gone. `done`: how many were answered.
async fn append(url: String, done: Arc<AtomicU64>) {
    let client = Client::new();
    loop {
        let next = done.load(Ordering::Relaxed);
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .header("producer-id", "device")
            .header("producer-epoch", "0")
            .header("producer-seq", next.to_string())
            .body(json!({ "n": next }).to_string());
        let Ok(answer) = request.send().await else { return };
        assert!(matches!(answer.status().as_u16(), 200 | 204), "{next}: {}", answer.status());
        done.store(next + 1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_outlives_kills_and_comes_once() {
    let mut node = node_with_streams();
    node.start();
    node.wait("it serves", |status| status["name"] == "test").await;
    let url = format!("{}/streams/devices/u1", base(&node));
    let client = Client::new();
    let made = client.put(&url).header("content-type", "application/json").send().await.unwrap();
    assert_eq!(made.status(), 201);
    let done = Arc::new(AtomicU64::new(0));
    for kill in 1..=5 {
        let work = tokio::spawn(append(url.clone(), done.clone()));
        node.until("some are answered", async || done.load(Ordering::Relaxed) >= kill * 25).await;
        node.kill9();
        work.await.unwrap();
        node.start();
        node.wait("it serves again", |status| status["name"] == "test").await;
    }
    let answered = done.load(Ordering::Relaxed);
    let (mut offset, mut numbers) = ("-1".to_owned(), Vec::new());
    loop {
        let answer = client.get(format!("{url}?offset={offset}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        offset = header(&answer, "stream-next-offset").unwrap();
        let is_all = header(&answer, "stream-up-to-date").is_some();
        let part: Vec<Value> = answer.json().await.unwrap();
        numbers.extend(part.iter().map(|message| message["n"].as_u64().unwrap()));
        if is_all {
            break;
        }
    }
    // The one on its way to a kill may be there, and was not answered.
    assert!(matches!(numbers.len() as u64 - answered, 0 | 1), "{} of {answered}", numbers.len());
    assert!(numbers.iter().enumerate().all(|(index, number)| index as u64 == *number), "{numbers:?}");
    node.stop();
}

fn header(answer: &Response, name: &str) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

type Rows = BTreeMap<String, Value>;

/// A device that knows the protocol and JSON, and nothing else.
struct Reader {
    url: String,
    live: &'static str,
    offset: String,
    rows: Rows,
    resets: usize,
    wanted: watch::Receiver<Option<Rows>>,
}

impl Reader {
    fn is_done(&self) -> bool {
        self.wanted.borrow().as_ref() == Some(&self.rows)
    }

    fn apply(&mut self, messages: &[Value]) {
        for message in messages {
            let headers = &message["headers"];
            let key = || message["key"].as_str().unwrap().to_owned();
            match (headers["operation"].as_str(), headers["control"].as_str()) {
                (Some("upsert"), _) => drop(self.rows.insert(key(), message["value"].clone())),
                (Some("delete"), _) => drop(self.rows.remove(&key())),
                (_, Some("reset")) => self.rows.clear(),
                (_, Some("snapshot-start" | "snapshot-end" | "schema")) => {}
                _ => panic!("{message}"),
            }
        }
    }

    fn move_to(&mut self, offset: String) {
        assert!(self.offset == "-1" || offset >= self.offset, "{offset} comes before {}", self.offset);
        self.offset = offset;
    }

    /// Until the rows are those that are wanted.
    async fn run(mut self) -> Self {
        while !self.is_done() {
            let live = if self.live.is_empty() { String::new() } else { format!("&live={}", self.live) };
            let url = format!("{}&offset={}{live}", self.url, self.offset);
            // The node may be gone, or not have read the table yet.
            let Ok(answer) = reqwest::get(url).await else {
                tokio::task::yield_now().await;
                continue;
            };
            match answer.status() {
                StatusCode::OK if self.live == "sse" => self.follow(answer).await,
                StatusCode::OK => {
                    let next = header(&answer, "stream-next-offset").unwrap();
                    // An answer that broke off is asked for again.
                    if let Ok(messages) = answer.json::<Vec<Value>>().await {
                        self.apply(&messages);
                        self.move_to(next);
                    }
                }
                StatusCode::NO_CONTENT => self.move_to(header(&answer, "stream-next-offset").unwrap()),
                StatusCode::GONE => {
                    assert!(header(&answer, "tidemill-reset").is_some());
                    self.resets += 1;
                    self.rows.clear();
                    self.offset = "-1".into();
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_FOUND => tokio::task::yield_now().await,
                status => panic!("{status}: {}", answer.text().await.unwrap()),
            }
        }
        self
    }

    /// Takes events until they break off, or the rows are those that are wanted.
    async fn follow(&mut self, answer: Response) {
        let mut parts = answer.bytes_stream();
        let (mut text, mut messages) = (String::new(), Vec::new());
        while !self.is_done() {
            let part = tokio::select! {
                part = parts.next() => part,
                _ = self.wanted.changed() => continue,
            };
            let Some(Ok(part)) = part else { return };
            // All that is beside ASCII in these rows is nothing.
            text.push_str(std::str::from_utf8(&part).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let (kind, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata:").unwrap();
                match kind {
                    "data" => messages = serde_json::from_str::<Vec<Value>>(data).unwrap(),
                    _ => {
                        let control: Value = serde_json::from_str(data).unwrap();
                        assert!(control["streamCursor"].is_string(), "{control}");
                        self.apply(&std::mem::take(&mut messages));
                        self.move_to(control["streamNextOffset"].as_str().unwrap().to_owned());
                    }
                }
                text = rest.to_owned();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_followed_over_http_through_kills() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, "");
    node.start();
    node.wait("it streams", streams).await;
    let url = format!("{}/shapes/shop/shop.orders?where={FILTER_IN_QUERY}", base(&node));
    let (tell, wanted) = watch::channel(None);
    let reader = |live| Reader {
        url: url.clone(),
        live,
        offset: "-1".into(),
        rows: Rows::new(),
        resets: 0,
        wanted: wanted.clone(),
    };
    let readers: Vec<_> =
        ["", "long-poll", "sse"].into_iter().map(|live| tokio::spawn(reader(live).run())).collect();
    let stop = AtomicBool::new(false);
    let life = async {
        for _ in 0..2 {
            let before = node.status()["sources"][0]["lsn"].as_u64().unwrap_or_default();
            node.wait("changes come", |s| s["sources"][0]["lsn"].as_u64() > Some(before + 200)).await;
            node.kill9();
            node.start();
            node.wait("it streams again", streams).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write_orders(&server, 5, &stop), life);
    assert!(written > 5, "{written} statements");
    let rows = orders_of(&server, FILTER).await;
    assert!(!rows.is_empty());
    let row = |row: &Vec<String>| {
        let id: u64 = row[0].parse().unwrap();
        (row[0].clone(), json!({ "id": id, "name": row[1], "amount": row[2] }))
    };
    tell.send(Some(rows.iter().map(row).collect())).unwrap();
    let mut offsets = Vec::new();
    for reader in readers {
        let reader = tokio::time::timeout(PATIENCE, reader).await.expect("it has all rows").unwrap();
        assert_eq!(reader.resets, 0, "{}", reader.live);
        offsets.push(reader.offset);
    }
    // A device may go on over gRPC from where HTTP has brought it.
    let mut subscription = Subscription::new(at(&node), shape(FILTER), offsets[1].clone().into_bytes());
    let ready = loop {
        if let Heard::Response(response) = subscription.next().await.unwrap()
            && let Some(Event::Ready(ready)) = response.event
        {
            break ready;
        }
    };
    assert_eq!(ready.mode(), Mode::Tail);
    refusals(&url, &offsets[0]).await;
    let boss = token(&node, &["boss", "--scope", "admin"]);
    node.env(&[("TIDEMILL_TOKEN", &boss)]);
    let phone = token(&node, &["phone", "--scope", "subscribe:shop", "--rows", "shop.orders=amount >= 900"]);
    let client = Client::new();
    let ask = async |url: &str| client.get(url).bearer_auth(&phone).send().await.unwrap();
    let messages: Vec<Value> = ask(&url).await.json().await.unwrap();
    let amounts = messages.iter().filter_map(|message| message["value"]["amount"].as_str());
    assert!(amounts.map(|amount| amount.parse::<f64>().unwrap()).all(|amount| amount >= 900.0));
    assert_eq!(
        ask(&format!("{url}&offset={}", offsets[0])).await.status(),
        410,
        "a token's rules are of its shape"
    );
    assert_eq!(ask(&url.replace("shop.orders", "shop.others")).await.status(), 403);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 401);
    node.stop();
}

/// Makes a token by the command line.
fn token(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = node.run(&[&["token", "create"], args].concat());
    assert_eq!(code, 0, "{err}");
    out.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_for_its_streams_and_what_it_has_open_ends_with_it() {
    let mut node = node_with_streams();
    node.start();
    node.wait("it serves", |status| status["name"] == "test").await;
    let boss = token(&node, &["boss", "--scope", "admin"]);
    node.env(&[("TIDEMILL_TOKEN", &boss)]);
    let phone = token(&node, &["phone", "--scope", "streams:devices/u1"]);
    let (client, base) = (Client::new(), format!("{}/streams/devices", base(&node)));
    let make = async |name: &str, token: &str, from: Option<&str>| {
        let mut request = client.put(format!("{base}/{name}")).bearer_auth(token);
        if let Some(from) = from {
            request = request.header("stream-forked-from", from);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(make("u1", &phone, None).await, 201);
    assert_eq!(make("u2", &phone, None).await, 403);
    assert_eq!(make("u2", &boss, None).await, 201);
    assert_eq!(make("u1/copy", &phone, Some("/api/v1/streams/devices/u2")).await, 403);
    assert_eq!(make("u1/copy", &phone, Some("/api/v1/streams/devices/u1")).await, 201);
    let wait = |live: &str| client.get(format!("{base}/u1?offset=-1&live={live}")).bearer_auth(&phone).send();
    let mut events = wait("sse").await.unwrap();
    let first = events.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: control\ndata:{"), "{first:?}");
    let poll = tokio::spawn(wait("long-poll"));
    let (code, _, err) = node.run(&["token", "revoke", "phone"]);
    assert_eq!(code, 0, "{err}");
    assert!(events.chunk().await.is_err(), "it breaks off");
    assert_eq!(poll.await.unwrap().unwrap().status(), 401);
    node.stop();
}

/// What cannot be answered is refused by the protocol's numbers.
async fn refusals(url: &str, offset: &str) {
    let status = async |url: String| reqwest::get(url).await.unwrap().status().as_u16();
    assert_eq!(status(format!("{url}&offset=0,1")).await, 400);
    assert_eq!(status(format!("{url}&live=sse")).await, 400);
    assert_eq!(status(url.replace("shop.orders", "shop.nothing")).await, 404);
    assert_eq!(status(url.replace("shapes/shop/", "shapes/crm/")).await, 404);
    assert_eq!(status(url.replace("amount", "nothing")).await, 412);
    // Of another shape.
    let other = reqwest::get(format!("{url}%20AND%20id%20%3E%201&offset={offset}")).await.unwrap();
    assert_eq!((other.status().as_u16(), header(&other, "tidemill-reset").as_deref()), (410, Some("shape")));
    let client = Client::new();
    assert_eq!(client.put(url).send().await.unwrap().status(), 405);
    let head = client.head(url).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), header(&head, "content-type").as_deref()),
        (200, Some("application/json"))
    );
    let tail = header(&head, "stream-next-offset").unwrap();
    let now = reqwest::get(format!("{url}&offset=now")).await.unwrap();
    assert_eq!(
        (header(&now, "stream-next-offset"), now.text().await.unwrap()),
        (Some(tail.clone()), "[]".into())
    );
    let at_end = reqwest::get(format!("{url}&offset={tail}")).await.unwrap();
    let tag = header(&at_end, "etag").unwrap();
    assert_eq!(header(&at_end, "stream-up-to-date").as_deref(), Some("true"));
    let again = client.get(format!("{url}&offset={tail}")).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
}
