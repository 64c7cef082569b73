//! What stands in a place of a row before its column's type is known, and who is told of rows.

use crate::reader::ReadError;
use base::DateTime;
use std::borrow::Cow;

/// Columns of a table: MySQL's own bound.
pub const COLUMNS_MAX: usize = 4096;

/// A value as the source writes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    /// Text, whatever it may mean.
    Text(Cow<'a, str>),
    /// A number in digits.
    Number(Cow<'a, str>),
    Bool(bool),
    DateTime(DateTime),
    /// Microseconds.
    Time(i64),
    /// An object or an array.
    Json(Cow<'a, str>),
}

/// Who is told what a file holds. Errors end the reading.
pub trait Visitor {
    /// What the following rows stand in: a file's name, a sheet.
    fn enter(&mut self, place: &str);

    /// The number of a column by its name; `None`: nobody wants it.
    fn column(&mut self, name: &str) -> Result<Option<usize>, ReadError>;

    /// A row: number of the column and value of each; what is not named is NULL.
    fn row(&mut self, line: u64, cells: Vec<(usize, Cell<'_>)>) -> Result<(), ReadError>;

    /// What is no row.
    fn bad(&mut self, line: u64, text: &[u8], reason: &str) -> Result<(), ReadError>;
}

/// Nobody reads any more.
pub fn stopped() -> ReadError {
    ReadError::Internal(STOPPED.to_owned())
}

/// What [`stopped`] says.
pub const STOPPED: &str = "nobody reads any more";

/// Names of columns as a table can have them: none is empty, and none comes twice.
pub fn names_of(raw: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(raw.len());
    let mut taken = std::collections::HashSet::new();
    for (index, name) in raw.iter().enumerate() {
        let plain = name.split_whitespace().collect::<Vec<_>>().join(" ");
        // 64 characters is what MySQL allows of a name.
        let plain: String = plain.chars().take(64).collect();
        let base = if plain.is_empty() { format!("c{}", index + 1) } else { plain };
        let mut name = base.clone();
        for number in 2.. {
            if taken.insert(name.to_lowercase()) {
                break;
            }
            let end = format!("_{number}");
            name = base.chars().take(64 - end.len()).chain(end.chars()).collect();
        }
        names.push(name);
    }
    names
}
