//! Sheets of workbooks: .xlsx and .xlsm cell by cell, .xls whole; always the values that formulas had when the file was saved.
//!
//! Files come from anywhere. What a small one could claim, so that the library takes more memory than there is, is looked for
//! before it reads ([`zipped`], [`ole`]); .xlsb and .ods, where that cannot be told without reading them, are refused.
//!
//! A number of a sheet is a double that Excel shows with 15 digits, and is read as these.

use super::cell::{Cell, Visitor};
use super::config::FileTable;
use super::csv::{joined, numbers};
use super::{ole, zipped};
use crate::reader::ReadError;
use base::{Date, DateTime};
use calamine::{
    CellErrorType, Data, DataRef, Dimensions, ExcelDateTime, Reader as _, SheetType, SheetVisible, Xls,
    XlsError, Xlsx, XlsxError,
};
use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cells of a sheet.
const CELLS_MAX: u64 = 50_000_000;
/// Rows and columns of a sheet: Excel's own bounds.
const ROWS_MAX: u32 = 1 << 20;
const COLUMNS_MAX: u32 = 1 << 14;
/// Bytes of a row's texts.
const ROW_TEXT_MAX: usize = 64 << 20;
/// Of a text in the header, which a merged cell repeats.
const HEADER_TEXT_MAX: usize = 4096;
/// Days are counted from 1: what is before is a time of day alone.
const FIRST_DAY: f64 = 1.0;

pub enum Workbook {
    Xlsx(Box<Xlsx<Cursor<Vec<u8>>>>),
    Xls(Box<Xls<Cursor<Vec<u8>>>>),
}

/// Opens a workbook by what it is, not by its ending.
pub fn open(file: &str, bytes: Vec<u8>) -> Result<Workbook, ReadError> {
    guarded(file, || open_unguarded(file, bytes))
}

fn open_unguarded(file: &str, bytes: Vec<u8>) -> Result<Workbook, ReadError> {
    let damaged = |why: &dyn std::fmt::Display| damaged(file, why);
    if bytes.starts_with(b"\xD0\xCF\x11\xE0") {
        let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        if bytes.windows(name.len()).any(|window| window == name) {
            return Err(protected(file));
        }
        let checked = ole::checked(&bytes).map_err(|why| damaged(&why))?;
        return match Xls::new(Cursor::new(checked)) {
            Ok(book) => Ok(Workbook::Xls(Box::new(book))),
            Err(XlsError::Password) => Err(protected(file)),
            Err(error) => Err(damaged(&error)),
        };
    }
    if !bytes.starts_with(b"PK") {
        return Err(damaged(&"it does not begin as a workbook does"));
    }
    let parts = zipped::parts(&bytes).map_err(|why| damaged(&why))?;
    for (part, ending) in [("xl/workbook.bin", ".xlsb"), ("content.xml", ".ods")] {
        if parts.iter().any(|it| it == part) {
            return Err(ReadError::bad(
                format!("{file} is a workbook of the kind {ending}, which is not read"),
                "save it as .xlsx",
            ));
        }
    }
    match Xlsx::new(Cursor::new(bytes)) {
        Ok(book) => Ok(Workbook::Xlsx(Box::new(book))),
        Err(XlsxError::Password) => Err(protected(file)),
        Err(error) => Err(damaged(&error)),
    }
}

/// A panic of the library is an error of the file.
fn guarded<T>(file: &str, work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(file, &"what it holds makes no sense")))
}

fn damaged(file: &str, why: &dyn std::fmt::Display) -> ReadError {
    ReadError::bad(
        format!("{file} cannot be read as a workbook: {why}"),
        "open it in Excel and save it anew; a file that is still being copied is whole later",
    )
}

fn protected(file: &str) -> ReadError {
    ReadError::Denied {
        message: format!("{file} is protected by a password"),
        hint: "save it without a password: workbooks with one are not supported".to_owned(),
    }
}

impl Workbook {
    /// The sheets with cells that people see, in the order of the workbook.
    pub fn sheets(&self) -> Vec<String> {
        let sheets = match self {
            Self::Xlsx(book) => book.sheets_metadata(),
            Self::Xls(book) => book.sheets_metadata(),
        };
        let shown =
            sheets.iter().filter(|it| it.typ == SheetType::WorkSheet && it.visible == SheetVisible::Visible);
        shown.map(|sheet| sheet.name.clone()).collect()
    }

    /// Tells the visitor all rows of a sheet.
    pub fn read(
        &mut self,
        file: &str,
        sheet: &str,
        options: &FileTable,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ReadError> {
        visitor.enter(&format!("{file}:{sheet}"));
        guarded(file, || self.read_unguarded(file, sheet, options, visitor))
    }

    fn read_unguarded(
        &mut self,
        file: &str,
        sheet: &str,
        options: &FileTable,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ReadError> {
        let merged = match self {
            Self::Xlsx(book) => book.merge_cells_by_sheet_name(sheet).ok(),
            Self::Xls(book) => book.merge_cells_by_sheet_name(sheet).ok(),
        };
        let mut rows = Rows {
            file,
            options,
            visitor,
            merged: merged.unwrap_or_default(),
            header: Vec::new(),
            columns: None,
        };
        let mut row: Option<(u32, Vec<(u32, DataRef<'_>)>)> = None;
        let (mut cells, mut text) = (0_u64, 0_usize);
        let mut take = |at: (u32, u32), value: DataRef<'_>| -> Result<(), ReadError> {
            cells += 1;
            if cells > CELLS_MAX {
                return Err(ReadError::bad(
                    format!("sheet {sheet} of {file} has more than {CELLS_MAX} cells"),
                    "save it as CSV, or in parts",
                ));
            }
            if at.0 >= ROWS_MAX || at.1 >= COLUMNS_MAX {
                return Err(damaged(
                    file,
                    &format!("a cell of {sheet} is behind the last that a sheet can have"),
                ));
            }
            let same = row.as_ref().is_some_and(|(number, _)| *number == at.0);
            text = bytes_of(&value) + if same { text } else { 0 };
            if text > ROW_TEXT_MAX {
                return Err(damaged(file, &format!("row {} of {sheet} has more text than fits", at.0 + 1)));
            }
            let value = owned(value);
            match &mut row {
                Some((number, known)) if *number == at.0 => {
                    if known.len() >= COLUMNS_MAX as usize {
                        return Err(damaged(file, &format!("row {} of {sheet} has cells twice", at.0 + 1)));
                    }
                    known.push((at.1, value));
                }
                _ => {
                    if let Some((number, known)) = row.replace((at.0, vec![(at.1, value)])) {
                        rows.row(number, known)?;
                    }
                }
            }
            Ok(())
        };
        match self {
            Self::Xlsx(book) => {
                let mut reader = book.worksheet_cells_reader(sheet).map_err(|error| damaged(file, &error))?;
                while let Some(cell) = reader.next_cell().map_err(|error| damaged(file, &error))? {
                    take(cell.get_position(), cell.get_value().clone())?;
                }
            }
            Self::Xls(book) => {
                whole(book.worksheet_range(sheet).map_err(|error| damaged(file, &error))?, &mut take)?
            }
        }
        if let Some((number, known)) = row.take() {
            rows.row(number, known)?;
        }
        rows.end()
    }
}

/// Who takes the cells of a sheet: row and column, from 0, and the value.
type Take<'a> = dyn FnMut((u32, u32), DataRef<'_>) -> Result<(), ReadError> + 'a;

/// The cells of a sheet that is in memory.
fn whole(range: calamine::Range<Data>, take: &mut Take<'_>) -> Result<(), ReadError> {
    let (first_row, first_column) = range.start().unwrap_or_default();
    for (row, column, value) in range.used_cells() {
        let value = match value {
            Data::String(text) => DataRef::SharedString(text),
            Data::Int(it) => DataRef::Int(*it),
            Data::Float(it) => DataRef::Float(*it),
            Data::Bool(it) => DataRef::Bool(*it),
            Data::DateTime(it) => DataRef::DateTime(*it),
            Data::DateTimeIso(it) => DataRef::DateTimeIso(it.clone()),
            Data::DurationIso(it) => DataRef::DurationIso(it.clone()),
            Data::Error(it) => DataRef::Error(it.clone()),
            Data::Empty => DataRef::Empty,
        };
        take((first_row + row as u32, first_column + column as u32), value)?;
    }
    Ok(())
}

/// Bytes of a text; of what is none, nothing that counts.
fn bytes_of(value: &DataRef<'_>) -> usize {
    match value {
        DataRef::SharedString(text) => text.len(),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.len(),
        _ => 0,
    }
}

fn owned<'a>(value: DataRef<'_>) -> DataRef<'a> {
    match value {
        DataRef::SharedString(text) => DataRef::String(text.to_owned()),
        DataRef::String(text) => DataRef::String(text),
        DataRef::Int(it) => DataRef::Int(it),
        DataRef::Float(it) => DataRef::Float(it),
        DataRef::Bool(it) => DataRef::Bool(it),
        DataRef::DateTime(it) => DataRef::DateTime(it),
        DataRef::DateTimeIso(it) => DataRef::DateTimeIso(it),
        DataRef::DurationIso(it) => DataRef::DurationIso(it),
        DataRef::Error(it) => DataRef::Error(it),
        DataRef::Empty => DataRef::Empty,
    }
}

/// The rows of a sheet, from its header on.
struct Rows<'a> {
    file: &'a str,
    options: &'a FileTable,
    visitor: &'a mut dyn Visitor,
    merged: Vec<Dimensions>,
    header: Vec<Vec<String>>,
    columns: Option<Vec<Option<usize>>>,
}

impl Rows<'_> {
    fn row(&mut self, number: u32, cells: Vec<(u32, DataRef<'_>)>) -> Result<(), ReadError> {
        if number < self.options.skip_rows || cells.iter().all(|(_, value)| is_empty(value)) {
            return Ok(());
        }
        if self.header.len() < self.options.header_rows as usize {
            let header = self.header_row(number, &cells)?;
            self.header.push(header);
            return Ok(());
        }
        let line = u64::from(number) + 1;
        let width = cells.iter().map(|(at, _)| *at as usize + 1).max().unwrap_or(0);
        let columns = match &mut self.columns {
            Some(columns) => columns,
            None => self.columns.insert(numbers(self.file, &joined(&self.header, width), self.visitor)?),
        };
        let mut row = Vec::with_capacity(cells.len());
        for (at, value) in &cells {
            let Some(column) = columns.get(*at as usize) else {
                if is_empty(value) {
                    continue;
                }
                let reason = format!("{} stands behind the header's last column", name_of(*at, number));
                return self.visitor.bad(line, shown(&cells).as_bytes(), &reason);
            };
            let Some(column) = column else { continue };
            match cell_of(value, &self.options.nulls) {
                Ok(cell) => row.push((*column, cell)),
                Err(error) => {
                    let reason = format!("{} is {error}", name_of(*at, number));
                    return self.visitor.bad(line, shown(&cells).as_bytes(), &reason);
                }
            }
        }
        self.visitor.row(line, row)
    }

    /// The texts of a header's row; a merged cell counts for all columns that it spans.
    fn header_row(&self, number: u32, cells: &[(u32, DataRef<'_>)]) -> Result<Vec<String>, ReadError> {
        let mut names: Vec<String> = Vec::new();
        let mut put = |at: u32, text: &str| {
            let at = at as usize;
            if names.len() <= at {
                names.resize(at + 1, String::new());
            }
            text.clone_into(&mut names[at]);
        };
        for (at, value) in cells {
            let text = text_of(value);
            if text.len() > HEADER_TEXT_MAX {
                return Err(ReadError::bad(
                    format!("{} of {} is no column's name: it is too long", name_of(*at, number), self.file),
                    "`skip_rows` and `header_rows` say where the header is",
                ));
            }
            put(*at, &text);
            let spans = self.merged.iter().filter(|it| it.start == (number, *at));
            for span in spans {
                (span.start.1..=span.end.1.min(span.start.1 + 4096)).for_each(|at| put(at, &text));
            }
        }
        Ok(names)
    }

    fn end(&mut self) -> Result<(), ReadError> {
        if self.columns.is_none() && !self.header.is_empty() {
            numbers(self.file, &joined(&self.header, 0), self.visitor)?;
        }
        Ok(())
    }
}

fn is_empty(value: &DataRef<'_>) -> bool {
    match value {
        DataRef::Empty => true,
        DataRef::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// `C7`, as Excel calls it.
fn name_of(column: u32, row: u32) -> String {
    let mut name = String::new();
    let mut rest = column + 1;
    while rest > 0 {
        name.insert(0, char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    format!("{name}{}", row + 1)
}

/// What a cell holds; `Err` is the error that its formula gave.
fn cell_of<'a>(value: &'a DataRef<'_>, null: &[String]) -> Result<Cell<'a>, CellErrorType> {
    let is_null = |text: &str| null.iter().any(|it| it == text);
    Ok(match value {
        DataRef::Empty => Cell::Null,
        DataRef::Int(it) => Cell::Number(Cow::Owned(it.to_string())),
        DataRef::Float(it) => Cell::Number(Cow::Owned(digits(*it))),
        DataRef::Bool(it) => Cell::Bool(*it),
        DataRef::DateTime(it) => moment(it),
        DataRef::Error(error) if is_null(&error.to_string()) => Cell::Null,
        DataRef::Error(error) => return Err(error.clone()),
        DataRef::String(_) | DataRef::SharedString(_) | DataRef::DateTimeIso(_) | DataRef::DurationIso(_) => {
            let text = match value {
                DataRef::SharedString(text) => text,
                DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => {
                    text.as_str()
                }
                _ => "",
            };
            if is_null(text) { Cell::Null } else { Cell::Text(Cow::Borrowed(text)) }
        }
    })
}

/// A double with the 15 digits that Excel shows of it.
fn digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.14e}").parse().unwrap_or(value);
    let size = rounded.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if (1e-9..1e15).contains(&size) {
        rounded.to_string()
    } else {
        format!("{rounded:e}")
    }
}

/// A date, a time of day, a span of hours, or a date with a time.
fn moment<'a>(value: &ExcelDateTime) -> Cell<'a> {
    let days = value.as_f64();
    if value.is_duration() || (0.0..FIRST_DAY).contains(&days) {
        return Cell::Time((days * 86_400_000.0).round() as i64 * 1000);
    }
    let (year, month, day, hour, minute, second, milli) = value.to_ymd_hms_milli();
    Cell::DateTime(DateTime {
        date: Date { year, month, day },
        hour,
        minute,
        second,
        micro: u32::from(milli) * 1000,
    })
}

fn text_of(value: &DataRef<'_>) -> String {
    match cell_of(value, &[]) {
        Ok(Cell::Text(text) | Cell::Number(text) | Cell::Json(text)) => text.trim().to_owned(),
        Ok(Cell::Bool(it)) => it.to_string(),
        Ok(Cell::DateTime(it)) => it.date.to_string(),
        Ok(Cell::Time(it)) => base::value::format_time(it, 0),
        Ok(Cell::Null) => String::new(),
        Err(error) => error.to_string(),
    }
}

fn shown(cells: &[(u32, DataRef<'_>)]) -> String {
    cells.iter().map(|(_, value)| text_of(value)).collect::<Vec<_>>().join(",")
}
