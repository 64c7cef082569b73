//! MySQL and TiDB. Rows and progress go in one transaction; a change is applied once, whatever is killed when.
//!
//! A source transaction longer than a batch keeps the sink's transaction open, so that readers of the sink see it whole,
//! up to `OPEN_ROWS_MAX`, and on TiDB up to `OPEN_BYTES_MAX_TIDB`; past that it is committed in parts, each with its own
//! progress.

mod target;

mod ddl;
mod document;
pub(crate) mod lanes;
mod literal;
mod made;
mod statements;

use crate::config::{DdlPolicy, FlowConfig};
use crate::deliver::sink::{OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::marks::MARKS_TABLE;
use crate::sinks::json::{key_text, row_text};
use async_trait::async_trait;
use base::{Op, Secret, Table, TableName};
use lanes::{LANES_DEFAULT, Lanes};
use literal::{quoted_name, quoted_table};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use statements::{STATEMENT_BYTES_MAX, Statement, statements};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use target::{Dialect, Target};

/// Enough for every lane to have a segment that is worth a transaction.
pub const BATCH_ROWS_DEFAULT: u32 = 4096;
/// Of the server's largest packet, for what is not the statement.
const PACKET_ROOM: usize = 1024;
/// Rows of one source transaction that one transaction of the sink holds.
const OPEN_ROWS_MAX: usize = 200_000;
/// The same in bytes of its statements, on TiDB, which keeps a transaction in memory until it ends: together with the batch
/// that goes over it, below the 100 MB that `txn-total-size-limit` is by default, with room for indexes.
const OPEN_BYTES_MAX_TIDB: usize = 48 << 20;
/// Someone may give a target a unique key while we write it: seen after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server is asked whether it is still there when it has been silent for as long.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);
/// A statement that writes at most `STATEMENT_BYTES_MAX`, or ends a transaction, is answered after this at the latest: far
/// beyond the wait for a lock. What changes a table may take as long as it likes.
const ANSWER_WAIT: Duration = Duration::from_secs(300);
/// A value that does not fit is refused, and every value of the source fits …
const STRICT: &str = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'";
/// … but for the ENUM 0, which only a lenient session stores, with this warning.
const LENIENT: &str =
    "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'";
const TRUNCATED: u16 = 1265;
/// One row is larger than TiDB takes.
const ROW_TOO_LARGE_TIDB: u16 = 8025;
/// `VALUES()` in an upsert is deprecated on MySQL, and the only form that all three servers have.
const DEPRECATED: u16 = 1287;
/// Where our own tables are when the URL names no database.
const OWN_DATABASE: &str = "tidemill";

pub struct MySqlSink {
    flow: String,
    opts: Opts,
    own: String,
    tidb: bool,
    ddl: DdlPolicy,
    history: bool,
    mark: bool,
    answer_wait: Duration,
    target: Target,
    lanes: Lanes,
    open: Option<Open>,
}

struct Open {
    conn: Conn,
    /// The journal that `progress` is of.
    journal: u64,
    progress: Progress,
    /// Rows in the sink's open transaction; `None` when none is open.
    txn_rows: Option<usize>,
    /// Bytes of the statements that wrote them.
    txn_bytes: usize,
    /// How far the open transaction has come, when a batch ended in its middle.
    reached: Option<Progress>,
    /// The largest statement the server takes.
    statement_bytes_max: usize,
    /// The target tables by name; filled by `prepare`.
    targets: HashMap<TableName, Shape>,
    /// The tables that the flow has made or found, as `tidemill_tables` has them.
    made: HashSet<TableName>,
}

/// What a target table is like.
struct Shape {
    /// Whether upserts must not write it.
    strict: bool,
    looked_at: Instant,
}

impl MySqlSink {
    pub fn new(flow: &str, url: &Secret, tidb: bool, config: &FlowConfig) -> Result<Self, SinkError> {
        let opts = Opts::from_url(url.expose()).map_err(|_| SinkError::Blocked {
            message: "the sink's url is not a MySQL URL".into(),
            hint: "write mysql://user:password@host:3306".into(),
        })?;
        let own = opts.db_name().unwrap_or(OWN_DATABASE).to_owned();
        let opts = OptsBuilder::from_opts(opts)
            .db_name(None::<String>)
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE))
            .into();
        let options = &config.options;
        Ok(Self {
            flow: flow.to_owned(),
            opts,
            own,
            tidb,
            ddl: options.ddl,
            history: options.history,
            mark: options.mark,
            answer_wait: ANSWER_WAIT,
            target: Target::default(),
            lanes: Lanes::new(options.lanes.unwrap_or(LANES_DEFAULT)),
            open: None,
        })
    }

    /// Whether grants let us keep progress; those on our tables themselves show when the first row comes.
    fn check_own_database(&self, grants: &[String]) -> Result<(), SinkError> {
        let grants = grants.iter().map(|grant| grant.replace('\\', "").to_uppercase());
        let ours: Vec<String> = ["*.*".to_owned(), format!("`{}`.*", self.own.to_uppercase())]
            .iter()
            .map(|place| format!(" ON {place} TO "))
            .collect();
        let held: Vec<String> =
            grants.filter(|grant| ours.iter().any(|place| grant.contains(place))).collect();
        let has = |verb: &str| {
            held.iter().any(|grant| {
                let list = grant.trim_start_matches("GRANT ").split(" ON ").next().unwrap_or_default();
                list.split(',').map(str::trim).any(|held| held == verb || held.starts_with("ALL PRIVILEGES"))
            })
        };
        let lacking: Vec<&str> =
            ["CREATE", "SELECT", "INSERT", "UPDATE"].into_iter().filter(|verb| !has(verb)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let (lacking, user) = (lacking.join(", "), self.opts.user().unwrap_or("user"));
        Err(SinkError::Blocked {
            message: format!(
                "'{user}' lacks {lacking} on the database `{}`, where progress is kept",
                self.own
            ),
            hint: format!("GRANT CREATE, SELECT, INSERT, UPDATE ON `{}`.* TO '{user}'@'%';", self.own),
        })
    }

    fn marks_table(&self) -> String {
        quoted_table(&TableName::new(self.own.clone(), MARKS_TABLE))
    }

    /// The first statement of a transaction that is marked as this flow's: on a lane, or on the connection of the flow itself, 0.
    fn mark_statement(&self, lane: usize) -> String {
        format!(
            "INSERT INTO {} (flow, lane, transactions) VALUES ('{}', {lane}, 1) \
             ON DUPLICATE KEY UPDATE transactions = transactions + 1",
            self.marks_table(),
            self.flow.replace('\'', "''"),
        )
    }

    fn progress_table(&self) -> String {
        quoted_table(&TableName::new(self.own.clone(), "tidemill_progress"))
    }

    /// A connection that writes rows as they are.
    async fn session(&self) -> Result<Conn, SinkError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(self.opts.clone())).await;
        let mut conn = match connecting {
            Err(_) => return Err(SinkError::Unavailable { message: "no answer to the connection".into() }),
            Ok(result) => result.map_err(|e| self.classify(e, None))?,
        };
        let session = [
            "SET NAMES utf8mb4",
            STRICT,
            "SET SESSION time_zone = '+00:00'",
            "SET SESSION foreign_key_checks = 0",
            "SET SESSION autocommit = 1",
        ];
        for sql in session {
            conn.query_drop(sql).await.map_err(|e| self.classify(e, None))?;
        }
        Ok(conn)
    }

    async fn connect(&mut self) -> Result<Option<Standing>, SinkError> {
        let mut conn = self.session().await?;
        self.target = self.look(&mut conn).await.map_err(|e| self.classify(e, None))?;
        let own = format!("CREATE DATABASE IF NOT EXISTS {}", quoted_name(&self.own));
        let table = format!(
            "CREATE TABLE IF NOT EXISTS {} (flow VARCHAR(64) NOT NULL PRIMARY KEY, \
             journal BIGINT UNSIGNED NOT NULL, epoch INT UNSIGNED NOT NULL, \
             lsn BIGINT UNSIGNED NOT NULL, updated_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) \
             ON UPDATE CURRENT_TIMESTAMP(3))",
            self.progress_table()
        );
        let mut found = self.look_up_progress(&mut conn).await;
        if matches!(&found, Err(mysql_async::Error::Server(error)) if matches!(error.code, 1049 | 1146)) {
            for sql in [own.as_str(), table.as_str()] {
                conn.query_drop(sql).await.map_err(|e| self.classify(e, None))?;
            }
            found = self.look_up_progress(&mut conn).await;
        }
        let row = found.map_err(|e| self.classify(e, None))?;
        if self.mark {
            let table = format!(
                "CREATE TABLE IF NOT EXISTS {} (flow VARCHAR(64) NOT NULL, lane INT UNSIGNED NOT NULL, \
                 transactions BIGINT UNSIGNED NOT NULL, PRIMARY KEY (flow, lane))",
                self.marks_table()
            );
            conn.query_drop(table).await.map_err(|e| self.classify(e, None))?;
        }
        let made = self.look_up_made(&mut conn).await.map_err(|e| self.classify(e, None))?;
        let told = row.map(|(journal, epoch, lsn)| Standing { journal, progress: Progress { epoch, lsn } });
        let (journal, progress) = told.map_or_else(Default::default, |told| (told.journal, told.progress));
        let packet: Option<usize> =
            conn.query_first("SELECT @@max_allowed_packet").await.map_err(|e| self.classify(e, None))?;
        self.open = Some(Open {
            conn,
            journal,
            progress,
            txn_rows: None,
            txn_bytes: 0,
            reached: None,
            statement_bytes_max: packet.unwrap_or(STATEMENT_BYTES_MAX).saturating_sub(PACKET_ROOM),
            targets: HashMap::new(),
            made,
        });
        Ok(told)
    }

    /// Journal, epoch and lsn, once nobody can change them any more: the COMMIT of a connection that is gone may still be
    /// under way, and it holds the row. Without the lock we would read what was before it, and apply its changes again.
    async fn look_up_progress(&self, conn: &mut Conn) -> mysql_async::Result<Option<(u64, u32, u64)>> {
        let table = self.progress_table();
        let sql = format!("SELECT journal, epoch, lsn FROM {table} WHERE flow = ? FOR UPDATE");
        // TiDB locks only what is read in a transaction.
        conn.query_drop("START TRANSACTION").await?;
        let found = conn.exec_first(&sql, (&self.flow,)).await;
        conn.query_drop("COMMIT").await?;
        found
    }

    /// What the server is and which collations it has.
    async fn look(&self, conn: &mut Conn) -> mysql_async::Result<Target> {
        let version: String = conn.query_first("SELECT VERSION()").await?.unwrap_or_default();
        let dialect = Dialect::of(&version, self.tidb);
        // MariaDB's newer collations have their full names only here, and other servers do not have the column.
        let full: mysql_async::Result<Vec<(String, String)>> = conn
            .query(
                "SELECT full_collation_name, character_set_name \
                 FROM information_schema.collation_character_set_applicability",
            )
            .await;
        let collations = match full {
            Ok(collations) => collations,
            Err(mysql_async::Error::Server(_)) => {
                let sql = "SELECT collation_name, character_set_name FROM information_schema.collations \
                           WHERE character_set_name IS NOT NULL";
                conn.query(sql).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Target { dialect, collations: collations.into_iter().collect() })
    }

    fn open(&mut self) -> Result<&mut Open, SinkError> {
        self.open.as_mut().ok_or_else(|| SinkError::Unavailable { message: "not connected".into() })
    }

    async fn run(&mut self, sql: &str) -> Result<(), SinkError> {
        let wait = self.answer_wait;
        let result = answered(wait, self.open()?.conn.query_drop(sql)).await?;
        result.map_err(|e| self.classify(e, None))
    }

    /// Runs a statement on a table, which takes as long as the table is large.
    async fn define(&mut self, sql: &str) -> Result<(), SinkError> {
        let result = self.open()?.conn.query_drop(sql).await;
        result.map_err(|e| self.classify(e, None))
    }

    /// Runs a statement that writes rows: of one change when `lsn` names it.
    async fn write(&mut self, sql: &str, lsn: Option<u64>) -> Result<(), SinkError> {
        let wait = self.answer_wait;
        let open = self.open()?;
        if sql.len() > open.statement_bytes_max {
            // Sent all the same, it would end the connection, again and again.
            let reason = format!(
                "the row makes a statement of {} bytes, but the sink's max_allowed_packet leaves {}",
                sql.len(),
                open.statement_bytes_max
            );
            return Err(SinkError::Row { lsn: lsn.unwrap_or_default(), reason });
        }
        let result = answered(wait, open.conn.query_drop(sql)).await?;
        result.map_err(|e| self.classify(e, lsn))
    }

    /// Ends the open transaction, so that what comes stands alone: what it has done is noted with it.
    async fn commit_part(&mut self) -> Result<(), SinkError> {
        if self.open()?.txn_rows.is_some() {
            let reached = self.open()?.reached;
            tracing::debug!(flow = self.flow, ?reached, "a source transaction is committed in parts");
            self.commit(reached).await?;
        }
        Ok(())
    }

    async fn query<T: mysql_async::prelude::FromRow + Send + 'static>(
        &mut self,
        sql: &str,
    ) -> Result<Vec<T>, SinkError> {
        let wait = self.answer_wait;
        let result = answered(wait, self.open()?.conn.query(sql)).await?;
        result.map_err(|e| self.classify(e, None))
    }

    /// What the server's answer means: its data errors refuse a row, its state errors pass, the rest needs someone.
    fn classify(&self, error: mysql_async::Error, lsn: Option<u64>) -> SinkError {
        let message = base::error::chain(&error);
        let mysql_async::Error::Server(server) = &error else {
            return SinkError::Unavailable { message };
        };
        match server.code {
            // Shutdown, too many connections, lock wait, deadlock, read-only, lost member, TiDB's retryable ones.
            1040 | 1053 | 1180 | 1203 | 1205 | 1213 | 1290 | 1317 | 1836 | 3100 | 3101 | 8002 | 8005 | 8022 | 8028
            | 9001..=9010 => SinkError::Unavailable { message },
            // Duplicate, null, too long, out of range, wrong value, foreign key, check, JSON, geometry, generated, and
            // what a trigger refuses.
            1022 | 1048 | 1062 | 1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 1416 | 1451 | 1452 | 1526 | 1644 | 1690 | 3105
            | 3140..=3160 | 3616 | 3617 | 3819 | 4025 => match lsn {
                Some(lsn) => SinkError::Row { lsn, reason: format!("{} (error {})", server.message, server.code) },
                None => SinkError::Row { lsn: 0, reason: message },
            },
            1045 => SinkError::Blocked {
                message,
                hint: "check the user and the password in the sink's url; the flow then goes on by itself".into(),
            },
            1044 | 1142 | 1227 => SinkError::Blocked {
                message,
                hint: format!(
                    "GRANT CREATE, DROP, ALTER, INDEX, INSERT, UPDATE, DELETE, SELECT ON the target's databases and on \
                     `{}` TO '{}'@'%';",
                    self.own,
                    self.opts.user().unwrap_or("user")
                ),
            },
            ROW_TOO_LARGE_TIDB => SinkError::Row {
                lsn: lsn.unwrap_or_default(),
                reason: format!(
                    "{} (error {ROW_TOO_LARGE_TIDB}): raise TiDB's txn-entry-size-limit, then `flow retry`",
                    server.message
                ),
            },
            8004 => SinkError::Blocked {
                message,
                hint: "raise TiDB's txn-total-size-limit, or give the flow fewer `options.batch_rows`; the flow then goes \
                       on by itself"
                    .into(),
            },
            8175 => SinkError::Blocked {
                message,
                hint: "raise TiDB's tidb_mem_quota_query or its server's memory limit, or give the flow fewer \
                       `options.batch_rows`; the flow then goes on by itself"
                    .into(),
            },
            1054 | 1136 => SinkError::Blocked {
                message,
                hint: "the target table lacks what the source has: mend it, or drop it and use `flow resnapshot`; the flow \
                       then goes on by itself"
                    .into(),
            },
            1146 => SinkError::Blocked {
                message,
                hint: format!("a table of the target is gone: run `tidemill flow resnapshot {} TABLE`", self.flow),
            },
            _ => SinkError::Blocked { message, hint: "see the server's message".into() },
        }
    }

    async fn begin(&mut self) -> Result<(), SinkError> {
        if self.open()?.txn_rows.is_none() {
            self.run("START TRANSACTION").await?;
            if self.mark {
                self.run(&self.mark_statement(0)).await?;
            }
            let open = self.open()?;
            (open.txn_rows, open.txn_bytes) = (Some(0), 0);
        }
        Ok(())
    }

    fn progress_statement(&mut self, progress: Progress) -> Result<String, SinkError> {
        let (journal, Progress { epoch, lsn }) = (self.open()?.journal, progress);
        Ok(format!(
            "INSERT INTO {} (flow, journal, epoch, lsn) VALUES ('{}', {journal}, {epoch}, {lsn}) \
             ON DUPLICATE KEY UPDATE journal = {journal}, epoch = {epoch}, lsn = {lsn}",
            self.progress_table(),
            self.flow.replace('\'', "''"),
        ))
    }

    async fn commit(&mut self, progress: Option<Progress>) -> Result<(), SinkError> {
        if let Some(progress) = progress {
            self.begin().await?;
            let sql = self.progress_statement(progress)?;
            self.run(&sql).await?;
        }
        if self.open()?.txn_rows.take().is_some() {
            self.run("COMMIT").await?;
        }
        if let Some(progress) = progress {
            self.open()?.progress = progress;
        }
        self.open()?.reached = None;
        Ok(())
    }

    async fn apply_batch(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let mut done = self.open()?.progress.lsn;
        let mut changes: Vec<&OutChange> =
            batch.changes.iter().filter(|c| batch.redrive || c.lsn > done).collect();
        if !batch.redrive && batch.up_to.lsn <= done {
            return Ok(());
        }
        if batch.redrive {
            self.commit_part().await?;
        }
        self.look_again(&changes).await?;
        self.apply_in_lanes(batch, &changes).await?;
        if !batch.redrive && self.open()?.progress.lsn > done {
            done = self.open()?.progress.lsn;
            if batch.up_to.lsn <= done {
                return Ok(());
            }
            changes.retain(|change| change.lsn > done);
        }
        let mut rest = &changes[..];
        while !rest.is_empty() {
            let barrier = rest.iter().position(|c| matches!(c.op, Op::Ddl | Op::Truncate) && !self.history);
            let (rows, tail) = rest.split_at(barrier.unwrap_or(rest.len()));
            if !rows.is_empty() {
                self.apply_rows(rows).await?;
            }
            let Some((statement, tail)) = tail.split_first() else { break };
            // A statement commits by itself: what came before goes first, and running it again does no harm.
            let before = Progress { epoch: statement.epoch, lsn: statement.lsn - 1 };
            self.commit((!batch.redrive).then_some(before)).await?;
            self.apply_statement(statement).await.map_err(unfit)?;
            let after = Progress { epoch: statement.epoch, lsn: statement.lsn };
            self.commit((!batch.redrive).then_some(after)).await?;
            rest = tail;
        }
        let bytes_max = if self.target.dialect == Dialect::TiDb { OPEN_BYTES_MAX_TIDB } else { usize::MAX };
        let open = self.open()?;
        let too_long = open.txn_rows.is_some_and(|rows| rows > OPEN_ROWS_MAX || open.txn_bytes > bytes_max);
        if batch.redrive {
            self.commit(None).await
        } else if batch.ends_txn || too_long {
            self.commit(Some(batch.up_to)).await
        } else {
            self.open()?.reached = Some(batch.up_to);
            Ok(())
        }
    }

    /// Looks from time to time whether upserts can still only hit their own rows.
    async fn look_again(&mut self, changes: &[&OutChange]) -> Result<(), SinkError> {
        let mut last: Option<&Arc<Table>> = None;
        for table in changes.iter().map(|change| &change.table) {
            if last.is_some_and(|last| Arc::ptr_eq(last, table)) {
                continue;
            }
            last = Some(table);
            let looked_at = self.open()?.targets.get(&table.name).map(|target| target.looked_at);
            if looked_at.is_some_and(|at| at.elapsed() > LOOK_AGAIN) {
                self.note_unique_keys(table).await?;
            }
        }
        Ok(())
    }

    async fn run_statement(&mut self, statement: &Statement, lsn: Option<u64>) -> Result<(), SinkError> {
        if !statement.zero_labels.is_empty() {
            return self.run_leniently(statement, lsn).await;
        }
        self.write(&statement.sql, lsn).await
    }

    /// Runs a statement that stores the ENUM 0, and takes no other warning for success.
    async fn run_leniently(&mut self, statement: &Statement, lsn: Option<u64>) -> Result<(), SinkError> {
        self.run(LENIENT).await?;
        let result = self.write(&statement.sql, lsn).await;
        if matches!(result, Err(SinkError::Unavailable { .. })) {
            return result;
        }
        let warnings: Vec<(String, u16, String)> = self.query("SHOW WARNINGS").await?;
        self.run(STRICT).await?;
        result?;
        let expected = |code: u16, message: &str| {
            // TiDB forgets to fill the name in.
            let named =
                |column: &String| message.contains(&format!("column '{column}'")) || message.contains("'%s'");
            code == DEPRECATED || code == TRUNCATED && statement.zero_labels.iter().any(named)
        };
        match warnings.into_iter().find(|(_, code, message)| !expected(*code, message)) {
            Some((_, code, message)) => {
                Err(SinkError::Row { lsn: lsn.unwrap_or(0), reason: format!("{message} (warning {code})") })
            }
            None => Ok(()),
        }
    }

    /// Applies rows inside the open transaction, all or none of them.
    async fn apply_rows(&mut self, rows: &[&OutChange]) -> Result<(), SinkError> {
        self.begin().await?;
        self.run("SAVEPOINT tidemill_batch").await?;
        let statements = self.statements(rows)?;
        for statement in &statements {
            let Err(error) = self.run_statement(statement, None).await else { continue };
            if !matches!(error, SinkError::Row { .. }) {
                return Err(error);
            }
            self.run("ROLLBACK TO SAVEPOINT tidemill_batch").await?;
            return self.apply_singly(rows).await;
        }
        let bytes = statements.iter().map(|statement| statement.sql.len()).sum::<usize>();
        let open = self.open()?;
        open.txn_rows = open.txn_rows.map(|n| n + rows.len());
        open.txn_bytes += bytes;
        Ok(())
    }

    /// Applies rows one by one to find the refused one; nothing stays when there is one.
    async fn apply_singly(&mut self, rows: &[&OutChange]) -> Result<(), SinkError> {
        let mut bytes = 0;
        for row in rows {
            for statement in self.statements(std::slice::from_ref(row))? {
                bytes += statement.sql.len();
                let Err(error) = self.run_statement(&statement, Some(row.lsn)).await else { continue };
                if matches!(error, SinkError::Row { .. }) {
                    self.run("ROLLBACK TO SAVEPOINT tidemill_batch").await?;
                }
                return Err(error);
            }
        }
        let open = self.open()?;
        open.txn_rows = open.txn_rows.map(|n| n + rows.len());
        open.txn_bytes += bytes;
        Ok(())
    }

    /// SQL for rows that go together.
    fn statements(&mut self, rows: &[&OutChange]) -> Result<Vec<Statement>, SinkError> {
        if self.history {
            let journal = self.open()?.journal;
            return Ok(rows.iter().map(|row| Statement::plain(history_row(journal, row))).collect());
        }
        let (dialect, targets) = (self.target.dialect, &self.open()?.targets);
        Ok(statements(rows, dialect, |name| targets.get(name).is_some_and(|target| target.strict)))
    }
}

/// What a server answers in time. One that vanished with its host, or behind a network that drops what is sent, says nothing.
async fn answered<T>(wait: Duration, answer: impl Future<Output = T>) -> Result<T, SinkError> {
    let silent = |_| SinkError::Unavailable {
        message: format!("no answer to a statement within {} seconds", wait.as_secs()),
    };
    tokio::time::timeout(wait, answer).await.map_err(silent)
}

/// Appends a change; one that is there already stays as it is, and whatever else does not fit is refused.
fn history_row(journal: u64, change: &OutChange) -> String {
    let text = |value: Option<String>| value.map_or("NULL".to_owned(), |v| literal::text(&v));
    let txn = change.txn.as_ref().map(|t| t.id.to_string());
    format!(
        "INSERT INTO {} (journal, epoch, lsn, op, ts_ms, txn, row_key, before_row, after_row, statement) \
         VALUES ({journal}, {}, {}, {}, {}, {}, {}, {}, {}, {}) ON DUPLICATE KEY UPDATE lsn = lsn",
        quoted_table(&history_name(&change.table.name)),
        change.epoch,
        change.lsn,
        literal::text(change.op.name()),
        change.ts_ms,
        text(txn),
        text(key_text(change)),
        text(row_text(change, change.before.as_deref())),
        text(row_text(change, change.after.as_deref())),
        text(change.ddl.as_ref().map(|d| d.sql.clone())),
    )
}

/// Rows that are there stand in a statement's way: that refuses no change, but someone must look.
fn unfit(error: SinkError) -> SinkError {
    match error {
        SinkError::Row { reason, .. } => SinkError::Blocked {
            message: format!("rows of the target do not fit a statement of the source: {reason}"),
            hint: "mend these rows, or make the change by hand; the flow then goes on by itself".into(),
        },
        other => other,
    }
}

fn history_name(name: &TableName) -> TableName {
    TableName::new(name.db.clone(), format!("tidemill_history_{}", name.table))
}

#[async_trait]
impl Sink for MySqlSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        self.lanes.close();
        answered(self.answer_wait, self.connect()).await?
    }

    fn follow(&mut self, standing: Standing) {
        if let Some(open) = &mut self.open {
            (open.journal, open.progress) = (standing.journal, standing.progress);
        }
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        let back = self.open()?.progress;
        let result = self.commit(Some(back)).await;
        if result.is_err() {
            self.open = None;
        }
        result
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(self.opts.clone())).await;
        let away = || SinkError::Unavailable { message: "no answer to the connection".into() };
        let mut conn = connecting.map_err(|_| away())?.map_err(|e| self.classify(e, None))?;
        let shown = answered(self.answer_wait, conn.query("SHOW GRANTS")).await?;
        let rows: Vec<mysql_async::Row> = shown.map_err(|e| self.classify(e, None))?;
        let grants: Vec<String> = rows.iter().filter_map(|row| row.get(0)).collect();
        self.check_own_database(&grants)
    }

    async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), SinkError> {
        // Statements that make tables commit: what is open goes first.
        self.commit_part().await?;
        for table in tables {
            let made = self.make_table(table).await;
            if matches!(made, Err(SinkError::Gone { .. })) {
                self.look_for_made().await?;
            }
            made?;
        }
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let result = self.apply_batch(batch).await;
        if matches!(
            result,
            Err(SinkError::Unavailable { .. } | SinkError::Blocked { .. } | SinkError::Gone { .. })
        ) {
            // The end of a connection rolls back what is half done.
            self.open = None;
            self.lanes.close();
        } else if batch.redrive && result.is_err() && self.open()?.txn_rows.take().is_some() {
            // What is tried again stands alone: refused, it leaves no locks in the way of whoever mends the target.
            self.run("ROLLBACK").await?;
        }
        result
    }

    async fn forget(&mut self, tables: &[TableName]) -> Result<(), SinkError> {
        for table in tables {
            self.note_gone(table).await?;
        }
        Ok(())
    }

    async fn still_there(&mut self) -> Result<(), SinkError> {
        self.lanes.close_idle();
        self.look_for_made().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::{Fault, FaultProxy, MySql, MySqlOptions};

    /// Only progress moves, in a transaction of its own.
    fn empty(lsn: u64) -> SinkBatch {
        let up_to = Progress { epoch: 1, lsn };
        let (source, flow) = ("shop".into(), "copy".into());
        SinkBatch { source, flow, changes: Vec::new(), up_to, ends_txn: true, redrive: false }
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_for_ever_is_away_and_not_waited_for() {
        let server = MySql::start(MySqlOptions::default()).await.unwrap();
        let proxy = FaultProxy::start(server.addr()).await.unwrap();
        let url = server.url().replace(&server.addr().to_string(), &proxy.addr().to_string());
        let config = serde_saphyr::from_str("{from: shop, to: db}").unwrap();
        let mut sink = MySqlSink::new("copy", &Secret::new(url), false, &config).unwrap();
        sink.answer_wait = Duration::from_secs(2);
        Sink::open(&mut sink).await.unwrap();
        sink.follow(Standing { journal: 7, progress: Progress::default() });
        sink.apply(&empty(1)).await.unwrap();
        for fault in [Fault::HalfOpen, Fault::Unanswered] {
            // In force for as long as anyone waits: this network resets nothing.
            proxy.set(fault).await;
            let applied = tokio::time::timeout(Duration::from_secs(60), sink.apply(&empty(2))).await;
            assert!(matches!(applied, Ok(Err(SinkError::Unavailable { .. }))), "{applied:?}");
            proxy.set(Fault::Pass).await;
            Sink::open(&mut sink).await.unwrap();
        }
        sink.apply(&empty(3)).await.unwrap();
        let told = Sink::open(&mut sink).await.unwrap().unwrap();
        assert_eq!(told, Standing { journal: 7, progress: Progress { epoch: 1, lsn: 3 } });
    }

    #[tokio::test]
    async fn a_row_that_a_trigger_of_the_target_refuses_is_refused_alone() {
        let server = MySql::start(MySqlOptions::default()).await.unwrap();
        for sql in [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY)",
            "CREATE TRIGGER shop.no BEFORE INSERT ON shop.a FOR EACH ROW SIGNAL SQLSTATE '45000'",
        ] {
            server.exec(sql).await.unwrap();
        }
        let config = serde_saphyr::from_str("{from: shop, to: db}").unwrap();
        let mut sink = MySqlSink::new("copy", &Secret::new(server.url()), false, &config).unwrap();
        Sink::open(&mut sink).await.unwrap();
        let refused = sink.write("INSERT INTO shop.a VALUES (1)", Some(9)).await;
        assert!(matches!(refused, Err(SinkError::Row { lsn: 9, .. })), "{refused:?}");
    }
}
