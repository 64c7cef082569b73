//! `KILL`: clients know the numbers that the mesh gave their sessions, servers those of their own connections.
//!
//! A driver that cancels a statement opens another connection and kills the first by its number. So the number of a session
//! is changed to that of its connection at the server that the killer is connected to.

use super::{Head, Session};
use crate::config::{AuthMode, Role};
use crate::group::Group;
use crate::link::Link;
use mysql::protocol::{Command, HEADER_BYTES, error_packet, ok_packet, packet};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A connection: its server's address, and the server's number of it.
type Numbered = (String, u32);

/// Where a session can be found by those who want to kill it.
#[derive(Debug)]
pub struct Seat {
    /// Where its client is.
    pub client: SocketAddr,
    pub since: Instant,
    /// When its present command began, in microseconds after `since`; 0 between two commands.
    began_us: AtomicU64,
    who: Mutex<Who>,
    at: Mutex<At>,
    /// It gives its connections back, and may have none.
    pub shares: AtomicBool,
    killed: AtomicBool,
    woken: Notify,
    quiet: Notify,
}

#[derive(Debug, Default)]
struct Who {
    user: Vec<u8>,
    group: Option<Arc<Group>>,
}

#[derive(Debug, Default)]
struct At {
    /// Its connections, by role.
    links: [Option<Numbered>; 2],
    /// Kills of one of them that are on their way: until they are carried out it must be nobody else's.
    kills: usize,
}

/// How long a connection waits for kills of it that are on their way, before it is closed.
const KILLS_MAX: Duration = Duration::from_secs(5);

impl Seat {
    fn new(client: SocketAddr) -> Self {
        Self {
            client,
            since: Instant::now(),
            began_us: AtomicU64::new(0),
            who: Mutex::default(),
            at: Mutex::default(),
            shares: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            woken: Notify::new(),
            quiet: Notify::new(),
        }
    }

    /// A command begins.
    pub fn begin(&self) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.began_us.store(micros.max(1), Ordering::Relaxed);
    }

    /// Its answer has been sent.
    pub fn rest(&self) {
        self.began_us.store(0, Ordering::Relaxed);
    }

    /// For how long its present command has run; `None` between two.
    pub fn busy(&self) -> Option<Duration> {
        let began = self.began_us.load(Ordering::Relaxed);
        (began > 0).then(|| self.since.elapsed().saturating_sub(Duration::from_micros(began)))
    }

    /// The servers that it has connections to, the writer's first.
    pub fn servers(&self) -> Vec<String> {
        self.at().links.iter().flatten().map(|(address, _)| address.clone()).collect()
    }

    /// Its user and its group, which has neither before it has sat down.
    pub fn who(&self) -> (Vec<u8>, Option<Arc<Group>>) {
        let who = self.who.lock().unwrap_or_else(PoisonError::into_inner);
        (who.user.clone(), who.group.clone())
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session has a connection no more. Whether somebody else may have it.
    pub fn leave(&self, role: Role) -> bool {
        let mut at = self.at();
        at.links[role as usize] = None;
        at.kills == 0
    }

    /// Waits until no kill is on its way.
    pub async fn quiet(&self) {
        let waiting = async {
            loop {
                let mut quiet = pin!(self.quiet.notified());
                quiet.as_mut().enable();
                if self.at().kills == 0 {
                    return;
                }
                quiet.await;
            }
        };
        let _ = tokio::time::timeout(KILLS_MAX, waiting).await;
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Waits until somebody has killed the session.
    pub async fn end(&self) {
        while !self.is_killed() {
            self.woken.notified().await;
        }
    }

    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    pub fn set_user(&self, user: &[u8]) {
        self.who.lock().unwrap_or_else(PoisonError::into_inner).user = user.to_vec();
    }

    pub fn set_group(&self, group: &Arc<Group>) {
        self.who.lock().unwrap_or_else(PoisonError::into_inner).group = Some(group.clone());
    }

    fn is_of(&self, user: &[u8]) -> bool {
        self.who.lock().unwrap_or_else(PoisonError::into_inner).user == user
    }
}

/// A kill on its way.
#[derive(Debug)]
pub struct Killing {
    seat: Arc<Seat>,
    /// The session is to end, not only its statement.
    ends: bool,
}

impl Killing {
    /// The server has done it.
    pub fn done(self) {
        if self.ends && self.seat.shares.load(Ordering::Relaxed) {
            self.seat.kill();
        }
    }
}

impl Drop for Killing {
    fn drop(&mut self) {
        self.seat.at().kills -= 1;
        self.seat.quiet.notify_waiters();
    }
}

/// The sessions by their numbers.
#[derive(Debug, Default)]
pub struct Connections(Mutex<HashMap<u32, Arc<Seat>>>);

impl Connections {
    pub fn enter(&self, session: u32, client: SocketAddr) -> Arc<Seat> {
        let seat = Arc::new(Seat::new(client));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(session, seat.clone());
        seat
    }

    fn forget(&self, session: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }

    /// All of them, in the order of their numbers.
    pub fn list(&self) -> Vec<(u32, Arc<Seat>)> {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = seats.iter().map(|(session, seat)| (*session, seat.clone())).collect();
        drop(seats);
        list.sort_by_key(|(session, _)| *session);
        list
    }

    pub fn seat(&self, session: u32) -> Option<Arc<Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()
    }

    /// The number of a session's connection at `address`; the writer's, of two. The session keeps it until the kill is over.
    pub fn at(&self, session: u32, address: &str, ends: bool) -> Option<(u32, Killing)> {
        let seat = self.seat(session)?;
        let mut at = seat.at();
        let (_, number) = at.links.iter().flatten().find(|(known, _)| known == address)?;
        let number = *number;
        at.kills += 1;
        drop(at);
        Some((number, Killing { seat, ends }))
    }
}

impl Session {
    /// Takes a connection for a role.
    pub(super) fn adopt(&mut self, role: Role, link: Link) {
        self.links[role as usize] = Some(link);
        self.note_connection(role);
    }

    /// The connection of a role is another one.
    pub(super) fn note_connection(&self, role: Role) {
        if let Some(link) = &self.links[role as usize] {
            let numbered = (link.backend().address.clone(), link.connection_id);
            self.seat.at().links[role as usize] = Some(numbered);
        }
    }

    pub(super) fn forget_connections(&self) {
        self.shared.connections.forget(self.identity.id);
    }

    /// Whom a `KILL` is for, and whether it ends more than a statement.
    fn victim(&self, head: Head) -> Option<(u32, bool)> {
        if head.command == Command::ProcessKill {
            let bytes = self.client.held().get(HEADER_BYTES + 1..HEADER_BYTES + 5)?;
            return Some((u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), true));
        }
        let (before, session) = self.text(head).and_then(killed)?;
        let words = before.split(|byte| !byte.is_ascii_alphanumeric());
        Some((session, !words.into_iter().any(|word| word.eq_ignore_ascii_case(b"query"))))
    }

    /// The answer to a `KILL` of a session that shares connections and has none now, or that this client may not kill;
    /// `None` where the server has to answer.
    pub(super) fn kill_idle(&self, head: Head) -> Option<Vec<u8>> {
        let (session, ends) = self.victim(head)?;
        let seat = self.shared.connections.seat(session)?;
        if !seat.shares.load(Ordering::Relaxed) {
            return None;
        }
        let idle = seat.at().links.iter().flatten().next().is_none();
        let own = seat.is_of(&self.identity.user);
        // Servers see one account for all with `mapped`, and would let everybody.
        if !own && (idle || self.group.config.auth == AuthMode::Mapped) {
            let text = format!("You are not owner of thread {session}");
            return Some(error_packet(1, 1095, b"HY000", &text));
        }
        if !idle {
            return None;
        }
        if ends {
            seat.kill();
        }
        Some(ok_packet(1, self.status))
    }

    /// Sends a `KILL` of a session on as one of its connection; `false` where it is none, or of nobody that is known.
    pub(super) async fn kill(&mut self, head: Head) -> io::Result<bool> {
        let Some(link) = &self.links[self.role as usize] else { return Ok(false) };
        let Some((session, ends)) = self.victim(head) else { return Ok(false) };
        let Some((number, killing)) = self.shared.connections.at(session, &link.backend().address, ends)
        else {
            return Ok(false);
        };
        let payload = match head.command {
            Command::ProcessKill => [&[0x0c][..], &number.to_le_bytes()].concat(),
            _ => {
                let Some((sql, (before, _))) = self.text(head).and_then(|sql| Some((sql, killed(sql)?)))
                else {
                    return Ok(false);
                };
                let start = self.client.held()[HEADER_BYTES..].len().min(head.payload) - sql.len();
                let front = &self.client.held()[HEADER_BYTES..HEADER_BYTES + start];
                [front, before, number.to_string().as_bytes()].concat()
            }
        };
        self.killing = Some(killing);
        let Some(link) = &mut self.links[self.role as usize] else { return Ok(false) };
        link.wire.write_all(&packet(0, &payload)).await?;
        self.waiting = HEADER_BYTES + head.payload;
        Ok(true)
    }
}

/// What stands before the number of a `KILL`, and the number.
fn killed(sql: &[u8]) -> Option<(&[u8], u32)> {
    let text = sql.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, number) = text.split_at(text.len() - digits);
    Some((before, std::str::from_utf8(number).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::killed;

    #[test]
    fn the_number_of_a_kill_is_its_last_word() {
        assert_eq!(killed(b"KILL QUERY 2147483650 ; "), Some((&b"KILL QUERY "[..], 2_147_483_650)));
        assert_eq!(killed(b"kill 7"), Some((&b"kill "[..], 7)));
        assert_eq!(killed(b"kill @id"), None);
        assert_eq!(killed(b"kill 99999999999"), None);
    }
}
