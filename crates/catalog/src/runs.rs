//! Runs: what collected, computed or checked, when, and with what numbers.

use crate::{Catalog, CatalogError};
use rusqlite::{OptionalExtension, Row, params};

pub(crate) const RUNS: &str = "
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER,
    kind TEXT NOT NULL, name TEXT NOT NULL, cause TEXT NOT NULL, state TEXT NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER,
    rows_read INTEGER NOT NULL DEFAULT 0, rows_written INTEGER NOT NULL DEFAULT 0,
    rows_rejected INTEGER NOT NULL DEFAULT 0, rows_deleted INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX runs_by_name ON runs (kind, name, id);
CREATE INDEX runs_by_parent ON runs (parent);
";

/// Runs that are kept; the oldest go.
pub const RUNS_KEPT_MAX: i64 = 100_000;
/// How many more there may be before they go.
const RUNS_SLACK: i64 = 1000;

/// How a run is or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Running,
    Ok,
    /// Ended with something that someone should look at: rows were rejected, a check warned, nothing was read.
    Warned,
    Failed,
    /// The node stopped in its midst, or someone stopped it.
    Interrupted,
}

impl RunState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "running" => Self::Running,
            "ok" => Self::Ok,
            "warned" => Self::Warned,
            "interrupted" => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

/// What a run did in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    pub read: u64,
    pub written: u64,
    /// Put aside with a reason.
    pub rejected: u64,
    pub deleted: u64,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: i64,
    /// The run that it is a part of.
    pub parent: Option<i64>,
    /// `flow`, `model`, `check`, `indicator`, `batch`.
    pub kind: String,
    pub name: String,
    /// `schedule`, `command`, `backfill`, `upstream`.
    pub cause: String,
    pub state: RunState,
    /// Milliseconds since the Unix epoch.
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    pub rows: RowCounts,
    /// Of an error or a warning.
    pub message: String,
    pub hint: String,
    /// A JSON object: what else this kind of run tells.
    pub detail: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    pub state: RunState,
    pub rows: RowCounts,
    pub message: String,
    pub hint: String,
    pub detail: String,
}

/// Which runs; all without any.
#[derive(Clone, Debug, Default)]
pub struct RunsAsked {
    pub kind: Option<String>,
    pub name: Option<String>,
    pub parent: Option<i64>,
    /// Only those before this id: the cursor of a list.
    pub before: Option<i64>,
}

impl Catalog {
    /// Notes a run that begins; its id.
    pub fn start_run(
        &self,
        parent: Option<i64>,
        kind: &str,
        name: &str,
        cause: &str,
        started_ms: i64,
    ) -> Result<i64, CatalogError> {
        let connection = self.lock();
        let sql = "INSERT INTO runs (parent, kind, name, cause, state, started_ms) \
                   VALUES (?1, ?2, ?3, ?4, 'running', ?5)";
        connection.execute(sql, params![parent, kind, name, cause, started_ms])?;
        let id = connection.last_insert_rowid();
        if id % RUNS_SLACK == 0 {
            connection.execute("DELETE FROM runs WHERE id <= ?1", [id - RUNS_KEPT_MAX])?;
        }
        Ok(id)
    }

    pub fn end_run(&self, id: i64, ended_ms: i64, end: &RunEnd) -> Result<(), CatalogError> {
        let RowCounts { read, written, rejected, deleted } = end.rows;
        let [read, written, rejected, deleted] = [read, written, rejected, deleted].map(|it| it as i64);
        let sql = "UPDATE runs SET state = ?2, ended_ms = ?3, rows_read = ?4, rows_written = ?5, \
                   rows_rejected = ?6, rows_deleted = ?7, message = ?8, hint = ?9, detail = ?10 WHERE id = ?1";
        let RunEnd { state, message, hint, detail, .. } = end;
        let state = state.name();
        self.lock().execute(
            sql,
            params![id, state, ended_ms, read, written, rejected, deleted, message, hint, detail],
        )?;
        Ok(())
    }

    /// Runs that a node left in their midst when it was killed are interrupted; how many.
    pub fn interrupt_runs(&self, now_ms: i64) -> Result<usize, CatalogError> {
        let sql = "UPDATE runs SET state = 'interrupted', ended_ms = ?1, message = 'the node stopped in its midst' \
                   WHERE state = 'running'";
        Ok(self.lock().execute(sql, [now_ms])?)
    }

    pub fn run(&self, id: i64) -> Result<Option<Run>, CatalogError> {
        let sql = format!("SELECT {FIELDS} FROM runs WHERE id = ?1");
        Ok(self.lock().query_row(&sql, [id], read).optional()?)
    }

    /// The last run of a name that ended as one of these.
    pub fn last_run(&self, kind: &str, name: &str, states: &[RunState]) -> Result<Option<Run>, CatalogError> {
        let names: Vec<String> = states.iter().map(|state| format!("'{}'", state.name())).collect();
        let sql = format!(
            "SELECT {FIELDS} FROM runs WHERE kind = ?1 AND name = ?2 AND state IN ({}) ORDER BY id DESC LIMIT 1",
            names.join(", ")
        );
        Ok(self.lock().query_row(&sql, [kind, name], read).optional()?)
    }

    /// The newest runs first, `most` at the most.
    pub fn runs(&self, asked: &RunsAsked, most: usize) -> Result<Vec<Run>, CatalogError> {
        let sql = format!(
            "SELECT {FIELDS} FROM runs WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) \
             AND (?3 IS NULL OR parent = ?3) AND (?4 IS NULL OR id < ?4) ORDER BY id DESC LIMIT ?5"
        );
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&sql)?;
        let RunsAsked { kind, name, parent, before } = asked;
        let rows = statement.query_map(params![kind, name, parent, before, most as i64], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

const FIELDS: &str = "id, parent, kind, name, cause, state, started_ms, ended_ms, rows_read, rows_written, rows_rejected, \
                      rows_deleted, message, hint, detail";

fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
    let count = |at: usize| row.get::<_, i64>(at).map(|it| it as u64);
    Ok(Run {
        id: row.get(0)?,
        parent: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        cause: row.get(4)?,
        state: RunState::of(&row.get::<_, String>(5)?),
        started_ms: row.get(6)?,
        ended_ms: row.get(7)?,
        rows: RowCounts { read: count(8)?, written: count(9)?, rejected: count(10)?, deleted: count(11)? },
        message: row.get(12)?,
        hint: row.get(13)?,
        detail: row.get(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_listed_from_the_newest_and_what_was_killed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.db");
        let catalog = Catalog::open(&path).unwrap();
        let first = catalog.start_run(None, "flow", "orders", "schedule", 1000).unwrap();
        let end = RunEnd {
            state: RunState::Ok,
            rows: RowCounts { read: 3, written: 2, rejected: 1, deleted: 0 },
            message: String::new(),
            hint: String::new(),
            detail: "{}".into(),
        };
        catalog.end_run(first, 2000, &end).unwrap();
        let second = catalog.start_run(Some(first), "model", "daily", "upstream", 3000).unwrap();
        drop(catalog);
        let catalog = Catalog::open(&path).unwrap();
        assert_eq!(catalog.interrupt_runs(4000).unwrap(), 1);
        let runs = catalog.runs(&RunsAsked::default(), 10).unwrap();
        assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [second, first]);
        assert_eq!((runs[0].state, runs[0].ended_ms), (RunState::Interrupted, Some(4000)));
        assert_eq!(runs[1].rows, end.rows);
        let asked = RunsAsked { parent: Some(first), ..RunsAsked::default() };
        assert_eq!(catalog.runs(&asked, 10).unwrap().len(), 1);
        let asked = RunsAsked { before: Some(second), ..RunsAsked::default() };
        assert_eq!(catalog.runs(&asked, 10).unwrap()[0].id, first);
        let last = catalog.last_run("flow", "orders", &[RunState::Ok, RunState::Warned]).unwrap();
        assert_eq!(last.unwrap().id, first);
        assert_eq!(catalog.last_run("model", "daily", &[RunState::Ok]).unwrap(), None);
    }
}
