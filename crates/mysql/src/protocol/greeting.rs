//! The server's first packet, protocol 10.

use super::{Capabilities, FieldReader, Truncated, put_text};

/// What a server says of itself before anyone has asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// `9.7.4`, `5.5.5-10.11.19-MariaDB`, `8.0.11-TiDB-v8.5.6`.
    pub version: Vec<u8>,
    pub connection_id: u32,
    /// Random bytes that prove a password is not a recording; 20 of them.
    pub salt: Vec<u8>,
    pub capabilities: Capabilities,
    pub collation: u8,
    pub status: u16,
    /// The authentication that the server would like.
    pub plugin: Vec<u8>,
}

impl Greeting {
    /// # Errors
    /// When it is cut, or of another protocol than 10.
    pub fn read(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = FieldReader::new(payload);
        if fields.u8()? != 10 {
            return Err(Truncated);
        }
        let version = fields.text()?.to_vec();
        let connection_id = fields.u32()?;
        let mut salt = fields.take(8)?.to_vec();
        fields.take(1)?;
        let low = fields.u16()?;
        let collation = fields.u8()?;
        let status = fields.u16()?;
        let high = fields.u16()?;
        let salt_bytes = usize::from(fields.u8()?);
        let reserved = fields.take(10)?;
        let mut capabilities = Capabilities(u64::from(low) | u64::from(high) << 16);
        if capabilities.mariadb() {
            let extended = u32::from_le_bytes([reserved[6], reserved[7], reserved[8], reserved[9]]);
            capabilities = capabilities | Capabilities(u64::from(extended) << 32);
        }
        if capabilities.has(Capabilities::SECURE_CONNECTION) {
            let more = fields.take(salt_bytes.saturating_sub(8).max(13).min(fields.rest().len()))?;
            salt.extend_from_slice(more.strip_suffix(&[0]).unwrap_or(more));
        }
        let plugin = if capabilities.has(Capabilities::PLUGIN_AUTH) {
            fields.text_or_rest().to_vec()
        } else {
            Vec::new()
        };
        Ok(Self { version, connection_id, salt, capabilities, collation, status, plugin })
    }

    /// The payload.
    ///
    /// # Panics
    /// When the salt is not of 20 bytes.
    pub fn write(&self) -> Vec<u8> {
        assert_eq!(self.salt.len(), 20, "a salt has 20 bytes");
        let bits = self.capabilities.0.to_le_bytes();
        let mut out = vec![10];
        put_text(&mut out, &self.version);
        out.extend_from_slice(&self.connection_id.to_le_bytes());
        put_text(&mut out, &self.salt[..8]);
        out.extend_from_slice(&bits[..2]);
        out.push(self.collation);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&bits[2..4]);
        out.push(21);
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(if self.capabilities.mariadb() { &bits[4..8] } else { &[0; 4] });
        put_text(&mut out, &self.salt[8..]);
        put_text(&mut out, &self.plugin);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_greeting_comes_back() {
        for capabilities in [Capabilities(0xffff_ffff), Capabilities(0x0000_0014_ffff_fffe)] {
            let greeting = Greeting {
                version: b"9.7.4".to_vec(),
                connection_id: 0x8000_0001,
                salt: (1..=20).collect(),
                capabilities,
                collation: 255,
                status: 2,
                plugin: b"caching_sha2_password".to_vec(),
            };
            assert_eq!(Greeting::read(&greeting.write()), Ok(greeting));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut with_version = vec![10];
            with_version.extend_from_slice(&bytes);
            let _ = (Greeting::read(&bytes), Greeting::read(&with_version));
        }
    }
}
