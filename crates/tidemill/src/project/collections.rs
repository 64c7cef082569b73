//! Flows that collect, and the sources that only they read.

use super::references::{resolve, resolve_all};
use super::{Broken, Problem, Project, References, SECRETS_HINT, Told, known};
use crate::files::{self, peek, read_folder_with};
use collect::config::TlsMode;
use collect::readers::mysql::MySqlSource;
use collect::readers::sqlite::SqliteSource;
use collect::{CollectConfig, Source};
use flow::config::{FlowConfig, SourceConfig, SourceKind};
use flow::patterns::Patterns;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The files of `sources/`, by who reads them.
pub(super) struct Sources {
    pub captured: BTreeMap<String, SourceConfig>,
    pub collected: BTreeMap<String, collect::SourceConfig>,
    pub broken: BTreeSet<String>,
}

enum AnySource {
    Captured(Box<SourceConfig>),
    Collected(Box<collect::SourceConfig>),
}

pub(super) fn read_sources(dir: &Path, problems: &mut Vec<Problem>) -> Sources {
    let all = read_folder_with(dir, "sources", problems, |path, problems| {
        use collect::SourceConfig as Collected;
        let peeked = peek(dir, path);
        let collected = match peeked.kind.as_deref() {
            Some("tidb") => files::read(dir, path, problems).map(Collected::Tidb),
            Some("files") => files::read(dir, path, problems).map(Collected::Files),
            Some("access") => files::read(dir, path, problems).map(Collected::Access),
            Some("singer") => files::read(dir, path, problems).map(Collected::Singer),
            // Without a URL it is one that others push to.
            Some("http") if peeked.url.is_some() => files::read(dir, path, problems).map(Collected::HttpApi),
            _ => return files::read(dir, path, problems).map(|it| AnySource::Captured(Box::new(it))),
        };
        collected.map(|it| AnySource::Collected(Box::new(it)))
    });
    let mut out = Sources { captured: BTreeMap::new(), collected: BTreeMap::new(), broken: all.broken };
    for (name, source) in all.good {
        match source {
            AnySource::Captured(source) => drop(out.captured.insert(name, *source)),
            AnySource::Collected(source) => drop(out.collected.insert(name, *source)),
        }
    }
    out
}

/// The files of `flows/`, by their mode.
pub(super) struct Flows {
    pub streams: BTreeMap<String, FlowConfig>,
    pub collections: BTreeMap<String, CollectConfig>,
}

enum AnyFlow {
    Stream(Box<FlowConfig>),
    Collection(Box<CollectConfig>),
}

pub(super) fn read_flows(dir: &Path, problems: &mut Vec<Problem>) -> Flows {
    let all =
        read_folder_with(dir, "flows", problems, |path, problems| match peek(dir, path).mode.as_deref() {
            Some("full" | "cursor" | "key_diff") => {
                files::read(dir, path, problems).map(|it| AnyFlow::Collection(Box::new(it)))
            }
            _ => files::read(dir, path, problems).map(|it| AnyFlow::Stream(Box::new(it))),
        });
    let mut out = Flows { streams: BTreeMap::new(), collections: BTreeMap::new() };
    for (name, flow) in all.good {
        match flow {
            AnyFlow::Stream(flow) => drop(out.streams.insert(name, *flow)),
            AnyFlow::Collection(flow) => drop(out.collections.insert(name, *flow)),
        }
    }
    out
}

impl Project {
    /// Checks what collects, and takes sources that only it names away from capture.
    pub(super) fn check_collections(
        &mut self,
        references: References,
        broken: &Broken,
        mut configs: BTreeMap<String, collect::SourceConfig>,
        told: &mut Told<'_>,
    ) {
        let mut found: BTreeMap<String, Source> = BTreeMap::new();
        for (name, config) in &mut configs {
            let path = format!("sources/{name}.yaml");
            for (url, schemes) in config.urls() {
                let mut holder = Some(url.clone());
                match resolve(&mut holder, schemes, references) {
                    Ok(()) => *url = holder.unwrap_or_default(),
                    Err((message, hint)) => {
                        let hint =
                            hint.unwrap_or_else(|| format!("url: {}user:${{env:PASSWORD}}@host", schemes[0]));
                        told.add(path.clone(), message, hint);
                    }
                }
            }
            if references == References::Resolve
                && let Err((message, hint)) = resolve_all(config.secrets().into_iter())
            {
                told.add(path.clone(), message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned()));
            }
            let checked = if references == References::Resolve { config.check(&self.dir) } else { Ok(()) };
            match checked.and_then(|()| config.source(&self.dir)) {
                Ok(source) => drop(found.insert(name.clone(), source)),
                Err((message, hint)) => told.add(path, message, hint),
            }
        }
        let mut targets: BTreeMap<String, String> = BTreeMap::new();
        for (name, config) in &mut self.collections {
            let path = format!("flows/{name}.yaml");
            config.timezone.clone_from(&self.node.timezone);
            for (message, hint) in config.problems() {
                told.add(path.clone(), message, hint);
            }
            if self.node.engine.is_none() {
                let message = format!(
                    "`mode: {}` writes into the project's engine, and there is none",
                    config.mode.name()
                );
                told.add(
                    path.clone(),
                    message,
                    "write `engine: sqlite:./data/warehouse.db` in tidemill.yaml".into(),
                );
            }
            if let Some(other) = targets.insert(config.to.to_lowercase(), name.clone()) {
                let message = format!("`{}` is written by the flow `{other}` too", config.to);
                told.add(path.clone(), message, "give each flow a table of its own".into());
            }
            if config.after.contains(name) {
                told.add(path.clone(), format!("`after` names `{name}` itself"), "remove it".into());
            }
            if found.contains_key(&config.from) || broken.sources.contains(&config.from) {
                continue;
            }
            let Some(source) = self.sources.get(&config.from) else {
                let names: Vec<_> = self.sources.keys().chain(configs.keys()).map(String::as_str).collect();
                told.add(path, format!("there is no source `{}`", config.from), known(&names));
                continue;
            };
            for table in &config.tables {
                if let Err(error) = Patterns::new(std::slice::from_ref(table), &[]) {
                    told.add(
                        path.clone(),
                        error.to_string(),
                        "for example: tables: [\"shop.orders\"]".into(),
                    );
                }
            }
            match collected(source) {
                Some(source) => drop(found.insert(config.from.clone(), source)),
                None => {
                    let message = format!(
                        "the source `{}` is of a kind that is captured, and not collected",
                        config.from
                    );
                    told.add(path, message, "remove `mode`, so that its changes flow to a sink".into());
                }
            }
        }
        self.collected = found;
        let streamed: BTreeSet<&String> = self.flows.values().map(|flow| &flow.from).collect();
        let named: BTreeSet<&String> = self.collections.values().map(|flow| &flow.from).collect();
        let collected = &self.collected;
        self.sources.retain(|name, source| {
            let captured = streamed.contains(name) || !source.mirror.is_empty() || !named.contains(name);
            captured || !collected.contains_key(name)
        });
    }
}

/// A source of changes as one that is collected; `None` where it has no tables that can be read at any time.
fn collected(source: &SourceConfig) -> Option<Source> {
    // Wrong patterns have been told.
    let tables = Patterns::new(&source.tables, &source.exclude).unwrap_or_default();
    match source.kind {
        SourceKind::Mysql => Some(Source::MySql(MySqlSource {
            url: source.url.clone()?,
            tls: source.options.tls.map(|tls| match tls {
                flow::config::TlsMode::Off => TlsMode::Off,
                flow::config::TlsMode::Prefer => TlsMode::Prefer,
                flow::config::TlsMode::Require => TlsMode::Require,
                flow::config::TlsMode::Verify => TlsMode::Verify,
            }),
            tls_ca: source.options.tls_ca.clone(),
            tables,
        })),
        SourceKind::Sqlite => Some(Source::Sqlite(SqliteSource { path: source.path.clone()?, tables })),
        SourceKind::Kafka | SourceKind::Http | SourceKind::Capture => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn load(files: &[(&str, &str)]) -> Result<Project, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let told = |problems: Vec<Problem>| {
            problems.iter().map(|it| format!("{}: {}", it.path, it.message)).collect()
        };
        Project::load(folder.path()).map_err(told)
    }

    const NODE: (&str, &str) =
        ("tidemill.yaml", "{name: s, engine: \"sqlite:./w.db\", timezone: Asia/Shanghai}");

    #[test]
    fn a_source_that_is_only_collected_is_not_captured() {
        let files = [
            NODE,
            ("sources/erp.yaml", "{kind: mysql, url: \"mysql://u@127.0.0.1:1\", tables: [\"erp.*\"]}"),
            ("sources/till.yaml", "{kind: sqlite, path: ./till.db, tables: [\"till.*\"]}"),
            ("sources/crm.yaml", "{kind: tidb, url: \"mysql://u@127.0.0.1:2\"}"),
            ("sinks/out.yaml", "kind: stdout"),
            ("flows/a.yaml", "{from: erp, tables: [\"erp.*\"], mode: full, to: \"ods.erp_*\"}"),
            ("flows/b.yaml", "{from: till, tables: [till.t], mode: cursor, cursor: at, to: ods.t}"),
            ("flows/c.yaml", "{from: till, to: out}"),
            ("flows/d.yaml", "{from: crm, tables: [crm.t], mode: key_diff, to: ods.crm_t}"),
        ];
        let project = load(&files).unwrap();
        let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(project.sources.keys().collect()), ["till"]);
        assert_eq!(names(project.collected.keys().collect()), ["crm", "erp", "till"]);
        assert_eq!(names(project.collections.keys().collect()), ["a", "b", "d"]);
        assert_eq!(names(project.flows.keys().collect()), ["c"]);
        assert_eq!(project.collections["a"].timezone.as_deref(), Some("Asia/Shanghai"));
    }

    #[test]
    fn every_mistake_of_flows_that_collect_is_told_at_once() {
        let files = [
            ("tidemill.yaml", "name: s"),
            ("sources/erp.yaml", "{kind: mysql, url: \"mysql://u@127.0.0.1:1\", tables: [\"erp.*\"]}"),
            ("sources/crm.yaml", "{kind: tidb, url: \"http://u@127.0.0.1:2\"}"),
            ("sources/push.yaml", "{kind: http, tables: [\"push.*\"]}"),
            ("sinks/out.yaml", "kind: stdout"),
            ("flows/a.yaml", "{from: erp, tables: [\"erp.t\"], mode: cursor, to: ods.t}"),
            ("flows/b.yaml", "{from: erpp, tables: [\"erp.t\"], mode: full, to: ods.T, after: [b]}"),
            ("flows/c.yaml", "{from: push, tables: [t], mode: key_diff, to: ods}"),
            ("flows/d.yaml", "{from: crm, to: out}"),
            ("flows/e.yaml", "from: erp\nmode: ful\nto: ods.x"),
            ("flows/f.yaml", "{from: erp, mode: full, to: \"ods.*\", schedule: \"61 * * * *\"}"),
        ];
        let told = load(&files).unwrap_err().join("\n");
        for expected in [
            "sources/crm.yaml: `url` does not begin with mysql://",
            "flows/a.yaml: `mode: cursor` needs `cursor`",
            "flows/a.yaml: `mode: cursor` writes into the project's engine, and there is none",
            "flows/b.yaml: there is no source `erpp`",
            "flows/b.yaml: `ods.T` is written by the flow `a` too",
            "flows/b.yaml: `after` names `b` itself",
            "flows/c.yaml: `ods` is no dataset's table",
            "flows/c.yaml: `t` is not a table pattern",
            "flows/c.yaml: the source `push` is of a kind that is captured, and not collected",
            "flows/d.yaml: the source `crm` is of a kind that is collected, and not captured",
            "flows/e.yaml: `mode` cannot be `ful`",
            "flows/f.yaml: `61 * * * *` is no schedule",
        ] {
            assert!(told.contains(expected), "{expected} is not in:\n{told}");
        }
    }
}
