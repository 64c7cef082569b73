//! Values from the texts that MySQL prints, the inverse of `base::value`.

use base::value::datetime_to_timestamp;
use base::{Date, DateTime};

const MICROS: i64 = 1_000_000;

/// `2026-01-02`, `0000-00-00`.
pub fn date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    let fits = year <= 9999 && month <= 12 && day <= 31;
    fits.then_some(Date { year: year as u16, month: month as u8, day: day as u8 })
}

/// `-838:59:59.000000`, in microseconds.
pub fn time(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (hour, minute, second, micro) = clock(text)?;
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    (hour <= 838).then_some(sign * (seconds * MICROS + i64::from(micro)))
}

/// `2026-01-02 03:04:05.12` or with a `T`; a date alone is its midnight.
pub fn datetime(text: &str) -> Option<DateTime> {
    let Some((day, rest)) = text.split_once([' ', 'T']) else {
        return Some(DateTime { date: date(text)?, ..DateTime::default() });
    };
    let (hour, minute, second, micro) = clock(rest)?;
    let fits = hour <= 23;
    let date = date(day)?;
    fits.then_some(DateTime { date, hour: hour as u8, minute: minute as u8, second: second as u8, micro })
}

/// A datetime in UTC, or with `Z` or an offset (`+08:00`) behind it; microseconds since the Unix epoch.
pub fn timestamp(text: &str) -> Option<i64> {
    let (text, offset_minutes) = zone(text)?;
    let utc = datetime_to_timestamp(datetime(text)?);
    if utc == base::value::TIMESTAMP_ZERO { Some(utc) } else { Some(utc - offset_minutes * 60 * MICROS) }
}

fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(text) = text.strip_suffix('Z') {
        return Some((text, 0));
    }
    // Behind the date, whose own dashes are no sign.
    let at = text.get(11..).and_then(|rest| rest.find(['+', '-'])).map(|at| at + 11);
    let Some(at) = at else { return Some((text, 0)) };
    let (text, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset[1..].split_once(':').unwrap_or((&offset[1..], "0"));
    Some((text, sign * (i64::from(digits(hours)?) * 60 + i64::from(digits(minutes)?))))
}

/// Hours, minutes, seconds and microseconds.
fn clock(text: &str) -> Option<(u32, u32, u32, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let second = digits(parts.next().unwrap_or("0"))?;
    let micro = if fraction.is_empty() {
        0
    } else {
        digits(fraction)?;
        let six = fraction.get(..6.min(fraction.len()))?;
        digits(six)? * 10u32.pow(6 - six.len() as u32)
    };
    (minute <= 59 && second <= 59).then_some((hour, minute, second, micro))
}

/// Digits only: no sign, no space. Long ones are of fractions, whose first nine count.
fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.get(..text.len().min(9))?.parse().ok() } else { None }
}

/// A decimal number as MySQL prints a DECIMAL of this precision and scale; `None` when it would not fit exactly.
pub fn decimal(text: &str, precision: u8, scale: u8) -> Option<String> {
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 200)?),
        None => (text, 0),
    };
    let (sign, text) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all: String = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let digit =
        |at: i32| usize::try_from(at).ok().and_then(|at| all.as_bytes().get(at)).copied().unwrap_or(b'0');
    let before: String = (0.min(point)..point).map(|at| char::from(digit(at))).collect();
    let before = before.trim_start_matches('0');
    let scale = i32::from(scale);
    let lost = (point + scale..all.len() as i32).any(|at| digit(at) != b'0');
    if lost || before.len() as i32 > i32::from(precision) - scale {
        return None;
    }
    let behind: String = (point..point + scale).map(|at| char::from(digit(at))).collect();
    let zero = before.is_empty() && behind.bytes().all(|byte| byte == b'0');
    let sign = if zero { "" } else { sign };
    let before = if before.is_empty() { "0" } else { before };
    Some(if scale == 0 { format!("{sign}{before}") } else { format!("{sign}{before}.{behind}") })
}

/// JSON with the spaces that MySQL prints, one after each `,` and `:`, and no other.
pub fn spaced_json(text: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::with_capacity(text.len() + 16), false, false);
    for c in text.chars() {
        if !quoted && c.is_ascii_whitespace() {
            continue;
        }
        out.push(c);
        if quoted {
            quoted = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            quoted = true;
        } else if matches!(c, ',' | ':') {
            out.push(' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::value::{TIMESTAMP_ZERO, format_datetime, format_time, format_timestamp};

    #[test]
    fn what_mysql_prints_reads_back() {
        for (text, fsp) in
            [("2026-01-02 03:04:05.120", 3), ("0000-00-00 00:00:00", 0), ("9999-12-31 23:59:59.999999", 6)]
        {
            assert_eq!(format_datetime(datetime(text).unwrap(), fsp), text);
        }
        for (text, fsp) in [("-838:59:59", 0), ("00:00:00.50", 2), ("-00:00:00.000001", 6)] {
            assert_eq!(format_time(time(text).unwrap(), fsp), text);
        }
        let text = "2026-01-02T03:04:05.120Z";
        assert_eq!(format_timestamp(timestamp(text).unwrap(), 3), text);
        assert_eq!(timestamp("2026-01-02T11:04:05.120+08:00"), timestamp(text));
        assert_eq!(timestamp("2026-01-02 03:04:05.12"), timestamp(text));
        assert_eq!(timestamp("0000-00-00 00:00:00"), Some(TIMESTAMP_ZERO));
        for wrong in ["", "2026-13-01", "2026-01", "x", "2026-01-02 25:00:00", "2026-01-02 00:00:61"] {
            assert_eq!(datetime(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn decimals_get_the_columns_scale_and_lose_nothing() {
        let text = |text: &str| decimal(text, 6, 2);
        assert_eq!(text("-1.28").as_deref(), Some("-1.28"));
        assert_eq!(text("5").as_deref(), Some("5.00"));
        assert_eq!(text("1.5e2").as_deref(), Some("150.00"));
        assert_eq!(text("15e-1").as_deref(), Some("1.50"));
        assert_eq!(text("1e-2").as_deref(), Some("0.01"));
        assert_eq!(text("-0.00").as_deref(), Some("0.00"));
        assert_eq!(text("0009999.990").as_deref(), Some("9999.99"));
        for wrong in ["0.001", "10000", "1e-3", "", "abc", "1.2.3", "--1"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert_eq!(decimal("-123", 3, 0).as_deref(), Some("-123"));
    }

    #[test]
    fn documents_are_spaced_as_mysql_prints_them() {
        assert_eq!(
            spaced_json("{\"a\":[1,\"b: \\\",c\"],\n \"d\" : {}}"),
            "{\"a\": [1, \"b: \\\",c\"], \"d\": {}}"
        );
        let own = "{\"k\": [1, \"x\\\\\"], \"z\": \"\"}";
        assert_eq!(spaced_json(own), own);
    }
}
