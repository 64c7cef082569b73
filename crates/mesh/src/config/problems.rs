//! What is wrong with a configuration, and what to do about it.

use super::{
    AuthMode, BackendTls, Fallback, GroupConfig, GroupKind, LoginMatchConfig, MeshConfig, ProxyProtocol,
    Role, Topology, one,
};
use crate::admin::AdminConfig;
use crate::mirror::MirrorConfig;
use crate::rules;
use crate::tenant;
use std::collections::BTreeSet;

/// Statements that a connection begins with.
const INIT_MAX: usize = 32;
/// Sockets of a port that is shared.
const PORT_WEIGHT_MAX: u32 = 64;

impl MeshConfig {
    /// What is wrong with it, each with what to do; nothing of it is used unless the list is empty.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |message: String, hint: &str| found.push((message, hint.to_owned()));
        if self.listeners.is_empty() {
            add(
                "`listeners` is empty, so no client can come".into(),
                "listeners: [{name: shop, bind: 127.0.0.1:7400, tenants: [shop]}]",
            );
        }
        if let Some(threads) = self.threads.filter(|threads| !(1..=256).contains(threads)) {
            add(
                format!("`threads: {threads}` is not between 1 and 256"),
                "leave it out for one per processor",
            );
        }
        for (message, hint) in self.admin.iter().flat_map(AdminConfig::problems) {
            add(message, &hint);
        }
        for (message, hint) in self.capture.problems() {
            add(message, &hint);
        }
        let mut names = BTreeSet::new();
        for listener in &self.listeners {
            let name = &listener.name;
            if !names.insert(name) {
                add(format!("two listeners are named `{name}`"), "give each a name of its own");
            }
            if !(1..=PORT_WEIGHT_MAX).contains(&listener.weight) {
                add(
                    format!(
                        "listener `{name}`: `weight: {}` is not between 1 and {PORT_WEIGHT_MAX}",
                        listener.weight
                    ),
                    "weight: 3, and 1 at the other process, for three quarters",
                );
            }
            if listener.weight != one() && !listener.reuse_port {
                add(
                    format!("listener `{name}`: `weight` means nothing without `reuse_port`"),
                    "reuse_port: true, here and at the other process",
                );
            }
            if listener.tenants.is_empty() {
                add(format!("listener `{name}` has no `tenants`"), "tenants: [NAME OF A GROUP]");
            }
            for tenant in listener.tenants.iter().filter(|tenant| !self.groups.contains_key(*tenant)) {
                let known: Vec<_> = self.groups.keys().map(String::as_str).collect();
                add(
                    format!("listener `{name}`: there is no group `{tenant}`"),
                    &format!("groups are: {}", known.join(", ")),
                );
            }
            let named = |group: &GroupConfig| {
                group.matches.is_some() || !group.users.is_empty() || !group.databases.is_empty()
            };
            if listener.fallback == Fallback::None
                && listener
                    .tenants
                    .iter()
                    .filter_map(|tenant| self.groups.get(tenant))
                    .all(|group| !named(group))
            {
                add(
                    format!("listener `{name}`: `fallback: none` lets nobody in: no group says whose it is"),
                    "give a group a `match`, `users` or `databases`, or leave `fallback` out",
                );
            }
            let matching: Vec<_> = listener
                .tenants
                .iter()
                .filter_map(|tenant| self.groups.get(tenant)?.matches.as_ref())
                .collect();
            if listener.tls.is_none() && matching.iter().any(|wanted| !wanted.sni.is_empty()) {
                add(
                    format!("listener `{name}`: a group's `match.sni` never fits without `tls`"),
                    "tls: {cert: ./cert.pem, key: ./key.pem}",
                );
            }
            if listener.proxy_protocol.is_empty() && matching.iter().any(|wanted| !wanted.tlv.is_empty()) {
                add(
                    format!("listener `{name}`: a group's `match.tlv` never fits without `proxy_protocol`"),
                    "proxy_protocol: [10.0.0.0/8]",
                );
            }
            if listener.tls_required && listener.tls.is_none() {
                add(
                    format!("listener `{name}`: `tls_required` without `tls`"),
                    "tls: {cert: ./cert.pem, key: ./key.pem}",
                );
            }
        }
        for (name, group) in &self.groups {
            for (message, hint) in group.problems() {
                add(format!("group `{name}`: {message}"), &hint);
            }
        }
        found
    }
}

impl MeshConfig {
    /// What is declared and has no effect, each as a sentence.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, group) in &self.groups {
            if group.pool.is_some() && group.auth == AuthMode::Relay {
                notes.push(format!(
                    "group `{name}`: `pool` has no effect with `auth: relay`: a session stays on the connection that checked its \
                     password; `auth: vault` shares"
                ));
            }
            if group.read_write_split && group.auth == AuthMode::Relay {
                notes.push(format!(
                    "group `{name}`: `read_write_split` has no effect with `auth: relay`: a session stays on the server that checked \
                     its password; `auth: vault` splits"
                ));
            }
        }
        notes
    }
}

impl GroupConfig {
    /// What is wrong with how servers are found.
    fn problems_of_finding(&self) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        let by_pd = self.topology == Topology::Pd;
        if self.topology == Topology::GroupReplication {
            if self.kind != GroupKind::Mysql {
                found.push((
                    "`topology: group_replication` is MySQL's".into(),
                    "kind: mysql, or topology: pd",
                ));
            }
            if self.monitor.is_none() {
                let hint = "monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}";
                found.push((
                    "`topology: group_replication` needs `monitor`, to ask members for the others".into(),
                    hint,
                ));
            }
        }
        if by_pd && self.kind != GroupKind::Tidb {
            found.push(("`topology: pd` is TiDB's".into(), "kind: tidb"));
        }
        if by_pd && self.pd.is_empty() {
            found.push(("`topology: pd` without `pd`".into(), "pd: [127.0.0.1:2379]"));
        }
        if !by_pd && (!self.pd.is_empty() || self.pd_tls != BackendTls::Off) {
            found.push(("`pd` and `pd_tls` mean nothing without `topology: pd`".into(), "topology: pd"));
        }
        if self.pd_tls_ca.is_some() && self.pd_tls != BackendTls::Verify {
            found.push(("`pd_tls_ca` means nothing without `pd_tls: verify`".into(), "pd_tls: verify"));
        }
        if self.pd_tls_client.is_some() && self.pd_tls == BackendTls::Off {
            found.push(("`pd_tls_client` means nothing with `pd_tls: off`".into(), "pd_tls: verify"));
        }
        if !self.address_map.is_empty() && !self.topology.finds() {
            let hint = "topology: group_replication or pd, or the right address in `backends`";
            found.push(("`address_map` means nothing where servers are not found".into(), hint));
        }
        let addresses = self.pd.iter().chain(self.address_map.keys()).chain(self.address_map.values());
        for address in addresses.filter(|address| !is_address(address)) {
            found.push((format!("`{address}` is not `host:port`"), "for example: 127.0.0.1:2379"));
        }
        found
    }

    fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |message: String, hint: &str| found.push((message, hint.to_owned()));
        for (message, hint) in self.problems_of_finding() {
            add(message, hint);
        }
        if self.backends.is_empty() && self.topology != Topology::Pd {
            add("`backends` is empty".into(), "backends: [{addr: 127.0.0.1:3306}]");
        }
        let mut addresses = BTreeSet::new();
        for backend in &self.backends {
            let address = &backend.addr;
            if !addresses.insert(address) {
                add(format!("`{address}` is there twice"), "give one of them a `weight` instead");
            }
            let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                add(format!("`{address}` is not `host:port`"), "for example: addr: 127.0.0.1:3306");
            }
            if !(1..=1000).contains(&backend.weight) {
                add(
                    format!("`{address}`: a weight of {} is not between 1 and 1000", backend.weight),
                    "weight: 1",
                );
            }
            if let Some(status) = &backend.status {
                let port = status.rsplit_once(':').map(|(_, port)| port);
                if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                    add(format!("`{status}` is not `host:port`"), "for example: status: 127.0.0.1:10080");
                }
                if self.kind != GroupKind::Tidb {
                    add(format!("`{address}`: only TiDB has a `status`"), "leave `status` out");
                }
            }
            if backend.role.is_some() && self.topology != Topology::Static {
                let topology = match self.topology {
                    Topology::GroupReplication => "group_replication",
                    Topology::Pd => "pd",
                    _ => "auto",
                };
                add(
                    format!("`{address}` has a `role`, and `topology: {topology}` finds roles itself"),
                    "write `topology: static`, or leave `role` out",
                );
            }
        }
        let writers = self.backends.iter().filter(|backend| backend.role != Some(Role::Replica)).count();
        if self.topology == Topology::Static && writers == 0 && !self.backends.is_empty() {
            add("no backend has `role: writer`".into(), "role: writer on the server that takes writes");
        }
        if self.topology == Topology::Auto
            && self.monitor.is_none()
            && self.kind == GroupKind::Mysql
            && self.backends.len() > 1
        {
            add(
                "`topology: auto` with several backends needs `monitor`, to ask each whether it is read-only"
                    .into(),
                "monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}, or topology: static with a role on each",
            );
        }
        match self.auth {
            AuthMode::Relay => {
                if !self.users.is_empty() || self.account.is_some() {
                    add("`users` and `account` mean nothing with `auth: relay`".into(), "auth: vault");
                }
            }
            AuthMode::Vault | AuthMode::Mapped => {
                if self.users.is_empty() {
                    add(
                        "nobody may come in: `users` is empty".into(),
                        "users: [{name: shop, password: \"${env:SHOP_PASSWORD}\"}]",
                    );
                }
                if self.auth == AuthMode::Mapped && self.account.is_none() {
                    add(
                        "`auth: mapped` needs `account`".into(),
                        "account: {name: mesh, password: \"${env:MESH_PASSWORD}\"}",
                    );
                }
                if self.auth == AuthMode::Vault && self.account.is_some() {
                    add("`account` means nothing with `auth: vault`".into(), "auth: mapped");
                }
            }
        }
        if let Some(wanted) = &self.matches {
            if *wanted == LoginMatchConfig::default() {
                add(
                    "`match` says nothing, and would fit everybody".into(),
                    "leave it out, or: match: {users: [shop]}",
                );
            }
            for kind in wanted.tlv.keys().filter(|kind| tenant::field_type(kind).is_none()) {
                add(format!("`{kind}` is no field that `match.tlv` knows"), "authority, or 0xE0 to 0xEF");
            }
        }
        for statement in self.init.iter().filter(|statement| statement.trim().is_empty()) {
            add(
                format!("`init` has an empty statement: `{statement}`"),
                "init: [\"SET SESSION max_execution_time = 5000\"]",
            );
        }
        if self.init.len() > INIT_MAX {
            add(
                format!("`init` has more than {INIT_MAX} statements"),
                "each connection says all of them before it serves",
            );
        }
        if self.account.as_ref().is_some_and(|account| account.sessions_max.is_some()) {
            add(
                "`account.sessions_max` means nothing: clients are not `account`".into(),
                "sessions_max: 100, for the whole group",
            );
        }
        let mut names = BTreeSet::new();
        for user in self.users.iter().filter(|user| !names.insert(&user.name)) {
            add(format!("two users are named `{}`", user.name), "keep one of them");
        }
        for (message, hint) in self.pool.iter().flat_map(|pool| pool.problems(self.auth)) {
            add(message, hint);
        }
        for (message, hint) in self.mirror.iter().flat_map(MirrorConfig::problems) {
            add(message, &hint);
        }
        if self.pool.is_some() && self.proxy_protocol != ProxyProtocol::Off {
            add(
                "`pool` and `proxy_protocol` exclude each other: a connection that names its client is shared by nobody"
                    .into(),
                "leave one of them out",
            );
        }
        if self.eject.is_some_and(|eject| !(1..=1000).contains(&eject.failures)) {
            add("`eject.failures` is not between 1 and 1000".into(), "eject: {failures: 5, time: 10s}");
        }
        if self.lag_max.is_some() && self.monitor.is_none() {
            add(
                "`lag_max` needs `monitor`, to ask replicas how far they are".into(),
                "monitor: {user: mesh_monitor, password: \"${env:MESH_MONITOR_PASSWORD}\"}",
            );
        }
        if self.tls_ca.is_some() && self.tls != BackendTls::Verify {
            add("`tls_ca` means nothing without `tls: verify`".into(), "tls: verify");
        }
        found.extend(rules::problems(&self.rules, &self.limits, self.allow_list.as_ref()));
        found
    }
}

fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
    port.is_some_and(|port| port.parse::<u16>().is_ok()) && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(listener: serde_json::Value, group: serde_json::Value) -> Vec<String> {
        let mut config = serde_json::json!({
            "listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}],
            "groups": {"shop": {"backends": [{"addr": "127.0.0.1:3306"}]}},
        });
        for (key, value) in listener.as_object().cloned().unwrap_or_default() {
            config["listeners"][0][key] = value;
        }
        for (key, value) in group.as_object().cloned().unwrap_or_default() {
            config["groups"]["shop"][key] = value;
        }
        let config: MeshConfig = serde_json::from_value(config).unwrap();
        config.problems().into_iter().map(|(message, _)| message).collect()
    }

    #[test]
    fn what_cannot_work_together_is_told() {
        let none = serde_json::json!({});
        assert_eq!(told(none.clone(), none.clone()), Vec::<String>::new());
        for (listener, group, expected) in [
            (none.clone(), serde_json::json!({"pool": {}, "proxy_protocol": "v2"}), "exclude each other"),
            (none.clone(), serde_json::json!({"match": {}}), "would fit everybody"),
            (
                none.clone(),
                serde_json::json!({"auth": "vault", "users": [{"name": "a"}], "pool": {"wait": "0s"}}),
                "`pool.wait`",
            ),
            (
                none.clone(),
                serde_json::json!({"auth": "vault", "users": [{"name": "a"}], "pool": {"max_lifetime": "10ms"}}),
                "`pool.max_lifetime`",
            ),
            (none.clone(), serde_json::json!({"pool": {"min_idle": 2}}), "`pool.min_idle` needs a password"),
            (
                none.clone(),
                serde_json::json!({"auth": "vault", "users": [{"name": "a"}], "pool": {"min_idle": 9}}),
                "`pool.min_idle` is more than `pool.idle`",
            ),
            (
                none.clone(),
                serde_json::json!({"match": {"sni": ["a"]}}),
                "`match.sni` never fits without `tls`",
            ),
            (
                none.clone(),
                serde_json::json!({"match": {"tlv": {"0xE0": "a"}}}),
                "never fits without `proxy_protocol`",
            ),
            (
                serde_json::json!({"proxy_protocol": ["10.0.0.0/8"]}),
                serde_json::json!({"match": {"tlv": {"0x05": "a"}}}),
                "no field that `match.tlv` knows",
            ),
            (none.clone(), serde_json::json!({"topology": "group_replication"}), "needs `monitor`"),
            (
                none.clone(),
                serde_json::json!({"topology": "pd", "kind": "tidb"}),
                "`topology: pd` without `pd`",
            ),
            (none.clone(), serde_json::json!({"topology": "pd", "pd": ["a:1"]}), "is TiDB's"),
            (
                none.clone(),
                serde_json::json!({"topology": "pd", "kind": "tidb", "pd": ["http://a:1"]}),
                "`http://a:1` is not `host:port`",
            ),
            (none.clone(), serde_json::json!({"pd": ["a:1"]}), "mean nothing without `topology: pd`"),
            (none.clone(), serde_json::json!({"address_map": {"a:1": "b:1"}}), "means nothing where"),
            (serde_json::json!({"fallback": "none"}), none.clone(), "lets nobody in"),
            (none.clone(), serde_json::json!({"init": ["set a = 1", " "]}), "empty statement"),
            (
                none.clone(),
                serde_json::json!({"auth": "mapped", "users": [{"name": "a"}], "account": {"name": "b", "sessions_max": 1}}),
                "`account.sessions_max` means nothing",
            ),
        ] {
            let told = told(listener, group);
            assert!(matches!(&told[..], [only] if only.contains(expected)), "{expected}: {told:?}");
        }
        let fits = serde_json::json!({"match": {"users": ["a"]}});
        assert!(told(serde_json::json!({"fallback": "none"}), fits).is_empty());
    }
}
