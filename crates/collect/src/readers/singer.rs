//! `kind: singer`: taps, programs that print rows as the Singer specification says: SCHEMA, RECORD and STATE, a JSON object a line.
//!
//! A tap is asked for its catalog once (`--discover`), and for one stream a read. It gets no state: each read is whole, and the rows that a
//! flow has already are left out here. What it prints besides goes into the log, without our secrets. It is killed with all that it
//! started when nobody reads any more, when it is silent for too long, and when it prints what is no Singer.

use super::cell::{STOPPED, Visitor};
use super::config::SingerConfig;
use super::infer;
use super::json::{self, Members};
use super::outlet::{Outlet, Selection};
use super::redact::Redaction;
use crate::reader::{Batches, Described, ReadError, Reader, Scope, Sender, batches};
use async_trait::async_trait;
use base::ColumnType;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// Bytes of a line that a tap prints.
const LINE_BYTES_MAX: usize = json::ITEM_BYTES_MAX;
/// Of a line of its log.
const LOG_BYTES_MAX: usize = 4096;
/// Of a line that an error shows, and characters of it.
const SHOWN_BYTES_MAX: usize = 800;
const SHOWN_MAX: usize = 200;
/// The wait for the end of its log when it has failed; what was printed last says why.
const LOG_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a catalog.
const CATALOG_BYTES_MAX: usize = 64 << 20;
/// Fraction digits of numbers that say `multipleOf`.
const SCALE_MAX: usize = 30;

/// A tap that is named; it runs when it is asked for something.
pub struct Singer {
    config: Arc<SingerConfig>,
    project: PathBuf,
    /// Streams by their names, as the catalog has them.
    streams: Option<BTreeMap<String, Json>>,
}

impl Singer {
    pub fn new(config: SingerConfig, project: &Path) -> Self {
        Self { config: Arc::new(config), project: project.to_owned(), streams: None }
    }

    async fn streams(&mut self) -> Result<&BTreeMap<String, Json>, ReadError> {
        if self.streams.is_none() {
            self.streams = Some(discover(&self.config, &self.project).await?);
        }
        Ok(self.streams.as_ref().expect("it was set above"))
    }

    async fn stream(&mut self, name: &str) -> Result<Json, ReadError> {
        self.streams().await?.get(name).cloned().ok_or_else(|| ReadError::NoTable(name.to_owned()))
    }
}

#[async_trait]
impl Reader for Singer {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        self.streams = None;
        Ok(self.streams().await?.keys().cloned().collect())
    }

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError> {
        let stream = self.stream(table).await?;
        let properties = stream["schema"]["properties"].as_object().cloned().unwrap_or_default();
        let columns: Vec<_> =
            properties.iter().map(|(name, schema)| infer::column(name, type_of(schema))).collect();
        if columns.is_empty() {
            return Err(ReadError::bad(
                format!("the tap does not say what columns {table} has"),
                "its stream needs a schema",
            ));
        }
        Ok(Described { table: table.to_owned(), columns, key: key_of(&stream) })
    }

    /// Rows come as the tap prints them.
    fn in_order(&self) -> bool {
        false
    }

    async fn read(&mut self, table: &Described, scope: Scope) -> Result<Batches, ReadError> {
        let stream = self.stream(&table.table).await?;
        let selection = Selection::new(table, &scope)?;
        let catalog = serde_json::json!({ "streams": [selected(stream)] }).to_string();
        let mut tap = Tap::start(&self.config, &self.project, Some(&catalog))?;
        let table = table.clone();
        let (sender, receiver) = batches();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut outlet = Outlet::new(&sender, &table, selection, &[]);
            let mut read = || {
                outlet.enter("record ");
                let mut number = 0;
                while let Some(line) = runtime.block_on(tap.line_for(&sender))? {
                    if let Some(record) = record(&line, &table.table, &tap)? {
                        number += 1;
                        json::item(record.get(), number, &[], &mut outlet)?;
                    }
                }
                runtime.block_on(tap.end())?;
                outlet.flush()
            };
            let result = read();
            drop(tap);
            // Who went away does not want to know how it ended.
            if result != Err(ReadError::Internal(STOPPED.to_owned())) {
                sender.end_blocking(result);
            }
        });
        Ok(receiver)
    }
}

/// The record of a line, where it is one of this stream.
fn record<'a>(line: &'a str, stream: &str, tap: &Tap) -> Result<Option<&'a RawValue>, ReadError> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let wrong = |why: &str| {
        let start: String = tap.redaction.shown(line, SHOWN_BYTES_MAX).chars().take(SHOWN_MAX).collect();
        ReadError::bad(
            format!("{} prints what is no Singer: {why}: {start}", tap.name),
            "a tap prints JSON on its standard output, and its log on the other",
        )
    };
    let Ok(message) = serde_json::from_str::<Members<'a>>(line) else { return Err(wrong("no JSON object")) };
    let member = |name: &str| message.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let text = |name: &str| member(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    match text("type").as_deref() {
        Some("RECORD") if text("stream").as_deref() == Some(stream) => {
            member("record").map(Some).ok_or_else(|| wrong("a RECORD without record"))
        }
        // Others are of streams that nobody asked for; state is kept by the flow, as a cursor.
        Some("RECORD" | "SCHEMA" | "STATE" | "ACTIVATE_VERSION") => Ok(None),
        Some("BATCH") => Err(wrong("files in place of rows (BATCH) are not supported")),
        _ => Err(wrong("an unknown type")),
    }
}

async fn discover(config: &SingerConfig, project: &Path) -> Result<BTreeMap<String, Json>, ReadError> {
    let mut tap = Tap::start(config, project, None)?;
    let mut text = String::new();
    while let Some(line) = tap.line().await? {
        text.push_str(&line);
        if text.len() > CATALOG_BYTES_MAX {
            return Err(ReadError::bad(
                format!("the catalog of {} has more than {CATALOG_BYTES_MAX} bytes", tap.name),
                "",
            ));
        }
    }
    tap.end().await?;
    let catalog: Json = serde_json::from_str(&text).map_err(|error| {
        ReadError::bad(
            format!("the catalog of {} is no JSON: {error}", tap.name),
            "run it by hand with --config FILE --discover",
        )
    })?;
    let streams = catalog["streams"].as_array().cloned().unwrap_or_default().into_iter();
    Ok(streams
        .filter_map(|stream| {
            let name = stream["stream"].as_str().or_else(|| stream["tap_stream_id"].as_str())?.to_owned();
            Some((name, stream))
        })
        .collect())
}

/// A stream that is selected, in both ways that taps look at.
fn selected(mut stream: Json) -> Json {
    if let Some(schema) = stream["schema"].as_object_mut() {
        schema.insert("selected".to_owned(), Json::Bool(true));
    }
    let mut metadata = stream["metadata"].as_array().cloned().unwrap_or_default();
    let whole = |it: &Json| it["breadcrumb"].as_array().is_some_and(Vec::is_empty);
    if !metadata.iter().any(whole) {
        metadata.push(serde_json::json!({ "breadcrumb": [], "metadata": {} }));
    }
    for entry in &mut metadata {
        if entry["metadata"]["inclusion"] != "unsupported" {
            entry["metadata"]["selected"] = Json::Bool(true);
        }
    }
    stream["metadata"] = Json::Array(metadata);
    stream
}

fn key_of(stream: &Json) -> Vec<String> {
    let metadata = stream["metadata"].as_array().into_iter().flatten();
    let mut lists =
        metadata.map(|entry| &entry["metadata"]["table-key-properties"]).chain([&stream["key_properties"]]);
    let names = lists.find_map(|list| list.as_array().filter(|list| !list.is_empty()));
    names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The type that a JSON schema means.
fn type_of(schema: &Json) -> ColumnType {
    let long = ColumnType::Text { chars_max: u64::from(u32::MAX) };
    if let Some(choices) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        let mut types = choices.iter().filter(|choice| choice["type"] != "null").map(type_of);
        return match (types.next(), types.next()) {
            (Some(only), None) => only,
            // Something that is now this and now that is read as text, whose digits are exact.
            _ => long,
        };
    }
    let names: Vec<&str> = match &schema["type"] {
        Json::String(name) => vec![name],
        Json::Array(names) => names.iter().filter_map(Json::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    match names[..] {
        ["boolean"] => ColumnType::TinyInt { unsigned: false },
        ["integer"] => ColumnType::BigInt { unsigned: false },
        ["number"] => match scale_of(&schema["multipleOf"]) {
            Some(scale) => ColumnType::Decimal { precision: 65, scale },
            None => ColumnType::Double,
        },
        ["object"] | ["array"] => ColumnType::Json,
        ["string"] => match schema["format"].as_str() {
            Some("date-time") => ColumnType::DateTime { fsp: 6 },
            Some("date") => ColumnType::Date,
            Some("time") => ColumnType::Time { fsp: 6 },
            _ => match schema["maxLength"].as_u64() {
                Some(chars @ 1..=4096) => ColumnType::Text { chars_max: chars },
                _ => long,
            },
        },
        _ => long,
    }
}

/// Fraction digits of numbers that are multiples of this: 2 of 0.01 and of 1e-2.
fn scale_of(multiple: &Json) -> Option<u8> {
    let multiple = multiple.as_f64().filter(|it| *it > 0.0)?;
    (0..=SCALE_MAX)
        .find(|scale| format!("{multiple:.scale$}").parse() == Ok(multiple))
        .map(|scale| scale as u8)
}

/// A tap that runs. Dropping it kills it, and what it started.
struct Tap {
    name: String,
    child: Child,
    /// The group of processes that it leads.
    group: Option<Pid>,
    output: BufReader<ChildStdout>,
    config: SingerConfig,
    redaction: Arc<Redaction>,
    /// Who reads its log, and the last line of it.
    log: Option<JoinHandle<()>>,
    last: Arc<Mutex<String>>,
    /// Its configuration, as long as it runs.
    _files: TempDir,
}

impl Tap {
    /// `catalog`: of what to read; without one, it is asked for its own.
    fn start(config: &SingerConfig, project: &Path, catalog: Option<&str>) -> Result<Self, ReadError> {
        let Some((program, arguments)) = config.command.split_first() else {
            return Err(ReadError::bad("`command` of the tap is empty", "write `command: [tap-github]`"));
        };
        let name = Path::new(program)
            .file_name()
            .map_or(program.clone(), |name| name.to_string_lossy().into_owned());
        let internal = |error: std::io::Error| {
            ReadError::Unavailable(format!("failed to write the configuration of {name}: {error}"))
        };
        // Folder and files are of the node's user alone.
        let files = TempDir::new().map_err(internal)?;
        let file = |name: &str, text: &str| -> std::io::Result<PathBuf> {
            use std::os::unix::fs::OpenOptionsExt as _;
            let path = files.path().join(name);
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?
                .write_all(text.as_bytes())?;
            Ok(path)
        };
        let mut all = config.config.clone();
        all.extend(config.secrets.iter().map(|(key, secret)| (key.clone(), Json::from(secret.expose()))));
        let settings = file("config.json", &serde_json::json!(all).to_string()).map_err(internal)?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--config").arg(settings).current_dir(project).kill_on_drop(true);
        match catalog {
            None => command.arg("--discover"),
            Some(text) => command.arg("--catalog").arg(file("catalog.json", text).map_err(internal)?),
        };
        command.env_clear();
        command.envs(
            ["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command.envs(config.env.iter().map(|(name, value)| (name, value.expose())));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| {
            ReadError::bad(
                format!("the tap {name} does not start: {error}"),
                "install it, or write its whole path in `command`",
            )
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let secrets = config.secrets.values().chain(config.env.values());
        let redaction = Arc::new(Redaction::of(secrets.map(|secret| secret.expose())));
        let output =
            child.stdout.take().ok_or_else(|| ReadError::Internal("a tap without output".to_owned()))?;
        let last = Arc::new(Mutex::new(String::new()));
        let log = child
            .stderr
            .take()
            .map(|log| tokio::spawn(follow(log, name.clone(), Arc::clone(&redaction), Arc::clone(&last))));
        let output = BufReader::with_capacity(64 * 1024, output);
        Ok(Self { name, child, group, output, config: config.clone(), redaction, log, last, _files: files })
    }

    /// The next line that it prints; ends with an error as soon as nobody reads any more.
    async fn line_for(&mut self, sender: &Sender) -> Result<Option<String>, ReadError> {
        tokio::select! {
            line = self.line() => line,
            () = sender.closed() => Err(super::cell::stopped()),
        }
    }

    async fn line(&mut self) -> Result<Option<String>, ReadError> {
        let wait = self.config.silence_max;
        let name = self.name.clone();
        match tokio::time::timeout(wait.0, bounded_line(&mut self.output, LINE_BYTES_MAX)).await {
            Err(_) => Err(ReadError::Unavailable(format!("{name} printed nothing for {wait}"))),
            Ok(Err(error)) => Err(ReadError::Unavailable(format!("failed to read from {name}: {error}"))),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(bytes))) if bytes.len() >= LINE_BYTES_MAX => {
                Err(ReadError::bad(format!("{name} prints a line of more than {LINE_BYTES_MAX} bytes"), ""))
            }
            Ok(Ok(Some(bytes))) => String::from_utf8(bytes).map(Some).map_err(|_| {
                ReadError::bad(
                    format!("{name} prints what is no UTF-8"),
                    "set its environment: `env: {PYTHONIOENCODING: utf-8}`",
                )
            }),
        }
    }

    /// Its end: without success, what it printed is not all.
    async fn end(&mut self) -> Result<(), ReadError> {
        let wait = self.config.silence_max;
        let ended = tokio::time::timeout(wait.0, self.child.wait()).await;
        if matches!(ended, Ok(Ok(_))) {
            // What it left behind is of no use to anyone.
            self.kill_group();
            if let Some(log) = self.log.take() {
                let _ = tokio::time::timeout(LOG_WAIT, log).await;
            }
        }
        let name = &self.name;
        match ended {
            Err(_) => Err(ReadError::Unavailable(format!("{name} does not end"))),
            Ok(Err(error)) => Err(ReadError::Unavailable(format!("failed to wait for {name}: {error}"))),
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                let last = self.last.lock().map(|last| last.clone()).unwrap_or_default();
                Err(ReadError::Unavailable(format!("{name} failed ({status}): {last}")))
            }
        }
    }

    /// Once: the number of a group that is gone may become that of another.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // It fails when there is nobody left, which is well.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// A line without its end, cut at so many bytes.
async fn bounded_line(
    input: &mut (impl AsyncBufReadExt + Unpin),
    bytes_max: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let found = available.iter().position(|byte| *byte == b'\n');
        let length = found.unwrap_or(available.len());
        let room = bytes_max.saturating_sub(line.len());
        line.extend_from_slice(&available[..length.min(room)]);
        input.consume(found.map_or(length, |at| at + 1));
        if found.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Writes what a tap says of itself into our log.
async fn follow(
    log: impl AsyncRead + Unpin,
    name: String,
    redaction: Arc<Redaction>,
    last: Arc<Mutex<String>>,
) {
    let mut log = BufReader::new(log);
    // A secret at the end of what is kept is whole, and found.
    let bytes_max = LOG_BYTES_MAX + redaction.ahead();
    while let Ok(Some(line)) = bounded_line(&mut log, bytes_max).await {
        let text = redaction.shown(String::from_utf8_lossy(&line).trim_end(), LOG_BYTES_MAX);
        tracing::info!(tap = name, "{text}");
        if !text.is_empty()
            && let Ok(mut last) = last.lock()
        {
            *last = text;
        }
    }
}
