#!/usr/bin/env bash
# critest.sh [--peer] [--json FILE] [CRITEST FLAG...]: the conformance suite of Kubernetes' cri-tools against the node
# agent, with images from a registry on loopback; with --peer, against Debian's containerd. Prints how many specs passed,
# failed and were skipped, and the names of those that failed; exit 1 if fewer than 75 passed.
set -euo pipefail
cd "$(dirname "$0")/.."

server=scripts/agent.sh json=
while [ $# -gt 0 ]; do
    case $1 in
        --peer) server=scripts/containerd.sh; shift ;;
        --json) json=$2; shift 2 ;;
        *) break ;;
    esac
done
scripts/install-packages.sh busybox-static gcc libc6-dev nginx-light docker-registry python3 jq nftables iproute2
[ $server = scripts/agent.sh ] || scripts/install-packages.sh containerd runc containernetworking-plugins
scripts/cri-tools.sh

work=$(mktemp -d)
. scripts/servers.sh
begin registry scripts/registry.sh "$work/registry"
registry=$answer
rootfs/publish.py "$registry" > /dev/null
begin server $server "$work/server" "$registry"

segments() { tail -n +2 /proc/sysvipc/shm | awk '$4 == 1048576 && $7 == 0 {print $2}' | sort; }
segments > "$work/segments"
target/cri-tools/critest -runtime-endpoint "$answer" -config "$work/none.yaml" -ginkgo.no-color \
    -ginkgo.json-report "$work/report.json" "$@" > "$work/log" 2>&1 || true
# The suite leaves the segments of shared memory that it makes on the host.
segments | comm -13 "$work/segments" - | xargs -r -n 1 ipcrm -m
[ -s "$work/report.json" ] || { tail -50 "$work/log" >&2; exit 1; }
[ -z "$json" ] || cp "$work/report.json" "$json"
[ -z "${CRITEST_LOG:-}" ] || cp "$work/log" "$CRITEST_LOG"
python3 - "$work/report.json" <<'PYTHON'
import json
import sys

specs = [spec for suite in json.load(open(sys.argv[1])) for spec in suite["SpecReports"] if spec["LeafNodeType"] == "It"]
names = {"passed": [], "failed": [], "skipped": []}
for spec in specs:
    state = spec["State"] if spec["State"] in ("passed", "skipped") else "failed"
    state = "skipped" if spec["State"] == "pending" else state
    name = " ".join(filter(None, spec["ContainerHierarchyTexts"] or [])) + " " + spec["LeafNodeText"]
    names[state].append((name, spec.get("Failure", {}).get("Message", "").strip().split("\n")[0]))
for name, reason in sorted(names["failed"]):
    print(f"failed: {name}: {reason[:200]}")
print(", ".join(f"{len(found)} {state}" for state, found in names.items()))
sys.exit(len(names["passed"]) < 75)
PYTHON
