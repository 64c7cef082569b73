//! Types of columns out of their values, and values out of texts.
//!
//! A column's type is the narrowest that holds every value of it: boolean, integer, exact decimal, date, date and time, time, JSON;
//! text otherwise. Numbers that are really names stay text: with leading zeros, with a plus. A number with a fraction is DECIMAL
//! and never a float, unless it has an exponent. Memory does not grow with the rows.

use super::cell::Cell;
use base::{Column, ColumnType, Date, DateTime, Generated, Value};

/// Digits that a DECIMAL can have, and those behind its point.
const DECIMAL_DIGITS_MAX: usize = 65;
const DECIMAL_SCALE_MAX: usize = 30;
/// Digits that a DECIMAL has at least: a column does not become another with each larger amount.
const DECIMAL_DIGITS_MIN: usize = 18;
/// Characters of texts that are told: the next that holds all.
const TEXT_STEPS: [u64; 3] = [255, 1024, 4096];
const LONG_TEXT: u64 = 4_294_967_295;

/// What is known of a column.
#[derive(Clone, Debug)]
pub struct Guess {
    values: u64,
    /// Each as long as every value was one.
    bool: bool,
    int: bool,
    decimal: bool,
    double: bool,
    date: bool,
    datetime: bool,
    timestamp: bool,
    time: bool,
    json: bool,
    negative: bool,
    whole_max: usize,
    scale_max: usize,
    /// Of integers: whether all are in BIGINT, and in BIGINT UNSIGNED.
    in_i64: bool,
    in_u64: bool,
    fraction_max: u8,
    chars_max: u64,
}

impl Default for Guess {
    fn default() -> Self {
        Self {
            values: 0,
            bool: true,
            int: true,
            decimal: true,
            double: true,
            date: true,
            datetime: true,
            timestamp: true,
            time: true,
            json: true,
            negative: false,
            whole_max: 0,
            scale_max: 0,
            in_i64: true,
            in_u64: true,
            fraction_max: 0,
            chars_max: 0,
        }
    }
}

impl Guess {
    pub fn see(&mut self, cell: &Cell<'_>, formats: &[String]) {
        match cell {
            Cell::Null => return,
            Cell::Bool(_) => {
                self.chars_max = self.chars_max.max(5);
                self.only(|it| &mut it.bool);
            }
            Cell::DateTime(value) => self.see_datetime(*value),
            Cell::Time(_) => {
                self.chars_max = self.chars_max.max(17);
                self.only(|it| &mut it.time);
            }
            Cell::Json(text) => {
                self.chars_max = self.chars_max.max(text.chars().count() as u64);
                self.only(|it| &mut it.json);
            }
            Cell::Number(text) => {
                self.chars_max = self.chars_max.max(text.len() as u64);
                self.see_number(text, false);
            }
            Cell::Text(text) => self.see_text(text, formats),
        }
        self.values += 1;
    }

    /// All but one are out.
    fn only(&mut self, kept: fn(&mut Self) -> &mut bool) {
        let was = *kept(self);
        for flag in [
            &mut self.bool,
            &mut self.int,
            &mut self.decimal,
            &mut self.double,
            &mut self.date,
            &mut self.datetime,
            &mut self.timestamp,
            &mut self.time,
            &mut self.json,
        ] {
            *flag = false;
        }
        *kept(self) = was;
    }

    fn see_datetime(&mut self, value: DateTime) {
        let was = (self.date, self.datetime);
        self.only(|it| &mut it.datetime);
        self.date = was.0 && is_midnight(value);
        self.chars_max = self.chars_max.max(26);
        if value.micro > 0 {
            self.fraction_max = 6;
        }
    }

    fn see_number(&mut self, text: &str, may_be_other: bool) {
        let was = (self.int, self.decimal, self.double);
        if !may_be_other {
            self.only(|it| &mut it.double);
        }
        match number(text) {
            Some(Number::Int { digits, negative }) => {
                (self.int, self.decimal, self.double) = was;
                self.negative |= negative;
                self.whole_max = self.whole_max.max(digits);
                if digits > 18 {
                    self.in_i64 &= text.parse::<i64>().is_ok();
                    self.in_u64 &= text.parse::<u64>().is_ok();
                }
            }
            Some(Number::Decimal { whole, scale }) => {
                (self.int, self.decimal, self.double) = (false, was.1, was.2);
                self.whole_max = self.whole_max.max(whole);
                self.scale_max = self.scale_max.max(scale);
            }
            Some(Number::Double) => (self.int, self.decimal, self.double) = (false, false, was.2),
            None => (self.int, self.decimal, self.double) = (false, false, false),
        }
    }

    fn see_text(&mut self, text: &str, formats: &[String]) {
        self.chars_max = self.chars_max.max(text.chars().count() as u64);
        self.json = false;
        let plain = text.trim();
        self.bool &= boolean(plain).is_some_and(|_| !plain.starts_with(['0', '1']));
        if self.int || self.decimal || self.double {
            self.see_number(plain, true);
        }
        if !(self.date || self.datetime || self.timestamp || self.time) {
            return;
        }
        match temporal(plain, formats) {
            Some(Temporal::DateTime(value, with_time)) => {
                (self.timestamp, self.time) = (false, false);
                self.date &= !with_time;
                if value.micro > 0 {
                    self.fraction_max = 6;
                }
            }
            Some(Temporal::Timestamp(micros)) => {
                (self.date, self.datetime, self.time) = (false, false, false);
                if micros % 1_000_000 != 0 {
                    self.fraction_max = 6;
                }
            }
            Some(Temporal::Time(micros)) => {
                (self.date, self.datetime, self.timestamp) = (false, false, false);
                if micros % 1_000_000 != 0 {
                    self.fraction_max = 6;
                }
            }
            None => (self.date, self.datetime, self.timestamp, self.time) = (false, false, false, false),
        }
    }

    /// The type that holds all that was seen.
    pub fn ty(&self) -> ColumnType {
        let fsp = self.fraction_max;
        let text = || {
            let chars = TEXT_STEPS.into_iter().find(|most| self.chars_max <= *most).unwrap_or(LONG_TEXT);
            ColumnType::Text { chars_max: chars }
        };
        let whole = (DECIMAL_DIGITS_MIN.saturating_sub(self.scale_max)).max(self.whole_max);
        let exact = self.scale_max <= DECIMAL_SCALE_MAX && whole + self.scale_max <= DECIMAL_DIGITS_MAX;
        match self {
            _ if self.values == 0 => text(),
            Self { bool: true, .. } => ColumnType::TinyInt { unsigned: false },
            Self { int: true, in_i64: true, .. } => ColumnType::BigInt { unsigned: false },
            Self { int: true, in_u64: true, negative: false, .. } => ColumnType::BigInt { unsigned: true },
            Self { decimal: true, .. } if exact => {
                ColumnType::Decimal { precision: (whole + self.scale_max) as u8, scale: self.scale_max as u8 }
            }
            // More digits than any number of a table can have.
            Self { decimal: true, .. } => text(),
            Self { double: true, .. } => ColumnType::Double,
            Self { date: true, .. } => ColumnType::Date,
            Self { datetime: true, .. } => ColumnType::DateTime { fsp },
            Self { timestamp: true, .. } => ColumnType::Timestamp { fsp },
            Self { time: true, .. } => ColumnType::Time { fsp },
            Self { json: true, .. } => ColumnType::Json,
            _ => text(),
        }
    }
}

/// A column of a type, as a source describes it that knows no more.
pub fn column(name: &str, ty: ColumnType) -> Column {
    let fraction = |name: &str, fsp: u8| if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") };
    let sql_type = match &ty {
        ColumnType::TinyInt { unsigned: false } => "tinyint(1)".to_owned(),
        ColumnType::TinyInt { unsigned: true } => "tinyint unsigned".to_owned(),
        ColumnType::SmallInt { .. } => "smallint".to_owned(),
        ColumnType::Int { .. } => "int".to_owned(),
        ColumnType::BigInt { unsigned } => if *unsigned { "bigint unsigned" } else { "bigint" }.to_owned(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Float => "float".to_owned(),
        ColumnType::Double => "double".to_owned(),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Time { fsp } => fraction("time", *fsp),
        ColumnType::DateTime { fsp } => fraction("datetime", *fsp),
        ColumnType::Timestamp { fsp } => fraction("timestamp", *fsp),
        ColumnType::Json => "json".to_owned(),
        ColumnType::Text { chars_max } if *chars_max < 65_536 => format!("varchar({chars_max})"),
        ColumnType::VarBinary { bytes_max } if *bytes_max < 65_536 => format!("varbinary({bytes_max})"),
        ColumnType::VarBinary { .. } => "longblob".to_owned(),
        _ => "longtext".to_owned(),
    };
    let text = matches!(ty, ColumnType::Text { .. });
    Column {
        name: name.to_owned(),
        ty,
        sql_type,
        nullable: true,
        charset: text.then(|| "utf8mb4".to_owned()),
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

/// A type as people declare it: `decimal(12,2)`.
pub fn declared(text: &str) -> Result<ColumnType, String> {
    let plain = text.trim().to_ascii_lowercase();
    let (name, arguments) = match plain.split_once('(') {
        None => (plain.as_str(), Vec::new()),
        Some((name, rest)) => {
            let inside = rest.strip_suffix(')').unwrap_or("?");
            (name.trim(), inside.split(',').map(|part| part.trim().parse::<u64>().ok()).collect())
        }
    };
    let fsp = |fsp: u64| (fsp <= 6).then_some(fsp as u8);
    let found = match (name, &arguments[..]) {
        ("boolean" | "bool", []) => Some(ColumnType::TinyInt { unsigned: false }),
        ("bigint" | "int" | "integer", []) => Some(ColumnType::BigInt { unsigned: false }),
        ("bigint unsigned", []) => Some(ColumnType::BigInt { unsigned: true }),
        ("decimal" | "numeric", [Some(precision @ 1..=65), Some(scale @ 0..=30)]) if scale <= precision => {
            Some(ColumnType::Decimal { precision: *precision as u8, scale: *scale as u8 })
        }
        ("double" | "float", []) => Some(ColumnType::Double),
        ("date", []) => Some(ColumnType::Date),
        ("time", []) => Some(ColumnType::Time { fsp: 0 }),
        ("time", [Some(digits)]) => fsp(*digits).map(|fsp| ColumnType::Time { fsp }),
        ("datetime", []) => Some(ColumnType::DateTime { fsp: 0 }),
        ("datetime", [Some(digits)]) => fsp(*digits).map(|fsp| ColumnType::DateTime { fsp }),
        ("timestamp", []) => Some(ColumnType::Timestamp { fsp: 0 }),
        ("timestamp", [Some(digits)]) => fsp(*digits).map(|fsp| ColumnType::Timestamp { fsp }),
        ("json", []) => Some(ColumnType::Json),
        ("text", []) => Some(ColumnType::Text { chars_max: LONG_TEXT }),
        ("varchar", [Some(chars @ 1..=65_535)]) => Some(ColumnType::Text { chars_max: *chars }),
        _ => None,
    };
    found.ok_or_else(|| {
        format!(
            "`{text}` is no type: write bigint, decimal(p,s), double, boolean, date, time, datetime, datetime(6), timestamp, json, text \
             or varchar(n)"
        )
    })
}

/// The value of a cell in a column; `Err` says why it is none.
pub fn value(cell: &Cell<'_>, column: &Column, formats: &[String]) -> Result<Value, String> {
    let none = |shown: &str| {
        let shown: String = shown.chars().take(60).collect();
        Err(format!("column {}: `{shown}` is no {}", column.name, column.sql_type))
    };
    let text = match cell {
        Cell::Null => return Ok(Value::Null),
        Cell::DateTime(value) => {
            let value = *value;
            return match column.ty {
                ColumnType::Date if is_midnight(value) => Ok(Value::Date(value.date)),
                ColumnType::DateTime { .. } => Ok(Value::DateTime(value)),
                ColumnType::Timestamp { .. } => {
                    Ok(Value::Timestamp(base::value::datetime_to_timestamp(value)))
                }
                ColumnType::Text { .. } => Ok(Value::Text(shown_datetime(value))),
                _ => none(&shown_datetime(value)),
            };
        }
        Cell::Time(micros) => {
            let micros = *micros;
            let shown = base::value::format_time(micros, if micros % 1_000_000 == 0 { 0 } else { 6 });
            return match column.ty {
                ColumnType::Time { .. } => Ok(Value::Time(micros)),
                ColumnType::Text { .. } => Ok(Value::Text(shown)),
                _ => none(&shown),
            };
        }
        Cell::Bool(value) => match column.ty {
            ColumnType::Json | ColumnType::Text { .. } => {
                if *value {
                    "true"
                } else {
                    "false"
                }
            }
            _ => {
                if *value {
                    "1"
                } else {
                    "0"
                }
            }
        },
        Cell::Text(text) if column.ty == ColumnType::Json => {
            // A text among objects is JSON too, in its quotes.
            return Ok(Value::Json(serde_json::Value::from(text.as_ref()).to_string()));
        }
        Cell::Text(text) | Cell::Number(text) | Cell::Json(text) => text.as_ref(),
    };
    if let ColumnType::Text { chars_max } = column.ty {
        return if text.len() as u64 > chars_max && text.chars().count() as u64 > chars_max {
            none(text)
        } else {
            Ok(Value::Text(text.to_owned()))
        };
    }
    let plain = text.trim();
    let found = match column.ty {
        ColumnType::TinyInt { .. } => boolean(plain)
            .map(|it| Value::Int(i64::from(it)))
            .or_else(|| plain.parse::<i8>().ok().map(|it| Value::Int(it.into()))),
        ColumnType::BigInt { unsigned: true } => plain.parse().ok().map(Value::UInt),
        ColumnType::SmallInt { .. } | ColumnType::Int { .. } | ColumnType::BigInt { .. } => {
            plain.parse().ok().map(Value::Int)
        }
        ColumnType::Decimal { precision, scale } => decimal(plain, precision, scale).map(Value::Decimal),
        ColumnType::Double => plain.parse().ok().filter(|it: &f64| it.is_finite()).map(Value::Double),
        ColumnType::Json => Some(Value::Json(plain.to_owned())),
        ColumnType::Date
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. }
        | ColumnType::Time { .. } => match (&column.ty, temporal(plain, formats)) {
            (ColumnType::Date, Some(Temporal::DateTime(value, _))) if is_midnight(value) => {
                Some(Value::Date(value.date))
            }
            (ColumnType::DateTime { .. }, Some(Temporal::DateTime(value, _))) => Some(Value::DateTime(value)),
            (ColumnType::DateTime { .. }, Some(Temporal::Timestamp(micros))) => {
                Some(Value::DateTime(base::value::timestamp_to_datetime(micros)))
            }
            (ColumnType::Timestamp { .. }, Some(Temporal::Timestamp(micros))) => {
                Some(Value::Timestamp(micros))
            }
            (ColumnType::Timestamp { .. }, Some(Temporal::DateTime(value, _))) => {
                Some(Value::Timestamp(base::value::datetime_to_timestamp(value)))
            }
            (ColumnType::Time { .. }, Some(Temporal::Time(micros))) => Some(Value::Time(micros)),
            _ => None,
        },
        _ => None,
    };
    found.map_or_else(|| none(text), Ok)
}

enum Number {
    Int { digits: usize, negative: bool },
    Decimal { whole: usize, scale: usize },
    Double,
}

/// A number as it is written where it is one: without a plus and without zeros in front.
fn number(text: &str) -> Option<Number> {
    let negative = text.starts_with('-');
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || (whole.len() > 1 && whole.starts_with('0')) || fraction.is_some_and(|it| !digits(it))
    {
        return None;
    }
    match (fraction, exponent) {
        (_, Some(exponent)) => {
            let plain = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let finite = text.parse::<f64>().is_ok_and(f64::is_finite);
            (digits(plain) && finite).then_some(Number::Double)
        }
        (Some(fraction), None) => Some(Number::Decimal { whole: whole.len(), scale: fraction.len() }),
        // Minus zero is no integer that reads back.
        (None, None) if negative && whole == "0" => None,
        (None, None) => Some(Number::Int { digits: whole.len(), negative }),
    }
}

/// A decimal with exactly the column's fraction digits; `None` when it is no number or does not fit without rounding.
pub fn decimal(text: &str, precision: u8, scale: u8) -> Option<String> {
    let scale = usize::from(scale);
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let kept = fraction.trim_end_matches('0');
    if kept.len() > scale || whole.len() + scale > usize::from(precision) {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && kept.is_empty() { "" } else { sign };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{kept:0<scale$}") })
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "TRUE" | "True" | "1" => Some(true),
        "false" | "FALSE" | "False" | "0" => Some(false),
        _ => None,
    }
}

#[derive(Debug, PartialEq)]
pub enum Temporal {
    /// Whether a time of day was written.
    DateTime(DateTime, bool),
    /// With an offset from UTC: microseconds since 1970.
    Timestamp(i64),
    Time(i64),
}

/// A date, a time or both. Without formats the year comes first: 2026-01-31, 2026/1/31, 2026.1.31, 2026年1月31日.
pub fn temporal(text: &str, formats: &[String]) -> Option<Temporal> {
    if !formats.is_empty() {
        return formats.iter().find_map(|format| by_format(text, format));
    }
    let bytes = text.as_bytes();
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    if bytes.get(2) == Some(&b':') || bytes.get(1) == Some(&b':') {
        return time_of_day(text).map(Temporal::Time);
    }
    let (year, rest) = (text.get(..4)?, text.get(4..)?);
    let separator = rest.chars().next()?;
    let (after_month, end) = match separator {
        '-' | '/' | '.' => (separator, None),
        '年' => ('月', Some('日')),
        _ => return None,
    };
    let rest = &rest[separator.len_utf8()..];
    let (month, rest) = rest.split_once(after_month)?;
    let day_length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (day, rest) = rest.split_at(day_length);
    let rest = end.map_or(Some(rest), |end| rest.strip_prefix(end))?;
    let date = date_of(number_of(year)?, number_of(month)?, number_of(day)?)?;
    let time = match rest.strip_prefix('T').unwrap_or(rest).trim_start() {
        "" if rest.is_empty() => {
            return Some(Temporal::DateTime(DateTime { date, ..DateTime::default() }, false));
        }
        "" => return None,
        time => time,
    };
    let (time, offset) = split_offset(time)?;
    let micros = time_of_day(time).filter(|micros| *micros < 86_400_000_000)?;
    let value = DateTime {
        date,
        hour: (micros / 3_600_000_000) as u8,
        minute: (micros / 60_000_000 % 60) as u8,
        second: (micros / 1_000_000 % 60) as u8,
        micro: (micros % 1_000_000) as u32,
    };
    Some(match offset {
        None => Temporal::DateTime(value, true),
        Some(minutes) => {
            Temporal::Timestamp(base::value::datetime_to_timestamp(value) - minutes * 60_000_000)
        }
    })
}

fn by_format(text: &str, format: &str) -> Option<Temporal> {
    let parsed = jiff::fmt::strtime::parse(format, text).ok()?;
    if parsed.offset().is_some() {
        return parsed.to_timestamp().ok().map(|it| Temporal::Timestamp(it.as_microsecond()));
    }
    let date = parsed.to_date().ok().and_then(|it| {
        date_of(it.year().try_into().ok()?, it.month().try_into().ok()?, it.day().try_into().ok()?)
    });
    let time = parsed.to_time().ok().filter(|_| parsed.hour().is_some());
    match (date, time) {
        (Some(date), Some(time)) => Some(Temporal::DateTime(
            DateTime {
                date,
                hour: time.hour() as u8,
                minute: time.minute() as u8,
                second: time.second() as u8,
                micro: (time.subsec_nanosecond() / 1000) as u32,
            },
            true,
        )),
        (Some(date), None) => Some(Temporal::DateTime(DateTime { date, ..DateTime::default() }, false)),
        (None, Some(time)) => {
            let seconds =
                i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
            Some(Temporal::Time(seconds * 1_000_000 + i64::from(time.subsec_nanosecond() / 1000)))
        }
        (None, None) => None,
    }
}

/// `Z` or `+08:00` at the end: minutes before UTC.
fn split_offset(time: &str) -> Option<(&str, Option<i64>)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, Some(0)));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, None)) };
    let (time, offset) = time.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits = offset[1..].replace(':', "");
    let (hours, minutes) = (number_of(digits.get(..2)?)?, digits.get(2..4).map_or(Some(0), number_of)?);
    (digits.len() <= 4 && hours < 24 && minutes < 60)
        .then(|| (time.trim_end(), Some(sign * (i64::from(hours) * 60 + i64::from(minutes)))))
}

/// `H:MM`, `HH:MM:SS`, `HH:MM:SS.ffffff`: microseconds. More digits of a fraction are cut off.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let parts: Vec<Option<u16>> = clock.split(':').map(number_of).collect();
    let (hour, minute, second) = match parts[..] {
        [Some(hour), Some(minute)] => (hour, minute, 0),
        [Some(hour), Some(minute), Some(second)] => (hour, minute, second),
        _ => return None,
    };
    if hour > 23
        || minute > 59
        || second > 59
        || fraction.len() > 9
        || !fraction.bytes().all(|it| it.is_ascii_digit())
    {
        return None;
    }
    let micro = format!("{fraction:0<6}")[..6].parse::<i64>().ok()?;
    Some(((i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1_000_000 + micro)
}

fn number_of(text: &str) -> Option<u16> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

fn date_of(year: u16, month: u16, day: u16) -> Option<Date> {
    let date = Date { year, month: u8::try_from(month).ok()?, day: u8::try_from(day).ok()? };
    let real = (1..=12).contains(&month)
        && day >= 1
        && base::value::date_of_days(base::value::days_of_date(date)) == date;
    real.then_some(date)
}

fn is_midnight(value: DateTime) -> bool {
    (value.hour, value.minute, value.second, value.micro) == (0, 0, 0, 0)
}

fn shown_datetime(value: DateTime) -> String {
    if is_midnight(value) {
        return value.date.to_string();
    }
    base::value::format_datetime(value, if value.micro == 0 { 0 } else { 6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(values: &[&str]) -> String {
        let mut guess = Guess::default();
        values.iter().for_each(|text| guess.see(&Cell::Text((*text).into()), &[]));
        let column = column("c", guess.ty());
        // Whatever the type, every value has to be one.
        values.iter().for_each(|text| {
            value(&Cell::Text((*text).into()), &column, &[]).unwrap();
        });
        column.sql_type
    }

    #[test]
    fn a_column_has_the_narrowest_type_that_holds_all_of_it() {
        for (values, wanted) in [
            (&["1", "-20", " 3 "][..], "bigint"),
            (&["110101199003071234"], "bigint"),
            (&["18446744073709551615"], "bigint unsigned"),
            (&["-1", "18446744073709551615"], "decimal(20,0)"),
            (&["001", "002"], "varchar(255)"),
            (&["+8613800000000"], "varchar(255)"),
            (&["1.50", "2", "1000000.125"], "decimal(18,3)"),
            (&["12345678901234567890.12"], "decimal(22,2)"),
            (&["1e3", "2.5"], "double"),
            (&["true", "FALSE"], "tinyint(1)"),
            (&["0", "1"], "bigint"),
            (&["2026-01-31", "2026/2/3", "2026年3月4日"], "date"),
            (&["2026-01-31", "2026-01-31 08:30"], "datetime"),
            (&["2026-01-31 08:30:00.5"], "datetime(6)"),
            (&["2026-01-31T08:30:00+08:00", "2026-01-31T08:30:00Z"], "timestamp"),
            (&["08:30", "23:59:59"], "time"),
            (&["2026-02-30"], "varchar(255)"),
            (&["20260131"], "bigint"),
            (&["1", "x"], "varchar(255)"),
            (&[], "varchar(255)"),
        ] {
            assert_eq!(guess(values), wanted, "{values:?}");
        }
        assert_eq!(guess(&["x".repeat(5000).as_str()]), "longtext");
    }

    #[test]
    fn values_are_exact_or_refused() {
        let decimal = column("c", declared("decimal(6,2)").unwrap());
        let of = |text: &str| value(&Cell::Text(text.into()), &decimal, &[]);
        assert_eq!(of("1234.5"), Ok(Value::Decimal("1234.50".into())));
        assert_eq!(of("-0.00"), Ok(Value::Decimal("0.00".into())));
        assert!(of("1.005").is_err() && of("12345.0").is_err() && of("x").is_err() && of("1,5").is_err());
        let day = column("c", declared("date").unwrap());
        let formats = ["%d/%m/%Y".to_owned()];
        let of = |text: &str| value(&Cell::Text(text.into()), &day, &formats);
        assert_eq!(of("31/01/2026"), Ok(Value::Date(Date { year: 2026, month: 1, day: 31 })));
        assert!(of("2026-01-31").is_err());
        assert!(
            declared("decimal(3,9)").is_err()
                && declared("datetime(7)").is_err()
                && declared("tinytext").is_err()
        );
    }

    #[test]
    fn an_offset_counts_towards_utc() {
        assert_eq!(
            temporal("2026-01-31T08:30:00+08:00", &[]),
            Some(Temporal::Timestamp(base::value::datetime_to_timestamp(DateTime {
                date: Date { year: 2026, month: 1, day: 31 },
                minute: 30,
                ..DateTime::default()
            })))
        );
    }
}
