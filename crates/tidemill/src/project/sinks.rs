//! What is wrong with the files of `sinks/`.

use super::references::{registry, resolve, resolve_all};
use super::{Project, References, SECRETS_HINT, TLS_HINT, Told, below};
use flow::config::{HttpMethod, SinkConfig, SinkKind};

impl Project {
    pub(super) fn check_sinks(&mut self, references: References, told: &mut Told<'_>) {
        let mut add = |path: String, message: String, hint: String| told.add(path, message, hint);
        for (name, sink) in &mut self.sinks {
            let path = format!("sinks/{name}.yaml");
            let files = [&mut sink.tls_ca, &mut sink.tls_cert, &mut sink.tls_key, &mut sink.credentials];
            for file in files.into_iter().flatten() {
                *file = below(&self.dir, file);
            }
            if let Err(message) = flow::tls::connector(&sink.tls_files()) {
                add(path.clone(), message, TLS_HINT.to_owned());
            }
            for key in idle_keys(sink) {
                let message = format!("`{key}` means nothing to this kind of sink");
                let hint = "remove it, or see docs/reference/config.md for whose it is".into();
                add(path.clone(), message, hint);
            }
            let schemes: &[&str] = match sink.kind {
                SinkKind::Mysql | SinkKind::Tidb => &["mysql://"],
                SinkKind::Nats => &["nats://", "tls://"],
                SinkKind::Kafka => &["kafka://", "kafkas://"],
                SinkKind::Redis => &[
                    "redis://",
                    "rediss://",
                    "redis-sentinel://",
                    "rediss-sentinel://",
                    "redis-cluster://",
                    "rediss-cluster://",
                ],
                SinkKind::Elasticsearch | SinkKind::Http => &["http://", "https://"],
                SinkKind::Sqlite | SinkKind::Files => {
                    match &mut sink.path {
                        Some(file) => *file = below(&self.dir, file),
                        None => add(path, "this kind of sink needs `path`".into(), "path: ./out".into()),
                    }
                    continue;
                }
                SinkKind::Stdout => continue,
            };
            if let Err((reason, hint)) = resolve(&mut sink.url, schemes, references) {
                add(path, reason, hint.unwrap_or_else(|| format!("url: {}127.0.0.1:PORT", schemes[0])));
                continue;
            }
            if let Err((message, hint)) = registry(&mut sink.schema_registry, references) {
                add(path.clone(), message, hint);
            }
            if sink.credentials.is_some() && sink.nkey.is_some() {
                let message = "`credentials` and `nkey` are two ways to log in".into();
                add(path.clone(), message, "remove one of them".into());
            }
            if references == References::Resolve
                && let Err((message, hint)) = resolve_all(sink.nkey.iter_mut())
            {
                let hint = hint.unwrap_or_else(|| "nkey: ${env:NATS_NKEY}".to_owned());
                add(path.clone(), format!("`nkey`: {message}"), hint);
            }
            if sink.kind == SinkKind::Http && references == References::Resolve {
                let found = resolve_all(sink.headers.values_mut().chain(&mut sink.secrets))
                    .map_err(|(message, hint)| (message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned())))
                    .and_then(|()| flow::sinks::http::Receiver::read(sink).map(|_| ()));
                if let Err((message, hint)) = found {
                    add(path, message, hint);
                }
            }
        }
    }
}

/// Keys of a sink's file that its kind does not know.
fn idle_keys(sink: &SinkConfig) -> Vec<&'static str> {
    let is_http = sink.kind == SinkKind::Http;
    let has_files = matches!(sink.kind, SinkKind::Kafka | SinkKind::Nats);
    let given = [
        ("method", sink.method != HttpMethod::default(), is_http),
        ("headers", !sink.headers.is_empty(), is_http),
        ("secrets", !sink.secrets.is_empty(), is_http),
        ("timeout", sink.timeout.is_some(), is_http),
        ("schema_registry", sink.schema_registry.is_some(), sink.kind == SinkKind::Kafka),
        ("tls_ca", sink.tls_ca.is_some(), has_files),
        ("tls_cert", sink.tls_cert.is_some(), has_files),
        ("tls_key", sink.tls_key.is_some(), has_files),
        ("credentials", sink.credentials.is_some(), sink.kind == SinkKind::Nats),
        ("nkey", sink.nkey.is_some(), sink.kind == SinkKind::Nats),
    ];
    given.into_iter().filter(|(_, given, known)| *given && !known).map(|(name, ..)| name).collect()
}
