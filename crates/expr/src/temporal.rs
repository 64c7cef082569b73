//! Dates and times: reading them from text, adding to them, printing them. Every time is UTC.

use super::coerce::Val;
use crate::EvalError;
use base::value::{
    Date, DateTime, TIMESTAMP_ZERO, datetime_to_timestamp, days_of_date, timestamp_to_datetime,
};
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Microsecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Unit {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "microsecond" => Self::Microsecond,
            "second" => Self::Second,
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "quarter" => Self::Quarter,
            "year" => Self::Year,
            _ => return None,
        })
    }

    pub fn is_of_day(self) -> bool {
        matches!(self, Self::Microsecond | Self::Second | Self::Minute | Self::Hour)
    }

    fn micros(self) -> i128 {
        match self {
            Self::Microsecond => 1,
            Self::Second => 1_000_000,
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
            Self::Week => 7 * DAY_MICROS,
            _ => DAY_MICROS,
        }
    }
}

const DAY_MICROS: i128 = 86_400_000_000;

fn days_in_month(year: u16, month: u8) -> u8 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 => 28 + u8::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A day of the calendar: no zero year, month or day.
pub fn is_real(date: Date) -> bool {
    (1..=12).contains(&date.month) && date.day >= 1 && date.day <= days_in_month(date.year, date.month)
}

/// A date and time at the front of text, as MySQL reads them; the digits of the fraction; what is left.
fn read_datetime(text: &str) -> Option<(DateTime, u8, &str)> {
    let text = text.trim_start();
    let mut reader = Reader { rest: text };
    let run = text.bytes().take_while(u8::is_ascii_digit).count();
    let mut value = DateTime::default();
    let mut has_time = false;
    if matches!(run, 6 | 8 | 12 | 14) {
        let long = matches!(run, 8 | 14);
        value.date.year = reader.number(if long { 4 } else { 2 })?.0;
        if !long {
            value.date.year = full_year(value.date.year);
        }
        value.date.month = reader.number(2)?.0 as u8;
        value.date.day = reader.number(2)?.0 as u8;
        if run >= 12 {
            value.hour = reader.number(2)?.0 as u8;
            value.minute = reader.number(2)?.0 as u8;
            value.second = reader.number(2)?.0 as u8;
            has_time = true;
        }
    } else {
        let (year, digits) = reader.number(4)?;
        value.date.year = if digits == 2 { full_year(year) } else { year };
        reader.separator()?;
        value.date.month = reader.number(2)?.0 as u8;
        reader.separator()?;
        value.date.day = reader.number(2)?.0 as u8;
        let mut after = Reader { rest: reader.rest };
        if (after.take('T') || after.blanks()) && after.starts_with_digit() {
            reader = after;
            has_time = true;
            value.hour = reader.number(2)?.0 as u8;
            if reader.take(':') {
                value.minute = reader.number(2)?.0 as u8;
                if reader.take(':') {
                    value.second = reader.number(2)?.0 as u8;
                }
            }
        }
    }
    let mut digits = 0;
    let mut carry = false;
    if has_time && reader.rest.starts_with('.') {
        reader.take('.');
        (value.micro, digits, carry) = reader.fraction();
    }
    if value.hour > 23 || value.minute > 59 || value.second > 59 {
        return None;
    }
    if carry {
        value = timestamp_to_datetime(datetime_to_timestamp(value).checked_add(1)?);
    }
    Some((value, digits, reader.rest))
}

fn full_year(two_digits: u16) -> u16 {
    if two_digits < 70 { 2000 + two_digits } else { 1900 + two_digits }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Up to `digits_max` digits, at least one; and how many there were.
    fn number(&mut self, digits_max: usize) -> Option<(u16, usize)> {
        let digits = self.rest.bytes().take(digits_max).take_while(u8::is_ascii_digit).count();
        let value = self.rest[..digits].parse().ok()?;
        self.rest = &self.rest[digits..];
        Some((value, digits))
    }

    fn take(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn separator(&mut self) -> Option<()> {
        let c = self.rest.chars().next().filter(char::is_ascii_punctuation)?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(())
    }

    fn blanks(&mut self) -> bool {
        let rest = self.rest.trim_start_matches(' ');
        let some = rest.len() < self.rest.len();
        self.rest = rest;
        some
    }

    fn starts_with_digit(&self) -> bool {
        self.rest.starts_with(|c: char| c.is_ascii_digit())
    }

    /// Microseconds, how many digits were written (at most 6), and whether a seventh rounds them up.
    fn fraction(&mut self) -> (u32, u8, bool) {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let shown = digits.min(6);
        let micros = format!("{:0<6}", &self.rest[..shown]).parse().unwrap_or(0);
        let carry = self.rest.as_bytes()[..digits].get(6).is_some_and(|d| *d >= b'5');
        self.rest = &self.rest[digits..];
        (micros, shown as u8, carry)
    }
}

/// A date literal: a real day and nothing else.
pub fn parse_date_text(text: &str) -> Option<Date> {
    let (value, _, rest) = read_datetime(text)?;
    (rest.is_empty()
        && is_real(value.date)
        && (DateTime { date: value.date, ..DateTime::default() }) == value)
        .then_some(value.date)
}

/// A date or datetime literal, whole; and the digits of its fraction. The zero date is one.
pub fn parse_datetime_text(text: &str) -> Option<(DateTime, u8)> {
    let (value, fsp, rest) = read_datetime(text)?;
    (rest.is_empty() && (is_real(value.date) || value == DateTime::default())).then_some((value, fsp))
}

/// `[-]h+:mm[:ss[.ffffff]]`: microseconds and the digits of the fraction.
pub fn parse_time_text(text: &str) -> Option<(i64, u8)> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let mut reader = Reader { rest: unsigned };
    let hours = i64::from(reader.number(3)?.0);
    if !reader.take(':') {
        return None;
    }
    let minutes = i64::from(reader.number(2)?.0);
    let seconds = if reader.take(':') { i64::from(reader.number(2)?.0) } else { 0 };
    let (micros, fsp, carry) = if reader.take('.') { reader.fraction() } else { (0, 0, false) };
    if !reader.rest.is_empty() || hours > 838 || minutes > 59 || seconds > 59 {
        return None;
    }
    let total = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + i64::from(micros) + i64::from(carry);
    Some((if text.starts_with('-') { -total } else { total }, fsp))
}

/// Date and time of a value; `None` for what is no date.
pub fn to_datetime(value: &Val<'_>) -> Result<Option<(DateTime, u8)>, EvalError> {
    Ok(match value {
        Val::Date(date) => Some((DateTime { date: *date, ..DateTime::default() }, 0)),
        Val::DateTime(value, fsp) => Some((*value, *fsp)),
        Val::Text(text) | Val::Label(text, _) | Val::Json(text) => match read_datetime(text) {
            Some((_, _, rest)) if is_offset(rest) => {
                return Err(EvalError(format!("'{text}' has a time zone, which is not supported in dates")));
            }
            // What looks like a time zone and is none spoils the whole.
            Some((_, _, rest)) if text.contains(':') && rest.starts_with(['+', '-']) => None,
            Some((value, fsp, _)) => is_real(value.date).then_some((value, fsp)),
            None => None,
        },
        _ => None,
    })
}

fn is_offset(rest: &str) -> bool {
    let digits = rest.strip_prefix(['+', '-']).unwrap_or("");
    digits.len() >= 5 && digits.as_bytes()[2] == b':'
}

/// Rounded to `fsp` digits of a second.
pub fn rounded(value: DateTime, fsp: u8) -> DateTime {
    let unit = 10_i64.pow(6 - u32::from(fsp.min(6)));
    let micro = i64::from(value.micro);
    if micro % unit == 0 {
        return value;
    }
    let whole = datetime_to_timestamp(DateTime { micro: 0, ..value });
    timestamp_to_datetime(whole.saturating_add((micro + unit / 2) / unit * unit))
}

/// `None` for a date that is none and for results outside the years 0 to 9999. `amount` is in microseconds for
/// seconds, otherwise in units.
pub fn add(value: DateTime, amount: i128, unit: Unit) -> Option<DateTime> {
    if !is_real(value.date) {
        return None;
    }
    let months = match unit {
        Unit::Month => amount,
        Unit::Quarter => amount.checked_mul(3)?,
        Unit::Year => amount.checked_mul(12)?,
        _ => {
            let micros = if unit == Unit::Second { amount } else { amount.checked_mul(unit.micros())? };
            let sum = i128::from(datetime_to_timestamp(value)).checked_add(micros)?;
            let days = sum.div_euclid(DAY_MICROS);
            if !(i128::from(FIRST_DAY)..=i128::from(LAST_DAY)).contains(&days) {
                return None;
            }
            return Some(timestamp_to_datetime(i64::try_from(sum).ok()?));
        }
    };
    let total = (i128::from(value.date.year) * 12 + i128::from(value.date.month) - 1).checked_add(months)?;
    if !(0..120_000).contains(&total) {
        return None;
    }
    let (year, month) = ((total / 12) as u16, (total % 12) as u8 + 1);
    let date = Date { year, month, day: value.date.day.min(days_in_month(year, month)) };
    Some(DateTime { date, ..value })
}

/// 0001-01-01 and 9999-12-31, in days since 1970.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

pub fn last_day(date: Date) -> Option<Date> {
    ((1..=12).contains(&date.month)).then(|| Date { day: days_in_month(date.year, date.month), ..date })
}

/// Days from Monday; `None` for a date that is none.
pub fn weekday(date: Date) -> Option<i64> {
    is_real(date).then(|| (days_of_date(date) + 3).rem_euclid(7))
}

pub fn day_of_year(date: Date) -> Option<i64> {
    is_real(date).then(|| days_of_date(date) - days_of_date(Date { month: 1, day: 1, ..date }) + 1)
}

pub fn days_between(left: Date, right: Date) -> Option<i64> {
    (is_real(left) && is_real(right)).then(|| days_of_date(left) - days_of_date(right))
}

/// Microseconds since 1970; 0 outside what the server has seconds for.
pub fn unix_micros(value: DateTime) -> i64 {
    let micros = if is_real(value.date) { datetime_to_timestamp(value) } else { TIMESTAMP_ZERO };
    if (0..UNIX_SECONDS_END * 1_000_000).contains(&micros) { micros } else { 0 }
}

pub fn from_unix_micros(micros: i128) -> Option<DateTime> {
    let end = i128::from(UNIX_SECONDS_END) * 1_000_000;
    (0..end).contains(&micros).then(|| timestamp_to_datetime(micros as i64))
}

/// The first second that is too late: 3001-01-19 00:00:00.
const UNIX_SECONDS_END: i64 = 32_536_771_200;

pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The letters of DATE_FORMAT that count weeks, which we refuse.
pub fn has_week_letters(format: &str) -> bool {
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c == '%' && matches!(chars.next(), Some('U' | 'u' | 'V' | 'v' | 'X' | 'x')) {
            return true;
        }
    }
    false
}

/// `None` where a letter has no meaning for the date.
pub fn format(value: DateTime, format: &str) -> Option<String> {
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    let (date, hour) = (value.date, value.hour);
    let hour12 = (hour + 11) % 12 + 1;
    let half = if hour < 12 { "AM" } else { "PM" };
    let month = || MONTHS.get(usize::from(date.month).checked_sub(1)?).copied();
    let day = || weekday(date).map(|day| WEEKDAYS[day as usize]);
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(letter) = chars.next() else {
            out.push('%');
            break;
        };
        let written = match letter {
            'a' => write!(out, "{}", &day()?[..3]),
            'W' => write!(out, "{}", day()?),
            'w' => write!(out, "{}", (weekday(date)? + 1) % 7),
            'b' => write!(out, "{}", &month()?[..3]),
            'M' => write!(out, "{}", month()?),
            'c' => write!(out, "{}", date.month),
            'm' => write!(out, "{:02}", date.month),
            'd' => write!(out, "{:02}", date.day),
            'e' => write!(out, "{}", date.day),
            'D' => write!(out, "{}{}", date.day, ordinal(date.day)),
            'f' => write!(out, "{:06}", value.micro),
            'H' => write!(out, "{hour:02}"),
            'k' => write!(out, "{hour}"),
            'h' | 'I' => write!(out, "{hour12:02}"),
            'l' => write!(out, "{hour12}"),
            'i' => write!(out, "{:02}", value.minute),
            'S' | 's' => write!(out, "{:02}", value.second),
            'j' => write!(out, "{:03}", day_of_year(date)?),
            'p' => write!(out, "{half}"),
            'r' => write!(out, "{hour12:02}:{:02}:{:02} {half}", value.minute, value.second),
            'T' => write!(out, "{hour:02}:{:02}:{:02}", value.minute, value.second),
            'Y' => write!(out, "{:04}", date.year),
            'y' => write!(out, "{:02}", date.year % 100),
            other => {
                out.push(other);
                Ok(())
            }
        };
        written.ok()?;
    }
    Some(out)
}

fn ordinal(day: u8) -> &'static str {
    match (day % 10, day / 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datetime(text: &str) -> DateTime {
        parse_datetime_text(text).unwrap().0
    }

    #[test]
    fn dates_are_read_as_mysql_reads_them() {
        for (text, printed) in [
            ("2026-01-02", "2026-01-02 00:00:00.000000"),
            ("26-1-2", "2026-01-02 00:00:00.000000"),
            ("99.12.31 3:4", "1999-12-31 03:04:00.000000"),
            ("20260102", "2026-01-02 00:00:00.000000"),
            ("20260102030405", "2026-01-02 03:04:05.000000"),
            ("2026-01-02T03:04:05.5", "2026-01-02 03:04:05.500000"),
            ("2026-12-31 23:59:59.9999996", "2027-01-01 00:00:00.000000"),
            ("0000-00-00", "0000-00-00 00:00:00.000000"),
        ] {
            assert_eq!(base::value::format_datetime(datetime(text), 6), printed, "{text}");
        }
        for text in ["2026-02-30", "2026-13-01", "2026-01-02 24:00:00", "abc", "2026", "2026-01-02x", ""] {
            assert_eq!(parse_datetime_text(text), None, "{text}");
        }
        assert_eq!(parse_time_text("-10:11:12.5"), Some((-36_672_500_000, 1)));
        let zoned = to_datetime(&Val::text("2026-01-02 03:04:05+08:00"));
        assert!(zoned.is_err());
        assert_eq!(to_datetime(&Val::text("2026-01-02abc")).unwrap().unwrap().0, datetime("2026-01-02"));
    }

    #[test]
    fn intervals_keep_to_the_calendar() {
        let day = datetime("2026-01-31 10:00:00");
        assert_eq!(add(day, 1, Unit::Month), Some(datetime("2026-02-28 10:00:00")));
        assert_eq!(add(day, -1, Unit::Quarter), Some(datetime("2025-10-31 10:00:00")));
        assert_eq!(add(day, 25, Unit::Hour), Some(datetime("2026-02-01 11:00:00")));
        assert_eq!(add(day, 8000, Unit::Year), None);
        assert_eq!(add(day, i128::MAX, Unit::Week), None);
        assert_eq!(add(DateTime::default(), 1, Unit::Day), None);
        assert_eq!(rounded(datetime("2026-01-02 23:59:59.6"), 0), datetime("2026-01-03"));
    }

    #[test]
    fn formats_print_and_refuse_zero_dates() {
        let value = datetime("2026-01-02 15:04:05.25");
        assert_eq!(
            format(value, "%W %D %M %y, %l:%i %p %j%% %q").unwrap(),
            "Friday 2nd January 26, 3:04 PM 002% q"
        );
        assert_eq!(format(DateTime::default(), "%W"), None);
        assert_eq!(format(DateTime::default(), "%Y-%m-%d").unwrap(), "0000-00-00");
        assert!(has_week_letters("%x") && !has_week_letters("%%x"));
    }
}
