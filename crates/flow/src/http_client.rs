//! Our HTTP client, as `dial` has it, and the headers that people may give its requests.

pub use dial::http::{Answer, Body, Client, ClientError, Endpoint, Patience, escaped};

use base::Secret;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;

/// Headers that a request has from us.
const OWN_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    crate::webhook::ID,
    crate::webhook::TIMESTAMP,
    crate::webhook::SIGNATURE,
];

/// A person's headers. `Err` says what is wrong, without any value, and what to do.
pub fn headers(named: &BTreeMap<String, Secret>) -> Result<HeaderMap, (String, String)> {
    let mut headers = HeaderMap::new();
    for (name, value) in named {
        let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            (format!("`{name}` is not a header's name"), "headers: {x-team: shop}".to_owned())
        })?;
        if OWN_HEADERS.contains(&known.as_str()) {
            let message = format!("the header `{name}` is set by Tidemill itself");
            return Err((message, "take it out of `headers`".to_owned()));
        }
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
            let message = format!("the header `{name}` has characters that HTTP does not allow");
            (message, "use ASCII on one line".to_owned())
        })?;
        value.set_sensitive(true);
        headers.insert(known, value);
    }
    Ok(headers)
}
