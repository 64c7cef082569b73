//! The latest statements that took long, with their literals left out: what was slow, for whom, and where.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Statements that the list holds; the oldest go.
const SLOW_MAX: usize = 1_000;

/// One slow statement.
#[derive(Clone, Debug, Serialize)]
pub struct SlowStatement {
    /// When its answer had come, in milliseconds since 1970.
    pub at_ms: u64,
    pub group: String,
    pub user: String,
    /// The address that the client came from.
    pub client: String,
    pub database: String,
    /// The server that answered.
    pub server: String,
    pub elapsed_us: u64,
    pub rows: u64,
    pub bytes: u64,
    pub error: bool,
    pub digest: String,
    pub text: String,
}

/// The list.
#[derive(Debug)]
pub struct SlowList {
    pub over: Duration,
    list: Mutex<VecDeque<SlowStatement>>,
}

impl SlowList {
    pub fn new(over: Duration) -> Self {
        Self { over, list: Mutex::default() }
    }

    pub fn add(&self, statement: SlowStatement) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == SLOW_MAX {
            list.pop_front();
        }
        list.push_back(statement);
    }

    /// The newest first.
    pub fn list(&self) -> Vec<SlowStatement> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_the_newest_come_first() {
        let slow = SlowList::new(Duration::from_secs(1));
        for at_ms in 0..SLOW_MAX as u64 + 5 {
            slow.add(SlowStatement {
                at_ms,
                group: String::new(),
                user: String::new(),
                client: String::new(),
                database: String::new(),
                server: String::new(),
                elapsed_us: 0,
                rows: 0,
                bytes: 0,
                error: false,
                digest: String::new(),
                text: String::new(),
            });
        }
        let list = slow.list();
        assert_eq!((list.len(), list[0].at_ms, list[SLOW_MAX - 1].at_ms), (SLOW_MAX, SLOW_MAX as u64 + 4, 5));
    }
}
