//! A SQLite source whose capture is stopped and started under a writer: what is written meanwhile is never skipped.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Op, Value};
use flow::capture::reach::Reach;
use flow::capture::sqlite::{SqliteSource, run};
use flow::capture::status::StatusCell;
use flow::capture::writer::JournalHandle;
use flow::config::{KafkaStart, OnBad, OnGap, SnapshotMode, SourceConfig, SourceKind, SourceOptions};
use flow::patterns::Patterns;
use journal::{Journal, JournalError, Options, RealDisk};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const RESTARTS: usize = 8;
/// More than waits at a start, so that each life also follows the file for a while.
const ROWS_A_LIFE: u64 = 3000;
/// How far the writer may be before capture: what is behind at the end is read again and again.
const ROWS_AHEAD_MAX: u64 = 20_000;

fn config() -> SourceConfig {
    SourceConfig {
        kind: SourceKind::Sqlite,
        url: None,
        schema_registry: None,
        tidb: None,
        claim_check: None,
        path: None,
        topics: vec![],
        tables: vec!["shop.*".into()],
        exclude: vec![],
        mirror: Vec::new(),
        subscriptions: Default::default(),
        snapshot: SnapshotMode::Initial,
        on_gap: OnGap::Fail,
        start: KafkaStart::default(),
        on_bad: OnBad::default(),
        declare: BTreeMap::new(),
        secrets: vec![],
        options: SourceOptions::default(),
    }
}

/// Captures until the journal is as `enough` wants it.
async fn capture(dir: &Path, mut enough: impl FnMut(&Journal) -> bool) {
    let journals = dir.join("journal");
    let (writer, journal) = loop {
        match journal::open(Arc::new(RealDisk), &journals, Options::default()) {
            // The thread of the capture before still holds it.
            Err(JournalError::Locked { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let (stop, shutdown) = watch::channel(false);
    let (_control, commands) = mpsc::channel(1);
    let config = config();
    let source = SqliteSource {
        name: "shop".into(),
        path: dir.join("shop.db"),
        patterns: Arc::new(Patterns::new(&config.tables, &[]).unwrap()),
        reach: Reach::new("shop", &config, []),
        config,
        handle: JournalHandle::spawn("shop", writer),
        status: StatusCell::new("shop"),
    };
    let mut seals = journal.watch();
    let running = tokio::spawn(run(source, commands, shutdown));
    while !enough(&journal) {
        seals.changed().await.unwrap();
    }
    stop.send(true).unwrap();
    running.await.unwrap();
}

/// Inserts one row after the other until told to stop, never far before the last `sealed` one; the number of rows.
fn write(shop: &Connection, stop: &AtomicBool, sealed: &AtomicU64) -> i64 {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        if written as u64 > sealed.load(Ordering::Relaxed) + ROWS_AHEAD_MAX {
            std::thread::yield_now();
            continue;
        }
        written += 1;
        shop.execute("INSERT INTO orders VALUES (?1)", [written]).unwrap();
    }
    written
}

/// The keys in the journal, in order.
fn keys(journal: &Journal) -> Vec<Value> {
    let mut out = Vec::new();
    let mut reader = journal.reader(1).unwrap();
    while let Some(chunk) = reader.next(1 << 20).unwrap() {
        for change in chunk.changes() {
            let change = change.unwrap();
            assert!(matches!(change.op, Op::Read | Op::Insert));
            out.push(change.after.unwrap().values().unwrap()[0].clone());
        }
    }
    out
}

/// A folder with an empty journal's folder and a shop without orders.
fn shop() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let shop = Connection::open(dir.path().join("shop.db")).unwrap();
    let schema =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE orders (id INTEGER PRIMARY KEY)";
    shop.execute_batch(schema).unwrap();
    shop.busy_timeout(Duration::from_secs(10)).unwrap();
    (dir, shop)
}

#[tokio::test]
async fn a_new_journal_begins_with_the_rows_and_not_with_what_the_triggers_had_kept() {
    let (dir, shop) = shop();
    shop.execute("INSERT INTO orders VALUES (1)", []).unwrap();
    capture(dir.path(), |journal| journal.sealed().lsn == 1).await;
    shop.execute("INSERT INTO orders VALUES (2)", []).unwrap();
    std::fs::rename(dir.path().join("journal"), dir.path().join("lost")).unwrap();
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let mut captured = Vec::new();
    capture(dir.path(), |journal| {
        captured = keys(journal);
        captured.len() >= 2
    })
    .await;
    assert_eq!(captured, [Value::Int(1), Value::Int(2)]);
    let kept: i64 = shop.query_row("SELECT count(*) FROM tidemill_changes", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_written_while_capture_starts_are_captured_once() {
    let (dir, shop) = shop();
    let stop = Arc::new(AtomicBool::new(false));
    let sealed = Arc::new(AtomicU64::new(0));
    let writer = std::thread::spawn({
        let (stop, sealed) = (Arc::clone(&stop), Arc::clone(&sealed));
        move || write(&shop, &stop, &sealed)
    });
    for _ in 0..RESTARTS {
        let mut begun = None;
        capture(dir.path(), |journal| {
            let lsn = journal.sealed().lsn;
            sealed.store(lsn, Ordering::Relaxed);
            lsn > *begun.get_or_insert(lsn) + ROWS_A_LIFE
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let wanted: Vec<_> = (1..=writer.join().unwrap()).map(Value::Int).collect();
    let mut captured = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    capture(dir.path(), |journal| {
        captured = keys(journal);
        captured.last() == wanted.last() || Instant::now() > deadline
    })
    .await;
    let first_wrong = captured.iter().zip(&wanted).find(|(have, want)| have != want);
    assert!(captured == wanted, "{} of {} rows, wrong from {first_wrong:?}", captured.len(), wanted.len());
}
