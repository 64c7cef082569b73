//! A TCP port of 127.0.0.1 that stays ours while its server is down.
//!
//! Binding port 0 and closing it would not do: while the server restarts, the kernel may hand the same number to any
//! outgoing connection, or to another test. So ports come from below the kernel's own range, and each is held by a lock
//! on a file that every testkit process of this user respects. The lock ends with the process, however that ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// First port given out, above the ports that installed services commonly use.
const PORT_MIN: u16 = 18_000;
/// Last port given out, below the range from which Linux numbers outgoing connections (32768 up, by default).
const PORT_MAX: u16 = 32_000;

/// A port that nobody else of this user's testkit processes is given.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A port that nobody listens on, until the answer is dropped.
    pub fn reserve() -> Result<Port> {
        // SAFETY: geteuid takes nothing and cannot fail.
        let user = unsafe { libc::geteuid() };
        let folder = std::env::temp_dir().join(format!("tidemill-ports-{user}"));
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let span = PORT_MAX - PORT_MIN;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        // Tests that start together should not queue for the same numbers.
        let first = (clock / 1000).wrapping_add(std::process::id().wrapping_mul(97)) % u32::from(span);
        for step in 0..span {
            let number = PORT_MIN + ((first + u32::from(step)) % u32::from(span)) as u16;
            let lock = File::create(folder.join(number.to_string()))
                .context("failed to create a port's lock file")?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Port { number, _lock: lock });
            }
        }
        bail!("no port between {PORT_MIN} and {PORT_MAX} is free")
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// On 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::Port;

    #[test]
    fn two_reservations_never_share_a_port() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let numbers: std::collections::HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
