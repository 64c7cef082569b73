//! Where the data of many businesses lies on one TiDB cluster: pure functions, no I/O.
//!
//! Three floors. What PD does with rules (`labels`, `rule`, `key`, `fit`), judged by a real pd-server in `tests/pd.rs`. What TiDB makes of
//! a placement policy (`policy`). What a person declares (`declaration`), the state that was seen (`state`), what leads from one to
//! the other (`plan`), what speaks against it (`checks`), and what PD has made of it (`seen`).

pub mod checks;
pub mod declaration;
pub mod fit;
pub mod key;
pub mod labels;
pub mod picture;
pub mod plan;
pub mod policy;
pub mod rule;
pub mod seen;
pub mod sql;
pub mod state;
