#!/usr/bin/env bash
# Makes an initrd of the machine's own Debian programs (python3, perl, coreutils, gcc with its C library, busybox), of a Rust
# and a Go program, of v3.c for x86-64-v3 and of checks.c, to run as a TD on the test kernel. Leaves <workspace>/target/guest-programs/initrd. A program that
# the machine does not have is left out, and init says so.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/guest-programs
root=$target/root

[ -x /bin/busybox ] || "$workspace/scripts/install-packages"
rm -rf "$root"
mkdir -p "$root"/{dev,proc,sys,tmp} "$root"/usr/{bin,lib,lib64,sbin}
# Folders that the distribution merges with those of /usr.
for folder in bin lib lib64 sbin; do
    if [ -L "/$folder" ]; then cp -a "/$folder" "$root/$folder"; else mkdir -p "$root/$folder"; fi
done

# A file at its own path, and what its symbolic links lead to.
take() {
    local file next
    for file in "$@"; do
        [ -e "$file" ] || continue
        mkdir -p "$root$(dirname "$file")"
        cp -a "$file" "$root$file"
        [ -L "$file" ] || continue
        next=$(readlink "$file")
        case $next in /*) ;; *) next=$(dirname "$file")/$next ;; esac
        take "$next"
    done
}

# The libraries that programs name.
libraries() {
    local file library
    for file in "$@"; do
        while read -r library; do take "$library"; done < <(
            ldd "$(realpath "$file")" 2>/dev/null | grep -o '/[^ ]*' | sort -u
        )
    done
}

# Programs (or modules of programs) with their libraries.
program() {
    local file
    for file in "$@"; do
        [ -e "$file" ] || { echo "build.sh: without $file" >&2; continue; }
        take "$file"
        libraries "$file"
    done
}

install -m 755 /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
install -m 755 "$here/init" "$root/init"
gcc -O1 -static -Wall -o "$root/bin/checks" "$here/checks.c" -lm
gcc -O3 -march=x86-64-v3 -static -Wall -o "$root/bin/v3-program" "$here/v3.c" -lm
rustc -O --edition 2024 -o "$root/bin/rust-program" "$here/program.rs"
libraries "$root/bin/rust-program"
go=$(command -v go) || {
    # A compiler of the archive's is enough, unpacked: nothing of it is installed, and the program needs nothing of it.
    go=$(echo "$("$workspace/scripts/newer-package" --closure 'golang-1\.19-go')"/usr/lib/go-1.*/bin/go)
}
GOCACHE=$target/go-cache GOFLAGS=-mod=mod CGO_ENABLED=0 "$go" build -o "$root/bin/go-program" "$here/program.go"

program /usr/bin/{seq,dd,printf,sort,sha256sum,factor,numfmt,od,date} /usr/bin/perl /usr/bin/python3
python=$(realpath /usr/bin/python3)
library=/usr/lib/$(basename "$python")
mkdir -p "$root$library"
(cd "$library" && tar cf - --exclude=test --exclude='config-*' --exclude=__pycache__ --exclude=idlelib --exclude=tkinter \
    --exclude=ensurepip --exclude=pydoc_data .) | tar xf - -C "$root$library"
for module in "$library"/lib-dynload/_{hashlib,json,decimal}*.so; do program "$module"; done
for folder in $(perl -e 'print join "\n", grep { m{^/usr/lib} || m{^/usr/share/perl/} } @INC'); do
    for module in "$folder"/{strict,warnings,POSIX,Fcntl,XSLoader,Exporter,Carp,overload,vars,constant,integer,bytes,utf8}.pm \
        "$folder"/{Exporter,List,Scalar,Math,Tie,warnings,overload,auto/POSIX,auto/List,auto/Fcntl}; do
        take "$module"
    done
done

compiler=$(dirname "$(gcc -print-prog-name=cc1)")
program /usr/bin/gcc /usr/bin/as /usr/bin/ld "$compiler"/{cc1,collect2} "$(realpath /usr/bin/as)" "$(realpath /usr/bin/ld)"
take "$compiler"/{crtbegin.o,crtend.o,crtbeginS.o,crtendS.o,crtbeginT.o,libgcc.a,libgcc_eh.a,liblto_plugin.so,include}
take "$compiler"/{libgcc_s.so,lto-wrapper}
multiarch=/usr/lib/$(gcc -print-multiarch)
take "$multiarch"/{crt1.o,crti.o,crtn.o,Scrt1.o,rcrt1.o,libc.so,libc.a,libc_nonshared.a,libm.so,libm.a,libm.so.6,libmvec.so.1} "$multiarch"/libm-*.a "$multiarch"/libmvec.a
take /lib64/ld-linux-x86-64.so.2 "$multiarch"/{libc.so.6,ld-linux-x86-64.so.2}
mkdir -p "$root/usr/include" && cp -aL /usr/include/{*.h,bits,gnu,sys,"$(gcc -print-multiarch)"} "$root/usr/include/" 2>/dev/null || true
(cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio --quiet --null -o -H newc --reproducible) >"$target/initrd.new"
mv "$target/initrd.new" "$target/initrd"
