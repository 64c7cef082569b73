//! `lookup`: rows of a file of the project by one of its columns, read whole, once, when the flow's rules are compiled; or rows
//! of another table of the source, read of its mirror for each row.

use super::config::LookupStep;
use super::typed::{TYPES, Typed};
use crate::mirror::Mirror;
use crate::mirror::key;
use crate::mirror::read::{MirrorReader, ReadError};
use crate::transform::mask;
use base::{Column, ColumnType, TableName, Value, ValueRef};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file is no larger than this: it is held in memory, once a flow.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A `lookup` step, compiled.
#[derive(Clone, Debug)]
pub struct Lookup {
    rows: Rows,
    default: Vec<Value>,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug)]
enum Rows {
    File(Arc<HashMap<String, Vec<Value>>>),
    Table(Arc<OfTable>),
}

/// Rows of another table.
struct OfTable {
    table: TableName,
    key: String,
    columns: Vec<(String, Typed)>,
    /// `None` where the rules are only checked.
    reader: Mutex<Option<MirrorReader>>,
}

impl std::fmt::Debug for OfTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfTable").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Lookup {
    /// `step.file` is absolute: the project has put its folder before it.
    pub fn compile(step: &LookupStep) -> Result<Self, String> {
        let types: Vec<(&str, Typed)> = step
            .columns
            .iter()
            .map(|(name, ty)| {
                let ty =
                    Typed::parse(ty).ok_or_else(|| format!("`{ty}` is not a type: there are {TYPES}"))?;
                Ok((name.as_str(), ty))
            })
            .collect::<Result<_, String>>()?;
        if types.is_empty() {
            return Err("`columns` is empty".to_owned());
        }
        if let Some(name) = step.default.keys().find(|name| !step.columns.contains_key(*name)) {
            return Err(format!("`default` names `{name}`, which is not among `columns`"));
        }
        let default = types
            .iter()
            .map(|(name, ty)| step.default.get(*name).map_or(Ok(Value::Null), |text| ty.read(text)));
        let default = default.collect::<Result<_, _>>().map_err(|reason| format!("`default`: {reason}"))?;
        let columns = types.iter().map(|(name, ty)| ty.column(name)).collect();
        let file = match (&step.file, &step.table) {
            (Some(file), None) => file,
            (None, Some(table)) => {
                let table = OfTable::new(table, step, &types)?;
                return Ok(Self { rows: Rows::Table(Arc::new(table)), default, columns });
            }
            _ => return Err("it needs either `file` or `table`".to_owned()),
        };
        let shown = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let in_file = |reason: String| format!("the file `{shown}`: {reason}");
        let rows = read(file, &step.key, &types).map_err(in_file)?;
        Ok(Self { rows: Rows::File(Arc::new(rows)), default, columns })
    }

    /// Whether it reads the mirror of the flow's source.
    pub fn is_of_table(&self) -> bool {
        matches!(self.rows, Rows::Table(_))
    }

    /// From now on it reads this mirror.
    pub fn attach(&self, mirror: &Mirror) {
        if let Rows::Table(of) = &self.rows {
            *of.lock() = Some(MirrorReader::new(mirror.clone()));
        }
    }

    /// Begins a look at the mirror at or behind a change; waits for it.
    pub fn look(&self, lsn: u64, gone: impl Future<Output = ()>) -> Result<(), ReadError> {
        let Rows::Table(of) = &self.rows else { return Ok(()) };
        match &mut *of.lock() {
            Some(reader) => reader.look(lsn, std::slice::from_ref(&of.table), gone),
            None => Ok(()),
        }
    }

    pub fn end(&self) -> Result<(), ReadError> {
        let Rows::Table(of) = &self.rows else { return Ok(()) };
        of.lock().as_mut().map_or(Ok(()), MirrorReader::end)
    }

    /// `key` is the value as text, `value` as it is.
    pub fn apply(&self, key: Option<&str>, value: ValueRef<'_>, out: &mut Vec<Value>) -> Result<(), String> {
        match &self.rows {
            Rows::File(rows) => {
                let found = key.and_then(|key| rows.get(key));
                out.extend(found.unwrap_or(&self.default).iter().cloned());
            }
            Rows::Table(of) => match of.find(value)? {
                Some(found) => out.extend(found),
                None => out.extend(self.default.iter().cloned()),
            },
        }
        Ok(())
    }
}

impl OfTable {
    fn new(table: &str, step: &LookupStep, types: &[(&str, Typed)]) -> Result<Self, String> {
        let name = table.split_once('.').filter(|_| !table.contains(['*', '?']));
        let (db, own) = name.ok_or_else(|| format!("`{table}` is no table: write db.table"))?;
        Ok(Self {
            table: TableName::new(db, own),
            key: step.key.clone(),
            columns: types.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect(),
            reader: Mutex::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<MirrorReader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The columns of the row whose key has this value.
    fn find(&self, value: ValueRef<'_>) -> Result<Option<Vec<Value>>, String> {
        let mut reader = self.lock();
        let reader = reader.as_mut().ok_or("the mirror of the source is not at hand")?;
        let told = |error: ReadError| base::error::chain(&error);
        let is_single = !reader.is_looking();
        if is_single && !reader.look_now(0, std::slice::from_ref(&self.table)).map_err(told)? {
            return Err("the mirror of the source is not whole now".to_owned());
        }
        let found = self.read(reader, value);
        if is_single {
            reader.end().map_err(told)?;
        }
        found
    }

    fn read(&self, reader: &mut MirrorReader, value: ValueRef<'_>) -> Result<Option<Vec<Value>>, String> {
        let told = |error: ReadError| base::error::chain(&error);
        let Some(table) = reader.table(&self.table).map_err(told)? else { return Ok(None) };
        let lacks = |name: &str| format!("`{}` has no column `{name}`", self.table);
        let by = std::slice::from_ref(&self.key);
        let access = table.access(by).ok_or_else(|| lacks(&self.key))?;
        let Some(joined) = key::joined([Some(value)]) else { return Ok(None) };
        let Some(row) = reader.linked(&table, &access, &joined, 1).map_err(told)?.pop() else {
            return Ok(None);
        };
        let mut out = Vec::with_capacity(self.columns.len());
        for (name, ty) in &self.columns {
            let Some(at) = row.table.column_index(name) else {
                // A row from before the column was added.
                if table.table.column_index(name).is_none() {
                    return Err(lacks(name));
                }
                out.push(Value::Null);
                continue;
            };
            let labels = match &row.table.columns[at].ty {
                ColumnType::Enum { labels } | ColumnType::Set { labels } => &labels[..],
                _ => &[],
            };
            let value = row.view().get(at).map_err(|error| error.to_string())?;
            out.push(match value.filter(|value| *value != ValueRef::Null) {
                None => Value::Null,
                Some(value) => {
                    ty.read(&mask::text(value, labels)).map_err(|reason| format!("`{name}`: {reason}"))?
                }
            });
        }
        Ok(Some(out))
    }
}

fn read(path: &Path, key: &str, types: &[(&str, Typed)]) -> Result<HashMap<String, Vec<Value>>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes; at most {FILE_BYTES_MAX} are held in memory"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => read_csv(text, key, types),
        Some("json") => read_json(text, key, types),
        _ => Err("its name ends neither in .csv nor in .json".to_owned()),
    }
}

fn read_csv(text: &str, key: &str, types: &[(&str, Typed)]) -> Result<HashMap<String, Vec<Value>>, String> {
    let mut records = records(text)?.into_iter();
    let header = records.next().ok_or("it is empty")?.1;
    let place = |name: &str| {
        let found = header.iter().position(|own| own.trim() == name);
        found.ok_or_else(|| format!("it has no column `{name}`; there are: {}", header.join(", ")))
    };
    let key_at = place(key)?;
    let places = types.iter().map(|(name, _)| place(name)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = HashMap::new();
    for (line, record) in records {
        if record.len() != header.len() {
            return Err(format!("line {line} has {} columns, the first has {}", record.len(), header.len()));
        }
        let mut row = Vec::with_capacity(types.len());
        for ((name, ty), at) in types.iter().zip(&places) {
            let value = match record[*at].as_str() {
                "" => Value::Null,
                text => ty.read(text).map_err(|reason| format!("line {line}, `{name}`: {reason}"))?,
            };
            row.push(value);
        }
        if rows.insert(record[key_at].clone(), row).is_some() {
            return Err(format!("line {line}: {key} = {:?} was there before", record[key_at]));
        }
    }
    Ok(rows)
}

/// Records of RFC 4180 with the line each begins at: quotes around what holds commas, lines or quotes, which are doubled.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let (mut out, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut began, mut quoted) = (1, 1, false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            ',' if !quoted => record.push(std::mem::take(&mut cell)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut cell));
                let whole = std::mem::take(&mut record);
                if whole != [""] {
                    out.push((began, whole));
                }
                began = line;
            }
            c => cell.push(c),
        }
    }
    if quoted {
        return Err(format!("a quote in line {began} has no end"));
    }
    if !record.is_empty() || !cell.is_empty() {
        record.push(cell);
        out.push((began, record));
    }
    Ok(out)
}

fn read_json(text: &str, key: &str, types: &[(&str, Typed)]) -> Result<HashMap<String, Vec<Value>>, String> {
    type Object = serde_json::Map<String, serde_json::Value>;
    let list: Vec<Object> =
        serde_json::from_str(text).map_err(|error| format!("it is not a list of objects: {error}"))?;
    let text_of = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut rows = HashMap::new();
    for (place, object) in list.iter().enumerate() {
        let number = place + 1;
        let own = object.get(key).ok_or_else(|| format!("object {number} has no `{key}`"))?;
        let mut row = Vec::with_capacity(types.len());
        for (name, ty) in types {
            let value = match object.get(*name) {
                None | Some(serde_json::Value::Null) => Value::Null,
                Some(value) => ty
                    .read(&text_of(value))
                    .map_err(|reason| format!("object {number}, `{name}`: {reason}"))?,
            };
            row.push(value);
        }
        if rows.insert(text_of(own), row).is_some() {
            return Err(format!("object {number}: {key} = {own} was there before"));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::records;

    #[test]
    fn a_csv_may_hold_what_separates_it() {
        let text = "a,b\r\n\"x, \"\"y\"\"\nz\",1\n\nlast,";
        let cells: Vec<_> = records(text).unwrap().into_iter().collect();
        let owned = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            cells,
            [(1, owned(["a", "b"])), (2, owned(["x, \"y\"\nz", "1"])), (5, owned(["last", ""]))]
        );
        assert!(records("a\n\"b").is_err());
    }
}
