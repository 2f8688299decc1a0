//! Compiles `broker/v1/*.proto` without protoc, and keeps the descriptors for reflection.

use std::{env, fs, io, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=broker/v1");
    let mut files: Vec<PathBuf> = fs::read_dir("broker/v1")?
        .map(|entry| entry.map(|found| found.path()))
        .collect::<Result<_, io::Error>>()?;
    files.sort();

    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("broker_v1.bin"), descriptors.encode_to_vec())?;
    // Without transport, because its `connect` would stand beside the RPC of that name.
    // Maps are ordered so that the same message always has the same bytes, and so the same digest.
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
