//! Conditions that ask for one value of a column: how those that a row can fulfil are found among many.

use super::coerce::Val;
use super::collate::Collation;
use super::kind::Kind;
use super::node::{By, Node, Op, Slot};
use super::parse::{Compare, Logic};
use base::ValueRef;

/// `column = literal`, alone or among parts that must all be true. Whatever the server finds equal has the same key; the same key does not
/// say that it is equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Equality {
    pub column: usize,
    pub by: EqualityBy,
    pub key: Vec<u8>,
}

/// How keys are made of a column's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EqualityBy {
    Int,
    Text(Collation),
}

impl EqualityBy {
    /// The key of a value as a row has it; `None` for NULL, which equals nothing.
    pub fn key(self, value: ValueRef<'_>) -> Option<Vec<u8>> {
        match (self, value) {
            (Self::Int, ValueRef::Int(v)) => Some(of_number(i128::from(v))),
            (Self::Int, ValueRef::UInt(v)) => Some(of_number(i128::from(v))),
            (Self::Text(collation), ValueRef::Text(text)) => Some(collation.weights(text)),
            _ => None,
        }
    }
}

fn of_number(value: i128) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

impl Equality {
    pub(super) fn of(node: &Node) -> Option<Self> {
        match &node.op {
            Op::Logic(Logic::And, parts) => parts.iter().find_map(Self::of),
            Op::Compare(Compare::Equal, by, left, right) => match (&left.op, &right.op) {
                (Op::Column(_), Op::Const(value)) => Self::between(*by, left, value),
                (Op::Const(value), Op::Column(_)) => Self::between(*by, right, value),
                _ => None,
            },
            _ => None,
        }
    }

    fn between(by: By, column: &Node, value: &Val<'static>) -> Option<Self> {
        let Op::Column(reader) = &column.op else { return None };
        let Slot::Source(index) = reader.slot else { return None };
        let (by, key) = match (by, column.kind, value) {
            (By::Int, Kind::Int { .. }, Val::Int(v)) => (EqualityBy::Int, of_number(i128::from(*v))),
            (By::Int, Kind::Int { .. }, Val::UInt(v)) => (EqualityBy::Int, of_number(i128::from(*v))),
            (By::Text(collation), Kind::Text(_), Val::Text(text)) => {
                (EqualityBy::Text(collation), collation.weights(text))
            }
            _ => return None,
        };
        Some(Self { column: index, by, key })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expression, Scope};
    use super::*;
    use base::{Column, ColumnType};

    fn column(name: &str, ty: ColumnType, collation: Option<&str>) -> Column {
        Column {
            name: name.into(),
            ty,
            sql_type: String::new(),
            nullable: true,
            charset: collation.map(|_| "utf8mb4".into()),
            collation: collation.map(str::to_owned),
            generated: Default::default(),
            invisible: false,
        }
    }

    fn equality(text: &str) -> Option<Equality> {
        let id = column("id", ColumnType::BigInt { unsigned: false }, None);
        let owner = column("owner", ColumnType::Text { chars_max: 20 }, Some("utf8mb4_0900_ai_ci"));
        let columns = vec![(Slot::Source(0), &id), (Slot::Source(1), &owner)];
        let scope = Scope { table: "shop.t".into(), columns };
        Expression::parse(text).unwrap().bind_condition(&scope).unwrap().equality()
    }

    #[test]
    fn what_the_server_finds_equal_has_the_same_key() {
        let wanted = equality("owner = 'Zoë' AND id > 5").unwrap();
        assert_eq!(wanted.column, 1);
        for same in ["Zoë", "zoe", "ZOE", "Zoe\u{308}"] {
            assert_eq!(wanted.by.key(ValueRef::Text(same)).as_ref(), Some(&wanted.key), "{same}");
        }
        for other in ["zo", "zoea", "zöe f", ""] {
            assert_ne!(wanted.by.key(ValueRef::Text(other)).as_ref(), Some(&wanted.key), "{other}");
        }
        let wanted = equality("7 = id").unwrap();
        assert_eq!(wanted.by.key(ValueRef::Int(7)), Some(wanted.key.clone()));
        assert_eq!(wanted.by.key(ValueRef::UInt(7)), Some(wanted.key));
        assert_eq!(wanted.by.key(ValueRef::Null), None);
    }

    #[test]
    fn other_conditions_have_no_such_value() {
        for text in ["id = 1 OR id = 2", "id > 1", "owner LIKE 'a'", "id = id", "NOT (id = 1)", "id + 1 = 2"]
        {
            assert_eq!(equality(text), None, "{text}");
        }
    }
}
