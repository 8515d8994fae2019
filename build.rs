//! Tells the linker where the `corten` executable begins (`src/sys/entry.rs`), and generates the bindings of CRI.

/// Messages that the records of pods and containers keep as they came:
const KEPT: [&str; 9] = [
    "runtime.v1.PodSandboxMetadata",
    "runtime.v1.ContainerMetadata",
    "runtime.v1.NamespaceOption",
    "runtime.v1.UserNamespace",
    "runtime.v1.IDMapping",
    "runtime.v1.ImageSpec",
    "runtime.v1.Mount",
    "runtime.v1.LinuxContainerResources",
    "runtime.v1.HugepageLimit",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bin=corten=-Wl,-e,corten_start");
    }
    // The definition is Kubernetes' own (k8s.io/cri-api 0.37.2, Apache-2.0), unchanged.
    println!("cargo::rerun-if-changed=src/agent/cri/api.proto");
    let definition =
        protox::compile(["api.proto"], ["src/agent/cri"]).expect("the definition of CRI is valid");
    let mut bindings = tonic_prost_build::configure();
    for kept in KEPT {
        bindings = bindings
            .message_attribute(kept, "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]");
    }
    bindings
        // The same request is then always the same bytes, by which a retry is known.
        .btree_map(".")
        .build_client(false)
        .compile_fds(definition)
        .expect("bindings of CRI can be written to OUT_DIR");
}
