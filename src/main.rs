//! `corten`: argv[0] and the first word choose a face.
use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: corten::sys::allocator::Allocator = corten::sys::allocator::Allocator;

fn main() -> ExitCode {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let by_name = argv
        .first()
        .and_then(|name| std::path::Path::new(name).file_name())
        .is_some_and(|name| name == "corten-oci");
    if by_name {
        return corten::cli::oci::main(&argv);
    }
    if argv.get(1).is_some_and(|word| word == "oci") {
        return corten::cli::oci::main(&argv[1..]);
    }
    if argv.get(1).is_some_and(|word| word == "monitor") {
        return corten::cli::monitor::main(&argv);
    }
    if argv.get(1).is_some_and(|word| word == corten::image::unpack::worker::VERB) {
        return corten::image::unpack::worker::main();
    }
    corten::cli::main(&argv)
}
