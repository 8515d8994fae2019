#!/usr/bin/env bash
# kill-campaign.sh [--vm] [--chunk I/N] [NAME]: kills, and errnos, at every system call of the OCI runtime's commands.
#
# On this machine, or with --vm in the virtual machine (cgroup v2, about ten times slower: take it in chunks). All of
# it takes hours: --chunk I/N tries every N-th point from the I-th (0..N) on; NAME is a part of a test's name. The
# binary is CORTEN_BIN, else the release build. Prints one line for each sweep; exit 1 if anything was left, hung or
# went unsaid.
set -euo pipefail
cd "$(dirname "$0")/.."

vm=0 filter=()
while [ $# -gt 0 ]; do
    case $1 in
        --vm) vm=1 ;;
        --chunk) shift; export CORTEN_TEST_KILL_CHUNK=$1 ;;
        -*) echo "kill-campaign: unknown option $1" >&2; exit 2 ;;
        *) filter=("$1") ;;
    esac
    shift
done
export CORTEN_TEST_KILL_POINTS=${CORTEN_TEST_KILL_POINTS:-all} RUST_BACKTRACE=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
if [ $vm -eq 1 ]; then
    export CORTEN_VM_DEADLINE=${CORTEN_VM_DEADLINE:-86400} CORTEN_TEST_DEADLINE=${CORTEN_TEST_DEADLINE:-43200}
    for program in kill_points errno_points; do
        CORTEN_VM_ONLY=$program CORTEN_VM_TESTS="--nocapture ${filter[*]:-}" scripts/vm-test.sh || status=1
        tr -d '\r' < target/vm/console.log | tee -a "$log" | grep -a '^.*campaign (\|) point ' || true
    done
else
    for program in kill_points errno_points; do
        cargo test -q -p runtime-tests --test $program -- --nocapture "${filter[@]}" 2>&1 | tee -a "$log" |
            grep -a 'campaign (\|) point ' || [ "${PIPESTATUS[0]}" -eq 0 ] || status=1
    done
fi
sed -n 's/.*campaign (.*: \([0-9]*\) of [0-9]* points, \([0-9]*\) failures.*/\1 \2/p' "$log" |
    awk '{ points += $1; failures += $2 } END { print points + 0 " points, " failures + 0 " failures" }'
exit $status
