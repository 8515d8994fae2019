#!/usr/bin/env bash
# bench-agent.sh: speed and size of the node agent beside Debian's containerd with its CRI plugin, runc and the same
# bridge from CNI's plugins, in one run; and the ECS door by itself. Prints a table; exit 1 if a limit does not hold.
# Needs a quiet machine, root and Go. ROUNDS and PODS change how much is measured, CORTEN which binary.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-packages.sh busybox-static gcc libc6-dev nginx-light docker-registry python3 jq nftables iproute2 iptables \
    containerd runc containernetworking-plugins
scripts/cri-tools.sh
[ -n "${CORTEN:-}" ] || scripts/release.sh
go=${GO:-$(command -v go || echo /usr/local/go/bin/go)}
(cd benches/agent && "$go" build -o ../../target/bench-agent .)

work=$(mktemp -d)
. scripts/servers.sh
begin registry scripts/registry.sh "$work/registry"
registry=$answer
rootfs/publish.py "$registry" > /dev/null
for server in peer own agent; do tmpfs "$work/$server/state"; done
begin peer scripts/containerd.sh "$work/peer" "$registry"
peer=$answer

# An agent that runs the same plugins as containerd, with the same configuration, and one with its own bridge.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '[ecs]\nenabled = true\nlisten = "127.0.0.1:%s"\n' "$port" > "$work/ecs.toml"
AGENT_SUBNET=10.95.0.0/16 begin own scripts/agent.sh "$work/own" "$registry"
own=$answer
AGENT_SUBNET=10.96.0.0/16 AGENT_CNI=$work/peer/cni AGENT_CONFIG=$work/ecs.toml \
    begin agent scripts/agent.sh "$work/agent" "$registry"

keys=$work/agent/root/agent/ecs-credentials
AWS_ACCESS_KEY_ID=$(sed -n 's/^ *aws_access_key_id *= *//p' "$keys")
AWS_SECRET_ACCESS_KEY=$(sed -n 's/^ *aws_secret_access_key *= *//p' "$keys")
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
target/bench-agent -agent "$answer" -agent-dir "$work/agent/" -peer "$peer" -peer-dir "$work/peer/" \
    -own-bridge "$own" \
    -ecs "http://127.0.0.1:$port" -rounds "${ROUNDS:-50}" -pods "${PODS:-50}"
