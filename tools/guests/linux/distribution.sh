#!/usr/bin/env bash
# Makes what boots a distribution's own kernel as a TD: Debian's linux-image, as it is, and an initrd of busybox-static, the
# kernel's own modules for disks, networks and attestation, and init-distribution. Nothing is installed (scripts/newer-package).
#
#   distribution.sh [VERSION [FLAVOUR]]    6.12 and cloud-amd64 if not given; FLAVOUR amd64 is the generic kernel
#
# Leaves bzImage, initrd and version in <workspace>/target/linux-distribution; where a version is asked for, the folder has it
# behind its name, and the flavour if that is given as well (linux-distribution-7.3, linux-distribution-7.3-amd64).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/linux-distribution${1:+-$1}${2:+-$2}
busybox=/bin/busybox
wanted=${1:-6.12}
flavour=${2:-cloud-amd64}

fail() {
    echo "distribution.sh: $*" >&2
    exit 1
}

[ -x "$busybox" ] || "$workspace/scripts/install-packages"
[ -x "$busybox" ] || fail "$busybox is missing (package busybox-static)"
for tool in cpio depmod lz4 modprobe xz; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done

# The newest package of the kernel, by what is in it.
newest() {
    "$workspace/scripts/newer-package" "linux-$1-${wanted//./\\.}([.+~][.+~0-9a-z]*)?(-[0-9]+)?-$flavour" "$wanted" ||
        fail "no suite has linux-$1 of version $wanted for $flavour"
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
release=$(basename "$(find "$modules" -type d -path '*/lib/modules/*' -prune | head -1)")
[ -n "$release" ] || fail "$modules has no modules"

root=$target/root
rm -rf "$root" "$target/tree"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,lib,root} "$target/tree/lib/modules/$release"
install -m 755 "$busybox" "$root/bin/busybox"
install -m 755 "$here/init-distribution" "$root/init"

# Which modules a module needs is what depmod says of the package's.
ln -s "$(find "$modules" -type d -path "*/lib/modules/$release/kernel" -prune)" "$target/tree/lib/modules/$release/kernel"
depmod -b "$target/tree" "$release" 2>/dev/null
# Each may be built in, or be called otherwise in another version.
for module in virtio_pci virtio_mmio virtio_blk virtio_net ext4 configfs tsm tsm_report tsm-core tdx-guest; do
    modprobe -d "$target/tree" -S "$release" --show-depends "$module" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$target/modules"
while read -r file; do
    name=$(basename "${file%%.ko*}")
    case $file in
        *.ko) cp "$file" "$root/lib/$name.ko" ;;
        *.xz) xz -dc "$file" >"$root/lib/$name.ko" ;;
        *.zst) zstd -qdc "$file" >"$root/lib/$name.ko" ;;
    esac
    echo "$name"
done <"$target/modules" >"$root/lib/modules"
rm -rf "$target/tree" "$target/modules"
for applet in base64 cat dd echo grep insmod ls mkdir mount nproc poweroff printf reboot sh sleep switch_root sync; do
    ln -s busybox "$root/bin/$applet"
done
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) |
    lz4 -l -9 -q -f - "$target/initrd"
cp "$kernel" "$target/bzImage"
echo "$stamp" >"$target/version"
