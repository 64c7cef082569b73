//! What sqlx's own tests use and its package does not carry: how they connect, and how a type goes to the server and back,
//! as a text and as a parameter.

use sqlx::{Connection, Database};

pub use paste;

pub fn setup_if_needed() {}

pub async fn new<DB: Database>() -> anyhow::Result<DB::Connection> {
    let url = std::env::var("DATABASE_URL")?;
    Ok(DB::Connection::connect(&url).await?)
}

/// `name<Type>(MySql, "SQL" == value, …)` makes both tests of a type.
#[macro_export]
macro_rules! test_type {
    ($name:ident<$ty:ty>($db:ident, $query:literal, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>($db, $query, $($text == $value),+));
        $crate::test_unprepared_type!($name<$ty>($db, $($text == $value),+));
    };
    ($name:ident<$ty:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>($db, $($text == $value),+));
        $crate::test_unprepared_type!($name<$ty>($db, $($text == $value),+));
    };
    ($name:ident($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_type!($name<$name>($db, $($text == $value),+));
    };
}

#[macro_export]
macro_rules! test_unprepared_type {
    ($name:ident<$ty:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::paste::paste! {
            #[tokio::test]
            async fn [<unprepared_ $name>]() -> anyhow::Result<()> {
                use sqlx::Row;
                let mut connection = $crate::new::<$db>().await?;
                $(
                    let query = sqlx::AssertSqlSafe(format!("SELECT {}", $text));
                    let row = sqlx::raw_sql(query).fetch_one(&mut connection).await?;
                    let back: $ty = row.try_get_unchecked(0)?;
                    assert_eq!($value, back);
                )+
                Ok(())
            }
        }
    };
}

/// The query compares at the server, and returns the text's value and the parameter.
#[macro_export]
macro_rules! test_prepared_type {
    ($name:ident<$ty:ty>($db:ident, $query:literal, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::paste::paste! {
            #[tokio::test]
            async fn [<prepared_ $name>]() -> anyhow::Result<()> {
                use sqlx::Row;
                let mut connection = $crate::new::<$db>().await?;
                $(
                    let query = sqlx::AssertSqlSafe(format!($query, $text));
                    let row = sqlx::query(query).bind($value).bind($value).fetch_one(&mut connection).await?;
                    assert_eq!(row.try_get_unchecked::<i64, _>(0)?, 1, "the server compares {}", $text);
                    let (selected, bound): ($ty, $ty) = (row.try_get_unchecked(1)?, row.try_get_unchecked(2)?);
                    assert_eq!($value, selected);
                    assert_eq!($value, bound);
                )+
                Ok(())
            }
        }
    };
    ($name:ident<$ty:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>(
            $db,
            "SELECT CAST({0} <=> ? AS SIGNED), {0}, ?",
            $($text == $value),+
        ));
    };
}

/// Not a test: makes the tables and the user that the tests expect. The package has them as SQL.
#[cfg(test)]
#[tokio::test]
async fn setup() -> anyhow::Result<()> {
    let mut connection = new::<sqlx::MySql>().await?;
    let expected = std::fs::read_to_string("tests/mysql/setup.sql")?;
    let whole = format!("DROP USER IF EXISTS no_password@'%';\n{expected}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(whole)).execute(&mut connection).await?;
    Ok(())
}
