//! What is asked of a server besides writing documents: indexes, aliases, mappings, and a flow's progress.
//!
//! ```text
//! ALIAS-000001              an index; its mapping's _meta names the flow
//! ALIAS                     what searchers ask: the index that is whole
//! ALIAS-000001-in           what we write to; it goes with its index, and is never made by a write
//! tidemill_progress         one document for each flow: Held
//! ```

use super::failure::{self, away, blocked, fault_of, of_answer};
use super::mapping::FIELDS_MAX;
use crate::deliver::sink::SinkError;
use crate::http_client::{Answer, Client, Endpoint, Patience, escaped};
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A server that has not answered by then is taken for dead: it waits a minute itself for a shard that is moving. Answers to
/// our own requests are far smaller.
const PATIENCE: Patience = Patience { answer_wait: Duration::from_secs(90), answer_bytes_max: 64 << 20 };
pub const PROGRESS_INDEX: &str = "tidemill_progress";
/// How long the server remembers that a document was deleted, and at which version: longer than any write of ours can be
/// under way. It costs the server about 100 bytes for each row deleted in that time.
pub const GC_DELETES: &str = "15m";
/// Bytes of names in one path; servers take 4096 for the whole line, and escaping triples some.
const NAMES_BYTES_MAX: usize = 1000;

/// What the flow has on the server, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// [`journal::Journal::identity`], in hexadecimal.
    pub journal: String,
    /// Counts the journals that the flow has seen.
    pub generation: u32,
    pub epoch: u32,
    pub lsn: u64,
    /// The index behind each alias.
    pub indexes: BTreeMap<String, String>,
    /// What is being filled to take an alias over.
    pub filling: BTreeMap<String, Filling>,
    /// Indexes that are to be deleted.
    pub doomed: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filling {
    pub index: String,
    /// The ids of the tables whose rows must be there first.
    pub tables: BTreeSet<u32>,
    /// The change at which they began to come.
    pub begun: u64,
}

/// Which version of the progress document is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Token {
    #[serde(rename = "_seq_no")]
    seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
}

/// What an alias is to the server.
pub enum Found {
    Nothing,
    /// The indexes behind it, all made by this flow.
    Ours(Vec<String>),
    /// Someone else's, with the reason.
    Foreign(String),
}

pub struct Server {
    pub client: Client,
}

/// What is written to in order to write to an index.
pub fn writer(index: &str) -> String {
    format!("{index}-in")
}

impl Server {
    pub fn new(endpoint: Endpoint) -> Self {
        Self { client: Client::new(endpoint, PATIENCE) }
    }

    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, SinkError> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        let asked = self.client.call(method, path, HeaderMap::new(), body).await;
        asked.map_err(|error| failure::of_client(&error))
    }

    pub async fn must(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, SinkError> {
        let answer = self.ask(method, path, body).await?;
        if answer.status.is_success() { parsed(&answer) } else { Err(of_answer(&answer)) }
    }

    /// Whether the server answers, lets us in, and is one of those we know.
    pub async fn greet(&mut self) -> Result<(), SinkError> {
        self.must(Method::GET, "/_cluster/health?filter_path=status", None).await.map(|_| ())
    }

    pub async fn read_progress(&mut self, flow: &str) -> Result<Option<(Held, Token)>, SinkError> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(flatten)]
            token: Token,
            #[serde(rename = "_source")]
            held: Held,
        }
        let path = format!("/{PROGRESS_INDEX}/_doc/{}", escaped(flow));
        let answer = self.ask(Method::GET, &path, None).await?;
        match answer.status {
            StatusCode::OK => {
                let document: Document = serde_json::from_slice(&answer.body).map_err(|error| {
                    let hint = "another program wrote it: delete the document, then use `flow resnapshot`";
                    blocked(format!("the progress of flow `{flow}` cannot be read: {error}"), hint)
                })?;
                Ok(Some((document.held, document.token)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(of_answer(&answer)),
        }
    }

    pub async fn make_progress_index(&mut self) -> Result<(), SinkError> {
        let body = json!({
            "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
            "mappings": {"dynamic": false},
        });
        let answer = self.ask(Method::PUT, &format!("/{PROGRESS_INDEX}"), Some(body)).await?;
        let there = fault_of(&answer).kind == "resource_already_exists_exception";
        if answer.status.is_success() || there { Ok(()) } else { Err(of_answer(&answer)) }
    }

    /// Writes progress over the version that is ours; another process may have moved it.
    pub async fn write_progress(
        &mut self,
        flow: &str,
        held: &Held,
        over: Option<Token>,
    ) -> Result<Token, SinkError> {
        let id = escaped(flow);
        let path = match over {
            Some(Token { seq_no, primary_term }) => {
                format!("/{PROGRESS_INDEX}/_doc/{id}?if_seq_no={seq_no}&if_primary_term={primary_term}")
            }
            None => format!("/{PROGRESS_INDEX}/_create/{id}"),
        };
        let body = serde_json::to_value(held).expect("names and numbers are JSON");
        let answer = self.ask(Method::PUT, &path, Some(body)).await?;
        match answer.status {
            status if status.is_success() => serde_json::from_slice(&answer.body).map_err(away),
            StatusCode::CONFLICT => Err(away(format!(
                "the progress of flow `{flow}` is not where we left it: another process wrote it, or took it away"
            ))),
            _ => Err(of_answer(&answer)),
        }
    }

    /// The aliases of those of these indexes that are there.
    pub async fn aliases_of(
        &mut self,
        indexes: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, SinkError> {
        #[derive(Deserialize)]
        struct Told {
            aliases: BTreeMap<String, Value>,
        }
        let mut out = BTreeMap::new();
        for names in pages(indexes) {
            let path = format!("/{names}/_alias?ignore_unavailable=true");
            let answer = self.ask(Method::GET, &path, None).await?;
            match answer.status {
                StatusCode::OK => {
                    let told: BTreeMap<String, Told> = serde_json::from_slice(&answer.body).map_err(away)?;
                    out.extend(
                        told.into_iter().map(|(index, told)| (index, told.aliases.into_keys().collect())),
                    );
                }
                StatusCode::NOT_FOUND => {}
                _ => return Err(of_answer(&answer)),
            }
        }
        Ok(out)
    }

    /// What goes by this name.
    pub async fn find(&mut self, alias: &str, flow: &str) -> Result<Found, SinkError> {
        let makers = self.made_by(alias).await?;
        if makers.contains_key(alias) {
            let reason =
                format!("`{alias}` is an index of its own, and the sink needs an alias of that name");
            return Ok(Found::Foreign(reason));
        }
        let foreign = makers.iter().find(|(_, maker)| *maker != flow);
        Ok(match foreign {
            _ if makers.is_empty() => Found::Nothing,
            Some((index, _)) => Found::Foreign(format!(
                "the alias `{alias}` is on `{index}`, which flow `{flow}` has not made"
            )),
            None => Found::Ours(makers.into_keys().collect()),
        })
    }

    /// The indexes that go by a name, or have it, and the flow that made each; empty for none of ours.
    async fn made_by(&mut self, name: &str) -> Result<BTreeMap<String, String>, SinkError> {
        let path = format!("/{}?filter_path=*.mappings._meta,*.aliases", escaped(name));
        let answer = self.ask(Method::GET, &path, None).await?;
        match answer.status {
            StatusCode::NOT_FOUND => return Ok(BTreeMap::new()),
            StatusCode::OK => {}
            _ => return Err(of_answer(&answer)),
        }
        let told: BTreeMap<String, Value> = serde_json::from_slice(&answer.body).map_err(away)?;
        let maker = |told: &Value| {
            told["mappings"]["_meta"]["tidemill"]["flow"].as_str().unwrap_or_default().to_owned()
        };
        Ok(told.into_iter().map(|(index, told)| (index, maker(&told))).collect())
    }

    /// False when something has its name already.
    pub async fn make_index(&mut self, make: Make<'_>) -> Result<bool, SinkError> {
        let mut aliases = Map::from_iter([(writer(make.index), json!({}))]);
        aliases.extend(make.shown_as.map(|alias| (alias.to_owned(), json!({}))));
        let mut settings = json!({
            "index": {"gc_deletes": GC_DELETES, "mapping": {"total_fields": {"limit": FIELDS_MAX}}},
        });
        for (name, value) in make.settings {
            settings[name] = value.clone();
        }
        let body = json!({
            "aliases": aliases,
            "settings": settings,
            "mappings": {
                // What has no mapping is kept and not indexed.
                "dynamic": false,
                "_meta": {"tidemill": {"flow": make.flow}},
                "properties": make.properties,
            },
        });
        let answer = self.ask(Method::PUT, &format!("/{}", escaped(make.index)), Some(body)).await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            _ if fault_of(&answer).kind == "resource_already_exists_exception" => Ok(false),
            _ => Err(of_answer(&answer)),
        }
    }

    /// Takes fields into the mapping of an index. `Some` is why it does not fit; what was there stays.
    pub async fn put_mapping(
        &mut self,
        index: &str,
        properties: &Map<String, Value>,
    ) -> Result<Option<String>, SinkError> {
        let path = format!("/{}/_mapping", escaped(index));
        let answer = self.ask(Method::PUT, &path, Some(json!({"properties": properties}))).await?;
        match answer.status {
            status if status.is_success() => Ok(None),
            StatusCode::BAD_REQUEST => Ok(Some(fault_of(&answer).told())),
            StatusCode::NOT_FOUND => Err(away(format!("the index `{index}` is gone"))),
            _ => Err(of_answer(&answer)),
        }
    }

    /// All of these, or none.
    pub async fn change_aliases(&mut self, actions: Vec<Value>) -> Result<(), SinkError> {
        self.must(Method::POST, "/_aliases", Some(json!({"actions": actions}))).await.map(|_| ())
    }

    /// Deletes an index, if this flow has made it. One that is gone already is as good.
    pub async fn delete_index(&mut self, index: &str, flow: &str) -> Result<(), SinkError> {
        if !self.made_by(index).await?.values().any(|maker| maker == flow) {
            return Ok(());
        }
        let answer = self.ask(Method::DELETE, &format!("/{}", escaped(index)), None).await?;
        let gone = answer.status == StatusCode::NOT_FOUND;
        if answer.status.is_success() || gone { Ok(()) } else { Err(of_answer(&answer)) }
    }

    /// Shows searchers everything that was written.
    pub async fn refresh(&mut self, index: &str) -> Result<(), SinkError> {
        self.must(Method::POST, &format!("/{}/_refresh", escaped(index)), None).await.map(|_| ())
    }

    /// A search over aliases; the server's own answer.
    pub async fn search(&mut self, aliases: &BTreeSet<&str>, body: Value) -> Result<Value, SinkError> {
        let names = aliases.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(",");
        self.must(Method::POST, &format!("/{names}/_search?ignore_unavailable=true"), Some(body)).await
    }
}

/// A new index.
pub struct Make<'a> {
    pub flow: &'a str,
    pub index: &'a str,
    pub properties: &'a Map<String, Value>,
    pub settings: &'a BTreeMap<String, Value>,
    /// The alias, if searchers see it at once.
    pub shown_as: Option<&'a str>,
}

fn parsed(answer: &Answer) -> Result<Value, SinkError> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| away("the answer is no JSON: is this Elasticsearch or OpenSearch?"))
}

/// Names for paths, separated by commas, in parts that a server takes.
fn pages(names: &BTreeSet<&str>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in names {
        let name = escaped(name);
        match out.last_mut() {
            Some(page) if page.len() + name.len() < NAMES_BYTES_MAX => {
                page.push(',');
                page.push_str(&name);
            }
            _ => out.push(name),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_back_and_an_older_one_too() {
        let filling = Filling { index: "a-000002".into(), tables: BTreeSet::from([3]), begun: 7 };
        let held = Held {
            journal: "ff".into(),
            lsn: 9,
            filling: BTreeMap::from([("a".into(), filling)]),
            ..Held::default()
        };
        let text = serde_json::to_string(&held).unwrap();
        assert_eq!(serde_json::from_str::<Held>(&text).unwrap(), held);
        assert_eq!(serde_json::from_str::<Held>("{\"lsn\": 4}").unwrap().lsn, 4);
    }

    #[test]
    fn many_names_are_asked_for_in_parts() {
        let names: Vec<String> = (0..100).map(|n| format!("shop.orders{n}-000001")).collect();
        let pages = pages(&names.iter().map(String::as_str).collect());
        assert!(pages.len() > 1 && pages.iter().all(|page| page.len() < 2 * NAMES_BYTES_MAX), "{pages:?}");
        assert_eq!(pages.join(",").split(',').count(), 100);
    }
}
