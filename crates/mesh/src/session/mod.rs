//! A session: commands of one client, each answered by a server.
//!
//! ```text
//! next_command ─ connection ─ forward ─ relay_answer ─ settle
//! ```
//! Commands and answers pass through one leased buffer per direction; of an answer only what ends it is looked at. While a
//! client is idle its session holds no buffer, and watches its server: one that goes away is let go before the next command
//! would be lost on it.

mod login;

pub use login::{Entry, Newcomer, enter};

use crate::config::{AuthMode, Role};
use crate::error::SessionError;
use crate::group::Group;
use crate::link::{self, Account, Link};
use crate::shared::Shared;
use crate::wire::Wire;
use base::Secret;
use mysql::protocol::{
    Answer, Capabilities, Command, HEADER_BYTES, PAYLOAD_MAX, Reply, Status, Step, payload_bytes,
};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

/// Who the client is, and what was agreed on with it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: u32,
    pub user: Vec<u8>,
    pub capabilities: Capabilities,
    pub collation: u8,
    pub database: Vec<u8>,
    pub attributes: Vec<u8>,
    /// Proven to us, with `vault` and `mapped`.
    pub password: Option<Secret>,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    client: Wire,
    shared: Arc<Shared>,
    group: Arc<Group>,
    identity: Identity,
    /// The server that takes writes and everything else that is not surely a read.
    writer: Option<Link>,
    status: Status,
}

/// What the client wants next.
#[derive(Clone, Copy, Debug)]
struct Head {
    command: Command,
    /// Of its first packet.
    payload: usize,
}

/// How a relayed answer ended.
enum Outcome {
    Answered,
    /// The server was lost; the number of a packet that can follow what the client has of the answer.
    Lost { error: io::Error, sequence: Option<u8> },
}

impl Session {
    pub fn new(client: Wire, shared: Arc<Shared>, entry: Entry) -> Self {
        let Entry { identity, group, link, status } = entry;
        count_transaction(&shared, Status::AUTOCOMMIT, status);
        Self { client, shared, group, identity, writer: link, status }
    }

    /// Serves commands until the client or its server ends it.
    ///
    /// # Errors
    /// Why it ended, when the client did not end it; the client has been told.
    pub async fn serve(mut self) -> Result<(), SessionError> {
        let result = self.commands().await;
        if let Err(error) = &result
            && let Some(packet) = error.packet(1)
        {
            let _ = self.client.write_all(&packet).await;
        }
        self.client.shutdown().await;
        result
    }

    async fn commands(&mut self) -> Result<(), SessionError> {
        while let Some(head) = self.next_command().await? {
            if self.shared.closing.load(Ordering::Relaxed) && !self.status.has(Status::IN_TRANSACTION) {
                return Err(SessionError::Refused {
                    number: 1053,
                    state: *b"08S01",
                    reason: "Server shutdown in progress".into(),
                });
            }
            match head.command {
                Command::Quit => return Ok(()),
                Command::ChangeUser => return Err(unsupported("COM_CHANGE_USER")),
                command if command.is_stream() => return self.stream().await,
                _ => self.one(head).await?,
            }
        }
        Ok(())
    }

    /// Waits for a command: all of it, or as much of a long one as a buffer holds. `None` when the client left.
    async fn next_command(&mut self) -> Result<Option<Head>, SessionError> {
        loop {
            let held = self.client.held();
            if held.len() > HEADER_BYTES {
                let payload = payload_bytes(held);
                if payload == 0 {
                    return Err(unsupported("an empty command"));
                }
                if held.len() >= HEADER_BYTES + payload || self.client.is_full() {
                    return Ok(Some(Head { command: Command::of(held[HEADER_BYTES]), payload }));
                }
            }
            if self.idle().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits for the client, and meanwhile notices a server that goes away.
    async fn idle(&mut self) -> Result<usize, SessionError> {
        let (client, writer) = (&mut self.client, &mut self.writer);
        let (bytes, lost) = poll_fn(|cx| {
            if let Poll::Ready(read) = client.poll_fill(cx) {
                return Poll::Ready((Some(read), false));
            }
            if let Some(link) = writer
                && link.wire.poll_readable(cx).is_ready()
                && link.wire.poll_fill(cx).is_ready()
            {
                // It closes, or says why it will: nobody asked it anything.
                return Poll::Ready((None, true));
            }
            Poll::Pending
        })
        .await;
        if lost {
            self.lose_idle().await?;
            return Ok(1);
        }
        bytes.unwrap_or(Ok(0)).map_err(SessionError::Client)
    }

    /// The server of an idle session went away: with a password the next command finds another, unless a transaction or
    /// something else was open there. A relayed session ends with the server's own words, where it left any.
    async fn lose_idle(&mut self) -> Result<(), SessionError> {
        let Some(mut link) = self.writer.take() else { return Ok(()) };
        if self.can_move() {
            self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.shared.counters.broken.fetch_add(1, Ordering::Relaxed);
        let words = link.wire.held().to_vec();
        if words.get(HEADER_BYTES) == Some(&0xff) {
            self.client.write_all(&words).await.map_err(SessionError::Client)?;
            link.wire.shutdown().await;
        }
        Err(SessionError::Client(io::ErrorKind::ConnectionReset.into()))
    }

    /// Whether another server can take this session's next command without the client noticing.
    fn can_move(&self) -> bool {
        self.identity.password.is_some() && !self.status.has(Status::IN_TRANSACTION)
    }

    /// One command and its answer.
    async fn one(&mut self, head: Head) -> Result<(), SessionError> {
        if let Err(error) = self.connect().await {
            self.refuse(head, &error).await?;
            return Ok(());
        }
        if let Err(lost) = self.forward(head).await {
            return self.lost(Outcome::Lost { error: lost, sequence: Some(1) }).await;
        }
        if head.command.is_silent() {
            return Ok(());
        }
        match self.relay_answer(head.command).await? {
            Outcome::Answered => Ok(()),
            lost @ Outcome::Lost { .. } => self.lost(lost).await,
        }
    }

    /// A connection to the writer; a relayed session has it from its login and no other way.
    async fn connect(&mut self) -> Result<(), SessionError> {
        if let Some(link) = &self.writer {
            if link.backend().role() == Role::Writer || self.status.has(Status::IN_TRANSACTION) {
                return Ok(());
            }
            // It is a replica now: writes belong to its successor.
            if self.identity.password.is_none() {
                let address = link.backend().address.clone();
                return Err(SessionError::Backend {
                    address,
                    source: io::Error::other("it takes no writes any more; connect again"),
                });
            }
            self.writer = None;
            self.shared.counters.moved.fetch_add(1, Ordering::Relaxed);
        }
        let mut tried = Vec::new();
        let mut last = None;
        while let Some(backend) = self.group.pick(Role::Writer, &tried) {
            match link::login(&self.group, &backend, &self.account()?).await {
                Ok(link) => {
                    self.writer = Some(link);
                    return Ok(());
                }
                Err(error) => {
                    if matches!(error, SessionError::Backend { .. }) {
                        backend.failed(&crate::monitor::causes(&error), true);
                    }
                    tried.push(backend.address.clone());
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| SessionError::NoBackend { group: self.group.name.clone(), role: "writer" }))
    }

    /// Whom a server sees.
    fn account(&self) -> Result<Account, SessionError> {
        let identity = &self.identity;
        let none = || unsupported("a second login without a password");
        let (user, password) = match (self.group.config.auth, &self.group.config.account) {
            (AuthMode::Mapped, Some(account)) => (account.name.clone().into_bytes(), account.password.clone()),
            _ => (identity.user.clone(), identity.password.clone().ok_or_else(none)?),
        };
        Ok(Account {
            user,
            password,
            capabilities: identity.capabilities,
            collation: identity.collation,
            database: identity.database.clone(),
            attributes: identity.attributes.clone(),
        })
    }

    /// The server cannot be had: the client is told in the command's place, and the session goes on if it can.
    async fn refuse(&mut self, head: Head, error: &SessionError) -> Result<(), SessionError> {
        self.swallow(head).await?;
        if !head.command.is_silent()
            && let Some(packet) = error.packet(1)
        {
            self.client.write_all(&packet).await.map_err(SessionError::Client)?;
        }
        if self.identity.password.is_none() {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        }
        Ok(())
    }

    /// Reads a command that goes nowhere.
    async fn swallow(&mut self, head: Head) -> Result<(), SessionError> {
        let mut payload = head.payload;
        loop {
            let mut left = HEADER_BYTES + payload;
            while left > 0 {
                let bytes = left.min(self.client.held().len());
                self.client.consume(bytes);
                left -= bytes;
                if left > 0 && self.client.fill().await.map_err(SessionError::Client)? == 0 {
                    return Err(SessionError::Client(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            if payload != PAYLOAD_MAX {
                return Ok(());
            }
            payload = self.next_header().await?;
        }
    }

    /// The length of the client's next packet, whose header is then held.
    async fn next_header(&mut self) -> Result<usize, SessionError> {
        while self.client.held().len() < HEADER_BYTES {
            if self.client.fill().await.map_err(SessionError::Client)? == 0 {
                return Err(SessionError::Client(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(payload_bytes(self.client.held()))
    }

    /// Sends the command on, however long it is. The error is the server's; a client that leaves in the midst of a command
    /// leaves the server with half of one, so that connection is closed too.
    async fn forward(&mut self, head: Head) -> io::Result<()> {
        let Some(link) = &mut self.writer else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut payload = head.payload;
        loop {
            let mut left = HEADER_BYTES + payload;
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
    async fn relay_answer(&mut self, command: Command) -> Result<Outcome, SessionError> {
        let capabilities = self.identity.capabilities;
        let mut answer = Answer::to(command, capabilities);
        loop {
            let Some(link) = &mut self.writer else { return Err(unsupported("an answer of nobody")) };
            let (consumed, step) = answer.advance(link.wire.held());
            if consumed > 0 {
                let bytes = &link.wire.held()[..consumed];
                if let Step::Done(end) = &step {
                    if let Some(status) = end.status {
                        count_transaction(&self.shared, self.status, status);
                        self.status = status;
                    }
                    if let Some(payload) = bytes.get(end.payload.clone())
                        && end.status.is_some_and(|status| status.has(Status::SESSION_CHANGED))
                        && let Ok(reply) = Reply::read(payload, capabilities)
                        && let Some(database) = reply.database()
                    {
                        self.identity.database = database.to_vec();
                    }
                }
                self.client.write_all(bytes).await.map_err(SessionError::Client)?;
                link.wire.consume(consumed);
                match step {
                    Step::Done(_) => return Ok(Outcome::Answered),
                    Step::File => {
                        self.send_file().await?;
                        continue;
                    }
                    Step::More => {}
                }
            }
            let Some(link) = &mut self.writer else { return Err(unsupported("an answer of nobody")) };
            let came = fill_while_heard(&mut link.wire, &mut self.client).await?;
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
        loop {
            let payload = self.next_header().await?;
            if let Err(error) = self.forward_packet(payload).await {
                let address = self.writer.as_ref().map(|link| link.backend().address.clone()).unwrap_or_default();
                return Err(SessionError::Backend { address, source: error });
            }
            if payload == 0 {
                return Ok(());
            }
        }
    }

    async fn forward_packet(&mut self, payload: usize) -> io::Result<()> {
        let Some(link) = &mut self.writer else { return Err(io::ErrorKind::NotConnected.into()) };
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
    async fn lost(&mut self, outcome: Outcome) -> Result<(), SessionError> {
        let Outcome::Lost { error, sequence } = outcome else { return Ok(()) };
        let Some(link) = self.writer.take() else { return Ok(()) };
        let error = link.lost(error);
        drop(link);
        self.shared.counters.broken.fetch_add(1, Ordering::Relaxed);
        count_transaction(&self.shared, self.status, Status::AUTOCOMMIT);
        self.status = Status::AUTOCOMMIT;
        let Some(packet) = sequence.and_then(|sequence| error.packet(sequence)) else {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        };
        self.client.write_all(&packet).await.map_err(SessionError::Client)?;
        if self.identity.password.is_none() {
            return Err(SessionError::Client(io::ErrorKind::ConnectionAborted.into()));
        }
        Ok(())
    }

    /// A connection that is no longer commands and answers: bytes in both directions, until either side ends.
    async fn stream(&mut self) -> Result<(), SessionError> {
        self.connect().await?;
        let Some(link) = &mut self.writer else { return Ok(()) };
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

impl Drop for Session {
    fn drop(&mut self) {
        count_transaction(&self.shared, self.status, Status::AUTOCOMMIT);
    }
}

/// Counts a transaction that begins or ends.
fn count_transaction(shared: &Shared, was: Status, is: Status) {
    match (was.has(Status::IN_TRANSACTION), is.has(Status::IN_TRANSACTION)) {
        (false, true) => shared.counters.transactions.fetch_add(1, Ordering::Relaxed),
        (true, false) => shared.counters.transactions.fetch_sub(1, Ordering::Relaxed),
        _ => 0,
    };
}

fn unsupported(what: &str) -> SessionError {
    SessionError::Refused { number: 1047, state: *b"08S01", reason: format!("tidemill: {what} is not supported") }
}
