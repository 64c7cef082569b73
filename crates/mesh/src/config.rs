//! `mesh.yaml`: where clients come in, and which servers stand behind.

use crate::admin::AdminConfig;
use crate::capture::CaptureConfig;
use crate::memory::LimitsConfig;
use crate::mirror::MirrorConfig;
use crate::network::Network;
use crate::rules::{self, AllowListConfig, LimitConfig, RuleConfig};
use crate::tenant;
use base::{Secret, Span};
use mysql::protocol::ProxyVersion;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Statements that a connection begins with.
const INIT_MAX: usize = 32;
/// Sockets of a port that is shared.
const PORT_WEIGHT_MAX: u32 = 64;
/// A client that is told nothing for longer takes its connection for dead.
const POOL_WAIT_MAX: Duration = Duration::from_secs(600);
/// Less would be a login for almost every statement, which `pool` is there to spare.
const POOL_LIFETIME_MIN: Duration = Duration::from_secs(1);

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

/// Connections that are shared.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Connections to each server at most, from 1 to 10000. A session that finds none free waits, first come first served.
    #[serde(default = "pool_max")]
    #[schemars(extend("default" = 64))]
    pub max: u32,
    /// Connections to each server that stay when nobody uses them. More are closed after `idle_time`.
    #[serde(default = "pool_idle")]
    #[schemars(extend("default" = 8))]
    pub idle: u32,
    /// How long a session waits for a connection before it gets error 1040, from 1ms to 10m.
    #[serde(default = "pool_wait")]
    #[schemars(with = "String", extend("default" = "10s"))]
    pub wait: Span,
    /// After so long without use a connection beyond `idle` is closed.
    #[serde(default = "pool_idle_time")]
    #[schemars(with = "String", extend("default" = "30s"))]
    pub idle_time: Span,
    /// A connection that is older is not used again, from 1s on: less than what the servers' `wait_timeout`, a firewall or a
    /// balancer in between allow. Some go up to a tenth earlier, so that not all of them go at once.
    #[serde(default = "pool_max_lifetime")]
    #[schemars(with = "String", extend("default" = "1h"))]
    pub max_lifetime: Span,
    /// For tests: whoever comes back gets another connection, on which somebody else has set everything otherwise.
    #[serde(skip)]
    #[schemars(skip)]
    #[doc(hidden)]
    pub chaos: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max: pool_max(),
            idle: pool_idle(),
            wait: pool_wait(),
            idle_time: pool_idle_time(),
            max_lifetime: pool_max_lifetime(),
            chaos: false,
        }
    }
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

fn pool_max() -> u32 {
    64
}

fn pool_idle() -> u32 {
    8
}

fn pool_wait() -> Span {
    Span(Duration::from_secs(10))
}

fn pool_idle_time() -> Span {
    Span(Duration::from_secs(30))
}

fn pool_max_lifetime() -> Span {
    Span(Duration::from_secs(3600))
}

impl MeshConfig {
    /// What is wrong with it, each with what to do; nothing of it is used unless the list is empty.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |message: String, hint: &str| found.push((message, hint.to_owned()));
        if self.listeners.is_empty() {
            add(
                "`listeners` is empty, so no client can come".into(),
                "listeners: [{name: shop, bind: 127.0.0.1:7400, tenants: [shop]}]",
            );
        }
        if let Some(threads) = self.threads.filter(|threads| !(1..=256).contains(threads)) {
            add(
                format!("`threads: {threads}` is not between 1 and 256"),
                "leave it out for one per processor",
            );
        }
        for (message, hint) in self.admin.iter().flat_map(AdminConfig::problems) {
            add(message, &hint);
        }
        for (message, hint) in self.capture.problems() {
            add(message, &hint);
        }
        let mut names = BTreeSet::new();
        for listener in &self.listeners {
            let name = &listener.name;
            if !names.insert(name) {
                add(format!("two listeners are named `{name}`"), "give each a name of its own");
            }
            if !(1..=PORT_WEIGHT_MAX).contains(&listener.weight) {
                add(
                    format!(
                        "listener `{name}`: `weight: {}` is not between 1 and {PORT_WEIGHT_MAX}",
                        listener.weight
                    ),
                    "weight: 3, and 1 at the other process, for three quarters",
                );
            }
            if listener.weight != one() && !listener.reuse_port {
                add(
                    format!("listener `{name}`: `weight` means nothing without `reuse_port`"),
                    "reuse_port: true, here and at the other process",
                );
            }
            if listener.tenants.is_empty() {
                add(format!("listener `{name}` has no `tenants`"), "tenants: [NAME OF A GROUP]");
            }
            for tenant in listener.tenants.iter().filter(|tenant| !self.groups.contains_key(*tenant)) {
                let known: Vec<_> = self.groups.keys().map(String::as_str).collect();
                add(
                    format!("listener `{name}`: there is no group `{tenant}`"),
                    &format!("groups are: {}", known.join(", ")),
                );
            }
            let named = |group: &GroupConfig| {
                group.matches.is_some() || !group.users.is_empty() || !group.databases.is_empty()
            };
            if listener.fallback == Fallback::None
                && listener
                    .tenants
                    .iter()
                    .filter_map(|tenant| self.groups.get(tenant))
                    .all(|group| !named(group))
            {
                add(
                    format!("listener `{name}`: `fallback: none` lets nobody in: no group says whose it is"),
                    "give a group a `match`, `users` or `databases`, or leave `fallback` out",
                );
            }
            let matching: Vec<_> = listener
                .tenants
                .iter()
                .filter_map(|tenant| self.groups.get(tenant)?.matches.as_ref())
                .collect();
            if listener.tls.is_none() && matching.iter().any(|wanted| !wanted.sni.is_empty()) {
                add(
                    format!("listener `{name}`: a group's `match.sni` never fits without `tls`"),
                    "tls: {cert: ./cert.pem, key: ./key.pem}",
                );
            }
            if listener.proxy_protocol.is_empty() && matching.iter().any(|wanted| !wanted.tlv.is_empty()) {
                add(
                    format!("listener `{name}`: a group's `match.tlv` never fits without `proxy_protocol`"),
                    "proxy_protocol: [10.0.0.0/8]",
                );
            }
            if listener.tls_required && listener.tls.is_none() {
                add(
                    format!("listener `{name}`: `tls_required` without `tls`"),
                    "tls: {cert: ./cert.pem, key: ./key.pem}",
                );
            }
        }
        for (name, group) in &self.groups {
            for (message, hint) in group.problems() {
                add(format!("group `{name}`: {message}"), &hint);
            }
        }
        found
    }
}

impl MeshConfig {
    /// What is declared and has no effect, each as a sentence.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, group) in &self.groups {
            if group.pool.is_some() && group.auth == AuthMode::Relay {
                notes.push(format!(
                    "group `{name}`: `pool` has no effect with `auth: relay`: a session stays on the connection that checked its \
                     password; `auth: vault` shares"
                ));
            }
            if group.read_write_split && group.auth == AuthMode::Relay {
                notes.push(format!(
                    "group `{name}`: `read_write_split` has no effect with `auth: relay`: a session stays on the server that checked \
                     its password; `auth: vault` splits"
                ));
            }
        }
        notes
    }
}

impl GroupConfig {
    /// What is wrong with how servers are found.
    fn problems_of_finding(&self) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        let by_pd = self.topology == Topology::Pd;
        if self.topology == Topology::GroupReplication {
            if self.kind != GroupKind::Mysql {
                found.push((
                    "`topology: group_replication` is MySQL's".into(),
                    "kind: mysql, or topology: pd",
                ));
            }
            if self.monitor.is_none() {
                let hint = "monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}";
                found.push((
                    "`topology: group_replication` needs `monitor`, to ask members for the others".into(),
                    hint,
                ));
            }
        }
        if by_pd && self.kind != GroupKind::Tidb {
            found.push(("`topology: pd` is TiDB's".into(), "kind: tidb"));
        }
        if by_pd && self.pd.is_empty() {
            found.push(("`topology: pd` without `pd`".into(), "pd: [127.0.0.1:2379]"));
        }
        if !by_pd && (!self.pd.is_empty() || self.pd_tls != BackendTls::Off) {
            found.push(("`pd` and `pd_tls` mean nothing without `topology: pd`".into(), "topology: pd"));
        }
        if self.pd_tls_ca.is_some() && self.pd_tls != BackendTls::Verify {
            found.push(("`pd_tls_ca` means nothing without `pd_tls: verify`".into(), "pd_tls: verify"));
        }
        if self.pd_tls_client.is_some() && self.pd_tls == BackendTls::Off {
            found.push(("`pd_tls_client` means nothing with `pd_tls: off`".into(), "pd_tls: verify"));
        }
        if !self.address_map.is_empty() && !self.topology.finds() {
            let hint = "topology: group_replication or pd, or the right address in `backends`";
            found.push(("`address_map` means nothing where servers are not found".into(), hint));
        }
        let addresses = self.pd.iter().chain(self.address_map.keys()).chain(self.address_map.values());
        for address in addresses.filter(|address| !is_address(address)) {
            found.push((format!("`{address}` is not `host:port`"), "for example: 127.0.0.1:2379"));
        }
        found
    }

    fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |message: String, hint: &str| found.push((message, hint.to_owned()));
        for (message, hint) in self.problems_of_finding() {
            add(message, hint);
        }
        if self.backends.is_empty() && self.topology != Topology::Pd {
            add("`backends` is empty".into(), "backends: [{addr: 127.0.0.1:3306}]");
        }
        let mut addresses = BTreeSet::new();
        for backend in &self.backends {
            let address = &backend.addr;
            if !addresses.insert(address) {
                add(format!("`{address}` is there twice"), "give one of them a `weight` instead");
            }
            let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                add(format!("`{address}` is not `host:port`"), "for example: addr: 127.0.0.1:3306");
            }
            if !(1..=1000).contains(&backend.weight) {
                add(
                    format!("`{address}`: a weight of {} is not between 1 and 1000", backend.weight),
                    "weight: 1",
                );
            }
            if let Some(status) = &backend.status {
                let port = status.rsplit_once(':').map(|(_, port)| port);
                if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                    add(format!("`{status}` is not `host:port`"), "for example: status: 127.0.0.1:10080");
                }
                if self.kind != GroupKind::Tidb {
                    add(format!("`{address}`: only TiDB has a `status`"), "leave `status` out");
                }
            }
            if backend.role.is_some() && self.topology != Topology::Static {
                let topology = match self.topology {
                    Topology::GroupReplication => "group_replication",
                    Topology::Pd => "pd",
                    _ => "auto",
                };
                add(
                    format!("`{address}` has a `role`, and `topology: {topology}` finds roles itself"),
                    "write `topology: static`, or leave `role` out",
                );
            }
        }
        let writers = self.backends.iter().filter(|backend| backend.role != Some(Role::Replica)).count();
        if self.topology == Topology::Static && writers == 0 && !self.backends.is_empty() {
            add("no backend has `role: writer`".into(), "role: writer on the server that takes writes");
        }
        if self.topology == Topology::Auto
            && self.monitor.is_none()
            && self.kind == GroupKind::Mysql
            && self.backends.len() > 1
        {
            add(
                "`topology: auto` with several backends needs `monitor`, to ask each whether it is read-only"
                    .into(),
                "monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}, or topology: static with a role on each",
            );
        }
        match self.auth {
            AuthMode::Relay => {
                if !self.users.is_empty() || self.account.is_some() {
                    add("`users` and `account` mean nothing with `auth: relay`".into(), "auth: vault");
                }
            }
            AuthMode::Vault | AuthMode::Mapped => {
                if self.users.is_empty() {
                    add(
                        "nobody may come in: `users` is empty".into(),
                        "users: [{name: shop, password: \"${env:SHOP_PASSWORD}\"}]",
                    );
                }
                if self.auth == AuthMode::Mapped && self.account.is_none() {
                    add(
                        "`auth: mapped` needs `account`".into(),
                        "account: {name: mesh, password: \"${env:MESH_PASSWORD}\"}",
                    );
                }
                if self.auth == AuthMode::Vault && self.account.is_some() {
                    add("`account` means nothing with `auth: vault`".into(), "auth: mapped");
                }
            }
        }
        if let Some(wanted) = &self.matches {
            if *wanted == LoginMatchConfig::default() {
                add(
                    "`match` says nothing, and would fit everybody".into(),
                    "leave it out, or: match: {users: [shop]}",
                );
            }
            for kind in wanted.tlv.keys().filter(|kind| tenant::field_type(kind).is_none()) {
                add(format!("`{kind}` is no field that `match.tlv` knows"), "authority, or 0xE0 to 0xEF");
            }
        }
        for statement in self.init.iter().filter(|statement| statement.trim().is_empty()) {
            add(
                format!("`init` has an empty statement: `{statement}`"),
                "init: [\"SET SESSION max_execution_time = 5000\"]",
            );
        }
        if self.init.len() > INIT_MAX {
            add(
                format!("`init` has more than {INIT_MAX} statements"),
                "each connection says all of them before it serves",
            );
        }
        if self.account.as_ref().is_some_and(|account| account.sessions_max.is_some()) {
            add(
                "`account.sessions_max` means nothing: clients are not `account`".into(),
                "sessions_max: 100, for the whole group",
            );
        }
        let mut names = BTreeSet::new();
        for user in self.users.iter().filter(|user| !names.insert(&user.name)) {
            add(format!("two users are named `{}`", user.name), "keep one of them");
        }
        if let Some(pool) = self.pool
            && (!(1..=10_000).contains(&pool.max) || pool.idle > pool.max)
        {
            add(
                "`pool.max` is not between 1 and 10000, or less than `pool.idle`".into(),
                "pool: {max: 64, idle: 8}",
            );
        }
        if let Some(pool) = self.pool
            && !(Duration::from_millis(1)..=POOL_WAIT_MAX).contains(&pool.wait.0)
        {
            add("`pool.wait` is not between 1ms and 10m".into(), "pool: {wait: 10s}");
        }
        if self.pool.is_some_and(|pool| pool.max_lifetime.0 < POOL_LIFETIME_MIN) {
            add("`pool.max_lifetime` is less than 1s".into(), "pool: {max_lifetime: 1h}");
        }
        for (message, hint) in self.mirror.iter().flat_map(MirrorConfig::problems) {
            add(message, &hint);
        }
        if self.pool.is_some() && self.proxy_protocol != ProxyProtocol::Off {
            add(
                "`pool` and `proxy_protocol` exclude each other: a connection that names its client is shared by nobody"
                    .into(),
                "leave one of them out",
            );
        }
        if self.eject.is_some_and(|eject| !(1..=1000).contains(&eject.failures)) {
            add("`eject.failures` is not between 1 and 1000".into(), "eject: {failures: 5, time: 10s}");
        }
        if self.lag_max.is_some() && self.monitor.is_none() {
            add(
                "`lag_max` needs `monitor`, to ask replicas how far they are".into(),
                "monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}",
            );
        }
        if self.tls_ca.is_some() && self.tls != BackendTls::Verify {
            add("`tls_ca` means nothing without `tls: verify`".into(), "tls: verify");
        }
        found.extend(rules::problems(&self.rules, &self.limits, self.allow_list.as_ref()));
        found
    }
}

fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
    port.is_some_and(|port| port.parse::<u16>().is_ok()) && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(listener: serde_json::Value, group: serde_json::Value) -> Vec<String> {
        let mut config = serde_json::json!({
            "listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}],
            "groups": {"shop": {"backends": [{"addr": "127.0.0.1:3306"}]}},
        });
        for (key, value) in listener.as_object().cloned().unwrap_or_default() {
            config["listeners"][0][key] = value;
        }
        for (key, value) in group.as_object().cloned().unwrap_or_default() {
            config["groups"]["shop"][key] = value;
        }
        let config: MeshConfig = serde_json::from_value(config).unwrap();
        config.problems().into_iter().map(|(message, _)| message).collect()
    }

    #[test]
    fn what_cannot_work_together_is_told() {
        let none = serde_json::json!({});
        assert_eq!(told(none.clone(), none.clone()), Vec::<String>::new());
        for (listener, group, expected) in [
            (none.clone(), serde_json::json!({"pool": {}, "proxy_protocol": "v2"}), "exclude each other"),
            (none.clone(), serde_json::json!({"match": {}}), "would fit everybody"),
            (
                none.clone(),
                serde_json::json!({"auth": "vault", "users": [{"name": "a"}], "pool": {"wait": "0s"}}),
                "`pool.wait`",
            ),
            (
                none.clone(),
                serde_json::json!({"auth": "vault", "users": [{"name": "a"}], "pool": {"max_lifetime": "10ms"}}),
                "`pool.max_lifetime`",
            ),
            (
                none.clone(),
                serde_json::json!({"match": {"sni": ["a"]}}),
                "`match.sni` never fits without `tls`",
            ),
            (
                none.clone(),
                serde_json::json!({"match": {"tlv": {"0xE0": "a"}}}),
                "never fits without `proxy_protocol`",
            ),
            (
                serde_json::json!({"proxy_protocol": ["10.0.0.0/8"]}),
                serde_json::json!({"match": {"tlv": {"0x05": "a"}}}),
                "no field that `match.tlv` knows",
            ),
            (none.clone(), serde_json::json!({"topology": "group_replication"}), "needs `monitor`"),
            (
                none.clone(),
                serde_json::json!({"topology": "pd", "kind": "tidb"}),
                "`topology: pd` without `pd`",
            ),
            (none.clone(), serde_json::json!({"topology": "pd", "pd": ["a:1"]}), "is TiDB's"),
            (
                none.clone(),
                serde_json::json!({"topology": "pd", "kind": "tidb", "pd": ["http://a:1"]}),
                "`http://a:1` is not `host:port`",
            ),
            (none.clone(), serde_json::json!({"pd": ["a:1"]}), "mean nothing without `topology: pd`"),
            (none.clone(), serde_json::json!({"address_map": {"a:1": "b:1"}}), "means nothing where"),
            (serde_json::json!({"fallback": "none"}), none.clone(), "lets nobody in"),
            (none.clone(), serde_json::json!({"init": ["set a = 1", " "]}), "empty statement"),
            (
                none.clone(),
                serde_json::json!({"auth": "mapped", "users": [{"name": "a"}], "account": {"name": "b", "sessions_max": 1}}),
                "`account.sessions_max` means nothing",
            ),
        ] {
            let told = told(listener, group);
            assert!(matches!(&told[..], [only] if only.contains(expected)), "{expected}: {told:?}");
        }
        let fits = serde_json::json!({"match": {"users": ["a"]}});
        assert!(told(serde_json::json!({"fallback": "none"}), fits).is_empty());
    }
}
