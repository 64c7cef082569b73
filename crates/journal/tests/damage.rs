//! Broken bytes: found out wherever they change what a reader sees, and never a panic.

#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

mod support;

use base::{Code, Fault, Op, Position, Retry, Step};
use journal::sim::{Rng, SimDisk};
use journal::{Batch, JournalError, Options, State, open, open_read_only};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{read_all, row, table};

const DIR: &str = "/journal";
const FIRST: &str = "/journal/0000000001-00000000000000000001.journal";

type Files = Vec<(PathBuf, Vec<u8>)>;

/// A sealed journal of a few segments.
fn sealed_journal() -> (Files, Vec<String>, State) {
    let disk = SimDisk::new(1);
    let options = Options { segment_bytes: 4096, identity: Some(7) };
    let (mut writer, journal) = open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let table = table(1, 1);
    let mut batch = Batch::new(1);
    batch.commit(&Step::Full(Box::new(Position::Sqlite { change_id: 0 })));
    batch.schema(&table);
    for txn in 0..30i64 {
        batch.begin("a transaction", txn);
        for index in 0..3 {
            batch.change(Op::Update, &table, Some(&row(index, "before").0), Some(&row(index, "after").0));
        }
        batch.commit(&Step::Sqlite { change_id: txn });
        writer.append(batch).unwrap();
        writer.seal().unwrap();
        batch = Batch::new(writer.next_lsn());
    }
    let lines = read_all(&journal, 1, 4096).unwrap();
    let state = writer.state().clone();
    drop(writer);
    let files = disk.files();
    assert!(files.len() >= 2, "there is a segment before the last");
    (files, lines, state)
}

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(2);
    files.iter().for_each(|(path, bytes)| disk.put(path, bytes));
    disk
}

#[test]
fn each_flipped_byte_of_sealed_data_is_found_out_or_changes_nothing_visible() {
    let (files, lines, state) = sealed_journal();
    let mut rng = Rng::new(7);
    let mut harmless = 0;
    for (path, bytes) in &files {
        for offset in 0..bytes.len() {
            let disk = disk_of(&files);
            disk.flip(path, offset, 1 << rng.below(8));
            let damaged = disk.files();
            let at = format!("{}:{offset}", path.display());
            let result = open(Arc::new(disk.clone()), Path::new(DIR), Options::default())
                .and_then(|(writer, journal)| Ok((read_all(&journal, 1, 4096)?, writer.state().clone())));
            match result {
                Ok(seen) => {
                    assert_eq!(seen, (lines.clone(), state.clone()), "at {at}");
                    harmless += 1;
                }
                Err(JournalError::Corrupt { segment, .. }) => {
                    assert_eq!(&segment, path, "at {at}");
                    let sizes = |files: &Files| -> Vec<usize> { files.iter().map(|f| f.1.len()).collect() };
                    assert_eq!(
                        sizes(&disk.files())[..files.len()],
                        sizes(&damaged)[..],
                        "nothing is cut off"
                    );
                }
                Err(error) => panic!("at {at}: {error}"),
            }
        }
    }
    // Only the seal record at the very end may break unseen.
    assert_eq!(harmless, 33);
}

#[test]
fn a_full_disk_is_said_to_be_full_and_capture_goes_on_once_there_is_room() {
    let disk = SimDisk::new(5);
    let (mut writer, journal) = open(Arc::new(disk.clone()), Path::new(DIR), Options::default()).unwrap();
    let table = table(1, 1);
    let batch = |next_lsn| {
        let mut batch = Batch::new(next_lsn);
        batch.schema(&table);
        batch.begin("a", 1);
        batch.change(Op::Insert, &table, None, Some(&row(1, &"x".repeat(100)).0));
        batch.commit(&Step::Stay);
        batch
    };
    writer.append(batch(1)).unwrap();
    writer.seal().unwrap();
    let before = read_all(&journal, 1, 100).unwrap();
    disk.set_capacity(Some(journal.bytes_on_disk() + 100));
    let error = writer.append(batch(2)).unwrap_err();
    assert_eq!((error.code(), error.retry()), (Code::Exhausted, Retry::Backoff));
    assert!(error.hint().is_some_and(|h| h.contains("free space")), "{error}");
    assert_eq!(read_all(&journal, 1, 100).unwrap(), before, "reading goes on");
    writer.abort().unwrap();
    assert!(writer.append(batch(2)).is_err(), "it is still full");
    disk.set_capacity(None);
    writer.append(batch(2)).unwrap();
    assert_eq!(writer.seal().unwrap(), 2);
    assert_eq!(read_all(&journal, 1, 100).unwrap().len(), 2);
}

#[test]
fn after_a_failed_sync_the_writer_is_done_and_a_new_one_begins_at_what_was_sealed() {
    let disk = SimDisk::new(6);
    let (mut writer, _) = open(Arc::new(disk.clone()), Path::new(DIR), Options::default()).unwrap();
    let mut batch = Batch::new(1);
    batch.epoch(2, "sealed");
    batch.commit(&Step::Stay);
    writer.append(batch).unwrap();
    writer.seal().unwrap();
    let mut batch = Batch::new(1);
    batch.epoch(3, "lost");
    batch.commit(&Step::Stay);
    writer.append(batch).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(writer.seal(), Err(JournalError::Io { .. })));
    assert!(matches!(writer.seal(), Err(JournalError::Poisoned { .. })), "a sync is never tried again");
    assert!(matches!(writer.append(Batch::new(1)), Err(JournalError::Poisoned { .. })));
    drop(writer);
    let (writer, _) = open(Arc::new(disk), Path::new(DIR), Options::default()).unwrap();
    assert_eq!(writer.state().epoch, 2);
}

#[test]
fn damage_behind_which_nothing_was_sealed_is_a_torn_end() {
    let (files, lines, _) = sealed_journal();
    let disk = disk_of(&files);
    let (path, bytes) = files.last().unwrap();
    disk.put(path, &[&bytes[..], &[0; 700]].concat());
    let (_writer, journal) = open(Arc::new(disk), Path::new(DIR), Options::default()).unwrap();
    assert_eq!(read_all(&journal, 1, 4096).unwrap(), lines);
}

#[test]
fn a_missing_segment_is_found_out() {
    let (mut files, ..) = sealed_journal();
    if files.len() < 3 {
        files.push((PathBuf::from("/journal/0000000009-00000000000000000999.journal"), Vec::new()));
    }
    files.remove(1);
    let result = open(Arc::new(disk_of(&files)), Path::new(DIR), Options::default());
    assert!(matches!(result, Err(JournalError::Corrupt { .. })), "{result:?}");
}

/// Opens and reads whatever is there; the result does not matter, only that there is one.
fn survive(bytes: &[u8]) {
    let disk = SimDisk::new(3);
    disk.put(Path::new(FIRST), bytes);
    for _ in 0..2 {
        if let Ok(journal) = open_read_only(Arc::new(disk.clone()), Path::new(DIR)) {
            let _ = read_all(&journal, 1, 100);
        }
        if let Ok((_, journal)) = open(Arc::new(disk.clone()), Path::new(DIR), Options::default()) {
            let _ = read_all(&journal, 1, 100);
        }
        disk.end_process();
    }
}

/// The head of an empty journal, and its seal.
fn head() -> Vec<u8> {
    let disk = SimDisk::new(4);
    drop(open(Arc::new(disk.clone()), Path::new(DIR), Options::default()).unwrap());
    disk.files().into_iter().find(|f| f.0 == Path::new(FIRST)).unwrap().1
}

fn framed(kind: u8, lsn: u64, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![kind];
    payload.extend_from_slice(&lsn.to_le_bytes());
    payload.extend_from_slice(body);
    let len = (payload.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&len), &payload);
    [&len[..], &crc.to_le_bytes(), &payload].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        survive(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_head_never_panic(bytes: Vec<u8>) {
        survive(&[head(), bytes].concat());
    }

    #[test]
    fn well_framed_nonsense_never_panics(
        records in prop::collection::vec((0u8..11, 0u64..3, prop::collection::vec(0u8..8, 0..24)), 1..8)
    ) {
        let mut bytes = head();
        for (kind, lsn, body) in records {
            bytes.extend(framed(kind, lsn, &body));
        }
        survive(&bytes);
    }

    #[test]
    fn a_head_of_nonsense_never_panics(lsn: u64, body in prop::collection::vec(any::<u8>(), 0..80)) {
        survive(&framed(1, lsn, &[b"TIDEMILL\x01\x00", &body[..]].concat()));
    }
}
