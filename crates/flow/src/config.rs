//! What users write in `sources/*.yaml`, `sinks/*.yaml` and `flows/*.yaml`. The doc comments are the manual.

use base::{ByteSize, Secret};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A system we read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    pub kind: SourceKind,
    /// `mysql://user:password@host:3306`; several hosts are separated by commas.
    #[serde(default)]
    pub url: Option<Secret>,
    /// The database file, for `sqlite`.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Tables to capture, as `db.table` with `*` and `?` wildcards.
    pub tables: Vec<String>,
    /// Tables to leave out, in the same form.
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub snapshot: SnapshotMode,
    #[serde(default)]
    pub on_gap: OnGap,
    #[serde(default)]
    pub options: SourceOptions,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    Mysql,
    Sqlite,
}

/// Whether a new source is read whole before its changes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    #[default]
    Initial,
    Never,
}

/// What to do when the source no longer has the changes that follow ours.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    #[default]
    Fail,
    Resnapshot,
    Skip,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceOptions {
    /// Our id among the source's replicas; by default derived from the source's name.
    pub server_id: Option<u32>,
    /// Rows a snapshot reads at once (default 4096).
    pub snapshot_chunk_rows: Option<u32>,
    /// Tables a snapshot reads in parallel (default 2).
    pub snapshot_parallel: Option<u32>,
    /// Rows a second a snapshot may read in all (default: no limit).
    pub snapshot_rows_per_second: Option<u32>,
    /// TLS to the server: `prefer` (default), `require`, `verify` (its certificate is signed by `tls_ca` and names the
    /// host) or `off`. To this machine itself the default is `off`.
    pub tls: Option<TlsMode>,
    /// The only CA certificates that `verify` trusts, as PEM; the public ones by default.
    pub tls_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    Off,
    Prefer,
    Require,
    Verify,
}

/// A system we write.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    pub kind: SinkKind,
    /// `mysql://user:password@host:3306`, `nats://host:4222`.
    #[serde(default)]
    pub url: Option<Secret>,
    /// The database file (`sqlite`) or folder (`files`).
    #[serde(default)]
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    Mysql,
    Tidb,
    Sqlite,
    Nats,
    Files,
    Stdout,
}

/// The movement of data from a source to a sink.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// The source's name.
    pub from: String,
    /// Tables this flow carries, of those the source captures; all by default.
    #[serde(default)]
    pub tables: Vec<String>,
    #[serde(default)]
    pub mode: FlowMode,
    #[serde(default)]
    pub transform: Vec<TransformStep>,
    /// The sink's name.
    pub to: String,
    /// New names for databases and tables: `{"shop.*": "dw.shop_*"}`.
    #[serde(default)]
    pub route: BTreeMap<String, String>,
    #[serde(default)]
    pub options: FlowOptions,
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
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FlowMode {
    #[default]
    Stream,
}

/// One step over each row, in order. Each step is an object with one member.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformStep {
    /// Keeps the rows for which a MySQL expression is true.
    Filter(String),
    /// Keeps only these columns.
    Columns(Vec<String>),
    /// Gives columns new names: `{old: new}`.
    Rename(BTreeMap<String, String>),
    /// Hides values: `{phone: partial}`.
    Mask(BTreeMap<String, Mask>),
    /// Adds or replaces columns by MySQL expressions: `{total: "price * quantity"}`.
    Set(BTreeMap<String, String>),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// NULL where the column allows it, otherwise the type's empty value.
    Null,
    /// SHA-256 of the text, in hexadecimal.
    Hash,
    /// Keeps the first and last characters: `138****5678`.
    Partial,
    /// The text `***`.
    Redact,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowOptions {
    /// What SQL sinks do with DDL.
    pub ddl: DdlPolicy,
    /// SQL sinks keep every change for ever as a row of `tidemill_history_<table>`, instead of the latest image.
    pub history: bool,
    /// NATS subject, a template: `tidemill.{source}.{db}.{table}` by default.
    pub subject: Option<String>,
    /// NATS stream name (default: `TIDEMILL_<FLOW>`), made when it is missing.
    pub stream: Option<String>,
    /// `files`: the size after which a new file begins (default `64MiB`).
    pub rotate_bytes: Option<ByteSize>,
    /// Most rows of one write to the sink (default 1024).
    pub batch_rows: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DdlPolicy {
    #[default]
    Apply,
    Hold,
}
