#!/usr/bin/env bash
# The shipped model at work: recordings are streamed through the SimulEval agent, what is heard and said is shown as it
# comes, and a page with sound, words and figures is made of it.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: scripts/demo/demo.sh --model DIR --output DIR [options]
  --model DIR            folder with model.yaml, such as models/fr-en
  --output DIR           gets report.html, speech, subtitles, results.json, and SimulEval's logs in segment_Nms/
  --input FILE|DIR       recording or folder of recordings in any format, instead of the model's samples; the results
                         are in input/NAME of the output folder then
  --segments "320 40"    segment sizes in ms; the page shows the first (default: 320)
  --device DEVICE        cpu (default), cuda, ...
  --python PATH          interpreter (default: python)
HELP
}
die() { echo "error: $*" >&2; exit 2; }

model="" output="" input="" segments=320 device=cpu python=python
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --model | --output | --input | --segments | --device | --python) ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
  (($# > 1)) || die "$1 needs a value (see --help)"
  printf -v "${1#--}" '%s' "$2"
  shift 2
done
[[ -n $model && -n $output ]] || die "--model and --output are needed (see --help)"
[[ -f $model/model.yaml ]] || die "there is no model in $model, model.yaml is missing; the repository comes with models/fr-en"
[[ -z $input || -e $input ]] || die "INPUT: no such file or folder: $input"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/recipes/require_packages.sh
source "$here/../recipes/require_packages.sh"
require_packages "$python" torch simuleval soundfile sacrebleu
# pydub, which simuleval imports, warns about a program that nothing here needs.
exec "$python" -W "ignore:Couldn't find ffmpeg:RuntimeWarning" "$here/demo.py" --model "$model" \
  ${input:+--input "$input"} --output "$output" --segments "$segments" --device "$device"
