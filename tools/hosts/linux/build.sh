#!/usr/bin/env bash
# Builds the Linux that boots as a TDX host: the newest linux-source package of this machine's own Debian archive
# (6.16 or later: the first with KVM's TDX), unmodified, with our kernel.config, and an initramfs of Debian's
# busybox-static and our init. Leaves <workspace>/target/hosts/linux/{vmlinux,bzImage,System.map,initrd}.
#
# Nothing is rebuilt while this folder and the packages are unchanged (target/hosts/linux/stamp).
# TDVISOR_JOBS: how many compilers at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/hosts/linux
busybox=/bin/busybox
jobs=${TDVISOR_JOBS:-$(nproc)}

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

source_package=$("$workspace/scripts/newer-package" 'linux-source-[0-9.]+' 6.16) ||
    fail "no kernel source of 6.16 or later can be had"

stamp=$(
    {
        basename "$source_package"
        dpkg-query -W -f='${Package} ${Version}\n' busybox-static gcc binutils 2>/dev/null || true
        cd "$here"
        # What only runs on the host it builds is no reason to build it again.
        find . -type f ! -name kvm-cases ! -name test.sh | LC_ALL=C sort | xargs sha256sum
    } | sha256sum | cut -d' ' -f1
)
if [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$target/vmlinux" ] && [ -s "$target/initrd" ]; then
    exit 0
fi

for tool in flex bison bc cpio xz lz4 make gcc; do
    command -v "$tool" >/dev/null || { "$workspace/scripts/install-packages"; break; }
done
[ -x "$busybox" ] || fail "$busybox is missing (package busybox-static)"

mkdir -p "$target/build"
exec 9>"$target/build/lock"
flock 9
rm -f "$target/stamp"

# --- source ---------------------------------------------------------------------------------------------------------

archive=$(find "$source_package/usr/src" -name 'linux-source-*.tar.xz' -print -quit)
[ -n "$archive" ] || fail "$source_package has no archive of sources"
name=$(basename "$archive" .tar.xz)
tree=$target/build/$name
out=$target/build/out
if [ "$(cat "$target/build/unpacked" 2>/dev/null)" != "$source_package" ]; then
    rm -rf "$target"/build/linux-source-* "$out" "$target/build/unpacked"
    # What no x86 build reads and what takes up most of the space.
    tar -xJf "$archive" -C "$target/build" --anchored \
        --exclude="$name/drivers/gpu/drm/amd/include" \
        --exclude="$name/tools/perf" \
        --exclude="$name/tools/testing"
    echo "$source_package" >"$target/build/unpacked"
fi

# --- kernel ---------------------------------------------------------------------------------------------------------

export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=tdvisor KBUILD_BUILD_HOST=tdvisor
export KBUILD_BUILD_VERSION=1

kernel_make() {
    make -s -C "$tree" O="$out" -j"$jobs" "$@"
}

mkdir -p "$out"
kernel_make KCONFIG_ALLCONFIG="$here/kernel.config" allnoconfig
refused=0
while read -r line; do
    case $line in
    CONFIG_* | '# CONFIG_'*)
        # An option that this kernel does not have, or hides, is off as well.
        if [[ $line == '# '* ]] && ! grep -q "^$(cut -d' ' -f2 <<<"$line")=" "$out/.config"; then
            continue
        fi
        grep -qxF -- "$line" "$out/.config" || { echo "build.sh: the kernel's configuration refuses '$line'" >&2; refused=1; }
        ;;
    esac
done <"$here/kernel.config"
[ "$refused" = 0 ] || fail "kernel.config does not fit this kernel"
kernel_make vmlinux bzImage

# --- initramfs ------------------------------------------------------------------------------------------------------

root=$target/build/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt}
install -m 755 "$busybox" "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"
for program in kvm-vm-types run-td; do
    gcc -Os -static -Wall -Wextra -Werror -o "$root/bin/$program" "$here/$program.c"
    strip "$root/bin/$program"
done
for applet in cat dd dmesg echo grep ls mount nproc poweroff printf reboot sed sh sleep sync umount; do
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
