//! Messages between two processes of the mesh, each with the descriptors that it speaks of, over a Unix socket.
//!
//! A message is four bytes of length, little-endian, and JSON; its descriptors travel with the first of the four bytes.

use super::Message;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The longest message: a session with more prepared statements than fit stays where it is.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Descriptors of one message: a client and its two servers.
const DESCRIPTORS_MAX: usize = 3;
/// The other side takes what it is sent within this, or is not there any more.
const SEND_MAX: Duration = Duration::from_secs(10);

/// One end.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// # Errors
    /// The socket's.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        Ok(Self(socket))
    }

    /// The same end for another thread.
    pub fn again(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Ends the conversation, for other threads with this end too.
    pub fn close(&self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Both)
    }

    /// How long [`receive`](Self::receive) waits.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)
    }

    /// # Errors
    /// `InvalidInput` for a message that is too long, of which nothing was sent; else the socket's.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message that is too long"));
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let sent = loop {
            match sendmsg(&self.0, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => break sent?,
            }
        };
        let mut socket = &self.0;
        socket.write_all(&length[sent..])?;
        socket.write_all(&text)
    }

    /// Waits for a message, and takes what descriptors came with it.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side is gone, `WouldBlock` when it says nothing for as long as we have patience,
    /// `InvalidData` for what is no message.
    pub fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut length = [0; 4];
        let mut descriptors = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut length)], &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                got => break got?.bytes,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(come) = message {
                descriptors.extend(come);
            }
        }
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // What has begun comes whole, or the other side is gone.
        let whole = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "half a message"),
            _ => error,
        };
        let mut socket = &self.0;
        socket.read_exact(&mut length[got..]).map_err(whole)?;
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
        }
        let mut text = vec![0; bytes];
        socket.read_exact(&mut text).map_err(whole)?;
        Ok((serde_json::from_slice(&text)?, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_and_descriptors_arrive_as_they_were_sent_and_the_end_is_told() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        let (mut near, far) = UnixStream::pair().unwrap();
        one.send(&Message::Ready, &[]).unwrap();
        one.send(&Message::Failed { reason: "x".repeat(100_000) }, &[far.as_fd()]).unwrap();
        one.send(&Message::Accepting, &[]).unwrap();
        drop((one, far));
        assert!(matches!(other.receive().unwrap(), (Message::Ready, none) if none.is_empty()));
        let (message, mut descriptors) = other.receive().unwrap();
        assert!(matches!(message, Message::Failed { reason } if reason.len() == 100_000));
        assert_eq!(descriptors.len(), 1);
        let mut far = UnixStream::from(descriptors.remove(0));
        far.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        near.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        assert!(matches!(other.receive().unwrap(), (Message::Accepting, _)));
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_that_is_too_long_and_words_that_are_none_are_refused() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff][..], &[3, 0, 0, 0, b'{', b'}', b'x'], &[2, 0, 0]] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(Channel::new(other).unwrap().receive().is_err(), "{bytes:?}");
        }
    }
}
