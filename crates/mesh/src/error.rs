//! What goes wrong, and as which error of MySQL the client sees it.

use base::{Blame, Code, Fault, Retry};
use mysql::protocol::{ServerError, Truncated, error_packet};
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why a session does not begin, or ends.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The client went away, or never said anything that makes sense.
    #[error("failed to talk with the client")]
    Client(#[source] io::Error),
    #[error("failed to read the client's login")]
    Login(#[from] Truncated),
    #[error("access denied for user `{user}`")]
    Denied { user: String },
    #[error("failed to serve the client: {reason}")]
    Refused { number: u16, state: [u8; 5], reason: String },
    /// The server's own words.
    #[error("the server at {address} refused: {} ({})", .error.message, .error.number)]
    Server { address: String, error: ServerError },
    #[error("failed to reach the server at {address}")]
    Backend {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("no {role} of group `{group}` can be reached")]
    NoBackend { group: String, role: &'static str },
    /// The only server that could do it was told to be left alone.
    #[error(
        "the writer {address} of group `{group}` is drained, and no other server can take its place; take it back with \
         `tidemill mesh undrain {group} {address}`"
    )]
    Drained { group: String, address: String },
    /// The server spoke something else than its protocol.
    #[error("the server at {address} sent what is no {what}")]
    Garbled { address: String, what: &'static str },
    /// All connections of a pool were others' for too long.
    #[error(
        "no connection to {address} became free within {wait:?} (`pool.wait`): all {max} of `pool.max` are in use; raise it, or see in \
         `tidemill mesh status` what keeps them"
    )]
    Busy { address: String, max: usize, wait: Duration },
    #[error("the session waited {seconds} s for {what}")]
    Slow { what: &'static str, seconds: u64 },
}

impl SessionError {
    /// The packet that tells the client; `None` where nobody listens.
    pub fn packet(&self, sequence: u8) -> Option<Vec<u8>> {
        let told =
            |number, state: &[u8; 5], message: &str| Some(error_packet(sequence, number, state, message));
        match self {
            Self::Client(_) => None,
            Self::Login(_) => told(1043, b"08S01", "Bad handshake"),
            Self::Denied { user } => {
                told(1045, b"28000", &format!("Access denied for user '{user}' (checked by the mesh)"))
            }
            Self::Refused { number, state, reason } => told(*number, state, reason),
            Self::Server { error, .. } => told(error.number, &error.state, &error.message),
            Self::Busy { .. } => told(1040, b"08004", &format!("tidemill: {self}")),
            // A number and a state that drivers take for a lost connection, so that pools throw theirs away.
            Self::Backend { .. }
            | Self::NoBackend { .. }
            | Self::Drained { .. }
            | Self::Garbled { .. }
            | Self::Slow { .. } => {
                told(1158, b"08S01", &format!("tidemill: {}", crate::monitor::causes(self)))
            }
        }
    }

    /// One word for the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Login(_) => "handshake",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::Server { .. } => "server",
            Self::Backend { .. } | Self::NoBackend { .. } | Self::Drained { .. } => "unreachable",
            Self::Garbled { .. } => "garbled",
            Self::Busy { .. } => "busy",
            Self::Slow { .. } => "slow",
        }
    }
}

/// Why the mesh does not start.
#[derive(Debug, Error)]
pub enum MeshError {
    #[error("failed to listen on {address} for `{listener}`")]
    Bind {
        listener: String,
        address: std::net::SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("failed to read {what} of `{owner}` from {path}: {reason}")]
    Certificate { owner: String, what: &'static str, path: String, reason: String },
    #[error("failed to make rules: {key}: {reason}")]
    Rule { key: String, reason: String },
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
}

impl Fault for MeshError {
    fn code(&self) -> Code {
        match self {
            Self::Bind { .. } => Code::FailedPrecondition,
            Self::Certificate { .. } | Self::Rule { .. } => Code::Invalid,
            Self::Thread(_) => Code::Exhausted,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Client
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Bind { address, .. } => Some(format!(
                "see who has it with `ss -ltnp 'sport = :{}'`, or choose another `bind`",
                address.port()
            )),
            Self::Certificate { .. } => Some("both files are PEM; the key is not encrypted".into()),
            Self::Rule { .. } => Some("the pattern of a rule is too large: make two of it".into()),
            Self::Thread(_) => None,
        }
    }
}
