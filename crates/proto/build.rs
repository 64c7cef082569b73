//! Makes Rust of `proto/tidemill/v1`: messages, clients and servers. The compiler is protox, so no `protoc` is needed.

use prost::Message as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["tidemill/v1/subscriptions.proto", "tidemill/v1/changes.proto"];
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    for file in files {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors.clone())?;
    // What the server streams is encoded once for all who follow a shape: it hands bytes to the transport.
    let server = out.join("server");
    std::fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".tidemill.v1", "crate::v1")
        .extern_path(".tidemill.v1.SubscribeResponse", "crate::Frame")
        .out_dir(&server)
        .compile_fds(descriptors)?;
    Ok(())
}
