#!/usr/bin/env bash
# Builds the kernel that boots as a TDX host: the newest linux-source package of this machine's own Debian archive (6.16 or
# later: the first with KVM's TDX), unmodified, with our kernel.config. Leaves <workspace>/target/hosts/linux/{vmlinux,bzImage,System.map}.
#
# Nothing is rebuilt while this file, the configuration and the packages are unchanged (target/hosts/linux/kernel-stamp), and
# another clone takes what one has built from TDVISOR_CACHE (~/.cache/tdvisor if unset, nothing if empty).
# TDVISOR_JOBS: how many compilers at once.
#
# Exit status: 0, 2 where no such source can be had, 1 where it cannot be built.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/hosts/linux
jobs=${TDVISOR_JOBS:-$(nproc)}
products=(vmlinux bzImage System.map)

fail() {
    echo "kernel.sh: $*" >&2
    exit 1
}

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
        sha256sum kernel.config kernel.sh
    } | sha256sum | cut -d' ' -f1
)
if [ "$(cat "$target/kernel-stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$target/vmlinux" ]; then
    exit 0
fi
mkdir -p "$target/build"
exec 9>"$target/build/lock"
flock 9
rm -f "$target/kernel-stamp"

# --- has another clone built it? -------------------------------------------------------------------------------------

cache=${TDVISOR_CACHE-${XDG_CACHE_HOME:-${HOME:-}/.cache}/tdvisor}
kept=$cache/linux-host/$stamp
if [ -n "$cache" ] && (cd "$kept" 2>/dev/null && sha256sum --quiet --check sums 2>/dev/null); then
    for product in "${products[@]}"; do cp "$kept/$product" "$target/$product"; done
    echo "$stamp" >"$target/kernel-stamp"
    exit 0
fi

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
        grep -qxF -- "$line" "$out/.config" || { echo "kernel.sh: the kernel's configuration refuses '$line'" >&2; refused=1; }
        ;;
    esac
done <"$here/kernel.config"
[ "$refused" = 0 ] || fail "kernel.config does not fit this kernel"
kernel_make vmlinux bzImage

strip --strip-debug -o "$target/build/vmlinux" "$out/vmlinux"
mv "$target/build/vmlinux" "$target/vmlinux"
cp "$out/arch/x86/boot/bzImage" "$target/bzImage"
cp "$out/System.map" "$target/System.map"

# A clone that cannot keep it has it all the same.
if [ -n "$cache" ] && mkdir -p "$kept.$$" 2>/dev/null; then
    for product in "${products[@]}"; do cp "$target/$product" "$kept.$$/$product"; done
    (cd "$kept.$$" && sha256sum "${products[@]}" >sums)
    mv -T "$kept.$$" "$kept" 2>/dev/null || rm -rf "$kept.$$"
fi
echo "$stamp" >"$target/kernel-stamp"
