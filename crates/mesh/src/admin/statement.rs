//! What is said at the admin port, read into a [`Statement`]. Pure: nothing is looked up here.
//!
//! ```text
//! SHOW BACKENDS | GROUPS | SESSIONS | DIGESTS | SLOW | POOLS | RULES | LISTENERS | STATUS [LIKE 'x%'] [LIMIT n]
//! EXPLAIN ROUTE [IN GROUP g] [FOR USER 'u'] statement          KILL [QUERY] id          RELOAD
//! DRAIN | UNDRAIN BACKEND 'host:port' [IN GROUP g]             REMOVE BACKEND 'host:port' [FROM GROUP g]
//! ADD BACKEND 'host:port' [TO GROUP g] [ROLE r] [WEIGHT n] [ZONE 'z'] [STATUS 'host:port']
//! ```
//! Beside these what clients say by themselves when they connect: `SELECT @@version_comment`, `SET NAMES utf8mb4`.

use crate::config::{BackendConfig, Role};
use serde_json::json;

/// What there is, for people: each with what it does.
pub const HELP: [(&str, &str); 16] = [
    ("SHOW BACKENDS", "servers with their role, state, connections and lag"),
    ("SHOW GROUPS", "groups with their sessions"),
    ("SHOW SESSIONS [LIMIT n]", "clients; busy_ms is of the present statement"),
    ("SHOW DIGESTS [LIMIT n]", "statements with their literals left out, the costliest first"),
    ("SHOW SLOW [LIMIT n]", "the latest statements that took long"),
    ("SHOW POOLS", "shared connections by server"),
    ("SHOW RULES", "rules and limits with how often they were met"),
    ("SHOW LISTENERS", "ports for clients"),
    ("SHOW STATUS [LIKE 'x%']", "counters"),
    ("EXPLAIN ROUTE [IN GROUP g] [FOR USER 'u'] statement", "where it would go, and why"),
    ("KILL [QUERY] id", "ends a session, or only its statement"),
    ("DRAIN BACKEND 'host:port' [IN GROUP g]", "no new session goes there, and those that can leave it"),
    ("UNDRAIN BACKEND 'host:port' [IN GROUP g]", "sessions may go there again"),
    (
        "ADD BACKEND 'host:port' [TO GROUP g] [ROLE writer|replica] [WEIGHT n] [ZONE 'z'] [STATUS 'host:port']",
        "one more server, in mesh.yaml too",
    ),
    ("REMOVE BACKEND 'host:port' [FROM GROUP g]", "one server less, in mesh.yaml too; it is drained"),
    ("RELOAD", "takes mesh.yaml into use"),
];

/// What a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Backends,
    Groups,
    Sessions,
    Digests,
    Slow,
    Pools,
    Rules,
    Listeners,
    Status,
    Variables,
    Databases,
    Help,
    /// Of which there are none here: tables, warnings.
    Nothing,
}

/// A value that a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Variable(String),
    /// `DATABASE()`, `USER()` and the like, in small letters.
    Function(String),
    Literal(String),
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Show {
        list: List,
        like: Option<String>,
        limit: Option<usize>,
    },
    /// Each value with its head.
    Select(Vec<(Value, String)>),
    Explain {
        group: Option<String>,
        user: Option<String>,
        sql: String,
    },
    Kill {
        id: u32,
        only_statement: bool,
    },
    Drain {
        address: String,
        group: Option<String>,
        draining: bool,
    },
    Add {
        backend: BackendConfig,
        group: Option<String>,
    },
    Remove {
        address: String,
        group: Option<String>,
    },
    Reload,
    /// One that sets something for the client, and nothing here.
    Nothing,
}

/// Why it cannot be read, as a whole sentence of an error.
#[derive(Debug, PartialEq)]
pub struct Unread(pub String);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// In quotes of any kind.
    Text(String),
    Variable(String),
    Symbol(char),
}

/// Values that a client may ask for at once.
const VALUES_MAX: usize = 64;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Passes blanks and comments. What stands in `/*! */` is read.
    fn pass(&mut self) -> Result<(), Unread> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let rest = self.rest();
            let line = || rest.find('\n').map_or(rest.len(), |end| end + 1);
            if let Some(inner) = rest.strip_prefix("/*!") {
                self.at += 3 + inner.bytes().take_while(u8::is_ascii_digit).count();
            } else if rest.starts_with("*/") {
                self.at += 2;
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").ok_or_else(|| Unread("a comment has no end".into()))?;
                self.at += end + 2;
            } else if rest.starts_with('#')
                || rest == "--"
                || rest.starts_with("-- ")
                || rest.starts_with("--\n")
            {
                self.at += line();
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Option<Token>, Unread> {
        self.pass()?;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | ':' | '-');
        if let Some(name) = rest.strip_prefix("@@") {
            let end = name.find(|c: char| !is_word(c) && c != '`').unwrap_or(name.len());
            let name = name[..end].replace('`', "").to_ascii_lowercase();
            self.at += 2 + end;
            return Ok(Some(Token::Variable(name)));
        }
        if matches!(first, '\'' | '"' | '`') {
            let mut out = String::new();
            let mut chars = rest.char_indices().skip(1).peekable();
            while let Some((at, c)) = chars.next() {
                match c {
                    c if c == first && chars.next_if(|(_, next)| *next == first).is_some() => out.push(c),
                    c if c == first => {
                        self.at += at + 1;
                        return Ok(Some(Token::Text(out)));
                    }
                    '\\' if first != '`' => out.extend(chars.next().map(|(_, next)| next)),
                    c => out.push(c),
                }
            }
            return Err(Unread("a text has no end".into()));
        }
        if is_word(first) {
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let word = rest[..end].to_owned();
            self.at += end;
            return Ok(Some(Token::Word(word)));
        }
        self.at += first.len_utf8();
        Ok(Some(Token::Symbol(first)))
    }

    fn peek(&mut self) -> Result<Option<Token>, Unread> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    /// The next word in capitals, if it is one; it is taken only if it is among `wanted`.
    fn take(&mut self, wanted: &[&str]) -> Result<Option<String>, Unread> {
        let at = self.at;
        if let Some(Token::Word(word)) = self.next()? {
            let word = word.to_ascii_uppercase();
            if wanted.contains(&word.as_str()) {
                return Ok(Some(word));
            }
        }
        self.at = at;
        Ok(None)
    }

    fn takes(&mut self, wanted: &str) -> Result<bool, Unread> {
        Ok(self.take(&[wanted])?.is_some())
    }

    /// A name or a text.
    fn name(&mut self, what: &str) -> Result<String, Unread> {
        match self.next()? {
            Some(Token::Word(name) | Token::Text(name)) if !name.is_empty() => Ok(name),
            _ => Err(Unread(format!("{what} is missing"))),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, Unread> {
        let word = self.name(what)?;
        word.parse().map_err(|_| Unread(format!("`{word}` is no {what}")))
    }

    /// `IN GROUP g`, `TO GROUP g`, `FROM GROUP g`, where it stands here.
    fn group(&mut self) -> Result<Option<String>, Unread> {
        if self.take(&["IN", "TO", "FROM"])?.is_none() {
            return Ok(None);
        }
        if !self.takes("GROUP")? {
            return Err(Unread("`GROUP` is missing".into()));
        }
        self.name("the group's name").map(Some)
    }

    fn end(&mut self) -> Result<(), Unread> {
        let at = self.at;
        match self.next()? {
            None => Ok(()),
            Some(Token::Symbol(';')) => match self.next()? {
                None => Ok(()),
                Some(_) => Err(Unread("one statement at a time".into())),
            },
            Some(_) => {
                let rest: String = self.text.get(at..).unwrap_or_default().trim().chars().take(40).collect();
                Err(Unread(format!("`{rest}` is not understood here")))
            }
        }
    }
}

/// Reads one statement.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Statement, Unread> {
    let mut reader = Reader { text, at: 0 };
    let Some(Token::Word(verb)) = reader.next()? else {
        return Err(Unread("there is no statement in it".into()));
    };
    let verb = verb.to_ascii_uppercase();
    let statement = match verb.as_str() {
        "SHOW" => show(&mut reader)?,
        "HELP" => Statement::Show { list: List::Help, like: None, limit: None },
        "SELECT" => select(&mut reader)?,
        "EXPLAIN" => return explain(&mut reader),
        "KILL" => {
            let only_statement = reader.take(&["QUERY", "CONNECTION"])?.is_some_and(|word| word == "QUERY");
            Statement::Kill { id: reader.number("number of a session")?, only_statement }
        }
        "DRAIN" | "UNDRAIN" | "ADD" | "REMOVE" => backend(&mut reader, &verb)?,
        "RELOAD" => {
            reader.take(&["CONFIG"])?;
            Statement::Reload
        }
        "SET" | "USE" | "BEGIN" | "START" | "COMMIT" | "ROLLBACK" => return Ok(Statement::Nothing),
        other => return Err(Unread(format!("there is no statement `{other}` here"))),
    };
    reader.end()?;
    Ok(statement)
}

fn show(reader: &mut Reader<'_>) -> Result<Statement, Unread> {
    reader.take(&["FULL", "GLOBAL", "SESSION"])?;
    let what = reader.name("what is to be shown")?.to_ascii_uppercase();
    let list = match what.as_str() {
        "BACKENDS" => List::Backends,
        "GROUPS" => List::Groups,
        "SESSIONS" | "PROCESSLIST" => List::Sessions,
        "DIGESTS" => List::Digests,
        "SLOW" => List::Slow,
        "POOLS" => List::Pools,
        "RULES" => List::Rules,
        "LISTENERS" => List::Listeners,
        "STATUS" => List::Status,
        "VARIABLES" => List::Variables,
        "DATABASES" | "SCHEMAS" => List::Databases,
        "HELP" => List::Help,
        "TABLES" | "WARNINGS" | "ERRORS" => List::Nothing,
        other => return Err(Unread(format!("there is no list `{other}`"))),
    };
    if list == List::Nothing && reader.take(&["FROM", "IN"])?.is_some() {
        reader.name("a name")?;
    }
    let like = match reader.takes("LIKE")? {
        true => Some(reader.name("a pattern")?),
        false => None,
    };
    let limit = match reader.takes("LIMIT")? {
        true => Some(reader.number("number")?),
        false => None,
    };
    Ok(Statement::Show { list, like, limit })
}

fn select(reader: &mut Reader<'_>) -> Result<Statement, Unread> {
    let mut values = Vec::new();
    while values.len() < VALUES_MAX {
        reader.pass()?;
        let from = reader.at;
        let value = match reader.next()? {
            Some(Token::Variable(name)) => {
                let name = name.strip_prefix("session.").or(name.strip_prefix("global.")).unwrap_or(&name);
                Value::Variable(name.to_owned())
            }
            Some(Token::Text(text)) => Value::Literal(text),
            Some(Token::Word(word)) if word.parse::<i64>().is_ok() => Value::Literal(word),
            Some(Token::Word(name)) => {
                let name = name.to_ascii_lowercase();
                if reader.peek()? == Some(Token::Symbol('(')) {
                    reader.next()?;
                    if reader.next()? != Some(Token::Symbol(')')) {
                        return Err(Unread(format!("`{name}` takes nothing here")));
                    }
                } else if name != "current_user" {
                    return Err(Unread("there are no tables here to SELECT from".into()));
                }
                Value::Function(name)
            }
            _ => return Err(Unread("there are no tables here to SELECT from".into())),
        };
        let own = reader.text.get(from..reader.at).unwrap_or_default().to_owned();
        let head = match reader.takes("AS")? {
            true => reader.name("a name")?,
            false => own,
        };
        values.push((value, head));
        if reader.peek()? != Some(Token::Symbol(',')) {
            if reader.takes("LIMIT")? {
                reader.number::<u64>("number")?;
            }
            if reader.take(&["FROM"])?.is_some() && !reader.takes("DUAL")? {
                return Err(Unread("there are no tables here to SELECT from".into()));
            }
            return Ok(Statement::Select(values));
        }
        reader.next()?;
    }
    Err(Unread(format!("more than {VALUES_MAX} values at once")))
}

fn explain(reader: &mut Reader<'_>) -> Result<Statement, Unread> {
    if !reader.takes("ROUTE")? {
        return Err(Unread("`EXPLAIN ROUTE statement` tells where a statement would go".into()));
    }
    let group = reader.group()?;
    let user = match reader.takes("FOR")? {
        true if reader.takes("USER")? => Some(reader.name("the user's name")?),
        true => return Err(Unread("`USER` is missing".into())),
        false => None,
    };
    let sql = reader.rest().trim().to_owned();
    if sql.is_empty() {
        return Err(Unread("the statement to explain is missing".into()));
    }
    Ok(Statement::Explain { group, user, sql })
}

fn backend(reader: &mut Reader<'_>, verb: &str) -> Result<Statement, Unread> {
    if !reader.takes("BACKEND")? {
        return Err(Unread(format!("`{verb} BACKEND 'host:port'` is what can be said")));
    }
    let address = reader.name("the server's address")?;
    let mut group = reader.group()?;
    match verb {
        "DRAIN" => return Ok(Statement::Drain { address, group, draining: true }),
        "UNDRAIN" => return Ok(Statement::Drain { address, group, draining: false }),
        "REMOVE" => return Ok(Statement::Remove { address, group }),
        _ => {}
    }
    let mut told = json!({"addr": address});
    while let Some(key) = reader.take(&["ROLE", "WEIGHT", "ZONE", "STATUS", "TO", "IN"])? {
        match key.as_str() {
            "ROLE" => {
                let role = reader.name("the role")?.to_ascii_lowercase();
                if !matches!(role.as_str(), "writer" | "replica") {
                    return Err(Unread(format!("`{role}` is no role: writer or replica")));
                }
                told["role"] = role.into();
            }
            "WEIGHT" => told["weight"] = reader.number::<u32>("weight")?.into(),
            "ZONE" => told["zone"] = reader.name("the zone")?.into(),
            "STATUS" => told["status"] = reader.name("the address of its status")?.into(),
            _ => {
                if !reader.takes("GROUP")? {
                    return Err(Unread("`GROUP` is missing".into()));
                }
                group = Some(reader.name("the group's name")?);
            }
        }
    }
    let backend = serde_json::from_value(told).map_err(|error| Unread(error.to_string()))?;
    Ok(Statement::Add { backend, group })
}

impl BackendConfig {
    /// Its role as people write it.
    pub fn role_name(&self) -> Option<&'static str> {
        self.role.map(|role| match role {
            Role::Writer => "writer",
            Role::Replica => "replica",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(list: List, like: Option<&str>, limit: Option<usize>) -> Statement {
        Statement::Show { list, like: like.map(str::to_owned), limit }
    }

    #[test]
    fn statements_are_read_however_they_are_written() {
        for (text, wanted) in [
            ("show backends", show(List::Backends, None, None)),
            (" /* a */ SHOW  digests limit 5 ; -- end", show(List::Digests, None, Some(5))),
            ("SHOW GLOBAL STATUS LIKE 'sess%'", show(List::Status, Some("sess%"), None)),
            ("show full processlist", show(List::Sessions, None, None)),
            ("/*!40101 SET NAMES utf8mb4 */", Statement::Nothing),
            ("KILL 7", Statement::Kill { id: 7, only_statement: false }),
            ("kill query 7;", Statement::Kill { id: 7, only_statement: true }),
            ("reload", Statement::Reload),
            (
                "DRAIN BACKEND '127.0.0.1:3306' IN GROUP shop",
                Statement::Drain {
                    address: "127.0.0.1:3306".into(),
                    group: Some("shop".into()),
                    draining: true,
                },
            ),
            (
                "undrain backend db-1.x:3306",
                Statement::Drain { address: "db-1.x:3306".into(), group: None, draining: false },
            ),
            (
                "REMOVE BACKEND \"a:1\" FROM GROUP `s`",
                Statement::Remove { address: "a:1".into(), group: Some("s".into()) },
            ),
            (
                "EXPLAIN ROUTE IN GROUP shop FOR USER 'app' select 'a;b' from t",
                Statement::Explain {
                    group: Some("shop".into()),
                    user: Some("app".into()),
                    sql: "select 'a;b' from t".into(),
                },
            ),
        ] {
            assert_eq!(read(text), Ok(wanted), "{text}");
        }
        let Ok(Statement::Add { backend, group }) =
            read("ADD BACKEND 'a:1' TO GROUP shop ROLE replica WEIGHT 3 ZONE 'north'")
        else {
            panic!("a server is added")
        };
        assert_eq!((backend.addr.as_str(), backend.role, backend.weight), ("a:1", Some(Role::Replica), 3));
        assert_eq!((backend.zone.as_deref(), group.as_deref()), (Some("north"), Some("shop")));
    }

    #[test]
    fn what_clients_say_by_themselves_is_read() {
        let Ok(Statement::Select(values)) = read("select @@version_comment limit 1") else {
            panic!("a value")
        };
        assert_eq!(values, [(Value::Variable("version_comment".into()), "@@version_comment".into())]);
        let java = "/* mysql-connector-j */SELECT @@session.auto_increment_increment AS auto_increment_increment, \
                    @@character_set_client AS `c`, DATABASE(), 1";
        let Ok(Statement::Select(values)) = read(java) else { panic!("values") };
        assert_eq!(values.len(), 4);
        assert_eq!(values[1], (Value::Variable("character_set_client".into()), "c".into()));
        assert_eq!(values[2], (Value::Function("database".into()), "DATABASE()".into()));
    }

    #[test]
    fn what_is_not_understood_is_told_and_nothing_panics() {
        for (text, told) in [
            ("", "no statement"),
            ("drop table t", "no statement `DROP`"),
            ("show tabels", "no list `TABELS`"),
            ("kill all", "`all` is no number of a session"),
            ("kill -1", "no number"),
            ("reload now", "`now` is not understood"),
            ("reload; reload", "one statement at a time"),
            ("drain backend", "the server's address is missing"),
            ("add backend a:1 role king", "`king` is no role"),
            ("select * from users", "no tables"),
            ("select 'open", "no end"),
            ("/* open", "no end"),
            ("explain select 1", "EXPLAIN ROUTE"),
            ("explain route", "missing"),
        ] {
            let Err(Unread(message)) = read(text) else { panic!("{text} is read") };
            assert!(message.contains(told), "{text}: {message}");
        }
        // Every piece of every statement, and letters of more than a byte in the midst of them.
        for text in
            ["ADD BACKEND 'ä:1' TO GROUP é ROLE replica", "SELECT @@`ü`, DATABASE() /* ß */", "KILL QUERY ٣"]
        {
            for (at, _) in text.char_indices() {
                let _ = read(&text[..at]);
                let _ = read(&text[at..]);
            }
        }
    }
}
