//! The running node, as the other commands reach it.

use crate::failure::Failure;
use crate::project::NodeConfig;
use serde_json::Value;

/// Speaks to the node at the `listen.http` of `tidemill.yaml`.
pub struct NodeClient {
    http: reqwest::Client,
    base: String,
}

impl NodeClient {
    pub fn new(node: &NodeConfig) -> Self {
        Self::at(node.listen.http)
    }

    /// The node that listens there.
    pub fn at(address: std::net::SocketAddr) -> Self {
        Self { http: reqwest::Client::new(), base: format!("http://{address}") }
    }

    fn away(&self, error: &reqwest::Error) -> Failure {
        let message = if error.is_connect() {
            format!("no node answers at {}", self.base)
        } else {
            format!("failed to reach the node at {}: {}", self.base, base::error::chain(error))
        };
        Failure::new(3, message).hint("start it with `tidemill up`")
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let response =
            self.http.get(format!("{}{path}", self.base)).send().await.map_err(|e| self.away(&e))?;
        self.answer(response).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let response = self.http.post(url).json(body).send().await.map_err(|e| self.away(&e))?;
        self.answer(response).await
    }

    /// A response whose body is read as it comes.
    pub async fn stream(&self, path: &str) -> Result<reqwest::Response, Failure> {
        let response =
            self.http.get(format!("{}{path}", self.base)).send().await.map_err(|e| self.away(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.answer(response).await.err().unwrap_or_else(|| Failure::new(1, "the node refused")))
    }

    async fn answer(&self, response: reqwest::Response) -> Result<Value, Failure> {
        let status = response.status();
        let body: Value = response.json().await.map_err(|e| self.away(&e))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        // What the command named is wrong: usage. Everything else is a failure.
        let exit = if matches!(text("code").as_str(), "invalid" | "not_found") { 2 } else { 1 };
        let failure = Failure::new(exit, text("detail"));
        Err(if text("hint").is_empty() { failure } else { failure.hint(text("hint")) })
    }
}
