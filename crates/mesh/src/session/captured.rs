//! What of a session goes into the capture.

use super::{Answered, Head, Session};
use crate::capture::{Flags, Kind, Record, by_digest, now_us, speaks_of_one};
use crate::memory::Pressure;
use mysql::protocol::{Command, HEADER_BYTES};
use mysql::sql::{Scan, digest_text};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Instant;

/// Statements whose texts are known to be free of secrets; parameters of others are left out.
const STATEMENTS_MAX: usize = 16_384;
/// What a client gets from a driver that loses its server; the record of a command whose answer never came whole has it.
const LOST: u16 = 2013;

/// What a session knows of its captures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Captured {
    /// Of the capture that it has begun in.
    #[serde(skip)]
    round: u64,
    /// It came while the present mesh ran.
    #[serde(skip)]
    fresh: bool,
    /// Whether each prepared statement speaks of a secret.
    statements: HashMap<u32, bool>,
}

impl Captured {
    pub fn of_newcomer() -> Self {
        Self { fresh: true, ..Self::default() }
    }
}

/// A command on its way.
pub(super) struct Taken {
    kind: Kind,
    flags: Flags,
    statement: u32,
    text: Vec<u8>,
    at_us: u64,
    began: Instant,
    /// Whether the rows are wanted.
    pub hash: bool,
    /// Of a statement to be prepared.
    secret: bool,
}

impl Session {
    /// A copy of what the capture keeps of a command; `None` for one that is not wanted, which is every one while nothing is
    /// captured.
    pub(super) fn take_for_capture(
        &mut self,
        head: Head,
        scan: Option<&Scan>,
        began: Option<Instant>,
    ) -> Option<Taken> {
        let capture = &self.shared.capture;
        if !capture.is_on() {
            return None;
        }
        let kind = kind(head.command)?;
        let config = capture.config();
        let named = |names: &std::collections::BTreeSet<String>, name: &[u8]| {
            names.is_empty() || names.iter().any(|known| known.as_bytes() == name)
        };
        if !named(&config.users, &self.identity.user) || !named(&config.groups, self.group.name.as_bytes()) {
            return None;
        }
        let payload = self.client.held().get(HEADER_BYTES..)?;
        let payload = &payload[..payload.len().min(head.payload)];
        let whole = payload.len() == head.payload && head.payload < mysql::protocol::PAYLOAD_MAX;
        let max = usize::try_from(config.statement_bytes.0).unwrap_or(usize::MAX);
        let (mut flags, mut statement, mut text, mut secret) = (Flags::default(), 0, Vec::new(), false);
        match kind {
            Kind::Query | Kind::Prepare => match (self.text(head), scan) {
                (Some(sql), Some(scan)) => {
                    let modes = self.modes();
                    let look = || speaks_of_one(sql, scan, modes);
                    secret = if by_digest(sql, scan) {
                        capture.verdict(self.thread, scan.digest, look)
                    } else {
                        look()
                    };
                    if secret {
                        flags = flags.with(Flags::LEFT_OUT, true);
                        // What cannot be split into tokens cannot be rid of its literals.
                        let readable = !scan.flags.intersects(mysql::sql::Flags::DOUBTFUL);
                        let mut digest = String::new();
                        if readable {
                            digest_text(sql, &mut digest, modes);
                        }
                        text = digest.into_bytes();
                        text.truncate(max);
                    } else {
                        flags = flags.with(Flags::CUT, sql.len() > max);
                        text = sql[..sql.len().min(max)].to_vec();
                    }
                }
                // Too long to be seen whole, or with attributes in front: what is not seen may be a secret.
                _ => {
                    secret = true;
                    flags = flags.with(Flags::CUT, true);
                }
            },
            Kind::InitDatabase => text = payload.get(1..)?.to_vec(),
            Kind::SetOption => text = payload.get(1..)?.to_vec(),
            Kind::ResetConnection | Kind::ChangeUser | Kind::Begin | Kind::End => {}
            _ => {
                let number = payload.get(1..5)?;
                statement = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
                let left_out = matches!(kind, Kind::Execute | Kind::BulkExecute | Kind::LongData)
                    && self.captured.statements.get(&statement) != Some(&false);
                let behind = payload.get(5..)?;
                flags = flags
                    .with(Flags::LEFT_OUT, left_out)
                    .with(Flags::CUT, !left_out && (behind.len() > max || !whole));
                if !left_out {
                    text = behind[..behind.len().min(max)].to_vec();
                }
            }
        }
        let hash = config.answers;
        drop(config);
        if kind == Kind::Close {
            self.captured.statements.remove(&statement);
        }
        self.begin_capture();
        let began = began.unwrap_or_else(Instant::now);
        Some(Taken { kind, flags, statement, text, at_us: now_us(), began, hash, secret })
    }

    /// Says once in a capture who the session is.
    fn begin_capture(&mut self) {
        let round = self.shared.capture.round();
        if std::mem::replace(&mut self.captured.round, round) == round {
            return;
        }
        let met = !std::mem::take(&mut self.captured.fresh);
        let identity = &self.identity;
        let told = [&identity.capabilities.0.to_le_bytes()[..], &[identity.collation]].concat();
        self.record(Kind::Begin, Flags::default().with(Flags::MET, met), told);
    }

    /// A record that is no command's.
    fn record(&self, kind: Kind, flags: Flags, text: Vec<u8>) {
        let taken = Taken {
            kind,
            flags,
            statement: 0,
            text,
            at_us: now_us(),
            began: Instant::now(),
            hash: false,
            secret: false,
        };
        self.write_down(&taken, 0, None);
    }

    /// The session is another user's now.
    pub(super) fn capture_change_of_user(&mut self) {
        self.captured.statements.clear();
        if self.shared.capture.is_on() && self.captured.round == self.shared.capture.round() {
            self.record(Kind::ChangeUser, Flags::default(), Vec::new());
        }
    }

    /// The session ends.
    pub(super) fn end_capture(&self) {
        if self.shared.capture.is_on() && self.captured.round == self.shared.capture.round() {
            self.record(Kind::End, Flags::default(), Vec::new());
        }
    }

    /// The session goes on in another process: it does not end.
    pub(super) fn leave_capture(&mut self) {
        self.captured.round = 0;
    }

    /// Keeps a command with its answer; `None` is one that has no answer.
    pub(super) fn keep(&mut self, taken: Option<Taken>, digest: Option<u64>, answered: Option<&Answered>) {
        let Some(mut taken) = taken else { return };
        if let Some((number, ..)) = answered.and_then(|answered| answered.prepared) {
            taken.statement = number;
            if self.captured.statements.len() < STATEMENTS_MAX {
                self.captured.statements.insert(number, taken.secret);
            }
        }
        if taken.kind == Kind::ResetConnection && answered.is_some_and(|answered| !answered.error) {
            self.captured.statements.clear();
        }
        self.write_down(&taken, digest.unwrap_or(0), answered);
    }

    /// Keeps a command whose server was lost: it may have done what it was asked.
    pub(super) fn keep_lost(&mut self, taken: Option<Taken>, digest: Option<u64>) {
        let lost = Answered { number: LOST, ..Answered::error(0, 0) };
        self.keep(taken, digest, Some(&lost));
    }

    fn write_down(&self, taken: &Taken, digest: u64, answered: Option<&Answered>) {
        let server = self.links[self.role as usize].as_ref().map(|link| link.backend().address.as_bytes());
        let record = Record {
            kind: taken.kind,
            flags: taken
                .flags
                .with(Flags::REPLICA, self.role == crate::config::Role::Replica)
                .with(Flags::HASHED, taken.hash && answered.is_some()),
            error: answered.map_or(0, |answered| answered.number),
            session: self.identity.id,
            at_us: taken.at_us,
            elapsed_us: u32::try_from(taken.began.elapsed().as_micros()).unwrap_or(u32::MAX),
            rows: answered.map_or(0, |answered| answered.rows.max(answered.changed)),
            bytes: answered.map_or(0, |answered| answered.bytes),
            digest,
            hash: answered.map_or(0, |answered| answered.hash),
            statement: taken.statement,
            user: &self.identity.user,
            group: self.group.name.as_bytes(),
            server: server.unwrap_or_default(),
            database: &self.identity.database,
            text: &taken.text,
        };
        if self.shared.memory.pressure() == Pressure::Low {
            self.shared.capture.add(self.thread, &record);
        } else {
            self.shared.capture.shed();
        }
    }
}

fn kind(command: Command) -> Option<Kind> {
    Some(match command {
        Command::Query => Kind::Query,
        Command::Prepare => Kind::Prepare,
        Command::Execute => Kind::Execute,
        Command::BulkExecute => Kind::BulkExecute,
        Command::LongData => Kind::LongData,
        Command::CloseStatement => Kind::Close,
        Command::ResetStatement => Kind::ResetStatement,
        Command::Fetch => Kind::Fetch,
        Command::SetOption => Kind::SetOption,
        Command::InitDatabase => Kind::InitDatabase,
        Command::ResetConnection => Kind::ResetConnection,
        _ => return None,
    })
}
