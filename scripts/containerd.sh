#!/usr/bin/env bash
# containerd.sh DIR REGISTRY: runs Debian's containerd with its CRI plugin, runc and the CNI plugins in the foreground,
# with everything of it under DIR and the images of REGISTRY (host:port) as the mirror of Kubernetes' registries.
# With RUNTIME=FILE that program takes the place of runc (the CRI plugin's BinaryName).
# Prints the URL of its socket once it serves; end it with SIGTERM, after its pods.
set -euo pipefail
dir=$1 registry=$2
mkdir -p "$dir/cni" "$dir/root" "$dir/state"

# The name of a link is at most 15 characters long; the subnet is this script's own.
bridge=cdb$$
cat > "$dir/cni/10-bridge.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "peer$$", "plugins": [
  {"type": "bridge", "bridge": "$bridge", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$dir/ipam", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "${PEER_SUBNET:-10.97.0.0/16}"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON

mirrors=
for host in registry.k8s.io k8s.gcr.io gcr.io; do
    mirrors+="[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"$host\"]
endpoint = [\"http://$registry\"]
"
done
cat > "$dir/config.toml" <<TOML
version = 2
root = "$dir/root"
state = "$dir/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "$dir/containerd.sock"
[ttrpc]
address = "$dir/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.9"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "${RUNTIME:-}"
$mirrors
TOML
exec 3< <(exec containerd --config "$dir/config.toml" 2>&1)
containerd=$!
trap 'kill $containerd 2>/dev/null || true; ip link delete $bridge 2>/dev/null || true' EXIT
trap 'exit 0' TERM INT
booted=
while read -r line <&3; do
    echo "$line" >> "$dir/log"
    [[ $line == *"containerd successfully booted"* ]] && booted=yes && break
done
[ -n "$booted" ] || { cat "$dir/log" >&2; exit 1; }
echo "$containerd" > "$dir/pid"
echo "unix://$dir/containerd.sock"
exec 1>&-
cat <&3 >> "$dir/log" &
wait $containerd
