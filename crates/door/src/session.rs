//! One client: its commands, one behind the other, and what they leave behind.

use crate::columns::{Told, binary_row, parameter, text_row};
use crate::error::SqlError;
use crate::login::LoggedIn;
use crate::packets::{Packets, Reader};
use crate::plan::{Verb, verb};
use crate::prepared::{Prepared, STATEMENTS_BYTES_MAX, STATEMENTS_MAX};
use crate::state::{Answer, State};
use crate::text::Text;
use crate::variables::Variables;
use crate::{Door, Present};
use base::Value;
use engine::{Rows, Shape};
use mysql::protocol::{Command, FieldReader, put_integer};
use std::collections::BTreeMap;
use std::io;
use tokio::sync::watch;
use tokio::time::Instant;

pub struct Session<'d> {
    state: State<'d>,
    packets: Packets,
    prepared: BTreeMap<u32, Prepared>,
    next_statement: u32,
    ends: Ends,
}

/// Serves a client until it goes, or has to.
pub async fn run(door: &Door, client: LoggedIn, id: u32, present: &Present) -> io::Result<()> {
    let LoggedIn { packets, user, database, admitted, tls } = client;
    let user = format!("{user}@localhost");
    let mut session = Session {
        state: State {
            door,
            id,
            user,
            tls,
            database: None,
            variables: Variables::default(),
            in_transaction: false,
            found: 0,
        },
        packets,
        prepared: BTreeMap::new(),
        next_statement: 1,
        ends: Ends {
            stop_query: present.stop_query.subscribe(),
            stop: present.stop.subscribe(),
            gone: admitted.gone,
        },
    };
    if let Some(database) = database
        && let Err(error) = session.enter(&database).await?
    {
        session.packets.error(&error).await?;
        return session.packets.flush().await;
    }
    session.packets.ok(session.state.status()).await?;
    session.packets.flush().await?;
    loop {
        let idle = session.state.variables.idle_max(door.waits.idle);
        let (mut stop, mut gone) = (session.ends.stop.clone(), session.ends.gone.clone());
        let command = tokio::select! {
            command = tokio::time::timeout(idle, session.packets.command()) => command,
            () = turned(&mut stop) => return session.last_word(1927, "Connection was killed").await,
            () = turned(&mut gone) => return session.last_word(1045, "the token is no good any more").await,
        };
        let payload = match command {
            Ok(Ok(Some(payload))) => payload,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::FileTooLarge => return session.last_word(1153, &error.to_string()).await,
                io::ErrorKind::InvalidData => return session.last_word(1156, &error.to_string()).await,
                _ => return Err(error),
            },
            Err(_) => {
                return session
                    .last_word(4031, "The client was disconnected by the server because of inactivity")
                    .await;
            }
        };
        if !session.command(&payload).await? {
            return Ok(());
        }
        session.packets.flush().await?;
    }
}

impl Session<'_> {
    async fn last_word(&mut self, number: u16, message: &str) -> io::Result<()> {
        self.packets.error(&SqlError::new(number, message)).await?;
        self.packets.flush().await
    }

    /// Does one command; false where it was the last.
    async fn command(&mut self, payload: &[u8]) -> io::Result<bool> {
        let Some((first, rest)) = payload.split_first() else {
            self.packets.error(&SqlError::new(1047, "Unknown command")).await?;
            return Ok(true);
        };
        match Command::of(*first) {
            Command::Quit => return Ok(false),
            Command::Ping => self.packets.ok(self.state.status()).await?,
            Command::InitDatabase => {
                let entered = match std::str::from_utf8(rest) {
                    Ok(name) => self.enter(name).await?,
                    Err(_) => Err(SqlError::new(1049, "Unknown database: its name is not UTF-8")),
                };
                self.ok_or(entered).await?;
            }
            Command::Query => self.text(rest).await?,
            Command::FieldList => self.field_list(rest).await?,
            Command::Statistics => {
                let clients = self.state.door.present().len();
                self.packets.put(format!("Threads: {clients}").as_bytes()).await?;
            }
            Command::ProcessKill => {
                let id = FieldReader::new(rest).u32().unwrap_or_default();
                let killed = self.state.kill(id, false);
                self.ok_or(killed).await?;
            }
            Command::SetOption => {
                // Several statements at once, which are refused one by one.
                match FieldReader::new(rest).u16() {
                    Ok(1) => self.packets.end(self.state.status(), true).await?,
                    _ => self.packets.error(&SqlError::not_supported("several statements at once")).await?,
                }
            }
            Command::ResetConnection => {
                self.state.reset();
                self.prepared.clear();
                self.packets.ok(self.state.status()).await?;
            }
            Command::Prepare => self.prepare(rest).await?,
            Command::Execute => self.execute(rest).await?,
            Command::LongData => self.long_data(rest),
            Command::CloseStatement => {
                if let Ok(id) = FieldReader::new(rest).u32() {
                    self.prepared.remove(&id);
                }
            }
            Command::ResetStatement => {
                let id = FieldReader::new(rest).u32().unwrap_or_default();
                let found = match self.prepared.get_mut(&id) {
                    Some(prepared) => {
                        prepared.long.iter_mut().for_each(|it| *it = None);
                        Ok(())
                    }
                    None => Err(unknown_statement(id, "mysqld_stmt_reset")),
                };
                self.ok_or(found).await?;
            }
            Command::Fetch => {
                let id = FieldReader::new(rest).u32().unwrap_or_default();
                let error = SqlError::new(1421, format!("The statement ({id}) has no open cursor."));
                self.packets.error(&error).await?;
            }
            Command::Debug => self.packets.end(self.state.status(), true).await?,
            Command::ChangeUser => {
                // A proof would be wanted anew: pools connect again instead.
                self.packets.error(&SqlError::not_supported("COM_CHANGE_USER: connect again")).await?;
                self.packets.flush().await?;
                return Ok(false);
            }
            _ => self.packets.error(&SqlError::new(1047, "Unknown command")).await?,
        }
        Ok(true)
    }

    async fn ok_or(&mut self, result: Result<(), SqlError>) -> io::Result<()> {
        match result {
            Ok(()) => self.packets.ok(self.state.status()).await,
            Err(error) => self.fail(&error).await,
        }
    }

    /// USE, and what a client begins in.
    async fn enter(&mut self, database: &str) -> io::Result<Result<(), SqlError>> {
        let until = self.begin();
        unless(self.state.enter(database), self.ends.ended(self.packets.reader(), until)).await
    }

    /// The columns of a query.
    async fn shape(&mut self, sql: &str) -> io::Result<Result<Shape, SqlError>> {
        let until = self.begin();
        unless(self.state.shape(sql), self.ends.ended(self.packets.reader(), until)).await
    }

    /// From here KILL QUERY counts; when the time of the statement is over.
    fn begin(&mut self) -> Instant {
        self.ends.stop_query.mark_unchanged();
        Instant::now() + self.state.variables.time_max(self.state.door.waits.query)
    }

    async fn fail(&mut self, error: &SqlError) -> io::Result<()> {
        metrics::counter!(base::metrics::DOOR_ERRORS).increment(1);
        self.packets.error(error).await
    }

    /// COM_QUERY.
    async fn text(&mut self, sql: &[u8]) -> io::Result<()> {
        let Ok(sql) = std::str::from_utf8(sql) else {
            let error = SqlError::new(1300, "Invalid utf8mb4 character string: the SQL door speaks utf8mb4");
            return self.fail(&error).await;
        };
        self.answer(sql, false).await
    }

    /// Runs a statement, and sends what comes of it.
    async fn answer(&mut self, sql: &str, binary: bool) -> io::Result<()> {
        metrics::counter!(base::metrics::DOOR_STATEMENTS).increment(1);
        let until = self.begin();
        let ended = self.ends.ended(self.packets.reader(), until);
        match unless(self.state.statement(sql), ended).await? {
            Ok(Answer::Ok) => self.packets.ok(self.state.status()).await,
            Ok(Answer::Table(columns, rows)) => {
                let told: Vec<Told> = columns.into_iter().map(|it| Told::new(it, None, true)).collect();
                self.head(&told).await?;
                self.state.found = rows.len() as u64;
                match self.rows(&rows, &told, binary, until).await? {
                    Some(ended) => self.fail(&ended.told()?).await,
                    None => self.packets.end(self.state.status(), true).await,
                }
            }
            Ok(Answer::Rows(rows)) => self.stream(rows, binary, until).await,
            Err(error) => self.fail(&error).await,
        }
    }

    async fn head(&mut self, told: &[Told]) -> io::Result<()> {
        let mut count = Vec::new();
        put_integer(&mut count, told.len() as u64);
        self.packets.put(&count).await?;
        for column in told {
            self.packets.put(&column.definition()).await?;
        }
        self.packets.end(self.state.status(), false).await
    }

    /// Sends rows, until their query has to end. A client that reads slowly sees to it that this is looked at between its
    /// rows: a buffer that it does not take in time ends the connection.
    async fn rows(
        &mut self,
        rows: &[Vec<Value>],
        told: &[Told],
        binary: bool,
        until: Instant,
    ) -> io::Result<Option<Ended>> {
        let mut payload = Vec::new();
        for row in rows {
            payload.clear();
            if binary {
                binary_row(row, told, &mut payload);
            } else {
                text_row(row, told, &mut payload);
            }
            self.packets.put(&payload).await?;
            if self.packets.is_flushed()
                && let Some(ended) = self.ends.now(until)
            {
                return Ok(Some(ended));
            }
        }
        metrics::counter!(base::metrics::DOOR_ROWS).increment(rows.len() as u64);
        Ok(None)
    }

    /// Rows as the engine reads them: no more of them wait than its queue and our buffer hold.
    async fn stream(&mut self, mut rows: Rows, binary: bool, until: Instant) -> io::Result<()> {
        let columns = std::mem::take(&mut rows.columns).into_iter().zip(std::mem::take(&mut rows.origins));
        let converted = self.state.is_converting();
        let told: Vec<Told> = columns.map(|(column, origin)| Told::new(column, origin, converted)).collect();
        self.head(&told).await?;
        let rows_max = self.state.variables.rows_max();
        let mut sent = 0;
        loop {
            let next = async { rows.next().await.map_err(SqlError::from) };
            match unless(next, self.ends.ended(self.packets.reader(), until)).await? {
                Ok(Some(mut batch)) => {
                    batch.truncate(usize::try_from(rows_max - sent).unwrap_or(usize::MAX));
                    sent += batch.len() as u64;
                    if let Some(ended) = self.rows(&batch, &told, binary, until).await? {
                        drop(rows);
                        return self.fail(&ended.told()?).await;
                    }
                    if sent == rows_max {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    drop(rows);
                    return self.fail(&error).await;
                }
            }
        }
        self.state.found = sent;
        self.packets.end(self.state.status(), true).await
    }

    async fn field_list(&mut self, payload: &[u8]) -> io::Result<()> {
        let name = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).replace('`', "``");
        match self.shape(&format!("SELECT * FROM `{name}`")).await? {
            Ok(shape) => {
                for told in told(shape, self.state.is_converting()) {
                    let mut payload = told.definition();
                    // Of the default nothing is told.
                    payload.push(0xfb);
                    self.packets.put(&payload).await?;
                }
                self.packets.end(self.state.status(), true).await
            }
            Err(error) => self.fail(&error).await,
        }
    }

    async fn prepare(&mut self, sql: &[u8]) -> io::Result<()> {
        let prepared = match std::str::from_utf8(sql) {
            Ok(sql) => Prepared::new(sql.to_owned())
                .ok_or_else(|| SqlError::not_supported("statements of so many words")),
            Err(_) => Err(SqlError::new(1300, "Invalid utf8mb4 character string")),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.fail(&error).await,
        };
        let kept: usize = self.prepared.values().map(Prepared::bytes).sum();
        if self.prepared.len() >= STATEMENTS_MAX || kept + prepared.bytes() > STATEMENTS_BYTES_MAX {
            let message = format!(
                "Can't create more than max_prepared_stmt_count statements (current value: {STATEMENTS_MAX})"
            );
            return self.fail(&SqlError::new(1461, message)).await;
        }
        let refused = match Text::read(&prepared.sql).map(|text| verb(&text)) {
            Some(Verb::Write) => Some(SqlError::read_only()),
            Some(Verb::Unknown) => Some(SqlError::syntax(&prepared.sql)),
            Some(Verb::Empty) => Some(SqlError::new(1065, "Query was empty")),
            _ => None,
        };
        if let Some(error) = refused {
            return self.fail(&error).await;
        }
        let shape = match self.shape(&prepared.sample()).await? {
            Ok(shape) => shape,
            // What hangs on a value is told when there is one.
            Err(error)
                if prepared.parameters() > 0
                    && ![1049, 1054, 1064, 1142, 1146, 1317, 3024].contains(&error.number) =>
            {
                Shape::default()
            }
            Err(error) => return self.fail(&error).await,
        };
        let (columns, parameters) = (told(shape, self.state.is_converting()), prepared.parameters());
        let Ok(count) = u16::try_from(parameters) else {
            return self
                .fail(&SqlError::new(1390, "Prepared statement contains too many placeholders"))
                .await;
        };
        let id = self.next_statement;
        self.next_statement = self.next_statement.wrapping_add(1).max(1);
        self.prepared.insert(id, prepared);
        let mut payload = vec![0];
        payload.extend_from_slice(&id.to_le_bytes());
        payload.extend_from_slice(&u16::try_from(columns.len()).unwrap_or(u16::MAX).to_le_bytes());
        payload.extend_from_slice(&count.to_le_bytes());
        payload.extend_from_slice(&[0, 0, 0]);
        self.packets.put(&payload).await?;
        if parameters > 0 {
            for _ in 0..parameters {
                self.packets.put(&parameter()).await?;
            }
            self.packets.end(self.state.status(), false).await?;
        }
        if !columns.is_empty() {
            for column in &columns {
                self.packets.put(&column.definition()).await?;
            }
            self.packets.end(self.state.status(), false).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, payload: &[u8]) -> io::Result<()> {
        // Flags ask for a cursor, which nobody must give; one repetition follows.
        let bound = match payload.split_at_checked(9) {
            Some((head, values)) => {
                let id = FieldReader::new(head).u32().unwrap_or_default();
                let prepared = self.prepared.get_mut(&id);
                prepared
                    .ok_or_else(|| unknown_statement(id, "mysqld_stmt_execute"))
                    .and_then(|it| it.bound(values))
            }
            None => Err(SqlError::new(1835, "Malformed communication packet.")),
        };
        match bound {
            Ok(sql) => self.answer(&sql, true).await,
            Err(error) => self.fail(&error).await,
        }
    }

    /// Nobody answers this; what is wrong with it is told at the execution.
    fn long_data(&mut self, payload: &[u8]) {
        let mut fields = FieldReader::new(payload);
        let (Ok(id), Ok(at)) = (fields.u32(), fields.u16()) else { return };
        let kept: usize = self.prepared.values().map(Prepared::bytes).sum();
        let fits = kept + fields.rest().len() <= STATEMENTS_BYTES_MAX;
        if let Some(place) =
            self.prepared.get_mut(&id).and_then(|it| it.long.get_mut(usize::from(at))).filter(|_| fits)
        {
            place.get_or_insert_default().extend_from_slice(fields.rest());
        }
    }
}

fn told(shape: Shape, converted: bool) -> Vec<Told> {
    let columns = shape.columns.into_iter().zip(shape.origins);
    columns.map(|(column, origin)| Told::new(column, origin, converted)).collect()
}

fn unknown_statement(id: u32, by: &str) -> SqlError {
    SqlError::new(1243, format!("Unknown prepared statement handler ({id}) given to {by}"))
}

/// Waits until it is true, or nobody is left who could say so.
async fn turned(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|is| *is).await;
}

/// Why a query ends before its end.
enum Ended {
    Gone,
    Killed,
    OutOfTime,
}

impl Ended {
    /// What the client is told, where it is there.
    fn told(self) -> io::Result<SqlError> {
        match self {
            Self::Gone => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Killed => Ok(SqlError::interrupted()),
            Self::OutOfTime => Ok(SqlError::out_of_time()),
        }
    }
}

/// What ends the work for a client, besides its time.
struct Ends {
    /// Turns when someone ends the query at hand.
    stop_query: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    gone: watch::Receiver<bool>,
}

impl Ends {
    /// Waits until the work has to end.
    async fn ended(&mut self, reader: &mut Reader, until: Instant) -> Ended {
        tokio::select! {
            () = Packets::gone(reader) => Ended::Gone,
            _ = self.stop_query.changed() => Ended::Killed,
            () = turned(&mut self.stop) => Ended::Killed,
            () = turned(&mut self.gone) => Ended::Killed,
            () = tokio::time::sleep_until(until) => Ended::OutOfTime,
        }
    }

    /// Whether it has to end now; that the client has gone is told by the socket.
    fn now(&self, until: Instant) -> Option<Ended> {
        let is_turned = |flag: &watch::Receiver<bool>| *flag.borrow() || flag.has_changed().is_err();
        if self.stop_query.has_changed().unwrap_or(true) || is_turned(&self.stop) || is_turned(&self.gone) {
            return Some(Ended::Killed);
        }
        (Instant::now() >= until).then_some(Ended::OutOfTime)
    }
}

/// Work of the engine, unless it has to end before: a client that goes must not leave a query behind.
async fn unless<T>(
    work: impl Future<Output = Result<T, SqlError>>,
    ended: impl Future<Output = Ended>,
) -> io::Result<Result<T, SqlError>> {
    tokio::select! {
        done = work => Ok(done),
        ended = ended => Ok(Err(ended.told()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rows_end_with_whatever_ends_their_query() {
        let (stop_query, stop, gone) =
            (watch::Sender::new(0), watch::Sender::new(false), watch::Sender::new(false));
        let ends =
            || Ends { stop_query: stop_query.subscribe(), stop: stop.subscribe(), gone: gone.subscribe() };
        let later = Instant::now() + Duration::from_secs(3600);
        let first = ends();
        assert!(first.now(later).is_none());
        assert!(matches!(first.now(Instant::now()), Some(Ended::OutOfTime)));
        stop_query.send_modify(|count| *count += 1);
        assert!(matches!(first.now(later), Some(Ended::Killed)));
        let second = ends();
        assert!(second.now(later).is_none());
        gone.send_replace(true);
        assert!(matches!(second.now(later), Some(Ended::Killed)));
        drop((stop_query, stop, gone));
        assert!(matches!(second.now(later), Some(Ended::Killed)));
    }
}
