//! Why sessions keep a connection that others could use, counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every reason, as metrics and status name it. What is not in the list counts as the last.
pub const REASONS: [&str; 27] = [
    TRANSACTION,
    "next transaction's settings",
    WARNINGS,
    FOUND_ROWS,
    ASKED_BEFORE,
    CURSOR,
    LONG_DATA,
    "user variable",
    "temporary table",
    "named lock",
    "read lock",
    "locked tables",
    "prepared by text",
    "handler",
    "called procedure",
    "XA transaction",
    "several statements that set something",
    "setting that cannot be repeated",
    "setting under prepared statements",
    "database changed by text",
    "dropped database",
    "called function that may set something",
    "number of its connection",
    "sequence",
    "prepared statement that cannot be repeated",
    UNSEEN,
    OTHER,
];

pub const TRANSACTION: &str = "transaction";
pub const WARNINGS: &str = "warnings or error of the last statement";
pub const FOUND_ROWS: &str = "found rows";
pub const ASKED_BEFORE: &str = "asks about the statement before";
pub const CURSOR: &str = "open cursor";
pub const LONG_DATA: &str = "long data";
pub const UNSEEN: &str = "set by a trigger or routine";
pub const OTHER: &str = "statement that cannot be read";

/// Of one group.
#[derive(Debug, Default)]
pub struct Pins([Count; REASONS.len()]);

#[derive(Debug, Default)]
struct Count {
    total: AtomicU64,
    now: AtomicU64,
}

/// How often sessions kept a connection for a reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PinStatus {
    /// Since the start.
    pub total: u64,
    /// Sessions that do so now.
    pub now: u64,
}

impl Pins {
    /// A session keeps its connection, for another reason than before.
    pub fn change(&self, from: Option<&'static str>, to: Option<&'static str>) {
        if from == to {
            return;
        }
        if let Some(reason) = from {
            self.of(reason).now.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(reason) = to {
            self.of(reason).now.fetch_add(1, Ordering::Relaxed);
            self.of(reason).total.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn of(&self, reason: &str) -> &Count {
        let index = REASONS.iter().position(|known| *known == reason).unwrap_or(REASONS.len() - 1);
        &self.0[index]
    }

    /// Those that were met.
    pub fn status(&self) -> BTreeMap<&'static str, PinStatus> {
        let read = |count: &Count| PinStatus {
            total: count.total.load(Ordering::Relaxed),
            now: count.now.load(Ordering::Relaxed),
        };
        let all = REASONS.iter().zip(&self.0).map(|(reason, count)| (*reason, read(count)));
        all.filter(|(_, status)| status.total > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_counts_when_it_begins_and_no_more_when_it_ends() {
        let pins = Pins::default();
        pins.change(None, Some(TRANSACTION));
        pins.change(Some(TRANSACTION), Some(TRANSACTION));
        pins.change(Some(TRANSACTION), Some("temporary table"));
        pins.change(None, Some("a reason of tomorrow"));
        let status = pins.status();
        assert_eq!(status[TRANSACTION], PinStatus { total: 1, now: 0 });
        assert_eq!(status["temporary table"], PinStatus { total: 1, now: 1 });
        assert_eq!(status[OTHER], PinStatus { total: 1, now: 1 });
        assert_eq!(status.len(), 3);
    }
}
