//! A disk with a Debian whose init is systemd, for what takes a service manager.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hull_fixtures::debian;

/// What the scripts use beyond a minimal Debian.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "criu",
    "apparmor",
    "uidmap",
    "procps",
    "iproute2",
    "busybox-static",
];

/// Name under which the packages are kept among the fixtures.
const NAME: &str = "systemd";

/// Size of the file system; what is not written takes no room.
const SIZE: &str = "2G";

/// Modules to reach the disk, and what criu asks the kernel about sockets with.
pub(super) const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "unix_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "netlink_diag",
    "packet_diag",
];

/// The first stage mounts the disk, which qemu forgets the changes of, and leaves to its init what to run.
pub(super) const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r m; do insmod /mods/$m || echo \"cannot load $m\"; done < /mods/order
mkdir /disk
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; sleep 0.2; done
mount -t ext4 /dev/vda /disk
cp /bin/hull /bin/hulld /bin/hull-runtime /disk/usr/local/bin/
cp /test.sh /disk/test.sh
cp /test.service /disk/etc/systemd/system/hull-test.service
umount /proc /sys
exec switch_root /disk /lib/systemd/systemd
";

/// What its kernel is told besides.
pub(super) const COMMAND_LINE: &str = "systemd.unit=hull-test.service systemd.show_status=0";

/// The script, as the only thing this machine is for.
pub(super) const SERVICE: &str = "[Unit]
Requires=basic.target dbus.socket systemd-logind.service
After=basic.target dbus.socket systemd-logind.service
[Service]
Type=oneshot
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
StandardInput=null
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=-/bin/sh -c 'echo; sh /test.sh; echo VM-RESULT: $?; sleep 0.5; poweroff -ff'
";

/// Makes the disk, or finds it as it was made before.
pub(super) fn make(work: &Path) -> Result<PathBuf> {
    let disk = work.join("systemd.ext4");
    let archive = debian::rootfs(NAME, PACKAGES, &[])?;
    let newer = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    if disk.is_file() && newer(&disk)? > newer(&archive)? {
        return Ok(disk);
    }
    let tree = work.join("systemd.tree");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(&tree)?;
    run(Command::new("tar").arg("-C").arg(&tree).arg("-xf").arg(&archive))?;
    let part = disk.with_extension("part");
    let _ = fs::remove_file(&part);
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&part).arg(SIZE))?;
    fs::remove_dir_all(&tree)?;
    fs::rename(&part, &disk)?;
    Ok(disk)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
