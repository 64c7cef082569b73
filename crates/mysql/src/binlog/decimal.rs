//! MySQL's packed DECIMAL: nine digits in four bytes, big-endian, the first bit inverted, all bits for negatives.

use super::error::BinlogError;
use super::input::Input;

/// Bytes that hold 0 to 9 digits.
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// The longest text: sign, 65 digits, a leading zero and a point.
pub(crate) const DECIMAL_TEXT_BYTES_MAX: usize = 80;

/// Bytes a DECIMAL(precision, scale) takes; `None` when no such type exists.
pub(crate) fn decimal_bytes(precision: usize, scale: usize) -> Option<usize> {
    if precision == 0 || precision > 65 || scale > precision || scale > 38 {
        return None;
    }
    let whole = precision - scale;
    Some(whole / 9 * 4 + DIGIT_BYTES[whole % 9] + scale / 9 * 4 + DIGIT_BYTES[scale % 9])
}

/// The text as MySQL prints it, built in `buffer`: no leading zeros but one before the point, all of the scale.
pub(crate) fn decimal_text<'b>(
    packed: &[u8],
    precision: usize,
    scale: usize,
    buffer: &'b mut [u8; DECIMAL_TEXT_BYTES_MAX],
) -> Result<&'b str, BinlogError> {
    let bad = || super::error::malformed("decimal value");
    let size = decimal_bytes(precision, scale).ok_or_else(bad)?;
    let mut bytes = [0u8; 40];
    let bytes = bytes.get_mut(..size).ok_or_else(bad)?;
    bytes.copy_from_slice(packed.get(..size).ok_or_else(bad)?);
    let negative = bytes[0] & 0x80 == 0;
    if negative {
        bytes.iter_mut().for_each(|b| *b = !*b);
    }
    bytes[0] ^= 0x80;
    let mut text = Digits { buffer, length: 0 };
    if negative {
        text.push(b'-');
    }
    let mut input = Input::new(bytes, "decimal value");
    let whole = precision - scale;
    let mut started = text.group(&mut input, whole % 9, false)?;
    for _ in 0..whole / 9 {
        started = text.group(&mut input, 9, started)?;
    }
    if !started {
        text.push(b'0');
    }
    if scale > 0 {
        text.push(b'.');
        for _ in 0..scale / 9 {
            text.group(&mut input, 9, true)?;
        }
        text.group(&mut input, scale % 9, true)?;
    }
    let Digits { buffer, length } = text;
    std::str::from_utf8(&buffer[..length]).map_err(|_| bad())
}

struct Digits<'b> {
    buffer: &'b mut [u8; DECIMAL_TEXT_BYTES_MAX],
    length: usize,
}

impl Digits<'_> {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.buffer.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    /// Appends a group of `digits`, without leading zeros unless `padded`; whether any digit stands now.
    fn group(&mut self, input: &mut Input<'_>, digits: usize, padded: bool) -> Result<bool, BinlogError> {
        let mut value = input.uint_be(DIGIT_BYTES[digits])? as u32;
        if value >= 10u32.pow(digits as u32) {
            return Err(input.bad());
        }
        let mut out = [b'0'; 9];
        let mut first = digits;
        for index in (0..digits).rev() {
            out[index] = b'0' + (value % 10) as u8;
            if value > 0 {
                first = index;
            }
            value /= 10;
        }
        let from = if padded { 0 } else { first };
        for byte in &out[from..digits] {
            self.push(*byte);
        }
        Ok(padded || first < digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], precision: usize, scale: usize) -> String {
        let mut buffer = [0; DECIMAL_TEXT_BYTES_MAX];
        decimal_text(bytes, precision, scale, &mut buffer).unwrap().to_owned()
    }

    #[test]
    fn the_manuals_examples_read_as_it_says() {
        let positive = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        let negative = positive.map(|b: u8| !b);
        assert_eq!(text(&positive, 14, 4), "1234567890.1234");
        assert_eq!(text(&negative, 14, 4), "-1234567890.1234");
        assert_eq!(text(&[0x80, 0x0a], 3, 2), "0.10");
        assert_eq!(text(&[0x7f, 0xf5], 3, 2), "-0.10");
        assert_eq!(text(&[0x80], 1, 0), "0");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, precision in 0usize..80, scale in 0usize..50) {
            let mut buffer = [0; DECIMAL_TEXT_BYTES_MAX];
            let _ = decimal_text(&bytes, precision, scale, &mut buffer);
        }
    }
}
