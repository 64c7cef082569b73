//! A source that gives the rows it was made with.

use async_trait::async_trait;
use base::{Column, ColumnType, Generated, Value};
use collect::reader::{Batch, Batches, Described, ReadError, Reader, Scope, batches};

pub struct Given {
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    pub in_order: bool,
    /// Each of them a batch.
    pub parts: Vec<Vec<Vec<Value>>>,
}

pub fn column(name: &str, ty: ColumnType, sql_type: &str) -> Column {
    Column {
        name: name.into(),
        ty,
        sql_type: sql_type.into(),
        nullable: false,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

#[async_trait]
impl Reader for Given {
    async fn tables(&mut self) -> Result<Vec<String>, ReadError> {
        Ok(vec!["t".into()])
    }

    async fn describe(&mut self, table: &str) -> Result<Described, ReadError> {
        Ok(Described { table: table.into(), columns: self.columns.clone(), key: self.key.clone() })
    }

    fn in_order(&self) -> bool {
        self.in_order
    }

    async fn read(&mut self, _: &Described, _: Scope) -> Result<Batches, ReadError> {
        let (sender, batches) = batches();
        let parts = self.parts.clone();
        tokio::spawn(async move {
            for rows in parts {
                sender.send(Batch { rows, bad: Vec::new() }).await;
            }
            sender.end(Ok(())).await;
        });
        Ok(batches)
    }
}
