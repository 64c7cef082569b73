//! `placement.yaml`: what is wanted, and the state that it means.

use crate::labels::{Labels, is_exclusive, key_problem, value_problem};
use crate::policy::Policy;
use crate::state::ResourceGroup;
use base::Secret;
use base::near::nearest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The label that says which stores of a pool may lead in the tiers with fewer leaders: `first`, `second`, `none`.
pub const LEAD: &str = "lead";
/// Databases that belong to the cluster.
const SYSTEM: [&str; 5] = ["mysql", "information_schema", "performance_schema", "sys", "metrics_schema"];
/// Names become parts of SQL names, which have 64 characters at most.
const NAME_MAX: usize = 32;
const LEARNERS_MAX: u64 = 3;

/// The whole file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The cluster, and how to reach it.
    pub cluster: ClusterConfig,
    /// The servers and their labels. Where PD is named its stores count, and these are held against them.
    #[serde(default)]
    pub nodes: Vec<NodeConfig>,
    /// Groups of stores, by name.
    pub pools: BTreeMap<String, PoolConfig>,
    /// The businesses, by name.
    pub businesses: BTreeMap<String, BusinessConfig>,
}

/// The cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// One of its TiDB servers, `mysql://user:${env:PASSWORD}@host:4000`. The account needs `PLACEMENT_ADMIN`,
    /// `RESOURCE_GROUP_ADMIN`, `CREATE USER`, `ALTER` on the databases and `SELECT` on `mysql.user`.
    #[schemars(with = "String")]
    pub url: Secret,
    /// PD, `http://host:2379`. Without it nothing is known of stores but what `nodes` says, and `verify` sees no regions.
    #[serde(default)]
    pub pd: Option<String>,
    /// Labels that name what fails together, coarse to fine.
    #[serde(default = "failure_domain")]
    #[schemars(extend("default" = ["zone", "host"]))]
    pub failure_domain: Vec<String>,
}

fn failure_domain() -> Vec<String> {
    vec!["zone".to_owned(), "host".to_owned()]
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A store of rows.
    Tikv,
    /// A store of columns.
    Tiflash,
    /// An SQL server.
    Tidb,
}

/// One server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// `tikv`, `tiflash` or `tidb`.
    pub kind: NodeKind,
    /// `host:port`, as PD knows it.
    pub addr: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A group of stores.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// The labels that a store of the pool has, all of them: `{$biz: order}`. A key that begins with `$` keeps everybody else's
    /// data away; any other key keeps the pool's data in, and lets others in too.
    pub stores: BTreeMap<String, String>,
}

/// How many stores of its pool lead a business's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// All of them: the best use of the machines.
    #[default]
    Utilisation,
    /// Those whose label `lead` is not `none`; the others follow.
    Redundancy,
    /// Those whose label `lead` is `first`. When they are away any other replica leads until they are back.
    Strict,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Utilisation => "utilisation",
            Self::Redundancy => "redundancy",
            Self::Strict => "strict",
        }
    }
}

/// One business.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BusinessConfig {
    /// Its databases; every table of them is placed.
    pub databases: Vec<String>,
    /// Its accounts, `name@host`. They are bound to its resource group.
    #[serde(default)]
    pub users: Vec<String>,
    /// The pool that holds its data.
    pub pool: String,
    /// How many stores of the pool lead: `utilisation` (all), `redundancy` (two) or `strict` (one).
    #[serde(default)]
    #[schemars(extend("default" = "utilisation"))]
    pub tier: Tier,
    /// Copies elsewhere that are only read.
    #[serde(default)]
    pub read_views: Vec<ReadView>,
    /// What it may take of the cluster. Without it there is no resource group.
    #[serde(default)]
    pub resource: Option<ResourceConfig>,
}

/// A copy that is only read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadView {
    /// The pool that holds it.
    pub pool: String,
    /// Copies of each row there.
    #[serde(default = "one")]
    #[schemars(extend("default" = 1))]
    pub learners: u64,
}

fn one() -> u64 {
    1
}

/// A budget.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceConfig {
    /// Request units in a second.
    pub ru_per_sec: u64,
    /// `low`, `medium` or `high`.
    #[serde(default)]
    #[schemars(extend("default" = "medium"))]
    pub priority: Priority,
    /// Whether it may take more while nobody else wants it.
    #[serde(default)]
    pub burstable: bool,
}

/// Who goes first when the stores are busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Last.
    Low,
    /// In between.
    #[default]
    Medium,
    /// First.
    High,
}

/// The state that a declaration means, by SQL names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub policies: BTreeMap<String, Policy>,
    /// The policy of each database, and of all in it.
    pub databases: BTreeMap<String, String>,
    pub groups: BTreeMap<String, ResourceGroup>,
    /// The group of each account.
    pub users: BTreeMap<String, String>,
}

impl Desired {
    /// The policy of a database, and of all in it.
    pub fn policy_of(&self, database: &str) -> Option<&Policy> {
        self.policies.get(self.databases.get(database)?)
    }
}

/// The policy of a business.
pub fn policy_name(business: &str) -> String {
    format!("mb_{business}")
}

/// The resource group of a business.
pub fn group_name(business: &str) -> String {
    format!("rg_{business}")
}

impl Declaration {
    /// Every mistake, with what to do about it. A message quotes what is wrong, so that its line can be found.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let mut add = |message: String, hint: &str| out.push((message, hint.to_owned()));
        if self.cluster.failure_domain.is_empty() {
            add("`failure_domain` is empty".to_owned(), "failure_domain: [zone, host], coarse to fine");
        }
        for key in &self.cluster.failure_domain {
            if let Some(why) = key_problem(key) {
                add(format!("`{key}` is not a label: {why}"), "failure_domain: [zone, host]");
            } else if is_exclusive(key) {
                let message = format!("`{key}` says whose a store is, not what fails with it");
                add(message, "name labels of places only: failure_domain: [zone, host]");
            }
        }
        // It may hold a password, so it is not told.
        if let Some(pd) = self.cluster.pd.as_deref() {
            let plain =
                pd.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.contains('@'));
            if !plain {
                let hint = "pd: http://127.0.0.1:2379, without an account";
                add("`pd` is not PD's address".to_owned(), hint);
            }
        }
        let mut addresses = BTreeSet::new();
        for node in &self.nodes {
            let addr = &node.addr;
            if !addresses.insert(addr) {
                add(format!("the node `{addr}` is there twice"), "keep one of them");
            }
            for (key, value) in &node.labels {
                if let Some(why) = key_problem(key) {
                    add(format!("the node `{addr}` has the label `{key}`: {why}"), "rename the label");
                }
                if let Some(why) = value_problem(value) {
                    add(
                        format!("the node `{addr}` has the label value `{value}`: {why}"),
                        "change the value",
                    );
                }
            }
        }
        self.pool_problems(&mut add);
        self.business_problems(&mut add);
        out
    }

    fn pool_problems(&self, add: &mut impl FnMut(String, &str)) {
        for (name, pool) in &self.pools {
            if pool.stores.is_empty() {
                add(format!("the pool `{name}` names no label"), "stores: {$biz: order}");
            }
            for (key, value) in &pool.stores {
                let why = key_problem(key).or_else(|| value_problem(value));
                if let Some(why) = why {
                    add(format!("the pool `{name}` wants `{key}`: `{value}`: {why}"), "mend the label");
                } else if value.is_empty() {
                    add(format!("the pool `{name}` wants no value of `{key}`"), "stores: {$biz: order}");
                }
                if self.cluster.failure_domain.contains(key) {
                    let message =
                        format!("the pool `{name}` goes by `{key}`, which names what fails together");
                    add(message, "give the stores a label of their own for it, like `$biz`");
                }
                let values = || {
                    let nodes = self.nodes.iter().filter(|node| node.kind == NodeKind::Tikv);
                    nodes.filter_map(move |node| node.labels.get(key).map(String::as_str))
                };
                if !self.nodes.is_empty() && !values().any(|own| own == value) {
                    let hint = match nearest(value, values()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "label the nodes, or mend the pool".to_owned(),
                    };
                    add(format!("the pool `{name}`: no node of kind tikv has {key}: `{value}`"), &hint);
                }
            }
        }
    }

    fn business_problems(&self, add: &mut impl FnMut(String, &str)) {
        let (mut databases, mut users) = (BTreeMap::new(), BTreeMap::new());
        let known_pool = |business: &str, pool: &str, add: &mut dyn FnMut(String, &str)| {
            if !self.pools.contains_key(pool) {
                let names = || self.pools.keys().map(String::as_str);
                let there = names().collect::<Vec<_>>().join(", ");
                let hint = match nearest(pool, names()) {
                    Some(meant) => format!("did you mean `{meant}`? there are: {there}"),
                    None => format!("there are: {there}"),
                };
                add(format!("the business `{business}`: there is no pool `{pool}`"), &hint);
            }
        };
        for (name, business) in &self.businesses {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
                let message = format!("the business `{name}` cannot be called so");
                add(message, "use lower-case letters, digits and _, at most 32");
            }
            known_pool(name, &business.pool, add);
            if business.databases.is_empty() {
                add(format!("the business `{name}` has no databases"), "databases: [order_db]");
            }
            for database in &business.databases {
                let lower = database.to_lowercase();
                if SYSTEM.contains(&lower.as_str()) {
                    let message =
                        format!("the business `{name}` claims `{database}`, which is the cluster's");
                    add(message, "leave it out: it follows PD's own rule");
                } else if let Some(other) = databases.insert(lower, name) {
                    let message = format!("`{database}` is of the businesses `{other}` and `{name}`");
                    add(message, "a database belongs to one business");
                }
            }
            for user in &business.users {
                if user.rsplit_once('@').is_none_or(|(user, host)| user.is_empty() || host.is_empty()) {
                    add(format!("`{user}` is not an account"), "users: [\"order_app@%\"]");
                } else if let Some(other) = users.insert(user, name) {
                    let message = format!("`{user}` is of the businesses `{other}` and `{name}`");
                    add(message, "an account has one resource group");
                }
            }
            if !business.users.is_empty() && business.resource.is_none() {
                let message = format!("the business `{name}` has users and no `resource`");
                add(message, "resource: {ru_per_sec: 2000}, or remove the users");
            }
            if business.resource.as_ref().is_some_and(|resource| resource.ru_per_sec == 0) {
                add(format!("the business `{name}`: `ru_per_sec` is 0"), "ru_per_sec: 2000");
            }
            let mut views = BTreeSet::new();
            for view in &business.read_views {
                known_pool(name, &view.pool, add);
                if view.pool == business.pool {
                    let message =
                        format!("the business `{name}`: a read view in its own pool `{}`", view.pool);
                    add(message, "a read view is on stores of another pool");
                } else if !views.insert(&view.pool) {
                    add(
                        format!("the business `{name}` has two read views in `{}`", view.pool),
                        "write one, with more `learners`",
                    );
                }
                if !(1..=LEARNERS_MAX).contains(&view.learners) {
                    add(format!("the business `{name}`: `learners` is 1 to 3"), "learners: 1");
                }
            }
        }
    }

    /// The state that the declaration means. Call it when there are no problems.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        for (name, business) in &self.businesses {
            let policy = policy_name(name);
            for database in &business.databases {
                desired.databases.insert(database.clone(), policy.clone());
            }
            desired.policies.insert(policy, self.policy(business));
            if let Some(resource) = &business.resource {
                let group = group_name(name);
                desired.groups.insert(
                    group.clone(),
                    ResourceGroup {
                        ru_per_sec: Some(resource.ru_per_sec),
                        priority: resource.priority,
                        burstable: resource.burstable,
                    },
                );
                for user in &business.users {
                    desired.users.insert(user.clone(), group.clone());
                }
            }
        }
        desired
    }

    /// The policy of a business: three voters in its pool, led by the stores of its tier, and its read views.
    fn policy(&self, business: &BusinessConfig) -> Policy {
        let labels = |pool: &str| -> Vec<String> {
            let stores = self.pools.get(pool).map(|pool| &pool.stores);
            stores.into_iter().flatten().map(|(key, value)| format!("+{key}={value}")).collect()
        };
        let own = labels(&business.pool);
        let json = |list: &[String]| serde_json::Value::from(list.to_vec()).to_string();
        // YAML wants a space behind the colon of a dictionary, and entries in the order of their text.
        let dictionary = |entries: &[(Vec<String>, u64)]| {
            let entry = |(labels, count): &(Vec<String>, u64)| {
                format!("{}: {count}", serde_json::Value::from(labels.join(",")))
            };
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        };
        let mut policy =
            Policy { survival_preferences: json(&self.cluster.failure_domain), ..Policy::default() };
        let lead = match business.tier {
            Tier::Utilisation => None,
            Tier::Redundancy => Some(format!("-{LEAD}=none")),
            Tier::Strict => Some(format!("+{LEAD}=first")),
        };
        let mut leaders = own.clone();
        leaders.extend(lead);
        policy.leader_constraints = json(&leaders);
        policy.follower_constraints = dictionary(&[(own, 2)]);
        let mut views: Vec<_> =
            business.read_views.iter().map(|view| (labels(&view.pool), view.learners)).collect();
        views.sort();
        if !views.is_empty() {
            policy.learner_constraints = dictionary(&views);
        }
        policy
    }

    /// The declared stores of rows, for when PD cannot be asked.
    pub fn stores(&self) -> Vec<crate::state::StoreState> {
        let nodes = self.nodes.iter().filter(|node| node.kind == NodeKind::Tikv);
        nodes
            .zip(1..)
            .map(|(node, id)| crate::state::StoreState {
                id,
                address: node.addr.clone(),
                is_up: true,
                labels: Labels::new(node.labels.clone()),
                regions: None,
                leaders: None,
            })
            .collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::rule::Rule;

    pub const FILE: &str = "
cluster: {url: 'mysql://root@127.0.0.1:4000'}
nodes:
  - {kind: tikv, addr: '10.0.0.1:20160', labels: {$biz: order, zone: z1, host: h1, lead: first}}
  - {kind: tikv, addr: '10.0.0.2:20160', labels: {$biz: order, zone: z1, host: h2, lead: second}}
  - {kind: tikv, addr: '10.0.0.3:20160', labels: {$biz: order, zone: z2, host: h3, lead: none}}
  - {kind: tikv, addr: '10.0.0.1:20161', labels: {zone: z1, host: h1}}
  - {kind: tikv, addr: '10.0.0.2:20161', labels: {zone: z1, host: h2}}
  - {kind: tikv, addr: '10.0.0.3:20161', labels: {zone: z2, host: h3}}
  - {kind: tikv, addr: '10.0.0.4:20160', labels: {$biz: reports, zone: z3, host: h4}}
pools:
  order: {stores: {$biz: order}}
  reports: {stores: {$biz: reports}}
businesses:
  order:
    databases: [order_db]
    users: ['order_app@%']
    pool: order
    tier: strict
    read_views: [{pool: reports}]
    resource: {ru_per_sec: 8000, priority: high}
";

    pub fn read(text: &str) -> Declaration {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        assert_eq!(read(FILE).problems(), []);
        let broken = FILE
            .replace("{stores: {$biz: order}}", "{stores: {$biz: ordr}}")
            .replace("[order_db]", "[order_db, MySQL]")
            .replace("pool: order\n", "pool: ordre\n")
            .replace("'order_app@%'", "order_app")
            .replace("10.0.0.2:20161", "10.0.0.1:20160")
            .replace("ru_per_sec: 8000", "ru_per_sec: 0");
        let problems = read(&broken).problems();
        for part in
            ["`ordr`", "`MySQL`", "no pool `ordre`", "`order_app` is not", "there twice", "`ru_per_sec` is 0"]
        {
            assert!(problems.iter().any(|(message, _)| message.contains(part)), "{part}: {problems:#?}");
        }
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(problems.iter().any(|(_, hint)| hint == "did you mean `order`?"), "{problems:#?}");
    }

    #[test]
    fn a_password_of_pd_is_not_told() {
        for pd in ["https://root:hush@pd:2379", "http://root:hush@pd:2379", "root:hush@pd:2379"] {
            let told = read(&FILE.replace("4000'}", &format!("4000', pd: '{pd}'}}"))).problems();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].0.contains("`pd` is not") && !format!("{told:?}").contains("hush"), "{told:?}");
        }
        assert_eq!(read(&FILE.replace("4000'}", "4000', pd: 'http://pd:2379'}")).problems(), []);
    }

    #[test]
    fn each_tier_is_its_rules() {
        for (tier, expected) in [
            ("utilisation", &["voter x3 [$biz=order]", "learner x1 [$biz=reports]"][..]),
            (
                "redundancy",
                &["leader x1 [$biz=order, lead!=none]", "voter x2 [$biz=order]", "learner x1 [$biz=reports]"],
            ),
            (
                "strict",
                &["leader x1 [$biz=order, lead=first]", "voter x2 [$biz=order]", "learner x1 [$biz=reports]"],
            ),
        ] {
            let desired = read(&FILE.replace("tier: strict", &format!("tier: {tier}"))).desired();
            let rules = desired.policies["mb_order"].rules().unwrap();
            assert_eq!(rules.iter().map(Rule::shape).collect::<Vec<_>>(), expected, "{tier}");
            assert!(rules.iter().all(|rule| rule.location_labels == ["zone", "host"]));
        }
    }
}
