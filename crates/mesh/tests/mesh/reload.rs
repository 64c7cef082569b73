//! Another configuration under sessions that stay.

use crate::split::{Pair, place};
use crate::support::until;
use anyhow::Result;
use mesh::MeshConfig;
use serde_json::json;
use testkit::mysql_async::prelude::Queryable;

#[tokio::test]
async fn sessions_go_by_a_new_configuration_between_transactions_and_a_bad_one_changes_nothing() -> Result<()>
{
    let pair = Pair::start().await?;
    let front = pair.front("session").await?;
    let config = |group: serde_json::Value, doors: serde_json::Value| -> Result<MeshConfig> {
        let config: MeshConfig =
            serde_json::from_value(json!({"listeners": doors, "groups": {"shop": group}}))?;
        assert_eq!(config.problems(), []);
        Ok(config)
    };
    let servers = |ports: &[u16]| -> Vec<_> {
        ports.iter().map(|port| json!({"addr": format!("127.0.0.1:{port}")})).collect()
    };
    let both = servers(&[pair.replica.port(), pair.writer.port()]);
    let group = |split: bool, backends: &[serde_json::Value], password: &str| {
        json!({"auth": "vault", "users": [{"name": "root", "password": password}], "monitor": {"user": "monitor"},
               "read_write_split": split, "backends": backends})
    };
    let door = json!([{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}]);
    let (mut idle, mut busy) = (front.root().await?, front.root().await?);
    assert_eq!(place(&mut idle).await?, "replica");
    busy.query_drop("begin").await?;
    busy.query_drop("insert into shop.t values (1, 'one')").await?;
    // Without the split: the next read of a session that was there before goes to the writer.
    front.mesh.reload(&config(group(false, &both, ""), door.clone())?)?;
    assert_eq!(place(&mut idle).await?, "writer");
    busy.query_drop("insert into shop.t values (2, 'two')").await?;
    busy.query_drop("commit").await?;
    assert_eq!(busy.query_first::<u64, _>("select count(*) from shop.t").await?, Some(2));
    assert_eq!(front.mesh.addresses()["door"], front.address);
    // A port that is taken: nothing of it is used, the split neither.
    let taken = json!([{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]},
                       {"name": "other", "bind": format!("127.0.0.1:{}", pair.writer.port()), "tenants": ["shop"]}]);
    let refused = front.mesh.reload(&config(group(true, &both, ""), taken)?).unwrap_err();
    assert!(refused.to_string().contains("`other`"), "{refused}");
    assert_eq!(place(&mut idle).await?, "writer");
    // A second port, and the split again.
    let two = json!([{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]},
                     {"name": "other", "bind": "127.0.0.1:0", "tenants": ["shop"]}]);
    front.mesh.reload(&config(group(true, &both, ""), two)?)?;
    assert_eq!(place(&mut idle).await?, "replica");
    let other = crate::support::Front { address: front.mesh.addresses()["other"], ..front };
    assert_eq!(place(&mut other.root().await?).await?, "replica");
    // The replica is gone from the file, and sessions leave it.
    other.mesh.reload(&config(group(true, &servers(&[pair.writer.port()]), ""), door.clone())?)?;
    assert_eq!(place(&mut idle).await?, "writer");
    until("a port that is gone takes nobody", async || other.root().await.is_err().then_some(())).await?;
    let status = other.mesh.status();
    assert_eq!((status.groups[0].backends.len(), status.listeners.len()), (1, 1));
    // Another password: who came in by the old one is let out.
    other.mesh.reload(&config(group(true, &both, "changed"), door)?)?;
    assert!(idle.query_drop("select 1").await.unwrap_err().to_string().contains("Access denied"));
    until("its session has ended", async || (other.mesh.status().sessions == 1).then_some(())).await?;
    Ok(())
}
