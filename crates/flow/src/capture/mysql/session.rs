//! The life of one source: connect, prove continuity, stream, and come back after every failure.

use super::check::{Server, inspect_for, refuse};
use super::connect::{Address, execute, statement_error};
use super::model::Model;
use super::repair::Repair;
use super::schema::{list_tables, read_tables};
use super::snapshot::{CHUNK_ROWS_DEFAULT, Queue, RateLimit, Reader, binlog_end};
use super::stream::{HEARTBEAT, Running, Stream};
use super::window::Mark;
use super::xa::Xa;
use crate::capture::reach::Reach;
use crate::capture::status::StatusCell;
use crate::capture::writer::JournalHandle;
use crate::capture::{CaptureError, CaptureErrorKind};
use crate::config::{OnGap, SnapshotMode, SourceConfig};
use crate::patterns::Patterns;
use base::{GtidSet, MariaGtidSet, Position, SnapshotProgress, Step, TableName, TableSnapshot};
use journal::{Batch, State};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, GnoInterval, Sid};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Tables a snapshot reads in parallel unless the configuration says otherwise.
pub const PARALLEL_DEFAULT: u32 = 2;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After an error that someone must act on, capture looks again at this pace.
const BACKOFF_FATAL: Duration = Duration::from_secs(10);
/// Requests the snapshot's readers may have waiting.
const MESSAGES_MAX: usize = 16;

/// What an operator asks of a running capture.
pub enum Control {
    /// Reads these tables anew.
    Resnapshot { tables: Vec<String>, reply: oneshot::Sender<Result<Anew, String>> },
}

/// Tables that are read anew.
#[derive(Clone, Debug)]
pub struct Anew {
    pub tables: Vec<String>,
    /// Their emptying stands in the journal here, or later.
    pub from_lsn: u64,
}

/// A MySQL or MariaDB source and what it writes to.
pub struct MySqlSource {
    pub name: Arc<str>,
    pub config: SourceConfig,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub status: StatusCell,
    /// The tables of each flow that reads the journal.
    pub flows: Arc<[Patterns]>,
    /// Told once when capture starts.
    pub reach: Reach,
}

/// Captures until shutdown.
pub async fn run(
    source: MySqlSource,
    mut control: mpsc::Receiver<Control>,
    mut repairs: mpsc::Receiver<Repair>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), CaptureError> {
    let address = Address::new(&source.config)?;
    let mut backoff = BACKOFF_MIN;
    let mut told = Told::default();
    loop {
        if *shutdown.borrow() {
            return Ok(());
        }
        let started = tokio::time::Instant::now();
        let end = session(&source, &address, &mut control, &mut repairs, &mut shutdown, &mut told).await;
        let Err(error) = end else {
            if *shutdown.borrow() {
                return Ok(());
            }
            backoff = BACKOFF_MIN;
            continue;
        };
        if started.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        let waits = error.kind != CaptureErrorKind::Unavailable;
        source.status.interrupted(&error);
        let pause = if waits { BACKOFF_FATAL } else { backoff };
        backoff = (backoff * 2).min(BACKOFF_MAX);
        while let Ok(repair) = repairs.try_recv() {
            let _ = repair.reply.send(Err(base::error::chain(&error)));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shutdown.changed() => return Ok(()),
            Some(repair) = repairs.recv() => {
                let _ = repair.reply.send(Err(base::error::chain(&error)));
            }
            Some(Control::Resnapshot { reply, .. }) = control.recv() => {
                let answer = match waits {
                    true => begin_again(&source, &address, &error).await,
                    false => Err(error),
                };
                let _ = reply.send(answer.map_err(|e| base::error::chain(&e)));
            }
        }
    }
}

/// What is looked at once, when capture starts.
#[derive(Default)]
struct Told {
    /// Whether the tables that capture reaches were told.
    reach: bool,
    /// Whether the source's `tables` were compared with those of the last run.
    patterns: bool,
    /// The server's tables when they were.
    names: Vec<TableName>,
}

/// A resnapshot that is asked for while capture stands before something it cannot pass: the position moves to now, so
/// every table is read anew, in a new epoch.
async fn begin_again(
    source: &MySqlSource,
    address: &Address,
    obstacle: &CaptureError,
) -> Result<Anew, CaptureError> {
    let state = source.handle.reset().await?;
    let from_lsn = state.next_lsn;
    let Chosen { address, mut conn, server, .. } = choose(source, address, state.position.as_ref()).await?;
    let mut lookup = address.connect().await?;
    let reason = format!("a resnapshot was asked for, past: {}", base::error::chain(obstacle));
    let state = restart(source, &server, &mut conn, &mut lookup, state, Some(reason), true).await?;
    Ok(Anew { tables: state.snapshot.tables.into_keys().collect(), from_lsn })
}

/// One connection to the source, from the journal's last commit on.
async fn session(
    source: &MySqlSource,
    address: &Address,
    control: &mut mpsc::Receiver<Control>,
    repairs: &mut mpsc::Receiver<Repair>,
    shutdown: &mut watch::Receiver<bool>,
    told: &mut Told,
) -> Result<(), CaptureError> {
    let state = source.handle.reset().await?;
    let Chosen { address, mut conn, server, gap } = choose(source, address, state.position.as_ref()).await?;
    let address = &address;
    let mut lookup = address.connect().await?;
    let state = begin(source, &server, &mut conn, &mut lookup, state, gap).await?;
    if !told.reach || !told.patterns {
        let names = list_tables(&mut lookup).await?;
        if !std::mem::replace(&mut told.reach, true) {
            source.reach.warn(&names);
        }
        told.names = names;
    }
    // A statement that makes one of these tables may be ahead of the stream: what no statement told of is known later.
    let admits_at = match told.patterns || moves(source, &state, &told.names).is_none() {
        true => None,
        false => Some(Mark::of(&current_position(&mut lookup, &server).await?)),
    };
    told.patterns |= admits_at.is_none();
    let position = state.position.clone().expect("begin gives a position");
    let began = binlog_end(&mut lookup).await?;
    let events = open_stream(conn, &position, server_id(source, state.identity)).await?;
    let (messages, received) = mpsc::channel(MESSAGES_MAX);
    let queue = Arc::new(unread(&state.snapshot));
    let reader = reader(source, address, &server, &queue, &messages);
    let mut stream = Stream {
        name: Arc::clone(&source.name),
        address: address.clone(),
        patterns: Arc::clone(&source.patterns),
        handle: source.handle.clone(),
        status: source.status.clone(),
        batch: Batch::new(state.next_lsn),
        position,
        epoch: state.epoch,
        model: Model::from_state(&state.tables, &source.flows),
        progress: state.snapshot.clone(),
        lookup,
        began,
        server: server.clone(),
        xa: Xa::default(),
        queue: Arc::clone(&queue),
        reader: reader.clone(),
        refills: source.config.snapshot == SnapshotMode::Initial,
        skip_marked: source.config.options.skip_marked,
        shutdown: shutdown.clone(),
        admits_at,
        state: Running::default(),
    };
    let mut readers = start_readers(source, &reader);
    // Held open, so that a stream without a snapshot does not see its readers as gone.
    let _messages = messages;
    let ended = tokio::select! {
        ended = stream.run(events, received, control, repairs, shutdown) => ended?,
        error = reader_failure(&mut readers) => return Err(error),
    };
    drop(readers);
    if ended.is_none() && stream.admits_at.is_some() && !*shutdown.borrow() {
        follow_patterns(source, &server, &mut stream.lookup, &told.names).await?;
        told.patterns = true;
    }
    if let Some(Control::Resnapshot { tables, reply }) = ended {
        let answer = resnapshot(source, &stream.model, &tables).await;
        let _ = reply.send(answer.map_err(|e| base::error::chain(&e)));
    }
    Ok(())
}

/// The server that is read, until it is lost.
struct Chosen {
    /// Of this server alone.
    address: Address,
    conn: Conn,
    server: Server,
    gap: Option<Gap>,
}

/// Why a server cannot continue the journal.
struct Gap {
    reason: String,
    /// It lacks what we have: a replica may still get it.
    behind: bool,
}

impl Gap {
    fn lost(reason: String) -> Self {
        Self { reason, behind: false }
    }

    fn behind(reason: String) -> Self {
        Self { reason, behind: true }
    }
}

/// The first host of the URL that can continue the journal. When none can, the first of those that cannot, but a replica
/// that lacks what we have is waited for.
async fn choose(
    source: &MySqlSource,
    address: &Address,
    position: Option<&Position>,
) -> Result<Chosen, CaptureError> {
    let (mut broken, mut last) = (None, None);
    for host in address.hosts() {
        match look_at(source, host, position).await {
            Ok(chosen) if chosen.gap.is_none() => return Ok(chosen),
            Ok(chosen) => broken = broken.or(Some(chosen)),
            Err(error) => last = Some(error),
        }
    }
    match (broken, last) {
        (Some(chosen), _) => Ok(chosen),
        (None, Some(error)) => Err(error),
        (None, None) => unreachable!("a URL names at least one host"),
    }
}

async fn look_at(
    source: &MySqlSource,
    host: Address,
    position: Option<&Position>,
) -> Result<Chosen, CaptureError> {
    let mut conn = host.connect().await?;
    let (server, findings) = inspect_for(&mut conn, &source.config.tables).await?;
    if !findings.is_empty() {
        return Err(refuse(&findings));
    }
    let gap = match position {
        Some(position) => continuity(&mut conn, &server, position).await?,
        None => None,
    };
    if let Some(gap) = gap.as_ref().filter(|gap| gap.behind && server.read_only) {
        let message = format!("{} is read-only and behind: {}", host.text(), gap.reason);
        return Err(CaptureError::unavailable(message).with_hint(
            "capture goes on when this replica has caught up, or another host of the url has all",
        ));
    }
    Ok(Chosen { address: host.only(&server), conn, server, gap })
}

/// Waits for a reader that failed; for ever when none does.
async fn reader_failure(readers: &mut JoinSet<Result<(), CaptureError>>) -> CaptureError {
    while let Some(result) = readers.join_next().await {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(error) => return CaptureError::unavailable("a snapshot reader broke off").because(error),
        }
    }
    std::future::pending().await
}

/// The tables that a snapshot has still to read.
fn unread(progress: &SnapshotProgress) -> Queue {
    let queue = Queue::default();
    for (name, table) in &progress.tables {
        if let Some((db, own)) = name.split_once('.').filter(|_| !table.done && table.quarantined.is_none()) {
            queue.push(TableName::new(db, own));
        }
    }
    queue
}

fn reader(
    source: &MySqlSource,
    address: &Address,
    server: &Server,
    queue: &Arc<Queue>,
    messages: &mpsc::Sender<super::snapshot::Message>,
) -> Reader {
    let options = &source.config.options;
    Reader {
        address: address.clone(),
        server: server.clone(),
        queue: Arc::clone(queue),
        stream: messages.clone(),
        limit: Arc::new(RateLimit::new(options.snapshot_rows_per_second)),
        chunk_rows: options.snapshot_chunk_rows.unwrap_or(CHUNK_ROWS_DEFAULT).clamp(1, 100_000),
    }
}

fn start_readers(source: &MySqlSource, reader: &Reader) -> JoinSet<Result<(), CaptureError>> {
    let options = &source.config.options;
    let mut readers = JoinSet::new();
    for _ in 0..options.snapshot_parallel.unwrap_or(PARALLEL_DEFAULT).clamp(1, 16) {
        readers.spawn(reader.clone().run());
    }
    readers
}

/// Makes the journal's beginning, or a new epoch where the server cannot continue it.
async fn begin(
    source: &MySqlSource,
    server: &Server,
    conn: &mut Conn,
    lookup: &mut Conn,
    state: State,
    gap: Option<Gap>,
) -> Result<State, CaptureError> {
    if state.position.is_none() {
        let reread = source.config.snapshot == SnapshotMode::Initial;
        return restart(source, server, conn, lookup, state, None, reread).await;
    }
    let Some(Gap { reason: gap, .. }) = gap else {
        return Ok(state);
    };
    match source.config.on_gap {
        OnGap::Fail => Err(CaptureError::gap(gap).with_hint(
            "set `on_gap: resnapshot` (read the tables anew) or `on_gap: skip` (go on from now) for this source, or \
             restore the missing binlogs",
        )),
        OnGap::Resnapshot | OnGap::Skip => {
            tracing::warn!(source = %source.name, gap, policy = ?source.config.on_gap, "continuity lost: new epoch");
            let reread = source.config.on_gap == OnGap::Resnapshot;
            restart(source, server, conn, lookup, state, Some(gap), reread).await
        }
    }
}

/// Writes a full position, the schemas and the snapshot's work list as one commit. `gap` says why continuity is lost;
/// `snapshot`, whether tables are read.
async fn restart(
    source: &MySqlSource,
    server: &Server,
    conn: &mut Conn,
    lookup: &mut Conn,
    state: State,
    gap: Option<String>,
    snapshot: bool,
) -> Result<State, CaptureError> {
    let position = current_position(conn, server).await?;
    let live = read_tables(lookup, server, |name| source.patterns.matches(name)).await?;
    let mut model = Model::from_state(&state.tables, &source.flows);
    let mut batch = Batch::new(state.next_lsn);
    if let Some(gap) = &gap {
        batch.epoch(state.epoch + 1, gap);
    }
    batch.begin("", now_ms());
    let mut progress = SnapshotProgress::default();
    for (name, described) in live {
        let key = name.to_string();
        match described {
            Ok(live) => {
                let known = model.get(&name);
                let table = model.put(live.table);
                batch.schema(&table);
                if known.is_some() && snapshot {
                    batch.truncate(&table);
                }
                progress.tables.insert(key, TableSnapshot { done: !snapshot, ..TableSnapshot::default() });
            }
            Err(reason) => {
                tracing::error!(source = %source.name, table = key, reason, "table quarantined");
                progress
                    .tables
                    .insert(key, TableSnapshot { quarantined: Some(reason), ..TableSnapshot::default() });
            }
        }
    }
    batch.snapshot(&progress);
    batch.commit(&Step::Full(Box::new(position)));
    source.handle.append(batch).await?;
    source.handle.flush().await?;
    source.handle.reset().await
}

/// What `tables` leaves out since the last run, and the tables that it takes in. `None` when all is as it was.
fn moves(
    source: &MySqlSource,
    state: &State,
    names: &[TableName],
) -> Option<(SnapshotProgress, HashSet<TableName>)> {
    let captured = |name: &str| {
        name.split_once('.').is_some_and(|(db, table)| source.patterns.matches(&TableName::new(db, table)))
    };
    let tables = &state.snapshot.tables;
    let gone = tables.iter().filter(|(name, known)| !known.left && !captured(name));
    let gone = gone.map(|(name, known)| {
        (name.clone(), TableSnapshot { done: true, cursor: None, left: true, ..known.clone() })
    });
    let gone = SnapshotProgress { tables: gone.collect() };
    let reads = source.config.snapshot == SnapshotMode::Initial;
    let is_new = |name: &&TableName| {
        reads && source.patterns.matches(name) && tables.get(&name.to_string()).is_none_or(|known| known.left)
    };
    let news: HashSet<TableName> = names.iter().filter(is_new).cloned().collect();
    (!gone.tables.is_empty() || !news.is_empty()).then_some((gone, news))
}

/// Tables that `tables` takes in since the last run are read like those of a first snapshot, also those that it had left out for
/// a while; those that it leaves out are noted.
async fn follow_patterns(
    source: &MySqlSource,
    server: &Server,
    lookup: &mut Conn,
    names: &[TableName],
) -> Result<(), CaptureError> {
    let state = source.handle.reset().await?;
    let Some((mut progress, news)) = moves(source, &state, names) else { return Ok(()) };
    let mut model = Model::from_state(&state.tables, &source.flows);
    let mut batch = Batch::new(state.next_lsn);
    batch.begin("", now_ms());
    let live = match news.is_empty() {
        true => BTreeMap::new(),
        false => read_tables(lookup, server, |name| news.contains(name)).await?,
    };
    for (name, described) in live {
        let fresh = match described {
            Ok(live) => {
                tracing::info!(source = %source.name, table = %name, "a table is captured from now on, and read");
                let known = model.get(&name);
                let table = model.put(live.table);
                batch.schema(&table);
                if known.is_some() {
                    batch.truncate(&table);
                }
                TableSnapshot::default()
            }
            Err(reason) => {
                tracing::error!(source = %source.name, table = %name, reason, "table quarantined");
                TableSnapshot { quarantined: Some(reason), ..TableSnapshot::default() }
            }
        };
        progress.tables.insert(name.to_string(), fresh);
    }
    batch.snapshot(&progress);
    batch.commit(&Step::Stay);
    source.handle.append(batch).await?;
    source.handle.flush().await
}

/// Where the server stands now.
async fn current_position(conn: &mut Conn, server: &Server) -> Result<Position, CaptureError> {
    let fail = |e| statement_error("read the server's position", e);
    let (file, pos) = binlog_end(conn).await?;
    if server.mariadb {
        let text: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_binlog_pos").await.map_err(fail)?;
        let gtids = parse_gtids(&text.unwrap_or_default())?;
        return Ok(Position::MariaDb { server: server.identity.clone(), gtids, file, pos });
    }
    let gtids = if server.gtids { Some(executed(conn).await?) } else { None };
    Ok(Position::MySql { server: server.identity.clone(), gtids, file, pos })
}

fn parse_gtids<T: std::str::FromStr<Err = base::gtid::BadGtid>>(text: &str) -> Result<T, CaptureError> {
    text.replace('\n', "")
        .parse()
        .map_err(|e| CaptureError::unavailable("failed to read the GTID set").because(e))
}

async fn executed(conn: &mut Conn) -> Result<GtidSet, CaptureError> {
    let text: Option<String> = conn
        .query_first("SELECT @@GLOBAL.gtid_executed")
        .await
        .map_err(|e| statement_error("read gtid_executed", e))?;
    parse_gtids(&text.unwrap_or_default())
}

/// Why the server cannot continue the journal; `None` when it can.
async fn continuity(
    conn: &mut Conn,
    server: &Server,
    stored: &Position,
) -> Result<Option<Gap>, CaptureError> {
    match stored {
        Position::MySql { gtids: Some(stored), .. } => {
            if !server.gtids {
                let reason = "the journal is positioned by GTID, but the server has gtid_mode off";
                return Ok(Some(Gap::lost(reason.into())));
            }
            let executed = executed(conn).await?;
            if !stored.is_subset_of(&executed) {
                let missing = stored.minus(&executed);
                let reason = format!("the server never had transactions that we captured: {missing}");
                return Ok(Some(Gap::behind(reason)));
            }
            let text: Option<String> = conn
                .query_first("SELECT @@GLOBAL.gtid_purged")
                .await
                .map_err(|e| statement_error("read gtid_purged", e))?;
            let purged: GtidSet = parse_gtids(&text.unwrap_or_default())?;
            let lost = purged.minus(stored);
            Ok((!lost.is_empty())
                .then(|| Gap::lost(format!("the server purged transactions we have not captured: {lost}"))))
        }
        Position::MySql { server: uuid, gtids: None, file, pos } => {
            if *uuid != server.identity {
                return Ok(Some(Gap::lost(format!(
                    "the journal is positioned by file on server {uuid}, but this is server {}",
                    server.identity
                ))));
            }
            file_continuity(conn, file, *pos).await
        }
        Position::MariaDb { gtids, file, pos, server: id } => {
            let text: Option<String> = conn
                .query_first("SELECT @@GLOBAL.gtid_binlog_pos")
                .await
                .map_err(|e| statement_error("read gtid_binlog_pos", e))?;
            let now: MariaGtidSet = parse_gtids(&text.unwrap_or_default())?;
            if !gtids.is_subset_of(&now) {
                let reason = format!("the server is at {now}, before what we captured: {gtids}");
                return Ok(Some(Gap::behind(reason)));
            }
            if *id == server.identity { file_continuity(conn, file, *pos).await } else { Ok(None) }
        }
        Position::Sqlite { .. } => Ok(Some(Gap::lost("the journal belongs to a SQLite source".into()))),
        Position::Kafka { .. } => Ok(Some(Gap::lost("the journal belongs to a Kafka source".into()))),
        Position::Push { .. } => Ok(Some(Gap::lost("the journal belongs to an HTTP source".into()))),
        Position::Capture { .. } => {
            Ok(Some(Gap::lost("the journal belongs to a source of captured statements".into())))
        }
    }
}

async fn file_continuity(conn: &mut Conn, file: &str, pos: u64) -> Result<Option<Gap>, CaptureError> {
    let rows: Vec<mysql_async::Row> =
        conn.query("SHOW BINARY LOGS").await.map_err(|e| statement_error("list the binlogs", e))?;
    let found = rows.iter().find(|row| row.get::<String, _>(0).as_deref() == Some(file));
    Ok(match found {
        None => Some(Gap::lost(format!("the server no longer has binlog {file}, which we stand in"))),
        Some(row) if row.get::<u64, _>(1).unwrap_or(0) < pos => {
            let reason = format!("binlog {file} is shorter than our position {pos}: the binlogs were reset");
            Some(Gap::lost(reason))
        }
        Some(_) => None,
    })
}

async fn open_stream(
    mut conn: Conn,
    position: &Position,
    server_id: u32,
) -> Result<BinlogStream, CaptureError> {
    let nanos = HEARTBEAT.as_nanos();
    let heartbeat = format!(
        "SET @master_heartbeat_period = {nanos}, @source_heartbeat_period = {nanos}, \
                 @source_binlog_checksum = 'CRC32'"
    );
    execute(&mut conn, &[&heartbeat]).await?;
    let request = BinlogStreamRequest::new(server_id);
    let request = match position {
        Position::MySql { gtids: Some(gtids), .. } => request.with_gtid().with_gtid_set(sids(gtids)?),
        Position::MySql { file, pos, .. } => {
            if *pos > u64::from(u32::MAX) {
                return Err(CaptureError::fatal(
                    "the binlog file is over 4 GiB, which positions without GTIDs cannot address",
                    "turn on gtid_mode, or keep max_binlog_size and transactions below 4 GiB",
                ));
            }
            request.with_filename(file.as_bytes()).with_pos(*pos)
        }
        Position::MariaDb { gtids, .. } => {
            let connect = format!(
                "SET @mariadb_slave_capability = 4, @slave_connect_state = '{gtids}', @slave_gtid_strict_mode = 0, \
                 @slave_gtid_ignore_duplicates = 0"
            );
            execute(&mut conn, &[&connect]).await?;
            request
        }
        Position::Sqlite { .. }
        | Position::Kafka { .. }
        | Position::Push { .. }
        | Position::Capture { .. } => {
            unreachable!("continuity refused it")
        }
    };
    conn.get_binlog_stream(request).await.map_err(|e| statement_error("start the binlog stream", e))
}

fn sids(gtids: &GtidSet) -> Result<Vec<Sid<'static>>, CaptureError> {
    gtids
        .entries()
        .map(|(uuid, tag, intervals)| {
            let mut sid = Sid::new(uuid.0);
            if !tag.is_empty() {
                let tag = mysql_common::packets::Tag::new(tag.to_owned())
                    .map_err(|_| CaptureError::fatal(format!("`{tag}` is not a GTID tag"), "report this"))?;
                sid = sid.with_tag(tag);
            }
            Ok(sid.with_intervals(
                intervals.iter().map(|(start, end)| GnoInterval::new(*start, *end)).collect(),
            ))
        })
        .collect()
}

/// Ours among the server's replicas: configured, or made of the source's name and its journal, high above what people
/// choose. The server ends the older of two replicas with one id, and every container's process has the same number.
fn server_id(source: &MySqlSource, journal: u64) -> u32 {
    source.config.options.server_id.unwrap_or_else(|| {
        let mut hash = 0x811c_9dc5_u32;
        for byte in source.name.bytes().chain(journal.to_le_bytes()) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        hash | 0x4000_0000
    })
}

/// Empties the tables in the journal and begins their snapshot anew.
async fn resnapshot(source: &MySqlSource, model: &Model, wanted: &[String]) -> Result<Anew, CaptureError> {
    let state = source.handle.reset().await?;
    let patterns =
        Patterns::new(wanted, &[]).map_err(|e| CaptureError::fatal(e.to_string(), "write db.table"))?;
    let names: Vec<String> = state
        .snapshot
        .tables
        .keys()
        .cloned()
        .chain(model.names().map(ToString::to_string))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .filter(|name| name.split_once('.').is_some_and(|(db, t)| patterns.matches(&TableName::new(db, t))))
        .collect();
    if names.is_empty() {
        let message = format!("no captured table matches {}", wanted.join(", "));
        return Err(CaptureError::fatal(message, "see `tidemill status` for the tables"));
    }
    let mut batch = Batch::new(state.next_lsn);
    batch.begin("", now_ms());
    let mut progress = SnapshotProgress::default();
    for name in &names {
        if let Some((db, table)) = name.split_once('.')
            && let Some(table) = model.get(&TableName::new(db, table))
        {
            batch.truncate(&table);
        }
        progress.tables.insert(name.clone(), TableSnapshot::default());
    }
    batch.snapshot(&progress);
    batch.commit(&Step::Stay);
    source.handle.append(batch).await?;
    source.handle.flush().await?;
    Ok(Anew { tables: names, from_lsn: state.next_lsn })
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
