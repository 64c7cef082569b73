//! Periods of the calendar: days, ISO weeks, months, quarters and years, and what came before them.

use base::value::{Date, date_of_days, days_of_date};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Years that a question may name; what lies before and behind them is calculated with, and stays a date.
const YEARS: std::ops::RangeInclusive<u16> = 1000..=9000;
/// Units of one span.
const SPAN_MAX: u32 = 1200;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    Day,
    /// From Monday to Sunday, numbered as ISO 8601 does.
    Week,
    Month,
    Quarter,
    Year,
}

impl Grain {
    pub const ALL: [Self; 5] = [Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether whole periods of this grain make up one of the other.
    pub fn makes(self, other: Self) -> bool {
        self == other || self == Self::Day || (self != Self::Week && other != Self::Week && self < other)
    }
}

/// One period. It begins with the first day of its grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    pub grain: Grain,
    /// Days since 1970-01-01.
    start: i64,
}

/// So many units back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub count: u32,
    pub unit: Grain,
}

impl Span {
    /// `7 days`, `1 month`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.trim().split_once(' ')?;
        let unit = Grain::named(unit.trim().trim_end_matches('s'))?;
        let count = count.parse().ok().filter(|count| (1..=SPAN_MAX).contains(count))?;
        Some(Self { count, unit })
    }

    /// The day so far before another one; the last day of a month where it has no such day.
    pub fn before(self, days: i64) -> i64 {
        let count = i64::from(self.count);
        match self.unit {
            Grain::Day => days - count,
            Grain::Week => days - count * 7,
            Grain::Month => months_on(days, -count),
            Grain::Quarter => months_on(days, -count * 3),
            Grain::Year => months_on(days, -count * 12),
        }
    }
}

fn months_on(days: i64, months: i64) -> i64 {
    let date = date_of_days(days);
    let month = i64::from(date.year) * 12 + i64::from(date.month) - 1 + months;
    let (year, month) = (month.div_euclid(12).clamp(1, 9999) as u16, (month.rem_euclid(12) + 1) as u8);
    days_of_date(Date { year, month, day: date.day.min(days_in(year, month)) })
}

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Monday is 0; 1970-01-01 was a Thursday.
fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

impl Period {
    pub fn containing(grain: Grain, days: i64) -> Self {
        let Date { year, month, .. } = date_of_days(days);
        let start = match grain {
            Grain::Day => days,
            Grain::Week => days - weekday(days),
            Grain::Month => days_of_date(Date { year, month, day: 1 }),
            Grain::Quarter => days_of_date(Date { year, month: (month - 1) / 3 * 3 + 1, day: 1 }),
            Grain::Year => days_of_date(Date { year, month: 1, day: 1 }),
        };
        Self { grain, start }
    }

    /// The first day.
    pub fn start(self) -> i64 {
        self.start
    }

    /// The day behind the last one.
    pub fn end(self) -> i64 {
        match self.grain {
            Grain::Day => self.start + 1,
            Grain::Week => self.start + 7,
            Grain::Month => months_on(self.start, 1),
            Grain::Quarter => months_on(self.start, 3),
            Grain::Year => months_on(self.start, 12),
        }
    }

    /// So many periods before this one.
    pub fn back(self, count: u32) -> Self {
        let start = Span { count, unit: self.grain }.before(self.start);
        Self { grain: self.grain, start }
    }

    pub fn previous(self) -> Self {
        self.back(1)
    }

    /// The period that holds the day that lies so far before this one's first day.
    pub fn offset(self, span: Span) -> Self {
        Self::containing(self.grain, span.before(self.start))
    }

    /// The same period a year earlier: the same date (the 28th for a 29th of February), the ISO week of the same number (the 52nd for
    /// a 53rd that the year before has not), the same month and quarter.
    pub fn last_year(self) -> Self {
        match self.grain {
            Grain::Week => {
                let (year, week) = self.iso_week();
                let first = Self::first_week(year - 1);
                let last = weeks_in(year - 1);
                Self { grain: Grain::Week, start: first + (week.min(last) - 1) * 7 }
            }
            _ => Self { grain: self.grain, start: months_on(self.start, -12) },
        }
    }

    /// Year and number by ISO 8601: the year is that of the week's Thursday.
    fn iso_week(self) -> (i64, i64) {
        let thursday = self.start + 3;
        let year = i64::from(date_of_days(thursday).year);
        (year, (self.start - Self::first_week(year)) / 7 + 1)
    }

    /// The Monday of the week that has the 4th of January.
    fn first_week(year: i64) -> i64 {
        let fourth = days_of_date(Date { year: year.clamp(0, 9999) as u16, month: 1, day: 4 });
        fourth - weekday(fourth)
    }

    /// Reads `2026-11-28`, `2026-W48`, `2026-11`, `2026-Q4` or `2026`. What it names must be a period of the grain, or a day in it.
    pub fn parse(text: &str, grain: Grain) -> Option<Self> {
        let named = Self::named(text)?;
        match named.grain {
            Grain::Day => Some(Self::containing(grain, named.start)),
            own if own == grain => Some(named),
            _ => None,
        }
    }

    /// Reads a period of any grain.
    pub fn named(text: &str) -> Option<Self> {
        if !text.is_ascii() || text.len() > 10 {
            return None;
        }
        let number = |text: &str, digits: usize| {
            let right = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
            right.then(|| text.parse::<u16>().ok()).flatten()
        };
        let (year, rest) = text.split_at_checked(4)?;
        let year = number(year, 4).filter(|year| YEARS.contains(year))?;
        let first = |month: u16| {
            let month = u8::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
            Some(days_of_date(Date { year, month, day: 1 }))
        };
        let of = |grain, start| Some(Self { grain, start });
        let Some(rest) = rest.strip_prefix('-') else {
            return rest.is_empty().then_some(Self { grain: Grain::Year, start: first(1)? });
        };
        if let Some(week) = rest.strip_prefix('W') {
            let week = i64::from(number(week, 2)?);
            let year = i64::from(year);
            let real = (1..=weeks_in(year)).contains(&week);
            return real.then(|| Self { grain: Grain::Week, start: Self::first_week(year) + (week - 1) * 7 });
        }
        if let Some(quarter) = rest.strip_prefix('Q') {
            let quarter = number(quarter, 1).filter(|it| (1..=4).contains(it))?;
            return of(Grain::Quarter, first(quarter * 3 - 2)?);
        }
        match rest.split_once('-') {
            None => of(Grain::Month, first(number(rest, 2)?)?),
            Some((month, day)) => {
                let start = first(number(month, 2)?)?;
                let day = number(day, 2)?;
                let real = (1..=u16::from(days_in(year, month.parse().ok()?))).contains(&day);
                real.then(|| Self { grain: Grain::Day, start: start + i64::from(day) - 1 })
            }
        }
    }
}

fn weeks_in(year: i64) -> i64 {
    (Period::first_week(year + 1) - Period::first_week(year)) / 7
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Date { year, month, .. } = date_of_days(self.start);
        match self.grain {
            Grain::Day => write!(f, "{}", date_of_days(self.start)),
            Grain::Week => {
                let (year, week) = self.iso_week();
                write!(f, "{year:04}-W{week:02}")
            }
            Grain::Month => write!(f, "{year:04}-{month:02}"),
            Grain::Quarter => write!(f, "{year:04}-Q{}", (month - 1) / 3 + 1),
            Grain::Year => write!(f, "{year:04}"),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Period {
        Period::named(text).unwrap()
    }

    #[test]
    fn periods_come_back_from_their_names() {
        for text in
            ["2026-11-28", "2024-02-29", "2026-W01", "2020-W53", "2026-W48", "2026-11", "2026-Q4", "2026"]
        {
            assert_eq!(at(text).to_string(), text);
        }
        for text in [
            "",
            "2026-",
            "2026-13",
            "2026-00",
            "2026-W54",
            "2025-W53",
            "2026-Q5",
            "2026-Q0",
            "2025-02-29",
            "2026-1-1",
            "26",
            "2026-11-28 ",
            "2026-11-31",
            "0999",
            "２０２６",
            "2026-11-28' or '1",
            "-2026",
            "+026",
        ] {
            assert_eq!(Period::named(text), None, "{text}");
        }
    }

    #[test]
    fn a_week_is_that_of_its_thursday() {
        for (day, week) in [
            ("2025-12-29", "2026-W01"),
            ("2026-01-01", "2026-W01"),
            ("2027-01-01", "2026-W53"),
            ("2027-01-03", "2026-W53"),
            ("2021-01-03", "2020-W53"),
            ("2024-12-31", "2025-W01"),
            ("2023-01-01", "2022-W52"),
        ] {
            assert_eq!(Period::parse(day, Grain::Week).unwrap().to_string(), week);
        }
    }

    #[test]
    fn a_year_earlier_is_the_same_period() {
        for (period, earlier) in [
            ("2024-02-29", "2023-02-28"),
            ("2025-02-28", "2024-02-28"),
            ("2026-11-30", "2025-11-30"),
            ("2020-W53", "2019-W52"),
            ("2021-W53", ""),
            ("2026-W53", "2025-W52"),
            ("2027-W52", "2026-W52"),
            ("2026-W01", "2025-W01"),
            ("2026-Q1", "2025-Q1"),
            ("2026-03", "2025-03"),
            ("2026", "2025"),
        ] {
            match Period::named(period) {
                Some(period) => assert_eq!(period.last_year().to_string(), earlier),
                None => assert_eq!(earlier, ""),
            }
        }
    }

    #[test]
    fn the_period_before_ends_where_this_one_begins() {
        for text in ["2024-03-01", "2026-01-01", "2026-W01", "2027-W01", "2026-01", "2026-Q1", "2026"] {
            let period = at(text);
            assert_eq!(period.previous().end(), period.start(), "{text}");
        }
        assert_eq!(at("2026-01").previous().to_string(), "2025-12");
        assert_eq!(at("2026-Q1").back(5).to_string(), "2024-Q4");
        assert_eq!(at("2027-W01").previous().to_string(), "2026-W53");
    }

    #[test]
    fn spans_end_at_the_end_of_shorter_months() {
        let month = Span::parse("1 month").unwrap();
        assert_eq!(at("2026-03-31").offset(month).to_string(), "2026-02-28");
        assert_eq!(at("2024-03-31").offset(month).to_string(), "2024-02-29");
        assert_eq!(Span::parse("7 days"), Some(Span { count: 7, unit: Grain::Day }));
        for text in ["", "0 days", "7", "days", "7 hours", "-1 day", "9999 years", "1  day x"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn weeks_make_no_months() {
        assert!(Grain::Day.makes(Grain::Week) && Grain::Month.makes(Grain::Year));
        assert!(!Grain::Week.makes(Grain::Month) && !Grain::Week.makes(Grain::Year));
        assert!(!Grain::Month.makes(Grain::Week) && !Grain::Year.makes(Grain::Month));
    }
}
