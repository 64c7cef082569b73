//! `clients/typescript` and `examples/live`, in Node and in a real browser: the page moves with MySQL, is readable while the node is gone and
//! without any server at all, and has every row when they are back.

use crate::node::{Node, PATIENCE, run_all, streams};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;
use testkit::{MySql, MySqlOptions, Port, SqlServer, installed};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The client and the page, built in a folder of their own.
pub struct TypeScript {
    dir: TempDir,
}

impl TypeScript {
    pub fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["clients/typescript", "examples/live", "examples/chat"] {
            copy(&Path::new(ROOT).join(name), &dir.path().join(name));
        }
        let built = Self { dir };
        let modules = installed("typescript").unwrap().join("node_modules");
        std::os::unix::fs::symlink(&modules, built.path("clients/typescript/node_modules")).unwrap();
        for project in ["clients/typescript", "examples/live"] {
            let mut compile = Command::new("node");
            compile.arg(modules.join("typescript/bin/tsc")).arg("--project").arg(built.path(project));
            said(&mut compile);
        }
        built
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// What belongs to the repository; what was built beside it stays.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if ["node_modules", "dist", "data"].iter().any(|built| name == *built) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn said(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}\n{text}");
    text
}

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the page, at a port that is the same after a restart.
fn serve(typescript: &TypeScript, port: &Port, node: &Node) -> Running {
    let child = Command::new("node")
        .arg(typescript.path("examples/live/serve.mjs"))
        .args([port.number().to_string(), format!("http://{}", node.address())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Running(child);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("http://"), "{line}");
    server
}

/// A Chromium that does what it is told, a command at a time; `live/browser.mjs` describes them.
pub struct Browser {
    driver: Child,
    into: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/live/browser.mjs");
        let mut driver = Command::new("node")
            .arg(script)
            .arg(installed("chromium").unwrap().join("bin/chromium"))
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let into = driver.stdin.take();
        let from = BufReader::new(driver.stdout.take().unwrap());
        Self { driver, into, from, _profile: profile }
    }

    pub fn command(&mut self, command: &Value) -> Result<Value, String> {
        writeln!(self.into.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no answer: {line}"));
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["value"].take()),
        }
    }

    pub fn open(&mut self, url: &str) {
        self.command(&json!({ "open": url })).unwrap();
    }

    fn tab(&mut self, tab: u32) {
        self.command(&json!({ "tab": tab })).unwrap();
    }

    pub fn ask(&mut self, expression: &str) -> Value {
        self.command(&json!({ "ask": expression })).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits in the page until an expression is true.
    fn until(&mut self, expression: &str) {
        let end = std::time::Instant::now() + PATIENCE;
        // Looked at with each of the page's changes, and now and then.
        let look = format!(
            "new Promise((done) => {{ const look = () => {{ if ({expression}) done(true); }};
               orders.onChange(look); orders.onStatus(look); look(); setTimeout(() => done(false), 2000); }})"
        );
        while self.ask(&look) != true {
            let state = self.ask("[document.body.innerText, orders.size, String(orders.status.error)]");
            assert!(std::time::Instant::now() < end, "waited for {expression}\n{state:#}");
        }
    }

    /// The copy's rows, as the application has them.
    fn rows(&mut self) -> Value {
        self.ask("orders.rows().map((row) => [row.id, row.customer, row.product, row.amount, row.status])")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser when nothing more can come.
        self.into = None;
        let _ = self.driver.wait();
    }
}

pub async fn orders_of(server: &SqlServer) -> Value {
    let sql = "SELECT id, customer, product, CAST(amount AS CHAR), CAST(status AS CHAR) FROM shop.orders ORDER BY id";
    let rows: Vec<(i64, String, String, String, String)> = server.query(sql).await.unwrap();
    json!(rows)
}

pub async fn project(server: &MySql) -> Node {
    let script = |name: &str| fs::read_to_string(Path::new(ROOT).join("examples/live").join(name)).unwrap();
    server.exec(&script("source.sql")).await.unwrap();
    let mut node = Node::new(&[(
        "sources/shop.yaml",
        script("sources/shop.yaml").replace("127.0.0.1:3306", &format!("127.0.0.1:{}", server.port())),
    )]);
    node.env(&[("SHOP_PASSWORD", "cdc-secret")]);
    node
}

#[test]
fn the_typescript_client_passes_its_own_tests() {
    let typescript = TypeScript::build();
    let mut run = Command::new("node");
    run.arg("--test").arg(typescript.path("clients/typescript/dist/test/")).env_remove("NODE_TEST_CONTEXT");
    let text = said(&mut run);
    assert!(text.contains("fail 0") && !text.contains("pass 0"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_is_readable_while_everything_is_gone_and_has_every_row_when_it_is_back() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let mut node = project(&server).await;
    node.start();
    node.wait("it streams", streams).await;
    let typescript = TypeScript::build();
    let port = Port::reserve().unwrap();
    let url = format!("http://{}/", port.addr());
    let pages = serve(&typescript, &port, &node);
    let mut browser = Browser::start();
    browser.open(&url);
    browser.until("orders.status.state === 'live' && orders.size === 1000");
    assert_eq!(browser.rows(), orders_of(&server).await);
    // The page is drawn from them, and moves.
    run_all(&server, &["UPDATE shop.orders SET customer = 'Zoe', amount = 12345.67 WHERE id = 1000"]).await;
    browser.ask("orders.mark()");
    browser.until("document.querySelector('#latest').innerText.includes('Zoe')");
    let shown = browser
        .ask("[document.querySelector('#orders').innerText, document.querySelector('#latest').innerText]");
    assert!(
        shown[0] == "1,000" && shown[1].as_str().is_some_and(|text| text.contains("€12,345.67")),
        "{shown}"
    );

    // A second page on the same copy does not ask again, and sees what the first one is sent.
    browser.tab(1);
    browser.open(&url);
    browser.until("orders.status.state === 'live' && orders.size === 1000");
    run_all(&server, &["DELETE FROM shop.orders WHERE id <= 10"]).await;
    // Its marks are reached through the other.
    browser.ask("orders.mark()");
    assert_eq!(browser.ask("orders.size"), 990);
    assert_eq!(
        browser.ask("navigator.locks.query().then(({ held, pending }) => [held.length, pending.length])"),
        json!([1, 1])
    );
    // When that one is closed, it follows by itself.
    browser.command(&json!({ "tab": 0, "close": true })).unwrap();
    browser.tab(1);
    browser.until("orders.status.state === 'live'");
    browser.ask("orders.mark()");
    browser.ask("navigator.serviceWorker.ready.then(() => true)");
    // Now that there is one to see them, it keeps the page's files.
    browser.open(&url);
    browser.until("orders.status.state === 'live' && orders.size === 990");

    // The node is gone: the page says so, and keeps what it has.
    let before = browser.rows();
    node.kill9();
    browser.until("orders.status.state === 'offline'");
    assert_eq!(browser.rows(), before);
    run_all(
        &server,
        &[
            "UPDATE shop.orders SET status = 'sent', customer = CONCAT(customer, ' 米') WHERE id > 900",
            "DELETE FROM shop.orders WHERE id BETWEEN 20 AND 29",
            "INSERT INTO shop.orders (id, customer, product, amount) VALUES (5000, 'Late', 'Matcha', 1)",
            "UPDATE shop.orders SET id = 6000 WHERE id = 40",
        ],
    )
    .await;
    // So is the server of the page: it opens all the same, with its rows.
    drop(pages);
    browser.open(&url);
    browser.until("orders.size === 990 && orders.status.state === 'offline' && orders.status.error");
    assert_eq!(browser.rows(), before);
    browser.until(
        "document.querySelector('#orders').innerText === '990' && document.body.dataset.state === 'offline'",
    );

    // Both are back.
    let _pages = serve(&typescript, &port, &node);
    node.start();
    browser.until("orders.status.state === 'live'");
    browser.ask("orders.mark()");
    assert_eq!(browser.rows(), orders_of(&server).await);
    // By the node's own checksum also, which it sends now and then.
    browser.until("orders.status.proven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_follows_with_a_token_and_without_one_is_told_that_it_may_not() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let mut node = project(&server).await;
    let typescript = TypeScript::build();
    let port = Port::reserve().unwrap();
    let settings = format!(
        "name: test\nlisten: {{http: \"{}\"}}\nhttp: {{cors: [\"http://{}\"]}}\n",
        node.address(),
        port.addr()
    );
    node.write("tidemill.yaml", &settings);
    let token = |node: &Node, name: &str, more: &[&str]| {
        let (code, out, err) = node.run(&[&["token", "create", name], more].concat());
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    };
    let operator = token(&node, "operator", &["--scope", "admin"]);
    let phone = token(&node, "phone", &["--scope", "subscribe:shop", "--rows", "shop.orders=id > 990"]);
    node.env(&[("TIDEMILL_TOKEN", &operator)]);
    node.start();
    node.wait("it streams", streams).await;
    let _pages = serve(&typescript, &port, &node);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/icon.svg", port.addr()));
    let follow = |bearer: &str| {
        format!(
            "import('/client/index.js').then(({{ follow }}) => {{
               globalThis.orders = follow({{ url: 'http://{}', bearer: {bearer}, shape: {{ source: 'shop', table: 'shop.orders' }} }});
             }})",
            node.address()
        )
    };
    browser.ask(&follow("undefined"));
    browser.until("orders.status.state === 'refused' && orders.status.error.message.includes('token')");
    browser.ask(&follow(&format!("'{phone}'")));
    browser.until("orders.status.state === 'live' && orders.status.proven");
    let ids: Vec<u64> = (991..=1000).collect();
    assert_eq!(browser.ask("orders.rows().map((row) => row.id)"), json!(ids));
    // A right that is taken away ends it.
    let (code, _, err) = node.run(&["token", "revoke", "phone"]);
    assert_eq!(code, 0, "{err}");
    browser.until("orders.status.state === 'refused'");
}
