//! MySQL values without loss, owned and borrowed, and how MySQL prints the temporal ones.
//!
//! A value does not know its column: fraction digits, labels and sizes come from [`crate::Column`].

use std::fmt::{self, Write};

/// A calendar date as MySQL keeps it: zero years, months and days are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

/// A DATETIME: a date that may be zero, and a time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    pub date: Date,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub micro: u32,
}

/// The TIMESTAMP that MySQL prints as `0000-00-00 00:00:00`.
pub const TIMESTAMP_ZERO: i64 = i64::MIN;

/// One value, owned.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    /// Exact decimal text as MySQL prints it, with the column's scale.
    Decimal(String),
    Date(Date),
    /// Microseconds, signed; at most 838:59:59.999999.
    Time(i64),
    DateTime(DateTime),
    /// Microseconds since the Unix epoch, UTC; [`TIMESTAMP_ZERO`] for the zero timestamp.
    Timestamp(i64),
    Year(u16),
    Bit(u64),
    /// The ordinal, counted from 1; 0 is MySQL's "invalid value".
    Enum(u16),
    /// Bit n set = label n is a member.
    Set(u64),
    Text(String),
    /// Text whose bytes are not valid in the column's character set.
    RawText(Vec<u8>),
    Bytes(Vec<u8>),
    /// JSON as MySQL prints it.
    Json(String),
    /// Four bytes SRID, little-endian, then WKB: as stored.
    Geometry(Vec<u8>),
    /// Little-endian f32s.
    Vector(Vec<u8>),
}

/// One value, borrowed from a row image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Null,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Decimal(&'a str),
    Date(Date),
    Time(i64),
    DateTime(DateTime),
    Timestamp(i64),
    Year(u16),
    Bit(u64),
    Enum(u16),
    Set(u64),
    Text(&'a str),
    RawText(&'a [u8]),
    Bytes(&'a [u8]),
    Json(&'a str),
    Geometry(&'a [u8]),
    Vector(&'a [u8]),
}

impl Value {
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Int(v) => ValueRef::Int(*v),
            Self::UInt(v) => ValueRef::UInt(*v),
            Self::Float(v) => ValueRef::Float(*v),
            Self::Double(v) => ValueRef::Double(*v),
            Self::Decimal(v) => ValueRef::Decimal(v),
            Self::Date(v) => ValueRef::Date(*v),
            Self::Time(v) => ValueRef::Time(*v),
            Self::DateTime(v) => ValueRef::DateTime(*v),
            Self::Timestamp(v) => ValueRef::Timestamp(*v),
            Self::Year(v) => ValueRef::Year(*v),
            Self::Bit(v) => ValueRef::Bit(*v),
            Self::Enum(v) => ValueRef::Enum(*v),
            Self::Set(v) => ValueRef::Set(*v),
            Self::Text(v) => ValueRef::Text(v),
            Self::RawText(v) => ValueRef::RawText(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
            Self::Json(v) => ValueRef::Json(v),
            Self::Geometry(v) => ValueRef::Geometry(v),
            Self::Vector(v) => ValueRef::Vector(v),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl ValueRef<'_> {
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Int(v) => Value::Int(v),
            Self::UInt(v) => Value::UInt(v),
            Self::Float(v) => Value::Float(v),
            Self::Double(v) => Value::Double(v),
            Self::Decimal(v) => Value::Decimal(v.to_owned()),
            Self::Date(v) => Value::Date(v),
            Self::Time(v) => Value::Time(v),
            Self::DateTime(v) => Value::DateTime(v),
            Self::Timestamp(v) => Value::Timestamp(v),
            Self::Year(v) => Value::Year(v),
            Self::Bit(v) => Value::Bit(v),
            Self::Enum(v) => Value::Enum(v),
            Self::Set(v) => Value::Set(v),
            Self::Text(v) => Value::Text(v.to_owned()),
            Self::RawText(v) => Value::RawText(v.to_owned()),
            Self::Bytes(v) => Value::Bytes(v.to_owned()),
            Self::Json(v) => Value::Json(v.to_owned()),
            Self::Geometry(v) => Value::Geometry(v.to_owned()),
            Self::Vector(v) => Value::Vector(v.to_owned()),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Appends `.` and exactly `digits` (0 to 6) digits of `micro`; nothing when `digits` is 0.
fn put_fraction(out: &mut String, micro: u32, digits: u8) {
    if digits > 0 {
        let digits = digits.min(6);
        let scaled = micro / 10u32.pow(u32::from(6 - digits));
        let _ = write!(out, ".{scaled:0width$}", width = usize::from(digits));
    }
}

/// A DATETIME as MySQL prints it: `2026-01-02 03:04:05.120` with `digits` = 3.
pub fn format_datetime(value: DateTime, digits: u8) -> String {
    let mut out = String::with_capacity(26);
    let _ = write!(out, "{} {:02}:{:02}:{:02}", value.date, value.hour, value.minute, value.second);
    put_fraction(&mut out, value.micro, digits);
    out
}

/// A TIME as MySQL prints it: `-838:59:59.000000` with `digits` = 6.
pub fn format_time(micros: i64, digits: u8) -> String {
    let mut out = String::with_capacity(17);
    if micros < 0 {
        out.push('-');
    }
    let total = micros.unsigned_abs();
    let seconds = total / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    put_fraction(&mut out, (total % 1_000_000) as u32, digits);
    out
}

/// The calendar time in UTC of a TIMESTAMP; all zero for [`TIMESTAMP_ZERO`].
pub fn timestamp_to_datetime(micros: i64) -> DateTime {
    if micros == TIMESTAMP_ZERO {
        return DateTime::default();
    }
    let seconds = micros.div_euclid(1_000_000);
    let micro = micros.rem_euclid(1_000_000) as u32;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    DateTime {
        date: date_of_days(days),
        hour: (rest / 3600) as u8,
        minute: (rest / 60 % 60) as u8,
        second: (rest % 60) as u8,
        micro,
    }
}

/// The inverse of [`timestamp_to_datetime`]; a zero date gives [`TIMESTAMP_ZERO`].
pub fn datetime_to_timestamp(value: DateTime) -> i64 {
    if value.date == Date::default() {
        return TIMESTAMP_ZERO;
    }
    let seconds = days_of_date(value.date) * 86_400
        + i64::from(value.hour) * 3600
        + i64::from(value.minute) * 60
        + i64::from(value.second);
    seconds * 1_000_000 + i64::from(value.micro)
}

/// A TIMESTAMP as our JSON prints it: `2026-01-02T03:04:05.120Z`; the zero one as MySQL prints it.
pub fn format_timestamp(micros: i64, digits: u8) -> String {
    let calendar = timestamp_to_datetime(micros);
    let mut out = format_datetime(calendar, digits);
    if micros != TIMESTAMP_ZERO {
        out.replace_range(10..11, "T");
        out.push('Z');
    }
    out
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant's `days_from_civil`).
pub fn days_of_date(date: Date) -> i64 {
    let month = i64::from(date.month.max(1));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day.max(1)) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_of_date`], for years 0 to 9999.
pub fn date_of_days(days: i64) -> Date {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u8;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u8;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Date { year: year.clamp(0, 65_535) as u16, month, day }
}

/// The shortest text that reads back as the same f64, without a needless `.0`.
pub fn format_double(value: f64) -> String {
    trim_zero_fraction(serde_json::Number::from_f64(value).map(|n| n.to_string()).unwrap_or_default())
}

/// The shortest text that reads back as the same f32.
pub fn format_float(value: f32) -> String {
    trim_zero_fraction(serde_json::to_string(&value).unwrap_or_default())
}

fn trim_zero_fraction(mut text: String) -> String {
    if text.ends_with(".0") {
        text.truncate(text.len() - 2);
    }
    text.replace("e+", "e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporal_values_print_as_mysql_prints_them() {
        let date = Date { year: 2026, month: 1, day: 2 };
        let value = DateTime { date, hour: 3, minute: 4, second: 5, micro: 120_000 };
        assert_eq!(format_datetime(value, 3), "2026-01-02 03:04:05.120");
        assert_eq!(format_datetime(DateTime::default(), 0), "0000-00-00 00:00:00");
        assert_eq!(format_time(-(838 * 3600 + 59 * 60 + 59) * 1_000_000, 0), "-838:59:59");
        assert_eq!(format_time(1_500_000, 2), "00:00:01.50");
        assert_eq!(format_timestamp(datetime_to_timestamp(value), 3), "2026-01-02T03:04:05.120Z");
        assert_eq!(format_timestamp(TIMESTAMP_ZERO, 1), "0000-00-00 00:00:00.0");
    }

    #[test]
    fn every_day_of_ten_thousand_years_reads_back() {
        for days in -719_162..2_932_896 {
            assert_eq!(days_of_date(date_of_days(days)), days);
        }
    }

    #[test]
    fn floats_print_shortest() {
        assert_eq!(format_double(1e300), "1e300");
        assert_eq!(format_double(5.0), "5");
        assert_eq!(format_float(0.1), "0.1");
        assert_eq!(format_double(-0.0), "-0");
    }
}
