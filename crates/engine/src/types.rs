//! What a value of a MySQL type is inside SQLite, so that SQLite's own comparison, index, GROUP BY and DISTINCT are exact.
//!
//! | MySQL | SQLite |
//! |---|---|
//! | integers, YEAR | INTEGER; what is above 2⁶³−1 as a wide number |
//! | DECIMAL(p ≤ 18, s) | INTEGER, the value × 10^s |
//! | DECIMAL(p > 18, s) | BLOB: a wide number, the value × 10^s |
//! | FLOAT, DOUBLE | REAL |
//! | CHAR, VARCHAR, TEXT, JSON | TEXT, with MySQL's collation declared |
//! | BINARY, VARBINARY, BLOB | BLOB |
//! | DATE, DATETIME, TIMESTAMP | TEXT as MySQL prints it, with the column's fraction digits |
//! | TIME | INTEGER, microseconds |
//!
//! A wide number is a byte of sign and length (0x80 + length, or 0x7F − length when negative), then the magnitude, big end
//! first, its bits turned round when negative: bytes compare as the numbers do, and SQLite sorts every BLOB behind every
//! INTEGER.

use base::{Column, ColumnType, Generated, Value};
use expr::EvalError;
use expr::coerce::{Val, to_bytes, to_decimal, to_double, to_int, to_text};
use expr::collate::Collation;
use expr::decimal::Decimal;
use expr::kind::{Class, Kind};
use num_bigint::{BigInt, Sign};
use rusqlite::types::{Value as Cell, ValueRef as CellRef};

/// Digits that a scaled INTEGER always holds.
pub const NARROW_DIGITS: u8 = 18;

/// The collations of a project, by the names SQLite knows them by too.
pub const COLLATIONS: [&str; 6] = [
    "utf8mb4_0900_ai_ci",
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb4_bin",
    "utf8mb4_0900_bin",
    "utf8mb4_0900_as_cs",
];
/// What a text has that names none.
pub const COLLATION_DEFAULT: &str = "utf8mb4_0900_ai_ci";

/// The name of a collation; that of an equal one where it has none of ours.
pub fn collation_name(collation: Option<Collation>) -> &'static str {
    let known = COLLATIONS.iter().find(|name| collation == Collation::named(name));
    known.copied().unwrap_or(if collation.is_some_and(Collation::is_binary) {
        "utf8mb4_bin"
    } else {
        COLLATION_DEFAULT
    })
}

/// The column that holds values of a kind.
pub fn column_of(name: &str, kind: Kind) -> Column {
    let (ty, sql_type) = match kind {
        Kind::Int { unsigned, digits } => {
            let ty = match digits {
                0..=10 if !unsigned => ColumnType::Int { unsigned },
                _ => ColumnType::BigInt { unsigned },
            };
            (ty, if unsigned { "bigint unsigned" } else { "bigint" }.to_owned())
        }
        Kind::Bit => (ColumnType::BigInt { unsigned: true }, "bigint unsigned".into()),
        Kind::Year => (ColumnType::Year, "year".into()),
        Kind::Decimal { precision, scale } => {
            (ColumnType::Decimal { precision, scale }, format!("decimal({precision},{scale})"))
        }
        // The comma says that how it prints is not known here.
        Kind::Double { fixed } => (ColumnType::Double, if fixed { "double(,)" } else { "double" }.into()),
        Kind::Float => (ColumnType::Float, "float".into()),
        Kind::Null | Kind::Text(_) | Kind::Label(_) => {
            (ColumnType::Text { chars_max: 4_294_967_295 }, "longtext".into())
        }
        Kind::Bytes { .. } | Kind::Opaque => {
            (ColumnType::VarBinary { bytes_max: 4_294_967_295 }, "longblob".into())
        }
        Kind::Date => (ColumnType::Date, "date".into()),
        Kind::Time { fsp } => (ColumnType::Time { fsp }, with_fsp("time", fsp)),
        Kind::DateTime { fsp } => (ColumnType::DateTime { fsp }, with_fsp("datetime", fsp)),
        Kind::Json => (ColumnType::Json, "json".into()),
    };
    let collation = match kind {
        Kind::Text(text) | Kind::Label(text) => Some(collation_name(text.collation).to_owned()),
        Kind::Null => Some(COLLATION_DEFAULT.to_owned()),
        _ => None,
    };
    Column {
        name: name.to_owned(),
        ty,
        sql_type,
        nullable: true,
        charset: collation.is_some().then(|| "utf8mb4".to_owned()),
        collation,
        generated: Generated::No,
        invisible: false,
    }
}

fn with_fsp(name: &str, fsp: u8) -> String {
    if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") }
}

/// Whether SQLite compares values of both as MySQL does, without help.
pub fn comparable(left: Kind, right: Kind) -> bool {
    match (left.class(), right.class()) {
        (Class::Int, Class::Int) => true,
        (Class::Double, Class::Double) => true,
        (Class::Decimal, Class::Decimal) => match (left.decimal_size(), right.decimal_size()) {
            (Some((p1, s1)), Some((p2, s2))) => s1 == s2 && (p1 <= NARROW_DIGITS) == (p2 <= NARROW_DIGITS),
            _ => false,
        },
        (Class::Text, Class::Text) | (Class::Bytes, Class::Bytes) | (Class::Time, Class::Time) => true,
        (Class::Date | Class::DateTime, Class::Date | Class::DateTime) => left == right,
        _ => false,
    }
}

/// The wide form of a number.
pub fn wide(number: &BigInt) -> Vec<u8> {
    let (sign, mut magnitude) = number.to_bytes_be();
    if sign == Sign::NoSign {
        return vec![0x80];
    }
    // 65 digits take 27 bytes, the widest sum of a warehouse a few more.
    let length = magnitude.len().min(0x7F) as u8;
    let mut bytes = Vec::with_capacity(magnitude.len() + 1);
    if sign == Sign::Minus {
        magnitude.iter_mut().for_each(|byte| *byte = !*byte);
        bytes.push(0x7F - length);
    } else {
        bytes.push(0x80 + length);
    }
    bytes.extend(magnitude);
    bytes
}

/// The number of a wide form.
pub fn from_wide(bytes: &[u8]) -> BigInt {
    match bytes.split_first() {
        None | Some((0x80, _)) => BigInt::default(),
        Some((0x81.., magnitude)) => BigInt::from_bytes_be(Sign::Plus, magnitude),
        Some((_, magnitude)) => {
            let turned: Vec<u8> = magnitude.iter().map(|byte| !byte).collect();
            BigInt::from_bytes_be(Sign::Minus, &turned)
        }
    }
}

/// An exact number as it is stored, whatever its form.
pub fn exact(cell: CellRef<'_>) -> Option<BigInt> {
    match cell {
        CellRef::Integer(value) => Some(BigInt::from(value)),
        CellRef::Blob(bytes) => Some(from_wide(bytes)),
        _ => None,
    }
}

/// `digits / 10^scale` as MySQL prints it.
pub fn decimal_text(digits: &BigInt, scale: u8) -> String {
    let text = digits.magnitude().to_string();
    let sign = if digits.sign() == Sign::Minus { "-" } else { "" };
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{text}");
    }
    let padded = format!("{text:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// A value of an expression as SQLite stores it.
pub fn encode(value: Val<'_>, kind: Kind) -> Result<Cell, EvalError> {
    if value.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match kind {
        Kind::Int { .. } | Kind::Bit | Kind::Year => {
            let number = to_int(&value);
            match i64::try_from(number) {
                Ok(small) => Cell::Integer(small),
                Err(_) => Cell::Blob(wide(&BigInt::from(number))),
            }
        }
        Kind::Decimal { precision, scale } => {
            let decimal = to_decimal(&value).rescaled(u32::from(scale));
            let digits = decimal_digits(&decimal);
            match i64::try_from(&digits) {
                Ok(small) if precision <= NARROW_DIGITS => Cell::Integer(small),
                _ if precision <= NARROW_DIGITS => {
                    return Err(EvalError(format!(
                        "DECIMAL value is out of range: {decimal} in DECIMAL({precision},{scale})"
                    )));
                }
                _ => Cell::Blob(wide(&digits)),
            }
        }
        Kind::Double { .. } | Kind::Float => Cell::Real(to_double(&value)),
        Kind::Time { .. } => match value {
            Val::Time(micros, _) => Cell::Integer(micros),
            other => return Err(EvalError(format!("{other:?} is no time"))),
        },
        Kind::DateTime { fsp } => match value {
            Val::DateTime(value, _) => Cell::Text(base::value::format_datetime(value, fsp)),
            Val::Date(date) => Cell::Text(base::value::format_datetime(
                base::DateTime { date, ..base::DateTime::default() },
                fsp,
            )),
            other => return Err(EvalError(format!("{other:?} is no date"))),
        },
        Kind::Bytes { .. } | Kind::Opaque => Cell::Blob(to_bytes(value)?.into_owned()),
        Kind::Null | Kind::Text(_) | Kind::Label(_) | Kind::Json | Kind::Date => {
            Cell::Text(to_text(value)?.into_owned())
        }
    })
}

/// The digits of a decimal at its own scale.
pub fn decimal_digits(decimal: &Decimal) -> BigInt {
    let text: String = decimal.to_string().chars().filter(|c| *c != '.').collect();
    text.parse().unwrap_or_default()
}

/// A stored value as a row has it.
pub fn decode(cell: CellRef<'_>, kind: Kind) -> Result<Value, EvalError> {
    let wrong = || EvalError(format!("a stored value is not of its type: {cell:?} as {kind:?}"));
    Ok(match (kind, cell) {
        (_, CellRef::Null) => Value::Null,
        (Kind::Int { .. } | Kind::Bit | Kind::Year, CellRef::Integer(v)) => match kind {
            Kind::Year => Value::Year(u16::try_from(v).map_err(|_| wrong())?),
            Kind::Int { unsigned: true, .. } | Kind::Bit => {
                Value::UInt(u64::try_from(v).map_err(|_| wrong())?)
            }
            _ => Value::Int(v),
        },
        (Kind::Int { .. } | Kind::Bit, CellRef::Blob(bytes)) => {
            Value::UInt(u64::try_from(from_wide(bytes)).map_err(|_| wrong())?)
        }
        (Kind::Decimal { scale, .. }, _) => {
            Value::Decimal(decimal_text(&exact(cell).ok_or_else(wrong)?, scale))
        }
        (Kind::Double { .. }, CellRef::Real(v)) => Value::Double(v),
        (Kind::Float, CellRef::Real(v)) => Value::Float(v as f32),
        (Kind::Double { .. } | Kind::Float, CellRef::Integer(v)) => Value::Double(v as f64),
        (Kind::Time { .. }, CellRef::Integer(v)) => Value::Time(v),
        (Kind::Bytes { .. } | Kind::Opaque, CellRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
        (_, CellRef::Text(text)) => {
            let text = std::str::from_utf8(text).map_err(|_| wrong())?;
            match kind {
                Kind::Date => Value::Date(expr::parse_date_text(text).ok_or_else(wrong)?),
                Kind::DateTime { .. } => {
                    Value::DateTime(expr::temporal::parse_datetime_text(text).ok_or_else(wrong)?.0)
                }
                Kind::Json => Value::Json(text.to_owned()),
                Kind::Bytes { .. } => Value::Bytes(text.as_bytes().to_vec()),
                _ => Value::Text(text.to_owned()),
            }
        }
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_numbers_sort_as_bytes_and_come_back() {
        let mut numbers: Vec<BigInt> =
            ["0", "1", "-1", "255", "256", "-255", "-256", "99999999999999999999999999999"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        numbers.sort();
        let mut forms: Vec<Vec<u8>> = numbers.iter().map(wide).collect();
        assert_eq!(forms.iter().map(|form| from_wide(form)).collect::<Vec<_>>(), numbers);
        let sorted = forms.clone();
        forms.sort();
        assert_eq!(forms, sorted);
    }

    #[test]
    fn decimals_are_stored_by_their_digits() {
        let kind = Kind::Decimal { precision: 12, scale: 2 };
        let value = Val::Decimal(Decimal::parse("-0.05").unwrap());
        assert_eq!(encode(value, kind).unwrap(), Cell::Integer(-5));
        assert_eq!(decode(CellRef::Integer(-5), kind).unwrap(), Value::Decimal("-0.05".into()));
        let kind = Kind::Decimal { precision: 40, scale: 10 };
        let cell = encode(Val::Decimal(Decimal::parse("1.5").unwrap()), kind).unwrap();
        assert_eq!(decode(CellRef::from(&cell), kind).unwrap(), Value::Decimal("1.5000000000".into()));
    }
}
