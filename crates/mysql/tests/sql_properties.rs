//! What holds for any bytes, and for any statement.

use std::fmt::Write as _;

use mysql::sql::{
    ClientCharset, Dialect, Flags, Kind, Lexer, Modes, TokenKind, digest_text, parse_set, scan,
};
use proptest::prelude::*;

fn modes() -> impl Strategy<Value = Modes> {
    let dialects = [Dialect::MySql, Dialect::MariaDb, Dialect::TiDb];
    let charsets = [
        ClientCharset::Utf8,
        ClientCharset::SingleByte,
        ClientCharset::Gbk,
        ClientCharset::Big5,
        ClientCharset::Sjis,
        ClientCharset::Gb18030,
    ];
    let switches = any::<(bool, bool, bool)>();
    (
        prop::sample::select(dialects.to_vec()),
        prop::sample::select(charsets.to_vec()),
        switches,
        0u32..120_000,
    )
        .prop_map(|(dialect, charset, (ansi_quotes, no_backslash_escapes, ignore_space), server_version)| {
            Modes { dialect, charset, ansi_quotes, no_backslash_escapes, ignore_space, server_version }
        })
        .no_shrink()
}

/// What makes lexers choose.
const PIECES: &[&str] = &[
    "select",
    "insert into",
    "values",
    "explain",
    "with",
    "set",
    "analyze",
    "format",
    "begin",
    "not",
    "null",
    "in",
    "into",
    "for update",
    "(",
    ")",
    ",",
    ";",
    ".",
    "@",
    "@@",
    "@a",
    "@@b",
    "'",
    "\"",
    "`",
    "'c'",
    "`d`",
    "/*",
    "*/",
    "/*!",
    "/*!50000",
    "/*!99999",
    "/*+",
    "/*M!",
    "/*T!",
    "/*T![",
    "--",
    "-- ",
    "#",
    "\n",
    "\\",
    "-",
    "+",
    "1",
    "2.",
    ".3",
    "4e",
    "0x",
    "x'",
    "b'",
    "n'",
    "?",
    ":=",
    "=",
    "<",
    ">",
    "*",
    "/",
    "f",
    "e",
    "\u{85}",
    "é",
    "\0",
];

/// Arbitrary bytes, and bytes that look like SQL.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..24);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        pieces.clone().prop_map(|pieces| pieces.concat().into_bytes()),
        pieces.prop_map(|pieces| pieces.join(" ").into_bytes()),
        (
            prop::collection::vec(prop::sample::select(PIECES), 0..12),
            prop::collection::vec(any::<u8>(), 0..12)
        )
            .prop_map(|(pieces, bytes)| [pieces.concat().into_bytes(), bytes].concat()),
    ]
}

/// Words of which statements are made here: none that could join with its neighbour to something else.
const WORDS: &[&str] = &[
    "select", "from", "where", "and", "or", "in", "insert", "into", "values", "(", ")", ",", "=", "<", "*",
    "order", "by", "limit", "group", "left", "join", "on", "not", "is", "update", "set", "as", "if(", "t.a",
    "`q`", "name_1", "@v", "case", "when", "then", "else", "between", "like",
];

#[derive(Clone, Debug)]
enum Part {
    Word(&'static str),
    Literal,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        3 => prop::sample::select(WORDS).prop_map(Part::Word),
        1 => Just(Part::Literal),
    ];
    prop::collection::vec(part, 0..30)
}

/// A statement of these parts, with literals, blanks, comments and case by the seed.
fn render(parts: &[Part], mut seed: u64) -> String {
    let mut pick = |among: &[&'static str]| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        among[(seed >> 33) as usize % among.len()]
    };
    let mut out = String::new();
    for part in parts {
        let gap = pick(&[" ", "\n", "\t ", " /* a */ ", " -- b\n", "#c'\n", "/*d*/ ", "  "]);
        out.push_str(gap);
        match part {
            Part::Literal => {
                out.push_str(pick(&[
                    "1", "'x'", "''", "2.5", "\"y\"", "0x1f", "x'00'", "b'1'", "'it''s'", "?", "1e5",
                ]));
            }
            Part::Word(word) => {
                let is_name = word.contains(['.', '`', '_']);
                match pick(&["as it is", "upper"]) {
                    "upper" if !is_name => out.push_str(&word.to_uppercase()),
                    _ => out.push_str(word),
                }
            }
        }
    }
    let _infallible = write!(out, "{}", pick(&["", ";", " ", " ; ", "-- end"]));
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic_or_read_past_the_end(sql in input(), modes in modes()) {
        let mut lexer = Lexer::new(&sql, modes);
        let mut at = 0;
        loop {
            let token = lexer.next_token();
            prop_assert!(token.start >= at && token.end <= sql.len(), "{token:?}");
            if token.kind == TokenKind::End {
                break;
            }
            prop_assert!(token.end > token.start, "{token:?}");
            prop_assert!(sql[at..token.start].iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0x0b));
            at = token.end;
        }
        let scan = scan(&sql, modes);
        prop_assert_eq!(scan.statements == 0, scan.kind == Kind::Empty);
        prop_assert_eq!(scan.statements > 1, scan.flags.contains(Flags::MULTI));
        for span in [scan.optimizer_hint, scan.note].into_iter().flatten() {
            prop_assert!(span.start <= span.end && span.end <= sql.len());
        }
        let mut text = String::new();
        digest_text(&sql, &mut text, modes);
        for assignment in parse_set(&sql, modes).unwrap_or_default() {
            prop_assert!(assignment.value.start < assignment.value.end && assignment.value.end <= sql.len());
        }
    }

    #[test]
    fn a_digest_does_not_hang_on_literals_blanks_comments_and_case(
        parts in parts(), one in any::<u64>(), other in any::<u64>(),
    ) {
        let (one, other) = (render(&parts, one), render(&parts, other));
        let digest = |sql: &str| scan(sql.as_bytes(), Modes::default()).digest;
        prop_assert_eq!(digest(&one), digest(&other), "{}\n{}", one, other);
        for dialect in [Dialect::MySql, Dialect::TiDb] {
            let text = |sql: &str| {
                let mut out = String::new();
                digest_text(sql.trim_end().trim_end_matches(';').as_bytes(), &mut out, Modes { dialect, ..Modes::default() });
                out
            };
            // MySQL leaves the number of a column in place, TiDB forgets signs and semicolons its own way.
            if dialect == Dialect::MySql && !parts.iter().any(|part| matches!(part, Part::Word("by"))) {
                prop_assert_eq!(text(&one), text(&other), "{}\n{}", one, other);
            }
        }
    }

    #[test]
    fn statements_behind_a_semicolon_are_counted(parts in prop::collection::vec(parts(), 1..5), seed in any::<u64>()) {
        let statements: Vec<String> = parts.iter().map(|parts| render(parts, seed)).collect();
        let is_empty = |parts: &Vec<Part>| parts.is_empty();
        let sql = statements.join("\n;\n");
        let expected = parts.iter().filter(|parts| !is_empty(parts)).count();
        prop_assert_eq!(scan(sql.as_bytes(), Modes::default()).statements, expected, "{}", sql);
    }

    #[test]
    fn another_statement_behind_it_makes_no_safe_read_of_anything(parts in parts(), seed in any::<u64>()) {
        let sql = format!("{}\n; delete from t", render(&parts, seed));
        prop_assert!(parts.is_empty() || !scan(sql.as_bytes(), Modes::default()).is_safe_read(), "{}", sql);
    }
}
