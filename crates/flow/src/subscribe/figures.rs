//! What is counted of subscriptions, for `/metrics`.

use super::hub::Hub;
use super::wire::ResetReason;
use super::{CATCHING_UP, CAUGHT_UP, Subscriptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of one source, since the node started.
#[derive(Debug, Default)]
pub struct Stats {
    /// Changes of rows that were handed to transports.
    pub delivered: AtomicU64,
    /// Clients that did not read, and gave up their place among those that catch up.
    pub gave_up: AtomicU64,
    /// Windows that were read from the mirror again, since few spare rows were left.
    pub refills: AtomicU64,
    resets: [AtomicU64; ResetReason::ALL.len()],
}

impl Stats {
    pub(super) fn reset(&self, reason: ResetReason) {
        self.resets[reason as usize - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// Resets by reason.
    pub fn resets(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.resets.iter().map(|count| count.load(Ordering::Relaxed));
        ResetReason::ALL.iter().map(|reason| reason.name()).zip(counts)
    }
}

/// How clients of one source stand now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    pub open: u64,
    /// Those of them that read the journal or a mirror by themselves, or wait for their turn.
    pub catching_up: u64,
    /// Changes that the source has had since what the slowest client was sent, of those that have caught up.
    pub lag_changes: u64,
}

impl Subscriptions {
    pub fn clients(&self, hub: &Arc<Hub>) -> Clients {
        let end = hub.journal.sealed().lsn;
        let mut found = Clients::default();
        for subscription in self.lock().values().filter(|open| Arc::ptr_eq(&open.hub, hub)) {
            found.open += 1;
            match subscription.at.load(Ordering::Relaxed) {
                CATCHING_UP => found.catching_up += 1,
                CAUGHT_UP => {}
                at => found.lag_changes = found.lag_changes.max(end.saturating_sub(at)),
            }
        }
        found
    }
}
