//! Who proves the password, at a login and at a change of the user: the server by a relay, or the mesh itself.

use crate::config::UserConfig;
use crate::error::SessionError;
use crate::group::Backend;
use crate::link::garbled;
use crate::lot;
use crate::wire::Wire;
use base::Secret;
use mysql::protocol::{
    AuthSwitch, CACHING_SHA2, CLEAR, Capabilities, NATIVE, ServerError, Status, encrypt_for, equal,
    fast_sha2, native, packet,
};
use std::io;

/// Packets of one authentication; the longest that is known takes four from each side.
const STEPS_MAX: usize = 16;

/// A plugin that no server has: each then asks for the account's own, with a salt of its own, which is what a relay needs.
pub(super) const RELAY: &[u8] = b"tidemill_relay";

/// Sends the client a packet.
pub(crate) async fn say(client: &mut Wire, sequence: &mut u8, payload: &[u8]) -> Result<(), SessionError> {
    client.write_all(&packet(*sequence, payload)).await.map_err(SessionError::Client)?;
    *sequence = sequence.wrapping_add(1);
    Ok(())
}

/// A client's answer to a question about its password; tickets are the longest.
const PROOF_BYTES_MAX: usize = 64 * 1024;

/// The client's next packet.
pub(crate) async fn hear(client: &mut Wire, sequence: &mut u8) -> Result<Vec<u8>, SessionError> {
    let (number, payload) =
        client.read_packet_within(PROOF_BYTES_MAX, usize::MAX).await.map_err(SessionError::Client)?;
    *sequence = number.wrapping_add(1);
    Ok(payload)
}

/// The mesh's own check of a password.
pub(crate) struct Check<'a> {
    pub client: &'a mut Wire,
    pub sequence: &'a mut u8,
    pub users: &'a [UserConfig],
}

impl Check<'_> {
    /// The password that the client has proven; its OK is the caller's to send.
    pub(crate) async fn run(
        &mut self,
        user: &[u8],
        mut plugin: Vec<u8>,
        mut salt: Vec<u8>,
        mut proof: Vec<u8>,
    ) -> Result<Secret, SessionError> {
        let name = String::from_utf8_lossy(user).into_owned();
        let user = self.users.iter().find(|user| user.name == name);
        let password = user.map(|user| user.password.clone()).unwrap_or_default();
        // A client whose own way is not the one of the greeting proves nothing yet, and waits to be asked.
        let unasked = matches!(proof[..], [] | [0]) && (user.is_none() || !password.expose().is_empty());
        if plugin != CACHING_SHA2 && plugin != NATIVE || unasked {
            let way = if plugin == NATIVE { NATIVE } else { CACHING_SHA2 };
            let switch = AuthSwitch { plugin: way.to_vec(), salt: lot::salt() };
            say(self.client, self.sequence, &switch.write()).await?;
            proof = hear(self.client, self.sequence).await?;
            (plugin, salt) = (switch.plugin, switch.salt);
        }
        // Some clients send an empty password as one zero byte.
        let proof = if proof == [0] { Vec::new() } else { proof };
        let expected = if plugin == NATIVE {
            native(&salt, password.expose().as_bytes())
        } else {
            fast_sha2(&salt, password.expose().as_bytes())
        };
        if user.is_none() || !equal(&proof, &expected) {
            return Err(SessionError::Denied { user: name });
        }
        if plugin == CACHING_SHA2 && !expected.is_empty() {
            say(self.client, self.sequence, &[1, 3]).await?;
        }
        Ok(password)
    }
}

/// An authentication that passes through, at a login or a change of the user.
pub(super) struct AuthRelay<'a> {
    pub client: &'a mut Wire,
    /// The next packet's number towards the client.
    pub sequence: &'a mut u8,
    pub wire: &'a mut Wire,
    pub backend: &'a Backend,
    /// The way and the proof of a client that has no password: the same for every salt, so that it need not be asked again.
    /// Some drivers (sqlx) would then answer as if there were one.
    pub no_password: Option<(&'a [u8], &'a [u8])>,
}

impl AuthRelay<'_> {
    /// Sends `answer` with the number `sequence` to the server, and what follows back and forth until it lets the client in. Its
    /// OK, which is the caller's to pass on.
    pub(super) async fn run(
        &mut self,
        mut sequence: u8,
        mut answer: Vec<u8>,
    ) -> Result<(Vec<u8>, Status), SessionError> {
        let mut salt = Vec::new();
        for _ in 0..STEPS_MAX {
            self.wire.write_all(&packet(sequence, &answer)).await.map_err(|e| self.lost(e))?;
            let (number, payload) = self.question().await?;
            sequence = number.wrapping_add(1);
            match payload.first() {
                Some(0) => {
                    let reply = mysql::protocol::Reply::read(&payload, Capabilities(0));
                    let status = reply.map(|reply| reply.status).unwrap_or(Status::AUTOCOMMIT);
                    return Ok((payload, status));
                }
                Some(0xff) => {
                    let error = ServerError::read(&payload).map_err(|_| garbled(self.backend, "error"))?;
                    return Err(SessionError::Server { address: self.backend.address.clone(), error });
                }
                Some(0xfe) => {
                    let switch = AuthSwitch::read(&payload)
                        .map_err(|_| garbled(self.backend, "change of authentication"))?;
                    if switch.plugin == CLEAR && !(self.client.is_tls() && self.wire.is_tls()) {
                        return Err(refused(
                            2059,
                            "tidemill: this account sends its password as it is, which needs TLS on both sides of the mesh",
                        ));
                    }
                    if let Some((_, proof)) =
                        self.no_password.take().filter(|(plugin, _)| *plugin == switch.plugin)
                    {
                        answer = proof.to_vec();
                        continue;
                    }
                    salt = switch.salt;
                    say(self.client, self.sequence, &payload).await?;
                    answer = hear(self.client, self.sequence).await?;
                }
                Some(1) => {
                    say(self.client, self.sequence, &payload).await?;
                    answer = hear(self.client, self.sequence).await?;
                    if payload.get(1) == Some(&4) {
                        (sequence, answer) = self.whole_password(sequence, answer, &salt).await?;
                    }
                }
                _ => return Err(garbled(self.backend, "step of a login")),
            }
        }
        Err(garbled(self.backend, "end of a login"))
    }

    /// The server's next packet; one that needs no answer is passed on at once.
    async fn question(&mut self) -> Result<(u8, Vec<u8>), SessionError> {
        loop {
            let (number, payload) = self.wire.read_packet().await.map_err(|e| self.lost(e))?;
            if payload != [1, 3] {
                return Ok((number, payload));
            }
            say(self.client, self.sequence, &payload).await?;
        }
    }

    /// The server wants the password itself, as the kind of each leg allows: within TLS as it is, otherwise encrypted for
    /// the server's key.
    async fn whole_password(
        &mut self,
        sequence: u8,
        answer: Vec<u8>,
        salt: &[u8],
    ) -> Result<(u8, Vec<u8>), SessionError> {
        match (self.client.is_tls(), self.wire.is_tls()) {
            (true, false) => {
                self.wire.write_all(&packet(sequence, &[2])).await.map_err(|e| self.lost(e))?;
                let (number, key) = self.wire.read_packet().await.map_err(|e| self.lost(e))?;
                let password = answer.strip_suffix(&[0]).unwrap_or(&answer);
                let key = key.get(1..).unwrap_or_default();
                let encrypted = encrypt_for(key, salt, password).map_err(|_| garbled(self.backend, "key"))?;
                Ok((number.wrapping_add(1), encrypted))
            }
            (false, true) => Err(refused(
                1045,
                "tidemill: the server asks for the whole password, and the connection to the mesh is not encrypted; log in with TLS once",
            )),
            _ => Ok((sequence, answer)),
        }
    }

    fn lost(&self, source: io::Error) -> SessionError {
        SessionError::Backend { address: self.backend.address.clone(), source }
    }
}

pub(super) fn refused(number: u16, reason: &str) -> SessionError {
    SessionError::Refused { number, state: *b"HY000", reason: reason.to_owned() }
}
