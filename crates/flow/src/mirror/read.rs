//! Reading a mirror: rows by key, by what joins them, and in the order of their keys, each look at one state of the source
//! between two of its transactions.

use super::store::{StoreError, definition};
use super::{Mirror, Reached, key};
use base::{RowView, Table, TableName, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::HashMap;
use std::sync::Arc;

/// Memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 4 * 1024;
/// Rows, and bytes of rows, that are held at once where all are looked at.
const EACH_ROWS: usize = 1000;
const EACH_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("failed to read the mirror")]
    Store(#[from] StoreError),
    /// The table is not, and will not be, in the mirror.
    #[error("the mirror cannot have `{table}`: {reason}")]
    Refused { table: String, reason: String },
    /// Who waited shall end.
    #[error("nobody waits for the mirror any more")]
    Ended,
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A table as the mirror has it now.
#[derive(Clone, Debug)]
pub struct Mirrored {
    pub id: u32,
    /// Its definition of now.
    pub table: Arc<Table>,
    links: Arc<Vec<Vec<String>>>,
    is_whole: bool,
    refused: Option<String>,
}

/// A row and the definition that it was written under, by the names of today.
#[derive(Clone, Debug)]
pub struct MirrorRow {
    pub key: Vec<u8>,
    pub lsn: u64,
    pub table: Arc<Table>,
    pub row: Vec<u8>,
}

impl MirrorRow {
    pub fn view(&self) -> RowView<'_> {
        RowView(&self.row)
    }
}

/// How rows are found by the values of some columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Key,
    Link(usize),
}

/// A reader of its own connection. Blocks on the disk.
pub struct MirrorReader {
    mirror: Mirror,
    connection: Option<(u64, Connection)>,
    definitions: HashMap<(u32, u32), Arc<Table>>,
    /// Those that the look at hand has asked for.
    tables: HashMap<TableName, Option<Mirrored>>,
    /// What `definitions` are of: every change of the file's tables counts.
    shape: i64,
    in_look: bool,
}

impl MirrorReader {
    pub fn new(mirror: Mirror) -> Self {
        Self {
            mirror,
            connection: None,
            definitions: HashMap::new(),
            tables: HashMap::new(),
            shape: 0,
            in_look: false,
        }
    }

    /// Begins a look at a state at or behind change `lsn` in which these tables are whole; waits for it. `gone` says that
    /// nobody wants it any more.
    pub fn look(
        &mut self,
        lsn: u64,
        tables: &[TableName],
        gone: impl Future<Output = ()>,
    ) -> Result<(), ReadError> {
        let runtime = tokio::runtime::Handle::current();
        let mut reached = self.mirror.watch();
        let mut gone = std::pin::pin!(gone);
        loop {
            let now: Reached = *reached.borrow_and_update();
            if now.looked && now.lsn >= lsn {
                self.begin()?;
                let state = self.state(tables)?;
                if state {
                    return Ok(());
                }
                self.end()?;
            }
            let ended = runtime.block_on(async {
                tokio::select! {
                    changed = reached.changed() => changed.is_err(),
                    () = &mut gone => true,
                }
            });
            if ended {
                return Err(ReadError::Ended);
            }
        }
    }

    /// The same without waiting: whether there is such a state now.
    pub fn look_now(&mut self, lsn: u64, tables: &[TableName]) -> Result<bool, ReadError> {
        let now = self.mirror.reached();
        if !now.looked || now.lsn < lsn {
            return Ok(false);
        }
        self.begin()?;
        let is_whole = self.state(tables)?;
        if !is_whole {
            self.end()?;
        }
        Ok(is_whole)
    }

    /// Whether a look is under way.
    pub fn is_looking(&self) -> bool {
        self.in_look
    }

    /// Whether all of these tables that the source has are whole.
    fn state(&mut self, tables: &[TableName]) -> Result<bool, ReadError> {
        for name in tables {
            let Some(found) = self.table(name)? else {
                // One that the journal speaks of and the mirror does not know yet may have rows in a moment.
                if self.mirror.is_in_journal(name) {
                    return Ok(false);
                }
                continue;
            };
            if let Some(reason) = found.refused {
                self.end()?;
                return Err(ReadError::Refused { table: name.to_string(), reason });
            }
            if !found.is_whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn begin(&mut self) -> Result<(), ReadError> {
        self.end()?;
        let generation = self.mirror.reached().generation;
        if self.connection.as_ref().is_none_or(|(of, _)| *of != generation) {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(self.mirror.path(), flags)?;
            connection
                .execute_batch(&format!("PRAGMA busy_timeout = 10000; PRAGMA cache_size = -{CACHE_KIB}"))?;
            self.connection = Some((generation, connection));
            self.definitions.clear();
        }
        self.tables.clear();
        self.connection()?.execute_batch("BEGIN")?;
        self.in_look = true;
        let shape: i64 = self
            .connection()?
            .prepare_cached("SELECT ifnull(sum(version), 0) FROM schemas")?
            .query_row([], |r| r.get(0))?;
        // Also the first read of the transaction, which fixes its state.
        if shape != self.shape {
            self.definitions.clear();
            self.shape = shape;
        }
        Ok(())
    }

    /// Ends a look: what is not looked at may be forgotten.
    pub fn end(&mut self) -> Result<(), ReadError> {
        if std::mem::take(&mut self.in_look)
            && let Some((_, connection)) = &self.connection
        {
            connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    fn connection(&self) -> Result<&Connection, ReadError> {
        self.connection.as_ref().map(|(_, connection)| connection).ok_or(ReadError::Ended)
    }

    /// A table by its name of now.
    pub fn table(&mut self, name: &TableName) -> Result<Option<Mirrored>, ReadError> {
        if let Some(found) = self.tables.get(name) {
            return Ok(found.clone());
        }
        let found = self.find_table(name)?;
        self.tables.insert(name.clone(), found.clone());
        Ok(found)
    }

    fn find_table(&mut self, name: &TableName) -> Result<Option<Mirrored>, ReadError> {
        let sql = "SELECT id, version, anew IS NULL AND filled = 1, refused, links FROM tables
                   WHERE db = ?1 AND name = ?2 AND dropped = 0 ORDER BY id DESC LIMIT 1";
        let found: Option<(u32, u32, bool, Option<String>, String)> = self
            .connection()?
            .prepare_cached(sql)?
            .query_row(params![name.db, name.table], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })
            .optional()?;
        let Some((id, version, is_whole, refused, links)) = found else { return Ok(None) };
        let links = Arc::new(serde_json::from_str(&links).map_err(StoreError::from)?);
        let table = self.definition(id, version)?;
        Ok(Some(Mirrored { id, table, links, is_whole, refused }))
    }

    fn definition(&mut self, id: u32, version: u32) -> Result<Arc<Table>, ReadError> {
        if let Some(table) = self.definitions.get(&(id, version)) {
            return Ok(Arc::clone(table));
        }
        let found = definition(self.connection()?, id, version)?;
        let table = Arc::new(found.ok_or_else(|| StoreError::Malformed(format!("table {id}")))?);
        self.definitions.insert((id, version), Arc::clone(&table));
        Ok(table)
    }

    /// A row by its key's bytes.
    pub fn row(&mut self, table: &Mirrored, key: &[u8]) -> Result<Option<MirrorRow>, ReadError> {
        let sql = format!("SELECT key, lsn, version, row FROM rows_{} WHERE key = ?1 AND gone = 0", table.id);
        Ok(self.rows(table.id, &sql, &[&key])?.pop())
    }

    /// Rows by the values of other columns than the key, in the order of their keys; at most `limit`.
    pub fn linked(
        &mut self,
        table: &Mirrored,
        access: &Access,
        value: &[u8],
        limit: usize,
    ) -> Result<Vec<MirrorRow>, ReadError> {
        let Access::Link(place) = access else { return Ok(self.row(table, value)?.into_iter().collect()) };
        let sql = format!(
            "SELECT key, lsn, version, row FROM rows_{} WHERE link_{place} = ?1 AND gone = 0 ORDER BY key LIMIT ?2",
            table.id
        );
        self.rows(table.id, &sql, &[&value, &(limit as i64)])
    }

    /// Rows in the order of their keys, behind one; fewer than `limit` also where they have `bytes` together, and whether there are more.
    pub fn page_within(
        &mut self,
        table: &Mirrored,
        after: &[u8],
        limit: usize,
        bytes: usize,
    ) -> Result<(Vec<MirrorRow>, bool), ReadError> {
        let sql = format!(
            "SELECT key, lsn, version, row FROM rows_{} WHERE key > ?1 AND gone = 0 ORDER BY key",
            table.id
        );
        let (mut found, mut size, mut more) = (Vec::new(), 0, false);
        {
            let mut query = self.connection()?.prepare_cached(&sql)?;
            let mut rows = query.query([after])?;
            while let Some(row) = rows.next()? {
                if found.len() == limit || size >= bytes {
                    more = true;
                    break;
                }
                let image: Vec<u8> = row.get(3)?;
                size += image.len();
                found.push((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?, image));
            }
        }
        let mut out = Vec::with_capacity(found.len());
        for (key, lsn, version, row) in found {
            let definition = self.definition(table.id, version)?;
            out.push(MirrorRow { key, lsn: lsn as u64, table: definition, row });
        }
        Ok((out, more))
    }

    /// Hands out all rows, in the order of their keys.
    pub fn each(
        &mut self,
        table: &Mirrored,
        mut take: impl FnMut(&Table, RowView<'_>),
    ) -> Result<(), ReadError> {
        let mut after = Vec::new();
        loop {
            let (rows, more) = self.page_within(table, &after, EACH_ROWS, EACH_BYTES)?;
            for row in &rows {
                take(&row.table, row.view());
            }
            match rows.last() {
                Some(last) if more => after.clone_from(&last.key),
                _ => return Ok(()),
            }
        }
    }

    /// Rows in the order of their keys, behind one.
    pub fn page(
        &mut self,
        table: &Mirrored,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<MirrorRow>, ReadError> {
        let sql = format!(
            "SELECT key, lsn, version, row FROM rows_{} WHERE key > ?1 AND gone = 0 ORDER BY key LIMIT ?2",
            table.id
        );
        self.rows(table.id, &sql, &[&after, &(limit as i64)])
    }

    /// The change that this look's state ends with.
    pub fn lsn(&self) -> Result<u64, ReadError> {
        let lsn: i64 =
            self.connection()?.prepare_cached("SELECT lsn FROM mirror")?.query_row([], |r| r.get(0))?;
        Ok(lsn as u64)
    }

    /// From which change on rows of a table that are gone are still known as such.
    pub fn knows_gone_from(&self, table: &Mirrored) -> Result<u64, ReadError> {
        let sql = "SELECT purged FROM tables WHERE id = ?1";
        let purged: i64 = self.connection()?.prepare_cached(sql)?.query_row([table.id], |r| r.get(0))?;
        Ok(purged as u64)
    }

    /// How many rows a table has.
    pub fn count(&self, table: &Mirrored) -> Result<u64, ReadError> {
        let sql = "SELECT rows FROM tables WHERE id = ?1";
        let rows: i64 = self.connection()?.prepare_cached(sql)?.query_row([table.id], |r| r.get(0))?;
        Ok(rows.max(0) as u64)
    }

    /// How many rows have changed behind `lsn`, the ones that are gone among them; counts to `limit`.
    pub fn count_changed(&self, table: &Mirrored, lsn: u64, limit: u64) -> Result<u64, ReadError> {
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM rows_{} WHERE lsn > ?1 LIMIT ?2)", table.id);
        let found: i64 = self
            .connection()?
            .prepare_cached(&sql)?
            .query_row(params![lsn as i64, limit as i64], |r| r.get(0))?;
        Ok(found as u64)
    }

    /// Rows that have changed behind `(lsn, key)`, in the order of their last changes, and whether each is gone; as many as
    /// [`MirrorReader::page_within`] gives, and whether there are more.
    pub fn changed_within(
        &mut self,
        table: &Mirrored,
        (lsn, key): (u64, &[u8]),
        limit: usize,
        bytes: usize,
    ) -> Result<(Vec<(MirrorRow, bool)>, bool), ReadError> {
        let sql = format!(
            "SELECT key, lsn, version, row, gone FROM rows_{} WHERE (lsn, key) > (?1, ?2) ORDER BY lsn, key",
            table.id
        );
        let (mut found, mut size, mut more) = (Vec::new(), 0, false);
        {
            let mut query = self.connection()?.prepare_cached(&sql)?;
            let mut rows = query.query(params![lsn as i64, key])?;
            while let Some(row) = rows.next()? {
                if found.len() == limit || size >= bytes {
                    more = true;
                    break;
                }
                let image: Vec<u8> = row.get(3)?;
                size += image.len();
                found.push((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?, image, row.get(4)?));
            }
        }
        let mut out = Vec::with_capacity(found.len());
        for (key, lsn, version, row, gone) in found {
            let definition = self.definition(table.id, version)?;
            out.push((MirrorRow { key, lsn: lsn as u64, table: definition, row }, gone));
        }
        Ok((out, more))
    }

    fn rows(
        &mut self,
        id: u32,
        sql: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<MirrorRow>, ReadError> {
        type Filed = (Vec<u8>, i64, u32, Vec<u8>);
        let found: Vec<Filed> = {
            let mut query = self.connection()?.prepare_cached(sql)?;
            let rows = query.query_map(values, |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        let mut out = Vec::with_capacity(found.len());
        for (key, lsn, version, row) in found {
            let table = self.definition(id, version)?;
            out.push(MirrorRow { key, lsn: lsn as u64, table, row });
        }
        Ok(out)
    }
}

impl Mirrored {
    /// How rows are found by these columns; `None` when they are neither the key nor a link.
    pub fn access(&self, columns: &[String]) -> Option<Access> {
        let same = |a: &[String]| {
            a.len() == columns.len() && a.iter().zip(columns).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        if is_key(&self.table, columns) {
            return Some(Access::Key);
        }
        self.links.iter().position(|link| same(link)).map(Access::Link)
    }
}

/// Whether the table has not all of these columns.
pub fn lacks(table: &Table, columns: &[String]) -> bool {
    super::store::places(table, columns).is_none()
}

/// Whether these columns are the table's key, in its order.
pub fn is_key(table: &Table, columns: &[String]) -> bool {
    let mut key = table.key.iter().map(|index| &table.columns[*index].name);
    table.key.len() == columns.len()
        && columns.iter().all(|name| key.next().is_some_and(|own| own.eq_ignore_ascii_case(name)))
}

/// The bytes of these columns of a row, as joins compare them; `None` when one is NULL or missing.
pub fn joined(table: &Table, row: RowView<'_>, columns: &[String]) -> Option<Vec<u8>> {
    let places = super::store::places(table, columns)?;
    let values: Vec<Option<ValueRef<'_>>> = row.iter().collect::<Result<_, _>>().ok()?;
    key::joined(places.iter().map(|index| values.get(*index).copied().flatten()))
}

/// The bytes of a row's key.
pub fn key_of(table: &Table, row: RowView<'_>) -> Option<Vec<u8>> {
    let values: Vec<Option<ValueRef<'_>>> = row.iter().collect::<Result<_, _>>().ok()?;
    let mut out = Vec::with_capacity(16);
    for index in &table.key {
        key::put(&mut out, values.get(*index).copied().flatten().unwrap_or(ValueRef::Null));
    }
    Some(out)
}
