//! `kind: files`: the tables in a folder.
//!
//! A table is read twice: once to tell its columns, once for its rows. A file that changes in between, or while it is read, is
//! being written, and reading it ends with an error that says so: half a file is never taken for a whole one.

use super::cell::{STOPPED, Visitor};
use super::config::{FileFormat, FileTable, FilesConfig};
use super::encoding::{self, Encoding, Verdict};
use super::outlet::{Outlet, Selection, Survey};
use super::{csv, excel, json};
use crate::reader::{Batches, Described, ReadError, Reader, Scope, batches};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files of a table, and of a folder.
const FILES_MAX: usize = 10_000;
/// Bytes that are read ahead.
const READ_AHEAD: usize = 256 * 1024;

/// A folder that is open.
pub struct Files {
    config: FilesConfig,
    folder: PathBuf,
    /// Of the files' names.
    pattern: String,
    found: BTreeMap<String, Found>,
    /// What the files of a table were when its columns were told.
    seen: HashMap<String, Vec<Seen>>,
}

/// Where a table is.
#[derive(Clone, Debug)]
struct Found {
    files: Vec<PathBuf>,
    format: FileFormat,
    sheet: Option<String>,
    options: FileTable,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    file: PathBuf,
    stamp: Stamp,
    encoding: Option<Encoding>,
}

/// What changes when a file is written.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stamp {
    bytes: u64,
    written: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), written: metadata.modified().ok() }
    }
}

impl Files {
    /// Looks at nothing yet.
    pub fn new(config: FilesConfig, project: &Path) -> Self {
        let path = project.join(&config.path);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (folder, pattern) = match path.parent() {
            Some(parent) if name.contains(['*', '?']) || path.is_file() => (parent.to_owned(), name),
            _ => (path, "*".to_owned()),
        };
        Self { config, folder, pattern, found: BTreeMap::new(), seen: HashMap::new() }
    }

    async fn find(&mut self, table: &str) -> Result<Found, ReadError> {
        if !self.found.contains_key(table) {
            self.found = self.look().await?;
        }
        self.found.get(table).cloned().ok_or_else(|| ReadError::NoTable(table.to_owned()))
    }

    async fn look(&self) -> Result<BTreeMap<String, Found>, ReadError> {
        let (config, folder, pattern) = (self.config.clone(), self.folder.clone(), self.pattern.clone());
        blocking(move || look(&config, &folder, &pattern)).await
    }
}

/// Runs what blocks on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(ReadError::Internal(error.to_string())))
}

#[async_trait]
impl Reader for Files {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        self.found = self.look().await?;
        Ok(self.found.keys().cloned().collect())
    }

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError> {
        let found = self.find(table).await?;
        let (name, excel_max) = (table.to_owned(), self.config.excel_max.0);
        let (described, seen) = blocking(move || describe(&name, &found, excel_max)).await?;
        self.seen.insert(table.to_owned(), seen);
        Ok(described)
    }

    /// Rows come as they stand in the files.
    fn in_order(&self) -> bool {
        false
    }

    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError> {
        let found = self.find(&table.table).await?;
        let seen = self.seen.get(&table.table).cloned();
        let selection = Selection::new(table, &scope)?;
        let (table, excel_max) = (table.clone(), self.config.excel_max.0);
        let (sender, receiver) = batches();
        tokio::task::spawn_blocking(move || {
            let mut outlet = Outlet::new(&sender, &table, selection, &found.options.date_formats);
            let result =
                read_all(&found, seen.as_deref(), excel_max, &mut outlet).and_then(|_| outlet.flush());
            // Who went away does not want to know how it ended.
            if result != Err(ReadError::Internal(STOPPED.to_owned())) {
                sender.end_blocking(result);
            }
        });
        Ok(receiver)
    }
}

/// What tables a folder has.
fn look(config: &FilesConfig, folder: &Path, pattern: &str) -> Result<BTreeMap<String, Found>, ReadError> {
    let gone = |error: &std::io::Error| {
        ReadError::Unavailable(format!("failed to read the folder {}: {error}", folder.display()))
    };
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| gone(&error))? {
        let path = entry.map_err(|error| gone(&error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Files of programs that are about to write: they appear under another name.
        if name.starts_with('.') || name.starts_with("~$") || !matches(&name, pattern) || !path.is_file() {
            continue;
        }
        // Who may put files here could show us any file of the machine. The project's own word is another thing.
        if name != pattern && path.is_symlink() {
            tracing::warn!(file = name, "a link to another file is not read");
            continue;
        }
        files.push((name, path));
        if files.len() > FILES_MAX {
            let message = format!("the folder {} has more than {FILES_MAX} files", folder.display());
            return Err(ReadError::bad(message, "name fewer with a pattern: `path: inbox/*.csv`"));
        }
    }
    files.sort();
    let mut found = BTreeMap::new();
    for (table, options) in &config.tables {
        let pattern = options.files.clone();
        // Without a pattern of its own a table is named by its file, or by its sheet, below.
        let Some(pattern) = pattern else { continue };
        let (own, rest): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| matches(name, &pattern));
        files = rest;
        let Some((first, _)) = own.first() else { continue };
        let format = format_of(first, options.format, config.format).ok_or_else(|| {
            ReadError::bad(
                format!("nobody knows what {first} is"),
                format!("set `format` of the table {table}"),
            )
        })?;
        let paths = own.into_iter().map(|(_, path)| path).collect();
        let options = options.clone();
        found.insert(table.clone(), Found { files: paths, format, sheet: options.sheet.clone(), options });
    }
    for (name, path) in files {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let named = config.tables.get(&stem).cloned();
        let wanted = named.as_ref().map_or(FileFormat::Auto, |it| it.format);
        let Some(format) = format_of(&name, wanted, config.format) else { continue };
        let plain = named.unwrap_or_else(FileTable::unnamed);
        if format != FileFormat::Xlsx || plain.sheet.is_some() {
            put(
                &mut found,
                stem,
                Found { files: vec![path], format, sheet: plain.sheet.clone(), options: plain },
            )?;
            continue;
        }
        let sheets = excel::open(&name, load(&path, config.excel_max.0)?)?.sheets();
        for sheet in &sheets {
            let table = if sheets.len() == 1 { stem.clone() } else { format!("{stem}.{sheet}") };
            let options = config.tables.get(&table).cloned().unwrap_or_else(|| plain.clone());
            put(
                &mut found,
                table,
                Found { files: vec![path.clone()], format, sheet: Some(sheet.clone()), options },
            )?;
        }
    }
    Ok(found)
}

fn put(found: &mut BTreeMap<String, Found>, table: String, it: Found) -> Result<(), ReadError> {
    if let Some(other) = found.get(&table) {
        let names: Vec<_> = other.files.iter().chain(&it.files).map(|path| shown(path)).collect();
        return Err(ReadError::bad(
            format!("the table {table} is in several files: {}", names.join(", ")),
            "name its files: `tables: {orders: {files: \"orders.csv\"}}`",
        ));
    }
    found.insert(table, it);
    Ok(())
}

/// What a file is; `None`: no table.
fn format_of(name: &str, own: FileFormat, all: FileFormat) -> Option<FileFormat> {
    let wanted = if own == FileFormat::Auto { all } else { own };
    if wanted != FileFormat::Auto {
        return Some(wanted);
    }
    let (_, ending) = name.rsplit_once('.')?;
    match ending.to_ascii_lowercase().as_str() {
        "csv" | "txt" => Some(FileFormat::Csv),
        "tsv" | "tab" => Some(FileFormat::Tsv),
        "json" => Some(FileFormat::Json),
        "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
        "xlsx" | "xlsm" | "xlsb" | "xls" | "ods" => Some(FileFormat::Xlsx),
        _ => None,
    }
}

fn describe(table: &str, found: &Found, excel_max: u64) -> Result<(Described, Vec<Seen>), ReadError> {
    let options = &found.options;
    let mut survey = Survey::new(&options.date_formats);
    let seen = read_all(found, None, excel_max, &mut survey)?;
    let hint = || format!("see `tables: {{{table}: …}}` of the source");
    let columns = survey
        .columns(&options.columns)
        .map_err(|wrong| ReadError::bad(format!("{table}: {wrong}"), hint()))?;
    if columns.is_empty() {
        return Err(ReadError::bad(
            format!("{table} has no columns: its files are empty"),
            "a header makes a table, also without rows",
        ));
    }
    let missing = options.key.iter().find(|key| !columns.iter().any(|it| it.name.eq_ignore_ascii_case(key)));
    if let Some(missing) = missing {
        return Err(ReadError::bad(
            format!("{table}: `key` names `{missing}`, which the table has not"),
            hint(),
        ));
    }
    Ok((Described { table: table.to_owned(), columns, key: options.key.clone() }, seen))
}

/// Tells all rows of all files of a table. `seen`: what they must still be.
fn read_all(
    found: &Found,
    seen: Option<&[Seen]>,
    excel_max: u64,
    visitor: &mut dyn Visitor,
) -> Result<Vec<Seen>, ReadError> {
    let files: Vec<PathBuf> = match seen {
        Some(seen) => seen.iter().map(|it| it.file.clone()).collect(),
        None => found.files.clone(),
    };
    let mut told = Vec::with_capacity(files.len());
    for (at, file) in files.iter().enumerate() {
        told.push(read_file(file, found, seen.map(|seen| &seen[at]), excel_max, visitor)?);
    }
    Ok(told)
}

fn read_file(
    path: &Path,
    found: &Found,
    seen: Option<&Seen>,
    excel_max: u64,
    visitor: &mut dyn Visitor,
) -> Result<Seen, ReadError> {
    let name = shown(path);
    let gone = |error: &std::io::Error| ReadError::Unavailable(format!("failed to read {name}: {error}"));
    let stamp = || fs::metadata(path).map(|it| Stamp::of(&it)).map_err(|error| gone(&error));
    let before = stamp()?;
    if seen.is_some_and(|seen| seen.stamp != before) {
        return Err(being_written(&name));
    }
    let options = &found.options;
    let mut told =
        Seen { file: path.to_owned(), stamp: before, encoding: seen.and_then(|seen| seen.encoding) };
    let open = || {
        File::open(path).map(|file| BufReader::with_capacity(READ_AHEAD, file)).map_err(|error| gone(&error))
    };
    let encoding = |told: &mut Seen| match told.encoding {
        Some(encoding) => Ok(encoding),
        None => encoding_of(path, &name, options).inspect(|encoding| told.encoding = Some(*encoding)),
    };
    let result = match found.format {
        FileFormat::Csv | FileFormat::Auto => {
            let encoding = encoding(&mut told)?;
            csv::read(open()?, &name, encoding, options.delimiter, options, visitor)
        }
        FileFormat::Tsv => {
            let encoding = encoding(&mut told)?;
            csv::read(open()?, &name, encoding, Some(options.delimiter.unwrap_or('\t')), options, visitor)
        }
        FileFormat::Jsonl => {
            let encoding = encoding(&mut told)?;
            json::read_lines(open()?, &name, encoding, &options.nulls, visitor)
        }
        FileFormat::Json => json::read_array(open()?, &name, &options.nulls, visitor),
        FileFormat::Xlsx => read_sheet(path, &name, found, excel_max, visitor),
    };
    // A file that is being written may look damaged: that it changed says more than what was found in it.
    if stamp()? != before {
        return Err(being_written(&name));
    }
    result.map(|()| told)
}

fn read_sheet(
    path: &Path,
    name: &str,
    found: &Found,
    excel_max: u64,
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    let mut book = excel::open(name, load(path, excel_max)?)?;
    let sheets = book.sheets();
    let sheet = match &found.sheet {
        Some(sheet) if sheets.contains(sheet) => sheet.clone(),
        Some(sheet) => {
            let message = format!("{name} has no sheet `{sheet}`");
            return Err(ReadError::bad(message, format!("it has {}", sheets.join(", "))));
        }
        None => match &sheets[..] {
            [sheet] => sheet.clone(),
            _ => {
                let message = format!("{name} has the sheets {}", sheets.join(", "));
                return Err(ReadError::bad(message, "name one: `sheet`"));
            }
        },
    };
    book.read(name, &sheet, &found.options, visitor)
}

fn load(path: &Path, excel_max: u64) -> Result<Vec<u8>, ReadError> {
    let gone =
        |error: std::io::Error| ReadError::Unavailable(format!("failed to read {}: {error}", shown(path)));
    let bytes = fs::metadata(path).map_err(gone)?.len();
    if bytes > excel_max {
        return Err(ReadError::bad(
            format!("{} has {bytes} bytes", shown(path)),
            format!(
                "a workbook has at most `excel_max`, {}: save it as CSV, which has no bound, or set another",
                base::ByteSize(excel_max)
            ),
        ));
    }
    fs::read(path).map_err(gone)
}

fn encoding_of(path: &Path, name: &str, options: &FileTable) -> Result<Encoding, ReadError> {
    if let Some(label) = &options.encoding {
        return Encoding::named(label).ok_or_else(|| {
            ReadError::bad(
                format!("`{label}` is no encoding"),
                "write utf-8, gbk, big5, utf-16le or another that browsers know",
            )
        });
    }
    let gone = |error: std::io::Error| ReadError::Unavailable(format!("failed to read {name}: {error}"));
    match encoding::detect(File::open(path).map_err(gone)?).map_err(gone)? {
        Verdict::Is(encoding) => Ok(encoding),
        Verdict::Unclear => Err(ReadError::bad(
            format!("the encoding of {name} cannot be told by its bytes"),
            "set it: `encoding: gbk`, big5, windows-1252, …",
        )),
    }
}

fn being_written(name: &str) -> ReadError {
    ReadError::Unavailable(format!("{name} is being written: it changed while it was read"))
}

fn shown(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a name is as a pattern says: `*` for any characters, `?` for one.
fn matches(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    let (mut at, mut in_pattern, mut star) = (0, 0, None);
    while at < name.len() {
        match pattern.get(in_pattern) {
            Some('*') => {
                star = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(c) if *c == '?' || *c == name[at] => {
                at += 1;
                in_pattern += 1;
            }
            _ => match star {
                // The last star takes one more.
                Some((star_at, from)) => {
                    star = Some((star_at, from + 1));
                    in_pattern = star_at + 1;
                    at = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|c| *c == '*')
}
