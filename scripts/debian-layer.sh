#!/usr/bin/env bash
# debian-layer.sh: makes target/debian-layer.tar, a layer with Debian's base and python3-minimal, unless it is there.
#
# The packages are what debootstrap chooses and verifies; they are unpacked and not configured, which takes a quarter of
# the time and leaves owners, modes, links and times as Debian ships them.
set -euo pipefail
cd "$(dirname "$0")/.."

layer=target/debian-layer.tar
[ ! -s $layer ] || exit 0
scripts/install-packages.sh debootstrap tar dpkg
mkdir -p target
work=$(mktemp -d target/debian.XXXXXX)
trap 'rm -rf "$work"' EXIT
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(awk '$1 == "URIs:" || $1 == "deb" { print $2; exit }' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true)
debootstrap --download-only --variant=minbase --include=python3-minimal "$suite" "$work/packages" \
    "${mirror:-http://deb.debian.org/debian}" > "$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
root=$work/root
mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
for link in bin sbin lib lib64; do ln -s usr/$link "$root/$link"; done
for package in "$work"/packages/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --numeric-owner --same-owner -p --keep-directory-symlink -C "$root"
done
tar -c --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner --xattrs --xattrs-include='*' \
    --sort=name -C "$root" -f "$work/layer.tar" .
mv "$work/layer.tar" $layer
