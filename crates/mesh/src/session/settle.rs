//! What an answered command leaves for the next.

use super::state::{self, Setting, State};
use super::{Head, Last, Session, route};
use crate::config::Role;
use mysql::protocol::{Command, Status};
use mysql::sql::{Flags, Kind, Scan};

impl Session {
    /// Takes from an answered command what the session has to know for the next.
    pub(super) fn settle(
        &mut self,
        head: Head,
        scan: Option<&Scan>,
        text: Option<Vec<u8>>,
        before: Status,
        error: bool,
    ) {
        if self.role == Role::Replica || !self.is_several() {
            return;
        }
        self.writes += u64::from(self.writing);
        if self.state.once && before.has(Status::IN_TRANSACTION) && !self.status.has(Status::IN_TRANSACTION) {
            self.state.once = false;
        }
        if error {
            if scan.is_some_and(|scan| matches!(scan.kind, Kind::Set | Kind::Use))
                && let Some(link) = &mut self.links[Role::Writer as usize]
                && let Some(pooled) = &mut link.pooled
            {
                pooled.doubtful = true;
            }
            return;
        }
        match (head.command, text) {
            (Command::InitDatabase, Some(name)) if name == self.identity.database => {}
            (Command::InitDatabase, Some(name)) => {
                self.identity.database = name;
                self.state.changed();
            }
            (Command::Query, Some(sql)) if scan.is_some_and(|scan| scan.kind == Kind::Use) => {
                match state::used_database(&sql) {
                    Some(name) if name == self.identity.database => {}
                    Some(name) => {
                        self.identity.database = name;
                        self.state.changed();
                    }
                    None => self.pin("database changed by text"),
                }
            }
            (Command::Query | Command::Execute | Command::BulkExecute, Some(sql))
                if scan.is_some_and(|scan| scan.kind == Kind::Set)
                    && self.state.set(&sql, self.modes()) == Setting::Pins =>
            {
                let variable = scan.is_some_and(|scan| scan.flags.intersects(Flags::USER_VARIABLE_WRITTEN));
                self.pin(if variable { "user variable" } else { "setting that cannot be repeated" });
            }
            (Command::ResetConnection, _) => {
                self.state = State::default();
                self.state.is_bare = true;
                self.last = Last::default();
                self.insert_id = 0;
                self.forget_statements();
                let was_pinned = self.pinned.take().is_some();
                if let Some(link) = &mut self.links[Role::Writer as usize] {
                    link.known.clear();
                    link.is_bare = true;
                    link.tracks = false;
                    if let Some(pooled) = &mut link.pooled {
                        pooled.touched = false;
                        pooled.insert_id = 0;
                    }
                }
                if was_pinned && self.is_shared() {
                    // A reset leaves a little: roles, options of the protocol. Nobody else gets it.
                    self.drop_links();
                }
                // The replica's connection has the old settings; a new one has none.
                self.links[Role::Replica as usize] = None;
                self.seat.leave(Role::Replica);
            }
            (Command::Query, Some(sql))
                if scan.is_some_and(|scan| scan.kind == Kind::Unlock)
                    && self.pinned == Some(route::LOCKED_TABLES)
                    && !self.pins_more
                    && route::names_tables(&sql) =>
            {
                self.pinned = None;
            }
            _ => {}
        }
        // It was set up for this command, and has carried out itself what is new.
        if let Some(link) = &mut self.links[Role::Writer as usize] {
            link.owner = self.state.owner();
            link.said = Some(self.state.kept().clone());
            link.database.clone_from(&self.identity.database);
        }
    }
}
