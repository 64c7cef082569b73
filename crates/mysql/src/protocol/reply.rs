//! The packets that end things: OK, EOF and ERR, and the switch of authentication.

use super::{Capabilities, FieldReader, Truncated, put_bytes, put_integer, put_text};

/// The server's status flags that come with each OK and EOF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    pub const IN_TRANSACTION: Self = Self(1);
    pub const AUTOCOMMIT: Self = Self(2);
    pub const MORE_RESULTS: Self = Self(8);
    pub const CURSOR: Self = Self(64);
    pub const LAST_ROW: Self = Self(128);
    pub const NO_BACKSLASH_ESCAPES: Self = Self(512);
    /// Changes of the session follow in the OK.
    pub const SESSION_CHANGED: Self = Self(1 << 14);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The kind of a change that only tells that there was one.
const STATE: u8 = 2;

/// An OK's payload for a client that is told less of its session than we are: without the mark that something changed, or,
/// where it is told what changed, without that alone. `None` where it is the same.
pub fn told_less(payload: &[u8], is_told: bool) -> Option<Vec<u8>> {
    let mut fields = FieldReader::new(payload);
    fields.u8().ok()?;
    fields.integer().ok()?;
    fields.integer().ok()?;
    let at = payload.len() - fields.rest().len();
    let status = fields.u16().ok()?;
    fields.u16().ok()?;
    if !Status(status).has(Status::SESSION_CHANGED) {
        return None;
    }
    let words = fields.bytes().ok()?;
    let mut rest = FieldReader::new(fields.bytes().ok()?);
    let mut kept = Vec::new();
    let mut is_less = !is_told;
    while is_told && !rest.is_empty() {
        let (kind, value) = (rest.u8().ok()?, rest.bytes().ok()?);
        if kind == STATE {
            is_less = true;
        } else {
            kept.push(kind);
            put_bytes(&mut kept, value);
        }
    }
    if !is_less {
        return None;
    }
    let mut out = payload[..at + 4].to_vec();
    if kept.is_empty() {
        let status = status & !Status::SESSION_CHANGED.0;
        out[at..at + 2].copy_from_slice(&status.to_le_bytes());
    }
    // Servers leave out an empty text that nothing follows.
    if !words.is_empty() || !kept.is_empty() {
        put_bytes(&mut out, words);
    }
    if !kept.is_empty() {
        put_bytes(&mut out, &kept);
    }
    Some(out)
}

/// An OK packet, or the one in an EOF's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub affected: u64,
    pub last_insert_id: u64,
    pub status: Status,
    pub warnings: u16,
    /// What changed in the session, as tracked by the server; empty where it does not track.
    pub changes: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Reads an OK's payload, its mark (0x00 or 0xfe) included.
    pub fn read(payload: &'a [u8], capabilities: Capabilities) -> Result<Self, Truncated> {
        let mut fields = FieldReader::new(payload);
        fields.u8()?;
        let affected = fields.integer()?;
        let last_insert_id = fields.integer()?;
        let status = Status(fields.u16()?);
        let warnings = fields.u16()?;
        let mut changes: &[u8] = &[];
        if capabilities.has(Capabilities::SESSION_TRACK) && status.has(Status::SESSION_CHANGED) {
            fields.bytes()?;
            changes = fields.bytes()?;
        }
        Ok(Self { affected, last_insert_id, status, warnings, changes })
    }

    /// The GTIDs of what this statement committed (`session_track_gtids = OWN_GTID`), as the server writes them.
    pub fn gtids(self) -> Option<&'a [u8]> {
        const GTIDS: u8 = 3;
        let mut fields = FieldReader::new(self.change(GTIDS)?);
        // The first byte is the encoding's number, of which there is one.
        fields.u8().ok()?;
        fields.bytes().ok()
    }

    /// The schema that became the current one, where that is what changed.
    pub fn database(self) -> Option<&'a [u8]> {
        const SCHEMA: u8 = 1;
        FieldReader::new(self.change(SCHEMA)?).bytes().ok()
    }

    /// Whether a variable was set, of those that the server tracks (`session_track_system_variables`).
    pub fn sets_variables(self) -> bool {
        const VARIABLES: u8 = 0;
        self.change(VARIABLES).is_some()
    }

    /// Whether something of the session was changed that another connection would not have (`session_track_state_change`).
    pub fn changes_state(self) -> bool {
        self.change(STATE).is_some()
    }

    /// The first change of a kind.
    fn change(self, wanted: u8) -> Option<&'a [u8]> {
        let mut changes = FieldReader::new(self.changes);
        while !changes.is_empty() {
            let kind = changes.u8().ok()?;
            let value = changes.bytes().ok()?;
            if kind == wanted {
                return Some(value);
            }
        }
        None
    }
}

/// An ERR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    pub number: u16,
    /// Five letters; `HY000` before the login, when no state is told.
    pub state: [u8; 5],
    pub message: String,
}

impl ServerError {
    /// Reads an ERR's payload, its mark (0xff) included.
    pub fn read(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = FieldReader::new(payload);
        fields.u8()?;
        let number = fields.u16()?;
        let mut state = *b"HY000";
        let mut message = fields.rest();
        if let Some((b'#', rest)) = message.split_first()
            && let Some((five, text)) = rest.split_at_checked(5)
        {
            state.copy_from_slice(five);
            message = text;
        }
        Ok(Self { number, state, message: String::from_utf8_lossy(message).into_owned() })
    }
}

/// The server asks for another proof than the one it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSwitch {
    pub plugin: Vec<u8>,
    /// Without the zero byte behind it.
    pub salt: Vec<u8>,
}

impl AuthSwitch {
    /// Reads the payload, its mark (0xfe) included.
    pub fn read(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = FieldReader::new(payload);
        fields.u8()?;
        let plugin = fields.text()?.to_vec();
        let salt = fields.rest();
        Ok(Self { plugin, salt: salt.strip_suffix(&[0]).unwrap_or(salt).to_vec() })
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0xfe];
        put_text(&mut out, &self.plugin);
        put_text(&mut out, &self.salt);
        out
    }
}

/// A payload with its header. Payloads of [`super::PAYLOAD_MAX`] bytes and more are not made here.
///
/// # Panics
/// When the payload is longer than one packet holds.
pub fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < super::PAYLOAD_MAX, "one packet holds it");
    let length = payload.len().to_le_bytes();
    let mut out = Vec::with_capacity(super::HEADER_BYTES + payload.len());
    out.extend_from_slice(&[length[0], length[1], length[2], sequence]);
    out.extend_from_slice(payload);
    out
}

/// A whole ERR packet. One in the greeting's place, number 0, has no state: nothing is agreed on yet.
pub fn error_packet(sequence: u8, number: u16, state: &[u8; 5], message: &str) -> Vec<u8> {
    let mut payload = vec![0xff];
    payload.extend_from_slice(&number.to_le_bytes());
    if sequence > 0 {
        payload.push(b'#');
        payload.extend_from_slice(state);
    }
    payload.extend_from_slice(message.as_bytes());
    packet(sequence, &payload)
}

/// A whole OK packet that changed nothing.
pub fn ok_packet(sequence: u8, status: Status) -> Vec<u8> {
    let mut payload = vec![0];
    put_integer(&mut payload, 0);
    put_integer(&mut payload, 0);
    payload.extend_from_slice(&status.0.to_le_bytes());
    payload.extend_from_slice(&[0, 0]);
    packet(sequence, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ok_tells_what_changed_in_the_session() {
        let capabilities = Capabilities::SESSION_TRACK;
        let gtid = b"3e11fa47-71ca-11e1-9e33-c80aa9429562:23";
        let mut change = vec![3, gtid.len() as u8 + 2, 0, gtid.len() as u8];
        change.extend_from_slice(gtid);
        change.extend_from_slice(&[1, 5, 4, b's', b'h', b'o', b'p']);
        let mut payload = vec![0, 1, 7, 2, 0x40, 0, 0, 0, change.len() as u8];
        payload.extend_from_slice(&change);
        let reply = Reply::read(&payload, capabilities).unwrap();
        assert_eq!((reply.affected, reply.last_insert_id), (1, 7));
        assert_eq!(reply.gtids(), Some(&gtid[..]));
        assert_eq!(reply.database(), Some(&b"shop"[..]));
        assert!(!reply.sets_variables());
        assert!(reply.status.has(Status::AUTOCOMMIT) && !reply.status.has(Status::IN_TRANSACTION));
        assert_eq!(Reply::read(&payload, Capabilities(0)).unwrap().changes, b"");
        let zone = b"\x00\x00\x00\x02\x40\x00\x00\x00\x13\x00\x11\x09time_zone\x06+05:00";
        let reply = Reply::read(zone, capabilities).unwrap();
        assert!(reply.sets_variables() && reply.database().is_none() && reply.gtids().is_none());
    }

    #[test]
    fn a_client_is_told_what_it_asked_for_and_no_more() {
        let ok = |changes: &[u8], words: &[u8], changed: bool| {
            let mut payload = vec![0, 1, 7, 2, if changed { 0x40 } else { 0 }, 3, 0];
            if changed || !words.is_empty() {
                put_bytes(&mut payload, words);
            }
            if changed {
                put_bytes(&mut payload, changes);
            }
            payload
        };
        let (state, zone) = (&b"\x02\x01\x31"[..], &b"\x00\x11\x09time_zone\x06+05:00"[..]);
        let both = [zone, state].concat();
        for words in [&b""[..], b"Rows matched: 1"] {
            assert_eq!(told_less(&ok(b"", words, false), false), None);
            assert_eq!(told_less(&ok(&both, words, true), false), Some(ok(b"", words, false)));
            assert_eq!(told_less(&ok(state, words, true), true), Some(ok(b"", words, false)));
            assert_eq!(told_less(&ok(&both, words, true), true), Some(ok(zone, words, true)));
            assert_eq!(told_less(&ok(zone, words, true), true), None);
        }
        assert!(Reply::read(&ok(&both, b"", true), Capabilities::SESSION_TRACK).unwrap().changes_state());
        assert!(!Reply::read(&ok(zone, b"", true), Capabilities::SESSION_TRACK).unwrap().changes_state());
    }

    #[test]
    fn an_error_comes_back_with_and_without_its_state() {
        let error = ServerError::read(&error_packet(1, 1040, b"08004", "Too many connections")[4..]).unwrap();
        assert_eq!(
            (error.number, &error.state, error.message.as_str()),
            (1040, b"08004", "Too many connections")
        );
        let early = error_packet(0, 1040, b"08004", "Too many connections");
        assert_eq!(early[4..], b"\xff\x10\x04Too many connections"[..]);
        let early = ServerError::read(&early[4..]).unwrap();
        assert_eq!((early.number, &early.state), (1040, b"HY000"));
    }

    #[test]
    fn a_switch_of_authentication_comes_back() {
        let switch = AuthSwitch { plugin: b"mysql_native_password".to_vec(), salt: vec![5; 20] };
        assert_eq!(AuthSwitch::read(&switch.write()), Ok(switch));
    }

    proptest! {
        #[test]
        fn no_bytes_make_them_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(reply) = Reply::read(&bytes, Capabilities::SESSION_TRACK) {
                let _ = (reply.gtids(), reply.database(), reply.sets_variables());
            }
            let _ = (ServerError::read(&bytes), AuthSwitch::read(&bytes));
            let _ = (told_less(&bytes, true), told_less(&bytes, false));
        }
    }
}
