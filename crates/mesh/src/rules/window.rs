//! Hours of the day and days of the week, by the clock of a place.

use super::config::{Day, MatchConfig};
use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

/// When a rule holds.
#[derive(Clone, Debug)]
pub struct Window {
    zone: TimeZone,
    /// From, and until before; over midnight where the second is not later.
    hours: Option<(Time, Time)>,
    /// By their bit, Monday the lowest; all where there is none.
    days: u8,
}

impl Window {
    /// `None` where it holds at any time.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub fn new(matches: &MatchConfig) -> Result<Option<Self>, String> {
        if matches.hours.is_none() && matches.days.is_empty() {
            return match matches.timezone {
                Some(_) => Err("`timezone` without `hours` or `days`".into()),
                None => Ok(None),
            };
        }
        let zone = match &matches.timezone {
            Some(name) => {
                TimeZone::get(name).map_err(|_| format!("`{name}` is no time zone that this system knows"))?
            }
            None => TimeZone::system(),
        };
        let hours = matches
            .hours
            .as_deref()
            .map(|text| {
                hours(text).ok_or_else(|| format!("`{text}` is not from one time of the day to another"))
            })
            .transpose()?;
        let days = matches.days.iter().fold(0, |days, day| days | 1 << *day as u8);
        Ok(Some(Self { zone, hours, days }))
    }

    pub fn holds(&self, now: Timestamp) -> bool {
        let now = now.to_zoned(self.zone.clone());
        let mut day = now.weekday();
        if let Some((from, until)) = self.hours {
            let time = now.time();
            let is_in =
                if from < until { from <= time && time < until } else { from <= time || time < until };
            if !is_in {
                return false;
            }
            if from >= until && time < until {
                day = day.previous();
            }
        }
        self.days == 0 || self.days & 1 << number(day) != 0
    }
}

fn number(day: Weekday) -> u8 {
    let day = match day {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    };
    day as u8
}

/// `09:00-18:00`; until `24:00` is until midnight.
fn hours(text: &str) -> Option<(Time, Time)> {
    let (from, until) = text.split_once('-')?;
    let until = until.trim();
    let time = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let is_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(hour) || !is_digits(minute) {
            return None;
        }
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    Some((time(from.trim())?, if until == "24:00" { Time::midnight() } else { time(until)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(hours: &str, days: &[Day]) -> Window {
        let matches = MatchConfig {
            hours: (!hours.is_empty()).then(|| hours.to_owned()),
            days: days.iter().copied().collect(),
            timezone: Some("UTC".into()),
            ..MatchConfig::default()
        };
        Window::new(&matches).unwrap().unwrap()
    }

    #[test]
    fn hours_have_a_beginning_that_is_in_them_and_an_end_that_is_not() {
        let holds = |window: &Window, time: &str| window.holds(time.parse().unwrap());
        let day = window("09:00-18:00", &[]);
        // 2026-03-06 is a Friday.
        assert!(holds(&day, "2026-03-06T09:00:00Z") && holds(&day, "2026-03-06T17:59:59Z"));
        assert!(!holds(&day, "2026-03-06T08:59:59Z") && !holds(&day, "2026-03-06T18:00:00Z"));
        let night = window("22:00-06:00", &[Day::Fri]);
        assert!(holds(&night, "2026-03-06T22:00:00Z") && holds(&night, "2026-03-07T05:59:00Z"));
        assert!(!holds(&night, "2026-03-06T05:59:00Z") && !holds(&night, "2026-03-07T22:00:00Z"));
        let weekend = window("", &[Day::Sat, Day::Sun]);
        assert!(holds(&weekend, "2026-03-07T00:00:00Z") && !holds(&weekend, "2026-03-06T23:59:00Z"));
        assert!(holds(&window("18:00-24:00", &[]), "2026-03-06T23:59:00Z"));
    }

    #[test]
    fn what_is_no_time_is_told() {
        for hours in ["9-18", "09:00", "25:00-26:00", "09:00-18:60", "0900-1800", "+9:00-18:00"] {
            let matches = MatchConfig { hours: Some(hours.into()), ..MatchConfig::default() };
            assert!(Window::new(&matches).is_err(), "{hours}");
        }
        let nowhere = MatchConfig {
            days: [Day::Mon].into(),
            timezone: Some("Mars/Base".into()),
            ..MatchConfig::default()
        };
        assert!(Window::new(&nowhere).unwrap_err().contains("Mars/Base"));
        assert!(Window::new(&MatchConfig::default()).unwrap().is_none());
    }
}
