//! What the protocol looks like on the wire: queries, headers, events.

use crate::auth::{Caller, Ended};
use crate::http::problem_as;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base::Code;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
pub const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
pub const CURSOR: HeaderName = HeaderName::from_static("stream-cursor");
pub const CLOSED: HeaderName = HeaderName::from_static("stream-closed");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// How long a long-poll waits.
pub const LONG_POLL_WAIT: Duration = Duration::from_secs(15);
/// After as long an answer of events ends, and its reader comes again: the protocol asks for about a minute.
pub const EVENTS_MAX: Duration = Duration::from_secs(60);
/// Cursors count intervals of 20 s since 2024-10-09, as the protocol has them.
const CURSOR_EPOCH_S: u64 = 1_728_432_000;
const CURSOR_INTERVAL_S: u64 = 20;
/// How far a cursor jumps, at most, where its client has the present one.
const CURSOR_JUMP_MAX: u64 = 180;

/// How a reader waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    LongPoll,
    Events,
}

/// What a reader asks for.
#[derive(Debug)]
pub struct Asked {
    /// `None`: from the beginning.
    pub offset: Option<String>,
    pub live: Option<Live>,
    pub cursor: Option<u64>,
}

impl Asked {
    /// Of the pairs of a query; others than the protocol's are left alone.
    pub fn of(pairs: &[(String, String)]) -> Result<Self, Box<Response>> {
        let invalid = |what: &str| {
            let hint = "for example: ?offset=-1, and then the `Stream-Next-Offset` of the last answer";
            Box::new(problem_as(StatusCode::BAD_REQUEST, Code::Invalid, what, hint))
        };
        let mut offsets = pairs.iter().filter(|(name, _)| name == "offset").map(|(_, value)| value);
        let offset = offsets.next();
        if offsets.next().is_some() {
            return Err(invalid("there are two offsets"));
        }
        if offset.is_some_and(|text| text.is_empty()) {
            return Err(invalid("the offset is empty"));
        }
        let value =
            |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let live = match value("live") {
            None => None,
            Some("long-poll") => Some(Live::LongPoll),
            Some("sse") => Some(Live::Events),
            Some(_) => return Err(invalid("`live` is `long-poll` or `sse`")),
        };
        if live.is_some() && offset.is_none() {
            return Err(invalid("who waits says from where: there is no offset"));
        }
        let offset = offset.filter(|text| *text != "-1").cloned();
        Ok(Self { offset, live, cursor: value("cursor").and_then(|text| text.parse().ok()) })
    }
}

/// The cursor of an answer: never one that its client has already, so that no cache answers for ever.
pub fn cursor(known: Option<u64>) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let interval = now.saturating_sub(CURSOR_EPOCH_S) / CURSOR_INTERVAL_S;
    match known {
        Some(known) if known >= interval => known.saturating_add(1 + some_number() % CURSOR_JUMP_MAX),
        _ => interval,
    }
}

fn some_number() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Appends an event; the lines of its data one by one, so that nothing in them ends it.
pub fn put_event(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    let mut rest = Some(data);
    while let Some(text) = rest {
        let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = end.map_or(text, |end| &text[..end]);
        rest = end.map(|end| match &text[end..] {
            [b'\r', b'\n', rest @ ..] => rest,
            rest => &rest[1..],
        });
        out.extend_from_slice(b"\ndata:");
        // A reader takes one space away.
        if line.first() == Some(&b' ') {
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends the event that says where the reader is.
pub fn put_control(out: &mut Vec<u8>, next: &str, cursor: u64, up_to_date: bool, closed: bool) {
    let mut control = json!({ "streamNextOffset": next });
    if closed {
        control["streamClosed"] = true.into();
    } else {
        control["streamCursor"] = cursor.to_string().into();
    }
    if up_to_date {
        control["upToDate"] = true.into();
    }
    put_event(out, "control", control.to_string().as_bytes());
}

/// Sets a header whose value is one of ours.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An entity tag in quotes is what the client has.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// What every answer says to browsers: it is not what it does not say it is, and no other site's page shows it.
pub fn finish(answer: Result<Response, Box<Response>>) -> Response {
    let mut response = answer.unwrap_or_else(|refusal| *refusal);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Who waits is let in no longer.
pub fn let_in_no_longer(ended: Ended) -> Box<Response> {
    let hint = "come again with a token that is good";
    Box::new(problem_as(StatusCode::UNAUTHORIZED, Code::Unauthenticated, ended.message(), hint))
}

/// Who called; the guard has put it there.
pub fn caller(extensions: &axum::http::Extensions) -> Result<Caller, Box<Response>> {
    extensions.get::<Caller>().cloned().ok_or_else(|| {
        let hint = "send it as: Authorization: Bearer TOKEN";
        Box::new(problem_as(StatusCode::UNAUTHORIZED, Code::Unauthenticated, "a token is needed", hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_ends_an_event_before_its_time() {
        let mut out = Vec::new();
        put_event(&mut out, "data", b"a\r\n\r\nevent: control\rdata: x\n b");
        assert_eq!(out, b"event: data\ndata:a\ndata:\ndata:event: control\ndata:data: x\ndata:  b\n\n");
    }

    #[test]
    fn a_cursor_is_never_the_one_that_is_known() {
        let now = cursor(None);
        assert!(cursor(Some(now)) > now && cursor(Some(now + 50)) > now + 50);
        assert!(cursor(Some(3)) >= now);
    }

    #[test]
    fn queries_are_read_strictly_where_they_are_the_protocols() {
        let asked = |text: &[(&str, &str)]| {
            Asked::of(&text.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
        };
        let good = asked(&[("offset", "-1"), ("live", "sse"), ("cursor", "7"), ("other", "x")]).unwrap();
        assert_eq!((good.offset, good.live, good.cursor), (None, Some(Live::Events), Some(7)));
        for bad in [
            &[("offset", "")][..],
            &[("offset", "a"), ("offset", "b")],
            &[("live", "sse")],
            &[("offset", "a"), ("live", "yes")],
        ] {
            assert_eq!(asked(bad).unwrap_err().status(), 400, "{bad:?}");
        }
    }
}
