//! `ORDER BY … LIMIT n` of a shape: rows as bytes that sort as MySQL sorts the rows.
//!
//! ```text
//! key   = value… of the columns, then value… of the table's key, then its bytes as the mirror has them
//! value = 00                        NULL, which goes first
//!       | tag and bytes of `mirror::key`    numbers, dates, times, bytes, labels by their numbers
//!       | 50 sign digits             DECIMAL
//!       | 60 weights                 text, by its collation
//! ```
//! The bytes of a column that descends are inverted. No value is the beginning of another one.

use super::shape::ShapeError;
use crate::mirror::key;
use crate::transform::expr::{Collation, DEFAULT_COLLATION};
use base::{Column, ColumnType, Table, ValueRef};

/// Rows of the largest window.
pub const WINDOW_ROWS_MAX: u32 = 10_000;
/// Columns that a window is ordered by.
const ORDER_COLUMNS_MAX: usize = 16;

/// The first rows of a shape in an order; the table's key decides between those that are equal in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    /// Columns, and whether each descends.
    pub order: Vec<(String, bool)>,
    pub limit: u32,
}

impl WindowSpec {
    /// What a request asks for; `None` where it asks for all rows.
    pub fn new(order: Vec<(String, bool)>, limit: u32) -> Result<Option<Self>, ShapeError> {
        let refused = |message: String, hint: &str| Err(ShapeError { message, hint: hint.into() });
        if limit == 0 {
            return match order.is_empty() {
                true => Ok(None),
                false => {
                    refused("an order without a limit".into(), "say how many rows, or leave the order out")
                }
            };
        }
        if limit > WINDOW_ROWS_MAX {
            let message = format!("a window of {limit} rows, and {WINDOW_ROWS_MAX} are the most");
            return refused(message, "ask for fewer rows, or for all of them without an order");
        }
        if order.len() > ORDER_COLUMNS_MAX {
            let message =
                format!("an order by {} columns, and {ORDER_COLUMNS_MAX} are the most", order.len());
            return refused(message, "order by fewer columns");
        }
        Ok(Some(Self { order, limit }))
    }
}

/// How a column's values sort.
#[derive(Clone, Copy, Debug)]
enum By {
    /// As the mirror's keys do.
    Value,
    Decimal,
    Text(Collation),
}

/// An order over one version of its table.
#[derive(Debug)]
pub struct Order {
    columns: Vec<(usize, By, bool)>,
    key: Vec<usize>,
    pub limit: usize,
}

impl Order {
    /// `visible` says which columns the caller may see: an order by another would tell of it.
    pub fn new(
        spec: &WindowSpec,
        table: &Table,
        visible: impl Fn(usize) -> bool,
    ) -> Result<Self, ShapeError> {
        let mut columns = Vec::with_capacity(spec.order.len() + table.key.len());
        for (name, descends) in &spec.order {
            let index =
                table.column_index(name).filter(|index| visible(*index)).ok_or_else(|| ShapeError {
                    message: format!("table `{}` has no column `{name}` for this caller", table.name),
                    hint: "order by columns that the table has, and that the token may see".into(),
                })?;
            columns.push((index, by(&table.columns[index])?, *descends));
        }
        for index in &table.key {
            columns.push((*index, by(&table.columns[*index])?, false));
        }
        Ok(Self { columns, key: table.key.clone(), limit: spec.limit as usize })
    }

    /// Whether rows sort as the mirror's keys do.
    pub fn is_by_key(&self) -> bool {
        let is_plain = |(_, by, descends): &(usize, By, bool)| matches!(by, By::Value) && !descends;
        let wanted = self.key.iter().chain(&self.key).copied();
        let own = self.columns.iter().map(|(index, ..)| *index);
        self.columns.iter().all(is_plain) && (own.clone().eq(self.key.iter().copied()) || own.eq(wanted))
    }

    /// The place of a row among the others; no two rows have the same.
    pub fn place(&self, values: &[ValueRef<'_>]) -> Vec<u8> {
        let of = |index: usize| values.get(index).copied().unwrap_or(ValueRef::Null);
        let mut out = Vec::with_capacity(32);
        for (index, by, descends) in &self.columns {
            let start = out.len();
            put(&mut out, *by, of(*index));
            if *descends {
                out[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        // Keys that a collation takes for one are two here, as they are to a mirror.
        self.key.iter().for_each(|index| key::put(&mut out, of(*index)));
        out
    }
}

fn by(column: &Column) -> Result<By, ShapeError> {
    let unordered = |why: String| {
        Err(ShapeError {
            message: format!("column `{}` cannot be ordered by: {why}", column.name),
            hint: "order by another column, and note that the table's key is a part of each order".into(),
        })
    };
    match &column.ty {
        ColumnType::Decimal { .. } => Ok(By::Decimal),
        ColumnType::Text { .. } => {
            let collation = match &column.collation {
                Some(name) => Collation::named(name),
                None => Some(DEFAULT_COLLATION),
            };
            let charset = column.charset.as_deref().unwrap_or("utf8mb4");
            let known = charset.starts_with("utf8") || charset == "ascii";
            // Accents are told apart by their weights there, which are not known here.
            let weighs = column.collation.as_deref().is_some_and(|name| name.contains("_as_"));
            match collation.filter(|collation| known && !weighs && collation.is_ordered()) {
                Some(collation) => Ok(By::Text(collation)),
                None => unordered(format!(
                    "the order of `{}` is not known here",
                    column.collation.as_deref().unwrap_or(charset)
                )),
            }
        }
        ColumnType::Json
        | ColumnType::Geometry
        | ColumnType::Vector { .. }
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => unordered(format!("the order of `{}` is not known here", column.sql_type)),
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Float
        | ColumnType::Double
        | ColumnType::Bit { .. }
        | ColumnType::Year
        | ColumnType::Date
        | ColumnType::Time { .. }
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. }
        | ColumnType::Binary { .. }
        | ColumnType::VarBinary { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. } => Ok(By::Value),
    }
}

fn put(out: &mut Vec<u8>, by: By, value: ValueRef<'_>) {
    match (by, value) {
        (By::Decimal, ValueRef::Decimal(text)) => put_decimal(out, text),
        (By::Text(collation), ValueRef::Text(text)) => {
            out.push(0x60);
            collation.put_sort_key(out, text);
        }
        (_, value) => key::put(out, value),
    }
}

/// Sign; how many digits stand before the point; the digits without zeros at either end, and an end. What is negative is inverted.
fn put_decimal(out: &mut Vec<u8>, text: &str) {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let negative = negative && !(whole.is_empty() && fraction.is_empty());
    out.extend_from_slice(&[0x50, u8::from(!negative)]);
    let start = out.len();
    // At most 65 digits.
    out.push(whole.len() as u8);
    out.extend_from_slice(whole.as_bytes());
    out.extend_from_slice(fraction.as_bytes());
    out.push(0);
    if negative {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Generated;
    use proptest::prelude::*;

    fn column(name: &str, ty: ColumnType, collation: Option<&str>) -> Column {
        Column {
            name: name.into(),
            ty,
            sql_type: "json".into(),
            nullable: true,
            charset: collation.map(|_| "utf8mb4".into()),
            collation: collation.map(str::to_owned),
            generated: Generated::No,
            invisible: false,
        }
    }

    fn table(columns: Vec<Column>) -> Table {
        let name = base::TableName::new("shop", "orders");
        Table { id: 1, version: 1, name, columns, key: vec![0], unique_keys: Vec::new() }
    }

    fn int(name: &str) -> Column {
        column(name, ColumnType::Int { unsigned: false }, None)
    }

    fn order(table: &Table, by: &[(&str, bool)]) -> Result<Order, ShapeError> {
        let order = by.iter().map(|(name, descends)| ((*name).to_owned(), *descends)).collect();
        Order::new(&WindowSpec { order, limit: 3 }, table, |index| index != 2)
    }

    #[test]
    fn null_goes_first_and_last_where_it_descends() {
        let table = table(vec![int("id"), int("n"), int("secret")]);
        let place = |order: &Order, n: ValueRef<'_>| order.place(&[ValueRef::Int(1), n, ValueRef::Null]);
        let up = order(&table, &[("n", false)]).unwrap();
        assert!(place(&up, ValueRef::Null) < place(&up, ValueRef::Int(-5)));
        let down = order(&table, &[("n", true)]).unwrap();
        assert!(place(&down, ValueRef::Int(-5)) < place(&down, ValueRef::Null));
        assert!(place(&down, ValueRef::Int(9)) < place(&down, ValueRef::Int(-5)));
    }

    #[test]
    fn what_has_no_order_or_may_not_be_seen_is_refused_by_name() {
        let columns = vec![
            int("id"),
            column("note", ColumnType::Text { chars_max: 9 }, Some("utf8mb4_tr_0900_ai_ci")),
            int("secret"),
            column("data", ColumnType::Json, None),
        ];
        let table = table(columns);
        for name in ["note", "secret", "data", "nothing"] {
            let error = order(&table, &[(name, false)]).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
        let latin = column("id", ColumnType::Text { chars_max: 9 }, Some("latin1_german2_ci"));
        let keyed = Table { columns: vec![latin], ..table };
        assert!(order(&keyed, &[]).unwrap_err().message.contains("`id`"));
        assert!(WindowSpec::new(vec![("n".into(), false)], 0).is_err());
        assert!(WindowSpec::new(Vec::new(), WINDOW_ROWS_MAX + 1).is_err());
        assert_eq!(WindowSpec::new(Vec::new(), 0), Ok(None));
    }

    proptest! {
        #[test]
        fn decimals_sort_as_numbers(a in -99_999i64..99_999, b in -99_999i64..99_999) {
            let text = |v: i64| format!("{}{}.{:03}", if v < 0 { "-" } else { "" }, v.abs() / 1000, v.abs() % 1000);
            let key = |v: i64| {
                let mut out = Vec::new();
                put_decimal(&mut out, &text(v));
                out
            };
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }
    }
}
