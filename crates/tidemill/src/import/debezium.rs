//! Debezium's MySQL and MariaDB connectors → a source, a Kafka sink and a flow that writes what they write.

use super::{Plan, mysql_url, regex, slug, tables};
use crate::failure::Failure;
use flow::patterns::wildcard;
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
    "key.converter.schema.registry.url",
    "value.converter.schema.registry.url",
    "tombstones.on.delete",
    "transforms",
    "message.key.columns",
    "column.include.list",
    "column.exclude.list",
    "provide.transaction.metadata",
    "topic.transaction",
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
    columns(&mut plan, &config);
    transactions(&mut plan, &get, prefix);
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
    plan.include = include;
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
    plan.note("topic.prefix", super::SAME_TOPICS);
    plan.flow.0.push_str("options:\n");
    let mut put = |key: &str, value: &str| plan.flow.put(&format!("  {key}"), value);
    put("topic", &super::quoted(&topic));
    let registry =
        get("value.converter.schema.registry.url").or_else(|| get("key.converter.schema.registry.url"));
    let packed = format == "debezium" && is_avro(get("value.converter")) && registry.is_some();
    put("format", if packed { "avro" } else { format });
    if format == "debezium"
        && !packed
        && get("value.converter.schemas.enable") != Some("false")
        && is_json(get("value.converter"))
    {
        put("schemas", "true");
    }
    if tombstones == Some(true) {
        put("tombstones", "true");
    }
    keys(plan, get);
    if format == "debezium" && get("tombstones.on.delete") == Some("false") {
        plan.note("tombstones.on.delete", "the `debezium` format has a tombstone behind every delete");
    }
    if let Some(urls) = registry.filter(|_| packed) {
        let (first, others) = urls.split_once(',').unwrap_or((urls, ""));
        let (scheme, rest) = first.trim().split_once("://").unwrap_or(("http", first.trim()));
        let (login, host) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
        plan.sink.put_text("schema_registry", &format!("{scheme}://{host}"));
        let mut note = |why: &str| plan.note("value.converter.schema.registry.url", why);
        if login.is_some() {
            note(
                "its user and password are secrets: write http://USER:${env:REGISTRY_PASSWORD}@host into the sink's file",
            );
        }
        if !others.is_empty() {
            note("one registry is asked: the first is taken");
        }
        if !is_avro(get("key.converter")) {
            plan.note("key.converter", "keys are Avro where values are");
        }
        return;
    }
    for converter in ["key.converter", "value.converter"] {
        if let Some(class) = get(converter).filter(|class| !is_json(Some(class))) {
            plan.note(converter, format!("`{class}`: messages are JSON"));
        }
    }
}

fn is_avro(converter: Option<&str>) -> bool {
    converter.is_some_and(|class| class.ends_with(".AvroConverter"))
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

/// One flow counts what the connector counts; several would each count their own.
fn transactions(plan: &mut Plan, get: &Get<'_>, prefix: &str) {
    const SETTING: &str = "provide.transaction.metadata";
    if get(SETTING) != Some("true") {
        return;
    }
    if plan.sink.0.contains("schema_registry:") {
        plan.note(SETTING, "there is no topic of transactions in `avro`");
    } else if plan.hidden.is_empty() {
        let topic = format!("{prefix}.{}", get("topic.transaction").unwrap_or("transaction"));
        plan.flow.put("  transactions", &super::quoted(&topic));
    } else {
        plan.note(
            SETTING,
            "the tables are in several flows, which count apart: give each `options: {transactions: TOPIC}` of its own",
        );
    }
}

/// What hides columns must not be lost: a table that is named whole gets a flow with the steps that do the same; for any other
/// the flow stays a draft.
fn columns(plan: &mut Plan, config: &BTreeMap<String, String>) {
    for (setting, list) in config {
        let Some(step) = step_of(setting) else { continue };
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for expression in regex::split_list(list) {
            match column_of(&expression).filter(|(table, _)| plan.include.contains(table)) {
                Some((table, column)) => found.entry(table).or_default().push(column),
                None => {
                    plan.shows_too_much = true;
                    let step = step(&["column".to_owned()]);
                    let why = format!(
                        "`{expression}` is not of one table in the list: give its tables a flow of their own, with `{step}`"
                    );
                    plan.note(setting, why);
                }
            }
        }
        for (table, columns) in found {
            plan.hidden.entry(table).or_default().push(step(&columns));
        }
        if setting == "column.exclude.list" {
            plan.note(
                setting,
                "the columns are there and NULL: name those to keep with `columns` to leave them out",
            );
        } else if setting.starts_with("column.mask.hash.") {
            plan.note(setting, "the hash is SHA-256 of the text, without a salt: other values than before");
        } else if setting.starts_with("column.mask.with.") {
            plan.note(setting, "the text is `***`, whatever the length");
        }
    }
    let carries = |pattern: &str, table: &str| {
        let (pattern, table) = (pattern.split_once('.'), table.split_once('.'));
        pattern.zip(table).is_some_and(|(p, t)| wildcard(p.0, t.0) && wildcard(p.1, t.1))
    };
    for table in plan.hidden.keys().cloned().collect::<Vec<_>>() {
        let other =
            plan.include.iter().find(|pattern| **pattern != table && carries(pattern, &table)).cloned();
        if let Some(pattern) = other {
            plan.shows_too_much = true;
            plan.note(
                &table,
                format!("`{pattern}` carries it too, as it is: name the other tables one by one"),
            );
        }
    }
}

type Step = Box<dyn Fn(&[String]) -> String>;

/// The step that does what a setting does to columns of one table; `None` for a setting that hides nothing.
fn step_of(setting: &str) -> Option<Step> {
    let mask = |word: &'static str| -> Step {
        Box::new(move |columns| {
            let pairs: Vec<_> =
                columns.iter().map(|column| format!("{}: {word}", super::quoted(column))).collect();
            format!("mask: {{{}}}", pairs.join(", "))
        })
    };
    let truncated = setting.strip_prefix("column.truncate.to.").and_then(|rest| rest.strip_suffix(".chars"));
    if let Some(length) = truncated.and_then(|length| length.parse::<u32>().ok()) {
        return Some(Box::new(move |columns| {
            let pairs = columns.iter().map(|column| {
                let expression = format!("left(`{column}`, {length})");
                format!("{}: {}", super::quoted(column), super::quoted(&expression))
            });
            format!("set: {{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }));
    }
    match setting {
        "column.include.list" => Some(Box::new(|columns| {
            let names: Vec<_> = columns.iter().map(|column| super::quoted(column)).collect();
            format!("columns: [{}]", names.join(", "))
        })),
        "column.exclude.list" => Some(mask("\"null\"")),
        _ if setting.starts_with("column.mask.hash.") => Some(mask("hash")),
        _ if setting.starts_with("column.mask.with.") => Some(mask("redact")),
        _ => None,
    }
}

/// `db.table` and column, of an expression that means one column only.
fn column_of(expression: &str) -> Option<(String, String)> {
    let plain = expression.trim_start_matches('^').trim_end_matches('$');
    let plain = plain.replace("\\.", ".").replace("[.]", ".");
    let is_name =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match plain.split('.').collect::<Vec<_>>().as_slice() {
        [db, table, column] if [db, table, column].into_iter().all(|part| is_name(part)) => {
            Some((format!("{db}.{table}"), (*column).to_owned()))
        }
        _ => None,
    }
}

/// Whatever is not spoken for above.
fn leftovers(plan: &mut Plan, config: &BTreeMap<String, String>) {
    let said = |plan: &Plan, key: &str| plan.notes.iter().any(|(what, _)| what == key);
    for key in config.keys() {
        if TAKEN.contains(&key.as_str())
            || said(plan, key)
            || key.starts_with("transforms.")
            || step_of(key).is_some()
        {
            continue;
        }
        let known = WITHOUT_COUNTERPART.iter().find(|(name, _)| key.starts_with(name));
        // What is not known may be a secret: its value is not repeated.
        plan.note(key, known.map_or("it has no counterpart that this importer knows", |(_, why)| why));
    }
}

#[cfg(test)]
mod tests {
    use super::{column_of, plan, routed};

    #[test]
    fn tables_whose_names_read_alike_keep_a_flow_each() {
        let text = "{\"connector.class\":\"MySqlConnector\",\"database.hostname\":\"h\",
             \"table.include.list\":\"a.b_c,a_b.c\",\"column.exclude.list\":\"a.b_c.x,a_b.c.y\"}";
        let files = plan(text).unwrap().files();
        for (file, table) in
            [("flows/tidemill_a_b_c.yaml", "[\"a.b_c\"]"), ("flows/tidemill_a_b_c_2.yaml", "[\"a_b.c\"]")]
        {
            assert!(files[file].contains(table), "{files:?}");
        }
    }

    #[test]
    fn avro_converters_become_the_format_and_the_registry_and_secrets_stay_out() {
        let text = |url: &str| {
            format!(
                "{{\"connector.class\":\"MySqlConnector\",\"database.hostname\":\"h\",
                 \"key.converter\":\"io.confluent.connect.avro.AvroConverter\",
                 \"value.converter\":\"io.confluent.connect.avro.AvroConverter\",
                 \"key.converter.schema.registry.url\":\"{url}\",\"value.converter.schema.registry.url\":\"{url}\"}}"
            )
        };
        let plan_of = |url: &str| plan(&text(url)).unwrap();
        let plain = plan_of("http://registry:8081");
        assert!(!plain.notes.iter().any(|(what, _)| what.contains("converter")), "{:?}", plain.notes);
        let files = plain.files();
        assert!(files["flows/tidemill.yaml"].contains("format: avro"), "{files:?}");
        assert!(files["sinks/tidemill.yaml"].contains("http://registry:8081"), "{files:?}");
        let secret = plan_of("https://me:hush@one:8081,http://two:8081");
        let told = format!("{:?} {:?}", secret.files(), secret.notes);
        assert!(!told.contains("hush") && told.contains("https://one:8081"), "{told}");
    }

    #[test]
    fn a_table_with_hidden_columns_is_carried_by_no_other_flow() {
        let text = |list: &str| {
            format!(
                "{{\"connector.class\":\"MySqlConnector\",\"database.hostname\":\"h\",\"table.include.list\":\"{list}\",
                 \"column.exclude.list\":\"a.b.c\"}}"
            )
        };
        let files = |list: &str| plan(&text(list)).unwrap().files().into_keys().collect::<Vec<_>>();
        assert_eq!(files("a.b"), ["flows/tidemill_a_b.yaml", "sinks/tidemill.yaml", "sources/tidemill.yaml"]);
        assert!(files("a.b,x.y").contains(&"flows/tidemill.yaml".to_owned()));
        assert!(files("a.b,a.*").iter().all(|file| !file.starts_with("flows/")));
    }

    #[test]
    fn a_column_is_named_whole_or_not_at_all() {
        let wanted = Some(("shop.users".to_owned(), "phone".to_owned()));
        for expression in ["shop.users.phone", r"^shop\.users\.phone$", "shop[.]users[.]phone"] {
            assert_eq!(column_of(expression), wanted, "{expression}");
        }
        for expression in ["shop.users.*", r"shop\..*\.phone", "users.phone", "shop.users.phone|x"] {
            assert_eq!(column_of(expression), None, "{expression}");
        }
    }

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
