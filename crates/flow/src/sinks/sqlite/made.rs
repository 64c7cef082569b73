//! Which tables a flow has made or found in the file, kept beside its progress in `tidemill_tables`: one that is noted and
//! missing was taken away by someone else, with rows that only a resnapshot brings back.
//!
//! A flow from before the table was there has no rows: what it finds is noted, what it does not find it makes.

use super::{Failure, Open, columns_of, history_name};
use base::TableName;
use rusqlite::params;
use std::io::ErrorKind;
use std::path::Path;

/// Device and number of a file.
pub(super) type FileId = (u64, u64);

#[cfg(unix)]
fn id_of(found: &std::fs::Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

/// Elsewhere a file that is open cannot be taken away.
#[cfg(not(unix))]
fn id_of(_: &std::fs::Metadata) -> FileId {
    (0, 0)
}

pub(super) fn file_id(path: &Path) -> Result<FileId, Failure> {
    let found = std::fs::metadata(path);
    found.map(|found| id_of(&found)).map_err(|error| Failure::Away(format!("{}: {error}", path.display())))
}

/// What is written to a file that was removed is lost with it.
pub(super) fn look_for_file(open: &Open, path: &Path) -> Result<(), Failure> {
    let away = |what: &str| Err(Failure::Away(format!("{} was {what}", path.display())));
    match std::fs::metadata(path) {
        Ok(found) if id_of(&found) == open.file => Ok(()),
        Ok(_) => away("replaced by another file"),
        Err(error) if error.kind() == ErrorKind::NotFound => away("taken away"),
        Err(error) => away(&format!("not found: {error}")),
    }
}

fn is_there(open: &Open, table: &str) -> Result<bool, Failure> {
    let held = if open.history { history_name(table) } else { table.to_owned() };
    Ok(!columns_of(open, &held)?.is_empty())
}

/// Refuses a table that is noted and missing.
pub(super) fn check(open: &Open, name: &TableName) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM tidemill_tables WHERE flow = ?1 AND tbl = ?2";
    let noted = open.connection.prepare_cached(sql)?.exists(params![open.flow, name.table])?;
    if noted && !is_there(open, &name.table)? {
        return Err(Failure::Gone(vec![name.clone()]));
    }
    Ok(())
}

pub(super) fn note(open: &Open, name: &TableName) -> Result<(), Failure> {
    let sql = "INSERT INTO tidemill_tables (flow, db, tbl) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    open.connection.prepare_cached(sql)?.execute(params![open.flow, name.db, name.table])?;
    Ok(())
}

pub(super) fn forget(open: &Open, table: &str) -> Result<(), Failure> {
    let sql = "DELETE FROM tidemill_tables WHERE flow = ?1 AND tbl = ?2";
    open.connection.prepare_cached(sql)?.execute(params![open.flow, table])?;
    Ok(())
}

/// Names all tables that are noted and gone.
pub(super) fn look(open: &Open) -> Result<(), Failure> {
    let sql = "SELECT db, tbl FROM tidemill_tables WHERE flow = ?1 ORDER BY db, tbl";
    let mut query = open.connection.prepare_cached(sql)?;
    let noted = query
        .query_map([&open.flow], |r| Ok(TableName::new(r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
    let mut gone = Vec::new();
    for name in noted {
        let name = name?;
        if !is_there(open, &name.table)? {
            gone.push(name);
        }
    }
    if gone.is_empty() { Ok(()) } else { Err(Failure::Gone(gone)) }
}
