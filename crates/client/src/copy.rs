//! A copy of a shape in a SQLite file.
//!
//! ```text
//! DB_TABLE(columns of the shape, PRIMARY KEY (its key))            for the application; called as the source's table
//! tidemill_copies(name, shape, token, lsn, columns, rows, checksum, generation, stale)
//! tidemill_keys_NAME(key, lsn, hash, generation)                    of each row: its last change, and what it adds to the checksum
//! ```
//! Rows and token are written in one transaction, so that a copy is always at its token, however it was ended.

use crate::hash::row_hash;
use proto::v1::subscribe_response::Event;
use proto::v1::value::Kind;
use proto::v1::{Change, Column, Op, Shape, SubscribeResponse, Value};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use std::path::Path;

/// Rows that are removed at once when a snapshot did not bring them again.
const SWEEP_ROWS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("failed to write the copy")]
    Sql(#[from] rusqlite::Error),
    #[error("the copy is of another shape: {0}")]
    OtherShape(String),
    #[error("the server sent what does not fit: {0}")]
    Protocol(String),
    #[error("failed to read what the copy's file says of itself")]
    Malformed(#[from] serde_json::Error),
    /// The copy was emptied: it is to be filled again without a token.
    #[error("the copy has {own:?}, and the source {wanted:?}: it was emptied")]
    Differs { own: Totals, wanted: Totals },
}

/// How many rows a copy has, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub rows: u64,
    pub checksum: u64,
}

/// A copy that is open.
pub struct Copy {
    connection: Connection,
    /// The table of the copy; also its name in the file's own tables.
    name: String,
    token: Vec<u8>,
    lsn: u64,
    columns: Vec<Column>,
    totals: Totals,
    generation: i64,
    /// A snapshot is on its way, and rows of older generations are out of date.
    stale: bool,
    open: bool,
    statements: Statements,
}

#[derive(Default)]
struct Statements {
    put: String,
    remove: String,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Copy {
    /// Opens the file, or makes it.
    pub fn open(path: &Path, shape: &Shape) -> Result<Self, CopyError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000;
             CREATE TABLE IF NOT EXISTS tidemill_copies (name TEXT PRIMARY KEY, shape TEXT NOT NULL, token BLOB NOT NULL,
               lsn INTEGER NOT NULL, columns TEXT NOT NULL, rows INTEGER NOT NULL, checksum INTEGER NOT NULL,
               generation INTEGER NOT NULL, stale INTEGER NOT NULL) STRICT;",
        )?;
        connection.set_prepared_statement_cache_capacity(32);
        let name = shape.table.rsplit_once('.').map_or(shape.table.as_str(), |(_, table)| table).to_owned();
        let mut said = serde_json::json!({
            "source": shape.source, "table": shape.table, "columns": shape.columns, "where": shape.r#where,
        });
        if shape.limit > 0 {
            let order: Vec<_> = shape.order_by.iter().map(|by| (&by.column, by.descending)).collect();
            said["order_by"] = serde_json::json!(order);
            said["limit"] = shape.limit.into();
        }
        let said = said.to_string();
        type Kept = (String, Vec<u8>, i64, String, i64, i64, i64, bool);
        let kept: Option<Kept> = connection
            .query_row(
                "SELECT shape, token, lsn, columns, rows, checksum, generation, stale FROM tidemill_copies WHERE name = ?1",
                [&name],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?)),
            )
            .optional()?;
        let mut own = Self {
            connection,
            name,
            token: Vec::new(),
            lsn: 0,
            columns: Vec::new(),
            totals: Totals::default(),
            generation: 1,
            stale: false,
            open: false,
            statements: Statements::default(),
        };
        match kept {
            Some((of, ..)) if of != said => return Err(CopyError::OtherShape(of)),
            Some((_, token, lsn, columns, rows, checksum, generation, stale)) => {
                (own.token, own.lsn) = (token, lsn as u64);
                own.columns = columns_of(&columns)?;
                own.totals = Totals { rows: rows as u64, checksum: checksum as u64 };
                (own.generation, own.stale) = (generation, stale);
                own.prepare();
            }
            None => {
                own.connection.execute(
                    "INSERT INTO tidemill_copies VALUES (?1, ?2, x'', 0, '[]', 0, 0, 1, 0)",
                    params![own.name, said],
                )?;
                let keys = own.keys();
                own.connection.execute_batch(&format!(
                    "CREATE TABLE {keys} (key BLOB PRIMARY KEY, lsn INTEGER NOT NULL, hash INTEGER NOT NULL,
                       generation INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
                ))?;
            }
        }
        Ok(own)
    }

    /// The token to come again with; empty for a copy that has nothing.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The table's name in the file.
    pub fn table(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> String {
        quoted(&format!("tidemill_keys_{}", self.name))
    }

    fn begin(&mut self) -> Result<(), CopyError> {
        if !std::mem::replace(&mut self.open, true) {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    /// Takes a response in; [`Copy::commit`] makes it last.
    pub fn apply(&mut self, response: &SubscribeResponse) -> Result<(), CopyError> {
        self.begin()?;
        match &response.event {
            Some(Event::Schema(schema)) => self.reshape(&schema.columns)?,
            Some(Event::Batch(batch)) => {
                for change in &batch.changes {
                    self.take(change)?;
                }
            }
            // The token is dropped too: with what comes now, it would no longer say what is here.
            Some(Event::Reset(_)) => {
                (self.generation, self.stale) = (self.generation + 1, true);
                (self.token, self.lsn) = (Vec::new(), 0);
            }
            Some(Event::SnapshotEnd(_)) if self.stale => self.sweep()?,
            Some(Event::Checkpoint(wanted)) => {
                let wanted = Totals { rows: wanted.rows, checksum: wanted.checksum };
                // Until a snapshot has ended, rows that go with it are still here.
                if !self.stale && wanted != self.totals {
                    let own = self.totals;
                    self.empty()?;
                    return Err(CopyError::Differs { own, wanted });
                }
            }
            _ => {}
        }
        if !response.token.is_empty() {
            self.token.clone_from(&response.token);
            self.lsn = response.lsn;
        }
        Ok(())
    }

    /// Makes what was applied last.
    pub fn commit(&mut self) -> Result<(), CopyError> {
        if !self.open {
            return Ok(());
        }
        let (rows, checksum) = (self.totals.rows as i64, self.totals.checksum as i64);
        self.connection
            .prepare_cached(
                "UPDATE tidemill_copies SET token = ?2, lsn = ?3, rows = ?4, checksum = ?5, generation = ?6, stale = ?7
                 WHERE name = ?1",
            )?
            .execute(params![self.name, self.token, self.lsn as i64, rows, checksum, self.generation, self.stale])?;
        self.connection.execute_batch("COMMIT")?;
        self.open = false;
        Ok(())
    }

    /// Forgets all rows and the token.
    fn empty(&mut self) -> Result<(), CopyError> {
        let (table, keys) = (quoted(&self.name), self.keys());
        if !self.columns.is_empty() {
            self.connection.execute_batch(&format!("DELETE FROM {table}; DELETE FROM {keys}"))?;
        }
        (self.token, self.lsn, self.totals, self.stale) = (Vec::new(), 0, Totals::default(), false);
        self.commit()
    }

    fn prepare(&mut self) {
        let table = quoted(&self.name);
        let marks: Vec<String> = (1..=self.columns.len()).map(|place| format!("?{place}")).collect();
        let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        self.statements.put =
            format!("INSERT OR REPLACE INTO {table} ({}) VALUES ({})", names.join(", "), marks.join(", "));
        let key: Vec<String> = key_columns(&self.columns)
            .iter()
            .enumerate()
            .map(|(place, index)| format!("{} = ?{}", quoted(&self.columns[*index].name), place + 1))
            .collect();
        self.statements.remove = format!("DELETE FROM {table} WHERE {}", key.join(" AND "));
    }

    /// The table has these columns from now on. What a column held stays, also under another name.
    fn reshape(&mut self, columns: &[Column]) -> Result<(), CopyError> {
        let same = |own: &Column, new: &Column| {
            own.name == new.name
                && own.r#type == new.r#type
                && own.nullable == new.nullable
                && own.key == new.key
        };
        let is_same = self.columns.len() == columns.len()
            && self.columns.iter().zip(columns).all(|(own, new)| same(own, new));
        if is_same {
            return Ok(());
        }
        let table = quoted(&self.name);
        let before = std::mem::replace(&mut self.columns, columns.to_vec());
        let definitions: Vec<String> = columns
            .iter()
            .map(|column| format!("{} {}", quoted(&column.name), affinity(&column.r#type)))
            .collect();
        let key: Vec<String> =
            key_columns(columns).iter().map(|index| quoted(&columns[*index].name)).collect();
        if key.is_empty() {
            return Err(CopyError::Protocol("a schema without a key".into()));
        }
        let made = format!("({}, PRIMARY KEY ({})) WITHOUT ROWID", definitions.join(", "), key.join(", "));
        if before.is_empty() {
            self.connection.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {table} {made}"))?;
        } else {
            let kept: Vec<(&Column, &Column)> = columns
                .iter()
                .filter_map(|new| {
                    let was = new.was.as_deref().filter(|was| !was.is_empty()).unwrap_or(&new.name);
                    before.iter().find(|old| old.name == was).map(|old| (new, old))
                })
                .collect();
            let list = |names: Vec<&str>| names.into_iter().map(quoted).collect::<Vec<_>>().join(", ");
            let into = list(kept.iter().map(|(new, _)| new.name.as_str()).collect());
            let from = list(kept.iter().map(|(_, old)| old.name.as_str()).collect());
            let old = quoted(&format!("tidemill_old_{}", self.name));
            self.connection.execute_batch(&format!(
                "ALTER TABLE {table} RENAME TO {old}; CREATE TABLE {table} {made};
                 INSERT OR IGNORE INTO {table} ({into}) SELECT {from} FROM {old}; DROP TABLE {old};"
            ))?;
        }
        self.prepare();
        let text = serde_json::to_string(
            &columns
                .iter()
                .map(|c| serde_json::json!([c.name, c.r#type, c.nullable, c.key]))
                .collect::<Vec<_>>(),
        )?;
        self.connection
            .execute("UPDATE tidemill_copies SET columns = ?2 WHERE name = ?1", params![self.name, text])?;
        if !before.is_empty() {
            self.count_again(&before)?;
        }
        Ok(())
    }

    /// Hashes are of other columns now, and keys may be of other types.
    fn count_again(&mut self, before: &[Column]) -> Result<(), CopyError> {
        let (table, keys) = (quoted(&self.name), self.keys());
        let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        let key = key_columns(&self.columns);
        let types: Vec<String> =
            key_columns(before).iter().map(|index| before[*index].r#type.clone()).collect();
        let mut totals = Totals::default();
        {
            let mut all = self.connection.prepare(&format!("SELECT {} FROM {table}", names.join(", ")))?;
            let mut note =
                self.connection.prepare(&format!("UPDATE {keys} SET key = ?2, hash = ?3 WHERE key = ?1"))?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                let values = self
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(index, column)| Ok(value_of(row.get_ref(index)?, &column.r#type)))
                    .collect::<Result<Vec<Value>, rusqlite::Error>>()?;
                let was = key
                    .iter()
                    .zip(&types)
                    .map(|(index, ty)| Ok(value_of(row.get_ref(*index)?, ty)))
                    .collect::<Result<Vec<Value>, rusqlite::Error>>()?;
                let hash = row_hash(&values);
                note.execute(params![key_bytes(&was), self.key_of(&values), hash as i64])?;
                totals.rows += 1;
                totals.checksum = totals.checksum.wrapping_add(hash);
            }
        }
        self.totals = totals;
        Ok(())
    }

    /// What a row's key is filed under.
    fn key_of(&self, values: &[Value]) -> Vec<u8> {
        let key: Vec<Value> =
            key_columns(&self.columns).iter().filter_map(|index| values.get(*index).cloned()).collect();
        key_bytes(&key)
    }

    fn take(&mut self, change: &Change) -> Result<(), CopyError> {
        let keys = self.keys();
        let lsn = change.lsn as i64;
        let op = Op::try_from(change.op).unwrap_or(Op::Unspecified);
        let key = match op {
            Op::Put if change.values.len() == self.columns.len() && !self.columns.is_empty() => {
                self.key_of(&change.values)
            }
            Op::Delete | Op::Leave if change.values.len() == key_columns(&self.columns).len() => {
                key_bytes(&change.values)
            }
            Op::Truncate => return self.truncate(lsn),
            _ => {
                return Err(CopyError::Protocol(format!(
                    "a change {} with {} values",
                    op.as_str_name(),
                    change.values.len()
                )));
            }
        };
        let held: Option<(i64, i64, i64)> = self
            .connection
            .prepare_cached(&format!("SELECT lsn, hash, generation FROM {keys} WHERE key = ?1"))?
            .query_row([&key], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .optional()?;
        // A row from before a reset gives way whatever its number: the source's history may have begun anew.
        if held.is_some_and(|(own, _, generation)| own > lsn && generation == self.generation) {
            return Ok(());
        }
        if let Some((_, hash, _)) = held {
            self.totals.rows -= 1;
            self.totals.checksum = self.totals.checksum.wrapping_sub(hash as u64);
        }
        if op == Op::Put {
            let hash = row_hash(&change.values);
            self.totals.rows += 1;
            self.totals.checksum = self.totals.checksum.wrapping_add(hash);
            self.connection
                .prepare_cached(&self.statements.put)?
                .execute(rusqlite::params_from_iter(change.values.iter().map(Bound)))?;
            self.connection
                .prepare_cached(&format!("INSERT OR REPLACE INTO {keys} VALUES (?1, ?2, ?3, ?4)"))?
                .execute(params![key, lsn, hash as i64, self.generation])?;
        } else if held.is_some() {
            self.connection
                .prepare_cached(&self.statements.remove)?
                .execute(rusqlite::params_from_iter(change.values.iter().map(Bound)))?;
            self.connection.prepare_cached(&format!("DELETE FROM {keys} WHERE key = ?1"))?.execute([key])?;
        }
        Ok(())
    }

    fn truncate(&mut self, lsn: i64) -> Result<(), CopyError> {
        self.remove_where("lsn < ?1", lsn)
    }

    /// A snapshot has ended: what it did not bring again goes.
    fn sweep(&mut self) -> Result<(), CopyError> {
        self.stale = false;
        self.remove_where("generation < ?1", self.generation)
    }

    fn remove_where(&mut self, condition: &str, bound: i64) -> Result<(), CopyError> {
        let keys = self.keys();
        loop {
            let found: Vec<(Vec<u8>, i64)> = {
                let sql = format!("SELECT key, hash FROM {keys} WHERE {condition} LIMIT {SWEEP_ROWS}");
                let mut query = self.connection.prepare_cached(&sql)?;
                query.query_map([bound], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?
            };
            for (key, hash) in &found {
                let values = values_of_key(key);
                self.connection
                    .prepare_cached(&self.statements.remove)?
                    .execute(rusqlite::params_from_iter(values.iter().map(Bound)))?;
                self.connection
                    .prepare_cached(&format!("DELETE FROM {keys} WHERE key = ?1"))?
                    .execute([key])?;
                self.totals.rows -= 1;
                self.totals.checksum = self.totals.checksum.wrapping_sub(*hash as u64);
            }
            if found.len() < SWEEP_ROWS {
                return Ok(());
            }
        }
    }
}

fn columns_of(text: &str) -> Result<Vec<Column>, serde_json::Error> {
    let all: Vec<(String, String, bool, u32)> = serde_json::from_str(text)?;
    Ok(all
        .into_iter()
        .map(|(name, r#type, nullable, key)| Column { name, r#type, nullable, key, was: None })
        .collect())
}

/// Indexes of the key's columns, in its order.
fn key_columns(columns: &[Column]) -> Vec<usize> {
    let mut key: Vec<usize> = (0..columns.len()).filter(|index| columns[*index].key > 0).collect();
    key.sort_by_key(|index| columns[*index].key);
    key
}

/// A key's values, so that they can be had again.
fn key_bytes(values: &[Value]) -> Vec<u8> {
    let key = Change { values: values.to_vec(), ..Change::default() };
    proto::encode(&key)
}

fn values_of_key(bytes: &[u8]) -> Vec<Value> {
    proto::decode::<Change>(bytes).map(|change| change.values).unwrap_or_default()
}

/// SQLite keeps whole numbers as such, and what it cannot hold as text.
fn affinity(ty: &str) -> &'static str {
    let ty = ty.to_ascii_lowercase();
    let is = |names: &[&str]| names.iter().any(|name| ty.starts_with(name));
    if ty.starts_with("bigint") && ty.contains("unsigned") || is(&["bit"]) {
        ""
    } else if is(&["tinyint", "smallint", "mediumint", "int", "bigint", "year"]) {
        "INTEGER"
    } else if is(&["float", "double"]) {
        "REAL"
    } else if is(&["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"])
        || is(&["geom", "point", "line", "poly", "multi"])
    {
        "BLOB"
    } else {
        "TEXT"
    }
}

struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        use rusqlite::types::{Value as Owned, ValueRef};
        Ok(match &self.0.kind {
            None | Some(Kind::Null(_)) => ToSqlOutput::Owned(Owned::Null),
            Some(Kind::Int(v)) => ToSqlOutput::Owned(Owned::Integer(*v)),
            Some(Kind::Uint(v)) => match i64::try_from(*v) {
                Ok(v) => ToSqlOutput::Owned(Owned::Integer(v)),
                Err(_) => ToSqlOutput::Owned(Owned::Text(v.to_string())),
            },
            Some(Kind::Double(v)) => ToSqlOutput::Owned(Owned::Real(*v)),
            Some(Kind::Text(v)) => ToSqlOutput::Borrowed(ValueRef::Text(v.as_bytes())),
            Some(Kind::Bytes(v)) => ToSqlOutput::Borrowed(ValueRef::Blob(v)),
        })
    }
}

/// A value as the server would send it, by its column's type.
fn value_of(value: rusqlite::types::ValueRef<'_>, ty: &str) -> Value {
    use rusqlite::types::ValueRef;
    let ty = ty.to_ascii_lowercase();
    let unsigned = ty.contains("unsigned") || ty.starts_with("year") || ty.starts_with("bit");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = match value {
        ValueRef::Null => Kind::Null(true),
        ValueRef::Integer(v) if unsigned => Kind::Uint(v as u64),
        ValueRef::Integer(v) => Kind::Int(v),
        ValueRef::Real(v) => Kind::Double(v),
        ValueRef::Text(v) if unsigned => match text(v).parse() {
            Ok(v) => Kind::Uint(v),
            Err(_) => Kind::Text(text(v)),
        },
        ValueRef::Text(v) => Kind::Text(text(v)),
        ValueRef::Blob(v) => Kind::Bytes(v.to_vec()),
    };
    Value { kind: Some(kind) }
}
