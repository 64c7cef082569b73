//! The aggregates that SQLite has not, or has as floating point: exact sums and averages, MySQL's deviations, bits, and
//! the check that a subquery has one row.
//!
//! Sums that run over a window take rows back; a sum of doubles that does so may differ from MySQL's in its last bit.

use crate::error::{EngineError, carried};
use crate::types::{exact, wide};
use num_bigint::{BigInt, Sign};
use rusqlite::functions::{Aggregate, Context, FunctionFlags, WindowAggregate};
use rusqlite::types::{Value as Cell, ValueRef as CellRef};
use rusqlite::{Connection, Error, Result};

/// Largest text of GROUP_CONCAT: `group_concat_max_len` of every session.
pub const CONCAT_BYTES_MAX: usize = 1 << 20;

/// What a running sum has.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    exact: i128,
    /// Wide numbers, and what overflowed.
    wide: BigInt,
    real: f64,
    count: u64,
}

#[derive(Clone, Copy, Debug)]
enum Total {
    Sum,
    /// With so many more digits after the point.
    Average(u32),
    RealSum,
    RealAverage,
}

impl Total {
    fn add(self, cell: CellRef<'_>, sum: &mut Sum, sign: i8) {
        match (self, cell) {
            (_, CellRef::Null) => return,
            (Self::RealSum | Self::RealAverage, CellRef::Real(value)) => sum.real += f64::from(sign) * value,
            (Self::RealSum | Self::RealAverage, CellRef::Integer(value)) => {
                sum.real += f64::from(sign) * value as f64;
            }
            (_, CellRef::Integer(value)) => {
                let value = i128::from(sign) * i128::from(value);
                match sum.exact.checked_add(value) {
                    Some(total) => sum.exact = total,
                    None => sum.wide += value,
                }
            }
            (_, cell) => sum.wide += exact(cell).unwrap_or_default() * BigInt::from(sign),
        }
        if sign > 0 { sum.count += 1 } else { sum.count -= 1 }
    }

    fn result(self, sum: Option<&Sum>) -> Cell {
        let Some(sum) = sum.filter(|sum| sum.count > 0) else { return Cell::Null };
        match self {
            Self::RealSum => Cell::Real(sum.real),
            Self::RealAverage => Cell::Real(sum.real / sum.count as f64),
            Self::Sum => Cell::Blob(wide(&(&sum.wide + sum.exact))),
            Self::Average(digits) => {
                let total = (&sum.wide + sum.exact) * BigInt::from(10u8).pow(digits);
                Cell::Blob(wide(&divided(&total, sum.count)))
            }
        }
    }
}

/// Rounded half away from zero.
fn divided(total: &BigInt, count: u64) -> BigInt {
    let half = BigInt::from(count) / 2u8 + u8::from(count % 2 == 1);
    let (quotient, rest) = (total / count, total % count);
    if *rest.magnitude() < *half.magnitude() {
        quotient
    } else if total.sign() == Sign::Minus {
        quotient - 1
    } else {
        quotient + 1
    }
}

impl Aggregate<Sum, Cell> for Total {
    fn init(&self, _: &mut Context<'_>) -> Result<Sum> {
        Ok(Sum::default())
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Sum) -> Result<()> {
        self.add(context.get_raw(0), sum, 1);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Sum>) -> Result<Cell> {
        Ok(self.result(sum.as_ref()))
    }
}

impl WindowAggregate<Sum, Cell> for Total {
    fn value(&self, sum: Option<&mut Sum>) -> Result<Cell> {
        Ok(self.result(sum.as_deref()))
    }

    fn inverse(&self, context: &mut Context<'_>, sum: &mut Sum) -> Result<()> {
        self.add(context.get_raw(0), sum, -1);
        Ok(())
    }
}

/// Variance by Welford's recurrence, as MySQL calculates it.
#[derive(Clone, Copy, Debug)]
struct Deviation {
    sample: bool,
    root: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: u64,
    mean: f64,
    square: f64,
}

impl Aggregate<Spread, Cell> for Deviation {
    fn init(&self, _: &mut Context<'_>) -> Result<Spread> {
        Ok(Spread::default())
    }

    fn step(&self, context: &mut Context<'_>, spread: &mut Spread) -> Result<()> {
        let value = match context.get_raw(0) {
            CellRef::Real(value) => value,
            CellRef::Integer(value) => value as f64,
            _ => return Ok(()),
        };
        spread.count += 1;
        let before = spread.mean;
        spread.mean += (value - before) / spread.count as f64;
        spread.square += (value - before) * (value - spread.mean);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, spread: Option<Spread>) -> Result<Cell> {
        let Some(spread) = spread.filter(|it| it.count > u64::from(self.sample)) else {
            return Ok(Cell::Null);
        };
        let variance = spread.square / (spread.count - u64::from(self.sample)) as f64;
        Ok(Cell::Real(if self.root { variance.sqrt() } else { variance }))
    }
}

#[derive(Clone, Copy, Debug)]
enum Bits {
    And,
    Or,
    Xor,
}

impl Aggregate<u64, Cell> for Bits {
    fn init(&self, _: &mut Context<'_>) -> Result<u64> {
        Ok(self.empty())
    }

    fn step(&self, context: &mut Context<'_>, bits: &mut u64) -> Result<()> {
        let Some(number) = exact(context.get_raw(0)) else { return Ok(()) };
        let value =
            u64::try_from(&number).or_else(|_| i64::try_from(&number).map(|v| v as u64)).unwrap_or(u64::MAX);
        match self {
            Self::And => *bits &= value,
            Self::Or => *bits |= value,
            Self::Xor => *bits ^= value,
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, bits: Option<u64>) -> Result<Cell> {
        let bits = bits.unwrap_or(self.empty());
        Ok(i64::try_from(bits).map_or_else(|_| Cell::Blob(wide(&BigInt::from(bits))), Cell::Integer))
    }
}

impl Bits {
    fn empty(self) -> u64 {
        if matches!(self, Self::And) { u64::MAX } else { 0 }
    }
}

/// The value of the only row.
#[derive(Clone, Copy, Debug)]
struct One;

impl Aggregate<Option<Cell>, Cell> for One {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<Cell>> {
        Ok(None)
    }

    fn step(&self, context: &mut Context<'_>, only: &mut Option<Cell>) -> Result<()> {
        if only.is_some() {
            let error = EngineError::sql(1242, "Subquery returns more than 1 row");
            return Err(Error::UserFunctionError(carried(&error).into()));
        }
        *only =
            Some(context.get_raw(0).try_into().map_err(|error| Error::UserFunctionError(Box::new(error)))?);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, only: Option<Option<Cell>>) -> Result<Cell> {
        Ok(only.flatten().unwrap_or(Cell::Null))
    }
}

/// GROUP_CONCAT with a separator.
#[derive(Clone, Debug)]
struct Concat(String);

impl Aggregate<Option<String>, Cell> for Concat {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<String>> {
        Ok(None)
    }

    fn step(&self, context: &mut Context<'_>, text: &mut Option<String>) -> Result<()> {
        let CellRef::Text(part) = context.get_raw(0) else { return Ok(()) };
        let part = String::from_utf8_lossy(part);
        match text {
            Some(text) => {
                text.push_str(&self.0);
                text.push_str(&part);
            }
            None => *text = Some(part.into_owned()),
        }
        if text.as_ref().is_some_and(|text| text.len() > CONCAT_BYTES_MAX) {
            let error = EngineError::sql(1260, "a line of GROUP_CONCAT is longer than a mebibyte");
            return Err(Error::UserFunctionError(carried(&error).into()));
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, text: Option<Option<String>>) -> Result<Cell> {
        Ok(text.flatten().map_or(Cell::Null, Cell::Text))
    }
}

/// Makes the aggregates known to a connection.
pub fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_window_function("tm_sum", 1, flags, Total::Sum)?;
    connection.create_window_function("tm_sum_real", 1, flags, Total::RealSum)?;
    connection.create_window_function("tm_avg_real", 1, flags, Total::RealAverage)?;
    for digits in 0..=4 {
        connection.create_window_function(
            format!("tm_avg_{digits}").as_str(),
            1,
            flags,
            Total::Average(digits),
        )?;
    }
    for (name, sample, root) in [
        ("tm_var_pop", false, false),
        ("tm_var_samp", true, false),
        ("tm_stddev_pop", false, true),
        ("tm_stddev_samp", true, true),
    ] {
        connection.create_aggregate_function(name, 1, flags, Deviation { sample, root })?;
    }
    for (name, bits) in [("tm_bit_and", Bits::And), ("tm_bit_or", Bits::Or), ("tm_bit_xor", Bits::Xor)] {
        connection.create_aggregate_function(name, 1, flags, bits)?;
    }
    connection.create_aggregate_function("tm_one", 1, flags, One)
}

/// The function that joins texts with a separator; made when a statement first wants it.
pub fn concat_name(separator: &str) -> String {
    let hex: String = separator.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("tm_concat_{hex}")
}

/// Makes the function of [`concat_name`] known.
pub fn register_concat(connection: &Connection, separator: &str) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function(
        concat_name(separator).as_str(),
        1,
        flags,
        Concat(separator.to_owned()),
    )
}
