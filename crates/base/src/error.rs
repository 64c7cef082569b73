//! What every crate's error answers, and the one mapping to the outside: exit status, HTTP.

/// A closed set of reasons, mapped once to every protocol we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller's input or configuration is wrong.
    Invalid,
    NotFound,
    AlreadyExists,
    Unauthenticated,
    PermissionDenied,
    /// Out of disk, memory, quota.
    Exhausted,
    /// The state of the other side forbids it: purged binlog, wrong format.
    FailedPrecondition,
    /// A server is away or too slow.
    Unavailable,
    /// Broken data, or our bug.
    Internal,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    Client,
    Upstream,
    Us,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    Never,
    Backoff,
}

/// An error as the rest of the house sees it. The cause chain stays in `source()`.
pub trait Fault: std::error::Error {
    fn code(&self) -> Code;
    fn blame(&self) -> Blame;
    fn retry(&self) -> Retry;
    /// What the user can do, as one sentence without a full stop.
    fn hint(&self) -> Option<String> {
        None
    }
}

impl Code {
    /// All of them, in the order of the reference page.
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::Exhausted,
        Self::FailedPrecondition,
        Self::Unavailable,
        Self::Internal,
    ];

    /// As problems and logs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::Exhausted => "exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// What it means, as a sentence without a full stop.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Invalid => "the request or the configuration is wrong",
            Self::NotFound => "what was named is not there: a flow, a source, a change, a journal",
            Self::AlreadyExists => "what was to be made is there already",
            Self::Unauthenticated => "the other side does not know who is asking",
            Self::PermissionDenied => "it knows, and forbids it",
            Self::Exhausted => "disk, memory or a limit is used up",
            Self::FailedPrecondition => {
                "the state of things forbids it: purged binlogs, a wrong setting, a flow that stands still, a format \
                 of a newer version"
            }
            Self::Unavailable => "a server is away or too slow",
            Self::Internal => "damaged data, or a fault of ours",
        }
    }

    /// Whether doing the same again can help, in general; each error says it for itself by [`Fault::retry`].
    pub const fn retry(self) -> Retry {
        match self {
            Self::Unavailable | Self::Exhausted => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// Exit status of the command line (see the CLI reference).
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Invalid => 2,
            Self::Unavailable | Self::Unauthenticated => 3,
            _ => 1,
        }
    }

    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::FailedPrecondition => 412,
            Self::Exhausted => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

/// `error` and its causes, outermost first, joined by `: `.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        cause = inner.source();
    }
    // A library that wraps its own errors says the same thing twice.
    let mut parts: Vec<&str> = out.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_chain_says_nothing_twice() {
        let inner = std::io::Error::other("I/O error: I/O error: refused");
        assert_eq!(super::chain(&inner), "I/O error: refused");
    }
}
