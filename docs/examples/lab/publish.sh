#!/usr/bin/env bash
# Every morning on one machine: merge what was handed in, build the site, judge the history, publish.
#   publish.sh lab.env
# Exit code: 1 while something is slower than it was and not mended; 5 (too few nights to judge) is no failure.
set -euo pipefail
source "$1"
mkdir -p "$LAB/merged" "$INCOMING"
LAB=$(cd "$LAB" && pwd)
INCOMING=$(cd "$INCOMING" && pwd)
exec 9>"$LAB/.lock"
flock -n 9 || { echo "another run is still publishing from $LAB"; exit 2; }
cd "$CHECKOUT"

shopt -s nullglob
bundles=("$INCOMING"/*.zip)
if [ ${#bundles[@]} -gt 0 ]; then
  # each record once; bundles that contradict what is there stop here, with the words why, and stay where they are
  "$PYTHON" -m bench job=merge "sources=[$(IFS=,; echo "${bundles[*]}")]" paths.results="$LAB/results"
  mv "${bundles[@]}" "$LAB/merged/"
fi

gate=0
"$PYTHON" -m bench job=report paths.results="$LAB/results" paths.site="$LAB/site"
"$PYTHON" -m bench job=compare paths.results="$LAB/results" paths.site="$LAB/site" ${SINCE:+since="$SINCE"} || gate=$?

if [ -n "$WEB" ]; then
  mkdir -p "$WEB"
  cp -a "$LAB/site/." "$WEB/"  # or: rsync -a "$LAB/site/" HOST:FOLDER/
  echo "published in $WEB"
fi
if [ "$gate" = 5 ]; then gate=0; fi
exit "$gate"
