//! MySQL servers that are one group by Group Replication.

use anyhow::{Context, Result};
use tokio::time::{Duration, Instant, sleep};

use crate::mysql::{MySql, MySqlOptions};
use crate::port::Port;

/// Longest wait for a member to be online.
const ONLINE_WAIT_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// How to start a group.
#[derive(Clone, Copy, Debug)]
pub struct MySqlGroupOptions {
    /// Servers, of which the first is the first primary.
    pub servers: usize,
    /// How many of them are members from the beginning; the others wait for [`MySqlGroup::join`].
    pub members: usize,
    /// All members take writes.
    pub multi_primary: bool,
}

/// Servers with Group Replication, on addresses of 127.0.0.1. A member that is dead is given up as soon as it is suspected.
#[derive(Debug)]
pub struct MySqlGroup {
    servers: Vec<MySql>,
    /// Where members talk to each other; held, not read.
    _ports: Vec<Port>,
}

impl MySqlGroup {
    /// Starts the servers and waits until the members are online.
    pub async fn start(options: MySqlGroupOptions) -> Result<MySqlGroup> {
        let ports = (0..options.servers).map(|_| Port::reserve()).collect::<Result<Vec<_>>>()?;
        let seeds: Vec<_> = ports.iter().map(|port| port.addr().to_string()).collect();
        let mut servers = Vec::new();
        for (port, server_id) in ports.iter().zip(1..) {
            let server = MySql::start(MySqlOptions {
                gtid: true,
                server_id,
                args: arguments(port, &seeds.join(","), options.multi_primary),
            })
            .await?;
            server.exec(PREPARE).await?;
            servers.push(server);
        }
        let group = MySqlGroup { servers, _ports: ports };
        group.bootstrap().await?;
        for server in group.servers.iter().take(options.members).skip(1) {
            group.join(server).await?;
        }
        Ok(group)
    }

    pub fn servers(&self) -> &[MySql] {
        &self.servers
    }

    /// Begins a group of which the first server is the only member.
    pub async fn bootstrap(&self) -> Result<()> {
        let first = self.servers.first().context("a group without a server")?;
        first
            .exec(
                "set global group_replication_bootstrap_group = on; start group_replication; \
                 set global group_replication_bootstrap_group = off",
            )
            .await
    }

    /// Makes a server a member, and waits until it has what the others have.
    pub async fn join(&self, server: &MySql) -> Result<()> {
        server.exec("start group_replication").await?;
        let began = Instant::now();
        loop {
            let state: String = server
                .query_one(
                    "select member_state from performance_schema.replication_group_members where member_id = @@server_uuid",
                )
                .await?;
            if state == "ONLINE" {
                return Ok(());
            }
            if began.elapsed() > ONLINE_WAIT_MAX {
                anyhow::bail!("the member is {state}, not online, see {}", server.log_path().display());
            }
            sleep(LOOK).await;
        }
    }
}

/// Once on each, and so not in the binlog.
const PREPARE: &str = "set sql_log_bin = 0; create user recovery@'%' identified by 'recovery'; \
    grant replication slave, connection_admin, backup_admin, group_replication_stream on *.* to recovery@'%'; \
    change replication source to source_user='recovery', source_password='recovery' for channel 'group_replication_recovery'; \
    reset binary logs and gtids";

fn arguments(port: &Port, seeds: &str, multi_primary: bool) -> Vec<String> {
    let single = if multi_primary { "OFF" } else { "ON" };
    let every = if multi_primary { "ON" } else { "OFF" };
    [
        // The tables of members are there; what is counted for them is not needed.
        "--performance-schema=ON",
        "--performance-schema-instrument=%=OFF",
        "--performance-schema-digests-size=0",
        "--report-host=127.0.0.1",
        "--plugin-load-add=group_replication.so",
        "--group-replication-group-name=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
        "--group-replication-start-on-boot=OFF",
        "--group-replication-ip-allowlist=127.0.0.1/8",
        "--group-replication-recovery-get-public-key=ON",
        "--group-replication-message-cache-size=134217728",
        "--group-replication-member-expel-timeout=0",
        &format!("--group-replication-local-address={}", port.addr()),
        &format!("--group-replication-group-seeds={seeds}"),
        &format!("--group-replication-single-primary-mode={single}"),
        &format!("--group-replication-enforce-update-everywhere-checks={every}"),
    ]
    .map(|argument| argument.replace("--group-replication", "--loose-group-replication"))
    .into()
}
