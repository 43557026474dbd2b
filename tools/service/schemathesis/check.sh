#!/usr/bin/env bash
# Asks `tdvisor serve` and `tdvisor vmm` what follows from the documents that they print, by schemathesis, and fails if an answer
# does not. Needs python3, curl, and a network for pip; everything is in a temporary folder and in target/schemathesis.
# Schemathesis speaks TCP: a bridge of the loopback interface is between it and the sockets, open to this machine's users meanwhile.
#
#   tools/service/schemathesis/check.sh PROGRAM [EXAMPLES [SEED]]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 PROGRAM [EXAMPLES [SEED]]" >&2; exit 2; }
program=$(realpath "$1") examples=${2:-50} seed=${3:-1}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."

venv=target/schemathesis
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5
st=$PWD/$venv/bin/schemathesis
export SCHEMATHESIS_HOOKS=$here/hooks.py PYTHONDONTWRITEBYTECODE=1

folder=$(mktemp -d)
started=()
end() {
    local process
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null && wait "$process" || true
    done
    started=()
}
trap 'end; rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$folder"

say() { printf '\n-- %s\n' "$*"; }
# start LOG COMMAND…: in the background, until the end.
start() {
    "${@:2}" >"$folder/$1" 2>&1 &
    started+=($!)
}
# port LOG SOCKET: the port at which the socket can be had.
port() {
    local _
    for _ in $(seq 600); do [ -S "$2" ] && break || sleep 0.1; done
    [ -S "$2" ] || { cat "$folder"/*.log >&2; exit 1; }
    start "$1" python3 "$here/bridge.py" "$2"
    for _ in $(seq 600); do [ -s "$1" ] && break || sleep 0.1; done
    port=$(head -1 "$1")
}
# ask METHOD URL [JSON]
ask() { curl --silent --show-error --fail-with-body --request "$1" "$2" ${3:+--json "$3"} >/dev/null; }
# check CONFIGURATION DOCUMENT URL [OPTION…]
check() {
    "$st" --config-file "$1" --no-color run "$2" --url "$3" --checks all --max-examples "$examples" --seed "$seed" "${@:4}"
}

status=0
guest='{"memory": 8388608, "payload": {"firmware": "fault-td", "cmdline": "halt"}, "inspectable": true, "dump": true,
    "trace": true, "inspector": true'

"$program" serve --openapi >td-v1.json
start serve.log "$program" serve --socket "$folder/td.sock" --state-dir "$folder/state"
port td.port "$folder/td.sock"
say "tdvisor serve: every operation, and what comes of one after the other"
url=http://127.0.0.1:$port
check "$here/td-v1.toml" td-v1.json "$url" || status=1
# of PHASE ORDERS [OPTION…]: what is said of a TD in this phase, to which the orders bring it.
of() {
    say "tdvisor serve: a TD that is $1"
    ask POST "$url/td/v1/tds" "$guest, \"name\": \"$1\"}"
    for order in $2; do ask PUT "$url/td/v1/tds/$1/$order"; done
    printf '\n[parameters]\n"path.td" = "%s"\n' "$1" | cat "$here/td-v1.toml" - >"$folder/$1.toml"
    check "$folder/$1.toml" td-v1.json "$url" --include-path-regex '[{]td[}]' --phases coverage,fuzzing \
        "${@:3}" || status=1
}
of created '' --exclude-method DELETE --exclude-path-regex '/boot$'
# The events of a TD that is paused do not go on.
of paused 'boot pause' --exclude-method DELETE --exclude-path-regex '/(boot|resume|stop|events)$'
of ended 'boot stop' --exclude-method DELETE --exclude-path-regex '/boot$'
end

"$program" vmm --openapi >api-v1.json
start vmm.log "$program" vmm --always-td --no-shutdown --api-socket "$folder/vmm.sock"
port vmm.port "$folder/vmm.sock"
url=http://127.0.0.1:$port/api/v1
# Not asked: what ends the process, and what starts a VM of whatever was asked for, with files of whatever name. Not checked: whether
# a method that an endpoint does not have is answered with 405, for Cloud Hypervisor answers it with 400.
never=(--exclude-path /vmm.shutdown --exclude-path /vm.boot --exclude-checks unsupported_method)
guest='{"memory": {"size": 67108864}, "payload": {"firmware": "fault-td", "cmdline": "halt"}, "console": {"mode": "Off"}}'
say "tdvisor vmm: no VM, and VMs that are made"
check "$here/api-v1.toml" api-v1.json "$url" "${never[@]}" --exclude-path /vm.reboot || status=1
say "tdvisor vmm: a VM that does not run"
ask PUT "$url/vm.delete"
ask PUT "$url/vm.create" "$guest"
check "$here/api-v1.toml" api-v1.json "$url" "${never[@]}" --exclude-path /vm.reboot --exclude-path /vm.delete || status=1
say "tdvisor vmm: a VM that runs"
ask PUT "$url/vm.delete"
ask PUT "$url/vm.create" "$guest"
ask PUT "$url/vm.boot"
check "$here/api-v1.toml" api-v1.json "$url" "${never[@]}" --exclude-path /vm.delete --exclude-path /vm.shutdown || status=1
end
exit $status
