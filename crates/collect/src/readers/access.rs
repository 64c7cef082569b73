//! `kind: access`: the tables of a Microsoft Access file, 97 to 2019.
//!
//! The file is copied into a temporary folder and the copy is read: who has the file open is not disturbed, and a file that changes while
//! it is copied is told from a whole one. What the library cannot make sense of, a panic of its own too, is an error of the file.
//!
//! | Access | here |
//! |---|---|
//! | Yes/No, Byte, Integer, Long, Large Number | TINYINT(1), TINYINT UNSIGNED, SMALLINT, INT, BIGINT |
//! | Single, Double, Decimal, Currency | FLOAT, DOUBLE, DECIMAL(p,s), DECIMAL(19,4) |
//! | Date/Time, Date/Time Extended | DATETIME, DATETIME(6) |
//! | Short Text, Long Text, Hyperlink | VARCHAR(n), LONGTEXT |
//! | Replication ID | UUID, without braces |
//! | Binary, OLE Object | VARBINARY(n), LONGBLOB |
//! | attachments and fields of several values | are left out |

use super::cell::STOPPED;
use super::config::AccessConfig;
use super::files::blocking;
use super::infer;
use super::outlet::{Outlet, Selection};
use crate::reader::{Batches, Described, ReadError, Reader, Scope, batches};
use async_trait::async_trait;
use base::{Column, ColumnType, Date, DateTime, Value};
use jetdb::{ColumnType as Kind, FileError, PageReader, TableDef, TableRows};
use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// What Access itself can open.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of a LONGBLOB and a LONGTEXT.
const LONG: u64 = 4_294_967_295;
/// Days since 1899-12-30 that Access stores: of the years 100 to 9999.
const DAYS: std::ops::Range<f64> = -657_435.0..2_958_466.0;

/// A file that is named; it is opened when it is first asked for something.
pub struct Access {
    config: AccessConfig,
    path: PathBuf,
    copy: Option<Arc<NamedTempFile>>,
}

impl Access {
    pub fn new(config: AccessConfig, project: &Path) -> Self {
        let path = project.join(&config.path);
        Self { config, path, copy: None }
    }

    /// Does something with the copy, on a thread of its own.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut File) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let copy = self.copied().await?;
        let (name, config) = (self.name(), self.config.clone());
        blocking(move || guarded(&name, || work(&mut File::open(&name, copy.path(), &config)?))).await
    }

    async fn copied(&mut self) -> Result<Arc<NamedTempFile>, ReadError> {
        if let Some(copy) = &self.copy {
            return Ok(Arc::clone(copy));
        }
        let (path, name) = (self.path.clone(), self.name());
        let copy = Arc::new(blocking(move || copy(&path, &name)).await?);
        self.copy = Some(Arc::clone(&copy));
        Ok(copy)
    }

    fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

#[async_trait]
impl Reader for Access {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        self.with(File::tables).await
    }

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError> {
        let table = table.to_owned();
        self.with(move |file| Ok(file.table(&table)?.described())).await
    }

    /// Rows come as they stand in the file.
    fn in_order(&self) -> bool {
        false
    }

    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError> {
        let selection = Selection::new(table, &scope)?;
        let copy = self.copied().await?;
        let (name, config, table) = (self.name(), self.config.clone(), table.clone());
        let (sender, receiver) = batches();
        tokio::task::spawn_blocking(move || {
            let mut outlet = Outlet::new(&sender, &table, selection, &[]);
            let result = guarded(&name, || {
                let mut file = File::open(&name, copy.path(), &config)?;
                file.table(&table.table)?.read(&mut file, &table, &mut outlet)?;
                outlet.flush()
            });
            // Who went away does not want to know how it ended.
            if result != Err(ReadError::Internal(STOPPED.to_owned())) {
                sender.end_blocking(result);
            }
        });
        Ok(receiver)
    }
}

/// A copy of a file that did not change meanwhile.
fn copy(path: &Path, name: &str) -> Result<NamedTempFile, ReadError> {
    let gone = |error: std::io::Error| ReadError::Unavailable(format!("failed to read {name}: {error}"));
    let before = fs::metadata(path).map_err(gone)?;
    if before.len() > FILE_BYTES_MAX {
        return Err(damaged(name, &format!("it has {} bytes, more than Access can open", before.len())));
    }
    let mut target = NamedTempFile::new()
        .map_err(|error| ReadError::Unavailable(format!("failed to make a copy of {name}: {error}")))?;
    let mut source = fs::File::open(path).map_err(gone)?;
    std::io::copy(&mut source, &mut target).map_err(gone)?;
    let after = fs::metadata(path).map_err(gone)?;
    if after.len() != before.len() || after.modified().ok() != before.modified().ok() {
        return Err(ReadError::Unavailable(format!(
            "{name} is being written: it changed while it was copied"
        )));
    }
    Ok(target)
}

/// A panic of the library is an error of the file.
fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(name, &"what it holds makes no sense")))
}

fn damaged(name: &str, why: &dyn std::fmt::Display) -> ReadError {
    ReadError::bad(
        format!("{name} cannot be read as an Access file: {why}"),
        "open it in Access and choose Compact and Repair; a file that is still being copied is whole later",
    )
}

struct File {
    name: String,
    pages: PageReader,
}

struct Table {
    definition: TableDef,
    calculated: HashMap<String, Kind>,
    /// Index in the definition of each column that is told.
    columns: Vec<usize>,
}

impl File {
    fn open(name: &str, copy: &Path, config: &AccessConfig) -> Result<Self, ReadError> {
        let password = config.password.as_ref().map(|password| password.expose());
        let pages = PageReader::open_with_password(copy, password).map_err(|error| refusal(name, &error))?;
        Ok(Self { name: name.to_owned(), pages })
    }

    fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        let mut names = jetdb::table_names(&mut self.pages).map_err(|error| refusal(&self.name, &error))?;
        names.sort();
        Ok(names)
    }

    fn table(&mut self, name: &str) -> Result<Table, ReadError> {
        let refused = |error: FileError| refusal(&self.name, &error);
        let catalog = jetdb::read_catalog(&mut self.pages).map_err(refused)?;
        let entry = match jetdb::find_table(&catalog, name) {
            Ok(entry) if !entry.is_system_or_hidden() => entry,
            _ => return Err(ReadError::NoTable(name.to_owned())),
        };
        let definition =
            jetdb::read_table_def(&mut self.pages, &entry.name, entry.table_page).map_err(refused)?;
        let calculated = jetdb::calculated_column_types_in(&catalog, &definition);
        let mut shown: Vec<usize> = (0..definition.columns.len())
            .filter(|at| {
                let column = &definition.columns[*at];
                column.is_shown(false) && !matches!(column.col_type, Kind::ComplexType | Kind::Unknown(_))
            })
            .collect();
        shown.sort_by_key(|at| definition.columns[*at].display_index);
        Ok(Table { definition, calculated, columns: shown })
    }
}

impl Table {
    fn described(&self) -> Described {
        let indexes = &self.definition.indexes;
        let primary = indexes.iter().find(|index| index.index_type == jetdb::format::index_type::PRIMARY);
        let name_of = |number: u16| self.definition.columns.iter().find(|column| column.col_num == number);
        let key: Vec<String> = primary
            .map(|index| {
                index.columns.iter().filter_map(|part| Some(name_of(part.col_num)?.name.clone())).collect()
            })
            .unwrap_or_default();
        let columns = self.columns.iter().map(|at| {
            let mut column = self.column(*at);
            column.nullable = !key.contains(&column.name);
            column
        });
        Described { table: self.definition.name.clone(), columns: columns.collect(), key }
    }

    fn column(&self, at: usize) -> Column {
        let column = &self.definition.columns[at];
        let kind = self.calculated.get(&column.name.to_lowercase()).copied().unwrap_or(column.col_type);
        let ty = match kind {
            Kind::Boolean => ColumnType::TinyInt { unsigned: false },
            Kind::Byte => ColumnType::TinyInt { unsigned: true },
            Kind::Int => ColumnType::SmallInt { unsigned: false },
            Kind::Long => ColumnType::Int { unsigned: false },
            Kind::BigInt => ColumnType::BigInt { unsigned: false },
            Kind::Float => ColumnType::Float,
            Kind::Double => ColumnType::Double,
            Kind::Money => ColumnType::Decimal { precision: 19, scale: 4 },
            // 28 digits are what a Decimal of Access has at most; a computed one does not say its own.
            Kind::Numeric if column.precision == 0 => {
                ColumnType::Decimal { precision: 38, scale: column.scale.min(28) }
            }
            Kind::Numeric => {
                ColumnType::Decimal { precision: column.precision.min(65), scale: column.scale.min(30) }
            }
            Kind::Timestamp => ColumnType::DateTime { fsp: 0 },
            Kind::DateTimeExtended => ColumnType::DateTime { fsp: 6 },
            Kind::Guid => ColumnType::Uuid,
            Kind::Text => {
                ColumnType::Text { chars_max: u64::from(self.definition.shown_size(column)).max(1) }
            }
            Kind::Binary if column.col_size > 0 => {
                ColumnType::VarBinary { bytes_max: column.col_size.into() }
            }
            Kind::Binary | Kind::Ole => ColumnType::VarBinary { bytes_max: LONG },
            _ => ColumnType::Text { chars_max: LONG },
        };
        let uuid = ty == ColumnType::Uuid;
        let mut told = infer::column(&column.name, ty);
        if uuid {
            "uuid".clone_into(&mut told.sql_type);
        }
        told
    }

    /// Gives the rows in the order of what was described before, by the columns' names.
    fn read(&self, file: &mut File, wanted: &Described, outlet: &mut Outlet<'_>) -> Result<(), ReadError> {
        let name = &wanted.table;
        let mut sources: Vec<Option<usize>> = Vec::with_capacity(wanted.columns.len());
        for column in &wanted.columns {
            let found = self.columns.iter().find(|at| self.definition.columns[**at].name == column.name);
            sources.push(found.copied());
        }
        let numbers: Vec<usize> = sources.iter().flatten().copied().collect();
        let mut rows = TableRows::new(&self.definition, &self.calculated).with_columns(&numbers);
        let (mut told, mut skipped) = (0_u64, 0);
        let refused = |error: FileError| refusal(&file.name, &error);
        while let Some(at) = rows.peek(&mut file.pages).map_err(refused)? {
            let place = || format!("{}:{name}, page {}, row {}", file.name, at.page + 1, at.row + 1);
            told += 1;
            let Some(row) = rows.next_row(&mut file.pages).map_err(refused)? else {
                outlet.put_bad(place(), String::new(), "the row's bytes make no sense".to_owned())?;
                continue;
            };
            let values = sources.iter().zip(&wanted.columns).map(|(source, column)| match source {
                Some(source) => value(&row.values[*source], column),
                None => Ok(Value::Null),
            });
            match values.collect::<Result<Vec<_>, _>>() {
                Ok(values) => outlet.put(values)?,
                Err(reason) => outlet.put_bad(place(), format!("{:?}", row.values), reason)?,
            }
        }
        skipped += rows.skipped_rows() as u64;
        let says = u64::from(self.definition.num_rows);
        if skipped > 0 || told < says {
            let reason = format!(
                "the table says that it has {says} rows, {told} were found, and of {skipped} the bytes make no sense: Compact and Repair"
            );
            outlet.put_bad(format!("{}:{name}", file.name), String::new(), reason)?;
        }
        Ok(())
    }
}

fn value(value: &jetdb::Value, column: &Column) -> Result<Value, String> {
    use jetdb::Value as Theirs;
    let wrong = |shown: &dyn std::fmt::Display| {
        Err(format!("column {}: `{shown}` is no {}", column.name, column.sql_type))
    };
    Ok(match value {
        Theirs::Null => Value::Null,
        Theirs::Bool(it) => Value::Int(i64::from(*it)),
        Theirs::Byte(it) => Value::UInt(u64::from(*it)),
        Theirs::Int(it) => Value::Int(i64::from(*it)),
        Theirs::Long(it) => Value::Int(i64::from(*it)),
        Theirs::BigInt(it) => Value::Int(*it),
        Theirs::Float(it) => Value::Float(*it),
        Theirs::Double(it) => Value::Double(*it),
        Theirs::Text(text) => Value::Text(text.clone()),
        Theirs::Binary(bytes) => Value::Bytes(bytes.clone()),
        Theirs::Money(text) | Theirs::Numeric(text) => {
            let ColumnType::Decimal { precision, scale } = column.ty else { return wrong(text) };
            match infer::decimal(text, precision, scale) {
                Some(text) => Value::Decimal(text),
                None => return wrong(text),
            }
        }
        Theirs::Timestamp(days) if DAYS.contains(days) => {
            let (year, month, day, hour, minute, second) = jetdb::timestamp::timestamp_to_parts(*days);
            let small = |it: u32| it as u8;
            Value::DateTime(DateTime {
                date: Date { year: year as u16, month: small(month), day: small(day) },
                hour: small(hour),
                minute: small(minute),
                second: small(second),
                micro: 0,
            })
        }
        Theirs::Timestamp(days) => return wrong(days),
        Theirs::DateTimeExtended(text) => match infer::temporal(text, &[]) {
            Some(infer::Temporal::DateTime(it, _)) => Value::DateTime(it),
            _ => return wrong(text),
        },
        Theirs::Guid(text) => Value::Text(text.trim_matches(['{', '}']).to_ascii_lowercase()),
        other => return wrong(&format!("{other:?}")),
    })
}

fn refusal(name: &str, error: &FileError) -> ReadError {
    match error {
        FileError::PasswordRequired => ReadError::Denied {
            message: format!("{name} is protected by a password"),
            hint: "set it: `password: ${env:NAME}`".to_owned(),
        },
        FileError::InvalidPassword => ReadError::Denied {
            message: format!("{name} does not open with this password"),
            hint: "`password` is the database's own, not that of a user".to_owned(),
        },
        FileError::UnsupportedEncryption { reason } => ReadError::bad(
            format!("{name} is encrypted in a way that is not supported: {reason}"),
            "save it in Access without a password, or with the encryption of Access 2010 and later",
        ),
        other => damaged(name, other),
    }
}
