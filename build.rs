//! Compiles the protos without `protoc`: Rust code into `src/proto.rs`, descriptors for reflection.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const ROOT: &str = "proto";
const MEMBERS: &str = "proto/raft.proto";
const PEER: &[&str] = &["proto/node.proto", MEMBERS];
const CLIENT: &[&str] =
    &["proto/etcd/rpc.proto", "proto/etcd/lock.proto", "proto/etcd/election.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={ROOT}");

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let all: Vec<&str> = PEER.iter().chain(CLIENT).copied().collect();
    for (files, codec) in [
        (&all[..], "tonic_prost::ProstCodec"),
        // The code of the members' own protocol takes the place of what was just written for it.
        (&[MEMBERS][..], "crate::proto::checked::Checked"),
    ] {
        let mut code = compiler(files)?;
        code.include_source_info(true);
        tonic_prost_build::configure()
            .bytes(".")
            .codec_path(codec)
            .out_dir(&out)
            .compile_fds(code.file_descriptor_set())?;
    }

    write_descriptors(PEER, &out.join("peer_descriptors.bin"))?;
    write_descriptors(CLIENT, &out.join("client_descriptors.bin"))
}

fn compiler(files: &[&str]) -> Result<protox::Compiler, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true);
    compiler.open_files(files)?;
    Ok(compiler)
}

fn write_descriptors(files: &[&str], path: &Path) -> Result<(), Box<dyn Error>> {
    Ok(fs::write(path, compiler(files)?.encode_file_descriptor_set())?)
}
