#!/usr/bin/env bash
# Drill: a disk silently holds other data than it was given; a scrub finds it, three legs vote.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tell "A mirror of three disks."
try nbdmirror create data a.pv b.pv c.pv --size 64M
begin a.pv b.pv c.pv
head -c 32M /dev/urandom >image
try nbdcopy image "$uri"

tell "Something overwrites 4 KiB of b.pv, at offset 5 MiB of the exported device. No error, no log."
start=$(nbdmirror examine b.pv | sed -n 's/^ *data: *at \([0-9]*\) bytes.*/\1/p')
try dd if=/dev/urandom of=b.pv bs=4096 count=1 seek=$(((start + 5242880) / 4096)) \
  conv=notrunc,fsync status=none

tell "A scrub compares all legs. It names the place and the leg that is outvoted, and 'wait' fails."
admin scrub check
refused nbdmirror scrub wait --control data.ctl
admin scrub status

tell "Repair takes the content of the majority."
admin scrub repair
admin scrub wait

tell "Another check finds nothing; the clients' data is what it was."
admin scrub check
admin scrub wait
copy_out now
expect "the data is what was written" cmp -n 33554432 image now
end
expect "b.pv holds the right block again" \
  cmp -n 4096 -i $((start + 5242880)):5242880 b.pv image
done_well
