//! gRPC-Web behind a proxy that buffers or cuts: the client says what is wrong, and in the end has each row once.

use crate::live::{TypeScript, orders_of, project};
use crate::node::{Node, PATIENCE, run_all, streams};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use testkit::{MySql, MySqlOptions};

/// The client and the proxy before it, in one process of Node; `live/proxied.mjs` describes what it is asked.
struct Client {
    child: Child,
    into: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Client {
    fn start(typescript: &TypeScript, node: &Node) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/live/proxied.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(typescript.path("clients/typescript/dist/src/index.js"))
            .arg(format!("http://{}", node.address()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (into, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            from.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)))
        });
        Self { child, into, lines }
    }

    fn ask(&mut self, expression: &str) -> Value {
        writeln!(self.into.as_mut().unwrap(), "{expression}").unwrap();
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {expression}"));
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null(), "{expression}: {answer}");
        answer["value"].take()
    }

    fn until(&mut self, expression: &str) {
        assert_eq!(self.ask(&format!("until(() => {expression})")), true);
    }

    fn rows(&mut self) -> Value {
        self.ask("orders.rows().map((row) => [row.id, row.customer, row.product, row.amount, row.status])")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.into = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn sell(server: &MySql, from: u32) {
    for id in from..from + 40 {
        let order = format!(
            "INSERT INTO shop.orders (id, customer, product, amount, status) VALUES ({id}, 'Ada', 'tea', {id}.5, 'new')"
        );
        run_all(server, &[&order, "UPDATE shop.orders SET amount = amount + 1 WHERE id = 7"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_that_buffers_or_cuts_the_client_says_so_and_has_each_row_once() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let mut node = project(&server).await;
    node.start();
    node.wait("it streams", streams).await;
    let typescript = TypeScript::build();
    let mut client = Client::start(&typescript, &node);
    const SILENT: &str = "told.errors.some((error) => error.includes('not even a heartbeat: does a proxy'))";
    // Nothing passes before the whole answer is there, and that has no end.
    client.ask("proxy.become('hold'), begin(), true");
    client.until(&format!("orders.status.state === 'offline' && {SILENT}"));
    assert_eq!(client.ask("orders.size"), 0);
    // Whole blocks pass: what is in the last waits for ever, but what passed is not asked for again.
    client.ask("proxy.become('blocks', 4096), told.errors = [], true");
    client.until(SILENT);
    client.ask("proxy.become('pass'), true");
    client.until("orders.status.state === 'live' && orders.size === 1000 && orders.status.proven");
    // Cut within a message, again and again, while the shop sells.
    client.ask("proxy.become('cut', 1500), true");
    sell(&server, 2001).await;
    client.until("proxy.cuts >= 3");
    sell(&server, 2041).await;
    client.ask("proxy.become('blocks', 1024), told.errors = [], true");
    sell(&server, 2081).await;
    client.until(SILENT);
    client.ask("proxy.become('pass'), true");
    client.until("orders.status.state === 'live' && orders.size === 1120");
    client.ask("orders.mark()");
    assert_eq!(client.rows(), orders_of(&server).await);
    // None was told twice, and none was forgotten.
    let often = client.ask("[told.inserts.size, Math.max(...told.inserts.values())]");
    assert_eq!(often, json!([1120, 1]));
    client.until("orders.status.proven");
}
