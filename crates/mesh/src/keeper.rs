//! Who keeps the configuration that a running mesh goes by, so that it can be changed while it runs.

use crate::config::BackendConfig;
use base::{Blame, Code, Fault, Retry};
use thiserror::Error;

/// Keeps the configuration. What it changes is changed in what is kept and in what runs, or in neither; one change at a time.
pub trait Keeper: Send + Sync + std::fmt::Debug {
    /// Takes what is kept into use. Blocks.
    ///
    /// # Errors
    /// The mistakes in it; then nothing has changed.
    fn reload(&self) -> Result<(), Refusal>;

    /// Changes the servers of a group. Blocks. Whether a server is there now that was not.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    fn change_backends(&self, group: &str, change: BackendsChange) -> Result<bool, Refusal>;
}

/// Another list of servers for a group.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendsChange {
    /// One more, or one in the place of that at its address.
    Put(BackendConfig),
    /// One more, which must not be there.
    Add(BackendConfig),
    /// Without the one at this address.
    Remove(String),
    /// These.
    All(Vec<BackendConfig>),
}

/// Why a change is not made.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    pub hint: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl Fault for Refusal {
    fn code(&self) -> Code {
        self.code
    }

    fn blame(&self) -> Blame {
        Blame::Client
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn hint(&self) -> Option<String> {
        (!self.hint.is_empty()).then(|| self.hint.clone())
    }
}

impl BackendsChange {
    /// The list after the change, and whether a server is there that was not.
    ///
    /// # Errors
    /// When it adds what is there, or removes what is not.
    pub fn apply(self, list: &[BackendConfig]) -> Result<(Vec<BackendConfig>, bool), Refusal> {
        let mut list = list.to_vec();
        let at = |list: &[BackendConfig], addr: &str| list.iter().position(|known| known.addr == addr);
        match self {
            Self::All(wanted) => {
                let made = wanted.iter().any(|wanted| at(&list, &wanted.addr).is_none());
                return Ok((wanted, made));
            }
            Self::Remove(addr) => match at(&list, &addr) {
                Some(index) => drop(list.remove(index)),
                None => {
                    let known: Vec<_> = list.iter().map(|known| known.addr.as_str()).collect();
                    let hint = format!("servers are: {}", known.join(", "));
                    return Err(Refusal::new(Code::NotFound, format!("there is no server `{addr}`"), hint));
                }
            },
            Self::Add(one) if at(&list, &one.addr).is_some() => {
                let message = format!("the server `{}` is there already", one.addr);
                let hint = "`REMOVE BACKEND` it first, or PUT it by REST, which replaces it";
                return Err(Refusal::new(Code::AlreadyExists, message, hint));
            }
            Self::Add(one) | Self::Put(one) => match at(&list, &one.addr) {
                Some(index) => list[index] = one,
                None => {
                    list.push(one);
                    return Ok((list, true));
                }
            },
        }
        Ok((list, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(addr: &str, weight: u32) -> BackendConfig {
        serde_json::from_value(serde_json::json!({"addr": addr, "weight": weight})).unwrap()
    }

    #[test]
    fn a_server_is_added_replaced_and_removed_and_what_does_not_fit_is_refused() {
        let list = [backend("a:1", 1), backend("b:1", 2)];
        let (more, made) = BackendsChange::Add(backend("c:1", 3)).apply(&list).unwrap();
        assert!(made && more.len() == 3 && more[2].addr == "c:1");
        assert_eq!(
            BackendsChange::Add(backend("a:1", 9)).apply(&list).unwrap_err().code,
            Code::AlreadyExists
        );
        let (same, made) = BackendsChange::Put(backend("a:1", 9)).apply(&list).unwrap();
        assert!(!made && same.len() == 2 && same[0].weight == 9);
        let (fewer, made) = BackendsChange::Remove("a:1".into()).apply(&list).unwrap();
        assert!(!made && fewer == [backend("b:1", 2)]);
        let refused = BackendsChange::Remove("z:1".into()).apply(&list).unwrap_err();
        assert!(refused.code == Code::NotFound && refused.hint.contains("a:1, b:1"), "{refused:?}");
        assert!(BackendsChange::All(vec![backend("b:1", 2), backend("d:1", 1)]).apply(&list).unwrap().1);
    }
}
