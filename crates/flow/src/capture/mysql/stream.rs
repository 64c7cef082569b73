//! The event loop: binlog events in, journal batches out. It alone owns the journal's order: rows, DDL and snapshot
//! chunks all pass here, and a chunk enters only between transactions.

mod chunks;
mod repairs;
mod rows;
mod unnamed;

use super::check::Server;
use super::connect::Address;
use super::model::Model;
use super::repair::{Looked, Repair};
use super::session::Control;
use super::snapshot::{Begin, Chunk, Keyless, Message, Queue, Reader, row_key};
use super::window::{Mark, Tracking, TxnMark, Verdict};
use super::xa::Xa;
use crate::capture::CaptureError;
use crate::capture::status::{PositionStatus, QuarantineStatus, SnapshotStatus, StatusCell};
use crate::capture::writer::JournalHandle;
use crate::marks::MARKS_TABLE;
use crate::patterns::Patterns;
use base::{Gtid, MariaGtid, Op, Position, RowView, SnapshotProgress, Step, Table, TableName, TableSnapshot};
use futures_util::{FutureExt, StreamExt};
use journal::Batch;
use mysql::binlog::{Event, EventHeader, EventReader, RowPlan, RowsEvent, RowsKind, TableMap};
use mysql_async::{BinlogStream, Conn};
use mysql_common::binlog::consts::BinlogChecksumAlg;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// A batch goes to the disk's thread at this size, or when the source pauses.
const BATCH_BYTES: usize = 512 << 10;
/// Events between two looks at whatever else asks for attention.
const EVENTS_PER_PASS_MAX: usize = 4096;
/// The position is stored this often when only tables that nobody captures change.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// The server sends a heartbeat after this much silence …
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// … and is taken for dead after this much.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A source that is quiet for this long gets no buffers kept for it.
const QUIET: Duration = Duration::from_secs(2);
/// How often a busy stream refreshes what `status` shows.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Transaction payload events, which the connection itself unpacks into the events that follow.
const TRANSACTION_PAYLOAD_EVENT: u8 = 40;
/// Format descriptions, which the connection itself takes apart: what is left of their body is not whole.
const FORMAT_DESCRIPTION_EVENT: u8 = 15;

/// The transaction that is being read.
pub(super) struct OpenTxn {
    pub(super) gtid: Option<Gtid>,
    maria: Option<MariaGtid>,
    ts_ms: i64,
    /// Whether the journal has its begin record.
    begun: bool,
    /// Whether rows or statements of captured tables were in it.
    rows: bool,
    /// Whether a flow wrote it, and it is left out.
    marked: bool,
}

/// One connection's worth of streaming.
pub struct Stream {
    pub name: Arc<str>,
    pub server: Server,
    pub address: Address,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub status: StatusCell,
    pub batch: Batch,
    pub position: Position,
    pub epoch: u32,
    pub model: Model,
    pub progress: SnapshotProgress,
    /// For reading definitions while the stream runs.
    pub lookup: Conn,
    /// The end of the binlog when the session began: what is known of the tables may be of any time up to there.
    pub began: (String, u64),
    pub xa: Xa,
    /// For rows that are read again by their keys.
    pub reader: Reader,
    /// Where tables that must be read anew wait for a reader.
    pub queue: Arc<Queue>,
    /// Whether tables are read anew when a statement changed rows that are there.
    pub refills: bool,
    /// Whether transactions that a flow marked as its own are left out.
    pub skip_marked: bool,
    /// For waits that may take long.
    pub shutdown: watch::Receiver<bool>,
    /// Where the session ends, so that tables that are new among the source's are taken in.
    pub admits_at: Option<Mark>,
    pub state: Running,
}

/// What changes from event to event.
#[derive(Default)]
pub struct Running {
    txn: Option<OpenTxn>,
    /// The position has moved past transactions that left nothing in the journal.
    moved: bool,
    moved_at: Option<Instant>,
    /// The file name changed since the last commit record.
    new_file: bool,
    decoders: HashMap<u64, Arc<rows::Decoder>>,
    unnamed: unnamed::Unnamed,
    /// The text of a transaction's id, reused.
    id_text: String,
    tracking: HashMap<TableName, Tracking>,
    pending: Vec<Chunk>,
    /// Tables of which rows are read by their keys: what `tracking` notes of them is for that.
    looks: HashMap<TableName, u64>,
    looks_begun: u64,
    looked: Vec<Looked>,
    repairs: JoinSet<()>,
    keyless: Vec<(Arc<Table>, Keyless)>,
    inside_payload: bool,
    /// MariaDB: the transaction has an end of its own, whatever statements are in it.
    ends_with_commit: bool,
    payload_end: u64,
    last_commit_ms: i64,
    status_at: Option<Instant>,
    /// The table without a key that the stream waits for.
    holds_stream: Option<String>,
    snapshot_started: Option<(Instant, u64)>,
    rows_captured: u64,
}

impl Stream {
    /// Runs until the connection ends, something fails, or shutdown.
    pub async fn run(
        &mut self,
        mut events: BinlogStream,
        mut messages: mpsc::Receiver<Message>,
        control: &mut mpsc::Receiver<Control>,
        repairs: &mut mpsc::Receiver<Repair>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Option<Control>, CaptureError> {
        let mut reader = EventReader::new(self.server.flavor());
        let mut heard = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            // No timer is armed and no other channel looked at in one pass. Unconstrained, because a pause that the
            // scheduler asks for would look like a pause of the source.
            let mut taken = 0;
            let source_is_ahead = loop {
                if taken == EVENTS_PER_PASS_MAX {
                    break true;
                }
                let Some(item) = tokio::task::unconstrained(events.next()).now_or_never() else {
                    break false;
                };
                taken += 1;
                self.take(&mut reader, item).await?;
                if self.state.txn.is_none() && self.snapshot_runs() {
                    while let Ok(message) = messages.try_recv() {
                        self.answer(message).await?;
                    }
                    self.emit_ready().await?;
                }
                if self.batch.len_bytes() >= BATCH_BYTES {
                    self.flush().await?;
                    break true;
                }
            };
            if taken > 0 {
                heard = Instant::now();
            }
            if source_is_ahead {
                self.store_position_when_due();
                self.show(false);
            } else {
                self.idle().await?;
            }
            let between = self.state.txn.is_none();
            if between && self.admits_at.as_ref().is_some_and(|mark| mark.reached_by(&self.position)) {
                self.store_position();
                self.flush().await?;
                self.handle.flush().await?;
                return Ok(None);
            }
            tokio::select! {
                item = events.next() => {
                    heard = Instant::now();
                    self.take(&mut reader, item).await?;
                }
                Some(message) = messages.recv(), if between => {
                    self.answer(message).await?;
                    self.emit_ready().await?;
                }
                Some(command) = control.recv(), if between => return Ok(Some(command)),
                Some(repair) = repairs.recv() => self.begin_repair(repair),
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        let seconds = SILENCE_MAX.as_secs();
                        return Err(CaptureError::unavailable(format!("the server was silent for {seconds} s")));
                    }
                    if heard.elapsed() > QUIET {
                        self.handle.rest();
                    }
                }
                _ = shutdown.changed() => {
                    self.store_position();
                    self.flush().await?;
                    self.handle.flush().await?;
                    return Ok(None);
                }
            }
        }
    }

    async fn take(
        &mut self,
        reader: &mut EventReader,
        item: Option<mysql_async::Result<mysql_common::binlog::events::Event>>,
    ) -> Result<(), CaptureError> {
        let event = match item {
            None => return Err(CaptureError::unavailable("the server ended the binlog stream")),
            Some(Err(error)) => return Err(super::connect::statement_error("read the binlog", error)),
            Some(Ok(event)) => event,
        };
        let raw = event.header();
        let header = EventHeader {
            timestamp: raw.timestamp(),
            event_type: raw.event_type_raw(),
            server_id: raw.server_id(),
            event_size: raw.event_size(),
            log_pos: raw.log_pos(),
            flags: raw.flags_raw(),
        };
        if !self.state.inside_payload {
            verify_checksum(&event)?;
        }
        if header.event_type == FORMAT_DESCRIPTION_EVENT {
            reader.begin_file(has_checksum(&event));
            return Ok(());
        }
        if header.event_type == TRANSACTION_PAYLOAD_EVENT {
            self.state.inside_payload = true;
            self.state.payload_end = u64::from(header.log_pos);
            return Ok(());
        }
        match reader.read_body(header, event.data()) {
            Ok(parsed) => self.handle(header, parsed).await,
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn unreadable(&self, error: mysql::BinlogError) -> CaptureError {
        let place = self.position.file_pos().map(|(file, pos)| format!("{file}:{pos}")).unwrap_or_default();
        CaptureError::fatal(
            format!("failed to read the binlog after {place}"),
            "check the server's disk and network with `mysqlbinlog --verify-binlog-checksum`, then restart",
        )
        .because(error)
    }

    async fn handle(&mut self, header: EventHeader, event: Event<'_>) -> Result<(), CaptureError> {
        match event {
            Event::Rows(rows) => self.take_rows(&rows).await,
            Event::TableMap(_) | Event::PreviousGtids | Event::RowsQuery(_) | Event::Ignored => Ok(()),
            Event::FormatDescription { .. } => Ok(()),
            Event::Heartbeat => Ok(()),
            Event::Rotate { file, pos } => {
                self.rotate(file, pos);
                Ok(())
            }
            Event::Gtid { gtid, commit_ts_us, .. } => {
                let ts_ms =
                    if commit_ts_us > 0 { commit_ts_us / 1000 } else { i64::from(header.timestamp) * 1000 };
                self.open(gtid, None, ts_ms)
            }
            Event::MariaGtid { gtid, standalone, prepared_xa, .. } => {
                self.state.ends_with_commit = !standalone;
                self.open(None, Some(gtid), i64::from(header.timestamp) * 1000)?;
                if prepared_xa {
                    self.xa_start();
                }
                Ok(())
            }
            Event::Query { db, sql, sql_mode, .. } => {
                let ansi = sql_mode.is_some_and(|mode| mode & 4 != 0);
                self.take_query(&header, &db, &sql, ansi).await
            }
            Event::Xid(_) => self.commit(&header),
            Event::XaPrepare(xa) => self.xa_prepare(&header, xa.xid(), xa.one_phase),
            Event::TransactionPayload(_) => Ok(()),
            Event::Incident { message } => {
                Err(CaptureError::gap(format!("the server lost events itself: {message}")))
            }
            Event::Unsupported { event_type } => Err(CaptureError::fatal(
                format!("the binlog holds an event of type {event_type}, which this version does not read"),
                "turn off the server feature that writes it, or use a newer Tidemill",
            )),
        }
    }

    fn rotate(&mut self, new_file: &str, new_pos: u64) {
        if let Position::MySql { file, pos, .. } | Position::MariaDb { file, pos, .. } = &mut self.position
            && file != new_file
        {
            new_file.clone_into(file);
            *pos = new_pos;
            self.state.new_file = true;
            self.state.moved = true;
        }
        self.state.decoders.clear();
    }

    fn open(&mut self, gtid: Option<Gtid>, maria: Option<MariaGtid>, ts_ms: i64) -> Result<(), CaptureError> {
        if let Some(open) = &self.state.txn
            && (open.rows || self.state.inside_payload)
        {
            return Err(CaptureError::fatal(
                "a transaction in the binlog has no end",
                "restart; if it comes again, the server's compressed payload could not be read: \
                     SET PERSIST binlog_transaction_compression = OFF and use `flow resnapshot`",
            ));
        }
        self.xa.close()?;
        self.state.inside_payload = false;
        self.state.txn = Some(OpenTxn { gtid, maria, ts_ms, begun: false, rows: false, marked: false });
        Ok(())
    }

    /// The open transaction, made up where the server sends no GTID event.
    pub(super) fn txn(&mut self) -> &mut OpenTxn {
        self.state.txn.get_or_insert_with(|| OpenTxn {
            gtid: None,
            maria: None,
            ts_ms: now_ms(),
            begun: false,
            rows: false,
            marked: false,
        })
    }

    /// Where the open transaction begins: the position moves only between transactions.
    fn txn_place(&self) -> (&str, u64) {
        self.position.file_pos().unwrap_or_default()
    }

    /// Writes the begin record before the first change of a transaction.
    pub(super) fn begin(&mut self) {
        let txn = self.txn();
        txn.rows = true;
        if txn.begun {
            return;
        }
        txn.begun = true;
        let ts_ms = txn.ts_ms;
        let mut id = std::mem::take(&mut self.state.id_text);
        id.clear();
        let written = match self.state.txn.as_ref().map(|txn| (&txn.gtid, &txn.maria)) {
            Some((Some(gtid), _)) => write!(id, "{gtid}"),
            Some((_, Some(gtid))) => write!(id, "{gtid}"),
            _ => {
                let (file, pos) = self.txn_place();
                write!(id, "{file}:{pos}")
            }
        };
        written.expect("a string takes any text");
        self.batch.begin(&id, ts_ms);
        self.state.id_text = id;
    }

    fn mark(&mut self) -> TxnMark {
        let txn = self.txn();
        match (&txn.gtid, &txn.maria) {
            (Some(gtid), _) => TxnMark::Gtid(gtid.clone()),
            (_, Some(gtid)) => TxnMark::Maria(*gtid),
            // Its end lies past its beginning: one more byte is enough to be outside a mark that ends there.
            _ => {
                let (file, pos) = self.txn_place();
                TxnMark::File { file: file.to_owned(), pos: pos + 1 }
            }
        }
    }

    pub(super) fn commit(&mut self, header: &EventHeader) -> Result<(), CaptureError> {
        self.xa.close()?;
        let end = if self.state.inside_payload { self.state.payload_end } else { u64::from(header.log_pos) };
        self.txn();
        let txn = self.state.txn.take().expect("made just now");
        self.state.inside_payload = false;
        let file = self.state.new_file.then(|| self.position.file_pos().map(|(f, _)| f.to_owned())).flatten();
        let pos = if end > 0 { end } else { self.position.file_pos().map_or(4, |(_, p)| p) };
        let step = if self.server.mariadb {
            Step::MariaDb { gtid: txn.maria, file, pos }
        } else {
            Step::MySql { gtid: txn.gtid, file, pos }
        };
        self.position.advance(&step);
        // Of any table: what nobody captures is behind us all the same.
        self.state.last_commit_ms = txn.ts_ms;
        if txn.begun {
            self.seal(step);
        } else {
            self.position_moved();
        }
        Ok(())
    }

    /// The open transaction ends here, but not as far as the position's GTIDs are concerned, where these may have gaps.
    pub(super) fn leave_unfinished(&mut self, header: &EventHeader) {
        let pos = u64::from(header.log_pos);
        let txn = self.state.txn.take();
        let begun = txn.as_ref().is_some_and(|txn| txn.begun);
        self.position.advance(&if self.server.mariadb {
            Step::MariaDb { gtid: txn.and_then(|txn| txn.maria), file: None, pos }
        } else {
            Step::MySql { gtid: None, file: None, pos }
        });
        self.position_moved();
        if begun {
            // A definition that was read for its rows.
            self.seal(Step::Stay);
        }
    }

    pub(super) fn position_moved(&mut self) {
        self.state.moved = true;
        self.state.moved_at.get_or_insert_with(Instant::now);
    }

    /// Notes the keys of a change for the snapshot chunk that may be under way in its table.
    pub(super) fn note_change(&mut self, table: &Table, before: Option<&[u8]>, after: Option<&[u8]>) {
        if !self.state.tracking.contains_key(&table.name) {
            return;
        }
        let mark = self.mark();
        if let Some(tracking) = self.state.tracking.get_mut(&table.name) {
            for image in [before, after].into_iter().flatten() {
                tracking.note(row_key(table, RowView(image)), &mark);
            }
        }
    }

    /// Ends what the batch holds with a commit record that carries the whole truth about the position.
    fn seal(&mut self, step: Step) {
        if std::mem::take(&mut self.state.moved) {
            self.batch.commit(&Step::Full(Box::new(self.position.clone())));
        } else {
            self.batch.commit(&step);
        }
        self.state.moved_at = None;
        self.state.new_file = false;
    }

    /// Keeps the position of a stream that changes nothing we capture from falling far behind.
    fn store_position_when_due(&mut self) {
        if self.state.moved_at.is_some_and(|at| at.elapsed() >= POSITION_INTERVAL) {
            self.store_position();
        }
    }

    fn store_position(&mut self) {
        if self.state.txn.is_none() && self.state.moved {
            self.seal(Step::Stay);
        }
    }

    async fn take_query(
        &mut self,
        header: &EventHeader,
        db: &str,
        sql: &str,
        ansi_quotes: bool,
    ) -> Result<(), CaptureError> {
        use mysql::Statement;
        let statement = mysql::classify(sql, ansi_quotes);
        match &statement {
            Statement::Begin => {
                self.txn();
                return Ok(());
            }
            Statement::Commit => return self.commit(header),
            Statement::Savepoint(_) | Statement::RollbackTo(_) | Statement::Release(_) => return Ok(()),
            Statement::Rollback => {
                if self.txn().rows {
                    return Err(CaptureError::fatal(
                        "a transaction that was rolled back is in the binlog, because it changed a table without \
                         transactions",
                        "convert the table to InnoDB, then use `flow resnapshot`",
                    ));
                }
                return self.commit(header);
            }
            Statement::Xa { verb, xid, .. } => return self.xa_statement(header, *verb, xid),
            Statement::Dml => {
                return Err(CaptureError::fatal(
                    format!("the binlog holds a statement instead of rows: {}", shortened(sql)),
                    "a session used binlog_format=STATEMENT or MIXED: set it to ROW everywhere, then use \
                     `flow resnapshot`",
                ));
            }
            Statement::TableDdl(_) | Statement::DatabaseDdl { .. } | Statement::Unknown => {
                self.follow_statement(header, db, sql, &statement).await?;
            }
            Statement::Harmless => {}
        }
        // CREATE TABLE … SELECT is one transaction with its rows, which follow: so says MySQL's text, MariaDB's GTID.
        let starts = sql.trim_end().to_ascii_uppercase().ends_with("START TRANSACTION");
        if starts || self.state.ends_with_commit {
            return Ok(());
        }
        self.commit(header)
    }

    async fn follow_statement(
        &mut self,
        header: &EventHeader,
        db: &str,
        sql: &str,
        statement: &mysql::Statement,
    ) -> Result<(), CaptureError> {
        let patterns = Arc::clone(&self.patterns);
        let touched = self.touched(db, statement);
        let locked = self.visible(&touched).await?;
        let plan = self
            .model
            .follow(&mut self.lookup, &self.address, &self.server, &patterns, db, sql, statement)
            .await?;
        let mark = self.mark();
        for effect in plan {
            self.begin();
            if let Some(name) = effect.name()
                && let Some(tracking) = self.state.tracking.get_mut(name)
            {
                tracking.note_reshape(&mark);
            }
            self.apply(effect);
        }
        let keeps_columns = matches!(statement, mysql::Statement::TableDdl(ddl) if ddl.keeps_columns);
        self.doubt(header, touched, keeps_columns).await?;
        self.distrust(&locked).await?;
        self.state.decoders.clear();
        Ok(())
    }

    /// Writes what a statement did to the journal, and takes it into the model.
    fn apply(&mut self, effect: super::model::Effect) {
        use super::model::Effect;
        match effect {
            Effect::Truncated(table) => {
                self.batch.truncate(&table);
            }
            Effect::Refilled(table) => {
                self.batch.truncate(&table);
                self.read_anew(&table.name);
            }
            Effect::Ddl { ddl, needs_snapshot } => {
                if let Some(after) = &ddl.after {
                    self.batch.schema(after);
                }
                self.batch.ddl(&ddl);
                self.move_progress(&ddl);
                match (&ddl.before, &ddl.after) {
                    (Some(before), None) => self.batch.drop_table(before.id),
                    (_, Some(after)) if needs_snapshot => self.read_anew(&after.name),
                    _ => {}
                }
            }
            Effect::Quarantined { name, reason } => self.quarantine(&name, reason),
        }
    }

    /// What is read of a table goes where its name goes; a cursor is of one key only.
    fn move_progress(&mut self, ddl: &base::Ddl) {
        let (before, after) = (ddl.before.as_ref(), ddl.after.as_ref());
        let old = before.and_then(|t| self.progress.tables.get(&t.name.to_string()).cloned());
        let mut moved = old.unwrap_or_else(|| TableSnapshot { done: true, ..TableSnapshot::default() });
        if let Some(before) = before.filter(|b| after.is_none_or(|a| a.name != b.name)) {
            self.note_progress(&before.name, |table| {
                *table = TableSnapshot { done: true, ..TableSnapshot::default() };
            });
        }
        let Some(after) = after else { return };
        if moved.cursor.is_some() && before.is_none_or(|before| !same_key(before, after)) {
            (moved.cursor, moved.rows) = (None, 0);
        }
        let waits = !moved.done && moved.quarantined.is_none();
        self.note_progress(&after.name, |table| *table = moved);
        if waits {
            self.queue.push(after.name.clone());
        }
    }

    /// The rows of a table are to be read again from the source, over those that the journal has.
    fn read_anew(&mut self, name: &TableName) {
        if self.refills && !self.is_quarantined(name) {
            self.begin_snapshot(name);
        }
    }

    /// The snapshot of a table begins with its first row. A chunk under way may have seen all that the stream still comes to:
    /// it would go on behind rows that must be read again.
    fn begin_snapshot(&mut self, name: &TableName) {
        if let Some(tracking) = self.state.tracking.get_mut(name) {
            tracking.note_anew();
        }
        self.note_progress(name, |table| *table = TableSnapshot::default());
        self.queue.push(name.clone());
    }

    /// Rows were committed that nobody has seen: every table is emptied and read again. The transaction that is open tells of
    /// it, so that the journal never has its position without that.
    pub(super) fn read_all_anew(&mut self) {
        tracing::warn!(
            source = %self.name,
            "an XA transaction has been committed whose rows came before capture began, or before it connected again: \
             all tables are read anew"
        );
        let names =
            self.model.names().filter(|name| self.patterns.matches(name) && !self.is_quarantined(name));
        let tables: Vec<_> = names.filter_map(|name| self.model.get(name)).collect();
        for table in tables {
            self.begin();
            self.batch.truncate(&table);
            self.begin_snapshot(&table.name);
        }
    }

    fn note_progress(&mut self, name: &TableName, change: impl FnOnce(&mut TableSnapshot)) {
        let key = name.to_string();
        let table = self.progress.tables.entry(key.clone()).or_default();
        change(table);
        let mut only = SnapshotProgress::default();
        only.tables.insert(key, table.clone());
        self.batch.snapshot(&only);
    }

    fn quarantine(&mut self, name: &TableName, reason: String) {
        tracing::error!(source = %self.name, table = %name, reason, "table quarantined; every other table flows on");
        self.begin();
        self.note_progress(name, |table| table.quarantined = Some(reason));
        self.state.decoders.clear();
    }

    pub(super) fn is_quarantined(&self, name: &TableName) -> bool {
        self.progress.tables.get(&name.to_string()).is_some_and(|t| t.quarantined.is_some())
    }

    async fn flush(&mut self) -> Result<(), CaptureError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let next = self.handle.batch(self.batch.next_lsn());
        let full = std::mem::replace(&mut self.batch, next);
        let rows = std::mem::take(&mut self.state.rows_captured);
        metrics::counter!(base::metrics::CAPTURED_ROWS, "source" => self.name.to_string()).increment(rows);
        metrics::counter!(base::metrics::CAPTURED_BYTES, "source" => self.name.to_string())
            .increment(full.len_bytes() as u64);
        self.handle.append(full).await
    }

    /// The source pauses: nothing is kept back.
    async fn idle(&mut self) -> Result<(), CaptureError> {
        if self.state.txn.is_none() {
            self.emit_ready().await?;
        }
        self.store_position_when_due();
        self.flush().await?;
        self.handle.check()?;
        self.show(true);
        Ok(())
    }

    /// Refreshes what `status` shows; always when the stream pauses, otherwise now and then.
    fn show(&mut self, caught_up: bool) {
        if !caught_up && self.state.status_at.is_some_and(|at| at.elapsed() < STATUS_INTERVAL) {
            return;
        }
        self.state.status_at = Some(Instant::now());
        let done = self.progress.is_done();
        let rows = self.progress.rows();
        let started = self.state.snapshot_started.get_or_insert_with(|| (Instant::now(), rows));
        let seconds = started.0.elapsed().as_secs_f64().max(0.001);
        let rate = ((rows.saturating_sub(started.1)) as f64 / seconds) as u64;
        let tables = &self.progress.tables;
        let snapshot = SnapshotStatus {
            rows_per_second: if done { 0 } else { rate },
            holds_stream: self.state.holds_stream.clone(),
            ..SnapshotStatus::of(&self.progress, done)
        };
        let quarantined: Vec<_> = tables
            .iter()
            .filter_map(|(table, t)| {
                Some(QuarantineStatus { table: table.clone(), reason: t.quarantined.clone()? })
            })
            .collect();
        let position = PositionStatus::of(Some(&self.position));
        // Before the first commit nobody knows.
        let known = !caught_up && self.state.last_commit_ms > 0;
        let lag = if known { now_ms().saturating_sub(self.state.last_commit_ms).max(0) as u64 } else { 0 };
        let epoch = self.epoch;
        self.status.advance(|status| {
            status.state = if done { "stream" } else { "snapshot" };
            status.epoch = epoch;
            status.position = position;
            status.lag_ms = lag;
            status.snapshot = snapshot;
            status.quarantined = quarantined;
        });
        metrics::gauge!(base::metrics::CAPTURE_LAG, "source" => self.name.to_string()).set(lag as f64 / 1e3);
    }
}

pub(super) enum DecodeFailure {
    Row(mysql::BinlogError),
    Journal(CaptureError),
}

fn same_key(a: &Table, b: &Table) -> bool {
    let columns = |t: &Table| {
        t.key.iter().map(|i| (t.columns[*i].ty.clone(), t.columns[*i].collation.clone())).collect::<Vec<_>>()
    };
    a.id == b.id && a.key == b.key && columns(a) == columns(b)
}

fn has_checksum(event: &mysql_common::binlog::events::Event) -> bool {
    matches!(event.footer().get_checksum_alg(), Ok(Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32)))
}

fn verify_checksum(event: &mysql_common::binlog::events::Event) -> Result<(), CaptureError> {
    let Some(stored) = event.checksum().filter(|_| has_checksum(event)) else { return Ok(()) };
    let computed = event.calc_checksum(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32);
    if computed == u32::from_le_bytes(stored) {
        return Ok(());
    }
    // A broken wire heals with a new connection; a broken file comes again, and keeps being told.
    Err(CaptureError::unavailable("a binlog event arrived damaged: its checksum does not match").with_hint(
        "if this repeats at one position, the server's binlog file is damaged: restore it or resnapshot",
    ))
}

fn shortened(sql: &str) -> String {
    sql.chars().take(120).collect()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
