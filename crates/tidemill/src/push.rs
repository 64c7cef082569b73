//! `POST /api/v1/sources/NAME/changes`: hands a request to the capture of an HTTP source, and answers when it is durable.

use crate::auth::{Caller, Scope};
use crate::http::{App, open_source, problem};
use crate::start::PushDoor;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base::Code;
use flow::capture::http::{BODY_BYTES_MAX, ID_BYTES_MAX, Push, PushError};
use flow::webhook;
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a body may take to come: it holds room that others want.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// What a client is told to wait when there is no room.
const RETRY_AFTER_SECONDS: &str = "1";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushQuery {
    table: Option<String>,
    op: Option<PushOp>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum PushOp {
    Insert,
    Delete,
}

pub async fn push(
    State(app): State<App>,
    Path(name): Path<String>,
    query: Result<Query<PushQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    match take(&app, &name, query.map(|query| query.0), request).await {
        Ok(answer) => answer,
        Err(refusal) => *refusal,
    }
}

async fn take(
    app: &App,
    name: &str,
    query: Result<PushQuery, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Box<Response>> {
    let may = request.extensions().get::<Caller>().is_some_and(|caller| caller.may_on(Scope::Push, name));
    if !may {
        let message = format!("the token is not for pushing into source `{name}`");
        return Err(refuse(Code::PermissionDenied, message, "make one that is: `--scope push:SOURCE`"));
    }
    let open = open_source(app, name)?;
    let door = open.push.as_ref().ok_or_else(|| {
        let message = format!("source `{name}` takes no changes from programs");
        refuse(Code::NotFound, message, "only a source of `kind: http` does: see docs/guides/http.md")
    })?;
    let query = query.map_err(|error| {
        refuse(Code::Invalid, error.body_text(), "the query is table=DB.TABLE and op=insert or op=delete")
    })?;
    let (head, body) = request.into_parts();
    let room = door.inbox.reserve(announced(&head.headers)?).map_err(refusal)?;
    let body = read(body).await?;
    let id = named(&head.headers)?;
    check_signature(door, &head.headers, &body)?;
    let deletes = query.op == Some(PushOp::Delete);
    let push = Push { body, table: query.table, deletes, id };
    let pushed = door.inbox.push(push, room).await.map_err(refusal)?;
    Ok(axum::Json(pushed).into_response())
}

/// A problem, as the errors of functions are kept small.
fn refuse(code: Code, detail: impl Into<String>, hint: &str) -> Box<Response> {
    Box::new(problem(code, detail, hint))
}

/// The bytes that a request says it has; one that does not say may have all that is allowed.
fn announced(headers: &HeaderMap) -> Result<usize, Box<Response>> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes = length.unwrap_or(BODY_BYTES_MAX);
    if bytes > BODY_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> Box<Response> {
    let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
    refuse(Code::Invalid, message, "send it in parts: each request is one transaction")
}

async fn read(body: Body) -> Result<Bytes, Box<Response>> {
    let read = tokio::time::timeout(BODY_WAIT, to_bytes(body, BODY_BYTES_MAX)).await;
    match read {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(refuse(Code::Invalid, "the body broke off", "send the request again")),
        Err(_) => {
            let message = format!("the body did not come within {} s", BODY_WAIT.as_secs());
            Err(refuse(Code::Invalid, message, "send the request again, in smaller parts"))
        }
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.to_string().contains("length limit"))
}

/// What a request calls itself, by either of the names that clients use.
fn named(headers: &HeaderMap) -> Result<Option<String>, Box<Response>> {
    let Some(value) = headers.get(webhook::ID).or_else(|| headers.get("idempotency-key")) else {
        return Ok(None);
    };
    let id = value.to_str().ok().filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    id.map(|id| Some(id.to_owned())).ok_or_else(|| {
        let message = format!("`webhook-id` is not 1 to {ID_BYTES_MAX} ASCII characters");
        refuse(Code::Invalid, message, "a UUID will do; a repeat has the same")
    })
}

fn check_signature(door: &PushDoor, headers: &HeaderMap, body: &[u8]) -> Result<(), Box<Response>> {
    if door.keys.is_empty() {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let (id, sent, signatures) = (text(webhook::ID), text(webhook::TIMESTAMP), text(webhook::SIGNATURE));
    webhook::verify(&door.keys, id, sent, signatures, body, now).map_err(|reason| {
        let hint =
            "sign the request as Standard Webhooks says: webhook-id, webhook-timestamp and webhook-signature";
        refuse(Code::Unauthenticated, reason, hint)
    })
}

fn refusal(error: PushError) -> Box<Response> {
    match error {
        PushError::Invalid { message, hint } => refuse(Code::Invalid, message, hint),
        PushError::NameTaken => refuse(
            Code::AlreadyExists,
            "another request with this `webhook-id` was taken before",
            "a new request needs a new name; a repeat has the same body, too",
        ),
        PushError::Full => {
            let mut response = refuse(
                Code::Exhausted,
                "too much waits to be written",
                "send the request again a little later",
            );
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            response
        }
        PushError::Away(message) => {
            refuse(Code::Unavailable, message, "send the request again, with the same `webhook-id`")
        }
    }
}
