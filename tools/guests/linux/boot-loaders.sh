#!/usr/bin/env bash
# Brings what boots a disk, as distributions have it: firmware made for TDX, the signed shim and GRUB, systemd's boot loader and
# its stub for unified kernel images. Leaves them, under plain names, in <workspace>/target/boot-loaders. Nothing is installed
# (scripts/newer-package); the disks themselves are made by the tests.
set -euo pipefail

workspace=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
target=$workspace/target/boot-loaders

fail() {
    echo "boot-loaders.sh: $*" >&2
    exit 1
}

mkdir -p "$target"
rm -f "$target/version"
# Package, the file in it, what it is called here.
while read -r package file name; do
    folder=$("$workspace/scripts/newer-package" "$package") || fail "no suite has $package"
    [ -f "$folder/$file" ] || fail "$folder has no $file"
    cp "$folder/$file" "$target/$name"
    basename "$folder"
done >"$target/version.part" <<'END'
ovmf-inteltdx usr/share/ovmf/OVMF.inteltdx.ms.fd firmware-tdx.fd
shim-signed usr/lib/shim/shimx64.efi.signed shim.efi
grub-efi-amd64-signed usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed grub.efi
systemd-boot-efi usr/lib/systemd/boot/efi/systemd-bootx64.efi systemd-boot.efi
systemd-boot-efi usr/lib/systemd/boot/efi/linuxx64.efi.stub stub.efi
END
mv "$target/version.part" "$target/version"
