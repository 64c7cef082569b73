//! A question of a person, put to the documents of one flow.

use super::server::Server;
use crate::deliver::sink::SinkError;
use base::Secret;
use serde_json::{Value, json};

/// Bytes of a question.
pub const QUERY_BYTES_MAX: usize = 1024;
/// Documents in an answer, and how many when the question does not say.
pub const HITS_MAX: u32 = 100;
pub const HITS_DEFAULT: u32 = 10;
/// How long the server searches; it answers what it has by then.
const SEARCH_WAIT: &str = "5s";
/// Documents that are counted.
const COUNTED_MAX: u32 = 10_000;

/// Asks the aliases of a flow in Lucene's simple syntax (`tea +green -"black tea" jas*`), all words of it. The text is a
/// value in the request and nothing else, and no text is wrong in that syntax.
pub async fn search(url: &Secret, flow: &str, text: &str, hits: u32) -> Result<Value, SinkError> {
    let endpoint =
        super::endpoint(url).map_err(|error| super::failure::blocked(error, "mend the sink's url"))?;
    let mut server = Server::new(endpoint);
    let held = server.read_progress(flow).await?.map(|(held, _)| held).unwrap_or_default();
    if held.indexes.is_empty() {
        return Ok(json!({"total": 0, "more": false, "hits": []}));
    }
    let query = json!({"query": text, "default_operator": "and", "lenient": true});
    let body = json!({
        "query": {"simple_query_string": query},
        "size": hits.min(HITS_MAX),
        "timeout": SEARCH_WAIT,
        "track_total_hits": COUNTED_MAX,
    });
    let mut answer = server.search(&held.indexes.keys().map(String::as_str).collect(), body).await?;
    let alias_of =
        |index: &str| held.indexes.iter().find(|(_, held)| *held == index).map(|(alias, _)| alias.clone());
    let found = match answer["hits"]["hits"].take() {
        Value::Array(found) => found,
        _ => Vec::new(),
    };
    let hits: Vec<Value> = found
        .into_iter()
        .map(|mut hit| {
            let index = hit["_index"].as_str().unwrap_or_default();
            json!({
                "index": alias_of(index).unwrap_or_else(|| index.to_owned()),
                "id": hit["_id"].clone(),
                "score": hit["_score"].clone(),
                "source": hit["_source"].take(),
            })
        })
        .collect();
    let total = &answer["hits"]["total"];
    Ok(json!({"total": total["value"], "more": total["relation"] == "gte", "hits": hits}))
}
