//! Placement of businesses on a real TiDB: planned, applied over a kill, watched, taken back; and regions that a real PD
//! knows.

use crate::node::Node;
use placement::policy::Policy;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testkit::{FakePeer, FakeRegion, FakeStore, FakeStores, Pd, TiDb, TiDbOptions};

/// Tables of the business: enough for a kill to fall in between.
const TABLES: usize = 40;
const WAIT_MAX: Duration = Duration::from_secs(60);

fn file(tidb: &TiDb, pd: Option<&Pd>) -> String {
    let pd = pd.map_or(String::new(), |pd| format!("  pd: http://{}\n", pd.addr()));
    format!(
        "cluster:
  url: {}
  failure_domain: [host]
{pd}nodes:
  - {{kind: tikv, addr: '127.0.0.1:20001', labels: {{$biz: order, host: h1, lead: first}}}}
  - {{kind: tikv, addr: '127.0.0.1:20002', labels: {{$biz: order, host: h2, lead: second}}}}
  - {{kind: tikv, addr: '127.0.0.1:20003', labels: {{$biz: order, host: h3, lead: none}}}}
  - {{kind: tikv, addr: '127.0.0.1:20004', labels: {{host: h1}}}}
  - {{kind: tikv, addr: '127.0.0.1:20005', labels: {{host: h2}}}}
  - {{kind: tikv, addr: '127.0.0.1:20006', labels: {{host: h3}}}}
pools:
  order: {{stores: {{$biz: order}}}}
businesses:
  order:
    databases: [order_db]
    users: ['order_app@%']
    pool: order
    tier: strict
    resource: {{ru_per_sec: 8000, priority: high}}
",
        tidb.url()
    )
}

fn project(tidb: &TiDb, pd: Option<&Pd>) -> Node {
    Node::new(&[("placement.yaml", file(tidb, pd))])
}

async fn tidb(tables: usize) -> TiDb {
    let tidb = TiDb::start(TiDbOptions::default()).await.unwrap();
    tidb.exec("CREATE DATABASE order_db").await.unwrap();
    for table in 0..tables {
        tidb.exec(&format!("CREATE TABLE order_db.t{table:02} (id INT PRIMARY KEY)")).await.unwrap();
    }
    tidb.exec("CREATE USER 'order_app'@'%'").await.unwrap();
    tidb
}

/// The name of the plan that there is to be made.
fn planned(node: &Node) -> String {
    let (status, out, err) = node.run(&["--json", "plan"]);
    assert_eq!(status, 0, "{out}{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    plan["name"].as_str().unwrap().to_owned()
}

fn started(node: &Node, verb: &str, plan: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("-C").arg(node.path("")).args([verb, plan]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills one who works on a plan when the log has five of a mark.
fn killed(node: &Node, verb: &str, plan: &str, mark: &str) {
    let log = node.path(&format!("data/placement/{plan}.log"));
    let mut worker = started(node, verb, plan);
    let begun = Instant::now();
    while std::fs::read_to_string(&log).unwrap_or_default().matches(mark).count() < 5 {
        assert!(begun.elapsed() < WAIT_MAX, "no step was done");
        std::thread::yield_now();
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
}

async fn placed(tidb: &TiDb) -> i64 {
    tidb.query_one("SELECT COUNT(*) FROM information_schema.tables WHERE TABLE_SCHEMA = 'order_db' AND TIDB_PLACEMENT_POLICY_NAME = 'mb_order'").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_outlives_a_kill_and_is_taken_back() {
    let tidb = tidb(TABLES).await;
    let node = project(&tidb, None);
    let (status, out, err) = node.run(&["plan"]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("+ policy mb_order\n") && out.contains("… and 20 like it"), "{out}");
    assert!(
        out.contains("warning P4: policy mb_order: after the loss of store 127.0.0.1:20001 no store"),
        "{out}"
    );
    let (status, out, _) = node.run(&["verify"]);
    assert_eq!(status, 4, "{out}");
    let plan = planned(&node);

    killed(&node, "apply", &plan, "\"done\"");
    let before = placed(&tidb).await;
    assert!(before < TABLES as i64, "all was done before the kill");
    // Two at once: one waits or is sent away, and no step runs twice.
    let both = [started(&node, "apply", &plan), started(&node, "apply", &plan)];
    let ended = both.map(|mut applier| applier.wait().unwrap().code());
    assert!(ended.contains(&Some(0)) && ended.iter().all(|it| matches!(it, Some(0 | 1))), "{ended:?}");
    let log = std::fs::read_to_string(node.path(&format!("data/placement/{plan}.log"))).unwrap();
    for step in 0..TABLES + 4 {
        let line = format!("{{\"step\":{step},\"mark\":\"done\"}}\n");
        assert_eq!(log.matches(&line).count(), 1, "{line}{log}");
    }
    assert_eq!(placed(&tidb).await, TABLES as i64);
    let (status, out, err) = node.run(&["verify"]);
    assert_eq!(status, 0, "{out}{err}");
    let (status, out, _) = node.run(&["plan"]);
    assert_eq!((status, out.starts_with("nothing to do")), (0, true), "{out}");
    let group: String = tidb
        .query_one("SELECT JSON_UNQUOTE(JSON_EXTRACT(user_attributes, '$.resource_group')) FROM mysql.user WHERE User = 'order_app'")
        .await
        .unwrap();
    assert_eq!(group, "rg_order");

    killed(&node, "rollback", &plan, "\"undone\"");
    assert!(placed(&tidb).await > 0, "all was undone before the kill");
    let (status, out, err) = node.run(&["rollback", &plan]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert_eq!(placed(&tidb).await, 0);
    let policies: Vec<String> =
        tidb.query("SELECT POLICY_NAME FROM information_schema.placement_policies").await.unwrap();
    assert_eq!(policies, [""; 0]);
    // The cluster is as it was, so that the plan is the same one, and may be applied again.
    assert_eq!(planned(&node), plan);
    let (status, out, err) = node.run(&["apply", &plan]);
    assert_eq!(status, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_under_a_plan_ends_it_before_anything_is_done() {
    let tidb = tidb(2).await;
    let node = project(&tidb, None);
    let plan = planned(&node);
    tidb.exec("CREATE TABLE order_db.late (id INT PRIMARY KEY)").await.unwrap();
    let (status, _, err) = node.run(&["apply", &plan]);
    assert_eq!(status, 4, "{err}");
    assert!(err.contains("the cluster is not as the plan") && placed(&tidb).await == 0, "{err}");
    let plan = planned(&node);
    assert_eq!(node.run(&["apply", &plan]).0, 0);
    // A table that comes later has the policy of its database; what somebody changes by hand is seen.
    tidb.exec("CREATE TABLE order_db.later (id INT PRIMARY KEY)").await.unwrap();
    assert_eq!(node.run(&["verify"]).0, 0);
    tidb.exec("ALTER PLACEMENT POLICY mb_order FOLLOWERS = 4").await.unwrap();
    let (status, out, err) = node.run(&["verify"]);
    assert_eq!(status, 4, "{out}{err}");
    assert!(out.contains("policy mb_order is FOLLOWERS = 4"), "{out}");
    let (status, _, err) = node.run(&["rollback", &plan]);
    assert_eq!(status, 4, "{err}");
    assert!(err.contains("policy mb_order is FOLLOWERS = 4 instead of"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_another_one_since_does_not_hold_up_the_way_back() {
    let tidb = tidb(2).await;
    let node = project(&tidb, None);
    let plan = planned(&node);
    assert_eq!(node.run(&["apply", &plan]).0, 0);
    // A store has another label, and a table has come, with its database's policy.
    node.write("placement.yaml", &file(&tidb, None).replace("{host: h3}", "{host: h4}"));
    tidb.exec("CREATE TABLE order_db.later (id INT PRIMARY KEY)").await.unwrap();
    let (status, out, err) = node.run(&["rollback", &plan]);
    assert_eq!(status, 1, "{out}{err}");
    for part in [
        "warning: the cluster is another one since the plan was made",
        "cannot be dropped while table order_db.later use it",
        "is still in use",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    tidb.exec("ALTER TABLE order_db.later PLACEMENT POLICY = DEFAULT").await.unwrap();
    let (status, out, err) = node.run(&["rollback", &plan]);
    assert_eq!((status, placed(&tidb).await), (0, 0), "{out}{err}");
    // Nothing is in effect, so the whole cluster counts again.
    let (status, _, err) = node.run(&["apply", &plan]);
    assert_eq!(status, 4, "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plan_of_a_cluster_that_was_built_anew_is_applied_again() {
    let first = tidb(1).await;
    let node = project(&first, None);
    let plan = planned(&node);
    assert_eq!(node.run(&["apply", &plan]).0, 0);
    drop(first);
    let second = tidb(1).await;
    node.write("placement.yaml", &file(&second, None));
    assert_eq!(planned(&node), plan);
    let (status, out, err) = node.run(&["apply", &plan]);
    assert_eq!((status, placed(&second).await), (0, 1), "{out}{err}");
    assert!(node.path(&format!("data/placement/{plan}.log.old")).exists());
    let (status, out, err) = node.run(&["rollback", &plan]);
    assert_eq!((status, placed(&second).await), (0, 0), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_cannot_work_is_refused_with_its_reason() {
    let tidb = tidb(1).await;
    let node = project(&tidb, None);
    node.write("placement.yaml", &file(&tidb, None).replace("host: h2, lead", "host: h1, lead"));
    let (status, out, err) = node.run(&["plan"]);
    assert_eq!(status, 4, "{out}{err}");
    assert!(out.contains("refused P5: policy mb_order: host h1 can come to hold 2 of its voters"), "{out}");
    assert!(!node.path("data/placement").exists(), "a refused plan is not kept");
    node.write("placement.yaml", &file(&tidb, None).replace("pool: order\n", "pool: ordre\n"));
    let (status, _, err) = node.run(&["check"]);
    assert_eq!(status, 2, "{err}");
    let told = "placement.yaml:17:11: the business `order`: there is no pool `ordre`\n  hint: did you mean `order`? there are: order\n";
    assert!(err.contains(told), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_the_region_that_is_out_of_place() {
    let (tidb, pd) = (tidb(1).await, Pd::start().await.unwrap());
    let node = project(&tidb, Some(&pd));
    let labels = |biz: bool, host: &str, lead: &str| {
        let mut labels = vec![("host".to_owned(), host.to_owned())];
        if biz {
            labels.extend([("$biz".to_owned(), "order".to_owned()), ("lead".to_owned(), lead.to_owned())]);
        }
        labels
    };
    let all = [
        FakeStore { id: 1, labels: labels(true, "h1", "first") },
        FakeStore { id: 2, labels: labels(true, "h2", "second") },
        FakeStore { id: 3, labels: labels(true, "h3", "none") },
        FakeStore { id: 4, labels: labels(false, "h1", "") },
        FakeStore { id: 5, labels: labels(false, "h2", "") },
        FakeStore { id: 6, labels: labels(false, "h3", "") },
    ];
    let mut stores = FakeStores::join(&pd, &all[0]).await.unwrap();
    for store in &all[1..] {
        stores.put(store).await.unwrap();
    }
    let plan = planned(&node);
    assert_eq!(node.run(&["apply", &plan]).0, 0);
    let (status, out, err) = node.run(&["verify"]);
    assert_eq!(status, 4, "{out}{err}");
    assert!(out.contains("table order_db.t00: PD has no rule of it"), "{out}");

    // This TiDB has no PD: what it would tell PD, the test does.
    let (_, text): (String, String) = tidb.query_one("SHOW CREATE PLACEMENT POLICY mb_order").await.unwrap();
    let table: i64 = tidb
        .query_one("SELECT TIDB_TABLE_ID FROM information_schema.tables WHERE TABLE_NAME = 't00'")
        .await
        .unwrap();
    let bundle = Policy::parse(&text).unwrap().bundle(table, &[]).unwrap();
    let url = format!("http://{}/pd/api/v1/config/placement-rule?partial=true", pd.addr());
    let body = serde_json::to_vec(&[&bundle]).unwrap();
    let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let peer = |id: u64, store: u64| FakePeer {
        id,
        store,
        is_learner: false,
        is_witness: false,
        is_down: false,
        is_pending: false,
    };
    let (start, end) = placement::key::table_range(table);
    let mut region = FakeRegion {
        id: 1000,
        start,
        end,
        version: 2,
        peers: vec![peer(11, 1), peer(12, 2), peer(14, 4)],
        leader: 1,
    };
    let before = FakeRegion {
        id: 1001,
        start: Vec::new(),
        end: region.start.clone(),
        version: 2,
        peers: vec![peer(21, 4), peer(22, 5), peer(23, 6)],
        leader: 0,
    };
    stores.report(&before).await.unwrap();
    stores.report(&region).await.unwrap();
    let told = [
        "`leader x1 [$biz=order, lead=first]` has another role on store 1",
        "`voter x2 [$biz=order]` has 1 of 2",
        "no rule wants the replica on store 4",
    ];
    let seen = || async {
        let (status, out, _) = node.run(&["verify"]);
        status == 4 && told.iter().all(|part| out.contains(part))
    };
    node.until("the region is out of place", seen).await;
    region.peers[2] = peer(13, 3);
    region.leader = 0;
    region.version = 3;
    stores.report(&region).await.unwrap();
    node.until("the region is in place", || async { node.run(&["verify"]).0 == 0 }).await;
    let (_, out, _) = node.run(&["verify"]);
    assert!(out.contains("127.0.0.1:20001 1") && out.contains("1 region looked at"), "{out}");
    let told = |part: &'static str| {
        let node = &node;
        async move {
            let (status, out, _) = node.run(&["verify"]);
            status == 4 && out.contains(part)
        }
    };
    region.peers[1].is_down = true;
    region.version = 4;
    stores.report(&region).await.unwrap();
    node.until("a replica is down", || told("the replica on store 2 is down")).await;
    region.peers[1].is_down = false;
    region.end = [region.start.as_slice(), &[0xff]].concat();
    region.version = 5;
    stores.report(&region).await.unwrap();
    node.until("a hole is seen", || told("table order_db.t00: PD knows no region of its keys from 74")).await;
    // TiDB has another policy, which PD was not told of.
    node.write("placement.yaml", &file(&tidb, Some(&pd)).replace("tier: strict", "tier: utilisation"));
    let plan = planned(&node);
    assert_eq!(node.run(&["apply", &plan]).0, 0);
    node.until("old rules are seen", || told("PD's rules of it are leader x1 [$biz=order, lead=first]"))
        .await;
    let (status, out, err) = node.run(&["placement", "show"]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("host h1\n  127.0.0.1:20001    ★"), "{out}");
}
