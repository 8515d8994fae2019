#!/usr/bin/env bash
# conformance.sh [PROGRAM...]: the validation programs of the OCI runtime-tools against corten and Debian's crun and runc
# in one run. Prints a table and a summary; exit 1 if corten fails a program that one of the others passes. The output
# of each run of a program stays in target/conformance/RUNTIME/PROGRAM.
#
# A program passes if it ends with 0 within a minute and has no "not ok" line; it is skipped if it tested nothing. Some
# of them race with the container (killsig, pidfile): where corten is behind, all three run again, one at a time.
# $CORTEN_BIN is the binary under test; the release build if it is not set.
set -uo pipefail
cd "$(dirname "$0")/.."

# one RUNTIME PROGRAM: runs one program with a directory of state and one of bundles of its own, and removes what it
# leaves behind.
one() {
    local runtime=$1 program=$2 place=$PWD/target/conformance/$1 command id code
    case $runtime in
        corten) command="$CORTEN_BIN oci" ;;
        *) command=$(command -v "$runtime") ;;
    esac
    local work
    work=$(mktemp -d "$PWD/target/conformance/work.XXXXXX")
    # The containers of user namespaces pass through here.
    chmod 755 "$work"
    mkdir "$work/bundles"
    printf '#!/bin/sh\nexec %s --root %s "$@"\n' "$command" "$work/state" > "$work/runtime"
    chmod 755 "$work/runtime"
    (
        cd target/runtime-tools || exit 1
        # shellcheck disable=SC2016
        RUNTIME=$work/runtime TMPDIR=$work/bundles timeout --kill-after=5 60 unshare --mount --propagation private sh -c '
            controllers=/sys/fs/cgroup/unified/cgroup.controllers
            # crun refuses a hybrid host while cgroup v2 lists a controller.
            if [ "$1" = crun ] && [ -e $controllers ]; then mount --bind /dev/null $controllers || exit; fi
            exec "$2"' sh "$runtime" "programs/$program" < /dev/null
    ) > "$place/$program" 2>&1
    code=$?
    for id in "$work"/state/*; do
        [ ! -d "$id" ] || "$work/runtime" delete --force "${id##*/}" > /dev/null 2>&1
    done
    rm -rf "$work"
    awk -v code=$code '
        /^not ok/ { failed = 1 }
        /^ok/ { if (tolower($0) ~ /# skip/) skipped = 1; else passed = 1 }
        END { print failed || code != 0 ? (code == 124 || code == 137 ? "late" : "fails") : skipped && !passed ? "skips" : "passes" }' \
        "$place/$program" > "$place/$program.result"
}

if [ "${1:-}" = --one ]; then
    shift
    for program in "${@:2}"; do one "$1" "$program"; done
    exit
fi

scripts/install-packages.sh crun runc util-linux jq tar || exit 1
scripts/runtime-tools.sh || exit 1
export CORTEN_BIN=${CORTEN_BIN:-$PWD/target/corten}
[ -x "$CORTEN_BIN" ] || { echo "conformance: $CORTEN_BIN is missing; build it with scripts/release.sh" >&2; exit 1; }

programs=("$@")
[ $# -gt 0 ] || mapfile -t programs < <(ls target/runtime-tools/programs)
runtimes=(corten crun runc)
rm -rf target/conformance
mkdir -p "${runtimes[@]/#/target/conformance/}"

# The programs about cgroups share names of cgroups, with those of other runs on this machine too: one at a time. The
# others mostly wait, so that more of them run than there are processors.
exec 9> /run/lock/corten-conformance
flock 9
mapfile -t shared < <(printf '%s\n' "${programs[@]}" | grep -E '^(linux_cgroups_|delete_)')
mapfile -t alone < <(printf '%s\n' "${programs[@]}" | grep -vE '^(linux_cgroups_|delete_)')
{
    for runtime in "${runtimes[@]}"; do
        for program in "${shared[@]}"; do scripts/conformance.sh --one "$runtime" "$program"; done
    done
} &
for program in "${alone[@]}"; do
    printf '%s\n' "${runtimes[@]/%/ $program}"
done | xargs -P 6 -L 1 scripts/conformance.sh --one
wait

# results PROGRAM: sets `result` to what became of it with each runtime.
declare -A result
results() {
    for runtime in "${runtimes[@]}"; do result[$runtime]=$(cat "target/conformance/$runtime/$1.result"); done
}
# behind: whether corten fails what another passes.
behind() { [ "${result[corten]}" != passes ] && [[ "${result[crun]} ${result[runc]}" = *passes* ]]; }

declare -A passed
failures=()
printf '%-32s %-8s %-8s %-8s\n' program "${runtimes[@]}"
for program in "${programs[@]}"; do
    results "$program"
    if behind; then
        for runtime in "${runtimes[@]}"; do scripts/conformance.sh --one "$runtime" "$program"; done
        results "$program"
    fi
    if behind; then failures+=("$program"); fi
    for runtime in "${runtimes[@]}"; do
        [ "${result[$runtime]}" != passes ] || passed[$runtime]=$((${passed[$runtime]:-0} + 1))
    done
    printf '%-32s %-8s %-8s %-8s\n' "$program" "${result[corten]}" "${result[crun]}" "${result[runc]}"
done
echo "of ${#programs[@]} programs pass: corten ${passed[corten]:-0}, crun ${passed[crun]:-0}, runc ${passed[runc]:-0}"
[ ${#failures[@]} -eq 0 ] || { echo "corten fails what another passes: ${failures[*]}"; exit 1; }
