//! `KILL`: clients know the numbers that the mesh gave their sessions, servers those of their own connections.
//!
//! A driver that cancels a statement opens another connection and kills the first by its number. So the number of a session
//! is changed to that of its connection at the server that the killer is connected to.

use super::{Head, Session};
use crate::config::Role;
use crate::link::Link;
use mysql::protocol::{Command, HEADER_BYTES, packet};
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// A connection: its server's address, and the server's number of it.
type Numbered = (String, u32);

/// The connections of each session, by role.
#[derive(Debug, Default)]
pub struct Connections(Mutex<HashMap<u32, [Option<Numbered>; 2]>>);

impl Connections {
    fn note(&self, session: u32, role: Role, link: &Link) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(session).or_default()[role as usize] =
            Some((link.backend().address.clone(), link.connection_id));
    }

    fn forget(&self, session: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }

    /// The number of a session's connection at `address`; the writer's, of two.
    fn at(&self, session: u32, address: &str) -> Option<u32> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut links = map.get(&session)?.iter().flatten();
        links.find(|(known, _)| known == address).map(|(_, number)| *number)
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
            self.shared.connections.note(self.identity.id, role, link);
        }
    }

    pub(super) fn forget_connections(&self) {
        self.shared.connections.forget(self.identity.id);
    }

    /// Sends a `KILL` of a session on as one of its connection; `false` where it is none, or of nobody that is known.
    pub(super) async fn kill(&mut self, head: Head) -> io::Result<bool> {
        let Some(link) = &self.links[self.role as usize] else { return Ok(false) };
        let address = link.backend().address.clone();
        let changed = match head.command {
            Command::ProcessKill => {
                self.client.held().get(HEADER_BYTES + 1..HEADER_BYTES + 5).and_then(|bytes| {
                    let session = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    let number = self.shared.connections.at(session, &address)?;
                    Some([&[0x0c][..], &number.to_le_bytes()].concat())
                })
            }
            _ => self.text(head).and_then(killed).and_then(|(before, session)| {
                let number = self.shared.connections.at(session, &address)?;
                let start =
                    self.client.held()[HEADER_BYTES..].len().min(head.payload) - self.text(head)?.len();
                let front = &self.client.held()[HEADER_BYTES..HEADER_BYTES + start];
                Some([front, before, number.to_string().as_bytes()].concat())
            }),
        };
        let (Some(payload), Some(link)) = (changed, &mut self.links[self.role as usize]) else {
            return Ok(false);
        };
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
