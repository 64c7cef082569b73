//! A node in the background: it is found, kept from being started twice, replaced by an upgrade, and ended.

use crate::mesh_upgrade::{Heir, upgrade};
use crate::node::Node;
use std::fs;
use std::process::Command;
use testkit::Port;

/// The process that the pid file names, if it does.
fn number(node: &Node) -> Option<u32> {
    fs::read_to_string(node.path("data/tidemill.pid")).unwrap().trim().parse().ok()
}

fn in_background(node: &Node) -> Heir {
    let (code, out, err) = node.run(&["up", "--daemon"]);
    assert_eq!(code, 0, "{out}{err}");
    let pid = number(node).unwrap();
    assert!(out.contains(&format!("process {pid},")) && out.contains("tidemill.log"), "{out}");
    Heir(pid)
}

fn project() -> (Node, Port) {
    let door = Port::reserve().unwrap();
    let mesh = format!(
        "listeners: [{{name: door, bind: \"{}\", tenants: [shop]}}]\ngroups:\n  shop:\n    backends: [{{addr: \"127.0.0.1:1\"}}]\n",
        door.addr()
    );
    (Node::new(&[("mesh.yaml", mesh)]), door)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_the_background_is_found_and_ended_and_found_dead_when_it_was_killed() {
    let (node, _door) = project();
    let (code, _, err) = node.run(&["down"]);
    assert!(code == 1 && err.contains("no node"), "{err}");
    let first = in_background(&node);
    // It serves when the command comes back.
    assert_eq!(node.status()["name"], "test");
    let (code, _, err) = node.run(&["up", "--daemon"]);
    assert!(code == 1 && err.contains("already") && err.contains("tidemill down"), "{err}");
    let killed = Command::new("kill").args(["-KILL", &first.0.to_string()]).status().unwrap();
    assert!(killed.success());
    node.until("the first is gone", async || !first.lives()).await;
    // Its number is still in the file, and perhaps another process's by now.
    let (code, _, err) = node.run(&["down"]);
    assert!(code == 1 && err.contains("no node"), "{err}");
    let second = in_background(&node);
    assert_ne!(first.0, second.0);
    let (code, out, err) = node.run(&["down"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&second.0.to_string()), "{out}");
    node.until("the second has ended", async || !second.lives()).await;
    let log = fs::read_to_string(node.path("data/tidemill.log")).unwrap();
    assert!(log.contains("up: status at") && log.contains("stopping"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_leaves_the_new_process_in_the_background() {
    let (node, _door) = project();
    let old = in_background(&node);
    let (_, heir) = upgrade(&node);
    node.until("the new process has its number in the file", async || number(&node) == Some(heir.0)).await;
    node.until("the old process has ended", async || !old.lives()).await;
    let (code, out, err) = node.run(&["down"]);
    assert!(code == 0 && out.contains(&heir.0.to_string()), "{out}{err}");
    node.until("the new process has ended", async || !heir.lives()).await;
}

#[test]
fn one_that_does_not_come_up_says_why_and_leaves_nothing() {
    let node = Node::new(&[("mesh.yaml", "groups: 1\n".to_owned())]);
    let (code, _, err) = node.run(&["up", "--daemon"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("mesh.yaml") && err.contains("did not come up"), "{err}");
    let (code, _, _) = node.run(&["down"]);
    assert_eq!(code, 1);
}
