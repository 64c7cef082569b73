//! Debezium's MySQL and MariaDB connectors → a source, a Kafka sink and a flow that writes what they write.

use super::{Plan, mysql_url, regex, slug, tables};
use crate::failure::Failure;
use serde_json::Value;
use std::collections::BTreeMap;

/// Needs nothing here, or has no counterpart that anyone would miss: what it was for, by name or by the beginning of it.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    (
        "database.server.id",
        "left away, so that both can run side by side: ours is made of the source's name; see `options: {server_id}`",
    ),
    ("database.server.name", "the name of old versions for topic.prefix"),
    ("heartbeat.", "not needed: an idle source moves its position in the journal by itself"),
    ("schema.history.internal", "not needed: the journal holds the table definitions"),
    ("database.history", "not needed: the journal holds the table definitions"),
    ("include.schema.changes", "there is no topic of schema changes"),
    ("provide.transaction.metadata", "there is no topic of transactions"),
    ("signal.", "there are no signal tables: `tidemill flow resnapshot` reads tables anew"),
    ("incremental.snapshot.", "every snapshot is incremental and without locks"),
    ("snapshot.locking.mode", "not needed: snapshots take no locks"),
    ("snapshot.fetch.size", "see `options: {snapshot_chunk_rows}` of the source"),
    ("snapshot.", "snapshots have no such setting"),
    ("tasks.max", "a source has one reader"),
    ("max.batch.size", "see `options: {batch_rows}` of the flow"),
    ("max.queue.size", "queues have fixed bounds"),
    ("poll.interval.ms", "changes are taken as they come"),
    ("decimal.handling.mode", "the `debezium` format has `precise`"),
    ("time.precision.mode", "the `debezium` format has `adaptive_time_microseconds`"),
    ("bigint.unsigned.handling.mode", "the `debezium` format has `long`"),
    ("binary.handling.mode", "the `debezium` format has `bytes`"),
    (
        "event.processing.failure.handling.mode",
        "a change that cannot be read stops the source; one that a sink refuses is parked",
    ),
    ("inconsistent.schema.handling.mode", "a table that cannot be read is quarantined, and the others go on"),
    ("errors.", "what a sink refuses is parked: `tidemill flow dead-letters`"),
    ("gtid.source.", "all transactions of the server are taken"),
    ("skipped.operations", "no operation is left out; a consumer can by `op`"),
    ("database.ssl.", "see `options: {tls, tls_ca}` of the source"),
    ("topic.creation.", "see `options: {partitions, replication, topic_config}` of the flow"),
    ("exactly.once", "see `options: {exactly_once: true}` of the flow"),
    ("producer.override.", "the producer is ours: see `options: {compression, batch_rows}` of the flow"),
];

/// Properties that other ones speak for, or that say what is so anyway.
const TAKEN: &[&str] = &[
    "name",
    "connector.class",
    "database.hostname",
    "database.port",
    "database.user",
    "database.password",
    "topic.prefix",
    "table.include.list",
    "table.exclude.list",
    "table.whitelist",
    "table.blacklist",
    "database.include.list",
    "database.exclude.list",
    "snapshot.mode",
    "snapshot.max.threads",
    "database.ssl.mode",
    "key.converter",
    "value.converter",
    "key.converter.schemas.enable",
    "value.converter.schemas.enable",
    "tombstones.on.delete",
    "transforms",
    "message.key.columns",
    "column.include.list",
    "column.exclude.list",
    "tasks.max",
    "schema.history.internal.kafka.bootstrap.servers",
    "database.history.kafka.bootstrap.servers",
];

pub fn plan(text: &str) -> Result<Plan, Failure> {
    let wrong = |what: &str| Failure::new(2, format!("failed to import: {what}"));
    let json: Value = serde_json::from_str(text).map_err(|e| {
        wrong(&format!("the file is not JSON: {e}")).hint("name the JSON that Kafka Connect takes")
    })?;
    let config = json
        .get("config")
        .unwrap_or(&json)
        .as_object()
        .ok_or_else(|| wrong("there is no object of settings"))?;
    let mut config: BTreeMap<String, String> = config
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    if let Some(name) = json.get("name").and_then(Value::as_str) {
        config.entry("name".into()).or_insert_with(|| name.to_owned());
    }
    let get = |key: &str| config.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let class = get("connector.class").unwrap_or_default();
    if !matches!(class.rsplit('.').next(), Some("MySqlConnector" | "MariaDbConnector")) {
        return Err(wrong(&format!("`connector.class` is `{class}`"))
            .hint("connectors for MySQL and MariaDB can be imported"));
    }
    let host = get("database.hostname").ok_or_else(|| wrong("`database.hostname` is missing"))?;
    let prefix = get("topic.prefix").or_else(|| get("database.server.name")).unwrap_or("tidemill");
    let mut plan = Plan { name: slug(get("name").unwrap_or(prefix)), ..Plan::default() };
    source(&mut plan, &get, host);
    sink(&mut plan, &get);
    flow(&mut plan, &get, prefix);
    leftovers(&mut plan, &config);
    Ok(plan)
}

type Get<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

fn source(plan: &mut Plan, get: &Get<'_>, host: &str) {
    let port = get("database.port").unwrap_or("3306");
    let user = get("database.user").unwrap_or("cdc");
    let user = if user.contains("${") {
        plan.note(
            "database.user",
            "it is a reference of Kafka Connect: write the name into the source's url",
        );
        "cdc"
    } else {
        user
    };
    plan.source.put("kind", "mysql");
    let url = mysql_url(&plan.name, user, host, port);
    plan.source.put_text("url", &url);
    plan.note("database.password", format!("a secret: export it as {}_PASSWORD", plan.name.to_uppercase()));
    let mut include = Vec::new();
    let listed = get("table.include.list").or_else(|| get("table.whitelist"));
    if let Some(list) = listed {
        include = tables(plan, "table.include.list", list, true);
    } else if let Some(list) = get("database.include.list") {
        include = tables(plan, "database.include.list", &databases(list), true);
    }
    if include.is_empty() {
        include.push("*.*".to_owned());
    }
    if let (Some(_), Some(list)) = (listed, get("database.include.list")) {
        plan.note("database.include.list", format!("`{list}`: the tables name their databases"));
    }
    plan.source.put_list("tables", &include);
    let mut exclude = Vec::new();
    if let Some(list) = get("database.exclude.list") {
        exclude.extend(tables(plan, "database.exclude.list", &databases(list), false));
    }
    if let Some(list) = get("table.exclude.list").or_else(|| get("table.blacklist")) {
        exclude.extend(tables(plan, "table.exclude.list", list, false));
    }
    plan.source.put_list("exclude", &exclude);
    snapshot(plan, get("snapshot.mode").unwrap_or("initial"));
    let mut options = Vec::new();
    if let Some(threads) = get("snapshot.max.threads").and_then(|threads| threads.parse::<u32>().ok()) {
        options.push(format!("snapshot_parallel: {}", threads.clamp(1, 16)));
    }
    let tls = match get("database.ssl.mode") {
        Some("disabled") => Some("off"),
        Some("preferred") => Some("prefer"),
        Some("required") => Some("require"),
        Some("verify_ca" | "verify_identity") => Some("verify"),
        Some(other) => {
            plan.note("database.ssl.mode", format!("`{other}` is not known here"));
            None
        }
        None => None,
    };
    options.extend(tls.map(|tls| format!("tls: {tls}")));
    if !options.is_empty() {
        plan.source.put("options", &format!("{{{}}}", options.join(", ")));
    }
    plan.note(
        "offsets",
        "a source does not start at another tool's position: run both side by side, compare, then stop the old one \
         (docs/guides/coming-from.md)",
    );
}

/// Expressions of databases as those of all their tables.
fn databases(list: &str) -> String {
    regex::split_list(list).iter().map(|name| format!("({name})\\..*")).collect::<Vec<_>>().join(",")
}

fn snapshot(plan: &mut Plan, mode: &str) {
    let (ours, on_gap) = match mode {
        "initial" => ("initial", None),
        "when_needed" => ("initial", Some("resnapshot")),
        "no_data" | "never" | "schema_only" => ("never", None),
        other => {
            plan.note("snapshot.mode", format!("`{other}` has no counterpart: `initial` is taken"));
            ("initial", None)
        }
    };
    plan.source.put("snapshot", ours);
    if let Some(on_gap) = on_gap {
        plan.source.put("on_gap", on_gap);
    }
}

fn sink(plan: &mut Plan, get: &Get<'_>) {
    plan.sink.put("kind", "kafka");
    let servers = [
        "bootstrap.servers",
        "schema.history.internal.kafka.bootstrap.servers",
        "database.history.kafka.bootstrap.servers",
    ]
    .into_iter()
    .find_map(get);
    if servers.is_none() {
        plan.note(
            "bootstrap.servers",
            "it is the worker's setting and not in this file: write it into the sink's url",
        );
    }
    let servers: Vec<&str> = servers.unwrap_or("127.0.0.1:9092").split(',').map(str::trim).collect();
    plan.sink.put_text("url", &format!("kafka://{}", servers.join(",")));
}

fn flow(plan: &mut Plan, get: &Get<'_>, prefix: &str) {
    plan.flow.put_text("from", &plan.name.clone());
    plan.flow.put_text("to", &plan.name.clone());
    let transforms: Vec<&str> = get("transforms")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let mut topic = format!("{prefix}.{{db}}.{{table}}");
    let mut format = "debezium";
    let mut tombstones = None;
    for name in transforms {
        let setting = |key: &str| get(&format!("transforms.{name}.{key}"));
        match setting("type").and_then(|class| class.rsplit('.').next()) {
            Some("RegexRouter" | "ByLogicalTableRouter") => {
                let expression = setting("regex").or_else(|| setting("topic.regex")).unwrap_or_default();
                let replacement =
                    setting("replacement").or_else(|| setting("topic.replacement")).unwrap_or_default();
                match routed(expression, replacement, prefix) {
                    Some(routed) => topic = routed,
                    None => plan.note(
                        &format!("transforms.{name}"),
                        format!("`{expression}` → `{replacement}` cannot be said as a topic of {{db}} and {{table}}"),
                    ),
                }
            }
            Some("ExtractNewRecordState") => {
                format = "json";
                let drops = setting("drop.tombstones") == Some("true")
                    || setting("delete.tombstone.handling.mode").is_some_and(|mode| mode != "tombstone");
                tombstones = Some(!drops);
                plan.note(
                    &format!("transforms.{name}"),
                    "the row is the member `after` of the `json` format, beside op, key and lsn: consumers must look there",
                );
            }
            class => plan.note(
                &format!("transforms.{name}"),
                format!("`{}` has no counterpart: see `transform` of the flow", class.unwrap_or("?")),
            ),
        }
    }
    plan.flow.0.push_str("options:\n");
    let mut put = |key: &str, value: &str| plan.flow.put(&format!("  {key}"), value);
    put("topic", &super::quoted(&topic));
    put("format", format);
    if format == "debezium"
        && get("value.converter.schemas.enable") != Some("false")
        && is_json(get("value.converter"))
    {
        put("schemas", "true");
    }
    if tombstones == Some(true) {
        put("tombstones", "true");
    }
    keys(plan, get);
    columns(plan, get);
    if format == "debezium" && get("tombstones.on.delete") == Some("false") {
        plan.note("tombstones.on.delete", "the `debezium` format has a tombstone behind every delete");
    }
    for converter in ["key.converter", "value.converter"] {
        if let Some(class) = get(converter).filter(|class| !is_json(Some(class))) {
            plan.note(converter, format!("`{class}`: messages are JSON"));
        }
    }
}

fn is_json(converter: Option<&str>) -> bool {
    converter.is_none_or(|class| class.ends_with(".JsonConverter"))
}

/// The topic template that a router makes of `prefix.db.table`: groups that stand for one of the three each, or the last for
/// the two last.
fn routed(expression: &str, replacement: &str, prefix: &str) -> Option<String> {
    let expression = expression.trim_start_matches('^').trim_end_matches('$');
    let parts: Vec<&str> = expression.split("\\.").collect();
    let names: Vec<String> = match parts.len() {
        3 => vec![prefix.to_owned(), "{db}".into(), "{table}".into()],
        2 => vec![prefix.to_owned(), "{db}.{table}".into()],
        1 => vec![format!("{prefix}.{{db}}.{{table}}")],
        _ => return None,
    };
    let mut groups = Vec::new();
    for (part, name) in parts.iter().zip(names) {
        match part.strip_prefix('(').and_then(|part| part.strip_suffix(')')) {
            Some("[^.]+" | "[^.]*" | ".*" | ".+" | "\\w+") => groups.push(name),
            Some(_) => return None,
            None if *part == prefix || matches!(*part, "[^.]+" | ".*" | ".+") => {}
            None => return None,
        }
    }
    let mut out = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let digit = after.chars().next().and_then(|c| c.to_digit(10))?;
        out.push_str(groups.get((digit as usize).checked_sub(1)?)?);
        rest = &after[1..];
    }
    out.push_str(rest);
    Some(out)
}

/// One list of key columns for all tables is the flow's; others need flows of their own.
fn keys(plan: &mut Plan, get: &Get<'_>) {
    let Some(list) = get("message.key.columns") else { return };
    let entries: Vec<&str> = list.split(';').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    let all = |tables: &str| {
        matches!(tables, "(.*).(.*)" | ".*" | "(.*)") || get("table.include.list") == Some(tables)
    };
    if let [entry] = entries.as_slice()
        && let Some((tables, columns)) = entry.rsplit_once(':')
        && all(tables)
    {
        let columns: Vec<String> =
            columns.split(',').map(|column| format!("{{{}}}", column.trim())).collect();
        plan.flow.put_text("  key", &columns.join(":"));
        plan.note("message.key.columns", "the key is a text of these columns and not an object");
        return;
    }
    plan.note(
        "message.key.columns",
        format!("`{list}`: give these tables a flow of their own, with `options: {{key: \"{{column}}\"}}`"),
    );
}

/// Rules of columns are of one flow's tables, and Debezium's name the table in front.
fn columns(plan: &mut Plan, get: &Get<'_>) {
    for list in ["column.include.list", "column.exclude.list"] {
        if let Some(value) = get(list) {
            plan.note(
                list,
                format!(
                    "`{value}`: give these tables a flow of their own, with `transform: [{{columns: [the columns to keep]}}]`"
                ),
            );
        }
    }
}

/// Whatever is not spoken for above.
fn leftovers(plan: &mut Plan, config: &BTreeMap<String, String>) {
    let said = |plan: &Plan, key: &str| plan.notes.iter().any(|(what, _)| what == key);
    for (key, value) in config {
        if TAKEN.contains(&key.as_str()) || said(plan, key) || key.starts_with("transforms.") {
            continue;
        }
        if let Some(columns) = masked(key) {
            plan.note(key, format!("`{value}`: give these tables a flow of their own, with {columns}"));
            continue;
        }
        let known = WITHOUT_COUNTERPART.iter().find(|(name, _)| key.starts_with(name));
        // What is not known may be a secret: its value is not repeated.
        plan.note(key, known.map_or("it has no counterpart that this importer knows", |(_, why)| why));
    }
}

fn masked(key: &str) -> Option<&'static str> {
    let hash = key.starts_with("column.mask.hash.");
    if hash {
        return Some("`transform: [{mask: {column: hash}}]`, which is SHA-256 without a salt");
    }
    if key.starts_with("column.mask.with.") {
        return Some("`transform: [{mask: {column: redact}}]`");
    }
    key.starts_with("column.truncate.to.").then_some("`transform: [{set: {column: \"left(column, n)\"}}]`")
}

#[cfg(test)]
mod tests {
    use super::routed;

    #[test]
    fn a_router_is_a_topic_of_names_or_nothing() {
        for (expression, replacement, wanted) in [
            (r"([^.]+)\.([^.]+)\.([^.]+)", "$3", Some("{table}")),
            (r"^pre\.(.*)\.(.*)$", "cdc-$1-$2", Some("cdc-{db}-{table}")),
            (r"pre\.(.*)", "$1", Some("{db}.{table}")),
            ("(.*)", "x.$1", Some("x.pre.{db}.{table}")),
            (r"(.*)orders_\d(.*)", "$1orders$2", None),
            (r"([^.]+)\.([^.]+)\.([^.]+)", "$4", None),
            (r"([^.]+)\.([^.]+)\.([^.]+)", "$", None),
        ] {
            assert_eq!(routed(expression, replacement, "pre").as_deref(), wanted, "{expression}");
        }
    }
}
