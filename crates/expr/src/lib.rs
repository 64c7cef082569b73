//! MySQL expressions over a row: the `filter` and `set` steps of a flow, and every expression of the SQL engine.
//!
//! Read once a flow ([`parse`]), bound once a table ([`Expression::bind`]), evaluated once a row. Answers are those of a
//! `SELECT` on MySQL 8 or 9 with its default modes, in UTC. What we would answer otherwise is refused when read or bound:
//! an expression never differs from the server in silence.

pub mod bind;
pub mod coerce;
pub mod collate;
pub mod decimal;
mod equality;
pub mod functions;
pub mod json;
pub mod kind;
pub mod node;
pub mod output;
pub mod parse;
mod signature;
mod slots;
pub mod temporal;

pub use bind::Scope;
pub use collate::{Collation, DEFAULT as DEFAULT_COLLATION};
pub use equality::{Equality, EqualityBy};
pub use functions::names as function_names;
pub use json::{
    compact as compact_json, elements as json_elements, extract as extract_json, is_json, unquoted,
};
pub use node::{Row, Slot, set_text};
pub use output::Output;
pub use parse::Refusal;
pub use temporal::{is_real, parse_date_text};

/// A path into JSON, read.
pub type JsonPath = Vec<json::Step>;
pub use json::parse_path as parse_json_path;

use node::Node;
use parse::Ast;

/// A row for which a rule has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);

/// An expression that was read, for any table.
#[derive(Clone, Debug)]
pub struct Expression {
    ast: Ast,
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        parse::parse(text).map(|ast| Self { ast })
    }

    /// As a condition over the columns of `scope`.
    pub fn bind_condition(&self, scope: &Scope<'_>) -> Result<Condition, Refusal> {
        let node = bind::bind(&self.ast, scope)?;
        bind::truth_of(&node)?;
        Ok(Condition { node })
    }

    /// As a new column.
    pub fn bind_column(&self, name: &str, scope: &Scope<'_>) -> Result<Output, Refusal> {
        Output::new(name, bind::bind(&self.ast, scope)?, scope)
    }
}

/// What a row must fulfil.
#[derive(Clone, Debug)]
pub struct Condition {
    node: Node,
}

impl Condition {
    /// A value that a column has in every row that passes, where there is one.
    pub fn equality(&self) -> Option<Equality> {
        Equality::of(&self.node)
    }

    /// NULL does not pass.
    pub fn passes(&self, row: Row<'_>) -> Result<bool, EvalError> {
        Ok(self.node.truth(row)? == Some(true))
    }
}
