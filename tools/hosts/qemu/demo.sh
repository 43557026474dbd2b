#!/usr/bin/env bash
# The whole server on a laptop: an unmodified Linux as TDX host on the emulated server, an unmodified QEMU on it, and in
# QEMU a TD that boots Linux.
#
#   tools/hosts/qemu/demo.sh [VARIANT] [OPTION OF `tdvisor server`…]
#       boot-shim       256 MiB: our boot shim, in the form that QEMU takes, starts a distribution's kernel; if none is named
#       ovmf            512 MiB: a distribution's firmware for TDX, which enforces Secure Boot, boots a disk with its signed
#                       shim, its signed GRUB and its signed kernel
#       ovmf-unsigned   the same with a kernel that nobody signed: GRUB refuses it
#
# QEMU is the newest of Debian's archive (10.1 is the first with TDX), unpacked and not installed, with the libraries that
# it needs, as one more initial RAM disk of the host. What QEMU and the TD print stands behind "QEMU| " on the host's console;
# behind it stands what each phase cost. The script ends with status 0 if the TD's init ran to its end, or the kernel was refused,
# and no rule of the module was broken.
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

variant=boot-shim
case ${1:-} in
    boot-shim | ovmf | ovmf-unsigned) variant=$1; shift ;;
    '' | -*) ;;
    *) fail "no variant is called '$1': boot-shim, ovmf, ovmf-unsigned" ;;
esac

"$workspace/tools/hosts/linux/build.sh"
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

# A folder that QEMU shows as a disk: shim, GRUB with its configuration, a kernel and its RAM disk.
disk() {
    local from=$workspace/target/boot-loaders
    "$workspace/tools/guests/linux/boot-loaders.sh"
    mkdir -p "$root/disk/EFI/BOOT" "$root/disk/EFI/debian"
    cp "$from/firmware-tdx.fd" "$root/"
    cp "$from/shim.efi" "$root/disk/EFI/BOOT/BOOTX64.EFI"
    cp "$from/grub.efi" "$root/disk/EFI/BOOT/grubx64.efi"
    cp "$1/bzImage" "$root/disk/vmlinuz"
    cp "$1/initrd" "$root/disk/initrd"
    # A kernel that is refused ends the run instead of leaving it at GRUB's prompt.
    cat >"$root/disk/EFI/debian/grub.cfg" <<'G'
echo 'GRUB: loading the kernel'
if linux /vmlinuz console=ttyS0 panic=-1; then
    initrd /initrd
    echo 'GRUB: starting the kernel'
    boot
else
    echo 'GRUB: no kernel'
fi
reboot
G
    cp -L "$package/usr/share/qemu/efi-virtio.rom" "$root/usr/share/qemu/"
}
marks=("virt/tdx: TDX-Module initialized" "tdvisor-host: kvm ok" "QEMU starts")
case $variant in
    boot-shim)
        "$workspace/tools/guests/linux/distribution.sh"
        "${tdvisor[@]}" image boot-shim --for qemu --output "$root/boot-shim.fd"
        cp "$workspace/target/linux-distribution/bzImage" "$root/"
        # Linux unpacks both; a compressed archive has to be the last.
        install -D -m 755 "$here/init" "$target/init/demo-init"
        touch -d @0 "$target/init/demo-init"
        {
            (cd "$target/init" && echo demo-init | cpio --quiet --reproducible --owner=0:0 -o -H newc)
            cat "$workspace/target/linux-distribution/initrd"
        } >"$root/initrd"
        marks+=("boot-shim: entering the kernel" "tdx: Guest detected" "QEMU| demo-init: ")
        end="demo-init: 1 CPU of a TD"
        ;;
    ovmf)
        "$workspace/tools/guests/linux/distribution.sh"
        disk "$workspace/target/linux-distribution"
        marks+=("BdsDxe: loading" "BdsDxe: starting" "GRUB: loading the kernel" "GRUB: starting the kernel"
            "tdx: Guest detected" "QEMU| distribution-init: " "reboot: Power down")
        end="distribution-init: cpus 1"
        ;;
    ovmf-unsigned)
        "$workspace/tools/guests/linux/build.sh"
        disk "$workspace/target/linux"
        marks+=("BdsDxe: loading" "BdsDxe: starting" "GRUB: loading the kernel" "GRUB: no kernel")
        end="GRUB: no kernel"
        ;;
esac
echo "$variant" >"$root/variant"
echo "$end" >"$root/end"
cp "$here/script" "$root/script"
cp -L "$package/usr/share/qemu/kvmvapic.bin" "$root/usr/share/qemu/"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) >"$target/initrd"

status=0
options=()
for mark in "${marks[@]}"; do options+=(--mark "$mark"); done
"${tdvisor[@]}" server --memory 2G \
    --kernel "$workspace/target/hosts/linux/vmlinux" \
    --initrd "$target/initrd" --initrd "$workspace/target/hosts/linux/initrd" \
    --append "tdvisor.steps=tdx,kvm,script" "${options[@]}" "$@" 2>"$target/summary" || status=$?
cat "$target/summary" >&2
if [ $status = 0 ] && { grep -qE '^ *violation' "$target/summary" || ! grep -q "the module's structures add up" "$target/summary"; }; then
    echo "demo.sh: the host broke a rule of the module" >&2
    status=1
fi
exit $status
