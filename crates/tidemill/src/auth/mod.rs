//! Who calls the HTTP port, and what that caller may do.
//!
//! [`guard`] stands in front of every route, those of gRPC included: it refuses, or puts a [`Caller`] into the request's
//! extensions. A handler whose answer goes on for long need do nothing more: when the caller's token is revoked or expires,
//! `guard` ends the answer. One that wants to end by itself waits for [`Caller::ended`].
//!
//! Must never: log a token, keep more of one than its digest, or let a request pass because something went wrong.

mod caller;
pub mod command;
mod cors;
mod ending;
mod guard;
pub mod routes;
mod tokens;

pub use caller::{Caller, Ended, Scope};
pub use cors::{Origins, check as check_origins};
pub use guard::{Gate, Need, Peer, guard};
pub use tokens::Access;
