//! Which change is the last of all that a source has committed by now: how a client learns that its own write has arrived.

use super::shape::ShapeError;
use crate::config::{SourceConfig, SourceKind};
use crate::verify::Mark;
use crate::verify::origin::Origin;
use crate::verify::origin::database::Database;
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
}

impl Marker {
    pub fn new(name: String, config: SourceConfig) -> Self {
        Self { name, config, database: Mutex::new(None) }
    }

    /// The lsn behind which nothing is that was committed before now. Waits until the journal has it.
    pub async fn now(&self, journal: &Journal) -> Result<u64, ShapeError> {
        match self.config.kind {
            SourceKind::Mysql => self.reached(journal).await,
            // Answered when it is sealed.
            SourceKind::Http => Ok(journal.sealed().lsn),
            SourceKind::Sqlite | SourceKind::Kafka | SourceKind::Capture => Err(ShapeError {
                message: format!("source `{}` does not say what was committed by now", self.name),
                hint: "marks work for MySQL and MariaDB, and for rows that are pushed".into(),
            }),
        }
    }

    async fn reached(&self, journal: &Journal) -> Result<u64, ShapeError> {
        let mark = self.ask().await?;
        let Mark::Server(mark) = mark else { return Ok(journal.sealed().lsn) };
        let mut seals = journal.watch();
        let reached = async {
            loop {
                seals.borrow_and_update();
                let state = journal.state();
                if state.position.as_ref().is_some_and(|position| mark.reached_by(position)) {
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
        let away = |error: &crate::verify::VerifyError| ShapeError {
            message: base::error::chain(error),
            hint: "is the source up? see `tidemill status`".into(),
        };
        let mut database = Database::connect(&self.config).await.map_err(|error| away(&error))?;
        let mark = database.mark().await.map_err(|error| away(&error))?;
        *kept = Some(database);
        Ok(mark)
    }
}
