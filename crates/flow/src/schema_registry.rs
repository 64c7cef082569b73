//! A schema registry, by Confluent's REST interface: numbers schemas, and knows them by their numbers.
//!
//! What it said is kept: a number's schema never changes, so that a registry that is away delays only what is new.

use crate::http_client::{Client, ClientError, Endpoint, Patience, escaped};
use crate::tls;
use base::Secret;
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const PATIENCE: Patience = Patience { answer_wait: Duration::from_secs(20), answer_bytes_max: 8 << 20 };
/// Answers that are kept, of each kind; a flow has a few a table. When there are more, they are asked for again.
const KEPT_MAX: usize = 4096;
/// Characters of what the registry says that an error repeats.
const TOLD_CHARS_MAX: usize = 300;
/// Answers an empty or short list everywhere, and needs to be let in.
const PROBE: &str = "/schemas/types";

/// Why there is no answer to go on with.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It is away, or busy: to be asked again.
    #[error("the schema registry: {0}")]
    Away(String),
    /// Someone must act.
    #[error("the schema registry: {message}")]
    Refused { message: String, hint: String },
}

pub struct Registry {
    client: Client,
    /// What stands before each path of the interface.
    base: Secret,
    /// By subject and schema.
    ids: HashMap<(String, String), u32>,
    schemas: HashMap<u32, Arc<str>>,
}

impl Registry {
    /// From `http://[user:password@]host[:port][/path]`; `files` are for
    /// `https`. `Err` says what is wrong, and never holds the password.
    pub fn new(url: &Secret, files: &tls::Files) -> Result<Self, String> {
        let (endpoint, path) = Endpoint::parse_with(url, None, files)?;
        if path.expose().contains('?') {
            return Err("the url of the schema registry has a query".to_owned());
        }
        let base = Secret::new(path.expose().trim_end_matches('/').to_owned());
        let client = Client::new(endpoint, PATIENCE);
        Ok(Self { client, base, ids: HashMap::new(), schemas: HashMap::new() })
    }

    /// Asks whether it answers and lets us in.
    pub async fn probe(&mut self) -> Result<(), RegistryError> {
        let (status, told) = self.call(Method::GET, PROBE, None).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(refused("it cannot be asked", status, &told)) }
    }

    /// The id of a schema under a subject; it is registered when it is new there.
    pub async fn id_of(&mut self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let place = (subject.to_owned(), schema.to_owned());
        if let Some(id) = self.ids.get(&place) {
            return Ok(*id);
        }
        let path = format!("/subjects/{}/versions", escaped(subject));
        let (status, told) = self.call(Method::POST, &path, Some(json!({ "schema": schema }))).await?;
        let id = told["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        match (status, id) {
            (StatusCode::OK, Some(id)) => {
                if self.ids.len() >= KEPT_MAX {
                    self.ids.clear();
                }
                self.ids.insert(place, id);
                Ok(id)
            }
            (StatusCode::CONFLICT, _) => Err(RegistryError::Refused {
                message: format!("it takes no such schema under `{subject}`: {}", message(&told)),
                hint: format!(
                    "a consumer that reads with the one schema could not read what was written with the other. Where that is \
                     all right, set the subject's compatibility: PUT /config/{subject} {{\"compatibility\": \"NONE\"}}; or \
                     give the flow another `topic`"
                ),
            }),
            _ => Err(refused(&format!("no schema could be registered under `{subject}`"), status, &told)),
        }
    }

    /// The schema with an id; `None` when there is none.
    pub async fn schema_of(&mut self, id: u32) -> Result<Option<Arc<str>>, RegistryError> {
        if let Some(schema) = self.schemas.get(&id) {
            return Ok(Some(Arc::clone(schema)));
        }
        let (status, told) = self.call(Method::GET, &format!("/schemas/ids/{id}"), None).await?;
        match (status, told["schema"].as_str(), told["schemaType"].as_str().unwrap_or("AVRO")) {
            (StatusCode::OK, Some(schema), "AVRO") => {
                if self.schemas.len() >= KEPT_MAX {
                    self.schemas.clear();
                }
                let schema: Arc<str> = schema.into();
                self.schemas.insert(id, Arc::clone(&schema));
                Ok(Some(schema))
            }
            (StatusCode::OK, ..) => Ok(None),
            // Another 404 is a page that is not there: the url is of something else.
            (StatusCode::NOT_FOUND, ..) if told["error_code"] == 40403 => Ok(None),
            _ => Err(refused(&format!("the schema {id} could not be read"), status, &told)),
        }
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), RegistryError> {
        let body = body.map(|body| (CONTENT_TYPE, Bytes::from(body.to_string())));
        let path = format!("{}{path}", self.base.expose());
        let answer = self.client.call(method, &path, HeaderMap::new(), body).await;
        let answer = answer.map_err(|error| match error {
            ClientError::Away(message) => RegistryError::Away(message),
            ClientError::Misfit(message) => RegistryError::Refused {
                message,
                hint: "mend `schema_registry` of the sink or source, or the registry's certificate".into(),
            },
        })?;
        let told = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let status = answer.status;
        if status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        {
            return Err(RegistryError::Away(format!("{status}: {}", message(&told))));
        }
        Ok((status, told))
    }
}

/// What the registry says of an error, shortened.
fn message(told: &Value) -> String {
    let text = told["message"].as_str().unwrap_or("it says nothing more");
    text.chars().take(TOLD_CHARS_MAX).collect()
}

fn refused(what: &str, status: StatusCode, told: &Value) -> RegistryError {
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "check the user and the password in `schema_registry`, and that the user may register schemas under the flow's \
             topics: http://user:${env:REGISTRY_PASSWORD}@host:8081"
        }
        StatusCode::NOT_FOUND => {
            "`schema_registry` is the url of Confluent's interface: for Apicurio it ends with /apis/ccompat/v7"
        }
        _ => "see the registry's log",
    };
    RegistryError::Refused { message: format!("{what} ({status}): {}", message(told)), hint: hint.to_owned() }
}
