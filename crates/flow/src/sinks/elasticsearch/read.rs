//! Reading documents back, for who compares them with what they should be.

use super::failure::{away, blocked, of_answer};
use super::plan::{Options, Plan};
use super::server::Server;
use crate::config::FlowOptions;
use crate::deliver::sink::SinkError;
use crate::http_client::escaped;
use base::{Secret, Table};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

/// How long the server keeps a scroll between two pages: a page of keys is looked for in the source meanwhile.
const SCROLL_KEEP: &str = "5m";

/// Documents of one question: together far below what is read of an answer.
const GET_DOCUMENTS: usize = 50;

/// A document that was found: its place and its fields.
pub struct Found {
    pub id: String,
    pub routing: Option<String>,
    pub fields: Map<String, Value>,
}

/// What an alias is to a flow.
pub enum Standing {
    Nothing,
    /// Its rows are being read anew into an index beside it.
    Filling,
    Whole,
}

pub struct Reader {
    flow: String,
    source: String,
    server: Server,
    options: Options,
}

impl Reader {
    pub fn new(flow: &str, source: &str, url: &Secret, options: &FlowOptions) -> Result<Self, SinkError> {
        let options =
            Options::compile(options).map_err(|(message, hint)| SinkError::Blocked { message, hint })?;
        let endpoint = super::endpoint(url).map_err(|error| blocked(error, "mend the sink's url"))?;
        Ok(Self { flow: flow.to_owned(), source: source.to_owned(), server: Server::new(endpoint), options })
    }

    pub fn plan(&self, table: &Table) -> Result<Plan, SinkError> {
        Plan::new(&self.options, &self.source, table)
    }

    pub async fn standing(&mut self, alias: &str) -> Result<Standing, SinkError> {
        let held = self.server.read_progress(&self.flow).await?.map(|(held, _)| held).unwrap_or_default();
        let answer = self.server.ask(Method::HEAD, &format!("/_alias/{}", escaped(alias)), None).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(Standing::Nothing),
            StatusCode::OK if held.filling.contains_key(alias) => Ok(Standing::Filling),
            StatusCode::OK => Ok(Standing::Whole),
            _ => Err(of_answer(&answer)),
        }
    }

    /// The documents at these places, as last written: not only what searchers see by now.
    pub async fn get(
        &mut self,
        alias: &str,
        places: &[(&str, Option<&str>)],
    ) -> Result<Vec<Option<Map<String, Value>>>, SinkError> {
        let mut out = Vec::with_capacity(places.len());
        for part in places.chunks(GET_DOCUMENTS) {
            out.extend(self.get_part(alias, part).await?);
        }
        Ok(out)
    }

    async fn get_part(
        &mut self,
        alias: &str,
        places: &[(&str, Option<&str>)],
    ) -> Result<Vec<Option<Map<String, Value>>>, SinkError> {
        let docs: Vec<Value> = places
            .iter()
            .map(|(id, routing)| match routing {
                Some(routing) => json!({"_id": id, "routing": routing}),
                None => json!({"_id": id}),
            })
            .collect();
        let path = format!("/{}/_mget", escaped(alias));
        let mut answer = self.server.must(Method::POST, &path, Some(json!({"docs": docs}))).await?;
        let Value::Array(docs) = answer["docs"].take() else { return Err(strange()) };
        if docs.len() != places.len() {
            return Err(strange());
        }
        // Two routings may lead to one shard, and it looks for the id alone.
        let led = |doc: &Value, routing: Option<&str>| doc["_routing"].as_str() == routing;
        docs.into_iter()
            .zip(places)
            .map(|(mut doc, (_, routing))| match (doc["found"].as_bool(), doc["_source"].take()) {
                (Some(true), _) if !led(&doc, *routing) => Ok(None),
                (Some(true), Value::Object(fields)) => Ok(Some(fields)),
                (Some(true), _) => Ok(Some(Map::new())),
                (Some(false), _) => Ok(None),
                (None, _) => Err(away(format!("a document cannot be read: {}", doc["error"]))),
            })
            .collect()
    }

    /// All documents of an alias, with these fields only, page by page, and the name of the next page; `None` behind the
    /// last.
    pub async fn scan(
        &mut self,
        alias: &str,
        fields: &[&str],
        page: Option<String>,
        limit: u64,
    ) -> Result<(Vec<Found>, Option<String>), SinkError> {
        let mut answer = match page {
            None => {
                // What someone else wrote a moment ago must be seen, too.
                self.server.refresh(alias).await?;
                let path = format!("/{}/_search?scroll={SCROLL_KEEP}", escaped(alias));
                let body = json!({"size": limit, "sort": ["_doc"], "_source": fields});
                self.server.must(Method::POST, &path, Some(body)).await?
            }
            Some(page) => {
                let body = json!({"scroll": SCROLL_KEEP, "scroll_id": page});
                self.server.must(Method::POST, "/_search/scroll", Some(body)).await?
            }
        };
        if answer["_shards"]["failed"].as_u64().unwrap_or(0) > 0 || answer["timed_out"] == true {
            return Err(away("not every shard answered"));
        }
        let Value::Array(hits) = answer["hits"]["hits"].take() else { return Err(strange()) };
        let page = answer["_scroll_id"].as_str().map(str::to_owned);
        if hits.is_empty() {
            if let Some(page) = page {
                // Best effort: it ends by itself, too.
                let body = json!({"scroll_id": [page]});
                let _ = self.server.ask(Method::DELETE, "/_search/scroll", Some(body)).await;
            }
            return Ok((Vec::new(), None));
        }
        let found = hits.into_iter().map(|mut hit| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let fields = match hit["_source"].take() {
                Value::Object(fields) => fields,
                _ => Map::new(),
            };
            let id = text(&hit["_id"]).unwrap_or_default();
            Found { id, routing: text(&hit["_routing"]), fields }
        });
        Ok((found.collect(), page))
    }
}

fn strange() -> SinkError {
    away("the answer is none of Elasticsearch or OpenSearch")
}
