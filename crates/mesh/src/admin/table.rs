//! Answers of the admin port as packets: a table, an OK with some words, or an error.

use mysql::protocol::{Capabilities, Status, packet, put_bytes, put_integer};

/// The column is text in UTF-8, or a number.
const VAR_STRING: u8 = 0xfd;
const LONGLONG: u8 = 8;
const UTF8: u16 = 45;
const BINARY: u16 = 63;
/// What clients make room for where they draw a table.
const COLUMN_BYTES: u32 = 1024;

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Number(u64),
    Text(String),
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Rows under their heads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub heads: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self { heads: heads.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    pub fn add<const N: usize>(&mut self, row: [Cell; N]) {
        debug_assert_eq!(N, self.heads.len(), "a row has as many cells as there are heads");
        self.rows.push(row.to_vec());
    }
}

/// What a statement is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Table(Table),
    /// How much it changed, and what a person reads of it.
    Done {
        changed: u64,
        words: String,
    },
}

impl Answer {
    /// Nothing was changed and nothing is to be told.
    pub fn nothing() -> Self {
        Self::Done { changed: 0, words: String::new() }
    }

    /// The packets behind a command.
    pub fn packets(&self, capabilities: Capabilities) -> Vec<u8> {
        match self {
            Self::Done { changed, words } => packet(1, &ok(0, *changed, words)),
            Self::Table(table) => table.packets(capabilities),
        }
    }
}

fn ok(head: u8, changed: u64, words: &str) -> Vec<u8> {
    let mut payload = vec![head];
    put_integer(&mut payload, changed);
    put_integer(&mut payload, 0);
    payload.extend_from_slice(&Status::AUTOCOMMIT.0.to_le_bytes());
    payload.extend_from_slice(&[0, 0]);
    // Some clients read the words with their length, others to the end: words with neither are the same to both.
    if !words.is_empty() {
        put_bytes(&mut payload, words.as_bytes());
    }
    payload
}

impl Table {
    fn packets(&self, capabilities: Capabilities) -> Vec<u8> {
        let short = capabilities.has(Capabilities::DEPRECATE_EOF);
        let eof = [&[0xfe, 0, 0][..], &Status::AUTOCOMMIT.0.to_le_bytes()].concat();
        let (mut out, mut sequence) = (Vec::new(), 1u8);
        let mut say = |payload: &[u8]| {
            out.extend_from_slice(&packet(sequence, payload));
            sequence = sequence.wrapping_add(1);
        };
        let mut count = Vec::new();
        put_integer(&mut count, self.heads.len() as u64);
        say(&count);
        for (index, head) in self.heads.iter().enumerate() {
            let values = self.rows.iter().map(|row| &row[index]).filter(|cell| **cell != Cell::Null);
            let mut values = values.peekable();
            let numbers = values.peek().is_some() && values.all(|cell| matches!(cell, Cell::Number(_)));
            say(&definition(head, numbers));
        }
        if !short {
            say(&eof);
        }
        for row in &self.rows {
            let mut payload = Vec::new();
            for cell in row {
                match cell {
                    Cell::Null => payload.push(0xfb),
                    Cell::Number(number) => put_bytes(&mut payload, number.to_string().as_bytes()),
                    Cell::Text(text) => put_bytes(&mut payload, text.as_bytes()),
                }
            }
            say(&payload);
        }
        match short {
            true => say(&ok(0xfe, 0, "")),
            false => say(&eof),
        }
        out
    }
}

fn definition(head: &str, number: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for text in ["def", "", "", "", head, head] {
        put_bytes(&mut out, text.as_bytes());
    }
    out.push(0x0c);
    out.extend_from_slice(&(if number { BINARY } else { UTF8 }).to_le_bytes());
    out.extend_from_slice(&COLUMN_BYTES.to_le_bytes());
    out.push(if number { LONGLONG } else { VAR_STRING });
    out.extend_from_slice(&[0; 5]);
    out
}
