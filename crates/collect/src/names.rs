//! Names of datasets and of their tables.

/// Characters of a table's name: a server has 64, and the shadow's mark is a part of them.
pub const TABLE_CHARS_MAX: usize = 48;
const DATASET_CHARS_MAX: usize = 48;

/// A table that is made beside another, and takes its place.
pub fn shadow(target: &str) -> String {
    format!("{target}{}new", engine::SHADOW_MARK)
}

/// Where the old table stands for an instant.
pub fn old(target: &str) -> String {
    format!("{target}{}old", engine::SHADOW_MARK)
}

/// Checks `to` of a flow.
pub fn check_target(to: &str) -> Result<(), String> {
    let Some((dataset, table)) = to.split_once('.') else {
        return Err(format!("`{to}` is no dataset's table: write dataset.table"));
    };
    let stars = table.matches('*').count();
    if stars > 1 {
        return Err(format!("`{to}` has more than one `*`"));
    }
    if !plain(dataset) || dataset.chars().count() > DATASET_CHARS_MAX || is_reserved(dataset) {
        return Err(format!(
            "`{dataset}` is no name of a dataset: letters, digits and `_`, at most {DATASET_CHARS_MAX}"
        ));
    }
    let table = table.replace('*', "t");
    if !plain(&table) || table.chars().count() > TABLE_CHARS_MAX || table.contains(engine::SHADOW_MARK) {
        return Err(format!(
            "`{to}` is no name of a table: letters, digits and `_`, at most {TABLE_CHARS_MAX}"
        ));
    }
    Ok(())
}

/// The dataset's table of a source's table.
pub fn target(to: &str, table: &str) -> Result<String, String> {
    if !to.contains('*') {
        return Ok(to.to_owned());
    }
    let short = table.rsplit('.').next().unwrap_or(table);
    let name: String = short.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let target = to.replacen('*', &name, 1);
    check_target(&target)?;
    Ok(target)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}')
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_plain)
}

/// Databases that a server has for itself, and Tidemill.
fn is_reserved(dataset: &str) -> bool {
    let lower = dataset.to_ascii_lowercase();
    lower.starts_with(engine::OWN_PREFIX)
        || ["mysql", "sys", "information_schema", "performance_schema", "metrics_schema"]
            .contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_by_their_dataset() {
        for good in ["ods.orders", "ods.erp_*", "层.订单_2024", "o.t"] {
            assert_eq!(check_target(good), Ok(()), "{good}");
        }
        for bad in
            ["orders", "ods.", ".t", "ods.a b", "ods.a*b*", "mysql.user", "a.b.c", "ods.`x`", "tidemill_x.t"]
        {
            assert!(check_target(bad).is_err(), "{bad}");
        }
        assert_eq!(target("ods.erp_*", "shop.orders"), Ok("ods.erp_orders".into()));
        assert_eq!(target("ods.*", "2024 销售"), Ok("ods.2024_销售".into()));
        assert_eq!(target("ods.x", "a.b"), Ok("ods.x".into()));
        assert!(target("ods.*", &"long".repeat(20)).is_err());
    }
}
