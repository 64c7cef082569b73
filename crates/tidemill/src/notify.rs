//! What a service manager is told, where it asks to be (`Type=notify` of systemd): a line to the socket that it names.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The node serves.
pub fn ready() {
    tell("READY=1");
}

/// The node is another process from now on.
pub fn main_process(id: u32) {
    tell(&format!("MAINPID={id}"));
}

fn tell(line: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| {
        let name = place.as_encoded_bytes();
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&place)?,
        };
        socket.send_to_addr(line.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(%error, "failed to tell the service manager");
    }
}
