//! The server's errors, sorted: who is away, what is refused, and what someone must mend.

use crate::deliver::sink::SinkError;
use crate::http_client::{Answer, ClientError};
use hyper::StatusCode;
use serde::Deserialize;

/// Characters of a reason that are kept: it may quote the document.
const REASON_CHARS_MAX: usize = 600;

/// An error as the server writes it, of a whole request or of one document.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Fault {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub caused_by: Option<Box<Fault>>,
}

impl Fault {
    /// The reason with its causes, on one line.
    pub fn told(&self) -> String {
        let mut text = self.kind.clone();
        let mut at = Some(self);
        while let Some(fault) = at {
            if let Some(reason) = &fault.reason {
                text.push_str(": ");
                text.push_str(&reason.replace('\n', " "));
            }
            at = fault.caused_by.as_deref();
        }
        match text.char_indices().nth(REASON_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// What is to be done about one document, or about a whole request.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing: it is there, or what is there is newer.
    Done,
    /// The same again, a little later.
    Later(String),
    /// The document is at fault.
    Refused(String),
    Failed(SinkError),
}

pub fn away(message: impl std::fmt::Display) -> SinkError {
    SinkError::Unavailable { message: format!("search: {message}") }
}

pub fn blocked(message: impl std::fmt::Display, hint: &str) -> SinkError {
    SinkError::Blocked { message: format!("search: {message}"), hint: hint.to_owned() }
}

pub fn of_client(error: &ClientError) -> SinkError {
    match error {
        ClientError::Away(message) => away(message),
        ClientError::Misfit(message) => {
            blocked(message, "write the url as http://[user:password@]host:9200, or https:// for TLS")
        }
    }
}

/// One document of a bulk.
pub fn judge_item(status: u16, fault: Option<&Fault>) -> Verdict {
    let Some(fault) = fault else { return Verdict::Done };
    match (status, fault.kind.as_str()) {
        // What is there is as new, or newer.
        (409, _) => Verdict::Done,
        (_, "cluster_block_exception") => Verdict::Failed(read_only(fault)),
        (429 | 503, _) => Verdict::Later(fault.told()),
        (401 | 403, _) => Verdict::Failed(forbidden(fault)),
        (404, _) => Verdict::Failed(away(format!("an index of this flow is gone: {}", fault.told()))),
        (400, _) if fault.told().contains("no write index is defined") => Verdict::Failed(blocked(
            fault.told(),
            "another index has the same alias: take the alias from it, or give the flow another `index`",
        )),
        (400, _) => Verdict::Refused(fault.told()),
        _ => Verdict::Failed(away(format!("{status} {}", fault.told()))),
    }
}

/// Whether the server has no room for what it was sent though nothing else is under way: the part of its heap that writes may take
/// (`indexing_pressure.memory.limit`) is smaller.
pub fn never_fits(reason: &str) -> bool {
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = reason.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    number("_operation_bytes=")
        .zip(number("max_coordinating_and_primary_bytes="))
        .is_some_and(|(own, most)| own > most)
}

/// A whole request that did not succeed.
pub fn of_answer(answer: &Answer) -> SinkError {
    let fault = fault_of(answer);
    match answer.status {
        StatusCode::UNAUTHORIZED => blocked(
            "401: the server does not know the user, or the password is wrong",
            "check the sink's url: http://user:${env:SEARCH_PASSWORD}@host:9200",
        ),
        _ if fault.kind == "cluster_block_exception" => read_only(&fault),
        StatusCode::FORBIDDEN => forbidden(&fault),
        StatusCode::BAD_REQUEST => blocked(
            fault.told(),
            "change `index`, `index_settings` or `mappings` of the flow: see docs/guides/mysql-to-elasticsearch.md",
        ),
        status => away(format!("{} {}", status.as_u16(), fault.told())),
    }
}

/// The error in an answer. A proxy's page has none.
pub fn fault_of(answer: &Answer) -> Fault {
    #[derive(Deserialize)]
    struct Told {
        error: Fault,
    }
    serde_json::from_slice::<Told>(&answer.body).map(|told| told.error).unwrap_or_default()
}

fn read_only(fault: &Fault) -> SinkError {
    blocked(
        fault.told(),
        "the index takes no writes: free the server's disk, then PUT the index's _settings with \
         {\"index.blocks.read_only_allow_delete\": null, \"index.blocks.write\": null}; the flow goes on by itself",
    )
}

fn forbidden(fault: &Fault) -> SinkError {
    blocked(
        format!("403 {}", fault.told()),
        "give the user the rights create_index, manage and write on the flow's indexes and on tidemill_progress",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: &str) -> Fault {
        Fault { kind: kind.into(), ..Fault::default() }
    }

    #[test]
    fn what_is_larger_than_all_the_room_never_fits() {
        let reason = |own: u64| {
            format!(
                "rejected_execution_exception: rejected execution of coordinating operation [coordinating_and_primary_bytes=0, \
                 replica_bytes=0, all_bytes=0, coordinating_operation_bytes={own}, max_coordinating_and_primary_bytes=51897958]"
            )
        };
        assert!(never_fits(&reason(100_000_255)));
        assert!(!never_fits(&reason(1000)) && !never_fits("full"));
    }

    #[test]
    fn errors_are_sorted_by_what_helps() {
        let judged = |status, kind: &str| judge_item(status, Some(&fault(kind)));
        assert!(matches!(judge_item(404, None), Verdict::Done), "a row that was not there is deleted");
        assert!(matches!(judged(409, "version_conflict_engine_exception"), Verdict::Done));
        assert!(matches!(judged(429, "es_rejected_execution_exception"), Verdict::Later(_)));
        assert!(matches!(judged(503, "unavailable_shards_exception"), Verdict::Later(_)));
        assert!(matches!(judged(400, "mapper_parsing_exception"), Verdict::Refused(_)));
        for (status, kind) in
            [(403, "cluster_block_exception"), (429, "cluster_block_exception"), (403, "security_exception")]
        {
            let verdict = judged(status, kind);
            assert!(matches!(verdict, Verdict::Failed(SinkError::Blocked { .. })), "{verdict:?}");
        }
        let verdict = judged(404, "index_not_found_exception");
        assert!(matches!(verdict, Verdict::Failed(SinkError::Unavailable { .. })), "{verdict:?}");
    }

    #[test]
    fn a_reason_has_its_causes_and_an_end() {
        let text = r#"{"type":"a","reason":"b\nc","caused_by":{"type":"d","reason":"e"}}"#;
        assert_eq!(serde_json::from_str::<Fault>(text).unwrap().told(), "a: b c: e");
        let long = Fault { reason: Some("é".repeat(5000)), ..Fault::default() };
        assert!(long.told().chars().count() <= REASON_CHARS_MAX + 1);
    }
}
