//! Values while an expression runs, and how MySQL turns one kind into another.

use super::decimal::Decimal;
use crate::EvalError;
use base::value::{Date, DateTime, format_datetime, format_time};
use std::borrow::Cow;

/// A value of an expression, borrowed from the row where it can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Val<'a> {
    Null,
    Int(i64),
    UInt(u64),
    Decimal(Decimal),
    Double(f64),
    /// A FLOAT column: calculates as a double, prints six digits.
    Float(f32),
    Text(Cow<'a, str>),
    /// ENUM, SET and YEAR: a text that is also a number.
    Label(Cow<'a, str>, u64),
    Bytes(Cow<'a, [u8]>),
    Date(Date),
    /// Microseconds, and how many digits of them are shown.
    Time(i64, u8),
    DateTime(DateTime, u8),
    /// JSON text as MySQL prints it.
    Json(Cow<'a, str>),
}

impl<'a> Val<'a> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn bool(value: bool) -> Self {
        Self::Int(i64::from(value))
    }

    pub fn text(value: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(value.into())
    }

    /// A Rust integer as the smallest fitting variant: signed where it can be.
    pub fn integer(value: i128, unsigned: bool) -> Result<Self, EvalError> {
        let range = || {
            let name = if unsigned { "BIGINT UNSIGNED" } else { "BIGINT" };
            EvalError(format!("{name} value is out of range: {value}"))
        };
        if unsigned {
            u64::try_from(value).map(Self::UInt).map_err(|_| range())
        } else {
            i64::try_from(value).map(Self::Int).map_err(|_| range())
        }
    }
}

/// The longest prefix that MySQL reads as a number: blanks, sign, digits, point, digits, exponent.
pub fn number_prefix(text: &str) -> &str {
    let trimmed = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let bytes = trimmed.as_bytes();
    let digits_from = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits_from(start);
    let mut end = start + whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits_from(end + 1);
        end += usize::from(whole + fraction > 0) * (1 + fraction);
    }
    if whole + fraction == 0 {
        return "";
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = if signed <= bytes.len() { digits_from(signed) } else { 0 };
        if exponent > 0 {
            end = signed + exponent;
        }
    }
    &trimmed[..end]
}

/// Text as a double: its numeric prefix, 0 when there is none; never infinite.
pub fn text_to_double(text: &str) -> f64 {
    let value: f64 = number_prefix(text).parse().unwrap_or(0.0);
    value.clamp(f64::MIN, f64::MAX)
}

/// Text as an integer: sign and digits only, held at the ends of 64 bits.
pub fn text_to_int(text: &str) -> i128 {
    let number = number_prefix(text);
    let end = number.find(['.', 'e', 'E']).unwrap_or(number.len());
    let whole = &number[..end];
    match whole.parse::<i128>() {
        Ok(value) => value.clamp(i128::from(i64::MIN), i128::from(u64::MAX)),
        Err(_) if whole.len() < 2 => 0,
        Err(_) if whole.starts_with('-') => i128::from(i64::MIN),
        Err(_) => i128::from(u64::MAX),
    }
}

/// Text that is an integer and nothing else.
pub fn whole_text_to_int(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn date_number(date: Date) -> i128 {
    i128::from(date.year) * 10_000 + i128::from(date.month) * 100 + i128::from(date.day)
}

/// A DATETIME as the number MySQL calculates with, without the fraction.
fn datetime_number(value: DateTime) -> i128 {
    let time = u32::from(value.hour) * 10_000 + u32::from(value.minute) * 100 + u32::from(value.second);
    date_number(value.date) * 1_000_000 + i128::from(time)
}

fn time_number(micros: i64, fsp: u8) -> Decimal {
    let total = micros.unsigned_abs();
    let seconds = total / 1_000_000;
    let whole = seconds / 3600 * 10_000 + seconds / 60 % 60 * 100 + seconds % 60;
    let value = exact_micros(i128::from(whole), i128::from(total % 1_000_000), fsp);
    if micros < 0 { value.negated() } else { value }
}

fn exact_micros(whole: i128, micros: i128, fsp: u8) -> Decimal {
    if fsp == 0 {
        return Decimal::from_int(whole);
    }
    Decimal::parse_prefix(&format!("{whole}.{micros:06}")).rescaled(u32::from(fsp))
}

pub fn to_double(value: &Val<'_>) -> f64 {
    match value {
        Val::Null => 0.0,
        Val::Int(v) => *v as f64,
        Val::UInt(v) | Val::Label(_, v) => *v as f64,
        Val::Decimal(v) => v.to_f64(),
        Val::Double(v) => *v,
        Val::Float(v) => f64::from(*v),
        Val::Text(text) => text_to_double(text),
        Val::Bytes(bytes) => text_to_double(&String::from_utf8_lossy(bytes)),
        Val::Json(text) => super::json::to_double(text),
        Val::Date(_) | Val::Time(..) | Val::DateTime(..) => to_decimal(value).to_f64(),
    }
}

pub fn to_decimal(value: &Val<'_>) -> Decimal {
    match value {
        Val::Null => Decimal::from_int(0),
        Val::Int(v) => Decimal::from_int(i128::from(*v)),
        Val::UInt(v) | Val::Label(_, v) => Decimal::from_int(i128::from(*v)),
        Val::Decimal(v) => v.clone(),
        Val::Double(v) => double_to_decimal(*v),
        Val::Float(v) => double_to_decimal(f64::from(*v)),
        Val::Text(text) => Decimal::parse_prefix(text),
        Val::Bytes(bytes) => Decimal::parse_prefix(&String::from_utf8_lossy(bytes)),
        Val::Json(text) => double_to_decimal(super::json::to_double(text)),
        Val::Date(v) => Decimal::from_int(date_number(*v)),
        Val::DateTime(v, fsp) => exact_micros(datetime_number(*v), i128::from(v.micro), *fsp),
        Val::Time(v, fsp) => time_number(*v, *fsp),
    }
}

fn double_to_decimal(value: f64) -> Decimal {
    Decimal::parse_prefix(&format!("{value:e}"))
}

/// The nearest integer, as MySQL's integer contexts (lengths, positions, casts) round.
pub fn to_int(value: &Val<'_>) -> i128 {
    match value {
        Val::Null => 0,
        Val::Int(v) => i128::from(*v),
        Val::UInt(v) | Val::Label(_, v) => i128::from(*v),
        // A FLOAT too large for 64 bits is what the processor makes of it.
        Val::Float(v) if v.abs() >= 9.223_372e18 => i128::from(i64::MIN),
        Val::Double(_) | Val::Float(_) | Val::Json(_) => double_to_int(to_double(value)),
        Val::Text(text) => text_to_int(text),
        Val::Bytes(bytes) => text_to_int(&String::from_utf8_lossy(bytes)),
        // A time rounds as a time: 59.5 seconds are a minute.
        Val::DateTime(v, _) => match super::temporal::rounded(*v, 0) {
            // Behind the last second there is none: the server keeps the day.
            late if late.date.year > 9999 => date_number(v.date) * 1_000_000,
            rounded => datetime_number(rounded),
        },
        Val::Time(v, _) => {
            let micros = v.unsigned_abs() as i64 + 500_000;
            let micros = micros - micros % 1_000_000;
            to_decimal(&Val::Time(if *v < 0 { -micros } else { micros }, 0)).to_i128().unwrap_or(0)
        }
        Val::Date(v) => date_number(*v),
        Val::Decimal(v) => v.to_i128().unwrap_or(if v.is_negative() { i128::MIN } else { i128::MAX }),
    }
}

fn double_to_int(value: f64) -> i128 {
    // Half to even, as C's rint; the casts hold at the ends.
    i128::from(value.round_ties_even() as i64)
}

pub fn is_true(value: &Val<'_>) -> Option<bool> {
    Some(match value {
        Val::Null => return None,
        Val::Int(v) => *v != 0,
        Val::UInt(v) | Val::Label(_, v) => *v != 0,
        Val::Decimal(v) => !v.is_zero(),
        other => to_double(other) != 0.0,
    })
}

pub fn to_text<'a>(value: Val<'a>) -> Result<Cow<'a, str>, EvalError> {
    Ok(match value {
        Val::Null => Cow::Borrowed(""),
        Val::Text(text) | Val::Label(text, _) | Val::Json(text) => text,
        Val::Int(v) => v.to_string().into(),
        Val::UInt(v) => v.to_string().into(),
        Val::Decimal(v) => v.to_string().into(),
        Val::Double(v) => double_text(v).into(),
        Val::Float(v) => float_text(v).into(),
        Val::Date(v) => v.to_string().into(),
        Val::Time(v, fsp) => format_time(v, fsp).into(),
        Val::DateTime(v, fsp) => format_datetime(v, fsp).into(),
        Val::Bytes(Cow::Borrowed(bytes)) => std::str::from_utf8(bytes).map_err(|_| not_text())?.into(),
        Val::Bytes(Cow::Owned(bytes)) => String::from_utf8(bytes).map_err(|_| not_text())?.into(),
    })
}

fn not_text() -> EvalError {
    EvalError("a binary value is used as text and is not valid UTF-8".into())
}

pub fn to_bytes(value: Val<'_>) -> Result<Cow<'_, [u8]>, EvalError> {
    Ok(match value {
        Val::Bytes(bytes) => bytes,
        other => match to_text(other)? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
    })
}

/// Characters the server has for a DOUBLE as text; it drops digits that do not fit.
const DOUBLE_CHARS_MAX: usize = 22;

/// A DOUBLE as MySQL's text functions see it: the shortest digits that read back, with an exponent where that is needed.
pub fn double_text(value: f64) -> String {
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let shortest = format!("{value:e}");
    let plain = digits_text(&shortest);
    if plain.len() <= DOUBLE_CHARS_MAX {
        return plain;
    }
    if shortest.len() <= DOUBLE_CHARS_MAX {
        return shortest;
    }
    let digits = shortest.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let fewer = digits.saturating_sub(1 + shortest.len() - DOUBLE_CHARS_MAX);
    let cut = format!("{value:.fewer$e}");
    let (mantissa, exponent) = cut.split_once('e').unwrap_or((&cut, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{mantissa}e{exponent}")
}

/// A FLOAT as MySQL prints it: six digits.
fn float_text(value: f32) -> String {
    if value == 0.0 {
        return "0".into();
    }
    digits_text(&format!("{:.5e}", f64::from(value)))
}

/// `d.ddde±x` as plain digits, or with an exponent where MySQL has one.
fn digits_text(scientific: &str) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific.to_owned() };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if mantissa.starts_with('-') { "-" } else { "" };
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.truncate(digits.trim_end_matches('0').len().max(1));
    let point = exponent + 1;
    if !(-14..=15).contains(&point) {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{dot}{rest}e{exponent}");
    }
    if point <= 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize));
    }
    let point = point as usize;
    if digits.len() <= point {
        return format!("{sign}{digits}{}", "0".repeat(point - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..point], &digits[point..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_front_of_text() {
        for (text, expected) in [
            ("12abc", 12.0),
            ("  -1.5e2x", -150.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("abc", 0.0),
            ("1e", 1.0),
            ("-", 0.0),
        ] {
            assert_eq!(text_to_double(text), expected, "{text}");
        }
        assert_eq!(text_to_double("1e999"), f64::MAX);
        assert_eq!(text_to_int("1e3"), 1);
        assert_eq!(text_to_int("12.7"), 12);
        assert_eq!(text_to_int("99999999999999999999999999999999999999999999"), i128::from(u64::MAX));
    }

    #[test]
    fn doubles_print_as_mysql_prints_them() {
        for (value, text) in [
            (1e15, "1e15"),
            (1e14, "100000000000000"),
            (1e-15, "0.000000000000001"),
            (1.2345e-10, "0.00000000012345"),
            (123_456_789_012_345_678.0, "1.2345678901234568e17"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-2.5, "-2.5"),
            (-1e-7 / 3.0, "-3.3333333333333334e-8"),
            (-1e-9 / 3.0, "-3.333333333333334e-10"),
        ] {
            assert_eq!(double_text(value), text);
        }
        assert_eq!(float_text(16_777_216.0), "16777200");
        assert_eq!(float_text(3.4e38), "3.4e38");
        assert_eq!(float_text(0.1), "0.1");
    }

    #[test]
    fn dates_are_numbers_where_numbers_are_wanted() {
        let date = Date { year: 2026, month: 1, day: 2 };
        let value = DateTime { date, hour: 3, minute: 4, second: 5, micro: 120_000 };
        assert_eq!(to_decimal(&Val::Date(date)).to_string(), "20260102");
        assert_eq!(to_decimal(&Val::DateTime(value, 2)).to_string(), "20260102030405.12");
        assert_eq!(to_decimal(&Val::Time(-36_672_500_000, 2)).to_string(), "-101112.50");
    }
}
