//! Tokens that callers of the HTTP port show: what each may do. Of the secret itself only a SHA-256 digest is kept, which
//! nobody can turn back, since the secret is 256 random bits.
//!
//! A row stays when its token is revoked: a node that has rows is closed to callers without a token, also when none of
//! them is good any more.

use crate::{Catalog, CatalogError};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params, types::Type};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long another process's write is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Tokens in a catalog, those included that are revoked: all are held in memory.
pub const TOKENS_MAX: u64 = 100_000;

/// From version 5, which knew no tokens.
pub(crate) const TOKENS: &str = "
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL, row_rules TEXT NOT NULL, column_lists TEXT NOT NULL,
    created_ms INTEGER NOT NULL, expires_ms INTEGER, used_ms INTEGER, revoked_ms INTEGER
) STRICT;
";

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Given by the catalog, never twice.
    pub id: i64,
    pub name: String,
    /// SHA-256 of the whole token.
    pub hash: [u8; 32],
    /// As they were written: `read`, `subscribe:shop`.
    pub scopes: Vec<String>,
    /// By `db.table`: a condition that rows must meet.
    pub rows: BTreeMap<String, String>,
    /// By `db.table`: the columns that may be seen.
    pub columns: BTreeMap<String, Vec<String>>,
    /// Milliseconds since 1970, as all times here.
    pub created_ms: i64,
    pub expires_ms: Option<i64>,
    /// Roughly when it was shown last.
    pub used_ms: Option<i64>,
    pub revoked_ms: Option<i64>,
}

impl Catalog {
    /// All tokens, also those that are no good any more, by name.
    pub fn tokens(&self) -> Result<Vec<Token>, CatalogError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT id, name, hash, scopes, row_rules, column_lists, created_ms, expires_ms, used_ms, revoked_ms
             FROM tokens ORDER BY name",
        )?;
        let rows = query.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a token, whose `id` is not looked at. The new id; `None` where the name is taken, or there are
    /// [`TOKENS_MAX`].
    pub fn add_token(&self, token: &Token) -> Result<Option<i64>, CatalogError> {
        let json = |value: Value| value.to_string();
        let connection = self.lock();
        let sql = "INSERT INTO tokens (name, hash, scopes, row_rules, column_lists, created_ms, expires_ms)
                   SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE (SELECT count(*) FROM tokens) < ?8
                   ON CONFLICT (name) DO NOTHING";
        let added = connection.execute(
            sql,
            params![
                token.name,
                token.hash,
                json(token.scopes.clone().into()),
                json(token.rows.iter().map(|(table, rule)| (table.clone(), rule.clone())).collect()),
                json(token.columns.iter().map(|(table, list)| (table.clone(), list.clone())).collect()),
                token.created_ms,
                token.expires_ms,
                TOKENS_MAX as i64,
            ],
        )?;
        Ok((added > 0).then(|| connection.last_insert_rowid()))
    }

    /// Marks a token as no good; the first time counts. False where there is none of this name.
    pub fn revoke_token(&self, name: &str, now_ms: i64) -> Result<bool, CatalogError> {
        let sql = "UPDATE tokens SET revoked_ms = coalesce(revoked_ms, ?2) WHERE name = ?1";
        Ok(self.lock().execute(sql, params![name, now_ms])? > 0)
    }

    /// Removes a token and all that is known of it. False where there is none of this name.
    pub fn forget_token(&self, name: &str) -> Result<bool, CatalogError> {
        Ok(self.lock().execute("DELETE FROM tokens WHERE name = ?1", [name])? > 0)
    }

    /// Notes when a token was shown.
    pub fn note_token_use(&self, id: i64, now_ms: i64) -> Result<(), CatalogError> {
        self.lock().execute("UPDATE tokens SET used_ms = ?2 WHERE id = ?1", params![id, now_ms])?;
        Ok(())
    }

    /// Whether `name` is taken.
    pub fn has_token(&self, name: &str) -> Result<bool, CatalogError> {
        let sql = "SELECT 1 FROM tokens WHERE name = ?1";
        Ok(self.lock().query_row(sql, [name], |_| Ok(())).optional()?.is_some())
    }

    /// A number that is another when another process has written to the catalog.
    pub fn version_of_others(&self) -> Result<i64, CatalogError> {
        Ok(self.lock().query_row("PRAGMA data_version", [], |r| r.get(0))?)
    }
}

/// Whether the catalog at this path knows any token, good or not. It need not be there, and is not changed.
///
/// # Errors
/// When there is a file that is no catalog.
pub fn has_tokens(path: &Path) -> Result<bool, CatalogError> {
    if !path.exists() {
        return Ok(false);
    }
    let fail = |source| CatalogError::Open { path: path.to_owned(), source };
    // Written: what another process left in the log beside the file must be read as well.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(BUSY_WAIT).map_err(fail)?;
    let made = "SELECT 1 FROM sqlite_master WHERE name = 'tokens'";
    if connection.query_row(made, [], |_| Ok(())).optional().map_err(fail)?.is_none() {
        return Ok(false);
    }
    let any = connection.query_row("SELECT 1 FROM tokens LIMIT 1", [], |_| Ok(())).optional();
    Ok(any.map_err(fail)?.is_some())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
        serde_json::from_str(&row.get::<_, String>(column)?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
    }
    Ok(Token {
        id: row.get(0)?,
        name: row.get(1)?,
        hash: row.get(2)?,
        scopes: json(row, 3)?,
        rows: json(row, 4)?,
        columns: json(row, 5)?,
        created_ms: row.get(6)?,
        expires_ms: row.get(7)?,
        used_ms: row.get(8)?,
        revoked_ms: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, byte: u8) -> Token {
        Token {
            id: 0,
            name: name.into(),
            hash: [byte; 32],
            scopes: vec!["subscribe:shop".into()],
            rows: BTreeMap::from([("shop.orders".into(), "owner = \"u1\"".into())]),
            columns: BTreeMap::from([("shop.orders".into(), vec!["id".into(), "total".into()])]),
            created_ms: 5,
            expires_ms: Some(9),
            used_ms: None,
            revoked_ms: None,
        }
    }

    #[test]
    fn a_token_is_kept_with_its_rules_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        let id = catalog.add_token(&token("phone", 1)).unwrap().unwrap();
        assert!(has_tokens(&path).unwrap() && !has_tokens(&dir.path().join("none.db")).unwrap());
        assert_eq!(catalog.add_token(&token("phone", 2)).unwrap(), None, "a name is one token's");
        assert!(catalog.add_token(&token("other", 1)).is_err(), "and a digest");
        catalog.note_token_use(id, 7).unwrap();
        assert!(catalog.revoke_token("phone", 8).unwrap() && catalog.revoke_token("phone", 9).unwrap());
        assert!(!catalog.revoke_token("tablet", 8).unwrap());
        drop(catalog);
        let catalog = Catalog::open(&path).unwrap();
        let kept = Token { id, used_ms: Some(7), revoked_ms: Some(8), ..token("phone", 1) };
        assert_eq!(catalog.tokens().unwrap(), [kept]);
        assert!(catalog.has_token("phone").unwrap() && catalog.forget_token("phone").unwrap());
        assert!(!catalog.forget_token("phone").unwrap());
        let next = catalog.add_token(&token("phone", 1)).unwrap().unwrap();
        assert!(next > id, "no id comes twice");
    }

    #[test]
    fn what_another_process_writes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let (catalog, other) = (Catalog::open(&path).unwrap(), Catalog::open(&path).unwrap());
        let before = catalog.version_of_others().unwrap();
        catalog.add_token(&token("own", 1)).unwrap();
        assert_eq!(catalog.version_of_others().unwrap(), before);
        other.add_token(&token("other", 2)).unwrap();
        assert_ne!(catalog.version_of_others().unwrap(), before);
    }
}
