//! Prepared statements of a session: prepared on the writer as the client asks, and on a replica when one that only reads
//! is executed there.
//!
//! The client knows a statement by the writer's number. A server remembers the types of the parameters from the execution
//! that told them; one that goes to a connection which was not told gets them put in again.

use super::{Head, Session};
use crate::config::Role;
use mysql::protocol::{Capabilities, Command, HEADER_BYTES, PAYLOAD_MAX, packet};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;

/// Statements that a session remembers; a server holds as many for all of its clients. One more is the writer's alone.
const STATEMENTS_MAX: usize = 16_384;
/// Of a text that is kept to prepare it once more.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A prepared statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Statement {
    pub digest: u64,
    /// Of one that may be executed on a replica.
    sql: Option<Box<[u8]>>,
    parameters: u16,
    /// The types that the client told last.
    types: Box<[u8]>,
    /// The connections that have been told the types, by role.
    typed: [Option<u64>; 2],
    /// Its number on the replica's connection.
    replica: Option<(u64, u32)>,
    /// A long parameter waits at the writer.
    long_data: bool,
}

/// The statements of a session, by the number that the client knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Statements(HashMap<u32, Statement>);

impl Statements {
    /// Connections that another process numbered have numbers of this one: each pair is the old and the new.
    pub fn rename(&mut self, numbers: &[(u64, u64)]) {
        for statement in self.0.values_mut() {
            let told = statement.typed.iter_mut().flatten();
            for serial in told.chain(statement.replica.iter_mut().map(|(serial, _)| serial)) {
                // A connection that did not come along has no number that anyone has here.
                let new = numbers.iter().find(|(old, _)| old == serial);
                *serial = new.map_or(0, |(_, new)| *new);
            }
        }
    }
}

/// Where things stand in the payload of an execution.
struct Execution {
    number: u32,
    /// Of the byte that says whether types follow; `None` where there are no parameters.
    told: Option<usize>,
}

impl Execution {
    /// `None` for one with a cursor, with attributes, or that is not whole.
    fn read(payload: &[u8], parameters: u16) -> Option<Self> {
        let number = number_of(payload)?;
        if *payload.get(5)? != 0 {
            return None;
        }
        let told = 10 + usize::from(parameters).div_ceil(8);
        if parameters == 0 {
            return Some(Self { number, told: None });
        }
        (payload.len() > told).then_some(Self { number, told: Some(told) })
    }
}

fn number_of(payload: &[u8]) -> Option<u32> {
    payload.get(1..5).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl Session {
    /// Remembers what was prepared.
    pub(super) fn learn(
        &mut self,
        number: u32,
        parameters: u16,
        digest: u64,
        safe: bool,
        text: Option<&[u8]>,
    ) {
        if self.statements.0.len() >= STATEMENTS_MAX {
            return;
        }
        let sql = text.filter(|text| safe && text.len() <= TEXT_BYTES_MAX).map(Box::from);
        let statement = Statement {
            digest,
            sql,
            parameters,
            types: Box::default(),
            typed: [None, None],
            replica: None,
            long_data: false,
        };
        self.statements.0.insert(number, statement);
    }

    pub(super) fn forget_statements(&mut self) {
        self.statements.0.clear();
    }

    /// The statement that a command is about.
    pub(super) fn statement(&self, head: Head) -> Option<&Statement> {
        let payload = self.payload(head)?;
        self.statements.0.get(&number_of(payload)?)
    }

    fn payload(&self, head: Head) -> Option<&[u8]> {
        self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload)
    }

    /// Whether an execution may go to a replica, as far as the statement itself is concerned.
    pub(super) fn reads_by_statement(&self, head: Head) -> bool {
        let Some(statement) = self.statement(head) else { return false };
        let readable = statement.sql.is_some() && !statement.long_data;
        readable
            && self
                .payload(head)
                .is_some_and(|payload| Execution::read(payload, statement.parameters).is_some())
    }

    /// Notes what a command without an answer does to its statement.
    pub(super) async fn about_statement(&mut self, head: Head) {
        let payload = self.client.held().get(HEADER_BYTES..).unwrap_or_default();
        let Some(number) = number_of(payload) else { return };
        match head.command {
            Command::LongData => {
                if let Some(statement) = self.statements.0.get_mut(&number) {
                    statement.long_data = true;
                }
            }
            Command::ResetStatement | Command::Execute => {
                if let Some(statement) = self.statements.0.get_mut(&number) {
                    statement.long_data = false;
                }
            }
            Command::CloseStatement => {
                let Some(statement) = self.statements.0.remove(&number) else { return };
                let link = self.links[Role::Replica as usize].as_mut();
                if let (Some((serial, number)), Some(link)) = (statement.replica, link)
                    && link.serial == serial
                {
                    let close = [&[0x19][..], &number.to_le_bytes()].concat();
                    // A connection that is lost is found out by the next command.
                    let _ = link.wire.write_all(&packet(0, &close)).await;
                }
            }
            _ => {}
        }
    }

    /// Sends an execution on, with the number and the types that its connection needs. `false` where it can go as it is.
    ///
    /// # Errors
    /// Those of the connection. A replica that does not prepare the statement counts as lost: the writer answers instead.
    pub(super) async fn execute(&mut self, head: Head) -> io::Result<bool> {
        let role = self.role;
        let Some(payload) = self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload) else {
            return Ok(false);
        };
        let Some(statement) = number_of(payload).and_then(|number| self.statements.0.get_mut(&number)) else {
            return Ok(false);
        };
        let Some(link) = &mut self.links[role as usize] else { return Ok(false) };
        let Some(execution) = Execution::read(payload, statement.parameters) else { return Ok(false) };
        if link.capabilities.has(Capabilities::QUERY_ATTRIBUTES)
            && payload.get(5).is_some_and(|flags| flags & 8 != 0)
        {
            return Ok(false);
        }
        let mut changed = None;
        if let Some(told) = execution.told {
            let types = told + 1..told + 1 + 2 * usize::from(statement.parameters);
            if payload[told] == 1 {
                let Some(types) = payload.get(types) else { return Ok(false) };
                if *statement.types != *types {
                    statement.types = types.into();
                    statement.typed = [None, None];
                }
                statement.typed[role as usize] = Some(link.serial);
            } else if statement.typed[role as usize] != Some(link.serial) && !statement.types.is_empty() {
                changed = Some([&payload[..told], &[1], &statement.types, &payload[told + 1..]].concat());
                statement.typed[role as usize] = Some(link.serial);
            }
        }
        let mut number = execution.number;
        if role == Role::Replica {
            let Some(sql) = &statement.sql else { return Ok(false) };
            number = match statement.replica {
                Some((serial, number)) if serial == link.serial => number,
                _ => match link.prepare(sql).await {
                    Ok(number) => number,
                    Err(error) => {
                        self.waiting = HEADER_BYTES + head.payload;
                        return Err(io::Error::other(error));
                    }
                },
            };
            statement.replica = Some((link.serial, number));
        }
        if number == execution.number && changed.is_none() {
            return Ok(false);
        }
        let mut payload = changed.unwrap_or_else(|| payload.to_vec());
        payload[1..5].copy_from_slice(&number.to_le_bytes());
        if payload.len() >= PAYLOAD_MAX {
            return Ok(false);
        }
        self.waiting = HEADER_BYTES + head.payload;
        link.wire.write_all(&packet(0, &payload)).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_says_where_its_types_stand() {
        let payload = [&[0x17, 7, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[3, 0], &[9, 0, 0, 0]].concat();
        let one = Execution::read(&payload, 1).unwrap();
        assert_eq!((one.number, one.told), (7, Some(11)));
        assert_eq!(Execution::read(&payload, 9).unwrap().told, Some(12));
        assert_eq!(Execution::read(&payload[..10], 0).unwrap().told, None);
        // Cut, and with a cursor.
        assert!(Execution::read(&payload[..11], 1).is_none() && Execution::read(&payload[..4], 0).is_none());
        let mut cursor = payload;
        cursor[5] = 1;
        assert!(Execution::read(&cursor, 1).is_none());
    }
}
