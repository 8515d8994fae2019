#!/usr/bin/env bash
# bench.sh: speed and size as ratios in one run, against a floor program and Debian's crun, runc and podman.
# Prints a table; exit 1 if a limit does not hold. Needs a quiet machine, root and 15 GB under target/.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-packages.sh gcc libc6-dev libseccomp-dev autoconf automake libtool make nasm busybox-static runc crun podman skopeo docker-registry \
    e2fsprogs util-linux python3 jq
scripts/release.sh
mkdir -p target/bench
gcc -O2 -static -w -o target/bench/floor benches/floor.c
gcc -O2 -static -o target/bench/peak benches/peak.c

# A mount namespace of its own: the loop mounts go with it, and crun, which refuses a hybrid host while cgroup v2
# lists a controller, finds an empty list.
: > target/bench/empty
export CORTEN=$PWD/target/corten
# As after a boot: how a file came into the page cache decides how much of it is resident (docs/performance.md).
sync target/corten
for program in target/corten /usr/bin/crun; do dd if=$program iflag=nocache count=0 status=none; done
exec unshare --mount --propagation private bash -c '
    controllers=/sys/fs/cgroup/unified/cgroup.controllers
    [ ! -e $controllers ] || mount --bind target/bench/empty $controllers
    exec python3 benches/bench.py "$@"' bench "$@"
