//! `admin` of `mesh.yaml`.

use crate::config::{ListenerTls, UserConfig};
use base::Secret;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A port on which the mesh itself answers MySQL clients: `SHOW BACKENDS`, `DRAIN BACKEND`, `KILL`, and more.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Where it listens. Elsewhere than on this machine's own addresses it needs `tls`. A change of it, and of `tls`, needs a
    /// restart.
    #[serde(default = "listen")]
    #[schemars(with = "String", extend("default" = "127.0.0.1:6032"))]
    pub listen: SocketAddr,
    /// Who may come in. Who is gone from here after a reload, or has another password, is let out.
    pub users: Vec<AdminUserConfig>,
    /// Offer TLS. Then nobody comes in without it.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
}

/// Somebody who may come in at the admin port.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminUserConfig {
    /// A name of the mesh's own: no server knows it.
    pub name: String,
    /// `${env:NAME}` or `${file:PATH}`.
    #[schemars(with = "String")]
    pub password: Secret,
    /// It may look, and change nothing.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub read_only: bool,
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 6032))
}

impl AdminConfig {
    /// What is wrong with it, each with what to do.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |message: String, hint: &str| found.push((message, hint.to_owned()));
        if !self.listen.ip().is_loopback() && self.tls.is_none() {
            add(
                format!("`admin.listen: {}` is open to other machines, without `tls`", self.listen),
                "listen: 127.0.0.1:6032, or: tls: {cert: ./cert.pem, key: ./key.pem}",
            );
        }
        if self.users.is_empty() {
            add(
                "nobody may come in at the admin port: `admin.users` is empty".into(),
                "users: [{name: admin, password: \"${env:MESH_ADMIN_PASSWORD}\"}]",
            );
        }
        let mut names = BTreeSet::new();
        for user in &self.users {
            if !names.insert(&user.name) {
                add(format!("two users of `admin` are named `{}`", user.name), "keep one of them");
            }
            if user.password.expose().is_empty() {
                add(
                    format!("user `{}` of `admin` has an empty password", user.name),
                    "password: \"${env:MESH_ADMIN_PASSWORD}\"",
                );
            }
        }
        found
    }

    /// As a login is checked by them. A secret that turned out empty lets nobody in.
    pub fn logins(&self) -> Vec<UserConfig> {
        let with_password = self.users.iter().filter(|user| !user.password.expose().is_empty());
        with_password
            .map(|user| UserConfig {
                name: user.name.clone(),
                password: user.password.clone(),
                sessions_max: None,
            })
            .collect()
    }
}
