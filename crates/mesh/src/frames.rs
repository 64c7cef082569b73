//! The layer of compression between a socket and a [`crate::wire::Wire`]: frames as they come, and their bytes.

use crate::buffers::{Counted, Lease, leased_bytes};
use mysql::protocol::{Compression, FrameReader, Packer, PacketNumbers};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// A decoder that takes more has been told to by its frame: zlib's never, zstd's where the window is wide.
const WIDE_BYTES: usize = 1024 * 1024;

/// Bytes of frames, in both directions of both legs, and what they held.
static WIRE_BYTES: AtomicU64 = AtomicU64::new(0);
static PLAIN_BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// A frame is packed in one go, so one packer serves every session of a thread.
    static PACKER: RefCell<Packer> = RefCell::default();
}

/// What two ends have agreed on, and where they are: all that a connection's compression is between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compressed {
    #[serde(with = "Way")]
    pub compression: Compression,
    /// Of zstd, for what we send.
    pub level: u8,
    /// The number of the next frame.
    pub sequence: u8,
    /// The other side is a client.
    pub client: bool,
}

/// How it is written down for another process.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Compression", rename_all = "snake_case")]
enum Way {
    Zlib,
    Zstd,
}

impl Compressed {
    /// As it begins behind a client's login.
    pub fn with_client(compression: Compression, level: u8) -> Self {
        Self { compression, level, sequence: 0, client: true }
    }

    /// As it begins behind our own login at a server.
    pub fn with_server(compression: Compression, level: u8) -> Self {
        Self { compression, level, sequence: 0, client: false }
    }
}

/// The frames of one connection. An idle one holds no buffer.
#[derive(Debug)]
pub struct Frames {
    reader: FrameReader,
    agreed: Compressed,
    pub numbers: PacketNumbers,
    raw: Option<Lease>,
    start: usize,
    end: usize,
    decoder: Counted,
    memory_max: usize,
}

impl Frames {
    /// While all buffers together have more than `memory_max` bytes, no frame may ask for a wide window.
    pub fn new(agreed: Compressed, memory_max: usize) -> Self {
        let reader = FrameReader::new(agreed.compression, agreed.sequence);
        Self {
            reader: if agreed.client { reader } else { reader.lenient() },
            agreed,
            numbers: PacketNumbers::new(agreed.client),
            raw: None,
            start: 0,
            end: 0,
            decoder: Counted::default(),
            memory_max,
        }
    }

    /// What another process would need to go on with it; `None` in the midst of a frame or a packet.
    pub fn state(&self) -> Option<Compressed> {
        let idle = self.raw.is_none() && self.reader.is_between_frames() && self.numbers.is_between_packets();
        idle.then(|| Compressed { sequence: self.reader.sequence(), ..self.agreed })
    }

    /// Whether something has come that is not unpacked, or may have.
    pub fn is_holding(&self) -> bool {
        self.end > self.start || !self.reader.is_between_frames()
    }

    /// Room for more of what comes.
    pub fn room(&mut self) -> &mut [u8] {
        let raw = self.raw.get_or_insert_with(Lease::take);
        if self.end == raw.len() {
            raw.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut raw[self.end..]
    }

    /// So many bytes have come into the room.
    pub fn came(&mut self, bytes: usize) {
        self.end += bytes;
        self.let_go();
    }

    /// Unpacks what has come into `output`; 0 where more has to come first.
    ///
    /// # Errors
    /// `InvalidData` for frames that break the rules.
    pub fn unpack(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let raw = self.raw.as_deref().map_or(&[][..], |raw| &raw[self.start..self.end]);
        let (read, written) = self
            .reader
            .advance(raw, output)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        count(read, written);
        self.numbers.came(&mut output[..written]);
        self.start += read;
        self.let_go();
        let memory = self.reader.memory();
        self.decoder.set(memory);
        if memory > WIDE_BYTES && leased_bytes() > self.memory_max {
            let reason = "a frame of zstd wants more memory than there is";
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, reason));
        }
        Ok(written)
    }

    fn let_go(&mut self) {
        if self.start == self.end {
            self.raw = None;
            (self.start, self.end) = (0, 0);
        }
    }

    /// As much of `bytes` as a buffer holds, its packets numbered for the next frame: what [`Self::pack`] takes.
    pub fn number(&mut self, bytes: &[u8]) -> (Lease, usize) {
        let mut numbered = Lease::take();
        let mut length = bytes.len().min(numbered.len());
        if let Some((begin, end)) = self.numbers.command_in(&bytes[..length]) {
            // A command begins a frame, and the frames' numbers anew.
            if begin == 0 {
                self.reader.begin_command();
                self.numbers.begin_command();
            }
            length = if begin == 0 { end } else { begin };
        }
        numbered[..length].copy_from_slice(&bytes[..length]);
        self.numbers.goes(&mut numbered[..length], self.reader.sequence());
        (numbered, length)
    }

    /// Packs the front of `bytes` into one frame: how many bytes it holds, the frame, and its length.
    pub fn pack(&mut self, bytes: &[u8]) -> (usize, Lease, usize) {
        let mut frame = Lease::take();
        let sequence = self.reader.take_sequence();
        let level = (self.agreed.compression, self.agreed.level);
        let (held, length) = PACKER.with_borrow_mut(|packer| packer.pack(level, sequence, bytes, &mut frame));
        count(length, held);
        (held, frame, length)
    }
}

fn count(wire: usize, plain: usize) {
    WIRE_BYTES.fetch_add(wire as u64, Ordering::Relaxed);
    PLAIN_BYTES.fetch_add(plain as u64, Ordering::Relaxed);
}

/// Bytes of all frames so far, and what they held.
pub fn passed_bytes() -> (u64, u64) {
    (WIRE_BYTES.load(Ordering::Relaxed), PLAIN_BYTES.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of 16 MB, which zstd packs into a few hundred bytes.
    fn wide() -> Vec<u8> {
        let plain = vec![b'x'; 0xff_ffff];
        let mut out = vec![0; 64 * 1024];
        let (held, length) = Packer::default().pack((Compression::Zstd, 9), 0, &plain, &mut out);
        assert!(held == plain.len() && length < 10_000);
        out.truncate(length);
        out
    }

    #[test]
    fn a_wide_window_is_let_be_only_while_there_is_memory() {
        let bytes = wide();
        for (memory_max, fits) in [(1 << 30, true), (2 << 20, false)] {
            let mut frames = Frames::new(Compressed::with_client(Compression::Zstd, 3), memory_max);
            frames.room()[..bytes.len()].copy_from_slice(&bytes);
            frames.came(bytes.len());
            let (mut output, mut written) = (vec![0; 16 * 1024], 0);
            let end = loop {
                match frames.unpack(&mut output) {
                    Ok(0) => break Ok(()),
                    Ok(bytes) => written += bytes,
                    Err(error) => break Err(error.kind()),
                }
            };
            if fits {
                assert_eq!((end, written), (Ok(()), 0xff_ffff));
                assert!(!frames.is_holding());
            } else {
                assert_eq!(end, Err(io::ErrorKind::OutOfMemory));
                assert!(frames.state().is_none());
            }
        }
    }
}
