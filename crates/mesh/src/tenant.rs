//! Which of a listener's groups a login belongs to: a pure function of what is known of the client before it has proven
//! anything.

use crate::config::{Fallback, LoginMatchConfig};
use crate::group::Group;
use mysql::protocol::{AUTHORITY, CUSTOM, FieldReader, ProxyHeader};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// The name that its TLS asked for.
    pub sni: Option<&'a str>,
    /// The block of its connection attributes.
    pub attributes: &'a [u8],
    pub header: &'a ProxyHeader,
}

/// The group of a login, and why it is that one; `None` where nobody takes it.
///
/// The first whose `match` fits; of those without one the first that lists the user, then the first that lists the database,
/// then the first.
pub fn choose<'a>(
    groups: &'a [Arc<Group>],
    fallback: Fallback,
    facts: Facts<'_>,
) -> Option<(&'a Arc<Group>, &'static str)> {
    let fitting =
        groups.iter().find(|group| group.config.matches.as_ref().is_some_and(|wanted| fits(wanted, facts)));
    if let Some(group) = fitting {
        return Some((group, "its `match` fits"));
    }
    let open = || groups.iter().filter(|group| group.config.matches.is_none());
    let by_user = open().find(|group| group.config.users.iter().any(|known| known.name == facts.user));
    let by_database = || open().find(|group| group.config.databases.contains(facts.database));
    by_user
        .map(|group| (group, "it lists the user"))
        .or_else(|| by_database().map(|group| (group, "it lists the database")))
        .or_else(|| {
            let first = open().next().filter(|_| fallback == Fallback::First);
            first.map(|group| (group, "it is the first"))
        })
}

/// Whether all that is wanted is so.
fn fits(wanted: &LoginMatchConfig, facts: Facts<'_>) -> bool {
    let one_of = |list: &BTreeSet<String>, value: &str| list.is_empty() || list.contains(value);
    one_of(&wanted.users, facts.user)
        && one_of(&wanted.databases, facts.database)
        && (wanted.sni.is_empty()
            || facts.sni.is_some_and(|name| wanted.sni.iter().any(|pattern| names(pattern, name))))
        && wanted
            .attributes
            .iter()
            .all(|(key, value)| attribute(facts.attributes, key.as_bytes()) == Some(value.as_bytes()))
        && wanted.tlv.iter().all(|(kind, value)| {
            field_type(kind).and_then(|kind| facts.header.field(kind)) == Some(value.as_bytes())
        })
}

/// Whether a host is the one that a pattern names: itself, or with `*.` in front any one label before the rest.
fn names(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, behind)| !label.is_empty() && behind.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// The value of a connection attribute.
fn attribute<'a>(block: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut fields = FieldReader::new(block);
    while !fields.is_empty() {
        let (key, value) = (fields.bytes().ok()?, fields.bytes().ok()?);
        if key == wanted {
            return Some(value);
        }
    }
    None
}

/// The type of a field of the PROXY protocol by its name: `authority`, or `0xE0` to `0xEF`.
pub fn field_type(name: &str) -> Option<u8> {
    if name == "authority" {
        return Some(AUTHORITY);
    }
    let digits = name.strip_prefix("0x").filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok().filter(|kind| CUSTOM.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql::protocol::put_bytes;

    fn groups(configs: &[&str]) -> Vec<Arc<Group>> {
        let group = |(number, text): (usize, &&str)| {
            let mut config: serde_json::Value = serde_json::from_str(text).unwrap();
            config["backends"] = serde_json::json!([]);
            let config = serde_json::from_value(config).unwrap();
            Arc::new(Group::new(number.to_string(), number, config, None, None, None))
        };
        configs.iter().enumerate().map(group).collect()
    }

    const NOTHING: ProxyHeader = ProxyHeader { ends: None, fields: Vec::new() };
    const NOBODY: Facts<'_> = Facts { user: "", database: "", sni: None, attributes: &[], header: &NOTHING };

    fn chosen(groups: &[Arc<Group>], fallback: Fallback, facts: Facts<'_>) -> Option<usize> {
        choose(groups, fallback, facts).map(|(group, _)| group.number)
    }

    #[test]
    fn the_first_that_fits_wholly_takes_a_login_and_others_come_after() {
        let groups = groups(&[
            r#"{"match": {"users": ["a", "b"], "databases": ["one"]}}"#,
            r#"{"match": {"sni": ["shop.example", "*.shops.example"]}}"#,
            r#"{"match": {"attributes": {"tenant": "red"}}}"#,
            r#"{"match": {"tlv": {"0xE1": "blue", "authority": "blue.example"}}}"#,
            r#"{"databases": ["two"]}"#,
            r#"{"auth": "vault", "users": [{"name": "u"}], "databases": ["three"]}"#,
        ]);
        let chosen = |facts| chosen(&groups, Fallback::First, facts);
        assert_eq!(chosen(Facts { user: "b", database: "one", ..NOBODY }), Some(0));
        // All of a match has to fit, and a group with one is nobody's fallback.
        assert_eq!(chosen(Facts { user: "b", database: "other", ..NOBODY }), Some(4));
        assert_eq!(chosen(Facts { sni: Some("SHOP.example"), ..NOBODY }), Some(1));
        assert_eq!(chosen(Facts { sni: Some("x.shops.example"), ..NOBODY }), Some(1));
        for other in ["shops.example", "x.y.shops.example", ".shops.example", "shop.example.org"] {
            assert_eq!(chosen(Facts { sni: Some(other), ..NOBODY }), Some(4), "{other}");
        }
        let mut attributes = Vec::new();
        for text in ["_pid", "42", "tenant", "red"] {
            put_bytes(&mut attributes, text.as_bytes());
        }
        assert_eq!(chosen(Facts { attributes: &attributes, ..NOBODY }), Some(2));
        let cut = &attributes[..attributes.len() - 1];
        assert_eq!(chosen(Facts { attributes: cut, ..NOBODY }), Some(4));
        let one = ProxyHeader { ends: None, fields: vec![(0xe1, b"blue".to_vec())] };
        assert_eq!(chosen(Facts { header: &one, ..NOBODY }), Some(4));
        let mut both = one.clone();
        both.fields.push((AUTHORITY, b"blue.example".to_vec()));
        assert_eq!(chosen(Facts { header: &both, ..NOBODY }), Some(3));
        assert_eq!(chosen(Facts { user: "u", database: "two", ..NOBODY }), Some(5));
        assert_eq!(chosen(Facts { database: "three", ..NOBODY }), Some(5));
    }

    #[test]
    fn without_a_fallback_a_login_that_nobody_names_is_nobodys() {
        let open = groups(&[r#"{"databases": ["two"]}"#, "{}"]);
        assert_eq!(chosen(&open, Fallback::First, NOBODY), Some(0));
        assert_eq!(chosen(&open, Fallback::None, NOBODY), None);
        assert_eq!(chosen(&open, Fallback::None, Facts { database: "two", ..NOBODY }), Some(0));
        let closed = groups(&[r#"{"match": {"users": ["a"]}}"#]);
        assert_eq!(chosen(&closed, Fallback::First, NOBODY), None);
    }

    #[test]
    fn fields_are_named_by_their_use_or_their_number() {
        assert_eq!(
            (field_type("authority"), field_type("0xE0"), field_type("0xef")),
            (Some(2), Some(0xe0), Some(0xef))
        );
        for bad in ["0x02", "0xF0", "0xE", "224", "", "0x0E0", "0x+E"] {
            assert_eq!(field_type(bad), None, "{bad}");
        }
    }
}
