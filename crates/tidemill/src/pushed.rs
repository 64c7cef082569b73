//! What a node tells a server by itself, for places that nobody can scrape: its metrics, or its status.

use crate::gauges;
use crate::http;
use crate::start::Node;
use base::Secret;
use base::units::Span;
use flow::http_client::{self, Client, Endpoint, Patience};
use hyper::{HeaderMap, Method};
use metrics_exporter_prometheus::PrometheusHandle;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

const EVERY_DEFAULT: Duration = Duration::from_secs(15);
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(3600);
const PATIENCE: Patience = Patience { answer_wait: Duration::from_secs(10), answer_bytes_max: 4096 };
/// As much of a refusal is logged.
const REASON_CHARS_MAX: usize = 200;

/// Where the node reports by itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Where each report is posted to: `http://127.0.0.1:9091/metrics/job/tidemill/instance/shop` is a Prometheus Pushgateway's,
    /// `http://127.0.0.1:8428/api/v1/import/prometheus` VictoriaMetrics'. It may hold references.
    #[schemars(with = "String")]
    pub url: Secret,
    /// How often, `1s` to `1h`. A report that was not taken is not sent again: the next one tells what is true then.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = Span(EVERY_DEFAULT).to_string()))]
    pub every: Option<Span>,
    /// What a report is.
    #[serde(default)]
    #[schemars(extend("default" = "prometheus"))]
    pub format: ReportFormat,
    /// Headers of each request, whose values may hold references: `{authorization: "Bearer ${env:TOKEN}"}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("default" = {}))]
    pub headers: BTreeMap<String, Secret>,
}

/// What a report is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportFormat {
    /// The text of `/metrics`.
    #[default]
    Prometheus,
    /// The JSON of `/api/v1/status`.
    Status,
}

/// A reporter whose configuration holds.
pub struct Reporter {
    client: Client,
    path: Secret,
    headers: HeaderMap,
    every: Duration,
    format: ReportFormat,
}

impl Reporter {
    /// `Err` says what is wrong, without any secret, and what to do.
    pub fn read(config: &ReportConfig) -> Result<Self, (String, String)> {
        let hint = "report: {url: \"http://127.0.0.1:9091/metrics/job/tidemill\", every: 15s}";
        let (endpoint, path) =
            Endpoint::parse(&config.url, None).map_err(|message| (message, hint.to_owned()))?;
        let headers = http_client::headers(&config.headers)?;
        let every = config.every.map_or(EVERY_DEFAULT, |every| every.0);
        if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
            return Err(("`every` is not between 1s and 1h".to_owned(), hint.to_owned()));
        }
        Ok(Self { client: Client::new(endpoint, PATIENCE), path, headers, every, format: config.format })
    }

    /// Reports until the node ends, and once more then. What goes wrong is told when it begins and when it is over.
    pub async fn run(mut self, node: Node, metrics: PrometheusHandle, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            let ended = tokio::select! {
                _ = ticks.tick() => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            match self.report(&node, &metrics).await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("reports arrive again");
                    }
                }
                Err(reason) => {
                    metrics::counter!(base::metrics::NODE_REPORTS_LOST).increment(1);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            reason,
                            "a report did not arrive; the next one tells what is true then"
                        );
                    }
                }
            }
            if ended {
                return;
            }
        }
    }

    async fn report(&mut self, node: &Node, metrics: &PrometheusHandle) -> Result<(), String> {
        let (kind, body) = match self.format {
            ReportFormat::Prometheus => {
                gauges::look(node);
                ("text/plain; version=0.0.4", metrics.render())
            }
            ReportFormat::Status => ("application/json", http::status(node).to_string()),
        };
        let (path, headers) = (self.path.expose(), self.headers.clone());
        let answer = self.client.call(Method::POST, path, headers, Some((kind, body.into()))).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(REASON_CHARS_MAX).collect();
        Err(format!("the server answered {}: {}", answer.status, said.trim()))
    }
}
