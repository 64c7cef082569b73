//! A connection with the bytes that have come and are not consumed yet. An idle one holds no buffer.

use crate::buffers::Lease;
use mysql::protocol::{HEADER_BYTES, PAYLOAD_MAX, payload_bytes};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A packet that is read whole, at logins, is no longer than this: the attributes of a connection may have 64 KiB.
pub const LOGIN_BYTES_MAX: usize = 128 * 1024;

/// A peer that is gone without a word, as when its machine lost power, is found out after this and nine seconds more.
const ALIVE_AFTER: Duration = Duration::from_secs(15);
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Sends small packets at once, and asks the other side from time to time whether it is still there.
pub fn prepare_socket(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let alive = TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_EVERY);
    SockRef::from(stream).set_tcp_keepalive(&alive)
}

/// Plain or within TLS.
#[derive(Debug)]
pub enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// In between, while a connection changes to TLS; never read or written.
    Gone,
}

impl Io {
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Gone => Err(gone()),
        }
    }

    async fn shutdown(&mut self) {
        let _ = match self {
            Self::Plain(stream) => Pin::new(stream).shutdown().await,
            Self::Tls(stream) => Pin::new(stream).shutdown().await,
            Self::Gone => Ok(()),
        };
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection changes to TLS")
}

/// One side of a session.
#[derive(Debug)]
pub struct Wire {
    io: Io,
    lease: Option<Lease>,
    start: usize,
    end: usize,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { io: Io::Plain(stream), lease: None, start: 0, end: 0 }
    }

    /// A connection that another process had.
    ///
    /// # Errors
    /// When it is none that this thread can wait for.
    pub fn of(descriptor: OwnedFd) -> io::Result<Self> {
        let stream = std::net::TcpStream::from(descriptor);
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream).map(Self::new)
    }

    /// The same connection for another process; `None` within TLS, whose keys are this one's alone.
    pub fn descriptor(&self) -> Option<OwnedFd> {
        match &self.io {
            Io::Plain(stream) => stream.as_fd().try_clone_to_owned().ok(),
            Io::Tls(_) | Io::Gone => None,
        }
    }

    /// Bytes that came before, for a connection that holds none.
    pub fn hold(&mut self, bytes: &[u8]) {
        debug_assert!(self.held().is_empty(), "what is held would come later than these");
        let mut lease = Lease::take();
        let bytes = &bytes[..bytes.len().min(lease.len())];
        lease[..bytes.len()].copy_from_slice(bytes);
        self.lease = (!bytes.is_empty()).then_some(lease);
        (self.start, self.end) = (0, bytes.len());
    }

    pub fn is_tls(&self) -> bool {
        self.io.is_tls()
    }

    /// Bytes that have come and are not consumed.
    pub fn held(&self) -> &[u8] {
        self.lease.as_deref().map_or(&[], |lease| &lease[self.start..self.end])
    }

    /// Whether no more than what is held fits until some is consumed.
    pub fn is_full(&self) -> bool {
        self.lease.as_deref().is_some_and(|lease| self.end - self.start == lease.len())
    }

    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start, "only what is held can be consumed");
        self.start += bytes;
        if self.start == self.end {
            self.lease = None;
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads what has come; 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut lease = self.lease.take().unwrap_or_else(Lease::take);
        if self.start > 0 && self.end == lease.len() {
            lease.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == lease.len() {
            self.lease = Some(lease);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, "the buffer is full")));
        }
        let mut buffer = ReadBuf::new(&mut lease[self.end..]);
        let read = self.io.poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len());
        if let Poll::Ready(Ok(bytes)) = read {
            self.end += bytes;
        }
        if self.end > self.start {
            self.lease = Some(lease);
        }
        read
    }

    /// Waits for bytes; 0 at the end of the stream.
    pub async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Whether bytes or the end of the stream wait; nothing is consumed. A hint: with TLS the bytes may be no data.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.io {
            Io::Plain(stream) => stream.poll_read_ready(cx),
            Io::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    /// Whether the other side has closed the connection, as far as its socket tells without reading.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let stream = match &self.io {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.get_ref().0,
            Io::Gone => return Poll::Ready(true),
        };
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let peeked = ready!(stream.poll_peek(cx, &mut buffer));
        Poll::Ready(!matches!(peeked, Ok(bytes) if bytes > 0))
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// Says that nothing more will be written.
    pub async fn shutdown(&mut self) {
        self.io.shutdown().await;
    }

    /// Reads one whole packet, for logins: its sequence number and its payload. Nothing behind it is read.
    ///
    /// # Errors
    /// `InvalidData` for one that is longer than [`LOGIN_BYTES_MAX`], `UnexpectedEof` where the stream ends.
    pub async fn read_packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let header = self.read_exact(HEADER_BYTES).await?;
        let length = payload_bytes(&header);
        if length > LOGIN_BYTES_MAX || length == PAYLOAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a login's packet is too long"));
        }
        Ok((header[3], self.read_exact(length).await?))
    }

    /// So that what comes behind is TLS's, not more is read than asked for.
    async fn read_exact(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        use tokio::io::AsyncReadExt;
        let held = self.held().len().min(bytes);
        let mut out = self.held()[..held].to_vec();
        self.consume(held);
        out.resize(bytes, 0);
        match &mut self.io {
            Io::Plain(stream) => stream.read_exact(&mut out[held..]).await?,
            Io::Tls(stream) => stream.read_exact(&mut out[held..]).await?,
            Io::Gone => return Err(gone()),
        };
        Ok(out)
    }

    /// Changes to TLS by `handshake`, which gets the plain socket.
    ///
    /// # Errors
    /// Those of the handshake; `InvalidData` when bytes are held that would be the handshake's.
    pub async fn start_tls<F, T>(&mut self, handshake: F) -> io::Result<()>
    where
        F: FnOnce(TcpStream) -> T,
        T: Future<Output = io::Result<TlsStream<TcpStream>>>,
    {
        if !self.held().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes before TLS begins"));
        }
        let Io::Plain(stream) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS within TLS"));
        };
        self.io = Io::Tls(Box::new(handshake(stream).await?));
        Ok(())
    }
}
