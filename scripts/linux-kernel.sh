# What the scripts that build a Linux kernel share. They source it, and have set:
#   workspace     this workspace's folder
#   target        where the products go; `build` in it is the work's own
#   products      the files in `target` that are kept for other clones
#   stamp_file    holds the hash of the inputs that `target` was made of

jobs=${TDVISOR_JOBS:-$(nproc)}
# Where clones leave what they have built for others; empty: nowhere.
cache=${TDVISOR_CACHE-${XDG_CACHE_HOME:-${HOME:-}/.cache}/tdvisor}
out=$target/build/out

# The same bytes, whoever builds them and when.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=tdvisor KBUILD_BUILD_HOST=tdvisor
export KBUILD_BUILD_VERSION=1

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Whether there is nothing to do. is_made STAMP
is_made() {
    local product
    [ "$(cat "$stamp_file" 2>/dev/null)" = "$1" ] || return 1
    for product in "${products[@]}"; do [ -s "$target/$product" ] || return 1; done
}

# One clone's script at a time, until it ends; what is in `target` is not whole meanwhile.
begin() {
    mkdir -p "$target/build"
    exec 9>"$target/build/lock"
    flock 9
    rm -f "$stamp_file"
}

# Whether another clone had built it: then it is here. take_kept SHELF STAMP
take_kept() {
    local kept=$cache/$1/$2 product
    [ -n "$cache" ] && (cd "$kept" 2>/dev/null && sha256sum --quiet --check sums 2>/dev/null) || return 1
    for product in "${products[@]}"; do cp "$kept/$product" "$target/$product" || return 1; done
    echo "$2" >"$stamp_file"
}

# Says that `target` is whole, and keeps it for other clones: whole or not at all. A clone that cannot keep it has it all the
# same. keep SHELF STAMP
keep() {
    local kept=$cache/$1/$2 fresh product
    echo "$2" >"$stamp_file"
    [ -n "$cache" ] && mkdir -p "$cache/$1" 2>/dev/null && fresh=$(mktemp -d "$cache/$1/new.XXXXXX" 2>/dev/null) || return 0
    for product in "${products[@]}"; do cp "$target/$product" "$fresh/$product"; done
    (cd "$fresh" && sha256sum "${products[@]}" >sums)
    rm -rf "$kept"
    mv -T "$fresh" "$kept" 2>/dev/null || rm -rf "$fresh"
}

# Unpacks a source package's archive once for each version, and sets `tree`. unpack ARCHIVE VERSION
unpack() {
    local name
    name=$(basename "$1" .tar.xz)
    tree=$target/build/$name
    if [ "$(cat "$target/build/unpacked" 2>/dev/null)" != "$2" ]; then
        rm -rf "$target"/build/linux-source-* "$out" "$target/build/unpacked"
        # What no x86 build reads and what takes up most of the space.
        tar -xJf "$1" -C "$target/build" --anchored \
            --exclude="$name/drivers/gpu/drm/amd/include" \
            --exclude="$name/tools/perf" \
            --exclude="$name/tools/testing"
        echo "$2" >"$target/build/unpacked"
    fi
}

kernel_make() {
    make -s -C "$tree" O="$out" -j"$jobs" "$@"
}

# Nothing but what the file says, or an end that names what the kernel refuses. configure FILE
configure() {
    local line refused=0
    mkdir -p "$out"
    kernel_make KCONFIG_ALLCONFIG="$1" allnoconfig
    while read -r line; do
        case $line in
        CONFIG_* | '# CONFIG_'*)
            # An option that this kernel does not have, or hides, is off as well.
            if [[ $line == '# '* ]] && ! grep -q "^$(cut -d' ' -f2 <<<"$line")=" "$out/.config"; then
                continue
            fi
            grep -qxF -- "$line" "$out/.config" || {
                echo "$(basename "$0"): the kernel's configuration refuses '$line'" >&2
                refused=1
            }
            ;;
        esac
    done <"$1"
    [ "$refused" = 0 ] || fail "$1 does not fit this kernel"
}

# Takes vmlinux, bzImage and System.map over.
take_kernel() {
    strip --strip-debug -o "$target/build/vmlinux" "$out/vmlinux"
    mv "$target/build/vmlinux" "$target/vmlinux"
    cp "$out/arch/x86/boot/bzImage" "$target/bzImage"
    cp "$out/System.map" "$target/System.map"
}
