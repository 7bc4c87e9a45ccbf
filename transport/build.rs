//! Generates gRPC clients and servers over the messages of `holdfast-wire`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../wire/proto");
    let fds = protox::compile(["documents.proto", "vault.proto", "session.proto"], ["../wire/proto"])?;
    tonic_prost_build::configure()
        .extern_path(".holdfast.v1", "::holdfast_wire::v1")
        .build_transport(false)
        .compile_fds(fds)?;
    Ok(())
}
