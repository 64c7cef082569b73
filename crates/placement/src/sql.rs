//! Names and texts in SQL.

/// A name, in backticks.
pub fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// What stands behind a name in backticks, whose inner ones are doubled.
pub fn behind_name(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('`')?;
    loop {
        rest = rest.split_once('`')?.1;
        match rest.strip_prefix('`') {
            Some(more) => rest = more,
            None => return Some(rest),
        }
    }
}

/// A text, in quotes.
pub fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// An account: `app@%` is `'app'@'%'`.
pub fn account(user: &str) -> String {
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    format!("{}@{}", text(name), text(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(name("a`b"), "`a``b`");
        assert_eq!(behind_name("`a``b` x=`c`"), Some(" x=`c`"));
        assert_eq!(behind_name("`a``b"), None);
        assert_eq!(text("it's \\"), "'it''s \\\\'");
        assert_eq!(account("app@10.%"), "'app'@'10.%'");
        assert_eq!(account("app"), "'app'@'%'");
    }
}
