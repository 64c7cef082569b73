//! A device of `tidemill demo live`: a task that keeps a copy of the shop's orders, and can be switched off at any moment.

use super::shop::{self, Row};
use crate::failure::Failure;
use client::v1::Shape;
use client::v1::subscribe_response::Event;
use client::{Copy, CopyError, Heard, Node, Subscription, Totals};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Longest that a device may take to come to now.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// How far a device is.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Whether it has come to now since it was switched on.
    pub is_live: bool,
    /// Rows or changes that brought it there.
    pub came: u64,
    /// Changes since it came to now.
    pub changes: u64,
    pub totals: Totals,
    /// The last change that its token covers.
    pub lsn: u64,
    /// When it stored the last ones.
    pub stored: Instant,
}

pub struct Device {
    node: Node,
    path: PathBuf,
    seen: watch::Sender<Seen>,
    task: Option<JoinHandle<Result<(), Failure>>>,
}

impl Device {
    pub fn new(url: &str, path: PathBuf) -> Result<Self, Failure> {
        let node = Node::new(url, None, None).map_err(|error| Failure::new(1, error.to_string()))?;
        let seen = Seen {
            is_live: false,
            came: 0,
            changes: 0,
            totals: Totals::default(),
            lsn: 0,
            stored: Instant::now(),
        };
        Ok(Self { node, path, seen: watch::channel(seen).0, task: None })
    }

    pub fn is_on(&self) -> bool {
        self.task.is_some()
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Follows from where its copy is; answers when that has come to now.
    pub async fn switch_on(&mut self) -> Result<Seen, Failure> {
        self.seen.send_modify(|seen| (seen.is_live, seen.came) = (false, 0));
        let (node, path, seen) = (self.node.clone(), self.path.clone(), self.seen.clone());
        self.task = Some(tokio::spawn(follow(node, path, seen)));
        tokio::time::timeout(CATCH_UP_MAX, self.until(|seen| seen.is_live))
            .await
            .map_err(|_| Failure::new(1, "a device did not come to now"))?
    }

    /// At once, whatever it is doing.
    pub fn switch_off(&mut self) -> Seen {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.seen()
    }

    /// Waits until it is as far.
    pub async fn until(&mut self, wanted: impl Fn(&Seen) -> bool) -> Result<Seen, Failure> {
        let mut seen = self.seen.subscribe();
        let Some(task) = &mut self.task else { return Err(Failure::new(1, "a device is off")) };
        tokio::select! {
            reached = seen.wait_for(wanted) => reached
                .map(|seen| *seen)
                .map_err(|_| Failure::new(1, "a device ended")),
            ended = task => match ended {
                Ok(Err(failure)) => Err(failure),
                _ => Err(Failure::new(1, "a device ended")),
            },
        }
    }

    /// The rows of its file, counted and hashed anew.
    pub fn counted(&self) -> rusqlite::Result<Totals> {
        Ok(shop::totals_of(rows_of(&self.path)?))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.switch_off();
    }
}

fn rows_of(path: &Path) -> rusqlite::Result<Vec<Row>> {
    let copy = Connection::open(path)?;
    copy.busy_timeout(Duration::from_secs(10))?;
    shop::rows_in_sqlite(&copy)
}

async fn follow(node: Node, path: PathBuf, seen: watch::Sender<Seen>) -> Result<(), Failure> {
    let failed = |error: CopyError| Failure::new(1, base::error::chain(&error));
    let shape = Shape { source: "shop".into(), table: "shop.orders".into(), ..Shape::default() };
    let mut copy = Copy::open(&path, &shape).map_err(failed)?;
    let mut subscription = Subscription::new(node, shape, copy.token().to_vec());
    loop {
        let response = match subscription.next().await {
            Ok(Heard::Response(response)) => response,
            Ok(Heard::Broken { .. }) => continue,
            Err(status) => return Err(Failure::new(1, status.message())),
        };
        match copy.apply(&response) {
            Ok(()) => copy.commit().map_err(failed)?,
            Err(CopyError::Differs { .. }) => subscription.rewind(Vec::new()),
            Err(error) => return Err(failed(error)),
        }
        seen.send_modify(|seen| {
            match &response.event {
                Some(Event::Batch(batch)) => {
                    let count = if seen.is_live { &mut seen.changes } else { &mut seen.came };
                    *count += batch.changes.len() as u64;
                }
                Some(Event::UpToDate(_)) => seen.is_live = true,
                _ => {}
            }
            (seen.totals, seen.lsn, seen.stored) = (copy.totals(), copy.lsn(), Instant::now());
        });
    }
}
