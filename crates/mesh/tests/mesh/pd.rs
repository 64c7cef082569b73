//! TiDB servers that PD knows. The servers have stores of their own and register nowhere, so the tests write into PD what they would.

use crate::support::{Front, until};
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeSet;
use testkit::mysql_async::prelude::Queryable;
use testkit::{Pd, TiDb, TiDbOptions};

fn address(server: &TiDb) -> String {
    format!("127.0.0.1:{}", server.port())
}

fn info(server: &TiDb, zone: &str) -> String {
    json!({"version": "8.0.11-TiDB-v8.5.6", "git_hash": "None", "ip": "127.0.0.1", "status_port": server.status_port(),
           "deploy_path": "/", "start_timestamp": 1_700_000_000, "labels": {"zone": zone}})
    .to_string()
}

fn known(front: &Front) -> BTreeSet<String> {
    front.mesh.status().groups[0].backends.iter().map(|backend| backend.address.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_come_and_go_with_their_sign_of_life() -> Result<()> {
    let pd = Pd::start().await?;
    let [one, other] =
        [TiDb::start(TiDbOptions::default()).await?, TiDb::start(TiDbOptions::default()).await?];
    // The first of them is none.
    let pds = json!(["127.0.0.1:1", format!("127.0.0.1:{}", pd.port())]);
    let group = json!({"kind": "tidb", "topology": "pd", "pd": pds, "backends": [], "monitor": {"user": "root"},
                       "auth": "vault", "users": [{"name": "root"}], "balance": "round_robin"});
    let first = pd.register(&address(&one), &info(&one, "north"), 60).await?;
    let front = Front::start_all(&[], group, json!({}), json!({"zone": "north"})).await?;
    until("the server is found", async || {
        let status = front.mesh.status();
        status.groups[0].backends.iter().any(|backend| backend.state == "up").then_some(())
    })
    .await?;
    let mut conn = front.root().await?;
    conn.query_drop("set @mine = 7").await?;
    let place = async |conn: &mut testkit::mysql_async::Conn| -> Result<Option<String>> {
        Ok(conn.query_first("select concat('127.0.0.1:', @@port)").await?)
    };
    assert_eq!(place(&mut conn).await?, Some(address(&one)));
    pd.register(&address(&other), &info(&other, "south"), 60).await?;
    until("the other is found", async || {
        let status = front.mesh.status();
        let up = status.groups[0].backends.iter().filter(|backend| backend.state == "up").count();
        (up == 2).then_some(())
    })
    .await?;
    // Its label says that it is elsewhere.
    for _ in 0..6 {
        assert_eq!(place(&mut front.root().await?).await?, Some(address(&one)));
    }
    // A TiDB that writes nothing any more is left, though it answers.
    pd.expire(first).await?;
    until("the first is left out", async || {
        (known(&front) == BTreeSet::from([address(&other)])).then_some(())
    })
    .await?;
    assert_eq!(place(&mut front.root().await?).await?, Some(address(&other)));
    // Without PD all stays as it was.
    pd.kill9();
    until("PD is missed", async || front.root().await.ok()).await?;
    assert_eq!(known(&front), BTreeSet::from([address(&other)]));
    assert_eq!(place(&mut front.root().await?).await?, Some(address(&other)));
    Ok(())
}
