//! `/api/v1/indicators…`, `/api/v1/load` and `/api/v1/meta`.

use crate::http::{App, problem, problem_as};
use ::warehouse::indicator::service::QUESTIONS_MAX;
use ::warehouse::indicator::{Grain, IndicatorError, Question, load};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base::{Code, Fault};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often a screen's stream looks whether rollups were built.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks without news, after which a line says that the stream lives.
const QUIET_LOOKS_MAX: u32 = 15;
/// Seconds: rollups are built within a run.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");
/// Members of a question's query.
const PARAMETERS_MAX: usize = 64;

fn refused(error: &IndicatorError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let hint = error.hint().unwrap_or_default();
    let mut response = problem_as(status, error.code(), base::error::chain(error), &hint);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// With the digits that a number has: `serde_json`'s own values would round them.
fn told(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => problem(Code::Internal, error.to_string(), "see the node's log"),
    }
}

pub async fn list(State(app): State<App>) -> Response {
    let desk = &app.node.indicators;
    if desk.indicators().metrics.is_empty() {
        return axum::Json(json!([])).into_response();
    }
    let listed = match desk.service().await {
        Ok(service) => service.list().await,
        Err(error) => Err(error),
    };
    listed.map_or_else(|error| refused(&error), |all| told(&all))
}

/// A question of `date=&grain=&dim.dept=&null=&by=&rank=&series=&limit=`.
pub fn question(code: &str, parameters: &[(String, String)]) -> Result<Question, IndicatorError> {
    let mut question = Question { code: code.to_owned(), ..Question::default() };
    if parameters.len() > PARAMETERS_MAX {
        return Err(IndicatorError::invalid("the question has too many parts", "ask for less"));
    }
    for (name, value) in parameters {
        let number = || {
            let wrong =
                || IndicatorError::invalid(format!("`{name}` is no whole number"), format!("{name}=12"));
            value.parse::<u32>().map_err(|_| wrong())
        };
        match name.as_str() {
            "date" => question.date = Some(value.clone()),
            "grain" => {
                let grain = Grain::named(value).ok_or_else(|| {
                    IndicatorError::invalid(
                        "`grain` is none that there is",
                        "day, week, month, quarter or year",
                    )
                })?;
                question.grain = Some(grain);
            }
            "by" => question.by = Some(value.clone()),
            "rank" => question.rank = Some(value.clone()),
            "series" => question.series = number()?,
            "limit" => question.limit = Some(number()? as usize),
            "null" => drop(question.dims.insert(value.clone(), None)),
            name => match name.strip_prefix("dim.") {
                Some(dimension) => drop(question.dims.insert(dimension.to_owned(), Some(value.clone()))),
                None => {
                    let name: String = name.chars().take(64).collect();
                    return Err(IndicatorError::invalid(
                        format!("there is no parameter `{name}`"),
                        "there are: date, grain, dim.NAME, null, by, rank, series, limit",
                    ));
                }
            },
        }
    }
    Ok(question)
}

pub async fn get(
    State(app): State<App>,
    Path(code): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let desk = &app.node.indicators;
    let answered = async {
        let question = question(&code, &parameters)?;
        desk.indicators().answerable(&question.code)?;
        let mut answers = desk.service().await?.answer(&[question]).await;
        answers
            .pop()
            .unwrap_or_else(|| Err(IndicatorError::NotBuilt { message: "there is no answer".into() }))
    };
    answered.await.map_or_else(|error| refused(&error), |answer| told(&answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    questions: Vec<Question>,
}

/// One answer of many, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Answer(Box<::warehouse::indicator::Answer>),
    Problem { code: String, error: Value },
}

pub async fn batch(State(app): State<App>, body: Bytes) -> Response {
    let hint = "send {\"questions\": [{\"code\": \"revenue\", \"dims\": {\"dept\": \"north\"}}]}";
    let Batch { questions } = match serde_json::from_slice(&body) {
        Ok(batch) => batch,
        Err(error) => return problem(Code::Invalid, error.to_string(), hint),
    };
    if questions.len() > QUESTIONS_MAX {
        return problem(Code::Invalid, format!("more than {QUESTIONS_MAX} questions"), "send them in parts");
    }
    let service = match app.node.indicators.service().await {
        Ok(service) => service,
        Err(error) => return refused(&error),
    };
    let answers = service.answer(&questions).await;
    let item = |(question, answer): (&Question, Result<_, IndicatorError>)| match answer {
        Ok(answer) => Item::Answer(Box::new(answer)),
        Err(error) => Item::Problem {
            code: question.code.chars().take(64).collect(),
            error: json!({
                "status": error.http_status(), "code": error.code().name(), "detail": base::error::chain(&error),
                "hint": error.hint().unwrap_or_default(),
            }),
        },
    };
    let items: Vec<Item> = questions.iter().zip(answers).map(item).collect();
    told(&BTreeMap::from([("answers", items)]))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct EventsQuery {
    /// Codes with commas; all by default.
    codes: Option<String>,
}

/// What one screen was told.
struct Screen {
    app: App,
    codes: Option<Vec<String>>,
    /// Versions by model.
    told: HashMap<String, i64>,
    ticks: tokio::time::Interval,
    quiet: u32,
    _place: tokio::sync::OwnedSemaphorePermit,
}

/// Says when rollups were built. A screen that reads slowly is asked for no more, and then gets the newest.
pub async fn events(State(app): State<App>, Query(query): Query<EventsQuery>) -> Response {
    let Ok(place) = app.node.indicators.screens.clone().try_acquire_owned() else {
        return problem(
            Code::Exhausted,
            "too many screens wait for events",
            "close some, or ask again later",
        );
    };
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let codes = query.codes.map(|codes| codes.split(',').map(str::to_owned).collect());
    let screen = Screen { app, codes, told: HashMap::new(), ticks, quiet: 0, _place: place };
    let parts = stream::unfold(screen, |mut screen| async move {
        let part = screen.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(part)), screen))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(parts)).into_response()
}

impl Screen {
    /// `None` when the node ends.
    async fn next(&mut self) -> Option<String> {
        let mut shutdown = self.app.shutdown();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return None,
                _ = self.ticks.tick() => {}
            }
            let part = self.news().await;
            self.quiet += 1;
            if !part.is_empty() || self.quiet >= QUIET_LOOKS_MAX {
                self.quiet = 0;
                // A line of a comment says that the stream lives.
                return Some(if part.is_empty() { ":\n\n".to_owned() } else { part });
            }
        }
    }

    async fn news(&mut self) -> String {
        let rebuilt = match self.app.node.indicators.service().await {
            Ok(service) => service.rebuilt().await,
            Err(error) => Err(error),
        };
        let mut out = String::new();
        // An engine that is away is looked for again.
        for mut it in rebuilt.unwrap_or_default() {
            if let Some(codes) = &self.codes {
                it.codes.retain(|code| codes.contains(code));
            }
            let known = self.told.insert(it.model.clone(), it.version);
            if known != Some(it.version) && !it.codes.is_empty() {
                let data = serde_json::to_string(&it).unwrap_or_default();
                out.push_str(&format!("event: rebuilt\nid: {}\ndata: {data}\n\n", it.version));
            }
        }
        out
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LoadRequest {
    query: Option<Box<RawValue>>,
    query_type: Option<String>,
    /// What Cube's clients send along.
    #[serde(rename = "cache")]
    _cache: Option<String>,
    #[serde(rename = "signal")]
    _signal: Option<Value>,
}

/// Others are what clients send along.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadQuery {
    query: Option<String>,
    query_type: Option<String>,
}

/// How Cube answers whoever says `queryType=multi`, as its own clients do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Multi {
    query_type: &'static str,
    pivot_query: Value,
    slow_query: bool,
    results: [load::Loaded; 1],
}

pub async fn load_get(State(app): State<App>, Query(asked): Query<LoadQuery>) -> Response {
    loaded(&app, asked.query.as_deref().unwrap_or_default(), asked.query_type.as_deref()).await
}

pub async fn load_post(State(app): State<App>, body: Bytes) -> Response {
    match serde_json::from_slice::<LoadRequest>(&body) {
        Ok(LoadRequest { query: Some(query), query_type, .. }) => {
            loaded(&app, query.get(), query_type.as_deref()).await
        }
        Ok(_) => wrong_query("the body has no `query`"),
        Err(error) => wrong_query(&error.to_string()),
    }
}

fn wrong_query(message: &str) -> Response {
    let hint = "{\"query\": {\"measures\": [\"sales.revenue\"], \"timeDimensions\": [{\"dimension\": \"sales.day\", \"granularity\": \"month\"}]}}";
    cube_problem(&IndicatorError::invalid(message, hint))
}

/// A problem that Cube's clients understand too: they look for `error`.
fn cube_problem(error: &IndicatorError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let detail = base::error::chain(error);
    let hint = error.hint().unwrap_or_default();
    let body = json!({
        "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": error.code().name(),
        "detail": detail, "hint": hint, "error": format!("{detail} ({hint})"),
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn loaded(app: &App, text: &str, query_type: Option<&str>) -> Response {
    // A list of one is what some clients send.
    let parsed = serde_json::from_str::<load::Query>(text).or_else(|error| {
        let list = serde_json::from_str::<Vec<load::Query>>(text).map_err(|_| error.to_string())?;
        <[load::Query; 1]>::try_from(list)
            .map(|[query]| query)
            .map_err(|_| "several queries at once are not supported".to_owned())
    });
    let query = match parsed {
        Ok(query) => query,
        Err(message) => return wrong_query(&message),
    };
    let loaded = match app.node.indicators.service().await {
        Ok(service) => service.load(&query).await,
        Err(error) => Err(error),
    };
    match loaded {
        Ok(loaded) if query_type == Some("multi") => {
            let pivot_query = loaded.query.clone();
            told(&Multi { query_type: "regularQuery", pivot_query, slow_query: false, results: [loaded] })
        }
        Ok(loaded) => told(&loaded),
        Err(error) => cube_problem(&error),
    }
}

pub async fn meta(State(app): State<App>) -> Response {
    axum::Json(app.node.indicators.indicators().cubes()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_from_its_parameters() {
        let pairs = |text: &[(&str, &str)]| -> Vec<(String, String)> {
            text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let all = pairs(&[
            ("date", "2026-11"),
            ("grain", "month"),
            ("dim.dept", "north"),
            ("null", "channel"),
            ("by", "shop"),
            ("series", "12"),
            ("limit", "5"),
        ]);
        let read = question("revenue", &all).unwrap();
        assert_eq!((read.series, read.limit, read.grain), (12, Some(5), Some(Grain::Month)));
        assert_eq!(
            read.dims,
            BTreeMap::from([("channel".into(), None), ("dept".into(), Some("north".into()))])
        );
        for wrong in [("series", "-1"), ("grain", "hour"), ("dept", "north"), ("limit", "x")] {
            assert!(question("revenue", &pairs(&[wrong])).is_err(), "{wrong:?}");
        }
    }
}
