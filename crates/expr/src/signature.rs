//! What each plain function takes and gives back.

use super::bind::number_of;
use super::coerce::{Val, to_int};
use super::collate::Collation;
use super::functions::Function;
use super::kind::{self, BIGINT, Class, DOUBLE, Kind, agree};
use super::node::{Node, Op};
use super::parse::Refusal;
use super::temporal;

/// The kind of a function's result, and the collation it compares with; refuses arguments it has no answer for.
pub fn of(function: Function, args: &[Node]) -> Result<(Kind, Option<Collation>), Refusal> {
    use Function as F;
    let texts = |upto: usize| -> Result<_, Refusal> {
        let texts: Result<Vec<_>, _> = args.iter().take(upto).map(|node| node.kind.as_text()).collect();
        Ok(agree(texts?))
    };
    let numbers = |from: usize| args.iter().skip(from).try_for_each(|node| number_of(node).map(|_| ()));
    Ok(match function {
        F::Lower | F::Upper if args[0].kind.class() == Class::Bytes => (args[0].kind, None),
        F::Lower | F::Upper | F::Ltrim | F::Rtrim | F::Reverse => (Kind::Text(texts(1)?), None),
        F::Left | F::Right | F::Substring | F::Repeat => {
            numbers(1)?;
            (Kind::Text(texts(1)?), None)
        }
        F::SubstringIndex => {
            numbers(2)?;
            (Kind::Text(texts(2)?), None)
        }
        F::Replace => (Kind::Text(texts(3)?), None),
        F::Lpad | F::Rpad => {
            args[1].kind.as_number()?;
            (Kind::Text(agree([args[0].kind.as_text()?, args[2].kind.as_text()?])), None)
        }
        F::Length | F::Hex | F::Sha2 => bytes_function(function, args)?,
        F::CharLength if args[0].kind.class() == Class::Bytes => (BIGINT, None),
        F::CharLength => {
            args[0].kind.as_text()?;
            (BIGINT, None)
        }
        F::Locate | F::Instr | F::FindInSet => {
            numbers(2)?;
            let collation = texts(2)?.collation.ok_or_else(|| {
                Refusal::new("the texts have different collations", "name one: a COLLATE utf8mb4_bin")
            })?;
            (BIGINT, Some(collation))
        }
        F::Abs | F::Sign | F::Ceil | F::Floor | F::Round | F::Truncate => (number(function, args)?, None),
        F::JsonUnquote => match args[0].kind.class() {
            Class::Json | Class::Null => (Kind::Text(kind::JSON_TEXT), None),
            _ => {
                return Err(Refusal::new(
                    "JSON_UNQUOTE of something that is not JSON",
                    "only JSON columns have JSON",
                ));
            }
        },
        F::FromUnixtime => from_unixtime(args)?,
        _ => (date(function, args)?, None),
    })
}

fn bytes_function(function: Function, args: &[Node]) -> Result<(Kind, Option<Collation>), Refusal> {
    let kind = args[0].kind;
    let number = matches!(kind.class(), Class::Int | Class::Decimal | Class::Double) && kind != Kind::Year;
    let free_of_charset = kind.class() == Class::Bytes || function == Function::Hex && number;
    if !free_of_charset && !kind.as_text()?.utf8 {
        return Err(Refusal::new(
            "the bytes of a text in another character set than UTF-8 are not known here",
            "use CHAR_LENGTH, or move the column to utf8mb4",
        ));
    }
    if let Some(size) = args.get(1)
        && !matches!(size.op, Op::Const(_))
    {
        return Err(Refusal::new("SHA2 wants a literal size", "write SHA2(x, 256)"));
    }
    Ok(match function {
        Function::Length => (BIGINT, None),
        _ => (Kind::Text(kind::LITERAL), None),
    })
}

fn number(function: Function, args: &[Node]) -> Result<Kind, Refusal> {
    use Function as F;
    if matches!(args[0].kind.class(), Class::Time | Class::DateTime) {
        return Err(Refusal::new(
            "a time is rounded as a number",
            "write ROUND(at + 0), or CAST it to DATETIME(0)",
        ));
    }
    let kind = number_of(&args[0])?;
    let place = match args.get(1).map(|node| &node.op) {
        None => 0,
        Some(Op::Const(value @ (Val::Int(_) | Val::UInt(_) | Val::Decimal(_)))) => {
            to_int(value).clamp(-100, 100) as i64
        }
        Some(_) => return Err(Refusal::new("the number of digits is not a literal", "write ROUND(x, 2)")),
    };
    Ok(match (function, kind) {
        (F::Sign, _) => BIGINT,
        (_, Kind::Decimal { precision, scale }) => {
            let whole = u32::from(precision - scale);
            match function {
                F::Abs => kind,
                F::Ceil | F::Floor if whole < 18 => BIGINT,
                F::Ceil | F::Floor => Kind::decimal(whole + 1, 0),
                _ => {
                    let scale = u32::from(scale).min(place.max(0) as u32);
                    Kind::decimal(whole + 1 + scale, scale)
                }
            }
        }
        // Rounding may need one digit more than the column had.
        (F::Round, Kind::Int { unsigned, digits }) => Kind::Int { unsigned, digits: (digits + 1).min(20) },
        (_, Kind::Int { .. }) => kind,
        _ => DOUBLE,
    })
}

fn from_unixtime(args: &[Node]) -> Result<(Kind, Option<Collation>), Refusal> {
    if args.len() > 1 {
        return Err(Refusal::new(
            "FROM_UNIXTIME with a format is not supported",
            "write DATE_FORMAT(FROM_UNIXTIME(x), '%Y-%m-%d')",
        ));
    }
    let fsp = match args[0].kind.class() {
        Class::Null | Class::Int => 0,
        Class::Decimal => args[0].kind.decimal_size().map_or(0, |(_, scale)| scale.min(6)),
        Class::Double => 6,
        _ => return Err(Refusal::new("FROM_UNIXTIME wants a number", "CAST it to SIGNED or DECIMAL")),
    };
    Ok((Kind::DateTime { fsp }, None))
}

fn date(function: Function, args: &[Node]) -> Result<Kind, Refusal> {
    use Function as F;
    let time_of_day = matches!(function, F::Hour | F::Minute | F::Second | F::Microsecond);
    let checked = if function == F::DateDiff { 2 } else { 1 };
    for node in &args[..checked] {
        match node.kind.class() {
            Class::Null | Class::Date | Class::DateTime => {}
            Class::Time if time_of_day => {}
            Class::Text if matches!(node.kind, Kind::Text(text) if text.mixed) => {
                return Err(kind::several_types());
            }
            // The server reads text as a time there, and takes what it can.
            Class::Text if !time_of_day && function != F::UnixTimestamp => {}
            _ => {
                return Err(Refusal::new(
                    format!("{} wants a date", format!("{function:?}").to_uppercase()),
                    "use a DATE, DATETIME or TIMESTAMP column, or CAST text to DATETIME",
                ));
            }
        }
    }
    Ok(match function {
        F::Date | F::LastDay => Kind::Date,
        F::DayName | F::MonthName => Kind::Text(kind::LITERAL),
        F::DateFormat => {
            let Op::Const(Val::Text(format)) = &args[1].op else {
                return Err(Refusal::new("the format is not a literal", "write DATE_FORMAT(x, '%Y-%m-%d')"));
            };
            if temporal::has_week_letters(format) {
                return Err(Refusal::new("weeks (%U %u %V %v %X %x) are not supported", "use %Y, %m and %d"));
            }
            Kind::Text(kind::LITERAL)
        }
        F::UnixTimestamp => match args[0].kind {
            Kind::DateTime { fsp } if fsp > 0 => Kind::Decimal { precision: 11 + fsp, scale: fsp },
            _ => BIGINT,
        },
        _ => BIGINT,
    })
}
