//! Journals that earlier versions wrote are read as they were. `TIDEMILL_WRITE_FIXTURES=1` writes those of this version.

#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

mod support;

use base::{CapturePosition, Ddl, Op, Position, SnapshotProgress, Step, TableSnapshot, TopicPosition};
use journal::{Batch, Options, RealDisk, Writer, open, open_read_only};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{read_all, row, table};

fn folder(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

/// A bit of everything, over a few segments.
fn write_all(writer: &mut Writer) {
    let (v1, v2) = (table(1, 1), table(1, 2));
    let mut batch = Batch::new(1);
    let gtids = Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap());
    let position = Position::MySql { server: "s".into(), gtids, file: "binlog.000001".into(), pos: 4 };
    batch.commit(&Step::Full(Box::new(position)));
    batch.schema(&v1);
    batch.begin("", 1_700_000_000_000);
    batch.change(Op::Read, &v1, None, Some(&row(1, "read").0));
    let cursor = Some("[1]".to_owned());
    let progress =
        TableSnapshot { cursor, rows: 1, rows_estimated: 9, done: true, ..TableSnapshot::default() };
    batch.snapshot(&SnapshotProgress { tables: [("shop.t1".to_owned(), progress)].into_iter().collect() });
    batch.commit(&Step::Stay);
    batch.begin("3e11fa47-71ca-11e1-9e33-c80aa9429562:6", 1_700_000_001_000);
    batch.change(Op::Insert, &v1, None, Some(&row(2, "insert").0));
    batch.change(Op::Update, &v1, Some(&row(2, "insert").0), Some(&row(2, "update").0));
    batch.change(Op::Delete, &v1, Some(&row(2, "update").0), None);
    batch.truncate(&v1);
    let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:6".to_owned();
    let set: base::GtidSet = gtid.parse().unwrap();
    let (uuid, tag, intervals) = set.entries().next().unwrap();
    let gtid = base::Gtid { uuid: *uuid, tag: tag.to_owned(), number: intervals[0].0 };
    batch.commit(&Step::MySql { gtid: Some(gtid), file: Some("binlog.000002".into()), pos: 777 });
    batch.begin("ddl", 1_700_000_002_000);
    let sql = "alter table t1 add c2 varchar(40)".to_owned();
    batch.ddl(&Ddl { sql, before: Some(v1), after: Some(v2.clone()), column_renames: Vec::new() });
    batch.schema(&v2);
    batch.schema(&table(2, 1));
    batch.commit(&Step::MySql { gtid: None, file: None, pos: 888 });
    batch.drop_table(2);
    batch.epoch(2, "a test");
    batch.commit(&Step::Stay);
    writer.append(batch).unwrap();
    for txn in 0..60i64 {
        let mut batch = Batch::new(writer.next_lsn());
        batch.begin("more", 1_700_000_003_000 + txn);
        batch.change(Op::Insert, &v2, None, Some(&row(txn, "enough to fill a segment of four kibibytes").0));
        batch.commit(&Step::MySql { gtid: None, file: None, pos: 1000 + txn as u64 });
        writer.append(batch).unwrap();
    }
    let mut batch = Batch::new(writer.next_lsn());
    let topic = TopicPosition { id: Some("AAAB".into()), next: vec![7, 0] };
    let topics = [("shop.orders".to_owned(), topic)].into();
    batch.commit(&Step::Full(Box::new(Position::Kafka { topics })));
    batch.begin("shop.orders-1:4", 1_700_000_004_000);
    batch.change(Op::Insert, &v2, None, Some(&row(61, "from a topic").0));
    batch.commit(&Step::Kafka { topic: "shop.orders".into(), partition: 1, next: 5 });
    writer.append(batch).unwrap();
    let mut batch = Batch::new(writer.next_lsn());
    let recent = ["0a".to_owned()].into();
    batch.commit(&Step::Full(Box::new(Position::Push { requests: 4, recent })));
    for (id, digest) in [(62, None), (63, Some("0b".into()))] {
        batch.begin("shop:5", 1_700_000_005_000);
        batch.change(Op::Insert, &v2, None, Some(&row(id, "from a request").0));
        batch.commit(&Step::Push { digest });
    }
    writer.append(batch).unwrap();
    let mut batch = Batch::new(writer.next_lsn());
    let begun = CapturePosition { block: 8, ..CapturePosition::default() };
    let files = [("sql-1-1.capture".to_owned(), begun)].into();
    batch.commit(&Step::Full(Box::new(Position::Capture { files })));
    for (file, block, taken, done) in [("sql-1-1.capture", 300, 0, true), ("sql-2-1.capture", 8, 77, false)] {
        batch.begin("sql-1-1.capture:8", 1_700_000_006_000);
        batch.change(Op::Insert, &v2, None, Some(&row(64, "a statement").0));
        batch.commit(&Step::Capture { file: file.into(), to: CapturePosition { block, taken, done } });
    }
    writer.append(batch).unwrap();
    writer.seal().unwrap();
}

fn expected(dir: &Path) -> String {
    let journal = open_read_only(Arc::new(RealDisk), dir).unwrap();
    let mut text = read_all(&journal, 1, 4096).unwrap().join("\n");
    let state = journal.state();
    let position = state.position.unwrap();
    text.push_str(&format!("\nepoch {}, next {}\n", state.epoch, state.next_lsn));
    text.push_str(&format!("{:?} at {:?}\n", position.gtid_text(), position.file_pos()));
    if let Position::Kafka { topics } = &position {
        for (name, topic) in topics {
            text.push_str(&format!("{name} {:?} at {:?}\n", topic.id, topic.next));
        }
    }
    if let Position::Push { requests, recent } = &position {
        text.push_str(&format!("{requests} requests, {recent:?}\n"));
    }
    if let Position::Capture { files } = &position {
        text.push_str(&format!("{files:?}\n"));
    }
    for table in state.tables.values() {
        let columns: Vec<_> = table.columns.iter().map(|c| format!("{} {}", c.name, c.sql_type)).collect();
        text.push_str(&format!("{} {} v{}: {}\n", table.id, table.name, table.version, columns.join(", ")));
    }
    for (name, s) in &state.snapshot.tables {
        let done = s.done;
        text.push_str(&format!("{name}: {:?}, {} of {}, done: {done}\n", s.cursor, s.rows, s.rows_estimated));
    }
    text
}

#[test]
fn journals_of_every_format_version_read_as_they_were_written() {
    if std::env::var_os("TIDEMILL_WRITE_FIXTURES").is_some() {
        let dir = folder(journal::FORMAT_VERSION);
        let _ = fs::remove_dir_all(&dir);
        let options = Options { segment_bytes: 4096, identity: Some(7) };
        write_all(&mut open(Arc::new(RealDisk), &dir, options).unwrap().0);
        fs::remove_file(dir.join("lock")).unwrap();
        fs::write(dir.join("expected.txt"), expected(&dir)).unwrap();
    }
    for version in 1..=journal::FORMAT_VERSION {
        let dir = folder(version);
        assert_eq!(
            expected(&dir),
            fs::read_to_string(dir.join("expected.txt")).unwrap(),
            "version {version}"
        );
    }
}
