#!/usr/bin/env bash
# bench-image.sh [CASE...]: images, pulled, loaded and removed, as ratios in one run against Debian's containerd and podman and
# against what igzip and tar can do. Prints a table; exit 1 if a limit does not hold. Needs root and 20 GB under target/.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-packages.sh containerd podman crun skopeo docker-registry isal strace e2fsprogs util-linux python3 tar
[ -n "${CORTEN:-}" ] || { scripts/release.sh; export CORTEN=$PWD/target/corten; }
mkdir -p target/bench-image
# A mount namespace of its own: the loop mounts go with it.
exec unshare --mount --propagation private python3 benches/image_bench.py "$@"
