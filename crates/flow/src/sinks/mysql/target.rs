//! What the sink's server is, and how it declares a column of the source: the same type and the same collation where it
//! has them, and where not, a type that holds every value and a collation under which no two keys become one.

use super::literal::{quoted_name, text};
use base::{Column, ColumnType};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    MySql,
    MariaDb,
    TiDb,
}

impl Dialect {
    /// From the text of `VERSION()`, and from what the sink's file says.
    pub fn of(version: &str, tidb: bool) -> Self {
        if tidb || version.contains("TiDB") {
            Self::TiDb
        } else if version.contains("MariaDB") {
            Self::MariaDb
        } else {
            Self::MySql
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Target {
    pub dialect: Dialect,
    /// The character set of every collation that the server has.
    pub collations: HashMap<String, String>,
}

impl Target {
    /// A column as the sink declares it: the source's type, without defaults, generation or indexes.
    pub fn definition(&self, column: &Column, in_key: bool) -> String {
        let mut out = format!("{} {}", quoted_name(&column.name), self.type_of(column));
        if let Some(charset) = &column.charset {
            let collation = column.collation.as_deref().unwrap_or_default();
            let (charset, collation) = self.text_of(charset, collation, in_key);
            out.push_str(&format!(" CHARACTER SET {charset}"));
            if let Some(collation) = collation {
                out.push_str(&format!(" COLLATE {collation}"));
            }
        } else if column.ty == ColumnType::Json && column.sql_type != "json" {
            // MariaDB's JSON is text.
            out.push_str(" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        }
        out.push_str(if column.nullable { " NULL" } else { " NOT NULL" });
        out
    }

    fn type_of(&self, column: &Column) -> String {
        let list = |labels: &[String]| labels.iter().map(|label| text(label)).collect::<Vec<_>>().join(",");
        match (&column.ty, self.dialect) {
            (ColumnType::Uuid, _) => "char(36)".to_owned(),
            (ColumnType::Inet4 | ColumnType::Inet6, _) => "varchar(45)".to_owned(),
            (ColumnType::Geometry, Dialect::TiDb) | (ColumnType::Vector { .. }, Dialect::MariaDb) => {
                "longblob".to_owned()
            }
            (ColumnType::Geometry, Dialect::MariaDb) if column.sql_type == "geomcollection" => {
                "geometrycollection".to_owned()
            }
            // The source's text escapes labels, which a session with NO_BACKSLASH_ESCAPES would take literally.
            (ColumnType::Enum { labels }, _) => format!("enum({})", list(labels)),
            (ColumnType::Set { labels }, _) => format!("set({})", list(labels)),
            _ => column.sql_type.split(" /*").next().unwrap_or_default().to_owned(),
        }
    }

    /// Character set and collation for a text of the source. `None` leaves the collation to the server, which only a
    /// column outside the key may have.
    fn text_of(&self, charset: &str, collation: &str, in_key: bool) -> (String, Option<String>) {
        // utf8 has two names, and servers print one of them.
        let other_name = |name: &str| match name.strip_prefix("utf8mb3") {
            Some(rest) => format!("utf8{rest}"),
            None if name == "utf8" || name.starts_with("utf8_") => name.replacen("utf8", "utf8mb3", 1),
            None => name.to_owned(),
        };
        for (charset, collation) in
            [(charset.to_owned(), collation.to_owned()), (other_name(charset), other_name(collation))]
        {
            if self.collations.get(&collation) == Some(&charset) {
                return (charset, Some(collation));
            }
        }
        let has = |charset: &str| self.collations.values().any(|have| have == charset);
        let charset = [charset.to_owned(), other_name(charset)].into_iter().find(|name| has(name));
        let charset = charset.unwrap_or_else(|| "utf8mb4".to_owned());
        if !in_key {
            return (charset, None);
        }
        let nopad = ["nopad", "0900", "uca1400"].iter().any(|part| collation.contains(part));
        let exact = |charset: &str, padding: bool| {
            let mut names = vec![format!("{charset}_0900_bin"), format!("{charset}_nopad_bin")];
            names.extend(padding.then(|| format!("{charset}_bin")));
            names.into_iter().find(|name| self.collations.contains_key(name))
        };
        match exact(&charset, !nopad) {
            Some(collation) => (charset, Some(collation)),
            None => ("utf8mb4".to_owned(), exact("utf8mb4", true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Generated;

    fn target(dialect: Dialect, collations: &[(&str, &str)]) -> Target {
        let own = |(name, set): &(&str, &str)| ((*name).to_owned(), (*set).to_owned());
        Target { dialect, collations: collations.iter().map(own).collect() }
    }

    fn column(ty: ColumnType, sql_type: &str, text: Option<(&str, &str)>) -> Column {
        Column {
            name: "c".into(),
            ty,
            sql_type: sql_type.into(),
            nullable: false,
            charset: text.map(|(charset, _)| charset.into()),
            collation: text.map(|(_, collation)| collation.into()),
            generated: Generated::No,
            invisible: false,
        }
    }

    #[test]
    fn a_key_never_gets_a_collation_that_takes_two_keys_for_one() {
        let mysql = target(
            Dialect::MySql,
            &[
                ("utf8mb4_0900_ai_ci", "utf8mb4"),
                ("utf8mb4_0900_bin", "utf8mb4"),
                ("utf8mb4_bin", "utf8mb4"),
                ("latin1_swedish_ci", "latin1"),
                ("latin1_bin", "latin1"),
            ],
        );
        let tidb = target(
            Dialect::TiDb,
            &[("utf8mb4_0900_bin", "utf8mb4"), ("utf8mb4_bin", "utf8mb4"), ("utf8_bin", "utf8")],
        );
        let of = |target: &Target, text, in_key| {
            let definition = target
                .definition(&column(ColumnType::Text { chars_max: 9 }, "varchar(9)", Some(text)), in_key);
            definition
                .trim_start_matches("`c` varchar(9) CHARACTER SET ")
                .trim_end_matches(" NOT NULL")
                .to_owned()
        };
        assert_eq!(of(&mysql, ("latin1", "latin1_swedish_ci"), true), "latin1 COLLATE latin1_swedish_ci");
        assert_eq!(
            of(&mysql, ("utf8mb4", "utf8mb4_uca1400_ai_ci"), true),
            "utf8mb4 COLLATE utf8mb4_0900_bin"
        );
        assert_eq!(of(&mysql, ("utf8mb4", "utf8mb4_uca1400_ai_ci"), false), "utf8mb4");
        assert_eq!(of(&mysql, ("latin1", "latin1_other_ci"), true), "latin1 COLLATE latin1_bin");
        assert_eq!(
            of(&mysql, ("latin1", "latin1_swedish_nopad_ci"), true),
            "utf8mb4 COLLATE utf8mb4_0900_bin"
        );
        assert_eq!(of(&tidb, ("gb18030", "gb18030_chinese_ci"), true), "utf8mb4 COLLATE utf8mb4_0900_bin");
        assert_eq!(of(&tidb, ("utf8mb3", "utf8mb3_bin"), true), "utf8 COLLATE utf8_bin");
        assert_eq!(of(&tidb, ("gbk", "gbk_chinese_ci"), false), "utf8mb4");
    }

    #[test]
    fn types_that_the_server_lacks_have_a_stand_in() {
        let (tidb, maria) = (target(Dialect::TiDb, &[]), target(Dialect::MariaDb, &[]));
        let of = |target: &Target, ty, sql_type| target.definition(&column(ty, sql_type, None), false);
        assert_eq!(of(&tidb, ColumnType::Geometry, "point"), "`c` longblob NOT NULL");
        assert_eq!(of(&maria, ColumnType::Geometry, "geomcollection"), "`c` geometrycollection NOT NULL");
        assert_eq!(of(&maria, ColumnType::Vector { dimensions: 3 }, "vector(3)"), "`c` longblob NOT NULL");
        let labels = vec!["a\\b".to_owned(), "it's".to_owned()];
        assert_eq!(
            of(&tidb, ColumnType::Enum { labels }, "enum('a\\\\b','it''s')"),
            "`c` enum('a\\b','it''s') NOT NULL"
        );
    }
}
