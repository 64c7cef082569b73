//! Which change is the last of all that a source has committed by now: how a client learns that its own write has arrived.

use super::shape::ShapeError;
use crate::capture::kafka::ticdc::{self, Clock};
use crate::config::{SourceConfig, SourceKind};
use crate::verify::Mark;
use crate::verify::origin::Origin;
use crate::verify::origin::database::Database;
use base::Position;
use journal::Journal;
use std::time::Duration;
use tokio::sync::Mutex;

/// Capture that does not come to the source's end in this time is behind, or stands still.
const REACH_MAX: Duration = Duration::from_secs(30);

/// Asks one source.
pub struct Marker {
    name: String,
    config: SourceConfig,
    /// One connection, kept; those who ask wait for each other.
    database: Mutex<Option<Database>>,
    clock: Mutex<Option<Clock>>,
}

impl Marker {
    pub fn new(name: String, config: SourceConfig) -> Self {
        Self { name, config, database: Mutex::new(None), clock: Mutex::new(None) }
    }

    /// The lsn behind which nothing is that was committed before now. Waits until the journal has it.
    pub async fn now(&self, journal: &Journal) -> Result<u64, ShapeError> {
        match self.config.kind {
            SourceKind::Mysql => match self.ask().await? {
                Mark::Server(mark) => self.reached(journal, |position| mark.reached_by(position)).await,
                _ => Ok(journal.sealed().lsn),
            },
            SourceKind::Kafka if self.config.tidb.is_some() => {
                let now = self.ask_tidb().await?;
                self.reached(journal, |position| ticdc::has_all_before(position, now)).await
            }
            // Answered when it is sealed.
            SourceKind::Http => Ok(journal.sealed().lsn),
            SourceKind::Sqlite | SourceKind::Kafka | SourceKind::Capture => Err(ShapeError {
                message: format!("source `{}` does not say what was committed by now", self.name),
                hint: "marks work for MySQL, MariaDB, and TiDB where the source names it in `tidb`, and for rows that are pushed".into(),
            }),
        }
    }

    /// Waits until the journal is where it is asked for.
    async fn reached(
        &self,
        journal: &Journal,
        is_reached: impl Fn(&Position) -> bool,
    ) -> Result<u64, ShapeError> {
        let mut seals = journal.watch();
        let reached = async {
            loop {
                seals.borrow_and_update();
                let state = journal.state();
                if state.position.as_ref().is_some_and(&is_reached) {
                    return Some(state.next_lsn - 1);
                }
                seals.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(REACH_MAX, reached).await {
            Ok(Some(lsn)) => Ok(lsn),
            _ => Err(ShapeError {
                message: format!(
                    "capture of source `{}` did not come to its end in {} s",
                    self.name,
                    REACH_MAX.as_secs()
                ),
                hint: "see its lag in `tidemill status`".into(),
            }),
        }
    }

    async fn ask(&self) -> Result<Mark, ShapeError> {
        let mut kept = self.database.lock().await;
        // One that was kept may have been closed meanwhile: a new one is asked then.
        if let Some(database) = kept.as_mut()
            && let Ok(mark) = database.mark().await
        {
            return Ok(mark);
        }
        *kept = None;
        let mut database = Database::connect(&self.config).await.map_err(|error| away(&error))?;
        let mark = database.mark().await.map_err(|error| away(&error))?;
        *kept = Some(database);
        Ok(mark)
    }
    async fn ask_tidb(&self) -> Result<u64, ShapeError> {
        let mut kept = self.clock.lock().await;
        if let Some(clock) = kept.as_mut()
            && let Ok(now) = clock.now().await
        {
            return Ok(now);
        }
        *kept = None;
        let clock = Clock::of(&self.config).map_err(|error| away(&error))?;
        let mut clock = clock.expect("only a source that names a TiDB is asked");
        let now = clock.now().await.map_err(|error| away(&error))?;
        *kept = Some(clock);
        Ok(now)
    }
}

fn away(error: &(dyn std::error::Error + 'static)) -> ShapeError {
    ShapeError { message: base::error::chain(error), hint: "is the source up? see `tidemill status`".into() }
}
