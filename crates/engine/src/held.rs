//! Connections to a server that are given back only when they are at rest.

use crate::error::EngineError;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::time::Duration;

/// How long a server may take to end what nobody waits for, and to let its connection go.
const END_WAIT: Duration = Duration::from_secs(5);

/// A connection of the pool. Dropped before [`Held::release`], in the midst of a statement, it does not go back: the server is told
/// to end it, which undoes its transaction, and it is closed.
pub(crate) struct Held {
    conn: Option<Conn>,
    opts: Opts,
}

impl Held {
    /// `opts`: where the server is told.
    pub fn new(conn: Conn, opts: Opts) -> Self {
        Self { conn: Some(conn), opts }
    }

    pub fn conn(&mut self) -> Result<&mut Conn, EngineError> {
        self.conn.as_mut().ok_or_else(|| EngineError::Internal("the connection was given back".into()))
    }

    /// Gives the connection back: its last statement has been answered, whatever the answer.
    pub fn release(mut self) {
        self.conn = None;
    }

    /// [`Self::release`] where a statement ended by itself; else the connection is ended.
    pub fn ended<T>(self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        match &result {
            Ok(_) | Err(EngineError::Sql { .. } | EngineError::Refused { .. }) => self.release(),
            Err(_) => drop(self),
        }
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        let opts = self.opts.clone();
        // Without a runtime nothing can be told any more; the pool ends with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end(conn, opts));
        }
    }
}

/// Over a connection that is not of the pool, whose places may all be taken by those that shall end.
async fn end(conn: Conn, opts: Opts) {
    let number = conn.id();
    let told = async {
        let mut teller = Conn::new(opts).await?;
        teller.query_drop(format!("KILL {number}")).await?;
        teller.disconnect().await
    };
    match tokio::time::timeout(END_WAIT, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "failed to stop a statement that nobody waits for"),
        Err(_) => tracing::debug!("a server did not stop a statement that nobody waits for in time"),
    }
    // What its answer would be mistaken for is not known: it is never used again.
    let _ = tokio::time::timeout(END_WAIT, conn.disconnect()).await;
}
