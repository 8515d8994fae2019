//! Tells the linker where the `corten` executable begins (`src/sys/entry.rs`), and generates the bindings of CRI.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bin=corten=-Wl,-e,corten_start");
    }
    // The definition is Kubernetes' own (k8s.io/cri-api 0.37.2, Apache-2.0), unchanged.
    println!("cargo::rerun-if-changed=src/agent/cri/api.proto");
    let definition =
        protox::compile(["api.proto"], ["src/agent/cri"]).expect("the definition of CRI is valid");
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(definition)
        .expect("bindings of CRI can be written to OUT_DIR");
}
