//! How often an interruption is logged: something that fails the same way every few seconds is told once a minute, and
//! its end once.

use std::time::{Duration, Instant};

/// Between two lines that say the same.
const REPEAT: Duration = Duration::from_secs(60);

/// The interruption that lasts, if there is one.
#[derive(Debug, Default)]
pub struct Interruptions {
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    message: String,
    at: Instant,
    /// How often it happened since.
    untold: u64,
}

impl Interruptions {
    /// Whether this one is to be logged, and how many it then stands for.
    pub fn meet(&mut self, message: &str, now: Instant) -> Option<u64> {
        let times = match &mut self.told {
            Some(told) if told.message == message => {
                told.untold += 1;
                if now.saturating_duration_since(told.at) < REPEAT {
                    return None;
                }
                told.untold
            }
            _ => 1,
        };
        self.told = Some(Told { message: message.to_owned(), at: now, untold: 0 });
        Some(times)
    }

    /// Work goes on: true when something had been told that is over now.
    pub fn end(&mut self) -> bool {
        self.told.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_interruption_is_told_once_a_minute_with_a_count() {
        let (mut log, start) = (Interruptions::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!log.end());
        assert_eq!(log.meet("refused", at(0)), Some(1));
        assert_eq!(log.meet("refused", at(10)), None);
        assert_eq!(log.meet("refused", at(59)), None);
        assert_eq!(log.meet("refused", at(60)), Some(3));
        assert_eq!(log.meet("broken pipe", at(61)), Some(1));
        assert!(log.end() && !log.end());
        assert_eq!(log.meet("broken pipe", at(62)), Some(1));
    }
}
