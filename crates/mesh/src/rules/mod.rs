//! Rules of a group: which statements pass, which are refused, and how many at once.
//!
//! ```text
//! text ─ find (once for each statement and plan) ─ judge (user, time) ─ Ruling
//! ```
//! What hangs on the statement alone is found once and kept by its text, so that a thousand rules cost what the few cost that
//! match. A statement that cannot be read as one whole statement is refused where a rule that refuses, or an enforced list,
//! could apply to its user. Nothing here knows of sockets.

mod config;
mod limit;
mod notes;
mod shape;
mod window;

pub use config::{
    ALLOW_LIST, AllowFile, AllowListConfig, AllowMode, AllowedStatement, Day, LimitAction, LimitConfig,
    LimitPer, MatchConfig, Pattern, Rate, RuleAction, RuleConfig, problems,
};
pub use limit::{Counting, TooMany, Turn};
pub use notes::{Met, Noted};
pub use shape::{Facts, StatementKind, UNCERTAIN};

use crate::config::GroupConfig;
use crate::error::MeshError;
use jiff::Timestamp;
use notes::{Hits, Notes};
use serde::Serialize;
use shape::Shape;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use window::Window;

/// Parts of the table of what was found, so that threads do not wait for each other.
const SHARDS: usize = 16;
/// Statements that a part keeps; when it is full it begins anew.
const FOUND_MAX: usize = 1_000;
/// The longest text that is kept; a longer one is looked at each time.
const FOUND_TEXT_BYTES_MAX: usize = 2 * 1024;
/// Statements that are remembered while a list learns, and users of each.
const LEARNT_MAX: usize = 10_000;
/// Of their texts together.
const LEARNT_BYTES_MAX: usize = 16 << 20;

static IDS: AtomicU64 = AtomicU64::new(1);

/// What was found, by the text of the statement; the facts must be the same too.
type Shard = HashMap<Box<str>, (Facts, Arc<Found>)>;
/// Names as clients send them.
type Users = BTreeSet<Vec<u8>>;

/// The rules of a group, as one plan has them.
#[derive(Debug)]
pub struct Rules {
    /// No other plan's rules have it.
    pub id: u64,
    rules: Vec<Rule>,
    limits: Vec<Limit>,
    allow: Option<Allow>,
    notes: Arc<Notes>,
    shards: Box<[Mutex<Shard>]>,
    /// All of them: what a statement that cannot be read may be.
    everything: Arc<Found>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    action: RuleAction,
    message: Option<String>,
    who: Who,
    shape: Shape,
    hits: Arc<Hits>,
}

/// A limit, ready to be asked.
#[derive(Debug)]
pub struct Limit {
    pub counting: Arc<Counting>,
    who: Who,
    shape: Shape,
    hits: Arc<Hits>,
}

impl Limit {
    pub fn name(&self) -> &str {
        &self.counting.config.name
    }

    pub fn observes(&self) -> bool {
        self.counting.config.action == LimitAction::Observe
    }
}

/// The conditions that hang on the session and the clock.
#[derive(Debug)]
struct Who {
    users: Users,
    window: Option<Window>,
}

impl Who {
    fn new(matches: &MatchConfig) -> Result<Self, String> {
        let users = matches.users.iter().map(|user| user.clone().into_bytes()).collect();
        Ok(Self { users, window: Window::new(matches)? })
    }

    fn is(&self, user: &[u8]) -> bool {
        self.users.is_empty() || self.users.contains(user)
    }

    /// Why it does not hold.
    fn differs(&self, user: Option<&[u8]>, now: Timestamp) -> Option<&'static str> {
        if !self.users.is_empty() && user.is_none_or(|user| !self.users.contains(user)) {
            return Some("it is for other users");
        }
        self.window
            .as_ref()
            .is_some_and(|window| !window.holds(now))
            .then_some("it is not the hour, or the day")
    }
}

/// The list of allowed statements.
#[derive(Debug)]
struct Allow {
    mode: AllowMode,
    /// By text and digest; who may send it, or everybody.
    statements: HashMap<(Box<str>, u64), Arc<Users>>,
    learnt: Arc<Mutex<Learnt>>,
    hits: Arc<Hits>,
}

/// What has come while a list learns.
#[derive(Debug, Default)]
struct Learnt {
    statements: BTreeMap<(String, u64), BTreeSet<String>>,
    /// Of the texts.
    bytes: usize,
    /// What did not fit, or cannot be on a list.
    left_out: u64,
}

/// What hangs on a statement alone.
#[derive(Debug, Default)]
pub struct Found {
    rules: Box<[u32]>,
    limits: Box<[u32]>,
    /// Who may send it by the list; nobody where there is none.
    allowed: Option<Arc<Users>>,
}

/// A statement that is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub user: &'a [u8],
    pub facts: &'a Facts,
    pub text: &'a str,
    pub now: Timestamp,
}

/// Why a statement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub rule: String,
    pub reason: String,
}

impl Rules {
    /// The rules of a group; `None` where it has none. Counts of the same names live on.
    ///
    /// # Errors
    /// A pattern that is too large.
    pub fn new(group: &str, config: &GroupConfig, before: Option<&Rules>) -> Result<Option<Self>, MeshError> {
        let allow_list = config.allow_list.as_ref().filter(|list| list.mode != AllowMode::Off);
        if config.rules.is_empty() && config.limits.is_empty() && allow_list.is_none() {
            return Ok(None);
        }
        let known: HashMap<&str, &Arc<Hits>> = before.map(Rules::hits).unwrap_or_default();
        let hits = |name: &str| known.get(name).map(|hits| (*hits).clone()).unwrap_or_default();
        let bad = |key: String| move |reason: String| MeshError::Rule { key, reason };
        let mut rules = Vec::with_capacity(config.rules.len());
        for (index, rule) in config.rules.iter().enumerate() {
            let key = || format!("group `{group}`: rules[{index}] `{}`: match", rule.name);
            rules.push(Rule {
                name: rule.name.clone(),
                action: rule.action,
                message: rule.message.clone(),
                who: Who::new(&rule.matches).map_err(bad(key()))?,
                shape: Shape::new(&rule.matches, rule.action == RuleAction::Allow)
                    .map_err(|error| error.to_string())
                    .map_err(bad(key()))?,
                hits: hits(&rule.name),
            });
        }
        let mut limits = Vec::with_capacity(config.limits.len());
        for (index, limit) in config.limits.iter().enumerate() {
            let key = || format!("group `{group}`: limits[{index}] `{}`: match", limit.name);
            let same = before.and_then(|before| {
                before
                    .limits
                    .iter()
                    .find(|known| known.counting.config == *limit)
                    .map(|known| known.counting.clone())
            });
            limits.push(Limit {
                counting: same.unwrap_or_else(|| Arc::new(Counting::new(limit.clone()))),
                who: Who::new(&limit.matches).map_err(bad(key()))?,
                shape: Shape::new(&limit.matches, false)
                    .map_err(|error| error.to_string())
                    .map_err(bad(key()))?,
                hits: hits(&limit.name),
            });
        }
        let learnt = before.and_then(|before| before.allow.as_ref()).map(|allow| allow.learnt.clone());
        let allow = allow_list.map(|list| Allow {
            mode: list.mode,
            statements: list
                .statements
                .iter()
                .filter_map(|statement| {
                    let users = statement.users.iter().map(|user| user.clone().into_bytes()).collect();
                    Some((
                        (statement.text.as_str().into(), config::digest(&statement.digest)?),
                        Arc::new(users),
                    ))
                })
                .collect(),
            learnt: learnt.unwrap_or_default(),
            hits: hits(ALLOW_LIST),
        });
        let all = |count: usize| (0..u32::try_from(count).unwrap_or(u32::MAX)).collect();
        Ok(Some(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            everything: Arc::new(Found { rules: all(rules.len()), limits: all(limits.len()), allowed: None }),
            rules,
            limits,
            allow,
            notes: before.map_or_else(|| Arc::new(Notes::new(group)), |before| before.notes.clone()),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }))
    }

    fn hits(&self) -> HashMap<&str, &Arc<Hits>> {
        let rules = self.rules.iter().map(|rule| (rule.name.as_str(), &rule.hits));
        let limits = self.limits.iter().map(|limit| (limit.name(), &limit.hits));
        let allow = self.allow.iter().map(|allow| (ALLOW_LIST, &allow.hits));
        rules.chain(limits).chain(allow).collect()
    }

    /// Whether anything here is about a user.
    pub fn concern(&self, user: &[u8]) -> bool {
        self.allow.is_some()
            || self.rules.iter().any(|rule| rule.who.is(user))
            || self.limits.iter().any(|limit| limit.who.is(user))
    }

    /// What hangs on the statement alone; looked up where it was found before.
    pub fn find(&self, thread: usize, facts: &Facts, text: &str) -> Arc<Found> {
        if facts.doubt.is_some() {
            return self.everything.clone();
        }
        let mut shard = self.shards[thread % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, found)) = shard.get(text)
            && known == facts
        {
            return found.clone();
        }
        let found = Arc::new(self.look(facts, text));
        if text.len() <= FOUND_TEXT_BYTES_MAX {
            if shard.len() >= FOUND_MAX {
                shard.clear();
            }
            shard.insert(text.into(), (*facts, found.clone()));
        }
        found
    }

    fn look(&self, facts: &Facts, text: &str) -> Found {
        let is = |shape: &Shape| shape.differs(facts, text).is_none();
        let allowed = self.allow.as_ref().filter(|allow| !allow.statements.is_empty());
        Found {
            rules: numbers(self.rules.iter().map(|rule| is(&rule.shape))),
            limits: numbers(self.limits.iter().map(|limit| is(&limit.shape))),
            allowed: allowed.and_then(|allow| allow.statements.get(&(text.into(), facts.digest)).cloned()),
        }
    }

    /// Judges a statement; notes what rules that observe, and rules that refuse, have met.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn judge(&self, subject: Subject<'_>, found: &Found) -> Result<(), Refusal> {
        for index in &found.rules {
            let Some(rule) = self.rules.get(*index as usize) else { continue };
            if rule.who.differs(Some(subject.user), subject.now).is_some() {
                continue;
            }
            let doubt = subject.facts.doubt.filter(|_| !rule.shape.is_any());
            match rule.action {
                // What cannot be read may be something else than what is allowed.
                RuleAction::Allow if doubt.is_some() => {}
                RuleAction::Allow => {
                    rule.hits.pass();
                    return Ok(());
                }
                RuleAction::Observe => self.note(&rule.hits, &rule.name, "observe", &why(doubt), subject),
                RuleAction::Deny => {
                    let reason = match (&rule.message, doubt) {
                        (Some(message), None) => message.clone(),
                        _ => why(doubt),
                    };
                    self.note(&rule.hits, &rule.name, "deny", &reason, subject);
                    return Err(Refusal { rule: rule.name.clone(), reason });
                }
            }
        }
        let Some(allow) = &self.allow else { return Ok(()) };
        if allow.mode == AllowMode::Learn {
            allow.learn(subject);
            return Ok(());
        }
        if found.allowed.as_ref().is_some_and(|users| users.is_empty() || users.contains(subject.user)) {
            return Ok(());
        }
        let reason = match subject.facts.doubt {
            Some(doubt) => format!("it cannot be on the list: {doubt}"),
            None => "it is not on the list".to_owned(),
        };
        let action = if allow.mode == AllowMode::Enforce { "deny" } else { "observe" };
        self.note(&allow.hits, ALLOW_LIST, action, &reason, subject);
        match allow.mode {
            AllowMode::Enforce => Err(Refusal { rule: ALLOW_LIST.to_owned(), reason }),
            _ => Ok(()),
        }
    }

    /// The limits that hold for a statement.
    pub fn limits<'a>(&'a self, subject: Subject<'a>, found: &'a Found) -> impl Iterator<Item = &'a Limit> {
        let limits = found.limits.iter().filter_map(|index| self.limits.get(*index as usize));
        limits.filter(move |limit| limit.who.differs(Some(subject.user), subject.now).is_none())
    }

    /// Notes a statement that a limit refused, ended, or would have.
    pub fn over(&self, limit: &Limit, reason: &str, subject: Subject<'_>) {
        let action = limit.counting.config.action.name();
        self.note(&limit.hits, limit.name(), action, reason, subject);
    }

    fn note(&self, hits: &Hits, rule: &str, action: &'static str, reason: &str, subject: Subject<'_>) {
        let Subject { user, facts, text, .. } = subject;
        // Where it is not sure what is a literal, nothing is kept of it.
        let text = if facts.doubt == Some(shape::UNCERTAIN) { "" } else { text };
        self.notes.add(hits, Met { rule, action, reason, user, digest: facts.digest, text });
    }

    pub fn noted(&self) -> Vec<Noted> {
        self.notes.list()
    }

    pub fn status(&self) -> RulesStatus {
        RulesStatus {
            rules: self
                .rules
                .iter()
                .map(|rule| RuleStatus {
                    name: rule.name.clone(),
                    action: rule.action,
                    hits: rule.hits.count(),
                })
                .collect(),
            limits: self
                .limits
                .iter()
                .map(|limit| {
                    let (running, waiting) = limit.counting.now();
                    LimitStatus {
                        name: limit.name().to_owned(),
                        action: limit.counting.config.action,
                        hits: limit.hits.count(),
                        running,
                        waiting,
                    }
                })
                .collect(),
            allow_list: self.allow.as_ref().map(|allow| {
                let learnt = allow.learnt.lock().unwrap_or_else(PoisonError::into_inner);
                AllowListStatus {
                    mode: allow.mode,
                    statements: allow.statements.len(),
                    learnt: learnt.statements.len(),
                    left_out: learnt.left_out,
                    hits: allow.hits.count(),
                }
            }),
        }
    }

    /// The list of before with all that has been learnt since.
    pub fn learnt(&self, before: &[AllowedStatement]) -> AllowFile {
        let mut all: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
        let mut for_all = BTreeSet::new();
        for statement in before {
            let Some(digest) = config::digest(&statement.digest) else { continue };
            let key = (statement.text.clone(), digest);
            if statement.users.is_empty() {
                for_all.insert(key.clone());
            }
            all.entry(key).or_default().extend(statement.users.iter().cloned());
        }
        if let Some(allow) = &self.allow {
            let learnt = allow.learnt.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, users) in &learnt.statements {
                all.entry(key.clone()).or_default().extend(users.iter().cloned());
            }
        }
        let statements = all.into_iter().map(|((text, digest), users)| AllowedStatement {
            users: if for_all.contains(&(text.clone(), digest)) { BTreeSet::new() } else { users },
            digest: format!("{digest:016x}"),
            text,
        });
        AllowFile { statements: statements.collect() }
    }

    /// What every rule says of a statement. Nothing is counted.
    pub fn explain(&self, user: Option<&str>, facts: &Facts, text: &str, now: Timestamp) -> Verdict {
        let mut verdict = Verdict {
            action: "pass",
            rule: None,
            reason: "no rule is about it".into(),
            rules: Vec::new(),
            limits: Vec::new(),
        };
        let mut is_decided = false;
        let user_bytes = user.map(str::as_bytes);
        let says = |who: &Who, shape: &Shape| -> (bool, String) {
            let doubt = facts.doubt.filter(|_| !shape.is_any());
            match who.differs(user_bytes, now) {
                Some("it is for other users") if user.is_none() => {
                    let names: Vec<_> = who.users.iter().map(|user| String::from_utf8_lossy(user)).collect();
                    (false, format!("it is for users: {}", names.join(", ")))
                }
                Some(why) => (false, why.to_owned()),
                None => match doubt {
                    Some(_) => (true, why(doubt)),
                    None => match shape.differs(facts, text) {
                        Some(why) => (false, why.to_owned()),
                        None => (true, "it matches".to_owned()),
                    },
                },
            }
        };
        for rule in &self.rules {
            let (mut matches, reason) = says(&rule.who, &rule.shape);
            matches &= rule.action != RuleAction::Allow || facts.doubt.is_none() || rule.shape.is_any();
            if matches && !is_decided {
                let action = rule.action.name();
                if rule.action != RuleAction::Observe || verdict.action == "pass" {
                    verdict.action = action;
                    verdict.rule = Some(rule.name.clone());
                    verdict.reason = rule
                        .message
                        .clone()
                        .filter(|_| facts.doubt.is_none())
                        .unwrap_or_else(|| reason.clone());
                }
                is_decided = rule.action != RuleAction::Observe;
            }
            verdict.rules.push(Says { name: rule.name.clone(), matches, reason });
        }
        if let Some(allow) = &self.allow {
            let found = self.look(facts, text);
            let listed = facts.doubt.is_none()
                && found.allowed.as_ref().is_some_and(|users| {
                    users.is_empty() || user_bytes.is_some_and(|user| users.contains(user))
                });
            let reason = if listed { "it is on the list" } else { "it is not on the list" };
            if !listed && !is_decided && matches!(allow.mode, AllowMode::Enforce | AllowMode::Observe) {
                let enforces = allow.mode == AllowMode::Enforce;
                if enforces || verdict.action == "pass" {
                    verdict.action = if enforces { "deny" } else { "observe" };
                    verdict.rule = Some(ALLOW_LIST.to_owned());
                    verdict.reason = reason.to_owned();
                }
            }
            verdict.rules.push(Says {
                name: ALLOW_LIST.to_owned(),
                matches: !listed,
                reason: reason.to_owned(),
            });
        }
        for limit in &self.limits {
            let (matches, reason) = says(&limit.who, &limit.shape);
            verdict.limits.push(Says { name: limit.name().to_owned(), matches, reason });
        }
        verdict
    }
}

impl Allow {
    fn learn(&self, subject: Subject<'_>) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if subject.facts.doubt.is_some() {
            learnt.left_out += 1;
            return;
        }
        if subject.text.is_empty() {
            // A long one that was learnt when it was prepared.
            return;
        }
        let key = (subject.text.to_owned(), subject.facts.digest);
        if !learnt.statements.contains_key(&key) {
            let bytes = learnt.bytes + key.0.len();
            if learnt.statements.len() >= LEARNT_MAX || bytes > LEARNT_BYTES_MAX {
                learnt.left_out += 1;
                return;
            }
            learnt.bytes = bytes;
        }
        let user = String::from_utf8_lossy(subject.user);
        let users = learnt.statements.entry(key).or_default();
        if users.len() < LEARNT_MAX && !users.contains(user.as_ref()) {
            users.insert(user.into_owned());
        }
    }
}

/// The numbers of those that are.
fn numbers(all: impl Iterator<Item = bool>) -> Box<[u32]> {
    (0..).zip(all).filter_map(|(number, is)| is.then_some(number)).collect()
}

/// Why a rule that matched decides.
fn why(doubt: Option<&str>) -> String {
    match doubt {
        Some(doubt) => format!("it cannot be read as one whole statement: {doubt}"),
        None => "it matches".to_owned(),
    }
}

/// What `tidemill mesh status` tells of the rules of a group.
#[derive(Clone, Debug, Serialize)]
pub struct RulesStatus {
    pub rules: Vec<RuleStatus>,
    pub limits: Vec<LimitStatus>,
    pub allow_list: Option<AllowListStatus>,
}

impl RulesStatus {
    /// Rule, action and hits of each rule, limit and the list.
    pub fn hits(&self) -> Vec<(&str, &'static str, u64)> {
        let rules = self.rules.iter().map(|rule| (rule.name.as_str(), rule.action.name(), rule.hits));
        let limits = self.limits.iter().map(|limit| (limit.name.as_str(), limit.action.name(), limit.hits));
        let list =
            self.allow_list.iter().filter_map(|list| Some((ALLOW_LIST, list.mode.action()?, list.hits)));
        rules.chain(limits).chain(list).collect()
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct RuleStatus {
    pub name: String,
    pub action: RuleAction,
    /// Statements that it decided on or noted, since the start.
    pub hits: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct LimitStatus {
    pub name: String,
    pub action: LimitAction,
    /// Statements that were too many, too long or too large, since the start.
    pub hits: u64,
    /// With `concurrency`: now.
    pub running: usize,
    pub waiting: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct AllowListStatus {
    pub mode: AllowMode,
    /// On the list.
    pub statements: usize,
    /// Remembered since the start, with `learn`.
    pub learnt: usize,
    /// Statements that cannot be on a list, or found no room, with `learn`.
    pub left_out: u64,
    /// Statements that were not on the list.
    pub hits: u64,
}

/// What would become of a statement.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Verdict {
    /// `pass`, `allow`, `observe` or `deny`.
    pub action: &'static str,
    pub rule: Option<String>,
    pub reason: String,
    /// Every rule, in order, and the list.
    pub rules: Vec<Says>,
    pub limits: Vec<Says>,
}

/// What one rule says of a statement.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Says {
    pub name: String,
    /// Whether it would act.
    pub matches: bool,
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql::sql::{Modes, scan, whole_digest_text};

    fn rules(group: serde_json::Value, before: Option<&Rules>) -> Rules {
        let mut group = group;
        group["backends"] = serde_json::json!([{"addr": "127.0.0.1:1"}]);
        let config: GroupConfig = serde_json::from_value(group).unwrap();
        assert_eq!(problems(&config.rules, &config.limits, config.allow_list.as_ref()), []);
        Rules::new("shop", &config, before).unwrap().unwrap()
    }

    fn read(sql: &str) -> (Facts, String) {
        let mut text = String::new();
        whole_digest_text(sql.as_bytes(), &mut text, Modes::default());
        (Facts::of(&scan(sql.as_bytes(), Modes::default())), text)
    }

    /// The rule that refuses a statement.
    fn judge(rules: &Rules, user: &str, sql: &str) -> Option<String> {
        let (facts, text) = read(sql);
        let now = Timestamp::now();
        let subject = Subject { user: user.as_bytes(), facts: &facts, text: &text, now };
        let judged = rules.judge(subject, &rules.find(0, &facts, &text)).err().map(|refusal| refusal.rule);
        let explained = rules.explain(Some(user), &facts, &text, now);
        let refuses = (explained.action == "deny").then_some(explained.rule).flatten();
        assert_eq!(judged, refuses, "{sql} is explained as it is judged");
        judged
    }

    #[test]
    fn the_first_rule_that_decides_counts_and_one_that_observes_decides_nothing() {
        let rules = rules(
            serde_json::json!({"rules": [
                {"name": "seen", "match": {"kinds": ["delete"]}, "action": "observe"},
                {"name": "boss", "match": {"users": ["boss"]}, "action": "allow"},
                {"name": "fine", "match": {"pattern": "delete from `t` where `id` = \\?"}, "action": "allow"},
                {"name": "no", "match": {"kinds": ["delete"]}, "action": "deny"},
                {"name": "robot", "match": {"users": ["robot"]}, "action": "deny"},
            ]}),
            None,
        );
        assert_eq!(judge(&rules, "app", "delete from u where id = 1").as_deref(), Some("no"));
        assert_eq!(judge(&rules, "app", "delete from t where id = 1"), None);
        assert_eq!(judge(&rules, "app", "delete from t where id = 1 or 1").as_deref(), Some("no"));
        assert_eq!(judge(&rules, "boss", "delete from u"), None);
        assert_eq!(judge(&rules, "app", "select 1"), None);
        assert_eq!(judge(&rules, "robot", "select 1").as_deref(), Some("robot"));
        // What cannot be read may be anything that is refused, and is nothing that is allowed by its text.
        for sql in ["select 1; select 2", "prepare s from 'x'", "nonsense", "select 1 /*!99999 x */"] {
            assert_eq!(judge(&rules, "app", sql).as_deref(), Some("no"), "{sql}");
            assert_eq!(judge(&rules, "boss", sql), None, "{sql}");
        }
        let hits: Vec<_> = rules.status().rules.iter().map(|rule| rule.hits).collect();
        assert_eq!(hits, [3 + 1 + 8, 1 + 4, 1, 2 + 4, 1]);
        assert!(rules.concern(b"anyone"));
    }

    #[test]
    fn what_was_found_is_found_again_and_never_for_another_statement() {
        let rules = rules(
            serde_json::json!({"rules": [{"name": "no", "match": {"kinds": ["delete"], "without_where": true}, "action": "deny"}]}),
            None,
        );
        let (facts, text) = read("delete from t");
        let first = rules.find(0, &facts, &text);
        assert!(Arc::ptr_eq(&first, &rules.find(0, &facts, &text)));
        // The same text with other facts, as no statement should have: it is looked at anew.
        let other = Facts { has_where: true, ..facts };
        assert!(rules.find(0, &other, &text).rules.is_empty());
        assert_eq!(rules.find(0, &facts, &text).rules.len(), 1);
        for number in 0..FOUND_MAX + 10 {
            let (facts, text) = read(&format!("select a{number} from t"));
            rules.find(3, &facts, &text);
        }
        assert!(rules.shards.iter().all(|shard| shard.lock().unwrap().len() <= FOUND_MAX));
    }

    #[test]
    fn a_list_needs_the_statements_own_digest_and_user() {
        let listed = |sql: &str, users: &[&str]| {
            let (facts, text) = read(sql);
            let users = users.iter().map(ToString::to_string).collect();
            AllowedStatement { users, digest: format!("{:016x}", facts.digest), text }
        };
        let mut forged = listed("select 3 from dual", &[]);
        forged.text = read("select a from secret").1;
        let group = serde_json::json!({"backends": [], "allow_list": {"mode": "enforce", "file": "x"}});
        let mut config: GroupConfig = serde_json::from_value(group).unwrap();
        config.allow_list.as_mut().unwrap().statements =
            vec![listed("select a from t", &["app"]), listed("select b from t", &[]), forged];
        let rules = Rules::new("shop", &config, None).unwrap().unwrap();
        assert_eq!(judge(&rules, "app", "SELECT a FROM t"), None);
        assert_eq!(judge(&rules, "other", "select a from t").as_deref(), Some(ALLOW_LIST));
        assert_eq!(judge(&rules, "other", "select b from t"), None);
        assert_eq!(judge(&rules, "app", "select a from secret").as_deref(), Some(ALLOW_LIST));
        assert_eq!(judge(&rules, "app", "select b from t; select b from t").as_deref(), Some(ALLOW_LIST));
        // Learning refuses nothing, and keeps what the list had.
        config.allow_list.as_mut().unwrap().mode = AllowMode::Learn;
        let learning = Rules::new("shop", &config, Some(&rules)).unwrap().unwrap();
        assert_eq!(judge(&learning, "app", "select c from t"), None);
        assert_eq!(judge(&learning, "app", "select 1; select 2"), None);
        let learnt = learning.learnt(&config.allow_list.as_ref().unwrap().statements);
        assert_eq!(learnt.statements.len(), 4);
        let status = learning.status().allow_list.unwrap();
        assert_eq!((status.learnt, status.left_out, status.hits), (1, 1, 3));
    }

    #[test]
    fn mistakes_are_told_with_their_key() {
        let told = |group: serde_json::Value| {
            let mut group = group;
            group["backends"] = serde_json::json!([]);
            let config: GroupConfig = serde_json::from_value(group).unwrap();
            let found = problems(&config.rules, &config.limits, config.allow_list.as_ref());
            found.into_iter().map(|(message, _)| message).collect::<Vec<_>>().join("\n")
        };
        let rule = |matches: serde_json::Value, action: &str| {
            told(serde_json::json!({"rules": [{"name": "r", "match": matches, "action": action}]}))
        };
        for (message, start) in [
            (rule(serde_json::json!({"without_where": true}), "deny"), "rules[0] `r`: match.without_where: "),
            (rule(serde_json::json!({"digest": "zz"}), "deny"), "rules[0] `r`: match.digest: "),
            (
                rule(serde_json::json!({"digest": "0123456789abcdef"}), "allow"),
                "rules[0] `r`: match.digest: a `digest` can be forged",
            ),
            (rule(serde_json::json!({"seen": ["nonsense"]}), "deny"), "rules[0] `r`: match.seen: "),
            (rule(serde_json::json!({"hours": "9-5"}), "deny"), "rules[0] `r`: match.hours: "),
            (rule(serde_json::json!({"timezone": "UTC"}), "deny"), "rules[0] `r`: match.hours: `timezone`"),
            (told(serde_json::json!({"limits": [{"name": "l"}]})), "limits[0] `l`: concurrency: "),
            (
                told(serde_json::json!({"limits": [{"name": "l", "concurrency": 0}]})),
                "limits[0] `l`: concurrency: ",
            ),
            (
                told(serde_json::json!({"limits": [{"name": "l", "rate": "1/s", "queue": "1s"}]})),
                "limits[0] `l`: queue: ",
            ),
            (
                told(serde_json::json!({"limits": [{"name": "allow_list", "rate": "1/s"}]})),
                "limits[0].name: ",
            ),
            (told(serde_json::json!({"limits": [{"name": "a b", "rate": "1/s"}]})), "limits[0].name: "),
        ] {
            assert!(message.starts_with(start), "{message}");
        }
        for bad in ["0/s", "1/d", "x/s", "1", "-1/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        let bad = serde_json::from_str::<MatchConfig>(r#"{"pattern": "("}"#).unwrap_err();
        assert!(bad.to_string().contains("unclosed group"), "{bad}");
    }
}
