//! Whether a statement speaks of a secret. In doubt it does: then its literals are not kept.

use mysql::sql::{Flags, Kind, Lexer, Modes, Scan, TokenKind};

/// Parts of words that name something secret.
const PARTS: [&[u8]; 22] = [
    b"identified",
    b"password",
    b"passwd",
    b"passphrase",
    b"passcode",
    b"secret",
    b"credential",
    b"private_key",
    b"access_key",
    b"access-key",
    b"api_key",
    b"apikey",
    b"auth_string",
    b"authentication_string",
    b"sst_auth",
    b"token",
    b"aes_",
    b"des_encrypt",
    b"des_decrypt",
    b"encrypt",
    b"salt",
    b"pwd",
];
/// Whole words that do.
const WORDS: [&[u8]; 8] = [b"pass", b"pw", b"pin", b"md5", b"sha", b"sha1", b"sha2", b"cvv"];

/// Whether the text's literals may be a secret. `true` for what reads and writes rows only where one of its names says so;
/// of everything else also where a literal has such a word, an address, or where accounts and servers are administered.
pub fn speaks_of_one(sql: &[u8], scan: &Scan, modes: Modes) -> bool {
    let doubtful = scan.flags.intersects(Flags::DOUBTFUL | Flags::MULTI | Flags::USER_VARIABLE_WRITTEN);
    if is_rows(scan.kind) && !doubtful {
        return by_names(sql, modes);
    }
    let administers =
        matches!(scan.kind, Kind::Admin | Kind::Unknown | Kind::Load) && has_literal(sql, modes);
    administers || has_part(sql) || by_names(sql, modes) || sql.windows(3).any(|three| three == b"://")
}

/// Whether the verdict is the same for all statements of one digest, which knows nothing of comments.
pub fn by_digest(sql: &[u8], scan: &Scan) -> bool {
    let may_comment = sql.contains(&b'#') || sql.windows(2).any(|two| two == b"--" || two == b"/*");
    is_rows(scan.kind)
        && !may_comment
        && !scan.flags.intersects(Flags::DOUBTFUL | Flags::MULTI | Flags::USER_VARIABLE_WRITTEN)
}

fn is_rows(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Select
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Replace
            | Kind::Begin
            | Kind::Commit
            | Kind::Rollback
            | Kind::Use
    )
}

/// Names, comments included: they may quote anything.
fn by_names(sql: &[u8], modes: Modes) -> bool {
    let mut lexer = Lexer::new(sql, modes);
    loop {
        let token = lexer.next_token();
        match token.kind {
            TokenKind::End => return false,
            TokenKind::Bad => return true,
            TokenKind::Word
            | TokenKind::QuotedName
            | TokenKind::Comment
            | TokenKind::UserVariable
            | TokenKind::SystemVariable => {
                let text = lexer.text(token);
                if has_part(text) || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) {
                    return true;
                }
            }
            _ => {}
        }
    }
}

fn has_literal(sql: &[u8], modes: Modes) -> bool {
    let mut lexer = Lexer::new(sql, modes);
    loop {
        match lexer.next_token().kind {
            TokenKind::End => return false,
            TokenKind::Text | TokenKind::NationalText | TokenKind::Hex | TokenKind::Bit | TokenKind::Bad => {
                return true;
            }
            _ => {}
        }
    }
}

fn has_part(text: &[u8]) -> bool {
    PARTS.iter().any(|part| {
        text.len() >= part.len() && text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql::sql::scan;

    #[test]
    fn what_speaks_of_a_secret_is_known_and_what_does_not_is_kept() {
        let verdict = |sql: &str| {
            let scan = scan(sql.as_bytes(), Modes::default());
            speaks_of_one(sql.as_bytes(), &scan, Modes::default())
        };
        for sql in [
            "create user a@b identified by 'geheim'",
            "ALTER USER a IDENTIFIED WITH caching_sha2_password AS '$A$005$geheim'",
            "alter user a identified by 'geheim",
            "set password = 'geheim'",
            "SET PASSWORD FOR a@b = PASSWORD('geheim')",
            "grant all on *.* to a@b identified by 'geheim'",
            "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='geheim'",
            "change master to master_user='a', master_password='geheim'",
            "START REPLICA USER='a' PASSWORD='geheim'",
            "start group_replication user='a', password='geheim'",
            "create server s foreign data wrapper mysql options (user 'a', password 'geheim')",
            "clone instance from a@h:3306 identified by 'geheim'",
            "/*!50000 create user a identified by 'geheim' */",
            "select 1; create user a identified by 'geheim'",
            "prepare s from 'create user a identified by ''geheim'''",
            "set @sql = 'alter user a identified by \"geheim\"'",
            "select 'alter user a identified by x' into @sql",
            "execute immediate 'set password = ''geheim'''",
            "update mysql.user set authentication_string = 'geheim'",
            "select * from users where password = 'geheim'",
            "insert into users (email, Pass_Word, pwd_hash) values ('a', 'b', 'geheim')",
            "select aes_decrypt(a, 'geheim') from t",
            "select * from users where pw = md5('geheim')",
            "create table t (a int) engine=federated connection='mysql://a:geheim@h/d/t'",
            "set global wsrep_sst_auth = 'a:geheim'",
            "backup database * to 's3://b/?access-key=a&secret-access-key=geheim'",
            "import into t from 's3://b/?x=geheim'",
            "select 1 /* the password is geheim */",
            "select * from sessions where token = 'geheim'",
        ] {
            assert!(verdict(sql), "{sql}");
        }
        let by_digest = |sql: &str| by_digest(sql.as_bytes(), &scan(sql.as_bytes(), Modes::default()));
        assert!(by_digest("select 1 - 1 / 2") && by_digest("insert into t values ('2026-01-01')"));
        for sql in [
            "select 1 -- password",
            "select 1 # password",
            "/* password */ select 1",
            "set @a = 1",
            "select 1; select 2",
        ] {
            assert!(!by_digest(sql), "{sql}");
        }
        for sql in [
            "select * from orders where id = 7",
            "insert into notes values ('forgot the password again')",
            "update t set a = 'x' where b = 1",
            "create table t (a int default 1, b varchar(9) comment 'note')",
            "set names utf8mb4",
            "begin",
            "set autocommit = 0",
            "analyze table t",
            "select name from products where pinned = 1",
        ] {
            assert!(!verdict(sql), "{sql}");
        }
    }
}
