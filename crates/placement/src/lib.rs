//! Where the data of many businesses lies on one TiDB cluster: pure functions, no I/O.
//!
//! Three floors. What PD does with rules (`labels`, `rule`, `key`, `fit`), judged by a real pd-server in `tests/pd.rs`. What TiDB makes of
//! a placement policy (`policy`). What a person declares (`declaration`), the state that was seen (`state`), what leads from one to
//! the other (`plan`), and what speaks against it (`checks`).

pub mod checks;
pub mod declaration;
pub mod fit;
pub mod key;
pub mod labels;
pub mod picture;
pub mod plan;
pub mod policy;
pub mod rule;
pub mod sql;
pub mod state;
