//! A new process takes the place of a running node, under a client in a transaction and a flow that delivers.

use crate::node::{Node, assert_dense, mysql_source, run_all, sqlite_rows};
use serde_json::Value;
use std::process::Command;
use std::time::Instant;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, OptsBuilder};
use testkit::{MySql, MySqlOptions, Port};

/// A process that is nobody's child here; killed at the end, whatever happens.
pub struct Heir(pub u32);

impl Heir {
    pub fn lives(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0)).is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", &self.0.to_string()]).status();
    }
}

pub async fn client(door: &Port) -> Conn {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(door.number())
        .user(Some("root"))
        .db_name(Some("shop"))
        .prefer_socket(false);
    Conn::new(opts).await.unwrap()
}

fn mesh(door: &Port, server: &MySql) -> String {
    format!(
        "listeners: [{{name: door, bind: \"{}\", tenants: [shop]}}]\ngroups:\n  shop:\n    backends: [{{addr: \"127.0.0.1:{}\"}}]\n",
        door.addr(),
        server.port()
    )
}

pub fn upgrade(node: &Node) -> (Value, Heir) {
    let (code, out, err) = node.run(&["mesh", "upgrade", "--json"]);
    assert_eq!(code, 0, "{out}{err}\n{}", node.log());
    let told: Value = serde_json::from_str(&out).unwrap();
    let heir = Heir(u32::try_from(told["pid"].as_u64().unwrap()).unwrap());
    (told, heir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_and_a_flow_go_on_in_the_new_process_and_a_bad_one_changes_nothing() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &["CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, note VARCHAR(40))"],
    )
    .await;
    let door = Port::reserve().unwrap();
    let mut node = Node::new(&[
        ("mesh.yaml", mesh(&door, &server)),
        ("sources/src.yaml", mysql_source(&format!("mysql://root@127.0.0.1:{}", server.port()), "shop.*")),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".to_owned()),
        ("flows/copy.yaml", "from: src\nto: copy\n".to_owned()),
    ]);
    node.start();
    let serves = |status: &Value| {
        status["mesh"]["groups"][0]["backends"][0]["state"] == "up"
            && status["sources"][0]["state"] == "stream"
    };
    node.wait("it serves", serves).await;
    let mut conn = client(&door).await;
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO orders VALUES (1, 'before')").await.unwrap();

    // Nothing of a bad upgrade is felt.
    let (code, _, err) = node.run(&["mesh", "upgrade", "--binary", "/bin/false"]);
    assert!(
        code == 1 && err.contains("the old process serves on: ") && err.contains("hint: "),
        "{code}: {err}"
    );
    node.write("mesh.yaml", &mesh(&door, &server).replace("tenants: [shop]", "tenants: [shpo]"));
    let (code, _, err) = node.run(&["mesh", "upgrade"]);
    assert!(code == 1 && err.contains("there is no group `shpo`"), "{code}: {err}");
    node.write("mesh.yaml", &mesh(&door, &server));
    conn.query_drop("INSERT INTO orders VALUES (2, 'still before')").await.unwrap();

    let id = conn.id();
    let (told, first) = upgrade(&node);
    assert_eq!((&told["moved"], &told["left"], &told["ended"]), (&1.into(), &0.into(), &0.into()), "{told}");
    assert_eq!(node.ended(), Some(0), "the old process has ended well\n{}", node.log());
    conn.query_drop("INSERT INTO orders VALUES (3, 'after')").await.unwrap();
    conn.query_drop("COMMIT").await.unwrap();
    assert_eq!(conn.query_first::<u32, _>("SELECT CONNECTION_ID() IS NOT NULL").await.unwrap(), Some(1));
    assert_eq!(conn.id(), id);
    // The flow goes on where it was, and so does the HTTP port.
    let copied = || async {
        sqlite_rows(&node.path("copy.db"), "SELECT id, note FROM orders ORDER BY id")
            == [["1", "before"], ["2", "still before"], ["3", "after"]]
    };
    node.until("the transaction is delivered", copied).await;
    node.wait("it serves", |status| serves(status) && status["mesh"]["sessions"] == 1).await;

    // And once more, from a process that has itself taken over.
    let (told, second) = upgrade(&node);
    assert_eq!(told["moved"], 1, "{told}");
    node.until("the process before has ended", || async { !first.lives() }).await;
    conn.query_drop("INSERT INTO orders VALUES (4, 'later')").await.unwrap();
    let mut other = client(&door).await;
    assert_eq!(other.query_first::<u32, _>("SELECT COUNT(*) FROM orders").await.unwrap(), Some(4));
    node.wait("the last row is delivered", |status| {
        status["flows"][0]["lag_changes"] == 0 && status["flows"][0]["lsn"].as_u64() >= Some(4)
    })
    .await;
    // It ends as any node does.
    let ended = Command::new("kill").args(["-TERM", &second.0.to_string()]).status().unwrap();
    assert!(ended.success());
    let began = Instant::now();
    node.until("it has ended", || async { !second.lives() }).await;
    assert!(began.elapsed() < node.patience);
    assert_dense(&node.changes("src"));
    let (code, _, err) = node.run(&["mesh", "upgrade"]);
    assert!(code == 3 && err.contains("no node with a mesh hears"), "{code}: {err}");
}
