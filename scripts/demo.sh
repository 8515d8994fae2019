#!/usr/bin/env bash
# demo.sh: from a fresh Debian machine to a running container.
#
# Installs what is missing, builds the release binary, makes a small image of Debian's busybox, serves it from a
# registry on loopback, pulls it and runs it with limits on memory, CPU and processes. Leaves nothing but target/.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-packages.sh gcc libc6-dev libseccomp-dev autoconf automake libtool make nasm busybox-static docker-registry skopeo jq
command -v cargo >/dev/null || { echo "demo: cargo is missing; see https://rustup.rs" >&2; exit 1; }
scripts/release.sh
corten=target/corten

work=$(mktemp -d)
registry=
clean_up() {
    [ -z "$registry" ] || { kill "$registry" && wait "$registry"; } 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

rootfs/busybox.sh "$work/image"
exec 4< <(exec scripts/registry.sh "$work/registry")
registry=$!
read -r address <&4
skopeo copy --quiet --insecure-policy --dest-tls-verify=false "oci:$work/image:latest" "docker://$address/demo/busybox:latest"

corten() { "$corten" --root "$work/root" --state "$work/state" "$@"; }
echo "\$ corten pull $address/demo/busybox" >&2
corten pull "$address/demo/busybox" >&2
echo "\$ corten run --rm --network none --hostname corten-demo --memory 64m --cpus 0.5 --pids-limit 32 $address/demo/busybox" >&2
corten run --rm --network none --hostname corten-demo --memory 64m --cpus 0.5 --pids-limit 32 "$address/demo/busybox"
