//! `tidemill verify`: whether the cluster is as declared, and whether the data is where it shall be, by our own fit.

use super::Subject;
use super::cluster::Pd;
use crate::commands::{many, print_table};
use crate::failure::Failure;
use ::placement::checks::of_fit;
use ::placement::declaration::Declaration;
use ::placement::fit::{Fit, Health, Peer, Store, fit};
use ::placement::key::table_range;
use ::placement::plan::Plan;
use ::placement::rule::{Bundle, RuleList, hex};
use ::placement::state::Observed;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is wrong that is told one by one; the rest is counted.
const SHOWN_MAX: usize = 20;

/// One region, as PD has it.
struct Region {
    id: u64,
    start: Vec<u8>,
    end: Vec<u8>,
    peers: Vec<Peer>,
}

/// What a business has.
#[derive(Default)]
struct Count {
    tables: usize,
    regions: usize,
    /// Regions whose every replica is where its rules want it.
    satisfied: usize,
    leaders: BTreeMap<u64, usize>,
    peers: usize,
    learners: usize,
}

pub async fn verify(dir: &Path, as_json: bool) -> Result<(), Failure> {
    let mut subject = Subject::reach(dir).await?;
    let observed = subject.observe().await?;
    let plan = Plan::new(&observed, &subject.desired);
    let mut wrong: Vec<String> = plan
        .steps
        .iter()
        .map(|step| format!("{} is {} and shall be {}", step.object, step.from, step.to))
        .collect();
    let gone = subject.desired.databases.keys().filter(|name| !observed.databases.contains_key(*name));
    wrong.extend(gone.map(|name| format!("there is no database {name}")));
    let gone = subject.desired.users.keys().filter(|name| !observed.users.contains_key(*name));
    wrong.extend(gone.map(|name| format!("there is no user {name}")));
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    match subject.cluster.pd() {
        Some(pd) => {
            let regions = regions(pd).await?;
            let list = rules(pd).await?;
            look(&subject.declaration, &observed, &regions, &list, &mut counts, &mut wrong)?;
        }
        None => {
            for (name, business) in &subject.declaration.businesses {
                let tables = business.databases.iter().filter_map(|name| observed.databases.get(name));
                let tables = tables.map(|database| database.tables.len()).sum();
                counts.insert(name.clone(), Count { tables, ..Count::default() });
            }
        }
    }
    tell(&observed, &counts, &wrong, as_json);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::new(4, format!("the cluster is not as declared: {}", many(wrong.len(), "difference")))
        .hint("`tidemill plan` shows what statements would mend; replicas that are on their way need time"))
}

fn tell(observed: &Observed, counts: &BTreeMap<String, Count>, wrong: &[String], as_json: bool) {
    let on = |id: &u64| {
        let store = observed.stores.iter().find(|store| store.id == *id);
        store.map_or_else(|| format!("store {id}"), |store| store.address.clone())
    };
    if as_json {
        let business = |(name, count): (&String, &Count)| {
            let leaders: BTreeMap<String, usize> = count.leaders.iter().map(|(id, n)| (on(id), *n)).collect();
            json!({"name": name, "tables": count.tables, "regions": count.regions, "satisfied": count.satisfied,
                   "replicas": count.peers, "learners": count.learners, "leaders": leaders})
        };
        let businesses: Vec<Value> = counts.iter().map(business).collect();
        println!(
            "{}",
            json!({"businesses": businesses, "regions_seen": observed.is_from_pd, "differences": wrong})
        );
        return;
    }
    let mut rows = vec![
        ["business", "tables", "regions", "in place", "replicas", "learners", "leaders"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (name, count) in counts {
        let number = |n: usize| if observed.is_from_pd { n.to_string() } else { "?".to_owned() };
        let leaders: Vec<_> = count.leaders.iter().map(|(id, n)| format!("{} {n}", on(id))).collect();
        rows.push(vec![
            name.clone(),
            count.tables.to_string(),
            number(count.regions),
            number(count.satisfied),
            number(count.peers),
            number(count.learners),
            leaders.join(", "),
        ]);
    }
    print_table(&rows);
    if !observed.is_from_pd {
        println!("no region was looked at: placement.yaml names no PD");
    }
    for difference in wrong.iter().take(SHOWN_MAX) {
        println!("differs: {difference}");
    }
    if wrong.len() > SHOWN_MAX {
        println!("… and {} more (--json has all)", wrong.len() - SHOWN_MAX);
    }
}

/// Every region of every table of every business, held against PD's rules by our own fit.
fn look(
    declaration: &Declaration,
    observed: &Observed,
    regions: &[Region],
    list: &RuleList,
    counts: &mut BTreeMap<String, Count>,
    wrong: &mut Vec<String>,
) -> Result<(), Failure> {
    let stores: Vec<Store> = observed.stores.iter().map(of_fit).collect();
    for (name, business) in &declaration.businesses {
        let count = counts.entry(name.clone()).or_default();
        let mut seen = BTreeSet::new();
        for database in business.databases.iter().filter(|name| observed.databases.contains_key(*name)) {
            for (table, state) in &observed.databases[database].tables {
                count.tables += 1;
                let shown = format!("{database}.{table}");
                for id in std::iter::once(&state.id).chain(&state.partition_ids) {
                    let (start, end) = table_range(*id);
                    let own = list.of(&start, &end);
                    let group = format!("TiDB_DDL_{}", state.id);
                    let is_own = |rule: &::placement::rule::Rule| {
                        rule.group_id == group || rule.group_id == format!("TiDB_DDL_{id}")
                    };
                    if !own.iter().any(is_own) {
                        wrong.push(format!("PD has no rule of table {shown}"));
                    }
                    // Regions are in order and without a hole.
                    let first = regions.partition_point(|it| !it.end.is_empty() && it.end <= start);
                    for region in regions[first..].iter().take_while(|region| region.start < end) {
                        if !seen.insert(region.id) {
                            continue;
                        }
                        count.regions += 1;
                        count.peers += region.peers.len();
                        count.learners += region.peers.iter().filter(|peer| peer.is_learner).count();
                        if let Some(leader) = region.peers.iter().find(|peer| peer.is_leader) {
                            *count.leaders.entry(leader.store).or_insert(0) += 1;
                        }
                        let rules = list.of(&region.start, &region.end);
                        let on: Vec<&Store> = stores.iter().collect();
                        let found = fit(&on, &region.peers, rules, false)
                            .map_err(|error| Failure::new(1, format!("region {}: {error}", region.id)))?;
                        if found.is_satisfied() {
                            count.satisfied += 1;
                        } else {
                            wrong.push(format!(
                                "region {} of {shown}: {}",
                                region.id,
                                reason(region, rules, &found)
                            ));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Why a region is not in place.
fn reason(region: &Region, rules: &[::placement::rule::Rule], found: &Fit) -> String {
    if rules.is_empty() {
        return "it reaches over the end of a table's rules, and is not split yet".to_owned();
    }
    let store = |id: &u64| region.peers.iter().find(|peer| peer.id == *id).map_or(0, |peer| peer.store);
    let on = |peers: &[u64]| peers.iter().map(|id| store(id).to_string()).collect::<Vec<_>>().join(", ");
    let mut out = Vec::new();
    for (rule, fit) in rules.iter().zip(&found.rules) {
        if fit.peers.len() < rule.count {
            out.push(format!("`{}` has {} of {}", rule.shape(), fit.peers.len(), rule.count));
        }
        if !fit.wrong_role.is_empty() {
            out.push(format!("`{}` has another role on store {}", rule.shape(), on(&fit.wrong_role)));
        }
    }
    if !found.orphans.is_empty() {
        out.push(format!("no rule wants the replica on store {}", on(&found.orphans)));
    }
    out.join("; ")
}

async fn rules(pd: &Pd) -> Result<RuleList, Failure> {
    let bundles: Vec<Bundle> = serde_json::from_value(pd.get("/config/placement-rule").await?)
        .map_err(|error| Failure::new(1, format!("failed to read PD's rules: {error}")))?;
    RuleList::build(&bundles).map_err(|error| Failure::new(1, format!("failed to read PD's rules: {error}")))
}

/// Every region of the cluster, in the order of keys.
async fn regions(pd: &Pd) -> Result<Vec<Region>, Failure> {
    let answer = pd.get("/regions").await?;
    let peer_id = |peer: &Value| peer["id"].as_u64().unwrap_or_default();
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let region = |region: &Value| {
        let down: Vec<u64> = all(&region["down_peers"]).iter().map(|it| peer_id(&it["peer"])).collect();
        let pending: Vec<u64> = all(&region["pending_peers"]).iter().map(peer_id).collect();
        let leader = peer_id(&region["leader"]);
        let peer = |peer: &Value| {
            let id = peer_id(peer);
            Peer {
                id,
                store: peer["store_id"].as_u64().unwrap_or_default(),
                is_learner: peer["role"].as_i64() == Some(1) || peer["role_name"] == "Learner",
                is_witness: peer["is_witness"].as_bool().unwrap_or_default(),
                is_leader: id == leader,
                health: match (down.contains(&id), pending.contains(&id)) {
                    (true, _) => Health::Down,
                    (_, true) => Health::Pending,
                    _ => Health::Healthy,
                },
            }
        };
        let key = |name: &str| hex::decode(region[name].as_str().unwrap_or_default()).unwrap_or_default();
        Region {
            id: region["id"].as_u64().unwrap_or_default(),
            start: key("start_key"),
            end: key("end_key"),
            peers: all(&region["peers"]).iter().map(peer).collect(),
        }
    };
    let mut regions: Vec<Region> = all(&answer["regions"]).iter().map(region).collect();
    regions.sort_by(|one, other| one.start.cmp(&other.start));
    Ok(regions)
}
