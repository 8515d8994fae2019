#!/usr/bin/env bash
# kill-campaign.sh [--v2|--vm] [--store] [--chunk I/N] [--log FILE] [NAME…]: kills, and errnos, at every system call of the
# OCI runtime's commands; with --store kills and losses of power at every one of pull, load, commit and rmi.
#
# On this machine with the cgroups that it has; with --v2 in a mount namespace where cgroup v2 alone is mounted (the
# controllers that v1 has taken are not there); with --vm in the virtual machine (v2 with controllers, Debian's kernel,
# a hundred times slower: take it in chunks, and name one test). --chunk I/N tries every N-th point from the I-th
# (0..N) on; NAMEs are parts of tests' names; --log adds to a file. The binary is CORTEN_BIN, else the release build.
#
# Prints what went wrong, and in the end one line for each command with how many points were tried (all that the log
# has, so that the last chunk tells of all); exit 1 if anything was left, hung or went unsaid.
set -euo pipefail
cd "$(dirname "$0")/.."

where=host log='' names=() programs=(kill_points errno_points)
while [ $# -gt 0 ]; do
    case $1 in
        --v2 | --vm) where=${1#--} ;;
        --store) programs=(store) ;;
        --chunk) shift; export CORTEN_TEST_KILL_CHUNK=$1 ;;
        --log) shift; log=$1 ;;
        -*) echo "kill-campaign: unknown option $1" >&2; exit 2 ;;
        *) names+=("$1") ;;
    esac
    shift
done
if [ $where = vm ] && [ "${programs[0]}" = store ]; then
    echo "kill-campaign: --store needs the loop devices of this machine" >&2
    exit 2
fi
export CORTEN_TEST_KILL_POINTS=${CORTEN_TEST_KILL_POINTS:-all} RUST_BACKTRACE=0
if [ -z "$log" ]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
fi

# alone PROGRAM: in a PID namespace, where a look at all processes is a look at few.
alone() {
    # shellcheck disable=SC2016 # for the inner shell, which is init there and reaps.
    (cd runtime-tests && unshare --mount --pid --fork --kill-child --mount-proc bash -c '
        set -e
        if [ "$0" = v2 ]; then
            umount -R -l /sys/fs/cgroup
            mount -t cgroup2 cgroup2 /sys/fs/cgroup
        fi
        status=0
        "$@" || status=$?
        exit $status' "$where" "$1" --nocapture "${names[@]}")
}

status=0
for program in "${programs[@]}"; do
    if [ $where = vm ]; then
        CORTEN_VM_DEADLINE=${CORTEN_VM_DEADLINE:-86400} CORTEN_TEST_DEADLINE=${CORTEN_TEST_DEADLINE:-43200} \
            CORTEN_VM_ONLY=$program CORTEN_VM_TESTS="--nocapture ${names[*]:-}" scripts/vm-test.sh || status=1
        tr -d '\r' < target/vm/console.log
    else
        # Optimised, the driver takes half the time.
        executable=$(cargo test -q -p runtime-tests --config profile.dev.package.runtime-tests.opt-level=2 \
            --test "$program" --no-run --message-format=json |
            jq -r 'select(.executable and .target.kind[0] == "test") | .executable')
        alone "$executable" 2>&1 || status=1
    fi | tee -a "$log" | grep -aE '(kill|errno|power loss) [a-z]+.* point [0-9]' || true
    [ "${PIPESTATUS[0]}" -eq 0 ] || status=1
done
# `kill create plain tree: 60 of 1344 points, 0 failures`
sed -n 's/.*campaign \(.*\): \([0-9]*\) of \([0-9]*\) points, \([0-9]*\) failures.*/\1,\2,\3,\4/p' "$log" |
    awk -F, '{ tried[$1] += $2; failures[$1] += $4; if ($3 > all[$1]) all[$1] = $3; points += $2; failed += $4 }
        END {
            for (name in tried) printf "%s: %d of %d points, %d failures\n", name, tried[name], all[name], failures[name] | "sort"
            close("sort")
            print points + 0 " points, " failed + 0 " failures"
        }'
exit $status
