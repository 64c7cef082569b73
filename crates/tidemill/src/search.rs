//! `GET /api/v1/search/{flow}`: words, put to the index of a flow, for demos and small pages.

use crate::http::{App, problem};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base::Code;
use flow::config::SinkKind;
use flow::deliver::sink::SinkError;
use flow::sinks::elasticsearch::search::{HITS_DEFAULT, HITS_MAX, QUERY_BYTES_MAX, search as ask};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchQuery {
    #[serde(default)]
    q: String,
    limit: Option<u32>,
}

pub async fn search(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<SearchQuery>,
) -> Response {
    let Some(flow) = app.node.flows.get(&name) else {
        return problem(Code::NotFound, format!("there is no flow `{name}`"), "see GET /api/v1/flows");
    };
    let url = match &flow.sink.url {
        Some(url) if flow.sink.kind == SinkKind::Elasticsearch => url,
        _ => {
            let message = format!("flow `{name}` does not write to a search server");
            return problem(Code::FailedPrecondition, message, "name a flow to a sink of kind elasticsearch");
        }
    };
    let limit = query.limit.unwrap_or(HITS_DEFAULT);
    if query.q.trim().is_empty() || query.q.len() > QUERY_BYTES_MAX || limit > HITS_MAX {
        let message = format!("`q` has 1 to {QUERY_BYTES_MAX} bytes, and `limit` is at most {HITS_MAX}");
        return problem(Code::Invalid, message, "for example: ?q=tea&limit=10");
    }
    match ask(url, &name, &query.q, limit).await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(SinkError::Blocked { message, hint }) => problem(Code::FailedPrecondition, message, &hint),
        Err(error) => problem(Code::Unavailable, error.to_string(), "is the search server up?"),
    }
}
