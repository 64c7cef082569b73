//! The cluster as text: places, stores on them, and which businesses may lead, follow and learn there.

use crate::declaration::{Declaration, Desired, policy_name};
use crate::labels::admits;
use crate::rule::{Role, Rule};
use crate::state::Observed;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Draws the cluster as the declaration wants it: `★` may lead, `○` follows, `◇` learns, `·` nothing.
pub fn draw(declaration: &Declaration, desired: &Desired, observed: &Observed) -> String {
    let domain = &declaration.cluster.failure_domain;
    let businesses: Vec<(&str, Vec<Rule>)> = declaration
        .businesses
        .keys()
        .map(|name| {
            let policy = desired.policies.get(&policy_name(name));
            (name.as_str(), policy.and_then(|policy| policy.rules().ok()).unwrap_or_default())
        })
        .collect();
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, store) in observed.stores.iter().enumerate() {
        let named = |label: &String| {
            let value = store.labels.value(label);
            format!("{label} {}", if value.is_empty() { "?" } else { value })
        };
        places.entry(domain.iter().map(named).collect::<Vec<_>>().join(" · ")).or_default().push(at);
    }
    let widest = observed.stores.iter().map(|store| store.address.chars().count()).max().unwrap_or(0).max(5);
    let mut out = format!("{:widest$}", "store", widest = widest + 2);
    for (name, _) in &businesses {
        let _ = write!(out, "  {name}");
    }
    out.push_str("  others\n");
    for (place, stores) in places {
        let _ = writeln!(out, "{place}");
        for at in stores {
            let store = &observed.stores[at];
            let _ = write!(out, "  {:widest$}", store.address);
            for (name, rules) in &businesses {
                let width = name.chars().count();
                let mark = mark(rules, |rule| admits(&rule.label_constraints, &store.labels));
                let _ = write!(out, "  {mark:^width$}");
            }
            let _ = write!(out, "  {:^6}", if admits(&[], &store.labels) { "○" } else { "·" });
            if let (Some(regions), Some(leaders)) = (store.regions, store.leaders) {
                let _ = write!(out, "  {regions} regions, {leaders} led");
            }
            if !store.is_up {
                out.push_str("  DOWN");
            }
            while out.ends_with(' ') {
                out.pop();
            }
            out.push('\n');
        }
    }
    out.push_str("★ may lead  ○ follows  ◇ is read only  · nothing; others: tables without a policy\n");
    out
}

fn mark(rules: &[Rule], admits: impl Fn(&Rule) -> bool) -> char {
    let has_leader = rules.iter().any(|rule| rule.role == Role::Leader);
    let own = |role: Role| rules.iter().any(|rule| rule.role == role && admits(rule));
    if own(Role::Leader) || !has_leader && own(Role::Voter) {
        '★'
    } else if own(Role::Voter) || own(Role::Follower) {
        '○'
    } else if own(Role::Learner) {
        '◇'
    } else {
        '·'
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declaration::tests::{FILE, read};
    use crate::plan::tests::observed;

    #[test]
    fn who_may_be_where_is_drawn() {
        let declaration = read(FILE);
        let drawn = draw(&declaration, &declaration.desired(), &observed());
        let expected = "\
store             order  others
zone z1 · host h1
  10.0.0.1:20160    ★      ·
  10.0.0.1:20161    ·      ○
zone z1 · host h2
  10.0.0.2:20160    ○      ·
  10.0.0.2:20161    ·      ○
zone z2 · host h3
  10.0.0.3:20160    ○      ·
  10.0.0.3:20161    ·      ○
zone z3 · host h4
  10.0.0.4:20160    ◇      ·
";
        // The last line says what the marks mean.
        assert!(drawn.starts_with(expected), "{drawn}");
    }
}
