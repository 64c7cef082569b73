//! What a statement leaves on its connection, and why its session then keeps it.

use super::borrow::{Last, Need};
use super::relay::Answered;
use super::route::{self, Hint, hint, pins as pins_alone, pins_shared};
use super::{Head, Session};
use crate::config::{GroupKind, Role};
use crate::pins;
use mysql::protocol::{Capabilities, Command, HEADER_BYTES, Status};
use mysql::sql::{Flags, Kind, Scan, scan};

impl Session {
    /// The session stays with its writer from here on.
    pub(super) fn pin(&mut self, reason: &'static str) {
        self.pins_more = self.pinned.is_some();
        self.pinned = self.pinned.or(Some(reason));
    }

    /// Whether a question may be asked a second time.
    pub(super) fn may_repeat(&self, head: Head, scan: Option<&Scan>, reads: bool) -> bool {
        self.is_shared()
            && self.kept.is_none()
            && !self.status.has(Status::IN_TRANSACTION)
            && self.pinned.is_none()
            && (reads || head.command == Command::Query && scan.is_some_and(Scan::is_safe_read))
    }

    /// What the command asks of a connection that comes to the session.
    pub(super) fn need(&self, head: Head, scan: Option<&Scan>) -> Need {
        let need = match head.command {
            Command::Query | Command::Execute | Command::BulkExecute => Need::of(scan),
            _ => Need::default(),
        };
        // TiDB cannot be told in the midst of a transaction that there was no insert.
        let begins =
            scan.is_some_and(|scan| scan.kind == Kind::Begin) || !self.status.has(Status::AUTOCOMMIT);
        let early = self.group.config.kind == GroupKind::Tidb && self.insert_id == 0 && begins;
        let plain = super::track::needs_plain(head.command, scan, self.text(head).unwrap_or_default());
        Need { insert_id: need.insert_id || early, plain, ..need }
    }

    /// Statements are read otherwise from here on. What is prepared keeps how it was read, which no other connection could
    /// be told.
    pub(super) async fn read_otherwise(&mut self) {
        if !self.statements.is_empty() {
            self.pin("setting under prepared statements");
            return;
        }
        let Some(link) = &mut self.links[Role::Writer as usize] else { return };
        for number in link.known.clear() {
            // A connection that is lost is found out by the next command.
            let _ = link.send(Command::CloseStatement, &number.to_le_bytes()).await;
        }
    }

    /// What the statement left for a question about it.
    pub(super) fn note_last(&mut self, head: Head, scan: Option<&Scan>, answered: &Answered, lists_on: bool) {
        if !matches!(
            head.command,
            Command::Query | Command::Execute | Command::BulkExecute | Command::Prepare
        ) {
            self.last.warned |= answered.error;
            return;
        }
        let told = answered.told.unwrap_or_default();
        if (told.variables || told.state) && self.is_shared() {
            self.note_unseen_setting(scan, told.variables);
        }
        let flags = scan.map_or(Flags::NONE, |scan| scan.flags);
        let about_last = flags.intersects(Flags::DIAGNOSTICS) || lists_on;
        // What cannot be told is taken for the worse.
        let unseen = (scan.is_none() || answered.told.is_none() && !answered.error)
            && head.command != Command::Prepare;
        let moves_id = Flags::LAST_INSERT_ID | Flags::UNKNOWN_FUNCTION | Flags::MULTI | Flags::DOUBTFUL;
        self.last = Last {
            warned: answered.error || told.warnings > 0 || about_last && self.last.warned,
            found: flags.intersects(Flags::CALC_FOUND_ROWS),
            inserted: self.last.inserted
                || unseen
                || answered.error
                || told.last_insert_id != 0
                || flags.intersects(moves_id)
                || scan.is_some_and(|scan| matches!(scan.kind, Kind::Call | Kind::Unknown)),
            asked: true,
            forgotten: false,
            unsure: answered.error && self.role == Role::Writer
                || self.last.unsure && (self.role == Role::Replica || head.command == Command::Prepare),
        };
        if touches(scan)
            && head.command != Command::Prepare
            && let Some(link) = &mut self.links[self.role as usize]
            && let Some(pooled) = &mut link.pooled
        {
            pooled.touched = true;
        }
    }

    /// The server says that something of the session was set. Where the statement itself did not say so, as a trigger can, no
    /// other connection can be made like this one, and nobody else may have it as it is.
    fn note_unseen_setting(&mut self, scan: Option<&Scan>, variables: bool) {
        let is_seen = scan.is_some_and(|scan| matches!(scan.kind, Kind::Set | Kind::Use));
        if is_seen || self.identity.capabilities.mariadb() {
            return;
        }
        if self.role == Role::Writer {
            self.pin(if variables { "setting that cannot be repeated" } else { pins::UNSEEN });
        } else if let Some(link) = &mut self.links[Role::Replica as usize]
            && let Some(pooled) = &mut link.pooled
        {
            pooled.doubtful = true;
        }
    }

    /// Whether a statement leaves the warnings of the one before: on MariaDB all do that read no table.
    pub(super) fn keeps_warnings(&self, head: Head, scan: Option<&Scan>) -> bool {
        let Some(scan) = scan.filter(|_| self.identity.capabilities.mariadb()) else { return false };
        match scan.kind {
            Kind::Insert | Kind::Replace | Kind::Update | Kind::Delete => false,
            _ => !self.text(head).is_some_and(route::reads_table),
        }
    }

    pub(super) fn pins_seen(&self, head: Head, scan: Option<&Scan>) -> Option<&'static str> {
        let scan = scan?;
        let text = self.text(head).unwrap_or_default();
        if head.command != Command::Query && scan.kind == Kind::Use {
            return Some("database changed by text");
        }
        pins_alone(Some(scan), text).or_else(|| {
            let shared = self.is_shared() && hint(scan, text) != Some(Hint::Replica);
            shared.then(|| pins_shared(scan, text)).flatten()
        })
    }

    /// Why a statement that is too long to be seen whole keeps its connection. Long ones are mostly inserts: these do, where
    /// no other statement can stand behind them, what their beginning says.
    pub(super) fn pins_unseen(&self, head: Head) -> Option<&'static str> {
        if !self.is_shared() {
            return None;
        }
        let whole = HEADER_BYTES + head.payload;
        let held = self.client.held();
        let front = held.get(HEADER_BYTES..whole.min(held.len())).unwrap_or_default();
        let text = route::text_start(head.command, front, self.identity.capabilities)
            .and_then(|start| front.get(start..))
            .filter(|_| !self.identity.capabilities.has(Capabilities::MULTI_STATEMENTS));
        let plain = text.map(|text| scan(text, self.modes())).is_some_and(|scan| {
            let scan = Scan { flags: seen(scan.flags), ..scan };
            matches!(scan.kind, Kind::Insert | Kind::Replace)
                && pins_alone(Some(&scan), &[]).or(pins_shared(&scan, &[])).is_none()
        });
        (!plain).then_some(pins::OTHER)
    }
}

/// Without the doubts that a cut leaves.
fn seen(flags: Flags) -> Flags {
    let doubt = flags.bits() & Flags::DOUBTFUL.bits();
    Flags::NAMES
        .iter()
        .filter(|(flag, _)| flags.contains(*flag) && flag.bits() & doubt == 0)
        .fold(Flags::NONE, |all, (flag, _)| all | *flag)
}

/// Commands that change what no reset sets back, or that nobody knows.
pub(super) fn pins_command(command: Command) -> Option<&'static str> {
    matches!(command, Command::SetOption | Command::RegisterReplica | Command::Debug | Command::Other(_))
        .then_some(pins::OTHER)
}

/// Whether a statement may leave something on its connection that nobody sees, as a trigger can.
fn touches(scan: Option<&Scan>) -> bool {
    scan.is_none_or(|scan| {
        !matches!(
            scan.kind,
            Kind::Select
                | Kind::Show
                | Kind::Describe
                | Kind::Explain
                | Kind::Begin
                | Kind::Commit
                | Kind::Rollback
                | Kind::Savepoint
                | Kind::Set
                | Kind::Use
                | Kind::Empty
        ) || scan.flags.intersects(
            Flags::UNKNOWN_FUNCTION
                | Flags::MULTI
                | Flags::DOUBTFUL
                | Flags::EXECUTABLE_COMMENT
                | Flags::USER_VARIABLE_WRITTEN,
        )
    })
}
