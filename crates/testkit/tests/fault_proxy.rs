//! Each fault does what it says, against a server that echoes.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::{Fault, FaultProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough that bytes would have come, had any been on their way.
const SILENCE: Duration = Duration::from_millis(200);

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    addr
}

async fn proxied() -> (FaultProxy, TcpStream) {
    let proxy = FaultProxy::start(echo_server().await).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(echoed(&mut client, b"hello").await, b"hello");
    (proxy, client)
}

async fn echoed(client: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    client.write_all(bytes).await.unwrap();
    let mut answer = vec![0; bytes.len()];
    client.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_megabyte_passes_whole_and_the_end_of_the_stream_follows() {
    let (_proxy, client) = proxied().await;
    let sent: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
    let (mut read, mut write) = client.into_split();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == expected);
}

#[tokio::test]
async fn latency_delays_both_ways() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Fault::Latency(Duration::from_millis(60))).await;
    let started = Instant::now();
    assert_eq!(echoed(&mut client, b"slow").await, b"slow");
    assert!(started.elapsed() >= Duration::from_millis(120), "{:?}", started.elapsed());
    proxy.set(Fault::Pass).await;
    assert_eq!(echoed(&mut client, b"fast").await, b"fast");
}

#[tokio::test]
async fn bandwidth_limits_the_rate() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Fault::Bandwidth(50_000)).await;
    let started = Instant::now();
    let sent = vec![7; 20_000];
    assert!(echoed(&mut client, &sent).await == sent);
    assert!(started.elapsed() >= Duration::from_millis(390), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_refuses_what_is_new() {
    let (proxy, mut client) = proxied().await;
    assert_eq!(proxy.connections(), 1);
    proxy.set(Fault::Cut).await;
    assert_eq!(proxy.connections(), 0);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(TcpStream::connect(proxy.addr()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.set(Fault::Pass).await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(echoed(&mut client, b"again").await, b"again");
}

#[tokio::test]
async fn a_half_open_network_accepts_and_says_nothing() {
    let (proxy, mut old) = proxied().await;
    proxy.set(Fault::HalfOpen).await;
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    for client in [&mut old, &mut new] {
        client.write_all(b"anyone?").await.unwrap();
        timeout(SILENCE, client.read(&mut [0; 8])).await.unwrap_err();
    }
    proxy.set(Fault::Pass).await;
    for client in [&mut old, &mut new] {
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn what_is_unanswered_has_arrived() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap()).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut server, _) = upstream.accept().await.unwrap();
    proxy.set(Fault::Unanswered).await;
    client.write_all(b"do").await.unwrap();
    let mut asked = [0; 2];
    server.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"do");
    server.write_all(b"done").await.unwrap();
    timeout(SILENCE, client.read(&mut [0; 8])).await.unwrap_err();
    proxy.set(Fault::Pass).await;
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_that_lost_nothing_survives_a_half_open_network() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Fault::HalfOpen).await;
    proxy.set(Fault::Pass).await;
    assert_eq!(echoed(&mut client, b"still here").await, b"still here");
}

#[tokio::test]
async fn garbage_is_the_same_for_the_same_seed() {
    let mut answers = Vec::new();
    for seed in [1, 1, 2] {
        let (proxy, client) = proxied().await;
        proxy.set(Fault::Garbage { seed, one_in: 50 }).await;
        let (mut read, mut write) = client.into_split();
        write.write_all(&[0; 5_000]).await.unwrap();
        write.shutdown().await.unwrap();
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        answers.push(answer);
    }
    assert!(answers[0] == answers[1]);
    assert!(answers[0] != answers[2]);
    let damaged = answers[0].iter().filter(|byte| **byte != 0).count();
    assert!((100..400).contains(&damaged), "{damaged} of 5000 bytes, twice one in 50");
}

#[tokio::test]
async fn a_dropped_proxy_resets_its_connections() {
    let (proxy, mut client) = proxied().await;
    drop(proxy);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
