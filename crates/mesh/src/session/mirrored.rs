//! Reads that are asked again of another server, once they are answered.

use super::state::used_database;
use super::{Answered, Head, Session};
use crate::buffers::Counted;
use crate::compare;
use crate::memory::Pressure;
use crate::mirror::{Mirror, Question, Read, Set};
use mysql::protocol::{Command, HEADER_BYTES, Status};
use mysql::sql::{Kind, Scan};
use std::time::Instant;

/// A copy of a read on its way.
pub(super) struct Mirrored {
    read: Read,
    began: Instant,
}

impl Session {
    /// `None` for everything that is no read whose answer hangs on the data alone, and for what the lot does not fall on.
    pub(super) fn take_for_mirror(&mut self, head: Head, scan: Option<&Scan>) -> Option<Mirrored> {
        let mirror = self.group.mirror.clone()?;
        let (digest, question) = match head.command {
            Command::Query => {
                let scan = scan.filter(|scan| scan.is_safe_read())?;
                (scan.digest, self.may_mirror(&mirror).then(|| self.text(head))??.to_vec())
            }
            // Its types are noted whether it is asked again or not: the next one may not tell them.
            Command::Execute => {
                let alone = self.alone(head);
                if !self.may_mirror(&mirror) {
                    return None;
                }
                let Ok(alone) = alone else {
                    mirror.miss();
                    return None;
                };
                let alone = alone.filter(|alone| alone.scan.is_safe_read())?;
                let question =
                    Question::Execution { sql: alone.sql, parameters: alone.parameters, rest: alone.rest };
                let mut mirrored = self.mirrored(alone.digest, question);
                // Its tables are those of the database in which it was prepared.
                if let Some(database) = alone.database {
                    mirrored.read.set.database = database;
                }
                return Some(mirrored);
            }
            _ => return None,
        };
        Some(self.mirrored(digest, Question::Text(question)))
    }

    fn may_mirror(&self, mirror: &Mirror) -> bool {
        !self.status.has(Status::IN_TRANSACTION)
            && self.status.has(Status::AUTOCOMMIT)
            && self.pinned.is_none()
            && self.shared.memory.pressure() == Pressure::Low
            && mirror.draws()
    }

    fn mirrored(&self, digest: u64, question: Question) -> Mirrored {
        let set = Set {
            capabilities: self.identity.capabilities,
            collation: self.identity.collation,
            database: self.identity.database.clone(),
            said: self.state.kept().to_vec(),
        };
        let mut counted = Counted::spool();
        counted.set(question.bytes() + set.said.iter().map(Vec::len).sum::<usize>());
        let read = Read { question, digest, set, before: compare::Answer::default(), counted };
        Mirrored { read, began: Instant::now() }
    }

    /// The database that a command of a relayed session makes its own, for whoever asks or reads elsewhere what it asks here.
    /// Other sessions are followed anyway.
    pub(super) fn names_database(&self, head: Head, scan: Option<&Scan>) -> Option<Vec<u8>> {
        if self.is_several() {
            return None;
        }
        if head.command == Command::InitDatabase {
            let payload = self.client.held().get(HEADER_BYTES..HEADER_BYTES + head.payload)?;
            return payload.get(1..).map(<[u8]>::to_vec);
        }
        scan.filter(|scan| scan.kind == Kind::Use && head.command == Command::Query)?;
        used_database(self.text(head)?)
    }

    /// The client has its answer.
    pub(super) fn mirror(&self, mirrored: Option<Mirrored>, answered: &Answered) {
        let (Some(mut mirrored), Some(mirror)) = (mirrored, &self.group.mirror) else { return };
        mirrored.read.before = compare::Answer {
            error: answered.number,
            rows: answered.rows,
            hash: Some(answered.hash),
            elapsed_us: u64::try_from(mirrored.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        mirror.give(self.identity.id, mirrored.read);
    }
}
