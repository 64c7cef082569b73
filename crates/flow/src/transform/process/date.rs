//! Dates and times in texts, by formats that are read once a flow.
//!
//! | in a pattern | reads |
//! |---|---|
//! | `yyyy`, `yy` | year; two digits are 1970 to 2069 |
//! | `MMMM`, `MMM`, `MM`, `M` | month: name, first three letters, two digits, one or two |
//! | `dd`, `d`, `HH`, `H`, `hh`, `h`, `mm`, `m`, `ss`, `s` | day, hour of 24, hour of 12, minute, second |
//! | `S`, `SSS`, `SSSSSS` … | fraction of a second, any number of digits |
//! | `a` | AM or PM |
//! | `EEEE`, `EEE` | name of the weekday, which is not compared with the date |
//! | `Z`, `ZZ` | `+0800`, `+08:00` or `Z`; `z` also `UTC` and `GMT` |
//! | `'text'` and all other characters | themselves; a blank stands for one or more |

use super::typed::{Typed, cut, day, shown};
use base::{Column, Value};
use jiff::tz::TimeZone;

const DAY_SECONDS: i64 = 86_400;

/// A `date` step, compiled.
#[derive(Clone, Debug)]
pub struct DateReader {
    formats: Vec<Format>,
    zone: Option<TimeZone>,
    ty: Typed,
    pub column: Column,
}

#[derive(Clone, Debug)]
enum Format {
    Iso8601,
    Unix { per_second: u32 },
    Pattern(Vec<Part>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Year { digits: usize },
    MonthName { whole: bool },
    Number { field: Field, digits_min: usize },
    Fraction,
    HalfDay,
    Weekday,
    Offset { names: bool },
    Blank,
    Character(char),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Month,
    Day,
    Hour,
    Hour12,
    Minute,
    Second,
}

/// What a text said so far.
#[derive(Default)]
struct Said {
    year: Option<i64>,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    micros: i64,
    afternoon: Option<bool>,
    offset_seconds: Option<i64>,
}

impl DateReader {
    pub fn compile(
        formats: &[String],
        into: &str,
        zone: Option<&str>,
        ty: Option<&str>,
    ) -> Result<Self, String> {
        let ty = ty.unwrap_or("timestamp(3)");
        let ty = match Typed::parse(ty) {
            Some(ty @ (Typed::DateTime { .. } | Typed::Timestamp { .. })) => ty,
            _ => return Err(format!("type `{ty}` is not datetime(n) or timestamp(n)")),
        };
        if formats.is_empty() {
            return Err("`formats` is empty".to_owned());
        }
        let formats = formats.iter().map(|text| compile(text)).collect::<Result<_, _>>()?;
        let find = |name| TimeZone::get(name).map_err(|_| format!("`{name}` is not a time zone"));
        let zone = zone.map(find).transpose()?;
        let column = ty.column(into);
        Ok(Self { formats, zone, ty, column })
    }

    pub fn read(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let micros = self.formats.iter().find_map(|format| self.by(format, text));
        let micros = micros.ok_or_else(|| format!("{} has none of the formats", shown(text)))?;
        Ok(match self.ty {
            Typed::DateTime { fsp } => Value::DateTime(base::value::timestamp_to_datetime(cut(micros, fsp))),
            Typed::Timestamp { fsp } => Value::Timestamp(cut(micros, fsp)),
            _ => Value::Null,
        })
    }

    fn by(&self, format: &Format, text: &str) -> Option<i64> {
        match format {
            Format::Iso8601 => iso8601(text, self.zone.as_ref()),
            Format::Unix { per_second } => unix(text, *per_second),
            Format::Pattern(parts) => {
                let mut said = Said::default();
                let mut rest = text;
                for part in parts {
                    rest = take(*part, rest, &mut said)?;
                }
                if rest.is_empty() { said.instant(self.zone.as_ref()) } else { None }
            }
        }
    }
}

fn compile(text: &str) -> Result<Format, String> {
    Ok(match text {
        "ISO8601" => Format::Iso8601,
        "UNIX" => Format::Unix { per_second: 1 },
        "UNIX_MS" => Format::Unix { per_second: 1000 },
        _ => Format::Pattern(compile_pattern(text)?),
    })
}

fn compile_pattern(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            let (quoted, after) =
                rest[1..].split_once('\'').ok_or_else(|| format!("`{text}`: a quote has no end"))?;
            // Two quotes are one.
            let quoted = if quoted.is_empty() { "'" } else { quoted };
            parts.extend(quoted.chars().map(Part::Character));
            rest = after;
            continue;
        }
        let width = rest.chars().take_while(|other| *other == c).count();
        let run = &rest[..width * c.len_utf8()];
        rest = &rest[run.len()..];
        let number = |field| Part::Number { field, digits_min: width.min(2) };
        let part = match c {
            'y' | 'u' | 'Y' => Part::Year { digits: if width == 2 { 2 } else { 4 } },
            'M' if width >= 3 => Part::MonthName { whole: width > 3 },
            'M' => number(Field::Month),
            'd' => number(Field::Day),
            'H' => number(Field::Hour),
            'h' => number(Field::Hour12),
            'm' => number(Field::Minute),
            's' => number(Field::Second),
            'S' => Part::Fraction,
            'a' => Part::HalfDay,
            'E' => Part::Weekday,
            'Z' | 'X' | 'x' => Part::Offset { names: false },
            'z' => Part::Offset { names: true },
            c if c.is_ascii_alphabetic() => {
                return Err(format!("`{text}`: `{c}` has no meaning: quote text as 'text'"));
            }
            ' ' => Part::Blank,
            c => {
                parts.extend(run.chars().map(|_| Part::Character(c)));
                continue;
            }
        };
        parts.push(part);
    }
    let has = |wanted: fn(&Part) -> bool| parts.iter().any(wanted);
    let whole = has(|p| matches!(p, Part::Year { .. }))
        && has(|p| matches!(p, Part::MonthName { .. } | Part::Number { field: Field::Month, .. }))
        && has(|p| matches!(p, Part::Number { field: Field::Day, .. }));
    if !whole {
        return Err(format!("`{text}` has no year, month or day: a guess would differ on replay"));
    }
    Ok(parts)
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// What is left of `text` behind the part.
fn take<'t>(part: Part, text: &'t str, said: &mut Said) -> Option<&'t str> {
    match part {
        Part::Character(c) => text.strip_prefix(c),
        Part::Blank => {
            let rest = text.trim_start_matches(' ');
            (rest.len() < text.len()).then_some(rest)
        }
        Part::Year { digits } => {
            let (year, rest) = number(text, digits, digits)?;
            said.year = Some(match digits {
                2 if year < 70 => 2000 + year,
                2 => 1900 + year,
                _ => year,
            });
            Some(rest)
        }
        Part::MonthName { whole } => {
            let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
            let word = text[..if whole { letters } else { letters.min(3) }].to_ascii_lowercase();
            let same = |month: &str| {
                if whole { *month == word } else { word.len() == 3 && month.starts_with(&word) }
            };
            said.month = MONTHS.iter().position(|month| same(month))? as u8 + 1;
            Some(&text[word.len()..])
        }
        Part::Number { field, digits_min } => {
            let (value, rest) = number(text, digits_min, 2)?;
            let value = value as u8;
            match field {
                Field::Month => said.month = value,
                Field::Day => said.day = value,
                Field::Hour => said.hour = value,
                Field::Hour12 => said.hour = Some(value % 12).filter(|_| (1..=12).contains(&value))?,
                Field::Minute => said.minute = value,
                Field::Second => said.second = value,
            }
            Some(rest)
        }
        Part::Fraction => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            said.micros = micros_of(&text[..digits])?;
            Some(&text[digits..])
        }
        Part::HalfDay => {
            let word = text.get(..2)?;
            said.afternoon = Some(word.eq_ignore_ascii_case("pm"));
            (word.eq_ignore_ascii_case("am") || word.eq_ignore_ascii_case("pm")).then(|| &text[2..])
        }
        Part::Weekday => {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            (text.len() - rest.len() >= 3).then_some(rest)
        }
        Part::Offset { names } => {
            for name in ["UTC", "GMT"].into_iter().filter(|_| names) {
                if let Some(rest) = text.strip_prefix(name) {
                    said.offset_seconds = Some(0);
                    return Some(rest);
                }
            }
            let (seconds, rest) = offset(text)?;
            said.offset_seconds = Some(seconds);
            Some(rest)
        }
    }
}

/// Digits at the front of a text, and what is left.
fn number(text: &str, digits_min: usize, digits_max: usize) -> Option<(i64, &str)> {
    let digits = text.bytes().take(digits_max).take_while(u8::is_ascii_digit).count();
    let value = text[..digits].parse().ok().filter(|_| digits >= digits_min)?;
    Some((value, &text[digits..]))
}

/// A fraction's digits as microseconds; more than six are cut.
fn micros_of(digits: &str) -> Option<i64> {
    let shown = &digits[..digits.len().min(6)];
    format!("{shown:0<6}").parse().ok().filter(|_| !digits.is_empty())
}

/// `Z`, `+08`, `+0800` or `+08:00`, in seconds.
fn offset(text: &str) -> Option<(i64, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((0, rest));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = number(&text[1..], 2, 2)?;
    let (minutes, rest) = match rest.strip_prefix(':') {
        Some(rest) => number(rest, 2, 2)?,
        None => number(rest, 2, 2).unwrap_or((0, rest)),
    };
    (hours <= 18 && minutes < 60).then_some((sign * (hours * 3600 + minutes * 60), rest))
}

impl Said {
    /// Microseconds since 1970 in UTC.
    fn instant(&self, zone: Option<&TimeZone>) -> Option<i64> {
        let days = day(self.year?, self.month, self.day)?;
        let hour = match self.afternoon {
            None => self.hour,
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
        };
        if hour > 23 || self.minute > 59 || self.second > 59 {
            return None;
        }
        let seconds = i64::from(hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let local = days * DAY_SECONDS + seconds;
        let utc = match (self.offset_seconds, zone) {
            (Some(offset), _) => local - offset,
            (None, None) => local,
            (None, Some(zone)) => {
                let civil = jiff::civil::DateTime::new(
                    i16::try_from(self.year?).ok()?,
                    self.month as i8,
                    self.day as i8,
                    hour as i8,
                    self.minute as i8,
                    self.second as i8,
                    0,
                );
                // A time that a clock skipped or showed twice: as the clock went on before.
                zone.to_ambiguous_timestamp(civil.ok()?).compatible().ok()?.as_second()
            }
        };
        utc.checked_mul(1_000_000)?.checked_add(self.micros)
    }
}

/// `2026-01-02T03:04:05.678+08:00` and its shorter forms; a blank may stand for the `T`. Without a zone in `zone`, or UTC.
pub fn iso8601(text: &str, zone: Option<&TimeZone>) -> Option<i64> {
    let mut said = Said::default();
    let (year, rest) = number(text, 4, 4)?;
    said.year = Some(year);
    let (month, rest) = number(rest.strip_prefix('-')?, 2, 2)?;
    let (day, mut rest) = number(rest.strip_prefix('-')?, 2, 2)?;
    (said.month, said.day) = (month as u8, day as u8);
    if let Some(time) = rest.strip_prefix(['T', 't', ' ']) {
        let (hour, after) = number(time, 2, 2)?;
        let (minute, after) = number(after.strip_prefix(':')?, 2, 2)?;
        (said.hour, said.minute, rest) = (hour as u8, minute as u8, after);
        if let Some(after) = rest.strip_prefix(':') {
            let (second, after) = number(after, 2, 2)?;
            (said.second, rest) = (second as u8, after);
            if let Some(after) = rest.strip_prefix(['.', ',']) {
                let digits = after.bytes().take_while(u8::is_ascii_digit).count();
                said.micros = micros_of(&after[..digits])?;
                rest = &after[digits..];
            }
        }
        if !rest.is_empty() {
            let (seconds, after) = offset(rest)?;
            (said.offset_seconds, rest) = (Some(seconds), after);
        }
    }
    if rest.is_empty() { said.instant(zone) } else { None }
}

/// A number of seconds, or of parts of one, with a fraction.
fn unix(text: &str, per_second: u32) -> Option<i64> {
    let negative = text.starts_with('-');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || whole.starts_with('+') {
        return None;
    }
    let unit = 1_000_000 / i64::from(per_second);
    let whole: i64 = whole.parse().ok()?;
    let part = micros_of(fraction)? * unit / 1_000_000;
    let micros = whole.checked_mul(unit)?.checked_add(if negative { -part } else { part })?;
    // What a calendar of four digits has.
    let years = -62_135_596_800_000_000..253_402_300_800_000_000;
    years.contains(&micros).then_some(micros)
}
