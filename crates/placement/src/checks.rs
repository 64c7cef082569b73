//! What is looked at before a plan may be applied. Each finding names its check, the objects, and the way out.
//!
//! P1 the policies are TiDB's grammar and count right · P2 their order cannot matter · P3 there are stores for every replica,
//! also after a loss · P4 who can lead then · P5 no place holds a majority · P6 labels exist · P7 exclusive labels · P8 location
//! labels · P9 objects exist · P10 how many there are · P12 what moves · P14 versions.

use crate::declaration::{Declaration, Desired};
use crate::fit::Store;
use crate::labels::{Constraint, Labels, Op, admits, is_exclusive};
use crate::plan::Plan;
use crate::rule::{Role, Rule};
use crate::state::{Object, Observed, State, StoreState};
use base::near::nearest;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the documentation of TiDB advises.
const POLICIES_ADVISED: usize = 10;
const ATTACHED_ADVISED: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The plan is not applied.
    Refused,
    Warning,
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    pub message: String,
    pub way_out: String,
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, level: Level, message: String, way_out: impl Into<String>) {
        self.0.push(Finding { check, level, message, way_out: way_out.into() });
    }
}

/// Everything that speaks against a plan, the worst first.
pub fn check(declaration: &Declaration, desired: &Desired, observed: &Observed, plan: &Plan) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    let domain = &declaration.cluster.failure_domain;
    for (name, policy) in &desired.policies {
        let rules = match policy.rules() {
            Ok(rules) => rules,
            Err(error) => {
                found.add("P1", Level::Refused, format!("policy {name}: {error}"), "mend the declaration");
                continue;
            }
        };
        if let Some((one, other)) = policy.overlap() {
            let message = format!(
                "policy {name}: `{one}` and `{other}` can take the same stores, and TiDB writes their rules in a new order each time"
            );
            found.add("P2", Level::Refused, message, "give the pools labels that exclude each other");
        }
        placed(name, &rules, domain, observed, &mut found);
    }
    of_labels(declaration, desired, observed, &mut found);
    of_objects(desired, observed, plan, &mut found);
    of_version(desired, observed, domain, &mut found);
    let number = |finding: &Finding| finding.check[1..].parse::<u8>().unwrap_or(u8::MAX);
    found.0.sort_by_key(|finding| (finding.level, number(finding)));
    found.0
}

/// Whether each replica of each rule can be on a store of its own; if not, the rule that goes without, and how many it gets.
pub fn unplaced<'a>(rules: &'a [Rule], stores: &[&Labels]) -> Option<(&'a Rule, usize)> {
    // A store by the slot that it holds. A slot is the rule and its number.
    let mut held: Vec<Option<(usize, usize)>> = vec![None; stores.len()];
    for (at, rule) in rules.iter().enumerate() {
        for slot in 0..rule.count {
            let mut seen = vec![false; stores.len()];
            if !seat((at, slot), rules, stores, &mut held, &mut seen) {
                return Some((rule, slot));
            }
        }
    }
    None
}

/// Finds a store for a slot; whoever holds it moves on (Kuhn's algorithm).
fn seat(
    slot: (usize, usize),
    rules: &[Rule],
    stores: &[&Labels],
    held: &mut [Option<(usize, usize)>],
    seen: &mut [bool],
) -> bool {
    for (at, labels) in stores.iter().enumerate() {
        if seen[at] || !admits(&rules[slot.0].label_constraints, labels) {
            continue;
        }
        seen[at] = true;
        let is_free = match held[at] {
            None => true,
            Some(other) => seat(other, rules, stores, held, seen),
        };
        if is_free {
            held[at] = Some(slot);
            return true;
        }
    }
    false
}

/// Stores that leaders may be on for long: those of the leader's rule, else those of all voters.
pub fn leaders<'a>(rules: &[Rule], stores: impl Iterator<Item = &'a StoreState>) -> Vec<&'a StoreState> {
    let has_leader = rules.iter().any(|rule| rule.role == Role::Leader);
    let role = if has_leader { Role::Leader } else { Role::Voter };
    let own: Vec<_> = rules.iter().filter(|rule| rule.role == role).collect();
    stores.filter(|store| own.iter().any(|rule| admits(&rule.label_constraints, &store.labels))).collect()
}

/// Losses of one place: each store, and each value of each failure domain that more than one store shares.
fn losses(domain: &[String], stores: &[&StoreState]) -> Vec<(String, BTreeSet<u64>)> {
    let mut out: Vec<(String, BTreeSet<u64>)> =
        stores.iter().map(|store| (format!("store {}", store.address), [store.id].into())).collect();
    for label in domain {
        let mut places: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for store in stores.iter().filter(|store| !store.labels.value(label).is_empty()) {
            places.entry(store.labels.value(label)).or_default().insert(store.id);
        }
        let shared = places.into_iter().filter(|(_, ids)| ids.len() > 1);
        out.extend(shared.map(|(value, ids)| (format!("{label} {value}"), ids)));
    }
    out
}

/// P1 (counts), P3, P4, P5: one policy on the stores that are up.
fn placed(name: &str, rules: &[Rule], domain: &[String], observed: &Observed, found: &mut Findings) {
    let voters: usize = rules.iter().filter(|rule| rule.role != Role::Learner).map(|rule| rule.count).sum();
    if voters < 3 || voters.is_multiple_of(2) {
        let message = format!("policy {name} has {voters} voters: an odd number from 3 on keeps a majority");
        found.add("P1", Level::Refused, message, "use three or five");
    }
    let up: Vec<&StoreState> = observed.stores.iter().filter(|store| store.is_up).collect();
    let labels = |lost: &BTreeSet<u64>| -> Vec<&Labels> {
        up.iter().filter(|store| !lost.contains(&store.id)).map(|store| &store.labels).collect()
    };
    if let Some((rule, have)) = unplaced(rules, &labels(&BTreeSet::new())) {
        let message = format!(
            "policy {name}: `{}` finds {have} of {} stores that are up and not taken by the rules before it",
            rule.shape(),
            rule.count
        );
        found.add(
            "P3",
            Level::Refused,
            message,
            "label more stores for its pool, or start those that are down",
        );
        return;
    }
    let losses = losses(domain, &up);
    let lost = least(&losses, |ids| unplaced(rules, &labels(ids)).is_some());
    if !lost.is_empty() {
        let message =
            format!("policy {name}: after the loss of {} there is no store to make up for it", any_of(&lost));
        found.add("P3", Level::Warning, message, "one more store in the pool makes up for each");
    }
    let leading = leaders(rules, up.iter().copied());
    let alone = least(&losses, |ids| leading.iter().all(|store| ids.contains(&store.id)));
    if leading.is_empty() {
        let message = format!("policy {name}: no store that is up may lead");
        found.add("P4", Level::Refused, message, "label a store `lead: first`, or choose another tier");
    } else if !alone.is_empty() {
        let message = format!(
            "policy {name}: after the loss of {} no store of its leader rule is left; any voter leads then, and PD takes it back later",
            any_of(&alone)
        );
        found.add("P4", Level::Warning, message, "the tier `redundancy` has two stores that may lead");
    }
    majority(name, rules, domain, &up, voters / 2 + 1, found);
}

/// The losses that do harm, without those that hold a smaller one that does.
fn least(losses: &[(String, BTreeSet<u64>)], harms: impl Fn(&BTreeSet<u64>) -> bool) -> Vec<&str> {
    let harmful: Vec<_> = losses.iter().filter(|(_, ids)| harms(ids)).collect();
    let holds_less = |ids: &BTreeSet<u64>| {
        harmful.iter().any(|(_, other)| other.len() < ids.len() && other.is_subset(ids))
    };
    harmful.iter().filter(|(_, ids)| !holds_less(ids)).map(|(place, _)| place.as_str()).collect()
}

fn any_of(places: &[&str]) -> String {
    match places {
        [one] => (*one).to_owned(),
        _ => format!("any of {}", places.join(", ")),
    }
}

/// P5: the most voters that a place can get, if isolation within a rule works and that between rules does not.
fn majority(
    name: &str,
    rules: &[Rule],
    domain: &[String],
    up: &[&StoreState],
    quorum: usize,
    found: &mut Findings,
) {
    for label in domain {
        let place = |store: &StoreState| store.labels.value(label).to_lowercase();
        let voting: Vec<&Rule> = rules.iter().filter(|rule| rule.role != Role::Learner).collect();
        let fits = |rule: &Rule, store: &StoreState| admits(&rule.label_constraints, &store.labels);
        let places: BTreeSet<String> = up.iter().map(|store| place(store)).collect();
        for own in places.iter().filter(|own| !own.is_empty()) {
            let here = |rule: &Rule| up.iter().filter(|it| place(it) == *own && fits(rule, it)).count();
            let most = |rule: &&&Rule| {
                // A store without the label is at no place: PD counts it as different from nobody, and spreads nothing onto it.
                let mut all: BTreeMap<String, usize> = BTreeMap::new();
                for own in up.iter().filter(|it| fits(rule, it)).map(|it| place(it)) {
                    if !own.is_empty() {
                        *all.entry(own).or_insert(0) += 1;
                    }
                }
                let spread = rule.location_labels.contains(label);
                let holds = |share: usize| all.values().map(|n| (*n).min(share)).sum::<usize>() >= rule.count;
                let share = (1..rule.count).find(|share| spread && holds(*share)).unwrap_or(rule.count);
                share.min(here(rule))
            };
            let taken: usize = voting.iter().map(|rule| most(&rule)).sum();
            let stores = up.iter().filter(|it| place(it) == *own && voting.iter().any(|rule| fits(rule, it)));
            let worst = taken.min(stores.count());
            if worst < quorum {
                continue;
            }
            let message = format!(
                "policy {name}: {label} {own} can come to hold {worst} of its voters, and {quorum} are a majority: when it is lost the data cannot be read or written"
            );
            // A zone may well be all there is; a machine is not.
            let is_finest = domain.last() == Some(label);
            let level = if is_finest { Level::Refused } else { Level::Warning };
            found.add(
                "P5",
                level,
                message,
                format!("spread the pool over more values of `{label}`, one store of the pool on each"),
            );
        }
    }
}

/// P6, P7, P8.
fn of_labels(declaration: &Declaration, desired: &Desired, observed: &Observed, found: &mut Findings) {
    let domain = &declaration.cluster.failure_domain;
    let asked: BTreeSet<Constraint> = desired
        .policies
        .values()
        .filter_map(|policy| policy.rules().ok())
        .flatten()
        .flat_map(|rule| rule.label_constraints)
        .collect();
    for constraint in asked.iter().filter(|constraint| constraint.op == Op::In) {
        let missing = constraint
            .values
            .iter()
            .find(|value| !observed.stores.iter().any(|store| store.labels.value(&constraint.key) == *value));
        if let Some(value) = missing {
            let there = observed.stores.iter().map(|store| store.labels.value(&constraint.key));
            let hint = match nearest(value, there.filter(|value| !value.is_empty())) {
                Some(meant) => format!("a store has `{meant}`: labels are compared exactly"),
                None => format!("pd-ctl store label ID {} {value}", constraint.key),
            };
            let message = format!("no store has the label {} = `{value}`", constraint.key);
            found.add("P6", Level::Refused, message, hint);
        }
    }
    for (name, policy) in &desired.policies {
        for rule in policy.rules().into_iter().flatten() {
            let (kept_out, others): (Vec<Constraint>, Vec<Constraint>) =
                rule.label_constraints.iter().cloned().partition(|it| it.op == Op::NotIn);
            for key in kept_out.iter().map(|it| &it.key).filter(|key| *key != "engine") {
                let mut there = observed.stores.iter().filter(|store| admits(&others, &store.labels));
                if there.all(|store| store.labels.value(key).is_empty()) {
                    let message = format!(
                        "policy {name}: no store of `{}` has a label `{key}`, so that it keeps none out",
                        rule.shape()
                    );
                    found.add("P6", Level::Warning, message, format!("give them a label `{key}`"));
                }
            }
        }
    }
    for label in domain {
        let bare: Vec<_> = observed
            .stores
            .iter()
            .filter(|store| store.labels.value(label).is_empty() && store.labels.value("engine").is_empty())
            .map(|store| store.address.clone())
            .collect();
        if !bare.is_empty() {
            let message = format!(
                "{} have no label `{label}`: they count as one place with every other",
                bare.join(", ")
            );
            found.add("P8", Level::Warning, message, "label them");
        }
    }
    for (name, pool) in &declaration.pools {
        if !pool.stores.keys().any(|key| is_exclusive(key)) {
            let message = format!(
                "pool {name}: data of others may lie on its stores, because none of its labels is exclusive"
            );
            found.add("P7", Level::Warning, message, "name the label with a `$` in front, as `$biz`");
        }
        let places = observed.location_labels.iter().filter(|key| pool.stores.contains_key(*key));
        for key in places {
            let message = format!("PD's location-labels hold `{key}`, which is the pool {name}'s");
            found.add(
                "P8",
                Level::Refused,
                message,
                "take it out: tables without a policy are spread over it",
            );
        }
    }
    let open = observed.stores.iter().filter(|store| store.is_up && admits(&[], &store.labels)).count();
    if open < 3 {
        let message = format!(
            "{open} stores are left for tables without a policy, and for those of the cluster itself"
        );
        found.add("P7", Level::Warning, message, "leave three stores without exclusive labels");
    }
    if observed.is_from_pd {
        let declared = declaration.stores();
        for store in &declared {
            match observed.stores.iter().find(|own| own.address == store.address) {
                None => {
                    let message = format!("PD knows no store {}", store.address);
                    found.add("P6", Level::Refused, message, "mend `nodes`, or add the store to the cluster");
                }
                Some(own) => {
                    for (key, value) in
                        store.labels.iter().filter(|(key, value)| own.labels.value(key) != *value)
                    {
                        let message = format!(
                            "store {} is declared with {key} = `{value}` and has `{}`",
                            store.address,
                            own.labels.value(key)
                        );
                        found.add(
                            "P6",
                            Level::Refused,
                            message,
                            format!("pd-ctl store label {} {key} {value}", own.id),
                        );
                    }
                }
            }
        }
    } else {
        found.add(
            "P6",
            Level::Note,
            "PD was not asked: the stores are those of `nodes`".to_owned(),
            "name it: cluster: {pd: http://127.0.0.1:2379}",
        );
    }
}

/// P9, P10, P12.
fn of_objects(desired: &Desired, observed: &Observed, plan: &Plan, found: &mut Findings) {
    for database in desired.databases.keys().filter(|name| !observed.databases.contains_key(*name)) {
        found.add(
            "P9",
            Level::Refused,
            format!("there is no database `{database}`"),
            "create it, or mend the declaration",
        );
    }
    for user in desired.users.keys().filter(|name| !observed.users.contains_key(*name)) {
        found.add(
            "P9",
            Level::Refused,
            format!("there is no user `{user}`"),
            "create it, or mend the declaration",
        );
    }
    let strangers: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match (&step.object, &step.from) {
            (
                Object::Table { .. } | Object::Partition { .. } | Object::Database { .. },
                State::Named(name),
            ) => Some(format!("{} ({name})", step.object)),
            _ => None,
        })
        .collect();
    if !strangers.is_empty() {
        let message = format!("other policies are replaced: {}", strangers.join(", "));
        found.add("P9", Level::Warning, message, "`tidemill rollback` brings them back");
    }
    let others: Vec<_> =
        plan.steps.iter().filter_map(|step| taken_over(&step.object, &step.from, observed)).collect();
    if !others.is_empty() {
        let message = format!("what others may have made is replaced: {}", others.join(", "));
        found.add("P9", Level::Warning, message, "look whose it is; `tidemill rollback` brings it back");
    }
    let policies = observed.policies.keys().chain(desired.policies.keys()).collect::<BTreeSet<_>>().len();
    if policies > POLICIES_ADVISED {
        let message = format!("the cluster has {policies} policies then, and {POLICIES_ADVISED} are advised");
        found.add("P10", Level::Warning, message, "let small businesses share a pool, and its policy");
    }
    let attached: usize =
        observed.databases.values().flat_map(|it| it.tables.values()).map(|it| 1 + it.partitions.len()).sum();
    if attached > ATTACHED_ADVISED {
        let message = format!(
            "{attached} tables and partitions have policies then, and {ATTACHED_ADVISED} are advised"
        );
        found.add("P10", Level::Warning, message, "merge partitions, or leave some databases out");
    }
    for step in &plan.steps {
        if let (State::Policy(from), State::Policy(to)) = (&step.from, &step.to)
            && let (Ok(from), Ok(to)) = (from.rules(), to.rules())
        {
            let stays = holders(&from) == holders(&to);
            let what = if stays && is_full(&to, &observed.stores) {
                "leaders move only (seconds)"
            } else if stays {
                "leaders move (seconds), and replicas where a region has none on a store that may lead (minutes to hours, by their size)"
            } else {
                "replicas move (minutes to hours, by their size)"
            };
            found.add("P12", Level::Note, format!("{}: {what}", step.object), "");
        }
    }
    let attach = plan
        .steps
        .iter()
        .filter(|step| matches!(step.object, Object::Table { .. } | Object::Partition { .. }));
    let attach = attach.count();
    if attach > 0 {
        let message = format!(
            "{attach} tables and partitions get a policy: their replicas move (minutes to hours, by their size)"
        );
        found.add("P12", Level::Note, message, "");
    }
}

/// What a step takes over: an account's other group, a policy or group of our name that nothing declared uses yet.
fn taken_over(object: &Object, from: &State, observed: &Observed) -> Option<String> {
    let is_used = match (object, from) {
        (Object::Policy { name }, State::Policy(_)) => {
            let databases = || observed.databases.values();
            let of_tables = databases().flat_map(|it| it.tables.values()).map(|table| &table.policy);
            let mut all = databases().map(|database| &database.policy).chain(of_tables);
            all.any(|policy| policy.as_ref() == Some(name))
        }
        (Object::Group { name }, State::Group(_)) => {
            observed.users.values().any(|group| group.as_ref() == Some(name))
        }
        (Object::User { .. }, State::Named(_)) => false,
        _ => true,
    };
    (!is_used).then(|| format!("{object} ({from})"))
}

/// Who holds replicas, whoever leads: each set of stores, with the number of voters and learners on it. A leader's stores count
/// as those of the other voters when they are among them.
fn holders(rules: &[Rule]) -> (BTreeMap<Vec<Constraint>, usize>, BTreeMap<Vec<Constraint>, usize>) {
    let mut voters: BTreeMap<Vec<Constraint>, usize> = BTreeMap::new();
    let mut learners = BTreeMap::new();
    let sorted = |rule: &Rule| {
        let mut asked = rule.label_constraints.clone();
        asked.sort();
        asked
    };
    for rule in rules {
        let own = sorted(rule);
        if rule.role == Role::Learner {
            *learners.entry(own).or_insert(0) += rule.count;
            continue;
        }
        let wider = rules.iter().filter(|other| other.role != Role::Learner).map(sorted);
        let wider = wider.filter(|other| other.iter().all(|asked| own.contains(asked)));
        let widest = wider.min_by_key(Vec::len).unwrap_or(own);
        *voters.entry(widest).or_insert(0) += rule.count;
    }
    (voters, learners)
}

/// Whether every store that voters may be on holds one of each region.
fn is_full(rules: &[Rule], stores: &[StoreState]) -> bool {
    let voting = || rules.iter().filter(|rule| rule.role != Role::Learner);
    let may_hold = |store: &&StoreState| voting().any(|rule| admits(&rule.label_constraints, &store.labels));
    stores.iter().filter(may_hold).count() == voting().map(|rule| rule.count).sum::<usize>()
}

/// P14: versions with known faults.
fn of_version(desired: &Desired, observed: &Observed, domain: &[String], found: &mut Findings) {
    let Some(version) = version(&observed.version) else {
        let message = format!("`{}` is not a version of TiDB", observed.version);
        found.add("P14", Level::Refused, message, "cluster.url must name a TiDB server");
        return;
    };
    let told = observed.version.rsplit('-').next().unwrap_or_default();
    if version < (7, 5, 2) {
        let message = format!(
            "TiDB {told}: SHOW CREATE PLACEMENT POLICY leaves out SURVIVAL_PREFERENCES (tidb#51699), so that nobody can tell what a policy is"
        );
        found.add("P14", Level::Refused, message, "upgrade to 7.5.2 or newer");
    } else if ((7, 6, 0)..=(8, 1, 0)).contains(&version) {
        let message = format!(
            "TiDB {told}: where ALTER RANGE is used, a policy is not dropped whose name is part of a range's (tidb#52257), and a range does not follow ALTER PLACEMENT POLICY (tidb#51712)"
        );
        found.add("P14", Level::Note, message, "8.1.1 has both mended");
    }
    let is_exposed = |rules: &[Rule]| rules.len() > 1 && shares_place(rules, domain, &observed.stores);
    let several =
        desired.policies.iter().filter(|(_, policy)| policy.rules().is_ok_and(|it| is_exposed(&it)));
    let several: Vec<_> = several.map(|(name, _)| name.as_str()).collect();
    if version < (8, 5, 7) && !several.is_empty() {
        let message = format!(
            "TiDB {told}: PD's move to a better place weighs one rule at a time (pd#9440), so that leader and follower of {} can stay on one host",
            several.join(", ")
        );
        found.add(
            "P14",
            Level::Warning,
            message,
            "keep one store of a pool on each host, or upgrade to 8.5.7",
        );
    }
}

/// Whether two stores that voters may be on fail together.
fn shares_place(rules: &[Rule], domain: &[String], stores: &[StoreState]) -> bool {
    let Some(label) = domain.last() else { return false };
    let voting = || rules.iter().filter(|rule| rule.role != Role::Learner);
    let mut seen = BTreeSet::new();
    stores
        .iter()
        .filter(|store| voting().any(|rule| admits(&rule.label_constraints, &store.labels)))
        .any(|store| !seen.insert(store.labels.value(label).to_lowercase()))
}

/// `8.0.11-TiDB-v8.5.6` is 8.5.6.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let own = text.split_once("TiDB-v")?.1;
    let own = own.split(['-', '+']).next()?;
    let mut parts = own.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

/// A store as the fit wants it.
pub fn of_fit(store: &StoreState) -> Store {
    Store { id: store.id, labels: store.labels.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declaration::Priority;
    use crate::declaration::tests::{FILE, read};
    use crate::plan::tests::observed;
    use crate::policy::Policy;
    use crate::state::ResourceGroup;

    fn findings(file: &str, change: impl Fn(&mut Observed)) -> Vec<Finding> {
        let declaration = read(file);
        let desired = declaration.desired();
        let mut observed = observed();
        observed.stores = declaration.stores();
        change(&mut observed);
        let plan = Plan::new(&observed, &desired);
        check(&declaration, &desired, &observed, &plan)
    }

    fn refused(found: &[Finding]) -> Vec<(&str, &str)> {
        let refused = found.iter().filter(|it| it.level == Level::Refused);
        refused.map(|it| (it.check, it.message.as_str())).collect()
    }

    fn warned(found: &[Finding], check: &str) -> String {
        let found = found.iter().filter(|it| it.check == check && it.level == Level::Warning);
        found.map(|it| it.message.as_str()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_good_declaration_is_let_through_and_its_limits_are_told() {
        let found = findings(FILE, |_| {});
        assert_eq!(refused(&found), []);
        assert!(warned(&found, "P3").contains("store 10.0.0.1:20160"), "{found:#?}");
        assert!(warned(&found, "P4").contains("loss of store 10.0.0.1:20160 no store"), "{found:#?}");
        assert_eq!(warned(&found, "P14"), "");
        assert!(warned(&found, "P9").contains("old"), "{found:#?}");
    }

    #[test]
    fn a_store_that_is_down_leaves_too_few() {
        let found = findings(FILE, |observed| observed.stores[2].is_up = false);
        assert!(
            refused(&found)
                .iter()
                .any(|(check, message)| *check == "P3"
                    && message.contains("`voter x2 [$biz=order]` finds 1 of 2")),
            "{found:#?}"
        );
    }

    #[test]
    fn a_majority_on_one_host_is_refused_with_the_host() {
        let file = FILE.replace("host: h2, lead: second", "host: h1, lead: second");
        let found = findings(&file, |_| {});
        assert!(
            refused(&found)
                .iter()
                .any(|(check, message)| *check == "P5" && message.contains("host h1 can come to hold 2")),
            "{found:#?}"
        );
        assert!(warned(&found, "P14").contains("pd#9440"), "{found:#?}");
    }

    #[test]
    fn a_store_without_the_label_is_no_place() {
        let labels = |host: &'static str| {
            let host = Some(("host", host)).filter(|(_, host)| !host.is_empty());
            Labels::new([("$biz", "order"), ("lead", "first"), ("zone", "z1")].into_iter().chain(host))
        };
        for (hosts, is_refused) in [
            (&["h1", "h1", "h2", ""][..], true),
            (&["h1", "h2", "h3", ""], false),
            (&["h1", "h1", "h2", "h3"], false),
            (&["h1", "h1", "h2"], true),
        ] {
            let found = findings(&FILE.replace("tier: strict", "tier: utilisation"), |observed| {
                let rest = observed.stores.split_off(3);
                observed.stores = hosts
                    .iter()
                    .zip(11..)
                    .map(|(host, id)| StoreState { id, labels: labels(host), ..rest[0].clone() })
                    .collect();
                observed.stores.extend(rest);
            });
            let told = refused(&found);
            let has =
                told.iter().any(|(check, it)| *check == "P5" && it.contains("host h1 can come to hold 2"));
            assert_eq!(has, is_refused, "{hosts:?}: {found:#?}");
        }
    }

    #[test]
    fn a_tier_whose_label_nobody_has_keeps_nobody_out() {
        let file = FILE.replace("tier: strict", "tier: redundancy");
        assert_eq!(warned(&findings(&file, |_| {}), "P6"), "");
        let found = findings(&file, |observed| {
            for store in &mut observed.stores[..3] {
                let kept = store.labels.iter().filter(|(key, _)| *key != "lead");
                store.labels = Labels::new(kept.map(|(key, value)| (key.to_owned(), value.to_owned())));
            }
        });
        assert!(warned(&found, "P6").contains("has a label `lead`, so that it keeps none out"), "{found:#?}");
    }

    #[test]
    fn what_others_may_have_made_is_named() {
        let of = |change: &dyn Fn(&mut Observed)| warned(&findings(FILE, change), "P9");
        let foreign = ResourceGroup { ru_per_sec: Some(1), priority: Priority::Low, burstable: false };
        let told = of(&|observed| {
            observed.users.insert("order_app@%".to_owned(), Some("rg_batch".to_owned()));
            observed.policies.insert("mb_order".to_owned(), Policy { followers: 4, ..Policy::default() });
            observed.groups.insert("rg_order".to_owned(), foreign.clone());
        });
        let parts = [
            "policy mb_order (FOLLOWERS = 4)",
            "resource group rg_order (RU_PER_SEC = 1",
            "user order_app@% (rg_batch)",
        ];
        for part in parts {
            assert!(told.contains(part), "{told}");
        }
        // Our own are changed without a word.
        let told = of(&|observed| {
            observed.users.insert("order_app@%".to_owned(), Some("rg_order".to_owned()));
            observed.policies.insert("mb_order".to_owned(), Policy { followers: 4, ..Policy::default() });
            observed.databases.get_mut("order_db").unwrap().policy = Some("mb_order".to_owned());
            observed.groups.insert("rg_order".to_owned(), foreign.clone());
        });
        assert!(!told.contains("what others"), "{told}");
    }

    #[test]
    fn a_pool_with_more_stores_than_voters_moves_replicas_too() {
        let moves = |more: bool| {
            let found = findings(&FILE.replace("tier: strict", "tier: redundancy"), |observed| {
                let old = read(FILE).desired().policies["mb_order"].clone();
                observed.policies.insert("mb_order".to_owned(), old);
                if more {
                    observed.stores.push(StoreState { id: 9, ..observed.stores[1].clone() });
                }
            });
            let mut told =
                found.iter().filter(|it| it.check == "P12" && it.message.contains("policy mb_order"));
            told.next().map(|it| it.message.clone()).unwrap_or_default()
        };
        assert!(moves(false).contains("leaders move only"), "{}", moves(false));
        assert!(moves(true).contains("and replicas where a region"), "{}", moves(true));
    }

    #[test]
    fn leader_and_followers_that_need_the_same_store_are_refused() {
        // pd#8313: each rule alone has stores enough.
        let rule = |role, count, biz: &str| Rule {
            label_constraints: vec![Constraint::new("biz", Op::In, [biz])],
            ..Rule::new("g", "r", role, count)
        };
        let stores = [Labels::new([("biz", "a")]), Labels::new([("biz", "b")]), Labels::new([("biz", "b")])];
        let stores: Vec<&Labels> = stores.iter().collect();
        assert_eq!(unplaced(&[rule(Role::Leader, 1, "a"), rule(Role::Voter, 2, "b")], &stores), None);
        let both = [rule(Role::Leader, 1, "a"), rule(Role::Voter, 1, "a"), rule(Role::Voter, 1, "b")];
        assert_eq!(unplaced(&both, &stores).map(|(_, have)| have), Some(0));
        // The first comer moves over when another needs its store.
        let any = Rule::new("g", "any", Role::Voter, 1);
        assert_eq!(unplaced(&[any, rule(Role::Voter, 1, "a"), rule(Role::Voter, 1, "b")], &stores), None);
    }

    #[test]
    fn labels_that_nobody_has_and_objects_that_are_not_there_are_named() {
        let found = findings(FILE, |observed| {
            observed.stores[0].labels = Labels::new([("$biz", "Order"), ("host", "h1"), ("zone", "z1")]);
            observed.is_from_pd = true;
            observed.users.clear();
            observed.databases.clear();
            observed.location_labels = vec!["$biz".to_owned(), "host".to_owned()];
        });
        let told = refused(&found);
        for (check, part) in [
            ("P6", "no store has the label lead = `first`"),
            ("P6", "declared with $biz = `order` and has `Order`"),
            ("P8", "location-labels hold `$biz`"),
            ("P9", "no database `order_db`"),
            ("P9", "no user `order_app@%`"),
        ] {
            assert!(
                told.iter().any(|(own, message)| *own == check && message.contains(part)),
                "{part}: {told:#?}"
            );
        }
    }

    #[test]
    fn versions_with_known_faults_are_named() {
        assert_eq!(version("8.0.11-TiDB-v8.5.6"), Some((8, 5, 6)));
        assert_eq!(version("8.0.11-TiDB-v9.0.0-beta.1"), Some((9, 0, 0)));
        assert_eq!(version("8.4.8"), None);
        for bad in ["8.0.11-TiDB-v7.5.1", "8.4.8"] {
            let found = findings(FILE, |observed| bad.clone_into(&mut observed.version));
            assert!(refused(&found).iter().any(|(check, _)| *check == "P14"), "{bad}");
        }
        for (version, is_noted) in [("v7.5.2", false), ("v8.1.0", true), ("v8.1.1", false)] {
            let found = findings(FILE, |observed| observed.version = format!("8.0.11-TiDB-{version}"));
            assert_eq!(refused(&found), [], "{version}");
            let noted = found.iter().any(|it| it.level == Level::Note && it.message.contains("tidb#52257"));
            assert_eq!(noted, is_noted, "{version}");
        }
    }

    #[test]
    fn a_change_of_the_tier_moves_leaders_only() {
        let rules = |tier: &str| {
            let desired = read(&FILE.replace("tier: strict", &format!("tier: {tier}"))).desired();
            holders(&desired.policies["mb_order"].rules().unwrap())
        };
        assert_eq!(rules("strict"), rules("utilisation"));
        assert_eq!(rules("strict"), rules("redundancy"));
        let moved = read(
            &FILE.replace("pool: order\n", "pool: reports\n").replace("read_views: [{pool: reports}]", ""),
        );
        assert_ne!(rules("strict"), holders(&moved.desired().policies["mb_order"].rules().unwrap()));
    }
}
