//! The REST surface: health, metrics, status, changes, and the verbs for flows. Loopback only.

use crate::gauges;
use crate::start::{Node, OpenSource, RunningSource};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
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
    metrics: PrometheusHandle,
    shutdown: watch::Receiver<bool>,
    /// Room for readers of changes: each holds one of the runtime's blocking threads, which flows need too.
    readers: Arc<Semaphore>,
}

impl App {
    /// Room for a reader of changes, while it is held.
    pub fn reader(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).try_acquire_owned().ok()
    }

    pub fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.clone()
    }
}

/// One route; the table below is both the router and the reference page.
pub struct Route {
    pub method: &'static str,
    /// As axum matches it.
    pub path: &'static str,
    /// What the path means to people, where that says more.
    pub shown: &'static str,
    /// Markdown: what is answered, and what may be asked.
    pub what: &'static str,
    handler: fn() -> MethodRouter<App>,
}

pub const ROUTES: [Route; 32] = [
    Route {
        method: "GET",
        path: "/",
        shown: "/",
        what: "A page for people: sources, flows, and changes as they come.",
        handler: || get(page),
    },
    Route {
        method: "GET",
        path: "/healthz",
        shown: "/healthz",
        what: "`ok`: the process runs.",
        handler: || get(|| async { "ok\n" }),
    },
    Route {
        method: "GET",
        path: "/readyz",
        shown: "/readyz",
        what: "`ready`, or 503 with the names of the sources and flows that have failed.",
        handler: || get(readyz),
    },
    Route {
        method: "GET",
        path: "/metrics",
        shown: "/metrics",
        what: "Prometheus text; [metrics.md](metrics.md) lists the names.",
        handler: || {
            get(|State(app): State<App>| async move {
                gauges::look(&app.node);
                app.metrics.render()
            })
        },
    },
    Route {
        method: "GET",
        path: "/api/v1/status",
        shown: "/api/v1/status",
        what: "Sources (state, error, epoch, lsn, position, lag, snapshot, quarantined tables, mirror) and flows (state, error, \
               lsn, lag, dead letters), as `tidemill status --json` prints them.",
        handler: || get(|State(app): State<App>| async move { axum::Json(status(&app.node)) }),
    },
    Route {
        method: "GET",
        path: "/api/v1/flows",
        shown: "/api/v1/flows",
        what: "The `flows` of the status alone.",
        handler: || {
            get(|State(app): State<App>| async move { axum::Json(status(&app.node)["flows"].take()) })
        },
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh",
        shown: "/api/v1/mesh",
        what: "The `mesh` of the status alone: listeners, groups with their backends (address, state, role, version, connections, \
               `lag_ms`, error), sessions, and how many clients were accepted, refused, moved and broken; 404 without a \
               `mesh.yaml`.",
        handler: || get(crate::mesh::status),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh:reload",
        shown: "/api/v1/mesh:reload",
        what: "Reads `mesh.yaml` again and takes all of it into use, or nothing. Sessions stay: each goes by the new file from its next \
               command outside of a transaction, and by its rules at once; servers that are gone from it are drained. `threads`, \
               `limits`, `digests` and `slow` \
               need a restart. `{\"done\": true}`; 400 with the mistakes, and then nothing has changed.",
        handler: || post(crate::mesh_backends::reload),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/digests",
        shown: "/api/v1/mesh/digests",
        what: "Statements with their literals left out, the costliest first: digest, group, text, calls, errors, rows, bytes, \
               `on_replica`, `total_ms`, `p50_us`, `p95_us`, `p99_us`, `max_us`. Query: `limit` = how many, all by default.",
        handler: || get(crate::mesh::digests),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/slow",
        shown: "/api/v1/mesh/slow",
        what: "The latest statements that took longer than `slow`, the newest first, their literals left out: `at_ms`, group, user, client, \
               database, server, `elapsed_us`, rows, bytes, error, digest, text. Query: `limit` = how many, all by default.",
        handler: || get(crate::mesh::slow),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/mirror",
        shown: "/api/v1/mesh/mirror",
        what: "Groups with a `mirror`: group, to, share, compared, differences, shed, lost, unreachable, error, and `statements`, those \
               that differ most first: digest, text with its literals left out, calls, answers with another error (`errors`), \
               number of `rows` or `contents`, `before` and `after` (`p50_us`, `p95_us`, `p99_us`, `max_us`), and an `example`.",
        handler: || get(crate::mesh::mirror),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/capture",
        shown: "/api/v1/mesh/capture",
        what: "Whether statements are captured: running, dir, and since the start of the node `captured` records, their `bytes`, and \
               those that were `shed`; `error` is why it ended where nobody asked it to.",
        handler: || get(crate::capture::status),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/capture:start",
        shown: "/api/v1/mesh/capture:start",
        what: "Begins to capture statements into files, as `capture` of `mesh.yaml` says. What `GET` answers; 412 where no file can be \
               made.",
        handler: || post(crate::capture::start),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/capture:stop",
        shown: "/api/v1/mesh/capture:stop",
        what: "Ends it; what is held has been written when it answers. What `GET` answers.",
        handler: || post(crate::capture::stop),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh:explain",
        shown: "/api/v1/mesh:explain",
        what: "Where a fresh session would send a statement, and why. Body: `{\"sql\": \"select 1\", \"group\": \"shop\", \"user\": \
               \"app\"}`; the group may be left out where there is one, and the user. `{\"group\", \"role\", \"reason\", \"pins\", \
               \"text\", \"digest\", \"flags\", \"verdict\"}`; `pins` is why the session would stay with its writer afterwards, and \
               `verdict` what the group's rules say: `{\"action\", \"rule\", \"reason\", \"rules\", \"limits\"}`, null where it has none.",
        handler: || post(crate::mesh::explain),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/rules",
        shown: "/api/v1/mesh/rules",
        what: "Rules, limits and lists of allowed statements with how often they were met, by group, and `noted`: the latest statements \
               that met them, the newest first, their literals left out: `at_ms`, group, rule, action, reason, user, digest, text, \
               count. Query: `limit` = how many of these, all by default.",
        handler: || get(crate::mesh::rules),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/groups/{group}/learnt",
        shown: "/api/v1/mesh/groups/{group}/learnt",
        what: "The group's list of allowed statements with what came since it learns: `{\"statements\": [{\"users\", \"digest\", \
               \"text\"}]}`; 404 where the group has no `allow_list`.",
        handler: || get(crate::mesh::learnt),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/groups/{group}/backends/{verb}",
        shown: "/api/v1/mesh/groups/{group}/backends/{address}:{verb}",
        what: "`drain`: no new session goes to the server, and those that can move leave it. `undrain`: they may again. Both until \
               the node is restarted. `{\"group\", \"backend\", \"done\"}`",
        handler: || post(crate::mesh::backend_verb),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/groups/{group}/backends",
        shown: "/api/v1/mesh/groups/{group}/backends",
        what: "The servers of a group as `mesh.yaml` has them: addr, and what else is said of each (`role`, `weight`, `zone`, `status`).",
        handler: || get(crate::mesh_backends::list),
    },
    Route {
        method: "PUT",
        path: "/api/v1/mesh/groups/{group}/backends",
        shown: "/api/v1/mesh/groups/{group}/backends",
        what: "Gives a group these servers and no others. Body: the list as `GET` answers it, which is also the answer. The list in \
               `mesh.yaml` is written anew and all of the file taken into use as by `mesh:reload`, or neither: 400 with the mistakes, 412 \
               where the file cannot be written.",
        handler: || put(crate::mesh_backends::put_all),
    },
    Route {
        method: "PUT",
        path: "/api/v1/mesh/groups/{group}/backends/{verb}",
        shown: "/api/v1/mesh/groups/{group}/backends/{address}",
        what: "Adds a server to a group, or changes it, in the same way. Body: `{}`, or `{\"role\", \"weight\", \"zone\", \
               \"status\"}`. 201 with the server where it was not there, 200 where it was.",
        handler: || put(crate::mesh_backends::put_one),
    },
    Route {
        method: "DELETE",
        path: "/api/v1/mesh/groups/{group}/backends/{verb}",
        shown: "/api/v1/mesh/groups/{group}/backends/{address}",
        what: "Removes a server from a group, in the same way; it is drained. `{\"group\", \"backend\", \"done\"}`; 404 where the group \
               has it not.",
        handler: || delete(crate::mesh_backends::remove),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/sessions",
        shown: "/api/v1/mesh/sessions",
        what: "Clients that are connected: id, user, client, group, servers (those that it has connections to now), `age_ms`, `busy_ms` \
               (of the present statement; null between two).",
        handler: || get(crate::mesh_backends::sessions),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/sessions/{verb}",
        shown: "/api/v1/mesh/sessions/{id}:{verb}",
        what: "`kill`: ends a session; what it runs is stopped at its server. `kill_query`: stops only that. `{\"session\", \"done\"}`; 503 \
               where the server did not stop it: then the session ends behind it.",
        handler: || post(crate::mesh_backends::session_verb),
    },
    Route {
        method: "POST",
        path: "/api/v1/flows/{verb}",
        shown: "/api/v1/flows/{name}:{verb}",
        what: "Acts on a flow; the verbs are below.",
        handler: || post(flow_verb),
    },
    Route {
        method: "GET",
        path: "/api/v1/flows/{name}/dead-letters",
        shown: "/api/v1/flows/{name}/dead-letters",
        what: "The parked changes, oldest first, at most 1000, behind lsn `?after=` (0 unless told): epoch, lsn, db, \
               table, key, `old_key` (of a change of the key), op, reason, `waits_for` (the lsn of the refused change \
               of the same row that this one waits behind), `parked_ms`, change.",
        handler: || get(dead_letters),
    },
    Route {
        method: "GET",
        path: "/api/v1/flows/{name}/preview",
        shown: "/api/v1/flows/{name}/preview",
        what: "Rows before and after the flow's rules, as JSON lines, from the newest changes on: lsn, `ts_ms`, op, db, \
               table, before, after (as the source has them), outcome (`passes`, `left_out`, `parked`), reason, rows (what the \
               sink would be given: op, db, table, before, after). The flow is not disturbed. Query: `limit` = how many \
               changes, 20 by default; `follow` = `true` to wait for more, for ever without a limit.",
        handler: || get(preview),
    },
    Route {
        method: "GET",
        path: "/api/v1/sources/{name}/changes",
        shown: "/api/v1/sources/{name}/changes",
        what: "Changes as JSON lines ([change-format.md](change-format.md)). Query: `from` = `start`, `now` (default) or \
               the first lsn; `table` = one `db.table` pattern; `limit` = how many changes; `follow` = `true` to wait for more; \
               `format` = `json` (default), `debezium`, `maxwell`, `canal` or `cloudevents`; `schemas` = `true` for Debezium's \
               schemas.",
        handler: || get(changes),
    },
    Route {
        method: "POST",
        path: "/api/v1/sources/{name}/changes",
        shown: "/api/v1/sources/{name}/changes",
        what: "Pushes changes into a source of `kind: http`. Body: JSON objects of the source's format, one a line or in a list, at \
               most 8 MiB and 100000 of them. Query: `table` = the `db.table` of rows in `plain` format, if not exactly one is \
               declared; `op` = `delete` where the objects are keys of rows that are gone. Header: `webhook-id` (or \
               `idempotency-key`) names the request, so that a repeat of one of the last 1000 changes nothing. \
               `{\"changes\", \"lsn\", \"repeated\"}` when all of it is durable; 400 with the line, 401 for a signature, 409 for \
               another request of the same name, and nothing was taken; 429 when too much waits; 503 when the journal takes \
               nothing.",
        handler: || post(crate::push::push),
    },
    Route {
        method: "GET",
        path: "/api/v1/changes/{source}/{lsn}",
        shown: "/api/v1/changes/{source}/{lsn}",
        what: "One change. A NATS message that was too large for its server refers here in `ref`.",
        handler: || get(change),
    },
    Route {
        method: "GET",
        path: "/api/v1/search/{flow}",
        shown: "/api/v1/search/{flow}",
        what: "Searches the documents of a flow to Elasticsearch or OpenSearch. Query: `q` = words, all of which must be found, in \
               the server's simple syntax (`tea -green \"black tea\" jas*`), at most 1024 bytes; `limit` = how many documents, 10 \
               by default and at most 100. `{\"total\", \"more\", \"hits\": [{\"index\", \"id\", \"score\", \"source\"}]}`; `more` \
               says that `total` was not counted to its end.",
        handler: || get(crate::search::search),
    },
    Route {
        method: "GET",
        path: "/api/v1/cache/{flow}/{key}",
        shown: "/api/v1/cache/{flow}/{key}",
        what: "A row of a flow from MySQL or MariaDB to Redis, of type `hash` or `json`: from Redis, or, if it is not there, from the \
               source through the flow's rules, and Redis then has it too. `key` is the text that `{key}` has in the flow's `key`. \
               Query: `table` = the source's `db.table`, if the flow does not name exactly one. `{\"key\", \"row\", \"from\", \
               \"version\"}`, where `from`, also in the header `tidemill-from`, is `cache`, `source` or `negative`. 400 for what is no key, \
               404 where the flow has no such row, which is remembered for 30 seconds or until it comes, 412 for a flow that cannot be \
               asked, 503 with `Retry-After` when Redis, or the source that is needed, is away.",
        handler: || get(crate::cache::row),
    },
];

/// What `POST /api/v1/flows/{name}:{verb}` takes, and the answer.
pub const FLOW_VERBS: [(&str, &str); 6] = [
    ("pause", "Stops after the batch in flight, also over restarts. `{\"flow\", \"done\"}`"),
    ("resume", "Goes on. `{\"flow\", \"done\"}`"),
    ("retry", "Tries the parked changes again, oldest first. `{\"delivered\", \"parked\"}`"),
    (
        "rewind",
        "Delivers again from a change on, also if the flow is paused or its sink away now. Body: `{\"to\": 123}`, or `{\"to\": \
         \"start\"}` for the oldest that the journal has. Readers of a sink that holds rows see older rows until the flow has \
         caught up; parked changes from there on come again and are parked no longer. Refused, with the reason, where the sink cannot \
         go back or would not end with the right rows. `{\"flow\", \"from\", \"was\"}`",
    ),
    (
        "resnapshot",
        "Empties tables in the journal and reads them anew from the source. Body, which may be empty: \
         `{\"tables\": [\"shop.orders\"]}`; all tables of the flow by default. `{\"tables\"}`",
    ),
    (
        "repair",
        "Journals rows of a MySQL or MariaDB source again, as they are now, for every flow that carries them: `flow verify --repair` \
         asks for it. Body: `{\"table\": \"shop.orders\", \"keys\": [{\"id\": 1}], \"deletes\": false}`, at most 1000 keys; \
         with `deletes`, keys that the source has not are journaled as deleted. Refused while the table is read anew. Answered when \
         all of it is durable. `{\"rows\", \"deleted\", \"lsn\"}`",
    ),
];

pub fn router(node: Node, metrics: PrometheusHandle, shutdown: watch::Receiver<bool>) -> Router {
    let app = App { node, metrics, shutdown, readers: Arc::new(Semaphore::new(READERS_MAX)) };
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
        .merge(crate::grpc::router(&app))
        .fallback(|| async {
            problem(Code::NotFound, "there is nothing at this path", "see docs/reference/http.md")
        })
        .layer(middleware::from_fn(only_from_here))
        .with_state(app)
}

/// Refuses what a page of another site makes a browser on this machine send: a foreign `Origin`, or a name in `Host`
/// that was made to resolve to us.
async fn only_from_here(request: Request, next: Next) -> Response {
    if is_from_here(request.headers()) {
        return next.run(request).await;
    }
    problem(
        Code::PermissionDenied,
        "this address is for programs on this machine",
        "call it as 127.0.0.1 or localhost, and from no page of another site",
    )
}

/// The status page: one file, no other site's parts.
async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  frame-ancestors 'none'";
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("page.html")).into_response()
}

fn is_from_here(headers: &HeaderMap) -> bool {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let origin_host = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
    header(header::HOST).is_none_or(is_loopback) && header(header::ORIGIN).is_none_or(origin_host)
}

/// Whether `host[:port]` is this machine by its own name.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An RFC 9457 problem.
pub fn problem(code: Code, detail: impl Into<String>, hint: &str) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
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
    json!({"name": node.name, "sources": sources, "flows": flows, "mesh": node.mesh.as_ref().map(|mesh| mesh.status()), "runs": []})
}

async fn readyz(State(app): State<App>) -> Response {
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
        problem(Code::Unavailable, format!("failed: {}", failed.join(", ")), "see `tidemill status`")
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

async fn flow_verb(State(app): State<App>, Path(target): Path<String>, body: Bytes) -> Response {
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
struct DeadLettersQuery {
    after: u64,
}

async fn dead_letters(
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

async fn changes(
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

async fn preview(
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

async fn change(State(app): State<App>, Path((source, lsn)): Path<(String, u64)>) -> Response {
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
