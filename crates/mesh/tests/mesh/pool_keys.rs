//! How long a session waits for a shared connection.

use crate::support::Front;
use anyhow::Result;
use serde_json::json;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

#[tokio::test]
async fn a_session_waits_for_as_long_as_the_pool_says_and_is_told_why_it_waited_in_vain() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    let pool = json!({"max": 1, "idle": 1, "wait": "150ms"});
    let front =
        Front::start(&[server.port()], json!({"auth": "vault", "users": [{"name": "root"}], "pool": pool}))
            .await?;
    let (mut holder, mut other) = (front.root().await?, front.root().await?);
    holder.query_drop("begin").await?;
    holder.query_drop("select 1").await?;
    let error = other.query_drop("select 1").await.unwrap_err().to_string();
    assert!(error.contains("1040") && error.contains("within 150ms (`pool.wait`)"), "{error}");
    assert_eq!(front.mesh.status().groups[0].backends[0].pool.unwrap_or_default().timeouts, 1);
    holder.query_drop("commit").await?;
    assert_eq!(other.query_first::<u8, _>("select 2").await?, Some(2));
    Ok(())
}
