//! A value on its way into a column, by the rules of MySQL's strict mode: what does not fit is an error, never a near value.

use crate::error::EngineError;
use crate::types::encode;
use base::value::{Date, DateTime};
use base::{Column, ColumnType};
use expr::coerce::{Val, number_prefix, to_bytes, to_decimal, to_double, to_text};
use expr::decimal::Decimal;
use expr::kind::{Class, Kind};
use expr::temporal;
use rusqlite::types::Value as Cell;

/// A column that values are stored in.
#[derive(Clone, Debug)]
pub struct Target {
    pub column: Column,
    pub auto_increment: bool,
}

impl Target {
    /// The stored form of a value of a kind.
    pub fn store(&self, value: Val<'static>, kind: Kind) -> Result<Cell, EngineError> {
        let name = &self.column.name;
        if self.auto_increment && value.is_null() {
            return Ok(Cell::Null);
        }
        if value.is_null() {
            if self.column.nullable {
                return Ok(Cell::Null);
            }
            return Err(EngineError::sql(1048, format!("Column '{name}' cannot be null")));
        }
        if kind.class() == Class::Json {
            return Err(EngineError::refused(
                format!("JSON into column `{name}`"),
                "take a text of it with ->>",
            ));
        }
        let own = Kind::of(&self.column);
        let stored = match &self.column.ty {
            ColumnType::TinyInt { unsigned } => self.integer(&value, 8, *unsigned)?,
            ColumnType::SmallInt { unsigned } => self.integer(&value, 16, *unsigned)?,
            ColumnType::MediumInt { unsigned } => self.integer(&value, 24, *unsigned)?,
            ColumnType::Int { unsigned } => self.integer(&value, 32, *unsigned)?,
            ColumnType::BigInt { unsigned } => self.integer(&value, 64, *unsigned)?,
            ColumnType::Year => self.year(&value)?,
            ColumnType::Decimal { precision, scale } => {
                let decimal = self.exact(&value)?.rescaled(u32::from(*scale));
                if !decimal.fits(u32::from(*precision)) {
                    return Err(self.out_of_range());
                }
                Val::Decimal(decimal)
            }
            ColumnType::Double => Val::Double(self.double(&value)?),
            ColumnType::Float => {
                let narrow = self.double(&value)? as f32;
                if narrow.is_infinite() {
                    return Err(self.out_of_range());
                }
                Val::Float(narrow)
            }
            ColumnType::Text { chars_max } => self.text(value, *chars_max)?,
            ColumnType::Binary { bytes } => self.bytes(value, u64::from(*bytes), true)?,
            ColumnType::VarBinary { bytes_max } => self.bytes(value, *bytes_max, false)?,
            ColumnType::Date => Val::Date(self.moment(&value, "date")?.date),
            ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => {
                let moment = temporal::rounded(self.moment(&value, "datetime")?, *fsp);
                if moment.date.year > 9999 {
                    return Err(EngineError::sql(1441, "Datetime function: datetime field overflow"));
                }
                if self.is_timestamp() && !in_timestamp(moment) {
                    return Err(self.incorrect(1292, "datetime", &value));
                }
                Val::DateTime(moment, *fsp)
            }
            ColumnType::Time { fsp } => Val::Time(self.time(&value, *fsp)?, *fsp),
            other => return Err(EngineError::Internal(format!("a column of type {other:?} was made"))),
        };
        if self.auto_increment && matches!(stored, Val::Int(0) | Val::UInt(0)) {
            return Ok(Cell::Null);
        }
        encode(stored, own).map_err(|error| EngineError::Internal(error.0))
    }

    fn is_timestamp(&self) -> bool {
        self.column.sql_type.starts_with("timestamp")
    }

    fn out_of_range(&self) -> EngineError {
        EngineError::sql(1264, format!("Out of range value for column '{}'", self.column.name))
    }

    fn incorrect(&self, number: u16, what: &str, value: &Val<'_>) -> EngineError {
        let shown = to_text(value.clone()).unwrap_or_default().chars().take(64).collect::<String>();
        EngineError::sql(
            number,
            format!("Incorrect {what} value: '{shown}' for column '{}'", self.column.name),
        )
    }

    /// The exact number that a value is; text must be a number and nothing else.
    fn exact(&self, value: &Val<'_>) -> Result<Decimal, EngineError> {
        self.check_number(
            value,
            if matches!(self.column.ty, ColumnType::Decimal { .. }) { "decimal" } else { "integer" },
        )?;
        Ok(to_decimal(value))
    }

    fn check_number(&self, value: &Val<'_>, what: &str) -> Result<(), EngineError> {
        if let Val::Text(text) = value {
            let number = number_prefix(text);
            if number.is_empty() {
                return Err(self.incorrect(1366, what, value));
            }
            if text.trim() != number {
                return Err(EngineError::sql(
                    1265,
                    format!("Data truncated for column '{}'", self.column.name),
                ));
            }
        }
        Ok(())
    }

    fn integer(&self, value: &Val<'_>, bits: u32, unsigned: bool) -> Result<Val<'static>, EngineError> {
        let number = match value {
            Val::Int(v) => i128::from(*v),
            Val::UInt(v) => i128::from(*v),
            Val::Double(v) => {
                if v.abs() > 1e19 {
                    return Err(self.out_of_range());
                }
                v.round_ties_even() as i128
            }
            Val::Date(_) | Val::DateTime(..) | Val::Time(..) => expr::coerce::to_int(value),
            other => self.exact(other)?.to_i128().ok_or_else(|| self.out_of_range())?,
        };
        let (least, most) = if unsigned {
            (0, (1i128 << bits) - 1)
        } else {
            (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
        };
        if !(least..=most).contains(&number) {
            return Err(self.out_of_range());
        }
        Val::integer(number, unsigned).map_err(|_| self.out_of_range())
    }

    fn year(&self, value: &Val<'_>) -> Result<Val<'static>, EngineError> {
        let number = match value {
            Val::Date(_) | Val::DateTime(..) | Val::Time(..) => expr::coerce::to_int(value),
            other => self.exact(other)?.to_i128().ok_or_else(|| self.out_of_range())?,
        };
        // Two digits are of this century or of the last; `0` as a number is the year 0000.
        let number = match (number, value) {
            (0, Val::Text(text)) if text.trim().len() < 3 => 2000,
            (1..=69, _) => number + 2000,
            (70..=99, _) => number + 1900,
            _ => number,
        };
        if number != 0 && !(1901..=2155).contains(&number) {
            return Err(self.out_of_range());
        }
        Ok(Val::Label(format!("{number:04}").into(), number as u64))
    }

    fn double(&self, value: &Val<'_>) -> Result<f64, EngineError> {
        if let Val::Text(text) = value
            && (number_prefix(text).is_empty() || text.trim() != number_prefix(text))
        {
            return Err(EngineError::sql(1265, format!("Data truncated for column '{}'", self.column.name)));
        }
        Ok(to_double(value))
    }

    fn text(&self, value: Val<'static>, chars_max: u64) -> Result<Val<'static>, EngineError> {
        let text = to_text(value).map_err(|_| {
            EngineError::sql(1366, format!("Incorrect string value for column '{}'", self.column.name))
        })?;
        let in_bytes = self.column.sql_type.ends_with("text");
        let length = if in_bytes { text.len() } else { text.chars().count() } as u64;
        let mut text = text.into_owned();
        if length > chars_max {
            let kept: usize = text.chars().take(chars_max as usize).map(char::len_utf8).sum();
            // Blanks that do not fit are cut off without an error.
            if in_bytes || !text[kept..].bytes().all(|byte| byte == b' ') {
                return Err(EngineError::sql(
                    1406,
                    format!("Data too long for column '{}'", self.column.name),
                ));
            }
            text.truncate(kept);
        }
        if self.column.sql_type.starts_with("char") {
            text.truncate(text.trim_end_matches(' ').len());
        }
        Ok(Val::text(text))
    }

    fn bytes(&self, value: Val<'static>, bytes_max: u64, padded: bool) -> Result<Val<'static>, EngineError> {
        let mut bytes = to_bytes(value).map_err(|error| EngineError::Internal(error.0))?.into_owned();
        if bytes.len() as u64 > bytes_max {
            return Err(EngineError::sql(1406, format!("Data too long for column '{}'", self.column.name)));
        }
        if padded {
            bytes.resize(bytes_max as usize, 0);
        }
        Ok(Val::Bytes(bytes.into()))
    }

    /// A day that exists, with a time.
    fn moment(&self, value: &Val<'_>, what: &str) -> Result<DateTime, EngineError> {
        let read = match value {
            Val::Date(date) => Some(DateTime { date: *date, ..DateTime::default() }),
            Val::DateTime(value, _) => Some(*value),
            Val::Text(text) => temporal::parse_datetime_text(text.trim()).map(|(value, _)| value),
            Val::Int(number) => date_of_number(*number),
            _ => None,
        };
        read.filter(|it| temporal::is_real(it.date) && it.date.month > 0 && it.date.day > 0)
            .ok_or_else(|| self.incorrect(1292, what, value))
    }

    fn time(&self, value: &Val<'_>, fsp: u8) -> Result<i64, EngineError> {
        let micros = match value {
            Val::Time(micros, _) => Some(*micros),
            Val::Text(text) => temporal::parse_time_text(text.trim()).map(|(micros, _)| micros),
            Val::DateTime(value, _) => {
                let seconds =
                    i64::from(value.hour) * 3600 + i64::from(value.minute) * 60 + i64::from(value.second);
                Some(seconds * 1_000_000 + i64::from(value.micro))
            }
            _ => None,
        };
        let micros = micros.ok_or_else(|| self.incorrect(1292, "time", value))?;
        let unit = 10i64.pow(6 - u32::from(fsp));
        let rounded = (micros.abs() + unit / 2) / unit * unit;
        Ok(rounded * micros.signum())
    }
}

/// The range of TIMESTAMP: the seconds of 31 bits but the first.
fn in_timestamp(value: DateTime) -> bool {
    let seconds = base::value::datetime_to_timestamp(value).div_euclid(1_000_000);
    (1..=i64::from(i32::MAX)).contains(&seconds)
}

/// 20260102 as a day.
fn date_of_number(number: i64) -> Option<DateTime> {
    if !(10_000_101..=99_991_231).contains(&number) {
        return None;
    }
    let date =
        Date { year: (number / 10_000) as u16, month: (number / 100 % 100) as u8, day: (number % 100) as u8 };
    Some(DateTime { date, ..DateTime::default() })
}
