//! `examples/mesh`: three servers, of which the writer is killed and a replica promoted as the README says.

use super::{load, script};
use crate::node::Node;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, OptsBuilder};
use testkit::{MySql, MySqlOptions, Port};

/// Roles and states of the servers, in the order of `mesh.yaml`.
fn servers(node: &Node) -> Vec<String> {
    let status = node.status();
    let backends = status["mesh"]["groups"][0]["backends"].as_array().cloned().unwrap_or_default();
    let words = |key: &str, server: &serde_json::Value| server[key].as_str().unwrap().to_owned();
    backends.iter().map(|server| format!("{} {}", words("role", server), words("state", server))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_followed_by_a_client_that_keeps_its_connection() {
    let mut all = Vec::new();
    for server_id in 1..=3 {
        all.push(MySql::start(MySqlOptions { server_id, ..MySqlOptions::default() }).await.unwrap());
    }
    let door = Port::reserve().unwrap();
    let ports = [(3306, all[0].port()), (3307, all[1].port()), (3308, all[2].port()), (7400, door.number())];
    let addresses: Vec<_> =
        ports.iter().map(|(port, real)| (format!("127.0.0.1:{port}"), format!("127.0.0.1:{real}"))).collect();
    let addresses: Vec<_> = addresses.iter().map(|(port, real)| (port.as_str(), real.clone())).collect();
    let sql = |name: &str| {
        let mut text = script(&format!("mesh/{name}.sql"));
        for (port, real) in ports {
            text = text.replace(&format!("SOURCE_PORT = {port}"), &format!("SOURCE_PORT = {real}"));
        }
        text
    };
    all[0].exec(&sql("writer")).await.unwrap();
    for replica in &all[1..] {
        replica.exec(&sql("replica")).await.unwrap();
        replica.caught_up_with(&all[0]).await.unwrap();
    }
    let env = [("SHOP_PASSWORD", "shop-secret"), ("MESH_MONITOR_PASSWORD", "monitor-secret")];
    let mut node = load("mesh", &addresses, &env);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();
    node.until("roles are known", || async { servers(&node) == ["writer up", "replica up", "replica up"] })
        .await;
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(door.number())
        .user(Some("shop"))
        .pass(Some("shop-secret"))
        .db_name(Some("shop"))
        .prefer_socket(false);
    let mut conn = Conn::new(opts).await.unwrap();
    conn.query_drop("INSERT INTO orders (product, quantity) VALUES ('tea', 1)").await.unwrap();
    assert_eq!(conn.query_first::<u32, _>("SELECT quantity FROM orders").await.unwrap(), Some(1));
    for replica in &all[1..] {
        replica.caught_up_with(&all[0]).await.unwrap();
    }
    all[0].kill9();
    node.until("the writer is down", || async { servers(&node)[0] == "writer down" }).await;
    assert_eq!(
        conn.query_first::<u32, _>("SELECT quantity FROM orders").await.unwrap(),
        Some(1),
        "reads go on"
    );
    all[1].exec(&sql("promote")).await.unwrap();
    all[2].exec(&sql("follow")).await.unwrap();
    node.until("the replica writes", || async { servers(&node)[1..] == ["writer up", "replica up"] }).await;
    conn.query_drop("INSERT INTO orders (product, quantity) VALUES ('rice', 2)").await.unwrap();
    let kept: Vec<u32> = conn.query("SELECT quantity FROM orders ORDER BY id").await.unwrap();
    assert_eq!(kept, [1, 2]);
    all[2].caught_up_with(&all[1]).await.unwrap();
    assert_eq!(node.status()["mesh"]["moved"].as_u64(), Some(1));
    node.stop();
}
