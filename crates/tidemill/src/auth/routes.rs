//! `/api/v1/tokens`: made, listed, revoked by whoever has the scope `admin`.

use super::tokens::{Refusal, TokenRequest, described, ms_of};
use super::{Access, Caller};
use crate::http::{App, problem};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base::Code;
use serde_json::{Value, json};

fn refused(refusal: &Refusal) -> Response {
    problem(refusal.code, refusal.message.clone(), &refusal.hint)
}

/// The catalog is on a disk: not on a thread that serves others.
async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(Access) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Box<Response>> {
    let access = app.access.clone();
    match tokio::task::spawn_blocking(move || work(access)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(refusal)) => Err(Box::new(refused(&refusal))),
        Err(_) => Err(Box::new(problem(Code::Internal, "it came to no end", "see the node's log"))),
    }
}

/// Who the caller is to us.
pub async fn caller(Extension(caller): Extension<Caller>) -> Response {
    let scopes: Vec<String> = caller.scopes.iter().map(ToString::to_string).collect();
    axum::Json(json!({
        "name": &*caller.name, "has_token": caller.token.is_some(), "scopes": scopes, "rows": &*caller.rows,
        "columns": &*caller.columns, "expires_ms": caller.expires.map(ms_of),
    }))
    .into_response()
}

pub async fn list(State(app): State<App>) -> Response {
    match blocking(&app, |access| access.list()).await {
        Ok(tokens) => axum::Json(Value::from(tokens)).into_response(),
        Err(refusal) => *refusal,
    }
}

pub async fn create(State(app): State<App>, body: Bytes) -> Response {
    let request: TokenRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let hint = "send {\"name\": \"phone\", \"scopes\": [\"subscribe:shop\"]}";
            return problem(Code::Invalid, error.to_string(), hint);
        }
    };
    let made = blocking(&app, move |access| {
        let (secret, token) = access.create(request)?;
        tracing::info!(token = token.name, scopes = ?token.scopes, "a token was made");
        Ok(shown(&secret, &token))
    });
    match made.await {
        // What holds the token is kept by nobody on the way.
        Ok(answer) => {
            let never = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (StatusCode::CREATED, never, axum::Json(answer)).into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// The only answer that has the token itself.
pub(super) fn shown(secret: &base::Secret, token: &catalog::Token) -> Value {
    let mut answer = described(token);
    answer["token"] = secret.expose().into();
    answer
}

pub async fn verb(State(app): State<App>, Path(target): Path<String>) -> Response {
    let (name, forget, done) = match target.rsplit_once(':') {
        Some((name, "revoke")) => (name.to_owned(), false, "revoke"),
        Some((name, "forget")) => (name.to_owned(), true, "forget"),
        _ => {
            let hint = "POST /api/v1/tokens/NAME:revoke or NAME:forget";
            return problem(Code::NotFound, "a token is acted on as NAME:VERB", hint);
        }
    };
    let acted = blocking(&app, move |access| {
        access.revoke(&name, forget)?;
        tracing::info!(token = name, forgotten = forget, "a token was revoked");
        Ok(json!({"token": name, "done": done}))
    });
    match acted.await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(refusal) => *refusal,
    }
}
