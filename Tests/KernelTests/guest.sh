#!/bin/bash
# The first process of the guest kernel: runs one scenario of KernelTests and powers off.
#
# The root is the host's, read-only; /run and /mnt are the guest's own. The kernel's command line has
# PARAMETERS=FILE, a file of shell assignments: BINARY, MODULES, SCENARIO and what that takes.
# Every line for the host begins with "guest: "; the last one is "guest: PASS" or "guest: FAIL".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/t TMPDIR=/run/t LC_ALL=C TERM=dumb
# A scenario that has another first process comes here again from there.
if [[ -z ${IS_SERVICE:-} ]]; then
  mount -t proc proc /proc
  mount -t sysfs sys /sys
  mount -t tmpfs tmpfs /run
  mount -t tmpfs tmpfs /mnt
  grep -q ' /dev ' /proc/mounts || mount -t devtmpfs dev /dev
  mkdir -p /run/t /run/lock /mnt/fs
  ln -sn /proc/self/fd /dev/fd
  dmesg -C
fi
cd /run/t || exit 1
. "$PARAMETERS"
device=/dev/nbd0
socket=/run/t/lab.nbd
control=(--control /run/t/lab.ctl)
uri="nbd+unix:///lab?socket=$socket"
# More options of the server.
more=()

tell() { echo "guest: $*"; }

finish() {
  tell "$1"
  sync
  echo o >/proc/sysrq-trigger
  # The power goes off behind our back; the first process must not end before.
  sleep 60
}

fail() {
  tell "$*"
  for log in server.log attach.log step.log; do
    [[ -s $log ]] && tail -n 20 "$log" | while read -r line; do tell "  $log: $line"; done
  done
  dmesg | tail -n 30 | while read -r line; do tell "  kernel: $line"; done
  finish FAIL
}

# step NAME COMMAND...: has to succeed.
step() {
  local name=$1 start=$SECONDS
  shift
  "$@" >step.log 2>&1 || fail "failed: $name (status $?)"
  tell "ok: $name ($((SECONDS - start)) s)"
}

# until_true NAME COMMAND...: looks again and again until it is true. The deadline is for what hangs,
# not for a host with too much to do.
until_true() {
  local name=$1 deadline=$((SECONDS + 200))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "too late: $name"
    sleep 0.1
  done
}

module() { modprobe -d "$MODULES" "$1"; }

# --- the mirror

# serve NAME PV...: on the one socket of all scenarios.
serve() {
  local name=$1
  shift
  : >server.log
  "$BINARY" serve "$@" --socket "$socket" --control "/run/t/$name.ctl" "${more[@]}" >server.log 2>&1 &
  server=$!
  until_true "the server is ready" server_is_ready
}
# serve_anywhere PV...: where servers are that were told no place.
serve_anywhere() {
  : >server.log
  "$BINARY" serve "$@" >server.log 2>&1 &
  server=$!
  until_true "the server is ready" server_is_ready
}
server_is_ready() {
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  grep -qx ready server.log
}
admin() { "$BINARY" "$@" "${control[@]}"; }

start_mirror() {
  "$BINARY" create lab a.pv b.pv --size "$1" >step.log 2>&1 || fail "create failed"
  serve lab a.pv b.pv
}

# stop_and_compare BYTES: a clean stop, then the data areas of both PVs past the server.
stop_and_compare() {
  step "the server stops cleanly" admin stop
  local offset
  offset=$("$BINARY" examine --json a.pv | sed -n 's/.*"dataOffset" *: *\([0-9]*\).*/\1/p')
  [[ -n $offset ]] || fail "no dataOffset"
  step "the legs are equal" cmp -i "$offset" -n "$1" a.pv b.pv
}

# --- the work

make_file_system() {
  case $FILE_SYSTEM in
    ext4) step mkfs mkfs.ext4 -q -F "$device" ;;
    xfs) step "the module xfs" module xfs && step mkfs mkfs.xfs -q -f "$device" ;;
  esac
  step mount mount -t "$FILE_SYSTEM" "$device" /mnt/fs
}

check_file_system() {
  step umount umount /mnt/fs
  case $FILE_SYSTEM in
    ext4) step "e2fsck -fn" e2fsck -fn "$device" ;;
    xfs) step "xfs_repair -n" xfs_repair -n "$device" ;;
  esac
}

# write_files FOLDER COUNT: files of an odd size, and their sums beside the file system.
write_files() {
  mkdir "/mnt/fs/$1" || return 1
  head -c $(($2 * 61001)) /dev/urandom | split -b 61001 - "/mnt/fs/$1/" || return 1
  sync -f "/mnt/fs/$1"
  (cd /mnt/fs && sha256sum "$1"/*) >"sums.$1"
}

check_files() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
  (cd /mnt/fs && cat /run/t/sums.* | sha256sum --quiet -c)
}

is_encrypted() {
  admin connections --json >connections.json
  grep -q '"tls" *: *true' connections.json && ! grep -q '"tls" *: *false' connections.json
}
has_size() { [[ $(cat /sys/block/nbd0/size) == "$1" ]]; }

# No error in the kernel's log. PATTERN: lines of the driver that the scenario brings about.
check_kernel_log() {
  local known=$1
  dmesg | grep -E "nbd[0-9]*:|nbd[0-9]+\)|block nbd|I/O error|EXT4-fs (error|warning)|XFS.*(rror|orrupt)|JBD2|hung|blocked for more|WARNING|BUG" |
    grep -vE "$known" >kernel.log
  [[ -s kernel.log ]] || return 0
  tell "the kernel's log has:"
  while read -r line; do tell "  $line"; done <kernel.log
  fail "the kernel's log has lines that nothing here should cause"
}
# What a device says that is attached, scanned, used and detached.
calm='nbd0: detected capacity change|nbd0: NBD_DISCONNECT|nbd0: Disconnected due to user request|nbd0: shutting down sockets|EXT4-fs \(nbd0\): (mounted|unmounting)|XFS \(nbd0\): (Mounting|Ending|Unmounting)|nbd: registered device'

# --- the scenarios

# A file system through nbd-client; a leg fails and comes back meanwhile. With KEYS, a folder of
# certificates, encrypted by nbd-client.
scenario_client() {
  local keys=()
  if [[ -n ${KEYS:-} ]]; then
    more=(--tls require --tls-certificates "$KEYS" --tls-verify-peer)
    keys=(-enable-tls -cacertfile "$KEYS/ca-cert.pem" -certfile "$KEYS/client-cert.pem"
      -keyfile "$KEYS/client-key.pem" -tlshostname localhost)
  fi
  step "the module nbd" module nbd
  start_mirror 320M
  step nbd-client nbd-client -unix "$socket" "$device" -N lab -C "$CONNECTIONS" -b "$BLOCK_SIZE" \
    "${keys[@]}"
  if [[ -n ${KEYS:-} ]]; then
    # What `connections` shows may be a quarter of a second old.
    step "the connections are encrypted" until_true "encrypted" is_encrypted
  fi
  until_true "the device has its size" has_size 655360
  [[ $(cat /sys/block/nbd0/queue/logical_block_size) == "$BLOCK_SIZE" ]] || fail "other blocks"
  make_file_system
  step "write files" write_files healthy 24
  step "leg 1 fails" admin leg fail 1
  step "write files without it" write_files degraded 24
  rm /mnt/fs/healthy/*a && sed -i '/a$/d' sums.healthy
  step "leg 1 comes back" admin leg readd 1
  step "write files meanwhile" write_files returning 24
  step "all is copied" admin resync wait
  step "every file is right" check_files
  step fstrim fstrim -v /mnt/fs
  step "every file is right after fstrim" check_files
  check_file_system
  step "detach" nbd-client -d "$device"
  stop_and_compare 335544320
  check_kernel_log "$calm"
}

# attach OPTIONS...: in the background, until it says that it is attached.
attach() {
  : >attach.log
  "$BINARY" attach "$device" ${uri:+--uri "$uri"} "$@" >attach.log 2>&1 &
  watcher=$!
  until_true "it is attached" is_attached
}
is_attached() {
  kill -0 "$watcher" 2>/dev/null || fail "attach ended"
  grep -qE 'nbd0: (attached|taken over)' attach.log
}
# said COUNT WORDS: the watcher said WORDS at least so often.
said() { (($(grep -c "$2" attach.log) >= $1)); }
# ends STATUS: the watcher ends with this status.
ends() {
  until_true "attach ends" is_gone "$watcher"
  wait "$watcher"
  local status=$?
  [[ $status == "$1" ]] || fail "attach ended with $status, not $1"
  tell "ok: attach ends with $1"
}
is_gone() { ! kill -0 "$1" 2>/dev/null; }

sectors() { awk '{ print $3 + $7 }' /sys/block/nbd0/stat; }
# has_worked SECTORS: the device has transferred more than that.
has_worked() { (($(sectors) > $1)); }

# Writes with verification until it is enough.
load() {
  local round=0
  until [[ -e enough ]]; do
    round=$((round + 1))
    fio --name=load --filename="$1" --size=12m --direct=1 --rw=randwrite --bsrange=4k-64k \
      --ioengine=io_uring --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 \
      --verify_state_save=0 --randseed=$round --fsync=16 >fio.log 2>&1 || {
      cp fio.log step.log
      touch load-failed
      return 1
    }
  done
  echo "$round" >load-done
}

# The server is killed and started again under a load on a mounted file system.
scenario_kill() {
  step "the module nbd" module nbd
  start_mirror 64M
  attach --connections "$CONNECTIONS" --timeout 3 --dead-timeout 300
  FILE_SYSTEM=ext4
  make_file_system
  step "write files" write_files before 8
  load /mnt/fs/load &
  local loader=$! life before
  for life in 1 2 3 4 5; do
    before=$(sectors)
    until_true "the load works" has_worked $((before + 2048))
    kill -9 "$server"
    wait "$server" 2>/dev/null
    until_true "the loss is seen" said "$life" "connection lost"
    serve lab a.pv b.pv
    until_true "it is reconnected" said "$life" "reconnected after"
    before=$(sectors)
    until_true "the load goes on" has_worked $((before + 64))
    [[ -e load-failed ]] && fail "the load failed"
    tell "ok: life $life"
  done
  touch enough
  wait "$loader" || fail "the load failed"
  tell "ok: the load did $(cat load-done) rounds"
  step "every file is right" check_files
  check_file_system
  kill -TERM "$watcher"
  ends 0
  [[ -e /sys/block/nbd0/pid ]] && fail "still attached"
  tail -n 40 attach.log | while read -r line; do tell "  attach: $line"; done
  stop_and_compare 67108864
  check_kernel_log "$calm|$lost"
}
# What the driver says when connections die and are replaced, and when a device is taken over.
lost='nbd: nbd0 already in use|nbd0: (Receive control failed|Receive data failed|Send control failed|Send data failed|Request send failed, requeueing|Dead connection, failed to find a fallback|Connection timed out, retrying|reconnected socket|Send disconnect failed|Attempted send on invalid socket)'

refused() { ! "$@" >step.log 2>&1; }

# Who may have the device, and who may not.
scenario_life() {
  refused "$BINARY" attach "$device" --uri "$uri" || fail "attached without a driver"
  grep -q 'modprobe nbd' step.log || fail "no word of modprobe"
  step "the module nbd" module nbd
  refused "$BINARY" attach "$device" --uri "$uri" || fail "attached without a server"
  refused "$BINARY" detach "$device" || fail "detached what is not attached"
  start_mirror 64M
  "$BINARY" create lab c.pv d.pv --size 64M >step.log 2>&1 || fail "create failed"
  "$BINARY" create lab e.pv f.pv --size 48M >step.log 2>&1 || fail "create failed"

  attach --timeout 5 --dead-timeout 300
  FILE_SYSTEM=ext4
  make_file_system
  step "write files" write_files first 4
  refused "$BINARY" detach "$device" || fail "detached under a mounted file system"
  tell "ok: detach refuses a mounted device"
  kill -TERM "$watcher"
  ends 1
  step "the mounted device works without a watcher" write_files second 4
  attach --timeout 5 --dead-timeout 300
  said 1 "taken over" || fail "not taken over"

  # Mirrors of the same name at the same socket, one of the same size.
  local pvs life=0
  for pvs in "c.pv d.pv" "e.pv f.pv"; do
    life=$((life + 1))
    kill -9 "$server"
    wait "$server" 2>/dev/null
    until_true "the loss is seen" said $life "connection lost"
    # shellcheck disable=SC2086
    serve lab $pvs
    until_true "the other mirror is refused" said $life "the server has another export"
    ! said $life "reconnected after" || fail "sockets of another mirror"
    step "the other server stops" admin stop
    serve lab a.pv b.pv
    until_true "it is reconnected" said $life "reconnected after"
    step "write files again" write_files "again$life" 4
    tell "ok: another mirror gets nothing ($pvs)"
  done
  step "every file is right" check_files
  check_file_system
  step "detach" "$BINARY" detach "$device"
  ends 0
  said 1 "was detached" || fail "no word of the detachment"

  attach --timeout 1 --dead-timeout 2
  kill -9 "$server"
  wait "$server" 2>/dev/null
  ends 1
  said 1 "no server came within 2 s" || fail "no word of giving up"
  [[ -e /sys/block/nbd0/pid ]] && fail "still attached"
  check_kernel_log "$calm|$lost"
}

# Every way to name a server, and a watcher that leaves.
scenario_places() {
  step "the module nbd" module nbd
  step "the loopback network" busybox ip link set lo up
  more=(--listen 127.0.0.1:10809)
  start_mirror 64M
  uri=nbd://127.0.0.1:10809/lab
  attach --connections 2 --block-size 4096 --timeout 3 --dead-timeout 300 --leave
  [[ $(cat /sys/block/nbd0/queue/logical_block_size) == 4096 ]] || fail "other blocks"
  FILE_SYSTEM=ext4
  make_file_system
  step "write files" write_files first 4
  kill -9 "$server"
  wait "$server" 2>/dev/null
  until_true "the loss is seen" said 1 "connection lost"
  serve lab a.pv b.pv
  until_true "it is reconnected" said 1 "reconnected after"
  step "write files over TCP after a kill" write_files second 4
  kill -TERM "$watcher"
  ends 0
  [[ -e /sys/block/nbd0/pid ]] || fail "--leave did not leave it attached"
  step "the device works after its watcher left" write_files third 4
  attach --timeout 3 --dead-timeout 300
  said 1 "taken over" || fail "not taken over"
  step "every file is right" check_files
  check_file_system
  step "detach" "$BINARY" detach "$device"
  ends 0
  stop_and_compare 67108864

  uri=
  "$BINARY" create other c.pv d.pv --size 48M >step.log 2>&1 || fail "create failed"
  serve_anywhere a.pv b.pv
  attach
  until_true "the only mirror is attached" has_size 131072
  kill -TERM "$watcher"
  ends 0
  [[ -e /sys/block/nbd0/pid ]] && fail "still attached"
  serve_anywhere c.pv d.pv
  refused "$BINARY" attach "$device" || fail "attached one of two mirrors"
  grep -q lab step.log && grep -q other step.log || fail "no word of which mirrors there are"
  attach --name other
  until_true "the mirror of that name is attached" has_size 98304
  tell "ok: a mirror is found by its name"
  kill -TERM "$watcher"
  ends 0
  step "one server stops" "$BINARY" stop --name lab
  step "the other one stops" "$BINARY" stop
  check_kernel_log "$calm|$lost"
}

main_pid() { systemctl show -P MainPID "$1"; }
# is_at UNIT STATE: such as "active".
is_at() { [[ $(systemctl is-active "$1") == "$2" ]]; }
# has_restarted COUNT: the server's unit was started again so often.
has_restarted() { (($(systemctl show -P NRestarts nbdmirror@lab.service) >= $1)); }
reconnected() { (($(journal nbdmirror-attach@lab.service | grep -c 'reconnected after') >= $1)); }
journal() { journalctl -o cat -u "$1" 2>/dev/null; }

# What units promise, with systemd as the first process.
service_systemd() {
  local server=nbdmirror@lab.service attach=nbdmirror-attach@lab.service pid
  BINARY=/run/bin/nbdmirror
  step "the module nbd" module nbd
  mkdir -p /etc/nbdmirror /var/lib/nbdmirror
  chmod 700 /var/lib/nbdmirror
  "$BINARY" create lab /var/lib/nbdmirror/{a,b}.pv --size 64M >step.log 2>&1 || fail "create failed"
  echo "PVS=/var/lib/nbdmirror/a.pv /var/lib/nbdmirror/b.pv" >/etc/nbdmirror/lab.conf
  printf 'DEVICE=%s\nOPTIONS=--connections 2 --timeout 3\n' "$device" >/etc/nbdmirror/lab.attach

  step "the socket is there" systemctl start nbdmirror@lab.socket
  is_at "$server" inactive || fail "the server runs already"
  step "a client starts the server" nbdinfo --size 'nbd+unix:///lab?socket=/run/nbdmirror/lab.nbd'
  until_true "the server is active" is_at "$server" active
  pid=$(main_pid "$server")
  [[ $(cat "/proc/$pid/oom_score_adj") == -1000 ]] || fail "the OOM killer may take it"
  grep -qE 'VmLck:\s+[1-9]' "/proc/$pid/status" || fail "its memory is not locked"
  step "an administrator finds it" "$BINARY" status

  step "the device is attached" systemctl start "$attach"
  FILE_SYSTEM=ext4
  make_file_system
  step "write files" write_files first 4
  kill -9 "$pid"
  step "a killed server comes back" until_true restarts has_restarted 1
  step "the device is reconnected" until_true reconnected reconnected 1
  step "write files after a kill" write_files second 4
  # Nothing is wrong with it but that it does not turn.
  kill -STOP "$(main_pid "$server")"
  step "the watchdog ends a server that hangs" until_true restarts has_restarted 2
  step "the device is reconnected again" until_true reconnected reconnected 2
  step "write files after a hang" write_files third 4
  step "every file is right" check_files
  check_file_system
  step "the device is detached" systemctl stop "$attach"
  if [[ -e /sys/block/nbd0/pid ]]; then
    journal "$attach" >step.log
    fail "still attached"
  fi
  step "the server stops" systemctl stop nbdmirror@lab.socket "$server"
  [[ $(systemctl show -P Result "$server") == success ]] || fail "not a clean stop"
  cd /var/lib/nbdmirror || fail "no PVs"
  local offset
  offset=$("$BINARY" examine --json a.pv | sed -n 's/.*"dataOffset" *: *\([0-9]*\).*/\1/p')
  step "the legs are equal" cmp -i "$offset" -n 67108864 a.pv b.pv
  check_kernel_log "$calm|$lost"
}

# systemd as the first process, with the units of Examples/systemd. What it gets from the scenario:
# /etc and /var/lib of the guest's own, and the binary, which cannot be put into /usr/bin.
scenario_systemd() {
  [[ -z ${IS_SERVICE:-} ]] || return 0
  mkdir -p /run/bin /run/systemd/system
  cp "$BINARY" /run/bin/nbdmirror || fail "no room for the binary"
  cp -a /etc /run/etc && mount --bind /run/etc /etc && mount -t tmpfs tmpfs /var/lib ||
    fail "no /etc and /var/lib of our own"
  local unit
  for unit in "$UNITS"/*; do
    sed 's#/usr/bin/nbdmirror#/run/bin/nbdmirror#' "$unit" >"/run/systemd/system/${unit##*/}"
  done
  # The units say 30 s.
  mkdir /run/systemd/system/nbdmirror@lab.service.d
  printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/nbdmirror@lab.service.d/soon.conf
  cat >/run/systemd/system/scenario.service <<UNIT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=PARAMETERS=$PARAMETERS IS_SERVICE=1
ExecStart=/bin/bash $0
StandardOutput=file:/dev/console
StandardError=file:/dev/console
UNIT
  # systemd does this, unless it takes the host's root for a container's: what is unmounted has to be
  # gone for services with a view of their own, too.
  mount --make-rshared /
  exec /lib/systemd/systemd --unit=scenario.service --show-status=no
}

"scenario_$SCENARIO"
[[ -z ${IS_SERVICE:-} ]] || "service_$SCENARIO"
finish PASS
