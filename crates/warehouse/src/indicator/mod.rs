//! Indicators: what people call by a code, declared over a table, kept in rollups, and answered at a period.
//!
//! A file declares models and metrics ([`config`]). [`Indicators::new`] finds every mistake of all files at once and says which parts
//! each metric is computed from ([`declared`]). [`rollup::build`] computes those parts by grain and dimensions, beside the tables that
//! are read, and swaps them in. Questions ([`answer`], [`load`]) read rollups only, but where a metric says `allow_raw`.

pub mod answer;
pub mod cache;
pub mod config;
pub mod declared;
pub mod error;
mod fetch;
pub mod figure;
pub mod literal;
pub mod load;
pub mod meta;
pub mod period;
pub mod rollup;
pub mod service;

pub use answer::{Answer, Health, Indicator, Member, Question, answer_all};
pub use config::{IndicatorFile, Metric, MetricStatus, SemanticModel};
pub use declared::{Indicators, Mistake};
pub use error::IndicatorError;
pub use period::{Grain, Period};
pub use service::Service;
