//! A TCP proxy that breaks the network on request.
//!
//! Each connection is two pumps, client to upstream and back. A pump reads a chunk, holds it as long as the fault says,
//! and writes it. Bytes that a fault has swallowed are never made up for: a connection that lost some is reset before it
//! would carry another byte, as no real network delivers a stream with a hole.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::port::Port;

/// Most bytes moved at once; small enough that a slow link still trickles.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Most chunks under way in one direction, which bounds what latency can hold: 4 MiB.
const CHUNKS_IN_FLIGHT_MAX: usize = 256;
/// With a bandwidth, chunks are cut so that this many a second pass.
const CHUNKS_PER_SECOND: u64 = 20;

/// What the network does. One fault at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing is wrong.
    Pass,
    /// Each byte arrives this much later; throughput is not limited.
    Latency(Duration),
    /// At most this many bytes a second in each direction of each connection.
    Bandwidth(u64),
    /// Every connection is reset at once, and new ones are refused.
    Cut,
    /// Connections are accepted and stay open; what is sent on any vanishes. When this fault ends, connections that
    /// lost bytes or were never carried upstream are reset.
    HalfOpen,
    /// What clients send arrives, and what is answered vanishes: a statement is carried out and nobody hears of it. When
    /// this fault ends, connections that lost bytes are reset.
    Unanswered,
    /// About one byte in `one_in` is flipped, or a random byte is put before it. The same seed damages the same bytes of
    /// the same connection (counted since the proxy's start) in the same direction.
    Garbage { seed: u64, one_in: u32 },
}

/// A fault and how many were ordered before it.
#[derive(Clone, Debug)]
struct Order {
    number: u64,
    fault: Fault,
}

/// A proxy on 127.0.0.1 to one upstream; it ends, and resets its connections, when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: Port,
    faults: watch::Sender<Order>,
    /// The last order that the listener has acted on.
    applied: watch::Receiver<u64>,
    open: Arc<AtomicUsize>,
    listener: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy that passes everything. It runs on the caller's tokio runtime.
    pub async fn start(upstream: SocketAddr) -> Result<FaultProxy> {
        let port = Port::reserve()?;
        let socket = TcpListener::bind(port.addr()).await.context("failed to open the proxy's port")?;
        let (faults, watched) = watch::channel(Order { number: 0, fault: Fault::Pass });
        let (acted, applied) = watch::channel(0);
        let open = Arc::new(AtomicUsize::new(0));
        let route = Route { upstream, faults: watched, open: open.clone() };
        let listener = tokio::spawn(listen(socket, port.addr(), route, acted));
        Ok(FaultProxy { port, faults, applied, open, listener })
    }

    /// Where clients connect; the same for the proxy's life.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The port of [`FaultProxy::addr`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// The fault in force.
    pub fn fault(&self) -> Fault {
        self.faults.borrow().fault.clone()
    }

    /// Changes the fault, for open connections too. On return it is in force: after [`Fault::Cut`] every connection is
    /// reset and the port is closed; after any other the port is open.
    pub async fn set(&self, fault: Fault) {
        let mut number = 0;
        self.faults.send_modify(|order| {
            number = order.number + 1;
            *order = Order { number, fault };
        });
        let mut applied = self.applied.clone();
        // Fails only when the listener is gone with its runtime; then nothing is in force any more.
        let _ = applied.wait_for(|acted| *acted >= number).await;
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What each connection knows.
#[derive(Clone)]
struct Route {
    upstream: SocketAddr,
    faults: watch::Receiver<Order>,
    open: Arc<AtomicUsize>,
}

/// Accepts connections, or is closed, as the fault says. Every open connection ends with this task.
async fn listen(socket: TcpListener, addr: SocketAddr, route: Route, acted: watch::Sender<u64>) {
    let mut faults = route.faults.clone();
    let mut socket = Some(socket);
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        tokio::select! {
            biased;
            changed = faults.changed() => {
                if changed.is_err() {
                    return;
                }
                let order = faults.borrow_and_update().clone();
                if order.fault == Fault::Cut {
                    socket = None;
                    connections.shutdown().await;
                } else if socket.is_none() {
                    socket = Some(reopen(addr).await);
                }
                acted.send_replace(order.number);
            }
            accepted = accept(socket.as_ref()) => {
                if let Ok(client) = accepted {
                    connections.spawn(carry(client, route.clone(), count));
                    count += 1;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(socket: Option<&TcpListener>) -> io::Result<TcpStream> {
    match socket {
        Some(socket) => Ok(socket.accept().await?.0),
        None => std::future::pending().await,
    }
}

/// Opens the port again. It is reserved, so only the kernel's own delay in closing it can be in the way.
async fn reopen(addr: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(addr).await {
            Ok(socket) => return socket,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Counts a connection for as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Open {
        count.fetch_add(1, Ordering::SeqCst);
        Open(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Carries one connection until either side ends it, or a fault does.
async fn carry(mut client: TcpStream, mut route: Route, number: u64) {
    let _open = Open::new(&route.open);
    // Until a clean end is seen, dropping a socket resets it: this task may be aborted at any await.
    let _ = client.set_zero_linger();
    if route.faults.borrow_and_update().fault == Fault::HalfOpen {
        swallow(client, &mut route.faults).await;
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(route.upstream).await else { return };
    for socket in [&client, &upstream] {
        let _ = socket.set_zero_linger();
        let _ = socket.set_nodelay(true);
    }
    // Borrowed halves: owned ones would say a polite goodbye when dropped, before the reset.
    let (from_client, to_client) = client.split();
    let (from_upstream, to_upstream) = upstream.split();
    // A pump that fails ends the connection; one that reaches its end lets the other finish.
    let both = tokio::try_join!(
        pump(from_client, to_upstream, route.faults.clone(), Stream { number, answers: false }),
        pump(from_upstream, to_client, route.faults, Stream { number, answers: true }),
    );
    if both.is_ok() {
        end_cleanly(&client);
        end_cleanly(&upstream);
    }
}

/// Lets the kernel deliver what it still holds when the socket is dropped.
fn end_cleanly(socket: &TcpStream) {
    #[expect(deprecated, reason = "it warns of waits that block on close; this one turns them off")]
    let _ = socket.set_linger(None);
}

/// Reads a client's bytes for as long as the connection is half open.
async fn swallow(mut client: TcpStream, faults: &mut watch::Receiver<Order>) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        tokio::select! {
            changed = faults.changed() => {
                if changed.is_err() || faults.borrow_and_update().fault != Fault::HalfOpen {
                    return;
                }
            }
            read = client.read(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Copy)]
struct Stream {
    /// The connection, counted since the proxy's start.
    number: u64,
    /// From upstream to the client.
    answers: bool,
}

impl Stream {
    /// Whether what is sent vanishes under this fault.
    fn is_lost(self, fault: &Fault) -> bool {
        *fault == Fault::HalfOpen || *fault == Fault::Unanswered && self.answers
    }

    /// A number of its own.
    fn seed(self) -> u64 {
        self.number * 2 + u64::from(self.answers)
    }
}

/// Bytes under way, and when they are due.
type Chunk = (Instant, Vec<u8>);

/// Moves bytes one way. Fails when the connection must be reset.
async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    faults: watch::Receiver<Order>,
    stream: Stream,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT_MAX);
    tokio::try_join!(take(from, sender, faults, stream), give(receiver, to)).map(|_| ())
}

/// Reads chunks and decides what becomes of each. Ends well at the end of the stream.
async fn take(
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<Chunk>,
    mut faults: watch::Receiver<Order>,
    stream: Stream,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    let mut damage: Option<Damage> = None;
    let mut lost = false;
    loop {
        let fault = faults.borrow_and_update().fault.clone();
        if lost && !stream.is_lost(&fault) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let bytes_max = match fault {
            Fault::Bandwidth(rate) => ((rate / CHUNKS_PER_SECOND) as usize).clamp(1, CHUNK_BYTES_MAX),
            _ => CHUNK_BYTES_MAX,
        };
        let length = tokio::select! {
            // A new fault holds for every byte sent after it was set.
            biased;
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            },
            read = from.read(&mut buffer[..bytes_max]) => read?,
        };
        if length == 0 {
            // Behind a half-open network nobody hears of the end.
            while stream.is_lost(&faults.borrow_and_update().fault) {
                faults.changed().await.map_err(|_| io::ErrorKind::ConnectionReset)?;
                lost = true;
            }
            return if lost { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
        }
        let now = Instant::now();
        let bytes = &buffer[..length];
        let chunk = match fault {
            Fault::Pass | Fault::Cut => (now, bytes.to_vec()),
            Fault::Latency(delay) => (now + delay, bytes.to_vec()),
            Fault::Bandwidth(rate) => {
                sleep(Duration::from_secs_f64(length as f64 / rate.max(1) as f64)).await;
                (now, bytes.to_vec())
            }
            Fault::HalfOpen | Fault::Unanswered if stream.is_lost(&fault) => {
                lost = true;
                continue;
            }
            Fault::HalfOpen | Fault::Unanswered => (now, bytes.to_vec()),
            Fault::Garbage { seed, one_in } => {
                let damage = match &mut damage {
                    Some(damage) if damage.seed == seed => damage,
                    other => other.insert(Damage::new(seed, stream.seed())),
                };
                (now, damage.apply(bytes, one_in))
            }
        };
        // Fails when the other side is gone, which `give` reports.
        if sender.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

/// Writes chunks when they are due, and then the end of the stream.
async fn give(mut receiver: mpsc::Receiver<Chunk>, mut to: WriteHalf<'_>) -> io::Result<()> {
    while let Some((due, bytes)) = receiver.recv().await {
        sleep_until(due).await;
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}

/// A seeded source of damage (the generator is SplitMix64).
struct Damage {
    seed: u64,
    state: u64,
}

impl Damage {
    fn new(seed: u64, stream: u64) -> Damage {
        Damage { seed, state: seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn apply(&mut self, bytes: &[u8], one_in: u32) -> Vec<u8> {
        let mut damaged = Vec::with_capacity(bytes.len() + bytes.len() / one_in.max(1) as usize + 1);
        for &byte in bytes {
            let word = self.next();
            if !(word >> 32).is_multiple_of(u64::from(one_in.max(1))) {
                damaged.push(byte);
            } else if word & 1 == 0 {
                // At least one bit differs.
                damaged.push(byte ^ ((word >> 8) as u8 | 1));
            } else {
                damaged.extend([(word >> 8) as u8, byte]);
            }
        }
        damaged
    }
}
