//! A server that is asked what another one was asked before: by a replay, or by a mirror.

use crate::compare;
use crate::config::{BackendTls, GroupConfig};
use crate::error::{MeshError, SessionError};
use crate::group::Group;
use crate::link::{self, Account, Link};
use crate::session::Ended;
use crate::tls::Connector;
use base::Secret;
use mysql::protocol::{Answer, Capabilities, Command, PAYLOAD_MAX, Step, packet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// What is agreed on with it beside what the session had.
const BASE: Capabilities = Capabilities(
    Capabilities::LONG_PASSWORD.0
        | Capabilities::LONG_FLAG.0
        | Capabilities::PROTOCOL_41.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PREPARED_MULTI_RESULTS.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::AUTH_LENGTH_ENCODED.0
        | Capabilities::DEPRECATE_EOF.0
        | Capabilities::CONNECT_WITH_DATABASE.0,
);
/// What of a session changes its answers, or what it may ask.
const OF_SESSION: Capabilities = Capabilities(
    Capabilities::FOUND_ROWS.0
        | Capabilities::NO_SCHEMA.0
        | Capabilities::ODBC.0
        | Capabilities::IGNORE_SPACE.0
        | Capabilities::MULTI_STATEMENTS.0
        | Capabilities::QUERY_ATTRIBUTES.0
        | Capabilities::MARIADB_BULK.0,
);

/// The server, and who asks it.
#[derive(Clone, Debug)]
pub struct Target {
    group: Arc<Group>,
    user: String,
    password: Secret,
}

/// How a session was set up at its beginning.
#[derive(Clone, Debug)]
pub struct Setting {
    pub capabilities: Capabilities,
    pub collation: u8,
    pub database: Vec<u8>,
}

impl Default for Setting {
    fn default() -> Self {
        /// `utf8mb4_general_ci`, which every server has.
        const COLLATION: u8 = 45;
        Self { capabilities: Capabilities::MULTI_STATEMENTS, collation: COLLATION, database: Vec::new() }
    }
}

/// An answer to a command.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub answer: compare::Answer,
    /// Number of the statement that it prepared.
    pub prepared: Option<u32>,
}

impl Target {
    /// # Errors
    /// When the system's authorities cannot be read, with `tls: verify`.
    pub fn new(address: &str, user: &str, password: Secret, tls: BackendTls) -> Result<Self, MeshError> {
        let config: GroupConfig = serde_json::from_value(serde_json::json!({
            "backends": [{"addr": address}], "topology": "static", "tls": tls,
        }))
        .expect("what is left out has defaults");
        let connector = Connector::new(address, &config)?;
        let group = Arc::new(Group::new(address.to_owned(), 0, config, connector, None, None));
        Ok(Self { group, user: user.to_owned(), password })
    }

    pub fn address(&self) -> &str {
        &self.group.backends[0].address
    }

    /// Logs in.
    ///
    /// # Errors
    /// The server's, or that it cannot be reached.
    pub async fn log_in(&self, setting: &Setting) -> Result<Link, SessionError> {
        let account = Account {
            user: self.user.clone().into_bytes(),
            password: self.password.clone(),
            capabilities: BASE | setting.capabilities & OF_SESSION,
            collation: setting.collation,
            database: setting.database.clone(),
            attributes: Vec::new(),
            ends: None,
        };
        link::login(&self.group, &self.group.backends[0], &account).await
    }
}

/// Asks `payload`, a command with its first byte, and throws the answer away but for what it was. `hash`: with its rows' hash.
///
/// # Errors
/// The connection's, which must not be used again then.
pub async fn ask(link: &mut Link, command: Command, payload: &[u8], hash: bool) -> io::Result<Told> {
    if payload.len() >= PAYLOAD_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a command of more than 16 MiB"));
    }
    let began = Instant::now();
    link.wire.write_all(&packet(0, payload)).await?;
    let elapsed = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    if command.is_silent() {
        let answer = compare::Answer { elapsed_us: elapsed(), ..compare::Answer::default() };
        return Ok(Told { answer, prepared: None });
    }
    let mut answer = Answer::to(command, link.capabilities);
    if hash {
        answer = answer.hashed();
    }
    loop {
        let (consumed, step) = answer.advance(link.wire.held());
        let mut ended = Ended::default();
        if let Step::Done(end) = &step {
            ended = Ended::read(end, &link.wire.held()[..consumed]);
        }
        link.wire.consume(consumed);
        match step {
            Step::Done(_) => {
                let prepared = answer.prepared().map(|(number, _)| number);
                // The number of a prepared statement stands where a change tells its rows.
                let changed = if prepared.is_some() { 0 } else { ended.changed };
                let rows = answer.rows().max(changed);
                let hash = hash.then(|| answer.hash());
                let answer = compare::Answer { error: ended.number, rows, hash, elapsed_us: elapsed() };
                return Ok(Told { answer, prepared });
            }
            // It was not told that we have files.
            Step::File | Step::Over => return Err(io::ErrorKind::InvalidData.into()),
            Step::More => {
                if link.wire.fill().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}
