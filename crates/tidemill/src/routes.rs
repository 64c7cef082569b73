//! The routes of the HTTP port: one table, which is the router, the rule of who may call what, and the reference page.

use crate::auth::{self, Need, Scope};
use crate::gauges;
use crate::http::{App, change, changes, dead_letters, flow_verb, page, preview, readyz, status};
use axum::extract::State;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};

/// One route; the table below is both the router and the reference page.
pub struct Route {
    pub method: &'static str,
    /// As axum matches it.
    pub path: &'static str,
    /// What the path means to people, where that says more.
    pub shown: &'static str,
    /// Markdown: what is answered, and what may be asked.
    pub what: &'static str,
    /// What it asks of its caller.
    pub need: Need,
    pub handler: fn() -> MethodRouter<App>,
}

pub const ROUTES: [Route; 52] = [
    Route {
        method: "GET",
        path: "/",
        need: Need::Nothing,
        shown: "/",
        what: "A page for people: sources, flows, and changes as they come. It says nothing itself, and asks for a token where the \
               node has some.",
        handler: || get(page),
    },
    Route {
        method: "GET",
        path: "/healthz",
        need: Need::Nothing,
        shown: "/healthz",
        what: "`ok`: the process runs.",
        handler: || get(|| async { "ok\n" }),
    },
    Route {
        method: "GET",
        path: "/readyz",
        need: Need::Nothing,
        shown: "/readyz",
        what: "`ready`, or 503 with the names of the sources and flows that have failed, for a caller that may read; else without.",
        handler: || get(readyz),
    },
    Route {
        method: "GET",
        path: "/metrics",
        need: Need::Scope(Scope::Read),
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
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/status",
        what: "Sources (state, error, epoch, lsn, position, lag, snapshot, quarantined tables, mirror) and flows (state, error, \
               lsn, lag, dead letters), as `tidemill status --json` prints them.",
        handler: || get(|State(app): State<App>| async move { axum::Json(status(&app.node)) }),
    },
    Route {
        method: "GET",
        path: "/api/v1/flows",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/flows",
        what: "The `flows` of the status alone.",
        handler: || {
            get(|State(app): State<App>| async move { axum::Json(status(&app.node)["flows"].take()) })
        },
    },
    Route {
        method: "GET",
        path: "/api/v1/runs",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/runs",
        what: "What ran, the newest first: run, parent, kind (`batch`, `flow`, `model`, `check`), name, cause, state (`running`, `ok`, \
               `warned`, `failed`, `interrupted`), times, rows read, written, rejected and deleted, message, hint, detail; `live` is how \
               far those are that go on. Query: `kind`, `name`, `parent`, `limit`, and `before` = the `next` of the answer before.",
        handler: || get(crate::warehouse::routes::runs),
    },
    Route {
        method: "POST",
        path: "/api/v1/runs",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/runs",
        what: "Runs `{\"target\"}`: a flow that collects, a model, `NAME+` with what stands on it, `+NAME` with what it stands on, or \
               `all`; with `from` and `to` days of models with intervals, with `full` their whole tables. 202 with `{\"run\"}` at once.",
        handler: || post(crate::warehouse::routes::start),
    },
    Route {
        method: "GET",
        path: "/api/v1/runs/{run}",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/runs/{run}",
        what: "One run, with the runs that are its `parts`.",
        handler: || get(crate::warehouse::routes::run),
    },
    Route {
        method: "POST",
        path: "/api/v1/runs/{run}",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/runs/{run}:rollback",
        what: "Takes back the last run of a model: what it replaced is there again.",
        handler: || post(crate::warehouse::routes::verb),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh",
        what: "The `mesh` of the status alone: listeners, groups with their backends (address, state, role, version, connections, \
               `lag_ms`, error), sessions, and how many clients were accepted, refused, moved and broken; 404 without a \
               `mesh.yaml`.",
        handler: || get(crate::mesh::status),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh:reload",
        need: Need::Scope(Scope::Operate),
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
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/digests",
        what: "Statements with their literals left out, the costliest first: digest, group, text, calls, errors, rows, bytes, \
               `on_replica`, `total_ms`, `p50_us`, `p95_us`, `p99_us`, `max_us`. Query: `limit` = how many, all by default.",
        handler: || get(crate::mesh::digests),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/slow",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/slow",
        what: "The latest statements that took longer than `slow`, the newest first, their literals left out: `at_ms`, group, user, client, \
               database, server, `elapsed_us`, rows, bytes, error, digest, text. Query: `limit` = how many, all by default.",
        handler: || get(crate::mesh::slow),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/mirror",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/mirror",
        what: "Groups with a `mirror`: group, to, share, compared, differences, shed, lost, unreachable, error, and `statements`, those \
               that differ most first: digest, text with its literals left out, calls, answers with another error (`errors`), \
               number of `rows` or `contents`, `before` and `after` (`p50_us`, `p95_us`, `p99_us`, `max_us`), and an `example`.",
        handler: || get(crate::mesh::mirror),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/capture",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/capture",
        what: "Whether statements are captured: running, dir, and since the start of the node `captured` records, their `bytes`, and \
               those that were `shed`; `error` is why it ended where nobody asked it to.",
        handler: || get(crate::capture::status),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/capture:start",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/capture:start",
        what: "Begins to capture statements into files, as `capture` of `mesh.yaml` says. What `GET` answers; 412 where no file can be \
               made.",
        handler: || post(crate::capture::start),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/capture:stop",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/capture:stop",
        what: "Ends it; what is held has been written when it answers. What `GET` answers.",
        handler: || post(crate::capture::stop),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh:explain",
        need: Need::Scope(Scope::Read),
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
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/rules",
        what: "Rules, limits and lists of allowed statements with how often they were met, by group, and `noted`: the latest statements \
               that met them, the newest first, their literals left out: `at_ms`, group, rule, action, reason, user, digest, text, \
               count. Query: `limit` = how many of these, all by default.",
        handler: || get(crate::mesh::rules),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/groups/{group}/learnt",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/groups/{group}/learnt",
        what: "The group's list of allowed statements with what came since it learns: `{\"statements\": [{\"users\", \"digest\", \
               \"text\"}]}`; 404 where the group has no `allow_list`.",
        handler: || get(crate::mesh::learnt),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/groups/{group}/backends/{verb}",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/groups/{group}/backends/{address}:{verb}",
        what: "`drain`: no new session goes to the server, and those that can move leave it. `undrain`: they may again. Both until \
               the node is restarted. `{\"group\", \"backend\", \"done\"}`",
        handler: || post(crate::mesh::backend_verb),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/groups/{group}/backends",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/groups/{group}/backends",
        what: "The servers of a group as `mesh.yaml` has them: addr, and what else is said of each (`role`, `weight`, `zone`, `status`).",
        handler: || get(crate::mesh_backends::list),
    },
    Route {
        method: "PUT",
        path: "/api/v1/mesh/groups/{group}/backends",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/groups/{group}/backends",
        what: "Gives a group these servers and no others. Body: the list as `GET` answers it, which is also the answer. The list in \
               `mesh.yaml` is written anew and all of the file taken into use as by `mesh:reload`, or neither: 400 with the mistakes, 412 \
               where the file cannot be written.",
        handler: || put(crate::mesh_backends::put_all),
    },
    Route {
        method: "PUT",
        path: "/api/v1/mesh/groups/{group}/backends/{verb}",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/groups/{group}/backends/{address}",
        what: "Adds a server to a group, or changes it, in the same way. Body: `{}`, or `{\"role\", \"weight\", \"zone\", \
               \"status\"}`. 201 with the server where it was not there, 200 where it was.",
        handler: || put(crate::mesh_backends::put_one),
    },
    Route {
        method: "DELETE",
        path: "/api/v1/mesh/groups/{group}/backends/{verb}",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/groups/{group}/backends/{address}",
        what: "Removes a server from a group, in the same way; it is drained. `{\"group\", \"backend\", \"done\"}`; 404 where the group \
               has it not.",
        handler: || delete(crate::mesh_backends::remove),
    },
    Route {
        method: "GET",
        path: "/api/v1/mesh/sessions",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/mesh/sessions",
        what: "Clients that are connected: id, user, client, group, servers (those that it has connections to now), `age_ms`, `busy_ms` \
               (of the present statement; null between two).",
        handler: || get(crate::mesh_backends::sessions),
    },
    Route {
        method: "POST",
        path: "/api/v1/mesh/sessions/{verb}",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/mesh/sessions/{id}:{verb}",
        what: "`kill`: ends a session; what it runs is stopped at its server. `kill_query`: stops only that. `{\"session\", \"done\"}`; 503 \
               where the server did not stop it: then the session ends behind it.",
        handler: || post(crate::mesh_backends::session_verb),
    },
    Route {
        method: "POST",
        path: "/api/v1/flows/{verb}",
        need: Need::Scope(Scope::Operate),
        shown: "/api/v1/flows/{name}:{verb}",
        what: "Acts on a flow; the verbs are below.",
        handler: || post(flow_verb),
    },
    Route {
        method: "GET",
        path: "/api/v1/flows/{name}/dead-letters",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/flows/{name}/dead-letters",
        what: "The parked changes, oldest first, at most 1000, behind lsn `?after=` (0 unless told): epoch, lsn, db, \
               table, key, `old_key` (of a change of the key), op, reason, `waits_for` (the lsn of the refused change \
               of the same row that this one waits behind), `parked_ms`, change.",
        handler: || get(dead_letters),
    },
    Route {
        method: "GET",
        path: "/api/v1/flows/{name}/preview",
        need: Need::Scope(Scope::Read),
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
        need: Need::Scope(Scope::Read),
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
        need: Need::Scope(Scope::Push),
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
        path: "/api/v1/shapes/{source}/{table}",
        need: Need::Scope(Scope::Subscribe),
        shown: "/api/v1/shapes/{source}/{db.table}",
        what: "A shape of a mirrored table as a Durable Stream of JSON: rows, then changes ([devices](../guides/devices.md)). Query: `offset` \
               = `-1` (default), `now` or the `Stream-Next-Offset` of the last answer; `where` = a condition in MySQL's syntax; \
               `columns` = names with commas between; `live` = `long-poll` (204 after 15 s without a change) or `sse`; `cursor` = the \
               `Stream-Cursor` of the last answer. 410 with `Tidemill-Reset` where an offset cannot be gone on from: begin anew; 503 \
               while the mirror is not whole.",
        handler: || get(crate::durable::shape::get),
    },
    Route {
        method: "PUT",
        path: "/api/v1/streams/{*path}",
        need: Need::Scope(Scope::Streams),
        shown: "/api/v1/streams/{path}",
        what: "Makes a Durable Stream of the body's `Content-Type`, where tidemill.yaml has `streams`. Headers: `Stream-TTL` or \
               `Stream-Expires-At`, `Stream-Closed`, `Stream-Forked-From` with `Stream-Fork-Offset` and `Stream-Fork-Sub-Offset`. Body: \
               its first bytes, or none; at most 4 MiB. 201, or 200 where it is there already; 409 where it is there and another.",
        handler: || put(crate::durable::streams::put),
    },
    Route {
        method: "POST",
        path: "/api/v1/streams/{*path}",
        need: Need::Scope(Scope::Streams),
        shown: "/api/v1/streams/{path}",
        what: "Appends the body to a stream, durably; with `Stream-Closed: true` as the last of it. In JSON a list is its elements. \
               Headers: `Stream-Seq` (of one stream), `Producer-Id` with `Producer-Epoch` and `Producer-Seq`. 204, or 200 for a producer's \
               new request; 403 for an old epoch, 409 for a gap, another content type or a closed stream, 413, 429 at a bound.",
        handler: || post(crate::durable::streams::post),
    },
    Route {
        method: "GET",
        path: "/api/v1/streams/{*path}",
        need: Need::Scope(Scope::Streams),
        shown: "/api/v1/streams/{path}",
        what: "Reads a stream from an offset, about 1 MiB. Query: `offset`, `live` and `cursor` as for shapes. `Stream-Next-Offset` is where \
               it goes on, `Stream-Up-To-Date` says that this was all, `Stream-Closed` that no more will come. HEAD tells what the \
               stream is. 404, or 410 where it was deleted and has forks.",
        handler: || get(crate::durable::streams::get),
    },
    Route {
        method: "DELETE",
        path: "/api/v1/streams/{*path}",
        need: Need::Scope(Scope::Streams),
        shown: "/api/v1/streams/{path}",
        what: "Deletes a stream. Its forks keep what they have of it. 204.",
        handler: || delete(crate::durable::streams::delete),
    },
    Route {
        method: "GET",
        path: "/api/v1/changes/{source}/{lsn}",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/changes/{source}/{lsn}",
        what: "One change. A NATS message that was too large for its server refers here in `ref`.",
        handler: || get(change),
    },
    Route {
        method: "GET",
        path: "/api/v1/search/{flow}",
        need: Need::Scope(Scope::Search),
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
        need: Need::Scope(Scope::Cache),
        shown: "/api/v1/cache/{flow}/{key}",
        what: "A row of a flow from MySQL or MariaDB to Redis, of type `hash` or `json`: from Redis, or, if it is not there, from the \
               source through the flow's rules, and Redis then has it too. `key` is the text that `{key}` has in the flow's `key`. \
               Query: `table` = the source's `db.table`, if the flow does not name exactly one. `{\"key\", \"row\", \"from\", \
               \"version\"}`, where `from`, also in the header `tidemill-from`, is `cache`, `source` or `negative`. 400 for what is no key, \
               404 where the flow has no such row, which is remembered for 30 seconds or until it comes, 412 for a flow that cannot be \
               asked, and for a row that Redis lacks where the source is not MySQL or MariaDB and cannot be \
               asked, 503 with `Retry-After` when Redis, or the source that is needed, is away.",
        handler: || get(crate::cache::row),
    },
    Route {
        method: "GET",
        path: "/api/v1/indicators",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/indicators",
        what: "All indicators: code, name, unit, owner, state (`draft`, `certified`, `retired`), version, direction, description, type, \
               dimensions, grains, `newest` (the last period that has rows), `as_of`, checks, stale.",
        handler: || get(crate::indicators::http::list),
    },
    Route {
        method: "GET",
        path: "/api/v1/indicators/{code}",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/indicators/{code}",
        what: "One indicator at a period. Query, all of it optional: `date` = a period of the grain or a day in it, the newest by default; \
               `grain` = `day`, `week`, `month`, `quarter`, `year`; `dim.NAME` = a member, `null` = a dimension whose rows have none; `by` = \
               a dimension whose members are listed, the best first, at most `limit` (100); `rank` = a dimension of `dim.`, the place of its \
               member; `series` = so many periods up to this one. Answer: what the list says of it, grain, period, from, to, dims, `value` \
               (all its digits), `missing` (no row: not zero), `mom` (the period before) and `yoy` (the same a year before) each with \
               period, value, missing, change and rate, target, completion, `status` (`red`, `yellow`, `green`), rank, members, series, \
               `as_of`, `checks` (`passed`, `unknown`, `warned`, `failed`), stale. 404 for an unknown code, 410 for a retired one, 422 for a grain \
               or dimension that it is not offered by, 503 with `Retry-After` before its rollups are built.",
        handler: || get(crate::indicators::http::get),
    },
    Route {
        method: "POST",
        path: "/api/v1/indicators:batch",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/indicators:batch",
        what: "At most 200 questions in one call. Body: `{\"questions\": [{\"code\": \"revenue\", \"date\": \"2026-11\", \"grain\": \"month\", \"dims\": \
               {\"dept\": \"north\"}}]}`, with `by`, `rank`, `series` and `limit` too. `{\"answers\"}` in their order, each as above, or with \
               `code` and `error` (status, code, detail, hint).",
        handler: || post(crate::indicators::http::batch),
    },
    Route {
        method: "GET",
        path: "/api/v1/indicators:events",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/indicators:events",
        what: "Server-sent events for screens: `rebuilt` with model, version, newest and codes, once at the beginning for what is there, and \
               then within two seconds of a build. A screen that reads slowly gets the newest. Query: `codes` = only these, with commas. 429 with more than \
               256 screens.",
        handler: || get(crate::indicators::http::events),
    },
    Route {
        method: "GET",
        path: "/api/v1/load",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/load?query={…}",
        what: "A query in Cube's shape: measures, dimensions, timeDimensions (dimension, granularity, dateRange), filters (member, operator, \
               values), order, limit, offset. `{\"query\", \"data\", \"annotation\", \"lastRefreshTime\"}`, numbers as texts, and `checks` and \
               `stale`. Problems have `error` too, which Cube's clients show.",
        handler: || get(crate::indicators::http::load_get),
    },
    Route {
        method: "POST",
        path: "/api/v1/load",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/load",
        what: "The same with the query in the body: `{\"query\": {…}}`.",
        handler: || post(crate::indicators::http::load_post),
    },
    Route {
        method: "GET",
        path: "/api/v1/meta",
        need: Need::Scope(Scope::Read),
        shown: "/api/v1/meta",
        what: "What can be asked of `/api/v1/load`, in Cube's shape: models as cubes with their measures and dimensions.",
        handler: || get(crate::indicators::http::meta),
    },
    Route {
        method: "GET",
        path: "/api/v1/caller",
        need: Need::Token,
        shown: "/api/v1/caller",
        what: "What the caller may do: name, `has_token`, scopes, rows, columns, `expires_ms`. A program on this machine without a \
               token may do everything, as long as there are no tokens.",
        handler: || get(auth::routes::caller),
    },
    Route {
        method: "GET",
        path: "/api/v1/tokens",
        need: Need::Scope(Scope::Admin),
        shown: "/api/v1/tokens",
        what: "All tokens: name, state (`good`, `expired`, `revoked`), scopes, rows, columns, `created_ms`, `expires_ms`, `used_ms` (to \
               ten minutes), `revoked_ms`.",
        handler: || get(auth::routes::list),
    },
    Route {
        method: "POST",
        path: "/api/v1/tokens",
        need: Need::Scope(Scope::Admin),
        shown: "/api/v1/tokens",
        what: "Makes a token. Body: `{\"name\": \"phone\", \"scopes\": [\"subscribe:shop\"], \"expires_ms\": 1798761600000, \"rows\": \
               {\"shop.orders\": \"owner = 'u1'\"}, \"columns\": {\"shop.orders\": [\"id\", \"total\"]}}`; the last three may be left \
               out. 201 with what `GET` tells of it and `token`, which nobody is shown again; 409 where the name is taken.",
        handler: || post(auth::routes::create),
    },
    Route {
        method: "POST",
        path: "/api/v1/tokens/{verb}",
        need: Need::Scope(Scope::Admin),
        shown: "/api/v1/tokens/{name}:{verb}",
        what: "`revoke`: the token is no good any more, and what it has open ends at once. `forget`: the same, and its name is free \
               again; without any token that is known, only this machine may call. `{\"token\", \"done\"}`",
        handler: || post(auth::routes::verb),
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

/// Services of gRPC, which other files put beside the routes: the first part of their paths.
pub const SERVICES: [(&str, Need); 4] = [
    ("tidemill.v1.Subscriptions", Need::Scope(Scope::Subscribe)),
    ("tidemill.v1.Changes", Need::Scope(Scope::Read)),
    ("grpc.health.v1.Health", Need::Token),
    ("grpc.reflection.v1.ServerReflection", Need::Token),
];

/// What the route of this method and path, as the router has it, asks of its caller. A route that no table names is for
/// those who may do everything.
pub fn needs(method: &Method, path: &str) -> Need {
    // A router answers HEAD by what answers GET.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut routes = ROUTES.iter().filter(|route| route.path == path);
    if let Some(route) = routes.clone().find(|route| route.method == method.as_str()) {
        return route.need;
    }
    if routes.next().is_some() {
        // There is the path, and the router will say that there is not the method.
        return Need::Token;
    }
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
    let known = service.and_then(|service| SERVICES.iter().find(|(name, _)| *name == service));
    known.map_or(Need::Scope(Scope::Admin), |(_, need)| *need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_names_what_it_needs_and_others_are_closed() {
        assert_eq!(needs(&Method::GET, "/healthz"), Need::Nothing);
        assert_eq!(needs(&Method::HEAD, "/api/v1/status"), Need::Scope(Scope::Read));
        assert_eq!(needs(&Method::DELETE, "/api/v1/status"), Need::Token);
        assert_eq!(needs(&Method::GET, "/api/v1/sources/{name}/changes"), Need::Scope(Scope::Read));
        assert_eq!(needs(&Method::POST, "/api/v1/sources/{name}/changes"), Need::Scope(Scope::Push));
        assert_eq!(needs(&Method::POST, "/tidemill.v1.Subscriptions/{*rest}"), Need::Scope(Scope::Subscribe));
        assert_eq!(needs(&Method::POST, "/tidemill.v1.Unheard/Of"), Need::Scope(Scope::Admin));
        assert_eq!(needs(&Method::GET, "/new"), Need::Scope(Scope::Admin));
        for route in &ROUTES {
            let open = matches!(route.path, "/" | "/healthz" | "/readyz");
            assert_eq!(route.need == Need::Nothing, open, "{}", route.path);
            let asks = ["/api/v1/mesh:explain", "/api/v1/indicators:batch", "/api/v1/load"];
            let changes_things = route.method != "GET" && !asks.contains(&route.path);
            assert!(!(changes_things && route.need == Need::Scope(Scope::Read)), "{}", route.path);
        }
    }
}
