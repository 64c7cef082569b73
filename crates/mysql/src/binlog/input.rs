//! A cursor over bytes in which no read leaves the slice.

use super::error::{BinlogError, malformed};

/// What is left to read of a `what`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub rest: &'a [u8],
    pub what: &'static str,
}

impl<'a> Input<'a> {
    pub fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn bad(&self) -> BinlogError {
        malformed(self.what)
    }

    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], BinlogError> {
        match self.rest.split_at_checked(count) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(self.bad()),
        }
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BinlogError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(self.bad()),
        }
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, BinlogError> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, BinlogError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub fn u24(&mut self) -> Result<u32, BinlogError> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, BinlogError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub fn u48(&mut self) -> Result<u64, BinlogError> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, BinlogError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned integer of `count` (0 to 8) bytes, little-endian.
    #[inline]
    pub fn uint_le(&mut self, count: usize) -> Result<u64, BinlogError> {
        let bytes = self.bytes(count)?;
        Ok(bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    /// An unsigned integer of `count` (0 to 8) bytes, big-endian.
    #[inline]
    pub fn uint_be(&mut self, count: usize) -> Result<u64, BinlogError> {
        let bytes = self.bytes(count)?;
        Ok(bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    /// MySQL's length-encoded integer.
    #[inline]
    pub fn packed(&mut self) -> Result<u64, BinlogError> {
        match self.u8()? {
            small @ 0..=250 => Ok(u64::from(small)),
            252 => Ok(u64::from(self.u16()?)),
            253 => Ok(u64::from(self.u24()?)),
            254 => self.u64(),
            _ => Err(self.bad()),
        }
    }

    pub fn packed_len(&mut self) -> Result<usize, BinlogError> {
        let length = self.packed()?;
        usize::try_from(length).map_err(|_| self.bad())
    }

    pub fn packed_bytes(&mut self) -> Result<&'a [u8], BinlogError> {
        let length = self.packed_len()?;
        self.bytes(length)
    }
}

/// Whether bit `index` of a little-endian bitmap is set; bits past its end are not.
#[inline]
pub(crate) fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}
