#!/usr/bin/env bash
# The whole server on a laptop: an unmodified Linux as TDX host on the emulated server, an unmodified QEMU on it, and in
# QEMU a TD that boots Linux.
#
#   tools/hosts/qemu/demo.sh [OPTION OF `tdvisor server`…]
#
# QEMU is the newest of Debian's archive (10.1 is the first with TDX), unpacked and not installed, with the libraries that
# it needs, as one more initial RAM disk of the host. The TD's firmware is our boot shim in the form that QEMU takes, and its
# kernel is target/linux/bzImage. What QEMU and the TD print stands behind "QEMU| " on the host's console; the script
# ends with status 0 if the TD's init ran to its end.
#
# TDVISOR: the program to use instead of `cargo run --release`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/hosts/qemu
libraries=usr/lib/x86_64-linux-gnu
read -r -a tdvisor <<<"${TDVISOR:-cargo run --quiet --release --locked --manifest-path $workspace/Cargo.toml -p tdvisor --}"

fail() {
    echo "demo.sh: $*" >&2
    exit 2
}

"$workspace/tools/hosts/linux/build.sh"
"$workspace/tools/guests/linux/build.sh"
package=$("$workspace/scripts/newer-package" --closure qemu-system-x86 1:10.1) ||
    fail "no QEMU of 10.1 or later can be had"

root=$target/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/lib64" "$root/$libraries" "$root/usr/share/qemu"

# Copies a program or a library, and what it asks for.
bring() {
    local from=$1 to=$2 name
    [ ! -e "$to" ] || return 0
    install -m 755 "$(readlink -f "$from")" "$to"
    for name in $(readelf -d "$from" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        [ -e "$package/$libraries/$name" ] || fail "$(basename "$from") needs $name, which its packages do not bring"
        bring "$package/$libraries/$name" "$root/$libraries/$name"
    done
}
bring "$package/usr/bin/qemu-system-x86_64" "$root/bin/qemu-system-x86_64"
ln -s "/$libraries/ld-linux-x86-64.so.2" "$root/lib64/ld-linux-x86-64.so.2"
"${tdvisor[@]}" image boot-shim --for qemu --output "$root/boot-shim.fd"
cp "$workspace/target/linux/bzImage" "$workspace/target/linux/initrd" "$root/"
cp "$here/script" "$root/script"
cp -L "$package/usr/share/qemu/kvmvapic.bin" "$root/usr/share/qemu/"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) >"$target/initrd"

exec "${tdvisor[@]}" server --memory 2G \
    --kernel "$workspace/target/hosts/linux/vmlinux" \
    --initrd "$target/initrd" --initrd "$workspace/target/hosts/linux/initrd" \
    --append "tdvisor.steps=tdx,kvm,script" "$@"
