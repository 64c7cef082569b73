//! A receiver of webhooks: a real HTTP server that keeps what it is sent and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::port::Port;

/// Larger than anything a test sends.
const BODY_BYTES_MAX: usize = 256 << 20;

/// One request, and the status that it was answered with, or would have been; 0 when there is none.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: u16,
}

impl Received {
    /// A header's text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    Status(u16, &'static [(&'static str, &'static str)], &'static str),
    /// The connection stays open and nothing comes.
    Never,
    /// The same, but the receiver took the request: with this status, as it would have said.
    Unsaid(u16),
}

type Answerer = Box<dyn FnMut(&Received) -> Reply + Send>;

struct Inner {
    requests: Vec<Received>,
    answer: Answerer,
}

/// A receiver on 127.0.0.1; it ends when dropped.
pub struct Webhook {
    port: Port,
    inner: Arc<Mutex<Inner>>,
    server: JoinHandle<()>,
}

impl Webhook {
    /// Starts a receiver that answers 204 to everything, on the caller's tokio runtime.
    pub async fn start() -> Result<Webhook> {
        let port = Port::reserve()?;
        let answer: Answerer = Box::new(|_| Reply::Status(204, &[], ""));
        let inner = Arc::new(Mutex::new(Inner { requests: Vec::new(), answer }));
        let listener = TcpListener::bind(port.addr()).await.context("failed to open the receiver's port")?;
        let router = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Webhook { port, inner, server })
    }

    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// How requests are answered from now on.
    pub fn answer(&self, answer: impl FnMut(&Received) -> Reply + Send + 'static) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).answer = Box::new(answer);
    }

    /// All requests, in the order they came.
    pub fn requests(&self) -> Vec<Received> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = {
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut received = Received { method, uri, headers, body, status: 0 };
        let reply = (inner.answer)(&received);
        if let Reply::Status(status, ..) | Reply::Unsaid(status) = reply {
            received.status = status;
        }
        inner.requests.push(received);
        reply
    };
    match reply {
        Reply::Never | Reply::Unsaid(_) => std::future::pending().await,
        Reply::Status(status, headers, body) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().expect("a test's header is well formed"));
            }
            response
        }
    }
}
