//! How fast and how long a source is read: rows a second, the time of day, the run's own time, and whoever stops it.

use crate::config::{CollectConfig, TIMEOUT_DEFAULT, Window};
use crate::error::CollectError;
use crate::reader::{Batch, Batches};
use base::Span;
use jiff::Zoned;
use jiff::tz::TimeZone;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub struct Pace {
    rows_per_second: Option<u64>,
    window: Option<Window>,
    zone: TimeZone,
    timeout: Duration,
    end: Instant,
    stop: watch::Receiver<bool>,
    began: Instant,
    rows: u64,
}

impl Pace {
    pub fn new(config: &CollectConfig, stop: watch::Receiver<bool>) -> Result<Self, CollectError> {
        let zone = match &config.timezone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                CollectError::refused(format!("`{name}` is not a time zone"), "for example Asia/Shanghai")
            })?,
        };
        let timeout = config.timeout.map_or(TIMEOUT_DEFAULT, |span| span.0);
        let began = Instant::now();
        let pace = Self {
            rows_per_second: config.rows_per_second,
            window: config.window,
            zone,
            timeout,
            // A time that the clock cannot hold is cut to ten years.
            end: began + timeout.min(Duration::from_secs(315_360_000)),
            stop,
            began,
            rows: 0,
        };
        pace.check()?;
        Ok(pace)
    }

    /// Whether the run may go on.
    pub fn check(&self) -> Result<(), CollectError> {
        if *self.stop.borrow() {
            return Err(stopped());
        }
        if Instant::now() >= self.end {
            return Err(self.late());
        }
        let Some(window) = self.window else { return Ok(()) };
        let now = Zoned::now().with_time_zone(self.zone.clone());
        let minute = now.hour() as u16 * 60 + now.minute() as u16;
        if window.contains(minute) {
            return Ok(());
        }
        Err(CollectError::Stopped {
            message: format!("the source may not be read at {}: its `window` is over", now.strftime("%H:%M")),
            hint: "run it within the window, or widen it".into(),
        })
    }

    /// The next rows, or why the run ends here.
    pub async fn next(&mut self, batches: &mut Batches) -> Result<Option<Batch>, CollectError> {
        self.wait().await?;
        self.check()?;
        let end = self.end;
        let batch = tokio::select! {
            batch = batches.next() => batch?,
            () = is_stopped(&mut self.stop) => return Err(stopped()),
            () = sleep_until(end) => return Err(self.late()),
        };
        self.rows += batch.as_ref().map_or(0, |it| (it.rows.len() + it.bad.len()) as u64);
        Ok(batch)
    }

    /// Waits until no more rows have been read than may be.
    async fn wait(&mut self) -> Result<(), CollectError> {
        let Some(most) = self.rows_per_second else { return Ok(()) };
        let due = self.began + Duration::from_secs_f64(self.rows as f64 / most as f64);
        tokio::select! {
            () = sleep_until(due.min(self.end)) => Ok(()),
            () = is_stopped(&mut self.stop) => Err(stopped()),
        }
    }

    fn late(&self) -> CollectError {
        CollectError::Stopped {
            message: format!("the run took longer than its `timeout` of {}", Span(self.timeout)),
            hint: "raise `timeout`, or read less".into(),
        }
    }
}

/// Comes back when someone stops the run; whoever went away without a word does not.
async fn is_stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn stopped() -> CollectError {
    CollectError::Stopped { message: "the run was stopped".into(), hint: String::new() }
}
