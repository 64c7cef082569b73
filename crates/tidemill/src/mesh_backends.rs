//! The routes that change the mesh while it runs: the servers of its groups, and its sessions.

use crate::http::{App, problem};
use crate::mesh::{NONE, NONE_HINT};
use crate::mesh_file::MeshFile;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::{Code, Fault};
use mesh::{BackendConfig, BackendsChange, Keeper, Refusal};
use serde_json::{Value, json};
use std::sync::Arc;

/// Servers in a list that is put.
const BACKENDS_MAX: usize = 1000;

fn refused(refusal: &Refusal) -> Response {
    problem(refusal.code, refusal.message.clone(), &refusal.hint)
}

/// Files are written and ports opened: not on a thread that serves others.
async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(Arc<MeshFile>) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Box<Response>> {
    let Some(file) = app.node.mesh_file.clone() else {
        return Err(Box::new(problem(Code::NotFound, NONE, NONE_HINT)));
    };
    match tokio::task::spawn_blocking(move || work(file)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(refusal)) => Err(Box::new(refused(&refusal))),
        Err(_) => Err(Box::new(problem(Code::Internal, "it came to no end", "see the node's log"))),
    }
}

/// `POST /api/v1/mesh:reload`
pub async fn reload(State(app): State<App>) -> Response {
    match blocking(&app, |file| file.reload()).await {
        Ok(()) => Json(json!({"done": true})).into_response(),
        Err(refusal) => *refusal,
    }
}

/// `GET /api/v1/mesh/groups/{group}/backends`
pub async fn list(State(app): State<App>, Path(group): Path<String>) -> Response {
    match blocking(&app, move |file| file.backends(&group)).await {
        Ok(list) => Json(list).into_response(),
        Err(refusal) => *refusal,
    }
}

/// What a body is, or why it is not.
fn read<T: serde::de::DeserializeOwned>(body: Value, hint: &str) -> Result<T, Box<Response>> {
    serde_json::from_value(body)
        .map_err(|error| Box::new(problem(Code::Invalid, format!("failed to read the body: {error}"), hint)))
}

fn parse(body: &Bytes) -> Result<Value, Box<Response>> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body).map_err(|error| {
        Box::new(problem(
            Code::Invalid,
            format!("the body is no JSON: {error}"),
            "for example: {\"role\": \"replica\"}",
        ))
    })
}

/// `PUT /api/v1/mesh/groups/{group}/backends`
pub async fn put_all(State(app): State<App>, Path(group): Path<String>, body: Bytes) -> Response {
    let hint = "for example: [{\"addr\": \"127.0.0.1:3306\"}]";
    let wanted = match parse(&body).and_then(|body| read::<Vec<BackendConfig>>(body, hint)) {
        Ok(wanted) if wanted.len() <= BACKENDS_MAX => wanted,
        Ok(_) => return problem(Code::Invalid, format!("more than {BACKENDS_MAX} servers"), hint),
        Err(refusal) => return *refusal,
    };
    let answer = wanted.clone();
    match blocking(&app, move |file| file.change_backends(&group, BackendsChange::All(wanted))).await {
        Ok(_) => Json(answer).into_response(),
        Err(refusal) => *refusal,
    }
}

/// `PUT /api/v1/mesh/groups/{group}/backends/{address}`
pub async fn put_one(
    State(app): State<App>,
    Path((group, address)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let hint = "for example: {\"role\": \"replica\", \"weight\": 2}";
    let wanted = parse(&body).and_then(|mut body| {
        if let Value::Object(keys) = &mut body
            && keys.get("addr").is_none_or(|told| *told == address)
        {
            keys.insert("addr".into(), address.into());
            return read::<BackendConfig>(body, hint);
        }
        let message = "the body is no object, or of another `addr` than the path";
        Err(Box::new(problem(Code::Invalid, message, hint)))
    });
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let answer = wanted.clone();
    match blocking(&app, move |file| file.change_backends(&group, BackendsChange::Put(wanted))).await {
        Ok(made) => (if made { StatusCode::CREATED } else { StatusCode::OK }, Json(answer)).into_response(),
        Err(refusal) => *refusal,
    }
}

/// `DELETE /api/v1/mesh/groups/{group}/backends/{address}`
pub async fn remove(State(app): State<App>, Path((group, address)): Path<(String, String)>) -> Response {
    let told = json!({"group": group, "backend": address, "done": true});
    match blocking(&app, move |file| file.change_backends(&group, BackendsChange::Remove(address))).await {
        Ok(_) => Json(told).into_response(),
        Err(refusal) => *refusal,
    }
}

/// `GET /api/v1/mesh/sessions`
pub async fn sessions(State(app): State<App>) -> Response {
    match &app.node.mesh {
        Some(mesh) => Json(mesh.sessions()).into_response(),
        None => problem(Code::NotFound, NONE, NONE_HINT),
    }
}

/// `POST /api/v1/mesh/sessions/{id}:{verb}`
pub async fn session_verb(State(app): State<App>, Path(id_and_verb): Path<String>) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let said = id_and_verb.rsplit_once(':').and_then(|(id, verb)| Some((id.parse::<u32>().ok()?, verb)));
    let (id, only_statement) = match said {
        Some((id, "kill")) => (id, false),
        Some((id, "kill_query")) => (id, true),
        _ => {
            let message = format!("`{id_and_verb}` is no number of a session and verb");
            return problem(Code::NotFound, message, "verbs are kill and kill_query");
        }
    };
    match mesh.kill(id, only_statement).await {
        Ok(()) => Json(json!({"session": id, "done": true})).into_response(),
        Err(error) => problem(error.code(), error.to_string(), &error.hint().unwrap_or_default()),
    }
}
