//! A project folder, read whole and checked before anything starts.

use crate::auth;
use crate::durable::streams::StreamsConfig;
use crate::files::{self, Folder, read_folder};
use crate::listener::{Tls, TlsConfig};
use crate::pushed::{ReportConfig, Reporter};
use base::{ByteSize, Secret, Span};
use flow::config::{
    DdlPolicy, FlowConfig, HttpMethod, KafkaCodec, KafkaStart, OnBad, OnGap, RedisType, SinkConfig, SinkKind,
    SnapshotMode, SourceConfig, SourceKind, TransformStep,
};
use flow::formats::Format;
use flow::formats::decode::{self, MessageFormat};
use flow::mirror::MirrorConfig;
use flow::patterns::{BadPattern, Patterns};
use flow::transform::Transform;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

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
    /// The project's SQL engine, which `tidemill query` asks: `sqlite:./data/warehouse.db`, or
    /// `mysql://user:${env:DW_PASSWORD}@host:4000/dw` for TiDB and MySQL. This version computes no models in it.
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
    /// The SQL door for BI tools. Accepted so that one file serves every version: this one does not open it.
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
    /// The SQL proxy, if the project has one.
    pub mesh: Option<mesh::MeshConfig>,
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
        let sources: Folder<SourceConfig> = read_folder(dir, "sources", &mut problems);
        let sinks: Folder<SinkConfig> = read_folder(dir, "sinks", &mut problems);
        let flows: Folder<FlowConfig> = read_folder(dir, "flows", &mut problems);
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
            sources: sources.good,
            sinks: sinks.good,
            flows: flows.good,
            mesh: crate::mesh::load(dir, references == References::Resolve, &mut problems),
        };
        // Its commands read it again: the node itself does nothing with it.
        crate::placement::load(dir, references == References::Resolve, &mut problems);
        if let Some(node) = node {
            project.node = node;
        }
        project.node.place(dir);
        project.check(references, &Broken { sources: sources.broken, sinks: sinks.broken }, &mut problems);
        if problems.is_empty() { Ok(project) } else { Err(problems) }
    }

    pub fn journal_dir(&self, source: &str) -> PathBuf {
        self.node.journal_dir(source)
    }

    pub fn catalog_path(&self) -> PathBuf {
        self.node.catalog_path(&self.dir)
    }

    /// What is declared and has no effect in this version.
    pub fn notes(&self) -> Vec<String> {
        let unused = [("listen.mysql", self.node.listen.mysql.is_some(), "this version has no SQL door")];
        let declared = unused.into_iter().filter(|(_, declared, _)| *declared);
        let mut notes: Vec<String> = declared
            .map(|(key, _, reason)| format!("tidemill.yaml: `{key}` has no effect: {reason}"))
            .collect();
        if let Some(mesh) = &self.mesh {
            notes.extend(mesh.notes().into_iter().map(|note| format!("mesh.yaml: {note}")));
        }
        if self.flows.is_empty() && (self.mesh.is_none() || !self.sources.is_empty()) {
            notes.push("flows: there is no flow, so changes are captured and delivered nowhere".to_owned());
        }
        notes
    }

    fn check(&mut self, references: References, broken: &Broken, problems: &mut Vec<Problem>) {
        let dir = self.dir.clone();
        let mut add = |path: String, message: String, hint: String| {
            let (line, column) = place(&dir, &path, &message);
            problems.push(Problem { path, line, column, message, hint });
        };
        for (message, hint) in reach_problems(&self.node, &self.catalog_path()) {
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
        for (name, source) in &mut self.sources {
            let path = format!("sources/{name}.yaml");
            let options = &mut source.options;
            for file in
                [&mut options.tls_ca, &mut options.tls_cert, &mut options.tls_key].into_iter().flatten()
            {
                *file = below(&self.dir, file);
            }
            if source.kind == SourceKind::Kafka
                && let Err(message) = flow::tls::connector(&source.options.tls_files())
            {
                add(path.clone(), message, TLS_HINT.to_owned());
            }
            for list in [&source.tables, &source.exclude] {
                if let Err(error) = Patterns::new(list, &[]) {
                    add(path.clone(), error.to_string(), "for example: tables: [\"shop.*\"]".into());
                }
            }
            for (message, hint) in source_problems(source) {
                add(path.clone(), message, hint);
            }
            let mirror = MirrorConfig::of(name, source, &self.flows);
            for (message, hint) in mirror_problems(source, mirror) {
                add(path.clone(), message, hint);
            }
            match source.kind {
                SourceKind::Kafka => {
                    if source.tables.is_empty() {
                        source.tables = vec!["*.*".to_owned()];
                    }
                    if let Err((reason, hint)) =
                        resolve(&mut source.url, &["kafka://", "kafkas://"], references)
                    {
                        add(
                            path.clone(),
                            reason,
                            hint.unwrap_or_else(|| "url: kafka://127.0.0.1:9092".into()),
                        );
                    }
                    if let Err((message, hint)) = registry(&mut source.schema_registry, references) {
                        add(path.clone(), message, hint);
                    }
                    if let Some(folder) = &mut source.claim_check {
                        *folder = self.dir.join(&folder);
                    }
                    if source.tidb.is_some()
                        && let Err((reason, hint)) = resolve(&mut source.tidb, &["mysql://"], references)
                    {
                        let reason = format!("`tidb`: {reason}");
                        add(path, reason, hint.unwrap_or_else(|| "tidb: mysql://127.0.0.1:4000".into()));
                    }
                }
                SourceKind::Http => {
                    if references == References::Leave {
                        continue;
                    }
                    let found = resolve_all(source.secrets.iter_mut());
                    if let Err((message, hint)) = found {
                        add(path.clone(), message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned()));
                    } else if let Err(message) = flow::webhook::keys(&source.secrets) {
                        add(path, message, flow::webhook::KEY_HINT.to_owned());
                    }
                }
                SourceKind::Mysql => {
                    if let Err((reason, hint)) = resolve(&mut source.url, &["mysql://"], references) {
                        let example = || "url: mysql://user:${env:PASSWORD}@127.0.0.1:3306".into();
                        add(path, reason, hint.unwrap_or_else(example));
                    }
                }
                SourceKind::Capture => {
                    if source.tables.is_empty() {
                        source.tables = vec!["*.*".to_owned()];
                    }
                    let own = || self.mesh.as_ref().map(|mesh| mesh.capture.dir.clone());
                    match source.path.take().map(|path| below(&self.dir, &path)).or_else(own) {
                        Some(folder) => source.path = Some(folder),
                        None => add(
                            path,
                            "a capture source needs `path`: the project has no mesh".into(),
                            "path: the folder that `capture.dir` of the mesh names".into(),
                        ),
                    }
                }
                SourceKind::Sqlite => match &mut source.path {
                    Some(file) => *file = below(&self.dir, file),
                    None => add(path, "a sqlite source needs `path`".into(), "path: ./shop.db".into()),
                },
            }
        }
        for (name, sink) in &mut self.sinks {
            let path = format!("sinks/{name}.yaml");
            let files = [&mut sink.tls_ca, &mut sink.tls_cert, &mut sink.tls_key, &mut sink.credentials];
            for file in files.into_iter().flatten() {
                *file = below(&self.dir, file);
            }
            if let Err(message) = flow::tls::connector(&sink.tls_files()) {
                add(path.clone(), message, TLS_HINT.to_owned());
            }
            for key in idle_keys(sink) {
                let message = format!("`{key}` means nothing to this kind of sink");
                let hint = "remove it, or see docs/reference/config.md for whose it is".into();
                add(path.clone(), message, hint);
            }
            let schemes: &[&str] = match sink.kind {
                SinkKind::Mysql | SinkKind::Tidb => &["mysql://"],
                SinkKind::Nats => &["nats://", "tls://"],
                SinkKind::Kafka => &["kafka://", "kafkas://"],
                SinkKind::Redis => &[
                    "redis://",
                    "rediss://",
                    "redis-sentinel://",
                    "rediss-sentinel://",
                    "redis-cluster://",
                    "rediss-cluster://",
                ],
                SinkKind::Elasticsearch | SinkKind::Http => &["http://", "https://"],
                SinkKind::Sqlite | SinkKind::Files => {
                    match &mut sink.path {
                        Some(file) => *file = below(&self.dir, file),
                        None => add(path, "this kind of sink needs `path`".into(), "path: ./out".into()),
                    }
                    continue;
                }
                SinkKind::Stdout => continue,
            };
            if let Err((reason, hint)) = resolve(&mut sink.url, schemes, references) {
                add(path, reason, hint.unwrap_or_else(|| format!("url: {}127.0.0.1:PORT", schemes[0])));
                continue;
            }
            if let Err((message, hint)) = registry(&mut sink.schema_registry, references) {
                add(path.clone(), message, hint);
            }
            if sink.credentials.is_some() && sink.nkey.is_some() {
                let message = "`credentials` and `nkey` are two ways to log in".into();
                add(path.clone(), message, "remove one of them".into());
            }
            if references == References::Resolve
                && let Err((message, hint)) = resolve_all(sink.nkey.iter_mut())
            {
                let hint = hint.unwrap_or_else(|| "nkey: ${env:NATS_NKEY}".to_owned());
                add(path.clone(), format!("`nkey`: {message}"), hint);
            }
            if sink.kind == SinkKind::Http && references == References::Resolve {
                let found = resolve_all(sink.headers.values_mut().chain(&mut sink.secrets))
                    .map_err(|(message, hint)| (message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned())))
                    .and_then(|()| flow::sinks::http::Receiver::read(sink).map(|_| ()));
                if let Err((message, hint)) = found {
                    add(path, message, hint);
                }
            }
        }
        let counted_apart = counted_apart(&self.flows);
        let kept = self.node.journal.retention.map_or(crate::retention::AGE_DEFAULT, |span| span.0);
        for (name, flow) in &mut self.flows {
            let path = format!("flows/{name}.yaml");
            if let Some(other) = counted_apart.get(name) {
                let message =
                    format!("`transactions` names the topic of the flow `{other}` too, which counts apart");
                add(path.clone(), message, "give each flow a topic of its own".into());
            }
            let outside = place_lookups(&dir, flow);
            let readable = outside.is_empty();
            for (index, message, hint) in outside {
                add(path.clone(), format!("transform[{index}].lookup: {message}"), hint);
            }
            if !self.sources.contains_key(&flow.from) && !broken.sources.contains(&flow.from) {
                let names: Vec<_> = self.sources.keys().map(String::as_str).collect();
                add(path.clone(), format!("there is no source `{}`", flow.from), known(&names));
            }
            if !self.sinks.contains_key(&flow.to) && !broken.sinks.contains(&flow.to) {
                let names: Vec<_> = self.sinks.keys().map(String::as_str).collect();
                add(path.clone(), format!("there is no sink `{}`", flow.to), known(&names));
            }
            if let Err(error) = Patterns::new(&flow.tables, &[]) {
                add(path.clone(), error.to_string(), "for example: tables: [\"shop.orders\"]".into());
            }
            if let Some(sink) = self.sinks.get(&flow.to) {
                if sink.kind == SinkKind::Redis
                    && let Err((message, hint)) = flow::sinks::redis::plan::Options::compile(&flow.options)
                        .and_then(|options| {
                            sink.url.as_ref().map_or(Ok(()), |url| options.check_cluster(url))
                        })
                {
                    add(path.clone(), message, hint);
                }
                if sink.kind == SinkKind::Elasticsearch
                    && let Err((message, hint)) =
                        flow::sinks::elasticsearch::plan::Options::compile(&flow.options)
                {
                    add(path.clone(), message, hint);
                }
                for option in idle_options(flow, sink.kind) {
                    let message = format!("`{option}` means nothing to the sink `{}`", flow.to);
                    add(
                        path.clone(),
                        message,
                        "remove it, or see docs/reference/config.md for whose it is".into(),
                    );
                }
            }
            if let Some(reason) = self.sinks.get(&flow.to).and_then(|sink| format_refusal(flow, sink.kind)) {
                let message = format!(
                    "`{}` is not supported by the sink `{}`: {reason}",
                    flow.options.format.name(),
                    flow.to
                );
                add(path.clone(), message, "use `format: json` or `format: cloudevents`".into());
            }
            if flow.options.format == Format::Avro
                && let Some(sink) = self.sinks.get(&flow.to)
                && sink.kind == SinkKind::Kafka
            {
                if sink.schema_registry.is_none() {
                    let message = format!(
                        "`format: avro` needs a schema registry, and the sink `{}` has none",
                        flow.to
                    );
                    let hint = format!("add `schema_registry: http://host:8081` to sinks/{}.yaml", flow.to);
                    add(path.clone(), message, hint);
                }
                if flow.options.key.is_some() {
                    let message =
                        "`key` is not supported with `format: avro`: the key is a record of the table's key";
                    add(path.clone(), message.into(), "remove `key`, or choose another format".into());
                }
                if flow.options.transactions.is_some() {
                    let message =
                        "`transactions` is not supported with `format: avro`: what it tells is JSON";
                    add(path.clone(), message.into(), "choose another format, or remove it".into());
                }
            }
            if flow.options.mark && (flow.options.ddl != DdlPolicy::Hold || flow.options.history) {
                let message =
                    "`mark` needs `ddl: hold`, and no `history`: a statement carries no mark".to_owned();
                let hint = "add `ddl: hold`, and change tables on both servers by hand".to_owned();
                add(path.clone(), message, hint);
            }
            if let Some(reason) = self.sinks.get(&flow.to).and_then(|sink| origin_refusal(flow, sink.kind)) {
                let hint = "merge tables on MySQL or TiDB, with `ddl: hold`: make each change of a table there by hand";
                add(path.clone(), format!("`origin` cannot be used here: {reason}"), hint.to_owned());
            }
            if let Some(reason) = self.sinks.get(&flow.to).and_then(|sink| split_refusal(flow, sink.kind)) {
                let message = format!("`split` is not supported by the sink `{}`: {reason}", flow.to);
                add(path.clone(), message, "use a SQL sink, kafka, stdout, or a redis sink of rows".into());
            }
            for (message, hint) in flow::nest::check(flow) {
                add(path.clone(), message, hint);
            }
            for (index, step) in flow.transform.iter().enumerate() {
                let TransformStep::Dedup(step) = step else { continue };
                if step.window.0 > kept {
                    let message = format!(
                        "transform[{index}].dedup: its `window` is longer than the journal keeps changes: {}",
                        Span(kept)
                    );
                    add(
                        path.clone(),
                        message,
                        "raise `retention` in tidemill.yaml, or choose a shorter one".into(),
                    );
                }
            }
            for error in Transform::compile(flow).err().filter(|_| readable).unwrap_or_default() {
                let hint = error.hint.clone();
                add(path.clone(), error.to_string(), hint);
            }
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

/// What is wrong with a source besides its URL: keys that its kind does not know, and those that it needs.
fn source_problems(source: &SourceConfig) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let is_kafka = source.kind == SourceKind::Kafka;
    let is_http = source.kind == SourceKind::Http;
    let is_capture = source.kind == SourceKind::Capture;
    let is_database = !is_kafka && !is_http && !is_capture;
    let is_ticdc = is_kafka && source.options.format.ticdc().is_some();
    if is_kafka && source.topics.is_empty() {
        out.push(("a kafka source needs `topics`".to_owned(), "topics: [\"shop.*\"]".to_owned()));
    }
    if !is_kafka && !is_capture && source.tables.is_empty() {
        out.push(("`tables` is missing".to_owned(), "for example: tables: [\"shop.*\"]".to_owned()));
    }
    let options = &source.options;
    let given = [
        ("topics", !source.topics.is_empty(), is_kafka),
        ("start", source.start != KafkaStart::default(), is_kafka),
        ("on_bad", source.on_bad != OnBad::default(), is_kafka),
        ("declare", !source.declare.is_empty(), is_kafka || is_http),
        ("format", options.format != MessageFormat::default(), is_kafka || is_http),
        ("secrets", !source.secrets.is_empty(), is_http),
        ("schema_registry", source.schema_registry.is_some(), is_kafka),
        ("tidb", source.tidb.is_some(), is_ticdc),
        ("claim_check", source.claim_check.is_some(), is_ticdc),
        ("buffer", options.buffer.is_some(), is_ticdc),
        ("watermark_timeout", options.watermark_timeout.is_some(), is_ticdc),
        ("url", (is_http || is_capture) && source.url.is_some(), false),
        ("on_gap", (is_http || is_capture) && source.on_gap != OnGap::default(), false),
        ("path", source.path.is_some(), is_database || is_capture),
        ("snapshot", !is_database && source.snapshot != SnapshotMode::default(), is_ticdc),
        ("server_id", !is_database && options.server_id.is_some(), false),
        ("snapshot_chunk_rows", !is_database && options.snapshot_chunk_rows.is_some(), is_ticdc),
        ("snapshot_parallel", !is_database && options.snapshot_parallel.is_some(), false),
        ("snapshot_rows_per_second", !is_database && options.snapshot_rows_per_second.is_some(), false),
        ("skip_marked", options.skip_marked, source.kind == SourceKind::Mysql),
        ("tls", !is_database && options.tls.is_some(), is_ticdc && source.tidb.is_some()),
        ("tls_ca", !is_database && options.tls_ca.is_some(), is_kafka),
        ("tls_cert", options.tls_cert.is_some(), is_kafka),
        ("tls_key", options.tls_key.is_some(), is_kafka),
    ];
    for (name, ..) in given.into_iter().filter(|(_, given, known)| *given && !known) {
        let hint = "remove it, or see docs/reference/config.md for whose it is".to_owned();
        out.push((format!("`{name}` means nothing to this kind of source"), hint));
    }
    if source.options.format == MessageFormat::Avro && is_http {
        let message = "`format: avro` is for sources of kafka only".to_owned();
        out.push((message, "push JSON: `format: debezium` has the same members".to_owned()));
    }
    if source.options.format.ticdc().is_some() && is_http {
        let message = "TiCDC's formats are for sources of kafka only".to_owned();
        out.push((message, "set `kind: kafka`".to_owned()));
    }
    if source.options.format == MessageFormat::Avro && is_kafka && source.schema_registry.is_none() {
        let message = "`format: avro` needs a schema registry".to_owned();
        out.push((message, "add `schema_registry: http://host:8081`".to_owned()));
    }
    for (table, declared) in &source.declare {
        if let Err(error) = Patterns::new(std::slice::from_ref(table), &[]) {
            out.push((error.to_string(), "for example: declare: {\"shop.orders\": {key: [id]}}".to_owned()));
        }
        for (column, text) in &declared.columns {
            if let Err(error) = decode::types::parse(text) {
                let hint =
                    "write the type as MySQL does: bigint unsigned, decimal(10,2), varchar(40)".to_owned();
                out.push((format!("the column `{column}` of `{table}`: {error}"), hint));
            }
        }
    }
    out
}

/// Why a source cannot have the mirror that it, or a flow of it, asks for.
fn mirror_problems(
    source: &SourceConfig,
    mirror: Result<Option<MirrorConfig>, BadPattern>,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let is_database = matches!(source.kind, SourceKind::Mysql | SourceKind::Sqlite);
    match mirror {
        Err(error) => out.push((error.to_string(), "for example: mirror: [\"shop.users\"]".to_owned())),
        Ok(None) => {}
        Ok(Some(_)) if source.options.format.ticdc().is_some() && source.tidb.is_none() => {
            out.push((
                "a `mirror` of TiCDC's topics needs the TiDB: its tables are read there".to_owned(),
                "for example: tidb: mysql://cdc:${env:TIDB_PASSWORD}@127.0.0.1:4000".to_owned(),
            ));
        }
        Ok(Some(_)) if !is_database && source.tidb.is_none() => out.push((
            "this kind of source has no `mirror`: its tables cannot be read anew".to_owned(),
            "remove it, and `nest` and `lookup` with `table` from its flows".to_owned(),
        )),
        Ok(Some(_)) if source.snapshot == SnapshotMode::Never => out.push((
            "a `mirror` needs whole tables, and with `snapshot: never` none is read".to_owned(),
            "set snapshot: initial".to_owned(),
        )),
        Ok(Some(_)) => {}
    }
    out
}

/// Keys of a sink's file that its kind does not know.
fn idle_keys(sink: &SinkConfig) -> Vec<&'static str> {
    let is_http = sink.kind == SinkKind::Http;
    let has_files = matches!(sink.kind, SinkKind::Kafka | SinkKind::Nats);
    let given = [
        ("method", sink.method != HttpMethod::default(), is_http),
        ("headers", !sink.headers.is_empty(), is_http),
        ("secrets", !sink.secrets.is_empty(), is_http),
        ("timeout", sink.timeout.is_some(), is_http),
        ("schema_registry", sink.schema_registry.is_some(), sink.kind == SinkKind::Kafka),
        ("tls_ca", sink.tls_ca.is_some(), has_files),
        ("tls_cert", sink.tls_cert.is_some(), has_files),
        ("tls_key", sink.tls_key.is_some(), has_files),
        ("credentials", sink.credentials.is_some(), sink.kind == SinkKind::Nats),
        ("nkey", sink.nkey.is_some(), sink.kind == SinkKind::Nats),
    ];
    given.into_iter().filter(|(_, given, known)| *given && !known).map(|(name, ..)| name).collect()
}

/// Options of a flow that its kind of sink does not know: a person who sets them expects something.
fn idle_options(flow: &FlowConfig, kind: SinkKind) -> Vec<&'static str> {
    let options = &flow.options;
    let is_sql = matches!(kind, SinkKind::Mysql | SinkKind::Tidb | SinkKind::Sqlite);
    let is_kafka = kind == SinkKind::Kafka;
    let is_redis = kind == SinkKind::Redis;
    let is_search = kind == SinkKind::Elasticsearch;
    let is_log = matches!(options.r#type, Some(RedisType::Stream | RedisType::Pubsub));
    let given = [
        ("ddl", options.ddl != DdlPolicy::default(), is_sql),
        ("history", options.history, is_sql),
        ("subject", options.subject.is_some(), kind == SinkKind::Nats),
        ("stream", options.stream.is_some(), kind == SinkKind::Nats && !options.core),
        ("core", options.core, kind == SinkKind::Nats),
        ("notify", options.notify, kind == SinkKind::Http),
        ("rotate_bytes", options.rotate_bytes.is_some(), kind == SinkKind::Files),
        (
            "format",
            options.format != Format::default(),
            !options.notify && !is_sql && !is_search && (!is_redis || is_log),
        ),
        ("type", options.r#type.is_some(), is_redis),
        ("member", options.member.is_some(), is_redis),
        ("score", options.score.is_some(), is_redis),
        ("ttl", options.ttl.is_some(), is_redis),
        ("maxlen", options.maxlen.is_some(), is_redis),
        (
            "schemas",
            options.schemas,
            matches!(kind, SinkKind::Stdout | SinkKind::Kafka | SinkKind::Http)
                && options.format == Format::Debezium,
        ),
        ("topic", options.topic.is_some(), is_kafka),
        ("key", options.key.is_some(), is_kafka || is_redis),
        ("partitions", options.partitions.is_some(), is_kafka),
        ("replication", options.replication.is_some(), is_kafka || kind == SinkKind::Nats && !options.core),
        ("topic_config", !options.topic_config.is_empty(), is_kafka),
        ("tombstones", options.tombstones, is_kafka),
        ("exactly_once", options.exactly_once, is_kafka),
        ("transactions", options.transactions.is_some(), is_kafka),
        ("index", options.index.is_some(), is_search),
        ("id", options.id.is_some(), is_search),
        ("routing", options.routing.is_some(), is_search),
        ("mappings", !options.mappings.is_empty(), is_search),
        ("nest", !options.nest.is_empty(), is_search),
        ("lanes", options.lanes.is_some(), matches!(kind, SinkKind::Mysql | SinkKind::Tidb)),
        ("mark", options.mark, matches!(kind, SinkKind::Mysql | SinkKind::Tidb)),
        ("index_settings", !options.index_settings.is_empty(), is_search),
        ("compression", options.compression != KafkaCodec::default(), is_kafka),
    ];
    given.into_iter().filter(|(_, given, known)| *given && !known).map(|(name, ..)| name).collect()
}

/// Flows whose topic of `transactions` is another flow's too, and that other one.
fn counted_apart(flows: &BTreeMap<String, FlowConfig>) -> BTreeMap<String, String> {
    let mut first: BTreeMap<(&str, String), &str> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for (name, flow) in flows {
        let Some(topic) = &flow.options.transactions else { continue };
        let other = *first.entry((&flow.to, topic.replace("{source}", &flow.from))).or_insert(name);
        if other != name {
            out.insert(name.clone(), other.to_owned());
        }
    }
    out
}

/// Why a kind of sink cannot keep its promise with a flow's format.
fn format_refusal(flow: &FlowConfig, kind: SinkKind) -> Option<&'static str> {
    let format = flow.options.format;
    match kind {
        SinkKind::Kafka => None,
        _ if format == Format::Avro => Some("it is for topics of Kafka, whose schemas are in a registry"),
        SinkKind::Files if !format.tells_lsn() => {
            Some("it finds its progress in its last line, and this format does not name the lsn")
        }
        SinkKind::Redis if format == Format::S3Event => {
            Some("an entry has the op and key of one change, and this format tells of objects")
        }
        SinkKind::Nats | SinkKind::Redis if format == Format::Debezium => {
            Some("it needs one message a change, and in this format a delete is two")
        }
        _ => None,
    }
}

/// Why a flow cannot merge tables into one.
fn origin_refusal(flow: &FlowConfig, kind: SinkKind) -> Option<&'static str> {
    if !flow.transform.iter().any(|step| matches!(step, TransformStep::Origin(_))) {
        return None;
    }
    if !matches!(kind, SinkKind::Mysql | SinkKind::Tidb) {
        return Some("this sink cannot empty a part of a table");
    }
    if flow.options.history {
        return Some("a history keeps changes, which have names of their own");
    }
    (flow.options.ddl != DdlPolicy::Hold)
        .then_some("a statement on one of the tables would change all of them, so that it needs `ddl: hold`")
}

/// Why a kind of sink cannot keep apart the rows that one change became.
fn split_refusal(flow: &FlowConfig, kind: SinkKind) -> Option<&'static str> {
    let is_log = matches!(flow.options.r#type, Some(RedisType::Stream | RedisType::Pubsub));
    match kind {
        _ if !flow.transform.iter().any(|step| matches!(step, TransformStep::Split(_))) => None,
        SinkKind::Nats | SinkKind::Files => {
            Some("it finds its progress in its last message, which would be a part of a change")
        }
        SinkKind::Redis if is_log => Some("an entry's id is that of its change"),
        _ if flow.options.history => Some("a history has one row a change"),
        _ => None,
    }
}

/// Puts the project's folder before the files that `lookup` steps read. Answers those that lie outside of it, by step, with
/// a hint; they are left as they are, and read by nobody, since the project has a mistake.
fn place_lookups(dir: &Path, flow: &mut FlowConfig) -> Vec<(usize, String, String)> {
    let mut outside = Vec::new();
    for (index, step) in flow.transform.iter_mut().enumerate() {
        let TransformStep::Lookup(step) = step else { continue };
        let Some(file) = step.file.clone() else { continue };
        let plain = file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let whole = below(dir, &file);
        // A link may lead out as well.
        let real = |path: &Path| fs::canonicalize(path).ok();
        let escapes = real(&whole).zip(real(dir)).is_some_and(|(file, dir)| !file.starts_with(dir));
        if plain && !escapes {
            step.file = Some(whole);
            continue;
        }
        let message = format!("the file `{}` is outside of the project's folder", file.display());
        outside.push((index, message, "put it into the project: file: lookups/status.csv".to_owned()));
        step.file = Some(PathBuf::new());
    }
    outside
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

/// Files that are there and could not be read: told already.
struct Broken {
    sources: BTreeSet<String>,
    sinks: BTreeSet<String>,
}

/// What is wrong with a URL, and a hint where the URL's kind does not give a better one.
type UrlProblem = (String, Option<String>);

/// Puts the values of `${env:NAME}` and `${file:PATH}` in place.
pub fn resolve(url: &mut Option<Secret>, schemes: &[&str], references: References) -> Result<(), UrlProblem> {
    let Some(secret) = url else { return Err(("`url` is missing".into(), None)) };
    if references == References::Leave {
        return Ok(());
    }
    let text = resolve_references(secret.expose(), url_escaped)?;
    if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err((format!("`url` does not begin with {}", schemes.join(" or ")), None));
    }
    *secret = Secret::new(text);
    Ok(())
}

/// Puts references in place, and reads what is there then. `Err` is what is wrong, and a hint.
fn check_report(report: &mut ReportConfig, references: References) -> Result<(), (String, String)> {
    if references == References::Leave {
        return Ok(());
    }
    let told = |(message, hint): UrlProblem| (message, hint.unwrap_or_default());
    report.url = Secret::new(resolve_references(report.url.expose(), url_escaped).map_err(told)?);
    resolve_all(report.headers.values_mut()).map_err(told)?;
    Reporter::read(report).map(|_| ())
}

/// The same for a schema registry, which need not be there. `Err` is what is wrong, and a hint.
fn registry(url: &mut Option<Secret>, references: References) -> Result<(), (String, String)> {
    if url.is_none() {
        return Ok(());
    }
    let hint = "schema_registry: http://user:${env:REGISTRY_PASSWORD}@127.0.0.1:8081";
    resolve(url, &["http://", "https://"], references).map_err(|(message, own)| {
        (message.replace("`url`", "`schema_registry`"), own.unwrap_or_else(|| hint.to_owned()))
    })?;
    if references == References::Leave {
        return Ok(());
    }
    let read = url
        .as_ref()
        .map(|url| flow::schema_registry::Registry::new(url, &flow::tls::Files::default()))
        .transpose();
    read.map(|_| ()).map_err(|message| (format!("`schema_registry`: {message}"), hint.to_owned()))
}

const TLS_HINT: &str = "name PEM files, relative to the project: tls_ca: ./ca.pem for the authorities that are trusted, tls_cert: \
                        ./client.pem and tls_key: ./client-key.pem for servers that ask for a certificate";

pub const SECRETS_HINT: &str = "write ${env:NAME} or ${file:PATH}";

/// The same for secrets that stand for themselves.
pub fn resolve_all<'a>(secrets: impl Iterator<Item = &'a mut Secret>) -> Result<(), UrlProblem> {
    for secret in secrets {
        *secret = Secret::new(resolve_references(secret.expose(), str::to_owned)?);
    }
    Ok(())
}

/// References stand inside URLs: what the URL's grammar would take for its own is escaped.
fn url_escaped(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn resolve_references(text: &str, escape: fn(&str) -> String) -> Result<String, UrlProblem> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (reference, after) =
            after.split_once('}').ok_or_else(|| ("a reference `${` has no end".into(), None))?;
        let value = match reference.split_once(':') {
            Some(("env", name)) => std::env::var(name).map_err(|_| {
                let message = format!("the environment has no `{name}`");
                (message, Some(format!("export {name}=…, then run again")))
            })?,
            Some(("file", path)) => {
                let read = fs::read_to_string(path).map(|text| text.trim_end().to_owned());
                read.map_err(|error| {
                    let message = format!("failed to read the secret file `{path}`: {error}");
                    (message, Some("write the secret into that file, or name another".to_owned()))
                })?
            }
            _ => return Err((format!("`${{{reference}}}` is not ${{env:NAME}} or ${{file:PATH}}"), None)),
        };
        out.push_str(&escape(&value));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
