//! PD's placement rules, and which of them apply to a range of keys.
//!
//! The JSON is that of PD's HTTP interface: keys are hexadecimal, and an empty end is the end of all keys.

use crate::labels::Constraint;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a rule wants its peers to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A leader or a follower.
    Voter,
    Leader,
    Follower,
    Learner,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        }
    }

    /// Whether peers of this role can be led to lead by PD.
    pub fn may_lead(self) -> bool {
        matches!(self, Self::Voter | Self::Leader)
    }
}

/// One rule of PD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub group_id: String,
    pub id: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: i64,
    #[serde(default, rename = "override", skip_serializing_if = "is_false")]
    pub overrides: bool,
    #[serde(with = "hex")]
    pub start_key: Vec<u8>,
    #[serde(with = "hex")]
    pub end_key: Vec<u8>,
    pub role: Role,
    #[serde(default)]
    pub is_witness: bool,
    pub count: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_constraints: Vec<Constraint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub location_labels: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation_level: String,
}

fn is_zero(index: &i64) -> bool {
    *index == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Rule {
    /// A rule for all keys.
    pub fn new(group: &str, id: &str, role: Role, count: usize) -> Self {
        Self {
            group_id: group.to_owned(),
            id: id.to_owned(),
            index: 0,
            overrides: false,
            start_key: Vec::new(),
            end_key: Vec::new(),
            role,
            is_witness: false,
            count,
            label_constraints: Vec::new(),
            location_labels: Vec::new(),
            isolation_level: String::new(),
        }
    }

    /// In words: `leader x1 [$biz in order]`.
    pub fn shape(&self) -> String {
        let op = |constraint: &Constraint| {
            let values = constraint.values.join("|");
            match constraint.op {
                crate::labels::Op::In => format!("{}={values}", constraint.key),
                crate::labels::Op::NotIn => format!("{}!={values}", constraint.key),
                crate::labels::Op::Exists => constraint.key.clone(),
                crate::labels::Op::NotExists => format!("no {}", constraint.key),
            }
        };
        let asked: Vec<_> = self.label_constraints.iter().map(op).collect();
        format!("{} x{} [{}]", self.role.name(), self.count, asked.join(", "))
    }
}

/// A group of rules, as PD takes and gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    #[serde(rename = "group_id")]
    pub id: String,
    #[serde(default, rename = "group_index")]
    pub index: i64,
    #[serde(default, rename = "group_override")]
    pub overrides: bool,
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Why a set of rules is none that PD takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    #[error("no rule is left for the keys from {from}")]
    Uncovered { from: String },
    #[error("there is more than one leader for the keys from {from}")]
    Leaders { from: String },
    #[error("neither a leader nor a voter is asked for the keys from {from}")]
    NoVoter { from: String },
}

/// The rules of a cluster, cut where any of them begins or ends.
#[derive(Clone, Debug)]
pub struct RuleList {
    /// In order; each goes on to the next one's start.
    segments: Vec<(Vec<u8>, Vec<Rule>)>,
}

impl RuleList {
    /// Cuts the keys at every boundary of a rule and finds what applies in between.
    pub fn build(bundles: &[Bundle]) -> Result<Self, BadRules> {
        let mut sorted: Vec<(&Bundle, &Rule)> =
            bundles.iter().flat_map(|bundle| bundle.rules.iter().map(move |rule| (bundle, rule))).collect();
        sorted.sort_by(|(one, a), (other, b)| {
            (one.index, &one.id, a.index, &a.id).cmp(&(other.index, &other.id, b.index, &b.id))
        });
        // Where rules begin and end. `sorted` has each by its place, so a set of places is in the order of the rules.
        let mut edges: BTreeMap<&[u8], (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (place, (_, rule)) in sorted.iter().enumerate() {
            edges.entry(&rule.start_key).or_default().0.push(place);
            if !rule.end_key.is_empty() {
                edges.entry(&rule.end_key).or_default().1.push(place);
            }
        }
        let mut segments = Vec::with_capacity(edges.len());
        let mut live: BTreeSet<usize> = BTreeSet::new();
        for (start, (begin, end)) in edges {
            live.extend(begin);
            for place in end {
                live.remove(&place);
            }
            let here: Vec<(&Bundle, &Rule)> = live.iter().map(|place| sorted[*place]).collect();
            segments.push((start.to_vec(), applied(&here, start)?));
        }
        if segments.first().is_none_or(|(start, _)| !start.is_empty()) {
            return Err(BadRules::Uncovered { from: String::new() });
        }
        Ok(Self { segments })
    }

    /// The rules of a region. There are none when it crosses a boundary: it must be split first.
    pub fn of(&self, start: &[u8], end: &[u8]) -> &[Rule] {
        let next = self.segments.partition_point(|(from, _)| from.as_slice() <= start);
        let crosses = |from: &Vec<u8>| end.is_empty() || end > from.as_slice();
        match next.checked_sub(1) {
            Some(own) if !self.segments.get(next).is_some_and(|(from, _)| crosses(from)) => {
                &self.segments[own].1
            }
            _ => &[],
        }
    }
}

/// What is left of the rules of one range when those have gone that others override.
fn applied(sorted: &[(&Bundle, &Rule)], start: &[u8]) -> Result<Vec<Rule>, BadRules> {
    let from = || hex::encode(start);
    if sorted.is_empty() {
        return Err(BadRules::Uncovered { from: from() });
    }
    let mut earlier: Vec<&Rule> = Vec::new();
    let mut own: Vec<&Rule> = Vec::new();
    let mut group: Option<&Bundle> = None;
    for (bundle, rule) in sorted {
        if group.is_some_and(|group| group.id != bundle.id) {
            if bundle.overrides {
                earlier.clear();
                own.clear();
            } else {
                earlier.append(&mut own);
            }
        }
        group = Some(bundle);
        if rule.overrides {
            own.clear();
        }
        own.push(rule);
    }
    earlier.append(&mut own);
    let count = |role: Role| earlier.iter().filter(|rule| rule.role == role).map(|rule| rule.count).sum();
    let (leaders, voters): (usize, usize) = (count(Role::Leader), count(Role::Voter));
    if leaders > 1 {
        return Err(BadRules::Leaders { from: from() });
    }
    if leaders + voters == 0 {
        return Err(BadRules::NoVoter { from: from() });
    }
    Ok(earlier.into_iter().cloned().collect())
}

/// Bytes as hexadecimal text.
pub mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::fmt::Write as _;

    pub fn encode(bytes: &[u8]) -> String {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// `None` for what is no hexadecimal text.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
        Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(id: &str, index: i64, overrides: bool, rules: &[(&str, &str, &str)]) -> Bundle {
        let rule = |(name, start, end): &(&str, &str, &str)| Rule {
            start_key: start.as_bytes().to_vec(),
            end_key: end.as_bytes().to_vec(),
            ..Rule::new(id, name, Role::Voter, 3)
        };
        Bundle { id: id.to_owned(), index, overrides, rules: rules.iter().map(rule).collect() }
    }

    fn names(rules: &[Rule]) -> Vec<&str> {
        rules.iter().map(|rule| rule.id.as_str()).collect()
    }

    #[test]
    fn a_group_that_overrides_hides_earlier_groups_and_crossing_regions_have_no_rule() {
        let list = RuleList::build(&[
            bundle("pd", 0, false, &[("default", "", "")]),
            bundle("TiDB_DDL_1", 40, true, &[("table_1", "b", "d")]),
            bundle("tiflash", 120, false, &[("flash", "c", "d")]),
        ])
        .unwrap();
        assert_eq!(names(list.of(b"a", b"b")), ["default"]);
        assert_eq!(names(list.of(b"b", b"c")), ["table_1"]);
        assert_eq!(names(list.of(b"c", b"d")), ["table_1", "flash"]);
        assert_eq!(names(list.of(b"d", b"")), ["default"]);
        assert_eq!(names(list.of(b"a", b"c")), [""; 0]);
        assert_eq!(names(list.of(b"c", b"")), [""; 0]);
    }

    #[test]
    fn rules_are_in_the_order_of_text() {
        let list = RuleList::build(&[bundle("g", 0, false, &[("r_2", "", ""), ("r_10", "", "")])]).unwrap();
        assert_eq!(names(list.of(b"", b"")), ["r_10", "r_2"]);
    }

    #[test]
    fn keys_that_nobody_rules_are_refused() {
        let gap = RuleList::build(&[bundle("g", 0, false, &[("r", "a", "b")])]);
        assert!(matches!(gap, Err(BadRules::Uncovered { .. })), "{gap:?}");
    }
}
