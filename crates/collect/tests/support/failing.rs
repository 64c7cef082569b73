//! An engine that dies at its n-th change: before it, or when it is done and nobody has heard of it.

use async_trait::async_trait;
use base::Column;
use engine::{Engine, EngineError, Lookup, Rows, Shape, TableDef, Write};
use std::sync::atomic::{AtomicI64, Ordering};

pub struct Failing<'e> {
    inner: &'e dyn Engine,
    left: AtomicI64,
    after: bool,
    /// The process ends with it, as by SIGKILL.
    aborts: bool,
}

impl<'e> Failing<'e> {
    pub fn new(inner: &'e dyn Engine, at: i64, after: bool, aborts: bool) -> Self {
        Self { inner, left: AtomicI64::new(at), after, aborts }
    }

    /// Whether it has died.
    pub fn died(&self) -> bool {
        self.left.load(Ordering::Relaxed) < 0
    }

    fn die(&self) -> EngineError {
        if self.aborts {
            std::process::abort();
        }
        EngineError::Unavailable("it died".into())
    }

    async fn change<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send,
    ) -> Result<T, EngineError> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left < 0 || left == 0 && !self.after {
            return Err(self.die());
        }
        let done = work.await;
        if left == 0 {
            return Err(self.die());
        }
        done
    }
}

#[async_trait]
impl Engine for Failing<'_> {
    async fn execute(&self, sql: &str) -> Result<u64, EngineError> {
        self.change(self.inner.execute(sql)).await
    }

    async fn execute_all(&self, statements: &[String]) -> Result<u64, EngineError> {
        self.change(self.inner.execute_all(statements)).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<u64, EngineError> {
        self.change(self.inner.write(writes)).await
    }

    async fn prepare_dataset(&self, dataset: &str) -> Result<(), EngineError> {
        self.change(self.inner.prepare_dataset(dataset)).await
    }

    async fn prepare_own(&self, table: &str, columns: &[Column], key: &[String]) -> Result<(), EngineError> {
        self.change(self.inner.prepare_own(table, columns, key)).await
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        self.inner.query(sql).await
    }

    async fn query_in(&self, sql: &str, lookup: &Lookup) -> Result<Rows, EngineError> {
        self.inner.query_in(sql, lookup).await
    }

    async fn check_in(&self, sql: &str, lookup: &Lookup) -> Result<Shape, EngineError> {
        self.inner.check_in(sql, lookup).await
    }

    async fn definitions(&self) -> Result<Option<Vec<TableDef>>, EngineError> {
        self.inner.definitions().await
    }

    async fn check(&self, sql: &str) -> Result<Vec<Column>, EngineError> {
        self.inner.check(sql).await
    }

    async fn explain(&self, sql: &str) -> Result<String, EngineError> {
        self.inner.explain(sql).await
    }

    async fn tables(&self) -> Result<Vec<String>, EngineError> {
        self.inner.tables().await
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, EngineError> {
        self.inner.columns(table).await
    }
}
