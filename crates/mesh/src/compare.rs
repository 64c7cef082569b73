//! Two servers' answers to the same statements, side by side: what differs, and what each took.

use crate::digests::{Histogram, text_of};
use mysql::sql::Modes;
use serde::Serialize;
use std::collections::HashMap;

/// Different statements that a table holds; those that come when it is full are compared together, under no text.
const COMPARED_MAX: usize = 2_000;

/// One server's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// 0 where there was none.
    pub error: u16,
    /// Or rows that were changed.
    pub rows: u64,
    /// Of the rows' contents, where it is known.
    #[serde(skip)]
    pub hash: Option<u64>,
    pub elapsed_us: u64,
}

/// How two answers differ; the first that is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// One is an error, or another error.
    Error,
    /// Another number of rows.
    Rows,
    /// As many rows, of other contents.
    Contents,
}

pub fn difference(before: Answer, after: Answer) -> Option<Difference> {
    if before.error != after.error {
        return Some(Difference::Error);
    }
    if before.rows != after.rows {
        return Some(Difference::Rows);
    }
    match (before.hash, after.hash) {
        (Some(one), Some(other)) if one != other => Some(Difference::Contents),
        _ => None,
    }
}

/// The latest pair of answers that differed.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    pub difference: Difference,
    pub before: Answer,
    pub after: Answer,
    /// With its literals, only where somebody asked for them.
    pub text: Option<String>,
}

#[derive(Debug)]
struct Entry {
    text: String,
    calls: u64,
    errors: u64,
    rows: u64,
    contents: u64,
    times: [(Histogram, u64); 2],
    example: Option<Example>,
}

/// Answers by statement.
#[derive(Debug, Default)]
pub struct Table(HashMap<u64, Entry>);

/// Times of one server, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// One statement of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    pub digest: String,
    /// With its literals left out.
    pub text: String,
    pub calls: u64,
    /// Answers of which one is an error, or another one.
    pub errors: u64,
    /// Answers with another number of rows.
    pub rows: u64,
    /// Answers with as many rows, of other contents.
    pub contents: u64,
    pub before: Times,
    pub after: Times,
    pub example: Option<Example>,
}

impl Compared {
    pub fn differences(&self) -> u64 {
        self.errors + self.rows + self.contents
    }
}

impl Table {
    /// Adds a pair of answers; `sql` is looked at when the digest is new, `shown` when they differ.
    pub fn add(
        &mut self,
        digest: u64,
        sql: &[u8],
        before: Answer,
        after: Answer,
        shown: bool,
    ) -> Option<Difference> {
        let known = self.0.len() < COMPARED_MAX || self.0.contains_key(&digest);
        let entry = self.0.entry(if known { digest } else { 0 }).or_insert_with(|| Entry {
            text: if known { text_of(sql, Modes::default()) } else { String::new() },
            calls: 0,
            errors: 0,
            rows: 0,
            contents: 0,
            times: [(Histogram::new(), 0), (Histogram::new(), 0)],
            example: None,
        });
        entry.calls += 1;
        for ((times, slowest), answer) in entry.times.iter_mut().zip([before, after]) {
            times.add(std::time::Duration::from_micros(answer.elapsed_us));
            *slowest = (*slowest).max(answer.elapsed_us);
        }
        let difference = difference(before, after)?;
        match difference {
            Difference::Error => entry.errors += 1,
            Difference::Rows => entry.rows += 1,
            Difference::Contents => entry.contents += 1,
        }
        let text = shown.then(|| String::from_utf8_lossy(sql).into_owned());
        entry.example = Some(Example { difference, before, after, text });
        Some(difference)
    }

    /// All statements: those with the most differences first, and of others those that became slower.
    pub fn list(&self) -> Vec<Compared> {
        let mut list: Vec<_> = self.0.iter().map(|(digest, entry)| compared(*digest, entry)).collect();
        let slower = |one: &Compared| one.after.p95_us.saturating_sub(one.before.p95_us) * one.calls;
        list.sort_by(|a, b| {
            b.differences()
                .cmp(&a.differences())
                .then_with(|| slower(b).cmp(&slower(a)))
                .then_with(|| a.text.cmp(&b.text))
        });
        list
    }
}

fn compared(digest: u64, entry: &Entry) -> Compared {
    let [before, after] = [0, 1].map(|index| {
        let (times, max_us) = &entry.times[index];
        Times {
            p50_us: times.quantile(0.5).min(*max_us),
            p95_us: times.quantile(0.95).min(*max_us),
            p99_us: times.quantile(0.99).min(*max_us),
            max_us: *max_us,
        }
    });
    Compared {
        digest: format!("{digest:016x}"),
        text: entry.text.clone(),
        calls: entry.calls,
        errors: entry.errors,
        rows: entry.rows,
        contents: entry.contents,
        before,
        after,
        example: entry.example.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(error: u16, rows: u64, hash: Option<u64>) -> Answer {
        Answer { error, rows, hash, elapsed_us: 100 }
    }

    #[test]
    fn the_first_thing_that_differs_is_told() {
        let one = answer(0, 2, Some(7));
        for (other, expected) in [
            (one, None),
            (answer(1064, 0, Some(0)), Some(Difference::Error)),
            (answer(0, 3, Some(7)), Some(Difference::Rows)),
            (answer(0, 2, Some(8)), Some(Difference::Contents)),
            (answer(0, 2, None), None),
        ] {
            assert_eq!(difference(one, other), expected);
        }
    }

    #[test]
    fn the_most_different_come_first_and_a_full_table_adds_up_the_rest() {
        let mut table = Table::default();
        let same = answer(0, 1, None);
        for digest in 1..=COMPARED_MAX as u64 + 9 {
            table.add(digest, b"select 'geheim'", same, same, false);
        }
        table.add(5, b"select 'geheim'", same, answer(1146, 0, None), false);
        let list = table.list();
        assert_eq!(list.len(), COMPARED_MAX + 1);
        assert_eq!((list[0].digest.as_str(), list[0].errors, list[0].calls), ("0000000000000005", 1, 2));
        assert_eq!(list[0].text, "SELECT ?");
        assert!(list[0].example.as_ref().is_some_and(|example| example.text.is_none()));
        assert_eq!(list.iter().find(|one| one.text.is_empty()).map(|one| one.calls), Some(9));
    }
}
