#!/bin/busybox sh
# The first and only program of the tests' guest: does what the test types on the second serial line.
#
# Each line is run by a shell of its own; its output goes back, then a line `= STATUS`. The kernel's
# messages are on the first serial line, so that they never stand between the two. The host's tools are
# in /sbin; this shell takes its own of the same names unless it is given the path.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /disk
ln -s /proc/mounts /etc/mtab
# Each needs those before it.
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  insmod "/modules/$module.ko"
done

# write_files DIRECTORY: makes files until /tmp/stop is there. A file that is durable is named with its
# checksum in /tmp/acked, not earlier; the first error ends it and stands in /tmp/failed.
write_files() {
  index=0
  while [ ! -e /tmp/stop ]; do
    index=$((index + 1))
    dd if=/dev/urandom of=/tmp/source bs=4k count=$((1 + index % 16)) status=none
    if ! dd if=/tmp/source of="$1/f$index" bs=64k conv=fsync status=none 2>/tmp/why; then
      echo "f$index: $(cat /tmp/why)" >/tmp/failed
      return
    fi
    echo "$(sha256sum </tmp/source | cut -d' ' -f1) f$index" >>/tmp/acked
  done
}

exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
echo ready
while read -r line; do
  (eval "$line") </dev/null
  echo "= $?"
done
