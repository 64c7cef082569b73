//! A connection with the bytes that have come and are not consumed yet. An idle one holds no buffer.
//!
//! ```text
//! packets ─ [compression] ─ [TLS] ─ socket
//! ```
//! Both layers in brackets are absent or there, and those above need not know which.

use crate::buffers::{Counted, Lease, leased_bytes};
use crate::frames::{Compressed, Frames};
use mysql::protocol::{HEADER_BYTES, PAYLOAD_MAX, is_proxy_header, payload_bytes};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use thiserror::Error;
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

/// What came in a login's place, as the cause of an error of reading.
#[derive(Debug, Error)]
#[error("a PROXY header in place of a packet")]
pub struct ProxyHeaderCame;

/// A connection that is in the midst of something.
#[derive(Debug)]
pub struct Unfinished;

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
    frames: Option<Box<Frames>>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { io: Io::Plain(stream), lease: None, start: 0, end: 0, frames: None }
    }

    /// Packets go in compressed frames from here on, in both directions. While all buffers together have more than
    /// `memory_max` bytes, a frame that wants much memory for itself ends the connection.
    ///
    /// # Errors
    /// `InvalidData` when bytes are held that would be the first frame's.
    pub fn compress(&mut self, agreed: Compressed, memory_max: usize) -> io::Result<()> {
        if !self.held().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes before compression begins"));
        }
        self.frames = Some(Box::new(Frames::new(agreed, memory_max)));
        Ok(())
    }

    pub fn is_compressed(&self) -> bool {
        self.frames.is_some()
    }

    /// What [`Self::compress`] needs for going on with this connection elsewhere, beside what is held; nothing where it is not
    /// compressed.
    ///
    /// # Errors
    /// While a part of a frame or of a packet is still to come.
    pub fn compressed(&self) -> Result<Option<Compressed>, Unfinished> {
        self.frames.as_ref().map(|frames| frames.state().ok_or(Unfinished)).transpose()
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

    /// The host that the client's TLS asked for.
    pub fn server_name(&self) -> Option<&str> {
        match &self.io {
            Io::Tls(stream) => match &**stream {
                TlsStream::Server(stream) => stream.get_ref().1.server_name(),
                TlsStream::Client(_) => None,
            },
            Io::Plain(_) | Io::Gone => None,
        }
    }

    /// Bytes that have come and are not consumed.
    pub fn held(&self) -> &[u8] {
        self.lease.as_deref().map_or(&[], |lease| &lease[self.start..self.end])
    }

    /// Whether no more than what is held fits until some is consumed.
    pub fn is_full(&self) -> bool {
        self.lease.as_deref().is_some_and(|lease| self.end - self.start == lease.len())
    }

    /// Lets `bytes` be held at once, until all that is held is consumed.
    pub fn make_room(&mut self, bytes: usize) {
        if self.lease.as_deref().is_some_and(|lease| lease.len() >= bytes) {
            return;
        }
        let mut lease = Lease::large(bytes);
        let held = self.held();
        lease[..held.len()].copy_from_slice(held);
        (self.start, self.end) = (0, held.len());
        self.lease = Some(lease);
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
        let read = match &mut self.frames {
            None => poll_read(&mut self.io, cx, &mut lease[self.end..]),
            Some(frames) => poll_unpack(&mut self.io, frames, cx, &mut lease[self.end..]),
        };
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
        if self.frames.as_ref().is_some_and(|frames| frames.is_holding()) {
            return Poll::Ready(Ok(()));
        }
        match &self.io {
            Io::Plain(stream) => stream.poll_read_ready(cx),
            Io::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    /// Whether the other side has closed the connection, as far as its socket tells without reading.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.frames.as_ref().is_some_and(|frames| frames.is_holding()) {
            return Poll::Ready(false);
        }
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

    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(frames) = &mut self.frames else { return self.io.write_all(bytes).await };
        while !bytes.is_empty() {
            let (numbered, length) = frames.number(bytes);
            let mut rest = &numbered[..length];
            while !rest.is_empty() {
                let (held, frame, length) = frames.pack(rest);
                self.io.write_all(&frame[..length]).await?;
                rest = &rest[held..];
            }
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// A result has been sent, and another follows.
    pub fn end_result(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.numbers.end_result();
        }
    }

    /// What the client sends, or the server is sent, from here on is a file's, or commands again.
    pub fn file(&mut self, file: bool) {
        if let Some(frames) = &mut self.frames {
            frames.numbers.file(file);
        }
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
        self.read_packet_within(LOGIN_BYTES_MAX, usize::MAX).await
    }

    /// The same of one who is not known yet, `longest` bytes at most, while all buffers together have less than `memory_max`.
    ///
    /// # Errors
    /// `OutOfMemory` as well.
    pub async fn read_packet_within(
        &mut self,
        longest: usize,
        memory_max: usize,
    ) -> io::Result<(u8, Vec<u8>)> {
        let header = self.read_exact(HEADER_BYTES, memory_max).await?;
        let length = payload_bytes(&header);
        if is_proxy_header([header[0], header[1], header[2], header[3]]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, ProxyHeaderCame));
        }
        if length > longest || length == PAYLOAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a login's packet is too long"));
        }
        Ok((header[3], self.read_exact(length, memory_max).await?))
    }

    /// So that what comes behind is TLS's, not more is read than asked for. What was only announced takes no memory.
    async fn read_exact(&mut self, bytes: usize, memory_max: usize) -> io::Result<Vec<u8>> {
        use tokio::io::AsyncReadExt;
        const STEP: usize = 4 * 1024;
        if self.frames.is_some() {
            return self.read_unpacked(bytes).await;
        }
        let held = self.held().len().min(bytes);
        let mut out = self.held()[..held].to_vec();
        self.consume(held);
        let mut counted = Counted::default();
        while out.len() < bytes {
            let from = out.len();
            let to = bytes.min(from + STEP);
            if to > STEP {
                counted.set(to);
                if leased_bytes() > memory_max {
                    let reason = "a long login wants more memory than there is";
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, reason));
                }
            }
            out.resize(to, 0);
            match &mut self.io {
                Io::Plain(stream) => stream.read_exact(&mut out[from..]).await?,
                Io::Tls(stream) => stream.read_exact(&mut out[from..]).await?,
                Io::Gone => return Err(gone()),
            };
        }
        Ok(out)
    }

    async fn read_unpacked(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < bytes {
            let some = self.held().len().min(bytes - out.len());
            out.extend_from_slice(&self.held()[..some]);
            self.consume(some);
            if out.len() < bytes && self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
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
        if !self.held().is_empty() || self.is_compressed() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes before TLS begins"));
        }
        let Io::Plain(stream) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS within TLS"));
        };
        self.io = Io::Tls(Box::new(handshake(stream).await?));
        Ok(())
    }
}

fn poll_read(io: &mut Io, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(room);
    io.poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
}

/// The same for frames: those that hold nothing are passed over.
fn poll_unpack(
    io: &mut Io,
    frames: &mut Frames,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        let unpacked = frames.unpack(room)?;
        if unpacked > 0 {
            return Poll::Ready(Ok(unpacked));
        }
        let came = poll_read(io, cx, frames.room());
        frames.came(if let Poll::Ready(Ok(bytes)) = came { bytes } else { 0 });
        if ready!(came)? == 0 {
            return Poll::Ready(Ok(0));
        }
    }
}
