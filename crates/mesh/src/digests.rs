//! How often each statement came, with its literals left out, and how long its answers took.
//!
//! Each thread has a table of its own, so that nobody waits for it; they are added up when somebody looks. A table has a
//! bound: statements that come when it is full are counted together, under no text.

use crate::config::GroupKind;
use mysql::sql::{Dialect, Modes, digest_text};
use serde::Serialize;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Different statements that a thread's table holds; 1.3 KiB each.
pub const DIGESTS_MAX: usize = 2_000;
/// Of a text; the servers' own tables keep as much.
const TEXT_BYTES_MAX: usize = 1024;

/// Steps of the histogram: four to each doubling, from 1 µs to over an hour.
const STEPS: usize = 4 * 32;

/// Times by their step, which is within a fifth of the truth.
#[derive(Clone, Debug)]
pub(crate) struct Histogram([u32; STEPS]);

impl Histogram {
    pub(crate) fn new() -> Self {
        Self([0; STEPS])
    }

    pub(crate) fn add(&mut self, elapsed: Duration) {
        let count = &mut self.0[step(elapsed)];
        *count = count.saturating_add(1);
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count = count.saturating_add(*more);
        }
    }

    /// The time, in microseconds, that `share` of all took at most.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let total: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let rank = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && seen > 0 {
                return upper_bound(index);
            }
        }
        0
    }
}

fn step(elapsed: Duration) -> usize {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
    let doublings = micros.ilog2();
    // The two bits below the highest.
    let fraction =
        if doublings >= 2 { (micros >> (doublings - 2)) & 3 } else { (micros << (2 - doublings)) & 3 };
    (doublings as usize * 4 + usize::try_from(fraction).unwrap_or(0)).min(STEPS - 1)
}

fn upper_bound(step: usize) -> u64 {
    let (doublings, fraction) = (step / 4, step as u64 % 4);
    ((1_u64 << doublings) * (5 + fraction)).div_ceil(4)
}

#[derive(Clone, Debug)]
struct Entry {
    text: Box<str>,
    group: usize,
    calls: u64,
    errors: u64,
    rows: u64,
    bytes: u64,
    replica: u64,
    total: Duration,
    slowest: Duration,
    times: Histogram,
}

impl Entry {
    fn new(group: usize, text: String) -> Self {
        let zero = Duration::ZERO;
        let text = text.into_boxed_str();
        Self {
            text,
            group,
            calls: 0,
            errors: 0,
            rows: 0,
            bytes: 0,
            replica: 0,
            total: zero,
            slowest: zero,
            times: Histogram::new(),
        }
    }

    fn add(&mut self, call: Call) {
        self.calls += 1;
        self.errors += u64::from(call.error);
        self.rows += call.rows;
        self.bytes += call.bytes;
        self.replica += u64::from(call.replica);
        self.total += call.elapsed;
        self.slowest = self.slowest.max(call.elapsed);
        self.times.add(call.elapsed);
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.replica += other.replica;
        self.total += other.total;
        self.slowest = self.slowest.max(other.slowest);
        self.times.merge(&other.times);
    }
}

/// What one answer cost.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub elapsed: Duration,
    pub rows: u64,
    /// Of the answer.
    pub bytes: u64,
    pub error: bool,
    pub replica: bool,
}

/// Digests are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry, BuildHasherDefault<AsItIs>>,
    /// What came when the table was full.
    others: Option<Box<Entry>>,
}

/// The groups that there have been since the start, each with a number of its own.
#[derive(Debug, Default)]
pub struct Names(Mutex<Vec<String>>);

impl Names {
    /// The number of a group, which it keeps.
    pub fn number(&self, group: &str) -> usize {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = names.iter().position(|known| known == group) {
            return number;
        }
        names.push(group.to_owned());
        names.len() - 1
    }

    fn name(&self, number: usize) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned().unwrap_or_default()
    }
}

/// The tables of all threads.
#[derive(Debug)]
pub struct Digests {
    tables: Vec<Mutex<Table>>,
    names: Arc<Names>,
}

/// One statement of the list.
#[derive(Clone, Debug, Serialize)]
pub struct DigestStatus {
    /// Of the text, in hexadecimal digits; 0 for those that found the table full.
    pub digest: String,
    pub group: String,
    /// With its literals left out, as MySQL's or TiDB's own tables have it.
    pub text: String,
    pub calls: u64,
    pub errors: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Calls that a replica answered.
    pub on_replica: u64,
    pub total_ms: u64,
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Digests {
    pub fn new(threads: usize, names: Arc<Names>) -> Self {
        Self { tables: (0..threads).map(|_| Mutex::default()).collect(), names }
    }

    /// Whether a statement's text need not be kept until its answer has come.
    pub fn knows(&self, thread: usize, group: usize, digest: u64) -> bool {
        let table = self.tables[thread].lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.contains_key(&key(group, digest)) || table.entries.len() >= DIGESTS_MAX
    }

    /// Takes the text of a statement that is to be executed later, under no text of its own.
    pub fn learn(
        &self,
        thread: usize,
        group: usize,
        digest: u64,
        sql: impl FnOnce() -> Option<(Vec<u8>, Modes)>,
    ) {
        let mut table = self.tables[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(group, digest);
        if table.entries.contains_key(&key) || table.entries.len() >= DIGESTS_MAX {
            return;
        }
        if let Some((sql, modes)) = sql() {
            table.entries.insert(key, Entry::new(group, text_of(&sql, modes)));
        }
    }

    /// Counts an answer; `sql` is looked at when its digest is new.
    pub fn add(
        &self,
        thread: usize,
        group: usize,
        digest: u64,
        sql: impl FnOnce() -> Option<(Vec<u8>, Modes)>,
        call: Call,
    ) {
        // Nobody else takes it, but for whoever looks at the list.
        let mut table = self.tables[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(group, digest);
        if let Some(entry) = table.entries.get_mut(&key) {
            entry.add(call);
            return;
        }
        if table.entries.len() >= DIGESTS_MAX {
            table.others.get_or_insert_with(|| Box::new(Entry::new(group, String::new()))).add(call);
            return;
        }
        let Some((sql, modes)) = sql() else { return };
        table.entries.entry(key).or_insert_with(|| Entry::new(group, text_of(&sql, modes))).add(call);
    }

    /// The text of a statement that has been counted, and its name in the list.
    pub fn named(&self, thread: usize, group: usize, digest: u64) -> (String, String) {
        let table = self.tables[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(group, digest);
        let text = table.entries.get(&key).map(|entry| entry.text.to_string()).unwrap_or_default();
        (format!("{digest:016x}"), text)
    }

    /// All statements of all threads, those that took the most time first.
    pub fn list(&self) -> Vec<DigestStatus> {
        let mut all: HashMap<u64, Entry> = HashMap::new();
        for table in &self.tables {
            let table = table.lock().unwrap_or_else(PoisonError::into_inner);
            let others = table.others.as_deref().map(|entry| (&0, entry));
            for (key, entry) in table.entries.iter().chain(others).filter(|(_, entry)| entry.calls > 0) {
                all.entry(*key).and_modify(|seen| seen.merge(entry)).or_insert_with(|| entry.clone());
            }
        }
        let mut list: Vec<_> = all.iter().map(|(key, entry)| self.status(*key, entry)).collect();
        list.sort_by(|a, b| {
            b.total_ms.cmp(&a.total_ms).then_with(|| b.calls.cmp(&a.calls)).then_with(|| a.text.cmp(&b.text))
        });
        list
    }

    fn status(&self, key: u64, entry: &Entry) -> DigestStatus {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let max_us = micros(entry.slowest);
        // The statement's own, without the group: as rules and `explain` have it.
        let digest = if key == 0 { 0 } else { self::key(entry.group, key) };
        DigestStatus {
            digest: format!("{digest:016x}"),
            group: self.names.name(entry.group),
            text: entry.text.to_string(),
            calls: entry.calls,
            errors: entry.errors,
            rows: entry.rows,
            bytes: entry.bytes,
            on_replica: entry.replica,
            total_ms: micros(entry.total) / 1000,
            p50_us: entry.times.quantile(0.5).min(max_us),
            p95_us: entry.times.quantile(0.95).min(max_us),
            p99_us: entry.times.quantile(0.99).min(max_us),
            max_us,
        }
    }
}

/// The same statement of two groups is two statements.
fn key(group: usize, digest: u64) -> u64 {
    digest ^ (group as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(crate) fn text_of(sql: &[u8], modes: Modes) -> String {
    let mut text = String::new();
    digest_text(sql, &mut text, modes);
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

/// The dialect that a group's statements are read in.
pub fn dialect(kind: GroupKind) -> Dialect {
    match kind {
        GroupKind::Mysql => Dialect::MySql,
        GroupKind::Tidb => Dialect::TiDb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(micros: u64) -> Call {
        Call { elapsed: Duration::from_micros(micros), rows: 1, bytes: 10, error: false, replica: false }
    }

    #[test]
    fn times_are_within_a_fifth_of_the_truth() {
        for micros in [1, 2, 3, 5, 7, 64, 100, 999, 12_345, 1_000_000, 3_000_000_000] {
            let bound = upper_bound(step(Duration::from_micros(micros)));
            assert!(bound >= micros && bound as f64 <= micros as f64 * 1.25 + 1.0, "{micros}: {bound}");
        }
    }

    #[test]
    fn the_same_statement_of_several_threads_is_one_and_of_two_groups_two() {
        let names = Arc::new(Names::default());
        assert_eq!((names.number("shop"), names.number("logs"), names.number("shop")), (0, 1, 0));
        let digests = Digests::new(2, names);
        let sql = || Some((b"select * from t where id = 7".to_vec(), Modes::default()));
        for (thread, group) in [(0, 0), (1, 0), (1, 1)] {
            for micros in 1..=100 {
                digests.add(thread, group, 42, sql, call(micros * 10));
            }
        }
        let list = digests.list();
        assert_eq!(list.len(), 2);
        let shop = list.iter().find(|digest| digest.group == "shop").unwrap();
        assert_eq!((shop.calls, shop.rows, shop.bytes), (200, 200, 2000));
        assert_eq!(shop.text, "SELECT * FROM `t` WHERE `id` = ?");
        assert!((400..=650).contains(&shop.p50_us) && (900..=1000).contains(&shop.p99_us), "{shop:?}");
        assert_eq!(shop.max_us, 1000);
    }

    #[test]
    fn a_full_table_counts_the_rest_together() {
        let digests = Digests::new(1, Arc::default());
        for digest in 0..DIGESTS_MAX as u64 + 5 {
            digests.add(0, 0, digest + 1, || Some((b"select 1".to_vec(), Modes::default())), call(5));
        }
        let list = digests.list();
        assert_eq!(list.len(), DIGESTS_MAX + 1);
        assert_eq!(list.iter().find(|digest| digest.text.is_empty()).map(|digest| digest.calls), Some(5));
    }
}
