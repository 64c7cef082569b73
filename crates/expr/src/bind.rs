//! [`Ast`] and a table's columns → [`Node`]: every decision that does not need a row.

use super::coerce::{Val, whole_text_to_int};
use super::collate::Pattern;
use super::decimal::SCALE_MAX;
use super::functions::Function;
use super::json;
use super::kind::{self, BIGINT, BOOL, Class, DOUBLE, Kind, Strength, TextKind, agree, unify};
use super::node::{By, LikePattern, Node, Op, Reader, Row, Slot, latin, owned};
use super::parse::{Arithmetic, Ast, CastTo, Compare, Refusal, Truth};
use super::temporal::{self, Unit};
use base::{Column, ColumnType};

/// The columns an expression may name.
pub struct Scope<'a> {
    pub table: String,
    pub columns: Vec<(Slot, &'a Column)>,
}

impl<'a> Scope<'a> {
    fn find(&self, name: &str) -> Result<(Slot, &'a Column), Refusal> {
        let found = self.columns.iter().find(|(_, column)| column.name.eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| {
            Refusal::new(
                format!("table `{}` has no column `{name}`", self.table),
                "name a column the table has at this step, or quote text as 'text'",
            )
        })
    }
}

pub fn bind(ast: &Ast, scope: &Scope<'_>) -> Result<Node, Refusal> {
    let node = bind_open(ast, scope)?;
    let constant = matches!(node.op, Op::Const(_)) || has_column(ast);
    if constant {
        return Ok(node);
    }
    let row = Row { source: &[], computed: &[] };
    let value = node.eval(row).map_err(|error| {
        Refusal::new(format!("the expression never has a value: {error}"), "correct its constants")
    })?;
    let value = owned(value);
    Ok(Node::constant(if value.is_null() && node.kind == Kind::Null { Kind::Null } else { node.kind }, value))
}

/// Whether a value depends on the row.
fn has_column(ast: &Ast) -> bool {
    match ast {
        Ast::Column(_) => true,
        Ast::Neg(a) | Ast::Not(a) | Ast::BitNot(a) | Ast::Cast(a, _) | Ast::Collate(a, _) => has_column(a),
        Ast::Is { value, .. } | Ast::JsonPath { value, .. } => has_column(value),
        Ast::Logic(_, all) | Ast::Call(_, all) => all.iter().any(has_column),
        Ast::Arithmetic(_, a, b) | Ast::Bits(_, a, b) | Ast::Compare(_, a, b) => {
            has_column(a) || has_column(b)
        }
        Ast::In { value, list, .. } => has_column(value) || list.iter().any(has_column),
        Ast::Between { value, low, high, .. } => has_column(value) || has_column(low) || has_column(high),
        Ast::Like { value, pattern, .. } => has_column(value) || has_column(pattern),
        Ast::Case { operand, arms, otherwise } => {
            operand.as_deref().is_some_and(has_column)
                || otherwise.as_deref().is_some_and(has_column)
                || arms.iter().any(|(when, then)| has_column(when) || has_column(then))
        }
        Ast::AddInterval { value, amount, .. } => has_column(value) || has_column(amount),
        Ast::Trim { value, what, .. } => has_column(value) || what.as_deref().is_some_and(has_column),
        _ => false,
    }
}

fn bind_open(ast: &Ast, scope: &Scope<'_>) -> Result<Node, Refusal> {
    let boxed = |ast: &Ast| bind(ast, scope).map(Box::new);
    let node = |kind, op| Ok(Node { kind, op });
    match ast {
        Ast::Null => Ok(Node::constant(Kind::Null, Val::Null)),
        Ast::Bool(value) => Ok(Node::constant(BOOL, Val::bool(*value))),
        Ast::Int(value) => Ok(int_literal(i128::from(*value))),
        Ast::Decimal(value) => {
            let kind = Kind::decimal(value.precision(), value.scale());
            Ok(Node::constant(kind, Val::Decimal(value.clone())))
        }
        Ast::Double(value) => Ok(Node::constant(DOUBLE, Val::Double(*value))),
        Ast::Text(text) => Ok(Node::constant(Kind::Text(kind::LITERAL), Val::text(text.clone()))),
        Ast::Bytes(bytes) => {
            Ok(Node::constant(Kind::Bytes { literal: true }, Val::Bytes(bytes.clone().into())))
        }
        Ast::Date(value) => Ok(Node::constant(Kind::Date, Val::Date(*value))),
        Ast::Time(value, fsp) => Ok(Node::constant(Kind::Time { fsp: *fsp }, Val::Time(*value, *fsp))),
        Ast::DateTime(value, fsp) => {
            Ok(Node::constant(Kind::DateTime { fsp: *fsp }, Val::DateTime(*value, *fsp)))
        }
        Ast::Column(name) => {
            let (slot, column) = scope.find(name)?;
            node(Kind::of(column), Op::Column(reader(slot, column)))
        }
        Ast::Neg(inner) => bind_neg(inner, scope),
        Ast::Not(inner) => node(BOOL, Op::Not(Box::new(condition(inner, scope)?))),
        Ast::BitNot(inner) => {
            let inner = boxed(inner)?;
            bits_operand(&inner)?;
            node(Kind::Int { unsigned: true, digits: 20 }, Op::BitNot(inner))
        }
        Ast::Logic(logic, all) => {
            let all: Result<Vec<_>, _> = all.iter().map(|part| condition(part, scope)).collect();
            node(BOOL, Op::Logic(*logic, all?))
        }
        Ast::Arithmetic(operator, left, right) => arithmetic(*operator, boxed(left)?, boxed(right)?),
        Ast::Bits(operator, left, right) => {
            let (left, right) = (boxed(left)?, boxed(right)?);
            bits_operand(&left)?;
            bits_operand(&right)?;
            node(Kind::Int { unsigned: true, digits: 20 }, Op::Bits(*operator, left, right))
        }
        Ast::Compare(compare, left_ast, right_ast) => {
            let (mut left, mut right) = (boxed(left_ast)?, boxed(right_ast)?);
            let ordered = !matches!(compare, Compare::Equal | Compare::NotEqual | Compare::NullSafeEqual);
            let by = comparison((&mut left, left_ast), (&mut right, right_ast), ordered)?;
            node(BOOL, Op::Compare(*compare, by, left, right))
        }
        Ast::Is { value, truth: Truth::Null, negated } => {
            node(BOOL, Op::Is { value: boxed(value)?, truth: Truth::Null, negated: *negated })
        }
        Ast::Is { value, truth, negated } => {
            let value = Box::new(condition(value, scope)?);
            node(BOOL, Op::Is { value, truth: *truth, negated: *negated })
        }
        Ast::In { value: value_ast, list, negated } => {
            let mut value = boxed(value_ast)?;
            let mut items = Vec::with_capacity(list.len());
            for item_ast in list {
                let mut item = bind(item_ast, scope)?;
                if matches!(value.op, Op::Const(Val::Text(_)))
                    && matches!(item.kind.class(), Class::Date | Class::DateTime | Class::Time)
                {
                    return Err(Refusal::new("a text is sought among dates", "write a = 'x' OR b = 'x'"));
                }
                let by = comparison((&mut value, value_ast), (&mut item, item_ast), false)?;
                confused(by, &value, &item)?;
                if value.kind.class() == Class::Int && item.kind.class() == Class::Double {
                    return Err(Refusal::new(
                        "an integer is sought among doubles, which the server rounds",
                        "write a = x OR a = y",
                    ));
                }
                if item.kind == Kind::Json && value.kind != Kind::Json {
                    return Err(Refusal::new("IN lists a JSON value", "write a = x OR a = y"));
                }
                if let (By::Text(_), Some((By::Text(_), _))) = (by, items.first())
                    && items.iter().any(|(other, _)| matches!(other, By::Text(_)) && *other != by)
                {
                    return Err(Refusal::new(
                        "IN lists texts of different collations",
                        "name one with COLLATE",
                    ));
                }
                items.push((by, item));
            }
            node(BOOL, Op::In { value, list: items, negated: *negated })
        }
        Ast::Between { value: value_ast, low: low_ast, high: high_ast, negated } => {
            let (mut value, mut low, mut high) = (boxed(value_ast)?, boxed(low_ast)?, boxed(high_ast)?);
            if [&value, &low, &high].iter().any(|node| node.kind == Kind::Json) {
                return Err(Refusal::new(
                    "BETWEEN has a JSON value",
                    "write doc->'$.a' >= x AND doc->'$.a' <= y",
                ));
            }
            let by_low = comparison((&mut value, value_ast), (&mut low, low_ast), true)?;
            let by_high = comparison((&mut value, value_ast), (&mut high, high_ast), true)?;
            let exact = |by| matches!(by, By::Int | By::Decimal);
            let null = [&value, &low, &high].iter().any(|node| node.kind == Kind::Null);
            if by_low != by_high && !(exact(by_low) && exact(by_high)) && !null {
                return Err(Refusal::new(
                    "BETWEEN has limits of different types",
                    "write a >= x AND a <= y, or CAST the limits to one type",
                ));
            }
            node(BOOL, Op::Between { value, low: (by_low, low), high: (by_high, high), negated: *negated })
        }
        Ast::Like { value, pattern, escape, negated } => {
            like(bind(value, scope)?, bind(pattern, scope)?, *escape, *negated)
        }
        Ast::Case { operand, arms, otherwise } => case(operand.as_deref(), arms, otherwise.as_deref(), scope),
        Ast::Cast(value, to) => cast(boxed(value)?, *to),
        Ast::Collate(value, collation) => {
            let mut value = bind(value, scope)?;
            let text = value.kind.as_text()?;
            let collated = TextKind { collation: Some(*collation), strength: Strength::Explicit, ..text };
            if matches!(value.kind, Kind::Text(_) | Kind::Label(_)) {
                value.kind = Kind::Text(collated);
                return Ok(value);
            }
            node(Kind::Text(collated), Op::Cast(CastTo::Char(None), Box::new(value)))
        }
        Ast::AddInterval { value, amount, unit, negative } => {
            add_interval(boxed(value)?, boxed(amount)?, *unit, *negative)
        }
        Ast::Trim { value, what, leading, trailing } => {
            let value = boxed(value)?;
            let what = what.as_deref().map(boxed).transpose()?;
            let mut texts = vec![value.kind.as_text()?];
            if let Some(what) = &what {
                texts.push(what.kind.as_text()?);
            }
            let (leading, trailing) = (*leading, *trailing);
            node(Kind::Text(agree(texts)), Op::Trim { value, what, leading, trailing })
        }
        Ast::JsonPath { value, path, unquote } => json_path(boxed(value)?, path, *unquote),
        Ast::Call(function, arguments) => call(*function, arguments, scope),
    }
}

fn reader(slot: Slot, column: &Column) -> Reader {
    let fsp = match column.ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
        _ => 0,
    };
    let labels = match &column.ty {
        ColumnType::Enum { labels } | ColumnType::Set { labels } => labels.as_slice().into(),
        _ => [].into(),
    };
    Reader { slot, fsp, labels }
}

fn int_literal(value: i128) -> Node {
    let digits = value.unsigned_abs().to_string().len() as u8;
    match i64::try_from(value) {
        Ok(value) => Node::constant(Kind::Int { unsigned: false, digits }, Val::Int(value)),
        Err(_) => Node::constant(Kind::Int { unsigned: true, digits }, Val::UInt(value as u64)),
    }
}

fn bind_neg(inner: &Ast, scope: &Scope<'_>) -> Result<Node, Refusal> {
    if let Ast::Int(value) = inner
        && *value > 1 << 63
    {
        let value = super::decimal::Decimal::from_int(-i128::from(*value));
        return Ok(Node::constant(Kind::decimal(20, 0), Val::Decimal(value)));
    }
    let inner = Box::new(bind(inner, scope)?);
    if matches!(inner.kind.class(), Class::Time | Class::DateTime) {
        return Err(Refusal::new("a time is negated", "negate its number: -(at + 0)"));
    }
    let kind = match inner.kind.as_number()? {
        _ if inner.kind == Kind::Null => DOUBLE,
        Kind::Int { digits, .. } => Kind::Int { unsigned: false, digits },
        other => other,
    };
    Ok(Node { kind, op: Op::Neg(inner) })
}

/// The server compares large signed and unsigned numbers by their bits in IN and CASE.
fn confused(by: By, left: &Node, right: &Node) -> Result<(), Refusal> {
    if by != By::Int || same_sign(left, right) {
        return Ok(());
    }
    Err(Refusal::new(
        "IN or CASE mixes signed and unsigned numbers, which the server confuses when they are large",
        "write a = x OR a = y, or CASE WHEN a = x",
    ))
}

/// Whether two integers are both signed, both unsigned, or one is a literal that both could hold.
fn same_sign(left: &Node, right: &Node) -> bool {
    let unsigned =
        |node: &Node| matches!(node.kind, Kind::Int { unsigned: true, .. } | Kind::Year | Kind::Bit);
    let small = |node: &Node| matches!(node.op, Op::Const(Val::Int(0..) | Val::Null));
    let narrow = |node: &Node| matches!(node.kind, Kind::Int { digits: ..=10, .. } | Kind::Null | Kind::Year);
    unsigned(left) == unsigned(right) || small(left) || small(right) || narrow(left) && narrow(right)
}

/// A value that is asked for its truth.
fn condition(ast: &Ast, scope: &Scope<'_>) -> Result<Node, Refusal> {
    let node = bind(ast, scope)?;
    truth_of(&node)?;
    Ok(node)
}

/// A condition of IF or CASE: the server drops branches that are never taken, and their types with them.
fn varying(ast: &Ast, scope: &Scope<'_>) -> Result<Node, Refusal> {
    if !has_column(ast) {
        return Err(Refusal::new("a condition is the same for every row", "write the branch that is taken"));
    }
    condition(ast, scope)
}

/// Refuses what has no truth of its own.
pub fn truth_of(node: &Node) -> Result<(), Refusal> {
    match node.kind {
        Kind::Json => {
            Err(Refusal::new("a JSON value is used as a condition", "compare it: doc->'$.flag' = true"))
        }
        _ => number_of(node).map(|_| ()),
    }
}

/// Other types round to bits by rules of their own.
fn bits_operand(node: &Node) -> Result<(), Refusal> {
    match node.kind.class() {
        Class::Int | Class::Null => Ok(()),
        _ => Err(Refusal::new("bit operators take integers", "CAST the value to SIGNED or UNSIGNED")),
    }
}

/// The kind a value calculates as.
pub fn number_of(node: &Node) -> Result<Kind, Refusal> {
    let branched =
        matches!(node.op, Op::Case { .. } | Op::Coalesce(_) | Op::Unified { .. } | Op::Extreme { .. });
    if branched && matches!(node.kind.class(), Class::DateTime) {
        return Err(kind::several_types());
    }
    node.kind.as_number()
}

fn arithmetic(operator: Arithmetic, left: Box<Node>, right: Box<Node>) -> Result<Node, Refusal> {
    use Arithmetic as A;
    let (left_kind, right_kind) = (number_of(&left)?, number_of(&right)?);
    let fixed = |kind| matches!(kind, Kind::Double { fixed: true });
    let is_double = |kind: Kind| kind.class() == Class::Double;
    let either_double = is_double(left_kind) || is_double(right_kind);
    let unsigned = |kind| matches!(kind, Kind::Int { unsigned: true, .. });
    let kind = if operator == A::WholeDivide {
        let unsigned = unsigned(left_kind) || unsigned(right_kind);
        Kind::Int { unsigned, digits: 20 }
    } else if either_double {
        Kind::Double { fixed: fixed(left_kind) || fixed(right_kind) }
    } else {
        let size = |kind: Kind| kind.decimal_size().map_or((65, 0), |(p, s)| (u32::from(p), u32::from(s)));
        let ((p1, s1), (p2, s2)) = (size(left_kind), size(right_kind));
        let both_int = left_kind.class() == Class::Int && right_kind.class() == Class::Int;
        match operator {
            A::Divide => Kind::decimal(p1 + s2 + 4, s1 + 4),
            A::Modulo if both_int => Kind::Int { unsigned: unsigned(left_kind), digits: p1.max(p2) as u8 },
            A::Modulo => Kind::decimal(p1.max(p2) + s1.max(s2), s1.max(s2)),
            A::Times if both_int => int_result(unsigned(left_kind) || unsigned(right_kind), p1 + p2),
            A::Times if s1 + s2 > SCALE_MAX => {
                return Err(Refusal::new(
                    "a product has more than 30 digits after the point",
                    "ROUND or CAST its sides to fewer digits",
                ));
            }
            A::Times => Kind::decimal(p1 + p2, s1 + s2),
            _ if both_int => int_result(unsigned(left_kind) || unsigned(right_kind), p1.max(p2) + 1),
            _ => Kind::decimal((p1 - s1).max(p2 - s2) + 1 + s1.max(s2), s1.max(s2)),
        }
    };
    Ok(Node { kind, op: Op::Arithmetic(operator, left, right) })
}

fn int_result(unsigned: bool, digits: u32) -> Kind {
    Kind::Int { unsigned, digits: digits.min(20) as u8 }
}

/// How two values compare; a literal may take the other's type.
fn comparison(
    (left, left_ast): (&mut Node, &Ast),
    (right, right_ast): (&mut Node, &Ast),
    ordered: bool,
) -> Result<By, Refusal> {
    literal_as(left, right)?;
    literal_as(right, left)?;
    use Class as C;
    let (a, b) = (left.kind, right.kind);
    Ok(match (a.class(), b.class()) {
        (C::Null, _) | (_, C::Null) => By::Int,
        (C::Opaque, _) | (_, C::Opaque) => {
            return Err(a.as_number().and(b.as_number()).expect_err("one is opaque"));
        }
        (C::Json, C::Json) => {
            return Err(Refusal::new("two JSON values are compared", "compare their text: doc->>'$.a'"));
        }
        (C::Json, C::Int | C::Decimal | C::Double | C::Text)
        | (C::Int | C::Decimal | C::Double | C::Text, C::Json) => {
            let bool = matches!(left_ast, Ast::Bool(_)) || matches!(right_ast, Ast::Bool(_));
            if is_condition(left_ast) || is_condition(right_ast) {
                return Err(Refusal::new(
                    "a JSON value is compared with a condition",
                    "compare with TRUE or FALSE",
                ));
            }
            if bool { By::JsonBool } else { By::Json }
        }
        (C::Text, C::Text) => {
            let text = agree([a.as_text()?, b.as_text()?]);
            let collation = text.collation.ok_or_else(|| {
                Refusal::new(
                    "the two texts have different collations, or one we do not know",
                    "name one: a COLLATE utf8mb4_bin = b",
                )
            })?;
            if ordered && !collation.is_ordered() {
                return Err(Refusal::new(
                    "the order of this collation is not known here",
                    "name another: a COLLATE utf8mb4_0900_ai_ci < b",
                ));
            }
            By::Text(collation)
        }
        (C::Bytes, C::Bytes) => By::Bytes,
        (C::Bytes, C::Text) if a == (Kind::Bytes { literal: false }) => bytes_of(b)?,
        (C::Text, C::Bytes) if b == (Kind::Bytes { literal: false }) => bytes_of(a)?,
        (C::Bytes, C::Text) | (C::Text, C::Bytes) => {
            return Err(Refusal::new(
                "text is compared with a hexadecimal literal",
                "write the text in quotes",
            ));
        }
        (C::Int, C::Int) => By::Int,
        (C::Int | C::Decimal, C::Int | C::Decimal) => By::Decimal,
        (C::Text, C::Int) if matches!(a, Kind::Label(_)) => By::Int,
        (C::Int, C::Text) if matches!(b, Kind::Label(_)) => By::Int,
        (C::Int | C::Decimal | C::Double | C::Text | C::Bytes, C::Double)
        | (C::Double, C::Int | C::Decimal | C::Text | C::Bytes)
        | (C::Text | C::Bytes, C::Int | C::Decimal)
        | (C::Int | C::Decimal, C::Text | C::Bytes) => {
            a.as_number()?;
            b.as_number()?;
            By::Double
        }
        (C::Date | C::DateTime, C::Date | C::DateTime) => By::DateTime,
        (C::Time, C::Time) => By::Time,
        _ => {
            return Err(Refusal::new(
                "a date or time is compared with another type",
                "compare with a literal like '2026-01-02', or CAST the other side to DATETIME",
            ));
        }
    })
}

fn is_condition(ast: &Ast) -> bool {
    matches!(
        ast,
        Ast::Not(_)
            | Ast::Logic(..)
            | Ast::Compare(..)
            | Ast::Is { .. }
            | Ast::In { .. }
            | Ast::Between { .. }
            | Ast::Like { .. }
    )
}

fn bytes_of(text: Kind) -> Result<By, Refusal> {
    if text.as_text()?.utf8 { Ok(By::Bytes) } else { Err(charset_unknown()) }
}

fn charset_unknown() -> Refusal {
    Refusal::new(
        "the bytes of a text in another character set than UTF-8 are not known here",
        "use CHAR_LENGTH, or compare as text",
    )
}

/// Gives a text literal the type of what it is compared with.
fn literal_as(literal: &mut Node, other: &Node) -> Result<(), Refusal> {
    let number = match (&literal.op, other.kind) {
        (Op::Const(Val::Int(value)), Kind::Year) => Some(i128::from(*value)),
        (Op::Const(Val::Decimal(_) | Val::Double(_)), Kind::Year) => Some(0),
        (Op::Const(Val::Text(text)), Kind::Year) => Some(whole_text_to_int(text).unwrap_or(0)),
        _ => None,
    };
    if number.is_some_and(|number| number < 100) {
        return Err(Refusal::new(
            "a YEAR is compared with something else than a whole year",
            "write the year in full: 2026",
        ));
    }
    let Op::Const(Val::Text(text)) = &literal.op else { return Ok(()) };
    let wrong = |what: &str| {
        Refusal::new(
            format!("'{text}' is not a {what}"),
            "write '2026-01-02', '2026-01-02 03:04:05' or '03:04:05'",
        )
    };
    let converted = match other.kind.class() {
        Class::Int => match whole_text_to_int(text) {
            Some(value) if i64::try_from(value).is_ok() || u64::try_from(value).is_ok() => int_literal(value),
            _ => return Ok(()),
        },
        Class::Date | Class::DateTime => {
            let (value, fsp) = temporal::parse_datetime_text(text).ok_or_else(|| wrong("date"))?;
            Node::constant(Kind::DateTime { fsp }, Val::DateTime(value, fsp))
        }
        Class::Time => {
            let (value, fsp) = temporal::parse_time_text(text).ok_or_else(|| wrong("time"))?;
            Node::constant(Kind::Time { fsp }, Val::Time(value, fsp))
        }
        _ => return Ok(()),
    };
    *literal = converted;
    Ok(())
}

fn like(value: Node, pattern: Node, escape: Option<char>, negated: bool) -> Result<Node, Refusal> {
    let binary = [&value, &pattern].iter().any(|node| node.kind.class() == Class::Bytes);
    if [&value, &pattern].iter().any(|node| node.kind == Kind::Bytes { literal: true }) {
        return Err(Refusal::new("LIKE has a hexadecimal literal", "write the text in quotes"));
    }
    let by = if binary {
        for node in [&value, &pattern] {
            if node.kind.class() != Class::Bytes {
                bytes_of(node.kind)?;
            }
        }
        By::Bytes
    } else {
        let text = agree([value.kind.as_text()?, pattern.kind.as_text()?]);
        By::Text(text.collation.ok_or_else(|| {
            Refusal::new("LIKE has texts of different collations", "name one: a LIKE b COLLATE utf8mb4_bin")
        })?)
    };
    let ready = match &pattern.op {
        Op::Const(Val::Text(text)) if by == By::Bytes => Some(Pattern::new(&latin(text.as_bytes()), escape)),
        Op::Const(Val::Text(text)) => Some(Pattern::new(text, escape)),
        _ => None,
    };
    let pattern = match ready {
        Some(pattern) => LikePattern::Ready(pattern),
        None => LikePattern::Computed(Box::new(pattern), escape),
    };
    Ok(Node { kind: BOOL, op: Op::Like { value: Box::new(value), pattern, by, negated } })
}

/// The branches with one kind.
fn unified(nodes: Vec<Node>, rescale: bool) -> Result<(Kind, Vec<Node>), Refusal> {
    let kinds: Vec<Kind> = nodes.iter().map(|node| node.kind).collect();
    let kind = unify(&kinds)?;
    let convert = |node: Node| {
        if node.kind == kind || node.kind == Kind::Null {
            return node;
        }
        Node { kind, op: Op::Unified { value: Box::new(node), rescale } }
    };
    Ok((kind, nodes.into_iter().map(convert).collect()))
}

fn case(
    operand_ast: Option<&Ast>,
    arms: &[(Ast, Ast)],
    otherwise: Option<&Ast>,
    scope: &Scope<'_>,
) -> Result<Node, Refusal> {
    let mut operand = operand_ast.map(|ast| bind(ast, scope).map(Box::new)).transpose()?;
    let mut tests = Vec::new();
    let mut results = Vec::new();
    for (when, then) in arms {
        let (by, test) = match (&mut operand, operand_ast) {
            (Some(operand), Some(operand_ast)) => {
                let mut test = bind(when, scope)?;
                let by = comparison((operand, operand_ast), (&mut test, when), false)?;
                confused(by, operand, &test)?;
                (by, test)
            }
            _ => (By::Int, varying(when, scope)?),
        };
        tests.push((by, test));
        results.push(bind(then, scope)?);
    }
    results.push(match otherwise {
        Some(ast) => bind(ast, scope)?,
        None => Node::constant(Kind::Null, Val::Null),
    });
    let (kind, mut results) = unified(results, false)?;
    let otherwise = Box::new(results.pop().expect("ELSE was pushed last"));
    let arms = tests.into_iter().zip(results).map(|((by, test), then)| (by, test, then)).collect();
    Ok(Node { kind, op: Op::Case { operand, arms, otherwise } })
}

fn cast(value: Box<Node>, to: CastTo) -> Result<Node, Refusal> {
    let class = value.kind.class();
    let branched =
        matches!(value.op, Op::Case { .. } | Op::Coalesce(_) | Op::Unified { .. } | Op::Extreme { .. });
    if branched && matches!(to, CastTo::Signed | CastTo::Unsigned) && class == Class::Double {
        return Err(Refusal::new(
            "branches of several types are rounded to integers",
            "CAST the branches to one type",
        ));
    }
    let kind = match to {
        CastTo::Signed => BIGINT,
        CastTo::Unsigned => Kind::Int { unsigned: true, digits: 20 },
        CastTo::Char(_) if class == Class::Bytes => {
            return Err(Refusal::new("a binary value is cast to text", "text columns hold text"));
        }
        CastTo::Char(_) => {
            Kind::Text(TextKind { strength: Strength::Column, mixed: false, ..value.kind.as_text()? })
        }
        CastTo::Binary => {
            if class != Class::Bytes {
                bytes_of(value.kind)?;
            }
            Kind::Bytes { literal: false }
        }
        CastTo::Decimal(precision, scale) => Kind::Decimal { precision, scale },
        CastTo::Double => DOUBLE,
        CastTo::Date => Kind::Date,
        CastTo::DateTime(fsp) => Kind::DateTime { fsp },
    };
    match to {
        CastTo::Date | CastTo::DateTime(_) => date_operand(&value, true)?,
        CastTo::Char(_) | CastTo::Binary => {}
        _ => {
            number_of(&value)?;
        }
    }
    Ok(Node { kind, op: Op::Cast(to, value) })
}

/// Refuses what is no date: numbers and times.
fn date_operand(node: &Node, text: bool) -> Result<(), Refusal> {
    match node.kind.class() {
        Class::Null | Class::Date | Class::DateTime => Ok(()),
        Class::Text if text && matches!(node.kind, Kind::Text(TextKind { mixed: true, .. })) => {
            Err(kind::several_types())
        }
        Class::Text if text => Ok(()),
        _ => Err(Refusal::new(
            "a date is expected",
            "use a DATE, DATETIME or TIMESTAMP column, or CAST text to DATETIME",
        )),
    }
}

fn add_interval(
    value: Box<Node>,
    mut amount: Box<Node>,
    unit: Unit,
    negative: bool,
) -> Result<Node, Refusal> {
    date_operand(&value, false)?;
    if let Op::Const(Val::Text(text)) = &amount.op
        && let Some(number) = whole_text_to_int(text)
    {
        *amount = int_literal(number);
    }
    let amount_kind = amount.kind;
    let fraction = match amount_kind.class() {
        Class::Null | Class::Int => 0,
        Class::Decimal => amount_kind.decimal_size().map_or(0, |(_, scale)| scale),
        _ => {
            return Err(Refusal::new(
                "an interval is counted in text or doubles",
                "CAST it to SIGNED or DECIMAL",
            ));
        }
    };
    let fsp = match value.kind {
        Kind::DateTime { fsp } => fsp,
        _ => 0,
    };
    let kind = match (value.kind, unit) {
        (Kind::Date, unit) if !unit.is_of_day() => Kind::Date,
        (_, Unit::Microsecond) => Kind::DateTime { fsp: 6 },
        (_, Unit::Second) => Kind::DateTime { fsp: fsp.max(fraction.min(6)) },
        _ => Kind::DateTime { fsp },
    };
    Ok(Node { kind, op: Op::AddInterval { value, amount, unit, negative } })
}

fn json_path(value: Box<Node>, path: &str, unquote: bool) -> Result<Node, Refusal> {
    if !matches!(value.kind.class(), Class::Json | Class::Null) {
        return Err(Refusal::new(
            "a path leads into something that is not JSON",
            "only JSON columns have paths",
        ));
    }
    let path = json::parse_path(path).ok_or_else(|| {
        Refusal::new(format!("the path '{path}' is not supported"), "write members and places: '$.a.b[0]'")
    })?;
    let kind = if unquote { Kind::Text(kind::JSON_TEXT) } else { Kind::Json };
    Ok(Node { kind, op: Op::JsonPath { value, path, unquote } })
}

fn call(function: Function, arguments: &[Ast], scope: &Scope<'_>) -> Result<Node, Refusal> {
    use Function as F;
    if function == F::If {
        let branches = vec![bind(&arguments[1], scope)?, bind(&arguments[2], scope)?];
        let (kind, mut branches) = unified(branches, false)?;
        let otherwise = Box::new(branches.pop().expect("two branches"));
        let then = branches.pop().expect("two branches");
        let arms = vec![(By::Int, varying(&arguments[0], scope)?, then)];
        return Ok(Node { kind, op: Op::Case { operand: None, arms, otherwise } });
    }
    let mut args: Vec<Node> = arguments.iter().map(|ast| bind(ast, scope)).collect::<Result<_, _>>()?;
    match function {
        F::IfNull | F::Coalesce => {
            let (kind, args) = unified(args, true)?;
            return Ok(Node { kind, op: Op::Coalesce(args) });
        }
        F::NullIf => {
            let mut right = args.pop().expect("two arguments");
            let mut left = args.pop().expect("two arguments");
            let kind = unify(&[left.kind])?;
            let by = comparison((&mut left, &arguments[0]), (&mut right, &arguments[1]), false)?;
            return Ok(Node { kind, op: Op::NullIf(by, Box::new(left), Box::new(right)) });
        }
        F::IsNull => {
            let value = Box::new(args.pop().expect("one argument"));
            return Ok(Node { kind: BOOL, op: Op::Is { value, truth: Truth::Null, negated: false } });
        }
        F::Mod => {
            let right = Box::new(args.pop().expect("two arguments"));
            let left = Box::new(args.pop().expect("two arguments"));
            return arithmetic(Arithmetic::Modulo, left, right);
        }
        F::Greatest | F::Least => return extreme(args, function == F::Greatest),
        F::Concat | F::ConcatWs => return concat(args, function == F::ConcatWs),
        F::JsonExtract => {
            let path = args.pop().expect("two arguments");
            let Op::Const(Val::Text(path)) = path.op else {
                return Err(Refusal::new("a path is not a literal", "write JSON_EXTRACT(doc, '$.a')"));
            };
            return json_path(Box::new(args.pop().expect("two arguments")), &path, false);
        }
        _ => {}
    }
    if function == F::Hex && args[0].kind == Kind::Year {
        // A year is a number there.
        args = vec![cast(Box::new(args.remove(0)), CastTo::Unsigned)?];
    }
    let (kind, collation) = super::signature::of(function, &args)?;
    Ok(Node { kind, op: Op::Call(function, args, collation) })
}

fn extreme(args: Vec<Node>, greatest: bool) -> Result<Node, Refusal> {
    let classes: Vec<Class> =
        args.iter().map(|node| node.kind.class()).filter(|c| *c != Class::Null).collect();
    let number = |class: &Class| matches!(class, Class::Int | Class::Decimal | Class::Double);
    let same = classes.windows(2).all(|pair| pair[0] == pair[1]);
    let dates = classes.iter().all(|class| matches!(class, Class::Date | Class::DateTime));
    if !(same || dates || classes.iter().all(number)) {
        return Err(Refusal::new(
            "GREATEST and LEAST have values of different types",
            "CAST them to one type",
        ));
    }
    let (kind, parts) = unified(args, true)?;
    let by = match kind.class() {
        Class::Int | Class::Null => By::Int,
        Class::Decimal => By::Decimal,
        Class::Double => By::Double,
        Class::Text => By::Text(kind.as_text()?.collation.filter(|c| c.is_ordered()).ok_or_else(|| {
            Refusal::new("the texts have no common order", "name a collation: a COLLATE utf8mb4_bin")
        })?),
        Class::Bytes => By::Bytes,
        Class::Date | Class::DateTime => By::DateTime,
        Class::Time => By::Time,
        Class::Json | Class::Opaque => {
            return Err(Refusal::new("JSON and geometry have no greatest", "take a text or number of it"));
        }
    };
    Ok(Node { kind, op: Op::Extreme { greatest, by, parts } })
}

fn concat(mut args: Vec<Node>, with_separator: bool) -> Result<Node, Refusal> {
    let binary = args.iter().any(|node| node.kind.class() == Class::Bytes);
    let mut texts = Vec::with_capacity(args.len());
    for node in &args {
        if node.kind.class() == Class::Bytes {
            continue;
        }
        let text = node.kind.as_text()?;
        if binary && !text.utf8 {
            return Err(charset_unknown());
        }
        texts.push(text);
    }
    let kind = if binary { Kind::Bytes { literal: false } } else { Kind::Text(agree(texts)) };
    let separator = if with_separator { Some(Box::new(args.remove(0))) } else { None };
    Ok(Node { kind, op: Op::Concat { separator, parts: args } })
}
