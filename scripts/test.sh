#!/usr/bin/env bash
# test.sh: every test. Installs what is missing; the last line is "N passed, N failed"; exit 1 on any failure.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 failures=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# check NAME COMMAND...: one test that is a command.
check() {
    echo "== $1" >&2
    if "${@:2}" >&2; then passed=$((passed + 1)); else failed=$((failed + 1)) failures+=("$1"); fi
}

# count NAME COMMAND...: a command that prints how many of its tests passed and failed: a sum of its own, or what
# cargo prints for each program (which may come before such a sum, on a machine's console).
count() {
    echo "== $1" >&2
    "${@:2}" 2>&1 | tee "$log" >&2
    local code=${PIPESTATUS[0]} of_passed of_failed
    read -r of_passed of_failed < <(awk '
        /^test result: / { passed += $4; failed += $6 }
        /^[0-9]+ passed, [0-9]+ failed$/ { summed = 1; sum_passed += $1; sum_failed += $3 }
        END { if (summed) print sum_passed, sum_failed; else print passed + 0, failed + 0 }' "$log")
    passed=$((passed + of_passed)) failed=$((failed + of_failed))
    # A test program that did not build or was killed has no result of its own.
    if [ "$code" -ne 0 ] && [ "$of_failed" -eq 0 ]; then failed=$((failed + 1)); fi
    if [ "$code" -ne 0 ]; then failures+=("$1"); fi
}

scripts/install-packages.sh gcc libc6-dev libseccomp-dev autoconf automake libtool make nasm binutils busybox-static podman buildah uidmap slirp4netns crun skopeo docker-registry \
    containerd docker.io runc strace procps \
    umoci debootstrap e2fsprogs jq cpio qemu-system-x86 nftables iproute2 iptables containernetworking-plugins nginx-light apache2-utils \
    util-linux python3 python3-venv || exit 1
command -v cargo >/dev/null || { echo "test: cargo is missing; see https://rustup.rs" >&2; exit 1; }

check "format" cargo fmt --all --check
check "lints" cargo clippy --quiet --workspace --all-targets -- -D warnings
count "unit tests" cargo test --quiet --package corten
check "release build" scripts/release.sh
check "a layer with Debian" scripts/debian-layer.sh
check "crictl and critest" scripts/cri-tools.sh
check "the aws command and boto3" scripts/aws-tools.sh
count "tests on this machine" cargo test --quiet --package runtime-tests --no-fail-fast
check "conformance with Kubernetes' CRI" scripts/critest.sh
check "conformance with the OCI runtime-tools" scripts/conformance.sh
check "crun's own tests" scripts/crun-tests.sh
count "fuzz targets, a short run" scripts/fuzz.sh 8
count "tests in the virtual machine (cgroup v2)" scripts/vm-test.sh
count "tests in virtual machines booted with systemd" scripts/systemd-test.sh

[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[@]}" >&2
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
