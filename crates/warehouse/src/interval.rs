//! Intervals of time, as the business's clock on the wall counts them: a day is a day, also when it has 23 hours.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Intervals of one model; thirty years of hours.
pub const INTERVALS_MAX: usize = 262_980;

/// How long an interval is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    Hour,
    #[default]
    Day,
    Month,
}

/// From a moment on, before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    pub start: DateTime,
    pub end: DateTime,
}

impl Grain {
    /// The interval that holds a moment.
    pub fn around(self, moment: DateTime) -> Interval {
        let start = match self {
            Self::Hour => moment.date().at(moment.hour(), 0, 0, 0),
            Self::Day => moment.date().at(0, 0, 0, 0),
            Self::Month => moment.date().first_of_month().at(0, 0, 0, 0),
        };
        Interval { start, end: self.next(start) }
    }

    fn next(self, start: DateTime) -> DateTime {
        start.saturating_add(match self {
            Self::Hour => 1.hour(),
            Self::Day => 1.day(),
            Self::Month => 1.month(),
        })
    }

    /// So many intervals are replaced by one transaction where nobody says how many.
    pub fn batch(self) -> u32 {
        match self {
            Self::Hour => 168,
            Self::Day => 31,
            Self::Month => 12,
        }
    }
}

/// The intervals from the first day to `now` that are over, oldest first.
pub fn whole(grain: Grain, first: Date, now: DateTime) -> Vec<Interval> {
    let mut all = Vec::new();
    let mut interval = grain.around(first.at(0, 0, 0, 0));
    while interval.end <= now && all.len() < INTERVALS_MAX {
        all.push(interval);
        interval = Interval { start: interval.end, end: grain.next(interval.end) };
    }
    all
}

/// Of `all`, those that are not done, and with a `lookback` the newest and so many before it: their rows may have come late.
pub fn due(all: &[Interval], done: &BTreeSet<DateTime>, lookback: u32) -> Vec<Interval> {
    let again = if lookback == 0 { all.len() } else { all.len().saturating_sub(lookback as usize + 1) };
    let due = |(at, it): &(usize, &Interval)| *at >= again || !done.contains(&it.start);
    all.iter().enumerate().filter(due).map(|(_, it)| *it).collect()
}

/// Intervals that follow each other as one, at most `most` of them.
pub fn joined(intervals: &[Interval], most: u32) -> Vec<(Interval, Vec<Interval>)> {
    let mut groups: Vec<(Interval, Vec<Interval>)> = Vec::new();
    for interval in intervals {
        match groups.last_mut() {
            Some((whole, parts)) if whole.end == interval.start && parts.len() < most as usize => {
                whole.end = interval.end;
                parts.push(*interval);
            }
            _ => groups.push((*interval, vec![*interval])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn days(all: &[Interval]) -> Vec<i8> {
        all.iter().map(|it| it.start.day()).collect()
    }

    #[test]
    fn an_interval_is_computed_when_it_is_over() {
        let first = date(2026, 1, 1);
        let noon = date(2026, 1, 4).at(12, 0, 0, 0);
        let all = whole(Grain::Day, first, noon);
        assert_eq!(days(&all), [1, 2, 3]);
        assert_eq!(whole(Grain::Day, first, date(2026, 1, 4).at(0, 0, 0, 0)).len(), 3);
        assert_eq!(whole(Grain::Hour, first, date(2026, 1, 1).at(2, 30, 0, 0)).len(), 2);
        assert_eq!(whole(Grain::Month, date(2025, 11, 15), noon).len(), 2);
        assert!(whole(Grain::Day, date(2027, 1, 1), noon).is_empty());
    }

    #[test]
    fn what_is_missing_is_due_and_so_is_what_may_have_come_late() {
        let all = whole(Grain::Day, date(2026, 1, 1), date(2026, 1, 8).at(0, 0, 0, 0));
        let done: BTreeSet<DateTime> = [1, 2, 4, 5, 6].map(|day| date(2026, 1, day).at(0, 0, 0, 0)).into();
        assert_eq!(days(&due(&all, &done, 0)), [3, 7]);
        assert_eq!(days(&due(&all, &done, 2)), [3, 5, 6, 7]);
        let done: BTreeSet<DateTime> = all.iter().map(|it| it.start).collect();
        assert!(due(&all, &done, 0).is_empty());
        assert_eq!(days(&due(&all, &done, 2)), [5, 6, 7]);
        let groups = joined(&due(&all, &[3, 7].map(|day| date(2026, 1, day).at(0, 0, 0, 0)).into(), 0), 3);
        let spans: Vec<(i8, usize)> =
            groups.iter().map(|(whole, parts)| (whole.start.day(), parts.len())).collect();
        assert_eq!(spans, [(1, 2), (4, 3)]);
    }
}
