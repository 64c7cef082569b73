//! A bound expression: columns resolved, types and comparisons decided; and its evaluation over a row.

use super::coerce::{Val, double_text, is_true, to_bytes, to_decimal, to_double, to_int, to_text};
use super::collate::{Collation, Pattern};
use super::decimal::Decimal;
use super::functions::{self, Function};
use super::json::{self, Step};
use super::kind::{Class, Kind};
use super::parse::{Arithmetic, Bits, CastTo, Compare, Logic, Truth};
use super::temporal::{self, Unit};
use crate::EvalError;
use base::value::timestamp_to_datetime;
use base::{Value, ValueRef};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

/// Where a column's value is while the steps of a flow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The source's column.
    Source(usize),
    /// The result of an earlier step.
    Computed(usize),
}

/// A row while the steps run.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub source: &'a [ValueRef<'a>],
    pub computed: &'a [Value],
}

impl<'a> Row<'a> {
    pub fn get(self, slot: Slot) -> ValueRef<'a> {
        match slot {
            Slot::Source(index) => self.source.get(index).copied().unwrap_or(ValueRef::Null),
            Slot::Computed(index) => self.computed.get(index).map_or(ValueRef::Null, Value::as_ref),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub op: Op,
}

/// What a column's stored value needs to be read.
#[derive(Clone, Debug)]
pub struct Reader {
    pub slot: Slot,
    pub fsp: u8,
    /// Labels of an ENUM or SET.
    pub labels: Arc<[String]>,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    Int,
    Decimal,
    Double,
    Text(Collation),
    Bytes,
    DateTime,
    Time,
    Json,
    JsonBool,
}

#[derive(Clone, Debug)]
pub enum Op {
    Const(Val<'static>),
    Column(Reader),
    Neg(Box<Node>),
    Not(Box<Node>),
    BitNot(Box<Node>),
    Logic(Logic, Vec<Node>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    Bits(Bits, Box<Node>, Box<Node>),
    Compare(Compare, By, Box<Node>, Box<Node>),
    Is {
        value: Box<Node>,
        truth: Truth,
        negated: bool,
    },
    In {
        value: Box<Node>,
        list: Vec<(By, Node)>,
        negated: bool,
    },
    Between {
        value: Box<Node>,
        low: (By, Box<Node>),
        high: (By, Box<Node>),
        negated: bool,
    },
    Like {
        value: Box<Node>,
        pattern: LikePattern,
        by: By,
        negated: bool,
    },
    Case {
        operand: Option<Box<Node>>,
        arms: Vec<(By, Node, Node)>,
        otherwise: Box<Node>,
    },
    /// The first argument that is not NULL.
    Coalesce(Vec<Node>),
    NullIf(By, Box<Node>, Box<Node>),
    /// To the node's kind, as the branches of IF are.
    Unified {
        value: Box<Node>,
        rescale: bool,
    },
    Cast(CastTo, Box<Node>),
    AddInterval {
        value: Box<Node>,
        amount: Box<Node>,
        unit: Unit,
        negative: bool,
    },
    Trim {
        value: Box<Node>,
        what: Option<Box<Node>>,
        leading: bool,
        trailing: bool,
    },
    JsonPath {
        value: Box<Node>,
        path: Vec<Step>,
        unquote: bool,
    },
    Concat {
        separator: Option<Box<Node>>,
        parts: Vec<Node>,
    },
    Extreme {
        greatest: bool,
        by: By,
        parts: Vec<Node>,
    },
    Call(Function, Vec<Node>, Option<Collation>),
}

#[derive(Clone, Debug)]
pub enum LikePattern {
    Ready(Pattern),
    Computed(Box<Node>, Option<char>),
}

impl Node {
    pub fn constant(kind: Kind, value: Val<'static>) -> Self {
        Self { kind, op: Op::Const(value) }
    }

    /// Whether a double comes from a calculation, not from a column or literal.
    fn is_calculated(&self) -> bool {
        match &self.op {
            Op::Arithmetic(..) | Op::Neg(_) => true,
            Op::Cast(CastTo::Double, value) => value.is_calculated(),
            _ => false,
        }
    }

    /// Whether the value is TRUE; `None` for NULL.
    pub fn truth(&self, row: Row<'_>) -> Result<Option<bool>, EvalError> {
        Ok(is_true(&self.eval(row)?))
    }

    pub fn eval<'a>(&'a self, row: Row<'a>) -> Result<Val<'a>, EvalError> {
        match &self.op {
            Op::Const(value) => Ok(borrowed(value)),
            Op::Column(reader) => read(reader, row.get(reader.slot), self.kind),
            Op::Neg(value) => negated(value.eval(row)?, self.kind),
            Op::Not(value) => Ok(truth_value(value.truth(row)?.map(|v| !v))),
            Op::BitNot(value) => match value.eval(row)? {
                Val::Null => Ok(Val::Null),
                value => Ok(Val::UInt(!functions::bits_of(&value))),
            },
            Op::Logic(logic, parts) => eval_logic(*logic, parts, row),
            Op::Arithmetic(operator, left, right) => {
                let (left, right) = (left.eval(row)?, right.eval(row)?);
                if left.is_null() || right.is_null() {
                    return Ok(Val::Null);
                }
                calculate(*operator, &left, &right, self.kind)
            }
            Op::Bits(operator, left, right) => {
                let (left, right) = (left.eval(row)?, right.eval(row)?);
                if left.is_null() || right.is_null() {
                    return Ok(Val::Null);
                }
                Ok(Val::UInt(combine_bits(*operator, functions::bits_of(&left), functions::bits_of(&right))))
            }
            Op::Compare(compare, by, left, right) => {
                let (left, right) = (left.eval(row)?, right.eval(row)?);
                Ok(truth_value(eval_compare(*compare, *by, &left, &right)?))
            }
            Op::Is { value, truth, negated } => {
                let value = value.eval(row)?;
                let is = match truth {
                    Truth::Null => value.is_null(),
                    Truth::True => is_true(&value) == Some(true),
                    Truth::False => is_true(&value) == Some(false),
                };
                Ok(Val::bool(is != *negated))
            }
            Op::In { value, list, negated } => eval_in(value, list, *negated, row),
            Op::Between { value, low, high, negated } => {
                let value = value.eval(row)?;
                let above = eval_compare(Compare::GreaterEqual, low.0, &value, &low.1.eval(row)?)?;
                let below = eval_compare(Compare::LessEqual, high.0, &value, &high.1.eval(row)?)?;
                Ok(truth_value(both(above, below).map(|inside| inside != *negated)))
            }
            Op::Like { value, pattern, by, negated } => {
                let matched = eval_like(value.eval(row)?, pattern, *by, row)?;
                Ok(truth_value(matched.map(|matched| matched != *negated)))
            }
            Op::Case { operand, arms, otherwise } => {
                let operand = operand.as_ref().map(|operand| operand.eval(row)).transpose()?;
                for (by, when, then) in arms {
                    let taken = match &operand {
                        Some(operand) => eval_compare(Compare::Equal, *by, operand, &when.eval(row)?)?,
                        None => when.truth(row)?,
                    };
                    if taken == Some(true) {
                        return then.eval(row);
                    }
                }
                otherwise.eval(row)
            }
            Op::Coalesce(parts) => {
                for part in parts {
                    let value = part.eval(row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Val::Null)
            }
            Op::NullIf(by, left, right) => {
                let (left, right) = (left.eval(row)?, right.eval(row)?);
                let same = eval_compare(Compare::Equal, *by, &left, &right)? == Some(true);
                Ok(if same { Val::Null } else { left })
            }
            Op::Unified { value, rescale } => unified(value.eval(row)?, self.kind, *rescale),
            Op::Cast(to, value) => {
                let computed = value.is_calculated();
                let value = value.eval(row)?;
                if computed && matches!(to, CastTo::Signed | CastTo::Unsigned) {
                    refuse_wide(&value)?;
                }
                cast(value, *to)
            }
            Op::AddInterval { value, amount, unit, negative } => {
                let (value, amount) = (value.eval(row)?, amount.eval(row)?);
                add_interval(&value, &amount, *unit, *negative, self.kind)
            }
            Op::Trim { value, what, leading, trailing } => {
                let value = value.eval(row)?;
                let what = match what {
                    Some(what) => what.eval(row)?,
                    None => Val::text(" "),
                };
                if value.is_null() || what.is_null() {
                    return Ok(Val::Null);
                }
                Ok(functions::trim(to_text(value)?, &to_text(what)?, *leading, *trailing))
            }
            Op::JsonPath { value, path, unquote } => Ok(match value.eval(row)? {
                Val::Json(Cow::Borrowed(text)) => match json::extract(text, path) {
                    Some(part) if *unquote => Val::Text(json::unquoted(part)),
                    Some(part) => Val::Json(Cow::Borrowed(part)),
                    None => Val::Null,
                },
                Val::Json(Cow::Owned(text)) => match json::extract(&text, path) {
                    Some(part) if *unquote => Val::text(json::unquoted(part).into_owned()),
                    Some(part) => Val::Json(part.to_owned().into()),
                    None => Val::Null,
                },
                _ => Val::Null,
            }),
            Op::Concat { separator, parts } => {
                eval_concat(separator.as_deref(), parts, self.kind.class() == Class::Bytes, row)
            }
            Op::Extreme { greatest, by, parts } => {
                let mut values = Vec::with_capacity(parts.len());
                for part in parts {
                    let value = part.eval(row)?;
                    if value.is_null() {
                        return Ok(Val::Null);
                    }
                    values.push(value);
                }
                Ok(functions::extreme(values, *greatest, |a, b| order(*by, a, b)))
            }
            Op::Call(function, arguments, collation) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    let value = argument.eval(row)?;
                    if value.is_null() {
                        return Ok(Val::Null);
                    }
                    values.push(value);
                }
                functions::call(*function, values, self.kind, *collation)
            }
        }
    }
}

fn borrowed<'a>(value: &'a Val<'static>) -> Val<'a> {
    match value {
        Val::Text(text) => Val::Text(Cow::Borrowed(text)),
        Val::Bytes(bytes) => Val::Bytes(Cow::Borrowed(bytes)),
        Val::Json(text) => Val::Json(Cow::Borrowed(text)),
        other => other.clone(),
    }
}

/// A constant that outlives the row it was computed without.
pub fn owned(value: Val<'_>) -> Val<'static> {
    match value {
        Val::Text(text) => Val::Text(text.into_owned().into()),
        Val::Label(text, number) => Val::Label(text.into_owned().into(), number),
        Val::Bytes(bytes) => Val::Bytes(bytes.into_owned().into()),
        Val::Json(text) => Val::Json(text.into_owned().into()),
        Val::Null => Val::Null,
        Val::Int(v) => Val::Int(v),
        Val::UInt(v) => Val::UInt(v),
        Val::Decimal(v) => Val::Decimal(v),
        Val::Double(v) => Val::Double(v),
        Val::Float(v) => Val::Float(v),
        Val::Date(v) => Val::Date(v),
        Val::Time(v, fsp) => Val::Time(v, fsp),
        Val::DateTime(v, fsp) => Val::DateTime(v, fsp),
    }
}

fn read<'a>(reader: &'a Reader, value: ValueRef<'a>, kind: Kind) -> Result<Val<'a>, EvalError> {
    Ok(match value {
        ValueRef::Null => Val::Null,
        ValueRef::Int(v) => Val::Int(v),
        ValueRef::UInt(v) | ValueRef::Bit(v) => Val::UInt(v),
        ValueRef::Float(v) => Val::Float(v),
        ValueRef::Double(v) => Val::Double(v),
        ValueRef::Decimal(text) => Val::Decimal(
            Decimal::parse(text).ok_or_else(|| EvalError(format!("`{text}` is no decimal number")))?,
        ),
        ValueRef::Date(v) => Val::Date(v),
        ValueRef::Time(v) => Val::Time(v, reader.fsp),
        ValueRef::DateTime(v) => Val::DateTime(v, reader.fsp),
        ValueRef::Timestamp(v) => Val::DateTime(timestamp_to_datetime(v), reader.fsp),
        ValueRef::Year(v) => Val::Label(format!("{v:04}").into(), u64::from(v)),
        ValueRef::Enum(ordinal) => {
            let label = usize::from(ordinal).checked_sub(1).and_then(|at| reader.labels.get(at));
            Val::Label(label.map_or("", String::as_str).into(), u64::from(ordinal))
        }
        ValueRef::Set(bits) => Val::Label(set_text(&reader.labels, bits), bits),
        ValueRef::Text(text) if kind.class() == Class::Json => Val::Json(text.into()),
        ValueRef::Text(text) => Val::Text(text.into()),
        ValueRef::Json(text) => Val::Json(text.into()),
        ValueRef::Bytes(bytes) => Val::Bytes(bytes.into()),
        // Only asked whether it is NULL.
        ValueRef::Geometry(bytes) | ValueRef::Vector(bytes) => Val::Bytes(bytes.into()),
        ValueRef::RawText(_) => {
            return Err(EvalError("a text is not valid in its column's character set".into()));
        }
    })
}

/// The labels of a SET's members with commas between; one member is borrowed.
pub fn set_text(labels: &[String], bits: u64) -> Cow<'_, str> {
    let mut members =
        labels.iter().take(64).enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, l)| l);
    match (members.next(), members.next()) {
        (None, _) => "".into(),
        (Some(one), None) => Cow::Borrowed(one),
        (Some(first), Some(second)) => {
            let mut text = format!("{first},{second}");
            for label in members {
                text.push(',');
                text.push_str(label);
            }
            text.into()
        }
    }
}

fn truth_value<'a>(value: Option<bool>) -> Val<'a> {
    value.map_or(Val::Null, Val::bool)
}

fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn eval_logic<'a>(logic: Logic, parts: &[Node], row: Row<'_>) -> Result<Val<'a>, EvalError> {
    let mut unknown = false;
    let mut odd = false;
    for part in parts {
        match (part.truth(row)?, logic) {
            (Some(false), Logic::And) => return Ok(Val::bool(false)),
            (Some(true), Logic::Or) => return Ok(Val::bool(true)),
            (Some(value), Logic::Xor) => odd ^= value,
            (None, Logic::Xor) => return Ok(Val::Null),
            (None, _) => unknown = true,
            (Some(_), _) => {}
        }
    }
    Ok(match logic {
        _ if unknown => Val::Null,
        Logic::And => Val::bool(true),
        Logic::Or => Val::bool(false),
        Logic::Xor => Val::bool(odd),
    })
}

fn order(by: By, left: &Val<'_>, right: &Val<'_>) -> Ordering {
    match by {
        By::Int => to_int(left).cmp(&to_int(right)),
        By::Decimal => to_decimal(left).cmp(&to_decimal(right)),
        // NULL is not here and NaN cannot be stored: every pair has an order.
        By::Double => to_double(left).partial_cmp(&to_double(right)).unwrap_or(Ordering::Equal),
        By::Text(collation) => {
            with_text(left, |left| with_text(right, |right| collation.compare(left, right)))
        }
        By::Bytes => with_bytes(left, |left| with_bytes(right, |right| left.cmp(right))),
        By::DateTime => datetime_of(left).cmp(&datetime_of(right)),
        By::Time => match (left, right) {
            (Val::Time(left, _), Val::Time(right, _)) => left.cmp(right),
            _ => Ordering::Equal,
        },
        By::Json => match (left, right) {
            (Val::Json(json), other) => json::compare(json, other),
            (other, Val::Json(json)) => json::compare(json, other).reverse(),
            _ => Ordering::Equal,
        },
        By::JsonBool => match (left, right) {
            (Val::Json(json), other) => json::compare_bool(json, is_true(other) == Some(true)),
            (other, Val::Json(json)) => json::compare_bool(json, is_true(other) == Some(true)).reverse(),
            _ => Ordering::Equal,
        },
    }
}

fn with_text<T>(value: &Val<'_>, then: impl FnOnce(&str) -> T) -> T {
    match value {
        Val::Text(text) | Val::Label(text, _) | Val::Json(text) => then(text),
        Val::Double(v) => then(&double_text(*v)),
        other => then(&to_text(other.clone()).unwrap_or_default()),
    }
}

fn with_bytes<T>(value: &Val<'_>, then: impl FnOnce(&[u8]) -> T) -> T {
    match value {
        Val::Bytes(bytes) => then(bytes),
        other => with_text(other, |text| then(text.as_bytes())),
    }
}

fn datetime_of(value: &Val<'_>) -> base::value::DateTime {
    temporal::to_datetime(value).ok().flatten().unwrap_or_default().0
}

fn eval_compare(
    compare: Compare,
    by: By,
    left: &Val<'_>,
    right: &Val<'_>,
) -> Result<Option<bool>, EvalError> {
    if left.is_null() || right.is_null() {
        let null_safe = compare == Compare::NullSafeEqual;
        return Ok(null_safe.then(|| left.is_null() && right.is_null()));
    }
    // Equality of text has a shorter way than order.
    if let (By::Text(collation), Compare::Equal | Compare::NotEqual | Compare::NullSafeEqual) = (by, compare)
    {
        let same = with_text(left, |left| with_text(right, |right| collation.equal(left, right)));
        return Ok(Some(same != (compare == Compare::NotEqual)));
    }
    let order = order(by, left, right);
    Ok(Some(match compare {
        Compare::Equal | Compare::NullSafeEqual => order.is_eq(),
        Compare::NotEqual => order.is_ne(),
        Compare::Less => order.is_lt(),
        Compare::LessEqual => order.is_le(),
        Compare::Greater => order.is_gt(),
        Compare::GreaterEqual => order.is_ge(),
    }))
}

fn eval_in<'a>(
    value: &'a Node,
    list: &'a [(By, Node)],
    negated: bool,
    row: Row<'a>,
) -> Result<Val<'a>, EvalError> {
    let value = value.eval(row)?;
    if value.is_null() {
        return Ok(Val::Null);
    }
    let mut unknown = false;
    for (by, item) in list {
        match eval_compare(Compare::Equal, *by, &value, &item.eval(row)?)? {
            Some(true) => return Ok(Val::bool(!negated)),
            Some(false) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { Val::Null } else { Val::bool(negated) })
}

fn eval_like(value: Val<'_>, pattern: &LikePattern, by: By, row: Row<'_>) -> Result<Option<bool>, EvalError> {
    let computed;
    let pattern = match pattern {
        LikePattern::Ready(pattern) => pattern,
        LikePattern::Computed(node, escape) => match node.eval(row)? {
            Val::Null => return Ok(None),
            text if by == By::Bytes => {
                computed = Pattern::new(&latin(&to_bytes(text)?), *escape);
                &computed
            }
            text => {
                computed = Pattern::new(&to_text(text)?, *escape);
                &computed
            }
        },
    };
    if value.is_null() {
        return Ok(None);
    }
    Ok(Some(match by {
        By::Text(collation) => {
            pattern.matches(&to_text(value)?, |left, right| collation.same_char(left, right))
        }
        _ => pattern.matches(&latin(&to_bytes(value)?), |left, right| left == right),
    }))
}

/// Bytes as characters, one each: patterns then count bytes.
pub fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn negated<'a>(value: Val<'a>, kind: Kind) -> Result<Val<'a>, EvalError> {
    Ok(match (value, kind.class()) {
        (Val::Null, _) => Val::Null,
        (value, Class::Int) => Val::integer(-to_int(&value), false)?,
        (value, Class::Decimal) => Val::Decimal(to_decimal(&value).negated()),
        (value, _) => Val::Double(-to_double(&value)),
    })
}

fn combine_bits(operator: Bits, left: u64, right: u64) -> u64 {
    let shift = u32::try_from(right).unwrap_or(u32::MAX);
    match operator {
        Bits::And => left & right,
        Bits::Or => left | right,
        Bits::Xor => left ^ right,
        Bits::Left => left.checked_shl(shift).unwrap_or(0),
        Bits::Right => left.checked_shr(shift).unwrap_or(0),
    }
}

fn calculate<'a>(
    operator: Arithmetic,
    left: &Val<'a>,
    right: &Val<'a>,
    kind: Kind,
) -> Result<Val<'a>, EvalError> {
    use Arithmetic as A;
    match kind {
        Kind::Int { unsigned, .. } => {
            let exact =
                |value: &Val<'_>| matches!(value, Val::Int(_) | Val::UInt(_) | Val::Label(..) | Val::Date(_));
            if operator == A::WholeDivide && !(exact(left) && exact(right)) {
                let quotient = to_decimal(left).whole_quotient(&to_decimal(right));
                return match quotient {
                    Some(value) => Val::integer(value.to_i128().unwrap_or(i128::MAX), unsigned),
                    None => Ok(Val::Null),
                };
            }
            let (left, right) = (to_int(left), to_int(right));
            let value = match operator {
                A::Plus => left + right,
                A::Minus => left - right,
                A::Times => left.saturating_mul(right),
                _ if right == 0 => return Ok(Val::Null),
                A::Modulo => left % right,
                A::WholeDivide | A::Divide => left / right,
            };
            Val::integer(value, unsigned)
        }
        Kind::Decimal { .. } => {
            let (left, right) = (to_decimal(left), to_decimal(right));
            let value = match operator {
                A::Plus => left.plus(&right),
                A::Minus => left.minus(&right),
                A::Times => left.times(&right),
                A::Divide => return Ok(left.divided_by(&right).map_or(Val::Null, Val::Decimal)),
                A::WholeDivide => return Ok(left.whole_quotient(&right).map_or(Val::Null, Val::Decimal)),
                A::Modulo => return Ok(left.rest(&right).map_or(Val::Null, Val::Decimal)),
            };
            if value.fits(super::decimal::DIGITS_MAX) {
                Ok(Val::Decimal(value))
            } else {
                Err(EvalError(format!("DECIMAL value is out of range: {value}")))
            }
        }
        _ => {
            let (left, right) = (to_double(left), to_double(right));
            let value = match operator {
                A::Plus => left + right,
                A::Minus => left - right,
                A::Times => left * right,
                _ if right == 0.0 => return Ok(Val::Null),
                A::Modulo => left % right,
                A::Divide | A::WholeDivide => left / right,
            };
            if value.is_finite() {
                Ok(Val::Double(value))
            } else {
                Err(EvalError("DOUBLE value is out of range".into()))
            }
        }
    }
}

/// A branch's value in the kind that all branches share.
fn unified<'a>(value: Val<'a>, kind: Kind, rescale: bool) -> Result<Val<'a>, EvalError> {
    Ok(match (value, kind) {
        (Val::Null, _) => Val::Null,
        (value, Kind::Decimal { scale, .. }) => {
            let value = to_decimal(&value);
            Val::Decimal(if rescale { value.rescaled(u32::from(scale)) } else { value })
        }
        (value @ (Val::Int(_) | Val::UInt(_)), Kind::Int { .. }) => value,
        (value, Kind::Int { unsigned, .. }) => Val::integer(to_int(&value), unsigned)?,
        (value @ Val::Float(_), Kind::Double { .. }) => value,
        (value, Kind::Double { .. }) => Val::Double(to_double(&value)),
        (value, Kind::Text(_)) => Val::Text(to_text(value)?),
        (value, Kind::Bytes { .. }) => Val::Bytes(to_bytes(value)?),
        (value, Kind::DateTime { fsp }) => match temporal::to_datetime(&value)? {
            Some((value, _)) => Val::DateTime(value, fsp),
            None => Val::Null,
        },
        (Val::Time(micros, _), Kind::Time { fsp }) => Val::Time(micros, fsp),
        (value, _) => value,
    })
}

fn cast<'a>(value: Val<'a>, to: CastTo) -> Result<Val<'a>, EvalError> {
    if value.is_null() {
        return Ok(Val::Null);
    }
    let textual = matches!(value, Val::Text(_) | Val::Bytes(_));
    Ok(match to {
        CastTo::Signed => {
            let wrapped = textual || matches!(value, Val::UInt(_) | Val::Label(..));
            let number = to_int(&value);
            Val::Int(if wrapped && number > i128::from(i64::MAX) {
                number as u64 as i64
            } else {
                number.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
            })
        }
        CastTo::Unsigned => Val::UInt(functions::to_bits(to_int(&value))),
        CastTo::Char(None) => Val::Text(to_text(value)?),
        CastTo::Char(Some(count)) => {
            let text = to_text(value)?;
            match text.char_indices().nth(count as usize) {
                Some((end, _)) => Val::text(text[..end].to_owned()),
                None => Val::Text(text),
            }
        }
        CastTo::Binary => Val::Bytes(to_bytes(value)?),
        CastTo::Decimal(precision, scale) => {
            Val::Decimal(to_decimal(&value).clamped(u32::from(precision), u32::from(scale)))
        }
        CastTo::Double => Val::Double(to_double(&value)),
        CastTo::Date => match temporal::to_datetime(&value)? {
            Some((value, _)) => Val::Date(value.date),
            None => Val::Null,
        },
        CastTo::DateTime(fsp) => match temporal::to_datetime(&value)? {
            Some((value, _)) => Val::DateTime(temporal::rounded(value, fsp), fsp),
            None => Val::Null,
        },
    })
}

/// The server takes the ends of 64 bits for a column that is too large, and fails for a calculation that is.
fn refuse_wide(value: &Val<'_>) -> Result<(), EvalError> {
    match value {
        Val::Double(v) if v.abs() >= i64::MAX as f64 => {
            Err(EvalError(format!("BIGINT value is out of range: {v:e}")))
        }
        _ => Ok(()),
    }
}

fn add_interval<'a>(
    value: &Val<'a>,
    amount: &Val<'a>,
    unit: Unit,
    negative: bool,
    kind: Kind,
) -> Result<Val<'a>, EvalError> {
    if value.is_null() || amount.is_null() {
        return Ok(Val::Null);
    }
    let Some((start, _)) = temporal::to_datetime(value)? else { return Ok(Val::Null) };
    let count = match amount {
        // The server counts in signed numbers.
        Val::UInt(large) => i128::from(*large as i64),
        amount => to_int(amount),
    };
    let count = match (unit, amount) {
        (Unit::Second, Val::Decimal(seconds)) => {
            seconds.times(&Decimal::from_int(1_000_000)).to_i128().unwrap_or(i128::MAX)
        }
        (Unit::Second, _) => count.saturating_mul(1_000_000),
        _ => count,
    };
    let count = if negative { count.saturating_neg() } else { count };
    Ok(match (temporal::add(start, count, unit), kind) {
        (None, _) => Val::Null,
        (Some(sum), Kind::Date) => Val::Date(sum.date),
        (Some(sum), Kind::DateTime { fsp }) => Val::DateTime(sum, fsp),
        (Some(sum), _) => Val::DateTime(sum, 6),
    })
}

fn eval_concat<'a>(
    separator: Option<&'a Node>,
    parts: &'a [Node],
    binary: bool,
    row: Row<'a>,
) -> Result<Val<'a>, EvalError> {
    let separator = separator.map(|node| node.eval(row)).transpose()?;
    let skips_null = separator.is_some();
    let separator = match separator {
        None => Cow::Borrowed(&[][..]),
        Some(Val::Null) => return Ok(Val::Null),
        Some(value) => to_bytes(value)?,
    };
    let mut out: Vec<u8> = Vec::new();
    let mut first = true;
    for part in parts {
        let value = part.eval(row)?;
        if value.is_null() {
            if skips_null {
                continue;
            }
            return Ok(Val::Null);
        }
        if !std::mem::take(&mut first) {
            out.extend_from_slice(&separator);
        }
        out.extend_from_slice(&to_bytes(value)?);
    }
    if binary {
        return Ok(Val::Bytes(out.into()));
    }
    let text = String::from_utf8(out).map_err(|_| EvalError("joined text is not valid UTF-8".into()))?;
    Ok(Val::text(text))
}
