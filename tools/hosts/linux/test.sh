#!/usr/bin/env bash
# TDs on Linux's KVM, on the emulated server: `tdvisor run --backend kvm` as an unmodified kernel's only program. Prints TAP.
#
#   tools/hosts/linux/test.sh [CASE…]      hello, two, linux, faults, row, three, killed, doctor, selftest; all if none is named
#
# `tdvisor` is linked statically and goes into an initial RAM disk, with the test guest's kernel and the cases of kvm-cases. Each
# case is one boot. Measurements are compared with those of the emulated backend and with the prediction.
#
# TDVISOR_PROFILE: how it is built; release if absent. TDVISOR_SECONDS: how long a boot may take.
# TDVISOR: the program that emulates the server, instead of the one that is built here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
host=$workspace/target/hosts/linux
guest=$workspace/target/linux
target=$workspace/target/hosts/kvm
cmdline="console=ttyS0 panic=-1 tdvisor.steps=tdx,cpus,disk,report"

fail() {
    echo "Bail out! $*"
    exit 2
}

"$here/build.sh" >&2
"$workspace/tools/guests/linux/build.sh" >&2
# The last crate alone is linked another way: what it stands on is shared with ordinary builds.
cargo rustc --quiet --locked --profile "${TDVISOR_PROFILE:-release}" --manifest-path "$workspace/Cargo.toml" -p tdvisor --bin tdvisor --message-format json -- \
    -C target-feature=+crt-static >"${TMPDIR:-/tmp}/tdvisor-kvm-build.$$"
static=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "${TMPDIR:-/tmp}/tdvisor-kvm-build.$$" | tail -1)
rm "${TMPDIR:-/tmp}/tdvisor-kvm-build.$$"
tdvisor=${TDVISOR:-$static}
! readelf -d "$static" | grep -q NEEDED || fail "tdvisor is not linked statically"

root=$target/root
rm -rf "$root"
mkdir -p "$root/bin"
strip -o "$root/bin/tdvisor" "$static"
cp "$guest/bzImage" "$root/bzImage"
cp "$guest/initrd" "$root/guest-initrd"
cp "$here/kvm-cases" "$root/script"
printf '%s' "$cmdline" >"$root/guest-cmdline"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) >"$target/initrd"

# A host that runs one case; its console goes to a file.
boot() {
    "$tdvisor" server --cpus "$2" --memory 2G --timeout "${TDVISOR_SECONDS:-3000}" \
        --kernel "$host/vmlinux" --initrd "$target/initrd" --initrd "$host/initrd" \
        --append "tdvisor.steps=tdx,kvm,script tdvisor.cases=$1" >"$target/$1.console" 2>"$target/$1.summary"
}
# The lines of a case's TD, without time stamps.
lines() {
    sed -n "s/^\[[^]]*\] TD| $1: //p" "$target/$1.console"
}
# What hello-td prints of itself is what the emulated backend has.
hello_is_measured_alike() {
    local value
    "$tdvisor" run --json "${@:2}" </dev/null 2>/dev/null | tr ',{' '\n\n' |
        sed -n 's/^ *"mrtd":"\{0,1\} *"\{0,1\}\([0-9a-f]\{96\}\)".*/MRTD \1/p; s/^ *"\(RTMR[0-3]\)": *"\([0-9a-f]\{96\}\)".*/\1 \2/p' >"$target/$1.values"
    [ "$(wc -l <"$target/$1.values")" = 5 ] || return 1
    while read -r value; do
        lines "$1" | grep -qF "$value" || { echo "# $value is not what the TD says"; return 1; }
    done <"$target/$1.values"
}
# The TDREPORT that the guest printed has the emulated backend's registers.
linux_is_measured_alike() {
    truncate -s 1M "$target/disk"
    "$tdvisor" run --json --kernel "$guest/bzImage" --initrd "$guest/initrd" --vcpus 2 --memory 256M --disk "$target/disk" \
        --cmdline "$cmdline" </dev/null 2>/dev/null | tr ',{' '\n\n' |
        sed -n 's/^ *"mrtd": *"\([0-9a-f]\{96\}\)".*/\1/p; s/^ *"RTMR[0-3]": *"\([0-9a-f]\{96\}\)".*/\1/p' >"$target/linux.values"
    [ "$(wc -l <"$target/linux.values")" = 5 ] || return 1
    lines linux | tr -d '\r' | sed -n '/begin report/,/end report/p' | grep -v tdvisor-init | base64 -d | od -An -v -tx1 |
        tr -d ' \n' >"$target/linux.report"
    local value
    while read -r value; do
        grep -qF "$value" "$target/linux.report" || { echo "# $value is not in the TDREPORT"; return 1; }
    done <"$target/linux.values"
}
case_passes() {
    local cpus=1
    case $1 in two | linux | three) cpus=2 ;; esac
    if ! boot "$1" "$cpus" || ! grep -q "kvm-case: $1 ok" "$target/$1.console"; then
        sed 's/^/# /' "$target/$1.console" "$target/$1.summary" | tail -60
        return 1
    fi
    case $1 in
    hello) hello_is_measured_alike hello hello-td ;;
    two) hello_is_measured_alike two hello-td --vcpus 2 ;;
    linux) linux_is_measured_alike ;;
    esac
}

all=(hello two linux faults row three killed doctor selftest)
[ $# = 0 ] || all=("$@")
echo "TAP version 13"
echo "1..${#all[@]}"
number=0
failures=0
for one in "${all[@]}"; do
    number=$((number + 1))
    if case_passes "$one"; then
        instructions=$(sed -n 's/^ *host code *\([0-9]*\) instructions.*/\1/p' "$target/$one.summary" | head -1)
        echo "ok $number - $one ($instructions instructions)"
    else
        echo "not ok $number - $one"
        failures=$((failures + 1))
    fi
done
[ $failures = 0 ]
