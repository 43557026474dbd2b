#!/usr/bin/env bash
# Makes the root file system of a distribution as a disk: Debian stable with systemd, as mmdebstrap installs it from the
# archive of this machine's own apt sources, and a small repository that a test serves to it.
#
# Leaves <workspace>/target/rootfs/{disk.img,repository/,version}. The root user's password is `tdvisor`. The kernel and its
# modules are not in it: init-distribution loads them before it (tools/guests/linux/distribution.sh). Needs root, for the
# packages are configured in a chroot; nothing is installed on this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../../.." && pwd)
target=$workspace/target/rootfs
suite=trixie
packages=systemd-sysv,udev,dbus,libpam-systemd,iproute2,procps,kmod,e2fsprogs,kexec-tools,systemd-resolved

fail() {
    echo "rootfs/build.sh: $*" >&2
    exit 1
}

stamp=$(cat "$here/build.sh" "$here/check" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$target/version" 2>/dev/null)" = "$stamp" ] && [ -s "$target/disk.img" ]; then
    exit 0
fi
[ "$(id -u)" -eq 0 ] || fail "needs root: packages are configured in a chroot"
for tool in mkfs.ext4 dpkg-deb perl chroot; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done
tool=$("$workspace/scripts/newer-package" mmdebstrap) || fail "no suite has mmdebstrap"
# What newer-package derived from this machine's sources: the suite's archive, and its key.
store=${TDVISOR_PACKAGES:-$workspace/target/packages}
"$workspace/scripts/newer-package" --list mmdebstrap >/dev/null || fail "the archive cannot be reached"
read -r uri key < <(awk -v suite="$suite" '/^URIs:/ { uri = $2 } /^Suites:/ { it = $2 == suite } /^Signed-By:/ && it { print uri, $2 }' \
    "$store/.apt/suites.sources")
[ -n "${key:-}" ] || fail "this machine's archive has no suite $suite"

mkdir -p "$target"
rm -rf "$target/tree" "$target/version" "$target/disk.img"
LC_ALL=C perl "$tool/usr/bin/mmdebstrap" --mode=root --variant=minbase --include="$packages" \
    --aptopt='Acquire::Languages "none"' \
    "$suite" "$target/tree" "deb [signed-by=$key] $uri $suite main" >"$target/log" 2>&1 ||
    fail "mmdebstrap: $(tail -3 "$target/log")"

tree=$target/tree
install -m 755 "$here/check" "$tree/usr/local/sbin/check"
echo tdguest >"$tree/etc/hostname"
echo '127.0.0.1 localhost tdguest' >"$tree/etc/hosts"
echo 'LABEL=tdguest / ext4 errors=remount-ro 0 1' >"$tree/etc/fstab"
rm -rf "$tree"/usr/share/{doc,man,locale,info}/* "$tree"/var/lib/apt/lists/*
rm -f "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/*
printf '[Match]\nName=e*\n\n[Network]\nDHCP=yes\n' >"$tree/etc/systemd/network/50-dhcp.network"
# Nothing of a machine that exists once: each boot of the image finds its own.
: >"$tree/etc/machine-id"
chroot "$tree" systemctl enable --quiet systemd-networkd serial-getty@ttyS0 serial-getty@hvc0
# Whoever looks at both consoles in one stream sees one login after the other, and not their letters mixed.
mkdir -p "$tree/etc/systemd/system/serial-getty@hvc0.service.d"
printf '[Service]\nExecStartPre=/bin/sleep 5\n' >"$tree/etc/systemd/system/serial-getty@hvc0.service.d/later.conf"
# How fast this machine is does not decide whether a unit comes up or a login is in time: the test's own deadline does.
mkdir -p "$tree"/etc/systemd/system.conf.d "$tree"/etc/systemd/system/service.d
printf '[Manager]\nDefaultTimeoutStartSec=50min\nDefaultTimeoutStopSec=50min\nDefaultDeviceTimeoutSec=50min\n' \
    >"$tree/etc/systemd/system.conf.d/patient.conf"
printf '[Service]\nTimeoutStartSec=50min\nTimeoutStopSec=50min\nWatchdogSec=0\n' >"$tree/etc/systemd/system/service.d/patient.conf"
sed -i 's/^LOGIN_TIMEOUT.*/LOGIN_TIMEOUT 3000/' "$tree/etc/login.defs"
# A test waits for the network by itself; a minute without one is no failure of the system.
chroot "$tree" systemctl disable --quiet systemd-networkd-wait-online
echo root:tdvisor | chroot "$tree" chpasswd

truncate -s 1G "$target/disk.img"
mkfs.ext4 -q -F -L tdguest -d "$tree" "$target/disk.img"
rm -rf --one-file-system "$tree"

# A repository with one package.
repository=$target/repository
rm -rf "$repository" "$target/package"
mkdir -p "$repository" "$target/package"/{DEBIAN,usr/bin}
printf '#!/bin/sh\necho installed over the network\n' >"$target/package/usr/bin/tdvisor-greeting"
chmod 755 "$target/package/usr/bin/tdvisor-greeting"
cat >"$target/package/DEBIAN/control" <<'END'
Package: tdvisor-greeting
Version: 1.0
Architecture: all
Maintainer: tdvisor
Description: a package that a guest installs over its network
END
file=tdvisor-greeting_1.0_all.deb
dpkg-deb --root-owner-group --build "$target/package" "$repository/$file" >/dev/null
{
    cat "$target/package/DEBIAN/control"
    echo "Filename: ./$file"
    echo "Size: $(stat -c %s "$repository/$file")"
    echo "SHA256: $(sha256sum "$repository/$file" | cut -d' ' -f1)"
} >"$repository/Packages"
rm -rf "$target/package"
echo "$stamp" >"$target/version"
