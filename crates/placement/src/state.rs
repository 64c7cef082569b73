//! A cluster's state as far as placement goes: objects, what they are set to, and the statement that sets them.

use crate::declaration::Priority;
use crate::labels::Labels;
use crate::policy::Policy;
use crate::rule::hex;
use crate::sql;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// A resource group's settings that we look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceGroup {
    /// `None` is without limit.
    pub ru_per_sec: Option<u64>,
    pub priority: Priority,
    pub burstable: bool,
}

impl ResourceGroup {
    fn options(&self) -> String {
        let units = self.ru_per_sec.map_or_else(|| "UNLIMITED".to_owned(), |units| units.to_string());
        let priority = match self.priority {
            Priority::Low => "LOW",
            Priority::Medium => "MEDIUM",
            Priority::High => "HIGH",
        };
        let burstable = if self.burstable { "TRUE" } else { "FALSE" };
        format!("RU_PER_SEC = {units} PRIORITY = {priority} BURSTABLE = {burstable}")
    }
}

/// A store, as PD has it or as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreState {
    pub id: u64,
    pub address: String,
    pub is_up: bool,
    pub labels: Labels,
    /// Replicas on it, where PD was asked. Not part of what a plan hangs on.
    #[serde(skip)]
    pub regions: Option<u64>,
    /// Leaders among them.
    #[serde(skip)]
    pub leaders: Option<u64>,
}

/// A table and its policy, and those of its partitions that have one of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    pub policy: Option<String>,
    /// Every partition; `None` is the table's policy.
    pub partitions: BTreeMap<String, Option<String>>,
    /// TiDB's number of the table, and of each partition. They change when it is emptied, so a plan does not hang on them.
    #[serde(skip)]
    pub id: i64,
    #[serde(skip)]
    pub partition_ids: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Database {
    pub policy: Option<String>,
    pub tables: BTreeMap<String, Table>,
}

/// What was seen of a cluster: all its policies and groups, and of databases and accounts those that are declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    pub version: String,
    pub policies: BTreeMap<String, Policy>,
    pub databases: BTreeMap<String, Database>,
    pub groups: BTreeMap<String, ResourceGroup>,
    /// Each account's group; `None` is `default`.
    pub users: BTreeMap<String, Option<String>>,
    pub stores: Vec<StoreState>,
    /// Whether the stores are PD's word.
    pub is_from_pd: bool,
    /// PD's own; nothing when it was not asked.
    pub location_labels: Vec<String>,
}

/// Something that a statement sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    Policy { name: String },
    Database { database: String },
    Table { database: String, table: String },
    Partition { database: String, table: String, partition: String },
    Group { name: String },
    User { user: String },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { name } => write!(f, "policy {name}"),
            Self::Database { database } => write!(f, "database {database}"),
            Self::Table { database, table } => write!(f, "table {database}.{table}"),
            Self::Partition { database, table, partition } => {
                write!(f, "partition {partition} of {database}.{table}")
            }
            Self::Group { name } => write!(f, "resource group {name}"),
            Self::User { user } => write!(f, "user {user}"),
        }
    }
}

/// What an object is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A policy or group that is not there, an object without a policy, a user in no group of ours.
    Unset,
    Policy(Policy),
    Group(ResourceGroup),
    /// The name of a policy or of a group.
    Named(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("(none)"),
            Self::Policy(policy) => f.write_str(&policy.options()),
            Self::Group(group) => f.write_str(&group.options()),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl State {
    fn named(name: Option<&String>) -> Self {
        name.map_or(Self::Unset, |name| Self::Named(name.clone()))
    }
}

impl Observed {
    /// What an object is set to; `None` when the object itself is not there.
    pub fn state(&self, object: &Object) -> Option<State> {
        Some(match object {
            Object::Policy { name } => {
                self.policies.get(name).map_or(State::Unset, |policy| State::Policy(policy.clone()))
            }
            Object::Group { name } => {
                self.groups.get(name).map_or(State::Unset, |group| State::Group(group.clone()))
            }
            Object::Database { database } => State::named(self.databases.get(database)?.policy.as_ref()),
            Object::Table { database, table } => {
                State::named(self.databases.get(database)?.tables.get(table)?.policy.as_ref())
            }
            Object::Partition { database, table, partition } => {
                let table = self.databases.get(database)?.tables.get(table)?;
                State::named(table.partitions.get(partition)?.as_ref())
            }
            Object::User { user } => State::named(self.users.get(user)?.as_ref()),
        })
    }

    /// Sets an object, as its statement does.
    pub fn set(&mut self, object: &Object, state: &State) {
        let named = || match state {
            State::Named(name) => Some(name.clone()),
            _ => None,
        };
        match (object, state) {
            (Object::Policy { name }, State::Policy(policy)) => {
                self.policies.insert(name.clone(), policy.clone());
            }
            (Object::Policy { name }, _) => {
                self.policies.remove(name);
            }
            (Object::Group { name }, State::Group(group)) => {
                self.groups.insert(name.clone(), group.clone());
            }
            (Object::Group { name }, _) => {
                self.groups.remove(name);
            }
            (Object::Database { database }, _) => {
                if let Some(database) = self.databases.get_mut(database) {
                    database.policy = named();
                }
            }
            (Object::Table { database, table }, _) => {
                if let Some(table) = self.databases.get_mut(database).and_then(|it| it.tables.get_mut(table))
                {
                    table.policy = named();
                }
            }
            (Object::Partition { database, table, partition }, _) => {
                let table = self.databases.get_mut(database).and_then(|it| it.tables.get_mut(table));
                if let Some(policy) = table.and_then(|table| table.partitions.get_mut(partition)) {
                    *policy = named();
                }
            }
            (Object::User { user }, _) => {
                if let Some(group) = self.users.get_mut(user) {
                    *group = named();
                }
            }
        }
    }

    /// What a plan hangs on, as one number.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("its maps have texts for keys");
        hex::encode(&Sha256::digest(json))
    }
}

/// The statement that brings an object from one state to another.
pub fn statement(object: &Object, from: &State, to: &State) -> String {
    let verb = match (from, to) {
        (State::Unset, _) => "CREATE",
        (_, State::Unset) => "DROP",
        _ => "ALTER",
    };
    let placed = |what: String| match to {
        State::Named(policy) => format!("{what} PLACEMENT POLICY = {}", sql::name(policy)),
        _ => format!("{what} PLACEMENT POLICY = DEFAULT"),
    };
    let options = |to: &State| match to {
        State::Unset => String::new(),
        other => format!(" {other}"),
    };
    match object {
        Object::Policy { name } => format!("{verb} PLACEMENT POLICY {}{}", sql::name(name), options(to)),
        Object::Group { name } => format!("{verb} RESOURCE GROUP {}{}", sql::name(name), options(to)),
        Object::Database { database } => placed(format!("ALTER DATABASE {}", sql::name(database))),
        Object::Table { database, table } => {
            placed(format!("ALTER TABLE {}.{}", sql::name(database), sql::name(table)))
        }
        Object::Partition { database, table, partition } => {
            let table = format!("{}.{}", sql::name(database), sql::name(table));
            placed(format!("ALTER TABLE {table} PARTITION {}", sql::name(partition)))
        }
        Object::User { user } => {
            let group = match to {
                State::Named(group) => group.as_str(),
                _ => "default",
            };
            format!("ALTER USER {} RESOURCE GROUP {}", sql::account(user), sql::name(group))
        }
    }
}
