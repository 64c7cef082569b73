//! `observe/`: every name that the dashboard and the alerts use is one that a node really serves.

use crate::node::{Node, mysql_source, run_all};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use testkit::{MySql, MySqlOptions, Port};

/// Labels by metric, as served.
type Served = BTreeMap<String, BTreeSet<String>>;

/// What Prometheus itself puts on every series.
const PROMETHEUS_LABELS: [&str; 2] = ["instance", "job"];
/// Words of PromQL between expressions; a function is told by the bracket behind it.
const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
/// Words before a list of labels in brackets.
const LISTS: [&str; 4] = ["by", "without", "on", "ignoring"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    annotations: BTreeMap<String, String>,
}

/// Expression, and the labels that its texts name.
fn used() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join("observe/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut out = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap();
            out.push((target["expr"].as_str().unwrap().to_owned(), braced(legend)));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (metric, label) = inner.split_once(", ").unwrap();
            out.push((metric.to_owned(), vec![label.to_owned()]));
        }
    }
    for rule in rules() {
        let labels = rule.annotations.values().flat_map(|text| braced(text));
        let labels = labels.filter_map(|label| label.strip_prefix("$labels.").map(str::to_owned));
        out.push((rule.expr.clone(), labels.collect()));
    }
    out
}

fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(root().join("observe/alerts.yaml")).unwrap();
    let rules: Rules = serde_saphyr::from_str(&text).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// What stands in `{{…}}`.
fn braced(text: &str) -> Vec<String> {
    let parts = text.split("{{").skip(1).filter_map(|part| part.split_once("}}"));
    parts.map(|(inner, _)| inner.trim().to_owned()).collect()
}

/// The metrics of an expression with the labels of their selectors. Ranges and texts are passed over.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    let (mut rest, mut in_braces) = (expression, false);
    while let Some(first) = rest.chars().next() {
        let word_end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word_end);
        match first {
            '"' => rest = rest[1..].split_once('"').unwrap().1,
            '[' => rest = rest.split_once(']').unwrap().1,
            '{' | '}' => {
                in_braces = first == '{';
                rest = &rest[1..];
            }
            _ if word.is_empty() => rest = &rest[first.len_utf8()..],
            _ if LISTS.contains(&word) && !in_braces => {
                let (list, after) = behind.trim_start().strip_prefix('(').unwrap().split_once(')').unwrap();
                out.last_mut().unwrap().1.extend(list.split(',').map(|label| label.trim().to_owned()));
                rest = after;
            }
            _ => {
                let is_name = !first.is_ascii_digit() && !WORDS.contains(&word) && !behind.starts_with('(');
                if in_braces {
                    out.last_mut().unwrap().1.push(word.to_owned());
                } else if is_name {
                    out.push((word.to_owned(), Vec::new()));
                }
                rest = behind;
            }
        }
    }
    out
}

fn served(text: &str) -> Served {
    let mut out = Served::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let labels = labels.split('}').next().unwrap().split(',').filter_map(|pair| pair.split_once('='));
        out.entry(name.to_owned()).or_default().extend(labels.map(|(label, _)| label.to_owned()));
    }
    out
}

/// What an expression and its texts name that is not served.
fn faults(expression: &str, labels: &[String], served: &Served) -> Vec<String> {
    let mut out = Vec::new();
    for (metric, own) in selectors(expression) {
        let Some(known) = served.get(&metric) else {
            out.push(format!("{metric} of `{expression}`"));
            continue;
        };
        let names = own.iter().chain(labels).filter(|label| !PROMETHEUS_LABELS.contains(&label.as_str()));
        out.extend(names.filter(|label| !known.contains(*label)).map(|label| format!("{metric}{{{label}}}")));
    }
    out
}

/// The names that headings of a page have in links.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let plain = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    headings
        .map(|text| text.to_lowercase().replace(' ', "-").chars().filter(|c| plain(*c)).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_alerts_name_what_a_node_serves() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY)"]).await;
    let (nobody, nowhere) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let nobody = format!("mysql://u:p@{}", nobody.addr());
    let mut node = Node::new(&[
        ("sources/gone.yaml", mysql_source(&nobody, "x.*")),
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*") + "mirror: [\"shop.*\"]\n"),
        ("sinks/file.yaml", "kind: sqlite\npath: ./out.db\n".into()),
        ("sinks/away.yaml", format!("kind: nats\nurl: nats://{}\n", nowhere.addr())),
        // Out of a BIGINT's range for 5: one change is parked.
        (
            "flows/a.yaml",
            "from: shop\nto: file\nverify: \"* * * * *\"\ntransform:\n  - set: {n: \"id * 4611686018427387904\"}\n".into(),
        ),
        ("flows/b.yaml", "from: shop\nto: away\n".into()),
        (
            "mesh.yaml",
            format!(
                "listeners: [{{name: door, bind: \"127.0.0.1:0\", tenants: [shop]}}]\n\
                 groups: {{shop: {{topology: static, backends: [{{addr: 127.0.0.1:{}}}, {{addr: \"{}\", role: replica}}]}}}}\n",
                server.port(),
                nowhere.addr(),
            ),
        ),
    ]);
    run_all(&server, &["INSERT INTO shop.a VALUES (0)"]).await;
    node.start();
    node.wait("streaming", |s| s["sources"][1]["snapshot"]["state"] == "done").await;
    run_all(&server, &["INSERT INTO shop.a VALUES (1), (5)"]).await;
    let status = node
        .wait("one is parked, one flow is away, and one source", |s| {
            let (flows, sources) = (&s["flows"], &s["sources"]);
            flows[0]["dead_letters"] == 1
                && flows[0]["lag_changes"] == 0
                && flows[1]["lag_ms"].as_u64() > Some(0)
                && !sources[0]["error"].is_null()
        })
        .await;
    assert_eq!(
        (&status["flows"][0]["kind"], &status["flows"][1]["kind"]),
        (&"sqlite".into(), &"nats".into())
    );
    let text = async || {
        let answer = reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap();
        answer.text().await.unwrap()
    };
    let holds = |text: &str, line: &str| text.lines().any(|have| have == line);
    // The second look at the away sink is the first retry.
    node.until("everything has had a value", || async {
        let text = text().await;
        text.contains("tidemill_flow_delivery_retries_total{flow=\"b\",kind=\"nats\"}")
            && text.contains("tidemill_flow_verify_differences{flow=\"a\"}")
            && text.contains("tidemill_flow_journal_bytes{source=\"shop\"}")
            && text.contains("tidemill_flow_holds_journal{flow=\"b\",kind=\"nats\"}")
            && text.contains("tidemill_flow_capture_lag_seconds{source=\"shop\"}")
            && text.contains(&format!(
                "tidemill_mesh_backend_up{{group=\"shop\",backend=\"127.0.0.1:{}\"}} 1",
                server.port()
            ))
    })
    .await;
    let text = text().await;
    for line in [
        "tidemill_flow_delivery_lag_changes{flow=\"a\",kind=\"sqlite\"} 0",
        "tidemill_flow_delivery_lag_seconds{flow=\"a\",kind=\"sqlite\"} 0",
        "tidemill_flow_delivery_interrupted{flow=\"a\",kind=\"sqlite\"} 0",
        "tidemill_flow_delivery_interrupted{flow=\"b\",kind=\"nats\"} 1",
        "tidemill_flow_delivery_failed{flow=\"b\",kind=\"nats\"} 0",
        "tidemill_flow_capture_interrupted{source=\"gone\"} 1",
        "tidemill_flow_parked_changes_total{flow=\"a\",kind=\"sqlite\"} 1",
        "tidemill_flow_dead_letters{flow=\"a\",kind=\"sqlite\"} 1",
        &format!("tidemill_mesh_backend_up{{group=\"shop\",backend=\"{}\"}} 0", nowhere.addr()),
    ] {
        assert!(holds(&text, line), "{line}\n{text}");
    }
    // Only a source of TiCDC's topics serves it: `ticdc` looks at its value there.
    let text = text + "tidemill_flow_capture_watermark_stalled{source=\"tidb\"} 0\n";
    let served = served(&text);
    let used = used();
    assert!(used.len() > 30, "the files are read: {}", used.len());
    let wrong: Vec<String> = used.iter().flat_map(|(expr, labels)| faults(expr, labels, &served)).collect();
    assert_eq!(wrong, Vec::<String>::new());
    // What a wrong name does.
    let label = |name: &str| vec![name.to_owned()];
    for (expression, labels, wanted) in [
        (
            "rate(tidemill_flow_delivered_rows_total[5m]) > 1",
            vec![],
            "tidemill_flow_delivered_rows_total of ",
        ),
        ("tidemill_flow_dead_letters{stream=\"a\"} > 0", vec![], "tidemill_flow_dead_letters{stream}"),
        ("tidemill_flow_dead_letters > 0", label("source"), "tidemill_flow_dead_letters{source}"),
        ("sum(tidemill_mesh_backend_up) by (server)", vec![], "tidemill_mesh_backend_up{server}"),
    ] {
        let told = faults(expression, &labels, &served);
        assert!(told.len() == 1 && told[0].starts_with(wanted), "{told:?}");
    }
}

#[test]
fn every_alert_says_what_to_do_and_where_it_is_written() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        let text = |name: &str| rule.annotations.get(name).cloned().unwrap_or_default();
        assert!(names.insert(rule.alert.clone()), "{} is there twice", rule.alert);
        assert!(text("summary").len() > 10 && text("description").len() > 20, "{}", rule.alert);
        let runbook = text("runbook_url");
        let (page, anchor) = runbook.split_once('#').unwrap();
        let page = fs::read_to_string(root().join(page)).unwrap();
        assert!(anchors(&page).iter().any(|known| known == anchor), "{}: {runbook}", rule.alert);
    }
    assert!(names.len() >= 10);
}
