#!/usr/bin/env bash
# vm-test.sh: the privileged tests on cgroup v2, in a virtual machine with Debian's cloud kernel.
#
# The tests of the host run here too, the same executables; only those that need what the machine has not
# (podman, nft and iproute2, crictl) are left out by name. Prints "N passed, N failed"; exit 1 if a test failed, if a result is
# missing or if the machine did not come to its end.
set -euo pipefail
cd "$(dirname "$0")/.."

# Emulated (scripts/vm/machine.sh): all takes about ten times as long.
deadline=${CORTEN_VM_DEADLINE:-1200}
slow=10
host_only='^(hostile|registry_hostile|oci_callers|podman|buildah|docker|containerd|registry_real|round_trips|crictl|agent_.*|waves|ports|ecs|manifests|metadata|network|streaming|net_devices|store)$'
out=target/vm
root=$out/root
console=$out/console.log

scripts/install-packages.sh qemu-system-x86 busybox-static cpio jq binutils
corten=${CORTEN_BIN:-target/corten}
for need in "$corten" /bin/busybox; do
    [ -e "$need" ] || { echo "vm-test: missing $need" >&2; exit 1; }
done

. scripts/vm/machine.sh
fetch_kernel

# The machine's root: busybox, the binary, the probe, the tests and what they read.
base_root $root "$corten"
cp scripts/vm/run-tests $root/sbin/run-tests
cp "$modules/fs/overlayfs/overlay.ko" "$modules/drivers/block/loop.ko" $root/modules/
cargo test -q -p runtime-tests --no-run --message-format=json 2>/dev/null |
    jq -r 'select(.executable and (.target.kind[0] == "test" or .target.name == "probe") ) | "\(.target.name) \(.executable)"' |
    sort -u > $out/executables
expected=()
while read -r name executable; do
    if [ "$name" = probe ]; then
        cp "$executable" $root/usr/bin/probe
    elif ! [[ $name =~ $host_only ]]; then
        strip -o "$root/tests/$name" "$executable"
        expected+=("$name")
    fi
done < $out/executables
[ ${#expected[@]} -gt 0 ] && [ -e $root/usr/bin/probe ] || { echo "vm-test: no test executables" >&2; exit 1; }
printf 'export CORTEN_TEST_SLOW=%s\n' $slow > $root/etc/test-environment
# scripts/kill-campaign.sh asks for more points, and gives them their time.
for name in CORTEN_TEST_KILL_POINTS CORTEN_TEST_KILL_CHUNK CORTEN_TEST_DEADLINE CORTEN_VM_TESTS; do
    [ -z "${!name:-}" ] || printf 'export %s="%s"\n' "$name" "${!name}" >> $root/etc/test-environment
done
# One test program alone, to look into it.
if [ -n "${CORTEN_VM_ONLY:-}" ]; then
    expected=("$CORTEN_VM_ONLY")
    find $root/tests -type f ! -name "$CORTEN_VM_ONLY" -delete
fi
# Another runtime can take the place of ours, to prove the tests themselves on v2.
if [ -n "${CORTEN_OCI:-}" ]; then
    for file in "$CORTEN_OCI" $(ldd "$CORTEN_OCI" | grep -o '/[^ ]*'); do cp --parents -L "$file" $root; done
    printf 'export CORTEN_OCI=%s\n' "$CORTEN_OCI" >> $root/etc/test-environment
fi
pack $root

echo "vm-test: ${#expected[@]} test programs under ${kernel##*/}" >&2
passed=0 failed=0
boot $console ''
grep -aq 'VM-CGROUP2 .*cpu .*memory .*pids' $console || complain "the machine has no cgroup v2 controllers"
tally $console "${expected[@]}"
