//! Functions that the engine has beside those of expressions: the time of the statement, calendars, powers, lists.

use crate::error::EngineError;
use crate::program::{Program, eval_error};
use crate::query::{Env, Translator, Typed};
use base::value::{Date, DateTime, days_of_date, timestamp_to_datetime};
use expr::coerce::{Val, to_double, to_int, to_text};
use expr::collate::{Collation, DEFAULT};
use expr::kind::{BIGINT, Class, DOUBLE, Kind, LITERAL, TextKind, agree};
use expr::parse::CastTo;
use expr::temporal;
use sqlparser::ast::{Expr, Function, FunctionArguments, Value};

/// One of them, as far as it runs once a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extra {
    TimestampDiff(Unit),
    Week,
    YearWeek,
    StrToDate,
    ToDays,
    TimeToSec,
    Power,
    Sqrt,
    Exp,
    Ln,
    Log2,
    Log10,
    Ascii,
    Space,
    Strcmp(Collation),
    Elt,
    /// Texts by a collation; numbers as doubles.
    Field(Option<Collation>),
}

/// What TIMESTAMPDIFF counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    Micros(i64),
    Months(i64),
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_lowercase().as_str() {
        "microsecond" => Unit::Micros(1),
        "second" => Unit::Micros(1_000_000),
        "minute" => Unit::Micros(60_000_000),
        "hour" => Unit::Micros(3_600_000_000),
        "day" => Unit::Micros(86_400_000_000),
        "week" => Unit::Micros(7 * 86_400_000_000),
        "month" => Unit::Months(1),
        "quarter" => Unit::Months(3),
        "year" => Unit::Months(12),
        _ => return None,
    })
}

/// A call of one of these functions; `None` when the name is another's.
pub fn call(
    translator: &mut Translator<'_>,
    name: &str,
    function: &Function,
    env: &Env<'_>,
) -> Result<Option<Typed>, EngineError> {
    if let Some(typed) = clock(translator, name, function)? {
        return Ok(Some(typed));
    }
    let arguments = match &function.args {
        FunctionArguments::List(_) => crate::query::arguments(function)?,
        _ => return Ok(None),
    };
    let wrong = || {
        EngineError::sql(1582, format!("Incorrect parameter count in the call to {}", name.to_uppercase()))
    };
    let of = |least: usize, most: usize| {
        if (least..=most).contains(&arguments.len()) { Ok(()) } else { Err(wrong()) }
    };
    let mut built = Built { translator, env, all: Vec::new() };
    let (extra, kind) = match name {
        "timestampdiff" => {
            of(3, 3)?;
            let Expr::Identifier(word) = arguments[0] else { return Err(wrong()) };
            let unit = unit(&word.value).ok_or_else(|| {
                EngineError::refused(format!("the unit {word} is not supported"), "use DAY, MONTH, …")
            })?;
            built.date(arguments[1])?;
            built.date(arguments[2])?;
            (Extra::TimestampDiff(unit), BIGINT)
        }
        "week" | "yearweek" | "weekofyear" => {
            of(1, if name == "weekofyear" { 1 } else { 2 })?;
            built.date(arguments[0])?;
            match arguments.get(1) {
                Some(mode) => built.plain(mode)?,
                None => built.constant(if name == "weekofyear" { 3 } else { 0 }),
            }
            (if name == "yearweek" { Extra::YearWeek } else { Extra::Week }, BIGINT)
        }
        "str_to_date" => {
            of(2, 2)?;
            built.text(arguments[0])?;
            built.text(arguments[1])?;
            let Some(format) = text_of(arguments[1]) else {
                return Err(EngineError::refused(
                    "the format is not a literal",
                    "write STR_TO_DATE(x, '%Y-%m-%d')",
                ));
            };
            (Extra::StrToDate, str_to_date_kind(format)?)
        }
        "to_days" => {
            of(1, 1)?;
            built.date(arguments[0])?;
            (Extra::ToDays, BIGINT)
        }
        "time_to_sec" => {
            of(1, 1)?;
            built.plain(arguments[0])?;
            if built.all[0].kind.class() != Class::Time {
                return Err(EngineError::refused("TIME_TO_SEC wants a TIME", "write TIME_TO_SEC(TIME '…')"));
            }
            (Extra::TimeToSec, BIGINT)
        }
        "pow" | "power" => {
            of(2, 2)?;
            built.double(arguments[0])?;
            built.double(arguments[1])?;
            (Extra::Power, DOUBLE)
        }
        "sqrt" | "exp" | "ln" | "log2" | "log10" => {
            of(1, 1)?;
            built.double(arguments[0])?;
            let extra = match name {
                "sqrt" => Extra::Sqrt,
                "exp" => Extra::Exp,
                "ln" => Extra::Ln,
                "log2" => Extra::Log2,
                _ => Extra::Log10,
            };
            (extra, DOUBLE)
        }
        "ascii" => {
            of(1, 1)?;
            built.text(arguments[0])?;
            (Extra::Ascii, BIGINT)
        }
        "space" => {
            of(1, 1)?;
            built.plain(arguments[0])?;
            (Extra::Space, Kind::Text(LITERAL))
        }
        "strcmp" => {
            of(2, 2)?;
            built.text(arguments[0])?;
            built.text(arguments[1])?;
            (Extra::Strcmp(built.collation(0)?.collation.unwrap_or(DEFAULT)), BIGINT)
        }
        "elt" => {
            of(2, usize::MAX)?;
            built.plain(arguments[0])?;
            for argument in &arguments[1..] {
                built.text(argument)?;
            }
            let kind = Kind::Text(built.collation(1)?);
            (Extra::Elt, kind)
        }
        "field" => {
            of(2, usize::MAX)?;
            for argument in &arguments {
                built.plain(argument)?;
            }
            let texts = built.all.iter().filter(|it| it.kind.class() == Class::Text).count();
            let numbers = built
                .all
                .iter()
                .all(|it| matches!(it.kind.class(), Class::Int | Class::Decimal | Class::Double));
            let collation = match (texts == built.all.len(), numbers) {
                (true, _) => Some(built.collation(0)?.collation.unwrap_or(DEFAULT)),
                (_, true) => None,
                _ => {
                    return Err(EngineError::refused(
                        "FIELD has values of several types",
                        "CAST them to one",
                    ));
                }
            };
            (Extra::Field(collation), BIGINT)
        }
        _ => return Ok(None),
    };
    let all = std::mem::take(&mut built.all);
    let kinds: Vec<Kind> = all.iter().map(|it| it.kind).collect();
    let list: String = all.iter().map(|it| format!(", {}", it.sql)).collect();
    let index = translator.program(Program::Extra(extra, kinds, kind));
    Ok(Some(Typed { sql: format!("tm({index}{list})"), kind }))
}

/// Arguments on their way to one type.
struct Built<'b, 'a> {
    translator: &'b mut Translator<'a>,
    env: &'b Env<'b>,
    all: Vec<Typed>,
}

impl Built<'_, '_> {
    fn plain(&mut self, expr: &Expr) -> Result<(), EngineError> {
        let typed = self.translator.scalar(expr, self.env)?;
        self.all.push(typed);
        Ok(())
    }

    fn constant(&mut self, value: i64) {
        self.all.push(Typed { sql: value.to_string(), kind: BIGINT });
    }

    fn cast(&mut self, expr: &Expr, to: CastTo, kind: Kind, keep: &[Class]) -> Result<(), EngineError> {
        let mut typed = self.translator.scalar(expr, self.env)?;
        if !keep.contains(&typed.kind.class()) {
            typed = self.translator.cast(typed, to, kind)?;
        }
        self.all.push(typed);
        Ok(())
    }

    fn date(&mut self, expr: &Expr) -> Result<(), EngineError> {
        let typed = self.translator.scalar(expr, self.env)?;
        let typed = match typed.kind.class() {
            Class::Date | Class::DateTime | Class::Null => typed,
            Class::Text => self.translator.cast(typed, CastTo::DateTime(6), Kind::DateTime { fsp: 6 })?,
            _ => return Err(EngineError::refused("a date is expected", "CAST text to DATETIME")),
        };
        self.all.push(typed);
        Ok(())
    }

    fn text(&mut self, expr: &Expr) -> Result<(), EngineError> {
        self.cast(expr, CastTo::Char(None), Kind::Text(LITERAL), &[Class::Text, Class::Null])
    }

    fn double(&mut self, expr: &Expr) -> Result<(), EngineError> {
        self.cast(expr, CastTo::Double, DOUBLE, &[Class::Double, Class::Null])
    }

    fn collation(&self, from: usize) -> Result<TextKind, EngineError> {
        let texts: Result<Vec<TextKind>, _> = self.all[from..].iter().map(|it| it.kind.as_text()).collect();
        Ok(agree(texts?))
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// NOW() and its like: the moment at which the statement began, in UTC.
fn clock(translator: &Translator<'_>, name: &str, function: &Function) -> Result<Option<Typed>, EngineError> {
    let digits = match &function.args {
        FunctionArguments::None => 0,
        FunctionArguments::List(list) if list.args.is_empty() => 0,
        FunctionArguments::List(_) => crate::query::arguments(function)
            .ok()
            .and_then(|all| all.first().and_then(|it| it.to_string().parse().ok()))
            .unwrap_or(9),
        FunctionArguments::Subquery(_) => return Ok(None),
    };
    let now = timestamp_to_datetime(translator.now_micros);
    let kind = match name {
        "now" | "current_timestamp" | "localtime" | "localtimestamp" | "utc_timestamp" => {
            Kind::DateTime { fsp: digits }
        }
        "curdate" | "current_date" | "utc_date" => Kind::Date,
        "curtime" | "current_time" | "utc_time" => Kind::Time { fsp: digits },
        _ => return Ok(None),
    };
    if digits > 6 {
        return Err(EngineError::sql(1426, format!("Too-big precision for {name}")));
    }
    let cut = |micros: u32| micros - micros % 10u32.pow(6 - u32::from(digits));
    let value = match kind {
        Kind::Date => Val::Date(now.date),
        Kind::Time { .. } => {
            let seconds = i64::from(now.hour) * 3600 + i64::from(now.minute) * 60 + i64::from(now.second);
            Val::Time(seconds * 1_000_000 + i64::from(cut(now.micro)), digits)
        }
        _ => Val::DateTime(DateTime { micro: cut(now.micro), ..now }, digits),
    };
    Ok(Some(Typed { sql: crate::query::literal(&value, kind)?, kind }))
}

impl Extra {
    /// NULL where an argument is, but for lists.
    pub fn call(self, values: &[Val<'static>]) -> Result<Val<'static>, EngineError> {
        let list = matches!(self, Self::Elt | Self::Field(_));
        if values.first().is_none_or(Val::is_null) {
            return Ok(if matches!(self, Self::Field(_)) { Val::Int(0) } else { Val::Null });
        }
        if !list && values.iter().any(Val::is_null) {
            return Ok(Val::Null);
        }
        let text = |at: usize| to_text(values[at].clone()).map_err(eval_error);
        let date = |at: usize| temporal::to_datetime(&values[at]).map_err(eval_error);
        Ok(match self {
            Self::TimestampDiff(unit) => match (date(0)?, date(1)?) {
                (Some((from, _)), Some((to, _))) => Val::Int(difference(unit, from, to)),
                _ => Val::Null,
            },
            Self::Week | Self::YearWeek => {
                let Some((value, _)) = date(0)? else { return Ok(Val::Null) };
                if value.date.month == 0 || value.date.day == 0 {
                    return Ok(Val::Null);
                }
                let mode = to_int(&values[1]) as u8 & 7;
                // YEARWEEK counts weeks of the year before, never week 0.
                let mode = if self == Self::YearWeek { mode | 2 } else { mode };
                let (year, week) = week(value.date, mode);
                Val::Int(if self == Self::YearWeek { year * 100 + week } else { week })
            }
            Self::StrToDate => str_to_date(&text(0)?, &text(1)?).unwrap_or(Val::Null),
            Self::ToDays => match date(0)? {
                Some((value, _)) => Val::Int(days_of_date(value.date) + DAYS_BEFORE_EPOCH),
                None => Val::Null,
            },
            Self::TimeToSec => match &values[0] {
                Val::Time(micros, _) => Val::Int(micros / 1_000_000),
                _ => Val::Null,
            },
            Self::Power => finite(to_double(&values[0]).powf(to_double(&values[1])), "pow")?,
            Self::Sqrt => of_positive(to_double(&values[0]), |v| v >= 0.0, f64::sqrt),
            Self::Exp => finite(to_double(&values[0]).exp(), "exp")?,
            Self::Ln => of_positive(to_double(&values[0]), |v| v > 0.0, f64::ln),
            Self::Log2 => of_positive(to_double(&values[0]), |v| v > 0.0, f64::log2),
            Self::Log10 => of_positive(to_double(&values[0]), |v| v > 0.0, f64::log10),
            Self::Ascii => Val::Int(text(0)?.bytes().next().map_or(0, i64::from)),
            Self::Space => {
                Val::text(" ".repeat(usize::try_from(to_int(&values[0]).clamp(0, 1 << 20)).unwrap_or(0)))
            }
            Self::Strcmp(collation) => Val::Int(collation.compare(&text(0)?, &text(1)?) as i64),
            Self::Elt => {
                match usize::try_from(to_int(&values[0])).ok().filter(|at| (1..values.len()).contains(at)) {
                    Some(at) => values[at].clone(),
                    None => Val::Null,
                }
            }
            Self::Field(collation) => {
                let wanted = &values[0];
                let same = |value: &&Val<'static>| {
                    !value.is_null()
                        && match collation {
                            Some(collation) => match (to_text((*value).clone()), to_text(wanted.clone())) {
                                (Ok(a), Ok(b)) => collation.equal(&a, &b),
                                _ => false,
                            },
                            None => to_double(value) == to_double(wanted),
                        }
                };
                Val::Int(values[1..].iter().position(|value| same(&value)).map_or(0, |at| at as i64 + 1))
            }
        })
    }
}

/// Days from the year 0, MySQL's day 0, to 1970.
const DAYS_BEFORE_EPOCH: i64 = 719_528;

fn finite(value: f64, name: &str) -> Result<Val<'static>, EngineError> {
    if value.is_finite() {
        return Ok(Val::Double(value));
    }
    Err(EngineError::sql(1690, format!("DOUBLE value is out of range in '{name}'")))
}

fn of_positive(value: f64, has: impl Fn(f64) -> bool, of: impl Fn(f64) -> f64) -> Val<'static> {
    if has(value) { Val::Double(of(value)) } else { Val::Null }
}

fn micros(value: DateTime) -> i64 {
    let seconds = i64::from(value.hour) * 3600 + i64::from(value.minute) * 60 + i64::from(value.second);
    (days_of_date(value.date) * 86_400 + seconds) * 1_000_000 + i64::from(value.micro)
}

fn difference(unit: Unit, from: DateTime, to: DateTime) -> i64 {
    match unit {
        Unit::Micros(size) => (micros(to) - micros(from)) / size,
        Unit::Months(size) => {
            let (early, late, sign) = if from <= to { (from, to, 1) } else { (to, from, -1) };
            let index = |value: DateTime| i64::from(value.date.year) * 12 + i64::from(value.date.month);
            let in_month =
                |value: DateTime| (value.date.day, value.hour, value.minute, value.second, value.micro);
            let months = index(late) - index(early) - i64::from(in_month(late) < in_month(early));
            sign * (months / size)
        }
    }
}

/// Year and week by MySQL's mode: 1 weeks begin on Monday, 2 no week 0, 4 the first week holds the first such weekday.
fn week(date: Date, mode: u8) -> (i64, i64) {
    // WEEK() turns the third bit round where weeks begin on Monday.
    let mode = if mode & 1 == 0 { mode ^ 4 } else { mode };
    let (monday, mut whole_year, first_weekday) = (mode & 1 != 0, mode & 2 != 0, mode & 4 != 0);
    let day = days_of_date(date);
    let mut year = i64::from(date.year);
    let start = |year: i64| days_of_date(Date { year: year.max(0) as u16, month: 1, day: 1 });
    let mut first = start(year);
    let of_week = |day: i64| (day + 3 + i64::from(!monday)).rem_euclid(7);
    let mut weekday = of_week(first);
    let length = |year: i64| start(year + 1) - start(year);
    if date.month == 1 && i64::from(date.day) <= 7 - weekday {
        let short = if first_weekday { weekday != 0 } else { weekday >= 4 };
        if !whole_year && short {
            return (year, 0);
        }
        if short {
            whole_year = true;
            year -= 1;
            let days = length(year);
            first -= days;
            weekday = (weekday + 53 * 7 - days).rem_euclid(7);
        }
    }
    let late = if first_weekday { weekday != 0 } else { weekday >= 4 };
    let days = if late { day - (first + 7 - weekday) } else { day - (first - weekday) };
    if whole_year && days >= 52 * 7 {
        let weekday = (weekday + length(year)).rem_euclid(7);
        if if first_weekday { weekday == 0 } else { weekday < 4 } {
            return (year + 1, 1);
        }
    }
    (year, days / 7 + 1)
}

fn str_to_date_kind(format: &str) -> Result<Kind, EngineError> {
    let mut letters = format.chars();
    let (mut date, mut time, mut fraction) = (false, false, false);
    while let Some(c) = letters.next() {
        if c != '%' {
            continue;
        }
        match letters.next() {
            Some('Y' | 'y' | 'm' | 'c' | 'd' | 'e' | 'b' | 'M') => date = true,
            Some('H' | 'k' | 'h' | 'I' | 'l' | 'i' | 's' | 'S' | 'T' | 'p') => time = true,
            Some('f') => (time, fraction) = (true, true),
            Some('%') => {}
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                return Err(EngineError::refused(
                    format!("STR_TO_DATE has no %{shown} here"),
                    "use %Y %y %m %c %d %e %b %M %H %h %i %s %T %p %f",
                ));
            }
        }
    }
    match (date, time) {
        (true, false) => Ok(Kind::Date),
        (true, true) => Ok(Kind::DateTime { fsp: if fraction { 6 } else { 0 } }),
        _ => Err(EngineError::refused("STR_TO_DATE of a time alone", "name a day too")),
    }
}

/// Text by a format; `None` where it does not fit, or names no day that exists.
fn str_to_date(text: &str, format: &str) -> Option<Val<'static>> {
    let mut rest = text;
    let mut out = DateTime::default();
    let (mut afternoon, mut clock12, mut has_time) = (false, false, false);
    let mut letters = format.chars();
    fn digits(rest: &mut &str, most: usize) -> Option<u32> {
        let count = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(count);
        *rest = behind;
        number.parse().ok()
    }
    while let Some(c) = letters.next() {
        rest = rest.trim_start_matches(' ');
        if c == ' ' {
            continue;
        }
        if c != '%' {
            rest = rest.strip_prefix(c)?;
            continue;
        }
        match letters.next()? {
            'Y' => out.date.year = digits(&mut rest, 4)? as u16,
            'y' => {
                let year = digits(&mut rest, 2)? as u16;
                out.date.year = if year < 70 { 2000 + year } else { 1900 + year };
            }
            'm' | 'c' => out.date.month = digits(&mut rest, 2)? as u8,
            'd' | 'e' => out.date.day = digits(&mut rest, 2)? as u8,
            letter @ ('b' | 'M') => {
                let month = temporal::MONTHS.iter().position(|name| {
                    let name = if letter == 'b' { &name[..3] } else { name };
                    rest.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name))
                })?;
                rest = &rest[if letter == 'b' { 3 } else { temporal::MONTHS[month].len() }..];
                out.date.month = month as u8 + 1;
            }
            'H' | 'k' => (out.hour, has_time) = (digits(&mut rest, 2)? as u8, true),
            'h' | 'I' | 'l' => (out.hour, has_time, clock12) = (digits(&mut rest, 2)? as u8, true, true),
            'i' => (out.minute, has_time) = (digits(&mut rest, 2)? as u8, true),
            's' | 'S' => (out.second, has_time) = (digits(&mut rest, 2)? as u8, true),
            'T' => {
                out.hour = digits(&mut rest, 2)? as u8;
                rest = rest.strip_prefix(':')?;
                out.minute = digits(&mut rest, 2)? as u8;
                rest = rest.strip_prefix(':')?;
                out.second = digits(&mut rest, 2)? as u8;
                has_time = true;
            }
            'f' => {
                let before = rest.len();
                let number = digits(&mut rest, 6)?;
                out.micro = number * 10u32.pow(6 - (before - rest.len()) as u32);
                has_time = true;
            }
            'p' => {
                let word = rest.get(..2)?;
                afternoon = word.eq_ignore_ascii_case("PM");
                if !afternoon && !word.eq_ignore_ascii_case("AM") {
                    return None;
                }
                rest = &rest[2..];
            }
            _ => return None,
        }
    }
    if clock12 {
        if !(1..=12).contains(&out.hour) {
            return None;
        }
        out.hour = out.hour % 12 + if afternoon { 12 } else { 0 };
    }
    let real = temporal::is_real(out.date) && out.date.month > 0 && out.date.day > 0;
    if !real || out.hour > 23 || out.minute > 59 || out.second > 59 {
        return None;
    }
    Some(if has_time { Val::DateTime(out, 6) } else { Val::Date(out.date) })
}
