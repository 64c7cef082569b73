//! Reads that are asked again of another server, once they are answered.

use super::state::used_database;
use super::{Answered, Head, Session};
use crate::buffers::Counted;
use crate::compare;
use crate::memory::Pressure;
use crate::mirror::{Read, Set};
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
    pub(super) fn take_for_mirror(&self, head: Head, scan: Option<&Scan>) -> Option<Mirrored> {
        let mirror = self.group.mirror.as_ref()?;
        let scan = scan.filter(|scan| scan.is_safe_read() && head.command == Command::Query)?;
        let free = !self.status.has(Status::IN_TRANSACTION)
            && self.status.has(Status::AUTOCOMMIT)
            && self.pinned.is_none();
        if !free || self.shared.memory.pressure() != Pressure::Low || !mirror.draws() {
            return None;
        }
        let set = Set {
            capabilities: self.identity.capabilities,
            collation: self.identity.collation,
            database: self.identity.database.clone(),
            said: self.state.kept().to_vec(),
        };
        let sql = self.text(head)?.to_vec();
        let mut counted = Counted::spool();
        counted.set(sql.len() + set.said.iter().map(Vec::len).sum::<usize>());
        let read = Read { sql, digest: scan.digest, set, before: compare::Answer::default(), counted };
        Some(Mirrored { read, began: Instant::now() })
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
