#!/usr/bin/env bash
# Drill: a cable comes loose and is plugged in again; only what was missed is copied. Needs root.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tell "A mirror of two disks, filled with 32 MiB."
disk disk-b 80M
try nbdmirror create data a.pv "$disk" --size 64M
begin a.pv "$disk"
head -c 32M /dev/urandom >image
try nbdcopy image "$uri"
tell "(The mirror settles: after some seconds without writes no region counts as written to.)"
wait_until status_has '"dirtyRegions":0'

tell "The cable of disk b comes loose; one write happens meanwhile."
cut_off disk-b
put while-loose-5678 1048576
wait_until status_has '"state":"failed"'
admin status

tell "The cable is back. Readd brings the leg in; the log knows what it missed."
plug_in disk-b
admin leg readd 1
admin resync wait --timeout 60
admin resync status
expect "one region of 1 MiB was copied, not 64" status_has '"bytesDone":1048576'
expect "both legs are in sync" status_has '"state":"healthy"'
expect "what was written meanwhile is there" has while-loose-5678 1048576
admin scrub check
admin scrub wait
end
done_well
