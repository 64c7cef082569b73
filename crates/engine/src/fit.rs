//! A value as a column would give it back: what does not fit by strict mode's rules is an error with MySQL's number, before any
//! engine is asked.

use crate::error::EngineError;
use crate::load::{kept, val_of};
use crate::store::Target;
use crate::types::decode;
use base::{Column, ColumnType, Value};
use expr::kind::Kind;
use rusqlite::types::ValueRef as CellRef;

/// From a source's column to the one that keeps it.
#[derive(Clone, Debug)]
pub struct Fit {
    from: Column,
    kind: Kind,
    target: Target,
    own: Kind,
}

impl Fit {
    pub fn new(from: &Column, to: &Column) -> Self {
        Self {
            from: from.clone(),
            kind: Kind::of(&kept(from, false)),
            target: Target { column: to.clone(), auto_increment: false },
            own: Kind::of(to),
        }
    }

    pub fn to(&self) -> &Column {
        &self.target.column
    }

    pub fn value(&self, value: Value) -> Result<Value, EngineError> {
        if self.is_kept(&value) {
            return Ok(value);
        }
        let cell = self.target.store(val_of(value, &self.from), self.kind)?;
        let value = decode(CellRef::from(&cell), self.own).map_err(|error| EngineError::Internal(error.0))?;
        // FLOAT and YEAR come back as they are told apart.
        Ok(match (value, &self.target.column.ty) {
            (Value::Double(v), ColumnType::Float) => Value::Float(v as f32),
            (value, _) => value,
        })
    }

    /// What plainly stays as it is: most values of most tables.
    fn is_kept(&self, value: &Value) -> bool {
        use ColumnType as T;
        let bits = |ty: &T| match ty {
            T::TinyInt { unsigned } => Some((8u32, *unsigned)),
            T::SmallInt { unsigned } => Some((16, *unsigned)),
            T::MediumInt { unsigned } => Some((24, *unsigned)),
            T::Int { unsigned } => Some((32, *unsigned)),
            T::BigInt { unsigned } => Some((64, *unsigned)),
            _ => None,
        };
        let ty = &self.target.column.ty;
        match value {
            Value::Null => self.target.column.nullable,
            Value::Int(v) => match bits(ty) {
                Some((64, false)) => true,
                Some((bits, false)) => (-(1i64 << (bits - 1))..1i64 << (bits - 1)).contains(v),
                _ => false,
            },
            Value::UInt(v) => match bits(ty) {
                Some((64, true)) => true,
                Some((bits, true)) => *v < 1u64 << bits,
                _ => false,
            },
            // A length is of characters or of bytes, and there are no fewer bytes.
            Value::Text(text) => {
                matches!(ty, T::Text { chars_max } if text.len() as u64 <= *chars_max)
                    && !self.target.column.sql_type.starts_with("char")
            }
            Value::Bytes(bytes) => {
                matches!(ty, T::VarBinary { bytes_max } if bytes.len() as u64 <= *bytes_max)
            }
            Value::Double(v) => *ty == T::Double && v.is_finite(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Date, DateTime, Generated};

    fn column(ty: ColumnType, sql_type: &str) -> Column {
        Column {
            name: "c".into(),
            ty,
            sql_type: sql_type.into(),
            nullable: true,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        }
    }

    #[test]
    fn a_value_becomes_what_its_column_gives_back() {
        let of = |column: &Column, value: Value| Fit::new(column, &kept(column, false)).value(value);
        let decimal = column(ColumnType::Decimal { precision: 5, scale: 2 }, "decimal(5,2)");
        assert_eq!(of(&decimal, Value::Text("1.5".into())), Ok(Value::Decimal("1.50".into())));
        assert_eq!(of(&decimal, Value::Text("1000".into())).unwrap_err().number(), Some(1264));
        let tiny = column(ColumnType::TinyInt { unsigned: false }, "tinyint");
        assert_eq!(of(&tiny, Value::Int(127)), Ok(Value::Int(127)));
        assert_eq!(of(&tiny, Value::Int(128)).unwrap_err().number(), Some(1264));
        assert_eq!(of(&tiny, Value::Text("7".into())), Ok(Value::Int(7)));
        let date = column(ColumnType::Date, "date");
        assert_eq!(of(&date, Value::Date(Date::default())).unwrap_err().number(), Some(1292));
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let set = column(ColumnType::Set { labels }, "set('a','b')");
        assert_eq!(of(&set, Value::Set(3)), Ok(Value::Text("a,b".into())));
        let stamp = column(ColumnType::Timestamp { fsp: 3 }, "timestamp(3)");
        let day = Date { year: 1970, month: 1, day: 2 };
        let expected = DateTime { date: day, micro: 120_000, ..DateTime::default() };
        assert_eq!(of(&stamp, Value::Timestamp(86_400_120_000)), Ok(Value::DateTime(expected)));
        let float = column(ColumnType::Float, "float");
        assert_eq!(of(&float, Value::Float(0.1)), Ok(Value::Float(0.1)));
        let json = column(ColumnType::Json, "json");
        assert_eq!(of(&json, Value::Json("{}".into())), Ok(Value::Text("{}".into())));
        let bit = column(ColumnType::Bit { bits: 3 }, "bit(3)");
        assert_eq!(of(&bit, Value::Bit(5)), Ok(Value::UInt(5)));
    }
}
