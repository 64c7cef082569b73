//! The gRPC interface of Tidemill, `proto/tidemill/v1`, in Rust: messages and clients in [`v1`], servers in [`server`].

mod frame;

pub use frame::Frame;

/// Messages, and clients.
pub mod v1 {
    tonic::include_proto!("tidemill.v1");
}

/// The traits of the servers; what they stream is a [`Frame`].
#[expect(clippy::allow_attributes, reason = "generated")]
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/server/tidemill.v1.rs"));
}

/// The compiled descriptors of `proto/`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A message's bytes.
pub fn encode(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// A message of its bytes.
pub fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, prost::DecodeError> {
    M::decode(bytes)
}
