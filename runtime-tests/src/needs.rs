//! What the tests need from outside, each found in one place.
//!
//! | what | environment | else |
//! |---|---|---|
//! | the binary under test | `CORTEN_BIN` | `target/corten` (`scripts/release.sh`) |
//! | an OCI runtime to compare the tests with | `CORTEN_OCI` | the binary under test, as `corten oci` |
//! | the static probe | `CORTEN_PROBE` | built by cargo beside the test |
//! | a static busybox | `CORTEN_BUSYBOX` | `/bin/busybox` |
//! | crictl and critest | `CORTEN_CRI_TOOLS`, a directory | `target/cri-tools` (`scripts/cri-tools.sh`) |
//! | a layer with Debian's base | - | `target/debian-layer.tar` (`scripts/debian-layer.sh`) |
//! | how often each race with a container's set-up is run | `CORTEN_TEST_RACES` | 200, fewer on a slow machine |
//! | how much slower than a real machine this one is | `CORTEN_TEST_SLOW` | 1 |

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The file at `path`, or a failure that names the need.
fn required(need: &str, path: PathBuf, remedy: &str) -> PathBuf {
    assert!(path.exists(), "missing need: {need} at {} ({remedy})", path.display());
    path
}

/// `target`: the test executables are in `target/<triple>/<profile>/deps`.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("path of the test executable");
    exe.ancestors().nth(4).expect("a test executable is in target/<triple>/<profile>/deps").to_path_buf()
}

/// The binary under test.
pub fn corten() -> PathBuf {
    let path = std::env::var_os("CORTEN_BIN").map_or_else(|| target_dir().join("corten"), PathBuf::from);
    required("the release binary", path, "scripts/release.sh, or set CORTEN_BIN")
}

/// The command of the OCI runtime under test, without arguments.
pub fn oci() -> Command {
    match std::env::var_os("CORTEN_OCI") {
        Some(path) => Command::new(path),
        None => {
            let mut command = Command::new(corten());
            command.arg("oci");
            command
        }
    }
}

/// The static program that reports from inside a container.
pub fn probe() -> PathBuf {
    let path = std::env::var_os("CORTEN_PROBE").map_or_else(
        || {
            let exe = std::env::current_exe().expect("path of the test executable");
            exe.ancestors().nth(2).expect("profile directory").join("probe")
        },
        PathBuf::from,
    );
    required("the probe", path, "cargo build -p runtime-tests")
}

/// A static busybox, for shells and small tools inside containers.
pub fn busybox() -> PathBuf {
    let path =
        std::env::var_os("CORTEN_BUSYBOX").map_or_else(|| PathBuf::from("/bin/busybox"), PathBuf::from);
    required("a static busybox", path, "apt-get install busybox-static")
}

/// crictl or critest.
pub fn cri_tool(name: &str) -> PathBuf {
    let dir =
        std::env::var_os("CORTEN_CRI_TOOLS").map_or_else(|| target_dir().join("cri-tools"), PathBuf::from);
    required(name, dir.join(name), "scripts/cri-tools.sh")
}

/// A layer with Debian's base and python3.
pub fn debian_layer() -> PathBuf {
    required("a Debian layer", target_dir().join("debian-layer.tar"), "scripts/debian-layer.sh")
}

/// aws, or the python3 that has boto3.
pub fn aws_tool(name: &str) -> PathBuf {
    let dir =
        std::env::var_os("CORTEN_AWS_TOOLS").map_or_else(|| target_dir().join("aws-tools"), PathBuf::from);
    required(name, dir.join("bin").join(name), "scripts/aws-tools.sh")
}

/// A program of the host, looked up in PATH.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.exists())
        .unwrap_or_else(|| panic!("missing need: {name} in PATH (apt-get install {package})"))
}

/// A program of one of Debian's packages, by its path: another of its name may come first in PATH.
pub fn packaged(path: &str, package: &str) -> PathBuf {
    required(package, PathBuf::from(path), &format!("apt-get install {package}"))
}

/// The binary under test (or the peer that `CORTEN_OCI` names) as callers of runc know one: a path, without a verb.
/// A link in `dir`, whose name chooses the binary's face.
pub fn oci_path(dir: &Path) -> PathBuf {
    match std::env::var_os("CORTEN_OCI") {
        Some(peer) => PathBuf::from(peer),
        None => {
            let link = dir.join("corten-oci");
            std::os::unix::fs::symlink(corten(), &link).expect("symlink");
            link
        }
    }
}

/// A duration stretched by the slowness of this machine (an emulated one sets `CORTEN_TEST_SLOW`).
pub fn stretched(duration: Duration) -> Duration {
    duration * std::env::var("CORTEN_TEST_SLOW").map_or(1, |text| text.parse().expect("CORTEN_TEST_SLOW"))
}

/// Whether a regular file exists, for tests that look at the host.
pub fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok()
}
