//! The HTTP port: HTTP/1.1 and HTTP/2 on one socket, clear or by TLS, and bounds on what a client can hold by being slow.
//!
//! A client costs a place among [`connections_max`]. It loses the place when it says nothing for a while: before its first
//! request, between two, or in the midst of a head. An answer that goes on for long, such as a stream of changes, keeps it.

mod tls;

pub use tls::{Tls, TlsConfig, certificates};

use crate::auth::Peer;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service as _;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Clients at once, 10,000 idle devices among them; more wait in the system's queue. Fewer where the process may not have so many
/// files.
const CONNECTIONS_MAX: usize = 16_384;
/// Of the files that the process may have, one in as many is not for clients: sources, sinks and journals need theirs.
const FILES_KEPT_OF: usize = 4;
/// From the first byte of TLS to the last of its handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// From a connection's beginning to the end of its first head, and from the first byte of a head to its last.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Between two requests on one connection.
const IDLE_WAIT: Duration = Duration::from_secs(120);
/// A connection that was told to end has as long to do so.
const END_WAIT: Duration = Duration::from_secs(5);
/// A client of HTTP/2 is asked as often whether it is there, and has as long to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(20);
/// When the system asks a client that says nothing whether it is there, how often, and how many times in vain. A client that
/// lost its power says nothing, and would keep its place for ever.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
const PROBES_MAX: u32 = 3;
/// What was sent must be taken by the other end's system in this time.
const UNTAKEN_WAIT: Duration = Duration::from_secs(120);
/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 256;
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: u32 = 16 << 10;
const HEADERS_MAX: usize = 64;
/// What a client may send ahead: on one stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What waits for a client of HTTP/2 that does not read, for each stream.
const SEND_BYTES_MAX: usize = 256 << 10;
/// The most that a head and what follows it may fill of memory in HTTP/1.1.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// When the system has no file for another client, it is asked again after as long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, and then until every answer at hand has ended.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(connections_max()));
    let mut connections = JoinSet::new();
    let stopping = stop.clone();
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => break (stream, peer, place),
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let (stream, peer, place) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            // Those that have ended are let go of.
            Some(_) = connections.join_next() => {
                metrics::gauge!(base::metrics::NODE_CONNECTIONS).set(connections.len() as f64);
                continue;
            }
            next = next => next,
        };
        let (tls, router, stop) = (tls.clone(), router.clone(), stopping.clone());
        metrics::gauge!(base::metrics::NODE_CONNECTIONS).set(connections.len() as f64 + 1.0);
        connections.spawn(async move {
            let _place = place;
            connection(stream, peer, tls, router, stop).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    prepare(&stream);
    let Some(tls) = tls else { return talk(TokioIo::new(stream), peer, router, stop).await };
    let mut stopped = stop.clone();
    let handshake = tokio::time::timeout(HANDSHAKE_WAIT, tls.accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = stopped.wait_for(|stop| *stop) => return,
    };
    match shaken {
        Ok(Ok(stream)) => talk(TokioIo::new(stream), peer, router, stop).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a client's TLS came to nothing"),
        Err(_) => tracing::debug!(%peer, "a client's TLS took too long"),
    }
}

/// Lets the process have as many files as the system lets it ask for: each client is one.
pub fn raise_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a value that outlives them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn connections_max() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call takes a pointer to a value that outlives it.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    let files = if known { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { CONNECTIONS_MAX };
    (files - files / FILES_KEPT_OF).clamp(1, CONNECTIONS_MAX)
}

/// A socket on which none of this can be set serves nevertheless.
fn prepare(stream: &TcpStream) {
    // Answers are small, and a client waits for each.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let probes =
        TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES_MAX);
    let _ = socket.set_tcp_keepalive(&probes);
    let _ = socket.set_tcp_user_timeout(Some(UNTAKEN_WAIT));
}

/// Answers one client's requests.
async fn talk<I>(io: TokioIo<I>, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let busy = Arc::new(Busy::new());
    let (routes, counted) = (TowerToHyperService::new(router), busy.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let at_hand = AtHand::begin(&counted);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        let answer = routes.call(request);
        async move { answer.await.map(|response| held(response, at_hand)) }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut ending = false;
    let mut idle = pin!(busy.idle());
    let mut end = pin!(tokio::time::sleep(END_WAIT));
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, error, "a client's connection broke");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
                // Answers at hand are waited for, however long they take: whoever ends the node bounds that.
                end.as_mut().reset(Instant::now() + Duration::from_secs(3600));
            }
            () = idle.as_mut(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
                end.as_mut().reset(Instant::now() + END_WAIT);
            }
            () = end.as_mut(), if ending => {
                tracing::debug!(%peer, "a client that says nothing is cut off");
                return;
            }
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX);
    builder
}

/// Whether a connection has a request at hand, and since when it has none.
struct Busy(Mutex<(u32, Instant)>);

impl Busy {
    /// The first request must come sooner than later ones.
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now() + HEAD_WAIT)))
    }

    fn change(&self, change: impl FnOnce(&mut (u32, Instant))) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until there has been nothing at hand for too long.
    async fn idle(&self) {
        loop {
            let (at_hand, until) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match at_hand {
                0 if until <= now => return,
                0 => tokio::time::sleep_until(until).await,
                _ => tokio::time::sleep(IDLE_WAIT).await,
            }
        }
    }
}

/// A request at hand, until the last of its answer is given away.
struct AtHand(Arc<Busy>);

impl AtHand {
    fn begin(busy: &Arc<Busy>) -> Self {
        busy.change(|(count, _)| *count += 1);
        Self(busy.clone())
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        self.0.change(|(count, until)| {
            *count -= 1;
            *until = Instant::now() + IDLE_WAIT;
        });
    }
}

fn held(response: Response<Body>, at_hand: AtHand) -> Response<Held> {
    response.map(|body| Held { body, _at_hand: at_hand })
}

/// The body of an answer that is at hand.
struct Held {
    body: Body,
    _at_hand: AtHand,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
