//! The fields that payloads are made of: fixed integers, length-encoded integers and texts.

use thiserror::Error;

/// A payload that ends inside one of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the packet ends inside a field")]
pub struct Truncated;

/// Reads fields from the front of a payload; nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What has not been read yet.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A length-encoded integer. 0xfb (NULL in a row) and 0xff (an error's mark) are no integers.
    pub fn integer(&mut self) -> Result<u64, Truncated> {
        let width = match self.u8()? {
            first @ 0..=0xfa => return Ok(u64::from(first)),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return Err(Truncated),
        };
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Bytes with their length, length-encoded, in front.
    pub fn bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.integer()?;
        self.take(usize::try_from(length).map_err(|_| Truncated)?)
    }

    /// Bytes up to a zero byte, which is read too.
    pub fn text(&mut self) -> Result<&'a [u8], Truncated> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Truncated)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// Bytes up to a zero byte or, where old servers leave it out, the end.
    pub fn text_or_rest(&mut self) -> &'a [u8] {
        self.text().unwrap_or_else(|_| std::mem::take(&mut self.rest))
    }
}

/// A length-encoded integer.
pub fn put_integer(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xfa => out.push(bytes[0]),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Bytes with their length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_integer(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes with a zero byte behind.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_come_back() {
        for value in [0, 0xfa, 0xfb, 0xff, 0x100, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000, u64::MAX] {
            let mut out = Vec::new();
            put_integer(&mut out, value);
            let mut reader = FieldReader::new(&out);
            assert_eq!(reader.integer(), Ok(value));
            assert!(reader.is_empty());
            for end in 0..out.len() {
                assert_eq!(FieldReader::new(&out[..end]).integer(), Err(Truncated), "{value} cut at {end}");
            }
        }
        assert_eq!(FieldReader::new(&[0xfb]).integer(), Err(Truncated));
    }
}
