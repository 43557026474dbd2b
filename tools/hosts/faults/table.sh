#!/usr/bin/env bash
# What becomes of a host whose SEAMCALLs fail: Linux's KVM on the emulated server beside our own td-host, plan by plan. Prints
# README.md of this folder; `scripts/nightly faults` compares all but the rows of chaos, which depend on time.
#
#   tools/hosts/faults/table.sh [PLAN…]      all plans if none is named
#
# Each plan is one `hello-td` with 32 MiB, from the host's first call for it to its teardown.
# TDVISOR_PROFILE: as for tools/hosts/linux/test.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
profile=${TDVISOR_PROFILE:-release}
folder=$profile
[ "$profile" != dev ] || folder=debug
tdvisor=$workspace/target/$folder/tdvisor
console=$workspace/target/hosts/kvm/small.console

busy() { echo "$1#1=OPERAND_BUSY:RCX"; }
plans=()
for leaf in MNG.CREATE MNG.KEY.CONFIG MNG.ADDCX MNG.INIT VP.CREATE VP.ADDCX VP.INIT VP.WR MEM.SEPT.ADD MEM.PAGE.ADD \
    MR.EXTEND MR.FINALIZE MEM.PAGE.AUG VP.ENTER MEM.RANGE.BLOCK MEM.TRACK MEM.PAGE.REMOVE PHYMEM.PAGE.WBINVD VP.FLUSH \
    MNG.VPFLUSHDONE PHYMEM.CACHE.WB MNG.KEY.FREEID PHYMEM.PAGE.RECLAIM; do
    plans+=("$(busy "TDH.$leaf")")
done
plans+=("TDH.MEM.PAGE.AUG#5=OPERAND_INVALID:RCX" "chaos:1/100" "chaos:2/20")
[ $# = 0 ] || plans=("$@")

# What became of the TD, its key id and the host; then the first line in which KVM names what failed.
of_kvm() {
    TDVISOR_INJECT=$1 TDVISOR_SECONDS=300 "$workspace/tools/hosts/linux/test.sh" small >/dev/null 2>&1 || true
    local fate line
    if grep -qE "Kernel panic|Oops" "$console" || ! grep -q "tdvisor-host: done" "$console"; then
        fate="host died"
    elif grep -q "kvm-case: small ok" "$console"; then
        fate=survived
    elif grep -q "kvm-case: small failed status=0 wanted=0 tds=1" "$console"; then
        fate="survived; its key id is lost"
    elif grep -q "kvm-case: small failed status=2" "$console"; then
        fate="no TD"
    else
        fate="TD died"
    fi
    # Operands behind the status are addresses, which differ from run to run.
    line=$(sed -n 's/^\[[^]]*\] //; s/\(failed: 0x[0-9a-f]*\).*/\1/; /SEAMCALL\|TDH_/{/TD|/d;p;q}' "$console" | tr -d '\r')
    [ -n "$line" ] || line=$(sed -n 's/^\[[^]]*\] TD| small: tdvisor: //p' "$console" | head -1 | cut -c1-120 | tr -d '\r')
    echo "$fate | ${line:+\`$line\`}"
}
of_td_host() {
    local status=0
    "$tdvisor" run hello-td --memory 32M --inject "$1" --quiet </dev/null >/dev/null 2>&1 || status=$?
    case $status in
    0) echo survived ;;
    2) echo "no TD" ;;
    4 | 5) echo "host died" ;;
    *) echo "TD died" ;;
    esac
}

cat <<'H'
# What becomes of a host whose SEAMCALLs fail

Written by `table.sh`; `scripts/nightly faults` compares. One `hello-td` with 32 MiB each, from the host's first call for it to its teardown;
`#1` is the first call of its kind, `chaos:SEED/N` makes about one call in N fail in a way that a host has to survive.

| plan | Linux 7.3's KVM | what its log or `tdvisor` says | td-host |
|---|---|---|---|
H
for plan in "${plans[@]}"; do
    echo "| \`$plan\` | $(of_kvm "$plan") | $(of_td_host "$plan") |"
done
