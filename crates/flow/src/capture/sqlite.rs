//! SQLite as a source: triggers that Tidemill installs write every change into `tidemill_changes`, in the
//! application's own transaction; capture reads that table and empties it behind itself.
//!
//! ```text
//! tidemill_changes(id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT, op TEXT, before TEXT, after TEXT)
//! before, after = JSON array of SQL literals (`quote(value)`), one a column
//! ```
//! Whatever one read transaction finds is one transaction in the journal. The snapshot is one read transaction too,
//! and one journal transaction: it is there whole or not at all.

use super::CaptureError;
use super::mysql::{Anew, Control};
use super::reach::Reach;
use super::status::{SnapshotStatus, StatusCell};
use super::writer::JournalHandle;
use crate::config::{SnapshotMode, SourceConfig};
use crate::patterns::Patterns;
use base::{
    Column, ColumnType, Ddl, Generated, Op, Position, RowBuf, SnapshotProgress, Step, Table, TableName,
    TableSnapshot, Value,
};
use journal::{Batch, State};
use rusqlite::types::ValueRef as SqlRef;
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// How often the file is asked whether it changed.
const POLL: Duration = Duration::from_millis(25);
const BACKOFF: Duration = Duration::from_secs(2);
/// Changes read at once; more come in the next round.
const CHANGES_MAX: usize = 10_000;
const BATCH_BYTES: usize = 512 << 10;
/// Rows of a snapshot that one statement answers.
const SLICE_ROWS: u32 = 5000;

/// A SQLite file and what its changes are written to.
pub struct SqliteSource {
    pub name: Arc<str>,
    pub path: PathBuf,
    pub config: SourceConfig,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub status: StatusCell,
    /// Told once when capture starts.
    pub reach: Reach,
}

/// Captures until shutdown.
pub async fn run(
    source: SqliteSource,
    mut control: mpsc::Receiver<Control>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut again: Vec<String> = Vec::new();
    let mut told = false;
    while !*shutdown.borrow() {
        let error = match session(&source, &mut control, &mut shutdown, &mut again, &mut told).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        source.status.interrupted(&error);
        tokio::select! {
            () = tokio::time::sleep(BACKOFF) => {}
            _ = shutdown.changed() => return,
        }
    }
}

fn sql_error(what: &str) -> impl FnOnce(rusqlite::Error) -> CaptureError {
    let message = format!("failed to {what}");
    move |error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            CaptureError::unavailable(message).because(error)
        }
        _ => {
            CaptureError::fatal(message, "check the file's path, its owner and that it is a SQLite database")
                .because(error)
        }
    }
}

/// The database name that tables of a file go by: its stem.
pub fn database_name(path: &Path) -> String {
    path.file_stem().map_or_else(|| "main".into(), |stem| stem.to_string_lossy().into_owned())
}

fn connect(path: &Path) -> Result<Connection, CaptureError> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(sql_error(&format!("open {}", path.display())))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(sql_error("set a timeout"))?;
    Ok(connection)
}

/// The statements that `up` runs once a table, for `check --connect` to show.
pub fn install_statements(path: &Path, patterns: &Patterns) -> Result<Vec<String>, CaptureError> {
    let connection = connect(path)?;
    let tables = read_tables(&connection, &database_name(path), patterns)?;
    Ok(tables.values().flat_map(triggers).collect())
}

/// Every table of the file.
pub fn list_tables(path: &Path) -> Result<Vec<TableName>, CaptureError> {
    table_names(&connect(path)?, &database_name(path))
}

/// Tables with unique constraints besides the key, where triggers do not see everything: without
/// `PRAGMA recursive_triggers`, SQLite fires none for a row that `OR REPLACE` displaces.
pub fn displaceable_tables(path: &Path, patterns: &Patterns) -> Result<Vec<TableName>, CaptureError> {
    let connection = connect(path)?;
    let fail = || sql_error("read the tables' indexes");
    let mut out = Vec::new();
    for table in read_tables(&connection, &database_name(path), patterns)?.into_values() {
        let sql = "SELECT count(*) FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'";
        let unique: i64 = connection.query_row(sql, [&table.name.table], |r| r.get(0)).map_err(fail())?;
        if unique > 0 {
            out.push(table.name);
        }
    }
    Ok(out)
}

const CHANGES_TABLE: &str = "CREATE TABLE IF NOT EXISTS tidemill_changes (\
    id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, op TEXT NOT NULL, before TEXT, after TEXT)";

fn triggers(table: &Table) -> Vec<String> {
    let name = &table.name.table;
    let list = |side: &str| {
        let values: Vec<_> =
            table.columns.iter().map(|c| format!("quote({side}.{})", quoted(&c.name))).collect();
        format!("json_array({})", values.join(", "))
    };
    let trigger = |op: &str, before: &str, after: &str| {
        format!(
            "CREATE TRIGGER {} AFTER {op} ON {} BEGIN INSERT INTO tidemill_changes (tbl, op, before, after) \
             VALUES ({}, '{}', {before}, {after}); END",
            quoted(&format!("tidemill_{}_{name}", op.to_lowercase())),
            quoted(name),
            literal(name),
            op.to_lowercase(),
        )
    };
    vec![
        trigger("INSERT", "NULL", &list("NEW")),
        trigger("UPDATE", &list("OLD"), &list("NEW")),
        trigger("DELETE", &list("OLD"), "NULL"),
    ]
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn table_names(connection: &Connection, db: &str) -> Result<Vec<TableName>, CaptureError> {
    let fail = || sql_error("read the tables' names");
    let mut query = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'tidemill_%'")
        .map_err(fail())?;
    let names = query.query_map([], |r| Ok(TableName::new(db, r.get::<_, String>(0)?))).map_err(fail())?;
    names.collect::<Result<_, _>>().map_err(fail())
}

fn read_tables(
    connection: &Connection,
    db: &str,
    patterns: &Patterns,
) -> Result<BTreeMap<String, Table>, CaptureError> {
    let fail = || sql_error("read the tables' definitions");
    let mut out = BTreeMap::new();
    for table_name in table_names(connection, db)? {
        if !patterns.matches(&table_name) {
            continue;
        }
        let name = table_name.table.clone();
        let mut query = connection
            .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?1) ORDER BY cid")
            .map_err(fail())?;
        let rows: Vec<(String, String, bool, u32)> = query
            .query_map([&name], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
            .map_err(fail())?
            .collect::<Result<_, _>>()
            .map_err(fail())?;
        let mut key: Vec<(u32, usize)> =
            rows.iter().enumerate().filter(|(_, r)| r.3 > 0).map(|(i, r)| (r.3, i)).collect();
        key.sort_unstable();
        let columns = rows
            .into_iter()
            .map(|(name, ty, not_null, pk)| column(name, &ty, not_null || pk > 0, pk > 0))
            .collect();
        let key = key.into_iter().map(|(_, index)| index).collect();
        out.insert(name, Table { id: 0, version: 0, name: table_name, columns, key, unique_keys: vec![] });
    }
    Ok(out)
}

/// SQLite's affinity rules, and the type a MySQL sink shall give the column.
fn column(name: String, declared: &str, not_null: bool, in_key: bool) -> Column {
    let upper = declared.to_ascii_uppercase();
    let has = |part: &str| upper.contains(part);
    let (ty, sql_type) = if has("INT") {
        (ColumnType::BigInt { unsigned: false }, "bigint")
    } else if has("CHAR") || has("CLOB") || has("TEXT") || has("DATE") || has("TIME") || has("JSON") {
        (
            ColumnType::Text { chars_max: u64::from(u32::MAX) },
            if in_key { "varchar(255)" } else { "longtext" },
        )
    } else if upper.is_empty() || has("BLOB") {
        (
            ColumnType::VarBinary { bytes_max: u64::from(u32::MAX) },
            if in_key { "varbinary(255)" } else { "longblob" },
        )
    } else {
        (ColumnType::Double, "double")
    };
    let text = matches!(ty, ColumnType::Text { .. });
    Column {
        name,
        ty,
        sql_type: sql_type.to_owned(),
        nullable: !not_null,
        charset: text.then(|| "utf8mb4".to_owned()),
        // Keys of SQLite compare by bytes.
        collation: text.then(|| "utf8mb4_bin".to_owned()),
        generated: Generated::No,
        invisible: false,
    }
}

/// One opening of the file, until shutdown, an error, or a request that needs the tables read anew.
async fn session(
    source: &SqliteSource,
    control: &mut mpsc::Receiver<Control>,
    shutdown: &mut watch::Receiver<bool>,
    again: &mut Vec<String>,
    told: &mut bool,
) -> Result<(), CaptureError> {
    let state = source.handle.reset().await?;
    let mut capture = Capture::open(source, state)?;
    capture.settle(source, again).await?;
    again.clear();
    capture.show(source);
    if !std::mem::replace(told, true) {
        source.reach.warn(&table_names(&capture.connection, &capture.db)?);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = shutdown.changed() => return Ok(()),
            command = control.recv() => {
                let Some(Control::Resnapshot { tables, reply }) = command else { return Ok(()) };
                let patterns = Patterns::new(&tables, &[]);
                let names: Vec<String> = match &patterns {
                    Ok(patterns) => capture.tables.values().filter(|t| patterns.matches(&t.name))
                        .map(|t| t.name.to_string()).collect(),
                    Err(_) => Vec::new(),
                };
                let from_lsn = capture.batch.next_lsn();
                let none = || format!("no captured table matches {}", tables.join(", "));
                let _ = reply.send(if names.is_empty() { Err(none()) } else { Ok(Anew { tables: names.clone(), from_lsn }) });
                *again = names;
                return Ok(());
            }
        }
        if capture.schema_changed()? {
            capture.drain(source).await?;
            return Ok(());
        }
        if capture.data_changed()? {
            while capture.drain(source).await? {}
        }
        capture.show(source);
    }
}

struct Capture {
    connection: Connection,
    db: String,
    /// By name in the file.
    tables: BTreeMap<String, Arc<Table>>,
    next_id: u32,
    batch: Batch,
    change_id: i64,
    data_version: i64,
    schema_version: i64,
    first: bool,
    progress: SnapshotProgress,
}

impl Capture {
    fn open(source: &SqliteSource, state: State) -> Result<Self, CaptureError> {
        let connection = connect(&source.path)?;
        let (first, change_id) = match state.position {
            None => (true, 0),
            Some(Position::Sqlite { change_id }) => (false, change_id),
            Some(_) => {
                return Err(CaptureError::fatal(
                    "the journal belongs to another kind of source",
                    "give the source a new name, or remove its journal",
                ));
            }
        };
        Ok(Self {
            connection,
            db: database_name(&source.path),
            tables: state.tables.values().map(|t| (t.name.table.clone(), Arc::clone(t))).collect(),
            next_id: state.tables.keys().last().map_or(1, |id| id + 1),
            batch: Batch::new(state.next_lsn),
            change_id,
            data_version: -1,
            schema_version: -1,
            first,
            progress: state.snapshot,
        })
    }

    fn pragma(&self, name: &str) -> Result<i64, CaptureError> {
        self.connection
            .query_row(&format!("PRAGMA {name}"), [], |r| r.get(0))
            .map_err(sql_error("look at the file"))
    }

    fn schema_changed(&self) -> Result<bool, CaptureError> {
        Ok(self.pragma("schema_version")? != self.schema_version)
    }

    fn data_changed(&mut self) -> Result<bool, CaptureError> {
        let now = self.pragma("data_version")?;
        Ok(std::mem::replace(&mut self.data_version, now) != now)
    }

    /// Brings triggers and journal in line with the file's tables: new and changed tables are read whole.
    async fn settle(&mut self, source: &SqliteSource, again: &[String]) -> Result<(), CaptureError> {
        let fail = || sql_error("install the change table and its triggers");
        let begin = "BEGIN IMMEDIATE";
        self.connection.execute_batch(begin).map_err(fail())?;
        let result = self.install(source);
        self.connection.execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).map_err(fail())?;
        let fresh = result?;
        // What the old triggers wrote comes first, under the old definitions. Before the first snapshot there are none:
        // an earlier start may have been cut off between the triggers and the snapshot, which then has it all.
        while !self.first && self.drain(source).await? {}
        // The view that tables are read in begins with the first look. What was written since the last drain is taken in
        // it, before the tables: the position after `read_fresh` is past it.
        self.connection.execute_batch("BEGIN").map_err(fail())?;
        let read = self.read_view(source, &fresh, again).await;
        self.connection.execute_batch("COMMIT").map_err(fail())?;
        read?;
        self.clean(source).await?;
        self.schema_version = self.pragma("schema_version")?;
        self.first = false;
        Ok(())
    }

    /// Installs what is missing; answers the definitions that the journal does not know yet.
    fn install(&self, source: &SqliteSource) -> Result<BTreeMap<String, Table>, CaptureError> {
        let fail = || sql_error("install the change table and its triggers");
        self.connection.execute(CHANGES_TABLE, []).map_err(fail())?;
        let live = read_tables(&self.connection, &self.db, &source.patterns)?;
        for table in live.values() {
            for (op, wanted) in ["insert", "update", "delete"].iter().zip(triggers(table)) {
                let name = format!("tidemill_{op}_{}", table.name.table);
                let have: Option<String> = self
                    .connection
                    .query_row(
                        "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?1",
                        [&name],
                        |r| r.get(0),
                    )
                    .optional()
                    .map_err(fail())?;
                if have.as_ref() != Some(&wanted) {
                    self.connection
                        .execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quoted(&name)))
                        .map_err(fail())?;
                    self.connection.execute_batch(&wanted).map_err(fail())?;
                }
            }
        }
        Ok(live)
    }

    async fn read_view(
        &mut self,
        source: &SqliteSource,
        fresh: &BTreeMap<String, Table>,
        again: &[String],
    ) -> Result<(), CaptureError> {
        while !self.first && self.take(source).await? == CHANGES_MAX {}
        self.read_fresh(source, fresh, again).await
    }

    /// One read transaction: definitions, rows of new tables, and the position they belong to.
    async fn read_fresh(
        &mut self,
        source: &SqliteSource,
        live: &BTreeMap<String, Table>,
        again: &[String],
    ) -> Result<(), CaptureError> {
        let fail = || sql_error("read a table");
        let last: i64 = self
            .connection
            .query_row(
                "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'tidemill_changes'), 0)",
                [],
                |r| r.get(0),
            )
            .map_err(fail())?;
        let gone: Vec<String> =
            self.tables.keys().filter(|name| !live.contains_key(*name)).cloned().collect();
        let mut progress = SnapshotProgress::default();
        let mut begun = false;
        let mut begin = |batch: &mut Batch| {
            if !std::mem::replace(&mut begun, true) {
                batch.begin("", now_ms());
            }
        };
        for name in gone {
            let before = self.tables.remove(&name).expect("listed above");
            begin(&mut self.batch);
            let sql = format!("DROP TABLE {}", quoted(&name));
            self.batch.ddl(&Ddl {
                sql,
                before: Some(Arc::clone(&before)),
                after: None,
                column_renames: vec![],
            });
            self.batch.drop_table(before.id);
        }
        for (name, table) in live {
            let known = self.tables.get(name).cloned();
            let same = known.as_ref().is_some_and(|k| k.columns == table.columns && k.key == table.key);
            let wanted = again.contains(&table.name.to_string());
            if same && !wanted {
                continue;
            }
            begin(&mut self.batch);
            let table = if same {
                known.clone().expect("it is the same")
            } else {
                self.number(table, known.as_ref())
            };
            if !same {
                self.batch.schema(&table);
                if !self.first {
                    let sql: String = self
                        .connection
                        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [name], |r| r.get(0))
                        .map_err(fail())?;
                    let ddl = Ddl {
                        sql,
                        before: known.clone(),
                        after: Some(Arc::clone(&table)),
                        column_renames: vec![],
                    };
                    self.batch.ddl(&ddl);
                }
            }
            if known.is_some() {
                self.batch.truncate(&table);
            }
            let mut rows = 0;
            if !self.first || source.config.snapshot == SnapshotMode::Initial {
                rows = self.read_rows(source, &table).await?;
            }
            let done = TableSnapshot { rows, rows_estimated: rows, done: true, ..TableSnapshot::default() };
            progress.tables.insert(table.name.to_string(), done);
        }
        self.change_id = self.change_id.max(last);
        if begun || self.first {
            self.batch.snapshot(&progress);
            self.progress.tables.extend(progress.tables);
            let position = Position::Sqlite { change_id: self.change_id };
            self.batch.commit(&Step::Full(Box::new(position)));
            self.flush(source).await?;
        }
        Ok(())
    }

    fn number(&mut self, table: &Table, known: Option<&Arc<Table>>) -> Arc<Table> {
        let (id, version) = known.map_or((self.next_id, 1), |k| (k.id, k.version + 1));
        self.next_id = self.next_id.max(id + 1);
        let table = Arc::new(Table { id, version, ..table.clone() });
        self.tables.insert(table.name.table.clone(), Arc::clone(&table));
        table
    }

    async fn read_rows(&mut self, source: &SqliteSource, table: &Arc<Table>) -> Result<u64, CaptureError> {
        let columns: Vec<_> = table.columns.iter().map(|c| quoted(&c.name)).collect();
        let sql = self.slice_statement(table, &columns.join(", "));
        let mut count = 0;
        // The statement cannot live across an await: rows are taken in slices, by rowid, or counted where there is none.
        let mut next = Some(if sql.contains("OFFSET") { 0 } else { i64::MIN });
        while let Some(start) = next {
            let slice: Vec<RowBuf> = {
                let fail = || sql_error("read a table");
                let mut query = self.connection.prepare_cached(&sql).map_err(fail())?;
                let mut rows = query.query([start]).map_err(fail())?;
                let mut out = Vec::new();
                while let Some(row) = rows.next().map_err(fail())? {
                    let place: i64 = row.get(columns.len()).map_err(fail())?;
                    next = place.checked_add(1);
                    let values: Vec<Value> = (0..columns.len())
                        .map(|i| row.get_ref(i).map(value_of))
                        .collect::<Result<_, _>>()
                        .map_err(fail())?;
                    out.push(RowBuf::from_values(values.iter().map(Value::as_ref)));
                }
                out
            };
            if slice.is_empty() {
                break;
            }
            count += slice.len() as u64;
            metrics::counter!(base::metrics::SNAPSHOT_ROWS, "source" => source.name.to_string())
                .increment(slice.len() as u64);
            for row in &slice {
                self.batch.change(Op::Read, table, None, Some(&row.0));
            }
            if self.batch.len_bytes() >= BATCH_BYTES {
                self.flush(source).await?;
            }
        }
        Ok(count)
    }

    /// A statement that answers the next rows from its parameter on, each with its own place as the last column.
    fn slice_statement(&self, table: &Table, columns: &str) -> String {
        let name = quoted(&table.name.table);
        let shadowed = |id: &&str| table.column_index(id).is_some();
        let by_rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|id| !shadowed(id)).map(|id| {
            format!("SELECT {columns}, {id} FROM {name} WHERE {id} >= ?1 ORDER BY {id} LIMIT {SLICE_ROWS}")
        });
        by_rowid.filter(|sql| self.connection.prepare(sql).is_ok()).unwrap_or_else(|| {
            format!(
                "SELECT {columns}, ?1 + row_number() OVER () - 1 FROM \
                 (SELECT * FROM {name} LIMIT {SLICE_ROWS} OFFSET ?1)"
            )
        })
    }

    async fn flush(&mut self, source: &SqliteSource) -> Result<(), CaptureError> {
        let next = Batch::new(self.batch.next_lsn());
        let full = std::mem::replace(&mut self.batch, next);
        if full.is_empty() {
            return Ok(());
        }
        metrics::counter!(base::metrics::CAPTURED_BYTES, "source" => source.name.to_string())
            .increment(full.len_bytes() as u64);
        source.handle.append(full).await
    }

    /// Captures what the triggers wrote and removes it from the file; true when there may be more.
    async fn drain(&mut self, source: &SqliteSource) -> Result<bool, CaptureError> {
        let count = self.take(source).await?;
        if count > 0 {
            self.clean(source).await?;
        }
        Ok(count == CHANGES_MAX)
    }

    /// Removes from the file what is captured, once it is durable in the journal.
    async fn clean(&mut self, source: &SqliteSource) -> Result<(), CaptureError> {
        source.handle.flush().await?;
        self.connection
            .execute("DELETE FROM tidemill_changes WHERE id <= ?1", [self.change_id])
            .map_err(sql_error("empty the change table"))?;
        self.data_version = -1;
        Ok(())
    }

    /// Captures what the triggers wrote, at most `CHANGES_MAX`; the number of changes.
    async fn take(&mut self, source: &SqliteSource) -> Result<usize, CaptureError> {
        let changes = self.read_changes()?;
        let Some(last) = changes.last().map(|c| c.id) else { return Ok(0) };
        self.batch.begin(&last.to_string(), now_ms());
        for change in &changes {
            let Some(table) = self.tables.get(&change.table).cloned() else { continue };
            let width = table.columns.len();
            let (before, after) = (change.before.as_deref(), change.after.as_deref());
            let (Some(before), Some(after)) = (image(before, width), image(after, width)) else {
                // Written by triggers of another definition: `settle` reads the table anew.
                tracing::debug!(table = %table.name, "a change of an older definition");
                continue;
            };
            let op = match (&before, &after) {
                (None, Some(_)) => Op::Insert,
                (Some(_), Some(_)) => Op::Update,
                (Some(_), None) => Op::Delete,
                (None, None) => continue,
            };
            self.batch.change(
                op,
                &table,
                before.as_ref().map(|r| &r.0[..]),
                after.as_ref().map(|r| &r.0[..]),
            );
        }
        metrics::counter!(base::metrics::CAPTURED_ROWS, "source" => source.name.to_string())
            .increment(changes.len() as u64);
        self.change_id = last;
        self.batch.commit(&Step::Sqlite { change_id: last });
        self.flush(source).await?;
        Ok(changes.len())
    }

    fn read_changes(&self) -> Result<Vec<RawChange>, CaptureError> {
        let fail = || sql_error("read the change table");
        let sql = "SELECT id, tbl, before, after FROM tidemill_changes WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut query = self.connection.prepare_cached(sql).map_err(fail())?;
        let rows = query
            .query_map(rusqlite::params![self.change_id, CHANGES_MAX as i64], |r| {
                Ok(RawChange { id: r.get(0)?, table: r.get(1)?, before: r.get(2)?, after: r.get(3)? })
            })
            .map_err(fail())?;
        rows.collect::<Result<_, _>>().map_err(fail())
    }

    fn show(&self, source: &SqliteSource) {
        let rows = self.progress.rows();
        source.status.advance(|status| {
            status.state = "stream";
            status.lag_ms = 0;
            status.position.pos = Some(self.change_id as u64);
            let tables = self.tables.len() as u64;
            status.snapshot = SnapshotStatus::done(tables, rows);
        });
    }
}

struct RawChange {
    id: i64,
    table: String,
    before: Option<String>,
    after: Option<String>,
}

/// An image from its literals; `None` when it is not of this width.
#[expect(clippy::option_option, reason = "absent and malformed are different answers")]
fn image(text: Option<&str>, width: usize) -> Option<Option<RowBuf>> {
    let Some(text) = text else { return Some(None) };
    let literals: Vec<String> = serde_json::from_str(text).ok()?;
    if literals.len() != width {
        return None;
    }
    let values: Option<Vec<Value>> = literals.iter().map(|l| parse_literal(l)).collect();
    Some(Some(RowBuf::from_values(values?.iter().map(Value::as_ref))))
}

/// The inverse of SQLite's `quote()`.
fn parse_literal(text: &str) -> Option<Value> {
    if text == "NULL" {
        return Some(Value::Null);
    }
    if let Some(inner) = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')) {
        return Some(Value::Text(inner.replace("''", "'")));
    }
    if let Some(digits) = text.strip_prefix("X'").and_then(|t| t.strip_suffix('\'')) {
        let bytes: Option<Vec<u8>> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        return bytes.map(Value::Bytes);
    }
    match text.parse::<i64>() {
        Ok(number) => Some(Value::Int(number)),
        Err(_) => match text {
            "9.0e+999" => Some(Value::Double(f64::INFINITY)),
            "-9.0e+999" => Some(Value::Double(f64::NEG_INFINITY)),
            _ => text.parse().ok().map(Value::Double),
        },
    }
}

fn value_of(value: SqlRef<'_>) -> Value {
    match value {
        SqlRef::Null => Value::Null,
        SqlRef::Integer(v) => Value::Int(v),
        SqlRef::Real(v) => Value::Double(v),
        SqlRef::Text(v) => match std::str::from_utf8(v) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::RawText(v.to_owned()),
        },
        SqlRef::Blob(v) => Value::Bytes(v.to_owned()),
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_back_as_sqlite_quoted_them() {
        let connection = Connection::open_in_memory().unwrap();
        let cases: [(&str, Value); 7] = [
            ("NULL", Value::Null),
            ("-9223372036854775807 - 1", Value::Int(i64::MIN)),
            ("0.1", Value::Double(0.1)),
            ("1e300", Value::Double(1e300)),
            ("'it''s'", Value::Text("it's".into())),
            ("X'00ff'", Value::Bytes(vec![0, 255])),
            ("''", Value::Text(String::new())),
        ];
        for (sql, wanted) in cases {
            let quoted: String =
                connection.query_row(&format!("SELECT quote({sql})"), [], |r| r.get(0)).unwrap();
            assert_eq!(parse_literal(&quoted), Some(wanted), "{sql} is quoted as {quoted}");
        }
    }
}
