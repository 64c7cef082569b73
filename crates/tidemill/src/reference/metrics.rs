//! `metrics.md`: the table of `base::metrics`.

use super::{NOTE, row};
use base::metrics::METRICS;

pub fn page() -> String {
    let mut out = format!(
        "# Metrics\n\n{NOTE}\n\n\
         `GET /metrics` answers Prometheus text. A metric appears once it has had a value. Labels are the names of \
         files: `source` is one of `sources/`, `flow` one of `flows/`; `kind` is the kind of the flow's sink.\n\n\
         | name | kind | label | unit | meaning |\n|---|---|---|---|---|\n"
    );
    for metric in METRICS {
        let labels = metric.label.split(", ").filter(|label| !label.is_empty());
        let labels: Vec<String> = labels.map(|label| format!("`{label}`")).collect();
        let (name, label) = (format!("`{}`", metric.name), labels.join(", "));
        out.push_str(&row(&[&name, metric.kind.name(), &label, metric.unit, metric.help]));
    }
    out.push_str("\n[Operating a node](../guides/operate.md) says which of these to alarm on.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::METRICS;
    use std::fs;
    use std::path::Path;

    /// Every source of the shipped crates but the table itself.
    fn sources(folder: &Path, out: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("base/src/metrics.rs") {
                out.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_metric_is_emitted_by_its_constant_and_no_other_is() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut text = String::new();
        for entry in fs::read_dir(crates).unwrap() {
            let source = entry.unwrap().path().join("src");
            if source.is_dir() {
                sources(&source, &mut text);
            }
        }
        let mut emitted = 0;
        for macro_name in ["counter", "gauge", "histogram"] {
            let call = format!("metrics::{macro_name}!(");
            for (at, _) in text.match_indices(&call) {
                let rest = &text[at + call.len()..];
                // This test and the format string above are not calls.
                if rest.starts_with('"') && rest.starts_with("\");") {
                    continue;
                }
                assert!(
                    rest.trim_start().starts_with("base::metrics::"),
                    "a metric is named outside the table: {}",
                    &rest[..rest.len().min(80)]
                );
                emitted += 1;
            }
        }
        assert!(emitted >= METRICS.len());
        let table = fs::read_to_string(crates.join("base/src/metrics.rs")).unwrap();
        for metric in METRICS {
            let line =
                table.lines().find(|l| l.starts_with("pub const ") && l.contains(metric.name)).unwrap();
            let constant = line.trim_start_matches("pub const ").split(':').next().unwrap();
            assert!(text.contains(&format!("base::metrics::{constant}")), "{constant} is never emitted");
        }
    }
}
