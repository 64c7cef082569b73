//! From an accepted socket to a session: the greeting, TLS, and who proves the password.

use super::authenticate::{AuthRelay, Check, RELAY};
use super::links::{WRITER_LOOK, WRITER_MAX};
use super::{Identity, Session};
use crate::admission::Admission;
use crate::config::AuthMode;
use crate::error::SessionError;
use crate::frames::Compressed;
use crate::group::{Backend, Group, Profile};
use crate::link::{self, Link, garbled};
use crate::lot;
use crate::shared::{Listener, Shared};
use crate::tenant::{self, Facts};
use crate::wire::{LOGIN_BYTES_MAX, ProxyHeaderCame, Wire};
use mysql::protocol::{
    CACHING_SHA2, Capabilities, Compression, Ends, Greeting, LoginRequest, NATIVE, ProxyHeader, Status,
    TLS_REQUEST_BYTES, ok_packet, packet,
};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;

/// From the accepted socket to the end of the login: a slow client holds a session for no longer.
const LOGIN_MAX: Duration = Duration::from_secs(10);
/// How long a balancer may take to say who its client is.
const PROXY_HEADER_MAX: Duration = Duration::from_secs(3);
/// How long a client waits where no server has greeted us yet.
const FIRST_SERVER_MAX: Duration = Duration::from_secs(5);
/// What may be agreed on with a client, if its server can do it too. Left out is what belongs to one leg (TLS,
/// compression) or changes answers in ways that are not followed here.
const OFFERED: Capabilities = Capabilities(
    Capabilities::LONG_PASSWORD.0
        | Capabilities::FOUND_ROWS.0
        | Capabilities::LONG_FLAG.0
        | Capabilities::CONNECT_WITH_DATABASE.0
        | Capabilities::NO_SCHEMA.0
        | Capabilities::ODBC.0
        | Capabilities::LOCAL_FILES.0
        | Capabilities::IGNORE_SPACE.0
        | Capabilities::PROTOCOL_41.0
        | Capabilities::INTERACTIVE.0
        | Capabilities::IGNORE_SIGPIPE.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::RESERVED.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::MULTI_STATEMENTS.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PREPARED_MULTI_RESULTS.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::CONNECT_ATTRIBUTES.0
        | Capabilities::AUTH_LENGTH_ENCODED.0
        | Capabilities::EXPIRED_PASSWORDS.0
        | Capabilities::SESSION_TRACK.0
        | Capabilities::DEPRECATE_EOF.0
        | Capabilities::QUERY_ATTRIBUTES.0
        | Capabilities::REMEMBER_OPTIONS.0
        | Capabilities::MARIADB_PROGRESS.0
        | Capabilities::MARIADB_BULK.0
        | Capabilities::MARIADB_EXTENDED_METADATA.0
        | Capabilities::MARIADB_BULK_RESULTS.0,
);

const COMPRESSION: Capabilities = Capabilities(Capabilities::COMPRESS.0 | Capabilities::ZSTD.0);

/// A socket that has just been accepted.
pub struct Newcomer {
    pub stream: TcpStream,
    pub listener: Arc<Listener>,
    pub shared: Arc<Shared>,
    /// The number of the thread that carries it.
    pub thread: usize,
}

/// Lets a client in, or says why not; then the client has been told.
pub async fn enter(newcomer: Newcomer) -> Result<Box<Session>, SessionError> {
    let ends = |stream: &TcpStream| Ok(Ends { client: stream.peer_addr()?, server: stream.local_addr()? });
    let mut door = Door {
        ends: ends(&newcomer.stream).map_err(SessionError::Client)?,
        client: Wire::new(newcomer.stream),
        listener: newcomer.listener,
        shared: newcomer.shared,
        sequence: 0,
    };
    let entered = tokio::time::timeout(LOGIN_MAX, door.enter())
        .await
        .unwrap_or(Err(SessionError::Slow { what: "the client's login", seconds: LOGIN_MAX.as_secs() }));
    match entered {
        Ok(entry) => Ok(Box::new(Session::new(door.client, door.shared, newcomer.thread, entry))),
        Err(error) => {
            if let Some(packet) = error.packet(door.sequence) {
                let _ = door.client.write_all(&packet).await;
                door.client.shutdown().await;
            }
            Err(error)
        }
    }
}

/// What a login leads to.
pub struct Entry {
    pub identity: Identity,
    pub group: Arc<Group>,
    pub admission: Admission,
    /// The connection that the client authenticated on, with `relay`.
    pub link: Option<Link>,
    pub status: Status,
}

struct Door {
    client: Wire,
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    ends: Ends,
    /// The next packet's number towards the client.
    sequence: u8,
}

impl Door {
    async fn enter(&mut self) -> Result<Entry, SessionError> {
        let header = self.proxy_header().await?;
        if let Some(ends) = header.ends {
            self.ends = ends;
        }
        let (groups, profile) = first_profile(&self.shared, &self.listener.groups).await?;
        let vault = groups.iter().any(|group| group.config.auth != AuthMode::Relay);
        let mut offered = profile.capabilities & OFFERED;
        offered = offered.without(COMPRESSION) | self.listener.compression;
        if vault {
            // They stand before statements and in executions, which are sent on to several servers.
            offered = offered.without(Capabilities::QUERY_ATTRIBUTES);
        }
        if self.listener.acceptor.is_some() {
            offered = offered | Capabilities::TLS;
        }
        let id = self.shared.next_id();
        let greeting = Greeting {
            version: profile.version.clone(),
            connection_id: id,
            salt: lot::salt(),
            capabilities: offered,
            collation: profile.collation,
            status: Status::AUTOCOMMIT.0,
            // Connector/J takes a MariaDB for a server that is too old for `caching_sha2_password`, by its version 5.5.5.
            plugin: if vault && !profile.capabilities.mariadb() {
                CACHING_SHA2.to_vec()
            } else {
                profile.plugin.clone()
            },
        };
        self.say(&greeting.write()).await?;
        let login = self.read_login(offered).await?;
        let group = self.choose(&groups, &login, &header)?;
        let identity = Identity {
            id,
            user: login.user.clone(),
            capabilities: login.capabilities & offered & OFFERED,
            collation: login.collation,
            database: login.database.clone(),
            attributes: login.attributes.clone(),
            ends: self.ends,
            password: None,
        };
        match group.config.auth {
            AuthMode::Relay => self.relay(group, identity, &greeting, &login).await,
            AuthMode::Vault | AuthMode::Mapped => self.verify(group, identity, &greeting, &login).await,
        }
    }

    /// The group that a login belongs to.
    fn choose(
        &self,
        groups: &[Arc<Group>],
        login: &LoginRequest,
        header: &ProxyHeader,
    ) -> Result<Arc<Group>, SessionError> {
        let (user, database) =
            (String::from_utf8_lossy(&login.user), String::from_utf8_lossy(&login.database));
        let sni = self.client.server_name();
        let facts = Facts { user: &user, database: &database, sni, attributes: &login.attributes, header };
        match tenant::choose(groups, self.listener.fallback, facts) {
            Some((group, reason)) => {
                tracing::debug!(%user, %database, sni, group = group.name, reason, "a client's group");
                Ok(group.clone())
            }
            None => Err(SessionError::Refused {
                number: 1045,
                state: *b"28000",
                reason: format!(
                    "tidemill: no group of this port takes user '{user}' with database '{database}'; see `match` and `fallback`"
                ),
            }),
        }
    }

    /// What a balancer of ours says before anything else; nothing from everyone else.
    async fn proxy_header(&mut self) -> Result<ProxyHeader, SessionError> {
        let peer = self.ends.client.ip();
        if !self.listener.proxies.iter().any(|network| network.contains(peer)) {
            return Ok(ProxyHeader::default());
        }
        tokio::time::timeout(PROXY_HEADER_MAX, self.read_proxy_header()).await.unwrap_or(Err(
            SessionError::Slow { what: "the balancer's PROXY header", seconds: PROXY_HEADER_MAX.as_secs() },
        ))
    }

    async fn read_proxy_header(&mut self) -> Result<ProxyHeader, SessionError> {
        loop {
            match ProxyHeader::read(self.client.held()) {
                Ok(Some((header, bytes))) => {
                    self.client.consume(bytes);
                    return Ok(header);
                }
                Ok(None) if self.client.fill().await.map_err(SessionError::Client)? > 0 => {}
                Ok(None) => return Err(SessionError::Client(std::io::ErrorKind::UnexpectedEof.into())),
                Err(error) => {
                    let reason = format!("tidemill: {error}, and `proxy_protocol` of this port asks for one");
                    return Err(super::authenticate::refused(1043, &reason));
                }
            }
        }
    }

    async fn say(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        self.client.write_all(&packet(self.sequence, payload)).await.map_err(SessionError::Client)?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    async fn hear(&mut self) -> Result<Vec<u8>, SessionError> {
        let room = self.shared.memory.bytes_max;
        let (number, payload) = match self.client.read_packet_within(LOGIN_BYTES_MAX, room).await {
            Err(error) if error.get_ref().is_some_and(|cause| cause.is::<ProxyHeaderCame>()) => {
                // What is unread when a socket closes would take the last words with it.
                poll_fn(|cx| Poll::Ready(self.client.poll_fill(cx).is_ready())).await;
                let peer = self.ends.client.ip();
                let reason = format!(
                    "tidemill: a PROXY header from {peer}, which `proxy_protocol` of this port does not name"
                );
                return Err(super::authenticate::refused(1043, &reason));
            }
            heard => heard.map_err(SessionError::Client)?,
        };
        self.sequence = number.wrapping_add(1);
        Ok(payload)
    }

    /// The client's login, after TLS where it asks for it.
    async fn read_login(&mut self, offered: Capabilities) -> Result<LoginRequest, SessionError> {
        let mut payload = self.hear().await?;
        if payload.len() == TLS_REQUEST_BYTES {
            let acceptor = self
                .listener
                .acceptor
                .clone()
                .ok_or_else(|| super::authenticate::refused(1043, "tidemill: this port has no TLS"))?;
            self.client
                .start_tls(|stream| async move { acceptor.accept(stream).await })
                .await
                .map_err(SessionError::Client)?;
            payload = self.hear().await?;
        }
        let mut login = LoginRequest::read(&payload)?;
        if self.listener.tls_required && !self.client.is_tls() {
            return Err(SessionError::Refused {
                number: 3159,
                state: *b"HY000",
                reason: "tidemill: connections without TLS are not let in here".into(),
            });
        }
        if !login.capabilities.has(Capabilities::SECURE_CONNECTION) {
            return Err(super::authenticate::refused(
                1251,
                "tidemill: the client is too old: it knows only the passwords of MySQL 4.0",
            ));
        }
        // Some drivers then compress without having been offered it, and would wait for ever for an answer in kind.
        if !offered.has(login.capabilities & COMPRESSION) {
            return Err(super::authenticate::refused(
                1043,
                "tidemill: compression of this kind is not offered here; turn it off in the client",
            ));
        }
        // What was not offered was not agreed on, whatever the client says.
        login.capabilities = login.capabilities & offered;
        Ok(login)
    }

    /// What the client has asked for begins behind its OK. One that can do both gets zlib, as from servers.
    fn compress(&mut self, login: &LoginRequest) -> Result<(), SessionError> {
        let compression = if login.capabilities.has(Capabilities::COMPRESS) {
            Compression::Zlib
        } else if login.capabilities.has(Capabilities::ZSTD) {
            Compression::Zstd
        } else {
            return Ok(());
        };
        let agreed = Compressed::with_client(compression, login.zstd_level);
        self.client.compress(agreed, self.shared.memory.bytes_max).map_err(SessionError::Client)
    }

    /// The mesh knows the password: the client proves it to us.
    async fn verify(
        &mut self,
        group: Arc<Group>,
        mut identity: Identity,
        greeting: &Greeting,
        login: &LoginRequest,
    ) -> Result<Entry, SessionError> {
        // Who does not speak of plug-ins has proven the password in the way that was there before them.
        let plugin = if login.capabilities.has(Capabilities::PLUGIN_AUTH) {
            login.plugin.clone()
        } else {
            NATIVE.to_vec()
        };
        let salt = greeting.salt.clone();
        let mut check =
            Check { client: &mut self.client, sequence: &mut self.sequence, users: &group.config.users };
        identity.password = Some(check.run(&login.user, plugin, salt, login.proof.clone()).await?);
        let admission = group.admissions.admit(&group.name, &group.config, &identity.user)?;
        let ok = ok_packet(self.sequence, Status::AUTOCOMMIT);
        self.client.write_all(&ok).await.map_err(SessionError::Client)?;
        self.compress(login)?;
        Ok(Entry { identity, group, admission, link: None, status: Status::AUTOCOMMIT })
    }

    /// The server knows the password: its questions and the client's answers pass through.
    async fn relay(
        &mut self,
        group: Arc<Group>,
        mut identity: Identity,
        said: &Greeting,
        login: &LoginRequest,
    ) -> Result<Entry, SessionError> {
        let (backend, mut wire, greeting) = reach(&self.shared, &group, identity.ends).await?;
        let missing = identity.capabilities.without(greeting.capabilities);
        if missing != Capabilities::default() {
            // A server that came after the greeting, and can do less than the others.
            return Err(garbled(&backend, "greeting of what the client was promised"));
        }
        identity.capabilities = identity.capabilities.without(Capabilities::TLS);
        // Asking for the account's own way needs plug-ins. A client that says it has none may still answer, as npm's `mysql` does.
        let capabilities = identity.capabilities | Capabilities::PLUGIN_AUTH;
        let mut request = LoginRequest {
            capabilities,
            plugin: RELAY.to_vec(),
            proof: Vec::new(),
            zstd_level: 0,
            ..login.clone()
        };
        let compressed = link::agree(&group, &greeting, &mut request);
        let sequence = link::secure(&group, &backend, &mut wire, &greeting, &mut request).await?;
        let mut relay = AuthRelay {
            client: &mut self.client,
            sequence: &mut self.sequence,
            wire: &mut wire,
            backend: &backend,
            // An empty proof in the greeting's own way is that of no password.
            no_password: (matches!(login.proof[..], [] | [0]) && login.plugin == said.plugin)
                .then_some((&login.plugin, &login.proof)),
        };
        let (ok, status) = relay.run(sequence, request.write()).await?;
        let admission = group.admissions.admit(&group.name, &group.config, &identity.user)?;
        if let Some(agreed) = compressed {
            wire.compress(agreed, usize::MAX).map_err(|_| garbled(&backend, "end of a login"))?;
        }
        let mut link = Link::new(wire, capabilities, greeting.connection_id, backend);
        link.initialise(&group).await?;
        self.say(&ok).await?;
        self.compress(login)?;
        Ok(Entry { identity, group, admission, link: Some(link), status })
    }
}

/// These groups as they are now, and what every server of them can do; waits a little for the first of them.
async fn first_profile(
    shared: &Shared,
    groups: &[Arc<Group>],
) -> Result<(Vec<Arc<Group>>, Profile), SessionError> {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let deadline = tokio::time::Instant::now() + FIRST_SERVER_MAX;
    loop {
        let groups: Vec<_> = groups.iter().map(|group| shared.newest(group)).collect();
        let mut known = groups.iter().filter_map(|group| group.profile());
        if let Some(mut profile) = known.next() {
            for other in known {
                profile.capabilities = profile.capabilities & other.capabilities;
            }
            return Ok((groups, profile));
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(SessionError::NoBackend { group: groups[0].name.clone(), role: "server" });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A connection to a server that takes writes; one that cannot be reached is passed over.
/// While a replica is being promoted there is none for a moment, and the login waits.
async fn reach(
    shared: &Shared,
    group: &Arc<Group>,
    ends: Ends,
) -> Result<(Arc<Backend>, Wire, Greeting), SessionError> {
    let deadline = tokio::time::Instant::now() + WRITER_MAX;
    loop {
        let newest = shared.newest(group);
        if let Some(drained) = newest.drained_writer() {
            return Err(super::drained(&newest, drained));
        }
        match reach_now(&newest, ends).await {
            Err(SessionError::NoBackend { .. } | SessionError::Backend { .. })
                if tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(WRITER_LOOK).await;
            }
            result => return result,
        }
    }
}

async fn reach_now(group: &Group, ends: Ends) -> Result<(Arc<Backend>, Wire, Greeting), SessionError> {
    let mut tried = Vec::new();
    let mut last = None;
    while let Some(backend) = group.pick(crate::config::Role::Writer, &tried) {
        match link::connect(group, &backend, Some(ends)).await {
            Ok((wire, greeting)) => return Ok((backend, wire, greeting)),
            Err(error) => {
                if matches!(error, SessionError::Backend { .. }) {
                    backend.failed(&crate::monitor::causes(&error), true);
                }
                tried.push(backend.address.clone());
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| SessionError::NoBackend { group: group.name.clone(), role: "writer" }))
}
