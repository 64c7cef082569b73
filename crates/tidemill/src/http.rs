//! The REST surface: health, metrics, status, changes, and the verbs for flows. Who may call what is in `routes`.

use crate::auth::{Access, Caller, Gate, Origins, Scope, guard};
use crate::routes::{FLOW_VERBS, ROUTES, needs};
use crate::start::{Node, OpenSource, RunningSource};
use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base::metrics::{METRICS, MetricKind};
use base::{Change, Code};
use flow::capture::mysql::{Anew, Control};
use flow::config::FlowConfig;
use flow::deliver::FlowControl;
use flow::deliver::rewind::{Refused, RewindTo, Rewound};
use flow::formats::{Encoder, Format, Record};
use flow::mirror::Mirror;
use flow::patterns::Patterns;
use flow::preview::Previewer;
use journal::Journal;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// Bytes a `changes` request reads of the journal at once.
const READ_BYTES: usize = 256 << 10;
/// Answers to a slow reader that may wait.
const PARTS_MAX: usize = 4;
/// Readers of changes at once.
const READERS_MAX: usize = 64;
/// Dead letters in one answer.
const DEAD_LETTERS_MAX: u32 = 1000;
/// Batches of runs in the status.
const RUNS_SHOWN: usize = 20;
/// A reader that went away is noticed when there is something to send, and after this when there is nothing.
const LISTENS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);

/// The one recorder of the process.
pub fn metrics_handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let handle =
                PrometheusBuilder::new().install_recorder().expect("the first recorder of the process");
            for metric in METRICS {
                match metric.kind {
                    MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
                    MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                }
            }
            handle
        })
        .clone()
}

/// What every handler sees.
#[derive(Clone)]
pub struct App {
    pub node: Node,
    pub metrics: PrometheusHandle,
    pub access: Access,
    shutdown: watch::Receiver<bool>,
    /// Room for readers of changes: each holds one of the runtime's blocking threads, which flows need too.
    readers: Arc<Semaphore>,
}

/// All routes, with nobody in front of them.
pub fn routes(app: App) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
        .merge(crate::grpc::router(&app))
        .fallback(|| async {
            problem(Code::NotFound, "there is nothing at this path", "see docs/reference/http.md")
        })
        .with_state(app)
}

/// What the port serves: every request is judged before a route sees it.
pub fn router(app: App, origins: Origins) -> Router {
    let gate = Gate { access: app.access.clone(), origins, needs };
    guard(routes(app), gate)
}

impl App {
    pub fn new(
        node: Node,
        metrics: PrometheusHandle,
        access: Access,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { node, metrics, access, shutdown, readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Room for a reader of changes, while it is held.
    pub fn reader(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).try_acquire_owned().ok()
    }

    pub fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.clone()
    }
}

/// The status page: one file, no other site's parts.
pub async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("page.html")).into_response()
}

/// An RFC 9457 problem.
pub fn problem(code: Code, detail: impl Into<String>, hint: &str) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    problem_as(status, code, detail, hint)
}

/// The same where a protocol of others says what the status is.
pub fn problem_as(status: StatusCode, code: Code, detail: impl Into<String>, hint: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code.name(),
        "detail": detail.into(),
        "hint": hint,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// The object of `status --json`.
pub fn status(node: &Node) -> Value {
    let sources: Vec<_> = node
        .sources
        .values()
        .map(|source| {
            let sealed = source.open.as_ref().map(|open| open.journal.sealed()).unwrap_or_default();
            let mut status = source.status.get();
            status.lsn = sealed.lsn;
            status.epoch = sealed.epoch;
            let mirror = source.open.as_ref().and_then(|open| open.mirror.as_ref());
            status.mirror = mirror.map(|mirror| mirror.status(sealed.lsn));
            status
        })
        .collect();
    let flows: Vec<_> = node
        .flows
        .values()
        .map(|flow| {
            let source = node.sources[&flow.from].open.as_ref();
            flow.status.against(source.map(|open| open.journal.sealed()).unwrap_or_default())
        })
        .collect();
    json!({"name": node.name, "sources": sources, "flows": flows, "mesh": node.mesh.as_ref().map(|mesh| mesh.status()), "runs": latest_runs(node)})
}

/// The last batches, the newest first.
fn latest_runs(node: &Node) -> Vec<Value> {
    let asked = catalog::RunsAsked { kind: Some("batch".into()), ..catalog::RunsAsked::default() };
    let runs = node.catalog.runs(&asked, RUNS_SHOWN).unwrap_or_default();
    runs.iter().map(crate::warehouse::run_json).collect()
}

/// Anybody may ask; which ones have failed is told to those who may read.
pub async fn readyz(State(app): State<App>, caller: Option<Extension<Caller>>) -> Response {
    let failed: Vec<String> = app
        .node
        .sources
        .iter()
        .filter(|(_, s)| s.status.get().state == "failed")
        .map(|(name, _)| format!("source {name}"))
        .chain(
            app.node
                .flows
                .iter()
                .filter(|(_, f)| f.status.get().state == "failed")
                .map(|(n, _)| format!("flow {n}")),
        )
        .collect();
    if failed.is_empty() {
        "ready\n".into_response()
    } else {
        let may_read = caller.is_some_and(|caller| caller.may(Scope::Read));
        let what = if may_read { failed.join(", ") } else { "a source or a flow".to_owned() };
        problem(Code::Unavailable, format!("failed: {what}"), "see `tidemill status`")
    }
}

/// The source of this name, if there is one and its journal is whole.
pub fn open_source<'a>(app: &'a App, name: &str) -> Result<&'a OpenSource, Box<Response>> {
    let refusal = match app.node.sources.get(name) {
        None => problem(Code::NotFound, format!("there is no source `{name}`"), "see GET /api/v1/status"),
        Some(RunningSource { open: Some(open), .. }) => return Ok(open),
        Some(RunningSource { open: None, .. }) => problem(
            Code::Unavailable,
            format!("source `{name}` cannot start"),
            "see its error in GET /api/v1/status",
        ),
    };
    Err(Box::new(refusal))
}

pub async fn flow_verb(State(app): State<App>, Path(target): Path<String>, body: Bytes) -> Response {
    let Some((name, verb)) = target.rsplit_once(':') else {
        return problem(Code::NotFound, "a flow is acted on as NAME:VERB", "POST /api/v1/flows/NAME:pause");
    };
    let Some(flow) = app.node.flows.get(name) else {
        return problem(
            Code::NotFound,
            format!("there is no flow `{name}`"),
            "see `tidemill flow list`, or GET /api/v1/flows",
        );
    };
    let gone = || problem(Code::Unavailable, "the flow does not answer", "try again");
    let (sender, receiver) = oneshot::channel();
    let command = match verb {
        "pause" => FlowControl::Pause(sender),
        "resume" => FlowControl::Resume(sender),
        "retry" => {
            let (sender, receiver) = oneshot::channel();
            if flow.control.send(FlowControl::Retry(sender)).await.is_err() {
                return gone();
            }
            return match receiver.await {
                Ok(Ok((through, parked))) => {
                    axum::Json(json!({"delivered": through, "parked": parked})).into_response()
                }
                Ok(Err(message)) => problem(Code::FailedPrecondition, message, "see `tidemill status`"),
                Err(_) => gone(),
            };
        }
        "rewind" => return rewind(name, flow, &body).await,
        "resnapshot" => return resnapshot(&app, name, flow, &body).await,
        "repair" => return crate::repair::repair(&app, flow, &body).await,
        _ => {
            return problem(
                Code::NotFound,
                format!("a flow has no verb `{verb}`"),
                &format!("verbs are {}", FLOW_VERBS.map(|(verb, _)| verb).join(", ")),
            );
        }
    };
    if flow.control.send(command).await.is_err() {
        return gone();
    }
    match receiver.await {
        Ok(Ok(())) => axum::Json(json!({"flow": name, "done": verb})).into_response(),
        Ok(Err(message)) => problem(Code::FailedPrecondition, message, "see `tidemill status`"),
        Err(_) => gone(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewindRequest {
    to: RewindPlace,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RewindPlace {
    Lsn(u64),
    Word(String),
}

async fn rewind(name: &str, flow: &crate::start::RunningFlow, body: &Bytes) -> Response {
    let to = match serde_json::from_slice(body) {
        Ok(RewindRequest { to: RewindPlace::Lsn(lsn) }) => RewindTo::Lsn(lsn),
        Ok(RewindRequest { to: RewindPlace::Word(word) }) if word == "start" => RewindTo::Start,
        _ => {
            return problem(
                Code::Invalid,
                "a rewind needs to know where to",
                "send {\"to\": 123} or {\"to\": \"start\"}",
            );
        }
    };
    let (reply, answer) = oneshot::channel();
    let sent = flow.control.send(FlowControl::Rewind(to, reply)).await.is_ok();
    match answer.await {
        Ok(Ok(Rewound { from, was })) if sent => {
            axum::Json(json!({"flow": name, "from": from, "was": was})).into_response()
        }
        Ok(Err(Refused { message, hint })) => {
            problem(Code::FailedPrecondition, format!("failed to rewind flow `{name}`: {message}"), &hint)
        }
        _ => problem(Code::Unavailable, "the flow does not answer", "try again"),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ResnapshotRequest {
    tables: Vec<String>,
}

async fn resnapshot(app: &App, name: &str, flow: &crate::start::RunningFlow, body: &Bytes) -> Response {
    let request: ResnapshotRequest = if body.is_empty() {
        ResnapshotRequest::default()
    } else {
        match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) => {
                return problem(Code::Invalid, error.to_string(), "send {\"tables\": [\"shop.orders\"]}");
            }
        }
    };
    let whole = request.tables.is_empty();
    let tables = match (request.tables.is_empty(), flow.tables.is_empty()) {
        (false, _) => request.tables,
        (true, false) => flow.tables.clone(),
        (true, true) => vec!["*.*".to_owned()],
    };
    let (reply, answer) = oneshot::channel();
    let source = match open_source(app, &flow.from) {
        Ok(source) => source,
        Err(refusal) => return *refusal,
    };
    if source.control.send(Control::Resnapshot { tables, reply }).await.is_err() {
        return problem(Code::Unavailable, "the source does not answer", "try again");
    }
    match answer.await {
        Ok(Ok(Anew { tables, from_lsn })) => {
            // A flow whose changes retention has removed may begin again here, since all its tables come anew.
            let identity = source.journal.identity();
            if whole && let Err(error) = app.node.catalog.set_restart(name, identity, from_lsn) {
                return problem(Code::Internal, base::error::chain(&error), "try again");
            }
            let _ = flow.control.try_send(FlowControl::LookAgain);
            axum::Json(json!({"tables": tables})).into_response()
        }
        Ok(Err(message)) => problem(Code::Invalid, message, "see `tidemill status`"),
        Err(_) => problem(Code::Unavailable, "the source is not connected", "see `tidemill status`"),
    }
}

/// Which page of the parked changes.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersQuery {
    after: u64,
}

pub async fn dead_letters(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<DeadLettersQuery>,
) -> Response {
    if !app.node.flows.contains_key(&name) {
        return problem(
            Code::NotFound,
            format!("there is no flow `{name}`"),
            "see `tidemill flow list`, or GET /api/v1/flows",
        );
    }
    match app.node.catalog.dead_letters(&name, query.after.min(i64::MAX as u64), DEAD_LETTERS_MAX) {
        Ok(letters) => {
            let list: Vec<Value> = letters
                .into_iter()
                .map(|l| {
                    let parse = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
                    json!({
                        "epoch": l.epoch, "lsn": l.lsn, "db": l.db, "table": l.table, "key": parse(&l.key),
                        "old_key": parse(&l.old_key),
                        "op": l.op, "reason": l.reason, "waits_for": l.waits_for, "parked_ms": l.parked_ms,
                        "change": parse(&l.change),
                    })
                })
                .collect();
            axum::Json(list).into_response()
        }
        Err(error) => problem(Code::Internal, base::error::chain(&error), "see the log"),
    }
}

/// What a reader of changes asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesQuery {
    /// `start`, `now`, or the first lsn.
    pub from: String,
    /// `db.table` pattern; all by default.
    pub table: Option<String>,
    pub limit: Option<u64>,
    /// Whether to wait for more at the journal's end.
    pub follow: bool,
    pub format: Format,
    /// `debezium`: with schemas.
    pub schemas: bool,
}

impl Default for ChangesQuery {
    fn default() -> Self {
        Self {
            from: "now".into(),
            table: None,
            limit: None,
            follow: false,
            format: Format::default(),
            schemas: false,
        }
    }
}

pub async fn changes(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<ChangesQuery>,
) -> Response {
    let source = match open_source(&app, &name) {
        Ok(source) => source,
        Err(refusal) => return *refusal,
    };
    let Ok(place) = Arc::clone(&app.readers).try_acquire_owned() else {
        return too_many_readers();
    };
    match ChangeLister::new(&name, &source.journal, &query) {
        Ok(lister) => stream(&app, place, lister),
        Err(message) => problem(Code::Invalid, message, "for example: from=1"),
    }
}

/// What a reader of a preview asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreviewQuery {
    pub limit: Option<u64>,
    /// Whether to wait for more at the journal's end.
    pub follow: bool,
}

pub async fn preview(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<PreviewQuery>,
) -> Response {
    let Some(flow) = app.node.flows.get(&name) else {
        return problem(
            Code::NotFound,
            format!("there is no flow `{name}`"),
            "see `tidemill flow list`, or GET /api/v1/flows",
        );
    };
    let source = match open_source(&app, &flow.from) {
        Ok(source) => source,
        Err(refusal) => return *refusal,
    };
    let Ok(place) = Arc::clone(&app.readers).try_acquire_owned() else {
        return too_many_readers();
    };
    let (config, journal) = (Arc::clone(&flow.config), source.journal.clone());
    let mirror = source.mirror.clone();
    let begun = move || ChangeLister::preview(&config, &journal, mirror.as_ref(), &query);
    // The newest changes are looked for on the disk.
    let lister = tokio::task::spawn_blocking(begun).await;
    match lister {
        Ok(Ok(lister)) => stream(&app, place, lister),
        Ok(Err(message)) => problem(Code::FailedPrecondition, message, "see `tidemill check`"),
        Err(error) => problem(Code::Internal, error.to_string(), "see the log"),
    }
}

fn too_many_readers() -> Response {
    let message = format!("{READERS_MAX} readers follow changes already");
    problem(Code::Exhausted, message, "end one of them, or read with `--offline`")
}

/// Lines as they come, as the answer's body.
fn stream(app: &App, place: OwnedSemaphorePermit, lister: ChangeLister) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(PARTS_MAX);
    let shutdown = app.shutdown.clone();
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let send = |lines: Vec<u8>| match lines.is_empty() {
            true => !sender.is_closed(),
            false => sender.blocking_send(Ok(Bytes::from(lines))).is_ok(),
        };
        let ended =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lister.run(Some(shutdown), send)));
        if let Err(message) = ended.unwrap_or_else(|_| Err("it panicked".to_owned())) {
            // The answer breaks off, so that nobody takes it for whole.
            tracing::warn!(error = message, "a reader of changes was cut off");
            let _ = sender.blocking_send(Err(std::io::Error::other(message)));
        }
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

pub async fn change(State(app): State<App>, Path((source, lsn)): Path<(String, u64)>) -> Response {
    let query = ChangesQuery { from: lsn.to_string(), limit: Some(1), ..ChangesQuery::default() };
    let running = match open_source(&app, &source) {
        Ok(running) => running,
        Err(refusal) => return *refusal,
    };
    let lister = match ChangeLister::new(&source, &running.journal, &query) {
        Ok(lister) => lister,
        Err(message) => return problem(Code::NotFound, message, "retention may have removed it"),
    };
    let found = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        let ended = lister.run(None, |lines| {
            found.extend_from_slice(&lines);
            true
        });
        ended.map(|()| found)
    });
    let found = match found.await {
        Ok(Ok(found)) => found,
        Ok(Err(message)) => return problem(Code::Internal, message, "see the log"),
        Err(error) => return problem(Code::Internal, error.to_string(), "see the log"),
    };
    if found.is_empty() {
        return problem(Code::NotFound, format!("there is no change {lsn} yet"), "see GET /api/v1/status");
    }
    ([(header::CONTENT_TYPE, "application/json")], found).into_response()
}

/// Appends a change's line; false when it has none. `Err` is why it cannot be printed.
type Printer = Box<dyn FnMut(&Change<'_>, &mut Vec<u8>) -> Result<bool, String> + Send>;

/// Changes of a preview where nobody says how many.
const PREVIEW_CHANGES: u64 = 20;

/// Prints changes of a journal, a line each.
pub struct ChangeLister {
    printer: Printer,
    journal: Journal,
    reader: journal::Reader,
    left: u64,
    follow: bool,
}

impl ChangeLister {
    pub fn new(source: &str, journal: &Journal, query: &ChangesQuery) -> Result<Self, String> {
        let from = match query.from.as_str() {
            "start" => journal.first_lsn(),
            "now" => journal.sealed().lsn + 1,
            lsn => lsn.parse().map_err(|_| format!("`{lsn}` is not start, now or an lsn"))?,
        };
        let patterns = query
            .table
            .as_ref()
            .map(|table| Patterns::new(std::slice::from_ref(table), &[]).map_err(|e| e.to_string()))
            .transpose()?;
        let reader = journal.reader(from.max(1)).map_err(|e| base::error::chain(&e))?;
        let left = query.limit.unwrap_or(u64::MAX);
        if !query.format.is_text() {
            return Err(format!("`{}` is no text: only topics have it", query.format.name()));
        }
        let encoder = Encoder::new(query.format, source, query.schemas);
        let printer: Printer = Box::new(move |change, out| {
            if patterns.as_ref().is_some_and(|patterns| !patterns.matches(&change.table.name)) {
                return Ok(false);
            }
            let record = Record::of_change(change)
                .map_err(|e| format!("change {} cannot be printed: {e}", change.lsn))?;
            encoder.lines(&record, out);
            Ok(true)
        });
        Ok(Self { printer, journal: journal.clone(), reader, left, follow: query.follow })
    }

    /// Prints what a flow's rules make of the newest changes. Blocking.
    pub fn preview(
        flow: &FlowConfig,
        journal: &Journal,
        mirror: Option<&Mirror>,
        query: &PreviewQuery,
    ) -> Result<Self, String> {
        let mut previewer = Previewer::new(journal, flow, mirror).map_err(|e| base::error::chain(&e))?;
        let newest = query.limit.unwrap_or(PREVIEW_CHANGES);
        let from = previewer.first_of_newest(journal, newest).map_err(|e| base::error::chain(&e))?;
        previewer.begin(from).map_err(|e| base::error::chain(&e))?;
        let reader = journal.reader(from).map_err(|e| base::error::chain(&e))?;
        let left = if query.follow { query.limit.unwrap_or(u64::MAX) } else { newest };
        let printer: Printer =
            Box::new(move |change, out| previewer.line(change, out).map_err(|e| base::error::chain(&e)));
        Ok(Self { printer, journal: journal.clone(), reader, left, follow: query.follow })
    }

    /// Hands lines to `out` until the limit, the end (unless following), shutdown, or `out` says no; no lines now and then,
    /// which asks whether anyone still listens. Blocking. `Err` is
    /// why the journal cannot be read on: damage, or retention has passed a reader that was too slow.
    pub fn run(
        mut self,
        shutdown: Option<watch::Receiver<bool>>,
        mut out: impl FnMut(Vec<u8>) -> bool,
    ) -> Result<(), String> {
        let mut seals = self.journal.watch();
        while self.left > 0 {
            seals.borrow_and_update();
            while let Some(chunk) = self.reader.next(READ_BYTES).map_err(|e| base::error::chain(&e))? {
                let mut lines = Vec::new();
                for change in chunk.changes() {
                    let change = change.map_err(|e| base::error::chain(&e))?;
                    if !(self.printer)(&change, &mut lines)? {
                        continue;
                    }
                    self.left -= 1;
                    if self.left == 0 {
                        break;
                    }
                }
                if !lines.is_empty() && !out(lines) {
                    return Ok(());
                }
                if self.left == 0 {
                    return Ok(());
                }
            }
            let (true, Some(shutdown)) = (self.follow, &shutdown) else { return Ok(()) };
            let mut stop = shutdown.clone();
            let (ended, idle) = tokio::runtime::Handle::current().block_on(async {
                tokio::select! {
                    changed = seals.changed() => (changed.is_err(), false),
                    _ = stop.wait_for(|stop| *stop) => (true, false),
                    () = tokio::time::sleep(LISTENS_INTERVAL) => (false, true),
                }
            });
            if ended || idle && !out(Vec::new()) {
                return Ok(());
            }
        }
        Ok(())
    }
}
