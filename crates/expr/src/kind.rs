//! What an expression is before any row is seen: MySQL's result types, and the rules that join them.

use super::collate::{self, Collation};
use super::parse::Refusal;
use base::{Column, ColumnType};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Null,
    Int {
        unsigned: bool,
        digits: u8,
    },
    Bit,
    Year,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// `fixed`: how it prints is known to the server only: DOUBLE(10,2), and branches of several types.
    Double {
        fixed: bool,
    },
    /// A FLOAT column by itself: prints six digits.
    Float,
    Text(TextKind),
    /// ENUM and SET: text, and a number.
    Label(TextKind),
    Bytes {
        literal: bool,
    },
    Date,
    Time {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Json,
    /// Geometry and vectors: only NULL or not.
    Opaque,
}

/// How two texts compare, and who says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextKind {
    /// `None` when there is no one answer.
    pub collation: Option<Collation>,
    pub strength: Strength,
    /// The server keeps the text in UTF-8, so that its bytes are ours.
    pub utf8: bool,
    /// Branches of several types: the server takes each branch's own number where a number is wanted.
    pub mixed: bool,
}

/// Whose collation wins: the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    Number,
    Literal,
    Column,
    Explicit,
}

/// Kinds that take part in the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Null,
    Int,
    Decimal,
    Double,
    Text,
    Bytes,
    Date,
    Time,
    DateTime,
    Json,
    Opaque,
}

pub const BOOL: Kind = Kind::Int { unsigned: false, digits: 1 };
pub const BIGINT: Kind = Kind::Int { unsigned: false, digits: 19 };
pub const DOUBLE: Kind = Kind::Double { fixed: false };
pub const LITERAL: TextKind =
    TextKind { collation: Some(collate::DEFAULT), strength: Strength::Literal, utf8: true, mixed: false };
const NUMBER_TEXT: TextKind =
    TextKind { collation: Some(collate::DEFAULT), strength: Strength::Number, utf8: true, mixed: false };
pub const JSON_TEXT: TextKind =
    TextKind { collation: Some(collate::JSON), strength: Strength::Column, utf8: true, mixed: false };

impl Kind {
    pub fn class(self) -> Class {
        match self {
            Self::Null => Class::Null,
            Self::Int { .. } | Self::Bit | Self::Year => Class::Int,
            Self::Decimal { .. } => Class::Decimal,
            Self::Double { .. } | Self::Float => Class::Double,
            Self::Text(_) | Self::Label(_) => Class::Text,
            Self::Bytes { .. } => Class::Bytes,
            Self::Date => Class::Date,
            Self::Time { .. } => Class::Time,
            Self::DateTime { .. } => Class::DateTime,
            Self::Json => Class::Json,
            Self::Opaque => Class::Opaque,
        }
    }

    pub fn of(column: &Column) -> Self {
        let int = |unsigned: &bool, digits| Self::Int { unsigned: *unsigned, digits };
        match &column.ty {
            ColumnType::TinyInt { unsigned } => int(unsigned, 3),
            ColumnType::SmallInt { unsigned } => int(unsigned, 5),
            ColumnType::MediumInt { unsigned } => int(unsigned, 8),
            ColumnType::Int { unsigned } => int(unsigned, 10),
            ColumnType::BigInt { unsigned } => int(unsigned, 20),
            ColumnType::Float if !column.sql_type.contains(',') => Self::Float,
            ColumnType::Float | ColumnType::Double => Self::Double { fixed: column.sql_type.contains(',') },
            ColumnType::Decimal { precision, scale } => {
                Self::Decimal { precision: *precision, scale: *scale }
            }
            ColumnType::Bit { .. } => Self::Bit,
            ColumnType::Year => Self::Year,
            ColumnType::Date => Self::Date,
            ColumnType::Time { fsp } => Self::Time { fsp: *fsp },
            ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => Self::DateTime { fsp: *fsp },
            ColumnType::Text { .. } | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
                Self::Text(text_kind(column))
            }
            ColumnType::Enum { .. } | ColumnType::Set { .. } => Self::Label(text_kind(column)),
            ColumnType::Binary { .. } | ColumnType::VarBinary { .. } => Self::Bytes { literal: false },
            ColumnType::Json => Self::Json,
            ColumnType::Geometry | ColumnType::Vector { .. } => Self::Opaque,
        }
    }

    /// The kind it calculates as: an integer, a decimal or a double.
    pub fn as_number(self) -> Result<Self, Refusal> {
        Ok(match self {
            Self::Null => BOOL,
            Self::Int { .. } | Self::Decimal { .. } | Self::Double { .. } => self,
            Self::Float => DOUBLE,
            Self::Bit => Self::Int { unsigned: true, digits: 20 },
            Self::Year => Self::Int { unsigned: true, digits: 4 },
            Self::Date => Self::Int { unsigned: false, digits: 8 },
            Self::DateTime { fsp: 0 } => Self::Int { unsigned: false, digits: 14 },
            Self::DateTime { fsp } => Self::Decimal { precision: 14 + fsp, scale: fsp },
            Self::Time { fsp: 0 } => Self::Int { unsigned: false, digits: 7 },
            Self::Time { fsp } => Self::Decimal { precision: 7 + fsp, scale: fsp },
            Self::Text(TextKind { mixed: true, .. }) => return Err(several_types()),
            Self::Text(_) | Self::Label(_) | Self::Json | Self::Bytes { literal: false } => DOUBLE,
            Self::Bytes { literal: true } => {
                return Err(Refusal::new("a hexadecimal literal is used as a number", "write the number"));
            }
            Self::Opaque => return Err(opaque()),
        })
    }

    /// How it compares as text; an error for what has no text we print as the server does.
    pub fn as_text(self) -> Result<TextKind, Refusal> {
        match self {
            Self::Text(text) | Self::Label(text) => Ok(text),
            Self::Json => Ok(JSON_TEXT),
            Self::Double { fixed: true } => Err(Refusal::new(
                "a double that prints as its column or branch does is used as text",
                "CAST it to DECIMAL(p,s) first",
            )),
            Self::Bit => Err(Refusal::new(
                "a BIT is used as text, where MySQL has bytes",
                "write bits + 0 for its number",
            )),
            Self::Bytes { .. } => Err(Refusal::new(
                "a binary value is used as text",
                "only =, <, LIKE, IN, CONCAT, LENGTH, HEX and SHA2 take binary values",
            )),
            Self::Opaque => Err(opaque()),
            _ => Ok(NUMBER_TEXT),
        }
    }

    /// Precision and scale as a decimal; `None` for what is no exact number.
    pub fn decimal_size(self) -> Option<(u8, u8)> {
        match self {
            Self::Int { digits, .. } => Some((digits.max(1), 0)),
            Self::Bit => Some((20, 0)),
            Self::Year => Some((4, 0)),
            Self::Decimal { precision, scale } => Some((precision, scale)),
            Self::Null => Some((1, 0)),
            _ => None,
        }
    }

    pub fn decimal(precision: u32, scale: u32) -> Self {
        let scale = scale.min(30);
        Self::Decimal { precision: precision.clamp(scale.max(1), 65) as u8, scale: scale as u8 }
    }
}

pub fn several_types() -> Refusal {
    Refusal::new(
        "a value that is text or a number by row is used as a number or date",
        "CAST the branches of IF, CASE or COALESCE to one type",
    )
}

fn opaque() -> Refusal {
    Refusal::new("geometry and vectors have no expressions", "only IS NULL and IS NOT NULL are")
}

fn text_kind(column: &Column) -> TextKind {
    let collation = match &column.collation {
        Some(name) => Collation::named(name),
        None => Some(collate::DEFAULT),
    };
    let charset = column.charset.as_deref().unwrap_or("utf8mb4");
    let utf8 = charset.starts_with("utf8") || charset == "ascii";
    TextKind { collation, strength: Strength::Column, utf8, mixed: false }
}

/// The collation of several texts together.
pub fn agree(texts: impl IntoIterator<Item = TextKind>) -> TextKind {
    let mut joined: Option<TextKind> = None;
    for text in texts {
        joined = Some(match joined {
            None => text,
            Some(other) => agree_two(other, text),
        });
    }
    // What a function makes of them is text, whatever its arguments were.
    TextKind { mixed: false, ..joined.unwrap_or(LITERAL) }
}

fn agree_two(left: TextKind, right: TextKind) -> TextKind {
    let (utf8, mixed) = (left.utf8 && right.utf8, left.mixed || right.mixed);
    let winner = match left.strength.cmp(&right.strength) {
        std::cmp::Ordering::Less => right,
        std::cmp::Ordering::Greater => left,
        std::cmp::Ordering::Equal if left.collation == right.collation => left,
        std::cmp::Ordering::Equal => {
            // Of two columns the one that compares bytes decides; otherwise nobody does.
            let binary = |text: &TextKind| text.collation.is_some_and(Collation::is_binary);
            let decided = left.strength == Strength::Column && binary(&left) != binary(&right);
            match (decided, binary(&left)) {
                (true, true) => left,
                (true, false) => right,
                _ => TextKind { collation: None, ..left },
            }
        }
    };
    TextKind { utf8, mixed, ..winner }
}

/// The kind that several branches have together (IF, CASE, COALESCE).
pub fn unify(kinds: &[Kind]) -> Result<Kind, Refusal> {
    let mut result = Kind::Null;
    for kind in kinds {
        result = unify_two(result, *kind)?;
    }
    Ok(match result {
        // A label is a number only while it is the column itself.
        Kind::Label(text) => Kind::Text(TextKind { mixed: true, ..text }),
        other => other,
    })
}

fn unify_two(left: Kind, right: Kind) -> Result<Kind, Refusal> {
    use Class as C;
    if left == Kind::Bit || right == Kind::Bit {
        return Err(Refusal::new(
            "a BIT is a branch, where MySQL has bytes",
            "write bits + 0 for its number",
        ));
    }
    if left == right {
        return Ok(left);
    }
    let mixed = || Refusal::new("the branches have types that do not go together", "CAST them to one type");
    Ok(match (left.class(), right.class()) {
        (C::Null, _) => right,
        (_, C::Null) => left,
        (C::Opaque, _) | (_, C::Opaque) => return Err(opaque()),
        (C::Int, C::Int) => unify_ints(left.as_number()?, right.as_number()?),
        (C::Int | C::Decimal, C::Int | C::Decimal) => {
            let ((p1, s1), (p2, s2)) =
                (left.decimal_size().ok_or_else(mixed)?, right.decimal_size().ok_or_else(mixed)?);
            let scale = s1.max(s2);
            Kind::decimal(u32::from((p1 - s1).max(p2 - s2)) + u32::from(scale), u32::from(scale))
        }
        (C::Int | C::Decimal | C::Double, C::Int | C::Decimal | C::Double) => {
            if left == Kind::Float || right == Kind::Float {
                return Err(mixed());
            }
            // As text, the server prints the branch that was taken.
            Kind::Double { fixed: true }
        }
        (C::Date | C::DateTime, C::Date | C::DateTime) => {
            let fsp = |kind| if let Kind::DateTime { fsp } = kind { fsp } else { 0 };
            Kind::DateTime { fsp: fsp(left).max(fsp(right)) }
        }
        (C::Time, C::Time) => {
            let fsp = |kind| if let Kind::Time { fsp } = kind { fsp } else { 0 };
            Kind::Time { fsp: fsp(left).max(fsp(right)) }
        }
        (C::Bytes, C::Bytes | C::Text) | (C::Text, C::Bytes) => {
            if [left, right].contains(&Kind::Bytes { literal: true }) {
                return Err(mixed());
            }
            Kind::Bytes { literal: false }
        }
        (C::Time, C::Date | C::DateTime) | (C::Date | C::DateTime, C::Time) => return Err(mixed()),
        (C::Json, _) | (_, C::Json) | (C::Bytes, _) | (_, C::Bytes) => return Err(mixed()),
        (C::Text, C::Text) => {
            let label = matches!(left, Kind::Label(_)) || matches!(right, Kind::Label(_));
            let text = agree_two(left.as_text()?, right.as_text()?);
            Kind::Text(TextKind { mixed: text.mixed || label, ..text })
        }
        _ => Kind::Text(TextKind { mixed: true, ..agree_two(left.as_text()?, right.as_text()?) }),
    })
}

fn unify_ints(left: Kind, right: Kind) -> Kind {
    match (left, right) {
        (Kind::Int { unsigned: a, digits: x }, Kind::Int { unsigned: b, digits: y }) if a == b => {
            Kind::Int { unsigned: a, digits: x.max(y) }
        }
        (Kind::Int { digits: x, .. }, Kind::Int { digits: y, .. }) if x.max(y) < 18 => {
            Kind::Int { unsigned: false, digits: x.max(y) + 1 }
        }
        _ => Kind::decimal(20, 0),
    }
}
