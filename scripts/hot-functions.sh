#!/usr/bin/env bash
# hot-functions.sh BINARY: writes benches/hot-functions.txt, the functions that `run`, `create` and their like call, for scripts/link.sh.
# BINARY has its symbols: CARGO_PROFILE_RELEASE_STRIP=none scripts/release.sh. As root; a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-packages.sh gcc libc6-dev binutils busybox-static runc jq

work=$(mktemp -d)
oci=$work/corten-oci id=hot-$$
trap '"$oci" --root "$work/state" delete --force $id || true; rm -rf "$work"' EXIT
gcc -O2 -static -o "$work/step" benches/step.c
ln -s "$(realpath "$1")" "$oci"
mkdir -p "$work"/bundle/rootfs/{bin,proc,dev,sys}
cp /bin/busybox "$work/bundle/rootfs/bin/sleep"
cp /bin/busybox "$work/bundle/rootfs/bin/true"
runc spec --bundle "$work/bundle"
jq '.process.terminal = false | .process.args = ["sleep", "1000"]' "$work/bundle/config.json" > "$work/sleep.json"
jq '.process.args = ["true"]' "$work/sleep.json" > "$work/bundle/config.json"

# Where the program is linked: below are the headers, above the stack and what is mapped.
trace() { "$work/step" "$work/trace-$1" 0x200000 0x4000000 "$oci" --root "$work/state" "${@:2}" </dev/null >/dev/null; }
trace 1 run --bundle "$work/bundle" $id-run
# Once more with a seccomp profile that has been compiled before.
cp "$work/bundle/config.json" "$work/true.json"
jq '.linux.seccomp = {defaultAction: "SCMP_ACT_ALLOW", architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], syscalls: [
    {names: ["ptrace", "mount"], action: "SCMP_ACT_ERRNO", errnoRet: 1},
    {names: ["personality"], action: "SCMP_ACT_ERRNO", args: [{index: 0, value: 8, op: "SCMP_CMP_EQ"}]}]}' \
    "$work/true.json" > "$work/bundle/config.json"
"$oci" --root "$work/state" run --bundle "$work/bundle" $id-compile </dev/null
trace 6 run --bundle "$work/bundle" $id-filter
cp "$work/sleep.json" "$work/bundle/config.json"
"$oci" --root "$work/state" run --detach --bundle "$work/bundle" $id </dev/null >/dev/null 2>&1
trace 2 exec $id true
trace 3 state $id
trace 4 list
"$oci" --root "$work/state" kill $id KILL
for _ in $(seq 100); do
    "$oci" --root "$work/state" state $id | grep -q stopped && break
    sleep 0.05
done
trace 5 delete $id

# A block of 16 bytes may hold the end of one function and the begin of the next.
nm --defined-only --numeric-sort "$oci" | awk -v traces="$(echo "$work"/trace-*)" '
    function number(hex,   value, i) { for (i = 1; i <= length(hex); i++) value = value * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1; return value }
    function at(address,   low, high, middle) {
        low = 0; high = count
        while (low < high) { middle = int((low + high) / 2); if (start[middle] <= address) low = middle + 1; else high = middle }
        return low - 1
    }
    function tell(index_of) { if (index_of >= 0 && !told[name[index_of]]++) print name[index_of] }
    $2 ~ /[tTwW]/ && NF == 3 { start[count] = number($1); name[count++] = $3 }
    END {
        files = split(traces, file, " ")
        for (i = 1; i <= files; i++)
            while ((getline line < file[i]) > 0) { address = number(line); tell(at(address)); tell(at(address + 15)) }
    }' | sed -E 's/\.llvm\.[0-9]+$//; s/17h[0-9a-f]+E$//; s/Cs[0-9a-zA-Z]+_/C/g' | awk '!told[$0]++' > benches/hot-functions.txt
wc -l benches/hot-functions.txt
