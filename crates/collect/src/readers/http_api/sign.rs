//! Signatures of requests, as exchange platforms want them: over parameters that are sorted by their names.

use super::super::config::{HttpSign, SignForm, SignMethod, SignPlace};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

/// What is signed besides the parameters.
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub body: &'a str,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// New for each request.
    pub nonce: &'a str,
}

/// What a signature adds.
#[derive(Debug, Default, PartialEq)]
pub struct Added {
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
}

pub fn check(sign: &HttpSign) -> Result<(), String> {
    if sign.method == SignMethod::Md5 && !sign.text.contains("{secret}") {
        return Err(
            "`sign`: an md5 without the secret in `text` signs nothing: write `text: \"{params}{secret}\"`"
                .to_owned(),
        );
    }
    Ok(())
}

/// The signature of a request with these parameters.
pub fn sign(sign: &HttpSign, parameters: &[(String, String)], asked: &Asked<'_>) -> Added {
    let timestamp = if sign.timestamp_in_seconds { asked.now_ms / 1000 } else { asked.now_ms }.to_string();
    let own = [
        (sign.app_key_name.clone(), sign.app_key.clone()),
        (sign.timestamp_name.clone(), timestamp.clone()),
        (sign.nonce_name.clone(), asked.nonce.to_owned()),
    ];
    let mut all = parameters.to_vec();
    if sign.carried_in == SignPlace::Query {
        all.extend(own.iter().cloned());
    }
    all.sort();
    let pairs: Vec<String> =
        all.iter().map(|(name, value)| format!("{name}{}{value}", sign.between)).collect();
    let secret = sign.secret.expose();
    let text = super::fill(&sign.text, &|name| {
        Some(match name {
            "params" => pairs.join(&sign.join),
            "app_key" => sign.app_key.clone(),
            "timestamp" => timestamp.clone(),
            "nonce" => asked.nonce.to_owned(),
            "secret" => secret.to_owned(),
            "method" => asked.method.to_owned(),
            "path" => asked.path.to_owned(),
            "body" => asked.body.to_owned(),
            _ => return None,
        })
    });
    let bytes = match sign.method {
        SignMethod::HmacSha256 => {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        SignMethod::Md5 => Md5::digest(text.as_bytes()).to_vec(),
    };
    let written = match sign.form {
        SignForm::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        SignForm::HexUpper => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
        SignForm::Base64 => BASE64.encode(bytes),
    };
    let carried = own
        .into_iter()
        .chain([(sign.sign_name.clone(), written)])
        .filter(|(name, _)| !name.is_empty())
        .collect();
    match sign.carried_in {
        SignPlace::Query => Added { query: carried, headers: Vec::new() },
        SignPlace::Headers => Added { query: Vec::new(), headers: carried },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> HttpSign {
        serde_saphyr::from_str(&format!("app_key: demo\nsecret: s3cret\n{rest}")).unwrap()
    }

    fn signature(config: &HttpSign) -> Added {
        let parameters = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "张".to_owned())];
        let asked =
            Asked { method: "GET", path: "/v1/orders", body: "", now_ms: 1_767_225_600_123, nonce: "n1" };
        sign(config, &parameters, &asked)
    }

    fn value(pairs: &[(String, String)], name: &str) -> String {
        pairs.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// The wanted texts are of `openssl dgst` over the text that stands before each.
    #[test]
    fn signatures_are_what_openssl_makes_of_the_sorted_parameters() {
        // a=张&appKey=demo&b=2&nonce=n1&timestamp=1767225600123
        let added = signature(&config(""));
        assert_eq!(
            value(&added.query, "sign"),
            "cd811d2f72276c0f3294c0627f5bed08fa634de872fcb59e71439a340e660568"
        );
        assert_eq!(value(&added.query, "appKey"), "demo");
        // s3creta张appKeydemob2noncen1timestamp1767225600s3cret
        let rest = "method: md5\ntext: '{secret}{params}{secret}'\nbetween: ''\njoin: ''\nform: hex_upper\ntimestamp_in_seconds: true";
        assert_eq!(value(&signature(&config(rest)).query, "sign"), "3DD69DC11312054C9619B9C79B32F03F");
        // GET\n/v1/orders\na=张&b=2\n1767225600123\nn1
        let rest = "text: \"{method}\\n{path}\\n{params}\\n{timestamp}\\n{nonce}\"\ncarried_in: headers\nform: base64\nsign_name: X-Sign";
        let added = signature(&config(rest));
        assert_eq!(
            (value(&added.headers, "X-Sign").as_str(), added.query.len()),
            ("y02woXH/eCQxvNLY1dcY3AWNJmcf5c5AuiiZcO3g0+I=", 0)
        );
    }

    #[test]
    fn an_md5_without_the_secret_is_refused() {
        assert!(check(&config("method: md5")).is_err() && check(&config("")).is_ok());
    }
}
