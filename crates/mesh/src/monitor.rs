//! Asks each server how it is, several times a second, and tells its [`Backend`] what that changed.
//!
//! With `monitor` a connection stays open and is asked whether the server is read-only and how far behind it is. Without it
//! the server is greeted and left, less often: it counts as alive as soon as it greets.

use crate::config::{GroupKind, Role, Topology};
use crate::discovery;
use crate::error::SessionError;
use crate::group::{Backend, Group, Profile};
use crate::link::{self, Account, Link};
use crate::shared::Shared;
use base::Secret;
use mysql::protocol::Capabilities;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The pace of questions; a dead writer's successor is found within two of them.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// The pace without an account: each greeting is a whole connection for the server.
const GREET_EVERY: Duration = Duration::from_secs(1);
/// A server that is slower than this has not answered.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Lag is asked for once in so many questions.
const LAG_EVERY: u32 = 4;

/// Watches one server until `stop`.
pub async fn run(
    shared: Arc<Shared>,
    group: Arc<Group>,
    backend: Arc<Backend>,
    mut stop: watch::Receiver<bool>,
) {
    let mut probe = Probe { group, backend, link: None, count: 0 };
    let pace = if probe.group.config.monitor.is_some() { ASK_EVERY } else { GREET_EVERY };
    loop {
        let began = Instant::now();
        let result = timeout(ANSWER_MAX, probe.ask()).await.unwrap_or(Err(SessionError::Slow {
            what: "an answer to the monitor",
            seconds: ANSWER_MAX.as_secs(),
        }));
        probe.tell(result);
        if let Some(leaving) = probe.says_it_leaves().await
            && probe.backend.set_leaving(leaving)
        {
            let (group, address) = (&probe.group.name, &probe.backend.address);
            tracing::info!(group, address, leaving, "a server tells whether it shuts down");
            // Sessions that wait for their clients leave it too.
            shared.handover.ring();
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep_until(began + pace) => {}
        }
    }
}

struct Probe {
    group: Arc<Group>,
    backend: Arc<Backend>,
    link: Option<Link>,
    count: u32,
}

/// What an answer told.
struct Health {
    profile: Option<Profile>,
    role: Option<Role>,
    lag_ms: Option<u64>,
    /// Why it takes nothing, though it answers.
    out: Option<String>,
}

impl Probe {
    /// What TiDB's HTTP status tells; `None` where it tells nothing.
    async fn says_it_leaves(&self) -> Option<bool> {
        let status = self.backend.status.as_ref()?;
        let first = timeout(ANSWER_MAX, status_line(status)).await.ok()?.ok()?;
        let code = first.split_ascii_whitespace().nth(1)?;
        Some(code.starts_with('5'))
    }

    async fn ask(&mut self) -> Result<Health, SessionError> {
        let Some(monitor) = self.group.config.monitor.clone() else {
            let (_, greeting) = link::connect(&self.group, &self.backend, None).await?;
            let profile = Some(Profile::of(&greeting));
            return Ok(Health { profile, role: None, lag_ms: None, out: None });
        };
        let mut profile = None;
        // Taken out, so that an answer which is given up on leaves no connection with half of it behind.
        let mut link = match self.link.take() {
            Some(link) => link,
            None => {
                let (_, greeting) = link::connect(&self.group, &self.backend, None).await?;
                profile = Some(Profile::of(&greeting));
                let mut link =
                    link::login(&self.group, &self.backend, &account(&monitor.user, &monitor.password))
                        .await?;
                link.uncount();
                link
            }
        };
        if let (Topology::GroupReplication, Some(members)) = (self.group.config.topology, &self.group.members)
        {
            let view = discovery::ask(&mut link).await?;
            self.link = Some(link);
            let lag_ms = view.lag_ms;
            return Ok(match members.saw(&self.group, &self.backend.address, view) {
                Ok(role) => Health { profile, role: Some(role), lag_ms, out: None },
                // Sessions that are there leave it as they leave a writer that has become a replica.
                Err(reason) => Health { profile, role: Some(Role::Replica), lag_ms: None, out: Some(reason) },
            });
        }
        let role = self.role(&mut link).await?;
        let replica = role.unwrap_or_else(|| self.backend.role()) == Role::Replica;
        let mut lag_ms = self.backend.lag_ms().filter(|_| replica);
        if self.group.config.kind == GroupKind::Mysql && replica && self.count.is_multiple_of(LAG_EVERY) {
            lag_ms = lag(&mut link).await?;
        }
        self.count = self.count.wrapping_add(1);
        self.link = Some(link);
        Ok(Health { profile, role, lag_ms, out: None })
    }

    async fn role(&self, link: &mut Link) -> Result<Option<Role>, SessionError> {
        if self.group.config.kind == GroupKind::Tidb || self.group.config.topology == Topology::Static {
            link.ask("select 1").await?;
            return Ok(None);
        }
        let answer = link.ask("select @@global.read_only").await?;
        let writable = matches!(answer.only(), Some("0" | "OFF"));
        Ok(Some(if writable { Role::Writer } else { Role::Replica }))
    }

    fn tell(&self, result: Result<Health, SessionError>) {
        let (group, address) = (&self.group.name, &self.backend.address);
        match result {
            Ok(health) => {
                if let Some(role) = health.role
                    && self.backend.set_role(role)
                {
                    tracing::info!(group, address, role = ?role, "a server changed its role");
                    if role == Role::Writer && self.group.writers() > 0 {
                        tracing::warn!(
                            group,
                            "several servers take writes, and get them: is an old writer back?"
                        );
                    }
                }
                self.backend.set_lag_ms(health.lag_ms);
                if let Some(reason) = health.out {
                    self.backend.greeted(health.profile);
                    if self.backend.failed(&reason, true) {
                        tracing::warn!(group, address, reason, "a server takes nothing");
                    }
                } else if self.backend.answered(health.profile) {
                    tracing::info!(group, address, "a server answers");
                }
            }
            Err(error) => {
                if let Some(members) = &self.group.members {
                    members.lost(address);
                }
                let reason = causes(&error);
                let refused = matches!(&error, SessionError::Backend { source, .. }
                    if source.kind() == std::io::ErrorKind::ConnectionRefused);
                if self.backend.failed(&reason, refused) {
                    tracing::warn!(group, address, reason, "a server does not answer");
                }
            }
        }
    }
}

/// The first line of the answer to a question for the status.
async fn status_line(address: &str) -> std::io::Result<String> {
    /// It is shorter than this, or none.
    const LINE_BYTES_MAX: u64 = 256;
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    Ok(line)
}

/// A login of the mesh's own.
pub fn account(user: &str, password: &Secret) -> Account {
    Account {
        user: user.as_bytes().to_vec(),
        password: password.clone(),
        capabilities: Capabilities::LONG_PASSWORD
            | Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::TRANSACTIONS
            | Capabilities::PLUGIN_AUTH
            | Capabilities::AUTH_LENGTH_ENCODED
            | Capabilities::DEPRECATE_EOF,
        collation: 45,
        database: Vec::new(),
        attributes: Vec::new(),
        ends: None,
    }
}

/// Unknown where the account may not ask, where nothing is replicated, or where replication stands.
async fn lag(link: &mut Link) -> Result<Option<u64>, SessionError> {
    for (question, column) in
        [("show replica status", "Seconds_Behind_Source"), ("show slave status", "Seconds_Behind_Master")]
    {
        match link.ask(question).await {
            Ok(answer) => {
                if let Some(seconds) = answer.first(column).and_then(|text| text.parse::<u64>().ok()) {
                    return Ok(Some(seconds * 1000));
                }
            }
            // MySQL has no slaves any more, and an account may lack the right: neither is an illness.
            Err(SessionError::Server { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// An error with what caused it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
