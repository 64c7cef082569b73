//! The warehouse's files, read and held against each other.

use crate::project::{Problem, Project};
use ::warehouse::graph::{Graph, Node};
use ::warehouse::model::{self, Model};
use ::warehouse::unit::{TestConfig, TestFile};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders inside each other below `models/`.
const DEPTH_MAX: usize = 8;
/// Bytes of a model's file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads every model, and adds what is wrong with them.
pub fn models(dir: &Path, problems: &mut Vec<Problem>) -> Vec<Model> {
    let mut files = Vec::new();
    walk(dir, "models", 0, &mut files);
    files.sort();
    let mut models: Vec<Model> = Vec::new();
    for path in files {
        let mut add = |line, column, message: String, hint: String| {
            problems.push(Problem { path: path.clone(), line, column, message, hint });
        };
        if !path.ends_with(".sql") {
            add(
                1,
                1,
                "a file that does not end in .sql is not read".into(),
                "rename it, or move it elsewhere".into(),
            );
            continue;
        }
        let file = dir.join(&path);
        let large = fs::metadata(&file).is_ok_and(|it| it.len() > FILE_BYTES_MAX);
        let text = match fs::read_to_string(&file) {
            Ok(_) if large => {
                add(1, 1, "the file is larger than 1 MiB".into(), "a model is one SELECT".into());
                continue;
            }
            Ok(text) => text,
            Err(error) => {
                add(
                    1,
                    1,
                    format!("failed to read the file: {error}"),
                    "it must be UTF-8, and yours to read".into(),
                );
                continue;
            }
        };
        match model::parse(&path, &text) {
            Ok(model) => match models.iter().find(|it| it.name.eq_ignore_ascii_case(&model.name)) {
                Some(other) => {
                    let message = format!("`{}` is made by {} too", model.name, other.path);
                    add(1, 1, message, "a table has one model".into());
                }
                None => models.push(model),
            },
            Err(mistakes) => {
                for mistake in mistakes {
                    add(mistake.line, mistake.column, mistake.message, mistake.hint);
                }
            }
        }
    }
    models
}

fn walk(dir: &Path, folder: &str, depth: usize, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir.join(folder)) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{folder}/{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => walk(dir, &path, depth + 1, files),
            Ok(kind) if kind.is_dir() => {}
            _ => files.push(path),
        }
    }
}

/// Every test of models, by file and name.
pub fn tests(dir: &Path, problems: &mut Vec<Problem>) -> Vec<(String, String, TestConfig)> {
    let mut all = Vec::new();
    let read = crate::files::read_folder::<TestFile>(dir, "tests", problems);
    for (file, tests) in read.good {
        all.extend(tests.into_iter().map(|(name, test)| (format!("tests/{file}.yaml"), name, test)));
    }
    all
}

/// What stands on what.
pub fn graph(project: &Project) -> Graph {
    let targets = targets(project);
    let node_of = |table: &str| {
        let model = project.models.iter().find(|it| it.name.eq_ignore_ascii_case(table));
        let flow = || {
            let found = targets.iter().find(|(target, _)| fits(target, table));
            found.map(|(_, flow)| Node::Flow(flow.clone()))
        };
        model.map(|it| Node::Model(it.name.clone())).or_else(flow)
    };
    let named = |name: &str| match project.collections.contains_key(name) {
        true => Some(Node::Flow(name.to_owned())),
        false => node_of(name),
    };
    let mut graph = Graph::default();
    for (name, flow) in &project.collections {
        graph.add(Node::Flow(name.clone()), flow.after.iter().filter_map(|it| named(it)));
    }
    for model in &project.models {
        let of_checks = model.config.checks.iter().flat_map(|check| check.reads());
        let reads = model.reads.iter().cloned().chain(of_checks).filter_map(|it| node_of(&it));
        let after = model.config.after.iter().filter_map(|it| named(it));
        let own = Node::Model(model.name.clone());
        graph.add(own.clone(), reads.chain(after).filter(|it| *it != own));
    }
    graph
}

/// The datasets that flows fill, and which flow.
fn targets(project: &Project) -> Vec<(String, String)> {
    project.collections.iter().map(|(name, flow)| (flow.to.clone(), name.clone())).collect()
}

/// Whether a flow's target, `ods.erp_*`, is a table's name.
fn fits(target: &str, table: &str) -> bool {
    match target.split_once('*') {
        None => target.eq_ignore_ascii_case(table),
        Some((before, after)) => {
            let (before, after, table) = (before.to_lowercase(), after.to_lowercase(), table.to_lowercase());
            table.len() >= before.len() + after.len() && table.starts_with(&before) && table.ends_with(&after)
        }
    }
}

/// Adds what is wrong between the files.
pub fn check(project: &Project, problems: &mut Vec<Problem>) {
    let dir = &project.dir;
    let mut add = |path: &str, word: &str, message: String, hint: &str| {
        let text = fs::read_to_string(dir.join(path)).unwrap_or_default();
        let found = text.lines().enumerate().find_map(|(line, it)| Some((line, it.find(word)?)));
        let (line, column) = found.map_or((1, 1), |(line, column)| (line as u64 + 1, column as u64 + 1));
        problems.push(Problem { path: path.to_owned(), line, column, message, hint: hint.to_owned() });
    };
    if let (None, Some(model)) = (&project.node.engine, project.models.first()) {
        let hint = "write `engine: sqlite:./data/warehouse.db` in tidemill.yaml";
        add(&model.path, "", "the project has no engine for its models".into(), hint);
    }
    for model in &project.models {
        let taken = targets(project).into_iter().find(|(target, _)| fits(target, &model.name));
        if let Some((_, flow)) = taken {
            let message = format!("`{}` is filled by the flow `{flow}` too", model.name);
            add(&model.path, "", message, "give the model another name");
        }
        for name in &model.config.after {
            let known = project.collections.contains_key(name)
                || project.models.iter().any(|it| it.name.eq_ignore_ascii_case(name));
            if !known {
                let message =
                    format!("`after` names `{name}`, which is neither a flow that collects nor a model");
                add(&model.path, name, message, "a flow's name, or a model's dataset.table");
            }
        }
    }
    if let Some(cycle) = graph(project).cycle() {
        let names: Vec<&str> = cycle.iter().map(Node::name).collect();
        let model = project.models.iter().find(|it| names.contains(&it.name.as_str()));
        let path = model.map_or("models", |it| &it.path);
        let message = format!("these stand on each other: {}", names.join(" on "));
        add(path, "", message, "what one of them reads must come from elsewhere");
    }
    let mut unknown: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Vec::new();
    for (file, name, test) in tests(dir, &mut found) {
        if !project.models.iter().any(|it| it.name.eq_ignore_ascii_case(&test.model)) {
            unknown.insert(file, format!("the test `{name}` is of `{}`, which is no model", test.model));
        }
    }
    for (file, message) in unknown {
        add(&file, "model:", message, "model: dataset.table");
    }
    problems.append(&mut found);
}
