#!/usr/bin/env bash
# link.sh ARGUMENT...: the linker of the release binary (.cargo/config.toml), with the functions of a container's way beside
# each other, and the constants that they read. The kernel maps 64 KiB around each page of a file that is touched: scattered over
# the file, they cost a third of all page faults and two thirds of the resident memory (docs/performance.md).
# benches/hot-functions.txt (scripts/hot-functions.sh) has the functions' names, without the hashes of crates and of legacy mangling.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

# constants OBJECT ORDER: options for objcopy, one a line, that name the sections of OBJECT with constants of the functions in ORDER.
# A constant has a section of its own, but no name by which the linker could order it.
constants() {
    readelf --relocs --wide "$1" | awk -v order="$2" '
        BEGIN { while ((getline name < order) > 0) { hot[".text." name]; hot[".text.unlikely." name] } }
        /^Relocation section/ { split($0, part, "\047"); section = substr(part[2], 6); next }
        $3 !~ /^R_/ || $5 !~ /^\.rodata\../ || $5 ~ /^\.rodata\.(cst|str)[0-9.]*$/ { next }
        section in hot { wanted[count++] = $5; next }
        section ~ /^\.rodata/ { refers[section] = refers[section] " " $5 }
        END {
            # The list grows: constants are made of others.
            for (at = 0; at < count; at++) if (!told[wanted[at]]++) {
                print "--add-symbol=corten_hot_constant_" at "=" wanted[at] ":0,local"
                more = split(refers[wanted[at]], part, " ")
                for (one = 1; one <= more; one++) wanted[count++] = part[one]
            }
        }'
}

arguments=() objects=() response=
skip=0
words=("$@")
if [ $# -eq 1 ] && [ "${1#@}" != "$1" ]; then
    # rustc hands long command lines over in a file, one argument a line.
    response=${1#@}
    mapfile -t words < <(sed 's/\\\(.\)/\1/g; s/^"//; s/"$//' "$response")
fi
for index in "${!words[@]}"; do
    word=${words[$index]}
    if [ "$skip" = 1 ]; then skip=0; continue; fi
    # Where libseccomp.a is, which is in its crate already, glibc's libc.a is too.
    if [ "$word" = -L ] && [ "${words[$((index + 1))]:-}" = "${LIBSECCOMP_LIB_PATH:-}" ]; then skip=1; continue; fi
    case $word in *.o) objects+=("$word") ;; esac
    arguments+=("$word")
done

# The linker that comes with Rust knows the order option; without it the binary is only slower.
lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/gcc-ld
case " $* ${words[*]} " in
*corten_start*)
    if [ -x "$lld/ld.lld" ]; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        order=$work/order
        nm --defined-only --format=just-symbols "${objects[@]}" 2>/dev/null | awk -v hot="$here/benches/hot-functions.txt" '
            BEGIN { while ((getline line < hot) > 0) rank[line] = ++count }
            { name = $0; sub(/\.llvm\.[0-9]+$/, "", name); sub(/17h[0-9a-f]+E$/, "", name)
              gsub(/Cs[0-9a-zA-Z]+_/, "C", name) }
            name in rank { print rank[name], $0; next }
            # Those of libc, which is in an archive, are what the list says.
            END { for (name in rank) if (name !~ /^_[RZ]/) print rank[name], name }' | sort -n | cut -d" " -f2 > "$order"
        for index in "${!arguments[@]}"; do
            case ${arguments[$index]} in *.rcgu.o) ;; *) continue ;; esac
            constants "${arguments[$index]}" "$order" > "$work/names"
            objcopy @"$work/names" "${arguments[$index]}" "$work/$index.o"
            arguments[index]=$work/$index.o
            sed 's/^--add-symbol=\([^=]*\)=.*/\1/' "$work/names" >> "$work/constants"
        done
        [ ! -e "$work/constants" ] || cat "$work/constants" >> "$order"
        arguments+=("-B$lld" -fuse-ld=lld "-Wl,--symbol-ordering-file=$order" -Wl,--no-warn-symbol-ordering)
    fi
    ;;
esac
cc "${arguments[@]}"
