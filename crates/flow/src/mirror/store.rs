//! The file of a mirror, as its only writer sees it.
//!
//! ```text
//! mirror(id = 1, format, journal, lsn, looked, patterns)      lsn: the last change that is in the file, in its own transaction
//! tables(id, db, name, version, anew, filled, dropped, rows, refused, links, purged)     id: the table's in the journal
//! schemas(id, version, definition)                           a table's definition under each version that rows may have
//! rows_ID(key, lsn, version, gone, row, link_0, …)           a table's rows; by lsn in rows_ID_lsn
//! ```
//! `row` is the image in `base::row`'s encoding under its own version; `key` and the links are made by `super::key`. A row that is
//! gone stays with its last image and the lsn of its end, until the journal no longer has that change. The columns of a
//! definition go by the names that they have today, and one that was dropped since has none: so a row is read by the definition it
//! was written under, whatever came later. `anew` is where the table began to be read anew: rows with an older lsn are
//! not proven, and go when all have been read. `links` are columns that other tables are joined by. Rows that
//! are gone are known from change `purged` on.

use super::{MirrorConfig, key};
use base::{Change, Op, RowView, Table, TableName, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Of the layout above. A file of another is made anew.
const FORMAT: i64 = 2;
/// Rows that are rewritten with one statement when a table's key or links change.
const PAGE_ROWS: u32 = 1000;
/// Rows that are gone and forgotten at once.
const PURGE_ROWS: u32 = 2000;
/// Memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 16 * 1024;
const STATEMENTS_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to write the mirror's file")]
    Sql(#[from] rusqlite::Error),
    #[error("a row image of `{0}` is malformed")]
    Malformed(String),
    #[error("a definition in the mirror's file is malformed")]
    Definition(#[from] serde_json::Error),
}

impl StoreError {
    /// Whether the file itself is of no use any more: it is made anew.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode as E;
        match self {
            Self::Definition(_) => true,
            Self::Sql(error) => {
                matches!(error.sqlite_error_code(), Some(E::DatabaseCorrupt | E::NotADatabase))
                    || matches!(error, rusqlite::Error::InvalidColumnType(..))
            }
            Self::Malformed(_) => false,
        }
    }
}

/// A table that is mirrored.
#[derive(Clone, Debug)]
pub struct Held {
    pub table: Arc<Table>,
    /// Where it began to be read anew; its older rows are not proven. `None` once all have been read.
    pub anew: Option<u64>,
    /// Whether it was read whole since it is in this file.
    pub filled: bool,
    /// It was dropped, or took a name that is not mirrored.
    pub dropped: bool,
    pub rows: i64,
    /// How many the file says.
    noted: i64,
    /// Why it cannot be mirrored.
    pub refused: Option<String>,
    pub links: Vec<Vec<String>>,
    statements: Arc<Statements>,
}

#[derive(Debug)]
struct Statements {
    find: String,
    insert: String,
    update: String,
}

/// Where a version of a table has its key and its links; `None` for a link whose columns it lacks.
struct Shape {
    key: Vec<usize>,
    links: Vec<Option<Vec<usize>>>,
}

pub struct Store {
    connection: Connection,
    pub lsn: u64,
    /// Whether the journal's tables were compared with these once: until then some may be unknown.
    pub looked: bool,
    pub patterns: String,
    tables: BTreeMap<u32, Held>,
    /// By table and version; `None` for what is not mirrored.
    shapes: HashMap<(u32, u32), Option<Arc<Shape>>>,
    config: Arc<MirrorConfig>,
}

impl Store {
    /// Opens the file, or makes it when it is missing, of another journal or in another layout.
    pub fn open(path: &Path, journal: u64, config: Arc<MirrorConfig>) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA journal_size_limit = 67108864;
             CREATE TABLE IF NOT EXISTS mirror (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL,
               journal INTEGER NOT NULL, lsn INTEGER NOT NULL, looked INTEGER NOT NULL, patterns TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS tables (id INTEGER PRIMARY KEY, db TEXT NOT NULL, name TEXT NOT NULL,
               version INTEGER NOT NULL, anew INTEGER, filled INTEGER NOT NULL, dropped INTEGER NOT NULL,
               rows INTEGER NOT NULL, refused TEXT, links TEXT NOT NULL, purged INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS schemas (id INTEGER NOT NULL, version INTEGER NOT NULL, definition TEXT NOT NULL,
               PRIMARY KEY (id, version)) STRICT, WITHOUT ROWID;"
        ))?;
        let known: Option<(i64, i64, i64, bool, String)> = connection
            .query_row("SELECT format, journal, lsn, looked, patterns FROM mirror", [], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })
            .optional()?;
        let known = known.filter(|known| known.0 == FORMAT && known.1 == journal as i64);
        if known.is_none() {
            empty(&mut connection, journal, &config.text)?;
        }
        let (_, _, lsn, looked, patterns) =
            known.unwrap_or_else(|| (FORMAT, 0, 0, false, config.text.clone()));
        let mut store = Self {
            connection,
            lsn: lsn as u64,
            looked,
            patterns,
            tables: BTreeMap::new(),
            shapes: HashMap::new(),
            config,
        };
        store.recall()?;
        store.begin()?;
        store.make_links()?;
        store.connection.execute_batch("COMMIT")?;
        Ok(store)
    }

    /// Throws everything away; the next change is the one behind `lsn`.
    pub fn restart(&mut self, lsn: u64, tables: &[Arc<Table>]) -> Result<(), StoreError> {
        let journal: i64 = self.connection.query_row("SELECT journal FROM mirror", [], |r| r.get(0))?;
        let text = self.config.text.clone();
        empty(&mut self.connection, journal as u64, &text)?;
        self.tables.clear();
        self.shapes.clear();
        (self.lsn, self.looked, self.patterns) = (lsn, false, text);
        self.begin()?;
        for table in tables {
            self.add(table, Some(lsn + 1))?;
        }
        self.commit(lsn)
    }

    pub fn begin(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    pub fn commit(&mut self, lsn: u64) -> Result<(), StoreError> {
        {
            let mut note = self.connection.prepare_cached("UPDATE tables SET rows = ?2 WHERE id = ?1")?;
            for (id, held) in &mut self.tables {
                if held.rows != held.noted {
                    note.execute(params![id, held.rows])?;
                    held.noted = held.rows;
                }
            }
            let mut note =
                self.connection.prepare_cached("UPDATE mirror SET lsn = ?1, looked = ?2, patterns = ?3")?;
            note.execute(params![lsn as i64, self.looked, self.patterns])?;
        }
        self.connection.execute_batch("COMMIT")?;
        self.lsn = lsn;
        Ok(())
    }

    pub fn tables(&self) -> impl Iterator<Item = &Held> {
        self.tables.values()
    }

    pub fn has(&self, id: u32) -> bool {
        self.tables.contains_key(&id)
    }

    /// Takes a change in. Within a transaction.
    pub fn apply(&mut self, change: &Change<'_>) -> Result<(), StoreError> {
        match change.op {
            Op::Ddl => self.take_statement(change),
            Op::Truncate => {
                let id = change.table.id;
                if self.shape(&change.table)?.is_none() {
                    return Ok(());
                }
                // What begins the reading of a table anew is of no transaction.
                if change.txn.is_some() {
                    self.end_rows(id, change.lsn)
                } else {
                    self.begin_anew(id, change.lsn)
                }
            }
            Op::Read | Op::Insert | Op::Update | Op::Delete => self.take_row(change),
        }
    }

    fn take_row(&mut self, change: &Change<'_>) -> Result<(), StoreError> {
        let Some(shape) = self.shape(&change.table)? else { return Ok(()) };
        let malformed = || StoreError::Malformed(change.table.name.to_string());
        let read =
            |row: Option<RowView<'_>>| row.map(|row| keyed(row, &shape)).transpose().map_err(|_| malformed());
        let (old, new) = (read(change.before)?, read(change.after)?);
        if let (Some(old), Some(before)) = (old, change.before)
            && new.as_ref().is_none_or(|new| new.key != old.key)
        {
            self.put(change, old, before, true)?;
        }
        match (new, change.after) {
            (Some(new), Some(after)) => self.put(change, new, after, false),
            _ => Ok(()),
        }
    }

    fn put(
        &mut self,
        change: &Change<'_>,
        row: Keyed,
        image: RowView<'_>,
        gone: bool,
    ) -> Result<(), StoreError> {
        let Some(held) = self.tables.get_mut(&change.table.id) else { return Ok(()) };
        let Keyed { key, links } = row;
        let was: Option<bool> = self
            .connection
            .prepare_cached(&held.statements.find)?
            .query_row([&key], |r| r.get(0))
            .optional()?;
        let statement = if was.is_some() { &held.statements.update } else { &held.statements.insert };
        let mut statement = self.connection.prepare_cached(statement)?;
        let (lsn, version) = (change.lsn as i64, change.table.version);
        statement.raw_bind_parameter(1, key)?;
        statement.raw_bind_parameter(2, lsn)?;
        statement.raw_bind_parameter(3, version)?;
        statement.raw_bind_parameter(4, gone)?;
        statement.raw_bind_parameter(5, image.0)?;
        for (place, link) in links.into_iter().enumerate() {
            statement.raw_bind_parameter(6 + place, link)?;
        }
        statement.raw_execute()?;
        held.rows += i64::from(!gone) - i64::from(was == Some(false));
        Ok(())
    }

    /// All rows of a table end with change `lsn`.
    fn end_rows(&mut self, id: u32, lsn: u64) -> Result<(), StoreError> {
        let sql = format!("UPDATE rows_{id} SET gone = 1, lsn = ?1 WHERE gone = 0");
        self.connection.execute(&sql, [lsn as i64])?;
        if let Some(held) = self.tables.get_mut(&id) {
            held.rows = 0;
        }
        Ok(())
    }

    fn begin_anew(&mut self, id: u32, lsn: u64) -> Result<(), StoreError> {
        self.connection.execute("UPDATE tables SET anew = ?2 WHERE id = ?1", params![id, lsn as i64])?;
        if let Some(held) = self.tables.get_mut(&id) {
            held.anew = Some(lsn);
        }
        Ok(())
    }

    fn take_statement(&mut self, change: &Change<'_>) -> Result<(), StoreError> {
        let Some(ddl) = &change.ddl else { return Ok(()) };
        let known = ddl.before.as_ref().map(|table| table.id).filter(|id| self.tables.contains_key(id));
        match (&ddl.before, &ddl.after) {
            (_, Some(after)) if self.config.patterns.matches(&after.name) => {
                let stays = known.is_some_and(|id| id == after.id);
                if stays {
                    self.reshape(after, &ddl.column_renames)
                } else if self.tables.contains_key(&after.id) {
                    self.revive(after, change.lsn)
                } else {
                    self.add(after, Some(change.lsn))
                }
            }
            _ => match known {
                Some(id) => self.drop_table(id, change.lsn),
                None => Ok(()),
            },
        }
    }

    fn drop_table(&mut self, id: u32, lsn: u64) -> Result<(), StoreError> {
        self.end_rows(id, lsn)?;
        self.connection.execute("UPDATE tables SET dropped = 1, anew = NULL WHERE id = ?1", [id])?;
        if let Some(held) = self.tables.get_mut(&id) {
            (held.dropped, held.anew) = (true, None);
        }
        self.shapes.retain(|(own, _), _| *own != id);
        Ok(())
    }

    /// A table that comes back under a name that is mirrored: what it had then may be old.
    fn revive(&mut self, table: &Arc<Table>, lsn: u64) -> Result<(), StoreError> {
        self.reshape(table, &[])?;
        let sql = "UPDATE tables SET dropped = 0, filled = 0, anew = ?2 WHERE id = ?1";
        self.connection.execute(sql, params![table.id, lsn as i64])?;
        if let Some(held) = self.tables.get_mut(&table.id) {
            (held.dropped, held.filled, held.anew) = (false, false, Some(lsn));
        }
        Ok(())
    }

    /// A table whose rows come from now on; it is whole when the journal says that all have been read.
    pub fn add(&mut self, table: &Arc<Table>, anew: Option<u64>) -> Result<(), StoreError> {
        let id = table.id;
        let refused = table.key.is_empty().then(|| "it has no key, so its rows have no names".to_owned());
        let links = self.config.links_of(table);
        make_rows(&self.connection, &format!("rows_{id}"), links.len())?;
        let statements = Arc::new(statements(id, links.len()));
        let held = Held {
            table: Arc::clone(table),
            anew: anew.filter(|_| refused.is_none()),
            filled: false,
            dropped: false,
            rows: 0,
            noted: 0,
            refused,
            links,
            statements,
        };
        // Of rows that were gone before, nothing is known here.
        let sql = "INSERT OR REPLACE INTO tables VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, ?6, ?7, ?8)";
        let (db, name, purged) = (&table.name.db, &table.name.table, self.lsn as i64 + 1);
        let (anew, links) = (held.anew.map(|lsn| lsn as i64), serde_json::to_string(&held.links)?);
        self.connection
            .execute(sql, params![id, db, name, table.version, anew, held.refused, links, purged])?;
        self.tables.insert(id, held);
        self.note_definition(table)
    }

    fn note_definition(&mut self, table: &Table) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO schemas VALUES (?1, ?2, ?3)";
        let definition = serde_json::to_string(table)?;
        self.connection.execute(sql, params![table.id, table.version, definition])?;
        self.shapes.retain(|(id, _), _| *id != table.id);
        Ok(())
    }

    /// The table has another definition from now on.
    fn reshape(&mut self, table: &Arc<Table>, renames: &[(String, String)]) -> Result<(), StoreError> {
        let Some(held) = self.tables.get(&table.id).cloned() else { return Ok(()) };
        let id = table.id;
        for mut old in definitions(&self.connection, id)? {
            for column in &mut old.columns {
                let renamed = renames.iter().find(|(from, _)| from.eq_ignore_ascii_case(&column.name));
                let name = renamed.map_or(column.name.as_str(), |(_, to)| to.as_str());
                column.name =
                    if table.column_index(name).is_some() { name.to_owned() } else { String::new() };
            }
            self.note_definition(&old)?;
        }
        self.note_definition(table)?;
        let old_key = definition(&self.connection, id, held.table.version)?.map(|old| key_names(&old));
        let refused = table.key.is_empty().then(|| "it has no key, so its rows have no names".to_owned());
        let sql = "UPDATE tables SET db = ?2, name = ?3, version = ?4, refused = ?5 WHERE id = ?1";
        let (db, name) = (&table.name.db, &table.name.table);
        self.connection.execute(sql, params![id, db, name, table.version, refused])?;
        let is_rekeyed = old_key.as_ref() != Some(&key_names(table));
        if let Some(held) = self.tables.get_mut(&id) {
            held.table = Arc::clone(table);
            held.refused = refused;
        }
        if is_rekeyed && !table.key.is_empty() { self.rekey(id) } else { Ok(()) }
    }

    /// Names the rows of a table by its key of now.
    fn rekey(&mut self, id: u32) -> Result<(), StoreError> {
        let Some(held) = self.tables.get(&id).cloned() else { return Ok(()) };
        let old: BTreeMap<u32, Table> =
            definitions(&self.connection, id)?.into_iter().map(|table| (table.version, table)).collect();
        self.connection.execute_batch(&format!("ALTER TABLE rows_{id} RENAME TO rows_{id}_before"))?;
        for index in ["lsn".to_owned(), "gone".to_owned()]
            .into_iter()
            .chain((0..held.links.len()).map(|place| format!("link_{place}")))
        {
            self.connection.execute_batch(&format!("DROP INDEX IF EXISTS rows_{id}_{index}"))?;
        }
        make_rows(&self.connection, &format!("rows_{id}"), held.links.len())?;
        let names = key_names(&held.table);
        let (mut after, mut rows) = (Vec::new(), 0);
        loop {
            let page = page(&self.connection, &format!("rows_{id}_before"), &after)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.key);
            for row in page {
                let Some(table) = old.get(&row.version) else { continue };
                let Some(key) = places(table, &names) else { continue };
                let shape =
                    Shape { key, links: held.links.iter().map(|names| places(table, names)).collect() };
                let Ok(Keyed { key, links }) = keyed(RowView(&row.row), &shape) else { continue };
                let mut insert = self.connection.prepare_cached(&held.statements.insert.replacen(
                    "INSERT",
                    "INSERT OR REPLACE",
                    1,
                ))?;
                insert.raw_bind_parameter(1, key)?;
                insert.raw_bind_parameter(2, row.lsn)?;
                insert.raw_bind_parameter(3, row.version)?;
                insert.raw_bind_parameter(4, row.gone)?;
                insert.raw_bind_parameter(5, row.row)?;
                for (place, link) in links.into_iter().enumerate() {
                    insert.raw_bind_parameter(6 + place, link)?;
                }
                insert.raw_execute()?;
                rows += i64::from(!row.gone);
            }
        }
        self.connection.execute_batch(&format!("DROP TABLE rows_{id}_before"))?;
        if let Some(held) = self.tables.get_mut(&id) {
            held.rows = rows;
        }
        Ok(())
    }

    /// Where a version of a table has what is kept of it; `None` when its rows are not mirrored.
    fn shape(&mut self, table: &Arc<Table>) -> Result<Option<Arc<Shape>>, StoreError> {
        let id = (table.id, table.version);
        if let Some(shape) = self.shapes.get(&id) {
            return Ok(shape.clone());
        }
        let mirrored = self.config.patterns.matches(&table.name);
        match self.tables.get(&table.id).map(|held| (held.table.version, held.dropped)) {
            None if mirrored => self.add(table, Some(0))?,
            Some((version, false)) if mirrored && version < table.version => self.reshape(table, &[])?,
            Some(_) if definition(&self.connection, table.id, table.version)?.is_none() => {
                self.note_definition(table)?;
            }
            _ => {}
        }
        let held = self.tables.get(&table.id).filter(|held| !held.dropped && held.refused.is_none());
        let shape = held.map(|held| {
            let links = held.links.iter().map(|names| places(table, names)).collect();
            Arc::new(Shape { key: table.key.clone(), links })
        });
        self.shapes.insert(id, shape.clone());
        Ok(shape)
    }

    /// Of the tables that began to be read anew by change `end`, all rows are here, unless their ids are among the
    /// unfinished: the rows that did not come again are gone. Within a transaction that is committed at `lsn`. Answers whether
    /// something became whole.
    pub fn finish(&mut self, end: u64, unfinished: &BTreeSet<u32>, lsn: u64) -> Result<bool, StoreError> {
        let whole = |(id, held): (&u32, &Held)| {
            let read = held.anew.is_some_and(|anew| anew <= end) && !unfinished.contains(id);
            read.then_some((*id, held.anew.unwrap_or(0)))
        };
        let whole: Vec<(u32, u64)> = self.tables.iter().filter_map(whole).collect();
        for (id, anew) in &whole {
            let sql = format!("UPDATE rows_{id} SET gone = 1, lsn = ?1 WHERE gone = 0 AND lsn < ?2");
            let ended = self.connection.execute(&sql, [lsn as i64, *anew as i64])?;
            self.connection.execute("UPDATE tables SET anew = NULL, filled = 1 WHERE id = ?1", [id])?;
            if let Some(held) = self.tables.get_mut(id) {
                (held.anew, held.filled) = (None, true);
                held.rows -= ended as i64;
            }
        }
        Ok(!whole.is_empty())
    }

    /// Forgets rows that ended before change `first`, some of them. Answers whether there are more.
    pub fn purge(&mut self, first: u64) -> Result<bool, StoreError> {
        let mut more = false;
        for (id, held) in self.tables.clone() {
            let sql = format!(
                "DELETE FROM rows_{id} WHERE key IN (SELECT key FROM rows_{id} WHERE gone = 1 AND lsn < ?1 LIMIT {PURGE_ROWS})"
            );
            let forgotten = self.connection.execute(&sql, [first as i64])?;
            if forgotten > 0 {
                let sql = "UPDATE tables SET purged = ?2 WHERE id = ?1";
                self.connection.execute(sql, params![id, first as i64])?;
            }
            more |= forgotten == PURGE_ROWS as usize;
            let is_empty = || {
                let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM rows_{id})");
                self.connection.query_row(&sql, [], |r| r.get::<_, bool>(0))
            };
            if held.dropped && forgotten == 0 && is_empty()? {
                self.forget(id)?;
            }
        }
        Ok(more)
    }

    /// Lets go of a table and all that is here of it.
    pub fn forget(&mut self, id: u32) -> Result<(), StoreError> {
        self.connection.execute_batch(&format!(
            "DROP TABLE IF EXISTS rows_{id}; DELETE FROM tables WHERE id = {id}; DELETE FROM schemas WHERE id = {id}"
        ))?;
        self.tables.remove(&id);
        self.shapes.retain(|(own, _), _| *own != id);
        Ok(())
    }

    pub fn bytes(&self) -> Result<u64, StoreError> {
        let pages: i64 = self.connection.query_row("PRAGMA page_count", [], |r| r.get(0))?;
        let size: i64 = self.connection.query_row("PRAGMA page_size", [], |r| r.get(0))?;
        Ok(pages as u64 * size as u64)
    }

    fn recall(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT id, version, anew, filled, dropped, rows, refused, links FROM tables";
        let mut query = self.connection.prepare(sql)?;
        let rows = query.query_map([], |r| {
            Ok((
                r.get::<_, u32>(0)?,
                r.get::<_, u32>(1)?,
                r.get::<_, Option<i64>>(2)?,
                (r.get::<_, bool>(3)?, r.get::<_, bool>(4)?, r.get::<_, i64>(5)?),
                r.get::<_, Option<String>>(6)?,
                r.get::<_, String>(7)?,
            ))
        })?;
        let mut tables = BTreeMap::new();
        for row in rows {
            let (id, version, anew, (filled, dropped, rows), refused, links) = row?;
            let links: Vec<Vec<String>> = serde_json::from_str(&links)?;
            let Some(table) = definition(&self.connection, id, version)? else { continue };
            let statements = Arc::new(statements(id, links.len()));
            let anew = anew.map(|lsn| lsn as u64);
            let table = Arc::new(table);
            tables.insert(
                id,
                Held { table, anew, filled, dropped, rows, noted: rows, refused, links, statements },
            );
        }
        drop(query);
        self.tables = tables;
        Ok(())
    }

    /// Gives tables the links that they lack. Within a transaction.
    fn make_links(&mut self) -> Result<(), StoreError> {
        for (id, held) in self.tables.clone() {
            let wanted = self.config.links_of(&held.table);
            let missing: Vec<_> = wanted.into_iter().filter(|names| !held.links.contains(names)).collect();
            if missing.is_empty() {
                continue;
            }
            let first = held.links.len();
            let links: Vec<_> = held.links.iter().cloned().chain(missing).collect();
            for place in first..links.len() {
                self.connection
                    .execute_batch(&format!("ALTER TABLE rows_{id} ADD COLUMN link_{place} BLOB"))?;
            }
            let old: BTreeMap<u32, Table> =
                definitions(&self.connection, id)?.into_iter().map(|table| (table.version, table)).collect();
            let mut after = Vec::new();
            loop {
                let page = page(&self.connection, &format!("rows_{id}"), &after)?;
                let Some(last) = page.last() else { break };
                after.clone_from(&last.key);
                for row in page {
                    let Some(table) = old.get(&row.version) else { continue };
                    for (place, names) in links.iter().enumerate().skip(first) {
                        let shape = Shape { key: Vec::new(), links: vec![places(table, names)] };
                        let Ok(mut made) = keyed(RowView(&row.row), &shape) else { continue };
                        let sql = format!("UPDATE rows_{id} SET link_{place} = ?2 WHERE key = ?1");
                        self.connection
                            .prepare_cached(&sql)?
                            .execute(params![row.key, made.links.pop().flatten()])?;
                    }
                }
            }
            for place in first..links.len() {
                make_link(&self.connection, &format!("rows_{id}"), place)?;
            }
            let text = serde_json::to_string(&links)?;
            self.connection.execute("UPDATE tables SET links = ?2 WHERE id = ?1", params![id, text])?;
            let statements = Arc::new(statements(id, links.len()));
            self.tables.insert(id, Held { links, statements, ..held });
        }
        Ok(())
    }
}

/// What the bytes of a row are filed under.
struct Keyed {
    key: Vec<u8>,
    links: Vec<Option<Vec<u8>>>,
}

fn keyed(row: RowView<'_>, shape: &Shape) -> Result<Keyed, base::row::MalformedRow> {
    let values: Vec<Option<ValueRef<'_>>> = row.iter().collect::<Result<_, _>>()?;
    let value = |index: &usize| values.get(*index).copied().flatten();
    let mut own = Vec::with_capacity(16);
    for index in &shape.key {
        key::put(&mut own, value(index).unwrap_or(ValueRef::Null));
    }
    let link = |places: &Option<Vec<usize>>| key::joined(places.as_ref()?.iter().map(value));
    Ok(Keyed { key: own, links: shape.links.iter().map(link).collect() })
}

/// Where a table has these columns; `None` when it lacks one.
pub fn places(table: &Table, names: &[String]) -> Option<Vec<usize>> {
    names.iter().map(|name| table.column_index(name)).collect()
}

fn key_names(table: &Table) -> Vec<String> {
    table.key.iter().map(|index| table.columns[*index].name.to_lowercase()).collect()
}

fn empty(connection: &mut Connection, journal: u64, patterns: &str) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let names: Vec<String> = {
        let mut query = transaction.prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'rows\\_%' ESCAPE '\\'",
        )?;
        query.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?
    };
    for name in names {
        transaction.execute_batch(&format!("DROP TABLE \"{name}\""))?;
    }
    transaction.execute_batch("DELETE FROM tables; DELETE FROM schemas; DELETE FROM mirror")?;
    transaction.execute(
        "INSERT INTO mirror VALUES (1, ?1, ?2, 0, 0, ?3)",
        params![FORMAT, journal as i64, patterns],
    )?;
    Ok(transaction.commit()?)
}

fn make_rows(connection: &Connection, name: &str, links: usize) -> Result<(), StoreError> {
    let columns: String = (0..links).map(|place| format!(", link_{place} BLOB")).collect();
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {name} (key BLOB PRIMARY KEY, lsn INTEGER NOT NULL, version INTEGER NOT NULL,
           gone INTEGER NOT NULL, row BLOB NOT NULL{columns}) STRICT, WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS {name}_lsn ON {name} (lsn);
         CREATE INDEX IF NOT EXISTS {name}_gone ON {name} (lsn) WHERE gone = 1;"
    ))?;
    (0..links).try_for_each(|place| make_link(connection, name, place))
}

fn make_link(connection: &Connection, name: &str, place: usize) -> Result<(), StoreError> {
    let sql =
        format!("CREATE INDEX IF NOT EXISTS {name}_link_{place} ON {name} (link_{place}) WHERE gone = 0");
    Ok(connection.execute_batch(&sql)?)
}

fn statements(id: u32, links: usize) -> Statements {
    let names: String = (0..links).map(|place| format!(", link_{place}")).collect();
    let marks: String = (0..links).map(|place| format!(", ?{}", 6 + place)).collect();
    let sets: String = (0..links).map(|place| format!(", link_{place} = ?{}", 6 + place)).collect();
    Statements {
        find: format!("SELECT gone FROM rows_{id} WHERE key = ?1"),
        insert: format!(
            "INSERT INTO rows_{id} (key, lsn, version, gone, row{names}) VALUES (?1, ?2, ?3, ?4, ?5{marks})"
        ),
        update: format!(
            "UPDATE rows_{id} SET lsn = ?2, version = ?3, gone = ?4, row = ?5{sets} WHERE key = ?1"
        ),
    }
}

fn definitions(connection: &Connection, id: u32) -> Result<Vec<Table>, StoreError> {
    let mut query = connection.prepare_cached("SELECT definition FROM schemas WHERE id = ?1")?;
    let texts: Vec<String> = query.query_map([id], |r| r.get(0))?.collect::<Result<_, _>>()?;
    Ok(texts.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?)
}

pub fn definition(connection: &Connection, id: u32, version: u32) -> Result<Option<Table>, StoreError> {
    let sql = "SELECT definition FROM schemas WHERE id = ?1 AND version = ?2";
    let text: Option<String> =
        connection.prepare_cached(sql)?.query_row([id, version], |r| r.get(0)).optional()?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}

/// A row as it is in the file.
struct Filed {
    key: Vec<u8>,
    lsn: i64,
    version: u32,
    gone: bool,
    row: Vec<u8>,
}

fn page(connection: &Connection, name: &str, after: &[u8]) -> Result<Vec<Filed>, StoreError> {
    let sql = format!(
        "SELECT key, lsn, version, gone, row FROM {name} WHERE key > ?1 ORDER BY key LIMIT {PAGE_ROWS}"
    );
    let mut query = connection.prepare(&sql)?;
    let rows = query.query_map([after], |r| {
        Ok(Filed { key: r.get(0)?, lsn: r.get(1)?, version: r.get(2)?, gone: r.get(3)?, row: r.get(4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The name of a table, for a status.
impl Held {
    pub fn name(&self) -> &TableName {
        &self.table.name
    }
}
