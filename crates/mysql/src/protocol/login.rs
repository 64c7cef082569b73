//! The client's answer to the greeting: who it is, what it can do, and the proof of its password.

use super::{Capabilities, FieldReader, Truncated, put_bytes, put_text};

/// The payload of a client that first wants TLS: the front of the login request and nothing else.
pub const TLS_REQUEST_BYTES: usize = 32;

/// A login of protocol 4.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRequest {
    pub capabilities: Capabilities,
    pub packet_bytes_max: u32,
    pub collation: u8,
    pub user: Vec<u8>,
    pub proof: Vec<u8>,
    /// Empty for none.
    pub database: Vec<u8>,
    pub plugin: Vec<u8>,
    /// The block of connection attributes as it came: keys and values, each with its length, without the block's own.
    pub attributes: Vec<u8>,
    pub zstd_level: u8,
}

impl LoginRequest {
    /// # Errors
    /// When it is cut, or older than protocol 4.1.
    pub fn read(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = FieldReader::new(payload);
        let mut capabilities = Capabilities(u64::from(fields.u32()?));
        if !capabilities.has(Capabilities::PROTOCOL_41) {
            return Err(Truncated);
        }
        let packet_bytes_max = fields.u32()?;
        let collation = fields.u8()?;
        let filler = fields.take(23)?;
        if capabilities.mariadb() {
            let extended = u32::from_le_bytes([filler[19], filler[20], filler[21], filler[22]]);
            capabilities = capabilities | Capabilities(u64::from(extended) << 32);
        }
        let user = fields.text()?.to_vec();
        let proof = if capabilities.has(Capabilities::AUTH_LENGTH_ENCODED) {
            fields.bytes()?.to_vec()
        } else if capabilities.has(Capabilities::SECURE_CONNECTION) {
            let length = usize::from(fields.u8()?);
            fields.take(length)?.to_vec()
        } else {
            fields.text()?.to_vec()
        };
        let database = if capabilities.has(Capabilities::CONNECT_WITH_DATABASE) {
            fields.text_or_rest().to_vec()
        } else {
            Vec::new()
        };
        let plugin = if capabilities.has(Capabilities::PLUGIN_AUTH) {
            fields.text_or_rest().to_vec()
        } else {
            Vec::new()
        };
        let attributes = if capabilities.has(Capabilities::CONNECT_ATTRIBUTES) && !fields.is_empty() {
            fields.bytes()?.to_vec()
        } else {
            Vec::new()
        };
        let zstd_level = if capabilities.has(Capabilities::ZSTD) { fields.u8().unwrap_or(3) } else { 0 };
        Ok(Self {
            capabilities,
            packet_bytes_max,
            collation,
            user,
            proof,
            database,
            plugin,
            attributes,
            zstd_level,
        })
    }

    /// The payload that asks for TLS before the rest is told.
    pub fn write_tls_request(&self) -> Vec<u8> {
        let bits = self.capabilities.0.to_le_bytes();
        let mut out = Vec::with_capacity(TLS_REQUEST_BYTES);
        out.extend_from_slice(&bits[..4]);
        out.extend_from_slice(&self.packet_bytes_max.to_le_bytes());
        out.push(self.collation);
        out.extend_from_slice(&[0; 19]);
        out.extend_from_slice(if self.capabilities.mariadb() { &bits[4..8] } else { &[0; 4] });
        out
    }

    /// The payload; what the capabilities leave out is not written.
    pub fn write(&self) -> Vec<u8> {
        let mut out = self.write_tls_request();
        put_text(&mut out, &self.user);
        if self.capabilities.has(Capabilities::AUTH_LENGTH_ENCODED) {
            put_bytes(&mut out, &self.proof);
        } else {
            out.push(u8::try_from(self.proof.len()).unwrap_or(0));
            out.extend_from_slice(if self.proof.len() < 256 { &self.proof } else { &[] });
        }
        if self.capabilities.has(Capabilities::CONNECT_WITH_DATABASE) {
            put_text(&mut out, &self.database);
        }
        if self.capabilities.has(Capabilities::PLUGIN_AUTH) {
            put_text(&mut out, &self.plugin);
        }
        if self.capabilities.has(Capabilities::CONNECT_ATTRIBUTES) {
            put_bytes(&mut out, &self.attributes);
        }
        if self.capabilities.has(Capabilities::ZSTD) {
            out.push(self.zstd_level);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(capabilities: Capabilities) -> LoginRequest {
        LoginRequest {
            capabilities,
            packet_bytes_max: 1 << 24,
            collation: 45,
            user: b"shop".to_vec(),
            proof: vec![9; 32],
            database: b"orders".to_vec(),
            plugin: b"caching_sha2_password".to_vec(),
            attributes: b"\x04_pid\x0242".to_vec(),
            zstd_level: 7,
        }
    }

    #[test]
    fn a_login_comes_back() {
        let all = Capabilities(0xffff_ffff);
        let login = request(all);
        assert_eq!(LoginRequest::read(&login.write()), Ok(login.clone()));
        assert_eq!(login.write_tls_request().len(), TLS_REQUEST_BYTES);
        let maria = Capabilities(0x0000_0014_ffff_fffe).without(Capabilities::ZSTD);
        let login = LoginRequest { zstd_level: 0, ..request(maria) };
        assert_eq!(LoginRequest::read(&login.write()), Ok(login));
    }

    #[test]
    fn what_is_not_agreed_on_is_not_written() {
        let capabilities =
            Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION | Capabilities::LONG_PASSWORD;
        let read = LoginRequest::read(&request(capabilities).write()).unwrap();
        assert_eq!((read.user.as_slice(), read.proof.len()), (&b"shop"[..], 32));
        assert!(read.database.is_empty() && read.plugin.is_empty() && read.attributes.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LoginRequest::read(&bytes);
            if let Some(second) = bytes.get_mut(1) {
                *second |= 2;
                let _ = LoginRequest::read(&bytes);
            }
        }
    }
}
