#!/usr/bin/env bash
# fuzz.sh [SECONDS [TARGET...]]: runs each fuzz target for that long (20 s) from its corpus in fuzz/corpus.
# What is found anew stays under target/fuzz; an input that fails is kept there too, and its path is printed.
# Prints "N passed, N failed"; exit 1 if a target failed.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(config state protocol seccomp mountinfo users manifest reference challenge whiteouts tar tree)
scripts/install-packages.sh g++ libc6-dev libseccomp-dev autoconf automake libtool make nasm

# As cargo-fuzz does, but on the stable compiler and without a sanitizer: the only unsafe code is in src/sys. Only our
# own crates are watched, so that what they depend on is built once, for this and for all else.
out=$PWD/target/fuzz
mkdir -p "$out"
cat > "$out/watched-rustc" <<'WRAPPER'
#!/bin/sh
case "$*" in *build_script_build*) exec "$@" ;; esac
# libFuzzer finds the functions that it stands in for by dlsym(3): not in a static program.
for word do
    shift
    [ "$word" != target-feature=+crt-static ] || word=target-feature=-crt-static
    set -- "$@" "$word"
done
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
WRAPPER
chmod +x "$out/watched-rustc"
RUSTC_WORKSPACE_WRAPPER=$out/watched-rustc cargo build --quiet --package corten-fuzz
bin=target/$(rustc -vV | sed -n 's/^host: //p')/debug

passed=0 failed=0
for target in "${targets[@]}"; do
    mkdir -p "$out/found/$target" "$out/artifacts"
    # 2 s for one input is a hang: all of them are bounded in size.
    if "$bin/$target" -max_total_time="$seconds" -timeout=2 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$out/artifacts/$target-" "$out/found/$target" "fuzz/corpus/$target" > "$out/$target.log" 2>&1; then
        passed=$((passed + 1))
        echo "$target: $(awk '/stat::number_of_executed_units/ { print $2 }' "$out/$target.log") inputs" >&2
    else
        failed=$((failed + 1))
        echo "$target: failed" >&2
        tail -n 30 "$out/$target.log" >&2
    fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
