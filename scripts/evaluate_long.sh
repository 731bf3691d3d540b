#!/usr/bin/env bash
# Evaluate a model on long speech: the sentences of a test set on end, scored by resegmentation.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: scripts/evaluate_long.sh --model CHECKPOINT --source WAVS --target TEXT --output DIR [options]

  --model CHECKPOINT   checkpoint to evaluate, or folder with model.yaml (--random-arch ARCH instead: random weights)
  --vocoder VOCODER    unit vocoder, for speech output (default: the one beside the checkpoint)
  --source WAVS        list of 16 kHz mono sound files, a sentence a line
  --target TEXT        reference translations, one a line
  --source-text TEXT   transcripts of the sources, one a line
  --output DIR         gets the test sets, a run for each pause and segment size, results.json
  --pauses "0 0.3"     seconds between two sentences (default: "0 0.3 0.6 1.2")
  --minutes N          most of a stream (default: 10)
  --streams N          streams for each pause (default: 1)
  --part-minutes N     of quality by position (default: 1)
  --limit N            only the first N sentences (default 0: all)
  --segments "320"     segment sizes in ms (default: "320")
  --task TASK          s2st (default) or s2tt
  --language LANG      of the output (default: en)
  --policy, --policy-option, --stride-n, --lag-k, --right-context-frames, --user-dir, --least-language,
  --least-confidence, --max-tempo, --precision, --device VALUE, and --vad    as for evaluate.sh
  --force              do finished runs again

It wants the extra long-form (OmniSTEval) and Perl. An interrupted evaluation goes on where it stopped. A stream of an
hour takes OmniSTEval some minutes and 4 GB of memory.
HELP
}

die() { echo "error: $*" >&2; exit 1; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
# shellcheck source=scripts/judging/agent_options.sh
source "$repository/scripts/judging/agent_options.sh"
model="" random_arch="" source="" target="" source_text="" output=""
pauses="0 0.3 0.6 1.2" minutes=10 streams=1 part_minutes=1 limit=0 segments=320 task=s2st language=en
options=() force=()

while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --force) force=(--force); shift; continue ;;
    --vad) options+=(--vad); shift; continue ;;
    --model | --random-arch | --source | --target | --source-text | --output | --pauses | --minutes | --streams | \
    --part-minutes | --limit | --segments | --task | --language | --vocoder | --device) ;;
    *) is_for_agents "$1" || die "unknown option $1; see scripts/evaluate_long.sh --help" ;;
  esac
  (($# > 1)) || die "$1 needs a value"
  if is_for_agents "$1" || [[ $1 == --vocoder || $1 == --device ]]; then
    options+=("$1" "$2")
  else
    name=${1#--}; printf -v "${name//-/_}" '%s' "$2"
  fi
  shift 2
done

[[ -n $model || -n $random_arch ]] || die "--model is missing; see scripts/evaluate_long.sh --help"
for name in source target output; do
  [[ -n ${!name} ]] || die "--$name is missing; see scripts/evaluate_long.sh --help"
done
[[ $task =~ ^s2(st|tt)$ ]] || die "--task is s2st or s2tt, not '$task'"

# shellcheck source=scripts/recipes/require_packages.sh
source "$repository/scripts/recipes/require_packages.sh"
require_packages "$python" torch simuleval soundfile
scoring() { "$python" -W "ignore:Couldn't find ffmpeg" "$repository/scripts/judging/long_form.py" "$@"; }
scoring check

[[ -z $model ]] || options+=(--model "$model")
[[ -z $random_arch ]] || options+=(--random-arch "$random_arch")
options+=(--task "$task" --language "$language" --segments "$segments" --no-asr)
texts=()
[[ -z $source_text ]] || texts=(--source-text "$source_text")
read -r -a pause_list <<<"$pauses"
"$python" "$repository/scripts/judging/long_set.py" --source "$source" --target "$target" "${texts[@]}" \
  --pauses "${pause_list[@]}" --minutes "$minutes" --streams "$streams" --limit "$limit" --output "$output/sets"

speech=()
[[ $task != s2st ]] || speech=(--speech)
for set in "$output"/sets/*/; do
  name=$(basename "$set")
  texts=()
  [[ ! -f $set/source_text.txt ]] || texts=(--source-text "$set/source_text.txt")
  echo "$name"
  "$repository/scripts/evaluate.sh" "${options[@]}" "${force[@]}" "${texts[@]}" \
    --source "$set/source.txt" --target "$set/target.txt" --output "$output/$name" >"$output/$name.txt" ||
    die "the evaluation of $name failed; the same command goes on"
  [[ $name != alone ]] || continue
  for segment in $segments; do
    scoring score "$output/$name/segment_${segment}ms" --set "$set" --language "$language" \
      --part-minutes "$part_minutes" "${speech[@]}"
  done
done
scoring table "$output"
