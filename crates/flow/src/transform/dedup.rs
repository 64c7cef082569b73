//! Leaves out rows that repeat another one.
//!
//! The rule: a row that is inserted or read goes on, unless the last one before it with its key came less than `window` before
//! it, by the times of their commits, and is among the last [`CHANGES_MAX`] changes of the source. Which of the two went on
//! plays no part. So the answer is a function of that many changes of the journal: whoever begins anywhere reads them first, and
//! answers as whoever came along that way.
//!
//! Why not "less than `window` after the one that went on": whether that one did depends on one before it, and so on back to the
//! beginning. And why a bound in changes: commit times may go back, so that no time says where to begin to read.

use base::{RowBuf, Span, TableName, ValueRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// How far the window reaches back at most, in changes of the source of any table. Of each that has a key some 100 bytes are
/// kept: 100 MB.
pub const CHANGES_MAX: u64 = 1_000_000;

/// Rows one after the other under `window: 10m`: the minute of their commits, their key, and whether they go on. A test runs it,
/// and the reference page is made of it.
pub const EXAMPLE: [(u32, &str, bool); 8] = [
    (0, "a", true),
    (9, "a", false),
    (9, "b", true),
    (18, "a", false),
    (28, "a", true),
    (5, "a", false),
    (16, "b", false),
    (24, "a", true),
];

/// Leaves out rows that repeat one that came shortly before. Only inserts, and rows that are read, go on: updates and deletes of the
/// flow's tables are left out, whatever the steps say of them. For tables that are only added to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupStep {
    /// The columns by which a row is known, as they are at this step. Texts are equal when their bytes are. A row with NULL in
    /// one of them goes on.
    pub key: Vec<String>,
    /// How long a row is remembered, counted anew from each repeat, by the times of the commits; 1 s at least. It reaches back 1,000,000
    /// changes of the source at most.
    #[schemars(with = "String")]
    pub window: Span,
}

/// A key and the table of the sink that it is of, in few bytes.
type Print = [u8; 16];

/// Rows that a `dedup` step left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Inserted or read, and repeating one that came shortly before.
    pub repeats: u64,
    /// Updates and deletes.
    pub changes: u64,
}

impl std::ops::AddAssign for LeftOut {
    fn add_assign(&mut self, other: Self) {
        self.repeats += other.repeats;
        self.changes += other.changes;
    }
}

/// A `dedup` step of a flow.
#[derive(Debug)]
pub struct Dedup {
    pub key: Vec<String>,
    window_ms: i64,
    /// `None` where every row goes on: for who does not read the journal in order.
    memory: Mutex<Option<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The change at hand.
    now: Seen,
    last: HashMap<Print, Seen>,
    /// What `last` holds, and what it held before, in order.
    order: VecDeque<(u64, Print)>,
    /// What came before these changes is gone from its table.
    emptied: HashMap<TableName, u64>,
    /// Since it was taken last.
    left_out: LeftOut,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    lsn: u64,
    ts_ms: i64,
}

impl Dedup {
    /// `Err` says what is wrong with the step.
    pub fn compile(step: &DedupStep) -> Result<Self, String> {
        let window_ms = i64::try_from(step.window.0.as_millis()).unwrap_or(i64::MAX);
        if step.key.is_empty() {
            return Err("`key` names no column".into());
        }
        if window_ms < 1000 {
            return Err("`window` is less than a second".into());
        }
        Ok(Self { key: step.key.clone(), window_ms, memory: Mutex::new(None) })
    }

    /// Remembers rows from now on: changes are told in the order of the journal, by `at`, each before its row is asked for.
    pub fn begin(&self) {
        self.with(|memory| *memory = Some(Memory::default()));
    }

    /// Which change comes next.
    pub fn at(&self, lsn: u64, ts_ms: i64) {
        self.with(|memory| {
            if let Some(memory) = memory {
                memory.now = Seen { lsn, ts_ms };
            }
        });
    }

    /// The change at hand is an update or a delete, which never goes on.
    pub fn leave_out(&self) {
        self.with(|memory| {
            if let Some(memory) = memory {
                memory.left_out.changes += 1;
            }
        });
    }

    /// What was left out since this was asked last.
    pub fn take_left_out(&self) -> LeftOut {
        self.with(|memory| {
            memory.as_mut().map(|memory| std::mem::take(&mut memory.left_out)).unwrap_or_default()
        })
    }

    /// The change at hand leaves nothing of a table of the sink.
    pub fn emptied(&self, table: &TableName) {
        self.with(|memory| {
            if let Some(memory) = memory {
                memory.emptied.insert(table.clone(), memory.now.lsn);
            }
        });
    }

    /// Whether a row with this key goes on.
    pub fn passes<'a>(&self, table: &TableName, key: impl Iterator<Item = ValueRef<'a>>) -> bool {
        let key: Vec<ValueRef<'a>> = key.collect();
        if key.iter().any(|value| matches!(value, ValueRef::Null)) {
            return true;
        }
        self.with(|memory| {
            memory.as_mut().is_none_or(|memory| memory.passes(table, print(table, key), self.window_ms))
        })
    }

    fn with<T>(&self, action: impl FnOnce(&mut Option<Memory>) -> T) -> T {
        action(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Memory {
    fn passes(&mut self, table: &TableName, print: Print, window_ms: i64) -> bool {
        let now = self.now;
        let reached = now.lsn.saturating_sub(CHANGES_MAX);
        while let Some((lsn, old)) = self.order.front().copied().filter(|(lsn, _)| *lsn <= reached) {
            self.order.pop_front();
            if self.last.get(&old).is_some_and(|seen| seen.lsn == lsn) {
                self.last.remove(&old);
            }
        }
        self.order.push_back((now.lsn, print));
        let Some(seen) = self.last.insert(print, now) else { return true };
        let is_gone = self.emptied.get(table).is_some_and(|emptied| seen.lsn <= *emptied);
        let passes = is_gone || now.ts_ms.saturating_sub(seen.ts_ms) >= window_ms;
        self.left_out.repeats += u64::from(!passes);
        passes
    }
}

fn print(table: &TableName, key: Vec<ValueRef<'_>>) -> Print {
    let mut hash = Sha256::new();
    for name in [&table.db, &table.table] {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.update(RowBuf::from_values(key).0);
    let mut out = Print::default();
    out.copy_from_slice(&hash.finalize()[..size_of::<Print>()]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn dedup(window: u64) -> Dedup {
        let window = Span(Duration::from_secs(window));
        Dedup::compile(&DedupStep { key: vec!["k".into()], window }).unwrap()
    }

    fn table() -> TableName {
        TableName::new("shop", "events")
    }

    fn passes(dedup: &Dedup, lsn: u64, ts: i64, key: &str) -> bool {
        dedup.at(lsn, ts * 1000);
        dedup.passes(&table(), [ValueRef::Text(key)].into_iter())
    }

    #[test]
    fn a_repeat_is_left_out_and_begins_the_window_anew() {
        let dedup = dedup(10);
        assert!(passes(&dedup, 1, 0, "a"), "nothing is remembered yet");
        dedup.begin();
        assert!(passes(&dedup, 1, 0, "a"));
        assert!(!passes(&dedup, 2, 9, "a"));
        assert!(!passes(&dedup, 3, 18, "a"), "nine seconds behind the repeat");
        assert!(passes(&dedup, 4, 18, "b"));
        assert!(passes(&dedup, 5, 28, "a"), "ten are the window");
        dedup.leave_out();
        assert_eq!(dedup.take_left_out(), LeftOut { repeats: 2, changes: 1 });
        assert_eq!(dedup.take_left_out(), LeftOut::default());
        assert!(!passes(&dedup, 6, 1, "a"), "a time that goes back is within it");
        dedup.at(7, 0);
        assert!(dedup.passes(&table(), [ValueRef::Null].into_iter()));
        assert!(dedup.passes(&table(), [ValueRef::Null].into_iter()), "NULL repeats nothing");
        assert!(dedup.passes(&TableName::new("shop", "b"), [ValueRef::Text("a")].into_iter()));
    }

    #[test]
    fn the_example_of_the_reference_is_so() {
        let dedup = dedup(600);
        dedup.begin();
        for (lsn, (minute, key, goes_on)) in (1..).zip(EXAMPLE) {
            assert_eq!(passes(&dedup, lsn, i64::from(minute) * 60, key), goes_on, "{lsn}");
        }
    }

    #[test]
    fn what_was_emptied_and_what_is_too_far_back_is_forgotten() {
        let dedup = dedup(10);
        dedup.begin();
        assert!(passes(&dedup, 1, 0, "a"));
        dedup.at(2, 0);
        dedup.emptied(&table());
        assert!(passes(&dedup, 3, 0, "a"));
        assert!(!passes(&dedup, 2 + CHANGES_MAX, 0, "a"));
        assert!(passes(&dedup, 2 + 2 * CHANGES_MAX, 0, "a"));
        dedup.with(|memory| {
            let memory = memory.as_ref().unwrap();
            assert_eq!((memory.last.len(), memory.order.len()), (1, 1));
        });
    }

    #[test]
    fn who_begins_anywhere_answers_as_who_came_along() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        // Times go forth and back, and some lsns are of other tables.
        let mut lsn = 0;
        let changes: Vec<(u64, i64, String)> = (0..3000)
            .map(|number| {
                lsn += 1 + next(3) * CHANGES_MAX / 600;
                (lsn, number / 4 + next(30) as i64, format!("k{}", next(40)))
            })
            .collect();
        let along = dedup(10);
        along.begin();
        let answers: Vec<bool> =
            changes.iter().map(|(lsn, ts, key)| passes(&along, *lsn, *ts, key)).collect();
        for begin in [1, 500, 1700, 2999] {
            let (from, again) = (changes[begin].0, dedup(10));
            again.begin();
            for (index, (lsn, ts, key)) in changes.iter().enumerate() {
                if lsn + CHANGES_MAX < from {
                    continue;
                }
                let answer = passes(&again, *lsn, *ts, key);
                assert!(index < begin || answer == answers[index], "change {lsn}, begun at {from}");
            }
        }
        assert!(answers.iter().filter(|passes| **passes).count() > 100);
        assert!(answers.iter().filter(|passes| !**passes).count() > 100);
    }
}
