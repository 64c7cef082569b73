//! LEB128 integers, the only variable-length integers in our stored formats.

/// Appends `value` in 1 to 10 bytes, seven bits a byte, least significant first.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer, zigzag-coded so that small negatives stay short.
#[inline]
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes an integer from the front of `input`; `None` when it is cut short or longer than 64 bits.
#[inline]
pub fn take_u64(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Some(value);
        }
    }
    None
}

/// The inverse of [`put_i64`].
#[inline]
pub fn take_i64(input: &mut &[u8]) -> Option<i64> {
    take_u64(input).map(|raw| ((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

/// Takes `len` bytes from the front of `input`.
#[inline]
pub fn take_bytes<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = input.split_at_checked(len)?;
    *input = tail;
    Some(head)
}

/// Appends a length and the bytes.
#[inline]
pub fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The inverse of [`put_blob`].
#[inline]
pub fn take_blob<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u64(input)?).ok()?;
    take_bytes(input, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_reads_back(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put_u64(&mut out, unsigned);
            put_i64(&mut out, signed);
            let mut input = &out[..];
            prop_assert_eq!(take_u64(&mut input), Some(unsigned));
            prop_assert_eq!(take_i64(&mut input), Some(signed));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut input = &bytes[..];
            while take_blob(&mut input).is_some_and(|b| !b.is_empty()) {}
        }
    }
}
