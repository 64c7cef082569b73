//! The cluster, asked by SQL and by PD's HTTP.

use crate::failure::Failure;
use ::placement::declaration::{Declaration, Desired, Priority};
use ::placement::labels::Labels;
use ::placement::policy::{Policy, of_database};
use ::placement::sql;
use ::placement::state::{Database, Object, Observed, ResourceGroup, State, StoreState, Table};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Params};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for a connection, and for an answer of PD.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// The lock that keeps two appliers apart, in the cluster itself: it goes with the connection.
const LOCK: &str = "tidemill_placement";
/// Seconds to wait for it: the connection of an applier that was killed ends within them.
const LOCK_WAIT_SECONDS: u64 = 5;

pub struct Cluster {
    conn: Conn,
    pd: Option<Pd>,
}

/// PD's HTTP interface.
pub struct Pd {
    http: reqwest::Client,
    base: String,
}

fn failed(what: impl Into<String>, error: &impl std::fmt::Display) -> Failure {
    Failure::new(1, format!("failed to {}: {error}", what.into()))
}

impl Cluster {
    pub async fn connect(declaration: &Declaration) -> Result<Self, Failure> {
        let opts = Opts::from_url(declaration.cluster.url.expose()).map_err(|error| {
            Failure::new(2, format!("failed to read cluster.url: {error}"))
                .hint("url: mysql://user:${env:PASSWORD}@host:4000")
        })?;
        let address = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
        let away = |reason: String| {
            Failure::new(3, format!("failed to connect to TiDB at {address}: {reason}"))
                .hint("cluster.url of placement.yaml names a TiDB server and an account")
        };
        let conn = tokio::time::timeout(ANSWER_WAIT_MAX, Conn::new(opts)).await;
        let conn = conn.map_err(|_| away("it does not answer".to_owned()))?;
        let conn = conn.map_err(|error| away(error.to_string()))?;
        let pd = match &declaration.cluster.pd {
            None => None,
            Some(base) => {
                let http = reqwest::Client::builder().timeout(ANSWER_WAIT_MAX).build();
                let http = http.map_err(|error| failed("make an HTTP client", &error))?;
                Some(Pd { http, base: format!("{}/pd/api/v1", base.trim_end_matches('/')) })
            }
        };
        Ok(Self { conn, pd })
    }

    pub fn pd(&self) -> Option<&Pd> {
        self.pd.as_ref()
    }

    /// Keeps other appliers out, until the connection ends.
    pub async fn lock(&mut self) -> Result<(), Failure> {
        let got: Option<Option<i64>> = self
            .conn
            .exec_first("SELECT GET_LOCK(?, ?)", (LOCK, LOCK_WAIT_SECONDS))
            .await
            .map_err(|error| failed("take the lock of placement", &error))?;
        if got.flatten() == Some(1) {
            return Ok(());
        }
        Err(Failure::new(1, "another `tidemill apply` or `rollback` is at work on this cluster")
            .hint("wait until it has ended"))
    }

    pub async fn run(&mut self, statement: &str) -> Result<(), Failure> {
        let done = self.conn.query_drop(statement).await;
        done.map_err(|error| failed(format!("run `{statement}`"), &error))
    }

    async fn rows<T>(&mut self, query: &str, params: impl Into<Params> + Send) -> Result<Vec<T>, Failure>
    where
        T: mysql_async::prelude::FromRow + Send + 'static,
    {
        let rows = self.conn.exec(query, params.into()).await;
        rows.map_err(|error| failed(format!("ask TiDB `{query}`"), &error))
    }

    /// Everything that a plan looks at.
    pub async fn observe(
        &mut self,
        declaration: &Declaration,
        desired: &Desired,
    ) -> Result<Observed, Failure> {
        let version: Vec<String> = self.rows("SELECT VERSION()", ()).await?;
        let mut observed =
            Observed { version: version.into_iter().next().unwrap_or_default(), ..Observed::default() };
        let query = "SELECT POLICY_NAME FROM information_schema.placement_policies";
        for name in self.rows::<String>(query, ()).await? {
            if let Some(policy) = self.policy(&name).await? {
                observed.policies.insert(name, policy);
            }
        }
        for name in desired.databases.keys() {
            if let Some(database) = self.database(name).await? {
                observed.databases.insert(name.clone(), database);
            }
        }
        observed.groups = self.groups().await?;
        for user in desired.users.keys() {
            if let Some(group) = self.user(user).await? {
                observed.users.insert(user.clone(), group);
            }
        }
        match &self.pd {
            Some(pd) => {
                observed.stores = pd.stores().await?;
                observed.location_labels = pd.location_labels().await?;
                observed.is_from_pd = true;
            }
            None => observed.stores = declaration.stores(),
        }
        Ok(observed)
    }

    /// What one object is set to, now; `None` when it is not there.
    pub async fn state(&mut self, object: &Object) -> Result<Option<State>, Failure> {
        let mut observed = Observed::default();
        match object {
            Object::Policy { name } => {
                if let Some(policy) = self.policy(name).await? {
                    observed.policies.insert(name.clone(), policy);
                }
            }
            Object::Group { .. } => observed.groups = self.groups().await?,
            Object::User { user } => {
                if let Some(group) = self.user(user).await? {
                    observed.users.insert(user.clone(), group);
                }
            }
            Object::Database { database } => {
                if let Some(policy) = self.database_policy(database).await? {
                    let state = Database { policy, ..Database::default() };
                    observed.databases.insert(database.clone(), state);
                }
            }
            Object::Table { database, table } | Object::Partition { database, table, .. } => {
                let tables = self.tables(database, Some(table)).await?;
                let state = Database { tables, ..Database::default() };
                observed.databases.insert(database.clone(), state);
            }
        }
        Ok(observed.state(object))
    }

    async fn policy(&mut self, name: &str) -> Result<Option<Policy>, Failure> {
        let query = "SELECT POLICY_NAME FROM information_schema.placement_policies WHERE POLICY_NAME = ?";
        if self.rows::<String>(query, (name,)).await?.is_empty() {
            return Ok(None);
        }
        let query = format!("SHOW CREATE PLACEMENT POLICY {}", sql::name(name));
        let shown: Option<(String, String)> = self
            .conn
            .query_first(&query)
            .await
            .map_err(|error| failed(format!("ask TiDB `{query}`"), &error))?;
        let text = shown.map(|(_, text)| text).unwrap_or_default();
        let policy = Policy::shown(name, &text);
        policy.map(Some).map_err(|error| failed(format!("read the policy {name}"), &error))
    }

    /// The policy of a database, or `None` when there is no such database.
    async fn database_policy(&mut self, name: &str) -> Result<Option<Option<String>>, Failure> {
        let query = "SELECT SCHEMA_NAME FROM information_schema.schemata WHERE SCHEMA_NAME = ?";
        if self.rows::<String>(query, (name,)).await?.is_empty() {
            return Ok(None);
        }
        // Nothing but its text tells the policy of a database.
        let query = format!("SHOW CREATE DATABASE {}", sql::name(name));
        let shown: Option<(String, String)> = self
            .conn
            .query_first(&query)
            .await
            .map_err(|error| failed(format!("ask TiDB `{query}`"), &error))?;
        let text = shown.map(|(_, text)| text).unwrap_or_default();
        Ok(Some(of_database(&text)))
    }

    async fn database(&mut self, name: &str) -> Result<Option<Database>, Failure> {
        match self.database_policy(name).await? {
            None => Ok(None),
            Some(policy) => Ok(Some(Database { policy, tables: self.tables(name, None).await? })),
        }
    }

    /// The tables of a database, or one of them. Views and sequences have no place.
    async fn tables(
        &mut self,
        database: &str,
        only: Option<&str>,
    ) -> Result<BTreeMap<String, Table>, Failure> {
        let query = "SELECT TABLE_NAME, TIDB_PLACEMENT_POLICY_NAME, TIDB_TABLE_ID FROM information_schema.tables \
                     WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'BASE TABLE' AND (? IS NULL OR TABLE_NAME = ?)";
        let rows: Vec<(String, Option<String>, i64)> = self.rows(query, (database, only, only)).await?;
        let table = |(name, policy, id)| (name, Table { policy, id, ..Table::default() });
        let mut tables: BTreeMap<String, Table> = rows.into_iter().map(table).collect();
        let query = "SELECT TABLE_NAME, PARTITION_NAME, TIDB_PLACEMENT_POLICY_NAME, TIDB_PARTITION_ID \
                     FROM information_schema.partitions WHERE TABLE_SCHEMA = ? AND PARTITION_NAME IS NOT NULL \
                     AND (? IS NULL OR TABLE_NAME = ?)";
        let rows: Vec<(String, String, Option<String>, i64)> =
            self.rows(query, (database, only, only)).await?;
        for (name, partition, policy, id) in rows {
            if let Some(table) = tables.get_mut(&name) {
                table.partitions.insert(partition, policy);
                table.partition_ids.push(id);
            }
        }
        Ok(tables)
    }

    async fn groups(&mut self) -> Result<BTreeMap<String, ResourceGroup>, Failure> {
        let query = "SELECT NAME, RU_PER_SEC, PRIORITY, BURSTABLE FROM information_schema.resource_groups";
        let rows: Vec<(String, String, String, String)> = self.rows(query, ()).await?;
        let group = |(name, units, priority, burstable): (String, String, String, String)| {
            let priority = match priority.to_ascii_uppercase().as_str() {
                "LOW" => Priority::Low,
                "HIGH" => Priority::High,
                _ => Priority::Medium,
            };
            let burstable = burstable.to_ascii_uppercase().starts_with("YES");
            (name, ResourceGroup { ru_per_sec: units.parse().ok(), priority, burstable })
        };
        Ok(rows.into_iter().map(group).collect())
    }

    /// The group of an account, or `None` when there is no such account.
    async fn user(&mut self, user: &str) -> Result<Option<Option<String>>, Failure> {
        let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
        let query = "SELECT JSON_UNQUOTE(JSON_EXTRACT(user_attributes, '$.resource_group')) FROM mysql.user \
                     WHERE User = ? AND Host = ?";
        let rows: Vec<Option<String>> = self.rows(query, (name, host)).await?;
        let own = rows.into_iter().next();
        Ok(own.map(|group| group.filter(|name| !name.is_empty() && name != "default")))
    }
}

impl Pd {
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let away = |reason: String| {
            Failure::new(3, format!("failed to ask PD for {path}: {reason}"))
                .hint("cluster.pd of placement.yaml names one of its servers")
        };
        let answer = self.http.get(format!("{}{path}", self.base)).send().await;
        let answer = answer.map_err(|error| away(base::error::chain(&error)))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| away(error.to_string()))?;
        if !status.is_success() {
            return Err(away(format!("{status}: {}", String::from_utf8_lossy(&bytes).trim())));
        }
        serde_json::from_slice(&bytes).map_err(|error| away(error.to_string()))
    }

    async fn stores(&self) -> Result<Vec<StoreState>, Failure> {
        let answer = self.get("/stores").await?;
        let store = |value: &Value| {
            let (store, status) = (&value["store"], &value["status"]);
            let label = |label: &Value| {
                let text = |key: &str| label[key].as_str().unwrap_or_default().to_owned();
                (text("key"), text("value"))
            };
            StoreState {
                id: store["id"].as_u64().unwrap_or_default(),
                address: store["address"].as_str().unwrap_or_default().to_owned(),
                is_up: store["state_name"] == "Up",
                labels: Labels::new(store["labels"].as_array().into_iter().flatten().map(label)),
                regions: Some(status["region_count"].as_u64().unwrap_or_default()),
                leaders: Some(status["leader_count"].as_u64().unwrap_or_default()),
            }
        };
        let mut stores: Vec<_> = answer["stores"].as_array().into_iter().flatten().map(store).collect();
        stores.sort_by_key(|store| store.id);
        Ok(stores)
    }

    async fn location_labels(&self) -> Result<Vec<String>, Failure> {
        let answer = self.get("/config/replicate").await?;
        let labels = answer["location-labels"].as_str().unwrap_or_default();
        Ok(labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect())
    }
}
