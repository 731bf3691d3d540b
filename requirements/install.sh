#!/usr/bin/env bash
# Install with pip what a lock names, and say how far it is: by itself pip says nothing for minutes, or 400 lines.
# usage: requirements/install.sh PYTHON LOCK [PIP_OPTION...]
set -euo pipefail

python=$1 lock=$2
shift 2
log=$(mktemp)
all=$(grep -c '^[a-zA-Z].*==' "$lock")

# What pip is at, in one line that is written over in a terminal, and a line every half minute elsewhere.
tell() {
  local seconds=0 every=30 place='%s\n' text
  if [[ -t 1 ]]; then every=1 place='\r%-78.78s'; fi
  for (( ; ; seconds += 1)); do
    if ((seconds % every == 0)); then
      text="  $(grep -c '^Collecting' "$log" || true) of $all packages$(sed -n 's/^Collecting \([^ =]*\).*/, \1/p' "$log" | tail -n 1)"
      if grep -q '^Installing collected' "$log"; then text="  $all of $all packages are here and being unpacked"; fi
      # shellcheck disable=SC2059
      printf "$place" "$text ($seconds s)"
    fi
    sleep 1  # no longer, so that nothing is left waiting when the work is done
  done
}

tell &
teller=$!
trap 'kill "$teller" 2>/dev/null || true; rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
status=0
"$python" -m pip install --progress-bar off --require-hashes "$@" -r "$lock" >"$log" 2>&1 || status=$?
kill "$teller" 2>/dev/null || true
if [[ -t 1 ]]; then printf '\r%78s\r' ''; fi
if ((status)); then
  { sed -n '/^ERROR/,$p' "$log" | grep . || tail -n 20 "$log"; } | head -n 20 >&2
  exit "$status"
fi
echo "  $all packages are installed ($SECONDS s)"
