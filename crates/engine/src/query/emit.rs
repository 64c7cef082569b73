//! A bound expression → SQLite's SQL: its own operators where they answer as MySQL's for the types at hand, so that indexes
//! are used, otherwise a call of a program.

use super::{Translator, Typed};
use crate::error::EngineError;
use crate::program::{Program, eval_error};
use crate::types::{NARROW_DIGITS, collation_name, comparable, encode};
use expr::coerce::{Val, to_decimal};
use expr::collate::Collation;
use expr::kind::{BOOL, Class, Kind, unify};
use expr::node::{By, Node, Op, Reader, Slot};
use expr::parse::{Arithmetic, Compare, Logic, Truth};
use rusqlite::types::Value as Cell;

impl Translator<'_> {
    pub fn emitted(&mut self, node: &Node, leaves: &[Typed]) -> Result<Typed, EngineError> {
        Ok(Typed { sql: self.emit(node, leaves)?, kind: node.kind })
    }

    fn emit(&mut self, node: &Node, leaves: &[Typed]) -> Result<String, EngineError> {
        match self.native(node, leaves)? {
            Some(sql) => Ok(sql),
            None => self.call(node, leaves),
        }
    }

    /// As a call of a program over the leaves that it reads.
    fn call(&mut self, node: &Node, leaves: &[Typed]) -> Result<String, EngineError> {
        let mut node = node.clone();
        let mut read: Vec<usize> = Vec::new();
        node.each_slot(&mut |slot| {
            let Slot::Computed(at) = slot else { return };
            let place = read.iter().position(|known| known == at).unwrap_or_else(|| {
                read.push(*at);
                read.len() - 1
            });
            *slot = Slot::Computed(place);
        });
        let kinds = read.iter().map(|at| leaves[*at].kind).collect();
        let arguments: String = read.iter().map(|at| format!(", {}", leaves[*at].sql)).collect();
        Ok(format!("tm({}{arguments})", self.program(Program::Node(node, kinds))))
    }

    /// As a condition of SQLite: 0, 1 or NULL.
    pub fn truth(&mut self, node: &Node, leaves: &[Typed]) -> Result<String, EngineError> {
        if matches!(node.kind, Kind::Int { unsigned: false, .. } | Kind::Null) {
            return self.emit(node, leaves);
        }
        let not = |node: Node| Node { kind: BOOL, op: Op::Not(Box::new(node)) };
        self.call(&not(not(node.clone())), leaves)
    }

    fn native(&mut self, node: &Node, leaves: &[Typed]) -> Result<Option<String>, EngineError> {
        Ok(Some(match &node.op {
            Op::Const(value) => literal(value, node.kind)?,
            Op::Column(Reader { slot: Slot::Computed(at), .. }) => leaves[*at].sql.clone(),
            Op::Logic(logic @ (Logic::And | Logic::Or), parts) => {
                let parts: Vec<String> =
                    parts.iter().map(|part| self.truth(part, leaves)).collect::<Result<_, _>>()?;
                format!("({})", parts.join(if *logic == Logic::And { " AND " } else { " OR " }))
            }
            Op::Not(inner) => format!("(NOT {})", self.truth(inner, leaves)?),
            Op::Is { value, truth: Truth::Null, negated } => {
                format!("({} IS {}NULL)", self.emit(value, leaves)?, if *negated { "NOT " } else { "" })
            }
            Op::Compare(compare, by, left, right) => {
                let Some((left, right)) = self.pair(*by, left, right, leaves)? else { return Ok(None) };
                format!("({left} {} {right})", sign(*compare))
            }
            Op::Between { value, low, high, negated } if matches!(value.op, Op::Column(_)) => {
                let Some((_, from)) = self.pair(low.0, value, &low.1, leaves)? else { return Ok(None) };
                let Some((left, to)) = self.pair(high.0, value, &high.1, leaves)? else { return Ok(None) };
                format!("({left} {}BETWEEN {from} AND {to})", if *negated { "NOT " } else { "" })
            }
            Op::In { value, list, negated } => {
                let mut left = None;
                let mut items = Vec::with_capacity(list.len());
                for (by, item) in list {
                    let Some((value, item)) = self.pair(*by, value, item, leaves)? else { return Ok(None) };
                    left = Some(value);
                    items.push(item);
                }
                let Some(left) = left else { return Ok(None) };
                format!("({left} {}IN ({}))", if *negated { "NOT " } else { "" }, items.join(", "))
            }
            Op::Arithmetic(operator, left, right) if is_safe(*operator, node.kind, left.kind, right.kind) => {
                let sign = match operator {
                    Arithmetic::Plus => '+',
                    Arithmetic::Minus => '-',
                    _ => '*',
                };
                format!("({} {sign} {})", self.emit(left, leaves)?, self.emit(right, leaves)?)
            }
            Op::Case { operand: None, arms, otherwise } => {
                let same = |it: &Node| it.kind == node.kind || it.kind == Kind::Null;
                if !same(otherwise) || !arms.iter().all(|(_, _, then)| same(then)) {
                    return Ok(None);
                }
                let mut sql = String::from("CASE");
                for (_, when, then) in arms {
                    sql += &format!(" WHEN {} THEN {}", self.truth(when, leaves)?, self.emit(then, leaves)?);
                }
                format!("({sql} ELSE {} END)", self.emit(otherwise, leaves)?)
            }
            Op::Coalesce(parts)
                if parts.len() > 1
                    && parts.iter().all(|it| it.kind == node.kind || it.kind == Kind::Null) =>
            {
                let parts: Vec<String> =
                    parts.iter().map(|part| self.emit(part, leaves)).collect::<Result<_, _>>()?;
                format!("coalesce({})", parts.join(", "))
            }
            _ => return Ok(None),
        }))
    }

    /// Both sides in a form that SQLite compares as MySQL does; a literal takes the form of the other side.
    fn pair(
        &mut self,
        by: By,
        left: &Node,
        right: &Node,
        leaves: &[Typed],
    ) -> Result<Option<(String, String)>, EngineError> {
        if let By::Text(collation) = by {
            if left.kind.class() != Class::Text || right.kind.class() != Class::Text || !has_name(collation) {
                return Ok(None);
            }
            let left = format!("{} COLLATE {}", self.emit(left, leaves)?, collation_name(Some(collation)));
            return Ok(Some((left, self.emit(right, leaves)?)));
        }
        if matches!(by, By::Json | By::JsonBool) || left.kind == Kind::Null || right.kind == Kind::Null {
            return Ok(None);
        }
        if let Some(literal) = literal_as(right, left.kind)? {
            return Ok(Some((self.emit(left, leaves)?, literal)));
        }
        if let Some(literal) = literal_as(left, right.kind)? {
            return Ok(Some((literal, self.emit(right, leaves)?)));
        }
        if !comparable(left.kind, right.kind) {
            return Ok(None);
        }
        Ok(Some((self.emit(left, leaves)?, self.emit(right, leaves)?)))
    }

    /// Both values in one form, by MySQL's rules for branches.
    pub fn aligned(&mut self, left: Typed, right: Typed) -> Result<(Typed, Typed), EngineError> {
        if let (Kind::Text(one), Kind::Text(other)) = (left.kind, right.kind)
            && expr::kind::agree([one, other]).collation != one.collation
        {
            return Err(EngineError::refused(
                "the two texts have different collations",
                "name one with COLLATE",
            ));
        }
        if comparable(left.kind, right.kind) {
            return Ok((left, right));
        }
        let (a, b) = (left.kind.class(), right.kind.class());
        let number = |class| matches!(class, Class::Int | Class::Decimal | Class::Double);
        let date = |class| matches!(class, Class::Date | Class::DateTime);
        let null = |class| class == Class::Null;
        if !(number(a) && number(b) || date(a) && date(b) || null(a) || null(b)) {
            return Err(EngineError::refused(
                "a value is compared with a query of another type",
                "CAST one of them to the type of the other",
            ));
        }
        let kind = unify(&[left.kind, right.kind])?;
        Ok((self.converted(left, kind)?, self.converted(right, kind)?))
    }

    /// A value as another kind, as the branches of IF are.
    pub fn converted(&mut self, typed: Typed, kind: Kind) -> Result<Typed, EngineError> {
        if typed.kind == kind || typed.sql == "NULL" || super::same_form(typed.kind, kind) {
            return Ok(Typed { sql: typed.sql, kind });
        }
        let column = Node {
            kind: typed.kind,
            op: Op::Column(Reader { slot: Slot::Computed(0), fsp: fsp(typed.kind), labels: [].into() }),
        };
        let node = Node { kind, op: Op::Unified { value: Box::new(column), rescale: true } };
        let sql = self.call(&node, std::slice::from_ref(&typed))?;
        Ok(Typed { sql, kind })
    }
}

fn fsp(kind: Kind) -> u8 {
    match kind {
        Kind::Time { fsp } | Kind::DateTime { fsp } => fsp,
        _ => 0,
    }
}

fn has_name(collation: Collation) -> bool {
    crate::types::COLLATIONS.iter().any(|name| Collation::named(name) == Some(collation))
}

fn sign(compare: Compare) -> &'static str {
    match compare {
        Compare::Equal => "=",
        Compare::NotEqual => "<>",
        Compare::Less => "<",
        Compare::LessEqual => "<=",
        Compare::Greater => ">",
        Compare::GreaterEqual => ">=",
        Compare::NullSafeEqual => "IS",
    }
}

/// Whether SQLite's operator gives MySQL's answer: the result cannot overflow, and both sides are of one form.
fn is_safe(operator: Arithmetic, result: Kind, left: Kind, right: Kind) -> bool {
    let narrow = |kind: Kind| match kind {
        Kind::Int { unsigned: false, digits } => digits <= NARROW_DIGITS,
        Kind::Decimal { precision, .. } => precision <= NARROW_DIGITS,
        _ => false,
    };
    if ![result, left, right].into_iter().all(narrow) {
        return false;
    }
    let scale = |kind: Kind| kind.decimal_size().map_or(0, |(_, scale)| scale);
    match operator {
        Arithmetic::Plus | Arithmetic::Minus => scale(left) == scale(right),
        Arithmetic::Times => scale(result) == scale(left) + scale(right),
        _ => false,
    }
}

/// A literal in the form of a kind that it is compared with, where it has that form exactly.
fn literal_as(node: &Node, kind: Kind) -> Result<Option<String>, EngineError> {
    let Op::Const(value) = &node.op else { return Ok(None) };
    let fits = match (value, kind) {
        (Val::Int(_) | Val::UInt(_), Kind::Int { .. }) => true,
        (Val::Int(_) | Val::UInt(_) | Val::Decimal(_), Kind::Decimal { precision, scale }) => {
            let exact = to_decimal(value);
            let stored = exact.rescaled(u32::from(scale));
            stored.cmp(&exact).is_eq() && stored.fits(u32::from(precision))
        }
        (Val::DateTime(v, _), Kind::Date) => (v.hour, v.minute, v.second, v.micro) == (0, 0, 0, 0),
        (Val::DateTime(v, _), Kind::DateTime { fsp }) => v.micro % 10u32.pow(6 - u32::from(fsp)) == 0,
        (Val::Date(_), Kind::Date | Kind::DateTime { .. }) => true,
        (Val::Time(..), Kind::Time { .. }) => true,
        (Val::Double(_), Kind::Double { .. }) => true,
        (Val::Bytes(_), Kind::Bytes { .. }) => true,
        _ => false,
    };
    if !fits {
        return Ok(None);
    }
    let value = match (value, kind) {
        (Val::DateTime(v, _), Kind::Date) => Val::Date(v.date),
        (value, _) => value.clone(),
    };
    literal(&value, kind).map(Some)
}

/// A value in SQLite's text.
pub fn literal(value: &Val<'_>, kind: Kind) -> Result<String, EngineError> {
    let owned = expr::node::owned(value.clone());
    Ok(match encode(owned, kind).map_err(eval_error)? {
        Cell::Null => "NULL".into(),
        Cell::Integer(v) if v == i64::MIN => "(-9223372036854775807 - 1)".into(),
        Cell::Integer(v) => v.to_string(),
        // Seventeen digits read back as the same double.
        Cell::Real(v) => format!("{v:.17e}"),
        Cell::Text(text) if text.contains('\0') => {
            return Err(EngineError::refused("a text has a zero byte", "store such values as VARBINARY"));
        }
        Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Cell::Blob(bytes) => {
            format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    })
}
