//! Statements that a limit ends: the server is told to kill them, and the session goes on where it can.
//!
//! `KILL QUERY` goes over a connection of its own, as the session's account, or as the monitor's where the mesh has no
//! password of the session. What cannot be killed costs the session its connection.

use super::judge::ENDING_MAX;
use super::relay::{Answered, Outcome};
use super::{Session, count_transaction};
use crate::config::Role;
use crate::error::SessionError;
use crate::{link, monitor};
use mysql::protocol::{Answer, Status, Step};
use std::io;
use std::sync::atomic::Ordering;

impl Session {
    /// The time of the present command is over: its server is asked to end it, and its answer then ends with the limit's
    /// error. What this gives back is the end, where the server cannot be asked, or has not listened.
    pub(super) async fn end_by_time(&mut self, answer: &mut Answer) -> Option<Outcome> {
        if !self.judge.has_ended() {
            self.judge.end(false);
            if self.kill_query().await {
                return None;
            }
            if answer.next_sequence().is_none() {
                // In the midst of a row: the error takes the place of the next one.
                answer.stop_at(answer.rows());
                return None;
            }
        }
        Some(Outcome::Lost { error: io::ErrorKind::TimedOut.into(), sequence: answer.next_sequence() })
    }

    /// The answer has more rows than it may: the client gets an error in the next one's place, and the rest is thrown away.
    pub(super) async fn cut(&mut self, mut answer: Answer, passed: u64) -> Result<Outcome, SessionError> {
        self.judge.end(true);
        self.judge.note_rows(answer.rows() + 1);
        self.client.consume(std::mem::take(&mut self.waiting));
        if let Some(packet) = answer.next_sequence().and_then(|sequence| self.judge.last_words(sequence)) {
            self.client.write_all(&packet).await.map_err(SessionError::Client)?;
        }
        let answered = Answered::error(answer.rows(), passed);
        self.kill_query().await;
        let deadline = tokio::time::Instant::now() + ENDING_MAX;
        answer.stop_at(u64::MAX);
        while tokio::time::Instant::now() < deadline {
            let Some(link) = &mut self.links[self.role as usize] else { break };
            let (consumed, step) = answer.advance(link.wire.held());
            link.wire.consume(consumed);
            match step {
                Step::Done(end) => {
                    if let Some(status) = end.status.filter(|_| self.role == Role::Writer) {
                        count_transaction(&self.shared, self.status, status);
                        self.status = status;
                    }
                    return Ok(Outcome::Answered(answered));
                }
                Step::More => match tokio::time::timeout_at(deadline, link.wire.fill()).await {
                    Ok(Ok(1..)) => {}
                    _ => break,
                },
                Step::Over | Step::File => break,
            }
        }
        self.give_up()?;
        Ok(Outcome::Answered(answered))
    }

    /// Leaves a connection in the midst of an answer whose client has been told its end.
    fn give_up(&mut self) -> Result<(), SessionError> {
        let Some(link) = self.links[self.role as usize].take() else { return Ok(()) };
        self.shared.counters.broken.fetch_add(1, Ordering::Relaxed);
        if self.identity.password.is_none() {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.role == Role::Replica {
            return Ok(());
        }
        if self.status.has(Status::IN_TRANSACTION) || self.pinned.is_some() {
            self.trouble = Some(link.lost(io::Error::other(
                "a limit ended its answer, and with it the transaction or what else was open there",
            )));
        }
        count_transaction(&self.shared, self.status, Status::AUTOCOMMIT);
        self.status = Status::AUTOCOMMIT;
        self.pinned = None;
        Ok(())
    }

    /// Whether the server took the order to end the statement that runs on the present connection.
    async fn kill_query(&self) -> bool {
        let Some(link) = &self.links[self.role as usize] else { return false };
        let account = match (self.account(), &self.group.config.monitor) {
            (Ok(account), _) => link::Account { database: Vec::new(), ..account },
            (Err(_), Some(account)) => monitor::account(&account.user, &account.password),
            (Err(_), None) => return false,
        };
        link::kill_query(&self.group, link.backend(), &account, link.connection_id)
            .await
            .inspect_err(|error| {
                tracing::debug!(error = monitor::causes(error), "a statement was not killed")
            })
            .is_ok()
    }
}
