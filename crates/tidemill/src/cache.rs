//! `GET /api/v1/cache/{flow}/{key}`: a row of a flow to Redis, for applications that read through the cache.

use crate::http::{App, problem};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base::Code;
use flow::cache::CacheError;
use serde::Deserialize;
use serde_json::json;

/// Where the answer was found.
const FROM: HeaderName = HeaderName::from_static("tidemill-from");
/// Seconds: a server that restarts needs about as long.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheQuery {
    table: Option<String>,
}

pub async fn row(
    State(app): State<App>,
    Path((name, key)): Path<(String, String)>,
    Query(query): Query<CacheQuery>,
) -> Response {
    let Some(flow) = app.node.flows.get(&name) else {
        return problem(Code::NotFound, format!("there is no flow `{name}`"), "see GET /api/v1/flows");
    };
    let answer = match &*flow.cache {
        Ok(cache) => cache.get(query.table.as_deref(), &key).await,
        Err(error) => Err(error.clone()),
    };
    match answer {
        Ok(answer) => {
            let from = answer.from.name();
            let mut response = match answer.row {
                Some(row) => axum::Json(json!({
                    "key": key, "row": row, "from": from, "version": answer.version,
                }))
                .into_response(),
                None => {
                    let message = format!("flow `{name}` has no row `{key}`");
                    problem(Code::NotFound, message, "the source has none, or the flow's rules leave it out")
                }
            };
            response.headers_mut().insert(FROM, HeaderValue::from_static(from));
            response
        }
        Err(CacheError::Invalid { message, hint }) => problem(Code::Invalid, message, &hint),
        Err(CacheError::Unfit { message, hint }) => problem(Code::FailedPrecondition, message, &hint),
        Err(CacheError::Away { message }) => {
            let mut response = problem(Code::Unavailable, message, "try again; see `tidemill status`");
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            response
        }
    }
}
