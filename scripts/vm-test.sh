#!/usr/bin/env bash
# vm-test.sh: the privileged tests on cgroup v2, in a virtual machine with Debian's cloud kernel.
#
# The tests of the host run here too, the same executables; only those that need what the machine has not
# (podman, nft and iproute2, crictl) are left out by name. Prints "N passed, N failed"; exit 1 if a test failed, if a result is
# missing or if the machine did not come to its end.
set -euo pipefail
cd "$(dirname "$0")/.."

# Emulated, not virtualised: a hosting machine seldom gives KVM. All takes about ten times as long.
deadline=${CORTEN_VM_DEADLINE:-1200}
slow=10
host_only='^(oci_callers|podman|buildah|docker|containerd|registry_real|crictl|agent_.*|waves|ports|ecs|manifests|metadata|network|streaming|net_devices)$'
out=target/vm
root=$out/root
console=$out/console.log

scripts/install-packages.sh qemu-system-x86 busybox-static cpio jq binutils
corten=${CORTEN_BIN:-target/$(rustc -vV | sed -n 's/^host: //p')/release/corten}
for need in "$corten" /bin/busybox; do
    [ -e "$need" ] || { echo "vm-test: missing $need" >&2; exit 1; }
done

# Debian's kernel, unpacked and not installed.
kernel_package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
mkdir -p $out
if [ ! -e "$out/$kernel_package/boot" ]; then
    rm -rf "$out/$kernel_package" "$out"/linux-image-*.deb
    (cd $out && apt-get download -qq "$kernel_package" 2>/dev/null) || { apt-get update -qq; (cd $out && apt-get download -qq "$kernel_package"); }
    dpkg-deb -x "$out/$kernel_package"_*.deb "$out/$kernel_package.tmp"
    mv "$out/$kernel_package.tmp" "$out/$kernel_package"
    rm -f "$out"/linux-image-*.deb
fi
kernel=$(echo "$out/$kernel_package"/boot/vmlinuz-*)
modules=$(echo "$out/$kernel_package"/lib/modules/*/kernel)

# The machine's root: busybox, the binary, the probe, the tests and what they read.
rm -rf $root
mkdir -p $root/{bin,sbin,etc,proc,sys,dev,tmp,run,root,tests,modules,usr/bin,var/lib,new}
cp /bin/busybox $root/bin/busybox
cp "$corten" $root/usr/bin/corten
cp scripts/vm/init $root/init
cp scripts/vm/run-tests $root/sbin/run-tests
printf 'root:x:0:0:root:/root:/bin/sh\n' > $root/etc/passwd
printf 'root:x:0:\n' > $root/etc/group
printf '127.0.0.1 localhost\n' > $root/etc/hosts
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
(cd $root && find . -print0 | cpio -0 -o -H newc --quiet) > $out/initramfs

echo "vm-test: ${#expected[@]} test programs under $kernel_package" >&2
status=0
timeout --foreground "$deadline" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 2048 -smp 2 -nographic -no-reboot \
    -kernel "$kernel" -initrd $out/initramfs -append 'console=ttyS0 quiet panic=-1' </dev/null >$console 2>&1 || status=$?

passed=0 failed=0
complain() { echo "vm-test: $*" >&2; failed=$((failed + 1)); }
[ $status -eq 0 ] || complain "the machine ended with code $status (124: not within $deadline s)"
grep -aq 'VM-CGROUP2 .*cpu .*memory .*pids' $console || complain "the machine has no cgroup v2 controllers"
grep -aq '^VM-END' $console || complain "the machine did not come to its end"
for name in "${expected[@]}"; do
    read -r _ _ of_passed of_failed code < <(tr -d '\r' < $console | grep -a "^VM-RESULT $name " || true) || true
    if [ -z "${code:-}" ]; then
        complain "no result of $name"
        continue
    fi
    passed=$((passed + of_passed)) failed=$((failed + of_failed))
    [ "$code" -eq 0 ] || [ "$of_failed" -gt 0 ] || complain "$name ended with code $code"
    unset code
done
[ $failed -eq 0 ] || { tr -d '\r' < $console | tail -n 400 >&2; }
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
