//! How many sessions a group has, and each of its users: counted once a client has proven who it is, so that nobody takes up
//! another's room by its name alone.

use crate::config::GroupConfig;
use crate::error::SessionError;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The sessions of a group. There are no more users than sessions.
#[derive(Debug, Default)]
pub struct Admissions {
    taken: Mutex<Taken>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    sessions: usize,
    users: HashMap<Vec<u8>, usize>,
}

/// A session's place, until it is dropped.
#[derive(Debug)]
pub struct Admission {
    admissions: Arc<Admissions>,
    user: Vec<u8>,
}

impl Admissions {
    /// # Errors
    /// 1040 where the group has as many sessions as it may, 1226 where the user does.
    pub fn admit(
        self: &Arc<Self>,
        group: &str,
        config: &GroupConfig,
        user: &[u8],
    ) -> Result<Admission, SessionError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(max) = config.sessions_max.filter(|max| taken.sessions >= *max) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let reason =
                format!("Too many connections (tidemill: group `{group}` has `sessions_max: {max}`)");
            return Err(SessionError::Refused { number: 1040, state: *b"08004", reason });
        }
        self.take(&mut taken, config, user)?;
        taken.sessions += 1;
        Ok(Admission { admissions: self.clone(), user: user.to_vec() })
    }

    /// A place for a session that another process had let in.
    pub fn keep(self: &Arc<Self>, user: &[u8]) -> Admission {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.sessions += 1;
        *taken.users.entry(user.to_vec()).or_default() += 1;
        Admission { admissions: self.clone(), user: user.to_vec() }
    }

    fn take(&self, taken: &mut Taken, config: &GroupConfig, user: &[u8]) -> Result<(), SessionError> {
        let known = config.users.iter().find(|known| known.name.as_bytes() == user);
        let max = known.and_then(|known| known.sessions_max).or(config.user_sessions_max);
        let own = taken.users.get(user).copied().unwrap_or(0);
        if let Some(max) = max.filter(|max| own >= *max) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let name = String::from_utf8_lossy(user);
            let reason =
                format!("User '{name}' has exceeded the 'sessions_max' resource (current value: {max})");
            return Err(SessionError::Refused { number: 1226, state: *b"42000", reason });
        }
        taken.users.insert(user.to_vec(), own + 1);
        Ok(())
    }

    pub fn sessions(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).sessions
    }

    /// Clients that were one too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Admission {
    /// The session is another user's.
    ///
    /// # Errors
    /// 1226 where that one has as many as it may; then nothing has changed.
    pub fn change(&mut self, config: &GroupConfig, user: &[u8]) -> Result<(), SessionError> {
        if self.user != user {
            let mut taken = self.admissions.taken.lock().unwrap_or_else(PoisonError::into_inner);
            self.admissions.take(&mut taken, config, user)?;
            taken.leave(&self.user);
            self.user = user.to_vec();
        }
        Ok(())
    }
}

impl Taken {
    fn leave(&mut self, user: &[u8]) {
        match self.users.get_mut(user) {
            Some(count @ 2..) => *count -= 1,
            _ => {
                self.users.remove(user);
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut taken = self.admissions.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.sessions -= 1;
        taken.leave(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(result: Result<Admission, SessionError>) -> u16 {
        match result {
            Ok(_) => 0,
            Err(SessionError::Refused { number, .. }) => number,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_group_and_its_users_have_as_many_sessions_as_they_may() {
        let config: GroupConfig = serde_json::from_str(
            r#"{"backends": [], "auth": "vault", "sessions_max": 4, "user_sessions_max": 2,
                "users": [{"name": "many", "sessions_max": 3}, {"name": "none", "sessions_max": 0}]}"#,
        )
        .unwrap();
        let admissions = Arc::new(Admissions::default());
        let admit = |user: &str| admissions.admit("shop", &config, user.as_bytes());
        let (one, two) = (admit("few").unwrap(), admit("few").unwrap());
        assert_eq!(number(admit("few")), 1226);
        assert_eq!(number(admit("none")), 1226);
        drop(one);
        let three = admit("few").unwrap();
        let held: Vec<_> = (0..2).map(|_| admit("many").unwrap()).collect();
        assert_eq!((number(admit("many")), number(admit("other"))), (1040, 1040));
        drop((two, three));
        let mut last = admit("many").unwrap();
        assert_eq!(number(admit("many")), 1226);
        assert_eq!((admissions.sessions(), admissions.refused()), (3, 5));
        // Another user's name is another user's room; one's own is there already.
        assert!(last.change(&config, b"none").is_err() && last.change(&config, b"many").is_ok());
        last.change(&config, b"few").unwrap();
        assert_eq!(number(admit("many")), 0);
        drop((held, last));
        assert_eq!(admissions.sessions(), 0);
        assert!(admissions.taken.lock().unwrap().users.is_empty());
    }
}
