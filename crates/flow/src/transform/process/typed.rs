//! Types that a step's columns are declared with, and texts read as values of them. Whole texts or none: `12x` is no number.

use crate::transform::expr::{compact_json, unquoted};
use base::value::{datetime_to_timestamp, days_of_date};
use base::{Column, ColumnType, Date, DateTime, Generated, Value};

/// A declared type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    Text,
    Varchar(u64),
    Int,
    Double,
    Decimal { precision: u8, scale: u8 },
    Bool,
    Json,
    Date,
    DateTime { fsp: u8 },
    Timestamp { fsp: u8 },
}

/// What a type may be called, for hints and the reference page.
pub const TYPES: &str = "text, varchar(n), int, double, decimal(p,s), bool, json, date, datetime, datetime(n), timestamp, timestamp(n)";

impl Typed {
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (name, arguments) = match text.split_once('(') {
            Some((name, rest)) => (name.trim_end(), Some(rest.strip_suffix(')')?)),
            None => (&*text, None),
        };
        let fsp = || match arguments {
            None => Some(0),
            Some(digits) => digits.trim().parse().ok().filter(|fsp| *fsp <= 6),
        };
        Some(match (name, arguments) {
            ("text" | "string", None) => Self::Text,
            ("int" | "integer" | "bigint", None) => Self::Int,
            ("double" | "float", None) => Self::Double,
            ("bool" | "boolean", None) => Self::Bool,
            ("json", None) => Self::Json,
            ("date", None) => Self::Date,
            ("varchar", Some(n)) => {
                Self::Varchar(n.trim().parse().ok().filter(|n| (1..=16_383).contains(n))?)
            }
            ("decimal", Some(both)) => {
                let (precision, scale) = both.split_once(',').unwrap_or((both, "0"));
                let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                if !(1..=65).contains(&precision) || scale > 30 || scale > precision {
                    return None;
                }
                Self::Decimal { precision, scale }
            }
            ("datetime", _) => Self::DateTime { fsp: fsp()? },
            ("timestamp", _) => Self::Timestamp { fsp: fsp()? },
            _ => return None,
        })
    }

    /// As a column that may be NULL.
    pub fn column(&self, name: &str) -> Column {
        let digits = |fsp: u8| if fsp == 0 { String::new() } else { format!("({fsp})") };
        let (ty, sql_type) = match self {
            Self::Text => (ColumnType::Text { chars_max: 4_294_967_295 }, "longtext".to_owned()),
            Self::Varchar(n) => (ColumnType::Text { chars_max: *n }, format!("varchar({n})")),
            Self::Int => (ColumnType::BigInt { unsigned: false }, "bigint".to_owned()),
            Self::Double => (ColumnType::Double, "double".to_owned()),
            Self::Decimal { precision, scale } => (
                ColumnType::Decimal { precision: *precision, scale: *scale },
                format!("decimal({precision},{scale})"),
            ),
            Self::Bool => (ColumnType::TinyInt { unsigned: false }, "tinyint(1)".to_owned()),
            Self::Json => (ColumnType::Json, "json".to_owned()),
            Self::Date => (ColumnType::Date, "date".to_owned()),
            Self::DateTime { fsp } => {
                (ColumnType::DateTime { fsp: *fsp }, format!("datetime{}", digits(*fsp)))
            }
            Self::Timestamp { fsp } => {
                (ColumnType::Timestamp { fsp: *fsp }, format!("timestamp{}", digits(*fsp)))
            }
        };
        let charset = matches!(ty, ColumnType::Text { .. }).then(|| "utf8mb4".to_owned());
        Column {
            name: name.to_owned(),
            ty,
            sql_type,
            nullable: true,
            charset,
            collation: None,
            generated: Generated::No,
            invisible: false,
        }
    }

    /// A whole text as a value. `Err` says what it is not.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let not = |what: &str| format!("{} is not {what}", shown(text));
        let word = text.trim();
        Ok(match self {
            Self::Text => Value::Text(text.to_owned()),
            Self::Varchar(n) if text.chars().count() as u64 > *n => {
                return Err(format!("{} is longer than {n} characters", shown(text)));
            }
            Self::Varchar(_) => Value::Text(text.to_owned()),
            Self::Int => {
                let number = word.strip_prefix('+').unwrap_or(word);
                Value::Int(number.parse().map_err(|_| not("an integer of 64 bits"))?)
            }
            Self::Double => Value::Double(double(word).ok_or_else(|| not("a number"))?),
            Self::Decimal { precision, scale } => {
                let sized = decimal(word, *precision, *scale);
                Value::Decimal(sized.ok_or_else(|| not(&format!("a decimal({precision},{scale})")))?)
            }
            Self::Bool => match word.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Value::Int(1),
                "false" | "0" | "no" | "off" => Value::Int(0),
                _ => return Err(not("true or false")),
            },
            Self::Json => Value::Json(compact_json(text).ok_or_else(|| not("JSON"))?),
            Self::Date => Value::Date(date(word).ok_or_else(|| not("a date"))?),
            Self::DateTime { fsp } => {
                Value::DateTime(datetime(word, *fsp).ok_or_else(|| not("a date and time"))?)
            }
            Self::Timestamp { fsp } => {
                let value = datetime(word, *fsp).ok_or_else(|| not("a date and time"))?;
                Value::Timestamp(datetime_to_timestamp(value))
            }
        })
    }

    /// A part of valid JSON as a value.
    pub fn read_json(&self, part: &str) -> Result<Value, String> {
        match (self, part.as_bytes().first()) {
            (_, Some(b'n')) => Ok(Value::Null),
            (Self::Json, _) => self.read(part),
            // A list or an object as the text that it is.
            (Self::Text | Self::Varchar(_), Some(b'{' | b'[')) => {
                self.read(&compact_json(part).ok_or_else(|| format!("{} is not JSON", shown(part)))?)
            }
            _ => self.read(&unquoted(part)),
        }
    }
}

/// A text in a message: quoted, and cut where it is long.
pub fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

/// Decimal digits, a point and an exponent; no `inf`, no `nan`.
pub fn double(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    text.parse().ok().filter(|value: &f64| plain && value.is_finite())
}

/// Exactly as MySQL prints it, or nothing where digits would be lost.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0
        || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.len() > usize::from(precision - scale) || fraction.len() > usize::from(scale) {
        return None;
    }
    let sign = if whole.is_empty() && fraction.is_empty() { "" } else { sign };
    let whole = if whole.is_empty() { "0" } else { whole };
    if scale == 0 {
        return Some(format!("{sign}{whole}"));
    }
    Some(format!("{sign}{whole}.{fraction:0<width$}", width = usize::from(scale)))
}

fn date(text: &str) -> Option<Date> {
    crate::transform::expr::parse_date_text(text)
}

/// As MySQL writes it, or with a `T` and a zone; in UTC.
fn datetime(text: &str, fsp: u8) -> Option<DateTime> {
    let micros = super::date::iso8601(text, None)?;
    Some(base::value::timestamp_to_datetime(cut(micros, fsp)))
}

/// Microseconds cut to a column's digits.
pub fn cut(micros: i64, fsp: u8) -> i64 {
    let unit = 10_i64.pow(6 - u32::from(fsp.min(6)));
    micros.div_euclid(unit) * unit
}

/// A day of the calendar, as days since 1970; `None` for the 30th of February.
pub fn day(year: i64, month: u8, day: u8) -> Option<i64> {
    let date = Date { year: u16::try_from(year).ok()?, month, day };
    let real = (1..=9999).contains(&year) && crate::transform::expr::is_real(date);
    real.then(|| days_of_date(date))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_are_values_and_parts_are_not() {
        let read = |ty: &str, text: &str| Typed::parse(ty).unwrap().read(text).ok();
        assert_eq!(read("int", "-7"), Some(Value::Int(-7)));
        assert_eq!(read("int", "7x"), None);
        assert_eq!(read("int", "9223372036854775808"), None);
        assert_eq!(read("double", "1e3"), Some(Value::Double(1000.0)));
        assert_eq!(read("double", "inf"), None);
        assert_eq!(read("decimal(5,2)", "-0012.5"), Some(Value::Decimal("-12.50".into())));
        assert_eq!(read("decimal(5,2)", "-0.00"), Some(Value::Decimal("0.00".into())));
        assert_eq!(read("decimal(5,2)", "1234"), None);
        assert_eq!(read("decimal(5,2)", "1.234"), None);
        assert_eq!(read("bool", "True"), Some(Value::Int(1)));
        assert_eq!(read("varchar(2)", "äöü"), None);
        assert_eq!(read("json", "{ \"a\" : 1 }"), Some(Value::Json("{\"a\":1}".into())));
        assert_eq!(read("json", "{"), None);
        assert_eq!(read("date", "2026-02-30"), None);
        assert_eq!(read("timestamp(3)", "1970-01-01T01:00:00.1239+01:00"), Some(Value::Timestamp(123_000)));
        for wrong in ["", "number", "decimal(2,3)", "datetime(7)", "varchar(0)", "int(3)", "text)"] {
            assert_eq!(Typed::parse(wrong), None, "{wrong}");
        }
    }
}
