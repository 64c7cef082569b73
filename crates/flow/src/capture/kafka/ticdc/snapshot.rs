//! The tables of a TiDB as they were at one timestamp, into the journal before the first message: what the topics have is then
//! taken from that timestamp on.
//!
//! The offsets are noted before the timestamp is asked for, so that every later commit is behind them. Each chunk is sealed with
//! the key of its last row: a kill goes on there, at the same timestamp. Once TiDB has collected what was there then, the
//! snapshot begins again at a new one, with emptied tables.

use super::database::{Database, is_collected, millis_of};
use super::order::{sealed_before, set_sealed_before};
use crate::capture::kafka::plan::Topics;
use crate::capture::kafka::{KafkaSource, full};
use crate::capture::mysql::snapshot::{cursor_text, parse_cursor};
use crate::capture::status::{PositionStatus, SnapshotStatus};
use crate::capture::{CaptureError, CaptureErrorKind};
use base::{Op, Position, SnapshotProgress, Table, TableName, TableSnapshot};
use journal::{Batch, State};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes that a chunk aims at, so that wide rows come in smaller chunks.
const CHUNK_BYTES: u64 = 8 << 20;
const ROW_BYTES_MIN: u64 = 16;

/// Databases that are TiDB's own.
const OWN: [&str; 5] = ["mysql", "sys", "information_schema", "performance_schema", "metrics_schema"];

/// Notes the timestamp and the tables, as one commit with the offsets that the topics are read from.
pub async fn begin(
    source: &KafkaSource,
    database: &mut Database,
    state: &State,
    mut topics: Topics,
) -> Result<(), CaptureError> {
    let ts = database.now().await?;
    let wanted = |name: &TableName| {
        source.patterns.matches(name) && !OWN.contains(&name.db.to_ascii_lowercase().as_str())
    };
    let found = database.tables(ts, wanted).await?;
    let found_names: BTreeSet<String> = found.keys().map(ToString::to_string).collect();
    let mut batch = Batch::new(state.next_lsn);
    let mut progress = SnapshotProgress::default();
    let mut next_id = state.tables.values().map(|table| table.id + 1).max().unwrap_or(1);
    batch.begin("", millis_of(ts));
    for table in state.tables.values() {
        batch.truncate(table);
    }
    for (name, described) in found {
        let mut snapshot = TableSnapshot::default();
        match described {
            Ok(live) if !live.table.key.is_empty() => {
                let old = state.tables.values().find(|table| table.name == name);
                let (id, version) = old.map_or((next_id, 1), |old| (old.id, old.version + 1));
                next_id = next_id.max(id + 1);
                batch.schema(&Arc::new(Table { id, version, ..live.table }));
            }
            // TiCDC sends no rows of it.
            Ok(_) => {
                tracing::warn!(source = %source.name, table = %name, "a table without a key is left out");
                continue;
            }
            Err(reason) => snapshot.quarantined = Some(reason),
        }
        progress.tables.insert(name.to_string(), snapshot);
    }
    // A table that was there when it was last read, and is gone by now, is not waited for.
    for name in state.snapshot.tables.keys().filter(|name| !found_names.contains(*name)) {
        progress.tables.insert(name.clone(), TableSnapshot { done: true, ..TableSnapshot::default() });
    }
    batch.snapshot(&progress);
    set_sealed_before(&mut topics, ts + 1);
    batch.commit(&full(&topics));
    source.handle.append(batch).await?;
    source.handle.flush().await?;
    tracing::info!(source = %source.name, commit_ts = ts, tables = progress.tables.len(), "snapshot begins");
    Ok(())
}

/// Reads what the journal lacks of the snapshot. False where it was asked to stop.
pub async fn run(
    source: &KafkaSource,
    database: &mut Database,
    shutdown: &watch::Receiver<bool>,
) -> Result<bool, CaptureError> {
    loop {
        let state = source.handle.reset().await?;
        if state.snapshot.is_done() {
            return Ok(true);
        }
        let Some(Position::Kafka { topics }) = state.position.clone() else { return Ok(true) };
        match read(source, database, &state, &topics, shutdown).await {
            Err(error) if is_collected(&error) => {
                tracing::warn!(
                    source = %source.name,
                    error = base::error::chain(&error),
                    "TiDB no longer has what was there when the snapshot began: it begins again"
                );
                let state = source.handle.reset().await?;
                begin(source, database, &state, topics).await?;
            }
            Err(error) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
}

async fn read(
    source: &KafkaSource,
    database: &mut Database,
    state: &State,
    topics: &Topics,
    shutdown: &watch::Receiver<bool>,
) -> Result<bool, CaptureError> {
    let ts = sealed_before(topics).saturating_sub(1);
    let rows_max = source.config.options.snapshot_chunk_rows;
    let rows_max = u64::from(rows_max.unwrap_or(crate::capture::mysql::CHUNK_ROWS_DEFAULT));
    let mut progress = state.snapshot.clone();
    let mut next_lsn = state.next_lsn;
    let waiting = progress.tables.iter().filter(|(_, table)| !table.done && table.quarantined.is_none());
    let waiting: Vec<String> = waiting.map(|(name, _)| name.clone()).collect();
    for name in waiting {
        let Some(table) = state.tables.values().find(|table| table.name.to_string() == name) else {
            return Err(CaptureError::fatal(
                format!("the journal has no definition of `{name}`, whose snapshot it began"),
                "run `tidemill flow resnapshot`",
            ));
        };
        let mut row_bytes = ROW_BYTES_MIN;
        loop {
            if *shutdown.borrow() {
                return Ok(false);
            }
            let mut own = progress.tables.get(&name).cloned().unwrap_or_default();
            let cursor = own.cursor.as_deref().and_then(parse_cursor);
            let limit = rows_max.min(CHUNK_BYTES / row_bytes).max(1);
            let rows = database.chunk(ts, table, cursor.as_ref(), limit).await?;
            let bytes: usize = rows.iter().map(|row| row.0.len()).sum();
            row_bytes = ROW_BYTES_MIN.max((bytes / rows.len().max(1)) as u64);
            own.done = (rows.len() as u64) < limit;
            own.rows += rows.len() as u64;
            own.rows_estimated = own.rows;
            own.cursor = rows.last().filter(|_| !own.done).map(|row| cursor_text(table, row.view()));
            let mut batch = source.handle.batch(next_lsn);
            if !rows.is_empty() {
                batch.begin("", millis_of(ts));
            }
            for row in &rows {
                batch.change(Op::Read, table, None, Some(&row.0));
            }
            let done = own.done;
            let step = SnapshotProgress { tables: [(name.clone(), own.clone())].into() };
            progress.tables.insert(name.clone(), own);
            batch.snapshot(&step);
            batch.commit(&base::Step::Stay);
            next_lsn = batch.next_lsn();
            source.handle.append(batch).await?;
            metrics::counter!(base::metrics::SNAPSHOT_ROWS, "source" => source.name.to_string())
                .increment(rows.len() as u64);
            source.status.advance(|status| {
                status.state = "snapshot";
                status.snapshot = SnapshotStatus::of(&progress, progress.is_done());
                status.position = PositionStatus::of_topics(topics);
            });
            if done {
                break;
            }
        }
    }
    source.handle.flush().await?;
    Ok(true)
}

/// A changefeed that has sent nothing yet may begin behind the snapshot's timestamp: then what is between would be missing.
pub fn refuse_silence(topics: &Topics) -> Result<(), CaptureError> {
    let silent = topics.values().flat_map(|topic| &topic.next).all(|next| *next == 0);
    if !silent {
        return Ok(());
    }
    Err(CaptureError {
        message: "the topics have no message of TiCDC yet".into(),
        hint: Some("make the changefeed; the snapshot begins once it has sent its first watermark".into()),
        kind: CaptureErrorKind::Unavailable,
        cause: None,
    })
}
