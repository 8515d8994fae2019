//! Tells the linker where the `corten` executable begins (`src/sys/entry.rs`).
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bin=corten=-Wl,-e,corten_start");
    }
}
