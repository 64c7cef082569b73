//! Shapes of subscriptions as Durable Streams of JSON, under `/api/v1/shapes/`: what a device lacks, then every change as it comes.
//!
//! An offset is a token of subscriptions as text, so a reader is what a client of gRPC is: it costs a place in the ring of its shape, and
//! may come by either way. Messages are those of the State Protocol that belongs to Durable Streams.

use super::wire::{
    Asked, CURSOR, EVENTS_MAX, LONG_POLL_WAIT, Live, NEXT_OFFSET, UP_TO_DATE, caller, cursor, finish,
    is_known, let_in_no_longer, put_control, put_event, set,
};
use crate::auth::Caller;
use crate::grpc::{self, Denied};
use crate::http::{App, open_source, problem, problem_as};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use base::Code;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flow::subscribe::catch_up::Refusal;
use flow::subscribe::shape::{ShapeError, ShapeSpec};
use flow::subscribe::token::Token;
use flow::subscribe::{Request as Wanted, Stream, token_of_now};
use futures_util::{FutureExt as _, stream};
use proto::v1::subscribe_response::Event;
use proto::v1::value::Kind;
use proto::v1::{Change, Column, Op, ResetReason, SubscribeResponse, Value};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of messages in one answer, or one event, but for the batch that goes past them.
const CHUNK_BYTES: usize = 256 << 10;
/// An answer that waits for rows, since the mirror is not whole, or others catch up first, is given up after as long.
const CATCH_UP_WAIT: Duration = Duration::from_secs(20);
/// Greater whole numbers lose digits in JavaScript: they are text.
const NUMBER_MAX: u64 = 1 << 53;
/// Why a reader begins anew.
const RESET: HeaderName = HeaderName::from_static("tidemill-reset");

type Answer = Result<Response, Box<Response>>;

pub async fn get(
    State(app): State<App>,
    Path((source, table)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        let caller = caller(&parts.extensions)?;
        let asked = Asked::of(&pairs)?;
        let is_head = parts.method == Method::HEAD;
        let reading = open(&app, &caller, (&source, &table), &pairs, &asked, is_head)?;
        let Opened::Reading(reading) = reading else {
            let Opened::End(next) = reading else { return Err(refused(&node_ends())) };
            return Ok(answered(Vec::new(), StatusCode::OK, &next, true));
        };
        let served = serve(*reading, &asked, &parts.headers);
        // Who waits for rows is let in for as long as anybody.
        tokio::select! {
            served = served => served,
            ended = caller.ended() => Err(let_in_no_longer(ended)),
        }
    };
    finish(answer.await)
}

enum Opened {
    Reading(Box<Reading>),
    /// Only where the stream ends now was asked for.
    End(String),
}

fn open(
    app: &App,
    caller: &Caller,
    (source, table): (&str, &str),
    pairs: &[(String, String)],
    asked: &Asked,
    is_head: bool,
) -> Result<Opened, Box<Response>> {
    let value = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let columns =
        value("columns").unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let columns: Vec<String> = columns.map(str::to_owned).collect();
    let filter = value("where").unwrap_or_default().to_owned();
    if let Some(name) = ["order_by", "limit"].into_iter().find(|name| value(name).is_some()) {
        let hint = "leave it out, or follow the window over gRPC";
        return Err(Box::new(problem(Code::Invalid, format!("windows are not served here: `{name}`"), hint)));
    }
    let spec = || grpc::spec(caller, source, table, columns.clone(), filter.clone()).map_err(denied);
    let wanted: ShapeSpec = spec()?;
    let open = open_source(app, source)?;
    let now = || token_of_now(&open.hub, spec()?).map_err(|refusal| refused(&refusal));
    if is_head || asked.live.is_none() && asked.offset.as_deref() == Some("now") {
        return Ok(Opened::End(now()?.to_offset()));
    }
    let token = match asked.offset.as_deref() {
        None => None,
        Some("now") => Some(now()?),
        Some(offset) => Some(Token::from_offset(offset).ok_or_else(|| {
            let hint = "use the `Stream-Next-Offset` of the last answer, or -1 for all";
            Box::new(problem(Code::Invalid, "the offset is damaged, or none of this node's", hint))
        })?),
    };
    let next = token.as_ref().map(Token::to_offset).unwrap_or_default();
    let request = Wanted {
        spec: wanted,
        token: token.map(|token| token.encode()).unwrap_or_default(),
        credits: 0,
        caller: caller.identity(),
        keep: None,
    };
    let stream = app.node.subscriptions.subscribe(&open.hub, request).map_err(|refusal| refused(&refusal))?;
    Ok(Opened::Reading(Box::new(Reading {
        stream,
        table: table.to_owned(),
        columns: Vec::new(),
        begins: next.is_empty(),
        first: next.clone(),
        next,
        messages: Vec::new(),
        up_to_date: false,
        stopped: false,
    })))
}

fn denied(denied: Denied) -> Box<Response> {
    Box::new(match denied {
        Denied::Caller(message) => {
            let hint = "a token needs the scope `subscribe`, and `rows` or `columns` that name the table";
            problem(Code::PermissionDenied, message, hint)
        }
        Denied::NoTable(message) => problem(Code::Invalid, message, "write it as `db.table`"),
    })
}

fn refused(refusal: &Refusal) -> Box<Response> {
    let (code, ShapeError { message, hint }) = match refusal {
        Refusal::NotFound(error) => (Code::NotFound, error),
        Refusal::Invalid(error) => (Code::Invalid, error),
        Refusal::Precondition(error) => (Code::FailedPrecondition, error),
        Refusal::Unavailable(error) => (Code::Unavailable, error),
        Refusal::Exhausted(error) => (Code::Exhausted, error),
    };
    let mut response = problem(code, message.clone(), hint);
    if matches!(code, Code::Unavailable | Code::Exhausted) {
        set(response.headers_mut(), header::RETRY_AFTER, "1");
    }
    Box::new(response)
}

fn node_ends() -> Refusal {
    let (message, hint) = ("the node ends".into(), "come again with the last offset".into());
    Refusal::Unavailable(ShapeError { message, hint })
}

/// Why a reader stops.
enum Stop {
    /// The node ends.
    Ended,
    Refused(Refusal),
    /// The offset cannot be gone on from.
    Reset(ResetReason, String),
    Late,
}

impl Stop {
    fn answer(self) -> Box<Response> {
        match self {
            Self::Ended => refused(&node_ends()),
            Self::Refused(refusal) => refused(&refusal),
            Self::Late => refused(&Refusal::Unavailable(ShapeError {
                message: format!("no row came in {} s", CATCH_UP_WAIT.as_secs()),
                hint: "is the mirror whole? see `tidemill status`; then come again".into(),
            })),
            Self::Reset(reason, detail) => {
                let hint =
                    "begin anew with offset=-1; rows that do not come again by `snapshot-end` are gone";
                let reason = reason.as_str_name().trim_start_matches("RESET_REASON_").to_lowercase();
                let mut response = problem_as(StatusCode::GONE, Code::FailedPrecondition, detail, hint);
                set(response.headers_mut(), RESET, &reason);
                Box::new(response)
            }
        }
    }
}

/// One reader, and what it was not told yet.
struct Reading {
    stream: Stream,
    table: String,
    columns: Vec<Column>,
    /// It has nothing: the next rows are the first of a snapshot.
    begins: bool,
    /// Where it was.
    first: String,
    /// Where it is when it has `messages`.
    next: String,
    /// With commas between.
    messages: Vec<u8>,
    up_to_date: bool,
    stopped: bool,
}

impl Reading {
    /// More is in an answer only where the place would be the same as before.
    fn is_full(&self) -> bool {
        self.messages.len() >= CHUNK_BYTES && self.next > self.first
    }

    fn is_up_to_date(&self) -> bool {
        self.up_to_date && self.stream.is_live()
    }

    /// Takes the next response in. Behind a reason to stop nothing is taken any more: what follows a reset is of another copy.
    async fn step(&mut self) -> Result<(), Stop> {
        if self.stopped {
            return Err(Stop::Ended);
        }
        let stepped = self.read().await;
        self.stopped = stepped.is_err();
        stepped
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let bytes = match self.stream.next().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(refusal)) => return Err(Stop::Refused(refusal)),
            None => return Err(Stop::Ended),
        };
        let response: SubscribeResponse = proto::decode(&bytes).map_err(|_| Stop::Ended)?;
        self.take(response)
    }

    fn take(&mut self, response: SubscribeResponse) -> Result<(), Stop> {
        match response.event {
            Some(Event::Reset(reset)) => return Err(Stop::Reset(reset.reason(), reset.detail)),
            Some(Event::Schema(schema)) => {
                self.columns = schema.columns;
                // What a reader with a place is told of columns at first, it knows.
                if std::mem::take(&mut self.begins) {
                    self.control("snapshot-start", true);
                } else if !response.token.is_empty() {
                    self.control("schema", true);
                }
            }
            Some(Event::Batch(batch)) => batch.changes.iter().for_each(|change| self.change(change)),
            Some(Event::SnapshotEnd(_)) => self.control("snapshot-end", false),
            Some(Event::UpToDate(_)) => self.up_to_date = true,
            _ => {}
        }
        if let Some(token) = Token::decode(&response.token) {
            self.next = token.to_offset();
        }
        Ok(())
    }

    fn message(&mut self, message: &Json) {
        if !self.messages.is_empty() {
            self.messages.push(b',');
        }
        self.messages.extend_from_slice(message.to_string().as_bytes());
    }

    fn control(&mut self, control: &str, with_columns: bool) {
        let mut message = json!({ "type": self.table, "headers": { "control": control } });
        if with_columns {
            let columns = self.columns.iter().map(|column| {
                json!({ "name": column.name, "type": column.r#type, "nullable": column.nullable, "key": column.key,
                    "was": column.was })
            });
            message["columns"] = columns.collect();
        }
        self.message(&message);
    }

    fn change(&mut self, change: &Change) {
        let op = Op::try_from(change.op).unwrap_or_default();
        let mut key: Vec<(u32, usize)> =
            self.columns.iter().enumerate().map(|(index, column)| (column.key, index)).collect();
        key.retain(|(place, _)| *place > 0);
        key.sort_unstable();
        let lsn = change.lsn.to_string();
        let value = |index: usize| change.values.get(index).map_or(Json::Null, plain);
        let mut message = match op {
            Op::Put => {
                let row: Map<String, Json> = self
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(index, column)| (column.name.clone(), value(index)))
                    .collect();
                let key = key_text(key.iter().map(|(_, index)| value(*index)).collect());
                json!({ "type": self.table, "key": key, "value": row,
                    "headers": { "operation": "upsert", "lsn": lsn } })
            }
            Op::Truncate => {
                json!({ "type": self.table, "headers": { "control": "reset", "lsn": lsn } })
            }
            _ => {
                let key = key_text((0..key.len()).map(value).collect());
                let mut message = json!({ "type": self.table, "key": key,
                    "headers": { "operation": "delete", "lsn": lsn } });
                if op == Op::Leave {
                    message["headers"]["left"] = true.into();
                }
                message
            }
        };
        let committed = jiff::Timestamp::from_millisecond(change.committed_ms).ok();
        if let Some(committed) = committed.filter(|_| change.committed_ms > 0) {
            message["headers"]["timestamp"] = committed.to_string().into();
        }
        self.message(&message);
    }

    /// Reads until all has come that there is, or it is enough for one answer.
    async fn catch_up(&mut self) -> Result<(), Stop> {
        let until = Instant::now() + CATCH_UP_WAIT;
        while !self.is_up_to_date() && !self.is_full() {
            match tokio::time::timeout_at(until, self.step()).await {
                Ok(Ok(())) => {}
                // What came is good; the next answer says why no more does.
                Ok(Err(_)) | Err(_) if !self.messages.is_empty() => return Ok(()),
                Ok(Err(stop)) => return Err(stop),
                // No row was among those that were looked at; from here it goes on.
                Err(_) if self.next > self.first => return Ok(()),
                Err(_) => return Err(Stop::Late),
            }
        }
        Ok(())
    }

    /// Waits for messages, and takes those that are there; false when none came in time.
    async fn wait(&mut self, until: Instant) -> Result<bool, Stop> {
        while self.messages.is_empty() {
            match tokio::time::timeout_at(until, self.step()).await {
                Ok(stepped) => stepped?,
                Err(_) => return Ok(false),
            }
        }
        while !self.is_full() {
            match self.step().now_or_never() {
                Some(Ok(())) => {}
                // Why it stops, the reader is told when it comes again.
                Some(Err(_)) | None => break,
            }
        }
        Ok(true)
    }

    /// What was gathered, as a list; and the place behind it.
    fn told(&mut self) -> Vec<u8> {
        self.first.clone_from(&self.next);
        let messages = std::mem::take(&mut self.messages);
        [b"[", messages.as_slice(), b"]"].concat()
    }
}

async fn serve(mut reading: Reading, asked: &Asked, headers: &HeaderMap) -> Answer {
    reading.catch_up().await.map_err(Stop::answer)?;
    match asked.live {
        None => {
            let (next, up_to_date) = (reading.next.clone(), reading.is_up_to_date());
            let body = reading.told();
            let tag = format!("\"{}\"", tag_of(&body, &next, up_to_date));
            let known = is_known(headers, &tag);
            let status = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            let mut response = answered(body, status, &next, up_to_date);
            set(response.headers_mut(), header::ETAG, &tag);
            set(response.headers_mut(), header::CACHE_CONTROL, "private, no-cache");
            Ok(response)
        }
        Some(Live::LongPoll) => {
            if reading.messages.is_empty() {
                match reading.wait(Instant::now() + LONG_POLL_WAIT).await {
                    Ok(_) | Err(Stop::Ended) => {}
                    Err(stop) => return Err(stop.answer()),
                }
            }
            let (next, up_to_date) = (reading.next.clone(), reading.is_up_to_date());
            let is_empty = reading.messages.is_empty();
            let status = if is_empty { StatusCode::NO_CONTENT } else { StatusCode::OK };
            let mut response = answered(reading.told(), status, &next, up_to_date || is_empty);
            set(response.headers_mut(), CURSOR, &cursor(asked.cursor).to_string());
            Ok(response)
        }
        Some(Live::Events) => Ok(events(reading, cursor(asked.cursor))),
    }
}

fn tag_of(body: &[u8], next: &str, up_to_date: bool) -> String {
    let mut digest = Sha256::new();
    digest.update(body);
    digest.update(next);
    digest.update([u8::from(up_to_date)]);
    digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

fn answered(body: Vec<u8>, status: StatusCode, next: &str, up_to_date: bool) -> Response {
    let body = match status {
        StatusCode::OK if body.is_empty() => Body::from("[]"),
        StatusCode::OK => Body::from(body),
        _ => Body::empty(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, "application/json");
    set(headers, NEXT_OFFSET, next);
    if up_to_date {
        set(headers, UP_TO_DATE, "true");
    }
    response
}

/// The answer that goes on: messages as they come, and the place behind them.
fn events(reading: Reading, cursor: u64) -> Response {
    let until = Instant::now() + EVENTS_MAX;
    let parts = stream::unfold((reading, true), move |(mut reading, is_first)| async move {
        if !is_first {
            let more = async {
                if !reading.is_up_to_date() {
                    reading.catch_up().await?;
                }
                if reading.messages.is_empty() { reading.wait(until).await } else { Ok(true) }
            };
            // Why it ends, the reader is told when it comes again.
            if !more.await.unwrap_or(false) {
                return None;
            }
        }
        let (next, up_to_date) = (reading.next.clone(), reading.is_up_to_date());
        let mut out = Vec::new();
        if !reading.messages.is_empty() {
            put_event(&mut out, "data", &reading.told());
        }
        put_control(&mut out, &next, cursor, up_to_date, false);
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), (reading, false)))
    });
    let mut response = Response::new(Body::from_stream(parts));
    set(response.headers_mut(), header::CONTENT_TYPE, "text/event-stream");
    set(response.headers_mut(), header::CACHE_CONTROL, "no-cache");
    response
}

fn plain(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::Null(_)) => Json::Null,
        Some(Kind::Int(v)) if v.unsigned_abs() > NUMBER_MAX => v.to_string().into(),
        Some(Kind::Int(v)) => (*v).into(),
        Some(Kind::Uint(v)) if *v > NUMBER_MAX => v.to_string().into(),
        Some(Kind::Uint(v)) => (*v).into(),
        Some(Kind::Double(v)) => (*v).into(),
        Some(Kind::Text(v)) => v.as_str().into(),
        Some(Kind::Bytes(v)) => BASE64.encode(v).into(),
    }
}

/// The name of a row: the value of its key, or the list of them.
fn key_text(mut values: Vec<Json>) -> String {
    match values.len() {
        1 => match values.remove(0) {
            Json::String(text) => text,
            other => other.to_string(),
        },
        _ => Json::Array(values).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_by_its_key() {
        assert_eq!(key_text(vec![json!(7)]), "7");
        assert_eq!(key_text(vec![json!("a,b")]), "a,b");
        assert_eq!(key_text(vec![json!("a"), json!(1)]), r#"["a",1]"#);
    }

    #[test]
    fn no_digit_is_lost() {
        let of = |kind| plain(&Value { kind: Some(kind) });
        assert_eq!(of(Kind::Int(-5)), json!(-5));
        assert_eq!(of(Kind::Int(i64::MIN)), json!("-9223372036854775808"));
        assert_eq!(of(Kind::Uint(u64::MAX)), json!("18446744073709551615"));
        assert_eq!(of(Kind::Bytes(vec![0, 255])), json!("AP8="));
    }
}
