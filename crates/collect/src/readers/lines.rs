//! The lines of a text file: bounded, each decoded by itself, so that a broken one breaks no other.
//!
//! A line ends with a line feed; a carriage return before it is left to who reads the line. In GBK and Big5 no second byte of a character is a
//! line feed, in UTF-16 one is two bytes: what stands between two of them is decoded alone.

use super::encoding::Encoding;
use std::io::{self, BufRead};

/// Bytes of a line.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A line without its line feed.
#[derive(Debug, PartialEq)]
pub enum Line {
    Text(String),
    /// Bytes that are no text in the file's encoding; at most [`LINE_BYTES_MAX`] of them, in any case.
    Broken {
        bytes: Vec<u8>,
        reason: String,
    },
}

pub struct Lines<R> {
    input: R,
    encoding: Encoding,
    buffer: Vec<u8>,
    /// Lines that were taken so far.
    number: u64,
    first: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R, encoding: Encoding) -> Self {
        Self { input, encoding, buffer: Vec::new(), number: 0, first: true }
    }

    /// The number of the line that was taken last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let Some(too_long) = self.fill()? else { return Ok(None) };
        self.number += 1;
        let first = std::mem::take(&mut self.first);
        if too_long {
            let reason = format!("the line is longer than {LINE_BYTES_MAX} bytes");
            return Ok(Some(Line::Broken { bytes: std::mem::take(&mut self.buffer), reason }));
        }
        let mut bytes = self.encoding.without_end(&self.buffer);
        if first {
            bytes = self.encoding.without_mark(bytes);
        }
        Ok(Some(match self.encoding.decode(bytes) {
            Some(text) => Line::Text(text),
            None => Line::Broken {
                bytes: bytes.to_vec(),
                reason: format!("the bytes are no {}", self.encoding.name()),
            },
        }))
    }

    /// Reads a line with its end into the buffer; whether it was too long to be kept whole. `None`: there is none.
    fn fill(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(any.then_some(too_long));
            }
            any = true;
            let found = available.iter().position(|byte| *byte == b'\n');
            let taken = found.map_or(available.len(), |at| at + 1);
            let room = LINE_BYTES_MAX.saturating_sub(self.buffer.len());
            too_long |= taken > room;
            // The last bytes of a line that is too long matter for the parity of UTF-16 alone.
            self.buffer.extend_from_slice(&available[..taken.min(room)]);
            self.input.consume(taken);
            if found.is_none() {
                continue;
            }
            match self.encoding.feed_width() {
                1 => return Ok(Some(too_long)),
                // The zero half of the line feed follows.
                2 if self.encoding.is_little_endian() => {
                    if too_long || self.buffer.len() % 2 == 1 {
                        match self.input.fill_buf()?.first() {
                            Some(0) => {
                                self.input.consume(1);
                                self.buffer.push(0);
                                return Ok(Some(too_long));
                            }
                            None => return Ok(Some(too_long)),
                            Some(_) => {}
                        }
                    }
                }
                _ => {
                    let length = self.buffer.len();
                    if too_long || (length.is_multiple_of(2) && length >= 2 && self.buffer[length - 2] == 0) {
                        return Ok(Some(too_long));
                    }
                }
            }
        }
    }
}
