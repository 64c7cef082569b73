//! Singer taps as the shell plays them: good ones, and ones that fail in every way.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Date, DateTime, Value};
use collect::reader::{ReadError, Reader, Scope};
use collect::readers::config::SingerConfig;
use collect::readers::singer::Singer;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const CATALOG: &str = r#"{"streams": [{"stream": "orders", "tap_stream_id": "orders", "metadata": [{"breadcrumb": [], "metadata": {"table-key-properties": ["id"]}}],
  "schema": {"type": "object", "properties": {"id": {"type": "integer"}, "price": {"type": ["null", "number"], "multipleOf": 0.01},
  "at": {"type": ["null", "string"], "format": "date-time"}, "tags": {"type": ["null", "array"]}, "code": {"type": ["null", "string"], "maxLength": 3}}}}]}"#;

/// A tap that answers a discovery, and does this otherwise.
fn tap(folder: &Path, run: &str, rest: &str) -> Singer {
    let path = folder.join("tap-test");
    fs::write(folder.join("catalog-of-tap.json"), CATALOG).unwrap();
    let text = format!(
        "#!/bin/sh\nfor a in \"$@\"; do [ \"$a\" = --discover ] && exec cat catalog-of-tap.json; done\n{run}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let secrets = if rest.contains("secrets:") { "" } else { "secrets: {token: s3cret-token}" };
    let config = format!("kind: singer\ncommand: [{}]\n{secrets}\n{rest}", path.display());
    Singer::new(serde_saphyr::from_str::<SingerConfig>(&config).unwrap(), folder)
}

async fn error_of(run: &str, rest: &str) -> ReadError {
    let folder = tempfile::tempdir().unwrap();
    let mut tap = tap(folder.path(), run, rest);
    let orders = tap.describe("orders").await.unwrap();
    let mut batches = tap.read(&orders, Scope::All).await.unwrap();
    loop {
        match batches.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn records_of_the_wanted_stream_are_rows() {
    let folder = tempfile::tempdir().unwrap();
    let run = r#"grep -q s3cret-token "$2" || exit 7
grep -q '"selected":true' "$4" || exit 8
[ "$(stat -c %a "$2")" = 600 ] || exit 9
cat <<'END'
{"type": "SCHEMA", "stream": "orders", "schema": {}, "key_properties": ["id"]}
{"type": "RECORD", "stream": "orders", "record": {"id": 123456789012345678, "price": 19.99, "at": "2026-01-31T08:30:00+08:00", "tags": ["a"]}}
{"type": "RECORD", "stream": "others", "record": {"id": 1}}

{"type": "STATE", "value": {"x": 1}}
{"type": "RECORD", "stream": "orders", "record": {"id": 2, "code": "four"}}
{"type": "RECORD", "stream": "orders", "record": {"id": 3}}
END"#;
    let mut tap = tap(folder.path(), run, "");
    assert_eq!(tap.tables().await.unwrap(), ["orders"]);
    let orders = tap.describe("orders").await.unwrap();
    let types: Vec<(&str, &str)> =
        orders.columns.iter().map(|it| (it.name.as_str(), it.sql_type.as_str())).collect();
    let mut wanted = [
        ("id", "bigint"),
        ("price", "decimal(65,2)"),
        ("at", "datetime(6)"),
        ("tags", "json"),
        ("code", "varchar(3)"),
    ];
    wanted.sort();
    assert_eq!((types, orders.key.clone()), (wanted.to_vec(), vec!["id".to_owned()]));
    let mut batches = tap.read(&orders, Scope::All).await.unwrap();
    let batch = batches.next().await.unwrap().unwrap();
    assert_eq!(batches.next().await, Ok(None));
    let date = Date { year: 2026, month: 1, day: 31 };
    let first = [
        Value::DateTime(DateTime { date, minute: 30, ..DateTime::default() }),
        Value::Null,
        Value::Int(123_456_789_012_345_678),
        Value::Decimal("19.99".into()),
        Value::Json(r#"["a"]"#.into()),
    ];
    assert_eq!((&batch.rows[0][..], batch.rows.len()), (&first[..], 2));
    assert_eq!((batch.bad[0].place.as_str(), batch.bad.len()), ("record 2", 1));
}

#[tokio::test]
async fn a_tap_that_fails_says_why_without_our_secrets() {
    let row = r#"echo '{"type": "RECORD", "stream": "orders", "record": {"id": 1}}'"#;
    // A secret of several lines, and one where the log's line is cut.
    let long = "head -c 4090 /dev/zero | tr '\\0' x >&2; echo s3cret-token >&2; exit 3";
    let lines = "secrets: {token: s3cret-token, key: \"BEGIN-KEY\\nMIIEvQ-1\\n\"}";
    for (run, rest, wanted) in [
        (long.to_owned(), "", "xxx[redacted]"),
        ("echo 'key MIIEvQ-1' >&2; exit 3".to_owned(), lines, "key [redacted]"),
        (
            format!("{row}\necho 'CRITICAL token s3cret-token is refused' >&2; exit 3"),
            "",
            "CRITICAL token [redacted] is refused",
        ),
        (
            format!("{row}\necho 'hello s3cret-token'"),
            "",
            "prints what is no Singer: no JSON object: hello [redacted]",
        ),
        (r#"echo '{"type": "BATCH", "stream": "orders"}'"#.to_owned(), "", "BATCH"),
        ("sleep 60".to_owned(), "silence_max: 50ms", "printed nothing for 50ms"),
        ("head -c 17000000 /dev/zero | tr '\\0' x; echo".to_owned(), "", "prints a line of more than"),
    ] {
        let error = error_of(&run, rest).await;
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let config: SingerConfig = serde_saphyr::from_str("kind: singer\ncommand: [/nowhere/tap-none]").unwrap();
    let error = Singer::new(config, folder.path()).tables().await.err().unwrap();
    assert!(error.to_string().contains("the tap tap-none does not start"), "{error}");
}

#[tokio::test]
async fn a_tap_is_killed_with_what_it_started_when_nobody_reads_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let run = r#"sleep 600 &
echo "$! $$" >pid
i=0; while [ $i -lt 2000 ]; do echo '{"type": "RECORD", "stream": "orders", "record": {"id": 1}}'; i=$((i+1)); done
exec sleep 600"#;
    let mut tap = tap(folder.path(), run, "");
    let orders = tap.describe("orders").await.unwrap();
    let mut batches = tap.read(&orders, Scope::All).await.unwrap();
    assert!(batches.next().await.unwrap().is_some());
    let pids = fs::read_to_string(folder.path().join("pid")).unwrap();
    let processes: Vec<_> = pids.split_whitespace().map(|pid| Path::new("/proc").join(pid)).collect();
    assert!(processes.len() == 2 && processes.iter().all(|process| process.exists()));
    drop(batches);
    let started = Instant::now();
    // Gone, or dead ones whose parent has not looked yet.
    let gone = |process: &std::path::PathBuf| {
        fs::read_to_string(process.join("stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    while !processes.iter().all(gone) {
        assert!(started.elapsed() < Duration::from_secs(20), "the tap, or what it started, is alive");
        tokio::task::yield_now().await;
    }
}
