//! The last message of each row of a source's topics, in a file: however many rows there are, they take no memory.
//!
//! ```text
//! rows(tbl, key, part, at_ms, version, row)     tbl, part: numbers of ours; key: the texts of its values, each behind its
//!                                               length; row: in `base::row`'s encoding by that version of the table,
//!                                               NULL where it is gone
//! ```
//! A row has an entry for each partition that a message of its was in. The file has no name once it is open: it goes with
//! the process.

use crate::verify::VerifyError;
use base::{Column, RowBuf, Table, Value};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kibibytes of pages that are kept in memory.
const CACHE_KIB: u32 = 32 << 10;
/// Makes the names of files differ.
static FILES: AtomicU64 = AtomicU64::new(0);

pub struct Store {
    connection: Connection,
    /// By table: partitions in which a message emptied it, and when.
    emptied: Vec<(i64, i64, i64)>,
}

/// What the last message of one partition says of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub part: i64,
    pub at_ms: i64,
    /// The version of its table, and the row; `None` when it is gone.
    pub row: Option<(u32, RowBuf)>,
}

/// What is known of a row.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub row: Option<(u32, RowBuf)>,
    /// Whether messages of several partitions say different things of it.
    pub is_loose: bool,
    /// Whether there is any message of it.
    pub is_told: bool,
}

fn failed(error: rusqlite::Error) -> VerifyError {
    VerifyError::Scratch { message: error.to_string() }
}

fn entry(row: &Row<'_>, from: usize) -> rusqlite::Result<Entry> {
    let bytes: Option<Vec<u8>> = row.get(from + 3)?;
    let version = row.get(from + 2)?;
    Ok(Entry {
        part: row.get(from)?,
        at_ms: row.get(from + 1)?,
        row: bytes.map(|bytes| (version, RowBuf(bytes))),
    })
}

impl Store {
    pub fn new(folder: &Path) -> Result<Self, VerifyError> {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("verify-{}-{number}.db", std::process::id()));
        let connection = Connection::open(&path).map_err(failed)?;
        let setup = format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; \
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY; \
             CREATE TABLE rows (tbl INTEGER, key BLOB, part INTEGER, at_ms INTEGER, version INTEGER, row BLOB, \
             PRIMARY KEY (tbl, key, part)) WITHOUT ROWID"
        );
        let made = connection.execute_batch(&setup).map_err(failed);
        // Nobody else needs its name.
        let removed = std::fs::remove_file(&path);
        made?;
        removed.map_err(|error| VerifyError::Scratch { message: format!("{}: {error}", path.display()) })?;
        Ok(Self { connection, emptied: Vec::new() })
    }

    /// What is put until `end` is written together.
    pub fn begin(&self) -> Result<(), VerifyError> {
        self.connection.execute_batch("BEGIN").map_err(failed)
    }

    pub fn end(&self) -> Result<(), VerifyError> {
        self.connection.execute_batch("COMMIT").map_err(failed)
    }

    /// A message says this of a row.
    pub fn put(&self, table: i64, key: &[u8], entry: &Entry) -> Result<(), VerifyError> {
        let sql = "INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let (version, row) = entry.row.as_ref().map_or((0, None), |(version, row)| (*version, Some(&row.0)));
        statement.execute(params![table, key, entry.part, entry.at_ms, version, row]).map_err(failed)?;
        Ok(())
    }

    /// A message empties a table.
    pub fn empty(&mut self, table: i64, part: i64, at_ms: i64) -> Result<(), VerifyError> {
        let sql = "UPDATE rows SET row = NULL, at_ms = ?3 WHERE tbl = ?1 AND part = ?2 AND row IS NOT NULL";
        self.connection.execute(sql, params![table, part, at_ms]).map_err(failed)?;
        self.emptied.retain(|(own, place, _)| (*own, *place) != (table, part));
        self.emptied.push((table, part, at_ms));
        Ok(())
    }

    pub fn count(&self, table: i64) -> Result<u64, VerifyError> {
        let sql = "SELECT COUNT(*) FROM rows WHERE tbl = ?1 AND row IS NOT NULL";
        let count = self.connection.query_row(sql, [table], |row| row.get::<_, i64>(0)).optional();
        Ok(count.map_err(failed)?.unwrap_or(0).unsigned_abs())
    }

    pub fn find(&self, table: i64, key: &[u8]) -> Result<Found, VerifyError> {
        let sql = "SELECT part, at_ms, version, row FROM rows WHERE tbl = ?1 AND key = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map(params![table, key], |row| entry(row, 0)).map_err(failed)?;
        let entries = rows.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        Ok(self.resolve(table, entries))
    }

    /// The next rows that are there, in the order of their keys.
    pub fn page(&self, table: i64, after: &[u8], limit: usize) -> Result<Vec<(u32, RowBuf)>, VerifyError> {
        let sql = "SELECT key, part, at_ms, version, row FROM rows WHERE tbl = ?1 AND key > ?2 ORDER BY key";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params![table, after]).map_err(failed)?;
        let (mut out, mut own, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(row) = rows.next().map_err(failed)? {
            let key: Vec<u8> = row.get(0).map_err(failed)?;
            if key != own {
                out.extend(self.resolve(table, std::mem::take(&mut entries)).row);
                if out.len() >= limit {
                    return Ok(out);
                }
                own = key;
            }
            entries.push(entry(row, 1).map_err(failed)?);
        }
        out.extend(self.resolve(table, entries).row);
        Ok(out)
    }

    /// What the messages of all partitions say together: the latest counts.
    fn resolve(&self, table: i64, mut entries: Vec<Entry>) -> Found {
        let is_told = !entries.is_empty();
        for (own, part, at_ms) in &self.emptied {
            if is_told && *own == table && entries.iter().all(|entry| entry.part != *part) {
                entries.push(Entry { part: *part, at_ms: *at_ms, row: None });
            }
        }
        let Some(last) = entries.iter().max_by_key(|entry| (entry.at_ms, entry.part)) else {
            return Found::default();
        };
        let is_loose = entries.iter().any(|entry| entry.row != last.row);
        Found { row: last.row.clone(), is_loose, is_told }
    }
}

/// The texts of a key's values, each behind its length: the same whatever width its column has.
pub fn key_of<'v>(values: impl IntoIterator<Item = (&'v Value, &'v Column)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (value, column) in values {
        let text = base::json::value_text(value, column);
        // A number that became text stays itself.
        let text = serde_json::from_str::<String>(&text).unwrap_or(text);
        out.extend_from_slice(&(text.len() as u32).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The key of a row of `table`; `None` when a part of it is not there.
pub fn key_of_row(table: &Table, row: &RowBuf) -> Option<Vec<u8>> {
    let value = |index: &usize| row.view().get(*index).ok().flatten().map(|value| value.to_value());
    let values: Vec<Value> = table.key.iter().map(value).collect::<Option<_>>()?;
    Some(key_of(values.iter().zip(table.key.iter().map(|index| &table.columns[*index]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: i64) -> Option<(u32, RowBuf)> {
        Some((1, RowBuf::from_values([Value::Int(n).as_ref()])))
    }

    fn put(store: &Store, key: &[u8], part: i64, at_ms: i64, row: Option<(u32, RowBuf)>) {
        store.put(7, key, &Entry { part, at_ms, row }).unwrap();
    }

    #[test]
    fn the_latest_message_counts_and_partitions_that_disagree_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::new(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        store.begin().unwrap();
        put(&store, b"a", 0, 10, row(1));
        put(&store, b"a", 0, 9, row(2));
        put(&store, b"b", 0, 10, row(3));
        put(&store, b"b", 1, 11, None);
        put(&store, b"c", 1, 10, row(4));
        put(&store, b"d", 1, 10, row(5));
        put(&store, b"d", 2, 10, row(5));
        store.end().unwrap();
        let find = |store: &Store, key: &[u8]| {
            let found = store.find(7, key).unwrap();
            (found.row, found.is_loose, found.is_told)
        };
        assert_eq!(find(&store, b"a"), (row(2), false, true), "by offset within a partition");
        assert_eq!(find(&store, b"b"), (None, true, true));
        assert_eq!(find(&store, b"d"), (row(5), false, true), "they say the same");
        assert_eq!(find(&store, b"e"), (None, false, false));
        assert_eq!(store.page(7, b"", 2).unwrap(), [row(2).unwrap(), row(4).unwrap()]);
        assert_eq!(store.page(7, b"c", 2).unwrap(), [row(5).unwrap()]);
        assert_eq!(store.count(7).unwrap(), 5);
        store.empty(7, 1, 20).unwrap();
        assert_eq!(find(&store, b"c"), (None, false, true));
        assert_eq!(find(&store, b"a"), (None, true, true), "another partition's order is not known");
        assert_eq!(find(&store, b"e"), (None, false, false));
        put(&store, b"c", 1, 21, row(6));
        assert_eq!(store.page(7, b"", 9).unwrap(), [row(6).unwrap()]);
    }
}
