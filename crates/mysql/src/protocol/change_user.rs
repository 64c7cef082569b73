//! `COM_CHANGE_USER`: a login on a connection that has one.

use super::{Capabilities, FieldReader, Truncated, put_bytes, put_text};

/// Its payload, with the command's byte in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeUser {
    pub user: Vec<u8>,
    pub proof: Vec<u8>,
    /// Empty for none.
    pub database: Vec<u8>,
    /// Its upper byte is for collations that the login cannot name; 0 where the client left it out.
    pub collation: u16,
    pub plugin: Vec<u8>,
    /// The block of attributes, without its length.
    pub attributes: Vec<u8>,
}

impl ChangeUser {
    /// # Errors
    /// When it is cut before its collation, behind which clients may leave out the rest.
    pub fn read(payload: &[u8], capabilities: Capabilities) -> Result<Self, Truncated> {
        let mut fields = FieldReader::new(payload);
        fields.u8()?;
        let user = fields.text()?.to_vec();
        let length = usize::from(fields.u8()?);
        let proof = fields.take(length)?.to_vec();
        let database = fields.text_or_rest().to_vec();
        let collation = fields.u16().unwrap_or(0);
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
        Ok(Self { user, proof, database, collation, plugin, attributes })
    }

    /// The payload.
    pub fn write(&self, capabilities: Capabilities) -> Vec<u8> {
        let mut out = vec![0x11];
        put_text(&mut out, &self.user);
        let proof = if self.proof.len() < 256 { &self.proof[..] } else { &[] };
        out.push(u8::try_from(proof.len()).unwrap_or(0));
        out.extend_from_slice(proof);
        put_text(&mut out, &self.database);
        out.extend_from_slice(&self.collation.to_le_bytes());
        if capabilities.has(Capabilities::PLUGIN_AUTH) {
            put_text(&mut out, &self.plugin);
        }
        if capabilities.has(Capabilities::CONNECT_ATTRIBUTES) {
            put_bytes(&mut out, &self.attributes);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_comes_back() {
        let capabilities = Capabilities::PLUGIN_AUTH | Capabilities::CONNECT_ATTRIBUTES;
        let change = ChangeUser {
            user: b"shop".to_vec(),
            proof: vec![4; 32],
            database: b"orders".to_vec(),
            collation: 255,
            plugin: b"caching_sha2_password".to_vec(),
            attributes: b"\x04_pid\x0242".to_vec(),
        };
        assert_eq!(ChangeUser::read(&change.write(capabilities), capabilities), Ok(change));
        let short = ChangeUser::read(b"\x11shop\0\0orders\0", capabilities).unwrap();
        assert_eq!(
            (short.user.as_slice(), short.database.as_slice(), short.collation),
            (&b"shop"[..], &b"orders"[..], 0)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = ChangeUser::read(&bytes, Capabilities(u64::MAX));
        }
    }
}
