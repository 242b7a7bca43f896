#!/usr/bin/env bash
# make-initramfs.sh KERNEL OUTPUT: the guest's whole world in one archive for the boot loader: busybox,
# the host's tools for ext4 with the libraries that they name, the modules of a virtio disk, and
# guest-init.sh. KERNEL is a folder into which a linux-image package of Debian was unpacked.
#
# It is not compressed: to unpack it takes an emulated processor longer than to read it.
set -euo pipefail
kernel=$1 output=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,dev,etc,modules,proc,sys,tmp}
install /bin/busybox "$root/bin/busybox"
install "$(dirname "${BASH_SOURCE[0]}")/guest-init.sh" "$root/init"
cp /etc/mke2fs.conf "$root/etc/"
for tool in mke2fs e2fsck blkdiscard; do
  path=$(PATH=/usr/sbin:/sbin command -v "$tool")
  install "$path" "$root/sbin/$tool"
  ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
drivers=("$kernel"/lib/modules/*/kernel/drivers)
cp "${drivers[0]}"/virtio/virtio{,_ring,_pci,_pci_legacy_dev,_pci_modern_dev}.ko \
  "${drivers[0]}"/block/virtio_blk.ko "$root/modules/"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$output"
