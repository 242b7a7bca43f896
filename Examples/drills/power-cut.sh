#!/usr/bin/env bash
# Drill: the server is killed under a file system at work; nothing that was synced is lost. Needs
# root, FUSE and loop devices: nbdfuse makes the export a file, on which ext4 is mounted.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

fuse=
mounted=
writer=
undo() {
  if [[ -n $writer ]]; then { kill "$writer" && wait "$writer"; } 2>/dev/null; fi
  [[ -z $mounted ]] || umount -l mnt
  [[ -z $fuse ]] || { umount -l export; wait "$fuse"; }
}
unmounted() { umount "$1" 2>/dev/null; }
attach() {
  mkdir -p export mnt
  : >export.pid
  printf '  $ nbdfuse export/disk %s &\n' "${uri//$work\//}"
  nbdfuse -P "$work/export.pid" "$work/export/disk" "$uri" 2>>fuse.log &
  fuse=$!
  wait_until test -s export.pid
}
detach() {
  wait_until unmounted export
  wait "$fuse" || true
  fuse=
}

tell "A file system on a mirror of two disks."
try nbdmirror create data a.pv b.pv --size 64M
begin a.pv b.pv
attach
try mkfs.ext4 -q -F -E nodiscard export/disk
try mount -o loop export/disk mnt
mounted=yes

tell "Files are written and synced; from then on they must never be lost."
mkdir mnt/safe
for n in 1 2 3 4; do head -c 1M /dev/urandom >mnt/safe/file$n; done
(cd mnt/safe && sha256sum file*) >sums
try sync -f mnt

tell "Somebody goes on writing, and in the midst of it the server is killed."
(n=0; while head -c 300K /dev/urandom >mnt/busy$n; do sync -f mnt || exit; n=$(((n + 1) % 8)); done) \
  2>/dev/null &
writer=$!
wait_until test -e mnt/busy3
kill -9 "$server"
wait "$server" 2>/dev/null || true
server=
{ kill "$writer" && wait "$writer"; } 2>/dev/null || true
writer=
# The writer's last command may hold a file for a moment; the loop device holds the export.
wait_until unmounted mnt
mounted=
detach
printf '  $ kill -9 SERVER\n'

tell "The next start assembles the legs, compares where writes were under way, and serves at once."
begin a.pv b.pv
admin status
admin resync wait --timeout 60
attach
tell "The file system replays its journal, and is whole."
try mount -o loop export/disk mnt
mounted=yes
expect "what was synced is there" sh -c 'cd mnt/safe && sha256sum -c ../../sums'
try umount mnt
mounted=
try e2fsck -f -n export/disk
detach
admin scrub check
admin scrub wait
end
done_well
