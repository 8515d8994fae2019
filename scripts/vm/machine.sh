# machine.sh: what the scripts that test in a virtual machine share; to be sourced, from the repository's root.
#
#   fetch_kernel                  Debian's cloud kernel, unpacked and not installed: sets kernel and modules
#   base_root DIR BINARY          busybox, the binary and the tables of users
#   pack DIR                      makes DIR the initramfs $out/initramfs
#   boot CONSOLE APPEND           runs it; CONSOLE gets what it prints
#   tally CONSOLE NAME...         counts the results of the programs named; prints "N passed, N failed"

complain() { echo "${0##*/}: $*" >&2; failed=$((failed + 1)); }

fetch_kernel() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    mkdir -p "$out"
    if [ ! -e "$out/$package/boot" ]; then
        rm -rf "${out:?}/$package" "$out"/linux-image-*.deb
        (cd "$out" && apt-get download -qq "$package" 2>/dev/null) || { apt-get update -qq; (cd "$out" && apt-get download -qq "$package"); }
        dpkg-deb -x "$out/$package"_*.deb "$out/$package.tmp"
        mv "$out/$package.tmp" "$out/$package"
        rm -f "$out"/linux-image-*.deb
    fi
    kernel=$(echo "$out/$package"/boot/vmlinuz-*)
    modules=$(echo "$out/$package"/lib/modules/*/kernel)
}

base_root() {
    rm -rf "$1"
    mkdir -p "$1"/{bin,sbin,etc,proc,sys,dev,tmp,run,root,tests,modules,usr/bin,var/lib,new}
    cp /bin/busybox "$1/bin/busybox"
    cp "$2" "$1/usr/bin/corten"
    cp scripts/vm/init "$1/init"
    printf 'root:x:0:0:root:/root:/bin/sh\n' > "$1/etc/passwd"
    printf 'root:x:0:\n' > "$1/etc/group"
    printf '127.0.0.1 localhost\n' > "$1/etc/hosts"
}

pack() { (cd "$1" && find . -print0 | cpio -0 -o -H newc --quiet) > "$out/initramfs"; }

boot() {
    local status=0
    # Emulated, not virtualised: a hosting machine seldom gives KVM.
    timeout --foreground "$deadline" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 2048 -smp 2 -nographic -no-reboot \
        -kernel "$kernel" -initrd "$out/initramfs" -append "console=ttyS0 quiet panic=-1 $2" </dev/null >"$1" 2>&1 || status=$?
    [ $status -eq 0 ] || complain "the machine ended with code $status (124: not within $deadline s)"
    grep -aq '^VM-END' "$1" || complain "the machine did not come to its end"
}

tally() {
    local console=$1 name of_passed of_failed code
    shift
    for name in "$@"; do
        code=
        read -r _ _ of_passed of_failed code < <(tr -d '\r' < "$console" | grep -a "^VM-RESULT $name " || true) || true
        if [ -z "${code:-}" ]; then
            complain "no result of $name"
            continue
        fi
        passed=$((passed + of_passed)) failed=$((failed + of_failed))
        [ "$code" -eq 0 ] || [ "$of_failed" -gt 0 ] || complain "$name ended with code $code"
    done
    [ $failed -eq 0 ] || { tr -d '\r' < "$console" | tail -n 400 >&2; }
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ]
}
