//! A project folder, read whole and checked before anything starts.

mod collections;
mod flows;
mod references;
mod sinks;
mod sources;

pub use references::{SECRETS_HINT, resolve, resolve_all};

use references::check_report;

use crate::auth;
use crate::door;
use crate::durable::streams::StreamsConfig;
use crate::files::{self, Folder, read_folder};
use crate::listener::{Tls, TlsConfig};
use crate::pushed::ReportConfig;
use ::warehouse::indicator::Indicators;
use ::warehouse::model::Model;
use base::{ByteSize, Secret, Span};
use collect::CollectConfig;
use flow::config::{FlowConfig, SinkConfig, SourceConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One mistake in the project, where it is and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Relative to the project folder.
    pub path: String,
    pub line: u64,
    pub column: u64,
    pub message: String,
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}\n  hint: {}", self.path, self.line, self.column, self.message, self.hint)
    }
}

/// The node: where it keeps its data and where it listens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The project's name.
    pub name: String,
    /// Where journals and the catalog live, relative to the project.
    #[serde(default = "default_data_dir")]
    #[schemars(extend("default" = "./data"))]
    pub data_dir: PathBuf,
    /// Where it listens.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub listen: ListenConfig,
    /// TLS of the HTTP port. Without it, the port must be on loopback.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// What the HTTP port lets pages of browsers do.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub http: HttpConfig,
    /// How journals are kept.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub journal: JournalConfig,
    /// Where progress, pauses and dead letters are kept: `sqlite:./data/catalog.db`. In `data_dir` by default.
    #[serde(default)]
    pub catalog: Option<String>,
    /// The business's time zone, as in the IANA database, that `verify:` of flows goes by. UTC by default.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Streams of the Durable Streams protocol that clients make themselves, under `/api/v1/streams/`; `streams: {}` turns them on.
    #[serde(default)]
    pub streams: Option<StreamsConfig>,
    /// Where the node reports by itself what it does, for places that nobody can scrape.
    #[serde(default)]
    pub report: Option<ReportConfig>,
    /// The project's SQL engine, which `tidemill query` and clients of the SQL door ask: `sqlite:./data/warehouse.db`, or
    /// `mysql://user:${env:DW_PASSWORD}@host:4000/dw` for TiDB and MySQL. Flows that collect fill it, and models compute in it.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub engine: Option<Secret>,
}

/// Where the node listens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// REST, `/metrics`, `/healthz` and `/readyz`. Other addresses than those of loopback need `tls` and a token
    /// (`tidemill token create`). The other commands reach the running node here, so a port of 0 is only for tests.
    #[schemars(with = "String", extend("default" = "127.0.0.1:7070"))]
    pub http: SocketAddr,
    /// The SQL door: MySQL's protocol for BI tools, `127.0.0.1:7306`, through which they read the `engine`. Closed by default. Other
    /// addresses than those of loopback need `tls` and a token.
    #[schemars(with = "Option<String>")]
    pub mysql: Option<SocketAddr>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { http: SocketAddr::from(([127, 0, 0, 1], 7070)), mysql: None }
    }
}

/// What the HTTP port lets pages of browsers do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Sites whose pages may call this node: `https://shop.example`, each as a browser writes it in `Origin`. The page needs a
    /// token as every caller does. None by default.
    pub cors: Vec<String>,
}

/// How journals are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// The size after which a new segment begins, `4KiB` to `16GiB`.
    #[schemars(with = "Option<String>", extend("default" = ByteSize(journal::limits::SEGMENT_BYTES).to_string()))]
    pub segment_bytes: Option<ByteSize>,
    /// How long changes are kept, by the time they came or that of their commit, whichever is later. Whole segments go. What
    /// a flow of this project has not delivered is kept for as long again, with an alarm, and then goes too.
    #[schemars(with = "Option<String>", extend("default" = Span(crate::retention::AGE_DEFAULT).to_string()))]
    pub retention: Option<Span>,
    /// How large a journal may grow. No limit by default. The same grace.
    #[schemars(with = "Option<String>")]
    pub retention_bytes: Option<ByteSize>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("./data")
}

impl NodeConfig {
    /// `tidemill.yaml` alone: what commands need that speak to the running node.
    pub fn load(dir: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let node: Option<Self> = files::read(dir, "tidemill.yaml", &mut problems);
        let mut node = node.ok_or(problems)?;
        node.place(dir);
        Ok(node)
    }

    /// Paths are told from the project.
    fn place(&mut self, dir: &Path) {
        self.data_dir = below(dir, &self.data_dir);
        if let Some(TlsConfig { cert, key, client_ca }) = &mut self.tls {
            for path in [cert, key].into_iter().chain(client_ca) {
                *path = below(dir, path);
            }
        }
    }

    pub fn catalog_path(&self, dir: &Path) -> PathBuf {
        match self.catalog.as_deref().and_then(|url| url.strip_prefix("sqlite:")) {
            Some(path) => below(dir, Path::new(path)),
            None => self.data_dir.join("catalog.db"),
        }
    }

    pub fn journal_dir(&self, source: &str) -> PathBuf {
        self.data_dir.join("journal").join(source)
    }
}

/// Whether `${env:NAME}` and `${file:PATH}` are replaced by what they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    Resolve,
    Leave,
}

/// Everything `up` needs.
#[derive(Clone, Debug)]
pub struct Project {
    pub dir: PathBuf,
    pub node: NodeConfig,
    pub sources: BTreeMap<String, SourceConfig>,
    pub sinks: BTreeMap<String, SinkConfig>,
    pub flows: BTreeMap<String, FlowConfig>,
    /// The flows that collect.
    pub collections: BTreeMap<String, CollectConfig>,
    /// What these read, by the source's name. A source that only they name is not among `sources`, and not captured.
    pub collected: BTreeMap<String, collect::Source>,
    /// The tables that are made of others.
    pub models: Vec<Model>,
    /// The SQL proxy, if the project has one.
    pub mesh: Option<mesh::MeshConfig>,
    /// What people call by a code.
    pub indicators: Arc<Indicators>,
}

impl Project {
    /// Reads and checks `dir`; every problem found, or the project.
    pub fn load(dir: &Path) -> Result<Self, Vec<Problem>> {
        Self::load_as(dir, References::Resolve)
    }

    /// The same without its secrets: for looking at it where they are not at hand.
    pub fn load_without_secrets(dir: &Path) -> Result<Self, Vec<Problem>> {
        Self::load_as(dir, References::Leave)
    }

    fn load_as(dir: &Path, references: References) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let node: Option<NodeConfig> = files::read(dir, "tidemill.yaml", &mut problems);
        let sources = collections::read_sources(dir, &mut problems);
        let sinks: Folder<SinkConfig> = read_folder(dir, "sinks", &mut problems);
        let flows = collections::read_flows(dir, &mut problems);
        let mut project = Self {
            dir: dir.to_owned(),
            node: NodeConfig {
                name: String::new(),
                data_dir: default_data_dir(),
                listen: ListenConfig::default(),
                tls: None,
                http: HttpConfig::default(),
                journal: JournalConfig::default(),
                catalog: None,
                timezone: None,
                streams: None,
                report: None,
                engine: None,
            },
            sources: sources.captured,
            sinks: sinks.good,
            flows: flows.streams,
            collections: flows.collections,
            collected: BTreeMap::new(),
            models: crate::warehouse::load::models(dir, &mut problems),
            mesh: crate::mesh::load(dir, references == References::Resolve, &mut problems),
            indicators: Arc::default(),
        };
        // Its commands read it again: the node itself does nothing with it.
        crate::placement::load(dir, references == References::Resolve, &mut problems);
        let has_engine = node.as_ref().is_none_or(|node| node.engine.is_some());
        let mut indicators = Indicators::clone(&*crate::indicators::load(dir, has_engine, &mut problems));
        if let Some(node) = node {
            project.node = node;
        }
        indicators.zone =
            project.node.timezone.as_deref().and_then(|zone| jiff::tz::TimeZone::get(zone).ok());
        project.indicators = Arc::new(indicators);
        project.node.place(dir);
        let broken = Broken { sources: sources.broken, sinks: sinks.broken };
        project.check(references, &broken, sources.collected, &mut problems);
        crate::warehouse::load::check(&project, &mut problems);
        project.resolve_engine(references, &mut problems);
        if problems.is_empty() { Ok(project) } else { Err(problems) }
    }

    fn resolve_engine(&mut self, references: References, problems: &mut Vec<Problem>) {
        if self.node.engine.is_none() {
            return;
        }
        if let Err((message, hint)) = resolve(&mut self.node.engine, &["sqlite:", "mysql://"], references) {
            let path = "tidemill.yaml".to_owned();
            let message = message.replace("`url`", "`engine`");
            let (line, column) = place(&self.dir, &path, &message);
            let hint = hint.unwrap_or_else(|| "engine: sqlite:./data/warehouse.db".into());
            problems.push(Problem { path, line, column, message, hint });
        }
    }

    pub fn journal_dir(&self, source: &str) -> PathBuf {
        self.node.journal_dir(source)
    }

    pub fn catalog_path(&self) -> PathBuf {
        self.node.catalog_path(&self.dir)
    }

    /// What is declared and has no effect.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(mesh) = &self.mesh {
            notes.extend(mesh.notes().into_iter().map(|note| format!("mesh.yaml: {note}")));
        }
        let idle = self.flows.is_empty() && self.collections.is_empty() && self.models.is_empty();
        if idle && (self.mesh.is_none() || !self.sources.is_empty()) {
            notes.push("flows: there is no flow, so changes are captured and delivered nowhere".to_owned());
        }
        notes
    }

    fn check(
        &mut self,
        references: References,
        broken: &Broken,
        collected: BTreeMap<String, collect::SourceConfig>,
        problems: &mut Vec<Problem>,
    ) {
        let mut told = Told { dir: self.dir.clone(), problems };
        self.check_node(references, &mut told);
        self.check_sources(references, &mut told);
        self.check_sinks(references, &mut told);
        self.check_flows(broken, &collected, &mut told);
        self.check_collections(references, broken, collected, &mut told);
    }

    fn check_node(&mut self, references: References, told: &mut Told<'_>) {
        let mut add = |path: String, message: String, hint: String| told.add(path, message, hint);
        let against_others = reach_problems(&self.node, &self.catalog_path()).into_iter();
        for (message, hint) in against_others.chain(door::problems(&self.node, &self.catalog_path())) {
            add("tidemill.yaml".into(), message, hint);
        }
        if let Some(catalog) = self.node.catalog.as_deref().filter(|url| !url.starts_with("sqlite:")) {
            let scheme = catalog.split_once(':').map_or("", |(scheme, _)| scheme);
            add(
                "tidemill.yaml".into(),
                format!("a catalog of kind `{scheme}` is not supported: this version keeps it in SQLite"),
                "catalog: sqlite:./data/catalog.db".into(),
            );
        }
        if let Some(zone) =
            self.node.timezone.as_deref().filter(|zone| jiff::tz::TimeZone::get(zone).is_err())
        {
            add(
                "tidemill.yaml".into(),
                format!("`{zone}` is not a time zone"),
                "for example: timezone: Asia/Shanghai".into(),
            );
        }
        if let Some(report) = &mut self.node.report
            && let Err((message, hint)) = check_report(report, references)
        {
            add("tidemill.yaml".into(), format!("`report`: {message}"), hint);
        }
    }
}

/// What stands against letting others reach the HTTP port.
fn reach_problems(node: &NodeConfig, catalog: &Path) -> Vec<(String, String)> {
    let mut out = Vec::new();
    if let Some(Err(message)) = node.tls.as_ref().map(Tls::read) {
        let hint = "name PEM files, relative to the project: tls: {cert: ./cert.pem, key: ./key.pem}";
        out.push((format!("`tls`: {message}"), hint.to_owned()));
    }
    if let Err(message) = auth::check_origins(&node.http.cors) {
        let hint = "write each site as a browser does: http: {cors: [\"https://shop.example\"]}";
        out.push((message, hint.to_owned()));
    }
    let address = node.listen.http;
    if address.ip().is_loopback() {
        return out;
    }
    if node.tls.is_none() {
        let message = format!("listen.http is `{address}`, which others can reach, and there is no `tls`");
        let hint =
            "add tls: {cert: ./cert.pem, key: ./key.pem}, or listen on 127.0.0.1: docs/guides/access.md";
        out.push((message, hint.to_owned()));
    }
    match catalog::has_tokens(catalog) {
        Ok(true) => {}
        Ok(false) => {
            let message =
                format!("listen.http is `{address}`, which others can reach, and there is no token");
            let hint =
                "make the first one: `tidemill token create NAME --scope admin`; or listen on 127.0.0.1";
            out.push((message, hint.to_owned()));
        }
        Err(error) => {
            let message = format!("the tokens cannot be read: {}", base::error::chain(&error));
            out.push((message, "check that the catalog is this project's and can be read".to_owned()));
        }
    }
    out
}

/// Where in a file a mistake stands that was found after reading it: at the step that the message begins with, or at
/// the first thing that it quotes; else at the beginning.
pub fn place(dir: &Path, path: &str, message: &str) -> (u64, u64) {
    let text = fs::read_to_string(dir.join(path)).unwrap_or_default();
    let at = |(line, column): (usize, usize)| (line as u64 + 1, column as u64 + 1);
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    let step = message.strip_prefix("transform[").and_then(|rest| rest.split_once(']'));
    if let Some(index) = step.and_then(|(index, _)| index.parse::<usize>().ok()) {
        let steps = lines().skip_while(|(_, line)| !line.starts_with("transform")).skip(1);
        let steps = steps.filter(|(_, line)| line.trim_start().starts_with("- "));
        if let Some((number, line)) = steps.into_iter().nth(index) {
            return at((number, line.len() - line.trim_start().len()));
        }
    }
    let quoted = message.split('`').skip(1).step_by(2);
    let found = quoted
        .filter(|word| !word.is_empty())
        .find_map(|word| lines().find_map(|(number, line)| Some((number, line.find(word)?))));
    found.map_or((1, 1), at)
}

/// A path of the project, without the `./` that people write.
pub fn below(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path).components().collect()
}

fn known(names: &[&str]) -> String {
    if names.is_empty() { "there are none yet".into() } else { format!("there are: {}", names.join(", ")) }
}

/// Where mistakes are told.
struct Told<'a> {
    dir: PathBuf,
    problems: &'a mut Vec<Problem>,
}

impl Told<'_> {
    fn add(&mut self, path: String, message: String, hint: String) {
        let (line, column) = place(&self.dir, &path, &message);
        self.problems.push(Problem { path, line, column, message, hint });
    }
}

/// Files that are there and could not be read: told already.
struct Broken {
    sources: BTreeSet<String>,
    sinks: BTreeSet<String>,
}

const TLS_HINT: &str = "name PEM files, relative to the project: tls_ca: ./ca.pem for the authorities that are trusted, tls_cert: \
                        ./client.pem and tls_key: ./client-key.pem for servers that ask for a certificate";
