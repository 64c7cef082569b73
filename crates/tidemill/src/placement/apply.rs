//! `tidemill apply` and `rollback`: the steps of a kept plan, each recorded before it runs.
//!
//! Layout, in the node's `data_dir`:
//!
//! ```text
//! placement/lock        held by who applies
//! placement/NAME.json   a plan, as `tidemill plan` made it
//! placement/NAME.log    what was done of it, a line of JSON each: {"step":0,"mark":"begun"}, then "done"; "undoing", then "undone"
//! ```
//!
//! A line is on disk before the next thing happens. After a crash the last line tells which step may or may not have run; the
//! cluster is asked which. A plan that begins wants the whole cluster as it was seen; one that goes on, or back, wants its own
//! objects as it left them, and tells of the rest. Whatever differs ends the run before anything is changed.
//!
//! A plan's name depends on the state it was made of, so a cluster that was rebuilt, or set back by hand, can have the plan of an
//! earlier one. When nothing of a log is in effect, the log becomes `NAME.log.old`, and a new one begins.

use super::Subject;
use crate::commands::many;
use crate::failure::Failure;
use crate::project::NodeConfig;
use ::placement::plan::{Plan, Step};
use ::placement::state::Observed;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Begun,
    Done,
    Undoing,
    Undone,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Line {
    step: usize,
    mark: Mark,
}

fn folder(node: &NodeConfig) -> PathBuf {
    node.data_dir.join("placement")
}

/// Keeps a plan, so that its name means it.
pub fn keep(node: &NodeConfig, plan: &Plan) -> Result<(), Failure> {
    let folder = folder(node);
    let kept = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.json", plan.name));
        let draft = folder.join(format!("{}.json.new", plan.name));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(plan)?)?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        sync(&folder)?;
        sync(&node.data_dir)
    };
    kept().map_err(|error| Failure::io("keep the plan", &error))
}

/// Makes the names in a folder outlive a loss of power.
fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A plan that is being worked on, and how far it is.
struct Work {
    plan: Plan,
    folder: PathBuf,
    log: File,
    /// Steps that are done.
    done: usize,
    /// What began last and may have ended: `Begun` of the step `done`, or `Undoing` of the one before.
    open: Option<Mark>,
    _lock: File,
}

impl Work {
    fn open(node: &NodeConfig, name: &str) -> Result<Self, Failure> {
        let folder = folder(node);
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_hexdigit());
        let unknown = || {
            Failure::new(2, format!("there is no plan `{name}`"))
                .hint("`tidemill plan` makes one and tells its name")
        };
        let path = folder.join(format!("{name}.json"));
        if !is_name || !path.exists() {
            return Err(unknown());
        }
        // Before anything is read: another one may write on.
        let lock = File::create(folder.join("lock")).map_err(|error| Failure::io("open the lock", &error))?;
        if lock.try_lock().is_err() {
            return Err(Failure::new(1, "another `tidemill apply` or `rollback` is at work here")
                .hint("wait until it has ended"));
        }
        let text = fs::read(path).map_err(|_| unknown())?;
        let plan: Plan = serde_json::from_slice(&text)
            .map_err(|error| Failure::new(1, format!("failed to read the plan {name}: {error}")))?;
        let (log, text) =
            open_log(&folder, name).map_err(|error| Failure::io("open the plan's log", &error))?;
        let (done, open, whole) = position(&text, plan.steps.len())
            .ok_or_else(|| Failure::new(1, format!("the log of the plan {name} is damaged")))?;
        if whole < text.len() {
            // A line that was cut off says nothing; the next one shall stand alone.
            log.set_len(whole as u64).map_err(|error| Failure::io("mend the plan's log", &error))?;
        }
        Ok(Self { plan, folder, log, done, open, _lock: lock })
    }

    /// Lays the log aside, of which nothing is in effect, and begins another.
    fn begin_anew(&mut self) -> Result<(), Failure> {
        let name = &self.plan.name;
        let anew = || -> std::io::Result<File> {
            let path = self.folder.join(format!("{name}.log"));
            fs::rename(&path, self.folder.join(format!("{name}.log.old")))?;
            Ok(open_log(&self.folder, name)?.0)
        };
        self.log = anew().map_err(|error| Failure::io("begin a new log of the plan", &error))?;
        self.done = 0;
        Ok(())
    }

    fn note(&mut self, step: usize, mark: Mark) -> Result<(), Failure> {
        let mut write = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(&Line { step, mark })?;
            line.push(b'\n');
            self.log.write_all(&line)?;
            self.log.sync_data()
        };
        write().map_err(|error| Failure::io("note a step", &error))
    }

    /// Finds out how far the cluster is, or what is not as the plan left it. Tells what is not as it was and does not matter.
    async fn settle(&mut self, subject: &mut Subject, is_back: bool) -> Result<Vec<String>, Failure> {
        let observed = subject.observe().await?;
        let others = match self.open {
            Some(Mark::Begun) => vec![self.done, self.done + 1],
            Some(Mark::Undoing) => vec![self.done, self.done - 1],
            _ => vec![self.done],
        };
        let mut drift = None;
        for done in others {
            match self.plan.drift(&observed, done) {
                None => {
                    match self.open.take() {
                        Some(Mark::Begun) if done > self.done => self.note(self.done, Mark::Done)?,
                        Some(Mark::Undoing) if done < self.done => self.note(done, Mark::Undone)?,
                        _ => {}
                    }
                    self.done = done;
                    return self.admit(&observed, is_back);
                }
                Some(why) => drift = drift.or(Some(why)),
            }
        }
        if self.open.is_none() && self.plan.drift(&observed, 0).is_none() {
            self.begin_anew()?;
            return self.admit(&observed, is_back);
        }
        Err(self.differs(&drift.unwrap_or_default()))
    }

    fn differs(&self, what: &str) -> Failure {
        Failure::new(4, format!("the cluster is not as the plan {} left it: {what}", self.plan.name))
            .hint("nothing was changed; make a new plan: `tidemill plan`")
    }

    /// Whether the rest of the cluster is such that the plan may go on: it may be any when the plan is under way.
    fn admit(&self, observed: &Observed, is_back: bool) -> Result<Vec<String>, Failure> {
        let mut told = Vec::new();
        if !self.plan.is_as_planned(observed, self.done) {
            let what =
                "its version, a store or a label, another policy or group, or tables that came or went";
            if self.done == 0 && !is_back {
                return Err(self.differs(&format!("it is another one since: {what}")));
            }
            told.push(format!("the cluster is another one since the plan was made: {what}"));
        }
        if is_back {
            let hanging = self.plan.hangers_on(observed, self.done);
            if !hanging.is_empty() {
                told.push(format!(
                    "what this plan made cannot be dropped while {} use it: give them another policy or group",
                    hanging.join(", ")
                ));
            }
        }
        Ok(told)
    }
}

/// A plan's log, made when there is none, and what it says.
fn open_log(folder: &Path, name: &str) -> std::io::Result<(File, String)> {
    let path = folder.join(format!("{name}.log"));
    let is_new = !path.exists();
    let log = OpenOptions::new().create(true).append(true).open(&path)?;
    if is_new {
        sync(folder)?;
    }
    Ok((log, fs::read_to_string(path)?))
}

/// How many steps a log says are done, what is open behind them, and how many bytes of it are whole lines.
fn position(text: &str, steps: usize) -> Option<(usize, Option<Mark>, usize)> {
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    let (mut done, mut open) = (0, None);
    for line in text[..whole].lines() {
        let line: Line = serde_json::from_str(line).ok()?;
        match line.mark {
            Mark::Begun if line.step == done && done < steps => open = Some(Mark::Begun),
            Mark::Done if line.step == done && done < steps => (done, open) = (done + 1, None),
            Mark::Undoing if line.step + 1 == done => open = Some(Mark::Undoing),
            Mark::Undone if line.step + 1 == done => (done, open) = (line.step, None),
            _ => return None,
        }
    }
    Some((done, open, whole))
}

/// Runs one statement between two looks at its object.
async fn run(subject: &mut Subject, step: &Step) -> Result<(), Failure> {
    let before = subject.cluster.state(&step.object).await?;
    if before.as_ref() != Some(&step.from) {
        let found = before.map_or_else(|| "it is gone".to_owned(), |state| format!("it is {state}"));
        let message = format!("{} is not as the plan left it: {found}", step.object);
        return Err(
            Failure::new(4, message).hint("nothing more was changed; make a new plan: `tidemill plan`")
        );
    }
    subject.cluster.run(&step.statement).await?;
    let after = subject.cluster.state(&step.object).await?;
    if after.as_ref() != Some(&step.to) {
        let found = after.map_or_else(|| "it is gone".to_owned(), |state| format!("it is {state}"));
        let message = format!("`{}` ran, and {} is not what it sets: {found}", step.statement, step.object);
        return Err(Failure::new(1, message).hint("`tidemill plan` shows what is left to do"));
    }
    Ok(())
}

async fn begin(dir: &Path, name: &str, is_back: bool) -> Result<(Subject, Work), Failure> {
    let mut subject = Subject::reach(dir).await?;
    let mut work = Work::open(&subject.node, name)?;
    subject.cluster.lock().await?;
    for told in work.settle(&mut subject, is_back).await? {
        eprintln!("warning: {told}");
    }
    Ok((subject, work))
}

/// `tidemill apply NAME`
pub async fn apply(dir: &Path, name: &str, quiet: bool) -> Result<(), Failure> {
    let (mut subject, mut work) = begin(dir, name, false).await?;
    let (first, steps) = (work.done, work.plan.steps.clone());
    for (at, step) in steps.iter().enumerate().skip(first) {
        work.note(at, Mark::Begun)?;
        run(&mut subject, step).await?;
        work.note(at, Mark::Done)?;
        if !quiet {
            println!("{}/{}  {}", at + 1, steps.len(), step.statement);
        }
    }
    if !quiet {
        println!(
            "{} applied; `tidemill verify` tells whether the data has arrived",
            many(steps.len() - first, "step")
        );
    }
    Ok(())
}

/// `tidemill rollback NAME`
pub async fn rollback(dir: &Path, name: &str, quiet: bool) -> Result<(), Failure> {
    let (mut subject, mut work) = begin(dir, name, true).await?;
    let (done, steps) = (work.done, work.plan.steps.clone());
    for (at, step) in steps.iter().enumerate().take(done).rev() {
        let back = step.reversed();
        work.note(at, Mark::Undoing)?;
        run(&mut subject, &back).await?;
        work.note(at, Mark::Undone)?;
        if !quiet {
            println!("{}/{done}  {}", done - at, back.statement);
        }
    }
    if !quiet {
        println!("{} taken back", many(done, "step"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_how_far_a_plan_is() {
        let line = |step: usize, mark: &str| format!("{{\"step\":{step},\"mark\":\"{mark}\"}}\n");
        let mut text = line(0, "begun") + &line(0, "done") + &line(1, "begun");
        assert_eq!(position(&text, 2), Some((1, Some(Mark::Begun), text.len())));
        let whole = text.len();
        text.push_str("{\"step\":1,\"ma");
        assert_eq!(position(&text, 2), Some((1, Some(Mark::Begun), whole)));
        text.truncate(whole);
        text += &(line(1, "done") + &line(1, "undoing"));
        assert_eq!(position(&text, 2), Some((2, Some(Mark::Undoing), text.len())));
        text += &(line(1, "undone") + &line(1, "begun") + &line(1, "begun"));
        assert_eq!(position(&text, 2), Some((1, Some(Mark::Begun), text.len())));
        assert_eq!(position("", 2), Some((0, None, 0)));
        assert_eq!(position(&line(1, "done"), 2), None);
        assert_eq!(position("nonsense\n", 2), None);
    }
}
