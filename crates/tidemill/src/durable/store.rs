//! Streams that clients make and append to: a SQLite file of their own.
//!
//! Every write is one transaction that is durable when the call returns (WAL, synchronous=FULL), and readers see only what is. A
//! position is the number of bytes before it; a row is one append, and positions that are given out are ends of appends. A fork has
//! no bytes of what it inherits: it reads them at its source, which therefore stays as long as it has forks.
//!
//! Calls block; whoever serves keeps them off the threads that serve others.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a stream's path.
pub const PATH_BYTES_MAX: usize = 512;
/// Bytes of a content type, of a `Stream-Seq`, and of a producer's name.
pub const TEXT_BYTES_MAX: usize = 256;
/// Producers that one stream remembers.
pub const PRODUCERS_MAX: i64 = 1000;
/// Forks of forks.
pub const FORK_DEPTH_MAX: i64 = 16;
/// Bytes of one answer, but for the append that goes past it.
pub const READ_BYTES: usize = 1 << 20;
/// Streams that are out of date and are removed with another write.
const SWEEP_MAX: usize = 100;

/// Of the tables below, in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, content_type TEXT NOT NULL,
    ttl_s INTEGER, expires_ms INTEGER, tail INTEGER NOT NULL, closed INTEGER NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    seq TEXT, parent INTEGER, fork_at INTEGER NOT NULL, sub INTEGER NOT NULL, depth INTEGER NOT NULL
) STRICT;
CREATE INDEX streams_parent ON streams (parent) WHERE parent IS NOT NULL;
CREATE INDEX streams_expires ON streams (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE appends (stream INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (stream, start)) STRICT;
CREATE TABLE producers (
    stream INTEGER NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;
";
const COLUMNS: &str =
    "id, content_type, ttl_s, expires_ms, tail, closed, deleted, seq, parent, fork_at, sub, depth";

/// Why something was not done.
#[derive(Debug)]
pub enum Failure {
    /// There is no such stream.
    NotFound,
    /// It was deleted, and forks still read it.
    Gone,
    /// It ended here.
    Closed(i64),
    Conflict(String),
    Invalid(String),
    /// As much is kept as may be.
    Exhausted(String),
    /// The producer has a newer epoch.
    Stale(i64),
    /// A request of the producer is missing.
    Gap {
        expected: i64,
        received: i64,
    },
    /// The file does not do as it should.
    Broken(rusqlite::Error),
    /// The thread that did it came to no end.
    Lost,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Exhausted("the disk is full".into()),
            _ => Self::Broken(error),
        }
    }
}

/// What is known of a stream without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub id: i64,
    pub content_type: String,
    pub ttl_s: Option<i64>,
    pub expires_ms: Option<i64>,
    pub tail: i64,
    pub closed: bool,
    deleted: bool,
    seq: Option<String>,
    parent: Option<i64>,
    fork_at: i64,
    sub: i64,
    depth: i64,
}

impl Meta {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            content_type: row.get(1)?,
            ttl_s: row.get(2)?,
            expires_ms: row.get(3)?,
            tail: row.get(4)?,
            closed: row.get(5)?,
            deleted: row.get(6)?,
            seq: row.get(7)?,
            parent: row.get(8)?,
            fork_at: row.get(9)?,
            sub: row.get(10)?,
            depth: row.get(11)?,
        })
    }

    pub fn is_json(&self) -> bool {
        is_json(&self.content_type)
    }
}

/// The type alone, by which types are compared.
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(content_type: &str) -> bool {
    media_type(content_type) == "application/json"
}

/// A stream that begins.
#[derive(Clone, Debug, Default)]
pub struct Create {
    pub path: String,
    pub content_type: Option<String>,
    pub ttl_s: Option<i64>,
    pub expires_ms: Option<i64>,
    pub closed: bool,
    pub body: Vec<u8>,
    pub fork: Option<Fork>,
}

/// What a new stream begins with.
#[derive(Clone, Debug)]
pub struct Fork {
    pub path: String,
    /// All that there is, where it is not told.
    pub at: Option<i64>,
    /// How much of the append that follows: bytes, or messages of JSON.
    pub sub: i64,
}

/// Whose request, and which of his.
#[derive(Clone, Debug)]
pub struct Producer {
    pub name: String,
    pub epoch: i64,
    pub seq: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Append {
    pub path: String,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// It is the last one.
    pub close: bool,
    pub seq: Option<String>,
    pub producer: Option<Producer>,
}

#[derive(Debug)]
pub struct Appended {
    pub id: i64,
    pub tail: i64,
    pub closed: bool,
    /// It had been done before.
    pub repeated: bool,
    /// The epoch and the last request of the producer.
    pub producer: Option<(i64, i64)>,
}

/// A part of a stream.
#[derive(Debug)]
pub struct Part {
    pub meta: Meta,
    pub from: i64,
    pub next: i64,
    /// In JSON, messages with commas between.
    pub data: Vec<u8>,
}

impl Part {
    pub fn is_up_to_date(&self) -> bool {
        self.next == self.meta.tail
    }

    pub fn is_end(&self) -> bool {
        self.is_up_to_date() && self.meta.closed
    }
}

/// Where to read from.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    At(i64),
    Now,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub streams: i64,
    pub bytes: i64,
}

/// The file, by two connections: a writer waits for the disk, and readers do not wait for the writer.
pub struct Store {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// When streams with a time to live end, unless they are used: by their ids. Begins anew with the process, so that a read before
    /// it ended, which is written nowhere, is not forgotten.
    ends: Mutex<HashMap<i64, i64>>,
    bounds: Bounds,
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, Failure> {
        let mut writer = Connection::open(path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = writer.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            SCHEMA_VERSION => {}
            0 => {
                let tx = writer.transaction()?;
                tx.execute_batch(SCHEMA)?;
                tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                tx.commit()?;
            }
            found => {
                return Err(Failure::Invalid(format!(
                    "it has version {found}, this binary knows {SCHEMA_VERSION}"
                )));
            }
        }
        let reader = Connection::open(path)?;
        reader.pragma_update(None, "query_only", true)?;
        let now = now_ms();
        let ends = {
            let mut all = writer.prepare("SELECT id, ttl_s FROM streams WHERE ttl_s IS NOT NULL")?;
            let rows = all.query_map([], |row| Ok((row.get(0)?, end_of(now, row.get(1)?))))?;
            rows.collect::<Result<HashMap<i64, i64>, _>>()?
        };
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(reader), ends: Mutex::new(ends), bounds })
    }

    /// Whether it ended by itself.
    fn is_over(&self, meta: &Meta) -> bool {
        let now = now_ms();
        !meta.deleted
            && (meta.expires_ms.is_some_and(|end| end <= now)
                || locked(&self.ends).get(&meta.id).is_some_and(|end| *end <= now))
    }

    /// It is used: its time to live begins anew.
    fn touch(&self, meta: &Meta) {
        if let Some(ttl) = meta.ttl_s {
            locked(&self.ends).insert(meta.id, end_of(now_ms(), ttl));
        }
    }

    fn settle(&self, removed: &[i64]) {
        let mut ends = locked(&self.ends);
        for id in removed {
            ends.remove(id);
        }
    }

    /// A stream that lives, as a write sees it; one that is over is removed first.
    fn of_write(&self, tx: &Transaction<'_>, path: &str, removed: &mut Vec<i64>) -> Result<Meta, Failure> {
        let mut found = by_path(tx, path)?;
        if let Some(meta) = found.as_ref().filter(|meta| self.is_over(meta)) {
            remove(tx, meta, removed)?;
            found = by_path(tx, path)?;
        }
        match found {
            None => Err(Failure::NotFound),
            Some(meta) if meta.deleted => Err(Failure::Gone),
            Some(meta) => Ok(meta),
        }
    }

    /// Runs a write, whose result is durable afterwards; or all of it is as it was.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &mut Vec<i64>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut connection = locked(&self.writer);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut removed = Vec::new();
        self.sweep(&tx, &mut removed)?;
        let done = work(&tx, &mut removed)?;
        tx.commit()?;
        self.settle(&removed);
        Ok(done)
    }

    /// Removes what is over, some of it.
    fn sweep(&self, tx: &Transaction<'_>, removed: &mut Vec<i64>) -> Result<(), Failure> {
        let now = now_ms();
        let over = "SELECT id FROM streams WHERE expires_ms <= ?1 AND deleted = 0 LIMIT ?2";
        let mut query = tx.prepare_cached(over)?;
        let by_time = query.query_map(params![now, SWEEP_MAX as i64], |row| row.get(0))?;
        let mut ids: Vec<i64> = by_time.collect::<Result<_, _>>()?;
        let idle = locked(&self.ends);
        ids.extend(idle.iter().filter(|(_, end)| **end <= now).map(|(id, _)| *id).take(SWEEP_MAX));
        drop(idle);
        for id in ids {
            if let Some(meta) = by_id(tx, id)?.filter(|meta| !meta.deleted) {
                remove(tx, &meta, removed)?;
            }
        }
        Ok(())
    }

    fn room(&self, tx: &Transaction<'_>, more: usize) -> Result<(), Failure> {
        let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = number("page_count")? - number("freelist_count")?;
        if pages * number("page_size")? + more as i64 > self.bounds.bytes {
            return Err(Failure::Exhausted(format!("streams have {} bytes already", self.bounds.bytes)));
        }
        Ok(())
    }

    /// Begins a stream; false where it was there already, as it is asked for.
    pub fn create(&self, request: Create) -> Result<(Meta, bool), Failure> {
        let made = self.write(|tx, removed| {
            match self.of_write(tx, &request.path, removed) {
                Ok(meta) => {
                    same(tx, &meta, &request)?;
                    return Ok((meta, false));
                }
                Err(Failure::NotFound) => {}
                Err(Failure::Gone) => {
                    return Err(Failure::Conflict("the stream was deleted, and forks still read it".into()));
                }
                Err(other) => return Err(other),
            }
            let count: i64 = tx.query_row("SELECT count(*) FROM streams", [], |row| row.get(0))?;
            if count >= self.bounds.streams {
                return Err(Failure::Exhausted(format!("there are {count} streams already")));
            }
            let source = match &request.fork {
                Some(fork) => Some(self.source(tx, fork, &request, removed)?),
                None => None,
            };
            let inherited = source.as_ref().map(|(meta, ..)| meta);
            let content_type = match (&request.content_type, inherited) {
                (Some(own), _) => own.clone(),
                (None, Some(meta)) => meta.content_type.clone(),
                (None, None) => "application/octet-stream".to_owned(),
            };
            let (mut ttl_s, mut expires_ms) = (request.ttl_s, request.expires_ms);
            if let (None, None, Some(meta)) = (ttl_s, expires_ms, inherited) {
                (ttl_s, expires_ms) = (meta.ttl_s, meta.expires_ms);
            }
            let body = if is_json(&content_type) { messages(&request.body)? } else { request.body.clone() };
            let (fork_at, prefix) =
                source.as_ref().map_or((0, &[][..]), |(_, at, prefix)| (*at, prefix.as_slice()));
            self.room(tx, prefix.len() + body.len())?;
            let tail = fork_at + (prefix.len() + body.len()) as i64;
            tx.execute(
                "INSERT INTO streams (path, content_type, ttl_s, expires_ms, tail, closed, parent, fork_at, sub, depth)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    request.path,
                    content_type,
                    ttl_s,
                    expires_ms,
                    tail,
                    request.closed,
                    inherited.map(|meta| meta.id),
                    fork_at,
                    request.fork.as_ref().map_or(0, |fork| fork.sub),
                    inherited.map_or(0, |meta| meta.depth + 1)
                ],
            )?;
            let id = tx.last_insert_rowid();
            for (start, data) in [(fork_at, prefix), (fork_at + prefix.len() as i64, &body)] {
                if !data.is_empty() {
                    tx.execute("INSERT INTO appends VALUES (?1, ?2, ?3)", params![id, start, data])?;
                }
            }
            Ok((by_id(tx, id)?.ok_or(Failure::NotFound)?, true))
        })?;
        self.touch(&made.0);
        Ok(made)
    }

    /// What a fork begins with: its source, the place there, and a part of what follows.
    fn source(
        &self,
        tx: &Transaction<'_>,
        fork: &Fork,
        request: &Create,
        removed: &mut Vec<i64>,
    ) -> Result<(Meta, i64, Vec<u8>), Failure> {
        let source = match self.of_write(tx, &fork.path, removed) {
            Err(Failure::Gone) => return Err(Failure::Conflict("the stream to fork was deleted".into())),
            found => found?,
        };
        if let Some(own) = &request.content_type
            && media_type(own) != media_type(&source.content_type)
        {
            return Err(Failure::Conflict(format!("the stream to fork is of `{}`", source.content_type)));
        }
        if source.depth >= FORK_DEPTH_MAX {
            return Err(Failure::Exhausted(format!("forks are at most {FORK_DEPTH_MAX} deep")));
        }
        let at = fork.at.unwrap_or(source.tail);
        if !is_place(tx, &source, at)? {
            return Err(Failure::Invalid("the stream to fork has no such offset".into()));
        }
        if fork.sub == 0 {
            return Ok((source, at, Vec::new()));
        }
        let short = || Failure::Invalid("what follows the offset is shorter than the sub-offset".into());
        let next = append_at(tx, &source, at)?.ok_or_else(short)?;
        let wanted = usize::try_from(fork.sub).map_err(|_| short())?;
        let prefix = if source.is_json() {
            let list = [b"[", next.as_slice(), b"]"].concat();
            let all: Vec<&RawValue> = serde_json::from_slice(&list).map_err(|_| short())?;
            let some = all.get(..wanted).ok_or_else(short)?;
            some.iter().map(|message| message.get()).collect::<Vec<_>>().join(",").into_bytes()
        } else {
            next.get(..wanted).ok_or_else(short)?.to_vec()
        };
        Ok((source, at, prefix))
    }

    /// Appends, ends a stream, or both.
    pub fn append(&self, request: Append) -> Result<Appended, Failure> {
        let (meta, done) = self.write(|tx, removed| {
            let meta = self.of_write(tx, &request.path, removed)?;
            let data = checked(&meta, &request)?;
            let known = match &request.producer {
                Some(producer) => judged(tx, &meta, producer)?,
                None => Judged::Next,
            };
            if let Judged::Repeated { epoch, seq } = known {
                let (id, tail, closed) = (meta.id, meta.tail, meta.closed);
                let done = Appended { id, tail, closed, repeated: true, producer: Some((epoch, seq)) };
                return Ok((meta, done));
            }
            let (id, tail) = (meta.id, meta.tail);
            if meta.closed {
                if data.is_empty() && request.producer.is_none() {
                    return Ok((meta, Appended { id, tail, closed: true, repeated: true, producer: None }));
                }
                return Err(Failure::Closed(tail));
            }
            if let (Some(seq), Some(last)) = (&request.seq, &meta.seq)
                && seq.as_bytes() <= last.as_bytes()
            {
                return Err(Failure::Conflict(format!("`Stream-Seq` is not behind `{last}`")));
            }
            let next = tail + data.len() as i64;
            if !data.is_empty() {
                self.room(tx, data.len())?;
                tx.prepare_cached("INSERT INTO appends VALUES (?1, ?2, ?3)")?
                    .execute(params![id, tail, data])?;
            }
            let update = "UPDATE streams SET tail = ?2, closed = ?3, seq = coalesce(?4, seq) WHERE id = ?1";
            tx.prepare_cached(update)?.execute(params![id, next, request.close, request.seq])?;
            if let Some(Producer { name, epoch, seq }) = &request.producer {
                tx.prepare_cached("INSERT OR REPLACE INTO producers VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![id, name, epoch, seq])?;
            }
            let producer = request.producer.as_ref().map(|producer| (producer.epoch, producer.seq));
            Ok((meta, Appended { id, tail: next, closed: request.close, repeated: false, producer }))
        })?;
        self.touch(&meta);
        Ok(done)
    }

    /// Deletes a stream; its number. One that has forks is kept for them, and for nobody else.
    pub fn delete(&self, path: &str) -> Result<i64, Failure> {
        self.write(|tx, removed| {
            let meta = self.of_write(tx, path, removed)?;
            remove(tx, &meta, removed)?;
            Ok(meta.id)
        })
    }

    /// What a stream is. It is not used by that.
    pub fn meta(&self, path: &str) -> Result<Meta, Failure> {
        self.of_read(&locked(&self.reader), path)
    }

    fn of_read(&self, reader: &Connection, path: &str) -> Result<Meta, Failure> {
        match by_path(reader, path)? {
            Some(meta) if meta.deleted => Err(Failure::Gone),
            Some(meta) if !self.is_over(&meta) => Ok(meta),
            _ => Err(Failure::NotFound),
        }
    }

    /// What comes behind a place.
    pub fn read(&self, path: &str, start: Start) -> Result<Part, Failure> {
        let mut reader = locked(&self.reader);
        // One look, so that the bytes are those of the place.
        let look = reader.transaction()?;
        let meta = self.of_read(&look, path)?;
        self.touch(&meta);
        let from = match start {
            Start::Now => meta.tail,
            Start::At(at) => at,
        };
        if !is_place(&look, &meta, from)? {
            return Err(Failure::Invalid("the stream has no such offset".into()));
        }
        let (mut data, mut next) = (Vec::new(), from);
        gather(&look, &meta, meta.tail, &mut next, &mut data)?;
        Ok(Part { meta, from, next, data })
    }
}

fn end_of(now: i64, ttl_s: i64) -> i64 {
    now.saturating_add(ttl_s.saturating_mul(1000))
}

fn by_path(connection: &Connection, path: &str) -> rusqlite::Result<Option<Meta>> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM streams WHERE path = ?1"))?;
    query.query_row([path], Meta::of).optional()
}

fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<Option<Meta>> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM streams WHERE id = ?1"))?;
    query.query_row([id], Meta::of).optional()
}

/// Removes a stream, and sources of it that were kept for its sake. One that has forks is kept for them.
fn remove(tx: &Transaction<'_>, meta: &Meta, removed: &mut Vec<i64>) -> Result<(), Failure> {
    let mut meta = meta.clone();
    loop {
        removed.push(meta.id);
        let has_forks = |id: i64| {
            tx.query_row("SELECT EXISTS (SELECT 1 FROM streams WHERE parent = ?1)", [id], |row| row.get(0))
        };
        if has_forks(meta.id)? {
            tx.execute("UPDATE streams SET deleted = 1 WHERE id = ?1", [meta.id])?;
            return Ok(());
        }
        tx.execute("DELETE FROM appends WHERE stream = ?1", [meta.id])?;
        tx.execute("DELETE FROM producers WHERE stream = ?1", [meta.id])?;
        tx.execute("DELETE FROM streams WHERE id = ?1", [meta.id])?;
        let Some(parent) = meta.parent else { return Ok(()) };
        match by_id(tx, parent)?.filter(|parent| parent.deleted) {
            Some(parent) => meta = parent,
            None => return Ok(()),
        }
    }
}

/// Whether a stream that is there is what is asked for.
fn same(tx: &Transaction<'_>, meta: &Meta, request: &Create) -> Result<(), Failure> {
    let differs = |what: &str| Err(Failure::Conflict(format!("the stream is there, with another {what}")));
    let is_fork = request.fork.is_some();
    match &request.content_type {
        Some(own) if media_type(own) != media_type(&meta.content_type) => return differs("content type"),
        None if !is_fork && media_type(&meta.content_type) != "application/octet-stream" => {
            return differs("content type");
        }
        _ => {}
    }
    let inherits = is_fork && request.ttl_s.is_none() && request.expires_ms.is_none();
    if !inherits && (request.ttl_s, request.expires_ms) != (meta.ttl_s, meta.expires_ms) {
        return differs("end");
    }
    if request.closed && !meta.closed {
        return differs("state: it is open");
    }
    let parent = match &request.fork {
        Some(fork) => by_path(tx, &fork.path)?.map(|source| source.id),
        None => None,
    };
    let at = request.fork.as_ref().and_then(|fork| fork.at).unwrap_or(meta.fork_at);
    let sub = request.fork.as_ref().map_or(0, |fork| fork.sub);
    if (parent, at, sub) != (meta.parent, meta.fork_at, meta.sub) {
        return differs("beginning");
    }
    Ok(())
}

/// Whether the place is the end of an append, or the beginning.
fn is_place(connection: &Connection, meta: &Meta, at: i64) -> Result<bool, Failure> {
    if at == 0 || at == meta.tail {
        return Ok(true);
    }
    let mut own = meta.clone();
    loop {
        if at >= own.fork_at {
            let sql = "SELECT EXISTS (SELECT 1 FROM appends WHERE stream = ?1 AND start = ?2)";
            let begins: bool =
                connection.prepare_cached(sql)?.query_row(params![own.id, at], |row| row.get(0))?;
            return Ok(begins || at == own.fork_at);
        }
        match own.parent.map(|parent| by_id(connection, parent)).transpose()?.flatten() {
            Some(parent) => own = parent,
            None => return Ok(false),
        }
    }
}

/// The append that begins at a place.
fn append_at(connection: &Connection, meta: &Meta, at: i64) -> Result<Option<Vec<u8>>, Failure> {
    let mut own = meta.clone();
    while at < own.fork_at {
        match own.parent.map(|parent| by_id(connection, parent)).transpose()?.flatten() {
            Some(parent) => own = parent,
            None => return Ok(None),
        }
    }
    let sql = "SELECT data FROM appends WHERE stream = ?1 AND start = ?2";
    Ok(connection.query_row(sql, params![own.id, at], |row| row.get(0)).optional()?)
}

/// Appends what stands from `next` up to `end`, until it is enough: first what is inherited.
fn gather(
    connection: &Connection,
    meta: &Meta,
    end: i64,
    next: &mut i64,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    if *next < meta.fork_at
        && let Some(parent) = meta.parent.map(|parent| by_id(connection, parent)).transpose()?.flatten()
    {
        let inherited = end.min(meta.fork_at);
        gather(connection, &parent, inherited, next, out)?;
        if *next < inherited {
            return Ok(());
        }
    }
    let sql =
        "SELECT start, data FROM appends WHERE stream = ?1 AND start >= ?2 AND start < ?3 ORDER BY start";
    let mut query = connection.prepare_cached(sql)?;
    let mut rows = query.query(params![meta.id, *next, end])?;
    while out.len() < READ_BYTES
        && let Some(row) = rows.next()?
    {
        let data = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        if meta.is_json() && !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(data);
        *next = row.get::<_, i64>(0)? + data.len() as i64;
    }
    Ok(())
}

/// The bytes of an append, if it can be one of the stream.
fn checked(meta: &Meta, request: &Append) -> Result<Vec<u8>, Failure> {
    if request.body.is_empty() {
        return match request.close {
            true => Ok(Vec::new()),
            false => Err(Failure::Invalid("there is nothing to append".into())),
        };
    }
    let Some(content_type) = &request.content_type else {
        return Err(Failure::Invalid("the request has no `Content-Type`".into()));
    };
    if media_type(content_type) != media_type(&meta.content_type) {
        return Err(Failure::Conflict(format!("the stream is of `{}`", meta.content_type)));
    }
    if !meta.is_json() {
        return Ok(request.body.clone());
    }
    let data = messages(&request.body)?;
    if data.is_empty() {
        return Err(Failure::Invalid("there is no message in the list".into()));
    }
    Ok(data)
}

/// The messages of a body: it is one, or the list of them.
fn messages(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let invalid = |error: serde_json::Error| Failure::Invalid(format!("the body is no JSON: {error}"));
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        let message: &RawValue = serde_json::from_slice(body).map_err(invalid)?;
        return Ok(message.get().as_bytes().to_vec());
    }
    let all: Vec<&RawValue> = serde_json::from_slice(body).map_err(invalid)?;
    Ok(all.iter().map(|message| message.get()).collect::<Vec<_>>().join(",").into_bytes())
}

/// What a request is to its producer.
enum Judged {
    Next,
    Repeated { epoch: i64, seq: i64 },
}

fn judged(tx: &Transaction<'_>, meta: &Meta, producer: &Producer) -> Result<Judged, Failure> {
    let sql = "SELECT epoch, seq FROM producers WHERE stream = ?1 AND name = ?2";
    let known: Option<(i64, i64)> = tx
        .prepare_cached(sql)?
        .query_row(params![meta.id, producer.name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Producer { epoch, seq, .. } = *producer;
    let expected = match known {
        None => {
            let count = "SELECT count(*) FROM producers WHERE stream = ?1";
            let count: i64 = tx.prepare_cached(count)?.query_row([meta.id], |row| row.get(0))?;
            if count >= PRODUCERS_MAX {
                return Err(Failure::Exhausted(format!("the stream has {count} producers already")));
            }
            0
        }
        Some((newer, _)) if epoch < newer => return Err(Failure::Stale(newer)),
        Some((older, _)) if epoch > older => match seq {
            0 => 0,
            _ => return Err(Failure::Invalid("a new epoch begins with `Producer-Seq: 0`".into())),
        },
        Some((epoch, last)) if seq <= last => return Ok(Judged::Repeated { epoch, seq: last }),
        Some((_, last)) => last + 1,
    };
    match seq == expected {
        true => Ok(Judged::Next),
        false => Err(Failure::Gap { expected, received: seq }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Bounds = Bounds { streams: 100, bytes: 1 << 30 };

    fn made(path: &str, content_type: &str, body: &str) -> Create {
        let (path, content_type) = (path.to_owned(), Some(content_type.to_owned()));
        Create { path, content_type, body: body.into(), ..Create::default() }
    }

    fn more(path: &str, body: &str) -> Append {
        let content_type = Some("text/plain".to_owned());
        Append { path: path.to_owned(), content_type, body: body.into(), ..Append::default() }
    }

    fn text(store: &Store, path: &str) -> String {
        String::from_utf8(store.read(path, Start::At(0)).unwrap().data).unwrap()
    }

    #[test]
    fn a_fork_reads_at_its_source_which_stays_as_long() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("streams.db"), MANY).unwrap();
        store.create(made("a", "text/plain", "one")).unwrap();
        store.append(more("a", "two")).unwrap();
        let fork = |path: &str, from: &str, at: Option<i64>, sub: i64| {
            let fork = Some(Fork { path: from.into(), at, sub });
            store.create(Create { fork, content_type: None, ..made(path, "", "") })
        };
        fork("b", "a", Some(3), 2).unwrap();
        store.append(more("b", "!")).unwrap();
        store.append(more("a", "three")).unwrap();
        assert_eq!((text(&store, "a"), text(&store, "b")), ("onetwothree".into(), "onetw!".into()));
        fork("c", "b", None, 0).unwrap();
        assert!(matches!(fork("d", "a", Some(1), 0), Err(Failure::Invalid(_))), "no append ends there");
        assert!(matches!(fork("d", "a", Some(3), 4), Err(Failure::Invalid(_))), "the next one is shorter");
        store.delete("a").unwrap();
        store.delete("b").unwrap();
        assert!(matches!(store.meta("a"), Err(Failure::Gone)));
        assert!(matches!(store.create(made("b", "text/plain", "")), Err(Failure::Conflict(_))));
        assert_eq!(text(&store, "c"), "onetw!");
        store.delete("c").unwrap();
        assert!(matches!(store.meta("a"), Err(Failure::NotFound)));
        let left: i64 =
            locked(&store.reader).query_row("SELECT count(*) FROM appends", [], |r| r.get(0)).unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_request_of_a_producer_is_taken_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("streams.db");
        let send = |store: &Store, epoch, seq, body: &str| {
            let producer = Some(Producer { name: "p".into(), epoch, seq });
            store.append(Append { producer, ..more("a", body) })
        };
        let store = Store::open(&path, MANY).unwrap();
        store.create(made("a", "text/plain", "")).unwrap();
        send(&store, 0, 0, "x").unwrap();
        send(&store, 0, 1, "y").unwrap();
        drop(store);
        let store = Store::open(&path, MANY).unwrap();
        let again = send(&store, 0, 0, "x").unwrap();
        assert!(again.repeated && again.producer == Some((0, 1)));
        assert!(matches!(send(&store, 0, 3, "z"), Err(Failure::Gap { expected: 2, received: 3 })));
        assert!(matches!(send(&store, 1, 1, "z"), Err(Failure::Invalid(_))));
        send(&store, 1, 0, "z").unwrap();
        assert!(matches!(send(&store, 0, 2, "w"), Err(Failure::Stale(1))));
        assert_eq!(text(&store, "a"), "xyz");
    }

    #[test]
    fn lists_of_json_are_their_elements() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("streams.db"), MANY).unwrap();
        store.create(made("a", "application/json", " [1, [2,3]] ")).unwrap();
        let json = |body: &str| Append {
            content_type: Some("Application/JSON; charset=utf-8".into()),
            ..more("a", body)
        };
        store.append(json("{\"b\": 1}")).unwrap();
        for bad in ["[]", "{", "1 2", "[1"] {
            assert!(matches!(store.append(json(bad)), Err(Failure::Invalid(_))), "{bad}");
        }
        assert!(matches!(store.append(more("a", "1")), Err(Failure::Conflict(_))));
        assert_eq!(text(&store, "a"), "1,[2,3],{\"b\": 1}");
    }

    #[test]
    fn a_time_to_live_is_that_since_the_last_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("streams.db");
        let store = Store::open(&path, MANY).unwrap();
        let (meta, is_new) =
            store.create(Create { ttl_s: Some(100), ..made("a", "text/plain", "x") }).unwrap();
        assert!(is_new);
        let end = || *locked(&store.ends).get(&meta.id).unwrap();
        locked(&store.ends).insert(meta.id, now_ms() + 1000);
        store.meta("a").unwrap();
        assert!(end() < now_ms() + 2000, "a look is no use");
        store.read("a", Start::Now).unwrap();
        assert!(end() > now_ms() + 90_000);
        locked(&store.ends).insert(meta.id, 0);
        assert!(matches!(store.read("a", Start::Now), Err(Failure::NotFound)));
        let other = store.create(made("a", "application/json", "")).unwrap();
        assert!(other.1 && other.0.id != meta.id);
        let past = Create { expires_ms: Some(now_ms() - 1), ..made("b", "text/plain", "x") };
        store.create(past).unwrap();
        assert!(matches!(store.append(more("b", "y")), Err(Failure::NotFound)));
        drop(store);
        assert!(Store::open(&path, MANY).unwrap().meta("a").is_ok());
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let few = Bounds { streams: 2, bytes: 200_000 };
        let store = Store::open(&dir.path().join("streams.db"), few).unwrap();
        store.create(made("a", "text/plain", "")).unwrap();
        store.create(made("b", "text/plain", "")).unwrap();
        assert!(matches!(store.create(made("c", "text/plain", "")), Err(Failure::Exhausted(_))));
        let large = "x".repeat(60_000);
        store.append(more("a", &large)).unwrap();
        while store.append(more("a", &large)).is_ok() {}
        assert!(matches!(store.append(more("b", &large)), Err(Failure::Exhausted(_))));
        store.delete("a").unwrap();
        store.append(more("b", &large)).unwrap();
    }
}
