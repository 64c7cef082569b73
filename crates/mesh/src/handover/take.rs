//! The side that takes over.

use super::{Channel, HandoverError, Message, Parts, talk};
use crate::core::Core;
use std::os::fd::OwnedFd;
use tokio::sync::oneshot;

/// Takes sessions until the other side says that there are no more; how many that side keeps. Blocks.
///
/// # Errors
/// When the other side is lost. What was taken goes on here.
pub fn sessions(cores: &[Core], channel: &Channel) -> Result<usize, HandoverError> {
    channel.set_patience(None).map_err(talk("sessions"))?;
    loop {
        let (message, descriptors) = channel.receive().map_err(talk("sessions"))?;
        match message {
            Message::Session(parts) => {
                let id = parts.id;
                let taken = take(cores, parts, descriptors);
                channel.send(&Message::Took { id, taken }, &[]).map_err(talk("sessions"))?;
            }
            Message::Done { left } => return Ok(left),
            other => return Err(HandoverError::unexpected(&other)),
        }
    }
}

/// One after the other: each takes some microseconds, and the other side never waits for two at once.
fn take(cores: &[Core], parts: Box<Parts>, descriptors: Vec<OwnedFd>) -> bool {
    let (taken, answer) = oneshot::channel();
    let Some(core) = cores.iter().min_by_key(|core| core.sessions()) else { return false };
    core.give_session(parts, descriptors, taken);
    answer.blocking_recv().unwrap_or(false)
}
