//! `tidemill check --connect`: whether each server answers, and lets the monitor in.

use crate::config::{GroupKind, MeshConfig, Role, Topology};
use crate::discovery;
use crate::error::SessionError;
use crate::group::{Backend, Group};
use crate::link;
use crate::monitor::{account, causes};
use crate::tls::Connector;
use std::sync::Arc;

/// Where it was not the server that refused.
const NO_LOGIN_HINT: &str = "with `tls`: does the server offer it, and for `verify`, does its certificate name the host and do you trust its authority?";

/// What was met at a server.
#[derive(Clone, Debug)]
pub struct Met {
    pub address: String,
    /// For a person to read.
    pub line: String,
    /// What is wrong, and what to do.
    pub trouble: Option<String>,
    pub hint: String,
}

/// Asks every server of every group, one after the other; each within a login's time.
pub async fn reach(config: &MeshConfig) -> Vec<Met> {
    let mut all = Vec::new();
    for (name, group) in &config.groups {
        let connector = match Connector::new(name, group) {
            Ok(connector) => connector,
            Err(error) => {
                let hint = "the file is PEM and holds the authorities' certificates".to_owned();
                all.push(Met {
                    address: name.clone(),
                    line: String::new(),
                    trouble: Some(causes(&error)),
                    hint,
                });
                continue;
            }
        };
        let mut group = Group::new(name.clone(), 0, group.clone(), connector, None, None);
        if group.config.topology == Topology::Pd {
            all.push(found(&mut group).await);
        }
        for backend in &group.backends {
            all.push(meet(&group, backend).await);
        }
        let roles = group.config.topology == Topology::Auto && group.config.monitor.is_some();
        let met = &all[all.len() - group.backends.len()..];
        if roles
            && group.config.kind == GroupKind::Mysql
            && met.iter().all(|met| met.trouble.is_none())
            && !group.backends.iter().any(|backend| backend.role() == Role::Writer)
        {
            all.push(Met {
                address: format!("group {name}"),
                line: String::new(),
                trouble: Some("every server is read-only, so nobody can write".into()),
                hint: "set global read_only = off on the one that is to be the writer".into(),
            });
        }
    }
    all
}

/// Asks PD for the servers.
async fn found(group: &mut Group) -> Met {
    let met = |line: String, trouble: Option<String>, hint: &str| Met {
        address: format!("PD of group {}", group.name),
        line,
        trouble,
        hint: hint.to_owned(),
    };
    let connector = match Connector::to_pd(&group.name, &group.config) {
        Ok(connector) => connector,
        Err(error) => return met(String::new(), Some(causes(&error)), "the files are PEM"),
    };
    match discovery::pd::ask(&group.config, connector.as_ref(), &mut 0).await {
        Ok(listed) if listed.is_empty() => {
            let hint = "is it the PD of this cluster? a TiDB is there a moment after its start";
            met(String::new(), Some("it knows no TiDB".into()), hint)
        }
        Ok(listed) => {
            let met = met(format!("knows {} TiDB", listed.len()), None, "");
            discovery::recall_listed(group, listed);
            *group = group.renewed();
            met
        }
        Err(reason) => {
            met(String::new(), Some(reason), "`pd` is the address of PD's clients, often port 2379")
        }
    }
}

async fn meet(group: &Group, backend: &Arc<Backend>) -> Met {
    let met = |line: String, trouble: Option<String>, hint: &str| Met {
        address: backend.address.clone(),
        line,
        trouble,
        hint: hint.to_owned(),
    };
    let version = match link::connect(group, backend, None).await {
        Ok((_, greeting)) => String::from_utf8_lossy(&greeting.version).into_owned(),
        Err(error) => {
            return met(String::new(), Some(causes(&error)), "is the server up, and the address right?");
        }
    };
    let Some(monitor) = &group.config.monitor else {
        return met(format!("answers, version {version}"), None, "");
    };
    let hint = format!("create user '{}'@'%' identified by '…'", monitor.user);
    let mut link = match link::login(group, backend, &account(&monitor.user, &monitor.password)).await {
        Ok(link) => link,
        Err(error) => {
            let hint = if matches!(error, SessionError::Server { .. }) { &hint } else { NO_LOGIN_HINT };
            return met(String::new(), Some(format!("the monitor cannot log in: {}", causes(&error))), hint);
        }
    };
    if group.config.topology == Topology::GroupReplication {
        let hint = format!(
            "grant select on performance_schema.* to '{}'@'%'; and Group Replication runs there?",
            monitor.user
        );
        return match discovery::ask(&mut link).await {
            Ok(view) => match view.own_line() {
                Ok(line) => met(format!("answers, version {version}, {line}"), None, ""),
                Err(reason) => met(String::new(), Some(reason), &hint),
            },
            Err(error) => met(String::new(), Some(causes(&error)), &hint),
        };
    }
    match link.ask("select @@global.read_only").await {
        Ok(answer) => {
            let writable = matches!(answer.only(), Some("0" | "OFF"));
            backend.set_role(if writable { Role::Writer } else { Role::Replica });
            let role = if writable { "takes writes" } else { "read-only" };
            met(format!("answers, version {version}, {role}"), None, "")
        }
        Err(error) => met(String::new(), Some(causes(&error)), &hint),
    }
}
