#!/usr/bin/env bash
# crun-tests.sh [FILE...]: the tests in Python of Debian's crun against corten, and against that crun itself as the
# reference. FILE is a name such as test_mounts. Prints each test that one of them fails and how many passed and were
# skipped; exit 1 if corten fails a test that crun passes, unless it is in the list below. The output of each
# stays in target/crun-tests/RUNTIME/FILE:TEST.
#
# $CORTEN_BIN is the binary under test; the release build if it is not set.
set -uo pipefail
cd "$(dirname "$0")/.."

# What corten does differently on purpose; docs/conformance.md has the reasons.
differs=(
    test_delete:test_simple_delete
    test_devices:owner-device
    test_exec:exec_add_no_new_privileges
    test_preserve_fds:preserve-fds-some
    test_seccomp:seccomp-listener
    test_start:start
    test_start:listen_pid_env
    test_start:sd-notify-env
    test_start:sd-notify-file
    test_tty:test-detach-tty
)

# one RUNTIME FILE TEST: runs one test, which makes a directory of state itself.
one() {
    local runtime=$1 file=$2 test=$3 place=$PWD/target/crun-tests command
    case $runtime in
        corten) command=$place/corten-oci ;;
        *) command=$(command -v crun) ;;
    esac
    (
        cd "$place/crun" || exit 1
        # shellcheck disable=SC2016
        RUN_TESTS=$test OCI_RUNTIME=$command INIT=$place/crun/tests/init timeout --kill-after=5 30 unshare --mount --propagation private sh -c '
            controllers=/sys/fs/cgroup/unified/cgroup.controllers
            # crun refuses a hybrid host while cgroup v2 lists a controller.
            if [ "$1" = crun-itself ] && [ -e $controllers ]; then mount --bind /dev/null $controllers || exit; fi
            # Skipped where the standard streams are no terminal.
            [ "$2" != test_tty ] || exec script -qec "python3 tests/$2.py" /dev/null
            exec python3 "tests/$2.py"' sh "$runtime" "$file" < /dev/null
    ) > "$place/$runtime/$file:$test" 2>&1 || echo "not ok 1 - $test" >> "$place/$runtime/$file:$test"
}

if [ "${1:-}" = --one ]; then
    one crun-itself "$2" "$3"
    one corten "$2" "$3"
    exit
fi

scripts/install-packages.sh gcc libc6-dev libseccomp-dev autoconf automake libtool make nasm crun dpkg-dev python3 util-linux bsdutils || exit 1
export CORTEN_BIN=${CORTEN_BIN:-$PWD/target/corten}
[ -x "$CORTEN_BIN" ] || { echo "crun-tests: $CORTEN_BIN is missing; build it with scripts/release.sh" >&2; exit 1; }
place=$PWD/target/crun-tests
mkdir -p "$place"

# The source of the package that is installed, by a list of sources and a cache of our own.
version=$(dpkg-query -W -f='${source:Version}' crun)
if [ "$(cat "$place/version" 2>/dev/null)" != "$version" ]; then
    rm -rf "$place"
    mkdir -p "$place"/{apt/lists/partial,apt/cache/archives/partial,download}
    . /etc/os-release
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $VERSION_CODENAME main" \
        > "$place/apt/sources.list"
    options=(-qq -o "Dir::Etc::SourceList=$place/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$place/apt/lists" -o "Dir::Cache=$place/apt/cache" -o APT::Sandbox::User=root)
    echo "getting the source of crun $version" >&2
    apt-get "${options[@]}" update && (cd "$place/download" &&
        apt-get "${options[@]}" source --download-only "crun=$version" > /dev/null &&
        dpkg-source --no-check -x ./*.dsc "$place/crun" > /dev/null) || exit 1
    # What its configure script writes is not needed for this program.
    : > "$place/download/config.h"
    gcc -static -O1 -w -I "$place/download" -o "$place/crun/tests/init" "$place/crun/tests/init.c" || exit 1
    echo "$version" > "$place/version"
fi
# Tests look into the version for what is built into crun; what corten has of it is named so.
cat > "$place/corten-oci" <<WRAPPER
#!/bin/sh
case " \$* " in *" --version "*) echo "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF"; exit ;; esac
exec $CORTEN_BIN oci "\$@"
WRAPPER
chmod 755 "$place/corten-oci"

# Each test by the name of its file and its own.
files=("$@")
[ $# -gt 0 ] || mapfile -t files < <(cd "$place/crun/tests" && ls test_*.py | sed 's/\.py$//')
list() {
    for file in "${files[@]}"; do
        sed -nE "s/^ +\"([^\"]+)\" *: *test_\w+,?\$/$file \1/p" "$place/crun/tests/$file.py"
    done
}
rm -rf "$place/corten" "$place/crun-itself"
mkdir "$place/corten" "$place/crun-itself"
# The two runtimes one after another, because some tests make a cgroup of a fixed name; the tests mostly wait.
list | xargs -P 4 -L 1 scripts/crun-tests.sh --one

# test_simple_delete leaves a process that is frozen in a cgroup of its own making.
frozen=/sys/fs/cgroup/freezer/frozen
if [ -d $frozen ]; then
    xargs -r kill -KILL < $frozen/tasks
    echo THAWED > $frozen/freezer.state
    timeout 10 sh -c "until rmdir $frozen; do sleep 0.1; done" 2>/dev/null
fi

verdict() {
    python3 - "$place" "${differs[@]}" <<'PYTHON'
import pathlib
import re
import sys

place, differs = pathlib.Path(sys.argv[1]), set(sys.argv[2:])
results = {}
for runtime in ("corten", "crun-itself"):
    for file in sorted((place / runtime).iterdir()):
        for word, skip in re.findall(r"^(ok|not ok) \d+ - .*?( #SKIP)?\r?$", file.read_text(errors="replace"), re.M):
            result = "fails" if word == "not ok" else "skips" if skip else "passes"
            results.setdefault(file.name, {})[runtime] = result
behind = []
for test, result in results.items():
    ours, theirs = result.get("corten", "fails"), result.get("crun-itself", "fails")
    if "fails" in (ours, theirs) or ours != theirs:
        print(f"{test}: corten {ours}, crun {theirs}" + (" (differs on purpose)" if test in differs else ""))
    if ours != "passes" and theirs == "passes" and test not in differs:
        behind.append(test)
for runtime in ("corten", "crun-itself"):
    found = [result.get(runtime, "fails") for result in results.values()]
    print(f"{runtime}: " + ", ".join(f"{found.count(kind)} {kind}" for kind in ("passes", "fails", "skips")))
print("behind: " + (", ".join(behind) or "none"))
sys.exit(bool(behind))
PYTHON
}

# Some tests race with the container: what corten is behind in is run once more, alone.
first=$(verdict) && { echo "$first"; exit; }
sed -n 's/^behind: //p' <<< "$first" | tr -d , | tr ' :' '\n ' | xargs -L 1 scripts/crun-tests.sh --one
verdict
