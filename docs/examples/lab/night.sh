#!/usr/bin/env bash
# One night on one machine: measure the lab's suite into a folder of its own, pack it, hand it in.
#   night.sh lab.env
# A night that was broken off continues where it was when this runs again. Exit code: that of the sweep.
set -euo pipefail
source "$1"
mkdir -p "$NIGHTS"
NIGHTS=$(cd "$NIGHTS" && pwd)
case $INCOMING in *:*) ;; *) mkdir -p "$INCOMING"; INCOMING=$(cd "$INCOMING" && pwd) ;; esac
exec 9>"$NIGHTS/.lock"
flock -n 9 || { echo "another night is still being measured into $NIGHTS"; exit 2; }
cd "$CHECKOUT"

code=0
# shellcheck disable=SC2086  # OVERRIDES are several words
"$PYTHON" -m bench suite="$SUITE" $OVERRIDES tracking=off report=off paths.results="$NIGHTS/$NIGHT" || code=$?
case $code in
  0 | 3) ;;  # 3: some rows failed, and say so
  *) echo "the sweep ended with $code; nothing is handed in, what was measured is kept in $NIGHTS/$NIGHT"; exit "$code" ;;
esac

"$PYTHON" -m bench job=bundle report=off paths.results="$NIGHTS/$NIGHT"
name=$MACHINE.$NIGHT.zip
case $INCOMING in
  *:*) rsync -t "$NIGHTS/$NIGHT.bundle.zip" "$INCOMING/$name" ;;
  *) cp "$NIGHTS/$NIGHT.bundle.zip" "$INCOMING/.$name" && mv "$INCOMING/.$name" "$INCOMING/$name" ;;  # whole or not at all
esac
echo "handed in $INCOMING/$name"
exit "$code"
