//! What a receiver's answer means for the changes that it was sent.

use crate::deliver::sink::SinkError;
use crate::http_client::{Answer, ClientError};
use hyper::{HeaderMap, header};
use std::time::Duration;

/// Characters of an answer that are kept as a reason.
const REASON_CHARS_MAX: usize = 600;
/// No receiver is waited for longer, whatever it asks.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub enum Verdict {
    Taken,
    /// Something in the body is at fault: less of it may pass.
    Refused(String),
    Failed(SinkError),
}

/// Sorts an answer. `now_s`: seconds since 1970.
pub fn judge(answer: &Answer, now_s: i64) -> Verdict {
    let status = answer.status;
    if status.is_success() {
        return Verdict::Taken;
    }
    let told = told(answer);
    let blocked = |hint: &str| {
        Verdict::Failed(SinkError::Blocked {
            message: format!("the receiver answered {told}"),
            hint: hint.into(),
        })
    };
    match status.as_u16() {
        400 | 413 | 422 => Verdict::Refused(told),
        301..=308 => {
            blocked("the receiver is elsewhere: write the url that it redirects to into the sink's file")
        }
        401 | 403 => {
            blocked("check the sink's url, `headers` and `secrets`: the receiver does not let us in")
        }
        404 | 410 => blocked("check the sink's url: nobody receives there"),
        408 | 423 | 425 | 429 => later(told, &answer.headers, now_s),
        501 | 505 => blocked("check the sink's url and `method`: the receiver cannot take such requests"),
        409 => blocked("the receiver must answer 2xx to a request that it has already"),
        500..=599 => later(told, &answer.headers, now_s),
        _ => blocked("check the sink's url, `method` and `headers`, and the format that the receiver wants"),
    }
}

pub fn of_client(error: ClientError) -> SinkError {
    match error {
        ClientError::Away(message) => SinkError::Unavailable { message },
        ClientError::Misfit(message) => SinkError::Blocked {
            message,
            hint: "check the sink's url and `headers`, and for https the receiver's certificate".into(),
        },
    }
}

fn later(told: String, headers: &HeaderMap, now_s: i64) -> Verdict {
    let message = format!("the receiver answered {told}");
    Verdict::Failed(match retry_after(headers, now_s) {
        Some(after) => SinkError::Later { message, after },
        None => SinkError::Unavailable { message },
    })
}

/// `Retry-After` as seconds or as a date.
fn retry_after(headers: &HeaderMap, now_s: i64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text).ok()?;
            u64::try_from(date.timestamp().as_second().saturating_sub(now_s)).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The status and the beginning of the body, on one line.
fn told(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    let separator = if line.is_empty() { "" } else { ": " };
    format!("{}{separator}{line}", answer.status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::StatusCode;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        let body = Bytes::from(body.to_owned());
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: all, body }
    }

    #[test]
    fn answers_are_sorted_by_what_helps() {
        let judged = |status| judge(&answer(status, &[], "why"), 0);
        for status in [200, 201, 202, 204] {
            assert!(matches!(judged(status), Verdict::Taken), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(judged(status), Verdict::Refused(why) if why == format!("{status}: why")));
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let verdict = judged(status);
            assert!(matches!(verdict, Verdict::Failed(SinkError::Unavailable { .. })), "{status}");
        }
        for status in [301, 302, 304, 307, 308, 401, 403, 404, 405, 409, 410, 415, 501] {
            let verdict = judged(status);
            assert!(matches!(verdict, Verdict::Failed(SinkError::Blocked { .. })), "{status}");
        }
    }

    #[test]
    fn a_receiver_says_how_long_to_wait_within_bounds() {
        let now = 784_111_777;
        let waits = |text: &'static str| match judge(&answer(503, &[("retry-after", text)], ""), now) {
            Verdict::Failed(SinkError::Later { after, .. }) => Some(after.as_secs()),
            _ => None,
        };
        assert_eq!(waits("7"), Some(7));
        assert_eq!(waits("99999999"), Some(600));
        assert_eq!(waits("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(waits("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(waits("soon"), None);
    }

    #[test]
    fn a_reason_is_one_line_and_has_an_end() {
        let Verdict::Refused(why) = judge(&answer(422, &[], "a\r\nb\u{1b}[31m\tc"), 0) else { panic!() };
        assert_eq!(why, "422: a b[31m c");
        let Verdict::Refused(why) = judge(&answer(400, &[], &"é".repeat(5000)), 0) else { panic!() };
        assert!(why.chars().count() <= REASON_CHARS_MAX + 5);
    }
}
