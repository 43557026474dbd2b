#!/usr/bin/env bash
# Builds the kernel that boots as a TDX host: the newest linux-source package of this machine's own Debian archive (6.16 or
# later: the first with KVM's TDX), unmodified, with our kernel.config. Leaves <workspace>/target/hosts/linux/{vmlinux,bzImage,System.map}.
#
# Nothing is rebuilt while the recipe, the configuration and the packages are unchanged (target/hosts/linux/kernel-stamp), and
# another clone takes what one has built from TDVISOR_CACHE (~/.cache/tdvisor if unset, nothing if empty).
# TDVISOR_JOBS: how many compilers at once.
#
# Exit status: 0, 2 where no such source can be had, 1 where it cannot be built.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/hosts/linux
products=(vmlinux bzImage System.map)
stamp_file=$target/kernel-stamp
shelf=linux-host
# A name for how the kernel is made of its source. It gets another one where what `unpack`, `configure` or `make` does below, or
# in what is shared, makes another kernel; ten minutes are too long for a change that does not.
recipe=3536e0f87f797f5d3af6e172700fba5fc0598a3c1bc4c5f04f6f9f5d0eaf9027
# shellcheck source=../../../scripts/linux-kernel.sh
source "$workspace/scripts/linux-kernel.sh"

source_package=$("$workspace/scripts/newer-package" 'linux-source-[0-9.]+' 6.16) || {
    echo "kernel.sh: no kernel source of 6.16 or later can be had" >&2
    exit 2
}

for tool in flex bison bc xz make gcc; do
    command -v "$tool" >/dev/null || { "$workspace/scripts/install-packages"; break; }
done
stamp=$(
    {
        basename "$source_package"
        dpkg-query -W -f='${Package} ${Version}\n' gcc binutils 2>/dev/null || true
        cd "$here"
        sha256sum kernel.config
        echo "$recipe  kernel.sh"
    } | sha256sum | cut -d' ' -f1
)
if is_made "$stamp"; then exit 0; fi
begin
if take_kept "$shelf" "$stamp"; then exit 0; fi

archive=$(find "$source_package/usr/src" -name 'linux-source-*.tar.xz' -print -quit)
[ -n "$archive" ] || fail "$source_package has no archive of sources"
unpack "$archive" "$source_package"
configure "$here/kernel.config"
kernel_make vmlinux bzImage
take_kernel
keep "$shelf" "$stamp"
