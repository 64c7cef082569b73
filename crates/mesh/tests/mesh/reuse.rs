//! Several meshes on one port, side by side: the kernel gives each its share of the clients.

use crate::support::until;
use anyhow::Result;
use mesh::{Mesh, MeshConfig};
use serde_json::json;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

fn config(bind: &str, weight: u32) -> MeshConfig {
    let door =
        json!({"name": "door", "bind": bind, "tenants": ["shop"], "reuse_port": true, "weight": weight});
    // Nobody listens there, and nobody needs to: clients are counted when they come.
    let group = json!({"backends": [{"addr": "127.0.0.1:1"}]});
    let config = json!({"listeners": [door], "groups": {"shop": group}, "threads": 1});
    let config: MeshConfig = serde_json::from_value(config).expect("it is a configuration");
    assert_eq!(config.problems(), []);
    config
}

async fn clients(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(TcpStream::connect(address).await?);
    }
    Ok(clients)
}

#[tokio::test]
async fn two_meshes_share_a_port_by_their_weights_and_one_that_comes_after_has_all_of_its_part() -> Result<()>
{
    const CLIENTS: usize = 400;
    let light = Mesh::start(&config("127.0.0.1:0", 1))?;
    let address = light.addresses()["door"];
    let heavy = Mesh::start(&config(&address.to_string(), 7))?;
    let held = clients(address, CLIENTS).await?;
    until("all have been accepted", async || {
        (light.status().accepted + heavy.status().accepted == CLIENTS as u64).then_some(())
    })
    .await?;
    let (few, many) = (light.status().accepted, heavy.status().accepted);
    assert!(few > 0 && many > 2 * few, "{few} and {many}");
    drop(held);

    // Another process takes over from the heavy one, with every socket: nobody is lost in one of them.
    let (one, other) = UnixStream::pair()?;
    let wanted = config(&address.to_string(), 7);
    let (heavy, gone) = tokio::task::spawn_blocking(move || -> Result<(Mesh, Mesh)> {
        let new = std::thread::spawn(move || -> Result<Mesh> {
            let mut successor = mesh::Successor::meet(other, "new")?;
            successor.watch = Duration::ZERO;
            let mesh = Mesh::start_as(&wanted, &mut successor)?;
            mesh.succeed(&successor)?;
            Ok(mesh)
        });
        heavy.hand_over(one, &[], Instant::now() + Duration::from_secs(20), &|| {})?;
        Ok((new.join().expect("it does not panic")?, heavy))
    })
    .await??;
    gone.stop();
    let before = light.status().accepted;
    let _held = clients(address, CLIENTS).await?;
    until("all have been accepted", async || {
        (light.status().accepted - before + heavy.status().accepted == CLIENTS as u64).then_some(())
    })
    .await?;
    let (few, many) = (light.status().accepted - before, heavy.status().accepted);
    assert!(few > 0 && many > 2 * few, "{few} and {many}");
    Ok(())
}

#[test]
fn a_port_is_shared_only_where_both_say_so_and_a_weight_has_bounds() {
    let alone: MeshConfig = serde_json::from_value(json!({
        "listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}],
        "groups": {"shop": {"backends": [{"addr": "127.0.0.1:1"}]}}, "threads": 1,
    }))
    .unwrap();
    let mesh = Mesh::start(&alone).unwrap();
    let taken = Mesh::start(&config(&mesh.addresses()["door"].to_string(), 2)).unwrap_err();
    assert!(taken.to_string().contains("failed to listen"), "{taken}");
    for (key, value, told) in [
        ("weight", json!(0), "not between 1 and 64"),
        ("weight", json!(65), "not between 1 and 64"),
        ("reuse_port", json!(false), "`weight` means nothing"),
    ] {
        let mut door = json!({"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"], "reuse_port": true, "weight": 2});
        door[key] = value;
        let config =
            json!({"listeners": [door], "groups": {"shop": {"backends": [{"addr": "127.0.0.1:1"}]}}});
        let config: MeshConfig = serde_json::from_value(config).unwrap();
        let problems = config.problems();
        assert!(matches!(&problems[..], [(message, _)] if message.contains(told)), "{told}: {problems:?}");
    }
}
