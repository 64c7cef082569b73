//! `pool` of a group.

use super::AuthMode;
use base::Span;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// A client that is told nothing for longer takes its connection for dead.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Less would be a login for almost every statement, which `pool` is there to spare.
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// Connections that are shared.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Connections to each server at most, from 1 to 10000. A session that finds none free waits, first come first served.
    #[serde(default = "pool_max")]
    #[schemars(extend("default" = 64))]
    pub max: u32,
    /// Connections to each server that stay when nobody uses them. More are closed after `idle_time`.
    #[serde(default = "pool_idle")]
    #[schemars(extend("default" = 8))]
    pub idle: u32,
    /// Free connections to each server that are made before anybody asks for one, and made anew when they are taken or lost; never
    /// more than `max` with those in use. With `vault` and `mapped`, up to `idle`.
    #[serde(default)]
    #[schemars(extend("default" = 0))]
    pub min_idle: u32,
    /// How long a session waits for a connection before it gets error 1040, from 1ms to 10m.
    #[serde(default = "pool_wait")]
    #[schemars(with = "String", extend("default" = "10s"))]
    pub wait: Span,
    /// After so long without use a connection beyond `idle` is closed.
    #[serde(default = "pool_idle_time")]
    #[schemars(with = "String", extend("default" = "30s"))]
    pub idle_time: Span,
    /// A connection that is older is not used again, from 1s on: less than what the servers' `wait_timeout`, a firewall or a
    /// balancer in between allow. Some go up to a tenth earlier, so that not all of them go at once.
    #[serde(default = "pool_max_lifetime")]
    #[schemars(with = "String", extend("default" = "1h"))]
    pub max_lifetime: Span,
    /// For tests: whoever comes back gets another connection, on which somebody else has set everything otherwise.
    #[serde(skip)]
    #[schemars(skip)]
    #[doc(hidden)]
    pub chaos: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max: pool_max(),
            idle: pool_idle(),
            min_idle: 0,
            wait: pool_wait(),
            idle_time: pool_idle_time(),
            max_lifetime: pool_max_lifetime(),
            chaos: false,
        }
    }
}

impl PoolConfig {
    /// What is wrong with it, each with what to do.
    pub(super) fn problems(&self, auth: AuthMode) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        let mut add = |message: &str, hint| found.push((message.to_owned(), hint));
        if !(1..=10_000).contains(&self.max) || self.idle > self.max {
            add(
                "`pool.max` is not between 1 and 10000, or less than `pool.idle`",
                "pool: {max: 64, idle: 8}",
            );
        }
        if self.min_idle > self.idle {
            add("`pool.min_idle` is more than `pool.idle`", "pool: {max: 64, idle: 16, min_idle: 16}");
        }
        if self.min_idle > 0 && auth == AuthMode::Relay {
            add(
                "`pool.min_idle` needs a password, to log in before a client does, and `auth: relay` has none",
                "auth: vault, with `users`; or leave `min_idle` out",
            );
        }
        if !(Duration::from_millis(1)..=WAIT_MAX).contains(&self.wait.0) {
            add("`pool.wait` is not between 1ms and 10m", "pool: {wait: 10s}");
        }
        if self.max_lifetime.0 < LIFETIME_MIN {
            add("`pool.max_lifetime` is less than 1s", "pool: {max_lifetime: 1h}");
        }
        found
    }
}

fn pool_max() -> u32 {
    64
}

fn pool_idle() -> u32 {
    8
}

fn pool_wait() -> Span {
    Span(Duration::from_secs(10))
}

fn pool_idle_time() -> Span {
    Span(Duration::from_secs(30))
}

fn pool_max_lifetime() -> Span {
    Span(Duration::from_secs(3600))
}
