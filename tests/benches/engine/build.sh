#!/usr/bin/env bash
# Builds the initial RAM disk of the engine benchmark: Debian's busybox-static, our init, and the work as a static C
# program. Usage: build.sh FILE. Any kernel takes it; it is not compressed. The program itself is FILE.work.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1

for tool in gcc cpio /bin/busybox; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing (scripts/install-packages)" >&2
        exit 1
    }
done
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,dev,proc}
install -m 755 /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/true"
install -m 755 "$here/init" "$root/init"
gcc -O2 -static -o "$root/bin/work" "$here/work.c"
mkdir -p "$(dirname "$out")"
install -m 755 "$root/bin/work" "$out.work"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --owner=0:0 -o -H newc) >"$out"
