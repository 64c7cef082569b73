//! A capture, asked again of another server.
//!
//! One thread reads the files and gives each session's records to a task with a connection of its own, which keeps their
//! order and their pace. What is on its way is bounded in bytes, and sessions in number.

mod player;

use crate::capture::{Flags, Kind, Reader};
use crate::compare::{Compared, Table};
use crate::error::SessionError;
pub use crate::target::Target;
use crate::target::{Setting, ask};
use player::{Item, Player};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

/// Records on their way between the files and the sessions.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What a record takes beside its own bytes.
const ITEM_BYTES: usize = 256;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was.
    Times(f64),
    /// Each session's next statement as soon as the one before is answered.
    Max,
}

/// How it is asked.
#[derive(Clone, Debug)]
pub struct Options {
    pub speed: Speed,
    /// Connections at once. A session that begins when there are as many is passed over.
    pub sessions_max: usize,
    /// Only what surely only reads, in transactions that read.
    pub read_only: bool,
    /// Show statements that differ with their literals.
    pub literals: bool,
}

/// How far it is, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the files.
    pub total: AtomicU64,
    pub done: AtomicU64,
}

/// Records that were not asked again, and why.
#[derive(Debug, Default, Serialize)]
pub struct Skipped {
    /// Their literals were left out: they speak of a secret.
    pub left_out: u64,
    /// Longer than what the capture kept.
    pub cut: u64,
    /// Of statements whose preparation is not there, or was not asked again.
    pub unprepared: u64,
    /// They administer the server, end sessions of others, or read and write files.
    pub administers: u64,
    /// They may write, and only reads were wanted.
    pub writes: u64,
    /// Of sessions that found `sessions` connections in use.
    pub too_many_sessions: u64,
    /// Their connection could not be made.
    pub unreachable: u64,
}

/// How it went.
#[derive(Debug, Serialize)]
pub struct Report {
    pub to: String,
    pub sessions: u64,
    /// Commands that were asked and compared.
    pub compared: u64,
    /// Of them with another error, another number of rows, or other rows.
    pub differences: u64,
    /// Commands whose connection was lost before their answer.
    pub lost: u64,
    pub skipped: Skipped,
    pub elapsed_ms: u64,
    /// What the files lacked, and what failed.
    pub notes: Vec<String>,
    /// Statements, those that differ most first.
    pub statements: Vec<Compared>,
}

/// Why there is no replay.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("failed to read the capture {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("failed to log in at the server")]
    Server(#[source] SessionError),
    #[error("the replay came to no end")]
    Ended,
}

/// What the sessions add to.
#[derive(Debug, Default)]
struct Tally {
    table: Mutex<Table>,
    sessions: AtomicU64,
    compared: AtomicU64,
    differences: AtomicU64,
    lost: AtomicU64,
    left_out: AtomicU64,
    cut: AtomicU64,
    unprepared: AtomicU64,
    administers: AtomicU64,
    writes: AtomicU64,
    too_many_sessions: AtomicU64,
    unreachable: AtomicU64,
    /// The first trouble of a connection.
    trouble: Mutex<Option<String>>,
}

/// What every session's task has.
#[derive(Debug)]
struct Stage {
    target: Target,
    options: Options,
    tally: Tally,
    progress: Arc<Progress>,
    began: Instant,
}

/// Asks all of a capture of `target`.
///
/// # Errors
/// When there is no capture, or the server lets nobody in.
pub async fn run(
    from: &Path,
    target: Target,
    options: Options,
    progress: Arc<Progress>,
) -> Result<Report, ReplayError> {
    let unread = |source| ReplayError::Read { path: from.display().to_string(), source };
    let reader = Reader::open(from).map_err(unread)?;
    progress.total.store(reader.bytes(), Ordering::Relaxed);
    // A wrong password is told before thousands of sessions meet it.
    drop(target.log_in(&Setting::default()).await.map_err(ReplayError::Server)?);
    let began = Instant::now();
    let stage = Arc::new(Stage { target, options, tally: Tally::default(), progress, began });
    let runtime = tokio::runtime::Handle::current();
    let reading = stage.clone();
    let slots = Arc::new(Semaphore::new(stage.options.sessions_max.max(1)));
    let held = slots.clone();
    let mut notes = tokio::task::spawn_blocking(move || distribute(reader, &reading, &runtime, &held))
        .await
        .map_err(|_| ReplayError::Ended)?;
    // When all are free every session has ended.
    let all = u32::try_from(stage.options.sessions_max.max(1)).unwrap_or(u32::MAX);
    let _ended = slots.acquire_many(all).await.map_err(|_| ReplayError::Ended)?;
    let tally = &stage.tally;
    notes.extend(tally.trouble.lock().unwrap_or_else(PoisonError::into_inner).take());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        to: stage.target.address().to_owned(),
        sessions: count(&tally.sessions),
        compared: count(&tally.compared),
        differences: count(&tally.differences),
        lost: count(&tally.lost),
        skipped: Skipped {
            left_out: count(&tally.left_out),
            cut: count(&tally.cut),
            unprepared: count(&tally.unprepared),
            administers: count(&tally.administers),
            writes: count(&tally.writes),
            too_many_sessions: count(&tally.too_many_sessions),
            unreachable: count(&tally.unreachable),
        },
        elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        notes,
        statements: tally.table.lock().unwrap_or_else(PoisonError::into_inner).list(),
    })
}

/// Reads the records and gives each to its session. Blocks. What the files lacked.
fn distribute(
    mut reader: Reader,
    stage: &Arc<Stage>,
    runtime: &tokio::runtime::Handle,
    slots: &Arc<Semaphore>,
) -> Vec<String> {
    let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    let mut open: HashMap<u32, mpsc::UnboundedSender<Item>> = HashMap::new();
    let mut passed_over: HashSet<u32> = HashSet::new();
    let mut first = None;
    while let Some(record) = reader.read() {
        let first = *first.get_or_insert(record.at_us);
        let due = match stage.options.speed {
            Speed::Times(times) => {
                let after = Duration::from_micros(record.at_us.saturating_sub(first));
                Some(stage.began + after.div_f64(times.max(0.001)))
            }
            Speed::Max => None,
        };
        if record.kind == Kind::Begin && !record.flags.has(Flags::MET) {
            // The number is another session's from here on, should the end of the one before be missing.
            open.remove(&record.session);
            passed_over.remove(&record.session);
        }
        let bytes = record.bytes_written();
        let skip = passed_over.contains(&record.session);
        if !skip && !open.contains_key(&record.session) && record.kind != Kind::End {
            if open.len() >= stage.options.sessions_max {
                passed_over.insert(record.session);
            } else {
                // Those that have ended in the capture come to their end by themselves, so one becomes free.
                let Ok(slot) = runtime.block_on(slots.clone().acquire_owned()) else { break };
                let (sender, queue) = mpsc::unbounded_channel();
                stage.tally.sessions.fetch_add(1, Ordering::Relaxed);
                let player = Player::new(stage.clone(), &record);
                runtime.spawn(async move {
                    player.play(queue).await;
                    drop(slot);
                });
                open.insert(record.session, sender);
            }
        }
        match open.get(&record.session) {
            Some(sender) => {
                let taken = u32::try_from((bytes + ITEM_BYTES).min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
                let Ok(room) = runtime.block_on(room.clone().acquire_many_owned(taken)) else { break };
                let mut raw = Vec::with_capacity(bytes);
                record.append(&mut raw);
                let _ = sender.send(Item { record: raw, due, _room: room });
            }
            None => {
                stage
                    .tally
                    .too_many_sessions
                    .fetch_add(u64::from(record.kind != Kind::End), Ordering::Relaxed);
                stage.progress.done.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        }
        if record.kind == Kind::End {
            open.remove(&record.session);
            passed_over.remove(&record.session);
        }
    }
    reader.notes
}
