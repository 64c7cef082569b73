//! One call of an API: signed, logged in, repeated as long as that may help, and its answer bounded.

use super::super::config::{HttpApiConfig, HttpAuth};
use super::super::redact::Redaction;
use super::sign::{self, Asked};
use crate::reader::ReadError;
use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use dial::http::{Answer, Client, ClientError, Endpoint, Patience, escaped};
use dial::tls;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, StatusCode};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls of one request.
const TRIES_MAX: u32 = 5;
/// The wait after the first call that failed; each next is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// The longest wait that an API may ask for by `Retry-After`; with a longer one the read ends, and the next run may do better.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// A token is fetched anew so long before it expires.
const TOKEN_EARLY: Duration = Duration::from_secs(30);
/// Characters of an answer that an error shows, of so many bytes with the space between its words.
const SHOWN_MAX: usize = 300;
const SHOWN_BYTES_MAX: usize = 2400;
/// Bytes of a token's answer.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    /// Without a query, escaped; begins with a slash.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Option<String>,
    /// The parameters go into the body.
    pub form: bool,
}

struct Token {
    text: Secret,
    until: Option<Instant>,
}

/// An API that calls can be made to.
pub struct Caller {
    config: Arc<HttpApiConfig>,
    endpoint: Endpoint,
    client: Client,
    /// What every path begins with.
    base: Secret,
    files: tls::Files,
    headers: HeaderMap,
    /// All secrets but the token.
    redaction: Redaction,
    token: Option<Token>,
    called: Option<Instant>,
}

impl Caller {
    /// `Err` says what is wrong in the configuration.
    pub fn new(config: Arc<HttpApiConfig>, project: &Path) -> Result<Self, String> {
        if let Some((what, host)) = in_clear(&config).filter(|_| !config.insecure) {
            return Err(format!(
                "{what} would go to {host} over http://, where everybody on the way can read it: write https://, or \
                 `insecure: true` where the way is trusted"
            ));
        }
        let files = tls::Files {
            authorities: config.tls_ca.as_ref().map(|path| project.join(path)),
            ..tls::Files::default()
        };
        let (endpoint, base) = Endpoint::parse_with(&config.url, None, &files)?;
        if base.expose().contains('?') {
            return Err("the url has a query: write its parameters into `query` of the tables".to_owned());
        }
        if let Some(sign) = &config.sign {
            sign::check(sign)?;
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("tidemill"));
        for (name, value) in &config.headers {
            let known = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("`{name}` is not a header's name"))?;
            headers.insert(known, header(name, value.expose())?);
        }
        let patience =
            patience(&config, usize::try_from(config.answer_max.0).unwrap_or(usize::MAX).saturating_add(1));
        let client = Client::new(endpoint.clone(), patience);
        let redaction = redaction(&config);
        Ok(Self { config, endpoint, client, base, files, headers, redaction, token: None, called: None })
    }

    /// The path of a table.
    pub fn path(&self, path: &str) -> String {
        let base = self.base.expose().trim_end_matches('/');
        let path = path.strip_prefix('/').unwrap_or(path);
        let ascii: String = path
            .chars()
            .map(|c| if c.is_ascii_graphic() { c.to_string() } else { escaped(&c.to_string()) })
            .collect();
        if ascii.is_empty() && !base.is_empty() { base.to_owned() } else { format!("{base}/{ascii}") }
    }

    /// The path and the parameters of a URL that an answer names. Another server is refused: it would be shown our login.
    pub fn follow(&self, url: &str) -> Result<(String, Vec<(String, String)>), String> {
        let whole = if url.starts_with('/') {
            url.to_owned()
        } else if let Some(query) = url.strip_prefix('?') {
            format!("?{query}")
        } else {
            let (other, path) = Endpoint::parse_with(&Secret::new(url), None, &self.files)?;
            if !self.endpoint.is_same_server(&other) {
                return Err("it is of another server, which is not shown our login".to_owned());
            }
            path.expose().to_owned()
        };
        let (path, query) = whole.split_once('?').unwrap_or((&whole, ""));
        let plain = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (plain(name), plain(value))
        });
        Ok((path.to_owned(), pairs.collect()))
    }

    /// The answer, of status 200 to 299. `what` is asked for, for errors: `orders, page 3`.
    pub async fn call(&mut self, what: &str, call: &Call) -> Result<Answer, ReadError> {
        let mut wait = WAIT_FIRST;
        let mut renewed = false;
        for tries in 1.. {
            let last = tries >= TRIES_MAX;
            self.pause().await;
            let headers = self.login(what).await?;
            let error = match self.send(call, headers).await {
                Ok(answer) if answer.body.len() as u64 > self.config.answer_max.0 => {
                    return Err(ReadError::bad(
                        format!("{what}: the answer has more than {} bytes", self.config.answer_max.0),
                        "ask for smaller pages, or set `answer_max`",
                    ));
                }
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer)
                    if answer.status == StatusCode::UNAUTHORIZED && self.token.is_some() && !renewed =>
                {
                    // It expired before its time, or was revoked: one that is fetched now is the last try.
                    self.token = None;
                    renewed = true;
                    continue;
                }
                Ok(answer) => {
                    let error = self.refused(what, &answer);
                    let later =
                        answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error();
                    if !later || last {
                        return Err(error);
                    }
                    if let Some(asked) = retry_after(&answer) {
                        if asked > WAIT_MAX {
                            return Err(ReadError::Unavailable(format!(
                                "{error}; it asks to wait for {} s",
                                asked.as_secs()
                            )));
                        }
                        wait = wait.max(asked);
                    }
                    error
                }
                Err(ClientError::Away(why)) => {
                    ReadError::Unavailable(format!("{what}: the API cannot be reached: {why}"))
                }
                Err(ClientError::Misfit(why)) => {
                    return Err(ReadError::bad(
                        format!("{what}: {why}"),
                        "look at `url`, `headers` and `tls_ca` of the source",
                    ));
                }
            };
            if last {
                return Err(error);
            }
            tracing::warn!(what, tries, wait_ms = wait.as_millis() as u64, %error, "the call is repeated");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
        unreachable!("the last try returns")
    }

    /// Not more requests a second than are allowed.
    async fn pause(&mut self) {
        if let (Some(rate), Some(called)) =
            (self.config.requests_per_second.filter(|rate| *rate > 0.0), self.called)
        {
            let due = called + Duration::from_secs_f64((1.0 / rate).min(WAIT_MAX.as_secs_f64()));
            tokio::time::sleep_until(due.into()).await;
        }
        self.called = Some(Instant::now());
    }

    async fn send(&mut self, call: &Call, mut headers: HeaderMap) -> Result<Answer, ClientError> {
        let mut query = call.query.clone();
        let body = call.body.clone().unwrap_or_default();
        if let Some(config) = &self.config.sign {
            let asked = Asked {
                method: call.method.as_str(),
                path: &call.path,
                body: &body,
                now_ms: jiff::Timestamp::now().as_millisecond(),
                nonce: &nonce(),
            };
            let added = sign::sign(config, &query, &asked);
            query.extend(added.query);
            for (name, value) in added.headers {
                let known = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| ClientError::Misfit(format!("`{name}` is not a header's name")))?;
                headers.insert(known, header(&name, &value).map_err(ClientError::Misfit)?);
            }
        }
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        let pairs = pairs.join("&");
        let (path, body) = if call.form {
            (call.path.clone(), Some(("application/x-www-form-urlencoded", Bytes::from(pairs))))
        } else {
            let path = if pairs.is_empty() { call.path.clone() } else { format!("{}?{pairs}", call.path) };
            (path, call.body.is_some().then(|| ("application/json", Bytes::from(body))))
        };
        self.client.call(call.method.clone(), &path, headers, body).await
    }

    /// The headers of a request, with a token that is still good.
    async fn login(&mut self, what: &str) -> Result<HeaderMap, ReadError> {
        let mut headers = self.headers.clone();
        let config = Arc::clone(&self.config);
        let text = match &config.auth {
            None => return Ok(headers),
            Some(HttpAuth::Bearer { token }) => format!("Bearer {}", token.expose()),
            Some(HttpAuth::Basic { user, password }) => basic(user, password),
            Some(HttpAuth::OAuth2 { .. }) => {
                let good =
                    |token: &Token| token.until.is_none_or(|until| Instant::now() + TOKEN_EARLY < until);
                if !self.token.as_ref().is_some_and(good) {
                    self.token = Some(self.fetch_token(what).await?);
                }
                let token = self.token.as_ref().map(|token| token.text.expose()).unwrap_or_default();
                format!("Bearer {token}")
            }
        };
        let value = header("authorization", &text)
            .map_err(|wrong| ReadError::bad(format!("{what}: {wrong}"), "look at `auth`"))?;
        headers.insert(AUTHORIZATION, value);
        Ok(headers)
    }

    async fn fetch_token(&self, what: &str) -> Result<Token, ReadError> {
        let Some(HttpAuth::OAuth2 { token_url, client_id, client_secret, scope, in_body }) =
            &self.config.auth
        else {
            return Err(ReadError::Internal("no token is asked for".to_owned()));
        };
        let wrong =
            |why: String| ReadError::bad(format!("{what}: no token: {why}"), "look at `auth` of the source");
        let (endpoint, path) = Endpoint::parse_with(token_url, None, &self.files).map_err(wrong)?;
        let mut form = Vec::new();
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if *in_body {
            form.extend([("client_id", client_id.as_str()), ("client_secret", client_secret.expose())]);
        } else {
            headers.insert(
                AUTHORIZATION,
                header("authorization", &basic(client_id, client_secret)).map_err(wrong)?,
            );
        }
        let pairs: String = form.iter().map(|(name, value)| format!("&{name}={}", escaped(value))).collect();
        let pairs = format!("grant_type=client_credentials{pairs}");
        let body = Some(("application/x-www-form-urlencoded", Bytes::from(pairs)));
        let mut client = Client::new(endpoint, patience(&self.config, TOKEN_BYTES_MAX));
        let answer =
            client.call(Method::POST, path.expose(), headers, body).await.map_err(|error| match error {
                ClientError::Away(why) => ReadError::Unavailable(format!("{what}: no token: {why}")),
                ClientError::Misfit(why) => wrong(why),
            })?;
        #[derive(serde::Deserialize)]
        struct Given {
            access_token: Secret,
            expires_in: Option<u64>,
        }
        match serde_json::from_slice::<Given>(&answer.body) {
            Ok(given) if answer.status.is_success() => {
                // A year is longer than any node runs without a restart of its clock.
                let until = given
                    .expires_in
                    .map(|seconds| Instant::now() + Duration::from_secs(seconds.min(31_536_000)));
                Ok(Token { text: given.access_token, until })
            }
            _ if answer.status.is_server_error() => {
                Err(ReadError::Unavailable(format!("{what}: no token: the server answers {}", answer.status)))
            }
            _ => Err(ReadError::Denied {
                message: format!(
                    "{what}: no token: the server answers {}: {}",
                    answer.status,
                    self.shown(&answer.body)
                ),
                hint: "look at `client_id`, `client_secret` and `scope`".to_owned(),
            }),
        }
    }

    fn refused(&self, what: &str, answer: &Answer) -> ReadError {
        let status = answer.status;
        let message = format!("{what}: the API answers {status}: {}", self.shown(&answer.body));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ReadError::Denied {
                message,
                hint: "look at `auth`, `sign` and `headers` of the source".to_owned(),
            },
            StatusCode::TOO_MANY_REQUESTS => {
                ReadError::Unavailable(format!("{message}; set `requests_per_second`"))
            }
            _ if status.is_server_error() => ReadError::Unavailable(message),
            _ if status.is_redirection() => {
                ReadError::bad(message, "write the URL that it names: redirections are not followed")
            }
            _ => ReadError::bad(message, "look at `path`, `query` and `body` of the table"),
        }
    }

    /// The beginning of an answer, without our secrets, which some APIs repeat.
    pub fn shown(&self, body: &[u8]) -> String {
        let mut redaction = self.redaction.clone();
        redaction.add(self.token.as_ref().map(|token| token.text.expose()));
        // A secret at the end of what is shown is whole, and found.
        let start = &body[..body.len().min(SHOWN_BYTES_MAX + redaction.ahead())];
        let text = redaction.shown(&String::from_utf8_lossy(start), SHOWN_BYTES_MAX);
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_MAX).collect()
    }
}

/// What shows who we are and goes to another machine without TLS, and the machine.
fn in_clear(config: &HttpApiConfig) -> Option<(String, &str)> {
    const WORDS: [&str; 7] = ["auth", "token", "key", "secret", "password", "cookie", "session"];
    if let Some(HttpAuth::OAuth2 { token_url, .. }) = &config.auth
        && let Some((_, host)) = without_tls(token_url.expose())
    {
        return Some(("`client_secret`".to_owned(), host));
    }
    let (login, host) = without_tls(config.url.expose())?;
    if config.auth.is_some() {
        return Some(("`auth`".to_owned(), host));
    }
    if login {
        return Some(("the login of `url`".to_owned(), host));
    }
    let secret = |name: &&String| WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word));
    config.headers.keys().find(secret).map(|name| (format!("the header `{name}`"), host))
}

/// Of a URL without TLS that is of another machine: whether it has a login, and its host.
fn without_tls(url: &str) -> Option<(bool, &str)> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, address) = authority.rsplit_once('@').map_or((false, authority), |(_, it)| (true, it));
    let host = match address.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => address.split(':').next().unwrap_or_default(),
    };
    let own = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    (!own).then_some((login, host))
}

/// What no error may show of a configuration.
fn redaction(config: &HttpApiConfig) -> Redaction {
    let mut redaction = Redaction::default();
    redaction.add_url(config.url.expose());
    config.headers.values().for_each(|value| redaction.add_parts(value.expose(), ' '));
    redaction.add(config.sign.as_ref().map(|sign| sign.secret.expose()));
    match &config.auth {
        None => {}
        Some(HttpAuth::Bearer { token }) => redaction.add([token.expose()]),
        Some(HttpAuth::Basic { user, password }) => redaction.add_login(user, password.expose()),
        Some(HttpAuth::OAuth2 { token_url, client_id, client_secret, .. }) => {
            redaction.add_login(client_id, client_secret.expose());
            redaction.add_url(token_url.expose());
        }
    }
    redaction
}

fn patience(config: &HttpApiConfig, answer_bytes_max: usize) -> Patience {
    Patience { answer_wait: config.timeout.0, answer_bytes_max }
}

fn basic(user: &str, password: &Secret) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{}", password.expose())))
}

/// The value of a header; the error does not hold it.
fn header(name: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| format!("the header `{name}` has characters that HTTP does not allow"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Seconds, or a date.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::from_secs(at.duration_since(jiff::Timestamp::now()).as_secs().max(0).unsigned_abs()))
}

/// 32 hexadecimal digits that nobody can foresee from outside; each hasher of the standard library has keys of its own.
fn nonce() -> String {
    let part = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_i128(jiff::Timestamp::now().as_nanosecond());
        hasher.finish()
    };
    format!("{:016x}{:016x}", part(), part())
}
