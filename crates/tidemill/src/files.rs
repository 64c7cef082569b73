//! The files of a project folder, each read into its struct, and the parser's complaints in the words of the file.

use crate::project::Problem;
use base::near::nearest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const KEYS_HINT: &str = "see docs/reference/config.md for every key";

/// Kinds that README's table calls "not yet".
const SOURCES_NOT_YET: [&str; 3] = ["postgres", "postgresql", "oracle"];
/// Kinds and modes that another struct reads, so that its own list of them is not the whole one.
const SOURCES_COLLECTED: [&str; 4] = collect::SourceConfig::KINDS;
const MODES_COLLECTED: [&str; 3] = ["full", "cursor", "key_diff"];

/// What a folder holds: the files that could be read, by name, and the names of those that could not.
pub struct Folder<T> {
    pub good: BTreeMap<String, T>,
    /// Told already: whoever refers to one of these makes no mistake of its own.
    pub broken: BTreeSet<String>,
}

/// Reads one file, or adds why it cannot be read.
pub fn read<T: DeserializeOwned>(dir: &Path, name: &str, problems: &mut Vec<Problem>) -> Option<T> {
    let mut add = |line, column, message: String, hint: String| {
        problems.push(Problem { path: name.to_owned(), line, column, message, hint });
    };
    let text = match fs::read_to_string(dir.join(name)) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("failed to read the file: {error}");
            add(1, 1, message, "`tidemill init` writes a project; `-C DIR` names another folder".into());
            return None;
        }
    };
    match serde_saphyr::from_str(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
            let (message, hint) = worded(error.without_snippet(), name, &text, line);
            add(line, column, message, hint);
            None
        }
    }
}

/// The keys of a file that say which struct reads it; nothing of what cannot be read at all.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Peeked {
    pub kind: Option<String>,
    pub mode: Option<String>,
    pub url: Option<String>,
}

pub fn peek(dir: &Path, name: &str) -> Peeked {
    let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
    serde_saphyr::from_str(&text).unwrap_or_default()
}

/// Reads every file of a folder; one that is not `NAME.yaml` would be passed over in silence, so it is a mistake.
pub fn read_folder<T: DeserializeOwned>(dir: &Path, folder: &str, problems: &mut Vec<Problem>) -> Folder<T> {
    read_folder_with(dir, folder, problems, |path, problems| read(dir, path, problems))
}

/// [`read_folder`] of files that are read in different ways.
pub fn read_folder_with<T>(
    dir: &Path,
    folder: &str,
    problems: &mut Vec<Problem>,
    mut read: impl FnMut(&str, &mut Vec<Problem>) -> Option<T>,
) -> Folder<T> {
    let mut out = Folder { good: BTreeMap::new(), broken: BTreeSet::new() };
    for file in names(dir, folder) {
        let path = format!("{folder}/{file}");
        let mut refuse = |message: String, hint: String| {
            problems.push(Problem { path: path.clone(), line: 1, column: 1, message, hint });
        };
        let Some(name) = file.strip_suffix(".yaml") else {
            let stem = file.split('.').next().unwrap_or_default();
            refuse(
                "a file that does not end in .yaml is not read".into(),
                format!("rename it to {stem}.yaml, or move it elsewhere"),
            );
            out.broken.insert(stem.to_owned());
            continue;
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            refuse(format!("`{name}` is not a name"), "use letters, digits, _ and -, at most 64".into());
            out.broken.insert(name.to_owned());
            continue;
        }
        match read(&path, problems) {
            Some(value) => {
                out.good.insert(name.to_owned(), value);
            }
            None => {
                out.broken.insert(name.to_owned());
            }
        }
    }
    out
}

/// The files of a folder that are not hidden, in order.
pub fn names(dir: &Path, folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.join(folder)) else { return Vec::new() };
    let files = entries.flatten().filter(|entry| !entry.path().is_dir());
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// A message and a hint for what the parser says of one line.
fn worded(error: &Error, path: &str, text: &str, line: u64) -> (String, String) {
    let known = |names: &[&str]| format!("there are: {}", names.join(", "));
    let hint_of = |word: &str, names: &[&str]| match nearest(word, names.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`? {}", known(names)),
        None => known(names),
    };
    let key = key_of(text, line);
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("there is no key `{field}` here"), hint_of(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } if key == "kind" => {
            let (what, not_yet): (_, &[&str]) = match path.split('/').next() {
                Some("sources") => ("source", &SOURCES_NOT_YET),
                _ => ("sink", &[]),
            };
            let mut expected = expected.to_vec();
            if what == "source" {
                expected.extend(SOURCES_COLLECTED);
            }
            let message = if not_yet.contains(&variant.as_str()) {
                format!("a {what} of kind `{variant}` is planned, but this version has none yet")
            } else {
                format!("there is no kind of {what} `{variant}`")
            };
            (message, hint_of(variant, &expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. }
            if key == "mode" && expected.contains(&"stream") =>
        {
            let all: Vec<&str> = expected.iter().copied().chain(MODES_COLLECTED).collect();
            (format!("`mode` cannot be `{variant}`"), hint_of(variant, &all))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("`{key}` cannot be `{variant}`"), hint_of(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => (format!("`{field}` is missing"), KEYS_HINT.into()),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("`{key}` is there twice"), "keep one of them".into())
        }
        Error::Eof { .. } if text.trim().is_empty() => ("the file is empty".into(), KEYS_HINT.into()),
        Error::Unexpected { expected: "sequence start", .. } if key == "tables" || key == "exclude" => {
            (format!("`{key}` must be a list, for example [\"shop.*\"]"), KEYS_HINT.into())
        }
        Error::Unexpected { expected, .. } if !key.is_empty() => {
            let shape = match *expected {
                "sequence start" => "a list: [one, two]",
                "mapping start" => "an object: {key: value}",
                "string scalar" => "one text",
                other => other,
            };
            (format!("`{key}` must be {shape}"), KEYS_HINT.into())
        }
        Error::InvalidScalar { ty, .. } => {
            let value = if ty.starts_with(['u', 'i']) { "a whole number in its bounds" } else { *ty };
            (format!("a value of `{key}` must be {value}"), KEYS_HINT.into())
        }
        other if key == "verify" || key == "schedule" => {
            let hint = format!("minute, hour, day, month, weekday: {key}: \"0 4 * * *\" is 04:00 each day");
            (without_place(&other.to_string()), hint)
        }
        other => (without_place(&other.to_string()), KEYS_HINT.into()),
    }
}

/// The key that a line begins with.
fn key_of(text: &str, line: u64) -> &str {
    let line = text.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default();
    let key = line.trim_start_matches([' ', '-']).split_once(':').map_or("", |(key, _)| key.trim());
    key.trim_matches(['"', '\''])
}

/// The parser ends its messages with the place, which a problem has in front.
fn without_place(message: &str) -> String {
    match message.rsplit_once(" at line ") {
        Some((before, place)) if place.starts_with(|c: char| c.is_ascii_digit()) => before.to_owned(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::config::{FlowConfig, SinkConfig, SourceConfig};

    fn told<T: DeserializeOwned>(path: &str, text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        let mut problems = Vec::new();
        assert!(read::<T>(dir.path(), path, &mut problems).is_none(), "{text}");
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_parser_refuses_is_told_in_the_words_of_the_file() {
        let source = |text: &str| told::<SourceConfig>("sources/a.yaml", text);
        let flow = |text: &str| told::<FlowConfig>("flows/a.yaml", text);
        for (message, wanted) in [
            (
                source("kind: mysql\ntables: shop.*\n"),
                "a.yaml:2:9: `tables` must be a list, for example [\"shop.*\"]\n",
            ),
            (
                source("kind: mysql\nurll: x\n"),
                "a.yaml:2:1: there is no key `urll` here\n  hint: did you mean `url`? there are: kind, url, ",
            ),
            (
                source("kind: oracle\n"),
                "1:7: a source of kind `oracle` is planned, but this version has none yet\n  hint: there are: mysql, ",
            ),
            (source("kind: mysqll\n"), "there is no kind of source `mysqll`\n  hint: did you mean `mysql`?"),
            (
                told::<SinkConfig>(
                    "sinks/a.yaml",
                    "kind: mongo
",
                ),
                "there is no kind of sink `mongo`",
            ),
            (
                flow(
                    "from: a
",
                ),
                "`to` is missing
",
            ),
            (source(""), ":1:1: the file is empty\n"),
            (
                source("kind: mysql\non_gap: wait\ntables: []\n"),
                "2:9: `on_gap` cannot be `wait`\n  hint: there are: fail, ",
            ),
            (source("kind: mysql\ntables: []\noptions: 3\n"), "`options` must be an object"),
            (
                source("kind: mysql\ntables: []\noptions:\n  server_id: x\n"),
                "4:14: a value of `server_id` must be a whole number",
            ),
            (flow("from: a\nfrom: b\nto: c\n"), "2:1: `from` is there twice\n"),
            (flow("from: [a\nto: c\n"), "a.yaml:"),
        ] {
            assert!(message.contains(wanted), "{message}\nwanted: {wanted}");
            assert!(!message.contains(" at line "), "{message}");
        }
    }
}
