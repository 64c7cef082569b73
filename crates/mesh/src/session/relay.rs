//! Commands on their way to a server, and answers on their way back.

use super::{Head, Last, Session, count_transaction, unsupported};
use crate::config::Role;
use crate::error::SessionError;
use crate::wire::Wire;
use mysql::protocol::{
    Answer, Capabilities, Command, End, HEADER_BYTES, PAYLOAD_MAX, Reply, Status, Step, packet,
    payload_bytes, told_less,
};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::task::Poll;

/// What an answer was, beside its bytes.
pub(super) struct Answered {
    pub error: bool,
    /// Of the error; 0 where there is none.
    pub number: u16,
    pub rows: u64,
    /// Rows that it says were changed.
    pub changed: u64,
    pub bytes: u64,
    /// Of the rows, where that was wanted.
    pub hash: u64,
    /// The client's number of the statement that it prepared, the server's, and how many parameters it has.
    pub prepared: Option<(u32, u32, u16)>,
    /// Of its last packet.
    pub status: Option<Status>,
    /// What else that told; `None` where it cannot be said.
    pub told: Option<Told>,
}

impl Answered {
    /// One that the client is told an error of our own in the place of.
    pub fn error(rows: u64, bytes: u64) -> Self {
        /// That the server reported none that is known: what the mesh says in its place differs.
        const UNKNOWN: u16 = 1105;
        Self {
            error: true,
            number: UNKNOWN,
            rows,
            changed: 0,
            bytes,
            hash: 0,
            prepared: None,
            status: None,
            told: None,
        }
    }
}

/// What the packet that ended an answer told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub last_insert_id: u64,
    pub warnings: u16,
    /// It set variables, by the server's own word.
    pub variables: bool,
    /// It changed the session in some way, by the same; where the server was asked to tell.
    pub state: bool,
}

/// What the end of an answer says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended {
    pub error: bool,
    pub number: u16,
    pub changed: u64,
}

impl Ended {
    /// `bytes` are those in which `end` was found.
    pub(crate) fn read(end: &End, bytes: &[u8]) -> Self {
        /// Of an error whose number came in other bytes than its end: that the server reported none that is known.
        const UNKNOWN: u16 = 1105;
        let payload = bytes.get(end.payload.clone()).unwrap_or_default();
        if end.error {
            let number = payload.get(1..3).map_or(UNKNOWN, |two| u16::from_le_bytes([two[0], two[1]]));
            return Self { error: true, number, changed: 0 };
        }
        let is_ok = payload.first() == Some(&0);
        let reply = is_ok.then(|| Reply::read(payload, Capabilities(0)).ok()).flatten();
        Self { changed: reply.map_or(0, |reply| reply.affected), ..Self::default() }
    }
}

/// How a relayed answer ended.
pub(super) enum Outcome {
    Answered(Answered),
    /// The server was lost; the number of a packet that can follow what the client has of the answer.
    Lost {
        error: io::Error,
        sequence: Option<u8>,
    },
}

impl Session {
    /// The length of the client's next packet, whose header is then held.
    pub(super) async fn next_header(&mut self) -> Result<usize, SessionError> {
        while self.client.held().len() < HEADER_BYTES {
            if self.client.fill().await.map_err(SessionError::Client)? == 0 {
                return Err(SessionError::Client(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(payload_bytes(self.client.held()))
    }

    /// Sends the command on, however long it is. The error is the server's; a client that leaves in the midst of a command
    /// leaves the server with half of one, so that connection is closed too.
    /// `front` is said in the place of what is held of it.
    pub(super) async fn forward(&mut self, head: Head, front: Option<&[u8]>) -> io::Result<()> {
        let Some(link) = &mut self.links[self.role as usize] else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let whole = HEADER_BYTES + head.payload;
        if head.payload != PAYLOAD_MAX
            && let Some(command) = self.client.held().get(..whole)
        {
            // It stays in the buffer until its answer begins: it may have to be asked once more, elsewhere.
            self.waiting = whole;
            return link.wire.write_all(front.unwrap_or(command)).await;
        }
        // From here on an error leaves the client in the midst of its command.
        self.cut = true;
        let mut payload = head.payload;
        let mut said = 0;
        if let Some(front) = front {
            link.wire.write_all(front).await?;
            said = self.client.held().len().min(whole);
            self.client.consume(said);
        }
        loop {
            let mut left = HEADER_BYTES + payload - std::mem::take(&mut said);
            while left > 0 {
                let bytes = left.min(self.client.held().len());
                if bytes > 0 {
                    link.wire.write_all(&self.client.held()[..bytes]).await?;
                    self.client.consume(bytes);
                    left -= bytes;
                    continue;
                }
                // A server may refuse a long command before it has all of it.
                let (client, wire) = (&mut self.client, &mut link.wire);
                let came = poll_fn(|cx| match client.poll_fill(cx) {
                    Poll::Ready(read) => Poll::Ready(Some(read)),
                    Poll::Pending => wire.poll_closed(cx).map(|_| None),
                })
                .await;
                match came {
                    Some(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Some(read) => read.map(|_| ())?,
                    None => return Err(io::ErrorKind::ConnectionReset.into()),
                }
            }
            if payload != PAYLOAD_MAX {
                self.cut = false;
                return Ok(());
            }
            while self.client.held().len() < HEADER_BYTES {
                if self.client.fill().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            payload = payload_bytes(self.client.held());
        }
    }

    /// Passes the answer on as it comes, and takes from its end what the session has to know.
    /// `hash`: the rows' hash is wanted.
    pub(super) async fn relay_answer(
        &mut self,
        command: Command,
        cursor: bool,
        hash: bool,
    ) -> Result<Outcome, SessionError> {
        let capabilities =
            self.links[self.role as usize].as_ref().map(|link| link.capabilities).unwrap_or_default();
        let mut answer = Answer::to(command, capabilities);
        if hash {
            answer = answer.hashed();
        }
        if !cursor {
            answer = answer.without_cursor();
        }
        let less = self.tells_less();
        if self.client.is_compressed() || less {
            answer.stop_at_results();
        }
        answer.stop_at(self.judge.rows_max());
        let mut passed = 0;
        let mut own = None;
        let mut changed_state = false;
        let number = (command == Command::Prepare && self.is_several()).then(|| self.next_statement());
        loop {
            let Some(link) = &mut self.links[self.role as usize] else {
                return Err(unsupported("an answer of nobody"));
            };
            let (consumed, step) = answer.advance(link.wire.held());
            if consumed > 0 {
                if self.writing {
                    // Before the client is told what the command did: from then on nobody may read anything older.
                    self.group.writes.fetch_add(1, Ordering::Relaxed);
                }
                let bytes = &link.wire.held()[..consumed];
                let mut ended = Ended::default();
                let mut now = None;
                let (mut told, mut status) = (None, None);
                if let Step::Done(end) = &step {
                    ended = Ended::read(end, bytes);
                    // Before the client is told: it may ask at once what has become of the other.
                    if let Some(killing) = self.killing.take_if(|_| !ended.error) {
                        killing.done();
                    }
                    status = end.status;
                    told = bytes
                        .get(end.payload.clone())
                        .and_then(|payload| read_end(payload, end.status, capabilities))
                        .map(|told| Told { state: told.state || changed_state, ..told });
                    if ended.error
                        && let Some(start) = end.payload.start.checked_sub(HEADER_BYTES)
                        && let Some(packet) = self.judge.last_words(answer.sequence())
                    {
                        // The server ended what it was told to end; the client is told why.
                        let before = &bytes[..start];
                        self.client.consume(std::mem::take(&mut self.waiting));
                        self.client.write_all(before).await.map_err(SessionError::Client)?;
                        self.client.write_all(&packet).await.map_err(SessionError::Client)?;
                        link.wire.consume(consumed);
                        self.judge.note_rows(answer.rows());
                        let bytes = passed + consumed as u64;
                        let rows = answer.rows();
                        return Ok(Outcome::Answered(Answered::error(rows, bytes)));
                    }
                    now = end.status.filter(|_| self.role == Role::Writer);
                    if let Some(payload) = bytes.get(end.payload.clone())
                        && end.status.is_some_and(|status| status.has(Status::SESSION_CHANGED))
                        && let Ok(reply) = Reply::read(payload, capabilities)
                        && let Some(database) = reply.database()
                        && database != self.identity.database
                    {
                        self.identity.database = database.to_vec();
                        self.state.changed();
                        link.database.clone_from(&self.identity.database);
                    }
                }
                let between = answer.result_end().filter(|_| less);
                if let Some(payload) = between.clone().and_then(|place| bytes.get(place)) {
                    let reply = Reply::read(payload, capabilities);
                    changed_state |= reply.is_ok_and(Reply::changes_state);
                }
                let place = match &step {
                    Step::Done(end) if end.status.is_some() => Some(end.payload.clone()),
                    _ => between,
                };
                let for_client = place
                    .filter(|_| less)
                    .and_then(|place| for_client(bytes, place, self.identity.capabilities));
                let bytes = for_client.as_deref().unwrap_or(bytes);
                self.client.consume(std::mem::take(&mut self.waiting));
                if let (Some(number), None, Some((server, _))) = (number, own, answer.prepared()) {
                    // The first packet of the answer: a mark, and the number.
                    own = Some(server);
                    let mut bytes = bytes.to_vec();
                    bytes[HEADER_BYTES + 1..HEADER_BYTES + 5].copy_from_slice(&number.to_le_bytes());
                    self.client.write_all(&bytes).await.map_err(SessionError::Client)?;
                } else {
                    self.client.write_all(bytes).await.map_err(SessionError::Client)?;
                }
                if let Some(status) = now {
                    // After the client has been told: a node that stops waits for as many as are counted.
                    count_transaction(&self.shared, self.status, status);
                    self.status = status;
                }
                link.wire.consume(consumed);
                passed += consumed as u64;
                match step {
                    Step::Done(_) => {
                        let prepared = answer
                            .prepared()
                            .map(|(server, parameters)| (number.unwrap_or(server), server, parameters));
                        let rows = answer.rows();
                        self.judge.note_rows(rows);
                        return Ok(Outcome::Answered(Answered {
                            error: ended.error,
                            number: ended.number,
                            rows,
                            changed: if rows == 0 && prepared.is_none() { ended.changed } else { 0 },
                            bytes: passed,
                            hash: answer.hash(),
                            prepared,
                            status,
                            told,
                        }));
                    }
                    Step::File => {
                        self.send_file().await?;
                        continue;
                    }
                    Step::More if answer.take_result_ended() => {
                        self.client.end_result();
                        continue;
                    }
                    Step::Over => return self.cut(answer, passed).await,
                    Step::More => {}
                }
            } else if step == Step::Over {
                return self.cut(answer, passed).await;
            }
            let deadline = self.judge.deadline();
            // Asked here, too: a server that always has more would not let a timer be heard.
            if deadline.is_some_and(|at| at <= tokio::time::Instant::now()) {
                if let Some(lost) = self.end_by_time(&mut answer).await {
                    return Ok(lost);
                }
                continue;
            }
            let Some(link) = &mut self.links[self.role as usize] else {
                return Err(unsupported("an answer of nobody"));
            };
            let filled = fill_while_heard(&mut link.wire, &mut self.client);
            let came = match deadline {
                None => filled.await?,
                Some(at) => match tokio::time::timeout_at(at, filled).await {
                    Ok(came) => came?,
                    Err(_) => continue,
                },
            };
            let error = match came {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Ok(Outcome::Lost { error, sequence: answer.next_sequence() });
        }
    }

    /// The packets of a file of the client's, up to the empty one behind it.
    async fn send_file(&mut self) -> Result<(), SessionError> {
        self.number_as_file(true);
        loop {
            let payload = self.next_header().await?;
            if let Err(error) = self.forward_packet(payload).await {
                let address = self.links[self.role as usize]
                    .as_ref()
                    .map(|link| link.backend().address.clone())
                    .unwrap_or_default();
                return Err(SessionError::Backend { address, source: error });
            }
            if payload == 0 {
                self.number_as_file(false);
                return Ok(());
            }
        }
    }

    /// Where packets are in frames: those of a file come round to 0 and are no commands.
    fn number_as_file(&mut self, file: bool) {
        self.client.file(file);
        if let Some(link) = &mut self.links[self.role as usize] {
            link.wire.file(file);
        }
    }

    async fn forward_packet(&mut self, payload: usize) -> io::Result<()> {
        let Some(link) = &mut self.links[self.role as usize] else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut left = HEADER_BYTES + payload;
        while left > 0 {
            let bytes = left.min(self.client.held().len());
            if bytes > 0 {
                link.wire.write_all(&self.client.held()[..bytes]).await?;
                self.client.consume(bytes);
                left -= bytes;
            } else if self.client.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The server was lost in the midst of a command. Whether it did what it was asked is not known, so nothing is asked
    /// again: the client gets one error, and its session goes on where no part of an answer stands in the way.
    pub(super) async fn lost(&mut self, outcome: Outcome) -> Result<(), SessionError> {
        let Outcome::Lost { error, sequence } = outcome else { return Ok(()) };
        let Some(mut link) = self.links[self.role as usize].take() else { return Ok(()) };
        self.seat.leave(self.role);
        // A server that closes in the midst of a long command may have said why.
        let said = poll_fn(|cx| Poll::Ready(link.wire.poll_fill(cx).is_ready())).await
            && link.wire.held().get(HEADER_BYTES) == Some(&0xff);
        let own = sequence
            .and_then(|sequence| self.judge.last_words(sequence))
            .or_else(|| said.then(|| link.wire.held().to_vec()));
        let error = link.lost(error);
        if !self.judge.has_ended() {
            self.group.note_lost(link.backend());
        }
        drop(link);
        self.shared.counters.broken.fetch_add(1, Ordering::Relaxed);
        count_transaction(&self.shared, self.status, Status::AUTOCOMMIT);
        self.status = Status::AUTOCOMMIT;
        self.pinned = None;
        self.last = Last::default();
        if self.role == Role::Writer {
            self.statements.lose();
        }
        let Some(packet) = sequence.and_then(|sequence| own.or_else(|| error.packet(sequence))) else {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        };
        self.client.write_all(&packet).await.map_err(SessionError::Client)?;
        if self.identity.password.is_none() || self.cut {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        }
        Ok(())
    }

    /// A connection that is no longer commands and answers: bytes in both directions, until either side ends.
    pub(super) async fn stream(&mut self) -> Result<(), SessionError> {
        self.connect(super::Need { clean: true, ..super::Need::default() }).await?;
        let Some(link) = &mut self.links[self.role as usize] else { return Ok(()) };
        loop {
            pass_on(&mut self.client, &mut link.wire).await?;
            pass_on(&mut link.wire, &mut self.client).await?;
            let (client, wire) = (&mut self.client, &mut link.wire);
            let read = poll_fn(|cx| match client.poll_fill(cx) {
                Poll::Ready(read) => Poll::Ready(read),
                Poll::Pending => wire.poll_fill(cx),
            })
            .await;
            if read.map_err(SessionError::Client)? == 0 {
                link.wire.shutdown().await;
                return Ok(());
            }
        }
    }
}

/// The last packet of an answer: an OK, or the EOF in its place.
fn read_end(payload: &[u8], status: Option<Status>, capabilities: Capabilities) -> Option<Told> {
    status?;
    if payload.first() == Some(&0xfe) && payload.len() < 7 {
        let warnings = payload.get(1..3).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        return Some(Told { warnings, ..Told::default() });
    }
    let reply = Reply::read(payload, capabilities).ok()?;
    Some(Told {
        last_insert_id: reply.last_insert_id,
        warnings: reply.warnings,
        variables: reply.sets_variables(),
        state: reply.changes_state(),
    })
}

/// The same bytes, of which the last are a whole OK packet, as the client is to have them; `None` where that is no other.
fn for_client(bytes: &[u8], payload: Range<usize>, client: Capabilities) -> Option<Vec<u8>> {
    // One that came in pieces is longer than all that a session is told of by itself.
    let start = payload.start.checked_sub(HEADER_BYTES)?;
    let less = told_less(bytes.get(payload.clone())?, client.has(Capabilities::SESSION_TRACK))?;
    let sequence = *bytes.get(payload.start - 1)?;
    (payload.end == bytes.len()).then(|| [&bytes[..start], &packet(sequence, &less)].concat())
}

/// Waits for the server. A client that leaves meanwhile takes the session with it, as it would without us.
async fn fill_while_heard(wire: &mut Wire, client: &mut Wire) -> Result<io::Result<usize>, SessionError> {
    let mut listening = true;
    poll_fn(|cx| {
        if let Poll::Ready(read) = wire.poll_fill(cx) {
            return Poll::Ready(Ok(read));
        }
        if listening && let Poll::Ready(closed) = client.poll_closed(cx) {
            if closed {
                return Poll::Ready(Err(SessionError::Client(io::ErrorKind::UnexpectedEof.into())));
            }
            // The next command has come already; it waits.
            listening = false;
        }
        Poll::Pending
    })
    .await
}

/// Everything that is held on one side goes to the other.
async fn pass_on(from: &mut Wire, to: &mut Wire) -> Result<(), SessionError> {
    let bytes = from.held().len();
    if bytes > 0 {
        to.write_all(from.held()).await.map_err(SessionError::Client)?;
        from.consume(bytes);
    }
    Ok(())
}
