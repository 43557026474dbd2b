#!/usr/bin/env bash
# Makes what boots a distribution's own kernel as a TD: Debian's linux-image of the version asked for (6.12 if none is), as it is,
# and an initrd of busybox-static, the kernel's own modules for attestation, and init-distribution. Leaves
# <workspace>/target/linux-distribution/{bzImage,initrd,version}; where a version is asked for, the folder has it behind its
# name (linux-distribution-7.3). Nothing is installed (scripts/newer-package).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/linux-distribution${1:+-$1}
busybox=/bin/busybox
wanted=${1:-6.12}

fail() {
    echo "distribution.sh: $*" >&2
    exit 1
}

[ -x "$busybox" ] || "$workspace/scripts/install-packages"
[ -x "$busybox" ] || fail "$busybox is missing (package busybox-static)"
for tool in cpio lz4 xz; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done

# The newest package of the kernel, by what is in it.
newest() {
    "$workspace/scripts/newer-package" "linux-$1-${wanted//./\\.}[.+~0-9a-z]*-cloud-amd64" "$wanted" ||
        fail "no suite has linux-$1 of version $wanted"
}
package=$(newest image)
modules=$package
# Newer kernels and their modules are packages of their own, on which the image depends.
if [ ! -d "$package/boot" ]; then
    package=$(newest binary)
    modules=$(newest modules)
fi

stamp="$(basename "$package") $(cat "$here/init-distribution" "$here/distribution.sh" | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$target/version" 2>/dev/null)" = "$stamp" ] && [ -s "$target/bzImage" ] && [ -s "$target/initrd" ]; then
    exit 0
fi
mkdir -p "$target"
rm -f "$target/version"

kernel=$(find "$package" -type f -name 'vmlinuz*' | head -1)
[ -n "$kernel" ] || fail "$package has no kernel"

root=$target/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,lib}
install -m 755 "$busybox" "$root/bin/busybox"
install -m 755 "$here/init-distribution" "$root/init"
# Each may be built in, or be called otherwise in another version.
for module in configfs tsm tsm_report tsm-core tdx-guest; do
    file=$(find "$modules" -name "$module.ko" -o -name "$module.ko.xz" -o -name "$module.ko.zst" | head -1)
    case $file in
        *.ko) cp "$file" "$root/lib/" ;;
        *.xz) xz -dc "$file" >"$root/lib/$module.ko" ;;
        *.zst) zstd -qdc "$file" >"$root/lib/$module.ko" ;;
    esac
done
for applet in base64 cat dd echo grep insmod ls mkdir mount nproc poweroff printf sh sync; do
    ln -s busybox "$root/bin/$applet"
done
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) |
    lz4 -l -9 -q -f - "$target/initrd"
cp "$kernel" "$target/bzImage"
echo "$stamp" >"$target/version"
