//! What is wrong with the files of `flows/` that carry every change.

use super::{Broken, Project, Told, below, known};
use base::Span;
use flow::config::{DdlPolicy, FlowConfig, KafkaCodec, RedisType, SinkKind, TransformStep};
use flow::formats::Format;
use flow::patterns::Patterns;
use flow::transform::Transform;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

impl Project {
    pub(super) fn check_flows(
        &mut self,
        broken: &Broken,
        collected: &BTreeMap<String, collect::SourceConfig>,
        told: &mut Told<'_>,
    ) {
        let dir = self.dir.clone();
        let mut add = |path: String, message: String, hint: String| told.add(path, message, hint);
        let counted_apart = counted_apart(&self.flows);
        let kept = self.node.journal.retention.map_or(crate::retention::AGE_DEFAULT, |span| span.0);
        for (name, flow) in &mut self.flows {
            let path = format!("flows/{name}.yaml");
            if let Some(other) = counted_apart.get(name) {
                let message =
                    format!("`transactions` names the topic of the flow `{other}` too, which counts apart");
                add(path.clone(), message, "give each flow a topic of its own".into());
            }
            let outside = place_lookups(&dir, flow);
            let readable = outside.is_empty();
            for (index, message, hint) in outside {
                add(path.clone(), format!("transform[{index}].lookup: {message}"), hint);
            }
            if collected.contains_key(&flow.from) {
                let message =
                    format!("the source `{}` is of a kind that is collected, and not captured", flow.from);
                add(path.clone(), message, "set `mode` to full, cursor or key_diff".into());
            } else if !self.sources.contains_key(&flow.from) && !broken.sources.contains(&flow.from) {
                let names: Vec<_> = self.sources.keys().map(String::as_str).collect();
                add(path.clone(), format!("there is no source `{}`", flow.from), known(&names));
            }
            if !self.sinks.contains_key(&flow.to) && !broken.sinks.contains(&flow.to) {
                let names: Vec<_> = self.sinks.keys().map(String::as_str).collect();
                add(path.clone(), format!("there is no sink `{}`", flow.to), known(&names));
            }
            if let Err(error) = Patterns::new(&flow.tables, &[]) {
                add(path.clone(), error.to_string(), "for example: tables: [\"shop.orders\"]".into());
            }
            if let Some(sink) = self.sinks.get(&flow.to) {
                if sink.kind == SinkKind::Redis
                    && let Err((message, hint)) = flow::sinks::redis::plan::Options::compile(&flow.options)
                        .and_then(|options| {
                            sink.url.as_ref().map_or(Ok(()), |url| options.check_cluster(url))
                        })
                {
                    add(path.clone(), message, hint);
                }
                if sink.kind == SinkKind::Elasticsearch
                    && let Err((message, hint)) =
                        flow::sinks::elasticsearch::plan::Options::compile(&flow.options)
                {
                    add(path.clone(), message, hint);
                }
                for option in idle_options(flow, sink.kind) {
                    let message = format!("`{option}` means nothing to the sink `{}`", flow.to);
                    add(
                        path.clone(),
                        message,
                        "remove it, or see docs/reference/config.md for whose it is".into(),
                    );
                }
            }
            if let Some(reason) = self.sinks.get(&flow.to).and_then(|sink| format_refusal(flow, sink.kind)) {
                let message = format!(
                    "`{}` is not supported by the sink `{}`: {reason}",
                    flow.options.format.name(),
                    flow.to
                );
                add(path.clone(), message, "use `format: json` or `format: cloudevents`".into());
            }
            if flow.options.format == Format::Avro
                && let Some(sink) = self.sinks.get(&flow.to)
                && sink.kind == SinkKind::Kafka
            {
                if sink.schema_registry.is_none() {
                    let message = format!(
                        "`format: avro` needs a schema registry, and the sink `{}` has none",
                        flow.to
                    );
                    let hint = format!("add `schema_registry: http://host:8081` to sinks/{}.yaml", flow.to);
                    add(path.clone(), message, hint);
                }
                if flow.options.key.is_some() {
                    let message =
                        "`key` is not supported with `format: avro`: the key is a record of the table's key";
                    add(path.clone(), message.into(), "remove `key`, or choose another format".into());
                }
                if flow.options.transactions.is_some() {
                    let message =
                        "`transactions` is not supported with `format: avro`: what it tells is JSON";
                    add(path.clone(), message.into(), "choose another format, or remove it".into());
                }
            }
            if flow.options.mark && (flow.options.ddl != DdlPolicy::Hold || flow.options.history) {
                let message =
                    "`mark` needs `ddl: hold`, and no `history`: a statement carries no mark".to_owned();
                let hint = "add `ddl: hold`, and change tables on both servers by hand".to_owned();
                add(path.clone(), message, hint);
            }
            if let Some(reason) = self.sinks.get(&flow.to).and_then(|sink| origin_refusal(flow, sink.kind)) {
                let hint = "merge tables on MySQL or TiDB, with `ddl: hold`: make each change of a table there by hand";
                add(path.clone(), format!("`origin` cannot be used here: {reason}"), hint.to_owned());
            }
            if let Some(reason) = self.sinks.get(&flow.to).and_then(|sink| split_refusal(flow, sink.kind)) {
                let message = format!("`split` is not supported by the sink `{}`: {reason}", flow.to);
                add(path.clone(), message, "use a SQL sink, kafka, stdout, or a redis sink of rows".into());
            }
            for (message, hint) in flow::nest::check(flow) {
                add(path.clone(), message, hint);
            }
            for (index, step) in flow.transform.iter().enumerate() {
                let TransformStep::Dedup(step) = step else { continue };
                if step.window.0 > kept {
                    let message = format!(
                        "transform[{index}].dedup: its `window` is longer than the journal keeps changes: {}",
                        Span(kept)
                    );
                    add(
                        path.clone(),
                        message,
                        "raise `retention` in tidemill.yaml, or choose a shorter one".into(),
                    );
                }
            }
            for error in Transform::compile(flow).err().filter(|_| readable).unwrap_or_default() {
                let hint = error.hint.clone();
                add(path.clone(), error.to_string(), hint);
            }
        }
    }
}

/// Options of a flow that its kind of sink does not know: a person who sets them expects something.
fn idle_options(flow: &FlowConfig, kind: SinkKind) -> Vec<&'static str> {
    let options = &flow.options;
    let is_sql = matches!(kind, SinkKind::Mysql | SinkKind::Tidb | SinkKind::Sqlite);
    let is_kafka = kind == SinkKind::Kafka;
    let is_redis = kind == SinkKind::Redis;
    let is_search = kind == SinkKind::Elasticsearch;
    let is_log = matches!(options.r#type, Some(RedisType::Stream | RedisType::Pubsub));
    let given = [
        ("ddl", options.ddl != DdlPolicy::default(), is_sql),
        ("history", options.history, is_sql),
        ("subject", options.subject.is_some(), kind == SinkKind::Nats),
        ("stream", options.stream.is_some(), kind == SinkKind::Nats && !options.core),
        ("core", options.core, kind == SinkKind::Nats),
        ("notify", options.notify, kind == SinkKind::Http),
        ("rotate_bytes", options.rotate_bytes.is_some(), kind == SinkKind::Files),
        (
            "format",
            options.format != Format::default(),
            !options.notify && !is_sql && !is_search && (!is_redis || is_log),
        ),
        ("type", options.r#type.is_some(), is_redis),
        ("member", options.member.is_some(), is_redis),
        ("score", options.score.is_some(), is_redis),
        ("ttl", options.ttl.is_some(), is_redis),
        ("maxlen", options.maxlen.is_some(), is_redis),
        (
            "schemas",
            options.schemas,
            matches!(kind, SinkKind::Stdout | SinkKind::Kafka | SinkKind::Http)
                && options.format == Format::Debezium,
        ),
        ("topic", options.topic.is_some(), is_kafka),
        ("key", options.key.is_some(), is_kafka || is_redis),
        ("partitions", options.partitions.is_some(), is_kafka),
        ("replication", options.replication.is_some(), is_kafka || kind == SinkKind::Nats && !options.core),
        ("topic_config", !options.topic_config.is_empty(), is_kafka),
        ("tombstones", options.tombstones, is_kafka),
        ("exactly_once", options.exactly_once, is_kafka),
        ("transactions", options.transactions.is_some(), is_kafka),
        ("index", options.index.is_some(), is_search),
        ("id", options.id.is_some(), is_search),
        ("routing", options.routing.is_some(), is_search),
        ("mappings", !options.mappings.is_empty(), is_search),
        ("nest", !options.nest.is_empty(), is_search),
        ("lanes", options.lanes.is_some(), matches!(kind, SinkKind::Mysql | SinkKind::Tidb)),
        ("mark", options.mark, matches!(kind, SinkKind::Mysql | SinkKind::Tidb)),
        ("index_settings", !options.index_settings.is_empty(), is_search),
        ("compression", options.compression != KafkaCodec::default(), is_kafka),
    ];
    given.into_iter().filter(|(_, given, known)| *given && !known).map(|(name, ..)| name).collect()
}

/// Flows whose topic of `transactions` is another flow's too, and that other one.
fn counted_apart(flows: &BTreeMap<String, FlowConfig>) -> BTreeMap<String, String> {
    let mut first: BTreeMap<(&str, String), &str> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for (name, flow) in flows {
        let Some(topic) = &flow.options.transactions else { continue };
        let other = *first.entry((&flow.to, topic.replace("{source}", &flow.from))).or_insert(name);
        if other != name {
            out.insert(name.clone(), other.to_owned());
        }
    }
    out
}

/// Why a kind of sink cannot keep its promise with a flow's format.
fn format_refusal(flow: &FlowConfig, kind: SinkKind) -> Option<&'static str> {
    let format = flow.options.format;
    match kind {
        SinkKind::Kafka => None,
        _ if format == Format::Avro => Some("it is for topics of Kafka, whose schemas are in a registry"),
        SinkKind::Files if !format.tells_lsn() => {
            Some("it finds its progress in its last line, and this format does not name the lsn")
        }
        SinkKind::Redis if format == Format::S3Event => {
            Some("an entry has the op and key of one change, and this format tells of objects")
        }
        SinkKind::Nats | SinkKind::Redis if format == Format::Debezium => {
            Some("it needs one message a change, and in this format a delete is two")
        }
        _ => None,
    }
}

/// Why a flow cannot merge tables into one.
fn origin_refusal(flow: &FlowConfig, kind: SinkKind) -> Option<&'static str> {
    if !flow.transform.iter().any(|step| matches!(step, TransformStep::Origin(_))) {
        return None;
    }
    if !matches!(kind, SinkKind::Mysql | SinkKind::Tidb) {
        return Some("this sink cannot empty a part of a table");
    }
    if flow.options.history {
        return Some("a history keeps changes, which have names of their own");
    }
    (flow.options.ddl != DdlPolicy::Hold)
        .then_some("a statement on one of the tables would change all of them, so that it needs `ddl: hold`")
}

/// Why a kind of sink cannot keep apart the rows that one change became.
fn split_refusal(flow: &FlowConfig, kind: SinkKind) -> Option<&'static str> {
    let is_log = matches!(flow.options.r#type, Some(RedisType::Stream | RedisType::Pubsub));
    match kind {
        _ if !flow.transform.iter().any(|step| matches!(step, TransformStep::Split(_))) => None,
        SinkKind::Nats | SinkKind::Files => {
            Some("it finds its progress in its last message, which would be a part of a change")
        }
        SinkKind::Redis if is_log => Some("an entry's id is that of its change"),
        _ if flow.options.history => Some("a history has one row a change"),
        _ => None,
    }
}

/// Puts the project's folder before the files that `lookup` steps read. Answers those that lie outside of it, by step, with
/// a hint; they are left as they are, and read by nobody, since the project has a mistake.
fn place_lookups(dir: &Path, flow: &mut FlowConfig) -> Vec<(usize, String, String)> {
    let mut outside = Vec::new();
    for (index, step) in flow.transform.iter_mut().enumerate() {
        let TransformStep::Lookup(step) = step else { continue };
        let Some(file) = step.file.clone() else { continue };
        let plain = file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let whole = below(dir, &file);
        // A link may lead out as well.
        let real = |path: &Path| fs::canonicalize(path).ok();
        let escapes = real(&whole).zip(real(dir)).is_some_and(|(file, dir)| !file.starts_with(dir));
        if plain && !escapes {
            step.file = Some(whole);
            continue;
        }
        let message = format!("the file `{}` is outside of the project's folder", file.display());
        outside.push((index, message, "put it into the project: file: lookups/status.csv".to_owned()));
        step.file = Some(PathBuf::new());
    }
    outside
}
