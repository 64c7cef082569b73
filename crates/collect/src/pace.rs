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
    /// When the next rows may be read.
    due: Instant,
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
            due: began,
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
        let (asked, end) = (Instant::now(), self.end);
        let batch = tokio::select! {
            batch = batches.next() => batch?,
            () = is_stopped(&mut self.stop) => return Err(stopped()),
            () = sleep_until(end) => return Err(self.late()),
        };
        let rows = batch.as_ref().map_or(0, |it| it.rows.len() + it.bad.len());
        if let Some(most) = self.rows_per_second {
            // Time in which nobody read is no credit for reading faster later.
            self.due = self.due.max(asked) + Duration::from_secs_f64(rows as f64 / most as f64);
        }
        Ok(batch)
    }

    /// Waits until no more rows have been read than may be.
    async fn wait(&mut self) -> Result<(), CollectError> {
        if self.rows_per_second.is_none() {
            return Ok(());
        }
        tokio::select! {
            () = sleep_until(self.due.min(self.end)) => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::batches;
    use base::Value;

    #[tokio::test]
    async fn idle_time_is_no_credit() {
        let text = "{from: s, mode: full, to: ods.a, rows_per_second: 1000}";
        let config: CollectConfig = serde_saphyr::from_str(text).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let mut pace = Pace::new(&config, stopped).unwrap();
        let (sender, mut batches) = batches();
        for _ in 0..2 {
            let rows = vec![vec![Value::Int(1)]; 50];
            assert!(sender.send(Batch { rows, bad: Vec::new() }).await);
        }
        // As if it had waited an hour for whoever writes.
        pace.due = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap_or(pace.due);
        let began = Instant::now();
        pace.next(&mut batches).await.unwrap();
        pace.next(&mut batches).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
    }
}
