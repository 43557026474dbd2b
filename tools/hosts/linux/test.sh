#!/usr/bin/env bash
# TDs on Linux's KVM, on the emulated server: `tdvisor run --backend kvm`, or `tdvisor serve`, as an unmodified kernel's only program. Prints TAP.
#
#   tools/hosts/linux/test.sh [CASE…]      all if none is named:
#       hello small two linux faults row three killed doctor selftest quote qgs serve     see kvm-cases
#       nodevice locked full      what the doctor says, and with what a TD is refused, without the device, the right to open it,
#                         and room for one more TD
#       kexec             a second kernel, started by the first without a reset of the platform
#       without:LINK      what the doctor says on a server whose firmware left that link out, and with kvm_intel.tdx off (tdx)
#
# `tdvisor` is linked statically and goes into an initial RAM disk, with the test guest's kernel and the cases of kvm-cases.
# A case begins where a host with that disk waits for it, with KVM loaded: from a snapshot that is made once and kept while
# what it comes from is the same. A host with a link left out is booted. Measurements are compared with those of the emulated
# backend and with the prediction.
#
# TDVISOR_PROFILE: how it is built; release if absent. TDVISOR_SECONDS: how long a case may take.
# TDVISOR: the program that emulates the server, instead of the one that is built here.
# TDVISOR_INJECT: SEAMCALLs that fail from the beginning of each case on, as `tdvisor server --inject` takes them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
host=$workspace/target/hosts/linux
guest=$workspace/target/linux
target=$workspace/target/hosts/kvm
cmdline="console=ttyS0 panic=-1 tdvisor.steps=tdx,cpus,disk,report"
timeout=(--timeout "${TDVISOR_SECONDS:-3000}")

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

# What a host boots from; the cases are behind it.
host_of() {
    echo --cpus "$1" --memory 2G --kernel "$host/vmlinux" --initrd "$target/initrd" --initrd "$host/initrd"
}
# A snapshot of a host with so many processors that waits for a case; a resumed one needs the program that made it.
snapshot_of() {
    local inputs file
    inputs=$(cat "$tdvisor" "$host/vmlinux" "$target/initrd" "$host/initrd" "$here/test.sh" | sha256sum | cut -c1-16)
    file=$target/ready-$1-$inputs.snapshot
    if [ ! -s "$file" ]; then
        rm -f "$target/ready-$1-"*.snapshot
        # shellcheck disable=SC2046
        "$tdvisor" server $(host_of "$1") "${timeout[@]}" --append "tdvisor.steps=tdx,kvm,script tdvisor.cases=ask" \
            --snapshot "$file" --snapshot-at "kvm-case: ready" </dev/null >"$target/ready-$1.console" 2>"$target/ready-$1.summary" ||
            { sed 's/^/# /' "$target/ready-$1.console" "$target/ready-$1.summary" | tail -60 >&2; return 1; }
    fi
    echo "$file"
}
# A host that runs one case; its console goes to a file.
run() {
    local snapshot
    snapshot=$(snapshot_of "$2") || return 1
    echo "$1" | "$tdvisor" server --resume "$snapshot" "${timeout[@]}" ${TDVISOR_INJECT:+--inject "$TDVISOR_INJECT"} >"$target/$1.console" 2>"$target/$1.summary"
}
# The host broke no rule of the module, and left its structures sound.
keeps_the_rules() {
    grep -q "the module's structures add up" "$target/$1.summary" && ! grep -qE '^ *violation' "$target/$1.summary"
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
# What the doctor names first on a host that lacks a link: the link, and what to do.
sentence_without() {
    case $1 in
    vmx) echo "The first missing link: BIOS: virtualisation (VMX) (MSR 0x3a is 0x1); to do: switch on 'Intel Virtualization" ;;
    memory-encryption) echo "The first missing link: BIOS: memory encryption (TME) (MSR 0x982 is 0x1); to do: switch on 'Memory Encryption" ;;
    key-ids) echo "The first missing link: BIOS: TDX key ids (0 for TDX (MSR 0x87)); to do: switch on 'TME Multi-Tenant" ;;
    seam-range) echo "The first missing link: BIOS: memory for the module (SEAMRR) (MSR 0x1401 is " ;;
    movdir64b) echo "The first missing link: TDX module (" ;;
    tdx) echo "The first missing link: kvm_intel.tdx (N); to do: add 'kvm_intel.tdx=1' to the kernel's command line" ;;
    *) return 1 ;;
    esac
}
# With what a TD is refused, and what the doctor names first.
sentences_of() {
    case $1 in
    nodevice)
        echo "/dev/kvm (not there); to do: modprobe kvm_intel tdx=1"
        echo "/dev/kvm cannot be opened: the kernel answered ENOENT (No such file or directory); load KVM with 'modprobe kvm_intel tdx=1'"
        ;;
    locked)
        echo "permission (EACCES (Permission denied)); to do: become a member of the group"
        echo "/dev/kvm cannot be opened: the kernel answered EACCES (Permission denied); become a member of the group"
        ;;
    full)
        echo "room for one more TD (/sys/fs/cgroup/tds has 0 TDs of at most 0); to do: end a TD"
        echo "the TD cannot be initialised (KVM_TDX_INIT_VM): the kernel answered EBUSY (Device or resource busy); the cgroup's limit of TDs is reached"
        ;;
    esac
}
is_refused_with_its_sentences() {
    local doctor refusal
    { read -r doctor; read -r refusal; } < <(sentences_of "$1")
    sed -n 's/^.*TD| doctor: //p' "$target/$1.console" | grep -qF "The first missing link: $doctor" ||
        { echo "# the doctor does not say: $doctor"; return 1; }
    sed -n 's/^.*TD| refused: //p' "$target/$1.console" | grep -qF "$refusal" ||
        { echo "# the refusal does not say: $refusal"; return 1; }
}
doctor_names() {
    local link=$1 sentence options=() append="tdvisor.steps=script tdvisor.cases=missing"
    sentence=$(sentence_without "$link") || { echo "# there is no link '$link'"; return 1; }
    case $link in
    tdx) append="$append kvm_intel.tdx=0" ;;
    movdir64b) options=(--feature "-$link") ;;
    *) options=(--without "$link") ;;
    esac
    # shellcheck disable=SC2046
    "$tdvisor" server $(host_of 1) "${timeout[@]}" "${options[@]}" --append "$append" </dev/null \
        >"$target/missing.console" 2>"$target/missing.summary" && grep -q "kvm-case: missing ok" "$target/missing.console" &&
        sed -n 's/^.*TD| doctor: //p' "$target/missing.console" | grep -qF "$sentence" && return 0
    sed 's/^/# /' "$target/missing.console" "$target/missing.summary" | tail -60
    return 1
}
# The second kernel finds the module initialised by the first, as on hardware: SEAMCALL 33 (TDH.SYS.INIT) is SYS_INIT_NOT_PENDING.
kexec_ends_as_on_hardware() {
    local root=$target/kexec
    rm -rf "$root"
    mkdir -p "$root/bin"
    gcc -Os -static -Wall -Wextra -Werror -o "$root/bin/kexec" "$workspace/tools/hosts/kexec/kexec.c"
    cp "$host/bzImage" "$root/host-bzImage"
    cp "$host/initrd" "$root/host-initrd"
    cat >"$root/script" <<'S'
kexec /host-bzImage /host-initrd "$(sed 's/tdvisor.steps=[^ ]*/tdvisor.steps=tdx/' /proc/cmdline)"
S
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) >"$target/kexec.initrd"
    local status=0 lines
    "$tdvisor" server --memory 1G --kernel "$host/vmlinux" --initrd "$target/kexec.initrd" --initrd "$host/initrd" \
        --deterministic 1 "${timeout[@]}" --append "tdvisor.steps=tdx,script" </dev/null \
        >"$target/kexec.console" 2>"$target/kexec.summary" || status=$?
    lines=("tdvisor-host: tdx ok" "kexec_core: Starting new kernel"
        "virt/tdx: SEAMCALL (0x0000000000000021) failed: 0xc000050000000000" "tdvisor-host: tdx failed")
    local line
    [ $status = 1 ] && keeps_the_rules kexec && for line in "${lines[@]}"; do
        grep -qF "$line" "$target/kexec.console" || { echo "# '$line' is missing"; return 1; }
    done && return 0
    sed 's/^/# /' "$target/kexec.console" "$target/kexec.summary" | tail -60
    return 1
}
case_passes() {
    local cpus=1
    case $1 in two | linux | three) cpus=2 ;; kexec) kexec_ends_as_on_hardware; return ;; without:*) doctor_names "${1#without:}"; return ;; esac
    if ! run "$1" "$cpus" || ! grep -q "kvm-case: $1 ok" "$target/$1.console" || ! keeps_the_rules "$1"; then
        sed 's/^/# /' "$target/$1.console" "$target/$1.summary" | tail -60
        return 1
    fi
    case $1 in
    hello) hello_is_measured_alike hello hello-td ;;
    two) hello_is_measured_alike two hello-td --vcpus 2 ;;
    linux) linux_is_measured_alike ;;
    nodevice | locked | full) is_refused_with_its_sentences "$1" ;;
    esac
}

all=(hello small two linux faults row three killed doctor selftest quote qgs serve nodevice locked full
    kexec without:{vmx,memory-encryption,key-ids,seam-range,movdir64b,tdx})
[ $# = 0 ] || all=("$@")
echo "TAP version 13"
echo "1..${#all[@]}"
number=0
failures=0
for one in "${all[@]}"; do
    number=$((number + 1))
    begin=$SECONDS
    if case_passes "$one"; then result=ok; else result="not ok" failures=$((failures + 1)); fi
    echo "$result $number - $one ($((SECONDS - begin)) s)"
done
[ $failures = 0 ]
