#!/usr/bin/env bash
# cri-tools.sh: builds Kubernetes' crictl and critest into target/cri-tools/ from the Go module proxy, if they are not
# there. Needs Go 1.21 or newer (which fetches the release that the module asks for), in PATH, in /usr/local/go or as
# $GO; Debian 12's (1.19) is too old.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v1.36.0
out=$PWD/target/cri-tools
[ "$(cat "$out/version" 2>/dev/null)" != $version ] || exit 0

go=${GO:-$(command -v go || echo /usr/local/go/bin/go)}
have=$("$go" env GOVERSION 2>/dev/null || true)
if [ "$(printf '%s\n' go1.21 "${have:-go0}" | sort -V | head -1)" != go1.21 ]; then
    echo "cri-tools: Go 1.21 or newer is missing (found ${have:-none}); get it from https://go.dev/dl or set GO" >&2
    exit 1
fi
mkdir -p "$out"
echo "building crictl and critest $version with $have" >&2
module=$(cd "$out" && "$go" mod download -json sigs.k8s.io/cri-tools@$version | jq -r .Dir)
cd "$module"
# The module in the proxy has no vendor folder; -mod=mod lets Go fetch what its go.mod names.
CGO_ENABLED=0 "$go" build -mod=mod -trimpath -ldflags="-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$version" -o "$out/crictl" ./cmd/crictl
CGO_ENABLED=0 "$go" test -mod=mod -c -trimpath -ldflags='-s -w' -o "$out/critest" ./cmd/critest
echo $version > "$out/version"
