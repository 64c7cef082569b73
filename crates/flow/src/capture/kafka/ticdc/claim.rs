//! Messages that were too large for the brokers: TiCDC put them into a folder, and their place into the topic.
//!
//! A file is `{"key": base64, "value": base64}`, or the message's value itself (`claim-check-raw-value`). Only files of the
//! folder that the configuration names are opened, whatever place a message names.

use crate::formats::decode::cells::{Cells, text};
use crate::formats::decode::ticdc::{Kind, Part, Protocol, split};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::path::Path;

/// Larger than any transaction's row in TiDB, twice in base64.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// The whole message. `Err` says what is wrong with it.
pub async fn fetch(protocol: Protocol, folder: Option<&Path>, place: &str) -> Result<Part, String> {
    let folder = folder.ok_or_else(|| {
        format!(
            "it is in `{place}`: set `claim_check:` to the folder of the changefeed's claim-check-storage-uri"
        )
    })?;
    let name = place.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name.starts_with('.') || name.contains('\\') {
        return Err(format!("it is in `{place}`, which names no file"));
    }
    let path = folder.join(name);
    let failed =
        |error: std::io::Error| format!("it is in `{}`, which cannot be read: {error}", path.display());
    let bytes = tokio::fs::metadata(&path).await.map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("it is in `{}`, which has {bytes} bytes", path.display()));
    }
    let file = tokio::fs::read(&path).await.map_err(failed)?;
    let wrong = |why: &str| format!("it is in `{}`, {why}", path.display());
    let (key, value) = match wrapped(&file) {
        Some((key, value)) => (key, value),
        None if protocol == Protocol::Open => {
            return Err(wrong("which has no key: set claim-check-raw-value = false"));
        }
        None => (Vec::new(), file),
    };
    let parts = split(protocol, Some(&key), Some(&value)).map_err(|why| wrong(&format!("where {why}")))?;
    let mut rows = parts.into_iter().filter(|part| part.kind == Kind::Row);
    match (rows.next(), rows.next()) {
        (Some(row), None) => Ok(row),
        _ => Err(wrong("which does not hold one row")),
    }
}

/// Key and value of a file that has both.
fn wrapped(file: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let cells: Cells<'_> = serde_json::from_slice(file).ok()?;
    if cells.0.iter().any(|(name, _)| !matches!(&**name, "key" | "value")) {
        return None;
    }
    let part = |name: &str| BASE64.decode(text(&cells, name).unwrap_or_default().as_bytes()).ok();
    Some((part("key")?, part("value").filter(|value| !value.is_empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_files_of_the_folder_are_read_in_either_form() {
        let folder = tempfile::tempdir().unwrap();
        let message = r#"{"version":1,"database":"d","table":"t","type":"INSERT","commitTs":5,"schemaVersion":1,"data":{"id":"1"}}"#;
        std::fs::write(folder.path().join("raw.json"), message).unwrap();
        let file = format!(r#"{{"key":"","value":"{}"}}"#, BASE64.encode(message));
        std::fs::write(folder.path().join("whole.json"), file).unwrap();
        for name in ["raw.json", "whole.json"] {
            let place = format!("s3://bucket/prefix/{name}");
            let part = fetch(Protocol::Simple, Some(folder.path()), &place).await.unwrap();
            assert_eq!((part.kind, part.commit_ts), (Kind::Row, 5), "{name}");
        }
        let why = async |folder, place: &str| fetch(Protocol::Simple, folder, place).await.unwrap_err();
        assert!(why(None, "file:///x/a.json").await.contains("set `claim_check:`"));
        assert!(why(Some(folder.path()), "file:///x/a.json").await.contains("cannot be read"));
        for place in ["", "file:///x/", "file:///x/..", "..\\..\\secret"] {
            assert!(why(Some(folder.path()), place).await.contains("names no file"), "{place}");
        }
        let open = fetch(Protocol::Open, Some(folder.path()), "raw.json").await.unwrap_err();
        assert!(open.contains("claim-check-raw-value = false"), "{open}");
    }
}
