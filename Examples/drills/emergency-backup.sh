#!/usr/bin/env bash
# Drill: one disk is left and nobody knows for how long; a backup first, without a write to it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tell "A mirror of two disks with 32 MiB of data. Then disk b is gone."
try nbdmirror create data a.pv b.pv --size 64M
begin a.pv b.pv
head -c 32M /dev/urandom >image
try nbdcopy --flush image "$uri"
end
rm b.pv

tell "Without b the mirror does not start by itself: somebody has to say that this is meant."
refused nbdmirror serve a.pv --socket data.nbd --control data.ctl

tell "Read-only and degraded: not one byte of the last good disk is written."
sha256sum a.pv >before
begin a.pv --degraded --read-only
admin status
try nbdcopy "$uri" backup.img
end
expect "the backup holds the data" cmp -n 33554432 image backup.img
expect "the disk was not touched" sha256sum -c before

tell "With the backup in a safe place: on with the service, and a new second leg."
begin a.pv --degraded
admin leg replace 1 c.pv
admin resync wait --timeout 60
wait_until status_has '"state":"healthy"'
admin status
copy_out now
expect "the data is still what it was" cmp backup.img now
end
done_well
