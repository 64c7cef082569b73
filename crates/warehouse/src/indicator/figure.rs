//! Exact numbers and what is computed from them: quotients, and MySQL's expressions over numbers.

use base::{Column, ColumnType, Generated, Value, ValueRef};
use expr::coerce::double_text;
use expr::decimal::Decimal;
use expr::{Condition, EvalError, Expression, Output, Row, Scope, Slot};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Digits behind the point of a quotient that declares none.
pub const QUOTIENT_DECIMALS: u32 = 6;
/// Digits a quotient is computed with: rounded once more at the end, which `decimals` bounds far below.
const QUOTIENT_SCALE: u32 = 20;
/// Digits behind the point of a number that a formula names: a product of three has 24, and MySQL's widest DECIMAL 30.
const NAMED_SCALE: u8 = 8;
/// What names in formulas are.
const WIDEST: ColumnType = ColumnType::Decimal { precision: 65, scale: NAMED_SCALE };

/// A number as JSON has it, with all its digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exact(pub Decimal);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.0.to_string()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// A number of a row; `None` for NULL, and for what is no number.
pub fn number_of(value: &Value) -> Option<Decimal> {
    match value {
        Value::Int(v) => Some(Decimal::from_int((*v).into())),
        Value::UInt(v) => Some(Decimal::from_int((*v).into())),
        Value::Decimal(text) => Decimal::parse(text),
        Value::Double(v) if v.is_finite() => Some(Decimal::parse_prefix(&double_text(*v))),
        Value::Float(v) if v.is_finite() => Some(Decimal::parse_prefix(&base::value::format_float(*v))),
        _ => None,
    }
}

/// Without zeros at its end.
pub fn plain(number: &Decimal) -> Decimal {
    let text = number.to_string();
    if !text.contains('.') {
        return number.clone();
    }
    let kept = text.trim_end_matches('0').trim_end_matches('.');
    Decimal::parse(kept).unwrap_or_else(|| number.clone())
}

/// A quotient with more digits than anybody is shown; `None` by zero.
pub fn quotient(left: &Decimal, right: &Decimal) -> Option<Decimal> {
    left.rescaled(QUOTIENT_SCALE.max(left.scale())).divided_by(right)
}

/// How much more a number is than another, as a part of that.
pub fn rate(now: &Decimal, before: &Decimal) -> Option<Decimal> {
    let before_size = if before.is_negative() { before.negated() } else { before.clone() };
    let rate = quotient(&now.minus(before), &before_size)?;
    Some(plain(&rate.rescaled(QUOTIENT_DECIMALS)))
}

fn columns(names: &[String]) -> Vec<Column> {
    let column = |name: &String| Column {
        name: name.clone(),
        ty: WIDEST,
        sql_type: format!("decimal(65,{NAMED_SCALE})"),
        nullable: true,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    };
    names.iter().map(column).collect()
}

fn scope(columns: &[Column]) -> Scope<'_> {
    let columns = columns.iter().enumerate().map(|(at, it)| (Slot::Source(at), it));
    Scope { table: "metrics".into(), columns: columns.collect() }
}

fn row_of(numbers: &[Option<Decimal>]) -> Vec<Value> {
    let value = |number: &Option<Decimal>| match number {
        Some(number) => Value::Decimal(number.rescaled(NAMED_SCALE.into()).to_string()),
        None => Value::Null,
    };
    numbers.iter().map(value).collect()
}

/// An expression over numbers.
#[derive(Clone, Debug)]
pub struct Formula(Output);

impl Formula {
    pub fn parse(text: &str, names: &[String]) -> Result<Self, expr::Refusal> {
        let columns = columns(names);
        Expression::parse(text)?.bind_column("value", &scope(&columns)).map(Self)
    }

    pub fn value(&self, numbers: &[Option<Decimal>]) -> Result<Option<Decimal>, EvalError> {
        let row = row_of(numbers);
        let row: Vec<ValueRef<'_>> = row.iter().map(Value::as_ref).collect();
        let value = self.0.value(Row { source: &row, computed: &[] })?;
        Ok(number_of(&value))
    }
}

/// A condition over numbers.
#[derive(Clone, Debug)]
pub struct When(Condition);

impl When {
    pub fn parse(text: &str, names: &[String]) -> Result<Self, expr::Refusal> {
        let columns = columns(names);
        Expression::parse(text)?.bind_condition(&scope(&columns)).map(Self)
    }

    /// What has no answer does not hold.
    pub fn holds(&self, numbers: &[Option<Decimal>]) -> bool {
        let row = row_of(numbers);
        let row: Vec<ValueRef<'_>> = row.iter().map(Value::as_ref).collect();
        self.0.passes(Row { source: &row, computed: &[] }).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn formulas_are_exact_and_null_where_mysql_is() {
        let names = ["a".to_owned(), "b".to_owned()];
        let value = |text: &str, a: &str, b: Option<&str>| {
            let formula = Formula::parse(text, &names).unwrap();
            let value = formula.value(&[Some(number(a)), b.map(number)]).unwrap();
            value.map(|it| plain(&it).to_string())
        };
        assert_eq!(value("a - b", "0.3", Some("0.1")), Some("0.2".into()));
        assert_eq!(value("a / b", "1", Some("0")), None);
        assert_eq!(value("a + b", "1", None), None);
        assert_eq!(value("a + coalesce(b, 0)", "1.50", None), Some("1.5".into()));
        assert_eq!(value("a * 100 / b", "1", Some("8")), Some("12.5".into()));
        assert_eq!(
            value("a + b", "12345678901234567890.01", Some("0.01")),
            Some("12345678901234567890.02".into())
        );
        assert!(Formula::parse("a + c", &names).is_err());
        assert!(Formula::parse("a +", &names).is_err());
    }

    #[test]
    fn rates_are_of_the_size_of_what_was() {
        let told = |now: &str, before: &str| rate(&number(now), &number(before)).map(|it| it.to_string());
        assert_eq!(told("110", "100"), Some("0.1".into()));
        assert_eq!(told("1", "3"), Some("-0.666667".into()));
        assert_eq!(told("-50", "-100"), Some("0.5".into()));
        assert_eq!(told("5", "0"), None);
    }

    #[test]
    fn numbers_keep_their_digits_in_json() {
        let exact = Exact(number("12345678901234567890.10"));
        assert_eq!(serde_json::to_string(&exact).unwrap(), "12345678901234567890.10");
    }

    #[test]
    fn a_condition_without_its_numbers_does_not_hold() {
        let names = ["value".to_owned(), "target".to_owned()];
        let when = When::parse("value < target * 0.8", &names).unwrap();
        assert!(when.holds(&[Some(number("79.9")), Some(number("100"))]));
        assert!(!when.holds(&[Some(number("80")), Some(number("100"))]));
        assert!(!when.holds(&[Some(number("1")), None]));
    }
}
