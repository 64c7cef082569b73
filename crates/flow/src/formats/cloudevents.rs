//! CloudEvents 1.0 in structured mode: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.

use super::{Record, json};
use base::json::put_string;
use base::value::format_timestamp;
use std::io::Write;

/// Appends the event of a change; its data is our own format.
pub fn put(out: &mut Vec<u8>, source: &str, record: &Record<'_>) {
    let name = &record.table.name;
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
    put_string(out, &format!("{source}:{}:{}", record.epoch, record.lsn));
    out.extend_from_slice(b",\"source\":");
    put_string(out, &format!("/tidemill/{}/{}/{}", segment(source), segment(&name.db), segment(&name.table)));
    write!(out, ",\"type\":\"tidemill.change.v1.{}\"", record.op.name()).expect("memory");
    let mut key = Vec::new();
    json::put_key(&mut key, record);
    if key != b"null" {
        out.extend_from_slice(b",\"subject\":");
        put_string(out, &String::from_utf8_lossy(&key));
    }
    let time = format_timestamp(record.ts_ms.saturating_mul(1000), 3);
    write!(out, ",\"time\":\"{time}\",\"datacontenttype\":\"application/json\",\"data\":").expect("memory");
    json::put(out, source, record);
    out.push(b'}');
}

/// A name as one segment of a URI's path.
fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(escape).collect()
}
