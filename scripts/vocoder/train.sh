#!/usr/bin/env bash
# Train a unit vocoder on one voice. Stop it when you like; the same command goes on where it stopped.
#
#   scripts/vocoder/train.sh UNITS_TSV AUDIO_ROOT OUT [CONFIG] [further options of train.py]
#
# UNITS_TSV   header "id<TAB>audio<TAB>units"; units: space-separated, one each 20 ms, with repeats
# AUDIO_ROOT  folder that the paths in the column "audio" start from; 16 kHz
# OUT         receives checkpoint and finished vocoder
# CONFIG      default: the fast causal one; its num_embeddings must be the number of units
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
units=$1 audio_root=$2 out=$3
shift 3
config=$here/../../configs/vocoder/istft_small.json
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  config=$1
  shift
fi

exec "${PYTHON:-python}" "$here/train.py" --units "$units" --audio-root "$audio_root" --config "$config" --out "$out" "$@"
