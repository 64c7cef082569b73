//! The column that an expression makes, and its values.

use super::bind::Scope;
use super::coerce::{Val, to_bytes, to_decimal, to_double, to_int, to_text};
use super::kind::Kind;
use super::node::{Node, Op, Row};
use super::parse::Refusal;
use crate::EvalError;
use base::{Column, ColumnType, Generated, Value};

/// A bound expression with the column it fills.
#[derive(Clone, Debug)]
pub struct Output {
    pub column: Column,
    node: Node,
}

impl Output {
    pub fn new(name: &str, node: Node, scope: &Scope<'_>) -> Result<Self, Refusal> {
        let column = match &node.op {
            // A column alone keeps its type to the letter.
            Op::Column(reader) => {
                scope.columns.iter().find(|(slot, _)| *slot == reader.slot).map(|(_, c)| *c)
            }
            _ => None,
        };
        let column = match column {
            Some(column) => {
                Column { name: name.to_owned(), generated: Generated::No, invisible: false, ..column.clone() }
            }
            None => made(name, node.kind)?,
        };
        Ok(Self { column, node })
    }

    pub fn value(&self, row: Row<'_>) -> Result<Value, EvalError> {
        if let Op::Column(reader) = &self.node.op {
            return Ok(row.get(reader.slot).to_value());
        }
        stored(self.node.eval(row)?, self.node.kind)
    }
}

fn made(name: &str, kind: Kind) -> Result<Column, Refusal> {
    let (ty, sql_type) = match kind {
        Kind::Int { unsigned, .. } => {
            (ColumnType::BigInt { unsigned }, if unsigned { "bigint unsigned" } else { "bigint" }.to_owned())
        }
        Kind::Bit => (ColumnType::BigInt { unsigned: true }, "bigint unsigned".into()),
        Kind::Year => (ColumnType::Year, "year".into()),
        Kind::Decimal { precision, scale } => {
            (ColumnType::Decimal { precision, scale }, format!("decimal({precision},{scale})"))
        }
        Kind::Double { .. } => (ColumnType::Double, "double".into()),
        Kind::Float => (ColumnType::Float, "float".into()),
        Kind::Null | Kind::Text(_) | Kind::Label(_) => {
            (ColumnType::Text { chars_max: 4_294_967_295 }, "longtext".into())
        }
        Kind::Bytes { .. } => (ColumnType::VarBinary { bytes_max: 4_294_967_295 }, "longblob".into()),
        Kind::Date => (ColumnType::Date, "date".into()),
        Kind::Time { fsp } => (ColumnType::Time { fsp }, with_fsp("time", fsp)),
        Kind::DateTime { fsp } => (ColumnType::DateTime { fsp }, with_fsp("datetime", fsp)),
        Kind::Json => (ColumnType::Json, "json".into()),
        Kind::Opaque => {
            return Err(Refusal::new("geometry and vectors have no expressions", "name the column alone"));
        }
    };
    let charset = matches!(ty, ColumnType::Text { .. }).then(|| "utf8mb4".to_owned());
    let name = name.to_owned();
    Ok(Column {
        name,
        ty,
        sql_type,
        nullable: true,
        charset,
        collation: None,
        generated: Generated::No,
        invisible: false,
    })
}

fn with_fsp(name: &str, fsp: u8) -> String {
    if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") }
}

/// A value as the column of its kind holds it.
fn stored(value: Val<'_>, kind: Kind) -> Result<Value, EvalError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    Ok(match kind {
        Kind::Int { unsigned: true, .. } | Kind::Bit => match Val::integer(to_int(&value), true)? {
            Val::UInt(v) => Value::UInt(v),
            _ => Value::Null,
        },
        Kind::Int { .. } => match Val::integer(to_int(&value), false)? {
            Val::Int(v) => Value::Int(v),
            _ => Value::Null,
        },
        Kind::Year => Value::Year(u16::try_from(to_int(&value)).unwrap_or_default()),
        Kind::Decimal { precision, scale } => {
            let exact = to_decimal(&value).rescaled(u32::from(scale));
            if !exact.fits(u32::from(precision)) {
                return Err(EvalError(format!("{exact} is out of range for DECIMAL({precision},{scale})")));
            }
            Value::Decimal(exact.to_string())
        }
        Kind::Double { .. } => Value::Double(to_double(&value)),
        Kind::Float => Value::Float(to_double(&value) as f32),
        Kind::Null | Kind::Text(_) | Kind::Label(_) => Value::Text(to_text(value)?.into_owned()),
        Kind::Bytes { .. } | Kind::Opaque => Value::Bytes(to_bytes(value)?.into_owned()),
        Kind::Date | Kind::Time { .. } | Kind::DateTime { .. } | Kind::Json => match value {
            Val::Date(v) => Value::Date(v),
            Val::Time(v, _) => Value::Time(v),
            Val::DateTime(v, _) => Value::DateTime(v),
            Val::Json(text) => Value::Json(text.into_owned()),
            other => return Err(EvalError(format!("{other:?} is not of its column's type"))),
        },
    })
}
