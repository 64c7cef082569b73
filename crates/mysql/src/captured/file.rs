//! Files of a capture.
//!
//! ```text
//! file   "TMSQL\0" u16 version (1)   block …
//! block  u32 bytes   u32 CRC-32C of them   records
//! ```
//! A file ends where no whole block follows: what a crash left there is passed over. Files are named after the time of their
//! beginning and the process, so that two processes never write one; the oldest are deleted. Who writes one holds its lock:
//! where that is free, nothing follows any more.

use super::record::Record;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"TMSQL\0\x01\0";
/// In front of the first block.
pub const FILE_HEAD_BYTES: u64 = MAGIC.len() as u64;
/// In front of a block's records.
const BLOCK_HEAD_BYTES: usize = 8;
/// A block is never longer; a reader takes a longer one for garbage.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;
const PREFIX: &str = "sql-";
const SUFFIX: &str = ".capture";

/// Writes files of a folder, one after the other.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    file_bytes: u64,
    files: usize,
    file: File,
    written: u64,
    /// The latest old file that could not be deleted, and why.
    pub undeleted: Option<String>,
}

impl Writer {
    /// # Errors
    /// When the folder cannot be made, or the first file in it.
    pub fn open(dir: &Path, file_bytes: u64, files: usize) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let file = create(dir)?;
        let dir = dir.to_owned();
        let mut writer = Self { dir, file_bytes, files, file, written: FILE_HEAD_BYTES, undeleted: None };
        writer.delete_old();
        Ok(writer)
    }

    /// Writes a file that is open, and never another: for tests of who writes.
    pub fn into_file(file: File) -> Self {
        let dir = PathBuf::new();
        Self { dir, file_bytes: 1 << 20, files: 1, file, written: FILE_HEAD_BYTES, undeleted: None }
    }

    /// Writes records that are whole. After an error the file ends with the last whole block.
    ///
    /// # Errors
    /// When the file takes no more, or the next one cannot be made.
    pub fn write(&mut self, records: &[u8]) -> io::Result<()> {
        debug_assert!(records.len() <= BLOCK_BYTES_MAX, "threads hold less");
        if self.written > FILE_HEAD_BYTES && self.written + records.len() as u64 > self.file_bytes {
            self.file = create(&self.dir)?;
            self.written = FILE_HEAD_BYTES;
            self.delete_old();
        }
        let mut head = [0; 8];
        head[..4].copy_from_slice(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(records).to_le_bytes());
        let mut file = &self.file;
        if let Err(error) = file.write_all(&head).and_then(|()| file.write_all(records)) {
            let _ = self.file.set_len(self.written);
            let _ = self.file.seek(SeekFrom::Start(self.written));
            return Err(error);
        }
        self.written += (head.len() + records.len()) as u64;
        Ok(())
    }

    fn delete_old(&mut self) {
        let Ok(names) = list(&self.dir) else { return };
        for old in names.iter().take(names.len().saturating_sub(self.files)) {
            if let Err(error) = std::fs::remove_file(old) {
                self.undeleted = Some(format!("{}: {error}", old.display()));
            }
        }
    }
}

/// A new file that its owner alone can read.
fn create(dir: &Path) -> io::Result<File> {
    /// Two of one process never begin in one microsecond, but a clock may be set back.
    const TRIES: u64 = 1000;
    let pid = std::process::id();
    let now = super::now_us();
    for later in 0..TRIES {
        let path = dir.join(format!("{PREFIX}{:016}-{pid}{SUFFIX}", now + later));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                // Where a file system has no locks, readers only wait longer for what a crash has torn.
                let _ = file.try_lock();
                file.write_all(&MAGIC)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The captures of a folder, the oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What a file has at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A block, and the offset of what follows it.
    Block(u64),
    /// The file ends here.
    End,
    /// No whole block: it is being written, or never will be.
    Broken(&'static str),
}

/// Reads the block at `offset` into `block`.
///
/// # Errors
/// When the file cannot be read.
pub fn block_at(file: &File, offset: u64, block: &mut Vec<u8>) -> io::Result<Next> {
    block.clear();
    let size = file.metadata()?.len();
    let mut magic = MAGIC;
    if size < FILE_HEAD_BYTES {
        return Ok(Next::Broken("it is no capture yet"));
    }
    file.read_exact_at(&mut magic, 0)?;
    if magic != MAGIC {
        return Ok(Next::Broken("it is no capture of this version"));
    }
    if offset >= size {
        return Ok(Next::End);
    }
    let mut head = [0; BLOCK_HEAD_BYTES];
    let start = offset + BLOCK_HEAD_BYTES as u64;
    if start > size {
        return Ok(Next::Broken("it ends in the midst of a block"));
    }
    file.read_exact_at(&mut head, offset)?;
    let (length, checksum) = halves(&head);
    if length as usize > BLOCK_BYTES_MAX {
        return Ok(Next::Broken("it has a block that is none"));
    }
    let next = start + u64::from(length);
    if next > size {
        return Ok(Next::Broken("it ends in the midst of a block"));
    }
    block.resize(length as usize, 0);
    file.read_exact_at(block, start)?;
    if crc32c::crc32c(block) != checksum {
        block.clear();
        return Ok(Next::Broken("it has a block whose checksum is wrong"));
    }
    Ok(Next::Block(next))
}

/// The length and the checksum of a block.
fn halves(head: &[u8; BLOCK_HEAD_BYTES]) -> (u32, u32) {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    (number(0), number(4))
}

/// The process that a file is of, by its name.
fn process(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let inner = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX)).unwrap_or(name);
    inner.split_once('-').map_or(inner, |(_, pid)| pid).to_owned()
}

/// Blocks of one file.
struct Blocks {
    path: PathBuf,
    file: BufReader<File>,
}

impl Blocks {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; 8];
        let read = file.read_exact(&mut magic);
        if read.is_err() || magic != MAGIC {
            let reason = format!("{} is no capture of this version", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// The next whole block; `Err` with how the file ends, unless it ends behind one.
    fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let broken = |what: &str| Err(format!("{} ends {what}", self.path.display()));
        let mut head = [0; 8];
        let mut read = 0;
        while read < head.len() {
            match self.file.read(&mut head[read..]) {
                Ok(0) if read == 0 => return Ok(None),
                Ok(0) => return broken("in the midst of a block"),
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return broken(&format!("for us: {error}")),
            }
        }
        let (length, checksum) = halves(&head);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > BLOCK_BYTES_MAX {
            return broken("with a block that is none");
        }
        let mut block = vec![0; length];
        if self.file.read_exact(&mut block).is_err() {
            return broken("in the midst of a block");
        }
        if crc32c::crc32c(&block) != checksum {
            return broken("with a block whose checksum is wrong");
        }
        Ok(Some(block))
    }
}

/// Files of one process, one block of them in memory.
struct Lane {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<Blocks>,
    block: Vec<u8>,
    at: usize,
}

/// Records of one file or of a folder, in the order of their processes' files; of two processes, the earlier first. One
/// block of each process is in memory.
pub struct Reader {
    lanes: Vec<Lane>,
    bytes: u64,
    /// What was passed over, in words.
    pub notes: Vec<String>,
}

impl Reader {
    /// # Errors
    /// When there is no capture.
    pub fn open(path: &Path) -> io::Result<Self> {
        let files = if path.is_dir() { list(path)? } else { vec![path.to_owned()] };
        if files.is_empty() {
            let reason = format!("there are no files {PREFIX}*{SUFFIX} in {}", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        // It is none at all, rather than one whose end is broken.
        Blocks::open(&files[0])?;
        let sizes = files.iter().filter_map(|file| std::fs::metadata(file).ok());
        let bytes = sizes.map(|size| size.len()).sum();
        let mut lanes: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in files {
            lanes.entry(process(&file)).or_default().push(file);
        }
        let lanes = lanes
            .into_values()
            .map(|files| Lane { files: files.into_iter(), open: None, block: Vec::new(), at: 0 })
            .collect();
        Ok(Self { lanes, bytes, notes: Vec::new() })
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next record, which is valid until the next call.
    pub fn read(&mut self) -> Option<Record<'_>> {
        let mut first: Option<(usize, u64)> = None;
        for index in 0..self.lanes.len() {
            let Some(at_us) = self.lanes[index].peek(&mut self.notes) else { continue };
            if first.is_none_or(|(_, earliest)| at_us < earliest) {
                first = Some((index, at_us));
            }
        }
        let lane = &mut self.lanes[first?.0];
        let start = lane.at;
        let (record, _) = Record::read(&lane.block[start..])?;
        lane.at += record.bytes_written();
        Some(record)
    }
}

impl Lane {
    /// When the next record was.
    fn peek(&mut self, notes: &mut Vec<String>) -> Option<u64> {
        loop {
            if let Some((record, _)) = Record::read(&self.block[self.at..]) {
                return Some(record.at_us);
            }
            self.at = 0;
            self.block.clear();
            if self.open.is_none() {
                let path = self.files.next()?;
                // One that was rotated away meanwhile, or never got its first bytes, has nothing.
                self.open = Blocks::open(&path).inspect_err(|error| notes.push(error.to_string())).ok();
                continue;
            }
            match self.open.as_mut().map(Blocks::next) {
                Some(Ok(Some(block))) => self.block = block,
                Some(Err(note)) => {
                    notes.push(note);
                    self.open = None;
                }
                _ => self.open = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::example;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn block(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        example(text.as_bytes()).append(&mut out);
        out
    }

    fn texts(path: &Path) -> (Vec<String>, Vec<String>) {
        let mut reader = Reader::open(path).unwrap();
        let mut texts = Vec::new();
        while let Some(record) = reader.read() {
            texts.push(String::from_utf8_lossy(record.text).into_owned());
        }
        (texts, reader.notes)
    }

    #[test]
    fn files_rotate_the_oldest_go_and_nobody_else_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("capture");
        let mut writer = Writer::open(&dir, 300, 3).unwrap();
        for number in 0..10 {
            writer.write(&block(&format!("select {number}"))).unwrap();
        }
        let files = list(&dir).unwrap();
        assert_eq!(files.len(), 3);
        for file in &files {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let (texts, notes) = texts(&dir);
        // Two blocks of 105 bytes fit into a file.
        assert_eq!(texts, ["select 4", "select 5", "select 6", "select 7", "select 8", "select 9"]);
        assert!(notes.is_empty());
    }

    #[test]
    fn what_a_crash_left_is_passed_over_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), 1 << 20, 3).unwrap();
        for number in 0..3 {
            writer.write(&block(&format!("select {number}"))).unwrap();
        }
        let file = list(dir.path()).unwrap().remove(0);
        let whole = std::fs::read(&file).unwrap();
        let per_block = (whole.len() - 8) / 3;
        for cut in 8..whole.len() {
            std::fs::write(&file, &whole[..cut]).unwrap();
            let (texts, notes) = texts(&file);
            assert_eq!(texts.len(), (cut - 8) / per_block, "{cut}");
            assert_eq!(notes.len(), usize::from((cut - 8) % per_block != 0), "{cut}");
        }
        // A bit of the second block is wrong: what follows is not believed either.
        let mut wrong = whole.clone();
        wrong[8 + per_block + 20] ^= 1;
        std::fs::write(&file, &wrong).unwrap();
        let (texts, notes) = texts(&file);
        assert!(texts == ["select 0"] && notes[0].contains("checksum"), "{notes:?}");
        std::fs::write(&file, b"#!/bin/sh").unwrap();
        assert!(Reader::open(&file).is_err());
        assert!(Reader::open(&dir.path().join("nothing")).is_err());
    }

    #[test]
    fn records_of_two_processes_come_by_their_time() {
        let dir = tempfile::tempdir().unwrap();
        for (pid, times) in [(1, [10, 40]), (2, [20, 30])] {
            let mut bytes = MAGIC.to_vec();
            for at_us in times {
                let mut records = Vec::new();
                Record { at_us, ..example(at_us.to_string().as_bytes()) }.append(&mut records);
                bytes.extend_from_slice(&u32::try_from(records.len()).unwrap().to_le_bytes());
                bytes.extend_from_slice(&crc32c::crc32c(&records).to_le_bytes());
                bytes.extend_from_slice(&records);
            }
            std::fs::write(dir.path().join(format!("sql-{:016}-{pid}.capture", 5)), bytes).unwrap();
        }
        assert_eq!(texts(dir.path()).0, ["10", "20", "30", "40"]);
    }
}
