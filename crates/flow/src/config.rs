//! What users write in `sources/*.yaml`, `sinks/*.yaml` and `flows/*.yaml`. The doc comments are the manual: the
//! reference page and the JSON schemas are made of them. Defaults in `extend` are the constants that the code uses.

use crate::formats::Format;
use crate::formats::decode::MessageFormat;
use crate::schedule::Schedule;
use crate::tls::Files;
use crate::transform::DedupStep;
use crate::transform::process::config::{
    DateStep, DissectStep, GeoPointStep, GrokStep, JsonStep, LookupStep, SplitStep, UserAgentStep,
};
use base::{ByteSize, Secret, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A system we read. The file's name is the source's name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What kind of system it is.
    pub kind: SourceKind,
    /// For `mysql`: `mysql://user:password@host:3306`. Several hosts are separated by commas: the first that can
    /// continue the journal is read. The
    /// password is a reference, `${env:NAME}` or `${file:PATH}`; what the URL's grammar would misread in it is escaped.
    /// For `kafka`: `kafka://[user:password@]host:9092[,host:9092]`, or `kafkas://` for TLS, with `?sasl=plain`,
    /// `scram-sha-256` or `scram-sha-512` at the end.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// For `kafka` with `format: avro`: the schema registry, by the interface of Confluent's, which Apicurio and Karapace have
    /// too: `http://[user:password@]host:8081[/path]`, or `https://`. Apicurio's path is `/apis/ccompat/v7`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub schema_registry: Option<Secret>,
    /// For `kafka` with a `ticdc-…` format: the TiDB that the topics' changefeed reads, `mysql://user:password@host:4000`. With it
    /// a new source reads the tables whole before their changes (`snapshot`), rows are read that were too large for a message,
    /// and tables anew whose rows a statement changed.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub tidb: Option<Secret>,
    /// For `kafka` with a `ticdc-…` format: the folder that the changefeed's `claim-check-storage-uri` names, relative to the
    /// project. Only files in it are read, by the last part of what messages name.
    #[serde(default)]
    pub claim_check: Option<PathBuf>,
    /// For `sqlite`: the database file, relative to the project. Its tables go by the file's name without its ending:
    /// `shop.db` has `shop.orders`. For `capture`: the folder that a mesh captures into, `capture.dir` of its `mesh.yaml`; by
    /// default that of this project's mesh.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// For `kafka`: the topics to read, with `*` and `?`. A topic that is made later and matches is read from its beginning,
    /// as is a partition that is added.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub topics: Vec<String>,
    /// Tables to capture, as `db.table`; `*` stands for any characters and `?` for one. A table that is made later and
    /// matches is captured from its beginning. For `kafka`, those of the tables in the topics, all by default; `capture` has one
    /// table, NAME.statements, by default; every other kind needs it.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub tables: Vec<String>,
    /// Tables to leave out, in the same form.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// For `mysql`, `sqlite`, and `kafka` with `tidb`: tables of which the node keeps the latest row of each key beside the
    /// journal, as `db.table` with `*` and `?`. Those that flows join (`nest`, `lookup` with `table`) are kept without being
    /// named. A table needs a key.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub mirror: Vec<String>,
    /// How clients follow the source's tables.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub subscriptions: SubscriptionsConfig,
    /// Whether a new source is read whole before its changes.
    #[serde(default)]
    pub snapshot: SnapshotMode,
    /// What to do when the server no longer has the changes that follow the journal's end: its binlogs were purged or
    /// reset, or it is another server. For `kafka`: a topic was deleted and made again, or its records went by its retention
    /// before they were read.
    #[serde(default)]
    pub on_gap: OnGap,
    /// For `kafka`: where a new source begins.
    #[serde(default)]
    pub start: KafkaStart,
    /// For `kafka`: what to do with a message that cannot be read.
    #[serde(default)]
    pub on_bad: OnBad,
    /// For `kafka` and `http`: what messages do not say of their tables, by `db.table`, with `*` and `?`. An exact name goes before
    /// patterns.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub declare: BTreeMap<String, DeclaredTable>,
    /// For `http`: requests must be signed with one of these, as [Standard Webhooks](https://www.standardwebhooks.com) are. A
    /// secret is `whsec_` and base64 of 24 to 64 bytes, and a reference: `["${env:PUSH_SECRET}"]`. By default every program
    /// of this machine may push.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("default" = []))]
    pub secrets: Vec<Secret>,
    /// How it is read.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub options: SourceOptions,
}

/// A kind of source.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// MySQL 8.4 to 9.x, or MariaDB 10.11: found out at the connection.
    Mysql,
    /// A SQLite file, through triggers that `up` installs.
    Sqlite,
    /// Topics of a Kafka cluster that hold changes, or rows.
    Kafka,
    /// Changes or rows that programs push to the node: `POST /api/v1/sources/NAME/changes`.
    Http,
    /// Statements that a mesh captured, so that SQL can be searched: each is a row of the table NAME.statements.
    Capture,
}

/// Where a new source begins to read topics.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaStart {
    /// With the first record that each topic has.
    #[default]
    Earliest,
    /// With what is written from now on.
    Latest,
}

/// How the tables of a source are followed. What the node knows of a shape is its last changes, encoded, and the rows of a window: who
/// comes again while that is kept lacks little.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubscriptionsConfig {
    /// How long a shape is kept that nobody follows any more, where its clients do not say. Looked at every 15 seconds.
    #[schemars(with = "Option<String>", extend("default" = Span(crate::subscribe::hub::KEEP_DEFAULT).to_string()))]
    pub keep: Option<Span>,
    /// The longest time that clients may ask for.
    #[schemars(with = "Option<String>", extend("default" = Span(crate::subscribe::hub::KEEP_MAX_DEFAULT).to_string()))]
    pub keep_max: Option<Span>,
    /// Shapes that are kept though nobody follows them: beyond it those go first that have been left longest.
    #[schemars(extend("default" = crate::subscribe::hub::KEPT_SHAPES_DEFAULT))]
    pub kept_shapes: Option<u32>,
}

/// What to do with a message that cannot be read.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBad {
    /// Stop this source, and say which message it is and what is wrong with it.
    #[default]
    Fail,
    /// Pass over it, count it, and log it.
    Skip,
}

/// What messages do not say of a table.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredTable {
    /// The columns of the key, in its order. By default those that the messages name.
    pub key: Vec<String>,
    /// Types of columns, as MySQL writes them: `{id: bigint unsigned, total: "decimal(10,2)"}`. A declared type goes before
    /// one that messages tell. Columns that are not declared have the type that messages tell, or that their values look
    /// like.
    #[schemars(extend("default" = {}))]
    pub columns: BTreeMap<String, String>,
}

/// Whether a new source is read whole before its changes.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// All rows first, while changes already flow.
    #[default]
    Initial,
    /// Only what changes from now on.
    Never,
}

/// What to do when the source no longer has the changes that follow ours.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Stop this source and say what is missing.
    #[default]
    Fail,
    /// Begin a new epoch: empty the tables in the journal and read them anew.
    Resnapshot,
    /// Begin a new epoch and go on from now: changes in between are lost.
    Skip,
}

/// How a source is read.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceOptions {
    /// Our id among the server's replicas. By default it is made of the source's name and journal, above
    /// 1073741824: set it only when the server's administrators number every replica.
    pub server_id: Option<u32>,
    /// Rows that a snapshot reads with one SELECT, 1 to 100000. Wide rows come in smaller chunks.
    #[schemars(extend("default" = crate::capture::mysql::CHUNK_ROWS_DEFAULT))]
    pub snapshot_chunk_rows: Option<u32>,
    /// Tables that a snapshot reads at the same time, each over a connection of its own, 1 to 16.
    #[schemars(extend("default" = crate::capture::mysql::PARALLEL_DEFAULT))]
    pub snapshot_parallel: Option<u32>,
    /// Rows a second that a snapshot may read, over all tables. No limit by default.
    pub snapshot_rows_per_second: Option<u32>,
    /// TLS to the server. Without this key, TLS is used where the server offers it, except to this machine.
    pub tls: Option<TlsMode>,
    /// For `tls: verify`, and for `kafka` with `kafkas://` or a registry by `https://`: a PEM file with the only authorities that
    /// are trusted, relative to the project; the public ones by default.
    pub tls_ca: Option<PathBuf>,
    /// For `kafka` with `kafkas://` or a registry by `https://`: a PEM file with the certificate that is shown to servers that ask
    /// for one, and those between it and its authority; relative to the project. None by default.
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the key of `tls_cert`, without a password; relative to the project.
    pub tls_key: Option<PathBuf>,
    /// `kafka` and `http`: the shape of the messages; `avro` and TiCDC's for `kafka` only.
    pub format: MessageFormat,
    /// `kafka` with a `ticdc-…` format: bytes of messages that may wait for the watermark. When they are more, only the
    /// partitions that hold the others up are read; a transaction that alone is twice as large stops the source.
    #[schemars(with = "Option<String>", extend("default" = ByteSize(crate::capture::kafka::ticdc::BUFFER_DEFAULT).to_string()))]
    pub buffer: Option<ByteSize>,
    /// `kafka` with a `ticdc-…` format: how long the watermark may stand still before `status` and
    /// `tidemill_flow_capture_watermark_stalled` say so.
    #[schemars(with = "Option<String>", extend("default" = Span(crate::capture::kafka::ticdc::STALL_DEFAULT).to_string()))]
    pub watermark_timeout: Option<Span>,
    /// `mysql`: leave out what a flow with `mark: true` wrote into this server, so that two servers can feed each other.
    pub skip_marked: bool,
}

impl SourceOptions {
    pub fn tls_files(&self) -> Files {
        let (certificate, key) = (self.tls_cert.clone(), self.tls_key.clone());
        Files { authorities: self.tls_ca.clone(), certificate, key }
    }
}

/// TLS to a server.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Never.
    Off,
    /// Where the server offers it, whoever signed its certificate.
    Prefer,
    /// Always, whoever signed its certificate.
    Require,
    /// Always, and the certificate must name the host and be signed by an authority we trust.
    Verify,
}

/// A system we write. The file's name is the sink's name; any number of flows may write to it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// What kind of system it is.
    pub kind: SinkKind,
    /// For `mysql` and `tidb`: `mysql://user:password@host:3306[/database]`, where the database keeps Tidemill's own
    /// tables (`tidemill` by default). For `nats`: `nats://[user:password@]host:4222[,host:4222]`, with servers of one
    /// cluster, or `tls://` for TLS; what stands alone before `@` is a token. For `redis`:
    /// `redis://[user:password@]host:6379[/database]`, `redis-sentinel://host:26379,host:26379#master` or
    /// `redis-cluster://host:6379,host:6379`, or each with `rediss` for TLS. For `kafka`:
    /// `kafka://[user:password@]host:9092[,host:9092]`, or `kafkas://` for TLS, with `?sasl=plain`, `scram-sha-256` or
    /// `scram-sha-512` at the end. For `elasticsearch`: `http://[user:password@]host:9200`, or `https://`. For `http`: where
    /// changes are sent to, `https://[user:password@]host[:port]/path`. Passwords and other secrets are references,
    /// `${env:NAME}` or `${file:PATH}`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// For `kafka` with flows in `format: avro`: the schema registry, by the interface of Confluent's, which Apicurio and
    /// Karapace have too: `http://[user:password@]host:8081[/path]`, or `https://`. Apicurio's path is `/apis/ccompat/v7`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub schema_registry: Option<Secret>,
    /// For `kafka` with `kafkas://` or a registry by `https://`, and for `nats`: a PEM file with the only authorities that are
    /// trusted, relative to the project; with it `nats://` is TLS too. By default those of the system, or of the file that `SSL_CERT_FILE` names.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Like `tls_ca`: a PEM file with the certificate that is shown to servers that ask for one, and those between it
    /// and its authority. None by default.
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the key of `tls_cert`, without a password.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// For `nats`: a credentials file, with the JWT of a user and the seed of its key, as `nsc` writes it; relative to the
    /// project, and read anew with each connection.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// For `nats`: the seed of a user's key, `SU…`, as a reference: `${env:NATS_NKEY}`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub nkey: Option<Secret>,
    /// For `sqlite` the database file, for `files` the folder; relative to the project.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// For `http`: the method of a request.
    #[serde(default)]
    pub method: HttpMethod,
    /// For `http`: headers of each request, whose values may hold references: `{authorization: "Bearer ${env:TOKEN}"}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("default" = {}))]
    pub headers: BTreeMap<String, Secret>,
    /// For `http`: what requests are signed with, as [Standard Webhooks](https://www.standardwebhooks.com) do. A secret is
    /// `whsec_` and base64 of 24 to 64 bytes, and a reference: `["${env:WEBHOOK_SECRET}"]`. Each secret makes a signature, so
    /// that a new one can be told to the receiver before the old one goes. Not signed by default.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("default" = []))]
    pub secrets: Vec<Secret>,
    /// For `http`: how long an answer may take before the request is sent again, `1s` to `10m`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = Span(crate::sinks::http::TIMEOUT_DEFAULT).to_string()))]
    pub timeout: Option<Span>,
}

impl SinkConfig {
    pub fn tls_files(&self) -> Files {
        let (certificate, key) = (self.tls_cert.clone(), self.tls_key.clone());
        Files { authorities: self.tls_ca.clone(), certificate, key }
    }
}

/// The method of a request.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpMethod {
    #[default]
    Post,
    Put,
}

/// A kind of sink.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    /// MySQL. Rows and progress in one transaction: each change takes effect once.
    Mysql,
    /// TiDB, in the same way.
    Tidb,
    /// A SQLite file, in the same way.
    Sqlite,
    /// Topics of a Kafka cluster. At least once; with `exactly_once`, rows and progress in one transaction.
    Kafka,
    /// A JetStream stream. Resumes behind the stream's last message: each change is stored once. With `core`, subjects without a
    /// stream.
    Nats,
    /// JSON lines in a folder, synced and rotated. Resumes behind the last whole line: each change is written once.
    Files,
    /// JSON lines on this process's standard output. At least once.
    Stdout,
    /// Elasticsearch or OpenSearch; OpenSearch 2.19 in the tests. At least once, and never an older version over a newer one:
    /// each row is in the index as the source has it last.
    Elasticsearch,
    /// Requests to a URL, each with a list of changes: a webhook. At least once and in order; a repeat has the id of the
    /// request that it repeats.
    Http,
    /// Redis, one server with or without replicas; 7.0 in the tests. Changes and progress in one step: each takes effect
    /// once.
    Redis,
}

impl SinkKind {
    /// As it is written in `kind:`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Tidb => "tidb",
            Self::Sqlite => "sqlite",
            Self::Kafka => "kafka",
            Self::Nats => "nats",
            Self::Files => "files",
            Self::Stdout => "stdout",
            Self::Elasticsearch => "elasticsearch",
            Self::Http => "http",
            Self::Redis => "redis",
        }
    }
}

/// The movement of data from a source to a sink. The file's name is the flow's name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// The source's name.
    pub from: String,
    /// Tables this flow carries, as `db.table` with `*` and `?`, of those that the source captures. All by default.
    #[serde(default)]
    pub tables: Vec<String>,
    /// How data moves.
    #[serde(default)]
    pub mode: FlowMode,
    /// Steps over each row, in order. See below.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub transform: Vec<TransformStep>,
    /// The sink's name.
    pub to: String,
    /// New names for databases and tables: `{"shop.*": "dw.shop_*"}`, where `*` on the right is what it stood for on
    /// the left. Exact names go before wildcards; what matches nothing keeps its name.
    #[serde(default)]
    pub route: BTreeMap<String, String>,
    /// How it is written.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub options: FlowOptions,
    /// When the node compares both ends by itself, as `tidemill flow verify` does: minute, hour, day of the month, month and
    /// day of the week, as in cron, in the `timezone` of tidemill.yaml, or in UTC. `"0 4 * * *"` is 04:00 each day. One flow
    /// is compared at a time, and one that is due meanwhile comes next. `status` shows how the last one ended.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub verify: Option<Schedule>,
}

impl FlowConfig {
    /// A flow that carries nothing, for asking a sink whether it is there.
    pub fn probe(sink: &str) -> Self {
        Self {
            from: String::new(),
            tables: Vec::new(),
            mode: FlowMode::Stream,
            transform: Vec::new(),
            to: sink.to_owned(),
            route: BTreeMap::new(),
            options: FlowOptions::default(),
            verify: None,
        }
    }
}

/// How data moves.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowMode {
    /// Every change, in order, as it happens.
    #[default]
    Stream,
}

/// One step over each row. Each step is an object with one member.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransformStep {
    /// Keeps the rows for which a MySQL expression is true: `"status <> 'draft'"`.
    Filter(String),
    /// Keeps only these columns; every column of the key must be among them.
    Columns(Vec<String>),
    /// Gives columns new names: `{old: new}`.
    Rename(BTreeMap<String, String>),
    /// Hides values: `{phone: partial}`. A column of the key cannot be masked.
    Mask(BTreeMap<String, Mask>),
    /// Adds or replaces columns by MySQL expressions: `{total: "price * quantity"}`.
    Set(BTreeMap<String, String>),
    /// Takes a text apart by named patterns.
    Grok(GrokStep),
    /// Takes a text apart by the characters between its parts; faster than `grok`.
    Dissect(DissectStep),
    /// Reads a date and time from a text.
    Date(DateStep),
    /// Takes columns out of JSON.
    Json(JsonStep),
    /// Adds columns from a file that is beside the flow.
    Lookup(LookupStep),
    /// Makes one row of each element of a list.
    Split(SplitStep),
    /// Where tables are merged into one: adds a column of this name that tells whose the row is, as `source.db.table`, and
    /// begins the key with it. For `mysql` and `tidb`; needs `ddl: hold`.
    Origin(String),
    /// Makes a point of two numbers.
    GeoPoint(GeoPointStep),
    /// Tells browser, version, system and device from a `User-Agent`.
    UserAgent(UserAgentStep),
    /// Leaves out rows that repeat one that came shortly before: `{key: [event_id], window: 10m}`. For tables that are only added
    /// to: updates and deletes are left out too.
    Dedup(DedupStep),
}

/// How a value is hidden.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// NULL.
    Null,
    /// SHA-256 of the text, in hexadecimal.
    Hash,
    /// Keeps the first and last characters: `138****5678`.
    Partial,
    /// The text `***`.
    Redact,
}

/// How a flow is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlowOptions {
    /// SQL sinks: what to do with DDL.
    pub ddl: DdlPolicy,
    /// SQL sinks: keep every change for ever as a row of `tidemill_history_<table>`, instead of the latest image.
    pub history: bool,
    /// `nats`: the subject, in which `{source}`, `{db}` and `{table}` stand for the change's names.
    #[schemars(extend("default" = crate::sinks::nats::SUBJECT_DEFAULT))]
    pub subject: Option<String>,
    /// `nats`: the stream, made when it is missing. `TIDEMILL_<FLOW>`, in capitals, by default. No one else may publish
    /// to it.
    pub stream: Option<String>,
    /// `nats`: subjects of core NATS, without a stream: for whoever listens at the moment. A consumer gets a change at most once
    /// from the server, and never one that came while it was away; after a fault between us and the server we send the last batch
    /// again. The tokens in the headers are for what a consumer missed.
    pub core: bool,
    /// `http`: one request a batch that says which tables changed, how often and from which lsn to which, with tokens to catch up
    /// with, and without rows.
    pub notify: bool,
    /// `files`: the size after which a new file begins.
    #[schemars(with = "Option<String>", extend("default" = ByteSize(crate::sinks::files::ROTATE_BYTES_DEFAULT).to_string()))]
    pub rotate_bytes: Option<ByteSize>,
    /// `stdout`, `files`, `nats`, `kafka`, `http`, and streams and channels of `redis`: the shape of a message; see
    /// change-format.md. `files` finds its progress in its last
    /// line, and takes those that name the lsn: `json` and `cloudevents`. `nats` and `redis` need one message a change, and take all but
    /// `debezium`. `s3event` is for `http`, `nats`, `kafka` and `stdout`. `avro` is for `kafka` only, with a `schema_registry` in the sink's file.
    pub format: Format,
    /// `stdout`, `kafka` with `format: debezium`: put the schema beside each key and value.
    pub schemas: bool,
    /// `redis`: what becomes of a row, or of a change.
    #[schemars(extend("default" = RedisType::default()))]
    pub r#type: Option<RedisType>,
    /// `redis`: the key, stream or channel. `{source}`, `{db}` and `{table}` stand for the change's names, `{key}` for the
    /// table's key (its columns joined by `:`), any other name for a column; `{{` and `}}` are braces, as for hash tags. Names
    /// come before columns, and streams and channels take names only. `{db}:{table}:{key}` by default for `hash` and
    /// `json`, where it must name a row; else `{db}:{table}`.
    ///
    /// `kafka`: the message's key, with the same names and columns: `{shop_id}`. By default the key that the format gives.
    /// It chooses the partition as Java's clients do.
    pub key: Option<String>,
    /// `redis`: for `set` and `zset`, the member, in the same way. It must name the row.
    #[schemars(extend("default" = crate::sinks::redis::plan::MEMBER_DEFAULT))]
    pub member: Option<String>,
    /// `redis`: for `zset`, the column with the score: a number, or a time, which counts in milliseconds since 1970 UTC.
    pub score: Option<String>,
    /// `redis`: for `hash` and `json`, how long a row lives after its last change. For ever by default.
    #[schemars(with = "Option<String>")]
    pub ttl: Option<Span>,
    /// `redis`: for `stream`, about how many entries each stream keeps. All by default.
    pub maxlen: Option<u64>,
    /// `kafka`: the topic, in which `{source}`, `{db}` and `{table}` stand for the change's names. Made when it is missing.
    #[schemars(extend("default" = crate::sinks::kafka::TOPIC_DEFAULT))]
    pub topic: Option<String>,
    /// `kafka`: partitions of topics that are made. By default what the broker says.
    pub partitions: Option<u32>,
    /// `kafka`: copies of topics that are made. By default what the broker says. `nats`: copies of the stream, where it is made:
    /// 1 by default, 3 or 5 in a cluster that shall do without a server.
    pub replication: Option<u32>,
    /// `kafka`: settings of topics that are made: `{cleanup.policy: compact}`.
    #[schemars(extend("default" = {}))]
    pub topic_config: BTreeMap<String, String>,
    /// `kafka`: after a delete, and at the old key of a row that got another, a message without a value, so that a compacted
    /// topic forgets the row. `debezium` and `avro` have them always.
    pub tombstones: bool,
    /// `kafka`: rows and progress in one transaction; consumers read with `isolation.level=read_committed`.
    pub exactly_once: bool,
    /// `kafka`: a topic that is told where each transaction of the source begins and ends, and how many events of the flow it
    /// has, as Debezium's `provide.transaction.metadata` does: `"{source}.transaction"`. With `format: debezium` each event
    /// then names its place in its transaction. Made with one partition when it is missing. Not for `avro`. None by default.
    pub transactions: Option<String>,
    /// `kafka`: how messages are compressed.
    pub compression: KafkaCodec,
    /// `elasticsearch`: the alias that searchers ask, with the table's documents behind it; `{source}`, `{db}` and `{table}`
    /// stand for the table's names. In lower case, and one for each table.
    #[schemars(extend("default" = crate::sinks::elasticsearch::INDEX_DEFAULT))]
    pub index: Option<String>,
    /// `elasticsearch`: a document's `_id`, with the same names, `{key}` for the table's key (its columns joined by `:`) and
    /// any other name for a column. It must name the row.
    #[schemars(extend("default" = crate::sinks::elasticsearch::ID_DEFAULT))]
    pub id: Option<String>,
    /// `elasticsearch`: what chooses a document's shard, in the same way: `{customer_id}`. Its `_id` by default.
    pub routing: Option<String>,
    /// `elasticsearch`: how columns are indexed, in place of what their types say: `{note: {type: text, analyzer: english}}`.
    #[schemars(extend("default" = {}))]
    pub mappings: BTreeMap<String, serde_json::Value>,
    /// `elasticsearch`: settings of indexes that are made: `{number_of_shards: 3}`.
    #[schemars(extend("default" = {}))]
    pub index_settings: BTreeMap<String, serde_json::Value>,
    /// `elasticsearch`: rows of other tables inside each document, by the name of the field: `{orders: {from: shop.orders, on:
    /// {user_id: id}}}`. The flow then names one table in `tables`, without wildcards; its source keeps a mirror of all
    /// these tables, and the flow waits until they are whole there.
    #[schemars(extend("default" = {}))]
    pub nest: BTreeMap<String, NestConfig>,
    /// Rows of one write to the sink, at most; 1 to 100000. 1024 by default, 8192 for `kafka` and 32768 with `exactly_once`, 4096
    /// for `mysql`, `tidb` and `elasticsearch`, 100 for `http`, where it is the most that one request holds.
    pub batch_rows: Option<u32>,
    /// `mysql`, `tidb`: connections on which parts of a large batch are written at the same time, 1 to 64. They commit in
    /// the order of the source.
    #[schemars(extend("default" = crate::sinks::mysql::lanes::LANES_DEFAULT))]
    pub lanes: Option<u32>,
    /// `mysql`, `tidb`: mark every transaction as the flow's own, for a source of that server with `skip_marked`. Statements
    /// carry no mark, so that it needs `ddl: hold`, and a table is emptied by DELETE.
    pub mark: bool,
}

/// Rows of another table inside a document.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NestConfig {
    /// The table whose rows are put in: a `db.table` that the source captures, with a key.
    pub from: String,
    /// Which of its rows: its columns, and the columns of the document's table that they equal, as the source has both:
    /// `{user_id: id}`. Texts are equal when their bytes are; NULL equals nothing.
    pub on: BTreeMap<String, String>,
    /// How they are put in.
    #[serde(default)]
    pub r#as: NestAs,
    /// The columns that are put in; all by default.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    pub columns: Vec<String>,
    /// A document with more of them is parked, 1 to 10000.
    #[serde(default)]
    #[schemars(extend("default" = crate::nest::ROWS_DEFAULT))]
    pub max: Option<u32>,
}

/// How rows are put into a document.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NestAs {
    /// A list of objects in the order of their keys, each searched by itself (`type: nested`).
    #[default]
    Nested,
    /// The only one, or null. A document with several is parked.
    Object,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaCodec {
    #[default]
    None,
    Gzip,
    Zstd,
}

/// What a SQL sink does with DDL.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DdlPolicy {
    /// Do the same to the sink's table.
    #[default]
    Apply,
    /// Leave the sink's tables as they are.
    Hold,
}

/// What becomes of a row in Redis, or of a change.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisType {
    /// A row is a hash: a field for each column that is not NULL, and `tidemill_version`.
    #[default]
    Hash,
    /// A row is a string: a JSON object, whose first member is `tidemill_version`.
    Json,
    /// A row is a member of a set. One with NULL in its key or member is none.
    Set,
    /// A row is a member of a sorted set. One with NULL in its key, member or score is none.
    Zset,
    /// A change is an entry of a stream, with the fields `op`, `key` and `change`.
    Stream,
    /// A change is a message to a channel, for whoever listens at the moment.
    Pubsub,
}
