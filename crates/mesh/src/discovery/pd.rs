//! TiDB servers as PD knows them: each writes into PD's etcd where it is, and for as long as it lives a second key beside
//! it, which goes by itself.

use super::http::Question;
use super::{FOUND_MAX, announced, server};
use crate::config::{BackendConfig, GroupConfig};
use crate::group::Group;
use crate::tls::Connector;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The pace of questions. A server's second key lives for 45 s after its last sign.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Where servers write; the end is the text behind all that begin so.
const PREFIX: &str = "/topology/tidb/";
const PREFIX_END: &str = "/topology/tidb0";
/// Two keys of each server.
const KEYS_MAX: usize = 4 * FOUND_MAX;

/// Asks PD for a group's servers until `stop`.
pub async fn run(group: Arc<Group>, mut stop: watch::Receiver<bool>) {
    let (Some(members), Ok(connector)) = (&group.members, Connector::to_pd(&group.name, &group.config))
    else {
        return;
    };
    let mut well = true;
    let mut first = 0;
    loop {
        match ask(&group.config, connector.as_ref(), &mut first).await {
            Ok(listed) => {
                if listed.is_empty() {
                    tracing::debug!(group = group.name, "PD knows no TiDB");
                } else if !std::mem::replace(&mut well, true) {
                    tracing::info!(group = group.name, "PD answers");
                }
                members.list(listed);
            }
            Err(reason) => {
                if std::mem::replace(&mut well, false) {
                    tracing::warn!(
                        group = group.name,
                        reason,
                        "no PD tells the servers of a group: those that are known stay"
                    );
                }
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

/// The servers that one PD knows; the one that answered last is asked `first`.
pub async fn ask(
    config: &GroupConfig,
    connector: Option<&Connector>,
    first: &mut usize,
) -> Result<Vec<BackendConfig>, String> {
    let json = serde_json::json!({
        "key": base64(PREFIX.as_bytes()), "range_end": base64(PREFIX_END.as_bytes()), "limit": KEYS_MAX,
    })
    .to_string();
    let mut reasons = Vec::new();
    for step in 0..config.pd.len() {
        let at = (*first + step) % config.pd.len();
        let address = &config.pd[at];
        let question = Question { address, connector, path: "/v3/kv/range", json: &json };
        let read = match question.ask().await {
            Ok(body) => read(config, &body),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(listed) => {
                *first = at;
                return Ok(listed);
            }
            Err(reason) => reasons.push(format!("{address}: {reason}")),
        }
    }
    Err(reasons.join("; "))
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

/// What a TiDB writes of itself, as far as it is of use here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    ip: String,
    status_port: u16,
    labels: Option<BTreeMap<String, String>>,
}

fn read(config: &GroupConfig, body: &[u8]) -> Result<Vec<BackendConfig>, String> {
    let range: Range = serde_json::from_slice(body).map_err(|error| format!("no answer of etcd: {error}"))?;
    if range.more {
        return Err(format!("more than {KEYS_MAX} keys of TiDB servers"));
    }
    let mut infos = BTreeMap::new();
    let mut alive = BTreeSet::new();
    for pair in &range.kvs {
        let key = unbase64(&pair.key).and_then(|key| String::from_utf8(key).ok());
        let key = key.as_deref().and_then(|key| key.strip_prefix(PREFIX)).ok_or("a key that is none")?;
        match key.rsplit_once('/') {
            Some((server, "ttl")) => {
                alive.insert(server.to_owned());
            }
            Some((server, "info")) => {
                let value = unbase64(&pair.value).ok_or("a value that is none")?;
                let info: Info = serde_json::from_slice(&value)
                    .map_err(|error| format!("what `{server}` says of itself cannot be read: {error}"))?;
                infos.insert(server.to_owned(), info);
            }
            // Something newer than this.
            _ => {}
        }
    }
    infos.retain(|name, _| alive.contains(name));
    if infos.len() > FOUND_MAX {
        return Err(format!("more than {FOUND_MAX} TiDB servers"));
    }
    let place = |(name, info): (String, Info)| {
        let (host, port) = name.rsplit_once(':')?;
        let address = announced(config, host.trim_matches(['[', ']']), port.parse().ok()?)?;
        let host = if info.ip.is_empty() { host.trim_matches(['[', ']']) } else { &info.ip };
        let zone = info.labels.and_then(|mut labels| labels.remove("zone"));
        Some(BackendConfig { status: announced(config, host, info.status_port), zone, ..server(address) })
    };
    Ok(infos.into_iter().filter_map(place).collect())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            let index = (number >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= three.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut number, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = ALPHABET.iter().position(|known| *known == byte)?;
        number = (number << 6 | u32::try_from(six).ok()?) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(number >> bits & 255).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_bytes_and_back() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob?>~", "Zm9vYj8+fg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(unbase64(text).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unbase64(&base64(&all)), Some(all));
        assert_eq!(unbase64("a b"), None);
    }

    fn answer(pairs: &[(&str, &str)]) -> Vec<u8> {
        let kvs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| serde_json::json!({"key": base64(key.as_bytes()), "value": base64(value.as_bytes())}))
            .collect();
        serde_json::json!({"header": {}, "kvs": kvs, "count": pairs.len().to_string()})
            .to_string()
            .into_bytes()
    }

    fn listed(body: &[u8]) -> Result<Vec<BackendConfig>, String> {
        let config: GroupConfig = serde_json::from_str(
            r#"{"kind": "tidb", "backends": [], "topology": "pd", "pd": ["a:1"], "address_map": {"10.0.0.2:4000": "far:4001"}}"#,
        )
        .unwrap();
        read(&config, body)
    }

    #[test]
    fn servers_that_live_are_listed() {
        let info = r#"{"version":"8.0.11-TiDB-v8.5.6","ip":"10.0.0.1","status_port":10080,"labels":{"zone":"north"}}"#;
        let body = answer(&[
            ("/topology/tidb/10.0.0.1:4000/info", info),
            ("/topology/tidb/10.0.0.1:4000/ttl", "1700000000000000000"),
            ("/topology/tidb/10.0.0.2:4000/info", r#"{"ip":"10.0.0.2","status_port":0,"labels":null}"#),
            ("/topology/tidb/10.0.0.2:4000/ttl", "1"),
            // Its second key has gone.
            ("/topology/tidb/10.0.0.3:4000/info", info),
            ("/topology/tidb/10.0.0.4:4000/ttl", "1"),
            ("/topology/tidb/[::1]:4000/info", "{}"),
            ("/topology/tidb/[::1]:4000/ttl", "1"),
            ("/topology/tidb/x y:4000/info", "{}"),
            ("/topology/tidb/x y:4000/ttl", "1"),
        ]);
        let first = BackendConfig {
            status: Some("10.0.0.1:10080".into()),
            zone: Some("north".into()),
            ..server("10.0.0.1:4000".into())
        };
        let others = ["far:4001", "[::1]:4000"].map(|address| server(address.into()));
        assert_eq!(listed(&body), Ok(vec![first, others[0].clone(), others[1].clone()]));
        assert_eq!(listed(br#"{"header": {"revision": "1"}}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert!(listed(b"<html>").is_err());
        assert!(listed(br#"{"kvs": [], "more": true}"#).is_err());
        assert!(listed(&answer(&[("/other", "")])).is_err());
        assert!(listed(&answer(&[("/topology/tidb/a:1/info", "no JSON")])).is_err());
    }
}
