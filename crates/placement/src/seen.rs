//! What PD tells of regions and rules, and what is not as it shall be there.

use crate::fit::{Fit, Health, Peer};
use crate::key::table_range;
use crate::labels::{Constraint, Op};
use crate::policy::{Policy, PolicyError};
use crate::rule::{Bundle, Role, Rule, hex};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One region, as PD has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub id: u64,
    pub start: Vec<u8>,
    /// Empty at the end of all keys.
    pub end: Vec<u8>,
    pub peers: Vec<Peer>,
}

/// An answer of PD that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAnswer(String);

/// The regions of PD's `/regions`, in the order of keys.
pub fn regions(answer: &Value) -> Result<Vec<Region>, BadAnswer> {
    let listed = match &answer["regions"] {
        // So PD says that there are none.
        Value::Null => &[][..],
        Value::Array(listed) => listed,
        _ => return Err(BadAnswer("`regions` is not a list".to_owned())),
    };
    let mut regions = listed.iter().map(region).collect::<Result<Vec<_>, _>>()?;
    regions.sort_by(|one, other| one.start.cmp(&other.start));
    Ok(regions)
}

fn region(region: &Value) -> Result<Region, BadAnswer> {
    let id = |value: &Value| value["id"].as_u64().unwrap_or_default();
    let list = |name: &str| region[name].as_array().into_iter().flatten();
    let own = region["id"].as_u64().ok_or_else(|| BadAnswer("a region has no number".to_owned()))?;
    let key = |name: &str| {
        let decoded = region[name].as_str().and_then(hex::decode);
        decoded.ok_or_else(|| BadAnswer(format!("the {name} of region {own} is not hexadecimal")))
    };
    let down: Vec<u64> = list("down_peers").map(|it| id(&it["peer"])).collect();
    let pending: Vec<u64> = list("pending_peers").map(id).collect();
    let leader = id(&region["leader"]);
    let peer = |peer: &Value| {
        let id = id(peer);
        Peer {
            id,
            store: peer["store_id"].as_u64().unwrap_or_default(),
            is_learner: peer["role"].as_i64() == Some(1) || peer["role_name"] == "Learner",
            is_witness: peer["is_witness"].as_bool().unwrap_or_default(),
            is_leader: leader != 0 && id == leader,
            health: match (down.contains(&id), pending.contains(&id)) {
                (true, _) => Health::Down,
                (_, true) => Health::Pending,
                _ => Health::Healthy,
            },
        }
    };
    Ok(Region {
        id: own,
        start: key("start_key")?,
        end: key("end_key")?,
        peers: list("peers").map(peer).collect(),
    })
}

/// Those of the regions that hold keys of a range, and the first key of the range that none holds.
pub fn over<'a>(regions: &'a [Region], start: &[u8], end: &[u8]) -> (Vec<&'a Region>, Option<Vec<u8>>) {
    let mut held = Vec::new();
    // Nothing is missing in front of it; `None` is the end of all keys.
    let mut reached = Some(start);
    let mut hole = None;
    let first = regions.partition_point(|it| !it.end.is_empty() && it.end.as_slice() <= start);
    for region in regions[first..].iter().take_while(|it| it.start.as_slice() < end) {
        if let Some(key) = reached.filter(|key| region.start.as_slice() > *key) {
            hole = hole.or_else(|| Some(key.to_vec()));
        }
        let behind = Some(region.end.as_slice()).filter(|key| !key.is_empty());
        reached = reached.zip(behind).map(|(one, other)| one.max(other));
        held.push(region);
    }
    let open = reached.filter(|key| *key < end).map(<[u8]>::to_vec);
    (held, hole.or(open))
}

/// What is wrong with a region, by the rules that apply to it and its fit; nothing when it is in place.
pub fn reasons(region: &Region, rules: &[Rule], found: &Fit) -> Vec<String> {
    let store = |id: &u64| region.peers.iter().find(|peer| peer.id == *id).map_or(0, |peer| peer.store);
    let on = |peers: &[u64]| peers.iter().map(|id| store(id).to_string()).collect::<Vec<_>>().join(", ");
    let mut out = Vec::new();
    if rules.is_empty() {
        out.push("it reaches over the end of a table's rules, and is not split yet".to_owned());
    } else {
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
    }
    for (health, told) in [(Health::Down, "is down"), (Health::Pending, "lags behind")] {
        let ill = region.peers.iter().filter(|peer| peer.health == health);
        out.extend(ill.map(|peer| format!("the replica on store {} {told}", peer.store)));
    }
    if !region.peers.iter().any(|peer| peer.is_leader) {
        out.push("nobody leads it".to_owned());
    }
    out
}

/// TiDB's groups for a table, or for a partition of it that has a policy of its own.
fn groups(table: i64, object: i64) -> BTreeSet<String> {
    [table, object].map(|id| format!("TiDB_DDL_{id}")).into()
}

/// Whether a rule is TiDB's for a table, or for a partition of it.
pub fn is_of(rule: &Rule, table: i64, object: i64) -> bool {
    groups(table, object).contains(&rule.group_id)
}

/// What of a rule says where replicas are.
type Asked = (Role, usize, Vec<Constraint>, Vec<String>);

fn asked(rule: &Rule) -> Asked {
    let is_flash = |it: &Constraint| it.key == "engine" && it.op == Op::NotIn && it.values == ["tiflash"];
    // TiDB 7.5.0 to 7.5.5, and 8.5.0 and 8.5.1, say it in every rule; it is so without.
    let mut constraints: Vec<Constraint> =
        rule.label_constraints.iter().filter(|it| !is_flash(it)).cloned().collect();
    for constraint in &mut constraints {
        constraint.values.sort();
    }
    constraints.sort();
    (rule.role, rule.count, constraints, rule.location_labels.clone())
}

fn told(rules: &[&Rule]) -> String {
    let one = |rule: &&Rule| format!("{} spread over {}", rule.shape(), rule.location_labels.join(", "));
    rules.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What PD's rules of a table or a partition have otherwise than its policy; `None` when they are the same. `bundles` are PD's
/// groups by name.
pub fn rules_differ(
    bundles: &BTreeMap<&str, &Bundle>,
    table: i64,
    object: i64,
    policy: &Policy,
) -> Result<Option<String>, PolicyError> {
    let wanted = policy.rules()?;
    let (start, end) = table_range(object);
    let of_groups = groups(table, object);
    let own: Vec<&Rule> = of_groups
        .iter()
        .filter_map(|group| bundles.get(group.as_str()))
        .flat_map(|bundle| &bundle.rules)
        .filter(|rule| rule.start_key == start && rule.end_key == end)
        .collect();
    if own.is_empty() {
        return Ok(Some("PD has no rule of it".to_owned()));
    }
    let sorted = |mut all: Vec<Asked>| {
        all.sort();
        all
    };
    let has = sorted(own.iter().map(|rule| asked(rule)).collect());
    if has == sorted(wanted.iter().map(asked).collect()) {
        return Ok(None);
    }
    let wanted: Vec<&Rule> = wanted.iter().collect();
    Ok(Some(format!("PD's rules of it are {}, and by its policy {}", told(&own), told(&wanted))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Store, fit};
    use crate::labels::Labels;
    use serde_json::json;

    fn between(id: u64, start: &str, end: &str) -> Region {
        let mut peers = [1, 2, 3].map(|store| Peer::voter(id * 10 + store, store)).to_vec();
        peers[0].is_leader = true;
        Region { id, start: start.into(), end: end.into(), peers }
    }

    fn hole(regions: &[Region]) -> Option<String> {
        let (_, hole) = over(regions, b"c", b"g");
        hole.map(|key| String::from_utf8(key).unwrap())
    }

    #[test]
    fn regions_must_hold_every_key_of_a_table() {
        let all = [between(1, "", "d"), between(2, "d", "e"), between(3, "e", "")];
        let (held, missing) = over(&all, b"c", b"g");
        assert_eq!((held.len(), missing), (3, None));
        assert_eq!(over(&all, b"d", b"e").0, [&all[1]]);
        assert_eq!(hole(&[]).as_deref(), Some("c"));
        assert_eq!(hole(&[all[0].clone(), all[2].clone()]).as_deref(), Some("d"));
        assert_eq!(hole(&all[1..]).as_deref(), Some("c"));
        assert_eq!(hole(&all[..2]).as_deref(), Some("e"));
        assert_eq!(hole(&[between(1, "", "c"), between(2, "g", "")]).as_deref(), Some("c"));
        assert_eq!(hole(&[between(1, "", "")]), None);
        assert_eq!(hole(&[between(1, "c", "g")]), None);
    }

    #[test]
    fn an_answer_without_regions_has_none_and_a_bad_one_is_an_error() {
        assert_eq!(regions(&json!({"count": 0, "regions": null})), Ok(Vec::new()));
        let told = |answer: Value| regions(&answer).unwrap_err().to_string();
        assert_eq!(told(json!({"regions": "many"})), "`regions` is not a list");
        assert_eq!(told(json!({"regions": [{"start_key": "", "end_key": ""}]})), "a region has no number");
        let bad = json!({"regions": [{"id": 7, "start_key": "", "end_key": "74ZZ"}]});
        assert_eq!(told(bad), "the end_key of region 7 is not hexadecimal");
        assert_eq!(
            told(json!({"regions": [{"id": 7, "end_key": ""}]})),
            "the start_key of region 7 is not hexadecimal"
        );
    }

    #[test]
    fn a_replica_that_is_down_or_late_and_a_missing_leader_are_named() {
        let peer = |id: u64| json!({"id": id, "store_id": id - 10, "role_name": "Voter"});
        let mut answer = json!({"regions": [{
            "id": 7, "start_key": "61", "end_key": "", "peers": [peer(11), peer(12), peer(13)], "leader": peer(11),
        }]});
        let rules = [Rule::new("TiDB_DDL_1", "r", Role::Voter, 3)];
        let stores = [1, 2, 3].map(|id| Store { id, labels: Labels::default() });
        let told = |answer: &Value| {
            let region = regions(answer).unwrap().remove(0);
            let found = fit(&stores.iter().collect::<Vec<_>>(), &region.peers, &rules, false).unwrap();
            reasons(&region, &rules, &found)
        };
        assert_eq!(told(&answer), [""; 0]);
        answer["regions"][0]["down_peers"] = json!([{"peer": peer(12), "down_seconds": 900}]);
        answer["regions"][0]["pending_peers"] = json!([peer(12), peer(13)]);
        assert_eq!(told(&answer), ["the replica on store 2 is down", "the replica on store 3 lags behind"]);
        answer["regions"][0]["leader"] = json!({});
        assert!(told(&answer).contains(&"nobody leads it".to_owned()));
    }

    #[test]
    fn rules_of_an_older_policy_are_found() {
        let policy = Policy {
            leader_constraints: "[+$biz=order,+lead=first]".into(),
            follower_constraints: "{\"+$biz=order\": 2}".into(),
            survival_preferences: "[zone, host]".into(),
            ..Policy::default()
        };
        let bundle = policy.bundle(104, &[105]).unwrap();
        let differ = |bundle: &Bundle, object: i64, policy: &Policy| {
            rules_differ(&[(bundle.id.as_str(), bundle)].into(), 104, object, policy).unwrap()
        };
        assert_eq!(differ(&bundle, 104, &policy), None);
        assert_eq!(differ(&bundle, 105, &policy), None);
        assert_eq!(differ(&bundle, 106, &policy).as_deref(), Some("PD has no rule of it"));
        // TiDB may write them in another order, and adds a constraint in some versions.
        let mut other = bundle.clone();
        other.rules.reverse();
        for rule in &mut other.rules {
            rule.label_constraints.reverse();
            rule.label_constraints.push(Constraint::new("engine", Op::NotIn, ["tiflash"]));
        }
        assert_eq!(differ(&other, 104, &policy), None);
        for newer in [
            Policy { leader_constraints: "[+$biz=order]".into(), ..policy.clone() },
            Policy { follower_constraints: "{\"+$biz=order\": 4}".into(), ..policy.clone() },
            Policy { survival_preferences: "[host]".into(), ..policy.clone() },
        ] {
            let told = differ(&bundle, 104, &newer).unwrap();
            assert!(told.starts_with("PD's rules of it are leader x1 [$biz=order, lead=first]"), "{told}");
        }
    }
}
