//! `tidemill verify`: whether the cluster is as declared, and whether the data is where it shall be, by our own fit.

use super::Subject;
use crate::commands::{many, print_table};
use crate::failure::Failure;
use ::placement::checks::of_fit;
use ::placement::declaration::Declaration;
use ::placement::fit::{Store, fit};
use ::placement::key::table_range;
use ::placement::plan::Plan;
use ::placement::rule::{Bundle, RuleList, hex};
use ::placement::seen::{Region, is_of, over, reasons, regions, rules_differ};
use ::placement::state::Observed;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is wrong that is told one by one; the rest is counted.
const SHOWN_MAX: usize = 20;

/// What a business has.
#[derive(Default)]
struct Count {
    tables: usize,
    regions: usize,
    /// Regions that are led, whose every replica is well and where its rules want it.
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
            let regions = regions(&pd.get("/regions").await?).map_err(|error| unread("regions", &error))?;
            let bundles: Vec<Bundle> = serde_json::from_value(pd.get("/config/placement-rule").await?)
                .map_err(|error| unread("rules", &error))?;
            look(&subject.declaration, &observed, &regions, &bundles, &mut counts, &mut wrong)?;
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
    let looked_at: usize = counts.values().map(|count| count.regions).sum();
    if as_json {
        let business = |(name, count): (&String, &Count)| {
            let leaders: BTreeMap<String, usize> = count.leaders.iter().map(|(id, n)| (on(id), *n)).collect();
            json!({"name": name, "tables": count.tables, "regions": count.regions, "satisfied": count.satisfied,
                   "replicas": count.peers, "learners": count.learners, "leaders": leaders})
        };
        let businesses: Vec<Value> = counts.iter().map(business).collect();
        println!(
            "{}",
            json!({"businesses": businesses, "regions_seen": observed.is_from_pd, "regions": looked_at, "differences": wrong})
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
    if observed.is_from_pd {
        println!("{} looked at", many(looked_at, "region"));
    } else {
        println!("no region was looked at: placement.yaml names no PD");
    }
    for difference in wrong.iter().take(SHOWN_MAX) {
        println!("differs: {difference}");
    }
    if wrong.len() > SHOWN_MAX {
        println!("… and {} more (--json has all)", wrong.len() - SHOWN_MAX);
    }
}

/// PD's rules of every table of every business, held against its policy, and its regions, held against PD's rules by our own fit.
fn look(
    declaration: &Declaration,
    observed: &Observed,
    regions: &[Region],
    bundles: &[Bundle],
    counts: &mut BTreeMap<String, Count>,
    wrong: &mut Vec<String>,
) -> Result<(), Failure> {
    let desired = declaration.desired();
    let list = RuleList::build(bundles).map_err(|error| unread("rules", &error))?;
    let stores: Vec<Store> = observed.stores.iter().map(of_fit).collect();
    let on: Vec<&Store> = stores.iter().collect();
    let groups: BTreeMap<&str, &Bundle> = bundles.iter().map(|it| (it.id.as_str(), it)).collect();
    for (name, business) in &declaration.businesses {
        let count = counts.entry(name.clone()).or_default();
        let mut seen = BTreeSet::new();
        for database in &business.databases {
            let Some((own, policy)) = observed.databases.get(database).zip(desired.policy_of(database))
            else {
                continue;
            };
            for (table, state) in &own.tables {
                count.tables += 1;
                let shown = format!("{database}.{table}");
                for id in std::iter::once(&state.id).chain(&state.partition_ids) {
                    let object =
                        if *id == state.id { shown.clone() } else { format!("{shown} (partition {id})") };
                    let differs = rules_differ(&groups, state.id, *id, policy)
                        .map_err(|error| Failure::new(1, format!("policy of {shown}: {error}")))?;
                    wrong.extend(differs.map(|what| format!("table {object}: {what}")));
                    let (start, end) = table_range(*id);
                    let (held, hole) = over(regions, &start, &end);
                    if let Some(key) = hole {
                        let key = hex::encode(&key);
                        wrong.push(format!("table {object}: PD knows no region of its keys from {key} on"));
                    }
                    for region in held {
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
                        let found = fit(&on, &region.peers, rules, false)
                            .map_err(|error| Failure::new(1, format!("region {}: {error}", region.id)))?;
                        let mut why = reasons(region, rules, &found);
                        if !rules.is_empty() && !rules.iter().any(|rule| is_of(rule, state.id, *id)) {
                            why.push(format!("rules of the group {} apply to it", rules[0].group_id));
                        }
                        if why.is_empty() {
                            count.satisfied += 1;
                        } else {
                            wrong.push(format!("region {} of {shown}: {}", region.id, why.join("; ")));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

fn unread(what: &str, error: &impl std::fmt::Display) -> Failure {
    Failure::new(1, format!("failed to read PD's {what}: {error}"))
}
