//! A caller, and what it may do.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// The clock is looked at again after as long: it may be set while a stream is open.
const CLOCK_LOOK_MAX: Duration = Duration::from_secs(30);

/// A kind of thing that a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Read,
    Subscribe,
    Push,
    Streams,
    Cache,
    Search,
    Operate,
    Admin,
}

impl Scope {
    /// Name and meaning, in the order of the reference page.
    pub const ALL: [(Self, &'static str, &'static str); 8] = [
        (
            Self::Read,
            "read",
            "status, metrics, changes, previews and parked changes: all that the node knows, and all rows",
        ),
        (
            Self::Subscribe,
            "subscribe",
            "subscriptions: rows of tables as they are and as they change, within the token's `rows` and `columns`",
        ),
        (Self::Push, "push", "pushes changes into sources of `kind: http`"),
        (
            Self::Streams,
            "streams",
            "makes, appends to, reads and deletes streams; `streams:devices/u1` those of that path and below it",
        ),
        (Self::Cache, "cache", "rows of flows to Redis, by their key"),
        (Self::Search, "search", "documents of flows to a search server, by words"),
        (
            Self::Operate,
            "operate",
            "the verbs that change what runs: flows, the mesh, its servers and sessions",
        ),
        (Self::Admin, "admin", "tokens; whoever makes tokens can have every scope, so this is all of them"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(scope, ..)| *scope == self).map_or("", |(_, name, _)| name)
    }

    /// Whether `SCOPE:SOURCE` means something: where requests name the source, or the path of a stream.
    fn can_name_a_source(self) -> bool {
        matches!(self, Self::Subscribe | Self::Push | Self::Streams)
    }
}

/// A scope, of all sources or of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub scope: Scope,
    pub source: Option<String>,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, source) = match text.split_once(':') {
            Some((name, source)) => (name, Some(source)),
            None => (text, None),
        };
        let known = || Scope::ALL.map(|(_, name, _)| name).join(", ");
        let found = Scope::ALL.iter().find(|(_, known, _)| *known == name);
        let (scope, ..) =
            *found.ok_or_else(|| format!("there is no scope `{name}`: there are {}", known()))?;
        match source {
            Some(_) if !scope.can_name_a_source() => {
                Err(format!("`{name}` is not for one source: only subscribe, push and streams can be"))
            }
            Some("") => Err(format!("`{text}` names no source")),
            source => Ok(Self { scope, source: source.map(str::to_owned) }),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scope.name())?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ":{source}"))
    }
}

/// The number that the catalog gave a token; never another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenId(pub i64);

/// Why a caller is let in no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Or there are tokens now, and this caller has none.
    Revoked,
    Expired,
}

impl Ended {
    pub fn message(self) -> &'static str {
        match self {
            Self::Revoked => "the token was revoked",
            Self::Expired => "the token has expired",
        }
    }
}

/// Who calls. In the extensions of every request that passed [`super::guard`].
#[derive(Clone, Debug)]
pub struct Caller {
    /// `None`: a program on this machine while there are no tokens, or the node itself. Everything is allowed then.
    pub token: Option<TokenId>,
    /// The token's name, for logs.
    pub name: Arc<str>,
    pub scopes: Arc<[Grant]>,
    /// By `db.table`: a MySQL expression that rows must meet, on top of what is asked for.
    pub rows: Arc<BTreeMap<String, String>>,
    /// By `db.table`: the columns that may be seen; `*` stands for all.
    pub columns: Arc<BTreeMap<String, Vec<String>>>,
    pub expires: Option<SystemTime>,
    /// Turns true when the caller is let in no longer.
    pub(super) gone: Option<watch::Receiver<bool>>,
}

impl Caller {
    /// The node's own tasks, which call nobody else's port.
    pub fn node_itself() -> Self {
        Self::without_token("node", None)
    }

    /// A program on this machine while there are no tokens; `gone` turns true when there are.
    pub(super) fn from_here(gone: watch::Receiver<bool>) -> Self {
        Self::without_token("loopback", Some(gone))
    }

    fn without_token(name: &str, gone: Option<watch::Receiver<bool>>) -> Self {
        let (rows, columns) = (Arc::default(), Arc::default());
        Self { token: None, name: name.into(), scopes: Arc::new([]), rows, columns, expires: None, gone }
    }

    /// Two calls with the same text are of one token, or both of none.
    pub fn identity(&self) -> String {
        self.token.map_or_else(String::new, |TokenId(id)| id.to_string())
    }

    /// Whether it has the scope, be it for one source only.
    pub fn may(&self, scope: Scope) -> bool {
        self.token.is_none()
            || self.scopes.iter().any(|grant| grant.scope == scope || grant.scope == Scope::Admin)
    }

    /// Whether it has the scope for this source.
    pub fn may_on(&self, scope: Scope, source: &str) -> bool {
        let covers = |grant: &Grant| {
            let of_it = grant.source.as_ref().is_none_or(|only| only == source);
            grant.scope == Scope::Admin || grant.scope == scope && of_it
        };
        self.token.is_none() || self.scopes.iter().any(covers)
    }

    /// Whether it has the scope for this path: for all, or for one that is its beginning, in whole parts.
    pub fn may_below(&self, scope: Scope, path: &str) -> bool {
        let covers = |grant: &Grant| {
            let below = |only: &String| {
                let rest = path.strip_prefix(only.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            grant.scope == Scope::Admin || grant.scope == scope && grant.source.as_ref().is_none_or(below)
        };
        self.token.is_none() || self.scopes.iter().any(covers)
    }

    /// Whether it may see anything of `db.table`. A token with `rows` or `columns` sees the tables that these name, and no
    /// others.
    pub fn may_see(&self, table: &str) -> bool {
        let unrestricted = self.rows.is_empty() && self.columns.is_empty();
        unrestricted || self.rows.contains_key(table) || self.columns.contains_key(table)
    }

    /// The condition that rows of `db.table` must meet.
    pub fn row_rule(&self, table: &str) -> Option<&str> {
        self.rows.get(table).map(String::as_str)
    }

    /// The columns of `db.table` that it may see; all of them without one.
    pub fn column_list(&self, table: &str) -> Option<&[String]> {
        let list = self.columns.get(table)?;
        (!list.iter().any(|column| column == "*")).then_some(list)
    }

    /// Waits until the caller is let in no longer: its token was revoked, or is out of date. Of a caller without a token:
    /// until there are tokens.
    pub async fn ended(&self) -> Ended {
        let mut gone = self.gone.clone();
        loop {
            let left = match self.expires.map(|end| end.duration_since(SystemTime::now())) {
                Some(Ok(left)) if !left.is_zero() => left.min(CLOCK_LOOK_MAX),
                Some(_) => return Ended::Expired,
                None => Duration::MAX,
            };
            let revoked = async {
                match &mut gone {
                    // Nobody tells any more: fail closed.
                    Some(gone) => drop(gone.wait_for(|gone| *gone).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = revoked => return Ended::Revoked,
                () = wait(left) => {}
            }
        }
    }
}

async fn wait(left: Duration) {
    if left == Duration::MAX {
        return std::future::pending().await;
    }
    tokio::time::sleep(left).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str]) -> Caller {
        let scopes = scopes.iter().map(|text| text.parse().unwrap()).collect();
        Caller { token: Some(TokenId(1)), scopes, ..Caller::node_itself() }
    }

    #[test]
    fn a_scope_is_of_all_sources_or_of_one() {
        let one = caller(&["subscribe:shop", "push"]);
        assert!(one.may(Scope::Subscribe) && !one.may(Scope::Read));
        assert!(one.may_on(Scope::Subscribe, "shop") && !one.may_on(Scope::Subscribe, "crm"));
        assert!(one.may_on(Scope::Push, "crm"));
        assert!(caller(&["admin"]).may(Scope::Read) && caller(&["admin"]).may_on(Scope::Subscribe, "shop"));
        assert!(!caller(&[]).may(Scope::Read) && Caller::node_itself().may(Scope::Admin));
        for (text, wanted) in [("reed", "there is no scope `reed`"), ("read:shop", "not for one source")] {
            assert!(text.parse::<Grant>().unwrap_err().contains(wanted), "{text}");
        }
        assert!("subscribe:".parse::<Grant>().is_err());
        assert_eq!("subscribe:shop".parse::<Grant>().unwrap().to_string(), "subscribe:shop");
    }

    #[test]
    fn a_scope_of_streams_is_of_a_path_and_what_is_below() {
        let one = caller(&["streams:devices/u1"]);
        assert!(one.may(Scope::Streams) && one.may_below(Scope::Streams, "devices/u1"));
        assert!(
            one.may_below(Scope::Streams, "devices/u1/sent") && !one.may_below(Scope::Streams, "devices/u10")
        );
        assert!(!one.may_below(Scope::Streams, "devices") && !one.may_below(Scope::Streams, "other"));
        assert!(caller(&["streams"]).may_below(Scope::Streams, "other"));
        assert!(!caller(&["subscribe"]).may_below(Scope::Streams, "other"));
    }

    #[test]
    fn a_token_with_rules_sees_the_tables_that_they_name() {
        let mut one = caller(&["subscribe"]);
        assert!(one.may_see("shop.orders") && one.column_list("shop.orders").is_none());
        one.rows = Arc::new(BTreeMap::from([("shop.orders".into(), "owner = 1".into())]));
        let lists = [("shop.users", "id"), ("shop.notes", "*")];
        one.columns =
            Arc::new(lists.map(|(table, column)| (table.to_owned(), vec![column.to_owned()])).into());
        assert!(one.may_see("shop.orders") && one.may_see("shop.users") && !one.may_see("shop.cards"));
        assert_eq!((one.row_rule("shop.orders"), one.row_rule("shop.users")), (Some("owner = 1"), None));
        assert_eq!(one.column_list("shop.users"), Some(&["id".to_owned()][..]));
        assert_eq!((one.column_list("shop.notes"), one.column_list("shop.orders")), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_ends_when_its_token_does() {
        let (sender, gone) = watch::channel(false);
        let revoked = Caller { gone: Some(gone), ..caller(&[]) };
        let expired = Caller { expires: Some(SystemTime::now()), ..revoked.clone() };
        assert_eq!(expired.ended().await, Ended::Expired);
        let soon = Caller { expires: Some(SystemTime::now() + Duration::from_secs(3600)), ..revoked.clone() };
        assert!(tokio::time::timeout(Duration::from_secs(60), soon.ended()).await.is_err());
        sender.send_replace(true);
        assert_eq!((revoked.ended().await, soon.ended().await), (Ended::Revoked, Ended::Revoked));
    }
}
