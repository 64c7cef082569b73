//! The journal on real files: what is written is read, across restarts, segments and processes' locks.

mod support;

use base::{Ddl, Op, Position, SnapshotProgress, Step, TableSnapshot};
use journal::sim::SimDisk;
use journal::{Batch, JournalError, Options, RealDisk, Retention, open, open_read_only};
use std::path::Path;
use std::sync::Arc;
use support::{read_all, row, table};

fn start() -> Step {
    Step::Full(Box::new(Position::MySql { server: "s".into(), gtids: None, file: "b.1".into(), pos: 4 }))
}

fn step(pos: u64) -> Step {
    Step::MySql { gtid: None, file: None, pos }
}

#[test]
fn every_kind_of_change_reads_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk);
    let (mut writer, journal) = open(disk.clone(), dir.path(), Options::default()).unwrap();
    let (v1, v2) = (table(1, 1), table(1, 2));
    let mut batch = Batch::new(writer.state().next_lsn);
    batch.commit(&start());
    batch.schema(&v1);
    batch.begin("", 100);
    batch.change(Op::Read, &v1, None, Some(&row(1, "a").0));
    let mut progress = SnapshotProgress::default();
    progress.tables.insert("shop.t1".into(), TableSnapshot { rows: 1, done: true, ..Default::default() });
    batch.snapshot(&progress);
    batch.commit(&Step::Stay);
    batch.begin("b.1:50", 200);
    batch.change(Op::Insert, &v1, None, Some(&row(2, "b").0));
    batch.change(Op::Update, &v1, Some(&row(2, "b").0), Some(&row(2, "c").0));
    batch.change(Op::Delete, &v1, Some(&row(2, "c").0), None);
    batch.truncate(&v1);
    batch.commit(&step(50));
    batch.begin("b.1:60", 300);
    let ddl = Ddl {
        sql: "alter table t1 add c2 text".into(),
        before: Some(v1),
        after: Some(v2.clone()),
        column_renames: Vec::new(),
    };
    batch.ddl(&ddl);
    batch.schema(&v2);
    batch.commit(&step(60));
    batch.epoch(2, "the server lost its binlogs");
    batch.begin("b.1:70", 400);
    batch.change(Op::Insert, &v2, None, Some(&row(3, "d").0));
    batch.commit(&step(70));
    assert!(batch.ends_sealed() && batch.next_lsn() == 8 && batch.changes() == 7);
    writer.append(batch).unwrap();
    assert_eq!(
        read_all(&journal, 1, 1 << 20).unwrap(),
        Vec::<String>::new(),
        "nothing is seen before the seal"
    );
    assert_eq!(writer.seal().unwrap(), 7);
    let seen = read_all(&journal, 1, 1 << 20).unwrap();
    assert_eq!(seen.len(), 7);
    assert!(seen[0].starts_with("1/1 read shop.t1:1v1 100 None None Some"), "{}", seen[0]);
    assert!(seen[1].contains("Some(\"b.1:50#0\")") && seen[4].contains("Some(\"b.1:50#3!\")"), "{seen:?}");
    assert!(seen[5].starts_with("1/6 ddl shop.t1:1v2 300 Some(\"b.1:60#0!\")"), "{}", seen[5]);
    assert!(seen[6].starts_with("2/7 insert shop.t1:1v2"), "{}", seen[6]);
    assert_eq!(read_all(&journal, 1, 1).unwrap(), seen, "one change a chunk tells the same");
    assert_eq!(read_all(&journal, 4, 1 << 20).unwrap(), seen[3..]);
    let state = writer.state().clone();
    assert_eq!((state.epoch, state.next_lsn, state.tables[&1].version), (2, 8, 2));
    assert_eq!(state.snapshot, progress);
    drop(writer);
    let offline = open_read_only(disk.clone(), dir.path()).unwrap();
    assert_eq!(read_all(&offline, 1, 1 << 20).unwrap(), seen);
    let (writer, journal) = open(disk, dir.path(), Options::default()).unwrap();
    assert_eq!(writer.state(), &state);
    assert_eq!(read_all(&journal, 1, 1 << 20).unwrap(), seen);
}

#[test]
fn a_second_writer_is_refused_and_a_missing_journal_is_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk);
    let missing = open_read_only(disk.clone(), &dir.path().join("no"));
    assert!(matches!(missing, Err(JournalError::NotFound { .. })), "{missing:?}");
    let first = open(disk.clone(), dir.path(), Options::default()).unwrap();
    let second = open(disk.clone(), dir.path(), Options::default());
    assert!(matches!(second, Err(JournalError::Locked { .. })), "{second:?}");
    drop(first);
    open(disk, dir.path(), Options::default()).unwrap();
}

#[test]
fn segments_roll_between_transactions_and_retention_removes_the_oldest() {
    // Its clock stands at 0, so that a segment is as old as its commits say.
    let disk = Arc::new(SimDisk::new(1));
    let options = Options { segment_bytes: 4096, identity: Some(7) };
    let (mut writer, journal) = open(disk, Path::new("/j"), options).unwrap();
    let table = table(1, 1);
    let mut batch = Batch::new(1);
    batch.commit(&start());
    batch.schema(&table);
    batch.commit(&Step::Stay);
    writer.append(batch).unwrap();
    let mut early = journal.reader(1).unwrap();
    for txn in 0..200u64 {
        let mut batch = Batch::reuse(writer.spare().unwrap_or_default(), writer.next_lsn());
        batch.begin("x", txn as i64);
        for index in 0..3 {
            batch.change(Op::Insert, &table, None, Some(&row(index, "some text that takes room").0));
        }
        batch.commit(&step(txn));
        writer.append(batch).unwrap();
        writer.seal().unwrap();
    }
    let all = read_all(&journal, 1, 1 << 16).unwrap();
    assert_eq!(all.len(), 600);
    assert_eq!(read_all(&journal, 333, 100).unwrap(), all[332..]);
    let before = journal.bytes_on_disk();
    assert_eq!(journal.prune(1, Retention { bytes_max: Some(0), since_ts_ms: None }).unwrap(), 0);
    assert!(early.next(1).unwrap().is_some());
    let removed = journal.prune(300, Retention { bytes_max: None, since_ts_ms: Some(50) }).unwrap();
    assert!(removed > 0 && journal.bytes_on_disk() < before);
    let first = journal.first_lsn();
    assert!(first > 1 && first <= 151, "{first}");
    assert!(matches!(journal.reader(1), Err(JournalError::Pruned { first_lsn, .. }) if first_lsn == first));
    assert_eq!(read_all(&journal, first, 1 << 16).unwrap(), all[first as usize - 1..]);
    while match early.next(1 << 20) {
        Ok(chunk) => chunk.is_some(),
        Err(error) => {
            assert!(matches!(error, JournalError::Pruned { .. }), "{error}");
            false
        }
    } {}
}

/// A journal of `count` changes in many small segments.
fn in_small_segments(
    dir: &std::path::Path,
    count: u64,
) -> Result<(journal::Writer, journal::Journal), JournalError> {
    let options = Options { segment_bytes: 4096, identity: Some(7) };
    let (mut writer, journal) = open(Arc::new(RealDisk), dir, options)?;
    let table = table(1, 1);
    let mut batch = Batch::new(1);
    batch.commit(&start());
    batch.schema(&table);
    batch.commit(&Step::Stay);
    writer.append(batch)?;
    for txn in 0..count {
        let mut batch = Batch::new(writer.next_lsn());
        batch.begin("x", txn as i64);
        batch.change(Op::Insert, &table, None, Some(&row(txn as i64, "some text that takes room").0));
        batch.commit(&step(txn));
        writer.append(batch)?;
        writer.seal()?;
    }
    Ok((writer, journal))
}

#[test]
fn a_reader_skips_ahead_within_a_segment_and_over_many() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, journal) = in_small_segments(dir.path(), 600).unwrap();
    let mut reader = journal.reader(1).unwrap();
    for lsn in [1, 2, 9, 10, 200, 201, 599, 600] {
        reader.skip_to(lsn).unwrap();
        let chunk = reader.next(1).unwrap().unwrap();
        assert_eq!(chunk.changes().next().unwrap().unwrap().lsn, lsn);
        reader.skip_to(1).unwrap();
        assert_eq!(reader.next_lsn(), lsn + 1);
    }
    assert!(reader.next(1).unwrap().is_none());
}

#[test]
fn another_process_opens_a_journal_while_retention_removes_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, journal) = in_small_segments(dir.path(), 3000).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut opened = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let other = open_read_only(Arc::new(RealDisk), dir.path()).unwrap();
                match read_all(&other, other.first_lsn(), 1 << 16) {
                    Ok(all) => assert_eq!(all.len() as u64, 3001 - other.first_lsn()),
                    Err(error) => assert!(matches!(error, JournalError::Pruned { .. }), "{error}"),
                }
                opened += 1;
            }
            opened
        });
        for keep in 1..=3000 {
            journal.prune(keep, Retention { bytes_max: Some(0), since_ts_ms: None }).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        looker.join().unwrap()
    });
    assert!(opened > 0);
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(Arc::new(RealDisk), dir.path(), Options::default()).unwrap();
    let table = table(1, 1);
    let mut batch = Batch::new(1);
    batch.commit(&start());
    batch.schema(&table);
    batch.begin("a", 1);
    batch.change(Op::Insert, &table, None, Some(&row(1, "kept").0));
    batch.commit(&step(10));
    batch.begin("b", 2);
    batch.change(Op::Insert, &table, None, Some(&row(2, "dropped").0));
    writer.append(batch).unwrap();
    assert_eq!(writer.next_lsn(), 3);
    writer.abort().unwrap();
    assert_eq!(writer.next_lsn(), 2);
    let mut batch = Batch::new(2);
    batch.begin("c", 3);
    batch.change(Op::Insert, &table, None, Some(&row(3, "first half").0));
    writer.append(batch).unwrap();
    assert_eq!(writer.seal().unwrap(), 1, "half a transaction is not seen");
    let mut batch = Batch::new(3);
    batch.change(Op::Insert, &table, None, Some(&row(4, "second half").0));
    batch.commit(&step(20));
    writer.append(batch).unwrap();
    assert_eq!(writer.seal().unwrap(), 3);
    let seen = read_all(&journal, 1, 1 << 20).unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen[1].contains("c#0\"") && seen[2].contains("c#1!"), "{seen:?}");
}

#[test]
fn a_batch_that_breaks_the_order_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(Arc::new(RealDisk), dir.path(), Options::default()).unwrap();
    let table = table(1, 1);
    let refused = |writer: &mut journal::Writer, batch| {
        let result = writer.append(batch);
        assert!(matches!(result, Err(JournalError::Misuse { .. })), "{result:?}");
    };
    let mut unknown_schema = Batch::new(1);
    unknown_schema.begin("a", 1);
    unknown_schema.change(Op::Insert, &table, None, Some(&row(1, "x").0));
    refused(&mut writer, unknown_schema);
    let mut no_position = Batch::new(1);
    no_position.commit(&step(5));
    refused(&mut writer, no_position);
    let mut wrong_lsn = Batch::new(7);
    wrong_lsn.commit(&Step::Stay);
    refused(&mut writer, wrong_lsn);
    let mut continues = Batch::new(1);
    continues.schema(&table);
    continues.change(Op::Insert, &table, None, Some(&row(1, "x").0));
    refused(&mut writer, continues);
    let mut old_epoch = Batch::new(1);
    old_epoch.epoch(1, "again");
    refused(&mut writer, old_epoch);
    assert_eq!(writer.seal().unwrap(), 0);
}

#[test]
fn readers_follow_a_writer_on_another_thread() {
    const TXNS: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, identity: Some(7) };
    let (mut writer, journal) = open(Arc::new(RealDisk), dir.path(), options).unwrap();
    let total = TXNS * 3;
    std::thread::scope(|scope| {
        for bytes_max in [1, 500, 1 << 20] {
            let journal = journal.clone();
            scope.spawn(move || {
                let mut reader = journal.reader(1).unwrap();
                let mut watch = journal.watch();
                let mut expected = 1;
                while expected <= total {
                    watch.mark_unchanged();
                    let Some(chunk) = reader.next(bytes_max).unwrap() else {
                        std::thread::yield_now();
                        continue;
                    };
                    for change in chunk.changes() {
                        let change = change.unwrap();
                        assert_eq!(change.lsn, expected);
                        let txn = change.txn.unwrap();
                        assert_eq!(txn.index, (expected - 1) % 3);
                        assert_eq!(txn.last, txn.index == 2);
                        expected += 1;
                    }
                    assert!(journal.sealed().lsn >= expected - 1, "nothing unsealed is read");
                }
                assert!(reader.next(bytes_max).unwrap().is_none());
            });
        }
        let table = table(1, 1);
        let mut batch = Batch::new(1);
        batch.commit(&start());
        batch.schema(&table);
        for txn in 0..TXNS {
            batch.begin("x", 1);
            for index in 0..3 {
                batch.change(Op::Insert, &table, None, Some(&row(index, "some text").0));
            }
            batch.commit(&step(txn));
            if txn % 20 == 19 {
                writer.append(batch).unwrap();
                writer.seal().unwrap();
                batch = Batch::reuse(writer.spare().unwrap(), writer.next_lsn());
            }
        }
    });
}
