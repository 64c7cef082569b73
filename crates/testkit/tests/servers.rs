//! Each server starts, answers, survives a kill with its data, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use testkit::mysql_async::prelude::Queryable;
use testkit::{
    MariaDb, MariaDbOptions, MySql, MySqlOptions, Nats, NatsOptions, OpenSearch, OpenSearchOptions, Redis,
    RedisOptions, SqlServer, TiDb, TiDbOptions,
};

const TABLE: &str = "create database shop; create table shop.orders (id int primary key, note varchar(20)); \
                     insert into shop.orders values (1, 'first')";

async fn keeps_its_data_over_a_kill(server: &SqlServer) {
    server.exec(TABLE).await.unwrap();
    let port = server.port();
    server.kill9();
    assert!(!server.is_running());
    server.conn().await.unwrap_err();
    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    let rows: Vec<(i32, String)> = server.query("select id, note from shop.orders").await.unwrap();
    assert_eq!(rows, [(1, "first".to_owned())]);
}

async fn global(server: &SqlServer, name: &str) -> String {
    server.query_one(&format!("select concat(@@global.{name})")).await.unwrap()
}

#[tokio::test]
async fn mysql_keeps_its_data_over_a_kill() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    assert_eq!(global(&server, "gtid_mode").await, "ON");
    assert_eq!(global(&server, "binlog_format").await, "ROW");
    assert_eq!(global(&server, "binlog_row_metadata").await, "FULL");
    keeps_its_data_over_a_kill(&server).await;
    for path in [
        server.ca_path(),
        server.server_cert_path(),
        server.client_cert_paths().0,
        server.client_cert_paths().1,
    ] {
        assert!(path.is_file(), "{}", path.display());
    }
}

#[tokio::test]
async fn mysql_replicas_get_the_rows_of_their_source() {
    for gtid in [true, false] {
        let source = MySql::start(MySqlOptions { gtid, ..Default::default() }).await.unwrap();
        let replica = MySql::start(MySqlOptions { gtid, server_id: 2, ..Default::default() }).await.unwrap();
        source.exec(TABLE).await.unwrap();
        replica.replica_of(&source).await.unwrap();
        source.exec("insert into shop.orders values (2, 'second')").await.unwrap();
        replica.caught_up_with(&source).await.unwrap();
        assert_eq!(replica.query_one::<i64>("select count(*) from shop.orders").await.unwrap(), 2);
    }
}

#[tokio::test]
async fn mariadb_keeps_its_data_over_a_kill() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    assert!(global(&server, "version").await.starts_with("10.11."));
    assert_eq!(global(&server, "server_id").await, "1");
    assert_eq!(global(&server, "binlog_row_metadata").await, "FULL");
    keeps_its_data_over_a_kill(&server).await;
}

#[tokio::test]
async fn mariadb_replicas_get_the_rows_of_their_source() {
    let source = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let replica = MariaDb::start(MariaDbOptions { server_id: 2, ..Default::default() }).await.unwrap();
    source.exec(TABLE).await.unwrap();
    replica.replica_of(&source).await.unwrap();
    replica.caught_up_with(&source).await.unwrap();
    assert_eq!(replica.query_one::<i64>("select count(*) from shop.orders").await.unwrap(), 1);
    replica.replica_of(&replica).await.unwrap_err();
}

#[tokio::test]
async fn tidb_keeps_its_data_over_a_kill() {
    let server = TiDb::start(TiDbOptions::default()).await.unwrap();
    assert!(global(&server, "version").await.contains("TiDB-v8.5"));
    keeps_its_data_over_a_kill(&server).await;
}

#[tokio::test]
async fn nats_comes_back_on_its_port_after_a_kill() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let server = Nats::start(NatsOptions::default()).await.unwrap();
    for _ in 0..2 {
        let stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting).await.unwrap();
        assert!(greeting.starts_with("INFO ") && greeting.contains("\"jetstream\":true"), "{greeting}");
        server.restart().await.unwrap();
    }
    assert!(server.data_dir().join("jetstream").is_dir());
}

#[tokio::test]
async fn redis_keeps_its_data_over_a_kill() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async |server: &Redis, command: &[u8]| {
        let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(command).await.unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let server = Redis::start(RedisOptions::default()).await.unwrap();
    assert_eq!(ask(&server, b"SET name first\r\n").await, "+OK\r\n");
    server.kill9();
    tokio::net::TcpStream::connect(server.addr()).await.unwrap_err();
    server.restart().await.unwrap();
    assert_eq!(ask(&server, b"GET name\r\n").await, "$5\r\nfirst\r\n");
}

#[tokio::test]
async fn a_paused_server_answers_only_when_resumed() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let mut conn = server.conn().await.unwrap();
    server.pause();
    assert!(server.is_running());
    let asked = tokio::spawn(async move { conn.query_first::<i64, _>("select 7").await.unwrap() });
    let patience = std::time::Duration::from_millis(300);
    let mut asked = std::pin::pin!(asked);
    tokio::time::timeout(patience, &mut asked).await.unwrap_err();
    server.resume();
    assert_eq!(asked.await.unwrap(), Some(7));
    server.stop().await.unwrap();
    assert!(!server.is_running());
}

#[tokio::test]
async fn a_dropped_server_leaves_no_process_and_no_folder() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let (pid, folder) = (server.pid().unwrap(), server.data_dir());
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_log() {
    let options = MariaDbOptions { args: vec!["--no-such-option".to_owned()], ..Default::default() };
    let error = MariaDb::start(options).await.unwrap_err().to_string();
    assert!(error.contains("ended with") && error.contains("no-such-option"), "{error}");
    let log = error
        .lines()
        .find_map(|line| line.strip_prefix("log: ")?.strip_suffix(", which ends with:"))
        .unwrap();
    std::fs::remove_file(log).unwrap();
}

/// Set in the process that this test starts, which is the test itself once more.
const DOOMED: &str = "TESTKIT_DOOMED";

#[tokio::test]
async fn a_server_dies_with_the_process_that_started_it() {
    use std::io::{BufRead, BufReader};
    if std::env::var_os(DOOMED).is_some() {
        let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
        println!("\nSERVER {} {}", server.pid().unwrap(), server.data_dir().parent().unwrap().display());
        std::future::pending::<()>().await;
    }
    let mut doomed = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_dies_with_the_process_that_started_it", "--nocapture"])
        .env(DOOMED, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(doomed.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| line.starts_with("SERVER ")).unwrap();
    let (pid, folder) = line.strip_prefix("SERVER ").unwrap().split_once(' ').unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    assert!(process.exists());
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    let killed = std::time::Instant::now();
    while is_alive(&process) {
        assert!(killed.elapsed().as_secs() < 30, "process {pid} outlived the test that started it");
        tokio::task::yield_now().await;
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Whether the process runs; one that has ended and waits to be reaped by init does not.
fn is_alive(process: &std::path::Path) -> bool {
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[tokio::test]
async fn opensearch_keeps_what_it_acknowledged_over_a_kill() {
    let server = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let put = "PUT /a/_doc/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
               Content-Length: 9\r\n\r\n{\"n\": 41}";
    assert!(http(&server, put).await.contains("\"result\":\"created\""));
    server.kill9();
    assert!(!server.is_running());
    server.restart().await.unwrap();
    let get = "GET /a/_doc/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(http(&server, get).await.contains("{\"n\": 41}"));
}

async fn http(server: &OpenSearch, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
