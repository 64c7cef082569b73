//! `mesh.yaml`: where clients come in, and which servers stand behind.

mod pool;
mod problems;

pub use pool::PoolConfig;

use crate::admin::AdminConfig;
use crate::capture::CaptureConfig;
use crate::memory::LimitsConfig;
use crate::mirror::MirrorConfig;
use crate::network::Network;
use crate::rules::{AllowListConfig, LimitConfig, RuleConfig};
use base::{Secret, Span};
use mysql::protocol::ProxyVersion;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The SQL proxy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshConfig {
    /// Where clients connect.
    pub listeners: Vec<ListenerConfig>,
    /// The servers, by the name of their group.
    pub groups: BTreeMap<String, GroupConfig>,
    /// What the mesh may use.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub limits: LimitsConfig,
    /// Count calls, rows, errors and times of each statement with its literals left out.
    #[serde(default = "yes")]
    #[schemars(extend("default" = true))]
    pub digests: bool,
    /// Statements that take longer are listed by `tidemill mesh slow`, the latest thousand, their literals left out. Needs `digests`.
    #[serde(default = "slow_over")]
    #[schemars(with = "String", extend("default" = "1s"))]
    pub slow: Span,
    /// Keep every statement in files, to be searched and replayed.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub capture: CaptureConfig,
    /// A port on which the mesh itself answers MySQL clients. None by default.
    #[serde(default)]
    pub admin: Option<AdminConfig>,
    /// Where this mesh runs. Of several servers that could take a session, those with the same `zone` are preferred.
    #[serde(default)]
    pub zone: Option<String>,
    /// Threads that carry sessions; each session stays on one. As many as there are processors by default.
    #[serde(default)]
    pub threads: Option<usize>,
}

/// One port.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name in status and metrics.
    pub name: String,
    /// Where it listens.
    #[schemars(with = "String")]
    pub bind: SocketAddr,
    /// Let other processes of the same user, and other listeners that say so too, listen on the same port: the kernel gives each new
    /// client to one of them. As it is when the port is opened.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub reuse_port: bool,
    /// With `reuse_port`: this listener's part of the clients, from 1 to 64, next to those of the others. It opens so many sockets,
    /// among which the kernel chooses by a hash of the addresses. More of them after an upgrade or a restart; fewer after a restart.
    #[serde(default = "one")]
    #[schemars(extend("default" = 1))]
    pub weight: u32,
    /// The groups whose clients come in here. Of several, the first whose `match` fits serves it. Where none does, the first of
    /// those without `match` that lists the user under `users`, or the database under `databases`; then what `fallback` says.
    pub tenants: Vec<String>,
    /// Who serves a client that belongs to none of several groups by what they say: the first without `match`, or nobody, which
    /// the client is told.
    #[serde(default)]
    #[schemars(extend("default" = "first"))]
    pub fallback: Fallback,
    /// Offer TLS to clients. Without it their connections are plain.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// Let in nobody without TLS.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub tls_required: bool,
    /// Networks of balancers that say who their client is by the PROXY protocol, version 1 or 2, like `10.0.0.0/8`. Who
    /// connects from there must begin with such a header, and is greeted after it; from elsewhere it is an error.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub proxy_protocol: Vec<Network>,
    /// Ways of compression that clients may choose, whatever the servers do; those that ask for none are not compressed. `[]`
    /// offers none.
    #[serde(default = "both_ways")]
    #[schemars(extend("default" = ["zlib", "zstd"]))]
    pub compression: Vec<Way>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM: the certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Servers that hold the same data.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// `mysql` for MySQL and MariaDB, or `tidb`.
    #[serde(default)]
    #[schemars(extend("default" = "mysql"))]
    pub kind: GroupKind,
    /// The servers. With `topology: group_replication` those that are asked first for the others; with `pd` it may be empty.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub backends: Vec<BackendConfig>,
    /// `auto` finds the writer by `read_only`, which needs `monitor`; `static` goes by each backend's `role`.
    /// `group_replication` finds the members of a group of MySQL servers and who of them writes, and needs `monitor`; `pd` finds
    /// TiDB servers.
    #[serde(default)]
    #[schemars(extend("default" = "auto"))]
    pub topology: Topology,
    /// With `topology: pd`: `host:port` of each PD, which are asked one after the other until one answers.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub pd: Vec<String>,
    /// TLS to PD, whose answers say where clients' passwords go: `verify` on a network that others use too.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub pd_tls: BackendTls,
    /// For `pd_tls: verify`: a PEM file with the only authorities that are trusted; the system's by default.
    #[serde(default)]
    pub pd_tls_ca: Option<PathBuf>,
    /// What the mesh shows PD, where PD wants certificates of its clients.
    #[serde(default)]
    pub pd_tls_client: Option<ListenerTls>,
    /// Where servers that are found are reached from here, by the `host:port` that they say of themselves: `{10.0.0.1:3306: db1.example:13306}`.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub address_map: BTreeMap<String, String>,
    /// The account that asks the servers for their role and their lag. It needs no right but to log in; for the lag of a
    /// replica `REPLICATION CLIENT` (MariaDB: `REPLICA MONITOR`).
    #[serde(default)]
    pub monitor: Option<MonitorConfig>,
    /// `relay`: the server itself checks the client, which then stays on that server. `vault`: the mesh checks the client by
    /// `users` and logs in as it, so that a session can use several servers. `mapped`: the same, logging in as `account`.
    #[serde(default)]
    #[schemars(extend("default" = "relay"))]
    pub auth: AuthMode,
    /// Who may come in, with `vault` and `mapped`.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub users: Vec<UserConfig>,
    /// Whom the mesh logs in as, with `mapped`.
    #[serde(default)]
    pub account: Option<UserConfig>,
    /// Which clients are of this group and no others, where a listener has several groups. All that is said must be so, and of
    /// a list one.
    #[serde(default, rename = "match")]
    pub matches: Option<LoginMatchConfig>,
    /// Statements that are said on each connection to a server before the client's first, and again when the client resets
    /// its session or changes its user: `SET RESOURCE GROUP rg_a`, `SET SESSION max_execution_time = 5000`. Where one is refused
    /// the client is told, and nothing of its own is done.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub init: Vec<String>,
    /// Sessions at once; a client more gets error 1040. As many as `limits.sessions` by default.
    #[serde(default)]
    pub sessions_max: Option<usize>,
    /// Sessions of each user at once; one more gets error 1226. `sessions_max` of one in `users` counts in its place.
    #[serde(default)]
    pub user_sessions_max: Option<usize>,
    /// Databases whose clients are of this group, where a listener has several.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub databases: BTreeSet<String>,
    /// Send statements that surely only read, outside of transactions, to replicas.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub read_write_split: bool,
    /// What reads on replicas see. `session`: all that this session wrote; `service`: all that any session of this mesh
    /// wrote; `off`: what the replica has.
    #[serde(default)]
    #[schemars(extend("default" = "session"))]
    pub consistency: Consistency,
    /// Replicas that are further behind, or whose lag cannot be told, get no reads. Any lag will do by default. Needs `monitor`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub lag_max: Option<Span>,
    /// How one of several servers is chosen.
    #[serde(default)]
    #[schemars(extend("default" = "least_busy"))]
    pub balance: Balance,
    /// A server that comes back gets its share of new connections little by little over this time. At once by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub slow_start: Option<Span>,
    /// Leave a server alone that sessions fail at, though it answers the monitor.
    #[serde(default)]
    pub eject: Option<EjectConfig>,
    /// Connections that sessions share, with `vault` and `mapped`: a session has one only while it needs it, so that few serve
    /// many. Without it each session has its own.
    #[serde(default)]
    pub pool: Option<PoolConfig>,
    /// Ask another server a part of the reads again, once the client has its answer, and compare the answers.
    #[serde(default)]
    pub mirror: Option<MirrorConfig>,
    /// Which statements pass, are noted or are refused: the first rule that matches decides; without a match a statement
    /// passes, or must be on the `allow_list`.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub rules: Vec<RuleConfig>,
    /// How many statements run at once or come in a time, how long they run, and how many rows they answer.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub limits: Vec<LimitConfig>,
    /// The statements that may pass, learnt from what came.
    #[serde(default)]
    pub allow_list: Option<AllowListConfig>,
    /// TLS to the servers.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub tls: BackendTls,
    /// For `tls: verify`: a PEM file with the only authorities that are trusted; the system's by default.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Tell the servers the client's address by the PROXY protocol, at the start of each connection: `v1` or `v2`. For servers
    /// that are set up for it: MariaDB's and TiDB's `proxy-protocol-networks`, not MySQL's. A connection is then one client's own.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub proxy_protocol: ProxyProtocol,
    /// Compress what goes to the servers and back, where they offer it: `zlib`, or `zstd`, which MariaDB does not have.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub compression: ServerCompression,
}

/// Which dialect and which habits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// MySQL or MariaDB: one writer, any number of replicas.
    #[default]
    Mysql,
    /// TiDB: every server reads and writes.
    Tidb,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// `host:port`.
    pub addr: String,
    /// With `topology: static`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// With `balance: weighted`: its share, from 1 to 1000.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(extend("default" = 1))]
    pub weight: u32,
    /// Where it stands: with the mesh's own `zone`, servers of the same one are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// With `kind: tidb`: `host:port` of its HTTP status. A server that says there that it shuts down is
    /// drained, and its sessions move to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What a server is for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and writes.
    Writer,
    /// Reads.
    Replica,
}

/// How roles are known.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// By asking the servers.
    #[default]
    Auto,
    /// As declared.
    Static,
    /// By asking the members of a group for the others.
    GroupReplication,
    /// By asking PD.
    Pd,
}

impl Topology {
    /// Whether servers are found that the configuration does not name.
    pub fn finds(self) -> bool {
        matches!(self, Self::GroupReplication | Self::Pd)
    }
}

/// The account of the probes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MonitorConfig {
    /// Its name on the servers.
    pub user: String,
    /// `${env:NAME}` or `${file:PATH}`.
    #[serde(default)]
    #[schemars(with = "String")]
    pub password: Secret,
}

/// Who proves the client's password.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// The server.
    #[default]
    Relay,
    /// The mesh, which then logs in as the client.
    Vault,
    /// The mesh, which then logs in as `account`.
    Mapped,
}

/// A name and its password.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// As clients, or servers, know it.
    pub name: String,
    /// `${env:NAME}` or `${file:PATH}`.
    #[serde(default)]
    #[schemars(with = "String")]
    pub password: Secret,
    /// Its sessions at once; one more gets error 1226. Not for `account`.
    #[serde(default)]
    pub sessions_max: Option<usize>,
}

/// What reads on replicas see.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// What the replica has.
    Off,
    /// All that this session wrote.
    #[default]
    Session,
    /// All that any session of this mesh wrote.
    Service,
}

/// How one of several servers is chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The one with less to do, of two drawn by lot.
    #[default]
    LeastBusy,
    /// One after the other.
    RoundRobin,
    /// By lot, by their `weight`.
    Weighted,
}

/// When a server is left alone.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EjectConfig {
    /// After so many logins and commands that failed at it, one after the other, from 1 to 1000.
    #[schemars(extend("default" = 5))]
    pub failures: u32,
    /// For so long; twice as long each time it goes on, up to 10 times.
    #[schemars(with = "String", extend("default" = "10s"))]
    pub time: Span,
}

impl Default for EjectConfig {
    fn default() -> Self {
        Self { failures: 5, time: Span(Duration::from_secs(10)) }
    }
}

/// TLS to a server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BackendTls {
    /// Never.
    #[default]
    Off,
    /// Always, whoever signed its certificate.
    Require,
    /// Always, and the certificate must name the host and be signed by an authority we trust.
    Verify,
}

/// Who serves a client that is nobody's.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The first group that takes everybody.
    #[default]
    First,
    /// Nobody.
    None,
}

/// What makes a client one of a group, as far as it is said here. The client claims some of it, so it chooses servers and
/// guards nothing: who it is, it proves there.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LoginMatchConfig {
    /// Names of users.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
    /// Databases that the client names when it logs in.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub databases: BTreeSet<String>,
    /// Hosts that the client's TLS asks for: `shop.example`, or `*.example` for any one label in front.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<String>,
    /// Connection attributes and their values, all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Fields of the PROXY protocol's version 2 and their values, all of them: `authority`, or a custom type, `0xE0` to `0xEF`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tlv: BTreeMap<String, String>,
}

/// A way of compression.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// What every client can that can any.
    Zlib,
    /// Smaller, and less work.
    Zstd,
}

/// Compression towards a server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ServerCompression {
    /// None.
    #[default]
    Off,
    /// MySQL, MariaDB, TiDB.
    Zlib,
    /// MySQL, TiDB.
    Zstd,
}

/// What servers are told of the client's address.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// Nothing.
    #[default]
    Off,
    /// A line of text.
    V1,
    /// The same in binary.
    V2,
}

impl ProxyProtocol {
    pub fn version(self) -> Option<ProxyVersion> {
        match self {
            Self::Off => None,
            Self::V1 => Some(ProxyVersion::V1),
            Self::V2 => Some(ProxyVersion::V2),
        }
    }
}

fn slow_over() -> Span {
    Span(Duration::from_secs(1))
}

fn yes() -> bool {
    true
}

fn both_ways() -> Vec<Way> {
    vec![Way::Zlib, Way::Zstd]
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(weight: &u32) -> bool {
    *weight == one()
}
