//! The engine on a SQLite file: one connection writes, any number read beside it (WAL).

use crate::aggregates;
use crate::catalogue::{self, ColumnDef, TableDef};
use crate::deep;
use crate::define;
use crate::error::EngineError;
use crate::load::{self, Write};
use crate::lookup::{Lookup, Names, Shape, kept_name};
use crate::parse::{parsed, parsed_query};
use crate::program::Programs;
use crate::query::{OutColumn, Tables, Translated, Translator, quoted, table_name};
use crate::rows::{BATCHES_AHEAD, END, Filling, Rows, check_row};
use crate::store::Target;
use crate::types::{COLLATIONS, column_of, decode};
use crate::{Engine, Options};
use async_trait::async_trait;
use base::{Column, Value};
use expr::collate::Collation;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use sqlparser::ast::{CreateView, ObjectType, Query, Statement};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Queries at once; each has a connection and its cache.
const READERS_MAX: usize = 8;
/// How long a writer waits for another process.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Steps of SQLite between two looks at the clock.
const STEPS_OF_LOOK: i32 = 10_000;
/// SQLite's name for a database without a file.
const MEMORY: &str = ":memory:";

/// The engine on a file.
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    options: Options,
    writer: Mutex<Option<Session>>,
    readers: Mutex<Vec<Session>>,
    places: Arc<Semaphore>,
}

/// One connection with MySQL's functions.
struct Session {
    connection: Connection,
    /// How the statement at hand names tables.
    names: Names,
    programs: Programs,
    separators: BTreeSet<String>,
    /// When the statement at hand is out of time, and how much it had.
    end: Option<(Instant, Duration)>,
    /// Set where nobody waits for the statement at hand.
    stopped: Arc<AtomicBool>,
}

/// Dropped with the future of a caller: what it asked for is stopped then.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Known<'c>(&'c Connection, &'c Names);

impl Tables for Known<'_> {
    fn table(&self, name: &str) -> Result<Option<Arc<TableDef>>, EngineError> {
        let name = kept_name(name, self.1.dataset.as_deref());
        match self.1.given(&name) {
            Some(given) => Ok(Some(given)),
            None => catalogue::table(self.0, &name),
        }
    }

    fn whole(&self, name: &str) -> Result<Option<Arc<TableDef>>, EngineError> {
        catalogue::table(self.0, name)
    }
}

impl Sqlite {
    pub async fn open(path: &Path, options: Options) -> Result<Self, EngineError> {
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            options,
            writer: Mutex::new(None),
            readers: Mutex::new(Vec::new()),
            places: Arc::new(Semaphore::new(READERS_MAX)),
        });
        let engine = Self { inner };
        engine
            .blocking(|inner| {
                if inner.options.read_only {
                    let session = Session::open(&inner.path, true)?;
                    locked(&inner.readers).push(session);
                } else {
                    let session = Session::open(&inner.path, false)?;
                    catalogue::prepare(&session.connection)?;
                    *locked(&inner.writer) = Some(session);
                }
                Ok(())
            })
            .await?;
        Ok(engine)
    }

    /// An engine without a file, for queries over tables that come along.
    pub fn in_memory(options: Options) -> Self {
        let inner = Inner {
            path: MEMORY.into(),
            options,
            writer: Mutex::new(None),
            readers: Mutex::new(Vec::new()),
            places: Arc::new(Semaphore::new(READERS_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let inner = self.inner.clone();
        deep::run(move || work(&inner)).await
    }

    async fn written<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        if self.inner.options.read_only {
            return Err(EngineError::sql(1290, "the engine was opened to read"));
        }
        let waiting = Waiting(Arc::default());
        let stopped = waiting.0.clone();
        let done = self
            .blocking(|inner| {
                let mut writer = locked(&inner.writer);
                let session = writer
                    .as_mut()
                    .ok_or_else(|| EngineError::Internal("the writer was not opened".into()))?;
                session.limit(inner.options.timeout, stopped)?;
                session.awaited()?;
                work(session).map_err(|error| session.told(error))
            })
            .await;
        drop(waiting);
        done
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let place = self.inner.places.clone().acquire_owned().await;
        let _place = place.map_err(|error| EngineError::Internal(error.to_string()))?;
        self.blocking(|inner| {
            let mut session = inner.reader()?;
            let result =
                session.limit(inner.options.timeout, Arc::default()).and_then(|()| work(&mut session));
            let result = result.map_err(|error| session.told(error));
            locked(&inner.readers).push(session);
            result
        })
        .await
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn reader(&self) -> Result<Session, EngineError> {
        let idle = locked(&self.readers).pop();
        idle.map_or_else(|| Session::open(&self.path, true), Ok)
    }

    /// A reader that understands names so.
    fn reader_in(&self, lookup: &Lookup) -> Result<Session, EngineError> {
        // Tables that come along are made in a connection of their own, which ends with the query.
        let mut session =
            if lookup.given.is_empty() { self.reader()? } else { Session::open(&self.path, true)? };
        session.names = Names::prepare(&mut session.connection, lookup)?;
        Ok(session)
    }

    fn give_back(&self, mut session: Session, lookup: &Lookup) {
        if lookup.given.is_empty() {
            session.names = Names::default();
            locked(&self.readers).push(session);
        }
    }
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros() as i64)
}

impl Session {
    fn open(path: &Path, read_only: bool) -> Result<Self, EngineError> {
        let flags = if read_only && path != Path::new(MEMORY) {
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
        };
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|error| EngineError::Unavailable(format!("{}: {error}", path.display())))?;
        connection.busy_timeout(BUSY_WAIT)?;
        if path == Path::new(MEMORY) {
            catalogue::prepare(&connection)?;
        } else if !read_only {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
        }
        // LIKE and || are not used: a name in double quotes is a name, never a text.
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        let programs = Programs::default();
        programs.register(&connection)?;
        aggregates::register(&connection)?;
        for name in COLLATIONS {
            let Some(collation) = Collation::named(name) else { continue };
            connection.create_collation(name, move |left, right| collation.compare(left, right))?;
        }
        Ok(Self {
            connection,
            names: Names::default(),
            programs,
            separators: BTreeSet::new(),
            end: None,
            stopped: Arc::default(),
        })
    }

    /// Stops statements that take longer, and those that nobody waits for.
    fn limit(&mut self, timeout: Duration, stopped: Arc<AtomicBool>) -> Result<(), EngineError> {
        // A time that the clock cannot hold has no end.
        let end = Instant::now().checked_add(timeout);
        self.end = end.map(|end| (end, timeout));
        self.stopped = stopped.clone();
        let over = move || stopped.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() > end);
        Ok(self.connection.progress_handler(STEPS_OF_LOOK, Some(over))?)
    }

    /// Fails where nobody waits for the statement at hand any more.
    fn awaited(&self) -> Result<(), EngineError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(EngineError::Stopped("nobody waits for it".into()));
        }
        Ok(())
    }

    /// SQLite says of every stop the same: here it is told whether it was the clock's.
    fn told(&self, error: EngineError) -> EngineError {
        match (error, self.end) {
            (EngineError::Stopped(_), Some((end, timeout))) if Instant::now() > end => {
                EngineError::Stopped(format!("it took longer than {timeout:?}"))
            }
            (error, _) => error,
        }
    }

    /// Translates by `of`, and makes what the SQL calls known.
    fn translated<T>(
        &mut self,
        of: impl FnOnce(&mut Translator<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let (result, programs, separators) = {
            let known = Known(&self.connection, &self.names);
            let mut translator = Translator::new(&known, now_micros());
            let result = of(&mut translator)?;
            (result, translator.programs, translator.separators)
        };
        self.programs.set(programs);
        for separator in separators {
            if self.separators.insert(separator.clone()) {
                aggregates::register_concat(&self.connection, &separator)?;
            }
        }
        Ok(result)
    }

    fn query(&mut self, query: &Query) -> Result<Translated, EngineError> {
        self.translated(|translator| translator.query(query, None, &[]))
    }

    /// What SQLite gets for a query, and its plan.
    fn explained(&mut self, query: &Query) -> Result<String, EngineError> {
        let translated = self.query(query)?;
        let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", translated.sql))?;
        let steps: Vec<String> = statement.query_map([], |row| row.get(3))?.collect::<Result<_, _>>()?;
        Ok(format!("{}\n{}", translated.sql, steps.join("\n")))
    }

    /// Runs a statement, of which `text` is the text, inside the transaction at hand.
    fn run(&mut self, statement: &Statement, text: &str) -> Result<u64, EngineError> {
        let sql = match statement {
            Statement::Insert(insert) => self.translated(|it| it.insert(insert))?,
            Statement::Update(update) => self.translated(|it| it.update(update))?,
            Statement::Delete(delete) => self.translated(|it| it.delete(delete))?,
            other => return self.define(other, text).map(|()| 0),
        };
        Ok(self.connection.execute(&sql, [])? as u64)
    }

    /// Does one part of a transaction that loads.
    fn write(&mut self, write: Write) -> Result<u64, EngineError> {
        let (table, columns, rows, put) = match write {
            Write::Sql(sql) => return self.run(&parsed(&sql)?, &sql),
            Write::Put { table, columns, rows, replace } => (table, columns, rows, Some(replace)),
            Write::Delete { table, columns, rows } => (table, columns, rows, None),
        };
        let table = self.known(&table, 1146)?;
        let mut targets = Vec::with_capacity(columns.len());
        for column in &columns {
            let at = table.column(&column.name).ok_or_else(|| {
                EngineError::sql(1054, format!("Unknown column '{}' in '{}'", column.name, table.name))
            })?;
            let target = &table.columns[at];
            let mut own = target.column.clone();
            // What is looked for may be NULL wherever it is.
            own.nullable |= put.is_none();
            targets.push(Target { column: own, auto_increment: target.auto_increment && put.is_some() });
        }
        let sql = match put {
            Some(replace) => load::put_sql(&table.name, &columns, replace),
            None => load::delete_sql(&table.name, &columns),
        };
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut done = 0;
        for row in rows {
            self.awaited()?;
            let cells = load::stored(row, &columns, &targets)?;
            done += statement.execute(rusqlite::params_from_iter(cells))? as u64;
        }
        Ok(done)
    }

    fn known(&self, name: &str, number: u16) -> Result<Arc<TableDef>, EngineError> {
        self.named(name, number, false)
    }

    /// A table, or a view.
    fn named(&self, name: &str, number: u16, view: bool) -> Result<Arc<TableDef>, EngineError> {
        let found = catalogue::table(&self.connection, name)?.filter(|it| it.view.is_some() == view);
        found.ok_or_else(|| EngineError::sql(number, format!("Unknown table '{name}'")))
    }

    fn all(&self, statements: &[String]) -> Result<(), EngineError> {
        for sql in statements {
            self.connection.execute(sql, [])?;
        }
        Ok(())
    }

    fn create(&self, table: &TableDef, if_not_exists: bool) -> Result<(), EngineError> {
        if catalogue::table(&self.connection, &table.name)?.is_some() {
            if if_not_exists {
                return Ok(());
            }
            return Err(EngineError::sql(1050, format!("Table '{}' already exists", table.name)));
        }
        self.all(&define::create_sql(table))?;
        catalogue::put(&self.connection, table)
    }

    /// Changes definitions; `text` is the statement's.
    fn define(&mut self, statement: &Statement, text: &str) -> Result<(), EngineError> {
        if let Statement::CreateView(create) = statement {
            return self.create_view(create, text);
        }
        let connection = &self.connection;
        match statement {
            Statement::CreateTable(create) => self.create(&define::table(create)?, create.if_not_exists),
            Statement::CreateIndex(create) => {
                let mut table = TableDef::clone(&*self.known(&table_name(&create.table_name), 1146)?);
                let index = define::index(create, &table)?;
                connection.execute(&define::index_sql(&table, &index), [])?;
                table.indexes.push(index);
                catalogue::put(connection, &table)
            }
            Statement::Drop { object_type: ObjectType::Table, if_exists, names, .. } => {
                for name in names {
                    let name = table_name(name);
                    match self.known(&name, 1051) {
                        Ok(table) => {
                            connection.execute(&format!("DROP TABLE {}", quoted(&table.name)), [])?;
                            catalogue::remove(connection, &name)?;
                        }
                        Err(EngineError::Sql { number: 1051, .. }) if *if_exists => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Statement::Drop { object_type: ObjectType::View, if_exists, names, .. } => {
                for name in names {
                    let name = table_name(name);
                    if self.known(&name, 1051).is_ok() {
                        return Err(EngineError::sql(1347, format!("'{name}' is not VIEW")));
                    }
                    match self.named(&name, 1051, true) {
                        Ok(view) => catalogue::remove(connection, &view.name)?,
                        Err(EngineError::Sql { number: 1051, .. }) if *if_exists => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Statement::Drop { object_type: ObjectType::Index, names, table: Some(table), .. } => {
                let mut table = TableDef::clone(&*self.known(&table_name(table), 1146)?);
                for name in names {
                    let name = table_name(name);
                    let at = table.indexes.iter().position(|it| it.name.eq_ignore_ascii_case(&name));
                    let Some(at) = at else {
                        return Err(EngineError::sql(1091, format!("Can't DROP '{name}'")));
                    };
                    let single =
                        TableDef { indexes: vec![table.indexes.remove(at)], ..TableDef::clone(&table) };
                    self.all(&define::reindex_sql(&single, &single).0)?;
                }
                catalogue::put(connection, &table)
            }
            Statement::Truncate(truncate) => {
                for target in &truncate.table_names {
                    let table = self.known(&table_name(&target.name), 1146)?;
                    connection.execute(&format!("DELETE FROM {}", quoted(&table.name)), [])?;
                    if table.columns.iter().any(|it| it.auto_increment) {
                        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [&table.name])?;
                    }
                }
                Ok(())
            }
            Statement::RenameTable(renames) => {
                for rename in renames {
                    let old = self.known(&table_name(&rename.old_name), 1146)?;
                    let name = table_name(&rename.new_name);
                    if catalogue::table(connection, &name)?.is_some() {
                        return Err(EngineError::sql(1050, format!("Table '{name}' already exists")));
                    }
                    let new = TableDef { name, ..TableDef::clone(&old) };
                    let (drop, make) = define::reindex_sql(&old, &new);
                    self.all(&drop)?;
                    let sql = format!("ALTER TABLE {} RENAME TO {}", quoted(&old.name), quoted(&new.name));
                    connection.execute(&sql, [])?;
                    self.all(&make)?;
                    catalogue::remove(connection, &old.name)?;
                    catalogue::put(connection, &new)?;
                }
                Ok(())
            }
            Statement::Query(_) => Err(EngineError::refused("a query changes nothing", "run it as a query")),
            other => {
                let text = other.to_string();
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                Err(EngineError::refused(
                    format!("{} is not supported", words.join(" ")),
                    "SELECT, INSERT, REPLACE, UPDATE, DELETE, CREATE/DROP/RENAME/TRUNCATE TABLE, CREATE/DROP VIEW and CREATE/DROP INDEX are",
                ))
            }
        }
    }

    fn create_view(&mut self, create: &CreateView, text: &str) -> Result<(), EngineError> {
        let mut view = define::view(create, text)?;
        match catalogue::table(&self.connection, &view.name)? {
            Some(old) if old.view.is_none() || !create.or_replace => {
                return Err(EngineError::sql(1050, format!("Table '{}' already exists", view.name)));
            }
            _ => {}
        }
        // The query of a view does not find the view, nor do those that stand on it.
        catalogue::remove(&self.connection, &view.name)?;
        let query = parsed_query(view.view.as_deref().unwrap_or_default())?;
        let columns = described(&self.query(&query)?.columns);
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].iter().any(|it| it.name.eq_ignore_ascii_case(&column.name)) {
                return Err(EngineError::sql(1060, format!("Duplicate column name '{}'", column.name)));
            }
        }
        let defined =
            columns.into_iter().map(|column| ColumnDef { column, default: None, auto_increment: false });
        view.columns = defined.collect();
        catalogue::put(&self.connection, &view)
    }

    /// Sends the rows of a query; ends when nobody takes them.
    fn send(
        &mut self,
        query: &Query,
        columns: oneshot::Sender<Result<Shape, EngineError>>,
        batches: &mpsc::Sender<Result<Vec<Vec<Value>>, EngineError>>,
    ) {
        let translated = match self.query(query) {
            Ok(translated) => translated,
            Err(error) => return drop(columns.send(Err(error))),
        };
        let mut statement = match self.connection.prepare(&translated.sql) {
            Ok(statement) => statement,
            Err(error) => {
                let error = match EngineError::from(error) {
                    EngineError::Internal(text) => {
                        EngineError::Internal(format!("{text} in {}", translated.sql))
                    }
                    other => other,
                };
                return drop(columns.send(Err(error)));
            }
        };
        if columns.send(Ok(shape(&translated.columns))).is_err() {
            return;
        }
        let mut read = || -> Result<(), EngineError> {
            let mut rows = statement.query([])?;
            let mut filling = Filling::default();
            while let Some(row) = rows.next()? {
                let mut bytes = 0;
                for at in 0..translated.columns.len() {
                    bytes += match row.get_ref(at)? {
                        ValueRef::Text(it) | ValueRef::Blob(it) => it.len(),
                        _ => 0,
                    };
                }
                check_row(bytes)?;
                let mut values = Vec::with_capacity(translated.columns.len());
                for (at, column) in translated.columns.iter().enumerate() {
                    let value = decode(row.get_ref(at)?, column.kind);
                    values.push(value.map_err(|error| EngineError::Internal(error.0))?);
                }
                if let Some(batch) = filling.push(values, bytes)
                    && batches.blocking_send(Ok(batch)).is_err()
                {
                    return Ok(());
                }
            }
            if let Some(batch) = filling.rest() {
                let _ = batches.blocking_send(Ok(batch));
            }
            let _ = batches.blocking_send(Ok(END));
            Ok(())
        };
        if let Err(error) = read() {
            drop(statement);
            let _ = batches.blocking_send(Err(self.told(error)));
        }
    }
}

/// A transaction that is open. Dropped before [`Transaction::commit`] it is undone, after an error as after a panic.
struct Transaction<'s>(&'s mut Session);

impl<'s> Transaction<'s> {
    fn begin(session: &'s mut Session) -> Result<Self, EngineError> {
        session.connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Self(session))
    }

    /// A COMMIT that fails leaves the transaction open, so that it is dropped as any other.
    fn commit(self) -> Result<(), EngineError> {
        self.0.awaited()?;
        Ok(self.0.connection.execute_batch("COMMIT")?)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let connection = &mut self.0.connection;
        // What is out of time may be undone by SQLite already.
        if !connection.is_autocommit() {
            let _ = connection.progress_handler(0, None::<fn() -> bool>);
            if let Err(error) = connection.execute_batch("ROLLBACK") {
                tracing::error!(%error, "failed to undo a transaction of the engine");
            }
        }
    }
}

fn shape(columns: &[OutColumn]) -> Shape {
    Shape { columns: described(columns), origins: columns.iter().map(|it| it.origin.clone()).collect() }
}

fn described(columns: &[OutColumn]) -> Vec<Column> {
    columns.iter().map(|it| column_of(&it.name, it.kind)).collect()
}

#[async_trait]
impl Engine for Sqlite {
    async fn execute(&self, sql: &str) -> Result<u64, EngineError> {
        self.execute_all(&[sql.to_owned()]).await
    }

    async fn execute_all(&self, statements: &[String]) -> Result<u64, EngineError> {
        let statements = statements.to_vec();
        self.written(move |session| {
            let parsed: Vec<Statement> =
                statements.iter().map(|sql| parsed(sql)).collect::<Result<_, _>>()?;
            let transaction = Transaction::begin(session)?;
            let mut affected = 0;
            for (statement, text) in parsed.iter().zip(&statements) {
                affected += transaction.0.run(statement, text)?;
            }
            transaction.commit()?;
            Ok(affected)
        })
        .await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<u64, EngineError> {
        self.written(move |session| {
            let transaction = Transaction::begin(session)?;
            let mut done = 0;
            for write in writes {
                done += transaction.0.write(write)?;
            }
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    async fn prepare_dataset(&self, _: &str) -> Result<(), EngineError> {
        // A dataset is a part of its tables' names.
        Ok(())
    }

    async fn prepare_own(&self, table: &str, columns: &[Column], key: &[String]) -> Result<(), EngineError> {
        let sql = load::create_sql(table, columns, key);
        self.written(move |session| {
            let Statement::CreateTable(create) = parsed(&sql)? else {
                return Err(EngineError::Internal("a table of ours is no table".into()));
            };
            let transaction = Transaction::begin(session)?;
            transaction.0.create(&define::any_table(&create)?, true)?;
            transaction.commit()
        })
        .await
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        self.query_in(sql, &Lookup::default()).await
    }

    async fn query_in(&self, sql: &str, lookup: &Lookup) -> Result<Rows, EngineError> {
        let (sql, lookup) = (sql.to_owned(), lookup.clone());
        let place = self.inner.places.clone().acquire_owned().await;
        let place = place.map_err(|error| EngineError::Internal(error.to_string()))?;
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (columns_sender, columns) = oneshot::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        let inner = self.inner.clone();
        deep::start(move || {
            let _place = place;
            let query = match parsed_query(&sql) {
                Ok(query) => query,
                Err(error) => return drop(columns_sender.send(Err(error))),
            };
            let mut session = match inner.reader_in(&lookup) {
                Ok(session) => session,
                Err(error) => return drop(columns_sender.send(Err(error))),
            };
            if let Err(error) = session.limit(inner.options.timeout, seen) {
                return drop(columns_sender.send(Err(error)));
            }
            session.send(&query, columns_sender, &sender);
            inner.give_back(session, &lookup);
        })?;
        let ended = |_| EngineError::Internal("the query ended without an answer".into());
        let Shape { columns, origins } = columns.await.map_err(ended)??;
        let stop = move || stopped.store(true, Ordering::Relaxed);
        Ok(Rows::new(columns, batches, Some(Box::new(stop))).with_origins(origins))
    }

    async fn check_in(&self, sql: &str, lookup: &Lookup) -> Result<Shape, EngineError> {
        let (sql, lookup) = (sql.to_owned(), lookup.clone());
        let place = self.inner.places.clone().acquire_owned().await;
        let _place = place.map_err(|error| EngineError::Internal(error.to_string()))?;
        self.blocking(move |inner| {
            let query = parsed_query(&sql)?;
            let mut session = inner.reader_in(&lookup)?;
            let found = session.query(&query).map(|it| shape(&it.columns));
            inner.give_back(session, &lookup);
            found
        })
        .await
    }

    async fn definitions(&self) -> Result<Option<Vec<TableDef>>, EngineError> {
        let mut all = self.read(|session| catalogue::all(&session.connection)).await?;
        all.retain(|table| !load::is_own(&table.name));
        Ok(Some(all))
    }

    async fn check(&self, sql: &str) -> Result<Vec<Column>, EngineError> {
        let sql = sql.to_owned();
        self.read(move |session| {
            let query = parsed_query(&sql)?;
            Ok(described(&session.query(&query)?.columns))
        })
        .await
    }

    async fn explain(&self, sql: &str) -> Result<String, EngineError> {
        self.explain_in(sql, &Lookup::default()).await
    }

    async fn explain_in(&self, sql: &str, lookup: &Lookup) -> Result<String, EngineError> {
        let (sql, lookup) = (sql.to_owned(), lookup.clone());
        let place = self.inner.places.clone().acquire_owned().await;
        let _place = place.map_err(|error| EngineError::Internal(error.to_string()))?;
        self.blocking(move |inner| {
            let query = parsed_query(&sql)?;
            let mut session = inner.reader_in(&lookup)?;
            let limited = session.limit(inner.options.timeout, Arc::default());
            let found = limited.and_then(|()| session.explained(&query));
            inner.give_back(session, &lookup);
            found
        })
        .await
    }

    async fn tables(&self) -> Result<Vec<String>, EngineError> {
        let all = self.read(|session| catalogue::tables(&session.connection)).await?;
        Ok(all.into_iter().filter(|name| !load::is_own(name)).collect())
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, EngineError> {
        let table = table.to_owned();
        self.read(move |session| {
            let table = session.known(&table, 1146).or_else(|_| session.named(&table, 1146, true))?;
            Ok(table.columns.iter().map(|it| it.column.clone()).collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_leaves_no_transaction_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut session = Session::open(&folder.path().join("w.db"), false).unwrap();
        session.connection.execute_batch("CREATE TABLE t (v)").unwrap();
        let torn = catch_unwind(AssertUnwindSafe(|| {
            let transaction = Transaction::begin(&mut session).unwrap();
            transaction.0.connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
            panic!("on purpose");
        }));
        torn.unwrap_err();
        assert!(session.connection.is_autocommit());
        let left: i64 = session.connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_commit_that_fails_leaves_no_transaction_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut session = Session::open(&folder.path().join("w.db"), false).unwrap();
        session
            .connection
            .execute_batch(
                "PRAGMA foreign_keys = ON; CREATE TABLE p (id INTEGER PRIMARY KEY); \
                 CREATE TABLE c (p INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
            )
            .unwrap();
        let transaction = Transaction::begin(&mut session).unwrap();
        transaction.0.connection.execute("INSERT INTO c VALUES (1)", []).unwrap();
        transaction.commit().unwrap_err();
        assert!(session.connection.is_autocommit());
    }
}
