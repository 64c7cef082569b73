//! What `mesh.yaml` says of rules, limits and lists of allowed statements, and what can be wrong with it.

use super::shape::{FLAG_NAMES, StatementKind, flag};
use super::window::Window;
use base::Span;
use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rules of a group, and limits of a group.
const RULES_MAX: usize = 10_000;
/// Of a name, which is a label of metrics.
const NAME_BYTES_MAX: usize = 64;
/// A compiled pattern's size in memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// The name under which the list of allowed statements is counted; no rule has it.
pub const ALLOW_LIST: &str = "allow_list";

/// One rule.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name in errors, status, logs and metrics: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// Which statements it is about. Every condition must hold; without any it is about every statement.
    #[serde(default, rename = "match")]
    #[schemars(extend("default" = {}))]
    pub matches: MatchConfig,
    /// What becomes of them.
    pub action: RuleAction,
    /// With `deny`: what the client is told besides the rule's name.
    #[serde(default)]
    pub message: Option<String>,
}

/// What a rule does with a statement that it matches.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// Error 1148, and the statement goes nowhere.
    Deny,
    /// It is counted, noted, and the next rule looked at.
    Observe,
    /// It passes, whatever the rules below and the list of allowed statements say. Limits hold.
    Allow,
}

impl RuleAction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Observe => "observe",
            Self::Allow => "allow",
        }
    }
}

impl LimitAction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Observe => "observe",
        }
    }
}

impl AllowMode {
    /// What becomes of a statement that is not on the list; `None` where nothing is counted.
    pub fn action(self) -> Option<&'static str> {
        match self {
            Self::Off | Self::Learn => None,
            Self::Observe => Some("observe"),
            Self::Enforce => Some("deny"),
        }
    }
}

/// Which statements: all conditions hold at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// Of these users, by the name that the client logged in with.
    #[schemars(extend("default" = []))]
    pub users: BTreeSet<String>,
    /// Of these kinds, by the verb; `EXPLAIN ANALYZE DELETE`, which runs, is of both kinds.
    #[schemars(extend("default" = []))]
    pub kinds: BTreeSet<StatementKind>,
    /// With `kinds` of `update` and `delete`: without a WHERE of its own that names anything. `WHERE 1 = 1` names nothing.
    #[schemars(extend("default" = false))]
    pub without_where: bool,
    /// In which any of these was seen, as `tidemill mesh explain` tells: `locking`, `into_file`, `waits`, `global_scope`, ….
    #[schemars(extend("default" = []))]
    pub seen: BTreeSet<String>,
    /// Of this digest: 16 hexadecimal digits, as `tidemill mesh digests --json` and `explain` tell. Not with `allow`: a digest can
    /// be forged.
    pub digest: Option<String>,
    /// A regular expression over the statement as `tidemill mesh explain` shows it: literals left out, names in backticks. The case of
    /// letters is not looked at. With `allow` the whole statement must match, otherwise any part of it.
    #[schemars(with = "Option<String>")]
    pub pattern: Option<Pattern>,
    /// Between these hours of the day: `09:00-18:00`, also over midnight.
    pub hours: Option<String>,
    /// On these days. Of `hours` over midnight, the day on which they began counts.
    #[schemars(extend("default" = []))]
    pub days: BTreeSet<Day>,
    /// Whose clock `hours` and `days` go by, like `Asia/Shanghai`; the system's by default.
    pub timezone: Option<String>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are days")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// One limit. All that match hold at once.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// Its name in errors, status, logs and metrics: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// Which statements it is about; every one without it.
    #[serde(default, rename = "match")]
    #[schemars(extend("default" = {}))]
    pub matches: MatchConfig,
    /// For `concurrency` and `rate`: what is counted together.
    #[serde(default)]
    #[schemars(extend("default" = "all"))]
    pub per: LimitPer,
    /// Statements that run at once.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// How long a statement waits for its turn, where `concurrency` are running. At once by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub queue: Option<Span>,
    /// Statements in a time: `100/s`, `6000/m`. As many as come in one second may come at once.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub rate: Option<Rate>,
    /// After this the server is told to kill the statement, and the client gets error 3024.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub max_execution_time: Option<Span>,
    /// After so many rows the answer ends with error 1226.
    #[serde(default)]
    pub max_result_rows: Option<u64>,
    /// `observe` counts and notes what would have been refused, and lets it pass.
    #[serde(default)]
    #[schemars(extend("default" = "deny"))]
    pub action: LimitAction,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LimitPer {
    /// Everything that matches.
    #[default]
    All,
    /// The statements of each user.
    User,
    /// The calls of each statement, its literals left out.
    Digest,
}

/// What becomes of a statement that is too many.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LimitAction {
    /// It is refused, or ended.
    #[default]
    Deny,
    /// It passes, and is noted.
    Observe,
}

/// So many in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_second: f64,
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no rate: write how many in which time, like 100/s, 6000/m or 50/h");
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let count: u32 = count.trim().parse().map_err(|_| bad())?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        if count == 0 {
            return Err(bad());
        }
        Ok(Self { per_second: f64::from(count) / seconds })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A list of the statements that may pass.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AllowListConfig {
    /// `learn` remembers what comes, for `tidemill mesh learn`; `observe` notes what is not on the list; `enforce` refuses it.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub mode: AllowMode,
    /// The list, which `tidemill mesh learn --write` writes: a YAML file that is reviewed and kept beside this one.
    pub file: PathBuf,
    /// What the file holds; whoever reads `mesh.yaml` fills it.
    #[serde(skip)]
    pub statements: Vec<AllowedStatement>,
}

/// What a list of allowed statements is for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AllowMode {
    /// Nothing.
    #[default]
    Off,
    /// Statements that come are remembered.
    Learn,
    /// What is not on the list is noted, and passes.
    Observe,
    /// What is not on the list is refused with error 1148, unless a rule allows it.
    Enforce,
}

/// The file of a list.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AllowFile {
    /// Every statement once.
    #[serde(default)]
    pub statements: Vec<AllowedStatement>,
}

/// A statement of a list: digest and text must both be its own.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AllowedStatement {
    /// Who may send it; everybody, where it is empty.
    #[serde(default)]
    pub users: BTreeSet<String>,
    /// 16 hexadecimal digits.
    pub digest: String,
    /// With its literals left out.
    pub text: String,
}

/// A regular expression, compiled when it is read.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    pub regex: Arc<Regex>,
}

/// What was compiled before: a file that is read again has mostly the same patterns.
static COMPILED: Mutex<BTreeMap<String, Arc<Regex>>> = Mutex::new(BTreeMap::new());

impl Pattern {
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: String) -> Result<Self, regex::Error> {
        let known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner).get(&text).cloned();
        if let Some(regex) = known {
            return Ok(Self { text, regex });
        }
        let regex = RegexBuilder::new(&text)
            .case_insensitive(true)
            .dot_matches_new_line(true)
            .size_limit(PATTERN_BYTES_MAX)
            .build()?;
        let regex = Arc::new(regex);
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= RULES_MAX {
            compiled.clear();
        }
        compiled.insert(text.clone(), regex.clone());
        Ok(Self { text, regex })
    }

    /// The same for a whole text.
    ///
    /// # Errors
    /// Where it becomes too large by that.
    pub fn whole(&self) -> Result<Self, regex::Error> {
        Self::new(format!("^(?:{})$", self.text))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Reads a digest.
pub fn digest(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// What is wrong with the rules of a group: each with the key and what to do.
pub fn problems(
    rules: &[RuleConfig],
    limits: &[LimitConfig],
    allow_list: Option<&AllowListConfig>,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, count) in [("rules", rules.len()), ("limits", limits.len())] {
        if count > RULES_MAX {
            found.push((
                format!("`{key}` has {count} entries"),
                format!("at most {RULES_MAX}; a pattern can stand for many statements"),
            ));
        }
    }
    let mut names = BTreeSet::from([ALLOW_LIST]);
    let all = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| (format!("rules[{index}]"), &rule.name))
        .chain(limits.iter().enumerate().map(|(index, limit)| (format!("limits[{index}]"), &limit.name)));
    for (key, name) in all {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            found.push((
                format!("{key}.name: `{name}` is no name of a rule"),
                format!(
                    "letters, digits, `_`, `-` and `.`, at most {NAME_BYTES_MAX}: it is a label of metrics"
                ),
            ));
        }
        if !names.insert(name) {
            found.push((
                format!("{key}.name: `{name}` is there twice, or taken"),
                "give each a name of its own".into(),
            ));
        }
    }
    for (index, rule) in rules.iter().enumerate() {
        let key = format!("rules[{index}] `{}`", rule.name);
        let mut add = |path: &str, message: String, hint: &str| {
            found.push((format!("{key}: {path}: {message}"), hint.to_owned()));
        };
        if rule.action != RuleAction::Deny && rule.message.is_some() {
            add("message", "`message` is for `action: deny` alone".into(), "leave it out");
        }
        if rule.action == RuleAction::Allow && rule.matches.digest.is_some() {
            add(
                "match.digest",
                "a `digest` can be forged, so it allows nothing".into(),
                "allow by a `pattern`, or put the statement on the `allow_list`",
            );
        }
        matches_problems(&rule.matches, &mut add);
    }
    for (index, limit) in limits.iter().enumerate() {
        let key = format!("limits[{index}] `{}`", limit.name);
        let mut add = |path: &str, message: String, hint: &str| {
            found.push((format!("{key}: {path}: {message}"), hint.to_owned()));
        };
        matches_problems(&limit.matches, &mut add);
        let LimitConfig { concurrency, queue, rate, max_execution_time, max_result_rows, .. } = limit;
        if concurrency.is_none()
            && rate.is_none()
            && max_execution_time.is_none()
            && max_result_rows.is_none()
        {
            add(
                "concurrency",
                format!("`{}` limits nothing", limit.name),
                "give it `concurrency`, `rate`, `max_execution_time` or `max_result_rows`",
            );
        }
        if *concurrency == Some(0) {
            add(
                "concurrency",
                "`concurrency: 0` lets nothing run".into(),
                "a rule with `action: deny` does that",
            );
        }
        if queue.is_some() && concurrency.is_none() {
            add("queue", "`queue` needs `concurrency`".into(), "concurrency: 20");
        }
        if max_execution_time.is_some_and(|span| span.0 < Duration::from_millis(1)) {
            add("max_execution_time", "`max_execution_time` is no time".into(), "max_execution_time: 5s");
        }
    }
    if let Some(list) = allow_list {
        for (index, statement) in list.statements.iter().enumerate() {
            if digest(&statement.digest).is_none() {
                found.push((
                    format!(
                        "allow_list: {}: statements[{index}].digest: `{}` is no digest",
                        list.file.display(),
                        statement.digest
                    ),
                    "16 hexadecimal digits, as `tidemill mesh learn` writes them".into(),
                ));
            }
        }
    }
    found
}

fn matches_problems(matches: &MatchConfig, add: &mut impl FnMut(&str, String, &str)) {
    if matches.without_where
        && (matches.kinds.is_empty()
            || matches
                .kinds
                .iter()
                .any(|kind| !matches!(kind, StatementKind::Update | StatementKind::Delete)))
    {
        add(
            "match.without_where",
            "`without_where` is told of UPDATE and DELETE alone".into(),
            "kinds: [update, delete]",
        );
    }
    if let Some(text) = &matches.digest
        && digest(text).is_none()
    {
        add(
            "match.digest",
            format!("`{text}` is no digest"),
            "16 hexadecimal digits in quotes, as `tidemill mesh explain SQL` tells",
        );
    }
    for name in matches.seen.iter().filter(|name| flag(name).is_none()) {
        add(
            "match.seen",
            format!("nothing is called `{name}`"),
            &format!("these are: {}", FLAG_NAMES.join(", ")),
        );
    }
    if let Err(reason) = Window::new(matches) {
        add("match.hours", reason, "hours: \"09:00-18:00\", days: [mon, tue], timezone: Asia/Shanghai");
    }
}
