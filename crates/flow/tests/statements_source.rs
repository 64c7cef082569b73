//! A source of captured statements whose capture is stopped and started while the mesh writes, rotates and crashes: each
//! record is a row once, and what is lost is told.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Change, Op, Value};
use flow::capture::mysql::Control;
use flow::capture::statements::{StatementsSource, run};
use flow::capture::status::{SourceStatus, StatusCell};
use flow::capture::writer::JournalHandle;
use flow::patterns::Patterns;
use journal::{Journal, JournalError, Options, RealDisk};
use mysql::captured::{Flags, Kind, Record, Writer, list};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

fn record(text: &str) -> Record<'_> {
    Record {
        kind: Kind::Query,
        flags: Flags::default(),
        error: 0,
        session: 7,
        at_us: 1_700_000_000_000_000,
        elapsed_us: 1234,
        rows: 5,
        bytes: 678,
        digest: 0x1234,
        hash: 42,
        statement: 0,
        user: b"app",
        group: b"shop",
        server: b"127.0.0.1:3306",
        database: b"shop",
        text: text.as_bytes(),
    }
}

fn block(texts: impl IntoIterator<Item = String>) -> Vec<u8> {
    let mut out = Vec::new();
    texts.into_iter().for_each(|text| record(&text).append(&mut out));
    out
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        Self(dir)
    }

    fn captures(&self) -> std::path::PathBuf {
        self.0.path().join("capture")
    }

    fn writer(&self, file_bytes: u64, files: usize) -> Writer {
        Writer::open(&self.captures(), file_bytes, files).unwrap()
    }

    fn journal(&self) -> (journal::Writer, Journal) {
        loop {
            match journal::open(Arc::new(RealDisk), &self.0.path().join("journal"), Options::default()) {
                // The thread of the capture before still holds it.
                Err(JournalError::Locked { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        }
    }

    fn start(&self) -> Capture {
        let (writer, journal) = self.journal();
        let (stop, shutdown) = watch::channel(false);
        let (control, commands) = mpsc::channel(1);
        let status = StatusCell::new("sql");
        let source = StatementsSource {
            name: "sql".into(),
            path: self.captures(),
            patterns: Arc::new(Patterns::new(&["*.*".to_owned()], &[]).unwrap()),
            handle: JournalHandle::spawn("sql", writer),
            status: status.clone(),
        };
        let running = tokio::spawn(run(source, commands, shutdown));
        Capture { journal, status, stop, running, _control: control }
    }

    /// Captures until the journal is as `enough` wants it; what it has then. Without `gently` the capture is cut off where it
    /// stands.
    async fn capture(&self, gently: bool, mut enough: impl FnMut(&[Row]) -> bool) -> Vec<Row> {
        let capture = self.start();
        let mut seals = capture.journal.watch();
        while !enough(&rows(&capture.journal)) {
            seals.changed().await.unwrap();
        }
        capture.end(gently).await
    }
}

struct Capture {
    journal: Journal,
    status: StatusCell,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    _control: mpsc::Sender<Control>,
}

impl Capture {
    async fn end(self, gently: bool) -> Vec<Row> {
        if gently {
            self.stop.send(true).unwrap();
        } else {
            self.running.abort();
        }
        let _ = self.running.await;
        rows(&self.journal)
    }

    async fn until(&self, wanted: impl Fn(&SourceStatus) -> bool) {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !wanted(&self.status.get()) {
            ticks.tick().await;
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    id: String,
    kind: String,
    text: String,
}

fn rows(journal: &Journal) -> Vec<Row> {
    let mut out = Vec::new();
    let mut reader = journal.reader(1).unwrap();
    while let Some(chunk) = reader.next(1 << 20).unwrap() {
        for change in chunk.changes() {
            let change: Change<'_> = change.unwrap();
            assert_eq!(change.op, Op::Insert);
            let values = change.after.unwrap().values().unwrap();
            let text = |name: &str| match &values[change.table.column_index(name).unwrap()] {
                Value::Text(text) => text.clone(),
                other => panic!("{name} is {other:?}"),
            };
            out.push(Row { id: text("id"), kind: text("kind"), text: text("text") });
        }
    }
    out
}

fn texts(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.text.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_written_while_capture_is_cut_off_again_and_again_are_rows_once() {
    const LIVES: usize = 10;
    const RECORDS: usize = 9_000;
    let place = Place::new();
    let mut pen = place.writer(1 << 20, 100_000);
    // Long enough that one block is more than one transaction of the journal.
    let filler = "x".repeat(300);
    let writer = std::thread::spawn(move || {
        for first in (0..RECORDS).step_by(3000) {
            pen.write(&block((first..first + 3000).map(|n| format!("select {n} /* {filler} */")))).unwrap();
        }
    });
    let mut seen = 0;
    for life in 0..LIVES {
        let most = RECORDS - 1;
        let wanted = (seen + 1).min(most);
        seen = place.capture(life % 3 == 2, |rows| rows.len() >= wanted).await.len().min(most);
    }
    writer.join().unwrap();
    let found = place.capture(true, |rows| rows.len() >= RECORDS).await;
    let wanted: Vec<String> = (0..RECORDS).map(|n| format!("select {n} /* {} */", "x".repeat(300))).collect();
    assert!(texts(&found) == wanted, "{} rows", found.len());
    let mut ids: Vec<&String> = found.iter().map(|row| &row.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), RECORDS);
}

#[tokio::test]
async fn a_torn_tail_is_waited_for_while_its_writer_lives_and_told_once_it_is_dead() {
    let place = Place::new();
    let mut pen = place.writer(1 << 20, 9);
    pen.write(&block(["select 1".to_owned()])).unwrap();
    let path = list(&place.captures()).unwrap().remove(0);
    let mut second = block(["select 2".to_owned()]);
    let mut whole = u32::try_from(second.len()).unwrap().to_le_bytes().to_vec();
    whole.extend_from_slice(&crc32c::crc32c(&second).to_le_bytes());
    whole.append(&mut second);
    let mut tail = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    tail.write_all(&whole[..20]).unwrap();
    let found = place.capture(true, |rows| !rows.is_empty()).await;
    assert_eq!(texts(&found), ["select 1"], "its writer may still write the rest");
    tail.write_all(&whole[20..]).unwrap();
    let found = place.capture(true, |rows| rows.len() >= 2).await;
    assert_eq!(texts(&found), ["select 1", "select 2"]);
    tail.write_all(&whole[..20]).unwrap();
    // The crash.
    drop(pen);
    let found = place.capture(true, |rows| rows.len() >= 3).await;
    assert_eq!(found[2].kind, "gap");
    assert!(found[2].text.contains("the last 20 bytes of sql-"), "{found:?}");
    // The next process has a file of its own, and the gap is told once.
    place.writer(1 << 20, 9).write(&block(["select 3".to_owned()])).unwrap();
    let found = place.capture(true, |rows| rows.len() >= 4).await;
    assert_eq!(texts(&found)[3], "select 3");
    assert_eq!(found.len(), 4);
}

#[tokio::test]
async fn files_that_rotate_away_unread_are_a_gap_that_is_a_row() {
    let place = Place::new();
    let mut pen = place.writer(1 << 20, 3);
    pen.write(&block(["select 'first'".to_owned()])).unwrap();
    let found = place.capture(true, |rows| rows.len() == 1).await;
    assert_eq!(found[0].kind, "query");
    // Each block fills a file.
    let filler = "x".repeat(1 << 20);
    for n in 0..6 {
        pen.write(&block([format!("select {n} /* {filler} */")])).unwrap();
    }
    let found = place.capture(true, |rows| rows.len() >= 5).await;
    let kinds: Vec<&str> = found.iter().map(|row| &*row.kind).collect();
    assert_eq!(kinds, ["query", "gap", "query", "query", "query"], "the last three files are there");
    assert!(found[1].text.contains("is gone, and was read up to byte"), "{}", found[1].text);
    assert!(found[1].text.contains("may have come and gone"), "{}", found[1].text);
    assert!(found[4].text.starts_with("select 5"));
    // What was read before it went is no gap.
    drop(pen);
    let mut pen = place.writer(1 << 20, 3);
    pen.write(&block(["select 'last'".to_owned()])).unwrap();
    let found = place.capture(true, |rows| rows.len() >= 6).await;
    let kinds: Vec<&str> = found[5..].iter().map(|row| &*row.kind).collect();
    assert_eq!(kinds, ["query"], "{found:?}");
}

#[tokio::test]
async fn a_folder_that_is_away_for_a_while_is_no_gap() {
    let place = Place::new();
    let mut pen = place.writer(1 << 20, 3);
    pen.write(&block(["select 1".to_owned()])).unwrap();
    place.capture(true, |rows| rows.len() == 1).await;
    let away = place.0.path().join("away");
    std::fs::rename(place.captures(), &away).unwrap();
    let capture = place.start();
    capture.until(|status| status.error.is_some()).await;
    // There and empty, as where a volume is not mounted.
    std::fs::create_dir(place.captures()).unwrap();
    capture.until(|status| status.error.is_none()).await;
    assert_eq!(capture.end(true).await.len(), 1);
    std::fs::remove_dir(place.captures()).unwrap();
    std::fs::rename(&away, place.captures()).unwrap();
    pen.write(&block(["select 2".to_owned()])).unwrap();
    let found = place.capture(true, |rows| rows.len() >= 2).await;
    assert_eq!(texts(&found), ["select 1", "select 2"]);
}
