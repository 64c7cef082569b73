//! Redis' errors, sorted: who is away, what is refused, and what someone must mend.

use crate::deliver::sink::SinkError;
use redis::{ErrorKind, RedisError};

/// Sorts an error that is not of one change.
pub fn sort(error: &RedisError) -> SinkError {
    // A timeout, a cut, a refused connection: their text names no secret, nor do the server's replies.
    match (error.kind(), error.code()) {
        // The client library keeps the server's own words to itself.
        (ErrorKind::AuthenticationFailed, _) => {
            sort_text("WRONGPASS the user or the password of the url is not the server's")
        }
        (_, Some(code)) => sort_text(&format!("{code} {}", error.detail().unwrap_or_default())),
        (ErrorKind::InvalidClientConfig, _) => SinkError::Blocked {
            message: format!("Redis: {error}"),
            hint: "write the url as redis://[user:password@]host:port[/database], redis-sentinel://host:port,host:port#master \
                   or redis-cluster://host:port,host:port, with rediss for TLS"
                .into(),
        },
        _ => SinkError::Unavailable { message: format!("Redis: {error}") },
    }
}

/// Sorts what the server answered: a code and a text.
pub fn sort_text(reply: &str) -> SinkError {
    let reply = reply.trim();
    let code = reply.split_whitespace().next().unwrap_or_default();
    let blocked = |hint: &str| SinkError::Blocked { message: format!("Redis: {reply}"), hint: hint.into() };
    let away = |why: &str| SinkError::Unavailable { message: format!("Redis: {reply}{why}") };
    match code {
        "NOAUTH" => blocked("the server asks for a password: url: redis://:${env:REDIS_PASSWORD}@host:6379"),
        "WRONGPASS" => blocked("check the user and the password in the sink's url"),
        _ if code == "NOPERM"
            || reply.contains("ACL failure")
            || reply.contains("can't run this command") =>
        {
            blocked(
                "give the user its keys and commands: ACL SETUSER tidemill on >PASSWORD ~* &* +@read +@write +@scripting \
                 +@connection +publish +time +config|get",
            )
        }
        "OOM" => away(
            ": it is at its maxmemory and evicts nothing; raise it, or free some keys, and the flow goes on by itself",
        ),
        "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" | "TRYAGAIN" => away(
            ": the slot of the flow's keys is elsewhere; with redis-cluster:// in the sink's url it is looked for",
        ),
        "WRONGTYPE" => blocked(
            "another program has a key of ours: see DEL and TYPE for the keys that begin with `tidemill:`",
        ),
        "ERR" if reply.contains("unknown command") => {
            blocked("the sink needs scripts and streams, as Redis 7.0 has them: see docs/guides/redis.md")
        }
        // READONLY, LOADING, MASTERDOWN, MISCONF, NOREPLICAS, BUSY, NOSCRIPT, and whatever else passes.
        _ => away(""),
    }
}

/// Sorts what the server answered to one change.
pub fn sort_reply(lsn: u64, reply: &str) -> SinkError {
    let code = reply.split_whitespace().next().unwrap_or_default();
    let refused = code == "WRONGTYPE" || reply.contains("not a valid float");
    if refused { SinkError::Row { lsn, reason: reply.to_owned() } } else { sort_text(reply) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_what_helps() {
        for text in
            ["NOAUTH Authentication required.", "WRONGPASS invalid", "NOPERM this user has no permissions"]
        {
            assert!(matches!(sort_text(text), SinkError::Blocked { .. }), "{text}");
        }
        for text in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MOVED 3999 127.0.0.1:6381",
            "CLUSTERDOWN The cluster is down",
            "NOSCRIPT No matching script.",
            "ERR something new",
        ] {
            assert!(matches!(sort_reply(1, text), SinkError::Unavailable { .. }), "{text}");
        }
        let held = "WRONGTYPE Operation against a key holding the wrong kind of value";
        assert!(matches!(sort_reply(7, held), SinkError::Row { lsn: 7, .. }));
    }
}
