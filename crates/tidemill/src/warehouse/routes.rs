//! `/api/v1/runs`: what ran, what runs, and what shall.

use super::runner::{Ask, Warehouse, run_json};
use crate::failure::Failure;
use crate::http::{App, problem};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::Code;
use catalog::RunsAsked;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Runs in one answer.
const RUNS_MAX: usize = 1000;
/// Runs in one answer that does not ask for more.
const RUNS_DEFAULT: usize = 100;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RunsQuery {
    kind: Option<String>,
    name: Option<String>,
    parent: Option<i64>,
    before: Option<i64>,
    limit: Option<usize>,
}

/// What `POST /api/v1/runs` is sent.
#[derive(Deserialize, Serialize, Default, Debug, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    pub target: String,
    /// The first day of models with intervals, `2026-01-31`.
    pub from: Option<String>,
    /// The last day; the first by default.
    pub to: Option<String>,
    pub full: bool,
}

impl RunRequest {
    pub fn ask(&self) -> Result<Ask, Failure> {
        let day = |text: &String| {
            let wrong = || Failure::new(2, format!("`{text}` is no day")).hint("write 2026-01-31");
            text.parse::<Date>().map_err(|_| wrong())
        };
        let days = match (&self.from, &self.to) {
            (None, None) => None,
            (Some(from), to) => {
                let (first, last) = (day(from)?, day(to.as_ref().unwrap_or(from))?);
                if last < first {
                    return Err(
                        Failure::new(2, format!("{last} is before {first}")).hint("--from is the first day")
                    );
                }
                Some((first, last))
            }
            (None, Some(_)) => {
                return Err(
                    Failure::new(2, "the first day is missing").hint("--from 2026-01-01 --to 2026-01-31")
                );
            }
        };
        Ok(Ask { target: self.target.clone(), days, full: self.full })
    }
}

fn refusal(failure: &Failure) -> Response {
    let code = if failure.status == 2 { Code::Invalid } else { Code::Internal };
    problem(code, &failure.message, failure.hint.as_deref().unwrap_or_default())
}

fn none() -> Response {
    let hint = "write `engine: sqlite:./data/warehouse.db` in tidemill.yaml";
    problem(Code::NotFound, "the project has no engine, so that nothing runs", hint)
}

pub async fn runs(State(app): State<App>, query: Query<RunsQuery>) -> Response {
    let RunsQuery { kind, name, parent, before, limit } = query.0;
    let limit = limit.unwrap_or(RUNS_DEFAULT).clamp(1, RUNS_MAX);
    let asked = RunsAsked { kind, name, parent, before };
    match app.node.catalog.runs(&asked, limit) {
        Ok(runs) => {
            let next = (runs.len() == limit).then(|| runs.last().map(|run| run.id)).flatten();
            let live = app.node.warehouse.as_ref().map(Warehouse::live).unwrap_or_default();
            let runs: Vec<_> = runs.iter().map(run_json).collect();
            axum::Json(json!({"runs": runs, "live": live, "next": next})).into_response()
        }
        Err(error) => problem(Code::Internal, base::error::chain(&error), "see the node's log"),
    }
}

pub async fn run(State(app): State<App>, Path(id): Path<i64>) -> Response {
    match app.node.catalog.run(id) {
        Ok(Some(run)) => {
            let asked = RunsAsked { parent: Some(id), ..RunsAsked::default() };
            let parts = app.node.catalog.runs(&asked, RUNS_MAX).unwrap_or_default();
            let mut shown = run_json(&run);
            shown["parts"] = parts.iter().rev().map(run_json).collect();
            shown["live"] = app.node.warehouse.as_ref().map(Warehouse::live).unwrap_or_default().into();
            axum::Json(shown).into_response()
        }
        Ok(None) => problem(Code::NotFound, format!("there is no run {id}"), "see GET /api/v1/runs"),
        Err(error) => problem(Code::Internal, base::error::chain(&error), "see the node's log"),
    }
}

pub async fn start(State(app): State<App>, body: Bytes) -> Response {
    let Some(warehouse) = &app.node.warehouse else { return none() };
    let request: RunRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return problem(Code::Invalid, error.to_string(), "send {\"target\": \"dws.daily\"}"),
    };
    match request.ask().and_then(|ask| warehouse.start(ask, "command")) {
        Ok(run) => (StatusCode::ACCEPTED, axum::Json(json!({"run": run}))).into_response(),
        Err(failure) => refusal(&failure),
    }
}

pub async fn verb(State(app): State<App>, Path(target): Path<String>) -> Response {
    let Some(warehouse) = &app.node.warehouse else { return none() };
    let id = target.strip_suffix(":rollback").and_then(|id| id.parse::<i64>().ok());
    let Some(id) = id else {
        return problem(Code::NotFound, "a run is acted on as ID:VERB", "POST /api/v1/runs/12:rollback");
    };
    match warehouse.rollback(id).await {
        Ok(done) => axum::Json(json!({"run": id, "done": done})).into_response(),
        Err(failure) => refusal(&failure),
    }
}
