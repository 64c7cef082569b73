//! Takes our secrets out of what others print.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeSet;

/// Shorter ones are words that stand in any text.
const BYTES_MIN: usize = 4;
/// The longest word that is looked for as a whole. Of a longer secret its lines are found.
const BYTES_MAX: usize = 16 * 1024;
/// Parts of a secret that are looked for alone, a token in a path or behind `Bearer`: shorter ones may be anything.
const PART_MIN: usize = 8;
/// A part of a URL that is longer is a token even without a digit.
const WORD_MAX: usize = 20;

/// The words that nobody may see.
#[derive(Clone, Default)]
pub struct Redaction {
    /// The longest first: one may be a part of another.
    words: Vec<String>,
}

impl Redaction {
    /// Of these secrets, whole and line by line, as they are and as JSON and URLs write them.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut redaction = Self::default();
        redaction.add(secrets);
        redaction
    }

    pub fn add<'a>(&mut self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut words: BTreeSet<String> = self.words.drain(..).collect();
        for secret in secrets {
            for word in secret.lines().map(str::trim).chain([secret, secret.trim()]) {
                let json = serde_json::Value::from(word).to_string();
                let json = json.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or_default();
                let in_url = dial::http::escaped(word);
                for form in [word, json, in_url.as_str()] {
                    if (BYTES_MIN..=BYTES_MAX).contains(&form.len()) {
                        words.insert(form.to_owned());
                    }
                }
            }
        }
        self.words.extend(words);
        self.words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    }

    /// Of a text of which a part may be the secret, such as a header's value.
    pub fn add_parts(&mut self, secret: &str, between: char) {
        self.add([secret]);
        self.add(secret.split(between).filter(|part| part.len() >= PART_MIN));
    }

    /// Of a login, alone and as `Basic` writes it.
    pub fn add_login(&mut self, user: &str, password: &str) {
        let both = BASE64.encode(format!("{user}:{password}"));
        self.add([password, both.as_str()]);
    }

    /// Of a URL: its login, and what of its path is a token.
    pub fn add_url(&mut self, url: &str) {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if let Some((login, _)) = authority.rsplit_once('@') {
            let plain = percent_encoding::percent_decode_str(login).decode_utf8_lossy();
            let (user, password) = plain.split_once(':').unwrap_or((plain.as_ref(), ""));
            self.add_login(user, password);
            self.add([login, login.split_once(':').map_or("", |(_, password)| password)]);
        }
        let (path, query) = path.split_once(['?', '#']).unwrap_or((path, ""));
        self.add(path.split('/').filter(|part| is_token(part)));
        self.add(query.split(['&', '=']).filter(|part| is_token(part)));
    }

    /// Bytes that must be read behind a text's end to find a secret that begins before it.
    pub fn ahead(&self) -> usize {
        self.words.first().map_or(0, String::len)
    }

    /// A text without the secrets, from its beginning to this byte. One that goes on behind it is found where the text does.
    pub fn shown(&self, text: &str, bytes_max: usize) -> String {
        let mut out = String::with_capacity(text.len().min(bytes_max));
        let mut at = 0;
        while at < bytes_max {
            let rest = &text[at..];
            let Some(next) = rest.chars().next() else { break };
            match self.words.iter().find(|word| rest.starts_with(word.as_str())) {
                Some(word) => {
                    out.push_str("[redacted]");
                    at += word.len();
                }
                None => {
                    out.push(next);
                    at += next.len_utf8();
                }
            }
        }
        out
    }
}

/// `services` is none, `xoxb-123456` is one.
fn is_token(part: &str) -> bool {
    part.len() > WORD_MAX || (part.len() >= PART_MIN && part.bytes().any(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::Redaction;

    #[test]
    fn secrets_are_found_whole_by_line_and_in_other_spellings() {
        let key = "-----BEGIN KEY-----\nMIIEvQ+/AAAA\nabc\n-----END KEY-----\n";
        let mut redaction = Redaction::of([key, "pass\"word", "abc"]);
        redaction.add_parts("Bearer tok3n-of-header", ' ');
        redaction.add_login("app", "s3cret");
        redaction.add_url("https://me:p%40ss@hooks.example.com/services/T0/xoxb-123456?a=b");
        for (text, wanted) in [
            ("at MIIEvQ+/AAAA abc", "at [redacted] abc"),
            (
                r#"{"key": "-----BEGIN KEY-----\nMIIEvQ+/AAAA\nabc"}"#,
                r#"{"key": "[redacted]\n[redacted]\nabc"}"#,
            ),
            (r#"pass"word pass\"word pass%22word"#, "[redacted] [redacted] [redacted]"),
            ("got tok3n-of-header", "got [redacted]"),
            ("YXBwOnMzY3JldA== is s3cret", "[redacted] is [redacted]"),
            ("me p@ss p%40ss bWU6cEBzcw==", "me [redacted] [redacted] [redacted]"),
            ("/services/T0/xoxb-123456?a=b", "/services/T0/[redacted]?a=b"),
        ] {
            assert_eq!(redaction.shown(text, usize::MAX), wanted);
        }
    }

    #[test]
    fn a_secret_at_the_end_of_what_is_shown_is_found() {
        let redaction = Redaction::of(["s3cret-token"]);
        // Its longest form is longer than it is: that is how far is looked.
        assert!(redaction.ahead() >= 12);
        assert_eq!(redaction.shown("is s3cret-token now", 5), "is [redacted]");
        assert_eq!(redaction.shown("is s3cret-token now", 3), "is ");
        assert_eq!(redaction.shown("数据", 1), "数");
    }
}
