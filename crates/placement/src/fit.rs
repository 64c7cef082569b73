//! How well the peers of a region fit its rules: PD's own judgement, computed here.
//!
//! Rules are served in order. Each takes the best set of the peers that are left and whose stores it admits; better is,
//! rule by rule: more peers, fewer in the wrong role, a higher isolation score. What no rule takes is an orphan. (For rules of
//! witnesses PD also prefers stores with fewer witnesses; what they have is not known here, and not looked at.) The search is PD's, step for step, because what it keeps among equals depends on the order.

use crate::labels::{Labels, admits};
use crate::rule::{Role, Rule};
use std::cmp::Ordering;

/// Peers of one region that the search takes on: it looks at every subset of them. PD has no bound, and no cluster has more.
pub const PEERS_MAX: usize = 16;

/// A store, as far as placement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub id: u64,
    pub labels: Labels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Down,
    /// It lags behind.
    Pending,
    Healthy,
}

/// One replica of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: u64,
    pub store: u64,
    pub is_learner: bool,
    pub is_witness: bool,
    pub is_leader: bool,
    pub health: Health,
}

impl Peer {
    /// A healthy voter that does not lead.
    pub fn voter(id: u64, store: u64) -> Self {
        Self { id, store, is_learner: false, is_witness: false, is_leader: false, health: Health::Healthy }
    }

    fn plays(&self, role: Role) -> bool {
        match role {
            Role::Voter => !self.is_learner,
            Role::Leader => self.is_leader,
            Role::Follower => !self.is_learner && !self.is_leader,
            Role::Learner => self.is_learner,
        }
    }
}

/// What one rule got.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFit {
    /// Peers by id.
    pub peers: Vec<u64>,
    /// Those of them that are not yet what the rule wants.
    pub wrong_role: Vec<u64>,
    pub isolation: f64,
    wanted: usize,
}

impl RuleFit {
    pub fn is_satisfied(&self) -> bool {
        self.peers.len() == self.wanted && self.wrong_role.is_empty()
    }
}

/// What all rules got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fit {
    /// One for each rule, in their order.
    pub rules: Vec<RuleFit>,
    pub orphans: Vec<u64>,
}

impl Fit {
    pub fn is_satisfied(&self) -> bool {
        !self.rules.is_empty() && self.rules.iter().all(RuleFit::is_satisfied) && self.orphans.is_empty()
    }
}

/// A region has more peers than the search takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a region has {peers} peers, and the fit is computed for {PEERS_MAX} at most")]
pub struct TooManyPeers {
    peers: usize,
}

/// Fits the peers of one region to its rules. `stores` are those that its peers are on; a peer whose store is not among them
/// fits no rule. `witnesses` says whether the cluster allows witnesses, which it does not by default.
pub fn fit(stores: &[&Store], peers: &[Peer], rules: &[Rule], witnesses: bool) -> Result<Fit, TooManyPeers> {
    if peers.len() > PEERS_MAX {
        return Err(TooManyPeers { peers: peers.len() });
    }
    let mut places: Vec<Place<'_>> = peers
        .iter()
        .map(|peer| Place {
            peer: *peer,
            store: stores.iter().copied().find(|it| it.id == peer.store),
            taken: false,
        })
        .collect();
    let health = |place: &Place<'_>| match place.peer.health {
        Health::Healthy => 0,
        Health::Pending => 1,
        Health::Down => 2,
    };
    places.sort_by_key(|place| (health(place), place.peer.id));
    let is_isolating = rules.iter().any(|rule| !rule.location_labels.is_empty());
    let best = vec![None; rules.len()];
    let mut search =
        Search { places, rules, witnesses, is_isolating, best, orphans: Vec::new(), done: false };
    search.serve(0);
    if rules.is_empty() {
        search.note_orphans();
    }
    let fits = search.best.into_iter().zip(rules).map(|(best, rule)| {
        best.unwrap_or(RuleFit {
            peers: Vec::new(),
            wrong_role: Vec::new(),
            isolation: 0.0,
            wanted: rule.count,
        })
    });
    Ok(Fit { rules: fits.collect(), orphans: search.orphans })
}

/// A peer, and whether a rule holds it at the moment.
struct Place<'a> {
    peer: Peer,
    store: Option<&'a Store>,
    taken: bool,
}

struct Search<'a> {
    places: Vec<Place<'a>>,
    rules: &'a [Rule],
    witnesses: bool,
    is_isolating: bool,
    best: Vec<Option<RuleFit>>,
    orphans: Vec<u64>,
    done: bool,
}

impl Search<'_> {
    /// Serves the rules from `index` on with the peers that are left; whether something better was found.
    fn serve(&mut self, index: usize) -> bool {
        if self.done {
            return false;
        }
        let Some(rule) = self.rules.get(index) else {
            // Without isolation a fit that satisfies cannot be bettered.
            let full = self.best.iter().all(|fit| fit.as_ref().is_some_and(RuleFit::is_satisfied));
            self.done = !self.is_isolating && full && self.orphans.is_empty() && !self.best.is_empty();
            return false;
        };
        let leads_no_witness = |peer: &Peer| !(peer.is_leader && self.witnesses && rule.is_witness);
        let fits = |place: &Place<'_>| {
            !place.taken
                && place.store.is_some_and(|store| admits(&rule.label_constraints, &store.labels))
                && leads_no_witness(&place.peer)
        };
        let candidates: Vec<usize> = (0..self.places.len()).filter(|at| fits(&self.places[*at])).collect();
        let count = rule.count.min(candidates.len()) as u32;
        let mut found = false;
        // Every set of `count` candidates, in the order of their bit masks.
        for mask in 0..1_u32 << candidates.len() {
            if mask.count_ones() != count {
                continue;
            }
            let chosen: Vec<usize> = candidates
                .iter()
                .enumerate()
                .filter(|(bit, _)| mask >> bit & 1 == 1)
                .map(|(_, at)| *at)
                .collect();
            for at in &chosen {
                self.places[*at].taken = true;
            }
            found |= self.try_set(&chosen, index);
            for at in &chosen {
                self.places[*at].taken = false;
            }
            if self.done {
                break;
            }
        }
        found
    }

    /// Gives a set of peers to a rule and goes on behind it; whether that is better than the best so far.
    fn try_set(&mut self, chosen: &[usize], index: usize) -> bool {
        let fit = self.rule_fit(chosen, &self.rules[index]);
        let order = self.best[index].as_ref().map_or(Ordering::Greater, |best| compare(&fit, best));
        match order {
            Ordering::Greater => {
                self.best[index] = Some(fit);
                self.best[index + 1..].fill(None);
                self.serve(index + 1);
                if index + 1 == self.rules.len() {
                    self.note_orphans();
                }
                true
            }
            Ordering::Equal if self.serve(index + 1) => {
                self.best[index] = Some(fit);
                true
            }
            _ => false,
        }
    }

    fn note_orphans(&mut self) {
        self.orphans = self.places.iter().filter(|place| !place.taken).map(|place| place.peer.id).collect();
    }

    fn rule_fit(&self, chosen: &[usize], rule: &Rule) -> RuleFit {
        let peers = || chosen.iter().map(|at| &self.places[*at]);
        let is_right = |peer: &Peer| {
            let witness = if self.witnesses { peer.is_witness == rule.is_witness } else { !peer.is_witness };
            peer.plays(rule.role) && witness
        };
        let labels: Vec<&Labels> = peers().filter_map(|place| Some(&place.store?.labels)).collect();
        RuleFit {
            peers: peers().map(|place| place.peer.id).collect(),
            wrong_role: peers().filter(|place| !is_right(&place.peer)).map(|place| place.peer.id).collect(),
            isolation: isolation(&labels, &rule.location_labels),
            wanted: rule.count,
        }
    }
}

/// The sum over pairs of what the first level is worth on which they differ: a hundred times the next finer one.
pub fn isolation(stores: &[&Labels], location: &[String]) -> f64 {
    let mut score = 0.0;
    for (at, one) in stores.iter().enumerate() {
        for other in &stores[at + 1..] {
            if let Some(level) = one.differs_at(other, location) {
                score += 100_f64.powi((location.len() - level - 1) as i32);
            }
        }
    }
    score
}

fn compare(one: &RuleFit, other: &RuleFit) -> Ordering {
    let by_peers = one.peers.len().cmp(&other.peers.len());
    let by_role = other.wrong_role.len().cmp(&one.wrong_role.len());
    by_peers.then(by_role).then(one.isolation.total_cmp(&other.isolation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{Constraint, Op};
    use proptest::prelude::*;

    fn store(id: u64, labels: &[(&str, &str)]) -> Store {
        Store { id, labels: Labels::new(labels.iter().copied()) }
    }

    fn rule(role: Role, count: usize, asked: &[(&str, &str)], location: &[&str]) -> Rule {
        Rule {
            label_constraints: asked
                .iter()
                .map(|(key, value)| Constraint::new(*key, Op::In, [*value]))
                .collect(),
            location_labels: location.iter().map(|label| (*label).to_owned()).collect(),
            ..Rule::new("g", "r", role, count)
        }
    }

    fn fitted(stores: &[Store], peers: &[Peer], rules: &[Rule]) -> Fit {
        fit(&stores.iter().collect::<Vec<_>>(), peers, rules, false).unwrap()
    }

    #[test]
    fn the_leader_is_given_to_the_leader_rule_and_the_stranger_is_an_orphan() {
        let stores = [
            store(1, &[("$biz", "order"), ("lead", "first")]),
            store(2, &[("$biz", "order")]),
            store(3, &[("$biz", "order")]),
            store(4, &[("$biz", "pay")]),
        ];
        let mut peers = [1, 2, 3, 4].map(|id| Peer::voter(10 + id, id));
        peers[0].is_leader = true;
        let rules = [
            rule(Role::Leader, 1, &[("$biz", "order"), ("lead", "first")], &[]),
            rule(Role::Voter, 2, &[("$biz", "order")], &[]),
        ];
        let found = fitted(&stores, &peers, &rules);
        assert_eq!((found.rules[0].peers.clone(), found.rules[1].peers.clone()), (vec![11], vec![12, 13]));
        assert_eq!(found.orphans, [14]);
        assert!(!found.is_satisfied());
        assert!(fitted(&stores, &peers[..3], &rules).is_satisfied());
    }

    #[test]
    fn leader_and_voter_rules_do_not_see_that_they_share_a_host() {
        let stores = [store(1, &[("host", "h1")]), store(2, &[("host", "h1")]), store(3, &[("host", "h2")])];
        let mut peers = [1, 2, 3].map(|id| Peer::voter(id, id));
        peers[0].is_leader = true;
        let rules = [rule(Role::Leader, 1, &[], &["host"]), rule(Role::Voter, 2, &[], &["host"])];
        let found = fitted(&stores, &peers, &rules);
        assert!(found.is_satisfied());
        assert_eq!(found.rules[1].isolation, 1.0);
    }

    #[test]
    fn a_region_without_rules_is_all_orphans() {
        let found = fitted(&[store(1, &[])], &[Peer::voter(1, 1)], &[]);
        assert_eq!((found.orphans.clone(), found.is_satisfied()), (vec![1], false));
    }

    prop_compose! {
        fn some_store()(zone in 0..3_u8, host in 0..3_u8, biz in 0..3_u8) -> Labels {
            let mut labels = vec![("zone".to_owned(), format!("z{zone}")), ("host".to_owned(), format!("h{host}"))];
            if biz > 0 {
                labels.push(("$biz".to_owned(), format!("b{biz}")));
            }
            Labels::new(labels)
        }
    }

    prop_compose! {
        fn some_rule()(role in 0..4_u8, count in 1..4_usize, biz in 0..3_u8, isolates in any::<bool>()) -> Rule {
            let role = [Role::Voter, Role::Leader, Role::Follower, Role::Learner][role as usize];
            let biz = format!("b{biz}");
            let asked: &[(&str, &str)] = if biz == "b0" { &[] } else { &[("$biz", &biz)] };
            rule(role, if role == Role::Leader { 1 } else { count }, asked, if isolates { &["zone", "host"] } else { &[] })
        }
    }

    /// Every way to give the peers to rules, each rule as full as it can be: the best of all, told as scores.
    fn best_of_all(stores: &[Store], left: &[Peer], rules: &[Rule]) -> Vec<(usize, i64, i64)> {
        let Some((first, rest)) = rules.split_first() else { return Vec::new() };
        let labels = |peer: &Peer| &stores.iter().find(|store| store.id == peer.store).unwrap().labels;
        let fitting: Vec<Peer> =
            left.iter().filter(|peer| admits(&first.label_constraints, labels(peer))).copied().collect();
        let count = first.count.min(fitting.len());
        let mut best = Vec::new();
        for mask in 0..1_u32 << fitting.len() {
            if mask.count_ones() as usize != count {
                continue;
            }
            let chosen: Vec<Peer> =
                (0..fitting.len()).filter(|bit| mask >> bit & 1 == 1).map(|bit| fitting[bit]).collect();
            let wrong = chosen.iter().filter(|peer| !peer.plays(first.role)).count() as i64;
            let places: Vec<&Labels> = chosen.iter().map(labels).collect();
            let left: Vec<Peer> = left.iter().filter(|peer| !chosen.contains(peer)).copied().collect();
            let mut scores = vec![(count, -wrong, isolation(&places, &first.location_labels) as i64)];
            scores.extend(best_of_all(stores, &left, rest));
            if scores > best {
                best = scores;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_other_division_of_the_peers_is_better(
            labels in prop::collection::vec(some_store(), 1..6),
            learners in prop::collection::vec(any::<bool>(), 6),
            leader in 0..6_usize,
            rules in prop::collection::vec(some_rule(), 1..4),
        ) {
            let stores: Vec<Store> =
                labels.into_iter().enumerate().map(|(at, labels)| Store { id: at as u64 + 1, labels }).collect();
            let peers: Vec<Peer> = stores.iter().enumerate().map(|(at, store)| Peer {
                is_learner: learners[at] && at != leader,
                is_leader: at == leader,
                ..Peer::voter(store.id + 10, store.id)
            }).collect();
            let found = fitted(&stores, &peers, &rules);
            let scores: Vec<_> = found.rules.iter()
                .map(|fit| (fit.peers.len(), -(fit.wrong_role.len() as i64), fit.isolation as i64)).collect();
            // Without isolation PD takes the first that satisfies everything, which is as good as any.
            prop_assert_eq!(scores, best_of_all(&stores, &peers, &rules));
            let placed: usize = found.rules.iter().map(|fit| fit.peers.len()).sum();
            prop_assert_eq!(placed + found.orphans.len(), peers.len());
        }
    }
}
