//! One folder per outside system that we write.

pub mod elasticsearch;
pub mod files;
pub mod http;
pub mod json;
pub mod kafka;
pub mod mysql;
pub mod nats;
pub mod redis;
pub mod sqlite;
pub mod stdout;
pub(crate) mod template;

use crate::config::{FlowConfig, SinkConfig, SinkKind};
use crate::deliver::sink::{Sink, SinkError};

/// Makes the sink of one flow; nothing is connected yet.
pub fn build(
    flow_name: &str,
    source: &str,
    sink_name: &str,
    sink: &SinkConfig,
    flow: &FlowConfig,
) -> Result<Box<dyn Sink>, SinkError> {
    let missing = |what: &str| SinkError::Blocked {
        message: format!("sink `{sink_name}` has no `{what}`"),
        hint: format!("add `{what}:` to sinks/{sink_name}.yaml"),
    };
    Ok(match sink.kind {
        SinkKind::Mysql | SinkKind::Tidb => {
            let url = sink.url.as_ref().ok_or_else(|| missing("url"))?;
            Box::new(mysql::MySqlSink::new(flow_name, url, sink.kind == SinkKind::Tidb, flow)?)
        }
        SinkKind::Sqlite => {
            let path = sink.path.as_ref().ok_or_else(|| missing("path"))?;
            Box::new(sqlite::SqliteSink::new(flow_name, path, flow))
        }
        SinkKind::Kafka => {
            let url = sink.url.as_ref().ok_or_else(|| missing("url"))?;
            let (schema_registry, files) = (sink.schema_registry.as_ref(), &sink.tls_files());
            let target = kafka::Target { url, schema_registry, files };
            Box::new(kafka::KafkaSink::new(flow_name, source, target, flow)?)
        }
        SinkKind::Nats => {
            sink.url.as_ref().ok_or_else(|| missing("url"))?;
            if flow.options.core {
                Box::new(nats::CoreSink::new(source, sink, flow)?)
            } else {
                Box::new(nats::NatsSink::new(flow_name, source, sink, flow)?)
            }
        }
        SinkKind::Files => {
            let path = sink.path.as_ref().ok_or_else(|| missing("path"))?;
            Box::new(files::FilesSink::new(flow_name, source, path, flow))
        }
        SinkKind::Redis => {
            let url = sink.url.as_ref().ok_or_else(|| missing("url"))?;
            Box::new(redis::RedisSink::new(flow_name, source, url, flow)?)
        }
        SinkKind::Elasticsearch => {
            let url = sink.url.as_ref().ok_or_else(|| missing("url"))?;
            Box::new(elasticsearch::ElasticsearchSink::new(flow_name, source, url, flow)?)
        }
        SinkKind::Http => Box::new(http::HttpSink::new(flow_name, sink_name, source, sink, flow)?),
        SinkKind::Stdout => Box::new(stdout::StdoutSink::new(source, flow)),
    })
}

/// Rows of one write unless the flow's options say otherwise.
pub const fn batch_rows_default(kind: SinkKind, exactly_once: bool) -> u32 {
    match kind {
        SinkKind::Kafka if exactly_once => kafka::TRANSACTION_ROWS_DEFAULT,
        SinkKind::Kafka => kafka::BATCH_ROWS_DEFAULT,
        SinkKind::Mysql | SinkKind::Tidb => mysql::BATCH_ROWS_DEFAULT,
        SinkKind::Elasticsearch => elasticsearch::BATCH_ROWS_DEFAULT,
        SinkKind::Http => http::BATCH_ROWS_DEFAULT,
        _ => crate::deliver::producer::BATCH_ROWS_DEFAULT,
    }
}
