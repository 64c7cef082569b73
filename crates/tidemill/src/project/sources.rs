//! What is wrong with the files of `sources/`.

use super::references::{registry, resolve, resolve_all};
use super::{Project, References, SECRETS_HINT, TLS_HINT, Told, below};
use flow::config::{KafkaStart, OnBad, OnGap, SnapshotMode, SourceConfig, SourceKind};
use flow::formats::decode::{self, MessageFormat};
use flow::mirror::MirrorConfig;
use flow::patterns::{BadPattern, Patterns};

impl Project {
    pub(super) fn check_sources(&mut self, references: References, told: &mut Told<'_>) {
        let mut add = |path: String, message: String, hint: String| told.add(path, message, hint);
        for (name, source) in &mut self.sources {
            let path = format!("sources/{name}.yaml");
            let options = &mut source.options;
            for file in
                [&mut options.tls_ca, &mut options.tls_cert, &mut options.tls_key].into_iter().flatten()
            {
                *file = below(&self.dir, file);
            }
            if source.kind == SourceKind::Kafka
                && let Err(message) = flow::tls::connector(&source.options.tls_files())
            {
                add(path.clone(), message, TLS_HINT.to_owned());
            }
            for list in [&source.tables, &source.exclude] {
                if let Err(error) = Patterns::new(list, &[]) {
                    add(path.clone(), error.to_string(), "for example: tables: [\"shop.*\"]".into());
                }
            }
            for (message, hint) in source_problems(source) {
                add(path.clone(), message, hint);
            }
            let mirror = MirrorConfig::of(name, source, &self.flows);
            for (message, hint) in mirror_problems(source, mirror) {
                add(path.clone(), message, hint);
            }
            match source.kind {
                SourceKind::Kafka => {
                    if source.tables.is_empty() {
                        source.tables = vec!["*.*".to_owned()];
                    }
                    if let Err((reason, hint)) =
                        resolve(&mut source.url, &["kafka://", "kafkas://"], references)
                    {
                        add(
                            path.clone(),
                            reason,
                            hint.unwrap_or_else(|| "url: kafka://127.0.0.1:9092".into()),
                        );
                    }
                    if let Err((message, hint)) = registry(&mut source.schema_registry, references) {
                        add(path.clone(), message, hint);
                    }
                    if let Some(folder) = &mut source.claim_check {
                        *folder = self.dir.join(&folder);
                    }
                    if source.tidb.is_some()
                        && let Err((reason, hint)) = resolve(&mut source.tidb, &["mysql://"], references)
                    {
                        let reason = format!("`tidb`: {reason}");
                        add(path, reason, hint.unwrap_or_else(|| "tidb: mysql://127.0.0.1:4000".into()));
                    }
                }
                SourceKind::Http => {
                    if references == References::Leave {
                        continue;
                    }
                    let found = resolve_all(source.secrets.iter_mut());
                    if let Err((message, hint)) = found {
                        add(path.clone(), message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned()));
                    } else if let Err(message) = flow::webhook::keys(&source.secrets) {
                        add(path, message, flow::webhook::KEY_HINT.to_owned());
                    }
                }
                SourceKind::Mysql => {
                    if let Err((reason, hint)) = resolve(&mut source.url, &["mysql://"], references) {
                        let example = || "url: mysql://user:${env:PASSWORD}@127.0.0.1:3306".into();
                        add(path, reason, hint.unwrap_or_else(example));
                    }
                }
                SourceKind::Capture => {
                    if source.tables.is_empty() {
                        source.tables = vec!["*.*".to_owned()];
                    }
                    let own = || self.mesh.as_ref().map(|mesh| mesh.capture.dir.clone());
                    match source.path.take().map(|path| below(&self.dir, &path)).or_else(own) {
                        Some(folder) => source.path = Some(folder),
                        None => add(
                            path,
                            "a capture source needs `path`: the project has no mesh".into(),
                            "path: the folder that `capture.dir` of the mesh names".into(),
                        ),
                    }
                }
                SourceKind::Sqlite => match &mut source.path {
                    Some(file) => *file = below(&self.dir, file),
                    None => add(path, "a sqlite source needs `path`".into(), "path: ./shop.db".into()),
                },
            }
        }
    }
}

/// What is wrong with a source besides its URL: keys that its kind does not know, and those that it needs.
fn source_problems(source: &SourceConfig) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let is_kafka = source.kind == SourceKind::Kafka;
    let is_http = source.kind == SourceKind::Http;
    let is_capture = source.kind == SourceKind::Capture;
    let is_database = !is_kafka && !is_http && !is_capture;
    let is_ticdc = is_kafka && source.options.format.ticdc().is_some();
    if is_kafka && source.topics.is_empty() {
        out.push(("a kafka source needs `topics`".to_owned(), "topics: [\"shop.*\"]".to_owned()));
    }
    if !is_kafka && !is_capture && source.tables.is_empty() {
        out.push(("`tables` is missing".to_owned(), "for example: tables: [\"shop.*\"]".to_owned()));
    }
    let options = &source.options;
    let given = [
        ("topics", !source.topics.is_empty(), is_kafka),
        ("start", source.start != KafkaStart::default(), is_kafka),
        ("on_bad", source.on_bad != OnBad::default(), is_kafka),
        ("declare", !source.declare.is_empty(), is_kafka || is_http),
        ("format", options.format != MessageFormat::default(), is_kafka || is_http),
        ("secrets", !source.secrets.is_empty(), is_http),
        ("schema_registry", source.schema_registry.is_some(), is_kafka),
        ("tidb", source.tidb.is_some(), is_ticdc),
        ("claim_check", source.claim_check.is_some(), is_ticdc),
        ("buffer", options.buffer.is_some(), is_ticdc),
        ("watermark_timeout", options.watermark_timeout.is_some(), is_ticdc),
        ("url", (is_http || is_capture) && source.url.is_some(), false),
        ("on_gap", (is_http || is_capture) && source.on_gap != OnGap::default(), false),
        ("path", source.path.is_some(), is_database || is_capture),
        ("snapshot", !is_database && source.snapshot != SnapshotMode::default(), is_ticdc),
        ("server_id", !is_database && options.server_id.is_some(), false),
        ("snapshot_chunk_rows", !is_database && options.snapshot_chunk_rows.is_some(), is_ticdc),
        ("snapshot_parallel", !is_database && options.snapshot_parallel.is_some(), false),
        ("snapshot_rows_per_second", !is_database && options.snapshot_rows_per_second.is_some(), false),
        ("skip_marked", options.skip_marked, source.kind == SourceKind::Mysql),
        ("tls", !is_database && options.tls.is_some(), is_ticdc && source.tidb.is_some()),
        ("tls_ca", !is_database && options.tls_ca.is_some(), is_kafka),
        ("tls_cert", options.tls_cert.is_some(), is_kafka),
        ("tls_key", options.tls_key.is_some(), is_kafka),
    ];
    for (name, ..) in given.into_iter().filter(|(_, given, known)| *given && !known) {
        let hint = "remove it, or see docs/reference/config.md for whose it is".to_owned();
        out.push((format!("`{name}` means nothing to this kind of source"), hint));
    }
    if source.options.format == MessageFormat::Avro && is_http {
        let message = "`format: avro` is for sources of kafka only".to_owned();
        out.push((message, "push JSON: `format: debezium` has the same members".to_owned()));
    }
    if source.options.format.ticdc().is_some() && is_http {
        let message = "TiCDC's formats are for sources of kafka only".to_owned();
        out.push((message, "set `kind: kafka`".to_owned()));
    }
    if source.options.format == MessageFormat::Avro && is_kafka && source.schema_registry.is_none() {
        let message = "`format: avro` needs a schema registry".to_owned();
        out.push((message, "add `schema_registry: http://host:8081`".to_owned()));
    }
    for (table, declared) in &source.declare {
        if let Err(error) = Patterns::new(std::slice::from_ref(table), &[]) {
            out.push((error.to_string(), "for example: declare: {\"shop.orders\": {key: [id]}}".to_owned()));
        }
        for (column, text) in &declared.columns {
            if let Err(error) = decode::types::parse(text) {
                let hint =
                    "write the type as MySQL does: bigint unsigned, decimal(10,2), varchar(40)".to_owned();
                out.push((format!("the column `{column}` of `{table}`: {error}"), hint));
            }
        }
    }
    out
}

/// Why a source cannot have the mirror that it, or a flow of it, asks for.
fn mirror_problems(
    source: &SourceConfig,
    mirror: Result<Option<MirrorConfig>, BadPattern>,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let is_database = matches!(source.kind, SourceKind::Mysql | SourceKind::Sqlite);
    match mirror {
        Err(error) => out.push((error.to_string(), "for example: mirror: [\"shop.users\"]".to_owned())),
        Ok(None) => {}
        Ok(Some(_)) if source.options.format.ticdc().is_some() && source.tidb.is_none() => {
            out.push((
                "a `mirror` of TiCDC's topics needs the TiDB: its tables are read there".to_owned(),
                "for example: tidb: mysql://cdc:${env:TIDB_PASSWORD}@127.0.0.1:4000".to_owned(),
            ));
        }
        Ok(Some(_)) if !is_database && source.tidb.is_none() => out.push((
            "this kind of source has no `mirror`: its tables cannot be read anew".to_owned(),
            "remove it, and `nest` and `lookup` with `table` from its flows".to_owned(),
        )),
        Ok(Some(_)) if source.snapshot == SnapshotMode::Never => out.push((
            "a `mirror` needs whole tables, and with `snapshot: never` none is read".to_owned(),
            "set snapshot: initial".to_owned(),
        )),
        Ok(Some(_)) => {}
    }
    out
}
