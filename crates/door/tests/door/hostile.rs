//! Bytes that no client should send, clients that go away, and statements that never end.

use crate::house::{House, Porter};
use anyhow::{Context, Result};
use async_trait::async_trait;
use door::{Opener, Waits};
use engine::{Engine, EngineError};
use mysql::protocol::{Capabilities, LoginRequest, packet};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows without end, for a test's purposes.
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT sum(i) FROM n";

async fn connect(port: u16) -> Result<Conn> {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("bi"))
        .prefer_socket(false);
    Ok(Conn::new(opts).await?)
}

/// Whether the door still answers somebody else.
async fn serves(house: &House) -> Result<()> {
    let mut conn = connect(house.port).await?;
    let count: Option<i64> = conn.query_first("SELECT count(*) FROM ods.orders").await?;
    assert_eq!(count, Some(3));
    conn.disconnect().await?;
    Ok(())
}

/// A socket behind the greeting.
async fn greeted(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut payload = vec![0; mysql::protocol::payload_bytes(&header)];
    stream.read_exact(&mut payload).await?;
    Ok(stream)
}

/// A socket that is logged in.
async fn logged_in(port: u16) -> Result<TcpStream> {
    let mut stream = greeted(port).await?;
    let login = LoginRequest {
        capabilities: Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::LONG_PASSWORD,
        user: b"bi".to_vec(),
        ..LoginRequest::default()
    };
    stream.write_all(&packet(1, &login.write())).await?;
    assert_eq!(answer(&mut stream).await?[0], 0);
    Ok(stream)
}

/// The next payload.
async fn answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let read = async {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await?;
        let mut payload = vec![0; mysql::protocol::payload_bytes(&header)];
        stream.read_exact(&mut payload).await?;
        anyhow::Ok(payload)
    };
    tokio::time::timeout(PATIENCE, read).await.context("no answer")?
}

fn number(payload: &[u8]) -> u16 {
    assert_eq!(payload[0], 0xff, "{payload:?}");
    u16::from_le_bytes([payload[1], payload[2]])
}

/// Waits until the other end has gone.
async fn ended(stream: &mut TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, read).await.context("the connection stays open")?;
    Ok(())
}

#[tokio::test]
async fn garbage_and_halves_of_handshakes_end_one_connection_alone() -> Result<()> {
    let house = House::open().await?;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        &packet(1, b"\x00"),
        &packet(1, &[0xff; 31]),
        &packet(1, &[0xff; 300]),
        &packet(9, b"\x85\xa6\x03\x00"),
        // TLS is asked for, and there is none.
        &packet(
            1,
            &[
                0x85, 0xae, 3, 0, 0, 0, 0, 1, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0,
            ],
        ),
    ] {
        let mut stream = greeted(house.port).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        ended(&mut stream).await?;
    }
    // One that says nothing holds nobody up.
    let silent = greeted(house.port).await?;
    serves(&house).await?;
    drop(silent);
    house.close().await
}

#[tokio::test]
async fn commands_that_are_wrong_have_errors_of_mysql() -> Result<()> {
    let house = House::open().await?;
    let mut stream = logged_in(house.port).await?;
    for (payload, wanted) in [
        (&b""[..], 1047),
        (b"\x03", 1065),
        (b"\x03\xff\xfe", 1300),
        (b"\x02no such", 1049),
        (b"\x02ods` ; DROP TABLE orders", 1049),
        (b"\x17", 1835),
        (b"\x17\x09\x00\x00\x00\x00\x01\x00\x00\x00", 1243),
        (b"\x1a\x09\x00\x00\x00", 1243),
        (b"\x1c\x09\x00\x00\x00\x01\x00\x00\x00", 1421),
        (b"\x1b\x00\x00", 1235),
        (b"\x12", 1047),
        (b"\x77rest", 1047),
        (b"\x0c\xff\xff\xff\x7f", 1094),
        (b"\x04nothing\x00%", 1046),
        (b"\x03SELECT 1; SELECT 2", 1235),
        (b"\x03INSERT INTO ods.orders (customer) VALUES ('x')", 1290),
        (b"\x03/*!50000 DROP TABLE ods.orders */", 1290),
        (b"\x03WITH q AS (SELECT 1) DELETE FROM ods.orders", 1235),
        (b"\x03SELECT * FROM ods.orders INTO OUTFILE '/tmp/x'", 1064),
        (b"\x03SELECT * FROM ods.orders FOR UPDATE", 1235),
        (b"\x03SHOW TABLES FROM `x' OR 1=1 -- `", 1049),
        (b"\x03USE `ods' OR 1`", 1049),
        (b"\x16INSERT INTO ods.orders (customer) VALUES (?)", 1290),
        (b"\x16SELECT nothing FROM ods.orders", 1054),
        // Tables of the platform's own, by every way to read one.
        (b"\x03SELECT * FROM tidemill_rejected", 1142),
        (b"\x03SELECT o.id FROM ods.orders o JOIN `ods`.`TIDEMILL_rejected` r ON r.id = o.id", 1142),
        (b"\x03SELECT id FROM ods.orders UNION TABLE ods.orders__tidemill_new", 1235),
        (b"\x03SELECT 1 FROM tidemill_x WHERE 1 IN (WITH tidemill_x AS (SELECT 1) SELECT 1)", 1142),
        (b"\x03SELECT (SELECT max(id) FROM main.tidemill_x) FROM ods.orders", 1142),
        (b"\x03SHOW TABLES FROM ods WHERE (SELECT count(*) FROM tidemill_x) > 0", 1142),
        (b"\x03EXPLAIN SELECT * FROM tidemill_rejected", 1142),
        (b"\x16SELECT * FROM tidemill_rejected", 1142),
        (b"\x04tidemill_rejected\x00", 1142),
        // What stands in a text is no name.
        (b"\x03SELECT nothing FROM ods.orders WHERE customer = 'tidemill_rejected'", 1054),
    ] {
        stream.write_all(&packet(0, payload)).await?;
        let heard = answer(&mut stream).await?;
        assert_eq!(number(&heard), wanted, "{}: {}", payload.escape_ascii(), heard.escape_ascii());
    }
    // It is still a session.
    stream.write_all(&packet(0, b"\x0e")).await?;
    assert_eq!(answer(&mut stream).await?[0], 0);
    // Another user is told why not, before the end.
    stream.write_all(&packet(0, b"\x11other\x00\x00\x00")).await?;
    assert_eq!(number(&answer(&mut stream).await?), 1235);
    ended(&mut stream).await?;
    serves(&house).await?;
    house.close().await
}

#[tokio::test]
async fn values_that_do_not_fit_a_prepared_statement_are_an_error() -> Result<()> {
    let house = House::open().await?;
    let mut stream = logged_in(house.port).await?;
    stream.write_all(&packet(0, b"\x16SELECT id FROM ods.orders WHERE customer = ? AND id = ?")).await?;
    let prepared = answer(&mut stream).await?;
    assert_eq!(prepared[0], 0);
    let id = &prepared[1..5];
    // Two parameters and an end, one column and an end.
    for _ in 0..5 {
        answer(&mut stream).await?;
    }
    let head = [b"\x17", id, b"\x00\x01\x00\x00\x00"].concat();
    for values in [
        &b""[..],
        b"\x00",
        b"\x00\x00",
        b"\x00\x01\xfd\x00",
        b"\x00\x01\xfd\x00\x08\x00\xff",
        b"\x00\x01\xfd\x00\x08\x00\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x00\x01\x0c\x00\x0c\x00\x0b\x01",
    ] {
        stream.write_all(&packet(0, &[&head, values].concat())).await?;
        assert_eq!(number(&answer(&mut stream).await?), 1210, "{values:?}");
    }
    serves(&house).await?;
    house.close().await
}

#[tokio::test]
async fn a_payload_that_is_too_large_is_refused_by_its_header() -> Result<()> {
    let house = House::open().await?;
    let mut stream = logged_in(house.port).await?;
    stream.write_all(&[0xff, 0xff, 0xff, 0, 3]).await?;
    assert_eq!(number(&answer(&mut stream).await?), 1153);
    ended(&mut stream).await?;
    let mut stream = logged_in(house.port).await?;
    stream.write_all(&packet(5, b"\x0e")).await?;
    assert_eq!(number(&answer(&mut stream).await?), 1156);
    ended(&mut stream).await?;
    serves(&house).await?;
    house.close().await
}

/// Waits until no more clients are here than these.
async fn clients(conn: &mut Conn, wanted: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let row: Option<(String, String)> = conn.query_first("SHOW STATUS LIKE 'Threads_connected'").await?;
        if row.as_ref().is_some_and(|(_, count)| count == wanted) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "{row:?} and not {wanted}");
    }
}

#[tokio::test]
async fn a_client_that_goes_takes_its_query_along() -> Result<()> {
    let house = House::open().await?;
    let mut watcher = connect(house.port).await?;
    // More than the engine has places for, so that each must be given back.
    for _ in 0..12 {
        let mut stream = logged_in(house.port).await?;
        stream.write_all(&packet(0, &[b"\x03", ENDLESS.as_bytes()].concat())).await?;
        stream.shutdown().await?;
        drop(stream);
    }
    clients(&mut watcher, "1").await?;
    serves(&house).await?;
    watcher.disconnect().await?;
    house.close().await
}

#[tokio::test]
async fn a_query_is_ended_by_another_client_by_its_time_and_by_the_doors() -> Result<()> {
    let house = House::open().await?;
    let (mut busy, mut other) = (connect(house.port).await?, connect(house.port).await?);
    let id = busy.id();
    let running = tokio::spawn(async move {
        let ended = busy.query_drop(ENDLESS).await;
        (busy, ended)
    });
    // It may not have begun yet: a KILL before that ends nothing.
    let until = Instant::now() + PATIENCE;
    while !running.is_finished() {
        other.query_drop(format!("KILL QUERY {id}")).await?;
        anyhow::ensure!(Instant::now() < until, "the query goes on");
        tokio::task::yield_now().await;
    }
    let (mut busy, outcome) = running.await?;
    let mysql_async::Error::Server(error) = outcome.unwrap_err() else {
        anyhow::bail!("no error of the door")
    };
    assert_eq!((error.code, error.state.as_str()), (1317, "70100"));
    busy.query_drop("SET max_execution_time = 50").await?;
    let mysql_async::Error::Server(error) = busy.query_drop(ENDLESS).await.unwrap_err() else {
        anyhow::bail!("no error of the door")
    };
    assert_eq!(error.code, 3024);
    other.query_drop(format!("KILL {id}")).await?;
    assert!(busy.query_drop("SELECT 1").await.is_err());
    house.close().await?;
    let waits = Waits { query: Duration::from_millis(50), idle: Duration::from_millis(500) };
    let house = House::with(Porter::new(None), None, waits).await?;
    let mut conn = connect(house.port).await?;
    let mysql_async::Error::Server(error) = conn.query_drop(ENDLESS).await.unwrap_err() else {
        anyhow::bail!("no error of the door")
    };
    assert_eq!(error.code, 3024);
    // Then it says nothing for too long.
    let mut idle = logged_in(house.port).await?;
    assert_eq!(number(&answer(&mut idle).await?), 4031);
    ended(&mut idle).await?;
    house.close().await
}

/// An engine that is never there, and never says so.
struct Never;

#[async_trait]
impl Opener for Never {
    async fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn nothing_waits_for_the_engine_without_end() -> Result<()> {
    let waits = Waits { query: Duration::from_millis(50), ..Waits::default() };
    let house = House::over(tempfile::tempdir()?, Box::new(Never), Porter::new(None), None, waits).await?;
    let mut stream = logged_in(house.port).await?;
    for payload in [
        &b"\x02ods"[..],
        b"\x03USE ods",
        b"\x03SELECT 1",
        b"\x03EXPLAIN SELECT 1",
        b"\x03SHOW TABLES FROM ods",
        b"\x04orders\x00",
        b"\x16SELECT 1",
        b"\x16SELECT ?",
    ] {
        stream.write_all(&packet(0, payload)).await?;
        assert_eq!(number(&answer(&mut stream).await?), 3024, "{}", payload.escape_ascii());
    }
    let mut stream = greeted(house.port).await?;
    let login = LoginRequest {
        capabilities: Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::LONG_PASSWORD
            | Capabilities::CONNECT_WITH_DATABASE,
        user: b"bi".to_vec(),
        database: b"ods".to_vec(),
        ..LoginRequest::default()
    };
    stream.write_all(&packet(1, &login.write())).await?;
    assert_eq!(number(&answer(&mut stream).await?), 3024);
    ended(&mut stream).await?;
    house.close().await
}

#[tokio::test]
async fn no_more_clients_are_let_in_than_there_are_places() -> Result<()> {
    let house = House::open().await?;
    let mut all = Vec::new();
    for _ in 0..door::CONNECTIONS_MAX {
        all.push(greeted(house.port).await?);
    }
    let mut late = TcpStream::connect(("127.0.0.1", house.port)).await?;
    assert_eq!(number(&answer(&mut late).await?), 1040);
    drop(all);
    let until = Instant::now() + PATIENCE;
    while serves(&house).await.is_err() {
        anyhow::ensure!(Instant::now() < until, "places are not given back");
    }
    house.close().await
}
