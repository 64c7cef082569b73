//! A DataX job (`job.json`) → a source, and a flow for each of its tables that collects it into the project's engine.
//!
//! A DataX job keeps no state: it is `full` here, unless its `where` compares one column with a variable of the scheduler, which is what
//! `mode: cursor` does by itself.

use super::{Plan, Yaml, mysql_url, quoted, slug};
use crate::failure::Failure;
use serde_json::Value;
use std::collections::BTreeMap;

/// Settings of readers and writers that are read below.
const TAKEN: &[&str] = &[
    "reader.username",
    "reader.connection",
    "reader.column",
    "reader.where",
    "reader.splitPk",
    "reader.password",
    "reader.path",
    "reader.encoding",
    "reader.fieldDelimiter",
    "reader.skipHeader",
    "reader.nullFormat",
    "writer.connection",
    "writer.column",
    "writer.username",
    "writer.password",
    "writer.writeMode",
    "writer.preSql",
    "writer.postSql",
];

/// What is said of other settings.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    ("reader.fetchSize", "not needed: rows are streamed"),
    ("reader.session", "the session is Tidemill's own"),
    ("reader.compress", "unpack the files before"),
    ("reader.csvReaderConfig", "quotes are read as RFC 4180 has them"),
    ("writer.batchSize", "not needed: batches are Tidemill's own"),
    ("writer.session", "the session is Tidemill's own"),
];

pub fn plan(text: &str, file: &str) -> Result<Plan, Failure> {
    let wrong = |what: String| {
        Failure::new(2, format!("failed to import: {what}"))
            .hint("name a DataX job: {\"job\": {\"content\": […]}}")
    };
    let root: Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("the file is no JSON: {error}")))?;
    let job = &root["job"];
    let contents = job["content"]
        .as_array()
        .filter(|all| !all.is_empty())
        .ok_or_else(|| wrong("`job.content` is missing".into()))?;
    if contents.len() > 1 {
        // DataX itself runs the first alone.
        return Err(wrong(format!(
            "`job.content` has {} parts, of which DataX runs the first",
            contents.len()
        )));
    }
    let (reader, writer) = (&contents[0]["reader"], &contents[0]["writer"]);
    let mut plan = Plan::default();
    let settings = settings(&mut plan, &job["setting"]);
    match reader["name"].as_str().unwrap_or_default() {
        "mysqlreader" => mysql(&mut plan, &reader["parameter"], writer, &settings)?,
        "txtfilereader" => files(&mut plan, &reader["parameter"], writer, &settings, file)?,
        other => {
            let message = format!("failed to import: there is no importer for `{other}`");
            return Err(Failure::new(2, message).hint("there are: mysqlreader, txtfilereader"));
        }
    }
    writer_notes(&mut plan, writer);
    leftovers(&mut plan, "reader", &reader["parameter"]);
    leftovers(&mut plan, "writer", &writer["parameter"]);
    Ok(plan)
}

/// Lines of every flow: how fast, and how many bad rows.
fn settings(plan: &mut Plan, setting: &Value) -> Yaml {
    let mut out = Yaml::default();
    let speed = &setting["speed"];
    if let Some(rows) = speed["record"].as_u64().filter(|rows| *rows > 0) {
        out.put("rows_per_second", &rows.to_string());
    }
    if speed["byte"].as_u64().is_some_and(|bytes| bytes > 0) {
        plan.note("setting.speed.byte", "the source is spared by rows: `rows_per_second`");
    }
    if speed["channel"].as_u64().is_some_and(|channels| channels > 1) {
        plan.note("setting.speed.channel", "a table is read over one connection");
    }
    if let Some(rows) = setting["errorLimit"]["record"].as_u64() {
        out.put("max_rejected", &rows.to_string());
    }
    if !setting["errorLimit"]["percentage"].is_null() {
        plan.note("setting.errorLimit.percentage", "bad rows are counted: `max_rejected`");
    }
    out
}

fn mysql(plan: &mut Plan, reader: &Value, writer: &Value, settings: &Yaml) -> Result<(), Failure> {
    let wrong = |what: &str| Failure::new(2, format!("failed to import: {what}"));
    let connections = reader["connection"].as_array().cloned().unwrap_or_default();
    let mut servers: Vec<(String, String)> = Vec::new();
    let mut tables: Vec<(String, String)> = Vec::new();
    for connection in &connections {
        if connection["querySql"].is_array() {
            return Err(wrong("`querySql` is no table")
                .hint("collect the tables that it reads, and write the query as a model"));
        }
        let url = connection["jdbcUrl"].as_array().and_then(|all| all.first()).and_then(Value::as_str);
        let (host, database) = url
            .and_then(jdbc)
            .ok_or_else(|| wrong("`jdbcUrl` of the reader is not jdbc:mysql://host:port/database"))?;
        servers.push(host);
        for table in connection["table"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let table = table.trim_matches('`').replace('`', "");
            let (db, table) = table
                .split_once('.')
                .map_or((database.clone(), table.clone()), |(db, table)| (db.into(), table.into()));
            tables.push((db, table));
        }
    }
    servers.dedup();
    let [(host, port)] = &servers[..] else {
        return Err(wrong("the reader has no server, or several").hint("write a job for each server"));
    };
    let Some((database, _)) = tables.first() else { return Err(wrong("the reader has no `table`")) };
    plan.name = slug(database);
    let user = reader["username"].as_str().unwrap_or("reader");
    plan.source.put("kind", "mysql");
    plan.source.put_text("url", &mysql_url(&plan.name, user, host, port));
    let names: Vec<String> = tables.iter().map(|(db, table)| format!("{db}.{table}")).collect();
    plan.source.put_list("tables", &names);
    plan.note("reader.password", format!("a secret: export it as {}_PASSWORD", plan.name.to_uppercase()));
    if reader["splitPk"].as_str().is_some_and(|column| !column.is_empty()) {
        plan.note("reader.splitPk", "a table is read over one connection, in the order of its key");
    }
    let cursor = cursor(plan, reader["where"].as_str().unwrap_or_default());
    let columns = columns(plan, &reader["column"], &writer["parameter"]["column"]);
    let targets = targets(writer, tables.len());
    for ((db, table), at) in tables.iter().zip(0..) {
        let mut flow = Yaml::default();
        flow.put_text("from", &plan.name);
        flow.put_list("tables", &[format!("{db}.{table}")]);
        match &cursor {
            None => flow.put("mode", "full"),
            Some(column) => {
                flow.put("mode", "cursor");
                flow.put_text("cursor", column);
            }
        }
        flow.put_text("to", &format!("ods.{}", targets.get(at).unwrap_or(table)));
        flow.0 += &columns.0;
        flow.0 += &settings.0;
        // A name that two databases have.
        let mut name = slug(targets.get(at).unwrap_or(table));
        while plan.collections.contains_key(&name) {
            name.push_str("_2");
        }
        plan.collections.insert(name, flow);
    }
    Ok(())
}

fn files(
    plan: &mut Plan,
    reader: &Value,
    writer: &Value,
    settings: &Yaml,
    file: &str,
) -> Result<(), Failure> {
    let wrong = |what: &str| Failure::new(2, format!("failed to import: {what}"));
    let path = match &reader["path"] {
        Value::String(path) => Some(path.as_str()),
        Value::Array(paths) => paths.first().and_then(Value::as_str),
        _ => None,
    };
    let path = path.ok_or_else(|| wrong("`path` of the reader is missing"))?;
    if reader["path"].as_array().is_some_and(|paths| paths.len() > 1) {
        plan.note("reader.path", "the first path alone was taken: a source has one folder, or one pattern");
    }
    plan.name = slug(file);
    let table = targets(writer, 1).into_iter().next().unwrap_or_else(|| plan.name.clone());
    let (folder, pattern) = match path.rsplit_once('/') {
        Some((folder, name)) if !name.is_empty() && (name.contains(['*', '?']) || name.contains('.')) => {
            (folder, name)
        }
        _ => (path.trim_end_matches('/'), "*"),
    };
    plan.source.put("kind", "files");
    plan.source.put_text("path", if folder.is_empty() { "/" } else { folder });
    plan.source.0 += "format: csv\n";
    plan.source.0 += &format!("tables:\n  {}:\n", quoted(&table));
    let mut put = |key: &str, value: String| plan.source.put(&format!("    {key}"), &value);
    put("files", quoted(pattern));
    if reader["skipHeader"] != Value::Bool(true) && reader["skipHeader"] != "true" {
        put("header_rows", "0".into());
    }
    if let Some(delimiter) = reader["fieldDelimiter"].as_str().filter(|it| it.chars().count() == 1) {
        put("delimiter", quoted(delimiter));
    }
    if let Some(encoding) = reader["encoding"].as_str() {
        put("encoding", quoted(&encoding.to_lowercase()));
    }
    if let Some(null) = reader["nullFormat"].as_str() {
        put("nulls", format!("[{}]", quoted(null)));
    }
    plan.note(
        "reader.column",
        "columns go by their names in the header, or c1, c2, …; types are told by the values, see `columns`",
    );
    let mut flow = Yaml::default();
    flow.put_text("from", &plan.name);
    flow.put_list("tables", std::slice::from_ref(&table));
    flow.put("mode", "full");
    flow.put_text("to", &format!("ods.{table}"));
    flow.0 += &settings.0;
    plan.collections.insert(slug(&table), flow);
    Ok(())
}

/// `((host, port), database)` of `jdbc:mysql://host:port/database?…`; of several hosts the first.
fn jdbc(url: &str) -> Option<((String, String), String)> {
    let rest = url.strip_prefix("jdbc:mysql://").or_else(|| url.strip_prefix("jdbc:mariadb://"))?;
    let (hosts, database) = rest.split('?').next()?.split_once('/')?;
    let (host, port) = hosts.split(',').next()?.rsplit_once(':').unwrap_or((hosts, "3306"));
    (!host.is_empty() && !database.is_empty())
        .then(|| ((host.to_owned(), port.to_owned()), database.to_owned()))
}

/// The column of `updated_at >= '${begin}'`, with or without an upper bound on the same column.
fn cursor(plan: &mut Plan, condition: &str) -> Option<String> {
    if condition.trim().is_empty() {
        return None;
    }
    let flat = condition.replace('`', "");
    let parts: Vec<&str> = flat.split(" and ").flat_map(|part| part.split(" AND ")).map(str::trim).collect();
    let column_of = |part: &str| {
        let at = part.find(['<', '>', '='])?;
        let (column, rest) = part.split_at(at);
        let plain = |c: char| c.is_alphanumeric() || c == '_';
        let column = column.trim();
        (rest.contains("${") && !column.is_empty() && column.chars().all(plain)).then(|| column.to_owned())
    };
    let columns: Vec<Option<String>> = parts.iter().map(|part| column_of(part)).collect();
    match &columns[..] {
        [Some(first), rest @ ..] if rest.iter().all(|it| it.as_ref() == Some(first)) => {
            plan.note("reader.where", format!("a flow goes on where it was by itself: `cursor: {first}`; the first run reads the whole table"));
            Some(first.clone())
        }
        _ => {
            plan.note(
                "reader.where",
                "the whole table is collected: filter in a model, or set `mode: cursor`",
            );
            None
        }
    }
}

/// Which columns are taken, and what they are called where they go.
fn columns(plan: &mut Plan, from: &Value, to: &Value) -> Yaml {
    let names = |list: &Value| -> Option<Vec<String>> {
        let list = list.as_array()?.iter();
        list.map(|it| it.as_str().map(|it| it.trim_matches('`').to_owned()).filter(|it| it != "*")).collect()
    };
    let mut out = Yaml::default();
    let Some(from) = names(from) else { return out };
    let plain = |name: &String| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if let Some(computed) = from.iter().find(|name| !plain(name)) {
        plan.note(
            "reader.column",
            format!("`{computed}` is no column: compute it in a model. All columns are collected"),
        );
        return out;
    }
    out.put_list("columns", &from);
    let renamed: BTreeMap<&String, String> = match names(to) {
        Some(to) if to.len() == from.len() => from.iter().zip(to).filter(|(from, to)| *from != to).collect(),
        _ => BTreeMap::new(),
    };
    if !renamed.is_empty() {
        let pairs: Vec<String> =
            renamed.iter().map(|(from, to)| format!("{}: {}", quoted(from), quoted(to))).collect();
        out.put("rename", &format!("{{{}}}", pairs.join(", ")));
    }
    out
}

/// The writer's tables, where it has one for each of the reader's.
fn targets(writer: &Value, wanted: usize) -> Vec<String> {
    let connections = writer["parameter"]["connection"].as_array().into_iter().flatten();
    let tables =
        connections.flat_map(|it| it["table"].as_array().into_iter().flatten()).filter_map(Value::as_str);
    let tables: Vec<String> = tables.map(|table| slug(table.rsplit('.').next().unwrap_or(table))).collect();
    if tables.len() == wanted { tables } else { Vec::new() }
}

fn writer_notes(plan: &mut Plan, writer: &Value) {
    let name = writer["name"].as_str().unwrap_or("writer").to_owned();
    let parameter = &writer["parameter"];
    plan.note(
        &name,
        "flows write into the project's engine, the dataset `ods`: `engine:` of tidemill.yaml, SQLite or mysql://… of MySQL or TiDB",
    );
    if let Some(mode) = parameter["writeMode"].as_str() {
        plan.note("writer.writeMode", format!("`{mode}`: with `mode: full` the table is replaced whole, with `cursor` rows are replaced by key"));
    }
    for key in ["preSql", "postSql"] {
        if parameter[key].as_array().is_some_and(|all| !all.is_empty()) {
            plan.note(&format!("writer.{key}"), "statements around a load are models here");
        }
    }
}

fn leftovers(plan: &mut Plan, side: &str, parameter: &Value) {
    for key in parameter.as_object().into_iter().flatten().map(|(key, _)| format!("{side}.{key}")) {
        if TAKEN.contains(&key.as_str()) {
            continue;
        }
        let known = WITHOUT_COUNTERPART.iter().find(|(name, _)| *name == key);
        // What is not known may be a secret: its value is not repeated.
        plan.note(&key, known.map_or("it has no counterpart that this importer knows", |(_, why)| why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a job that DataX's own manual shows for mysqlreader and mysqlwriter.
    const JOB: &str = r#"{"job": {"setting": {"speed": {"channel": 3, "record": 5000}, "errorLimit": {"record": 10, "percentage": 0.02}},
      "content": [{"reader": {"name": "mysqlreader", "parameter": {"username": "root", "password": "s3cret", "column": ["id", "name", "`at`"],
        "splitPk": "db_id", "where": "at >= '${begin}' and at < '${end}'", "fetchSize": 1024,
        "connection": [{"table": ["orders", "people"], "jdbcUrl": ["jdbc:mysql://127.0.0.1:3306/shop?useSSL=false"]}]}},
      "writer": {"name": "mysqlwriter", "parameter": {"writeMode": "replace", "username": "root", "password": "s3cret", "column": ["id", "full_name", "at"],
        "preSql": ["delete from x"], "connection": [{"jdbcUrl": "jdbc:mysql://127.0.0.1:3306/dw", "table": ["dw_orders", "dw_people"]}]}}}]}}"#;

    #[test]
    fn a_job_becomes_a_source_and_a_flow_a_table() {
        let files = plan(JOB, "job").unwrap().files();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["flows/dw_orders.yaml", "flows/dw_people.yaml", "sources/shop.yaml"]);
        assert_eq!(
            files["sources/shop.yaml"],
            "kind: mysql\nurl: \"mysql://root:${env:SHOP_PASSWORD}@127.0.0.1:3306\"\ntables: [\"shop.orders\", \"shop.people\"]\n"
        );
        assert_eq!(
            files["flows/dw_people.yaml"],
            "from: \"shop\"\ntables: [\"shop.people\"]\nmode: cursor\ncursor: \"at\"\nto: \"ods.dw_people\"\n\
             columns: [\"id\", \"name\", \"at\"]\nrename: {\"name\": \"full_name\"}\nrows_per_second: 5000\nmax_rejected: 10\n"
        );
        let notes = &files["flows/dw_orders.yaml"];
        for noted in [
            "setting.speed.channel",
            "percentage",
            "splitPk",
            "fetchSize",
            "preSql",
            "writeMode",
            "reader.password",
        ] {
            assert!(notes.contains(noted), "{noted}: {notes}");
        }
        let all: String = files.into_values().collect();
        assert!(!all.contains("s3cret"));
        let flow: collect::CollectConfig =
            serde_saphyr::from_str(&plan(JOB, "job").unwrap().collections["dw_people"].0).unwrap();
        assert_eq!(flow.problems(), []);
    }

    #[test]
    fn text_files_become_a_source_of_files() {
        let job = r#"{"job": {"content": [{"reader": {"name": "txtfilereader", "parameter": {"path": ["/data/in/orders_*.csv"], "encoding": "GBK",
          "fieldDelimiter": "|", "column": [{"index": 0, "type": "long"}]}}, "writer": {"name": "streamwriter", "parameter": {}}}]}}"#;
        let files = plan(job, "Daily-Orders").unwrap().files();
        let source = &files["sources/daily_orders.yaml"];
        let read: collect::readers::config::FilesConfig = serde_saphyr::from_str(source).unwrap();
        let table = &read.tables["daily_orders"];
        assert_eq!(
            (table.header_rows, table.delimiter, table.encoding.as_deref()),
            (0, Some('|'), Some("gbk"))
        );
        assert_eq!((table.files.as_deref(), read.path.to_str()), (Some("orders_*.csv"), Some("/data/in")));
        assert!(
            files["flows/daily_orders.yaml"]
                .starts_with("from: \"daily_orders\"\ntables: [\"daily_orders\"]\nmode: full\n")
        );
    }

    #[test]
    fn what_is_not_imported_says_why() {
        for (job, wanted) in [
            ("{", "the file is no JSON"),
            ("{}", "`job.content` is missing"),
            (
                r#"{"job": {"content": [{"reader": {"name": "oraclereader"}}]}}"#,
                "no importer for `oraclereader`",
            ),
            (
                r#"{"job": {"content": [{"reader": {"name": "mysqlreader", "parameter": {"connection": [{"querySql": ["select 1"]}]}}}]}}"#,
                "`querySql` is no table",
            ),
        ] {
            let failure = plan(job, "job").unwrap_err();
            assert!(format!("{failure:?}").contains(wanted), "{failure:?}");
        }
        assert!(super::cursor(&mut Plan::default(), "status = 1").is_none());
        assert_eq!(super::cursor(&mut Plan::default(), "`id` > ${last}"), Some("id".to_owned()));
    }
}
