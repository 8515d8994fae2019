#!/usr/bin/env bash
# runtime-tools.sh: builds the validation programs of the OCI runtime-tools into target/runtime-tools/ from the Go module
# proxy, if they are not there, beside the root filesystem that they unpack. Needs Go 1.21 or newer, in PATH, in
# /usr/local/go or as $GO; Debian 12's (1.19) is too old.
set -euo pipefail
cd "$(dirname "$0")/.."

# The last release (v0.9.0, 2019) does not know the current format of the state; this is the newest commit that the
# proxy has.
version=v0.9.1-0.20250523060157-0ea5ed0382a2
out=$PWD/target/runtime-tools
[ "$(cat "$out/version" 2>/dev/null)" != $version ] || exit 0

go=${GO:-$(command -v go || echo /usr/local/go/bin/go)}
have=$("$go" env GOVERSION 2>/dev/null || true)
if [ "$(printf '%s\n' go1.21 "${have:-go0}" | sort -V | head -1)" != go1.21 ]; then
    echo "runtime-tools: Go 1.21 or newer is missing (found ${have:-none}); get it from https://go.dev/dl or set GO" >&2
    exit 1
fi
mkdir -p "$out/programs"
echo "building the validation programs of runtime-tools $version with $have" >&2
module=$(cd "$out" && "$go" mod download -json github.com/opencontainers/runtime-tools@$version | jq -r .Dir)
# The vendor folder in the proxy's archive is empty; -mod=mod lets Go fetch what go.mod names.
(cd "$module" && CGO_ENABLED=0 "$go" build -mod=mod -trimpath -ldflags='-s -w' -o "$out/programs/" ./validation/... &&
    CGO_ENABLED=0 "$go" build -mod=mod -trimpath -ldflags='-s -w' -o "$out/runtimetest" ./cmd/runtimetest)
install -m 644 "$module/rootfs-amd64.tar.gz" "$out/"
echo $version > "$out/version"
