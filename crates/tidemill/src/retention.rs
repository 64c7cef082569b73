//! How long a journal keeps changes: by age and by size, whole segments at a time.
//!
//! A segment that every flow has delivered goes when it is past the limits. One that a flow still needs is kept for as
//! long, or as much, again; the flow is named meanwhile, in the log, the metrics and the status. Age is measured from
//! the journal's newest commit or from now, whichever is earlier, and counts from the time a segment was complete or from
//! its last commit, whichever is later: one clock that jumps removes nothing, and neither does history that is replayed into
//! the source with its old times.

use crate::project::JournalConfig;
use catalog::Catalog;
use flow::deliver::status::FlowStatusCell;
use flow::mirror::Mirror;
use journal::{Journal, JournalError, Retention};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

pub const AGE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often the old end is looked at: a look costs one read of a few hundred bytes.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many times the limits a segment that a flow still needs may stay.
const GRACE: u32 = 2;

/// What a journal may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    age: Duration,
    bytes: Option<u64>,
}

impl Limits {
    pub fn new(config: &JournalConfig) -> Self {
        Self {
            age: config.retention.map_or(AGE_DEFAULT, |span| span.0),
            bytes: config.retention_bytes.map(|size| size.0),
        }
    }

    fn times(self, factor: u32, newest_ts_ms: i64, now_ms: i64) -> Retention {
        let age_ms = i64::try_from(self.age.saturating_mul(factor).as_millis()).unwrap_or(i64::MAX);
        Retention {
            bytes_max: self.bytes.map(|bytes| bytes.saturating_mul(u64::from(factor))),
            since_ts_ms: Some(now_ms.min(newest_ts_ms).saturating_sub(age_ms)),
        }
    }
}

/// Who reads a journal.
#[derive(Clone)]
pub enum Reader {
    Flow(FlowReader),
    Mirror(Mirror),
}

/// A flow that reads a journal.
#[derive(Clone)]
pub struct FlowReader {
    pub flow: String,
    pub status: FlowStatusCell,
    pub catalog: Catalog,
}

impl Reader {
    fn done(&self, identity: u64) -> u64 {
        match self {
            Self::Flow(flow) => flow.done(identity),
            Self::Mirror(mirror) => mirror.reached().lsn,
        }
    }

    /// Notes whether the journal is kept for this one alone. Answers whether it was before, and its name.
    fn holds(&self, holds: bool) -> (bool, String) {
        match self {
            Self::Flow(reader) => {
                let had = reader.status.get().holds_journal;
                reader.status.update(|s| s.holds_journal = holds);
                metrics::gauge!(base::metrics::HOLDS_JOURNAL, &reader.status.labels())
                    .set(f64::from(u8::from(holds)));
                (had, format!("flow {}", reader.flow))
            }
            Self::Mirror(mirror) => (mirror.holds_journal(holds), "the mirror".to_owned()),
        }
    }
}

impl FlowReader {
    /// The last change it no longer needs: delivered, and before every parked one, which is read again at a retry,
    /// and before where it shall begin again.
    fn done(&self, identity: u64) -> u64 {
        let parked = self.catalog.oldest_parked(&self.flow).ok().flatten();
        let restart = self.catalog.restart(&self.flow).ok().flatten();
        let restart = restart.filter(|(journal, _)| *journal == identity).map_or(0, |(_, lsn)| lsn - 1);
        let rewind = self.catalog.rewind(&self.flow).ok().flatten();
        let rewind = rewind.filter(|(journal, _)| *journal == identity).map_or(u64::MAX, |(_, lsn)| lsn - 1);
        parked.map_or(u64::MAX, |lsn| lsn - 1).min(self.status.get().lsn.max(restart)).min(rewind)
    }
}

/// Prunes until shutdown.
pub async fn run(
    source: String,
    journal: Journal,
    readers: Vec<Reader>,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = shutdown.changed() => return,
        }
        let (journal, readers, source) = (journal.clone(), readers.clone(), source.clone());
        let pruned =
            tokio::task::spawn_blocking(move || prune(&source, &journal, &readers, limits, now_ms()));
        match pruned.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = base::error::chain(&error), "failed to prune the journal")
            }
            Err(error) => tracing::warn!(%error, "failed to prune the journal"),
        }
    }
}

fn prune(
    source: &str,
    journal: &Journal,
    readers: &[Reader],
    limits: Limits,
    now_ms: i64,
) -> Result<(), JournalError> {
    let newest = journal.sealed().ts_ms;
    let (normal, grace) = (limits.times(1, newest, now_ms), limits.times(GRACE, newest, now_ms));
    let identity = journal.identity();
    let done = readers.iter().map(|reader| reader.done(identity)).min().unwrap_or(u64::MAX - 1);
    let mut removed = journal.prune(done + 1, normal)?;
    let held = journal.is_past(normal)?;
    for reader in readers {
        let done = reader.done(identity);
        let holds = held && journal.second_lsn().is_some_and(|second| done + 1 < second);
        let (held_before, name) = reader.holds(holds);
        if holds && !held_before {
            tracing::warn!(
                source,
                reader = name,
                lsn = done,
                "the journal is past its retention and is kept for this reader alone: at twice the limit it loses changes"
            );
        }
    }
    removed += journal.prune(u64::MAX, grace)?;
    metrics::gauge!(base::metrics::JOURNAL_BYTES, "source" => source.to_owned())
        .set(journal.bytes_on_disk() as f64);
    if removed > 0 {
        tracing::info!(source, segments = removed, first_lsn = journal.first_lsn(), "journal pruned");
    }
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Column, ColumnType, Generated, Op, Position, RowBuf, Step, Table, TableName, ValueRef};
    use journal::sim::SimDisk;
    use journal::{Batch, Options};
    use std::path::Path;
    use std::sync::Arc;

    const HOUR_MS: i64 = 3_600_000;

    /// A journal of some segments whose commits are a minute apart and end at `newest`, on a machine whose clock stands.
    fn journal(newest: i64, clock: i64) -> Journal {
        let column = Column {
            name: "v".into(),
            ty: ColumnType::Text { chars_max: 9000 },
            sql_type: "text".into(),
            nullable: false,
            charset: None,
            collation: None,
            generated: Generated::No,
            invisible: false,
        };
        let name = TableName::new("shop", "a");
        let table = Arc::new(Table {
            id: 1,
            version: 1,
            name,
            columns: vec![column],
            key: vec![],
            unique_keys: vec![],
        });
        let options = Options { segment_bytes: 4096, ..Options::default() };
        let disk = SimDisk::new(1);
        disk.set_now_ms(clock);
        let (mut writer, journal) = journal::open(Arc::new(disk), Path::new("/j"), options).unwrap();
        let row = RowBuf::from_values([ValueRef::Text(&"x".repeat(1000))]);
        for minute in 0..60 {
            let mut batch = Batch::new(writer.next_lsn());
            if minute == 0 {
                batch.schema(&table);
                batch.commit(&Step::Full(Box::new(Position::Sqlite { change_id: 0 })));
            }
            batch.begin("t", newest - (59 - minute) * 60_000);
            batch.change(Op::Insert, &table, None, Some(&row.0));
            batch.commit(&Step::Sqlite { change_id: minute });
            writer.append(batch).unwrap();
        }
        writer.seal().unwrap();
        journal
    }

    fn limits(hours: u64) -> Limits {
        Limits { age: Duration::from_secs(hours * 3600), bytes: None }
    }

    #[test]
    fn what_is_older_than_the_limit_goes_and_the_rest_stays() {
        let now = 1_800_000_000_000;
        let journal = journal(now, 0);
        prune("shop", &journal, &[], Limits { age: Duration::from_secs(600), bytes: None }, now).unwrap();
        assert!((45..=51).contains(&journal.first_lsn()), "{}", journal.first_lsn());
    }

    #[test]
    fn a_clock_that_jumps_removes_nothing() {
        let now = 1_800_000_000_000;
        let journal = journal(now, 0);
        for jumped in [now + 10_000 * HOUR_MS, now - 10_000 * HOUR_MS, 0, i64::MAX] {
            prune("shop", &journal, &[], limits(2), jumped).unwrap();
            assert_eq!(journal.first_lsn(), 1, "the clock says {jumped}");
        }
        // The source's clock was ahead when it wrote: its commits look younger than they are, and stay.
        let ahead = self::journal(now + 10_000 * HOUR_MS, 0);
        prune("shop", &ahead, &[], limits(2), now).unwrap();
        assert_eq!(ahead.first_lsn(), 1);
    }

    #[test]
    fn commits_that_say_they_are_old_are_as_young_as_the_segments_they_are_in() {
        let now = 1_800_000_000_000;
        let old = limits(1).times(1, now, now);
        let replayed = journal(now - 10_000 * HOUR_MS, now);
        assert_eq!(replayed.prune(u64::MAX, old).unwrap(), 0);
        // The same on a machine whose clock said the same as the commits.
        let past = journal(now - 10_000 * HOUR_MS, now - 10_000 * HOUR_MS);
        assert!(past.prune(u64::MAX, old).unwrap() > 0);
    }
}
