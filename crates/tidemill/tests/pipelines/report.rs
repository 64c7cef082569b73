//! What a node reports by itself.

use crate::node::Node;
use std::fs;
use testkit::{Reply, Webhook};

fn node(hook: &Webhook, more: &str) -> Node {
    let mut node = Node::new(&[]);
    node.env(&[("REPORT_TOKEN", "s3cr3t-token")]);
    let yaml = fs::read_to_string(node.path("tidemill.yaml")).unwrap();
    let report = format!(
        "{yaml}report:\n  url: http://{}/metrics/job/tidemill/instance/shop\n  every: 1s\n  headers: {{authorization: \"Bearer ${{env:REPORT_TOKEN}}\"}}\n{more}",
        hook.addr()
    );
    node.write("tidemill.yaml", &report);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_pushed_and_a_server_that_refuses_them_is_told_of_once() {
    let hook = Webhook::start().await.unwrap();
    let mut node = node(&hook, "");
    node.start();
    node.until("two reports", async || hook.requests().len() >= 2).await;
    let first = &hook.requests()[0];
    assert_eq!((first.method.as_str(), first.uri.path()), ("POST", "/metrics/job/tidemill/instance/shop"));
    assert_eq!(first.header("authorization"), "Bearer s3cr3t-token");
    assert_eq!(first.header("content-type"), "text/plain; version=0.0.4");
    let text = String::from_utf8(first.body.to_vec()).unwrap();
    let memory = text.lines().find(|line| line.starts_with("tidemill_node_memory_bytes ")).unwrap();
    assert!(memory.split(' ').nth(1).unwrap().parse::<f64>().unwrap() > 1e6, "{memory}");
    hook.answer(|_| Reply::Status(507, &[], "no room here"));
    let before = hook.requests().len();
    node.until("three refusals", async || hook.requests().len() >= before + 3).await;
    hook.answer(|_| Reply::Status(204, &[], ""));
    node.until("it is over", async || node.log().contains("reports arrive again")).await;
    let text = String::from_utf8(hook.requests().last().unwrap().body.to_vec()).unwrap();
    let lost = text.lines().find(|line| line.starts_with("tidemill_node_reports_lost_total ")).unwrap();
    assert!(lost.split(' ').nth(1).unwrap().parse::<u32>().unwrap() >= 2, "{lost}");
    let log = fs::read_to_string(node.path("tidemill.log")).unwrap();
    assert_eq!(log.matches("no room here").count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
    let count = hook.requests().len();
    node.stop();
    assert!(hook.requests().len() > count, "what is true at the end is reported");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_pushed_where_it_is_asked_for() {
    let hook = Webhook::start().await.unwrap();
    let mut node = node(&hook, "  format: status\n");
    node.start();
    node.until("a report", async || !hook.requests().is_empty()).await;
    let status: serde_json::Value = serde_json::from_slice(&hook.requests()[0].body).unwrap();
    assert_eq!(status["name"], "test");
    assert!(status["sources"].is_array() && status["flows"].is_array(), "{status}");
    node.stop();
}

#[test]
fn a_report_that_cannot_be_is_refused_before_anything_starts() {
    let node = Node::new(&[]);
    let yaml = fs::read_to_string(node.path("tidemill.yaml")).unwrap();
    for (report, wanted) in [
        ("{url: \"ftp://x/\"}", "does not begin with http"),
        ("{url: \"http://127.0.0.1:1/\", every: 2h}", "between 1s and 1h"),
        ("{url: \"http://127.0.0.1:1/\", headers: {host: x}}", "set by Tidemill itself"),
        ("{url: \"http://127.0.0.1:1/\", headers: {a: \"${env:NO_SUCH_TOKEN}\"}}", "NO_SUCH_TOKEN"),
    ] {
        node.write("tidemill.yaml", &format!("{yaml}report: {report}\n"));
        let (code, _, err) = node.run(&["check"]);
        assert!(code == 2 && err.contains(wanted) && err.contains("tidemill.yaml:"), "{code} {err}");
    }
}
