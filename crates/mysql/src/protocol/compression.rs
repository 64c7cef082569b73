//! The compressed protocol, which begins behind a login's OK: packets as a stream of bytes, cut into frames.
//!
//! ```text
//! length of the payload (3, little endian) | sequence number (1) | length of what it holds (3; 0: the payload as it is) | payload
//! ```
//! Each payload is a zlib or zstd stream of its own. Frames have sequence numbers of their own: each command begins with 0, and
//! both sides count on. A frame may hold many packets, or a part of one. Facts are from the protocol pages of the MySQL
//! manual.
//!
//! Frames are unpacked as they come, into whatever room there is: one that claims 16 MiB takes no memory for them, and a zstd
//! frame as much as its window needs, which [`FrameReader::memory`] tells.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;
use std::fmt;
use thiserror::Error;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

/// In front of each payload.
pub const FRAME_HEADER_BYTES: usize = 7;
/// What is shorter is not worth it; what servers go by, too.
const PACKED_BYTES_MIN: usize = 50;
/// A frame holds 16 MiB; encoders of Go claim twice as much for their window at most.
const WINDOW_LOG_MAX: u32 = 25;
/// Fast: what is passed on is compressed while other sessions of the thread wait.
const ZLIB_LEVEL: u32 = 1;
/// The level of zstd where none is asked for.
pub const ZSTD_LEVEL: u8 = 3;
/// A client may ask for 22, for answers that take a hundred times as long; it can read a lower level as well.
const ZSTD_LEVEL_MAX: u8 = 9;
/// Decoders that a thread keeps for the next frame, and how large one may be.
const FREE_MAX: usize = 16;
const FREE_BYTES_MAX: usize = 512 * 1024;
/// What a zlib decoder has: a window of 32 KiB, and tables.
const INFLATE_BYTES: usize = 48 * 1024;

/// How payloads are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Zlib,
    Zstd,
}

/// A frame that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the compressed frame {0}")]
pub struct BadFrame(&'static str);

/// Unpacks one side's frames.
#[derive(Debug)]
pub struct FrameReader {
    compression: Compression,
    sequence: u8,
    /// Any number will do.
    lenient: bool,
    open: Option<Open>,
}

/// A frame that has begun.
#[derive(Debug)]
struct Open {
    /// Of the payload.
    left: usize,
    /// Of what it holds.
    plain_left: usize,
    /// Absent where the payload is what it holds.
    unpacker: Option<Unpacker>,
}

impl FrameReader {
    /// `sequence` is the number that the next frame has; 0 where none has come.
    pub fn new(compression: Compression, sequence: u8) -> Self {
        Self { compression, sequence, lenient: false, open: None }
    }

    /// Takes frames of any number, as servers' are when several commands were sent at once.
    pub fn lenient(self) -> Self {
        Self { lenient: true, ..self }
    }

    /// The number of the next frame, whoever sends it.
    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Takes the number of a frame that is sent.
    pub fn take_sequence(&mut self) -> u8 {
        let taken = self.sequence;
        self.sequence = taken.wrapping_add(1);
        taken
    }

    /// The next frame begins a command.
    pub fn begin_command(&mut self) {
        self.sequence = 0;
    }

    /// Whether no frame has begun that has not ended.
    pub fn is_between_frames(&self) -> bool {
        self.open.is_none()
    }

    /// Bytes that the present frame takes until it has ended.
    pub fn memory(&self) -> usize {
        self.open.as_ref().and_then(|open| open.unpacker.as_ref()).map_or(0, Unpacker::memory)
    }

    /// Unpacks from the front of `input` into `output`: how much of each was used. Stops behind a frame that held something,
    /// so that what comes is not read ahead of its number.
    ///
    /// # Errors
    /// When a frame has another number than the next or 0, or does not hold what it says.
    pub fn advance(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), BadFrame> {
        let (mut read, mut written) = (0, 0);
        loop {
            let Some(open) = &mut self.open else {
                let Some(header) = input[read..].first_chunk::<FRAME_HEADER_BYTES>().filter(|_| written == 0)
                else {
                    return Ok((read, written));
                };
                read += FRAME_HEADER_BYTES;
                self.begin(*header)?;
                continue;
            };
            let room = &mut output[written..];
            let (taken, made) = open.advance(&input[read..], room)?;
            read += taken;
            written += made;
            if open.has_ended() {
                if let Some(unpacker) = self.open.take().and_then(|open| open.unpacker) {
                    unpacker.give_back();
                }
            } else if taken == 0 && made == 0 {
                return Ok((read, written));
            }
        }
    }

    fn begin(&mut self, header: [u8; FRAME_HEADER_BYTES]) -> Result<(), BadFrame> {
        let [a, b, c, sequence, x, y, z] = header;
        let length =
            |low, middle, high| usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        let (left, plain) = (length(a, b, c), length(x, y, z));
        if sequence != self.sequence && sequence != 0 && !self.lenient {
            return Err(BadFrame("comes out of order"));
        }
        self.sequence = sequence.wrapping_add(1);
        self.open = Some(match plain {
            0 => Open { left, plain_left: left, unpacker: None },
            _ => Open { left, plain_left: plain, unpacker: Some(Unpacker::take(self.compression)?) },
        });
        Ok(())
    }
}

impl Open {
    fn has_ended(&self) -> bool {
        self.left == 0 && self.plain_left == 0 && self.unpacker.as_ref().is_none_or(|unpacker| unpacker.done)
    }

    fn advance(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), BadFrame> {
        let input = &input[..input.len().min(self.left)];
        let Some(unpacker) = &mut self.unpacker else {
            let bytes = input.len().min(output.len());
            output[..bytes].copy_from_slice(&input[..bytes]);
            self.left -= bytes;
            self.plain_left -= bytes;
            return Ok((bytes, bytes));
        };
        let room = output.len().min(self.plain_left);
        if room == 0 && self.plain_left > 0 || input.is_empty() && self.left > 0 && unpacker.drained {
            return Ok((0, 0));
        }
        // All has come out: what is left is the stream's own end, and one byte more would be too many.
        let mut one = [0];
        let target = if self.plain_left == 0 { &mut one[..] } else { &mut output[..room] };
        let (taken, made) = unpacker.step(input, target)?;
        if self.plain_left == 0 && made > 0 {
            return Err(BadFrame("holds more than it says"));
        }
        self.left -= taken;
        self.plain_left -= made;
        if unpacker.done && self.plain_left > 0 && self.left == 0 {
            return Err(BadFrame("holds less than it says"));
        }
        let ended = self.left == 0 && self.plain_left == 0 && unpacker.done;
        if taken == 0 && made == 0 && !ended {
            // With room, and with all that is to come or more than nothing: it should have gone on.
            if self.left == 0 || !input.is_empty() {
                return Err(BadFrame("ends before its stream does"));
            }
            unpacker.drained = true;
        }
        Ok((taken, made))
    }
}

/// A decoder.
struct Unpacker {
    decoder: Decoder,
    /// The stream has ended.
    done: bool,
    /// It has nothing more without input.
    drained: bool,
}

enum Decoder {
    Zlib(Decompress),
    Zstd(DCtx<'static>),
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("done", &self.done).finish_non_exhaustive()
    }
}

thread_local! {
    static FREE: RefCell<[Vec<Decoder>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

impl Unpacker {
    fn take(compression: Compression) -> Result<Self, BadFrame> {
        let free = FREE.with_borrow_mut(|free| free[compression as usize].pop());
        let decoder = match (free, compression) {
            (Some(decoder), _) => decoder,
            (None, Compression::Zlib) => Decoder::Zlib(Decompress::new(true)),
            (None, Compression::Zstd) => {
                let mut context = DCtx::try_create().ok_or(BadFrame("finds no memory"))?;
                let set = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
                set.map_err(|_| BadFrame("finds no decoder"))?;
                Decoder::Zstd(context)
            }
        };
        Ok(Self { decoder, done: false, drained: false })
    }

    fn give_back(mut self) {
        if self.memory() > FREE_BYTES_MAX {
            return;
        }
        let kind = match &mut self.decoder {
            Decoder::Zlib(decoder) => {
                decoder.reset(true);
                Compression::Zlib
            }
            Decoder::Zstd(context) => {
                if context.reset(ResetDirective::SessionOnly).is_err() {
                    return;
                }
                Compression::Zstd
            }
        };
        // A thread that ends has no list any more: then the decoder just goes.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free[kind as usize].len() < FREE_MAX {
                free[kind as usize].push(self.decoder);
            }
        });
    }

    fn memory(&self) -> usize {
        match &self.decoder {
            Decoder::Zlib(_) => INFLATE_BYTES,
            Decoder::Zstd(context) => context.sizeof(),
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), BadFrame> {
        if self.done && !input.is_empty() && matches!(self.decoder, Decoder::Zlib(_)) {
            return Err(BadFrame("goes on behind the end of its stream"));
        }
        self.drained = false;
        match &mut self.decoder {
            Decoder::Zlib(decoder) => {
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder
                    .decompress(input, output, FlushDecompress::None)
                    .map_err(|_| BadFrame("is no zlib stream"))?;
                self.done = status == Status::StreamEnd;
                Ok((since(decoder.total_in(), before_in), since(decoder.total_out(), before_out)))
            }
            Decoder::Zstd(context) => {
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around(output);
                let left = context
                    .decompress_stream(&mut to, &mut from)
                    .map_err(|_| BadFrame("is no zstd stream, or one with too large a window"))?;
                let (read, written) = (from.pos(), to.pos());
                // Asked without anything to read behind an end, it would wait for another frame.
                if read > 0 || written > 0 || !self.done {
                    self.done = left == 0;
                }
                Ok((read, written))
            }
        }
    }
}

fn since(now: u64, before: u64) -> usize {
    usize::try_from(now - before).unwrap_or(usize::MAX)
}

/// Packs frames; one for a whole thread.
#[derive(Default)]
pub struct Packer {
    zlib: Option<Compress>,
    zstd: Option<CCtx<'static>>,
    level: u8,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// Writes one frame of what `bytes` begin with into `frame`: how many bytes it holds, and how long it is. `level` is zstd's.
    ///
    /// # Panics
    /// When `frame` has no room for a header and a byte.
    pub fn pack(
        &mut self,
        (compression, level): (Compression, u8),
        sequence: u8,
        bytes: &[u8],
        frame: &mut [u8],
    ) -> (usize, usize) {
        let (header, payload) =
            frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>().expect("a frame has room for its header");
        let plain = bytes.len().min(0xff_ffff);
        let packed = if plain < PACKED_BYTES_MIN {
            None
        } else {
            let room = payload.len().min(plain - 1);
            match compression {
                Compression::Zlib => self.deflate(&bytes[..plain], &mut payload[..room]),
                Compression::Zstd => self.squeeze(level, &bytes[..plain], &mut payload[..room]),
            }
        };
        let (held, length, told) = match packed {
            Some(length) => (plain, length, plain),
            None => {
                // As it is; where it does not fit in one frame, in frames of like lengths.
                let frames = plain.div_ceil(payload.len()).max(1);
                let held = plain.div_ceil(frames);
                payload[..held].copy_from_slice(&bytes[..held]);
                (held, held, 0)
            }
        };
        let (length_bytes, told) = (length.to_le_bytes(), told.to_le_bytes());
        header[..3].copy_from_slice(&length_bytes[..3]);
        header[3] = sequence;
        header[4..].copy_from_slice(&told[..3]);
        (held, FRAME_HEADER_BYTES + length)
    }

    fn deflate(&mut self, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
        let zlib = self.zlib.get_or_insert_with(|| Compress::new(flate2::Compression::new(ZLIB_LEVEL), true));
        zlib.reset();
        let status = zlib.compress(bytes, out, FlushCompress::Finish).ok()?;
        (status == Status::StreamEnd).then(|| since(zlib.total_out(), 0))
    }

    fn squeeze(&mut self, level: u8, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
        let level = if level == 0 { ZSTD_LEVEL } else { level.min(ZSTD_LEVEL_MAX) };
        if self.zstd.is_none() {
            self.zstd = CCtx::try_create();
            self.level = 0;
        }
        let context = self.zstd.as_mut()?;
        if self.level != level {
            context.set_parameter(CParameter::CompressionLevel(i32::from(level))).ok()?;
            self.level = level;
        }
        context.compress2(out, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const BOTH: [Compression; 2] = [Compression::Zlib, Compression::Zstd];

    /// The payload of another implementation's.
    fn packed(compression: Compression, level: i32, plain: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::stream::encode_all(plain, level).unwrap(),
        }
    }

    fn frame(sequence: u8, payload: &[u8], plain: usize) -> Vec<u8> {
        let (length, plain) = (payload.len().to_le_bytes(), plain.to_le_bytes());
        [&length[..3], &[sequence], &plain[..3], payload].concat()
    }

    /// All that comes out, in pieces of `piece` bytes and with `room` at a time.
    fn unpack(
        compression: Compression,
        bytes: &[u8],
        piece: usize,
        room: usize,
    ) -> Result<Vec<u8>, BadFrame> {
        let mut reader = FrameReader::new(compression, 0);
        let (mut out, mut held) = (Vec::new(), Vec::new());
        for part in bytes.chunks(piece.max(1)) {
            held.extend_from_slice(part);
            loop {
                let mut output = vec![0; room];
                let (read, written) = reader.advance(&held, &mut output)?;
                held.drain(..read);
                out.extend_from_slice(&output[..written]);
                if read == 0 && written == 0 {
                    break;
                }
            }
        }
        if held.is_empty() && reader.is_between_frames() { Ok(out) } else { Err(BadFrame("is cut")) }
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"insert into orders values "[at % 26] ^ (at / 997) as u8).collect()
    }

    #[test]
    fn frames_come_back_in_pieces_of_any_length() {
        for compression in BOTH {
            for plain in [text(1), text(49), text(50), text(5000), text(100_000)] {
                let mut packer = Packer::default();
                let (mut bytes, mut sequence, mut rest) = (Vec::new(), 0_u8, &plain[..]);
                while !rest.is_empty() {
                    let mut out = vec![0; 4096];
                    let (held, length) = packer.pack((compression, 3), sequence, rest, &mut out);
                    bytes.extend_from_slice(&out[..length]);
                    (sequence, rest) = (sequence.wrapping_add(1), &rest[held..]);
                }
                if plain.len() >= 5000 {
                    assert!(bytes.len() < plain.len() / 2, "{compression:?}: {} bytes", bytes.len());
                }
                for (piece, room) in [(1, 1), (1, 4096), (7, 3), (4096, 1), (1 << 20, 1 << 20), (1000, 16384)]
                {
                    let out = unpack(compression, &bytes, piece, room).unwrap();
                    assert!(out == plain, "{compression:?}, {} bytes by {piece} and {room}", plain.len());
                }
            }
        }
    }

    #[test]
    fn what_does_not_shrink_goes_as_it_is_in_frames_of_like_lengths() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(16384)
        .collect();
        for compression in BOTH {
            let mut out = vec![0; 16384];
            let (held, length) = Packer::default().pack((compression, 3), 9, &noise, &mut out);
            assert_eq!((held, length), (8192, 8192 + FRAME_HEADER_BYTES));
            assert_eq!(out[..FRAME_HEADER_BYTES], [0, 0x20, 0, 9, 0, 0, 0]);
            assert!(out[FRAME_HEADER_BYTES..length] == noise[..8192]);
        }
    }

    #[test]
    fn streams_of_other_encoders_are_read_and_those_that_lie_are_not() {
        for compression in BOTH {
            let plain = text(70_000);
            let payload = packed(compression, 3, &plain);
            let good = frame(0, &payload, plain.len());
            assert!(unpack(compression, &good, 1000, 16384).unwrap() == plain);
            // Two packets of a frame, and two frames.
            let two = [&good[..], &frame(1, b"as it is", 0), &frame(2, b"", 0), &good].concat();
            assert_eq!(unpack(compression, &two, 10_000, 16384).unwrap().len(), 140_008);
            let more = [&payload[..], b"more"].concat();
            for (what, bad) in [
                ("less than it holds", frame(0, &payload, plain.len() - 1)),
                ("more than it holds", frame(0, &payload, plain.len() + 1)),
                ("most that can be said", frame(0, &payload, 0xff_ffff)),
                ("a byte", frame(0, &payload, 1)),
                ("cut", frame(0, &payload[..payload.len() - 1], plain.len())),
                ("cut in half", frame(0, &payload[..payload.len() / 2], plain.len())),
                ("more behind it", frame(0, &more, plain.len())),
                ("nothing", frame(0, b"", 1)),
                ("garbage", frame(0, &[0xa5; 500], 1000)),
                ("zeros", frame(0, &[0; 500], 1000)),
                ("another number", frame(3, &payload, plain.len())),
            ] {
                for (piece, room) in [(1 << 20, 1 << 20), (1, 16384), (100, 7)] {
                    let result = unpack(compression, &bad, piece, room);
                    assert!(result.is_err(), "{compression:?}: {what} by {piece} and {room}");
                }
            }
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_its_window() {
        for compression in BOTH {
            let plain = vec![b'x'; 0xff_ffff];
            let payload = packed(compression, 19, &plain);
            assert!(payload.len() < 20_000, "{compression:?}: {}", payload.len());
            let bytes = frame(0, &payload, plain.len());
            let mut reader = FrameReader::new(compression, 0);
            let (mut read, mut written, mut most) = (0, 0, 0);
            loop {
                let mut output = [0; 4096];
                let (taken, made) = reader.advance(&bytes[read..], &mut output).unwrap();
                if taken == 0 && made == 0 {
                    break;
                }
                (read, written, most) = (read + taken, written + made, most.max(reader.memory()));
            }
            assert_eq!(written, plain.len());
            let bound = if compression == Compression::Zlib { INFLATE_BYTES } else { 18 << 20 };
            assert!(most > 0 && most <= bound, "{compression:?} took {most}");
            assert_eq!(reader.memory(), 0);
        }
        // A window that no frame needs.
        let mut wide = b"\x28\xb5\x2f\xfd\x00".to_vec();
        wide.extend_from_slice(&[0xb0, 0x01, 0, 0]);
        assert!(unpack(Compression::Zstd, &frame(0, &wide, 100), 100, 100).is_err());
    }

    #[test]
    fn the_numbers_of_both_sides_go_on_and_each_command_begins_anew() {
        let mut reader = FrameReader::new(Compression::Zlib, 0);
        let mut out = [0; 64];
        assert_eq!(reader.advance(&frame(0, b"ask", 0), &mut out), Ok((10, 3)));
        assert_eq!((reader.take_sequence(), reader.take_sequence(), reader.sequence()), (1, 2, 3));
        assert_eq!(reader.advance(&frame(3, b"ask", 0), &mut out), Ok((10, 3)));
        // One frame at a time, so that an answer's number follows its question's.
        let both = [frame(0, b"one", 0), frame(0, b"two", 0)].concat();
        assert_eq!(reader.advance(&both, &mut out), Ok((10, 3)));
        assert_eq!(reader.sequence(), 1);
        assert!(reader.advance(&frame(7, b"ask", 0), &mut out).is_err());
        reader = FrameReader::new(Compression::Zlib, 255);
        assert_eq!(reader.advance(&frame(255, b"ask", 0), &mut out), Ok((10, 3)));
        assert_eq!(reader.sequence(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0..400usize, flip in 1..=255u8,
            piece in 1..50usize, room in 1..50usize,
        ) {
            for compression in BOTH {
                let plain = bytes.repeat(3);
                let mut good = frame(0, &packed(compression, 1, &plain), plain.len());
                if !plain.is_empty() {
                    prop_assert_eq!(unpack(compression, &good, piece, room), Ok(plain));
                }
                let at = at % good.len();
                good[at] ^= flip;
                // Whatever a broken one gives, it gives no more than it says.
                if let Ok(out) = unpack(compression, &good, piece, room) {
                    prop_assert!(out.len() <= 0xff_ffff);
                }
                let _ = unpack(compression, &bytes, piece, room);
            }
        }
    }
}
