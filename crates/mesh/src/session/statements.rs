//! Prepared statements of a session: the client has numbers of ours, and each connection prepares a statement when it first
//! needs it.
//!
//! ```text
//! client's number ─ Statement (text, types) ─ the connection's number of that text (`prepared`)
//! ```
//! A server remembers the types of the parameters from the execution that told them; one that goes to a connection which
//! was told others gets them put in again. A statement whose text is too long to keep lives on its connection alone, which
//! the session then keeps. With `auth: relay` there is one connection, and the numbers are the server's.

use super::{Head, Session};
use crate::buffers::Counted;
use crate::config::Role;
use crate::error::SessionError;
use crate::link::Link;
use crate::pins;
use crate::prepared::Name;
use mysql::protocol::{Command, HEADER_BYTES, PAYLOAD_MAX, Status};
use mysql::sql::{Modes, Scan, scan};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Statements that a session has at once; a server holds as many for all of its clients.
const STATEMENTS_MAX: usize = 16_384;
/// What one counts for in the memory's limit besides its text: here, with the rules, and on its connection.
pub(super) const STATEMENT_BYTES: usize = 512;
/// Of a text that is kept to prepare it once more.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Of all texts of a session.
const TEXTS_BYTES_MAX: usize = 1024 * 1024;
/// More parameters, and their types may not be in the buffer's part of an execution.
const PARAMETERS_MAX: u16 = 4096;
/// MariaDB: the statement that was prepared last.
const LAST: u32 = u32::MAX;

/// What a statement has on its connection besides itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    LongData,
    Cursor,
}

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    pub digest: u64,
    pub scan: Option<Scan>,
    /// `None` for one that lives on its connection alone.
    name: Option<Name>,
    /// With `auth: relay`, for a mirror: the text, and the database in which it was prepared. A session that may go to
    /// several connections keeps to one, and is not mirrored, once it has another database under its statements.
    text: Option<(Arc<[u8]>, Vec<u8>)>,
    parameters: u16,
    /// The types that the client told last.
    types: Box<[u8]>,
    /// Of one without a name: its connection, and its number there.
    home: Option<(u64, u32)>,
    open: Open,
}

impl Statement {
    /// `None` for one that lives on its connection alone.
    pub fn text(&self) -> Option<&[u8]> {
        self.name.as_ref().map(|(text, _)| &**text)
    }

    /// For a mirror too.
    fn kept_text(&self) -> Option<&Arc<[u8]>> {
        self.name.as_ref().map(|(text, _)| text).or(self.text.as_ref().map(|(text, _)| text))
    }
}

/// An execution, for a server that has not prepared it.
pub(super) struct Alone {
    pub digest: u64,
    pub scan: Scan,
    pub sql: Arc<[u8]>,
    /// In which it was prepared, where that is not the session's.
    pub database: Option<Vec<u8>>,
    pub parameters: u16,
    /// All of the command behind the statement's number, with the parameters' types.
    pub rest: Vec<u8>,
}

/// The statements of a session, by the number that the client knows.
#[derive(Debug, Default)]
pub struct Statements {
    map: HashMap<u32, Statement>,
    last: u32,
    text_bytes: usize,
    /// The texts count for the memory's limit.
    counted: Counted,
    /// Of those, how many have something open, and how many no name.
    opened: usize,
    nameless: usize,
}

impl Statements {
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether something of them would be lost with their connection.
    pub fn are_tied(&self) -> bool {
        self.opened > 0 || self.nameless > 0
    }

    /// Why the session keeps its connection for them.
    pub fn pin(&self) -> Option<&'static str> {
        if self.nameless > 0 {
            return Some("prepared statement that cannot be repeated");
        }
        if self.opened == 0 {
            return None;
        }
        let long = self.map.values().any(|statement| statement.open == Open::LongData);
        Some(if long { pins::LONG_DATA } else { pins::CURSOR })
    }

    fn insert(&mut self, number: u32, statement: Statement) {
        self.text_bytes += statement.kept_text().map_or(0, |text| text.len());
        self.nameless += usize::from(statement.name.is_none());
        self.map.insert(number, statement);
        self.count();
    }

    fn count(&mut self) {
        self.counted.set(self.text_bytes + self.map.len() * STATEMENT_BYTES);
    }

    fn remove(&mut self, number: u32) -> Option<Statement> {
        let statement = self.map.remove(&number)?;
        self.text_bytes -= statement.kept_text().map_or(0, |text| text.len());
        self.count();
        self.nameless -= usize::from(statement.name.is_none());
        self.opened -= usize::from(statement.open != Open::Nothing);
        Some(statement)
    }

    fn set_open(&mut self, number: u32, open: Open) {
        if let Some(statement) = self.map.get_mut(&number) {
            self.opened -= usize::from(statement.open != Open::Nothing);
            self.opened += usize::from(open != Open::Nothing);
            statement.open = open;
        }
    }

    /// Their connection is gone, and what was open there with it.
    pub fn lose(&mut self) {
        for statement in self.map.values_mut() {
            statement.open = Open::Nothing;
        }
        self.opened = 0;
        let nameless: Vec<u32> =
            self.map.iter().filter(|(_, one)| one.name.is_none()).map(|(number, _)| *number).collect();
        for number in nameless {
            self.remove(number);
        }
    }
}

/// A statement written down for another process. How it reads is told by its text there.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatementParts {
    number: u32,
    digest: u64,
    name: Option<(Vec<u8>, u16)>,
    parameters: u16,
    types: Vec<u8>,
    home: Option<(u64, u32)>,
    /// 0 nothing, 1 long data, 2 a cursor.
    open: u8,
}

impl Statements {
    /// For another process; and the number that was given out last.
    pub fn pack(&self) -> (u32, Vec<StatementParts>) {
        let parts = self.map.iter().map(|(number, statement)| StatementParts {
            number: *number,
            digest: statement.digest,
            name: statement.name.as_ref().map(|(text, copy)| (text.to_vec(), *copy)),
            parameters: statement.parameters,
            types: statement.types.to_vec(),
            home: statement.home,
            open: statement.open as u8,
        });
        (self.last, parts.collect())
    }

    /// Those of another process. Connections that it numbered have numbers of this one: each pair is the old and the new.
    pub fn unpack((last, parts): (u32, Vec<StatementParts>), numbers: &[(u64, u64)], modes: Modes) -> Self {
        let mut statements = Self { last, ..Self::default() };
        for part in parts {
            let statement = Statement {
                digest: part.digest,
                scan: part.name.as_ref().map(|(text, _)| scan(text, modes)),
                name: part.name.map(|(text, copy)| (Arc::from(text), copy)),
                parameters: part.parameters,
                types: part.types.into(),
                // A connection that did not come along has no number that anyone has here.
                text: None,
                home: part.home.map(|(old, own)| {
                    (numbers.iter().find(|(known, _)| *known == old).map_or(0, |(_, new)| *new), own)
                }),
                open: Open::Nothing,
            };
            statements.insert(part.number, statement);
            let open = [Open::Nothing, Open::LongData, Open::Cursor].into_iter().nth(part.open.into());
            statements.set_open(part.number, open.unwrap_or_default());
        }
        statements
    }

    /// Whether a text on a connection is one of this session's.
    pub fn has(&self, name: &Name) -> bool {
        self.map.values().any(|statement| statement.name.as_ref() == Some(name))
    }
}

/// Where things stand in the payload of an execution.
#[derive(Debug, PartialEq, Eq)]
struct Execution {
    /// The byte that says whether types follow, and the bit of it.
    told: Option<(usize, u8)>,
    /// Where the types are, or would be.
    types: Range<usize>,
}

impl Execution {
    /// `None` for one whose front is not whole.
    fn read(command: Command, payload: &[u8], parameters: u16) -> Option<Self> {
        let count = usize::from(parameters);
        let (told, bit, start) = match command {
            // Number, flags, types, rows.
            Command::BulkExecute => (5, 0x80, 7),
            // Number, flags, count, nulls, whether types follow, types, values.
            _ => (10 + count.div_ceil(8), 1, 11 + count.div_ceil(8)),
        };
        if count == 0 {
            return (payload.len() >= 7).then_some(Self { told: None, types: 0..0 });
        }
        let is_told = payload.get(told)? & bit != 0;
        let end = if is_told { start + 2 * count } else { start };
        (payload.len() >= end).then_some(Self { told: Some((told, bit)), types: start..end })
    }
}

fn number_of(payload: &[u8]) -> Option<u32> {
    payload.get(1..5).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Whether a command names a statement.
pub fn names_statement(command: Command) -> bool {
    matches!(
        command,
        Command::Execute
            | Command::BulkExecute
            | Command::Fetch
            | Command::LongData
            | Command::ResetStatement
            | Command::CloseStatement
    )
}

impl Session {
    /// The number that the statement which is prepared now will have. The relay puts it in the answer.
    pub(super) fn next_statement(&self) -> u32 {
        let mut number = self.statements.last;
        loop {
            number = if number >= LAST - 1 { 1 } else { number + 1 };
            if !self.statements.map.contains_key(&number) {
                return number;
            }
        }
    }

    pub(super) fn has_all_statements(&self) -> bool {
        self.statements.map.len() >= STATEMENTS_MAX
    }

    /// Remembers what was prepared; `number` is the client's, `own` the server's.
    pub(super) async fn learn(
        &mut self,
        (number, own, parameters): (u32, u32, u16),
        scan: Option<Scan>,
        text: Option<&[u8]>,
    ) {
        let digest = scan.map_or(0, |scan| scan.digest);
        let mut statement = Statement {
            digest,
            scan,
            name: None,
            text: None,
            parameters,
            types: Box::default(),
            home: None,
            open: Open::Nothing,
        };
        if !self.is_several() {
            if !self.has_all_statements() {
                let kept = text.filter(|text| self.group.mirror.is_some() && self.may_keep(text));
                statement.text = kept.map(|text| (Arc::from(text), self.identity.database.clone()));
                self.statements.insert(number, statement);
            }
            return;
        }
        self.statements.last = number;
        let may_keep = text.is_some_and(|text| self.may_keep(text));
        let Some(link) = &mut self.links[self.role as usize] else { return };
        let repeatable = text.filter(|_| may_keep && parameters <= PARAMETERS_MAX);
        match repeatable {
            Some(text) => {
                let name = self.statements.name(text);
                if let Some(number) = link.known.put(name.clone(), own, Box::default()) {
                    // A connection that is lost is found out by the next command.
                    let _ = link.send(Command::CloseStatement, &number.to_le_bytes()).await;
                }
                statement.name = Some(name);
            }
            None => statement.home = Some((link.serial, own)),
        }
        self.statements.insert(number, statement);
    }

    /// Whether a text may be kept.
    fn may_keep(&self, text: &[u8]) -> bool {
        text.len() <= TEXT_BYTES_MAX
            && self.statements.text_bytes + text.len() <= TEXTS_BYTES_MAX
            && self.shared.has_memory_for(text.len())
    }

    /// An execution as a server needs it that knows neither its statement nor its types. `Err` where that is not known here;
    /// `Ok(None)` for one that other servers cannot answer: it has a cursor, attributes or long data.
    pub(super) fn alone(&mut self, head: Head) -> Result<Option<Alone>, ()> {
        let several = self.is_several();
        let number = self.number(head).ok_or(())?;
        let payload = self.front(head);
        if payload.len() != head.payload || payload.get(5) != Some(&0) {
            return Ok(None);
        }
        let mut rest = payload[5..].to_vec();
        let payload = payload.to_vec();
        let statement = self.statements.map.get_mut(&number).ok_or(())?;
        let scan = statement.scan.ok_or(())?;
        if statement.open != Open::Nothing {
            return Ok(None);
        }
        let execution = Execution::read(head.command, &payload, statement.parameters).ok_or(())?;
        if let Some((told, bit)) = execution.told {
            if payload[told] & bit != 0 {
                if !several {
                    // Other sessions note them where their connections are told.
                    statement.types = payload[execution.types].into();
                }
            } else {
                if statement.types.is_empty() {
                    return Err(());
                }
                rest[told - 5] |= bit;
                let at = execution.types.start - 5;
                rest.splice(at..at, statement.types.iter().copied());
            }
        }
        let sql = statement.kept_text().cloned().ok_or(())?;
        let database = statement.text.as_ref().map(|(_, database)| database.clone());
        let (digest, parameters) = (statement.digest, statement.parameters);
        Ok(Some(Alone { digest, scan, sql, database, parameters, rest }))
    }

    pub(super) fn forget_statements(&mut self) {
        self.statements = Statements { last: self.statements.last, ..Statements::default() };
    }

    /// The statement that a command is about.
    pub(super) fn statement(&self, head: Head) -> Option<&Statement> {
        self.statements.map.get(&self.number(head)?)
    }

    /// The client's number of the statement that a command is about.
    pub(super) fn number(&self, head: Head) -> Option<u32> {
        let number = number_of(self.front(head))?;
        Some(if number == LAST && self.is_several() { self.statements.last } else { number })
    }

    /// What is held of the command's payload.
    fn front(&self, head: Head) -> &[u8] {
        let held = self.client.held().get(HEADER_BYTES..).unwrap_or_default();
        &held[..held.len().min(head.payload)]
    }

    /// Whether an execution may go to a replica, as far as the statement itself is concerned.
    pub(super) fn reads_by_statement(&self, head: Head) -> bool {
        let Some(statement) = self.statement(head) else { return false };
        let payload = self.front(head);
        statement.scan.is_some_and(|scan| scan.is_safe_read())
            && statement.name.is_some()
            && statement.open == Open::Nothing
            && payload.len() == head.payload
            // With a cursor the rows stay there.
            && payload.get(5) == Some(&0)
            && Execution::read(head.command, payload, statement.parameters).is_some()
    }

    /// Closes a statement. Its connection closes its own when it needs the room.
    pub(super) async fn close_statement(&mut self, head: Head) {
        let Some(number) = self.number(head) else { return };
        let Some(statement) = self.statements.remove(number) else { return };
        if statement.open == Open::Nothing && statement.home.is_none() {
            return;
        }
        let Some(link) = &mut self.links[Role::Writer as usize] else { return };
        let own = match (&statement.name, statement.home) {
            (Some(name), _) => link.known.remove(name),
            (None, Some((serial, number))) if serial == link.serial => Some(number),
            _ => None,
        };
        if let Some(own) = own {
            let _ = link.send(Command::CloseStatement, &own.to_le_bytes()).await;
        }
    }

    /// What is open after a command that was answered.
    pub(super) fn settle_statement(&mut self, number: Option<u32>, command: Command, status: Option<Status>) {
        let Some(number) = number else { return };
        let is_open = |status: Status| status.has(Status::CURSOR) && !status.has(Status::LAST_ROW);
        match command {
            Command::Execute | Command::BulkExecute | Command::ResetStatement => {
                let open = if status.is_some_and(is_open) { Open::Cursor } else { Open::Nothing };
                self.statements.set_open(number, open);
            }
            Command::Fetch if status.is_some_and(|status| status.has(Status::LAST_ROW)) => {
                self.statements.set_open(number, Open::Nothing);
            }
            Command::LongData => self.statements.set_open(number, Open::LongData),
            _ => {}
        }
    }

    /// The number of the statement that a command is about, where the client has it.
    pub(super) fn known_number(&self, head: Head) -> Option<u32> {
        let number = self.number(head)?;
        self.statements.map.contains_key(&number).then_some(number)
    }

    /// The front of a command about a statement, header included, with the number and the types that its connection needs.
    ///
    /// # Errors
    /// The server's, when it does not prepare the statement once more, and those of the connection.
    pub(super) async fn translate(&mut self, head: Head) -> Result<Vec<u8>, SessionError> {
        let gone = || SessionError::Refused {
            number: 1243,
            state: *b"HY000",
            reason: "tidemill: the prepared statement is gone with its server; prepare it again".into(),
        };
        let held = self.client.held().get(HEADER_BYTES..).unwrap_or_default();
        let payload = &held[..held.len().min(head.payload)];
        let number = number_of(payload).ok_or_else(gone)?;
        let number = if number == LAST { self.statements.last } else { number };
        let statement = self.statements.map.get_mut(&number).ok_or_else(gone)?;
        let link = self.links[self.role as usize].as_mut().ok_or_else(gone)?;
        let mut changed = self.client.held()[..HEADER_BYTES].to_vec();
        changed.extend_from_slice(payload);
        let Some(name) = &statement.name else {
            let (serial, own) = statement.home.ok_or_else(gone)?;
            if serial != link.serial {
                return Err(gone());
            }
            changed[HEADER_BYTES + 1..HEADER_BYTES + 5].copy_from_slice(&own.to_le_bytes());
            return Ok(changed);
        };
        if link.known.get(name).is_none() {
            prepare(link, name, statement.parameters).await?;
        }
        let known = link.known.get(name).ok_or_else(gone)?;
        changed[HEADER_BYTES + 1..HEADER_BYTES + 5].copy_from_slice(&known.number.to_le_bytes());
        if !matches!(head.command, Command::Execute | Command::BulkExecute) {
            return Ok(changed);
        }
        let Some(execution) = Execution::read(head.command, payload, statement.parameters) else {
            // Nonsense, which is the server's to refuse.
            return Ok(changed);
        };
        let Some((told, bit)) = execution.told else { return Ok(changed) };
        if payload[told] & bit != 0 {
            statement.types = payload[execution.types].into();
            known.types.clone_from(&statement.types);
        } else if !statement.types.is_empty() && known.types != statement.types {
            if head.payload + statement.types.len() >= PAYLOAD_MAX {
                return Err(gone());
            }
            changed[HEADER_BYTES + told] |= bit;
            let at = HEADER_BYTES + execution.types.start;
            changed.splice(at..at, statement.types.iter().copied());
            let length = (head.payload + statement.types.len()).to_le_bytes();
            changed[..3].copy_from_slice(&length[..3]);
            known.types.clone_from(&statement.types);
        }
        Ok(changed)
    }
}

impl Statements {
    /// What connections know a text by; another one for each statement of this session that has the same text.
    fn name(&self, text: &[u8]) -> Name {
        let same: Vec<u16> = self
            .map
            .values()
            .filter_map(|statement| statement.name.as_ref())
            .filter(|(known, _)| **known == *text)
            .map(|(_, copy)| *copy)
            .collect();
        let copy = (0..u16::MAX).find(|copy| !same.contains(copy)).unwrap_or(u16::MAX);
        (Arc::from(text), copy)
    }
}

/// Prepares a statement once more, on a connection that does not know it.
async fn prepare(link: &mut Link, name: &Name, parameters: u16) -> Result<(), SessionError> {
    let (number, count) = link.prepare(&name.0).await?;
    if count != parameters {
        return Err(link.lost(io::Error::other("it takes a prepared statement for another one")));
    }
    if let Some(number) = link.known.put(name.clone(), number, Box::default()) {
        link.send(Command::CloseStatement, &number.to_le_bytes()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_says_where_its_types_stand() {
        let payload = [&[0x17, 7, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[3, 0], &[9, 0, 0, 0]].concat();
        let read = |payload: &[u8], count| Execution::read(Command::Execute, payload, count);
        assert_eq!(read(&payload, 1), Some(Execution { told: Some((11, 1)), types: 12..14 }));
        assert_eq!(read(&payload[..10], 0), Some(Execution { told: None, types: 0..0 }));
        // Cut.
        assert!(read(&payload[..11], 1).is_none() && read(&payload[..13], 1).is_none());
        assert!(read(&payload[..4], 0).is_none());
        let mut untold = payload;
        untold[11] = 0;
        assert_eq!(read(&untold, 1), Some(Execution { told: Some((11, 1)), types: 12..12 }));
        let bulk = [&[0xfa, 7, 0, 0, 0, 0x80, 0][..], &[3, 0, 8, 0], &[0]].concat();
        let read = Execution::read(Command::BulkExecute, &bulk, 2);
        assert_eq!(read, Some(Execution { told: Some((5, 0x80)), types: 7..11 }));
    }

    #[test]
    fn two_statements_of_one_text_are_two_and_a_third_takes_the_place_of_the_first() {
        let mut statements = Statements::default();
        let statement = |name| Statement {
            digest: 0,
            scan: None,
            name,
            parameters: 0,
            types: Box::default(),
            text: None,
            home: None,
            open: Open::Nothing,
        };
        for number in 1..=2 {
            let name = statements.name(b"select 1");
            assert_eq!(name.1, number as u16 - 1);
            statements.insert(number, statement(Some(name)));
        }
        assert!(!statements.are_tied());
        statements.set_open(1, Open::Cursor);
        assert_eq!(statements.pin(), Some(pins::CURSOR));
        statements.remove(1);
        assert!(statements.pin().is_none());
        assert_eq!(statements.name(b"select 1").1, 0);
        statements.insert(3, statement(None));
        assert!(statements.are_tied());
        statements.lose();
        assert!(!statements.are_tied() && statements.map.len() == 1);
    }
}
