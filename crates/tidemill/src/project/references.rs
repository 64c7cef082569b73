//! `${env:NAME}` and `${file:PATH}`, and URLs that hold them.

use super::References;
use crate::pushed::{ReportConfig, Reporter};
use base::Secret;
use std::fs;

/// What is wrong with a URL, and a hint where the URL's kind does not give a better one.
pub(super) type UrlProblem = (String, Option<String>);

/// Puts the values of `${env:NAME}` and `${file:PATH}` in place.
pub fn resolve(url: &mut Option<Secret>, schemes: &[&str], references: References) -> Result<(), UrlProblem> {
    let Some(secret) = url else { return Err(("`url` is missing".into(), None)) };
    if references == References::Leave {
        return Ok(());
    }
    let text = resolve_references(secret.expose(), url_escaped)?;
    if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err((format!("`url` does not begin with {}", schemes.join(" or ")), None));
    }
    *secret = Secret::new(text);
    Ok(())
}

/// Puts references in place, and reads what is there then. `Err` is what is wrong, and a hint.
pub(super) fn check_report(
    report: &mut ReportConfig,
    references: References,
) -> Result<(), (String, String)> {
    if references == References::Leave {
        return Ok(());
    }
    let told = |(message, hint): UrlProblem| (message, hint.unwrap_or_default());
    report.url = Secret::new(resolve_references(report.url.expose(), url_escaped).map_err(told)?);
    resolve_all(report.headers.values_mut()).map_err(told)?;
    Reporter::read(report).map(|_| ())
}

/// The same for a schema registry, which need not be there. `Err` is what is wrong, and a hint.
pub(super) fn registry(url: &mut Option<Secret>, references: References) -> Result<(), (String, String)> {
    if url.is_none() {
        return Ok(());
    }
    let hint = "schema_registry: http://user:${env:REGISTRY_PASSWORD}@127.0.0.1:8081";
    resolve(url, &["http://", "https://"], references).map_err(|(message, own)| {
        (message.replace("`url`", "`schema_registry`"), own.unwrap_or_else(|| hint.to_owned()))
    })?;
    if references == References::Leave {
        return Ok(());
    }
    let read = url
        .as_ref()
        .map(|url| flow::schema_registry::Registry::new(url, &flow::tls::Files::default()))
        .transpose();
    read.map(|_| ()).map_err(|message| (format!("`schema_registry`: {message}"), hint.to_owned()))
}

pub const SECRETS_HINT: &str = "write ${env:NAME} or ${file:PATH}";

/// The same for secrets that stand for themselves.
pub fn resolve_all<'a>(secrets: impl Iterator<Item = &'a mut Secret>) -> Result<(), UrlProblem> {
    for secret in secrets {
        *secret = Secret::new(resolve_references(secret.expose(), str::to_owned)?);
    }
    Ok(())
}

/// References stand inside URLs: what the URL's grammar would take for its own is escaped.
fn url_escaped(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn resolve_references(text: &str, escape: fn(&str) -> String) -> Result<String, UrlProblem> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (reference, after) =
            after.split_once('}').ok_or_else(|| ("a reference `${` has no end".into(), None))?;
        let value = match reference.split_once(':') {
            Some(("env", name)) => std::env::var(name).map_err(|_| {
                let message = format!("the environment has no `{name}`");
                (message, Some(format!("export {name}=…, then run again")))
            })?,
            Some(("file", path)) => {
                let read = fs::read_to_string(path).map(|text| text.trim_end().to_owned());
                read.map_err(|error| {
                    let message = format!("failed to read the secret file `{path}`: {error}");
                    (message, Some("write the secret into that file, or name another".to_owned()))
                })?
            }
            _ => return Err((format!("`${{{reference}}}` is not ${{env:NAME}} or ${{file:PATH}}"), None)),
        };
        out.push_str(&escape(&value));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
