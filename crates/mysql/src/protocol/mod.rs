//! The client and server protocol as bytes: handshakes, packets, and where each answer ends. No input or output here.
//!
//! A packet is a header of four bytes (three of length, little endian, and a sequence number) and that many bytes of
//! payload; a payload of [`PAYLOAD_MAX`] bytes goes on in the next packet. Facts are from the protocol pages of the MySQL
//! and MariaDB manuals.

mod answer;
mod attributes;
mod auth;
mod capability;
mod change_user;
mod command;
mod compression;
mod field;
mod greeting;
mod login;
mod numbers;
mod proxy;
mod reply;

pub use answer::{Answer, End, Step, WHOLE_BYTES_MAX};
pub use attributes::query_text_start;
pub use auth::{CACHING_SHA2, CLEAR, NATIVE, encrypt_for, equal, fast_sha2, native};
pub use capability::Capabilities;
pub use change_user::ChangeUser;
pub use command::Command;
pub use compression::{BadFrame, Compression, FRAME_HEADER_BYTES, FrameReader, Packer, ZSTD_LEVEL};
pub use field::{FieldReader, Truncated, put_bytes, put_integer, put_text};
pub use greeting::Greeting;
pub use login::{LoginRequest, TLS_REQUEST_BYTES};
pub use numbers::PacketNumbers;
pub use proxy::{
    AUTHORITY, CUSTOM, Ends, NoProxyHeader, ProxyHeader, ProxyVersion, V2_BYTES_MAX, is_proxy_header,
};
pub use reply::{AuthSwitch, Reply, ServerError, Status, error_packet, ok_packet, packet, told_less};

/// The length that says "the next packet goes on with this payload".
pub const PAYLOAD_MAX: usize = 0xff_ffff;
/// Length and sequence number in front of each payload.
pub const HEADER_BYTES: usize = 4;

/// The payload's length of the header at the start of `bytes`, which are at least [`HEADER_BYTES`].
pub fn payload_bytes(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
}
