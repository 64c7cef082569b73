//! The process among others: it ends when it is told to, keeps a second one out, and outlives a disk that is full.

use crate::node::{Node, assert_dense, mysql_source, streams};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use testkit::{MySql, MySqlOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Rows of `shop.a` from `first` on, each with so many characters.
async fn insert(server: &MySql, first: u32, rows: u32, characters: u32) {
    let values: Vec<String> =
        (first..first + rows).map(|id| format!("({id}, REPEAT('x', {characters}))")).collect();
    server.exec(&format!("INSERT INTO shop.a VALUES {}", values.join(","))).await.unwrap();
}

async fn shop() -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    server.exec("CREATE DATABASE shop; CREATE TABLE shop.a (id INT PRIMARY KEY, v LONGTEXT)").await.unwrap();
    server
}

fn files_below(folder: PathBuf, extension: &str) -> Vec<PathBuf> {
    let mut out: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    out.retain(|path| path.extension().is_some_and(|it| it == extension));
    out.sort();
    out
}

/// The changes that the `files` sink has written.
fn written(node: &Node) -> String {
    let files = files_below(node.path("lines"), "jsonl");
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Without one that was cut off.
fn whole_lines(node: &Node) -> u64 {
    written(node).matches('\n').count() as u64
}

fn lines(node: &Node) -> Vec<Value> {
    written(node).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Lets no file of a process grow past `bytes`; with `None` the limit is gone. It is what a full disk looks like that
/// needs no rights of an administrator: a write stops short, and the next one fails.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let limit =
        libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit outlives the call, and the process is our child.
    let done = unsafe { libc::prlimit(pid as i32, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_keeps_no_node_from_ending() {
    let server = shop().await;
    for id in 0..40 {
        insert(&server, id, 1, 1_000_000).await;
    }
    let mut node = Node::new(&[("sources/shop.yaml", mysql_source(&server.url(), "shop.*"))]);
    node.start();
    // More than the buffers of both ends hold.
    node.wait("captured", |s| s["sources"][0]["lsn"] == 40).await;
    let mut stuck = Vec::new();
    for query in ["from=start&follow=true", "from=start"] {
        let mut reader = TcpStream::connect(node.address()).await.unwrap();
        let request =
            format!("GET /api/v1/sources/shop/changes?{query} HTTP/1.1\r\nHost: {}\r\n\r\n", node.address());
        reader.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        reader.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stuck.push(reader);
    }
    insert(&server, 100, 1, 10).await;
    node.wait("and it goes on capturing", |s| s["sources"][0]["lsn"] == 41).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_on_the_same_data_is_refused_and_the_first_goes_on() {
    let server = shop().await;
    insert(&server, 1, 3, 10).await;
    let project = [
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("flows/to_lines.yaml", "from: shop\nto: lines\n".into()),
    ];
    let mut first = Node::new(&project);
    first.start();
    first.wait("delivered", |s| s["flows"][0]["lsn"] == 3).await;
    let mut second = Node::new(&project);
    let listen = |node: &Node| format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
    let data = format!("data_dir: {}\n", first.path("data").display());
    // With an address of its own it meets the lock of the journal; with the same one, the address.
    for (listen, told, hint) in [
        (listen(&second), "is in use by another process", "hint: another process runs on the same data"),
        (listen(&first), "failed to listen on", "hint: another tidemill may be running"),
    ] {
        second.write("tidemill.yaml", &(listen + &data));
        second.start();
        assert_eq!(second.ended(), Some(1), "{}", second.log());
        assert!(second.log().contains(told) && second.log().contains(hint), "{}", second.log());
    }
    insert(&server, 4, 3, 10).await;
    first.wait("the first goes on", |s| s["flows"][0]["lsn"] == 6).await;
    first.kill9();
    first.start();
    insert(&server, 7, 3, 10).await;
    first.wait("also after a restart", |s| s["flows"][0]["lsn"] == 9).await;
    let lines = lines(&first);
    assert_dense(&lines);
    assert_eq!(lines.len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_files_sink_without_room_says_so_and_goes_on_when_there_is_some() {
    let server = shop().await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("flows/to_lines.yaml", "from: shop\nto: lines\n".into()),
    ]);
    node.start();
    // So many that the file of lines is by far the longest: no other meets the limit.
    insert(&server, 0, 1000, 10).await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 1000).await;
    let mut rows = 1000;
    for rests in [false, true] {
        let file = files_below(node.path("lines"), "jsonl").pop().unwrap();
        let (bytes, whole) = (file.metadata().unwrap().len(), whole_lines(&node));
        // In the middle of a line.
        limit_files(node.pid(), Some(bytes + 1000));
        insert(&server, rows, 50, 10).await;
        rows += 50;
        let status = node.wait("it is told", |s| s["flows"][0]["error"]["message"].is_string()).await;
        let message = status["flows"][0]["error"]["message"].as_str().unwrap();
        assert!(message.contains("failed to write files in"), "{message}");
        // A retry counts the whole lines that there was room for.
        let (lsn, durable) = (status["flows"][0]["lsn"].as_u64().unwrap(), whole_lines(&node));
        assert!(lsn >= whole && lsn <= durable, "what is not durable does not count: {lsn}, {durable}");
        if rests {
            node.kill9();
            node.start();
        } else {
            limit_files(node.pid(), None);
        }
        node.wait("all is there", |s| s["flows"][0]["lsn"] == rows).await;
    }
    let lines = lines(&node);
    assert_dense(&lines);
    assert_eq!(lines.len() as u32, rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_without_room_says_so_and_goes_on_when_there_is_some() {
    let server = shop().await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_db.yaml", "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", streams).await;
    insert(&server, 0, 1000, 500).await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 1000).await;
    let segment = files_below(node.path("data/journal/shop"), "journal").pop().unwrap();
    limit_files(node.pid(), Some(segment.metadata().unwrap().len() + 3000));
    for first in (1000..1050).step_by(10) {
        insert(&server, first, 10, 500).await;
    }
    let status = node.wait("it is told", |s| s["sources"][0]["error"]["message"].is_string()).await;
    assert!(status["sources"][0]["error"]["hint"].as_str().unwrap().contains("free space"), "{status:#}");
    limit_files(node.pid(), None);
    node.wait("all is there", |s| s["flows"][0]["lsn"] == 1050).await;
    let sum = async |db: &str| -> (u64, u64) {
        server.query_one(&format!("SELECT COUNT(*), SUM(id * LENGTH(v)) FROM {db}.a")).await.unwrap()
    };
    assert_eq!(sum("copy").await, sum("shop").await);
    let changes = node.changes("shop");
    assert_dense(&changes);
    assert_eq!(changes.len(), 1050);
}
