#!/usr/bin/env bash
# Builds the Linux that boots as a TD: Debian's linux-source-6.1 with our kernel.config, and an initrd of Debian's
# busybox-static, our init, our test module and our program that speaks with the host. Leaves <workspace>/target/linux/{bzImage,vmlinux,initrd}.
#
# Nothing is rebuilt while this folder and the Debian packages are unchanged (target/linux/stamp), and another clone
# takes what one has built from TDVISOR_CACHE (~/.cache/tdvisor if unset, nothing if empty). The bytes do not depend on
# who builds them or when, so measurements can be compared between machines with the same packages.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/linux
archive=/usr/src/linux-source-6.1.tar.xz
busybox=/bin/busybox
jobs=${TDVISOR_JOBS:-$(nproc)}

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# --- is there anything to do? ---------------------------------------------------------------------------------------

package_versions() {
    dpkg-query -W -f='${Package} ${Version}\n' linux-source-6.1 busybox-static gcc binutils 2>/dev/null || true
}

stamp_of_inputs() {
    {
        package_versions
        cd "$here"
        find . -type f | LC_ALL=C sort | xargs sha256sum
    } | sha256sum | cut -d' ' -f1
}

stamp=$(stamp_of_inputs)
if [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] &&
    [ -s "$target/bzImage" ] && [ -s "$target/vmlinux" ] && [ -s "$target/initrd" ]; then
    exit 0
fi

# --- has another clone built it? -------------------------------------------------------------------------------------

cache=${TDVISOR_CACHE-${XDG_CACHE_HOME:-${HOME:-}/.cache}/tdvisor}
products=(bzImage vmlinux initrd System.map)
kept=$cache/linux/$stamp
if [ -n "$cache" ] && (cd "$kept" 2>/dev/null && sha256sum --quiet --check sums 2>/dev/null); then
    mkdir -p "$target"
    rm -f "$target/stamp"
    for product in "${products[@]}"; do cp "$kept/$product" "$target/$product"; done
    echo "$stamp" >"$target/stamp"
    exit 0
fi

# --- tools ----------------------------------------------------------------------------------------------------------

missing=0
for tool in flex bison bc cpio xz lz4 make gcc; do
    command -v "$tool" >/dev/null || missing=1
done
[ -s "$archive" ] && [ -x "$busybox" ] && [ -e /usr/include/libelf.h ] && [ -e /usr/include/openssl/opensslv.h ] ||
    missing=1
if [ "$missing" = 1 ]; then
    "$workspace/scripts/install-packages"
    stamp=$(stamp_of_inputs)
fi
[ -s "$archive" ] || fail "$archive is missing (package linux-source-6.1)"
[ -x "$busybox" ] || fail "$busybox is missing (package busybox-static)"

mkdir -p "$target/build"
exec 9>"$target/build/lock"
flock 9
rm -f "$target/stamp"

# --- source ---------------------------------------------------------------------------------------------------------

source_version=$(dpkg-query -W -f='${Version}' linux-source-6.1)
tree=$target/build/linux-source-6.1
out=$target/build/out
if [ "$(cat "$target/build/unpacked" 2>/dev/null)" != "$source_version" ]; then
    rm -rf "$tree" "$out" "$target/build/unpacked"
    # What no x86 build reads and what takes up most of the space.
    tar -xJf "$archive" -C "$target/build" --anchored \
        --exclude='linux-source-6.1/drivers/gpu/drm/amd/include' \
        --exclude='linux-source-6.1/tools/perf' \
        --exclude='linux-source-6.1/tools/testing'
    echo "$source_version" >"$target/build/unpacked"
fi

# --- kernel ---------------------------------------------------------------------------------------------------------

export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=tdvisor KBUILD_BUILD_HOST=tdvisor
export KBUILD_BUILD_VERSION=1

kernel_make() {
    make -s -C "$tree" O="$out" -j"$jobs" "$@"
}

mkdir -p "$out"
kernel_make KCONFIG_ALLCONFIG="$here/kernel.config" allnoconfig
while read -r line; do
    case $line in
    CONFIG_* | '# CONFIG_'*)
        grep -qxF -- "$line" "$out/.config" || fail "the kernel's configuration refuses '$line' of kernel.config"
        ;;
    esac
done <"$here/kernel.config"
kernel_make vmlinux bzImage modules_prepare

module=$target/build/module
rm -rf "$module"
mkdir -p "$module"
cp "$here"/module/* "$module/"
kernel_make KBUILD_MODPOST_WARN=1 M="$module" modules

# --- initrd ---------------------------------------------------------------------------------------------------------

root=$target/build/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt,lib}
install -m 755 "$busybox" "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"
install -m 644 "$module/tdvisor.ko" "$root/lib/tdvisor.ko"
strip --strip-debug "$root/lib/tdvisor.ko"
gcc -Os -static -Wall -Wextra -Werror -o "$root/bin/talk" "$here/talk.c"
strip "$root/bin/talk"
for applet in base64 blkdiscard cat cmp dd dmesg du echo find grep head hexdump insmod ip ls md5sum mkdir mount nproc nslookup \
    ping poweroff readlink reboot rm sed sh sleep stat sync taskset timeout touch tr udhcpc umount wc; do
    ln -s busybox "$root/bin/$applet"
done
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) |
    lz4 -l -9 -q - "$target/build/initrd"

strip --strip-debug -o "$target/build/vmlinux" "$out/vmlinux"
mv "$target/build/vmlinux" "$target/vmlinux"
cp "$out/arch/x86/boot/bzImage" "$target/bzImage"
cp "$out/System.map" "$target/System.map"
mv "$target/build/initrd" "$target/initrd"
echo "$stamp" >"$target/stamp"

# --- for other clones: whole or not at all ----------------------------------------------------------------------------

if [ -n "$cache" ]; then
    kept=$cache/linux/$stamp
    mkdir -p "$cache/linux"
    fresh=$(mktemp -d "$cache/linux/new.XXXXXX")
    for product in "${products[@]}"; do cp "$target/$product" "$fresh/$product"; done
    (cd "$fresh" && sha256sum "${products[@]}" >sums)
    rm -rf "$kept"
    mv "$fresh" "$kept"
fi
