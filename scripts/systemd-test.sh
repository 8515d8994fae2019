#!/usr/bin/env bash
# systemd-test.sh: the tests of the systemd cgroup driver, in virtual machines booted with Debian's systemd.
#
# The machine's root is busybox, systemd, dbus and their libraries, as the packages have installed them here, with
# the few units that the tests need. One machine has cgroup v2, another v1 (CORTEN_VM_ONLY=v2 or v1: that alone).
# Prints "N passed, N failed" for each; exit 1 if a test failed or a machine did not come to its end.
set -euo pipefail
cd "$(dirname "$0")/.."

deadline=${CORTEN_VM_DEADLINE:-300}
out=target/vm-systemd
root=$out/root

scripts/install-packages.sh qemu-system-x86 busybox-static cpio jq binutils systemd dbus
corten=${CORTEN_BIN:-target/corten}
for need in "$corten" /bin/busybox /lib/systemd/systemd; do
    [ -e "$need" ] || { echo "systemd-test: missing $need" >&2; exit 1; }
done

. scripts/vm/machine.sh
fetch_kernel
base_root $root "$corten"
cp scripts/vm/run-tests $root/sbin/run-tests

# systemd and what it is linked with. /lib is a part of /usr, as Debian has it.
mkdir -p $root/usr/lib64 $root/usr/lib/systemd/{system,user} $root/etc/systemd/system $root/usr/share/dbus-1
ln -s usr/lib usr/lib64 $root/
programs=(/lib/systemd/systemd /lib/systemd/systemd-cgroups-agent /bin/systemctl /usr/bin/busctl /usr/bin/dbus-daemon)
for file in "${programs[@]}" $(ldd "${programs[@]}" | grep -o '/[^ :]*' | grep '\.so' | sort -u); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
done
cp -r /usr/share/dbus-1/{system.conf,system.d} $root/usr/share/dbus-1/
for unit in basic final shutdown sockets sysinit umount; do
    cp /lib/systemd/system/$unit.target $root/usr/lib/systemd/system/
done
cp /lib/systemd/system/dbus.{service,socket} $root/usr/lib/systemd/system/
cp /usr/lib/systemd/user/{basic,default,shutdown,sockets,timers,paths}.target $root/usr/lib/systemd/user/
cp -r scripts/vm/systemd/. $root/etc/systemd/system/
echo 'messagebus:x:100:100::/nonexistent:/bin/false' >> $root/etc/passwd
echo 'user:x:1000:1000::/tmp:/bin/sh' >> $root/etc/passwd
printf 'messagebus:x:100:\nuser:x:1000:\n' >> $root/etc/group
echo 5d5f0c1e8f0b4a7e9d3c2b1a0f9e8d7c > $root/etc/machine-id

# The test program is built for these machines alone: see its features in runtime-tests/Cargo.toml.
cargo test -q -p runtime-tests --features systemd-host --test systemd --no-run --message-format=json |
    jq -r 'select(.executable and .target.name == "systemd") | .executable' > $out/executable
cargo build -q -p runtime-tests --bin probe --message-format=json |
    jq -r 'select(.executable and .target.name == "probe") | .executable' > $out/probe
[ -s $out/executable ] && [ -s $out/probe ] || { echo "systemd-test: the tests do not build" >&2; exit 1; }
strip -o $root/tests/systemd "$(cat $out/executable)"
cp "$(cat $out/probe)" $root/usr/bin/probe
echo 'export CORTEN_TEST_SLOW=10' > $root/etc/test-environment
[ -z "${CORTEN_VM_TESTS:-}" ] || echo "export CORTEN_VM_TESTS='$CORTEN_VM_TESTS'" >> $root/etc/test-environment
pack $root

bad=0
machine() {
    echo "systemd-test: cgroup $1 under ${kernel##*/}" >&2
    passed=0 failed=0
    boot "$out/$1.log" "systemd.show_status=0 systemd.log_target=kmsg $2"
    grep -aq '^VM-SYSTEMD' "$out/$1.log" || complain "the machine with cgroup $1 has no systemd"
    tally "$out/$1.log" systemd || bad=1
}
case ${CORTEN_VM_ONLY:-all} in all | v2) machine v2 systemd.unified_cgroup_hierarchy=1 ;; esac
case ${CORTEN_VM_ONLY:-all} in all | v1) machine v1 systemd.unified_cgroup_hierarchy=0 ;; esac
exit $bad
