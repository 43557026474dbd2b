#!/usr/bin/env bash
# Builds the Linux that boots as a TD: Debian's linux-source-6.1 with our kernel.config, and an initrd of Debian's
# busybox-static, our init, our test module and our program that speaks with the host. Leaves <workspace>/target/linux/{bzImage,vmlinux,initrd}.
#
# Nothing is rebuilt while this folder, what it shares with others and the Debian packages are unchanged (target/linux/stamp),
# and another clone takes what one has built from TDVISOR_CACHE (~/.cache/tdvisor if unset, nothing if empty). The bytes do not
# depend on who builds them or when, so measurements can be compared between machines with the same packages.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/linux
archive=/usr/src/linux-source-6.1.tar.xz
busybox=/bin/busybox
products=(bzImage vmlinux initrd System.map)
stamp_file=$target/stamp
shelf=linux
# shellcheck source=../../../scripts/linux-kernel.sh
source "$workspace/scripts/linux-kernel.sh"

# --- is there anything to do? ---------------------------------------------------------------------------------------

package_versions() {
    dpkg-query -W -f='${Package} ${Version}\n' linux-source-6.1 busybox-static gcc binutils 2>/dev/null || true
}

stamp_of_inputs() {
    {
        package_versions
        cd "$here"
        find . -type f | LC_ALL=C sort | xargs sha256sum
        sha256sum ../../../scripts/linux-kernel.sh
    } | sha256sum | cut -d' ' -f1
}

stamp=$(stamp_of_inputs)
if is_made "$stamp"; then exit 0; fi
begin
if take_kept "$shelf" "$stamp"; then exit 0; fi

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

# --- kernel ---------------------------------------------------------------------------------------------------------

unpack "$archive" "$(dpkg-query -W -f='${Version}' linux-source-6.1)"
configure "$here/kernel.config"
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

take_kernel
mv "$target/build/initrd" "$target/initrd"
keep "$shelf" "$stamp"
