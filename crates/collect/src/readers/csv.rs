//! CSV and TSV: records as RFC 4180 has them, read line by line so that what is broken breaks nothing behind it.
//!
//! A record goes on in the next line while a quoted field is open. One that is still open after [`RECORD_LINES_MAX`] lines or
//! [`RECORD_BYTES_MAX`] bytes had a stray quote: its first line alone is bad, and reading goes on with the second.

use super::cell::{COLUMNS_MAX, Cell, Visitor, names_of};
use super::config::FileTable;
use super::lines::{Line, Lines};
use crate::reader::ReadError;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead};

/// Lines of a record.
const RECORD_LINES_MAX: usize = 200;
/// Bytes of a record of several lines.
const RECORD_BYTES_MAX: usize = 4 << 20;
/// Delimiters that a header may show, the likeliest first.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// Tells the visitor all rows of a file. `delimiter` stands before what the header shows.
pub fn read(
    input: impl BufRead,
    file: &str,
    encoding: super::encoding::Encoding,
    delimiter: Option<char>,
    options: &FileTable,
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    let broken = |error: io::Error| ReadError::Unavailable(format!("failed to read {file}: {error}"));
    let mut records = Records::new(Lines::new(input, encoding), delimiter);
    visitor.enter(file);
    for _ in 0..options.skip_rows {
        records.skip_line().map_err(broken)?;
    }
    let mut header: Vec<Vec<String>> = Vec::new();
    let mut columns: Option<Vec<Option<usize>>> = None;
    while let Some((line, record)) = records.next_record().map_err(broken)? {
        let fields = match record {
            Record::Fields(fields) => fields,
            Record::Bad { text, reason } => {
                if columns.is_none() && header.len() < options.header_rows as usize {
                    return Err(ReadError::bad(
                        format!("{file}:{line}: the header cannot be read: {reason}"),
                        "set `encoding`, or `skip_rows` where lines stand before the header",
                    ));
                }
                visitor.bad(line, &text, &reason)?;
                continue;
            }
        };
        if header.len() < options.header_rows as usize {
            header.push(fields);
            continue;
        }
        let columns = match &mut columns {
            Some(columns) => columns,
            None => columns.insert(numbers(file, &joined(&header, fields.len()), visitor)?),
        };
        if fields.len() != columns.len() {
            let reason = format!("{} fields in place of {}", fields.len(), columns.len());
            visitor.bad(line, records.text().trim_end().as_bytes(), &reason)?;
            continue;
        }
        let cells = fields.into_iter().zip(columns.iter());
        let cells = cells
            .filter_map(|(text, column)| {
                let cell =
                    if options.nulls.contains(&text) { Cell::Null } else { Cell::Text(Cow::Owned(text)) };
                column.map(|column| (column, cell))
            })
            .collect();
        visitor.row(line, cells)?;
    }
    if columns.is_none() && !header.is_empty() {
        // A header alone is a table without rows.
        numbers(file, &joined(&header, 0), visitor)?;
    }
    Ok(())
}

/// One name of several rows: `2026_January`; without any, `c1`, `c2`, ….
pub fn joined(header: &[Vec<String>], width: usize) -> Vec<String> {
    let width = header.iter().map(Vec::len).max().unwrap_or(width);
    let name = |column: usize| {
        let mut parts: Vec<&str> = Vec::new();
        for row in header {
            let part = row.get(column).map_or("", |part| part.trim());
            if !part.is_empty() && parts.last() != Some(&part) {
                parts.push(part);
            }
        }
        parts.join("_")
    };
    names_of(&(0..width).map(name).collect::<Vec<_>>())
}

/// The visitor's columns for these names.
pub fn numbers(
    file: &str,
    names: &[String],
    visitor: &mut dyn Visitor,
) -> Result<Vec<Option<usize>>, ReadError> {
    if names.len() > COLUMNS_MAX {
        return Err(ReadError::bad(
            format!("{file} has {} columns", names.len()),
            format!("a table has at most {COLUMNS_MAX}; is `delimiter` right?"),
        ));
    }
    names.iter().map(|name| visitor.column(name)).collect()
}

#[derive(Debug, PartialEq)]
enum Record {
    Fields(Vec<String>),
    Bad { text: Vec<u8>, reason: String },
}

struct Records<R> {
    lines: Lines<R>,
    delimiter: Option<char>,
    /// Lines that were read as a part of a record that was none, with their numbers.
    again: VecDeque<(u64, Line)>,
    text: String,
}

impl<R: BufRead> Records<R> {
    fn new(lines: Lines<R>, delimiter: Option<char>) -> Self {
        Self { lines, delimiter, again: VecDeque::new(), text: String::new() }
    }

    /// The text of the record that was taken last.
    fn text(&self) -> &str {
        &self.text
    }

    fn skip_line(&mut self) -> io::Result<()> {
        self.line().map(|_| ())
    }

    fn line(&mut self) -> io::Result<Option<(u64, Line)>> {
        if let Some(line) = self.again.pop_front() {
            return Ok(Some(line));
        }
        let line = self.lines.next_line()?;
        Ok(line.map(|line| (self.lines.number(), line)))
    }

    /// The next record and the number of its first line; empty lines are none.
    fn next_record(&mut self) -> io::Result<Option<(u64, Record)>> {
        loop {
            let Some((number, line)) = self.line()? else { return Ok(None) };
            match line {
                Line::Text(text) if text.trim().is_empty() => {}
                Line::Text(text) => return self.record(number, text).map(|record| Some((number, record))),
                Line::Broken { bytes, reason } => {
                    return Ok(Some((number, Record::Bad { text: bytes, reason })));
                }
            }
        }
    }

    fn record(&mut self, number: u64, first: String) -> io::Result<Record> {
        let delimiter = *self.delimiter.get_or_insert_with(|| delimiter_of(&first));
        let mut parse = Parse::new(delimiter);
        self.text = first;
        let mut taken: Vec<(u64, Line)> = Vec::new();
        parse.line(&self.text);
        while parse.is_open() {
            let next = if taken.len() + 1 < RECORD_LINES_MAX && self.text.len() < RECORD_BYTES_MAX {
                self.line()?
            } else {
                None
            };
            match next {
                Some((at, Line::Text(text))) => {
                    parse.feed();
                    parse.line(&text);
                    self.text.push('\n');
                    self.text.push_str(&text);
                    taken.push((at, Line::Text(text)));
                }
                other => {
                    taken.extend(other);
                    // In front of what waits already, in its order.
                    for line in taken.into_iter().rev() {
                        self.again.push_front(line);
                    }
                    let first = self.text.lines().next().unwrap_or_default().as_bytes().to_vec();
                    let reason = format!("a quote that opens in line {number} is not closed");
                    return Ok(Record::Bad { text: first, reason });
                }
            }
        }
        Ok(match parse.end() {
            Ok(fields) => Record::Fields(fields),
            Err(reason) => Record::Bad { text: self.text.clone().into_bytes(), reason },
        })
    }
}

/// What stands most often in a header, outside of quotes.
fn delimiter_of(header: &str) -> char {
    let mut quoted = false;
    let mut counts = [0_usize; DELIMITERS.len()];
    for c in header.chars() {
        quoted ^= c == '"';
        if let Some(known) = DELIMITERS.iter().position(|it| *it == c && !quoted) {
            counts[known] += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.iter().position(|count| *count == most).map_or(',', |at| DELIMITERS[at])
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// At the beginning of a field.
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: its end, or half of a quote.
    Behind,
}

/// The fields of a record, a line after the other.
struct Parse {
    delimiter: char,
    state: State,
    field: String,
    fields: Vec<String>,
    wrong: Option<&'static str>,
}

impl Parse {
    fn new(delimiter: char) -> Self {
        Self { delimiter, state: State::Start, field: String::new(), fields: Vec::new(), wrong: None }
    }

    fn line(&mut self, text: &str) {
        let end = text.len().saturating_sub(1);
        for (at, c) in text.char_indices() {
            if at == end && c == '\r' && self.state != State::Quoted {
                break;
            }
            self.state = match (self.state, c) {
                (State::Start, '"') => State::Quoted,
                (State::Quoted, '"') => State::Behind,
                (State::Behind, '"') => {
                    self.field.push('"');
                    State::Quoted
                }
                (State::Start | State::Plain | State::Behind, c) if c == self.delimiter => {
                    self.fields.push(std::mem::take(&mut self.field));
                    State::Start
                }
                // Blanks between the quote and the delimiter are often there, and mean nothing.
                (State::Behind, ' ') => State::Behind,
                (State::Behind, _) => {
                    self.wrong = Some("text stands behind a closing quote");
                    State::Plain
                }
                (State::Start | State::Plain, c) => {
                    self.field.push(c);
                    State::Plain
                }
                (State::Quoted, c) => {
                    self.field.push(c);
                    State::Quoted
                }
            };
        }
    }

    /// A line feed inside of quotes.
    fn feed(&mut self) {
        self.field.push('\n');
    }

    /// Whether the record goes on in the next line.
    fn is_open(&self) -> bool {
        self.state == State::Quoted && self.wrong.is_none()
    }

    fn end(mut self) -> Result<Vec<String>, String> {
        self.fields.push(self.field);
        self.wrong.map_or(Ok(self.fields), |wrong| Err(wrong.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::Encoding;
    use super::*;
    use proptest::prelude::*;

    /// All that a file has, as text; NULL is `None`.
    #[derive(Default)]
    struct Told {
        names: Vec<String>,
        rows: Vec<Vec<Option<String>>>,
        bad: Vec<(u64, String)>,
    }

    impl Visitor for Told {
        fn enter(&mut self, _: &str) {}

        fn column(&mut self, name: &str) -> Result<Option<usize>, ReadError> {
            self.names.push(name.to_owned());
            Ok(Some(self.names.len() - 1))
        }

        fn row(&mut self, _: u64, cells: Vec<(usize, Cell<'_>)>) -> Result<(), ReadError> {
            self.rows.push(
                cells
                    .into_iter()
                    .map(|(_, cell)| match cell {
                        Cell::Text(text) => Some(text.into_owned()),
                        _ => None,
                    })
                    .collect(),
            );
            Ok(())
        }

        fn bad(&mut self, line: u64, _: &[u8], reason: &str) -> Result<(), ReadError> {
            self.bad.push((line, reason.to_owned()));
            Ok(())
        }
    }

    fn told(bytes: &[u8], encoding: &str, options: &FileTable) -> Told {
        let mut told = Told::default();
        let encoding = Encoding::named(encoding).unwrap();
        read(bytes, "f.csv", encoding, options.delimiter, options, &mut told).unwrap();
        told
    }

    fn plain() -> FileTable {
        FileTable { nulls: Vec::new(), ..FileTable::unnamed() }
    }

    fn texts(rows: &[&[&str]]) -> Vec<Vec<Option<String>>> {
        rows.iter().map(|row| row.iter().map(|text| Some((*text).to_owned())).collect()).collect()
    }

    #[test]
    fn a_broken_line_is_told_and_the_rest_is_read() {
        let text = "id;name\r\n1;\"a \"\"quoted\"\" name\nover two lines\"\r\n2;b;more\r\n\r\n3;\"x\"y\r\n4;\"never closed\r\n5;e";
        let told = told(text.as_bytes(), "utf-8", &plain());
        assert_eq!(told.names, ["id", "name"]);
        assert_eq!(told.rows, texts(&[&["1", "a \"quoted\" name\nover two lines"], &["5", "e"]]));
        let lines: Vec<u64> = told.bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 6, 7], "{:?}", told.bad);
    }

    #[test]
    fn bytes_that_are_no_text_break_their_line_alone() {
        let mut bytes = b"id,name\n1,".to_vec();
        bytes.extend([0xFF, 0xFE]);
        bytes.extend("\n2,张三\n".as_bytes());
        let told = told(&bytes, "utf-8", &plain());
        assert_eq!((told.rows, told.bad.len(), told.bad[0].0), (texts(&[&["2", "张三"]]), 1, 2));
    }

    #[test]
    fn utf_16_lines_end_at_their_own_line_feeds() {
        // The low byte of the first is a line feed, as is the high byte of the second.
        let text = "\u{feff}id,name\r\n1,上ਅ\r\n2,\"乊\n上\"\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let wanted = texts(&[&["1", "上ਅ"], &["2", "乊\n上"]]);
        let (little, big) = (told(&little, "utf-16le", &plain()), told(&big, "utf-16be", &plain()));
        assert_eq!((&little.names[..], &little.rows), (&["id".to_owned(), "name".to_owned()][..], &wanted));
        assert_eq!((little.names, little.rows), (big.names, big.rows));
    }

    #[test]
    fn headers_of_several_rows_none_and_behind_other_lines_are_joined_made_and_found() {
        let options = FileTable { header_rows: 2, skip_rows: 1, ..plain() };
        assert_eq!(
            told("report\na,a,\nx,y,z\n1,2,3\n".as_bytes(), "utf-8", &options).names,
            ["a_x", "a_y", "z"]
        );
        let options = FileTable { header_rows: 0, ..plain() };
        assert_eq!(told(b"1,2\n", "utf-8", &options).names, ["c1", "c2"]);
        assert_eq!(told(b"id,ID,\n", "utf-8", &plain()).names, ["id", "ID_2", "c3"]);
    }

    fn fields() -> impl Strategy<Value = Vec<Vec<String>>> {
        let field = "[a-z张李上€\"',;|\t \r\n0-9]{0,12}";
        let rows = (2_usize..5)
            .prop_flat_map(move |width| prop::collection::vec(prop::collection::vec(field, width), 1..20));
        // A row of blanks alone is an empty line for us.
        rows.prop_map(|mut rows| {
            rows.iter_mut().for_each(|row| row[0].insert(0, 'x'));
            rows
        })
    }

    proptest! {
        #[test]
        fn what_another_implementation_writes_reads_back(rows in fields(), delimiter in prop::sample::select(vec![b',', b';', b'\t', b'|']), crlf: bool) {
            let mut writer = csv::WriterBuilder::new()
                .delimiter(delimiter)
                .terminator(if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') })
                .from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            let bytes = writer.into_inner().unwrap();
            let options = FileTable { header_rows: 0, delimiter: Some(char::from(delimiter)), ..plain() };
            let told = told(&bytes, "utf-8", &options);
            let wanted: Vec<Vec<Option<String>>> =
                rows.iter().map(|row| row.iter().cloned().map(Some).collect()).collect();
            prop_assert_eq!(&told.bad, &[]);
            prop_assert_eq!(told.rows, wanted);
        }

        #[test]
        fn no_bytes_panic_and_each_line_is_told_once_at_most(bytes in prop::collection::vec(prop::sample::select(vec![b'a', b',', b'"', b'\n', b'\r', 0, 0xC3, 0xA4, 0xFF, b' ']), 0..400), encoding in prop::sample::select(vec!["utf-8", "gbk", "big5", "utf-16le", "utf-16be"])) {
            let told = told(&bytes, encoding, &FileTable { header_rows: 0, delimiter: Some(','), ..plain() });
            let lines: Vec<u64> = told.bad.iter().map(|(line, _)| *line).collect();
            prop_assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "{lines:?}");
        }

        #[test]
        fn encodings_that_are_told_read_back(names in prop::collection::vec("[张李王赵钱孙周吴郑的一是在不了有和人这中大为上个国我以要他时来用们]{2,6}", 3..40)) {
            let text = format!("id,name\n{}", names.iter().map(|name| format!("1,{name}\n")).collect::<String>());
            let bytes = encoding_rs::GB18030.encode(&text).0;
            prop_assert_eq!(
                super::super::encoding::detect(&bytes[..]).unwrap(),
                super::super::encoding::Verdict::Is(Encoding::named("gbk").unwrap())
            );
        }
    }
}
