//! A real TiDB judges ours: it must take and refuse the same policies, and run every statement of a plan.

use placement::declaration::Declaration;
use placement::plan::Plan;
use placement::policy::Policy;
use placement::state::{Database, Observed, Table};
use std::collections::BTreeMap;
use testkit::mysql_async::prelude::Queryable;
use testkit::{TiDb, TiDbOptions};

/// Lists and dictionaries, good and bad, that options are put together of.
const TEXTS: [&str; 20] = [
    "",
    "[]",
    "[+$biz=order]",
    "[\"+$biz=order\",\"-lead=none\"]",
    "[+zone=z1,+zone=z1]",
    "[+zone=z1,+zone=z2]",
    "[+zone=z1,-zone=z1]",
    "[-zone=z1,-zone=z2]",
    "[zone=z1]",
    "[+zone]",
    "[\"+zone=z1,z2\"]",
    "+zone=z1",
    "{\"+$biz=order\": 2}",
    "{\"+$biz=order\": 1, \"+$biz=pay\": 1}",
    "{\"+disk=ssd,#evict-leader\": 2}",
    "{+zone=z1: 1}",
    "{+zone=z1: 0}",
    "{\"+zone=z1,#other\": 2}",
    "{\"+zone=z1,+zone=z2\": 2}",
    "[+engine=tiflash]",
];

#[tokio::test]
async fn tidb_takes_and_refuses_the_policies_that_we_do() {
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    let mut conn = tidb.conn().await.unwrap();
    let mut policies = Vec::new();
    for one in TEXTS {
        for other in TEXTS {
            policies.push(Policy {
                leader_constraints: one.into(),
                follower_constraints: other.into(),
                ..Policy::default()
            });
            policies.push(Policy {
                constraints: one.into(),
                follower_constraints: other.into(),
                ..Policy::default()
            });
            policies.push(Policy {
                constraints: one.into(),
                learner_constraints: other.into(),
                learners: policies.len() as u64 % 3,
                followers: policies.len() as u64 % 4,
                survival_preferences: "[zone, host]".into(),
                ..Policy::default()
            });
        }
    }
    for (primary, regions) in
        [("", ""), ("a", ""), ("", "a"), ("a", "a"), ("a", "a,b"), ("b", " a , b,c"), ("d", "a,b")]
    {
        for schedule in ["", "EVEN", "MAJORITY_IN_PRIMARY", "ODD"] {
            for (followers, learners) in [(0, 0), (1, 0), (4, 0), (8, 0), (9, 0), (2, 1)] {
                policies.push(Policy {
                    primary_region: primary.into(),
                    regions: regions.into(),
                    schedule: schedule.into(),
                    followers,
                    learners,
                    ..Policy::default()
                });
            }
        }
    }
    let mut taken = 0;
    let mut differing = Vec::new();
    for policy in &policies {
        let options = policy.options();
        // A policy without options is none of the grammar.
        if options.is_empty() {
            continue;
        }
        let answer = conn.query_drop(format!("CREATE PLACEMENT POLICY p {options}")).await;
        let ours = policy.rules();
        if answer.is_ok() != ours.is_ok() {
            differing.push(format!("{options}\n  TiDB {answer:?}\n  ours {ours:?}"));
        }
        if answer.is_ok() {
            taken += 1;
            let shown: (String, String) =
                conn.query_first("SHOW CREATE PLACEMENT POLICY p").await.unwrap().unwrap();
            let read = Policy::parse(&shown.1).unwrap();
            assert_eq!(&read, policy, "{}", shown.1);
            conn.query_drop("DROP PLACEMENT POLICY p").await.unwrap();
        }
    }
    println!("{} policies, {taken} taken", policies.len());
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(taken > 100, "{taken}");
}

#[tokio::test]
async fn a_name_with_a_backtick_is_read() {
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    let mut conn = tidb.conn().await.unwrap();
    for name in ["a`b", "a``b", "`", "a` FOLLOWERS=2 `b", "plain"] {
        let quoted = placement::sql::name(name);
        conn.query_drop(format!("CREATE PLACEMENT POLICY {quoted} FOLLOWERS=4")).await.unwrap();
        let (own, text): (String, String) =
            conn.query_first(format!("SHOW CREATE PLACEMENT POLICY {quoted}")).await.unwrap().unwrap();
        assert_eq!(own, name);
        assert_eq!(
            Policy::shown(name, &text).unwrap(),
            Policy { followers: 4, ..Policy::default() },
            "{text}"
        );
        conn.query_drop(format!("CREATE DATABASE {quoted} PLACEMENT POLICY {quoted}")).await.unwrap();
        let (_, text): (String, String) =
            conn.query_first(format!("SHOW CREATE DATABASE {quoted}")).await.unwrap().unwrap();
        assert_eq!(placement::policy::of_database(&text).as_deref(), Some(name), "{text}");
    }
    conn.disconnect().await.unwrap();
}

#[tokio::test]
async fn tidb_runs_every_statement_of_a_plan_and_of_its_inverse() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/placement.yaml")).unwrap();
    let declaration: Declaration = serde_saphyr::from_str(&file).unwrap();
    assert_eq!(declaration.problems(), []);
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    let mut conn = tidb.conn().await.unwrap();
    let mut observed = Observed { stores: declaration.stores(), ..Observed::default() };
    for (name, business) in &declaration.businesses {
        for database in &business.databases {
            conn.query_drop(format!("CREATE DATABASE `{database}`")).await.unwrap();
            conn.query_drop(format!("CREATE TABLE `{database}`.plain (id INT PRIMARY KEY)")).await.unwrap();
            let parts = "PARTITION BY HASH (id) PARTITIONS 2";
            conn.query_drop(format!("CREATE TABLE `{database}`.`odd ``name` (id INT PRIMARY KEY) {parts}"))
                .await
                .unwrap();
            let partitions = [("p0".to_owned(), Some("before".to_owned())), ("p1".to_owned(), None)].into();
            let tables: BTreeMap<_, _> = [
                ("plain".to_owned(), Table::default()),
                ("odd `name".to_owned(), Table { partitions, ..Table::default() }),
            ]
            .into();
            observed.databases.insert(database.clone(), Database { policy: None, tables });
        }
        for user in &business.users {
            conn.query_drop(format!("CREATE USER {}", placement::sql::account(user))).await.unwrap();
            observed.users.insert(user.clone(), None);
        }
        println!("{name}: {}", business.tier.name());
    }
    conn.query_drop("CREATE PLACEMENT POLICY before FOLLOWERS = 4").await.unwrap();
    let plan = Plan::new(&observed, &declaration.desired());
    for step in &plan.steps {
        println!("{};", step.statement);
        conn.query_drop(&step.statement).await.unwrap_or_else(|error| panic!("{}: {error}", step.statement));
    }
    for step in plan.steps.iter().rev() {
        conn.query_drop(&step.inverse).await.unwrap_or_else(|error| panic!("{}: {error}", step.inverse));
    }
    let left: Vec<String> =
        conn.query("SELECT POLICY_NAME FROM information_schema.placement_policies").await.unwrap();
    assert_eq!(left, ["before"]);
    conn.disconnect().await.unwrap();
}
