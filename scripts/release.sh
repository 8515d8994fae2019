#!/usr/bin/env bash
# release.sh: builds the release binary and puts it at target/corten, where the other scripts and the tests look for it.
#
# It is linked with musl: that starts 0.4 ms sooner than a static glibc where `cpuid` traps, and lets scripts/link.sh choose
# the order of functions (docs/performance.md). A Rust that has no such target and cannot get it builds the host's.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-packages.sh gcc libc6-dev libseccomp-dev autoconf automake libtool make nasm musl-tools binutils
command -v cargo >/dev/null || { echo "release: cargo is missing; see https://rustup.rs" >&2; exit 1; }
target=x86_64-unknown-linux-musl
if [ "$(uname -m)" != x86_64 ] || { [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && ! rustup target add $target; }; then
    target=$(rustc -vV | sed -n 's/^host: //p')
    echo "release: built for $target: without musl, every command starts a little later" >&2
fi
cargo build --quiet --release --target "$target"
install -m 755 "target/$target/release/corten" target/corten
