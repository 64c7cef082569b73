//! A Canal instance (`instance.properties`, with `canal.properties` in front of it if it holds the broker) → a source, a Kafka
//! sink and a flow that writes flat messages.

use super::{Plan, mysql_url, slug, tables};
use crate::failure::Failure;
use std::collections::BTreeMap;

/// What is not said of a setting elsewhere, by its beginning.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    ("canal.instance.standby.", "several hosts are written into one url, separated by commas"),
    ("canal.instance.tsdb.", "not needed: the journal holds the table definitions"),
    ("canal.instance.enableDruid", "a reference with ${env:…} holds the password"),
    ("canal.instance.pwdPublicKey", "a reference with ${env:…} holds the password"),
    ("canal.instance.connectionCharset", "not needed: text is decoded by the character set of its column"),
    ("canal.instance.multi.stream", "one source is one stream"),
    (
        "canal.instance.mysql.slaveId",
        "left away, so that both can run side by side; see `options: {server_id}`",
    ),
    (
        "canal.instance.filter.druid",
        "statements are classified, and tables read anew from information_schema",
    ),
    ("canal.instance.filter.query", "statements of tables that a flow carries are told as `ddl`"),
    ("canal.instance.detecting.", "not needed: a silent connection is found out by itself"),
    ("canal.instance.rds.", "binlogs are read from the server alone"),
    ("canal.mq.enableDynamicQueuePartition", "see `options: {partitions}` of the flow"),
    ("kafka.", "the producer is ours: see `options` of the flow"),
    ("rocketmq.", "there is no RocketMQ sink"),
    ("rabbitmq.", "there is no RabbitMQ sink"),
    ("canal.", "it has no counterpart"),
];

/// Spoken for below, or not needed when it says what is so anyway.
const TAKEN: &[&str] = &[
    "canal.instance.master.address",
    "canal.instance.dbUsername",
    "canal.instance.dbPassword",
    "canal.instance.defaultDatabaseName",
    "canal.instance.filter.regex",
    "canal.instance.filter.black.regex",
    "canal.instance.gtidon",
    "canal.mq.topic",
    "canal.mq.dynamicTopic",
    "canal.mq.partition",
    "canal.mq.partitionsNum",
    "canal.mq.partitionHash",
    "canal.mq.flatMessage",
    "kafka.bootstrap.servers",
    "canal.mq.servers",
    "canal.serverMode",
];

/// Where Canal would begin.
const POSITIONS: &[&str] = &[
    "canal.instance.master.journal.name",
    "canal.instance.master.position",
    "canal.instance.master.timestamp",
    "canal.instance.master.gtid",
];

pub fn plan(text: &str) -> Result<Plan, Failure> {
    let wrong = |what: String| Failure::new(2, format!("failed to import: {what}"));
    let config = properties(text);
    let get = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let address = get("canal.instance.master.address").ok_or_else(|| {
        wrong("`canal.instance.master.address` is missing".into()).hint("name an instance.properties")
    })?;
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "3306"));
    let name = get("canal.mq.topic").or_else(|| get("canal.instance.defaultDatabaseName"));
    let mut plan = Plan { name: slug(name.unwrap_or("canal")), ..Plan::default() };
    plan.source.put("kind", "mysql");
    let url = mysql_url(&plan.name, get("canal.instance.dbUsername").unwrap_or("canal"), host, port);
    plan.source.put_text("url", &url);
    plan.note(
        "canal.instance.dbPassword",
        format!("a secret: export it as {}_PASSWORD", plan.name.to_uppercase()),
    );
    let include = tables(
        &mut plan,
        "canal.instance.filter.regex",
        get("canal.instance.filter.regex").unwrap_or(".*\\..*"),
        true,
    );
    plan.source.put_list("tables", &include);
    plan.include = include;
    if let Some(list) = get("canal.instance.filter.black.regex") {
        let exclude = tables(&mut plan, "canal.instance.filter.black.regex", list, false);
        plan.source.put_list("exclude", &exclude);
    }
    plan.source.put("snapshot", "never");
    plan.note("snapshot", "Canal reads no rows that are there already; `initial` reads them first");
    if get("canal.instance.gtidon") == Some("true") {
        plan.note("canal.instance.gtidon", "not needed: GTIDs are used where the server has them");
    }
    for key in POSITIONS {
        if get(key).is_some() {
            plan.note(
                key,
                "a source does not start at another tool's position: run both side by side, then stop the old one \
                 (docs/guides/coming-from.md)",
            );
        }
    }
    sink(&mut plan, &get);
    flow(&mut plan, &get);
    leftovers(&mut plan, &config);
    Ok(plan)
}

type Get<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

fn sink(plan: &mut Plan, get: &Get<'_>) {
    plan.sink.put("kind", "kafka");
    if let Some(mode) = get("canal.serverMode").filter(|mode| *mode != "kafka") {
        plan.note(
            "canal.serverMode",
            format!("`{mode}`: a Kafka sink was written; see the other kinds in config.md"),
        );
    }
    let servers = get("kafka.bootstrap.servers").or_else(|| get("canal.mq.servers"));
    if servers.is_none() {
        plan.note(
            "kafka.bootstrap.servers",
            "it is in canal.properties and not in this file: write it into the sink's url",
        );
    }
    let servers: Vec<&str> = servers.unwrap_or("127.0.0.1:9092").split(',').map(str::trim).collect();
    plan.sink.put_text("url", &format!("kafka://{}", servers.join(",")));
}

fn flow(plan: &mut Plan, get: &Get<'_>) {
    plan.note("canal.mq.topic", super::SAME_TOPICS);
    plan.flow.0.push_str("options:\n");
    let topic = match get("canal.mq.dynamicTopic") {
        None => get("canal.mq.topic").unwrap_or("canal"),
        // Canal's own words: of `db\.table` the topic is db_table, of `db` it is db.
        Some(".*\\..*") => "{db}_{table}",
        Some(".*") => "{db}",
        Some(other) => {
            plan.note(
                "canal.mq.dynamicTopic",
                format!("`{other}`: a flow has one topic, of {{db}} and {{table}}; give tables with another a flow of their own"),
            );
            get("canal.mq.topic").unwrap_or("canal")
        }
    };
    plan.flow.put_text("  topic", topic);
    plan.flow.put("  format", "canal");
    if get("canal.mq.flatMessage") == Some("false") {
        plan.note("canal.mq.flatMessage", "messages are flat JSON; there is no protobuf");
    }
    if let Some(number) = get("canal.mq.partitionsNum").filter(|number| number.parse::<u32>().is_ok()) {
        plan.flow.put("  partitions", number);
    } else if get("canal.mq.partition") == Some("0") && get("canal.mq.partitionHash").is_none() {
        plan.flow.put("  partitions", "1");
    }
    match get("canal.mq.partitionHash") {
        None => {}
        Some(hash) if hash.ends_with(":$pk$") && !hash.contains(',') => {
            plan.note("canal.mq.partitionHash", "the table's key chooses the partition, by Kafka's own hash");
        }
        Some(hash) => match hash
            .rsplit_once(':')
            .filter(|(tables, _)| *tables == ".*\\..*" && !hash.contains(','))
        {
            Some((_, columns)) => {
                let columns: Vec<String> = columns.split('^').map(|column| format!("{{{column}}}")).collect();
                plan.flow.put_text("  key", &columns.join(":"));
            }
            None => plan.note(
                "canal.mq.partitionHash",
                format!(
                    "`{hash}`: give these tables a flow of their own, with `options: {{key: \"{{column}}\"}}`"
                ),
            ),
        },
    }
}

fn leftovers(plan: &mut Plan, config: &BTreeMap<String, String>) {
    for (key, value) in config {
        let said = plan.notes.iter().any(|(what, _)| what == key);
        if value.is_empty() || said || TAKEN.contains(&key.as_str()) {
            continue;
        }
        let known = WITHOUT_COUNTERPART.iter().find(|(name, _)| key.starts_with(name));
        // What is not known may be a secret: its value is not repeated.
        plan.note(key, known.map_or("it has no counterpart that this importer knows", |(_, why)| why));
    }
}

/// Java's properties: `key=value` or `key: value`, `#` and `!` before remarks, `\` before a character that is meant as it is and
/// at the end of a line that goes on.
fn properties(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.trim_start().to_owned();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            line.pop();
            let Some(next) = lines.next() else { break };
            line.push_str(next.trim_start());
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        out.insert(unescaped(key.trim()), unescaped(value.trim()));
    }
    out
}

fn unescaped(text: &str) -> String {
    let (mut out, mut escaped) = (String::new(), false);
    for c in text.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let text = "# remark\n! another\n a.b = x\\\\.y\nlist=one,\\\n   two\nempty=\nurl=h:3306\n";
        let config = properties(text);
        let wanted = [("a.b", "x\\.y"), ("list", "one,two"), ("empty", ""), ("url", "h:3306")];
        assert_eq!(config, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }
}
