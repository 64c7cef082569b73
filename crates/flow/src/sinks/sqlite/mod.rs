//! SQLite. Rows and progress go in one transaction. Types: integers as INTEGER (unsigned beyond i64 as TEXT digits),
//! FLOAT and DOUBLE as REAL, binary as BLOB, everything else as the text that MySQL prints.
//!
//! A file has no databases: a table keeps its routed table name. Two databases with one table name need a `route`.

mod made;

use crate::config::{DdlPolicy, FlowConfig};
use crate::deliver::sink::{OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::sinks::json::{key_text, row_text};
use async_trait::async_trait;
use base::value::{format_datetime, format_time, timestamp_to_datetime};
use base::{Column, ColumnType, Ddl, Op, Table, TableName, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef as SqlRef};
use rusqlite::{Connection, ErrorCode, params, params_from_iter};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct SqliteSink {
    flow: String,
    path: PathBuf,
    ddl: DdlPolicy,
    history: bool,
    open: Option<Arc<Mutex<Open>>>,
}

struct Open {
    connection: Connection,
    flow: String,
    history: bool,
    /// Which file it is, whatever is at its path meanwhile.
    file: made::FileId,
    /// The journal that `progress` is of.
    journal: u64,
    progress: Progress,
    /// Which database each table name belongs to.
    owners: HashMap<String, String>,
    in_txn: bool,
    /// How far the open transaction has come, when a batch ended in its middle.
    reached: Option<Progress>,
}

/// What went wrong inside the file.
enum Failure {
    Sql(rusqlite::Error),
    /// A change the file refuses.
    Row(u64, String),
    Blocked(String, String),
    Gone(Vec<TableName>),
    /// The file is not where it was.
    Away(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl SqliteSink {
    pub fn new(flow: &str, path: &Path, config: &FlowConfig) -> Self {
        Self {
            flow: flow.to_owned(),
            path: path.to_owned(),
            ddl: config.options.ddl,
            history: config.options.history,
            open: None,
        }
    }

    /// Runs on a thread that may block: SQLite syncs the disk.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Open) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, SinkError> {
        let open = self.open.clone().ok_or_else(|| SinkError::Unavailable { message: "not open".into() })?;
        let result = tokio::task::spawn_blocking(move || work(&mut lock(&open)))
            .await
            .map_err(|e| SinkError::Unavailable { message: e.to_string() })?;
        result.map_err(|failure| self.explain(failure))
    }

    fn explain(&mut self, failure: Failure) -> SinkError {
        let path = self.path.display();
        match failure {
            Failure::Row(lsn, reason) => SinkError::Row { lsn, reason },
            Failure::Blocked(message, hint) => {
                self.open = None;
                SinkError::Blocked { message, hint }
            }
            Failure::Away(message) => {
                self.open = None;
                SinkError::Unavailable { message }
            }
            Failure::Gone(tables) => {
                self.open = None;
                SinkError::gone(tables)
            }
            Failure::Sql(error) => {
                self.open = None;
                let message = format!("failed to write {path}: {error}");
                match error.sqlite_error_code() {
                    Some(
                        ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure,
                    ) => SinkError::Unavailable { message },
                    _ => SinkError::Blocked {
                        message,
                        hint: "check the file, its folder and who else writes it".into(),
                    },
                }
            }
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Sink for SqliteSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        let (path, flow, history) = (self.path.clone(), self.flow.clone(), self.history);
        let opened = tokio::task::spawn_blocking(move || open_file(&path, &flow, history))
            .await
            .map_err(|e| SinkError::Unavailable { message: e.to_string() })?;
        let (open, told) = opened.map_err(|failure| self.explain(failure))?;
        self.open = Some(Arc::new(Mutex::new(open)));
        Ok(told)
    }

    fn follow(&mut self, standing: Standing) {
        if let Some(open) = &self.open {
            let mut open = lock(open);
            (open.journal, open.progress) = (standing.journal, standing.progress);
        }
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        let flow = self.flow.clone();
        self.with(move |open| note(open, &flow, open.progress)).await
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if folder.is_dir() {
            return Ok(());
        }
        let message = format!("there is no folder {}", folder.display());
        Err(SinkError::Blocked { message, hint: "make it, or change `path`".into() })
    }

    async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), SinkError> {
        let (tables, history) = (tables.to_vec(), self.history);
        self.with(move |open| {
            let made = tables.iter().try_for_each(|table| make_table(open, table, history));
            if matches!(made, Err(Failure::Gone(_))) {
                made::look(open)?;
            }
            made
        })
        .await
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let (batch, flow, history, policy) = (batch.clone(), self.flow.clone(), self.history, self.ddl);
        self.with(move |open| {
            let result = apply(open, &batch, &flow, history, policy);
            // What is tried again stands alone: refused, it leaves nothing to wait for its end.
            let over = batch.redrive && result.is_err()
                || matches!(
                    result,
                    Err(Failure::Sql(_) | Failure::Blocked(..) | Failure::Gone(_) | Failure::Away(_))
                );
            if over && open.in_txn {
                open.in_txn = false;
                open.connection.execute_batch("ROLLBACK")?;
            }
            if matches!(result, Err(Failure::Sql(_))) {
                made::look(open)?;
            }
            result
        })
        .await
    }

    async fn forget(&mut self, tables: &[TableName]) -> Result<(), SinkError> {
        let tables = tables.to_vec();
        self.with(move |open| tables.iter().try_for_each(|name| made::forget(open, &name.table))).await
    }

    async fn still_there(&mut self) -> Result<(), SinkError> {
        let path = self.path.clone();
        self.with(move |open| {
            made::look_for_file(open, &path)?;
            made::look(open)
        })
        .await
    }
}

fn open_file(path: &Path, flow: &str, history: bool) -> Result<(Open, Option<Standing>), Failure> {
    if let Some(folder) = path.parent() {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|e| {
            Failure::Blocked(format!("failed to make {}: {e}", folder.display()), "check its owner".into())
        })?;
    }
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000; PRAGMA foreign_keys=OFF;
         CREATE TABLE IF NOT EXISTS tidemill_progress (flow TEXT PRIMARY KEY, journal INTEGER NOT NULL, epoch INTEGER NOT NULL, lsn INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS tidemill_tables (flow TEXT NOT NULL, db TEXT NOT NULL, tbl TEXT NOT NULL, PRIMARY KEY (flow, tbl));",
    )?;
    let file = made::file_id(path)?;
    let mut query =
        connection.prepare("SELECT journal, epoch, lsn FROM tidemill_progress WHERE flow = ?1")?;
    let told = query
        .query_map([flow], |r| {
            let progress = Progress { epoch: r.get(1)?, lsn: r.get::<_, i64>(2)? as u64 };
            Ok(Standing { journal: r.get::<_, i64>(0)? as u64, progress })
        })?
        .next()
        .transpose()?;
    drop(query);
    let (journal, progress) = told.map_or_else(Default::default, |told| (told.journal, told.progress));
    let open = Open {
        connection,
        flow: flow.to_owned(),
        history,
        file,
        journal,
        progress,
        owners: HashMap::new(),
        in_txn: false,
        reached: None,
    };
    Ok((open, told))
}

fn apply(
    open: &mut Open,
    batch: &SinkBatch,
    flow: &str,
    history: bool,
    policy: DdlPolicy,
) -> Result<(), Failure> {
    let done = open.progress.lsn;
    if !batch.redrive && batch.up_to.lsn <= done {
        return Ok(());
    }
    if batch.redrive && open.in_txn {
        // What is tried again stands alone: the part of a source transaction that is here goes first, and is noted.
        if let Some(reached) = open.reached {
            note(open, flow, reached)?;
        }
        open.connection.execute_batch("COMMIT")?;
        open.in_txn = false;
    }
    if !open.in_txn {
        open.connection.execute_batch("BEGIN IMMEDIATE")?;
        open.in_txn = true;
    }
    open.connection.execute_batch("SAVEPOINT batch")?;
    for change in batch.changes.iter().filter(|c| batch.redrive || c.lsn > done) {
        if let Err(failure) = apply_change(open, change, history, policy) {
            let failure = match failure {
                Failure::Sql(error) if is_refusal(&error) => Failure::Row(change.lsn, error.to_string()),
                other => other,
            };
            open.connection.execute_batch("ROLLBACK TO batch; RELEASE batch")?;
            return Err(failure);
        }
    }
    open.connection.execute_batch("RELEASE batch")?;
    if !batch.redrive && !batch.ends_txn {
        open.reached = Some(batch.up_to);
        return Ok(());
    }
    if !batch.redrive {
        note(open, flow, batch.up_to)?;
    }
    open.connection.execute_batch("COMMIT")?;
    open.in_txn = false;
    Ok(())
}

/// Writes progress into the open transaction.
fn note(open: &mut Open, flow: &str, progress: Progress) -> Result<(), Failure> {
    let sql = "INSERT INTO tidemill_progress VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (flow) DO UPDATE SET journal = ?2, epoch = ?3, lsn = ?4";
    let journal = open.journal as i64;
    open.connection.execute(sql, params![flow, journal, progress.epoch, progress.lsn as i64])?;
    (open.progress, open.reached) = (progress, None);
    Ok(())
}

fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

fn apply_change(
    open: &mut Open,
    change: &OutChange,
    history: bool,
    policy: DdlPolicy,
) -> Result<(), Failure> {
    if history {
        return append_history(open, change);
    }
    let table = &change.table;
    match change.op {
        Op::Ddl => {
            let Some(ddl) = &change.ddl else { return Ok(()) };
            if policy == DdlPolicy::Hold {
                return hold(open, ddl);
            }
            return apply_ddl(open, ddl);
        }
        Op::Truncate => {
            make_empty(open, table)?;
            open.connection.execute(&format!("DELETE FROM {}", name(table)), [])?;
            return Ok(());
        }
        _ => {}
    }
    let keyed = !table.key.is_empty();
    match (&change.before, &change.after) {
        (Some(before), None) => remove(open, table, before),
        (Some(before), Some(after)) if !keyed => {
            remove(open, table, before)?;
            insert(open, table, after)
        }
        (Some(before), Some(after)) => {
            if table.key.iter().any(|i| before[*i] != after[*i]) {
                remove(open, table, before)?;
            }
            insert(open, table, after)
        }
        (None, Some(after)) => insert(open, table, after),
        (None, None) => Ok(()),
    }
}

/// An upsert by our key; any other unique constraint of the file refuses the row.
fn insert(open: &mut Open, table: &Table, row: &[Value]) -> Result<(), Failure> {
    let columns: Vec<_> = table.columns.iter().map(|c| quoted(&c.name)).collect();
    let marks: Vec<_> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    let mut sql = format!("INSERT INTO {} ({}) VALUES ({})", name(table), columns.join(","), marks.join(","));
    if !table.key.is_empty() {
        let key: Vec<_> = table.key.iter().map(|i| columns[*i].clone()).collect();
        let set: Vec<_> = columns.iter().map(|c| format!("{c}=excluded.{c}")).collect();
        sql.push_str(&format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(","), set.join(",")));
    }
    let values = row.iter().zip(&table.columns).map(|(value, column)| Bound(value, column));
    open.connection.prepare_cached(&sql)?.execute(params_from_iter(values))?;
    Ok(())
}

fn remove(open: &mut Open, table: &Table, row: &[Value]) -> Result<(), Failure> {
    let all: Vec<usize> = (0..table.columns.len()).collect();
    let by = if table.key.is_empty() { &all } else { &table.key };
    let wheres: Vec<_> = by
        .iter()
        .enumerate()
        .map(|(n, i)| format!("{} IS ?{}", quoted(&table.columns[*i].name), n + 1))
        .collect();
    let table_name = name(table);
    let sql = format!(
        "DELETE FROM {table_name} WHERE rowid IN (SELECT rowid FROM {table_name} WHERE {} LIMIT 1)",
        wheres.join(" AND ")
    );
    let values = by.iter().map(|i| Bound(&row[*i], &table.columns[*i]));
    open.connection.prepare_cached(&sql)?.execute(params_from_iter(values))?;
    Ok(())
}

fn append_history(open: &mut Open, change: &OutChange) -> Result<(), Failure> {
    make_table(open, &change.table, true)?;
    let sql = format!(
        "INSERT INTO {} VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10) ON CONFLICT DO NOTHING",
        quoted(&history_name(&change.table.name.table))
    );
    open.connection.prepare_cached(&sql)?.execute(params![
        open.journal as i64,
        change.epoch,
        change.lsn as i64,
        change.op.name(),
        change.ts_ms,
        change.txn.as_ref().map(|t| t.id.to_string()),
        key_text(change),
        row_text(change, change.before.as_deref()),
        row_text(change, change.after.as_deref()),
        change.ddl.as_ref().map(|d| d.sql.clone()),
    ])?;
    Ok(())
}

/// A table that has no rows at this point, whatever it had.
fn make_empty(open: &mut Open, table: &Table) -> Result<(), Failure> {
    if columns_of(open, &table.name.table)?.is_empty() {
        made::forget(open, &table.name.table)?;
    }
    make_table(open, table, false)
}

/// One that the flow had and that is gone is not made again: its rows would be missing.
fn make_table(open: &mut Open, table: &Table, history: bool) -> Result<(), Failure> {
    let (db, own) = (&table.name.db, &table.name.table);
    let owner = open.owners.entry(own.to_lowercase()).or_insert_with(|| db.clone());
    if owner != db {
        return Err(Failure::Blocked(
            format!("tables `{owner}.{own}` and `{db}.{own}` would share one name in the file"),
            format!("give them names of their own: route: {{\"{db}.*\": \"{db}.{db}_*\"}}"),
        ));
    }
    made::check(open, &table.name)?;
    if history {
        make_history(open, &history_name(own))?;
        return made::note(open, &table.name);
    }
    let mut parts: Vec<String> = table.columns.iter().map(definition).collect();
    if !table.key.is_empty() {
        let key: Vec<_> = table.key.iter().map(|i| quoted(&table.columns[*i].name)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    open.connection
        .execute(&format!("CREATE TABLE IF NOT EXISTS {} ({})", name(table), parts.join(", ")), [])?;
    made::note(open, &table.name)
}

fn history_name(table: &str) -> String {
    format!("tidemill_history_{table}")
}

/// The journal is part of the key: one that began anew counts from 1 again. A history that was made without it is made
/// anew; the journal of its rows is then 0.
fn make_history(open: &mut Open, table: &str) -> Result<(), Failure> {
    let (name, old) = (quoted(table), quoted(&format!("{table}_before")));
    let have = columns_of(open, table)?;
    if have.iter().any(|column| column == "journal") {
        return Ok(());
    }
    let mut sql = format!(
        "CREATE TABLE {name} (journal INTEGER NOT NULL, epoch INTEGER NOT NULL, lsn INTEGER NOT NULL, op TEXT NOT NULL, \
         ts_ms INTEGER NOT NULL, txn TEXT, row_key TEXT, before_row TEXT, after_row TEXT, statement TEXT, \
         PRIMARY KEY (journal, epoch, lsn)) WITHOUT ROWID;"
    );
    if !have.is_empty() {
        sql = format!(
            "ALTER TABLE {name} RENAME TO {old}; {sql} INSERT INTO {name} SELECT 0, epoch, lsn, op, ts_ms, txn, row_key, \
             before_row, after_row, statement FROM {old}; DROP TABLE {old};"
        );
    }
    // A savepoint: this runs inside a transaction and outside of one.
    let made = open.connection.execute_batch(&format!("SAVEPOINT history; {sql} RELEASE history"));
    if made.is_err() {
        open.connection.execute_batch("ROLLBACK TO history; RELEASE history")?;
    }
    Ok(made?)
}

fn affinity(column: &Column) -> &'static str {
    match &column.ty {
        // No affinity: what does not fit an INTEGER stays text, where a numeric column would make it a REAL.
        ColumnType::BigInt { unsigned: true } | ColumnType::Bit { bits: 64.. } => "BLOB",
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Bit { .. }
        | ColumnType::Year => "INTEGER",
        ColumnType::Float | ColumnType::Double => "REAL",
        ColumnType::Binary { .. }
        | ColumnType::VarBinary { .. }
        | ColumnType::Geometry
        | ColumnType::Vector { .. } => "BLOB",
        _ => "TEXT",
    }
}

fn definition(column: &Column) -> String {
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {}{null}", quoted(&column.name), affinity(column))
}

fn columns_of(open: &Open, table: &str) -> Result<Vec<String>, Failure> {
    let mut query = open.connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    // SQLite's lower() knows ASCII only.
    let names = query.query_map([table], |r| r.get::<_, String>(0))?;
    Ok(names.map(|name| Ok(name?.to_lowercase())).collect::<rusqlite::Result<_>>()?)
}

fn hold(open: &mut Open, ddl: &Ddl) -> Result<(), Failure> {
    let fits = match (&ddl.before, &ddl.after) {
        (_, Some(after)) => {
            let have = columns_of(open, &after.name.table)?;
            after.columns.iter().all(|c| have.contains(&c.name.to_lowercase()))
        }
        (Some(before), None) => columns_of(open, &before.name.table)?.is_empty(),
        (None, None) => true,
    };
    if fits {
        // Someone did by hand what the statement says.
        if let Some(before) =
            ddl.before.as_ref().filter(|before| !ddl.after.iter().any(|t| t.name == before.name))
        {
            made::forget(open, &before.name.table)?;
        }
        return Ok(());
    }
    Err(Failure::Blocked(
        format!("a statement is held (`ddl: hold`): {}", ddl.sql),
        "make the same change in the sink by hand; the flow then goes on by itself".into(),
    ))
}

/// SQLite's DDL is transactional: it commits with the progress.
fn apply_ddl(open: &mut Open, ddl: &Ddl) -> Result<(), Failure> {
    let (before, after) = match (&ddl.before, &ddl.after) {
        (_, None) => {
            if let Some(before) = &ddl.before {
                open.connection.execute(&format!("DROP TABLE IF EXISTS {}", name(before)), [])?;
                open.owners.remove(&before.name.table.to_lowercase());
                made::forget(open, &before.name.table)?;
            }
            return Ok(());
        }
        (None, Some(after)) => return make_empty(open, after),
        (Some(before), Some(after)) => (before, after),
    };
    if before.name.table != after.name.table && columns_of(open, &after.name.table)?.is_empty() {
        made::check(open, &before.name)?;
        made::forget(open, &before.name.table)?;
    }
    if before.name.table != after.name.table
        && !columns_of(open, &before.name.table)?.is_empty()
        && columns_of(open, &after.name.table)?.is_empty()
    {
        open.connection.execute(&format!("ALTER TABLE {} RENAME TO {}", name(before), name(after)), [])?;
        open.owners.remove(&before.name.table.to_lowercase());
    }
    make_table(open, after, false)?;
    let key = |t: &Table| t.key.iter().map(|i| t.columns[*i].name.to_lowercase()).collect::<Vec<_>>();
    let renamed_key = |t: &Table| {
        let mut names = key(t);
        for name in &mut names {
            if let Some((_, new)) = ddl.column_renames.iter().find(|(old, _)| old.to_lowercase() == *name) {
                *name = new.to_lowercase();
            }
        }
        names
    };
    let mut have = columns_of(open, &after.name.table)?;
    // By way of names that nobody has: names may trade places.
    let moved: Vec<_> =
        ddl.column_renames.iter().filter(|(old, _)| have.contains(&old.to_lowercase())).collect();
    let passing = |index: usize| format!("tidemill_renamed_{index}");
    for (index, (old, _)) in moved.iter().enumerate() {
        let (table, old, new) = (name(after), quoted(old), quoted(&passing(index)));
        open.connection.execute(&format!("ALTER TABLE {table} RENAME COLUMN {old} TO {new}"), [])?;
    }
    for (index, (_, new)) in moved.iter().enumerate() {
        let (table, old, new) = (name(after), quoted(&passing(index)), quoted(new));
        open.connection.execute(&format!("ALTER TABLE {table} RENAME COLUMN {old} TO {new}"), [])?;
    }
    if !moved.is_empty() {
        have = columns_of(open, &after.name.table)?;
    }
    for column in &after.columns {
        if !have.contains(&column.name.to_lowercase()) {
            // Without its default a NOT NULL column cannot be added to rows that are there: the source fills it.
            let mut loose = column.clone();
            loose.nullable = true;
            open.connection
                .execute(&format!("ALTER TABLE {} ADD COLUMN {}", name(after), definition(&loose)), [])?;
        }
    }
    let old_name = |new: &str| {
        ddl.column_renames.iter().find(|(_, to)| to == new).map_or(new.to_owned(), |(from, _)| from.clone())
    };
    // A column that holds numbers would make numbers of texts.
    let retyped = after.columns.iter().any(|column| {
        let old = before.column_index(&old_name(&column.name)).map(|i| affinity(&before.columns[i]));
        old.is_some_and(|old| old != affinity(column))
    });
    if retyped || renamed_key(before) != key(after) {
        return rebuild(open, after);
    }
    for column in &before.columns {
        let gone = after.column_index(&column.name).is_none()
            && !ddl.column_renames.iter().any(|(old, _)| *old == column.name);
        if gone && have.contains(&column.name.to_lowercase()) {
            open.connection
                .execute(&format!("ALTER TABLE {} DROP COLUMN {}", name(after), quoted(&column.name)), [])?;
        }
    }
    Ok(())
}

/// A new primary key, or another type, means a new table.
fn rebuild(open: &mut Open, after: &Table) -> Result<(), Failure> {
    let old = quoted(&format!("tidemill_old_{}", after.name.table));
    let columns: Vec<_> = after.columns.iter().map(|c| quoted(&c.name)).collect();
    let list = columns.join(", ");
    open.connection.execute(&format!("ALTER TABLE {} RENAME TO {old}", name(after)), [])?;
    // Columns that were added to rows are without a value there, whatever the source says.
    let mut loose = after.clone();
    for (index, column) in loose.columns.iter_mut().enumerate() {
        column.nullable |= !after.key.contains(&index);
    }
    make_empty(open, &loose)?;
    let target = name(after);
    open.connection
        .execute(&format!("INSERT OR REPLACE INTO {target} ({list}) SELECT {list} FROM {old}"), [])?;
    open.connection.execute(&format!("DROP TABLE {old}"), [])?;
    Ok(())
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn name(table: &Table) -> String {
    quoted(&table.name.table)
}

/// A value on its way into SQLite.
pub(crate) struct Bound<'a>(pub &'a Value, pub &'a Column);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let fsp = match self.1.ty {
            ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => fsp,
            _ => 0,
        };
        let owned = |text: String| Ok(ToSqlOutput::from(text));
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(SqlRef::Null),
            Value::Int(v) => ToSqlOutput::Borrowed(SqlRef::Integer(*v)),
            Value::UInt(v) | Value::Bit(v) => match i64::try_from(*v) {
                Ok(v) => ToSqlOutput::Borrowed(SqlRef::Integer(v)),
                // The column has no affinity, so the digits stay text and exact.
                Err(_) => return owned(v.to_string()),
            },
            Value::Float(v) => ToSqlOutput::Borrowed(SqlRef::Real(f64::from(*v))),
            Value::Double(v) => ToSqlOutput::Borrowed(SqlRef::Real(*v)),
            Value::Year(v) => ToSqlOutput::Borrowed(SqlRef::Integer(i64::from(*v))),
            Value::Decimal(v) | Value::Text(v) | Value::Json(v) => {
                ToSqlOutput::Borrowed(SqlRef::Text(v.as_bytes()))
            }
            Value::Date(v) => return owned(v.to_string()),
            Value::Time(v) => return owned(format_time(*v, fsp)),
            Value::DateTime(v) => return owned(format_datetime(*v, fsp)),
            Value::Timestamp(v) => return owned(format_datetime(timestamp_to_datetime(*v), fsp)),
            Value::Enum(v) => return owned(base::json::enum_label(self.1, *v).to_owned()),
            Value::Set(v) => return owned(base::json::set_labels(self.1, *v).collect::<Vec<_>>().join(",")),
            Value::RawText(v) | Value::Bytes(v) | Value::Geometry(v) | Value::Vector(v) => {
                ToSqlOutput::Borrowed(SqlRef::Blob(v))
            }
        })
    }
}
