//! `EXPLAIN ROUTE statement`, which the mesh answers itself: where the statement would go in this session, and what the
//! rules say of it. It tells of the session's own group only.
//!
//! To the servers `EXPLAIN route` is `DESCRIBE` of a table of that name, with at most the name of a column behind it. So it is
//! taken for ours when a verb follows that is a reserved word, or more than one word.

use super::judge::read;
use super::route::{self, View, hint, pins, route};
use super::{Head, Session};
use crate::config::Role;
use crate::rules::Facts;
use mysql::protocol::{Capabilities, packet, put_bytes};
use mysql::sql::{Lexer, Modes, TokenKind};

/// utf8mb4_general_ci, in which the answer is.
const COLLATION: u16 = 45;
/// Of a column: a text of any length.
const VAR_STRING: u8 = 0xfd;

impl Session {
    /// The answer, where the command asks for one.
    pub(super) fn told_route(&self, head: Head) -> Option<Vec<u8>> {
        let sql = self.text(head)?;
        if !sql.first()?.eq_ignore_ascii_case(&b'e') {
            return None;
        }
        let sql = &sql[asked(sql, self.strict_modes())?..];
        let (scan, text) = read(sql, self.strict_modes());
        let split = self.can_split() && !self.state.once && !route::is_system(&self.identity.database);
        let view = View { split, status: self.status, pinned: self.pinned, last: self.role };
        let route = route(Some(&scan), hint(&scan, sql), view);
        let pins = self.pinned.or_else(|| pins(Some(&scan), sql)).filter(|_| self.can_split());
        let server = self.links[route.role as usize].as_ref().map(|link| link.backend().address.clone());
        let user = String::from_utf8_lossy(&self.identity.user);
        let verdict = self
            .rules()
            .map(|rules| rules.explain(Some(&user), &Facts::of(&scan), &text, jiff::Timestamp::now()));
        let role = if route.role == Role::Writer { "writer" } else { "replica" };
        let digest = format!("{:016x}", scan.digest);
        let action = verdict.as_ref().map_or("pass", |verdict| verdict.action);
        let rule = verdict.as_ref().and_then(|verdict| verdict.rule.as_deref());
        let why = verdict.as_ref().map(|verdict| verdict.reason.as_str());
        let cells = [
            ("group", Some(self.group.name.as_str())),
            ("role", Some(role)),
            ("server", server.as_deref()),
            ("reason", Some(route.reason)),
            ("pins", pins),
            ("digest", Some(digest.as_str())),
            ("rule", rule),
            ("action", Some(action)),
            ("rule_reason", why),
        ];
        Some(one_row(&cells, self.identity.capabilities, self.status.0))
    }
}

/// Where the statement begins that is asked about.
fn asked(sql: &[u8], modes: Modes) -> Option<usize> {
    /// Reserved words that begin statements.
    const VERBS: [&str; 25] = [
        "alter", "analyze", "call", "create", "delete", "desc", "describe", "drop", "explain", "grant",
        "insert", "kill", "load", "lock", "purge", "rename", "replace", "revoke", "select", "set", "show",
        "table", "unlock", "update", "with",
    ];
    let mut lexer = Lexer::new(sql, modes);
    let is = |token, lexer: &Lexer<'_>, word: &str| lexer.text(token).eq_ignore_ascii_case(word.as_bytes());
    for word in ["explain", "route"] {
        let token = lexer.next_token();
        if token.kind != TokenKind::Word || !is(token, &lexer, word) {
            return None;
        }
    }
    let start = lexer.next_token();
    let is_statement = match start.kind {
        TokenKind::Word if VERBS.iter().any(|verb| is(start, &lexer, verb)) => true,
        // Behind a dot stands a table of a database that is called `route`.
        TokenKind::Word | TokenKind::Comment => {
            !matches!(lexer.next_token().kind, TokenKind::End | TokenKind::Semicolon)
        }
        TokenKind::LeftParenthesis | TokenKind::ExecutableOpen | TokenKind::Hint => true,
        _ => false,
    };
    is_statement.then_some(start.start)
}

/// The packets of an answer of one row of texts.
fn one_row(cells: &[(&str, Option<&str>)], capabilities: Capabilities, status: u16) -> Vec<u8> {
    let mut payloads = vec![vec![u8::try_from(cells.len()).unwrap_or(u8::MAX)]];
    for (name, _) in cells {
        let mut column = Vec::new();
        for text in ["def", "", "", "", name, ""] {
            put_bytes(&mut column, text.as_bytes());
        }
        if capabilities.has(Capabilities::MARIADB_EXTENDED_METADATA) {
            put_bytes(&mut column, b"");
        }
        column.push(0x0c);
        column.extend_from_slice(&COLLATION.to_le_bytes());
        column.extend_from_slice(&1024_u32.to_le_bytes());
        column.push(VAR_STRING);
        column.extend_from_slice(&[0, 0, 0, 0, 0]);
        payloads.push(column);
    }
    let status = status.to_le_bytes();
    let deprecated = capabilities.has(Capabilities::DEPRECATE_EOF);
    if !deprecated {
        payloads.push(vec![0xfe, 0, 0, status[0], status[1]]);
    }
    let mut row = Vec::new();
    for (_, cell) in cells {
        match cell {
            Some(text) => put_bytes(&mut row, text.as_bytes()),
            None => row.push(0xfb),
        }
    }
    payloads.push(row);
    payloads.push(match deprecated {
        true => vec![0xfe, 0, 0, status[0], status[1], 0, 0],
        false => vec![0xfe, 0, 0, status[0], status[1]],
    });
    let numbered = payloads.iter().zip(1_u8..);
    numbered.flat_map(|(payload, sequence)| packet(sequence, payload)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_called_route_is_the_servers() {
        let start = |sql: &str| asked(sql.as_bytes(), Modes::default());
        for (sql, rest) in [
            ("EXPLAIN ROUTE SELECT 1", "SELECT 1"),
            ("explain route truncate t", "truncate t"),
            ("explain\troute (select 1)", "(select 1)"),
            ("explain route show tables", "show tables"),
            ("explain route with x as (select 1) select * from x", "with x as (select 1) select * from x"),
        ] {
            assert_eq!(start(sql).map(|start| &sql[start..]), Some(rest), "{sql}");
        }
        for sql in [
            "explain route",
            "explain route;",
            "explain route id",
            "explain route commit",
            "explain route 'a%'",
            "explain route.t",
            "explain `route` select",
            "explain select 1",
            "explain routes select 1",
            "/* x */ explain route select 1",
            "describe route select",
            "e",
        ] {
            assert_eq!(start(sql), None, "{sql}");
        }
    }
}
