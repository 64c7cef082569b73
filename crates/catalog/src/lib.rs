//! What a node remembers besides the journal: flow progress for sinks that keep none, paused flows, dead letters, tokens.
//!
//! One SQLite file, one connection. Every write is durable when the call returns (WAL, synchronous=FULL): a change is
//! parked here before the flow's progress passes it.

mod runs;
mod tokens;

pub use runs::{RUNS_KEPT_MAX, RowCounts, Run, RunEnd, RunState, RunsAsked};
pub use tokens::{TOKENS_MAX, Token, has_tokens};

use base::{Blame, Code, Fault, Retry};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Version of the tables below, kept in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 7;

const SCHEMA: &str = "
CREATE TABLE flow_progress (
    flow TEXT PRIMARY KEY, journal INTEGER NOT NULL, epoch INTEGER NOT NULL, lsn INTEGER NOT NULL
) STRICT;
CREATE TABLE flow_restart (flow TEXT PRIMARY KEY, journal INTEGER NOT NULL, lsn INTEGER NOT NULL) STRICT;
CREATE TABLE flow_paused (flow TEXT PRIMARY KEY) STRICT;
CREATE TABLE dead_letters (
    flow TEXT NOT NULL, lsn INTEGER NOT NULL, epoch INTEGER NOT NULL,
    db TEXT NOT NULL, tbl TEXT NOT NULL, row_key TEXT NOT NULL, op TEXT NOT NULL,
    reason TEXT NOT NULL, waits_for INTEGER, parked_ms INTEGER NOT NULL, change TEXT NOT NULL,
    old_key TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (flow, lsn)
) STRICT, WITHOUT ROWID;
";

const PARKED_RENAMES: &str = "
CREATE TABLE parked_renames (
    flow TEXT NOT NULL, lsn INTEGER NOT NULL,
    from_db TEXT NOT NULL, from_tbl TEXT NOT NULL, to_db TEXT NOT NULL, to_tbl TEXT NOT NULL,
    columns TEXT NOT NULL,
    PRIMARY KEY (flow, lsn)
) STRICT, WITHOUT ROWID;
";

/// The last change that a flow's sink was given: up to `lsn`, all behind it were left out. NULL: not known.
const GIVEN: &str = "ALTER TABLE flow_progress ADD COLUMN given INTEGER;";

/// From where a flow shall deliver again, until its sink has been told.
const REWINDS: &str = "CREATE TABLE flow_rewind (flow TEXT PRIMARY KEY, journal INTEGER NOT NULL, lsn INTEGER NOT NULL) STRICT;";

/// From version 1, which knew one key of a change only.
const FROM_VERSION_1: &str = "ALTER TABLE dead_letters ADD COLUMN old_key TEXT NOT NULL DEFAULT '';";

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("failed to open the catalog `{}`", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("the catalog `{}` has version {found}, this binary knows {SCHEMA_VERSION}", path.display())]
    Version { path: PathBuf, found: i64 },
    #[error("failed to use the catalog")]
    Sql(#[from] rusqlite::Error),
}

impl Fault for CatalogError {
    fn code(&self) -> Code {
        match self {
            Self::Version { .. } => Code::FailedPrecondition,
            Self::Open { .. } | Self::Sql(_) => Code::Internal,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Us
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Version { .. } => Some("run the newer Tidemill that wrote it".into()),
            Self::Open { .. } => Some("check that the folder exists, is writable and has space".into()),
            Self::Sql(_) => None,
        }
    }
}

/// A change that a sink refused, or one that waits behind such a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub epoch: u32,
    pub lsn: u64,
    pub db: String,
    pub table: String,
    /// The row's key as JSON text, the whole row where the table has no key; empty when neither is known.
    pub key: String,
    /// The key before the change, where that is another; else empty.
    pub old_key: String,
    pub op: String,
    pub reason: String,
    /// The lsn of the refused change of the same key that this one waits behind.
    pub waits_for: Option<u64>,
    pub parked_ms: i64,
    /// The change as JSON, after transforms.
    pub change: String,
}

/// Of a parked change, what says which row it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRow {
    pub lsn: u64,
    pub waits_for: Option<u64>,
    pub db: String,
    pub table: String,
    pub key: String,
    pub old_key: String,
}

/// A statement that changed names while changes of its table were parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRename {
    pub lsn: u64,
    /// Database and table, before and after.
    pub from: (String, String),
    pub to: (String, String),
    /// Old name and new one of the columns that do not keep theirs; `None` for one that was dropped.
    pub columns: Vec<(String, Option<String>)>,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowProgress {
    pub journal: u64,
    pub epoch: u32,
    /// The last change that is delivered or left out.
    pub lsn: u64,
    /// The last change that the sink was given, where that is known.
    pub given: Option<u64>,
}

/// Shared by every flow; calls are short and never held across an await.
#[derive(Clone)]
pub struct Catalog(Arc<Mutex<Connection>>);

impl Catalog {
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let fail = |source| CatalogError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(fail)?;
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;")
            .map_err(fail)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(fail)?;
        let steps = match found {
            0 => [SCHEMA, PARKED_RENAMES, GIVEN, REWINDS, tokens::TOKENS, runs::RUNS].concat(),
            1 => [FROM_VERSION_1, PARKED_RENAMES, GIVEN, REWINDS, tokens::TOKENS, runs::RUNS].concat(),
            2 => [PARKED_RENAMES, GIVEN, REWINDS, tokens::TOKENS, runs::RUNS].concat(),
            3 => [GIVEN, REWINDS, tokens::TOKENS, runs::RUNS].concat(),
            4 => [REWINDS, tokens::TOKENS, runs::RUNS].concat(),
            5 => [tokens::TOKENS, runs::RUNS].concat(),
            6 => runs::RUNS.to_owned(),
            SCHEMA_VERSION => String::new(),
            found => return Err(CatalogError::Version { path: path.to_owned(), found }),
        };
        if !steps.is_empty() {
            let script = format!("BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;");
            connection.execute_batch(&script).map_err(fail)?;
        }
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last stored for `flow`.
    pub fn progress(&self, flow: &str) -> Result<Option<FlowProgress>, CatalogError> {
        let sql = "SELECT journal, epoch, lsn, given FROM flow_progress WHERE flow = ?1";
        let read = |r: &rusqlite::Row<'_>| {
            Ok(FlowProgress {
                journal: r.get::<_, i64>(0)? as u64,
                epoch: r.get(1)?,
                lsn: r.get::<_, i64>(2)? as u64,
                given: r.get::<_, Option<i64>>(3)?.map(|lsn| lsn as u64),
            })
        };
        Ok(self.lock().query_row(sql, [flow], read).optional()?)
    }

    pub fn set_progress(&self, flow: &str, progress: FlowProgress) -> Result<(), CatalogError> {
        let sql = "INSERT INTO flow_progress VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (flow) DO UPDATE SET journal = ?2, epoch = ?3, lsn = ?4, given = ?5";
        let FlowProgress { journal, epoch, lsn, given } = progress;
        let given = given.map(|lsn| lsn as i64);
        self.lock().execute(sql, params![flow, journal as i64, epoch, lsn as i64, given])?;
        Ok(())
    }

    /// Where a flow may go on when the journal no longer has what it needs: from here on, all its tables are read anew.
    /// `(journal, lsn)`.
    pub fn restart(&self, flow: &str) -> Result<Option<(u64, u64)>, CatalogError> {
        let sql = "SELECT journal, lsn FROM flow_restart WHERE flow = ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64));
        Ok(self.lock().query_row(sql, [flow], read).optional()?)
    }

    pub fn set_restart(&self, flow: &str, journal: u64, lsn: u64) -> Result<(), CatalogError> {
        let sql = "INSERT INTO flow_restart VALUES (?1, ?2, ?3)
                   ON CONFLICT (flow) DO UPDATE SET journal = ?2, lsn = ?3";
        self.lock().execute(sql, params![flow, journal as i64, lsn as i64])?;
        Ok(())
    }

    /// From where a flow shall deliver again: `(journal, lsn)`, until [`Self::finish_rewind`].
    pub fn rewind(&self, flow: &str) -> Result<Option<(u64, u64)>, CatalogError> {
        let sql = "SELECT journal, lsn FROM flow_rewind WHERE flow = ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64));
        Ok(self.lock().query_row(sql, [flow], read).optional()?)
    }

    pub fn set_rewind(&self, flow: &str, journal: u64, lsn: u64) -> Result<(), CatalogError> {
        let sql = "INSERT INTO flow_rewind VALUES (?1, ?2, ?3)
                   ON CONFLICT (flow) DO UPDATE SET journal = ?2, lsn = ?3";
        self.lock().execute(sql, params![flow, journal as i64, lsn as i64])?;
        Ok(())
    }

    /// A rewind that cannot be done any more.
    pub fn forget_rewind(&self, flow: &str) -> Result<(), CatalogError> {
        self.lock().execute("DELETE FROM flow_rewind WHERE flow = ?1", [flow])?;
        Ok(())
    }

    /// The sink knows of the rewind: progress is `back` from now on, and what was parked behind it comes again.
    pub fn finish_rewind(&self, flow: &str, back: FlowProgress) -> Result<(), CatalogError> {
        let mut connection = self.lock();
        let txn = connection.transaction()?;
        let FlowProgress { journal, epoch, lsn, given } = back;
        txn.execute("DELETE FROM dead_letters WHERE flow = ?1 AND lsn > ?2", params![flow, lsn as i64])?;
        txn.execute(
            "INSERT OR REPLACE INTO flow_progress VALUES (?1, ?2, ?3, ?4, ?5)",
            params![flow, journal as i64, epoch, lsn as i64, given.map(|lsn| lsn as i64)],
        )?;
        txn.execute("DELETE FROM flow_rewind WHERE flow = ?1", [flow])?;
        txn.commit()?;
        Ok(())
    }

    pub fn is_paused(&self, flow: &str) -> Result<bool, CatalogError> {
        let sql = "SELECT 1 FROM flow_paused WHERE flow = ?1";
        Ok(self.lock().query_row(sql, [flow], |_| Ok(())).optional()?.is_some())
    }

    pub fn set_paused(&self, flow: &str, paused: bool) -> Result<(), CatalogError> {
        let sql = if paused {
            "INSERT OR IGNORE INTO flow_paused VALUES (?1)"
        } else {
            "DELETE FROM flow_paused WHERE flow = ?1"
        };
        self.lock().execute(sql, [flow])?;
        Ok(())
    }

    /// Parks changes, all or none. Parking the same lsn again keeps the newer reason. How many were not parked before.
    pub fn park(&self, flow: &str, letters: &[DeadLetter]) -> Result<u64, CatalogError> {
        let mut connection = self.lock();
        let txn = connection.transaction()?;
        let mut new = 0;
        {
            let mut find = txn.prepare_cached("SELECT 1 FROM dead_letters WHERE flow = ?1 AND lsn = ?2")?;
            let sql = "INSERT OR REPLACE INTO dead_letters VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)";
            let mut insert = txn.prepare_cached(sql)?;
            for letter in letters {
                new += u64::from(!find.exists(params![flow, letter.lsn as i64])?);
                insert.execute(params![
                    flow,
                    letter.lsn as i64,
                    letter.epoch,
                    letter.db,
                    letter.table,
                    letter.key,
                    letter.op,
                    letter.reason,
                    letter.waits_for.map(|lsn| lsn as i64),
                    letter.parked_ms,
                    letter.change,
                    letter.old_key
                ])?;
            }
        }
        txn.commit()?;
        Ok(new)
    }

    /// The rows of all parked changes of a flow, by lsn.
    pub fn parked_rows(&self, flow: &str) -> Result<Vec<ParkedRow>, CatalogError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT lsn, waits_for, db, tbl, row_key, old_key FROM dead_letters WHERE flow = ?1 ORDER BY lsn",
        )?;
        let rows = query.query_map([flow], |r| {
            Ok(ParkedRow {
                lsn: r.get::<_, i64>(0)? as u64,
                waits_for: r.get::<_, Option<i64>>(1)?.map(|lsn| lsn as u64),
                db: r.get(2)?,
                table: r.get(3)?,
                key: r.get(4)?,
                old_key: r.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes why a parked change was refused again; it waits for itself alone.
    pub fn set_reason(&self, flow: &str, lsn: u64, reason: &str) -> Result<(), CatalogError> {
        let sql = "UPDATE dead_letters SET reason = ?3, waits_for = NULL WHERE flow = ?1 AND lsn = ?2";
        self.lock().execute(sql, params![flow, lsn as i64, reason])?;
        Ok(())
    }

    /// Gives a parked change the names that its row has now.
    pub fn rekey(
        &self,
        flow: &str,
        lsn: u64,
        table: &(String, String),
        key: &str,
        old_key: &str,
    ) -> Result<(), CatalogError> {
        let sql = "UPDATE dead_letters SET db = ?3, tbl = ?4, row_key = ?5, old_key = ?6
                   WHERE flow = ?1 AND lsn = ?2";
        self.lock().execute(sql, params![flow, lsn as i64, table.0, table.1, key, old_key])?;
        Ok(())
    }

    /// Keeps a change of names for the parked changes before it; those of changes that nothing parked precedes go.
    pub fn note_rename(&self, flow: &str, rename: &ParkedRename) -> Result<(), CatalogError> {
        let ParkedRename { lsn, from, to, columns } = rename;
        let json = serde_json::to_string(columns).unwrap_or_default();
        let mut connection = self.lock();
        let txn = connection.transaction()?;
        txn.execute(
            "DELETE FROM parked_renames WHERE flow = ?1
             AND lsn < coalesce((SELECT min(lsn) FROM dead_letters WHERE flow = ?1), 0)",
            [flow],
        )?;
        txn.execute(
            "INSERT OR REPLACE INTO parked_renames VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![flow, *lsn as i64, from.0, from.1, to.0, to.1, json],
        )?;
        txn.commit()?;
        Ok(())
    }

    /// The changes of names that were noted for a flow, by lsn.
    pub fn renames(&self, flow: &str) -> Result<Vec<ParkedRename>, CatalogError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT lsn, from_db, from_tbl, to_db, to_tbl, columns FROM parked_renames WHERE flow = ?1 ORDER BY lsn",
        )?;
        let rows = query.query_map([flow], |r| {
            Ok(ParkedRename {
                lsn: r.get::<_, i64>(0)? as u64,
                from: (r.get(1)?, r.get(2)?),
                to: (r.get(3)?, r.get(4)?),
                columns: serde_json::from_str(&r.get::<_, String>(5)?).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(error))
                })?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Parked changes of a flow behind lsn `after`, by lsn, at most `limit`.
    pub fn dead_letters(&self, flow: &str, after: u64, limit: u32) -> Result<Vec<DeadLetter>, CatalogError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT epoch, lsn, db, tbl, row_key, op, reason, waits_for, parked_ms, change, old_key
             FROM dead_letters WHERE flow = ?1 AND lsn > ?2 ORDER BY lsn LIMIT ?3",
        )?;
        let rows = query.query_map(params![flow, after as i64, limit], |r| {
            Ok(DeadLetter {
                epoch: r.get(0)?,
                lsn: r.get::<_, i64>(1)? as u64,
                db: r.get(2)?,
                table: r.get(3)?,
                key: r.get(4)?,
                op: r.get(5)?,
                reason: r.get(6)?,
                waits_for: r.get::<_, Option<i64>>(7)?.map(|lsn| lsn as u64),
                parked_ms: r.get(8)?,
                change: r.get(9)?,
                old_key: r.get(10)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn dead_letter_count(&self, flow: &str) -> Result<u64, CatalogError> {
        let sql = "SELECT count(*) FROM dead_letters WHERE flow = ?1";
        Ok(self.lock().query_row(sql, [flow], |r| r.get::<_, i64>(0))? as u64)
    }

    /// Forgets one parked change, because it went through or was given up.
    pub fn unpark(&self, flow: &str, lsn: u64) -> Result<(), CatalogError> {
        self.lock()
            .execute("DELETE FROM dead_letters WHERE flow = ?1 AND lsn = ?2", params![flow, lsn as i64])?;
        Ok(())
    }

    /// Forgets the changes of a table that were parked before `lsn`: there its rows ended. How many these were.
    pub fn unpark_table(&self, flow: &str, db: &str, table: &str, lsn: u64) -> Result<u64, CatalogError> {
        let sql = "DELETE FROM dead_letters WHERE flow = ?1 AND db = ?2 AND tbl = ?3 AND lsn < ?4";
        Ok(self.lock().execute(sql, params![flow, db, table, lsn as i64])? as u64)
    }

    /// The oldest parked lsn of any flow: the journal must keep it.
    pub fn oldest_parked(&self, flow: &str) -> Result<Option<u64>, CatalogError> {
        let sql = "SELECT min(lsn) FROM dead_letters WHERE flow = ?1";
        Ok(self.lock().query_row(sql, [flow], |r| r.get::<_, Option<i64>>(0))?.map(|lsn| lsn as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(lsn: u64, reason: &str) -> DeadLetter {
        DeadLetter {
            epoch: 1,
            lsn,
            db: "shop".into(),
            table: "orders".into(),
            key: "{\"id\":1}".into(),
            old_key: "{\"id\":2}".into(),
            op: "insert".into(),
            reason: reason.into(),
            waits_for: None,
            parked_ms: 5,
            change: "{}".into(),
        }
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        let progress = |epoch, lsn, given| FlowProgress { journal: u64::MAX, epoch, lsn, given };
        catalog.set_progress("f", progress(1, 10, None)).unwrap();
        catalog.set_progress("f", progress(2, 11, Some(7))).unwrap();
        catalog.set_paused("f", true).unwrap();
        catalog.set_restart("f", 9, 4).unwrap();
        catalog.set_restart("f", 9, 6).unwrap();
        catalog.park("f", &[letter(7, "too long"), letter(8, "waits")]).unwrap();
        catalog.park("f", &[letter(7, "still too long")]).unwrap();
        catalog.unpark("f", 8).unwrap();
        drop(catalog);

        let catalog = Catalog::open(&path).unwrap();
        assert_eq!(catalog.progress("f").unwrap(), Some(progress(2, 11, Some(7))));
        assert_eq!(catalog.progress("g").unwrap(), None);
        assert_eq!((catalog.restart("f").unwrap(), catalog.restart("g").unwrap()), (Some((9, 6)), None));
        assert!(catalog.is_paused("f").unwrap() && !catalog.is_paused("g").unwrap());
        assert_eq!(catalog.dead_letters("f", 0, 10).unwrap(), [letter(7, "still too long")]);
        assert_eq!(catalog.dead_letter_count("g").unwrap(), 0);
        assert_eq!(catalog.oldest_parked("f").unwrap(), Some(7));
    }

    #[test]
    fn a_rewind_is_noted_until_it_is_done_and_what_was_parked_behind_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        catalog.park("f", &[letter(6, "a"), letter(7, "b"), letter(9, "c")]).unwrap();
        catalog.park("g", &[letter(9, "of another flow")]).unwrap();
        catalog.set_rewind("f", u64::MAX, 8).unwrap();
        catalog.set_rewind("f", u64::MAX, 7).unwrap();
        drop(catalog);
        let catalog = Catalog::open(&path).unwrap();
        assert_eq!(catalog.rewind("f").unwrap(), Some((u64::MAX, 7)));
        let back = FlowProgress { journal: u64::MAX, epoch: 1, lsn: 6, given: Some(6) };
        catalog.finish_rewind("f", back).unwrap();
        assert_eq!((catalog.rewind("f").unwrap(), catalog.progress("f").unwrap()), (None, Some(back)));
        assert_eq!(catalog.dead_letters("f", 0, 9).unwrap(), [letter(6, "a")]);
        assert_eq!(catalog.dead_letter_count("g").unwrap(), 1);
        catalog.set_rewind("f", 1, 1).unwrap();
        catalog.forget_rewind("f").unwrap();
        assert_eq!(catalog.rewind("f").unwrap(), None);
    }

    #[test]
    fn a_catalog_of_version_1_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let old = SCHEMA.replace("old_key TEXT NOT NULL DEFAULT '',", "");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(&format!("{old} PRAGMA user_version=1")).unwrap();
        let insert = "INSERT INTO dead_letters VALUES ('f', 7, 1, 'shop', 'orders', 'k', 'insert', 'r', NULL, 5, '{}')";
        connection.execute_batch(insert).unwrap();
        connection.execute_batch("INSERT INTO flow_progress VALUES ('f', 1, 1, 6)").unwrap();
        let catalog = Catalog::open(&path).unwrap();
        assert_eq!(catalog.dead_letters("f", 0, 9).unwrap()[0].old_key, "");
        let known = FlowProgress { journal: 1, epoch: 1, lsn: 6, given: None };
        assert_eq!(catalog.progress("f").unwrap(), Some(known));
        assert_eq!(catalog.renames("f").unwrap(), []);
        assert_eq!(catalog.unpark_table("f", "shop", "orders", 7).unwrap(), 0);
        assert_eq!(catalog.unpark_table("f", "shop", "orders", 8).unwrap(), 1);
    }

    #[test]
    fn names_of_parked_changes_follow_their_table() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        assert_eq!(catalog.park("f", &[letter(7, "a"), letter(9, "b")]).unwrap(), 2);
        assert_eq!(catalog.park("f", &[letter(9, "b"), letter(11, "c")]).unwrap(), 1);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let columns = vec![("i\"d".to_owned(), Some("no".to_owned())), ("x".to_owned(), None)];
        let rename = |lsn| ParkedRename {
            lsn,
            from: pair("shop", "orders"),
            to: pair("shop", "bills"),
            columns: columns.clone(),
        };
        catalog.note_rename("f", &rename(8)).unwrap();
        catalog.note_rename("f", &rename(8)).unwrap();
        catalog.rekey("f", 7, &pair("shop", "bills"), "k", "o").unwrap();
        catalog.set_reason("f", 7, "still").unwrap();
        assert_eq!(catalog.renames("f").unwrap(), [rename(8)]);
        let row = &catalog.parked_rows("f").unwrap()[0];
        assert_eq!(
            (row.lsn, row.table.as_str(), row.key.as_str(), row.old_key.as_str()),
            (7, "bills", "k", "o")
        );
        assert_eq!(catalog.dead_letters("f", 0, 1).unwrap()[0].reason, "still");
        catalog.unpark("f", 7).unwrap();
        catalog.note_rename("f", &rename(10)).unwrap();
        assert_eq!(catalog.renames("f").unwrap(), [rename(10)], "nothing parked is older than the first");
    }

    #[test]
    fn a_newer_catalog_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=9").unwrap();
        assert!(matches!(Catalog::open(&path), Err(CatalogError::Version { found: 9, .. })));
    }
}
