//! The SQL proxy as a process: what `up` serves, what `tidemill mesh` tells of it, which mistakes are told, and how it ends.

use crate::node::{Node, run_all};
use serde_json::Value;
use std::process::Command;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Error, OptsBuilder};
use testkit::{MySql, MySqlOptions, Port};

/// A writer and a replica that follows it; a table tells which of the two is asked.
struct Pair {
    writer: MySql,
    replica: MySql,
}

impl Pair {
    async fn start() -> Self {
        let writer = MySql::start(MySqlOptions::default()).await.unwrap();
        let replica = MySql::start(MySqlOptions { server_id: 2, ..MySqlOptions::default() }).await.unwrap();
        replica.replica_of(&writer).await.unwrap();
        run_all(
            &writer,
            &[
                "CREATE DATABASE shop",
                "CREATE TABLE shop.place (name VARCHAR(10) PRIMARY KEY)",
                "INSERT INTO shop.place VALUES ('writer')",
                "CREATE TABLE shop.orders (id INT PRIMARY KEY, note VARCHAR(40))",
                "CREATE USER shop@'%' IDENTIFIED BY 'shop-secret'",
                "GRANT ALL ON shop.* TO shop@'%'",
                "CREATE USER monitor@'%' IDENTIFIED BY 'monitor-secret'",
                "GRANT REPLICATION CLIENT ON *.* TO monitor@'%'",
            ],
        )
        .await;
        replica.caught_up_with(&writer).await.unwrap();
        replica
            .exec("SET sql_log_bin = 0; UPDATE shop.place SET name = 'replica'; SET GLOBAL super_read_only = ON")
            .await
            .unwrap();
        Self { writer, replica }
    }

    /// A node of a mesh alone.
    fn node(&self, door: &Port) -> Node {
        Node::new(&[("mesh.yaml", self.mesh(door, "monitor-secret"))])
    }

    fn mesh(&self, door: &Port, password: &str) -> String {
        let [writer, replica] = self.addresses();
        format!(
            "listeners:
  - {{name: door, bind: \"{}\", tenants: [shop]}}
groups:
  shop:
    backends: [{{addr: \"{writer}\"}}, {{addr: \"{replica}\"}}]
    monitor: {{user: monitor, password: {password}}}
    auth: vault
    users: [{{name: shop, password: shop-secret}}]
    read_write_split: true
",
            door.addr()
        )
    }

    fn addresses(&self) -> [String; 2] {
        [&self.writer, &self.replica].map(|server| format!("127.0.0.1:{}", server.port()))
    }
}

async fn client(door: &Port) -> Result<Conn, Error> {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(door.number())
        .user(Some("shop"))
        .pass(Some("shop-secret"))
        .db_name(Some("shop"))
        .prefer_socket(false);
    Conn::new(opts).await
}

async fn place(conn: &mut Conn) -> String {
    conn.query_first("SELECT name FROM place").await.unwrap().unwrap()
}

/// Whether each of two servers answers, and one of them alone takes writes.
fn known(status: &Value) -> bool {
    let servers = status["mesh"]["groups"][0]["backends"].as_array().cloned().unwrap_or_default();
    let roles: Vec<_> = servers.iter().map(|server| &server["role"]).collect();
    servers.iter().all(|server| server["state"] == "up") && roles == ["writer", "replica"]
}

/// What a command prints; it must succeed.
fn told(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = node.run(args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&told(node, &[args, &["--json"]].concat())).unwrap()
}

/// The one line of a table that holds `word`, with single blanks.
fn line(table: &str, word: &str) -> String {
    let mut lines = table.lines().filter(|line| line.contains(word));
    let (one, other) = (lines.next(), lines.next());
    assert!(other.is_none(), "{table}");
    one.unwrap_or_else(|| panic!("no line has {word}:\n{table}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_of_a_mesh_alone_serves_clients_and_tells_of_them() {
    let pair = Pair::start().await;
    let [writer, replica] = pair.addresses();
    let door = Port::reserve().unwrap();
    let mut node = pair.node(&door);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!((code, err.as_str()), (0, ""), "no word of flows that are missing");
    assert!(out.contains(&format!("{writer}: answers, version ")) && out.contains("takes writes"), "{out}");
    assert!(out.contains("read-only") && out.contains("1 group of servers"), "{out}");
    node.start();
    node.wait("both servers are known", known).await;
    assert!(!node.log().contains("there is no flow"), "{}", node.log());

    let mut conn = client(&door).await.unwrap();
    for id in 0..10 {
        conn.query_drop(format!("INSERT INTO orders VALUES ({id}, 'o''clock')")).await.unwrap();
        let seen: Option<String> =
            conn.exec_first("SELECT note FROM orders WHERE id = ?", (id,)).await.unwrap();
        assert_eq!(seen.as_deref(), Some("o'clock"));
    }
    conn.query_drop("INSERT INTO orders VALUES (0, 'twice')").await.unwrap_err();
    pair.replica.caught_up_with(&pair.writer).await.unwrap();
    // A replica that was once late is left alone for a second.
    let mut other = client(&door).await.unwrap();
    assert_eq!(place(&mut other).await, "replica");
    other.query_drop("BEGIN").await.unwrap();
    assert_eq!(place(&mut other).await, "writer");
    other.query_drop("COMMIT").await.unwrap();

    let status = node.status();
    let mesh = &status["mesh"];
    assert_eq!(mesh["listeners"][0]["address"], door.addr().to_string());
    assert_eq!((&mesh["sessions"], &mesh["broken"], &mesh["moved"]), (&2.into(), &0.into(), &0.into()));
    assert_eq!(&json(&node, &["mesh", "backends"])[0]["name"], "shop");
    let table = told(&node, &["mesh", "backends"]);
    assert!(line(&table, &writer).starts_with(&format!("shop {writer} writer up 2 ")), "{table}");
    assert!(line(&table, &replica).starts_with(&format!("shop {replica} replica up ")), "{table}");
    let text = told(&node, &["mesh", "status"]);
    assert_eq!(line(&text, "door"), format!("door {} no shop", door.addr()));
    assert!(text.contains("2 sessions now; "), "{text}");

    let digests = json(&node, &["mesh", "digests"]);
    let counted = |word: &str| {
        let all = digests.as_array().unwrap();
        let found: Vec<_> = all.iter().filter(|one| one["text"].as_str().unwrap().contains(word)).collect();
        assert_eq!(found.len(), 1, "{word}: {digests:#}");
        [&found[0]["calls"], &found[0]["errors"], &found[0]["rows"]].map(|count| count.as_u64().unwrap())
    };
    assert_eq!(counted("INSERT INTO"), [11, 1, 0]);
    assert_eq!(counted("`note`"), [10, 0, 10]);
    assert_eq!(counted("`place`"), [2, 0, 2]);
    let table = told(&node, &["mesh", "digests"]);
    assert!(line(&table, "`note`").starts_with("10 0 10 "), "{table}");
    assert!(!table.contains("clock") && !table.contains("twice"), "literals are left out: {table}");

    for (sql, wanted) in [
        ("SELECT * FROM orders WHERE id = 7", "goes to    replica of shop: only reads"),
        ("SELECT * FROM orders WHERE id = 7 FOR UPDATE", "goes to    writer of shop: locks rows"),
        ("UPDATE orders SET note = 'x'", "goes to    writer of shop: is no read"),
        ("CREATE TEMPORARY TABLE t (a INT)", "afterwards the session stays with its writer: temporary table"),
    ] {
        let text = told(&node, &["mesh", "explain", sql]);
        assert!(text.contains(wanted), "{text}");
    }

    // Reads leave a server that is drained, and come back.
    told(&node, &["mesh", "drain", "shop", &replica]);
    assert_eq!(place(&mut other).await, "writer");
    let mut third = client(&door).await.unwrap();
    assert_eq!(place(&mut third).await, "writer");
    let table = told(&node, &["mesh", "backends"]);
    assert!(line(&table, &replica).starts_with(&format!("shop {replica} replica draining ")), "{table}");
    told(&node, &["mesh", "undrain", "shop", &replica]);
    assert_eq!(place(&mut third).await, "replica");
    let (code, _, err) = node.run(&["mesh", "drain", "shop", "127.0.0.1:1"]);
    assert!(
        code != 0 && err.contains("group `shop` has no server `127.0.0.1:1`") && err.contains("hint: "),
        "{err}"
    );

    drop((conn, other, third));
    node.wait("the clients are gone", |s| s["mesh"]["sessions"] == 0).await;
    let metrics =
        reqwest::get(format!("http://{}/metrics", node.address())).await.unwrap().text().await.unwrap();
    for line in [
        "tidemill_mesh_sessions 0".to_owned(),
        "tidemill_mesh_accepted_clients_total 3".to_owned(),
        "tidemill_mesh_refused_clients_total 0".to_owned(),
        "tidemill_mesh_broken_sessions_total 0".to_owned(),
        format!("tidemill_mesh_backend_up{{group=\"shop\",backend=\"{replica}\"}} 1"),
        format!("tidemill_mesh_backend_writer{{group=\"shop\",backend=\"{writer}\"}} 1"),
        format!("tidemill_mesh_backend_writer{{group=\"shop\",backend=\"{replica}\"}} 0"),
        format!("tidemill_mesh_backend_connections{{group=\"shop\",backend=\"{writer}\"}} 0"),
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line}\n{metrics}");
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_finished_before_a_stopping_node_ends() {
    let pair = Pair::start().await;
    let door = Port::reserve().unwrap();
    let mut node = pair.node(&door);
    node.start();
    node.wait("both servers are known", known).await;
    let (mut busy, mut idle) = (client(&door).await.unwrap(), client(&door).await.unwrap());
    busy.query_drop("BEGIN").await.unwrap();
    busy.query_drop("INSERT INTO orders VALUES (1, 'before')").await.unwrap();
    assert_eq!(place(&mut idle).await, "replica");
    let killed = Command::new("kill").args(["-TERM", &node.pid().to_string()]).status().unwrap();
    assert!(killed.success());
    node.until("nobody new is let in", || async { client(&door).await.is_err() }).await;
    let refused = idle.query_drop("SELECT 1").await.unwrap_err().to_string();
    assert!(refused.contains("1053") && refused.contains("shutdown"), "{refused}");
    busy.query_drop("INSERT INTO orders VALUES (2, 'after')").await.unwrap();
    busy.query_drop("COMMIT").await.expect("a commit is answered");
    assert_eq!(node.ended(), Some(0), "{}", node.log());
    assert!(!node.log().contains("gave up waiting"), "{}", node.log());
    let kept: Vec<u32> = pair.writer.query("SELECT id FROM shop.orders ORDER BY id").await.unwrap();
    assert_eq!(kept, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_mesh_yaml_are_told_together_with_their_lines() {
    let node = Node::new(&[(
        "mesh.yaml",
        "listeners:
  - {name: door, bind: 127.0.0.1:7400, tenants: [shpo]}
groups:
  shop:
    backends:
      - {addr: 127.0.0.1}
      - {addr: 127.0.0.1:3307, role: replica}
    auth: vault
    users: []
"
        .to_owned(),
    )]);
    let (code, _, err) = node.run(&["check"]);
    assert_eq!(code, 2, "{err}");
    for (line, message, hint) in [
        (2, "there is no group `shpo`", "groups are: shop"),
        (6, "`127.0.0.1` is not `host:port`", "for example: addr: 127.0.0.1:3306"),
        (7, "`127.0.0.1:3307` has a `role`", "topology: static"),
        (4, "`topology: auto` with several backends needs `monitor`", "monitor: {user: "),
        (9, "nobody may come in: `users` is empty", "users: [{name: "),
    ] {
        let at = err.find(message).unwrap_or_else(|| panic!("{message} is not in\n{err}"));
        let (before, behind) = err.split_at(at);
        let place = before.rsplit('\n').next().unwrap();
        assert!(place.starts_with(&format!("mesh.yaml:{line}:")), "{place}{message} is of line {line}");
        assert!(behind.lines().nth(1).unwrap().contains(hint), "{behind}");
    }
    node.write("mesh.yaml", "listeners: []\ngroups:\n  shop:\n    backend: []\n");
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("mesh.yaml:4:") && err.contains("backend"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_is_not_let_in_and_a_server_that_is_away_are_told_before_the_start() {
    let pair = Pair::start().await;
    let [writer, replica] = pair.addresses();
    let door = Port::reserve().unwrap();
    let node = pair.node(&door);
    node.write("mesh.yaml", &pair.mesh(&door, "another"));
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 3, "{err}");
    for address in [&writer, &replica] {
        assert!(err.contains(&format!("{address}: the monitor cannot log in: ")), "{err}");
    }
    assert!(err.contains("Access denied") && err.contains("hint: create user 'monitor'@'%'"), "{err}");
    pair.replica.kill9();
    node.write("mesh.yaml", &pair.mesh(&door, "monitor-secret"));
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 3, "{err}");
    let line = err.lines().find(|line| line.contains(&replica)).unwrap();
    assert!(line.contains("refused") && err.contains("hint: is the server up"), "{err}");
    assert!(!err.contains(&writer), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_told_learnt_and_changed_while_the_node_runs() {
    let pair = Pair::start().await;
    let door = Port::reserve().unwrap();
    let mut node = pair.node(&door);
    let mesh = |rules: &str| format!("{}{rules}", pair.mesh(&door, "monitor-secret"));
    let observe = "    rules:
      - name: no-unbounded
        match: {kinds: [update, delete], without_where: true}
        action: observe
    allow_list: {mode: learn, file: ./shop.allow.yaml}
";
    node.write("mesh.yaml", &mesh(observe));
    node.start();
    node.wait("both servers are known", known).await;
    let mut conn = client(&door).await.unwrap();
    conn.query_drop("DELETE FROM orders").await.unwrap();
    conn.query_drop("INSERT INTO orders VALUES (1, 'o''clock')").await.unwrap();
    let table = told(&node, &["mesh", "rules"]);
    assert!(table.contains("no-unbounded") && table.contains("DELETE FROM `orders`"), "{table}");
    let rules = json(&node, &["mesh", "rules"]);
    assert_eq!(rules["groups"][0]["rules"]["rules"][0]["hits"], 1);
    assert_eq!(
        (&rules["noted"][0]["user"], &rules["noted"][0]["action"]),
        (&"shop".into(), &"observe".into())
    );
    assert!(node.log().contains("a rule met a statement"), "{}", node.log());

    let printed = told(&node, &["mesh", "learn"]);
    assert!(printed.contains("INSERT INTO `orders` VALUES (...)") && !printed.contains("clock"), "{printed}");
    assert!(told(&node, &["mesh", "learn", "--write"]).contains("shop.allow.yaml"));
    let enforce = observe.replace("observe", "deny").replace("learn,", "enforce,");
    node.write("mesh.yaml", &mesh(&enforce));
    told(&node, &["check"]);
    told(&node, &["mesh", "reload"]);
    conn.query_drop("INSERT INTO orders VALUES (2, 'x')").await.unwrap();
    for (sql, rule) in [("DELETE FROM orders", "no-unbounded"), ("SELECT 1 FROM orders", "allow_list")] {
        let refused = conn.query_drop(sql).await.unwrap_err().to_string();
        assert!(refused.contains("1148") && refused.contains(&format!("`{rule}`")), "{refused}");
    }
    let text = told(&node, &["mesh", "explain", "DELETE FROM orders", "--user", "shop"]);
    assert!(text.contains("rules      deny by no-unbounded: it matches"), "{text}");

    // A mistake changes nothing, and is told with its place.
    for (bad, message) in [
        (enforce.replace("without_where: true", "pattern: \"(\""), "unclosed group"),
        (enforce.replace("update, delete", "select"), "rules[0] `no-unbounded`: match.without_where"),
        (
            enforce.replace("./shop.allow", "./other.allow"),
            "allow_list.file: `./other.allow.yaml` is not there",
        ),
    ] {
        node.write("mesh.yaml", &mesh(&bad));
        let (code, _, err) = node.run(&["mesh", "reload"]);
        assert!(code != 0 && err.contains("nothing has changed") && err.contains(message), "{err}");
        assert!(err.contains("mesh.yaml:1"), "{err}");
        conn.query_drop("DELETE FROM orders").await.unwrap_err();
    }
    let url = format!("http://{}/metrics", node.address());
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    let line = "tidemill_mesh_rule_hits_total{group=\"shop\",rule=\"no-unbounded\",action=\"deny\"} 5";
    assert!(metrics.lines().any(|have| have == line), "{metrics}");
    node.stop();
}
