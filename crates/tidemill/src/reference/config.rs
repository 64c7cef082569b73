//! `config.md` and `config/*.schema.json`: the structs that read the project's files, by their schemas.

use super::{NOTE, Page, row};
use crate::project::NodeConfig;
use ::placement::declaration::Declaration;
use ::warehouse::indicator::IndicatorFile;
use collect::CollectConfig;
use collect::config::TidbConfig;
use collect::readers::config::{AccessConfig, FilesConfig, HttpApiConfig, SingerConfig};
use flow::config::{FlowConfig, SinkConfig, SourceConfig};
use schemars::{Schema, schema_for};
use serde_json::Value;
use std::fmt::Write;

/// A kind of file.
struct FileKind {
    /// Of the schema's file.
    name: &'static str,
    title: &'static str,
    example: &'static str,
    schema: fn() -> Schema,
}

const FILES: [FileKind; 13] = [
    FileKind {
        name: "tidemill",
        title: "`tidemill.yaml`",
        example: "name: shop
data_dir: ./data
listen:
  http: 127.0.0.1:7070
journal:
  retention: 3d
  retention_bytes: 50GiB
",
        schema: || schema_for!(NodeConfig),
    },
    FileKind {
        name: "source",
        title: "`sources/*.yaml`",
        example: "kind: mysql
url: mysql://cdc:${env:SHOP_PASSWORD}@127.0.0.1:3306
tables: [\"shop.*\"]
exclude: [\"shop.tmp_*\"]
snapshot: initial
on_gap: fail
options:
  snapshot_parallel: 4
  tls: require
",
        schema: || schema_for!(SourceConfig),
    },
    FileKind {
        name: "source_tidb",
        title: "`sources/*.yaml` with `kind: tidb`",
        example: "kind: tidb
url: mysql://reader:${env:TIDB_PASSWORD}@127.0.0.1:4000
tables: [\"crm.*\"]
",
        schema: || schema_for!(TidbConfig),
    },
    FileKind {
        name: "source_files",
        title: "`sources/*.yaml` with `kind: files`",
        example: "kind: files
path: inbox
tables:
  orders:
    files: \"orders_*.csv\"
    key: [id]
    encoding: gbk
    columns: {code: text, amount: \"decimal(12,2)\"}
",
        schema: || schema_for!(FilesConfig),
    },
    FileKind {
        name: "source_access",
        title: "`sources/*.yaml` with `kind: access`",
        example: "kind: access
path: /mnt/office/people.accdb
password: ${env:PEOPLE_PASSWORD}
",
        schema: || schema_for!(AccessConfig),
    },
    FileKind {
        name: "source_http_api",
        title: "`sources/*.yaml` with `kind: http` and `url`",
        example: "kind: http
url: https://exchange.example.com/api/v1
auth: {bearer: {token: \"${env:EXCHANGE_TOKEN}\"}}
tables:
  permits:
    path: /permits
    query: {since: \"{cursor}\"}
    rows: $.data.items
    ok: {path: $.code, equals: \"0\", message: $.message}
    paging: {style: page, parameter: pageNo, size: 100, size_parameter: pageSize}
    key: [permit_id]
",
        schema: || schema_for!(HttpApiConfig),
    },
    FileKind {
        name: "source_singer",
        title: "`sources/*.yaml` with `kind: singer`",
        example: "kind: singer
command: [tap-github]
config: {repository: octo/orders, start_date: \"2026-01-01T00:00:00Z\"}
secrets: {access_token: \"${env:GITHUB_TOKEN}\"}
",
        schema: || schema_for!(SingerConfig),
    },
    FileKind {
        name: "sink",
        title: "`sinks/*.yaml`",
        example: "kind: nats
url: nats://127.0.0.1:4222
",
        schema: || schema_for!(SinkConfig),
    },
    FileKind {
        name: "flow",
        title: "`flows/*.yaml`",
        example: "from: shop
tables: [\"shop.orders\"]
to: events
transform:
  - mask: {phone: partial}
  - rename: {memo: note}
route: {\"shop.*\": \"dw.shop_*\"}
options:
  subject: shop.{table}
  batch_rows: 500
",
        schema: || schema_for!(FlowConfig),
    },
    FileKind {
        name: "collection",
        title: "`flows/*.yaml` that collect",
        example: "from: shop
tables: [\"shop.orders\"]
mode: cursor
cursor: updated_at
to: ods.shop_orders
schedule: \"30 2 * * *\"
window: \"01:00-06:00\"
schema: {columns: freeze}
",
        schema: || schema_for!(CollectConfig),
    },
    FileKind {
        name: "indicators",
        title: "`indicators/*.yaml`",
        example: "semantic_models:
  - name: sales
    table: dws.dept_daily
    dimensions:
      - {name: day, type: time, type_params: {time_granularity: day}}
      - {name: dept, type: categorical}
    measures:
      - {name: amount, agg: sum}
      - {name: orders, agg: sum}
metrics:
  - name: revenue
    code: R-01
    label: Revenue
    unit: CNY
    type: simple
    type_params: {measure: amount}
    grains: [day, month, year]
    target: 100000
    thresholds:
      - {status: red, when: value < target * 0.8}
      - {status: green, when: value >= target}
  - {name: basket, type: ratio, type_params: {numerator: revenue, denominator: orders}, decimals: 2}
",
        schema: || schema_for!(IndicatorFile),
    },
    FileKind {
        name: "mesh",
        title: "`mesh.yaml`",
        example: "listeners:
  - {name: shop, bind: 127.0.0.1:7400, tenants: [shop]}
groups:
  shop:
    backends: [{addr: 127.0.0.1:3306}, {addr: 127.0.0.1:3307}]
    monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}
    auth: vault
    users: [{name: shop, password: \"${env:SHOP_PASSWORD}\"}]
",
        schema: || schema_for!(mesh::MeshConfig),
    },
    FileKind {
        name: "placement",
        title: "`placement.yaml`",
        example: "cluster:
  url: mysql://root:${env:TIDB_PASSWORD}@127.0.0.1:4000
  pd: http://127.0.0.1:2379
nodes:
  - {kind: tikv, addr: \"10.0.0.1:20160\", labels: {$biz: order, zone: z1, host: h1, lead: first}}
  - {kind: tikv, addr: \"10.0.0.2:20160\", labels: {$biz: order, zone: z2, host: h2, lead: second}}
  - {kind: tikv, addr: \"10.0.0.3:20160\", labels: {$biz: order, zone: z3, host: h3, lead: none}}
pools:
  order: {stores: {$biz: order}}
businesses:
  order:
    databases: [order_db]
    users: [\"order_app@%\"]
    pool: order
    tier: redundancy
    resource: {ru_per_sec: 8000, priority: high}
",
        schema: || schema_for!(Declaration),
    },
];

/// The machine's form, for editors.
pub fn schemas() -> Vec<Page> {
    let page = |file: &FileKind| {
        let schema = serde_json::to_string_pretty(&(file.schema)()).expect("a schema is JSON");
        (format!("config/{}.schema.json", file.name), schema + "\n")
    };
    FILES.iter().map(page).collect()
}

pub fn page() -> String {
    let mut out = format!(
        "# Configuration\n\n{NOTE}\n\n\
         A project is a folder: `tidemill.yaml`, one file for each source, sink and flow, and `mesh.yaml` for the \
         SQL proxy, and `placement.yaml` for the businesses of a TiDB cluster. A file's name without \
         `.yaml` is the name of what it describes: letters, digits, `_` and `-`, at most 64.\n\n\
         - Unknown keys are errors. `tidemill check` lists every mistake at once, as `path:line:column: message`.\n\
         - Secrets are references: `${{env:NAME}}` takes an environment variable, `${{file:PATH}}` a file's text.\n\
         - Sizes and spans of time carry units: `64MiB`, `10GB`; `500ms`, `5s`, `10m`, `2h`, `7d`.\n\
         - Paths are relative to the project's folder.\n\
         - A change takes effect when the node is restarted; one of `mesh.yaml` also by `tidemill mesh reload`.\n\n\
         Editors that read JSON schemas complete and check the files: put\n\
         `# yaml-language-server: $schema=config/source.schema.json`, with the path to the schema, in the first line.\n"
    );
    for file in &FILES {
        let schema = (file.schema)().to_value();
        let _ = write!(out, "\n## {}\n\n", file.title);
        let _ = writeln!(out, "{}\n\n```yaml\n{}```\n", text(&schema["description"]), file.example);
        out.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        put_keys(&mut out, &schema, &schema, "");
        if schema["properties"].get("transform").is_some() {
            put_steps(&mut out, &schema);
        }
    }
    out
}

/// A description as one line.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The schema that a reference, or an optional reference, stands for.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return &root["$defs"][name];
    }
    let present = schema["anyOf"].as_array().and_then(|any| any.iter().find(|s| s["type"] != "null"));
    present.map_or(schema, |inner| resolve(root, inner))
}

/// Required keys first, then by name; the keys of an object follow it.
fn put_keys(out: &mut String, root: &Value, schema: &Value, prefix: &str) {
    let required = |name: &str| schema["required"].as_array().is_some_and(|r| r.iter().any(|n| n == name));
    let mut keys: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    keys.sort_by_key(|(name, _)| (!required(name), (*name).clone()));
    for (name, key) in keys {
        let inner = resolve(root, key);
        let path = format!("{prefix}{name}");
        let default = match &key["default"] {
            _ if required(name) => "required".into(),
            Value::Null => "–".into(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let mut meaning =
            text(if key["description"].is_null() { &inner["description"] } else { &key["description"] });
        for (word, what) in words(inner).into_iter().filter(|(_, what)| !what.is_empty()) {
            let _ = write!(meaning, " · `{word}` {what}");
        }
        out.push_str(&row(&[&format!("`{path}`"), &kind(root, key), &default, &meaning]));
        if inner["properties"].is_object() {
            put_keys(out, root, inner, &format!("{path}."));
        }
        let (item, named) = (resolve(root, &inner["items"]), resolve(root, &inner["additionalProperties"]));
        if item["properties"].is_object() {
            put_keys(out, root, item, &format!("{path}[]."));
        }
        if named["properties"].is_object() {
            put_keys(out, root, named, &format!("{path}.NAME."));
        }
    }
}

/// The words of an enumeration and what each means.
fn words(schema: &Value) -> Vec<(String, String)> {
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().map(|word| (text(word), String::new())).collect();
    }
    let cases = schema["oneOf"].as_array().into_iter().flatten();
    cases
        .filter(|case| case["const"].is_string())
        .map(|case| (text(&case["const"]), text(&case["description"])))
        .collect()
}

fn kind(root: &Value, schema: &Value) -> String {
    let inner = resolve(root, schema);
    let names: Vec<_> = words(inner).into_iter().map(|(word, _)| format!("`{word}`")).collect();
    if !names.is_empty() {
        return names.join(", ");
    }
    let name = match &inner["type"] {
        Value::Array(types) => types.iter().find(|t| *t != "null").map(text).unwrap_or_default(),
        other => text(other),
    };
    match name.as_str() {
        "array" => format!("list of {}", kind(root, &inner["items"])),
        "object" if inner["additionalProperties"].is_object() => {
            format!("map to {}", kind(root, &inner["additionalProperties"]))
        }
        "object" => "object".into(),
        "" => "step".into(),
        other => other.to_owned(),
    }
}

/// The steps of `transform`.
fn put_steps(out: &mut String, root: &Value) {
    out.push_str("\n### Steps of `transform`\n\n");
    out.push_str(
        "Each is an object with one member. They run in order; a step sees what the ones before it made.\n\n",
    );
    out.push_str("| step | takes | meaning |\n|---|---|---|\n");
    for case in root["$defs"]["TransformStep"]["oneOf"].as_array().into_iter().flatten() {
        for (name, value) in case["properties"].as_object().into_iter().flatten() {
            let mut meaning = text(&case["description"]);
            for (word, what) in words(resolve(root, &value["additionalProperties"])) {
                let _ = write!(meaning, " · `{word}` {what}");
            }
            out.push_str(&row(&[&format!("`{name}`"), &kind(root, value), &meaning]));
        }
    }
    out.push_str(
        "\n[processing.md](processing.md) has the keys of the steps that take an object, with examples.\n",
    );
}

/// The keys of one step that takes an object.
pub fn put_step_keys(out: &mut String, step: &str) {
    let root = schema_for!(FlowConfig).to_value();
    let cases = root["$defs"]["TransformStep"]["oneOf"].as_array().into_iter().flatten();
    let Some(step) = cases.into_iter().find_map(|case| case["properties"].get(step)) else { return };
    let schema = resolve(&root, step);
    let _ = writeln!(out, "{}\n", text(&schema["description"]));
    out.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    put_keys(out, &root, schema, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_files_that_can_be_read() {
        let [
            node,
            source,
            tidb,
            of_files,
            access,
            api,
            singer,
            sink,
            flow,
            collection,
            indicators,
            mesh,
            placement,
        ] = FILES.map(|file| file.example);
        assert!(serde_saphyr::from_str::<NodeConfig>(node).is_ok());
        assert!(serde_saphyr::from_str::<SourceConfig>(source).is_ok());
        assert!(serde_saphyr::from_str::<TidbConfig>(tidb).is_ok());
        assert!(serde_saphyr::from_str::<FilesConfig>(of_files).is_ok());
        assert!(serde_saphyr::from_str::<AccessConfig>(access).is_ok());
        assert!(serde_saphyr::from_str::<HttpApiConfig>(api).is_ok());
        assert!(serde_saphyr::from_str::<SingerConfig>(singer).is_ok());
        assert!(serde_saphyr::from_str::<CollectConfig>(collection).is_ok_and(|it| it.problems().is_empty()));
        assert!(serde_saphyr::from_str::<SinkConfig>(sink).is_ok());
        assert!(serde_saphyr::from_str::<FlowConfig>(flow).is_ok());
        let indicators = serde_saphyr::from_str::<IndicatorFile>(indicators).unwrap();
        assert!(::warehouse::indicator::Indicators::new(&[("x.yaml".into(), indicators)]).is_ok());
        assert!(
            serde_saphyr::from_str::<mesh::MeshConfig>(mesh).is_ok_and(|mesh| mesh.problems().is_empty())
        );
        assert!(serde_saphyr::from_str::<Declaration>(placement).is_ok_and(|it| it.problems().is_empty()));
    }

    #[test]
    fn every_key_says_what_it_means() {
        for line in page().lines().filter(|line| line.starts_with("| `")) {
            let meaning = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
            assert!(meaning.trim().len() > 3, "{line}");
        }
    }
}
