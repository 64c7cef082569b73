//! Names as Avro takes them: ASCII letters, digits and `_`, no digit in front. Debezium's `avro` adjustment.

use base::{Table, TableName};

/// What Avro does not take becomes `_`; a digit in front gets one before it.
pub fn adjusted(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    if !name.starts_with(|c: char| !c.is_ascii_digit()) {
        out.push('_');
    }
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    out
}

/// Where the records of a table are: `<source>.<db>.<table>`. A source's name may have parts of its own.
pub fn namespace(source: &str, name: &TableName) -> String {
    let source: Vec<_> = source.split('.').map(adjusted).collect();
    format!("{}.{}.{}", source.join("."), adjusted(&name.db), adjusted(&name.table))
}

/// Whether Avro takes the names of a table's columns as they are.
pub fn keeps_names(table: &Table) -> bool {
    table.columns.iter().all(|column| adjusted(&column.name) == column.name)
}

/// Two columns that Avro would call the same.
pub fn same_columns(table: &Table) -> Option<(&str, &str)> {
    let named: Vec<_> = table.columns.iter().map(|column| (adjusted(&column.name), &column.name)).collect();
    named.iter().enumerate().find_map(|(index, (name, column))| {
        let first = named[..index].iter().find(|(other, _)| other == name)?;
        Some((first.1.as_str(), column.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_avro_takes() {
        for (name, wanted) in
            [("id", "id"), ("1st", "_1st"), ("a-b c", "a_b_c"), ("数", "_"), ("", "_"), ("_x9", "_x9")]
        {
            assert_eq!(adjusted(name), wanted);
        }
        assert_eq!(namespace("eu.shop-1", &TableName::new("2db", "a.b")), "eu.shop_1._2db.a_b");
    }
}
