//! A real PD judges ours: of random rules and regions it must take the same sets, find the same rules for each region, and fit
//! the same peers to them.
//!
//! `TIDEMILL_PLACEMENT_REGIONS` is how many regions are judged (600), `TIDEMILL_SEED` the history.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use placement::fit::{Fit, Health, Peer, Store, fit};
use placement::key::encode_bytes;
use placement::labels::{Constraint, Labels, Op, admits};
use placement::rule::{Bundle, Role, Rule, RuleList, hex};
use serde_json::Value;
use std::time::{Duration, Instant};
use testkit::{FakePeer, FakeRegion, FakeStore, FakeStores, Pd};

/// Stores of one round: each has labels of its own, and regions have peers on stores of their round only.
const STORES: u64 = 8;
/// Regions of one round.
const REGIONS: u64 = 60;
/// Rounds of one PD: it keeps the stores of all, and slows down by them.
const ROUNDS: u64 = 60;
/// Points between which rules and regions lie.
const GRID: u64 = 30;
/// How long PD may take to hear of a region.
const HEARD_MAX: Duration = Duration::from_secs(60);

/// A small generator of random numbers (splitmix64): the same seed is the same history.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn random_labels(dice: &mut Dice) -> Vec<(String, String)> {
    let all: [(&str, &[&str], u64); 7] = [
        ("zone", &["z1", "z2", "z3", "Z1"], 8),
        ("host", &["h1", "h2", "h3", "h4"], 8),
        ("$biz", &["order", "pay"], 2),
        ("disk", &["ssd", "hdd"], 2),
        ("Rack", &["r1", "r2", ""], 2),
        ("engine", &["tiflash"], 1),
        ("exclusive", &["yes"], 1),
    ];
    let mut out = Vec::new();
    for (key, values, weight) in all {
        let has = if weight == 1 { dice.one_in(12) } else { !dice.one_in(weight) };
        if has {
            out.push((key.to_owned(), dice.pick(values).to_owned()));
        }
    }
    out
}

fn random_constraint(dice: &mut Dice) -> Constraint {
    let (key, values): (&str, &[&str]) = match dice.below(7) {
        0 => ("zone", &["z1", "z2", "z3"]),
        1 | 2 => ("$biz", &["order", "pay", "gone"]),
        3 => ("disk", &["ssd", "hdd"]),
        4 => ("rack", &["r1", "r2"]),
        5 => ("HOST", &["h1", "h2"]),
        _ => ("engine", &["tiflash"]),
    };
    let op = [Op::In, Op::In, Op::NotIn, Op::Exists, Op::NotExists][dice.below(5) as usize];
    let count = if matches!(op, Op::In | Op::NotIn) { 1 + dice.below(2) } else { 0 };
    Constraint::new(key, op, (0..count).map(|_| dice.pick(values)))
}

fn key(point: u64) -> Vec<u8> {
    encode_bytes(format!("{point:04}").as_bytes())
}

/// From one point to a later one, or to the end of all keys.
fn random_range(dice: &mut Dice) -> (Vec<u8>, Vec<u8>) {
    let start = dice.below(GRID);
    let end = start + 1 + dice.below(GRID - start + 2);
    (if start == 0 { Vec::new() } else { key(start) }, if end > GRID { Vec::new() } else { key(end) })
}

fn random_bundle(dice: &mut Dice, id: &str) -> Bundle {
    let range = random_range(dice);
    let has_leader = dice.one_in(3);
    let rules = (0..1 + dice.below(4)).map(|at| {
        let range = if dice.one_in(4) { random_range(dice) } else { range.clone() };
        let role = match dice.below(6) {
            _ if has_leader && at == 0 => Role::Leader,
            0 => Role::Follower,
            1 => Role::Learner,
            _ => Role::Voter,
        };
        let location: &[&str] =
            [&[][..], &["zone", "host"], &["zone"], &["rack", "host"]][dice.below(4) as usize];
        let label_constraints: Vec<_> =
            (0..[0, 0, 1, 1, 2][dice.below(5) as usize]).map(|_| random_constraint(dice)).collect();
        // PD has no witness on TiFlash, and says so before it looks at anything else.
        let is_flash = label_constraints.iter().any(|constraint| constraint.key == "engine");
        let is_witness = dice.one_in(15) && role != Role::Leader && !is_flash;
        Rule {
            index: dice.below(3) as i64,
            overrides: dice.one_in(8),
            start_key: range.0,
            end_key: range.1,
            is_witness,
            count: if role == Role::Leader || is_witness { 1 } else { 1 + dice.below(3) as usize },
            label_constraints,
            location_labels: location.iter().map(|label| (*label).to_owned()).collect(),
            role,
            // Of two rules with the same place in their group, the text decides.
            ..Rule::new(id, &format!("r_{}", 8 + at), role, 1)
        }
    });
    Bundle { id: id.to_owned(), index: 0, overrides: false, rules: rules.collect() }
}

fn random_bundles(dice: &mut Dice) -> Vec<Bundle> {
    let mut bundles = vec![Bundle {
        id: "pd".into(),
        index: 0,
        overrides: false,
        rules: vec![Rule::new("pd", "default", Role::Voter, 3)],
    }];
    for name in ["TiDB_DDL_104", "TiDB_DDL_99", "a", "tiflash"] {
        let mut bundle = random_bundle(dice, name);
        bundle.index = dice.below(3) as i64 * 40;
        bundle.overrides = !dice.one_in(3);
        bundles.push(bundle);
    }
    bundles
}

fn random_peers(dice: &mut Dice, region: u64, first_store: u64) -> (Vec<FakePeer>, usize) {
    let mut stores: Vec<u64> = (first_store..first_store + STORES).collect();
    let count = 1 + dice.below(6);
    let mut peers: Vec<FakePeer> = (0..count)
        .map(|at| {
            let store = stores.remove(dice.below(stores.len() as u64) as usize);
            FakePeer {
                // Not in the order of the stores.
                id: region * 10 + (at * 7) % 10,
                store,
                is_learner: dice.one_in(6),
                is_witness: dice.one_in(30),
                is_down: dice.one_in(12),
                is_pending: dice.one_in(12),
            }
        })
        .collect();
    let leader = dice.below(count) as usize;
    peers[leader] =
        FakePeer { is_learner: false, is_witness: false, is_down: false, is_pending: false, ..peers[leader] };
    (peers, leader)
}

struct Judge {
    http: reqwest::Client,
    base: String,
}

impl Judge {
    /// Whether PD takes the rules; if not, why.
    async fn set(&self, bundles: &[Bundle]) -> Result<(), String> {
        let body = serde_json::to_vec(bundles).unwrap();
        let request = self.http.post(format!("{}/config/placement-rule", self.base)).body(body);
        let answer = request.send().await.unwrap();
        if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap()) }
    }

    /// PD's fit of a region, as soon as it knows the region with these peers.
    async fn detail(&self, region: &FakeRegion) -> Value {
        let url = format!("{}/config/rules/region/{}/detail", self.base, region.id);
        let mut wanted: Vec<u64> = region.peers.iter().map(|peer| peer.id).collect();
        wanted.sort_unstable();
        let begun = Instant::now();
        loop {
            let answer = self.http.get(&url).send().await.unwrap();
            if answer.status().is_success() {
                let detail: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
                let of_rules = list(&detail["rule-fits"]).iter().flat_map(|fit| ids(&fit["peers"]));
                let mut peers: Vec<u64> = of_rules.chain(ids(&detail["orphan-peers"])).collect();
                peers.sort_unstable();
                if peers == wanted {
                    return detail;
                }
            }
            assert!(begun.elapsed() < HEARD_MAX, "PD does not know the region {region:?}");
            tokio::task::yield_now().await;
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn ids(peers: &Value) -> Vec<u64> {
    list(peers).iter().map(|peer| peer["id"].as_u64().unwrap()).collect()
}

/// Ours in the shape of PD's.
fn told(rules: &[Rule], fit: &Fit) -> Vec<(String, Vec<u64>, Vec<u64>, f64)> {
    let mut out: Vec<_> = rules
        .iter()
        .zip(&fit.rules)
        .map(|(rule, fit)| {
            let name = format!("{}/{}", rule.group_id, rule.id);
            (name, fit.peers.clone(), fit.wrong_role.clone(), fit.isolation)
        })
        .collect();
    out.push(("orphans".to_owned(), fit.orphans.clone(), Vec::new(), 0.0));
    out
}

fn told_by_pd(detail: &Value) -> Vec<(String, Vec<u64>, Vec<u64>, f64)> {
    let mut out: Vec<_> = list(&detail["rule-fits"])
        .iter()
        .map(|fit| {
            let rule = &fit["rule"];
            let name = format!("{}/{}", rule["group_id"].as_str().unwrap(), rule["id"].as_str().unwrap());
            let isolation = fit["isolation-score"].as_f64().unwrap();
            (name, ids(&fit["peers"]), ids(&fit["peers-different-role"]), isolation)
        })
        .collect();
    out.push(("orphans".to_owned(), ids(&detail["orphan-peers"]), Vec::new(), 0.0));
    out
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pd_fits_peers_to_rules_as_we_do() {
    let (wanted, seed) = (number("TIDEMILL_PLACEMENT_REGIONS", 600), number("TIDEMILL_SEED", 8));
    println!("TIDEMILL_SEED={seed}");
    let mut dice = Dice(seed);
    let (mut rounds, mut judged, mut refused, mut crossing, mut satisfied) = (0, 0, 0, 0, 0);
    while judged < wanted {
        let pd = Pd::start().await.unwrap();
        let first = FakeStore { id: 1, labels: vec![("zone".into(), "z1".into())] };
        let mut stores = FakeStores::join(&pd, &first).await.unwrap();
        let mut known = vec![Labels::new(first.labels)];
        let judge = Judge { http: reqwest::Client::new(), base: format!("http://{}/pd/api/v1", pd.addr()) };
        for round in 1..=ROUNDS {
            if judged >= wanted {
                break;
            }
            rounds += 1;
            let first_store = round * 10 + 1;
            let mut own = Vec::new();
            for id in first_store..first_store + STORES {
                let store = FakeStore { id, labels: random_labels(&mut dice) };
                stores.put(&store).await.unwrap();
                let labels = Labels::new(store.labels);
                known.push(labels.clone());
                own.push(Store { id, labels });
            }
            let bundles = random_bundles(&mut dice);
            let list = RuleList::build(&bundles);
            let of_nobody = |rule: &Rule| !known.iter().any(|labels| admits(&rule.label_constraints, labels));
            let is_refused = list.is_err() || bundles.iter().flat_map(|bundle| &bundle.rules).any(of_nobody);
            let answer = judge.set(&bundles).await;
            assert_eq!(answer.is_err(), is_refused, "round {round}: {answer:?}, ours {list:?}\n{bundles:#?}");
            let Ok(list) = list else {
                refused += 1;
                continue;
            };
            if is_refused {
                refused += 1;
                continue;
            }
            let mut regions = Vec::new();
            let mut point = 0;
            while point < GRID {
                let width = if dice.one_in(5) { 2 } else { 1 };
                let end = point + width;
                let id = round * 1000 + regions.len() as u64;
                let (peers, leader) = random_peers(&mut dice, id, first_store);
                regions.push(FakeRegion {
                    id,
                    start: if point == 0 { Vec::new() } else { key(point) },
                    end: if end >= GRID { Vec::new() } else { key(end) },
                    version: round + 1,
                    peers,
                    leader,
                });
                point = end;
            }
            assert!(regions.len() as u64 <= REGIONS);
            for region in &regions {
                stores.report(region).await.unwrap();
            }
            for region in &regions {
                let detail = judge.detail(region).await;
                let rules = list.of(&region.start, &region.end);
                let peers: Vec<Peer> = region
                    .peers
                    .iter()
                    .enumerate()
                    .map(|(at, peer)| Peer {
                        id: peer.id,
                        store: peer.store,
                        is_learner: peer.is_learner,
                        is_witness: peer.is_witness,
                        is_leader: at == region.leader,
                        health: match (peer.is_down, peer.is_pending) {
                            (true, _) => Health::Down,
                            (_, true) => Health::Pending,
                            _ => Health::Healthy,
                        },
                    })
                    .collect();
                let ours = fit(&own.iter().collect::<Vec<_>>(), &peers, rules, false).unwrap();
                let (ours_told, theirs) = (told(rules, &ours), told_by_pd(&detail));
                assert_eq!(
                    ours_told,
                    theirs,
                    "TIDEMILL_SEED={seed}, round {round}, region from {}\nstores {own:#?}\nrules {rules:#?}\npeers {peers:#?}",
                    hex::encode(&region.start)
                );
                judged += 1;
                crossing += u64::from(rules.is_empty());
                satisfied += u64::from(ours.is_satisfied());
            }
        }
    }
    println!(
        "{judged} regions in {rounds} rounds, {refused} sets refused by both, {crossing} regions across rules, {satisfied} satisfied"
    );
    assert!(crossing > 0 && satisfied > 0 && refused > 0, "the history is too tame to judge anything");
}
