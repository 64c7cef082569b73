//! Workbooks of before 2007 (.xls), looked through before the library reads them.
//!
//! The library follows chains of sectors for as long as they go on, lays a sheet out as a rectangle from its first cell to its last
//! (two cells in the corners make sixteen million), and copies a text into each cell that names it. Here the workbook is taken out
//! of its container, what it would become is counted, record by record as the library reads them, and it is put into a container
//! that is ours.

use std::collections::HashSet;

/// Cells of a sheet of this kind.
const SHEET_CELLS: u64 = 65_536 * 256;
/// Places for cells of all sheets, and of their formulas: of two that are full.
const PLACES_MAX: u64 = 2 * SHEET_CELLS;
/// Bytes of the texts in all cells, and of all formulas as they are written out.
const TEXT_MAX: u64 = 1 << 30;
/// Bytes of a character, at most.
const CHAR_BYTES: u64 = 3;
/// Records that continue another, each of 8 KiB: a workbook of 160 MiB has no more.
const CONTINUED_MAX: usize = 20_000;
/// Names that formulas use.
const NAMES_MAX: u64 = 100_000;

/// Ends a chain of sectors.
const END: u32 = 0xFFFF_FFFE;
/// A sector of the table itself, and one that is free.
const TABLE: u32 = 0xFFFF_FFFD;
const FREE: u32 = 0xFFFF_FFFF;
/// What is larger is no sector.
const SECTORS_MAX: u32 = 0xFFFF_FFFA;
/// A stream that is shorter stands in small sectors.
const SMALL: usize = 4096;
/// Entries of the table's own list in the header.
const LISTED: usize = 109;
/// Bytes of a sector that we write.
const SECTOR: usize = 4096;

/// The workbook in a container that can be read; `Err` says what is wrong.
pub fn checked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let container = || "its sectors make no sense: it was cut off, or is no workbook".to_owned();
    let mut stream = Container::open(bytes).and_then(|it| it.workbook()).ok_or_else(container)?;
    // What is shorter would have to stand in small sectors.
    stream.resize(stream.len().max(SMALL), 0);
    count(&stream)?;
    wrapped(&stream).ok_or_else(|| "it is too large: save it as .xlsx".to_owned())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn double(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn doubles(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]))
}

/// A file of streams (MS-CFB).
struct Container<'a> {
    bytes: &'a [u8],
    sector: usize,
    /// The sector that follows each.
    table: Vec<u32>,
}

impl<'a> Container<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let sector = match word(bytes, 30)? {
            0x09 => 512,
            0x0C => 4096,
            _ => return None,
        };
        let mut container = Self { bytes, sector, table: Vec::new() };
        let mut list: Vec<u32> = doubles(bytes.get(76..512)?).collect();
        let (mut next, mut seen) = (double(bytes, 68)?, HashSet::new());
        while next < SECTORS_MAX {
            if !seen.insert(next) {
                return None;
            }
            list.extend(doubles(container.at(next)?));
            next = list.pop()?;
        }
        let mut known = HashSet::new();
        for id in list.into_iter().filter(|id| *id < SECTORS_MAX) {
            if !known.insert(id) {
                return None;
            }
            let entries = doubles(container.at(id)?).collect::<Vec<_>>();
            container.table.extend(entries);
        }
        Some(container)
    }

    /// A sector; the last may be short.
    fn at(&self, id: u32) -> Option<&'a [u8]> {
        // The header takes the place of one.
        let start = (id as usize).checked_add(1)?.checked_mul(self.sector)?;
        let end = (start + self.sector).min(self.bytes.len());
        self.bytes.get(start..end).filter(|it| !it.is_empty())
    }

    /// The bytes of a chain, up to so many. One that comes back to itself is none.
    fn chain(&self, first: u32, bytes_max: usize) -> Option<Vec<u8>> {
        let (mut id, mut all) = (first, Vec::new());
        while id != END && all.len() < bytes_max {
            let sector = self.at(id)?;
            all.extend_from_slice(&sector[..sector.len().min(bytes_max - all.len())]);
            if all.len() > self.bytes.len() {
                return None;
            }
            id = if all.len() < bytes_max { *self.table.get(id as usize)? } else { END };
        }
        Some(all)
    }

    fn workbook(&self) -> Option<Vec<u8>> {
        let entries = self.chain(double(self.bytes, 48)?, usize::MAX)?;
        let entries: Vec<&[u8]> = entries.chunks_exact(128).collect();
        let first = |entry: &[u8]| double(entry, 116);
        let length = |entry: &[u8]| Some(double(entry, 120)? as usize);
        let called = |name: &str| {
            entries.iter().find(|entry| {
                let known = entry[..64].chunks_exact(2).map(|it| u16::from_le_bytes([it[0], it[1]]));
                let known: Vec<u16> = known.take_while(|it| *it != 0).collect();
                String::from_utf16_lossy(&known).eq_ignore_ascii_case(name)
            })
        };
        let entry = called("Workbook").or_else(|| called("Book"))?;
        let (id, bytes) = (first(entry)?, length(entry)?);
        if bytes >= SMALL {
            return self.chain(id, bytes);
        }
        let root = entries.first()?;
        let space = self.chain(first(root)?, length(root)?)?;
        let table_bytes = (double(self.bytes, 64)? as usize).checked_mul(self.sector)?;
        let table: Vec<u32> = doubles(&self.chain(double(self.bytes, 60)?, table_bytes)?).collect();
        let (mut id, mut all) = (id, Vec::new());
        while id != END && all.len() < bytes {
            let start = (id as usize).checked_mul(64)?;
            let sector = space.get(start..space.len().min(start + 64)).filter(|it| !it.is_empty())?;
            all.extend_from_slice(&sector[..sector.len().min(bytes - all.len())]);
            id = if all.len() < bytes { *table.get(id as usize)? } else { END };
        }
        Some(all)
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A container with this one stream: as much of one as the library looks at. `None`: it is too large.
fn wrapped(stream: &[u8]) -> Option<Vec<u8>> {
    const ENTRIES: usize = SECTOR / 4;
    let sectors = stream.len().div_ceil(SECTOR);
    // The table has an entry for itself and for the directory, too.
    let tables = (sectors + 1).div_ceil(ENTRIES - 1);
    if tables > LISTED {
        return None;
    }
    let mut file = Vec::with_capacity((sectors + tables + 2) * SECTOR);
    file.resize(SECTOR, 0);
    file[..8].copy_from_slice(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1");
    // Versions, the order of bytes, and sizes of sectors as powers of two.
    for (at, value) in [(24, 0x3E), (26, 4), (28, 0xFFFE), (30, 12), (32, 6_u16)] {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    let directory = u32::try_from(sectors + tables).ok()?;
    for (at, value) in
        [(44, tables as u32), (48, directory), (56, SMALL as u32), (60, END), (64, 0), (68, END)]
    {
        put(&mut file, at, value);
    }
    for at in 0..LISTED {
        put(&mut file, 76 + at * 4, if at < tables { (sectors + at) as u32 } else { FREE });
    }
    file.extend_from_slice(stream);
    file.resize((1 + sectors) * SECTOR, 0);
    for at in 0..tables * ENTRIES {
        let next = match at {
            _ if at + 1 < sectors => at as u32 + 1,
            _ if at + 1 == sectors || at == sectors + tables => END,
            _ if at < sectors + tables => TABLE,
            _ => FREE,
        };
        file.extend_from_slice(&next.to_le_bytes());
    }
    for (name, bytes) in [("Root Entry", 0), ("Workbook", stream.len())] {
        let mut entry = [0; 128];
        for (at, unit) in name.encode_utf16().enumerate() {
            entry[at * 2..at * 2 + 2].copy_from_slice(&unit.to_le_bytes());
        }
        put(&mut entry, 120, u32::try_from(bytes).ok()?);
        file.extend_from_slice(&entry);
    }
    file.resize((2 + sectors + tables) * SECTOR, 0);
    Some(file)
}

/// A record, and what continues it.
struct Record<'a> {
    kind: u16,
    data: &'a [u8],
    more: Vec<&'a [u8]>,
}

/// The next record; `Err`: it is cut off.
fn record<'a>(rest: &mut &'a [u8]) -> Result<Option<Record<'a>>, String> {
    let cut = || "it ends inside of a record".to_owned();
    if rest.is_empty() {
        return Ok(None);
    }
    let (kind, data) = single(rest).ok_or_else(cut)?;
    let mut more = Vec::new();
    while rest.len() > 4 && word(rest, 0) == Some(CONTINUE) {
        let (_, data) = single(rest).ok_or_else(cut)?;
        more.push(data);
        if more.len() > CONTINUED_MAX {
            return Err("a record goes on for too long".to_owned());
        }
    }
    Ok(Some(Record { kind, data, more }))
}

fn single<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let all: &'a [u8] = rest;
    let end = 4 + usize::from(word(all, 2)?);
    let data = all.get(4..end)?;
    *rest = &all[end..];
    Some((word(all, 0)?, data))
}

// Kinds of records.
const CONTINUE: u16 = 0x003C;
const BEGIN: u16 = 0x0809;
const EOF: u16 = 0x000A;
const PASSWORD: u16 = 0x002F;
const SHEET: u16 = 0x0085;
const NAME: u16 = 0x0018;
const TEXTS: u16 = 0x00FC;
const DIMENSIONS: u16 = 0x0200;
const FORMULA: u16 = 0x0006;
const FORMULA_TEXT: u16 = 0x0207;
const SHARED_TEXT: u16 = 0x00FD;
const NUMBERS: u16 = 0x00BD;
const NUMBER: u16 = 0x0203;
const LABEL: u16 = 0x0204;
const RICH_LABEL: u16 = 0x00D6;
const BOOL_OR_ERROR: u16 = 0x0205;
const RK: u16 = 0x027E;

/// Counts what a workbook would become.
fn count(stream: &[u8]) -> Result<(), String> {
    let wrong = || "a record makes no sense".to_owned();
    let (mut sheets, mut texts, mut names, mut name_max) = (Vec::new(), Vec::new(), 0_u64, 0_u64);
    let mut rest = stream;
    while let Some(it) = record(&mut rest)? {
        match it.kind {
            // The library ends here, and says so.
            PASSWORD if word(it.data, 0) != Some(0) => return Ok(()),
            SHEET => {
                let start = double(it.data, 0).ok_or_else(wrong)? as usize;
                sheets.push(stream.get(start..).ok_or_else(wrong)?);
                name_max = name_max.max(u64::from(*it.data.get(6).ok_or_else(wrong)?));
            }
            NAME => {
                names += 1;
                name_max = name_max.max(u64::from(*it.data.get(3).ok_or_else(wrong)?));
            }
            TEXTS => texts = lengths(&it).ok_or_else(|| "its texts make no sense".to_owned())?,
            EOF => break,
            _ => {}
        }
    }
    if names > NAMES_MAX {
        return Err(format!("it has more than {NAMES_MAX} names"));
    }
    // A name takes five bytes of a formula at least, that of a function three.
    let grows = name_max * CHAR_BYTES / 5 + 8;
    let mut sum = Sum { grows, ..Sum::default() };
    let mut looked = 0;
    for sheet in sheets {
        looked += sum.sheet(sheet, &texts)?;
        // Sheets do not stand in each other.
        if looked > stream.len() * 2 {
            return Err(wrong());
        }
        if sum.places > PLACES_MAX {
            return Err("its sheets are too large: save it as .xlsx".to_owned());
        }
        if sum.text > TEXT_MAX {
            return Err("its cells have too much text: save it as .xlsx".to_owned());
        }
    }
    Ok(())
}

/// What all sheets become.
#[derive(Default)]
struct Sum {
    places: u64,
    text: u64,
    /// Bytes that a byte of a formula becomes.
    grows: u64,
}

impl Sum {
    /// Adds a sheet; says how many bytes it has.
    fn sheet(&mut self, stream: &[u8], texts: &[u16]) -> Result<usize, String> {
        let wrong = || "a cell makes no sense".to_owned();
        let mut rest = stream;
        let (mut cells, mut formulas) = (Area::default(), Area::default());
        let (mut begun, mut inside, mut last) = (false, 0_u64, (0, 0));
        while let Some(it) = record(&mut rest)? {
            // Charts inside of a sheet have cells of their own, which are left out.
            if inside > 0 {
                inside = match it.kind {
                    BEGIN => inside + 1,
                    EOF => inside - 1,
                    _ => inside,
                };
                continue;
            }
            let place = || Some((word(it.data, 0)?, word(it.data, 2)?));
            match it.kind {
                BEGIN if begun => inside = 1,
                BEGIN => begun = true,
                EOF => break,
                DIMENSIONS if declared(it.data).ok_or_else(wrong)? > SHEET_CELLS => {
                    return Err("a sheet says that it is larger than it can be".to_owned());
                }
                FORMULA => {
                    last = place().ok_or_else(wrong)?;
                    cells.add(last);
                    formulas.add(last);
                    self.text += it.data.len() as u64 * self.grows;
                }
                FORMULA_TEXT => {
                    cells.add(last);
                    self.text += it.data.len() as u64 * CHAR_BYTES;
                }
                SHARED_TEXT => {
                    cells.add(place().ok_or_else(wrong)?);
                    let text = double(it.data, 6).and_then(|at| texts.get(at as usize));
                    self.text += u64::from(text.copied().unwrap_or(0)) * CHAR_BYTES;
                }
                NUMBERS => {
                    let (row, first) = place().ok_or_else(wrong)?;
                    cells.add((row, first));
                    let more = (it.data.len() / 6).saturating_sub(2);
                    cells.add((row, first.saturating_add(u16::try_from(more).unwrap_or(u16::MAX))));
                }
                NUMBER | LABEL | RICH_LABEL | BOOL_OR_ERROR | RK => {
                    cells.add(place().ok_or_else(wrong)?);
                    self.text += it.data.len() as u64 * CHAR_BYTES;
                }
                _ => {}
            }
        }
        self.places += cells.places() + formulas.places();
        Ok(stream.len() - rest.len())
    }
}

/// The cells that a sheet says it has.
fn declared(data: &[u8]) -> Option<u64> {
    let (first, end, first_column, end_column) = match data.len() {
        10 => (u32::from(word(data, 0)?), u32::from(word(data, 2)?), word(data, 4)?, word(data, 6)?),
        14 | 16 => (double(data, 0)?, double(data, 4)?, word(data, 8)?, word(data, 10)?),
        // The library says so.
        _ => return Some(0),
    };
    if end == 0 || end_column == 0 {
        return Some(1);
    }
    let first_column = if first_column > 0xFF || end_column < first_column { 0 } else { first_column };
    // One that ends before it begins has none; the library would take it for a very large one.
    Some(u64::from(end.checked_sub(first)?) * u64::from(end_column - first_column))
}

/// From the first cell to the last.
#[derive(Default)]
struct Area(Option<((u16, u16), (u16, u16))>);

impl Area {
    fn add(&mut self, (row, column): (u16, u16)) {
        let (first, last) = self.0.get_or_insert(((row, column), (row, column)));
        *first = (first.0.min(row), first.1.min(column));
        *last = (last.0.max(row), last.1.max(column));
    }

    fn places(&self) -> u64 {
        self.0
            .map_or(0, |(first, last)| (u64::from(last.0 - first.0) + 1) * (u64::from(last.1 - first.1) + 1))
    }
}

/// Characters of each text that cells share (MS-XLS 2.4.265).
fn lengths(record: &Record<'_>) -> Option<Vec<u16>> {
    let mut texts = Texts { data: record.data.get(8..)?, more: record.more.iter() };
    let mut lengths = Vec::new();
    while !texts.data.is_empty() || texts.go_on() {
        lengths.push(texts.length()?);
    }
    Some(lengths)
}

struct Texts<'a> {
    data: &'a [u8],
    more: std::slice::Iter<'a, &'a [u8]>,
}

impl Texts<'_> {
    fn go_on(&mut self) -> bool {
        match self.more.next() {
            Some(data) => {
                self.data = data;
                true
            }
            None => false,
        }
    }

    /// Goes behind the next text, and says how many characters it has.
    fn length(&mut self) -> Option<u16> {
        if self.data.is_empty() {
            return Some(0);
        }
        let (chars, flags) = (word(self.data, 0)?, *self.data.get(2)?);
        self.data = &self.data[3..];
        let (mut runs, mut extra) = (0, 0);
        if flags & 0x8 != 0 {
            runs = usize::from(word(self.data, 0)?);
            self.data = &self.data[2..];
        }
        if flags & 0x4 != 0 {
            extra = double(self.data, 0)? as usize;
            self.data = &self.data[4..];
        }
        let (mut left, mut wide) = (usize::from(chars), flags & 1 != 0);
        while left > 0 {
            let taken = (if wide { self.data.len() / 2 } else { self.data.len() }).min(left);
            self.data = &self.data[if wide { taken * 2 } else { taken }..];
            left -= taken;
            if left > 0 {
                if !self.go_on() {
                    return None;
                }
                let (flags, data) = self.data.split_first()?;
                (wide, self.data) = (flags & 1 != 0, data);
            }
        }
        self.skip(runs * 4)?;
        self.skip(extra)?;
        Some(chars)
    }

    fn skip(&mut self, mut bytes: usize) -> Option<()> {
        while bytes > 0 {
            if self.data.is_empty() && !self.go_on() {
                return None;
            }
            let now = bytes.min(self.data.len());
            self.data = &self.data[now..];
            bytes -= now;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(stream: &mut Vec<u8>, kind: u16, data: &[u8]) {
        stream.extend_from_slice(&kind.to_le_bytes());
        stream.extend_from_slice(&(data.len() as u16).to_le_bytes());
        stream.extend_from_slice(data);
    }

    fn at(row: u16, column: u16, bytes: usize) -> Vec<u8> {
        let mut data = [row.to_le_bytes(), column.to_le_bytes()].concat();
        data.resize(bytes, 0);
        data
    }

    /// A workbook of these sheets, each given by its records.
    fn workbook(texts: &[u8], sheets: &[Vec<(u16, Vec<u8>)>]) -> Vec<u8> {
        let global = |starts: &[usize]| {
            let mut stream = Vec::new();
            add(&mut stream, BEGIN, &[0, 6, 5, 0]);
            for (number, start) in starts.iter().enumerate() {
                let name = [0, 0, 1, 0, b'a' + number as u8];
                add(&mut stream, SHEET, &[&(*start as u32).to_le_bytes()[..], &name].concat());
            }
            // A record holds 8 KiB; what is longer goes on in others.
            for (number, part) in texts.chunks(8192).enumerate() {
                add(&mut stream, if number == 0 { TEXTS } else { CONTINUE }, part);
            }
            add(&mut stream, EOF, &[]);
            stream
        };
        let mut bodies = Vec::new();
        let mut starts = Vec::new();
        let before = global(&vec![0; sheets.len()]).len();
        for sheet in sheets {
            starts.push(before + bodies.len());
            add(&mut bodies, BEGIN, &[0, 6, 16, 0]);
            sheet.iter().for_each(|(kind, data)| add(&mut bodies, *kind, data));
            add(&mut bodies, EOF, &[]);
        }
        let mut stream = global(&starts);
        stream.extend(bodies);
        stream.resize(stream.len().max(SMALL), 0);
        wrapped(&stream).unwrap()
    }

    fn refused(bytes: &[u8]) -> String {
        checked(bytes).err().unwrap_or_default()
    }

    #[test]
    fn what_a_workbook_becomes_is_counted_before_it_is_read() {
        let corners = vec![(NUMBER, at(0, 0, 14)), (NUMBER, at(65_535, 255, 14))];
        assert_eq!(refused(&workbook(&[], &vec![corners.clone(); 2])), "");
        let error = refused(&workbook(&[], &vec![corners; 3]));
        assert!(error.contains("its sheets are too large"), "{error}");
        let huge = [&[0; 4][..], &[0xFF; 4], &[0, 0, 0xFF, 0, 0, 0]].concat();
        let error = refused(&workbook(&[], &[vec![(DIMENSIONS, huge)]]));
        assert!(error.contains("larger than it can be"), "{error}");
        // One text of 60000 characters, which goes on in seven records, in six thousand cells.
        let mut texts = [&[1, 0, 0, 0, 1, 0, 0, 0][..], &60_000_u16.to_le_bytes(), &[0]].concat();
        for _ in 0..60_000 {
            // Each record that goes on begins with how its characters are written.
            if texts.len().is_multiple_of(8192) {
                texts.push(0);
            }
            texts.push(b'x');
        }
        let cells = |count: u16| (0..count).map(|row| (SHARED_TEXT, at(row, 0, 10))).collect::<Vec<_>>();
        assert_eq!(refused(&workbook(&texts, &[cells(100)])), "");
        let error = refused(&workbook(&texts, &[cells(6000)]));
        assert!(error.contains("too much text"), "{error}");
    }

    #[test]
    fn chains_that_come_back_to_themselves_are_found() {
        let mut bytes = workbook(&[], &[Vec::new()]);
        let (table, directory) = (double(&bytes, 76).unwrap(), double(&bytes, 48).unwrap());
        put(&mut bytes, (table as usize + 1) * SECTOR + directory as usize * 4, directory);
        assert!(refused(&bytes).contains("its sectors make no sense"));
        assert!(refused(b"\xD0\xCF\x11\xE0").contains("its sectors make no sense"));
    }
}
