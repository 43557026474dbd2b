#!/usr/bin/env bash
# What a container of the image does, without an engine that makes one: the files that the Containerfile copies, and nothing else,
# are the root of a file system; its user runs its command there, without a network, without /dev and /proc, and without a
# capability. Needs user namespaces.
#
#   tools/containers/check.sh target/release-archive/tdvisor-VERSION-x86_64-linux
set -euo pipefail
recipe=$(dirname "$(realpath "$0")")/Containerfile
context=$(realpath "${1:?the folder that the image is built from}")

fail() { echo "containers: $*" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
while read -r -a words; do
    to=$root${words[-1]}
    for file in "${words[@]:0:${#words[@]}-1}"; do
        [ -f "$context/$file" ] || fail "$context has no $file, which the recipe copies"
        case $to in */) mkdir -p "$to" ;; esac
        cp "$context/$file" "$to"
    done
done < <(sed -n 's/^COPY //p' "$recipe")

# `FROM scratch`: whatever the program needs is in it.
if LC_ALL=C readelf --program-headers "$root/tdvisor" | grep -q INTERP; then
    fail "the program needs an interpreter: it is not static"
fi
words() { python3 -c 'import json, sys; print("\n".join(json.loads(sys.argv[1])))' "$(sed -n "s/^$1 //p" "$recipe")"; }
mapfile -t command < <(words ENTRYPOINT; words CMD)
user=$(sed -n 's/^USER //p' "$recipe")
# A user of its own name space has no capability once the program is executed.
said=$(env -i "$(command -v setpriv)" --no-new-privs "$(command -v unshare)" --user --map-user="${user%:*}" --map-group="${user#*:}" \
    --net --pid --fork --kill-child --root="$root" "${command[@]}" 2>&1) || fail "the command fails: $said"
grep -q "MRTD" <<<"$said" || fail "no TD ran: $said"
echo "containers: ${command[*]} ran as $user where there is nothing but $(cd "$root" && find . -type f | sort | tr '\n' ' ')"
