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
    /// Its labels, separated by commas; empty for none.
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
pub const CAPTURE_GAPS: &str = "tidemill_flow_capture_gaps_total";
pub const SKIPPED_MESSAGES: &str = "tidemill_flow_skipped_messages_total";
pub const CAPTURE_LAG_MESSAGES: &str = "tidemill_flow_capture_lag_messages";
pub const REPEATED_MESSAGES: &str = "tidemill_flow_repeated_messages_total";
pub const WATERMARK_LAG: &str = "tidemill_flow_capture_watermark_lag_seconds";
pub const WATERMARK_STALLED: &str = "tidemill_flow_capture_watermark_stalled";
pub const JOURNAL_BYTES: &str = "tidemill_flow_journal_bytes";
pub const CAPTURE_FAILED: &str = "tidemill_flow_capture_failed";
pub const CAPTURE_INTERRUPTED: &str = "tidemill_flow_capture_interrupted";
pub const DELIVERED_BYTES: &str = "tidemill_flow_delivered_bytes_total";
pub const DELIVERED_BATCHES: &str = "tidemill_flow_delivered_batches_total";
pub const DELIVERY_RETRIES: &str = "tidemill_flow_delivery_retries_total";
pub const DELIVERY_LAG_SECONDS: &str = "tidemill_flow_delivery_lag_seconds";
pub const DELIVERY_FAILED: &str = "tidemill_flow_delivery_failed";
pub const DELIVERY_INTERRUPTED: &str = "tidemill_flow_delivery_interrupted";
pub const DELIVERY_PAUSED: &str = "tidemill_flow_delivery_paused";
pub const PARKED_CHANGES: &str = "tidemill_flow_parked_changes_total";
pub const NODE_MEMORY: &str = "tidemill_node_memory_bytes";
pub const NODE_DISK_FREE: &str = "tidemill_node_disk_free_bytes";
pub const NODE_REPORTS_LOST: &str = "tidemill_node_reports_lost_total";
pub const NODE_CONNECTIONS: &str = "tidemill_node_connections";
pub const NODE_REFUSED: &str = "tidemill_node_refused_requests_total";
pub const DELIVERED_CHANGES: &str = "tidemill_flow_delivered_changes_total";
pub const LEFT_OUT_ROWS: &str = "tidemill_flow_left_out_rows_total";
pub const DELIVERY_LAG: &str = "tidemill_flow_delivery_lag_changes";
pub const DELIVERY_ERRORS: &str = "tidemill_flow_delivery_errors_total";
pub const DEAD_LETTERS: &str = "tidemill_flow_dead_letters";
pub const HOLDS_JOURNAL: &str = "tidemill_flow_holds_journal";
pub const MIRROR_LAG: &str = "tidemill_flow_mirror_lag_changes";
pub const MIRROR_ROWS: &str = "tidemill_flow_mirror_rows";
pub const MIRROR_BYTES: &str = "tidemill_flow_mirror_bytes";
pub const MIRROR_FAILED: &str = "tidemill_flow_mirror_failed";
pub const SUBSCRIBERS: &str = "tidemill_flow_subscription_clients";
pub const SUBSCRIBERS_CATCHING_UP: &str = "tidemill_flow_subscription_catching_up_clients";
pub const SUBSCRIBER_LAG: &str = "tidemill_flow_subscription_lag_changes";
pub const SHAPES: &str = "tidemill_flow_subscription_shapes";
pub const SHAPES_KEPT: &str = "tidemill_flow_subscription_kept_shapes";
pub const RING_BYTES: &str = "tidemill_flow_subscription_ring_bytes";
pub const WINDOW_BYTES: &str = "tidemill_flow_subscription_window_bytes";
pub const SUBSCRIBED_CHANGES: &str = "tidemill_flow_subscription_changes_total";
pub const SUBSCRIPTION_RESETS: &str = "tidemill_flow_subscription_resets_total";
pub const SUBSCRIBERS_SLOW: &str = "tidemill_flow_subscription_slow_clients_total";
pub const WINDOW_REFILLS: &str = "tidemill_flow_subscription_window_refills_total";
pub const VERIFY_TIME: &str = "tidemill_flow_verify_time_seconds";
pub const VERIFY_DIFFERENCES: &str = "tidemill_flow_verify_differences";
pub const VERIFY_FAILURES: &str = "tidemill_flow_verify_failures_total";
pub const WAREHOUSE_RUNS: &str = "tidemill_warehouse_runs_total";
pub const DOOR_CLIENTS: &str = "tidemill_door_clients";
pub const DOOR_REFUSED: &str = "tidemill_door_refused_clients_total";
pub const DOOR_STATEMENTS: &str = "tidemill_door_statements_total";
pub const DOOR_ERRORS: &str = "tidemill_door_errors_total";
pub const DOOR_ROWS: &str = "tidemill_door_rows_total";
pub const MESH_SESSIONS: &str = "tidemill_mesh_sessions";
pub const MESH_ACCEPTED: &str = "tidemill_mesh_accepted_clients_total";
pub const MESH_REFUSED: &str = "tidemill_mesh_refused_clients_total";
pub const MESH_MOVED: &str = "tidemill_mesh_moved_sessions_total";
pub const MESH_BROKEN: &str = "tidemill_mesh_broken_sessions_total";
pub const MESH_BUFFERS: &str = "tidemill_mesh_buffer_bytes";
pub const MESH_MEMORY: &str = "tidemill_mesh_memory_bytes";
pub const MESH_MEMORY_MAX: &str = "tidemill_mesh_memory_limit_bytes";
pub const MESH_CAPTURED: &str = "tidemill_mesh_captured_statements_total";
pub const MESH_CAPTURED_BYTES: &str = "tidemill_mesh_captured_bytes_total";
pub const MESH_SHED: &str = "tidemill_mesh_shed_statements_total";
pub const MESH_CAPTURING: &str = "tidemill_mesh_capturing";
pub const MESH_MIRRORED: &str = "tidemill_mesh_mirrored_reads_total";
pub const MESH_MIRROR_DIFFERENCES: &str = "tidemill_mesh_mirror_differences_total";
pub const MESH_MIRROR_SHED: &str = "tidemill_mesh_mirror_shed_reads_total";
pub const MESH_MIRROR_LOST: &str = "tidemill_mesh_mirror_lost_reads_total";
pub const MESH_COMPRESSED: &str = "tidemill_mesh_compressed_bytes_total";
pub const MESH_UNCOMPRESSED: &str = "tidemill_mesh_uncompressed_bytes_total";
pub const MESH_GROUP_SESSIONS: &str = "tidemill_mesh_group_sessions";
pub const MESH_LIMITED: &str = "tidemill_mesh_limited_clients_total";
pub const MESH_RULE_HITS: &str = "tidemill_mesh_rule_hits_total";
pub const MESH_BACKEND_UP: &str = "tidemill_mesh_backend_up";
pub const MESH_BACKEND_WRITER: &str = "tidemill_mesh_backend_writer";
pub const MESH_BACKEND_CONNECTIONS: &str = "tidemill_mesh_backend_connections";
pub const MESH_POOL_OPEN: &str = "tidemill_mesh_pool_open_connections";
pub const MESH_POOL_IDLE: &str = "tidemill_mesh_pool_idle_connections";
pub const MESH_POOL_WAITING: &str = "tidemill_mesh_pool_waiting_sessions";
pub const MESH_POOL_TIMEOUTS: &str = "tidemill_mesh_pool_timeouts_total";
pub const MESH_PINS: &str = "tidemill_mesh_pins_total";
pub const MESH_PINNED: &str = "tidemill_mesh_pinned_sessions";

const fn counter(name: &'static str, label: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, label, unit, help }
}

const fn gauge(name: &'static str, label: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, label, unit, help }
}

/// What a flow is known by: its name, and the kind of its sink.
const FLOW: &str = "flow, kind";

/// Why rows of a flow were left out.
const LEFT_OUT: &str = "flow, kind, reason";

/// What a server behind the mesh is known by.
const BACKEND: &str = "group, backend";

/// Why a session of the mesh keeps a shared connection.
const PIN: &str = "group, reason";

/// All of them, in the order a change meets them.
pub const METRICS: [Metric; 87] = [
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
        CAPTURE_GAPS,
        "source",
        "gaps",
        "Times that captured statements were gone or broken before they were read; each is a row too",
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
    counter(
        REPEATED_MESSAGES,
        "source",
        "messages",
        "Events of TiCDC that were dropped because their commit is in the journal already: repeats, or too late",
    ),
    gauge(
        WATERMARK_LAG,
        "source",
        "seconds",
        "Age of the least watermark of the partitions that TiCDC writes; what was committed since is not in the journal",
    ),
    gauge(
        WATERMARK_STALLED,
        "source",
        "0 or 1",
        "1 while the least watermark of the partitions has stood still for longer than `watermark_timeout`",
    ),
    gauge(CAPTURE_FAILED, "source", "0 or 1", "1 while the source has failed: someone must act"),
    gauge(
        CAPTURE_INTERRUPTED,
        "source",
        "0 or 1",
        "1 while capture stands still, for any reason: the source is away, or it has failed",
    ),
    gauge(JOURNAL_BYTES, "source", "bytes", "Size of the source's journal on disk"),
    gauge(MIRROR_LAG, "source", "changes", "Changes in the journal that the source's mirror lacks"),
    gauge(MIRROR_ROWS, "source", "rows", "Rows that the source's mirror has"),
    gauge(
        MIRROR_BYTES,
        "source",
        "bytes",
        "Size of the source's mirror on disk, without what is not yet taken into its file",
    ),
    gauge(
        MIRROR_FAILED,
        "source",
        "0 or 1",
        "1 while the source's mirror stands still: see its error in the status",
    ),
    gauge(SUBSCRIBERS, "source", "clients", "Streams of copies of the source's tables that are open"),
    gauge(
        SUBSCRIBERS_CATCHING_UP,
        "source",
        "clients",
        "Those of them that read the journal or the mirror by themselves, or wait for their turn",
    ),
    gauge(
        SUBSCRIBER_LAG,
        "source",
        "changes",
        "Changes in the journal since what the slowest client was sent, of those that have caught up",
    ),
    gauge(SHAPES, "source", "shapes", "Shapes that are followed, or kept"),
    gauge(SHAPES_KEPT, "source", "shapes", "Those of them that nobody follows"),
    gauge(RING_BYTES, "source", "bytes", "Changes that are kept in memory for those who follow shapes"),
    gauge(WINDOW_BYTES, "source", "bytes", "Rows of windows in memory"),
    counter(
        WINDOW_REFILLS,
        "source",
        "windows",
        "Times that a window was read from the mirror again, since few of its spare rows were left",
    ),
    counter(SUBSCRIBED_CHANGES, "source", "changes", "Changes of rows sent to clients that follow shapes"),
    counter(
        SUBSCRIPTION_RESETS,
        "source, reason",
        "resets",
        "Tokens that could not be gone on from, so that a copy was sent anew, by the reason",
    ),
    counter(
        SUBSCRIBERS_SLOW,
        "source",
        "clients",
        "Times that a client did not read, and gave up its place among those that catch up",
    ),
    counter(
        DELIVERED_CHANGES,
        FLOW,
        "changes",
        "Changes that are durable in the sink, since this process began",
    ),
    counter(
        DELIVERED_BYTES,
        FLOW,
        "bytes",
        "Bytes of the delivered rows in the journal's encoding, before the flow's rules",
    ),
    counter(DELIVERED_BATCHES, FLOW, "batches", "Batches that are durable in the sink"),
    counter(
        LEFT_OUT_ROWS,
        LEFT_OUT,
        "rows",
        "Rows that `dedup` left out, since this process began: `repeat`, or `change` for updates and deletes",
    ),
    gauge(DELIVERY_LAG, FLOW, "changes", "Changes in the journal that the sink lacks"),
    gauge(
        DELIVERY_LAG_SECONDS,
        FLOW,
        "seconds",
        "Age of the oldest change that the sink lacks, by the source's clock; 0 when there is none",
    ),
    counter(
        DELIVERY_ERRORS,
        FLOW,
        "errors",
        "Times delivery was interrupted: the sink was away, or someone must act",
    ),
    counter(
        DELIVERY_RETRIES,
        FLOW,
        "retries",
        "Times the sink was opened anew after an interruption, to try again",
    ),
    gauge(DELIVERY_FAILED, FLOW, "0 or 1", "1 while the flow has failed: someone must act"),
    gauge(
        DELIVERY_INTERRUPTED,
        FLOW,
        "0 or 1",
        "1 while delivery stands still, for any reason but a pause: the sink is away, or the flow has failed",
    ),
    gauge(DELIVERY_PAUSED, FLOW, "0 or 1", "1 while the flow is paused"),
    counter(PARKED_CHANGES, FLOW, "changes", "Changes that were parked, since this process began"),
    gauge(
        DEAD_LETTERS,
        FLOW,
        "changes",
        "Changes that are parked: refused by the sink, or waiting behind one",
    ),
    gauge(
        HOLDS_JOURNAL,
        FLOW,
        "0 or 1",
        "1 while the journal is past its retention and is kept for this flow alone; at twice the limit it loses changes",
    ),
    gauge(NODE_MEMORY, "", "bytes", "Memory of the process that is in the machine's memory now"),
    gauge(NODE_DISK_FREE, "", "bytes", "What is free for us on the disk of `data_dir`"),
    counter(
        NODE_REPORTS_LOST,
        "",
        "reports",
        "Reports of `report:` that did not arrive, since this process began",
    ),
    gauge(NODE_CONNECTIONS, "", "connections", "Clients that are connected to the HTTP port"),
    counter(
        NODE_REFUSED,
        "code",
        "requests",
        "Requests that were refused before a route saw them, by the code of the problem: `unauthenticated` is one without a good \
         token, `permission_denied` one whose token is for something else",
    ),
    gauge(
        VERIFY_TIME,
        "flow",
        "seconds",
        "When both ends were last compared by schedule, since 1970; 0 before the first time",
    ),
    gauge(
        VERIFY_DIFFERENCES,
        "flow",
        "rows",
        "Rows that the last comparison by schedule found missing, extra, different, undecided or parked, and tables that \
         cannot be compared",
    ),
    counter(VERIFY_FAILURES, "flow", "errors", "Comparisons by schedule that came to no end"),
    counter(
        WAREHOUSE_RUNS,
        "kind,state",
        "runs",
        "Runs of flows that collect and of models that ended, by how",
    ),
    gauge(DOOR_CLIENTS, "", "clients", "Clients of the SQL door that are connected now"),
    counter(
        DOOR_REFUSED,
        "",
        "clients",
        "Clients that the SQL door did not let in: no right to, or too many",
    ),
    counter(
        DOOR_STATEMENTS,
        "",
        "statements",
        "Statements of clients of the SQL door, those included that failed",
    ),
    counter(DOOR_ERRORS, "", "statements", "Commands that clients of the SQL door got an error for"),
    counter(DOOR_ROWS, "", "rows", "Rows that the SQL door sent"),
    gauge(MESH_SESSIONS, "", "sessions", "Clients of the SQL proxy that are connected now"),
    counter(MESH_ACCEPTED, "", "clients", "Clients that connected to the SQL proxy"),
    counter(
        MESH_REFUSED,
        "",
        "clients",
        "Clients that were not let in: a wrong password, no server, too many, or no client at all",
    ),
    counter(
        MESH_MOVED,
        "",
        "sessions",
        "Times an idle session went on with another server because its own went away or takes no writes any more",
    ),
    counter(
        MESH_BROKEN,
        "",
        "sessions",
        "Times a session lost its server in a way that its client was told of",
    ),
    gauge(MESH_BUFFERS, "", "bytes", "Buffers that sessions have in use; idle ones have none"),
    gauge(
        MESH_MEMORY,
        "",
        "bytes",
        "What counts for `limits.memory`: sessions, buffers, texts, captures and mirrors",
    ),
    gauge(
        MESH_MEMORY_MAX,
        "",
        "bytes",
        "What `limits.memory` allows; captures and mirrors shed from three quarters of it on",
    ),
    gauge(MESH_CAPTURING, "", "0 or 1", "1 while statements are captured"),
    counter(MESH_CAPTURED, "", "records", "Records of statements and sessions that were written to files"),
    counter(MESH_CAPTURED_BYTES, "", "bytes", "Bytes of those records"),
    counter(
        MESH_SHED,
        "",
        "records",
        "Records that were not written, because the disk was too slow or took no more",
    ),
    counter(MESH_MIRRORED, "group", "reads", "Reads that the mirror was asked too, and answered"),
    counter(MESH_MIRROR_DIFFERENCES, "group", "reads", "Of them those that it answered otherwise"),
    counter(MESH_MIRROR_SHED, "group", "reads", "Reads that it was not asked, because too many waited"),
    counter(
        MESH_MIRROR_LOST,
        "group",
        "reads",
        "Reads that it did not answer: too slow, a lost connection, or none",
    ),
    counter(
        MESH_COMPRESSED,
        "",
        "bytes",
        "Bytes of compressed connections as they passed, of clients and of servers, in both directions",
    ),
    counter(MESH_UNCOMPRESSED, "", "bytes", "What the bytes of compressed connections held"),
    gauge(MESH_GROUP_SESSIONS, "group", "sessions", "Sessions of the group that have logged in"),
    counter(
        MESH_LIMITED,
        "group",
        "clients",
        "Clients that were one too many for `sessions_max` of the group or of their user",
    ),
    counter(
        MESH_RULE_HITS,
        "group, rule, action",
        "statements",
        "Statements that a rule, a limit or the `allow_list` refused, noted or allowed",
    ),
    gauge(MESH_BACKEND_UP, BACKEND, "0 or 1", "1 while the server answers"),
    gauge(MESH_BACKEND_WRITER, BACKEND, "0 or 1", "1 while the server takes writes"),
    gauge(MESH_BACKEND_CONNECTIONS, BACKEND, "connections", "Connections of sessions to the server"),
    gauge(
        MESH_POOL_OPEN,
        BACKEND,
        "connections",
        "Shared connections to the server, with `pool`: at most `max`",
    ),
    gauge(MESH_POOL_IDLE, BACKEND, "connections", "Of these, connections that no session has now"),
    gauge(MESH_POOL_WAITING, BACKEND, "sessions", "Sessions that wait for a shared connection"),
    counter(
        MESH_POOL_TIMEOUTS,
        BACKEND,
        "sessions",
        "Sessions that waited for one in vain and got error 1040",
    ),
    counter(MESH_PINS, PIN, "times", "Times that a session kept a shared connection beyond its command"),
    gauge(MESH_PINNED, PIN, "sessions", "Sessions that keep one now"),
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
            assert!(
                [
                    "tidemill_flow_",
                    "tidemill_node_",
                    "tidemill_mesh_",
                    "tidemill_warehouse_",
                    "tidemill_door_"
                ]
                .iter()
                .any(|room| metric.name.starts_with(room)),
                "{}",
                metric.name
            );
            assert_eq!(metric.name.ends_with("_total"), metric.kind.name() == "counter", "{}", metric.name);
            assert!(!metric.help.ends_with('.') && !metric.help.is_empty());
        }
    }
}
