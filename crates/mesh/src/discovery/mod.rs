//! Groups whose servers are found: members of a Group Replication, and TiDB servers that PD knows.
//!
//! ```text
//! probes, PD ─▶ Members ─▶ a plan with these servers, made and taken into use as a reload's is
//! ```
//! What a configuration names stays; what was found comes and goes. Nothing goes because somebody does not answer: only
//! when a majority of the group, or PD, says that it is gone.

mod http;
pub mod pd;
mod view;

use crate::config::{BackendConfig, GroupConfig, Role, Topology};
use crate::control::Change;
use crate::group::{Backend, Group};
use crate::plan::Plan;
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use view::{View, ask};

/// Servers of one group that are found; more are left out.
const FOUND_MAX: usize = 256;
/// A member that its group has gone on without is forgotten after this; one that restarts is back before, or comes again.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// A group of which no majority answers for so long is over, and another may come in its place.
const BOUND_FOR: Duration = Duration::from_secs(10);
/// Plans are made anew for found servers no more often.
const ADOPT_EVERY: Duration = Duration::from_secs(1);

/// What is known of a group's servers beside its configuration; the same for each plan that has the group.
#[derive(Debug, Default)]
pub struct Members(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What each server said last, by its address; nothing of one that does not answer.
    views: BTreeMap<String, View>,
    /// Servers that have answered or not.
    asked: BTreeSet<String>,
    /// The group that is gone by, and when a majority of it last told of it.
    bound: Option<String>,
    bound_at: Option<Instant>,
    found: Vec<BackendConfig>,
    /// What PD said last.
    listed: Option<Vec<BackendConfig>>,
    /// Since when the group goes on without a server.
    gone: BTreeMap<String, Instant>,
    adopted: Option<Instant>,
}

impl Members {
    /// Servers that are not in the configuration.
    pub fn found(&self) -> Vec<BackendConfig> {
        self.known().found.clone()
    }

    /// Servers that another process has found; what this one has found itself goes before.
    fn recall(&self, found: Vec<BackendConfig>) {
        let mut known = self.known();
        for one in found.into_iter().take(FOUND_MAX) {
            if !known.found.iter().any(|other| other.addr == one.addr) {
                known.found.push(one);
            }
        }
        known.adopted = None;
    }

    /// What a server told; what it is for by all that is known, or why for nothing.
    pub fn saw(&self, group: &Group, address: &str, view: View) -> Result<Role, String> {
        let mut known = self.known();
        known.asked.insert(address.to_owned());
        known.views.insert(address.to_owned(), view);
        known.bind(group);
        view::standing(&known.views, address, known.bound.as_deref())
    }

    /// A server does not answer, so that its view is none.
    pub fn lost(&self, address: &str) {
        let mut known = self.known();
        known.asked.insert(address.to_owned());
        known.views.remove(address);
    }

    /// What PD lists now. An empty list is not believed: a cluster without a server has nobody to say so.
    fn list(&self, listed: Vec<BackendConfig>) {
        if !listed.is_empty() {
            self.known().listed = Some(listed);
        }
    }

    /// Looks again for what was found; whether that is not what a plan's group has.
    fn look(&self, group: &Group) -> bool {
        let now = Instant::now();
        let mut known = self.known();
        if known.adopted.is_some_and(|adopted| now.duration_since(adopted) < ADOPT_EVERY) {
            return false;
        }
        let found = match group.config.topology {
            Topology::Pd => known.listed.as_deref().map(|listed| listed_beside(&group.config, listed)),
            _ => known.found_by_views(&group.config, now),
        };
        if let Some(found) = found {
            known.found = found;
        }
        let known = &mut *known;
        let is_there = |address: &String| group.backends.iter().any(|backend| backend.address == *address);
        known.views.retain(|address, _| is_there(address));
        known.asked.retain(is_there);
        let is = |server: &BackendConfig, backend: &Arc<Backend>| {
            server.addr == backend.address && server.status == backend.status && server.zone == backend.zone
        };
        let wanted: Vec<_> = servers(&group.config, &known.found).collect();
        let same = wanted.len() == group.backends.len()
            && wanted.iter().zip(&group.backends).all(|(server, backend)| is(server, backend));
        let changed = !same;
        if changed {
            known.adopted = Some(now);
        }
        changed
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Decides which group is gone by. When somebody begins a second one by mistake, the first stays, also while nobody
    /// answers of it for a moment; of two from the beginning the larger counts.
    fn bind(&mut self, group: &Group) {
        let now = Instant::now();
        if self.bound.as_deref().is_some_and(|bound| view::newest(&self.views, bound).is_some()) {
            self.bound_at = Some(now);
            return;
        }
        let all_asked = group.backends.iter().all(|backend| self.asked.contains(&backend.address));
        let is_over = self.bound_at.is_none_or(|at| now.duration_since(at) >= BOUND_FOR);
        if all_asked
            && is_over
            && let Some(largest) = view::largest(&self.views)
        {
            if self.bound.is_some() {
                tracing::warn!(
                    group = group.name,
                    "the servers are in another group than before, which is gone"
                );
            }
            self.bound = Some(largest.to_owned());
            self.bound_at = Some(now);
        }
    }

    /// `None` while no member sees a majority: then nothing comes or goes.
    fn found_by_views(&mut self, config: &GroupConfig, now: Instant) -> Option<Vec<BackendConfig>> {
        let newest = view::newest(&self.views, self.bound.as_deref()?)?;
        let views = &self.views;
        let uuid_at = |address: &str| views.get(address).map(|view| view.uuid.as_str());
        let mut found = self.found.clone();
        let seeds = || config.backends.iter().map(|seed| seed.addr.as_str());
        for member in newest.members.iter().filter(|member| member.is_there()) {
            let Some(address) = announced(config, &member.host, member.port) else { continue };
            let known = |at: &str| at == address || uuid_at(at) == Some(member.uuid.as_str());
            if !seeds().any(known) && !found.iter().any(|other| known(&other.addr)) {
                found.push(server(address));
            }
        }
        let gone = &mut self.gone;
        found.retain(|one| {
            let uuid = uuid_at(&one.addr);
            if seeds().any(|seed| seed == one.addr || uuid.is_some() && uuid_at(seed) == uuid) {
                // It is in the configuration, there by another name.
                return false;
            }
            let is_member = newest.members.iter().any(|member| {
                uuid == Some(member.uuid.as_str())
                    || announced(config, &member.host, member.port).as_ref() == Some(&one.addr)
            });
            if is_member {
                gone.remove(&one.addr);
                return true;
            }
            now.duration_since(*gone.entry(one.addr.clone()).or_insert(now)) < GONE_AFTER
        });
        found.truncate(FOUND_MAX);
        gone.retain(|address, _| found.iter().any(|one| one.addr == *address));
        Some(found)
    }
}

/// All servers of a group: those that its configuration names, then those that were found.
pub fn servers<'a>(
    config: &'a GroupConfig,
    found: &'a [BackendConfig],
) -> impl Iterator<Item = &'a BackendConfig> {
    let named = |one: &BackendConfig| config.backends.iter().any(|seed| seed.addr == one.addr);
    config.backends.iter().chain(found.iter().filter(move |one| !named(one)))
}

/// What PD lists and the configuration does not.
fn listed_beside(config: &GroupConfig, listed: &[BackendConfig]) -> Vec<BackendConfig> {
    let named = |one: &BackendConfig| config.backends.iter().any(|seed| seed.addr == one.addr);
    listed.iter().filter(|one| !named(one)).take(FOUND_MAX).cloned().collect()
}

fn server(address: String) -> BackendConfig {
    BackendConfig { addr: address, role: None, weight: 1, zone: None, status: None }
}

/// Where a server is reached that says this of itself; `None` where it says nothing of use.
fn announced(config: &GroupConfig, host: &str, port: u16) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 255 || port == 0 || !host.chars().all(plain) {
        return None;
    }
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Some(config.address_map.get(&address).cloned().unwrap_or(address))
}

/// What has been found, by group, for another process.
pub fn found(plan: &Plan) -> BTreeMap<String, Vec<BackendConfig>> {
    let groups = plan.groups.iter().filter_map(|group| Some((group, group.members.as_ref()?)));
    groups.map(|(group, members)| (group.name.clone(), members.found())).collect()
}

/// Sessions come that are at servers which another process has found.
pub fn recall(plan: &Plan, found: &BTreeMap<String, Vec<BackendConfig>>) {
    for group in &plan.groups {
        if let (Some(members), Some(found)) = (&group.members, found.get(&group.name)) {
            members.recall(found.clone());
        }
    }
}

/// What PD listed is the group's from its next plan on.
pub fn recall_listed(group: &Group, listed: Vec<BackendConfig>) {
    if let Some(members) = &group.members {
        members.recall(listed_beside(&group.config, &listed));
    }
}

/// Takes what was found into use, where that is news. `None` also while a reload is under way: the next look sees it.
pub fn adopt(shared: &Shared) -> Option<Change> {
    let _one_at_a_time = shared.reloading.try_lock().ok()?;
    let plan = shared.plan.load_full();
    let changed: Vec<&str> = plan
        .groups
        .iter()
        .filter(|group| group.members.as_ref().is_some_and(|members| members.look(group)))
        .map(|group| group.name.as_str())
        .collect();
    if changed.is_empty() {
        return None;
    }
    let prepared = plan.renewed(&changed);
    for group in prepared.plan.groups.iter().filter(|group| changed.contains(&group.name.as_str())) {
        let servers: Vec<_> = group.backends.iter().map(|backend| backend.address.as_str()).collect();
        tracing::info!(group = group.name, servers = servers.join(", "), "the servers of a group changed");
    }
    Some(prepared.take_into_use(shared))
}

#[cfg(test)]
mod tests {
    use super::view::tests::view;
    use super::*;

    const ALL: [(&str, &str); 3] = [("A", "ONLINE"), ("b", "ONLINE"), ("c", "RECOVERING")];

    fn group(seeds: &[&str], before: Option<&Group>) -> Group {
        let seeds: Vec<_> = seeds.iter().map(|seed| serde_json::json!({"addr": seed})).collect();
        let config = serde_json::json!({
            "topology": "group_replication", "backends": seeds, "monitor": {"user": "m"}, "tls": "verify",
            "address_map": {"host-c:3306": "far:1"},
        });
        Group::new("shop".into(), 0, serde_json::from_value(config).unwrap(), None, None, before)
    }

    fn saw(group: &Group, address: &str, view: &(String, View)) -> Result<Role, String> {
        group.members.as_ref().unwrap().saw(group, address, view.1.clone())
    }

    fn looks(group: &Group) -> bool {
        let members = group.members.as_ref().unwrap();
        members.known().adopted = None;
        members.look(group)
    }

    fn addresses(group: &Group) -> Vec<&str> {
        group.backends.iter().map(|backend| backend.address.as_str()).collect()
    }

    #[test]
    fn members_are_found_once_under_the_address_that_is_ours() {
        let first = group(&["seed:1"], None);
        assert!(!looks(&first), "nobody has told anything");
        // The seed is `a` by another name.
        assert_eq!(saw(&first, "seed:1", &view("a", "7:3", &ALL)), Ok(Role::Writer));
        assert!(looks(&first));
        let second = first.renewed();
        assert_eq!(addresses(&second), ["seed:1", "host-b:3306", "far:1"]);
        assert!(Arc::ptr_eq(&first.backends[0], &second.backends[0]));
        assert_eq!(first.generation, second.generation, "shared connections stay");
        assert!(!looks(&second));
        // A reload keeps them, and one that names them has them once.
        assert_eq!(addresses(&group(&["seed:1"], Some(&second))), ["seed:1", "host-b:3306", "far:1"]);
        assert_eq!(
            addresses(&group(&["far:1", "seed:1"], Some(&second))),
            ["far:1", "seed:1", "host-b:3306"]
        );
        // Other servers altogether are another group.
        assert_eq!(addresses(&group(&["elsewhere:1"], Some(&second))), ["elsewhere:1"]);
    }

    #[test]
    fn a_member_goes_when_a_majority_says_so_for_a_while_and_not_because_nobody_answers() {
        let first = group(&["seed:1"], None);
        saw(&first, "seed:1", &view("a", "7:3", &ALL)).unwrap();
        looks(&first);
        let second = first.renewed();
        let members = second.members.clone().unwrap();
        members.lost("seed:1");
        assert!(!looks(&second), "nobody answers");
        let alone = [("A", "ONLINE"), ("b", "UNREACHABLE"), ("c", "UNREACHABLE")];
        assert!(saw(&second, "seed:1", &view("a", "7:3", &alone)).is_err());
        assert!(!looks(&second), "no majority");
        saw(&second, "seed:1", &view("a", "7:4", &ALL[..2])).unwrap();
        assert!(!looks(&second), "it may be back in a moment");
        let past = Instant::now().checked_sub(GONE_AFTER).unwrap();
        members.known().gone.insert("far:1".into(), past);
        assert!(looks(&second));
        assert_eq!(addresses(&second.renewed()), ["seed:1", "host-b:3306"]);
    }

    #[test]
    fn nobody_writes_before_every_server_was_asked_and_a_second_group_changes_nothing() {
        let both = group(&["a:1", "d:1"], None);
        let other = view("d", "9:1", &[("D", "ONLINE")]);
        assert!(saw(&both, "d:1", &other).unwrap_err().contains("not every server"));
        assert_eq!(saw(&both, "a:1", &view("a", "7:3", &ALL)), Ok(Role::Writer));
        assert!(saw(&both, "d:1", &other).unwrap_err().contains("another group"));
        let members = both.members.clone().unwrap();
        members.lost("a:1");
        assert!(saw(&both, "d:1", &other).unwrap_err().contains("another group"));
        // The first is over.
        members.known().bound_at = Instant::now().checked_sub(BOUND_FOR);
        assert_eq!(saw(&both, "d:1", &other), Ok(Role::Writer));
    }
}
