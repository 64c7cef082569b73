//! Pages of browsers: which sites' pages may call, and how the browser is told.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use std::sync::Arc;

/// Sites that a project may name.
const ORIGINS_MAX: usize = 100;
/// How long a browser may remember the answer to its question, in seconds.
const REMEMBER_SECONDS: &str = "600";
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
/// What pages send: our own headers, those of gRPC-Web, and those of Durable Streams.
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key, webhook-id, webhook-timestamp, webhook-signature, \
                               grpc-timeout, x-grpc-web, x-user-agent, if-none-match, stream-closed, stream-expires-at, \
                               stream-fork-offset, stream-fork-sub-offset, stream-forked-from, stream-seq, stream-ttl, producer-epoch, \
                               producer-id, producer-seq";
/// What pages may read besides what every page may.
const ANSWER_HEADERS: &str = "grpc-status, grpc-message, grpc-status-details-bin, retry-after, tidemill-from, tidemill-reset, \
                              www-authenticate, etag, location, producer-epoch, producer-expected-seq, producer-received-seq, \
                              producer-seq, stream-closed, stream-cursor, stream-expires-at, stream-next-offset, \
                              stream-sse-data-encoding, stream-ttl, stream-up-to-date";

const ASK_LOCAL: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_LOCAL: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The sites of `http.cors`.
#[derive(Clone, Debug, Default)]
pub struct Origins(Arc<[String]>);

/// What is wrong with an entry of `http.cors`.
pub fn check(origins: &[String]) -> Result<(), String> {
    if origins.len() > ORIGINS_MAX {
        return Err(format!("`cors` names {} sites, and at most {ORIGINS_MAX} are allowed", origins.len()));
    }
    for origin in origins {
        let uri: Option<Uri> = origin.parse().ok();
        let is_site = uri.is_some_and(|uri| {
            let web = matches!(uri.scheme_str(), Some("http" | "https"));
            let bare = uri.path() == "/" && uri.query().is_none() && !origin.ends_with('/');
            let host = uri.authority().is_some_and(|host| !host.as_str().contains(['@', '*']));
            web && bare && host && *origin == origin.to_ascii_lowercase()
        });
        if !is_site {
            return Err(format!("`{origin}` is no site"));
        }
    }
    Ok(())
}

/// Whose page sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Nobody's: a program.
    None,
    /// This node's own.
    Own,
    /// That of a site in `http.cors`.
    Allowed(HeaderValue),
    Foreign,
}

impl Origins {
    pub fn new(origins: &[String]) -> Self {
        Self(origins.into())
    }

    pub(super) fn judge(&self, headers: &HeaderMap, authority: Option<&str>) -> Page {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Page::None };
        let (Ok(text), None) = (origin.to_str(), origins.next()) else { return Page::Foreign };
        if self.0.iter().any(|allowed| allowed == text) {
            return Page::Allowed(origin.clone());
        }
        let host = text.split_once("://").map(|(_, host)| host);
        // A page of another port of this machine is that of a program on this machine.
        let both_here = host.is_some_and(is_loopback) && authority.is_some_and(is_loopback);
        if host.is_some() && (host == authority || both_here) { Page::Own } else { Page::Foreign }
    }
}

/// Whether a browser asks if it may.
pub(super) fn is_question(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// It may. A browser asks beside it whether a page of the internet may call into a private network.
pub(super) fn yes(origin: &HeaderValue, asked: &HeaderMap) -> Response {
    let asks_for_local = asked.contains_key(ASK_LOCAL);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBER_SECONDS));
    if asks_for_local {
        headers.insert(ALLOW_LOCAL, HeaderValue::from_static("true"));
    }
    mark(&mut response, origin);
    response
}

/// Lets the page read the answer. Never with credentials that a browser adds by itself: there are none.
pub(super) fn mark(response: &mut Response, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// The host that a request is for: of HTTP/2 and of a whole URL in the request line, else of `Host`. `Err` where it is said
/// more than once.
pub(super) fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, ()> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| ())).transpose()?;
    let named = uri.authority().map(|authority| authority.as_str());
    match (named, host, hosts.next()) {
        (_, _, Some(_)) => Err(()),
        (Some(named), Some(host), None) if named != host => Err(()),
        (named, host, None) => Ok(named.or(host)),
    }
}

pub(super) fn is_loopback_ip(address: std::net::IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether `host[:port]` is this machine by its own name.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(is_loopback_ip)
}

/// Headers that must come once, if at all.
pub(super) const SINGLE: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_named_exactly() {
        let list = |text: &str| check(&[text.to_owned()]);
        assert!(list("https://shop.example").is_ok() && list("http://localhost:5173").is_ok());
        for bad in
            ["*", "https://*.example", "https://a.example/", "https://a.example/x", "a.example", "null"]
        {
            assert!(list(bad).is_err(), "{bad}");
        }
        assert!(list("HTTPS://a.example").is_err() && list("https://u@a.example").is_err());
    }

    #[test]
    fn pages_are_known_by_their_origin() {
        let origins = Origins::new(&["https://shop.example".to_owned()]);
        let judge = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            origin.map(|text| headers.insert(header::ORIGIN, HeaderValue::from_static(text)));
            origins.judge(&headers, Some("127.0.0.1:7070"))
        };
        assert_eq!((judge(None), judge(Some("http://127.0.0.1:7070"))), (Page::None, Page::Own));
        assert!(matches!(judge(Some("https://shop.example")), Page::Allowed(_)));
        assert_eq!(judge(Some("http://localhost:9999")), Page::Own);
        for foreign in ["null", "https://evil.example", "https://shop.example.evil", "http://shop.example"] {
            assert_eq!(judge(Some(foreign)), Page::Foreign, "{foreign}");
        }
    }

    #[test]
    fn a_host_that_is_said_twice_is_none() {
        let hosts = |hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            headers
        };
        let (plain, whole) = (Uri::from_static("/x"), Uri::from_static("http://evil.example/x"));
        assert_eq!(authority(&plain, &hosts(&["a"])), Ok(Some("a")));
        assert_eq!(authority(&plain, &hosts(&[])), Ok(None));
        assert_eq!(authority(&plain, &hosts(&["a", "b"])), Err(()));
        assert_eq!(authority(&whole, &hosts(&["localhost"])), Err(()));
        assert_eq!(authority(&whole, &hosts(&[])), Ok(Some("evil.example")));
    }
}
