//! The tokens of a node: made, shown once, looked up by their digest, revoked.
//!
//! A token is `tidemill_` and 256 random bits in base64url. It is looked up by its SHA-256 in a hash table with a key of its
//! own. How long that takes tells nothing that helps to guess: who has no token cannot choose its digest.

use super::caller::{Caller, Grant, Scope, TokenId};
use base::{Code, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::{Catalog, CatalogError, TOKENS_MAX, Token};
use flow::config::FlowConfig;
use flow::transform::Transform;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// What every token begins with, so that scanners for leaked secrets know it.
pub(super) const PREFIX: &str = "tidemill_";
const RANDOM_BYTES: usize = 32;
/// 32 bytes in base64url.
pub(super) const RANDOM_CHARS: usize = 43;
/// When a token was used is noted no finer than this, so that requests do not write.
const USE_STEP_MS: i64 = 10 * 60 * 1000;
/// How often another process's writes to the catalog are looked for.
const OTHERS_INTERVAL: Duration = Duration::from_secs(2);
const NAME_CHARS_MAX: usize = 100;
/// Tables that one token may name.
const TABLES_MAX: usize = 1000;
const RULE_BYTES_MAX: usize = 4096;

/// What a token is to be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    pub name: String,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub expires_ms: Option<i64>,
    #[serde(default)]
    pub rows: BTreeMap<String, String>,
    #[serde(default)]
    pub columns: BTreeMap<String, Vec<String>>,
}

/// Why something about a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    pub hint: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>, hint: &str) -> Self {
        Self { code, message: message.into(), hint: hint.to_owned() }
    }

    fn of(error: &CatalogError) -> Self {
        Self::new(Code::Internal, base::error::chain(error), "see the log")
    }
}

/// Who may call: the tokens of the catalog. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    catalog: Catalog,
    known: RwLock<Arc<Known>>,
    /// Held while the catalog is read or written and `known` made anew, so that nothing older replaces it.
    writing: Mutex<()>,
    /// Whether there are tokens: then nobody comes in without one.
    closed: watch::Sender<bool>,
}

type Known = HashMap<[u8; 32], Arc<Entry>>;

struct Entry {
    id: i64,
    name: Arc<str>,
    grants: Arc<[Grant]>,
    rows: Arc<BTreeMap<String, String>>,
    columns: Arc<BTreeMap<String, Vec<String>>>,
    expires: Option<SystemTime>,
    /// True when it was revoked.
    gone: watch::Sender<bool>,
    used_ms: AtomicI64,
}

impl Entry {
    fn of(token: Token) -> Self {
        let read = |text: &String| {
            let read = text.parse::<Grant>();
            // One of a later version: what is not known is not granted.
            read.inspect_err(|error| tracing::warn!(token = token.name, error, "a scope is passed over")).ok()
        };
        Self {
            id: token.id,
            grants: token.scopes.iter().filter_map(read).collect(),
            name: token.name.as_str().into(),
            rows: Arc::new(token.rows),
            columns: Arc::new(token.columns),
            expires: token.expires_ms.map(time),
            gone: watch::Sender::new(token.revoked_ms.is_some()),
            used_ms: AtomicI64::new(token.used_ms.unwrap_or(0)),
        }
    }
}

impl Access {
    pub fn open(catalog: Catalog) -> Result<Self, CatalogError> {
        let inner = Inner {
            catalog,
            known: RwLock::default(),
            writing: Mutex::new(()),
            closed: watch::Sender::new(false),
        };
        let access = Self(Arc::new(inner));
        access.reload()?;
        Ok(access)
    }

    /// Whether there are tokens, good ones or not: then every request needs one.
    pub fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    /// Reads the catalog again; callers whose tokens are no good any more are told.
    pub fn reload(&self) -> Result<(), CatalogError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again()
    }

    /// With `writing` held.
    fn read_again(&self) -> Result<(), CatalogError> {
        let tokens = self.0.catalog.tokens()?;
        let before = self.known();
        let mut after = Known::with_capacity(tokens.len());
        for token in tokens {
            let (hash, revoked) = (token.hash, token.revoked_ms.is_some());
            let same = before.get(&hash).filter(|entry| entry.id == token.id);
            let entry = same.cloned().unwrap_or_else(|| Arc::new(Entry::of(token)));
            if revoked {
                entry.gone.send_replace(true);
            }
            after.insert(hash, entry);
        }
        for (hash, entry) in before.iter() {
            if after.get(hash).is_none_or(|kept| kept.id != entry.id) {
                entry.gone.send_replace(true);
            }
        }
        let closed = !after.is_empty();
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        self.0.closed.send_replace(closed);
        Ok(())
    }

    fn known(&self) -> Arc<Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what another process writes to the catalog, until `stop`.
    pub async fn follow_others(self, mut stop: watch::Receiver<bool>) {
        let mut seen = None;
        loop {
            let access = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let version = access.0.catalog.version_of_others()?;
                if seen != Some(version) {
                    access.reload()?;
                }
                Ok::<_, CatalogError>(version)
            });
            match looked.await {
                Ok(Ok(version)) => seen = Some(version),
                Ok(Err(error)) => tracing::warn!(error = base::error::chain(&error), "failed to read tokens"),
                Err(error) => tracing::warn!(%error, "failed to read tokens"),
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(OTHERS_INTERVAL) => {}
            }
        }
    }

    /// The caller with this token.
    pub fn who(&self, token: &str) -> Result<Caller, Refusal> {
        let refused = |message: &str, hint| Refusal::new(Code::Unauthenticated, message, hint);
        let known = self.known();
        let Some(entry) = known.get(&digest(token)).filter(|_| token.starts_with(PREFIX)) else {
            return Err(refused("the token is not one of this node's", "`tidemill token create` makes one"));
        };
        let caller = Caller {
            token: Some(TokenId(entry.id)),
            name: entry.name.clone(),
            scopes: entry.grants.clone(),
            rows: entry.rows.clone(),
            columns: entry.columns.clone(),
            expires: entry.expires,
            gone: Some(entry.gone.subscribe()),
        };
        if *entry.gone.borrow() {
            return Err(refused("the token was revoked", "`tidemill token create` makes another"));
        }
        if entry.expires.is_some_and(|end| end <= SystemTime::now()) {
            return Err(refused("the token has expired", "`tidemill token create` makes another"));
        }
        self.note_use(entry);
        Ok(caller)
    }

    /// A program on this machine, while there are no tokens.
    pub fn local_caller(&self) -> Caller {
        Caller::from_here(self.0.closed.subscribe())
    }

    /// Roughly when, and beside the request: to write takes a disk's time.
    fn note_use(&self, entry: &Entry) {
        let (now, used) = (now_ms(), entry.used_ms.load(Ordering::Relaxed));
        if now - used < USE_STEP_MS
            || entry.used_ms.compare_exchange(used, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let (catalog, id) = (self.0.catalog.clone(), entry.id);
        let note = move || {
            if let Err(error) = catalog.note_token_use(id, now - now % USE_STEP_MS) {
                tracing::warn!(error = base::error::chain(&error), "failed to note a token's use");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(note)),
            Err(_) => note(),
        }
    }

    /// Makes a token. What it answers is shown to nobody again.
    pub fn create(&self, request: TokenRequest) -> Result<(Secret, Token), Refusal> {
        check(&request)?;
        let secret = draw()?;
        let mut token = Token {
            id: 0,
            name: request.name,
            hash: digest(secret.expose()),
            scopes: request.scopes,
            rows: request.rows,
            columns: request.columns,
            created_ms: now_ms(),
            expires_ms: request.expires_ms,
            used_ms: None,
            revoked_ms: None,
        };
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: CatalogError| Refusal::of(&error);
        match self.0.catalog.add_token(&token).map_err(failed)? {
            Some(id) => token.id = id,
            None if self.0.catalog.has_token(&token.name).map_err(failed)? => {
                let message = format!("there is a token `{}` already", token.name);
                return Err(Refusal::new(
                    Code::AlreadyExists,
                    message,
                    "choose another name, or forget that one",
                ));
            }
            None => {
                let message = format!("there are {TOKENS_MAX} tokens");
                return Err(Refusal::new(Code::Exhausted, message, "forget those that are revoked"));
            }
        }
        self.read_again().map_err(failed)?;
        Ok((secret, token))
    }

    /// Streams of the token end before this returns, or at once after it.
    pub fn revoke(&self, name: &str, forget: bool) -> Result<(), Refusal> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = &self.0.catalog;
        let found = if forget { catalog.forget_token(name) } else { catalog.revoke_token(name, now_ms()) };
        if !found.map_err(|error| Refusal::of(&error))? {
            let message = format!("there is no token `{name}`");
            return Err(Refusal::new(Code::NotFound, message, "see `tidemill token list`"));
        }
        self.read_again().map_err(|error| Refusal::of(&error))
    }

    /// All tokens, without what could be used.
    pub fn list(&self) -> Result<Vec<Value>, Refusal> {
        let tokens = self.0.catalog.tokens().map_err(|error| Refusal::of(&error))?;
        Ok(tokens.iter().map(described).collect())
    }
}

/// What may be told of a token.
pub(super) fn described(token: &Token) -> Value {
    let state = match (token.revoked_ms, token.expires_ms) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now_ms() => "expired",
        _ => "good",
    };
    // Noted in steps, which may begin before the token did.
    let used_ms = token.used_ms.map(|used| used.max(token.created_ms));
    json!({
        "name": token.name, "state": state, "scopes": token.scopes, "rows": token.rows, "columns": token.columns,
        "created_ms": token.created_ms, "expires_ms": token.expires_ms, "used_ms": used_ms,
        "revoked_ms": token.revoked_ms,
    })
}

fn draw() -> Result<Secret, Refusal> {
    let mut bytes = [0; RANDOM_BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| {
        Refusal::new(Code::Internal, "the system gives no random numbers", "see the system's log")
    })?;
    Ok(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

pub(super) fn now_ms() -> i64 {
    ms_of(SystemTime::now())
}

pub(super) fn ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// What is wrong with a token that is asked for.
fn check(request: &TokenRequest) -> Result<(), Refusal> {
    let invalid = |message: String, hint: &str| Err(Refusal::new(Code::Invalid, message, hint));
    let name = &request.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(plain) {
        let hint = "letters, digits, and - _ . @";
        return invalid(format!("a token's name has 1 to {NAME_CHARS_MAX} plain characters"), hint);
    }
    if request.scopes.is_empty() {
        return invalid(
            format!("the token `{name}` is good for nothing"),
            "name its scopes, for example: subscribe",
        );
    }
    let mut grants = Vec::new();
    for text in &request.scopes {
        match text.parse::<Grant>() {
            Ok(grant) => grants.push(grant),
            Err(message) => return invalid(message, "see docs/guides/access.md"),
        }
    }
    if request.expires_ms.is_some_and(|end| end <= now_ms()) {
        return invalid(
            "the token would have expired already".into(),
            "leave it out for a token that does not expire",
        );
    }
    let restricted = !request.rows.is_empty() || !request.columns.is_empty();
    if let Some(wide) = grants
        .iter()
        .find(|grant| restricted && !matches!(grant.scope, Scope::Subscribe | Scope::Push | Scope::Streams))
    {
        let message =
            format!("`rows` and `columns` are rules for subscriptions, and `{wide}` goes past them");
        return invalid(message, "leave that scope out, or make two tokens");
    }
    if request.rows.len() + request.columns.len() > TABLES_MAX {
        return invalid(
            format!("a token names at most {TABLES_MAX} tables"),
            "leave out `rows` and `columns`",
        );
    }
    let named = request.rows.keys().chain(request.columns.keys());
    for table in named {
        let whole = table.split_once('.').is_some_and(|(db, table)| !db.is_empty() && !table.is_empty());
        if !whole || table.contains(['*', '?']) {
            return invalid(format!("`{table}` is not a table"), "write DB.TABLE, without wildcards");
        }
    }
    for (table, rule) in &request.rows {
        if let Err(message) = check_rule(rule) {
            return invalid(
                format!("the rule for rows of `{table}`: {message}"),
                "a MySQL expression, for example: owner = 'u1'",
            );
        }
    }
    for (table, list) in &request.columns {
        if list.is_empty() || list.iter().any(|column| column.trim().is_empty()) {
            return invalid(
                format!("the columns of `{table}` are not named"),
                "for example: id,total; or * for all",
            );
        }
    }
    Ok(())
}

/// Reads a rule as the filter of a flow would be read.
fn check_rule(rule: &str) -> Result<(), String> {
    if rule.len() > RULE_BYTES_MAX {
        return Err(format!("it is longer than {RULE_BYTES_MAX} bytes"));
    }
    let flow = json!({"from": "-", "to": "-", "transform": [{"filter": rule}]});
    let flow: FlowConfig = serde_json::from_value(flow).map_err(|error| error.to_string())?;
    match Transform::compile(&flow) {
        Ok(_) => Ok(()),
        Err(errors) => Err(errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Ended;

    fn request(name: &str, scopes: &[&str]) -> TokenRequest {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let (rows, columns) = (BTreeMap::new(), BTreeMap::new());
        TokenRequest { name: name.into(), scopes, expires_ms: None, rows, columns }
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_is_revoked_here_or_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let access = Access::open(Catalog::open(&path).unwrap()).unwrap();
        let here = access.local_caller();
        assert!(!access.is_closed());
        let (secret, token) = access.create(request("phone", &["subscribe:shop"])).unwrap();
        assert!(secret.expose().len() == PREFIX.len() + RANDOM_CHARS && access.is_closed());
        assert_eq!(here.ended().await, Ended::Revoked, "nobody is let in without one any more");
        let caller = access.who(secret.expose()).unwrap();
        assert_eq!((caller.token, &*caller.name), (Some(TokenId(token.id)), "phone"));
        assert!(caller.may_on(Scope::Subscribe, "shop") && !caller.may(Scope::Read));
        for wrong in ["", "tidemill_", &secret.expose()[1..], &secret.expose().to_uppercase()] {
            assert_eq!(access.who(wrong).unwrap_err().code, Code::Unauthenticated);
        }
        access.revoke("phone", false).unwrap();
        assert_eq!(caller.ended().await, Ended::Revoked);
        assert!(access.who(secret.expose()).unwrap_err().message.contains("revoked"));
        assert!(access.is_closed(), "no token is good, and nobody comes in");
        let (secret, _) = access.create(request("tablet", &["read"])).unwrap();
        let caller = access.who(secret.expose()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let following = tokio::spawn(access.clone().follow_others(stopped));
        Catalog::open(&path).unwrap().forget_token("tablet").unwrap();
        assert_eq!(caller.ended().await, Ended::Revoked);
        stop.send_replace(true);
        following.await.unwrap();
        access.revoke("phone", true).unwrap();
        assert!(!access.is_closed(), "no token is known at all");
        assert_eq!(access.revoke("phone", true).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn only_a_digest_is_kept_and_use_is_noted_roughly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let access = Access::open(Catalog::open(&path).unwrap()).unwrap();
        let (secret, _) = access.create(request("phone", &["read"])).unwrap();
        access.who(secret.expose()).unwrap();
        let listed = &access.list().unwrap()[0];
        assert_eq!((&listed["state"], &listed["name"]), (&json!("good"), &json!("phone")));
        assert_eq!(listed["used_ms"], listed["created_ms"]);
        let noted = access.0.catalog.tokens().unwrap()[0].used_ms.unwrap();
        assert!(noted % USE_STEP_MS == 0 && noted > now_ms() - 2 * USE_STEP_MS);
        assert!(!listed.to_string().contains(&secret.expose()[PREFIX.len()..]));
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let kept = secret.expose().as_bytes();
            assert!(!bytes.windows(RANDOM_CHARS).any(|window| window == &kept[PREFIX.len()..]));
        }
        let again = Access::open(Catalog::open(&path).unwrap()).unwrap();
        assert!(again.is_closed() && again.who(secret.expose()).is_ok());
        let soon = TokenRequest { expires_ms: Some(now_ms() + 20), ..request("soon", &["read"]) };
        let (secret, _) = access.create(soon).unwrap();
        while now_ms() <= access.list().unwrap()[1]["expires_ms"].as_i64().unwrap() {}
        assert!(access.who(secret.expose()).unwrap_err().message.contains("expired"));
        assert_eq!(access.list().unwrap()[1]["state"], "expired");
    }

    #[test]
    fn a_token_that_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::open(Catalog::open(&dir.path().join("catalog.db")).unwrap()).unwrap();
        let refused = |request: TokenRequest| access.create(request).unwrap_err().message;
        let rows = |table: &str, rule: &str, scopes: &[&str]| {
            let rows = BTreeMap::from([(table.to_owned(), rule.to_owned())]);
            TokenRequest { rows, ..request("phone", scopes) }
        };
        assert!(refused(request("a b", &["read"])).contains("plain characters"));
        assert!(refused(request("phone", &[])).contains("good for nothing"));
        assert!(refused(request("phone", &["reed"])).contains("there is no scope `reed`"));
        assert!(
            refused(TokenRequest { expires_ms: Some(5), ..request("phone", &["read"]) }).contains("expired")
        );
        assert!(refused(rows("shop.orders", "owner = ", &["subscribe"])).contains("shop.orders"));
        assert!(refused(rows("shop.*", "owner = 1", &["subscribe"])).contains("not a table"));
        assert!(refused(rows("shop.orders", "owner = 1", &["subscribe", "read"])).contains("goes past them"));
        access.create(rows("shop.orders", "owner = \"u1\"", &["subscribe"])).unwrap();
        assert!(refused(request("phone", &["read"])).contains("already"));
        let list = BTreeMap::from([("shop.orders".to_owned(), vec![String::new()])]);
        assert!(
            refused(TokenRequest { columns: list, ..request("b", &["subscribe"]) }).contains("not named")
        );
    }
}
