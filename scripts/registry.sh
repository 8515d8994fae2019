#!/usr/bin/env bash
# registry.sh DIR: runs Debian's docker-registry on a free loopback port with its data in DIR, in the foreground.
# Prints its address once it listens; end it with SIGTERM.
set -euo pipefail
dir=$1
mkdir -p "$dir/data"
printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:0\n' "$dir/data" > "$dir/config.yml"
exec 3< <(exec docker-registry serve "$dir/config.yml" 2>&1)
registry=$!
trap 'kill $registry 2>/dev/null || true' EXIT
trap 'exit 0' TERM INT
# It logs the port that the kernel chose for it.
while read -r line <&3; do
    echo "$line" >> "$dir/log"
    [[ $line =~ listening\ on\ (127\.0\.0\.1:[0-9]+) ]] && break
done
[ -n "${BASH_REMATCH[1]:-}" ] || { cat "$dir/log" >&2; exit 1; }
echo "${BASH_REMATCH[1]}"
exec 1>&-
cat <&3 >> "$dir/log" &
wait $!
