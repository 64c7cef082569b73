//! `split`: one row becomes as many as a list has elements.

use super::config::{OnError, SplitStep};
use super::typed::{Typed, shown};
use super::{DOCUMENT_BYTES_MAX, Input, bounded, declared};
use crate::transform::EvalError;
use crate::transform::expr::{Row, json_elements};
use base::{Column, Value};

/// Rows that one row may become.
pub const ROWS_MAX: usize = 10_000;
/// The column with an element's place, unless the step names it.
pub const INDEX_DEFAULT: &str = "#";

/// A `split` step, compiled for any table.
#[derive(Clone, Debug)]
pub struct Split {
    pub input: String,
    separator: Option<String>,
    ty: Typed,
    index: String,
    on_error: OnError,
}

/// The step, bound to a table's column.
#[derive(Clone, Debug)]
pub struct SplitPlan {
    input: Input,
    separator: Option<String>,
    ty: Typed,
    on_error: OnError,
}

impl Split {
    pub fn compile(step: &SplitStep) -> Result<Self, String> {
        if step.separator.as_deref() == Some("") {
            return Err("`separator` is empty".to_owned());
        }
        Ok(Self {
            input: step.column.clone(),
            separator: step.separator.clone(),
            ty: declared(step.r#type.as_deref())?,
            index: step.index.clone().unwrap_or_else(|| INDEX_DEFAULT.to_owned()),
            on_error: step.on_error,
        })
    }

    /// The element's column and that of its place.
    pub fn columns(&self, input: &Column) -> [Column; 2] {
        let mut index = Typed::Int.column(&self.index);
        index.nullable = false;
        [self.ty.column(&input.name), index]
    }

    pub fn bind(&self, input: Input) -> SplitPlan {
        let (separator, ty) = (self.separator.clone(), self.ty.clone());
        SplitPlan { input, separator, ty, on_error: self.on_error }
    }
}

impl SplitPlan {
    /// The elements of a row, in order.
    pub fn elements(&self, row: Row<'_>) -> Result<Vec<Value>, EvalError> {
        match self.read(row) {
            Ok(elements) => Ok(elements),
            Err(reason) => match self.on_error {
                OnError::Park => Err(EvalError(format!("split: {reason}"))),
                OnError::Skip => Ok(Vec::new()),
                OnError::Null => Ok(vec![Value::Null]),
            },
        }
    }

    fn read(&self, row: Row<'_>) -> Result<Vec<Value>, String> {
        let Some(text) = self.input.text(row)? else { return Ok(Vec::new()) };
        bounded(&text, DOCUMENT_BYTES_MAX)?;
        let too_many = || format!("more than {ROWS_MAX} elements");
        match &self.separator {
            _ if text.is_empty() => Ok(Vec::new()),
            Some(separator) => {
                let parts: Vec<&str> = text.split(separator.as_str()).take(ROWS_MAX + 1).collect();
                if parts.len() > ROWS_MAX {
                    return Err(too_many());
                }
                parts.into_iter().map(|part| self.ty.read(part)).collect()
            }
            None => {
                let parts =
                    json_elements(&text).ok_or_else(|| format!("{} is not a JSON array", shown(&text)))?;
                if parts.len() > ROWS_MAX {
                    return Err(too_many());
                }
                parts.into_iter().map(|part| self.ty.read_json(part)).collect()
            }
        }
    }
}
