//! Labels of stores, and what a rule asks of them.
//!
//! Keys are compared without regard to case when a label is looked up, values are compared exactly by constraints and
//! without regard to case when two places are compared. A label whose value is empty counts as absent. That is PD's way,
//! and it is not symmetrical: the key of an exclusive label must be named exactly.

use serde::{Deserialize, Serialize};

/// The labels of one store, in the order PD has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    pub fn new<K: Into<String>, V: Into<String>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The value of a key; empty when there is none.
    pub fn value(&self, key: &str) -> &str {
        let found = self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(key));
        found.map_or("", |(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The first level of `location` on which two stores differ, or `None` when they are at one place as far as is known.
    pub fn differs_at(&self, other: &Self, location: &[String]) -> Option<usize> {
        location.iter().position(|key| {
            let (one, two) = (self.value(key), other.value(key));
            !one.is_empty() && !two.is_empty() && !one.eq_ignore_ascii_case(two)
        })
    }
}

/// How a constraint looks at a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Op {
    /// The label is there with one of the values.
    #[serde(rename = "in")]
    In,
    /// The label is absent, or has none of the values.
    #[serde(rename = "notIn")]
    NotIn,
    #[serde(rename = "exists")]
    Exists,
    #[serde(rename = "notExists")]
    NotExists,
}

/// What a rule asks of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Constraint {
    pub key: String,
    pub op: Op,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Constraint {
    pub fn new<V: Into<String>>(key: impl Into<String>, op: Op, values: impl IntoIterator<Item = V>) -> Self {
        Self { key: key.into(), op, values: values.into_iter().map(Into::into).collect() }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.key);
        let listed = || self.values.iter().any(|own| own == value);
        match self.op {
            Op::In => !value.is_empty() && listed(),
            Op::NotIn => value.is_empty() || !listed(),
            Op::Exists => !value.is_empty(),
            Op::NotExists => value.is_empty(),
        }
    }
}

/// Whether a store with such a label is used by those rules only that name the key.
pub fn is_exclusive(key: &str) -> bool {
    key.starts_with('$') || key == "engine" || key == "exclusive"
}

/// Whether a store may hold what a rule with these constraints places.
pub fn admits(constraints: &[Constraint], labels: &Labels) -> bool {
    let named = |key: &str| constraints.iter().any(|constraint| constraint.key == key);
    labels.iter().all(|(key, _)| !is_exclusive(key) || named(key))
        && constraints.iter().all(|constraint| constraint.matches(labels))
}

/// Why PD would refuse a key, if it would.
pub fn key_problem(key: &str) -> Option<&'static str> {
    let plain = key.strip_prefix('$').unwrap_or(key);
    let is_end = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| is_end(c) || "-_./".contains(c);
    if plain.starts_with(is_end) && plain.ends_with(is_end) && plain.chars().all(inner) {
        return None;
    }
    Some(
        "a label's key has letters, digits and `-_./`, begins and ends with a letter or digit, and may have a `$` in front",
    )
}

/// Why PD would refuse a value, if it would.
pub fn value_problem(value: &str) -> Option<&'static str> {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    (!plain).then_some("a label's value has letters, digits and `-_./` only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_label_shuts_out_rules_that_do_not_name_it() {
        let store = Labels::new([("$biz", "order"), ("zone", "z1")]);
        assert!(!admits(&[], &store));
        assert!(!admits(&[Constraint::new("zone", Op::In, ["z1"])], &store));
        assert!(admits(&[Constraint::new("$biz", Op::In, ["order"])], &store));
        // Any operator opens the door, also one that means to keep out.
        assert!(admits(&[Constraint::new("$biz", Op::NotIn, ["pay"])], &store));
        assert!(!admits(&[Constraint::new("$BIZ", Op::In, ["order"])], &store));
    }

    #[test]
    fn keys_are_looked_up_in_any_case_and_values_exactly() {
        let store = Labels::new([("Zone", "Z1"), ("empty", "")]);
        assert!(Constraint::new("zone", Op::In, ["Z1"]).matches(&store));
        assert!(!Constraint::new("zone", Op::In, ["z1"]).matches(&store));
        assert!(Constraint::new("empty", Op::NotExists, [""; 0]).matches(&store));
        assert!(Constraint::new("absent", Op::NotIn, ["x"]).matches(&store));
        let other = Labels::new([("zone", "z1")]);
        assert_eq!(store.differs_at(&other, &["zone".to_owned()]), None);
    }

    #[test]
    fn names_that_pd_refuses_are_known() {
        for key in ["zone", "$biz", "a.b/c-d_e", "z"] {
            assert_eq!(key_problem(key), None, "{key}");
        }
        for key in ["", "$", "-zone", "zone-", "zo ne", "$$biz", "größe"] {
            assert!(key_problem(key).is_some(), "{key}");
        }
        assert_eq!(value_problem("10.0.0.1"), None);
        assert_eq!(value_problem(""), None);
        assert!(value_problem("a b").is_some());
    }
}
