//! The readers of a snapshot: they page through tables by key without locks and hand chunks to the stream, which alone
//! writes the journal. See `window` for why that is exact.

use super::check::Server;
use super::connect::{Address, execute, reading_session, statement_error};
use super::repair::{Look, Looked};
use super::schema::{quote_name, quote_text};
use super::window::Mark;
use crate::capture::CaptureError;
use crate::verify::keys_condition;
use base::{Column, Position, RowBuf, RowView, RowWriter, Table, TableName, Value, ValueRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use futures_util::TryStreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value as Param};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// Rows one SELECT asks for unless the configuration says otherwise.
pub const CHUNK_ROWS_DEFAULT: u32 = 4096;
/// Encoded bytes a chunk aims at, so that wide rows come in smaller chunks.
const CHUNK_BYTES: u64 = 8 << 20;
/// A transaction that stays invisible this long is a replica that withholds its acknowledgement, or a broken server.
pub(super) const VISIBILITY_WAIT_MAX: Duration = Duration::from_secs(120);
/// Rows of a table without a key travel to the stream in blocks of this size.
const KEYLESS_BLOCK_BYTES: usize = 256 << 10;
/// A table that is still not what the stream knows after this many looks cannot be read at all.
const REDEFINED_MAX: u32 = 20;
/// Blocks that may wait for the stream.
const KEYLESS_BLOCKS_MAX: usize = 4;

/// What a reader asks of, or tells, the stream.
pub enum Message {
    /// The reader is about to read the next chunk of `table`.
    Start {
        table: TableName,
        reply: oneshot::Sender<Option<Begin>>,
    },
    Chunk(Box<Chunk>),
    /// The table cannot be read, and why: it is quarantined alone.
    Refused {
        table: TableName,
        reason: String,
    },
    /// Rows of `table` are about to be read by their keys; or why they cannot be.
    Look {
        table: TableName,
        reply: oneshot::Sender<Result<Look, String>>,
    },
    Looked(Box<Looked>),
    /// Nothing was read.
    LookEnded {
        table: TableName,
        number: u64,
    },
}

/// The stream's answer to `Start`.
pub struct Begin {
    pub table: Arc<Table>,
    /// What the stream has processed: the low mark must cover it.
    pub processed: Position,
    pub cursor: Option<String>,
    /// For a table without a key: the stream stands still until this is answered.
    pub keyless: Option<oneshot::Sender<Keyless>>,
}

/// A table without a key, read at exactly `mark`.
pub struct Keyless {
    pub mark: Mark,
    pub blocks: mpsc::Receiver<Result<Vec<RowBuf>, CaptureError>>,
    pub rows_estimated: u64,
}

pub struct Chunk {
    pub table: Arc<Table>,
    pub rows: Vec<RowBuf>,
    pub low: Mark,
    pub high: Mark,
    /// Where the next chunk begins; `None` when this was the last.
    pub cursor: Option<String>,
    pub rows_estimated: u64,
    /// The table could not be read as the stream knows it: the piece is read again once the stream is at `high`.
    pub again: bool,
    /// Answered once the chunk is in the journal's queue or was refused.
    pub reply: oneshot::Sender<()>,
}

/// Spreads the rows of all readers over time.
pub struct RateLimit {
    rows_per_second: Option<u32>,
    free_at: Mutex<Instant>,
}

impl RateLimit {
    pub fn new(rows_per_second: Option<u32>) -> Self {
        Self { rows_per_second, free_at: Mutex::new(Instant::now()) }
    }

    async fn spend(&self, rows: usize) {
        let Some(rate) = self.rows_per_second.filter(|rate| *rate > 0) else { return };
        let cost = Duration::from_secs_f64(rows as f64 / f64::from(rate));
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at = (*free_at).max(Instant::now()) + cost;
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

/// Tables that wait for a reader, and those that have one: never two at once.
#[derive(Default)]
pub struct Queue {
    tables: Mutex<Tables>,
    changed: Notify,
}

#[derive(Default)]
struct Tables {
    waiting: VecDeque<TableName>,
    read: HashSet<TableName>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, table: TableName) {
        {
            let mut tables = self.lock();
            if !tables.waiting.contains(&table) {
                tables.waiting.push_back(table);
            }
        }
        self.changed.notify_waiters();
    }

    /// The next table that nobody reads, if there is one.
    fn take(&self) -> Option<TableName> {
        let mut tables = self.lock();
        let index = tables.waiting.iter().position(|table| !tables.read.contains(table))?;
        let table = tables.waiting.remove(index)?;
        tables.read.insert(table.clone());
        Some(table)
    }

    async fn next(&self) -> TableName {
        loop {
            let changed = self.changed.notified();
            if let Some(table) = self.take() {
                return table;
            }
            changed.await;
        }
    }

    fn finish(&self, table: &TableName) {
        self.lock().read.remove(table);
        self.changed.notify_waiters();
    }
}

/// Everything a reader needs.
#[derive(Clone)]
pub struct Reader {
    pub address: Address,
    pub server: Server,
    pub queue: Arc<Queue>,
    pub stream: mpsc::Sender<Message>,
    pub limit: Arc<RateLimit>,
    pub chunk_rows: u32,
}

impl Reader {
    /// Reads tables off the queue, for ever.
    pub async fn run(self) -> Result<(), CaptureError> {
        let mut conn = None;
        loop {
            let table = match self.queue.take() {
                Some(table) => table,
                None => {
                    conn = None;
                    self.queue.next().await
                }
            };
            let conn = match &mut conn {
                Some(conn) => conn,
                none => {
                    let mut fresh = self.address.connect().await?;
                    reading_session(&mut fresh).await?;
                    none.insert(fresh)
                }
            };
            if let Err(error) = self.read_table(conn, &table).await {
                if error.kind != crate::capture::CaptureErrorKind::Fatal {
                    return Err(error);
                }
                let reason = base::error::chain(&error);
                let _ = self.stream.send(Message::Refused { table: table.clone(), reason }).await;
            }
            self.queue.finish(&table);
        }
    }

    async fn read_table(&self, conn: &mut Conn, name: &TableName) -> Result<(), CaptureError> {
        let (rows_estimated, row_bytes) = estimate(conn, name).await?;
        let mut row_bytes = row_bytes.max(16);
        let mut redefined = 0;
        loop {
            let (reply, begin) = oneshot::channel();
            let start = Message::Start { table: name.clone(), reply };
            if self.stream.send(start).await.is_err() {
                return Ok(());
            }
            let Ok(Some(mut begin)) = begin.await else { return Ok(()) };
            let limit = u64::from(self.chunk_rows).min(CHUNK_BYTES / row_bytes).max(1);
            let read = match begin.keyless.take() {
                Some(ready) => match self.read_keyless(&begin.table, ready, rows_estimated).await {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                },
                None => self.read_chunk(conn, &begin, limit).await,
            };
            let (reply, taken) = oneshot::channel();
            let chunk = match read {
                Ok((low, rows, high)) => {
                    let bytes: usize = rows.iter().map(|r| r.0.len()).sum();
                    if !rows.is_empty() {
                        row_bytes = (bytes / rows.len()).max(16) as u64;
                    }
                    self.limit.spend(rows.len()).await;
                    let full = rows.len() as u64 == limit;
                    let cursor =
                        rows.last().filter(|_| full).map(|row| cursor_text(&begin.table, row.view()));
                    redefined = 0;
                    Chunk { table: begin.table, rows, low, high, cursor, rows_estimated, again: false, reply }
                }
                // The table is another by now, and the stream has not come that far: it goes there first.
                Err(error) if is_redefined(&error) && redefined < REDEFINED_MAX => {
                    redefined += 1;
                    execute(conn, &["ROLLBACK"]).await?;
                    let mark = current_mark(conn, &self.server).await?;
                    let (low, high, rows) = (mark.clone(), mark, Vec::new());
                    let cursor = begin.cursor;
                    Chunk { table: begin.table, rows, low, high, cursor, rows_estimated, again: true, reply }
                }
                Err(error) => return Err(error),
            };
            if self.stream.send(Message::Chunk(Box::new(chunk))).await.is_err() || taken.await.is_err() {
                return Ok(());
            }
        }
    }

    /// Low mark, rows, high mark.
    async fn read_chunk(
        &self,
        conn: &mut Conn,
        begin: &Begin,
        limit: u64,
    ) -> Result<(Mark, Vec<RowBuf>, Mark), CaptureError> {
        let low = self.visible_mark(conn, &begin.processed).await?;
        let rows = self.select(conn, &begin.table, begin.cursor.as_deref(), limit).await?;
        let high = self.high_mark(conn, &low).await?;
        Ok((low, rows, high))
    }

    /// Ends what `visible_mark` began.
    pub(super) async fn high_mark(&self, conn: &mut Conn, low: &Mark) -> Result<Mark, CaptureError> {
        if self.server.mariadb {
            execute(conn, &["COMMIT"]).await?;
            return Ok(low.clone());
        }
        current_mark(conn, &self.server).await
    }

    /// Waits until everything that was streamed can be seen by SELECT. On MariaDB this opens the transaction that the
    /// chunk is read in, whose view has an exact position.
    pub(super) async fn visible_mark(
        &self,
        conn: &mut Conn,
        processed: &Position,
    ) -> Result<Mark, CaptureError> {
        let deadline = Instant::now() + VISIBILITY_WAIT_MAX;
        let mut pause = Duration::from_micros(200);
        loop {
            if self.server.mariadb {
                let repeatable = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
                execute(conn, &[repeatable, "START TRANSACTION WITH CONSISTENT SNAPSHOT"]).await?;
            }
            let mark = current_mark(conn, &self.server).await?;
            if mark.covers(processed) {
                return Ok(mark);
            }
            if self.server.mariadb {
                execute(conn, &["COMMIT"]).await?;
            }
            if Instant::now() > deadline {
                return Err(CaptureError::unavailable(format!(
                    "transactions that are in the binlog are still invisible after {} s",
                    VISIBILITY_WAIT_MAX.as_secs()
                ))
                .with_hint("look for a semi-synchronous replica that does not acknowledge"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    async fn select(
        &self,
        conn: &mut Conn,
        table: &Table,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<Vec<RowBuf>, CaptureError> {
        let mut sql =
            format!("SELECT {} FROM {}", select_list(table, self.server.flavor()), quoted(&table.name));
        let mut params = Vec::new();
        if let Some(cursor) = cursor {
            let key = parse_cursor(cursor).ok_or_else(|| {
                CaptureError::fatal(
                    "the snapshot's cursor in the journal is damaged",
                    "run `flow resnapshot`",
                )
            })?;
            sql.push_str(" WHERE ");
            push_after_key(&mut sql, &mut params, table, &key)?;
        }
        let order: Vec<_> = table.key.iter().map(|i| quote_name(&table.columns[*i].name)).collect();
        sql.push_str(&format!(" ORDER BY {} LIMIT {limit}", order.join(", ")));
        self.fetch(conn, table, sql, params).await
    }

    /// The rows of these keys, whose values are in the key's order.
    pub(super) async fn select_keys(
        &self,
        conn: &mut Conn,
        table: &Table,
        keys: &[&[Value]],
    ) -> Result<Vec<RowBuf>, CaptureError> {
        let columns: Vec<&Column> = table.key.iter().map(|index| &table.columns[*index]).collect();
        let (condition, params) = keys_condition(&columns, keys).ok_or_else(|| {
            CaptureError::fatal(
                format!("table `{}` has a key that cannot be looked up", table.name),
                "run `tidemill flow resnapshot`",
            )
        })?;
        let list = select_list(table, self.server.flavor());
        let sql = format!("SELECT {list} FROM {} WHERE {condition}", quoted(&table.name));
        self.fetch(conn, table, sql, params).await
    }

    async fn fetch(
        &self,
        conn: &mut Conn,
        table: &Table,
        mut sql: String,
        params: Vec<Param>,
    ) -> Result<Vec<RowBuf>, CaptureError> {
        if !self.server.gtids {
            // Waits for transactions that are in the binlog and about to become visible; see `window`.
            sql.push_str(" LOCK IN SHARE MODE");
        }
        let what = format!("read table `{}`", table.name);
        let fail = |e| statement_error(&what, e);
        let mut rows = Vec::new();
        let params = if params.is_empty() { mysql_async::Params::Empty } else { params.into() };
        let mut result = conn.exec_iter(sql, params).await.map_err(fail)?;
        if let Some(mut stream) = result.stream::<Row>().await.map_err(fail)? {
            while let Some(row) = stream.try_next().await.map_err(fail)? {
                rows.push(encode(&row, table, self.server.flavor())?);
            }
        }
        Ok(rows)
    }

    /// A table without a key cannot be merged with its stream: it is read whole, at one exact position, while the
    /// stream waits. A lock of an instant makes the position exact on MySQL; MariaDB's view knows its own.
    async fn read_keyless(
        &self,
        table: &Table,
        ready: oneshot::Sender<Keyless>,
        rows_estimated: u64,
    ) -> Result<(), CaptureError> {
        let mut conn = self.address.connect().await?;
        reading_session(&mut conn).await?;
        execute(&mut conn, &["SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"]).await?;
        // While the stream still flows: whether the table is what it takes it for.
        let list = select_list(table, self.server.flavor());
        let probe = format!("SELECT {list} FROM {} LIMIT 0", quoted(&table.name));
        let what = format!("read table `{}`", table.name);
        conn.query_drop(probe).await.map_err(|e| statement_error(&what, e))?;
        let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
        let mark = if self.server.mariadb {
            execute(&mut conn, &[begin]).await?;
            current_mark(&mut conn, &self.server).await?
        } else {
            let mut locker = self.address.connect().await?;
            let lock = format!("LOCK TABLES {} READ", quoted(&table.name));
            execute(&mut locker, &["SET SESSION lock_wait_timeout = 10", &lock]).await?;
            execute(&mut conn, &[begin]).await?;
            let mark = current_mark(&mut conn, &self.server).await?;
            execute(&mut locker, &["UNLOCK TABLES"]).await?;
            mark
        };
        let (sender, blocks) = mpsc::channel(KEYLESS_BLOCKS_MAX);
        if ready.send(Keyless { mark, blocks, rows_estimated }).is_err() {
            return Ok(());
        }
        if let Err(error) = self.send_blocks(&mut conn, table, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
        Ok(())
    }

    async fn send_blocks(
        &self,
        conn: &mut Conn,
        table: &Table,
        sender: &mpsc::Sender<Result<Vec<RowBuf>, CaptureError>>,
    ) -> Result<(), CaptureError> {
        let what = format!("read table `{}`", table.name);
        let fail = |e| statement_error(&what, e);
        let sql = format!("SELECT {} FROM {}", select_list(table, self.server.flavor()), quoted(&table.name));
        let mut result = conn.exec_iter(sql, ()).await.map_err(fail)?;
        let (mut block, mut bytes) = (Vec::new(), 0);
        if let Some(mut stream) = result.stream::<Row>().await.map_err(fail)? {
            while let Some(row) = stream.try_next().await.map_err(fail)? {
                let row = encode(&row, table, self.server.flavor())?;
                bytes += row.0.len();
                block.push(row);
                if bytes >= KEYLESS_BLOCK_BYTES {
                    self.limit.spend(block.len()).await;
                    bytes = 0;
                    if sender.send(Ok(std::mem::take(&mut block))).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        let _ = sender.send(Ok(block)).await;
        // An empty block says that nothing is missing.
        let _ = sender.send(Ok(Vec::new())).await;
        Ok(())
    }
}

/// Whether a statement failed because the table or a column is no more, or is another, or is in long use.
pub(crate) fn is_redefined(error: &CaptureError) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<mysql_async::Error>());
    matches!(cause, Some(mysql_async::Error::Server(e)) if matches!(e.code, 1049 | 1054 | 1146 | 1205 | 1412))
}

/// What is visible to a read that begins now (MySQL), or to the view of the open transaction (MariaDB).
pub async fn current_mark(conn: &mut Conn, server: &Server) -> Result<Mark, CaptureError> {
    let fail = |e| statement_error("read the server's position", e);
    if server.mariadb {
        let rows: Vec<(String, String)> =
            conn.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await.map_err(fail)?;
        let get = |name: &str| {
            rows.iter()
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.clone())
                .unwrap_or_default()
        };
        let (file, pos) = (get("binlog_snapshot_file"), get("binlog_snapshot_position"));
        let pos: u64 = pos.parse().unwrap_or(0);
        let sql = format!("SELECT BINLOG_GTID_POS({}, {pos})", quote_text(&file));
        let text: Option<Option<String>> = conn.query_first(sql).await.map_err(fail)?;
        let text = text.flatten().unwrap_or_default();
        let gtids = text
            .parse()
            .map_err(|e| CaptureError::unavailable("failed to read the GTID position").because(e))?;
        return Ok(Mark::Maria(gtids));
    }
    if server.gtids {
        let text: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await.map_err(fail)?;
        let gtids = text
            .unwrap_or_default()
            .parse()
            .map_err(|e| CaptureError::unavailable("failed to read gtid_executed").because(e))?;
        return Ok(Mark::Gtids(gtids));
    }
    let (file, pos) = binlog_end(conn).await?;
    Ok(Mark::File { file, pos })
}

/// File and offset where the binlog ends now.
pub async fn binlog_end(conn: &mut Conn) -> Result<(String, u64), CaptureError> {
    let row: Result<Option<Row>, _> = conn.query_first("SHOW BINARY LOG STATUS").await;
    let row = match row {
        Ok(row) => row,
        // Before MySQL 8.2, and on MariaDB.
        Err(mysql_async::Error::Server(_)) => conn
            .query_first("SHOW MASTER STATUS")
            .await
            .map_err(|e| statement_error("read the server's position", e))?,
        Err(error) => return Err(statement_error("read the server's position", error)),
    };
    let row = row.ok_or_else(|| {
        CaptureError::fatal("the server has no binary log", "start it with --log-bin and a --server-id")
    })?;
    let file = row.get::<String, _>(0).unwrap_or_default();
    let pos = row.get::<u64, _>(1).unwrap_or(4);
    Ok((file, pos))
}

/// The server's own guesses: rows, and bytes a row.
async fn estimate(conn: &mut Conn, name: &TableName) -> Result<(u64, u64), CaptureError> {
    let sql = format!(
        "SELECT COALESCE(table_rows, 0), COALESCE(avg_row_length, 0) FROM information_schema.tables \
         WHERE table_schema = {} AND table_name = {}",
        quote_text(&name.db),
        quote_text(&name.table)
    );
    let row: Option<(u64, u64)> =
        conn.query_first(sql).await.map_err(|e| statement_error("estimate a table's size", e))?;
    Ok(row.unwrap_or_default())
}

pub(crate) fn quoted(name: &TableName) -> String {
    format!("{}.{}", quote_name(&name.db), quote_name(&name.table))
}

pub(crate) fn select_list(table: &Table, flavor: mysql::Flavor) -> String {
    let list: Vec<_> = table.columns.iter().map(|c| mysql::select_expression(c, flavor)).collect();
    list.join(", ")
}

pub(crate) fn encode(row: &Row, table: &Table, flavor: mysql::Flavor) -> Result<RowBuf, CaptureError> {
    let mut out = Vec::with_capacity(64);
    let mut writer = RowWriter::new(&mut out);
    for (index, column) in table.columns.iter().enumerate() {
        let value = row.as_ref(index).unwrap_or(&Param::NULL);
        mysql::put_selected(&mut writer, value, column, flavor).map_err(|error| {
            CaptureError::fatal(
                format!("failed to read column `{}` of table `{}`", column.name, table.name),
                "exclude the table, or change the column's type",
            )
            .because(error)
        })?;
    }
    Ok(RowBuf(out))
}

/// The key columns of a row, in our row encoding.
pub fn row_key(table: &Table, row: RowView<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    let mut writer = RowWriter::new(&mut out);
    if let [only] = table.key[..] {
        writer.put(row.get(only).ok().flatten().unwrap_or(ValueRef::Null));
        return out;
    }
    let values: Vec<_> = row.iter().map(|v| v.ok().flatten().unwrap_or(ValueRef::Null)).collect();
    for index in &table.key {
        writer.put(values.get(*index).copied().unwrap_or(ValueRef::Null));
    }
    out
}

pub(crate) fn cursor_text(table: &Table, row: RowView<'_>) -> String {
    BASE64.encode(row_key(table, row))
}

pub(crate) fn parse_cursor(text: &str) -> Option<RowBuf> {
    BASE64.decode(text).ok().map(RowBuf)
}

/// `(a > ?) OR (a = ? AND b > ?)`: the form whose every arm MySQL can answer from the key.
pub(crate) fn push_after_key(
    sql: &mut String,
    params: &mut Vec<Param>,
    table: &Table,
    key: &RowBuf,
) -> Result<(), CaptureError> {
    let values: Vec<(String, Option<Param>)> = table
        .key
        .iter()
        .zip(key.view().iter())
        .map(|(index, value)| key_operand(value.ok().flatten()?, &table.columns[*index]))
        .collect::<Option<Vec<_>>>()
        .filter(|values| values.len() == table.key.len())
        .ok_or_else(|| {
            CaptureError::fatal(
                format!("table `{}` has a key that cannot be paged through", table.name),
                "exclude the table, or give it a key of numbers, dates or valid text",
            )
        })?;
    for depth in 0..table.key.len() {
        sql.push_str(if depth == 0 { "(" } else { " OR (" });
        for (position, index) in table.key.iter().enumerate().take(depth + 1) {
            let name = key_side(&table.columns[*index]);
            let (sign, join) = if position == depth { (">", "") } else { ("=", " AND ") };
            let (operand, param) = &values[position];
            sql.push_str(&format!("{name} {sign} {operand}{join}"));
            params.extend(param.clone());
        }
        sql.push(')');
    }
    Ok(())
}

/// The key column in a comparison.
pub(crate) fn key_side(column: &base::Column) -> String {
    /// Members whose numbers a DOUBLE holds, which the server compares a SET with a number as.
    const MEMBERS_MAX: usize = 53;
    let name = quote_name(&column.name);
    match &column.ty {
        base::ColumnType::Set { labels } if labels.len() > MEMBERS_MAX => format!("({name}|0)"),
        _ => name,
    }
}

/// What a key column is compared with, so that the server compares as its index orders.
pub(crate) fn key_operand(value: ValueRef<'_>, column: &base::Column) -> Option<(String, Option<Param>)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    Some(match (value, &column.ty, &column.charset) {
        // A string would be compared with a DECIMAL as a DOUBLE, in which neighbours are equal.
        (ValueRef::Decimal(_), base::ColumnType::Decimal { precision, scale }, _) => {
            (format!("CAST(? AS DECIMAL({precision},{scale}))"), key_param(value))
        }
        // A string in the column's own character set, which has no place in a parameter.
        (ValueRef::RawText(bytes), _, Some(charset)) => (format!("_{charset} X'{}'", hex(bytes)), None),
        _ => ("?".to_owned(), Some(key_param(value)?)),
    })
}

fn key_param(value: ValueRef<'_>) -> Option<Param> {
    let date = |d: base::DateTime| {
        Param::Date(d.date.year, d.date.month, d.date.day, d.hour, d.minute, d.second, d.micro)
    };
    Some(match value {
        ValueRef::Int(v) => Param::Int(v),
        ValueRef::UInt(v) | ValueRef::Bit(v) | ValueRef::Set(v) => Param::UInt(v),
        ValueRef::Enum(v) | ValueRef::Year(v) => Param::UInt(u64::from(v)),
        ValueRef::Float(v) => Param::Float(v),
        ValueRef::Double(v) => Param::Double(v),
        ValueRef::Decimal(v) | ValueRef::Text(v) => Param::Bytes(v.as_bytes().to_vec()),
        ValueRef::Bytes(v) => Param::Bytes(v.to_vec()),
        ValueRef::Date(v) => Param::Date(v.year, v.month, v.day, 0, 0, 0, 0),
        ValueRef::Time(v) => Param::Bytes(base::value::format_time(v, 6).into_bytes()),
        ValueRef::DateTime(v) => date(v),
        ValueRef::Timestamp(v) => date(base::value::timestamp_to_datetime(v)),
        _ => return None,
    })
}
