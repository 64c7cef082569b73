//! Streams that clients make, append to, read and delete, under `/api/v1/streams/`.

use super::store::{
    self, Append, Appended, Bounds, Create, Failure, Fork, Meta, Part, Producer, Start, Store,
};
use super::wire::{
    Asked, CLOSED, CURSOR, EVENTS_MAX, LONG_POLL_WAIT, Live, NEXT_OFFSET, UP_TO_DATE, caller, cursor, finish,
    is_known, let_in_no_longer, put_control, put_event, set,
};
use crate::auth::{Caller, Scope};
use crate::http::{App, problem_as};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base::{ByteSize, Code};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// The path that streams are below.
pub const PREFIX: &str = "/api/v1/streams/";
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of a body that is too large, which are read so that its client hears the answer.
const REFUSED_BYTES_MAX: u64 = 32 << 20;
/// Bodies that are read or written at once.
const BODIES_MAX: usize = 16;
/// Readers that wait at once, by long-poll or events.
const WAITERS_MAX: usize = 4000;
/// Reads of the file at once.
const READS_MAX: usize = 2;
/// Streams unless told, and bytes of all of them.
const STREAMS_DEFAULT: i64 = 10_000;
const BYTES_DEFAULT: u64 = 1 << 30;
/// Greater numbers are no whole numbers in JavaScript.
const NUMBER_MAX: i64 = (1 << 53) - 1;

const TTL: HeaderName = HeaderName::from_static("stream-ttl");
const EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
const SEQ: HeaderName = HeaderName::from_static("stream-seq");
const FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
const FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
const FORK_SUB_OFFSET: HeaderName = HeaderName::from_static("stream-fork-sub-offset");
const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
const EXPECTED_SEQ: HeaderName = HeaderName::from_static("producer-expected-seq");
const RECEIVED_SEQ: HeaderName = HeaderName::from_static("producer-received-seq");
const EVENTS_ENCODING: HeaderName = HeaderName::from_static("stream-sse-data-encoding");

/// Streams that clients make themselves. Off where this is not said.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// How many there may be, those included that were deleted and are kept for their forks.
    #[schemars(extend("default" = STREAMS_DEFAULT))]
    pub max_streams: Option<u32>,
    /// How many bytes they may have together.
    #[schemars(with = "Option<String>", extend("default" = ByteSize(BYTES_DEFAULT).to_string()))]
    pub max_bytes: Option<ByteSize>,
}

impl StreamsConfig {
    fn bounds(&self) -> Bounds {
        let bytes = self.max_bytes.map_or(BYTES_DEFAULT, |size| size.0);
        Bounds {
            streams: self.max_streams.map_or(STREAMS_DEFAULT, i64::from),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }
}

/// The streams of a node.
pub struct Streams {
    store: Store,
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    /// Who waits for which stream.
    watchers: Mutex<HashMap<i64, watch::Sender<()>>>,
    /// Of our own addresses.
    scheme: &'static str,
}

type Answer = Result<Response, Box<Response>>;

impl Streams {
    pub fn open(path: &std::path::Path, config: &StreamsConfig, has_tls: bool) -> Result<Self, String> {
        let store = Store::open(path, config.bounds()).map_err(|failure| match failure {
            Failure::Invalid(message) => message,
            Failure::Broken(error) => base::error::chain(&error),
            other => format!("{other:?}"),
        })?;
        Ok(Self {
            store,
            writes: Arc::new(Semaphore::new(1)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            bodies: Arc::new(Semaphore::new(BODIES_MAX)),
            waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
            watchers: Mutex::default(),
            scheme: if has_tls { "https" } else { "http" },
        })
    }

    /// Tells those who wait that there is something new.
    fn wake(&self, id: i64) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watchers.get(&id) {
            let _ = sender.send(());
        }
    }

    /// Hears of all that comes to a stream from now on.
    fn watch(&self, id: i64) -> watch::Receiver<()> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.len() >= WAITERS_MAX {
            watchers.retain(|_, sender| sender.receiver_count() > 0);
        }
        watchers.entry(id).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Work on the file, on a thread that may block. It goes on when nobody waits for it any more.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        lane: &Arc<Semaphore>,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = Arc::clone(lane).acquire_owned().await.map_err(|_| Failure::Lost)?;
        let own = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&own)
        });
        done.await.unwrap_or(Err(Failure::Lost))
    }

    async fn read(self: &Arc<Self>, path: &str, start: Start) -> Result<Part, Failure> {
        let path = path.to_owned();
        self.work(&self.reads, move |streams| streams.store.read(&path, start)).await
    }

    async fn body(&self, body: Body) -> Result<(Vec<u8>, OwnedSemaphorePermit), Box<Response>> {
        let Ok(place) = Arc::clone(&self.bodies).acquire_owned().await else {
            return Err(refused(Failure::Lost));
        };
        let too_large = || {
            let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
            let hint = "append it in parts";
            Box::new(problem_as(StatusCode::PAYLOAD_TOO_LARGE, Code::Invalid, message, hint))
        };
        let (mut parts, mut out, mut bytes) = (body.into_data_stream(), Vec::new(), 0u64);
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| refused(Failure::Invalid("the body broke off".into())))?;
            bytes += part.len() as u64;
            if bytes > REFUSED_BYTES_MAX {
                return Err(too_large());
            }
            if bytes <= BODY_BYTES_MAX as u64 {
                out.extend_from_slice(&part);
            } else {
                out = Vec::new();
            }
        }
        if bytes > BODY_BYTES_MAX as u64 { Err(too_large()) } else { Ok((out, place)) }
    }
}

/// A place as the protocol has it: what it sorts by, and what it must not be.
fn offset_of(position: i64) -> String {
    format!("{:016}_{position:016}", 0)
}

fn position_of(offset: &str) -> Option<i64> {
    let position = offset.strip_prefix("0000000000000000_")?;
    let is_number = position.len() == 16 && position.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| position.parse().ok())?
}

/// A number without signs, points or zeros before it.
fn number(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| plain && *number <= NUMBER_MAX)
}

fn refused(failure: Failure) -> Box<Response> {
    let refuse = |status: StatusCode, code: Code, message: String, hint: &str| {
        Box::new(problem_as(status, code, message, hint))
    };
    let conflict =
        |message: String, hint: &str| refuse(StatusCode::CONFLICT, Code::FailedPrecondition, message, hint);
    match failure {
        Failure::NotFound => {
            let hint = "PUT makes it";
            refuse(StatusCode::NOT_FOUND, Code::NotFound, "there is no such stream".into(), hint)
        }
        Failure::Gone => {
            let message = "the stream was deleted, and is kept for its forks alone".into();
            refuse(StatusCode::GONE, Code::NotFound, message, "read a fork, or make a stream of another path")
        }
        Failure::Closed(tail) => {
            let mut response = conflict("the stream is closed".into(), "make another stream");
            set(response.headers_mut(), CLOSED, "true");
            set(response.headers_mut(), NEXT_OFFSET, &offset_of(tail));
            response
        }
        Failure::Conflict(message) => conflict(message, "HEAD tells what the stream is"),
        Failure::Invalid(message) => {
            refuse(StatusCode::BAD_REQUEST, Code::Invalid, message, "see docs/guides/devices.md")
        }
        Failure::Exhausted(message) => {
            let hint = "delete streams, or raise `streams` in tidemill.yaml";
            refuse(StatusCode::TOO_MANY_REQUESTS, Code::Exhausted, message, hint)
        }
        Failure::Stale(epoch) => {
            let hint = "begin a newer epoch, with `Producer-Seq: 0`";
            let message = "another producer of this name has a newer epoch".into();
            let mut response = refuse(StatusCode::FORBIDDEN, Code::PermissionDenied, message, hint);
            set(response.headers_mut(), PRODUCER_EPOCH, &epoch.to_string());
            response
        }
        Failure::Gap { expected, received } => {
            let message = format!("`Producer-Seq` is {received}, and {expected} would follow");
            let mut response = conflict(message, "send the missing requests again");
            set(response.headers_mut(), EXPECTED_SEQ, &expected.to_string());
            set(response.headers_mut(), RECEIVED_SEQ, &received.to_string());
            response
        }
        Failure::Broken(error) => {
            let error = base::error::chain(&error);
            tracing::error!(error, "the file of streams does not do as it should");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, error, "see the node's log")
        }
        Failure::Lost => {
            let message = "it came to no end".into();
            refuse(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, message, "see the node's log")
        }
    }
}

fn invalid(message: &str) -> Box<Response> {
    refused(Failure::Invalid(message.to_owned()))
}

/// The text of a header, if it is there.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Box<Response>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if text.len() <= store::TEXT_BYTES_MAX => Ok(Some(text.trim().to_owned())),
        _ => Err(invalid(&format!("`{name}` is too long, or no text"))),
    }
}

/// The streams, where the node has any, and whether the caller may use this one.
fn admit(app: &App, caller: &Caller, path: &str) -> Result<Arc<Streams>, Box<Response>> {
    let Some(streams) = app.node.streams.clone() else {
        let hint = "write into tidemill.yaml: streams: {}";
        let message = "this node serves no streams";
        return Err(Box::new(problem_as(StatusCode::NOT_FOUND, Code::NotFound, message, hint)));
    };
    let is_name = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:@!$'()*+,;=".contains(c);
        !part.is_empty() && part != "." && part != ".." && part.chars().all(plain)
    };
    if path.len() > store::PATH_BYTES_MAX || !path.split('/').all(is_name) {
        return Err(invalid("a stream's path is of letters, digits and -._~:@!$'()*+,;= between slashes"));
    }
    if !caller.may_below(Scope::Streams, path) {
        let message = format!("the token may not use the stream `{path}`");
        let hint = "make a token with the scope `streams`, or `streams:` and the beginning of its path";
        return Err(Box::new(problem_as(StatusCode::FORBIDDEN, Code::PermissionDenied, message, hint)));
    }
    Ok(streams)
}

pub async fn get(
    State(app): State<App>,
    Path(path): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        let caller = caller(&parts.extensions)?;
        let streams = admit(&app, &caller, &path)?;
        if parts.method == Method::HEAD {
            return head(&streams, path).await;
        }
        let asked = Asked::of(&pairs)?;
        let start = match asked.offset.as_deref() {
            None => Start::At(0),
            Some("now") => Start::Now,
            Some(offset) => {
                Start::At(position_of(offset).ok_or_else(|| invalid("the offset is none of this stream"))?)
            }
        };
        let first = streams.read(&path, start).await.map_err(refused)?;
        match asked.live {
            None => catch_up(&first, matches!(start, Start::Now), &parts.headers),
            Some(Live::LongPoll) => long_poll(&app, &streams, &caller, &path, first, asked.cursor).await,
            Some(Live::Events) => events(&app, &streams, path, first, asked.cursor),
        }
    };
    finish(answer.await)
}

async fn head(streams: &Arc<Streams>, path: String) -> Answer {
    let looked = streams.work(&streams.reads, move |streams| streams.store.meta(&path)).await;
    let meta = looked.map_err(refused)?;
    let mut response = described(&meta, StatusCode::OK);
    let headers = response.headers_mut();
    if let Some(ttl) = meta.ttl_s {
        set(headers, TTL, &ttl.to_string());
    }
    let expires = meta.expires_ms.and_then(|end| jiff::Timestamp::from_millisecond(end).ok());
    if let Some(expires) = expires {
        set(headers, EXPIRES_AT, &expires.to_string());
    }
    Ok(response)
}

/// What a stream is, without its bytes.
fn described(meta: &Meta, status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, &meta.content_type);
    set(headers, NEXT_OFFSET, &offset_of(meta.tail));
    if meta.closed {
        set(headers, CLOSED, "true");
    }
    response
}

/// The bytes of a part, as its stream's content type has them.
fn body_of(part: &Part) -> Vec<u8> {
    match part.meta.is_json() {
        true => [b"[", part.data.as_slice(), b"]"].concat(),
        false => part.data.clone(),
    }
}

/// A part, and where it ends.
fn shown(part: &Part, status: StatusCode) -> Response {
    let body = if status == StatusCode::OK { Body::from(body_of(part)) } else { Body::empty() };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, &part.meta.content_type);
    set(headers, NEXT_OFFSET, &offset_of(part.next));
    if part.is_up_to_date() {
        set(headers, UP_TO_DATE, "true");
    }
    if part.is_end() {
        set(headers, CLOSED, "true");
    }
    response
}

fn catch_up(part: &Part, from_now: bool, asked: &HeaderMap) -> Answer {
    let end = if part.is_end() { ":end" } else { "" };
    let tag = format!("\"{}:{}:{}{end}\"", part.meta.id, part.from, part.next);
    let known = !from_now && is_known(asked, &tag);
    let mut response = shown(part, if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    if !from_now {
        set(response.headers_mut(), header::ETAG, &tag);
        // What comes from a place may be kept, if it is asked whether more has come.
        set(response.headers_mut(), header::CACHE_CONTROL, "private, no-cache");
    }
    Ok(response)
}

fn place(streams: &Streams) -> Result<OwnedSemaphorePermit, Box<Response>> {
    Arc::clone(&streams.waiters).try_acquire_owned().map_err(|_| {
        let message = format!("{WAITERS_MAX} readers wait already");
        let hint = "come again later";
        Box::new(problem_as(StatusCode::TOO_MANY_REQUESTS, Code::Exhausted, message, hint))
    })
}

async fn long_poll(
    app: &App,
    streams: &Arc<Streams>,
    caller: &Caller,
    path: &str,
    first: Part,
    known: Option<u64>,
) -> Answer {
    let _place = place(streams)?;
    let until = Instant::now() + LONG_POLL_WAIT;
    let (mut part, mut shutdown) = (first, app.shutdown());
    let id = part.meta.id;
    let mut news = streams.watch(id);
    while part.data.is_empty() && !part.is_end() {
        // Once more, for what came before the first look at the news.
        news.borrow_and_update();
        part = streams.read(path, Start::At(part.from)).await.map_err(refused)?;
        if part.meta.id != id {
            return Err(refused(Failure::NotFound));
        }
        if !part.data.is_empty() || part.is_end() {
            break;
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { break },
            () = tokio::time::sleep_until(until) => break,
            _ = shutdown.wait_for(|stop| *stop) => break,
            ended = caller.ended() => return Err(let_in_no_longer(ended)),
        }
    }
    let status = if part.data.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
    let mut response = shown(&part, status);
    set(response.headers_mut(), CURSOR, &cursor(known).to_string());
    Ok(response)
}

/// Who follows by events, and where.
struct Follower {
    streams: Arc<Streams>,
    path: String,
    /// What was read and not sent yet.
    ready: Option<Part>,
    id: i64,
    at: i64,
    news: watch::Receiver<()>,
    shutdown: watch::Receiver<bool>,
    until: Instant,
    cursor: u64,
    _place: OwnedSemaphorePermit,
}

fn events(app: &App, streams: &Arc<Streams>, path: String, first: Part, known: Option<u64>) -> Answer {
    let content_type = store::media_type(&first.meta.content_type);
    let is_text = first.meta.is_json() || content_type.starts_with("text/");
    let follower = Follower {
        streams: Arc::clone(streams),
        path,
        id: first.meta.id,
        at: first.next,
        news: streams.watch(first.meta.id),
        shutdown: app.shutdown(),
        until: Instant::now() + EVENTS_MAX,
        cursor: cursor(known),
        ready: Some(first),
        _place: place(streams)?,
    };
    let parts = stream::unfold(Some(follower), move |follower| async move {
        let mut follower = follower?;
        let part = follower.next().await?;
        let mut out = Vec::new();
        if !part.data.is_empty() {
            let data = if is_text { body_of(&part) } else { BASE64.encode(&part.data).into_bytes() };
            put_event(&mut out, "data", &data);
        }
        put_control(&mut out, &offset_of(part.next), follower.cursor, part.is_up_to_date(), part.is_end());
        let goes_on = !part.is_end();
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), goes_on.then_some(follower)))
    });
    let mut response = Response::new(Body::from_stream(parts));
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, "text/event-stream");
    set(headers, header::CACHE_CONTROL, "no-cache");
    if !is_text {
        set(headers, EVENTS_ENCODING, "base64");
    }
    Ok(response)
}

impl Follower {
    /// What is to be told next; `None` when the answer ends.
    async fn next(&mut self) -> Option<Part> {
        if let Some(part) = self.ready.take() {
            return Some(part);
        }
        loop {
            self.news.borrow_and_update();
            let part = self.streams.read(&self.path, Start::At(self.at)).await.ok()?;
            if part.meta.id != self.id {
                return None;
            }
            if !part.data.is_empty() || part.is_end() {
                self.at = part.next;
                return Some(part);
            }
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.until) => return None,
                _ = self.shutdown.wait_for(|stop| *stop) => return None,
            }
        }
    }
}

pub async fn put(State(app): State<App>, Path(path): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = async {
        let caller = caller(&parts.extensions)?;
        let streams = admit(&app, &caller, &path)?;
        let mut wanted = create_of(&parts.headers, path)?;
        if let Some(fork) = &wanted.fork {
            admit(&app, &caller, &fork.path)?;
        }
        let (body, _place) = streams.body(body).await?;
        wanted.body = body;
        let made = streams.work(&streams.writes, move |streams| streams.store.create(wanted)).await;
        let (meta, is_new) = made.map_err(refused)?;
        let mut response = described(&meta, if is_new { StatusCode::CREATED } else { StatusCode::OK });
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(|host| host.as_str())).unwrap_or("localhost");
        let location = format!("{}://{host}{}", streams.scheme, parts.uri.path());
        set(response.headers_mut(), header::LOCATION, &location);
        Ok(response)
    };
    finish(answer.await)
}

fn create_of(headers: &HeaderMap, path: String) -> Result<Create, Box<Response>> {
    let ttl = text(headers, &TTL)?;
    let ttl_s = ttl.map(|text| number(&text).ok_or_else(|| invalid("`Stream-TTL` is no number of seconds")));
    let expires = text(headers, &EXPIRES_AT)?.map(|text| {
        let time: Result<jiff::Timestamp, _> = text.parse();
        time.map(|time| time.as_millisecond()).map_err(|_| invalid("`Stream-Expires-At` is no time"))
    });
    let (ttl_s, expires_ms) = (ttl_s.transpose()?, expires.transpose()?);
    if ttl_s.is_some() && expires_ms.is_some() {
        return Err(invalid("`Stream-TTL` and `Stream-Expires-At` exclude each other"));
    }
    let (at, sub) = (text(headers, &FORK_OFFSET)?, text(headers, &FORK_SUB_OFFSET)?);
    let fork = match text(headers, &FORKED_FROM)? {
        None if at.is_some() || sub.is_some() => return Err(invalid("a fork names `Stream-Forked-From`")),
        None => None,
        Some(from) => {
            // The whole path of its address, or what stands below ours.
            let path = from.strip_prefix(PREFIX).unwrap_or_else(|| from.trim_start_matches('/')).to_owned();
            let at = at.filter(|text| text != "now").map(|text| match text.as_str() {
                "-1" => Ok(0),
                text => position_of(text).ok_or_else(|| invalid("`Stream-Fork-Offset` is no offset")),
            });
            let sub =
                sub.map(|text| number(&text).ok_or_else(|| invalid("`Stream-Fork-Sub-Offset` is no number")));
            Some(Fork { path, at: at.transpose()?, sub: sub.transpose()?.unwrap_or(0) })
        }
    };
    Ok(Create {
        path,
        content_type: text(headers, &header::CONTENT_TYPE)?.filter(|text| !text.is_empty()),
        ttl_s,
        expires_ms,
        closed: is_true(headers),
        body: Vec::new(),
        fork,
    })
}

fn is_true(headers: &HeaderMap) -> bool {
    headers.get(CLOSED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

pub async fn post(State(app): State<App>, Path(path): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = async {
        let caller = caller(&parts.extensions)?;
        let streams = admit(&app, &caller, &path)?;
        let producer = producer_of(&parts.headers)?;
        let content_type = text(&parts.headers, &header::CONTENT_TYPE)?.filter(|text| !text.is_empty());
        let seq = text(&parts.headers, &SEQ)?;
        let (body, _place) = streams.body(body).await?;
        let has_data = !body.is_empty();
        let wanted = Append { path, content_type, body, close: is_true(&parts.headers), seq, producer };
        let appended = streams.work(&streams.writes, move |streams| {
            let done = streams.store.append(wanted)?;
            streams.wake(done.id);
            Ok(done)
        });
        let Appended { tail, closed, repeated, producer, .. } = appended.await.map_err(refused)?;
        let mut response = Response::new(Body::empty());
        // A producer is told whether it is the first time.
        let is_news = producer.is_some() && has_data && !repeated;
        *response.status_mut() = if is_news { StatusCode::OK } else { StatusCode::NO_CONTENT };
        let headers = response.headers_mut();
        set(headers, NEXT_OFFSET, &offset_of(tail));
        if closed {
            set(headers, CLOSED, "true");
        }
        if let Some((epoch, seq)) = producer {
            set(headers, PRODUCER_EPOCH, &epoch.to_string());
            set(headers, PRODUCER_SEQ, &seq.to_string());
        }
        Ok(response)
    };
    finish(answer.await)
}

fn producer_of(headers: &HeaderMap) -> Result<Option<Producer>, Box<Response>> {
    let (name, epoch, seq) =
        (text(headers, &PRODUCER_ID)?, text(headers, &PRODUCER_EPOCH)?, text(headers, &PRODUCER_SEQ)?);
    match (name, epoch, seq) {
        (None, None, None) => Ok(None),
        (Some(name), Some(epoch), Some(seq)) if !name.is_empty() => match (number(&epoch), number(&seq)) {
            (Some(epoch), Some(seq)) => Ok(Some(Producer { name, epoch, seq })),
            _ => Err(invalid("`Producer-Epoch` and `Producer-Seq` are whole numbers below 2^53")),
        },
        _ => Err(invalid("`Producer-Id`, `Producer-Epoch` and `Producer-Seq` come together")),
    }
}

pub async fn delete(State(app): State<App>, Path(path): Path<String>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        let caller = caller(&parts.extensions)?;
        let streams = admit(&app, &caller, &path)?;
        let deleted = streams.work(&streams.writes, move |streams| {
            let id = streams.store.delete(&path)?;
            streams.wake(id);
            Ok(())
        });
        deleted.await.map_err(refused)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    };
    finish(answer.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_grow_and_are_read_strictly() {
        assert_eq!(offset_of(0), "0000000000000000_0000000000000000");
        assert!(offset_of(9) < offset_of(10));
        assert_eq!(position_of(&offset_of(1234)), Some(1234));
        for bad in ["", "0", "9999999999999999_9999999999999999", "0000000000000000_000000000000001x"] {
            assert_eq!(position_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_have_one_form() {
        assert_eq!((number("0"), number("3600")), (Some(0), Some(3600)));
        for bad in ["", "-1", "+1", "01", "1.0", "1e3", " 1", "9007199254740992"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
