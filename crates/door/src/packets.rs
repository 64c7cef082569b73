//! Packets over a socket: one whole payload in, payloads out through a buffer of a bounded size.

use crate::error::SqlError;
use mysql::protocol::{
    Capabilities, HEADER_BYTES, PAYLOAD_MAX, Status, error_packet, payload_bytes, put_integer,
};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::io::{ReadHalf, WriteHalf};

/// The largest payload of a client: a statement, or the values of one.
pub const CLIENT_PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// The largest one before it has proved who it is: names, a token, and attributes.
pub const LOGIN_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// What is written goes to the socket when it is as much.
const OUT_BYTES: usize = 32 * 1024;
/// How long a client may let rows lie.
const WRITE_WAIT: Duration = Duration::from_secs(60);

/// A socket, clear or by TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What a client sends.
pub type Reader = BufReader<ReadHalf<Box<dyn Stream>>>;

/// Both directions of one client.
pub struct Packets {
    reader: Reader,
    writer: WriteHalf<Box<dyn Stream>>,
    out: Vec<u8>,
    /// Of the next packet.
    sequence: u8,
    payload_bytes_max: usize,
    pub capabilities: Capabilities,
}

impl Packets {
    /// Of a client that has proved nothing yet. `sequence`: of the next packet.
    pub fn new(stream: Box<dyn Stream>, sequence: u8) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        // A statement is mostly one small packet.
        let reader = BufReader::with_capacity(4096, reader);
        Self {
            reader,
            writer,
            out: Vec::new(),
            sequence,
            payload_bytes_max: LOGIN_PAYLOAD_BYTES_MAX,
            capabilities: Capabilities(0),
        }
    }

    /// The client was let in: it may send statements.
    pub fn let_in(&mut self) {
        self.payload_bytes_max = CLIENT_PAYLOAD_BYTES_MAX;
    }

    /// The next command's payload; `None` where the client has gone.
    ///
    /// # Errors
    /// `InvalidData` where it is too large, or numbered wrongly.
    pub async fn command(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.sequence = 0;
        if self.reader.fill_buf().await?.is_empty() {
            return Ok(None);
        }
        self.read().await.map(Some)
    }

    /// Returns when the client has gone, and never while it waits for its answer.
    pub async fn gone(reader: &mut Reader) {
        match reader.fill_buf().await {
            Ok([]) | Err(_) => {}
            // It sends ahead: it is still there, and more cannot be known.
            Ok(_) => std::future::pending().await,
        }
    }

    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// The next payload of an exchange.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        read(&mut self.reader, &mut self.sequence, self.payload_bytes_max).await
    }

    /// One payload of any length.
    pub async fn put(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut rest = payload;
        loop {
            let (now, later) = rest.split_at(rest.len().min(PAYLOAD_MAX));
            let length = now.len().to_le_bytes();
            self.out.extend_from_slice(&[length[0], length[1], length[2], self.sequence]);
            self.sequence = self.sequence.wrapping_add(1);
            self.out.extend_from_slice(now);
            if now.len() < PAYLOAD_MAX {
                break;
            }
            rest = later;
        }
        if self.out.len() >= OUT_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Whether all that was put has gone to the socket.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        let written = async {
            self.writer.write_all(&self.out).await?;
            self.writer.flush().await
        };
        tokio::time::timeout(WRITE_WAIT, written)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))?;
        self.out.clear();
        // A long text does not stay for the life of the connection.
        self.out.shrink_to(OUT_BYTES * 2);
        Ok(())
    }

    pub async fn ok(&mut self, status: Status) -> io::Result<()> {
        let status = status.0.to_le_bytes();
        self.put(&[0, 0, 0, status[0], status[1], 0, 0]).await
    }

    pub async fn error(&mut self, error: &SqlError) -> io::Result<()> {
        let whole = error_packet(1, error.number, error.state(), &bounded(&error.message));
        self.put(&whole[HEADER_BYTES..]).await
    }

    /// The end of rows, or of definitions where `late` is false and the client still wants one.
    pub async fn end(&mut self, status: Status, late: bool) -> io::Result<()> {
        let bits = status.0.to_le_bytes();
        match (self.capabilities.has(Capabilities::DEPRECATE_EOF), late) {
            (true, true) => {
                let mut payload = vec![0xfe];
                put_integer(&mut payload, 0);
                put_integer(&mut payload, 0);
                payload.extend_from_slice(&[bits[0], bits[1], 0, 0]);
                self.put(&payload).await
            }
            (true, false) => Ok(()),
            (false, _) => self.put(&[0xfe, 0, 0, bits[0], bits[1]]).await,
        }
    }
}

/// MySQL's own messages are no longer.
fn bounded(message: &str) -> String {
    const MESSAGE_CHARS_MAX: usize = 500;
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// One whole payload.
///
/// # Errors
/// `FileTooLarge` where it has more than `most` bytes, `InvalidData` where it is numbered wrongly.
pub async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    sequence: &mut u8,
    most: usize,
) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    reader.read_exact(&mut header).await?;
    if header[3] != *sequence {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "Got packets out of order"));
    }
    *sequence = sequence.wrapping_add(1);
    let length = payload_bytes(&header);
    if length > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "Got a packet bigger than 'max_allowed_packet' bytes",
        ));
    }
    // Grows with what comes, not with what is announced.
    let mut payload = Vec::with_capacity(length.min(16 * 1024));
    reader.take(length as u64).read_to_end(&mut payload).await?;
    if payload.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a payload of so many bytes is taken, of which none comes.
    async fn heard(let_in: bool, bytes: usize) -> io::ErrorKind {
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut packets = Packets::new(Box::new(stream), 1);
        if let_in {
            packets.let_in();
        }
        let length = bytes.to_le_bytes();
        peer.write_all(&[length[0], length[1], length[2], 1]).await.unwrap();
        drop(peer);
        packets.read().await.unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_stranger_may_send_less_than_a_client() {
        for (let_in, most) in [(false, LOGIN_PAYLOAD_BYTES_MAX), (true, CLIENT_PAYLOAD_BYTES_MAX)] {
            assert_eq!(heard(let_in, most).await, io::ErrorKind::UnexpectedEof);
            assert_eq!(heard(let_in, most + 1).await, io::ErrorKind::FileTooLarge);
        }
    }
}
