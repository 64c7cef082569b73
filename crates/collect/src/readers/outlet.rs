//! The way from cells to batches: the two who listen to what a file holds.

use super::cell::{COLUMNS_MAX, Cell, Visitor, stopped};
use super::infer::{self, Guess};
use crate::reader::{BAD_TEXT_MAX, BadRow, Batch, Described, ROWS_OF_BATCH_MAX, ReadError, Scope, Sender};
use base::{Column, ColumnType, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// Bytes of a batch, about.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Finds out the columns of a table.
pub struct Survey<'a> {
    formats: &'a [String],
    names: Vec<String>,
    known: HashMap<String, usize>,
    guesses: Vec<Guess>,
    pub rows: u64,
}

impl<'a> Survey<'a> {
    pub fn new(formats: &'a [String]) -> Self {
        Self { formats, names: Vec::new(), known: HashMap::new(), guesses: Vec::new(), rows: 0 }
    }

    /// The columns, with the types that were declared before those that were told. `Err`: one is declared that is not there, or
    /// with no type.
    pub fn columns(&self, declared: &BTreeMap<String, String>) -> Result<Vec<Column>, String> {
        let mut types: HashMap<String, ColumnType> = HashMap::new();
        for (name, text) in declared {
            if !self.known.contains_key(&name.to_lowercase()) {
                return Err(format!(
                    "`columns` names `{name}`, which the table has not: {}",
                    self.names.join(", ")
                ));
            }
            types.insert(
                name.to_lowercase(),
                infer::declared(text).map_err(|wrong| format!("`columns`: {name}: {wrong}"))?,
            );
        }
        let told = self.names.iter().zip(&self.guesses).map(|(name, guess)| {
            infer::column(name, types.get(&name.to_lowercase()).cloned().unwrap_or_else(|| guess.ty()))
        });
        Ok(told.collect())
    }
}

impl Visitor for Survey<'_> {
    fn enter(&mut self, _: &str) {}

    fn column(&mut self, name: &str) -> Result<Option<usize>, ReadError> {
        if let Some(known) = self.known.get(&name.to_lowercase()) {
            return Ok(Some(*known));
        }
        if self.names.len() == COLUMNS_MAX {
            return Err(ReadError::bad(
                format!("there are more than {COLUMNS_MAX} columns"),
                "rows whose names are values are no table: turn them round before",
            ));
        }
        self.known.insert(name.to_lowercase(), self.names.len());
        self.names.push(name.to_owned());
        self.guesses.push(Guess::default());
        Ok(Some(self.names.len() - 1))
    }

    fn row(&mut self, _: u64, cells: Vec<(usize, Cell<'_>)>) -> Result<(), ReadError> {
        self.rows += 1;
        for (column, cell) in cells {
            self.guesses[column].see(&cell, self.formats);
        }
        Ok(())
    }

    fn bad(&mut self, _: u64, _: &[u8], _: &str) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Which rows and columns of a table are wanted.
pub struct Selection {
    /// Indexes of what is given, in its order; `None`: all.
    columns: Option<Vec<usize>>,
    from: Option<(usize, Value)>,
}

impl Selection {
    pub fn new(table: &Described, scope: &Scope) -> Result<Self, ReadError> {
        let find = |name: &String| {
            table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                ReadError::bad(
                    format!("{} has no column `{name}`", table.table),
                    "look at the flow's `cursor` and `key`",
                )
            })
        };
        Ok(match scope {
            Scope::All | Scope::From { value: None, .. } => Self { columns: None, from: None },
            Scope::From { column, value: Some(value) } => {
                Self { columns: None, from: Some((find(column)?, value.clone())) }
            }
            Scope::Columns(names) => {
                Self { columns: Some(names.iter().map(find).collect::<Result<_, _>>()?), from: None }
            }
        })
    }

    /// What is wanted of a row.
    pub fn take(&self, mut row: Vec<Value>) -> Option<Vec<Value>> {
        if let Some((column, least)) = &self.from
            && order(&row[*column], least).is_some_and(Ordering::is_lt)
        {
            return None;
        }
        Some(match &self.columns {
            None => row,
            // A column may be named twice.
            Some(columns) if columns.len() > 1 => columns.iter().map(|at| row[*at].clone()).collect(),
            Some(columns) => columns.iter().map(|at| std::mem::take(&mut row[*at])).collect(),
        })
    }
}

/// How values of one column stand to each other; NULL is before all. `None` where they cannot be compared.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    Some(match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Date(left), Value::Date(right)) => left.cmp(right),
        (Value::Date(left), Value::DateTime(right)) => {
            base::DateTime { date: *left, ..Default::default() }.cmp(right)
        }
        (Value::DateTime(left), Value::Date(right)) => {
            left.cmp(&base::DateTime { date: *right, ..Default::default() })
        }
        (Value::DateTime(left), Value::DateTime(right)) => left.cmp(right),
        (Value::Time(left), Value::Time(right)) | (Value::Timestamp(left), Value::Timestamp(right)) => {
            left.cmp(right)
        }
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        _ => return order_numbers(left, right),
    })
}

fn order_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    let exact = |value: &Value| match value {
        Value::Int(it) => Some(it.to_string()),
        Value::UInt(it) => Some(it.to_string()),
        Value::Decimal(it) => Some(it.clone()),
        _ => None,
    };
    if let (Some(left), Some(right)) = (exact(left), exact(right)) {
        return Some(order_digits(&left, &right));
    }
    let double = |value: &Value| match value {
        Value::Float(it) => Some(f64::from(*it)),
        Value::Double(it) => Some(*it),
        other => exact(other).and_then(|it| it.parse().ok()),
    };
    double(left)?.partial_cmp(&double(right)?)
}

fn order_digits(left: &str, right: &str) -> Ordering {
    let parts = |text: &str| {
        let negative = text.starts_with('-');
        let rest = text.trim_start_matches('-');
        let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        let zero = whole.is_empty() && fraction.is_empty();
        (negative && !zero, whole.len(), whole, fraction)
    };
    let (left, right) = (parts(left), parts(right));
    let size = || (left.1, &left.2, &left.3).cmp(&(right.1, &right.2, &right.3));
    match (left.0, right.0) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => size(),
        (true, true) => size().reverse(),
    }
}

/// Gives the rows of a table to who reads it.
pub struct Outlet<'a> {
    sender: &'a Sender,
    table: &'a Described,
    selection: Selection,
    formats: &'a [String],
    place: String,
    batch: Batch,
    bytes: usize,
}

impl<'a> Outlet<'a> {
    pub fn new(
        sender: &'a Sender,
        table: &'a Described,
        selection: Selection,
        formats: &'a [String],
    ) -> Self {
        Self { sender, table, selection, formats, place: String::new(), batch: Batch::default(), bytes: 0 }
    }

    /// A row in the order of the table's columns.
    pub fn put(&mut self, row: Vec<Value>) -> Result<(), ReadError> {
        if let Some(row) = self.selection.take(row) {
            self.bytes += row.iter().map(weight).sum::<usize>();
            self.batch.rows.push(row);
            self.flush_when_full()?;
        }
        Ok(())
    }

    /// What is no row, at a place that is said whole.
    pub fn put_bad(&mut self, place: String, text: String, reason: String) -> Result<(), ReadError> {
        let text = cut(text);
        self.bytes += text.len() + 256;
        self.batch.bad.push(BadRow { place, text, reason });
        self.flush_when_full()
    }

    /// `orders.csv:17`; behind a blank without the colon: `page 3, item 12`.
    fn place_of(&self, line: u64) -> String {
        format!("{}{}{line}", self.place, if self.place.ends_with(' ') { "" } else { ":" })
    }

    fn flush_when_full(&mut self) -> Result<(), ReadError> {
        let rows = self.batch.rows.len().max(self.batch.bad.len());
        if rows < ROWS_OF_BATCH_MAX && self.bytes < BATCH_BYTES_MAX { Ok(()) } else { self.flush() }
    }

    /// Sends what waits. Blocks a thread of its own.
    pub fn flush(&mut self) -> Result<(), ReadError> {
        self.bytes = 0;
        if self.sender.send_blocking(std::mem::take(&mut self.batch)) { Ok(()) } else { Err(stopped()) }
    }
}

impl Visitor for Outlet<'_> {
    fn enter(&mut self, place: &str) {
        place.clone_into(&mut self.place);
    }

    fn column(&mut self, name: &str) -> Result<Option<usize>, ReadError> {
        Ok(self.table.columns.iter().position(|column| column.name.to_lowercase() == name.to_lowercase()))
    }

    fn row(&mut self, line: u64, cells: Vec<(usize, Cell<'_>)>) -> Result<(), ReadError> {
        let mut row = vec![Value::Null; self.table.columns.len()];
        let mut wrong = None;
        for (at, cell) in &cells {
            match infer::value(cell, &self.table.columns[*at], self.formats) {
                Ok(value) => row[*at] = value,
                Err(reason) => {
                    wrong = Some(reason);
                    break;
                }
            }
        }
        match wrong {
            None => self.put(row),
            Some(reason) => {
                let text = shown(&cells);
                self.put_bad(self.place_of(line), text, reason)
            }
        }
    }

    fn bad(&mut self, line: u64, text: &[u8], reason: &str) -> Result<(), ReadError> {
        let text = String::from_utf8_lossy(&text[..text.len().min(BAD_TEXT_MAX)]).into_owned();
        self.put_bad(self.place_of(line), text, reason.to_owned())
    }
}

/// A row of cells as people read it.
fn shown(cells: &[(usize, Cell<'_>)]) -> String {
    let text = cells.iter().map(|(_, cell)| match cell {
        Cell::Null => String::new(),
        Cell::Text(text) | Cell::Number(text) | Cell::Json(text) => text.chars().take(BAD_TEXT_MAX).collect(),
        Cell::Bool(value) => value.to_string(),
        Cell::DateTime(value) => base::value::format_datetime(*value, 0),
        Cell::Time(value) => base::value::format_time(*value, 0),
    });
    text.collect::<Vec<_>>().join(",")
}

/// At most [`BAD_TEXT_MAX`] bytes.
fn cut(mut text: String) -> String {
    if text.len() > BAD_TEXT_MAX {
        let end = (0..=BAD_TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Bytes that a value holds, about.
fn weight(value: &Value) -> usize {
    24 + match value {
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.len(),
        Value::RawText(bytes) | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
            bytes.len()
        }
        _ => 0,
    }
}
