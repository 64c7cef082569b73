//! When something runs again and again: the five fields of cron, in a time zone.
//!
//! ```text
//! minute 0-59   hour 0-23   day of the month 1-31   month 1-12   day of the week 0-7, Sunday is 0 and 7
//! ```
//! A field is `*`, a number, a range `1-5`, a step `*/15` or `8-18/2`, or several of these with commas. Where both days are
//! given, either is enough, as in cron. A time that the clock skips in spring is as much later; one that comes twice in autumn
//! counts the first time.

use jiff::civil::{Date, Time};
use jiff::{ToSpan, Zoned};
use serde::{Deserialize, Deserializer};
use std::str::FromStr;

/// Days that are looked at for the next time: between two 29 February lie eight years at most.
const DAYS_MAX: i32 = 8 * 366 + 1;

/// Which values each field takes, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether both days are given.
    either_day: bool,
}

const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7)];

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: String| format!("`{text}` is no schedule: {why}");
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        if parts.len() != FIELDS.len() {
            return Err(wrong(format!("it has {} fields, and cron has five", parts.len())));
        }
        let mut fields = [0; FIELDS.len()];
        for ((bits, part), (name, min, max)) in fields.iter_mut().zip(&parts).zip(FIELDS) {
            let why = || {
                wrong(format!("its {name} `{part}` is no number from {min} to {max}, range, step or list"))
            };
            *bits = field(part, min, max).ok_or_else(why)?;
        }
        let [minutes, hours, days, months, mut weekdays] = fields;
        weekdays |= weekdays >> 7 & 1;
        let either_day = !parts[2].starts_with('*') && !parts[4].starts_with('*');
        let schedule = Self { minutes, hours, days, months, weekdays, either_day };
        // A leap year's day is met within the days that are looked at.
        let known = "2024-01-01T00:00[UTC]".parse().expect("a time");
        schedule.next(&known).ok_or_else(|| wrong("no month has such a day".to_owned()))?;
        Ok(schedule)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The values of a field as bits.
fn field(text: &str, min: u32, max: u32) -> Option<u64> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| digits && (min..=max).contains(number))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/10` is every ten from five on.
            None => (number(range)?, if step.is_some() { max } else { number(range)? }),
        };
        if from > to {
            return None;
        }
        bits |= (from..=to).step_by(step.unwrap_or(1)).fold(0, |bits, value| bits | 1u64 << value);
    }
    Some(bits)
}

impl Schedule {
    /// The first time behind `after`, in its time zone.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        let mut day = after.date();
        for _ in 0..DAYS_MAX {
            if self.is_on(day) {
                // The clock may be set forward or back between two of them.
                let times = self
                    .times()
                    .filter_map(|time| day.to_datetime(time).to_zoned(after.time_zone().clone()).ok());
                if let Some(next) = times.filter(|time| time > after).min() {
                    return Some(next);
                }
            }
            day = day.checked_add(1.day()).ok()?;
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let (day, weekday) =
            (has(self.days, date.day()), has(self.weekdays, date.weekday().to_sunday_zero_offset()));
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    fn times(&self) -> impl Iterator<Item = Time> {
        let (hours, minutes) = (self.hours, self.minutes);
        let of_day = (0..24i8).flat_map(|hour| (0..60i8).map(move |minute| (hour, minute)));
        let wanted =
            of_day.filter(move |(hour, minute)| hours >> hour & 1 == 1 && minutes >> minute & 1 == 1);
        wanted.map(|(hour, minute)| Time::constant(hour, minute, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next two times.
    fn next(schedule: &str, after: &str) -> [String; 2] {
        let schedule: Schedule = schedule.parse().unwrap();
        let first = schedule.next(&after.parse().unwrap()).unwrap();
        let second = schedule.next(&first).unwrap();
        [first, second].map(|time| time.strftime("%F %H:%M%:z").to_string())
    }

    #[test]
    fn the_next_time_is_the_first_that_every_field_takes() {
        let utc = "2026-01-30T23:50:00[UTC]";
        assert_eq!(next("0 4 * * *", utc), ["2026-01-31 04:00+00:00", "2026-02-01 04:00+00:00"]);
        assert_eq!(next("*/20 * * * *", utc), ["2026-01-31 00:00+00:00", "2026-01-31 00:20+00:00"]);
        assert_eq!(next("50 23 30 1 *", utc), ["2027-01-30 23:50+00:00", "2028-01-30 23:50+00:00"]);
        assert_eq!(next("0 12 29 2 *", utc), ["2028-02-29 12:00+00:00", "2032-02-29 12:00+00:00"]);
        assert_eq!(next("30 8-10/2,22 * * 1-5", utc), ["2026-02-02 08:30+00:00", "2026-02-02 10:30+00:00"]);
        // Either day is enough; the seventh day is Sunday.
        assert_eq!(next("0 0 15 * 7", utc), ["2026-02-01 00:00+00:00", "2026-02-08 00:00+00:00"]);
    }

    #[test]
    fn a_time_that_is_skipped_is_later_and_one_that_comes_twice_counts_once() {
        let spring = next("30 2 * * *", "2026-03-28T12:00:00[Europe/Berlin]");
        assert_eq!(spring, ["2026-03-29 03:30+02:00", "2026-03-30 02:30+02:00"]);
        let autumn = next("30 2 * * *", "2026-10-24T12:00:00[Europe/Berlin]");
        assert_eq!(autumn, ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]);
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        let told = |text: &str| text.parse::<Schedule>().unwrap_err();
        assert!(told("0 4 * *").contains("it has 4 fields"));
        for wrong in [
            "60 4 * * *",
            "0 24 * * *",
            "0 0 0 * *",
            "0 0 * 13 *",
            "0 0 * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "+5 * * * *",
            ", * * * *",
        ] {
            assert!(told(wrong).contains("is no number from"), "{wrong}");
        }
        assert!(told("0 0 31 2 *").contains("no month has such a day"));
    }
}
