//! How fast a journal is written and read: `cargo run --release -p journal --example throughput [directory] [rows]`.
//!
//! Prints MB/s by the wall clock, and rows per second of this thread's processor time.

use base::{Column, ColumnType, Generated, Op, Position, RowWriter, Step, Table, TableName, ValueRef};
use journal::{Batch, Options, RealDisk, open};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Rows of a transaction, and bytes after which a batch is appended and sealed.
const TXN_ROWS: u64 = 10;
const BATCH_BYTES: usize = 4 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(|| std::env::temp_dir().join("tidemill-throughput"), PathBuf::from);
    let rows: u64 = args.next().map_or(Ok(5_000_000), |a| a.parse())?;
    let (mut writer, journal) = open(Arc::new(RealDisk), &dir, Options::default())?;
    let table = Arc::new(table());
    let mut batch = Batch::new(writer.next_lsn());
    batch.commit(&Step::Full(Box::new(Position::Sqlite { change_id: 0 })));
    batch.schema(&table);
    let first = batch.next_lsn();
    let mut meter = Meter::start();
    for txn in 0..rows / TXN_ROWS {
        batch.begin("3e11fa47-71ca-11e1-9e33-c80aa9429562:12345", 1_700_000_000_000);
        for index in 0..TXN_ROWS {
            let mut image = RowWriter::new(batch.start_change(Op::Insert, 1, 1, false, true));
            image.put(ValueRef::Int((txn * TXN_ROWS + index) as i64));
            image.put(ValueRef::Text("a name of some forty characters, as usual"));
            image.put(ValueRef::Decimal("1234.50"));
            image.put(ValueRef::Timestamp(1_700_000_000_000_000));
            image.put(ValueRef::Text("a note that is a little longer than the name"));
            batch.finish_change();
        }
        batch.commit(&Step::Sqlite { change_id: txn as i64 });
        if batch.len_bytes() >= BATCH_BYTES {
            meter.bytes += batch.len_bytes();
            writer.append(batch)?;
            writer.seal()?;
            batch = Batch::reuse(writer.spare().unwrap_or_default(), writer.next_lsn());
        }
    }
    meter.bytes += batch.len_bytes();
    writer.append(batch)?;
    writer.seal()?;
    meter.print("append and seal", rows);
    let mut reader = journal.reader(first)?;
    let mut meter = Meter::start();
    let (mut seen, mut sum) = (0, 0usize);
    while let Some(chunk) = reader.next(1 << 20)? {
        meter.bytes += chunk.len_bytes();
        for change in chunk.changes() {
            sum += change?.after.map_or(0, |row| row.0.len());
            seen += 1;
        }
    }
    meter.print("scan", seen);
    println!("{} bytes of images in {} bytes on disk", sum, journal.bytes_on_disk());
    drop(writer);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn table() -> Table {
    let columns = ["id", "name", "price", "at", "note"].map(|name| Column {
        name: name.to_owned(),
        ty: ColumnType::Json,
        sql_type: "json".to_owned(),
        nullable: false,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    });
    let name = TableName::new("shop", "items");
    Table { id: 1, version: 1, name, columns: columns.to_vec(), key: vec![0], unique_keys: Vec::new() }
}

struct Meter {
    wall: Instant,
    processor_ns: u64,
    bytes: usize,
}

impl Meter {
    fn start() -> Self {
        Self { wall: Instant::now(), processor_ns: processor_ns(), bytes: 0 }
    }

    fn print(&self, what: &str, rows: u64) {
        let wall = self.wall.elapsed().as_secs_f64();
        let processor = (processor_ns() - self.processor_ns) as f64 / 1e9;
        println!(
            "{what}: {:.0} MB/s, {:.0} rows/s, {:.0} rows per processor second",
            self.bytes as f64 / 1e6 / wall,
            rows as f64 / wall,
            rows as f64 / processor
        );
    }
}

/// Processor time of this thread, where Linux tells it.
fn processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or_default()
}
