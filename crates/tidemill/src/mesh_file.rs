//! `mesh.yaml` as the truth of a running mesh: it is read again by a reload, and a change of a group's servers is written
//! into it.
//!
//! A change writes the new file beside the old one, checks it whole, takes it into use, and gives it the old one's name. What
//! fails in between leaves the old file in its place and in use. Only the list of servers is written anew: every other byte,
//! comments too, stays. Where that cannot be done for sure it is refused.

use crate::mesh::{FILE, read};
use crate::project::Problem;
use base::{Code, Fault};
use mesh::{BackendConfig, BackendsChange, Keeper, Mesh, MeshConfig, Refusal};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const BY_HAND: &str = "change the file by hand, and `tidemill mesh reload`";

/// The file, and what goes by it.
#[derive(Debug)]
pub struct MeshFile {
    dir: PathBuf,
    mesh: Arc<Mesh>,
    changing: Mutex<()>,
}

impl MeshFile {
    pub fn new(dir: &Path, mesh: &Arc<Mesh>) -> Self {
        Self { dir: dir.to_owned(), mesh: mesh.clone(), changing: Mutex::new(()) }
    }

    /// The servers of a group, as the file has them.
    pub fn backends(&self, group: &str) -> Result<Vec<BackendConfig>, Refusal> {
        let text = fs::read_to_string(self.dir.join(FILE)).map_err(|error| unreadable(&error))?;
        Ok(backends_in(&text, group)?.0)
    }

    /// Takes what a file says into use.
    fn take(&self, file: &str) -> Result<(), Refusal> {
        let mut problems = Vec::new();
        let config = read(&self.dir, file, true, &mut problems);
        let config: MeshConfig = match config {
            Some(config) if problems.is_empty() => config,
            _ => return Err(mistakes(problems)),
        };
        self.mesh.reload(&config).map_err(|error| {
            let message = format!("nothing has changed: {}", base::error::chain(&error));
            Refusal::new(error.code(), message, error.hint().unwrap_or_default())
        })
    }
}

fn unreadable(error: &io::Error) -> Refusal {
    let message = format!("nothing has changed: failed to read {FILE}: {error}");
    Refusal::new(Code::FailedPrecondition, message, "it is in the project's folder, next to tidemill.yaml")
}

fn mistakes(problems: Vec<Problem>) -> Refusal {
    let told = problems.into_iter().map(|mut problem| {
        if problem.path.contains(".new") {
            FILE.clone_into(&mut problem.path);
        }
        problem.to_string()
    });
    let told: Vec<_> = told.collect();
    let message = format!("nothing has changed:\n{}", told.join("\n"));
    Refusal::new(Code::Invalid, message, "mend mesh.yaml, and `tidemill check` until it says ok")
}

/// A file that is removed, unless it has got another name.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Keeper for MeshFile {
    fn reload(&self) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(FILE)
    }

    fn change_backends(&self, group: &str, change: BackendsChange) -> Result<bool, Refusal> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the name is a link, the file that it leads to is written.
        let path = fs::canonicalize(self.dir.join(FILE)).map_err(|error| unreadable(&error))?;
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
        let (list, _) = backends_in(&text, group)?;
        let (list, made) = change.apply(&list)?;
        let changed = with_backends(&text, group, &list)?;
        let unwritable = |error: io::Error| {
            let message = format!("nothing has changed: failed to write {}: {error}", path.display());
            Refusal::new(Code::FailedPrecondition, message, BY_HAND)
        };
        let draft = Draft(path.with_file_name(format!(".{FILE}.new")));
        write(&draft.0, &path, &changed).map_err(unwritable)?;
        let name = draft.0.to_string_lossy().into_owned();
        self.take(&name)?;
        let same = fs::read_to_string(&path).is_ok_and(|now| now == text);
        let renamed = match same {
            true => fs::rename(&draft.0, &path),
            false => Err(io::Error::other("somebody else has changed it meanwhile")),
        };
        if let Err(error) = renamed {
            // What is in use is what the file says.
            if let Err(refusal) = self.take(FILE) {
                tracing::error!(error = refusal.message, "mesh.yaml is not in use as it is");
            }
            return Err(unwritable(error));
        }
        if let Some(folder) = path.parent() {
            let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(made)
    }
}

/// Writes a new file with the rights of an old one, down to the disk.
fn write(new: &Path, old: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(new)?;
    file.set_permissions(fs::metadata(old)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[derive(Deserialize)]
struct Document {
    groups: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
struct Group {
    /// Absent where a group finds its servers.
    backends: Option<Spanned<Vec<BackendConfig>>>,
}

/// The servers of a group, and at which byte their list begins.
fn backends_in(text: &str, group: &str) -> Result<(Vec<BackendConfig>, usize), Refusal> {
    let mut document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let message = format!("nothing has changed: failed to read {FILE}: {}", error.without_snippet());
        Refusal::new(Code::Invalid, message, "`tidemill check` tells where")
    })?;
    let Some(Group { backends }) = document.groups.remove(group) else {
        let known: Vec<_> = document.groups.keys().map(String::as_str).collect();
        let hint = format!("groups are: {}", known.join(", "));
        return Err(Refusal::new(Code::NotFound, format!("there is no group `{group}`"), hint));
    };
    let Some(backends) = backends else {
        let message = format!("nothing has changed: group `{group}` has no list of `backends` in {FILE}");
        return Err(Refusal::new(Code::FailedPrecondition, message, BY_HAND));
    };
    let start = backends.referenced.span().byte_offset().map_or(usize::MAX, |at| at as usize);
    let start = if backends.referenced == backends.defined { start } else { usize::MAX };
    Ok((backends.value, start))
}

/// The file with another list of servers for a group, and nothing else of it changed.
fn with_backends(text: &str, group: &str, list: &[BackendConfig]) -> Result<String, Refusal> {
    let unsure = || {
        let message = format!(
            "nothing has changed: the list of servers of `{group}` in {FILE} cannot be changed for sure"
        );
        Refusal::new(Code::FailedPrecondition, message, BY_HAND)
    };
    let (old, start) = backends_in(text, group)?;
    let changed = match text.get(start..) {
        None => None,
        Some(rest) if rest.starts_with('[') => in_brackets(text, start, list),
        // Of dashes no deeper than the key, the parser tells the place behind the first.
        Some(_) => {
            let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
            let dash = text[begin..].find('-').map(|at| begin + at).filter(|dash| *dash <= start);
            dash.and_then(|dash| in_lines(text, dash, &old, list))
        }
    };
    let changed = changed.ok_or_else(unsure)?;
    // Whatever was thought of the text: the parser says that the list is this one, and all else as it was.
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).ok();
    let (Some(mut before), Some(mut after)) = (parse(text), parse(&changed)) else { return Err(unsure()) };
    let take = |value: &mut Value| value["groups"][group]["backends"].take();
    take(&mut before);
    let now: Option<Vec<BackendConfig>> = serde_json::from_value(take(&mut after)).ok();
    if before != after || now.as_deref() != Some(list) {
        return Err(unsure());
    }
    Ok(changed)
}

/// `{addr: "a:1", role: replica}`
fn flow(backend: &BackendConfig) -> Option<String> {
    let value = serde_json::to_value(backend).ok()?;
    let pairs = ["addr", "role", "weight", "zone", "status"];
    let pairs: Vec<_> = pairs.iter().filter_map(|key| Some(format!("{key}: {}", value.get(key)?))).collect();
    Some(format!("{{{}}}", pairs.join(", ")))
}

/// A list in brackets, which begins at `start`.
fn in_brackets(text: &str, start: usize, list: &[BackendConfig]) -> Option<String> {
    let (mut depth, mut quote, mut comment, mut escaped, mut end) = (0, None, false, false, None);
    let mut before = ' ';
    for (at, c) in text[start..].char_indices() {
        match (quote, c) {
            _ if comment => comment = c != '\n',
            (Some('"'), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (None, '#') if before.is_whitespace() => comment = true,
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => {
                depth -= 1;
                if depth == 0 {
                    end = Some(start + at + 1);
                    break;
                }
            }
            _ => {}
        }
        before = c;
    }
    let items: Vec<_> = list.iter().map(flow).collect::<Option<_>>()?;
    Some(format!("{}[{}]{}", &text[..start], items.join(", "), &text[end?..]))
}

/// A list with an item a line or several, the first of which begins at `start`. Servers that stay keep their lines.
fn in_lines(text: &str, start: usize, old: &[BackendConfig], list: &[BackendConfig]) -> Option<String> {
    let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let indent = &text[begin..start];
    if !indent.chars().all(|c| c == ' ') {
        return None;
    }
    let (mut items, mut end, mut at) = (Vec::new(), begin, begin);
    for line in text[begin..].split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        let depth = line.len() - content.len();
        let empty = content.trim().is_empty() || content.starts_with('#');
        let item = depth == indent.len() && (content.starts_with("- ") || content.trim_end() == "-");
        if !empty && depth <= indent.len() && !item {
            break;
        }
        if item {
            items.push(at);
        }
        at += line.len();
        if !empty {
            end = at;
        }
    }
    if items.len() != old.len() {
        return None;
    }
    items.push(end);
    let mut lines = String::new();
    for backend in list {
        match old.iter().position(|known| known == backend) {
            Some(index) => lines.push_str(&text[items[index]..items[index + 1]]),
            None => lines.push_str(&format!("{indent}- {}\n", flow(backend)?)),
        }
        if !lines.ends_with('\n') {
            lines.push('\n');
        }
    }
    if list.is_empty() {
        lines = format!("{indent}  []\n");
    }
    Some(format!("{}{lines}{}", &text[..begin], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(addr: &str) -> BackendConfig {
        serde_json::from_value(serde_json::json!({"addr": addr})).unwrap()
    }

    fn changed(text: &str, change: BackendsChange) -> Result<String, Refusal> {
        let (list, _) = backends_in(text, "shop")?;
        with_backends(text, "shop", &change.apply(&list)?.0)
    }

    #[test]
    fn only_the_list_of_servers_is_written_anew() {
        let brackets = "# top\ngroups:\n  other: {backends: [{addr: x:1}]}\n  shop:\n    backends: [{addr: \"a:1\"}, # ] no end\n               {addr: b:1}]   # behind\n    auth: relay\n";
        assert_eq!(
            changed(brackets, BackendsChange::Remove("b:1".into())).unwrap(),
            "# top\ngroups:\n  other: {backends: [{addr: x:1}]}\n  shop:\n    backends: [{addr: \"a:1\"}]   # behind\n    auth: relay\n"
        );
        for indent in ["", "  "] {
            let lines = format!(
                "groups:\n  shop:\n    backends:\n    {indent}# the first\n    {indent}- addr: a:1   # here\n    {indent}  weight: 2\n    {indent}- {{addr: b:1}}\n\n    # behind\n    auth: relay\n"
            );
            assert_eq!(
                changed(&lines, BackendsChange::Add(backend("c:1"))).unwrap(),
                lines.replace(
                    &format!("{indent}- {{addr: b:1}}\n"),
                    &format!("{indent}- {{addr: b:1}}\n    {indent}- {{addr: \"c:1\"}}\n")
                )
            );
            assert_eq!(
                changed(&lines, BackendsChange::Remove("b:1".into())).unwrap(),
                lines.replace(&format!("    {indent}- {{addr: b:1}}\n"), "")
            );
        }
        let last = "groups:\n  shop:\n    backends:\n      - addr: a:1";
        assert!(
            changed(last, BackendsChange::Add(backend("b:1")))
                .unwrap()
                .ends_with("- addr: a:1\n      - {addr: \"b:1\"}\n")
        );
    }

    #[test]
    fn what_cannot_be_changed_for_sure_is_refused() {
        let alias = "list: &l [{addr: a:1}]\ngroups:\n  shop:\n    backends: *l\n";
        assert_eq!(
            changed(alias, BackendsChange::Add(backend("b:1"))).unwrap_err().code,
            Code::FailedPrecondition
        );
        let shared = "groups:\n  shop:\n    backends: &l [{addr: a:1}]\n  other:\n    backends: *l\n";
        assert!(changed(shared, BackendsChange::Add(backend("b:1"))).is_err());
        let none = "groups:\n  other: {backends: [{addr: a:1}]}\n";
        let refused = changed(none, BackendsChange::Add(backend("b:1"))).unwrap_err();
        assert!(refused.code == Code::NotFound && refused.hint.contains("other"), "{refused:?}");
    }
}
