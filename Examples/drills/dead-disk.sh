#!/usr/bin/env bash
# Drill: a disk dies while clients work; a new one takes its place. Needs root (a loop device dies).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tell "A mirror of two disks holds 32 MiB of somebody's data."
disk disk-b 80M
try nbdmirror create data a.pv "$disk" --size 64M
begin a.pv "$disk"
head -c 32M /dev/urandom >image
try nbdcopy image "$uri"
nbdmirror resync wait --control data.ctl >/dev/null

tell "Disk b dies: it takes no writes any more. The client that writes next does not notice."
cut_off disk-b
put after-death-1234 33554432
wait_until status_has '"state":"failed"'
admin status

tell "A new disk, c.pv, takes the place of the dead one. Clients work on meanwhile."
admin leg replace 1 c.pv
put during-copy-1234 37748736
admin resync wait --timeout 60
wait_until status_has '"state":"healthy"'
admin status

tell "Is everything there, and on both disks?"
admin scrub check
admin scrub wait
copy_out now
expect "the data from before the death" cmp -n 33554432 image now
expect "what was written without disk b" has after-death-1234 33554432
expect "what was written during the copy" has during-copy-1234 37748736
end
done_well
