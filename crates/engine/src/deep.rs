//! Threads for statements: a tree of operators is read, bound and dropped on the stack, and a runtime's threads have little.

use crate::error::EngineError;
use tokio::sync::oneshot;

/// The stack of one statement: several times what [`crate::parse`] lets through needs. Only what is used takes memory.
const STACK_BYTES: usize = 64 << 20;

/// Starts work on a thread of its own.
pub fn start(work: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name("engine".into()).stack_size(STACK_BYTES);
    match thread.spawn(work) {
        Ok(_) => Ok(()),
        Err(error) => Err(EngineError::Internal(format!("failed to start a thread: {error}"))),
    }
}

/// What work on a thread of its own gives; a panic there is an error here.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let (sender, receiver) = oneshot::channel();
    start(move || drop(sender.send(work())))?;
    receiver.await.map_err(|_| EngineError::Internal("the statement ended without an answer".into()))?
}
