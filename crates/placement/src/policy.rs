//! Placement policies of TiDB: their text, and the rules that TiDB makes of it.
//!
//! This is what TiDB 7.5 and newer do. Where it walks a map, and so has an order of its own each time, entries are taken in
//! the order of their text here: [`Policy::overlap`] tells whether the order can matter.

use crate::key::table_range;
use crate::labels::{Constraint, Op};
use crate::rule::{Bundle, Role, Rule};
use crate::sql;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// TiDB's own bound.
pub const FOLLOWERS_MAX: u64 = 8;
/// The place of a table's group and rules among others.
const INDEX_TABLE: i64 = 40;
/// That of a partition.
const INDEX_PARTITION: i64 = 80;

/// What stands in a policy. An empty text, or 0, is an option that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub primary_region: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub regions: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schedule: String,
    pub followers: u64,
    pub learners: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub constraints: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leader_constraints: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub follower_constraints: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub learner_constraints: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub survival_preferences: String,
}

/// Why TiDB would refuse a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("`{text}` is not a constraint: it is written +key=value or -key=value")]
    Constraint { text: String },
    #[error("the constraints `{one}` and `{other}` contradict each other")]
    Conflict { one: String, other: String },
    #[error("{option} is neither a list [+key=value] nor a dictionary {{+key=value: count}}: {why}")]
    Format { option: &'static str, why: String },
    #[error("{0}")]
    Options(String),
    #[error("the policy's text is not understood at `{rest}`")]
    Text { rest: String },
}

fn options(message: impl Into<String>) -> PolicyError {
    PolicyError::Options(message.into())
}

impl Policy {
    /// Reads what `SHOW CREATE PLACEMENT POLICY` prints of the policy with a name. TiDB prints a backtick of the name as it is.
    pub fn shown(name: &str, text: &str) -> Result<Self, PolicyError> {
        let own = text.trim_start().strip_prefix("CREATE PLACEMENT POLICY ");
        let bare = format!("`{name}`");
        let behind = own.and_then(|own| {
            let behind = own.strip_prefix(&sql::name(name)).or_else(|| own.strip_prefix(&bare))?;
            (behind.is_empty() || behind.starts_with(' ')).then_some(behind)
        });
        Self::parse(behind.unwrap_or(text))
    }

    /// Reads the statement that makes a policy, or the options alone.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        let mut rest = text.trim().trim_end_matches(';').trim_end();
        if rest.to_ascii_uppercase().starts_with("CREATE PLACEMENT POLICY") {
            rest = rest["CREATE PLACEMENT POLICY".len()..].trim_start();
            let behind = if rest.starts_with('`') {
                sql::behind_name(rest)
            } else {
                rest.split_once(' ').map(|(_, behind)| behind)
            };
            rest = behind.unwrap_or_default().trim_start();
        }
        while !rest.is_empty() {
            let bad = || PolicyError::Text { rest: rest.chars().take(40).collect() };
            let (name, value) = rest.split_once('=').ok_or_else(bad)?;
            let value = value.trim_start();
            let (value, behind) = match value.chars().next() {
                Some(quote @ ('"' | '\'')) => quoted(value, quote).ok_or_else(bad)?,
                _ => {
                    let end = value.find(' ').unwrap_or(value.len());
                    (value[..end].to_owned(), &value[end..])
                }
            };
            let count = || value.parse().map_err(|_| bad());
            match name.trim().to_ascii_uppercase().as_str() {
                "PRIMARY_REGION" => policy.primary_region = value,
                "REGIONS" => policy.regions = value,
                "SCHEDULE" => policy.schedule = value,
                "FOLLOWERS" => policy.followers = count()?,
                "LEARNERS" => policy.learners = count()?,
                "CONSTRAINTS" => policy.constraints = value,
                "LEADER_CONSTRAINTS" => policy.leader_constraints = value,
                "FOLLOWER_CONSTRAINTS" => policy.follower_constraints = value,
                "LEARNER_CONSTRAINTS" => policy.learner_constraints = value,
                "SURVIVAL_PREFERENCES" => policy.survival_preferences = value,
                _ => return Err(bad()),
            }
            rest = behind.trim_start_matches([' ', ',']).trim_start();
        }
        Ok(policy)
    }

    /// The options as SQL, in a fixed order.
    pub fn options(&self) -> String {
        let texts = [
            ("PRIMARY_REGION", &self.primary_region),
            ("REGIONS", &self.regions),
            ("SCHEDULE", &self.schedule),
            ("CONSTRAINTS", &self.constraints),
            ("LEADER_CONSTRAINTS", &self.leader_constraints),
            ("FOLLOWER_CONSTRAINTS", &self.follower_constraints),
            ("LEARNER_CONSTRAINTS", &self.learner_constraints),
            ("SURVIVAL_PREFERENCES", &self.survival_preferences),
        ];
        let mut out = String::new();
        for (name, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(out, " {name} = {}", sql::text(value));
        }
        for (name, count) in [("FOLLOWERS", self.followers), ("LEARNERS", self.learners)] {
            if count > 0 {
                let _ = write!(out, " {name} = {count}");
            }
        }
        out.trim_start().to_owned()
    }

    /// The rules that TiDB makes of it, for all keys, in the order PD serves them.
    pub fn rules(&self) -> Result<Vec<Rule>, PolicyError> {
        if self.followers > FOLLOWERS_MAX {
            return Err(options(format!("FOLLOWERS is {}, and {FOLLOWERS_MAX} at most", self.followers)));
        }
        let lists = [
            &self.constraints,
            &self.leader_constraints,
            &self.follower_constraints,
            &self.learner_constraints,
        ];
        let is_advanced = lists.iter().any(|list| !list.is_empty()) || self.learners > 0;
        let mut rules = if is_advanced { self.of_constraints()? } else { self.of_regions()? };
        if !self.survival_preferences.is_empty() {
            let labels = yaml_list(&self.survival_preferences)
                .map_err(|why| PolicyError::Format { option: "SURVIVAL_PREFERENCES", why })?;
            for rule in &mut rules {
                rule.location_labels.clone_from(&labels);
            }
        }
        tidy(rules)
    }

    fn of_regions(&self) -> Result<Vec<Rule>, PolicyError> {
        let followers = if self.followers == 0 { 2 } else { self.followers as usize };
        let primary = self.primary_region.trim();
        let mut regions: Vec<&str> = match self.regions.trim() {
            "" => Vec::new(),
            list => list.split(',').map(str::trim).collect(),
        };
        if primary.is_empty() && regions.is_empty() {
            return Ok(vec![rule(Role::Voter, followers + 1, Vec::new())]);
        }
        regions.sort_unstable();
        let own = regions
            .iter()
            .position(|region| *region == primary)
            .ok_or_else(|| options("PRIMARY_REGION must be one of REGIONS"))?;
        let in_primary = match self.schedule.to_ascii_lowercase().as_str() {
            "" | "even" => (followers + 1).div_ceil(regions.len()),
            "majority_in_primary" => followers.div_ceil(2) + 1,
            other => return Err(options(format!("there is no SCHEDULE `{other}`"))),
        };
        let at = |regions: &[&str]| vec![Constraint::new("region", Op::In, regions.to_vec())];
        let mut rules = vec![rule(Role::Leader, 1, at(&[primary]))];
        if in_primary > 1 {
            rules.push(rule(Role::Voter, in_primary - 1, at(&[primary])));
        }
        let elsewhere = (followers + 1).saturating_sub(in_primary);
        if elsewhere > 0 {
            regions.remove(own);
            rules.push(rule(
                Role::Voter,
                elsewhere,
                if regions.is_empty() { Vec::new() } else { at(&regions) },
            ));
        }
        Ok(rules)
    }

    fn of_constraints(&self) -> Result<Vec<Rule>, PolicyError> {
        if [&self.primary_region, &self.regions, &self.schedule].iter().any(|text| !text.is_empty()) {
            let message =
                "PRIMARY_REGION, REGIONS and SCHEDULE cannot be mixed with constraints and LEARNERS";
            return Err(options(message));
        }
        let mut rules = Vec::new();
        let common = match yaml_list(&self.constraints) {
            Ok(list) => constraints(&list)?,
            Err(_) => {
                rules = dictionary("CONSTRAINTS", &self.constraints, Role::Voter)?;
                Vec::new()
            }
        };
        let is_plain = rules.is_empty();
        let leader = yaml_list(&self.leader_constraints)
            .map_err(|why| PolicyError::Format { option: "LEADER_CONSTRAINTS (a list only)", why })?;
        let leader = both(constraints(&leader)?, &common)?;
        if is_plain || !self.leader_constraints.is_empty() {
            rules.push(rule(Role::Leader, 1, leader));
        }
        let has_followers = !self.follower_constraints.is_empty();
        if !is_plain && !has_followers && self.followers > 0 {
            return Err(options("FOLLOWERS with a dictionary of CONSTRAINTS needs FOLLOWER_CONSTRAINTS"));
        }
        if is_plain || has_followers {
            let count = if self.followers == 0 { 2 } else { self.followers };
            let is_free = is_plain && self.followers == 0;
            let (name, text) = ("FOLLOWER_CONSTRAINTS", self.follower_constraints.as_str());
            rules.extend(replicas(name, text, Role::Voter, count, is_free, &common)?);
        }
        let (name, text) = ("LEARNER_CONSTRAINTS", self.learner_constraints.as_str());
        rules.extend(replicas(name, text, Role::Learner, self.learners, false, &common)?);
        Ok(rules)
    }

    /// Two entries of one dictionary that can take the same stores. TiDB writes their rules in a new order each time, and PD
    /// serves them in it, so where data lies would depend on luck.
    pub fn overlap(&self) -> Option<(String, String)> {
        let all = [&self.constraints, &self.follower_constraints, &self.learner_constraints];
        for text in all.into_iter().filter(|text| yaml_list(text).is_err()) {
            let Ok(entries) = yaml_dictionary(text) else { continue };
            let parsed: Vec<(&String, Vec<Constraint>)> = entries
                .keys()
                .filter_map(|entry| {
                    let parts: Vec<String> =
                        entry.split(',').filter(|part| !part.starts_with('#')).map(str::to_owned).collect();
                    Some((entry, constraints(&parts).ok()?))
                })
                .collect();
            for (at, (one, of_one)) in parsed.iter().enumerate() {
                let shares = |of_other: &[Constraint]| {
                    !of_one.iter().any(|a| of_other.iter().any(|b| excludes(a, b) || excludes(b, a)))
                };
                if let Some((other, _)) = parsed[at + 1..].iter().find(|(_, of_other)| shares(of_other)) {
                    return Some(((*one).clone(), (*other).clone()));
                }
            }
        }
        None
    }

    /// PD's group for a table that has this policy, and its partitions that have none of their own.
    pub fn bundle(&self, table: i64, partitions: &[i64]) -> Result<Bundle, PolicyError> {
        let basic = self.rules()?;
        let id = format!("TiDB_DDL_{table}");
        let own = |(object, is_table): (i64, bool)| {
            let (kind, index) =
                if is_table { ("table", INDEX_TABLE) } else { ("partition", INDEX_PARTITION) };
            let (start_key, end_key) = table_range(object);
            basic.iter().enumerate().map(move |(at, rule)| Rule {
                group_id: format!("TiDB_DDL_{table}"),
                id: format!("{kind}_rule_{object}_{at}"),
                index,
                start_key: start_key.clone(),
                end_key: end_key.clone(),
                ..rule.clone()
            })
        };
        let objects = std::iter::once((table, true)).chain(partitions.iter().map(|id| (*id, false)));
        Ok(Bundle { id, index: INDEX_TABLE, overrides: true, rules: objects.flat_map(own).collect() })
    }
}

/// The policy that `SHOW CREATE DATABASE` tells.
pub fn of_database(text: &str) -> Option<String> {
    let behind = text.strip_prefix("CREATE DATABASE ").and_then(sql::behind_name).unwrap_or(text);
    let name = behind.split_once("PLACEMENT POLICY=`")?.1.rsplit_once('`')?.0;
    Some(name.replace("``", "`"))
}

/// A text in quotes, with the quote doubled or escaped inside, and what stands behind it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            out.push(chars.next()?.1);
        } else if c != quote {
            out.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            out.push(quote);
        } else {
            return Some((out, &text[at + c.len_utf8()..]));
        }
    }
    None
}

fn rule(role: Role, count: usize, label_constraints: Vec<Constraint>) -> Rule {
    Rule { label_constraints, ..Rule::new("", "", role, count) }
}

fn yaml_list(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())
}

fn yaml_dictionary(text: &str) -> Result<BTreeMap<String, i64>, String> {
    serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())
}

fn constraint(text: &str) -> Result<Constraint, PolicyError> {
    let bad = || PolicyError::Constraint { text: text.to_owned() };
    let op = match text.chars().next() {
        Some('+') => Op::In,
        Some('-') => Op::NotIn,
        _ => return Err(bad()),
    };
    let (key, value) = text[1..].split_once('=').ok_or_else(bad)?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() || value.is_empty() || value.contains('=') || text.len() < 4 {
        return Err(bad());
    }
    if op == Op::In && key == "engine" && value.eq_ignore_ascii_case("tiflash") {
        return Err(options("a policy cannot place TiFlash's replicas: ALTER TABLE … SET TIFLASH REPLICA"));
    }
    Ok(Constraint::new(key, op, value.split(',')))
}

fn constraints(texts: &[String]) -> Result<Vec<Constraint>, PolicyError> {
    let parsed: Vec<_> = texts.iter().map(|text| constraint(text.trim())).collect::<Result<_, _>>()?;
    both(Vec::new(), &parsed)
}

/// Adds constraints, less those that are there, unless they contradict.
fn both(mut to: Vec<Constraint>, more: &[Constraint]) -> Result<Vec<Constraint>, PolicyError> {
    for new in more {
        let mut is_there = false;
        for old in to.iter().filter(|old| old.key == new.key) {
            let same = new.values.iter().zip(&old.values).all(|(one, other)| one == other);
            match (new.op == old.op, same) {
                (true, true) => is_there = true,
                (false, true) => return Err(conflict(new, old)),
                (true, false) if new.op == Op::In => return Err(conflict(new, old)),
                _ => {}
            }
        }
        if !is_there {
            to.push(new.clone());
        }
    }
    Ok(to)
}

fn conflict(one: &Constraint, other: &Constraint) -> PolicyError {
    PolicyError::Conflict { one: written(one), other: written(other) }
}

fn written(constraint: &Constraint) -> String {
    let sign = if constraint.op == Op::In { '+' } else { '-' };
    format!("{sign}{}={}", constraint.key, constraint.values.join(","))
}

/// Whether no store meets both.
fn excludes(one: &Constraint, other: &Constraint) -> bool {
    let shared = || one.values.iter().any(|value| other.values.contains(value));
    let covered = || one.values.iter().all(|value| other.values.contains(value));
    one.key.eq_ignore_ascii_case(&other.key)
        && match (one.op, other.op) {
            (Op::In, Op::In) => !shared(),
            (Op::In, Op::NotIn) => covered(),
            _ => false,
        }
}

fn dictionary(option: &'static str, text: &str, role: Role) -> Result<Vec<Rule>, PolicyError> {
    let entries = yaml_dictionary(text).map_err(|why| PolicyError::Format { option, why })?;
    entries
        .iter()
        .map(|(entry, count)| {
            let mut own = role;
            let mut labels = Vec::new();
            for part in entry.split(',') {
                match part.strip_prefix('#') {
                    Some("evict-leader") if role == Role::Voter => own = Role::Follower,
                    Some("evict-leader") => {}
                    Some(_) => return Err(options(format!("there is no attribute `{part}`"))),
                    None => labels.push(part.to_owned()),
                }
            }
            let count = usize::try_from(*count).ok().filter(|count| *count > 0);
            let count = count.ok_or_else(|| options(format!("`{entry}` needs a count above 0")))?;
            Ok(rule(own, count, constraints(&labels)?))
        })
        .collect()
}

/// Followers or learners: one rule of a list, or one for each entry of a dictionary.
fn replicas(
    option: &'static str,
    text: &str,
    role: Role,
    count: u64,
    is_free: bool,
    common: &[Constraint],
) -> Result<Vec<Rule>, PolicyError> {
    let mut rules = match yaml_list(text) {
        Ok(_) if count == 0 && text.is_empty() => return Ok(Vec::new()),
        Ok(_) if count == 0 => return Err(options(format!("{option} as a list needs a count"))),
        Ok(list) => vec![rule(role, count as usize, constraints(&list)?)],
        Err(_) => dictionary(option, text, role)?,
    };
    let total: usize = rules.iter().map(|rule| rule.count).sum();
    if !is_free && count != 0 && total as u64 != count {
        return Err(options(format!("{option} has {total} replicas, and {count} are asked for")));
    }
    for rule in &mut rules {
        rule.label_constraints = both(std::mem::take(&mut rule.label_constraints), common)?;
    }
    Ok(rules)
}

/// Numbers the rules, and merges those that ask for the same stores.
fn tidy(rules: Vec<Rule>) -> Result<Vec<Rule>, PolicyError> {
    let mut groups: BTreeMap<Vec<Constraint>, Vec<Rule>> = BTreeMap::new();
    for (id, mut rule) in rules.into_iter().filter(|rule| rule.count > 0).enumerate() {
        rule.id = id.to_string();
        let mut asked = rule.label_constraints.clone();
        for constraint in &mut asked {
            constraint.values.sort();
        }
        asked.sort();
        merge(groups.entry(asked).or_default(), rule, |one, other| one == other);
    }
    let leads = |group: &Vec<Rule>| group.iter().any(|rule| rule.role == Role::Leader);
    if groups.values().filter(|group| leads(group)).count() > 1 {
        return Err(options("more than one leader is asked for"));
    }
    let may_lead = |group: &Vec<Rule>| group.iter().any(|rule| rule.role.may_lead());
    if groups.values().filter(|group| may_lead(group)).count() == 1
        && let Some(group) = groups.values_mut().find(|group| leads(group))
        && group.len() > 1
    {
        // Only this group can lead, so leader and followers of it are one kind.
        let mut merged = Vec::new();
        for rule in std::mem::take(group) {
            merge(&mut merged, rule, |one, other| one != Role::Learner && other != Role::Learner);
        }
        for rule in merged.iter_mut().filter(|rule| rule.role != Role::Learner) {
            rule.role = Role::Voter;
        }
        *group = merged;
    }
    let mut out: Vec<Rule> = groups.into_values().flatten().collect();
    out.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(out)
}

/// Adds a rule to one of the same kind, or as one more.
fn merge(to: &mut Vec<Rule>, rule: Rule, is_same: fn(Role, Role) -> bool) {
    match to.iter_mut().find(|own| is_same(own.role, rule.role)) {
        Some(own) => {
            own.count += rule.count;
            if rule.id < own.id {
                own.id = rule.id;
            }
        }
        None => to.push(rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(text: &str) -> Vec<String> {
        let rules = Policy::parse(text).unwrap().rules().unwrap_or_else(|error| panic!("{text}: {error}"));
        rules.iter().map(Rule::shape).collect()
    }

    #[test]
    fn policies_become_the_rules_that_tidb_makes() {
        for (text, expected) in [
            ("", &["voter x3 []"][..]),
            ("FOLLOWERS=4", &["voter x5 []"]),
            (
                "PRIMARY_REGION='a' REGIONS='a, b'",
                &["leader x1 [region=a]", "voter x1 [region=a]", "voter x1 [region=b]"],
            ),
            // Nobody else can lead, so it is one kind.
            ("PRIMARY_REGION='a' REGIONS='a'", &["voter x3 [region=a]"]),
            (
                "PRIMARY_REGION='a' REGIONS='a,b,c' SCHEDULE='MAJORITY_IN_PRIMARY' FOLLOWERS=4",
                &["leader x1 [region=a]", "voter x2 [region=a]", "voter x2 [region=b|c]"],
            ),
            ("CONSTRAINTS='[+$biz=order]'", &["voter x3 [$biz=order]"]),
            // The usual recipe's "pinned leader" is three leaders.
            (
                "LEADER_CONSTRAINTS='[+$biz=order]' FOLLOWER_CONSTRAINTS='{+$biz=order: 2}'",
                &["voter x3 [$biz=order]"],
            ),
            (
                "LEADER_CONSTRAINTS='[+$biz=order,+lead=first]' FOLLOWER_CONSTRAINTS='{\"+$biz=order\": 2}'",
                &["leader x1 [$biz=order, lead=first]", "voter x2 [$biz=order]"],
            ),
            (
                "CONSTRAINTS='{+disk=ssd: 2, \"+disk=hdd,#evict-leader\": 1}'",
                &["follower x1 [disk=hdd]", "voter x2 [disk=ssd]"],
            ),
            (
                "CONSTRAINTS='[+$biz=order]' LEARNERS=1 LEARNER_CONSTRAINTS='[+disk=hdd]'",
                &["voter x3 [$biz=order]", "learner x1 [disk=hdd, $biz=order]"],
            ),
            // A follower rule in the leader's group joins it when only that group can lead.
            (
                "LEADER_CONSTRAINTS='[+a=bb]' FOLLOWER_CONSTRAINTS='{\"+a=bb,#evict-leader\": 1, \"+c=dd,#evict-leader\": 1}'",
                &["voter x2 [a=bb]", "follower x1 [c=dd]"],
            ),
        ] {
            assert_eq!(shapes(text), expected, "{text}");
        }
    }

    #[test]
    fn what_tidb_refuses_is_refused() {
        for text in [
            "FOLLOWERS=9",
            "REGIONS='a'",
            "PRIMARY_REGION='a' REGIONS='b'",
            "PRIMARY_REGION='a' REGIONS='a' LEARNERS=1",
            "PRIMARY_REGION='a' REGIONS='a' SCHEDULE='odd'",
            "CONSTRAINTS='[+a=bb,+a=cc]'",
            "CONSTRAINTS='[+a=bb,-a=bb]'",
            "CONSTRAINTS='[a=bb]'",
            "CONSTRAINTS='[+engine=tiflash]'",
            "LEADER_CONSTRAINTS='{+a=bb: 1}'",
            "FOLLOWERS=3 FOLLOWER_CONSTRAINTS='{+a=bb: 1}'",
            "CONSTRAINTS='{+a=bb: 0}'",
            "CONSTRAINTS='{+a=bb: 3}' FOLLOWERS=2",
            "LEARNER_CONSTRAINTS='[+a=bb]'",
            "CONSTRAINTS='{\"+a=bb,#evict-leaders\": 1}'",
        ] {
            let rules = Policy::parse(text).unwrap().rules();
            assert!(rules.is_err(), "{text}: {rules:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let text =
            "CREATE PLACEMENT POLICY `mb_o``x` LEADER_CONSTRAINTS=\"[\\\"+$biz=order\\\"]\" FOLLOWERS=4";
        let policy = Policy::parse("LEADER_CONSTRAINTS=\"[\\\"+$biz=order\\\"]\" FOLLOWERS=4").unwrap();
        assert_eq!(policy.leader_constraints, "[\"+$biz=order\"]");
        assert_eq!(Policy::parse(&policy.options()).unwrap(), policy);
        assert!(Policy::parse(text).is_ok_and(|read| read == policy));
        assert!(Policy::shown("mb_o`x", text).is_ok_and(|read| read == policy));
        assert!(Policy::shown("mb_o`x", &text.replace("``", "`")).is_ok_and(|read| read == policy));
        assert!(Policy::shown("mb_ox", &text.replace("``", "")).is_ok_and(|read| read == policy));
        assert!(
            Policy::shown("p", "CREATE PLACEMENT POLICY `P` FOLLOWERS=4").is_ok_and(|it| it.followers == 4)
        );
        assert!(Policy::parse("COLOUR='red'").is_err());
    }

    #[test]
    fn entries_that_share_stores_are_found() {
        let overlap = |text: &str| Policy::parse(text).unwrap().overlap().is_some();
        assert!(overlap("CONSTRAINTS='{+disk=ssd: 1, +zone=z1: 2}'"));
        assert!(!overlap("CONSTRAINTS='{+zone=z1: 1, +zone=z2: 2}'"));
        assert!(!overlap("CONSTRAINTS='{+zone=z1: 1, -zone=z1: 2}'"));
        assert!(!overlap("CONSTRAINTS='[+zone=z1, +disk=ssd]'"));
    }

    #[test]
    fn a_table_with_partitions_has_one_group() {
        let policy = Policy { constraints: "[+$biz=order]".into(), ..Policy::default() };
        let bundle = policy.bundle(104, &[105, 106]).unwrap();
        let ids: Vec<_> = bundle.rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(ids, ["table_rule_104_0", "partition_rule_105_0", "partition_rule_106_0"]);
        assert_eq!(bundle.rules[1].index, 80);
    }
}
