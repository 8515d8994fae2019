# servers.sh, to be sourced: servers that a script begins and that end with it, in the directory $work, which goes too.

started=() mounted=()
# tmpfs DIR: makes a directory on a tmpfs, as /run is on most hosts.
tmpfs() {
    mkdir -p "$1"
    mount -t tmpfs -o mode=700 tmpfs "$1"
    mounted+=("$1")
}
# begin NAME COMMAND...: starts a server and puts the first line that it prints into $answer.
begin() {
    mkdir -p "$work/$1"
    mkfifo "$work/$1.out"
    "${@:2}" > "$work/$1.out" 2> "$work/$1.err" &
    started+=($!)
    read -r answer < "$work/$1.out" || { cat "$work/$1.err" >&2; exit 1; }
}
end_all() {
    local i
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        kill "${started[i]}" 2>/dev/null || true
        wait "${started[i]}" 2>/dev/null || true
    done
    for i in "${mounted[@]}"; do umount "$i" || umount --lazy "$i" || true; done
    rm -rf "$work" || true
}
trap end_all EXIT
