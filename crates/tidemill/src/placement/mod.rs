//! Many businesses on one TiDB cluster: `placement.yaml`, and `tidemill plan`, `apply`, `rollback`, `verify` and
//! `placement show`.
//!
//! The thinking is in the crate `placement`; here is what asks the cluster and what runs statements.

mod apply;
mod cluster;
mod verify;

pub use apply::{apply, rollback};
pub use verify::verify;

use crate::commands::{many, report};
use crate::failure::Failure;
use crate::files;
use crate::project::{NodeConfig, Problem, SECRETS_HINT, resolve_all};
use ::placement::checks::{Finding, Level, check};
use ::placement::declaration::{Declaration, Desired};
use ::placement::picture;
use ::placement::plan::Plan;
use ::placement::state::{Observed, State};
use clap::Subcommand;
use cluster::Cluster;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

pub const FILE: &str = "placement.yaml";

/// Statements of one kind that a plan shows in full; the rest is counted.
const SHOWN_MAX: usize = 20;

/// Reads `placement.yaml` where there is one. With `resolve` its secrets are what they refer to.
pub fn load(dir: &Path, resolve: bool, problems: &mut Vec<Problem>) -> Option<Declaration> {
    if !dir.join(FILE).exists() {
        return None;
    }
    let mut declaration: Declaration = files::read(dir, FILE, problems)?;
    let text = std::fs::read_to_string(dir.join(FILE)).unwrap_or_default();
    let mut add = |message: String, hint: String| {
        let (line, column) = place(&text, &message);
        problems.push(Problem { path: FILE.to_owned(), line, column, message, hint });
    };
    for (message, hint) in declaration.problems() {
        add(message, hint);
    }
    if resolve && let Err((message, hint)) = resolve_all(std::iter::once(&mut declaration.cluster.url)) {
        add(message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned()));
    } else if !declaration.cluster.url.expose().starts_with("mysql://") {
        let hint = "url: mysql://root:${env:TIDB_PASSWORD}@127.0.0.1:4000".to_owned();
        add("`url` is not a TiDB server's address".to_owned(), hint);
    }
    Some(declaration)
}

/// Where a mistake stands: of what it quotes, the rarest in the file.
fn place(text: &str, message: &str) -> (u64, u64) {
    let quoted = message.split('`').skip(1).step_by(2).filter(|word| !word.is_empty());
    let rarest = quoted.filter(|word| text.contains(word)).min_by_key(|word| text.matches(word).count());
    let found = rarest.and_then(|word| {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
        // The last place is the repeated one, where something is there twice.
        lines.filter_map(|(number, line)| Some((number, line.find(word)?))).last()
    });
    let (line, column) = found.unwrap_or((0, 0));
    (line as u64 + 1, column as u64 + 1)
}

#[derive(Subcommand)]
pub enum PlacementVerb {
    /// Draw the stores by zone and host, and which business may lead, follow and be read on each.
    Show,
}

/// The declaration of a project and the cluster that it is about.
struct Subject {
    node: NodeConfig,
    declaration: Declaration,
    desired: Desired,
    cluster: Cluster,
}

impl Subject {
    async fn reach(dir: &Path) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let node = NodeConfig::load(dir).map_err(|problems| report(&problems))?;
        let declaration = load(dir, true, &mut problems);
        if !problems.is_empty() {
            return Err(report(&problems));
        }
        let declaration = declaration.ok_or_else(|| {
            Failure::new(2, format!("the project has no {FILE}"))
                .hint("docs/guides/placement.md begins with one")
        })?;
        let cluster = Cluster::connect(&declaration).await?;
        Ok(Self { node, desired: declaration.desired(), declaration, cluster })
    }

    async fn observe(&mut self) -> Result<Observed, Failure> {
        self.cluster.observe(&self.declaration, &self.desired).await
    }
}

/// `tidemill placement show`
pub async fn run(dir: &Path, verb: PlacementVerb) -> Result<(), Failure> {
    let PlacementVerb::Show = verb;
    let mut subject = Subject::reach(dir).await?;
    let observed = subject.observe().await?;
    print!("{}", picture::draw(&subject.declaration, &subject.desired, &observed));
    Ok(())
}

/// `tidemill plan`: what would be done, and what speaks against it.
pub async fn plan(dir: &Path, json: bool) -> Result<(), Failure> {
    let mut subject = Subject::reach(dir).await?;
    let observed = subject.observe().await?;
    let plan = Plan::new(&observed, &subject.desired);
    let findings = check(&subject.declaration, &subject.desired, &observed, &plan);
    let refused = findings.iter().filter(|finding| finding.level == Level::Refused).count();
    if json {
        let shown =
            json!({"name": plan.name, "observed": plan.observed, "steps": plan.steps, "findings": findings});
        println!("{shown}");
    } else {
        print!("{}", shown(&plan, &findings));
    }
    if refused > 0 {
        return Err(Failure::new(4, format!("the plan is refused: {}", many(refused, "finding")))
            .hint("each finding names its way out"));
    }
    if !plan.steps.is_empty() {
        apply::keep(&subject.node, &plan)?;
        if !json {
            println!("\ntidemill apply {}", plan.name);
        }
    }
    Ok(())
}

/// A plan as a person reads it.
fn shown(plan: &Plan, findings: &[Finding]) -> String {
    let mut out = String::new();
    if plan.steps.is_empty() {
        out.push_str("nothing to do: the cluster is as declared\n");
    } else {
        let _ = writeln!(out, "plan {}, {}", plan.name, many(plan.steps.len(), "step"));
    }
    let mut alike = 0;
    for (at, step) in plan.steps.iter().enumerate() {
        let is_alike = at > 0
            && std::mem::discriminant(&plan.steps[at - 1].object) == std::mem::discriminant(&step.object);
        alike = if is_alike { alike + 1 } else { 0 };
        let is_last = plan
            .steps
            .get(at + 1)
            .is_none_or(|next| std::mem::discriminant(&next.object) != std::mem::discriminant(&step.object));
        if alike >= SHOWN_MAX {
            if is_last {
                let _ = writeln!(out, "  … and {} like it (--json has all)", alike + 1 - SHOWN_MAX);
            }
            continue;
        }
        let sign = match (&step.from, &step.to) {
            (State::Unset, _) => '+',
            (_, State::Unset) => '-',
            _ => '~',
        };
        let _ = writeln!(out, "{sign} {}", step.object);
        if step.from != State::Unset {
            let _ = writeln!(out, "    was  {}", step.from);
        }
        let _ = writeln!(out, "    {};", step.statement);
    }
    if !findings.is_empty() {
        out.push('\n');
    }
    for finding in findings {
        let level = match finding.level {
            Level::Refused => "refused",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let _ = writeln!(out, "{level} {}: {}", finding.check, finding.message);
        if !finding.way_out.is_empty() {
            let _ = writeln!(out, "    {}", finding.way_out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_mistake_stands_at_the_rarest_word_it_quotes() {
        let text = "pools:\n  order: {stores: {$biz: ordr}}\nbusinesses:\n  order:\n    pool: order\n";
        assert_eq!(place(text, "the pool `order`: no node has $biz: `ordr`"), (2, 26));
        assert_eq!(place(text, "nothing is quoted"), (1, 1));
    }
}
