//! Every statement, written down: one record per command, in files that rotate.
//!
//! A thread that carries sessions appends to a buffer of its own and waits for nobody; another thread takes the buffers and
//! writes them. Where that comes too late, records are shed and counted. A disk that takes no more ends the capture, and
//! nothing else. What may be a secret is left out before it comes into a buffer (`secrets`).

mod secrets;

pub use mysql::captured::{Flags, Kind, Reader, Record, Shown, now_us};
pub use secrets::{by_digest, speaks_of_one};

use crate::buffers::Counted;
use base::ByteSize;
use mysql::captured::Writer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a thread may hold until it is written; a record that does not fit is shed.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// The thread that writes is woken where a buffer holds as much, and after the pause anyway.
const BUFFER_BYTES_WAKE: usize = 512 << 10;
const WRITE_PAUSE: Duration = Duration::from_millis(100);
/// Verdicts that a thread remembers, by digest.
const VERDICTS_MAX: usize = 4_096;

/// Statements as they come, in files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// Begin with the node. Else `tidemill mesh capture start` begins.
    #[schemars(extend("default" = false))]
    pub enabled: bool,
    /// Where the files are, relative to the project. Only their owner can read them.
    #[schemars(with = "String", extend("default" = "./data/capture"))]
    pub dir: PathBuf,
    /// A file that is as long is followed by another.
    #[schemars(with = "String", extend("default" = "64MiB"))]
    pub file_bytes: ByteSize,
    /// Files that are kept; the oldest are deleted.
    #[schemars(extend("default" = 16))]
    pub files: usize,
    /// What is kept of a statement's text, and of an execution's parameters. One that is cut cannot be replayed. 16KiB at most.
    #[schemars(with = "String", extend("default" = "8KiB"))]
    pub statement_bytes: ByteSize,
    /// Only sessions of these users; all by default.
    #[schemars(extend("default" = []))]
    pub users: BTreeSet<String>,
    /// Only sessions of these groups; all by default.
    #[schemars(extend("default" = []))]
    pub groups: BTreeSet<String>,
    /// Hash the rows of each answer, so that a replay can tell whether they differ.
    #[schemars(extend("default" = false))]
    pub answers: bool,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            dir: PathBuf::from("./data/capture"),
            file_bytes: ByteSize(64 << 20),
            files: 16,
            statement_bytes: ByteSize(8 << 10),
            users: BTreeSet::new(),
            groups: BTreeSet::new(),
            answers: false,
        }
    }
}

impl CaptureConfig {
    /// What is wrong with it, each with what to do.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if self.files == 0 || self.files > 100_000 {
            found.push(("`capture.files` is not between 1 and 100000".into(), "files: 16".into()));
        }
        if self.file_bytes.0 < 1 << 20 {
            found.push(("`capture.file_bytes` is less than 1MiB".into(), "file_bytes: 64MiB".into()));
        }
        if !(64..=16 << 10).contains(&self.statement_bytes.0) {
            let message = "`capture.statement_bytes` is not between 64B and 16KiB".into();
            found.push((message, "statement_bytes: 8KiB".into()));
        }
        found
    }
}

/// What `tidemill mesh capture status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct CaptureStatus {
    pub running: bool,
    pub dir: String,
    /// Since the start of the node.
    pub captured: u64,
    /// Bytes of them, as they are written.
    pub bytes: u64,
    /// That found their thread's buffer full.
    pub shed: u64,
    /// Why it ended, where nobody asked it to.
    pub error: Option<String>,
}

/// What a thread holds.
#[derive(Debug)]
struct Buffer {
    records: Vec<u8>,
    counted: Counted,
    verdicts: HashMap<u64, bool>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { records: Vec::new(), counted: Counted::spool(), verdicts: HashMap::new() }
    }
}

#[derive(Debug, Default)]
struct Counters {
    captured: AtomicU64,
    bytes: AtomicU64,
    shed: AtomicU64,
}

/// The capture of a mesh, whether it runs or not.
#[derive(Debug)]
pub struct Capture {
    on: Arc<AtomicBool>,
    /// Of the captures that there have been: a session begins anew in each.
    round: AtomicU64,
    config: arc_swap::ArcSwap<CaptureConfig>,
    buffers: Arc<Vec<Mutex<Buffer>>>,
    counters: Arc<Counters>,
    error: Arc<Mutex<Option<String>>>,
    /// Taken by whoever starts or stops it.
    writing: Mutex<Option<Writing>>,
}

#[derive(Debug)]
struct Writing {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// To wake it, by sessions' threads too.
    handle: std::thread::Thread,
}

impl Capture {
    pub fn new(threads: usize) -> Self {
        Self {
            on: Arc::default(),
            round: AtomicU64::new(0),
            config: arc_swap::ArcSwap::default(),
            buffers: Arc::new((0..threads).map(|_| Mutex::default()).collect()),
            counters: Arc::default(),
            error: Arc::default(),
            writing: Mutex::default(),
        }
    }

    /// Whether statements are to be kept now. Cheap: it is asked for every command.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn config(&self) -> arc_swap::Guard<Arc<CaptureConfig>> {
        self.config.load()
    }

    /// The number of the present capture.
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// Takes another configuration: where it differs a running capture ends, and one begins if it says so. A capture that
    /// does not begin is an error of the log, never of the mesh.
    pub fn configure(&self, config: &CaptureConfig) {
        if **self.config.load() == *config {
            return;
        }
        self.stop();
        self.config.store(Arc::new(config.clone()));
        if config.enabled
            && let Err(error) = self.start()
        {
            tracing::error!(dir = %config.dir.display(), %error, "statements are not captured");
        }
    }

    /// Begins; `false` where it has begun before.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn start(&self) -> io::Result<bool> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.is_some() && self.is_on() {
            return Ok(false);
        }
        end(writing.take());
        let config = self.config.load_full();
        let note = |error: Option<String>| {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        };
        let writer = Writer::open(&config.dir, config.file_bytes.0, config.files)
            .inspect_err(|error| note(Some(error.to_string())))?;
        note(None);
        for buffer in self.buffers.iter() {
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            // What came while the one before ended.
            self.counters.shed.fetch_add(count(&buffer.records), Ordering::Relaxed);
            *buffer = Buffer::default();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let pen = Pen {
            writer,
            buffers: self.buffers.clone(),
            counters: self.counters.clone(),
            on: self.on.clone(),
            stop: stop.clone(),
            error: self.error.clone(),
        };
        let thread = std::thread::Builder::new().name("mesh-capture".into()).spawn(move || pen.run())?;
        let handle = thread.thread().clone();
        *writing = Some(Writing { thread, stop, handle });
        self.round.fetch_add(1, Ordering::Relaxed);
        self.on.store(true, Ordering::Release);
        tracing::info!(dir = %config.dir.display(), "statements are captured");
        Ok(true)
    }

    /// Ends, when what is held has been written. Whether it ran.
    pub fn stop(&self) -> bool {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let was = self.on.swap(false, Ordering::AcqRel);
        end(writing.take());
        was
    }

    pub fn status(&self) -> CaptureStatus {
        CaptureStatus {
            running: self.is_on(),
            dir: self.config.load().dir.display().to_string(),
            captured: self.counters.captured.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            shed: self.counters.shed.load(Ordering::Relaxed),
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether a statement speaks of a secret, which is looked up by its digest or found out by `look`.
    pub fn verdict(&self, thread: usize, digest: u64, look: impl FnOnce() -> bool) -> bool {
        let mut buffer = self.buffers[thread].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = buffer.verdicts.get(&digest) {
            return *verdict;
        }
        let verdict = look();
        if buffer.verdicts.len() >= VERDICTS_MAX {
            buffer.verdicts.clear();
        }
        buffer.verdicts.insert(digest, verdict);
        verdict
    }

    /// A record is not kept: memory is short.
    pub fn shed(&self) {
        self.counters.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a record until it is written. `false` where it was shed.
    pub fn add(&self, thread: usize, record: &Record<'_>) -> bool {
        let written = record.bytes_written();
        let mut buffer = self.buffers[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let before = buffer.records.len();
        if before + written > BUFFER_BYTES_MAX {
            self.counters.shed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let Buffer { records, counted, .. } = &mut *buffer;
        record.append(records);
        counted.set(records.capacity());
        drop(buffer);
        if before < BUFFER_BYTES_WAKE
            && before + written >= BUFFER_BYTES_WAKE
            && let Ok(writing) = self.writing.try_lock()
            && let Some(writing) = &*writing
        {
            writing.handle.unpark();
        }
        true
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets the thread write what there is, and waits for it.
fn end(writing: Option<Writing>) {
    let Some(Writing { thread, stop, handle }) = writing else { return };
    stop.store(true, Ordering::Release);
    handle.unpark();
    let _ = thread.join();
}

/// The thread that writes.
struct Pen {
    writer: Writer,
    buffers: Arc<Vec<Mutex<Buffer>>>,
    counters: Arc<Counters>,
    on: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    error: Arc<Mutex<Option<String>>>,
}

impl Pen {
    fn run(mut self) {
        // It goes round: a thread's full buffer comes here, and the empty one from here goes there.
        let mut records = Vec::new();
        let mut counted = Counted::spool();
        loop {
            let last = self.stop.load(Ordering::Acquire);
            for index in 0..self.buffers.len() {
                // One that had to become long is not kept.
                if records.capacity() > 2 * BUFFER_BYTES_WAKE {
                    records = Vec::new();
                }
                records.clear();
                let mut buffer = self.buffers[index].lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut buffer.records, &mut records);
                let kept = buffer.records.capacity();
                buffer.counted.set(kept);
                drop(buffer);
                counted.set(records.capacity());
                if records.is_empty() {
                    continue;
                }
                if let Err(error) = self.writer.write(&records) {
                    // Whoever reads the status sees why; queries go on.
                    tracing::warn!(%error, "the capture of statements ends: its file takes no more");
                    *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    self.counters.shed.fetch_add(count(&records), Ordering::Relaxed);
                    self.on.store(false, Ordering::Release);
                    return;
                }
                if let Some(reason) = self.writer.undeleted.take() {
                    tracing::warn!(reason, "failed to delete an old capture");
                }
                self.counters.captured.fetch_add(count(&records), Ordering::Relaxed);
                self.counters.bytes.fetch_add(records.len() as u64, Ordering::Relaxed);
            }
            if last {
                return;
            }
            std::thread::park_timeout(WRITE_PAUSE);
        }
    }
}

/// How many records there are, by their lengths.
fn count(mut records: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((length, rest)) = records.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some(rest) = rest.get(length..) else { break };
        records = rest;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(text: &[u8]) -> Record<'_> {
        Record {
            kind: Kind::Query,
            flags: Flags::default(),
            error: 0,
            session: 1,
            at_us: 1_700_000_000_000_000,
            elapsed_us: 1234,
            rows: 5,
            bytes: 678,
            digest: 1,
            hash: 0,
            statement: 0,
            user: b"app",
            group: b"shop",
            server: b"127.0.0.1:3306",
            database: b"shop",
            text,
        }
    }

    fn capture(dir: &std::path::Path) -> Capture {
        let capture = Capture::new(2);
        let config = CaptureConfig { dir: dir.to_owned(), enabled: true, ..CaptureConfig::default() };
        capture.configure(&config);
        capture
    }

    fn read(dir: &std::path::Path) -> usize {
        let mut reader = Reader::open(dir).unwrap();
        std::iter::from_fn(|| reader.read().map(|_| ())).count()
    }

    #[test]
    fn records_of_all_threads_are_in_the_file_once_it_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let capture = capture(dir.path());
        for number in 0..2000 {
            assert!(capture.add(number % 2, &example(b"select 1")));
        }
        assert!(capture.stop() && !capture.stop() && !capture.is_on());
        assert_eq!((read(dir.path()), capture.status().captured, capture.status().shed), (2000, 2000, 0));
        // The next one has a file of its own.
        assert!(capture.start().unwrap() && !capture.start().unwrap());
        capture.add(0, &example(b"select 2"));
        drop(capture);
        assert_eq!(read(dir.path()), 2001);
        assert_eq!(mysql::captured::list(dir.path()).unwrap().len(), 2);
    }

    #[test]
    fn what_finds_the_buffer_full_is_shed_and_counted() {
        // Nobody writes: it was never started.
        let capture = Capture::new(1);
        let record = example(&[b'x'; 8192]);
        let fits = BUFFER_BYTES_MAX / record.bytes_written();
        let kept = (0..fits + 5).filter(|_| capture.add(0, &record)).count();
        assert_eq!((kept, capture.status().shed), (fits, 5));
    }

    #[test]
    fn a_disk_that_takes_no_more_ends_the_capture_and_says_why() {
        let capture = Capture::new(1);
        capture.on.store(true, Ordering::Relaxed);
        capture.add(0, &example(b"select 1"));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let pen = Pen {
            writer: Writer::into_file(full),
            buffers: capture.buffers.clone(),
            counters: capture.counters.clone(),
            on: capture.on.clone(),
            stop: Arc::default(),
            error: capture.error.clone(),
        };
        pen.run();
        let status = capture.status();
        assert!(!status.running && !capture.is_on());
        assert_eq!((status.captured, status.shed), (0, 1));
        assert!(status.error.is_some_and(|error| error.contains("No space")));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_of_the_capture_alone() {
        let capture = capture(std::path::Path::new("/dev/null/capture"));
        let status = capture.status();
        assert!(!status.running && status.error.is_some(), "{status:?}");
        assert!(capture.start().is_err());
    }
}
