//! Signatures of requests by the convention of Standard Webhooks, for those that we send and those that we are sent:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//!
//! ```text
//! webhook-id         names the request; a repeat has the same
//! webhook-timestamp  seconds since 1970, when it was sent
//! webhook-signature  v1,base64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY")), for each secret, with spaces between
//! ```

use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;

pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// What the convention asks of a secret.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// A request whose time is further away from ours may be one that someone recorded.
pub const TIMESTAMP_TOLERANCE_S: i64 = 300;

/// How to come by a secret.
pub const KEY_HINT: &str = "make one: echo whsec_$(openssl rand -base64 32), and tell it to the other side";

/// The keys of all secrets; `Err` says what is wrong with one, and never the secret.
pub fn keys(secrets: &[Secret]) -> Result<Vec<Key>, String> {
    secrets.iter().map(Key::parse).collect()
}

/// A secret that was read; cloning is cheap, and it prints nothing.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// From `whsec_BASE64`. `Err` says what is wrong, and never the secret.
    pub fn parse(secret: &Secret) -> Result<Self, String> {
        let text = secret.expose().trim();
        let text = text.strip_prefix("whsec_").ok_or("a webhook secret begins with `whsec_`")?;
        let bytes = BASE64.decode(text).map_err(|_| "a webhook secret is `whsec_` and base64")?;
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(format!(
                "a webhook secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, and this one {}",
                bytes.len()
            ));
        }
        Ok(Self(Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length")))
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac
    }
}

/// The value of `webhook-signature`.
pub fn sign(keys: &[Key], id: &str, timestamp: i64, body: &[u8]) -> String {
    let sign =
        |key: &Key| format!("v1,{}", BASE64.encode(key.mac(id, timestamp, body).finalize().into_bytes()));
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}

/// Whether one of the signatures is by one of the keys, and the time is about now.
pub fn verify(
    keys: &[Key],
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now_s: i64,
) -> Result<(), &'static str> {
    let sent = timestamp.parse::<i64>().map_err(|_| "`webhook-timestamp` is not a number of seconds")?;
    if sent.abs_diff(now_s) > TIMESTAMP_TOLERANCE_S.unsigned_abs() {
        return Err("`webhook-timestamp` is more than five minutes away from now");
    }
    let given = signatures.split_ascii_whitespace().filter_map(|one| one.strip_prefix("v1,"));
    let matches = given
        .filter_map(|text| BASE64.decode(text).ok())
        .any(|given| keys.iter().any(|key| key.mac(id, sent, body).verify_slice(&given).is_ok()));
    if matches { Ok(()) } else { Err("no signature in `webhook-signature` is by a secret of this source") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SENT: i64 = 1_614_265_330;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_example_of_the_convention_is_signed_and_verified() {
        let key = Key::parse(&Secret::new(SECRET)).unwrap();
        assert_eq!(sign(&[key], ID, SENT, BODY), SIGNED);
    }

    #[test]
    fn any_of_several_signatures_and_keys_will_do_and_nothing_else() {
        let key = Key::parse(&Secret::new(SECRET)).unwrap();
        let other = Key::parse(&Secret::new(format!("whsec_{}", BASE64.encode([7; 32])))).unwrap();
        let both = sign(&[other.clone(), key.clone()], ID, SENT, BODY);
        let ask = |keys: &[Key], sent: &str, signatures: &str, body: &[u8], now| {
            verify(keys, ID, sent, signatures, body, now)
        };
        let sent = SENT.to_string();
        assert_eq!(ask(std::slice::from_ref(&key), &sent, &both, BODY, SENT + 300), Ok(()));
        assert_eq!(ask(&[other.clone(), key.clone()], &sent, SIGNED, BODY, SENT - 300), Ok(()));
        for (keys, sent, signatures, body, now) in [
            (&[other][..], sent.as_str(), SIGNED, BODY, SENT),
            (&[key.clone()][..], sent.as_str(), SIGNED, &b"{}"[..], SENT),
            (&[key.clone()][..], sent.as_str(), &SIGNED[3..], BODY, SENT),
            (&[key.clone()][..], sent.as_str(), "", BODY, SENT),
            (&[key.clone()][..], "x", SIGNED, BODY, SENT),
            (&[key][..], sent.as_str(), SIGNED, BODY, SENT + 301),
        ] {
            assert!(ask(keys, sent, signatures, body, now).is_err());
        }
    }

    #[test]
    fn a_wrong_secret_is_told_without_it() {
        for wrong in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?", "whsec_c2hvcnQ="] {
            let told = Key::parse(&Secret::new(wrong)).err().unwrap();
            assert!(!told.contains("MfKQ") && !told.contains("c2hv"), "{told}");
        }
    }
}
