//! A connection to a server: how it is made, and small questions over it.

use crate::config::{GroupKind, ServerCompression};
use crate::error::SessionError;
use crate::frames::Compressed;
use crate::group::{Backend, Group, Occupied};
use crate::pool::{Key, Place, Pooled};
use crate::prepared::Known;
use crate::wire::{Wire, prepare_socket};
use base::Secret;
use mysql::protocol::{
    Answer, AuthSwitch, CACHING_SHA2, CLEAR, Capabilities, Command, Compression, Ends, FieldReader, Greeting,
    LoginRequest, NATIVE, ServerError, Status, Step, ZSTD_LEVEL, encrypt_for, fast_sha2, native, packet,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A server that does not take a connection within this is away.
pub const CONNECT_MAX: Duration = Duration::from_secs(3);
/// From the connection to the end of the login.
pub const LOGIN_MAX: Duration = Duration::from_secs(10);
/// Steps of a login: the longest exchange that is known takes four.
const LOGIN_STEPS_MAX: usize = 16;

static SERIALS: AtomicU64 = AtomicU64::new(1);

/// A server's connection that has logged in.
#[derive(Debug)]
pub struct Link {
    pub wire: Wire,
    pub capabilities: Capabilities,
    /// The server's own number of the connection, for KILL.
    pub connection_id: u32,
    /// No other connection of this process has it.
    pub serial: u64,
    /// Whose settings it has: no two sessions have the same, and one that is reset has another. 0 is nobody.
    pub owner: u64,
    /// The owner's settings that were said on it, in this order; `None` where that is not known.
    pub said: Option<Arc<Vec<Vec<u8>>>>,
    /// The current database there.
    pub database: Vec<u8>,
    /// It was reset, and its character set is the server's and not the login's.
    pub is_bare: bool,
    /// What is prepared there.
    pub known: Known,
    /// It tells of changes of the session that its clients are not told of (`session_track_state_change`).
    pub tracks: bool,
    /// Of one that sessions share.
    pub pooled: Option<Pooled>,
    /// Its server goes, and the session cannot leave it before this.
    pub stays_until: Option<Instant>,
    occupied: Occupied,
}

impl Link {
    pub fn new(wire: Wire, capabilities: Capabilities, connection_id: u32, backend: Arc<Backend>) -> Self {
        Self {
            wire,
            capabilities,
            connection_id,
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            owner: 0,
            said: Some(Arc::default()),
            database: Vec::new(),
            is_bare: false,
            known: Known::default(),
            tracks: false,
            pooled: None,
            stays_until: None,
            occupied: Occupied::new(backend),
        }
    }

    /// Above those of all connections that are there now.
    pub fn next_serial() -> u64 {
        SERIALS.load(Ordering::Relaxed)
    }

    /// Whether a login with this key would have led to it.
    pub fn is_of(&self, key: &Arc<Key>) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| Arc::ptr_eq(&pooled.key, key) || pooled.key == *key)
    }

    pub fn generation(&self) -> Option<u64> {
        self.pooled.as_ref().map(|pooled| pooled.key.generation)
    }

    pub fn age(&self) -> Duration {
        self.pooled.as_ref().map_or(Duration::ZERO, Pooled::age)
    }

    /// It is nobody's from here on; its place.
    pub fn free(&mut self) -> Option<Place> {
        self.occupied.uncount();
        self.pooled.as_mut()?.place.take()
    }

    /// It is somebody's again.
    pub fn occupy(&mut self, place: Option<Place>) {
        self.occupied.count();
        if let Some(pooled) = &mut self.pooled {
            pooled.place = place;
        }
    }

    pub fn backend(&self) -> &Arc<Backend> {
        self.occupied.backend()
    }

    /// A connection of the mesh's own, which is no load of the server's.
    pub fn uncount(&mut self) {
        self.occupied.uncount();
    }

    /// Asks something small; its rows as texts.
    ///
    /// # Errors
    /// The server's, and those of the connection, after which it must not be used again.
    pub async fn ask(&mut self, sql: &str) -> Result<Table, SessionError> {
        self.ask_for(sql, SMALL_BYTES_MAX).await
    }

    /// The same, with an answer of up to so many bytes.
    pub async fn ask_for(&mut self, sql: &str, bytes_max: usize) -> Result<Table, SessionError> {
        self.send(Command::Query, sql.as_bytes()).await?;
        let mut answer = Answer::to(Command::Query, self.capabilities);
        let mut all = Vec::new();
        loop {
            let (consumed, step) = answer.advance(self.wire.held());
            let started = all.len();
            all.extend_from_slice(&self.wire.held()[..consumed]);
            self.wire.consume(consumed);
            match step {
                Step::Done(end) if end.error => {
                    let payload = &all[started..][end.payload];
                    let error = ServerError::read(payload).map_err(|_| self.garbled("error"))?;
                    return Err(SessionError::Server { address: self.backend().address.clone(), error });
                }
                Step::Done(_) => return Ok(Table::read(&all, self.capabilities)),
                Step::File | Step::Over => return Err(self.garbled("answer")),
                Step::More => {
                    if all.len() > bytes_max || self.wire.fill().await.map_err(|e| self.lost(e))? == 0 {
                        return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    /// Sends a command of one packet.
    pub async fn send(&mut self, command: Command, argument: &[u8]) -> Result<(), SessionError> {
        let packet = self.packet(command, argument);
        self.wire.write_all(&packet).await.map_err(|e| self.lost(e))
    }

    fn packet(&self, command: Command, argument: &[u8]) -> Vec<u8> {
        let code = match command {
            Command::InitDatabase => 2,
            Command::ResetConnection => 0x1f,
            Command::Prepare => 0x16,
            Command::CloseStatement => 0x19,
            Command::Ping => 0x0e,
            _ => 3,
        };
        let mut payload = vec![code];
        if command == Command::Query && self.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            // No parameters, in one set of them.
            payload.extend_from_slice(&[0, 1]);
        }
        payload.extend_from_slice(argument);
        packet(0, &payload)
    }

    /// Sends a command of one packet that has no rows, and waits until it is carried out.
    pub async fn told(&mut self, command: Command, argument: &[u8]) -> Result<Option<Status>, SessionError> {
        self.send(command, argument).await?;
        self.settled(command).await
    }

    /// Reads the answer to one command that has no rows, and throws it away but for its end.
    pub async fn settled(&mut self, command: Command) -> Result<Option<Status>, SessionError> {
        self.answered(command).await.map(|(status, _)| status)
    }

    /// Says what each connection of the group begins with.
    ///
    /// # Errors
    /// Where a statement is refused, or leaves a transaction open, which the client is told; and those of the connection.
    pub async fn initialise(&mut self, group: &Group) -> Result<(), SessionError> {
        let statements = &group.config.init;
        let refused = |sql: &str, number, state, why: &str| SessionError::Refused {
            number,
            state,
            reason: format!("tidemill: `init` of group `{}`, {sql}: {why}", group.name),
        };
        let all = async {
            for sql in statements {
                self.send(Command::Query, sql.as_bytes()).await?;
                match self.settled(Command::Query).await {
                    Ok(Some(status)) if status.has(Status::IN_TRANSACTION) => {
                        return Err(refused(sql, 1105, *b"HY000", "it leaves a transaction open"));
                    }
                    Ok(_) => {}
                    Err(SessionError::Server { error, .. }) => {
                        return Err(refused(sql, error.number, error.state, &error.message));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        tokio::time::timeout(LOGIN_MAX, all).await.unwrap_or(Err(SessionError::Slow {
            what: "a server's answer to `init`",
            seconds: LOGIN_MAX.as_secs(),
        }))
    }

    /// Prepares a statement; its number, and how many parameters it has.
    pub async fn prepare(&mut self, sql: &[u8]) -> Result<(u32, u16), SessionError> {
        self.send(Command::Prepare, sql).await?;
        let (_, prepared) = self.answered(Command::Prepare).await?;
        prepared.ok_or_else(|| self.garbled("prepared statement"))
    }

    /// Carries out several commands without waiting in between. Every answer is read, whatever the others are.
    ///
    /// # Errors
    /// The first of the server's, and those of the connection.
    pub async fn run(&mut self, commands: &[(Command, Vec<u8>)]) -> Result<(), (Command, SessionError)> {
        let bytes: Vec<u8> =
            commands.iter().flat_map(|(command, argument)| self.packet(*command, argument)).collect();
        let first = commands.first().map_or(Command::Ping, |(command, _)| *command);
        self.wire.write_all(&bytes).await.map_err(|e| (first, self.lost(e)))?;
        let mut refused = None;
        for (command, _) in commands.iter().filter(|(command, _)| !command.is_silent()) {
            match self.settled(*command).await {
                Ok(_) => {}
                Err(error @ SessionError::Server { .. }) => refused = refused.or(Some((*command, error))),
                Err(error) => return Err((*command, error)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    async fn answered(
        &mut self,
        command: Command,
    ) -> Result<(Option<Status>, Option<(u32, u16)>), SessionError> {
        let mut answer = Answer::to(command, self.capabilities);
        loop {
            let (consumed, step) = answer.advance(self.wire.held());
            if let Step::Done(end) = &step
                && end.error
            {
                let error = ServerError::read(&self.wire.held()[end.payload.clone()])
                    .map_err(|_| self.garbled("error"))?;
                self.wire.consume(consumed);
                return Err(SessionError::Server { address: self.backend().address.clone(), error });
            }
            self.wire.consume(consumed);
            match step {
                Step::Done(end) => return Ok((end.status, answer.prepared())),
                Step::File | Step::Over => return Err(self.garbled("answer")),
                Step::More => {
                    if self.wire.fill().await.map_err(|e| self.lost(e))? == 0 {
                        return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    pub fn lost(&self, source: io::Error) -> SessionError {
        SessionError::Backend { address: self.backend().address.clone(), source }
    }

    fn garbled(&self, what: &'static str) -> SessionError {
        SessionError::Garbled { address: self.backend().address.clone(), what }
    }
}

/// Answers to questions of our own are a few rows; more is none of ours.
const SMALL_BYTES_MAX: usize = 256 * 1024;

/// The answer to a question of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// The packets of a text result: a count, its definitions, rows, an end.
    fn read(bytes: &[u8], capabilities: Capabilities) -> Self {
        let mut packets = Vec::new();
        let mut rest = FieldReader::new(bytes);
        while let Ok(header) = rest.take(4) {
            let Ok(payload) = rest.take(mysql::protocol::payload_bytes(header)) else { break };
            packets.push(payload);
        }
        let first = packets.first().filter(|first| first.first() != Some(&0));
        let count = first.and_then(|first| FieldReader::new(first).integer().ok()).unwrap_or(0);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (Some(definitions), true) = (packets.get(1..count.saturating_add(1)), count > 0) else {
            return Self::default();
        };
        let before = 1 + count + usize::from(!capabilities.has(Capabilities::DEPRECATE_EOF));
        let rows = packets.get(before..packets.len().saturating_sub(1)).unwrap_or_default();
        Self {
            columns: definitions.iter().map(|definition| column_name(definition)).collect(),
            rows: rows.iter().map(|row| cells(row, count)).collect(),
        }
    }

    /// The first row's value of a column; `None` where there is no such row or column, or it is NULL.
    pub fn first(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name.eq_ignore_ascii_case(column))?;
        self.rows.first()?.get(index)?.as_deref()
    }

    pub fn rows(&self) -> impl Iterator<Item = &[Option<String>]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// The only value of a row of one column.
    pub fn only(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// The fifth text of a definition: after catalogue, schema, table and original table.
fn column_name(definition: &[u8]) -> String {
    let mut fields = FieldReader::new(definition);
    let name = (0..5).filter_map(|_| fields.bytes().ok()).nth(4);
    String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
}

fn cells(row: &[u8], count: usize) -> Vec<Option<String>> {
    let mut fields = FieldReader::new(row);
    let cell = |_| {
        if fields.rest().first() == Some(&0xfb) {
            let _ = fields.u8();
            return None;
        }
        fields.bytes().ok().map(|text| String::from_utf8_lossy(text).into_owned())
    };
    (0..count).map(cell).collect()
}

/// Who logs in, and how the session is to be.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: Vec<u8>,
    pub password: Secret,
    pub capabilities: Capabilities,
    pub collation: u8,
    pub database: Vec<u8>,
    pub attributes: Vec<u8>,
    /// The client for whom it is; `None` for the mesh itself.
    pub ends: Option<Ends>,
}

/// Connects, says for whom where the group wants it (`None`: for the mesh itself), and reads the greeting.
pub async fn connect(
    group: &Group,
    backend: &Backend,
    client: Option<Ends>,
) -> Result<(Wire, Greeting), SessionError> {
    let lost = |source| SessionError::Backend { address: backend.address.clone(), source };
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(&backend.address))
        .await
        .map_err(|_| lost(io::ErrorKind::TimedOut.into()))?
        .map_err(lost)?;
    prepare_socket(&stream).map_err(lost)?;
    let mut wire = Wire::new(stream);
    if let Some(version) = group.config.proxy_protocol.version() {
        wire.write_all(&version.write(client)).await.map_err(lost)?;
    }
    let (_, payload) = wire.read_packet().await.map_err(lost)?;
    if payload.first() == Some(&0xff) {
        let error = ServerError::read(&payload).map_err(|_| garbled(backend, "greeting"))?;
        return Err(SessionError::Server { address: backend.address.clone(), error });
    }
    let greeting = Greeting::read(&payload).map_err(|_| garbled(backend, "greeting"))?;
    if greeting.salt.len() != 20
        || !greeting.capabilities.has(Capabilities::PROTOCOL_41 | Capabilities::PLUGIN_AUTH)
    {
        return Err(garbled(backend, "greeting of protocol 4.1"));
    }
    Ok((wire, greeting))
}

/// Asks for TLS where the group has it. The next packet's number.
pub async fn secure(
    group: &Group,
    backend: &Backend,
    wire: &mut Wire,
    greeting: &Greeting,
    login: &mut LoginRequest,
) -> Result<u8, SessionError> {
    let lost = |source| SessionError::Backend { address: backend.address.clone(), source };
    let Some(connector) = &group.connector else { return Ok(1) };
    if !greeting.capabilities.has(Capabilities::TLS) {
        return Err(lost(io::Error::new(io::ErrorKind::Unsupported, "the server offers no TLS")));
    }
    login.capabilities = login.capabilities | Capabilities::TLS;
    wire.write_all(&packet(1, &login.write_tls_request())).await.map_err(lost)?;
    wire.start_tls(|stream| connector.connect(&backend.address, stream)).await.map_err(lost)?;
    Ok(2)
}

/// Asks for compression where the group wants it and the server offers it; it begins behind the login's OK.
pub fn agree(group: &Group, greeting: &Greeting, login: &mut LoginRequest) -> Option<Compressed> {
    let (wanted, compression) = match group.config.compression {
        ServerCompression::Off => return None,
        ServerCompression::Zlib => (Capabilities::COMPRESS, Compression::Zlib),
        ServerCompression::Zstd => (Capabilities::ZSTD, Compression::Zstd),
    };
    if !greeting.capabilities.has(wanted) {
        return None;
    }
    login.capabilities = login.capabilities | wanted;
    login.zstd_level = ZSTD_LEVEL;
    Some(Compressed::with_server(compression, ZSTD_LEVEL))
}

/// Logs in with a password that we have.
///
/// # Errors
/// The server's refusal, or that it cannot be reached, within [`LOGIN_MAX`].
pub async fn login(group: &Group, backend: &Arc<Backend>, account: &Account) -> Result<Link, SessionError> {
    // In a place of its own, which a session does not keep for all its life.
    let entered = Box::pin(async {
        let mut link = log_in(group, backend, account).await?;
        // Not on the mesh's own, which asks other things.
        if account.ends.is_some() {
            link.initialise(group).await?;
        }
        Ok(link)
    });
    tokio::time::timeout(LOGIN_MAX, entered)
        .await
        .unwrap_or(Err(SessionError::Slow { what: "a server's login", seconds: LOGIN_MAX.as_secs() }))
}

/// Has a server stop what one of its connections runs.
///
/// # Errors
/// Where it does not take the order.
pub async fn kill_query(
    group: &Group,
    backend: &Arc<Backend>,
    account: &Account,
    number: u32,
) -> Result<(), SessionError> {
    let verb = match group.config.kind {
        GroupKind::Mysql => "KILL QUERY",
        GroupKind::Tidb => "KILL TIDB QUERY",
    };
    let mut side = login(group, backend, account).await?;
    side.uncount();
    side.ask(&format!("{verb} {number}")).await.map(|_| ())
}

async fn log_in(group: &Group, backend: &Arc<Backend>, account: &Account) -> Result<Link, SessionError> {
    let lost = |source| SessionError::Backend { address: backend.address.clone(), source };
    let (mut wire, greeting) = connect(group, backend, account.ends).await?;
    let password = account.password.expose().as_bytes();
    let (plugin, proof) = proof(&greeting.plugin, &greeting.salt, password);
    let mut request = LoginRequest {
        capabilities: account.capabilities & greeting.capabilities,
        packet_bytes_max: 1 << 30,
        collation: account.collation,
        user: account.user.clone(),
        proof,
        database: account.database.clone(),
        plugin: plugin.to_vec(),
        attributes: account.attributes.clone(),
        zstd_level: 0,
    };
    if account.database.is_empty() {
        request.capabilities = request.capabilities.without(Capabilities::CONNECT_WITH_DATABASE);
    }
    let capabilities = request.capabilities;
    let compressed = agree(group, &greeting, &mut request);
    let mut sequence = secure(group, backend, &mut wire, &greeting, &mut request).await?;
    let mut salt = greeting.salt.clone();
    let mut answer = request.write();
    for _ in 0..LOGIN_STEPS_MAX {
        wire.write_all(&packet(sequence, &answer)).await.map_err(lost)?;
        loop {
            let (number, payload) = wire.read_packet().await.map_err(lost)?;
            sequence = number.wrapping_add(1);
            match payload.first() {
                Some(0) => {
                    if let Some(agreed) = compressed {
                        wire.compress(agreed, usize::MAX).map_err(lost)?;
                    }
                    let mut link = Link::new(wire, capabilities, greeting.connection_id, backend.clone());
                    link.database.clone_from(&account.database);
                    return Ok(link);
                }
                Some(0xff) => {
                    let error = ServerError::read(&payload).map_err(|_| garbled(backend, "error"))?;
                    return Err(SessionError::Server { address: backend.address.clone(), error });
                }
                Some(0xfe) => {
                    let switch = AuthSwitch::read(&payload)
                        .map_err(|_| garbled(backend, "change of authentication"))?;
                    salt.clone_from(&switch.salt);
                    answer = if switch.plugin == CLEAR && wire.is_tls() {
                        [password, &[0]].concat()
                    } else if switch.plugin == NATIVE || switch.plugin == CACHING_SHA2 {
                        self::proof(&switch.plugin, &switch.salt, password).1
                    } else {
                        let plugin = String::from_utf8_lossy(&switch.plugin).into_owned();
                        return Err(SessionError::Refused {
                            number: 2059,
                            state: *b"HY000",
                            reason: format!(
                                "tidemill: {} authenticates with `{plugin}`, which the mesh cannot do by itself; use `auth: relay`",
                                backend.address
                            ),
                        });
                    };
                    break;
                }
                // The server knows the proof; its OK follows.
                Some(1) if payload.get(1) == Some(&3) => {}
                Some(1) if payload.get(1) == Some(&4) => {
                    answer = if wire.is_tls() { [password, &[0]].concat() } else { vec![2] };
                    break;
                }
                Some(1) => {
                    answer =
                        encrypt_for(&payload[1..], &salt, password).map_err(|_| garbled(backend, "key"))?;
                    break;
                }
                _ => return Err(garbled(backend, "step of a login")),
            }
        }
    }
    Err(garbled(backend, "end of a login"))
}

/// Logs in at a TiDB by a token that another one of its cluster has signed for this user.
///
/// # Errors
/// The server's refusal, or that it cannot be reached, within [`LOGIN_MAX`].
pub async fn login_by_token(
    group: &Group,
    backend: &Arc<Backend>,
    account: &Account,
    token: &str,
) -> Result<Link, SessionError> {
    tokio::time::timeout(LOGIN_MAX, Box::pin(log_in_by_token(group, backend, account, token)))
        .await
        .unwrap_or(Err(SessionError::Slow { what: "a server's login", seconds: LOGIN_MAX.as_secs() }))
}

async fn log_in_by_token(
    group: &Group,
    backend: &Arc<Backend>,
    account: &Account,
    token: &str,
) -> Result<Link, SessionError> {
    let lost = |source| SessionError::Backend { address: backend.address.clone(), source };
    let (mut wire, greeting) = connect(group, backend, account.ends).await?;
    let mut request = LoginRequest {
        capabilities: (account.capabilities | Capabilities::AUTH_LENGTH_ENCODED) & greeting.capabilities,
        packet_bytes_max: 1 << 30,
        collation: account.collation,
        user: account.user.clone(),
        proof: token.as_bytes().to_vec(),
        plugin: SESSION_TOKEN.to_vec(),
        attributes: account.attributes.clone(),
        ..LoginRequest::default()
    };
    let capabilities = request.capabilities;
    let compressed = agree(group, &greeting, &mut request);
    let sequence = secure(group, backend, &mut wire, &greeting, &mut request).await?;
    wire.write_all(&packet(sequence, &request.write())).await.map_err(lost)?;
    let (_, payload) = wire.read_packet().await.map_err(lost)?;
    match payload.first() {
        Some(0) => {
            if let Some(agreed) = compressed {
                wire.compress(agreed, usize::MAX).map_err(lost)?;
            }
            Ok(Link::new(wire, capabilities, greeting.connection_id, backend.clone()))
        }
        Some(0xff) => {
            let error = ServerError::read(&payload).map_err(|_| garbled(backend, "error"))?;
            Err(SessionError::Server { address: backend.address.clone(), error })
        }
        _ => Err(garbled(backend, "end of a login by a token")),
    }
}

/// TiDB's plugin for sessions that move.
const SESSION_TOKEN: &[u8] = b"tidb_session_token";

/// The plugin that answers `wanted`, and its answer.
fn proof<'a>(wanted: &'a [u8], salt: &[u8], password: &[u8]) -> (&'a [u8], Vec<u8>) {
    if wanted == NATIVE {
        (NATIVE, native(salt, password))
    } else {
        (CACHING_SHA2, fast_sha2(salt, password))
    }
}

pub fn garbled(backend: &Backend, what: &'static str) -> SessionError {
    SessionError::Garbled { address: backend.address.clone(), what }
}
