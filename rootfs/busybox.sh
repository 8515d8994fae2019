#!/usr/bin/env bash
# busybox.sh DIR: makes an OCI image layout with a small image of three layers from Debian's busybox-static.
#
#   1  busybox and a link for each of its tools     2  users and groups     3  /app/show, the image's command
#
# The same input gives the same bytes: names are sorted, times and owners fixed.
set -euo pipefail
out=$1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{1,2,3} "$out/blobs/sha256"

mkdir -p "$work"/1/{bin,dev,proc,sys,tmp,root,var}
cp /bin/busybox "$work/1/bin/busybox"
for tool in $(/bin/busybox --list); do
    [ "$tool" = busybox ] || ln -s busybox "$work/1/bin/$tool"
done
chmod 1777 "$work/1/tmp"

mkdir "$work/2/etc"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$work/2/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$work/2/etc/group"

mkdir "$work/3/app"
cat > "$work/3/app/show" <<'SHOW'
#!/bin/sh
# What a container sees of itself: its name, its root and its limits, on cgroup v1 or v2.
first() { for file in "$@"; do [ -r "$file" ] && cat "$file" && return; done; echo unknown; }
quota() {
    if [ -r /sys/fs/cgroup/cpu.max ]; then cat /sys/fs/cgroup/cpu.max
    else echo "$(first /sys/fs/cgroup/cpu/cpu.cfs_quota_us) $(first /sys/fs/cgroup/cpu/cpu.cfs_period_us)"; fi
}
cd /sys/fs/cgroup || exit 1
echo "hostname: $(hostname)"
echo "root: $(echo $(ls /))"
echo "memory limit: $(first memory.max memory/memory.limit_in_bytes) bytes"
echo "cpu quota and period: $(quota) microseconds"
echo "process limit: $(first pids.max pids/pids.max)"
echo "processes: $(echo $(ls /proc | grep -c '^[0-9]'))"
SHOW
chmod 755 "$work/3/app/show"

# blob FILE TYPE: moves a file into the layout and prints its descriptor.
blob() {
    local digest size
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$out/blobs/sha256/$digest"
    jq -nc --arg type "$2" --arg digest "sha256:$digest" --argjson size "$size" \
        '{mediaType: $type, digest: $digest, size: $size}'
}

layers=() diff_ids=()
for number in 1 2 3; do
    tar=$work/$number.tar
    tar -C "$work/$number" --sort=name --mtime=@1000000000 --owner=0 --group=0 --numeric-owner -cf "$tar" .
    diff_ids+=("\"sha256:$(sha256sum "$tar" | cut -d' ' -f1)\"")
    gzip -n "$tar"
    layers+=("$(blob "$tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)")
done
list() { local IFS=,; echo "[$*]"; }

jq -nc --argjson diff_ids "$(list "${diff_ids[@]}")" '{
    created: "2001-09-09T01:46:40Z", architecture: "amd64", os: "linux",
    config: {Env: ["PATH=/bin:/app"], Cmd: ["/app/show"], WorkingDir: "/"},
    rootfs: {type: "layers", diff_ids: $diff_ids}}' > "$work/config"
config=$(blob "$work/config" application/vnd.oci.image.config.v1+json)
jq -nc --argjson config "$config" --argjson layers "$(list "${layers[@]}")" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: $config, layers: $layers}' > "$work/manifest"
manifest=$(blob "$work/manifest" application/vnd.oci.image.manifest.v1+json)
jq -nc --argjson manifest "$manifest" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [$manifest + {annotations: {"org.opencontainers.image.ref.name": "latest"}}]}' > "$out/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' > "$out/oci-layout"
