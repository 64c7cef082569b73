//! What rules have met: how often, and the latest statements, their literals left out.

use crate::slow::now_ms;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Different statements that a group's list holds, by rule and user; the oldest go.
const NOTED_MAX: usize = 1_000;
/// Of a statement's text in the list.
const TEXT_BYTES_MAX: usize = 1024;
/// A rule logs no more often.
const LOG_EVERY_MS: u64 = 10_000;

/// How often a rule was met. It lives on in the next plan under the same name.
#[derive(Debug, Default)]
pub struct Hits {
    count: AtomicU64,
    logged_ms: AtomicU64,
}

impl Hits {
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one that is not noted.
    pub fn pass(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one; whether it is to be logged.
    fn add(&self, now_ms: u64) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        let last = self.logged_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(last) >= LOG_EVERY_MS
            && self.logged_ms.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// A statement that a rule met.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Noted {
    /// The last time, in milliseconds since 1970.
    pub at_ms: u64,
    pub group: String,
    /// Of the rule or limit, or `allow_list`.
    pub rule: String,
    /// `deny` or `observe`.
    pub action: &'static str,
    pub reason: String,
    pub user: String,
    pub digest: String,
    /// With its literals left out; empty where that cannot be done for sure.
    pub text: String,
    /// How often it came, as long as it is in the list.
    pub count: u64,
}

/// What is to be noted.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    pub rule: &'a str,
    pub action: &'static str,
    pub reason: &'a str,
    pub user: &'a [u8],
    pub digest: u64,
    pub text: &'a str,
}

/// The list of a group.
#[derive(Debug, Default)]
pub struct Notes {
    group: String,
    list: Mutex<VecDeque<Noted>>,
}

impl Notes {
    pub fn new(group: &str) -> Self {
        Self { group: group.to_owned(), list: Mutex::default() }
    }

    pub fn add(&self, hits: &Hits, met: Met<'_>) {
        let at_ms = now_ms();
        let Met { rule, action, reason, user, digest, text } = met;
        let user = String::from_utf8_lossy(user);
        let digest = format!("{digest:016x}");
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        if hits.add(at_ms) {
            let group = &self.group;
            tracing::warn!(group, rule, action, reason, user = %user, digest, text, "a rule met a statement");
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        // What comes again is mostly what came last.
        let known = list.iter_mut().rev().find(|known| {
            known.digest == digest
                && known.rule == rule
                && known.user == user
                && known.text == text
                && known.action == action
        });
        if let Some(known) = known {
            known.at_ms = at_ms;
            known.count += 1;
            return;
        }
        if list.len() == NOTED_MAX {
            list.pop_front();
        }
        list.push_back(Noted {
            at_ms,
            group: self.group.clone(),
            rule: rule.to_owned(),
            action,
            reason: reason.to_owned(),
            user: user.into_owned(),
            digest,
            text: text.to_owned(),
            count: 1,
        });
    }

    pub fn list(&self) -> Vec<Noted> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_counted_and_the_list_has_an_end() {
        let (notes, hits) = (Notes::new("shop"), Hits::default());
        let met = |digest| Met {
            rule: "r",
            action: "deny",
            reason: "x",
            user: b"u",
            digest,
            text: "DELETE FROM `t`",
        };
        for digest in 0..NOTED_MAX as u64 + 5 {
            notes.add(&hits, met(digest));
            notes.add(&hits, met(digest));
        }
        let list = notes.list();
        assert_eq!((list.len(), list[0].count, hits.count()), (NOTED_MAX, 2, 2 * (NOTED_MAX as u64 + 5)));
        assert_eq!(list[0].digest, format!("{:016x}", 5));
    }
}
