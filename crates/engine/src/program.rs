//! What SQLite calls back into: expressions of MySQL over stored values, and storing a value in a column.
//!
//! A translated statement holds `tm(N, a, b…)`: program N of the statement over the values a, b…

use crate::error::{EngineError, carried};
use crate::extra::Extra;
use crate::store::Target;
use crate::types::{decode, encode};
use base::Value;
use expr::coerce::Val;
use expr::kind::Kind;
use expr::node::{Node, Row};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, Error};
use std::sync::{Arc, Mutex, PoisonError};

/// One callback of a statement.
#[derive(Clone, Debug)]
pub enum Program {
    /// An expression, and the kinds of its arguments.
    Node(Node, Vec<Kind>),
    /// A function that expressions of flows do not have.
    Extra(Extra, Vec<Kind>, Kind),
    /// A value on its way into a column.
    Store(Kind, Target),
}

/// The programs of the statement that a connection runs.
#[derive(Clone, Debug, Default)]
pub struct Programs(Arc<Mutex<Vec<Arc<Program>>>>);

impl Programs {
    /// Those of the next statement.
    pub fn set(&self, programs: Vec<Program>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = programs.into_iter().map(Arc::new).collect();
    }

    fn get(&self, index: usize) -> Option<Arc<Program>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    /// Makes `tm` known to a connection.
    pub fn register(&self, connection: &Connection) -> rusqlite::Result<()> {
        let programs = self.clone();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        connection.create_scalar_function("tm", -1, flags, move |context| {
            let program: Arc<Arc<Program>> = context.get_or_create_aux(0, |index| {
                let index = index.as_i64().map_err(|error| error.to_string())? as usize;
                programs.get(index).ok_or_else(|| format!("the statement has no program {index}"))
            })?;
            run(&program, context).map_err(|error| Error::UserFunctionError(carried(&error).into()))
        })
    }
}

fn run(program: &Program, context: &Context<'_>) -> Result<Cell, EngineError> {
    let argument = |at: usize, kind: &Kind| {
        decode(context.get_raw(at + 1), *kind).map_err(|error| EngineError::Internal(error.0))
    };
    match program {
        Program::Node(node, kinds) => {
            let values: Vec<Value> =
                kinds.iter().enumerate().map(|(at, kind)| argument(at, kind)).collect::<Result<_, _>>()?;
            let value = node.eval(Row { source: &[], computed: &values }).map_err(eval_error)?;
            encode(value, node.kind).map_err(eval_error)
        }
        Program::Extra(extra, kinds, kind) => {
            let mut values = Vec::with_capacity(kinds.len());
            for (at, kind) in kinds.iter().enumerate() {
                values.push(val(argument(at, kind)?, *kind));
            }
            encode(extra.call(&values)?, *kind).map_err(eval_error)
        }
        Program::Store(kind, target) => {
            let value = val(argument(0, kind)?, *kind);
            target.store(value, *kind)
        }
    }
}

/// An expression's error by MySQL's number.
pub fn eval_error(error: expr::EvalError) -> EngineError {
    let text = error.0;
    if text.contains("out of range") {
        return EngineError::sql(1690, text);
    }
    EngineError::refused(text, "CAST the value, so that its type is plain")
}

/// A stored value as expressions calculate with it.
pub fn val(value: Value, kind: Kind) -> Val<'static> {
    match value {
        Value::Int(v) => Val::Int(v),
        Value::UInt(v) | Value::Bit(v) => Val::UInt(v),
        Value::Year(v) => Val::Label(format!("{v:04}").into(), u64::from(v)),
        Value::Double(v) => Val::Double(v),
        Value::Float(v) => Val::Float(v),
        Value::Decimal(text) => Val::Decimal(expr::decimal::Decimal::parse_prefix(&text)),
        Value::Date(v) => Val::Date(v),
        Value::Time(v) => Val::Time(v, if let Kind::Time { fsp } = kind { fsp } else { 6 }),
        Value::DateTime(v) => Val::DateTime(v, if let Kind::DateTime { fsp } = kind { fsp } else { 6 }),
        Value::Text(text) => Val::Text(text.into()),
        Value::Json(text) => Val::Json(text.into()),
        Value::Bytes(bytes) => Val::Bytes(bytes.into()),
        _ => Val::Null,
    }
}
