//! Documents on their way: `_bulk` requests of bounded size, what the server says of each document, and sending again
//! what it had no room for.
//!
//! ```text
//! {"index":{"_index":ALIAS,"_id":ID,"version":N,"version_type":"external"[,"routing":R]}}   then the document
//! {"delete":{…}}                                                                            nothing
//! ```
//! Versions make order irrelevant: a document that is sent again behind a newer one changes nothing.

use super::failure::{self, Fault, Verdict, away, judge_item};
use crate::deliver::sink::SinkError;
use crate::http_client::Client;
use base::json::put_string;
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::time::Duration;

/// Bytes of one request, unless a single document is larger.
pub const BULK_BYTES_MAX: usize = 8 << 20;
/// How often in a row documents are sent that the server had no room for, before the flow backs off as a whole.
const SENDS_MAX: u32 = 8;
/// The first wait before that; each is twice the one before: 12 s in all.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Only an alias is written to, so that an index that was deleted is not made again without its mapping.
const PATH: &str = "/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error.type,\
                    items.*.error.reason,items.*.error.caused_by";

/// One document to be written or deleted.
pub struct Item {
    pub lsn: u64,
    /// Its lines in a request.
    pub text: Vec<u8>,
}

impl Item {
    pub fn new(lsn: u64, action: &str, index: &str, id: &str, routing: Option<&str>, version: u64) -> Self {
        let mut text = Vec::with_capacity(256);
        write!(text, "{{\"{action}\":{{\"_index\":").expect("memory");
        put_string(&mut text, index);
        text.extend_from_slice(b",\"_id\":");
        put_string(&mut text, id);
        write!(text, ",\"version\":{version},\"version_type\":\"external\"").expect("memory");
        if let Some(routing) = routing {
            text.extend_from_slice(b",\"routing\":");
            put_string(&mut text, routing);
        }
        text.extend_from_slice(b"}}\n");
        Self { lsn, text }
    }
}

/// The changes that the server refused, with its reasons. All other items are written.
pub type Refusals = BTreeMap<u64, String>;

/// Writes items in as few requests as their bytes allow.
pub async fn write(client: &mut Client, items: Vec<Item>) -> Result<Refusals, SinkError> {
    let mut refusals = Refusals::new();
    let mut waiting = VecDeque::from(split(items));
    while let Some(items) = waiting.pop_front() {
        match write_one(client, items, &mut refusals).await? {
            None => {}
            // Halves, until they pass, or the one that cannot is alone.
            Some(mut items) => {
                let rest = items.split_off(items.len() / 2);
                waiting.push_front(rest);
                waiting.push_front(items);
            }
        }
    }
    Ok(refusals)
}

fn split(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut out: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.text.len();
        match out.last_mut() {
            Some(last) if bytes <= BULK_BYTES_MAX => last.push(item),
            _ => {
                bytes = item.text.len();
                out.push(vec![item]);
            }
        }
    }
    out
}

/// One request, and again what it had no room for. Answers the items of a request that is too large.
async fn write_one(
    client: &mut Client,
    mut items: Vec<Item>,
    refusals: &mut Refusals,
) -> Result<Option<Vec<Item>>, SinkError> {
    let mut wait = WAIT_MIN;
    for send in 1..=SENDS_MAX {
        let mut body = Vec::with_capacity(items.iter().map(|item| item.text.len()).sum());
        items.iter().for_each(|item| body.extend_from_slice(&item.text));
        let answer = client
            .call(Method::POST, PATH, HeaderMap::new(), Some(("application/x-ndjson", Bytes::from(body))))
            .await
            .map_err(|error| failure::of_client(&error))?;
        let reason = match answer.status {
            StatusCode::OK => {
                let reason = sort(&answer.body, &mut items, refusals)?;
                if items.is_empty() {
                    return Ok(None);
                }
                reason
            }
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST if items.len() > 1 => {
                return Ok(Some(items));
            }
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST => {
                let fault = failure::fault_of(&answer);
                let size = items.iter().map(|item| item.text.len()).sum::<usize>();
                let why = match answer.status {
                    StatusCode::BAD_REQUEST => fault.told(),
                    _ => format!("{size} bytes are more than the server takes (http.max_content_length)"),
                };
                refusals.extend(items.iter().map(|item| (item.lsn, why.clone())));
                return Ok(None);
            }
            StatusCode::TOO_MANY_REQUESTS if failure::fault_of(&answer).kind != "cluster_block_exception" => {
                failure::fault_of(&answer).told()
            }
            _ => return Err(failure::of_answer(&answer)),
        };
        if failure::never_fits(&reason) {
            if items.len() > 1 {
                return Ok(Some(items));
            }
            refusals.extend(items.iter().map(|item| (item.lsn, reason.clone())));
            return Ok(None);
        }
        if send == SENDS_MAX {
            let count = items.len();
            return Err(away(format!("no room for {count} documents after {SENDS_MAX} times: {reason}")));
        }
        tracing::debug!(documents = items.len(), reason, "the server has no room; sent again after a pause");
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    unreachable!("the last send answers")
}

#[derive(Deserialize)]
struct BulkAnswer<'a> {
    errors: bool,
    #[serde(borrow, default)]
    items: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ItemAnswer {
    status: u16,
    #[serde(default)]
    error: Option<Fault>,
}

/// Leaves of `items` those that are to be sent again, and answers why.
fn sort(body: &[u8], items: &mut Vec<Item>, refusals: &mut Refusals) -> Result<String, SinkError> {
    let senseless =
        || away("the server's answer to _bulk makes no sense: is it Elasticsearch or OpenSearch?");
    let answer: BulkAnswer<'_> = serde_json::from_slice(body).map_err(|_| senseless())?;
    if !answer.errors {
        items.clear();
        return Ok(String::new());
    }
    let told = answer.items.ok_or_else(senseless)?;
    let told: Vec<BTreeMap<String, ItemAnswer>> =
        serde_json::from_str(told.get()).map_err(|_| senseless())?;
    if told.len() != items.len() {
        return Err(senseless());
    }
    let mut later = Vec::new();
    let mut reason = String::new();
    for (item, told) in std::mem::take(items).into_iter().zip(told) {
        let told = told.into_values().next().ok_or_else(senseless)?;
        match judge_item(told.status, told.error.as_ref()) {
            Verdict::Done => {}
            Verdict::Refused(why) => {
                refusals.entry(item.lsn).or_insert(why);
            }
            Verdict::Later(why) => {
                reason = why;
                later.push(item);
            }
            Verdict::Failed(error) => return Err(error),
        }
    }
    *items = later;
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(lsn: u64, bytes: usize) -> Item {
        Item { lsn, text: vec![b'x'; bytes] }
    }

    #[test]
    fn requests_are_bounded_and_keep_the_order() {
        let half = BULK_BYTES_MAX / 2;
        let parts = split(vec![item(1, half), item(2, half), item(3, 1), item(4, 3 * half), item(5, 1)]);
        let lsns: Vec<Vec<u64>> =
            parts.iter().map(|part| part.iter().map(|item| item.lsn).collect()).collect();
        assert_eq!(lsns, [vec![1, 2], vec![3], vec![4], vec![5]]);
    }

    #[test]
    fn only_what_had_no_room_is_sent_again() {
        let mut items = vec![item(1, 1), item(2, 1), item(3, 1), item(4, 1)];
        let mut refusals = Refusals::new();
        let body = br#"{"errors":true,"items":[{"index":{"status":201}},
            {"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
            {"delete":{"status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"bad"}}}]}"#;
        let reason = sort(body, &mut items, &mut refusals).unwrap();
        assert!(reason.contains("full"), "{reason}");
        assert_eq!(items.iter().map(|item| item.lsn).collect::<Vec<_>>(), [2]);
        assert_eq!(refusals.into_keys().collect::<Vec<_>>(), [4]);
        assert!(sort(b"<html>", &mut items, &mut Refusals::new()).is_err());
        sort(br#"{"errors":false}"#, &mut items, &mut Refusals::new()).unwrap();
        assert!(items.is_empty());
    }
}
