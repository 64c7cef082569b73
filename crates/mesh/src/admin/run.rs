//! What statements of the admin port do. Each is a call of what the REST routes call, too.

use super::statement::{HELP, List, Statement, Unread, Value, read};
use super::table::{Answer, Cell, Table};
use crate::keeper::{BackendsChange, Keeper, Refusal};
use crate::status::BackendStatus;
use crate::{Mesh, Role};
use base::Fault;
use std::sync::Arc;

/// Rows where nobody says how many, of lists that may be long.
const ROWS: usize = 100;
/// The only database that there is.
pub const DATABASE: &str = "tidemill";

/// An error as clients see it.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub number: u16,
    pub state: [u8; 5],
    pub message: String,
}

impl From<Unread> for Refused {
    fn from(Unread(reason): Unread) -> Self {
        let shown = HELP.iter().map(|(statement, _)| {
            let fixed = statement.split(['[', '\'']).next().unwrap_or(statement);
            fixed.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")
        });
        let shown: Vec<_> = shown.collect();
        let message = format!("tidemill: {reason}; there are: {}; `SHOW HELP` says more", shown.join(", "));
        Self { number: 1064, state: *b"42000", message }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        other(&refusal.message, &refusal.hint)
    }
}

fn other(message: &str, hint: &str) -> Refused {
    let hint = if hint.is_empty() { String::new() } else { format!(" (hint: {hint})") };
    Refused { number: 1105, state: *b"HY000", message: format!("tidemill: {message}{hint}") }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    pub user: String,
    pub peer: String,
    pub read_only: bool,
    /// The number of its connection.
    pub id: u32,
}

/// Answers one statement.
pub async fn run(
    mesh: &Arc<Mesh>,
    keeper: &Arc<dyn Keeper>,
    asker: &Asker,
    text: &str,
) -> Result<Answer, Refused> {
    let statement = read(text)?;
    let changes = !matches!(
        statement,
        Statement::Show { .. } | Statement::Select(_) | Statement::Explain { .. } | Statement::Nothing
    );
    if changes && asker.read_only {
        let message =
            format!("tidemill: user '{}' may look and change nothing: it is `read_only`", asker.user);
        return Err(Refused { number: 1227, state: *b"42000", message });
    }
    if changes {
        tracing::info!(user = asker.user, peer = asker.peer, statement = ?statement, "said at the admin port");
    }
    match statement {
        Statement::Show { list, like, limit } => {
            let mut table = show(mesh, list);
            if let Some(pattern) = like {
                table
                    .rows
                    .retain(|row| matches!(row.first(), Some(Cell::Text(name)) if is_like(name, &pattern)));
            }
            let long = matches!(list, List::Digests | List::Slow);
            table.rows.truncate(limit.unwrap_or(if long { ROWS } else { usize::MAX }));
            Ok(Answer::Table(table))
        }
        Statement::Select(values) => select(&values, asker),
        Statement::Explain { group, user, sql } => explain(mesh, group, user.as_deref(), &sql),
        Statement::Nothing => Ok(Answer::nothing()),
        Statement::Kill { id, only_statement } => match mesh.kill(id, only_statement).await {
            Ok(()) => Ok(Answer::Done { changed: 1, words: String::new() }),
            Err(error @ crate::KillError::NoSession(_)) => {
                let message = format!("tidemill: {error} (hint: `SHOW SESSIONS` lists them)");
                Err(Refused { number: 1094, state: *b"HY000", message })
            }
            Err(error) => Err(other(&error.to_string(), &error.hint().unwrap_or_default())),
        },
        Statement::Drain { address, group, draining } => {
            let group = group_of(mesh, group, Some(&address))?;
            if !mesh.drain(&group, &address, draining) {
                return Err(no_server(&group, &address));
            }
            Ok(Answer::Done { changed: 1, words: String::new() })
        }
        Statement::Add { backend, group } => {
            let group = group_of(mesh, group, None)?;
            change(keeper, group, BackendsChange::Add(backend)).await
        }
        Statement::Remove { address, group } => {
            let group = group_of(mesh, group, Some(&address))?;
            change(keeper, group, BackendsChange::Remove(address)).await
        }
        Statement::Reload => {
            let keeper = keeper.clone();
            blocking(move || keeper.reload()).await?;
            Ok(Answer::nothing())
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(other("it came to no end", "see the node's log")),
    }
}

async fn change(keeper: &Arc<dyn Keeper>, group: String, change: BackendsChange) -> Result<Answer, Refused> {
    let keeper = keeper.clone();
    blocking(move || keeper.change_backends(&group, change)).await?;
    Ok(Answer::Done { changed: 1, words: String::new() })
}

fn no_server(group: &str, address: &str) -> Refused {
    other(
        &format!("group `{group}` has no server `{address}`"),
        "`SHOW BACKENDS` lists groups and their servers",
    )
}

/// The group that is meant: the named one, or the only one that there is, or that has the server.
fn group_of(mesh: &Mesh, named: Option<String>, address: Option<&str>) -> Result<String, Refused> {
    let groups = mesh.status().groups;
    let names = || groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(named) = named {
        return match groups.iter().any(|group| group.name == named) {
            true => Ok(named),
            false => Err(other(&format!("there is no group `{named}`"), &format!("groups are: {}", names()))),
        };
    }
    let has = |backends: &[BackendStatus]| {
        address.is_none_or(|address| backends.iter().any(|backend| backend.address == address))
    };
    let fit: Vec<_> = groups.iter().filter(|group| has(&group.backends)).collect();
    match (&fit[..], address) {
        ([only], _) => Ok(only.name.clone()),
        ([], Some(address)) => Err(other(
            &format!("no group has a server `{address}`"),
            "`SHOW BACKENDS` lists groups and their servers",
        )),
        _ => Err(other(
            "several groups are meant, and none is named",
            &format!("IN GROUP one of: {}", names()),
        )),
    }
}

fn explain(mesh: &Mesh, group: Option<String>, user: Option<&str>, sql: &str) -> Result<Answer, Refused> {
    let group = group_of(mesh, group, None)?;
    let told = mesh
        .explain(&group, sql, user)
        .ok_or_else(|| other(&format!("there is no group `{group}`"), "`SHOW GROUPS` lists them"))?;
    let mut table = Table::new(["Property", "Value"]);
    let mut add = |key: &str, value: Cell| table.add([key.into(), value]);
    add("group", told.group.into());
    add("role", role(told.role).into());
    add("reason", told.reason.into());
    add("pins", told.pins.into());
    add("digest", told.digest.into());
    add("text", told.text.into());
    add("flags", told.flags.join(", ").into());
    if let Some(verdict) = told.verdict {
        add("verdict", verdict.action.into());
        add("rule", verdict.rule.into());
        add("rule_reason", verdict.reason.into());
    }
    Ok(Answer::Table(table))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Writer => "writer",
        Role::Replica => "replica",
    }
}

fn show(mesh: &Mesh, list: List) -> Table {
    match list {
        List::Backends => {
            let heads = ["group", "backend", "role", "state", "connections", "lag_ms", "version", "error"];
            let mut table = Table::new(heads);
            for group in mesh.status().groups {
                for one in group.backends {
                    table.add([
                        group.name.as_str().into(),
                        one.address.into(),
                        role(one.role).into(),
                        one.state.into(),
                        one.connections.into(),
                        one.lag_ms.into(),
                        one.version.into(),
                        one.error.into(),
                    ]);
                }
            }
            table
        }
        List::Groups => {
            let mut table =
                Table::new(["name", "kind", "backends", "writers", "sessions", "sessions_max", "limited"]);
            for group in mesh.status().groups {
                let kind = match group.kind {
                    crate::GroupKind::Mysql => "mysql",
                    crate::GroupKind::Tidb => "tidb",
                };
                table.add([
                    group.name.into(),
                    kind.into(),
                    group.backends.len().into(),
                    group.writers.into(),
                    group.sessions.into(),
                    group.sessions_max.into(),
                    group.limited.into(),
                ]);
            }
            table
        }
        List::Sessions => {
            let mut table = Table::new(["id", "user", "client", "group", "backends", "age_ms", "busy_ms"]);
            for one in mesh.sessions() {
                table.add([
                    one.id.into(),
                    one.user.into(),
                    one.client.into(),
                    one.group.into(),
                    one.servers.join(", ").into(),
                    one.age_ms.into(),
                    one.busy_ms.into(),
                ]);
            }
            table
        }
        List::Digests => {
            let mut table = Table::new([
                "digest", "group", "calls", "errors", "rows", "total_ms", "p50_us", "p95_us", "p99_us",
                "max_us", "text",
            ]);
            for one in mesh.digests() {
                table.add([
                    one.digest.into(),
                    one.group.into(),
                    one.calls.into(),
                    one.errors.into(),
                    one.rows.into(),
                    one.total_ms.into(),
                    one.p50_us.into(),
                    one.p95_us.into(),
                    one.p99_us.into(),
                    one.max_us.into(),
                    one.text.into(),
                ]);
            }
            table
        }
        List::Slow => {
            let heads = [
                "at_ms",
                "group",
                "user",
                "client",
                "database",
                "backend",
                "elapsed_us",
                "rows",
                "digest",
                "text",
            ];
            let mut table = Table::new(heads);
            for one in mesh.slow() {
                table.add([
                    one.at_ms.into(),
                    one.group.into(),
                    one.user.into(),
                    one.client.into(),
                    one.database.into(),
                    one.server.into(),
                    one.elapsed_us.into(),
                    one.rows.into(),
                    one.digest.into(),
                    one.text.into(),
                ]);
            }
            table
        }
        List::Pools => {
            let mut table = Table::new(["group", "backend", "open", "idle", "in_use", "waiting", "timeouts"]);
            for group in mesh.status().groups {
                for one in group.backends {
                    let Some(pool) = one.pool else { continue };
                    table.add([
                        group.name.as_str().into(),
                        one.address.into(),
                        pool.open.into(),
                        pool.idle.into(),
                        pool.in_use.into(),
                        pool.waiting.into(),
                        pool.timeouts.into(),
                    ]);
                }
            }
            table
        }
        List::Rules => {
            let mut table = Table::new(["group", "rule", "action", "hits"]);
            for group in mesh.status().groups {
                for (rule, action, hits) in group.rules.iter().flat_map(|rules| rules.hits()) {
                    table.add([group.name.as_str().into(), rule.into(), action.into(), hits.into()]);
                }
            }
            table
        }
        List::Listeners => {
            let mut table = Table::new(["name", "address", "tls", "groups"]);
            for one in mesh.status().listeners {
                let tls = if one.tls { "yes" } else { "no" };
                table.add([one.name.into(), one.address.into(), tls.into(), one.groups.join(", ").into()]);
            }
            table
        }
        List::Status => status(mesh),
        List::Variables => {
            let mut table = Table::new(["Variable_name", "Value"]);
            for (name, value) in variables() {
                table.add([name.into(), value.into()]);
            }
            table
        }
        List::Databases => {
            let mut table = Table::new(["Database"]);
            table.add([DATABASE.into()]);
            table
        }
        List::Help => {
            let mut table = Table::new(["Statement", "What it does"]);
            for (statement, what) in HELP {
                table.add([statement.into(), what.into()]);
            }
            table
        }
        List::Nothing => Table::new(["Name"]),
    }
}

fn status(mesh: &Mesh) -> Table {
    let status = mesh.status();
    let mut table = Table::new(["Variable_name", "Value"]);
    for (name, value) in [
        ("sessions", status.sessions as u64),
        ("transactions", mesh.transactions() as u64),
        ("accepted", status.accepted),
        ("refused", status.refused),
        ("moved", status.moved),
        ("broken", status.broken),
        ("buffer_bytes", status.buffer_bytes as u64),
        ("compressed_bytes", status.compressed_bytes),
        ("uncompressed_bytes", status.uncompressed_bytes),
    ] {
        table.add([name.into(), value.into()]);
    }
    table
}

/// What clients look at before they do anything.
fn variables() -> [(&'static str, &'static str); 30] {
    [
        ("auto_increment_increment", "1"),
        ("autocommit", "1"),
        ("character_set_client", "utf8mb4"),
        ("character_set_connection", "utf8mb4"),
        ("character_set_database", "utf8mb4"),
        ("character_set_results", "utf8mb4"),
        ("character_set_server", "utf8mb4"),
        ("character_set_system", "utf8mb4"),
        ("collation_connection", "utf8mb4_general_ci"),
        ("collation_database", "utf8mb4_general_ci"),
        ("collation_server", "utf8mb4_general_ci"),
        ("init_connect", ""),
        ("interactive_timeout", "3600"),
        ("license", "Apache-2.0"),
        ("lower_case_table_names", "0"),
        ("max_allowed_packet", "131072"),
        ("net_buffer_length", "16384"),
        ("net_write_timeout", "30"),
        ("performance_schema", "0"),
        ("query_cache_size", "0"),
        ("query_cache_type", "OFF"),
        ("socket", ""),
        ("sql_mode", ""),
        ("system_time_zone", "UTC"),
        ("time_zone", "SYSTEM"),
        ("transaction_isolation", "READ-COMMITTED"),
        ("tx_isolation", "READ-COMMITTED"),
        ("version", super::VERSION),
        ("version_comment", "Tidemill mesh admin port"),
        ("wait_timeout", "3600"),
    ]
}

fn select(values: &[(Value, String)], asker: &Asker) -> Result<Answer, Refused> {
    let own_name = || format!("{}@{}", asker.user, asker.peer);
    let mut table = Table::default();
    let mut row = Vec::new();
    for (value, head) in values {
        let cell: Cell = match value {
            Value::Literal(text) => text.parse::<u64>().map_or_else(|_| text.as_str().into(), Cell::Number),
            Value::Function(name) => match name.as_str() {
                "database" | "schema" => DATABASE.into(),
                "user" | "current_user" | "session_user" | "system_user" => own_name().into(),
                "version" => super::VERSION.into(),
                "connection_id" => asker.id.into(),
                other => return Err(Unread(format!("there is no function `{other}` here")).into()),
            },
            Value::Variable(name) => match variables().iter().find(|(known, _)| known == name) {
                Some((_, value)) => (*value).into(),
                None => {
                    let message = format!(
                        "Unknown system variable '{name}' (hint: `SHOW VARIABLES` lists those of this port)"
                    );
                    return Err(Refused { number: 1193, state: *b"HY000", message });
                }
            },
        };
        table.heads.push(head.clone());
        row.push(cell);
    }
    table.rows.push(row);
    Ok(Answer::Table(table))
}

/// Whether a name is like a pattern of `%` and `_`, in whatever case.
fn is_like(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) =
        (name.to_lowercase().chars().collect(), pattern.to_lowercase().chars().collect());
    // Where the last `%` stood, and how much of the name it has taken: no other needs to be gone back to.
    let (mut n, mut p, mut back) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('%') => {
                back = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '_' || *c == name[n] => {
                n += 1;
                p += 1;
            }
            _ => match back {
                Some((star, taken)) => {
                    back = Some((star, taken + 1));
                    n = taken + 1;
                    p = star + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_like_patterns() {
        for (name, pattern, fits) in [
            ("sessions", "sess%", true),
            ("sessions", "SESSIONS", true),
            ("sessions", "%s_ons", true),
            ("sessions", "s%s%z", false),
            ("sessions", "session", false),
            ("", "%", true),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "%a%a%a%a%a%a%a%c", false),
        ] {
            assert_eq!(is_like(name, pattern), fits, "{name} like {pattern}");
        }
    }
}
