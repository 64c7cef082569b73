//! Temporal values: the packed forms of MySQL 5.6 on, those before, and the one inside JSON.
//!
//! ```text
//! TIME2       3 bytes BE + fraction, offset 0x800000: sign, hour:10 minute:6 second:6
//! DATETIME2   5 bytes BE + fraction, offset 1<<39: sign, year*13+month:17 day:5 hour:5 minute:6 second:6
//! TIMESTAMP2  4 bytes BE + fraction: seconds since the epoch, unsigned
//! fraction    (fsp+1)/2 bytes BE, in units of the fsp rounded up to even
//! ```

use super::error::BinlogError;
use super::input::Input;
use base::value::TIMESTAMP_ZERO;
use base::{Date, DateTime};

pub(crate) fn fraction_bytes(fsp: u8) -> usize {
    usize::from(fsp.div_ceil(2))
}

/// Microseconds in one unit of a fraction of so many bytes.
const FRACTION_UNIT: [u32; 4] = [0, 10_000, 100, 1];

fn fraction(input: &mut Input<'_>, fsp: u8) -> Result<u32, BinlogError> {
    let bytes = fraction_bytes(fsp).min(3);
    Ok((input.uint_be(bytes)? as u32).wrapping_mul(FRACTION_UNIT[bytes]))
}

/// 3 bytes: `year << 9 | month << 5 | day`.
pub(super) fn date(input: &mut Input<'_>) -> Result<Date, BinlogError> {
    Ok(date_of_packed(input.u24()?))
}

pub(crate) fn date_of_packed(packed: u32) -> Date {
    Date { year: (packed >> 9) as u16, month: (packed >> 5 & 15) as u8, day: (packed & 31) as u8 }
}

/// Microseconds of TIME2. The whole value is one offset integer, so a negative time borrows from its seconds.
pub(super) fn time2(input: &mut Input<'_>, fsp: u8) -> Result<i64, BinlogError> {
    let bytes = fraction_bytes(fsp).min(3);
    let raw = input.uint_be(3 + bytes)? as i64;
    let shift = 8 * bytes as u32;
    let value = raw - (0x80_0000i64 << shift);
    let magnitude = value.unsigned_abs();
    let unit = u64::from(FRACTION_UNIT[bytes]);
    let micro = (magnitude & ((1u64 << shift) - 1)) * unit;
    let packed = magnitude >> shift;
    let seconds = (packed >> 12 & 0x3ff) * 3600 + (packed >> 6 & 63) * 60 + (packed & 63);
    let micros = (seconds * 1_000_000 + micro) as i64;
    Ok(if value < 0 { -micros } else { micros })
}

pub(super) fn datetime2(input: &mut Input<'_>, fsp: u8) -> Result<DateTime, BinlogError> {
    let packed = input.uint_be(5)? & 0x7f_ffff_ffff;
    let micro = fraction(input, fsp)?;
    Ok(datetime_of_packed(packed, micro))
}

fn datetime_of_packed(packed: u64, micro: u32) -> DateTime {
    let month = packed >> 22;
    DateTime {
        date: Date { year: (month / 13) as u16, month: (month % 13) as u8, day: (packed >> 17 & 31) as u8 },
        hour: (packed >> 12 & 31) as u8,
        minute: (packed >> 6 & 63) as u8,
        second: (packed & 63) as u8,
        micro,
    }
}

pub(super) fn timestamp2(input: &mut Input<'_>, fsp: u8) -> Result<i64, BinlogError> {
    let seconds = u32::from_be_bytes(input.array()?);
    let micro = fraction(input, fsp)?;
    Ok(timestamp_of(seconds, micro))
}

pub(super) fn timestamp_of(seconds: u32, micro: u32) -> i64 {
    if seconds == 0 && micro == 0 {
        return TIMESTAMP_ZERO;
    }
    i64::from(seconds) * 1_000_000 + i64::from(micro)
}

/// TIME before 5.6: three bytes, signed, decimal `HHMMSS`.
pub(super) fn time_old(input: &mut Input<'_>) -> Result<i64, BinlogError> {
    let raw = ((input.u24()? << 8) as i32) >> 8;
    let digits = i64::from(raw.unsigned_abs());
    let seconds = digits / 10_000 * 3600 + digits / 100 % 100 * 60 + digits % 100;
    Ok(if raw < 0 { -seconds } else { seconds } * 1_000_000)
}

/// DATETIME before 5.6: eight bytes, decimal `YYYYMMDDHHMMSS`.
pub(super) fn datetime_old(input: &mut Input<'_>) -> Result<DateTime, BinlogError> {
    let raw = input.u64()?;
    let (date, time) = (raw / 1_000_000, raw % 1_000_000);
    Ok(DateTime {
        date: Date { year: (date / 10_000) as u16, month: (date / 100 % 100) as u8, day: (date % 100) as u8 },
        hour: (time / 10_000) as u8,
        minute: (time / 100 % 100) as u8,
        second: (time % 100) as u8,
        micro: 0,
    })
}

/// The packed DATETIME of JSON values: the DATETIME2 integer shifted left by 24, plus microseconds.
pub(crate) fn datetime_of_micros(packed: i64) -> DateTime {
    let packed = packed.unsigned_abs();
    datetime_of_packed(packed >> 24, (packed & 0xff_ffff) as u32)
}

/// The packed TIME of JSON values: the TIME2 integer shifted left by 24, plus microseconds.
pub(crate) fn time_of_micros(packed: i64) -> i64 {
    let magnitude = packed.unsigned_abs();
    let (whole, micro) = (magnitude >> 24, magnitude & 0xff_ffff);
    let seconds = (whole >> 12 & 0x3ff) * 3600 + (whole >> 6 & 63) * 60 + (whole & 63);
    let micros = (seconds * 1_000_000 + micro) as i64;
    if packed < 0 { -micros } else { micros }
}

/// Microseconds of a TIME given in parts.
pub(crate) fn time_of_parts(
    negative: bool,
    days: u32,
    hours: u8,
    minutes: u8,
    seconds: u8,
    micros: u32,
) -> i64 {
    let hours = i64::from(days) * 24 + i64::from(hours);
    let seconds = hours * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
    let total = seconds * 1_000_000 + i64::from(micros);
    if negative { -total } else { total }
}
