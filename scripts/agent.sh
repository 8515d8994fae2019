#!/usr/bin/env bash
# agent.sh DIR REGISTRY: runs the node agent in the foreground with everything of it under DIR, a bridge and a subnet of
# its own, and the images of REGISTRY (host:port) as the mirror of Kubernetes' registries. Prints the URL of its CRI
# socket once it is ready. SIGTERM ends it, after its pods. Needs scripts/cri-tools.sh.
#
# CORTEN: the binary (else the release build); AGENT_SUBNET: its subnet; AGENT_CONFIG: a file of further tables;
# AGENT_CNI: a folder of CNI configurations for pods, with the plugins of Debian's package
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1 registry=$2
corten=${CORTEN:-$PWD/target/corten}
bridge=cda$$
cni=
[ -z "${AGENT_CNI:-}" ] || cni="cni_configuration = \"$AGENT_CNI\"
cni_plugins = [\"/usr/lib/cni\"]"
cat > "$dir/config.toml" <<TOML
[cri]
socket = "$dir/cri.sock"
[network]
bridge = "$bridge"
subnet = "${AGENT_SUBNET:-10.98.0.0/16}"
$cni
[registries.mirrors]
"registry.k8s.io" = "http://$registry"
"k8s.gcr.io" = "http://$registry"
"gcr.io" = "http://$registry"
TOML
printf 'runtime-endpoint: unix://%s/cri.sock\ntimeout: 30\n' "$dir" > "$dir/crictl.yaml"
[ -z "${AGENT_CONFIG:-}" ] || cat "$AGENT_CONFIG" >> "$dir/config.toml"

# Says "bound" and then "ready", when the agent has told it so.
exec 3< <(exec python3 -c '
import socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(sys.argv[1])
print("bound", flush=True)
while b"READY=1" not in notify.recv(4096).split(b"\n"):
    pass
print("ready", flush=True)' "$dir/notify")
listener=$!
read -r _ <&3
NOTIFY_SOCKET=$dir/notify "$corten" --root "$dir/root" --state "$dir/state" agent --config "$dir/config.toml" \
    > "$dir/log" 2>&1 3<&- &
agent=$!
end() {
    if kill -0 $agent 2>/dev/null; then
        local crictl=(target/cri-tools/crictl --config "$dir/crictl.yaml")
        "${crictl[@]}" pods -q 2>/dev/null | xargs -r "${crictl[@]}" rmp -f > /dev/null 2>&1 || true
        kill $agent
        wait $agent || true
    fi
    kill $listener 2>/dev/null || true
    ip link delete $bridge 2>/dev/null || true
    nft delete table inet corten_$bridge 2>/dev/null || true
}
trap end EXIT
trap 'exit 0' TERM INT
while kill -0 $agent 2>/dev/null; do
    if read -r -t 1 _ <&3; then
        echo "unix://$dir/cri.sock"
        exec 1>&-
        wait $agent
        exit
    fi
done
cat "$dir/log" >&2
exit 1
