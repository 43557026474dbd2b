#!/usr/bin/env bash
# Makes the Linux that boots as a TDX host: its kernel (kernel.sh), and an initramfs of Debian's busybox-static and our init.
# Leaves <workspace>/target/hosts/linux/{vmlinux,bzImage,System.map,initrd}.
#
# Nothing is made again while this folder and the packages are unchanged (target/hosts/linux/stamp).
#
# Exit status: 0, 2 where no kernel's source can be had, 1 where it cannot be made.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/hosts/linux
busybox=/bin/busybox

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

"$here/kernel.sh"

for tool in cpio lz4 gcc; do
    command -v "$tool" >/dev/null || { "$workspace/scripts/install-packages"; break; }
done
[ -x "$busybox" ] || "$workspace/scripts/install-packages"
[ -x "$busybox" ] || fail "$busybox is missing (package busybox-static)"

stamp=$(
    {
        dpkg-query -W -f='${Package} ${Version}\n' busybox-static gcc binutils 2>/dev/null || true
        cd "$here"
        sha256sum build.sh init ./*.c ./*.h
    } | sha256sum | cut -d' ' -f1
)
if [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$target/initrd" ]; then
    exit 0
fi

mkdir -p "$target/build"
exec 9>"$target/build/lock"
flock 9
rm -f "$target/stamp"

root=$target/build/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt}
install -m 755 "$busybox" "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"
for program in kvm-vm-types run-td unix-http; do
    gcc -Os -static -Wall -Wextra -Werror -o "$root/bin/$program" "$here/$program.c"
    strip "$root/bin/$program"
done
for applet in cat dd dmesg echo grep ls mount nproc poweroff printf reboot sed sh sleep sync umount; do
    ln -s busybox "$root/bin/$applet"
done
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) |
    lz4 -l -9 -q - "$target/build/initrd"
mv "$target/build/initrd" "$target/initrd"
echo "$stamp" >"$target/stamp"
