//! Every metric by name. A name that is not in this table is not emitted: the reference page, the descriptions at
//! `/metrics` and the call sites all read it here.

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; a restart of the process sets it to 0.
    Counter,
    /// What is true now.
    Gauge,
}

impl MetricKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `tidemill_<room>_<what>_<unit>`.
    pub name: &'static str,
    pub kind: MetricKind,
    pub label: &'static str,
    pub unit: &'static str,
    /// One sentence without a full stop.
    pub help: &'static str,
}

pub const CAPTURED_ROWS: &str = "tidemill_flow_captured_rows_total";
pub const CAPTURED_BYTES: &str = "tidemill_flow_captured_bytes_total";
pub const SNAPSHOT_ROWS: &str = "tidemill_flow_snapshot_rows_total";
pub const CAPTURE_LAG: &str = "tidemill_flow_capture_lag_seconds";
pub const CAPTURE_ERRORS: &str = "tidemill_flow_capture_errors_total";
pub const SKIPPED_MESSAGES: &str = "tidemill_flow_skipped_messages_total";
pub const CAPTURE_LAG_MESSAGES: &str = "tidemill_flow_capture_lag_messages";
pub const JOURNAL_BYTES: &str = "tidemill_flow_journal_bytes";
pub const DELIVERED_CHANGES: &str = "tidemill_flow_delivered_changes_total";
pub const DELIVERY_LAG: &str = "tidemill_flow_delivery_lag_changes";
pub const DELIVERY_ERRORS: &str = "tidemill_flow_delivery_errors_total";
pub const DEAD_LETTERS: &str = "tidemill_flow_dead_letters";
pub const HOLDS_JOURNAL: &str = "tidemill_flow_holds_journal";
pub const VERIFY_TIME: &str = "tidemill_flow_verify_time_seconds";
pub const VERIFY_DIFFERENCES: &str = "tidemill_flow_verify_differences";
pub const VERIFY_FAILURES: &str = "tidemill_flow_verify_failures_total";

const fn counter(name: &'static str, label: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, label, unit, help }
}

const fn gauge(name: &'static str, label: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, label, unit, help }
}

/// All of them, in the order a change meets them.
pub const METRICS: [Metric; 16] = [
    counter(
        CAPTURED_ROWS,
        "source",
        "rows",
        "Changed rows taken from the source's change stream, without snapshot rows",
    ),
    counter(
        CAPTURED_BYTES,
        "source",
        "bytes",
        "Bytes handed to the journal: changes, snapshot rows, schemas and positions in its own encoding",
    ),
    counter(SNAPSHOT_ROWS, "source", "rows", "Rows that snapshots wrote to the journal"),
    gauge(
        CAPTURE_LAG,
        "source",
        "seconds",
        "Age of the last captured commit while more is waiting at the source; 0 when capture has caught up",
    ),
    counter(
        CAPTURE_ERRORS,
        "source",
        "errors",
        "Times capture was interrupted: the source was away, or someone must act",
    ),
    counter(
        SKIPPED_MESSAGES,
        "source",
        "messages",
        "Messages of a Kafka source that could not be read and were passed over, as `on_bad: skip` asks",
    ),
    gauge(
        CAPTURE_LAG_MESSAGES,
        "source",
        "messages",
        "Messages that the topics of a Kafka source have and the journal lacks",
    ),
    gauge(JOURNAL_BYTES, "source", "bytes", "Size of the source's journal on disk"),
    counter(
        DELIVERED_CHANGES,
        "flow",
        "changes",
        "Changes that are durable in the sink, since this process began",
    ),
    gauge(DELIVERY_LAG, "flow", "changes", "Changes in the journal that the sink lacks"),
    counter(
        DELIVERY_ERRORS,
        "flow",
        "errors",
        "Times delivery was interrupted: the sink was away, or someone must act",
    ),
    gauge(
        DEAD_LETTERS,
        "flow",
        "changes",
        "Changes that are parked: refused by the sink, or waiting behind one",
    ),
    gauge(
        HOLDS_JOURNAL,
        "flow",
        "0 or 1",
        "1 while the journal is past its retention and is kept for this flow alone; at twice the limit it loses changes",
    ),
    gauge(
        VERIFY_TIME,
        "flow",
        "seconds",
        "When both ends were last compared by schedule, since 1970; 0 when that failed each time",
    ),
    gauge(
        VERIFY_DIFFERENCES,
        "flow",
        "rows",
        "Rows that the last comparison by schedule found missing, extra, different, undecided or parked, and tables that \
         cannot be compared",
    ),
    counter(VERIFY_FAILURES, "flow", "errors", "Comparisons by schedule that came to no end"),
];

#[cfg(test)]
mod tests {
    use super::METRICS;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_say_their_room_and_kind() {
        let names: BTreeSet<_> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.name.starts_with("tidemill_flow_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind.name() == "counter", "{}", metric.name);
            assert!(!metric.help.ends_with('.') && !metric.help.is_empty());
        }
    }
}
