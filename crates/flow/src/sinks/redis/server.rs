//! Which server a URL means: the one it names, the master that Sentinels name, or the node of a cluster that has our keys.
//!
//! ```text
//! redis://[user:password@]host:port[/database]
//! redis-sentinel://[user:password@]sentinel:port,sentinel:port[/database]#master
//! redis-cluster://[user:password@]node:port,node:port
//! ```
//!
//! With `rediss` for TLS. A flow's keys in a cluster are all in one slot, so that the script that writes them moves its progress
//! in the same run; the flow then speaks with one node, and looks for it anew when the slot has moved.

use base::Secret;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult};
use std::time::Duration;

const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A server that says nothing for so long is taken for dead; a run of the script takes milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Nodes that may send us on to another one: more, and the cluster does not know itself.
const REDIRECTS_MAX: usize = 5;

#[derive(Debug, PartialEq)]
enum Kind<'a> {
    Single,
    Sentinels { master: &'a str },
    Cluster,
}

/// A URL's parts.
#[derive(Debug, PartialEq)]
struct Address<'a> {
    kind: Kind<'a>,
    tls: bool,
    login: Option<&'a str>,
    /// `host:port`, or a host.
    nodes: Vec<&'a str>,
    database: &'a str,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, name) = rest.split_once('#').map_or((rest, None), |(rest, name)| (rest, Some(name)));
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (nodes, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (tls, kind) = match (scheme, name) {
            ("redis", None) => (false, Kind::Single),
            ("rediss", None) => (true, Kind::Single),
            ("redis-sentinel", Some(master)) => (false, Kind::Sentinels { master }),
            ("rediss-sentinel", Some(master)) => (true, Kind::Sentinels { master }),
            ("redis-cluster", None) => (false, Kind::Cluster),
            ("rediss-cluster", None) => (true, Kind::Cluster),
            _ => return None,
        };
        let nodes: Vec<_> = nodes.split(',').collect();
        let several = kind != Kind::Single;
        let fits = nodes.iter().all(|node| !node.is_empty()) && (several || nodes.len() == 1);
        fits.then_some(Self { kind, tls, login, nodes, database })
    }

    /// The URL of one server, as the client library reads it.
    fn server(&self, node: &str, login: Option<&str>) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        format!("{scheme}://{login}{node}/{}", self.database)
    }
}

/// Whether a URL means a cluster, in which all keys of a flow need one hash tag.
pub fn is_cluster(url: &Secret) -> bool {
    Address::parse(url.expose()).is_some_and(|address| address.kind == Kind::Cluster)
}

/// A connection to the server that has `key`.
pub async fn connection(url: &Secret, key: &[u8]) -> RedisResult<MultiplexedConnection> {
    let address = Address::parse(url.expose()).ok_or_else(malformed)?;
    match address.kind {
        Kind::Single => connect(url.expose()).await,
        Kind::Sentinels { master } => {
            let node = first(&address.nodes, |node| ask_sentinel(address.server(node, None), master)).await?;
            connect(&address.server(&node, address.login)).await
        }
        Kind::Cluster => first(&address.nodes, |node| follow(&address, node.to_owned(), key)).await,
    }
}

/// The first answer of any node; the last error when none has one.
async fn first<'a, T, F: Future<Output = RedisResult<T>>>(
    nodes: &[&'a str],
    ask: impl Fn(&'a str) -> F,
) -> RedisResult<T> {
    let mut last = malformed();
    for node in nodes {
        match ask(node).await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WAIT))
        .set_response_timeout(Some(ANSWER_WAIT));
    Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// `host:port` of the master, as this Sentinel knows it.
async fn ask_sentinel(url: String, master: &str) -> RedisResult<String> {
    // A Sentinel has no databases.
    let url = url.rsplit_once('/').map_or(url.as_str(), |(server, _)| server);
    let mut sentinel = connect(url).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let found: Option<(String, u16)> = question.query_async(&mut sentinel).await?;
    let unknown = || {
        let why = "a Sentinel knows no master of this name";
        RedisError::from((ErrorKind::Io, why, master.to_owned()))
    };
    found.map(|(host, port)| node_name(&host, port)).ok_or_else(unknown)
}

/// Goes from node to node to the one that has the key's slot.
async fn follow(address: &Address<'_>, mut node: String, key: &[u8]) -> RedisResult<MultiplexedConnection> {
    for _ in 0..REDIRECTS_MAX {
        let mut connection = connect(&address.server(&node, address.login)).await?;
        let asked: RedisResult<()> = redis::cmd("EXISTS").arg(key).query_async(&mut connection).await;
        let Err(error) = asked else { return Ok(connection) };
        match (error.code(), error.redirect_node()) {
            (Some("MOVED"), Some((to, _))) => {
                let (host, port) = to.rsplit_once(':').ok_or_else(malformed)?;
                // A node that does not know its own name means itself.
                let host = if host.is_empty() {
                    node.rsplit_once(':').map_or(&*node, |(host, _)| host)
                } else {
                    host
                };
                node = node_name(host, port.parse().map_err(|_| malformed())?);
            }
            _ => return Err(error),
        }
    }
    Err((ErrorKind::Io, "the nodes of the cluster send us around in circles").into())
}

fn node_name(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn malformed() -> RedisError {
    (ErrorKind::InvalidClientConfig, "the url is none that we know").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_they_are_meant() {
        let url = "redis-sentinel://me:p%40ss@a:26379,b/3#orders";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.kind, Kind::Sentinels { master: "orders" });
        assert_eq!(address.nodes, ["a:26379", "b"]);
        assert_eq!(address.server("c:6379", address.login), "redis://me:p%40ss@c:6379/3");
        assert_eq!(address.server("a:26379", None), "redis://a:26379/3");
        let cluster = Address::parse("rediss-cluster://a:1,b:2").unwrap();
        assert_eq!((cluster.kind, cluster.tls, cluster.nodes), (Kind::Cluster, true, vec!["a:1", "b:2"]));
        for wrong in
            ["redis://a:1,b:2", "redis-sentinel://a:1", "http://a", "redis://", "redis-cluster://a,,b"]
        {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
        assert_eq!(node_name("::1", 7), "[::1]:7");
    }
}
