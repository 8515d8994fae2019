#!/usr/bin/env bash
# aws-tools.sh: installs the aws command and boto3 from PyPI into target/aws-tools/, a virtual environment of Python's, if
# they are not there. Needs python3 with its venv module (Debian: python3-venv).
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(awscli==1.46.3 boto3==1.44.5)
out=$PWD/target/aws-tools
[ "$(cat "$out/version" 2>/dev/null)" != "${packages[*]}" ] || exit 0

echo "installing ${packages[*]}" >&2
python3 -m venv "$out"
"$out/bin/pip" install --quiet "${packages[@]}"
echo "${packages[*]}" > "$out/version"
