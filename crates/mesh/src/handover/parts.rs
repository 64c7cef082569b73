//! A session written down: all that its process knows of it between two commands.

use crate::config::Role;
use crate::frames::Compressed;
use crate::session::{Captured, Last, State, StatementParts};
use mysql::protocol::Capabilities;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A session. The descriptors of its client and of its `links`, in this order, travel beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parts {
    pub id: u32,
    pub group: String,
    pub user: Vec<u8>,
    pub capabilities: u64,
    pub collation: u8,
    pub database: Vec<u8>,
    pub attributes: Vec<u8>,
    /// The client's address and the one that it connected to, as its balancer told them.
    pub ends: (SocketAddr, SocketAddr),
    pub compressed: Option<Compressed>,
    /// The mesh has checked its password, which the other process has in its own configuration.
    pub known: bool,
    pub role: Role,
    pub status: u16,
    pub state: State,
    /// The number that was given out last, and the statements.
    pub statements: (u32, Vec<StatementParts>),
    pub last: Last,
    pub insert_id: u64,
    pub asks: bool,
    /// The texts of prepared statements by their number, for rules.
    #[serde(default)]
    pub prepared: Vec<(u32, Vec<u8>)>,
    pub pinned: Option<String>,
    pub writes: u64,
    /// What the client has sent of its next command.
    pub held: Vec<u8>,
    #[serde(default)]
    pub captured: Captured,
    pub links: Vec<LinkParts>,
}

/// A server's connection.
#[derive(Debug, Serialize, Deserialize)]
pub struct LinkParts {
    pub role: Role,
    pub address: String,
    pub capabilities: u64,
    pub connection_id: u32,
    /// As the old process numbered it; `statements` speak of it.
    pub serial: u64,
    /// It has the session's settings.
    pub owned: bool,
    pub said: Option<Vec<Vec<u8>>>,
    pub database: Vec<u8>,
    pub is_bare: bool,
    /// What of the session is prepared there: the text, which of several, the number, the types.
    pub known: Vec<(Vec<u8>, u16, u32, Vec<u8>)>,
    /// Of one that sessions shared: its last insert, and whether something unseen may be there.
    pub shared: Option<(u64, bool)>,
    /// It tells of more than its client is told of.
    #[serde(default)]
    pub tracks: bool,
    pub compressed: Option<Compressed>,
}

impl Parts {
    pub fn capabilities(&self) -> Capabilities {
        Capabilities(self.capabilities)
    }
}
