#!/usr/bin/env bash
# Writes the metrics of every running mirror where node_exporter's textfile collector finds them.
#
#   nbdmirror-textfile.sh DIRECTORY
#
# Run it every 15 seconds, for example from a systemd timer. The control socket is a unix socket that
# only its owner may use, so Prometheus cannot scrape it itself; this keeps it that way.
set -euo pipefail
directory=${1:?usage: $0 DIRECTORY}
if ((EUID == 0)); then sockets=/run/nbdmirror; else sockets=${XDG_RUNTIME_DIR:?}/nbdmirror; fi

shopt -s nullglob
for file in "$directory"/nbdmirror-*.prom; do
  name=${file##*/nbdmirror-}
  [[ -e $sockets/${name%.prom}.ctl ]] || rm -f "$file"
done
for socket in "$sockets"/*.ctl; do
  name=${socket##*/}
  name=${name%.ctl}
  target=$directory/nbdmirror-$name.prom
  # Renamed into place: the collector never sees half a file. One that cannot be asked has none.
  if nbdmirror metrics --control "$socket" >"$target.$$"; then
    mv "$target.$$" "$target"
  else
    rm -f "$target.$$" "$target"
  fi
done
